"""Traffic through a gateway: a server's endless download and echo, and the clients that count what got lost.

    flow.py serve                  listen for both; prints `ready` once it does
    flow.py download ADDRESS PORT  read until end of file on standard input, or the connection's end; each line there asks
                                   for a `moved` as soon as anything more has come
    flow.py probe ADDRESS...       a numbered datagram every millisecond to each, until end of file on standard input

The last two print `going` once something has come back, and one JSON object at their end.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import socket
import struct
import sys
import threading
import time

DOWNLOAD_PORT, ECHO_PORT = 80, 7
EVERY = 0.001
"""Seconds between two datagrams to one address."""
CHUNK, CHUNK_EVERY = 1024, 0.005
LAST_ANSWERS = 0.5
"""Seconds to wait for answers still under way at the end."""
GREET_EVERY = 0.05
_NUMBER = struct.Struct("!Q")
_GREETING = 2**64 - 1


def _pattern(offset: int, size: int) -> bytes:
    """Return what a download has at an offset: each eight bytes are their own number."""
    first = offset // _NUMBER.size
    text = b"".join(_NUMBER.pack(number) for number in range(first, first + size // _NUMBER.size + 2))
    return text[offset % _NUMBER.size :][:size]


def _both_families(kind: int, port: int) -> socket.socket:
    found = socket.socket(socket.AF_INET6, kind)
    found.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    found.bind(("::", port))
    return found


def _send_forever(connection: socket.socket) -> None:
    offset = 0
    with connection:
        while True:
            try:
                connection.sendall(_pattern(offset, CHUNK))
            except OSError:
                return
            offset += CHUNK
            time.sleep(CHUNK_EVERY)  # the point of it: a download that lasts


def _accept(listening: socket.socket) -> None:
    while True:
        connection, _ = listening.accept()
        threading.Thread(target=_send_forever, args=(connection,), daemon=True).start()


def serve() -> None:
    """Serve both until killed."""
    listening, udp = _both_families(socket.SOCK_STREAM, DOWNLOAD_PORT), _both_families(socket.SOCK_DGRAM, ECHO_PORT)
    listening.listen()
    print("ready", flush=True)
    threading.Thread(target=_accept, args=(listening,), daemon=True).start()
    while True:
        data, sender = udp.recvfrom(2048)
        try:
            udp.sendto(data, sender)
        except OSError:
            continue  # there is no way back at the moment


def download(address: str, port: int) -> dict[str, object]:
    """Download; return how much came, whether all of it was right, the longest pause (ms), and how it ended."""
    with socket.create_connection((address, port), timeout=10) as tcp:
        return _read(tcp)


def _read(tcp: socket.socket) -> dict[str, object]:
    received, right, pause, ended, asked = 0, True, 0.0, "", False
    stdin = sys.stdin.fileno()
    last = time.monotonic()
    while not ended:
        ready = select.select([tcp, stdin], [], [])[0]
        if stdin in ready:
            if not os.read(stdin, 64):
                break
            asked = True
            continue
        try:
            data = tcp.recv(65536)
        except OSError as error:
            ended = errno.errorcode[error.errno] if error.errno else str(error)
            break
        now = time.monotonic()
        if not data:
            ended = "end of file"
            break
        if not received:
            print("going", flush=True)
        pause, last = max(pause, now - last), now
        right = right and data == _pattern(received, len(data))
        received += len(data)
        if asked:
            print("moved", flush=True)
            asked = False
    # what has not come by now is a pause too
    pause = max(pause, time.monotonic() - last)
    return {"bytes": received, "right": right, "pause_ms": round(1000 * pause, 1), "ended": ended}


class _Flow:
    """The datagrams to one address: those sent and not answered, by their numbers."""

    def __init__(self, address: str) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.udp = socket.socket(family, socket.SOCK_DGRAM)
        self.udp.setblocking(False)
        self.to = (address, ECHO_PORT)
        self.sent = 0
        self.greeted = False
        self.answered: set[int] = set()

    def send(self) -> None:
        """Send the next; one that the kernel refuses is as lost as any."""
        self._send(self.sent)
        self.sent += 1

    def greet(self) -> None:
        """Send one that is not counted: the first pay for neighbour discovery."""
        self._send(_GREETING)

    def _send(self, number: int) -> None:
        with contextlib.suppress(OSError):
            self.udp.sendto(_NUMBER.pack(number), self.to)

    def take(self) -> None:
        """Take the answers that are there."""
        while True:
            try:
                (number,) = _NUMBER.unpack(self.udp.recv(64))
            except BlockingIOError:
                return
            except OSError:
                continue  # an ICMP error is no answer
            self.greeted = True
            if number != _GREETING:
                self.answered.add(number)

    def result(self) -> dict[str, int]:
        """Return how many were sent, how many of them lost, and the longest run of lost ones."""
        longest = run = 0
        for number in range(self.sent):
            run = 0 if number in self.answered else run + 1
            longest = max(longest, run)
        return {"sent": self.sent, "lost": self.sent - len(self.answered), "longest": longest}


def probe(addresses: list[str]) -> dict[str, dict[str, int]]:
    """Send until standard input ends; return each address's result."""
    flows = {address: _Flow(address) for address in addresses}
    sockets = {flow.udp: flow for flow in flows.values()}
    stdin = sys.stdin.fileno()
    due, end, going = time.monotonic(), float("inf"), False
    while time.monotonic() < end:
        wait = max(0.0, due - time.monotonic()) if end == float("inf") else max(0.0, end - time.monotonic())
        ready = select.select([*sockets, *([stdin] if end == float("inf") else [])], [], [], wait)[0]
        for each in ready:
            if isinstance(each, socket.socket):
                sockets[each].take()
            elif not os.read(stdin, 64):
                end = time.monotonic() + LAST_ANSWERS
        if not going and all(flow.greeted for flow in flows.values()):
            going, due = True, time.monotonic()
            print("going", flush=True)
        while end == float("inf") and time.monotonic() >= due:
            due += EVERY if going else GREET_EVERY
            for flow in flows.values():
                if going:
                    flow.send()
                else:
                    flow.greet()
    return {address: flow.result() for address, flow in flows.items()}


def main(arguments: list[str]) -> None:
    """Do what the first argument says."""
    what, *others = arguments
    if what == "serve":
        serve()
    result = download(others[0], int(others[1])) if what == "download" else probe(others)
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
