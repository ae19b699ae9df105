"""The lab kernel's rules about jails, and what it tells Linux so that FreeBSD's traps are traps here too."""

from __future__ import annotations

import pytest

from tests.lab.kernel import interfaces, netlink, routing
from tests.lab.kernel.errors import Errno, Refused
from tests.lab.kernel.linux import PaperNamespace
from tests.lab.kernel.machine import DYING_SECONDS
from tests.lab.kernel.parameters import canonical
from tests.lab.kernel.state import INET, INET6, Key, text_of, with_scope
from tests.unit.lab.paper import Host


@pytest.fixture
def host() -> Host:
    """A fresh machine."""
    return Host()


class Ledger(PaperNamespace):
    """A namespace on paper that remembers which routes it was told, and pretends to have TCP connections."""

    def __init__(self) -> None:
        super().__init__(99)
        self.told: dict[tuple[bytes, int], tuple[int, list[netlink.Hop]]] = {}
        self.connections: list[tuple[int, str, str, int, int, int]] = []

    def set_route(self, destination: bytes, prefix_length: int, kind: int, hops: list[netlink.Hop]) -> None:
        self.told[destination, prefix_length] = kind, hops

    def delete_route(self, destination: bytes, prefix_length: int) -> None:
        self.told.pop((destination, prefix_length), None)

    def tcp(self) -> list[tuple[int, str, str, int, int, int]]:
        return self.connections


def test_a_name_with_a_dot_leads_to_a_parent(host: Host) -> None:
    with pytest.raises(Refused, match='jail "a" not found'):
        host.jail("a.b")
    a = host.jail("a", {"children.max": "1"})
    assert host.jail("a.b").parent is a
    with pytest.raises(Refused, match="prison limit exceeded"):
        host.jail("a.c")


def test_a_numeric_name_is_the_jid(host: Host) -> None:
    assert host.jail("123").jid == 123
    assert host.jail("x").jid == 1


def test_the_same_name_twice_is_refused(host: Host) -> None:
    host.jail("web1")
    with pytest.raises(Refused) as refusal:
        host.jail("web1")
    assert refusal.value.errno is Errno.EEXIST
    assert refusal.value.message == 'jail "web1" already exists'


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"nosuch": ""}, "unknown parameter: nosuch"),
        ({"vnet": "maybe"}, 'vnet: unknown jailsys value "maybe"'),
        ({"persist": "maybe"}, 'persist: unknown boolean value "maybe"'),
        ({"children.max": "many"}, 'children.max: non-integer value "many"'),
        ({"dying": "true"}, "dying: read-only parameter"),
    ],
)
def test_bad_parameters(given: dict[str, str], message: str) -> None:
    with pytest.raises(Refused) as refusal:
        canonical(given)
    assert refusal.value.message == message


def test_no_prefix_of_booleans() -> None:
    assert canonical({"nopersist": "", "allow.noraw_sockets": "", "allow.chflags": ""}) == {
        "persist": "false",
        "allow.raw_sockets": "false",
        "allow.chflags": "true",
    }


def test_a_jail_with_connections_dies_slowly(host: Host) -> None:
    jail = host.jail("web1")
    ledger = Ledger()
    ledger.connections = [(INET, "198.51.100.7.80", "203.0.113.9.4242", 1, 0, 0)]
    jail.vnet.namespace = ledger
    host.run("ifconfig epair create")
    host.run("ifconfig epair0b vnet web1")
    host.machine.remove(jail)
    assert host.run("jls name") == ("", 0)
    assert host.run("jls -d name dying") == ("web1 true\n", 0)
    assert host.run("ifconfig -l") == ("lo0 pflog0 pfsync0 epair0a\n", 0)
    again = host.jail("web1")
    assert host.machine.find(host.machine.root, "web1", dying=True) is again
    host.now = DYING_SECONDS - 1
    host.machine.bury_the_dead()
    assert jail.dying
    host.now = DYING_SECONDS
    host.machine.bury_the_dead()
    assert host.run("ifconfig -l") == ("lo0 pflog0 pfsync0 epair0a epair0b\n", 0)
    assert host.machine.next_death() is None


def test_destroying_the_outer_end_takes_the_inner_end_out_of_a_dying_jail(host: Host) -> None:
    jail = host.jail("web1")
    ledger = Ledger()
    ledger.connections = [(INET6, "*.80", "*.*", 10, 0, 0), (INET, "a", "b", 6, 0, 0)]
    jail.vnet.namespace = ledger
    host.run("ifconfig epair create")
    host.run("ifconfig epair0b vnet web1")
    host.machine.remove(jail)
    host.run("ifconfig epair0a destroy")
    assert [each.name for each in jail.vnet.interfaces] == ["lo0", "pflog0", "pfsync0"]


def test_a_host_that_goes_takes_its_jails_and_pairs_along_and_gives_back_what_it_was_lent(host: Host) -> None:
    a = host.jail("a", {"children.max": "5"})
    host.run("ifconfig epair create")
    host.run("ifconfig epair0b vnet a")
    host.run("jexec a ifconfig epair create")
    host.jail("web1", parent=a)
    host.run("jexec a ifconfig epair0b name up-a")
    host.machine.remove(a)
    assert host.run("jls -d name") == ("", 0)
    assert host.run("ifconfig -l") == ("lo0 pflog0 pfsync0 epair0a up-a\n", 0)
    assert {each.home for each in host.machine.epairs} == {host.machine.root.vnet}


def test_a_pinned_next_hop_loses_ipv4_and_only_then(host: Host) -> None:
    vnet = host.machine.root.vnet
    host.run("ifconfig epair create")
    host.run("ifconfig epair0a inet6 -ifdisabled up")
    host.run("ifconfig epair0b up")
    host.run("ifconfig lo0 inet 203.0.113.1/32 alias")
    host.run("route -n add -host 198.51.100.7 -inet6 fe80::2%epair0a")
    host.run("route -n -6 add -host 2001:db8::7 fe80::2%epair0a")
    outer = vnet.interfaces[3]
    ledger = Ledger()
    vnet.namespace = ledger
    four = Key(INET, 0xC6336407, 32)
    six = Key(INET6, 0x20010DB8 << 96 | 7, 128)

    def gateway(key: Key) -> bytes | None:
        routing.project(vnet, key)
        return ledger.told[key.packed, key.prefix_length][1][0].gateway

    hop = bytes.fromhex("fe80" + "00" * 13 + "02")
    assert gateway(four) == hop
    host.run("ndp -s fe80::2%epair0a 02:00:00:00:00:02")
    assert (gateway(four), gateway(six)) == (routing.NOWHERE, hop)
    with pytest.raises(Refused):
        interfaces.delete_address(outer, interfaces.link_local_of(vnet.interfaces[4]))


def test_an_ipv4_interface_route_without_a_source_goes_nowhere(host: Host) -> None:
    vnet = host.machine.root.vnet
    host.run("ifconfig epair create")
    host.run("ifconfig epair0a up")
    ledger = Ledger()
    vnet.namespace = ledger
    host.run("route -n add -host 198.51.100.7 -interface epair0a")
    assert ledger.told[bytes([198, 51, 100, 7]), 32] == (netlink.RTN_UNREACHABLE, [])
    assert "Can't assign" in host.run("ping -c 1 198.51.100.7")[0]


def test_solicitations_are_ignored_only_from_addresses_behind_a_next_hop(host: Host) -> None:
    jail = host.jail("web1", {"allow.raw_sockets": ""})
    vnet = host.machine.root.vnet
    host.run("ifconfig epair create")
    host.run("ifconfig epair0b vnet web1")
    host.run("route -n -6 add -host 2001:db8::7 fe80::2%epair0a")
    assert vnet.deaf == frozenset()
    host.run("jexec web1 ifconfig epair0b inet6 2001:db8::7/128 alias")
    assert vnet.deaf == {("epair0a", "2001:db8::7")}
    host.run("ifconfig epair0a name mob-web1")
    assert vnet.deaf == {("mob-web1", "2001:db8::7")}
    host.run("sysctl net.inet6.icmp6.nd6_onlink_ns_rfc4861=1")
    assert vnet.deaf == frozenset()
    host.run("sysctl net.inet6.icmp6.nd6_onlink_ns_rfc4861=0")
    host.run("route -n -6 delete -host 2001:db8::7")
    host.run("route -n -6 add -host 2001:db8::7 -interface mob-web1")
    assert vnet.deaf == frozenset()
    assert not jail.dying


def test_two_interfaces_of_one_name_differ_for_linux(host: Host) -> None:
    for name in "ab":
        jail = host.jail(name)
        host.run(f"ifconfig epair create name out-{name}")
        inner = host.machine.root.vnet.interfaces[-1].name
        host.run(f"ifconfig {inner} name eth0")
        host.run(f"ifconfig eth0 vnet {name}")
        host.run(f"jexec {name} ifconfig eth0 up")
        assert jail.vnet.interfaces[-1].linux_name == "eth0"
    for jail in list(host.machine.root.children):
        host.machine.remove(jail)
    for end in host.machine.epairs:
        interfaces.realise(end)
    home = host.machine.root.vnet.interfaces
    assert [each.name for each in home].count("eth0") == 2
    assert {each.linux_name for each in home if each.link} == {"lo0", "out-a", "out-b", "eth0", f"lab{home[-1].link}"}


def test_link_local_addresses_carry_their_interface(host: Host) -> None:
    host.run("ifconfig epair create")
    interface = host.machine.root.vnet.interfaces[3]
    value = with_scope(INET6, 0xFE80 << 112 | 2, interface)
    assert value != 0xFE80 << 112 | 2
    assert text_of(INET6, value) == "fe80::2"


def test_an_ipv4_address_takes_the_routes_along_that_were_found_by_it(host: Host) -> None:
    for line in (
        "ifconfig epair create",
        "ifconfig epair0a inet6 fe80::1/64 up",
        "ifconfig epair0a inet 198.51.100.7/32",
        "ifconfig epair0a inet 198.51.100.8/32 alias",
        "route -n add default -inet6 fe80::2%epair0a",
        "route -n -6 add default fe80::2%epair0a",
    ):
        assert host.run(line)[1] == 0, line
    assert host.run("ifconfig epair0a inet 198.51.100.8 -alias")[1] == 0
    assert "default" in host.run("netstat -rn -f inet")[0]
    assert host.run("ifconfig epair0a inet 198.51.100.8/32 alias")[1] == 0
    assert host.run("ifconfig epair0a inet 198.51.100.7 -alias")[1] == 0
    assert "default" not in host.run("netstat -rn -f inet")[0]  # another address is left, and yet
    assert "default" in host.run("netstat -rn -f inet6")[0]


def test_a_host_without_its_address_has_no_ipv4_next_hops(host: Host) -> None:
    for line in (
        "ifconfig lo0 203.0.113.1/32 alias",
        "ifconfig epair create",
        "ifconfig epair0a inet6 fe80::1/64 up",
        "route -n add -host 198.51.100.7 -inet6 fe80::2%epair0a",
        "ifconfig lo0 203.0.113.1 -alias",
    ):
        assert host.run(line)[1] == 0, line
    assert "198.51.100.7" not in host.run("netstat -rn -f inet")[0]
