"""Clocks that jump: what the time of day may decide, and what it must not.

How long something lasts is measured with the monotonic clock, which no ntpd(8) or date(1) sets. The time of day is for
people to read, and for moments that must mean something after a boot or on another host: files' times, histories, the
first sequence of a claim.
"""

from __future__ import annotations

import ast
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from freezegun import freeze_time
from hypothesis import given, settings
from hypothesis import strategies as st

import mobility
from mobility import damping, decide
from mobility.bgp import ownership
from mobility.bgp.ledger import Hearing
from mobility.bgp.ownership import LAST, Claim, Held, Kind, Policy, Record, Situation
from mobility.damping import Damping
from mobility.decide import Memory, Patience, Stand
from mobility.events.spool import Spool
from mobility.jails.jailsd import JailConfig
from mobility.model import Phase, host_prefix
from mobility.network.output import Jail
from mobility.store import EVERYTHING, Store

untimed = settings(deadline=None)
SOURCES = sorted(Path(mobility.__file__).parent.rglob("*.py"))
DAY = 86400.0
NOON = 1_795_262_400.0
jumps = st.sampled_from((0.0, 0.001, 1.0, 3600.0, 365 * DAY, 8000 * 365 * DAY)).flatmap(
    lambda size: st.sampled_from((size, -size))
)

# -- no time of day in what waits

WAITING = {
    "call_later",
    "call_at",
    "sleep",
    "timeout",
    "timeout_at",
    "wait_for",
    "wait",
    "settimeout",
    "poll",
    "select",
}
OF_DAY = {"time", "time_ns", "now", "today", "utcnow"}


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            function = node.func
            yield (function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")), node


def asks_the_time_of_day(node: ast.AST) -> bool:
    return any(
        name in OF_DAY
        and isinstance(call.func, ast.Attribute)
        and isinstance(call.func.value, ast.Name)
        and call.func.value.id in ("time", "datetime", "date")
        for name, call in calls(node)
    )


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_nothing_waits_by_the_time_of_day(path: Path) -> None:
    for name, call in calls(ast.parse(path.read_text())):
        if name in WAITING:
            assert not any(asks_the_time_of_day(each) for each in [*call.args, *call.keywords]), call.lineno


def test_that_test_finds_it() -> None:
    (name, call), *_ = calls(ast.parse("loop.call_later(until - time.time(), wake)"))
    assert name in WAITING
    assert asks_the_time_of_day(call.args[0])
    assert not asks_the_time_of_day(ast.parse("until - time.monotonic() - loop.time()"))


# -- what is believed, and for how long

CONFIG = JailConfig("web1", (host_prefix("198.51.100.7"),), "jails.d")
JAIL = Jail("web1", 7, True, "/jails/web1")
PATIENCE = Patience(120.0, 120.0, 3.0)


@untimed
@given(jumps)
def test_hooks_are_believed_by_the_monotonic_clock(jump: float) -> None:
    """The time of day does not come into it, whatever it says when the decision is made."""
    memory = Memory(phase=Phase.PRESTOP, phase_at=1000.0, jid=7, seen_at=900.0, started=7)
    with freeze_time("2026-11-21") as frozen:
        before = decide.decide(CONFIG, JAIL, memory, 1001.0, PATIENCE)
        frozen.tick(max(-NOON / 2, min(jump, 7000 * 365 * DAY)))
        assert decide.decide(CONFIG, JAIL, memory, 1001.0, PATIENCE) == before
    assert before.stand is Stand.CLOSING


@untimed
@given(jumps)
def test_a_suppressed_jail_comes_back_when_it_would_have(jump: float) -> None:
    """Only the time that its operator is told moves with the clock."""
    policy = damping.Policy()
    state = Damping()
    for flap in range(8):
        state = damping.flapped(state, 1000.0 + flap, policy)
    until = damping.reuse_at(state, policy)
    utc = max(0.0, min(NOON + jump, 200_000_000_000.0))
    told = damping.suppressed(state, 1010.0, policy, utc=utc)
    assert told.startswith(damping.SUPPRESSED)
    assert damping.reuse_at(damping.settle(state, 1010.0, policy), policy) == until


@untimed
@given(jumps)
def test_the_fabric_is_heard_by_the_monotonic_clock(jump: float) -> None:
    with freeze_time("2026-11-21") as frozen:
        hearing = Hearing(10.0)
        assert not hearing.update([], 1000.0)
        frozen.tick(max(-NOON / 2, min(jump, 7000 * 365 * DAY)))
        assert not hearing.update([], 1001.0)
        assert not hearing.heard


# -- ownership: sequences decide, not clocks

JAIL_NUMBER = ownership.identity_number("web1")
USUAL = Policy(moves=5, window=180.0)


def situation(now: float, *seen: Claim, me: int = 10) -> Situation:
    return Situation(
        wanted=("198.51.100.7/32",),
        seen={"198.51.100.7/32": seen},
        me=me,
        identity=JAIL_NUMBER,
        heard=True,
        witnessed=True,
        now=now,
    )


@untimed
@given(st.integers(1, LAST - 2000), jumps)
def test_a_start_is_newer_than_what_it_sees_whatever_the_clock_says(sequence: int, jump: float) -> None:
    seen = Claim(sequence, JAIL_NUMBER, 11)
    ruling = ownership.rule(situation(NOON + jump, seen), Held(), Record(), USUAL)
    assert ruling.kind is Kind.HELD
    assert ruling.held.claim > sequence


@untimed
@given(jumps, jumps)
def test_a_clock_that_jumps_moves_nothing(before: float, after: float) -> None:
    """What is held stays held, with the same sequence."""
    first = ownership.rule(situation(NOON + before), Held(), Record(), USUAL)
    second = ownership.rule(situation(NOON + after), first.held, first.record, USUAL)
    assert second.held == first.held
    assert second.prefixes == first.prefixes
    assert second.record == first.record


@untimed
@given(jumps)
def test_a_wild_clock_uses_up_no_sequences(jump: float) -> None:
    """Hosts after it can still claim: there is room left for two thousand million more."""
    ruling = ownership.rule(situation(NOON + jump), Held(), Record(), USUAL)
    assert 0 < ruling.held.claim <= LAST // 2 + 1


@untimed
@given(st.lists(st.tuples(st.floats(1, 100), jumps), min_size=6, max_size=12))
def test_moves_are_counted_also_while_clocks_jump(steps: list[tuple[float, float]]) -> None:
    """A clock that jumps may make it forget moves, never make up one: at most one a start."""
    record, now, sequence = Record(), NOON, 100
    for count, (seconds, jump) in enumerate(steps, 1):
        now = max(1.0, min(now + seconds + jump, 250_000_000_000.0))
        sequence = max(sequence, record.highest) + 1
        ruling = ownership.rule(situation(now, Claim(sequence, JAIL_NUMBER, 11)), Held(), record, USUAL)
        record = ruling.record
        assert len(record.moves) <= min(count, USUAL.moves)
        assert all(at <= now for at in record.moves)
        if record.frozen_at:
            assert count >= USUAL.moves
            break


@untimed
@given(jumps)
def test_frozen_stays_frozen(jump: float) -> None:
    record = Record(highest=200, owner=11, frozen_at=NOON)
    ruling = ownership.rule(situation(NOON + jump), Held(), record, USUAL)
    assert ruling.kind is Kind.FROZEN


# -- the database


def test_a_clock_that_was_years_ahead_costs_history_only(tmp_path: Path) -> None:
    store = Store(tmp_path / "db", "boot")
    memory = replace(Memory(), phase=Phase.POSTSTART, phase_at=12.5, jid=7)
    store.remember("web1", memory)
    store.drain(EVERYTHING, NOON)
    with freeze_time("2026-11-21"):
        store.note("web1", "announced")
    with freeze_time("2090-01-01"):
        store.note("web1", "withdrawn")
    with freeze_time("1970-01-02"):
        store.note("web1", "announced")
    # in the order in which it happened, not in that of the clock
    assert [each.what for each in store.history(limit=10)] == ["announced", "withdrawn", "announced"]
    store.prune(before=4_000_000_000.0)
    assert store.memories() == {"web1": memory}
    assert store.drains() == {EVERYTHING: NOON}
    store.close()


# -- the spool: a file's time is one of the day


GOOD = b"mobility-event 1\nphase poststart\njail web1\nreply no\nend\n"


def drop(spool: Spool, name: str, at: float) -> None:
    """Hand an event over as a hook does that saw this time of day."""
    draft = spool.folder / "tmp" / name
    draft.write_bytes(GOOD)
    os.utime(draft, (at, at))
    draft.rename(spool.folder / "new" / name)


@pytest.mark.parametrize("jump", [3600.0, 365 * DAY], ids=["an hour", "a year"])
def test_an_event_is_not_long_past_because_the_clock_was_set_ahead(tmp_path: Path, jump: float) -> None:
    """Else a poststart would be older than the prestart before it, and its jail be dark until `agent.starting_for`."""
    spool = Spool(tmp_path / "spool")
    spool.prepare()
    # found by the first look: it waited for an agent, nobody knows for how long but by the clock
    drop(spool, "early", time.time() - jump)
    (event,) = spool.look()
    assert time.time() - event.time == pytest.approx(jump, abs=60)
    looked = time.monotonic()
    drop(spool, "late", time.time() - jump)
    (event,) = spool.look()
    assert time.time() - event.time <= time.monotonic() - looked + 1


def test_an_event_of_the_future_has_not_waited(tmp_path: Path) -> None:
    """The clock was set back."""
    spool = Spool(tmp_path / "spool")
    spool.prepare()
    drop(spool, "web1", time.time() + 3600)
    spool.look()
    assert spool.oldest(time.time()) == 0.0
