"""An iocage on a lab host: its pool of plain folders, its jails, and its own library that starts and stops them.

The library is what stands in the source tree that MOBILITY_IOCAGE names, unmodified; where none is, iocage_sequence.py has
the same commands.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from mobility import config
from mobility.hooks.edit import Hook, Way, apply
from mobility.hooks.iocage import IocageEditor
from mobility.jails import iocage
from mobility.jails.iocage import Properties
from tests.lab.managers import iocage_standins
from tests.lab.topology import HOOK, Host

SOURCE = os.environ.get("MOBILITY_IOCAGE", "")
"""The source tree of an iocage, "" where none is given."""
HERE = Path(__file__).parent
#: Of a jail's own tree, what the lab looks for to let it run its commands in there.
COMMANDS = (
    "sbin/ifconfig",
    "sbin/ping",
    "sbin/route",
    "usr/bin/netstat",
    "usr/sbin/arp",
    "usr/sbin/ndp",
    "usr/sbin/service",
)
FOLDERS = ("dev", "etc", "proc", "sbin", "tmp", "usr/sbin", "var/run")
#: What a jail's own programs are, for those who start it.
LINUX = ("bin", "lib", "lib64", "usr/bin", "usr/lib", "dev/null")
#: What iocage runs in a PATH of its own (ioc_exec.py, IOCExec).
CALLED = ("jexec", "rctl", "setfib", "sysctl")
#: Tells whether the jail's rc finds its addresses: it binds a socket to each of them.
RC = """#!/bin/sh
exec /usr/bin/perl -MSocket=:all -e 'for (@ARGV) {
    my $six = /:/;
    socket(my $s, $six ? AF_INET6 : AF_INET, SOCK_DGRAM, 0) or die $!;
    bind($s, $six ? pack_sockaddr_in6(0, inet_pton(AF_INET6, $_)) : pack_sockaddr_in(0, inet_aton($_)))
        and print "found $_\\n" or print "missing $_: $!\\n";
}' ADDRESSES >/tmp/found
"""


class Home:
    """An iocage at `root` on a host, with the managers' folder in mobility.toml."""

    def __init__(self, host: Host, **sections: dict[str, Any]) -> None:
        self.host = host
        self.pool = host.folder / "tank"
        self.root = self.pool / "iocage"
        self.run_folder = host.folder / "var-run"
        for folder in ("download", "images", "jails", "log", "releases", "templates"):
            (self.root / folder).mkdir(parents=True)
        self.run_folder.mkdir()
        host.configure(managers={"bastille": "", "iocage": str(self.root), "jail_conf": ""}, **sections)

    @property
    def editor(self) -> IocageEditor:
        """Our editor of its files."""
        return IocageEditor(config.load(self.host.config), Hook(HOOK, self.host.config), self.run_folder)

    def install(self, name: str, way: Way) -> None:
        """`mobility hooks install iocage NAME`."""
        apply(self.editor.install(name, way))

    def jail(self, name: str) -> Path:
        """Return a jail's folder."""
        return self.root / "jails" / name

    def create(self, name: str, addresses: tuple[str, ...] = (), **properties: Any) -> None:
        """Make a jail, as `iocage create --empty NAME PROPERTY…` would, with a tree that has what it needs to start.

        Its rc looks for `addresses`, see `found`.
        """
        tree = self.jail(name) / "root"
        for folder in (*FOLDERS, *LINUX[:-1]):
            (tree / folder).mkdir(parents=True, exist_ok=True)
        for file in (*COMMANDS, LINUX[-1]):
            (tree / file).touch()
        (tree / "etc" / "rc").write_text(RC.replace("ADDRESSES", shlex.join(addresses)))
        (tree / "etc" / "rc.shutdown").write_text("exit 0\n")
        (tree / "etc" / "rc.conf").touch()
        (self.jail(name) / "fstab").touch()
        own = {
            "host_hostname": name,
            "host_hostuuid": name,
            "jail_zfs_dataset": f"iocage/jails/{name}/data",
            "last_started": "none",
            "release": "EMPTY",
            "vnet": 1,
            **properties,
        }
        text = json.dumps(own, sort_keys=True, indent=4, ensure_ascii=False)
        (self.jail(name) / iocage.CONFIG).write_text(text)

    def properties(self, name: str) -> Properties:
        """Return a jail's properties."""
        return Properties(iocage.load(self.jail(name) / iocage.CONFIG), iocage.inherited(self.root))

    def found(self, name: str) -> list[str]:
        """Return which addresses the jail's rc found, and which not, at its last start."""
        return (self.jail(name) / "root" / "tmp" / "found").read_text().splitlines()

    def inside(self, name: str) -> list[str]:
        """Return the argv prefix of programs that see this machine as iocage does.

        The lab's commands and the stand-ins also stand in /usr/local/sbin, because iocage looks for what it runs in a PATH
        of its own (ioc_exec.py, IOCExec), /var/run is the host's own, and the jail's tree has Linux's programs.
        """
        commands = self.host.folder / "sbin"
        if not commands.exists():
            commands.mkdir()
            for command in self.host.ground.commands[0].iterdir():
                (commands / command.name).symlink_to(command)
            for command_name in iocage_standins.COMMANDS:
                script = commands / command_name
                line = [sys.executable, "-IS", str(HERE / "iocage_standins.py"), command_name]
                script.write_text(f'#!/bin/sh\nLAB_POOL={self.pool} exec {shlex.join(line)} "$@"\n')
                script.chmod(0o755)
        tree = self.jail(name) / "root"
        binds = [(self.run_folder, Path("/var/run")), (commands, Path("/usr/local/sbin"))]
        binds += [(Path("/", part), tree / part) for part in LINUX if Path("/", part).exists()]
        binds += [(commands / path.name, path) for path in _hiding(commands)]
        lines = [shlex.join(["/usr/bin/mount", "--bind", str(origin), str(target)]) for origin, target in binds]
        enter = 'export PATH=/usr/local/sbin:"$PATH"; exec "$@"'
        return ["unshare", "--mount", "--", "/bin/sh", "-ec", "; ".join([*lines, enter]), "sh"]


def _hiding(commands: Path) -> Iterator[Path]:
    """Yield Linux's programs that iocage would find before those of the lab."""
    for name in CALLED:
        found = shutil.which(name, path="/sbin:/bin:/usr/sbin:/usr/bin")
        if found is not None and (commands / name).exists():
            yield Path(found)


class Starter(Protocol):
    """What starts and stops an iocage's jails on a host. With `check`, RuntimeError where that fails."""

    def start(self, name: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """`iocage start NAME`."""

    def stop(self, name: str, *, force: bool = False, check: bool = True) -> subprocess.CompletedProcess[str]:
        """`iocage stop [--force] NAME`."""


class Library:
    """An iocage's own library, unmodified."""

    def __init__(self, home: Home) -> None:
        self._home = home

    def run(self, verb: str, name: str, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run one of iocage_run.py's verbs."""
        argv = [sys.executable, "-I", str(HERE / "iocage_run.py"), SOURCE, verb, name, *words]
        return self._home.host.run([*self._home.inside(name), *argv], check=check)

    def start(self, name: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """`iocage start NAME`."""
        return self.run("start", name, check=check)

    def stop(self, name: str, *, force: bool = False, check: bool = True) -> subprocess.CompletedProcess[str]:
        """`iocage stop [--force] NAME`."""
        return self.run("force-stop" if force else "stop", name, check=check)
