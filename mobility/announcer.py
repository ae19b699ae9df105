"""What one jail has in the fabric: the ledger rules on it, the speaker is told, and what came of it is counted."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mobility import announcement
from mobility.bgp import ownership
from mobility.bgp.grammar import prefix_text
from mobility.bgp.ownership import Held, Kind, Ruling
from mobility.decide import Memory
from mobility.jails.jailsd import JailConfig
from mobility.model import GRACEFUL_SHUTDOWN, Attributes, Prefix

if TYPE_CHECKING:
    from mobility.bgp.ledger import Ledger
    from mobility.bgp.speaker import Speaker
    from mobility.failover.manager import Failover, Told
    from mobility.metrics import Metrics
    from mobility.store import Store

log = logging.getLogger(__name__)

_GRAVE = (Kind.LOST, Kind.CONFLICT, Kind.FROZEN, Kind.EXHAUSTED)
"""What somebody has to look into."""


@dataclass(frozen=True, slots=True)
class Fabric:
    """What announcers use."""

    speaker: Speaker
    ledger: Ledger
    store: Store
    metrics: Metrics
    failover: Failover


class Announcer:
    """One jail's routes in the fabric."""

    __slots__ = ("_fabric", "_first", "_name", "announced", "failover", "ruling", "since")

    def __init__(self, name: str, fabric: Fabric, since: float) -> None:
        """`since` is when the jail was announced or withdrawn last (UTC, seconds)."""
        self.announced: dict[Prefix, Attributes] = {}
        self.ruling: Ruling | None = None
        """What was ruled last on who owns the jail; None where no ownership is claimed."""
        self.failover: Told | None = None
        """What the jail went with last, and how that is announced; None where it goes with no failover."""
        self.since = since
        self._name = name
        self._fabric = fabric
        self._first = True

    def may(self, config: JailConfig, wanted: tuple[Prefix, ...], memory: Memory) -> tuple[tuple[Prefix, ...], Memory]:
        """Return what of `wanted` this host may announce, and the memory with what it has claimed.

        What goes with a failover is announced by both nodes of a pair: nobody owns it, CARP says who is preferred.
        """
        self.failover = self._fabric.failover.of_jail(self._name, config.more.announce)
        if self.failover is not None:
            self.ruling = None
            # what was claimed before it went with the failover is claimed no more
            memory = replace(memory, held=Held()) if memory.held != Held() else memory
            return wanted if self.failover.announced else (), memory
        if config.more.announce.anycast:
            self.ruling = None
            return wanted, memory
        texts = {prefix_text(prefix): prefix for prefix in wanted}
        held = self._held(config, texts, memory)
        # until the bridge is there nobody knows what the book holds
        self._first = self._first and not self._fabric.speaker.connected
        before, ledger = self.ruling, self._fabric.ledger
        self.ruling = ledger.rule(self._name, config.identity, tuple(texts), held, witnessed=not memory.found)
        self._tell(before, held.claim)
        return tuple(texts[text] for text in self.ruling.prefixes), replace(memory, held=self.ruling.held)

    def begins(self) -> None:
        """Take it that a new incarnation begins: what the book holds was claimed by one before it."""
        self._first = False

    def would(
        self, config: JailConfig, wanted: tuple[Prefix, ...], memory: Memory, *, leaving: bool, handing: bool
    ) -> tuple[tuple[Prefix, ...], Attributes, str]:
        """Return what would be announced of `wanted`, how, and why the rest would not; nothing is claimed by that."""
        reason = ""
        if not config.more.announce.anycast:
            texts = {prefix_text(prefix): prefix for prefix in wanted}
            held = self._held(config, texts, memory)
            ruling = self._fabric.ledger.preview(
                self._name, config.identity, tuple(texts), held, witnessed=not memory.found
            )
            wanted, reason = tuple(texts[text] for text in ruling.prefixes), ruling.reason
            memory = replace(memory, held=ruling.held)
        return wanted, self._attributes(config, memory, leaving=leaving, handing=handing), reason

    def _held(self, config: JailConfig, prefixes: Iterable[str], memory: Memory) -> Held:
        """Return what it holds: the book outlives a lost database, and what stands in the fabric is no news."""
        if self._first and not memory.held.claim and not memory.held.lost:
            return self._fabric.ledger.recover(config.identity, prefixes)
        return memory.held

    def _tell(self, before: Ruling | None, claim: int) -> None:
        """Log, note and count what the ruling has changed."""
        fabric, now = self._fabric, self.ruling
        if now is None:
            return
        if now.held.claim != claim:
            fabric.store.note(self._name, "claimed", f"sequence {now.held.claim}")
            log.info("claimed", extra={"jail": self._name, "sequence": now.held.claim})
        if (before is None or (before.kind, before.reason) != (now.kind, now.reason)) and now.kind in _GRAVE:
            fabric.store.note(self._name, now.kind, now.reason)
            fabric.metrics.ownership(self._name, now.kind)
            log.error("not owned", extra={"jail": self._name, "kind": str(now.kind), "reason": now.reason})

    def announce(
        self, prefixes: Iterable[Prefix], config: JailConfig, memory: Memory, *, leaving: bool, handing: bool
    ) -> Memory:
        """Announce `prefixes`, as claimed in `memory`; return it with the time since when they are.

        `leaving` adds GRACEFUL_SHUTDOWN (RFC 8326), `handing` says that another host is to start the jail.
        """
        attributes = self._attributes(config, memory, leaving=leaving, handing=handing)
        fresh, before = 0, bool(self.announced)
        for prefix in prefixes:
            self._fabric.speaker.want(prefix, attributes)
            fresh += prefix not in self.announced
            self.announced[prefix] = attributes
        # what an agent before this one had announced is no news
        if fresh and (before or not memory.announced_at):
            self._fabric.metrics.announced(self._name, fresh)
        if not fresh or memory.announced_at:
            return memory
        self._turned("announced", "", self.announced)
        return replace(memory, announced_at=time.monotonic())

    def _attributes(self, config: JailConfig, memory: Memory, *, leaving: bool, handing: bool) -> Attributes:
        announce, communities = config.more.announce, (GRACEFUL_SHUTDOWN,) if leaving else ()
        told = self._fabric.failover.of_jail(self._name, announce)
        if told is not None:
            announce = self._fabric.failover.attributes(announce, told)
        if announce.anycast:
            return announcement.attributes(announce, communities=communities)
        claim = self._fabric.ledger.communities(config.identity, memory.held, handing=handing)
        med = ownership.med(memory.held.claim)
        return announcement.attributes(announce, communities=communities, large_communities=claim, med=med)

    def leave(self) -> None:
        """Announce what is announced with GRACEFUL_SHUTDOWN: it will be withdrawn soon; a failover hands it over instead."""
        if self.failover is not None:
            return
        for prefix, attributes in self.announced.items():
            if GRACEFUL_SHUTDOWN not in attributes.communities:
                communities = (*attributes.communities, GRACEFUL_SHUTDOWN)
                self.announced[prefix] = replace(attributes, communities=communities, local_preference=0)
                with suppress(ValueError):  # host.allowed has it no more: the speaker withdraws it already
                    self._fabric.speaker.want(prefix, self.announced[prefix])

    @property
    def reason(self) -> str:
        """Why not all of it may be announced, or not as preferred: what was ruled last; "" where it may."""
        if self.failover is not None:
            return self.failover.reason
        return self.ruling.reason if self.ruling is not None else ""

    @property
    def undecided(self) -> bool:
        """Whether it is not known yet what may be announced: what stands in the fabric may be ours, of before a restart."""
        if self.failover is not None:
            return self.failover.ruling is None
        return self.ruling is not None and self.ruling.kind is Kind.WAITING

    def withdraw(self, prefixes: Iterable[Prefix], why: str) -> list[Prefix]:
        """Withdraw `prefixes`, also those of which only the fabric knows; return those that this agent had announced."""
        gone = []
        for prefix in prefixes:
            self._fabric.speaker.unwant(prefix)
            if self.announced.pop(prefix, None) is not None:
                gone.append(prefix)
        if gone:
            self._fabric.metrics.withdrawn(self._name, len(gone))
            self._turned("withdrawn", why, gone)
        return gone

    def _turned(self, what: str, why: str, prefixes: Iterable[Prefix]) -> None:
        self.since = time.time()
        self._fabric.store.note(self._name, what, why)
        texts = " ".join(sorted(map(prefix_text, prefixes)))
        log.info(what, extra={"jail": self._name, "prefix": texts, "reason": why})
