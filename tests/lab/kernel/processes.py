"""Processes by the namespaces they are in, from /proc (proc(5), pidfd_open(2))."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterator
from pathlib import Path

KILL_WAIT = 5.0  # seconds that a killed process may take to be gone


def inode(pid: int | str, kind: str) -> int | None:
    """The inode number of a process's namespace (kind "net" or "uts"), or None where it is gone or has none."""
    try:
        target = os.readlink(f"/proc/{pid}/ns/{kind}")  # noqa: PTH115 - a Path for each would cost more than the rest
    except OSError:
        return None  # it ended meanwhile, is a zombie, or may not be looked at
    return int(target[target.index("[") + 1 : -1])


def pids() -> Iterator[int]:
    """Every process there is."""
    for name in os.listdir("/proc"):  # noqa: PTH208 - a thousand Paths would be slower than the work
        if name.isdecimal():
            yield int(name)


def start_time(pid: int) -> int:
    """When a process started, in clock ticks after boot (proc_pid_stat(5)); OSError where there is none, or a zombie."""
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    fields = stat.rpartition(")")[2].split()  # from field 3 on; field 2, in parentheses, may hold anything
    if fields[0] in "ZX":
        raise ProcessLookupError(f"process {pid} is a zombie")
    return int(fields[19])


def kill_in(uts: set[int], net: set[int] | None = None) -> int:
    """Kill -9 every process in these UTS (or network) namespaces, and wait until they are gone; answer how many.

    Again and again until a look finds none, because a process may fork while it is being looked for.
    """
    deadline = time.monotonic() + KILL_WAIT
    count = 0
    mine = os.getpid()
    while time.monotonic() < deadline:
        waiting: list[int] = []
        for pid in pids():
            if pid == mine or not (inode(pid, "uts") in uts or (net and inode(pid, "net") in net)):
                continue
            try:
                descriptor = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
            if inode(pid, "uts") in uts or (net and inode(pid, "net") in net):  # still the one that was found
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                    count += 1
            waiting.append(descriptor)
        if not waiting:
            return count
        for descriptor in waiting:
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
            os.close(descriptor)
    raise TimeoutError(f"processes in namespaces {sorted(uts)} do not die")
