"""`mobility watch`: events as they happen, one line each.

The agent is asked one question at a time, and answers when something has happened (a long poll): at rest that is a question
every WITHIN seconds. What happens while the agent is away is in its database, and told when it is back.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from mobility import control
from mobility.terminal.happenings import line
from mobility.terminal.screen import Screen, standard_error
from mobility.terminal.text import named, printable, utc

WITHIN = 15.0
"""Seconds that one question waits for an event."""
MARGIN = 15.0
"""Seconds beyond those for the answer: an agent that starts thousands of jails is busy."""
AGAIN = 0.5
"""Seconds between attempts to reach an agent that is away."""


class ReaderGone(Exception):  # it is no error: whoever read has seen enough
    """Nobody reads any more what is written."""


def watch(path: Path, names: Collection[str], screen: Screen, *, as_json: bool, after: int | None = None) -> None:
    """Print what happens to these jails, or to all and the host, until nobody reads it; `path` is the control socket.

    `after` is the id of the event to go on from, None begins now. Raises ControlError where the agent can not be asked at
    first, or says no.
    """
    tell = _Teller(screen, as_json=as_json)
    listed, asked = sorted(names), _until_news()
    # the first one at once: what happens from here on is told, also when the agent ends before the next
    answer = control.request(path, "events", names=listed, after=after, within=0)
    began, away = answer["began"], False
    if screen.tty and (people := standard_error()).tty:
        people.say([f"following {named(listed) or 'this host and its jails'}; Ctrl-C ends it"])
    while True:
        if away or answer["began"] != began:
            tell.aside("agent back", f"the agent is back (pid {answer['pid']})")
            began, away = answer["began"], False
        if after is not None and answer["last"] < after:
            tell.aside("history anew", "the agent's history begins anew: its database was moved away")
        tell.events(answer["events"])
        after = answer["last"]
        while True:
            try:
                answer = control.request(
                    path,
                    "events",
                    answer_within=WITHIN + MARGIN,
                    asked=asked,
                    names=listed,
                    after=after,
                    # that it is back is told at once
                    within=0 if away else WITHIN,
                )
                break
            except (control.AgentNotRunning, control.HungUp):
                if not away:
                    tell.aside("agent away", "the agent is away; what happens meanwhile is told when it is back")
                    away = True
                _rest(AGAIN)


class _Teller:
    """Writes events: lines for people, or an object of JSON on each line."""

    def __init__(self, screen: Screen, *, as_json: bool) -> None:
        self._screen = screen
        self._as_json = as_json

    def events(self, events: list[dict[str, Any]]) -> None:
        if events:
            self._screen.say(
                [json.dumps(event) if self._as_json else line(event, self._screen.palette) for event in events]
            )

    def aside(self, what: str, detail: str) -> None:
        """Say something about the watching itself: it has no id."""
        at = time.time()
        if self._as_json:
            self._screen.say([json.dumps({"id": None, "at": at, "jail": "", "what": what, "detail": detail})])
        else:
            self._screen.say([self._screen.palette.held(f"{utc(at)}  -- {printable(detail)}")])


def _until_news() -> Callable[[socket.socket], None]:
    """Return what waits for the agent's answer, and ends where nobody reads ours any more."""

    def wait(connection: socket.socket) -> None:
        poll = select.poll()
        poll.register(connection, select.POLLIN)
        _with_output(poll)
        timeout = connection.gettimeout() or 0.0
        for descriptor, _ in poll.poll(timeout * 1000):
            if descriptor != connection.fileno():
                raise ReaderGone

    return wait


def _rest(seconds: float) -> None:
    poll = select.poll()
    _with_output(poll)
    if poll.poll(seconds * 1000):
        raise ReaderGone


def _with_output(poll: select.poll) -> None:
    """Have standard output's errors polled: a pipe that nobody reads has one (poll(2), POLLERR and POLLHUP need no asking)."""
    try:
        poll.register(sys.stdout.fileno(), 0)
    except (OSError, ValueError):
        return  # it is no descriptor of ours, as in a test
