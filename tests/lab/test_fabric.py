"""The fabric itself, of one router and of two tiers: what it shows to whom, and what it forwards. No agent takes part.

What the hosts announce, the agent's half of BGP says by hand: two claims of one jail, the second one newer.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from mobility import config
from mobility.model import GRACEFUL_SHUTDOWN, Attributes
from tests.interop.ground import Agent
from tests.lab.fabric import ROUTE_SERVERS, TwoTier, deployed
from tests.lab.topology import Lab
from tests.waiting import until

IPV4, IPV6 = "198.51.100.7/32", "2001:db8:7::7/128"
PREFIXES = (IPV4, IPV6)
HIGHEST_MED = 2**32 - 1
ADMINISTRATOR = 4_200_000_000


def claim(sequence: int, *communities: str) -> Attributes:
    """Return the attributes of a claim: the MED falls as the sequence rises."""
    return Attributes(
        communities=communities, large_communities=(f"{ADMINISTRATOR}:1:{sequence}",), med=HIGHEST_MED - sequence
    )


def shown(agent: Agent, peer: str, prefix: str) -> list[int]:
    """Return the sequences of the claims to a prefix that a peer shows to a host."""
    routes = agent.speaker.received()[peer].items()
    # with a path id behind the prefix where there is one
    here = [route for key, route in routes if key.split()[0] == prefix]
    return sorted(int(text.split(":")[2]) for route in here for text in route.attributes["large-community"])


def await_shown(agent: Agent, peer: str, sequences: list[int]) -> None:
    """Wait until a peer shows exactly these claims to a host, in both families."""
    agent.await_(
        lambda _: all(shown(agent, peer, prefix) == sequences for prefix in PREFIXES), f"{sequences} from {peer}"
    )


def agents(lab: Lab, stack: ExitStack) -> tuple[Agent, ...]:
    """Start every host's ExaBGP, with the agent's half of BGP alone; wait for all sessions."""
    found = []
    for host in lab.hosts:
        host.run_folder.mkdir(mode=0o755, exist_ok=True)
        host.start_exabgp()
        found.append(stack.enter_context(Agent(config.load(host.config))))
    for agent in found:
        agent.open()
    for host, agent in zip(lab.hosts, found, strict=True):
        lab.await_session(host)
        for peer in host.peers:
            agent.await_session(peer["name"])
    return tuple(found)


@pytest.fixture
def one() -> Iterator[tuple[Lab, Agent, Agent]]:
    """Two hosts at one router, which runs deploy/fabric/bird.conf."""
    with Lab(hosts=2) as lab, ExitStack() as stack:
        deployed(lab)
        a, b = agents(lab, stack)
        yield lab, a, b


@pytest.fixture
def two() -> Iterator[tuple[TwoTier, Agent, Agent]]:
    """Two hosts at two leaves."""
    with TwoTier(hosts=2) as lab, ExitStack() as stack:
        a, b = agents(lab, stack)
        yield lab, a, b


def test_one_router_goes_with_the_newer_claim_and_shows_it_to_the_older(one: tuple[Lab, Agent, Agent]) -> None:
    lab, a, b = one
    a.want(*PREFIXES, attributes=claim(7))
    for prefix in PREFIXES:
        lab.spine.fib.wait(prefix, via=lab.hosts[0].address)
    await_shown(b, "spine", [7])
    lab.spine.fib.changes.clear()
    b.want(*PREFIXES, attributes=claim(8))
    for prefix in PREFIXES:
        lab.spine.fib.wait(prefix, via=lab.hosts[1].address)
    await_shown(a, "spine", [8])
    await_shown(b, "spine", [])  # what it says itself is not sent back
    a.unwant(*PREFIXES)
    assert a.settled(*PREFIXES)
    assert all(lab.spine.kernel_has(prefix, via=lab.hosts[1].address) for prefix in PREFIXES)
    assert not [change for change in lab.spine.fib.changes if change.gone and change.via != lab.hosts[0].address]


def test_without_its_line_the_router_keeps_to_the_older_claim(one: tuple[Lab, Agent, Agent]) -> None:
    lab, a, b = one
    deployed(lab, {"  med metric on;\n": ""})
    b.want(*PREFIXES, attributes=claim(8))
    a.want(*PREFIXES, attributes=claim(7))
    # by the lower router id: host b is shown a claim that is lower than its own, which is how doctor knows
    await_shown(b, "spine", [7])
    for prefix in PREFIXES:
        lab.spine.fib.wait(prefix, via=lab.hosts[0].address)


def test_a_claim_that_is_being_drained_yields(one: tuple[Lab, Agent, Agent]) -> None:
    lab, a, b = one
    b.want(*PREFIXES, attributes=claim(8, GRACEFUL_SHUTDOWN))
    await_shown(a, "spine", [8])
    a.want(*PREFIXES, attributes=claim(7))
    for prefix in PREFIXES:
        lab.spine.fib.wait(prefix, via=lab.hosts[0].address)


def test_the_router_takes_and_tells_jails_routes_only(one: tuple[Lab, Agent, Agent]) -> None:
    lab, a, b = one
    narrow = {"[ 198.51.100.0/24{32,32} ]": "[ 198.51.100.0/28{32,32} ]"}
    deployed(lab, narrow)
    a.want("198.51.100.77/32", *PREFIXES)
    await_route = lab.spine.fib.wait
    await_route(IPV6)
    await_route(IPV4)
    assert not lab.spine.kernel_has("198.51.100.77/32")
    b.await_(lambda speaker: len(speaker.received()["spine"]) == len(PREFIXES), "both routes")
    assert "0.0.0.0/0" not in b.speaker.received()["spine"]
    assert "::/0" not in b.speaker.received()["spine"]


def test_med_does_not_cross_a_tier_and_route_servers_show_every_claim(two: tuple[TwoTier, Agent, Agent]) -> None:
    lab, a, b = two
    host_a, host_b = lab.hosts
    a.want(*PREFIXES, attributes=claim(7))
    for prefix in PREFIXES:
        lab.spine.fib.wait(prefix, via=lab.via(host_a))
        lab.leaves["b"].fib.wait(prefix, via="fd01:2::ff")
    await_shown(b, "leaf", [7])
    b.want(*PREFIXES, attributes=claim(8))
    for name in ROUTE_SERVERS:
        await_shown(a, name, [8])
        await_shown(b, name, [7])
    # each leaf goes with its own host, and tells it nothing; the spine keeps to what it had
    await_shown(b, "leaf", [])
    assert not shown(a, "leaf", IPV4)
    for prefix in PREFIXES:
        lab.leaves["b"].fib.wait(prefix, via=host_b.address)
        assert lab.leaves["a"].kernel_has(prefix, via=host_a.address)
        assert lab.spine.kernel_has(prefix, via=lab.via(host_a))
    lab.spine.fib.changes.clear()
    a.unwant(*PREFIXES)
    for prefix in PREFIXES:
        lab.spine.fib.wait(prefix, via=lab.via(host_b))
    await_shown(a, "leaf", [8])
    for name in ROUTE_SERVERS:
        await_shown(b, name, [])
    # the spine had the other one at hand
    assert not [change for change in lab.spine.fib.changes if change.gone and change.via != lab.via(host_a)]


def test_a_tie_is_seen_by_both_at_the_route_servers(two: tuple[TwoTier, Agent, Agent]) -> None:
    _, a, b = two
    for agent in (a, b):
        agent.want(*PREFIXES, attributes=claim(7))
    for name in ROUTE_SERVERS:
        await_shown(a, name, [7])
        await_shown(b, name, [7])


def test_one_route_server_may_go(two: tuple[TwoTier, Agent, Agent]) -> None:
    lab, a, b = two
    first, second = ROUTE_SERVERS
    lab.route_servers[first].stop()
    until(lambda: not a.speaker.sessions()[first].up, "end of the session")
    a.want(*PREFIXES, attributes=claim(7))
    b.want(*PREFIXES, attributes=claim(8))
    await_shown(a, second, [8])
    await_shown(b, second, [7])
    lab.route_servers[first].start()
    await_shown(a, first, [8])
    await_shown(b, first, [7])
