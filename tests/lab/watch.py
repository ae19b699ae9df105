"""Waiting for news instead of sleeping: a process's output, files in a folder, the routes of a kernel.

The routes are followed by `fib_linux` and `ground_freebsd`, each in its kernel's own way.
"""

from __future__ import annotations

import contextlib
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

from tests.waiting import PATIENCE

TAIL_LINES = 30


class NotInTime(AssertionError):
    """What was waited for did not happen; the text says what, and what was there instead."""


class Process:
    """A running program whose output goes to a file, and whose every line is news to those who wait."""

    def __init__(self, name: str, process: subprocess.Popen[str], log: Path) -> None:
        self.name = name
        self.process = process
        self.log = log
        self._news = threading.Condition()
        self._lines = 0
        self._reader = threading.Thread(target=self._read, name=f"log of {name}", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.log.open("a", buffering=1) as log:
            for line in self.process.stdout:
                log.write(line)
                self.poke()
        self.process.wait()
        self.poke()

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def poke(self) -> None:
        """Make those who wait look again."""
        with self._news:
            self._lines += 1
            self._news.notify_all()

    def await_(self, check: Callable[[], bool], what: str, timeout: float) -> None:
        """Wait until `check` holds, looking again at each line of output. NotInTime if it ends or takes too long."""
        deadline = time.monotonic() + timeout
        while True:
            seen = self._lines
            # without the lock: a check may ask the program, which must be able to say more meanwhile
            if check():
                return
            left = deadline - time.monotonic()
            if left <= 0 or not self.running:
                why = f"took more than {timeout:g} s" if self.running else f"ended ({self.process.returncode})"
                raise NotInTime(f"{self.name} {why}: no {what}\n{self.tail()}")
            with self._news:
                self._news.wait_for(lambda: self._lines != seen or not self.running, left)  # noqa: B023

    def tail(self) -> str:
        """The last lines of its output."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "\n".join([f"--- {self.log}", *lines[-TAIL_LINES:]])

    def end(self, number: int, timeout: float) -> int:
        """Send it a signal and wait for its end; return its status. NotInTime if it lives on."""
        if self.running:
            self.process.send_signal(number)
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise NotInTime(f"{self.name} lives {timeout:g} s after signal {number}\n{self.tail()}") from None
        self._reader.join(timeout)
        return status


@contextlib.contextmanager
def poked_by(process: Process, folder: Path) -> Iterator[None]:
    """For the length of a `with` block, let every change in a folder be news to those who wait for `process`."""

    class Poke(FileSystemEventHandler):
        def on_any_event(self, event: FileSystemEvent) -> None:
            process.poke()

    observer = Observer()
    observer.schedule(Poke(), str(folder))
    observer.start()
    try:
        yield
    finally:
        observer.stop()
        observer.join()


@dataclass(frozen=True, slots=True)
class Change:
    """A route that came or went: when (monotonic seconds), its prefix, its next hop ("" for an interface)."""

    when: float
    gone: bool
    prefix: str
    via: str


class Fib(ABC):
    """The routes of one vnet's kernel, followed as they change.

    `changes` collects every change since it was last cleared.
    """

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self._routes: dict[str, set[str]] = {}

    @abstractmethod
    def _take(self, timeout: float) -> None:
        """Bring the routes up to date; wait up to `timeout` seconds for the first change."""

    @abstractmethod
    def close(self) -> None:
        """Stop following."""

    def routes(self) -> dict[str, set[str]]:
        """Every prefix and its next hops, as of now."""
        self._take(0)
        return {prefix: set(hops) for prefix, hops in self._routes.items()}

    def has(self, prefix: str, via: str | None = None) -> bool:
        """Whether there is a route to exactly this prefix, over this next hop if one is named."""
        self._take(0)
        return self._stands(prefix, via)

    def wait(self, prefix: str, *, via: str | None = None, gone: bool = False, timeout: float = PATIENCE) -> float:
        """Wait until a route stands (or is gone); return the monotonic time at which this was seen."""
        return self.wait_for(
            lambda: self._stands(prefix, via) != gone,
            f"{'end of the ' if gone else ''}route to {prefix}" + (f" via {via}" if via else ""),
            timeout,
        )

    def wait_for(self, check: Callable[[], bool], what: str, timeout: float = PATIENCE) -> float:
        """Wait until `check` holds, looking again at each change; return the monotonic time at which it did."""
        deadline = time.monotonic() + timeout
        self._take(0)
        while not check():
            left = deadline - time.monotonic()
            if left <= 0:
                raise NotInTime(f"no {what} within {timeout:g} s; there are {self._routes}")
            self._take(left)
        return time.monotonic()

    def _stands(self, prefix: str, via: str | None) -> bool:
        hops = self._routes.get(prefix)
        return bool(hops) and (via is None or via in (hops or ()))
