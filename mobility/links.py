"""What a look at the host says of one jail's link: pure readings of a view.

A link is a pair whose outer end stays on the host. Ours carries the group `mobility` and a description that names the
jail; one that a jail manager made keeps the manager's name, and carries our group while it serves.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from mobility.decide import How, Memory
from mobility.jails.jailsd import JailConfig, services_of
from mobility.model import Prefix, address, destination, network_prefix
from mobility.network import naming
from mobility.network.output import HostView, Interface, Jail, NetView, Route

LOOPBACK = {4: "127.0.0.1", 6: "::1"}
EPAIR_GROUP = "epair"
"""The group of every epair; an end that comes home from a jail has lost it (transcript 2-vnet)."""


@dataclass(frozen=True, slots=True)
class Link:
    """A jail's link: the outer end's name, the names that the inner one may have, and whether its manager made it."""

    outer: str
    inner: tuple[str, ...]
    adopted: bool = False

    @property
    def next_hop(self) -> str:
        """The host's next hop into the jail."""
        return f"{naming.INNER_LINK_LOCAL}%{self.outer}"

    def inner_in(self, inside: NetView) -> Interface | None:
        """Return the jail's end among the jail's interfaces."""
        return next((found for name in self.inner if (found := inside.interface(name))), None)


def own_link(jail: str) -> Link:
    """Return the link that we make for a jail."""
    return Link(naming.outer_name(jail), (naming.inner_name(jail),))


def link_of(
    name: str, config: JailConfig | None, jail: Jail | None, memory: Memory, view: HostView, *, starting: bool = False
) -> Link | None:
    """Return the link that a jail has, or is to have; None for a jail without a vnet of its own.

    What a running jail is wired with stays its link until it stops; `starting` asks for its next one.
    """
    if memory.how is How.PLAIN if jail is None else not jail.vnet:
        return None
    if jail is None and config is not None and config.vnet is False:
        return None
    ends = config.ends if config else None
    serves = bool(memory.adopted) and (jail is None or memory.adopted_by == jail.jid)
    made = owned(view, name) is not None and not (jail and inner_on_host(view, name))
    if starting:
        return Link(ends.outer, ends.inner, adopted=True) if ends else own_link(name)
    if made and not serves:
        return own_link(name)
    if ends is not None and jail is not None:
        return Link(ends.outer.format(jid=jail.jid), ends.inner, adopted=True)
    if serves:
        return Link(memory.adopted, memory.inner, adopted=True)
    return Link(ends.outer, ends.inner, adopted=True) if ends else own_link(name)


def owned(view: HostView, jail: str) -> Interface | None:
    """Return the jail's outer end if it is there and ours: in our group, and described as this jail's."""
    interface = outer_of(view, jail)
    if interface is None:
        return None
    found = naming.described(interface.description)
    return interface if found and found[0] == jail else None


def outer_of(view: HostView, jail: str) -> Interface | None:
    """Return the interface under the jail's outer end's name, if it is in our group."""
    return _of_ours(view, naming.outer_name(jail))


def _of_ours(view: HostView, name: str) -> Interface | None:
    """Return the interface of that name in our group: another one may have come home under it, without any group."""
    several = view.net.interfaces.get(name, ()) if name in view.ours else ()
    return next((interface for interface in several if naming.GROUP in interface.groups), None)


def outer_end(view: HostView, jail: str, link: Link) -> Interface | None:
    """Return the outer end of a jail's link, None where it is not there."""
    if not link.adopted:
        return owned(view, jail)
    # what came home from a jail under this name has lost the group epair; should its root have written such a line into
    # its description, there are two, and neither is believed
    several = [one for one in view.net.interfaces.get(link.outer, ()) if EPAIR_GROUP in one.groups]
    return several[0] if len(several) == 1 else None


def made_for(view: HostView) -> dict[str, Interface]:
    """Return our outer ends by the jail that they say they are for."""
    found: dict[str, Interface] = {}
    for name in view.ours:
        interface = _of_ours(view, name)
        said = naming.described(interface.description) if interface else None
        if interface and said and naming.outer_name(said[0]) == name:
            found[said[0]] = interface
    return found


def pair_of(outer: Interface) -> str:
    """Return the pair that our outer end was made as ("epair1234"), from its description."""
    said = naming.described(outer.description)
    return said[1] if said else ""


def inner_on_host(view: HostView, jail: str) -> bool:
    """Tell whether the inner end of the jail's own pair has not been moved into it yet."""
    outer = owned(view, jail)
    if outer is None:
        return False
    return any(name in view.net.interfaces for name in (naming.inner_name(jail), pair_of(outer) + "b"))


def gateway(config: JailConfig, prefix: Prefix, link: Link, how: How) -> str:
    """Return the gateway of the host's route to one of the jail's prefixes, "" for an interface route.

    An IPv6 address of its own goes by interface route, an IPv4 one by the link's next hop (transcripts 4-neighbours and
    10-interface-routes). A service goes by the next hop: routed by interface, its unused addresses would each take a
    place in the neighbour cache (12-service-prefix). Where IPv4 has no IPv6 next hops, an IPv4 service goes by the jail's
    own IPv4 address as 10-interface-routes sends the jail's default by the host's; `unroutable` says where it has none.
    """
    by_interface = how is How.INTERFACE and prefix.version == 4
    if prefix not in config.services:
        return "" if by_interface or prefix.version == 6 else link.next_hop
    return _own_ipv4(config) if by_interface else link.next_hop


def _own_ipv4(config: JailConfig) -> str:
    return next((address(prefix) for prefix in config.addresses if prefix.version == 4), "")


def unroutable(config: JailConfig, how: How) -> tuple[Prefix, ...]:
    """Return the jail's services that the host can not route to it as this kernel is."""
    if how is not How.INTERFACE or _own_ipv4(config):
        return ()
    return tuple(prefix for prefix in config.services if prefix.version == 4)


def right(route: Route, link: Link, by: str) -> bool:
    """Tell whether a host route to one of the jail's prefixes is as we make it; `by` is its `gateway`."""
    if route.interface != link.outer or route.reject:
        return False
    return route.gateway == by if by else "G" not in route.flags


def rejected(route: Route) -> bool:
    """Tell whether a route is a reject as we make them: to loopback, with the R flag."""
    return route.reject and route.gateway == LOOPBACK[route.version]


def through(view: HostView, outer: str, services: Container[str] = ()) -> Iterator[Route]:
    """Yield the host routes to jails' prefixes that leave through an outer end.

    Those to single addresses are ours. So are those to networks that are among `services` (as netstat(1) prints them):
    any other one is somebody's own.
    """
    for route in view.net.by_interface.get(outer, ()):
        ours = "H" in route.flags or route.destination in services
        if ours and "S" in route.flags and "%" not in route.destination:
            yield route


def services_known(config: JailConfig | None, memory: Memory) -> frozenset[str]:
    """Return the services that a jail has, or had when it was last wired, as netstat(1) prints them."""
    now = config.services if config else ()
    return frozenset(destination(prefix) for prefix in (*now, *services_of(memory.granted)))


def carries(
    view: HostView,
    jail: str,
    link: Link | None,
    prefixes: Iterable[Prefix],
    how: How,
    config: JailConfig | None = None,
) -> bool:
    """Tell whether the host brings packets for all of these prefixes to the jail; `config` tells which are services."""
    if link is None:
        return all(view.net.by_address.get(address(prefix)) for prefix in prefixes)
    if outer_end(view, jail, link) is None or (not link.adopted and inner_on_host(view, jail)):
        return False
    config = config or JailConfig(jail, (), "")
    return all(
        len(routes) == 1 and right(routes[0], link, gateway(config, prefix, link, how))
        for prefix in prefixes
        for routes in [view.net.routes_to(destination(prefix), prefix.version)]
    )


def wired_prefixes(
    view: HostView, link: Link | None, services: Container[str] = (), *, besides: Container[str] = ()
) -> list[Prefix]:
    """Return the prefixes that the host routes to the jail now but for those in `besides`; for `services` see `through`."""
    routes = through(view, link.outer, services) if link else []
    return [network_prefix(route.destination) for route in routes if route.destination not in besides]


def concerning(view: HostView, jail: str, link: Link | None, addresses: Iterable[str], bridge: str = "") -> HostView:
    """Return the part of a view that concerns one jail: small enough to keep, and to compare with the next look's.

    `addresses` are its addresses and services, as netstat(1) prints them or as `Memory.granted` keeps them; `bridge` is
    the one that the link's outer end was taken out of.
    """
    addresses = frozenset(destination(network_prefix(text)) if "/" in text else text for text in addresses)
    outers = {naming.outer_name(jail)} | ({link.outer} if link else set())
    names = {*outers, naming.inner_name(jail)}
    own = owned(view, jail)
    if own is not None:
        names.add(pair_of(own) + "b")
    interfaces = {name: view.net.interfaces[name] for name in sorted(names) if name in view.net.interfaces}
    # of what others share, only what this jail has to do with
    shared = {"lo0", *(name for text in addresses for name in view.net.by_address.get(text, ()))}
    shared |= {route.interface for text in addresses for route in view.net.routes.get(text, ())}
    if view.net.with_ipv4 is not None:
        shared.add(view.net.with_ipv4.name)
    for name in sorted(shared - names):
        several = view.net.interfaces.get(name, ())
        interfaces[name] = tuple(_reduced(one, addresses, view.net.ipv4) for one in several)
    within = {outer: view.net.bridge_of[outer] for outer in sorted(outers & view.net.bridge_of.keys())}
    for name in ({bridge} & view.net.interfaces.keys()) | set(within.values()):
        members = tuple(outer for outer in within if within[outer] == name)
        interfaces[name] = (Interface(name, up=True, members=members),)
    ways = (route.destination for outer in outers for route in through(view, outer))
    texts = sorted({*addresses, *ways})
    routes = {text: view.net.routes[text] for text in texts if text in view.net.routes}
    jails = {jail: view.jails[jail]} if jail in view.jails else {}
    return HostView(NetView(interfaces, routes), view.ours & outers, jails)


def _reduced(interface: Interface, addresses: frozenset[str], host: str) -> Interface:
    kept = {*addresses, host, *LOOPBACK.values()}
    if all(text in kept or text.startswith("fe80:") for text in (*interface.inet, *interface.inet6)):
        return interface  # thousands of jails share it
    return Interface(
        interface.name,
        interface.up,
        groups=interface.groups,
        inet=tuple(text for text in interface.inet if text in kept),
        inet6=tuple(text for text in interface.inet6 if text in kept),
    )


def passing_over(view: HostView, interfaces: Iterable[str]) -> HostView:
    """Return the view with these interface names taken, so that no pair is made with their units."""
    taken = dict.fromkeys(interfaces, ())
    return replace(view, net=NetView({**view.net.interfaces, **taken}, view.net.routes)) if taken else view


def holders(
    shared: Mapping[Prefix, tuple[str, ...]], view: HostView, adopted: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return which jail holds each address, or service prefix, that was granted to several, by what netstat(1) prints.

    `adopted` are the outer ends that managers made, by jail. The running jail that is wired with it keeps it, so that
    no restart of ours changes who has it; else the first of the running ones by name.
    """
    found: dict[str, str] = {}
    for prefix, names in shared.items():
        text = destination(prefix)
        routes = view.net.routes_to(text, prefix.version)
        running = [name for name in names if name in view.jails]
        outers = {name: (adopted or {}).get(name) or naming.outer_name(name) for name in names}
        wired = [n for n in names if any(r.interface == outers[n] and not r.reject for r in routes)]
        wired += [name for name in running if text in view.jails[name].addresses]
        if wired or running:
            found[text] = (*wired, *running)[0]
    return found
