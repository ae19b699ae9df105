"""GoBGP, which puts routes into no kernel by itself.

Sources: the documentation of 3.10 (configuration.md, policy.md, graceful-restart.md, cli-command-syntax.md).
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any, ClassVar

from tests.interop.node import WAIT
from tests.interop.routers.router import FAMILIES, HOLD_TIME, NO_KERNEL, ROUTER_AS, RibPath, Router

_HEAD = """\
[global.config]
  as = {router_as}
  router-id = "{router_id}"
[global.apply-policy.config]
  import-policy-list = ["yield"]
  default-import-policy = "accept-route"
  default-export-policy = "accept-route"
[global.route-selection-options.config]
  always-compare-med = true
[[defined-sets.bgp-defined-sets.community-sets]]
  community-set-name = "graceful-shutdown"
  community-list = ["^65535:0$"]
[[policy-definitions]]
  name = "yield"
  [[policy-definitions.statements]]
    [policy-definitions.statements.conditions.bgp-conditions.match-community-set]
      community-set = "graceful-shutdown"
      match-set-options = "any"
    [policy-definitions.statements.actions]
      route-disposition = "accept-route"
    [policy-definitions.statements.actions.bgp-actions]
      # 0 would be taken for none
      set-local-pref = 1
"""
_NEIGHBOR = """\
[[neighbors]]
  [neighbors.config]
    neighbor-address = "{neighbor}"
    peer-as = {host_as}
    auth-password = "{password}"
  [neighbors.timers.config]
    connect-retry = 1
    hold-time = {hold_time}
  [neighbors.transport.config]
    local-address = "{address}"
  [neighbors.graceful-restart.config]
    enabled = {graceful}
"""
_FAMILY = """\
  [[neighbors.afi-safis]]
    [neighbors.afi-safis.config]
      afi-safi-name = "{family}-unicast"
    [neighbors.afi-safis.mp-graceful-restart.config]
      enabled = {graceful}
"""
_COMMUNITY, _MED, _LOCAL_PREFERENCE, _LARGE_COMMUNITY, _MP_REACH = 8, 4, 5, 32, 14
"""Types of path attributes (IANA)."""


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
        graceful = "true" if self.settings.graceful_restart else "false"
        text = _HEAD.format(router_as=ROUTER_AS, router_id=self.router_id)
        for link in self.links:
            text += _NEIGHBOR.format(
                neighbor=link.host_address,
                host_as=link.host_as,
                address=link.router_address,
                hold_time=HOLD_TIME,
                graceful=graceful,
                password=self.settings.password,
            )
            text += "".join(_FAMILY.format(family=family, graceful=graceful) for family in FAMILIES)
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
