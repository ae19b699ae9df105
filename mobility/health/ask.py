"""Asking a jail's service: TCP, HTTP and HTTPS from the host, a command in the jail. What answers is other people's.

Every question ends within its time, reads a bounded amount, and closes its socket at once. Like the echoes (icmp.py)
the packets have a TTL or hop limit of 1: should the jail's addresses be somewhere else by now, they are not asked there.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import os
import socket
import ssl
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import h11

from mobility.health.checks import HTTPS, TCP, Probe
from mobility.network.command import CommandError, run
from mobility.tables import shown

BODY_LIMIT = 64 * 1024
"""Bytes of a body in which `contains` is looked for."""
ANSWER_LIMIT = BODY_LIMIT + 32 * 1024
"""Bytes that are read of an answer at all, its head and all interim ones included."""
_HEAD_LIMIT = 16 * 1024
EXEC_OUTPUT_LIMIT = 64 * 1024
"""Bytes that a command in a jail may print."""
_CHUNK = 4096
_USUAL_PORT = {TCP: 0, "http": 80, HTTPS: 443}
_HOST_SHORT = frozenset([errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EAGAIN, errno.EADDRNOTAVAIL])
"""This host is out of descriptors, buffers, processes or ports: says nothing of the jail."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a question brought: good or not, None where nothing was learned; why, in words, and as a metric's label."""

    good: bool | None
    said: str
    why: str = ""

    @property
    def late(self) -> bool:
        """Whether its time was over before there was an answer."""
        return self.why == "timeout"


PASSED = Answer(good=True, said="passed")


async def over_network(probe: Probe) -> Answer:
    """Ask a TCP, HTTP or HTTPS service once."""
    try:
        async with asyncio.timeout(probe.timeout):
            return await _ask(probe)
    except TimeoutError:
        return Answer(good=False, said=f"no answer within {probe.timeout:g} s", why="timeout")
    except ssl.SSLCertVerificationError as error:
        return Answer(good=False, said=f"certificate: {shown(error.verify_message)}", why="tls")
    except ssl.SSLError as error:
        return Answer(good=False, said=f"TLS: {shown(error.reason or str(error))}", why="tls")
    except h11.RemoteProtocolError as error:
        return Answer(good=False, said=f"answers no HTTP: {shown(str(error))}", why="protocol")
    except OSError as error:
        said = os.strerror(error.errno) if error.errno else str(error)
        if error.errno in _HOST_SHORT:
            return Answer(good=None, said=f"this host can not ask: {said}", why="host")
        return Answer(good=False, said=said, why="refused" if error.errno == errno.ECONNREFUSED else "connection")


async def _ask(probe: Probe) -> Answer:
    loop = asyncio.get_running_loop()
    with _socket(probe.address) as connection:
        await loop.sock_connect(connection, (probe.address, probe.check.port))
        if probe.check.kind == TCP:
            return PASSED
        stream = _Tls(connection, probe) if probe.check.kind == HTTPS else _Stream(connection)
        await stream.begin()
        return await _http(probe, stream)


def _socket(address: str) -> socket.socket:
    version6 = ":" in address
    made = socket.socket(socket.AF_INET6 if version6 else socket.AF_INET, socket.SOCK_STREAM)
    try:
        made.setblocking(False)
        if version6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 1)
        else:
            made.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 1)
    except BaseException:
        made.close()
        raise
    return made


class _Stream:
    """A connected socket."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._loop = asyncio.get_running_loop()

    async def begin(self) -> None:
        """Do what comes before the first byte."""

    async def send(self, data: bytes) -> None:
        await self._loop.sock_sendall(self._connection, data)

    async def receive(self) -> bytes:
        """Return some bytes, b"" at the end."""
        return await self._loop.sock_recv(self._connection, _CHUNK)


class _Tls(_Stream):
    """TLS over a connected socket, without a transport: closing that would wait for the other side."""

    def __init__(self, connection: socket.socket, probe: Probe) -> None:
        super().__init__(connection)
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = _context(verify=probe.check.verify)
        self._tls = context.wrap_bio(self._in, self._out, server_hostname=probe.check.server_name or probe.address)

    async def begin(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._more()
            else:
                await self._flush()
                return

    async def send(self, data: bytes) -> None:
        self._tls.write(data)  # a MemoryBIO takes everything
        await self._flush()

    async def receive(self) -> bytes:
        while True:
            try:
                return self._tls.read(_CHUNK)
            except ssl.SSLWantReadError:
                await self._flush()
                await self._more()
            except ssl.SSLZeroReturnError:
                return b""

    async def _flush(self) -> None:
        if self._out.pending:
            await super().send(self._out.read())

    async def _more(self) -> None:
        data = await super().receive()
        if not data:
            raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
        self._in.write(data)


@functools.lru_cache
def _context(*, verify: bool) -> ssl.SSLContext:
    context = ssl.create_default_context()  # the certificates of the system that Python was built for
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def host_header(probe: Probe) -> str:
    """Return what the Host header says (RFC 9110, section 7.2)."""
    check = probe.check
    if check.host:
        return check.host
    name = f"[{probe.address}]" if ":" in probe.address else probe.address
    return name if check.port == _USUAL_PORT[check.kind] else f"{name}:{check.port}"


async def _http(probe: Probe, stream: _Stream) -> Answer:
    check = probe.check
    http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_HEAD_LIMIT)
    headers = [("Host", host_header(probe)), ("User-Agent", "mobility"), ("Accept", "*/*"), ("Connection", "close")]
    asked = http.send(h11.Request(method="GET", target=check.path, headers=headers))
    await stream.send((asked or b"") + (http.send(h11.EndOfMessage()) or b""))
    wanted, body, taken = check.contains.encode(), bytearray(), 0
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            data = await stream.receive()
            taken += len(data)
            if taken > ANSWER_LIMIT:
                return Answer(good=False, said=f"says more than {ANSWER_LIMIT} bytes", why="protocol")
            http.receive_data(data)
            await asyncio.sleep(0)  # sock_recv does not, while there is more: others have their turn
        elif isinstance(event, h11.Response):
            if event.status_code not in check.status:
                return Answer(good=False, said=f"answers with status {event.status_code}", why="status")
            if not wanted:
                return PASSED
        elif isinstance(event, h11.Data):
            seen = max(0, len(body) - len(wanted))
            body += event.data
            if body.find(wanted, seen, BODY_LIMIT) >= 0:
                return PASSED
            if len(body) >= BODY_LIMIT:
                where = f"the first {BODY_LIMIT} bytes do not contain"
                return Answer(good=False, said=f"{where} {shown(check.contains)!r}", why="content")
        elif isinstance(event, h11.InformationalResponse):
            continue
        elif isinstance(event, h11.EndOfMessage):
            return Answer(good=False, said=f"does not contain {shown(check.contains)!r}", why="content")
        else:
            return Answer(good=False, said="closed the connection without an answer", why="protocol")


async def in_jail(probe: Probe, jid: int, directories: Sequence[Path], pool: ThreadPoolExecutor) -> Answer:
    """Run a check's command in the jail once: exit status 0 is good.

    jexec(8) with -l, for the jail's own environment and not ours; by jid, for that names this jail and no later one.
    """
    argv = ["jexec", "-l", str(jid), *probe.check.command]
    ask = functools.partial(run, argv, directories, timeout=probe.timeout, limit=EXEC_OUTPUT_LIMIT)
    try:
        result = await asyncio.get_running_loop().run_in_executor(pool, ask)
    except CommandError as error:
        if "no answer within" in error.reason:
            return Answer(good=False, said=error.reason, why="timeout")
        if "said more than" in error.reason:
            return Answer(good=False, said=error.reason, why="output")
        return Answer(good=None, said=f"this host can not ask: {error.reason}", why="host")
    if result.status == 0:
        return PASSED
    words = shown(result.stderr or result.stdout)
    return Answer(good=False, said=f"exit status {result.status}{': ' if words else ''}{words}", why="status")
