"""The log: one line an event, to standard error or syslogd(8), with the jail and the hook's event that it belongs to.

What the fields of a line are called is told in README.md, "Logs"; tests/unit/logs/test_fields.py holds the program to it.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mobility.logs.context import about, attribute
from mobility.logs.limit import EVERY, Kind, LeftOut, Limit
from mobility.logs.lines import FORMATS, FORMATTERS, JsonFormatter, TextFormatter, fields, hide, without_secrets
from mobility.logs.syslog import SOCKETS, Syslog

__all__ = [
    "BURST",
    "FORMATS",
    "LEVELS",
    "PER_SECOND",
    "TARGETS",
    "Front",
    "JsonFormatter",
    "TextFormatter",
    "about",
    "configure",
    "counted",
    "fields",
    "hide",
    "settle",
    "without_secrets",
]

STDERR, SYSLOG = TARGETS = ("stderr", "syslog")
LEVELS = ("debug", "info", "warning", "error")
BURST = 100
"""Lines of a kind at once: a jail's start has some twenty commands, and flap damping stops one that flaps for long."""
PER_SECOND = 1.0

_front: Front | None = None


class Front(logging.Handler):
    """What stands before the handler that writes: it completes each record, and keeps floods back."""

    def __init__(self, out: logging.Handler, limit: Limit, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._suppressed: Callable[[int], None] = lambda _: None
        self._out = out
        self._limit = limit
        self._clock = clock

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, unless there are too many like it."""
        attribute(record)
        self.settle()
        kind = Kind(record.name, str(record.msg), str(record.__dict__.get("jail", "")))
        if self._limit.admit(kind, self._clock(), error=record.levelno >= logging.ERROR):
            self._out.handle(record)
        else:
            self._suppressed(1)

    def counted(self, suppressed: Callable[[int], None], lost: Callable[[int], None]) -> None:
        """Have lines counted that are not written, and those that syslogd did not take."""
        self._suppressed = suppressed
        if isinstance(self._out, Syslog):
            self._out.lost = lost

    def settle(self, *, every: bool = False) -> None:
        """Say of each flood that has ended how many lines were not written; with `every`, of those that go on too."""
        if self._limit.flooded:
            for each in self._limit.ended(self._clock(), every=every):
                self._out.handle(summary(each))

    def close(self) -> None:
        """Say what is left to say."""
        self.acquire()
        try:
            self.settle(every=True)
        finally:
            self.release()
        super().close()


def summary(left: LeftOut) -> logging.LogRecord:
    """Return the line that stands for those that were not written."""
    jail = {} if left.kind.jail in ("", EVERY) else {"jail": left.kind.jail}
    values: dict[str, Any] = {
        "name": __name__,
        "levelname": "WARNING",
        "levelno": logging.WARNING,
        "msg": "%d lines like this were not written",
        "args": (left.lines,),
        **jail,
        "lines": left.lines,
        "like": left.kind.message,
        "seconds": round(left.seconds, 3),
    }
    return logging.makeLogRecord(values)


def configure(
    form: str,
    level: str,
    to: str = STDERR,
    *,
    burst: int = BURST,
    per_second: float = PER_SECOND,
    sockets: tuple[Path, ...] = SOCKETS,
) -> Front:
    """Send all logging to one of TARGETS in one of FORMATS, from `level` up; what ends Python itself is logged too."""
    global _front  # there is one log, as there is one root logger
    out = Syslog(sockets) if to == SYSLOG else logging.StreamHandler()
    out.setFormatter(FORMATTERS[form](timed=to == STDERR))
    _front = Front(out, Limit(burst, per_second))
    root = logging.getLogger()
    root.handlers[:] = [_front]
    root.setLevel(level.upper())
    logging.getLogger("watchdog").setLevel(logging.WARNING)
    logging.captureWarnings(capture=True)
    sys.excepthook = _crashed
    threading.excepthook = lambda told: _crashed(told.exc_type, told.exc_value, told.exc_traceback)
    sys.unraisablehook = lambda told: _crashed(told.exc_type, told.exc_value, told.exc_traceback)
    return _front


def _crashed(kind: type[BaseException], error: BaseException | None, trace: Any) -> None:
    """Log on one line what nobody has caught: Python prints it on many, of which syslog would make as many messages."""
    told = (kind, error or kind(), trace)
    logging.getLogger(__name__).critical("crashed: please report this line", exc_info=told)


def counted(suppressed: Callable[[int], None], lost: Callable[[int], None]) -> None:
    """Have lines counted that are not written for a flood, and those that syslogd did not take."""
    if _front is not None:
        _front.counted(suppressed, lost)


def settle() -> None:
    """Say of each flood that has ended how many lines were not written: also when nothing else is logged any more."""
    front = _front
    if front is not None:
        front.acquire()
        try:
            front.settle()
        finally:
            front.release()
