"""One jail's worker: brings it to where it should stand, one step after the other, and answers its hooks.

Workers of different jails run at once; within one, everything is in order: withdraw, then unwire; wire, then announce.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from mobility import damping, decide, links, logs
from mobility import plan as planning
from mobility.announcer import Announcer, Fabric
from mobility.bgp.ownership import GRACE, Held, Kind
from mobility.damping import Damping
from mobility.decide import How, Memory, Patience, Stand, Target
from mobility.events.spool import Event
from mobility.holders import Holders
from mobility.jails.jailsd import JailConfig, addresses_of, services_of
from mobility.links import Link
from mobility.model import Phase, Prefix, address, destination
from mobility.network import naming
from mobility.network.host import Host, Trouble
from mobility.network.output import HostView, Jail, NetView
from mobility.plan import Case, Refused

if TYPE_CHECKING:
    from mobility.bgp.speaker import Speaker
    from mobility.events.spool import Spool
    from mobility.health.manager import Health
    from mobility.metrics import Metrics
    from mobility.store import Store

log = logging.getLogger(__name__)

ATTEMPTS = 4
"""Times that a failing jail is looked at and tried again before its hook is told; the periodic look goes on trying."""
_WAIT = wait_random_exponential(multiplier=0.05, max=2)
_OPEN = (Stand.WIRED, Stand.ANNOUNCED)
_NOT_ADOPTED: dict[str, Any] = {"adopted": "", "adopted_by": None, "inner": (), "bridge": ""}
FRESH = 1.0
"""Seconds for which a poststart is news: an older one waited in the spool for an agent, and is looked at first."""
LOOK_WITHIN = 0.05
"""Seconds for which that look may wait until ExaBGP has acknowledged."""
_TICK = 0.01
"""Seconds past a deadline, so that it has passed on every clock when it is looked at."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What root's files say of a jail: its addresses, what is wrong with its files, and what it asks for in vain."""

    config: JailConfig | None = None
    problem: str = ""
    refused: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Drained:
    """Whether a jail is to leave this host."""

    leaving: bool = False
    """Whether to announce it with GRACEFUL_SHUTDOWN."""
    handing: bool = False
    """Whether another host is expected to start it."""
    barred: str = ""
    """Why not to announce it at all."""


@dataclass(frozen=True, slots=True)
class Shared:
    """What all workers use."""

    host: Host
    host_name: str
    speaker: Speaker
    spool: Spool
    store: Store
    metrics: Metrics
    patience: Patience
    settle_for: float
    grant: Callable[[str, Memory], Grant]
    holders: Holders
    fabric: Fabric
    health: Health
    damping: damping.Policy
    drained: Callable[[str], Drained]
    """By jail: whether it is to leave this host."""
    how: Callable[[], How]
    """How links bring IPv4 to their jails on this kernel."""
    learn: Callable[[], Awaitable[None]]
    """Asks the kernel once more what it can."""
    inspections: asyncio.Semaphore
    """How many jails may be looked into at once, beside what their own changes need."""


class Worker:
    """The state of one jail, and the task that changes it while there is something to change."""

    __slots__ = (
        "_acted",
        "_arriving_at",
        "_background",
        "_broken",
        "_cause",
        "_config",
        "_dirty",
        "_due",
        "_eventful",
        "_events",
        "_fit",
        "_inspecting",
        "_leaving_at",
        "_looked",
        "_losing",
        "_measured",
        "_missed",
        "_relooked",
        "_shared",
        "_suppressed",
        "_suspended",
        "_task",
        "_timer",
        "_units_tried",
        "_unwired",
        "_view",
        "_was_fit",
        "announcer",
        "blind",
        "jail",
        "memory",
        "name",
        "problem",
        "stands",
        "target",
        "waits",
    )

    def __init__(self, name: str, shared: Shared, memory: Memory) -> None:
        self.name = name
        self.memory = memory
        self.target = Target(Stand.ABSENT, "not looked at yet")
        self.problem = ""
        since = time.time() - (time.monotonic() - memory.announced_at if memory.announced_at else 0.0)
        self.announcer = Announcer(name, shared.fabric, since)
        self.jail: Jail | None = None
        self.stands: Stand | None = None
        """Where the network is known to stand; None: it has to be looked at."""
        self.waits = ""
        """Which of its addresses another jail holds, where one does."""
        self.blind = ""
        """Why the inside of the jail can not be seen, where it can not."""
        self._shared = shared
        self._view: HostView | None = None
        self._looked = False
        self._acted = 0.0
        """When it last changed anything, or heard of a change."""
        self._unwired = False
        """Whether the last pass began without packets for the addresses getting to the jail."""
        self._broken = False
        """Whether a look inside the jail showed its link broken, and it has not been mended yet."""
        self._inspecting = False
        self._fit = False
        """Whether it is to be announced, as far as the jail itself goes."""
        self._suppressed = False
        self._was_fit = memory.announced_at > 0.0
        """Whether that was so, and known to be: losing it is a flap."""
        self._suspended = False
        """Whether it was withdrawn without a pass: the next look brings it back where it should be."""
        self._relooked = False
        """Whether an address that was removed inside made this pass follow the last one at once."""
        self._measured = ""
        self._missed = False
        self._eventful = False
        self._config: JailConfig | None = None
        self._due: tuple[Prefix, ...] = ()
        """What the last pass would announce, ownership aside: a jail is one, it is always ruled on as a whole."""
        self._events: list[Event] = []
        self._arriving_at = 0.0
        """When the event happened (monotonic) for which its routes are about to be made, 0 where none is."""
        self._leaving_at = 0.0
        """When the event happened (monotonic) for which its routes are about to be withdrawn, 0 where none is."""
        self._cause = ""
        """The event of which the last pass was a consequence; "" where it was not."""
        self._dirty = False
        self._timer: asyncio.TimerHandle | None = None
        self._losing: asyncio.TimerHandle | None = None
        self._background: set[asyncio.Task[None]] = set()
        self._units_tried: set[str] = set()
        self._task: asyncio.Task[None] | None = None
        """Only while there is something to do: thousands of jails at rest cost no tasks."""

    # -- what others tell it

    def event(self, event: Event) -> None:
        """Take a hook's event: it is believed for a while, and answered when the jail stands as it should."""
        with logs.about(self.name, event.id):
            self._take(event)

    def _take(self, event: Event) -> None:
        at = time.monotonic() - max(0.0, time.time() - event.time)
        if self.memory.phase is None or at >= self.memory.phase_at:
            self.memory = replace(self.memory, phase=event.phase, phase_at=at, found=False)
        self._events.append(event)
        going = event.phase in (Phase.PRESTOP, Phase.POSTSTOP)
        self._arriving_at, self._leaving_at = (0.0, at) if going else (at, 0.0)
        if event.phase is Phase.POSTSTART:
            self._shared.health.hurry(self.name)
            if self.memory.adopted:
                # a look may have found it while its manager was still at work, whose commands then undid what ours had done
                self.memory = replace(self.memory, wired=None)
        # what was looked at before this event says nothing about it
        self._looked, self._eventful = False, True
        self._acted = time.monotonic()
        fresh = event.phase is Phase.POSTSTART and self._task is None and time.monotonic() - at < FRESH
        if fresh and self._announced_ahead():
            self._in_background(self._look_after_announcing(event))
        else:
            self.wake()

    async def _look_after_announcing(self, event: Event) -> None:
        self._measured = event.id
        # it goes on, so that the slow ones are counted as well
        await asyncio.wait([self._in_background(self._measure(event))], timeout=LOOK_WITHIN)
        self.wake()

    def _in_background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    def _announced_ahead(self) -> bool:
        """Announce a jail that this agent has just wired before looking once more; tell whether that was done.

        The look takes longer than all the rest, so it follows. Should the jail be gone by then, it withdraws: so this is
        done only where nothing but the wait for this very event kept the jail from being announced.
        """
        jail = self.jail
        if self.stands is not Stand.WIRED or jail is None or not jail.vnet or self._config is None or self.problem:
            return False
        config, drained = self._config, self._shared.drained(self.name)
        target = self._target(config, drained)
        if target.stand is not Stand.ANNOUNCED or drained.leaving:
            return False
        self.target = target
        wanted = decide.held(config, jail)
        owned, self.memory = self.announcer.may(config, wanted, self.memory)
        if owned != wanted:
            return False
        self._announce(owned, config, drained)
        # before it is told to anybody: an agent killed now must not claim it anew over a host that has claimed it since
        self._shared.store.remember(self.name, self.memory)
        return True

    def _target(self, config: JailConfig | None, drained: Drained) -> Target:
        """Say where the jail should stand, ownership aside; a jail that is not fit any more has flapped."""
        shared, now = self._shared, time.monotonic()
        barred = drained.barred or self._not_ready(config)
        target = decide.decide(config, self.jail, self.memory, now, shared.patience, barred=barred)
        figure = damping.settle(self.memory.damping, now, shared.damping)
        self._fit = target.stand is Stand.ANNOUNCED
        if self._was_fit and not self._fit:
            self._was_fit = False
            if config is not None and not (drained.barred or drained.handing):
                figure = damping.flapped(figure, now, shared.damping)
                shared.metrics.flapped(self.name)
                shared.store.note(self.name, "flapped", damping.told(figure, now, shared.damping))
        if figure != self.memory.damping:
            self.memory = replace(self.memory, damping=figure)
        suppressed = damping.suppressed(figure, now, shared.damping, jail=self.name, utc=time.time())
        self._suppressed = self._fit and bool(suppressed)
        return Target(Stand.WIRED, suppressed) if self._suppressed else target

    def _not_ready(self, config: JailConfig | None) -> str:
        """Return why a wired jail is not ready; "" where it is, and where it is not wired yet."""
        if config is None or self.jail is None or self.memory.wired != self.jail.jid:
            return ""
        health = self._shared.health
        if not self.jail.vnet:
            config = replace(config, addresses=decide.held(config, self.jail))
        health.watch(self.name, config, self.jail.jid, announced=self.memory.announced_at > 0.0)
        ready, why = health.ready(self.name)
        return "" if ready else why

    @property
    def kept_back(self) -> str:
        """Why it is not announced although it runs and is wired: it is not ready, or it flaps; "" where neither."""
        suppressed = damping.suppressed(self.memory.damping, time.monotonic(), self._shared.damping, jail=self.name)
        return self._not_ready(self._config) or suppressed

    def reassess(self) -> None:
        """Have it decided anew, by what was seen of the host last: not the host has changed, but the fabric, or a check."""
        if self._task is None and not self._missed:
            self._looked = self._view is not None
        self.wake()

    def reconsider(self) -> None:
        """Let go, claim again, or have it announced otherwise, at once and without a look.

        The fabric shows something new about its prefixes, or what it goes with has turned.
        """
        with logs.about(self.name, self.cause):
            self._reconsider()

    def _reconsider(self) -> None:
        config, announced = self._config, tuple(self.announcer.announced)
        if not announced or config is None:
            ruling = self.announcer.ruling
            held_back = ruling is not None and ruling.kind is not Kind.HELD
            if self._fit and (held_back or self.announcer.failover is not None):
                self.reassess()
            return
        before = self.memory.held
        due = tuple(dict.fromkeys((*self._due, *announced)))
        owned, self.memory = self.announcer.may(config, due, self.memory)
        self._lose_the_rest()
        decided = self.announcer.failover is None or not self.announcer.undecided
        gone = [prefix for prefix in announced if prefix not in owned] if decided else []
        if gone:
            self.announcer.withdraw(gone, self.announcer.reason)
            self._suspended = True
        if gone or len(owned) > len(announced):
            # the rest of it is lost, or has become ours
            self.reassess()
        if not gone and (self.memory.held.claim != before.claim or self.announcer.failover is not None):
            # at once, also while a command runs for what joins: the higher claim is what shows the others who owns it
            told = tuple(prefix for prefix in announced if prefix in owned)
            self._announce(told, config, self._shared.drained(self.name))
        if self.memory.held != before:
            self._shared.store.remember(self.name, self.memory)

    def look(self, view: HostView, began: float) -> None:
        """Take what a whole look at the host, begun at `began` (monotonic), showed; wake up if it is new of this jail."""
        seen = self._concerning(view, self._shared.grant(self.name, self.memory).config)
        if seen == self._view and not (self.problem or self._suspended) and self.stands is not None:
            return
        if self._task is not None or began < self._acted:
            # things changed, or a hook spoke, while this look was made: what it shows may be half-done, or past
            self._missed = True
            if self._task is None:
                self.wake()
            return
        self._view, self._looked, self.stands = seen, True, None
        self.wake()

    def inspect(self) -> None:
        """Look inside the jail, beside everything else: its root may have broken the link from there."""
        wired = self.jail is not None and self.jail.vnet and self.memory.wired == self.jail.jid
        free = not (self._inspecting or self._shared.inspections.locked())
        if wired and free and self._task is None and self.stands in _OPEN:
            self._inspecting = True
            self._in_background(self._inspect())

    async def _inspect(self) -> None:
        with logs.about(self.name):
            await self._look_inside()

    async def _look_inside(self) -> None:
        try:
            async with self._shared.inspections:
                began = time.monotonic()
                inside = await self._shared.host.inside(self.name)
        except Trouble as error:
            if not self.blind:
                log.warning("can not be looked into", extra={"jail": self.name, "problem": str(error)})
            self.blind = str(error)
            return
        finally:
            self._inspecting = False
        self.blind = ""
        if self._task is not None or self._acted > began or self._view is None or self.stands not in _OPEN:
            return
        if not planning.inside_is_right(self._case(self._view, self._config, inside), inside):
            self._broken, self.stands = True, None
            self.memory = replace(self.memory, wired=None)
            self._shared.store.note(self.name, "link broken inside", "by the jail's own root, or what it runs")
            log.warning("its link was broken from inside the jail: mending it", extra={"jail": self.name})
            self.wake()

    def _case(
        self, view: HostView, config: JailConfig | None, inside: NetView | None = None, over: Iterable[str] = ()
    ) -> Case:
        shared = self._shared
        return Case(
            self.name,
            shared.host_name,
            self.target,
            config,
            view,
            inside,
            tuple(over),
            self.memory,
            shared.how(),
        )

    def _link(self, view: HostView, config: JailConfig | None) -> Link | None:
        starting = self.target.stand is Stand.PAIRED
        return links.link_of(self.name, config, view.jails.get(self.name), self.memory, view, starting=starting)

    def _concerning(self, view: HostView, config: JailConfig | None) -> HostView:
        texts = {*_texts(config), *self.memory.granted, *self.memory.rejects}
        return links.concerning(view, self.name, self._link(view, config), texts, self.memory.bridge)

    def wake(self) -> None:
        """Have the jail looked at now."""
        self._dirty = True
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=f"jail {self.name}")

    async def settled(self) -> None:
        """Wait until there is nothing left to do for now."""
        while self._task is not None:
            await asyncio.wait([self._task])

    @property
    def forgettable(self) -> bool:
        """Whether nothing is left to remember or to do for this jail."""
        return (
            self._task is None
            and self.target.stand is Stand.ABSENT
            and not (self.problem or self._events or self.announcer.announced or self.memory.rejects or self.jail)
            and damping.settle(self.memory.damping, time.monotonic(), self._shared.damping) == Damping()
        )

    async def stop(self) -> None:
        """Stop between two steps. Nothing is undone: what is wired stays wired, routes stand."""
        for timer in (self._timer, self._losing):
            if timer is not None:
                timer.cancel()
        tasks = [task for task in (self._task, *self._background) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- what it does

    async def _run(self) -> None:
        try:
            while self._dirty or self._missed:
                if self._missed:
                    self._view = self.stands = None
                self._dirty = self._missed = False
                events, self._events = self._events, []
                self._cause = ",".join(event.id for event in events) or self.cause
                with logs.about(self.name, self._cause):
                    await self._pass(events)
        finally:
            self._acted = time.monotonic()
            self._task = None

    async def _pass(self, events: Iterable[Event]) -> None:
        problem = await self._try()
        if problem and self._unwired and self.announcer.announced:
            self.withdraw(problem)
        if problem != self.problem:
            if problem:
                log.error("can not be brought to where it should stand", extra={"jail": self.name, "problem": problem})
                self._shared.store.note(self.name, "problem", problem)
            self.problem = problem
        for event in events:
            self._answer(event)
        if not self._events:
            # what is done from here on, is done for another reason
            self._arriving_at = self._leaving_at = 0.0

    @property
    def cause(self) -> str:
        """The event that is the cause of what happens to the jail now; "" once what it began has come to its end."""
        memory, patience = self.memory, self._shared.patience
        old = time.monotonic() - memory.phase_at > 2 * max(patience.starting_for, patience.stopping_for)
        under_way = bool(self.problem) or memory.phase in (Phase.PRESTART, Phase.CREATED, Phase.PRESTOP)
        there = self.target.stand is Stand.ANNOUNCED or (self.target.stand is Stand.ABSENT and not memory.rejects)
        return "" if old or (there and not under_way) else self._cause

    def withdraw(self, reason: str) -> list[Prefix]:
        """Withdraw all that is announced, at once and without looking; return it. The next pass decides anew."""
        gone = self.announcer.withdraw(list(self.announcer.announced), reason)
        if gone:
            self.target = Target(Stand.WIRED, reason)
            self.memory = replace(self.memory, announced_at=0.0)
            self._suspended = True
        return gone

    def release(self) -> None:
        """Forget what kept the jail from being announced: that it flapped, and that its ownership was lost."""
        ruling = self.announcer.ruling
        # what is held stays held: it would have to wait for the fabric, withdrawn, to be claimed once more
        held = self.memory.held if ruling is not None and ruling.kind is Kind.HELD else Held()
        self.memory = replace(self.memory, damping=damping.released(), held=held, found=False)
        self._shared.store.remember(self.name, self.memory)
        self.wake()

    def _answer(self, event: Event) -> None:
        shared = self._shared
        shared.metrics.event(event.phase)
        refused = bool(self.problem) and event.phase in (Phase.PRESTART, Phase.CREATED)
        if event.reply is not None:
            asked = shared.grant(self.name, self.memory).refused if event.phase is Phase.PRESTART else ()
            shared.spool.answer(event, not refused, self.problem or "; ".join(asked))
        # remembered before it leaves the spool: a crash in between tells us again, one after it loses nothing
        shared.store.remember(self.name, self.memory)
        shared.spool.done(event)
        if refused:
            # jail(8) takes the jail down now and runs no other hook: treat it as one that is stopping
            self.memory = replace(self.memory, phase=Phase.PRESTOP, phase_at=time.monotonic())
            self.wake()
        if event.phase is Phase.POSTSTART and self.announcer.announced and event.id != self._measured:
            self._in_background(self._measure(event))

    async def _measure(self, event: Event) -> None:
        """Note how long it takes from an event to the acknowledgement; one that is late counts as late."""
        await self._shared.speaker.settled(tuple(self.announcer.announced), self._shared.settle_for)
        self._shared.metrics.announced_after(max(0.0, time.time() - event.time))

    async def _try(self) -> str:
        """Bring the jail to where it should stand; return "" or why that could not be done."""
        try:
            try:
                return await self._once()
            except Trouble as error:
                if not error.retry:
                    raise
                await self._shared.learn()
                async for attempt in _retrying():
                    with attempt:
                        return await self._once()
        except (Refused, Trouble) as error:
            return str(error)
        except Exception as error:  # one jail's bug must stop no other jail; it is shown, never hidden
            log.exception("unexpected error", extra={"jail": self.name})
            return f"jail {self.name}: unexpected error, please report it with the agent's log: {error!r}"
        return ""

    async def _once(self) -> str:
        try:
            return await self._reconcile()
        except BaseException:
            self._view = self.stands = None
            self.memory = replace(self.memory, wired=None)
            raise

    async def _reconcile(self) -> str:
        """Look, decide and carry out; return "" or what can not be had, with all the rest as it should be."""
        shared = self._shared
        self._suspended = False
        grant = shared.grant(self.name, self.memory)
        while True:
            self._eventful = False
            view = await self._present(grant.config)
            if not self._eventful:
                break  # else a hook spoke while we looked: what was seen may be from before that
            grant = shared.grant(self.name, self.memory)
        self.jail = view.jails.get(self.name)
        now = time.monotonic()
        before = self.memory
        self.memory = decide.observe(self.memory, self.jail, now)
        if self.memory.jid != before.jid and not self.memory.found:
            self.announcer.begins()
        arriving = self.memory.phase in (Phase.PRESTART, Phase.CREATED)
        config, refusal = self._claim(grant, arriving=arriving)
        drained = shared.drained(self.name)
        self.target = self._target(config, drained)
        if self.waits:
            self.target = replace(self.target, reason=self.waits)
        link = self._link(view, config)
        self._due = self._wanted(view, config, link)
        wanted = self._owned(config)
        view = await self._join(view, config, wanted, drained)
        await self._withdraw(view, grant.config, wanted)
        told = [prefix for prefix in wanted if prefix in self.announcer.announced]
        self._unwired = self._broken or not links.carries(view, self.name, link, told, shared.how(), config)
        untrusted = self.target.stand in _OPEN and self.memory.wired is None
        if self.target.stand not in _OPEN:
            shared.health.forget(self.name)
        changed = self.stands is not self.target.stand or config != self._config or self._how_changed
        came_back = False
        if changed or untrusted or self._rejects_over():
            came_back = await self._network(view, config)
        self._unwired = self._broken = False
        if shared.drained(self.name) != drained:
            # drained, or no longer, while its commands ran: decide once more
            self._dirty = True
        elif self.stands is self.target.stand and config is not None:
            # else the next pass sees first what a removed address took along
            self._bring(config, drained)
        if self.target.stand is Stand.ABSENT:
            shared.holders.release(self.name)
        elif config is not None:
            shared.holders.release(self.name, config.destinations)
        self._later(now)
        if self.memory != before:
            shared.store.remember(self.name, self.memory)
        if refusal and (arriving or config is None or config is not grant.config):
            return refusal
        if came_back:
            return (
                f"jail {self.name}: addresses that are removed inside come back at once, its root adds them "
                f"(jexec {self.name} ifconfig): tried again with the next look"
            )
        if self.jail is not None and config is not None and self.target.stand is Stand.ABSENT:
            return f"jail {self.name} {self.target.reason}"
        return ""

    def _claim(self, grant: Grant, *, arriving: bool) -> tuple[JailConfig | None, str]:
        """Take the jail's addresses; return what it may have, and what is refused, "" where nothing is."""
        config, self.waits = grant.config, ""
        refusal = f"jail {self.name}: {grant.problem}" if grant.problem and (arriving or self.jail) else ""
        if config is None or not (self.jail or arriving):
            return config, refusal
        # the network of a jail without a vnet is jail(8)'s matter: no start is refused for it
        plain = not self.jail.vnet if self.jail is not None else config.vnet is False
        part = plain or self.jail is not None
        self.waits = self._shared.holders.take(self.name, config.destinations, part=part)
        if not self.waits:
            return config, refusal
        return self.free(config) if part else None, "" if plain else f"jail {self.name}: {self.waits}"

    def _wanted(self, view: HostView, config: JailConfig | None, link: Link | None) -> tuple[Prefix, ...]:
        """Return what is to be announced: of a jail without a vnet, what the host has on an interface."""
        if config is None or self.jail is None or self.target.stand is not Stand.ANNOUNCED:
            return ()
        granted = decide.held(config, self.jail)
        if link is not None:
            return granted
        there = tuple(prefix for prefix in granted if view.net.by_address.get(address(prefix)))
        if missing := [address(prefix) for prefix in granted if prefix not in there]:
            self.target = Target(
                Stand.ANNOUNCED if there else Stand.WIRED,
                f"no interface of the host has {' '.join(missing)}: name one in its ip4.addr and ip6.addr "
                f'("lo1|{missing[0]}"), and jail(8) puts it there',
            )
        return there

    def _lose_the_rest(self) -> None:
        """Have a jail that has lost some of its prefixes reconsidered when it is time to let go of all."""
        ruling = self.announcer.ruling
        if ruling is not None and ruling.kind is Kind.LOST and ruling.prefixes and self._losing is None:
            self._losing = asyncio.get_running_loop().call_later(GRACE + _TICK, self._lose)

    def _lose(self) -> None:
        self._losing = None
        self.reconsider()

    def _owned(self, config: JailConfig | None) -> tuple[Prefix, ...]:
        """Return what of what is due is this host's in the fabric; the target says why the rest is not."""
        if config is None or not self._due:
            return ()
        owned, self.memory = self.announcer.may(config, self._due, self.memory)
        self._lose_the_rest()
        reason = self.announcer.reason
        if reason and reason not in self.target.reason:
            reason = "; ".join(filter(None, [self.target.reason, reason]))
            self.target = Target(Stand.ANNOUNCED if owned else Stand.WIRED, reason)
        return owned

    def _bring(self, config: JailConfig, drained: Drained) -> None:
        """Announce what still is to be announced, now that the jail stands where it should."""
        not_ready = self._not_ready(config)
        if self._fit and not not_ready:
            # what another host owns is none of its own
            self._was_fit = self.target.stand is Stand.ANNOUNCED or self._suppressed
        if self.target.stand is not Stand.ANNOUNCED:
            return
        if not_ready:
            # wired in this very pass: its checks have just begun
            self.target, self.stands = Target(Stand.WIRED, not_ready), Stand.WIRED
        else:
            # once more: while its commands ran, another host may have claimed it
            owned = self._owned(config)
            self.announcer.withdraw(
                [each for each in self.announcer.announced if each not in owned], self.target.reason
            )
            self._announce(owned, config, drained)

    async def _join(
        self, view: HostView, config: JailConfig | None, wanted: tuple[Prefix, ...], drained: Drained
    ) -> HostView:
        """Bring a running jail its new addresses, and announce them, before the old ones are withdrawn and removed."""
        announced = self.announcer.announced
        leaving = [prefix for prefix in announced if prefix not in wanted and not self._held_elsewhere(prefix)]
        joining = tuple(prefix for prefix in wanted if prefix not in announced)
        if not (leaving and joining) or config is None or self.jail is None or not self.jail.vnet:
            return view
        await self._network(view, config.keeping(leaving, self.memory.granted))
        if self._shared.drained(self.name) == drained:
            self._announce(self._owned(config), config, drained)
        if not await self._shared.speaker.settled(joining, self._shared.settle_for):
            log.warning("the new addresses were not acknowledged in time; going on", extra={"jail": self.name})
        return self._view or await self._present(config)

    def free(self, config: JailConfig) -> JailConfig | None:
        """Return the config with what no other jail holds; where nothing is left, with what the jail has now."""
        granted = self.memory.granted
        for each in (config, config.holding(addresses_of(granted), services_of(granted))):
            if (free := each.without(self._held_elsewhere)) is not None:
                return free
        return None

    def _held_elsewhere(self, prefix: Prefix) -> bool:
        return self._shared.holders.of_another(self.name, destination(prefix))

    @property
    def _how_changed(self) -> bool:
        open_ = self.target.stand in _OPEN and self.jail is not None and self.jail.vnet
        return open_ and self.memory.how is not self._shared.how()

    async def _present(self, config: JailConfig | None) -> HostView:
        """Return a view to act on: the last one with its jail looked at anew, or a new one if that is not trusted."""
        plain = self.memory.how is How.PLAIN or (self.jail is not None and not self.jail.vnet)
        others = plain or (config is not None and config.ends is not None)
        if self._view is None or (others and not self._looked):
            # what jail(8) or a manager itself changes on the host, only a whole look shows
            seen = self._concerning(await self._shared.host.look(), config)
            if seen != self._view:
                self.stands = None
            self._view = seen
        elif not self._looked:
            jail = await self._shared.host.jail(self.name)
            self._view = replace(self._view, jails={self.name: jail} if jail else {})
        self._looked = False
        return self._view

    async def _withdraw(self, view: HostView, config: JailConfig | None, wanted: Iterable[Prefix]) -> None:
        """Withdraw what should not be announced; where packets still come in, wait until the fabric was told."""
        speaker, stays = self._shared.speaker, set(wanted)
        services = links.services_known(config, self.memory)
        granted = config.routed if config else ()
        texts = {*map(destination, granted)}
        ungranted = links.wired_prefixes(view, self._link(view, config), services, besides=texts)
        known = {*self.announcer.announced, *ungranted, *granted} - stays
        if self._fit and self.announcer.undecided:
            # what stands in the fabric may be ours, of before the database was lost: nobody knows yet
            known &= self.announcer.announced.keys()
        leaving = {prefix for prefix in known if not self._held_elsewhere(prefix)}
        gone = self.announcer.withdraw(leaving, self.target.reason)
        if self.target.stand is not Stand.ANNOUNCED:
            self.memory = replace(self.memory, announced_at=0.0)
        nothing_comes_in = self.stands is not None or self.target.stand in (Stand.PAIRED, Stand.WIRED)
        if not leaving or (not gone and nothing_comes_in):
            return
        at = self._leaving_at
        settled = await speaker.settled(tuple(leaving), self._shared.settle_for)
        if gone and at:
            self._shared.metrics.withdrawn_after(time.monotonic() - at)
        if not settled:
            log.warning(
                "the withdrawal was not acknowledged in time; going on, because the jail goes anyway: look at ExaBGP",
                extra={"jail": self.name, "seconds": self._shared.settle_for},
            )

    async def _network(self, view: HostView, config: JailConfig | None) -> bool:
        """Carry out the plan; tell whether an address that was removed inside keeps coming back."""
        shared, stand = self._shared, self.target.stand
        link = self._link(view, config)
        inside = await self._inside(view, config, link)
        expired = self._rejects_over()
        over = self.memory.rejects if expired else ()
        if stand is Stand.ABSENT and not self.memory.rejects:
            # rejects that nobody remembers, for addresses of this jail: ours from before the database was lost
            over = _texts(config)
        # what another jail holds by now is its own route, whatever stood there when we last looked
        over = tuple(text for text in over if not shared.holders.of_another(self.name, text))
        case = self._case(links.passing_over(view, self._units_tried), config, inside, over)
        commands = planning.plan(case)
        self._remember_first(case, link, commands)
        for command in commands:
            try:
                await shared.host.apply(command)
            except Trouble:
                if command.argv[2:3] == ("create",):
                    # perhaps somebody's pair of that unit, both ends renamed: no look can show it
                    self._units_tried.add(f"{command.argv[1]}a")
                raise
        self._units_tried.clear()
        if self._arriving_at and planning.routing(commands):
            shared.metrics.routed_after(time.monotonic() - self._arriving_at)
            self._arriving_at = 0.0
        if commands:
            ours = link is not None and not link.adopted
            self._view = self._concerning(planning.expect(case), config) if ours else None
        self._done(case, link, expired=expired and not planning.rejecting(commands))
        self.stands, self._config = stand, config
        if commands:
            made = Stand.WIRED if stand in _OPEN else stand
            shared.store.note(self.name, made, self.target.reason)
            log.info("network: %s", made, extra={"jail": self.name, "reason": self.target.reason})
        losing = planning.loses_address(commands)
        again, self._relooked = self._relooked, losing and not self._relooked
        if losing:
            self.memory = replace(self.memory, wired=None)
        if self._relooked:
            self._view = self.stands = None
            self._dirty = True
        return losing and again

    async def _inside(self, view: HostView, config: JailConfig | None, link: Link | None) -> NetView | None:
        """Look inside the jail, where that is not known to be right; None where there is no need."""
        if self.target.stand not in _OPEN or self.jail is None or link is None:
            return None
        memory, shared = self.memory, self._shared
        if (
            memory.wired == self.jail.jid
            and memory.granted == (config.remembered if config else ())
            and memory.how is shared.how()
            and bool(memory.adopted) is link.adopted
            and memory.lent == self._case(view, config).lent
            and self._serves(view, link)
        ):
            return None
        if lack := shared.host.lacks(self.jail):
            raise Refused(lack)
        own = links.owned(view, self.name) is not None and not links.inner_on_host(view, self.name)
        return await shared.host.inside(self.name) if own or link.adopted else None

    def _serves(self, view: HostView, link: Link) -> bool:
        """Tell whether a manager's link carries our group: a fresh one of the same name has not."""
        outer = links.outer_end(view, self.name, link)
        return not link.adopted or (outer is not None and naming.GROUP in outer.groups)

    def _remember_first(self, case: Case, link: Link | None, commands: list[planning.Command]) -> None:
        """Remember what is about to be done and would be lost in a crash: rejects, and what is taken from a manager."""
        before = self.memory
        if rejecting := planning.rejecting(commands):
            rejects = tuple(sorted({*self.memory.rejects, *rejecting}))
            self.memory = replace(self.memory, rejects=rejects, rejects_at=time.monotonic())
        if link is not None and link.adopted and case.open:
            last = self.memory.bridge if self.memory.adopted == link.outer else ""
            self.memory = replace(
                self.memory,
                adopted=link.outer,
                adopted_by=self.jail.jid if self.jail else None,
                inner=link.inner,
                bridge=case.view.net.bridge_of.get(link.outer, last),
            )
        if self.memory != before:
            self._shared.store.remember(self.name, self.memory)

    def _done(self, case: Case, link: Link | None, *, expired: bool) -> None:
        """Remember that a plan has been carried out."""
        stand, texts = self.target.stand, _texts(case.config)
        if expired and stand is not Stand.CLOSING:
            self.memory = replace(self.memory, rejects=())
        if stand in _OPEN and self.jail is not None and case.config is not None:
            left = tuple(text for text in self.memory.rejects if text not in texts)
            how = How.PLAIN if link is None else case.how
            self.memory = replace(
                self.memory,
                rejects=left,
                granted=case.config.remembered,
                wired=self.jail.jid,
                how=how,
                lent=case.lent,
                announce=case.config.more.announce,
            )
        elif stand is Stand.ABSENT:
            self.memory = replace(self.memory, granted=(), wired=None, lent="", **_NOT_ADOPTED)
        elif stand is Stand.PAIRED and not (link and link.adopted):
            self.memory = replace(self.memory, **_NOT_ADOPTED)

    def _rejects_over(self) -> bool:
        return (
            bool(self.memory.rejects) and time.monotonic() - self.memory.rejects_at >= self._shared.patience.reject_for
        )

    def _announce(self, wanted: Iterable[Prefix], config: JailConfig, drained: Drained) -> None:
        self.memory = self.announcer.announce(
            wanted, config, self.memory, leaving=drained.leaving, handing=drained.handing
        )
        if self.target.stand is Stand.ANNOUNCED and self.jail is not None:
            self.memory = replace(self.memory, started=self.jail.jid)

    def _later(self, now: float) -> None:
        """Have the jail looked at again when what a hook said is no longer believed, or the rejects can go."""
        memory, patience = self.memory, self._shared.patience
        due = []
        if memory.rejects and self.target.stand is not Stand.CLOSING:
            due.append(memory.rejects_at + patience.reject_for)
        if memory.phase is Phase.PRESTOP and self.target.stand is Stand.CLOSING:
            due.append(memory.phase_at + patience.stopping_for)
        if memory.phase in (Phase.PRESTART, Phase.CREATED) and self.target.stand in (
            Stand.PAIRED,
            Stand.WIRED,
        ):
            due.append(memory.phase_at + patience.starting_for)
        if (reuse := damping.reuse_at(memory.damping, self._shared.damping)) is not None:
            due.append(reuse)
        due = [at for at in due if at > now]
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if due:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(0.0, min(due) - now) + _TICK, self.wake)


def _retrying() -> AsyncRetrying:
    return AsyncRetrying(
        stop=stop_after_attempt(ATTEMPTS - 1),
        wait=_WAIT,
        retry=retry_if_exception(lambda error: isinstance(error, Trouble) and error.retry),
        reraise=True,
    )


def _texts(config: JailConfig | None) -> tuple[str, ...]:
    return config.destinations if config else ()
