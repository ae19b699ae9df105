"""What happened, in lines, and who is busiest."""

from __future__ import annotations

from mobility.store import Happening
from mobility.terminal.happenings import Busy, busiest, described, line, top
from mobility.terminal.text import Palette, cells
from tests.unit.terminal.made import NOW

STORY = [
    ("", "agent started", "pid 1"),
    ("web1", "prestart", ""),
    ("web1", "announced", ""),
    ("web1", "flapped", "penalty 1000, suppressed at 6000"),
    ("web1", "withdrawn", "does not run"),
    ("db1", "prestart", ""),
    ("web1", "announced", ""),
    ("db1", "lost", "10.0.0.2 has claimed it"),
]
EVENTS = [Happening(number, NOW - 60 + number, *each) for number, each in enumerate(STORY)]


def test_an_event_is_one_line() -> None:
    assert line(described(EVENTS[0])) == "2026-11-21 15:59:00Z  -                         agent started  pid 1"
    assert line(described(EVENTS[1])) == "2026-11-21 15:59:01Z  web1                      prestart"
    bad = Happening(9, NOW, "web1", "problem", "\x1b[2J\nfine")
    assert line(described(bad)) == "2026-11-21 16:00:00Z  web1                      problem   [2J fine"
    assert line(described(bad), Palette(coloured=True)).count("\x1b") == 2


def test_the_busiest_come_first() -> None:
    web = Busy("web1", 900.0, 1, 1, 0, 2, 1, "announced", NOW - 54)
    db = Busy("db1", 0.0, 0, 1, 1, 0, 0, "lost", NOW - 53)
    still = Busy("dns1", 3000.0, 0, 0, 0, 0, 0, "", 0.0)
    penalties = {"web1": 900.0, "dns1": 3000.0, "quiet": 0.0}
    assert busiest(EVENTS, penalties) == [still, web, db]
    assert busiest(EVENTS, penalties, "flaps") == [web, still, db]
    assert busiest(EVENTS, penalties, "moves") == [db, still, web]
    assert busiest(EVENTS, penalties, "starts") == [web, db, still]
    assert busiest(EVENTS, penalties, "announced") == [web, still, db]
    assert busiest([], {}) == []


def test_top_is_a_table() -> None:
    several = busiest(EVENTS, {"web1": 900.0})
    assert top(several, NOW, 3600.0, host="a") == [
        "host a, the last 1 h: 2 jails with news, 1 flap, announced 2 times, withdrawn 1 time",
        "JAIL  PENALTY  FLAPS  STARTS  MOVES  ANNOUNCED  WITHDRAWN  LAST",
        "web1  900      1      1       0      2          1          announced 54s ago",
        "db1   0        0      1       1      0          0          lost 53s ago",
    ]
    narrow = top(several, NOW, 3600.0, host="a", width=60, note="the agent does not run")
    assert narrow[1:] == [
        "the agent does not run",
        "JAIL  PENALTY  FLAPS  STARTS  ANNOUNCED  LAST",
        "web1  900      1      1       2          announced 54s ago",
        "db1   0        0      1       0          lost 53s ago",
    ]
    assert all(cells(each) <= 60 for each in narrow[2:])


def test_top_of_nothing_is_a_line() -> None:
    assert top([], NOW, 900.0, host="a") == [
        "host a, the last 15 min: 0 jails with news, 0 flaps, announced 0 times, withdrawn 0 times"
    ]


def test_ten_thousand_jails_that_flap() -> None:
    events = [
        Happening(number, NOW - 100, f"web{number % 10000:05d}", "flapped" if number % 3 else "announced", "")
        for number in range(100_000)
    ]
    found = busiest(events, {})
    assert len(found) == 10_000
    assert sum(each.flaps + each.announced for each in found) == 100_000
    assert found[0].flaps == max(each.flaps for each in found)
