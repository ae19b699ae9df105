"""What the product is compared with at scale: BIRD and GoBGP on the host, given the same routes; ExaBGP that only receives.

Each runs on a host of the lab, in a session to the same spine.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from string import Template
from typing import Any

from tests.bench import fabric
from tests.bench.fabric import Route
from tests.bench.usage import resident, used
from tests.lab.ground import SYSTEM_PYTHON
from tests.lab.spine import SPINE_AS, Bird
from tests.lab.topology import Host, Lab
from tests.lab.watch import NotInTime, Process

LONG = 120.0
"""Seconds for anything that thousands of routes may take."""
LOOK_EVERY = 0.05
"""Seconds between questions to a program that can not be waited for."""


def until(check: Callable[[], object], what: str, timeout: float = LONG) -> float:
    """Ask until `check` holds; return the monotonic time at which it did."""
    deadline = time.monotonic() + timeout
    while not check():
        if time.monotonic() > deadline:
            raise NotInTime(f"no {what} within {timeout:g} s")
        time.sleep(LOOK_EVERY)  # a program that is asked too often has no time for what is measured
    return time.monotonic()


class Contestant(ABC):
    """Whoever announces a host's routes and takes what the fabric has."""

    def __init__(self, lab: Lab, host: Host) -> None:
        self.lab = lab
        self.host = host

    @abstractmethod
    def start(self) -> None:
        """Start all that stays, and wait for the session."""

    @abstractmethod
    def pids(self) -> dict[str, int]:
        """Return its processes by their names."""

    @abstractmethod
    def has_received(self) -> bool:
        """Tell whether it has all that the fabric has."""

    @abstractmethod
    def announce(self) -> float:
        """Begin to announce; return the monotonic time from which that counts."""

    @abstractmethod
    def withdraw(self) -> float:
        """Withdraw everything; return the monotonic time from which that counts."""

    @abstractmethod
    def kill(self) -> None:
        """End what speaks BGP, without a warning."""

    @abstractmethod
    def revive(self) -> float:
        """Start what was killed, with all its routes; return the monotonic time at which that began."""

    @abstractmethod
    def close(self) -> None:
        """End all of it, and wait for the session's end."""

    def cpu(self) -> dict[str, float]:
        """Return the CPU seconds that each process has used."""
        return {name: used(pid) for name, pid in self.pids().items()}


class BirdHost(Contestant):
    """BIRD with the routes in its configuration."""

    def __init__(self, lab: Lab, host: Host, own: list[Route], total: int) -> None:
        super().__init__(lab, host)
        self._own = own
        self._total = total
        self._bird = Bird(host.folder, host.prefix, lab.ground.environment())

    def _configure(self, *, enabled: bool) -> None:
        routes = fabric.bird_routes("own", self._own, enabled=enabled)
        text = fabric.host(self.host.session, self.host.router_id, routes)
        (self._bird.folder / "bird.conf").write_text(text)

    def start(self) -> None:
        """Start BIRD, its own routes disabled."""
        self._configure(enabled=False)
        self.host.bird = self._bird
        self._bird.start()
        self.lab.await_session(self.host)

    def pids(self) -> dict[str, int]:
        """Return BIRD's."""
        return {"bird": self._bird.process.process.pid}

    def has_received(self) -> bool:
        """Count the routes."""
        count = self._bird.birdc("show route count")
        return int(count.partition("Total: ")[2].split()[0]) >= self._total

    def _all(self, verb: str) -> float:
        began = time.monotonic()
        for family in (4, 6):
            self._bird.birdc(f"{verb} own{family}")
        return began

    def announce(self) -> float:
        """Enable the static routes."""
        return self._all("enable")

    def withdraw(self) -> float:
        """Disable them."""
        return self._all("disable")

    def kill(self) -> None:
        """Kill BIRD."""
        self._bird.stop(signal.SIGKILL)

    def revive(self) -> float:
        """Start BIRD with the routes enabled."""
        self._configure(enabled=True)
        began = time.monotonic()
        self._bird.start()
        return began

    def close(self) -> None:
        """End BIRD."""
        self._bird.close()
        self.lab.await_session(self.host, up=False)


_GOBGP = Template("""\
[global.config]
  as = $local_as
  router-id = "$router_id"
[[neighbors]]
  [neighbors.config]
    neighbor-address = "$spine"
    peer-as = $spine_as
  [neighbors.timers.config]
    connect-retry = 1
  [neighbors.transport.config]
    local-address = "$address"
  [[neighbors.afi-safis]]
    [neighbors.afi-safis.config]
      afi-safi-name = "ipv4-unicast"
  [[neighbors.afi-safis]]
    [neighbors.afi-safis.config]
      afi-safi-name = "ipv6-unicast"
""")


class GobgpHost(Contestant):
    """GoBGP, which is told its routes by an MRT dump; it keeps none over a restart."""

    def __init__(self, lab: Lab, host: Host, own: list[Route], total: int) -> None:
        super().__init__(lab, host)
        self._total = total
        self._process: Process | None = None
        self._conf = host.folder / "gobgpd.toml"
        self._dump = fabric.mrt(own)
        self._pipe = host.folder / "own.mrt"
        os.mkfifo(self._pipe)
        self._injecting: tuple[subprocess.Popen[str], int] | None = None
        self._commands: list[subprocess.Popen[str]] = []
        self._conf.write_text(
            _GOBGP.substitute(
                local_as=host.local_as,
                router_id=host.router_id,
                spine=host.spine_address,
                spine_as=SPINE_AS,
                address=host.address,
            )
        )

    def start(self) -> None:
        """Start gobgpd without any route."""
        argv = ["gobgpd", "-f", self._conf, "-p", "--pprof-disable", "-l", "warn"]
        self._process = self.host.service("gobgpd", [str(word) for word in argv])
        self.lab.await_session(self.host)

    def pids(self) -> dict[str, int]:
        """Return gobgpd's."""
        assert self._process is not None
        return {"gobgpd": self._process.process.pid}

    def _ask(self, *words: str) -> Any:
        return json.loads(self.host.run(["gobgp", "-j", *words]).stdout)

    def has_received(self) -> bool:
        """Count what the neighbour has told."""
        families = self._ask("neighbor", self.host.spine_address)["afi_safis"]
        received: int = sum(each["state"].get("received", 0) for each in families)
        return received >= self._total

    def announce(self) -> float:
        """Inject the dump.

        Through a pipe that stays open, because 3.10's command ends before gobgpd has taken the last routes; and record by
        record, which a pipe takes whole (pipe(7), PIPE_BUF): it does not read on where it is given less than it asked for.
        """
        pipe = os.open(self._pipe, os.O_RDWR)
        began = time.monotonic()
        self._injecting = self.host.popen(["gobgp", "mrt", "inject", "global", str(self._pipe)]), pipe
        for record in self._dump:
            os.write(pipe, record)
        return began

    def _injected(self) -> None:
        while self._commands:
            self._commands.pop().wait(LONG)
        if self._injecting is not None:
            command, pipe = self._injecting
            os.close(pipe)
            command.wait(LONG)
            self._injecting = None

    def withdraw(self) -> float:
        """Delete its own routes of both families."""
        self._injected()
        began = time.monotonic()
        for family in ("ipv4", "ipv6"):
            self._commands.append(self.host.popen(["gobgp", "global", "rib", "del", "all", "-a", family]))
        return began

    def kill(self) -> None:
        """Kill gobgpd."""
        self._injected()
        assert self._process is not None
        self._process.end(signal.SIGKILL, LONG)

    def revive(self) -> float:
        """Start gobgpd and inject the dump again."""
        began = time.monotonic()
        self.start()
        self.announce()
        return began

    def close(self) -> None:
        """End gobgpd."""
        self._injected()
        assert self._process is not None
        self._process.end(signal.SIGTERM, LONG)
        self.lab.await_session(self.host, up=False)


_READER = """\
import os, sys
ends, rest = 0, b""
while data := os.read(0, 1 << 18):
    *lines, rest = (rest + data).split(b"\\n")
    ends += sum(b'"eor"' in line for line in lines)
    if ends >= 2:
        open(sys.argv[1], "w").close()
"""
_EXABGP = Template("""\
process reader { run $python -I $reader $done; encoder json; }
neighbor $spine {
  router-id $router_id;
  local-address $address;
  local-as $local_as;
  peer-as $spine_as;
  adj-rib-in true;
  capability { nexthop enable; route-refresh enable; }
  family { ipv4 unicast; ipv6 unicast; }
  nexthop { ipv4 unicast ipv6; }
  api { processes [ reader ]; neighbor-changes; receive { parsed; open; update; } }
}
""")


class ExabgpAlone:
    """ExaBGP with a process that reads what it says, and no more: what ours can not be faster than."""

    def __init__(self, lab: Lab, host: Host) -> None:
        self._lab = lab
        self._host = host
        self._done = host.folder / "reader.done"

    def measure(self) -> tuple[float, float, float]:
        """Receive all; return the seconds that took, the CPU seconds, and the memory in MB."""
        reader = self._host.folder / "reader.py"
        reader.write_text(_READER)
        conf = self._host.folder / "alone.conf"
        conf.write_text(
            _EXABGP.substitute(
                python=SYSTEM_PYTHON,
                reader=reader,
                done=self._done,
                spine=self._host.spine_address,
                spine_as=SPINE_AS,
                router_id=self._host.router_id,
                address=self._host.address,
                local_as=self._host.local_as,
            )
        )
        settings = {
            "exabgp.daemon.user": "root",
            "exabgp.api.ack": "false",
            "exabgp.api.cli": "false",
            "exabgp.log.level": "WARNING",
            "exabgp.log.destination": "stdout",
        }
        command = ["env", *(f"{key}={value}" for key, value in settings.items())]
        process = self._host.service("exabgp-alone", [*command, str(Path(sys.executable).parent / "exabgp"), str(conf)])
        try:
            self._lab.await_session(self._host)
            began, before = time.monotonic(), used(process.process.pid)
            took = until(self._done.exists, "end-of-RIBs at ExaBGP alone") - began
            return took, used(process.process.pid) - before, resident(process.process.pid)
        finally:
            process.end(signal.SIGTERM, LONG)
            self._lab.await_session(self._host, up=False)
