"""Running one of FreeBSD's commands: no shell, clean environment, a time limit, bounded output.

What runs through jexec(8) is the jail's own program run by our root, so nothing of ours may leak into it and nothing
it prints is trusted (DESIGN.md, decision 14).
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

OUTPUT_LIMIT = 64 * 1024 * 1024
"""Bytes of output taken from the host's own commands: `netstat -rn` of 100,000 routes is some 15 MB as JSON."""
KILLED_WITHIN = 1.0
"""Seconds for which a killed command is waited for."""
JAIL_OUTPUT_LIMIT = 256 * 1024
"""Bytes of output taken from a jail."""
_CHUNK = 65536


class CommandError(Exception):
    """A command could not be run to its end: missing, too slow, or too talkative."""

    def __init__(self, argv: Sequence[str], reason: str) -> None:
        self.argv = tuple(argv)
        self.reason = reason
        super().__init__(f"{' '.join(argv)}: {reason}")


@dataclass(frozen=True, slots=True)
class Result:
    """How a command ended: exit status, output, and how long it took in seconds."""

    argv: tuple[str, ...]
    status: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def complaint(self) -> str:
        """The command's own words on what went wrong, on one line."""
        words = self.stderr.strip() or self.stdout.strip() or f"exit status {self.status}"
        return "; ".join(line.strip() for line in words.splitlines())


def find(name: str, directories: Sequence[Path]) -> Path:
    """Return the program `name` in the first of `directories` that has it.

    Raises CommandError where none has.
    """
    for directory in directories:
        program = directory / name
        if os.access(program, os.X_OK):
            return program
    raise CommandError([name], f"not found in {', '.join(map(str, directories))}: see paths.commands in mobility.toml")


def run(argv: Sequence[str], directories: Sequence[Path], *, timeout: float, limit: int = OUTPUT_LIMIT) -> Result:
    """Run `argv` to its end and return what it answered; exit statuses are for the caller to judge.

    `timeout` is in seconds. On timeout, or past `limit` bytes of output, the whole process group is killed.
    Raises CommandError when the command is missing, can not be started, takes too long or says too much.
    """
    program = find(argv[0], directories)
    started = time.monotonic()
    environment = {"PATH": ":".join(map(str, directories)), "HOME": "/", "LC_ALL": "C"}
    try:
        process = subprocess.Popen(
            [str(program), *argv[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            cwd="/",
            start_new_session=True,
        )
    except OSError as error:
        raise CommandError(argv, f"can not be started: {error.strerror}") from error
    try:
        out, err = _collect(process, argv, started + timeout, limit)
        status = process.wait(max(0.0, started + timeout - time.monotonic()) + 0.01)
    except subprocess.TimeoutExpired as error:
        _kill(process)
        raise CommandError(argv, f"no answer within {timeout:g} s; killed") from error
    except BaseException:
        _kill(process)
        raise
    finally:
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
    return Result(
        tuple(argv),
        status,
        out.decode("utf-8", "replace"),
        err.decode("utf-8", "replace"),
        time.monotonic() - started,
    )


def _collect(process: subprocess.Popen[bytes], argv: Sequence[str], deadline: float, limit: int) -> list[bytearray]:
    collected: dict[int, bytearray] = {}
    taken = 0
    with selectors.DefaultSelector() as selector:
        for pipe in (process.stdout, process.stderr):
            assert pipe is not None  # noqa: S101  # both were asked for as pipes
            collected[pipe.fileno()] = bytearray()
            selector.register(pipe, selectors.EVENT_READ)
        while selector.get_map():
            left = deadline - time.monotonic()
            ready = selector.select(left) if left > 0 else []
            if not ready:
                raise subprocess.TimeoutExpired(list(argv), 0)
            for key, _ in ready:
                data = os.read(key.fd, _CHUNK)
                if not data:
                    selector.unregister(key.fileobj)
                    continue
                taken += len(data)
                if taken > limit:
                    collected.clear()  # the error may live long, in a task or a retry, and this frame with it
                    raise CommandError(argv, f"said more than {limit} bytes; killed")
                collected[key.fd] += data
    return [*collected.values()]


def _kill(process: subprocess.Popen[bytes]) -> None:
    # its own session (start_new_session), so the group is this command and what it started, nothing else
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    # one that waits for a dead disk can not die yet: subprocess reaps it when it does
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(KILLED_WITHIN)
