"""Python's side of the lab kernel's socket, and how to start one. See the package's docstring for the calls."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

PREFIX = "/tmp/mobility-lab."
REPOSITORY = Path(__file__).resolve().parents[3]
START_SECONDS = 20.0
_HEADER = struct.Struct("!I")


class KernelError(Exception):
    """What the lab kernel refused: FreeBSD's words, and the errno's name in *errno*."""

    def __init__(self, message: str, errno: str) -> None:
        super().__init__(message)
        self.errno = errno


class Kernel:
    """A running lab kernel, by its directory."""

    def __init__(self, directory: Path | str) -> None:
        self.directory = Path(directory)
        self.bin = self.directory / "bin"

    def call(self, name: str, **arguments: Any) -> Any:
        """Make one call and answer its value; KernelError if it is refused."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.connect(str(self.directory / "kernel.sock"))
            body = b"j" + json.dumps({"call": name, **arguments}).encode()
            connection.sendall(_HEADER.pack(len(body)) + body)
            (length,) = _HEADER.unpack(_receive(connection, _HEADER.size))
            answer = json.loads(_receive(connection, length)[1:])
        if "error" in answer:
            raise KernelError(answer["error"], answer["errno"])
        return answer["value"]

    def environment(self) -> dict[str, str]:
        """This process's environment with the lab's commands first in PATH."""
        path = f"{self.bin}:{os.environ.get('PATH', '/usr/bin:/bin')}"
        return {**os.environ, "PATH": path, "PERL_BADLANG": "0"}  # no word of a missing locale from the client

    def namespaces(self, jail: str = "", *, parent: str = "") -> tuple[str, str]:
        """Paths of a jail's network and UTS namespace."""
        net, uts = self.call("namespaces", jail=jail, parent=parent)
        return net, uts

    def enter(self, jail: str = "") -> list[str]:
        """The argv prefix that runs a program in a jail's vnet ("" is the machine)."""
        net, uts = self.namespaces(jail)
        return ["nsenter", f"--net={net}", f"--uts={uts}", "--"]

    def run(self, jail: str, arguments: Sequence[str | Path], **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a program to its end in a jail's vnet: subprocess.run with text, captured unless told otherwise."""
        settings: dict[str, Any] = {"env": self.environment(), "text": True, "check": False} | options
        if not options.keys() & {"capture_output", "stdout", "stderr"}:
            settings["capture_output"] = True
        done: subprocess.CompletedProcess[str] = subprocess.run([*self.enter(jail), *map(str, arguments)], **settings)
        return done

    def popen(self, jail: str, arguments: Sequence[str | Path], **options: Any) -> subprocess.Popen[str]:
        """Start a program in a jail's vnet: subprocess.Popen with text."""
        settings: dict[str, Any] = {"env": self.environment(), "text": True} | options
        process: subprocess.Popen[str] = subprocess.Popen([*self.enter(jail), *map(str, arguments)], **settings)
        return process

    def jail_create(self, parameters: Mapping[str, str | None], *, parent: str = "") -> int:
        """Make a jail below *parent*; answer its jid."""
        jid: int = self.call("jail_create", parameters=dict(parameters), parent=parent)
        return jid

    def jail_set(self, jail: str, parameters: Mapping[str, str | None], *, parent: str = "") -> None:
        """Change a jail's parameters."""
        self.call("jail_set", jail=jail, parameters=dict(parameters), parent=parent)

    def jail_remove(self, jail: str, *, parent: str = "") -> None:
        """Remove a jail: its processes are killed, its interfaces come home."""
        self.call("jail_remove", jail=jail, parent=parent)

    def jail_get(self, jail: str, *, parent: str = "", dying: bool = False) -> dict[str, str]:
        """A jail's parameters."""
        parameters: dict[str, str] = self.call("jail_get", jail=jail, parent=parent, dying=dying)
        return parameters

    def jails(self, *, parent: str = "", dying: bool = False) -> list[dict[str, str]]:
        """The parameters of every jail below *parent*."""
        jails: list[dict[str, str]] = self.call("jails", parent=parent, dying=dying)
        return jails

    def vnet_move(self, interface: str, jail: str, *, parent: str = "") -> None:
        """Move an interface into a vnet jail."""
        self.call("vnet_move", interface=interface, jail=jail, parent=parent)

    def vnet_return(self, interface: str, jail: str, *, parent: str = "") -> None:
        """Take an interface back out of a vnet jail."""
        self.call("vnet_return", interface=interface, jail=jail, parent=parent)

    def interfaces(self, jail: str = "") -> list[dict[str, Any]]:
        """The interfaces of a jail's vnet."""
        interfaces: list[dict[str, Any]] = self.call("interfaces", jail=jail)
        return interfaces

    def devd(self, jail: str = "") -> Path:
        """The socket of the devd that runs on the host *jail* (one with children.max); "" is the machine's."""
        return Path(self.call("devd", jail=jail))

    def devd_stop(self, jail: str = "") -> None:
        """Let a host's devd end."""
        self.call("devd_stop", jail=jail)

    def devd_start(self, jail: str = "") -> None:
        """Let a host's devd come back."""
        self.call("devd_start", jail=jail)

    def link_state(self, jail: str, interface: str, *, up: bool) -> None:
        """Pull the cable of an interface, or put it back: no carrier, nothing goes through either way."""
        self.call("link_state", jail=jail, interface=interface, up=up)

    def pace(self, times: float) -> None:
        """Have CARP and pfsync count so many seconds in one. Before there are vhids."""
        self.call("pace", pace=times)

    def carp(self, jail: str = "") -> list[dict[str, Any]]:
        """The vhids of a jail's vnet, and which interface of Linux has their addresses."""
        found: list[dict[str, Any]] = self.call("carp", jail=jail)
        return found

    def pfsync(self, jail: str = "", action: str = "") -> dict[str, Any]:
        """Ask how a vnet's bulk update is, or say so: "hold" and "release" them, "done", "fail" (see server.py)."""
        found: dict[str, Any] = self.call("pfsync", jail=jail, action=action)
        return found

    def release(self) -> dict[str, Any]:
        """What the kernel plays: its name here, "osrelease" and "osreldate"."""
        release: dict[str, Any] = self.call("release")
        return release

    def where(self) -> str:
        """The full name of the jail that the calling process is in, "" for the machine or outside of the lab."""
        name: str = self.call("where")
        return name


class RunningKernel(Kernel):
    """A lab kernel that this process started and that ends with it."""

    def __init__(self, directory: Path, process: subprocess.Popen[bytes], owner: int) -> None:
        super().__init__(directory)
        self.process = process
        self._owner = owner

    def stop(self) -> None:
        """End it and everything in it, and remove its directory."""
        if self._owner >= 0:
            os.close(self._owner)
            self._owner = -1
        self.process.wait(START_SECONDS)
        shutil.rmtree(self.directory, ignore_errors=True)


def launch(directory: Path | None = None, *, kernel: str = "13.2") -> RunningKernel:
    """Start a lab kernel in a new directory and wait until it serves; RuntimeError with its log if it does not.

    *kernel* names what it plays: releases.RELEASES.
    """
    if directory is None:
        directory = Path(tempfile.mkdtemp(prefix=Path(PREFIX).name, dir=Path(PREFIX).parent))
    directory.chmod(0o755)
    owner_read, owner_write = os.pipe()
    ready_read, ready_write = os.pipe()
    log = (directory / "kernel.log").open("wb")
    with log:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.lab.kernel", "--dir", str(directory)),
                *("--owner-fd", str(owner_read), "--ready-fd", str(ready_write), "--kernel", kernel),
            ],
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(owner_read, ready_write),
            start_new_session=True,  # Ctrl-C is for the test runner; the kernel sees its owner go
        )
    os.close(owner_read)
    os.close(ready_write)
    with os.fdopen(ready_read, "rb") as ready:
        if not ready.read():  # until the kernel says so, or dies
            os.close(owner_write)
            process.wait()
            raise RuntimeError(f"the lab kernel did not start: {(directory / 'kernel.log').read_text()}")
    return RunningKernel(directory, process, owner_write)


@contextlib.contextmanager
def start(*, kernel: str = "13.2") -> Iterator[RunningKernel]:
    """A lab kernel for the length of a `with` block; *kernel* as for `launch`."""
    running = launch(kernel=kernel)
    try:
        yield running
    finally:
        running.stop()


def _receive(connection: socket.socket, length: int) -> bytes:
    data = bytearray()
    while len(data) < length:
        part = connection.recv(length - len(data))
        if not part:
            raise ConnectionError("the lab kernel closed the connection")
        data += part
    return bytes(data)
