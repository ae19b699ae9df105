"""FRR: zebra and bgpd, without watchfrr.

Sources: FRR User Guide 8.4, "Basic Setup" (options, one socket folder for each), "BGP".
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any, ClassVar

from tests.interop.node import WAIT
from tests.interop.routers.router import FAMILIES, RibPath, Router

_DEBUG = """\
debug bgp neighbor-events
debug bgp updates in
"""


class Frr(Router):
    """FRR's zebra and bgpd."""

    kind = "FRR"
    package = "frr"
    program = "/usr/lib/frr/bgpd"
    own_folders = ("/var/tmp/frr",)  # where it logs its crashes, by pids, which are those of a namespace here
    installs = True
    limits: ClassVar = {"no_gap": "it deletes an IPv6 route and adds it again, also where only the MED changes"}

    @classmethod
    def version(cls) -> str:
        """Return "8.4.4"."""
        told = subprocess.run([cls.program, "--version"], capture_output=True, text=True, check=True).stdout
        return told.splitlines()[0].split()[-1]

    def write(self) -> None:
        """Write both programs' configuration files."""
        settings = self.settings
        changes = {"log syslog informational\n": ""}
        if settings.route_server:
            changes |= {"ip nht resolve-via-default\nipv6 nht resolve-via-default\n": ""}  # these are zebra's
        if not settings.rfc8950:
            changes |= {" neighbor HOSTS capability": " no neighbor HOSTS capability"}
        if not settings.graceful_restart:
            changes |= {"compare-routerid\n": "compare-routerid\n bgp graceful-restart-disable\n"}
        if settings.password:
            changes |= {"HOSTS passive": f"HOSTS passive\n neighbor HOSTS password {settings.password}"}
        text = f"hostname {self.name}\n{_DEBUG}" + self.made_out("frr", ".conf", changes)
        (self.folder / "bgpd.conf").write_text(text)
        (self.folder / "zebra.conf").write_text(f"hostname {self.name}\n")
        shutil.chown(self.folder, "frr", "frr")  # they give up root, and make their sockets here

    def launch(self) -> None:
        """Start zebra, then bgpd, and wait until each can be asked."""
        for name in ("zebra", "bgpd"):
            vty = self.folder / f"{name}.vty"
            vty.unlink(missing_ok=True)
            argv: list[str | Path] = [
                f"/usr/lib/frr/{name}",
                "--log",
                "stdout",
                "-f",
                self.folder / f"{name}.conf",
                "-P",
                "0",
            ]
            argv += ["-i", self.folder / f"{name}.pid", "--vty_socket", self.folder, "-z", self.folder / "zserv.api"]
            process = self.service(name, argv)
            self.processes.append(process)
            process.await_(vty.exists, "vty socket", WAIT)
        # bgpd refuses connections in its first second
        self.await_(lambda: all(self._begun(link.host) for link in self.links), "beginning of the sessions")

    def vtysh(self, command: str) -> str:
        """Return bgpd's answer to a command."""
        return self.run("vtysh", "--vty_socket", self.folder, "--config_dir", self.folder, "-d", "bgpd", "-c", command)

    def ask(self, command: str) -> Any:
        """Return bgpd's answer to a command, read as JSON."""
        return json.loads(self.vtysh(f"{command} json"))

    def paths(self, prefix: str) -> list[RibPath]:
        """Return all paths to a prefix."""
        family = "ipv6" if ":" in prefix else "ipv4"
        return [
            RibPath(
                neighbor=path["peer"]["peerId"],
                next_hop=next(each["ip"] for each in path["nexthops"] if each.get("used")),
                best="bestpath" in path and bool(path["bestpath"].get("overall")),
                med=path.get("metric"),
                local_preference=path.get("locPrf", 100),
                communities=frozenset(
                    _WELL_KNOWN.get(each, each) for each in path.get("community", {}).get("list", [])
                ),
                large_communities=frozenset(path.get("largeCommunity", {}).get("list", [])),
                as_path=tuple(map(int, path.get("aspath", {}).get("string", "").replace("Local", "").split())),
                extended_communities=_extended(path.get("extendedCommunity", {}).get("string", "")),
            )
            for path in self.ask(f"show bgp {family} unicast {prefix}").get("paths", [])
        ]

    def _neighbor(self, host: str) -> Any:
        address = self.link(host).host_address
        return self.ask(f"show bgp neighbors {address}")[address]

    def established(self, host: str = "host") -> bool:
        """Tell whether the session is up."""
        return bool(self._neighbor(host)["bgpState"] == "Established")

    def _begun(self, host: str) -> bool:
        return bool(self._neighbor(host)["bgpState"] != "Idle")

    def complete(self, host: str = "host") -> bool:
        """Tell whether both end-of-RIBs came."""
        received = self._neighbor(host)["gracefulRestartInfo"].get("endOfRibRecv", {})
        return all(received.get(f"{family}Unicast") for family in FAMILIES)

    def updates(self, host: str = "host") -> int:
        """Return how many UPDATEs came since bgpd was started."""
        return int(self._neighbor(host)["messageStats"]["updatesRecv"])

    def reset(self, host: str = "host") -> None:
        """Clear the session."""
        self.vtysh(f"clear bgp {self.link(host).host_address}")


_WELL_KNOWN = {"gracefulShutdown": "65535:0"}
"""bgpd's name for it."""


def _extended(text: str) -> frozenset[str]:
    """Return "RT:65000:7 SoO:192.0.2.1:7" in our words."""
    kinds = {"RT": "target", "SoO": "origin"}
    parts = (each.partition(":") for each in text.split())
    return frozenset(f"{kinds.get(kind, kind)}:{rest}" for kind, _, rest in parts)
