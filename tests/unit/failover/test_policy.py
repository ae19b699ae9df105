"""The policy at single moments: the tables of README.md, line by line, and what is said to operators."""

from __future__ import annotations

import itertools
import json
from dataclasses import asdict, dataclass, replace

import pytest

from mobility.announcement import Announce
from mobility.bgp import ownership
from mobility.failover import policy
from mobility.failover.model import BACKUP, INIT, MASTER, Carp, Pfsync, Seen, Vhid
from mobility.failover.policy import LESS, WITHDRAW, Drain, Fabric, Group, Memory, Role, Settings, Stance, decide
from tests.readme import PATH, table

ONE, TWO = Vhid("igb0", 1), Vhid("igb1", 2)
GROUP = Group("gw", (ONE, TWO), jails=("web1",), groups=("dns",))
IN_STEP = Pfsync(True, "igb2", "ff12::f0%igb2", syncok=True, bulk=False, up=True)
OUT_OF_STEP = replace(IN_STEP, syncok=False, bulk=True)


def seen(
    one: str = MASTER,
    two: str | None = None,
    *,
    pfsync: Pfsync = IN_STEP,
    preempt: bool | None = True,
    advbase: int = 1,
) -> Seen:
    states = ((ONE, one), (TWO, one if two is None else two))
    carps = tuple(Carp(vhid, state, advbase) for vhid, state in states if state)
    return Seen(carps, pfsync, demotion=0, preempt=preempt)


def fabric(established: int = 1, *, sees: bool = False, acknowledged: bool = True) -> Fabric:
    return Fabric(established, 2, acknowledged, {"gw": sees})


def stepped(
    looks: list[tuple[float, Seen, Fabric]], group: Group = GROUP, drained: Drain = Drain.NO
) -> policy.Decision:
    """Decide at each of these moments."""
    memory = Memory()
    for now, look, bgp in looks:
        decision = decide(look, memory, bgp, Settings((group,)), now, drained=drained)
        memory = decision.memory
    return decision


# -- the tables

CARP = {
    "MASTER": ((MASTER, MASTER),),
    "BACKUP": ((BACKUP, BACKUP),),
    "MASTER and BACKUP": ((MASTER, BACKUP), (BACKUP, MASTER)),
    "INIT, or not there": ((INIT, INIT), (INIT, MASTER), (BACKUP, INIT), ("", MASTER), (BACKUP, "")),
}
CARP["any"] = tuple(itertools.chain.from_iterable(CARP.values()))
WISHES = {
    "stays": ((LESS, Drain.NO),),
    "goes": ((WITHDRAW, Drain.NO), (LESS, Drain.HOST), (WITHDRAW, Drain.HOST)),
    "shuts down": ((LESS, Drain.SHUTDOWN), (WITHDRAW, Drain.SHUTDOWN)),
}
WISHES["goes, shuts down"] = WISHES["goes"] + WISHES["shuts down"]
WISHES["any"] = WISHES["stays"] + WISHES["goes, shuts down"]
YES_NO = {"yes": (True,), "no": (False,), "any": (True, False)}
SHOWN = {"yes": ("yes",), "never": ("never",), "no": ("never", "gone"), "any": ("yes", "never", "gone")}
"""Whether the other's path is seen; `gone`: it was, before."""
AGES = (0.0, policy.SETTLED, GROUP.hand_over_within, GROUP.sync_within)
LIMITS = {"2 s": policy.SETTLED, "hand_over_within": GROUP.hand_over_within, "sync_within": GROUP.sync_within}
STANCES = {"preferred": Stance.PREFERRED, "less": Stance.LESS, "withdrawn": Stance.WITHDRAWN}


@dataclass(frozen=True)
class Case:
    """One combination of all that the table has columns for; it has been so for `age` seconds."""

    states: tuple[str, str]
    wish: tuple[str, Drain]
    in_step: bool
    shown: str
    preempt: bool
    age: float

    def stance(self) -> Stance:
        when_backup, drained = self.wish
        look = seen(*self.states, pfsync=IN_STEP if self.in_step else OUT_OF_STEP, preempt=self.preempt)
        before = seen(BACKUP, MASTER, preempt=self.preempt)
        group = replace(GROUP, when_backup=when_backup)
        bgp = fabric(sees=self.shown == "yes")
        # announced before that, so that there is something to withdraw
        history = [(0.0, before, fabric(sees=self.shown == "gone")), (100.0, look, bgp), (100.0 + self.age, look, bgp)]
        memory = Memory()
        for now, each, fabric_then in history:
            drain = drained if now >= 100.0 else Drain.NO
            decision = decide(each, memory, fabric_then, Settings((group,)), now, drained=drain)
            memory = decision.memory
        return decision.groups["gw"].stance


def held(how_long: str, age: float, limits: dict[str, float]) -> bool:
    """Tell whether what has been so for `age` seconds fits a cell: "any", "hold", "less than hold"."""
    since = how_long.removeprefix("less than ")
    return since == "any" or (age < limits[since]) == how_long.startswith("less than ")


def fits(row: list[str], case: Case) -> bool:
    carp, wish, in_step, shown, preempt, how_long, _ = (cell.replace("`", "") for cell in row)
    return (
        held(how_long, case.age, LIMITS)
        and case.states in CARP[carp]
        and case.wish in WISHES[wish]
        and case.in_step in YES_NO[in_step]
        and case.shown in SHOWN[shown]
        and case.preempt in YES_NO[preempt]
    )


def test_the_table_of_announcements_is_what_the_policy_does() -> None:
    """The first line that fits counts; for each combination there is one, and each line fits some."""
    rows = table(PATH.read_text(), "### What is announced")
    states = dict.fromkeys(each for name in CARP for each in CARP[name])
    used = set()
    for case in itertools.starmap(
        Case, itertools.product(states, WISHES["any"], (True, False), SHOWN["any"], (True, False), AGES)
    ):
        index, row = next((index, row) for index, row in enumerate(rows) if fits(row, case))
        used.add(index)
        assert case.stance() == STANCES[row[-1].replace("`", "").partition(",")[0]], (row, case)
    assert used == set(range(len(rows)))


HOSTS = {
    "boots without it": (False, False, Drain.NO),
    "has the fabric": (False, False, Drain.NO),
    "has lost the fabric": (True, False, Drain.NO),
    "has it back": (True, True, Drain.NO),
    "is drained": (False, False, Drain.HOST),
}


def demoted(state: str, age: float, *, acknowledged: bool, preempt: bool) -> int:
    lost, back, drained = HOSTS[state]
    memory, look = Memory(), seen(preempt=preempt)
    moments = [(0.0, fabric(0 if state == "boots without it" else 1))]
    if lost:
        moments += [(10.0, fabric(0)), (10.0 + (GROUP.hold if back else age), fabric(0))]
    if back:
        moments += [(100.0, fabric(1)), (100.0 + age, fabric(1, acknowledged=acknowledged))]
    for now, bgp in moments:
        decision = decide(look, memory, bgp, Settings((GROUP,)), now, drained=drained)
        memory = decision.memory
    assert not (decision.demotion and not decision.reason)
    return decision.demotion


def test_the_table_of_demotions_is_what_the_policy_does() -> None:
    rows = [[cell.replace("`", "") for cell in row] for row in table(PATH.read_text(), "### When the host is demoted")]
    limits = {"hold": GROUP.hold, "hold_down": GROUP.hold_down}
    used = set()
    for state, age, acknowledged, preempt in itertools.product(
        HOSTS, (0.0, GROUP.hold, GROUP.hold_down), (True, False), (True, False)
    ):
        index = next(
            index
            for index, row in enumerate(rows)
            if row[0] in (state, "any")
            and held(row[1], age, limits)
            and acknowledged in YES_NO[row[2]]
            and preempt in YES_NO[row[3]]
        )
        used.add(index)
        wanted = GROUP.demotion if rows[index][-1] == "demotion" else 0
        assert demoted(state, age, acknowledged=acknowledged, preempt=preempt) == wanted, rows[index]
    assert used == set(range(len(rows)))


# -- what the tables leave out


def test_nothing_configured_is_nothing_decided() -> None:
    decision = decide(Seen(), Memory(), fabric(0), Settings(), 0.0, drained=Drain.HOST)
    assert (decision.groups, decision.demotion, decision.due, decision.warnings) == ({}, 0, None, ())


def test_a_master_stays_preferred_whatever_pfsync_does_then() -> None:
    decision = stepped([(0.0, seen(), fabric()), (1.0, seen(pfsync=OUT_OF_STEP), fabric())])
    assert decision.groups["gw"].stance == Stance.PREFERRED
    assert decision.warnings == ()
    again = stepped([(0.0, seen(), fabric()), (1.0, seen(BACKUP), fabric()), (2.0, seen(pfsync=OUT_OF_STEP), fabric())])
    assert again.groups["gw"].stance == Stance.LESS
    assert again.due == 2.0 + GROUP.sync_within


@pytest.mark.parametrize(
    ("pfsync", "said"),
    [
        (Pfsync(), "there is no pfsync0"),
        (Pfsync(True, up=True), "pfsync0 has no syncdev"),
        (replace(IN_STEP, syncok=None, up=False, bulk=None), "pfsync0 is not up"),
        (OUT_OF_STEP, "a bulk update is under way"),
        (replace(OUT_OF_STEP, bulk=None), "syncok: 0"),
    ],
)
def test_what_a_new_master_waits_for_is_said_and_what_it_did_not_get(pfsync: Pfsync, said: str) -> None:
    looks = [(0.0, seen(pfsync=pfsync), fabric())]
    waiting = stepped(looks).groups["gw"]
    assert waiting.stance == Stance.LESS
    assert waiting.due == GROUP.sync_within
    assert said in waiting.reason
    tired = stepped([*looks, (GROUP.sync_within, seen(pfsync=pfsync), fabric())])
    assert tired.groups["gw"].stance == Stance.PREFERRED
    assert "preferred without pfsync" in tired.groups["gw"].reason
    assert any(said in warning for warning in tired.warnings)
    later = stepped([*looks, (GROUP.sync_within, seen(pfsync=pfsync), fabric()), (99.0, seen(), fabric())])
    assert later.groups["gw"].reason == "MASTER"
    assert later.warnings == ()


def test_without_pfsync_nobody_waits_for_it() -> None:
    decision = stepped([(0.0, seen(pfsync=Pfsync()), fabric())], replace(GROUP, pfsync=False))
    assert decision.groups["gw"].stance == Stance.PREFERRED
    assert decision.warnings == ()


def test_who_has_announced_nothing_yet_needs_no_time_to_go() -> None:
    group = replace(GROUP, when_backup=WITHDRAW)
    for state in (BACKUP, INIT):
        assert stepped([(5.0, seen(state), fabric(sees=True))], group).groups["gw"].stance == Stance.WITHDRAWN


def test_a_path_that_goes_is_replaced_at_once_and_not_left_again_before_the_hold_down() -> None:
    group = replace(GROUP, when_backup=WITHDRAW)
    looks = [
        (0.0, seen(BACKUP), fabric(sees=True)),
        (1.0, seen(BACKUP), fabric()),
        (2.0, seen(BACKUP), fabric(sees=True)),
    ]
    assert stepped(looks[:2], group).groups["gw"].stance == Stance.LESS
    back = stepped(looks, group).groups["gw"]
    assert (back.stance, back.due) == (Stance.LESS, 1.0 + group.hold_down)
    late = [*looks, (1.0 + group.hold_down, seen(BACKUP), fabric(sees=True))]
    assert stepped(late, group).groups["gw"].stance == Stance.WITHDRAWN


def test_without_a_session_nothing_is_concluded_from_what_the_fabric_shows() -> None:
    group = replace(GROUP, when_backup=WITHDRAW)
    ruling = stepped([(0.0, seen(BACKUP), fabric(sees=True)), (1.0, seen(BACKUP), fabric(0))], group).groups["gw"]
    assert ruling.stance == Stance.WITHDRAWN
    assert "has not told yet" in ruling.reason


def test_it_waits_longer_where_advertisements_are_rare() -> None:
    group = replace(GROUP, when_backup=WITHDRAW)
    ruling = stepped([(0.0, seen(BACKUP, advbase=20), fabric())], group).groups["gw"]
    assert ruling.due == group.hand_over_within + 57


def test_a_vhid_that_turns_alone_is_named() -> None:
    decision = stepped([(0.0, seen(MASTER, BACKUP), fabric())])
    assert decision.groups["gw"].role == Role.MIXED
    assert "1@igb0 is MASTER, 2@igb1 is BACKUP" in decision.groups["gw"].reason
    (warning,) = decision.warnings
    assert "the same advskew" in warning
    gone = stepped([(0.0, seen(MASTER, ""), fabric())])
    assert "2@igb1 is not there" in gone.groups["gw"].reason
    assert "ifconfig igb1 vhid 2" in gone.warnings[0]


@pytest.mark.parametrize(("preempt", "said"), [(False, "sysctl net.inet.carp.preempt=1"), (None, "kldload carp")])
def test_what_keeps_it_from_failing_over_is_said_while_all_is_well(preempt: bool | None, said: str) -> None:
    well = stepped([(0.0, seen(preempt=preempt), fabric())])
    assert (well.demotion, well.reason) == (0, "")
    assert any(said in warning for warning in well.warnings)
    drained = stepped([(0.0, seen(preempt=preempt), fabric())], drained=Drain.HOST)
    assert drained.demotion == 0
    assert "CARP stays where it is" in drained.reason
    assert drained.groups["gw"].stance == Stance.PREFERRED


def test_the_largest_demotion_counts_and_every_reason_is_told() -> None:
    small = replace(GROUP, name="dns", demotion=50, min_sessions=2)
    memory = Memory()
    for now in (0.0, 5.0):
        decision = decide(seen(), memory, fabric(1), Settings((GROUP, small)), now)
        memory = decision.memory
    assert decision.demotion == 50
    assert decision.reason == "the fabric is lost: 1 sessions are up of the 2 that dns needs"
    both = decide(seen(), memory, fabric(0), Settings((GROUP, small)), 6.0, drained=Drain.HOST)
    assert (both.demotion, both.reason) == (240, "this host is drained")


def test_min_sessions_0_never_demotes() -> None:
    decision = stepped([(0.0, seen(), fabric(0)), (99.0, seen(), fabric(0))], replace(GROUP, min_sessions=0))
    assert (decision.demotion, decision.due) == (0, None)


@pytest.mark.parametrize(("min_sessions", "most"), [(1, 0), (2, 0), (2, 1)])
def test_sessions_that_have_never_been_there_have_time_to_come_up(min_sessions: int, most: int) -> None:
    """ExaBGP may have been started together with the agent: a hold of half a second means sessions that were there."""
    group = replace(GROUP, hold=0.5, min_sessions=min_sessions)
    never = replace(fabric(most), most=most)
    before = (99.0, seen(), fabric(min_sessions))
    looks = [before, (100.0, seen(), never), (100.0 + policy.STARTING - 0.1, seen(), never)]
    assert stepped(looks, group).demotion == 0
    assert stepped([*looks, (100.0 + policy.STARTING, seen(), never)], group).demotion == group.demotion
    had = replace(never, most=min_sessions)
    assert stepped([before, (100.0, seen(), had), (100.5, seen(), had)], group).demotion == group.demotion
    patient = replace(group, hold=60.0)
    assert stepped([before, (100.0, seen(), never), (159.0, seen(), never)], patient).demotion == 0


def test_who_boots_is_demoted_until_it_has_had_the_fabric_for_the_hold_down() -> None:
    never = replace(fabric(0), most=0)
    looks = [(10.0, seen(BACKUP), never)]
    first = stepped(looks)
    assert first.demotion == GROUP.demotion
    assert first.reason == "the fabric is not there yet, since the agent's start: 0 sessions are up"
    looks += [(11.0, seen(BACKUP), fabric()), (10.9 + GROUP.hold_down, seen(BACKUP), fabric())]
    assert stepped(looks).demotion == GROUP.demotion
    assert stepped([*looks, (11.0 + GROUP.hold_down, seen(BACKUP), fabric())]).demotion == 0
    # nobody is there to tell of sessions: they may be up
    asleep = [(now, seen(), replace(never, told=False)) for now in (10.0, 9.9 + policy.MEETING)]
    assert [stepped(asleep).demotion, stepped(asleep).due] == [0, 10.0 + policy.MEETING]
    assert stepped([*asleep, (10.0 + policy.MEETING, seen(), asleep[0][2])]).demotion == GROUP.demotion
    assert stepped([*asleep, (12.5, seen(), fabric())]).demotion == 0
    # an agent that is started on a host whose sessions are up moves nobody
    assert stepped([(10.0, seen(), fabric())]).demotion == 0


def test_carp_does_not_vouch_for_a_master_that_a_fabric_does_not_show_any_more() -> None:
    """It has the addresses, and perhaps no agent: if the backup withdrew, no path would be left."""
    group = replace(GROUP, when_backup=WITHDRAW)
    looks = [(0.0, seen(BACKUP), fabric(sees=True)), (50.0, seen(), fabric()), (60.0, seen(BACKUP), fabric())]
    ruling = stepped([*looks, (1e4, seen(BACKUP), fabric())], group).groups["gw"]
    assert ruling.stance == Stance.LESS
    assert "mobility status on the other node" in ruling.reason
    named = [*looks, (1e4, seen(BACKUP), replace(fabric(), unseen={"gw": "198.51.100.7/32"}))]
    assert "until the other node's path to 198.51.100.7/32 is seen" in stepped(named, group).groups["gw"].reason
    assert ruling.due is None
    shown = [(1e4, seen(BACKUP), fabric(sees=True)), (1e4 + policy.SETTLED, seen(BACKUP), fabric(sees=True))]
    assert stepped([*looks, *shown], group).groups["gw"].stance == Stance.WITHDRAWN
    # nor does a reboot make it forget what the fabric shows
    memory = policy.recalled(json.loads(json.dumps(asdict(stepped(looks, group).memory))), rebooted=True)
    assert memory == Memory((policy.Past("gw", shows=True),))


def test_what_was_lost_before_a_restart_is_not_given_time() -> None:
    lost = [(0.0, seen(), fabric(0)), (GROUP.hold, seen(), fabric(0))]
    memory = restarted(stepped(lost).memory)
    after = decide(seen(), memory, replace(fabric(0), most=0), Settings((GROUP,)), GROUP.hold + 1)
    assert after.demotion == GROUP.demotion


def test_what_keeps_a_host_demoted_is_said() -> None:
    looks = [(0.0, seen(), fabric(0)), (5.0, seen(), fabric(acknowledged=False))]
    assert "must stay so for 30 s" in stepped(looks).reason
    late = stepped([*looks, (5.0 + GROUP.hold_down, seen(), fabric(acknowledged=False))])
    assert late.demotion == GROUP.demotion
    assert "ExaBGP has not answered for every route" in late.reason
    # the demotion ends with the answer, whenever it comes: nobody waits once more
    memory = late.memory
    assert decide(seen(), memory, fabric(), Settings((GROUP,)), 50.0).demotion == 0


def test_a_drain_is_waited_for_until_carp_has_moved_and_the_backup_has_waited() -> None:
    assert policy.hand_over_within(Settings()) == 0
    long = replace(GROUP, name="dns", hand_over_within=60.0)
    assert policy.hand_over_within(Settings((GROUP, long))) == 60.0 + policy.MOVING


def test_several_failovers_may_go_with_the_same_vhids() -> None:
    """Each as it says: what the one leaves, the other keeps."""
    other = replace(GROUP, name="dns", jails=("dns1",), when_backup=WITHDRAW)
    memory = Memory()
    for now in (0.0, 10.0):
        decision = decide(seen(BACKUP), memory, fabric(), Settings((GROUP, other)), now)
        memory = decision.memory
    assert [decision.groups[name].stance for name in ("gw", "dns")] == [Stance.LESS, Stance.LESS]
    sees = Fabric(1, 1, True, {"gw": True, "dns": True})
    for now in (11.0, 13.0):
        decision = decide(seen(BACKUP), memory, sees, Settings((GROUP, other)), now)
        memory = decision.memory
    assert [decision.groups[name].stance for name in ("gw", "dns")] == [Stance.LESS, Stance.WITHDRAWN]


def test_a_session_that_comes_back_in_time_was_never_lost() -> None:
    looks = [(0.0, seen(), fabric()), (1.0, seen(), fabric(0)), (5.0, seen(), fabric()), (8.0, seen(), fabric(0))]
    assert stepped(looks).demotion == 0
    assert stepped(looks).due == 8.0 + GROUP.hold
    assert stepped([*looks, (13.0, seen(), fabric(0))]).demotion == 240


def test_a_shutdown_tells_when_it_will_wait_no_longer() -> None:
    decision = stepped([(7.0, seen(), fabric())], drained=Drain.SHUTDOWN)
    assert decision.due == 7.0 + GROUP.hand_over_within
    assert decision.groups["gw"].stance == Stance.PREFERRED


def test_a_clock_that_was_set_back_delays_nothing_beyond_its_time() -> None:
    group = replace(GROUP, when_backup=WITHDRAW)
    first = stepped([(1e6, seen(BACKUP), fabric())], group)
    second = decide(seen(BACKUP), first.memory, fabric(sees=True), Settings((group,)), 5.0)
    third = decide(seen(BACKUP), second.memory, fabric(sees=True), Settings((group,)), 5.0 + policy.SETTLED)
    assert third.groups["gw"].stance == Stance.WITHDRAWN


def restarted(memory: Memory) -> Memory:
    """Return what an agent that starts makes of a memory."""
    return policy.recalled(json.loads(json.dumps(asdict(memory))))


def test_a_restart_changes_no_announcement() -> None:
    group = replace(GROUP, when_backup=WITHDRAW)
    for looks in (
        [(0.0, seen(), fabric()), (1.0, seen(pfsync=OUT_OF_STEP), fabric())],
        [(0.0, seen(BACKUP), fabric()), (1.0, seen(BACKUP), fabric())],
        [(0.0, seen(BACKUP), fabric(sees=True)), (1.0, seen(BACKUP), fabric(sees=True))],
        [(0.0, seen(MASTER, BACKUP), fabric()), (1.0, seen(MASTER, BACKUP), fabric())],
    ):
        before = stepped(looks, group)
        (_, look, bgp) = looks[-1]
        memory = restarted(before.memory)
        # the bridge is not there yet; then a session is, and has told nothing yet
        for now, connecting in ((1e4, fabric(0)), (1e4 + 1, replace(fabric(1), heard=False)), (1e4 + 2, bgp)):
            after = decide(look, memory, connecting, Settings((group,)), now)
            memory = after.memory
            assert after.groups["gw"].stance == before.groups["gw"].stance
            assert after.demotion == 0


def test_what_must_be_watched_without_a_gap_begins_anew_with_an_agent() -> None:
    group = replace(GROUP, when_backup=WITHDRAW)
    losing = stepped([(0.0, seen(BACKUP), fabric()), (1.0, seen(BACKUP), fabric(0))], group)
    decision = decide(seen(BACKUP), restarted(losing.memory), fabric(0), Settings((group,)), 1e4)
    assert decision.demotion == 0
    assert decision.due == 1e4 + group.hold
    vouched = decide(seen(BACKUP), restarted(losing.memory), fabric(), Settings((group,)), 1e4)
    assert vouched.groups["gw"].due == 1e4 + group.hand_over_within


def test_what_is_known_survives_a_restart() -> None:
    lost = stepped([(0.0, seen(), fabric(0)), (5.0, seen(), fabric(0))])
    assert lost.demotion == 240
    memory = restarted(lost.memory)
    assert decide(seen(), memory, fabric(), Settings((GROUP,)), 6.0).demotion == 240
    drained = stepped([(0.0, seen(), fabric())], drained=Drain.SHUTDOWN)
    late = decide(seen(), restarted(drained.memory), fabric(), Settings((GROUP,)), 20.0, drained=Drain.SHUTDOWN)
    assert late.groups["gw"].stance == Stance.WITHDRAWN


@pytest.mark.parametrize(
    "garbage",
    [
        None,
        [],
        7,
        "x",
        {},
        {"groups": 7},
        {"groups": [7, None, {}, {"name": 7}, {"name": "gw", "role": "king"}, {"name": "gw", "stance": 1, "role": []}]},
        {"groups": [{"name": "gw", "role_at": "x", "sees_at": float("nan"), "lost": 1, "more": 2}], "drained_at": "x"},
    ],
)
def test_a_memory_that_is_garbage_is_forgotten(garbage: object) -> None:
    memory = policy.recalled(garbage)
    assert memory.drained_at is None
    assert set(memory.groups) <= {policy.Past("gw")}


def test_whose_a_jail_is() -> None:
    settings = Settings((GROUP, Group("lan", (ONE,), jails=("db1",), groups=("web",))))
    assert settings.of_jail("web1", None) is GROUP
    assert settings.of_jail("web2", "dns") is GROUP
    assert settings.of_jail("web1", "web") is GROUP  # by its own name first
    assert settings.of_jail("web2", "web") is settings.groups[1]
    assert settings.of_jail("web2", None) is settings.of_jail("web2", "mail") is None


# -- what goes out


def test_what_is_less_preferred_has_a_longer_path_and_both_say_what_they_are() -> None:
    plain = Announce(prepend=1, large_communities=("65000:1:7",), med=5)
    preferred, less = (
        policy.announced(plain, stance, GROUP, administrator=65000, router_id=167772161)
        for stance in (Stance.PREFERRED, Stance.LESS)
    )
    assert preferred.anycast
    assert (preferred.prepend, preferred.local_preference, preferred.med) == (1, None, 5)
    assert (less.prepend, less.local_preference, less.med) == (3, 50, 5)
    assert policy.told(preferred.large_communities, 65000) == (167772161, Stance.PREFERRED)
    assert policy.told(less.large_communities, 65000) == (167772161, Stance.LESS)
    for each in (preferred, less):
        assert ownership.read(each.large_communities, 65000) is None
    much = policy.announced(Announce(prepend=32, local_preference=7), Stance.LESS, GROUP, administrator=1, router_id=2)
    assert (much.prepend, much.local_preference) == (32, 3)


@pytest.mark.parametrize(
    "communities",
    [
        (),
        ("65000:5:1",),
        ("65000:3:7",),
        ("65000:3:7", "65000:5:3"),
        ("65000:3:7", "65000:5:1", "65000:5:2"),
        ("65001:3:7", "65001:5:1"),
        ("65000:3:7", "65000:5:x"),
        ("65000:3:7", "65000:5"),
    ],
)
def test_a_path_without_its_marks_says_nothing(communities: tuple[str, ...]) -> None:
    assert policy.told(communities, 65000) is None
