"""`python -m tests.lab.clean`: end what labs left behind whose kernel did not end in order (kill -9).

A lab kernel ends by itself when its owner is gone; this is for when it could not. Labs whose kernel runs are left alone,
and so is every process that is not provably of a lab: it is in a UTS namespace that bears a lab's name, or in a network
namespace that a dead lab recorded, no living lab has, and whose loopback interface is called lo0.
"""

from __future__ import annotations

import os
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.lab.kernel import processes, syscalls
from tests.lab.kernel.client import PREFIX, START_SECONDS

TAG = Path(PREFIX).name
DOMAIN_NAME = Path("/proc/sys/kernel/domainname")


def alive(directory: Path) -> bool:
    """Whether a lab's kernel runs, or may just be starting."""
    try:
        pid, started = map(int, (directory / "kernel.pid").read_text().split())
        return processes.start_time(pid) == started
    except FileNotFoundError:
        if (directory / "kernel.pid").exists():
            return False  # it was written, and there is no such process
        return directory.exists() and time.time() - directory.stat().st_mtime < START_SECONDS
    except (OSError, ValueError):
        return False


def recorded(directory: Path) -> set[int]:
    """The inode numbers of the namespaces that a lab made."""
    try:
        return {int(line) for line in (directory / "namespaces").read_text().split()}
    except FileNotFoundError:
        return set()


def members(directory: Path) -> list[int]:
    """The processes that are provably in a lab's namespaces. A recorded inode number alone proves nothing: Linux gives
    it to somebody else's namespace as soon as the lab's is gone.
    """
    numbers = recorded(directory)
    found = []
    for pid in processes.pids():
        try:
            name = _domain_name(pid)
            in_net = processes.inode(pid, "net") in numbers and not name.startswith(TAG) and _has_lo0(pid)
        except OSError:
            continue  # it ended while it was looked at
        if name == directory.name or in_net:
            found.append(pid)
    return found


def left_behind(labs: list[Path]) -> set[tuple[str, int]]:
    """The namespaces of dead labs that processes are still in: ("uts" or "net", inode number)."""
    living = {directory.name for directory in labs if alive(directory)}
    theirs = set().union(*(recorded(directory) for directory in labs if directory.name in living))
    dead = set().union(*(recorded(directory) for directory in labs if directory.name not in living)) - theirs
    found: set[tuple[str, int]] = set()
    for pid, kind, number in _others():
        try:
            if kind == "uts":
                name = _domain_name(pid)
                if name.startswith(TAG) and name not in living:
                    found.add((kind, number))
            elif number in dead and _has_lo0(pid):
                found.add((kind, number))
        except OSError:
            continue  # it ended while it was looked at
    return found


def clean() -> list[str]:
    """Kill what dead labs left, remove their directories; answer what was done, in sentences."""
    labs = sorted(Path(PREFIX).parent.glob(f"{TAG}*"))
    said = []
    spaces = left_behind(labs)
    count = processes.kill_in(
        {number for kind, number in spaces if kind == "uts"}, {number for kind, number in spaces if kind == "net"}
    )
    if count:
        said.append(f"killed {count} processes in {len(spaces)} namespaces that labs left behind")
    for directory in labs:
        if alive(directory):
            said.append(f"{directory}: its kernel runs: left alone")
        else:
            shutil.rmtree(directory)
            said.append(f"{directory}: removed")
    return said


def _others() -> Iterator[tuple[int, str, int]]:
    """One process for each UTS and network namespace that is not this process's own."""
    seen = {(kind, processes.inode("self", kind)) for kind in ("uts", "net")}
    for pid in processes.pids():
        for kind in ("uts", "net"):
            number = processes.inode(pid, kind)
            if number is not None and (kind, number) not in seen:
                seen.add((kind, number))
                yield pid, kind, number


def _domain_name(pid: int) -> str:
    space = os.open(f"/proc/{pid}/ns/uts", os.O_RDONLY | os.O_CLOEXEC)
    try:
        with syscalls.inside(space, syscalls.CLONE_NEWUTS):
            return DOMAIN_NAME.read_text().strip()
    finally:
        os.close(space)


def _has_lo0(pid: int) -> bool:
    space = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        with syscalls.inside(space):
            return "lo0" in {name for _number, name in socket.if_nameindex()}
    finally:
        os.close(space)


def main() -> int:
    """Clean, and say what was done; 1 without the rights."""
    if os.geteuid() != 0:
        print("labs are made by root, so only root can clean up after them: nothing done", file=sys.stderr)
        return 0 if not list(Path(PREFIX).parent.glob(f"{TAG}*")) else 1
    for line in clean():
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
