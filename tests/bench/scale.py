"""A host with ten thousand jails in a fabric that tells it a hundred thousand routes: ours beside BIRD and GoBGP.

All get the same routes in the same topology, one after the other: a host with two routes for each jail, each jail with a
claim of its own, and a spine that has the claims of other hosts and as many routes that are nobody's business. A second
host claims them all with a higher sequence. What is timed is the spine's kernel. In the end, a jail is started on a
host while all that the fabric has is withdrawn and told again.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mobility import control
from mobility.bgp import ownership
from mobility.jails.jailsd import JailConfig
from tests.bench import bulk, fabric, start
from tests.bench.fabric import Route
from tests.bench.figures import Figures, milliseconds
from tests.bench.rivals import LONG, BirdHost, Contestant, ExabgpAlone, GobgpHost, until
from tests.bench.usage import resident
from tests.lab.spine import Bird
from tests.lab.topology import Host, Lab
from tests.lab.watch import Fib, NotInTime

SEQUENCE = 29_900_000
"""What the rivals' jails are claimed with: minutes since 1970, of late 2026."""
LEAST_CPU = 0.05
"""CPU seconds of which the kernel's ticks, of 10 ms, give a fair ratio."""
REST, REST_CPU = 0.5, 0.05
"""Seconds for which a process that has used less than so many CPU seconds is at rest; ExaBGP looks around all the time."""
OURS, BIRD, GOBGP = "ours", "bird", "gobgp"


class Table:
    """Where the routes in the spine's kernel lead, kept up as they change."""

    def __init__(self, fib: Fib) -> None:
        self._fib = fib
        self._via: dict[str, str] = {}
        self._counts: Counter[str] = Counter()
        self._last = 0.0
        self.ended = 0.0
        """When (monotonic) the first route ended since the last wait began."""
        fib.routes()
        fib.changes.clear()

    def _update(self) -> None:
        for change in self._fib.changes:
            before = self._via.get(change.prefix)
            if not change.gone:
                self._via[change.prefix] = change.via
                self._counts[change.via] += 1
            if before is not None and (not change.gone or before == change.via):
                self._counts[before] -= 1
                if change.gone:
                    del self._via[change.prefix]
            if change.gone and not self.ended:
                self.ended = change.when
            self._last = change.when
        self._fib.changes.clear()

    def await_count(self, via: str, count: int, what: str) -> float:
        """Wait until so many routes lead to `via`; return the monotonic time of the last change until then."""

        def reached() -> bool:
            self._update()
            return self._counts[via] == count

        self._update()
        self.ended = 0.0
        try:
            self._fib.wait_for(reached, what, LONG)
        except NotInTime:
            # the whole table would follow
            raise NotInTime(f"{what}: {self._counts[via]} of {count} routes after {LONG:g} s") from None
        return self._last


@dataclass(slots=True)
class Row:
    """One line of the comparison: what it took each."""

    name: str
    note: str
    unit: str = "s"
    values: dict[str, float] = field(default_factory=dict)

    def ratio(self, who: str) -> float | None:
        """Return what ours is to another's; None where one is not known, or too small to be measured."""
        ours, other = self.values.get(OURS), self.values.get(who)
        tiny = LEAST_CPU if self.name.endswith("_cpu") else 0.0
        return ours / other if ours is not None and other is not None and other > tiny else None


@dataclass(slots=True)
class Comparison:
    """Figures of all contestants, by what was measured."""

    rows: dict[str, Row] = field(default_factory=dict)

    def put(self, who: str, name: str, value: float, note: str = "", unit: str = "s") -> None:
        """Keep a value of one contestant's."""
        row = self.rows.setdefault(name, Row(name, note, unit))
        row.note = row.note or note
        row.values[who] = value
        print(f"  {who}: {name} {value:.2f} {unit}", flush=True)

    @contextlib.contextmanager
    def cpu(self, who: str, name: str, contestant: Contestant) -> Iterator[None]:
        """Keep the CPU seconds that a contestant's processes use meanwhile."""
        before = contestant.cpu()
        yield
        after = contestant.cpu()
        spent = {name: after[name] - before.get(name, 0.0) for name in after}
        parts = ", ".join(f"{name} {value:.2f}" for name, value in spent.items())
        self.put(who, f"{name}_cpu", sum(spent.values()), f"CPU: {parts}" if who == OURS else "")

    def report(self, figures: Figures) -> None:
        """Hand all over: ours by its name, then the others' and the ratio of ours to each."""
        for row in self.rows.values():
            suffix = {"s": "s", "MB": "mb"}[row.unit]
            for who, value in row.values.items():
                name = f"scale_{row.name}_{suffix}" if who == OURS else f"scale_{row.name}_{who}_{suffix}"
                figures.add(name, value, row.unit, row.note if who == OURS else "")
            for who in (BIRD, GOBGP):
                ratio = row.ratio(who)
                if ratio is not None:
                    figures.add(f"scale_{row.name}_vs_{who}", ratio, "ratio")

    def table(self) -> str:
        """Return it for people: a line for each thing measured, ours and the others side by side."""
        lines = [f"{'':24} {'ours':>10} {'BIRD':>10} {'GoBGP':>10} {'to BIRD':>9} {'to GoBGP':>9}"]
        for row in self.rows.values():
            cells = [_cell(row.values.get(who), "10.2f") for who in (OURS, BIRD, GOBGP)]
            cells += [_cell(row.ratio(who), "9.1f") for who in (BIRD, GOBGP)]
            lines.append(f"{row.name + ' (' + row.unit + ')':24} {' '.join(cells)}")
        return "\n".join(lines)


def _cell(value: float | None, form: str) -> str:
    return f"{'-':>{form.partition('.')[0]}}" if value is None else f"{value:{form}}"


class Ours(Contestant):
    """Agent, bridge and ExaBGP; the host's commands answer from prepared text."""

    def __init__(self, lab: Lab, host: Host, configs: list[JailConfig], claims: int, drain_for: float) -> None:
        super().__init__(lab, host)
        self._claims = claims
        self._routes = sum(len(config.addresses) for config in configs)
        bulk.prepare(host, configs)
        # no graceful restart: routes of what was killed leave the spine, and their return is seen
        bulk.configure(host, bulk.SELDOM, bgp={"graceful_restart": 0}, agent={"drain_for": drain_for})
        for config in configs:
            host.grant(config.name, [str(prefix) for prefix in config.addresses])
        bulk.remember(host, configs)

    def start(self) -> None:
        """Start ExaBGP and its bridge."""
        self.host.start_exabgp()
        self.lab.await_session(self.host)

    def bridge(self) -> int:
        """Return the bridge's process: ExaBGP has no other child."""
        assert self.host.exabgp is not None
        pid = self.host.exabgp.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return int(children[0])

    def pids(self) -> dict[str, int]:
        """Return those of the three, as far as they run."""
        found = {}
        if self.host.agent is not None:
            found["agent"] = self.host.agent.process.pid
        if self.host.exabgp is not None:
            found |= {"bridge": self.bridge(), "exabgp": self.host.exabgp.process.pid}
        return found

    def told(self) -> dict[str, Any]:
        """Return what the agent knows of its BGP half: `rib` counts, and whether the bridge has told all."""
        answer = control.request(self.host.run_folder / "control.sock", "status", names=["j0"], answer_within=LONG)
        host: dict[str, Any] = answer["host"]
        return host

    def knows(self) -> bool:
        """Tell whether the agent has heard everything, and everything is as it wants it."""
        host = self.told()
        rib = host["rib"]
        settled = rib["acknowledged"] == rib["desired"] == self._routes and not rib["differing"]
        return bool(host["bridge"] and rib["received"] == self._claims and settled)

    def has_received(self) -> bool:
        """Tell whether ExaBGP and the bridge rest: nobody else is there whom they would tell."""
        before = self.cpu()
        time.sleep(REST)  # what is looked at is what happens when nothing does
        after = self.cpu()
        return all(after[name] - before[name] < REST_CPU for name in before)

    def announce(self) -> float:
        """Start the agent; what counts is the time from its look at the host."""
        agent = self.host.start_agent(LONG)
        look = "looked at the host"
        agent.await_(lambda: look in agent.log.read_text(), look, LONG)
        return bulk.first(agent.log.read_text(), look) - (time.time() - time.monotonic())

    def withdraw(self) -> float:
        """Begin to drain the host: it announces GRACEFUL_SHUTDOWN first."""
        return self._ask("drain")

    def undrain(self) -> float:
        """End the drain; return the monotonic time at which that began."""
        return self._ask("undrain")

    def _ask(self, word: str) -> float:
        # in a thread: a route counts when it is read, so somebody has to read while it goes
        began = time.monotonic()
        threading.Thread(target=self.host.mobility, args=(word,), kwargs={"check": False}).start()
        return began

    def kill(self) -> None:
        """Kill ExaBGP."""
        self.host.stop_exabgp(signal.SIGKILL)

    def revive(self) -> float:
        """Start ExaBGP; the agent is there."""
        began = time.monotonic()
        self.start()
        return began

    def close(self) -> None:
        """End all."""
        self.host.stop_agent()
        self.host.stop_exabgp()
        self.lab.await_session(self.host, up=False)


def measure(
    figures: Figures, jails: int, received: int, starts: int, drain_for: float = bulk.DEFAULTS.agent.drain_for
) -> None:
    """Measure all, and print the comparison. `drain_for` is agent.drain_for, in seconds."""
    comparison = Comparison()
    configs = bulk.jails(jails)
    others = fabric.fabric(received)
    claims = sum(route.claim is not None for route in others)
    with Lab(hosts=2) as lab:
        host, second = lab.hosts
        lab.spine.configure(
            fabric.spine(lab.spine.sessions, fabric.bird_routes("fabric", others, enabled=True)),
        )
        table = Table(lab.spine.fib)
        took, cpu, memory = ExabgpAlone(lab, host).measure()
        figures.add(
            "scale_exabgp_alone_s", took, "s", f"ExaBGP alone receives {received} routes, its process only reads"
        )
        figures.add("scale_exabgp_alone_cpu_s", cpu, "s")
        figures.add("scale_exabgp_alone_rss_mb", memory, "MB", "ExaBGP alone, with those")
        run = _Run(figures, comparison, lab, table, host, second, 2 * jails)
        run.ours(Ours(lab, host, configs, claims, drain_for))
        own = fabric.claimed(configs, SEQUENCE, host.router_id)
        for who, rival in ((BIRD, BirdHost(lab, host, own, received)), (GOBGP, GobgpHost(lab, host, own, received))):
            run.rival(who, rival, own)
        _flood(figures, lab, second, claims, starts)
    comparison.report(figures)
    print(comparison.table(), flush=True)


@dataclass(slots=True)
class _Run:
    figures: Figures
    comparison: Comparison
    lab: Lab
    table: Table
    host: Host
    second: Host
    routes: int

    def _stand(self, what: str) -> float:
        return self.table.await_count(self.host.address, self.routes, what)

    def _gone(self, what: str) -> float:
        return self.table.await_count(self.host.address, 0, what)

    def _timed(self, who: str, name: str, contestant: Contestant, act: Callable[[], float], note: str = "") -> None:
        """Act, and keep how long it takes until all routes stand."""
        with self.comparison.cpu(who, name, contestant):
            began = act()
            self.comparison.put(who, name, self._stand(f"{who}: {name}") - began, note)

    def ours(self, ours: Ours) -> None:
        """Measure the product."""
        put = self.comparison.put
        host = self.host
        ours.start()
        before, began = ours.cpu(), time.monotonic()
        took = until(ours.has_received, "ExaBGP at rest") - began - REST
        put(OURS, "receive", took, "ExaBGP and bridge, from the session until they rest")
        spent = {name: value - before[name] for name, value in ours.cpu().items()}
        parts = ", ".join(f"{name} {value:.2f}" for name, value in spent.items())
        put(OURS, "receive_cpu", sum(spent.values()), f"CPU: {parts}")
        note = f"{self.routes} routes of {self.routes // 2} jails in the spine's kernel, from the end of the look"
        self._timed(OURS, "announce", ours, ours.announce, note)
        until(ours.knows, "an agent that knows all")
        self._restarts(ours)
        note = "ExaBGP killed and started: all stand again; it receives all meanwhile"
        self._replay(OURS, ours, note)
        until(ours.knows, "an agent that knows all after the replay")
        for name, pid in ours.pids().items():
            put(name, "rss", resident(pid), unit="MB")
        put(OURS, "rss", sum(map(resident, ours.pids().values())), "agent, bridge and ExaBGP together", "MB")
        with self.comparison.cpu(OURS, "withdraw", ours):
            began = ours.withdraw()
            gone = self._gone("drain")
        note = "`mobility drain`: GRACEFUL_SHUTDOWN for drain_for at least, withdrawals"
        put(OURS, "drain", gone - began, note)
        put(
            OURS, "withdraw", gone - self.table.ended, "of the drain, or of the others' own: from the first route's end"
        )
        self._timed(OURS, "undrain", ours, ours.undrain, "until all stand again")
        until(ours.knows, "an agent that knows all after the undrain")
        own = _claims(lab=self.lab, host=host)
        if not own:
            raise RuntimeError("the host's routes carry no claims")
        self._move(OURS, ours, own)
        ours.close()

    def _restarts(self, ours: Ours) -> None:
        """Restart the agent, then the bridge: neither sends an UPDATE."""
        host, spine = self.host, self.lab.spine
        before = spine.updates(host.session.name)
        host.stop_agent()
        began, _ = time.monotonic(), host.start_agent(LONG)
        took = until(ours.knows, "an agent that knows all after its restart") - began
        self.comparison.put(OURS, "restart", took, "agent stopped and started, until it knows all")
        after = spine.updates(host.session.name)
        sent = after.updates - before.updates + after.withdraws - before.withdraws
        self.figures.add("restart_updates_sent", sent, "routes", "by an agent that was restarted; must be 0")
        log = host.folder / "agent.log"
        gone = log.read_text().count("the bridge is gone")
        bridge = ours.bridge()
        began = time.monotonic()
        subprocess.run(["kill", "-KILL", str(bridge)], check=True)
        until(lambda: log.read_text().count("the bridge is gone") > gone, "news of the bridge's end")
        took = until(ours.knows, "an agent that knows all from a new bridge") - began
        self.comparison.put(OURS, "new_bridge", took, "bridge killed, until a new one has learned and told all")
        last = spine.updates(host.session.name)
        sent = last.updates - after.updates + last.withdraws - after.withdraws
        self.figures.add("new_bridge_updates_sent", sent, "routes", "after the bridge was killed; must be 0")

    def _replay(self, who: str, contestant: Contestant, note: str = "") -> None:
        contestant.kill()
        self._gone(f"end of {who}'s routes")
        self.comparison.put(who, "replay", -contestant.revive() + self._stand(f"{who}: replay"), note)

    def rival(self, who: str, rival: Contestant, own: list[Route]) -> None:
        """Measure another with the same routes."""
        put = self.comparison.put
        rival.start()
        began = time.monotonic()
        put(who, "receive", until(rival.has_received, f"routes at {who}") - began)
        put(who, "receive_cpu", sum(rival.cpu().values()))
        self._timed(who, "announce", rival, rival.announce)
        self._replay(who, rival)
        until(rival.has_received, f"routes at {who}")
        put(who, "rss", sum(map(resident, rival.pids().values())), unit="MB")
        with self.comparison.cpu(who, "withdraw", rival):
            began = rival.withdraw()
            put(who, "withdraw", self._gone(f"{who}: withdrawal") - began)
        self._timed(who, "undrain", rival, rival.announce)
        self._move(who, rival, own)
        rival.close()

    def _move(self, who: str, contestant: Contestant, own: list[Route]) -> None:
        """Let the second host claim all routes, by a BIRD; ours lets go, the others hold on to what they have."""
        put = self.comparison.put
        session = self.lab.spine.updates(self.host.session.name)
        claimant = int.from_bytes(bytes(map(int, self.second.router_id.split("."))), "big")
        newer = [
            Route(route.prefix, ownership.Claim(route.claim.sequence + 1, route.claim.identity, claimant))
            for route in own
            if route.claim is not None
        ]
        bird = Bird(self.second.folder, self.second.prefix, self.lab.ground.environment())
        text = fabric.host(self.second.session, self.second.router_id, fabric.bird_routes("own", newer, enabled=False))
        (bird.folder / "bird.conf").write_text(text)
        bird.start()
        try:
            self.lab.await_session(self.second)
            with self.comparison.cpu(who, "move", contestant):
                began = time.monotonic()
                for family in (4, 6):
                    bird.birdc(f"enable own{family}")
                moved = self.table.await_count(self.second.address, self.routes, f"{who}: move") - began
                note = "a second host's claims of one more: all routes lead there"
                put(who, "move", moved, note)
                if who == OURS:
                    wanted = session.withdraws + self.routes
                    let_go = until(
                        lambda: self.lab.spine.updates(self.host.session.name).withdraws >= wanted, "withdrawals"
                    )
                    put(who, "let_go", let_go - began, "until the old host has withdrawn them all, too")
        finally:
            bird.close()
            self.lab.await_session(self.second, up=False)


def _claims(lab: Lab, host: Host) -> list[Route]:
    """Return what a host claims, as the spine has it."""
    found: list[Route] = []
    prefix = ""
    for line in lab.spine.birdc(f"show route all protocol {host.session.name}").splitlines():
        words = line.split()
        if words and "/" in words[0] and not line.startswith("\t"):
            prefix = words[0]
        elif line.startswith("\tBGP.large_community:"):
            texts = [":".join(part.split(", ")) for part in line.partition("(")[2].rstrip(") ").split(") (")]
            claim = ownership.read(texts, fabric.ADMINISTRATOR)
            if claim is not None:
                found.append(Route(prefix, claim))
    return found


def _flood(figures: Figures, lab: Lab, host: Host, claims: int, starts: int) -> None:
    """Start a jail while everything that the fabric has is withdrawn and told again."""
    allowed = [*bulk.ALLOWED, start.IPV4, start.IPV6]
    host.configure(host={"name": host.name, "allowed": allowed}, damping=start.UNDAMPED)
    host.start_agent()
    host.start_exabgp()
    lab.await_session(host)
    jail = start.Starts(lab, host, LONG)
    for _ in range(start.WARM_UP):
        jail.cycle()
    _await_received(host, claims)
    rest = [jail.cycle() for _ in range(starts)]
    flooded: list[float] = []
    for verb, count in (("disable", 0), ("enable", claims)):
        for family in (4, 6):
            lab.spine.birdc(f"{verb} fabric{family}")
        half = len(flooded) + starts
        while len(flooded) < half and _received(host) != count:
            flooded.append(jail.cycle())
    figures.add("scale_hook_to_fib_rest_p50_ms", milliseconds(rest), "ms", f"{len(rest)} starts")
    if flooded:
        note = f"{len(flooded)} starts while the fabric withdraws its routes and tells them again"
        figures.add("scale_hook_to_fib_flood_p50_ms", milliseconds(flooded), "ms", note)
        figures.add("scale_hook_to_fib_flood_max_ms", 1000 * max(flooded), "ms")


def _received(host: Host) -> int:
    answer = control.request(host.run_folder / "control.sock", "status", answer_within=LONG)
    count: int = answer["host"]["rib"]["received"]
    return count


def _await_received(host: Host, count: int) -> None:
    until(lambda: _received(host) == count, f"{count} routes at {host.name}")
