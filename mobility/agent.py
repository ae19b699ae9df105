"""The agent: the one loop that holds state. Everything it decides is decided in `plan`; it looks, asks and carries out.

Looks come from three sides: hooks (through the spool), the periodic look, and itself when a time has passed. All of
them only say "look at this jail now".
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import os
import signal
import time
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

from watchdog.events import DirModifiedEvent, FileCreatedEvent, FileDeletedEvent, FileModifiedEvent, FileMovedEvent

from mobility import config as configuration
from mobility import damping, decide, links, reload
from mobility import plan as planning
from mobility.announcement import Announce
from mobility.announcer import Announcer, Fabric
from mobility.bgp import conf, ledger, ownership, run
from mobility.bgp.grammar import prefix_text
from mobility.bgp.ledger import Ledger
from mobility.bgp.ownership import Claim, Kind, Policy, Record
from mobility.bgp.speaker import Speaker, SpeakerError
from mobility.config import Config, allows
from mobility.control import ControlError, ControlServer
from mobility.decide import How, Memory, Patience, Stand
from mobility.events.spool import Event, Spool
from mobility.events.watch import Watch
from mobility.failover.manager import Failover, Ties, Told
from mobility.failover.policy import Drain, Group, hand_over_within
from mobility.health.manager import Health
from mobility.holders import Holders
from mobility.jails.jailsd import JailConfig, More, addresses_of, services_of
from mobility.jails.sources import Sources, overlapping_services, shared_addresses
from mobility.metrics import Metrics, MetricsError
from mobility.model import Phase, Prefix, destination, jail_name
from mobility.network.host import Host, Trouble
from mobility.network.output import HostView
from mobility.plan import Case
from mobility.store import EVERYTHING, UNTIL_BOOT, Store
from mobility.uplinks import Uplinks
from mobility.worker import Drained, Grant, Shared, Worker

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
        self._heard = asyncio.Event()
        self._reloading = asyncio.Lock()
        self._reloads: set[asyncio.Task[None]] = set()
        self._learning = asyncio.Lock()
        self._opening: asyncio.Task[None] | None = None
        self._listening: asyncio.TimerHandle | None = None
        self._granted: dict[str, tuple[str, ...]] = {}
        """By jail, its prefixes as BGP writes them."""
        self._granted_to: dict[str, set[str]] = {}
        """By prefix, the jails that may have it."""
        self._connected = False
        self._concerned: dict[str, None] = {}
        """Jails that have still to reconsider what the fabric shows, in the order in which it came."""
        self._turn: asyncio.Handle | None = None
        self._waiting: set[asyncio.Event] = set()
        """Whoever waits for news of the fabric."""
        self._handing: set[str] = set()
        """Jails that another host is expected to start."""
        self.metrics = Metrics()
        self.host = Host(config.paths.commands, config.agent.command_timeout, self.metrics.command)
        self.speaker = Speaker(
            config.bgp,
            config.bridge_socket,
            allowed=config.host.allowed,
            on_change=self._bgp_changed,
            mark=conf.mark(config),
        )
        self.spool = Spool(config.hooks.spool, on_reject=self.metrics.spool_rejected)
        self.holders = Holders(self._released)
        self.health = Health(config, self._health_changed)
        self.store: Store
        self.ledger: Ledger
        self.uplinks: Uplinks
        self.failover: Failover
        self._members: dict[str, set[str]] = {}
        """By group of mobility.toml, the jails whose files name it."""
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
        loop.add_signal_handler(signal.SIGHUP, self._hangup)
        self.config.paths.run.mkdir(mode=0o755, parents=True, exist_ok=True)
        control = ControlServer(self.config.paths.run, self._handlers())
        control.claim()
        self.spool.prepare()
        boot = await self.host.boot_id()
        self.store = Store(self.config.database, boot, self.metrics.database_error)
        self._drains = self.store.drains()
        self._handing = self.store.handing()
        self._pending = self.store.memories()
        await self.host.learn()
        self.uplinks = Uplinks(
            self.config,
            self.host,
            self.speaker.sessions,
            remembered=self.store.uplinks(),
            remember=self.store.remember_uplinks,
            note=lambda what, detail: self.store.note("", what, detail),
        )
        self.failover = Failover(
            self.config,
            self.host,
            self.speaker,
            boot=boot,
            kept=self.store.kept,
            keep=self.store.keep,
            ties=Ties(
                announced=self._tied,
                jail_of=lambda prefix: min(self._granted_to.get(prefix, ()), default=""),
                drained=self._failover_drained,
                heard=lambda: self.ledger.hearing.heard,
                turned=self._turned,
                note=lambda what, detail: self.store.note("", what, detail),
                changed=self.metrics.turned,
            ),
        )
        settings, owning = self.config.agent, self.config.ownership
        self.ledger = Ledger(
            ledger.Settings(owning.administrator, Policy(owning.moves, owning.window), owning.learn_for),
            self.config.bgp.router_id,
            self.speaker,
            self.store,
            several=[peer.name for peer in self.config.bgp.peers if peer.add_path],
        )
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
            holders=self.holders,
            fabric=Fabric(self.speaker, self.ledger, self.store, self.metrics, self.failover),
            health=self.health,
            damping=self.config.damping,
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
            asyncio.create_task(self.uplinks.run(), name="uplinks"),
            asyncio.create_task(self.failover.run(), name="failover"),
        ]
        stop = asyncio.create_task(self._stopped(), name="stop")
        try:
            done, _ = await asyncio.wait([stop, *tasks], return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stop}:
                task.result()  # a loop that ended has failed: its error ends the agent, and rc.d starts it anew
        finally:
            for handle in (self._listening, self._turn):
                if handle is not None:
                    handle.cancel()
            tasks += [task for task in (stop, self._opening, *self._reloads) if task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.gather(*(worker.stop() for worker in self.workers.values()))
            await control.close()
            await self.speaker.close()
            await self.health.close()
            self.metrics.close()
            self.store.note("", "agent stopped", "routes stand")
            self.store.close()
            self.host.close()

    def _hangup(self) -> None:
        """Take up what mobility.toml says now, and look at the host (SIGHUP)."""
        self._look_now.set()
        task = asyncio.create_task(self._reload_and_say(), name="reload")
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)

    async def _reload_and_say(self) -> None:
        try:
            answer = await self._reload_toml({})
        except ControlError as error:
            log.error("mobility.toml", extra={"problem": str(error)})  # noqa: TRY400
        else:
            log.info("mobility.toml", extra={"changes": "; ".join(answer["changes"]) or "none"})

    async def _stopped(self) -> None:
        await self._stopping.wait()

    async def _spooled(self) -> None:
        async for event in self.spool.events():
            self._event(event)

    def _event(self, event: Event) -> None:
        log.info("hook", extra={"jail": event.jail, "phase": str(event.phase), "event": event.id})
        if event.phase in (Phase.PRESTART, Phase.POSTSTOP):
            self._hand([event.jail], ended=True)
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
            self._index(name)
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
            self.metrics.refresh(self.snapshot() | {"checks": self._checks()})
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
        self.uplinks.look(view, began)
        if first:
            adopted = {name: memory.adopted for name, memory in self._pending.items() if memory.adopted}
            jails = list(self._files.jails.values())
            shared = {**shared_addresses(jails), **overlapping_services(jails)}
            for text, jail in links.holders(shared, view, adopted).items():
                self.holders.take(jail, [text])
        # one that was handed over is gone once it has stopped
        self._hand([name for name in self._handing if name not in view.jails], ended=True)
        names = {*self._files.jails, *self._files.problems, *links.made_for(view), *self._pending, *self.workers}
        for count, name in enumerate(sorted(names - {""}), 1):
            if count % JAILS_PER_TURN == 0:
                # what these jails have to say goes out while the next ones are still being looked at
                await asyncio.sleep(0)
            worker = self.workers.get(name)
            if worker is None and not self._concerns(name, view):
                self._pending.pop(name, None)
                continue
            if worker is None and first and name in view.jails and name not in self._pending:
                self._pending[name] = Memory(found=True)
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
            self._bgp_changed()
            self._looked.set()
            self._opening = asyncio.create_task(self._open(), name="open")

    async def _open(self) -> None:
        """Once every jail was dealt with, let what no jail explains be withdrawn: routes of before a restart.

        A jail whose claim was lost with the database claims again only when the fabric was heard.
        """
        await self._heard.wait()
        await self.failover.decided.wait()
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
                    name in view.jails or any(text in view.net.routes for text in self._files.jails[name].destinations)
                )
            )
            or bool(memory.rejects or memory.phase or memory.adopted or memory.damping.penalty)
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
        self._index(name)
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
            allowed = self.config.host.allowed
            last = [prefix for prefix in addresses_of(memory.granted) if allows(allowed, prefix)]
            served = [prefix for prefix in services_of(memory.granted) if allows(allowed, prefix)]
            good = self._files.last_good.get(name)
            more = good.more if good else More(announce=memory.announce)
            config = JailConfig(name, (), "remembered", more=more).holding(last, served) if last else None
        return Grant(config, problem, self._files.refused.get(name, ()))

    # -- BGP

    def _bgp_changed(self) -> None:
        sessions = self.speaker.sessions()
        self.metrics.sessions(sessions)
        self.uplinks.news()
        if self.view is None:
            return  # what the fabric has shown until now, the first look at each jail takes in
        concerned = {name for prefix in self.speaker.news() for name in self._granted_to.get(prefix, ())}
        now = time.monotonic()
        connected = self.speaker.connected
        heard = connected and self.ledger.hearing.update(sessions.values(), now)
        if heard or (connected and not self._connected):
            concerned |= self.workers.keys()
        self._connected = connected
        self.failover.news()
        if self._listening is not None:
            self._listening.cancel()
            self._listening = None
        if (due := self.ledger.hearing.due(now)) is not None:
            self._listening = asyncio.get_running_loop().call_later(due, self._bgp_changed)
        self._concerned.update(dict.fromkeys(concerned))
        if self._turn is None:
            self._reconsider()
        for waiter in self._waiting:
            waiter.set()

    def _reconsider(self) -> None:
        """Have jails reconsider what the fabric shows, some in each turn of the loop: hooks and ExaBGP are served between."""
        self._turn = None
        for name in list(itertools.islice(self._concerned, JAILS_PER_TURN)):
            del self._concerned[name]
            try:
                self.ledger.notice(name, self._granted.get(name, ()))
                if name in self.workers:
                    self.workers[name].reconsider()
            except Exception:  # one jail's bug must stop no other jail; its own pass shows it
                log.exception("unexpected error", extra={"jail": name})
                if name in self.workers:
                    self.workers[name].wake()
        if self._concerned:
            self._turn = asyncio.get_running_loop().call_soon(self._reconsider)
        elif self._hears:
            self._heard.set()

    def _health_changed(self, name: str) -> None:
        if name in self.workers:
            self.workers[name].reassess()

    def _index(self, name: str) -> None:
        """Note which prefixes a jail may have, by prefix."""
        for prefix in self._granted.pop(name, ()):
            self._granted_to[prefix].discard(name)
            if not self._granted_to[prefix]:
                del self._granted_to[prefix]
        for members in self._members.values():
            members.discard(name)
        worker = self.workers.get(name)
        # one with a broken file keeps what it has, so what others claim of that is still its business
        config = self._grant(name, worker.memory).config if worker else self._files.jails.get(name)
        if config is not None and config.more.announce.group:
            self._members.setdefault(config.more.announce.group, set()).add(name)
        if config is not None:
            self._granted[name] = tuple(map(prefix_text, config.routed))
            for prefix in self._granted[name]:
                self._granted_to.setdefault(prefix, set()).add(name)

    # -- failover

    def _tied(self, group: Group) -> list[str]:
        """Return the prefixes of a failover's jails: those that are announced here; where none is, all that are granted."""
        names = {*group.jails, *(name for each in group.groups for name in self._members.get(each, ()))}
        told = [
            prefix_text(prefix)
            for name in names
            if name in self.workers
            for prefix in self.workers[name].announcer.announced
        ]
        return told or [text for name in names for text in self._granted.get(name, ())]

    def _told(self, name: str) -> Told | None:
        """Return what a jail goes with; None where it goes with no failover."""
        config = self._files.jails.get(name)
        worker = self.workers.get(name)
        announce = config.more.announce if config else worker.memory.announce if worker else Announce()
        return self.failover.of_jail(name, announce)

    def _turned(self, groups: Collection[str]) -> None:
        """Have the jails that go with these announced as they are to be now, at once."""
        for name, worker in self.workers.items():
            told = self._told(name)
            if told is not None and told.group.name in groups:
                worker.reconsider()

    def _failover_drained(self) -> tuple[Drain, str]:
        """Return whether the host is drained, and why its failovers announce nothing at all any more."""
        if UNTIL_BOOT in self._drains:
            return Drain.SHUTDOWN, "" if UNTIL_BOOT in self._draining else self._drained("").barred
        return Drain.HOST if EVERYTHING in self._drains else Drain.NO, ""

    def _hand_over(self, keys: Iterable[str], within: float = math.inf) -> asyncio.Future[bool]:
        """Have the other node of each pair take over, where the whole host is drained: CARP first, then the routes.

        The future tells whether it has, once it has, or is out of time.
        """
        loop = asyncio.get_running_loop()
        if not self.config.failover.groups or not {EVERYTHING, UNTIL_BOOT} & set(keys):
            nothing: asyncio.Future[bool] = loop.create_future()
            nothing.set_result(True)
            return nothing
        self.failover.news()
        return asyncio.ensure_future(self.failover.handed_over(min(within, hand_over_within(self.config.failover))))

    def _drained(self, name: str) -> Drained:
        keys = [key for key in (UNTIL_BOOT, EVERYTHING, name) if key in self._drains]
        if keys and name and self._told(name) is not None:
            # its failover sees to a drain of the whole host, by CARP; at the end of a shutdown it goes in any case
            keys = [key for key in keys if key == name or (key == UNTIL_BOOT and key not in self._draining)]
        handing = name in self._handing
        if not keys:
            return Drained(leaving=handing, handing=handing)
        leaving = min(self._draining.get(key, 0.0) for key in keys)
        if time.monotonic() < leaving:
            return Drained(leaving=True, handing=handing)
        when = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(min(self._drains[key] for key in keys)))
        whose = "it is" if keys == [name] else "this host is"
        how = "mobility undrain --until-boot" if UNTIL_BOOT in keys else "mobility undrain"
        how += f" {name}" if keys == [name] else ""
        return Drained(barred=f"{whose} drained since {when}: {how}")

    # -- what the `mobility` command asks

    def _handlers(self) -> dict[str, Any]:
        return {
            "status": self._status,
            "plan": self._plan,
            "events": self._events,
            "drain": self._drain,
            "undrain": self._undrain,
            "reload": self._reload_toml,
            "release": self._release,
            "handoff": self._handoff,
            "expect": self._expect,
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
        owned: dict[str, int] = {str(kind): 0 for kind in Kind}
        suppressed = 0
        waiting: dict[str, str] = {}
        for name, worker in self.workers.items():
            stands[worker.target.stand] += 1
            if worker.jail is not None and worker.announcer.ruling is not None:
                owned[worker.announcer.ruling.kind] += 1
            suppressed += worker.target.reason.startswith(damping.SUPPRESSED)
            if worker.jail is not None and not worker.announcer.announced:
                why = worker.problem or worker.target.reason
                # a label whose text holds figures would be another one each time
                waiting[name] = damping.SUPPRESSED if why.startswith(damping.SUPPRESSED) else why
        return {
            "name": self.config.host.name,
            "pid": os.getpid(),
            "stands": stands,
            "ownership": owned,
            "suppressed": suppressed,
            "not_announced": waiting,
            "drained": sorted(self._drains),
            "problems": [
                text
                for text in (
                    self.trouble,
                    self._problem(""),
                    self._database(),
                    self._without_metrics,
                    *self.uplinks.problems,
                    *self.failover.problems,
                    "ExaBGP runs with other peers than mobility.toml has: mobility reload"
                    if self.speaker.outdated
                    else "",
                )
                if text
            ],
            "uplinks": self.uplinks.describe() if self.uplinks.active else None,
            "failover": self.failover.describe() if self.failover.active else None,
            "looked_at": self.looked_at,
            "bridge": self.speaker.connected,
            "sessions": self.speaker.describe(),
            "rib": self.speaker.counts(),
            "spool": {"depth": self.spool.depth, "oldest_s": round(self.spool.oldest(time.time()), 3)},
        }

    def _checks(self) -> dict[str, Any]:
        """Return what the metrics count of checks."""
        health = self.health
        return {"probes": health.probes, "runs": dict(health.runs), "failures": dict(health.failures)}

    def _database(self) -> str:
        error = self.store.last_error
        return f"the database can not be written: {error}: history has a gap" if error else ""

    def _describe(self, name: str) -> dict[str, Any]:
        worker = self.workers.get(name)
        config = self._files.jails.get(name)
        if worker is None:
            refused = self._files.refused.get(name, ())
            reason = "; ".join(filter(None, [self._problem(name), *refused])) or "does not run"
            addresses = config.addresses if config else ()
            return _line(name, addresses, reason=reason, refused=list(refused), owner=self._owner(name))
        granted = config.routed if config else tuple(worker.announcer.announced)
        routes = {
            destination(prefix): {peer: str(state) for peer, state in self.speaker.route(prefix).items()}
            for prefix in granted
        }
        due = {destination(prefix) for prefix in worker.announcer.announced}
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
            config.addresses if config else granted,
            services=[str(prefix) for prefix in config.services] if config else [],
            running=worker.jail is not None,
            jid=worker.jail.jid if worker.jail else None,
            wired=worker.stands in (Stand.WIRED, Stand.ANNOUNCED, Stand.CLOSING),
            ready=worker.target.stand is Stand.ANNOUNCED and not worker.problem,
            announced=told,
            since=worker.announcer.since,
            stand=str(worker.target.stand),
            reason=reason,
            refused=list(refused),
            blind=worker.blind,
            how=str(worker.memory.how or ""),
            adopted=worker.memory.adopted,
            routes=routes,
            **self._owned(worker),
        )

    def _owned(self, worker: Worker) -> dict[str, Any]:
        """Return what there is to say about a jail's ownership and flapping."""
        ruling = worker.announcer.ruling
        figure = damping.penalty(worker.memory.damping, time.monotonic(), self.config.damping)
        return {
            "ownership": str(ruling.kind) if ruling else "",
            "sequence": worker.memory.held.claim or None,
            "owner": self._owner(worker.name),
            "handing": worker.name in self._handing,
            "frozen": bool(self.ledger.records.get(worker.name, Record()).frozen_at),
            "shown_older": self._shown_older(worker),
            "checks": self.health.describe(worker.name),
            "penalty": round(figure, 1),
            "silent": self.health.silent(worker.name),
            "failover": self._goes_with(worker.name),
        }

    def _goes_with(self, name: str) -> dict[str, str] | None:
        """Return which failover a jail goes with, and how it is announced for that; None where it goes with none."""
        told = self._told(name)
        return (
            {"name": told.group.name, "stance": str(told.ruling.stance if told.ruling else ""), "reason": told.reason}
            if told
            else None
        )

    def _owner(self, name: str) -> str | None:
        """Return the router id of the host that has claimed a jail last."""
        record = self.ledger.records.get(name)
        return str(IPv4Address(record.owner)) if record and record.owner else None

    def _shown_older(self, worker: Worker) -> list[dict[str, Any]]:
        """Return the older claims that peers go on showing, once they have had the time to show the newer one."""
        told = worker.memory.announced_at
        if not told or time.monotonic() - told < self.config.agent.settle_for:
            return []
        identity = self._identity(worker.name)
        return self.ledger.shown_older(identity, worker.memory.held.told, worker.memory.held)

    def _identity(self, name: str) -> str:
        config = self._files.jails.get(name)
        return (config.more.announce.identity if config else "") or name

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
                barred=self._drained(name).barred or (worker.kept_back if worker else ""),
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
        announce: list[str] = []
        if wanted and case.config:
            worker, drained = self.workers.get(name), self._drained(name)
            announcer = worker.announcer if worker else Announcer(name, self._shared.fabric, 0.0)
            owned, attributes, why = announcer.would(
                case.config, wanted, case.memory, leaving=drained.leaving, handing=drained.handing
            )
            announce = [*self.speaker.preview(owned, attributes), *([f"# {why}"] if why else [])]
        return {
            "name": name,
            "stand": str(target.stand),
            "reason": target.reason,
            "problem": problem,
            "commands": [{"argv": list(self.host.argv(command)), "why": command.why} for command in commands],
            "announce": announce,
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
        prefixes = {prefix for worker in affected for prefix in worker.announcer.announced}
        before = {*self.failover.announced}
        # CARP is asked to go elsewhere while the others say that they are about to leave
        handing = self._hand_over(fresh)
        if fresh and prefixes:
            await self._woken(affected)
            await self.speaker.settled(tuple(prefixes), settings.settle_for)
            await asyncio.sleep(max(0.0, until - time.monotonic()))
        handed = await handing
        if ended := sorted(key for key in keys if key not in self._drains):
            raise ControlError(f"undrained before anything was withdrawn: {', '.join(ended)}")
        for key in keys:
            self._draining.pop(key, None)
        # once more: a jail may have started meanwhile
        affected = [worker for name, worker in self.workers.items() if not names or name in names]
        prefixes |= {prefix for worker in affected for prefix in worker.announcer.announced}
        await self._woken(affected)
        prefixes |= before
        settled = await self.speaker.settled(tuple(prefixes), settings.settle_for)
        still = {prefix for worker in affected for prefix in worker.announcer.announced} | {*self.failover.announced}
        return {
            "drained": sorted(keys),
            "withdrawn": sorted(map(destination, prefixes - still)),
            "acknowledged": settled,
            "handed_over": handed,
        }

    async def _drain_until_boot(self, names: set[str], within: object) -> dict[str, Any]:
        """Withdraw everything within so many seconds, without a command on the host: it is shutting down."""
        if names or isinstance(within, bool) or not isinstance(within, int | float) or not 0 < within <= 3600:
            raise ControlError("a drain until the next boot takes no names, and within: seconds up to 3600")
        end = time.monotonic() + within
        until = time.monotonic() + min(self.config.agent.drain_for, within / 3)
        self._note_drains([UNTIL_BOOT], until)
        handing = self._hand_over([UNTIL_BOOT], 2 / 3 * within if self.speaker.connected else 0.0)
        prefixes = tuple(prefix for worker in self.workers.values() for prefix in worker.announcer.announced)
        if prefixes and self.speaker.connected:
            for worker in self.workers.values():
                worker.announcer.leave()
            await self.speaker.settled(prefixes, until - time.monotonic())
            await asyncio.sleep(max(0.0, until - time.monotonic()))
        reason = self._drained("").barred
        alone = [worker for name, worker in self.workers.items() if self._told(name) is None] if reason else []
        withdrawn = [prefix for worker in alone for prefix in worker.withdraw(reason)]
        # what goes with a failover stays until the other node has taken over, if there is one
        handed = await handing
        self._draining.pop(UNTIL_BOOT, None)
        if UNTIL_BOOT not in self._drains:
            self.failover.news()
            raise ControlError("the drain was ended by an undrain before everything was withdrawn")
        reason = self._drained("").barred
        withdrawn += [prefix for worker in self.workers.values() for prefix in worker.withdraw(reason)]
        withdrawn += self.failover.leave()
        left = end - time.monotonic() if self.speaker.connected else 0.0
        settled = not withdrawn or await self.speaker.settled(tuple(withdrawn), max(0.0, left))
        return {
            "drained": [UNTIL_BOOT],
            "withdrawn": sorted(map(destination, withdrawn)),
            "acknowledged": settled,
            "handed_over": handed,
        }

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
        self.failover.news()
        await self._woken(list(self.workers.values()))
        return {"undrained": sorted(keys), "still_drained": sorted(self._drains)}

    async def _reload_toml(self, _: dict[str, Any]) -> dict[str, Any]:
        """Take up what mobility.toml says now, whole or not at all; sessions that it does not change stay as they are."""
        async with self._reloading:
            try:
                new = configuration.load(self.config.path)
            except configuration.ConfigError as error:
                raise ControlError(f"nothing was changed: {error}") from error
            changes = reload.compare(self.config, new)
            if changes.refused:
                raise ControlError(f"nothing was changed: {'; '.join(changes.refused)}")
            if why := self.speaker.reloadable():
                raise ControlError(f"nothing was changed: {why}")
            try:
                run.rewrite(new)
            except run.ExabgpError as error:
                raise ControlError(f"nothing was changed: {error}") from error
            known = {name: self._problem(name) for name in self._files.problems}
            self.config = new
            self.uplinks.configure(new)
            self.ledger.know(peer.name for peer in new.bgp.peers if peer.add_path)
            try:
                runs = await self.speaker.reconfigure(
                    new.bgp, allowed=new.host.allowed, mark=conf.mark(new), within=new.agent.settle_for
                )
            except SpeakerError as error:
                raise ControlError(str(error)) from error
            finally:
                # only now: what is newly allowed could not be announced before
                self._use(new)
            self.store.note("", "reload", "; ".join(changes.taken))
            problems = [
                f"jail {name}: {self._problem(name)}"
                for name in sorted(self._files.problems.keys() - {""})
                if self._problem(name) != known.get(name)
            ]
            return {"changes": list(changes.taken), "exabgp": runs, "problems": problems}

    def _use(self, config: Config) -> None:
        """Judge all jails' files by another configuration."""
        before = {name: self._complaints(name) for name in {*self._files.problems, *self._files.refused}}
        known = {*self._files.jails, *self._files.problems}
        old, self._files = self._files, Sources.of(config)
        self._files.last_good = old.last_good
        for name in known | self._files.refresh():
            # each that is woken asks jls(8): only those that it concerns
            same = name not in self._files.problems and self._files.jails.get(name) == old.jails.get(name)
            if not same or self._complaints(name) != before.get(name, ()):
                self._granted_anew(name, before.get(name, ()))
        self._look_now.set()

    async def _release(self, request: dict[str, Any]) -> dict[str, Any]:
        """Have jails announced again that flapped, moved too often, or were lost to another host: an operator knows why."""
        names = self._some(request, "release")
        for name in names:
            self.ledger.release(name, self._granted.get(name, ()))
            self.store.note(name, "release", "")
            if name in self.workers:
                self.workers[name].release()
        await self._woken([self.workers[name] for name in names if name in self.workers])
        return {"released": sorted(names)}

    async def _handoff(self, request: dict[str, Any]) -> dict[str, Any]:
        """Say in the fabric that jails are about to be stopped here and started elsewhere; with `cancel`, that they stay."""
        names = self._some(request, "handoff")
        cancel = bool(request.get("cancel"))
        for name in names:
            worker = self.workers.get(name)
            if not cancel and (worker is None or not worker.announcer.announced):
                raise ControlError(f"jail {name} is not announced here: mobility status {name}")
            if not cancel and self._told(name) is not None:
                raise ControlError(f"jail {name} goes with a failover, both nodes announce it: mobility drain")
            if not cancel and worker is not None and worker.announcer.ruling is None:
                raise ControlError(f"jail {name} is anycast: nobody owns it, so stop it here and start it there")
        self._hand(names, ended=cancel)
        workers = [self.workers[name] for name in names if name in self.workers]
        await self._woken(workers)
        prefixes = tuple(prefix for worker in workers for prefix in worker.announcer.announced)
        settled = await self.speaker.settled(prefixes, self.config.agent.settle_for)
        sequences = {worker.name: worker.memory.held.claim for worker in workers}
        return {"handing": sorted(self._handing), "sequences": sequences, "acknowledged": settled}

    def _hand(self, names: Iterable[str], *, ended: bool) -> None:
        names = set(names) & self._handing if ended else set(names) - self._handing
        for name in names:
            self.store.note(name, "handoff ended" if ended else "handoff", "")
        if names:
            self._handing = self._handing - names if ended else self._handing | names
            self.store.remember_handing(self._handing)

    async def _expect(self, request: dict[str, Any]) -> dict[str, Any]:
        """Wait until the host that hands a jail over has withdrawn it: the moment to start it here."""
        names = self._some(request, "expect")
        within = request.get("within")
        if len(names) != 1 or isinstance(within, bool) or not isinstance(within, int | float) or not 0 < within <= 3600:
            raise ControlError("expect takes one name, and within: seconds up to 3600")
        name = names.pop()
        config = self._files.jails.get(name)
        if config is None:
            raise ControlError(f"jail {name} has no addresses here: mobility check")
        worker = self.workers.get(name)
        if worker is not None and worker.jail is not None:
            raise ControlError(f"jail {name} runs here already: mobility status {name}")
        identity = ownership.identity_number(self._identity(name))
        news, last = asyncio.Event(), None
        self._waiting.add(news)
        try:
            async with asyncio.timeout(within):
                while (claim := self._claimed(name, identity)) is not None or not self._hears:
                    last = claim or last
                    news.clear()
                    await news.wait()
        except TimeoutError:
            if last is None:
                raise ControlError("no peer has told what it has: mobility status") from None
            how = "it was handed over and still runs there" if last.handing else f"mobility handoff {name} there"
            raise ControlError(
                f"{last.host} still announces jail {name} (sequence {last.sequence}) after {within:g} s: {how}"
            ) from None
        finally:
            self._waiting.discard(news)
        return {"name": name, "from": last.host if last else None, "sequence": last.sequence if last else None}

    @property
    def _hears(self) -> bool:
        """Whether what the fabric shows is all it has: not while the bridge is away, or has not told all yet."""
        return self.speaker.connected and self.ledger.hearing.heard

    def _claimed(self, name: str, identity: int) -> Claim | None:
        """Return the newest claim on a jail that the fabric shows."""
        seen = self.ledger.seen(self._granted.get(name, ()))
        claims = [claim for several in seen.values() for claim in several if claim.identity == identity]
        return max(claims, key=lambda claim: claim.rank, default=None)

    def _some(self, request: dict[str, Any], verb: str) -> set[str]:
        """Return the names that are asked for, one at least."""
        names = self._known(request)
        if not names:
            raise ControlError(f"{verb} takes the names of jails")
        return names

    async def _woken(self, workers: Iterable[Worker]) -> None:
        workers = list(workers)
        for worker in workers:
            worker.reassess()
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
        "addresses": [destination(prefix) for prefix in addresses],
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
        "services": [],
        "routes": {},
        "ownership": "",
        "sequence": None,
        "owner": None,
        "handing": False,
        "frozen": False,
        "shown_older": [],
        "checks": [],
        "silent": [],
        "penalty": 0.0,
        "failover": None,
    }
    return line | more
