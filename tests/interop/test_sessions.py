"""Every kind of session that mobility.toml can ask for, and a configuration that changes while they are up."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mobility.bgp.speaker import Speaker, SpeakerError
from mobility.model import Attributes
from tests.interop.ground import Agent, Ground, Host
from tests.interop.node import Link, Node
from tests.interop.routers.bird import Bird, Seen
from tests.interop.routers.router import ROUTER_AS

V4, V6 = "198.51.100.7/32", "2001:db8:7::7/128"
OTHER4, OTHER6 = "198.51.100.8/32", "2001:db8:7::8/128"
HOST4, SPINE4 = "192.0.2.1", "192.0.2.2"
PASSWORD = "s3cret#(1)"

HEAD = """\
router id {router_id};
log stderr all;
protocol device {{ }}
protocol kernel {{ ipv4 {{ import none; export all; }}; merge paths on; }}
protocol kernel {{ ipv6 {{ import none; export all; }}; merge paths on; }}
"""
SESSION = """\
protocol bgp {name} {{
  local {local} as {own};
  neighbor {address} as {number};
  {graceful}
  hold time 30;
  connect delay time 1;
  connect retry time 1;
  error wait time 1, 2;
  passive on;
  debug {{ states, events, packets }};
  {options}
  {channels}
}}
"""
BOTH = "ipv4 { extended next hop on; import all; export all; }; ipv6 { import all; export all; };"
IPV4 = "ipv4 { import all; export all; };"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A session as one router has it; what is not said is as with the first link."""

    name: str
    local: str = ""
    address: str = ""
    options: str = ""
    channels: str = BOTH


class Spine(Bird):
    """A BIRD with sessions written out here. Without any: one with each host, over the link."""

    sessions: tuple[Wanted, ...] = ()
    graceful = True

    def write(self) -> None:
        """Write the configuration file."""
        text = HEAD.format(router_id=self.router_id)
        for wanted in self.sessions or [Wanted(link.host) for link in self.links]:
            link = self._link(wanted.name)
            text += SESSION.format(
                name=wanted.name,
                local=wanted.local or link.router_address,
                own=ROUTER_AS,
                address=wanted.address or link.host_address,
                number=link.host_as,
                graceful=f"graceful restart {'on' if self.graceful else 'off'};",
                options=wanted.options,
                channels=wanted.channels,
            )
        (self.folder / "bird.conf").write_text(text)

    def _link(self, name: str) -> Link:
        return next((link for link in self.links if link.host == name), self.links[0])

    def have(self, *sessions: Wanted) -> None:
        """Have these sessions from now on."""
        self.sessions = sessions
        self.write()
        if self.processes:
            self.birdc("configure")


@pytest.fixture
def spine(ground: Ground) -> Spine:
    return ground.router(Spine, "spine")


def with_ipv4(host: Host, spine: Spine, host4: str = HOST4, spine4: str = SPINE4) -> None:
    """Give both ends of a link IPv4 addresses too."""
    host.run("ip", "address", "add", f"{host4}/24", "dev", f"up{spine.number}")
    spine.run("ip", "address", "add", f"{spine4}/24", "dev", spine.link(host.name).router_interface)


class Started:
    """Agents of hosts, each until the end of the test."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def __call__(self, host: Host) -> Agent:
        """Start ExaBGP and the agent's half of BGP on a host."""
        host.start_exabgp()
        agent = self._stack.enter_context(host.agent())
        agent.open()
        return agent


@pytest.fixture
def start() -> Iterator[Started]:
    with ExitStack() as stack:
        yield Started(stack)


# -- kinds of sessions


def test_an_ipv4_session_carries_ipv4_beside_an_ipv6_one(ground: Ground, start: Started) -> None:
    old, new = ground.router(Spine, "old"), ground.router(Spine, "new")
    old.sessions = (Wanted("host", SPINE4, HOST4, channels=IPV4),)
    host = ground.host([old, new], peers={"old": {"address": SPINE4, "local_address": HOST4}})
    with_ipv4(host, old)
    agent = start(host)
    agent.want(V4, V6)
    old.fib.wait(V4, via=HOST4)
    new.fib.wait(V4, via=new.host_address)
    new.fib.wait(V6, via=new.host_address)
    assert agent.settled(V4, V6)
    assert agent.states(V4) == {"old": "announced", "new": "announced"}
    assert agent.states(V6) == {"old": "left out: the peer's families leave IPv6 out", "new": "announced"}
    assert agent.call(agent.speaker.counts)["held_back"] == 0
    agent.unwant(V4)
    old.fib.wait(V4, gone=True)


def test_an_ipv4_session_carries_ipv6_with_a_next_hop_for_it(ground: Ground, spine: Spine, start: Started) -> None:
    spine.sessions = (Wanted("host", SPINE4, HOST4),)
    host = ground.host([spine])
    with_ipv4(host, spine)
    host.configure(
        peers={"spine": {"address": SPINE4, "local_address": HOST4, "next_hop_ipv6": spine.links[0].host_address}}
    )
    agent = start(host)
    agent.want(V4, V6)
    # BIRD offers RFC 8950 here; a session over IPv4 has no use for it
    spine.fib.wait(V4, via=HOST4)
    spine.fib.wait(V6, via=spine.host_address)
    assert agent.settled(V4, V6)


def test_a_session_for_one_family(ground: Ground, spine: Spine, start: Started) -> None:
    host = ground.host([spine], peers={"spine": {"families": ["ipv6"]}})
    agent = start(host)
    agent.want(V4, V6)
    spine.fib.wait(V6)
    assert agent.settled(V6)
    spine.await_(lambda: "Got END-OF-RIB" in spine.processes[0].log.read_text(), "end-of-RIB")
    assert "Unexpected AF" not in spine.processes[0].log.read_text()
    assert agent.states(V4) == {"spine": "left out: the peer's families leave IPv4 out"}
    assert not spine.fib.has(V4)


def test_two_links_to_one_router(ground: Ground, spine: Spine, start: Started) -> None:
    first = Wanted("host")
    second = Wanted("host2", "fd00:99::ff", "fd00:99::1")
    spine.sessions = (first, second)
    host = ground.host(
        [spine],
        peers={"spine-2": {"address": second.local, "local_address": second.address}},
    )
    wire(host, spine, "second", second)
    agent = start(host)
    agent.want(V4, V6)
    assert agent.settled(V4, V6)
    assert agent.states(V4) == {"spine": "announced", "spine-2": "announced"}
    spine.await_(lambda: len(paths(spine, V6)) == 2, "second path")
    # one link dies: what came over it goes, and nothing else
    spine.birdc("disable", "host")
    spine.await_(lambda: len(paths(spine, V6)) == 1, "end of the first path")
    agent.await_(lambda speaker: not speaker.sessions()["spine"].up, "end of the session")
    assert agent.states(V6)["spine-2"] == "announced"
    assert spine.fib.has(V6)
    spine.birdc("enable", "host")
    spine.await_(lambda: len(paths(spine, V6)) == 2, "both paths")


def wire(host: Host, spine: Spine, name: str, wanted: Wanted) -> None:
    """Lay another wire between a host and a router."""
    host.run("ip", "link", "add", name, "type", "veth", "peer", "name", f"{name}-r")
    host.run("ip", "link", "set", f"{name}-r", "netns", f"/proc/{spine.pid}/ns/net")
    for node, interface, address in ((host, name, wanted.address), (spine, f"{name}-r", wanted.local)):
        node.run("sysctl", "-qw", f"net.ipv6.conf.{interface}.accept_dad=0")
        node.run("ip", "link", "set", interface, "up")
        node.run("ip", "address", "add", f"{address}/64", "dev", interface, "nodad")


def paths(spine: Spine, prefix: str) -> list[str]:
    """Return the sessions by which a router knows a prefix."""
    return [line.split("[")[1].split()[0] for line in spine.routes_to(prefix).splitlines() if " [" in line]


def test_multihop(ground: Ground, spine: Spine, start: Started) -> None:
    """A router that is not on the link: here its loopback, as route servers are behind a spine."""
    spine.sessions = (Wanted("host", "fd00:aa::ff", options="multihop 3;"),)
    host = ground.host([spine], peers={"spine": {"address": "fd00:aa::ff", "multihop": 3}})
    spine.run("ip", "address", "add", "fd00:aa::ff/128", "dev", "lo")
    host.run("ip", "route", "add", "fd00:aa::ff", "via", spine.address)
    agent = start(host)
    agent.want(V6)
    spine.fib.wait(V6)


@pytest.mark.parametrize("ipv6", [True, False], ids=["ipv6", "ipv4"])
def test_ttl_security(ground: Ground, spine: Spine, start: Started, *, ipv6: bool) -> None:
    """RFC 5082: each end sends 255 and takes nothing less."""
    ends: dict[str, Any] = {} if ipv6 else {"address": SPINE4, "local_address": HOST4}
    wanted = Wanted("host") if ipv6 else Wanted("host", SPINE4, HOST4, channels=IPV4)
    secure = Wanted(wanted.name, wanted.local, wanted.address, "ttl security on;", wanted.channels)
    spine.sessions = (secure,)
    host = ground.host([spine])
    with_ipv4(host, spine)
    host.configure(peers={"spine": {**ends, "ttl_security": True}})
    agent = start(host)
    agent.want(V4)
    spine.fib.wait(V4)
    # we are not heard where we send less: the system's 64
    before = dropped(spine)
    host.configure(peers={"spine": {**ends, "hold_time": 9}})
    agent.reconfigure(host.config)
    agent.await_(lambda speaker: not speaker.sessions()["spine"].up, "end of the session")
    spine.await_(lambda: dropped(spine) > before, "packets that came too far")
    host.configure(peers={"spine": {**ends, "hold_time": 9, "ttl_security": 1}})
    agent.reconfigure(host.config)
    spine.birdc(
        "restart", "host"
    )  # it waits for the OPEN of a connection whose packets its kernel drops, 4 minutes long
    agent.await_session("spine")
    # and a router is not heard that sends less: BIRD sends 1 to a neighbour on the link
    before = dropped(host)
    spine.have(wanted)
    agent.await_(lambda speaker: not speaker.sessions()["spine"].up, "end of the session")
    spine.await_(lambda: dropped(host) > before, "packets that came too far")


def dropped(node: Node) -> int:
    """Return how many packets a node's kernel has dropped because of IP_MINTTL or IPV6_MINHOPCOUNT."""
    names, numbers = Path(f"/proc/{node.pid}/net/netstat").read_text().splitlines()[:2]
    return int(dict(zip(names.split(), numbers.split(), strict=True))["TCPMinTTLDrop"])


def test_a_wrong_password_is_no_session_and_a_reload_mends_it(ground: Ground, spine: Spine, start: Started) -> None:
    spine.sessions = (Wanted("host", options=f'password "{PASSWORD}";'),)
    host = ground.host([spine], peers={"spine": {"password": "another"}})
    agent = start(host)
    agent.want(V4)
    agent.await_(lambda speaker: speaker.connected, "bridge")
    assert agent.states(V4)["spine"].startswith("no session")
    host.configure(peers={"spine": {"password": PASSWORD}})
    agent.reconfigure(host.config)
    spine.fib.wait(V4)
    assert agent.settled(V4)
    assert PASSWORD not in ground.logs()


def test_several_paths_from_one_router(ground: Ground, spine: Spine, start: Started) -> None:
    """RFC 7911: a router that tells all its paths, not only the best, shows every claim to a jail."""
    channels = BOTH.replace("import all;", "import all; add paths tx;")
    spine.sessions = (Wanted("a"), Wanted("b"), Wanted("c", channels=channels))
    a, b, c = ground.host_each([spine], "a", "b", "c", peers={"spine": {"add_path": True}})
    agents = [start(host) for host in (a, b)]
    listener = start(c)
    for number, agent in enumerate(agents, 1):
        agent.want(V4, V6, attributes=Attributes(large_communities=(f"65000:1:{number}",)))

    def claims(speaker: Speaker) -> list[list[str]]:
        return [
            sorted(path.attributes["large-community"][0][-1] for path in speaker.paths(prefix).get("spine", []))
            for prefix in (V4, V6)
        ]

    listener.await_(lambda speaker: claims(speaker) == [["1", "2"]] * 2, "both paths")
    # a bridge that is started again asks ExaBGP, which still knows them apart
    bridges = listener.speaker.counters.bridges
    os.kill(c.bridge_pid, signal.SIGKILL)
    listener.await_(lambda speaker: speaker.counters.bridges > bridges and speaker.connected, "new bridge")
    assert listener.call(lambda: claims(listener.speaker)) == [["1", "2"]] * 2
    agents[0].unwant(V4, V6)
    listener.await_(lambda speaker: claims(speaker) == [["2"]] * 2, "one path")


# -- a configuration that changes


@dataclass(frozen=True, slots=True)
class Pair:
    """A host with two routers, the second of which is not its peer yet."""

    host: Host
    stays: Spine
    other: Spine
    agent: Agent


@pytest.fixture
def pair(ground: Ground, start: Started) -> Pair:
    stays, other = ground.router(Spine, "stays"), ground.router(Spine, "other")
    host = ground.host([stays, other], without=["other"])
    agent = start(host)
    agent.want(V4, V6)
    for prefix in (V4, V6):
        stays.fib.wait(prefix)
    assert agent.settled(V4, V6)
    stays.await_complete()
    return Pair(host, stays, other, agent)


def heard(spine: Spine) -> tuple[Seen, str]:
    """Return all by which a router would show that its session was touched: UPDATEs, and when it came up."""
    # BIRD works out the time of day anew each time, and the last digits differ
    return spine.seen(), re.sub(r"\.\d+", "", spine.birdc("show", "protocols", "host").splitlines()[-1])


def test_a_peer_comes_and_goes_and_the_other_hears_nothing(pair: Pair) -> None:
    host, agent = pair.host, pair.agent
    before, commands = heard(pair.stays), agent.speaker.counters.commands
    host.configure()
    assert agent.reconfigure(host.config)
    for prefix in (V4, V6):
        pair.other.fib.wait(prefix)
    assert agent.settled(V4, V6)
    assert agent.states(V4) == {"stays": "announced", "other": "announced"}
    pair.other.await_complete()
    host.configure(without=["other"])
    assert agent.reconfigure(host.config)
    # graceful restart would keep them: ExaBGP ends the session without a word
    for prefix in (V4, V6):
        pair.other.fib.wait(prefix, gone=True)
    assert agent.states(V4) == {"stays": "announced"}
    assert list(agent.speaker.sessions()) == ["stays"]
    # and back, as if it had never been known
    host.configure()
    assert agent.reconfigure(host.config)
    pair.other.fib.wait(V4)
    assert agent.settled(V4, V6)
    assert heard(pair.stays) == before
    assert agent.speaker.counters.commands == commands + 6  # each family comes, goes, and comes


def test_a_changed_peer_resets_alone_and_keeps_its_routes(pair: Pair) -> None:
    host, agent = pair.host, pair.agent
    host.configure()
    agent.reconfigure(host.config)
    pair.other.fib.wait(V4)
    assert agent.settled(V4, V6)
    pair.other.await_complete()
    pair.other.fib.changes.clear()
    before = heard(pair.stays)
    host.configure(peers={"other": {"hold_time": 9}})
    assert agent.reconfigure(host.config)
    pair.other.await_(lambda: "hold=9" in pair.other.processes[0].log.read_text(), "OPEN with another hold time")
    agent.await_session("other")
    assert agent.settled(V4, V6)
    agent.want(OTHER4)
    pair.other.fib.wait(OTHER4)
    assert not any(change.gone for change in pair.other.fib.changes)
    pair.stays.fib.wait(OTHER4)
    assert heard(pair.stays) == (Seen(before[0].updates + 1, before[0].withdraws), before[1])


def test_a_family_goes_and_comes_back(pair: Pair) -> None:
    """ExaBGP forgets the routes of a family that it does not carry (rib/cache.py, `delete_cached_family`)."""
    host, agent = pair.host, pair.agent
    host.configure()
    agent.reconfigure(host.config)
    pair.other.fib.wait(V6)
    assert agent.settled(V4, V6)
    before = heard(pair.stays)
    host.configure(peers={"other": {"families": ["ipv6"], "add_path": True}})
    agent.reconfigure(host.config)
    pair.other.fib.wait(V4, gone=True)
    agent.await_session("other")
    assert agent.states(V4) == {"stays": "announced", "other": "left out: the peer's families leave IPv4 out"}
    assert agent.settled(V4, V6)
    host.configure()
    agent.reconfigure(host.config)
    pair.other.fib.wait(V4)
    pair.other.fib.wait(V6)
    assert agent.settled(V4, V6)
    assert heard(pair.stays) == before


def test_a_peer_that_becomes_another_is_told_anew(pair: Pair) -> None:
    """Another address of ours makes another neighbor for ExaBGP: its routes have to be announced again."""
    host, agent = pair.host, pair.agent
    host.configure()
    agent.reconfigure(host.config)
    pair.other.fib.wait(V4)
    assert agent.settled(V4, V6)
    before = heard(pair.stays)
    new = pair.other.links[0].host_address + "1"
    host.run("ip", "address", "add", f"{new}/64", "dev", f"up{pair.other.number}", "nodad")
    pair.other.have(Wanted("host", address=new))
    host.configure(peers={"other": {"local_address": new}})
    assert agent.reconfigure(host.config)
    for prefix in (V4, V6):
        pair.other.fib.wait(prefix, via=new)
    assert agent.settled(V4, V6)
    pair.other.await_complete()
    assert heard(pair.stays) == before


def test_the_next_hop_changes_without_a_reset(pair: Pair) -> None:
    host, agent = pair.host, pair.agent
    new = pair.stays.links[0].host_address + "1"
    host.run("ip", "address", "add", f"{new}/64", "dev", f"up{pair.stays.number}", "nodad")
    before = heard(pair.stays)
    host.configure(peers={"stays": {"next_hop_ipv6": new}}, without=["other"])
    assert agent.reconfigure(host.config)
    pair.stays.fib.wait(V6, via=new)
    pair.stays.fib.wait(V4, via=new)
    assert heard(pair.stays)[1] == before[1]


def test_prefixes_are_allowed_and_no_more(pair: Pair) -> None:
    host, agent = pair.host, pair.agent
    before = heard(pair.stays)
    with pytest.raises(ValueError, match=r"not among host\.allowed"):
        agent.want("203.0.113.7/32")
    host.configure(without=["other"], allowed=["203.0.113.0/24", "2001:db8::/32"])
    agent.reconfigure(host.config)
    pair.stays.fib.wait(V4, gone=True)
    agent.want("203.0.113.7/32")
    pair.stays.fib.wait("203.0.113.7/32")
    assert pair.stays.fib.has(V6)
    with pytest.raises(ValueError, match=r"not among host\.allowed"):
        agent.want(V4)
    assert heard(pair.stays) == (Seen(before[0].updates + 1, before[0].withdraws + 1), before[1])


def test_no_reload_while_routes_wait_for_a_peer_that_is_down(pair: Pair) -> None:
    """ExaBGP says "reload in progress", forgets it, and would say the same for ever: it is asked until it has done it."""
    host, agent = pair.host, pair.agent
    host.configure()
    agent.reconfigure(host.config)
    pair.other.fib.wait(V4)
    assert agent.settled(V4, V6)
    # nothing answers any more: what is refused, or unreachable, ExaBGP would soon take as the end of a session
    neighbour = [pair.other.links[0].router_address, "dev", f"up{pair.other.number}"]
    host.run("ip", "neighbour", "replace", *neighbour, "lladdr", "02:00:00:00:00:01", "nud", "permanent")
    pair.other.birdc("restart", "host")
    agent.await_(lambda speaker: not speaker.sessions()["other"].up, "end of the session")
    agent.unwant(V4)  # this waits in ExaBGP for the session
    assert agent.settled(V4)
    before = heard(pair.stays)
    host.configure(peers={"stays": {"hold_time": 99}})
    with pytest.raises(SpeakerError, match=r"routes wait for a peer without a session \(other\)"):
        agent.reconfigure(host.config, within=1.0)
    assert agent.speaker.outdated
    agent.want(OTHER4)  # all else goes on meanwhile
    pair.stays.fib.wait(OTHER4)
    assert heard(pair.stays)[1] == before[1]
    host.run("ip", "neighbour", "del", *neighbour)
    pair.other.fib.wait(OTHER4)
    agent.await_(lambda speaker: not speaker.outdated, "reload")
    pair.stays.await_(lambda: "hold=99" in pair.stays.processes[0].log.read_text(), "OPEN with another hold time")
    assert not pair.other.fib.has(V4)


def test_a_reload_outlives_the_bridge_and_the_agent(pair: Pair) -> None:
    host, agent = pair.host, pair.agent
    before = heard(pair.stays)
    os.kill(host.bridge_pid, signal.SIGSTOP)
    host.configure()
    with pytest.raises(SpeakerError, match="has not read"):
        agent.reconfigure(host.config, within=0.2)
    os.kill(host.bridge_pid, signal.SIGKILL)
    pair.other.fib.wait(V4)  # by the next bridge
    assert agent.settled(V4, V6)
    assert heard(pair.stays) == before


def test_exabgp_that_does_not_run_reads_it_at_its_start(pair: Pair) -> None:
    host, agent = pair.host, pair.agent
    host.kill_exabgp()
    agent.await_(lambda speaker: not speaker.connected, "end of the bridge")
    host.configure()
    assert not agent.reconfigure(host.config)
    host.start_exabgp()
    pair.other.fib.wait(V4)
    assert agent.settled(V4, V6)
    assert not agent.speaker.outdated


def test_an_agent_started_on_a_changed_file_says_that_exabgp_runs_with_another(pair: Pair) -> None:
    pair.agent.wait(pair.agent.speaker.close())
    before = heard(pair.stays)
    pair.host.configure()
    with pair.host.agent() as agent:
        agent.want(V4, V6)
        agent.await_(lambda speaker: speaker.connected, "bridge")
        assert agent.speaker.outdated
        agent.open()
        pair.stays.fib.wait(V4)
        assert agent.reconfigure(pair.host.config)
        assert not agent.speaker.outdated
        pair.other.fib.wait(V4)
        assert heard(pair.stays) == before
