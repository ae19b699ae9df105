"""The agent's BGP half, the real bridge, the real ExaBGP, and BIRD 2 as the fabric."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from mobility.bgp.bridge import Lines
from mobility.bgp.run import account
from mobility.model import Attributes
from tests.interop.ground import SYSTEM_PYTHON, Agent, Ground, Host
from tests.interop.node import WAIT
from tests.interop.routers.bird import Bird, Seen

V4, V6 = "198.51.100.7/32", "2001:db8:7::7/128"
OTHER4, OTHER6 = "198.51.100.8/32", "2001:db8:7::8/128"


@pytest.fixture
def spine(ground: Ground) -> Bird:
    return ground.router(Bird, "spine")


@pytest.fixture
def host(ground: Ground, spine: Bird) -> Host:
    host = ground.host([spine])
    host.start_exabgp()
    return host


@pytest.fixture
def agent(host: Host) -> Iterator[Agent]:
    with host.agent() as agent:
        agent.open()
        agent.await_session("spine")
        yield agent


def gone(router: Bird, prefix: str) -> bool:
    router.fib.routes()
    return any(change.gone and change.prefix == prefix for change in router.fib.changes)


def test_both_families_come_and_go(spine: Bird, agent: Agent) -> None:
    agent.want(V4, V6)
    spine.fib.wait(V4, via=spine.host_address)  # RFC 8950: an IPv4 route over an IPv6 next hop
    spine.fib.wait(V6, via=spine.host_address)
    assert agent.settled(V4, V6)
    assert agent.states(V4) == {"spine": "announced"}
    agent.unwant(V4)
    spine.fib.wait(V4, gone=True)
    assert agent.settled(V4)
    assert agent.states(V4) == {"spine": "not announced"}
    assert spine.fib.has(V6)


def test_attributes_arrive_and_change_without_a_gap(spine: Bird, agent: Agent) -> None:
    agent.want(V4, attributes=Attributes(large_communities=("65000:1:7",), med=4294967288))
    spine.fib.wait(V4)
    spine.fib.changes.clear()
    agent.want(V4, attributes=Attributes(communities=("65535:0",), large_communities=("65000:1:8",), med=7))
    assert agent.settled(V4)
    agent.want(OTHER4)
    spine.fib.wait(OTHER4)  # what was sent before it has arrived too
    text = spine.routes_to(V4)
    assert "(65535,0)" in text
    assert "(65000, 1, 8)" in text
    assert "BGP.med: 7\n" in text
    assert not gone(spine, V4)


def test_agent_restart_is_silent(host: Host, spine: Bird) -> None:
    with host.agent() as first:
        first.open()
        first.want(V4, V6)
        for prefix in (V4, V6):
            spine.fib.wait(prefix)
        assert first.settled(V4, V6)
    before = spine.seen()
    with host.agent() as second:
        second.await_(lambda speaker: speaker.connected, "bridge")
        assert second.speaker.counts()["acknowledged"] == 2  # and not withdrawn, though nobody wants them yet
        second.want(V4, V6)
        assert second.settled(V4, V6)
        second.open()
        second.want(OTHER4)
        spine.fib.wait(OTHER4)
        assert second.speaker.counters.commands == 1
    assert spine.seen() == Seen(before.updates + 1, before.withdraws)


def test_what_vanished_while_no_agent_ran_is_withdrawn_after_the_first_look(host: Host, spine: Bird) -> None:
    with host.agent() as first:
        first.open()
        first.want(V4, V6)
        assert first.settled(V4, V6)
        spine.fib.wait(V4)
    with host.agent() as second:
        second.want(V6)
        second.await_(lambda speaker: speaker.connected, "bridge")
        assert spine.fib.has(V4)
        second.open()
        spine.fib.wait(V4, gone=True)
        assert second.settled(V4, V6)
        assert spine.fib.has(V6)


def test_somebody_who_knows_may_withdraw_before_the_first_look(host: Host, spine: Bird) -> None:
    with host.agent() as first:
        first.open()
        first.want(V4, V6)
        assert first.settled(V4, V6)
        for prefix in (V4, V6):  # acknowledged is not yet arrived
            spine.fib.wait(prefix)
    with host.agent() as second:
        second.unwant(V4)
        spine.fib.wait(V4, gone=True)
        assert second.settled(V4)
        assert spine.fib.has(V6)


def test_exabgp_killed_graceful_restart_keeps_the_routes(host: Host, spine: Bird, agent: Agent) -> None:
    agent.want(V4, V6, OTHER4)
    assert agent.settled(V4, V6, OTHER4)
    for prefix in (V4, V6, OTHER4):
        spine.fib.wait(prefix)
    spine.fib.changes.clear()
    host.kill_exabgp()
    agent.await_(lambda speaker: not speaker.connected, "end of the bridge")
    assert agent.states(V4)["spine"].startswith("no bridge")
    agent.unwant(OTHER4)
    host.start_exabgp()
    # what is no longer wanted was never announced in this life: the end-of-RIB takes it out of the fabric
    spine.fib.wait(OTHER4, gone=True)
    assert agent.settled(V4, V6)
    assert agent.states(V6) == {"spine": "announced"}
    assert not gone(spine, V4)
    assert not gone(spine, V6)


def test_exabgp_killed_without_graceful_restart_comes_back(ground: Ground, spine: Bird) -> None:
    """Reconnect, and all routes again: the gap is as long as that takes."""
    host = ground.host([spine], graceful_restart=0)
    host.start_exabgp()
    with host.agent() as agent:
        agent.open()
        agent.want(V4, V6)
        for prefix in (V4, V6):
            spine.fib.wait(prefix)
        assert agent.settled(V4, V6)
        host.kill_exabgp()
        for prefix in (V4, V6):
            spine.fib.wait(prefix, gone=True)
        host.start_exabgp()
        for prefix in (V4, V6):
            spine.fib.wait(prefix)
        assert agent.settled(V4, V6)


def test_exabgp_killed_again_and_again_inside_the_restart_time(host: Host, spine: Bird, agent: Agent) -> None:
    agent.want(V4, V6)
    assert agent.settled(V4, V6)
    for prefix in (V4, V6):
        spine.fib.wait(prefix)
    spine.fib.changes.clear()
    for number in range(2, 5):
        host.kill_exabgp()
        agent.await_(lambda speaker: not speaker.connected, "end of the bridge")
        host.start_exabgp()
        # all was announced, the end-of-RIB perhaps not
        await_session_number(spine, number)
        await_updates(spine, 2 * number)
    assert agent.settled(V4, V6)
    agent.want(OTHER4)
    spine.fib.wait(OTHER4)
    spine.await_complete()
    assert not gone(spine, V4)
    assert not gone(spine, V6)


def await_updates(spine: Bird, number: int) -> None:
    """Wait for so many updates; BIRD counts on over a graceful restart."""
    spine.await_(lambda: spine.seen().updates == number, f"{number} updates")


def await_session_number(spine: Bird, number: int) -> None:
    """Wait for the host's so-manieth session, be it one that a graceful restart is not over in."""
    log = spine.processes[0].log
    spine.await_(lambda: log.read_text().count("host: BGP session established") == number, f"session {number}")


def test_exabgp_killed_again_before_it_has_announced(host: Host, spine: Bird) -> None:
    """RFC 4724, section 4.2: what is still stale at the next restart, the router has to delete. It comes with the next."""
    with host.agent() as agent:
        agent.open()
        agent.want(V4, V6)
        assert agent.settled(V4, V6)
        for prefix in (V4, V6):
            spine.fib.wait(prefix)
    host.kill_exabgp()
    host.start_exabgp()  # it has nobody to tell it what to announce
    await_session_number(spine, 2)
    assert spine.fib.has(V4)
    host.kill_exabgp()
    for prefix in (V4, V6):
        spine.fib.wait(prefix, gone=True)
    host.start_exabgp()
    with host.agent() as agent:
        agent.want(V4, V6)
        agent.open()
        for prefix in (V4, V6):
            spine.fib.wait(prefix)


def await_session_after(agent: Agent, since: float) -> None:
    """Wait for a session that came up after another."""
    agent.await_(
        lambda speaker: speaker.sessions()["spine"].up and speaker.sessions()["spine"].since > since, "next session"
    )


def test_the_session_flaps_a_hundred_times(host: Host, spine: Bird, agent: Agent) -> None:
    agent.want(V4, V6)
    assert agent.settled(V4, V6)
    for prefix in (V4, V6):
        spine.fib.wait(prefix)
    spine.fib.changes.clear()
    commands, bridges = agent.speaker.counters.commands, agent.speaker.counters.bridges
    for _ in range(100):
        since = agent.speaker.sessions()["spine"].since
        spine.birdc("restart", "host")
        await_session_after(agent, since)
    for prefix in (V4, V6):
        spine.fib.wait(prefix)
    assert agent.settled(V4, V6)
    agent.unwant(V6)
    agent.want(OTHER4)
    spine.fib.wait(OTHER4)
    spine.fib.wait(V6, gone=True)
    assert spine.routes() == 2
    # ExaBGP itself has sent everything again each time, and nobody else had anything to do
    assert agent.speaker.counters.commands == commands + 2
    assert agent.speaker.counters.bridges == bridges


def test_no_end_of_rib_before_everything_was_said(host: Host, spine: Bird) -> None:
    with host.agent() as first:
        first.open()
        first.want(V4)
        assert first.settled(V4)
        spine.fib.wait(V4)
    spine.fib.changes.clear()
    host.kill_exabgp()
    host.start_exabgp()
    with host.agent() as second:
        second.await_session("spine")
        second.want(OTHER4)  # one of two jails has been looked at
        assert second.settled(OTHER4)
        spine.fib.wait(OTHER4)
        assert not gone(spine, V4)
        second.open()
        spine.fib.wait(V4, gone=True)


def test_bridge_killed_nothing_changes_and_nothing_is_forgotten(host: Host, spine: Bird, agent: Agent) -> None:
    communities = (
        "bgp_large_community.add((65000,1,7)); bgp_community.add((65001,5)); bgp_community.add((65535,65281));"
    )
    spine.configure(static4=f"route 10.9.0.0/24 blackhole {{ {communities} }};")
    agent.await_(lambda speaker: "10.9.0.0/24" in speaker.received()["spine"], "route from the spine")
    told = agent.speaker.received()["spine"]["10.9.0.0/24"]
    assert told.attributes["large-community"] == ["65000:1:7"]
    assert told.attributes["community"] == ["65001:5", "65535:65281"]
    agent.want(V4, V6, OTHER6)
    for prefix in (V4, V6, OTHER6):
        spine.fib.wait(prefix)
    before = spine.seen()
    bridges = agent.speaker.counters.bridges
    os.kill(host.bridge_pid, signal.SIGKILL)
    agent.await_(lambda speaker: not speaker.connected or speaker.counters.bridges > bridges, "end of the bridge")
    agent.unwant(OTHER6)
    agent.await_(lambda speaker: speaker.connected and speaker.counters.bridges > bridges, "new bridge")
    assert agent.settled(V4, V6, OTHER6)
    spine.fib.wait(OTHER6, gone=True)
    assert spine.seen() == Seen(before.updates, before.withdraws + 1)
    assert agent.states(V4) == {"spine": "announced"}
    agent.want(OTHER4)  # what the peer takes is still known
    spine.fib.wait(OTHER4)
    assert agent.speaker.received()["spine"]["10.9.0.0/24"].attributes == told.attributes


def test_bridge_and_agent_gone_together(host: Host, spine: Bird) -> None:
    with host.agent() as first:
        first.open()
        first.want(V4, V6, attributes=Attributes(communities=("65535:65281", "65001:5"), med=3))
        for prefix in (V4, V6):
            spine.fib.wait(prefix)
        assert first.settled(V4, V6)
    before = spine.seen()
    os.kill(host.bridge_pid, signal.SIGKILL)
    with host.agent() as second:
        second.want(V4, V6, attributes=Attributes(communities=("65001:5", "65535:65281"), med=3))
        second.open()
        assert second.settled(V4, V6)
        assert second.speaker.counters.commands == 0  # what ExaBGP says of its routes reads as we would say it
    assert spine.seen() == before


@pytest.mark.parametrize("own_as", [65001, 65000], ids=["eBGP", "iBGP"])
def test_all_attributes_outlive_bridge_and_agent_in_silence(ground: Ground, own_as: int) -> None:
    spine = ground.router(Bird, "spine")
    host = ground.host([spine], "host", **{"as": own_as})
    spine.run("ip", "address", "add", "203.0.113.2/24", "dev", "host0")
    host.start_exabgp()
    given = Attributes(
        communities=("65001:5", "65535:65281"),
        large_communities=("65000:1:7", "65000:1:6"),
        extended_communities=("target:4200000000:7", "origin:65000:7", "bandwidth:65000:125000000"),
        med=3,
        local_preference=700,
        prepend=2,
        next_hop_ipv4="203.0.113.9",
        next_hop_ipv6=f"{spine.host_address}9",
    )
    with host.agent() as first:
        first.open()
        first.want(V4, V6, attributes=given)
        spine.fib.wait(V4, via="203.0.113.9")
        spine.fib.wait(V6, via=f"{spine.host_address}9")
        assert first.settled(V4, V6)
    before = spine.seen()
    os.kill(host.bridge_pid, signal.SIGKILL)
    with host.agent() as second:
        second.want(V4, V6, attributes=given)
        second.open()
        assert second.settled(V4, V6)
        assert second.speaker.counters.commands == 0
        assert spine.seen() == before
        second.unwant(V4, V6)  # a withdrawal has to say again all that was announced
        assert second.settled(V4, V6)
        spine.fib.wait(V4, gone=True)
        spine.fib.wait(V6, gone=True)


def test_no_more_is_announced_than_may_be(ground: Ground) -> None:
    spine = ground.router(Bird, "spine")
    host = ground.host([spine], max_announcements=2)
    host.start_exabgp()
    with host.agent() as first:
        first.open()
        first.want(V4, V6, OTHER4)
        spine.fib.wait(V4)
        spine.fib.wait(V6)
        assert first.settled(V4, V6)
        assert first.states(OTHER4) == {"spine": "refused: bgp.max_announcements = 2 are announced"}
        assert not spine.fib.has(OTHER4)
    before = spine.seen()
    with host.agent() as second:  # in another order: what is announced stays
        second.want(OTHER4, V6, V4)
        second.open()
        assert second.settled(V4, V6)
        assert spine.seen() == before
        assert second.states(OTHER4)["spine"].startswith("refused")
        second.unwant(V4)
        spine.fib.wait(OTHER4)
        assert second.settled(V4, V6, OTHER4)
        assert not spine.fib.has(V4)


def test_bridge_killed_while_exabgp_writes_to_it(host: Host, spine: Bird, agent: Agent) -> None:
    agent.want(V4)
    spine.fib.wait(V4)
    before = spine.seen()
    spine.configure(
        static4="".join(
            f"route 10.{n >> 8}.{n & 255}.0/24 blackhole {{ bgp_large_community.add((65000,{n},1)); }};"
            for n in range(5000)
        )
    )
    agent.await_(lambda speaker: len(speaker.received()["spine"]) > 100, "first routes")
    os.kill(host.bridge_pid, signal.SIGKILL)
    agent.await_(lambda speaker: len(speaker.received()["spine"]) == 5000 and speaker.connected, "all routes")
    assert agent.states(V4) == {"spine": "announced"}
    assert spine.seen() == before


def test_peer_without_rfc8950_keeps_its_session(ground: Ground) -> None:
    new, old = ground.router(Bird, "new"), ground.router(Bird, "old", rfc8950=False)
    host = ground.host([new, old])
    host.start_exabgp()
    with host.agent() as agent:
        agent.open()
        agent.want(V4, V6)
        old.fib.wait(V6)
        new.fib.wait(V4)
        assert agent.settled(V4, V6)
        states = agent.states(V4)
        assert states["new"] == "announced"
        assert states["old"].startswith("held back: the peer takes no IPv6 next hops")
        assert not old.fib.has(V4)
        assert agent.call(agent.speaker.counts)["held_back"] == 1
        # the router learns it, then forgets it again: the routes follow, at most one session is lost
        old.configure(rfc8950=True)
        old.fib.wait(V4)
        old.configure(rfc8950=False)
        old.fib.wait(V4, gone=True)
        agent.await_(lambda speaker: speaker.sessions()["old"].rfc8950 is False, "OPEN without RFC 8950")
        agent.await_session("old")
        old.fib.wait(V6)
        old.fib.wait(V4, gone=True)


def test_peer_without_rfc8950_gets_its_own_next_hop(ground: Ground) -> None:
    old = ground.router(Bird, "old", rfc8950=False)
    host = ground.host([old], peers={"old": {"next_hop_ipv4": "203.0.113.1"}})
    old.run("ip", "address", "add", "203.0.113.2/24", "dev", "host0")
    host.start_exabgp()
    with host.agent() as agent:
        agent.open()
        agent.want(V4, V6)
        old.fib.wait(V4, via="203.0.113.1")
        old.fib.wait(V6, via=old.host_address)
        assert agent.settled(V4, V6)  # a route can be there before ExaBGP's word for it
        assert agent.states(V4) == {"old": "announced"}


def test_spine_restarted(spine: Bird, agent: Agent) -> None:
    agent.want(V4, V6)
    assert agent.settled(V4, V6)
    spine.stop()
    agent.await_(lambda speaker: not speaker.sessions()["spine"].up, "end of the session")
    assert agent.states(V4)["spine"].startswith("no session")
    agent.want(OTHER4)
    agent.unwant(V6)
    spine.start()
    spine.fib.wait(V4)
    spine.fib.wait(OTHER4)
    assert agent.settled(V4, V6, OTHER4)
    assert not spine.fib.has(V6)


def test_nothing_leaks_from_a_time_without_session(spine: Bird, agent: Agent) -> None:
    agent.want(V4)
    spine.fib.wait(V4)
    spine.birdc("disable", "host")
    agent.await_(lambda speaker: not speaker.sessions()["spine"].up, "end of the session")
    agent.unwant(V4)
    agent.want(V4)
    agent.unwant(V4)
    agent.want(V6)
    assert agent.settled(V4)
    spine.birdc("enable", "host")
    spine.fib.wait(V6)
    assert not spine.fib.has(V4)


def test_every_order_of_changes_ends_where_it_should(spine: Bird, agent: Agent) -> None:
    """ExaBGP sends its changes grouped by attributes, not in their order: see bridge.py."""
    dice = random.Random(7)
    last_of_all = "198.51.100.200/32"
    prefixes = [f"198.51.100.{number}/32" for number in range(1, 9)] + [f"2001:db8::{n}/128" for n in range(1, 9)]
    choices = [Attributes(), Attributes(communities=("65535:0",)), Attributes(large_communities=("65000:1:9",))]
    agent.want(last_of_all)
    for _ in range(150):
        for prefix in dice.sample(prefixes, 5):
            if dice.random() < 0.5:
                agent.want(prefix, attributes=dice.choice(choices))
            else:
                agent.unwant(prefix)
    last = {prefix: dice.choice([None, *choices]) for prefix in prefixes}
    for prefix, attributes in last.items():
        if attributes is None:
            agent.unwant(prefix)
        else:
            agent.want(prefix, attributes=attributes)
    assert agent.settled(*prefixes)
    agent.unwant(last_of_all)
    spine.fib.wait(last_of_all, gone=True)
    for prefix, attributes in last.items():
        shown = spine.routes_to(prefix)
        assert ("unicast" in shown) == (attributes is not None), (prefix, shown)
        if attributes is not None:
            assert ("(65535,0)" in shown) == bool(attributes.communities), (prefix, shown)
            assert ("(65000, 1, 9)" in shown) == bool(attributes.large_communities), (prefix, shown)


def test_ten_thousand_routes(host: Host, spine: Bird) -> None:
    ipv4 = [f"10.1.{number >> 8}.{number & 255}/32" for number in range(5000)]
    ipv6 = [f"2001:db8:8::{number:x}/128" for number in range(5000)]
    with host.agent() as first:
        first.open()
        first.want(*ipv4, *ipv6)
        assert first.settled(*ipv4, *ipv6)
        spine.fib.wait(ipv6[-1])
        assert spine.routes() == 10_000
    before = spine.seen()
    with host.agent() as second:
        second.want(*ipv4, *ipv6)
        second.open()
        assert second.settled(*ipv4, *ipv6)
        assert second.speaker.counters.commands == 0
        assert spine.seen() == before
        second.unwant(*ipv4, *ipv6)
        assert second.settled(*ipv4, *ipv6)
        spine.fib.wait(ipv6[-1], gone=True)
        assert spine.routes() == 0


def test_fail_static_ends(ground: Ground, spine: Bird) -> None:
    host = ground.host([spine], fail_static_for=1)
    host.start_exabgp()
    with host.agent() as agent:
        agent.open()
        agent.want(V4, V6)
        spine.fib.wait(V4)
        assert agent.settled(V4, V6)
    assert spine.fib.has(V4)
    spine.fib.wait(V4, gone=True)
    spine.fib.wait(V6, gone=True)
    with host.agent() as back:
        back.want(V4)
        spine.fib.wait(V4)


def test_exabgp_that_hangs_is_forgiven(host: Host, spine: Bird, agent: Agent) -> None:
    os.kill(host.exabgp_pid, signal.SIGSTOP)
    try:
        many = [f"10.2.{number >> 8}.{number & 255}/32" for number in range(2000)]
        agent.want(V4, *many)
        assert not agent.settled(V4, within=0.2)
        assert agent.states(V4) == {"spine": "sending"}
        agent.unwant(V4)  # changed while nothing moves
    finally:
        os.kill(host.exabgp_pid, signal.SIGCONT)
    assert agent.settled(V4, *many)
    spine.fib.wait(many[-1])
    assert not spine.fib.has(V4)


def test_bridge_that_hangs_while_the_spine_talks(host: Host, spine: Bird, agent: Agent) -> None:
    """ExaBGP blocks on a full pipe to its process; all must flow again when that reads again."""
    routes = "".join(f"route 10.{n >> 8}.{n & 255}.0/24 blackhole;" for n in range(2000))
    os.kill(host.bridge_pid, signal.SIGSTOP)
    try:
        spine.configure(static4=routes)
        spine.processes[0].await_(
            lambda: "2000 exported" in spine.birdc("show", "protocols", "all", "host"), "export", WAIT
        )
    finally:
        os.kill(host.bridge_pid, signal.SIGCONT)
    agent.await_(lambda speaker: len(speaker.received()["spine"]) == 2000, "2,000 routes")
    agent.want(V4)
    spine.fib.wait(V4)


def test_password(ground: Ground) -> None:
    spine = ground.router(Bird, "spine", password="s3cret#(1)")
    host = ground.host([spine], peers={"spine": {"password": "s3cret#(1)"}})
    host.start_exabgp()
    with host.agent() as agent:
        agent.open()
        agent.want(V4)
        spine.fib.wait(V4)
    written = host.config.paths.run / "exabgp.conf"
    assert written.stat().st_mode & 0o777 == 0o600
    assert written.stat().st_uid == account("nobody").pw_uid


CALLER = """
import os, socket, sys
os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[1]))
link = socket.socket(socket.AF_UNIX); link.connect(sys.argv[3])
sys.exit(0 if link.recv(1) == b"" else 1)
"""


def test_only_root_and_exabgps_user_are_heard(host: Host, agent: Agent) -> None:
    agent.await_(lambda speaker: speaker.connected, "bridge")
    group = str(account("nobody").pw_gid)
    argv = [SYSTEM_PYTHON, "-c", CALLER, "12345", group, str(host.config.bridge_socket)]
    subprocess.run(argv, check=True)
    assert agent.speaker.counters.intruders == 1
    outsider = subprocess.run([*argv[:4], "12345", *argv[5:]], capture_output=True, text=True, check=False)
    assert "PermissionError" in outsider.stderr  # another group can not even enter the folder
    agent.want(V4)
    assert agent.settled(V4)


class FakeAgent:
    """Speaks to the bridge without a Speaker: says what a Speaker never would."""

    def __init__(self, host: Host) -> None:
        folder = host.config.bridge_socket.parent
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(host.config.bridge_socket))
        host.config.bridge_socket.chmod(0o777)
        self._listener.listen()
        self._listener.settimeout(WAIT)
        self._lines = Lines()
        self._heard: list[dict[str, Any]] = []

    def accept(self) -> None:
        self._link, _ = self._listener.accept()
        self._link.settimeout(WAIT)
        self._lines = Lines()
        self._heard.clear()

    def say(self, **message: Any) -> None:
        self._link.sendall(json.dumps(message).encode() + b"\n")

    def hear(self, key: str) -> dict[str, Any]:
        while True:
            for number, message in enumerate(self._heard):
                if key in message:
                    del self._heard[: number + 1]
                    return message
            data = self._link.recv(1 << 16)
            assert data, f"the bridge hung up before it said {key}"
            self._heard += [json.loads(line) for line in self._lines.add(data)]

    def hung_up(self) -> bool:
        while data := self._link.recv(1 << 16):
            self._lines.add(data)
        return True


def test_what_exabgp_refuses_is_told_and_harms_nothing(host: Host, spine: Bird) -> None:
    fake = FakeAgent(host)
    fake.accept()
    while fake.hear("session")["state"] != "up":
        pass
    order = {"do": "announce", "peer": spine.address, "prefixes": [V4]}
    fake.say(id=1, attributes="next-hop 999.1.1.1", **order)
    fake.say(id=2, attributes=f"next-hop {spine.host_address}", **order)
    assert fake.hear("error")["error"] == 1
    assert fake.hear("done")["done"] == 2
    spine.fib.wait(V4)
    fake.say(id=3, attributes="next-hop ::1 nlri 0.0.0.0/0\nshutdown", **order)
    assert "are no attributes" in fake.hear("error")["text"]
    fake.say(id=4, do="shutdown", peer=spine.address, attributes="next-hop ::1", prefixes=[V4])
    assert fake.hear("error")["error"] == 4
    fake.say(nonsense=True)  # what a later agent may say
    fake.say(id="x", do="announce")
    assert fake.hung_up()
    fake.accept()
    assert fake.hear("book")["prefixes"] == [V4]
    assert spine.fib.has(V4)


def test_orders_that_leave_in_one_turn_end_as_ordered(host: Host, spine: Bird) -> None:
    """With other attributes in the withdrawal, ExaBGP sends it last, and the route is lost: see bridge.py."""
    fake = FakeAgent(host)
    fake.accept()
    while fake.hear("session")["state"] != "up":
        pass
    order = {"peer": spine.address, "attributes": f"next-hop {spine.host_address}"}
    fake.say(id=1, do="announce", prefixes=[V4], **order)
    spine.fib.wait(V4)
    fake.say(id=2, do="announce", prefixes=[OTHER4], **order)
    fake.say(id=3, do="withdraw", prefixes=[V4], **order)
    fake.say(id=4, do="announce", prefixes=[V4], **order)
    fake.say(id=5, do="withdraw", prefixes=[OTHER4], **order)
    fake.say(id=6, do="announce", prefixes=[V6], **order)
    fake.say(id=7, do="withdraw", prefixes=[V6], **order)
    assert [fake.hear("done")["done"] for _ in range(7)] == [1, 2, 3, 4, 5, 6, 7]
    fake.say(id=8, do="announce", prefixes=[OTHER6], **order)
    spine.fib.wait(OTHER6)
    assert spine.fib.has(V4)
    assert not spine.fib.has(OTHER4)
    assert not spine.fib.has(V6)


def test_an_agent_that_floods_is_cut_off_and_learns_the_truth_anew(host: Host, spine: Bird) -> None:
    fake = FakeAgent(host)
    fake.accept()
    while fake.hear("session")["state"] != "up":
        pass
    os.kill(host.exabgp_pid, signal.SIGSTOP)
    try:
        for number in range(1200):
            fake.say(
                id=number,
                do="announce",
                peer=spine.address,
                attributes=f"next-hop {spine.host_address}",
                prefixes=[f"10.3.{number >> 8}.{number & 255}/32"],
            )
    except (BrokenPipeError, ConnectionResetError):
        pass  # already
    finally:
        os.kill(host.exabgp_pid, signal.SIGCONT)
    fake.accept()
    told = fake.hear("book")["prefixes"]
    assert 0 < len(told) < 1000
    spine.fib.wait(told[-1])
    assert spine.routes() == len(told)
