"""What goes on while an operator waits: one line on standard error that changes, on a terminal only, and is gone at the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mobility import control
from mobility.terminal.screen import Screen, standard_error
from mobility.terminal.text import cut, printable

EVERY = 0.5
"""Seconds between two looks at what has come of it."""
AFTER = 0.3
"""Seconds for which nothing is said: what is quick needs no progress."""
ASK_WITHIN = 2.0
"""Seconds in which the agent should say how far it is; else the line tells only the time."""


class Progress:
    """Shows what `say` returns for the seconds gone by, until the end of the block; nothing where it is not `shown`."""

    def __init__(self, say: Callable[[float], str], *, shown: bool = True, screen: Screen | None = None) -> None:
        self._say = say
        self._screen = screen or standard_error()
        self.shown = shown and self._screen.moves
        self._over = threading.Event()
        self._writing = threading.Lock()
        self._wrote = False

    def __enter__(self) -> Self:
        if self.shown:
            threading.Thread(target=self._run, name="progress", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        with self._writing, suppress(OSError, ValueError):
            if self._wrote:
                self._screen.line("")

    def _run(self) -> None:
        began = time.monotonic()
        wait = AFTER
        while not self._over.wait(wait):
            wait = EVERY
            text = printable(self._say(time.monotonic() - began))
            with self._writing, suppress(OSError, ValueError):  # nobody looks any more
                if self._over.is_set():
                    return
                self._wrote = True
                self._screen.line(cut(text, (self._screen.width or 80) - 1))


class Steps:
    """Progress of many things that are done one after the other: which of how many, and its name."""

    def __init__(self, what: str, total: int, *, shown: bool = True, screen: Screen | None = None) -> None:
        self._what = what
        self._total = total
        self._done = 0
        self._name = ""
        self._progress = Progress(self._text, shown=shown and total > 1, screen=screen)
        self.shown = self._progress.shown

    def __enter__(self) -> Self:
        self._progress.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.__exit__(kind, error, trace)

    def begin(self, name: str) -> None:
        """Say that the next one is begun."""
        self._done += 1
        self._name = name

    def _text(self, _: float) -> str:
        return f"{self._what}: {self._done} of {self._total}: {self._name}"


def asked(path: Path) -> dict[str, Any]:
    """Return how far the agent is, nothing where it does not say."""
    try:
        return control.request(path, "progress", answer_within=ASK_WITHIN)
    except control.ControlError:
        return {}


def of_drain(path: Path, within: float, *, shown: bool) -> Progress:
    """Return the progress of a drain that takes `within` seconds at most."""
    progress = Progress(lambda seconds: drain_line(before, asked(path), seconds, within), shown=shown)
    before = asked(path) if progress.shown else {}
    return progress


def drain_line(before: Mapping[str, Any], now: Mapping[str, Any], seconds: float, within: float) -> str:
    """Return how far a drain is: `before` and `now` are the agent's `progress`, before it began and now."""
    left = max(0.0, within - seconds)
    bound = f"at most {left:.0f} s more"
    if not now or not before:
        return f"draining: {seconds:.0f} s, {bound}"
    first, still = before["announced"], now["announced"]
    leaving = max(now["draining"].values(), default=0.0)
    if leaving > 0:
        return f"draining: {still} addresses are announced with GRACEFUL_SHUTDOWN for {leaving:.0f} s more; {bound}"
    return f"draining: {max(0, first - still)} of {first} addresses withdrawn, {now['differing']} routes under way; {bound}"
