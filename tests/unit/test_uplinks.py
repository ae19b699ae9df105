"""The host's default routes: what is planned from every state, and that a kernel that obeys never is without a way out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobility import config as configuration
from mobility import uplinks
from mobility.bgp.speaker import Session
from mobility.doctor.uplinks import uplink_verdicts
from mobility.network.command import Result
from mobility.network.host import Trouble
from mobility.network.output import HostView, Interface, NetView, Route
from mobility.uplinks import Case, Heard, Standing, Step, Uplink, Uplinks, Way

A6, B6, C6 = "fd00:1::ff", "fe80::ff%ix1", "fd00:3::ff"
X6, X4 = "fd00:9::1", "192.0.2.254"
ONE, TWO = Uplink("one", {6: A6, 4: A6}), Uplink("two", {6: B6, 4: B6})
NOW = 1000.0
HOLD = 2.0


def up(since: float = 0.0) -> Heard:
    return Heard(Standing.UP, since, 1.0)


def down(since: float = 0.0) -> Heard:
    return Heard(Standing.DOWN, since)


def unheard(since: float = NOW) -> Heard:
    return Heard(Standing.UNHEARD, since)


def route(gateway: str, version: int = 6, flags: str = "UGS", interface: str = "ix0") -> Route:
    return Route(version, "default", gateway, flags, interface)


def case(one: Heard, two: Heard, routes: Iterable[Route] = (), ours: Iterable[Way] | None = None, **more: Any) -> Case:
    """Two uplinks; the routes are ours unless `ours` says which are."""
    routes = tuple(routes)
    memory = frozenset(Way(each.version, each.gateway, each.interface) for each in routes) if ours is None else ours
    return Case((ONE, TWO), {"one": one, "two": two}, routes, frozenset(memory), NOW, hold=HOLD, **more)


def lines(of: Case, version: int = 6) -> list[str]:
    """Return what is planned for one family, without the words that are always the same."""
    found = [" ".join(step.command.argv) for step in uplinks.plan(of).steps if step.version == version]
    return [line.removeprefix("route -n ").removeprefix("-6 ").replace(" default", "") for line in found]


BOTH = [route(A6), route(B6)]


class TestTogether:
    """Where the kernel groups next hops."""

    def test_nothing_without_a_session(self) -> None:
        assert lines(case(down(), down())) == lines(case(unheard(), unheard())) == []

    def test_each_that_is_up(self) -> None:
        assert lines(case(up(), up())) == [f"add {A6}", f"add {B6}"]
        assert lines(case(up(), up()), 4) == [f"add -inet6 {A6}", f"add -inet6 {B6}"]
        assert lines(case(down(), up())) == [f"add {B6}"]

    def test_an_add_comes_before_a_delete(self) -> None:
        assert lines(case(down(), up(), [route(A6)])) == [f"add {B6}", f"delete {A6}"]

    def test_one_that_is_down_goes(self) -> None:
        assert lines(case(up(), down(), BOTH)) == [f"delete {B6}"]

    def test_the_last_one_stays(self) -> None:
        assert lines(case(down(), down(), [route(A6)])) == []
        assert lines(case(down(), down(), BOTH)) == []

    def test_what_was_not_heard_of_is_left(self) -> None:
        assert lines(case(unheard(), unheard(), BOTH)) == []
        assert lines(case(unheard(), up(), BOTH)) == []

    def test_what_is_never_heard_of_is_dead(self) -> None:
        since = NOW - uplinks.UNHEARD_FOR
        assert lines(case(unheard(since), up(since), BOTH)) == [f"delete {A6}"]
        assert lines(case(unheard(since), up(since + 1), BOTH)) == []
        assert lines(case(unheard(since), unheard(since), BOTH)) == []

    def test_one_that_comes_back_is_held(self) -> None:
        assert lines(case(up(), up(NOW - HOLD / 2), [route(A6)])) == []
        assert lines(case(up(), up(NOW - HOLD), [route(A6)])) == [f"add {B6}"]

    def test_no_hold_where_nothing_that_is_up_serves(self) -> None:
        assert lines(case(up(NOW), down())) == [f"add {A6}"]
        assert lines(case(down(), up(NOW), [route(A6)])) == [f"add {B6}", f"delete {A6}"]

    def test_what_was_an_uplink_goes_when_another_serves(self) -> None:
        old = route(C6)
        assert lines(case(up(), down(), [old])) == [f"add {A6}", f"delete {C6}"]
        assert lines(case(down(), down(), [old])) == []

    def test_what_can_not_be_made_just_now_is_passed_over(self) -> None:
        assert lines(case(up(), up(), unusable=frozenset({(6, A6)}))) == [f"add {B6}"]
        assert lines(case(up(), down(), [route(B6)], unusable=frozenset({(6, A6)}))) == []


class TestOneAtATime:
    """Where it does not."""

    @pytest.mark.parametrize("how", [{"multipath": False}, {"alone": True}])
    def test_the_first_that_is_up(self, how: dict[str, Any]) -> None:
        assert lines(case(up(), up(), **how)) == [f"add {A6}"]
        assert lines(case(down(), up(), **how)) == [f"add {B6}"]

    def test_it_is_changed_in_one_step(self) -> None:
        assert lines(case(down(), up(), [route(A6)], multipath=False)) == [f"change {B6}"]
        moved = case(down(), up(), [route(A6, 4)], multipath=False)
        assert lines(moved, 4) == [f"change -inet6 {B6}"]

    def test_it_stays_where_it_is_when_nobody_is_up(self) -> None:
        assert lines(case(down(), down(), [route(B6)], multipath=False)) == []

    def test_it_goes_back_after_the_hold(self) -> None:
        assert lines(case(up(NOW), up(), [route(B6)], multipath=False)) == []
        assert lines(case(up(NOW - HOLD), up(), [route(B6)], multipath=False)) == [f"change {A6}"]

    def test_it_waits_for_one_that_was_not_heard_of(self) -> None:
        assert lines(case(unheard(), up(), [route(A6)], multipath=False)) == []
        since = NOW - uplinks.UNHEARD_FOR
        assert lines(case(unheard(since), up(since), [route(A6)], multipath=False)) == [f"change {B6}"]

    def test_multipath_was_switched_off(self) -> None:
        assert lines(case(up(), up(), BOTH, multipath=False)) == [f"delete {B6}"]

    def test_a_multipath_route_is_taken_apart_before_the_change(self) -> None:
        both = [route(A6), route(C6)]
        assert lines(case(down(), up(), both, multipath=False)) == [f"delete {A6}", f"change {B6}"]

    def test_only_ipv4_over_ipv6_next_hops(self) -> None:
        one = case(up(), up(), crossed_alone=True)
        assert lines(one, 4) == [f"add -inet6 {A6}"]
        assert lines(one, 6) == [f"add {A6}", f"add {B6}"]
        ipv4 = replace(one, uplinks=(Uplink("one", {6: A6, 4: "10.0.0.1"}), Uplink("two", {6: B6, 4: "10.0.1.1"})))
        assert lines(ipv4, 4) == ["add 10.0.0.1", "add 10.0.1.1"]

    def test_from_ipv6_next_hops_to_ipv4_gateways(self) -> None:
        ipv4 = (Uplink("one", {6: A6, 4: "10.0.0.1"}), Uplink("two", {6: B6, 4: "10.0.1.1"}))
        old = replace(case(up(), up(), [route(A6, 4)], crossed_alone=True), uplinks=ipv4)
        assert lines(old, 4) == ["change 10.0.0.1"]


class TestOfOthers:
    """Default routes that are not in our memory."""

    @pytest.mark.parametrize("multipath", [True, False])
    @pytest.mark.parametrize(
        "theirs",
        [route(X6), route("link#3", flags="US"), route("::1", flags="UGRS", interface="lo0"), route(A6, flags="UGRS")],
        ids=["gateway", "interface", "reject", "reject by our gateway"],
    )
    def test_none_is_added_beside_one_that_leads_elsewhere(self, theirs: Route, multipath: bool) -> None:
        one = case(up(), up(), [theirs], ours=(), multipath=multipath)
        assert lines(one) == []
        (problem,) = (text for text in uplinks.plan(one).problems if "IPv6" in text)
        assert "sysrc -x ipv6_defaultrouter; route -n -6 delete default" in problem

    def test_one_of_a_router_advertisement(self) -> None:
        said = uplinks.remedy(route("fe80::1%ix0", flags="UG"))
        assert said == "ifconfig ix0 inet6 -accept_rtadv; route -n -6 delete default fe80::1%ix0"

    def test_the_other_family_is_not_concerned(self) -> None:
        one = case(up(), down(), [route(X4, 4)], ours=())
        assert lines(one, 4) == []
        assert lines(one, 6) == [f"add {A6}"]
        assert "sysrc -x defaultrouter; route -n delete default 192.0.2.254" in uplinks.plan(one).problems[0]

    def test_ours_beside_it_are_let_go_when_dead(self) -> None:
        ours = [Way(6, A6), Way(6, B6)]
        assert lines(case(up(), down(), [*BOTH, route(X6)], ours)) == [f"delete {B6}"]
        assert lines(case(down(), down(), [*BOTH, route(X6)], ours)) == []
        assert lines(case(down(), up(), [route(A6), route(X6)], ours[:1])) == []

    def test_one_through_an_uplink_is_theirs_and_stays(self) -> None:
        one = case(down(), up(), [route(A6)], ours=())
        assert lines(one) == [f"add {B6}"]
        assert "without a session" in uplinks.plan(one).problems[0]
        assert lines(replace(one, routes=(route(A6), route(B6)), memory=frozenset({Way(6, B6)}))) == []

    def test_one_through_an_uplink_serves(self) -> None:
        assert lines(case(up(), down(), [route(A6), route(B6)], [Way(6, B6)])) == [f"delete {B6}"]
        assert lines(case(up(), up(), [route(A6)], ours=(), multipath=False)) == []
        assert lines(case(up(), up(), [route(A6), route(B6)], [Way(6, B6)], multipath=False)) == [f"delete {B6}"]

    def test_one_through_an_uplink_is_not_moved(self) -> None:
        assert lines(case(down(), up(), [route(A6)], ours=(), multipath=False)) == []


def test_two_sessions_through_one_gateway() -> None:
    twin = replace(TWO, gateways=ONE.gateways)
    one = replace(case(down(), up(), [route(A6)]), uplinks=(ONE, twin))
    assert lines(one) == []
    assert lines(replace(one, routes=(), memory=frozenset())) == [f"add {A6}"]


def test_a_family_without_a_gateway_is_left_alone() -> None:
    only6 = (Uplink("one", {6: A6}),)
    assert lines(replace(case(up(), up()), uplinks=only6), 4) == []


def test_the_memory_goes_with_the_routes_and_their_interfaces() -> None:
    memory = [Way(6, A6), Way(6, B6, "ix1"), Way(4, A6, "ix0"), Way(6, C6)]
    seen = [route(A6), route(B6), route(A6, 4), route(C6, flags="UGRS")]
    assert uplinks.recall(memory, seen) == {Way(6, A6, "ix0"), Way(4, A6, "ix0")}


def test_the_memory_is_json() -> None:
    ways = [Way(6, A6, "ix0"), Way(4, "10.0.0.1")]
    assert [Way(*way) for way in json.loads(json.dumps(sorted(ways)))] == sorted(ways)


class TestHear:
    def sessions(self, state: str, since: float = 5.0) -> dict[str, Session]:
        return {"one": Session("one", A6, state, since)}

    def test_since_when(self) -> None:
        heard = uplinks.hear({}, self.sessions("unknown"), 1)
        heard = uplinks.hear(heard, self.sessions("unknown"), 2)
        assert heard == {"one": Heard(Standing.UNHEARD, 1)}
        heard = uplinks.hear(heard, self.sessions("up"), 3)
        assert heard == uplinks.hear(heard, self.sessions("up"), 4) == {"one": Heard(Standing.UP, 3, 5.0)}

    def test_one_that_went_and_came_unseen_has_come_now(self) -> None:
        heard = uplinks.hear({}, self.sessions("up", 5), 1)
        assert uplinks.hear(heard, self.sessions("up", 6), 2)["one"].since == 2

    def test_one_that_is_set_up_again_is_as_before(self) -> None:
        heard = uplinks.hear({}, self.sessions("down"), 1)
        assert uplinks.hear(heard, self.sessions("connected"), 2) == heard
        assert uplinks.hear(heard, self.sessions("down", 9), 3) == heard


def test_when_time_alone_changes_the_plan() -> None:
    assert uplinks.next_change(case(up(), up())) is None
    assert uplinks.next_change(case(up(), up(NOW - 0.5))) == 1.5
    assert uplinks.next_change(case(up(), unheard(NOW))) == uplinks.UNHEARD_FOR


GATEWAYS = st.sampled_from([A6, B6, C6, X6])
HEARD = st.builds(
    Heard, st.sampled_from(Standing), st.sampled_from([0.0, NOW - uplinks.UNHEARD_FOR, NOW - 1, NOW]), st.just(0.0)
)


class Kernel:
    """Default routes of one family as FreeBSD 13.2 keeps them (transcript 3-routes, cases/uplinks)."""

    def __init__(self, routes: list[Route], *, multipath: bool, crossed: bool) -> None:
        self.routes = routes
        self.groups = multipath and not crossed
        self.version = 4 if crossed else 6

    def carry_out(self, step: Step) -> bool:
        """Do what a command says; return whether the kernel takes it."""
        verb = step.command.argv[3 if step.version == 6 else 2]
        gateways = [each.gateway for each in self.routes]
        if verb == "add":
            if step.comes in gateways or (gateways and not self.groups):
                return False
        elif verb == "change":
            if len(gateways) != 1:
                return False
        elif step.goes not in gateways:
            return False
        self.routes = list(uplinks.after(step, self.routes))
        return True


@given(one=HEARD, two=HEARD, gateways=st.lists(GATEWAYS, max_size=3, unique=True), data=st.data())
def test_there_is_always_a_way_out_and_others_keep_theirs(
    one: Heard, two: Heard, gateways: list[str], data: st.DataObject
) -> None:
    crossed, multipath = data.draw(st.booleans()), data.draw(st.booleans())
    version = 4 if crossed else 6
    grouped = gateways if not crossed else gateways[:1]
    kernel = Kernel([route(text, version) for text in grouped], multipath=multipath, crossed=crossed)
    ours = {text for text in grouped if text != X6 and data.draw(st.booleans())}
    memory = frozenset(Way(version, text, "ix0") for text in ours)
    began = case(one, two, kernel.routes, memory, multipath=multipath, crossed_alone=crossed)
    for _ in range(8):
        steps = [step for step in uplinks.plan(began).steps if step.version == version]
        if not steps:
            break
        assert kernel.carry_out(steps[0]), steps[0]
        left = {each.gateway for each in kernel.routes}
        assert left, "no default route"
        assert set(grouped) - ours <= left, "not ours"
        memory = (memory - {Way(version, steps[0].goes, "ix0"), Way(version, steps[0].goes)}) | {
            Way(version, steps[0].comes) for _ in [0] if steps[0].comes
        }
        began = replace(began, routes=tuple(kernel.routes), memory=memory)
    else:
        pytest.fail("it never ends")
    left = {each.gateway for each in kernel.routes}
    serving = {uplink.gateways[version] for uplink in (ONE, TWO) if began.heard[uplink.name].standing is Standing.UP}
    if serving and not set(grouped) - ours:
        assert left & serving or (len(left) == 1 and not kernel.groups)


# -- the edge

CONFIG = """
[host]
allowed = ["198.51.100.0/24"]
[agent]
uplink_hold = 0
[bgp]
as = 65001
router_id = "10.0.0.1"
[[bgp.peer]]
name = "one"
address = "fd00:1::ff"
as = 65000
local_address = "fd00:1::1"
uplink = true
[[bgp.peer]]
name = "two"
address = "fd00:2::ff"
as = 65000
local_address = "fd00:2::1"
uplink = true
uplink_ipv4 = "198.18.2.2"
uplink_ipv6 = "fe80::ff%ix1"
"""
LO0 = Interface("lo0", up=True, inet=("127.0.0.1", "203.0.113.1"))


def loaded(folder: Path, text: str = CONFIG) -> configuration.Config:
    path = folder / "mobility.toml"
    path.write_text(text)
    return configuration.load(path)


class TestConfiguration:
    def test_gateways(self, tmp_path: Path) -> None:
        peers = loaded(tmp_path).bgp.peers
        crossed = uplinks.of_peers(peers, crossed=True)
        assert [each.gateways for each in crossed] == [{6: A6, 4: A6}, {6: "fe80::ff%ix1", 4: "fe80::ff%ix1"}]
        plain = uplinks.of_peers(peers, crossed=False)
        assert [each.gateways for each in plain] == [{6: A6}, {6: "fe80::ff%ix1", 4: "198.18.2.2"}]

    def test_a_session_is_an_uplink_for_its_families(self, tmp_path: Path) -> None:
        legacy = """[[bgp.peer]]
name = "legacy"
address = "192.0.2.254"
as = 65000
local_address = "192.0.2.1"
families = ["ipv4"]
uplink = true
"""
        peers = loaded(tmp_path, CONFIG.replace("uplink_hold", "look_every = 5\nuplink_hold") + legacy).bgp.peers
        peers = (*peers[:1], replace(peers[1], families=("ipv6",)), *peers[2:])
        for crossed in (True, False):
            one, two, three = uplinks.of_peers(peers, crossed=crossed)
            assert dict(one.gateways) == ({6: A6, 4: A6} if crossed else {6: A6})
            assert dict(two.gateways) == {6: "fe80::ff%ix1"}
            assert dict(three.gateways) == {4: "192.0.2.254"}

    def test_no_peer_is_one_by_itself(self, tmp_path: Path) -> None:
        assert not uplinks.of_peers(loaded(tmp_path, CONFIG.split("uplink = true")[0]).bgp.peers, crossed=True)

    @pytest.mark.parametrize(
        ("old", "new", "key", "words"),
        [
            ('"fe80::ff%ix1"', '"fe80::ff"', "bgp.peer[1].uplink_ipv6", "needs its interface"),
            ('"fe80::ff%ix1"', '"fd00::1%ix1"', "bgp.peer[1].uplink_ipv6", "needs its interface"),
            ('"fe80::ff%ix1"', '"fe80::ff%a;b"', "bgp.peer[1].uplink_ipv6", "needs its interface"),
            ('"fe80::ff%ix1"', '"ff02::1"', "bgp.peer[1].uplink_ipv6", "the address of a router"),
            ('"198.18.2.2"', '"127.0.0.1"', "bgp.peer[1].uplink_ipv4", "the address of a router"),
            ('"198.18.2.2"', '"fd00::1"', "bgp.peer[1].uplink_ipv4", "IPv4 address"),
            ("uplink = true\nuplink_ipv4", "uplink_ipv4", "bgp.peer[1].uplink_ipv4", "add uplink = true"),
            ('"fd00:1::ff"', '"::1"', "bgp.peer[0].address", "set uplink_ipv6"),
            ("uplink = true", "multihop = 2\nuplink = true", "bgp.peer[0].address", "several hops away"),
            ("uplink = true", 'uplink = "yes"', "bgp.peer[0].uplink", "true or false"),
            ("uplink_hold = 0", "uplink_hold = -1", "agent.uplink_hold", "from 0 to 3600"),
        ],
    )
    def test_mistakes(self, tmp_path: Path, old: str, new: str, key: str, words: str) -> None:
        assert old in CONFIG
        with pytest.raises(configuration.ConfigError) as caught:
            loaded(tmp_path, CONFIG.replace(old, new, 1))
        assert [words in problem.remedy for problem in caught.value.problems if problem.key == key] == [True]


class Machine:
    """A host whose default routes are here: answers as 13.2 does, in the words of the transcripts."""

    ipv6_next_hops = True

    def __init__(self, *, multipath: str = "1", addresses: bool = True) -> None:
        self.routes: list[Route] = []
        self.multipath = multipath
        self.ran: list[str] = []
        self.says: dict[str, str] = {}
        self.hangs = False
        self.came = asyncio.Event()
        self.interfaces = {"lo0": (LO0 if addresses else replace(LO0, inet=("127.0.0.1",)),)}

    def view(self) -> HostView:
        return HostView(NetView(self.interfaces, {"default": tuple(self.routes)} if self.routes else {}))

    async def has(self, count: int) -> None:
        """Wait until there are so many default routes."""
        while len(self.routes) < count:
            self.came.clear()
            await self.came.wait()

    async def look(self) -> HostView:
        return self.view()

    async def command(self, argv: tuple[str, ...]) -> Result:
        line = " ".join(argv)
        if line == f"sysctl -n {uplinks.MULTIPATH}":
            return Result(tuple(argv), 0, f"{self.multipath}\n", "", 0.0)
        self.ran.append(line)
        if self.hangs:
            raise Trouble(f"{line}: no answer within 10 s; killed", retry=True)
        if said := self.says.get(line) or self._route(list(argv)):
            return Result(tuple(argv), 1, f"{line}: {said}\n", "", 0.0)
        return Result(tuple(argv), 0, f"{line}\n", "", 0.0)

    def _route(self, words: list[str]) -> str:
        version = 6 if "-6" in words else 4
        verb = next(word for word in words if word in ("add", "change", "delete"))
        crossed, gateway = "-inet6" in words, words[-1]
        here = [each for each in self.routes if each.version == version]
        same = [each for each in here if each.gateway == gateway]
        if verb == "add" and here and (self.multipath != "1" or (same and not crossed)):
            return "route already in table"
        if verb == "add" and here and crossed:
            return "Invalid argument"
        if (verb == "delete" and not same) or (verb == "change" and len(here) != 1):
            return "not in table"
        gone = here if verb == "change" else same
        self.routes = [each for each in self.routes if each not in gone]
        if verb != "delete":
            interface = "ix0" if gateway.startswith("fd00:1:") else "ix1"
            self.routes.append(Route(version, "default", gateway, "UGS", interface))
            self.came.set()
        return ""


class Bench:
    """Uplinks on such a machine, with sessions and a clock of our own."""

    def __init__(self, folder: Path, machine: Machine, memory: Iterable[Way] = (), *, without: bool = False) -> None:
        self.machine = machine
        self.now = NOW
        self.states = {"one": "unknown", "two": "unknown"}
        self.kept: list[frozenset[Way]] = []
        self.uplinks = Uplinks(
            loaded(folder, CONFIG.split("uplink = true")[0] if without else CONFIG),
            machine,  # type: ignore[arg-type]  # what is used of it is there
            lambda: {name: Session(name, "", state) for name, state in self.states.items()},
            remembered=memory,
            remember=self.kept.append,
            clock=lambda: self.now,
        )

    def settle(self, *, look: bool = True, **states: str) -> float | None:
        self.states |= states
        self.now += 1
        if look:
            self.uplinks.look(self.machine.view(), self.now)
        return asyncio.run(self.uplinks.settle())

    def gateways(self, version: int) -> list[str]:
        return [each.gateway for each in self.machine.routes if each.version == version]


TWO6 = "fe80::ff%ix1"


class TestUplinks:
    def test_from_the_first_session_to_the_last(self, tmp_path: Path) -> None:
        bench = Bench(tmp_path, Machine())
        assert bench.settle() is None
        assert bench.machine.ran == []
        bench.settle(look=False, one="up")
        assert (bench.gateways(6), bench.gateways(4)) == ([A6], [A6])
        bench.settle(two="up")
        assert (bench.gateways(6), bench.gateways(4)) == ([A6, TWO6], [A6])
        bench.settle(look=False, one="down")
        assert (bench.gateways(6), bench.gateways(4)) == ([TWO6], [TWO6])
        bench.settle(two="down")
        assert (bench.gateways(6), bench.gateways(4)) == ([TWO6], [TWO6])
        assert "no uplink has a session" in bench.uplinks.problems[0]
        ran = len(bench.machine.ran)
        bench.settle(one="unknown", two="unknown")
        assert len(bench.machine.ran) == ran

    def test_a_second_way_is_tried_once(self, tmp_path: Path) -> None:
        bench = Bench(tmp_path, Machine())
        for _ in range(3):
            bench.settle(one="up", two="up")
        assert bench.machine.ran.count(f"route -n add default -inet6 {TWO6}") == 1
        assert bench.uplinks.describe()["one_at_a_time"] == {"ipv4": True, "ipv6": False}
        assert not bench.uplinks.problems

    def test_a_kernel_that_says_multipath_and_has_none(self, tmp_path: Path) -> None:
        machine = Machine()
        machine.says = {f"route -n -6 add default {TWO6}": "route already in table"}
        bench = Bench(tmp_path, machine)
        for _ in range(3):
            bench.settle(one="up", two="up")
        assert bench.gateways(6) == [A6]
        assert machine.ran.count(f"route -n -6 add default {TWO6}") == 1
        bench.settle(one="down")
        assert bench.gateways(6) == [TWO6]

    def test_multipath_is_asked_for_at_each_look(self, tmp_path: Path) -> None:
        bench = Bench(tmp_path, Machine(multipath="0"))
        bench.settle(one="up", two="up")
        assert bench.gateways(6) == [A6]
        bench.machine.multipath = "1"
        bench.settle()
        assert bench.gateways(6) == [A6, TWO6]

    def test_what_is_made_is_remembered_before(self, tmp_path: Path) -> None:
        bench = Bench(tmp_path, Machine())
        bench.settle()
        bench.machine.hangs = True
        assert bench.settle(look=False, one="up") == uplinks.TRY_AGAIN
        assert Way(6, A6) in bench.kept[-1]
        assert "no answer" in bench.uplinks.problems[-1]
        # the command had done its work, and a new agent finds it
        bench.machine.hangs = False
        bench.machine.routes = [route(A6)]
        again = Bench(tmp_path, bench.machine, bench.kept[-1])
        again.settle(one="down", two="up")
        assert again.gateways(6) == [TWO6]

    def test_what_was_not_made_is_forgotten(self, tmp_path: Path) -> None:
        bench = Bench(tmp_path, Machine(), [Way(6, A6)])
        bench.settle()
        assert bench.kept == [frozenset()]

    def test_a_new_agent_changes_nothing(self, tmp_path: Path) -> None:
        bench = Bench(tmp_path, Machine())
        bench.settle(one="up", two="up")
        bench.settle()
        for one, two in (("unknown", "unknown"), ("up", "unknown"), ("unknown", "up"), ("up", "up")):
            again = Bench(tmp_path, bench.machine, bench.kept[-1])
            bench.machine.ran.clear()
            again.settle(one=one, two=two)
            assert [line for line in bench.machine.ran if f"add default -inet6 {TWO6}" not in line] == []

    def test_a_gateway_on_no_network(self, tmp_path: Path) -> None:
        bench = Bench(tmp_path, Machine())
        bench.machine.says = {f"route -n -6 add default {A6}": "Network is unreachable"}
        assert bench.settle(one="up") == uplinks.TRY_AGAIN
        assert any("on no network of this host" in text for text in bench.uplinks.problems)
        bench.settle(two="up")
        assert bench.gateways(6) == [TWO6]
        bench.machine.says = {}
        bench.settle()
        assert bench.gateways(6) == [TWO6, A6]
        assert not bench.uplinks.problems

    def test_an_old_look_is_not_believed(self, tmp_path: Path) -> None:
        bench = Bench(tmp_path, Machine())
        bench.settle()
        before, old = bench.now, bench.machine.view()
        bench.settle(look=False, one="up")
        ran = len(bench.machine.ran)
        bench.uplinks.look(old, before)
        asyncio.run(bench.uplinks.settle())
        assert len(bench.machine.ran) == ran

    def test_no_ipv4_without_an_address(self, tmp_path: Path) -> None:
        bench = Bench(tmp_path, Machine(addresses=False))
        bench.settle(one="up")
        assert (bench.gateways(6), bench.gateways(4)) == ([A6], [])
        assert not bench.uplinks.problems
        bench.machine.interfaces = {"lo0": (LO0,)}
        bench.settle()
        assert bench.gateways(4) == [A6]

    def test_a_kernel_without_ipv6_next_hops(self, tmp_path: Path) -> None:
        machine = Machine()
        machine.ipv6_next_hops = False
        bench = Bench(tmp_path, machine)
        bench.settle(one="up", two="up")
        assert bench.gateways(4) == ["198.18.2.2"]

    def test_a_hundred_flaps_cost_one_command_for_each_family(self, tmp_path: Path) -> None:
        bench = Bench(tmp_path, Machine())
        bench.uplinks.configure(loaded(tmp_path, CONFIG.replace("uplink_hold = 0", "uplink_hold = 5")))
        bench.settle(one="up", two="up")
        bench.now += 5
        bench.settle()
        bench.machine.ran.clear()
        for _ in range(100):
            bench.settle(look=False, two="down")
            bench.settle(look=False, two="up")
        assert bench.machine.ran == [f"route -n -6 delete default {TWO6}"]
        bench.now += 5
        bench.settle()
        assert bench.gateways(6) == [A6, TWO6]

    def test_it_runs_on_news(self, tmp_path: Path) -> None:
        bench = Bench(tmp_path, Machine())

        async def whole() -> None:
            task = asyncio.create_task(bench.uplinks.run())
            bench.uplinks.look(bench.machine.view(), bench.now)
            await asyncio.sleep(0)
            bench.states["one"] = "up"
            bench.uplinks.news()
            async with asyncio.timeout(10):
                await bench.machine.has(2)
            task.cancel()

        asyncio.run(whole())

    def test_an_uplink_taken_out_of_the_configuration(self, tmp_path: Path) -> None:
        bench = Bench(tmp_path, Machine())
        bench.settle(one="up", two="up")
        bench.settle()
        bench.uplinks.configure(loaded(tmp_path, CONFIG.replace("uplink = true", "", 1)))
        bench.settle()
        assert (bench.gateways(6), bench.gateways(4)) == ([TWO6], [TWO6])
        bench.uplinks.configure(loaded(tmp_path, CONFIG.split("uplink = true")[0]))
        bench.settle()
        assert (bench.gateways(6), bench.gateways(4)) == ([TWO6], [TWO6])
        assert bench.uplinks.active
        for version, text in zip((6, 4), bench.uplinks.problems, strict=True):
            assert "none any more" in text
            family = "-6 delete default" if version == 6 else "delete default -inet6"
            assert f": route -n {family} {TWO6};" in text
        assert f"sysrc ipv6_defaultrouter={TWO6}" in bench.uplinks.problems[0]

    def test_what_is_left_of_uplinks_is_told_until_it_is_gone_or_somebody_elses(self, tmp_path: Path) -> None:
        bench = Bench(tmp_path, Machine())
        bench.settle(one="up")
        bench.settle()
        none = loaded(tmp_path, CONFIG.split("uplink = true")[0])
        bench.uplinks.configure(none)
        bench.settle()
        assert len(bench.uplinks.problems) == 2
        bench.machine.routes = [each for each in bench.machine.routes if each.version == 4]
        bench.settle()
        assert len(bench.uplinks.problems) == 1
        assert bench.uplinks.problems[0].startswith("the IPv4 default route")
        # another has come in its place
        bench.machine.routes = [route(X4, 4)]
        bench.settle()
        assert not bench.uplinks.problems
        assert not bench.uplinks.active
        # and one that was made again by hand is not ours
        bench.machine.routes = [route(A6)]
        bench.settle()
        assert not bench.uplinks.problems

    def test_what_was_told_of_uplinks_goes_with_them(self, tmp_path: Path) -> None:
        bench = Bench(tmp_path, Machine())
        bench.machine.routes = [route(X4, 4), route(X6)]
        bench.settle(one="up")
        assert len(bench.uplinks.problems) == 2
        bench.uplinks.configure(loaded(tmp_path, CONFIG.split("uplink = true")[0]))
        assert not bench.uplinks.active
        assert not bench.uplinks.problems

    def test_a_start_without_uplinks_leaves_what_is_there_to_the_host(self, tmp_path: Path) -> None:
        bench = Bench(tmp_path, Machine(), [Way(6, A6, "ix0")], without=True)
        bench.machine.routes = [route(A6)]
        assert not bench.uplinks.active
        assert bench.kept == [frozenset()]
        bench.settle(one="down")
        assert not bench.uplinks.problems
        assert bench.gateways(6) == [A6]

    def test_what_is_told(self, tmp_path: Path) -> None:
        bench = Bench(tmp_path, Machine())
        bench.machine.routes = [route(X4, 4)]
        bench.settle(one="up")
        told = bench.uplinks.describe()
        assert json.loads(json.dumps(told)) == told
        assert [(each["family"], each["gateway"], each["ours"]) for each in told["routes"]] == [
            ("IPv4", X4, False),
            ("IPv6", A6, True),
        ]
        assert [each["session"] for each in told["uplinks"]] == ["up", "unheard"]
        assert any("leads past the uplinks" in text for text in told["problems"])


class TestDoctor:
    ON = Result((), 0, "1\n", "", 0.0)
    AGENT: ClassVar[dict[str, Any]] = {
        "one_at_a_time": {"ipv4": True, "ipv6": False},
        "routes": [{"family": "IPv6", "gateway": A6, "interface": "ix0", "ours": True}],
    }
    UP: ClassVar[dict[str, str]] = {"one": "up", "two": "up"}

    def judge(self, *routes: Route, multipath: Result = ON, of: tuple[Uplink, ...] = (ONE, TWO), **more: Any) -> str:
        sessions, agent = more.get("sessions", self.UP), more.get("agent", self.AGENT)
        found = uplink_verdicts(of, routes, multipath, sessions, agent)
        return "\n".join(line for verdict in found for line in verdict.lines())

    def test_all_is_well(self) -> None:
        said = self.judge(route(A6))
        assert "WARN" not in said
        assert "does not group ipv4" in said
        assert "none" in self.judge(of=())

    def test_what_is_not(self) -> None:
        assert "net.route.multipath=1" in self.judge(multipath=Result((), 0, "0\n", "", 0.0))
        assert "one default route at a time" in self.judge(multipath=Result((), 1, "", "unknown oid", 0.0))
        assert "nothing is there to fail over to" in self.judge(of=(ONE,))
        assert "no session: two; the others" in self.judge(sessions={"one": "up", "two": "down"})
        assert "the last default route stays" in self.judge(sessions={})
        assert "set uplink_ipv4" in self.judge(of=(Uplink("one", {6: A6}), Uplink("two", {6: B6})))
        assert "set uplink_ipv4" not in self.judge(of=(ONE, Uplink("two", {6: B6})))

    def test_routes_of_others(self) -> None:
        assert "leads past them" in self.judge(route(X4, 4))
        assert "route -n delete default 192.0.2.254" in self.judge(route(X4, 4))
        assert "route -n delete default -inet6 fd00:9::1" in self.judge(route(X6, 4))
        assert "-interface tun0" in self.judge(route("link#3", flags="US", interface="tun0"))
        assert "is not mobility's" in self.judge(route(B6))
        assert "WARN" not in self.judge(route(B6), agent=None)
