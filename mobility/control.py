"""The control socket: how the `mobility` command talks to the running agent.

One request a connection, one line of JSON each way: {"v": 1, "op": "status", ...} is answered by
{"v": 1, "ok": true, ...} or {"v": 1, "ok": false, "error": "..."}. Who calls is the kernel's word, not the
file's mode alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import socket
import stat
import struct
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

VERSION = 1
MAX_REQUEST = 64 * 1024
"""Bytes of one request."""
MAX_ANSWER = 64 * 1024 * 1024
"""Bytes of one answer that the client takes: the status of 5,000 jails is some 2 MB."""
MAX_CLIENTS = 16
READ_TIMEOUT = 5.0
"""Seconds a client has for sending its request, and again for taking each part of the answer."""
ANSWER_TIMEOUT = 660.0
"""Seconds an operation may take: a drain may last 600 s (config: agent.drain_for)."""
MAX_SOCKET_PATH = 103
"""Bytes of a socket's path: `sun_path` has 104 on FreeBSD (sys/un.h), a NUL included."""

Request = dict[str, Any]
Handler = Callable[[Request], Awaitable[dict[str, Any]]]


class ControlError(Exception):
    """The agent could not be asked, or said no; the message says what to do."""


class AgentNotRunning(ControlError):  # reads as the fact it is
    """Nobody listens on the control socket."""


class HungUp(ControlError):
    """The agent ended the conversation before its answer was whole: it was stopped, mostly."""


class AlreadyRunning(ControlError):
    """Another agent holds this host."""


# --- who is there


def peer_uid(connection: socket.socket) -> int:
    """Return the effective user id of the process that connected this Unix socket, as the kernel saw it.

    FreeBSD: LOCAL_PEERCRED at level SOL_LOCAL (unix(4)) gives `struct xucred` (sys/ucred.h), that begins
    with u_int cr_version, uid_t cr_uid. Linux: SO_PEERCRED gives `struct ucred` (unix(7)): pid, uid, gid.
    Raises PermissionError where the kernel does not say: then nobody may be trusted.
    """
    if connection.family != socket.AF_UNIX:  # FreeBSD would take the question for one about IP options
        raise PermissionError("who is at the other end is known of Unix sockets only")
    try:
        if sys.platform.startswith("freebsd"):
            return _xucred_uid(connection.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, _XUCRED_ROOM))
        if sys.platform == "linux":
            return _ucred_uid(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    except (OSError, struct.error) as error:
        raise PermissionError(f"the kernel does not say who is at the socket's other end: {error}") from error
    raise PermissionError(f"{sys.platform}: no way is known here to ask who is at a socket's other end")


_SOL_LOCAL = 0  # sys/un.h
_LOCAL_PEERCRED = 1  # sys/un.h
_XUCRED_ROOM = 256  # struct xucred has 88 bytes on amd64; it may grow
_XUCRED_VERSION = 0  # sys/ucred.h
_XUCRED = struct.Struct("@II")
_NOBODY_THERE = 2**32 - 1  # Linux's answer for a socket without a peer is (uid_t) -1
_UCRED = struct.Struct("@iII")


def _xucred_uid(data: bytes) -> int:
    version, uid = _XUCRED.unpack_from(data)
    if version != _XUCRED_VERSION:
        raise PermissionError(f"struct xucred has version {version} here, only {_XUCRED_VERSION} is known")
    return int(uid)


def _ucred_uid(data: bytes) -> int:
    _, uid, _ = _UCRED.unpack(data)
    if uid == _NOBODY_THERE:
        raise PermissionError("the socket is not connected")
    return int(uid)


# --- one agent a host


class AgentLock:
    """RUN/agent.pid, locked while the agent lives: the kernel drops the lock however the agent dies."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    @property
    def held(self) -> bool:
        """Tell whether we have it."""
        return self._descriptor is not None

    def acquire(self) -> None:
        """Take the lock and write our pid.

        Raises AlreadyRunning when another agent has it, OSError when the file can not be written.
        """
        # never removed: a second agent could lock a file that a third one no longer sees
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        os.fchmod(descriptor, 0o600)  # whoever can read it could hold the lock, and us out
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            pid = os.read(descriptor, 32).decode("ascii", "replace").strip() or "unknown"
            os.close(descriptor)
            raise AlreadyRunning(
                f"another agent runs on this host (pid {pid}, {self._path}): service mobility restart"
            ) from error
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode("ascii"))
        self._descriptor = descriptor

    def release(self) -> None:
        """Give the lock back and leave an empty file."""
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = None


# --- the agent's side


def listen(path: Path, mode: int = 0o600) -> socket.socket:
    """Return a listening Unix socket at `path`, in place of the one that an agent before us left there.

    Call it with the AgentLock held: it displaces whoever listens there. The mode is set before anybody can
    connect. Raises ControlError when the path is too long or no socket is in the way, OSError otherwise.
    """
    if len(os.fsencode(path)) > MAX_SOCKET_PATH:
        raise ControlError(f"{path} is too long for a socket ({MAX_SOCKET_PATH} bytes): shorten paths.run")
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise ControlError(f"{path} is in the way and is no socket: move it away")
        path.unlink()
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        server.bind(str(path))
        path.chmod(mode)
        server.listen(MAX_CLIENTS)
        server.setblocking(False)
    except BaseException:
        server.close()
        raise
    return server


AT_ONCE = 200
"""Elements of a list that are encoded in one turn of the loop: jails in two milliseconds; 10,000 at once take 0.1 s."""
TAKEN_WITHIN = 30.0
"""Seconds in which an answer has to be read: at 10,000 jails it is megabytes, and the loop is busy."""


class ControlServer:
    """Answers requests on the control socket, RUN/control.sock, for the one agent that holds RUN/agent.pid.

    `handlers` maps each `op` to what answers it: given the whole request, it returns the answer's fields. A
    handler says no by raising ControlError or ValueError; its text is the caller's error message. Only `uids`
    may ask: root and whoever runs the agent. Timeouts are in seconds.
    """

    def __init__(
        self,
        run: Path,
        handlers: Mapping[str, Handler],
        *,
        uids: frozenset[int] | None = None,
        read_timeout: float = READ_TIMEOUT,
        answer_timeout: float = ANSWER_TIMEOUT,
        taken_within: float = TAKEN_WITHIN,
        max_clients: int = MAX_CLIENTS,
    ) -> None:
        self._path = run / "control.sock"
        self._lock = AgentLock(run / "agent.pid")
        self._handlers = handlers
        self._uids = frozenset({0, os.geteuid()}) if uids is None else uids
        self._read_timeout = read_timeout
        self._answer_timeout = answer_timeout
        self._taken_within = taken_within
        self._max_clients = max_clients
        self._clients: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    def claim(self) -> None:
        """Become this host's only agent; to be called before anything of another agent's could be displaced.

        Raises AlreadyRunning. `start` does it too, `close` gives it up.
        """
        if not self._lock.held:
            self._lock.acquire()

    async def start(self) -> None:
        """Begin to listen.

        Raises AlreadyRunning when another agent runs here, ControlError or OSError as `listen` does.
        """
        self.claim()
        self._server = await asyncio.start_unix_server(self._accept, sock=listen(self._path), limit=MAX_REQUEST)

    async def close(self) -> None:
        """Stop listening, end every conversation and remove the socket."""
        if self._server is not None:
            self._server.close()
            for task in self._clients:
                task.cancel()
            await asyncio.gather(*self._clients, return_exceptions=True)
            self._path.unlink(missing_ok=True)
            self._server = None
        self._lock.release()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  # asyncio runs this callback as a task
        self._clients.add(task)
        try:
            answer = await self._converse(reader, writer.get_extra_info("socket"))
            if answer is not None:
                # so that drain waits for the last byte, not for all but the last 64 KiB
                writer.transport.set_write_buffer_limits(high=0)
                writer.write(await _encoded({"v": VERSION, **answer}))
                async with asyncio.timeout(self._taken_within):
                    await writer.drain()
                    writer.write_eof()
        except (OSError, TimeoutError) as error:
            log.info("a client went away", extra={"problem": str(error) or "too slow"})
        except asyncio.CancelledError:
            pass  # `close` ends it; asyncio of Python 3.11 logs a callback that was cancelled as an error
        finally:
            self._clients.discard(task)
            # what a client does not take is not kept for it
            if writer.transport.get_write_buffer_size():
                writer.transport.abort()
            else:
                writer.close()

    async def _converse(self, reader: asyncio.StreamReader, connection: socket.socket) -> dict[str, Any] | None:
        """Hear one client out; returns the answer, None for somebody who came and said nothing."""
        uid = peer_uid(connection)
        if uid not in self._uids:
            log.warning("a user was refused at the control socket", extra={"uid": uid})
            return _no("only root may talk to the agent: run this as root")
        if len(self._clients) > self._max_clients:
            return _no(f"the agent already has {self._max_clients} clients: try again")
        try:
            async with asyncio.timeout(self._read_timeout):
                line = await reader.readuntil(b"\n")
        except asyncio.IncompleteReadError as error:
            return _no("the request has no end") if error.partial else None
        except asyncio.LimitOverrunError:
            return _no(f"the request is longer than {MAX_REQUEST} bytes")
        except TimeoutError:
            return _no(f"no request within {self._read_timeout:g} s")
        try:
            request = json.loads(line)
        except (ValueError, RecursionError):
            return _no("the request is no JSON")
        if not isinstance(request, dict) or request.get("v") != VERSION:
            return _no(f"the request is none of version {VERSION}: use the agent's own `mobility` command")
        handler = self._handlers.get(str(request.get("op")))
        if handler is None:
            return _no(f"no operation {str(request.get('op'))[:64]!r}; known: {', '.join(sorted(self._handlers))}")
        return await self._run(handler, request)

    async def _run(self, handler: Handler, request: Request) -> dict[str, Any]:
        try:
            async with asyncio.timeout(self._answer_timeout):
                return {"ok": True, **await handler(request)}
        except (ControlError, ValueError) as error:
            log.info("a request was refused", extra={"request": request["op"], "problem": str(error)})
            return _no(str(error))
        except TimeoutError:
            return _no(f"{request['op']} took longer than {self._answer_timeout:g} s and was given up")
        except Exception as error:  # one request's bug must not end the agent: it is logged, and told
            log.exception("a request failed", extra={"request": request["op"]})
            return _no(f"{request['op']} failed in the agent ({type(error).__name__}: {error}): see its log")


async def _encoded(answer: Mapping[str, Any]) -> bytes:
    """Return an answer as it is sent: long lists in pieces, with turns for hooks and ExaBGP between them."""
    fields = []
    for key, value in answer.items():
        several = isinstance(value, list)
        pieces = [value[at : at + AT_ONCE] for at in range(0, len(value), AT_ONCE)] if several else []
        texts = []
        for piece in pieces:
            texts.append(json.dumps(piece)[1:-1])
            if len(pieces) > 1:
                await asyncio.sleep(0)
        fields.append(f"{json.dumps(key)}: " + (f"[{', '.join(texts)}]" if several else json.dumps(value)))
    return f"{{{', '.join(fields)}}}\n".encode()


def _no(error: str) -> dict[str, Any]:
    return {"ok": False, "error": error}


# --- the command's side

_HUNG_UP = "the agent at {} hung up before its answer was whole: see its log"


def request(
    path: Path,
    op: str,
    /,
    *,
    answer_within: float = 30.0,
    asked: Callable[[socket.socket], None] = lambda _: None,
    **args: Any,
) -> dict[str, Any]:
    """Ask the agent at the control socket `path` and return its answer's fields.

    `answer_within` is in seconds. `asked` is called once the question is out: it may wait for the answer to begin, and give
    up by raising. Raises AgentNotRunning when nobody listens, HungUp when the agent ends meanwhile, ControlError with
    the agent's own words when it says no, or with advice when it can not be asked or does not answer.
    """
    line = json.dumps({**args, "v": VERSION, "op": op}).encode("utf-8") + b"\n"
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(answer_within)
            connection.connect(str(path))
            with contextlib.suppress(BrokenPipeError):  # it was refused unread: the answer says why
                connection.sendall(line)
            asked(connection)
            answer = _read_answer(connection)
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise AgentNotRunning(
            f"the agent is not running (nobody listens at {path}): service mobility start; then see its log"
        ) from error
    except PermissionError as error:
        raise ControlError(f"{path}: {error.strerror}: run this as root") from error
    except TimeoutError as error:
        raise ControlError(
            f"the agent did not answer {op!r} within {answer_within:g} s: see its log; if it hangs: service mobility "
            "restart, of which routes and sessions hear nothing"
        ) from error
    except ConnectionResetError as error:
        raise HungUp(_HUNG_UP.format(path)) from error
    except OSError as error:
        raise ControlError(f"the agent could not be asked at {path}: {error}") from error
    return _judge(answer, path)


def _read_answer(connection: socket.socket) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while chunk := connection.recv(65536):
        chunks.append(chunk)
        size += len(chunk)
        if chunk.endswith(b"\n") or size > MAX_ANSWER:
            break
    return b"".join(chunks)


def _judge(answer: bytes, path: Path) -> dict[str, Any]:
    if not answer.endswith(b"\n"):
        raise HungUp(_HUNG_UP.format(path))
    try:
        fields = json.loads(answer)
    except ValueError as error:
        raise ControlError(f"{path} answers no JSON: is it the agent's socket?") from error
    if not isinstance(fields, dict) or fields.get("v") != VERSION:
        raise ControlError(f"the agent at {path} speaks another version: service mobility restart")
    if fields.get("ok") is not True:
        raise ControlError(str(fields.get("error", "the agent said no without a reason")))
    return {key: value for key, value in fields.items() if key not in ("v", "ok")}
