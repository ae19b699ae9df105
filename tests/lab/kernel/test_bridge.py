"""if_bridge in the lab: what ifconfig(8) says of it, and frames that really flow."""

from __future__ import annotations

from tests.lab.kernel.client import Kernel
from tests.lab.kernel.test_kernel import ok

BRIDGE = [
    "bridge0: flags=8843<UP,BROADCAST,RUNNING,SIMPLEX,MULTICAST> metric 0 mtu 1500",
    "\tid 00:00:00:00:00:00 priority 32768 hellotime 2 fwddelay 15",
    "\tmaxage 20 holdcnt 6 proto rstp maxaddr 2000 timeout 1200",
    "\troot id 00:00:00:00:00:00 priority 32768 ifcost 0 port 0",
    "\tmember: epair1a flags=143<LEARNING,DISCOVER,AUTOEDGE,AUTOPTP>",
    "\t        ifmaxaddr 0 port 7 priority 128 path cost 2000",
    "\tmember: epair0a flags=143<LEARNING,DISCOVER,AUTOEDGE,AUTOPTP>",
    "\t        ifmaxaddr 0 port 5 priority 128 path cost 2000",
    "\tgroups: bridge",
    "\tnd6 options=9<PERFORMNUD,IFDISABLED>",
]


def refused(machine: Kernel, line: str) -> str:
    """Run a command line that must fail; answer what it says."""
    done = machine.run("", line.split())
    assert done.returncode == 1, done.stdout
    return str(done.stderr)


def bridged_jails(machine: Kernel, *names: str) -> None:
    """Make a jail for each name, with 10.0.0.N on its end of epairN, whose other end is in bridge0."""
    ok(machine, "", "ifconfig bridge create up")
    for number, name in enumerate(names):
        ok(machine, "", "ifconfig epair create up")
        ok(machine, "", f"ifconfig bridge0 addm epair{number}a")
        ok(machine, "", f"jail -c name={name} path=/ vnet persist allow.raw_sockets")
        ok(machine, "", f"ifconfig epair{number}b vnet {name}")
        ok(machine, "", f"jexec {name} ifconfig epair{number}b 10.0.0.{number + 1}/24 up")


def reaches(machine: Kernel, jail: str, address: str) -> bool:
    """Whether a ping from a jail is answered."""
    return "1 packets received" in machine.run("", ["jexec", jail, "ping", "-c", "1", "-t", "1", address]).stdout


def test_what_ifconfig_says(machine: Kernel) -> None:
    assert ok(machine, "", "ifconfig bridge create") == "bridge0\n"
    for _ in range(2):
        ok(machine, "", "ifconfig epair create")
    ok(machine, "", "ifconfig bridge0 addm epair0a addm epair1a up")
    shown = ok(machine, "", "ifconfig bridge0").splitlines()
    assert shown.pop(1).startswith("\tether 58:9c:fc:")
    assert shown == BRIDGE
    assert "flags=8962<BROADCAST,RUNNING,PROMISC,SIMPLEX,MULTICAST>" in ok(machine, "", "ifconfig epair0a")
    assert ok(machine, "", "ifconfig -g bridge") == "bridge0\n"
    assert ok(machine, "", "ifconfig bridge create name vm-public") == "vm-public\n"
    assert ok(machine, "", "ifconfig bridge create") == "bridge2\n"


def test_what_it_refuses(machine: Kernel) -> None:
    ok(machine, "", "ifconfig bridge0 create")
    ok(machine, "", "ifconfig bridge1 create")
    ok(machine, "", "ifconfig epair create")
    assert refused(machine, "ifconfig bridge0 deletem epair0a") == (
        "ifconfig: BRDGDEL epair0a: No such file or directory\n"
    )
    assert refused(machine, "ifconfig bridge0 addm nosuch") == "ifconfig: BRDGADD nosuch: No such file or directory\n"
    assert refused(machine, "ifconfig bridge0 addm lo0") == "ifconfig: BRDGADD lo0: Invalid argument\n"
    ok(machine, "", "ifconfig bridge0 addm epair0a")
    assert refused(machine, "ifconfig bridge0 addm epair0a") == "ifconfig: BRDGADD epair0a: File exists\n"
    assert refused(machine, "ifconfig bridge1 addm epair0a") == "ifconfig: BRDGADD epair0a: Device busy\n"
    assert refused(machine, "ifconfig bridge0 create") == "ifconfig: interface bridge0 already exists\n"
    ok(machine, "", "ifconfig bridge0 destroy")
    ok(machine, "", "ifconfig bridge1 addm epair0a")


def test_members_leave_when_they_go(machine: Kernel) -> None:
    ok(machine, "", "jail -c name=web1 path=/ vnet persist")
    ok(machine, "", "ifconfig bridge create up")
    for _ in range(2):
        ok(machine, "", "ifconfig epair create up")
    ok(machine, "", "ifconfig bridge0 addm epair0a addm epair1a")
    ok(machine, "", "ifconfig epair0a name e0a_web1")
    assert "member: e0a_web1" in ok(machine, "", "ifconfig bridge0")
    ok(machine, "", "ifconfig e0a_web1 vnet web1")
    ok(machine, "", "ifconfig epair1a destroy")
    assert "member" not in ok(machine, "", "ifconfig bridge0")
    assert "PROMISC" not in ok(machine, "", "jexec web1 ifconfig e0a_web1")


def test_frames_flow_between_jails_and_the_host(machine: Kernel) -> None:
    bridged_jails(machine, "a", "b")
    assert reaches(machine, "a", "10.0.0.2")
    ok(machine, "", "ifconfig bridge0 inet 10.0.0.254/24")
    assert reaches(machine, "b", "10.0.0.254")
    ok(machine, "", "ifconfig bridge0 down")
    assert not reaches(machine, "a", "10.0.0.2")
    ok(machine, "", "ifconfig bridge0 up")
    ok(machine, "", "ifconfig epair1a down")
    assert not reaches(machine, "a", "10.0.0.2")
    ok(machine, "", "ifconfig epair1a up")
    assert reaches(machine, "a", "10.0.0.2")
    ok(machine, "", "ifconfig bridge0 deletem epair1a")
    assert not reaches(machine, "a", "10.0.0.2")


def test_a_jail_that_restarts_is_in_the_bridge_again(machine: Kernel) -> None:
    bridged_jails(machine, "a", "b")
    assert reaches(machine, "a", "10.0.0.2")
    ok(machine, "", "jail -R b")
    assert "member: epair1a" in ok(machine, "", "ifconfig bridge0")
    ok(machine, "", "jail -c name=b path=/ vnet persist allow.raw_sockets")
    ok(machine, "", "ifconfig epair1b vnet b")
    ok(machine, "", "jexec b ifconfig epair1b 10.0.0.2/24 up")
    assert reaches(machine, "a", "10.0.0.2")
    ok(machine, "", "ifconfig bridge0 destroy")
    ok(machine, "", "ifconfig epair1a destroy")


def test_a_member_with_an_address_is_the_hosts_and_the_bridges(machine: Kernel) -> None:
    bridged_jails(machine, "a", "b")
    for number, name in enumerate("ab"):
        ok(machine, "", f"jexec {name} ifconfig epair{number}b inet6 no_dad -ifdisabled")
        ok(machine, "", f"jexec {name} ifconfig epair{number}b inet6 fe80::{number + 2}/64")
    ok(machine, "", "ifconfig epair0a inet6 -auto_linklocal no_dad")
    ok(machine, "", "ifconfig epair0a inet6 fe80::1/64")
    ok(machine, "", "ifconfig epair0a inet6 -ifdisabled up")
    assert reaches(machine, "a", "fe80::1%epair0b")  # to the host, by multicast and unicast
    assert not reaches(machine, "b", "fe80::1%epair1b")  # what comes in by another member is not for this address
    assert "1 packets received" in ok(machine, "", "ping -6 -c 1 -t 1 fe80::2%epair0a")
    assert "1 packets received" in ok(machine, "", "ping -6 -c 1 -t 1 fe80::3%epair0a")  # it is one link with b's
    assert reaches(machine, "a", "10.0.0.2")  # and the bridge goes on
    ok(machine, "", "ifconfig bridge0 deletem epair0a")
    assert reaches(machine, "a", "fe80::1%epair0b")
    assert not reaches(machine, "a", "10.0.0.2")
    ok(machine, "", "ifconfig epair0a inet6 fe80::1 -alias")
    ok(machine, "", "ifconfig bridge0 addm epair0a")
    assert reaches(machine, "a", "10.0.0.2")
    ok(machine, "", "ifconfig epair0a inet6 fe80::1/64")
    assert "lab" in ok(machine, "", "ip -brief link")  # the pair by which it is a member here
    ok(machine, "", "ifconfig epair0a destroy")
    assert "lab" not in ok(machine, "", "ip -brief link")


def test_a_bridge_with_a_link_local_address_takes_the_members_ipv6(machine: Kernel) -> None:
    ok(machine, "", "ifconfig bridge create up")
    ok(machine, "", "ifconfig bridge0 inet6 fe80::1/64 -ifdisabled")
    ok(machine, "", "ifconfig epair create")
    ok(machine, "", "ifconfig epair0a inet6 fe80::1/64 up")
    ok(machine, "", "ifconfig bridge0 addm epair0a")
    assert "inet6" not in ok(machine, "", "ifconfig epair0a")
