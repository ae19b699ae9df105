"""The figures of single jails: what is counted of each, and which jails have series of their own.

A jail has about fourteen series, so ten thousand jails would be 140,000 for each host: `metrics.jails` bounds them. First
come the jails that somebody has to look at, then those that run, then the others; among equals those that had series
before, then by name: so a jail keeps its series until its place is needed by one that matters more. What is counted is
counted of all of them, whether it is shown or not.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, fields, replace
from enum import IntEnum

from mobility.bgp.ownership import Kind
from mobility.decide import Stand
from mobility.metrics.causes import OF_THE_HOST, PASSING, Cause

_CONTESTED = frozenset({Kind.LOST, Kind.CONFLICT, Kind.FROZEN, Kind.EXHAUSTED})


@dataclass(frozen=True, slots=True)
class Tally:
    """What was counted of one jail since it was first known to this agent."""

    announcements: int = 0
    withdrawals: int = 0
    flaps: int = 0
    moves: int = 0
    conflicts: int = 0


NOTHING = Tally()


@dataclass(frozen=True, slots=True)
class JailState:
    """What is true of one jail at this moment; `reason` only where it runs and is not announced."""

    name: str
    stand: Stand = Stand.ABSENT
    """Where it should stand."""
    running: bool = False
    announced: bool = False
    ready: bool = False
    wanted: bool = False
    reason: Cause | None = None
    penalty: float = 0.0
    suppressed: bool = False
    frozen: bool = False
    kind: Kind | None = None
    anycast: bool = False
    tally: Tally = NOTHING


@dataclass(slots=True)
class Jails:
    """What is true of all jails: numbers of all, and those that have series of their own."""

    stands: dict[str, int] = field(default_factory=lambda: {str(each): 0 for each in Stand})
    running: int = 0
    announced: int = 0
    dark: int = 0
    blackholed: int = 0
    suppressed: int = 0
    frozen: int = 0
    reasons: dict[str, int] = field(default_factory=lambda: {str(each): 0 for each in Cause})
    ownership: dict[str, int] = field(default_factory=lambda: {str(each): 0 for each in Kind})
    older_claims: int = 0
    shown: tuple[JailState, ...] = ()
    without_series: int = 0

    def add(self, jail: JailState) -> None:
        """Count a jail among all."""
        self.stands[jail.stand] += 1
        self.suppressed += jail.suppressed
        self.frozen += jail.frozen
        if not jail.running:
            self.blackholed += jail.announced
            return
        self.running += 1
        self.announced += jail.announced
        self.dark += jail.wanted and not jail.announced
        if jail.reason is not None:
            self.reasons[jail.reason] += 1
        if jail.kind is not None:
            self.ownership[jail.kind] += 1


class Rank(IntEnum):
    """How much a jail's own series matter."""

    TROUBLED = 0
    """It flaps, is contested or frozen, leads nowhere, or is not announced for a reason of its own."""
    DARK = 1
    """It is not announced, as others are not: the host's trouble."""
    RUNNING = 2
    REST = 3


def rank(jail: JailState) -> Rank:
    """Return how much a jail's own series matter."""
    dark = jail.running and not jail.announced and jail.reason not in PASSING
    lone = dark and jail.reason not in OF_THE_HOST
    if lone or jail.penalty or jail.suppressed or jail.frozen or jail.kind in _CONTESTED:
        return Rank.TROUBLED
    if jail.running:
        return Rank.DARK if dark else Rank.RUNNING
    return Rank.TROUBLED if jail.announced else Rank.REST


def choose(jails: Mapping[str, Rank], limit: int, before: AbstractSet[str]) -> frozenset[str]:
    """Return the jails that have series of their own; `before`: those that had."""
    if len(jails) <= limit:
        return frozenset(jails)
    return frozenset(heapq.nsmallest(limit, jails, key=lambda name: (jails[name], name not in before, name)))


class Tallies:
    """What is counted of each jail, and which had series the last time. One that nothing happened to costs nothing."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._counted: dict[str, Tally] = {}
        self._shown: frozenset[str] = frozenset()

    def __len__(self) -> int:
        """Return of how many jails anything was counted."""
        return len(self._counted)

    def add(self, jail: str, what: str, number: int = 1) -> None:
        """Count something of a jail: `what` is a field of Tally."""
        tally = self.of(jail)
        self._counted[jail] = replace(tally, **{what: getattr(tally, what) + number})

    def of(self, jail: str) -> Tally:
        """Return what was counted of a jail."""
        return self._counted.get(jail, NOTHING)

    def keep(self, known: AbstractSet[str]) -> None:
        """Forget what was counted of jails that are not known any more."""
        for jail in self._counted.keys() - known:
            del self._counted[jail]

    def show(self, jails: Jails, states: Mapping[str, JailState], ranks: Mapping[str, Rank]) -> None:
        """Choose which of all jails are shown, with what was counted of them."""
        self._shown = choose(ranks, self.limit, self._shown)
        jails.shown = tuple(replace(states[name], tally=self.of(name)) for name in sorted(self._shown))
        jails.without_series = len(states) - len(jails.shown)


COUNTED = tuple(each.name for each in fields(Tally))
