"""Interfaces and their addresses: what SIOC* ioctls do on FreeBSD 13.2, and what Linux is told of it.

Linux's counterpart of an epair, a veth pair, is made when something could be sent over it, across the vnets that its ends
are in by then, and left to die with the jail's namespace: to move or to delete one costs Linux some 20 ms each, to make one
less than 1. Both ends are always up for Linux, because FreeBSD's always have a carrier; an interface that is
administratively down has no addresses and no routes on Linux instead.

Sources: sys/net/if.c, if_clone.c, if_epair.c, netinet/in.c, netinet6/in6.c, in6_ifattach.c, nd6.c of FreeBSD 13.2, and
the transcripts freebsd-13.2/1-interfaces.txt and 2-vnet.txt.
"""

from __future__ import annotations

import os
import re
import secrets
from typing import TYPE_CHECKING

from tests.lab.kernel import bridging, carp, netlink, pfsync, routing
from tests.lab.kernel.errors import Errno, Refused
from tests.lab.kernel.linux import LO
from tests.lab.kernel.state import (
    ETHER_MTU,
    IFNAMSIZ,
    INET,
    INET6,
    LINK_LOCAL,
    LO_MTU,
    LOOPBACK4,
    LOOPBACK6,
    ND6_LOOPBACK,
    ND6_NEW,
    PFLOG_MTU,
    WIDTH,
    Address,
    Iff,
    Interface,
    Nd6,
    Vnet,
    is_link_local,
    with_scope,
)

if TYPE_CHECKING:
    from tests.lab.kernel.machine import Machine

EPAIR = re.compile(r"epair(\d*)")
LOOPBACK = re.compile(r"lo(\d*)")
EPAIR_MTU = range(72, 65536)  # ETHERMIN.. of if_epair; what it does not take is EINVAL (1-interfaces.txt)
EPAIR_MTU_MAX = 9216
MAC_BYTES = 6
SOLICIT_RFC4861 = "net.inet6.icmp6.nd6_onlink_ns_rfc4861"
_LINUX_NAME = re.compile(r"[A-Za-z0-9_.+-]{1,15}")


def populate(machine: Machine, vnet: Vnet) -> None:
    """Give a new vnet the interfaces that every vnet has."""
    attach(machine, Interface("lo0", "lo", 0, vnet, vnet, LO_MTU, Iff.LOOPBACK | Iff.MULTICAST, groups=["lo"]), vnet)
    vnet.interfaces[0].nd6, vnet.interfaces[0].link = ND6_LOOPBACK, LO
    vnet.interfaces[0].linux_name = "lo0"
    attach(machine, Interface("pflog0", "pflog", 0, vnet, vnet, PFLOG_MTU, Iff(0), groups=["pflog"]), vnet)
    attach(machine, Interface("pfsync0", "pfsync", 0, vnet, vnet, ETHER_MTU, Iff(0), groups=["pfsync"]), vnet)


def attach(machine: Machine, interface: Interface, vnet: Vnet) -> None:
    """Put an interface into a vnet, under the lowest free number."""
    taken = {each.index for each in vnet.interfaces}
    interface.index = next(number for number in range(1, len(taken) + 2) if number not in taken)
    interface.vnet = vnet
    interface.born = machine.next_number()
    vnet.interfaces.append(interface)
    machine.notify(vnet, "IFNET", interface.name, "ATTACH")
    if interface.driver in ("epair", "bridge") and interface.home is vnet:
        machine.notify(vnet, "ETHERNET", interface.name, "IFATTACH")


def create(machine: Machine, vnet: Vnet, name: str) -> Interface:
    """`ifconfig IF create` (SIOCIFCREATE2): an epair's a end, a bridge or a loopback. EINVAL where no cloner takes it."""
    if bridging.BRIDGE.fullmatch(name):
        return bridging.create(machine, vnet, name)
    if LOOPBACK.fullmatch(name):
        return create_loopback(machine, vnet, name)
    return create_epair(machine, vnet, name)


def free_unit(vnet: Vnet, driver: str, match: re.Match[str] | None, taken: set[int] | None = None) -> int:
    """The unit number that a name asks for, or the lowest free one. EINVAL without a match, EEXIST for one in use."""
    if match is None:
        raise Refused(Errno.EINVAL)
    if taken is None:
        taken = {each.unit for each in vnet.interfaces if each.driver == driver}
    if not match[1]:
        return next(number for number in range(len(taken) + 1) if number not in taken)
    if int(match[1]) in taken:
        raise Refused(Errno.EEXIST)
    return int(match[1])


def create_loopback(machine: Machine, vnet: Vnet, name: str) -> Interface:
    """`ifconfig loN create` (sys/net/if_loop.c, lo_clone_create): on Linux a bridge without members, which every kernel
    can make.
    """
    unit = free_unit(vnet, "lo", LOOPBACK.fullmatch(name))
    made = Interface(f"lo{unit}", "lo", 0, vnet, vnet, LO_MTU, Iff.LOOPBACK | Iff.MULTICAST, unit=unit, groups=["lo"])
    made.nd6 = ND6_LOOPBACK
    attach(machine, made, vnet)
    realise_loopback(made)
    return made


def realise_loopback(interface: Interface) -> None:
    """Have Linux make what stands for a cloned loopback."""
    vnet = interface.vnet
    interface.link = next(vnet.links)
    interface.linux_name = linux_name(vnet, interface)
    vnet.namespace.bridge(interface.linux_name, interface.link, bridging.OUI + secrets.token_bytes(3))


def create_epair(machine: Machine, vnet: Vnet, name: str) -> Interface:
    """`ifconfig epairN create`: make a pair, answer its a end. EINVAL for other names, EEXIST for a unit in use."""
    taken = {each.unit for each in machine.epairs if each.home is vnet}
    unit = free_unit(vnet, "epair", EPAIR.fullmatch(name), taken)
    stem = secrets.token_bytes(4)
    ends = []
    for suffix, last in (("a", 0x0A), ("b", 0x0B)):
        ether = mac_text(b"\x02" + stem + bytes([last]))
        flags = Iff.BROADCAST | Iff.KNOWSEPOCH | Iff.RUNNING | Iff.SIMPLEX | Iff.MULTICAST
        end = Interface(f"epair{unit}{suffix}", "epair", 0, vnet, vnet, ETHER_MTU, flags, unit=unit, groups=["epair"])
        end.ether = end.hwaddr = ether
        attach(machine, end, vnet)
        ends.append(end)
    a, b = ends
    a.peer, b.peer = b, a
    machine.epairs += ends
    for end in ends:
        machine.notify(vnet, "IFNET", end.name, "LINK_UP")
    return a


def realise(interface: Interface) -> None:
    """Have Linux make the veth pair of an epair, if it has none, with all that its ends have."""
    peer = interface.peer
    if interface.link or peer is None:
        return
    ends = (interface, peer)
    for end in ends:
        end.link = next(end.vnet.links)
        end.linux_name = linux_name(end.vnet, end)
    interface.vnet.namespace.veth(
        interface.linux_name,
        interface.link,
        mac_bytes(interface.ether),
        peer.linux_name,
        peer.link,
        mac_bytes(peer.ether),
        peer.vnet.namespace.fd,
    )
    for end in ends:
        end.vnet.namespace.change_link(end.link, up=True, mtu=end.mtu if end.mtu != ETHER_MTU else None)
        sync_addresses(end)
        routing.project_all(end.vnet, end)
        sync_deaf(end.vnet)
        if end.bridge is not None:
            bridging.sync(end.bridge)
        carp.plug(end)


def abandon(interface: Interface) -> None:
    """Leave an epair's veth pair to die with the namespace that *interface* is in, which is going.

    Not while routes lead over the other end: they stay on FreeBSD, and somebody may watch Linux's.
    """
    peer = interface.peer
    if not interface.link or peer is None or routing.leads_over(peer.vnet, peer):
        return
    bridging.unplug(peer)
    carp.unplug(peer)
    namespace = peer.vnet.namespace
    namespace.change_link(peer.link, name=f"gone{peer.link}")  # not down: that alone would take Linux 20 ms
    for address in peer.projected:
        namespace.delete_address(peer.link, address.packed, address.prefix_length)
    for end in (interface, peer):
        end.link, end.linux_name, end.master, end.helper = 0, "", 0, 0
        end.projected.clear()


def destroy(machine: Machine, interface: Interface) -> None:
    """`ifconfig IF destroy`: an epair's both ends go, wherever they are, and the routes over them.

    EINVAL for what is no epair, no bridge and no cloned loopback (lo0 stays: if_loop.c, minifs 1).
    """
    if interface.driver in ("bridge", "lo") and interface is not interface.vnet.interfaces[0]:
        detach(interface)
        interface.vnet.namespace.delete_link(interface.link)
        return
    if interface.driver != "epair":
        raise Refused(Errno.EINVAL)
    other = interface.peer
    for end in (interface, other):
        if end is not None:
            bridging.leave(end)
            carp.unplug(end)
    if interface.link:
        interface.vnet.namespace.delete_link(interface.link)
    for end in (interface, other):
        if end is not None:
            end.link = 0
            detach(end)
            machine.epairs.remove(end)


def detach(interface: Interface) -> None:
    """Take an interface out of its vnet: addresses, neighbours and routes over it go (if_detach_internal)."""
    vnet = interface.vnet
    bridging.leave(interface)
    bridging.dissolve(interface)
    carp.release(interface)
    pfsync.forget(interface)
    if not interface.carrier:
        _cut(vnet, {each for each in vnet.interfaces if not each.carrier} - {interface})
        interface.carrier = True
    interface.flags &= ~Iff.UP
    for address in list(interface.addresses):
        routing.remove_for_address(vnet, interface, address)
        routing.remove_owned(vnet, interface, address)
    interface.addresses.clear()
    if interface.link:
        sync_addresses(interface)
    interface.projected.clear()
    vnet.pinned = [each for each in vnet.pinned if each.interface is not interface]
    routing.remove_through(vnet, interface)
    vnet.interfaces.remove(interface)
    vnet.carps.notify(vnet, "IFNET", interface.name, "DETACH")
    sync_deaf(vnet)


def move(machine: Machine, interface: Interface, vnet: Vnet) -> None:
    """Move an interface into another vnet: name, description, MAC and MTU go along, addresses and groups do not."""
    old = interface.vnet
    detach(interface)
    interface.nd6 = ND6_NEW
    leaving_home = interface.home is old and interface.cloned
    interface.groups = [interface.driver] if leaving_home else []
    interface.cloned = leaving_home
    attach(machine, interface, vnet)
    if interface.loopback:
        old.namespace.delete_link(interface.link)  # Linux moves no bridge
        interface.nd6 = ND6_LOOPBACK
        realise_loopback(interface)
    elif interface.link:
        interface.linux_name = linux_name(vnet, interface)
        old.namespace.change_link(interface.link, namespace=vnet.namespace.fd, name=interface.linux_name)
        vnet.namespace.change_link(interface.link, up=True)
    else:
        _realise_if_used(interface)
    sync_peer_deaf(interface)


def rename(interface: Interface, name: str) -> None:
    """`ifconfig IF name NAME` (SIOCSIFNAME)."""
    if len(os.fsencode(name)) >= IFNAMSIZ:
        raise Refused(Errno.ENAMETOOLONG)
    if not name:
        raise Refused(Errno.EINVAL)
    if name == interface.name:
        return
    if interface.vnet.interface(name) is not None:
        raise Refused(Errno.EEXIST)
    interface.name = name
    if interface.link:
        bridging.unplug(interface)
        interface.linux_name = linux_name(interface.vnet, interface)
        interface.vnet.namespace.change_link(interface.link, name=interface.linux_name)
        sync_deaf(interface.vnet)
        if interface.bridge is not None:
            bridging.sync(interface.bridge)


def linux_name(vnet: Vnet, interface: Interface) -> str:
    """What Linux calls an interface: the same, unless Linux can not (spaces, a second one of that name)."""
    taken = {each.linux_name for each in vnet.interfaces if each is not interface}
    if _LINUX_NAME.fullmatch(interface.name) and interface.name not in taken | {".", ".."}:
        return interface.name
    return f"lab{interface.link}"


def set_ether(interface: Interface, ether: bytes) -> None:
    """`ifconfig IF ether MAC` (SIOCSIFLLADDR)."""
    if len(ether) != MAC_BYTES or interface.driver not in ("epair", "bridge"):
        raise Refused(Errno.EINVAL)
    interface.ether = mac_text(ether)
    if interface.link:
        bridging.unplug(interface)
        interface.vnet.namespace.change_link(interface.link, mac=ether)
        if interface.bridge is not None:
            bridging.sync(interface.bridge)


def set_mtu(interface: Interface, mtu: int) -> None:
    """`ifconfig IF mtu N` (SIOCSIFMTU)."""
    if interface.driver == "epair" and not EPAIR_MTU.start <= mtu <= EPAIR_MTU_MAX:
        raise Refused(Errno.EINVAL)
    interface.mtu = mtu
    if interface.link and interface.driver == "epair":
        interface.vnet.namespace.change_link(interface.link, mtu=mtu)


def set_up(interface: Interface, up: bool) -> None:
    """`ifconfig IF up|down`."""
    if interface.driver in ("pflog", "pfsync"):
        both = Iff.UP | Iff.RUNNING if interface.driver == "pfsync" else Iff.UP  # pfsyncioctl(), SIOCSIFFLAGS
        interface.flags = interface.flags | both if up else interface.flags & ~both
        return
    changed = interface.up != up
    if up:
        _raise_flag(interface)
        _auto_link_local(interface)
    else:
        interface.flags &= ~(Iff.UP | Iff.RUNNING if interface.driver == "bridge" else Iff.UP)
    sync(interface)
    if changed:
        carp.link_state(interface)


def set_carrier(interface: Interface, carrier: bool) -> None:
    """Pull an epair's cable, or put it back (if_link_state_change): FreeBSD's own epair can not do that, a NIC can."""
    if interface.driver != "epair":
        raise Refused(Errno.EOPNOTSUPP)
    if interface.carrier is carrier:
        return
    vnet = interface.vnet
    _cut(vnet, {each for each in vnet.interfaces if not each.carrier} ^ {interface})
    interface.carrier = carrier
    vnet.carps.notify(vnet, "IFNET", interface.name, "LINK_UP" if carrier else "LINK_DOWN")
    carp.link_state(interface)


def set_nd6(interface: Interface, flags: Nd6) -> None:
    """Set IPv6's per-interface options (SIOCSIFINFO_FLAGS)."""
    enabled = interface.nd6 & Nd6.IFDISABLED and not flags & Nd6.IFDISABLED
    interface.nd6 = flags
    if enabled and interface.up:
        _auto_link_local(interface)
    sync(interface)


def _cut(vnet: Vnet, dark: set[Interface]) -> None:
    vnet.namespace.cut(frozenset(each.linux_name for each in dark if each.link))


def add_address(interface: Interface, address: Address, vhid: int = 0) -> None:
    """Add an address (SIOCAIFADDR); the first of a family brings the interface up, as Ethernet drivers do.

    With a *vhid* it has no routes but while that is MASTER (in_aifaddr_ioctl, carp_attach). EINVAL on a bridge's member
    where net.link.bridge.member_ifaddrs is 0 (15.0), ENOENT without that vhid.
    """
    vnet = interface.vnet
    if interface.bridge is not None and not bridging.members_have_addresses(vnet):
        raise Refused(Errno.EINVAL)
    first = not any(each.family == address.family for each in interface.addresses)
    old = next(
        (each for each in interface.addresses if (each.family, each.value) == (address.family, address.value)), None
    )
    owner = carp.of_address(interface, old) if old is not None else None
    if old == address and vhid == (owner.vhid if owner is not None else 0):
        return
    if old is not None:
        delete_address(interface, old)
    if not vhid:
        routing.add_for_address(vnet, interface, address)
    elif carp.find(interface, vhid) is None:
        raise Refused(Errno.ENOENT)
    interface.addresses.append(address)
    if vhid:
        if first:
            _raise_flag(interface)
        carp.attach(interface, address, vhid)
    if first and interface.driver in ("epair", "lo", "bridge"):
        _raise_flag(interface)
        sync(interface)
    else:
        _realise_if_used(interface)
        sync_addresses(interface)
    sync_peer_deaf(interface)


def delete_address(interface: Interface, address: Address) -> None:
    """Remove an address (SIOCDIFADDR); EADDRNOTAVAIL where it is not."""
    found = next(
        (each for each in interface.addresses if (each.family, each.value) == (address.family, address.value)), None
    )
    if found is None:
        raise Refused(Errno.EADDRNOTAVAIL)
    carp.detach(interface, found)
    interface.addresses.remove(found)
    routing.remove_for_address(interface.vnet, interface, found)
    routing.remove_owned(interface.vnet, interface, found)
    sync_addresses(interface)
    sync_peer_deaf(interface)


def sync(interface: Interface) -> None:
    """Tell Linux of an interface that went up, down, or to or from IFDISABLED: addresses, then the routes over it."""
    _realise_if_used(interface)
    if not interface.link:
        return
    for bridge in (interface, interface.bridge):
        if bridge is not None:
            bridging.sync(bridge)
    if interface.link == LO:
        interface.vnet.namespace.change_link(interface.link, up=interface.up)
        if interface.up and not any(each.value == LOOPBACK4 for each in interface.addresses):
            interface.vnet.namespace.delete_address(interface.link, LOOPBACK4.to_bytes(4, "big"), 8)
    sync_addresses(interface)
    routing.project_all(interface.vnet, interface)


def sync_addresses(interface: Interface) -> None:
    """Give Linux the addresses that an interface can use now, and take the others from it."""
    if not interface.link:
        return
    wanted = {each for each in interface.addresses if _usable(interface, each)}
    namespace = interface.vnet.namespace
    for address in interface.projected - wanted:
        namespace.delete_address(interface.link, address.packed, address.prefix_length)
    dad = not interface.loopback and Nd6.NO_DAD not in interface.nd6
    for address in interface.addresses:
        if address in wanted - interface.projected:
            namespace.add_address(interface.link, address.packed, address.prefix_length, dad=dad)
    interface.projected = wanted
    if interface.bridge is not None:
        bridging.sync(interface.bridge)


def sync_peer_deaf(interface: Interface) -> None:
    """Look again at what the other end's vnet ignores, after this end's addresses changed."""
    if interface.peer is not None:
        sync_deaf(interface.peer.vnet)


def sync_deaf(vnet: Vnet) -> None:
    """Have Linux ignore the neighbour solicitations that FreeBSD would ignore, where the difference shows.

    nd6_ns_input() answers neighbours only, unless nd6_onlink_ns_rfc4861 is set: an address on the other end of a
    pair is none while its route goes by a next hop (4-neighbours.txt). It costs an nft(8), so only then.
    """
    rules: set[tuple[str, str]] = set()
    if not vnet.sysctls.get(SOLICIT_RFC4861):
        for route in vnet.routes.values():
            if route.key.family != INET6 or route.owners or not route.key.prefix_length:
                continue
            for hop in route.hops:
                peer = hop.interface.peer
                if hop.gateway is None or peer is None or not hop.interface.link:
                    continue
                rules |= {
                    (hop.interface.linux_name, address.text())
                    for address in peer.addresses
                    if address.family == INET6
                    and route.key.holds(address.value)
                    and not _on_link(vnet, hop.interface, address.value)
                }
    wanted = frozenset(rules)
    if wanted != vnet.deaf:
        vnet.deaf = wanted
        vnet.namespace.ignore_solicitations(wanted)
        for interface in vnet.interfaces:
            if interface.peer is not None and interface.link:
                _forget_failures(interface.peer)


def _forget_failures(interface: Interface) -> None:
    """Let an interface ask again at once for the neighbours that did not answer."""
    for each in interface.vnet.namespace.neighbours(INET6):
        if each.link == interface.link and each.state in (netlink.NUD_INCOMPLETE, netlink.NUD_FAILED):
            interface.vnet.namespace.delete_neighbour(each.link, each.address)


def link_local_of(interface: Interface) -> Address:
    """The EUI-64 address that FreeBSD derives from the MAC (in6_ifattach.c); lo0's is fe80::1."""
    if interface.loopback:
        return Address(INET6, LINK_LOCAL | 1, 64)
    mac = mac_bytes(interface.ether)
    identifier = bytes([mac[0] ^ 2, mac[1], mac[2], 0xFF, 0xFE, mac[3], mac[4], mac[5]])
    return Address(INET6, LINK_LOCAL | int.from_bytes(identifier, "big"), 64)


def mac_bytes(text: str) -> bytes:
    """ "02:aa:…" as bytes."""
    return bytes.fromhex(text.replace(":", ""))


def mac_text(mac: bytes) -> str:
    """Bytes as "02:aa:…"."""
    return ":".join(f"{byte:02x}" for byte in mac)


def _realise_if_used(interface: Interface) -> None:
    """Make the veth pair once an end is up and the other elsewhere or up too, or an address makes it more than a link."""
    peer = interface.peer
    if peer is None or interface.link or not (interface.up or peer.up):
        return
    both = interface.up and peer.up
    apart = interface.vnet is not peer.vnet
    if both or apart or any(not is_link_local(each.family, each.value) for each in interface.addresses):
        realise(interface)


def _raise_flag(interface: Interface) -> None:
    interface.flags |= Iff.UP
    if interface.driver in ("lo", "bridge"):
        interface.flags |= Iff.RUNNING


def _auto_link_local(interface: Interface) -> None:
    """in6_if_up(): lo0 gets ::1 too."""
    if Nd6.AUTO_LINKLOCAL not in interface.nd6 or Nd6.IFDISABLED in interface.nd6:
        return
    if interface.bridge is not None and not bridging.members_have_addresses(interface.vnet):
        return
    taken = any(each.value == LOOPBACK6 for other in interface.vnet.interfaces for each in other.addresses)
    wanted = [Address(INET6, LOOPBACK6, WIDTH[INET6])] if interface.loopback and not taken else []
    if interface.loopback or not any(is_link_local(each.family, each.value) for each in interface.addresses):
        wanted.append(link_local_of(interface))
    for address in wanted:
        if address not in interface.addresses:
            routing.add_for_address(interface.vnet, interface, address)
            interface.addresses.append(address)


def _usable(interface: Interface, address: Address) -> bool:
    if not interface.up or carp.of_address(interface, address) is not None:
        return False
    if address.family == INET:
        return True
    if interface.loopback and (address.value == LOOPBACK6 or is_link_local(INET6, address.value)):
        return False  # Linux brings ::1 itself, and has no use for lo0's link-local address
    return Nd6.IFDISABLED not in interface.nd6


def _on_link(vnet: Vnet, interface: Interface, value: int) -> bool:
    return any(
        route.key.family == INET6
        and route.key.holds(with_scope(INET6, value, interface))
        and any(hop.gateway is None and hop.interface is interface for hop in route.hops)
        for route in vnet.routes.values()
    )
