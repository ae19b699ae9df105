"""One jail's worker: brings it to where it should stand, one step after the other, and answers its hooks.

Workers of different jails run at once; within one, everything is in order: withdraw, then unwire; wire, then announce.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from mobility import plan as planning
from mobility.events.spool import Event
from mobility.jails.jailsd import JailConfig
from mobility.model import GRACEFUL_SHUTDOWN, Attributes, Phase, Prefix, address, host_prefix
from mobility.network.host import Host, Trouble
from mobility.network.output import HostView, Jail
from mobility.plan import Memory, Patience, Refused, Stand, Target

if TYPE_CHECKING:
    from mobility.bgp.speaker import Speaker
    from mobility.events.spool import Spool
    from mobility.metrics import Metrics
    from mobility.store import Store

log = logging.getLogger(__name__)

ATTEMPTS = 4
"""Times that a failing jail is looked at and tried again before its hook is told; the periodic look goes on trying."""
_WAIT = wait_random_exponential(multiplier=0.05, max=2)
_OPEN = (Stand.WIRED, Stand.ANNOUNCED)
FRESH = 1.0
"""Seconds for which a poststart is news: an older one waited in the spool for an agent, and is looked at first."""
LOOK_WITHIN = 0.05
"""Seconds for which that look may wait until ExaBGP has acknowledged."""
_TICK = 0.01
"""Seconds past a deadline, so that it has passed on every clock when it is looked at."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What root's files say of a jail: its addresses, and what is wrong with its file where something is."""

    config: JailConfig | None = None
    problem: str = ""


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
    claims: Claims
    drained: Callable[[str], tuple[bool, str]]
    """By jail: whether to announce it with GRACEFUL_SHUTDOWN, and the reason not to announce it at all, or ""."""


class Claims:
    """Which jail of this host holds which address: taken at once, between two steps of any worker, so never by two."""

    def __init__(self) -> None:
        self._holders: dict[str, str] = {}
        self._held: dict[str, set[str]] = {}

    def take(self, jail: str, addresses: Iterable[str]) -> str:
        """Take all of the addresses for the jail and return "", or take none and return why."""
        wanted = tuple(addresses)
        for text in wanted:
            holder = self._holders.get(text, jail)
            if holder != jail:
                return f"{text} is held by jail {holder}, which runs: take it out of one of the two files in jails.d"
        self._holders |= dict.fromkeys(wanted, jail)
        self._held.setdefault(jail, set()).update(wanted)
        return ""

    def of_another(self, jail: str, text: str) -> bool:
        """Tell whether another jail holds an address."""
        return self._holders.get(text, jail) != jail

    def release(self, jail: str, keep: Iterable[str] = ()) -> None:
        """Give back what the jail holds, but for `keep`."""
        kept = set(keep)
        for text in self._held.pop(jail, set()):
            if text in kept:
                self._held.setdefault(jail, set()).add(text)
            else:
                del self._holders[text]


class Worker:
    """The state of one jail, and the task that changes it while there is something to change."""

    __slots__ = (
        "_acted",
        "_background",
        "_config",
        "_dirty",
        "_eventful",
        "_events",
        "_looked",
        "_measured",
        "_missed",
        "_shared",
        "_task",
        "_timer",
        "_units_tried",
        "_unwired",
        "_view",
        "announced",
        "jail",
        "memory",
        "name",
        "problem",
        "since",
        "stands",
        "target",
    )

    def __init__(self, name: str, shared: Shared, memory: Memory) -> None:
        self.name = name
        self.memory = memory
        self.target = Target(Stand.ABSENT, "not looked at yet")
        self.problem = ""
        self.since = time.time() - (time.monotonic() - memory.announced_at if memory.announced_at else 0.0)
        self.jail: Jail | None = None
        self.announced: dict[Prefix, Attributes] = {}
        self.stands: Stand | None = None
        """Where the network is known to stand; None: it has to be looked at."""
        self._shared = shared
        self._view: HostView | None = None
        self._looked = False
        self._acted = 0.0
        """When it last changed anything, or heard of a change."""
        self._unwired = False
        """Whether the last pass began without the host carrying the addresses to the jail."""
        self._measured = ""
        self._missed = False
        self._eventful = False
        self._config: JailConfig | None = None
        self._events: list[Event] = []
        self._dirty = False
        self._timer: asyncio.TimerHandle | None = None
        self._background: set[asyncio.Task[None]] = set()
        self._units_tried: set[str] = set()
        self._task: asyncio.Task[None] | None = None
        """Only while there is something to do: thousands of jails at rest cost no tasks."""

    # -- what others tell it

    def event(self, event: Event) -> None:
        """Take a hook's event: it is believed for a while, and answered when the jail stands as it should."""
        at = time.monotonic() - max(0.0, time.time() - event.time)
        if self.memory.phase is None or at >= self.memory.phase_at:
            self.memory = replace(self.memory, phase=event.phase, phase_at=at)
        self._events.append(event)
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
        await self._measure(event, LOOK_WITHIN)
        self.wake()

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def _announced_ahead(self) -> bool:
        """Announce a jail that this agent has just wired before looking once more; tell whether that was done.

        The look takes longer than all the rest, so it follows. Should the jail be gone by then, it withdraws: so this is
        done only where nothing but the wait for this very event kept the jail from being announced.
        """
        if self.stands is not Stand.WIRED or self.jail is None or self._config is None or self.problem:
            return False
        shared = self._shared
        shutting, drained = shared.drained(self.name)
        target = planning.decide(
            self._config, self.jail, self.memory, time.monotonic(), shared.patience, drained=drained
        )
        if target.stand is not Stand.ANNOUNCED or shutting:
            return False
        self.target = target
        self._announce(self._config.addresses, Attributes())
        return True

    def look(self, view: HostView, began: float) -> None:
        """Take what a whole look at the host, begun at `began` (monotonic), showed; wake up if it is new of this jail."""
        seen = planning.concerning(view, self.name, {*_texts(self._config), *self.memory.rejects})
        if seen == self._view and not self.problem and self.stands is not None:
            return
        if self._task is not None or began < self._acted:
            # things changed, or a hook spoke, while this look was made: what it shows may be half-done, or past
            self._missed = True
            if self._task is None:
                self.wake()
            return
        self._view, self._looked, self.stands = seen, True, None
        self.wake()

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
            and not (self.problem or self._events or self.announced or self.memory.rejects or self.jail)
        )

    async def stop(self) -> None:
        """Stop between two steps. Nothing is undone: what is wired stays wired, routes stand."""
        if self._timer is not None:
            self._timer.cancel()
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
                problem = await self._try()
                if problem and self._unwired and self.announced:
                    self._withdraw_unwired(problem)
                if problem != self.problem:
                    if problem:
                        log.error(
                            "can not be brought to where it should stand", extra={"jail": self.name, "problem": problem}
                        )
                        self._shared.store.note(self.name, "problem", problem)
                    self.problem = problem
                for event in events:
                    self._answer(event)
        finally:
            self._acted = time.monotonic()
            self._task = None

    def _withdraw_unwired(self, problem: str) -> None:
        """Withdraw what the host does not carry to the jail and could not be made to: the next good pass announces it."""
        for prefix in self.announced:
            self._shared.speaker.unwant(prefix)
        self.target = Target(Stand.WIRED, problem)
        self.memory = replace(self.memory, announced_at=0.0)
        self._no_longer_announced(list(self.announced), problem)

    def _no_longer_announced(self, prefixes: list[Prefix], why: str) -> None:
        for prefix in prefixes:
            del self.announced[prefix]
        if prefixes:
            self._shared.metrics.withdrawn(len(prefixes))
            self._turned("withdrawn", why)

    def _answer(self, event: Event) -> None:
        shared = self._shared
        shared.metrics.event(event.phase)
        refused = bool(self.problem) and event.phase in (Phase.PRESTART, Phase.CREATED)
        if event.reply is not None:
            shared.spool.answer(event, not refused, self.problem)
        # remembered before it leaves the spool: a crash in between tells us again, one after it loses nothing
        shared.store.remember(self.name, self.memory)
        shared.spool.done(event)
        if refused:
            # jail(8) takes the jail down now and runs no other hook: treat it as one that is stopping
            self.memory = replace(self.memory, phase=Phase.PRESTOP, phase_at=time.monotonic())
            self.wake()
        if event.phase is Phase.POSTSTART and self.announced and event.id != self._measured:
            self._in_background(self._measure(event, self._shared.settle_for))

    async def _measure(self, event: Event, within: float) -> None:
        if await self._shared.speaker.settled(tuple(self.announced), within):
            self._shared.metrics.announced_after(max(0.0, time.time() - event.time))

    async def _try(self) -> str:
        """Bring the jail to where it should stand; return "" or why that could not be done."""
        try:
            try:
                await self._once()
            except Trouble as error:
                if not error.retry:
                    raise
                async for attempt in _retrying():
                    with attempt:
                        await self._once()
        except (Refused, Trouble) as error:
            return str(error)
        except Exception as error:  # one jail's bug must stop no other jail; it is shown, never hidden
            log.exception("unexpected error", extra={"jail": self.name})
            return f"jail {self.name}: unexpected error, please report it with the agent's log: {error!r}"
        return ""

    async def _once(self) -> None:
        try:
            await self._reconcile()
        except BaseException:
            self._view = self.stands = None
            self.memory = replace(self.memory, wired=None)
            raise

    async def _reconcile(self) -> None:
        shared = self._shared
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
        self.memory = planning.observe(self.memory, self.jail, now)
        arriving = self.memory.phase in (Phase.PRESTART, Phase.CREATED)
        refusal = f"jail {self.name}: {grant.problem}" if grant.problem and (arriving or self.jail) else ""
        config = grant.config
        if config is not None and (self.jail is not None or arriving):
            taken = shared.claims.take(self.name, config.texts)
            if taken:
                config, refusal = None, f"jail {self.name}: {taken}"
        shutting, drained = shared.drained(self.name)
        self.target = planning.decide(config, self.jail, self.memory, now, shared.patience, drained=drained)
        wanted = config.addresses if config is not None and self.target.stand is Stand.ANNOUNCED else ()
        await self._withdraw(view, grant.config, wanted)
        self._unwired = not planning.carries(view, self.name, wanted)
        if self.stands is not self.target.stand or config != self._config or self._rejects_over():
            await self._network(view, config)
        self._unwired = False
        attributes = Attributes(communities=(GRACEFUL_SHUTDOWN,)) if shutting else Attributes()
        self._announce(wanted, attributes)
        if self.target.stand is Stand.ABSENT:
            shared.claims.release(self.name)
        elif config is not None:
            shared.claims.release(self.name, config.texts)
        self._later(now)
        if self.memory != before:
            shared.store.remember(self.name, self.memory)
        if refusal and (arriving or config is None):
            raise Refused(refusal)
        if self.jail is not None and config is not None and not self.jail.vnet:
            raise Refused(f"jail {self.name} {self.target.reason}")

    async def _present(self, config: JailConfig | None) -> HostView:
        """Return a view to act on: the last one with its jail looked at anew, or a new one if that is not trusted."""
        if self._view is None:
            known = {*_texts(config), *self.memory.rejects}
            self._view = planning.concerning(await self._shared.host.look(), self.name, known)
        elif not self._looked:
            jail = await self._shared.host.jail(self.name)
            self._view = replace(self._view, jails={self.name: jail} if jail else {})
        self._looked = False
        return self._view

    async def _withdraw(self, view: HostView, config: JailConfig | None, wanted: Iterable[Prefix]) -> None:
        """Withdraw what should not be announced; where packets still come in, wait until the fabric was told."""
        speaker, stays = self._shared.speaker, set(wanted)
        granted = _texts(config)
        routed = (text for text in planning.wired_addresses(view, self.name) if text not in granted)
        known = {*self.announced, *map(host_prefix, routed), *(config.addresses if config else ())} - stays
        leaving = {prefix for prefix in known if not self._shared.claims.of_another(self.name, address(prefix))}
        for prefix in leaving:
            speaker.unwant(prefix)
        gone = [prefix for prefix in self.announced if prefix in leaving]
        self._no_longer_announced(gone, self.target.reason)
        if self.target.stand is not Stand.ANNOUNCED:
            self.memory = replace(self.memory, announced_at=0.0)
        nothing_comes_in = self.stands is not None or self.target.stand in (Stand.PAIRED, Stand.WIRED)
        if not leaving or (not gone and nothing_comes_in):
            return
        if not await speaker.settled(tuple(leaving), self._shared.settle_for):
            log.warning(
                "the withdrawal was not acknowledged in time; going on, because the jail goes anyway: look at ExaBGP",
                extra={"jail": self.name, "seconds": self._shared.settle_for},
            )

    async def _network(self, view: HostView, config: JailConfig | None) -> None:
        shared, stand = self._shared, self.target.stand
        inside = None
        if stand in _OPEN and self.jail is not None:
            moved_in = planning.owned(view, self.name) is not None and not planning.inner_on_host(view, self.name)
            trusted = self.memory.wired == self.jail.jid and self.memory.granted == _texts(config)
            if not trusted and (lack := shared.host.lacks(self.jail)):
                raise Refused(lack)
            if moved_in and not trusted:
                inside = await shared.host.inside(self.name)
        expired = self._rejects_over()
        over = self.memory.rejects if expired else ()
        if stand is Stand.ABSENT and not self.memory.rejects:
            # rejects that nobody remembers, for addresses of this jail: ours from before the database was lost
            over = _texts(config)
        # what another jail holds by now is its own route, whatever stood there when we last looked
        over = tuple(text for text in over if not shared.claims.of_another(self.name, text))
        view = planning.passing_over(view, self._units_tried)
        commands = planning.plan(self.target, self.name, shared.host_name, config, view, inside, over)
        rejecting = tuple(command.argv[-3] for command in commands if command.argv[-1] == "-reject")
        if rejecting:
            # remembered before it is done, so that no crash leaves a reject behind
            rejects = tuple(sorted({*self.memory.rejects, *rejecting}))
            self.memory = replace(self.memory, rejects=rejects, rejects_at=time.monotonic())
            shared.store.remember(self.name, self.memory)
        for command in commands:
            try:
                await shared.host.apply(command)
            except Trouble:
                if command.argv[2:3] == ("create",):
                    # perhaps somebody's pair of that unit, both ends renamed: no look can show it
                    self._units_tried.add(f"{command.argv[1]}a")
                raise
        self._units_tried.clear()
        if expired and not rejecting and stand is not Stand.CLOSING:
            self.memory = replace(self.memory, rejects=())
        if stand in _OPEN and self.jail is not None and config is not None:
            left = tuple(text for text in self.memory.rejects if text not in _texts(config))
            self.memory = replace(self.memory, rejects=left, granted=_texts(config), wired=self.jail.jid)
        if commands:
            expected = planning.expect(self.target, self.name, shared.host_name, config, view, over)
            self._view = planning.concerning(expected, self.name, {*_texts(config), *self.memory.rejects})
        self.stands, self._config = stand, config
        if commands:
            made = Stand.WIRED if stand in _OPEN else stand
            shared.store.note(self.name, made, self.target.reason)
            log.info("network: %s", made, extra={"jail": self.name, "reason": self.target.reason})

    def _rejects_over(self) -> bool:
        return (
            bool(self.memory.rejects) and time.monotonic() - self.memory.rejects_at >= self._shared.patience.reject_for
        )

    def _announce(self, wanted: Iterable[Prefix], attributes: Attributes) -> None:
        fresh = 0
        for prefix in wanted:
            self._shared.speaker.want(prefix, attributes)
            fresh += prefix not in self.announced
            self.announced[prefix] = attributes
        if self.target.stand is Stand.ANNOUNCED and self.jail is not None:
            self.memory = replace(self.memory, started=self.jail.jid)
        if fresh and not self.memory.announced_at:
            self._shared.metrics.announced(fresh)
            self._turned("announced", "")
            self.memory = replace(self.memory, announced_at=time.monotonic())

    def _turned(self, what: str, why: str) -> None:
        self.since = time.time()
        self._shared.store.note(self.name, what, why)
        log.info(what, extra={"jail": self.name, "reason": why})

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
    return config.texts if config else ()
