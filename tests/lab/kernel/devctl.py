"""devctl(4) and devd(8): what the kernel tells, and who hears it.

Each lab host has a devd of its own with its socket, LABDIR/devd/NAME (SOCK_SEQPACKET, devd.cc: `seqpacket.pipe`), each
event a packet with the line's newline in it; the machine has one under the name "0", and /dev/devctl besides, a FIFO
LABDIR/devctl. A host hears of its own vnet's interfaces (IS_DEFAULT_VNET in sys/net/if.c and if_ethersubr.c), and of CARP
from every vnet below it, all alike: nothing names the jail (freebsd-13.2/6-carp.txt).

Sources: sys/kern/kern_devctl.c (devctl_notify: `!system=S subsystem=U type=T`, at most 1000 of them wait for a reader),
sbin/devd/devd.cc (notify_clients: a client that does not read is closed; event_loop passes the buffer on as it came).
"""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

FIFO = "devctl"
FOLDER = "devd"


def line(system: str, subsystem: str, kind: str) -> bytes:
    """An event as devd passes it on."""
    return f"!system={system} subsystem={subsystem} type={kind}\n".encode()


class Devd:
    """One host's devd. It may die and come back: `stop`, `start`."""

    def __init__(self, path: Path, fifo: Path | None = None) -> None:
        self.path = path
        self.listener: socket.socket | None = None
        self._clients: list[socket.socket] = []
        self._fifo = -1
        if fifo is not None:
            os.mkfifo(fifo)
            self._fifo = os.open(fifo, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    def start(self) -> socket.socket:
        """Listen; answer the socket on which clients come."""
        self.path.parent.mkdir(mode=0o755, exist_ok=True)
        self.path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        listener.bind(str(self.path))
        self.path.chmod(0o666)
        listener.listen(32)
        listener.setblocking(False)
        self.listener = listener
        return listener

    def accept(self) -> None:
        """Take in a client that came."""
        if self.listener is not None:
            client, _address = self.listener.accept()
            client.setblocking(False)
            self._clients.append(client)

    def tell(self, event: bytes) -> None:
        """Pass an event on; a client that is gone, or reads too slowly, is closed."""
        if self._fifo >= 0:
            with contextlib.suppress(BlockingIOError):
                os.write(self._fifo, event)
        if self.listener is not None:
            with contextlib.suppress(BlockingIOError):
                while True:  # one that connected before the event hears it, whoever the event loop turned to first
                    self.accept()
        for client in list(self._clients):
            try:
                client.send(event)
            except OSError:
                self._clients.remove(client)
                client.close()

    def stop(self) -> None:
        """End: the socket's name stays, as devd leaves it, and nobody listens there."""
        for each in (self.listener, *self._clients):
            if each is not None:
                each.close()
        self.listener = None
        self._clients.clear()

    def close(self) -> None:
        """End for good."""
        self.stop()
        self.path.unlink(missing_ok=True)
        if self._fifo >= 0:
            os.close(self._fifo)
            self._fifo = -1
