"""ping(8) of FreeBSD 13.2, the part that sends packets: run by the lab's `ping`, with its order as JSON in argv[1].

FreeBSD's own words and status: sbin/ping/{main,ping,ping6}.c; freebsd-13.2/8-reference.txt, 3-routes.txt and
4-neighbours.txt. Started for every ping, so it imports little.
"""

from __future__ import annotations

import json
import math
import os
import select
import socket
import struct
import sys
import time

ICMP_ECHO, ICMP_ECHOREPLY, ICMP_UNREACH, ICMP_TIMXCEED = 8, 0, 3, 11
ICMP6_ECHO_REQUEST, ICMP6_ECHO_REPLY = 128, 129
IP_MTU_DISCOVER = 10  # linux/in.h; without it Linux sets "don't fragment"
MAXWAIT = 10.0  # how long the last reply is waited for
IP_HEADER, ICMP_HEADER = 20, 8
QUOTED_MOST = 92  # FreeBSD quotes less of the packet that an ICMP error is about than Linux; what it says is this long
EX_NO_REPLY = 2
_UNREACHABLE = {
    0: "Destination Net Unreachable",
    1: "Destination Host Unreachable",
    2: "Destination Protocol Unreachable",
    3: "Destination Port Unreachable",
    9: "Destination Net Unreachable",
    10: "Destination Host Unreachable",
    13: "Communication prohibited by filter",
}
_EXCEEDED = {0: "Time to live exceeded", 1: "Frag reassembly time exceeded"}


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


class Ping:
    """One run of ping(8)."""

    def __init__(self, order: dict[str, object]) -> None:
        self.six = bool(order["six"])
        self.target = str(order["target"])
        self.shown = str(order["shown"])
        self.scope = int(str(order["scope"]))
        self.count = int(str(order["count"]))
        self.interval = float(str(order["interval"]))
        self.timeout = float(str(order["timeout"]))
        self.wait = float(str(order["wait"]))
        self.size = int(str(order["size"]))
        self.quiet = bool(order["quiet"])
        self.once = bool(order["once"])
        self.verbose = bool(order["verbose"])
        self.refusal = str(order["refusal"])
        self.scopes = {int(link): str(name) for link, name in dict(order["names"]).items()}  # type: ignore[call-overload]
        self.identifier = os.getpid() & 0xFFFF
        self.sent = 0
        self.times: list[float] = []
        self.seen: set[int] = set()
        family, protocol = (
            (socket.AF_INET6, socket.IPPROTO_ICMPV6) if self.six else (socket.AF_INET, socket.IPPROTO_ICMP)
        )
        self.socket = socket.socket(family, socket.SOCK_RAW, protocol)
        if self.six:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
            if order["ttl"]:
                self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, int(str(order["ttl"])))
        else:
            self.socket.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, 0)
            if order["ttl"]:
                self.socket.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, int(str(order["ttl"])))
        if order["source"]:
            self.socket.bind((str(order["source"]), 0))

    def run(self) -> int:
        """Send, receive, report; answer the exit status."""
        if self.six:
            print(
                f"PING6(56=40+8+{self.size} bytes) {self.source()} --> {self.shown}".replace(
                    "(56=", f"({48 + self.size}="
                )
            )
        else:
            print(f"PING {self.shown} ({self.shown}): {self.size} data bytes")
        begin = time.monotonic()
        deadline = begin + self.timeout if self.timeout else math.inf
        next_send = begin
        last = math.inf
        while True:
            now = time.monotonic()
            if now >= deadline or now >= last:
                break
            if now >= next_send and (not self.count or self.sent < self.count):
                self.send()
                next_send += self.interval
                if self.count and self.sent >= self.count:
                    last = now + (self.wait or MAXWAIT)
            limit = min(deadline, last, next_send if not self.count or self.sent < self.count else math.inf)
            ready, _, _ = select.select([self.socket], [], [], max(0.0, limit - time.monotonic()))
            if ready:
                self.receive()
            if self.times and (self.once or (self.count and len(self.times) >= self.count)):
                break
        self.report()
        return 0 if self.times else EX_NO_REPLY

    def source(self) -> str:
        """The address that packets to the target are sent from."""
        bound = self.socket.getsockname()[0]
        if bound != "::":
            return str(bound)
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect((self.target, 1, 0, self.scope))
            except OSError:
                return "::"
            address, _port, _flow, scope = probe.getsockname()
        address = address.partition("%")[0]
        return f"{address}%{self.scopes.get(scope, scope)}" if scope else address

    def send(self) -> None:
        """Send one echo request, and say why if that fails."""
        payload = struct.pack("!d", time.monotonic()).ljust(self.size, b"\0")[: self.size]
        kind = ICMP6_ECHO_REQUEST if self.six else ICMP_ECHO
        packet = struct.pack("!BBHHH", kind, 0, 0, self.identifier, self.sent & 0xFFFF) + payload
        self.started = getattr(self, "started", {})
        self.started[self.sent & 0xFFFF] = time.monotonic()
        reason = self.refusal
        if not reason:
            try:
                if self.six:
                    self.socket.sendto(packet, (self.target, 0, 0, self.scope))
                else:
                    packet = packet[:2] + struct.pack("!H", checksum(packet)) + packet[4:]
                    self.socket.sendto(packet, (self.target, 0))
            except OSError as error:
                reason = os.strerror(error.errno or 0)
                reason = {"Cannot assign requested address": "Can't assign requested address"}.get(reason, reason)
        self.sent += 1
        if reason:
            print(f"ping: {'sendmsg' if self.six else 'sendto'}: {reason}", file=sys.stderr)
            if self.six:
                print(f"ping6: wrote {self.shown} {ICMP_HEADER + self.size} chars, ret=-1")

    def receive(self) -> None:
        """Take one packet and print it if it is ours."""
        data, ancillary, _flags, address = self.socket.recvmsg(65536, 256)
        now = time.monotonic()
        if self.six:
            self.receive6(data, ancillary, address, now)
            return
        header = (data[0] & 15) * 4
        icmp = data[header:]
        kind, code, _sum, identifier, sequence = struct.unpack_from("!BBHHH", icmp)
        if kind == ICMP_ECHOREPLY and identifier == self.identifier:
            self.reply(f"{len(icmp)} bytes from {address[0]}: icmp_seq={sequence} ttl={data[8]} time=", sequence, now)
        elif kind in (ICMP_UNREACH, ICMP_TIMXCEED):
            quoted = icmp[ICMP_HEADER:]
            inner = quoted[(quoted[0] & 15) * 4 :] if quoted else b""
            if len(inner) < ICMP_HEADER or struct.unpack_from("!H", inner, 4)[0] != self.identifier:
                return
            words = _UNREACHABLE if kind == ICMP_UNREACH else _EXCEEDED
            print(f"{min(len(data), QUOTED_MOST)} bytes from {address[0]}: {words.get(code, f'code {code}')}")
            print_header(quoted)

    def receive6(
        self, data: bytes, ancillary: list[tuple[int, int, bytes]], address: tuple[object, ...], now: float
    ) -> None:
        """One ICMPv6 packet; errors are shown with -v only, as ping6 does."""
        kind, _code, _sum, identifier, sequence = struct.unpack_from("!BBHHH", data)
        if kind != ICMP6_ECHO_REPLY or identifier != self.identifier:
            return
        limit = next((struct.unpack("=i", value)[0] for _level, _kind, value in ancillary if len(value) == 4), 0)
        host = str(address[0]).partition("%")[0]
        if address[3]:
            host += f"%{self.scopes.get(int(str(address[3])), address[3])}"
        self.reply(f"{len(data)} bytes from {host}, icmp_seq={sequence} hlim={limit} time=", sequence, now)

    def reply(self, text: str, sequence: int, now: float) -> None:
        """An answer to one of ours."""
        took = (now - self.started.get(sequence, now)) * 1000
        if sequence in self.seen:
            if not self.quiet:
                print(f"{text}{took:.3f} ms{'(DUP!)' if self.six else ' (DUP!)'}")
            return
        self.seen.add(sequence)
        self.times.append(took)
        if not self.quiet:
            print(f"{text}{took:.3f} ms")

    def report(self) -> None:
        """The last lines."""
        received = len(self.times)
        lost = (self.sent - received) * 100.0 / self.sent if self.sent else 0.0
        print(f"\n--- {self.shown} {'ping6' if self.six else 'ping'} statistics ---")
        print(f"{self.sent} packets transmitted, {received} packets received, {lost:.1f}% packet loss")
        if self.times:
            average = sum(self.times) / received
            deviation = math.sqrt(max(0.0, sum(each * each for each in self.times) / received - average * average))
            label = "std-dev" if self.six else "stddev"
            print(
                f"round-trip min/avg/max/{label} = "
                f"{min(self.times):.3f}/{average:.3f}/{max(self.times):.3f}/{deviation:.3f} ms"
            )


def print_header(quoted: bytes) -> None:
    """The IP header of the packet that an error is about (pr_iph())."""
    first, service, length, identifier, fragment, ttl, protocol, total = struct.unpack_from("!BBHHHBBH", quoted)
    source, target = socket.inet_ntoa(quoted[12:16]), socket.inet_ntoa(quoted[16:20])
    print("Vr HL TOS  Len   ID Flg  off TTL Pro  cks      Src      Dst")
    print(
        f" {first >> 4:x}  {first & 15:x}  {service:02x} {length:04x} {identifier:04x}"
        f"   {fragment >> 13:x} {fragment & 0x1FFF:04x}  {ttl:02x}  {protocol:02x} {total:04x} {source}  {target} \n"
    )


if __name__ == "__main__":
    try:
        sys.exit(Ping(json.loads(sys.argv[1])).run())
    except KeyboardInterrupt:
        sys.exit(130)
    except PermissionError as error:
        print(f"ping: ssend socket: {os.strerror(error.errno or 1)}", file=sys.stderr)
        sys.exit(71)
    except OSError as error:
        print(f"ping: bind: {os.strerror(error.errno or 0)}", file=sys.stderr)
        sys.exit(71)
