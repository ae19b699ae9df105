"""What deploy/fabric keeps out, at each router. What it lets in is what features.py shows: the routers run the same files."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest

from mobility.model import Attributes
from tests.interop.features import V6
from tests.interop.ground import ALLOWED, Ground
from tests.interop.routers import ROUTERS, Bird, Frr, Router

SERVICE = "64:ff9b::/96"
#: What lets SERVICE in, in each one's file, the routers' and the route servers'.
SERVICES = {
    "BIRD": {"define SERVICES6 = [ ];": f"define SERVICES6 = [ {SERVICE} ];"},
    "FRR": {"!: ipv6 prefix-list": "ipv6 prefix-list"},
    "OpenBGPD": {f"#:\t{SERVICE}": f"\t{SERVICE}"},
    "GoBGP": {
        f'#:  [[defined-sets.prefix-sets.prefix-list]]\n#:    ip-prefix = "{SERVICE}"': (
            f'  [[defined-sets.prefix-sets.prefix-list]]\n    ip-prefix = "{SERVICE}"'
        )
    },
}
OTHERS = ("2001:db8:7::8/128", "2001:db8:7::9/128")
NETWORK = "2001:db8:7:0:1::/80"
IDS = [kind.kind for kind in ROUTERS]


@pytest.mark.parametrize("kind", ROUTERS, ids=IDS)
def test_host_routes_only(ground: Ground, kind: type[Router]) -> None:
    spine = ground.router(kind)
    first, second = ground.host_each([spine], "a", "b")
    for host in (first, second):
        host.start_exabgp()
    with first.agent() as a, second.agent() as b:
        for agent in (a, b):
            agent.open()
            agent.await_session("spine")
        a.want(NETWORK)
        assert a.settled(NETWORK)
        a.want(V6)
        b.await_(lambda speaker: V6 in speaker.received()["spine"], "jail's route at the other host")
        assert set(b.speaker.received()["spine"]) == {V6}
        assert spine.rib(NETWORK) is None
        # what it said itself is sent back by FRR only, where two hosts share an update group
        assert set(a.speaker.received()["spine"]) <= ({V6} if kind is Frr else set())


@pytest.mark.parametrize("route_server", [False, True], ids=["router", "route_server"])
@pytest.mark.parametrize("kind", ROUTERS, ids=IDS)
def test_a_service_prefix_that_was_let_in(ground: Ground, kind: type[Router], *, route_server: bool) -> None:
    peers = {"spine": {"add_path": True, "multihop": 3}} if route_server else {}
    spine = ground.router(kind, route_server=route_server, choices=SERVICES[kind.kind])
    first, second = ground.host_each([spine], "a", "b", peers=peers, allowed=(*ALLOWED, "64:ff9b::/95"))
    for host in (first, second):
        host.start_exabgp()
    with first.agent() as a, second.agent() as b:
        for agent in (a, b):
            agent.open()
            agent.await_session("spine")
        a.want("64:ff9b::/95", "64:ff9b::/97", SERVICE, V6)  # exactly the one that was named
        b.await_(lambda speaker: len(speaker.received()["spine"]) == 2, "jail's route, and its service")
        assert {each.split()[0] for each in b.speaker.received()["spine"]} == {SERVICE, V6}
        if not route_server:
            spine.await_route(SERVICE)


def test_bird_shows_what_its_filter_drops(ground: Ground) -> None:
    spine = ground.router(Bird, maximum=1)
    host = ground.host([spine])
    host.start_exabgp()
    with host.agent() as agent:
        agent.open()
        agent.await_session("spine")
        agent.want(NETWORK, V6)
        spine.await_route(V6)
        assert agent.settled(NETWORK)
        agent.want(OTHERS[0])
        assert agent.settled(OTHERS[0])
        spine.await_(lambda: OTHERS[0] in spine.birdc("show", "route", "filtered"), "route over the limit")
        assert NETWORK in spine.birdc("show", "route", "filtered")
        assert V6 not in spine.birdc("show", "route", "filtered")
        agent.unwant(V6)
        spine.await_gone(V6)
        agent.want(OTHERS[1])
        assert agent.settled(OTHERS[1])
        assert spine.rib(OTHERS[1]) is None  # there is room, but BIRD looks again only when it is told to
        agent.unwant(OTHERS[0])
        spine.birdc("reload", "in", "host")
        spine.await_route(OTHERS[1])


@pytest.mark.parametrize("kind", [Bird, Frr], ids=lambda kind: kind.kind)
def test_anycast_jails_at_several_hosts_at_once(ground: Ground, kind: type[Router]) -> None:
    choice = {Bird: "#:  merge paths on;", Frr: "!: bgp bestpath as-path"}[kind]
    spine = ground.router(kind, choices={choice: choice[2:]})
    hosts = ground.host_each([spine], "a", "b")
    for host in hosts:
        host.start_exabgp()
    with hosts[0].agent() as a, hosts[1].agent() as b:
        for agent in (a, b):
            agent.open()
            agent.await_session("spine")
            agent.want(V6, attributes=Attributes(med=20))

        def next_hops() -> set[str]:
            (route,) = json.loads(spine.run("ip", "-j", "-6", "route", "show", V6.removesuffix("/128"))) or [{}]
            return {each["gateway"] for each in route.get("nexthops", [])}

        spine.await_(lambda: next_hops() == {link.host_address for link in spine.links}, "both hosts' next hops")


@pytest.mark.parametrize("kind", ROUTERS, ids=IDS)
def test_so_many_and_no_more(ground: Ground, kind: type[Router]) -> None:
    spine = ground.router(kind, maximum=2)
    first, second = ground.host_each([spine], "a", "b")
    for host in (first, second):
        host.start_exabgp()
    with first.agent() as a, second.agent() as b:
        for agent in (a, b):
            agent.open()
            agent.await_session("spine")
        b.want("2001:db8:7::b/128")
        spine.await_route("2001:db8:7::b/128")
        a.want(V6, OTHERS[0])
        for prefix in (V6, OTHERS[0]):
            spine.await_route(prefix)
        before = a.speaker.sessions()["spine"].since
        a.want(OTHERS[1])
        if kind is Bird:
            assert a.settled(OTHERS[1])
            a.want(V6)
            assert spine.rib(OTHERS[1]) is None  # blocked, and the others stand
            assert a.speaker.sessions()["spine"].since == before
            assert spine.rib(V6) is not None
        else:
            # FRR counts behind itself: where routes come close together, only one more makes it see that there are too many
            for number in range(0x20, 0x2A):
                a.want(f"2001:db8:7::{number:x}/128")
                with suppress(AssertionError):
                    a.await_(lambda speaker: not speaker.sessions()["spine"].up, "end of the session", 2.0)
                    break
            a.await_(lambda speaker: not speaker.sessions()["spine"].up, "end of the session")
        assert spine.rib("2001:db8:7::b/128") is not None  # another host is not affected
        assert b.speaker.sessions()["spine"].up
