"""One event, one line, whatever is in it."""

from __future__ import annotations

import json
import logging

import pytest

from mobility.logs import JsonFormatter, TextFormatter


def record(message: str, **extra: object) -> logging.LogRecord:
    made = logging.makeLogRecord({"msg": message, "levelname": "INFO", "name": "mobility.test", "created": 1.5})
    made.__dict__.update(extra)
    return made


def test_text() -> None:
    line = TextFormatter().format(record("ran", jail="web1", argv="ifconfig -l", empty=""))
    assert line == '1970-01-01T00:00:01.500000Z INFO ran jail=web1 argv="ifconfig -l" empty=""'


def test_json() -> None:
    line = json.loads(JsonFormatter().format(record("ran", jail="web1", status=0)))
    assert line["message"] == "ran"
    assert (line["jail"], line["status"], line["time"]) == ("web1", 0, "1970-01-01T00:00:01.500000Z")


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
def test_nothing_breaks_a_line(formatter: logging.Formatter) -> None:
    nasty = 'a\nb\r\x1b[31m" = \u2028'
    try:
        raise ValueError(nasty)
    except ValueError:
        import sys

        made = record(nasty, value=nasty)
        made.exc_info = sys.exc_info()
    line = formatter.format(made)
    assert len(line.splitlines()) == 1
    assert "\x1b" not in line
