"""Questions to real services on loopback: good ones, and those that hang, drip, flood, cut and lie."""

from __future__ import annotations

import asyncio
import atexit
import os
import resource
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from mobility.health import ask
from mobility.health.ask import Answer, host_header, in_jail, over_network
from mobility.health.checks import Check, Probe
from mobility.tables import shown
from tests.unit.health import servers
from tests.unit.health.servers import Behaviour, answering, descriptors, serving

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"


def probe(kind: str, port: int = 0, *, address: str = "127.0.0.1", timeout: float = 20.0, **more: Any) -> Probe:
    return Probe(Check(kind, port=port, **more), address, 10.0, timeout, 1, 3, silence_is_good=True)


def ask_one(
    behaviour: Behaviour,
    kind: str = "http",
    *,
    tls: ssl.SSLContext | None = None,
    address: str = "127.0.0.1",
    timeout: float = 20.0,
    **more: Any,
) -> Answer:
    async def body() -> Answer:
        async with serving(behaviour, address, tls) as port:
            open_before = descriptors()
            answer = await over_network(probe(kind, port, address=address, timeout=timeout, **more))
            await asyncio.sleep(0)
            # ours is closed; the server's end of it may be here yet, or gone already
            assert descriptors() <= open_before + 1
            return answer

    return asyncio.run(body())


def closed_port() -> int:
    """Return a port of loopback at which connections are refused: bound to the end, so that nobody else gets it."""
    held = held_socket()
    atexit.register(held.close)
    port: int = held.getsockname()[1]
    return port


def held_socket() -> socket.socket:
    """Return a socket with a port of loopback's, where nobody listens yet."""
    held = socket.socket()
    held.bind(("127.0.0.1", 0))
    return held


def test_tcp() -> None:
    assert ask_one(servers.hang, "tcp").good
    assert ask_one(servers.hang, "tcp", address="::1").good
    refused = asyncio.run(over_network(probe("tcp", closed_port())))
    assert refused == Answer(good=False, said="Connection refused", why="refused")


def test_tcp_that_is_never_taken() -> None:
    """A full backlog: the connection is not made, and the question ends all the same."""

    async def body() -> Answer:
        with socket.socket() as full:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            port = full.getsockname()[1]
            taken = []
            for _ in range(3):
                one = socket.socket()
                one.setblocking(False)
                one.connect_ex(("127.0.0.1", port))
                taken.append(one)
            answer = await over_network(probe("tcp", port, timeout=0.2))
            for one in taken:
                one.close()
            return answer

    answer = asyncio.run(body())
    assert not answer.good


def test_http_asks_what_it_was_told_to() -> None:
    requests: list[bytes] = []
    answer = ask_one(answering(OK, requests), path="/healthz?a=b", host="www.example.org")
    assert answer.good
    (request,) = requests
    lines = request.decode().split("\r\n")
    assert lines[0] == "GET /healthz?a=b HTTP/1.1"
    assert "Host: www.example.org" in lines
    assert "Connection: close" in lines


@pytest.mark.parametrize(
    ("kind", "address", "port", "expected"),
    [
        ("http", "198.51.100.7", 80, "198.51.100.7"),
        ("http", "198.51.100.7", 8080, "198.51.100.7:8080"),
        ("https", "198.51.100.7", 443, "198.51.100.7"),
        ("https", "2001:db8:7::7", 443, "[2001:db8:7::7]"),
        ("https", "2001:db8:7::7", 80, "[2001:db8:7::7]:80"),
    ],
)
def test_the_host_header(kind: str, address: str, port: int, expected: str) -> None:
    assert host_header(probe(kind, port, address=address)) == expected


@pytest.mark.parametrize("answer", [OK, CHUNKED, b"HTTP/1.0 200 OK\r\n\r\nhello", b"HTTP/1.1 103 Hints\r\n\r\n" + OK])
def test_http_status_and_content(answer: bytes) -> None:
    assert ask_one(answering(answer)).good
    assert ask_one(answering(answer), contains="ell").good
    assert ask_one(answering(answer), status=(200, 204)).good
    wrong = ask_one(answering(answer), status=(204,))
    assert (wrong.good, wrong.said, wrong.why) == (False, "answers with status 200", "status")
    missing = ask_one(answering(answer), contains="elo")
    assert (missing.good, missing.said, missing.why) == (False, "does not contain 'elo'", "content")


def test_content_across_pieces() -> None:
    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await servers.read_request(reader)
        for piece in (b"HTTP/1.1 200 OK\r\n\r\nxx", b"nee", b"d", b"le"):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.01)

    assert ask_one(behave, contains="needle").good


@pytest.mark.parametrize(
    ("behaviour", "why"),
    [
        (servers.hang, "timeout"),
        (servers.drip, "timeout"),
        (servers.flood_head, "protocol"),
        (servers.flood_interim, "protocol"),
        (servers.cut, "protocol"),
        (answering(b""), "protocol"),
        (answering(b"SSH-2.0-OpenSSH\r\n\r\n"), "protocol"),
        (answering(b"\x00\xff\x1b[2J\r\n\r\n"), "protocol"),
        (answering(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n"), "protocol"),
        (answering(b"HTTP/1.1 200 OK\r\nContent-Length: -4\r\n\r\n"), "protocol"),
        (answering(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), "protocol"),
    ],
)
def test_what_misbehaves_fails_and_ends(behaviour: Behaviour, why: str) -> None:
    answer = ask_one(behaviour, timeout=0.3 if why == "timeout" else 10.0, contains="hello")
    assert answer.good is False
    assert answer.why == why, answer
    assert answer.said.isprintable()
    assert len(answer.said) < 250
    assert answer.late is (why == "timeout")


def test_a_body_without_an_end_is_not_read_to_it() -> None:
    assert ask_one(servers.flood).good
    answer = ask_one(servers.flood, contains="hello")
    assert (answer.good, answer.why) == (False, "content")
    assert "first 65536 bytes" in answer.said


def test_https(tls: ssl.SSLContext, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    assert ask_one(answering(OK), "https", tls=tls, verify=False, contains="hello").good
    unknown = ask_one(answering(OK), "https", tls=tls)
    assert (unknown.good, unknown.why) == (False, "tls")
    assert unknown.said == "certificate: self-signed certificate"
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    ask._context.cache_clear()
    try:
        assert ask_one(answering(OK), "https", tls=tls).good
        assert ask_one(answering(OK), "https", tls=tls, server_name="web1.example").good
        other = ask_one(answering(OK), "https", tls=tls, server_name="web2.example")
        assert (other.good, other.why) == (False, "tls")
        assert "web2.example" in other.said
    finally:
        ask._context.cache_clear()


def test_https_that_misbehaves(tls: ssl.SSLContext) -> None:
    plain = ask_one(answering(OK), "https", verify=False, timeout=0.3)
    assert (plain.good, plain.why) in ((False, "tls"), (False, "timeout"))
    assert ask_one(servers.hang, "https", verify=False, timeout=0.3).late
    assert ask_one(servers.hang, "https", tls=tls, verify=False, timeout=0.3).late
    assert ask_one(servers.flood, "https", tls=tls, verify=False, contains="hello").why == "content"

    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pass

    assert ask_one(close, "https", verify=False).why in ("connection", "tls")


def test_short_of_descriptors_is_not_the_jails_fault() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def body() -> Answer:
        await asyncio.sleep(0)
        free = os.dup(0)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
        try:
            return await over_network(probe("tcp", 9))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    answer = asyncio.run(body())
    assert (answer.good, answer.why) == (None, "host")


# -- commands in a jail, by a jexec that enters none

JEXEC = """#!/bin/sh
[ "$1" = -l ] && [ "$2" = 7 ] || { echo "jexec: jail $2 not found" >&2; exit 1; }
shift 2
exec "$@"
"""


@pytest.fixture
def commands(tmp_path: Path) -> Path:
    (tmp_path / "jexec").write_text(JEXEC)
    (tmp_path / "jexec").chmod(0o755)
    return tmp_path


def command(folder: Path, *words: str, timeout: float = 20.0, jid: int = 7) -> Answer:
    directories = (folder, Path("/bin"), Path("/usr/bin"))

    async def body() -> Answer:
        with ThreadPoolExecutor(1) as pool:
            return await in_jail(probe("exec", timeout=timeout, command=words), jid, directories, pool)

    return asyncio.run(body())


def test_a_command_in_the_jail(commands: Path) -> None:
    assert command(commands, "/bin/sh", "-c", "exit 0").good
    failed = command(commands, "/bin/sh", "-c", "echo no database; exit 3")
    assert failed == Answer(good=False, said="exit status 3: no database", why="status")
    assert command(commands, "/bin/sh", "-c", "exit 0", jid=8).said == "exit status 1: jexec: jail 8 not found"
    assert command(commands, "/bin/sh", "-c", "cat").good, "its standard input is empty"


def test_a_command_that_misbehaves(commands: Path) -> None:
    assert command(commands, "/bin/sh", "-c", "sleep 60", timeout=0.2).late
    loud = command(commands, "/bin/sh", "-c", "while :; do echo yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy; done")
    assert (loud.good, loud.why) == (False, "output")
    ugly = command(commands, "/bin/sh", "-c", "printf 'a\\033[2J\\nb\\007%0500d' 1; exit 1")
    assert ugly.said.isprintable()
    assert len(ugly.said) < 250


def test_no_jexec_is_this_hosts_matter(tmp_path: Path) -> None:
    async def body() -> Answer:
        with ThreadPoolExecutor(1) as pool:
            return await in_jail(probe("exec", command=("/usr/bin/true",)), 7, (tmp_path,), pool)

    answer = asyncio.run(body())
    assert (answer.good, answer.why) == (None, "host")


def test_shown() -> None:
    assert shown("a\x1b[31m\nb\u202e c") == "a [31m b c"
    assert len(shown("x" * 10_000)) == 160
