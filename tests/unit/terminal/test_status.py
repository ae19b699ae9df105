"""`mobility status`: which jails, in which order, and what is seen of them: at one jail, and at ten thousand."""

from __future__ import annotations

from typing import Any

import pytest

from mobility import damping
from mobility.metrics.causes import NOT_WANTED, Cause
from mobility.terminal.status import DARK, STATES, check_lines, counts, fitting, lines, order, select, state
from mobility.terminal.text import Palette, cells
from tests.unit.terminal.made import NOW, check, dark, host, jail, many, stopped

LESS = {"name": "lan", "stance": "less", "reason": "failover lan: less: the other node is MASTER"}


def names(jails: list[dict[str, Any]]) -> list[str]:
    return [each["name"] for each in jails]


@pytest.mark.parametrize(
    ("what", "described", "drained"),
    [
        ("announced", jail(), ()),
        ("announced", jail(failover=LESS), ("*",)),
        ("stopped", stopped(), ("*",)),
        ("starting", stopped(stand="paired"), ()),
        ("starting", dark(reason="is starting: its poststart hook has not come yet"), ()),
        ("stopping", dark(stand="closing"), ()),
        ("not_granted", dark(addresses=[], routes={}, stand="absent"), ()),
        ("drained", dark(), ("web1",)),
        ("drained", dark(), ("*boot",)),
        ("drained", dark(ownership="lost"), ("*",)),
        ("not_ready", dark(checks=[check(), check(ready=False)]), ()),
        ("suppressed", dark(reason=f"{damping.SUPPRESSED} (penalty 7000)"), ()),
        ("failover", dark(failover=LESS | {"stance": "withdrawn"}), ("*",)),
        ("lost", dark(ownership="lost"), ("other",)),
        ("waiting", dark(ownership="waiting"), ()),
        ("frozen", dark(ownership="frozen"), ()),
        ("problem", dark(stand="absent", reason="has no vnet of its own"), ()),
        ("no_address", dark(reason="no interface of the host has 198.51.100.7"), ()),
        ("no_bridge", dark(ready=True, routes={"a": {"spine": "no bridge: ExaBGP does not run"}}), ()),
        ("no_session", dark(ready=True, routes={"a": {"spine": "no session: hold time"}}), ()),
        ("held_back", dark(ready=True, routes={"a": {"spine": "held back: no RFC 8950", "b": "no session"}}), ()),
        ("refused", dark(ready=True, routes={"a": {"spine": "announced"}, "b": {"spine": "refused: x"}}), ()),
        ("sending", dark(ready=True, routes={"a": {"spine": "sending"}}), ()),
    ],
)
def test_one_word_says_where_a_jail_stands(what: str, described: dict[str, Any], drained: tuple[str, ...]) -> None:
    assert state(described, drained) == what


def test_its_words_are_those_of_the_metrics() -> None:
    causes = {str(each) for each in Cause}
    assert {*STATES} - causes == {"announced", "stopped"}
    assert not {*DARK} & {str(each) for each in NOT_WANTED}
    # what the command can not tell from the agent's words is a problem to it
    assert causes - {*STATES} == {"file", "taken"}


def test_names_patterns_and_filters_choose() -> None:
    jails = [jail("db1"), dark("web1", ownership="lost"), dark("web2"), stopped("web3")]
    assert names(select(jails)) == ["db1", "web1", "web2", "web3"]
    assert names(select(jails, ["web[12]", "db1"])) == ["db1", "web1", "web2"]
    assert names(select(jails, ["web*"], running=True)) == ["web1", "web2"]
    assert names(select(jails, dark=True)) == ["web1", "web2"]
    assert names(select(jails, dark=True, drained=["web2"])) == ["web1"]
    assert names(select(jails, states=["lost", "stopped"])) == ["web1", "web3"]
    assert select(jails, states=["frozen"]) == []


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("wbe1", "no jail here is called wbe1; did you mean web1?"),
        ("we", "did you mean web1 or web2?"),
        ("x*", "no jail here is called x[*]$"),
        ("x\x1b[2J", "is called x .2J$"),
    ],
)
def test_a_name_that_no_jail_has_is_no_empty_answer(pattern: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        select([jail("web1"), jail("web2")], [pattern])


def test_they_come_in_the_order_asked_for() -> None:
    jails = [
        jail("c", since=NOW - 5, penalty=10.0),
        stopped("b"),
        dark("a", ownership="lost", since=NOW - 50, penalty=900.0),
        jail("d", since=NOW - 5),
    ]
    assert names(order(jails, "name")) == ["a", "b", "c", "d"]
    assert names(order(jails, "since")) == ["c", "d", "a", "b"]
    assert names(order(jails, "state")) == ["a", "c", "d", "b"]
    assert names(order(jails, "penalty")) == ["a", "c", "b", "d"]


def test_two_jails_in_a_pipe() -> None:
    jails = [stopped("db1", addresses=["198.51.100.8"]), jail("web1")]
    assert lines(host(), jails, NOW) == [
        "host a: agent pid 4282, spine up",
        "JAIL  RUNNING  WIRED  READY  ANNOUNCED  SINCE  ADDRESSES                   WHY NOT",
        "db1   no       no     no     no         -      198.51.100.8                does not run",
        "web1  yes      yes    yes    yes        1m00   198.51.100.7 2001:db8:7::7",
    ]


def test_the_same_on_a_terminal_of_80_columns() -> None:
    jails = [
        dark("db1", reason="this host is drained since 2026-11-21 15:43:01Z: mobility undrain"),
        jail("web1", services=["64:ff9b::/96"]),
    ]
    assert lines(host(drained=["*"]), jails, NOW, width=80) == [
        "host a: agent pid 4282, spine up",
        "drained: the whole host",
        "JAIL  RUNNING  WIRED  READY  ANNOUNCED  SINCE  WHY NOT",
        "db1   yes      yes    no     no         1m00   this host is drained since",
        "                                               2026-11-21 15:43:01Z: mobility",
        "                                               undrain",
        "web1  yes      yes    yes    yes        1m00",
    ]


def test_one_of_whose_addresses_another_jail_has_is_announced_in_part() -> None:
    routes = {"198.51.100.7": {"spine": "announced"}, "2001:db8:7::7": {"spine": "not announced"}}
    (*_, line) = lines(host(), [jail(routes=routes, reason="2001:db8:7::7 is held by jail db1")], NOW)
    assert line.split()[:5] == ["web1", "yes", "yes", "yes", "partly"]
    assert line.endswith("2001:db8:7::7 is held by jail db1")
    (*_, line) = lines(host(), [dark(routes=routes)], NOW)
    assert line.split()[4] == "no"


def test_colours_tell_what_the_words_tell() -> None:
    red, green, yellow, faint = "\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[2m"
    jails = [jail("a"), dark("b", ownership="lost"), stopped("c"), dark("d")]
    palette = Palette(coloured=True)
    found = lines(host(bridge=False, drained=["d"]), jails, NOW, width=120, palette=palette)
    plain = lines(host(bridge=False, drained=["d"]), jails, NOW, width=120)
    assert f"{red}ExaBGP is not connected" in found[0]
    assert f"{green}yes" in found[3]
    assert f"{red}no" in found[4]
    assert faint in found[5]
    assert f"{yellow}is dark" in found[6]
    for code in (red, green, yellow, faint, "\x1b[1m", "\x1b[0m"):
        found = [line.replace(code, "") for line in found]
    assert found == plain


def test_what_a_jail_says_never_reaches_the_terminal_raw() -> None:
    bad = "exec check: \x1b[2Jall is well\r\n"
    shown = lines(host(problems=[bad]), [dark(f"x{bad}", reason=bad, checks=[check(said=bad)])], NOW, checks=True)
    assert all(line.isprintable() for line in shown)
    assert any("all is well" in line for line in shown)


def test_one_jail_has_its_checks_in_words() -> None:
    checks = [
        check(),
        check("tcp port 80 at 198.51.100.7", ready=False, said="Connection refused", failures=3, interval=10.0),
        check("exec /bin/true", streak=2, said="exit status 1", failures=2),
        check("http port 80/ at 198.51.100.7", ready=False, streak=1, rise=2, said="passed"),
        check("reach 2001:db8:7::7", at=None, ready=False, said="waits for its first answer"),
        check("reach 2001:db8:7::8", at=None, said="waits for its first answer"),
    ]
    assert list(check_lines(checks, NOW)) == [
        "check reach 198.51.100.7: passes: answered 7s ago, every 30 s, 0 of 12 failed",
        "check tcp port 80 at 198.51.100.7: does not pass: Connection refused 7s ago, every 10 s, 3 of 12 failed",
        "check exec /bin/true: passes: exit status 1 7s ago, every 30 s; 2 of 3 failed in a row, 2 of 12 failed",
        "check http port 80/ at 198.51.100.7: does not pass: passed 7s ago, every 30 s; 1 of 2 good in a row, 0 of 12 failed",
        "check reach 2001:db8:7::7: waits for its first answer",
        "check reach 2001:db8:7::8: waits for its first answer, and is presumed to pass until then",
    ]
    shown = lines(host(), [jail(checks=checks)], NOW, checks=True)
    assert shown[-6:] == list(check_lines(checks, NOW))


@pytest.mark.parametrize("count", [1000, 10000])
def test_many_are_counted_first_and_cut(count: int) -> None:
    jails = many(count)
    share = count // 40
    expected = (
        f"{count} jails: {count - 4 * share} announced, {3 * share} dark ({share} lost, {share} not_ready, "
        f"{share} suppressed), {share} stopped"
    )
    assert counts(jails) == expected
    shown = lines(host(), jails, NOW, width=100)
    assert shown[1] == expected
    assert len(shown) == 3 + count
    assert all(cells(line) <= 100 for line in shown)
    assert shown[3].endswith("1m00   198.51.100.7 +1     suppressed: its routes cam...")
    few = select(jails, ["web000?0"], dark=True)
    assert names(few) == ["web00000", "web00020", "web00030", "web00040", "web00060", "web00070", "web00080"]
    assert lines(host(), few, NOW, whole=jails)[1] == f"{expected}; {len(few)} of them shown"


def test_a_filter_that_nothing_passes_says_so() -> None:
    assert lines(host(), [], NOW, whole=[jail()])[-1] == "no jail is as asked for"
    assert lines(host(), [], NOW)[-1].startswith("JAIL")


def test_what_a_screen_has_no_room_for_is_counted() -> None:
    found = [f"line {number}" for number in range(30)]
    assert fitting(found, None, "narrow it down") == found
    assert fitting(found[:10], 24, "narrow it down") == found[:10]
    cut = fitting(found, 24, "narrow it down")
    assert len(cut) == 23
    assert cut[-1] == "... 8 more lines: narrow it down"
