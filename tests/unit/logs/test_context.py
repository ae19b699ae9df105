"""Which jail and which event a line belongs to: through tasks, timers and what several share."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

import pytest

from mobility import logs
from mobility.logs import Front, fields
from mobility.logs.limit import Limit

log = logging.getLogger("mobility.test.context")


class Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[dict[str, object]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(fields(record))


@pytest.fixture
def kept() -> Iterator[Kept]:
    kept = Kept()
    front = Front(kept, Limit(0, 1.0))
    log.addHandler(front)
    log.setLevel(logging.INFO)
    yield kept
    log.removeHandler(front)


def test_what_is_logged_for_a_jail_carries_it(kept: Kept) -> None:
    with logs.about("web1", "e1"):
        log.info("ran", extra={"status": 0})
        with logs.about():
            log.info("of the whole host")
    log.info("after it")
    assert kept.lines == [{"jail": "web1", "status": 0, "event": "e1"}, {}, {}]


def test_an_event_goes_with_its_own_jail_only(kept: Kept) -> None:
    with logs.about("web1", "e1"):
        log.info("of another", extra={"jail": "db1"})
        log.info("of its own", extra={"jail": "web1"})
        log.info("of another event", extra={"event": "e2"})
    assert kept.lines == [
        {"jail": "db1"},
        {"jail": "web1", "event": "e1"},
        {"jail": "web1", "event": "e2"},
    ]


def test_tasks_of_several_jails_at_once_are_told_apart(kept: Kept) -> None:
    async def work(jail: str) -> None:
        with logs.about(jail, f"event of {jail}"):
            for _ in range(3):
                await asyncio.sleep(0)
                log.info("ran")
            # what it begins is its own too
            await asyncio.create_task(later())
            done = asyncio.Event()
            asyncio.get_running_loop().call_soon(log.info, "ran")
            asyncio.get_running_loop().call_soon(done.set)
            await done.wait()

    async def later() -> None:
        log.info("ran")

    async def all_of_them() -> None:
        await asyncio.gather(*(work(f"jail{number}") for number in range(5)))

    asyncio.run(all_of_them())
    assert len(kept.lines) == 25
    for line in kept.lines:
        assert line["event"] == f"event of {line['jail']}"
