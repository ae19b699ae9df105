"""The lab kernel as jail(8) sees it."""

from __future__ import annotations

import os
from pathlib import Path

from tests.lab.jail8.run import JailError
from tests.lab.kernel.client import Kernel, KernelError
from tests.lab.kernel.errors import Refused
from tests.lab.kernel.parameters import canonical

FIRST_WITH_INCLUDE = 1400000


class LabMachine:
    """`run.Machine` on the lab kernel whose folder is `directory`, seen from the caller's own jail."""

    def __init__(self, directory: str) -> None:
        self._kernel = Kernel(directory)
        self.commands = f"{directory}/bin"

    def find(self, name: str, *, dying: bool = False) -> int | None:
        """Return the jid of a running jail, by its name or its jid in digits."""
        try:
            return int(self._kernel.jail_get(name, dying=dying)["jid"])
        except KernelError as error:
            if error.errno == "ENOENT":
                return None
            raise JailError(str(error)) from error

    def includes(self) -> bool:
        """Return whether this release's jail.conf has `.include`: from 14.0 on."""
        return int(self._kernel.release()["osreldate"]) >= FIRST_WITH_INCLUDE

    def names(self) -> list[str]:
        """Return the names of the running jails."""
        return [jail["name"] for jail in self._kernel.jails()]

    def check(self, parameters: dict[str, str | None]) -> list[str]:
        """Return what is wrong with kernel parameters before any of them is used (jailparam_import)."""
        wrong = []
        for name, value in parameters.items():
            try:
                canonical({name: value or ""})
            except Refused as refused:
                wrong.append(refused.message)
        return wrong

    def create(self, parameters: dict[str, str | None]) -> int:
        """Make a jail, return its jid."""
        try:
            return self._kernel.jail_create(parameters)
        except KernelError as error:
            raise JailError(str(error)) from error

    def change(self, jid: int, parameters: dict[str, str | None]) -> None:
        """Change parameters of a jail."""
        try:
            self._kernel.jail_set(str(jid), parameters)
        except KernelError as error:
            raise JailError(str(error)) from error

    def remove(self, jid: int) -> None:
        """Remove a jail; one that is gone, or dying already, is no error."""
        try:
            self._kernel.jail_remove(str(jid))
        except KernelError as error:
            if error.errno != "ENOENT":
                raise JailError(str(error)) from error

    def processes(self, jid: int) -> list[int]:
        """Return the pids of the processes in a jail, not those in its children, by their UTS namespace."""
        try:
            wanted = Path(self._kernel.namespaces(str(jid))[1]).stat().st_ino
        except KernelError:
            return []  # a dying jail has none
        found = []
        for process in Path("/proc").iterdir():
            try:
                if process.name.isdigit() and Path(process, "ns/uts").stat().st_ino == wanted:
                    found.append(int(process.name))
            except OSError:
                continue  # it ended meanwhile
        return found

    def attach(self, jid: int, path: str) -> None:
        """Put the calling process into a jail, whose root is `path` (jail_attach(2))."""
        from tests.lab.kernel import syscalls  # ctypes is slow to load, few need it

        try:
            namespaces = self._kernel.namespaces(str(jid))
        except KernelError as error:
            raise JailError(f"jail_attach: {error}") from error
        for name, kind in zip(namespaces, (syscalls.CLONE_NEWNET, syscalls.CLONE_NEWUTS), strict=True):
            descriptor = os.open(name, os.O_RDONLY)
            syscalls.setns(descriptor, kind)
            os.close(descriptor)
        os.chdir(path)
        if path != "/":
            os.chroot(".")
