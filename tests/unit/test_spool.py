"""The spool's Python side: what is an event, each once and in order, and what becomes of everything else."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobility.events.spool import (
    KEEP_BAD,
    MAX_ANSWER,
    MAX_BYTES,
    BadEvent,
    Event,
    Spool,
    SpoolError,
    answer_line,
    hooks_section_readable,
    parse,
)
from mobility.model import Phase

GOOD = b"mobility-event 1\nphase created\njail web1\nreply no\nend\n"
NEVER = 3600.0
SOON = 30.0
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
NOBODY = 65534


def written(jail: str = "web1", phase: str = "created", reply: str = "no") -> bytes:
    return f"mobility-event 1\nphase {phase}\njail {jail}\nreply {reply}\nend\n".encode()


def drop(spool: Spool, name: str, content: bytes = GOOD, at: float | None = None) -> Path:
    """Hand a file over as a hook does."""
    draft = spool.folder / "tmp" / name
    draft.write_bytes(content)
    if at is not None:
        os.utime(draft, (at, at))
    return draft.rename(spool.folder / "new" / name)


@pytest.fixture
def rejected() -> Counter[str]:
    return Counter()


@pytest.fixture
def spool(tmp_path: Path, rejected: Counter[str]) -> Spool:
    spool = Spool(tmp_path / "spool", on_reject=lambda reason: rejected.update([reason]))
    spool.prepare()
    return spool


def in_new(spool: Spool) -> list[str]:
    return sorted(path.name for path in (spool.folder / "new").iterdir())


def in_bad(spool: Spool) -> list[Path]:
    return sorted((spool.folder / "bad").iterdir())


# --- parsing


@pytest.mark.parametrize("phase", list(Phase))
@pytest.mark.parametrize("waits", [True, False])
def test_an_event_is_read(phase: Phase, waits: bool) -> None:
    content = written("a.b-c_1", phase, "yes" if waits else "no")
    assert parse(content) == (phase, "a.b-c_1", waits)


@pytest.mark.parametrize("length", range(len(GOOD)))
def test_an_event_cut_anywhere_is_recognised(length: int) -> None:
    with pytest.raises(BadEvent) as caught:
        parse(GOOD[:length])
    assert caught.value.reason == "cut"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (GOOD.replace(b" 1\n", b" 2\n"), "version"),
        (GOOD.replace(b" 1\n", b" 10\n"), "version"),
        (GOOD.replace(b"created", b"exploded"), "phase"),
        (GOOD.replace(b"web1", b"../../etc"), "name"),
        (GOOD.replace(b"web1", b"a b"), "name"),
        (GOOD.replace(b"web1", b""), "name"),
        (GOOD.replace(b"web1", b"\xff\xfe"), "name"),
        (GOOD.replace(b"web1", "jäil".encode()), "name"),
        (GOOD.replace(b"web1", b"w" * 64), "name"),
        (GOOD.replace(b"web1", b"web1\njail web2"), "cut"),
        (GOOD + b"more", "cut"),
        (b"\0" * 40, "cut"),
    ],
)
def test_what_is_no_event_says_why(content: bytes, reason: str) -> None:
    with pytest.raises(BadEvent) as caught:
        parse(content)
    assert caught.value.reason == reason
    assert str(caught.value)


@given(st.binary(max_size=200))
def test_no_bytes_break_the_parser(content: bytes) -> None:
    with pytest.raises(BadEvent):
        parse(content)


@given(st.booleans(), st.text(max_size=2000))
def test_an_answer_is_one_short_line(ok: bool, text: str) -> None:
    line = answer_line(ok, text)
    assert len(line) <= MAX_ANSWER
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert line.decode("utf-8").split()[0] == ("ok" if ok else "refused")


# --- looking


def test_events_come_once_oldest_first(spool: Spool) -> None:
    drop(spool, "b", written("second"), at=2000.5)
    drop(spool, "c", written("third"), at=2000.5)
    drop(spool, "a", written("fourth"), at=3000)
    drop(spool, "d", written("first"), at=1000)
    events = spool.look()
    assert [event.jail for event in events] == ["first", "second", "third", "fourth"]
    assert events[1] == Event("b", Phase.CREATED, "second", 2000.5, None)
    assert spool.look() == []
    assert spool.depth == 4
    assert spool.oldest(3010.0) == 2010.0


def test_an_event_stays_until_it_is_done(spool: Spool) -> None:
    drop(spool, "a")
    (event,) = spool.look()
    (again,) = Spool(spool.folder).look()  # an agent that was killed and came back
    assert again == event
    spool.done(event)
    assert in_new(spool) == []
    assert (spool.depth, spool.oldest(time.time())) == (0, 0.0)
    assert Spool(spool.folder).look() == []
    spool.done(event)  # twice is no harm


def test_a_name_may_be_used_again_once_done(spool: Spool) -> None:
    drop(spool, "a", written("one"))
    spool.done(spool.look()[0])
    drop(spool, "a", written("two"))
    assert [event.jail for event in spool.look()] == ["two"]


def test_a_waiting_hooks_fifo_is_found_by_the_events_name(spool: Spool) -> None:
    drop(spool, "a", written(reply="yes"))
    (event,) = spool.look()
    assert event.reply == spool.folder / "reply" / "a"


def test_an_event_that_its_hook_took_back_is_forgotten_when_done(spool: Spool) -> None:
    path = drop(spool, "a")
    (event,) = spool.look()
    path.unlink()
    spool.done(event)
    assert spool.depth == 0


def test_a_thousand_stale_events_are_events(spool: Spool) -> None:
    for number in range(1000):
        drop(spool, f"e{number}", written(f"jail{number}"), at=1_000_000 + number)
    events = spool.look()
    assert [event.jail for event in events] == [f"jail{number}" for number in range(1000)]
    for event in events:
        spool.done(event)
    assert in_new(spool) == []


# --- what is no event


def make_link(path: Path) -> None:
    path.symlink_to("/etc/passwd")


def make_folder(path: Path) -> None:
    path.mkdir()
    (path / "inside").write_text("x")


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut": (lambda path: path.write_bytes(GOOD[:20]), "cut"),
    "empty": (lambda path: path.write_bytes(b""), "cut"),
    "large": (lambda path: path.write_bytes(GOOD + b"x" * MAX_BYTES), "size"),
    "link": (make_link, "type"),
    "fifo": (os.mkfifo, "type"),
    "folder": (make_folder, "type"),
    "jail": (lambda path: path.write_bytes(written("a;b")), "name"),
    "-name": (lambda path: path.write_bytes(GOOD), "name"),
    "a b\n;c": (lambda path: path.write_bytes(GOOD), "name"),
    "n" * 200: (lambda path: path.write_bytes(GOOD), "name"),
    os.fsdecode(b"\xff\xfe"): (lambda path: path.write_bytes(GOOD), "name"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_event_is_put_aside_and_holds_nothing_up(spool: Spool, rejected: Counter[str], name: str) -> None:
    make, reason = BAD[name]
    make(spool.folder / "new" / name)
    drop(spool, "good")
    assert [event.id for event in spool.look()] == ["good"]
    assert rejected == {reason: 1}
    assert in_new(spool) == ["good"]
    assert [path.name.split(".")[1] for path in in_bad(spool)] == [reason]
    assert spool.look() == []
    assert rejected == {reason: 1}


@needs_root
def test_another_users_file_is_put_aside(spool: Spool, rejected: Counter[str]) -> None:
    os.chown(drop(spool, "a"), NOBODY, NOBODY)
    assert spool.look() == []
    assert rejected == {"owner": 1}
    assert in_new(spool) == []


def test_only_so_many_bad_files_are_kept(spool: Spool, rejected: Counter[str]) -> None:
    for number in range(KEEP_BAD + 20):
        make = make_folder if number % 2 else make_link
        make(spool.folder / "new" / f"e{number}")
    assert spool.look() == []
    assert rejected["type"] == KEEP_BAD + 20
    assert len(in_bad(spool)) == KEEP_BAD
    assert in_new(spool) == []


FULL = """
import os, sys
from pathlib import Path
from mobility.events.spool import Spool
spool = Spool(Path(sys.argv[1]) / "spool")
spool.prepare()
new = spool.folder / "new"
(new / "good").write_bytes(sys.argv[2].encode())
(new / "cut").write_bytes(b"mobility")
try:
    for number in range(1000):
        (spool.folder / f"filler{number}").touch()
except OSError as error:
    print(error.strerror)
(event,) = spool.look()
spool.done(event)
print(os.listdir(new))
"""


@pytest.mark.lab
def test_a_full_file_system_keeps_nothing_but_loses_no_event(tmp_path: Path) -> None:
    script = 'mount -t tmpfs -o mode=700,nr_inodes=40 tmpfs "$1" && exec "$2" -c "$3" "$1" "$4"'
    ended = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", str(tmp_path), sys.executable, FULL, GOOD.decode()],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.stdout.splitlines() == ["No space left on device", "[]"], ended.stderr


# --- the folders


def test_the_folders_are_ours_alone(spool: Spool) -> None:
    for folder in (spool.folder, *(spool.folder / name for name in ("tmp", "new", "reply", "bad"))):
        assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("folder", [".", "tmp", "new", "reply", "bad"])
@pytest.mark.parametrize("mode", [0o777, 0o770, 0o750, 0o1777])
def test_a_folder_open_to_others_is_refused(spool: Spool, folder: str, mode: int) -> None:
    (spool.folder / folder).chmod(mode)
    with pytest.raises(SpoolError, match="open to others"):
        spool.prepare()


@needs_root
def test_anothers_folder_is_refused(spool: Spool) -> None:
    os.chown(spool.folder / "new", NOBODY, NOBODY)
    with pytest.raises(SpoolError, match="open to others"):
        spool.prepare()


def test_a_folder_that_others_can_replace_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(SpoolError, match="others may replace"):
        Spool(tmp_path / "open" / "spool").prepare()


def test_a_link_in_the_place_of_a_folder_is_refused(spool: Spool, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (spool.folder / "new").rmdir()
    (spool.folder / "new").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SpoolError, match="no folder"):
        spool.prepare()


def test_a_file_in_the_place_of_the_spool_is_refused_with_advice(tmp_path: Path) -> None:
    (tmp_path / "spool").touch()
    with pytest.raises(SpoolError, match=r"hooks\.spool"):
        Spool(tmp_path / "spool").prepare()


# --- answers


def waiting(spool: Spool, name: str = "a") -> Event:
    drop(spool, name, written(reply="yes"))
    (event,) = spool.look()
    return event


def test_an_answer_reaches_who_waits(spool: Spool) -> None:
    event = waiting(spool)
    assert event.reply is not None
    os.mkfifo(event.reply)
    reader = os.open(event.reply, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert spool.answer(event, False, "not\nallowed \x1b[31m here")
        assert os.read(reader, 4096) == b"refused not allowed [31m here\n"
    finally:
        os.close(reader)


def test_nobody_waits(spool: Spool) -> None:
    drop(spool, "quiet")
    (quiet,) = spool.look()
    assert not spool.answer(quiet, True)  # it never did
    event = waiting(spool)
    assert not spool.answer(event, True)  # its FIFO is gone
    assert event.reply is not None
    os.mkfifo(event.reply)
    assert not spool.answer(event, True)  # it was killed before it could remove it


def test_only_a_fifo_of_ours_is_written_to(spool: Spool, tmp_path: Path) -> None:
    event = waiting(spool)
    assert event.reply is not None
    event.reply.write_bytes(b"precious")
    assert not spool.answer(event, True)
    assert event.reply.read_bytes() == b"precious"
    event.reply.unlink()
    (tmp_path / "elsewhere").write_bytes(b"precious")
    event.reply.symlink_to(tmp_path / "elsewhere")
    assert not spool.answer(event, True)
    assert (tmp_path / "elsewhere").read_bytes() == b"precious"


@needs_root
def test_anothers_fifo_is_not_written_to(spool: Spool) -> None:
    event = waiting(spool)
    assert event.reply is not None
    os.mkfifo(event.reply)
    os.chown(event.reply, NOBODY, NOBODY)
    reader = os.open(event.reply, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert not spool.answer(event, True)
        assert os.read(reader, 10) == b""
    finally:
        os.close(reader)


def fill(pipe: int) -> None:
    try:
        while True:
            os.write(pipe, b"x" * 4096)
    except BlockingIOError:
        return


def test_a_full_fifo_does_not_block(spool: Spool) -> None:
    event = waiting(spool)
    assert event.reply is not None
    os.mkfifo(event.reply)
    reader = os.open(event.reply, os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(event.reply, os.O_WRONLY | os.O_NONBLOCK)
    try:
        fill(writer)
        assert not spool.answer(event, True, "x" * MAX_ANSWER)
    finally:
        os.close(reader)
        os.close(writer)


# --- waiting for news


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(SOON):
        while not condition():  # noqa: ASYNC110  # what is waited for happens in the file system
            await asyncio.sleep(0.01)


async def soon(events: AsyncGenerator[Event, None]) -> Event:
    async with asyncio.timeout(SOON):
        return await anext(events)


def test_news_comes_without_waiting_for_the_next_look(tmp_path: Path) -> None:
    async def body() -> None:
        spool = Spool(tmp_path / "spool", look_every=NEVER)
        spool.prepare()
        drop(spool, "before")
        async with aclosing(spool.events()) as events:
            assert (await soon(events)).id == "before"
            for number in range(20):
                coming = asyncio.ensure_future(soon(events))
                await asyncio.sleep(0)  # let it wait
                drop(spool, f"e{number}")
                event = await coming
                assert event.id == f"e{number}"
                spool.done(event)

    asyncio.run(body())


def test_a_burst_is_complete(tmp_path: Path) -> None:
    async def body() -> None:
        spool = Spool(tmp_path / "spool", look_every=NEVER)
        spool.prepare()
        seen: list[str] = []
        async with aclosing(spool.events()) as events:
            burst = asyncio.get_running_loop().run_in_executor(
                None, lambda: [drop(spool, f"e{number}") for number in range(300)]
            )
            while len(seen) < 300:
                event = await soon(events)
                seen.append(event.id)
                spool.done(event)
            await burst
        assert sorted(seen) == sorted(f"e{number}" for number in range(300))

    asyncio.run(body())


def test_a_lost_watch_loses_nothing(tmp_path: Path) -> None:
    async def body() -> None:
        spool = Spool(tmp_path / "spool", look_every=0.05)
        async with aclosing(spool.events()) as events:
            spool.prepare()
            drop(spool, "a")
            spool.done(await soon(events))
            assert spool._watch is not None
            assert spool._watch.observer is not None
            spool._watch.observer.unschedule_all()  # as when its thread has died
            drop(spool, "b")
            assert (await soon(events)).id == "b"

    asyncio.run(body())


UNWATCHED = """
import asyncio, sys, threading
from contextlib import aclosing
from pathlib import Path
from mobility.events.spool import Spool

async def body():
    spool = Spool(Path(sys.argv[1]) / "spool", look_every=3600)
    spool.prepare()
    async with aclosing(spool.events()) as events:
        async with asyncio.timeout(20):
            coming = asyncio.ensure_future(anext(events))
            await asyncio.sleep(0.1)
            (spool.folder / "new" / "a").write_bytes(sys.argv[2].encode())
            print((await coming).id)
    print(threading.active_count())

asyncio.run(body())
"""


@pytest.mark.lab
def test_where_the_kernel_watches_nothing_the_spool_is_looked_at(tmp_path: Path) -> None:
    script = 'echo 0 >/proc/sys/user/max_inotify_instances && exec "$@"'
    words = [sys.executable, "-c", UNWATCHED, str(tmp_path), GOOD.decode()]
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "sh", "-c", script, "sh", *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.split() == ["a", "1"], done.stderr
    assert done.stderr.count("can not be watched") == 1


def test_folders_removed_under_a_running_agent_come_back(tmp_path: Path) -> None:
    async def body() -> None:
        spool = Spool(tmp_path / "spool", look_every=0.05)
        spool.prepare()
        drop(spool, "a")
        async with aclosing(spool.events()) as events:
            spool.done(await soon(events))
            (spool.folder / "new").rmdir()
            coming = asyncio.ensure_future(soon(events))
            await until((spool.folder / "new").exists)
            drop(spool, "b")
            assert (await coming).id == "b"

    asyncio.run(body())


def test_what_killed_hooks_left_is_tidied_up(tmp_path: Path) -> None:
    async def body() -> None:
        spool = Spool(tmp_path / "spool", look_every=0.05)
        spool.prepare()
        old, young = spool.folder / "tmp" / "old", spool.folder / "tmp" / "young"
        stale = spool.folder / "reply" / "stale"
        old.touch()
        young.touch()
        os.mkfifo(stale)
        for path in (old, stale):
            os.utime(path, (1000, 1000))
        async with aclosing(spool.events()) as events:
            coming = asyncio.ensure_future(soon(events))
            await until(lambda: not old.exists() and not stale.exists())
            assert young.exists()
            drop(spool, "end")
            await coming

    asyncio.run(body())


# --- the [hooks] section


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[host]\nname = 'a'\n",
        '[hooks]\nspool = "/s"\ntimeout = 5\nwhen_agent_down = "allow"\n',
        '\t[hooks] # here\n  spool="/s p/x#y"#c\n\n# all\ntimeout\t=\t5   # s\n[bgp]\nspool = 1\n',
        "[a]\nx = [\n[1],\n]\n[hooks]\ntimeout = 5",
        "[hooks]\n[bgp]\ntimeout = 5\n",
    ],
)
def test_a_section_in_the_hooks_grammar_is_readable(text: str) -> None:
    assert hooks_section_readable(text) == []


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("hooks.timeout = 5\n", "timeout"),
        ("hooks = {timeout = 5}\n", "timeout"),
        ("[ hooks ]\ntimeout = 5\n", "timeout"),
        ('["hooks"]\ntimeout = 5\n', "timeout"),
        ("[hooks]\ntimeout = 1_0\n", "timeout"),
        ("[hooks]\ntimeout = +5\n", "timeout"),
        ("[hooks]\ntimeout = 0x5\n", "timeout"),
        ("[hooks]\ntimeout = 5.0\n", "timeout"),
        ('[hooks]\n"timeout" = 5\n', "timeout"),
        ("[hooks]\nspool = '/s'\n", "spool"),
        ('[hooks]\nspool = "/\\u0041"\n', "spool"),
        ('[hooks]\nspool = """/s"""\n', "spool"),
        ("[hooks]\r\ntimeout = 5\r\n", "timeout"),
        ('[x]\ny = """\n[hooks]\ntimeout = 9\n"""\n[hooks]\ntimeout = 5\n', '"""'),
        ('[x]\ny = """\n[hooks]\ntimeout = 9\n[z]\n"""\n', "timeout"),
    ],
)
def test_what_the_sh_hooks_would_misread_is_reported(text: str, key: str) -> None:
    (problem, *_) = hooks_section_readable(text)
    assert key in problem
