"""One jail at a time: from the start of the poststart hook to the route in the spine's kernel, and what it costs."""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

from tests.bench import raw
from tests.bench.figures import Figures, milliseconds, percentile
from tests.lab.topology import HOOK, Host, Lab

STAMP = Path(__file__).with_name("stamp.py")
SYSTEM_IP = "/usr/sbin/ip"
JAIL = "bench"
IPV4, IPV6 = "198.51.100.7/32", "2001:db8:7::7/128"
WARM_UP = 5
UNDAMPED = {"enabled": False}
"""A jail that comes and goes as these do would be suppressed."""
_COUNT = re.compile(r'^mobility_command_seconds_count\{command="[^"]*"\} ([0-9.e+]+)$', re.MULTILINE)
_LINE = re.compile(r"^(\S+)Z INFO (hook jail=bench phase=poststart|announced jail=bench)", re.MULTILINE)


def measure(figures: Figures, starts: int) -> None:
    """Measure single starts, then what they are compared with, in one topology."""
    with Lab(hosts=2) as lab:
        ours, other = lab.hosts
        _ours(figures, lab, ours, starts)
        _redistribution(figures, lab, other, starts)
        _floor(figures, lab, other, starts)
    figures.add(
        "vs_bird_ratio",
        figures.value("hook_to_fib_p50_ms") / figures.value("bird_redistribute_p50_ms"),
        "ratio",
        "aim: at most 2",
    )
    above = figures.value("hook_to_fib_p50_ms") - figures.value("exabgp_floor_p50_ms")
    figures.add("hook_above_floor_ms", above, "ms", "aim: at most 4")


class Starts:
    """A jail that is started, and stopped, again and again; `timeout` is in seconds, for its routes to come or go."""

    def __init__(self, lab: Lab, host: Host, timeout: float = 10.0) -> None:
        self._fib = lab.spine.fib
        self._host = host
        self._timeout = timeout
        self.stamps = host.folder / "stamps"
        hook = f"{sys.executable} -I -S {STAMP} {self.stamps} {HOOK} -c {host.config} poststart {JAIL}"
        host.define_jail(JAIL, [IPV4, IPV6], more=f'exec.poststart = "{hook}";')

    def start(self) -> tuple[float, float]:
        """Start it; return the seconds from its hook to the later of its routes, and when that came (UTC)."""
        host, fib = self._host, self._fib
        fib.changes.clear()
        # not start_jail: a route is stamped when it is read, so somebody must be reading while jail(8) still runs
        starting = host.popen(["jail", "-f", str(host.jail_conf), "-c", JAIL], stdout=subprocess.DEVNULL)
        for prefix in (IPV4, IPV6):
            fib.wait(prefix, via=host.address, timeout=self._timeout)
        if starting.wait() != 0:
            raise RuntimeError(f"jail -c {JAIL} failed: {host.agent.tail() if host.agent else ''}")
        last = max(change.when for change in fib.changes if not change.gone) + time.time() - time.monotonic()
        return last - int(self.stamps.read_text().split()[-1]) / 1e9, last

    def stop(self) -> None:
        """Stop it, and wait for the end of its routes."""
        self._host.stop_jail(JAIL)
        for prefix in (IPV4, IPV6):
            self._fib.wait(prefix, gone=True, timeout=self._timeout)

    def cycle(self) -> float:
        """Start and stop it; return the seconds from its hook to its routes."""
        took, _ = self.start()
        self.stop()
        return took


def _ours(figures: Figures, lab: Lab, host: Host, starts: int) -> None:
    host.configure(damping=UNDAMPED)
    host.start_agent()
    host.start_exabgp()
    lab.await_session(host)
    jail = Starts(lab, host)
    took: list[float] = []
    landed: list[float] = []
    per_start: list[float] = []
    per_stop: list[float] = []
    for _ in range(WARM_UP + starts):
        before = processes(host)
        seconds, last = jail.start()
        landed.append(last)
        took.append(seconds)
        started = processes(host)
        jail.stop()
        per_start.append(started - before)
        per_stop.append(processes(host) - started)
    figures.add("hook_to_fib_p50_ms", milliseconds(took[WARM_UP:]), "ms", f"{starts} starts; the later of /32 and /128")
    figures.add("hook_to_fib_p99_ms", 1000 * percentile(took[WARM_UP:], 0.99), "ms")
    _steps(figures, host, [int(line) / 1e9 for line in jail.stamps.read_text().split()], landed)
    figures.add(
        "processes_per_start", statistics.median(per_start), "processes", "commands the agent ran; two addresses"
    )
    figures.add(
        "processes_per_stop", statistics.median(per_stop), "processes", "without those that take the rejects away later"
    )


def _steps(figures: Figures, host: Host, began: list[float], landed: list[float]) -> None:
    """Say where the time goes, from the agent's own log."""
    hooks: list[float] = []
    announced: list[float] = []
    for when, what in _LINE.findall((host.folder / "agent.log").read_text()):
        at = datetime.fromisoformat(when + "+00:00").timestamp()
        (hooks if what.startswith("hook") else announced).append(at)
    note = "sh, mv, inotify, reading the event"
    figures.add("step_hook_to_agent_ms", milliseconds([b - a for a, b in zip(began, hooks, strict=True)]), "ms", note)
    note = "jls, decision"
    figures.add(
        "step_agent_decides_ms", milliseconds([b - a for a, b in zip(hooks, announced, strict=True)]), "ms", note
    )
    note = "bridge, ExaBGP, BIRD, its kernel"
    figures.add("step_to_fib_ms", milliseconds([b - a for a, b in zip(announced, landed, strict=True)]), "ms", note)


def processes(host: Host) -> float:
    """Return how many commands the agent has run so far, by its own metrics."""
    code = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:9971/metrics').read().decode())"
    return sum(float(count) for count in _COUNT.findall(host.run([sys.executable, "-c", code]).stdout))


def _redistribution(figures: Figures, lab: Lab, host: Host, times: int) -> None:
    took = []
    with raw.bird(lab, host):
        for _ in range(WARM_UP + times):
            lab.spine.fib.changes.clear()
            began = time.monotonic()
            subprocess.run([*host.prefix, SYSTEM_IP, "-6", "route", "add", IPV6, "dev", "lo0"], check=True)
            lab.spine.fib.wait(IPV6, via=host.address)
            took.append(lab.spine.fib.changes[-1].when - began)
            subprocess.run([*host.prefix, SYSTEM_IP, "-6", "route", "del", IPV6, "dev", "lo0"], check=True)
            lab.spine.fib.wait(IPV6, gone=True)
    figures.add(
        "bird_redistribute_p50_ms",
        milliseconds(took[WARM_UP:]),
        "ms",
        "`ip route add`, entering the namespace included",
    )


def _floor(figures: Figures, lab: Lab, host: Host, times: int) -> None:
    took = []
    with raw.exabgp(lab, host) as pipe:
        for _ in range(WARM_UP + times):
            lab.spine.fib.changes.clear()
            began = time.monotonic()
            pipe.write(f"announce route {IPV6} next-hop {host.address}\n")
            lab.spine.fib.wait(IPV6, via=host.address)
            took.append(lab.spine.fib.changes[-1].when - began)
            pipe.write(f"withdraw route {IPV6} next-hop {host.address}\n")
            lab.spine.fib.wait(IPV6, gone=True)
    figures.add("exabgp_floor_p50_ms", milliseconds(took[WARM_UP:]), "ms", "one line into ExaBGP's pipe")
