"""What the lab kernel remembers, in FreeBSD's terms: interfaces, addresses, routes, vnets, jails. No I/O here.

IPv6 link-local addresses carry their interface's number inside, as in the KAME kernel (sys/netinet6/scope6.c): so they
are unique in a vnet and sort as netstat(1) prints them.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntFlag
from typing import TYPE_CHECKING

from tests.lab.kernel.releases import DEFAULT, Release

if TYPE_CHECKING:
    from tests.lab.kernel.carp import Carp, Carps
    from tests.lab.kernel.linux import Namespace
    from tests.lab.kernel.pfsync import Pfsync

INET: int = socket.AF_INET
INET6: int = socket.AF_INET6
WIDTH: dict[int, int] = {INET: 32, INET6: 128}

IFNAMSIZ = 16
LO_MTU, ETHER_MTU, PFLOG_MTU = 16384, 1500, 33160
LOOPBACK4 = int(ipaddress.IPv4Address("127.0.0.1"))
LOOPBACK6 = 1
LINK_LOCAL = 0xFE80 << 112
_SCOPE_SHIFT = 96


class Iff(IntFlag):
    """Interface flags, sys/net/if.h."""

    UP = 0x1
    BROADCAST = 0x2
    LOOPBACK = 0x8
    KNOWSEPOCH = 0x20
    RUNNING = 0x40
    PROMISC = 0x100
    SIMPLEX = 0x800
    MULTICAST = 0x8000


class Nd6(IntFlag):
    """Per-interface IPv6 options, sys/netinet6/nd6.h."""

    PERFORMNUD = 0x1
    ACCEPT_RTADV = 0x2
    PREFER_SOURCE = 0x4
    IFDISABLED = 0x8
    DONT_SET_IFROUTE = 0x10
    AUTO_LINKLOCAL = 0x20
    NO_RADR = 0x40
    NO_PREFER_IFACE = 0x80
    NO_DAD = 0x100


class Rtf(IntFlag):
    """Route flags, sys/net/route.h."""

    UP = 0x1
    GATEWAY = 0x2
    HOST = 0x4
    REJECT = 0x8
    DONE = 0x40
    STATIC = 0x800
    BLACKHOLE = 0x1000
    PROTO2 = 0x4000
    PROTO1 = 0x8000
    PROTO3 = 0x40000
    PINNED = 0x100000


ND6_NEW = Nd6.PERFORMNUD | Nd6.IFDISABLED | Nd6.AUTO_LINKLOCAL
ND6_LOOPBACK = Nd6.PERFORMNUD | Nd6.AUTO_LINKLOCAL
ND6_BRIDGE = Nd6.PERFORMNUD | Nd6.IFDISABLED


@dataclass(frozen=True, slots=True)
class Address:
    """An address on an interface: *value* is plain, without the interface's number inside."""

    family: int
    value: int
    prefix_length: int

    @property
    def packed(self) -> bytes:
        """The address in network byte order."""
        return self.value.to_bytes(WIDTH[self.family] // 8, "big")

    def text(self) -> str:
        """The address as people write it, without scope."""
        return text_of(self.family, self.value)


@dataclass(eq=False, slots=True)
class Interface:
    """A network interface. *link* is Linux's number for it, 0 where Linux has none (pflog0, pfsync0, an idle epair)."""

    name: str
    driver: str
    index: int
    vnet: Vnet
    home: Vnet
    mtu: int
    flags: Iff
    unit: int = 0
    description: str = ""
    groups: list[str] = field(default_factory=list)
    ether: str = ""
    hwaddr: str = ""
    nd6: Nd6 = ND6_NEW
    addresses: list[Address] = field(default_factory=list)
    projected: set[Address] = field(default_factory=set)  # those that Linux has, too
    peer: Interface | None = None
    link: int = 0
    linux_name: str = ""
    cloned: bool = True  # its cloner still knows it, so that it takes the cloner's group along when it moves
    born: int = 0  # when it came into its vnet, for the order of neighbour tables
    bridge: Interface | None = None  # the bridge that it is a member of
    members: list[Interface] = field(default_factory=list)  # of a bridge, the newest first
    master: int = 0  # the bridge that Linux forwards its frames for
    helper: int = 0  # where it has addresses too: the veth pair through which it takes part in the bridge
    carps: list[Carp] = field(default_factory=list)  # its vhids, the oldest first
    carrier: bool = True  # a test may pull its cable

    @property
    def up(self) -> bool:
        """Whether it is administratively up."""
        return Iff.UP in self.flags

    @property
    def loopback(self) -> bool:
        """Whether it is lo0, or a cloned one like it."""
        return Iff.LOOPBACK in self.flags


@dataclass(frozen=True, slots=True)
class Key:
    """What a route leads to: network address (link-local ones with the interface number inside) and prefix length."""

    family: int
    value: int
    prefix_length: int

    @property
    def order(self) -> tuple[int, int]:
        """The order in which netstat(1) walks the table: by address, of one address the longest prefix first."""
        return self.value, -self.prefix_length

    @property
    def packed(self) -> bytes:
        """The destination as Linux has it: without an interface number."""
        return plain(self.family, self.value).to_bytes(WIDTH[self.family] // 8, "big")

    def holds(self, value: int) -> bool:
        """Whether *value* (with interface number, if link-local) is in this network."""
        shift = WIDTH[self.family] - self.prefix_length
        return value >> shift == self.value >> shift


@dataclass(eq=False, slots=True)
class Hop:
    """One next hop. *gateway* None: on the link. *source*: whether the host had an address to send from. *owner*: the
    IPv4 address that it was found by (nh_ifa), with which it goes.
    """

    interface: Interface
    gateway: tuple[int, int] | None
    flags: Rtf
    number: int = 0
    mtu: int = ETHER_MTU
    source: bool = True
    owner: tuple[Interface, Address] | None = None


@dataclass(eq=False, slots=True)
class Route:
    """The way, or ways, to one destination. *owners*: the addresses that made it (none: somebody added it)."""

    key: Key
    hops: list[Hop]
    owners: list[tuple[Interface, Address]] = field(default_factory=list)


@dataclass(eq=False, slots=True)
class Pinned:
    """A neighbour that ndp -s or arp -s made; *ether* "" where the MAC was not understood."""

    interface: Interface
    family: int
    value: int
    ether: str
    learned: bool = False  # IPv4's own entry for the same next hop was there already


@dataclass(eq=False, slots=True)
class Vnet:
    """A network stack of its own. *links* gives out Linux's interface numbers, unique in the whole lab."""

    namespace: Namespace
    links: Iterator[int]
    carps: Carps  # the machine's
    kernel: Release = DEFAULT
    interfaces: list[Interface] = field(default_factory=list)
    routes: dict[Key, Route] = field(default_factory=dict)
    sysctls: dict[str, int] = field(default_factory=dict)
    pinned: list[Pinned] = field(default_factory=list)
    carp_statistics: dict[str, int] = field(default_factory=dict)  # as netstat(1) names them; 0 where they are not
    pfsync: Pfsync | None = None  # None: never touched
    deaf: frozenset[tuple[str, str]] = frozenset()  # (Linux interface, address) whose solicitations are ignored

    def interface(self, name: str) -> Interface | None:
        """The first interface of that name, as ifunit(9) finds it."""
        return next((each for each in self.interfaces if each.name == name), None)

    def by_index(self, index: int) -> Interface | None:
        """The interface of that number."""
        return next((each for each in self.interfaces if each.index == index), None)

    def by_link(self, link: int) -> Interface | None:
        """The interface that Linux knows by that number."""
        return next((each for each in self.interfaces if each.link == link), None)

    def sorted_routes(self, family: int) -> list[Route]:
        """The routes of one family in netstat(1)'s order."""
        return sorted((each for each in self.routes.values() if each.key.family == family), key=lambda r: r.key.order)


@dataclass(eq=False, slots=True)
class Jail:
    """A jail; jid 0 is the machine itself. *parameters* are jail(8)'s, as text."""

    jid: int
    name: str
    parent: Jail | None
    path: str
    hostname: str
    vnet: Vnet
    own_vnet: bool
    uts: int
    uts_inode: int
    parameters: dict[str, str] = field(default_factory=dict)
    children: list[Jail] = field(default_factory=list)
    dying_until: float | None = None

    @property
    def dying(self) -> bool:
        """Whether it was removed and only open connections keep what is left of it."""
        return self.dying_until is not None

    @property
    def raw_sockets(self) -> bool:
        """Whether ping(8) may work in it: with a vnet always (kern_jail.c, prison_priv_check: PRIV_NETINET_RAW)."""
        return self.own_vnet or self.parameters.get("allow.raw_sockets") == "true"

    def addresses(self, name: str) -> set[str]:
        """What it may use, as said by parameter *name* (ip4.addr, ip6.addr)."""
        return set(self.parameters.get(name, "").split(",")) - {""}

    def restricted(self, name: str) -> bool:
        """Whether it may use only what parameter *name* (ip4.addr, ip6.addr) says."""
        return self.parameters.get(name.partition(".")[0]) == "disable"

    def may_use(self, address: Address) -> bool:
        """Whether a process in it sees an address of its vnet at all (prison_if)."""
        jail: Jail | None = self
        name = "ip4.addr" if address.family == INET else "ip6.addr"
        while jail is not None and not jail.own_vnet:
            if jail.restricted(name):
                return address.text() in jail.addresses(name)
            jail = jail.parent
        return True

    def full_name(self, seen_from: Jail) -> str:
        """The name with dots, as a process in *seen_from* sees it."""
        parts = [self.name]
        jail = self.parent
        while jail is not None and jail is not seen_from and jail.jid != 0:
            parts.append(jail.name)
            jail = jail.parent
        return ".".join(reversed(parts))

    def family(self) -> list[Jail]:
        """This jail and every jail below it."""
        found = [self]
        for child in self.children:
            found += child.family()
        return found


def is_link_local(family: int, value: int) -> bool:
    """Whether the address is in fe80::/10."""
    return family == INET6 and value >> 118 == 0xFE80 >> 6


def with_scope(family: int, value: int, interface: Interface) -> int:
    """The address with the interface's number inside, if it is link-local."""
    if not is_link_local(family, value):
        return value
    return plain(family, value) | interface.index << _SCOPE_SHIFT


def plain(family: int, value: int) -> int:
    """The address without an interface number inside."""
    if not is_link_local(family, value):
        return value
    return value & ~(0xFFFF << _SCOPE_SHIFT)


def scope_of(value: int) -> int:
    """The interface number inside a link-local address."""
    return value >> _SCOPE_SHIFT & 0xFFFF


def text_of(family: int, value: int) -> str:
    """The address as people write it, without scope."""
    if family == INET:
        return socket.inet_ntoa(value.to_bytes(4, "big"))
    return socket.inet_ntop(INET6, plain(INET6, value).to_bytes(16, "big"))


def scoped_text(vnet: Vnet, family: int, value: int) -> str:
    """The address as people write it, with `%interface` if it is link-local and on an interface."""
    text = text_of(family, value)
    if is_link_local(family, value) and scope_of(value):
        interface = vnet.by_index(scope_of(value))
        text += f"%{interface.name if interface else scope_of(value)}"
    return text


def network(family: int, value: int, prefix_length: int) -> int:
    """The address with the host's bits cleared (an interface number inside survives, as in the KAME kernel)."""
    shift = WIDTH[family] - prefix_length
    return value >> shift << shift
