"""traceroute(8) and traceroute6(8) of FreeBSD 13.2: run by the lab's commands of these names, order as JSON in argv[1].

Source: contrib/traceroute/traceroute.c, usr.sbin/traceroute6/traceroute6.c; freebsd-13.2/9-fabric.txt.
"""

from __future__ import annotations

import json
import select
import socket
import struct
import sys
import time

FIRST_PORT = 33434
PAYLOAD: dict[int, int] = {socket.AF_INET: 12, socket.AF_INET6: 20}
IP_HEADER = 20
TIME_EXCEEDED: dict[int, int] = {socket.AF_INET: 11, socket.AF_INET6: 3}
UNREACHABLE: dict[int, int] = {socket.AF_INET: 3, socket.AF_INET6: 1}
#: What follows a time when the answer is a refusal: ICMP code to mark (port unreachable is the end, without a mark).
MARKS: dict[int, dict[int, str]] = {
    socket.AF_INET: {0: " !N", 1: " !H", 2: " !P", 13: " !X"},
    socket.AF_INET6: {0: " !N", 1: " !P", 3: " !A", 6: " !R"},
}
PORT_UNREACHABLE: dict[int, int] = {socket.AF_INET: 3, socket.AF_INET6: 4}


def main(order: dict[str, object]) -> int:
    """Send the probes hop by hop and print who answers; 0."""
    six, target = bool(order["six"]), str(order["target"])
    family = socket.AF_INET6 if six else socket.AF_INET
    icmp = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_ICMPV6 if six else socket.IPPROTO_ICMP)
    most, queries, wait = int(str(order["hops"])), int(str(order["queries"])), float(str(order["wait"]))
    if six:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((target, FIRST_PORT))
            source = probe.getsockname()[0]
        head = f"traceroute6 to {target} ({target}) from {source}, {most} hops max, {8 + PAYLOAD[family]} byte packets"
    else:
        head = f"traceroute to {target} ({target}), {most} hops max, {IP_HEADER + 8 + PAYLOAD[family]} byte packets"
    print(head, file=sys.stderr, flush=True)
    port = FIRST_PORT
    for hop in range(1, most + 1):
        line, last, arrived = f"{hop:2d} ", "", False
        for _ in range(queries):
            answer = ask(icmp, family, target, port, hop, wait)
            port += 1
            if answer is None:
                line += " *"
                continue
            host, took, mark, end = answer
            line += f" {host}" if host != last and not last else (f"\n    {host}" if host != last else "")
            line += f"  {took:.3f} ms{mark}"
            last, arrived = host, arrived or end
        print(line, flush=True)
        if arrived:
            break
    return 0


def ask(
    icmp: socket.socket, family: int, target: str, port: int, hop: int, wait: float
) -> tuple[str, float, str, bool] | None:
    """One probe: who answered, after how many ms, the mark, and whether the way ends there; None for nobody."""
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        if family == socket.AF_INET6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, hop)
        else:
            probe.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, hop)
        begin = time.monotonic()
        probe.sendto(bytes(PAYLOAD[family]), (target, port))
        while (left := begin + wait - time.monotonic()) > 0:
            ready, _, _ = select.select([icmp], [], [], left)
            if not ready:
                return None
            data, address = icmp.recvfrom(4096)
            took = (time.monotonic() - begin) * 1000
            message = data if family == socket.AF_INET6 else data[(data[0] & 15) * 4 :]
            kind, code = message[0], message[1]
            if kind not in (TIME_EXCEEDED[family], UNREACHABLE[family]):
                continue
            quoted = message[8:]
            inner = quoted[40:] if family == socket.AF_INET6 else quoted[(quoted[0] & 15) * 4 :]
            if len(inner) < 4 or struct.unpack_from("!H", inner, 2)[0] != port:
                continue
            end = kind == UNREACHABLE[family]
            mark = "" if not end or code == PORT_UNREACHABLE[family] else MARKS[family].get(code, f" !<{code}>")
            return address[0], took, mark, end
    return None


if __name__ == "__main__":
    try:
        sys.exit(main(json.loads(sys.argv[1])))
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        print(f"traceroute: {error.strerror}", file=sys.stderr)
        sys.exit(1)
