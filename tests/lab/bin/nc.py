"""nc(1) of FreeBSD 13.2, TCP only: run by the lab's `nc`, with its order as JSON in argv[1].

Source: contrib/netcat/netcat.c; freebsd-13.2/4-neighbours.txt (what -v says of a connection), 14-dying.txt.
"""

from __future__ import annotations

import json
import os
import select
import socket
import sys

CHUNK = 65536


def relay(connection: socket.socket, *, shut: bool, idle: float | None) -> int:
    """Carry bytes between standard input, output and the connection until the peer closes it; 0."""
    sources: list[int] = [0, connection.fileno()]
    while True:
        ready, _, _ = select.select(sources, [], [], idle)
        if not ready:
            return 0  # -w: nothing came for so long
        if connection.fileno() in ready:
            data = connection.recv(CHUNK)
            if not data:
                return 0
            os.write(1, data)
        if 0 in ready:
            data = os.read(0, CHUNK)
            if data:
                connection.sendall(data)
                continue
            sources.remove(0)
            if shut:
                connection.shutdown(socket.SHUT_WR)


def listen(order: dict[str, object]) -> int:
    """nc -l: take one connection, or with -k one after the other."""
    six = bool(order["six"])
    listener = socket.socket(socket.AF_INET6 if six else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((str(order["host"]) or ("::" if six else "0.0.0.0"), int(str(order["port"]))))
    listener.listen(1)
    while True:
        connection, address = listener.accept()
        if order["verbose"]:
            print(f"Connection from {address[0]} {address[1]} received!", file=sys.stderr, flush=True)
        with connection:
            relay(connection, shut=bool(order["shut"]), idle=_seconds(order))
        if not order["keep"]:
            return 0


def connect(order: dict[str, object]) -> int:
    """nc HOST PORT; 1 if nobody answers."""
    host, port = str(order["host"]), int(str(order["port"]))
    connection = socket.socket(socket.AF_INET6 if order["six"] else socket.AF_INET)
    connection.settimeout(_seconds(order))
    try:
        if order["source"]:
            connection.bind((str(order["source"]), 0))
        connection.connect((host, port, 0, int(str(order["scope"]))) if order["six"] else (host, port))
    except OSError as error:
        if order["verbose"]:
            reason = "Operation timed out" if isinstance(error, TimeoutError) else os.strerror(error.errno or 0)
            print(f"nc: connect to {order['shown']} port {port} (tcp) failed: {reason}", file=sys.stderr)
        return 1
    if order["verbose"]:
        print(f"Connection to {order['shown']} {port} port [tcp/*] succeeded!", file=sys.stderr, flush=True)
    if order["probe"]:
        return 0
    connection.settimeout(None)
    with connection:
        return relay(connection, shut=bool(order["shut"]), idle=_seconds(order))


def _seconds(order: dict[str, object]) -> float | None:
    return float(str(order["wait"])) or None


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    try:
        sys.exit(listen(given) if given["listen"] else connect(given))
    except KeyboardInterrupt:
        sys.exit(130)
    except (ConnectionError, BrokenPipeError):
        sys.exit(1)
    except OSError as problem:
        print(f"nc: {os.strerror(problem.errno or 0)}", file=sys.stderr)
        sys.exit(1)
