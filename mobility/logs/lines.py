"""How an event is written: one line, `key=value` for people or JSON for machines; pure."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable

FORMATS = ("text", "json")
_OWN = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
LONGEST = 4000
"""Bytes of a line: daemon(8) cuts what it reads at 4095 (usr.sbin/daemon/daemon.c, LBUF_SIZE)."""
_WIDTHS = (2000, 1000, 400, 150, 60)
"""Characters that a value keeps, tried one after the other, where the line would be too long."""
SHORTEST_SECRET = 6
"""Characters: a shorter password is no key (RFC 3562, section 3.1: 12 at least), and may be part of any word."""
KERNEL = "kernel"
"""The password that stands for a key in the kernel, which we do not know ourselves."""
HIDDEN = "(hidden)"

_secrets: set[str] = set()


def hide(words: Iterable[str]) -> None:
    """Have these passwords never be written, whatever an error of somebody else's may quote."""
    _secrets.update(word for word in words if len(word) >= SHORTEST_SECRET and word != KERNEL)


def without_secrets(text: str) -> str:
    """Return a text with each password that `hide` was told of covered."""
    for secret in sorted(_secrets, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return text


def fields(record: logging.LogRecord) -> dict[str, object]:
    """Return what was given as `extra` with a record: the jail first, the event last."""
    found = {key: value for key, value in record.__dict__.items() if key not in _OWN}
    first = {"jail": found.pop("jail")} if "jail" in found else {}
    last = {"event": found.pop("event")} if "event" in found else {}
    return first | found | last


def utc(seconds: float) -> str:
    """Return a time (seconds since the epoch) as RFC 3339 writes it, with microseconds."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds * 1_000_000) % 1_000_000:06d}Z"


def _plain(value: object) -> object:
    """Return what JSON can hold of a value: figures and flags as they are, all else as text, without secrets."""
    return value if value is None or isinstance(value, bool | int | float) else without_secrets(str(value))


def _short(value: object, width: int | None, *, end: bool = False) -> object:
    if width is None or not isinstance(value, str) or len(value) <= width:
        return value
    # the end of a traceback is what it is about
    return "..." + value[-width:] if end else value[:width] + "..."


def _quoted(value: object) -> str:
    text = str(value)
    return text if text and text.isprintable() and not set(' "=') & set(text) else json.dumps(text)


class LineFormatter(logging.Formatter):
    """Makes one line of a record, of `longest` bytes at most: values are shortened, the line is never cut."""

    def __init__(self, *, longest: int = LONGEST, timed: bool = True) -> None:
        """Take how long a line may be; `timed`: whether it begins with the time, which syslogd(8) writes itself."""
        super().__init__()
        self.longest = longest
        self._timed = timed

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        return self.fitted(record, self.longest)

    def fitted(self, record: logging.LogRecord, longest: int) -> str:
        """Return the line in `longest` bytes at most."""
        message = without_secrets(record.getMessage())
        values = {key: _plain(value) for key, value in fields(record).items()}
        if record.exc_info:
            values["traceback"] = without_secrets(self.formatException(record.exc_info))
        for width in (None, *_WIDTHS):
            shown = {key: _short(value, width, end=key == "traceback") for key, value in values.items()}
            line = self.line(record, str(_short(message, width)), shown)
            if len(line.encode("utf-8", "backslashreplace")) <= longest:
                return line
        # so many fields that none can be kept
        kept = {key: value for key, value in shown.items() if key in ("jail", "event")}
        return self.line(record, str(_short(message, _WIDTHS[-1])), kept)

    def line(self, record: logging.LogRecord, message: str, values: dict[str, object]) -> str:
        """Return the line for this message and these values."""
        raise NotImplementedError


class TextFormatter(LineFormatter):
    """`TIME LEVEL message key=value ...`: whatever a value holds, the event stays on its one line."""

    def line(self, record: logging.LogRecord, message: str, values: dict[str, object]) -> str:
        """Return the line for this message and these values."""
        shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in message)
        parts = [*([utc(record.created)] if self._timed else []), record.levelname, shown]
        return " ".join([*parts, *(f"{key}={_quoted(value)}" for key, value in values.items())])


class JsonFormatter(LineFormatter):
    """One JSON object a line; it has its time in any case, for it is read by itself."""

    def line(self, record: logging.LogRecord, message: str, values: dict[str, object]) -> str:
        """Return the line for this message and these values."""
        about = {"time": utc(record.created), "level": record.levelname.lower(), "logger": record.name}
        return json.dumps(about | {"message": message} | values)


FIELDS = {
    "time": "When, in UTC (syslogd writes its own, which `text` then leaves to it)",
    "level": "`debug`, `info`, `warning`, `error`; `critical` where the agent itself has crashed",
    "logger": "Which part of the program says it (JSON only)",
    "message": "What happened: always the same words for the same thing",
    "jail": "The jail that it belongs to; lines of the whole host have none",
    "event": "The hook's event that is the cause; several with commas, where hooks came at once",
    "phase": "Which hook it was: `prestart`, `created`, `poststart`, `prestop`, `poststop`",
    "argv": "The command that was run",
    "status": "Its exit status",
    "seconds": "How long that took, or has lasted",
    "problem": "What is wrong, in words that say what to do where that is known",
    "reason": "Why something is as it is; empty where there is nothing to say",
    "prefix": "What was announced or withdrawn: prefixes, with blanks between",
    "sequence": "The number by which this host claims the jail in the fabric",
    "kind": "How the jail's ownership was ruled on",
    "check": "The name of a health check",
    "peer": "A BGP session, by its peer's name in mobility.toml",
    "failover": "The name of a `[failover.NAME]`",
    "stance": "How its prefixes are announced from now on",
    "vhid": "A vhid of CARP, as `VHID@INTERFACE`",
    "interface": "An interface of the host",
    "family": "`IPv4` or `IPv6`",
    "gateways": "Gateways of default routes",
    "how": "How links bring IPv4 to their jails: `next-hop` or `interface`",
    "allowed": "`host.allowed`, as the bridge is told",
    "limit": "The maximum that was reached",
    "ignored": "How many routes were not looked at",
    "jails": "How many jails run",
    "pid": "The bridge's process",
    "exabgp": "ExaBGP's process",
    "path": "A file, folder or socket",
    "request": "What the `mobility` command asked for",
    "uid": "The user who was refused",
    "part": "Which of the metrics could not be had",
    "changes": "What a reload has taken up",
    "lines": "How many lines were not written, or were lost",
    "like": "The message of the lines that were not written",
    "traceback": "Where in the program an unexpected error arose",
}
"""What each field of a line means; the first four are what every line has."""
FORMATTERS: dict[str, Callable[..., LineFormatter]] = {"text": TextFormatter, "json": JsonFormatter}
