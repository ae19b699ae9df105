"""GoBGP, which puts routes into no kernel by itself.

Sources: the documentation of 3.10 (configuration.md, policy.md, graceful-restart.md, cli-command-syntax.md).
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any, ClassVar

from tests.interop.node import WAIT
from tests.interop.routers.router import NO_KERNEL, RibPath, Router

_COMMUNITY, _MED, _LOCAL_PREFERENCE, _LARGE_COMMUNITY, _MP_REACH = 8, 4, 5, 32, 14
_AS_PATH, _EXTENDED_COMMUNITY = 2, 16
"""Types of path attributes (IANA)."""
_SUBTYPES = {2: "target", 3: "origin"}


class GoBgp(Router):
    """GoBGP."""

    kind = "GoBGP"
    package = "gobgpd"
    program = "gobgpd"
    installs = False
    limits: ClassVar = {
        "next_hop_ipv4": "it always offers RFC 8950",
        "held_back": "it always offers RFC 8950",
        "kernel": NO_KERNEL,
        "no_gap": NO_KERNEL,
    }

    @classmethod
    def version(cls) -> str:
        """Return "3.10.0"."""
        return subprocess.run(["gobgpd", "--version"], capture_output=True, text=True, check=True).stdout.split()[-1]

    def write(self) -> None:
        """Write the configuration file."""
        changes: dict[str, str] = {}
        if not self.settings.graceful_restart:
            changes |= {"enabled = true": "enabled = false"}
        if self.settings.password:
            changes |= {"    peer-as = ": f'    auth-password = "{self.settings.password}"\n    peer-as = '}
        text = self.made_out("gobgpd", ".toml", changes)
        (self.folder / "gobgpd.toml").write_text(text)

    def launch(self) -> None:
        """Start GoBGP and wait until it knows its neighbours. Its API listens in the namespace only."""
        argv: list[str | Path] = ["gobgpd", "-f", self.folder / "gobgpd.toml", "-l", "debug", "-p", "--pprof-disable"]
        self.processes = [self.service("gobgpd", argv)]
        self.processes[0].await_(self._configured, "neighbours", WAIT)

    def _configured(self) -> bool:
        log = self.processes[0].log
        return log.exists() and log.read_text().count("Add a peer configuration") >= len(self.links)

    def ask(self, *words: str) -> Any:
        """Return gobgpd's answer to a command, read as JSON."""
        return json.loads(self.run("gobgp", "-j", *words))

    def paths(self, prefix: str) -> list[RibPath]:
        """Return all paths to a prefix."""
        argv = [*self.prefix, "gobgp", "-j", "global", "rib", "-a", "ipv6" if ":" in prefix else "ipv4", prefix]
        told = subprocess.run(argv, capture_output=True, text=True, check=False)
        if told.returncode != 0 or not told.stdout.startswith("{"):
            return []  # "Network not in table" is an error
        found = []
        for path in json.loads(told.stdout).get(prefix, []):
            attributes = {each["type"]: each for each in path["attrs"]}
            next_hop = attributes.get(3) or attributes[_MP_REACH]
            found.append(
                RibPath(
                    neighbor=path["neighbor-ip"],
                    next_hop=next_hop["nexthop"],
                    best=bool(path.get("best")),
                    med=attributes[_MED]["metric"] if _MED in attributes else None,
                    local_preference=attributes.get(_LOCAL_PREFERENCE, {}).get("value", 100),
                    communities=frozenset(
                        f"{number >> 16}:{number & 0xFFFF}"
                        for number in attributes.get(_COMMUNITY, {}).get("communities", [])
                    ),
                    large_communities=frozenset(
                        f"{each['ASN']}:{each['LocalData1']}:{each['LocalData2']}"
                        for each in attributes.get(_LARGE_COMMUNITY, {}).get("value", [])
                    ),
                    as_path=tuple(
                        number
                        for segment in attributes.get(_AS_PATH, {}).get("as_paths") or []
                        for number in segment["asns"]
                    ),
                    extended_communities=frozenset(
                        f"{_SUBTYPES.get(each.get('subtype'), each)}:{_plain(each.get('value', ''))}"
                        for each in attributes.get(_EXTENDED_COMMUNITY, {}).get("value", [])
                    ),
                )
            )
        return found

    def _state(self, host: str) -> Any:
        return self.ask("neighbor", self.link(host).host_address)["state"]

    def established(self, host: str = "host") -> bool:
        """Tell whether the session is up."""
        return bool(self._state(host).get("session_state") == 6)

    def complete(self, host: str = "host") -> bool:
        """Tell whether both end-of-RIBs came."""
        families = self.ask("neighbor", self.link(host).host_address)["afi_safis"]
        return all(each["mp_graceful_restart"]["state"].get("end_of_rib_received") for each in families)

    def updates(self, host: str = "host") -> int:
        """Return how many UPDATEs came since gobgpd was started."""
        return int(self._state(host)["messages"]["received"].get("update", 0))

    def reset(self, host: str = "host") -> None:
        """Disable the session, and enable it again: after `reset` it waits 30 s, whatever is configured."""
        for verb in ("disable", "enable"):
            self.run("gobgp", "neighbor", self.link(host).host_address, verb)


def _plain(value: str) -> str:
    """Return "64086.59904:7", an AS of four octets in the notation asdot (RFC 5396), as "4200000000:7"."""
    if found := re.fullmatch(r"(\d+)\.(\d+)(:\d+)", value):
        return f"{(int(found[1]) << 16) + int(found[2])}{found[3]}"
    return value
