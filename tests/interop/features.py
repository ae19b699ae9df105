"""What a fabric's router must do with our routes: a test for each feature, the same for all routers.

A router's own test module makes a class of them: `class TestBird(Features): router = Bird`.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Concatenate, ParamSpec, TypeVar

import pytest

from mobility.bgp.speaker import Speaker
from mobility.model import GRACEFUL_SHUTDOWN, Attributes
from tests.interop.ground import Agent, Ground, Host, host_as
from tests.interop.matrix import OK, PROPERTY
from tests.interop.node import WAIT
from tests.interop.routers.router import NO_KERNEL, ROUTER_AS, RibPath, Router
from tests.lab.watch import Change, NotInTime

V4, V6 = "198.51.100.7/32", "2001:db8:7::7/128"
OTHER4, OTHER6 = "198.51.100.8/32", "2001:db8:7::8/128"
LAST6 = "2001:db8:7::9/128"
FEATURES: dict[str, str] = {}
"""Each feature's key and its words, in the matrix' order."""
HIGHEST_MED = 2**32 - 1
NO_ROUTE_WITHIN = 0.5
"""Seconds after which a route that stands in a router's RIB is taken not to come into the kernel."""
P = ParamSpec("P")
F = TypeVar("F", bound="Features")


class Cannot(Exception):
    """What a router does not do, found out by the test of a feature; the text says what it does instead."""


def feature(words: str) -> Callable[[Callable[Concatenate[F, P], None]], Callable[Concatenate[F, P], None]]:
    """Make a method `test_KEY` the test of a feature, described by `words`.

    The test passes when the method returns and the router's `limits` do not hold KEY, or when it raises `Cannot` and
    they hold KEY with this very reason: what a new version can do, or can no longer do, fails.
    """

    def decorate(test: Callable[Concatenate[F, P], None]) -> Callable[Concatenate[F, P], None]:
        key = test.__name__.removeprefix("test_")
        FEATURES[key] = words

        @functools.wraps(test)
        def run(self: F, /, *args: P.args, **kwargs: P.kwargs) -> None:
            found = OK
            try:
                test(self, *args, **kwargs)
            except Cannot as why:
                found = f"no: {why}"
            assert (self.router.kind, found) == (self.router.kind, self.expected(key))

        return run

    return decorate


class Features:
    """The tests. Hosts are `a` and `b`, of different AS; `a` announces unless a test says otherwise."""

    router: ClassVar[type[Router]]

    @property
    def jail(self) -> tuple[str, ...]:
        """A jail's addresses: of both families, where the router takes IPv4 over an IPv6 next hop."""
        return (V6,) if "rfc8950" in self.router.limits else (V4, V6)

    @property
    def other(self) -> tuple[str, ...]:
        """Another jail's addresses."""
        return (OTHER6,) if "rfc8950" in self.router.limits else (OTHER4, OTHER6)

    @classmethod
    def expected(cls, key: str) -> str:
        """Return what the matrix should say."""
        return f"no: {cls.router.limits[key]}" if key in cls.router.limits else OK

    @pytest.fixture(autouse=True)
    def cell(self, request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> None:
        """Tell the matrix what this test is about; fail with what to do where the router is not installed."""
        key = request.function.__name__.removeprefix("test_")
        told = {"router": self.router.kind, "version": "not installed", "feature": key, "expected": self.expected(key)}
        record_property(PROPERTY, told)
        self.router.require()
        told["version"] = self.router.version()

    @pytest.fixture
    def spine(self, ground: Ground) -> Router:
        return ground.router(self.router)

    @pytest.fixture
    def host(self, ground: Ground, spine: Router) -> Host:
        host = ground.host([spine], "a")
        host.start_exabgp()
        return host

    @pytest.fixture
    def agent(self, host: Host) -> Iterator[Agent]:
        with host.agent() as agent:
            agent.open()
            agent.await_session("spine")
            yield agent

    @pytest.fixture
    def pair(self, ground: Ground, spine: Router) -> Iterator[tuple[Agent, Agent]]:
        """Two hosts' agents, their sessions up."""
        first, second = ground.host_each([spine], "a", "b")
        for host in (first, second):
            host.start_exabgp()
        with first.agent() as a, second.agent() as b:
            for agent in (a, b):
                agent.open()
            for agent in (a, b):
                agent.await_session("spine")
            yield a, b

    @feature("IPv4 over an IPv6 next hop (RFC 8950)")
    def test_rfc8950(self, spine: Router, agent: Agent) -> None:
        agent.want(V4)
        if not agent.speaker.sessions()["spine"].rfc8950:
            assert agent.states(V4)["spine"].startswith("held back: the peer takes no IPv6 next hops")
            raise Cannot("it does not offer RFC 8950")
        assert spine.await_route(V4).next_hop == spine.host_address
        assert agent.settled(V4)
        assert agent.states(V4) == {"spine": "announced"}

    @feature("IPv6")
    def test_ipv6(self, spine: Router, agent: Agent) -> None:
        agent.want(V6)
        assert spine.await_route(V6).next_hop == spine.host_address

    @feature("IPv4 over an IPv4 next hop, where one is configured")
    def test_next_hop_ipv4(self, ground: Ground) -> None:
        with self._without_rfc8950(ground, next_hop_ipv4="203.0.113.1") as (old, agent):
            agent.want(V4, V6)
            assert old.await_route(V4).next_hop == "203.0.113.1"
            assert old.await_route(V6).next_hop == old.host_address
            assert agent.settled(V4)
            assert agent.states(V4) == {"spine": "announced"}

    @feature("without RFC 8950: IPv4 is held back, IPv6 and the session stand")
    def test_held_back(self, ground: Ground) -> None:
        with self._without_rfc8950(ground) as (old, agent):
            before = agent.speaker.sessions()["spine"]
            agent.want(V4, V6)
            old.await_route(V6)
            agent.want(OTHER6)
            old.await_route(OTHER6)  # what was sent before it has arrived too
            assert not old.paths(V4)
            assert agent.states(V4)["spine"].startswith("held back: the peer takes no IPv6 next hops")
            after = agent.speaker.sessions()["spine"]
            assert (after.state, after.since) == ("up", before.since)
            assert old.established("a")

    @contextlib.contextmanager
    def _without_rfc8950(self, ground: Ground, **peer: Any) -> Iterator[tuple[Router, Agent]]:
        """Make a router with RFC 8950 switched off and a host (`peer`: its settings); wait for their session."""
        old = ground.router(self.router, rfc8950=False)
        host = ground.host([old], "a", peers={"spine": peer})
        old.run("ip", "address", "add", "203.0.113.2/24", "dev", old.link("a").router_interface)
        host.start_exabgp()
        with host.agent() as agent:
            agent.open()
            agent.await_session("spine")
            if agent.speaker.sessions()["spine"].rfc8950:
                raise Cannot("it always offers RFC 8950")
            yield old, agent

    @feature("routes in the kernel")
    def test_kernel(self, spine: Router, agent: Agent) -> None:
        agent.want(V6)
        spine.await_(lambda: spine.rib(V6) is not None, "route")
        try:
            spine.fib.wait(V6, via=spine.host_address, timeout=WAIT if spine.installs else NO_ROUTE_WITHIN)
        except NotInTime:
            raise Cannot(NO_KERNEL) from None

    @feature("withdrawal")
    def test_withdrawal(self, spine: Router, agent: Agent) -> None:
        agent.want(*self.jail, *self.other)
        spine.await_routes(*self.jail, *self.other)
        agent.unwant(*self.jail)
        for prefix in self.jail:
            spine.await_gone(prefix)
        assert agent.settled(*self.jail)
        assert agent.states(V6) == {"spine": "not announced"}
        assert all(map(spine.rib, self.other))

    @feature("communities arrive as sent")
    def test_communities(self, spine: Router, agent: Agent) -> None:
        sent = ("65001:5", "64512:65535")
        agent.want(V6, attributes=Attributes(communities=sent))
        assert spine.await_route(V6).communities == set(sent)

    @feature("large communities arrive as sent")
    def test_large_communities(self, spine: Router, agent: Agent) -> None:
        sent = ("65000:1:7", "4294967295:0:4294967295")
        agent.want(V6, attributes=Attributes(large_communities=sent))
        assert spine.await_route(V6).large_communities == set(sent)

    @feature("MED arrives as sent")
    def test_med(self, spine: Router, agent: Agent) -> None:
        for med in (HIGHEST_MED, 0):
            agent.want(V6, attributes=Attributes(med=med))
            spine.await_route(V6, lambda path, med=med: path.med == med, what=f"route of MED {med}")  # type: ignore[misc]

    @feature("extended communities arrive as sent, also those of a four-octet AS")
    def test_extended_communities(self, spine: Router, agent: Agent) -> None:
        sent = ("target:65000:7", "target:192.0.2.1:7", "target:4200000000:7", "origin:65000:7")
        agent.want(V6, attributes=Attributes(extended_communities=sent))
        assert spine.await_route(V6).extended_communities == set(sent)

    @feature("AS path prepended")
    def test_prepend(self, spine: Router, agent: Agent) -> None:
        agent.want(*self.jail, *self.other, attributes=Attributes(prepend=2))
        for prefix in (*self.jail, *self.other):
            assert spine.await_route(prefix).as_path == (host_as(1),) * 3
        agent.want(*self.jail)
        spine.await_routes(*self.jail, check=lambda path: path.as_path == (host_as(1),), what="path of one AS")

    @feature("iBGP: local preference arrives as sent, nothing is prepended")
    def test_local_preference(self, ground: Ground, spine: Router) -> None:
        host = ground.host([spine], "a", **{"as": ROUTER_AS})
        host.start_exabgp()
        with host.agent() as agent:
            agent.open()
            agent.await_session("spine")
            agent.want(V6, attributes=Attributes(local_preference=700, prepend=2))
            path = spine.await_route(V6)
            assert (path.local_preference, path.as_path) == (700, ())
            agent.want(V6)
            spine.await_route(V6, lambda path: path.local_preference == 100, what="the usual local preference")

    @feature("a jail's own next hop, of either family, also an IPv4 one with RFC 8950")
    def test_given_next_hop(self, ground: Ground, spine: Router) -> None:
        host = ground.host([spine], "a")
        spine.run("ip", "address", "add", "203.0.113.2/24", "dev", spine.link("a").router_interface)
        host.start_exabgp()
        with host.agent() as agent:
            agent.open()
            agent.await_session("spine")
            given = Attributes(next_hop_ipv4="203.0.113.9", next_hop_ipv6=f"{spine.host_address}9")
            agent.want(V4, V6, attributes=given)
            assert spine.await_route(V4).next_hop == given.next_hop_ipv4
            assert spine.await_route(V6).next_hop == given.next_hop_ipv6

    @feature("a changed MED leaves no gap in the kernel's routes")
    def test_no_gap(self, spine: Router, agent: Agent) -> None:
        if not spine.installs:
            raise Cannot(NO_KERNEL)
        agent.want(*self.jail, attributes=Attributes(med=1))
        spine.await_routes(*self.jail)
        spine.fib.changes.clear()
        agent.want(*self.jail, attributes=Attributes(med=2))
        spine.await_routes(*self.jail, check=lambda path: path.med == 2, what="new MED")
        agent.want(*self.other)
        spine.await_routes(*self.other)  # so what was changed before it is in the kernel too
        gaps = {change.prefix for change in self._interrupted(spine)}
        if gaps == {V6}:
            raise Cannot("it deletes an IPv6 route and adds it again, also where only the MED changes")
        assert not gaps

    def _interrupted(self, spine: Router) -> list[Change]:
        """Return what the kernel lost of the jail's routes since `changes` was cleared."""
        spine.fib.routes()
        return [change for change in spine.fib.changes if change.gone and change.prefix in self.jail]

    @feature("GRACEFUL_SHUTDOWN (RFC 8326): the route yields to another host's")
    def test_graceful_shutdown(self, spine: Router, pair: tuple[Agent, Agent]) -> None:
        a, b = pair
        b.want(V6, attributes=Attributes(med=2))
        spine.await_route(V6)
        a.want(V6, attributes=Attributes(med=1))
        spine.await_route(V6, self._from(spine, "a"), what="route of the lower MED")
        a.want(V6, attributes=Attributes(med=1, communities=(GRACEFUL_SHUTDOWN,)))
        spine.await_route(V6, self._from(spine, "b"), what="other host's route")
        (leaving,) = filter(self._from(spine, "a"), spine.paths(V6))
        assert leaving.communities == {GRACEFUL_SHUTDOWN}
        (staying,) = filter(self._from(spine, "b"), spine.paths(V6))
        assert leaving.local_preference < staying.local_preference

    @feature("a route moves to the host with the lower MED, of another AS")
    def test_move(self, spine: Router, pair: tuple[Agent, Agent]) -> None:
        a, b = pair
        a.want(*self.jail, attributes=Attributes(med=HIGHEST_MED - 7))
        spine.await_routes(*self.jail, check=self._from(spine, "a"))
        b.want(*self.jail, attributes=Attributes(med=HIGHEST_MED - 8))
        spine.await_routes(*self.jail, check=self._from(spine, "b"), what="route of the second host")
        a.unwant(*self.jail)
        spine.await_(
            lambda: all(len(spine.paths(prefix)) == 1 for prefix in self.jail), "end of the first host's paths"
        )
        spine.await_routes(*self.jail, check=self._from(spine, "b"))

    @feature("the host that had a moved route is shown the new one's large communities")
    def test_move_is_shown(self, spine: Router, pair: tuple[Agent, Agent]) -> None:
        a, b = pair
        a.want(V6, attributes=Attributes(med=HIGHEST_MED - 7, large_communities=("65000:1:7",)))
        spine.await_route(V6, self._from(spine, "a"))
        b.want(V6, attributes=Attributes(med=HIGHEST_MED - 8, large_communities=("65000:1:8",)))

        def shown(speaker: Speaker) -> bool:
            route = speaker.received()["spine"].get(V6)
            return route is not None and route.attributes.get("large-community") == ["65000:1:8"]

        a.await_(shown, "route of the second host at the first one")

    @feature("a route moves away from a host whose agent is dead, and its ExaBGP is shown where to")
    def test_dead_owner(self, ground: Ground, spine: Router) -> None:
        first, second = ground.host_each([spine], "a", "b")
        for host in (first, second):
            host.start_exabgp()
        with first.agent() as a:
            a.open()
            a.await_session("spine")
            a.want(*self.jail, attributes=Attributes(med=HIGHEST_MED - 7, large_communities=("65000:1:7",)))
            spine.await_routes(*self.jail, check=self._from(spine, "a"))
            assert a.settled(*self.jail)
        with second.agent() as b:
            b.open()
            b.await_session("spine")
            b.want(*self.jail, attributes=Attributes(med=HIGHEST_MED - 8, large_communities=("65000:1:8",)))
            spine.await_routes(*self.jail, check=self._from(spine, "b"), what="route of the second host")
            assert all(len(spine.paths(prefix)) == 2 for prefix in self.jail)
            with first.agent() as a:
                # while nobody listened, ExaBGP has heard it, and the bridge has kept it
                a.await_(lambda speaker: set(self.jail) <= set(speaker.received()["spine"]), "newer claim")

    @staticmethod
    def _from(spine: Router, host: str) -> Callable[[RibPath], bool]:
        """Return what tells whether a path came from a host."""
        return lambda path: path.neighbor == spine.link(host).host_address

    @feature("agent restarted: no UPDATE")
    def test_silence(self, host: Host, spine: Router) -> None:
        with host.agent() as first:
            first.open()
            first.want(*self.jail)
            spine.await_routes(*self.jail)
            assert first.settled(*self.jail)
            spine.await_complete("a")
        told = spine.updates("a")
        with host.agent() as second:
            second.want(*self.jail)
            assert second.settled(*self.jail)
            second.open()
            second.want(LAST6)
            spine.await_route(LAST6)
            assert second.speaker.counters.commands == 1
        assert spine.updates("a") == told + 1

    @feature("session reset by the router: it comes back with all routes")
    def test_session_reset(self, spine: Router, agent: Agent) -> None:
        agent.want(*self.jail)
        spine.await_routes(*self.jail)
        since = agent.speaker.sessions()["spine"].since
        spine.reset("a")
        agent.await_(lambda speaker: _later(speaker, since), "new session")
        spine.await_session("a")
        spine.await_routes(*self.jail)
        assert agent.settled(*self.jail)

    @feature("router restarted: it gets all routes again, and none that ended meanwhile")
    def test_router_restart(self, spine: Router, agent: Agent) -> None:
        agent.want(*self.jail, *self.other)
        spine.await_routes(*self.jail, *self.other)
        spine.stop()
        agent.await_(lambda speaker: not speaker.sessions()["spine"].up, "end of the session")
        agent.unwant(*self.other)
        agent.want(LAST6)
        spine.start()
        spine.await_routes(*self.jail, LAST6)
        assert not any(map(spine.paths, self.other))

    @feature("ExaBGP killed, no graceful restart: routes go, and are replayed")
    def test_replay(self, ground: Ground) -> None:
        spine = ground.router(self.router, graceful_restart=False)
        host = ground.host([spine], "a")
        host.start_exabgp()
        with host.agent() as agent:
            agent.open()
            agent.want(*self.jail)
            spine.await_routes(*self.jail)
            host.kill_exabgp()
            for prefix in self.jail:
                spine.await_gone(prefix)
            host.start_exabgp()
            spine.await_routes(*self.jail)
            assert agent.settled(*self.jail)

    @feature("ExaBGP killed: graceful restart keeps the routes")
    def test_graceful_restart(self, ground: Ground, spine: Router, pair: tuple[Agent, Agent]) -> None:
        (a, b), host = pair, ground.hosts[0]
        a.want(*self.jail, *self.other)
        spine.await_routes(*self.jail, *self.other)
        spine.await_complete("a")
        spine.fib.changes.clear()
        host.kill_exabgp()
        spine.await_session("a", up=False)
        b.want(LAST6)
        spine.await_route(LAST6)  # so it has dealt with the end of that session
        if not any(map(spine.paths, self.jail)):
            raise Cannot("it forgets the routes with the session")
        assert all(map(spine.rib, self.jail))
        a.unwant(*self.other)
        host.start_exabgp()
        for prefix in self.other:
            spine.await_gone(prefix)
        assert all(map(spine.rib, self.jail))
        assert not self._interrupted(spine)
        assert a.settled(*self.jail)

    @feature("end-of-RIB, after all was said again: it ends what was not")
    def test_end_of_rib(self, host: Host, spine: Router) -> None:
        with host.agent() as first:
            first.open()
            first.want(*self.jail)
            spine.await_routes(*self.jail)
            assert first.settled(*self.jail)
            spine.await_complete("a")
        spine.fib.changes.clear()
        host.kill_exabgp()
        spine.await_session("a", up=False)
        host.start_exabgp()
        with host.agent() as second:
            second.await_session("spine")
            second.want(*self.other)  # one of two jails has been looked at
            spine.await_routes(*self.other)
            if not any(map(spine.paths, self.jail)):
                raise Cannot("it forgets the routes with the session")
            assert all(map(spine.rib, self.jail))
            assert not self._interrupted(spine)
            second.open()
            for prefix in self.jail:
                spine.await_gone(prefix)
            assert all(map(spine.rib, self.other))


def _later(speaker: Speaker, since: float) -> bool:
    """Tell whether the session is up, and since later."""
    session = speaker.sessions()["spine"]
    return session.up and session.since > since
