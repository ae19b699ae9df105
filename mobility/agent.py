"""The agent: the one loop that holds state. Everything it decides is decided in `plan`; it looks, asks and carries out.

Looks come from three sides: hooks (through the spool), the periodic look, and itself when a time has passed. All of
them only say "look at this jail now".
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from typing import Any

from watchdog.events import DirModifiedEvent, FileCreatedEvent, FileDeletedEvent, FileModifiedEvent, FileMovedEvent

from mobility import config as configuration
from mobility import decide, links
from mobility import plan as planning
from mobility.bgp.speaker import Speaker
from mobility.config import Config, allows
from mobility.control import ControlError, ControlServer
from mobility.decide import How, Memory, Patience, Stand
from mobility.events.spool import Event, Spool
from mobility.events.watch import Watch
from mobility.jails.jailsd import JailConfig
from mobility.jails.sources import Sources, shared_addresses
from mobility.metrics import Metrics, MetricsError
from mobility.model import Prefix, address, host_prefix, jail_name
from mobility.network.host import Host, Trouble
from mobility.network.output import HostView
from mobility.plan import Case
from mobility.store import EVERYTHING, UNTIL_BOOT, Store
from mobility.worker import Claims, Grant, Shared, Worker

log = logging.getLogger(__name__)

_GRANTED = (FileCreatedEvent, FileModifiedEvent, FileMovedEvent, FileDeletedEvent, DirModifiedEvent)
JAILS_PER_TURN = 50
"""Jails that are woken in one turn of the loop: few enough to keep hooks and ExaBGP served."""
INSPECTIONS = 8
"""Looks inside jails at once: jails that hang take no more of the host's threads."""
PRUNE_EVERY = 3600.0
"""Seconds between two prunings of the history."""
BOOT_ATTEMPT_EVERY = 1.0
"""Seconds between attempts while the host can not be looked at after a start."""


class Agent:
    """One host's agent. `run` lives until SIGTERM or SIGINT, and leaves every route standing."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.workers: dict[str, Worker] = {}
        self.view: HostView | None = None
        self.trouble = ""
        """Why the host can not be looked at, where it can not."""
        self.looked_at = 0.0
        self._without_metrics = ""
        """Why nobody can read the metrics, where nobody can."""
        self._files = Sources.of(config)
        self._drains: dict[str, float] = {}
        self._draining: dict[str, float] = {}
        self._stopping = asyncio.Event()
        self._look_now = asyncio.Event()
        self._looked = asyncio.Event()
        self._learning = asyncio.Lock()
        self._opening: asyncio.Task[None] | None = None
        self.metrics = Metrics()
        self.host = Host(config.paths.commands, config.agent.command_timeout, self.metrics.command)
        self.speaker = Speaker(
            config.bgp, config.bridge_socket, allowed=config.host.allowed, on_change=self._bgp_changed
        )
        self.spool = Spool(config.hooks.spool, on_reject=self.metrics.spool_rejected)
        self.claims = Claims(self._released)
        self.store: Store
        self._shared: Shared
        self._pending: dict[str, Memory] = {}

    # -- life

    async def run(self) -> None:
        """Run until told to stop.

        Raises StoreError, SpoolError, Trouble or OSError where it can not even begin; the message says what to do.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        loop.add_signal_handler(signal.SIGHUP, self._look_now.set)
        self.config.paths.run.mkdir(mode=0o755, parents=True, exist_ok=True)
        control = ControlServer(self.config.paths.run, self._handlers())
        control.claim()
        self.spool.prepare()
        self.store = Store(self.config.database, await self.host.boot_id(), self.metrics.database_error)
        self._drains = self.store.drains()
        self._pending = self.store.memories()
        await self.host.learn()
        settings = self.config.agent
        self._shared = Shared(
            host=self.host,
            host_name=self.config.host.name,
            speaker=self.speaker,
            spool=self.spool,
            store=self.store,
            metrics=self.metrics,
            patience=Patience(settings.starting_for, settings.stopping_for, settings.reject_for),
            settle_for=settings.settle_for,
            grant=self._grant,
            claims=self.claims,
            drained=self._drained,
            how=self._how,
            learn=self._learn_again,
            inspections=asyncio.Semaphore(INSPECTIONS),
        )
        try:
            self.metrics.serve(self.config.metrics.listen)
        except MetricsError as error:
            # jails matter more than figures about them
            self._without_metrics = str(error)
            log.error("no metrics", extra={"problem": str(error)})  # noqa: TRY400
        await self.speaker.start()
        await control.start()
        self.store.note("", "agent started", f"pid {os.getpid()}")
        tasks = [
            asyncio.create_task(self._spooled(), name="spool"),
            asyncio.create_task(self._looks(), name="looks"),
            asyncio.create_task(self._inspects(), name="inspects"),
            asyncio.create_task(self._prunes(), name="prune"),
        ]
        stop = asyncio.create_task(self._stopped(), name="stop")
        try:
            done, _ = await asyncio.wait([stop, *tasks], return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stop}:
                task.result()  # a loop that ended has failed: its error ends the agent, and rc.d starts it anew
        finally:
            tasks += [task for task in (stop, self._opening) if task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.gather(*(worker.stop() for worker in self.workers.values()))
            await control.close()
            await self.speaker.close()
            self.metrics.close()
            self.store.note("", "agent stopped", "routes stand")
            self.store.close()
            self.host.close()

    async def _stopped(self) -> None:
        await self._stopping.wait()

    async def _spooled(self) -> None:
        async for event in self.spool.events():
            self._event(event)

    def _event(self, event: Event) -> None:
        log.info("hook", extra={"jail": event.jail, "phase": str(event.phase), "event": event.id})
        before = self._complaints(event.jail)
        if self._files.refresh_one(event.jail):  # a grant written a moment before the start counts
            self._granted_anew(event.jail, before)
        self._worker(event.jail).event(event)
        self.store.note(event.jail, event.phase, "")

    def _worker(self, name: str) -> Worker:
        worker = self.workers.get(name)
        if worker is None:
            worker = Worker(name, self._shared, self._pending.pop(name, Memory()))
            self.workers[name] = worker
        return worker

    async def _prunes(self) -> None:
        while True:
            self.store.prune(time.time() - self.config.agent.history_for)
            await asyncio.sleep(PRUNE_EVERY)

    def _released(self) -> None:
        """Wake the jails that wait for an address: one was given back."""
        for worker in self.workers.values():
            if worker.waits:
                worker.wake()

    # -- looks

    async def _looks(self) -> None:
        # managers' files are looked at in turns: an open descriptor in a jail's dataset keeps it from being unmounted
        grants = Watch(self.config.paths.jails_d, self._look_now, _GRANTED)
        try:
            await self._look_in_turns(grants)
        finally:
            grants.end()

    async def _look_in_turns(self, grants: Watch) -> None:
        while True:
            grants.ensure()
            self._look_now.clear()
            try:
                await self._look()
                self.trouble = ""
            except Trouble as error:
                if str(error) != self.trouble:
                    log.error("the host can not be looked at", extra={"problem": str(error)})  # noqa: TRY400
                self.trouble = str(error)
            self.metrics.refresh(self.snapshot())
            wait = self.config.agent.look_every if self.view is not None else BOOT_ATTEMPT_EVERY
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._look_now.wait()

    async def _inspects(self) -> None:
        """Look into one jail after the other, so that each has its turn once in `inside_every`."""
        await self._looked.wait()
        while True:
            names = sorted(self.workers)
            for name in names:
                await asyncio.sleep(self.config.agent.inside_every / len(names))
                if name in self.workers:
                    self.workers[name].inspect()
            if not names:
                await asyncio.sleep(self.config.agent.inside_every)

    def _how(self) -> How:
        """Return how links bring IPv4 to their jails: as configured, else as the kernel can."""
        wanted = self.config.host.ipv4_routes
        if wanted == configuration.AUTO:
            wanted = configuration.NEXT_HOP if self.host.ipv6_next_hops else configuration.INTERFACE
        return How(wanted)

    async def _learn_again(self) -> None:
        """Ask the kernel once more what it can, because a command failed: a sysctl may have been switched."""
        before = self._how()
        async with self._learning:
            try:
                await self.host.learn()
            except Trouble as error:
                log.warning("the kernel does not say what it can", extra={"problem": str(error)})
        if self._how() is not before:
            log.warning("links change how they bring IPv4 to their jails", extra={"to": str(self._how())})
            for worker in self.workers.values():
                worker.wake()

    async def _look(self) -> None:
        """Look at everything, and wake each jail about which it shows something new."""
        self._reload()
        began = time.monotonic()
        view = await self.host.look()
        log.log(
            logging.INFO if self.view is None else logging.DEBUG,
            "looked at the host",
            extra={"seconds": round(time.monotonic() - began, 4), "jails": len(view.jails)},
        )
        first = self.view is None
        self.looked_at = time.time()
        changed, self.view = view is not self.view, view
        if first:
            adopted = {name: memory.adopted for name, memory in self._pending.items() if memory.adopted}
            for text, jail in links.holders(shared_addresses(self._files.jails.values()), view, adopted).items():
                self.claims.take(jail, [text])
        names = {*self._files.jails, *self._files.problems, *links.made_for(view), *self._pending, *self.workers}
        for count, name in enumerate(sorted(names - {""}), 1):
            if count % JAILS_PER_TURN == 0:
                # what these jails have to say goes out while the next ones are still being looked at
                await asyncio.sleep(0)
            worker = self.workers.get(name)
            if worker is None and not self._concerns(name, view):
                self._pending.pop(name, None)
                continue
            worker = worker or self._worker(name)
            if changed or worker.problem or worker.stands is None:
                worker.look(view, began)
        for name in [
            name for name, worker in self.workers.items() if worker.forgettable and not self._concerns(name, view)
        ]:
            worker = self.workers.pop(name)
            self.store.remember(name, Memory())
            await worker.stop()
        if first:
            self._looked.set()
            self._opening = asyncio.create_task(self._open(), name="open")

    async def _open(self) -> None:
        """Once every jail was dealt with, let what no jail explains be withdrawn: routes of before a restart."""
        await asyncio.gather(*(worker.settled() for worker in self.workers.values()))
        self.speaker.open_for_withdrawals()

    def _concerns(self, name: str, view: HostView) -> bool:
        """Tell whether there is anything to do, or to say, about a jail."""
        memory = self._pending.get(name, Memory())
        return (
            name in self._files.problems
            or links.outer_of(view, name) is not None
            or (
                name in self._files.jails
                and (
                    name in view.jails or any(address(p) in view.net.routes for p in self._files.jails[name].addresses)
                )
            )
            or bool(memory.rejects or memory.phase or memory.adopted)
        )

    def _reload(self) -> None:
        """Read jails.d again where it has changed, and have the jails concerned looked at."""
        before = {name: self._complaints(name) for name in {*self._files.problems, *self._files.refused}}
        for name in self._files.refresh():
            self._granted_anew(name, before.get(name, ()))
        if "" in self._files.problems and "" not in before:
            log.error("jails.d", extra={"problem": self._problem("")})

    def _complaints(self, name: str) -> tuple[str, ...]:
        return (*map(str, self._files.problems.get(name, ())), *self._files.refused.get(name, ()))

    def _granted_anew(self, name: str, before: tuple[str, ...]) -> None:
        now = self._complaints(name)
        if now and now != before and (name in self._files.problems or name in self.workers):
            log.error("configuration", extra={"jail": name, "problem": "; ".join(now)})
            self.store.note(name, "not granted", "; ".join(now))
        if name in self.workers:
            self.workers[name].wake()

    def _problem(self, name: str) -> str:
        return "; ".join(map(str, self._files.problems.get(name, ())))

    def _grant(self, name: str, memory: Memory) -> Grant:
        """Return what a jail may have: as its file says, or, where that is broken, as it was last wired."""
        problem = self._problem(name)
        config = self._files.jails.get(name)
        if config is None and (problem or "" in self._files.problems):
            last = tuple(host_prefix(text) for text in memory.granted)
            last = tuple(prefix for prefix in last if allows(self.config.host.allowed, prefix))
            config = JailConfig(name, last, "remembered") if last else None
        return Grant(config, problem, self._files.refused.get(name, ()))

    # -- BGP

    def _bgp_changed(self) -> None:
        self.metrics.sessions(self.speaker.sessions())

    def _drained(self, name: str) -> tuple[bool, str]:
        keys = [key for key in (UNTIL_BOOT, EVERYTHING, name) if key in self._drains]
        if not keys:
            return False, ""
        leaving = min(self._draining.get(key, 0.0) for key in keys)
        if time.monotonic() < leaving:
            return True, ""
        when = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(min(self._drains[key] for key in keys)))
        whose = "it is" if keys == [name] else "this host is"
        how = "mobility undrain --until-boot" if UNTIL_BOOT in keys else "mobility undrain"
        how += f" {name}" if keys == [name] else ""
        return False, f"{whose} drained since {when}: {how}"

    # -- what the `mobility` command asks

    def _handlers(self) -> dict[str, Any]:
        return {
            "status": self._status,
            "plan": self._plan,
            "events": self._events,
            "drain": self._drain,
            "undrain": self._undrain,
        }

    async def _status(self, request: dict[str, Any]) -> dict[str, Any]:
        names = self._known(request)
        known = {*self.workers, *self._files.jails, *self._files.problems, *self._asking()} - {""}
        jails = [self._describe(name) for name in sorted(known) if not names or name in names]
        return {"host": self.snapshot(), "jails": jails}

    def _known(self, request: dict[str, Any]) -> set[str]:
        """Return the names that are asked about. Raises ControlError where one is no jail's of this host."""
        names = _names(request)
        known = {*self.workers, *self._files.jails, *self._files.problems, *self._asking()}
        if missing := sorted(names - known):
            raise ControlError(
                f"no such jail here: {', '.join(missing)} (addresses are granted in {self.config.paths.jails_d})"
            )
        return names

    def _asking(self) -> set[str]:
        """Return the running jails that ask for what nobody granted."""
        return self._files.refused.keys() & self.view.jails.keys() if self.view else set()

    def snapshot(self) -> dict[str, Any]:
        """Return the host's own state: what `mobility status` shows first, and the metrics count."""
        stands: dict[str, int] = {str(stand): 0 for stand in Stand}
        waiting: dict[str, str] = {}
        for name, worker in self.workers.items():
            stands[worker.target.stand] += 1
            if worker.jail is not None and not worker.announced:
                waiting[name] = worker.problem or worker.target.reason
        return {
            "name": self.config.host.name,
            "pid": os.getpid(),
            "stands": stands,
            "not_announced": waiting,
            "drained": sorted(self._drains),
            "problems": [
                text for text in (self.trouble, self._problem(""), self._database(), self._without_metrics) if text
            ],
            "looked_at": self.looked_at,
            "bridge": self.speaker.connected,
            "sessions": [session.describe() for session in self.speaker.sessions().values()],
            "rib": self.speaker.counts(),
            "spool": {"depth": self.spool.depth, "oldest_s": round(self.spool.oldest(time.time()), 3)},
        }

    def _database(self) -> str:
        error = self.store.last_error
        return f"the database can not be written: {error}: history has a gap" if error else ""

    def _describe(self, name: str) -> dict[str, Any]:
        worker = self.workers.get(name)
        config = self._files.jails.get(name)
        if worker is None:
            refused = self._files.refused.get(name, ())
            reason = "; ".join(filter(None, [self._problem(name), *refused])) or "does not run"
            return _line(name, config.addresses if config else (), reason=reason, refused=list(refused))
        granted = config.addresses if config else tuple(worker.announced)
        routes = {
            address(prefix): {peer: str(state) for peer, state in self.speaker.route(prefix).items()}
            for prefix in granted
        }
        due = {address(prefix) for prefix in worker.announced}
        told = bool(due) and all(
            any(state == "announced" for state in peers.values()) for text, peers in routes.items() if text in due
        )
        reason = worker.problem or self._problem(name)
        refused = self._files.refused.get(name, ())
        if not told:
            without = "; ".join(refused) if config is None else ""
            reason = reason or without or worker.target.reason or _untold(routes, connected=self.speaker.connected)
        else:
            partly = worker.target.reason if len(due) < len(granted) else ""
            reason = reason or partly or "; ".join(refused)
        return _line(
            name,
            granted,
            running=worker.jail is not None,
            jid=worker.jail.jid if worker.jail else None,
            wired=worker.stands in (Stand.WIRED, Stand.ANNOUNCED, Stand.CLOSING),
            ready=worker.target.stand is Stand.ANNOUNCED and not worker.problem,
            announced=told,
            since=worker.since,
            stand=str(worker.target.stand),
            reason=reason,
            refused=list(refused),
            blind=worker.blind,
            how=str(worker.memory.how or ""),
            adopted=worker.memory.adopted,
            routes=routes,
        )

    async def _plan(self, request: dict[str, Any]) -> dict[str, Any]:
        """Say what would be run now, and run nothing but looks."""
        view = await self.host.look()
        self._reload()
        names = self._known(request)
        plans = []
        for name in sorted(names or {*self._files.jails, *links.made_for(view), *self.workers}):
            worker = self.workers.get(name)
            memory = worker.memory if worker else Memory()
            grant = self._grant(name, memory)
            jail = view.jails.get(name)
            now = time.monotonic()
            memory = decide.observe(memory, jail, now)
            target = decide.decide(
                grant.config,
                jail,
                memory,
                now,
                self._shared.patience,
                drained=self._drained(name)[1],
            )
            plans.append(
                await self._planned(
                    Case(name, self.config.host.name, target, grant.config, view, memory=memory, how=self._how())
                )
            )
        return {"plans": plans}

    async def _planned(self, case: Case) -> dict[str, Any]:
        name, target = case.jail, case.target
        link = case.link
        moved = links.owned(case.view, name) is not None and not links.inner_on_host(case.view, name)
        try:
            if case.open and link is not None and (moved or link.adopted):
                case = replace(case, inside=await self.host.inside(name))
            commands = planning.plan(case)
            problem = ""
        except (planning.Refused, Trouble) as error:
            commands, problem = [], str(error)
        jail = case.view.jails.get(name)
        announced = case.config and jail and target.stand is Stand.ANNOUNCED
        wanted = decide.held(case.config, jail) if announced and case.config and jail else ()
        return {
            "name": name,
            "stand": str(target.stand),
            "reason": target.reason,
            "problem": problem,
            "commands": [{"argv": list(self.host.argv(command)), "why": command.why} for command in commands],
            "announce": self.speaker.preview(wanted),
        }

    async def _events(self, request: dict[str, Any]) -> dict[str, Any]:
        jail, limit, after = request.get("jail"), request.get("limit", 100), request.get("after", 0)
        if (jail is not None and not isinstance(jail, str)) or not isinstance(limit, int) or not isinstance(after, int):
            raise ControlError("events takes jail (a name), limit and after (numbers)")
        lines = self.store.history(jail, limit=max(1, min(limit, 10000)), after=after)
        return {"events": [{"id": x.id, "at": x.at, "jail": x.jail, "what": x.what, "detail": x.detail} for x in lines]}

    async def _drain(self, request: dict[str, Any]) -> dict[str, Any]:
        """Withdraw, so that nothing comes here any more: GRACEFUL_SHUTDOWN first, then withdrawals (RFC 8326)."""
        names = self._known(request)
        settings = self.config.agent
        if request.get("until_boot"):
            return await self._drain_until_boot(names, request.get("within"))
        keys = names or {EVERYTHING}
        until = time.monotonic() + settings.drain_for
        fresh = [key for key in keys if key not in self._drains]
        self._note_drains(fresh, until)
        affected = [worker for name, worker in self.workers.items() if not names or name in names]
        prefixes = {prefix for worker in affected for prefix in worker.announced}
        if fresh and prefixes:
            await self._woken(affected)
            await self.speaker.settled(tuple(prefixes), settings.settle_for)
            await asyncio.sleep(max(0.0, until - time.monotonic()))
        if ended := sorted(key for key in keys if key not in self._drains):
            raise ControlError(f"undrained before anything was withdrawn: {', '.join(ended)}")
        for key in keys:
            self._draining.pop(key, None)
        # once more: a jail may have started meanwhile
        affected = [worker for name, worker in self.workers.items() if not names or name in names]
        prefixes |= {prefix for worker in affected for prefix in worker.announced}
        await self._woken(affected)
        settled = await self.speaker.settled(tuple(prefixes), settings.settle_for)
        return {"drained": sorted(keys), "withdrawn": sorted(map(address, prefixes)), "acknowledged": settled}

    async def _drain_until_boot(self, names: set[str], within: object) -> dict[str, Any]:
        """Withdraw everything within so many seconds, without a command on the host: it is shutting down."""
        if names or isinstance(within, bool) or not isinstance(within, int | float) or not 0 < within <= 3600:
            raise ControlError("a drain until the next boot takes no names, and within: seconds up to 3600")
        end = time.monotonic() + within
        until = time.monotonic() + min(self.config.agent.drain_for, within / 3)
        self._note_drains([UNTIL_BOOT], until)
        prefixes = tuple(prefix for worker in self.workers.values() for prefix in worker.announced)
        if prefixes and self.speaker.connected:
            for worker in self.workers.values():
                worker.announce_leaving()
            await self.speaker.settled(prefixes, until - time.monotonic())
            await asyncio.sleep(max(0.0, until - time.monotonic()))
        self._draining.pop(UNTIL_BOOT, None)
        if UNTIL_BOOT not in self._drains:
            raise ControlError("the drain was ended by an undrain before anything was withdrawn")
        reason = self._drained("")[1]
        withdrawn = [prefix for worker in self.workers.values() for prefix in worker.withdraw(reason)]
        left = end - time.monotonic() if self.speaker.connected else 0.0
        settled = not withdrawn or await self.speaker.settled(tuple(withdrawn), max(0.0, left))
        return {"drained": [UNTIL_BOOT], "withdrawn": sorted(map(address, withdrawn)), "acknowledged": settled}

    def _note_drains(self, keys: Iterable[str], until: float) -> None:
        for key in keys:
            self._drains[key] = time.time()
            self._draining[key] = until
            self.store.drain(key, self._drains[key])
            self.store.note("" if key in (EVERYTHING, UNTIL_BOOT) else key, "drain", "")

    async def _undrain(self, request: dict[str, Any]) -> dict[str, Any]:
        names = _names(request)
        until_boot = {UNTIL_BOOT} & set(self._drains) if request.get("until_boot") else None
        keys = names or set(self._drains) if until_boot is None else until_boot
        unknown = sorted(keys - set(self._drains))
        if unknown:
            drained = ", ".join(sorted(self._drains)) or "nothing is drained"
            raise ControlError(
                f"not drained by name: {', '.join(unknown)} (drained: {drained}; {EVERYTHING} is the whole host)"
            )
        for key in keys:
            self._drains.pop(key, None)
            self.store.undrain(key)
            self.store.note("" if key in (EVERYTHING, UNTIL_BOOT) else key, "undrain", "")
        await self._woken(list(self.workers.values()))
        return {"undrained": sorted(keys), "still_drained": sorted(self._drains)}

    async def _woken(self, workers: Iterable[Worker]) -> None:
        workers = list(workers)
        for worker in workers:
            worker.wake()
        # a worker that waits for a hung command must not keep an operator waiting
        settling = [asyncio.create_task(worker.settled()) for worker in workers]
        if settling:
            _, late = await asyncio.wait(settling, timeout=self.config.agent.command_timeout)
            for task in late:
                task.cancel()


def _names(request: dict[str, Any]) -> set[str]:
    names = request.get("names", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ControlError("names must be a list of jail names")
    try:
        return {jail_name(name) for name in names}
    except ValueError as error:
        raise ControlError(str(error)) from error


def _untold(routes: dict[str, dict[str, str]], *, connected: bool) -> str:
    if not connected:
        return "ExaBGP's bridge is not connected: service mobility_exabgp status"
    for text, peers in routes.items():
        for peer, state in peers.items():
            if state != "announced":
                return f"{text} to {peer}: {state}"
    return "no peer is configured"


def _line(name: str, addresses: Iterable[Prefix], **more: Any) -> dict[str, Any]:
    line: dict[str, Any] = {
        "name": name,
        "addresses": [address(prefix) for prefix in addresses],
        "running": False,
        "jid": None,
        "wired": False,
        "ready": False,
        "announced": False,
        "since": None,
        "stand": str(Stand.ABSENT),
        "reason": "",
        "refused": [],
        "blind": "",
        "how": "",
        "adopted": "",
        "routes": {},
    }
    return line | more
