"""Flap damping: RFC 2439's figure of merit, with clocks that are told, stand and jump."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from random import Random

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from mobility import config, damping
from mobility.damping import Damping, Policy

untimed = settings(deadline=None)
DEFAULT = Policy()
BEGIN = 1000.0


def after(times: Iterable[float], policy: Policy = DEFAULT, state: Damping | None = None) -> Damping:
    state = state or Damping()
    for at in times:
        state = damping.flapped(state, at, policy)
    return state


def every(seconds: float, flaps: int) -> list[float]:
    return [BEGIN + index * seconds for index in range(flaps)]


def first_suppressed(times: list[float], policy: Policy = DEFAULT) -> tuple[int, float] | None:
    """Return at which flap, and after how long, a jail is suppressed."""
    state = Damping()
    for count, at in enumerate(times, 1):
        state = damping.flapped(state, at, policy)
        if state.suppressed_at:
            return count, at - times[0]
    return None


# -- figures


@pytest.mark.parametrize(
    ("seconds", "flaps", "figure", "suppressed"),
    [
        # as in the module's table
        (0, 5, 5000, None),
        (30, 7, 5741, None),
        (80, 1000, 5926, None),
        (60, 11, 6044, (11, 600)),
        (30, 8, 6356, (8, 210)),
        (10, 7, 6538, (7, 60)),
        (3, 7, 6857, (7, 18)),
        (3, 1000, 24000, (7, 18)),
    ],
)
def test_the_defaults(seconds: float, flaps: int, figure: int, suppressed: tuple[int, float] | None) -> None:
    times = every(seconds, flaps)
    assert round(after(times).penalty) == figure
    assert first_suppressed(times) == suppressed


def test_the_table_of_the_docstring_is_right() -> None:
    text = damping.__doc__ or ""
    told = re.findall(r"^ +one every (\d+) s +(\d+) at the (\d+)th +after (\d+) (s|minutes)$", text, re.MULTILINE)
    assert len(told) == 4
    for seconds, figure, count, time, unit in told:
        times = every(float(seconds), int(count))
        assert round(after(times).penalty) == int(figure)
        assert first_suppressed(times) == (int(count), int(time) * (60 if unit == "minutes" else 1))
    state = after(every(3, 7))
    assert f"{state.penalty:.0f}, 3000 after {(damping.reuse_at(state, DEFAULT) or 0) - state.at:.0f} s" in text
    assert f"= {DEFAULT.ceiling:.0f}" in text


@pytest.mark.parametrize(
    ("policy", "flaps", "figures"),
    [
        # as routers have had it since RFC 2439: a half-life of 15 minutes, an hour at most
        (Policy(suppress=2000, reuse=750, half_life=900, maximum=3600), [0, 0], [1000, 2000]),
        (Policy(suppress=2000, reuse=750, half_life=900, maximum=3600), [0, 900, 1800], [1000, 1500, 1750]),
        (Policy(suppress=2000, reuse=750, half_life=900, maximum=3600), [0, 120, 240], [1000, 1911.7, 2743.0]),
        # with the threshold of RFC 7196 and RIPE-580
        (Policy(suppress=6000, reuse=750, half_life=900, maximum=3600), [0] * 12, [1000.0 * n for n in range(1, 13)]),
        # its ceiling: 750 * 2^4
        (
            Policy(suppress=6000, reuse=750, half_life=900, maximum=3600),
            [0] * 14,
            [1000.0 * min(n, 12) for n in range(1, 15)],
        ),
    ],
)
def test_known_figures(policy: Policy, flaps: list[float], figures: list[float]) -> None:
    state, found = Damping(), []
    for at in flaps:
        state = damping.flapped(state, BEGIN + at, policy)
        found.append(state.penalty)
    assert found == pytest.approx(figures, abs=0.1)
    assert bool(state.suppressed_at) == any(figure >= policy.suppress for figure in figures)


def test_it_halves_in_each_half_life() -> None:
    state = after([BEGIN])
    for halves in range(3):
        assert damping.penalty(state, BEGIN + 300 * halves, DEFAULT) == 1000 / 2**halves
    assert damping.settle(state, BEGIN + 900, DEFAULT) is state
    assert damping.settle(state, BEGIN + 901, DEFAULT) == Damping()


def test_from_a_crash_loop_to_the_fabric_again() -> None:
    state = after(every(3, 7))
    assert state.suppressed_at == BEGIN + 18
    until = damping.reuse_at(state, DEFAULT)
    assert until == pytest.approx(BEGIN + 18 + 300 * math.log2(6857 / 3000), abs=0.1)
    # it goes on crashing: it waits for longer, and is suppressed since it was first
    state = after(every(3, 20)[7:], state=state)
    later = damping.reuse_at(state, DEFAULT)
    assert state.suppressed_at == BEGIN + 18
    assert until is not None
    assert later is not None
    assert later > until + 39
    assert damping.settle(state, later - 0.01, DEFAULT) is state
    back = damping.settle(state, later, DEFAULT)
    assert not back.suppressed_at
    assert damping.reuse_at(back, DEFAULT) is None
    # what it has run up is not forgotten by that: four more are too many
    assert first_suppressed_from(back, every(1, 9), later) == 4


def first_suppressed_from(state: Damping, times: list[float], begin: float) -> int:
    for count, at in enumerate(times, 1):
        state = damping.flapped(state, begin + at - BEGIN, DEFAULT)
        if state.suppressed_at:
            return count
    return 0


def test_an_operator_releases() -> None:
    assert damping.released() == Damping()
    assert damping.suppressed(damping.released(), BEGIN, DEFAULT) == ""


def test_what_the_operator_is_told() -> None:
    state = after(every(3, 7))
    assert damping.suppressed(state, state.at, DEFAULT, jail="web1") == (
        "suppressed: its routes came and went too often (penalty 6857, announced again at 3000); for 358 s if it stays up, "
        "or: mobility release web1"
    )
    assert "for 258 s " in damping.suppressed(state, state.at + 100, DEFAULT)
    # 2026-11-21 13:30:00Z
    at = damping.suppressed(state, state.at, DEFAULT, jail="web1", utc=1_795_267_800.0)
    assert "; until 2026-11-21 13:35:58Z if it stays up" in at
    assert at.startswith(damping.SUPPRESSED)
    later = damping.suppressed(state, state.at + 100, DEFAULT, jail="web1", utc=1_795_267_900.0)
    assert "; until 2026-11-21 13:35:58Z if it stays up" in later
    assert damping.suppressed(after([BEGIN]), BEGIN, DEFAULT) == ""


def test_switched_off() -> None:
    off = replace(DEFAULT, enabled=False)
    state = after(every(3, 20))
    assert after(every(1, 100), off) == Damping()
    assert damping.settle(state, state.at, off) == Damping()
    assert damping.reuse_at(state, off) is None
    assert damping.suppressed(state, state.at, off) == ""


def test_figures_of_another_policy() -> None:
    """The agent was restarted with other settings: they hold from then on."""
    state = after(every(3, 1000))
    short = replace(DEFAULT, suppress=6000, maximum=330.0)
    assert damping.reuse_at(state, short) == state.at + 330
    assert damping.penalty(state, state.at, short) == short.ceiling
    high = replace(DEFAULT, reuse=30000, suppress=40000)
    assert damping.settle(state, state.at, high).suppressed_at == 0


# -- properties

policies = st.builds(
    Policy,
    penalty=st.integers(1, 2000),
    suppress=st.integers(2, 20000),
    reuse=st.integers(1, 20000),
    half_life=st.floats(1, 3600),
    maximum=st.floats(1, 7200),
).filter(lambda policy: not policy.mistakes)
gaps = st.lists(st.floats(0, 500), min_size=1, max_size=60)
states = st.builds(lambda policy, steps: (policy, after(moments(steps), policy)), policies | st.just(DEFAULT), gaps)


def moments(steps: Iterable[float], begin: float = BEGIN) -> list[float]:
    found = []
    for step in steps:
        begin += step
        found.append(begin)
    return found


@untimed
@given(states, st.lists(st.floats(0, 5000), max_size=20))
def test_it_only_decays_while_nothing_happens(given_state: tuple[Policy, Damping], steps: list[float]) -> None:
    policy, state = given_state
    last = state.penalty
    for now in moments(steps, state.at):
        state = damping.settle(state, now, policy)
        figure = damping.penalty(state, now, policy)
        assert figure <= last
        last = figure


@untimed
@given(states)
def test_never_suppressed_beyond_the_maximum(given_state: tuple[Policy, Damping]) -> None:
    policy, state = given_state
    at = state.at
    until = damping.reuse_at(state, policy)
    assert (until is None) == (not state.suppressed_at)
    assert until is None or at <= until <= at + policy.maximum
    settled = damping.settle(state, at + policy.maximum, policy)
    assert not settled.suppressed_at
    assert damping.suppressed(settled, at + policy.maximum, policy) == ""


@untimed
@given(states)
def test_suppressed_until_reusable_and_no_longer(given_state: tuple[Policy, Damping]) -> None:
    policy, state = given_state
    while not state.suppressed_at:
        state = damping.flapped(state, state.at, policy)
    until = damping.reuse_at(state, policy)
    assert until is not None
    before = (state.at + until) / 2
    assert damping.settle(state, before, policy) == state
    assert damping.suppressed(state, before, policy)
    assert damping.penalty(state, until, policy) == pytest.approx(policy.reuse)
    assert not damping.settle(state, until, policy).suppressed_at
    assert damping.suppressed(state, until, policy) == ""


@untimed
@given(policies | st.just(DEFAULT), gaps)
@example(Policy(half_life=1.0, maximum=604800.0), [0.0])
@example(Policy(half_life=86400.0, maximum=86400.0), [0.0] * 50)
def test_never_above_the_ceiling(policy: Policy, steps: list[float]) -> None:
    state = Damping()
    for at in moments(steps):
        state = damping.flapped(state, at, policy)
        assert 0 < state.penalty <= policy.ceiling
        assert damping.penalty(state, at, policy) == state.penalty


@untimed
@given(policies, st.integers(1, 200))
def test_enough_flaps_at_once_suppress_and_fewer_do_not(policy: Policy, flaps: int) -> None:
    state = after([BEGIN] * flaps, policy)
    assert bool(state.suppressed_at) == (flaps * policy.penalty >= policy.suppress)


@untimed
@given(states, st.lists(st.one_of(st.just(0.0), st.floats(-1e6, 0)), max_size=10))
def test_a_clock_that_stands_or_jumps_back_raises_nothing(
    given_state: tuple[Policy, Damping], jumps: list[float]
) -> None:
    policy, state = given_state
    now = 1e7
    state = replace(state, at=now, suppressed_at=now if state.suppressed_at else 0.0)
    last = state.penalty
    for now in moments(jumps, 1e7):
        assume(now > 0)
        assert damping.penalty(state, now, policy) <= last
        state = damping.settle(state, now, policy)
        last = damping.penalty(state, now, policy)
        until = damping.reuse_at(state, policy)
        # the maximum counts on the clock as it is now
        assert until is None or until <= now + policy.maximum
    assert not damping.settle(state, now + policy.maximum, policy).suppressed_at


@untimed
@given(states, st.floats(1, 1e9))
def test_a_clock_that_jumps_ahead_releases_and_costs_nothing(given_state: tuple[Policy, Damping], ahead: float) -> None:
    policy, state = given_state
    now = state.at + policy.maximum + ahead
    assert not damping.settle(state, now, policy).suppressed_at
    assert damping.penalty(state, now, policy) <= policy.reuse
    assert damping.flapped(state, now, policy).penalty <= policy.reuse + policy.penalty


@untimed
@given(policies | st.just(DEFAULT), gaps, st.data())
def test_how_often_one_looks_changes_nothing(policy: Policy, steps: list[float], data: st.DataObject) -> None:
    seldom = often = Damping()
    last = BEGIN
    for at in moments(steps):
        for look in sorted(data.draw(st.lists(st.floats(last, at), max_size=3))):
            often = damping.settle(often, look, policy)
            assert bool(damping.suppressed(often, look, policy)) == bool(often.suppressed_at)
        seldom, often = damping.flapped(seldom, at, policy), damping.flapped(often, at, policy)
        assert often == seldom
        last = at


@untimed
@given(st.lists(st.floats(0, 200), min_size=1, max_size=7), st.randoms())
def test_the_figure_is_a_sum_over_flaps(steps: list[float], random: Random) -> None:
    """Below the ceiling each flap counts by its age alone: the same, whatever order equal gaps come in from its end."""
    times = moments(steps)
    left = [1000 * 0.5 ** ((times[-1] - at) / 300) for at in times]
    assert after(times).penalty == pytest.approx(sum(left), abs=200)  # what is forgotten is less than 125 each time
    if times[-1] - times[0] < 300:
        assert after(times).penalty == pytest.approx(sum(left))
    # jails know nothing of each other: how their flaps come between each other's is no matter
    turns = ["a"] * len(times) + ["b"] * len(times)
    random.shuffle(turns)
    waiting = {"a": iter(times), "b": iter(times)}
    found = {"a": Damping(), "b": Damping()}
    for jail in turns:
        found[jail] = damping.flapped(found[jail], next(waiting[jail]), DEFAULT)
    assert found["a"] == found["b"] == after(times)


@untimed
@given(states)
def test_it_survives_the_database(given_state: tuple[Policy, Damping]) -> None:
    _, state = given_state
    assert Damping(**json.loads(json.dumps(asdict(state)))) == state


@untimed
@given(states)
def test_settling_twice_is_settling_once(given_state: tuple[Policy, Damping]) -> None:
    policy, state = given_state
    for now in (state.at - 5, state.at, state.at + policy.half_life, state.at + 20 * policy.half_life):
        settled = damping.settle(state, now, policy)
        assert damping.settle(settled, now, policy) is settled or settled == Damping()


# -- the configuration

MINIMAL = {
    "host": {"allowed": ["198.51.100.0/24"]},
    "bgp": {
        "as": 65001,
        "router_id": "10.0.0.1",
        "peer": [{"name": "spine", "address": "fd00:1::ff", "as": 65000, "local_address": "fd00:1::1"}],
    },
}


def configured(**settings: object) -> tuple[Policy, dict[str, str]]:
    found, problems = config.parse({**MINIMAL, "damping": settings}, Path("mobility.toml"))
    return found.damping, {problem.key: str(problem) for problem in problems}


def test_it_is_configured() -> None:
    assert configured() == (DEFAULT, {})
    policy, problems = configured(enabled=False, penalty=500, suppress=2000, reuse=750, half_life=900, maximum=3600.5)
    assert (policy, problems) == (Policy(False, 500, 2000, 750, 900.0, 3600.5), {})


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("enabled", "yes", "must be true or false"),
        ("enabled", 1, "must be true or false"),
        ("penalty", 0, "must be a whole number from 1 to"),
        ("penalty", 1.5, "must be a whole number"),
        ("suppress", True, "must be a whole number"),
        ("reuse", -1, "must be a whole number"),
        ("half_life", 0, "must be a number of seconds from 1 to"),
        ("maximum", float("nan"), "must be a number of seconds"),
        ("maximum", float("inf"), "must be a number of seconds"),
        ("half_live", 300, "did you mean 'half_life'?"),
    ],
)
def test_a_bad_value_is_named(key: str, value: object, told: str) -> None:
    _, problems = configured(**{key: value})
    assert set(problems) == {f"damping.{key}"}
    assert told in problems[f"damping.{key}"]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"suppress": 3000}, "reuse = 3000 must be below suppress = 3000"),
        ({"penalty": 6000}, "penalty = 6000 must be below suppress = 6000"),
        ({"maximum": 299}, "set maximum to 300 or more, or half_life lower"),
        ({"half_life": 3600}, "set maximum to 3600 or more"),
    ],
)
def test_values_that_do_not_go_together(settings: dict[str, object], told: str) -> None:
    _, problems = configured(**settings)
    assert told in problems["damping"]


@untimed
@given(
    st.builds(
        Policy,
        penalty=st.integers(1, 1_000_000),
        suppress=st.integers(2, 1_000_000_000),
        reuse=st.integers(1, 1_000_000_000),
        half_life=st.floats(1, 86400),
        maximum=st.floats(1, 604800),
    )
)
def test_figures_without_mistakes_work_and_the_remedies_help(policy: Policy) -> None:
    if not policy.mistakes:
        assert policy.suppress <= policy.ceiling < math.inf
        return
    mended = replace(
        policy, penalty=min(policy.penalty, policy.suppress - 1), reuse=min(policy.reuse, policy.suppress - 1)
    )
    if mended.mistakes:
        found = re.search(r"set maximum to (\d+) or more", mended.mistakes[0])
        assert found is not None
        assert replace(mended, maximum=float(found[1])).mistakes == ()
