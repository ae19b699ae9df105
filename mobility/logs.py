"""The log: one line an event, `key=value` for people or JSON for machines, on standard error (daemon(8) keeps it)."""

from __future__ import annotations

import json
import logging
import time

_OWN = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
FORMATS = ("text", "json")


def fields(record: logging.LogRecord) -> dict[str, object]:
    """Return what was given as `extra` with a record."""
    return {key: value for key, value in record.__dict__.items() if key not in _OWN}


def _utc(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds * 1_000_000) % 1_000_000:06d}Z"


def _quoted(value: object) -> str:
    text = str(value)
    return text if text and text.isprintable() and not set(' "=') & set(text) else json.dumps(text)


class TextFormatter(logging.Formatter):
    """`TIME LEVEL message key=value ...`: whatever a value holds, the event stays on its one line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        message = "".join(c if c.isprintable() else repr(c)[1:-1] for c in record.getMessage())
        parts = [_utc(record.created), record.levelname, message]
        parts += [f"{key}={_quoted(value)}" for key, value in fields(record).items()]
        if record.exc_info:
            parts.append(f"traceback={json.dumps(self.formatException(record.exc_info))}")
        return " ".join(parts)


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line = {"time": _utc(record.created), "level": record.levelname.lower(), "logger": record.name}
        line |= {"message": record.getMessage()}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line | fields(record), default=str)


def configure(form: str, level: str) -> None:
    """Send all logging to standard error in one of FORMATS, from `level` up."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.getLogger("watchdog").setLevel(logging.WARNING)
