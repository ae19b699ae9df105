"""How a scrape asks a running agent: in turns with its other work, in parts, and never at the agent's cost."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from prometheus_client import generate_latest

from mobility import damping
from mobility.answers import Known
from mobility.bgp.ownership import Held, Kind, Record, Ruling
from mobility.bgp.speaker import RouteState, Session, State
from mobility.damping import Damping
from mobility.decide import Memory, Stand, Target
from mobility.metrics import Metrics, gather
from mobility.metrics.causes import Cause
from mobility.metrics.gather import Sight
from mobility.metrics.jails import JailState
from mobility.metrics.state import Bgp
from mobility.metrics.state import State as Figures
from mobility.model import Attributes, Prefix, host_prefix
from mobility.network.output import Jail
from mobility.worker import Drained, Shared, Worker

PREFIX = host_prefix("198.51.100.7")
TEXT = "198.51.100.7/32"


class Speaker:
    """What the figures ask of a speaker."""

    connected = True

    def __init__(self) -> None:
        self.told = {TEXT: State.ANNOUNCED}
        self.book = {TEXT}
        self.paths: set[str] = set()
        self.counters = SimpleNamespace(restarts=0)
        self.session = Session("spine", "fd00::1", "up")

    def untold(self) -> set[str]:
        return {text for text, state in self.told.items() if state is not State.ANNOUNCED or not self.connected}

    def lingering(self) -> set[str]:
        return self.book - self.told.keys()

    def shown(self, prefixes: Any) -> set[str]:
        return {text for text in self.paths if text in prefixes}

    def route(self, prefix: Prefix) -> dict[str, RouteState]:
        return {"spine": RouteState(self.told[str(prefix)])}

    def sessions(self) -> dict[str, Session]:
        return {"spine": self.session}

    def changes(self) -> dict[tuple[str, str], int]:
        return {("spine", "up"): 1}

    def describe(self) -> list[dict[str, Any]]:
        return [{"peer": "spine", "held_back": {"why": 2}}]

    def counts(self) -> dict[str, int]:
        return {"desired": 1}


class World:
    """An agent, as far as it is looked at, with the one jail web1, announced."""

    def __init__(self) -> None:
        self.speaker, self.metrics = Speaker(), Metrics()
        self.older: list[str] = []
        self.drained = Drained()
        self.ready = True
        self.health = SimpleNamespace(passes=lambda _: self.ready, probes=1, runs={"reach": 3}, failures={})
        self.ledger = SimpleNamespace(records=dict[str, Record](), shown_older=lambda *_: self.older)
        self.failover = SimpleNamespace(active=False, of_jail=lambda *_: None)
        self.shared = cast(
            Shared,
            SimpleNamespace(
                speaker=self.speaker,
                metrics=self.metrics,
                health=self.health,
                fabric=SimpleNamespace(ledger=self.ledger, failover=self.failover),
                spool=SimpleNamespace(depth=2, oldest=lambda _: 1.5),
                damping=damping.Policy(),
                drained=lambda _: self.drained,
                settle_for=0.0,
            ),
        )
        self.worker = Worker("web1", self.shared, Memory(announced_at=1.0, held=Held(7, (TEXT,))))
        self.worker.jail = Jail("web1", 3, vnet=True, path="/")
        self.worker.target = Target(Stand.ANNOUNCED)
        self.worker.announcer.announced = {PREFIX: Attributes()}
        self.worker.announcer.ruling = Ruling(Kind.HELD, Held(), Record())
        self.files = SimpleNamespace(jails={}, problems={}, refused={})
        self.running: dict[str, Jail] = {}
        self.drains: dict[str, float] = {}
        self.workers = {"web1": self.worker}
        self.granted = {"web1": (TEXT,)}
        self.others: set[str] = set()
        known = SimpleNamespace(
            workers=self.workers,
            files=lambda: self.files,
            view=lambda: SimpleNamespace(jails=self.running),
            granted=self.granted,
            drains=self.drains,
            handing=set,
            looked_at=lambda: 5.0,
        )
        self.sight = Sight(
            self.shared, cast(Known, known), lambda: {*self.workers, *self.others}, {TEXT: {"web1"}, "x": {"web2"}}
        )

    def only(self) -> JailState:
        jails = asyncio.run(self.sight.jails())
        (jail,) = jails.shown
        return jail

    def stop(self) -> None:
        self.worker.jail, self.worker.target = None, Target(Stand.ABSENT)
        self.worker.announcer.announced.clear()
        del self.speaker.told[TEXT]


def test_a_jail_that_is_announced() -> None:
    world = World()
    expected = JailState("web1", Stand.ANNOUNCED, running=True, announced=True, ready=True, wanted=True, kind=Kind.HELD)
    assert world.only() == expected
    state = asyncio.run(world.sight.gather())
    assert state.bgp is not None
    assert state.host is not None
    assert state.checks is not None
    assert (state.bgp.held_back, state.bgp.sessions) == ({"spine": 2}, {"spine": True})
    assert (state.host.spool_depth, state.host.spool_oldest, state.host.looked_at) == (2, 1.5, 5.0)
    assert state.checks.runs == {"reach": 3}
    assert state.failover is None


@pytest.mark.parametrize(
    ("at_spine", "cause"),
    [(State.SENDING, Cause.SENDING), (State.REFUSED, Cause.REFUSED), (State.HELD, Cause.HELD_BACK)],
)
def test_a_jail_that_no_peer_has_is_dark(at_spine: State, cause: Cause) -> None:
    world = World()
    world.speaker.told[TEXT] = at_spine
    jail = world.only()
    assert (jail.announced, jail.wanted, jail.reason) == (False, True, cause)


def test_the_hosts_troubles_are_told_as_such() -> None:
    world = World()
    world.speaker.told[TEXT] = State.NO_SESSION
    world.speaker.session = replace(world.speaker.session, state="down")
    assert world.only().reason is Cause.NO_SESSION
    world.speaker.connected = False
    assert world.only().reason is Cause.NO_BRIDGE
    jails = asyncio.run(world.sight.jails())
    assert (jails.dark, jails.announced, jails.reasons["no_bridge"]) == (1, 0, 1)


def test_what_is_not_wanted_is_not_dark() -> None:
    world = World()
    world.drains["*"] = 1.0
    world.drained = Drained(barred="this host is drained")
    assert not world.only().wanted, "withdrawn in a moment"
    world.worker.announcer.announced.clear()
    world.worker.target = Target(Stand.WIRED, "this host is drained")
    jail = world.only()
    assert (jail.reason, jail.wanted) == (Cause.DRAINED, False)
    assert asyncio.run(world.sight.jails()).dark == 0


def test_why_a_jail_waits() -> None:
    world = World()
    world.worker.announcer.announced.clear()
    world.worker.target = Target(Stand.WIRED, "whatever it says")
    world.ready = False
    assert world.only().reason is Cause.NOT_READY
    world.ready = True
    now = time.monotonic()
    world.worker.memory = replace(world.worker.memory, damping=Damping(6500.0, now, now))
    jail = world.only()
    assert (jail.reason, jail.suppressed, round(jail.penalty, -2)) == (Cause.SUPPRESSED, True, 6500.0)
    world.worker.memory = replace(world.worker.memory, damping=Damping())
    world.worker.announcer.ruling = Ruling(Kind.FROZEN, Held(), Record())
    world.ledger.records["web1"] = Record(7, 1, (), 5.0)
    jail = world.only()
    assert (jail.reason, jail.kind, jail.frozen, jail.wanted) == (Cause.FROZEN, Kind.FROZEN, True, True)
    world.granted.clear()
    jail = world.only()
    assert (jail.reason, jail.wanted) == (Cause.NOT_GRANTED, False)


def test_a_jail_that_is_gone_and_still_announced_is_a_black_hole() -> None:
    world = World()
    world.stop()
    jails = asyncio.run(world.sight.jails())
    assert (jails.blackholed, jails.running, jails.announced) == (1, 0, 0)
    world.speaker.book.clear()
    assert asyncio.run(world.sight.jails()).blackholed == 0
    # so is one that stopped while there was no agent, of which only ExaBGP knows
    world.others = {"web2"}
    world.speaker.book = {"x"}
    jails = asyncio.run(world.sight.jails())
    assert jails.blackholed == 1
    assert jails.stands == {**jails.stands, "absent": 2}


def test_a_jail_that_runs_and_asks_in_vain() -> None:
    world = World()
    world.others = {"web2"}
    world.running["web2"] = Jail("web2", 4, vnet=True, path="/")
    jails = asyncio.run(world.sight.jails())
    assert (jails.running, jails.announced, jails.dark) == (2, 1, 0)
    assert jails.reasons["not_granted"] == 1


def test_older_claims_are_counted_by_jail() -> None:
    world = World()
    world.older = ["of one peer", "of another"]
    assert asyncio.run(world.sight.jails()).older_claims == 0, "nobody tells of its prefix"
    world.speaker.paths = {TEXT, "x"}
    assert asyncio.run(world.sight.jails()).older_claims == 1


def test_a_bug_in_one_part_leaves_the_others_and_the_agent(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.health.probes = property()  # no number
    world.speaker.describe = lambda: [{}]  # type: ignore[method-assign]
    world.worker.announcer.announced = cast(Any, None)
    world.worker.target = cast(Any, None)
    with caplog.at_level(logging.ERROR):
        state = asyncio.run(world.sight.gather())
    assert (state.jails, state.bgp) == (None, None)
    assert state.host is not None
    world.metrics.tell(state)
    shown = generate_latest(world.metrics.registry).decode()
    for part in ("jails", "bgp"):
        assert f'mobility_metrics_errors_total{{part="{part}"}} 1.0' in shown
    assert "mobility_spool_depth 2.0" in shown
    assert "mobility_checks " not in shown
    assert caplog.text.count("figures are missing") == 3


def test_a_scrape_waits_for_the_agent_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gather, "WITHIN", 0.05)
    told: list[object] = []

    async def main() -> None:
        world = World()
        ask, ended = world.sight.asked(), threading.Event()

        def scrape() -> None:
            try:
                told.append(ask())
            except TimeoutError as error:
                told.append(str(error))
            ended.set()

        await asyncio.to_thread(scrape)
        ended.clear()
        # the loop stands still until the scrape has given up
        thread = threading.Thread(target=scrape)
        thread.start()
        ended.wait()
        thread.join()

    asyncio.run(main())
    state, why = told
    assert isinstance(state, Figures)
    assert why == "the agent has not answered within 0.05 s"


def test_a_scrape_while_the_agent_ends_is_told_so() -> None:
    told: list[str] = []

    class Endless(Sight):
        async def bgp(self) -> Bgp:
            begun.set()
            await asyncio.Event().wait()
            return Bgp()

    async def main() -> None:
        sight = World().sight
        ask = Endless(sight.shared, sight.known, sight.everyone, sight.granted_to).asked()

        def scrape() -> None:
            try:
                ask()
            except TimeoutError as error:
                told.append(str(error))

        threads.append(threading.Thread(target=scrape))
        threads[0].start()
        await begun.wait()

    begun, threads = asyncio.Event(), list[threading.Thread]()
    asyncio.run(main())
    threads[0].join()
    assert told == ["the agent is stopping"]
