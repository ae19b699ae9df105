"""What has to be done for one jail: a pure function from what is wanted and what is observed to FreeBSD's commands.

Level-driven: whatever a look showed, `plan` says which commands lead from there to the target. Those of a jail's own
link are the commands of transcript 8-reference, in its order; IPv4 by interface routes is transcript 10, prefixes beyond
its own addresses are transcript 12.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace

from netaddr import IPAddress

from mobility import links
from mobility.decide import How, Memory, Stand, Target
from mobility.jails.jailsd import JailConfig, services_of
from mobility.links import LOOPBACK, Link
from mobility.model import Prefix, address, destination, single
from mobility.network import naming
from mobility.network.output import HostView, Interface, NetView, Route

UNIT_TRIES = 64
"""How many epair units are tried before giving up: others may number theirs in our range."""
_FAMILY = {4: ("inet", 32), 6: ("inet6", 128)}
_STILL_THERE = ("route already in table", "Invalid argument", "File exists")
"""What route(8) says where an IPv4 route is there already (transcripts 3-routes and 11-rc)."""
_NO_SUCH_ROUTE = "not in table"
_NO_SUCH_NEIGHBOUR = "No such file or directory"
_NO_SUCH_ADDRESS = "Can't assign requested address"
"""What route(8) and ifconfig(8) say where there is nothing to remove (transcript 3-routes; ifconfig.c, notealias)."""
_UNREADY = frozenset({"IFDISABLED", "AUTO_LINKLOCAL"})
"""What an interface is made with (nd6 options; transcript 1-interfaces), and must not have on a link of ours."""


class Refused(Exception):
    """The jail can not be given its network as things are; the message tells the operator what to do."""


@dataclass(frozen=True, slots=True)
class Command:
    """One command to run as root, on the host or (through jexec) in the jail, and what it is for."""

    argv: tuple[str, ...]
    why: str
    harmless: tuple[str, ...] = ()
    """What it may say and fail, where it turns out that there was nothing to do."""

    @property
    def in_jail(self) -> bool:
        """Whether the jail's own program is run."""
        return self.argv[0] == "jexec"


@dataclass(frozen=True, slots=True)
class Case:
    """All that a plan is made from.

    `inside` is what a look inside the jail showed, None where the inside is known to be right. `unreject` are the
    addresses for which no packet can be in flight any more. `how` is what the kernel can, or the operator wants.
    """

    jail: str
    host: str
    target: Target
    config: JailConfig | None
    view: HostView
    inside: NetView | None = None
    unreject: tuple[str, ...] = ()
    memory: Memory = field(default_factory=Memory)
    how: How = How.NEXT_HOP

    @property
    def link(self) -> Link | None:
        """The jail's link, None for a jail without a vnet of its own."""
        jail, starting = self.view.jails.get(self.jail), self.target.stand is Stand.PAIRED
        return links.link_of(self.jail, self.config, jail, self.memory, self.view, starting=starting)

    @property
    def granted(self) -> tuple[tuple[int, str], ...]:
        """The addresses that the jail may have, with their IP versions."""
        return tuple((p.version, address(p)) for p in self.config.addresses) if self.config else ()

    @property
    def services(self) -> tuple[Prefix, ...]:
        """The prefixes that are routed to the jail beyond its addresses."""
        return self.config.services if self.config else ()

    @property
    def former(self) -> tuple[Prefix, ...]:
        """The services that it was wired with and has no more."""
        return tuple(prefix for prefix in services_of(self.memory.granted) if prefix not in self.services)

    @property
    def versions(self) -> frozenset[int]:
        """The IP versions of all that is routed to the jail."""
        return frozenset(prefix.version for prefix in self.config.routed) if self.config else frozenset()

    def ways(self, link: Link) -> tuple[tuple[int, str, str], ...]:
        """Return the host routes to the jail: IP version, destination as netstat(1) prints it, gateway or ""."""
        if self.config is None:
            return ()
        return tuple(
            (prefix.version, text, links.gateway(self.config, prefix, link, self.how))
            for prefix, text in zip(self.config.routed, self.config.destinations, strict=True)
        )

    def leading(self, link: Link) -> tuple[Route, ...]:
        """Return the host's routes to the jail as the view shows them, wanted or not."""
        return tuple(links.through(self.view, link.outer, links.services_known(self.config, self.memory)))

    @property
    def open(self) -> bool:
        """Whether the jail is to be wired."""
        return self.target.stand in (Stand.WIRED, Stand.ANNOUNCED)

    @property
    def gateway(self) -> str:
        """The host's own IPv4 address, which is the jails' gateway where IPv4 goes by interface routes."""
        return self.view.net.ipv4 or naming.DUMMY_IPV4

    @property
    def lent(self) -> str:
        """The host's IPv4 address that has to stand on the jail's link, too; "" where none has."""
        needed = self.how is How.INTERFACE and any(version == 4 for version, _ in self.granted)
        return self.gateway if needed else ""


def plan(case: Case) -> list[Command]:
    """Return the commands that lead from the case's view to its target, in order; none when all is as it should be.

    BGP is the caller's part: withdraw before these commands, announce after.
    Raises Refused when something of others is in the way.
    """
    link = case.link
    if link is None:
        return list(_plain(case))
    if case.open and case.config and (prefixes := links.unroutable(case.config, case.how)):
        raise Refused(
            f"jail {case.jail}: this kernel has no IPv6 next hops for IPv4, so its services "
            f"{', '.join(map(str, prefixes))} need an IPv4 address of its own to be routed to: add one to `addresses`"
        )
    return list(_adopted(case, link) if link.adopted else _own(case, link))


def _own(case: Case, link: Link) -> Iterator[Command]:
    jail, view, inside = case.jail, case.view, case.inside
    outer = links.owned(view, jail)
    if case.target.stand in (Stand.ABSENT, Stand.CLOSING):
        yield from _reject(case, link)
        if case.target.stand is Stand.ABSENT:
            if outer is not None:
                yield Command(("ifconfig", outer.name, "destroy"), "unwire: the inner end goes with it, wherever it is")
            yield from _forget_inside(case)
            yield from _unreject(case.unreject, view)
        return
    yield from _unreject_others(case)
    if outer is not None and case.open and not links.inner_on_host(view, jail):
        if inside is not None and link.inner_in(inside) is None:
            # renamed, or taken away, by the jail's root: nothing in there can be trusted to be ours
            yield Command(
                ("ifconfig", outer.name, "destroy"), "the jail's end is not where it belongs: make a new pair"
            )
            view = expect(replace(case, target=Target(Stand.ABSENT)))
            case = replace(case, view=view)
            outer, inside = None, NetView()
    elif case.open:
        inside = NetView()
    yield from _pair(case, outer)
    if not case.open:
        return
    if outer is None or links.inner_on_host(view, jail):
        yield Command(("ifconfig", naming.inner_name(jail), "vnet", jail), "move the inner end into the jail")
    yield from _ipv4_of_the_host(case, link, outer or Interface(link.outer, up=False))
    if inside is not None:
        yield from _inside(case, link, inside)
    yield from _host_routes(case, link)
    if inside is not None:
        yield from _no_longer_served(case, inside)


def _adopted(case: Case, link: Link) -> Iterator[Command]:
    """Serve a link that is its manager's: never made, renamed or destroyed here, and given back what it had."""
    view = case.view
    if case.target.stand is not Stand.PAIRED:
        yield from _unneeded(case)
    outer = links.outer_end(view, case.jail, link)
    if case.target.stand in (Stand.ABSENT, Stand.CLOSING):
        yield from _reject(case, link)
        if case.target.stand is Stand.ABSENT:
            if outer is not None and (naming.GROUP in outer.groups or case.memory.adopted == outer.name):
                yield from _let_go(case, outer)
            yield from _forget_inside(case)
            yield from _unreject(case.unreject, view)
        return
    yield from _unreject_others(case)
    if not case.open:
        return
    if outer is None:
        raise Refused(
            f"jail {case.jail}: its manager should have made {link.outer}, and there is no such epair: look at its "
            f"network settings (ifconfig {link.outer}), or have mobility make the link: mobility hooks install"
        )
    former = _former(case, link)
    if former is not None and naming.GROUP in former.groups:
        yield from _let_go(case, former)
    bridge = view.net.bridge_of.get(link.outer)
    if bridge is not None:
        yield Command(
            ("ifconfig", bridge, "deletem", link.outer), "a link of two parties can not be a broadcast domain's"
        )
    if naming.GROUP not in outer.groups:
        yield Command(("ifconfig", link.outer, "group", naming.GROUP), "for the firewall's rule against spoofing")
    yield from _link(("ifconfig",), outer, naming.OUTER_LINK_LOCAL)
    yield from _ipv4_of_the_host(case, link, outer)
    if case.inside is not None:
        if link.inner_in(case.inside) is None:
            raise Refused(
                f"jail {case.jail}: none of {', '.join(link.inner)} is in the jail: its end of {link.outer} has "
                f"another name: jexec {case.jail} ifconfig -l"
            )
        yield from _inside(case, link, case.inside)
    yield from _host_routes(case, link)
    if case.inside is not None:
        yield from _no_longer_served(case, case.inside)


def _former(case: Case, link: Link) -> Interface | None:
    """Return the end that an earlier incarnation of the jail had, where its manager left it behind (`vnet0.7`, `vnet0.9`)."""
    name = case.memory.adopted
    return links.outer_end(case.view, case.jail, Link(name, (), adopted=True)) if name not in ("", link.outer) else None


def _let_go(case: Case, outer: Interface) -> Iterator[Command]:
    if naming.OUTER_LINK_LOCAL in outer.inet6:
        text = f"{naming.OUTER_LINK_LOCAL}/64"
        yield Command(("ifconfig", outer.name, "inet6", text, "-alias"), "its manager's again")
    if case.memory.lent in outer.inet:
        yield Command(("ifconfig", outer.name, "inet", f"{case.memory.lent}/32", "-alias"), "its manager's again")
    if case.memory.bridge in case.view.net.interfaces and outer.name not in case.view.net.bridge_of:
        yield Command(("ifconfig", case.memory.bridge, "addm", outer.name), "back into the bridge that it was in")
    # last: by the group it is known that there is something to give back
    if naming.GROUP in outer.groups:
        yield Command(("ifconfig", outer.name, "-group", naming.GROUP), "its manager's again")


def _unneeded(case: Case) -> Iterator[Command]:
    """Destroy a pair of ours that the jail does not use."""
    if links.owned(case.view, case.jail) is not None:
        link = links.own_link(case.jail)
        yield from _reject(case, link)
        yield Command(("ifconfig", link.outer, "destroy"), "no pair of ours is needed")


def _plain(case: Case) -> Iterator[Command]:
    """Serve a jail without a vnet: jail(8) itself puts its addresses on the host and takes them away.

    It does so before prestart and after poststop (jail.c, startcommands and stopcommands), so the host answers for them
    until long after they were withdrawn, and no reject is needed.
    """
    yield from _unneeded(case)
    yield from _unreject(case.unreject, case.view)


def _pair(case: Case, outer: Interface | None) -> Iterator[Command]:
    jail, host, view = case.jail, case.host, case.view
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
        outer = Interface(name, up=False, nd6=_UNREADY)
        inner_name, inner_mac = pair + "b", ""
    else:
        inner_name = next((n for n in (links.pair_of(outer) + "b", inner) if n in view.net.interfaces), "")
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
    if "NO_DAD" not in found.nd6 or _UNREADY & found.nd6 or not found.up:
        yield Command(
            (*ifconfig, found.name, "inet6", "-auto_linklocal", "no_dad", "-ifdisabled", "up"),
            "no second link-local address, no second of silence for duplicate address detection; up",
        )
    if link_local not in found.inet6:
        yield Command((*ifconfig, found.name, "inet6", f"{link_local}/64"), "its end of the unnumbered link")


def _ipv4_of_the_host(case: Case, link: Link, outer: Interface) -> Iterator[Command]:
    if 4 in case.versions and not case.view.net.ipv4:
        yield Command(
            ("ifconfig", "lo0", "inet", f"{naming.DUMMY_IPV4}/32", "alias"),
            "IPv4 needs an address of the host's to come from: the dummy (RFC 7600)",
        )
    if case.lent and case.lent not in outer.inet:
        yield Command(
            ("ifconfig", link.outer, "inet", f"{case.lent}/32", "alias"),
            "an IPv4 interface route needs an address on its interface: the host's own, once more",
        )
    for text in outer.inet:
        if text != case.lent and (not link.adopted or text == case.memory.lent):
            yield Command(("ifconfig", link.outer, "inet", f"{text}/32", "-alias"), "not the host's any more")


def _inside(case: Case, link: Link, inside: NetView) -> Iterator[Command]:
    into = ("jexec", case.jail)
    loopback = inside.interface("lo0")
    if loopback is None or not loopback.up or LOOPBACK[4] not in loopback.inet:
        yield Command((*into, "ifconfig", "lo0", "inet", "127.0.0.1/8", "up"), "the jail's loopback")
    found = link.inner_in(inside) or Interface(link.inner[0], up=False, nd6=_UNREADY)
    name = found.name
    yield from _link((*into, "ifconfig"), found, naming.INNER_LINK_LOCAL)
    there = {4: found.inet, 6: found.inet6}
    wide = [text for version, text in case.granted if text in there[version] and text in found.wide]
    over = [text for text in (*found.inet, *found.inet6) if _is_over(case, link, text)]
    returning = _on_loopback(case, inside) & {text for _, text in case.granted}
    losing = any(IPAddress(text).version == 4 for text in (*wide, *over, *returning))
    gateway = _gateway_inside(case, name, 4)
    defaults = inside.routes_to("default", 4)
    ours = any(route.gateway == gateway for route in defaults)
    if losing and defaults and not ours:
        yield Command((*into, "route", "-n", "delete", "default"), "it leads to where the link no longer does")
    for version, text in case.granted:
        family, length = _FAMILY[version]
        if text in returning:
            yield Command((*into, "ifconfig", "lo0", family, f"{text}/{length}", "-alias"), "no service any more")
        if text in wide:
            yield Command(
                (*into, "ifconfig", name, family, f"{text}/{length}", "-alias"),
                "a whole network on a link of two parties hides the rest of it from the jail",
            )
        if text in wide or text not in there[version]:
            yield Command((*into, "ifconfig", name, family, f"{text}/{length}", "alias"), "the jail's address")
    for text in over:
        family, length = _FAMILY[IPAddress(text).version]
        yield Command((*into, "ifconfig", name, family, f"{text}/{length}", "-alias"), "no longer granted")
    yield from _services_inside(case, inside, name, over)
    if not losing:
        yield from _defaults(case, inside, name)
        return
    # the kernel takes along the routes that were found by an address (sys/netinet/in.c, in_ifadown; transcript 11-rc)
    bare = NetView(inside.interfaces, {k: tuple(r for r in v if r.version == 6) for k, v in inside.routes.items()})
    for command in _defaults(case, bare, name):
        yield replace(command, harmless=_STILL_THERE) if "-6" not in command.argv and ours else command


def _services_inside(case: Case, inside: NetView, name: str, over: Collection[str]) -> Iterator[Command]:
    """Have packets for a service end in the jail, so that none goes to and fro between it and the host.

    One address is put on lo0, where transcript 12-service-prefix has it: a reject in its place would keep the jail from
    taking the address itself ("File exists"; 3-routes). A network gets a reject for the whole, and whatever longer the
    jail has counts before it. Where the jail itself has a route to the very same, by another way than back to the host,
    that one stays. `over` are the addresses that are about to be removed, `name` is the jail's end of the link.
    """
    into = ("jexec", case.jail)
    if 4 in case.versions and not _has_ipv4(case, inside):
        yield Command(
            (*into, "ifconfig", "lo0", "inet", f"{naming.DUMMY_IPV4}/32", "alias"),
            "IPv4 needs an address of the jail's to come from: the dummy (RFC 7600)",
        )
    for prefix in case.services:
        version, text = prefix.version, destination(prefix)
        found = inside.routes_to(text, version)
        back = [route for route in found if route.interface == name]
        held = single(prefix) and text in inside.by_address and text not in over
        if held or len(back) < len(found):
            continue
        for route in back:
            delete = _delete(route, alone=len(found) == 1)
            yield Command((*into, *delete.argv), "it leads back to the host: packets would go to and fro")
        if single(prefix):
            family, length = _FAMILY[version]
            yield Command((*into, "ifconfig", "lo0", family, f"{text}/{length}", "alias"), "the jail's service address")
        else:
            yield Command(
                (*into, *_reject_one(version, text).argv), "unused addresses of the service get an ICMP answer"
            )


def _has_ipv4(case: Case, inside: NetView) -> bool:
    """Tell whether the jail has an IPv4 address for its routes over IPv6 next hops to come from, or is given one."""
    given = any(version == 4 for version, _ in case.granted)
    return given or any(prefix.version == 4 and single(prefix) for prefix in case.services) or bool(inside.ipv4)


def _on_loopback(case: Case, inside: NetView) -> frozenset[str]:
    """Return the jail's former service addresses that are still on its lo0."""
    loopback = inside.interface("lo0")
    there = {*loopback.inet, *loopback.inet6} if loopback else set()
    return frozenset(there & {destination(prefix) for prefix in case.former if single(prefix)})


def _no_longer_served(case: Case, inside: NetView) -> Iterator[Command]:
    """Take away what the jail's former services left in it, once the host sends nothing there any more."""
    into, why = ("jexec", case.jail), "no service any more"
    granted = {text for _, text in case.granted}
    kept = _on_loopback(case, inside) - granted
    loopback = inside.interface("lo0")
    if 4 not in case.versions and case.former and loopback and naming.DUMMY_IPV4 in loopback.inet:
        kept |= {naming.DUMMY_IPV4}
    for prefix in case.former:
        for route in inside.routes_to(destination(prefix), prefix.version):
            if links.rejected(route):
                yield Command((*into, *_delete(route, alone=False).argv), why)
    for text in sorted(kept):
        family, length = _FAMILY[IPAddress(text).version]
        yield Command((*into, "ifconfig", "lo0", family, f"{text}/{length}", "-alias"), why)


def _forget_inside(case: Case) -> Iterator[Command]:
    """Do the same, without a look inside, in a jail that goes on running and has nothing granted any more."""
    if case.jail not in case.view.jails:
        return
    into, why = ("jexec", case.jail), "no service any more"
    for prefix in (*case.former, *case.services):
        text = destination(prefix)
        if single(prefix):
            family, length = _FAMILY[prefix.version]
            away = ("ifconfig", "lo0", family, f"{text}/{length}", "-alias")
            yield Command((*into, *away), why, harmless=(_NO_SUCH_ADDRESS,))
        else:
            way = _route(prefix.version, "delete", text, LOOPBACK[prefix.version])
            yield Command((*into, *way), why, harmless=(_NO_SUCH_ROUTE,))


def _is_over(case: Case, link: Link, text: str) -> bool:
    """Tell whether an address in the jail has to go: on a manager's link only what was granted before."""
    ip = IPAddress(text)
    mine = not link.adopted or text in case.memory.granted
    return mine and (ip.version, text) not in case.granted and not ip.is_link_local()


def rejecting(commands: Iterable[Command]) -> tuple[str, ...]:
    """Return the destinations that these commands reject on the host: those inside the jail stay as long as it is wired."""
    return tuple(command.argv[-3] for command in commands if command.argv[-1] == "-reject" and not command.in_jail)


def routing(commands: Iterable[Command]) -> bool:
    """Tell whether these commands give the host a route to a jail."""
    return any(
        command.argv[0] == "route" and {"add", "change"} & {*command.argv} and command.argv[-1] != "-reject"
        for command in commands
    )


def loses_address(commands: Iterable[Command]) -> bool:
    """Tell whether an interface loses an IPv4 address, and perhaps routes with it: then look once more."""
    return any(command.argv[-1] == "-alias" and "inet" in command.argv for command in commands)


def _gateway_inside(case: Case, name: str, version: int) -> str:
    """Return the gateway of the jail's default route."""
    return case.lent if version == 4 and case.lent else f"{naming.OUTER_LINK_LOCAL}%{name}"


def _defaults(case: Case, inside: NetView, name: str) -> Iterator[Command]:
    into = ("jexec", case.jail)
    for version in sorted(case.versions, reverse=True):
        gateway = _gateway_inside(case, name, version)
        family = ("-inet6",) if version == 4 and ":" in gateway else ()
        host = inside.routes_to(gateway, 4)
        if version == 4 and case.how is How.INTERFACE and not any(route.interface == name for route in host):
            yield Command((*into, "route", "-n", "add", "-host", gateway, "-interface", name), "the host, on this link")
        defaults = inside.routes_to("default", version)
        if not any(route.gateway == gateway and not route.reject for route in defaults):
            verb = "change" if defaults else "add"
            how = ("-6", verb, "default", gateway) if version == 6 else (verb, "default", *family, gateway)
            yield Command((*into, "route", "-n", *how), f"the jail's IPv{version} way out")


def inside_is_right(case: Case, inside: NetView) -> bool:
    """Tell whether a look inside a wired jail showed all that we put there."""
    link = case.link
    return link is None or (link.inner_in(inside) is not None and not list(_inside(case, link, inside)))


def _route(version: int, verb: str, text: str, *way: str) -> tuple[str, ...]:
    return ("route", "-n", *(("-6",) if version == 6 else ()), verb, "-net" if "/" in text else "-host", text, *way)


def _way(version: int, link: Link, by: str) -> tuple[str, ...]:
    if not by:
        return ("-interface", link.outer)
    return ("-inet6", by) if version == 4 and ":" in by else (by,)


def _delete(route: Route, *, alone: bool) -> Command:
    # a multipath route is deleted by its gateway only ("not in table" otherwise; transcript 3-routes)
    way: tuple[str, ...] = ()
    if not alone:
        way = (route.gateway,) if "G" in route.flags or route.reject else ("-interface", route.interface)
        if route.version == 4 and ":" in route.gateway:
            way = ("-inet6", route.gateway)
    return Command(_route(route.version, "delete", route.destination, *way), "")


def _host_routes(case: Case, link: Link) -> Iterator[Command]:
    view, ways = case.view, case.ways(link)
    for version, text, by in ways:
        found = view.net.routes_to(text, version)
        if len(found) == 1 and links.right(found[0], link, by):
            continue
        for route in found:
            if route.interface != link.outer and not links.rejected(route) and not _of_ours(view, route.interface):
                raise Refused(
                    f"jail {case.jail}: a route to {text} through {route.interface} exists that is not this jail's: "
                    f"find out whose it is (route -n get {text}), then delete it"
                )
        for route in found:
            yield replace(_delete(route, alone=len(found) == 1), why="in the way of the jail's own route")
        yield Command(
            _route(version, "add", text, *_way(version, link, by)),
            f"packets for the jail's IPv{version} {'service' if '/' in text else 'address'}",
        )
    wanted = {(version, text) for version, text, _ in ways}
    for route in case.leading(link):
        if (route.version, route.destination) not in wanted:
            if route.version == 6 and "G" not in route.flags and "H" in route.flags:
                # as long as its route is there: ndp(8) finds it by that (usr.sbin/ndp/ndp.c, delete)
                why = "the kernel would keep the neighbour"
                yield Command(("ndp", "-d", route.destination), why, harmless=(_NO_SUCH_NEIGHBOUR,))
            yield replace(_delete(route, alone=True), why="no longer granted")


def _of_ours(view: HostView, name: str) -> bool:
    """Tell whether an interface serves as a jail's link: the address is this jail's (Claims), so its route there is old."""
    return any(naming.GROUP in one.groups for one in view.net.interfaces.get(name, ()))


def _reject(case: Case, link: Link) -> Iterator[Command]:
    view = case.view
    for route in case.leading(link):
        alone = len(view.net.routes_to(route.destination, route.version)) == 1
        yield replace(_delete(route, alone=alone), why="delete, then add: `route change` forgets the reject")
        if alone:
            yield _reject_one(route.version, route.destination)


def _reject_one(version: int, text: str) -> Command:
    return Command(
        _route(version, "add", text, LOOPBACK[version], "-reject"),
        "packets in flight get an ICMP answer and never loop",
    )


def _unreject(addresses: Iterable[str], view: HostView) -> Iterator[Command]:
    for text in addresses:
        for route in view.net.routes.get(text, ()):
            if links.rejected(route):
                yield replace(_delete(route, alone=True), why="nothing can be in flight any more")


def _unreject_others(case: Case) -> Iterator[Command]:
    """Remove the rejects whose time is over, but for what the jail has again: its own routes replace those."""
    granted = case.config.destinations if case.config else ()
    yield from _unreject((text for text in case.unreject if text not in granted), case.view)


def free_unit(jail: str, view: HostView) -> int:
    """Return the epair unit to make the jail's pair with, passing over units seen in use.

    Units of renamed ends can not be seen; our own are told by their descriptions, others' show when `create` says
    that the interface exists.
    """
    used = {name[:-1] for name in view.net.interfaces if name.startswith("epair")}
    used |= {links.pair_of(outer) for outer in links.made_for(view).values()}
    unit = naming.first_unit(jail)
    for _ in range(UNIT_TRIES):
        if f"epair{unit}" not in used:
            return unit
        unit = naming.next_unit(unit)
    raise Refused(f"jail {jail}: {UNIT_TRIES} epair units in a row are taken: look at ifconfig -l")


def expect(case: Case) -> HostView:
    """Return what a look should show of a jail with a link of ours once its plan (see `plan`) has been carried out.

    It saves a second look between two hooks of one start; the next look corrects it if it was wrong.
    """
    link, view = links.own_link(case.jail), case.view
    interfaces = dict(view.net.interfaces)
    ours = view.ours
    routes = dict(_expected_routes(case, link))
    if case.open:
        for version, text, by in case.ways(link):
            flags = f"U{'G' if by else ''}{'' if '/' in text else 'H'}S"
            routes[text] = (Route(version, text, by or "link#0", flags, link.outer),)
        if 4 in case.versions and not view.net.ipv4:
            interfaces["lo0"] = tuple(replace(i, inet=(*i.inet, naming.DUMMY_IPV4)) for i in interfaces.get("lo0", ()))
    if case.target.stand is Stand.ABSENT:
        for name in (naming.outer_name(case.jail), naming.inner_name(case.jail)):
            interfaces.pop(name, None)
        ours -= {link.outer}
    elif case.target.stand is not Stand.CLOSING:
        interfaces = _after_pairing(case, link, interfaces)
        ours |= {link.outer}
    return HostView(NetView(interfaces, routes), ours, view.jails)


def _after_pairing(
    case: Case, link: Link, interfaces: dict[str, tuple[Interface, ...]]
) -> dict[str, tuple[Interface, ...]]:
    jail, host = case.jail, case.host
    outer, inner = links.owned(case.view, jail), naming.inner_name(jail)
    pair = links.pair_of(outer) if outer else f"epair{free_unit(jail, case.view)}"
    lent: tuple[str, ...] = outer.inet if outer else ()
    if case.open:
        lent = (case.lent,) if case.lent else ()
    interfaces.pop(pair + "b", None)
    interfaces[link.outer] = (
        Interface(
            link.outer,
            up=True,
            ether=naming.outer_mac(host, jail),
            description=naming.description(jail, pair),
            groups=frozenset({links.EPAIR_GROUP, naming.GROUP}),
            inet=lent,
            inet6=(naming.OUTER_LINK_LOCAL,),
            nd6=frozenset({"PERFORMNUD", "NO_DAD"}),
        ),
    )
    if case.target.stand is Stand.PAIRED:
        interfaces[inner] = (Interface(inner, up=False, ether=naming.inner_mac(host, jail)),)
    else:
        interfaces.pop(inner, None)
    return interfaces


def _expected_routes(case: Case, link: Link) -> Iterator[tuple[str, tuple[Route, ...]]]:
    view, stand, unreject = case.view, case.target.stand, frozenset(case.unreject)
    ways = {route.destination: route for route in case.leading(link)}
    for text, found in view.net.routes.items():
        left = tuple(
            route
            for route in found
            if route.interface != link.outer
            and not (text in unreject and links.rejected(route) and stand is not Stand.CLOSING)
        )
        if not left and text in ways and stand in (Stand.ABSENT, Stand.CLOSING):
            version = ways[text].version
            left = (Route(version, text, LOOPBACK[version], "URS" if "/" in text else "UHRS", "lo0"),)
        if left:
            yield text, left
