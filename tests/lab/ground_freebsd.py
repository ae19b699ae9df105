"""The lab on FreeBSD, 13.1 or newer: one vnet jail of this machine is the lab's machine, the nodes are jails in it.

So nothing of a lab is named among the machine's own jails and interfaces but that one jail; two labs never meet; and
`jail -R` of it ends everything. The commands are FreeBSD's own, in forms that freebsd-13.2/*.txt show at work; nodes as
vnet jails of one machine, and jails in those: 9-fabric.txt. Sources: jail(8), "Hierarchical Jails"; flock(2); route(4).
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_interface
from pathlib import Path

from tests.lab.watch import Change, Fib

LOCK = "owner.lock"
#: Seconds that a folder may be without its lock.
NEW_SECONDS = 20.0
COMMAND_SECONDS = 60.0
#: How many jails there may be in the lab: a child's own limit has to be lower (kern_jail.c, kern_jail_set: EPERM).
CHILDREN = 100_000
DIRECTORIES = tuple(
    Path(part) for part in ("/sbin", "/bin", "/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin")
)
DEFAULTS = {"Internet": "0.0.0.0/0", "Internet6": "::/0"}
JLS = ("jls", "--libxo", "json", "name", "jid", "path", "vnet", "dying")
NETSTAT = ("netstat", "--libxo", "json", "-rn")
#: A line for every message of the kernel's about routes, whoever changed them (netlink's changes are told here too:
#: sys/netlink/route/rt.c, report_operation), and one at the start. `route -n monitor` would do, but on 14 it does not
#: flush what it prints into a pipe (route_netlink.c, monitor_nl).
NEWS = """
import os, socket
news = socket.socket(socket.AF_ROUTE, socket.SOCK_RAW)
while os.write(1, b"\\n"):
    try:
        news.recv(65536)
    except OSError:
        pass  # messages were lost: that is news too
"""


def _path() -> dict[str, str]:
    return {**os.environ, "PATH": ":".join(map(str, DIRECTORIES))}


@dataclass(frozen=True)
class Machine:
    """How this machine is used; a test on Linux puts a lab kernel in its place."""

    #: The argv prefix that runs a program on it.
    enter: tuple[str, ...] = ()
    commands: tuple[Path, ...] = DIRECTORIES[:4]
    environment: Mapping[str, str] = field(default_factory=_path)
    #: What the folders of labs begin with.
    prefix: str = "/tmp/mobility-lab."
    #: A program that prints a line when it begins, and one for each change of routes in its vnet.
    news: tuple[str, ...] = (sys.executable, "-c", NEWS)
    #: A program that prints the routes of its vnet, as netstat(1) does.
    netstat: tuple[str, ...] = NETSTAT

    def run(self, argv: Sequence[str], *, check: bool = True) -> str:
        """Run a command on it and return what it printed. RuntimeError with what it said where it fails."""
        done = subprocess.run(
            [*self.enter, *argv],
            env=dict(self.environment),
            capture_output=True,
            text=True,
            check=False,
            timeout=COMMAND_SECONDS,
        )
        if check and done.returncode != 0:
            raise RuntimeError(f"{' '.join(argv)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout


class FreeBSDGround:
    """A vnet jail with children, in a folder of /tmp that its owner keeps locked: see `clean`."""

    def __init__(self, machine: Machine | None = None) -> None:
        if os.geteuid() != 0:
            raise PermissionError("the lab needs root: it makes jails")
        self._machine = machine or Machine()
        self.commands = self._machine.commands
        prefix = Path(self._machine.prefix)
        self.folder = Path(tempfile.mkdtemp(prefix=prefix.name, dir=prefix.parent))
        self.folder.chmod(0o755)
        self.jail = _jail(self.folder)
        self._lock = (self.folder / LOCK).open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        try:
            # a jail can load no module, and the lab's machine is one
            self._machine.run(["kldload", "-n", "if_epair"])
            parameters = ["path=/", "vnet", "persist", "allow.raw_sockets", f"children.max={CHILDREN}"]
            self._machine.run(["jail", "-c", f"name={self.jail}", "host.hostname=localhost", *parameters])
            self._machine.run(["jexec", self.jail, "ifconfig", "lo0", "inet", "127.0.0.1/8", "up"])
        except BaseException:
            self.close()
            raise

    def enter(self, node: str) -> list[str]:
        """Return the argv prefix that runs a program in a node."""
        return [*self._machine.enter, "jexec", self.jail, *(["jexec", node] if node else [])]

    def environment(self) -> dict[str, str]:
        """Return an environment in whose PATH FreeBSD's commands are."""
        return dict(self._machine.environment)

    def fib(self, node: str) -> Fib:
        """Return the routes of a node's kernel, followed as they change."""
        return FreeBSDFib(self.enter(node), self._machine)

    def close(self) -> None:
        """End everything that runs in the lab, and the lab."""
        try:
            if self.jail in _jails(self._machine):
                self._machine.run(["jail", "-R", self.jail])
        finally:
            self._lock.close()
            shutil.rmtree(self.folder, ignore_errors=True)


class FreeBSDFib(Fib):
    """The routes of a node, as its netstat(1) shows them: looked at again whenever its kernel says that any changed."""

    def __init__(self, enter: Sequence[str], machine: Machine) -> None:
        super().__init__()
        self._environment = dict(machine.environment)
        self._netstat = [*enter, *machine.netstat]
        argv = [*enter, *machine.news]
        self._news = subprocess.Popen(argv, env=self._environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        self._read(COMMAND_SECONDS)  # what changes from here on is told
        self._look()
        self.changes.clear()

    def close(self) -> None:
        """Stop following."""
        self._news.kill()
        self._news.communicate()

    def _take(self, timeout: float) -> None:
        self._read(timeout)
        self._look()

    def _read(self, timeout: float) -> None:
        """Take the news that there are; wait up to `timeout` seconds for the first."""
        assert self._news.stdout is not None
        if select.select([self._news.stdout], [], [], timeout)[0] and not os.read(self._news.stdout.fileno(), 65536):
            raise RuntimeError(f"what tells of routes ended with {self._news.wait()}")

    def _look(self) -> None:
        done = subprocess.run(
            self._netstat,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=COMMAND_SECONDS,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{self._netstat}: exit {done.returncode}\n{done.stderr}")
        now, routes = time.monotonic(), routes_of(done.stdout)
        before = {(prefix, via) for prefix, hops in self._routes.items() for via in hops}
        after = {(prefix, via) for prefix, hops in routes.items() for via in hops}
        self.changes += [Change(now, True, prefix, via) for prefix, via in sorted(before - after)]
        self.changes += [Change(now, False, prefix, via) for prefix, via in sorted(after - before)]
        self._routes = routes


def routes_of(text: str) -> dict[str, set[str]]:
    """Return the next hops by prefix ("" for an interface), without zones, of what NETSTAT printed."""
    found: dict[str, set[str]] = {}
    for family in json.loads(text)["statistics"]["route-information"]["route-table"]["rt-family"]:
        default = DEFAULTS.get(family["address-family"], "")
        for entry in family.get("rt-entry", ()) if default else ():
            destination = default if entry["destination"] == "default" else _without_zone(entry["destination"])
            found.setdefault(str(ip_interface(destination)), set()).add(_next_hop(entry["gateway"]))
    return found


def _without_zone(text: str) -> str:
    """Return "fe80::/64" for "fe80::%lo0/64"."""
    address, _, length = text.partition("/")
    return "/".join(filter(None, (address.partition("%")[0], length)))


def _next_hop(gateway: str) -> str:
    try:
        return str(ip_interface(_without_zone(gateway)).ip)
    except ValueError:
        return ""  # "link#4", or an interface's name


def clean(machine: Machine | None = None) -> list[str]:
    """End what killed runs left of their labs: those whose folder nobody keeps locked; answer what was done, in sentences."""
    machine = machine or Machine()
    said = []
    running = _jails(machine)
    prefix = Path(machine.prefix)
    for folder in sorted(prefix.parent.glob(f"{prefix.name}*")):
        if not (folder / LOCK).exists() and time.time() - folder.stat().st_mtime < NEW_SECONDS:
            said.append(f"{folder}: its lab may be starting: left alone")
            continue
        with (folder / LOCK).open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                said.append(f"{folder}: its lab runs: left alone")
                continue
            if _jail(folder) in running:
                machine.run(["jail", "-R", _jail(folder)])
            shutil.rmtree(folder)
            said.append(f"{folder}: removed")
    return said


def _jail(folder: Path) -> str:
    # a dot in a jail's name would make it another's child
    return folder.name.replace(".", "-")


def _jails(machine: Machine) -> set[str]:
    entries = json.loads(machine.run(JLS))["jail-information"].get("jail", ())
    return {entry["name"] for entry in entries}
