"""A pair under all faults that were thought of: it settles, does not oscillate, and withdraws nowhere at once."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from mobility.failover import policy
from mobility.failover.model import BACKUP, INIT, MASTER
from mobility.failover.policy import LESS, WITHDRAW, Drain, Role, Stance
from tests.unit.failover.pair import FACTOR, GROUP, TICK, Node, Pair, pair

FAULTS = ("link", "fabric", "drain", "reboot", "stuck", "sync", "split", "restart", "die-0", "die-1", "die-2")
SETTLING = 40.0
"""Seconds after the last fault in which all comes to rest: the longest of the settings after another."""
WATCHED = 20.0
MAX_SKEW = 240
THOROUGH = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    # a minute of two nodes takes its time: what fails is told as it was found, without a search for the smallest
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
)


@st.composite
def faults(draw: st.DrawFn) -> list[tuple[float, str, int]]:
    """Return what befalls whom when."""
    times = st.integers(0, 160).map(lambda tick: tick * TICK)
    return sorted(draw(st.lists(st.tuples(times, st.sampled_from(FAULTS), st.integers(0, 1)), max_size=14)))


@st.composite
def pairs(draw: st.DrawFn, *, alike: bool = False) -> Pair:
    """Return a pair with any settings."""
    first = draw(st.booleans())
    both = pair(
        skew=draw(st.sampled_from((0, 1, 100, 240))),
        preempt=(first, first if alike else draw(st.booleans())),
        blind=draw(st.booleans()),
        group=replace(GROUP, when_backup=draw(st.sampled_from((LESS, WITHDRAW)))),
    )
    # less than policy.SETTLED, together with a tick
    both.bgp_delay = draw(st.integers(0, 4)) * TICK
    for node in both.nodes:
        node.view_delay = draw(st.integers(0, 4)) * TICK
    return both


def suffer(both: Pair, befalling: list[tuple[float, str, int]]) -> None:
    """Let it all happen, and check at each moment what must hold at each."""
    for at, what, index in befalling:
        while both.now < at:
            both.step()
            both.check()
            assert not both.both_withdrawn(), both.now
        both.befall(what, both.nodes[index])


def calm(both: Pair) -> None:
    """Let it settle, and watch whether it has."""
    for _ in range(round(SETTLING / TICK)):
        both.step()
        both.check()
        assert not both.both_withdrawn(), both.now
    for node in both.nodes:
        node.changes.clear()
    was = [(node.state, node.stance, node.total) for node in both.nodes]
    both.run(WATCHED)
    assert [node.changes for node in both.nodes] == [[], []]
    assert [(node.state, node.stance, node.total) for node in both.nodes] == was
    assert not both.both_withdrawn()


def stands_right(both: Pair, node: Node) -> None:
    """Check that a node stands where the table says."""
    decision, other = node.decision, both.other(node)
    assert decision is not None
    ruling = decision.groups["gw"]
    shown = node.established(both.now) and not node.blind and both.shown(node)
    leaves = node.drained != Drain.NO or node.group.when_backup == WITHDRAW
    if node.state == MASTER:
        assert (ruling.role, ruling.stance) == (Role.MASTER, Stance.PREFERRED)
        if shown:
            assert other.state == MASTER
    elif node.state == BACKUP and not leaves:
        assert ruling.stance == Stance.LESS
    elif node.established(both.now):
        vouched = node.state == BACKUP and node.preempt and not any(past.shows for past in node.memory.groups)
        assert ruling.stance == (Stance.WITHDRAWN if shown or vouched else Stance.LESS)
    wanted = node.group.demotion if node.drained != Drain.NO or not node.fabric else 0
    assert decision.demotion == (wanted if node.preempt else 0)
    assert node.record is None or node.record.ours == decision.demotion
    if wanted and not node.preempt:
        assert "net.inet.carp.preempt=1" in decision.reason


def burdened(node: Node) -> bool:
    """Whether something demotes a node, by as much as CARP can tell."""
    return node.drained != Drain.NO or not node.fabric or node.bulk_until is not None or node.in_doubt > 0


@settings(parent=THOROUGH, max_examples=150)
@given(both=pairs(), befalling=faults())
# an agent that has died in the middle of a write, and its host's next boot with nothing to write
@example(both=pair(), befalling=[(1.0, "die-1", 1), (15.0, "drain", 1), (20.0, "drain", 1), (20.0, "reboot", 1)])
def test_it_settles_never_oscillates_and_never_withdraws_from_both(
    both: Pair, befalling: list[tuple[float, str, int]]
) -> None:
    suffer(both, befalling)
    calm(both)
    for node in both.nodes:
        stands_right(both, node)
    hear = both.a.link and both.b.link and not both.split
    if hear:
        assert sorted(node.state for node in both.nodes) == [BACKUP, MASTER]
    good = [node for node in both.nodes if not burdened(node)]
    if hear and len(good) == 1 and both.a.preempt and both.b.preempt and good[0].effective < MAX_SKEW:
        assert good[0].state == MASTER
        assert good[0].stance == Stance.PREFERRED


PASTS = st.builds(
    lambda **values: {"groups": [{"name": "gw", **values}], "drained_at": None},
    role=st.sampled_from(["", *Role]),
    role_at=st.floats(-100, 100),
    stance=st.sampled_from(["", *Stance]),
    stance_at=st.floats(-100, 100),
    preferred=st.booleans(),
    unsynced=st.booleans(),
    sees_at=st.none() | st.floats(-100, 100),
    blind=st.booleans(),
    again_at=st.none() | st.floats(-100, 100),
    lost=st.booleans(),
    turning_at=st.none() | st.floats(-100, 100),
)


@settings(parent=THOROUGH, max_examples=80)
@given(both=pairs(), states=st.tuples(*[st.sampled_from((MASTER, BACKUP, INIT))] * 2), memories=st.tuples(PASTS, PASTS))
def test_from_any_pair_of_states_it_settles(
    both: Pair, states: tuple[str, str], memories: tuple[object, object]
) -> None:
    for node, state, memory in zip(both.nodes, states, memories, strict=True):
        node.memory = policy.recalled(memory)
        if state == INIT:
            both.befall("link", node)
        else:
            node.state, node.send_at = state, 0.0
    both.run(10.0)
    calm(both)
    for node in both.nodes:
        stands_right(both, node)


# -- the faults that were named, each by itself


@pytest.fixture
def both() -> Pair:
    """Return a healthy pair whose first node is the master, and whose backup withdraws."""
    both = pair(group=replace(GROUP, when_backup=WITHDRAW))
    both.bgp_delay = TICK
    both.run(30.0)
    assert stances(both) == ("preferred", "withdrawn")
    return both


def stances(both: Pair) -> tuple[str, str]:
    return str(both.a.stance), str(both.b.stance)


def order(both: Pair) -> list[tuple[str, str]]:
    """Return who changed to what, in order."""
    all_of = [
        (at, node.name, str(what)) for node in both.nodes for at, what in node.changes if isinstance(what, Stance)
    ]
    return [(name, what) for _, name, what in sorted(all_of)]


def clear(both: Pair) -> None:
    for node in both.nodes:
        node.changes.clear()


def test_a_drain_moves_carp_first_and_never_leaves_the_fabric_without_a_path(both: Pair) -> None:
    clear(both)
    both.befall("drain", both.a)
    both.run(15.0)
    assert (both.a.state, both.b.state) == (BACKUP, MASTER)
    # the old one lowers its preference, the new one raises its own, then the old one goes
    assert order(both) in (
        [("a", "less"), ("b", "preferred"), ("a", "withdrawn")],
        [("b", "preferred"), ("a", "less"), ("a", "withdrawn")],
        [("b", "less"), ("a", "less"), ("b", "preferred"), ("a", "withdrawn")],
    )
    assert both.a.total == GROUP.demotion
    clear(both)
    both.befall("drain", both.a)
    both.run(15.0)
    assert stances(both) == ("preferred", "withdrawn")
    assert both.a.total == 0
    assert order(both)[-1] == ("b", "withdrawn")


def test_a_lost_fabric_moves_carp_and_back_only_after_the_hold_down(both: Pair) -> None:
    both.befall("fabric", both.a)
    both.run(15.0)
    assert (both.a.state, both.b.state) == (BACKUP, MASTER)
    assert both.b.stance == Stance.PREFERRED
    both.befall("fabric", both.a)
    both.run(GROUP.hold_down)
    assert both.a.state == BACKUP
    both.run(20.0)
    assert (both.a.state, both.a.total) == (MASTER, 0)
    assert stances(both) == ("preferred", "withdrawn")


@pytest.mark.parametrize("what", ["fabric", "drain"])
def test_on_both_it_moves_nobody(both: Pair, what: str) -> None:
    for node in both.nodes:
        both.befall(what, node)
    both.run(40.0)
    assert both.a.total == both.b.total == GROUP.demotion
    moved = [node.state for node in both.nodes]
    both.run(20.0)
    assert [node.state for node in both.nodes] == moved
    assert sorted(moved) == [BACKUP, MASTER]
    assert Stance.PREFERRED in {node.stance for node in both.nodes}


def test_a_flapping_fabric_moves_carp_once(both: Pair) -> None:
    clear(both)
    for _ in range(20):
        both.befall("fabric", both.a)
        both.run(GROUP.hold + 1)
        both.befall("fabric", both.a)
        both.run(GROUP.hold_down - 1)
    assert [amount for _, amount in both.a.changes if isinstance(amount, int) and not isinstance(amount, Stance)] == [
        GROUP.demotion
    ]
    assert (both.a.state, both.b.state) == (BACKUP, MASTER)


def test_a_flapping_link_is_no_flapping_of_the_other_node(both: Pair) -> None:
    both.befall("link", both.a)
    both.run(10.0)
    clear(both)
    for _ in range(10):
        both.befall("link", both.a)
        both.run(TICK)
        both.befall("link", both.a)
        both.run(2.0)
    assert order(both) == []
    assert both.b.stance == Stance.PREFERRED


def test_both_reboot_at_once(both: Pair) -> None:
    for node in both.nodes:
        both.befall("reboot", node)
    both.run(60.0)
    assert stances(both) == ("preferred", "withdrawn")
    assert both.a.total == both.b.total == 0


def test_a_node_that_boots_takes_nothing_over_before_it_has_the_fabric(both: Pair) -> None:
    both.befall("reboot", both.a)
    both.a.connects = 20.0
    both.run(10.0)
    assert (both.a.on, both.b.state) == (True, MASTER)
    for _ in range(round((10.0 + GROUP.hold_down) / TICK)):
        both.step()
        assert (both.a.state, both.b.state) == (BACKUP, MASTER), both.now
    assert both.a.total == GROUP.demotion
    both.run(20.0)
    assert (both.a.state, both.a.total) == (MASTER, 0)
    assert stances(both) == ("preferred", "withdrawn")


def test_a_master_without_an_agent_does_not_take_the_last_path_away(both: Pair) -> None:
    """It boots, CARP gives it the addresses, and its agent does not start: nothing demotes it, and it announces nothing."""
    both.befall("reboot", both.a)
    both.a.preempt, both.a.fabric = True, False
    both.a.group = replace(both.a.group, min_sessions=0)
    both.run(60.0)
    assert (both.a.state, both.b.state) == (MASTER, BACKUP)
    assert both.b.stance == Stance.LESS
    both.a.fabric = True
    both.run(20.0)
    assert stances(both) == ("preferred", "withdrawn")


def test_both_interfaces_down_is_announced_as_the_last_resort() -> None:
    for blind in (False, True):
        both = pair(blind=blind)
        both.run(20.0)
        for node in both.nodes:
            both.befall("link", node)
        both.run(60.0)
        assert stances(both) == ("less", "less")


def test_a_split_has_two_masters_and_both_are_announced(both: Pair) -> None:
    both.befall("split", both.a)
    both.run(20.0)
    assert (both.a.state, both.b.state) == (MASTER, MASTER)
    assert stances(both) == ("preferred", "preferred")
    assert all(
        node.decision and "announces it as preferred, too" in node.decision.groups["gw"].reason for node in both.nodes
    )
    both.befall("split", both.a)
    both.run(20.0)
    assert stances(both) == ("preferred", "withdrawn")


def test_two_equal_masters_that_let_go_at_once_do_not_withdraw_for_each_other(both: Pair) -> None:
    """Each hears the other at the same moment, as slow as itself (carp_input_c), and still sees its preferred path."""
    for delay in range(5):
        both.bgp_delay = delay * TICK
        both.befall("split", both.a)
        both.run(20.0)
        assert stances(both) == ("preferred", "preferred")
        for node in both.nodes:
            node.state, node.down_at = BACKUP, both.now + node.patience
        both.befall("split", both.a)
        for _ in range(80):
            both.step()
            assert not both.both_withdrawn(), both.now
        assert stances(both) == ("preferred", "withdrawn")


def test_pfsync_that_never_completes_delays_and_is_told(both: Pair) -> None:
    """The peer is gone while it reboots, too: it becomes master by itself, and says that connections may be lost."""
    both.befall("stuck", both.b)
    both.befall("sync", both.b)
    both.befall("reboot", both.a)
    both.a.off_until = 1e9
    both.run(4.0)
    assert (both.b.state, both.b.stance) == (MASTER, Stance.LESS)
    both.run(GROUP.sync_within)
    assert both.b.stance == Stance.PREFERRED
    assert both.b.decision is not None
    assert "preferred without pfsync" in both.b.decision.groups["gw"].reason
    # should it come into step at last, nothing is told any more
    both.a.off_until = 0.0
    both.befall("stuck", both.b)
    both.run(30.0)
    assert both.b.decision.warnings == ()


def test_the_peer_is_gone(both: Pair) -> None:
    both.befall("reboot", both.a)
    both.a.off_until = 1e9
    both.run(1.0)
    assert both.b.stance == Stance.LESS  # at once: its path is gone, whatever CARP will find
    both.run(10.0)
    assert (both.b.state, both.b.stance) == (MASTER, Stance.PREFERRED)


def test_without_preempt_nobody_is_demoted_and_it_is_told() -> None:
    both = pair(preempt=(False, False))
    both.run(20.0)
    master = next(node for node in both.nodes if node.state == MASTER)
    both.befall("drain", master)
    both.run(30.0)
    assert (master.state, master.total) == (MASTER, 0)
    assert master.decision is not None
    assert "sysctl net.inet.carp.preempt=1" in master.decision.reason
    assert master.stance == Stance.PREFERRED  # where CARP is


@pytest.mark.parametrize("step", [0, 1, 2])
def test_an_agent_that_dies_while_it_writes_adds_nothing_that_is_not_told(both: Pair, step: int) -> None:
    both.befall(f"die-{step}", both.a)
    both.befall("drain", both.a)
    both.run(10.0)
    assert both.a.total == GROUP.demotion + both.a.in_doubt
    both.befall("drain", both.a)
    both.run(10.0)
    assert both.a.record is not None
    assert both.a.total == both.a.in_doubt == sum(doubt.amount for doubt in both.a.record.doubts)
    assert both.a.in_doubt == (GROUP.demotion if step == 2 else 0)
    both.befall("reboot", both.a)
    both.run(30.0)
    assert both.a.total == 0
    assert FACTOR > 0
