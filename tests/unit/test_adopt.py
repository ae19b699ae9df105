"""Links that a manager made, jails without a vnet, and kernels without IPv6 next hops for IPv4: what is run, and not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mobility import decide, links
from mobility import plan as planning
from mobility.decide import How, Memory, Patience, Stand, Target
from mobility.jails.jailsd import JailConfig
from mobility.jails.said import Ends
from mobility.model import Phase, host_prefix
from mobility.network import naming
from mobility.network.output import HostView, Interface, Jail, NetView, Route
from mobility.plan import Case, Refused

V4, V6 = "198.51.100.7", "2001:db8:7::7"
ADDRESSES = (host_prefix(V4), host_prefix(V6))
BASTILLE = JailConfig("web1", ADDRESSES, "jail.conf", ends=Ends("e0a_web1", ("vnet0", "e0b_web1")), vnet=True)
IOCAGE = JailConfig("web1", ADDRESSES, "config.json", ends=Ends("vnet0.{jid}", ("epair0b",)), vnet=True)
OURS = JailConfig("web1", ADDRESSES, "web1.toml")
PLAIN = JailConfig("web1", ADDRESSES, "jail.conf", vnet=False)
RUNNING = Jail("web1", 7, vnet=True, path="/jails/web1")
SHARED = Jail("web1", 7, vnet=False, path="/jails/web1", addresses=(V4, V6))
LO0 = Interface("lo0", up=True, inet=("127.0.0.1", "203.0.113.1"))
EPAIR = frozenset({"epair"})
FRESH = frozenset({"PERFORMNUD", "IFDISABLED", "AUTO_LINKLOCAL"})
OUTER = Interface("e0a_web1", up=True, ether="58:9c:fc:00:00:0a", groups=EPAIR, nd6=FRESH)
BRIDGE = Interface("em0bridge", up=True, members=("em0", "e0a_web1"))
PATIENCE = Patience(starting_for=120, stopping_for=120, reject_for=3)


def view(*interfaces: Interface, routes: tuple[Route, ...] = (), jail: Jail | None = RUNNING) -> HostView:
    by_name: dict[str, tuple[Interface, ...]] = {}
    for one in (LO0, *interfaces):
        by_name[one.name] = (*by_name.get(one.name, ()), one)
    ours = frozenset(name for name, several in by_name.items() for i in several if naming.GROUP in i.groups)
    return HostView(NetView(by_name, {r.destination: (r,) for r in routes}), ours, {jail.name: jail} if jail else {})


def inside(*interfaces: Interface, defaults: tuple[Route, ...] = ()) -> NetView:
    loopback = Interface("lo0", up=True, inet=("127.0.0.1",))
    return NetView({one.name: (one,) for one in (loopback, *interfaces)}, {"default": defaults} if defaults else {})


def case(stand: Stand, seen: HostView, config: JailConfig | None = BASTILLE, **more: object) -> Case:
    return replace(Case("web1", "a", Target(stand), config, seen), **more)  # type: ignore[arg-type]


def lines(of: Case) -> list[str]:
    return [" ".join(command.argv) for command in planning.plan(of)]


AS_THE_JAILS_RC_LEFT_IT = inside(
    Interface("vnet0", up=True, inet=(V4,), nd6=FRESH, wide=frozenset({V4})),
    defaults=(Route(4, "default", "198.51.100.1", "UGS", "vnet0"),),
)


def test_a_managers_link_is_taken_out_of_its_bridge_and_wired_like_ours() -> None:
    assert lines(case(Stand.ANNOUNCED, view(OUTER, BRIDGE), inside=AS_THE_JAILS_RC_LEFT_IT)) == [
        "ifconfig em0bridge deletem e0a_web1",
        "ifconfig e0a_web1 group mobility",
        "ifconfig e0a_web1 inet6 -auto_linklocal no_dad -ifdisabled up",
        "ifconfig e0a_web1 inet6 fe80::1/64",
        "jexec web1 ifconfig vnet0 inet6 -auto_linklocal no_dad -ifdisabled up",
        "jexec web1 ifconfig vnet0 inet6 fe80::2/64",
        "jexec web1 route -n delete default",
        f"jexec web1 ifconfig vnet0 inet {V4}/32 -alias",
        f"jexec web1 ifconfig vnet0 inet {V4}/32 alias",
        f"jexec web1 ifconfig vnet0 inet6 {V6}/128 alias",
        "jexec web1 route -n -6 add default fe80::1%vnet0",
        "jexec web1 route -n add default -inet6 fe80::1%vnet0",
        f"route -n add -host {V4} -inet6 fe80::2%e0a_web1",
        f"route -n -6 add -host {V6} -interface e0a_web1",
    ]


def test_the_default_that_an_address_takes_along_comes_back_in_the_same_run() -> None:
    nd6 = frozenset({"NO_DAD"})
    end = Interface("vnet0", up=True, inet=("198.51.100.8", V4), inet6=("fe80::2", V6), nd6=nd6)
    ways = tuple(Route(v, "default", "fe80::1%vnet0", "UGS", "vnet0") for v in (4, 6))
    memory = Memory(granted=("198.51.100.8", V4, V6))
    commands = planning.plan(case(Stand.WIRED, view(OUTER), inside=inside(end, defaults=ways), memory=memory))
    assert planning.loses_address(commands)
    within = [command for command in commands if command.in_jail]
    assert [" ".join(command.argv) for command in within] == [
        "jexec web1 ifconfig vnet0 inet 198.51.100.8/32 -alias",
        "jexec web1 route -n add default -inet6 fe80::1%vnet0",
    ]
    assert "Invalid argument" in within[-1].harmless


def test_iocages_link_is_named_by_the_jid() -> None:
    outer = replace(OUTER, name="vnet0.7")
    found = lines(case(Stand.WIRED, view(outer), IOCAGE, inside=inside(Interface("epair0b", up=True))))
    assert f"route -n -6 add -host {V6} -interface vnet0.7" in found
    assert not [line for line in found if "create" in line or "destroy" in line or " name " in line]


def test_what_the_jail_itself_has_on_its_link_stays() -> None:
    more = inside(Interface("vnet0", up=True, inet=("10.0.0.5",), wide=frozenset({"10.0.0.5"})))
    assert not [line for line in lines(case(Stand.WIRED, view(OUTER), inside=more)) if "10.0.0.5" in line]
    earlier = Memory(granted=("10.0.0.5",))
    assert "jexec web1 ifconfig vnet0 inet 10.0.0.5/32 -alias" in lines(
        case(Stand.WIRED, view(OUTER), inside=more, memory=earlier)
    )


READY = replace(
    OUTER,
    groups=EPAIR | {naming.GROUP},
    inet6=("fe80::1",),
    nd6=frozenset({"PERFORMNUD", "NO_DAD"}),
)
ROUTES = (
    Route(4, V4, "fe80::2%e0a_web1", "UGHS", "e0a_web1"),
    Route(6, V6, "link#7", "UHS", "e0a_web1"),
)
EMPTIED = replace(BRIDGE, members=("em0",))
SERVING = Memory(jid=7, adopted="e0a_web1", adopted_by=7, inner=("vnet0", "e0b_web1"), bridge="em0bridge")


def test_what_is_done_is_not_done_again() -> None:
    wired = view(READY, EMPTIED, routes=ROUTES)
    for stand in (Stand.WIRED, Stand.ANNOUNCED):
        assert lines(case(stand, wired, memory=SERVING)) == []
    assert links.carries(wired, "web1", case(Stand.WIRED, wired).link, ADDRESSES, How.NEXT_HOP)
    assert lines(case(Stand.ABSENT, view(OUTER, BRIDGE, jail=None), memory=SERVING)) == []


def test_letting_go_gives_back_what_was_taken_and_forgets_it_last() -> None:
    for jail in (RUNNING, None):
        commands = lines(case(Stand.ABSENT, view(READY, EMPTIED, routes=ROUTES, jail=jail), None, memory=SERVING))
        assert commands == [
            f"route -n delete -host {V4}",
            f"route -n add -host {V4} 127.0.0.1 -reject",
            f"route -n -6 delete -host {V6}",
            f"route -n -6 add -host {V6} ::1 -reject",
            "ifconfig e0a_web1 inet6 fe80::1/64 -alias",
            "ifconfig em0bridge addm e0a_web1",
            "ifconfig e0a_web1 -group mobility",
        ]
    # killed after the bridge took it back
    half = view(replace(READY, inet6=()), BRIDGE)
    assert lines(case(Stand.ABSENT, half, None, memory=SERVING)) == ["ifconfig e0a_web1 -group mobility"]


def test_what_a_running_jail_is_wired_with_stays_its_link_whatever_its_files_say_by_now() -> None:
    wired = view(READY, EMPTIED, routes=ROUTES)
    link = case(Stand.ANNOUNCED, wired, OURS, memory=SERVING).link
    assert link == links.Link("e0a_web1", ("vnet0", "e0b_web1"), adopted=True)
    assert lines(case(Stand.ANNOUNCED, wired, OURS, memory=SERVING)) == []
    end = Interface("vnet0", up=True, inet=(V4,), inet6=("fe80::2", V6), nd6=frozenset({"NO_DAD"}))
    ways = tuple(Route(v, "default", "fe80::1%vnet0", "UGS", "vnet0") for v in (4, 6))
    assert planning.inside_is_right(case(Stand.ANNOUNCED, wired, OURS, memory=SERVING), inside(end, defaults=ways))


def test_a_pair_of_ours_goes_with_the_jail_it_served_and_before_another_link_serves() -> None:
    paired = planning.expect(case(Stand.PAIRED, view(jail=None), OURS))
    assert lines(case(Stand.ABSENT, paired, BASTILLE))[-1] == "ifconfig mob-web1 destroy"
    leftover = paired.net.interfaces["mob-web1"][0]
    commands = lines(case(Stand.WIRED, view(OUTER, BRIDGE, leftover), memory=SERVING))
    assert commands[0] == "ifconfig mob-web1 destroy"


def test_a_jail_restarted_between_two_looks_leaves_its_managers_old_link() -> None:
    """iocage's vnet0.7 is still there, with our routes, when jid 9 has its vnet0.9."""
    old = replace(READY, name="vnet0.7")
    new = replace(OUTER, name="vnet0.9")
    routes = tuple(replace(route, interface="vnet0.7", gateway="fe80::2%vnet0.7") for route in ROUTES)
    again = Jail("web1", 9, vnet=True, path="/jails/web1")
    bridge = replace(BRIDGE, members=("em0", "vnet0.9"))
    memory = replace(SERVING, adopted="vnet0.7", inner=("epair0b",))
    seen = view(old, new, bridge, routes=routes, jail=again)
    found = lines(case(Stand.WIRED, seen, IOCAGE, memory=memory, inside=inside(Interface("epair0b", up=True))))
    assert "ifconfig vnet0.7 -group mobility" in found
    assert "ifconfig em0bridge deletem vnet0.9" in found
    assert found[-3:] == [
        f"route -n add -host {V4} -inet6 fe80::2%vnet0.9",
        f"route -n -6 delete -host {V6}",
        f"route -n -6 add -host {V6} -interface vnet0.9",
    ]
    assert links.link_of("web1", OURS, again, memory, seen) == links.own_link("web1")


def test_nothing_is_destroyed_or_made_for_a_manager() -> None:
    assert lines(case(Stand.PAIRED, view(jail=None))) == []
    assert lines(case(Stand.ABSENT, view(OUTER, BRIDGE, jail=None))) == []


def test_a_link_that_is_not_there_is_refused_with_advice() -> None:
    with pytest.raises(Refused, match=r"no such epair.*mobility hooks install"):
        lines(case(Stand.WIRED, view(), inside=inside()))
    with pytest.raises(Refused, match="vnet0, e0b_web1 is in the jail"):
        lines(case(Stand.WIRED, view(OUTER), inside=inside(Interface("other", up=True))))


def test_an_end_that_came_home_under_the_managers_name_is_not_believed() -> None:
    home = replace(OUTER, groups=frozenset(), ether="02:00:00:00:00:01")
    found = lines(case(Stand.WIRED, view(home, OUTER), inside=inside(Interface("vnet0", up=True))))
    assert "ifconfig e0a_web1 group mobility" in found
    with pytest.raises(Refused):
        lines(case(Stand.WIRED, view(home), inside=inside(Interface("vnet0", up=True))))


def test_a_link_of_ours_stays_while_its_jail_runs() -> None:
    wired = planning.expect(case(Stand.WIRED, view(), OURS))
    link = links.link_of("web1", BASTILLE, RUNNING, Memory(), wired)
    assert link == links.own_link("web1")


def test_a_link_that_was_adopted_before_is_not_the_next_one() -> None:
    stopped = case(Stand.ABSENT, view(jail=None), OURS, memory=SERVING)
    assert stopped.link == links.Link("e0a_web1", ("vnet0", "e0b_web1"), adopted=True)
    coming = case(Stand.PAIRED, view(jail=None), OURS, memory=SERVING)
    assert coming.link == links.own_link("web1")
    assert lines(coming)[0].endswith("mobility jail web1 epair25050")


def test_a_managers_link_is_left_alone_until_the_jail_has_started() -> None:
    memory = Memory(Phase.CREATED, 990.0, 7, 991.0)
    assert decide.decide(BASTILLE, RUNNING, memory, 1000.0, PATIENCE).stand is Stand.PAIRED
    assert decide.decide(OURS, RUNNING, memory, 1000.0, PATIENCE).stand is Stand.WIRED
    started = replace(memory, phase=Phase.POSTSTART)
    assert decide.decide(BASTILLE, RUNNING, started, 1000.0, PATIENCE).stand is Stand.ANNOUNCED


# -- jails without a vnet


LO1 = Interface("lo1", up=True, inet=(V4,), inet6=(V6,))


def test_a_jail_without_a_vnet_needs_no_command() -> None:
    assert decide.decide(PLAIN, SHARED, Memory(), 0.0, PATIENCE) == Target(Stand.ANNOUNCED)
    assert lines(case(Stand.ANNOUNCED, view(LO1, jail=SHARED), PLAIN)) == []
    assert lines(case(Stand.PAIRED, view(jail=None), PLAIN)) == []
    assert links.carries(view(LO1), "web1", None, ADDRESSES, How.NEXT_HOP)
    assert not links.carries(view(), "web1", None, ADDRESSES, How.NEXT_HOP)


def test_only_addresses_that_it_has_are_its() -> None:
    half = replace(SHARED, addresses=(V4,))
    target = decide.decide(PLAIN, half, Memory(), 0.0, PATIENCE)
    assert (target.stand, V6 in target.reason) == (Stand.ANNOUNCED, True)
    assert decide.held(PLAIN, half) == ADDRESSES[:1]
    none = decide.decide(PLAIN, replace(SHARED, addresses=()), Memory(), 0.0, PATIENCE)
    assert none.stand is Stand.ABSENT
    assert "lo1|198.51.100.7" in none.reason


def test_what_it_leaves_is_jails_own_matter() -> None:
    memory = Memory(how=How.PLAIN, granted=(V4, V6))
    for seen in (view(jail=None), view(LO1, jail=None)):
        assert lines(case(Stand.ABSENT, seen, PLAIN, memory=memory)) == []


def test_a_pair_made_for_a_jail_that_turns_out_to_have_no_vnet_goes() -> None:
    paired = planning.expect(case(Stand.PAIRED, view(jail=None), OURS))
    seen = HostView(paired.net, paired.ours, {"web1": SHARED})
    assert lines(case(Stand.WIRED, seen, OURS)) == ["ifconfig mob-web1 destroy"]


# -- IPv4 by interface routes


def test_interface_routes_are_transcript_10() -> None:
    found = lines(case(Stand.WIRED, view(), OURS, how=How.INTERFACE))
    expected = [
        "ifconfig mob-web1 inet 203.0.113.1/32 alias",
        f"jexec web1 ifconfig in-web1 inet {V4}/32 alias",
        "jexec web1 route -n add -host 203.0.113.1 -interface in-web1",
        "jexec web1 route -n add default 203.0.113.1",
        f"route -n add -host {V4} -interface mob-web1",
    ]
    assert [line for line in found if line in expected] == expected
    assert not [line for line in found if "-inet6 fe80::2" in line]
    after = planning.expect(case(Stand.WIRED, view(), OURS, how=How.INTERFACE))
    assert lines(case(Stand.WIRED, after, OURS, how=How.INTERFACE)) == []


def test_the_dummy_serves_where_the_host_has_no_ipv4() -> None:
    bare = HostView(NetView({"lo0": (Interface("lo0", up=True, inet=("127.0.0.1",)),)}), frozenset(), {"web1": RUNNING})
    found = lines(case(Stand.WIRED, bare, OURS, how=How.INTERFACE))
    assert "ifconfig lo0 inet 192.0.0.8/32 alias" in found
    assert "ifconfig mob-web1 inet 192.0.0.8/32 alias" in found
    assert "jexec web1 route -n add default 192.0.0.8" in found


def test_a_switched_kernel_is_followed() -> None:
    before = planning.expect(case(Stand.WIRED, view(), OURS, how=How.INTERFACE))
    assert lines(case(Stand.WIRED, before, OURS)) == [
        "ifconfig mob-web1 inet 203.0.113.1/32 -alias",
        f"route -n delete -host {V4}",
        f"route -n add -host {V4} -inet6 fe80::2%mob-web1",
    ]


def test_the_hosts_address_on_a_link_is_not_the_hosts_own() -> None:
    before = planning.expect(case(Stand.WIRED, view(), OURS, how=How.INTERFACE))
    assert before.net.ipv4 == "203.0.113.1"
    lost = {**before.net.interfaces, "lo0": (replace(LO0, inet=("127.0.0.1",)),)}
    assert NetView(lost).ipv4 == ""


def test_a_link_broken_from_inside_is_seen() -> None:
    wired = planning.expect(case(Stand.WIRED, view(), OURS))
    nd6 = frozenset({"PERFORMNUD", "NO_DAD"})
    end = Interface("in-web1", up=True, inet=(V4,), inet6=("fe80::2", V6), nd6=nd6)
    ways = (
        Route(4, "default", "fe80::1%in-web1", "UGS", "in-web1"),
        Route(6, "default", "fe80::1%in-web1", "UGS", "in-web1"),
    )
    seen = case(Stand.ANNOUNCED, wired, OURS)
    assert planning.inside_is_right(seen, inside(end, defaults=ways))
    # transcript 11-rc: `netif restart` leaves it down and takes the /32 away, `routing restart` the defaults
    for broken in (
        inside(replace(end, up=False), defaults=ways),
        inside(replace(end, inet=()), defaults=ways),
        inside(end, defaults=ways[1:]),
        inside(end),
        inside(replace(end, name="other"), defaults=ways),
    ):
        assert not planning.inside_is_right(seen, broken)
