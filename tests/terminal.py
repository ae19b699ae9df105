"""A terminal for tests: a program runs on a real pty(4), and what a person would see of it is kept."""

from __future__ import annotations

import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

SECONDS = 20.0
_ESCAPE = re.compile(rb"\x1b\[(\??[0-9;]*)([A-Za-z])")
_WHOLE = re.compile(
    rb"(?:\x1b\[\??[0-9;]*[A-Za-z]|[\x00-\x1a\x1c-\x7f]|[\xc2-\xdf].|[\xe0-\xef]..|[\xf0-\xf4]...)*", re.DOTALL
)
_TOKEN = re.compile(rb"\x1b\[\??[0-9;]*[A-Za-z]|[\r\n]|[^\x1b\r\n]+|\x1b")


class Picture:
    """What stands on the screen: the few escapes that we send (ECMA-48) are done, any other is a failure."""

    def __init__(self, columns: int) -> None:
        self._columns = columns
        self.lines: list[str] = [""]
        self.cursor_shown = True
        self._row = self._column = 0

    def feed(self, data: bytes) -> None:
        for token in _TOKEN.findall(data):
            escape = _ESCAPE.fullmatch(token)
            if escape:
                self._escape(escape[1].decode(), escape[2].decode())
            elif token == b"\r":
                self._column = 0
            elif token == b"\n":
                self._row += 1
                self._grow()
            else:
                self._write(token.decode())

    def _grow(self) -> None:
        while len(self.lines) <= self._row:
            self.lines.append("")

    def _write(self, text: str) -> None:
        assert text.isprintable(), f"raw on the terminal: {text!r}"
        assert self._column + len(text) <= self._columns, f"wider than {self._columns}: {text!r}"
        line = self.lines[self._row].ljust(self._column)
        self.lines[self._row] = line[: self._column] + text + line[self._column + len(text) :]
        self._column += len(text)

    def _escape(self, argument: str, letter: str) -> None:
        match argument, letter:
            case ("?25", "h" | "l"):
                self.cursor_shown = letter == "h"
            case ("", "H"):
                self._row = self._column = 0
            case ("2", "J"):
                self.lines = [""]
            case ("", "J"):
                self.lines = [*self.lines[: self._row], self.lines[self._row][: self._column]]
            case ("", "K"):
                self.lines[self._row] = self.lines[self._row][: self._column]
            case (_, "m"):
                pass
            case _:
                raise AssertionError(f"an escape that nobody expects: {argument}{letter}")

    @property
    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self.lines).rstrip()


class Terminal:
    """A program on a pty of its own, its session's controlling terminal: Ctrl-C is what it is for a person."""

    def __init__(
        self,
        argv: Sequence[str | Path],
        *,
        columns: int = 80,
        lines: int = 24,
        environment: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.raw = b""
        self._rest = b""
        self.picture = Picture(columns)
        self._master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        env = {**os.environ, "TERM": "xterm", **(environment or {})}
        for name in ("COLUMNS", "LINES", *(() if environment and "NO_COLOR" in environment else ("NO_COLOR",))):
            env.pop(name, None)
        self.process = subprocess.Popen(
            [sys.executable, "-c", _BECOME, *map(str, argv)],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=env,
            cwd=cwd,
            start_new_session=True,
        )
        os.close(slave)

    def read(self, seconds: float) -> bool:
        """Take what comes within some seconds; tell whether anything did, and not the end."""
        if not select.select([self._master], [], [], seconds)[0]:
            return False
        try:
            data = os.read(self._master, 65536)
        except OSError:  # EIO: nobody has the other side open any more (pty(4) of Linux; FreeBSD reads the end)
            data = b""
        self.raw += data
        # an escape, or a letter of several bytes, may come in two parts
        self._rest += data
        whole = _WHOLE.match(self._rest)
        if whole:
            self.picture.feed(whole[0])
            self._rest = self._rest[whole.end() :]
        return bool(data)

    def until(self, check: Callable[[], bool], what: str) -> None:
        """Read until `check` holds."""
        end = time.monotonic() + SECONDS
        while not check():
            assert time.monotonic() < end, f"{what}; there is:\n{self.picture.text}\n{self.raw!r}"
            if not self.read(0.2) and self.process.poll() is not None:
                assert check(), f"{what}; it ended with {self.process.returncode}:\n{self.picture.text}"

    def press(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def interrupt(self) -> int:
        """Press Ctrl-C, and return the exit status."""
        self.press(b"\x03")
        return self.wait()

    def wait(self) -> int:
        """Read to its end, and return the exit status."""
        self.until(lambda: self.process.poll() is not None, "its end")
        while self.read(0.0):
            pass
        return self.process.returncode

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        os.close(self._master)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


#: Takes the pty as the session's controlling terminal (tty(4), TIOCSCTTY), and becomes the program.
_BECOME = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execvp(sys.argv[1], sys.argv[1:])"
