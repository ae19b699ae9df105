"""What a running agent is asked at each scrape: a `State` of this moment.

It is made in the agent's own thread, in pieces, with turns for hooks and ExaBGP between them; a scrape comes in a thread of
its own, and waits.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from concurrent.futures import CancelledError
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from mobility import damping
from mobility.bgp.ownership import Record
from mobility.bgp.speaker import State as At
from mobility.decide import Stand
from mobility.metrics.causes import NOT_WANTED, Cause, Known, cause
from mobility.metrics.jails import Jails, JailState, Rank, rank
from mobility.metrics.state import MISSING, Bgp, Checks, Host, State
from mobility.model import Phase

if TYPE_CHECKING:
    from mobility.answers import Known as Agent
    from mobility.worker import Shared, Worker

log = logging.getLogger(__name__)

WITHIN = 5.0
"""Seconds for which a scrape waits for the agent; Prometheus itself gives up after 10 (scrape_timeout)."""
AT_ONCE = 100
"""Jails that are looked at in one turn of the agent's loop, in about a millisecond."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Sight:
    """What of an agent is looked at."""

    shared: Shared
    known: Agent
    everyone: Callable[[], set[str]]
    """The jails that there is anything to say about."""
    granted_to: Mapping[str, set[str]]
    """By prefix, as BGP writes it, the jails that may have it."""

    # -- asking

    def asked(self) -> Callable[[], State]:
        """Return what asks, from any other thread, what is true. Call this in the agent's own.

        What is returned raises TimeoutError where the agent does not answer.
        """
        loop = asyncio.get_running_loop()

        def ask() -> State:
            answer = asyncio.run_coroutine_threadsafe(self.gather(), loop)
            try:
                return answer.result(WITHIN)
            except TimeoutError:
                answer.cancel()
                raise TimeoutError(f"the agent has not answered within {WITHIN:g} s") from None
            except CancelledError:
                raise TimeoutError("the agent is stopping") from None

        return ask

    async def gather(self) -> State:
        """Return what is true now; a part that can not be had is None, counted and logged."""
        return State(
            jails=await self._part_of("jails", self.jails),
            bgp=await self._part_of("bgp", self.bgp),
            host=await self._part_of("host", self.host),
            checks=await self._part_of("checks", self.checks),
            failover=await self._part_of("failover", self.failover),
        )

    async def _part_of(self, name: str, take: Callable[[], Coroutine[Any, Any, T]]) -> T | None:
        await asyncio.sleep(0)
        try:
            return await take()
        except Exception:  # a bug in what is told must not end what does the work
            log.exception(MISSING, extra={"part": name})
            self.shared.metrics.failed(name)
            return None

    # -- the parts

    async def bgp(self) -> Bgp:
        """Return what is true of ExaBGP, its bridge and its sessions."""
        speaker = self.shared.speaker
        held_back = {each["peer"]: sum(each["held_back"].values()) for each in speaker.describe()}
        await asyncio.sleep(0)
        return Bgp(
            connected=speaker.connected,
            sessions={peer: session.up for peer, session in speaker.sessions().items()},
            changes=speaker.changes(),
            held_back=held_back,
            restarts=speaker.counters.restarts,
            rib=speaker.counts(),
        )

    async def host(self) -> Host:
        """Return what is true of the host and of the agent's own work."""
        return Host(
            spool_depth=self.shared.spool.depth,
            spool_oldest=self.shared.spool.oldest(time.time()),
            drained=bool(self.known.drains),
            looked_at=self.known.looked_at(),
        )

    async def failover(self) -> Mapping[str, Any] | None:
        """Return what is true of failover, where there is any."""
        failover = self.shared.fabric.failover
        return failover.describe() if failover.active else None

    async def checks(self) -> Checks:
        """Return what is counted of checks."""
        health = self.shared.health
        return Checks(health.probes, dict(health.runs), dict(health.failures))

    async def jails(self) -> Jails:
        """Return what is true of all jails, and of those that have series of their own."""
        speaker, jails = self.shared.speaker, Jails()
        states: dict[str, JailState] = {}
        ranks: dict[str, Rank] = {}
        untold = self._owners(speaker.untold())
        await asyncio.sleep(0)
        lingering = self._owners(speaker.lingering())
        for count, name in enumerate(self.everyone()):
            if count % AT_ONCE == 0:
                await asyncio.sleep(0)
            worker = self.known.workers.get(name)
            state = self._one(name, worker, untold, lingering) if worker else self._without_worker(name, lingering)
            jails.add(state)
            states[name], ranks[name] = state, rank(state)
        await asyncio.sleep(0)
        self.shared.metrics.tallies.show(jails, states, ranks)
        await asyncio.sleep(0)
        jails.older_claims = await self._older_claims()
        return jails

    def _owners(self, prefixes: Iterable[str]) -> set[str]:
        return {name for prefix in prefixes for name in self.granted_to.get(prefix, ())}

    def _without_worker(self, name: str, lingering: set[str]) -> JailState:
        """Tell of a jail that there is nothing to do for: it does not run, or runs with nothing granted."""
        view, files = self.known.view(), self.known.files()
        running = view is not None and name in view.jails
        config = files.jails.get(name)
        state = JailState(
            name,
            running=running,
            announced=not running and name in lingering,
            frozen=bool(self.shared.fabric.ledger.records.get(name, _NO_RECORD).frozen_at),
            anycast=config is not None and config.more.announce.anycast,
        )
        if not running:
            return state
        reason = cause(Known(granted=name in self.known.granted, broken_file=name in files.problems))
        return replace(state, reason=reason, wanted=reason not in NOT_WANTED)

    def _one(self, name: str, worker: Worker, untold: set[str], lingering: set[str]) -> JailState:
        now, memory, announcer = time.monotonic(), worker.memory, worker.announcer
        running = worker.jail is not None
        at_peers = self._untold(worker) if running and name in untold else frozenset()
        told = bool(announcer.announced)
        announced = (told and not at_peers) if running else (told or name in lingering)
        config = self.known.files().jails.get(name)
        granted = name in self.known.granted
        reason = self._cause(worker, at_peers, granted=granted) if running and not announced else None
        ruling, damped = announcer.ruling, memory.damping
        return JailState(
            name,
            worker.target.stand,
            running=running,
            announced=announced,
            ready=running and self.shared.health.passes(name),
            wanted=running and granted and not self._kept_away(worker, reason),
            reason=reason,
            penalty=damping.penalty(damped, now, self.shared.damping) if damped.penalty else 0.0,
            suppressed=_suppressed(damped, now, self.shared.damping),
            frozen=bool(self.shared.fabric.ledger.records.get(name, _NO_RECORD).frozen_at),
            kind=ruling.kind if running and ruling is not None else None,
            anycast=config.more.announce.anycast if config is not None else memory.announce.anycast,
        )

    def _untold(self, worker: Worker) -> frozenset[At]:
        """Return how those of its routes stand at the peers that no peer was told of."""
        speaker, announced = self.shared.speaker, worker.announcer.announced
        # what concerns all of them is not asked of each route: there may be thousands
        if not speaker.connected:
            return _NO_BRIDGE if announced else frozenset()
        if not any(session.up for session in speaker.sessions().values()):
            return _NO_SESSION if announced else frozenset()
        at_each = [{route.state for route in speaker.route(prefix).values()} for prefix in announced]
        return frozenset[At]().union(*(states for states in at_each if At.ANNOUNCED not in states))

    def _kept_away(self, worker: Worker, reason: Cause | None) -> bool:
        """Tell whether it is meant not to be announced, whether it still is or not."""
        if reason in NOT_WANTED:
            return True
        if not self.known.drains and worker.name not in self.known.handing():
            return False  # as with nearly all
        drained = self.shared.drained(worker.name)
        return drained.handing or bool(drained.barred)

    def _cause(self, worker: Worker, at_peers: frozenset[At], *, granted: bool) -> Cause:
        """Say why a running jail is not announced."""
        name, memory, told = worker.name, worker.memory, worker.announcer.failover
        ruling, stand = worker.announcer.ruling, worker.target.stand
        return cause(
            Known(
                problem=bool(worker.problem),
                broken_file=name in self.known.files().problems,
                waits=bool(worker.waits),
                granted=granted,
                stand=stand,
                starting=stand is Stand.WIRED
                and memory.phase in (Phase.PRESTART, Phase.CREATED)
                and worker.jail is not None
                and memory.started != worker.jail.jid,
                drained=bool(self.shared.drained(name).barred),
                ready=self.shared.health.passes(name),
                suppressed=_suppressed(memory.damping, time.monotonic(), self.shared.damping),
                failover=None if told is None else told.announced,
                undecided=told is not None and told.ruling is None,
                kind=ruling.kind if ruling is not None else None,
                at_peers=at_peers,
            )
        )

    async def _older_claims(self) -> int:
        """Count the jails of which a peer goes on showing an older claim, once it has had the time to show ours."""
        number, now = 0, time.monotonic()
        for count, name in enumerate(self._owners(self.shared.speaker.shown(self.granted_to.keys())), 1):
            if count % AT_ONCE == 0:
                await asyncio.sleep(0)
            worker = self.known.workers.get(name)
            told = worker.memory.announced_at if worker else 0.0
            if worker is None or not told or now - told < self.shared.settle_for:
                continue
            config = self.known.files().jails.get(name)
            identity = config.identity if config else name
            held = worker.memory.held
            number += bool(self.shared.fabric.ledger.shown_older(identity, held.told, held))
        return number


_NO_RECORD = Record()
_NO_BRIDGE, _NO_SESSION = frozenset({At.NO_BRIDGE}), frozenset({At.NO_SESSION})


def _suppressed(state: damping.Damping, now: float, policy: damping.Policy) -> bool:
    until = damping.reuse_at(state, policy) if state.suppressed_at else None
    return until is not None and now < until
