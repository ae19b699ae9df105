"""The log by way of syslogd(8), over its own socket: with each line's severity, and without ever waiting for it.

syslog(3) waits, for as long as the socket's buffer is full (lib/libc/gen/syslog.c, vsyslog), and so does who writes to
daemon(8), which calls it. The agent's one loop must not: what syslogd does not take at once is lost, counted and told.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from logging.handlers import SysLogHandler
from pathlib import Path

from mobility.logs.lines import LineFormatter

SOCKETS = (Path("/var/run/logpriv"), Path("/var/run/log"), Path("/dev/log"))
"""Where syslogd listens: root's own socket first, as syslog(3) tries them (paths.h; connectlog)."""
TAG = "mobility"
LARGE, SMALL = 8192, 2048
"""Bytes of a message that syslogd takes (usr.sbin/syslogd/syslogd.h, MAXLINE), and a kernel whose datagrams are smaller:
net.local.dgram.maxdgram, 2048 before FreeBSD 14 (sys/kern/uipc_usrreq.c)."""
AGAIN = 1.0
"""Seconds between two attempts to find syslogd."""
_FULL = (errno.EAGAIN, errno.EWOULDBLOCK, errno.ENOBUFS)
"""syslogd is there and does not read: BSD says ENOBUFS (unix(4)), Linux EAGAIN."""


def header(record: logging.LogRecord, tag: str, pid: int, zone: Callable[[float], time.struct_time]) -> str:
    """Return what comes before the line (RFC 5424, section 6.2): facility daemon, severity, time, tag and pid.

    The time is local with its offset: syslogd prints it as it came (fprintlog_bsd), among what others log. It takes its
    own name for the host's.
    """
    severity = SysLogHandler.priority_names.get(record.levelname.lower(), SysLogHandler.LOG_WARNING)
    local = zone(record.created)
    minutes = abs(local.tm_gmtoff) // 60
    offset = f"{'-' if local.tm_gmtoff < 0 else '+'}{minutes // 60:02d}:{minutes % 60:02d}"
    micro = int(record.created * 1_000_000) % 1_000_000
    when = f"{time.strftime('%Y-%m-%dT%H:%M:%S', local)}.{micro:06d}{offset}"
    return f"<{SysLogHandler.LOG_DAEMON << 3 | severity}>1 {when} - {tag} {pid} - - "


class Syslog(logging.Handler):
    """Sends each line to the first of `sockets` where somebody listens; `lost` is called with lines that nobody took."""

    def __init__(
        self,
        sockets: Sequence[Path] = SOCKETS,
        *,
        tag: str = TAG,
        clock: Callable[[], float] = time.monotonic,
        lost: Callable[[int], None] = lambda _: None,
    ) -> None:
        super().__init__()
        self._sockets = sockets
        self._tag = tag
        self._clock = clock
        self.lost = lost
        self._connection: socket.socket | None = None
        self._next_try = float("-inf")
        self._untold = 0
        """Lines that were lost, and of which syslogd does not know yet."""
        self._largest = LARGE

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record; whatever becomes of it, this returns at once and raises nothing."""
        try:
            if self._untold:
                self._tell(record)
            if not self._sent(record):
                self._untold += 1
                self.lost(1)
        except Exception:  # noqa: BLE001  # as the handlers of logging itself do
            self.handleError(record)

    def close(self) -> None:
        """Close the socket."""
        self._disconnect()
        super().close()

    def _tell(self, record: logging.LogRecord) -> None:
        told = logging.makeLogRecord(
            {
                "name": __name__,
                "levelname": "WARNING",
                "levelno": logging.WARNING,
                "created": record.created,
                "msg": "%d lines were lost: syslogd did not take them",
                "args": (self._untold,),
                "lines": self._untold,
            }
        )
        if self._sent(told):
            self._untold = 0

    def _sent(self, record: logging.LogRecord) -> bool:
        """Send a record; tell whether syslogd has it."""
        for _ in range(3):  # a smaller one for an older kernel, a new socket for a new syslogd
            if self._connection is None and not self._connect():
                return False
            assert self._connection is not None  # noqa: S101  # it was just made
            try:
                self._connection.send(self._datagram(record))
            except OSError as error:
                if error.errno in _FULL:
                    return False
                if error.errno == errno.EMSGSIZE:
                    if self._largest == SMALL:
                        return False
                    self._largest = SMALL
                else:
                    self._disconnect()
            else:
                return True
        return False

    def _datagram(self, record: logging.LogRecord) -> bytes:
        before = header(record, self._tag, os.getpid(), time.localtime)
        # syslogd writes bytes from 0x80 to 0x9f otherwise, without -8 (parsemsg_remove_unsafe_characters)
        room = self._largest - len(before) - 4
        formatter = self.formatter
        line = formatter.fitted(record, room) if isinstance(formatter, LineFormatter) else self.format(record)
        return (before + line).encode("ascii", "backslashreplace")[: self._largest]

    def _connect(self) -> bool:
        now = self._clock()
        if now < self._next_try:
            return False
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        connection.setblocking(False)
        for path in self._sockets:
            with suppress(OSError):
                connection.connect(str(path))
                self._connection = connection
                return True
        connection.close()
        self._next_try = now + AGAIN
        return False

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
