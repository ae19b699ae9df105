"""Where lines go: a terminal that can move its cursor, one that can not, or somebody's pipe.

The escapes are ECMA-48's (CUP, ED, EL, SGR), which every terminal of termcap(5) with a `cm` of xterm's kind has; TERM=dumb has
none. Colours only on a terminal, and not where NO_COLOR is set (no-color.org).
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TextIO

from mobility.control import ControlError
from mobility.terminal.status import fitting
from mobility.terminal.text import Palette, printable, utc, within

_HIDE, _SHOW, _HOME, _CLEAR, _TO_END, _REST = "\x1b[?25l", "\x1b[?25h", "\x1b[H", "\x1b[2J", "\x1b[K", "\x1b[J"
REST_AT_LEAST = 10
"""How many times longer than an answer took the next question waits, at least: watching must not keep the agent busy."""


class Screen:
    """A stream of this process, and what it can show."""

    def __init__(self, stream: TextIO, environment: Mapping[str, str]) -> None:
        self._stream = stream
        self._environment = environment
        self.tty = stream.isatty()
        self.moves = self.tty and environment.get("TERM", "") not in ("", "dumb")
        """Whether the cursor can be moved."""
        self.palette = Palette(self.moves and not environment.get("NO_COLOR"))

    @property
    def width(self) -> int | None:
        """How many columns it has; None where there is no terminal, and nothing is to be cut."""
        return self._size().columns if self.tty else None

    @property
    def height(self) -> int | None:
        """How many lines it has."""
        return self._size().lines if self.tty else None

    def _size(self) -> os.terminal_size:
        try:
            size = os.get_terminal_size(self._stream.fileno())
        except (OSError, ValueError):
            size = os.terminal_size((0, 0))
        # a serial console tells no size
        told = shutil.get_terminal_size()
        return os.terminal_size((size.columns or told.columns, size.lines or told.lines))

    def say(self, lines: Sequence[str]) -> None:
        """Write lines, and have them seen now."""
        self._stream.write("".join(f"{line}\n" for line in lines))
        self._stream.flush()

    def frame(self, lines: Sequence[str], *, first: bool) -> None:
        """Write lines in place of all that is on the screen; the cursor is hidden only within this one write."""
        start = _HIDE + _HOME + (_CLEAR if first else "")
        self._stream.write(start + "".join(f"{line}{_TO_END}\n" for line in lines) + _REST + _SHOW)
        self._stream.flush()

    def line(self, text: str) -> None:
        """Write one line in place of the last that was written so."""
        self._stream.write(f"\r{text}{_TO_END}")
        self._stream.flush()

    def restore(self) -> None:
        """Show the cursor, wherever a write was interrupted."""
        if self.moves:
            self._stream.write("\x1b[0m" + _SHOW)
            self._stream.flush()


def standard_output() -> Screen:
    """Return where this program's answers go."""
    return Screen(sys.stdout, os.environ)


def standard_error() -> Screen:
    """Return where it tells people what goes on."""
    return Screen(sys.stderr, os.environ)


def read_no_more() -> None:
    """Have Python not complain when it flushes at exit what nobody reads."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def repeat(
    screen: Screen,
    draw: Callable[[Screen], Sequence[str]],
    every: float,
    *,
    times: int | None = None,
    stamped: bool = True,
    more: str = "",
) -> None:
    """Show what `draw` returns every so many seconds, in place on a terminal, else one after the other; end at Ctrl-C.

    `times` bounds how often. `stamped` puts the time before each; without it each is JSON, what goes wrong too. `more` says
    what to do where a screen is too small. Raises ControlError where the very first answer can not be had; a later one that
    can not says so and is tried again.
    """
    count = 0
    try:
        while True:
            began = time.monotonic()
            try:
                lines = list(draw(screen))
            except ControlError as error:
                if not count:
                    raise
                lines = [f"mobility: {printable(str(error))}"] if stamped else [json.dumps({"error": str(error)})]
            count += 1
            stamp = [utc(time.time())] if stamped else []
            if screen.moves:
                # a line that the terminal wrapped would push the first ones out of it
                whole = [part for line in [*stamp, *lines] for part in within(line, screen.width)]
                found = fitting(whole, screen.height, more, screen.width)
                screen.frame(found, first=count == 1)
            else:
                screen.say([*stamp, *lines, *([""] if stamped else [])])
            if times is not None and count >= times:
                return
            time.sleep(max(every, REST_AT_LEAST * (time.monotonic() - began)))
    except KeyboardInterrupt:
        return  # that is how one ends it
    finally:
        screen.restore()
