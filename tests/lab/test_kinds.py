"""Jails that are not wired by us alone: without a vnet, by other routes, changed while they run, broken from inside."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.lab.again import begin
from tests.lab.faults import eventually, status_of_host
from tests.lab.invariants import await_rest, status
from tests.lab.topology import REPOSITORY, Host, Lab

IPV4, IPV6 = "198.51.100.7", "2001:db8:7::7"
PREFIXES = (f"{IPV4}/32", f"{IPV6}/128")
WEB1 = {"web1": (IPV4, IPV6)}
QUICK = {"look_every": 1.0, "inside_every": 1.0, "reject_for": 0.5, "drain_for": 0.2, "settle_for": 3.0}
ON_LO1 = f'ip4.addr = "lo1|{IPV4}"; ip6.addr = "lo1|{IPV6}/128";'


@pytest.fixture
def ready(one: Lab) -> Lab:
    """One host up."""
    return begin(one, agent=QUICK)


@pytest.fixture
def pair(lab: Lab) -> Lab:
    """Two hosts up."""
    lab.start(agent=QUICK)
    return lab


def announced(lab: Lab, host: Host, prefixes: tuple[str, ...] = PREFIXES) -> None:
    for prefix in prefixes:
        lab.spine.fib.wait(prefix, via=host.address)


def withdrawn(lab: Lab, prefixes: tuple[str, ...] = PREFIXES) -> None:
    for prefix in prefixes:
        lab.spine.fib.wait(prefix, gone=True)


def reaches(lab: Lab, *addresses: str) -> bool:
    return all(lab.client.ping(address) for address in addresses)


# -- without a vnet


@pytest.mark.parametrize("hooks", [True, False], ids=["hooks", "no-hooks"])
@pytest.mark.parametrize("granted", [PREFIXES, ()], ids=["jails.d", "jail.conf"])
def test_a_jail_on_a_loopback_of_the_host(pair: Lab, hooks: bool, granted: tuple[str, ...]) -> None:
    a, b = pair.hosts
    for host in (a, b):
        host.run(["ifconfig", "lo1", "create"])
        host.define_jail("web1", granted, hooks=hooks, vnet=False, more=ON_LO1)
    for host in (a, b, a):
        host.start_jail("web1")
        announced(pair, host)
        assert reaches(pair, IPV4, IPV6)
        host.stop_jail("web1")
        withdrawn(pair)
        await_rest(pair, host, {})


def test_a_jail_on_a_loopback_killed_behind_our_back(ready: Lab) -> None:
    (a,) = ready.hosts
    a.run(["ifconfig", "lo1", "create"])
    a.define_jail("web1", PREFIXES, vnet=False, more=ON_LO1)
    a.start_jail("web1")
    announced(ready, a)
    a.run(["jail", "-R", "web1"])
    withdrawn(ready)


def test_only_what_the_jail_has_of_its_grant_is_announced(ready: Lab) -> None:
    (a,) = ready.hosts
    a.run(["ifconfig", "lo1", "create"])
    a.define_jail("web1", PREFIXES, vnet=False, more=f'ip4.addr = "lo1|{IPV4}";')
    a.start_jail("web1")
    announced(ready, a, PREFIXES[:1])
    assert not ready.spine.kernel_has(PREFIXES[1])
    assert IPV6 in status(a, "web1")["reason"]


def test_an_address_of_jail_conf_outside_the_allowed_is_not_announced_and_told(ready: Lab) -> None:
    (a,) = ready.hosts
    a.run(["ifconfig", "lo1", "create"])
    a.define_jail("web1", (), vnet=False, more='ip4.addr = "lo1|192.0.2.99";')
    a.start_jail("web1")
    assert "192.0.2.99: it lies outside host.allowed" in a.mobility("check", check=False).stderr
    described = status(a, "web1")
    assert not described["announced"]
    assert "192.0.2.99" in described["reason"]


# -- by interface routes


@pytest.fixture
def by_interface(lab: Lab) -> Lab:
    """Both hosts up, IPv4 by interface routes."""
    lab.start(agent=QUICK, host={"ipv4_routes": "interface"})
    for host in lab.hosts:
        host.define_jail("web1", PREFIXES)
        host.define_jail("web2", ["198.51.100.8", "2001:db8:7::8"])
    return lab


def test_ipv4_by_interface_routes(by_interface: Lab) -> None:
    a, b = by_interface.hosts
    for host in (a, b):
        host.start_jail("web1")
        host.start_jail("web2")
        announced(by_interface, host)
        announced(by_interface, host, ("198.51.100.8/32", "2001:db8:7::8/128"))
        assert reaches(by_interface, IPV4, IPV6, "198.51.100.8")
        # from the host itself, and between two jails of one host
        assert host.ping(IPV4)
        assert " 0.0% packet loss" in host.run(["jexec", "web1", "ping", "-c", "1", "-t", "2", "198.51.100.8"]).stdout
        assert "UHS" in host.run(["netstat", "-rn", "-f", "inet"]).stdout
        for name in ("web1", "web2"):
            host.stop_jail(name)
        withdrawn(by_interface)
        await_rest(by_interface, host, {})


def test_a_sysctl_switched_off_while_the_agent_runs(ready: Lab) -> None:
    (a,) = ready.hosts
    a.define_jail("web1", PREFIXES)
    a.run(["sysctl", "net.route.ipv6_nexthop=0"])
    a.start_jail("web1", check=False)
    announced(ready, a)
    assert reaches(ready, IPV4, IPV6)
    a.run(["sysctl", "net.route.ipv6_nexthop=1"])


# -- on the kernels that there are


@pytest.mark.parametrize("kernel", ["13.1", "14", "15", "no-rfc5549"])
def test_what_the_kernel_can_is_what_is_used(kernel: str) -> None:
    with Lab(hosts=1, kernel=kernel, ipv4_links=kernel == "no-rfc5549") as lab:
        (a,) = lab.hosts
        lab.start(agent=QUICK)
        a.define_jail("web1", PREFIXES)
        a.start_jail("web1")
        announced(lab, a)
        assert reaches(lab, IPV4, IPV6)
        way = status(a, "web1")["how"]
        assert way == ("interface" if kernel == "no-rfc5549" else "next-hop")
        # 14 and later take the host's own commands into the jail
        ran = (a.folder / "agent.log").read_text()
        assert ("jexec web1 ifconfig" in ran) is (kernel not in ("14", "15"))
        assert ("ifconfig -j web1" in ran) is (kernel in ("14", "15"))
        a.stop_jail("web1")
        withdrawn(lab)


# -- changed while it runs


@pytest.mark.parametrize("old", [IPV4, IPV6])
def test_an_address_changed_on_a_running_jail(ready: Lab, old: str) -> None:
    (a,) = ready.hosts
    a.stop_agent()
    a.configure(agent={**QUICK, "look_every": 3600.0})  # so that it is the kernel's word that counts
    a.start_agent()
    a.define_jail("web1", PREFIXES)
    a.start_jail("web1")
    announced(ready, a)
    ready.spine.fib.changes.clear()
    kept = IPV6 if old == IPV4 else IPV4
    new = f"{old}7"
    a.grant("web1", [kept, new])
    gone, come = (PREFIXES[0], f"{new}/32") if old == IPV4 else (PREFIXES[1], f"{new}/128")
    announced(ready, a, (come,))
    withdrawn(ready, (gone,))
    await_rest(ready, a, {"web1": (kept, new)})
    assert reaches(ready, kept, new)
    # added and announced before the old one goes; the other one never moves
    assert [(change.prefix, change.gone) for change in ready.spine.fib.changes] == [(come, False), (gone, True)]
    assert f"{old} " not in a.run(["jexec", "web1", "ifconfig", "in-web1"]).stdout
    # the kernel took the default along that was found by the address
    defaults = a.run(["jexec", "web1", "netstat", "-rn"]).stdout
    assert defaults.count("default") == 2


def test_a_file_that_asks_for_anothers_address_costs_a_running_jail_nothing(ready: Lab) -> None:
    (a,) = ready.hosts
    for jail, addresses in (("web1", PREFIXES), ("web2", ["198.51.100.8"])):
        a.define_jail(jail, addresses)
        a.start_jail(jail)
    announced(ready, a, (*PREFIXES, "198.51.100.8/32"))
    both = {"web1": (IPV4, IPV6), "web2": ("198.51.100.8",)}
    await_rest(ready, a, both)
    ready.spine.fib.changes.clear()
    a.grant("web1", [*PREFIXES, "198.51.100.8"])
    eventually(lambda: "is held by jail web2" in status(a, "web1")["reason"], "refusal of another jail's address", a)
    await_rest(ready, a, both)
    assert not ready.spine.fib.changes
    # nobody is shown commands that would take web2's route away, nor web2's announcement for web1's
    refusal = "198.51.100.8 is held by jail web2, which runs: take it out of one of the two files in jails.d"
    assert a.mobility("plan", "web1").stdout == f"# web1: {refusal}\n"
    assert status(a, "web1")["routes"]["198.51.100.8"] == {"spine": "not announced"}
    # and a route that somebody else made
    a.run(["route", "-n", "add", "-host", "198.51.100.9", "127.0.0.1"])
    a.grant("web1", [*PREFIXES, "198.51.100.9"])
    eventually(lambda: "that is not this jail's" in status(a, "web1")["reason"], "refusal of another's route", a)
    assert reaches(ready, IPV4, IPV6)
    assert not ready.spine.fib.changes
    a.run(["route", "-n", "delete", "-host", "198.51.100.9"])
    announced(ready, a, ("198.51.100.9/32",))


def test_two_jails_swap_their_addresses_while_they_run(ready: Lab) -> None:
    (a,) = ready.hosts
    for jail, addresses in (("web1", ["198.51.100.7"]), ("web2", ["198.51.100.8"])):
        a.define_jail(jail, addresses)
        a.start_jail(jail)
    both = {"web1": ("198.51.100.7",), "web2": ("198.51.100.8",)}
    await_rest(ready, a, both)
    pair = a.run(["ifconfig", "mob-web1"]).stdout
    a.grant("web1", ["198.51.100.8"])
    eventually(lambda: "held by jail web2" in status(a, "web1")["reason"], "refusal of web2's address", a)
    await_rest(ready, a, both)
    a.grant("web2", ["198.51.100.7"])
    # each waits for the other: nobody loses what it has, and the operator is told
    eventually(lambda: "held by jail web1" in status(a, "web2")["reason"], "refusal of web1's address", a)
    await_rest(ready, a, both)
    a.grant("web2", ["198.51.100.9"])
    await_rest(ready, a, {"web1": ("198.51.100.8",), "web2": ("198.51.100.9",)})
    assert a.run(["ifconfig", "mob-web1"]).stdout == pair


def test_jails_without_a_vnet_may_share_an_address(ready: Lab) -> None:
    (a,) = ready.hosts
    a.run(["ifconfig", "lo1", "create"])
    a.run(["ifconfig", "lo1", "inet", f"{IPV4}/32", "alias"])
    for jail in ("web1", "web2"):
        a.define_jail(jail, (), vnet=False, more=f'ip4.addr = "{IPV4}";')
        a.start_jail(jail)
    announced(ready, a, PREFIXES[:1])
    assert "held by jail web1" in status(a, "web2")["reason"]
    a.stop_jail("web1")
    eventually(lambda: bool(status(a, "web2")["announced"]), "announcement of web2", a)
    announced(ready, a, PREFIXES[:1])
    a.stop_jail("web2")
    withdrawn(ready, PREFIXES[:1])


def test_the_hosts_address_changes_where_ipv4_goes_by_interface_routes(by_interface: Lab) -> None:
    a, _ = by_interface.hosts
    a.start_jail("web1")
    announced(by_interface, a)
    a.run(["ifconfig", "lo0", "inet", "192.0.2.101/32", "alias"])
    a.run(["ifconfig", "lo0", "inet", f"{a.ipv4}/32", "-alias"])
    # the host's own way out was found by the address, and went with it (in_ifadown)
    a.run(["route", "-n", "add", "default", "-inet6", a.spine_address], check=False)
    eventually(lambda: "192.0.2.101" in a.run(["ifconfig", "mob-web1"]).stdout, "the new address", a)
    eventually(lambda: reaches(by_interface, IPV4), "the jail", a)
    outer = a.run(["ifconfig", "mob-web1"]).stdout
    assert ("192.0.2.101" in outer, f"{a.ipv4} " in outer) == (True, False)
    assert reaches(by_interface, IPV4, IPV6)
    assert "192.0.2.101" in a.run(["jexec", "web1", "netstat", "-rn", "-f", "inet"]).stdout


# -- drained and not


def test_an_undrain_while_the_host_drains_for_its_shutdown(ready: Lab) -> None:
    (a,) = ready.hosts
    a.stop_agent()
    a.configure(agent={**QUICK, "drain_for": 3.0})
    a.start_agent()
    a.define_jail("web1", PREFIXES)
    a.start_jail("web1")
    announced(ready, a)
    drain = a.popen(
        [sys.executable, "-m", "mobility", "drain", "--config", str(a.config), "--until-boot"],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    eventually(lambda: bool(status_of_host(a)["drained"]), "the drain", a)
    a.mobility("undrain", "--until-boot")
    assert drain.wait(20) == 1
    await_rest(ready, a, WEB1)
    # and withdrawn by a drain, an undrain brings it back
    assert a.mobility("drain", "--until-boot").returncode == 0
    withdrawn(ready)
    a.mobility("undrain", "--until-boot")
    await_rest(ready, a, WEB1)


def test_a_drain_of_the_host_announces_nothing_that_was_drained_before(ready: Lab) -> None:
    (a,) = ready.hosts
    a.define_jail("web1", PREFIXES)
    a.start_jail("web1")
    announced(ready, a)
    a.mobility("drain", "web1")
    withdrawn(ready)
    ready.spine.fib.changes.clear()
    a.mobility("drain")
    assert not ready.spine.fib.changes


# -- broken from inside


def test_a_jail_that_puts_back_what_is_removed_holds_up_nobody(ready: Lab) -> None:
    (a,) = ready.hosts
    again = "while :; do ifconfig in-web1 inet 198.51.100.99/32 alias; done >/dev/null 2>&1 &"
    a.define_jail("web1", PREFIXES, start=again)
    a.define_jail("web2", ["198.51.100.8"])
    a.start_jail("web1")
    a.start_jail("web2")
    announced(ready, a, (*PREFIXES, "198.51.100.8/32"))
    eventually(lambda: "come back at once" in status(a, "web1")["reason"], "complaint of what comes back", a)
    a.mobility("drain")
    withdrawn(ready, (*PREFIXES, "198.51.100.8/32"))
    a.mobility("undrain")
    announced(ready, a, (*PREFIXES, "198.51.100.8/32"))
    before = len(a.mobility("events", "web1").stdout.splitlines())
    assert before < 200
    a.stop_jail("web1")


BREAKING = {
    "down": [["ifconfig", "in-web1", "down"]],
    "address": [["ifconfig", "in-web1", "inet", IPV4, "-alias"]],
    "defaults": [["route", "-n", "delete", "default"], ["route", "-n", "-6", "delete", "default"]],
    "renamed": [["ifconfig", "in-web1", "name", "mine"]],
}


@pytest.mark.parametrize("how", BREAKING)
def test_a_link_broken_from_inside_is_mended(ready: Lab, how: str) -> None:
    (a,) = ready.hosts
    a.define_jail("web1", PREFIXES)
    a.start_jail("web1")
    announced(ready, a)
    for line in BREAKING[how]:
        a.run(["jexec", "web1", *line])
    # some of these Linux does not mind: what the agent saw counts
    eventually(lambda: "link broken inside" in a.mobility("events", "web1").stdout, "word of the broken link", a)
    for address in (IPV4, IPV6):
        eventually(lambda: ready.client.ping(address, seconds=1), f"answer of {address}", a)  # noqa: B023
    await_rest(ready, a, WEB1)
