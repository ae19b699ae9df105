"""The planner: every stand from every observation, the commands of 8-reference in their order, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobility import decide, links
from mobility import plan as planning
from mobility.decide import How, Memory, Patience, Stand, Target
from mobility.jails.jailsd import JailConfig
from mobility.model import Phase, Prefix, host_prefix
from mobility.network import naming
from mobility.network.output import HostView, Interface, Jail, NetView, Route
from mobility.plan import Case, Refused

PATIENCE = Patience(starting_for=120, stopping_for=120, reject_for=3)
WEB1 = JailConfig("web1", (host_prefix("198.51.100.7"), host_prefix("2001:db8:7::7")), "web1.toml")
RUNNING = Jail("web1", 7, vnet=True, path="/jails/web1")
LO0 = Interface("lo0", up=True, inet=("127.0.0.1", "203.0.113.1"))
HOST = "a"


def view(
    *interfaces: Interface, routes: tuple[Route, ...] = (), ours: tuple[str, ...] = (), jail: Jail | None = None
) -> HostView:
    by_name: dict[str, tuple[Interface, ...]] = {}
    for interface in (LO0, *interfaces):
        by_name[interface.name] = (*by_name.get(interface.name, ()), interface)
    by_destination: dict[str, tuple[Route, ...]] = {}
    for route in routes:
        by_destination[route.destination] = (*by_destination.get(route.destination, ()), route)
    return HostView(NetView(by_name, by_destination), frozenset(ours), {jail.name: jail} if jail else {})


def case(stand: Stand, seen: HostView, config: JailConfig | None = WEB1, **more: Any) -> Case:
    return Case("web1", HOST, Target(stand), config, seen, **more)


def lines(of: Case) -> list[str]:
    return [" ".join(command.argv) for command in planning.plan(of)]


def after(stand: Stand, config: JailConfig | None, seen: HostView) -> HostView:
    return planning.expect(case(stand, seen, config))


def shown(
    target: Stand,
    seen: HostView,
    inside: NetView | None = None,
    config: JailConfig | None = WEB1,
    unreject: tuple[str, ...] = (),
) -> list[str]:
    return lines(case(target, seen, config, inside=inside, unreject=unreject))


def carries(seen: HostView, prefixes: tuple[Prefix, ...]) -> bool:
    return links.carries(seen, "web1", links.own_link("web1"), prefixes, How.NEXT_HOP)


def wired_view(stand: Stand = Stand.ANNOUNCED, config: JailConfig = WEB1) -> HostView:
    seen = after(stand, config, view(jail=RUNNING))
    return replace(seen, jails={"web1": RUNNING})


def test_a_start_is_the_reference_in_its_order() -> None:
    unit = naming.first_unit("web1")
    outer, inner = naming.outer_mac(HOST, "web1"), naming.inner_mac(HOST, "web1")
    pair = [
        f"ifconfig epair{unit} create name mob-web1 group mobility description mobility jail web1 epair{unit}",
        f"ifconfig epair{unit}b name in-web1",
        f"ifconfig in-web1 ether {inner}",
        f"ifconfig mob-web1 ether {outer}",
        "ifconfig mob-web1 inet6 -auto_linklocal no_dad -ifdisabled up",
        "ifconfig mob-web1 inet6 fe80::1/64",
    ]
    wiring = [
        "ifconfig in-web1 vnet web1",
        "jexec web1 ifconfig lo0 inet 127.0.0.1/8 up",
        "jexec web1 ifconfig in-web1 inet6 -auto_linklocal no_dad -ifdisabled up",
        "jexec web1 ifconfig in-web1 inet6 fe80::2/64",
        "jexec web1 ifconfig in-web1 inet 198.51.100.7/32 alias",
        "jexec web1 ifconfig in-web1 inet6 2001:db8:7::7/128 alias",
        "jexec web1 route -n -6 add default fe80::1%in-web1",
        "jexec web1 route -n add default -inet6 fe80::1%in-web1",
        "route -n add -host 198.51.100.7 -inet6 fe80::2%mob-web1",
        "route -n -6 add -host 2001:db8:7::7 -interface mob-web1",
    ]
    assert shown(Stand.PAIRED, view()) == pair
    paired = after(Stand.PAIRED, WEB1, view())
    assert shown(Stand.WIRED, replace(paired, jails={"web1": RUNNING})) == wiring
    assert shown(Stand.ANNOUNCED, view(jail=RUNNING)) == pair + wiring


def test_a_stop_rejects_then_destroys_then_unrejects() -> None:
    assert shown(Stand.CLOSING, wired_view()) == [
        "route -n delete -host 198.51.100.7",
        "route -n add -host 198.51.100.7 127.0.0.1 -reject",
        "route -n -6 delete -host 2001:db8:7::7",
        "route -n -6 add -host 2001:db8:7::7 ::1 -reject",
    ]
    closed = after(Stand.CLOSING, WEB1, wired_view())
    assert shown(Stand.ABSENT, replace(closed, jails={})) == ["ifconfig mob-web1 destroy"]
    gone = after(Stand.ABSENT, WEB1, closed)
    rejects = tuple(
        Route(v, a, links.LOOPBACK[v], "UHRS", "lo0") for v, a in ((4, "198.51.100.7"), (6, "2001:db8:7::7"))
    )
    left = view(routes=rejects)
    assert shown(Stand.ABSENT, left) == []
    assert shown(Stand.ABSENT, left, unreject=("198.51.100.7", "2001:db8:7::7")) == [
        "route -n delete -host 198.51.100.7",
        "route -n -6 delete -host 2001:db8:7::7",
    ]
    assert "mob-web1" not in gone.net.interfaces


def test_killed_behind_our_back_nothing_is_left_to_loop() -> None:
    commands = shown(Stand.ABSENT, replace(wired_view(), jails={}))
    assert commands[-1] == "ifconfig mob-web1 destroy"
    assert [c for c in commands if c.endswith("-reject")] == [
        "route -n add -host 198.51.100.7 127.0.0.1 -reject",
        "route -n -6 add -host 2001:db8:7::7 ::1 -reject",
    ]


def test_a_start_right_after_a_stop_takes_the_reject_away_first() -> None:
    reject = Route(4, "198.51.100.7", "127.0.0.1", "UHRS", "lo0")
    commands = shown(Stand.WIRED, view(routes=(reject,), jail=RUNNING))
    at = commands.index("route -n delete -host 198.51.100.7")
    assert commands[at + 1] == "route -n add -host 198.51.100.7 -inet6 fe80::2%mob-web1"


@pytest.mark.parametrize("stand", [Stand.PAIRED, Stand.WIRED, Stand.ANNOUNCED, Stand.CLOSING, Stand.ABSENT])
def test_what_is_done_is_not_done_again(stand: Stand) -> None:
    before = view(jail=RUNNING) if stand is not Stand.CLOSING else wired_view()
    assert shown(stand, after(stand, WEB1, before)) == []


def inside(stop_at: int) -> NetView:
    """Return a jail's inside as a start that was cut off after `stop_at` of its seven commands leaves it."""
    ready, late = frozenset({"PERFORMNUD", "NO_DAD"}), frozenset({"IFDISABLED", "AUTO_LINKLOCAL"})
    link = Interface(
        "in-web1",
        up=stop_at >= 2,
        nd6=ready if stop_at >= 2 else late,
        inet6=(("fe80::2",) if stop_at >= 3 else ()) + (("2001:db8:7::7",) if stop_at >= 5 else ()),
        inet=("198.51.100.7",) if stop_at >= 4 else (),
    )
    loopback = Interface("lo0", up=stop_at >= 1, inet=("127.0.0.1",) if stop_at >= 1 else ())
    routes = [Route(6, "default", "fe80::1%in-web1", "UGS", "in-web1")] if stop_at >= 6 else []
    routes += [Route(4, "default", "fe80::1%in-web1", "UGS", "in-web1")] if stop_at >= 7 else []
    return NetView({"lo0": (loopback,), "in-web1": (link,)}, {"default": tuple(routes)} if routes else {})


@pytest.mark.parametrize("stop_at", range(8))
def test_a_start_cut_off_inside_the_jail_is_taken_up_where_it_stopped(stop_at: int) -> None:
    everything = shown(Stand.WIRED, wired_view(), inside(0))
    assert len(everything) == 7
    assert shown(Stand.WIRED, wired_view(), inside(stop_at)) == everything[stop_at:]


def test_an_inner_end_taken_away_by_the_jail_makes_a_new_pair() -> None:
    commands = shown(Stand.ANNOUNCED, wired_view(), NetView({"lo0": (LO0,), "mine": (Interface("mine", up=True),)}))
    assert commands[0] == "ifconfig mob-web1 destroy"
    assert "ifconfig in-web1 vnet web1" in commands


def test_one_family_alone() -> None:
    four = replace(WEB1, addresses=WEB1.addresses[:1])
    six = replace(WEB1, addresses=WEB1.addresses[1:])
    assert not [c for c in shown(Stand.WIRED, view(jail=RUNNING), config=four) if "2001:db8" in c or "-6" in c.split()]
    assert not [c for c in shown(Stand.WIRED, view(jail=RUNNING), config=six) if "198.51" in c or "default -inet6" in c]


def test_the_dummy_where_the_host_has_no_ipv4() -> None:
    bare = replace(view(jail=RUNNING), net=NetView({"lo0": (Interface("lo0", up=True, inet=("127.0.0.1",)),)}))
    commands = shown(Stand.WIRED, bare)
    assert commands.index("ifconfig lo0 inet 192.0.0.8/32 alias") < commands.index(
        "route -n add -host 198.51.100.7 -inet6 fe80::2%mob-web1"
    )


@pytest.mark.parametrize(
    "route",
    [
        Route(6, "2001:db8:7::7", "fe80::2%mob-web2", "UGHS", "mob-web2"),
        Route(6, "2001:db8:7::7", "link#1", "UHS", "lo0"),
        Route(4, "198.51.100.7", "203.0.113.9", "UGHS", "em0"),
    ],
)
def test_a_route_of_others_is_never_touched(route: Route) -> None:
    with pytest.raises(Refused, match=route.interface):
        shown(Stand.WIRED, view(routes=(route,), jail=RUNNING))
    assert shown(Stand.ABSENT, view(routes=(route,)), unreject=("2001:db8:7::7", "198.51.100.7")) == []


def test_an_interface_of_others_is_never_touched() -> None:
    theirs = Interface("mob-web1", up=True, description="mobility jail web1 epair5")
    with pytest.raises(Refused, match="not ours"):
        shown(Stand.PAIRED, view(theirs))
    assert shown(Stand.ABSENT, view(theirs)) == []


def test_an_interface_that_came_home_under_our_name_hides_nothing() -> None:
    """Its groups are gone (transcript 2-vnet), so ours is told from it; destroying either end of a pair ends both."""
    ours = wired_view().net.interfaces["mob-web1"][0]
    stranger = Interface("mob-web1", up=False, description=ours.description)
    for both in ((ours, stranger), (stranger, ours)):
        assert shown(Stand.ABSENT, view(*both, ours=("mob-web1",))) == ["ifconfig mob-web1 destroy"]
    with pytest.raises(Refused, match="not ours"):
        shown(Stand.PAIRED, view(stranger))


def test_carried_or_not() -> None:
    seen = wired_view()
    assert carries(seen, WEB1.addresses)
    assert not carries(view(), WEB1.addresses)
    lost = replace(seen, net=NetView(seen.net.interfaces, {}))
    assert not carries(lost, WEB1.addresses)
    paired = after(Stand.PAIRED, WEB1, view())
    assert not carries(paired, ())


def test_multipath_is_deleted_by_gateway() -> None:
    both = (
        Route(6, "2001:db8:7::7", "link#4", "UHS", "mob-web1"),
        Route(6, "2001:db8:7::7", "fe80::2%mob-web1", "UGHS", "mob-web1"),
    )
    commands = shown(
        Stand.WIRED, replace(wired_view(), net=NetView(wired_view().net.interfaces, {"2001:db8:7::7": both}))
    )
    assert "route -n -6 delete -host 2001:db8:7::7 fe80::2%mob-web1" in commands


# -- decide


def decided(memory: Memory, jail: Jail | None, now: float = 1000.0, **more: str) -> Stand:
    return decide.decide(WEB1, jail, decide.observe(memory, jail, now), now, PATIENCE, **more).stand


@pytest.mark.parametrize(
    ("phase", "running", "stand"),
    [
        (None, False, Stand.ABSENT),
        (None, True, Stand.ANNOUNCED),
        (Phase.PRESTART, False, Stand.PAIRED),
        (Phase.PRESTART, True, Stand.WIRED),
        (Phase.CREATED, True, Stand.WIRED),
        (Phase.CREATED, False, Stand.ABSENT),
        (Phase.POSTSTART, True, Stand.ANNOUNCED),
        (Phase.POSTSTART, False, Stand.ABSENT),
        (Phase.PRESTOP, True, Stand.CLOSING),
        (Phase.PRESTOP, False, Stand.ABSENT),
        (Phase.POSTSTOP, False, Stand.ABSENT),
        (Phase.POSTSTOP, True, Stand.ANNOUNCED),
    ],
)
def test_where_a_jail_should_stand(phase: Phase | None, running: bool, stand: Stand) -> None:
    memory = Memory(phase=phase, phase_at=999.0, jid=7 if running else None, seen_at=990.0)
    assert decided(memory, RUNNING if running else None) is stand


def test_a_prestop_that_led_nowhere_is_forgotten() -> None:
    memory = Memory(phase=Phase.PRESTOP, phase_at=1000.0, jid=7, seen_at=990.0, started=7)
    assert decided(memory, RUNNING, 1000.0 + PATIENCE.stopping_for - 1) is Stand.CLOSING
    assert decided(memory, RUNNING, 1000.0 + PATIENCE.stopping_for) is Stand.ANNOUNCED


def test_a_prestop_of_an_earlier_incarnation_stops_nothing() -> None:
    memory = Memory(phase=Phase.PRESTOP, phase_at=980.0, jid=6, seen_at=900.0)
    assert decided(memory, RUNNING) is Stand.ANNOUNCED


def test_a_prestart_hook_run_by_hand_withdraws_nothing() -> None:
    memory = Memory(phase=Phase.CREATED, phase_at=999.0, jid=7, seen_at=900.0, started=7)
    assert decided(memory, RUNNING) is Stand.ANNOUNCED


def test_a_poststart_that_never_comes_does_not_keep_a_jail_dark() -> None:
    memory = Memory(phase=Phase.CREATED, phase_at=1000.0, jid=7, seen_at=1000.0)
    assert decided(memory, RUNNING, 1000.0 + PATIENCE.starting_for) is Stand.ANNOUNCED


def test_drained_and_not_vnet() -> None:
    assert decided(Memory(), RUNNING, barred="drained") is Stand.WIRED
    assert decided(Memory(), replace(RUNNING, vnet=False)) is Stand.ABSENT


@given(
    phases=st.lists(st.sampled_from(list(Phase)), max_size=6),
    running=st.booleans(),
    seen_at=st.floats(0, 1000),
    wait=st.floats(0, 500),
)
def test_only_a_running_jail_is_ever_announced(phases: list[Phase], running: bool, seen_at: float, wait: float) -> None:
    memory = Memory(jid=7, seen_at=seen_at)
    for at, phase in enumerate(phases):
        memory = replace(memory, phase=phase, phase_at=900.0 + at)
    stand = decided(memory, RUNNING if running else None, 1000.0 + wait)
    assert running or stand in (Stand.ABSENT, Stand.PAIRED)
    # whatever the hooks said, patience ends, and then only what is true counts
    late = decided(memory, RUNNING if running else None, 1000.0 + PATIENCE.starting_for + PATIENCE.stopping_for)
    assert late is (Stand.ANNOUNCED if running else Stand.ABSENT)


def test_the_holder_of_a_shared_address_is_the_one_that_has_it() -> None:
    prefix = WEB1.addresses[0]
    seen = replace(wired_view(), jails={"web1": RUNNING, "a-web": replace(RUNNING, name="a-web", jid=8)})
    assert links.holders({prefix: ("a-web", "web1")}, seen) == {"198.51.100.7": "web1"}
    assert links.holders({prefix: ("a-web", "web1")}, view()) == {}
