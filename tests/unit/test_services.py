"""Service prefixes: what a jail's file may say, the commands of transcript 12-service-prefix, and how they come and go."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netaddr import IPNetwork

from mobility import links
from mobility import plan as planning
from mobility.config import Problem
from mobility.decide import How, Memory, Stand, Target
from mobility.holders import Holders
from mobility.jails import jailsd
from mobility.jails.jailsd import Entry, JailConfig, More
from mobility.jails.said import Ends, Said
from mobility.jails.sources import combine, overlapping_services
from mobility.model import Prefix, destination, host_prefix, network_prefix, overlap
from mobility.network import naming
from mobility.network.output import HostView, Interface, Jail, NetView, Route
from mobility.plan import Case, Command, Refused

ALLOWED = tuple(map(network_prefix, ("198.51.100.0/24", "192.0.2.80/32", "2001:db8::/32", "64:ff9b::/96")))
V4, V6 = "198.51.100.7", "2001:db8:7::7"
NAT64, ANYCAST, POOL, DELEGATED = "64:ff9b::/96", "192.0.2.80/32", "198.51.100.96/28", "2001:db8:77::/64"
LO0 = Interface("lo0", up=True, inet=("127.0.0.1", "203.0.113.1"))
RUNNING = Jail("gw1", 7, vnet=True, path="/jails/gw1")
ENDS = Ends("e0a_gw1", ("vnet0",))
INTO = "jexec gw1"


def jail(*services: str, addresses: tuple[str, ...] = (V4, V6), ends: Ends | None = None) -> JailConfig:
    more = More(services=tuple(map(network_prefix, services)))
    return JailConfig("gw1", tuple(map(host_prefix, addresses)), "gw1.toml", ends=ends, more=more)


def view(*interfaces: Interface, routes: tuple[Route, ...] = (), running: bool = True) -> HostView:
    by_name = {one.name: (one,) for one in (LO0, *interfaces)}
    ours = frozenset(name for name, several in by_name.items() if naming.GROUP in several[0].groups)
    net = NetView(by_name, {route.destination: (route,) for route in routes})
    return HostView(net, ours, {"gw1": RUNNING} if running else {})


def case(stand: Stand, seen: HostView, config: JailConfig | None, **more: object) -> Case:
    return replace(Case("gw1", "a", Target(stand), config, seen), **more)  # type: ignore[arg-type]


def lines(of: Case) -> list[str]:
    return [" ".join(command.argv) for command in planning.plan(of)]


def wired(config: JailConfig, *, how: How = How.NEXT_HOP) -> HostView:
    return planning.expect(case(Stand.WIRED, view(), config, how=how))


def inside(
    *routes: Route,
    loopback: tuple[str, ...] = (),
    link: tuple[str, ...] = (V4, V6),
    more: tuple[Interface, ...] = (),
    defaults: tuple[int, ...] = (4, 6),
) -> NetView:
    """Return what a wired jail shows of itself, with these routes beside its defaults."""
    four, six = (tuple(text for text in loopback if (":" in text) is each) for each in (False, True))
    own4, own6 = (tuple(text for text in link if (":" in text) is each) for each in (False, True))
    interfaces = (
        Interface("lo0", up=True, inet=("127.0.0.1", *four), inet6=("::1", *six)),
        Interface("in-gw1", up=True, inet=own4, inet6=("fe80::2", *own6), nd6=frozenset({"NO_DAD"})),
        *more,
    )
    found: dict[str, tuple[Route, ...]] = {
        "default": tuple(Route(version, "default", "fe80::1%in-gw1", "UGS", "in-gw1") for version in defaults)
    }
    for route in routes:
        found[route.destination] = (*found.get(route.destination, ()), route)
    return NetView({each.name: (each,) for each in interfaces}, found)


def reject(text: str) -> Route:
    version = 6 if ":" in text else 4
    return Route(version, text, links.LOOPBACK[version], "URS", "lo0")


# -- what the file says


def parse(text: str) -> tuple[Entry | None, str]:
    entry, problems = jailsd.parse("gw1", text, "gw1.toml", ALLOWED)
    return entry, "; ".join(map(str, problems))


def test_a_file_may_name_services() -> None:
    entry, problems = parse(f'addresses = ["{V6}"]\nservices = ["{NAT64}", "{DELEGATED}", "192.0.2.80"]')
    assert (entry is not None, problems) == (True, "")
    assert entry is not None
    assert entry.more.services == (IPNetwork(NAT64), IPNetwork(DELEGATED), IPNetwork(ANYCAST))


@pytest.mark.parametrize(
    ("services", "why"),
    [
        ('["0.0.0.0/0"]', "is the default route"),
        ('["::/0"]', "is the default route"),
        ('["64:ff9b::1/96"]', "has host bits set: write 64:ff9b::/96"),
        ('["203.0.113.0/24"]', "lies outside host.allowed"),
        ('["2000::/3"]', "lies outside host.allowed"),
        ('["fe80::/64"]', "no jail may own"),
        ('["127.0.0.0/8"]', "no jail may own"),
        ('["2001:db8:7::/64"]', f"holds the jail's own address {V6}"),
        (f'["{V6}/128"]', f"holds the jail's own address {V6}"),
        ('["2001:db8:77::/64", "2001:db8:77::/80"]', "overlaps 2001:db8:77::/64, another of its services"),
        ('["2001:db8:77::/80", "2001:db8:77::/64"]', "overlaps 2001:db8:77::/80, another of its services"),
        (f'["{NAT64}", "{NAT64}"]', "is written twice"),
        ('["nonsense"]', "is no prefix"),
        ('[""]', "is no prefix"),
        ("[7]", "is no prefix"),
        ('"64:ff9b::/96"', "must list the prefixes"),
        ("[]", "must list the prefixes"),
        ('["64:ff9b::/96\\n"]', ""),
    ],
)
def test_what_no_service_can_be(services: str, why: str) -> None:
    entry, problems = parse(f'addresses = ["{V6}"]\nservices = {services}')
    if not why:
        # netaddr strips blanks: what is kept is the prefix, never the text
        assert entry is None or entry.more.services == (IPNetwork(NAT64),)
        return
    assert entry is None
    assert "gw1.toml: services" in problems
    assert why in problems


@given(st.text(max_size=60))
def test_whatever_is_written_no_service_is_ever_outside_what_is_allowed(text: str) -> None:
    problems: list[Problem] = []
    found = jailsd._services({"services": [text]}, (), ALLOWED, "gw1.toml", problems)
    assert bool(found) is not bool(problems)
    assert all(any(prefix in net for net in ALLOWED) for prefix in found)


def test_what_a_manager_says_counts_too() -> None:
    entry = Entry("gw1.toml", more=More(services=(IPNetwork(NAT64), IPNetwork("2001:db8:7::/64"))))
    said = Said("gw1", "jail.conf", "jail.conf", addresses=(V6,), hooks=True, vnet=True)
    found = combine("gw1", entry, said, ALLOWED)
    assert found.services == (IPNetwork(NAT64),)
    assert f"its service 2001:db8:7::/64 holds the jail's own address {V6}" in found.refused[0]
    for addresses in ((), (host_prefix(V6),)):
        plain = combine("gw1", replace(entry, addresses=addresses), replace(said, vnet=False), ALLOWED)
        assert (plain.services, plain.texts) == ((), (V6,))
        assert "it has no vnet of its own" in plain.refused[0]
        assert "add `vnet;`" in plain.refused[0]
    kept = combine("gw1", Entry("gw1.toml", (host_prefix(V6),), more=More(services=(IPNetwork(NAT64),))), None, ALLOWED)
    assert (kept.services, kept.refused) == ((IPNetwork(NAT64),), ())


def named(name: str, *services: str, addresses: tuple[str, ...] = ()) -> JailConfig:
    return replace(jail(*services, addresses=addresses), name=name)


def test_services_of_two_jails_may_not_overlap() -> None:
    def found(*jails: JailConfig) -> dict[str, tuple[str, ...]]:
        return {str(prefix): names for prefix, names in overlapping_services(jails).items()}

    assert not found(named("a", NAT64), named("b", DELEGATED), named("c"))
    assert found(named("a", NAT64), named("b", NAT64)) == {NAT64: ("a", "b")}
    assert found(named("b", "2001:db8:70::/44"), named("a", DELEGATED), named("c", "2001:db8:7e::/64")) == {
        "2001:db8:70::/44": ("a", "b", "c"),
        DELEGATED: ("a", "b"),
        "2001:db8:7e::/64": ("b", "c"),
    }
    # a single address within is routed by the longer prefix; the very same one is not
    inner = named("b", "2001:db8:77::80/128", addresses=("2001:db8:77::5",))
    assert not found(named("a", DELEGATED), inner)
    assert found(named("a", ANYCAST), named("b", addresses=("192.0.2.80",))) == {ANYCAST: ("a", "b")}
    assert found(named("a", ANYCAST), named("b", ANYCAST)) == {ANYCAST: ("a", "b")}


PREFIXES = st.builds(
    lambda value, length: IPNetwork((value >> (128 - length) << (128 - length), length), version=6),
    st.integers(0x20010DB8 << 96, (0x20010DB8 << 96) + (1 << 6)),
    st.integers(120, 128),
)


@given(st.lists(st.tuples(st.sampled_from("abc"), PREFIXES), max_size=8))
def test_overlaps_are_those_of_every_pair(pairs: list[tuple[str, Prefix]]) -> None:
    jails = [
        named(name, *{str(prefix.cidr) for owner, prefix in pairs if owner == name})
        for name in sorted({name for name, _ in pairs})
    ]
    expected: dict[Prefix, set[str]] = {}
    for one in jails:
        for other in jails:
            for mine in one.services:
                for theirs in other.services:
                    networks = 128 not in (mine.prefixlen, theirs.prefixlen)
                    if one is not other and (mine == theirs or (networks and overlap(mine, theirs))):
                        expected.setdefault(mine, set()).update((one.name, other.name))
    assert {prefix: set(names) for prefix, names in overlapping_services(jails).items()} == expected


def test_what_is_remembered_tells_services_from_addresses() -> None:
    config = jail(NAT64, ANYCAST)
    assert config.destinations == (V4, V6, NAT64, "192.0.2.80")
    assert config.remembered == (V4, V6, NAT64, ANYCAST)
    assert jailsd.addresses_of(config.remembered) == config.addresses
    assert jailsd.services_of(config.remembered) == config.services
    kept = jail(addresses=(V6,)).keeping(config.routed, config.remembered)
    assert set(kept.addresses) == set(config.addresses)
    assert kept.services == config.services
    without = config.without(lambda prefix: prefix in (IPNetwork(NAT64), IPNetwork(f"{V4}/32")))
    assert without is not None
    assert without.destinations == (V6, "192.0.2.80")
    assert config.without(lambda prefix: prefix in config.addresses) is None


@pytest.mark.parametrize(
    "text", ["64:ff9b::/96", "2001:db8:77::/64", "2001:db8:0:1::/64", "198.51.100.96/28", "192.0.2.0/24", "10.0.0.0/8"]
)
def test_networks_are_written_as_netstat_does(text: str) -> None:
    assert destination(network_prefix(text)) == text


# -- a link of ours


SERVED = jail(NAT64, ANYCAST, POOL)
INSIDE = [
    f"{INTO} route -n -6 add -net {NAT64} ::1 -reject",
    f"{INTO} ifconfig lo0 inet {ANYCAST} alias",
    f"{INTO} route -n add -net {POOL} 127.0.0.1 -reject",
]
OUTSIDE = [
    f"route -n -6 add -net {NAT64} fe80::2%mob-gw1",
    "route -n add -host 192.0.2.80 -inet6 fe80::2%mob-gw1",
    f"route -n add -net {POOL} -inet6 fe80::2%mob-gw1",
]
THERE = inside(reject(NAT64), reject(POOL), loopback=("192.0.2.80",))


def test_the_commands_of_the_transcript_inside_first() -> None:
    commands = lines(case(Stand.ANNOUNCED, view(), SERVED))
    wiring = [line for line in commands if line in INSIDE + OUTSIDE]
    assert wiring == INSIDE + OUTSIDE
    # the rejects are in place before the jail has a way out, and before anything is led in
    assert commands.index(INSIDE[-1]) < commands.index(f"{INTO} route -n -6 add default fe80::1%in-gw1")
    assert commands[-3:] == OUTSIDE


@pytest.mark.parametrize("stand", [Stand.PAIRED, Stand.WIRED, Stand.ANNOUNCED, Stand.CLOSING, Stand.ABSENT])
def test_what_is_done_is_not_done_again(stand: Stand) -> None:
    before = wired(SERVED) if stand is Stand.CLOSING else view()
    memory = Memory(granted=() if stand is Stand.ABSENT else SERVED.remembered)
    after = planning.expect(case(stand, before, SERVED, memory=memory))
    gone = replace(after, jails={}) if stand is Stand.ABSENT else after
    assert lines(case(stand, gone, SERVED, memory=memory)) == []


def test_wired_and_carried() -> None:
    seen, link = wired(SERVED), links.own_link("gw1")
    assert lines(case(Stand.ANNOUNCED, seen, SERVED, inside=THERE)) == []
    assert links.carries(seen, "gw1", link, SERVED.routed, How.NEXT_HOP, SERVED)
    for text in SERVED.destinations:
        routes = {key: value for key, value in seen.net.routes.items() if key != text}
        lost = replace(seen, net=NetView(seen.net.interfaces, routes))
        assert not links.carries(lost, "gw1", link, SERVED.routed, How.NEXT_HOP, SERVED)
        assert len(lines(case(Stand.ANNOUNCED, lost, SERVED, inside=THERE))) == 1
    assert set(links.wired_prefixes(seen, link, SERVED.destinations)) == set(SERVED.routed)


def test_a_stop_rejects_networks_too_and_what_is_left_goes_in_time() -> None:
    memory = Memory(granted=SERVED.remembered)
    closing = case(Stand.CLOSING, wired(SERVED), SERVED, memory=memory)
    commands = planning.plan(closing)
    assert [" ".join(command.argv) for command in commands][4:] == [
        f"route -n -6 delete -net {NAT64}",
        f"route -n -6 add -net {NAT64} ::1 -reject",
        "route -n delete -host 192.0.2.80",
        "route -n add -host 192.0.2.80 127.0.0.1 -reject",
        f"route -n delete -net {POOL}",
        f"route -n add -net {POOL} 127.0.0.1 -reject",
    ]
    assert planning.rejecting(commands) == SERVED.destinations
    closed = replace(planning.expect(closing), jails={})
    assert lines(case(Stand.ABSENT, closed, SERVED, memory=memory)) == ["ifconfig mob-gw1 destroy"]
    left = planning.expect(case(Stand.ABSENT, closed, SERVED, memory=memory))
    assert lines(case(Stand.ABSENT, left, SERVED, unreject=SERVED.destinations))[2:] == [
        f"route -n -6 delete -net {NAT64}",
        "route -n delete -host 192.0.2.80",
        f"route -n delete -net {POOL}",
    ]
    # started again before their time: its own routes take the rejects' places, and no other's
    again = replace(left, jails={"gw1": RUNNING})
    assert lines(case(Stand.WIRED, again, SERVED, unreject=SERVED.destinations))[-2:] == [
        f"route -n delete -net {POOL}",
        OUTSIDE[2],
    ]


def test_killed_behind_our_back_services_are_rejected_too() -> None:
    seen = replace(wired(SERVED), jails={})
    assert f"route -n -6 add -net {NAT64} ::1 -reject" in lines(case(Stand.ABSENT, seen, SERVED))
    # also where its file is gone by then
    assert f"route -n -6 add -net {NAT64} ::1 -reject" in lines(
        case(Stand.ABSENT, seen, None, memory=Memory(granted=SERVED.remembered))
    )


def test_only_rejects_on_the_host_are_the_hosts() -> None:
    commands = planning.plan(case(Stand.WIRED, view(), SERVED))
    assert any(command.argv[-1] == "-reject" for command in commands)
    assert planning.rejecting(commands) == ()


# -- what the jail itself has wins


@pytest.mark.parametrize(
    "has",
    [
        inside(Route(6, DELEGATED, "link#5", "U", "tun0")),
        inside(Route(6, DELEGATED, "2001:db8:7::9", "UGS", "tap0")),
        inside(reject(DELEGATED)),
        inside(replace(reject(DELEGATED), flags="USB")),
    ],
)
def test_a_way_of_the_jails_own_stays(has: NetView) -> None:
    config = jail(DELEGATED)
    assert planning.inside_is_right(case(Stand.ANNOUNCED, wired(config), config), has)


def test_longer_routes_and_addresses_do_not_replace_the_reject() -> None:
    config = jail(DELEGATED)
    has = inside(Route(6, "2001:db8:77::7", "link#1", "UHS", "lo0"), loopback=("2001:db8:77::7",))
    assert lines(case(Stand.WIRED, wired(config), config, inside=has)) == [
        f"{INTO} route -n -6 add -net {DELEGATED} ::1 -reject"
    ]


def test_a_way_back_to_the_host_is_no_way() -> None:
    config = jail(DELEGATED)
    back = Route(6, DELEGATED, "fe80::1%in-gw1", "UGS", "in-gw1")
    seen = case(Stand.WIRED, wired(config), config, inside=inside(back))
    assert lines(seen) == [
        f"{INTO} route -n -6 delete -net {DELEGATED}",
        f"{INTO} route -n -6 add -net {DELEGATED} ::1 -reject",
    ]
    assert not planning.inside_is_right(seen, inside(back))
    # of two ways, multipath, only the one that leads back goes
    both = inside(back, Route(6, DELEGATED, "2001:db8:7::9", "UGS", "tap0"))
    assert lines(replace(seen, inside=both)) == []


def test_an_address_that_the_jail_has_on_any_interface_is_held() -> None:
    config = jail(ANYCAST)
    lo1 = Interface("lo1", up=True, inet=("192.0.2.80",))
    assert lines(case(Stand.WIRED, wired(config), config, inside=inside(more=(lo1,)))) == []
    # on the link of ours it does not belong: the host sends it by the next hop
    on_link = inside(link=(V4, V6, "192.0.2.80"))
    assert lines(case(Stand.WIRED, wired(config), config, inside=on_link))[:2] == [
        f"{INTO} ifconfig in-gw1 inet {ANYCAST} -alias",
        f"{INTO} ifconfig lo0 inet {ANYCAST} alias",
    ]


@pytest.mark.parametrize(
    "broken",
    [
        inside(reject(NAT64), reject(POOL)),
        inside(reject(NAT64), loopback=("192.0.2.80",)),
        inside(reject(POOL), loopback=("192.0.2.80",)),
        inside(loopback=("192.0.2.80",)),
    ],
)
def test_what_the_jails_root_takes_away_is_seen_and_mended(broken: NetView) -> None:
    seen = case(Stand.ANNOUNCED, wired(SERVED), SERVED, inside=broken)
    assert not planning.inside_is_right(seen, broken)
    mending = lines(seen)
    assert mending == [line for line in INSIDE if line in mending]
    assert planning.inside_is_right(seen, THERE)


# -- services that come and go


def test_a_service_added_and_one_removed_while_the_jail_runs() -> None:
    before, after = jail(POOL, "2001:db8:78::/64"), jail(DELEGATED, "2001:db8:78::/64")
    memory = Memory(granted=before.remembered)
    has = inside(reject(POOL), reject("2001:db8:78::/64"))
    assert lines(case(Stand.ANNOUNCED, wired(before), after, memory=memory, inside=has)) == [
        f"{INTO} route -n -6 add -net {DELEGATED} ::1 -reject",
        f"route -n -6 add -net {DELEGATED} fe80::2%mob-gw1",
        f"route -n delete -net {POOL}",
        f"{INTO} route -n delete -net {POOL} 127.0.0.1",
    ]


def test_a_removed_service_address_leaves_lo0_last() -> None:
    memory = Memory(granted=jail(ANYCAST).remembered)
    commands = planning.plan(
        case(Stand.WIRED, wired(jail(ANYCAST)), jail(), memory=memory, inside=inside(loopback=("192.0.2.80",)))
    )
    assert [" ".join(command.argv) for command in commands] == [
        "route -n delete -host 192.0.2.80",
        f"{INTO} ifconfig lo0 inet {ANYCAST} -alias",
    ]
    assert planning.loses_address(commands), "routes may go with it (transcript 11-rc): looked at once more"


def test_a_service_that_becomes_an_address_and_back() -> None:
    service, own = jail("198.51.100.9/32"), jail(addresses=(V4, V6, "198.51.100.9"))
    memory = Memory(granted=service.remembered)
    commands = lines(case(Stand.WIRED, wired(service), own, memory=memory, inside=inside(loopback=("198.51.100.9",))))
    assert commands[:2] == [
        f"{INTO} ifconfig lo0 inet 198.51.100.9/32 -alias",
        f"{INTO} ifconfig in-gw1 inet 198.51.100.9/32 alias",
    ]
    assert not [line for line in commands[2:] if "198.51.100.9/32" in line]
    back = lines(
        case(
            Stand.WIRED,
            wired(own),
            service,
            memory=Memory(granted=own.remembered),
            inside=inside(link=(V4, V6, "198.51.100.9")),
        )
    )
    assert back[:2] == [
        f"{INTO} ifconfig in-gw1 inet 198.51.100.9/32 -alias",
        f"{INTO} ifconfig lo0 inet 198.51.100.9/32 alias",
    ]


def test_a_jail_that_goes_on_without_a_grant_is_left_as_it_was() -> None:
    memory = Memory(granted=SERVED.remembered)
    commands = planning.plan(case(Stand.ABSENT, wired(SERVED), None, memory=memory))
    assert [" ".join(command.argv) for command in commands][-4:] == [
        "ifconfig mob-gw1 destroy",
        f"{INTO} route -n -6 delete -net {NAT64} ::1",
        f"{INTO} ifconfig lo0 inet {ANYCAST} -alias",
        f"{INTO} route -n delete -net {POOL} 127.0.0.1",
    ]
    assert all(command.harmless for command in commands[-3:]), "its root may have been quicker"


def test_a_network_that_somebody_else_routes_to_the_jail_is_theirs() -> None:
    config = jail(DELEGATED)
    theirs = Route(4, "10.8.0.0/24", "fe80::2%mob-gw1", "UGS", "mob-gw1")
    seen = wired(config)
    seen = replace(seen, net=NetView(seen.net.interfaces, {**seen.net.routes, theirs.destination: (theirs,)}))
    for stand in (Stand.WIRED, Stand.CLOSING, Stand.ABSENT):
        assert not [
            line for line in lines(case(stand, seen, config, inside=inside(reject(DELEGATED)))) if "10.8" in line
        ]


def test_a_route_of_others_to_the_same_is_refused() -> None:
    connected = Route(6, DELEGATED, "link#1", "U", "em0")
    with pytest.raises(Refused, match="through em0 exists"):
        lines(case(Stand.WIRED, view(routes=(connected,)), jail(DELEGATED)))


# -- families


def test_a_family_that_only_a_service_has_gets_its_way_out() -> None:
    six = jail(POOL, addresses=(V6,))
    commands = lines(case(Stand.WIRED, view(), six))
    assert f"{INTO} ifconfig lo0 inet {naming.DUMMY_IPV4}/32 alias" in commands
    assert commands.index(f"{INTO} ifconfig lo0 inet {naming.DUMMY_IPV4}/32 alias") < commands.index(
        f"{INTO} route -n add default -inet6 fe80::1%in-gw1"
    )
    has = inside(reject(POOL), loopback=(naming.DUMMY_IPV4,), link=(V6,))
    assert planning.inside_is_right(case(Stand.WIRED, wired(six), six), has)
    # an address that it has by itself serves as well, and so does a service address
    own = inside(reject(POOL), link=(V6,), more=(Interface("tun0", up=True, inet=("10.0.0.1",)),))
    assert planning.inside_is_right(case(Stand.WIRED, wired(six), six), own)
    assert naming.DUMMY_IPV4 not in " ".join(lines(case(Stand.WIRED, view(), jail(ANYCAST, addresses=(V6,)))))
    gone = lines(
        case(Stand.WIRED, wired(six), jail(addresses=(V6,)), memory=Memory(granted=six.remembered), inside=has)
    )
    assert gone == [
        f"route -n delete -net {POOL}",
        f"{INTO} route -n delete -net {POOL} 127.0.0.1",
        f"{INTO} ifconfig lo0 inet {naming.DUMMY_IPV4}/32 -alias",
    ]


def test_the_hosts_dummy_is_there_for_an_ipv4_service_too() -> None:
    bare = replace(view(), net=NetView({"lo0": (Interface("lo0", up=True, inet=("127.0.0.1",)),)}))
    commands = lines(case(Stand.WIRED, bare, jail(POOL, addresses=(V6,))))
    assert f"ifconfig lo0 inet {naming.DUMMY_IPV4}/32 alias" in commands


def test_without_ipv6_next_hops_ipv4_services_go_by_the_jails_own_address() -> None:
    """As the jail's default goes by the host's in transcript 10-interface-routes."""
    commands = lines(case(Stand.WIRED, view(), SERVED, how=How.INTERFACE))
    assert commands[-5:] == [
        f"route -n add -host {V4} -interface mob-gw1",
        f"route -n -6 add -host {V6} -interface mob-gw1",
        OUTSIDE[0],
        f"route -n add -host 192.0.2.80 {V4}",
        f"route -n add -net {POOL} {V4}",
    ]
    seen = wired(SERVED, how=How.INTERFACE)
    assert links.carries(seen, "gw1", links.own_link("gw1"), SERVED.routed, How.INTERFACE, SERVED)
    assert f"route -n add -net {POOL} 127.0.0.1 -reject" in lines(case(Stand.CLOSING, seen, SERVED))
    # a kernel that has them by now
    assert [line for line in lines(case(Stand.WIRED, seen, SERVED)) if POOL in line] == [
        f"route -n delete -net {POOL}",
        OUTSIDE[2],
    ]
    six = jail(NAT64, POOL, addresses=(V6,))
    with pytest.raises(Refused, match=r"198\.51\.100\.96/28 need an IPv4 address of its own"):
        lines(case(Stand.WIRED, view(), six, how=How.INTERFACE))
    assert lines(case(Stand.ABSENT, wired(six), six, how=How.INTERFACE))
    assert lines(case(Stand.WIRED, view(), jail(NAT64, addresses=(V6,)), how=How.INTERFACE))


# -- a link of its manager's


OUTER = Interface("e0a_gw1", up=True, groups=frozenset({"epair"}), nd6=frozenset({"IFDISABLED"}))


def test_an_adopted_link_carries_services_just_so() -> None:
    config = jail(NAT64, POOL, ends=ENDS)
    fresh = NetView({"lo0": (Interface("lo0", up=True, inet=("127.0.0.1",)),), "vnet0": (Interface("vnet0", up=True),)})
    commands = lines(case(Stand.WIRED, view(OUTER), config, inside=fresh))
    within = f"{INTO} route -n -6 add -net {NAT64} ::1 -reject"
    assert commands.index(within) < commands.index(f"route -n -6 add -net {NAT64} fe80::2%e0a_gw1")
    ready = replace(OUTER, groups=frozenset({"epair", naming.GROUP}), inet6=("fe80::1",), nd6=frozenset({"NO_DAD"}))
    routes = (
        Route(6, NAT64, "fe80::2%e0a_gw1", "UGS", "e0a_gw1"),
        Route(4, POOL, "fe80::2%e0a_gw1", "UGS", "e0a_gw1"),
    )
    memory = Memory(jid=7, adopted="e0a_gw1", adopted_by=7, inner=("vnet0",), granted=config.remembered)
    stopped = lines(case(Stand.ABSENT, view(ready, routes=routes, running=False), None, memory=memory))
    assert stopped == [
        f"route -n -6 delete -net {NAT64}",
        f"route -n -6 add -net {NAT64} ::1 -reject",
        f"route -n delete -net {POOL}",
        f"route -n add -net {POOL} 127.0.0.1 -reject",
        "ifconfig e0a_gw1 inet6 fe80::1/64 -alias",
        "ifconfig e0a_gw1 -group mobility",
    ]


def test_a_jail_without_a_vnet_has_nothing_routed() -> None:
    shared = HostView(NetView({"lo0": (LO0,)}), frozenset(), {"gw1": replace(RUNNING, vnet=False)})
    assert lines(case(Stand.ANNOUNCED, shared, SERVED)) == []


# -- what concerns one jail of a look


def test_the_part_of_a_view_keeps_what_leads_to_services() -> None:
    seen = wired(SERVED)
    for texts in (SERVED.destinations, SERVED.remembered):
        part = links.concerning(seen, "gw1", links.own_link("gw1"), texts)
        assert set(part.net.routes) == set(SERVED.destinations)
    prefix = network_prefix(NAT64)
    assert links.holders({prefix: ("a-web", "gw1")}, seen) == {NAT64: "gw1"}


# -- property: a plan carried out is a plan that is empty


class Machine:
    """Just enough of a host and a jail to carry out what concerns services: routes by destination, addresses on lo0."""

    def __init__(self) -> None:
        self.host: dict[str, Route] = {}
        self.within: dict[str, Route] = {}
        self.loopback: set[str] = set()

    def run(self, command: Command) -> None:
        argv = command.argv[2:] if command.in_jail else command.argv
        table = self.within if command.in_jail else self.host
        if argv[0] == "ifconfig" and argv[1] == "lo0" and command.in_jail:
            text = argv[3].partition("/")[0]
            (self.loopback.add if argv[-1] == "alias" else self.loopback.discard)(text)
        if argv[0] == "route" and "default" not in argv:
            words = [word for word in argv[1:] if word not in ("-n", "-6", "-inet6")]
            verb, kind, text, *way = words
            if verb == "delete":
                del table[text]
                return
            assert text not in table, "route already in table"
            version = 6 if "-6" in argv else 4
            host = "H" if kind == "-host" else ""
            if way[-1] == "-reject":
                table[text] = Route(version, text, way[0], f"U{host}RS", "lo0")
            elif way[0] == "-interface":
                table[text] = Route(version, text, "link#4", f"U{host}S", "mob-gw1")
            else:
                table[text] = Route(version, text, way[0], f"UG{host}S", "mob-gw1")

    def view(self, config: JailConfig) -> HostView:
        pair = wired(config)
        return replace(pair, net=NetView(pair.net.interfaces, {text: (route,) for text, route in self.host.items()}))

    def inside(self, config: JailConfig) -> NetView:
        own = tuple(config.texts)
        return inside(*self.within.values(), loopback=tuple(sorted(self.loopback)), link=own, defaults=(4, 6))


CHOICES = (NAT64, ANYCAST, POOL, DELEGATED, "2001:db8:78::80/128")


@given(st.lists(st.sets(st.sampled_from(CHOICES)), min_size=1, max_size=5))
def test_wherever_services_go_nothing_is_left_and_nothing_is_done_twice(turns: list[set[str]]) -> None:
    machine, memory = Machine(), Memory()
    for services in turns:
        config = jail(*sorted(services))

        def now(config: JailConfig = config, memory: Memory = memory) -> Case:
            return case(Stand.WIRED, machine.view(config), config, memory=memory, inside=machine.inside(config))

        for command in planning.plan(now()):
            machine.run(command)
            # at each step: what leads to a service leads to a jail that ends it
            for text, route in machine.host.items():
                if route.interface == "mob-gw1" and text not in config.texts:
                    assert text in machine.within or text in machine.loopback
        assert set(machine.host) == set(config.destinations)
        assert {*machine.within, *machine.loopback} == {destination(prefix) for prefix in config.services}
        memory = replace(memory, granted=config.remembered)
        assert lines(now(memory=memory)) == []


def test_the_folder_reads_services(tmp_path: Path) -> None:
    (tmp_path / "gw1.toml").write_text(f'addresses = ["{V6}"]\nservices = ["{NAT64}"]\n')
    folder = jailsd.Folder(tmp_path, ALLOWED)
    folder.refresh()
    assert not folder.problems
    assert folder.entries["gw1"].more.services == (IPNetwork(NAT64),)


# -- one holder on a host


def test_one_holder_for_what_overlaps() -> None:
    released: list[str] = []
    holders = Holders(lambda: released.append("again"))
    assert holders.take("gw1", SERVED.destinations) == ""
    assert f"{NAT64} is held by jail gw1" in holders.take("gw2", ["64:ff9b::/97", "198.51.100.8"])
    assert not holders.of_another("gw2", "198.51.100.8"), "none is taken where one can not be"
    assert f"{NAT64} is held by jail gw1" in holders.take("gw2", ["64:ff9b::/97", "198.51.100.8"], part=True)
    assert holders.of_another("gw1", "198.51.100.8")
    # a single address within is the longer route; the very same one is not
    assert holders.take("gw3", ["64:ff9b::7"]) == ""
    assert "192.0.2.80 is held by jail gw1" in holders.take("gw3", ["192.0.2.80"])
    assert holders.take("gw1", SERVED.destinations) == ""
    holders.release("gw1", (V4, V6))
    assert released
    assert holders.take("gw2", ["64:ff9b::/97", "192.0.2.80"]) == ""
    assert holders.of_another("gw1", NAT64)
