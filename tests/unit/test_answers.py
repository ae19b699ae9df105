"""What the agent answers: who asks for events waits for them, and no question is taken that makes no sense."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mobility.answers import LISTENERS, LONGEST_WAIT, Answers, Known, names_in
from mobility.control import ControlError
from mobility.store import Store, StoreError, read_history
from mobility.worker import Shared


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "db", "boot")
    yield store
    store.close()


@pytest.fixture
def answers(store: Store) -> Answers:
    known = SimpleNamespace(
        files=lambda: SimpleNamespace(jails={"web1": None, "db1": None}, problems={"": ()}, refused={}),
        workers={"mail": None},
        view=lambda: None,
        config=lambda: SimpleNamespace(paths=SimpleNamespace(jails_d="/jails.d")),
    )
    answers = Answers(cast("Shared", SimpleNamespace(store=store)), cast("Known", known))
    store.on_note = answers.noted
    return answers


def told(answer: dict[str, Any]) -> list[tuple[str, str]]:
    return [(event["jail"], event["what"]) for event in answer["events"]]


def test_who_waits_is_told_at_once(store: Store, answers: Answers) -> None:
    async def body() -> None:
        waiting = asyncio.create_task(answers.events({"within": 30, "names": ["web1"]}))
        every = asyncio.create_task(answers.events({"within": 30}))
        await asyncio.sleep(0)
        store.note("db1", "announced")
        store.note("web1", "withdrawn")
        async with asyncio.timeout(10):
            assert told(await waiting) == [("web1", "withdrawn")]
            assert told(await every) == [("db1", "announced"), ("web1", "withdrawn")]

    asyncio.run(body())


def test_what_came_before_is_told_in_order_and_without_a_gap(store: Store, answers: Answers) -> None:
    async def body() -> None:
        for number in range(25):
            store.note("web1", f"event {number}")
        after = 0
        found: list[str] = []
        while len(found) < 25:
            answer = await answers.events({"within": 0, "after": after, "limit": 10})
            assert len(answer["events"]) <= 10
            found += [event["what"] for event in answer["events"]]
            after = answer["last"]
        assert found == [f"event {number}" for number in range(25)]
        assert await answers.events({"within": 0, "after": after}) | {"began": 0, "pid": 0} == {
            "events": [],
            "last": 25,
            "began": 0,
            "pid": 0,
        }

    asyncio.run(body())


def test_now_is_where_it_begins_without_an_id_or_with_one_of_another_database(store: Store, answers: Answers) -> None:
    async def body() -> None:
        store.note("web1", "announced")
        for after, within in ((None, 0), (1000, 30)):
            async with asyncio.timeout(10):
                answer = await answers.events({"within": within, "after": after})
            assert (answer["events"], answer["last"]) == ([], 1)

    asyncio.run(body())


def test_others_events_wake_nobody_for_nothing(store: Store, answers: Answers) -> None:
    async def body() -> None:
        waiting = asyncio.create_task(answers.events({"within": 30, "names": ["web1"]}))
        for _ in range(5):
            await asyncio.sleep(0)
            store.note("db1", "announced")
        await asyncio.sleep(0)
        assert not waiting.done()
        store.note("web1", "announced")
        async with asyncio.timeout(10):
            assert (await waiting)["last"] == 6

    asyncio.run(body())


def test_so_many_may_wait_and_who_went_makes_room(store: Store, answers: Answers) -> None:
    async def body() -> None:
        waiting = [asyncio.create_task(answers.events({"within": 30})) for _ in range(LISTENERS)]
        await asyncio.sleep(0)
        with pytest.raises(ControlError, match="others follow events already, 8 at once may"):
            await answers.events({"within": 30})
        # the question that does not wait is not theirs
        assert await answers.events({"limit": 1}) == {"events": []}
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert (await answers.events({"within": 0}))["events"] == []

    asyncio.run(body())


@pytest.mark.parametrize(
    "request_",
    [
        {"within": -1},
        {"within": LONGEST_WAIT + 1},
        {"within": "1"},
        {"within": True},
        {"within": float("nan")},
        {"within": 0, "after": "x"},
        {"within": 0, "after": True},
        {"within": 0, "limit": 1.5},
        {"within": 0, "names": ["../x"]},
        {"jail": 7},
        {"limit": "x"},
        {"after": True},
    ],
)
def test_questions_that_make_no_sense_are_refused(answers: Answers, request_: dict[str, Any]) -> None:
    with pytest.raises(ControlError):
        asyncio.run(answers.events(request_))


def test_a_name_that_is_not_known_is_told_what_may_have_been_meant(answers: Answers) -> None:
    assert answers.names({"names": ["web1", "mail"]}) == {"web1", "mail"}
    with pytest.raises(ControlError, match=r"no such jail here: wbe1 .*granted in /jails.d\); did you mean web1\?"):
        answers.names({"names": ["wbe1"]})
    with pytest.raises(ControlError, match=r"granted in /jails.d\)$"):
        answers.names({"names": ["xyz"]})
    with pytest.raises(ControlError, match="names must be a list"):
        names_in({"names": "web1"})
    with pytest.raises(ControlError, match="is not handled"):
        names_in({"names": ["a b"]})


# -- what is read without an agent


def test_history_is_read_beside_the_agent_and_after_it(tmp_path: Path, store: Store) -> None:
    path = tmp_path / "db"
    for jail, what in (("web1", "announced"), ("", "reload"), ("web1", "withdrawn"), ("db1", "announced")):
        store.note(jail, what)
    assert [each.what for each in read_history(path, limit=2)] == ["withdrawn", "announced"]
    assert [each.jail for each in read_history(path, limit=9, kinds=["announced"])] == ["web1", "db1"]
    assert [each.what for each in read_history(path, limit=9, jails=["web1"])] == ["announced", "withdrawn"]
    last = read_history(path, limit=9)[-1].at
    assert [each.jail for each in read_history(path, limit=9, since=last)] == ["db1"]
    assert read_history(path, limit=9, since=last + 1) == []
    store.note("web1", "announced")
    store.close()
    assert len(read_history(path, limit=9)) == 5
    again = Store(path, "boot")
    again.note("web1", "withdrawn")
    assert len(read_history(path, limit=9)) == 6
    again.close()


def test_reading_leaves_no_files_behind(tmp_path: Path, store: Store) -> None:
    store.note("web1", "announced")
    store.close()
    before = sorted(tmp_path.iterdir())
    assert len(read_history(tmp_path / "db", limit=9)) == 1
    (tmp_path / "cut").write_bytes((tmp_path / "db").read_bytes()[:5000])
    with pytest.raises(StoreError, match="can not be read"):
        read_history(tmp_path / "cut", limit=9)
    assert sorted(tmp_path.iterdir()) == sorted([*before, tmp_path / "cut"])


def test_who_may_not_look_there_is_told_so(tmp_path: Path) -> None:
    # longer than any name may be: the kernel says something else than that it is not there, whoever asks
    with pytest.raises(StoreError, match="can not be read"):
        read_history(tmp_path / ("d" * 300) / "db", limit=1)


def test_where_there_is_no_history_it_says_why(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is not there: it is written from the agent's first start on"):
        read_history(tmp_path / "db", limit=1)
    assert not (tmp_path / "db").exists()
    (tmp_path / "db").write_text("what is this? " * 100)
    with pytest.raises(StoreError, match="can not be read"):
        read_history(tmp_path / "db", limit=1)
