"""The control socket: who may ask, what is answered, and that no client can harm the agent."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import stat
import struct
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from mobility.control import (
    AT_ONCE,
    MAX_CLIENTS,
    MAX_REQUEST,
    MAX_SOCKET_PATH,
    AgentLock,
    AgentNotRunning,
    AlreadyRunning,
    ControlError,
    ControlServer,
    _encoded,
    _xucred_uid,
    listen,
    peer_uid,
    request,
)

NOBODY = 65534
SOON = 30.0
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


@pytest.fixture
def run() -> Iterator[Path]:
    """A short path that everybody may enter, as RUN is."""
    with tempfile.TemporaryDirectory(prefix="mobility-") as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


async def echo(asked: dict[str, Any]) -> dict[str, Any]:
    return {"asked": asked}


async def forbid(asked: dict[str, Any]) -> dict[str, Any]:
    raise ControlError("jail web1 is not here")


async def mistake(asked: dict[str, Any]) -> dict[str, Any]:
    raise ValueError("names must be a list")


async def break_down(asked: dict[str, Any]) -> dict[str, Any]:
    raise KeyError("lost")


async def hang(asked: dict[str, Any]) -> dict[str, Any]:
    await asyncio.Event().wait()
    return {}


async def much(asked: dict[str, Any]) -> dict[str, Any]:
    return {"much": "x" * 8_000_000}


async def some(asked: dict[str, Any]) -> dict[str, Any]:
    return {"some": "x" * 250_000}


HANDLERS = {
    "echo": echo,
    "forbid": forbid,
    "mistake": mistake,
    "break": break_down,
    "hang": hang,
    "much": much,
    "some": some,
}


@contextlib.asynccontextmanager
async def serving(run: Path, **settings: Any) -> AsyncIterator[Path]:
    server = ControlServer(run, HANDLERS, **settings)
    await server.start()
    try:
        yield run / "control.sock"
    finally:
        await server.close()


async def ask(path: Path, op: str, **args: Any) -> dict[str, Any]:
    async with asyncio.timeout(SOON):
        return await asyncio.to_thread(request, path, op, **args)


async def say(path: Path, data: bytes, *, end: bool = True) -> dict[str, Any]:
    """Send raw bytes and return the answer."""
    async with asyncio.timeout(SOON):
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(data)
        if end:
            writer.write_eof()
        answer = await reader.readline()
        writer.close()
    fields = json.loads(answer)
    assert isinstance(fields, dict)
    return fields


# --- the kernel's word


def test_the_kernel_says_who_is_there() -> None:
    one, other = socket.socketpair(socket.AF_UNIX)
    with one, other:
        assert peer_uid(one) == os.geteuid()


def test_nobody_is_trusted_where_the_kernel_says_nothing() -> None:
    with socket.socket(socket.AF_UNIX) as lonely, pytest.raises(PermissionError, match="not connected"):
        peer_uid(lonely)
    with socket.socket(socket.AF_INET) as other, pytest.raises(PermissionError, match="Unix sockets only"):
        peer_uid(other)


def test_freebsds_answer_is_read() -> None:
    # struct xucred of FreeBSD 13.2 on amd64: version, uid, ngroups, padding, 16 groups, padding, pid
    def answer(version: int) -> bytes:
        return struct.pack("@IIhxx16I4xQ", version, 1001, 1, *[1001] * 16, 4711)

    assert len(answer(0)) == 88
    assert _xucred_uid(answer(0)) == 1001
    with pytest.raises(PermissionError, match="version 1"):
        _xucred_uid(answer(1))
    with pytest.raises(struct.error):
        _xucred_uid(b"\0" * 4)


STRANGER = """
import contextlib, os, socket, sys
os.setgroups([]); os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[2]))
connection = socket.socket(socket.AF_UNIX)
try:
    connection.connect(sys.argv[1])
    with contextlib.suppress(BrokenPipeError):  # refused unread: the answer is there
        connection.sendall(b'{"v": 1, "op": "echo"}\\n')
    print(connection.recv(65536).decode(), end="")
except PermissionError as error:
    print(error.strerror)
"""


async def stranger(path: Path) -> str:
    words = [sys.executable, "-I", "-c", STRANGER, str(path), str(NOBODY)]
    process = await asyncio.create_subprocess_exec(*words, stdout=subprocess.PIPE)
    async with asyncio.timeout(SOON):
        out, _ = await process.communicate()
    return out.decode()


@needs_root
def test_another_user_is_refused_by_the_sockets_mode(run: Path) -> None:
    async def body() -> None:
        async with serving(run) as path:
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert await stranger(path) == "Permission denied\n"

    asyncio.run(body())


@needs_root
def test_another_user_is_refused_by_the_kernels_word(run: Path) -> None:
    async def body() -> None:
        async with serving(run) as path:
            path.chmod(0o666)
            answer = json.loads(await stranger(path))
            assert answer["ok"] is False
            assert "only root" in answer["error"]
        async with serving(run, uids=frozenset({NOBODY})) as path:
            path.chmod(0o666)
            assert json.loads(await stranger(path))["ok"] is True
            with pytest.raises(ControlError, match="only root"):
                await ask(path, "echo")

    asyncio.run(body())


# --- asking and answering


def test_a_request_is_answered(run: Path) -> None:
    async def body() -> None:
        async with serving(run) as path:
            answer = await ask(path, "echo", names=["jäil", "a\nb"], number=1)
            assert answer == {"asked": {"v": 1, "op": "echo", "names": ["jäil", "a\nb"], "number": 1}}
            assert len((await ask(path, "much"))["much"]) == 8_000_000
        assert not path.exists()

    asyncio.run(body())


@pytest.mark.parametrize("number", [0, 1, AT_ONCE, AT_ONCE + 1, 5 * AT_ONCE])
def test_a_long_list_leaves_turns_to_others(number: int) -> None:
    answer = {"v": 1, "ok": True, "jails": [{"name": f'jä"{at}'} for at in range(number)], "host": {"name": "a"}}

    async def body() -> None:
        encoding = asyncio.create_task(_encoded(answer))
        turns = 0
        while not encoding.done():
            turns += 1
            await asyncio.sleep(0)
        assert encoding.result() == json.dumps(answer).encode() + b"\n"
        assert turns >= number // AT_ONCE

    asyncio.run(body())


def test_the_last_bytes_of_an_answer_wait_for_their_reader(run: Path) -> None:
    """More than the socket takes, less than asyncio calls too much: neither is a reason to hang up."""

    async def body() -> None:
        async with serving(run) as path:
            reader, writer = await asyncio.open_unix_connection(str(path), limit=1)
            writer.write(b'{"v": 1, "op": "some"}\n')
            async with asyncio.timeout(SOON):
                whole = await reader.readexactly(1)  # the answer has begun to come
                for _ in range(1000):  # let the server come to its end, if it means to
                    await asyncio.sleep(0)
                whole += await reader.read(-1)
            assert whole.endswith(b"\n")
            writer.close()

    asyncio.run(body())


@pytest.mark.parametrize(
    ("op", "words"),
    [
        ("forbid", "^jail web1 is not here$"),
        ("mistake", "^names must be a list$"),
        ("break", "break failed in the agent .*lost.*see its log"),
        ("explode", "no operation 'explode'; known: break, echo"),
        ("x" * 1000, "no operation"),
    ],
)
def test_a_no_comes_with_its_reason(run: Path, op: str, words: str) -> None:
    async def body() -> None:
        async with serving(run) as path:
            with pytest.raises(ControlError, match=words):
                await ask(path, op)
            assert await ask(path, "echo")  # the agent lives on

    asyncio.run(body())


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"junk\n", "no JSON"),
        (b"\xff\xfe\n", "no JSON"),
        (b"[" * 60000 + b"\n", "no JSON"),
        (b"[]\n", "version 1"),
        (b"{}\n", "version 1"),
        (b'{"v": 2, "op": "echo"}\n', "version 1"),
        (b'{"v": 1}\n', "no operation"),
        (b'{"v": 1, "op": {"a": 1}}\n', "no operation"),
        (b'{"v": 1, "op": "echo"}', "no end"),
        (b"x" * (MAX_REQUEST * 3), "longer than"),
    ],
)
def test_what_is_no_request_is_told_so(run: Path, data: bytes, words: str) -> None:
    async def body() -> None:
        async with serving(run) as path:
            answer = await say(path, data)
            assert answer["ok"] is False
            assert words in answer["error"]
            assert await ask(path, "echo")

    asyncio.run(body())


def test_who_says_nothing_is_not_waited_for(run: Path) -> None:
    async def body() -> None:
        async with serving(run, read_timeout=0.5) as path:
            assert "no request within" in (await say(path, b'{"v": 1', end=False))["error"]
            with socket.socket(socket.AF_UNIX) as hasty:
                hasty.connect(str(path))
            assert await ask(path, "echo")

    asyncio.run(body())


def test_who_does_not_take_the_answer_is_dropped(run: Path) -> None:
    async def body() -> None:
        async with serving(run, taken_within=0.2) as path:
            reader, writer = await asyncio.open_unix_connection(path, limit=1024)
            writer.write(b'{"v": 1, "op": "much"}\n')
            writer.transport.pause_reading()  # type: ignore[attr-defined]  # asyncio's transports all can
            assert await ask(path, "echo")
            await asyncio.sleep(0.4)  # longer than the agent's patience
            writer.transport.resume_reading()  # type: ignore[attr-defined]
            async with asyncio.timeout(SOON):
                with contextlib.suppress(ConnectionResetError):
                    assert len(await reader.read(-1)) < 8_000_000
            writer.close()

    asyncio.run(body())


def test_an_operation_that_hangs_is_given_up(run: Path) -> None:
    async def body() -> None:
        async with serving(run, answer_timeout=0.1) as path:
            with pytest.raises(ControlError, match=r"hang took longer than 0\.1 s"):
                await ask(path, "hang")

    asyncio.run(body())


def test_too_many_clients_are_told_to_come_back(run: Path) -> None:
    async def body() -> None:
        async with serving(run) as path:
            hanging = []
            for _ in range(MAX_CLIENTS):
                _, writer = await asyncio.open_unix_connection(path)
                writer.write(b'{"v": 1, "op": "hang"}\n')
                hanging.append(writer)
            with pytest.raises(ControlError, match="already has 16 clients"):
                await ask(path, "echo")
            for writer in hanging:
                writer.close()

    asyncio.run(body())


def test_closing_ends_every_conversation(run: Path) -> None:
    async def body() -> None:
        async with serving(run) as path:
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(b'{"v": 1, "op": "hang"}\n')
            assert await ask(path, "echo")
        async with asyncio.timeout(SOON):
            assert await reader.read() == b""
        writer.close()

    asyncio.run(body())


# --- one agent


def test_what_a_killed_agent_left_is_replaced(run: Path) -> None:
    async def body() -> None:
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(run / "control.sock"))
        (run / "agent.pid").write_text("4711\n")
        async with serving(run) as path:
            assert (run / "agent.pid").read_text() == f"{os.getpid()}\n"
            assert await ask(path, "echo")
        assert (run / "agent.pid").read_text() == ""

    asyncio.run(body())


def test_a_live_agent_is_not_displaced(run: Path) -> None:
    async def body() -> None:
        async with serving(run) as path:
            other = ControlServer(run, HANDLERS)
            with pytest.raises(AlreadyRunning, match=f"pid {os.getpid()}"):
                other.claim()
            with pytest.raises(AlreadyRunning):
                await other.start()
            await other.close()
            assert await ask(path, "echo")
        async with serving(run) as path:
            assert await ask(path, "echo")

    asyncio.run(body())


HOLDER = """
import sys
from pathlib import Path
from mobility.control import AgentLock
AgentLock(Path(sys.argv[1])).acquire()
print("held", flush=True)
sys.stdin.read()
"""


def test_the_lock_goes_with_its_holder_however_that_ends(run: Path) -> None:
    lock = AgentLock(run / "agent.pid")
    words = [sys.executable, "-c", HOLDER, str(run / "agent.pid")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(AlreadyRunning, match=f"pid {holder.pid}"):
            lock.acquire()
        holder.kill()
    lock.acquire()
    assert lock.held
    lock.release()
    assert not lock.held


def test_what_is_no_socket_is_not_removed(run: Path) -> None:
    (run / "control.sock").write_text("precious")
    with pytest.raises(ControlError, match="in the way"):
        listen(run / "control.sock")
    assert (run / "control.sock").read_text() == "precious"


def test_a_path_that_no_socket_can_have_is_explained(run: Path) -> None:
    with pytest.raises(ControlError, match=r"shorten paths\.run"):
        listen(run / ("x" * MAX_SOCKET_PATH))


# --- the command's side


def test_no_agent_is_told_what_to_do(run: Path) -> None:
    with pytest.raises(AgentNotRunning, match="service mobility start"):
        request(run / "control.sock", "status")
    listen(run / "control.sock").close()
    with pytest.raises(AgentNotRunning, match="service mobility start"):
        request(run / "control.sock", "status")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "hung up"),
        (b'{"v": 1, "ok": true', "hung up"),
        (b"junk\n", "no JSON"),
        (b'{"v": 2, "ok": true}\n', "another version"),
        (b"[]\n", "another version"),
        (b'{"v": 1}\n', "without a reason"),
        (b'{"v": 1, "ok": 1}\n', "without a reason"),
    ],
)
def test_an_agent_that_answers_strangely_is_not_believed(run: Path, answer: bytes, words: str) -> None:
    async def body() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readline()
            writer.write(answer)
            writer.close()

        path = run / "control.sock"
        async with await asyncio.start_unix_server(serve, path):
            with pytest.raises(ControlError, match=words):
                await ask(path, "status")

    asyncio.run(body())


def test_an_agent_that_does_not_answer_is_not_waited_for(run: Path) -> None:
    with listen(run / "control.sock"), pytest.raises(ControlError, match=r"did not answer 'status' within 0\.1 s"):
        request(run / "control.sock", "status", answer_within=0.1)
