"""What the agent answers the `mobility` command when it only asks: status, plan, events, explain, progress.

Nothing here changes anything but what a look shows. What is printed of it is the command's matter (mobility.terminal).
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any

from mobility import damping, decide, links
from mobility import plan as planning
from mobility.announcer import Announcer
from mobility.bgp import ownership
from mobility.bgp.ownership import Kind, Record
from mobility.bgp.speaker import State
from mobility.control import ControlError
from mobility.decide import Memory, Stand
from mobility.likely import did_you_mean
from mobility.model import Prefix, destination, jail_name
from mobility.network.host import Trouble
from mobility.network.output import HostView, NetView, Route
from mobility.plan import Case
from mobility.store import EVERYTHING, UNTIL_BOOT, Happening

if TYPE_CHECKING:
    from mobility.config import Config
    from mobility.failover.manager import Told
    from mobility.jails.jailsd import JailConfig
    from mobility.jails.sources import Sources
    from mobility.worker import Shared, Worker

JAILS_PER_TURN = 50
"""Jails that are described in one turn of the loop: hooks and ExaBGP are served in between."""
LISTENERS = 8
"""Who may wait for events at once: the control socket takes twice as many clients, and others need it."""
LONGEST_WAIT = 60.0
"""Seconds that a question for events may wait for one."""
MOST_EVENTS = 10000
"""Events in one answer."""
LAST_EVENTS = 5
"""Events that are told with a jail's whole story."""


@dataclass(frozen=True, slots=True)
class Known:
    """What the agent knows beyond what its workers share; what it replaces while it runs is asked for."""

    config: Callable[[], Config]
    files: Callable[[], Sources]
    workers: Mapping[str, Worker]
    view: Callable[[], HostView | None]
    """The last look at the host, None before the first."""
    snapshot: Callable[[], dict[str, Any]]
    granted: Mapping[str, tuple[str, ...]]
    """By jail, its prefixes as BGP writes them."""
    drains: Mapping[str, float]
    """What is drained, and since when (UTC)."""
    draining: Mapping[str, float]
    """Until when (monotonic) of those GRACEFUL_SHUTDOWN is announced."""
    handing: Callable[[], Collection[str]]
    told: Callable[[str], Told | None]
    """Which failover a jail goes with."""
    problem: Callable[[str], str]
    """What is wrong with a jail's files."""
    reread: Callable[[], None]
    """Reads the jails' files again where they have changed."""
    trouble: Callable[[], str]
    """Why the host can not be looked at."""
    looked_at: Callable[[], float]


class Answers:
    """The answers of one agent."""

    def __init__(self, shared: Shared, known: Known) -> None:
        self._shared = shared
        self._known = known
        self._began = time.time()
        self._listeners: set[asyncio.Event] = set()

    def noted(self) -> None:
        """Wake whoever waits for events: there is one more."""
        for listener in self._listeners:
            listener.set()

    # -- which jails

    def names(self, request: Mapping[str, Any]) -> set[str]:
        """Return the names that are asked about. Raises ControlError where one is no jail's of this host."""
        names, known = names_in(request), self.everyone()
        if missing := sorted(names - known):
            meant = did_you_mean(missing[0], known)
            raise ControlError(
                f"no such jail here: {', '.join(missing)} (addresses are granted in "
                f"{self._known.config().paths.jails_d}){f'; {meant}' if meant else ''}"
            )
        return names

    def everyone(self) -> set[str]:
        """Return the jails that there is anything to say about."""
        files = self._known.files()
        return {*self._known.workers, *files.jails, *files.problems, *self._asking()} - {""}

    def _asking(self) -> set[str]:
        """Return the running jails that ask for what nobody granted."""
        view = self._known.view()
        return self._known.files().refused.keys() & view.jails.keys() if view else set()

    # -- status

    async def status(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Say how the host is, and each jail, or those named."""
        names = self.names(request)
        jails = []
        for count, name in enumerate(sorted(names or self.everyone()), 1):
            if count % JAILS_PER_TURN == 0:
                await asyncio.sleep(0)
            jails.append(self.describe(name))
        return {"host": self._known.snapshot(), "jails": jails}

    def describe(self, name: str) -> dict[str, Any]:
        """Return a jail's line in the answer to `status`."""
        known, speaker = self._known, self._shared.speaker
        worker, files = known.workers.get(name), known.files()
        config = files.jails.get(name)
        if worker is None:
            refused = files.refused.get(name, ())
            reason = "; ".join(filter(None, [known.problem(name), *refused])) or "does not run"
            addresses = config.addresses if config else ()
            return _line(name, addresses, reason=reason, refused=list(refused), owner=self._owner(name))
        granted = config.routed if config else tuple(worker.announcer.announced)
        routes = {
            destination(prefix): {
                # a route to what another jail of this host holds is that jail's
                peer: str(State.ABSENT if self._shared.holders.of_another(name, destination(prefix)) else state)
                for peer, state in speaker.route(prefix).items()
            }
            for prefix in granted
        }
        due = {destination(prefix) for prefix in worker.announcer.announced}
        shown = [peers.values() for text, peers in routes.items() if text in due]
        told = bool(shown) and all("announced" in states for states in shown)
        reason = worker.problem or known.problem(name)
        refused = files.refused.get(name, ())
        if not told:
            without = "; ".join(refused) if config is None else ""
            ruling = worker.announcer.ruling
            waits = ruling is not None and ruling.kind is Kind.WAITING and ruling.reason == worker.target.reason
            if waits and not speaker.connected:
                # it waits for what only ExaBGP could tell
                without = without or _untold(routes, connected=False)
            reason = reason or without or worker.target.reason or _untold(routes, connected=speaker.connected)
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
        shared, name = self._shared, worker.name
        ruling = worker.announcer.ruling
        figure = damping.penalty(worker.memory.damping, time.monotonic(), shared.damping)
        return {
            "ownership": str(ruling.kind) if ruling else "",
            "sequence": worker.memory.held.claim or None,
            "owner": self._owner(name),
            "handing": name in self._known.handing(),
            "frozen": bool(shared.fabric.ledger.records.get(name, Record()).frozen_at),
            "shown_older": self._shown_older(worker),
            "checks": shared.health.describe(name),
            "penalty": round(figure, 1),
            "silent": shared.health.silent(name),
            "failover": self._goes_with(name),
        }

    def _goes_with(self, name: str) -> dict[str, str] | None:
        """Return which failover a jail goes with, and how it is announced for that; None where it goes with none."""
        told = self._known.told(name)
        return (
            {"name": told.group.name, "stance": str(told.ruling.stance if told.ruling else ""), "reason": told.reason}
            if told
            else None
        )

    def _owner(self, name: str) -> str | None:
        """Return the router id of the host that has claimed a jail last."""
        record = self._shared.fabric.ledger.records.get(name)
        return str(IPv4Address(record.owner)) if record and record.owner else None

    def _shown_older(self, worker: Worker) -> list[dict[str, Any]]:
        """Return the older claims that peers go on showing, once they have had the time to show the newer one."""
        told = worker.memory.announced_at
        if not told or time.monotonic() - told < self._shared.settle_for:
            return []
        identity = self.identity(worker.name)
        return self._shared.fabric.ledger.shown_older(identity, worker.memory.held.told, worker.memory.held)

    def identity(self, name: str) -> str:
        """Return what makes a jail the same one on all hosts, also one that has no usable file now."""
        config = self._known.files().jails.get(name)
        return config.identity if config else name

    # -- plan

    async def plan(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Say what would be run now, and run nothing but looks."""
        view = await self._shared.host.look()
        self._known.reread()
        names = self.names(request) or {*self._known.files().jails, *links.made_for(view), *self._known.workers}
        return {"plans": [await self._planned(self._case(name, view)) for name in sorted(names)]}

    def _case(self, name: str, view: HostView) -> Case:
        """Return what a plan for a jail would be made from, as the host is seen."""
        shared, worker = self._shared, self._known.workers.get(name)
        memory = worker.memory if worker else Memory()
        config = shared.grant(name, memory).config
        jail = view.jails.get(name)
        if config is not None and jail is not None and worker is not None and worker.waits:
            # what another jail of this host holds is not made for it
            config = worker.free(config)
        now = time.monotonic()
        memory = decide.observe(memory, jail, now)
        target = decide.decide(
            config,
            jail,
            memory,
            now,
            shared.patience,
            barred=shared.drained(name).barred or (worker.kept_back if worker else ""),
        )
        return Case(name, shared.host_name, target, config, view, memory=memory, how=shared.how())

    async def _with_inside(self, case: Case) -> Case:
        """Look into the jail, where its link leads there."""
        link, name = case.link, case.jail
        moved = links.owned(case.view, name) is not None and not links.inner_on_host(case.view, name)
        if case.open and link is not None and (moved or link.adopted):
            return replace(case, inside=await self._shared.host.inside(name))
        return case

    async def _planned(self, case: Case) -> dict[str, Any]:
        name, target, shared = case.jail, case.target, self._shared
        try:
            case = await self._with_inside(case)
            commands = planning.plan(case)
            problem = ""
        except (planning.Refused, Trouble) as error:
            commands, problem = [], str(error)
        jail = case.view.jails.get(name)
        worker = self._known.workers.get(name)
        problem = problem or (worker.waits if worker and jail else "")
        announced = case.config and jail and target.stand is Stand.ANNOUNCED
        wanted = decide.held(case.config, jail) if announced and case.config and jail else ()
        announce: list[str] = []
        if wanted and case.config:
            drained = shared.drained(name)
            announcer = worker.announcer if worker else Announcer(name, shared.fabric, 0.0)
            owned, attributes, why = announcer.would(
                case.config, wanted, case.memory, leaving=drained.leaving, handing=drained.handing
            )
            announce = [*shared.speaker.preview(owned, attributes), *([f"# {why}"] if why else [])]
        return {
            "name": name,
            "stand": str(target.stand),
            "reason": target.reason,
            "problem": problem,
            "commands": [{"argv": list(shared.host.argv(command)), "why": command.why} for command in commands],
            "announce": announce,
        }

    # -- events

    async def events(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return what happened.

        With `limit` alone the newest lines. With `within` those after the id `after`, oldest first; where there are none
        yet it waits so many seconds for one. `last` is the id to go on from, `after` without a number begins now.
        """
        if "within" in request:
            return await self._follow(request)
        jail, limit, after = request.get("jail"), request.get("limit", 100), request.get("after", 0)
        if (jail is not None and not isinstance(jail, str)) or not _whole(limit) or not _whole(after):
            raise ControlError("events takes jail (a name), limit and after (numbers)")
        lines = self._shared.store.history(jail, limit=max(1, min(limit, MOST_EVENTS)), after=after)
        return {"events": [_event(each) for each in lines]}

    async def _follow(self, request: Mapping[str, Any]) -> dict[str, Any]:
        jails, within, after = names_in(request), request["within"], request.get("after")
        limit = request.get("limit", MOST_EVENTS)
        if isinstance(within, bool) or not isinstance(within, int | float) or not 0 <= within <= LONGEST_WAIT:
            raise ControlError(f"events takes within: seconds from 0 to {LONGEST_WAIT:g}")
        if not (after is None or _whole(after)) or not _whole(limit):
            raise ControlError("events takes after and limit: numbers")
        if len(self._listeners) >= LISTENERS:
            raise ControlError(
                f"others follow events already, {LISTENERS} at once may: end one, or try again in a minute"
            )
        store, limit = self._shared.store, max(1, min(limit, MOST_EVENTS))
        newest = store.newest()
        if after is not None and after > newest:
            # a database that was moved away, and begins anew, has no such id yet: that is news, too
            after, within = newest, 0
        after = newest if after is None else after
        news = asyncio.Event()
        self._listeners.add(news)
        found: list[Happening] = []
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(within):
                    while not (found := store.following(after, limit, jails)):
                        after = store.newest()
                        news.clear()
                        await news.wait()
        finally:
            self._listeners.discard(news)
        last = found[-1].id if found else after
        return {"events": [_event(each) for each in found], "last": last, "pid": os.getpid(), "began": self._began}

    # -- progress

    async def progress(self, _: Mapping[str, Any]) -> dict[str, Any]:
        """Say how far what is under way has got; it costs next to nothing."""
        now = time.monotonic()
        return {
            "announced": sum(len(worker.announcer.announced) for worker in self._known.workers.values()),
            "differing": self._shared.speaker.differing,
            "draining": {key: round(max(0.0, until - now), 1) for key, until in self._known.draining.items()},
        }

    async def penalties(self, _: Mapping[str, Any]) -> dict[str, Any]:
        """Return what each jail has run up by flapping, of those that have."""
        now, policy = time.monotonic(), self._shared.damping
        figures = {
            name: damping.penalty(worker.memory.damping, now, policy) for name, worker in self._known.workers.items()
        }
        return {"penalties": {name: round(figure, 1) for name, figure in figures.items() if figure}}

    # -- explain

    async def explain(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return all that is known of one jail, known here or not: `mobility explain` puts it into words."""
        names = names_in(request)
        if len(names) != 1:
            raise ControlError("explain takes one name")
        name = names.pop()
        known, shared = self._known, self._shared
        known.reread()
        try:
            view: HostView | None = await shared.host.look()
            trouble = ""
        except Trouble as error:
            view, trouble = known.view(), str(error)
        worker, running = known.workers.get(name), bool(view and name in view.jails)
        here = name in self.everyone() or running
        case = self._case(name, view or HostView(NetView(), frozenset(), {}))
        seen, plan = await self._observed(case, worker)
        config = shared.grant(name, case.memory).config
        return {
            "name": name,
            "known": here,
            "like": "" if here else did_you_mean(name, self.everyone() | (view.jails.keys() if view else set())),
            "host": {
                "name": shared.host_name,
                "router_id": str(IPv4Address(shared.fabric.ledger.me)),
                "pid": os.getpid(),
                "since": self._began,
                "looked": known.view() is not None,
                "trouble": trouble or known.trouble(),
                "bridge": shared.speaker.connected,
                "heard": shared.fabric.ledger.hearing.heard,
                "sessions": shared.speaker.describe(),
                "jails_d": str(known.config().paths.jails_d),
            },
            "jail": self.describe(name),
            "problem": worker.problem if worker else "",
            "config": self._said(name, config, view.jails if view else ()),
            "desired": {"stand": str(case.target.stand), "reason": case.target.reason},
            "observed": seen,
            "plan": plan,
            "ownership": self._ownership(name, worker, config),
            "damping": self._damping(name, worker),
            "drain": self._drain(name),
            "failover": self._failover(name),
            "events": [_event(each) for each in shared.store.history(name, limit=LAST_EVENTS)],
        }

    def _said(self, name: str, config: JailConfig | None, running: Collection[str]) -> dict[str, Any]:
        """Return where a jail's configuration comes from, and what it says."""
        granted = self._known.granted
        others = sorted(
            each for each, prefixes in granted.items() if each != name and set(prefixes) & set(granted.get(name, ()))
        )
        files = self._known.files()
        problem, refused = self._known.problem(name), list(files.refused.get(name, ()))
        manager = files.manager_of(name)
        if config is None:
            return {
                "source": "",
                "manager": manager,
                "problem": problem,
                "refused": refused,
                "addresses": [],
                "services": [],
                "link": "",
                "vnet": None,
                "group": "",
                "anycast": False,
                "identity": name,
                "others": [],
                "held_by": [],
            }
        announce = config.more.announce
        return {
            "source": config.source,
            "manager": manager,
            "problem": problem,
            "refused": refused,
            "addresses": [destination(prefix) for prefix in config.addresses],
            "services": [str(prefix) for prefix in config.services],
            "link": "adopted" if config.ends else "ours",
            "vnet": config.vnet,
            "group": announce.group,
            "anycast": announce.anycast,
            "identity": config.identity,
            "others": others,
            "held_by": [each for each in others if each in running],
        }

    async def _observed(self, case: Case, worker: Worker | None) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return what is seen of a jail on the host and inside, and what is missing there."""
        view, name, config = case.view, case.jail, case.config
        jail, link = view.jails.get(name), case.link
        outer = links.outer_end(view, name, link) if link else None
        texts = dict.fromkeys((*(config.destinations if config else ()), *case.memory.rejects))
        inside = ""
        try:
            case = await self._with_inside(case)
            if case.inside is not None:
                inside = "right" if planning.inside_is_right(case, case.inside) else "wrong"
            commands, problem = planning.plan(case), ""
        except (planning.Refused, Trouble) as error:
            commands, problem = [], str(error)
        memory, now, utc = case.memory, time.monotonic(), time.time()
        seen = {
            "looked_at": self._known.looked_at() or None,
            "running": jail is not None,
            "jid": jail.jid if jail else None,
            "vnet": jail.vnet if jail else None,
            "path": jail.path if jail else None,
            "seen_since": utc - (now - memory.seen_at) if jail and memory.seen_at else None,
            "hook": str(memory.phase) if memory.phase else "",
            "hook_at": utc - (now - memory.phase_at) if memory.phase else None,
            "link": link.outer if link else "",
            "adopted": bool(link and link.adopted),
            "link_there": outer is not None,
            "link_up": outer.up if outer else None,
            "interfaces": {text: list(view.net.by_address.get(text, ())) for text in (config.texts if config else ())}
            if jail and not jail.vnet
            else {},
            "routes": {text: [_route(each) for each in view.net.routes.get(text, ())] for text in texts},
            "rejected": list(memory.rejects),
            "inside": inside,
            "blind": problem if case.inside is None and problem else worker.blind if worker else "",
        }
        run = [list(self._shared.host.argv(command)) for command in commands]
        return seen, {"commands": run, "problem": problem}

    def _ownership(self, name: str, worker: Worker | None, config: JailConfig | None) -> dict[str, Any]:
        ledger = self._shared.fabric.ledger
        record = ledger.records.get(name, Record())
        ruling = worker.announcer.ruling if worker else None
        identity = ownership.identity_number(self.identity(name))
        shown = [
            {
                "prefix": prefix,
                "host": claim.host,
                "sequence": claim.sequence,
                "handing": claim.handing,
                "ours": claim.claimant == ledger.me,
                "same": claim.identity == identity,
            }
            for prefix, claims in ledger.seen(self._known.granted.get(name, ())).items()
            for claim in dict.fromkeys(claims)
        ]
        return {
            "kind": str(ruling.kind) if ruling else "",
            "reason": ruling.reason if ruling else "",
            "anycast": bool(config and config.more.announce.anycast),
            "sequence": worker.memory.held.claim or None if worker else None,
            "highest": record.highest or None,
            "owner": str(IPv4Address(record.owner)) if record.owner else None,
            "frozen_at": record.frozen_at or None,
            "moves": len(record.moves),
            "shown": shown,
            "handing": name in self._known.handing(),
        }

    def _damping(self, name: str, worker: Worker | None) -> dict[str, Any]:
        policy, now, utc = self._shared.damping, time.monotonic(), time.time()
        state = worker.memory.damping if worker else damping.Damping()
        until = damping.reuse_at(state, policy)
        suppressed = until is not None and now < until
        return {
            "enabled": policy.enabled,
            "penalty": round(damping.penalty(state, now, policy), 1),
            "suppress": policy.suppress,
            "reuse": policy.reuse,
            "suppressed": suppressed,
            "since": utc - (now - state.suppressed_at) if suppressed else None,
            "until": utc + (until - now) if suppressed and until is not None else None,
            "release": f"mobility release {name}",
        }

    def _drain(self, name: str) -> dict[str, Any]:
        drains, now = self._known.drains, time.monotonic()
        keys = {"host": EVERYTHING, "until_boot": UNTIL_BOOT, "name": name}
        drained = self._shared.drained(name)
        return {
            **{what: drains.get(key) for what, key in keys.items()},
            "leaving": drained.leaving and any(key in drains for key in keys.values()),
            "left": max((round(self._known.draining.get(key, now) - now, 1) for key in keys.values()), default=0.0),
            "barred": drained.barred,
        }

    def _failover(self, name: str) -> dict[str, Any] | None:
        """Return how the failover stands that a jail goes with; None where it goes with none."""
        told = self._known.told(name)
        if told is None:
            return None
        described = self._shared.fabric.failover.describe()
        group = next(each for each in described["groups"] if each["name"] == told.group.name)
        more = {key: described[key] for key in ("pfsync", "preempt", "demotion", "problems")}
        return {**group, "announced": told.announced, **more}


def names_in(request: Mapping[str, Any]) -> set[str]:
    """Return the names of a request, judged by their letters alone. Raises ControlError where they are no names."""
    names = request.get("names", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ControlError("names must be a list of jail names")
    try:
        return {jail_name(name) for name in names}
    except ValueError as error:
        raise ControlError(str(error)) from error


def _whole(value: object) -> bool:
    """Tell whether a value is a whole number that SQLite can hold."""
    return isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63


def _event(each: Happening) -> dict[str, Any]:
    return {"id": each.id, "at": each.at, "jail": each.jail, "what": each.what, "detail": each.detail}


def _route(route: Route) -> dict[str, Any]:
    return {
        "gateway": route.gateway,
        "interface": route.interface,
        "flags": route.flags,
        "reject": route.reject,
    }


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
