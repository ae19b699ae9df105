"""Bastille's own scripts, as they are, on a lab host.

They name /usr/local/share/bastille, /usr/local/etc/bastille, /usr/sbin/jls and files in /tmp, so each host has a mount
namespace in which these are its own, and mobility stands where it is installed. What they call and Linux lacks, or has
otherwise, stands in bin/.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.lab.managers.bastille_home import BIN, Home
from tests.lab.topology import HOOK, REPOSITORY, Host

_PREPARE = """\
set -e
mount -t tmpfs lab /usr/local
mkdir -p /usr/local/share/bastille /usr/local/etc/bastille /usr/local/bin /usr/local/libexec/mobility /usr/local/etc/mobility
cp {hook} /usr/local/libexec/mobility/hook
ln -s {mobility} /usr/local/etc/mobility/mobility.toml
mount --bind {tree}/usr/local/share/bastille /usr/local/share/bastille
cp {tree}/usr/local/bin/bastille /usr/local/bin/bastille
cp {conf} /usr/local/etc/bastille/bastille.conf
mkdir /usr/local/lab /usr/local/sbin-below
mount --bind /usr/sbin /usr/local/sbin-below
mount -t tmpfs lab /usr/sbin
ln -s /usr/local/sbin-below/* /usr/sbin/
ln -s {lab}/bin/jls /usr/sbin/jls
mount --bind {lab} /usr/local/lab
mount -t tmpfs lab /tmp
mkdir -p {lab}
mount --bind /usr/local/lab {lab}
echo ready
read end
"""


class Scripts(Home):
    """One host's Bastille, from the source tree `tree`. A context manager: its mounts go with it."""

    def __init__(self, host: Host, tree: Path) -> None:
        super().__init__(host)
        self.tree = tree
        self.other: Scripts | None = None
        (self.prefix / "backups").mkdir()
        self.home = host.folder / "home"
        (self.home / ".ssh").mkdir(parents=True)
        (self.home / ".ssh/id_lab").touch()
        pf_conf = host.folder / "pf.conf"
        pf_conf.touch()
        self.pf_tables = host.folder / "pf-tables"
        settings = {
            "bastille_prefix": self.prefix,
            "bastille_logsdir": self.logs,
            "bastille_pf_conf": pf_conf,
        }
        lines = (tree / "usr/local/etc/bastille/bastille.conf.sample").read_text().splitlines()
        text = "".join(
            f'{name}="{settings[name]}"\n' if (name := line.partition("=")[0]) in settings else f"{line}\n"
            for line in lines
        )
        conf = host.folder / "bastille.conf"
        conf.write_text(text)
        places = {"tree": tree, "conf": conf, "lab": host.ground.folder, "hook": HOOK, "mobility": host.config}
        script = _PREPARE.format(**{name: shlex.quote(str(path)) for name, path in places.items()})
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "ready\n", "the mount namespace could not be made"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._holder.communicate("end\n")

    def hooks(self, *arguments: str, check: bool = True) -> str:
        """`mobility hooks ...` where mobility is installed: the lines it writes are the same on every host."""
        argv = [*self.entering, sys.executable, "-m", "mobility", "hooks", *arguments]
        environment = self.host.ground.environment()
        done = subprocess.run(argv, env=environment, cwd=REPOSITORY, capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @property
    def entering(self) -> list[str]:
        """The argv prefix that runs a program here."""
        return ["nsenter", f"--mount=/proc/{self._holder.pid}/ns/mnt", *self.host.prefix]

    def bastille(self, *arguments: str, check: bool = True) -> str:
        """Run `bastille ...`; return all that it said. AssertionError where it fails."""
        ground = self.host.ground.environment()
        environment = {
            **ground,
            "PATH": f"{BIN}:{ground['PATH']}",
            "LAB_PF_TABLES": str(self.pf_tables),
            "LAB_HOME": str(self.home),
            "LAB_OTHER": shlex.join(self.other.entering) if self.other else "",
        }
        argv = [*self.entering, "/usr/local/bin/bastille", *arguments]
        done = subprocess.run(
            argv,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert not check or done.returncode == 0, f"bastille {shlex.join(arguments)}: {done.returncode}\n{done.stdout}"
        return done.stdout
