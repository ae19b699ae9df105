"""`python -m tests.lab.clean`: end what labs left behind whose kernel did not end in order (kill -9).

On FreeBSD this is `ground_freebsd.clean`; what follows is for Linux. A lab kernel ends by itself when its owner is gone; this
is for when it could not. Labs whose kernel runs are left alone, and so is every process that is not provably of a lab:
everything of a lab is in a UTS namespace that bears its name.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
from pathlib import Path

from tests.lab import ground_freebsd
from tests.lab.ground import FREEBSD
from tests.lab.kernel import processes
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


def members(directory: Path) -> list[int]:
    """The processes that are in a lab's UTS namespaces: each bears the lab's name as its domain name."""
    found = []
    for pid in processes.pids():
        try:
            if _domain_name(pid) == directory.name:
                found.append(pid)
        except OSError:
            continue  # it ended while it was looked at
    return found


def left_behind() -> set[int]:
    """The UTS namespaces (inode numbers) that bear the name of a lab which does not live, and that processes are in."""
    found: set[int] = set()
    seen = {processes.inode("self", "uts"), None}
    for pid in processes.pids():
        number = processes.inode(pid, "uts")
        if number in seen:
            continue
        seen.add(number)
        try:
            name = _domain_name(pid)
        except OSError:
            continue  # it ended while it was looked at
        # judged now, not once for all: a lab may have begun since
        if number is not None and name.startswith(TAG) and not alive(Path(PREFIX).parent / name):
            found.add(number)
    return found


def clean() -> list[str]:
    """Kill what dead labs left, remove their directories; answer what was done, in sentences."""
    said = []
    spaces = left_behind()
    count = processes.kill_in(spaces)
    if count:
        said.append(f"killed {count} processes in {len(spaces)} namespaces that labs left behind")
    for directory in sorted(Path(PREFIX).parent.glob(f"{TAG}*")):
        if alive(directory):
            said.append(f"{directory}: its kernel runs: left alone")
            continue
        with contextlib.suppress(FileNotFoundError):  # its own runner removes it at this moment
            shutil.rmtree(directory)
        said.append(f"{directory}: removed")
    return said


def _domain_name(pid: int) -> str:
    from tests.lab.kernel import syscalls  # with ctypes, for Linux's own

    space = os.open(f"/proc/{pid}/ns/uts", os.O_RDONLY | os.O_CLOEXEC)
    try:
        with syscalls.inside(space, syscalls.CLONE_NEWUTS):
            return DOMAIN_NAME.read_text().strip()
    finally:
        os.close(space)


def main() -> int:
    """Clean, and say what was done; 1 without the rights."""
    if os.geteuid() != 0:
        print("labs are made by root, so only root can clean up after them: nothing done", file=sys.stderr)
        return 0 if not list(Path(PREFIX).parent.glob(f"{TAG}*")) else 1
    for line in ground_freebsd.clean() if FREEBSD else clean():
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
