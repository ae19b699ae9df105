"""What goes on while an operator waits: a line that changes, on a terminal only, and that is gone at the end."""

from __future__ import annotations

import io
import re

import pytest

from mobility.terminal.progress import Progress, Steps, drain_line
from mobility.terminal.screen import Screen
from mobility.terminal.text import cells
from tests.waiting import until


class Tty(io.StringIO):
    """What is written to a terminal."""

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        raise ValueError("it is none")

    @property
    def shown(self) -> list[str]:
        return [re.sub(r"\x1b\[K", "", line) for line in self.getvalue().split("\r")[1:]]


def screen(stream: io.StringIO, term: str = "xterm") -> Screen:
    return Screen(stream, {"TERM": term})


def test_many_things_are_counted_as_they_are_done() -> None:
    stream = Tty()
    with Steps("hooks install bastille", 3, screen=screen(stream)) as steps:
        for name in ("web1", "web2"):
            steps.begin(name)
        until(lambda: "hooks install bastille: 2 of 3: web2" in stream.shown, "progress")
        steps.begin("\x1b[2Jweb3")
        until(lambda: "hooks install bastille: 3 of 3:  [2Jweb3" in stream.shown, "progress, and no escape of others")
    assert stream.shown[-1] == ""
    assert "\n" not in stream.getvalue()


@pytest.mark.parametrize(
    ("stream", "term", "shown", "total"),
    [
        (io.StringIO(), "xterm", True, 3),
        (Tty(), "dumb", True, 3),
        (Tty(), "xterm", False, 3),
        (Tty(), "xterm", True, 1),
    ],
    ids=["pipe", "dumb terminal", "JSON", "one thing"],
)
def test_it_is_shown_where_it_is_of_use(stream: io.StringIO, term: str, shown: bool, total: int) -> None:
    steps = Steps("hooks", total, shown=shown, screen=screen(stream, term))
    with steps:
        assert steps.shown is False
    assert stream.getvalue() == ""


def test_what_is_quick_says_nothing_and_what_is_long_is_cut() -> None:
    stream = Tty()
    with Progress(lambda _: "x" * 500, screen=screen(stream)):
        pass
    assert stream.getvalue() == ""
    with Progress(lambda _: "x" * 500, screen=screen(stream)):
        until(lambda: bool(stream.shown), "progress")
    assert cells(stream.shown[0]) == 79


def test_an_error_leaves_no_progress_behind() -> None:
    stream = Tty()

    def interrupted() -> None:
        with Progress(lambda _: "waiting", screen=screen(stream)):
            until(lambda: "waiting" in stream.shown, "progress")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert stream.shown[-1] == ""


def test_a_drain_says_how_far_it_is() -> None:
    before = {"announced": 2000, "differing": 0, "draining": {}}
    leaving = before | {"draining": {"*": 3.2, "web1": 0.0}}
    assert drain_line(before, leaving, 2.0, 40.0) == (
        "draining: 2000 addresses are announced with GRACEFUL_SHUTDOWN for 3 s more; at most 38 s more"
    )
    going = {"announced": 800, "differing": 300, "draining": {"*": 0.0}}
    assert drain_line(before, going, 6.0, 40.0) == (
        "draining: 1200 of 2000 addresses withdrawn, 300 routes under way; at most 34 s more"
    )
    # an agent that is too busy to say
    assert drain_line(before, {}, 6.0, 40.0) == "draining: 6 s, at most 34 s more"
    assert drain_line({}, {}, 60.0, 40.0) == "draining: 60 s, at most 0 s more"
