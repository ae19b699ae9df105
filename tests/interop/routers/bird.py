"""BIRD 2.

Sources: BIRD 2.0 User's Guide, chapters 4 (remote control) and 6.3 (BGP).
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from typing import Any

from tests.interop.node import WAIT
from tests.interop.routers.router import FAMILIES, HOLD_TIME, ROUTER_AS, RibPath, Router, Settings

_HEAD = """\
router id {router_id};
log stderr all;
timeformat protocol iso long ms;
protocol device {{ }}
protocol kernel {{ ipv4 {{ import none; export all; }}; }}
protocol kernel {{ ipv6 {{ import none; export all; }}; }}
protocol static told4 {{ ipv4; {static4} }}
protocol static told6 {{ ipv6; {static6} }}
filter from_host {{
  if (65535, 0) ~ bgp_community then bgp_local_pref = 0;
  accept;
}}
filter to_host {{
  if source ~ [ RTS_STATIC, RTS_BGP ] then accept;
  reject;
}}
"""
_SESSION = """\
protocol bgp {host} {{
  local {address} as {router_as};
  neighbor {neighbor} as {host_as};
  graceful restart {graceful};
  med metric on;
  {password}
  hold time {hold_time};
  connect delay time 1;
  connect retry time 1;
  error wait time 1, 2;
  debug {{ states, events, packets }};
  ipv4 {{ extended next hop {extended}; import filter from_host; export filter to_host; }};
  ipv6 {{ import filter from_host; export filter to_host; }};
}}
"""


@dataclass(frozen=True, slots=True)
class BirdSettings(Settings):
    """BIRD's own settings too."""

    static4: str = ""
    """Routes that it has itself, in its own words, and tells to the hosts."""
    static6: str = ""


@dataclass(frozen=True, slots=True)
class Seen:
    """What BIRD has received since its session came up."""

    updates: int
    withdraws: int


class Bird(Router):
    """BIRD 2."""

    kind = "BIRD"
    package = "bird2"
    program = "bird"
    installs = True
    settings: BirdSettings

    @classmethod
    def first_settings(cls) -> Settings:
        """Return the settings to begin with."""
        return BirdSettings()

    @classmethod
    def version(cls) -> str:
        """Return "2.0.12"."""
        told = subprocess.run(["bird", "--version"], capture_output=True, text=True, check=True)
        return (told.stdout + told.stderr).split()[-1]

    def write(self) -> None:
        """Write the configuration file."""
        settings = self.settings
        text = _HEAD.format(router_id=self.router_id, static4=settings.static4, static6=settings.static6)
        for link in self.links:
            text += _SESSION.format(
                host=link.host,
                address=link.router_address,
                router_as=ROUTER_AS,
                neighbor=link.host_address,
                host_as=link.host_as,
                hold_time=HOLD_TIME,
                graceful="on" if settings.graceful_restart else "off",
                extended="on" if settings.rfc8950 else "off",
                password=f'password "{settings.password}";' if settings.password else "",
            )
        (self.folder / "bird.conf").write_text(text)

    def configure(self, **settings: Any) -> None:
        """Change settings; a running BIRD takes them up."""
        super().configure(**settings)
        if self.processes:
            self.birdc("configure")

    def launch(self) -> None:
        """Start BIRD and wait for its control socket."""
        conf, control, pid = (self.folder / name for name in ("bird.conf", "bird.ctl", "bird.pid"))
        control.unlink(missing_ok=True)
        self.processes = [self.service("bird", ["bird", "-f", "-c", conf, "-s", control, "-P", pid])]
        self.processes[0].await_(control.exists, "control socket", WAIT)

    def birdc(self, *words: str) -> str:
        """Return BIRD's answer to a command."""
        return self.run("birdc", "-s", self.folder / "bird.ctl", *words)

    def routes_to(self, prefix: str) -> str:
        """Return all that BIRD knows of one prefix."""
        argv = ["birdc", "-s", str(self.folder / "bird.ctl"), "show", "route", prefix, "all"]
        return subprocess.run(argv, capture_output=True, text=True, check=False).stdout  # it fails where there is none

    def paths(self, prefix: str) -> list[RibPath]:
        """Return all paths to a prefix, out of `show route PREFIX all`."""
        found = []
        for block in re.split(r"^(?=\S*\s+unicast \[)", self.routes_to(prefix), flags=re.MULTILINE)[1:]:
            host = block.split("[", 1)[1].split()[0]
            values = dict(re.findall(r"^\s+(BGP\.\w+): ?(.*)$", block, re.MULTILINE))
            next_hop = values["BGP.next_hop"].split()[0]
            found.append(
                RibPath(
                    neighbor=self.link(host).host_address,
                    next_hop=next_hop,
                    best=" * (" in block.splitlines()[0],
                    med=int(values["BGP.med"]) if "BGP.med" in values else None,
                    local_preference=int(values["BGP.local_pref"]),
                    communities=_numbers(values.get("BGP.community", "")),
                    large_communities=_numbers(values.get("BGP.large_community", "")),
                )
            )
        return found

    def established(self, host: str = "host") -> bool:
        """Tell whether the session is up: BIRD says so of one that it keeps for a graceful restart too."""
        text = self.birdc("show", "protocols", "all", host)
        return "BGP state:          Established" in text and "graceful restart active" not in text

    def complete(self, host: str = "host") -> bool:
        """Tell whether both end-of-RIBs came, which BIRD says in its log only."""
        session = self.processes[0].log.read_text().rpartition(f"{host}: BGP session established")[2]
        return session.count(f"{host}: Got END-OF-RIB") == len(FAMILIES)

    def seen(self, host: str = "host") -> Seen:
        """Return the counters of the session: they start anew with it."""
        text = self.birdc("show", "protocols", "all", host)
        found = {kind: re.findall(rf"Import {kind}:\s+(\d+)", text) for kind in ("updates", "withdraws")}
        return Seen(sum(map(int, found["updates"])), sum(map(int, found["withdraws"])))

    def updates(self, host: str = "host") -> int:
        """Return how many routes were announced or withdrawn."""
        seen = self.seen(host)
        return seen.updates + seen.withdraws

    def reset(self, host: str = "host") -> None:
        """Restart the session."""
        self.birdc("restart", host)

    def routes(self, host: str = "host") -> int:
        """Return how many routes came from a host."""
        text = self.birdc("show", "route", "protocol", host, "count")
        return int(text.rsplit("Total:", 1)[1].split()[0])


def _numbers(text: str) -> frozenset[str]:
    """Return "(65535,0) (65000, 1, 7)" as texts with colons."""
    return frozenset(re.sub(r",\s*", ":", each) for each in re.findall(r"\(([\d, ]+)\)", text))
