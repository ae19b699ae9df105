"""A machine of the ground: a network, a mount and a pid namespace of its own.

A process that dies with us, however we die, holds them; with it dies everything that runs there. No name of anything is
shared with other nodes, so that two grounds may stand at once.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.lab.watch import Process

REPOSITORY = Path(__file__).resolve().parents[2]
WAIT = 40.0
"""Seconds for whatever should come to pass."""
_HOLD = """\
set -eu
for folder; do
    mount -t tmpfs -o mode=755 own "${folder%/*}"
    mkdir "$folder"
done
ip link set lo up
echo ready
exec sleep infinity
"""


@dataclass(frozen=True, slots=True)
class Link:
    """A wire between a host and a router, with what both configure for the session over it."""

    host: str
    host_as: int
    host_address: str
    router: str
    router_address: str
    router_interface: str


class Node:
    """A machine. `own_folders`: where its program keeps files whatever it is told; only it sees what is beside them."""

    def __init__(self, folder: Path, name: str, own_folders: Sequence[str] = ()) -> None:
        self.name = name
        self.folder = folder / name
        self.folder.mkdir()
        hold = ["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "--mount", "--pid", "--fork", "--kill-child"]
        self._holder = subprocess.Popen(
            [*hold, "sh", "-c", _HOLD, "hold", *own_folders], stdout=subprocess.PIPE, text=True
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "ready\n", f"no namespaces for {name}"
        self.pid = children(self._holder.pid)[0]

    @property
    def prefix(self) -> list[str]:
        """The argv prefix that runs a program here."""
        spaces = [
            f"--{kind}=/proc/{self.pid}/ns/{file}" for kind, file in (("net", "net"), ("mount", "mnt"), ("pid", "pid"))
        ]
        return ["nsenter", *spaces, f"--wdns={REPOSITORY}", "--"]

    def run(self, *argv: str | Path) -> str:
        """Run a program here to its end; return what it prints. RuntimeError where it fails."""
        command = [*self.prefix, *map(str, argv)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            raise RuntimeError(f"{self.name}: {argv}: {result.stdout}{result.stderr}")
        return result.stdout

    def service(self, name: str, argv: Sequence[str | Path]) -> Process:
        """Start a long-running program here; its output goes to NAME.log."""
        process = subprocess.Popen(
            [*self.prefix, *map(str, argv)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        return Process(f"{name} on {self.name}", process, self.folder / f"{name}.log")

    def close(self) -> None:
        """End all that runs here."""
        self._holder.kill()
        self._holder.wait()


def children(pid: int) -> list[int]:
    """Return the processes that `pid` has started (proc(5))."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def end(process: Process, number: signal.Signals = signal.SIGTERM) -> None:
    """End a program that `Node.service` has started, by a signal to the program itself: nsenter(1) stands before it."""
    os.kill(children(process.process.pid)[0], number)
    process.process.wait(WAIT)
