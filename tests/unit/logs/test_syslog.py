"""The log by way of syslogd: what it is sent, and what happens when it is slow, restarted or away.

syslogd is a real datagram socket here, read as syslogd reads its own.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mobility import logs
from mobility.logs import JsonFormatter, TextFormatter
from mobility.logs.syslog import AGAIN, LARGE, SMALL, Syslog, header

#: RFC 5424, section 6: PRI VERSION TIMESTAMP HOSTNAME APP-NAME PROCID MSGID STRUCTURED-DATA MSG
MESSAGE = re.compile(
    r"<(?P<pri>\d{1,3})>1 (?P<time>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}[+-]\d\d:\d\d) "
    r"- (?P<tag>\S+) (?P<pid>\d+) - - (?P<line>.*)",
    re.DOTALL,
)
DAEMON = 3


class Syslogd:
    """What listens at a socket."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)

    def messages(self) -> list[str]:
        """Return what has come since the last time."""
        found = []
        while True:
            try:
                found.append(self._socket.recv(LARGE + 1).decode("ascii"))
            except BlockingIOError:
                return found

    def lines(self) -> list[str]:
        return [parsed(message)["line"] for message in self.messages()]

    def ends(self) -> None:
        self._socket.close()
        self.path.unlink()


def parsed(message: str) -> dict[str, str]:
    found = MESSAGE.fullmatch(message)
    assert found is not None, message
    return found.groupdict()


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def syslogd(tmp_path: Path) -> Iterator[Syslogd]:
    syslogd = Syslogd(tmp_path / "log")
    yield syslogd
    syslogd.ends()


@pytest.fixture
def clock() -> Clock:
    return Clock()


class Lost:
    def __init__(self) -> None:
        self.lines = 0

    def __call__(self, lines: int) -> None:
        self.lines += lines


@pytest.fixture
def lost() -> Lost:
    return Lost()


@pytest.fixture
def handler(tmp_path: Path, clock: Clock, lost: Lost) -> Iterator[Syslog]:
    handler = Syslog([tmp_path / "logpriv", tmp_path / "log"], clock=clock, lost=lost)
    handler.setFormatter(TextFormatter(timed=False))
    yield handler
    handler.close()


def record(message: str, level: int = logging.INFO, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("mobility.test", level, __file__, 1, message, None, None)
    made.__dict__.update(extra)
    return made


def test_a_message_is_one_of_rfc_5424(syslogd: Syslogd, handler: Syslog) -> None:
    handler.handle(record("announced", jail="web1", reason=""))
    (message,) = syslogd.messages()
    found = parsed(message)
    assert (found["tag"], found["pid"]) == ("mobility", str(os.getpid()))
    # syslogd prints the time: the line has none of its own
    assert found["line"] == 'INFO announced jail=web1 reason=""'


@pytest.mark.parametrize(
    ("level", "severity"),
    [(logging.DEBUG, 7), (logging.INFO, 6), (logging.WARNING, 4), (logging.ERROR, 3), (logging.CRITICAL, 2)],
)
def test_levels_become_severities_of_the_facility_daemon(
    syslogd: Syslogd, handler: Syslog, level: int, severity: int
) -> None:
    handler.handle(record("said", level))
    (message,) = syslogd.messages()
    assert divmod(int(parsed(message)["pri"]), 8) == (DAEMON, severity)


def test_the_time_is_the_hosts_with_its_offset() -> None:
    def zone(hours: float) -> Callable[[float], time.struct_time]:
        def local(at: float) -> time.struct_time:
            there = time.gmtime(at + hours * 3600)
            return time.struct_time((*there[:9], "ZONE", int(hours * 3600)))

        return local

    made = record("said")
    made.created = 1_700_000_000.25
    assert "<30>1 2023-11-14T22:13:20.250000+00:00 - mobility 7 " in header(made, "mobility", 7, zone(0))
    assert "2023-11-15T03:43:20.250000+05:30" in header(made, "mobility", 7, zone(5.5))
    assert "2023-11-14T18:43:20.250000-03:30" in header(made, "mobility", 7, zone(-3.5))


def test_json_stays_json_however_long(syslogd: Syslogd, handler: Syslog) -> None:
    handler.setFormatter(JsonFormatter(timed=False))
    handler.handle(record("configuration", jail="web1", problem="x" * 100_000, argv="\N{SNOWMAN}" * 5000))
    (message,) = syslogd.messages()
    assert len(message) <= LARGE
    line = json.loads(parsed(message)["line"])
    assert (line["jail"], line["message"]) == ("web1", "configuration")
    assert line["problem"].endswith("x...")


def test_a_message_is_plain_ascii_and_as_long_as_syslogd_takes(syslogd: Syslogd, handler: Syslog) -> None:
    handler.handle(record("said", problem="é" * 100_000))
    handler.handle(record("é" * 100_000))
    for message in syslogd.messages():
        assert len(message) <= LARGE


def test_a_kernel_with_small_datagrams_gets_small_ones(
    syslogd: Syslogd, handler: Syslog, lost: Lost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As FreeBSD 13's does, whose net.local.dgram.maxdgram is 2048; Linux takes any."""
    handler.handle(record("first"))
    send = socket.socket.send

    class Small:
        """A socket of such a kernel: the real one, behind its limit."""

        def __init__(self, real: socket.socket) -> None:
            self._real = real

        def send(self, data: bytes) -> int:
            if len(data) > SMALL:
                raise OSError(errno.EMSGSIZE, "Message too long")
            return send(self._real, data)

        def close(self) -> None:
            self._real.close()

    assert handler._connection is not None
    monkeypatch.setattr(handler, "_connection", Small(handler._connection))
    handler.handle(record("long", problem="x" * 6000))
    handler.handle(record("long again", problem="x" * 6000))
    found = syslogd.messages()
    assert [parsed(message)["line"].split(" problem=")[0] for message in found] == [
        "INFO first",
        "INFO long",
        "INFO long again",
    ]
    assert all(len(message) <= SMALL for message in found)
    assert lost.lines == 0


def test_roots_own_socket_comes_first(syslogd: Syslogd, handler: Syslog, tmp_path: Path) -> None:
    privileged = Syslogd(tmp_path / "logpriv")
    handler.handle(record("said"))
    assert syslogd.messages() == []
    assert privileged.lines() == ["INFO said"]
    privileged.ends()


def test_a_syslogd_that_was_restarted_is_found_again_at_once(
    syslogd: Syslogd, handler: Syslog, tmp_path: Path, lost: Lost
) -> None:
    handler.handle(record("before"))
    syslogd.ends()
    again = Syslogd(tmp_path / "log")
    handler.handle(record("after"))
    assert again.lines() == ["INFO after"]
    assert lost.lines == 0
    again.ends()
    # for the fixture
    Path(syslogd.path).touch()


def test_without_syslogd_lines_are_lost_counted_and_told(
    handler: Syslog, tmp_path: Path, clock: Clock, lost: Lost
) -> None:
    for _ in range(5):
        handler.handle(record("nobody hears"))
    assert lost.lines == 5
    syslogd = Syslogd(tmp_path / "log")
    handler.handle(record("too soon: it is not asked for each line"))
    assert syslogd.messages() == []
    clock.now += AGAIN
    handler.handle(record("heard"))
    assert syslogd.lines() == ["WARNING 6 lines were lost: syslogd did not take them lines=6", "INFO heard"]
    assert lost.lines == 6
    syslogd.ends()


def test_a_syslogd_that_does_not_read_holds_nobody_up(
    syslogd: Syslogd, handler: Syslog, clock: Clock, lost: Lost
) -> None:
    """It is stopped, or its disk hangs: a blocking send would never return from this loop."""
    count = 5000
    for number in range(count):
        handler.handle(record("flood", line=number))
    assert 0 < lost.lines < count
    taken = len(syslogd.messages())
    assert taken + lost.lines == count
    handler.handle(record("it reads again"))
    assert syslogd.lines() == [
        f"WARNING {lost.lines} lines were lost: syslogd did not take them lines={lost.lines}",
        "INFO it reads again",
    ]


def test_the_agent_logs_there_when_it_is_told_to(
    syslogd: Syslogd, monkeypatch: pytest.MonkeyPatch, own_logging: None
) -> None:
    front = logs.configure("text", "info", "syslog", burst=2, per_second=0.01, sockets=(syslogd.path,))
    log = logging.getLogger("mobility.test")
    with logs.about("web1", "e1"):
        for _ in range(4):
            log.info("ran", extra={"argv": "ifconfig -a"})
    log.debug("not asked for")
    front.close()
    ran = 'INFO ran jail=web1 argv="ifconfig -a" event=e1'
    *written, summary = syslogd.lines()
    assert written == [ran, ran]
    assert summary.startswith("WARNING 2 lines like this were not written jail=web1 lines=2 like=ran seconds=")
