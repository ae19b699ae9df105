"""A vnet's routing table: what FreeBSD would hold and answer, and what Linux is told so that packets go the same way.

Sources: sys/net/rtsock.c, sys/net/route/route_ctl.c, sys/net/route/nhop_ctl.c of FreeBSD 13.2, and the transcripts
freebsd-13.2/3-routes.txt (what is refused, and how), 10-interface-routes.txt, 4-neighbours.txt.
"""

from __future__ import annotations

import errno
import ipaddress

from tests.lab.kernel import netlink
from tests.lab.kernel.errors import Errno, Refused
from tests.lab.kernel.state import (
    INET,
    INET6,
    LOOPBACK4,
    WIDTH,
    Address,
    Hop,
    Interface,
    Key,
    Route,
    Rtf,
    Vnet,
    is_link_local,
    network,
    plain,
    scope_of,
    with_scope,
)

#: Nobody's address and MAC: where packets go that FreeBSD would silently drop (IPv4 through a pinned next hop).
NOWHERE = ipaddress.IPv6Address("fe80::dead:dead:dead:dead").packed
NOWHERE_ETHER = bytes.fromhex("02dead00dead")
#: The routes that an address brings: to itself, and to its network.
SELF, NETWORK = "self", "network"
WHOLE = frozenset({SELF, NETWORK})
MULTIPATH = "net.route.multipath"
IPV6_NEXTHOP = "net.route.ipv6_nexthop"


def lookup(vnet: Vnet, family: int, value: int) -> Route | None:
    """The route that a packet to *value* takes: longest prefix first."""
    best: Route | None = None
    for route in vnet.routes.values():
        key = route.key
        if key.family == family and key.holds(value) and (best is None or key.prefix_length > best.key.prefix_length):
            best = route
    return best


def add(vnet: Vnet, key: Key, hop: Hop) -> None:
    """Add a route (RTM_ADD), or silently a second way to the same. Refused with EINVAL, ENETUNREACH, EEXIST."""
    _complete(vnet, key, hop)
    route = vnet.routes.get(key)
    if route is None:
        vnet.routes[key] = Route(key, [_numbered(vnet, key, hop)])
    else:
        if not vnet.sysctls[MULTIPATH] or route.owners or not all(map(_can_multipath, [*route.hops, hop])):
            raise Refused(Errno.EEXIST)
        if not vnet.kernel.appends and (_crossed(key, hop) or any(_crossed(key, each) for each in route.hops)):
            raise Refused(Errno.EINVAL)  # next hops of the other family can not be grouped (3-routes.txt)
        if any(each.gateway == hop.gateway and each.interface is hop.interface for each in route.hops):
            raise Refused(Errno.EEXIST)
        route.hops.append(_numbered(vnet, key, hop))
    project(vnet, key)


def delete(vnet: Vnet, key: Key, gateway: tuple[int, int] | None) -> Route:
    """Delete a route (RTM_DELETE), the whole of it or the way over *gateway*. ESRCH where nothing matches."""
    route = vnet.routes.get(key)
    if route is None:
        raise Refused(Errno.ESRCH)
    if gateway is None:
        if len(route.hops) > 1:
            raise Refused(Errno.ESRCH)  # multipath: which of them was not said (3-routes.txt)
        gone = list(route.hops)
    else:
        gone = [hop for hop in route.hops if hop.gateway == gateway]
        if not gone:
            raise Refused(Errno.ESRCH)
    if any(not interface.loopback for interface, _address in route.owners):
        raise Refused(Errno.EADDRINUSE)  # RTF_PINNED: it belongs to an address (lo0's go: 11-rc.txt)
    deleted = Route(key, gone)
    for hop in gone:
        remove_hop(vnet, route, hop)
    project(vnet, key)
    return deleted


def change(vnet: Vnet, key: Key, hop: Hop) -> None:
    """Change a route's way (RTM_CHANGE), with FreeBSD's two oddities: -reject is forgotten, and a reject stays one."""
    route = vnet.routes.get(key)
    if route is None or route.owners:
        raise Refused(Errno.ESRCH)
    old = route.hops[0]
    alike = [each for each in route.hops if each.gateway == hop.gateway]
    # of a multipath route only the way with this gateway is changed (change_mpath_route); a route(8) that speaks netlink
    # replaces it whole (route_netlink.c, NLM_F_REPLACE)
    replaced = route.hops[:] if len(route.hops) == 1 or vnet.kernel.appends else alike[:1]
    if not replaced:
        raise Refused(Errno.ESRCH)
    asked = hop.flags & (Rtf.REJECT | Rtf.BLACKHOLE)
    hop.flags &= ~(Rtf.REJECT | Rtf.BLACKHOLE)
    if asked:
        hop.flags |= Rtf.GATEWAY
    _complete(vnet, key, hop, loop=bool(asked))
    if old.flags & (Rtf.REJECT | Rtf.BLACKHOLE):
        hop.flags |= old.flags & (Rtf.REJECT | Rtf.BLACKHOLE)
        hop.interface = old.interface
        hop.mtu = old.mtu
    route.hops.append(_numbered(vnet, key, hop))
    for each in replaced:
        remove_hop(vnet, route, each)
    project(vnet, key)


def remove_hop(vnet: Vnet, route: Route, hop: Hop) -> None:
    """Take one way out of a route, and the route away with its last. Linux is not told: see `project`."""
    route.hops.remove(hop)
    if not route.hops:
        del vnet.routes[route.key]


def remove_through(vnet: Vnet, interface: Interface) -> None:
    """Forget every way over an interface that is leaving (rt_flushifroutes)."""
    for route in list(vnet.routes.values()):
        for hop in [each for each in route.hops if each.interface is interface]:
            remove_hop(vnet, route, hop)
            project(vnet, route.key)


def add_for_address(vnet: Vnet, interface: Interface, address: Address, parts: frozenset[str] = WHOLE) -> None:
    """The routes that an address brings: to itself, over lo0, and to its network (in_addprefix, nd6_prefix_onlink)."""
    for key, way, flags in _of_address(vnet, interface, address):
        if _part(key) not in parts:
            continue
        route = vnet.routes.get(key)
        if route is not None and route.owners:
            route.owners.append((interface, address))
            continue
        if route is not None:
            if address.family == INET6:
                raise Refused(Errno.EEXIST)  # 3-routes.txt: an address of the host where a host route exists
            for hop in list(route.hops):
                remove_hop(vnet, route, hop)
            project(vnet, key)
        hop = Hop(way, None, flags, mtu=way.mtu)
        hop.number = _free_number(vnet, key.family)
        vnet.routes[key] = Route(key, [hop], [(interface, address)])


def remove_for_address(vnet: Vnet, interface: Interface, address: Address, parts: frozenset[str] = WHOLE) -> None:
    """Take back what `add_for_address` brought, unless another address brought the same."""
    for route in list(vnet.routes.values()):
        if (interface, address) in route.owners and _part(route.key) in parts:
            route.owners.remove((interface, address))
            if not route.owners:
                for hop in list(route.hops):
                    remove_hop(vnet, route, hop)


def remove_owned(vnet: Vnet, interface: Interface, address: Address) -> None:
    """Forget every way that was found by an IPv4 address that goes (in_difaddr_ioctl, in_ifadown; 11-rc.txt)."""
    for route in list(vnet.routes.values()):
        gone = [hop for hop in route.hops if hop.owner == (interface, address)]
        for hop in gone:
            remove_hop(vnet, route, hop)
        if gone:
            project(vnet, route.key)


def link_number(route: Route, hop: Hop) -> int:
    """N of a route's `link#N`: its owner's interface, which is not always the one that packets leave by."""
    return route.owners[0][0].index if route.owners else hop.interface.index


def leads_over(vnet: Vnet, interface: Interface) -> bool:
    """Whether somebody added a route over this interface."""
    return any(not route.owners and hop.interface is interface for route in vnet.routes.values() for hop in route.hops)


def project_all(vnet: Vnet, interface: Interface) -> None:
    """Tell Linux again of every route over an interface that went up or down."""
    for route in vnet.routes.values():
        if any(hop.interface is interface for hop in route.hops):
            project(vnet, route.key)


def project(vnet: Vnet, key: Key) -> None:
    """Make Linux's route to *key* do what FreeBSD's does. Routes that addresses bring, Linux makes by itself."""
    route = vnet.routes.get(key)
    destination = key.packed
    if route is None:
        vnet.namespace.delete_route(destination, key.prefix_length)
        return
    if route.owners:
        return
    kind, hops = netlink.RTN_UNICAST, []
    for hop in route.hops:
        if hop.flags & Rtf.BLACKHOLE:
            kind = netlink.RTN_BLACKHOLE
        elif hop.flags & Rtf.REJECT or not hop.interface.up or not hop.source or not hop.interface.link:
            kind = netlink.RTN_UNREACHABLE
        elif hop.gateway is None or hop.interface.loopback:
            hops.append(netlink.Hop(hop.interface.link))
        else:
            family, value = hop.gateway
            gateway = plain(family, value).to_bytes(WIDTH[family] // 8, "big")
            if key.family == INET and any(
                each.interface is hop.interface and each.value == value for each in vnet.pinned
            ):
                gateway = NOWHERE  # 4-neighbours.txt: a pinned next hop drops IPv4 for good
                vnet.namespace.set_neighbour(hop.interface.link, NOWHERE, NOWHERE_ETHER)
            hops.append(netlink.Hop(hop.interface.link, gateway))
    if hops:
        kind = netlink.RTN_UNICAST
    if key.family == INET6 and kind != netlink.RTN_UNICAST:
        vnet.namespace.delete_route(destination, key.prefix_length)  # Linux would not replace a way by a refusal
    try:
        vnet.namespace.set_route(destination, key.prefix_length, kind, hops)
    except OSError as error:
        if error.errno not in (errno.EHOSTUNREACH, errno.ENETUNREACH):
            raise
        # the gateway is on no link any more: FreeBSD keeps such a route, and nobody answers there
        vnet.namespace.set_route(destination, key.prefix_length, netlink.RTN_UNREACHABLE, [])


def has_source(vnet: Vnet) -> bool:
    """Whether the vnet has an IPv4 address other than 127.0.0.1, without which IPv4 has no IPv6 next hops."""
    return any(
        address.family == INET and address.value != LOOPBACK4
        for interface in vnet.interfaces
        for address in interface.addresses
    )


def _of_address(vnet: Vnet, interface: Interface, address: Address) -> list[tuple[Key, Interface, Rtf]]:
    family, width = address.family, WIDTH[address.family]
    value = with_scope(family, address.value, interface)
    loopback = next(each for each in vnet.interfaces if each.loopback)
    if interface.loopback and family == INET:
        loopback = interface
    flags = Rtf.UP | Rtf.HOST | Rtf.PINNED
    prefix = address.prefix_length
    if family == INET6 or (prefix < width and not interface.loopback):
        flags |= Rtf.STATIC
    found = [(Key(family, value, width), loopback, flags)]
    if prefix < width and not (family == INET and interface.loopback):
        found.append((Key(family, network(family, value, prefix), prefix), interface, Rtf.UP | Rtf.PINNED))
    return found


def _part(key: Key) -> str:
    return SELF if key.prefix_length == WIDTH[key.family] else NETWORK


def _complete(vnet: Vnet, key: Key, hop: Hop, *, loop: bool = False) -> None:
    """Find the interface and the source address of a way, or refuse it (rt_getifa_fib, ifa_ifwithroute)."""
    _find_interface(vnet, key, hop, loop=loop)
    if key.family == INET:
        hop.owner = _owner(vnet, key, hop)


def _owner(vnet: Vnet, key: Key, hop: Hop) -> tuple[Interface, Address] | None:
    """The IPv4 address that a way goes with: of its interface the one in whose network the gateway (else the
    destination) is, or the first; where the interface has none, the vnet's first but 127.0.0.1 (ifaof_ifpforaddr).
    """
    wanted = hop.gateway[1] if hop.gateway is not None and hop.gateway[0] == INET else key.value
    own = [each for each in hop.interface.addresses if each.family == INET]
    for each in own:
        if Key(INET, network(INET, each.value, each.prefix_length), each.prefix_length).holds(wanted):
            return hop.interface, each
    if own:
        return hop.interface, own[0]
    return next(
        (
            (interface, each)
            for interface in vnet.interfaces
            for each in interface.addresses
            if each.family == INET and each.value != LOOPBACK4
        ),
        None,
    )


def _find_interface(vnet: Vnet, key: Key, hop: Hop, *, loop: bool) -> None:
    if hop.flags & (Rtf.REJECT | Rtf.BLACKHOLE):
        hop.flags &= ~Rtf.GATEWAY
    if hop.flags & (Rtf.REJECT | Rtf.BLACKHOLE) or loop:
        hop.interface = next(each for each in vnet.interfaces if each.loopback)
        hop.mtu = hop.interface.mtu
        return
    if hop.gateway is None:
        hop.mtu = hop.interface.mtu
        if key.family == INET:
            hop.source = any(each.family == INET for each in hop.interface.addresses)
        return
    family, value = hop.gateway
    if family != key.family and not (key.family == INET and vnet.sysctls.get(IPV6_NEXTHOP)):
        raise Refused(Errno.EINVAL)
    if is_link_local(family, value):
        interface = vnet.by_index(scope_of(value))
        if interface is None:
            raise Refused(Errno.ENETUNREACH)
    else:
        way = lookup(vnet, family, value)
        if way is None or way.hops[0].flags & (Rtf.GATEWAY | Rtf.REJECT | Rtf.BLACKHOLE):
            raise Refused(Errno.ENETUNREACH)
        interface = way.hops[0].interface
    if family != key.family and not has_source(vnet):
        raise Refused(Errno.ENETUNREACH)
    hop.interface = interface
    hop.mtu = interface.mtu


def _can_multipath(hop: Hop) -> bool:
    """nhop_can_multipath(): only real gateways can share a destination."""
    return bool(hop.flags & Rtf.GATEWAY) and not hop.flags & (Rtf.REJECT | Rtf.BLACKHOLE)


def _crossed(key: Key, hop: Hop) -> bool:
    return hop.gateway is not None and hop.gateway[0] != key.family


def _number_family(key: Key, hop: Hop) -> int:
    return hop.gateway[0] if hop.gateway else key.family


def _numbered(vnet: Vnet, key: Key, hop: Hop) -> Hop:
    """Give a next hop its number; the same next hop has one number, however many routes use it."""
    family = _number_family(key, hop)
    for route in vnet.routes.values():
        for each in route.hops:
            if (
                not route.owners
                and route.key.family == key.family
                and each.gateway == hop.gateway
                and each.interface is hop.interface
                and each.flags == hop.flags
                and each.gateway is not None
            ):
                hop.number = each.number
                return hop
    hop.number = _free_number(vnet, family)
    return hop


def _free_number(vnet: Vnet, family: int) -> int:
    taken = {
        hop.number for route in vnet.routes.values() for hop in route.hops if _number_family(route.key, hop) == family
    }
    number = 1
    while number in taken:
        number += 1
    return number
