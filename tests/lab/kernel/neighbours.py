"""Neighbours: what Linux has learned and what was pinned here, as FreeBSD's tables would hold them.

Sources: sys/netinet6/{in6,nd6}.c, sys/netinet/{in,if_ether}.c of FreeBSD 13.2 (order of the tables, lifetimes);
freebsd-13.2/4-neighbours.txt, 4b-neighbours.txt, 10-interface-routes.txt.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.lab.kernel import interfaces, netlink, routing
from tests.lab.kernel.errors import Errno, Refused
from tests.lab.kernel.state import (
    INET,
    INET6,
    Interface,
    Pinned,
    Rtf,
    Vnet,
    is_link_local,
    plain,
    with_scope,
)

REACHABLE_SECONDS, STALE_SECONDS, ARP_SECONDS = 30, 86400, 1200
FORWARDING6 = "net.inet6.ip6.forwarding"
_HASH = 32  # IN_LLTBL_DEFAULT_HSIZE, IN6_LLTBL_DEFAULT_HSIZE
_STATES = {
    netlink.NUD_INCOMPLETE: "I",
    netlink.NUD_REACHABLE: "R",
    netlink.NUD_STALE: "S",
    netlink.NUD_DELAY: "S",  # FreeBSD keeps an entry in use STALE until its timer looks (8-reference.txt)
    netlink.NUD_PROBE: "S",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of ndp(8) or arp(8). *expire*: seconds, None for permanent. *own*: an address of this host."""

    interface: Interface
    family: int
    value: int
    ether: str
    state: str
    router: bool = False
    expire: int | None = None
    own: bool = False


def entries(vnet: Vnet, family: int) -> list[Entry]:
    """The neighbour table of one family, in the order in which FreeBSD walks it: newest interface first."""
    found: list[Entry] = []
    learned: dict[tuple[int, int], netlink.Neighbour] = {}
    for each in vnet.namespace.neighbours(family):
        interface = vnet.by_link(each.link)
        if interface is None or interface.loopback or each.state not in _STATES or each.address == routing.NOWHERE:
            continue
        learned[interface.index, with_scope(family, int.from_bytes(each.address, "big"), interface)] = each
    for interface in sorted(vnet.interfaces, key=lambda each: -each.born):
        if not interface.ether:
            continue
        table: list[Entry] = []
        for pin in vnet.pinned:
            if pin.interface is interface and pin.family == family:
                table.append(Entry(interface, family, pin.value, pin.ether, "R" if pin.ether else "I"))
                if pin.learned and _carries_ipv4(vnet, interface, pin.value):
                    table.append(Entry(interface, family, pin.value, pin.ether, "R", expire=REACHABLE_SECONDS))
        table += [
            _learned(interface, family, value, each)
            for (index, value), each in learned.items()
            if index == interface.index
        ]
        table += [
            Entry(interface, family, with_scope(family, address.value, interface), interface.ether, "R", own=True)
            for address in interface.addresses
            if address.family == family
        ]
        found += sorted(table, key=_walk)
    return found


def pin(vnet: Vnet, interface: Interface, family: int, value: int, ether: str) -> None:
    """`ndp -s`, `arp -s`: a permanent entry. IPv4 through a pinned IPv6 next hop is dropped from now on."""
    learned = any(
        entry.value == value and entry.expire is not None and entry.interface is interface
        for entry in entries(vnet, family)
    )
    interfaces.realise(interface)
    vnet.pinned = [each for each in vnet.pinned if (each.interface, each.value) != (interface, value)]
    vnet.pinned.append(Pinned(interface, family, value, ether, learned))
    if ether:
        vnet.namespace.set_neighbour(interface.link, _packed(family, value), interfaces.mac_bytes(ether))
    _project_through(vnet, interface, value)


def forget(vnet: Vnet, family: int, value: int, interface: Interface | None = None) -> None:
    """`ndp -d`, `arp -d`: ENOENT where there is no such entry, or only the host's own address."""
    for entry in entries(vnet, family):
        if entry.value == value and not entry.own and interface in (None, entry.interface):
            break
    else:
        raise Refused(Errno.ENOENT)
    found = entry.interface
    vnet.pinned = [each for each in vnet.pinned if (each.interface, each.value) != (found, value)]
    vnet.namespace.delete_neighbour(found.link, _packed(family, value))
    _project_through(vnet, found, value)


def _carries_ipv4(vnet: Vnet, interface: Interface, value: int) -> bool:
    return any(
        hop.interface is interface and hop.gateway == (INET6, value)
        for route in vnet.routes.values()
        if route.key.family == INET
        for hop in route.hops
    )


def _project_through(vnet: Vnet, interface: Interface, value: int) -> None:
    for route in vnet.routes.values():
        if any(
            hop.interface is interface and hop.gateway == (INET6, value) and Rtf.GATEWAY in hop.flags
            for hop in route.hops
        ):
            routing.project(vnet, route.key)


def _learned(interface: Interface, family: int, value: int, entry: netlink.Neighbour) -> Entry:
    state = _STATES[entry.state]
    if family == INET:
        expire = max(0, int(ARP_SECONDS - entry.age)) if state != "I" else 0
    elif state == "S":
        expire = max(1, int(STALE_SECONDS - entry.age))
    else:
        expire = max(1, int(REACHABLE_SECONDS - entry.age)) if state == "R" else 1
    ether = interfaces.mac_text(entry.lladdr) if state != "I" else ""
    router = entry.router
    if is_link_local(family, value) and state == "S" and interface.peer is not None:
        # Linux remembers a next hop from the solicitation that it sent; the recorded 13.2 had asked for it itself by
        # then (4-neighbours.txt, 4b-neighbours.txt, 12-service-prefix.txt), and so knew whether it is a router
        state, expire = "R", REACHABLE_SECONDS
        router = bool(interface.peer.vnet.sysctls[FORWARDING6])
    return Entry(interface, family, value, ether, state, router, expire)


def _walk(entry: Entry) -> tuple[int, bool, bool]:
    """Where an entry stands in the table: by in_lltable_hash_dst() or in6_lltable_hash_dst() (of which the former
    forgets to swap the bytes), and within one bucket the newest first. Linux does not say which is newest: as a rule
    the next hop, a link-local address, was there before the addresses behind it, and the host's own before all.
    """
    bucket = entry.value >> 24 if entry.family == INET else entry.value & 0xFFFFFFFF
    return bucket % _HASH, entry.own, is_link_local(entry.family, entry.value)


def _packed(family: int, value: int) -> bytes:
    return plain(family, value).to_bytes(4 if family == INET else 16, "big")
