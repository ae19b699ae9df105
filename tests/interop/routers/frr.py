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
from tests.interop.routers.router import FAMILIES, HOLD_TIME, ROUTER_AS, RibPath, Router

_HEAD = """\
hostname {name}
debug bgp neighbor-events
debug bgp updates in
router bgp {router_as}
 bgp router-id {router_id}
 no bgp ebgp-requires-policy
 bgp always-compare-med
"""
_NEIGHBOR = """\
 neighbor {neighbor} remote-as {host_as}
 neighbor {neighbor} timers {keepalive} {hold_time}
 neighbor {neighbor} passive
 neighbor {neighbor} advertisement-interval 0
 {extended}neighbor {neighbor} capability extended-nexthop
 neighbor {neighbor} graceful-restart-{graceful}
"""
_FAMILY = """\
 address-family {family} unicast
{active} exit-address-family
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
        text = _HEAD.format(name=self.name, router_as=ROUTER_AS, router_id=self.router_id)
        for link in self.links:
            text += _NEIGHBOR.format(
                neighbor=link.host_address,
                host_as=link.host_as,
                keepalive=HOLD_TIME // 3,
                hold_time=HOLD_TIME,
                extended="" if settings.rfc8950 else "no ",
                graceful="helper" if settings.graceful_restart else "disable",
            )
            if settings.password:
                text += f" neighbor {link.host_address} password {settings.password}\n"
        for family in FAMILIES:
            active = "".join(f"  neighbor {link.host_address} activate\n" for link in self.links)
            text += _FAMILY.format(family=family, active=active)
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
