"""Lines for people: columns fit, words wrap, nothing moves the cursor, times are UTC."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobility.terminal.text import (
    PLAIN,
    Column,
    Palette,
    Row,
    ago,
    cells,
    columns,
    cut,
    duration,
    fewer,
    moment,
    printable,
    span,
    words,
    wrapped,
)
from tests.unit.terminal.made import NOW

HEADS = (Column("JAIL"), Column("WIRED", rank=2), Column("ADDRESSES", rank=3, least=6), Column("WHY NOT"))
LONG = "suppressed: its routes came and went too often, and it is announced again at noon"
ROWS = (Row(("web1", "yes", "198.51.100.7", LONG)), Row(("db1", "no", "198.51.100.8", "")))


def shown(width: int | None, *, wrap: bool = False, palette: Palette = PLAIN) -> list[str]:
    return columns(HEADS, ROWS, width, palette, wrap=wrap)


def test_a_pipe_gets_all_of_it() -> None:
    assert shown(None) == [
        "JAIL  WIRED  ADDRESSES     WHY NOT",
        f"web1  yes    198.51.100.7  {LONG}",
        "db1   no     198.51.100.8",
    ]


def test_what_is_too_wide_is_cut() -> None:
    assert shown(60) == [
        "JAIL  WIRED  ADDRESSES     WHY NOT",
        "web1  yes    198.51.100.7  suppressed: its routes came an...",
        "db1   no     198.51.100.8",
    ]


def test_or_wrapped_below_itself() -> None:
    assert shown(60, wrap=True) == [
        "JAIL  WIRED  ADDRESSES     WHY NOT",
        "web1  yes    198.51.100.7  suppressed: its routes came and",
        "                           went too often, and it is",
        "                           announced again at noon",
        "db1   no     198.51.100.8",
    ]


def test_where_it_is_narrow_columns_make_way() -> None:
    assert shown(40)[1] == "web1  yes    suppressed: its routes c..."
    assert shown(32)[1] == "web1  suppressed: its routes ..."


def test_of_several_words_whole_ones_are_left() -> None:
    assert fewer("198.51.100.7 2001:db8:7::7 64:ff9b::/96", 40) == "198.51.100.7 2001:db8:7::7 64:ff9b::/96"
    assert fewer("198.51.100.7 2001:db8:7::7 64:ff9b::/96", 38) == "198.51.100.7 2001:db8:7::7 +1"
    assert fewer("198.51.100.7 2001:db8:7::7 64:ff9b::/96", 18) == "198.51.100.7 +2"
    assert fewer("2001:db8:7::7 198.51.100.7", 10) == "2001:db..."


@given(
    st.lists(st.tuples(*[st.text(st.characters(blacklist_categories=("C", "Z")), max_size=30)] * 4), max_size=5),
    st.integers(30, 200),
    st.booleans(),
)
def test_no_line_is_wider_than_the_terminal(rows: list[tuple[str, ...]], width: int, wrap: bool) -> None:
    short = [Row((row[0][:8], *row[1:])) for row in rows]
    for line in columns(HEADS, short, width, PLAIN, wrap=wrap):
        assert cells(line) <= width


def test_colours_are_no_part_of_the_width() -> None:
    coloured = columns(HEADS, [Row(ROWS[0].cells, ("good", "", "", "bad"))], 60, Palette(coloured=True), wrap=False)
    assert coloured == [
        "\x1b[1mJAIL  WIRED  ADDRESSES     WHY NOT\x1b[0m",
        "\x1b[32mweb1\x1b[0m  yes    198.51.100.7  \x1b[31msuppressed: its routes came an...\x1b[0m",
    ]


def test_wide_letters_take_two_columns() -> None:
    assert cells("日本") == 4
    assert cut("日本語です", 7) == "日本..."
    assert wrapped("a" * 50, 20)[0] == "a" * 20


def test_nothing_of_others_moves_the_cursor() -> None:
    assert printable("a\x1b[2Jb\r\n\u202ec\x9b") == "a [2Jb   c "


@pytest.mark.parametrize(
    ("seconds", "short", "long"),
    [
        (0, "0s", "0 s"),
        (59.2, "59s", "1 min"),
        (61, "1m01", "1 min 1 s"),
        (450, "7m30", "7 min 30 s"),
        (7500, "2h05", "2 h 5 min"),
        (86400, "1d00", "24 h"),
        (3 * 86400 + 4 * 3600, "3d04", "3 days"),
        (-5, "0s", "0 s"),
    ],
)
def test_durations_are_told(seconds: float, short: str, long: str) -> None:
    assert (span(seconds), words(seconds)) == (short, long)
    assert ago(NOW - seconds, NOW) == short
    assert ago(None, NOW) == "-"


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2h", NOW - 7200),
        ("90s", NOW - 90),
        ("1.5m", NOW - 90),
        ("1w", NOW - 7 * 86400),
        ("2026-11-21", NOW - 16 * 3600),
        ("2026-11-21 15:43", NOW - 17 * 60),
        ("2026-11-21T15:43:00Z", NOW - 17 * 60),
        ("2026-11-21 17:43+02:00", NOW - 17 * 60),
        ("15:43", NOW - 17 * 60),
    ],
)
def test_a_moment_is_utc(text: str, at: float) -> None:
    assert moment(text, NOW) == pytest.approx(at)


@pytest.mark.parametrize(
    "text", ["", "2", "h", "2y", "-2h", "0s", "99999999w", "yesterday", "2026-13-01", "\x1b[2J", "٣h"]
)
def test_what_is_no_moment_is_told_how_it_is_written(text: str) -> None:
    with pytest.raises(ValueError, match="write"):
        moment(text, NOW)
    with pytest.raises(ValueError, match="write 90s, 15m, 2h, 7d or 1w"):
        duration(text)
