"""What happened, for people: the lines of `mobility events`, `history` and `watch`, and who is busiest (`top`). Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mobility.terminal.text import PLAIN, Column, Palette, Row, ago, columns, number, printable, utc, words

if TYPE_CHECKING:
    from mobility.store import Happening

NAME_WIDTH = 24
"""Columns of a jail's name in lines that come one by one."""
SORTS = ("penalty", "flaps", "starts", "moves", "announced")
_BAD = ("problem", "lost", "conflict", "frozen", "exhausted", "flapped", "not granted", "link broken inside")
_HELD = ("withdrawn", "drain", "prestop", "poststop", "handoff")
_COUNTED = {
    "flapped": "flaps",
    "prestart": "starts",
    "lost": "moves",
    "announced": "announced",
    "withdrawn": "withdrawn",
}
"""What counts as what."""
_HEADS = (
    Column("JAIL"),
    Column("PENALTY"),
    Column("FLAPS"),
    Column("STARTS", rank=2),
    Column("MOVES", rank=3),
    Column("ANNOUNCED", rank=1),
    Column("WITHDRAWN", rank=4),
    Column("LAST"),
)


def described(each: Happening) -> dict[str, Any]:
    """Return a line of history as `--json` has it."""
    return {"id": each.id, "at": each.at, "jail": each.jail, "what": each.what, "detail": each.detail}


def line(event: Mapping[str, Any], palette: Palette = PLAIN) -> str:
    """Return an event on one line: time, jail (- is the host), what, detail."""
    what = printable(event["what"])
    paint = palette.bad if what in _BAD else palette.held if what in _HELD else palette.good
    coloured = paint(what) if what in (*_BAD, *_HELD, "announced") else what
    jail, detail = printable(event["jail"]) or "-", printable(event["detail"])
    return f"{utc(event['at'])}  {jail:{NAME_WIDTH}}  {coloured}  {detail}".rstrip()


@dataclass(frozen=True, slots=True)
class Busy:
    """How much one jail has been about within a window."""

    jail: str
    penalty: float
    flaps: int
    starts: int
    moves: int
    announced: int
    withdrawn: int
    last: str
    last_at: float

    def describe(self) -> dict[str, Any]:
        """Return it as `--json` has it."""
        return {name: getattr(self, name) for name in self.__slots__}


def busiest(events: Iterable[Happening], penalties: Mapping[str, float], by: str = "penalty") -> list[Busy]:
    """Return the jails that events tell of, or that have a penalty left, the busiest first."""
    found: dict[str, dict[str, int]] = {jail: {} for jail, figure in penalties.items() if figure > 0}
    last: dict[str, Happening] = {}
    for event in events:
        if event.jail:
            counted = found.setdefault(event.jail, {})
            if what := _COUNTED.get(event.what):
                counted[what] = counted.get(what, 0) + 1
            last[event.jail] = event
    several = []
    for jail, counted in found.items():
        latest = last.get(jail)
        several.append(
            Busy(
                jail=jail,
                penalty=round(penalties.get(jail, 0.0), 1),
                flaps=counted.get("flaps", 0),
                starts=counted.get("starts", 0),
                moves=counted.get("moves", 0),
                announced=counted.get("announced", 0),
                withdrawn=counted.get("withdrawn", 0),
                last=latest.what if latest else "",
                last_at=latest.at if latest else 0.0,
            )
        )

    def key(one: Busy) -> tuple[float, ...]:
        figures = (one.penalty, one.flaps, one.announced + one.withdrawn, one.starts, one.moves)
        return tuple(-figure for figure in (getattr(one, by), *figures))

    return sorted(several, key=lambda one: (key(one), one.jail))


def top(
    several: Sequence[Busy],
    now: float,
    window: float,
    *,
    host: str,
    width: int | None = None,
    palette: Palette = PLAIN,
    note: str = "",
) -> list[str]:
    """Return what `mobility top` shows of the busiest jails within the last `window` seconds."""
    flaps, told, gone = (sum(getattr(one, what) for one in several) for what in ("flaps", "announced", "withdrawn"))
    counted = f"{number(flaps, 'flap')}, announced {number(told, 'time')}, withdrawn {number(gone, 'time')}"
    lines = [f"host {printable(host)}, the last {words(window)}: {number(len(several), 'jail')} with news, {counted}"]
    if note:
        lines.append(palette.bad(note))
    if not several:
        return lines
    rows = [
        Row(
            (
                one.jail,
                f"{one.penalty:.0f}",
                str(one.flaps),
                str(one.starts),
                str(one.moves),
                str(one.announced),
                str(one.withdrawn),
                f"{printable(one.last)} {ago(one.last_at, now)} ago" if one.last else "",
            ),
            ("", "bad" if one.penalty else "", "bad" if one.flaps else "", *[""] * 5),
        )
        for one in several
    ]
    return [*lines, *columns(_HEADS, rows, width, palette, wrap=False)]
