"""Whether the host reaches an address: ICMP echo (RFC 792, RFC 4443) from one raw socket a family, in this process.

What is sent: an echo request with a random identifier, sequence number and 16 random bytes, from the address that the
kernel takes for that destination, with a TTL or hop limit of 1. A jail is one hop away, so the packet arrives there and
nowhere else: should the host have no route to the jail any more, the first router drops it.

What comes back is other people's data. An answer counts when its sender is the address that was asked, and identifier,
sequence number and the random bytes are those of an echo under way; nobody but who got the echo knows them, so the root
of a jail can lie about the jail's own addresses and no others. An error counts when it quotes such an echo; some quote
eight bytes of it only (FreeBSD's net.inet.icmp.quotelen), which hold the 32 random bits of identifier and sequence.

The received IPv4 header is there on FreeBSD and Linux alike (ip(4), raw(7)). Only its length field ihl is read: ip_len
was in host order before FreeBSD 10. The kernel computes ICMPv6's checksum (RFC 3542, section 3.1).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

log = logging.getLogger(__name__)

TOKEN = 16
"""Random bytes in each echo."""
RESEND = (0.05, 0.15)
"""Seconds until an echo that is not answered is sent once more, and once again after that."""
LINGER = 4.0
"""Seconds for which an error may still come: a neighbour that does not answer is given up after three solicitations, a
second apart (RFC 4861, section 10: MAX_MULTICAST_SOLICIT, RETRANS_TIMER)."""
RECEIVE_BUFFERS = (1 << 20, 1 << 18, 1 << 16)
"""Bytes that are asked for, most first. FreeBSD gives 9216 (net.inet.raw.recvspace): room for some 30 answers. What is
lost in a full one is made up for by the next try."""
_BATCH = 64
"""Packets taken before the event loop gets to do something else."""

_FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
_ECHO_REPLY = {4: 0, 6: 129}
_ECHO_REQUEST = {4: 8, 6: 128}
# RFC 792; RFC 4443, section 3
_UNREACHABLE, _EXCEEDED = {4: 3, 6: 1}, {4: 11, 6: 3}
_SAYS = {
    (4, 0): "network unreachable",
    (4, 1): "host unreachable",
    (4, 9): "administratively prohibited",
    (4, 10): "administratively prohibited",
    (4, 13): "administratively prohibited",
    (6, 0): "no route",
    (6, 1): "administratively prohibited",
    (6, 3): "address unreachable",
    (6, 5): "source address refused by policy",
    (6, 6): "route rejected",
}
_HEADER = struct.Struct("!BBHHH")
_IPV6_HEADER = 40

_DARK = frozenset([errno.EHOSTUNREACH, errno.EHOSTDOWN, errno.ENETUNREACH, errno.ENETDOWN])
"""The host has no way to the address, or knows that nobody is there."""
_LATER = frozenset([errno.EAGAIN, errno.EWOULDBLOCK, errno.ENOBUFS, errno.ENOMEM, errno.EINTR])
"""The host is out of room for the moment: says nothing of the jail."""

# Type filters (RFC 3542, section 3.2): the option's number, and whether a set bit lets a type pass. FreeBSD:
# netinet6/in6.h ICMP6_FILTER, netinet/icmp6.h ICMP6_FILTER_SETPASS; Linux: linux/icmpv6.h ICMPV6_FILTER
_FILTERS = {"freebsd": (18, True), "linux": (1, False)}


class Conclusion(StrEnum):
    """What one check of an address says."""

    ANSWERED = "answered"
    UNREACHABLE = "unreachable"
    SILENT = "silent"
    UNKNOWN = "unknown"
    """Nothing could be sent."""


Concluded = Callable[[Conclusion, str], None]
"""Is told what an echo brought: once, or twice where an answer or an error came after the silence."""


def checksum(data: bytes) -> int:
    """Return the Internet checksum (RFC 1071)."""
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - total


def request(version: int, key: int, token: bytes) -> bytes:
    """Return an echo request; `key` is its identifier and sequence number."""
    bare = _HEADER.pack(_ECHO_REQUEST[version], 0, 0, key >> 16, key & 0xFFFF) + token
    if version == 6:
        return bare
    return _HEADER.pack(_ECHO_REQUEST[4], 0, checksum(bare), key >> 16, key & 0xFFFF) + token


@dataclass(frozen=True, slots=True)
class Message:
    """What a packet says of an echo: an answer, or an error (`error` in words) that quotes it.

    `token` is as much of the random bytes as is there; `target` is whom the quoted echo went to.
    """

    key: int
    token: bytes
    target: bytes = b""
    error: str = ""


def parse(version: int, packet: bytes) -> Message | None:
    """Return what a packet says of an echo of ours, or None where it is about something else. Never raises."""
    body = _payload(packet) if version == 4 else packet
    if len(body) < _HEADER.size:
        return None
    kind, code, _, identifier, sequence = _HEADER.unpack_from(body)
    if kind == _ECHO_REPLY[version]:
        return Message(identifier << 16 | sequence, body[_HEADER.size : _HEADER.size + TOKEN])
    if kind == _UNREACHABLE[version]:
        error = _SAYS.get((version, code), f"unreachable, code {code}")
    elif kind == _EXCEEDED[version]:
        error = "left the jail's link: the host has no route of its own to it"
    else:
        return None
    quoted = body[_HEADER.size :]
    if version == 4:
        target, echo, protocol = quoted[16:20], _payload(quoted), quoted[9:10]
    else:
        target, echo, protocol = quoted[24:40], quoted[_IPV6_HEADER:], quoted[6:7]
    ours = protocol[:1] == bytes([socket.IPPROTO_ICMP if version == 4 else socket.IPPROTO_ICMPV6])
    if not ours or len(echo) < _HEADER.size or echo[0] != _ECHO_REQUEST[version]:
        return None
    _, _, _, identifier, sequence = _HEADER.unpack_from(echo)
    return Message(identifier << 16 | sequence, echo[_HEADER.size : _HEADER.size + TOKEN], target, error)


def _payload(packet: bytes) -> bytes:
    """Return what follows an IPv4 header, b"" where there is none."""
    if len(packet) < 20 or packet[0] >> 4 != 4:
        return b""
    length = (packet[0] & 0x0F) * 4
    return packet[length:] if length >= 20 else b""


class Echo:
    """One echo under way."""

    __slots__ = (
        "address",
        "concluded",
        "due",
        "key",
        "over_at",
        "packed",
        "sent",
        "step",
        "timer",
        "token",
        "until",
        "version",
    )

    def __init__(self, address: str, concluded: Concluded) -> None:
        self.address = address
        self.version = 6 if ":" in address else 4
        self.packed = socket.inet_pton(_FAMILY[self.version], address)
        drawn = os.urandom(4 + TOKEN)
        self.key, self.token = int.from_bytes(drawn[:4]), drawn[4:]
        self.concluded = concluded
        self.timer: asyncio.TimerHandle | None = None
        self.step = 0
        self.sent = False
        self.due = 0.0
        self.until = 0.0
        self.over_at = 0.0


class Pinger:
    """Sends echoes and tells what came of them. On the event loop's thread only."""

    def __init__(self) -> None:
        self._sockets: dict[int, socket.socket] = {}
        self._broken: dict[int, str] = {}
        self._waiting: dict[tuple[int, int], Echo] = {}
        self.strangers = 0
        """Packets that spoke of no echo of ours."""

    def close(self) -> None:
        """Forget all echoes and give the sockets back."""
        for echo in list(self._waiting.values()):
            self.forget(echo)
        loop = asyncio.get_running_loop()
        for one in self._sockets.values():
            loop.remove_reader(one)
            one.close()
        self._sockets.clear()

    def ping(self, address: str, timeout: float, concluded: Concluded) -> Echo:
        """Send an echo now, and again while it is not answered; `timeout` seconds later the address is silent."""
        echo = Echo(address, concluded)
        while (echo.version, echo.key) in self._waiting:
            echo = Echo(address, concluded)
        now = asyncio.get_running_loop().time()
        echo.due, echo.until, echo.over_at = now, now + timeout, now + max(timeout, LINGER)
        self._waiting[echo.version, echo.key] = echo
        self._next(echo)
        return echo

    def forget(self, echo: Echo) -> None:
        """Take no more notice of an echo."""
        self._waiting.pop((echo.version, echo.key), None)
        if echo.timer is not None:
            echo.timer.cancel()
            echo.timer = None

    def _next(self, echo: Echo) -> None:
        """Do what is due for an echo: send it, once more, call it silent, or forget it."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        if late := max(0.0, now - echo.due):
            # while this loop was busy nothing could be read or sent: that time does not count as silence
            echo.until += late
            echo.over_at += late
        if now < echo.until:
            if echo.step <= len(RESEND) and not self._send(echo):
                return
            due = min(echo.until, now + RESEND[echo.step]) if echo.step < len(RESEND) else echo.until
            echo.step += 1
            echo.due = due
            echo.timer = loop.call_at(due, self._next, echo)
            return
        if now >= echo.over_at:
            self.forget(echo)
        else:
            echo.timer = loop.call_at(echo.over_at, self.forget, echo)
        if echo.sent:
            echo.concluded(Conclusion.SILENT, "silent: no answer to an ICMP echo")
        else:
            echo.concluded(Conclusion.UNKNOWN, "no echo could be sent: this host is short of buffers")

    def _send(self, echo: Echo) -> bool:
        """Send an echo; False where that alone is conclusion enough."""
        try:
            self._socket(echo.version).sendto(
                request(echo.version, echo.key, echo.token),
                (echo.address, 0) if echo.version == 4 else (echo.address, 0, 0, 0),
            )
        except OSError as error:
            if error.errno in _LATER:
                return True
            self.forget(echo)
            said = os.strerror(error.errno) if error.errno else str(error)
            if error.errno in _DARK:
                echo.concluded(Conclusion.UNREACHABLE, f"unreachable: {said}")
            else:
                # this host's own filter, or no source address, or no raw sockets: nothing was learned about the jail
                echo.concluded(Conclusion.SILENT, f"silent: this host can not send an ICMP echo: {said}")
            return False
        echo.sent = True
        return True

    def _socket(self, version: int) -> socket.socket:
        """Return the family's socket, made when it is first needed. Raises OSError."""
        if version in self._sockets:
            return self._sockets[version]
        try:
            made = _open(version)
        except OSError as error:
            if self._broken.get(version) != str(error):
                self._broken[version] = str(error)
                log.error(  # noqa: TRY400
                    "no raw socket: addresses count as silent", extra={"family": f"IPv{version}", "problem": str(error)}
                )
            raise
        self._broken.pop(version, None)
        self._sockets[version] = made
        asyncio.get_running_loop().add_reader(made, self._read, version, made)
        return made

    def _read(self, version: int, from_: socket.socket) -> None:
        for _ in range(_BATCH):
            try:
                packet, sender = from_.recvfrom(2048)
            except OSError:  # nothing more, or an error that belongs to some packet sent before
                return
            self._take(version, packet, sender[0])

    def _take(self, version: int, packet: bytes, sender: str) -> None:
        """Conclude from a packet, if it is about an echo of ours."""
        message = parse(version, packet)
        echo = self._waiting.get((version, message.key)) if message else None
        if message is None or echo is None:
            self.strangers += 1
            return
        from_target = _same(sender, echo.packed)
        if message.error:
            quoted_ours = message.target == echo.packed and echo.token.startswith(message.token)
            if not quoted_ours:
                self.strangers += 1
                return
            self.forget(echo)
            if from_target:
                # it got there, and the jail's own filter answers
                echo.concluded(Conclusion.SILENT, f"silent: it refuses ICMP echoes: {message.error}")
            else:
                echo.concluded(Conclusion.UNREACHABLE, f"unreachable: {sender} says: {message.error}")
        elif from_target and message.token == echo.token:
            self.forget(echo)
            echo.concluded(Conclusion.ANSWERED, "answered")
        else:
            self.strangers += 1


def _same(sender: str, packed: bytes) -> bool:
    try:
        return socket.inet_pton(_FAMILY[4 if len(packed) == 4 else 6], sender.partition("%")[0]) == packed
    except OSError:
        return False


def _open(version: int) -> socket.socket:
    """Return a raw ICMP socket that does not block and whose packets get no farther than the next hop."""
    if version == 4:
        made = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    else:
        made = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
    try:
        made.setblocking(False)
        if version == 4:
            made.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 1)
        else:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 1)
            _only(made, (_ECHO_REPLY[6], _UNREACHABLE[6], _EXCEEDED[6]))
        for size in RECEIVE_BUFFERS:
            try:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
            except OSError:  # more than kern.ipc.maxsockbuf allows
                continue
            break
    except BaseException:
        made.close()
        raise
    return made


def _only(made: socket.socket, types: tuple[int, ...]) -> None:
    """Have the kernel keep other ICMPv6 messages to itself: neighbour discovery of thousands of links, above all."""
    platform = next((name for name in _FILTERS if sys.platform.startswith(name)), None)
    if platform is None:
        return
    option, passes = _FILTERS[platform]
    words = [0 if passes else 0xFFFFFFFF] * 8
    for kind in types:
        words[kind >> 5] ^= 1 << (kind & 31)
    with contextlib.suppress(OSError):  # it saves work, and nothing depends on it
        made.setsockopt(socket.IPPROTO_ICMPV6, option, struct.pack("=8I", *words))
