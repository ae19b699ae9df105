"""The demotion's accounting: exactly ours is removed, whenever the agent dies, and what can not be known is left alone."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobility.failover import accounting
from mobility.failover.accounting import Add, Doubt, Keep, Record, place, recalled, settle
from mobility.failover.model import BACKUP, INIT, Carp, Pfsync, Seen, Vhid

HERE = place("b00t", "host")


def stored(record: Record | None) -> Record | None:
    """Return the record as a database keeps it."""
    return None if record is None else recalled(json.loads(json.dumps(asdict(record))))


def test_it_is_recorded_before_it_is_written_with_the_value_before() -> None:
    settled = settle(None, HERE, 240, 480)
    pending, last = Record(HERE, 0, 240, 480), Record(HERE, 240, 0, 480)
    assert settled.steps == (Keep(pending), Add(240), Keep(last))
    assert settled.record == last
    assert settled.report == ()
    back = settle(last, HERE, 0, 720)
    assert back.steps == (Keep(Record(HERE, 240, -240, 720)), Add(-240), Keep(Record(HERE, 0, 0, 720)))


def test_what_stands_right_is_left_alone() -> None:
    assert settle(None, HERE, 0, 0).steps == ()
    assert settle(Record(HERE, 240), HERE, 240, 480).steps == ()


def test_a_restart_removes_exactly_ours() -> None:
    settled = settle(stored(Record(HERE, 240)), HERE, 0, 720)
    assert [step for step in settled.steps if isinstance(step, Add)] == [Add(-240)]


def test_another_amount_is_the_difference() -> None:
    assert Add(-190) in settle(Record(HERE, 240), HERE, 50, 240).steps


@pytest.mark.parametrize("elsewhere", [place("other", "host"), place("b00t", "jail 7")])
@pytest.mark.parametrize("record", [Record("", 240), Record("", 0, 240, 0), Record("", 240, -240, 240, (Doubt(9, 0),))])
def test_a_reboot_and_another_vnet_forget(elsewhere: str, record: Record) -> None:
    settled = settle(Record(elsewhere, record.ours, record.pending, record.before, record.doubts), HERE, 0, 240)
    assert (settled.steps, settled.report, settled.record) == ((), (), Record(HERE))


@pytest.mark.parametrize(("pending", "ours"), [(240, 0), (-240, 240)])
def test_what_was_recorded_and_perhaps_not_written_is_told_and_left_alone(pending: int, ours: int) -> None:
    settled = settle(stored(Record(HERE, ours, pending, 240)), HERE, 0, 240)
    assert not [step for step in settled.steps if isinstance(step, Add)]
    assert settled.record == Record(HERE, 0, 0, 240, (Doubt(240, 240, removing=pending < 0),))
    (line,) = settled.report
    assert "it is not known whether it was: left alone" in line
    assert "sysctl net.inet.carp.demotion=-240" in line
    # told once, and shown until it can not be in any more
    again = settle(settled.record, HERE, 0, 240)
    assert (again.steps, again.report) == ((), ())
    assert any("not known" in line for line in accounting.whose(again.record, Seen(demotion=240)))
    gone = settle(settled.record, HERE, 0, 239)
    assert gone.record.doubts == ()


def test_what_can_not_be_in_was_not_written() -> None:
    settled = settle(Record(HERE, 0, 240, 0), HERE, 0, 0)
    assert settled.record == Record(HERE)
    assert settled.report == ()


def test_in_doubt_the_wanted_demotion_is_still_added_but_not_for_ever() -> None:
    record, total = Record(HERE, 0, 240, 0), 240
    for _ in range(accounting.MAX_DOUBTS - 1):
        settled = settle(record, HERE, 240, total)
        assert Add(240) in settled.steps
        first = settled.steps[0]
        assert isinstance(first, Keep)
        record, total = first.record, total + 240  # and it dies again
    settled = settle(record, HERE, 240, total)
    assert not [step for step in settled.steps if isinstance(step, Add)]
    assert "nothing more is added" in settled.report[-1]


def test_nothing_is_removed_that_somebody_else_has_removed() -> None:
    settled = settle(Record(HERE, 240), HERE, 0, 0)
    assert not [step for step in settled.steps if isinstance(step, Add)]
    assert settled.record.ours == 0
    assert "somebody else has taken that out" in settled.report[0]
    assert settle(settled.record, HERE, 0, 0).report == ()


def test_a_write_that_failed_was_none() -> None:
    (keep, _, _) = settle(None, HERE, 240, 0).steps
    assert isinstance(keep, Keep)
    assert accounting.refused(keep.record) == Record(HERE, 0, 0, 0)
    assert accounting.uncertain(Record(HERE, 240)) == Record(HERE, 240)


@pytest.mark.parametrize(
    "garbage",
    [
        None,
        7,
        {},
        {"place": 7},
        {"place": "x", "ours": "1"},
        {"place": "x", "ours": True},
        {"place": "x", "doubts": [7]},
    ],
)
def test_a_record_that_is_garbage_is_none(garbage: object) -> None:
    assert recalled(garbage) is None
    assert recalled({"place": "x", "doubts": 7}) == Record("x")


DOWN = Carp(Vhid("igb0", 1), INIT)


@pytest.mark.parametrize(
    ("record", "seen", "said"),
    [
        (None, Seen(demotion=0), ()),
        (None, Seen(), ()),
        (Record(HERE, 240), Seen(demotion=240), ("net.inet.carp.demotion is 240: 240 is mobility's, 0 is of others",)),
        (
            Record(HERE, 240),
            Seen((DOWN, Carp(Vhid("igb1", 2), BACKUP)), Pfsync(syncok=False), 720, True, 240, 240),
            (
                "net.inet.carp.demotion is 720: 240 is mobility's, 480 is of others",
                (
                    "net.inet.carp.demotion: what is of others is left alone; the kernel's may be 1 x 240 for vhids whose "
                    "interface may be down and 240 for pfsync, which is not in step"
                ),
            ),
        ),
        (
            None,
            Seen(demotion=240),
            (
                "net.inet.carp.demotion is 240: 0 is mobility's, 240 is of others",
                "net.inet.carp.demotion: what is of others is left alone; nothing that the kernel shows explains it",
            ),
        ),
    ],
)
def test_whose_it_is_is_told(record: Record | None, seen: Seen, said: tuple[str, ...]) -> None:
    assert accounting.whose(record, seen) == said


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("want"), st.sampled_from((0, 50, 240))),
            st.tuples(st.just("others"), st.sampled_from((240, 480, 7))),
            st.tuples(st.just("die"), st.integers(0, 2)),
            st.tuples(st.just("reboot"), st.just(0)),
            st.tuples(st.just("hang"), st.booleans()),
        ),
        max_size=30,
    )
)
def test_the_total_is_always_what_others_added_and_ours(happenings: list[tuple[str, int]]) -> None:
    """Whatever dies when: what the agent knows as its own is in, what it does not know is bounded by what it tells."""
    total = others = wanted = unknown = 0
    boot, record, die, hang = 1, None, None, None
    for what, value in happenings:
        match what:
            case "want":
                wanted = value
            case "others":
                others += value
                total += value
            case "die":
                die = value
            case "hang":
                hang = bool(value)
            case "reboot":
                boot, total, others, unknown = boot + 1, 0, 0, 0
        settled = settle(stored(record), place(str(boot), "host"), wanted, total)
        for index, step in enumerate(settled.steps):
            if die == index:
                die = None
                # a removal that was not written is still in, an addition that was written, too
                pending = record.pending if index and record else 0
                unknown += abs(pending) if (pending > 0) == (index == 2) else 0
                break
            if isinstance(step, Keep):
                record = step.record
            elif hang is not None and record:
                # the sysctl gave no answer; it was written, or not
                total += step.amount if hang else 0
                unknown += abs(step.amount) if hang == (step.amount > 0) else 0
                record, hang = accounting.uncertain(record), None
                break
            else:
                total += step.amount
        ours = record.ours if record and record.place == place(str(boot), "host") else 0
        if not (record and record.pending):
            assert total == others + ours + unknown
        assert total >= 0
    # at the end it all goes, but for what is told
    settled = settle(record, place(str(boot), "host"), 0, total)
    total += sum(step.amount for step in settled.steps if isinstance(step, Add))
    assert total == others + unknown
    assert unknown <= sum(doubt.amount for doubt in settled.record.doubts)
