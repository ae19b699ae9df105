"""Rise and fall, as properties of any row of results."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from mobility.health.standing import FIRST, FRESH, PRESUMED, RETRY, Standing, after, in_turn, pause

COUNTS = st.integers(1, 6)
ROWS = st.lists(st.booleans(), max_size=60)
BEGINNINGS = st.sampled_from([FRESH, PRESUMED])


def run(standing: Standing, row: list[bool], rise: int, fall: int) -> list[Standing]:
    return list(itertools.accumulate(row, lambda s, good: after(s, good=good, rise=rise, fall=fall), initial=standing))


def longest_run_at_end(row: list[bool]) -> int:
    return sum(1 for _ in itertools.takewhile(lambda good: good is row[-1], reversed(row))) if row else 0


@given(BEGINNINGS, ROWS, COUNTS, COUNTS)
def test_it_turns_after_so_many_in_a_row_and_never_before(
    begin: Standing, row: list[bool], rise: int, fall: int
) -> None:
    states = run(begin, row, rise, fall)
    for index, good in enumerate(row):
        before, now = states[index], states[index + 1]
        in_a_row = longest_run_at_end(row[: index + 1])
        needed = rise if good else fall
        if now.ready is not before.ready:
            assert now.ready is good
            assert in_a_row >= needed
        elif good is not before.ready:
            # so many in a row always do it
            assert in_a_row < needed


@given(BEGINNINGS, ROWS, COUNTS, COUNTS)
def test_what_it_holds(begin: Standing, row: list[bool], rise: int, fall: int) -> None:
    for standing in run(begin, row, rise, fall):
        assert 0 <= standing.streak < (fall if standing.ready else rise)
        assert not (standing.fresh and standing.ready)
        assert standing.fresh or not standing.tries


@given(ROWS, COUNTS, COUNTS)
def test_fresh_until_the_first_time_ready(row: list[bool], rise: int, fall: int) -> None:
    been = False
    for standing in run(FRESH, row, rise, fall):
        been = been or standing.ready
        assert standing.fresh is not been


@given(st.lists(st.just(False), max_size=40), COUNTS, COUNTS)
def test_a_restarted_agent_believes_until_fall(row: list[bool], rise: int, fall: int) -> None:
    for count, standing in enumerate(run(PRESUMED, row, rise, fall)):
        assert standing.ready is (count < fall)


@given(BEGINNINGS, ROWS, COUNTS, COUNTS, st.floats(0.5, 3600))
def test_the_pause_is_never_longer_than_the_interval(
    begin: Standing, row: list[bool], rise: int, fall: int, interval: float
) -> None:
    for standing in run(begin, row, rise, fall):
        assert 0 < pause(standing, interval) <= interval
        if standing.streak:
            assert pause(standing, interval) <= RETRY
        elif not standing.fresh:
            assert pause(standing, interval) == interval


def test_a_fresh_one_is_tried_quickly_first_and_ever_more_slowly() -> None:
    pauses = [pause(standing, 10.0) for standing in run(FRESH, [False] * 200, 1, 3)[1:]]
    assert pauses[:3] == [FIRST, 2 * FIRST, 4 * FIRST]
    assert pauses == sorted(pauses)
    assert pauses[-1] == 10.0


@given(st.floats(0, 1e7), st.floats(0.5, 3600), st.floats(0, 1, exclude_max=True))
def test_each_has_its_turn_once_in_an_interval(now: float, interval: float, place: float) -> None:
    turn = in_turn(now, interval, place)
    assert now <= turn <= now + interval * (1 + 1e-6)
    off = (turn / interval - place) % 1
    assert min(off, 1 - off) < 1e-3
