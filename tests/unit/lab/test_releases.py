"""The kernels that the lab plays: what each has, and what it refuses."""

from __future__ import annotations

import pytest

from tests.lab.kernel.releases import RELEASES
from tests.unit.lab.paper import Host

RFC5549 = "kern.features.ipv4_rfc5549_support"
NEXT_HOP = "route -n add -host 198.51.100.7 -inet6 fe80::2%epair0a"
USAGE = "ifconfig: illegal option -- j\n"


def wired(kernel: str) -> Host:
    """A host with an address of its own, and a pair whose outer end has fe80::1."""
    host = Host(kernel)
    for line in ("ifconfig lo0 203.0.113.1/32 alias", "ifconfig epair create", "ifconfig epair0a inet6 fe80::1/64 up"):
        assert host.run(line)[1] == 0
    return host


@pytest.mark.parametrize(
    ("kernel", "release", "date"),
    [
        ("13.1", "13.1-RELEASE", 1301000),
        ("13.2", "13.2-RELEASE", 1302001),
        ("14", "14.0-RELEASE", 1400097),
        ("15", "15.0-RELEASE", 1500068),
        ("no-rfc5549", "13.2-RELEASE", 1302001),
    ],
)
def test_what_it_says_of_itself(kernel: str, release: str, date: int) -> None:
    host = Host(kernel)
    assert host.run("uname -rK") == (f"{release} {date}\n", 0)
    assert host.run("sysctl -n kern.osrelease kern.osreldate") == (f"{release}\n{date}\n", 0)
    assert host.run("sysctl -x kern.boot_id")[1] == 0


@pytest.mark.parametrize("kernel", RELEASES)
def test_ipv4_over_ipv6_next_hops(kernel: str) -> None:
    host = wired(kernel)
    if kernel == "no-rfc5549":
        assert host.run(f"sysctl -n {RFC5549}") == (f"sysctl: unknown oid '{RFC5549}'\n", 1)
        assert host.run("sysctl net.route.ipv6_nexthop=1")[1] == 1
        said, code = host.run(NEXT_HOP)
        assert (said.splitlines(), code) == (
            [
                "route: writing to routing socket: Invalid argument",
                "add host 198.51.100.7: gateway fe80::2%epair0a fib 0: Invalid argument",
            ],
            1,
        )
    else:
        assert host.run(f"sysctl -n {RFC5549}") == ("1\n", 0)
        assert host.run(NEXT_HOP)[1] == 0


def test_switched_off_in_one_vnet_it_refuses_new_routes_only() -> None:
    host = wired("13.2")
    jail = host.jail("web1")
    assert host.run(NEXT_HOP)[1] == 0
    assert host.run("sysctl net.route.ipv6_nexthop=0") == ("net.route.ipv6_nexthop: 1 -> 0\n", 0)
    assert "fe80::2%epair0a" in host.run("netstat -rn")[0]
    said, code = host.run(NEXT_HOP.replace("100.7", "100.8"))
    assert ("Invalid argument" in said, code) == (True, 1)
    assert host.run("sysctl -n net.route.ipv6_nexthop", jail=jail) == ("1\n", 0)


def test_commands_that_act_inside_a_jail() -> None:
    for kernel, has, has_not in (
        ("13.2", [], ["ifconfig", "netstat", "route", "sysctl", "arp", "ndp"]),
        ("14", ["ifconfig -l", "netstat -rn", "route -n get default"], ["sysctl", "arp", "ndp"]),
        ("15", ["ifconfig -l", "netstat --libxo json -rn", "sysctl kern.hostname", "arp -an", "ndp -an"], []),
    ):
        host = Host(kernel)
        host.jail("web1", {"host.hostname": "inside"})
        for line in has:
            name, *rest = line.split()
            assert host.call([name, "-j", "web1", *rest]) == host.run(f"jexec web1 {line}"), line
            assert host.call([name, "-j", "nosuch", *rest]) == (f'{name}: jail "nosuch" not found\n', 1)
        for name in has_not:
            assert host.call([name, "-j", "web1"])[0].startswith(f"{name}: illegal option -- j\n")


def test_14_shows_the_link_state() -> None:
    host = wired("14")
    assert "flags=1008843<UP,BROADCAST,RUNNING,SIMPLEX,MULTICAST,LOWER_UP>" in host.run("ifconfig epair0a")[0]


def test_15_has_no_addresses_on_members() -> None:
    host = wired("15")
    assert host.run("ifconfig bridge create") == ("bridge0\n", 0)
    refused = ("ifconfig: BRDGADD epair0a: Invalid argument\n", 1)
    assert host.run("ifconfig bridge0 addm epair0a") == refused
    assert host.run("ifconfig epair0a inet6 fe80::1 -alias")[1] == 0
    assert host.run("ifconfig bridge0 addm epair0a") == ("", 0)
    assert host.run("ifconfig epair0a inet6 fe80::1/64") == ("ifconfig: ioctl (SIOCAIFADDR): Invalid argument\n", 1)
    assert host.run("ifconfig bridge0 addm epair0a") == (
        "ifconfig: BRDGADD epair0a: File exists (Interface is already a member of this bridge)\n",
        1,
    )
    assert host.run("ifconfig bridge0 deletem epair0b") == (
        "ifconfig: BRDGDEL epair0b: No such file or directory (Interface is not a bridge member)\n",
        1,
    )
    assert host.run("sysctl net.link.bridge.member_ifaddrs=1")[1] == 0
    assert host.run("ifconfig epair0a inet6 fe80::1/64") == ("", 0)
    assert Host("14").run("sysctl net.link.bridge.member_ifaddrs")[1] == 1


def test_a_member_takes_the_bridges_mtu_since_14() -> None:
    for kernel, said in (("13.2", "ifconfig: BRDGADD epair1a: Invalid argument\n"), ("14", "")):
        host = Host(kernel)
        for line in ("ifconfig bridge0 create", "ifconfig epair create mtu 1400", "ifconfig epair create"):
            assert host.run(line)[1] == 0
        assert host.run("ifconfig bridge0 addm epair0a")[1] == 0
        assert host.run("ifconfig bridge0 addm epair1a")[0] == said


def test_13_forgets_in_one_command_how_an_interface_is_called_now() -> None:
    for kernel, said in (("13.2", "ifconfig: SIOCSIFVNET: Device not configured\n"), ("14", "")):
        host = Host(kernel)
        host.jail("web1")
        assert host.run("ifconfig epair create")[1] == 0
        assert host.run("ifconfig epair0b name in-web1 vnet web1")[0] == f"{said}in-web1\n"
        assert host.run("ifconfig epair0a name mob-web1 inet6 no_dad")[1] == 1  # a family goes before everything


def test_a_second_next_hop_is_refused_by_13_and_multipath_since_14() -> None:
    for kernel, code in (("13.2", 1), ("14", 0)):
        host = wired(kernel)
        assert host.run(NEXT_HOP)[1] == 0
        assert host.run(NEXT_HOP.replace("::2%", "::3%"))[1] == code
        assert host.run("netstat -rn -f inet")[0].count("198.51.100.7") == 2 - code
