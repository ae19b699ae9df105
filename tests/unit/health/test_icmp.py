"""Echoes: what goes out, what is believed of what comes in, and real ones over loopback."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobility.health import icmp
from mobility.health.icmp import RESEND, TOKEN, Conclusion, Echo, Pinger, checksum, parse, request

HOST, JAIL, OTHER = "192.0.2.1", "198.51.100.7", "198.51.100.8"
HOST6, JAIL6, OTHER6 = "2001:db8::1", "2001:db8:7::7", "2001:db8:7::8"
ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="raw sockets need root")
KEYS = st.integers(0, 2**32 - 1)
TOKENS = st.binary(min_size=TOKEN, max_size=TOKEN)
VERSIONS = st.sampled_from([4, 6])


def packed(address: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def ipv4(source: str, target: str, payload: bytes, options: bytes = b"") -> bytes:
    words = 5 + len(options) // 4
    head = struct.pack("!BBHHHBBH", 0x40 | words, 0, 20 + len(payload), 1, 0, 64, socket.IPPROTO_ICMP, 0)
    return head + packed(source) + packed(target) + options + payload


def ipv6(source: str, target: str, payload: bytes) -> bytes:
    head = struct.pack("!IHBB", 6 << 28, len(payload), socket.IPPROTO_ICMPV6, 1)
    return head + packed(source) + packed(target) + payload


def reply(version: int, key: int, token: bytes, *, sender: str = JAIL) -> bytes:
    """Return a packet as a raw socket gives it: with its header where it is IPv4."""
    asked = request(version, key, token)
    answer = bytes([0 if version == 4 else 129]) + asked[1:]
    return ipv4(sender, HOST, answer) if version == 4 else answer


def error(version: int, key: int, token: bytes, *, kind: int, code: int, target: str, quote: int = 1000) -> bytes:
    """Return an error about an echo; `quote` bytes of the echo are in it."""
    asked = request(version, key, token)[:quote]
    quoted = ipv4(HOST, target, asked) if version == 4 else ipv6(HOST6, target, asked)
    message = struct.pack("!BBHI", kind, code, 0, 0) + quoted
    return ipv4(OTHER, HOST, message) if version == 4 else message


# -- bytes


def test_the_checksum() -> None:
    # RFC 1071, section 3
    assert checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0xFFFF - 0xDDF2
    assert checksum(b"\x01") == 0xFEFF


@given(KEYS, TOKENS)
def test_a_request_is_right_on_the_wire(key: int, token: bytes) -> None:
    packet = request(4, key, token)
    assert checksum(packet) == 0, "a packet with its checksum in sums up to nothing"
    assert packet[:2] == b"\x08\0"
    assert request(6, key, token)[:4] == b"\x80\0\0\0", "the kernel fills in ICMPv6's checksum"
    assert packet[4:] == request(6, key, token)[4:]


@given(VERSIONS, KEYS, TOKENS)
def test_an_answer_is_known(version: int, key: int, token: bytes) -> None:
    message = parse(version, reply(version, key, token))
    assert message is not None
    assert (message.key, message.token, message.error) == (key, token, "")


@given(KEYS, TOKENS, st.sampled_from([0, 4, 40]))
def test_ipv4_options_are_passed_over(key: int, token: bytes, options: int) -> None:
    packet = ipv4(JAIL, HOST, b"\0" + request(4, key, token)[1:], b"\x01" * options)
    message = parse(4, packet)
    assert message is not None
    assert message.key == key


@given(VERSIONS, KEYS, TOKENS, st.sampled_from([8, 16, 24, 1000]))
def test_an_error_is_known_however_little_it_quotes(version: int, key: int, token: bytes, quote: int) -> None:
    target = JAIL if version == 4 else JAIL6
    packet = error(version, key, token, kind=3 if version == 4 else 1, code=1, target=target, quote=quote)
    message = parse(version, packet)
    assert message is not None
    assert (message.key, message.target) == (key, packed(target))
    assert token.startswith(message.token)
    assert message.error


@given(VERSIONS, st.binary(max_size=200))
def test_no_packet_makes_it_raise(version: int, packet: bytes) -> None:
    parse(version, packet)


@given(VERSIONS, KEYS, TOKENS, st.data())
def test_nor_does_a_cut_or_a_changed_one(version: int, key: int, token: bytes, data: st.DataObject) -> None:
    target = JAIL if version == 4 else JAIL6
    packet = bytearray(error(version, key, token, kind=3 if version == 4 else 1, code=1, target=target))
    position = data.draw(st.integers(0, len(packet) - 1))
    packet[position] = data.draw(st.integers(0, 255))
    parse(version, bytes(packet[: data.draw(st.integers(0, len(packet)))]))


# -- what is believed


class Sink:
    """A pinger whose packets go nowhere, and what it concluded."""

    def __init__(self, fails: Callable[[int], int] | None = None) -> None:
        self.pinger = Pinger()
        self.said: list[tuple[Conclusion, str]] = []
        self.sent = 0
        self._fails = fails or (lambda _: 0)
        self.pinger._socket = lambda version: self  # type: ignore[method-assign,assignment,return-value]

    def sendto(self, packet: bytes, to: tuple[str, int]) -> None:
        self.sent += 1
        if number := self._fails(self.sent):
            raise OSError(number, os.strerror(number))

    def ping(self, address: str = JAIL, timeout: float = 30.0) -> Echo:
        return self.pinger.ping(address, timeout, lambda conclusion, said: self.said.append((conclusion, said)))

    @property
    def conclusions(self) -> list[Conclusion]:
        return [conclusion for conclusion, _ in self.said]


def in_loop(body: Callable[[Sink], None], fails: Callable[[int], int] | None = None) -> Sink:
    async def main() -> Sink:
        sink = Sink(fails)
        body(sink)
        sink.pinger.close()
        return sink

    return asyncio.run(main())


@pytest.mark.parametrize(("version", "jail", "other"), [(4, JAIL, OTHER), (6, JAIL6, OTHER6)])
def test_an_answer_counts_by_sender_numbers_and_random_bytes(version: int, jail: str, other: str) -> None:
    def body(sink: Sink) -> None:
        echo = sink.ping(jail)
        take = sink.pinger._take
        take(version, reply(version, echo.key, echo.token), other)
        take(version, reply(version, echo.key, bytes(TOKEN)), jail)
        take(version, reply(version, echo.key, echo.token[:8]), jail)
        take(version, reply(version, echo.key ^ 1, echo.token), jail)
        assert not sink.said
        assert sink.pinger.strangers == 4
        take(version, reply(version, echo.key, echo.token), jail)
        take(version, reply(version, echo.key, echo.token), jail)
        assert sink.conclusions == [Conclusion.ANSWERED], "once"

    in_loop(body)


@pytest.mark.parametrize(("version", "jail", "other", "kinds"), [(4, JAIL, OTHER, (3, 11)), (6, JAIL6, OTHER6, (1, 3))])
def test_an_error_counts_by_what_it_quotes(version: int, jail: str, other: str, kinds: tuple[int, int]) -> None:
    def body(sink: Sink) -> None:
        take = sink.pinger._take
        for kind in kinds:
            echo = sink.ping(jail)
            take(version, error(version, echo.key, echo.token, kind=kind, code=0, target=other), HOST)
            take(version, error(version, echo.key, bytes(TOKEN), kind=kind, code=0, target=jail), HOST)
            take(version, error(version, echo.key ^ 1, echo.token, kind=kind, code=0, target=jail), HOST)
            assert not sink.said
            take(version, error(version, echo.key, echo.token, kind=kind, code=0, target=jail), HOST)
            ((conclusion, said),) = sink.said
            assert conclusion is Conclusion.UNREACHABLE
            assert HOST in said
            sink.said.clear()

    in_loop(body)


def test_an_error_of_the_jails_own_says_that_it_filters() -> None:
    def body(sink: Sink) -> None:
        echo = sink.ping()
        sink.pinger._take(4, error(4, echo.key, echo.token, kind=3, code=13, target=JAIL), JAIL)
        assert sink.said == [(Conclusion.SILENT, "silent: it refuses ICMP echoes: administratively prohibited")]

    in_loop(body)


@pytest.mark.parametrize("number", [errno.EHOSTUNREACH, errno.EHOSTDOWN, errno.ENETUNREACH, errno.ENETDOWN])
def test_the_hosts_own_no(number: int) -> None:
    sink = in_loop(lambda sink: assert_not_waiting(sink, sink.ping()), lambda _: number)
    assert sink.said == [(Conclusion.UNREACHABLE, f"unreachable: {os.strerror(number)}")]


@pytest.mark.parametrize("number", [errno.EPERM, errno.EACCES, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT])
def test_what_the_host_may_not_send_is_silence(number: int) -> None:
    sink = in_loop(lambda sink: assert_not_waiting(sink, sink.ping()), lambda _: number)
    assert sink.conclusions == [Conclusion.SILENT]
    assert os.strerror(number) in sink.said[0][1]


def assert_not_waiting(sink: Sink, echo: Echo) -> None:
    assert not sink.pinger._waiting
    assert echo.timer is None


def wait_for(sink: Sink, count: int, timeout: float, fails: Callable[[int], int] | None = None) -> Sink:
    async def main() -> Sink:
        one = Sink(fails)
        done = asyncio.Event()

        def concluded(conclusion: Conclusion, said: str) -> None:
            one.said.append((conclusion, said))
            if len(one.said) >= count:
                done.set()

        one.pinger.ping(JAIL, timeout, concluded)
        await done.wait()
        one.pinger.close()
        return one

    return asyncio.run(main())


def test_silence_after_three_tries() -> None:
    sink = wait_for(Sink(), 1, timeout=sum(RESEND) + 0.05)
    assert sink.conclusions == [Conclusion.SILENT]
    assert sink.sent == 1 + len(RESEND)


def test_a_buffer_that_is_full_is_tried_again_and_says_nothing_of_the_jail() -> None:
    again = wait_for(Sink(), 1, 0.1, lambda number: errno.ENOBUFS if number == 1 else 0)
    assert (again.conclusions, again.sent) == ([Conclusion.SILENT], 2)
    never = wait_for(Sink(), 1, 0.1, lambda _: errno.EAGAIN)
    assert never.conclusions == [Conclusion.UNKNOWN]


def test_an_error_after_the_silence_is_told_too(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        sink = Sink()
        silent = asyncio.Event()

        def concluded(conclusion: Conclusion, said: str) -> None:
            sink.said.append((conclusion, said))
            silent.set()

        echo = sink.pinger.ping(JAIL, 0.05, concluded)
        await silent.wait()
        sink.pinger._take(4, error(4, echo.key, echo.token, kind=3, code=1, target=JAIL), HOST)
        assert sink.conclusions == [Conclusion.SILENT, Conclusion.UNREACHABLE]
        assert_not_waiting(sink, echo)
        # and what nobody answers is forgotten in the end
        monkeypatch.setattr(icmp, "LINGER", 0.1)
        forgotten = asyncio.Event()
        forget = sink.pinger.forget

        def forgetting(echo: Echo) -> None:
            forget(echo)
            forgotten.set()

        monkeypatch.setattr(sink.pinger, "forget", forgetting)
        sink.pinger.ping(JAIL, 0.05, concluded)
        await forgotten.wait()
        assert not sink.pinger._waiting

    asyncio.run(main())


# -- for real


@ROOT
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_loopback_answers(address: str) -> None:
    async def main() -> None:
        pinger = Pinger()
        answers: asyncio.Queue[Conclusion] = asyncio.Queue()
        echoes = [
            pinger.ping(address, 5.0, lambda conclusion, said: answers.put_nowait(conclusion)) for _ in range(300)
        ]
        assert {await answers.get() for _ in echoes} == {Conclusion.ANSWERED}
        assert len(pinger._sockets) == 1, "one socket for all"
        pinger.close()
        assert not pinger._waiting

    asyncio.run(main())


@ROOT
def test_no_packet_gets_past_the_next_hop() -> None:
    four, six = icmp._open(4), icmp._open(6)
    assert four.getsockopt(socket.IPPROTO_IP, socket.IP_TTL) == 1
    assert six.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS) == 1
    for one in (four, six):
        assert not one.getblocking()
        one.close()


@ROOT
def test_the_filter_lets_only_answers_and_errors_through() -> None:
    """Echo requests to ::1 come by too: without the filter the socket would get those."""
    made = icmp._open(6)
    made.sendto(request(6, 1, bytes(TOKEN)), ("::1", 0, 0, 0))
    made.settimeout(5)
    kinds = [made.recv(2048)[0]]
    made.settimeout(0)
    with pytest.raises(BlockingIOError):
        kinds.append(made.recv(2048)[0])
    made.close()
    assert kinds == [129]


def test_a_socket_that_can_not_be_made_is_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(version: int) -> socket.socket:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(icmp, "_open", refuse)

    async def main() -> None:
        pinger = Pinger()
        said: list[Conclusion] = []
        pinger.ping(JAIL, 5.0, lambda conclusion, _: said.append(conclusion))
        assert said == [Conclusion.SILENT]
        pinger.close()

    asyncio.run(main())
