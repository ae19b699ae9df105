"""The host's own default routes, kept by its BGP sessions: ExaBGP installs no routes.

Peers that are marked `uplink = true` are the ways out. The default routes of both families go through those whose session
is up; all of them where the kernel groups next hops (ROUTE_MPATH and net.route.multipath=1), else the first in the
order of the configuration. What FreeBSD does with a default route that is there already is in transcript 3-routes:

- `add` of another gateway makes an IPv6 route multipath, and an IPv4 one over IPv4 gateways (route_ctl.c,
  add_route_flags_mpath). An IPv4 route over an IPv6 next hop answers "Invalid argument" on 13; from 14 on it is grouped
  (route(8) by netlink, NLM_F_APPEND). Where multipath is off, or not compiled in, "route already in table". So the second
  way is tried once, and where it is refused, the family has one way at a time.
- `change` moves a single route in one step, to a gateway on another interface too. Of a multipath route it changes the way
  with the gateway named, so none (13.2: change_mpath_route, ESRCH), or replaces them all (14: NLM_F_REPLACE). So only a
  single route is ever changed.
- `delete` takes one way out of a multipath route by its gateway.

In every order of commands here a way is added before another is deleted, and a single one is changed: there is no moment
without a default route.

What is never touched: a default route that is not in our memory (rc.conf's defaultrouter, dhclient(8), rtadvd(8)), and the
last one of a family, even when its session is down: it may still work, and nothing else does (fail static).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, NamedTuple

from mobility import config as configuration
from mobility.bgp.speaker import Session
from mobility.config import Bgp, Config, Peer
from mobility.network.host import Host, Trouble
from mobility.network.output import HostView, NetView, Route
from mobility.plan import Command

log = logging.getLogger(__name__)

UNHEARD_FOR = 30.0
"""Seconds after which a session that nobody has told about counts as down, while another one is up as long: ExaBGP tells
nothing of a peer that it never reached. Longer than ExaBGP needs to start and to connect again."""
TRY_AGAIN = 5.0
"""Seconds after which commands that failed are tried again, beside the agent's own looks."""
STEPS_AT_ONCE = 32
"""Commands in one go, before the loop is given back: two families of a few uplinks need fewer."""
MULTIPATH = "net.route.multipath"
FAMILIES = (6, 4)
_NAMES = {4: "IPv4", 6: "IPv6"}
_ROUTERS = {4: "defaultrouter", 6: "ipv6_defaultrouter"}
"""Where rc.conf(5) sets a default route."""
_UNGROUPED = ("Invalid argument", "route already in table")
"""What route(8) answers where a second way can not be had."""
_GONE = "not in table"


class Way(NamedTuple):
    """A default route that this program has made. JSON takes it as a list.

    `interface` is what a look showed it to leave through, "" before the first: a route over another one is not this one.
    """

    version: int
    gateway: str
    interface: str = ""


class Standing(StrEnum):
    """What is known of an uplink's session."""

    UP = "up"
    DOWN = "down"
    UNHEARD = "unheard"


_STANDINGS = {"up": Standing.UP, "down": Standing.DOWN, "unknown": Standing.UNHEARD}
"""What the states of a session say; of others ("connected") nothing can be told."""


@dataclass(frozen=True, slots=True)
class Heard:
    """An uplink's session as we follow it: `since` in monotonic seconds, `stamp` what a session that is up says of that."""

    standing: Standing = Standing.UNHEARD
    since: float = 0.0
    stamp: float = 0.0


@dataclass(frozen=True, slots=True)
class Uplink:
    """One peer marked as uplink, and the gateway of each family; a family without gateway can not go through it."""

    name: str
    gateways: Mapping[int, str]


@dataclass(frozen=True, slots=True)
class Case:
    """All that a plan is made from.

    `routes` are the host's default routes. `crossed_alone`: this kernel does not group IPv4 routes with IPv6 next hops;
    `alone`: nor others. `unusable` are ways that could not be made just now. `hold` is in seconds.
    """

    uplinks: tuple[Uplink, ...]
    heard: Mapping[str, Heard]
    routes: tuple[Route, ...]
    memory: frozenset[Way]
    now: float
    multipath: bool = True
    alone: bool = False
    crossed_alone: bool = False
    unusable: frozenset[tuple[int, str]] = frozenset()
    hold: float = 0.0


@dataclass(frozen=True, slots=True)
class Step:
    """One command, and what it does to the default routes: which way comes, which goes."""

    command: Command
    version: int
    comes: str = ""
    goes: str = ""

    @property
    def second(self) -> bool:
        """Whether a way is added beside another, or tried to."""
        return bool(self.comes) and not self.goes


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be run, one after the other, and what an operator should know."""

    steps: tuple[Step, ...] = ()
    problems: tuple[str, ...] = ()


def of_peers(peers: Iterable[Peer], *, crossed: bool) -> tuple[Uplink, ...]:
    """Return the uplinks among the peers. `crossed`: IPv4 goes over IPv6 next hops.

    An uplink is one for the families of its session.
    """
    found = []
    for peer in peers:
        if peer.uplink:
            ipv6 = peer.uplink_ipv6 or (peer.address if peer.ipv6 else None)
            ipv4 = peer.uplink_ipv4 if peer.ipv6 else peer.uplink_ipv4 or peer.address
            if crossed and peer.ipv6:
                ipv4 = ipv6
            ways = {"ipv6": (6, ipv6), "ipv4": (4, ipv4)}
            gateways = {version: way for family, (version, way) in ways.items() if way and family in peer.families}
            found.append(Uplink(peer.name, gateways))
    return tuple(found)


def hear(before: Mapping[str, Heard], sessions: Mapping[str, Session], now: float) -> dict[str, Heard]:
    """Return how the sessions stand, with since when; `before` is what this returned last.

    A session that is being set up again ("connected") stands as before. One that went down and came back between two calls
    has come back now: its own stamp tells.
    """
    found = {}
    for name, session in sessions.items():
        old = before.get(name, Heard(since=now))
        standing = _STANDINGS.get(session.state, old.standing)
        stamp = session.since if standing is Standing.UP else 0.0
        same = standing is old.standing and stamp == old.stamp
        found[name] = old if same else Heard(standing, now, stamp)
    return found


def defaults(net: NetView) -> tuple[Route, ...]:
    """Return the default routes of a look, of both families."""
    return tuple(net.routes.get("default", ()))


def recall(memory: Iterable[Way], routes: Iterable[Route]) -> frozenset[Way]:
    """Return what is left of the memory after a look, with the interfaces that it showed."""
    shown = list(routes)
    return frozenset(
        way._replace(interface=route.interface)
        for way in memory
        for route in shown
        if _is(route, way.version, way.gateway) and way.interface in ("", route.interface)
    )


def _is(route: Route, version: int, gateway: str) -> bool:
    real = "G" in route.flags and not {"R", "B"} & set(route.flags)
    return real and (route.version, route.gateway) == (version, gateway)


def plan(case: Case) -> Plan:
    """Return the commands that lead from the default routes there are to those there should be, and what is wrong.

    Pure; the clock is the case's `now`.
    """
    steps: list[Step] = []
    problems: list[str] = []
    for version in FAMILIES:
        family = _Family(case, version)
        steps += family.steps()
        problems += family.problems()
    return Plan(tuple(steps), tuple(problems))


def next_change(case: Case) -> float | None:
    """Return the seconds after which time alone may change the plan, None where it can not."""
    moments = [
        heard.since + wait - case.now
        for heard in case.heard.values()
        for wait in ((case.hold,) if heard.standing is Standing.UP else ())
    ]
    if {Standing.UNHEARD, Standing.UP} <= {heard.standing for heard in case.heard.values()}:
        moments += [heard.since + UNHEARD_FOR - case.now for heard in case.heard.values()]
    return min((moment for moment in moments if moment > 0), default=None)


@dataclass(slots=True)
class _Gateway:
    """One gateway of a family. Several sessions may lead to it: it stands as the best of them."""

    text: str
    names: list[str] = field(default_factory=list)
    heard: Heard = field(default_factory=Heard)


class _Family:
    """The default routes of one address family: what they should be."""

    def __init__(self, case: Case, version: int) -> None:
        self.case = case
        self.version = version
        self.gateways: dict[str, _Gateway] = {}
        order = {Standing.UP: 0, Standing.UNHEARD: 1, Standing.DOWN: 2}
        for uplink in case.uplinks:
            text = uplink.gateways.get(version)
            if text is None:
                continue
            heard = case.heard.get(uplink.name, Heard(since=case.now))
            known = self.gateways.setdefault(text, _Gateway(text, heard=heard))
            known.names.append(uplink.name)
            known.heard = min(known.heard, heard, key=lambda each: (order[each.standing], each.since))
        remembered = {way.gateway for way in case.memory if way.version == version}
        here = [route for route in case.routes if route.version == version]
        self.ours = [
            route.gateway for route in here if route.gateway in remembered and _is(route, version, route.gateway)
        ]
        theirs = [route for route in here if route.gateway not in self.ours]
        self.shared = [route.gateway for route in theirs if any(_is(route, version, text) for text in self.gateways)]
        self.strange = [route for route in theirs if route.gateway not in self.shared]
        self.here = [*self.ours, *self.shared]
        self.up = [gateway for gateway in self.gateways.values() if gateway.heard.standing is Standing.UP]

    def _wanted(self) -> list[str]:
        """Return the gateways that default routes should go through, the best first; none where no session is up."""
        case = self.case
        able = [
            gateway
            for gateway in self.up
            if gateway.text in self.here or (self.version, gateway.text) not in case.unusable
        ]
        held = [
            gateway.text for gateway in able if gateway.text in self.here or case.now - gateway.heard.since >= case.hold
        ]
        # nothing that is up serves: whoever is up does not wait
        return held or [gateway.text for gateway in able]

    def _dead(self, text: str) -> bool:
        """Tell whether nothing speaks for a way any more."""
        gateway = self.gateways.get(text)
        if gateway is None:
            return True
        if gateway.heard.standing is not Standing.UNHEARD:
            return gateway.heard.standing is Standing.DOWN
        since = max(gateway.heard.since, min((each.heard.since for each in self.up), default=self.case.now))
        return self.case.now - since >= UNHEARD_FOR

    def _grouped(self, texts: Iterable[str]) -> bool:
        """Tell whether the kernel takes several ways, as far as is known."""
        crossed = self.version == 4 and any(":" in text for text in texts)
        return self.case.multipath and not self.case.alone and not (crossed and self.case.crossed_alone)

    def steps(self) -> Iterator[Step]:
        """Yield the commands, in their order."""
        wanted = self._wanted()
        if self.strange:
            # beside a route that leads elsewhere, ours would take half of its packets
            yield from self._let_go([text for text in self.ours if self._dead(text)], wanted, self.here)
        elif self._grouped([*wanted, *self.here]):
            yield from (self._add(text) for text in wanted if text not in self.here)
            left = [*self.here, *wanted]
            yield from self._let_go([text for text in self.ours if self._dead(text)], wanted, left)
        elif self.shared:
            serving = any(text in wanted for text in self.shared)
            gone = self.ours if serving else [text for text in self.ours if self._dead(text)]
            yield from self._let_go(gone, wanted, self.here)
        else:
            yield from self._alone(wanted)

    def _alone(self, wanted: list[str]) -> Iterator[Step]:
        """Have one way: the first that is wanted."""
        if not wanted:
            return
        best, ours = wanted[0], self.ours
        if best in ours or not ours:
            yield from (self._delete(text) for text in ours if text != best)
            if not ours:
                yield self._add(best)
            return
        alive = [text for text in ours if not self._dead(text)]
        if alive and not any(text in wanted for text in alive):
            return  # its session has not been heard of yet
        # a multipath route can not be changed: what is left of it can
        last = next((text for text in ours if text in wanted), ours[-1])
        yield from (self._delete(text) for text in ours if text != last)
        yield self._change(last, best)

    def _let_go(self, gone: list[str], wanted: list[str], left: list[str]) -> Iterator[Step]:
        """Delete ways of ours, where one that is wanted stays."""
        if any(text in left and text not in gone for text in wanted):
            yield from (self._delete(text) for text in gone)

    def problems(self) -> Iterator[str]:
        """Yield what an operator should know, each with what to do."""
        name = _NAMES[self.version]
        for route in self.strange if self.gateways else ():
            yield (
                f"an {name} default route through {route.gateway} ({route.interface}) leads past the uplinks and is not "
                f"ours, so none is added: {remedy(route)}"
            )
        for text in self.shared:
            if self._dead(text) and self.up:
                yield (
                    f"the {name} default route through {text} is not ours and stays, without a session: "
                    f"{remedy(next(r for r in self.case.routes if _is(r, self.version, text)))}"
                )
        obsolete = [text for text in self.ours if text not in self.gateways]
        for text in obsolete if not self.gateways else ():
            keep = "" if self.version == 4 and ":" in text else f" (sysrc {_ROUTERS[self.version]}={text})"
            yield (
                f"the {name} default route through {text} was made for an uplink that is none any more, and stays. To take "
                f"it away: {' '.join(_route('delete', self.version, text))}; to keep it as your own: set it in "
                f"rc.conf{keep}, then: service mobility restart"
            )

    def _add(self, text: str) -> Step:
        why = f"{_NAMES[self.version]} default route through uplink {self._names(text)}"
        return Step(Command(_route("add", self.version, text), why), self.version, comes=text)

    def _change(self, old: str, new: str) -> Step:
        why = f"{_NAMES[self.version]} default route from {old} to uplink {self._names(new)}, in one step"
        return Step(Command(_route("change", self.version, new), why), self.version, comes=new, goes=old)

    def _delete(self, text: str) -> Step:
        why = f"{_NAMES[self.version]} default route: no session of uplink {self._names(text)}"
        return Step(Command(_route("delete", self.version, text), why, (_GONE,)), self.version, goes=text)

    def _names(self, text: str) -> str:
        return " and ".join(self.gateways[text].names) if text in self.gateways else f"at {text}"


def _route(verb: str, version: int, gateway: str) -> tuple[str, ...]:
    if version == 6:
        return ("route", "-n", "-6", verb, "default", gateway)
    if ":" in gateway:
        return ("route", "-n", verb, "default", "-inet6", gateway)
    return ("route", "-n", verb, "default", gateway)


def remedy(route: Route) -> str:
    """Return how an operator takes away a default route that is not ours, and has it stay away."""
    cause = f"sysrc -x {_ROUTERS[route.version]}"
    if route.version == 6 and "S" not in route.flags and "G" in route.flags:
        # not by route(8): the kernel's own, from a router advertisement (nd6_rtr.c, defrouter_addreq)
        cause = f"ifconfig {route.interface} inet6 -accept_rtadv"
    by = route.gateway if "G" in route.flags else f"-interface {route.interface}"
    family = "-6 " if route.version == 6 else ""
    by = f"-inet6 {by}" if route.version == 4 and ":" in route.gateway else by
    return f"{cause}; route -n {family}delete default {by}"


def after(step: Step, routes: Iterable[Route]) -> tuple[Route, ...]:
    """Return the default routes as they are once a step has been carried out; the next look shows them as they are."""
    left = [route for route in routes if not (step.goes and _is(route, step.version, step.goes))]
    if step.comes:
        left.append(Route(step.version, "default", step.comes, "UGS", ""))
    return tuple(left)


class Uplinks:
    """Keeps the default routes: the edge around `plan`. All methods belong to the event loop's thread.

    `sessions` tells of all sessions by the peers' names. `remembered` is the memory of this boot, `remember` keeps a new one;
    it is called before a route is made, so that a crash leaves none that nobody explains. `note` takes a line of history.
    """

    def __init__(
        self,
        config: Config,
        host: Host,
        sessions: Callable[[], Mapping[str, Session]],
        *,
        remembered: Iterable[Way] = (),
        remember: Callable[[frozenset[Way]], None] = lambda _: None,
        note: Callable[[str, str], None] = lambda _what, _detail: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._host = host
        self._sessions = sessions
        self._remember = remember
        self._note = note
        self._clock = clock
        self._stirred = asyncio.Event()
        self._memory = frozenset(remembered)
        self._heard: dict[str, Heard] = {}
        self._routes: tuple[Route, ...] | None = None
        self._ipv4 = False
        self._seen: tuple[HostView, float] | None = None
        self._acted = float("-inf")
        self._multipath: bool | None = None
        self._alone = False
        self._crossed_alone = False
        self._failed: dict[tuple[int, str], str] = {}
        self._told: tuple[str, ...] = ()
        self._trouble = ""
        self._bgp: Bgp
        self.configure(config)
        if self._memory and not any(peer.uplink for peer in self._bgp.peers):
            # uplinks were switched off, and whoever starts us anew has been told of what stays: it is the host's own now
            log.info(
                "default routes are left to the host",
                extra={"gateways": ", ".join(sorted({w.gateway for w in self._memory}))},
            )
            self._keep(frozenset())

    # -- what the agent tells

    def configure(self, config: Config) -> None:
        """Take a configuration, the first or a new one."""
        self._bgp = config.bgp
        self._hold = config.agent.uplink_hold
        self._interface_routes = config.host.ipv4_routes == configuration.INTERFACE
        self._stirred.set()

    def look(self, view: HostView, began: float) -> None:
        """Take what a look showed that began at `began` (monotonic seconds)."""
        self._seen = (view, began)
        self._stirred.set()

    def news(self) -> None:
        """Say that something may have changed about the sessions: cheap, so it may be called for every change."""
        names = {peer.name for peer in self._bgp.peers if peer.uplink}
        heard = hear(self._heard, _of(names, self._sessions()), self._clock())
        if heard != self._heard:
            self._stirred.set()

    @property
    def active(self) -> bool:
        """Whether there is anything to keep, or to remember."""
        return bool(self._memory) or any(peer.uplink for peer in self._bgp.peers)

    # -- the loop

    async def run(self) -> None:
        """Keep the default routes until cancelled; they stand when this ends."""
        while True:
            self._stirred.clear()
            wait = await self.settle() if self.active else None
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._stirred.wait()

    async def settle(self) -> float | None:
        """Bring the default routes to where they should be, and return in how many seconds to call again; None: on news."""
        try:
            if not await self._take_look():
                return None
            for _ in range(STEPS_AT_ONCE):
                case = self._case()
                found = plan(case)
                self._tell(found.problems)
                if not found.steps:
                    self._trouble = ""
                    return min(
                        (each for each in (next_change(case), TRY_AGAIN if self._failed else None) if each is not None),
                        default=None,
                    )
                await self._do(found.steps[0])
        except Trouble as error:
            # a command that hangs or is missing, here or in a look
            if str(error) != self._trouble:
                log.error("default routes", extra={"problem": str(error)})  # noqa: TRY400
            self._trouble = str(error)
        return TRY_AGAIN

    async def _take_look(self) -> bool:
        """Take the newest look in, if there is one; return whether there ever was one."""
        if self._seen is None and self._failed and self._routes is not None:
            await self._look_again()
            return True
        if self._seen is not None:
            (view, began), self._seen = self._seen, None
            if began < self._acted:
                # it may show what was before our last command
                await self._look_again()
            else:
                await self._learn()
                self._take(view)
        return self._routes is not None

    async def _look_again(self) -> None:
        await self._learn()
        self._take(await self._host.look())

    async def _learn(self) -> None:
        """Ask the kernel whether it groups next hops: an operator may switch that at any time."""
        result = await self._host.command(["sysctl", "-n", MULTIPATH])
        multipath = result.status == 0 and result.stdout.strip() == "1"
        if multipath is not self._multipath:
            self._multipath = multipath
            # what was refused may be taken now
            self._alone = self._crossed_alone = False

    def _take(self, view: HostView) -> None:
        self._routes = defaults(view.net)
        self._ipv4 = view.net.with_ipv4 is not None
        self._failed.clear()
        self._keep(recall(self._memory, self._routes))

    def _keep(self, memory: frozenset[Way]) -> None:
        if memory != self._memory:
            self._memory = memory
            self._remember(memory)

    def _crossed(self) -> bool:
        return self._host.ipv6_next_hops and not self._interface_routes

    def _case(self) -> Case:
        now = self._clock()
        uplinks = of_peers(self._bgp.peers, crossed=self._crossed())
        if not self._ipv4:
            # without an IPv4 address the kernel takes no IPv4 route over an IPv6 next hop (transcript 3-routes), and
            # nobody here would use it; wiring the first jail with IPv4 brings one
            uplinks = tuple(replace(each, gateways=_without_ipv4(each.gateways)) for each in uplinks)
        self._heard = hear(self._heard, _of({uplink.name for uplink in uplinks}, self._sessions()), now)
        return Case(
            uplinks,
            self._heard,
            self._routes or (),
            self._memory,
            now,
            multipath=bool(self._multipath),
            alone=self._alone,
            crossed_alone=self._crossed_alone,
            unusable=frozenset(self._failed),
            hold=self._hold,
        )

    async def _do(self, step: Step) -> None:
        """Carry out one step. One that fails is remembered as such, and the host is looked at again."""
        argv, routes = step.command.argv, self._routes or ()
        beside = step.second and any(route.version == step.version for route in routes)
        if step.comes:
            self._keep(self._memory | {Way(step.version, step.comes)})
        try:
            result = await self._host.command(argv)
        finally:
            self._acted = self._clock()
        log.info("ran", extra={"argv": " ".join(argv), "status": result.status, "seconds": round(result.seconds, 4)})
        if result.status == 0 or any(words in result.complaint for words in step.command.harmless):
            self._note("default route", " ".join(argv))
            self._routes = after(step, routes)
            if step.goes:
                self._keep(frozenset(way for way in self._memory if way[:2] != (step.version, step.goes)))
            return
        if step.comes:
            self._keep(frozenset(way for way in self._memory if way[:2] != (step.version, step.comes)))
        failed = dict(self._failed)
        await self._look_again()
        self._failed = failed
        there = any(_is(route, step.version, step.comes) for route in self._routes or ())
        if beside and not there and any(words in result.complaint for words in _UNGROUPED):
            log.info("one default route at a time", extra={"reason": result.complaint})
            if step.version == 4 and any(":" in text for text in (step.comes, *(r.gateway for r in routes))):
                self._crossed_alone = True
            else:
                self._alone = True
            return
        self._failed[step.version, step.comes or step.goes] = self._why(step, result.complaint)
        log.error("default route", extra={"problem": self._why(step, result.complaint)})

    def _why(self, step: Step, said: str) -> str:
        text = f"{' '.join(step.command.argv)}: {said}"
        if "Network is unreachable" in said:
            key = "uplink_ipv6" if ":" in step.comes else "uplink_ipv4"
            return f"{text}: the gateway is on no network of this host: mend its interface (ifconfig), or set {key}"
        return text

    # -- what is told

    def _tell(self, problems: tuple[str, ...]) -> None:
        for text in problems:
            if text not in self._told:
                log.warning("default routes", extra={"problem": text})
        self._told = problems

    @property
    def problems(self) -> tuple[str, ...]:
        """What an operator should know, each with what to do."""
        if not self.active:
            return ()  # nothing is kept any more, so nothing that was told before holds
        silent = []
        uplinks = [peer.name for peer in self._bgp.peers if peer.uplink]
        if uplinks and not any(self._heard.get(name, Heard()).standing is Standing.UP for name in uplinks):
            silent = [f"no uplink has a session ({', '.join(uplinks)}): default routes stay as they are"]
        return tuple(text for text in (*self._told, *silent, *self._failed.values(), self._trouble) if text)

    def describe(self) -> dict[str, Any]:
        """Return what `mobility status --json` shows: each uplink, the default routes and whose they are."""
        ours = {way[:2] for way in self._memory}
        return {
            "multipath": self._multipath,
            "one_at_a_time": {
                "ipv4": self._multipath is False or self._alone or (self._crossed_alone and self._crossed()),
                "ipv6": self._multipath is False or self._alone,
            },
            "uplinks": [
                {
                    "peer": uplink.name,
                    "session": str(self._heard.get(uplink.name, Heard()).standing),
                    "ipv4": uplink.gateways.get(4, ""),
                    "ipv6": uplink.gateways.get(6, ""),
                }
                for uplink in of_peers(self._bgp.peers, crossed=self._crossed())
            ],
            "routes": [
                {
                    "family": _NAMES[route.version],
                    "gateway": route.gateway,
                    "interface": route.interface,
                    "ours": (route.version, route.gateway) in ours,
                }
                for route in self._routes or ()
            ],
            "problems": list(self.problems),
        }


def _without_ipv4(gateways: Mapping[int, str]) -> dict[int, str]:
    return {version: gateway for version, gateway in gateways.items() if version != 4}


def _of(names: Iterable[str], sessions: Mapping[str, Session]) -> dict[str, Session]:
    return {name: sessions[name] for name in names if name in sessions}
