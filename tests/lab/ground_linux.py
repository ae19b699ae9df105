"""The lab on Linux: a lab kernel that plays FreeBSD on network namespaces."""

from __future__ import annotations

import os
from pathlib import Path

from tests.lab.fib_linux import LinuxFib
from tests.lab.kernel import client as lab_kernel
from tests.lab.watch import Fib


class LinuxGround:
    """A lab kernel of our own; `kernel` names what it plays (tests.lab.kernel.releases), "" the usual one."""

    def __init__(self, kernel: str = "") -> None:
        if os.geteuid() != 0:
            raise PermissionError("the lab needs root: it makes network namespaces")
        self._kernel = lab_kernel.launch(kernel=kernel) if kernel else lab_kernel.launch()
        self.folder = self._kernel.directory
        self.commands: tuple[Path, ...] = (self._kernel.bin, Path("/usr/bin"), Path("/bin"))

    def enter(self, node: str) -> list[str]:
        """Return the argv prefix that runs a program in a node."""
        return self._kernel.enter(node)

    def environment(self) -> dict[str, str]:
        """Return an environment in whose PATH FreeBSD's commands are."""
        return self._kernel.environment()

    def fib(self, node: str) -> Fib:
        """Return the routes of a node's kernel, followed as they change."""
        return LinuxFib(self._kernel.namespaces(node)[0])

    def close(self) -> None:
        """End everything that runs on the machine, and the machine."""
        self._kernel.stop()
