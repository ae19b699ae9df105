"""Which jails are ready: runs every jail's probes, and tells when a jail's readiness turns.

Everything happens on the event loop's thread, but for commands in jails, which have threads of their own. One heap of due
times serves thousands of probes; each has its place in its interval, by its name, so that they spread evenly. What hung
the last time waits its turn among its like, so that it takes nobody else's place.
"""

from __future__ import annotations

import asyncio
import functools
import heapq
import itertools
import logging
import time
import zlib
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from mobility import logs
from mobility.config import Config
from mobility.config import Health as Settings
from mobility.health import standing as rule
from mobility.health.ask import Answer, in_jail, over_network
from mobility.health.checks import EXEC, REACH, Probe, unfold
from mobility.health.icmp import LINGER, Conclusion, Echo, Pinger
from mobility.health.standing import FRESH, PRESUMED, Standing
from mobility.jails.jailsd import JailConfig

log = logging.getLogger(__name__)

NETWORK, NETWORK_SLOW = 512, 256
"""Connections that may be under way at once; the second of those to what hung the last time."""
COMMANDS, COMMANDS_SLOW = 48, 16
"""Commands in jails that may run at once."""
_BATCH = 128
"""Probes that are begun before the event loop gets to do something else."""
_WAITING = "waiting"
_NOT_ITS_OWN = Answer(good=False, said="is none of the jail's addresses", why="address")


class _Unit:
    """One probe of one jail, as it runs."""

    __slots__ = (
        "asking",
        "at",
        "before",
        "due",
        "echo",
        "failures",
        "gone",
        "jail",
        "place",
        "probe",
        "round",
        "runs",
        "said",
        "slow",
        "standing",
        "state",
    )

    def __init__(self, jail: _Jail, probe: Probe, standing: Standing) -> None:
        self.jail = jail
        self.probe = probe
        self.standing = self.before = standing
        self.place = zlib.crc32(f"{jail.name} {probe.name}".encode()) / 2**32
        self.due = 0.0
        self.round = 0
        self.echo: Echo | None = None
        self.asking: asyncio.Task[None] | None = None
        self.gone = False
        self.slow = False
        self.state = _WAITING
        self.said = "waits for its first answer"
        self.at = 0.0
        self.runs = self.failures = 0


class _Jail:
    """A jail that is watched."""

    __slots__ = ("beginning", "config", "jid", "name", "probes", "ready", "settings", "told", "units")

    def __init__(self, name: str, jid: int) -> None:
        self.name = name
        self.jid = jid
        self.config: JailConfig | None = None
        self.settings: Settings | None = None
        self.probes: tuple[Probe, ...] = ()
        self.units: list[_Unit] = []
        self.ready = False
        self.beginning = False
        self.told: tuple[str, str] | None = None
        """Which probe keeps it from being ready, and in which state, as was last told."""

    @property
    def waits_for(self) -> list[_Unit]:
        return [unit for unit in self.units if not unit.standing.ready]

    @property
    def worst(self) -> _Unit | None:
        """The probe to name when it is asked why this jail is not ready; None where it is."""
        waits = self.waits_for
        # one that said something tells more than one that waits for its first answer
        return next((unit for unit in waits if unit.state != _WAITING), waits[0] if waits else None)


class _Lane:
    """So many at once, and the others in the order in which they came."""

    def __init__(self, limit: int, begin: Callable[[_Unit, _Lane], None]) -> None:
        self._limit = limit
        self._begin = begin
        self._running = 0
        self._queue: deque[_Unit] = deque()

    def submit(self, unit: _Unit) -> None:
        self._queue.append(unit)
        self._go_on()

    def done(self) -> None:
        self._running -= 1
        self._go_on()

    def _go_on(self) -> None:
        while self._queue and self._running < self._limit:
            unit = self._queue.popleft()
            if not unit.gone:
                self._running += 1
                self._begin(unit, self)


class Health:
    """Watches jails.

    `on_change` is called with a jail's name whenever its readiness has turned, or the reason why it is not ready is
    another one; but not during `watch`.
    """

    def __init__(
        self, config: Config, on_change: Callable[[str], None], cause: Callable[[str], str] = lambda _: ""
    ) -> None:
        """`cause` returns the hook's event that a jail's readiness is a consequence of, "" where there is none."""
        self._settings = config.health
        self._directories = config.paths.commands
        self._on_change = on_change
        self._cause = cause
        self._pinger = Pinger()
        self._pool = ThreadPoolExecutor(COMMANDS + COMMANDS_SLOW, "check")
        self._network = (_Lane(NETWORK, self._ask), _Lane(NETWORK_SLOW, self._ask))
        self._commands = (_Lane(COMMANDS, self._ask), _Lane(COMMANDS_SLOW, self._ask))
        self._jails: dict[str, _Jail] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._heap: list[tuple[float, int, _Unit]] = []
        self._number = itertools.count()
        self._timer: asyncio.Handle | None = None
        self._timer_at = 0.0
        self.runs: Counter[str] = Counter()
        """Results so far, by kind of check."""
        self.failures: Counter[tuple[str, str]] = Counter()
        """Bad results so far, by kind and reason."""
        self.unknown: Counter[str] = Counter()
        """Questions that this host was too short of something to ask, by kind."""

    @property
    def watched(self) -> int:
        """How many jails are watched."""
        return len(self._jails)

    def passes(self, name: str) -> bool:
        """Tell whether a jail is ready: `ready` without the reason."""
        jail = self._jails.get(name)
        return jail is not None and jail.ready

    @property
    def ready_jails(self) -> int:
        """How many of them are ready."""
        return sum(jail.ready for jail in self._jails.values())

    @property
    def probes(self) -> int:
        """How many probes run: checks times addresses."""
        return sum(len(jail.units) for jail in self._jails.values())

    def watch(self, name: str, config: JailConfig, jid: int, *, announced: bool) -> None:
        """Watch a jail that stands wired; its first echoes leave before this returns.

        A jail that is announced, or is ready as it is, is presumed to pass whatever is new. The same again changes nothing.
        """
        before = self._jails.get(name)
        if before is not None and before.jid != jid:
            self.forget(name)
            before = None
        if before is not None and before.config is config and before.settings is self._settings:
            return
        probes = unfold(config.more.checks, config.texts, self._settings)
        if before is not None and before.probes == probes:
            before.config, before.settings = config, self._settings
            return
        jail = before or _Jail(name, jid)
        presumed = announced or jail.ready
        self._jails[name] = jail
        kept = {unit.probe: unit for unit in jail.units if unit.probe in probes}
        for unit in jail.units:
            if unit.probe not in kept:
                self._stop(unit)
        jail.config, jail.settings, jail.probes = config, self._settings, probes
        jail.units = [kept.get(probe) or _Unit(jail, probe, PRESUMED if presumed else FRESH) for probe in probes]
        jail.beginning = True
        now = asyncio.get_running_loop().time()
        for unit in jail.units:
            if unit.probe in kept:
                continue
            if presumed:
                self._plan(unit, rule.in_turn(now, unit.probe.interval, unit.place))
            else:
                self._start(unit)
        jail.beginning = False
        worst = jail.worst
        jail.ready, jail.told = worst is None, (worst.probe.name, worst.state) if worst else None

    def forget(self, name: str) -> None:
        """Watch a jail no more: nothing is sent to it from now on."""
        jail = self._jails.pop(name, None)
        for unit in jail.units if jail else ():
            self._stop(unit)

    def hurry(self, name: str) -> None:
        """Try at once what has not passed yet in a fresh jail, and at short intervals again: its start is complete."""
        jail = self._jails.get(name)
        for unit in jail.units if jail else ():
            if unit.standing.fresh and unit.due:
                unit.standing = FRESH if not unit.standing.streak else unit.standing
                self._start(unit)

    def ready(self, name: str) -> tuple[bool, str]:
        """Tell whether a jail is ready, and why not: the check, the address, and what it said last."""
        jail = self._jails.get(name)
        if jail is None:
            return False, "its checks have not begun"
        worst = jail.worst
        if worst is None:
            return True, ""
        more = len(jail.waits_for) - 1
        others = f"; and {more} more {'check' if more == 1 else 'checks'}" if more else ""
        return False, f"{_sentence(worst)}{others}"

    def describe(self, name: str) -> list[dict[str, Any]]:
        """Return how each check of a jail stands, for `status --json`."""
        jail = self._jails.get(name)
        return [
            {
                "check": unit.probe.name,
                "kind": unit.probe.check.kind,
                "address": unit.probe.address or None,
                "ready": unit.standing.ready,
                "state": unit.state,
                "said": unit.said,
                "at": round(unit.at, 3) or None,
                "runs": unit.runs,
                "failures": unit.failures,
                "streak": unit.standing.streak,
                "rise": unit.probe.rise,
                "fall": unit.probe.fall,
                "interval": unit.probe.interval,
                "timeout": unit.probe.timeout,
            }
            for unit in (jail.units if jail else ())
        ]

    def silent(self, name: str) -> list[str]:
        """Return the addresses of a jail that do not answer, ready or not."""
        jail = self._jails.get(name)
        return [unit.probe.address for unit in (jail.units if jail else ()) if unit.state == Conclusion.SILENT]

    def reconfigure(self, settings: Settings) -> None:
        """Take new [health] settings; a jail that is ready stays so until checks fail."""
        if settings == self._settings:
            return
        self._settings = settings
        for jail in list(self._jails.values()):
            if jail.config is not None:
                was = jail.ready
                self.watch(jail.name, jail.config, jail.jid, announced=jail.ready)
                if jail.ready is not was:
                    self._on_change(jail.name)

    async def close(self) -> None:
        """End everything; a command that still runs in a jail ends by itself or at its time limit."""
        for name in list(self._jails):
            self.forget(name)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._pinger.close()
        self._pool.shutdown(wait=False, cancel_futures=True)

    # -- when

    def _plan(self, unit: _Unit, due: float) -> None:
        unit.due = due
        heapq.heappush(self._heap, (due, next(self._number), unit))
        if self._timer is None or due < self._timer_at:
            self._arm()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._heap:
            self._timer_at = self._heap[0][0]
            self._timer = asyncio.get_running_loop().call_at(self._timer_at, self._tick)

    def _tick(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        now = loop.time() + 0.001  # the next millisecond's too: fewer wakings
        for _ in range(_BATCH):
            if not self._heap or self._heap[0][0] > now:
                break
            due, _number, unit = heapq.heappop(self._heap)
            if not unit.gone and unit.due == due:
                self._start(unit)
        if self._timer is None:
            self._arm()

    def _start(self, unit: _Unit) -> None:
        """Begin a round of a probe; its result plans the next one."""
        unit.due = 0.0
        unit.before = unit.standing
        unit.round += 1
        jail, probe = unit.jail, unit.probe
        if probe.check.kind == EXEC:
            self._commands[unit.slow].submit(unit)
        elif jail.config is not None and probe.address not in jail.config.texts:
            self._answered(unit, _NOT_ITS_OWN)
        elif probe.check.kind == REACH:
            if unit.echo is not None:
                self._pinger.forget(unit.echo)
            # a fresh jail must not wait for an error that may yet come: should one, it counts in place of the silence
            timeout = probe.timeout if unit.standing.fresh else max(probe.timeout, LINGER)
            echoed = functools.partial(self._echoed, unit, unit.round)
            unit.echo = self._pinger.ping(probe.address, timeout, echoed)
        else:
            self._network[unit.slow].submit(unit)

    def _stop(self, unit: _Unit) -> None:
        unit.gone = True
        if unit.echo is not None:
            self._pinger.forget(unit.echo)
        # a thread can not be ended: its command goes on to its time limit, and nobody hears of it
        if unit.asking is not None and unit.probe.check.kind != EXEC:
            unit.asking.cancel()

    # -- what came of it

    def _echoed(self, unit: _Unit, round_: int, conclusion: Conclusion, said: str) -> None:
        if unit.gone or unit.round != round_:
            return
        good = {
            Conclusion.ANSWERED: True,
            Conclusion.UNREACHABLE: False,
            Conclusion.SILENT: unit.probe.silence_is_good,
            Conclusion.UNKNOWN: None,
        }[conclusion]
        self._result(unit, good=good, state=conclusion.value, said=said, why=conclusion.value)

    def _ask(self, unit: _Unit, lane: _Lane) -> None:
        task = asyncio.create_task(self._asking(unit), name=f"check {unit.jail.name} {unit.probe.name}")
        unit.asking = task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: lane.done())  # also of one that was cancelled before it began

    async def _asking(self, unit: _Unit) -> None:
        probe = unit.probe
        try:
            if probe.check.kind == EXEC:
                answer = await in_jail(probe, unit.jail.jid, self._directories, self._pool)
            else:
                answer = await over_network(probe)
        except Exception:
            # a mistake of ours must not end this jail's checks, nor change what is announced
            log.exception("a check could not be run", extra={"jail": unit.jail.name, "check": probe.name})
            answer = Answer(good=None, said="could not be run: see the log", why="host")
        unit.slow = answer.late
        self._answered(unit, answer)

    def _answered(self, unit: _Unit, answer: Answer) -> None:
        if not unit.gone:
            state = {True: "passed", False: "failed", None: Conclusion.UNKNOWN.value}[answer.good]
            self._result(unit, good=answer.good, state=state, said=answer.said, why=answer.why)

    def _result(self, unit: _Unit, *, good: bool | None, state: str, said: str, why: str) -> None:
        """Judge a result. One that corrects this round's (an error after the silence) counts in its place."""
        probe, kind = unit.probe, unit.probe.check.kind
        unit.state, unit.said, unit.at = state, said, time.time()
        unit.runs += 1
        self.runs[kind] += 1
        if good is None:
            self.unknown[kind] += 1
            unit.standing = unit.before
        else:
            unit.standing = rule.after(unit.before, good=good, rise=probe.rise, fall=probe.fall)
            if not good:
                unit.failures += 1
                self.failures[kind, why] += 1
        now = asyncio.get_running_loop().time()
        pause = rule.RETRY if good is None else rule.pause(unit.standing, probe.interval)
        steady = good is not None and pause == probe.interval
        # half an interval from now at least: the round that ends now may have begun a little before its place
        again = rule.in_turn(now + pause / 2, probe.interval, unit.place) if steady else now + pause
        self._plan(unit, again)
        self._settle(unit.jail)

    def _settle(self, jail: _Jail) -> None:
        """Tell that a jail's readiness has turned, or why it is not ready, if so."""
        if jail.beginning:
            return  # whoever asked for it looks when it has begun
        worst, ready, before = jail.worst, jail.worst is None, jail.told
        jail.told = (worst.probe.name, worst.state) if worst else None
        if ready is not jail.ready:
            jail.ready = ready
            with logs.about(jail.name, self._cause(jail.name)):
                log.info("ready" if ready else "not ready", extra={"reason": self.ready(jail.name)[1]})
        elif jail.told == before or worst is None or worst.state == _WAITING:
            return
        self._on_change(jail.name)


def _sentence(unit: _Unit) -> str:
    """Return why a unit is not ready, in the operator's words."""
    said = f"{unit.probe.name}: {unit.said}"
    if unit.standing.streak and not unit.standing.ready:
        said += f" ({unit.standing.streak} of {unit.probe.rise} in a row)"
    return said
