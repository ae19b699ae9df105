"""A client's view of reachability: a datagram every few milliseconds to each address, and the gaps in the answers.

Run as `probe.py ADDRESS...`; ends at end of file on standard input and prints one JSON object:
{ADDRESS: {"sent": N, "answered": N, "gap_ms": longest time without an answer}}.
"""

from __future__ import annotations

import json
import os
import select
import socket
import sys
import time

EVERY = 0.002
ECHO_PORT = 7
LAST_ANSWERS = 0.2
"""Seconds to wait for answers still under way at the end."""


def probe(addresses: list[str]) -> dict[str, dict[str, float]]:
    """Send to all addresses every EVERY seconds until standard input ends; return what came back."""
    sockets = {}
    for address in addresses:
        udp = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
        udp.setblocking(False)
        sockets[udp] = address
    sent = dict.fromkeys(addresses, 0)
    answered = dict.fromkeys(addresses, 0)
    last: dict[str, float] = {}
    gap = dict.fromkeys(addresses, 0.0)
    end, due = float("inf"), time.monotonic()
    stdin = sys.stdin.fileno()
    by_descriptor = {udp.fileno(): udp for udp in sockets}
    while time.monotonic() < end:
        wait = max(0.0, due - time.monotonic())
        ready, _, _ = select.select([*by_descriptor, *([stdin] if end == float("inf") else [])], [], [], wait)
        now = time.monotonic()
        for descriptor in ready:
            if descriptor == stdin:
                if not os.read(stdin, 64):
                    end = now + LAST_ANSWERS
                continue
            udp = by_descriptor[descriptor]
            address = sockets[udp]
            try:
                udp.recv(2048)
            except OSError:
                continue  # an ICMP error is no answer
            answered[address] += 1
            gap[address] = max(gap[address], now - last.get(address, now))
            last[address] = now
        if now >= due and end == float("inf"):
            due = now + EVERY
            for udp, address in sockets.items():
                try:
                    udp.sendto(b"probe", (address, ECHO_PORT))
                except OSError:
                    continue  # the error of an earlier datagram; this one was not sent
                sent[address] += 1
    return {a: {"sent": sent[a], "answered": answered[a], "gap_ms": round(gap[a] * 1000, 1)} for a in addresses}


if __name__ == "__main__":
    print(json.dumps(probe(sys.argv[1:])))
