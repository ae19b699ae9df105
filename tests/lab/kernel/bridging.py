"""Bridges: if_bridge(4) on FreeBSD, a Linux bridge underneath.

Frames are forwarded between the members that are up, as long as the bridge is up (bridge_input(), bridge_output(): a
bridge that is down leaves its members alone). A member with addresses of its own goes on being one of the host's
interfaces, which a port of a Linux bridge can not. In its stead a veth pair is the port, and Linux's tc(8) copies and
hands over frames between the two, so that it acts as on FreeBSD: multicast from the wire goes to the host and to the
other members; unicast goes to the host if it is for the member's MAC (from any member: GRAB_OUR_PACKETS), else to the
bridge; and what the host sends over the member may reach any member.

Sources: sys/net/if_bridge.c of FreeBSD 13.2 (bridge_clone_create, bridge_ioctl_add, bridge_ioctl_del, bridge_ifdetach,
GRAB_OUR_PACKETS), sys/netinet6/nd6.c (nd6_ifattach: no AUTO_LINKLOCAL on a bridge), if_bridge(4) of FreeBSD 15.0
(net.link.bridge.member_ifaddrs).
"""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING

from tests.lab.kernel import interfaces
from tests.lab.kernel.errors import Errno, Refused
from tests.lab.kernel.state import ETHER_MTU, INET6, ND6_BRIDGE, Iff, Interface, Vnet, is_link_local
from tests.lab.kernel.sysctls import MEMBER_ADDRESSES

if TYPE_CHECKING:
    from tests.lab.kernel.machine import Machine

BRIDGE = re.compile(r"bridge(\d*)")
OUI = bytes.fromhex("589cfc")  # ether_gen_addr(): the FreeBSD Foundation's
ZONE_OVERLAP = "net.link.bridge.allow_llz_overlap"


def create(machine: Machine, vnet: Vnet, name: str) -> Interface:
    """`ifconfig bridgeN create`: EEXIST for a unit in use, EINVAL for another name."""
    unit = interfaces.free_unit(vnet, "bridge", BRIDGE.fullmatch(name))
    flags = Iff.BROADCAST | Iff.SIMPLEX | Iff.MULTICAST
    bridge = Interface(f"bridge{unit}", "bridge", 0, vnet, vnet, ETHER_MTU, flags, unit=unit, groups=["bridge"])
    mac = OUI + secrets.token_bytes(3)
    bridge.ether = bridge.hwaddr = interfaces.mac_text(mac)
    bridge.nd6 = ND6_BRIDGE
    interfaces.attach(machine, bridge, vnet)
    bridge.link = next(vnet.links)
    bridge.linux_name = interfaces.linux_name(vnet, bridge)
    vnet.namespace.bridge(bridge.linux_name, bridge.link, mac)
    return bridge


def add(bridge: Interface, name: str) -> None:
    """`ifconfig BRIDGE addm IF` (BRDGADD): ENOENT, EEXIST, EBUSY and EINVAL as bridge_ioctl_add() has them."""
    vnet = bridge.vnet
    member = vnet.interface(name)
    if bridge.driver != "bridge":
        raise Refused(Errno.EINVAL)
    if member is None:
        raise Refused(Errno.ENOENT)
    if member.bridge is bridge:
        raise Refused(Errno.EEXIST, vnet.kernel.extended(Errno.EEXIST, "Interface is already a member of this bridge"))
    if member.bridge is not None:
        raise Refused(Errno.EBUSY)
    if member.driver != "epair" or (member.addresses and not members_have_addresses(vnet)):
        raise Refused(Errno.EINVAL)
    if _has_link_local(bridge) and not vnet.sysctls[ZONE_OVERLAP]:
        for each in (*bridge.members, member):
            _drop_ipv6(each)
    if not bridge.members:
        bridge.mtu = member.mtu
    elif member.mtu != bridge.mtu:
        if not vnet.kernel.bridge_sets_mtu:
            raise Refused(Errno.EINVAL)
        interfaces.set_mtu(member, bridge.mtu)
    member.bridge = bridge
    member.flags |= Iff.PROMISC
    bridge.members.insert(0, member)
    interfaces.realise(member)
    sync(bridge)


def remove(bridge: Interface, name: str) -> None:
    """`ifconfig BRIDGE deletem IF` (BRDGDEL): ENOENT for what is no member, EINVAL where BRIDGE is none."""
    if bridge.driver != "bridge":
        raise Refused(Errno.EINVAL)
    member = next((each for each in bridge.members if each.name == name), None)
    if member is None:
        text = bridge.vnet.kernel.extended(Errno.ENOENT, "Interface is not a bridge member")
        raise Refused(Errno.ENOENT, text)
    leave(member)


def members_have_addresses(vnet: Vnet) -> bool:
    """Whether an interface with addresses may be a member: always, until 15.0 made it a sysctl that is 0."""
    return bool(vnet.sysctls.get(MEMBER_ADDRESSES, 1))


def leave(member: Interface) -> None:
    """Take an interface out of its bridge, if it is in one (bridge_delete_member)."""
    bridge = member.bridge
    if bridge is None:
        return
    bridge.members.remove(member)
    member.bridge = None
    if not member.carps:
        member.flags &= ~Iff.PROMISC
    _sync_member(member)
    sync(bridge)


def dissolve(bridge: Interface) -> None:
    """Let all members go: the bridge is going."""
    for member in list(bridge.members):
        leave(member)


def sync(bridge: Interface) -> None:
    """Have Linux forward between the members that are up, if the bridge is."""
    for member in bridge.members:
        _sync_member(member)


def unplug(member: Interface) -> None:
    """Take what Linux has of a member out of Linux's bridge; it may come back with `sync`."""
    namespace = member.vnet.namespace
    if member.master:
        namespace.change_link(member.link, master=0)
    if member.helper:
        namespace.delete_link(member.helper)
        namespace.unshare(member.linux_name)
    member.master = member.helper = 0


def _sync_member(member: Interface) -> None:
    bridge = member.bridge
    forwards = bridge is not None and bridge.up and member.up
    if not member.link:
        return
    if bridge is None or not forwards or bool(member.helper) != bool(member.projected):
        unplug(member)
    if bridge is None or not forwards or member.master or member.helper:
        return
    if member.projected:
        _share(member, bridge)
    else:
        member.vnet.namespace.change_link(member.link, master=bridge.link)
        member.master = bridge.link


def _share(member: Interface, bridge: Interface) -> None:
    vnet = member.vnet
    member.helper, port = next(vnet.links), next(vnet.links)
    names = f"lab{member.helper}", f"lab{port}"
    mac = interfaces.mac_bytes(member.ether)  # the helper's too, so that Linux takes what is for it as its own
    other = b"\x02" + secrets.token_bytes(5)
    vnet.namespace.veth(names[0], member.helper, mac, names[1], port, other, vnet.namespace.fd)
    vnet.namespace.change_link(member.helper, up=True)
    vnet.namespace.change_link(port, up=True, master=bridge.link)
    vnet.namespace.share(member.linux_name, names[0], mac)


def _has_link_local(interface: Interface) -> bool:
    return any(is_link_local(each.family, each.value) for each in interface.addresses)


def _drop_ipv6(interface: Interface) -> None:
    """in6_ifdetach(): two link-local zones must not overlap, so the members' go."""
    if _has_link_local(interface):
        for address in [each for each in interface.addresses if each.family == INET6]:
            interfaces.delete_address(interface, address)
