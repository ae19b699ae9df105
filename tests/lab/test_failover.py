"""A gateway pair in which CARP and BGP must agree: what happens to the traffic through it when one of the two goes.

Whatever happens, the client's downloads from the server behind the pair go on: conntrackd tells each gateway the other's
states, as pfsync does. A download from a jail on a gateway that is dead can not.
"""

from __future__ import annotations

import re
import shlex
import signal
import sys
from collections.abc import Iterator

import pytest

from tests.lab.conftest import FAILED
from tests.lab.faults import eventually, new_agent
from tests.lab.ground import SYSTEM_PYTHON, linux_only
from tests.lab.pair import CARP4, CARP6, FLOW, LAN, LANS, SERVER4, SERVERS, SYNC, VHIDS, Pair, Traffic
from tests.lab.topology import REPOSITORY, Host
from tests.readme import DEPLOY
from tests.waiting import until

JAIL, JAIL4 = "web1", "198.51.100.7"
ALONE, ALONE4 = "web2", "198.51.100.8"
DEMOTION = 240
#: CARP's seconds in one. In real time: tests/bench/failover.py.
PACE = 5.0


def stateful(pair: Pair, *, synchronised: bool = True) -> list[Traffic]:
    """Have the pair forward by states, and the client download over both families."""
    pair.filter(synchronised=synchronised)
    downloads = [pair.download(address) for address in SERVERS]
    if synchronised:
        pair.await_states(pair.hosts[1], len(downloads))
    return downloads


def all_right(downloads: list[Traffic]) -> None:
    """Each download must go on, and have had every byte of it."""
    for each in downloads:
        each.goes_on()
    for each in downloads:
        result = each.end()
        assert (result["right"], result["ended"]) == (True, ""), result


def lengths(pair: Pair, host: Host) -> set[int]:
    """Return how long the AS paths are that the spine has from a gateway, for the LAN's prefixes."""
    text = pair.spine.birdc(f"show route all protocol {host.session.name}")
    return {len(words.split()) for words in re.findall(r"BGP\.as_path: ([0-9 ]+)", text)}


def settled(pair: Pair, master: Host) -> None:
    """Wait until one gateway is MASTER and preferred, the other BACKUP and less so."""
    other = pair.other(master)
    pair.await_state(master, "MASTER")
    pair.await_state(other, "BACKUP")
    pair.leads_to(master)
    eventually(lambda: lengths(pair, master) == {1}, "plain path", master)
    eventually(lambda: min(lengths(pair, other), default=0) > 1, "longer path", other)


@pytest.fixture(scope="module")
def standing() -> Iterator[list[Pair]]:
    """The pair that all scenarios share, one after the other; empty while there is none."""
    linux_only("the lab's own kernel plays what is done to CARP and pfsync here")
    pairs: list[Pair] = []
    yield pairs
    for each in pairs:
        each.close()


@pytest.fixture
def pair(standing: list[Pair], request: pytest.FixtureRequest) -> Iterator[Pair]:
    """A pair with its addresses, both agents up, a the MASTER: a new one after a scenario that went wrong."""
    fresh = not standing
    whole = Pair(pace=PACE) if fresh else standing.pop()
    try:
        if fresh:
            whole.carp()
            whole.pfsync()
            whole.start_failover(jails=[JAIL])
        settled(whole, whole.hosts[0])
        yield whole
        if not request.node.stash.get(FAILED, False):
            whole.rest()
            standing.append(whole)
    finally:
        if not standing:
            whole.close()


def test_the_master_is_preferred_and_the_backup_is_the_second_way(pair: Pair) -> None:
    a, b = pair.hosts
    assert all(pair.client.ping(address) for address in SERVERS)
    for host, prefixes in ((a, LANS), (b, LANS)):
        routes = pair.spine.birdc(f"show route protocol {host.session.name}")
        assert all(prefix in routes for prefix in prefixes), routes


def test_a_drain_loses_no_packet_there_and_back(pair: Pair) -> None:
    a, b = pair.hosts
    downloads = stateful(pair)
    for command, master in (("drain", b), ("undrain", a)):
        probe = pair.probe(*SERVERS)
        a.mobility(command)
        pair.await_state(master, "MASTER")
        pair.leads_to(master)
        lost = {address: found["lost"] for address, found in probe.end().items()}
        assert lost == dict.fromkeys(SERVERS, 0)
        assert pair.demotion(a) == (DEMOTION if command == "drain" else 0)
    settled(pair, a)
    all_right(downloads)


def test_a_reboot_in_order_loses_no_packet(pair: Pair) -> None:
    """What rc.shutdown does, and then the power goes."""
    a, b = pair.hosts
    downloads = stateful(pair)
    probe = pair.probe(*SERVERS)
    a.mobility("drain", "--until-boot")
    pair.await_state(b, "MASTER")
    pair.leads_to(b)
    pair.crash(a)
    assert all(found["lost"] == 0 for found in probe.end().values())
    pair.boot(a)
    pair.filter_one(a, synchronised=True)
    pair.await_states(a, len(downloads))
    pair.carp(a)
    pair.pfsync(a)
    pair.start_failover(a, jails=[JAIL])
    assert "drained" not in a.mobility("status").stdout, "it was drained until this boot"
    settled(pair, a)
    assert pair.demotion(a) == 0
    all_right(downloads)


def test_without_preempt_a_drain_moves_nobody_and_says_so(pair: Pair) -> None:
    a, b = pair.hosts
    for host in (a, b):
        host.commands([["sysctl", "net.inet.carp.preempt=0"]])
        eventually(lambda: "preempt" in host.mobility("status").stdout, "word of it", host)  # noqa: B023
    download = pair.download(SERVER4)
    result = a.mobility("drain", check=False)
    assert result.returncode == 1
    assert "net.inet.carp.preempt=1" in a.mobility("status").stdout
    assert pair.demotion(a) == 0
    assert pair.carp_states(a) == dict.fromkeys(VHIDS, "MASTER")
    all_right([download])
    a.mobility("undrain")
    settled(pair, a)


def test_a_jail_that_runs_on_both_goes_with_the_addresses(pair: Pair) -> None:
    a, b = pair.hosts
    for host in (a, b):
        host.define_jail(JAIL, [JAIL4])
        host.start_jail(JAIL)
    for command, master in (("status", a), ("drain", b), ("undrain", a)):
        a.mobility(command)
        pair.await_state(master, "MASTER")
        pair.spine.fib.wait_for(
            lambda: pair.spine.fib.routes().get(f"{JAIL4}/32") == {master.address},  # noqa: B023
            f"way to {JAIL} by {master.name}",
        )
        assert pair.client.ping(JAIL4)


def test_without_the_states_a_download_does_not_survive(pair: Pair) -> None:
    """What the others prove they prove by conntrackd."""
    a, b = pair.hosts
    downloads = stateful(pair, synchronised=False)
    a.mobility("drain")
    pair.await_state(b, "MASTER")
    pair.leads_to(b)
    fresh = pair.download(SERVER4)
    for each in downloads:
        each.ask()
    fresh.goes_on()
    fresh.goes_on()
    assert not any(each.moved for each in downloads)
    a.mobility("undrain")


def test_the_master_dies_and_comes_back(pair: Pair) -> None:
    a, b = pair.hosts
    downloads = stateful(pair)
    a.define_jail(ALONE, [ALONE4], start=f"{SYSTEM_PYTHON} {FLOW} serve >/dev/null 2>&1 </dev/null &")
    a.start_jail(ALONE)
    pair.spine.fib.wait(f"{ALONE4}/32", via=a.address)
    eventually(lambda: a.run(["jexec", ALONE, "nc", "-z", ALONE4, "80"], check=False).returncode == 0, "server", a)
    doomed = pair.download(ALONE4)
    pair.crash(a)
    doomed.ask()
    pair.await_state(b, "MASTER")
    pair.leads_to(b)
    for each in downloads:
        each.goes_on()
    assert not doomed.moved
    pair.boot(a)
    pair.filter_one(a, synchronised=True)
    pair.await_states(a, len(downloads))
    pair.carp(a)
    pair.pfsync(a)
    # its agent is up, its sessions are not: CARP may not leave the addresses to it
    pair.start_agents(a, jails=[JAIL])
    eventually(lambda: pair.demotion(a) == DEMOTION, "demotion of a host without sessions", a)
    pair.await_state(b, "MASTER")
    pair.await_state(a, "BACKUP")
    assert "since the agent's start" in a.mobility("status").stdout
    a.start_exabgp()
    settled(pair, a)
    assert pair.demotion(a) == 0
    all_right(downloads)


def test_a_master_that_dies_behind_a_switch_attracts_packets_until_the_hold_time(pair: Pair) -> None:
    """No link goes down, so the routers wait for its keepalives; graceful restart (120 s) does not keep it longer."""
    a, b = pair.hosts
    downloads = stateful(pair)
    assert lengths(pair, a) == {1}
    pair.crash(a, silent=True)
    pair.await_state(b, "MASTER")
    pair.leads_to(b)
    assert not lengths(pair, a)
    for each in downloads:
        each.goes_on()
    pair.boot(a)
    pair.carp(a)
    pair.pfsync(a)
    pair.start_failover(a, jails=[JAIL])


def test_the_masters_cable_to_the_lan_is_pulled(pair: Pair) -> None:
    a, b = pair.hosts
    downloads = stateful(pair)
    pair.cut(a)
    pair.await_state(a, "INIT")
    pair.await_state(b, "MASTER")
    pair.leads_to(b)
    eventually(lambda: not lengths(pair, a), "withdrawal", a)
    for each in downloads:
        each.goes_on()
    pair.cut(a, cut=False)
    settled(pair, a)
    assert pair.demotion(a) == 0
    all_right(downloads)


def test_a_cable_that_flaps(pair: Pair) -> None:
    a, b = pair.hosts
    for _ in range(5):
        pair.cut(a)
        pair.await_state(a, "INIT")
        pair.cut(a, cut=False)
    settled(pair, a)
    pair.cut(b)
    pair.cut(b, cut=False)
    settled(pair, a)
    assert (pair.demotion(a), pair.demotion(b)) == (0, 0)


def test_the_cable_to_the_spine_is_pulled(pair: Pair) -> None:
    a, b = pair.hosts
    downloads = stateful(pair)
    pair.machine.run(["jexec", "spine", "ifconfig", f"to-{a.name}", "down"])
    pair.leads_to(b)
    pair.await_state(b, "MASTER")
    assert pair.demotion(a) == DEMOTION
    for each in downloads:
        each.goes_on()
    pair.machine.run(["jexec", "spine", "ifconfig", f"to-{a.name}", "up"])
    settled(pair, a)
    assert pair.demotion(a) == 0
    all_right(downloads)


def test_the_masters_exabgp_is_killed(pair: Pair) -> None:
    """The spine holds its routes (RFC 4724), and its kernel forwards: the answers go out through the other."""
    a, b = pair.hosts
    downloads = stateful(pair)
    probe = pair.probe(*SERVERS)
    a.stop_exabgp(signal.SIGKILL)
    pair.await_state(b, "MASTER")
    assert pair.demotion(a) == DEMOTION
    assert all(found["lost"] == 0 for found in probe.end().values())
    eventually(lambda: lengths(pair, b) == {1}, "plain path", b)
    assert lengths(pair, a) == {1}, "beside the new master's, for bgp.graceful_restart seconds at most"
    for each in downloads:
        each.goes_on()
    a.start_exabgp()
    settled(pair, a)
    assert pair.demotion(a) == 0
    all_right(downloads)


def test_the_agent_dies_while_its_host_is_demoted(pair: Pair) -> None:
    a, b = pair.hosts
    a.mobility("drain")
    settled_on = pair.demotion(a)
    assert settled_on == DEMOTION
    new_agent(a)
    pair.await_state(b, "MASTER")
    assert pair.demotion(a) == DEMOTION
    a.stop_agent(signal.SIGKILL)
    a.commands([["sysctl", "net.inet.carp.demotion=7"]])  # somebody else's
    new_agent(a)
    a.mobility("undrain")
    eventually(lambda: pair.demotion(a) == 7, "end of our demotion", a)
    a.commands([["sysctl", "net.inet.carp.demotion=-7"]])
    settled(pair, a)


def test_both_are_switched_on_at_once(pair: Pair) -> None:
    a, _ = pair.hosts
    for host in pair.hosts:
        pair.crash(host)
    for prefix in LANS:
        pair.spine.fib.wait(prefix, gone=True)
    for host in pair.hosts:
        pair.boot(host)
    for host in pair.hosts:
        pair.carp(host)
        pair.pfsync(host)
    pair.start_failover(jails=[JAIL])
    settled(pair, a)
    all_right([pair.download(address) for address in SERVERS])


def test_split_neither_withdraws_and_the_traffic_flows(pair: Pair) -> None:
    a, b = pair.hosts
    downloads = stateful(pair)
    pair.spine.fib.changes.clear()
    pair.split(b)
    pair.await_state(b, "MASTER")
    eventually(lambda: lengths(pair, b) == {1}, "plain path", b)
    assert pair.carp_states(a) == dict.fromkeys(VHIDS, "MASTER")
    for each in downloads:
        each.goes_on()
    pair.split(b, split=False)
    settled(pair, a)
    assert not [change for change in pair.spine.fib.changes if change.gone and not pair.spine.kernel_has(change.prefix)]
    all_right(downloads)


def test_pfsync_never_completes() -> None:
    """A new MASTER is the last choice until pfsync is in step, or a stated time has passed: then it says so."""
    linux_only("the lab's own kernel plays what is done to CARP and pfsync here")
    with Pair("14", pace=2.0) as pair:  # a bulk update is given up after 65 of CARP's seconds
        a, b = pair.hosts
        pair.carp()
        pair.kernel.pfsync(b.name, "hold")
        pair.pfsync()
        pair.await_state(a, "MASTER")
        pair.start_failover()
        settled(pair, a)
        downloads = [pair.download(address) for address in SERVERS]
        pair.crash(a)
        pair.await_state(b, "MASTER")
        assert min(lengths(pair, b)) > 1
        pair.leads_to(b)
        eventually(lambda: lengths(pair, b) == {1}, "plain path", b)
        assert "pfsync" in (b.folder / "agent.log").read_text()
        all_right(downloads)
        drains_alone(pair, b)


def drains_alone(pair: Pair, host: Host) -> None:
    """Nobody takes over what goes with CARP, so it stays; a jail that does not go with it need not wait for that."""
    host.define_jail(ALONE, [ALONE4])
    host.start_jail(ALONE)
    pair.spine.fib.wait(f"{ALONE4}/32", via=host.address)
    draining = host.popen([sys.executable, "-m", "mobility", "drain", "--config", host.config], cwd=REPOSITORY)
    pair.spine.fib.wait(f"{ALONE4}/32", gone=True)
    assert draining.poll() is None, "it still waits for somebody to take over"
    pair.leads_to(host)
    host.mobility("undrain")
    assert draining.wait() != 0
    pair.spine.fib.wait(f"{ALONE4}/32", via=host.address)


def test_the_deployed_files_make_such_a_pair() -> None:
    """deploy/freebsd/failover/rc.conf, read by the lab's rc."""
    linux_only("the lab has rc.conf.d")
    text = (DEPLOY / "freebsd" / "failover" / "rc.conf").read_text()
    with Pair("14", pace=PACE) as pair:
        folder = pair.ground.folder / "rc.conf.d"
        folder.mkdir(exist_ok=True)
        for host in pair.hosts:
            own = text.replace("_ix1", f"_{LAN}").replace("_ix2", f"_{SYNC}").replace("_ix0", f"_up_{host.name}")
            if host.number == 2:
                changes = {
                    "fd00:1::1": "fd00:2::1",
                    "100.34/": "100.35/",
                    ":1a::2/": ":1a::3/",
                    "advskew 0": "advskew 100",
                }
                for old, new in changes.items():
                    assert old in own
                    own = own.replace(old, new)
            (folder / host.name).write_text(own)
            conf = dict(word.split("=", 1) for word in shlex.split(own, comments=True))
            # rc.d/pfsync, pfsync_start()
            pfsync = ["ifconfig", "pfsync0", "syncpeer", conf["pfsync_syncpeer"], "syncdev", SYNC]
            pfsync += [*conf["pfsync_ifconfig"].split(), "up"]
            settings = (DEPLOY / "freebsd" / "failover" / "sysctl.conf").read_text().splitlines()
            sysctls = [["sysctl", line] for line in settings if line[:1] not in ("", "#")]
            host.commands([*sysctls, ["service", "netif", "start"], pfsync])
        a, b = pair.hosts
        pair.await_state(a, "MASTER")
        pair.await_state(b, "BACKUP")
        assert all(pair.server.ping(address) for address in (CARP4, CARP6))
        for host in (a, b):
            until(lambda: "syncok: 1" in host.run(["ifconfig", "pfsync0"]).stdout, "pfsync in step")  # noqa: B023
            assert pair.demotion(host) == 0
