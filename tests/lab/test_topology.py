"""The lab's own fabric: sessions, routes, packets, news. No agent of ours takes part here."""

from __future__ import annotations

import signal

import pytest

from tests.lab.topology import CLIENT_IPV4, CLIENT_IPV6, Host, Lab
from tests.lab.watch import NotInTime

IPV4, IPV6 = "198.51.100.7", "2001:db8:7::7"
PREFIXES = (f"{IPV4}/32", f"{IPV6}/128")


def wire(host: Host) -> None:
    """Wire a jail web1 by hand, as 8-reference.sh does."""
    inside = ["jexec", "web1"]
    host.commands(
        [
            ["ifconfig", "epair9", "create"],
            ["ifconfig", "epair9a", "name", "mob-web1"],
            ["ifconfig", "mob-web1", "inet6", "-auto_linklocal", "no_dad"],
            ["ifconfig", "mob-web1", "inet6", "fe80::1/64"],
            ["ifconfig", "mob-web1", "inet6", "-ifdisabled", "up"],
            ["jail", "-c", "name=web1", "path=/", "vnet", "persist", "allow.raw_sockets"],
            ["ifconfig", "epair9b", "vnet", "web1"],
            [*inside, "ifconfig", "lo0", "inet", "127.0.0.1/8", "up"],
            [*inside, "ifconfig", "epair9b", "inet6", "-auto_linklocal", "no_dad"],
            [*inside, "ifconfig", "epair9b", "inet6", "fe80::2/64"],
            [*inside, "ifconfig", "epair9b", "inet6", "-ifdisabled", "up"],
            [*inside, "ifconfig", "epair9b", "inet6", f"{IPV6}/128", "alias"],
            [*inside, "ifconfig", "epair9b", "inet", f"{IPV4}/32", "alias"],
            [*inside, "route", "-n", "-6", "add", "default", "fe80::1%epair9b"],
            [*inside, "route", "-n", "add", "default", "-inet6", "fe80::1%epair9b"],
            ["route", "-n", "-6", "add", "-host", IPV6, "-interface", "mob-web1"],
            ["route", "-n", "add", "-host", IPV4, "-inet6", "fe80::2%mob-web1"],
        ]
    )


def test_a_jail_is_reached_from_beyond_the_spine_wherever_it_runs(lab: Lab) -> None:
    for host in lab.hosts:
        host.start_bird()
        lab.await_session(host)
    a, b = lab.hosts
    for host, other in ((a, b), (b, a)):
        wire(host)
        for prefix in PREFIXES:
            lab.spine.fib.wait(prefix, via=host.address)
            assert not lab.spine.kernel_has(prefix, via=other.address)
        assert lab.client.ping(IPV4)
        assert lab.client.ping(IPV6)
        assert host.run(["jexec", "web1", "ping", "-c", "1", "-t", "2", CLIENT_IPV4])
        assert host.run(["jexec", "web1", "ping", "-6", "-c", "1", "-t", "2", CLIENT_IPV6])
        updates = lab.spine.updates(host.session.name)
        assert (updates.updates, updates.withdraws) == (2, 0)
        host.commands([["jail", "-R", "web1"], ["ifconfig", "mob-web1", "destroy"]])
        for prefix in PREFIXES:
            lab.spine.fib.wait(prefix, gone=True)
        assert lab.spine.updates(host.session.name).withdraws == 2


def test_the_links_between_hosts_and_spine_carry_ipv6_only(lab: Lab) -> None:
    for host in lab.hosts:
        assert " inet " not in host.run(["ifconfig", f"up-{host.name}"]).stdout
        assert host.ping(host.spine_address)
        assert host.ping(CLIENT_IPV6)


def test_a_killed_bird_leaves_its_routes_and_an_orderly_one_does_not(lab: Lab) -> None:
    host = lab.hosts[0]
    host.start_bird()
    lab.await_session(host)
    wire(host)
    lab.spine.fib.wait(PREFIXES[0])
    lab.spine.stop()
    lab.spine.fib.wait(PREFIXES[0], gone=True)
    lab.spine.start()
    lab.spine.fib.wait(PREFIXES[0])
    lab.spine.fib.changes.clear()
    lab.spine.stop(signal.SIGKILL)
    lab.spine.start(recover=True)
    lab.await_session(host)
    assert lab.spine.kernel_has(PREFIXES[0])
    assert not [change for change in lab.spine.fib.changes if change.gone]


def test_waiting_in_vain_says_what_is_there(lab: Lab) -> None:
    with pytest.raises(NotInTime, match=r"no route to 192\.0\.2\.1/32 via ::1 within 0\.1 s; there are .*fd00:1::/64"):
        lab.spine.fib.wait("192.0.2.1/32", via="::1", timeout=0.1)
    with pytest.raises(NotInTime, match=r"bird took more than 0\.1 s: no session of host_a up"):
        lab.spine.await_session("host_a", timeout=0.1)


def test_a_command_that_fails_says_which(lab: Lab) -> None:
    with pytest.raises(RuntimeError, match="failed: ifconfig nosuch0 up"):
        lab.hosts[0].commands([["true"], ["ifconfig", "nosuch0", "up"], ["true"]])
    with pytest.raises(RuntimeError, match="a: jls -j nosuch: exit 1"):
        lab.hosts[0].run(["jls", "-j", "nosuch"])


def test_any_number_of_hosts() -> None:
    with Lab(hosts=5) as lab:
        assert [host.name for host in lab.hosts] == ["a", "b", "c", "d", "e"]
        assert all(lab.client.ping(host.address) for host in lab.hosts)
