"""A Bastille's folder on a lab host, with what its jails stand on: em0, bridge0, bastille0."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any, TypedDict

from mobility.hooks.edit import Way
from tests.lab.topology import HOOK, Host

BIN = Path(__file__).with_name("bin")
EXTERNAL, BRIDGE = "em0", "bridge0"


class Where(TypedDict):
    """Where a Bastille has its files."""

    prefix: str
    log: str


class Home:
    """One host's Bastille folder; its jails are started as `bastille start` does: by jail(8) and their own jail.conf."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.prefix = host.folder / "bastille"
        self.logs = host.folder / "bastille-logs"
        for folder in (self.prefix / "jails", self.logs):
            folder.mkdir(parents=True)
        # bastille(8) insists on it: bastille_perms_check
        self.prefix.chmod(0o750)
        # jail(8) runs the host's commands with a login's PATH, which has the lab's own folder first
        shutil.copy(BIN / "jib", host.ground.commands[0] / "jib")
        pair = host.run(["ifconfig", "epair", "create"]).stdout.strip()
        host.commands(
            [
                ["ifconfig", pair, "name", EXTERNAL],
                ["ifconfig", f"{pair[:-1]}b", "name", "wire0"],
                ["ifconfig", EXTERNAL, "up"],
                ["ifconfig", BRIDGE, "create"],
                ["ifconfig", BRIDGE, "up"],
                ["ifconfig", "lo1", "create"],
                ["ifconfig", "lo1", "name", "bastille0"],
            ]
        )
        self.configure()

    def configure(self, **sections: dict[str, Any]) -> None:
        """Write mobility.toml, with this folder in it."""
        self.host.configure(managers={"bastille": str(self.prefix), "jail_conf": ""}, **sections)

    def folder(self, jail: str) -> Path:
        """Where a jail's files are."""
        return self.prefix / "jails" / jail

    def conf(self, jail: str) -> Path:
        """A jail's jail.conf."""
        return self.folder(jail) / "jail.conf"

    def where(self) -> Where:
        """What `bastille_conf` needs to know."""
        return Where(prefix=str(self.prefix), log=str(self.logs))

    def put(self, jail: str, text: str, rc_conf: str = "") -> None:
        """Write a jail's files, and the tree that it runs in, thin as Bastille makes it (create.sh, LINK_LIST)."""
        root = self.folder(jail) / "root"
        (root / "etc").mkdir(parents=True, exist_ok=True)
        (root / "usr").mkdir(exist_ok=True)
        # its commands are those of the release that is mounted on /.bastille, and the lab's stand for them
        for folder in ("bin", "sbin", "usr/bin", "usr/sbin"):
            release = root / ".bastille" / folder
            release.mkdir(parents=True, exist_ok=True)
            for name in ("ifconfig", "route", "netstat", "service"):
                (release / name).touch(mode=0o755)
            if not (root / folder).is_symlink():
                (root / folder).symlink_to(f"/.bastille/{folder}")
        (root / "etc/rc.conf").write_text(rc_conf)
        (self.folder(jail) / "fstab").touch()
        (self.folder(jail) / "settings.conf").write_text('boot="on"\ndepend=""\npriority="99"\n')
        (self.logs / jail).mkdir(exist_ok=True)
        self.conf(jail).write_text(text)

    def hooks(self, *arguments: str, check: bool = True) -> str:
        """`mobility hooks ...` with the lab's hook; return what it printed."""
        return self.host.mobility("hooks", "--hook", str(HOOK), *arguments, check=check).stdout

    def state(self, jail: str) -> dict[str, Any]:
        """What `mobility hooks status` says of a jail."""
        # its exit status tells of lines that are missing
        (state,) = json.loads(self.hooks("status", "bastille", jail, "--json", check=False))["jails"]
        return dict(state)

    def complete(self, jail: str) -> bool:
        """Tell whether every line of ours is where it works."""
        return bool(self.state(jail)["complete"])

    def install(self, jail: str, way: Way) -> None:
        """`mobility hooks install bastille NAME`, and look whether all is there."""
        self.hooks("install", "bastille", jail, *(["--adopt"] if way is Way.ADOPT else []))
        assert self.complete(jail), self.state(jail)

    def remove(self, jail: str) -> None:
        """`mobility hooks remove bastille NAME`."""
        self.hooks("remove", "bastille", jail)

    def start(self, jail: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Start a jail."""
        return self.host.run(["jail", "-f", self.conf(jail), "-c", jail], check=check)

    def stop(self, jail: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Stop a jail."""
        return self.host.run(["jail", "-f", self.conf(jail), "-r", jail], check=check)

    def interfaces(self) -> list[str]:
        """The host's interfaces."""
        return self.host.run(["ifconfig", "-l"]).stdout.split()

    def members(self, bridge: str) -> list[str]:
        """A bridge's members."""
        lines = self.host.run(["ifconfig", bridge]).stdout.splitlines()
        return [line.split()[1] for line in lines if line.strip().startswith("member:")]
