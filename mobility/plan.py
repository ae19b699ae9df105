"""What has to be done for one jail: pure functions from what is wanted and what is observed to commands.

`decide` says where a jail should stand, `plan` which of FreeBSD's commands lead there from what a look showed. Both
are level-driven: they never ask how things came to be as they are, so that lost, repeated and reordered events end in
the same place. The commands are those of transcript 8-reference, in its order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from netaddr import IPAddress

from mobility.jails.jailsd import JailConfig
from mobility.model import Phase, Prefix, address
from mobility.network import naming
from mobility.network.output import HostView, Interface, Jail, NetView, Route

LOOPBACK = {4: "127.0.0.1", 6: "::1"}
UNIT_TRIES = 64
"""How many epair units are tried before giving up: others may number theirs in our range."""


class Refused(Exception):
    """The jail can not be given its network as things are; the message tells the operator what to do."""


class Stand(StrEnum):
    """Where a jail should stand."""

    ABSENT = "absent"
    """Nothing of ours is left, but a reject for packets still in flight."""
    PAIRED = "paired"
    """About to be made: its pair exists on the host."""
    WIRED = "wired"
    """Runs and is wired, and is not to be announced."""
    ANNOUNCED = "announced"
    """Runs, is wired and is to be announced."""
    CLOSING = "closing"
    """About to stop: withdrawn, its addresses rejected, still wired."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a jail should stand, and why it is not announced if it is not."""

    stand: Stand
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Memory:
    """What is remembered of a jail beyond any look. Times are this boot's monotonic clock, in seconds."""

    phase: Phase | None = None
    """The last hook event."""
    phase_at: float = 0.0
    jid: int | None = None
    """The jid last seen running, and since when."""
    seen_at: float = 0.0
    started: int | None = None
    """The jid whose start is known to be complete."""
    rejects: tuple[str, ...] = ()
    """The addresses that are rejected while packets may be in flight, and since when."""
    rejects_at: float = 0.0
    granted: tuple[str, ...] = ()
    """What it was last wired with: it keeps that when its file is broken while it runs."""
    wired: int | None = None
    """The jid that was wired so, inside and out."""
    announced_at: float = 0.0
    """Since when it has been announced, 0 while it is not: a restart of the agent is no news of the jail's."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long hook events are believed, in seconds."""

    starting_for: float
    stopping_for: float
    reject_for: float


@dataclass(frozen=True, slots=True)
class Command:
    """One command to run as root, on the host or (through jexec) in the jail, and what it is for."""

    argv: tuple[str, ...]
    why: str

    @property
    def in_jail(self) -> bool:
        """Whether the jail's own program is run."""
        return self.argv[0] == "jexec"


def observe(memory: Memory, jail: Jail | None, now: float) -> Memory:
    """Return the memory after a look that showed the jail as running (with its jid) or not."""
    if jail is None:
        return replace(memory, jid=None, started=None) if memory.jid is not None else memory
    if jail.jid != memory.jid:
        # where its prestop is the first that is ever heard of a jail, it is that jail's
        first = memory.seen_at == 0.0 and memory.phase is Phase.PRESTOP
        return replace(memory, jid=jail.jid, seen_at=memory.phase_at if first else now, started=None)
    return memory


def decide(
    config: JailConfig | None,
    jail: Jail | None,
    memory: Memory,
    now: float,
    patience: Patience,
    *,
    drained: str = "",
) -> Target:
    """Say where a jail should stand.

    `config` is None where no addresses are granted, `jail` None where it does not run; `memory` is `observe`d already;
    `drained` is the reason not to announce it, where there is one.
    """
    age = now - memory.phase_at
    if jail is None:
        # at created the jail existed: if it is not there any more its start has failed, and no hook says so
        coming = memory.phase is Phase.PRESTART and age < patience.starting_for
        if config is not None and coming:
            return Target(Stand.PAIRED, "is about to start")
        return Target(Stand.ABSENT, "does not run")
    if config is None:
        return Target(Stand.ABSENT, "has no addresses granted")
    if not jail.vnet:
        return Target(Stand.ABSENT, "has no vnet of its own: add `vnet;` to its jail.conf")
    if memory.phase is Phase.PRESTOP and memory.phase_at >= memory.seen_at and age < patience.stopping_for:
        return Target(Stand.CLOSING, "is stopping")
    starting = memory.phase in (Phase.PRESTART, Phase.CREATED) and memory.started != jail.jid
    if starting and age < patience.starting_for:
        return Target(Stand.WIRED, "is starting: its poststart hook has not come yet")
    if drained:
        return Target(Stand.WIRED, drained)
    return Target(Stand.ANNOUNCED)


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


def made_for(view: HostView) -> dict[str, Interface]:
    """Return our outer ends by the jail that they say they are for."""
    found: dict[str, Interface] = {}
    for name in view.ours:
        interface = _of_ours(view, name)
        said = naming.described(interface.description) if interface else None
        if interface and said and naming.outer_name(said[0]) == name:
            found[said[0]] = interface
    return found


def inner_on_host(view: HostView, jail: str) -> bool:
    """Tell whether the jail's inner end has not been moved into it yet."""
    outer = owned(view, jail)
    if outer is None:
        return False
    return any(name in view.net.interfaces for name in (naming.inner_name(jail), _pair_of(outer) + "b"))


def _pair_of(outer: Interface) -> str:
    said = naming.described(outer.description)
    return said[1] if said else ""


def plan(
    target: Target,
    jail: str,
    host: str,
    config: JailConfig | None,
    view: HostView,
    inside: NetView | None,
    unreject: Iterable[str] = (),
) -> list[Command]:
    """Return the commands that lead from `view` to `target`, in order; none when all is as it should be.

    `inside` is what a look inside the jail showed, or None where the inside is known to be right. `unreject` are the
    addresses for which no packet can be in flight any more. BGP is the caller's part: withdraw before
    these commands, announce after.
    Raises Refused when something of others is in the way.
    """
    return list(_plan(target, jail, host, config, view, inside, unreject))


def _plan(
    target: Target,
    jail: str,
    host: str,
    config: JailConfig | None,
    view: HostView,
    inside: NetView | None,
    unreject: Iterable[str],
) -> Iterator[Command]:
    outer = owned(view, jail)
    granted = config.addresses if config else ()
    if target.stand in (Stand.ABSENT, Stand.CLOSING):
        yield from _reject(jail, view)
        if target.stand is Stand.ABSENT:
            if outer is not None:
                yield Command(("ifconfig", outer.name, "destroy"), "unwire: the inner end goes with it, wherever it is")
            yield from _unreject(unreject, view)
        return
    yield from _unreject((text for text in unreject if text not in map(address, granted)), view)
    if outer is not None and target.stand is not Stand.PAIRED and not inner_on_host(view, jail):
        if inside is not None and inside.interface(naming.inner_name(jail)) is None:
            # renamed, or taken away, by the jail's root: nothing in there can be trusted to be ours
            yield Command(
                ("ifconfig", outer.name, "destroy"), "the jail's end is not where it belongs: make a new pair"
            )
            view = expect(Target(Stand.ABSENT), jail, host, config, view)
            outer, inside = None, NetView()
    elif target.stand is not Stand.PAIRED:
        inside = NetView()
    yield from _pair(jail, host, view, outer)
    if target.stand is Stand.PAIRED:
        return
    if outer is None or inner_on_host(view, jail):
        yield Command(("ifconfig", naming.inner_name(jail), "vnet", jail), "move the inner end into the jail")
    if inside is not None:
        yield from _inside(jail, granted, inside)
    yield from _host_routes(jail, granted, view)


def _pair(jail: str, host: str, view: HostView, outer: Interface | None) -> Iterator[Command]:
    name, inner = naming.outer_name(jail), naming.inner_name(jail)
    if outer is None:
        if name in view.net.interfaces:
            raise Refused(
                f"jail {jail}: an interface {name} exists that is not ours: look at it (ifconfig {name}), "
                f"then rename or destroy it"
            )
        pair = f"epair{free_unit(jail, view)}"
        yield Command(
            (
                "ifconfig",
                pair,
                "create",
                "name",
                name,
                "group",
                naming.GROUP,
                "description",
                naming.description(jail, pair),
            ),
            "make the pair; from its first moment its outer end says whose it is",
        )
        outer = Interface(name, up=False, nd6=frozenset({"IFDISABLED", "AUTO_LINKLOCAL"}))
        inner_name, inner_mac = pair + "b", ""
    else:
        inner_name = next((n for n in (_pair_of(outer) + "b", inner) if n in view.net.interfaces), "")
        inner_mac = next((i.ether for i in view.net.interfaces.get(inner_name, ())), "")
    if inner_name and inner_name != inner:
        yield Command(("ifconfig", inner_name, "name", inner), "name the inner end")
    if inner_name and inner_mac != naming.inner_mac(host, jail):
        yield Command(
            ("ifconfig", inner, "ether", naming.inner_mac(host, jail)),
            "the jail keeps its MAC across restarts",
        )
    if outer.ether != naming.outer_mac(host, jail):
        yield Command(("ifconfig", name, "ether", naming.outer_mac(host, jail)), "our own MAC")
    yield from _link(("ifconfig",), outer, naming.OUTER_LINK_LOCAL)


def _link(ifconfig: tuple[str, ...], found: Interface, link_local: str) -> Iterator[Command]:
    ready = "NO_DAD" in found.nd6 and not {"IFDISABLED", "AUTO_LINKLOCAL"} & found.nd6 and found.up
    if not ready:
        yield Command(
            (*ifconfig, found.name, "inet6", "-auto_linklocal", "no_dad", "-ifdisabled", "up"),
            "no second link-local address, no second of silence for duplicate address detection; up",
        )
    if link_local not in found.inet6:
        yield Command((*ifconfig, found.name, "inet6", f"{link_local}/64"), "its end of the unnumbered link")


def _inside(jail: str, granted: Iterable[Prefix], inside: NetView) -> Iterator[Command]:
    into = ("jexec", jail)
    name = naming.inner_name(jail)
    loopback = inside.interface("lo0")
    if loopback is None or not loopback.up or LOOPBACK[4] not in loopback.inet:
        yield Command((*into, "ifconfig", "lo0", "inet", "127.0.0.1/8", "up"), "the jail's loopback")
    found = inside.interface(name) or Interface(name, up=False, nd6=frozenset({"IFDISABLED", "AUTO_LINKLOCAL"}))
    yield from _link((*into, "ifconfig"), found, naming.INNER_LINK_LOCAL)
    wanted = [(prefix.version, address(prefix)) for prefix in granted]
    for version, text in wanted:
        if text not in (found.inet if version == 4 else found.inet6):
            family, length = ("inet", 32) if version == 4 else ("inet6", 128)
            yield Command((*into, "ifconfig", name, family, f"{text}/{length}", "alias"), "the jail's address")
    for version, family, length, present in ((4, "inet", 32, found.inet), (6, "inet6", 128, found.inet6)):
        for text in present:
            if (version, text) not in wanted and not IPAddress(text).is_link_local():
                yield Command((*into, "ifconfig", name, family, f"{text}/{length}", "-alias"), "no longer granted")
    gateway = f"{naming.OUTER_LINK_LOCAL}%{name}"
    for version in sorted({version for version, _ in wanted}, reverse=True):
        defaults = inside.routes_to("default", version)
        if not any(route.gateway == gateway and not route.reject for route in defaults):
            verb = "change" if defaults else "add"
            how = ("-6", verb, "default", gateway) if version == 6 else (verb, "default", "-inet6", gateway)
            yield Command((*into, "route", "-n", *how), f"the jail's IPv{version} way out")


def _route(version: int, verb: str, text: str, *way: str) -> tuple[str, ...]:
    return ("route", "-n", *(("-6",) if version == 6 else ()), verb, "-host", text, *way)


def _way(version: int, outer: str) -> tuple[str, ...]:
    # the /128 by interface route and the /32 by next hop: see the traps of 4-neighbours and 10-interface-routes
    return ("-interface", outer) if version == 6 else ("-inet6", f"{naming.INNER_LINK_LOCAL}%{outer}")


def _right(route: Route, outer: str) -> bool:
    if route.interface != outer or route.reject:
        return False
    if route.version == 6:
        return "G" not in route.flags
    return route.gateway == f"{naming.INNER_LINK_LOCAL}%{outer}"


def carries(view: HostView, jail: str, prefixes: Iterable[Prefix]) -> bool:
    """Tell whether the host sends packets for all of these addresses into the jail's pair, and the pair into the jail."""
    if owned(view, jail) is None or inner_on_host(view, jail):
        return False
    outer = naming.outer_name(jail)
    found = (view.net.routes_to(address(prefix), prefix.version) for prefix in prefixes)
    return all(len(routes) == 1 and _right(routes[0], outer) for routes in found)


def rejected(route: Route) -> bool:
    """Tell whether a route is a reject as we make them: to loopback, with the R flag."""
    return route.reject and route.gateway == LOOPBACK[route.version]


def _delete(route: Route, *, alone: bool) -> Command:
    # a multipath route is deleted by its gateway only ("not in table" otherwise; transcript 3-routes)
    way: tuple[str, ...] = ()
    if not alone:
        way = (route.gateway,) if "G" in route.flags or route.reject else ("-interface", route.interface)
        if route.version == 4 and ":" in route.gateway:
            way = ("-inet6", route.gateway)
    return Command(_route(route.version, "delete", route.destination, *way), "")


def _host_routes(jail: str, granted: Iterable[Prefix], view: HostView) -> Iterator[Command]:
    outer = naming.outer_name(jail)
    wanted = [(prefix.version, address(prefix)) for prefix in granted]
    if any(version == 4 for version, _ in wanted) and view.net.with_ipv4 is None:
        yield Command(
            ("ifconfig", "lo0", "inet", f"{naming.DUMMY_IPV4}/32", "alias"),
            "IPv4 over an IPv6 next hop needs an IPv4 address on the host: the dummy (RFC 7600)",
        )
    for version, text in wanted:
        found = view.net.routes_to(text, version)
        if len(found) == 1 and _right(found[0], outer):
            continue
        for route in found:
            if route.interface != outer and not rejected(route):
                raise Refused(
                    f"jail {jail}: a route to {text} through {route.interface} exists that is not this jail's: "
                    f"find out whose it is (route -n get {text}), then delete it"
                )
        for route in found:
            yield replace(_delete(route, alone=len(found) == 1), why="in the way of the jail's own route")
        yield Command(
            _route(version, "add", text, *_way(version, outer)),
            f"packets for the jail's IPv{version} address",
        )
    for route in _through(view, outer):
        if (route.version, route.destination) not in wanted:
            yield replace(_delete(route, alone=True), why="no longer granted")


def _through(view: HostView, outer: str) -> Iterator[Route]:
    for route in view.net.by_interface.get(outer, ()):
        if {"H", "S"} <= set(route.flags) and "%" not in route.destination:
            yield route


def _reject(jail: str, view: HostView) -> Iterator[Command]:
    outer = naming.outer_name(jail)
    for route in tuple(_through(view, outer)):
        alone = len(view.net.routes_to(route.destination, route.version)) == 1
        yield replace(_delete(route, alone=alone), why="delete, then add: `route change` forgets the reject")
        if alone:
            yield Command(
                _route(route.version, "add", route.destination, LOOPBACK[route.version], "-reject"),
                "packets in flight get an ICMP answer and never loop",
            )


def _unreject(addresses: Iterable[str], view: HostView) -> Iterator[Command]:
    for text in addresses:
        for route in view.net.routes.get(text, ()):
            if rejected(route):
                yield replace(_delete(route, alone=True), why="nothing can be in flight any more")


def wired_addresses(view: HostView, jail: str) -> list[str]:
    """Return the addresses that the host routes to the jail now, granted or not."""
    return [route.destination for route in _through(view, naming.outer_name(jail))]


def concerning(view: HostView, jail: str, addresses: Iterable[str]) -> HostView:
    """Return the part of a view that concerns one jail: small enough to keep, and to compare with the next look's."""
    outer = naming.outer_name(jail)
    names = {"lo0", outer, naming.inner_name(jail)}
    own = owned(view, jail)
    if own is not None:
        names.add(_pair_of(own) + "b")
    if view.net.with_ipv4 is not None:
        names.add(view.net.with_ipv4.name)
    interfaces = {name: view.net.interfaces[name] for name in sorted(names) if name in view.net.interfaces}
    through = (route.destination for route in _through(view, outer))
    texts = sorted({*addresses, *through})
    routes = {text: view.net.routes[text] for text in texts if text in view.net.routes}
    jails = {jail: view.jails[jail]} if jail in view.jails else {}
    return HostView(NetView(interfaces, routes), view.ours & {outer}, jails)


def passing_over(view: HostView, interfaces: Iterable[str]) -> HostView:
    """Return the view with these interface names taken, so that `free_unit` passes over them."""
    taken = dict.fromkeys(interfaces, ())
    return replace(view, net=NetView({**view.net.interfaces, **taken}, view.net.routes)) if taken else view


def free_unit(jail: str, view: HostView) -> int:
    """Return the epair unit to make the jail's pair with, passing over units seen in use.

    Units of renamed ends can not be seen; our own are told by their descriptions, others' show when `create` says
    that the interface exists.
    """
    used = {name[:-1] for name in view.net.interfaces if name.startswith("epair")}
    used |= {_pair_of(outer) for outer in made_for(view).values()}
    unit = naming.first_unit(jail)
    for _ in range(UNIT_TRIES):
        if f"epair{unit}" not in used:
            return unit
        unit = naming.next_unit(unit)
    raise Refused(f"jail {jail}: {UNIT_TRIES} epair units in a row are taken: look at ifconfig -l")


def expect(
    target: Target,
    jail: str,
    host: str,
    config: JailConfig | None,
    view: HostView,
    unreject: Iterable[str] = (),
) -> HostView:
    """Return what a look should show of this jail once its plan (see `plan`) has been carried out.

    It saves a second look between two hooks of one start; the next look corrects it if it was wrong.
    """
    name, inner = naming.outer_name(jail), naming.inner_name(jail)
    interfaces = dict(view.net.interfaces)
    ours = view.ours
    granted = config.addresses if config else ()
    routes = dict(_expected_routes(target.stand, name, view, frozenset(unreject)))
    if target.stand in (Stand.WIRED, Stand.ANNOUNCED):
        for prefix in granted:
            gateway = "link#0" if prefix.version == 6 else f"{naming.INNER_LINK_LOCAL}%{name}"
            flags = "UHS" if prefix.version == 6 else "UGHS"
            routes[address(prefix)] = (Route(prefix.version, address(prefix), gateway, flags, name),)
    outer = owned(view, jail)
    if target.stand is Stand.ABSENT:
        interfaces.pop(name, None)
        interfaces.pop(inner, None)
        ours -= {name}
    elif target.stand is not Stand.CLOSING:
        pair = _pair_of(outer) if outer else f"epair{free_unit(jail, view)}"
        interfaces.pop(pair + "b", None)
        interfaces[name] = (_finished(name, naming.outer_mac(host, jail), naming.OUTER_LINK_LOCAL, jail, pair),)
        ours |= {name}
        if target.stand is Stand.PAIRED:
            interfaces[inner] = (Interface(inner, up=False, ether=naming.inner_mac(host, jail)),)
        else:
            interfaces.pop(inner, None)
            if granted and view.net.with_ipv4 is None:
                interfaces["lo0"] = tuple(
                    replace(i, inet=(*i.inet, naming.DUMMY_IPV4)) for i in interfaces.get("lo0", ())
                )
    return HostView(NetView(interfaces, routes), ours, view.jails)


def _expected_routes(
    stand: Stand, outer: str, view: HostView, unreject: frozenset[str]
) -> Iterator[tuple[str, tuple[Route, ...]]]:
    through = {route.destination: route for route in _through(view, outer)}
    for text, found in view.net.routes.items():
        left = tuple(
            route
            for route in found
            if route.interface != outer and not (text in unreject and rejected(route) and stand is not Stand.CLOSING)
        )
        if not left and text in through and stand in (Stand.ABSENT, Stand.CLOSING):
            version = through[text].version
            left = (Route(version, text, LOOPBACK[version], "UHRS", "lo0"),)
        if left:
            yield text, left


def _finished(name: str, ether: str, link_local: str, jail: str, pair: str) -> Interface:
    return Interface(
        name,
        up=True,
        ether=ether,
        description=naming.description(jail, pair),
        groups=frozenset({"epair", naming.GROUP}),
        inet6=(link_local,),
        nd6=frozenset({"PERFORMNUD", "NO_DAD"}),
    )


def holders(shared: Mapping[Prefix, tuple[str, ...]], view: HostView) -> dict[str, str]:
    """Return which jail holds each address that was granted to several, by the address.

    The running jail that is wired with it keeps it, so that no restart of ours changes who has it; else the first of
    the running ones by name.
    """
    found: dict[str, str] = {}
    for prefix, names in shared.items():
        text = address(prefix)
        routes = view.net.routes_to(text, prefix.version)
        wired = [name for name in names if any(_right(route, naming.outer_name(name)) for route in routes)]
        running = [name for name in names if name in view.jails]
        if wired or running:
            found[text] = (*wired, *running)[0]
    return found
