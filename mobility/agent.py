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
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from typing import Any

from watchdog.events import DirModifiedEvent, FileCreatedEvent, FileDeletedEvent, FileModifiedEvent, FileMovedEvent

from mobility import config as configuration
from mobility import damping, links, logs, reload
from mobility.announcement import Announce
from mobility.announcer import Fabric
from mobility.answers import Answers, Known, names_in
from mobility.bgp import conf, ledger, ownership, run
from mobility.bgp.grammar import prefix_text
from mobility.bgp.ledger import Ledger
from mobility.bgp.ownership import Claim, Kind, Policy
from mobility.bgp.speaker import Session, Speaker, SpeakerError
from mobility.config import Config, allows
from mobility.control import ControlError, ControlServer, Handler
from mobility.decide import How, Memory, Patience, Stand
from mobility.events.spool import Event, Spool
from mobility.events.watch import Watch
from mobility.failover.manager import Failover, Ties, Told
from mobility.failover.policy import Drain, Group, Stance, hand_over_within
from mobility.health.manager import Health
from mobility.holders import Holders
from mobility.jails.jailsd import JailConfig, More, addresses_of, services_of
from mobility.jails.sources import Sources, overlapping_services, shared_addresses
from mobility.metrics import Metrics, MetricsError
from mobility.metrics.gather import Sight
from mobility.model import Phase, destination
from mobility.network.host import Host, Trouble
from mobility.network.output import HostView
from mobility.store import EVERYTHING, UNTIL_BOOT, Store
from mobility.terminal.status import drained_in_words
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
        self._bridge_told: bool | None = None
        """Whether a bridge is connected, as the history knows; None before the first."""
        self._sessions_told: dict[str, str] = {}
        """The state of each peer's session, as the history knows it."""
        self._concerned: dict[str, None] = {}
        """Jails that have still to reconsider what the fabric shows, in the order in which it came."""
        self._turn: asyncio.Handle | None = None
        self._waiting: set[asyncio.Event] = set()
        """Whoever waits for news of the fabric."""
        self._handing: set[str] = set()
        """Jails that another host is expected to start."""
        self.metrics = Metrics(config.metrics.jails)
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
        self.health = Health(config, self._health_changed, self._cause)
        logs.counted(self.metrics.lines_suppressed, self.metrics.lines_lost)
        self.store: Store
        self.ledger: Ledger
        self.uplinks: Uplinks
        self.failover: Failover
        self.answers: Answers
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
        handlers: dict[str, Handler] = {}
        control = ControlServer(self.config.paths.run, handlers)
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
            moved=self.metrics.moved,
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
        known = Known(
            config=lambda: self.config,
            files=lambda: self._files,
            workers=self.workers,
            view=lambda: self.view,
            snapshot=self.snapshot,
            granted=self._granted,
            drains=self._drains,
            draining=self._draining,
            handing=lambda: self._handing,
            told=self._told,
            problem=self._problem,
            reread=self._reload,
            trouble=lambda: self.trouble,
            looked_at=lambda: self.looked_at,
        )
        self.answers = Answers(self._shared, known)
        self.store.on_note = self.answers.noted
        self.metrics.ask(Sight(self._shared, known, self.answers.everyone, self._granted_to).asked())
        for group in self.config.failover.groups:
            self.metrics.has_failover(group.name, Stance)
        try:
            self.metrics.serve(self.config.metrics.listen)
        except MetricsError as error:
            # jails matter more than figures about them
            self._without_metrics = str(error)
            log.error("no metrics", extra={"problem": str(error)})  # noqa: TRY400
        handlers |= self._handlers()
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
            # a host that lets go of everything is no news of its jails
            self.metrics.ask(None)
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
        with logs.about(event.jail, event.id):
            log.info("hook", extra={"phase": str(event.phase)})
            self._deal_with(event)

    def _deal_with(self, event: Event) -> None:
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
            logs.settle()
            grants.ensure()
            self._look_now.clear()
            try:
                await self._look()
                self.trouble = ""
            except Trouble as error:
                if str(error) != self.trouble:
                    log.error("the host can not be looked at", extra={"problem": str(error)})  # noqa: TRY400
                self.trouble = str(error)
            self.metrics.tallies.keep(self.answers.everyone())
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
                with logs.about():
                    log.warning("the kernel does not say what it can", extra={"problem": str(error)})
        if self._how() is not before:
            with logs.about():
                log.warning("links change how they bring IPv4 to their jails", extra={"how": str(self._how())})
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
        self._note_sessions(sessions)
        self.uplinks.news()
        if self.view is None:
            self.failover.fabric_news()
            return  # what the fabric has shown until now, the first look at each jail takes in
        concerned = {name for prefix in self.speaker.news() for name in self._granted_to.get(prefix, ())}
        now = time.monotonic()
        connected = self.speaker.connected
        heard = connected and self.ledger.hearing.update(sessions.values(), now)
        if heard or (connected and not self._connected):
            concerned |= self.workers.keys()
        self._connected = connected
        self.failover.fabric_news()
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

    def _note_sessions(self, sessions: Mapping[str, Session]) -> None:
        """Keep in the history when the bridge, and each session, came and went: what is first heard is no news."""
        connected = self.speaker.connected
        if self._bridge_told is not None and connected is not self._bridge_told:
            self.store.note("", "ExaBGP connected" if connected else "ExaBGP gone")
        if connected or self._bridge_told is not None:
            self._bridge_told = connected
        for peer, session in sessions.items():
            # while no bridge tells, nobody knows
            if session.state in ("up", "down"):
                if self._sessions_told.get(peer, session.state) != session.state:
                    self.store.note("", f"session {session.state}", f"{peer}{session.reason and f': {session.reason}'}")
                self._sessions_told[peer] = session.state

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

    def _cause(self, name: str) -> str:
        """Return the hook's event that is the cause of what happens to a jail now; "" where none is."""
        return self.workers[name].cause if name in self.workers else ""

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
            if told is None or told.group.name not in groups:
                continue
            try:
                worker.reconsider()
            except Exception:  # as in _reconsider: the other jails turn all the same
                log.exception("unexpected error", extra={"jail": name})
                worker.wake()

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

    def _handlers(self) -> dict[str, Handler]:
        return {
            "status": self.answers.status,
            "plan": self.answers.plan,
            "events": self.answers.events,
            "explain": self.answers.explain,
            "progress": self.answers.progress,
            "penalties": self.answers.penalties,
            "drain": self._drain,
            "undrain": self._undrain,
            "reload": self._reload_toml,
            "release": self._release,
            "handoff": self._handoff,
            "expect": self._expect,
        }

    def snapshot(self) -> dict[str, Any]:
        """Return the host's own state: what `mobility status` shows first."""
        stands: dict[str, int] = {str(stand): 0 for stand in Stand}
        owned: dict[str, int] = {str(kind): 0 for kind in Kind}
        suppressed = 0
        for worker in self.workers.values():
            stands[worker.target.stand] += 1
            if worker.jail is not None and worker.announcer.ruling is not None:
                owned[worker.announcer.ruling.kind] += 1
            suppressed += worker.target.reason.startswith(damping.SUPPRESSED)
        return {
            "name": self.config.host.name,
            "pid": os.getpid(),
            "stands": stands,
            "ownership": owned,
            "suppressed": suppressed,
            "drained": sorted(self._drains),
            "problems": [
                text
                for text in (
                    self.trouble,
                    self._problem(""),
                    self._database(),
                    self._without_metrics,
                    self.speaker.hangs,
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

    def _database(self) -> str:
        error = self.store.last_error
        return f"the database can not be written: {error}: history has a gap" if error else ""

    async def _drain(self, request: dict[str, Any]) -> dict[str, Any]:
        """Withdraw, so that nothing comes here any more: GRACEFUL_SHUTDOWN first, then withdrawals (RFC 8326)."""
        names = self.answers.names(request)
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
        handing = self._hand_over(keys)
        if fresh and prefixes:
            await self._woken(affected)
            await self.speaker.settled(tuple(prefixes), settings.settle_for)
            await asyncio.sleep(max(0.0, until - time.monotonic()))
        if not handing.done():
            # what goes with no failover need not wait for one
            await self._woken([worker for worker in affected if self._told(worker.name) is None])
        handed = await handing
        if ended := sorted(key for key in keys if key not in self._drains):
            raise ControlError(f"undrained before it was done: {', '.join(ended)}")
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
        names = names_in(request)
        until_boot = {UNTIL_BOOT} & set(self._drains) if request.get("until_boot") else None
        keys = names or set(self._drains) if until_boot is None else until_boot
        unknown = sorted(keys - set(self._drains))
        if unknown:
            drained = ", ".join(drained_in_words(name) for name in sorted(self._drains))
            raise ControlError(
                f"not drained by name: {', '.join(unknown)} ({f'drained: {drained}' if drained else 'nothing is drained'})"
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
            logs.hide(peer.password for peer in new.bgp.peers)
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
        identity = ownership.identity_number(config.identity)
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
        names = self.answers.names(request)
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
