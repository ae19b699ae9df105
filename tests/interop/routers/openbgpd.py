"""OpenBGPD (portable), which has no way into Linux' kernel.

Sources: bgpd.conf(5), bgpctl(8), bgpd(8) of 7.7.
"""

from __future__ import annotations

import json
import subprocess
from typing import Any, ClassVar

from tests.interop.node import WAIT
from tests.interop.routers.router import FAMILIES, HOLD_TIME, NO_KERNEL, ROUTER_AS, RibPath, Router

_HEAD = """\
AS {router_as}
router-id {router_id}
socket "{socket}"
holdtime {hold_time}
connect-retry 1
log updates
rde med compare always
"""
# one statement a line
_NEIGHBOR = """\
neighbor {neighbor} {{
	descr "{host}"
	remote-as {host_as}
	local-address {address}
	announce IPv4 unicast
	announce IPv6 unicast
	announce restart {graceful}
{password}}}
"""
_TAIL = """\
allow from any
allow to any
match from any community GRACEFUL_SHUTDOWN set { localpref 0 }
"""


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
    def _socket(self) -> str:
        return str(self.folder / "bgpd.sock")

    @classmethod
    def version(cls) -> str:
        """Return "7.7"."""
        told = subprocess.run(["bgpctl", "-V"], capture_output=True, text=True, check=True)
        return (told.stdout + told.stderr).split()[-1]

    def write(self) -> None:
        """Write the configuration file, which must not be open to others."""
        text = _HEAD.format(router_as=ROUTER_AS, router_id=self.router_id, socket=self._socket, hold_time=HOLD_TIME)
        for link in self.links:
            password = f'\ttcp md5sig password "{self.settings.password}"\n' if self.settings.password else ""
            text += _NEIGHBOR.format(
                neighbor=link.host_address,
                host=link.host,
                host_as=link.host_as,
                address=link.router_address,
                graceful="yes" if self.settings.graceful_restart else "no",
                password=password,
            )
        path = self.folder / "bgpd.conf"
        path.write_text(text + _TAIL)
        path.chmod(0o600)

    def launch(self) -> None:
        """Start OpenBGPD and wait until it answers."""
        self.processes = [self.service("bgpd", [self.program, "-d", "-v", "-f", self.folder / "bgpd.conf"])]
        self.processes[0].await_(self._answers, "answer", WAIT)

    def _answers(self) -> bool:
        argv = ["bgpctl", "-s", self._socket, "show", "summary"]
        return subprocess.run(argv, capture_output=True, check=False).returncode == 0

    def ask(self, *words: str) -> Any:
        """Return bgpd's answer to a command, read as JSON."""
        return json.loads(self.run("bgpctl", "-j", "-s", self._socket, *words))

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
        self.run("bgpctl", "-s", self._socket, "neighbor", self.link(host).host_address, "clear")


_WELL_KNOWN = {"GRACEFUL_SHUTDOWN": "65535:0"}
"""bgpctl's name for it."""
