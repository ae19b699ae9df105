"""Floods of lines: what is written of them, what is left out, and what is said of that."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobility import logs
from mobility.logs import Front, JsonFormatter
from mobility.logs.limit import EVERY, QUIET, SHARED, TELL_EVERY, Kind, LeftOut, Limit

RAN = Kind("mobility.network.host", "ran", "web1")


def admitted(limit: Limit, kind: Kind, count: int, now: float, *, error: bool = False) -> int:
    return sum(limit.admit(kind, now, error=error) for _ in range(count))


# -- the bucket


def test_so_many_at_once_and_so_many_a_second_from_then_on() -> None:
    limit = Limit(5, 2.0)
    assert admitted(limit, RAN, 20, 0.0) == 5
    assert admitted(limit, RAN, 20, 1.0) == 2
    assert admitted(limit, RAN, 20, 1000.0) == 5


def test_a_burst_of_0_is_no_limit() -> None:
    limit = Limit(0, 1.0)
    assert admitted(limit, RAN, 1000, 0.0) == 1000
    assert len(limit) == 0


def test_a_flood_of_one_jail_keeps_nothing_else_back() -> None:
    limit = Limit(2, 1.0)
    admitted(limit, RAN, 100, 0.0)
    for other in (RAN._replace(jail="db1"), RAN._replace(message="announced"), RAN._replace(logger="mobility.agent")):
        assert limit.admit(other, 0.0)


def test_what_was_left_out_is_told_when_the_flood_has_ended() -> None:
    limit = Limit(3, 0.01)
    admitted(limit, RAN, 10, 0.0)
    admitted(limit, RAN, 5, 2.0)
    assert limit.flooded
    assert limit.ended(2.0 + QUIET - 0.1) == []
    assert limit.ended(2.0 + QUIET) == [LeftOut(RAN, 12, 2.0 + QUIET)]
    assert not limit.flooded
    assert limit.ended(1000.0) == []


def test_a_flood_that_goes_on_is_told_of_all_the_same() -> None:
    limit = Limit(1, 0.01)
    told = []
    for second in range(int(2 * TELL_EVERY) + 5):
        limit.admit(RAN, float(second))
        told += limit.ended(float(second))
    assert [each.kind for each in told] == [RAN, RAN]


def test_the_first_error_of_a_kind_is_always_written() -> None:
    limit = Limit(1, 0.01, keys=2)
    for number in range(1000):
        kind = Kind("mobility.worker", "can not be brought to where it should stand", f"jail{number}")
        # far more jails than buckets: all share one, which is empty
        assert limit.admit(kind, 0.0, error=True)
    assert not limit.admit(kind, 0.0, error=True)


def test_more_kinds_than_are_told_apart_share_what_there_is() -> None:
    limit = Limit(10, 0.01, keys=50)
    written = sum(limit.admit(Kind("mobility.agent", "hook", f"jail{number}"), 0.0) for number in range(10_000))
    assert written == 50 + 10
    (told,) = limit.ended(QUIET)
    assert told.kind == Kind("mobility.agent", "hook", EVERY)
    assert told.lines == 10_000 - 60


def test_a_kind_at_rest_makes_room_for_another() -> None:
    limit = Limit(2, 1.0, keys=2)
    limit.admit(Kind("a", "a"), 0.0)
    limit.admit(Kind("b", "b"), 0.0)
    assert admitted(limit, Kind("c", "c"), 10, 10.0) == 2
    assert len(limit) == 2


@given(st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 2000), st.floats(0, 3)), max_size=300))
def test_memory_is_bounded_and_nothing_is_left_out_untold(lines: list[tuple[int, int, float]]) -> None:
    limit, now, asked, written, told = Limit(2, 0.5, keys=20), 0.0, 0, 0, 0
    for logger, jail, pause in lines:
        now += pause
        asked += 1
        written += limit.admit(Kind(str(logger), str(logger), str(jail)), now)
        told += sum(each.lines for each in limit.ended(now))
        assert len(limit) <= 20 + SHARED + 1
    told += sum(each.lines for each in limit.ended(now, every=True))
    assert written + told == asked


# -- before a handler


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def log() -> Iterator[logging.Logger]:
    logger = logging.getLogger("mobility.test.flood")
    logger.propagate = False
    logger.setLevel(logging.INFO)
    yield logger
    logger.handlers.clear()


def front(log: logging.Logger, limit: Limit, clock: Clock) -> tuple[Front, StringIO]:
    written = StringIO()
    out = logging.StreamHandler(written)
    out.setFormatter(JsonFormatter())
    made = Front(out, limit, clock)
    log.addHandler(made)
    return made, written


def test_a_summary_names_the_jail_and_what_was_not_written(log: logging.Logger) -> None:
    clock, counted = Clock(), 0

    def count(lines: int) -> None:
        nonlocal counted
        counted += lines

    made, written = front(log, Limit(3, 0.01), clock)
    made.counted(count, count)
    for _ in range(10):
        log.info("ran", extra={"jail": "web1", "argv": "true"})
    clock.now = 100.0
    log.info("announced", extra={"jail": "db1"})
    lines = [json.loads(line) for line in written.getvalue().splitlines()]
    assert [line["message"] for line in lines] == [
        *(["ran"] * 3),
        "7 lines like this were not written",
        "announced",
    ]
    summary = lines[3]
    assert (summary["jail"], summary["like"], summary["lines"], summary["seconds"]) == ("web1", "ran", 7, 100.0)
    assert summary["level"] == "warning"
    assert counted == 7


def test_messages_are_told_apart_as_the_program_has_them(log: logging.Logger) -> None:
    _, written = front(log, Limit(2, 0.01), Clock())
    for number in range(10):
        log.info("BGP session %s", number)
    assert len(written.getvalue().splitlines()) == 2


def test_the_end_is_told_without_another_line_and_at_the_agents_end(log: logging.Logger) -> None:
    clock = Clock()
    made, written = front(log, Limit(1, 0.01), clock)
    log.info("ran")
    log.info("ran")
    made.settle()
    assert "not written" not in written.getvalue()
    made.close()
    assert "1 lines like this were not written" in written.getvalue()


def test_the_defaults_keep_a_jails_start_and_stop_a_flood() -> None:
    limit = Limit(logs.BURST, logs.PER_SECOND)
    assert admitted(limit, RAN, 60, 0.0) == 60
    assert admitted(limit, RAN, 100_000, 1.0) < 100
