"""BIRD 2.

Sources: BIRD 2.0 User's Guide, chapters 4 (remote control) and 6.3 (BGP).
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from typing import Any

from tests.interop.node import WAIT
from tests.interop.routers.router import FAMILIES, ROUTER_AS, RibPath, Router, Settings

_HEAD = """\
timeformat protocol iso long ms;
protocol static told4 {{ ipv4; {static4} }}
protocol static told6 {{ ipv6; {static6} }}
"""
"""What only a test has."""
_HEARD = {
    "log syslog all;": "log stderr all;",
    "passive on;": "passive on; debug { states, events, packets };",
}
_CHANGES = {
    # some tests have many jails, and routes of the router's own
    "[ 198.51.100.0/24{32,32} ];": "[ 198.51.100.0/24{32,32}, 10.0.0.0/8{32,32} ];",
    "[ 2001:db8:7::/64{128,128} ];": "[ 2001:db8::/32{128,128} ];",
    "export where source = RTS_BGP && (net ~ JAILS4 || net ~ SERVICES4);": "export where source ~ [ RTS_STATIC, RTS_BGP ];",
    "export where source = RTS_BGP && (net ~ JAILS6 || net ~ SERVICES6);": "export where source ~ [ RTS_STATIC, RTS_BGP ];",
}


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
        changes = _HEARD | ({} if settings.route_server else _CHANGES)
        if not settings.rfc8950:
            changes |= {"extended next hop on;": "extended next hop off;"}
        if not settings.graceful_restart:
            changes |= {"  graceful restart on;": "  graceful restart off;"}
        if any(link.host_as == ROUTER_AS for link in self.links):  # iBGP, for which BIRD looks up next hops, too
            changes |= {"  enforce first as on;": "  direct;"}
        if settings.password:
            changes |= {"hold time 30;": f'hold time 30; password "{settings.password}";'}
        text = self.made_out("bird", ".conf", changes)
        text += _HEAD.format(static4=settings.static4, static6=settings.static6)
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
                    as_path=tuple(map(int, values.get("BGP.as_path", "").split())),
                    extended_communities=_extended(values.get("BGP.ext_community", "")),
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


def _extended(text: str) -> frozenset[str]:
    """Return "(rt, 65000, 7) (ro, 192.0.2.1, 7)" as texts with colons."""
    kinds = {"rt": "target", "ro": "origin"}
    found = re.findall(r"\((\w+), ([\d.]+), (\d+)\)", text)
    return frozenset(f"{kinds.get(kind, kind)}:{administrator}:{local}" for kind, administrator, local in found)
