"""Lines for people: columns that fit, words that wrap, colours where there are any. Pure.

Colours are those of ECMA-48 (SGR, section 8.3.117): 8 of them, which every terminal emulator has, as the terminal's owner set
them. Nobody needs them to understand a line: each says the same in words.
"""

from __future__ import annotations

import math
import re
import textwrap
import time
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from mobility.tables import table

ELLIPSIS = "..."
GAP = 2
"""Columns between two of a table's columns."""
LEAST = 24
"""Columns that the last column of a table is left, before another one makes way."""
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)([smhdw])", re.ASCII)
_COLOUR = re.compile("\x1b\\[[0-9;]*m")
LONGEST = 10 * 365 * 86400.0
"""Seconds of the longest duration that is taken: nobody keeps a history for longer."""


@dataclass(frozen=True, slots=True)
class Palette:
    """What makes words coloured; without colours it leaves them as they are."""

    coloured: bool = False

    def _in(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.coloured and text.strip() else text

    def good(self, text: str) -> str:
        """Say that all is well."""
        return self._in("32", text)

    def bad(self, text: str) -> str:
        """Say that somebody should do something."""
        return self._in("31", text)

    def held(self, text: str) -> str:
        """Say that it is kept back, for a reason that is known."""
        return self._in("33", text)

    def faint(self, text: str) -> str:
        """Say that there is nothing to see."""
        return self._in("2", text)

    def head(self, text: str) -> str:
        """Head a part."""
        return self._in("1", text)


PLAIN = Palette()


def printable(text: str) -> str:
    """Return words of others without what would move a terminal's cursor, or hide what they say."""
    return text if text.isprintable() else "".join(each if each.isprintable() else " " for each in text)


def printable_lines(text: str) -> str:
    """Return words of others as `printable` does; a line stays a line."""
    return "\n".join(map(printable, text.splitlines()))


def cells(text: str) -> int:
    """Return how many columns of a terminal a text takes (Unicode Standard Annex 11: wide ones two, marks none)."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(each) else 2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in text
    )


def cut(text: str, width: int) -> str:
    """Return a text that takes at most `width` columns, its end left out where it must be."""
    if cells(text) <= width:
        return text
    dots = ELLIPSIS[:width]
    kept, taken = "", len(dots)
    for each in text:
        taken += cells(each)
        if taken > width:
            break
        kept += each
    return kept + dots


def fewer(text: str, width: int) -> str:
    """Return as many of a text's words as take at most `width` columns, and how many more there are: "198.51.100.7 +1"."""
    several = text.split()
    for count in range(len(several) - 1 if cells(text) > width else 0, 0, -1):
        if cells(found := f"{' '.join(several[:count])} +{len(several) - count}") <= width:
            return found
    return cut(text, width)


def wrapped(text: str, width: int) -> list[str]:
    """Return a text in lines of at most `width` columns; a word that is longer is broken."""
    return [
        cut(line, width) for line in textwrap.wrap(text, max(1, width), break_on_hyphens=False, break_long_words=True)
    ] or [""]


def within(line: str, width: int | None) -> list[str]:
    """Return a line, coloured or not, in lines of at most `width` columns; what has to be wrapped does without colours."""
    plain = _COLOUR.sub("", line)
    return [line] if width is None or cells(plain) <= width else wrapped(plain, width)


def _pad(text: str, width: int) -> str:
    return text + " " * (width - cells(text))


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its head, and how it gives way where the terminal is narrow: first those with the highest `rank`.

    `least` is the width to which it may give way before that, by whole words; 0: it does not.
    """

    head: str
    rank: int = 0
    least: int = 0


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table, and the colour of each cell: a name of a method of Palette's, or ""."""

    cells: tuple[str, ...]
    colours: tuple[str, ...] = ()


def columns(
    heads: Sequence[Column], rows: Sequence[Row], width: int | None, palette: Palette, *, wrap: bool
) -> list[str]:
    """Return a table's lines. Without a `width` nothing is cut: somebody's pipe wants all of it.

    Where it is too wide, columns with a `least` are cut to that, then columns go, the highest rank first; the last one takes
    what is left, and is wrapped below itself, or cut. No cell moves the cursor.
    """
    rows = [Row(tuple(map(printable, row.cells)), row.colours) for row in rows]
    if width is None:
        return table([each.head for each in heads], [row.cells for row in rows]).splitlines()
    shown, widths = _fitting(heads, rows, width)
    lines = [palette.head(cut(_joined([heads[at].head for at in shown], widths), width))]
    for row in rows:
        texts = [row.cells[at] for at in shown]
        colours = [row.colours[at] if row.colours else "" for at in shown]
        last = wrapped(texts[-1], widths[-1]) if wrap else [cut(texts[-1], widths[-1])]
        first = [*(fewer(text, size) for text, size in zip(texts[:-1], widths, strict=False)), last[0]]
        lines.append(_painted(first, widths, colours, palette))
        indent = " " * (sum(widths[:-1]) + GAP * (len(widths) - 1))
        lines += [indent + _paint(palette, colours[-1], more) for more in last[1:]]
    return lines


def _fitting(heads: Sequence[Column], rows: Sequence[Row], width: int) -> tuple[list[int], list[int]]:
    """Return which columns are shown, and how wide each is."""
    shown = list(range(len(heads)))
    natural = [max((cells(row.cells[at]) for row in rows), default=0) for at in shown]
    natural = [max(wide, len(heads[at].head)) for at, wide in enumerate(natural)]
    sizes = natural[:]

    def left() -> int:
        return width - sum(sizes[at] + GAP for at in shown[:-1])

    need = min(natural[-1], LEAST)
    for at in [at for at in shown[:-1] if heads[at].least]:
        if left() < min(natural[-1], width // 3):
            sizes[at] = max(heads[at].least, min(sizes[at], sizes[at] + left() - min(natural[-1], width // 3)))
    for at in sorted(shown[:-1], key=lambda at: -heads[at].rank):
        if left() < need and heads[at].rank:
            shown.remove(at)
    return shown, [*(sizes[at] for at in shown[:-1]), max(1, min(natural[-1], left()))]


def _joined(texts: Sequence[str], widths: Sequence[int]) -> str:
    padded = [_pad(text, size) for text, size in zip(texts, widths, strict=True)]
    return (" " * GAP).join(padded).rstrip()


def _paint(palette: Palette, colour: str, text: str) -> str:
    return str(getattr(palette, colour)(text)) if colour else text


def _painted(texts: Sequence[str], widths: Sequence[int], colours: Sequence[str], palette: Palette) -> str:
    parts = []
    for at, (text, size, colour) in enumerate(zip(texts, widths, colours, strict=True)):
        space = "" if at == len(texts) - 1 else " " * (size - cells(text))
        parts.append(_paint(palette, colour, text) + space)
    return (" " * GAP).join(parts).rstrip()


# -- times


def ago(at: float | None, now: float) -> str:
    """Return how long ago something was, in the two largest units; "-" where it never was."""
    return "-" if at is None else span(now - at)


def span(seconds: float) -> str:
    """Return a duration in the two largest units: "3d04", "2h05", "7m30", "12s"."""
    age = max(0, int(seconds))
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if age >= size:
            return f"{age // size}{unit}{age % size * 60 // size if unit != 'd' else age % size // 3600:02d}"
    return f"{age}s"


def words(seconds: float) -> str:
    """Return a duration in words: "3 days", "2 h 5 min", "7 min 30 s", "12 s"."""
    left = max(0, math.ceil(seconds))
    if left >= 2 * 86400:
        return f"{left // 86400} days"
    for size, unit, less, small in ((3600, "h", 60, "min"), (60, "min", 1, "s")):
        if left >= size:
            rest = left % size // less
            return f"{left // size} {unit}" + (f" {rest} {small}" if rest else "")
    return f"{left} s"


def utc(at: float) -> str:
    """Return a moment as all of our lines have it."""
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(at))


def duration(text: str) -> float:
    """Return the seconds of "90s", "15m", "2h", "7d", "1w". Raises ValueError, which says how it is written."""
    found = _DURATION.fullmatch(text)
    if found is None or not 0 < (seconds := float(found[1]) * _UNITS[found[2]]) <= LONGEST:
        raise ValueError(f"{text!r} is no duration: write 90s, 15m, 2h, 7d or 1w")
    return seconds


def moment(text: str, now: float) -> float:
    """Return the moment (UTC, seconds) that "2h" (ago), "2026-11-21", "2026-11-21 15:43" or "15:43" (today) means.

    Without a zone a time is UTC, as everything that we print. Raises ValueError, which says how it is written.
    """
    if _DURATION.fullmatch(text):
        return now - duration(text)
    today = time.strftime("%Y-%m-%d", time.gmtime(now))
    candidates = [text, f"{today} {text}"] if re.match(r"\d\d:", text) else [text]
    for each in candidates:
        try:
            found = datetime.fromisoformat(each)
        except ValueError:
            continue
        try:
            return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
        except (OverflowError, ValueError):
            continue
    raise ValueError(
        f"{text!r} is no time: write how long ago (90s, 15m, 2h, 7d), or a time in UTC (2026-11-21 or '2026-11-21 15:43')"
    )


def number(count: int, what: str) -> str:
    """Return "1 jail", "2 jails"."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def named(names: Iterable[str], most: int = 5) -> str:
    """Return names with commas between, and how many more there are."""
    listed = list(names)
    more = len(listed) - most
    return ", ".join(listed[:most]) + (f" and {more} more" if more > 0 else "")
