"""The machine that the lab stands on, as the scenarios know it.

Only what differs between machines is here: on Linux a lab kernel plays FreeBSD (`ground_linux`), on FreeBSD the machine is
one (`ground_freebsd`). What the lab builds on it, and how, is the same: FreeBSD's commands (`topology`).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Protocol
from unittest import SkipTest

from tests.lab.watch import Fib

FREEBSD = sys.platform.startswith("freebsd")
#: An interpreter that every user can reach, wherever this repository and its venv lie. FreeBSD's packages have no `python3`.
SYSTEM_PYTHON = f"/usr/local/bin/python{sys.version_info[0]}.{sys.version_info[1]}" if FREEBSD else "/usr/bin/python3"


class Ground(Protocol):
    """The machine, and how programs are run in its parts (a node's name; "" is the machine)."""

    #: A folder for the lab's files, which every user may enter.
    folder: Path
    #: Where FreeBSD's commands are.
    commands: tuple[Path, ...]

    def enter(self, node: str) -> list[str]:
        """Return the argv prefix that runs a program in a node."""

    def environment(self) -> dict[str, str]:
        """Return an environment in whose PATH FreeBSD's commands are."""

    def fib(self, node: str) -> Fib:
        """Return the routes of a node's kernel, followed as they change."""

    def close(self) -> None:
        """End everything that runs on the machine, and the machine."""


def of_this_machine(kernel: str = "") -> Ground:
    """Return the ground that this machine offers.

    `kernel` names which FreeBSD it is to play (tests.lab.kernel.releases), "" the usual one; on FreeBSD the kernel is what
    it is, and a test of another one is skipped.
    """
    # each ground imports what the other machine may not have
    if FREEBSD:
        from tests.lab.ground_freebsd import FreeBSDGround

        if kernel:
            raise SkipTest(f"kernel {kernel}: on FreeBSD the machine's own kernel runs, the lab plays none")
        return FreeBSDGround()
    from tests.lab.ground_linux import LinuxGround

    return LinuxGround(kernel)


def linux_only(why: str) -> None:
    """Skip the test that calls this where the machine is no Linux; `why` says what it needs of one."""
    if sys.platform != "linux":
        raise SkipTest(f"on Linux only: {why}")
