"""What the demo's jail serves: HTTP over both families, a slow download, and a UDP echo for measuring gaps.

Run as `web.py NAME`: it detaches once it listens, as a daemon started by /etc/rc would.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HTTP_PORT, ECHO_PORT = 80, 7
SLOW_CHUNKS, SLOW_EVERY, CHUNK = 40, 0.1, b"x" * 1024


class Handler(BaseHTTPRequestHandler):
    """`/` says who answers; `/slow` sends SLOW_CHUNKS chunks, one every SLOW_EVERY seconds."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        slow = self.path == "/slow"
        body = f"web1, running on host {sys.argv[1]}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(SLOW_CHUNKS * len(CHUNK) if slow else len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        if not slow:
            self.wfile.write(body)
            return
        for _ in range(SLOW_CHUNKS):
            self.wfile.write(CHUNK)
            time.sleep(SLOW_EVERY)  # the point of it: a download that lasts

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class names it so
        """Keep quiet."""


class Server(ThreadingHTTPServer):
    """Both families on one socket."""

    address_family = socket.AF_INET6

    def server_bind(self) -> None:
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self.socket.bind(self.server_address)


def echo(udp: socket.socket) -> None:
    """Send every datagram back to where it came from."""
    while True:
        data, sender = udp.recvfrom(2048)
        udp.sendto(data, sender)


def main() -> None:
    """Listen, detach, serve until killed."""
    server = Server(("::", HTTP_PORT), Handler)
    udp = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    udp.bind(("::", ECHO_PORT))
    if os.fork():
        os._exit(0)
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    threading.Thread(target=echo, args=(udp,), daemon=True).start()
    server.serve_forever()


if __name__ == "__main__":
    main()
