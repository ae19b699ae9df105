"""OpenBGPD (portable), which has no way into Linux' kernel.

Sources: bgpd.conf(5), bgpctl(8), bgpd(8) of 7.7.
"""

from __future__ import annotations

import json
import subprocess
from typing import Any, ClassVar

from tests.interop.node import WAIT
from tests.interop.routers.router import FAMILIES, NO_KERNEL, RibPath, Router


class OpenBgpd(Router):
    """OpenBGPD."""

    kind = "OpenBGPD"
    package = "openbgpd"
    program = "/usr/sbin/bgpd"
    own_folders = ("/run/openbgpd",)  # for chroot(2); Debian's package makes it at boot only
    installs = False
    limits: ClassVar = {
        "rfc8950": "it does not offer RFC 8950",
        "kernel": NO_KERNEL,
        "no_gap": NO_KERNEL,
    }

    @property
    def control(self) -> str:
        return str(self.folder / "bgpd.sock")

    @classmethod
    def version(cls) -> str:
        """Return "7.7"."""
        told = subprocess.run(["bgpctl", "-V"], capture_output=True, text=True, check=True)
        return (told.stdout + told.stderr).split()[-1]

    def write(self) -> None:
        """Write the configuration file, which must not be open to others."""
        changes = {"holdtime 30\n": f'holdtime 30\nsocket "{self.control}"\nlog updates\n'}
        if not self.settings.graceful_restart:
            changes |= {"announce restart yes": "announce restart no"}
        if self.settings.password:
            changes |= {"\tpassive\n": f'\tpassive\n\ttcp md5sig password "{self.settings.password}"\n'}
        text = self.made_out("openbgpd", ".conf", changes)
        path = self.folder / "bgpd.conf"
        path.write_text(text)
        path.chmod(0o600)

    def launch(self) -> None:
        """Start OpenBGPD and wait until it answers."""
        self.processes = [self.service("bgpd", [self.program, "-d", "-v", "-f", self.folder / "bgpd.conf"])]
        self.processes[0].await_(self._answers, "answer", WAIT)

    def _answers(self) -> bool:
        argv = ["bgpctl", "-s", self.control, "show", "summary"]
        return subprocess.run(argv, capture_output=True, check=False).returncode == 0

    def ask(self, *words: str) -> Any:
        """Return bgpd's answer to a command, read as JSON."""
        return json.loads(self.run("bgpctl", "-j", "-s", self.control, *words))

    def paths(self, prefix: str) -> list[RibPath]:
        """Return all paths to a prefix."""
        found = []
        for path in self.ask("show", "rib", "detail", prefix).get("rib", []):
            if path["prefix"] != prefix:
                continue  # it shows what covers the prefix
            found.append(
                RibPath(
                    neighbor=path["neighbor"]["remote_addr"],
                    next_hop=path["exit_nexthop"],
                    best=path.get("best", False),
                    med=path["metric"],
                    local_preference=path["localpref"],
                    communities=frozenset(_WELL_KNOWN.get(each, each) for each in path.get("communities", [])),
                    large_communities=frozenset(path.get("large_communities", [])),
                    as_path=tuple(map(int, path["aspath"].split())),
                    extended_communities=frozenset(map(_extended, path.get("extended_communities", []))),
                )
            )
        return found

    def _neighbor(self, host: str) -> Any:
        (found,) = self.ask("show", "neighbor", self.link(host).host_address)["neighbors"]
        return found

    def established(self, host: str = "host") -> bool:
        """Tell whether the session is up."""
        return bool(self._neighbor(host)["state"] == "Established")

    def complete(self, host: str = "host") -> bool:
        """Tell whether both end-of-RIBs came."""
        # counted by the engine that deals with them, from its start on; when a session ends before that, an end-of-RIB
        # that is still on its way there is taken for the next session's, and the routes are flushed
        return int(self._neighbor(host)["stats"]["update"]["received"]["eor"]) == len(FAMILIES)

    def updates(self, host: str = "host") -> int:
        """Return how many UPDATEs came in the session."""
        return int(self._neighbor(host)["stats"]["message"]["received"]["updates"])

    def reset(self, host: str = "host") -> None:
        """Clear the session."""
        self.run("bgpctl", "-s", self.control, "neighbor", self.link(host).host_address, "clear")


_WELL_KNOWN = {"GRACEFUL_SHUTDOWN": "65535:0"}
"""bgpctl's name for it."""


def _extended(text: str) -> str:
    """Return "rt 65000:7" in our words."""
    kind, _, rest = text.partition(" ")
    return f"{ {'rt': 'target', 'soo': 'origin'}.get(kind, kind) }:{rest}"
