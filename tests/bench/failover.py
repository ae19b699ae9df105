"""A gateway pair that fails over: ours beside what operators glue together, a devd script that writes into ExaBGP's pipe.

Both in one run and one topology (tests.lab.pair), one after the other: a packet a millisecond from a client beyond the
spine to the server behind the pair, and back through whichever gateway is MASTER. A vhid for each family, and the LAN's
prefix of that family follows it.
"""

from __future__ import annotations

import signal
import statistics
import subprocess
from abc import ABC, abstractmethod
from contextlib import ExitStack
from string import Template

from tests.bench import raw
from tests.bench.figures import Figures, milliseconds
from tests.lab.pair import LANS, SERVERS, VHIDS, Pair
from tests.lab.topology import Host
from tests.lab.watch import Process
from tests.waiting import until

WARM_UP = 2
DEMOTION = 240
FLOOR = "exabgp_floor_p50_ms"
AIM = 10.0
"""Milliseconds above ExaBGP's own."""

#: As carp(4) shows it: `action "/root/carpcontrol.sh $subsystem $type"`.
_SCRIPT = Template("""\
#!/bin/sh
case $$1 in
1@*) prefix=$lan4 ;;
2@*) prefix=$lan6 ;;
esac
case $$2 in
MASTER) verb=announce ;;
*) verb=withdraw ;;
esac
echo "$$verb route $$prefix next-hop $address" >$pipe
""")


class Contestant(ABC):
    """Who keeps BGP in step with CARP on both gateways."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair

    @abstractmethod
    def start(self, host: Host) -> None:
        """Begin on a gateway that has its CARP addresses."""

    @abstractmethod
    def drain(self, host: Host) -> None:
        """Have the other one take over, as an operator does."""

    @abstractmethod
    def undrain(self, host: Host) -> None:
        """Take that back."""

    @abstractmethod
    def kill(self, host: Host) -> None:
        """Kill a gateway's ExaBGP, and start it again as its service does."""

    @abstractmethod
    def stop(self, host: Host, *, dead: bool) -> None:
        """End what runs on a gateway, which may be dead with all that was on it."""


class Ours(Contestant):
    """The agent."""

    def start(self, host: Host) -> None:
        self.pair.start_failover(host, by_family=True)

    def drain(self, host: Host) -> None:
        host.mobility("drain")

    def undrain(self, host: Host) -> None:
        host.mobility("undrain")

    def kill(self, host: Host) -> None:
        host.stop_exabgp(signal.SIGKILL)
        host.start_exabgp()
        self.pair.await_session(host)

    def stop(self, host: Host, *, dead: bool) -> None:
        if not dead:
            host.stop_agent()
            host.stop_exabgp()
        self.pair.await_session(host, up=False)


class Script(Contestant):
    """devd runs the script, one event after the other; an operator demotes CARP by hand."""

    def __init__(self, pair: Pair) -> None:
        super().__init__(pair)
        self._running: dict[str, ExitStack] = {}
        self._exabgps: dict[str, Process] = {}

    def start(self, host: Host) -> None:
        script = host.folder / "carpcontrol.sh"
        words = {"lan4": LANS[0], "lan6": LANS[1], "address": host.address, "pipe": host.folder / "raw.pipe"}
        script.write_text(_SCRIPT.substitute({key: str(value) for key, value in words.items()}))

        def act(vhid: str, state: str) -> None:
            subprocess.run(["sh", str(script), vhid, state], check=True)

        stack = self._running[host.name] = ExitStack()
        stack.enter_context(raw.exabgp(self.pair, host, lambda process: self._exabgps.update({host.name: process})))
        self.pair.listen(host).call(act)
        for vhid, state in self.pair.carp_states(host).items():
            act(vhid, state)

    def drain(self, host: Host) -> None:
        self._demote(host, DEMOTION)

    def undrain(self, host: Host) -> None:
        self._demote(host, -DEMOTION)

    def kill(self, host: Host) -> None:
        self._exabgps[host.name].process.kill()
        self.stop(host, dead=False)
        self.start(host)

    def _demote(self, host: Host, by: int) -> None:
        host.run(["sysctl", f"net.inet.carp.demotion={by}"])

    def stop(self, host: Host, *, dead: bool) -> None:
        self.pair.deafen(host)
        self._running.pop(host.name).close()


def measure(figures: Figures, times: int, crashes: int = 3, *, pace: float = 1.0) -> None:
    """Measure `times` changes of the MASTER, as many planned ones, and `crashes` of each kind (at least one), for both.

    With a `pace` (see tests.lab.pair) it only tells whether it runs: what CARP takes is then none of FreeBSD's.
    """
    for contestant, suffix, who in ((Script, "script_", "devd script, plain ExaBGP"), (Ours, "", "agent")):
        with Pair(pace=pace) as pair:
            pair.carp()
            pair.pfsync()
            pair.await_state(pair.hosts[0], "MASTER")
            pair.await_state(pair.hosts[1], "BACKUP")
            _Run(figures, contestant(pair), suffix, who).measure(times, crashes)
    ours, script = (figures.value(f"carp_event_to_fib_{which}p50_ms") for which in ("", "script_"))
    figures.add("carp_event_vs_script_ratio", ours / script, "ratio")
    if any(figure.name == FLOOR for figure in figures.figures):
        figures.add("carp_event_above_floor_ms", ours - figures.value(FLOOR), "ms", f"aim: at most {AIM:g}")


class _Run:
    """One contestant's turn."""

    def __init__(self, figures: Figures, contestant: Contestant, suffix: str, who: str) -> None:
        self._figures = figures
        self._contestant = contestant
        self._suffix = suffix
        self._who = who
        self._pair = contestant.pair

    def measure(self, times: int, crashes: int) -> None:
        """Measure all of it."""
        a, b = self._pair.hosts
        for host in (a, b):
            self._contestant.start(host)
        self._calm()
        self._events(times)
        self._planned(times)
        self._cuts(crashes)
        self._kills(crashes)
        self._crashes(crashes)
        for host in (a, b):
            self._contestant.stop(host, dead=False)

    def _add(self, name: str, unit: str, value: float, note: str) -> None:
        self._figures.add(f"{name}{self._suffix}{unit}", value, unit.rpartition("_")[2], f"{note}; {self._who}")

    def _events(self, times: int) -> None:
        """A CARP event of the new MASTER, to the route by it in the spine's kernel; CARP is demoted by hand."""
        a, b = self._pair.hosts
        took: list[float] = []
        for number in range(2 * -(-(WARM_UP + times) // 2)):
            demoted = number % 2 == 0
            master = b if demoted else a
            news = self._pair.listen(master)
            news.events.clear()
            self._pair.spine.fib.changes.clear()
            a.run(["sysctl", f"net.inet.carp.demotion={DEMOTION if demoted else -DEMOTION}"])
            self._over(master)
            for vhid, prefix in zip(VHIDS, LANS, strict=True):
                began = max(when for when, each, state in news.events if (each, state) == (vhid, "MASTER"))
                changes = self._pair.spine.fib.changes
                landed = min(each.when for each in changes if (each.prefix, each.via) == (prefix, master.address))
                took.append(landed - began)
        self._add("carp_event_to_fib_", "p50_ms", milliseconds(took[2 * WARM_UP :]), f"{times} changes, both families")

    def _over(self, master: Host) -> None:
        """Wait until all have it that a gateway is the one."""
        self._pair.await_state(master, "MASTER")
        self._pair.leads_to(master)
        self._pair.await_state(self._pair.other(master), "BACKUP")

    def _calm(self) -> None:
        """Wait until nobody is demoted any more, as one is who has no session yet, and the first gateway is the one."""
        for host in self._pair.hosts:
            until(lambda: self._pair.demotion(host) == 0, f"end of the demotion of {host.name}")  # noqa: B023
        self._over(self._pair.hosts[0])

    def _planned(self, times: int) -> None:
        a, b = self._pair.hosts
        lost: list[int] = []
        for number in range(2 * -(-times // 2)):
            probe = self._pair.probe(*SERVERS)
            if number % 2:
                self._contestant.undrain(a)
            else:
                self._contestant.drain(a)
            self._over(a if number % 2 else b)
            lost += [found["lost"] for found in probe.end().values()]
        self._add("failover_planned_lost_", "ms", max(lost), f"a packet a ms; the worst of {len(lost)}")

    def _cuts(self, cuts: int) -> None:
        """The master's cable to the LAN is pulled."""
        a, b = self._pair.hosts
        lost: list[int] = []
        for _ in range(cuts):
            probe = self._pair.probe(*SERVERS)
            self._pair.cut(a)
            self._pair.await_state(b, "MASTER")
            self._pair.leads_to(b)
            lost += [found["lost"] for found in probe.end().values()]
            self._pair.cut(a, cut=False)
            self._calm()
        self._add("failover_cut_lost_", "ms", statistics.median(lost), f"the cable to the LAN; {cuts} times")

    def _kills(self, kills: int) -> None:
        """The master's ExaBGP is killed, and started again."""
        lost: list[int] = []
        for _ in range(kills):
            probe = self._pair.probe(*SERVERS)
            self._contestant.kill(self._pair.hosts[0])
            self._calm()
            lost += [found["lost"] for found in probe.end().values()]
        self._add("failover_exabgp_lost_", "ms", statistics.median(lost), f"ExaBGP killed and started; {kills} times")

    def _crashes(self, crashes: int) -> None:
        a, b = self._pair.hosts
        lost: list[int] = []
        for _ in range(crashes):
            probe = self._pair.probe(*SERVERS)
            self._pair.crash(a)
            self._pair.await_state(b, "MASTER")
            self._pair.leads_to(b)
            lost += [found["lost"] for found in probe.end().values()]
            self._contestant.stop(a, dead=True)
            self._pair.boot(a)
            self._pair.carp(a)
            self._pair.pfsync(a)
            self._contestant.start(a)
            self._calm()
        self._add(
            "failover_crash_lost_",
            "ms",
            statistics.median(lost),
            f"CARP takes 3 advertisements to see it; {crashes} times",
        )
