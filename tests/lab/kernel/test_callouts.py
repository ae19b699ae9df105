"""callout(9) as the lab has it."""

from __future__ import annotations

import pytest

from tests.lab.kernel.callouts import HZ, Callouts, ticks


@pytest.mark.parametrize(("seconds", "wanted"), [(0.0, 1), (1 / HZ, 2), (1.0, HZ + 1), (1.0 + 0.1 / HZ, HZ + 2)])
def test_a_part_of_a_tick_is_a_tick_and_the_present_one_has_begun(seconds: float, wanted: int) -> None:
    assert ticks(seconds) == wanted


def test_what_is_due_comes_by_time_and_within_a_tick_the_latest_first() -> None:
    done: list[str] = []
    callouts = Callouts()
    for name, seconds in (("late", 2.0), ("one", 1.0), ("two", 1.0), ("gone", 1.0)):
        callouts.reset(name, 0.0, seconds, lambda name=name: done.append(name))  # type: ignore[misc]
    callouts.stop("gone")
    callouts.stop("never there")
    assert callouts.next() == 1.0 + 1 / HZ
    assert callouts.take(1.0) is None
    while (action := callouts.take(1.5)) is not None:
        action()
    assert done == ["two", "one"]
    assert callouts.next() == 2.0 + 1 / HZ


def test_a_reset_forgets_what_was_asked_before() -> None:
    done: list[int] = []
    callouts = Callouts()
    for number in (1, 2):
        callouts.reset("it", number, 1.0, lambda number=number: done.append(number))  # type: ignore[misc]
    assert callouts.take(2.5) is None
    action = callouts.take(3.5)
    assert action is not None
    action()
    assert done == [2]
    assert callouts.next() is None
