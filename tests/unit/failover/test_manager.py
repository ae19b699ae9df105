"""Failover in the agent: events and looks, announcements, and the demotion, also when the agent dies in between."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from mobility import config as configuration
from mobility.announcement import Announce
from mobility.bgp.grammar import prefix_text
from mobility.bgp.speaker import Received, Session
from mobility.failover import accounting, manager, policy
from mobility.failover.accounting import Doubt, Record
from mobility.failover.manager import Failover, Ties
from mobility.failover.model import BACKUP, INIT, MASTER, Vhid
from mobility.failover.policy import Drain, Stance
from mobility.model import Attributes, Prefix, network_prefix
from mobility.network.command import Result
from mobility.network.host import Trouble
from mobility.store import Store

CONFIG = """
[host]
name = "a"
allowed = ["198.51.100.0/24", "2001:db8:7::/64"]

[bgp]
as = 65001
router_id = "10.0.0.1"
[[bgp.peer]]
name = "one"
address = "fd00:1::ff"
as = 65000
local_address = "fd00:1::1"

[group.web]

[failover.gw]
vhids = ["1@igb0", "2@igb0"]
jails = ["web1"]
groups = ["web"]
services = ["198.51.100.32/28"]
sync_within = 20
hand_over_within = 20
hold = 5
hold_down = 30
"""
ONE, TWO = Vhid("igb0", 1), Vhid("igb0", 2)
LAN = network_prefix("198.51.100.32/28")
ADMINISTRATOR = 4_200_000_000
OTHER = int.from_bytes(bytes([10, 0, 0, 2]))
ME = int.from_bytes(bytes([10, 0, 0, 1]))
BOOT = "b001"


class Died(BaseException):
    """The agent was killed here."""


class Machine:
    """A host with CARP: answers as 13.2 does, in the words of transcripts 6-carp and 7-pfsync."""

    def __init__(self) -> None:
        self.states = {ONE: MASTER, TWO: MASTER}
        self.demotion = 0
        self.preempt = 1
        self.syncok = 1
        self.jailed = 0
        self.of_lo0 = ""
        self.ran: list[str] = []
        self.before: Callable[[str], None] = lambda _: None
        """Called with each command before it has run, and after."""
        self.after: Callable[[str], None] = lambda _: None
        self.says: dict[str, str] = {}
        self.looking: Callable[[], None] = lambda: None

    async def command(self, argv: list[str]) -> Result:
        line = " ".join(argv)
        self.before(line)
        if said := self.says.get(line):
            return Result(tuple(argv), 1, "", said, 0.0)
        text = self._answer(line)
        self.after(line)
        return Result(tuple(argv), 0, text, "", 0.0)

    def _answer(self, line: str) -> str:
        if line == "sysctl -n security.jail.jailed":
            return f"{self.jailed}\n"
        if line in ("sysctl net.inet.carp", "sysctl net.inet.carp net.pfsync"):
            return (
                f"net.inet.carp.ifdown_demotion_factor: 240\nnet.inet.carp.demotion: {self.demotion}\n"
                f"net.inet.carp.preempt: {self.preempt}\nnet.pfsync.carp_demotion_factor: 240\n"
            )
        if line == "ifconfig lo0":
            return f"lo0: flags=8049<UP> metric 0 mtu 16384\n\tdescription: {self.of_lo0}\n"
        if line.startswith("ifconfig lo0 description "):
            self.of_lo0 = line.removeprefix("ifconfig lo0 description ")
            return ""
        if line == "ifconfig igb0":
            shown = self.states.copy()
            self.looking()
            return "igb0: flags=8943<UP> metric 0 mtu 1500\n" + "".join(
                f"\tcarp: {state} vhid {vhid.number} advbase 1 advskew 0\n" for vhid, state in shown.items()
            )
        if line == "ifconfig pfsync0":
            return (
                "pfsync0: flags=41<UP,RUNNING> metric 0 mtu 1500\n"
                f"\tpfsync: syncdev: igb1 syncpeer: 10.99.0.2 maxupd: 128 defer: off\n\tsyncok: {self.syncok}\n"
            )
        name, _, amount = line.removeprefix("sysctl ").partition("=")
        assert name == "net.inet.carp.demotion"
        self.ran.append(line)
        was, self.demotion = self.demotion, self.demotion + int(amount)
        return f"net.inet.carp.demotion: {was} -> {self.demotion}\n"


class Speaker:
    """What BGP shows and is told, without a bridge."""

    def __init__(self) -> None:
        self.connected = True
        self.busy = False
        self.up = True
        self.others: dict[str, list[str]] = {}
        self.wanted: dict[Prefix, Attributes] = {}
        self.log: list[str] = []

    def sessions(self) -> Mapping[str, Session]:
        return {"one": Session("one", "fd00:1::ff", "up" if self.up else "down")}

    def paths(self, text: str) -> dict[str, list[Received]]:
        listed = self.others.get(text)
        return {"one": [Received("fd00:1::ff", {"large-community": listed})]} if listed else {}

    def want(self, prefix: Prefix, attributes: Attributes) -> None:
        if self.wanted.get(prefix) != attributes:
            self.log.append(f"{prefix} {'less' if attributes.prepend else 'preferred'}")
        self.wanted[prefix] = attributes

    def unwant(self, prefix: Prefix) -> None:
        if self.wanted.pop(prefix, None):
            self.log.append(f"{prefix} withdrawn")

    def route(self, prefix: Prefix) -> dict[str, str]:
        return {"one": "announced" if prefix in self.wanted else "not announced"}


def mark(router_id: int, stance: int) -> list[str]:
    return [f"{ADMINISTRATOR}:3:{router_id}", f"{ADMINISTRATOR}:5:{stance}"]


class Bench:
    """A failover on such a machine, with a clock of our own and a real database. `again` is the next agent."""

    def __init__(self, folder: Path, text: str = CONFIG) -> None:
        self.folder = folder
        (folder / "mobility.toml").write_text(text)
        self.config = configuration.load(folder / "mobility.toml")
        self.machine, self.speaker = Machine(), Speaker()
        self.now = 1000.0
        self.drained: tuple[Drain, str] = (Drain.NO, "")
        self.turned: list[set[str]] = []
        self.jails: dict[str, str] = {}
        self.tied: list[str] = []
        self.kept: list[tuple[str, Any]] = []
        self.boot = BOOT
        self.full = False
        self.heard = True
        self.again()

    def again(self) -> None:
        self.store = Store(self.folder / "mobility.db", self.boot)
        self.failover = Failover(
            self.config,
            self.machine,  # type: ignore[arg-type]  # what is used of it is there
            self.speaker,  # type: ignore[arg-type]
            boot=self.boot,
            kept=self.store.kept,
            keep=self._keep,
            ties=Ties(
                announced=lambda _: self.tied,
                jail_of=lambda prefix: self.jails.get(prefix, ""),
                drained=lambda: self.drained,
                heard=lambda: self.heard,
                turned=lambda names: self.turned.append(set(names)),
                note=lambda what, detail: self.store.note("", what, detail),
            ),
            clock=lambda: self.now,
        )

    def _keep(self, name: str, value: Any) -> bool:
        if name == manager.RECORD:
            self.machine.before(f"keep {value['pending']} {value['ours']}")
        if self.full:
            return False
        self.kept.append((name, value))
        done = self.store.keep(name, value)
        if name == manager.RECORD:
            self.machine.after(f"keep {value['pending']} {value['ours']}")
        return done

    def settle(self, seconds: float = 1.0, times: int = 1) -> None:
        for _ in range(times):
            self.now += seconds
            asyncio.run(self._settle())

    async def _settle(self) -> None:
        await self.failover.settle()

    def event(self, vhid: Vhid, state: str, *, so: bool = True) -> None:
        """Have devd tell of it; `so`: the kernel thinks so, too."""
        if so:
            self.machine.states[vhid] = state
        self.failover.events([(vhid, state)])

    def carp(self, state: str) -> None:
        for vhid in self.machine.states:
            self.event(vhid, state)

    def other(self, stance: int | None, router_id: int = OTHER) -> None:
        """Have the fabric show another host's path: 1 preferred, 2 less; None: no path."""
        self.speaker.others = {} if stance is None else {prefix_text(LAN): mark(router_id, stance)}
        self.failover.news()

    @property
    def stance(self) -> str:
        assert self.failover.decision is not None
        return str(self.failover.decision.groups["gw"].stance)

    @property
    def record(self) -> Record | None:
        return accounting.recalled(self.store.kept(manager.RECORD))


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.store.close()


class TestStance:
    def test_nothing_is_announced_before_a_look(self, bench: Bench) -> None:
        told = bench.failover.of_jail("web1", Announce())
        assert told is not None
        assert (told.announced, told.reason) == (False, f"failover gw: {manager.UNDECIDED}")
        assert bench.failover.describe()["groups"][0]["stance"] == ""
        bench.settle()
        told = bench.failover.of_jail("web1", Announce())
        assert told is not None
        assert (told.announced, told.reason) == (True, "")

    def test_which_jails_go_with_it(self, bench: Bench) -> None:
        bench.settle()
        assert bench.failover.of_jail("db1", Announce()) is None
        assert bench.failover.of_jail("db1", Announce(group="web")) is not None
        assert bench.failover.of_jail("db1", Announce(group="mail")) is None

    def test_the_master_is_preferred_and_says_who_it_is(self, bench: Bench) -> None:
        bench.settle()
        assert bench.stance == "preferred"
        assert bench.speaker.wanted == {LAN: Attributes(large_communities=tuple(mark(ME, 1)))}

    def test_an_event_is_believed_at_once(self, bench: Bench) -> None:
        bench.settle()
        bench.event(ONE, BACKUP)
        assert bench.speaker.wanted[LAN].prepend == 2
        assert bench.speaker.wanted[LAN].large_communities == tuple(mark(ME, 2))
        bench.event(TWO, BACKUP)
        assert bench.turned == [{"gw"}, {"gw"}], "the first of the two, and the first decision"
        bench.carp(MASTER)
        assert bench.stance == "preferred", "pfsync was in step at the last look"
        bench.settle()
        assert bench.stance == "preferred"

    def test_a_look_stands_against_an_event(self, bench: Bench) -> None:
        """A jail's root made it: from then on a look comes first."""
        bench.settle()
        bench.event(ONE, BACKUP, so=False)
        assert bench.stance == "less"
        bench.settle(0.06)
        assert bench.stance == "preferred"
        for _ in range(100):
            bench.event(ONE, INIT, so=False)
        assert bench.stance == "preferred"
        bench.settle(0.06)
        bench.event(ONE, BACKUP)
        assert bench.stance == "preferred", "not believed, though it is so"
        bench.settle(0.06)
        assert bench.stance == "less"
        bench.settle(manager.DOUBTED_FOR)
        bench.event(ONE, MASTER)
        assert bench.stance == "preferred"

    def test_an_event_while_a_look_is_made(self, bench: Bench) -> None:
        """What that look shows is from before."""
        bench.settle()
        looks = 0

        def look() -> None:
            nonlocal looks
            looks += 1
            if looks == 1:
                bench.carp(BACKUP)

        bench.machine.looking = look
        bench.settle()
        assert (bench.stance, looks) == ("less", 2)
        bench.event(ONE, MASTER)
        bench.event(TWO, MASTER)
        assert bench.stance == "preferred", "and nobody's word was doubted"

    def test_turns_with_looks_between_them_are_no_flood(self, bench: Bench) -> None:
        bench.settle()
        for _ in range(manager.TURNS):
            for state, stance in ((BACKUP, "less"), (MASTER, "preferred")):
                for vhid in (ONE, TWO):
                    bench.event(vhid, state)
                assert bench.stance == stance, "at once"
                bench.settle()

    def test_a_look_that_an_event_came_into_is_no_reason_to_doubt_it(self, bench: Bench) -> None:
        bench.settle()
        states = [BACKUP, MASTER, BACKUP]

        def turn() -> None:
            if states:
                bench.event(ONE, states.pop(0))

        bench.machine.looking = turn
        bench.settle()
        assert (states, bench.machine.states[ONE]) == ([], BACKUP)
        bench.settle(0.06)
        bench.event(ONE, MASTER)
        assert bench.stance == "preferred", "believed at once"

    def test_it_looks_again_when_something_is_due(self, bench: Bench) -> None:
        bench.settle()
        bench.speaker.up = False
        bench.failover.news()
        bench.settle(seconds=4.7)  # of the hold time's 5
        assert asyncio.run(bench.failover.settle()) == pytest.approx(0.3 + manager.TICK)

    def test_a_flood_of_events_that_no_look_goes_by_without(self, bench: Bench) -> None:
        """A jail's root turns a vhid of the host's name to and fro: after a few turns looks alone are believed."""
        bench.settle()

        def flood() -> None:
            for state in (BACKUP, MASTER, INIT, MASTER) * 50:
                bench.event(ONE, state, so=False)

        flood()
        assert len(bench.speaker.log) <= 1 + manager.TURNS
        bench.machine.looking = flood
        bench.settle(0.06, times=20)
        assert bench.stance == "preferred"
        assert len(bench.speaker.log) <= 2 + manager.TURNS
        bench.machine.looking = lambda: None
        bench.event(TWO, BACKUP)
        assert bench.stance == "less", "the other vhid's are believed"

    def test_many_vhids_at_once_are_one_decision(self, bench: Bench) -> None:
        bench.settle()
        bench.machine.states = {ONE: BACKUP, TWO: BACKUP}
        bench.failover.events([(ONE, BACKUP), (TWO, BACKUP), (ONE, MASTER), (ONE, BACKUP)])
        assert bench.turned == [{"gw"}, {"gw"}]
        assert bench.speaker.log == [f"{LAN} preferred", f"{LAN} less"]

    def test_a_vhid_that_is_removed_and_an_interface_that_is_gone(self, bench: Bench) -> None:
        bench.settle()
        del bench.machine.states[TWO]
        bench.settle()
        assert bench.stance == "less", "the last resort"
        assert [text for text in bench.failover.problems if f"{TWO} is not there" in text]
        bench.machine.says["ifconfig igb0"] = "ifconfig: interface igb0 does not exist"
        bench.settle()
        assert bench.stance == "less"
        assert bench.failover.describe()["groups"][0]["vhids"] == {str(ONE): "", str(TWO): ""}
        bench.machine.says.clear()
        bench.machine.states[TWO] = MASTER
        bench.settle()
        assert bench.stance == "preferred"

    def test_a_vhid_of_ipv6_alone(self, tmp_path: Path) -> None:
        bench = Bench(tmp_path, CONFIG.replace('vhids = ["1@igb0", "2@igb0"]', 'vhids = ["2@igb0"]'))
        bench.machine.states = {ONE: BACKUP, TWO: MASTER}
        bench.settle()
        assert bench.stance == "preferred"
        bench.event(ONE, MASTER)
        bench.event(TWO, BACKUP)
        assert bench.stance == "less"

    def test_news_of_the_fabric_are_decided_in_turns(self, bench: Bench) -> None:
        """A thousand received routes are a thousand calls, and a decision looks at the paths of every jail."""

        async def work() -> None:
            bench.now += 1
            await bench.failover.settle()
            decisions = [bench.failover.decision]
            bench.failover.fabric_news()
            decisions.append(bench.failover.decision)
            assert decisions[0] is not decisions[1], "the first at once"
            for _ in range(1000):
                bench.failover.fabric_news()
            assert bench.failover.decision is decisions[1]
            later = bench.failover._later
            assert later is not None
            later.cancel()
            bench.now += manager.NEWS_APART
            bench.failover._fabric_has_told()
            assert bench.failover.decision is not decisions[1], "the last are not forgotten"
            assert bench.failover._later is None

        asyncio.run(work())

    def test_a_jail_that_can_not_be_turned_ends_the_loop_loudly(self, bench: Bench) -> None:
        """The agent guards each jail; what comes through none the less must not leave a failover that nobody sees to."""

        def broken() -> None:
            raise RuntimeError("no such thing")

        bench.machine.looking = broken
        with pytest.raises(RuntimeError):
            asyncio.run(bench.failover.run())

    def test_events_of_others(self, bench: Bench) -> None:
        bench.settle()
        bench.failover.events([(Vhid("igb0", 9), BACKUP), (Vhid("igb9", 1), BACKUP)])
        assert bench.stance == "preferred"

    def test_a_new_master_waits_for_pfsync(self, bench: Bench) -> None:
        bench.machine.states = {ONE: BACKUP, TWO: BACKUP}
        bench.machine.syncok = 0
        bench.settle()
        bench.carp(MASTER)
        assert bench.stance == "less"
        bench.settle(times=3)
        assert bench.stance == "less"
        bench.machine.syncok = 1
        bench.settle()
        assert bench.stance == "preferred"

    def test_a_backup_that_withdraws_once_it_sees_the_other(self, tmp_path: Path) -> None:
        bench = Bench(tmp_path, CONFIG + 'when_backup = "withdraw"\n')
        bench.settle()
        bench.carp(BACKUP)
        bench.other(2)
        bench.settle(times=4)
        assert bench.stance == "less", "the other's path is the less preferred one, too"
        bench.other(1, ME)
        bench.settle(times=4)
        assert bench.stance == "less", "a path of our own"
        bench.other(1)
        bench.settle(times=4)
        assert bench.stance == "withdrawn"
        assert bench.speaker.log == [f"{LAN} preferred", f"{LAN} less", f"{LAN} withdrawn"]
        lines = [line.detail.partition(":")[0] for line in bench.store.history(limit=99) if line.what == "failover gw"]
        assert lines == ["preferred", "less", "withdrawn"]

    def test_where_nothing_is_to_be_announced_nothing_is_seen(self, tmp_path: Path) -> None:
        """No jail of the failover is granted anything yet: what it will have must not find the host withdrawn for nothing."""
        bench = Bench(tmp_path, CONFIG.replace('services = ["198.51.100.32/28"]\n', "") + 'when_backup = "withdraw"\n')
        bench.machine.states = {ONE: BACKUP, TWO: BACKUP}
        bench.settle(times=4)
        assert bench.failover.describe()["groups"][0]["sees_other"] is False
        assert bench.failover.decision is not None
        assert bench.failover.decision.groups["gw"].stance is Stance.LESS

    def test_a_fabric_that_has_told_nothing_yet_shows_nobody_gone(self, tmp_path: Path) -> None:
        bench = Bench(tmp_path, CONFIG + 'when_backup = "withdraw"\n')
        bench.settle()
        bench.carp(BACKUP)
        bench.other(1)
        bench.settle(times=4)
        bench.heard = False
        bench.other(None)
        bench.again()
        bench.settle(times=2)
        assert bench.stance == "withdrawn"
        bench.heard = True
        bench.failover.news()
        assert bench.stance == "less"

    def test_all_that_is_announced_must_be_seen(self, tmp_path: Path) -> None:
        bench = Bench(tmp_path, CONFIG + 'when_backup = "withdraw"\n')
        bench.tied = ["198.51.100.7/32"]
        bench.settle()
        bench.carp(BACKUP)
        bench.other(1)
        bench.settle(times=4)
        assert bench.stance == "less"
        bench.speaker.others["198.51.100.7/32"] = mark(OTHER, 1)
        bench.settle(times=4)
        assert bench.stance == "withdrawn"

    def test_a_prefix_of_a_jail_is_the_jails(self, bench: Bench) -> None:
        bench.jails[prefix_text(LAN)] = "web9"
        bench.settle()
        assert bench.speaker.log == []
        assert [text for text in bench.failover.problems if "granted to jail web9" in text]
        bench.carp(INIT)
        assert bench.speaker.log == []

    def test_looks_that_fail_leave_all_as_it_is(self, bench: Bench) -> None:
        bench.settle()
        bench.machine.says["ifconfig igb0"] = "ifconfig: socket: Too many open files"
        bench.settle()
        assert bench.stance == "preferred"
        assert [text for text in bench.failover.problems if "Too many open files" in text]
        bench.speaker.up = False
        bench.failover.news()
        assert bench.failover.decision is not None
        assert not bench.failover.decision.memory.groups[0].turning_at
        bench.machine.says.clear()
        bench.settle()
        assert not [text for text in bench.failover.problems if "Too many" in text]

    def test_what_is_remembered_is_this_boots(self, tmp_path: Path) -> None:
        bench = Bench(tmp_path)
        bench.machine.syncok = 0
        bench.settle()
        bench.settle(times=12)
        began = bench.failover._memory.groups[0].role_at
        bench.again()
        bench.settle()
        assert bench.failover._memory.groups[0].role_at == began, "the wait for pfsync goes on"
        bench.settle(times=10)
        assert bench.stance == "preferred"
        bench.boot = "b002"
        bench.again()
        assert bench.failover._memory == policy.Memory((policy.Past("gw"),))

    def test_that_the_fabric_shows_the_others_path_is_known_after_a_reboot(self, bench: Bench) -> None:
        bench.speaker.others = {prefix_text(LAN): mark(OTHER, 1)}
        bench.settle()
        bench.boot = "b002"
        bench.again()
        assert bench.failover._memory == policy.Memory((policy.Past("gw", shows=True),))


class TestDemotion:
    def lose_the_fabric(self, bench: Bench) -> None:
        bench.settle()
        bench.speaker.up = False
        bench.failover.news()
        bench.settle(times=6)

    def test_a_lost_fabric_and_back(self, bench: Bench) -> None:
        self.lose_the_fabric(bench)
        assert (bench.machine.demotion, bench.record) == (240, Record(f"{BOOT} host", 240))
        bench.settle(times=3)
        assert bench.machine.ran == ["sysctl net.inet.carp.demotion=240"], "once"
        assert bench.failover.describe()["demotion"]["ours"] == 240
        bench.speaker.up = True
        bench.failover.news()
        bench.settle(times=10)
        assert bench.machine.demotion == 240, "held down"
        bench.speaker.busy = True
        bench.settle(times=30)
        assert bench.machine.demotion == 240, "not all is acknowledged"
        bench.speaker.busy = False
        bench.settle(times=2)
        assert bench.machine.demotion == 0

    def test_what_others_add_stays(self, bench: Bench) -> None:
        bench.machine.demotion = 480
        self.lose_the_fabric(bench)
        assert bench.machine.demotion == 720
        bench.machine.demotion -= 480
        bench.speaker.up = True
        bench.failover.news()
        bench.settle(times=32)
        assert bench.machine.demotion == 0

    def test_a_drain_demotes(self, bench: Bench) -> None:
        bench.settle()
        bench.drained = (Drain.HOST, "")
        bench.failover.news()
        assert bench.failover._stirred.is_set(), "not only with the next look"
        bench.settle(0.06)
        assert bench.machine.demotion == 240
        bench.drained = (Drain.NO, "")
        bench.failover.news()
        bench.settle(0.06)
        assert bench.machine.demotion == 0

    def test_preempt_that_is_switched_off_and_on_while_demoted(self, bench: Bench) -> None:
        """What moves nobody is not left behind, and comes back with it."""
        self.lose_the_fabric(bench)
        bench.machine.preempt = 0
        bench.settle(times=2)
        assert bench.machine.demotion == 0
        assert [text for text in bench.failover.problems if "net.inet.carp.preempt=1" in text]
        bench.machine.preempt = 1
        bench.settle(times=2)
        assert (bench.machine.demotion, bench.record) == (240, Record(f"{BOOT} host", 240))

    def test_a_stop_in_order_waits_for_the_write(self, bench: Bench) -> None:
        """Cancelled in the middle of it, the record would stand pending, and nobody would know for ever."""
        bench.settle()
        bench.speaker.up = False
        bench.failover.news()
        command = bench.machine.command

        async def work() -> None:
            writes, goes_on = asyncio.Event(), asyncio.Event()

            async def slow(argv: list[str]) -> Result:
                if argv[-1].startswith("net.inet.carp.demotion="):
                    writes.set()
                    await goes_on.wait()
                return await command(argv)

            bench.machine.command = slow  # type: ignore[method-assign]
            bench.now += 6
            task = asyncio.create_task(bench.failover.settle())
            await writes.wait()
            task.cancel()
            await asyncio.sleep(0)
            assert bench.record is not None
            assert (bench.record.pending, task.done()) == (240, False)
            goes_on.set()
            await asyncio.gather(task, return_exceptions=True)
            assert task.cancelled()

        asyncio.run(work())
        assert (bench.machine.demotion, bench.record) == (240, Record(f"{BOOT} host", 240))

    def test_an_agent_that_starts_before_exabgp(self, bench: Bench) -> None:
        bench.settle()
        bench.again()
        bench.speaker.up = False
        bench.settle(times=int(policy.STARTING) - 1)
        bench.speaker.up = True
        bench.failover.fabric_news()
        bench.settle(times=3)
        assert bench.machine.ran == []
        bench.speaker.up = False
        bench.failover.news()
        bench.settle(times=6)
        assert bench.machine.demotion == 240, "it has been there: from now on the hold time counts"

    def test_a_first_start_beside_sessions_that_are_up_demotes_nobody(self, bench: Bench) -> None:
        bench.speaker.connected = False
        bench.settle(times=1)
        bench.speaker.connected = True
        bench.failover.fabric_news()
        bench.settle(times=20)
        assert bench.machine.ran == []

    def test_a_host_that_boots_is_demoted_until_the_fabric_is_there(self, bench: Bench) -> None:
        """CARP would give it the addresses at once, by its advskew."""
        bench.speaker.up = False
        bench.settle()
        assert (bench.machine.demotion, bench.record) == (240, Record(f"{BOOT} host", 240))
        assert "not there yet, since the agent's start: 0 sessions" in bench.failover.describe()["demotion"]["reason"]
        bench.speaker.up = True
        bench.failover.fabric_news()
        bench.speaker.busy = True
        bench.settle(times=40)
        assert bench.machine.demotion == 240, "not all routes are acknowledged"
        bench.speaker.busy = False
        bench.failover.fabric_news()
        bench.settle()
        assert (bench.machine.demotion, len(bench.machine.ran)) == (0, 2)

    def test_without_preempt_nothing_is_written_and_it_is_said(self, bench: Bench) -> None:
        bench.machine.preempt = 0
        self.lose_the_fabric(bench)
        assert (bench.machine.ran, bench.record) == ([], None)
        assert [text for text in bench.failover.problems if "net.inet.carp.preempt=1" in text]

    def test_a_full_disk_adds_nothing(self, bench: Bench) -> None:
        bench.settle()
        bench.full = True
        self.lose_the_fabric(bench)
        assert bench.machine.ran == []
        assert [text for text in bench.failover.problems if "database" in text]
        bench.full = False
        bench.settle()
        assert (bench.machine.demotion, bench.record) == (240, Record(f"{BOOT} host", 240))
        assert not [text for text in bench.failover.problems if "database" in text]

    def test_a_database_that_is_full(self, bench: Bench) -> None:
        """The real one: it has a row for nothing more, not even for a record of a hundred bytes."""
        bench.settle()
        (pages,) = bench.store._db.execute("PRAGMA page_count").fetchone()
        bench.store._db.execute(f"PRAGMA max_page_count = {pages}")
        for size in (3000, 300, 30, 3):
            number = 0
            while bench.store.keep(f"{size}-{number}", "x" * size):
                number += 1
        self.lose_the_fabric(bench)
        assert (bench.machine.ran, bench.record) == ([], None)
        assert [text for text in bench.failover.problems if "database can not be written" in text]
        bench.store._db.execute(f"PRAGMA max_page_count = {10 * pages}")
        bench.settle()
        assert (bench.machine.demotion, bench.record) == (240, Record(f"{BOOT} host", 240))

    def test_a_disk_that_fills_up_in_between(self, bench: Bench) -> None:
        def fill(line: str) -> None:
            bench.full = line.startswith("sysctl net.inet.carp.demotion=")

        bench.machine.after = fill
        self.lose_the_fabric(bench)
        bench.machine.after = lambda _: None
        bench.full = False
        bench.settle()
        assert (bench.machine.demotion, bench.record) == (240, Record(f"{BOOT} host", 240))

    def test_a_write_that_is_refused(self, bench: Bench) -> None:
        line = "sysctl net.inet.carp.demotion=240"
        bench.machine.says[line] = f"sysctl: {line.split()[1]}: Operation not permitted"
        self.lose_the_fabric(bench)
        assert bench.machine.demotion == 0
        assert (bench.record and bench.record.ours, bench.record and bench.record.doubts) == (0, ())
        assert [text for text in bench.failover.problems if "Operation not permitted" in text]
        bench.machine.says.clear()
        bench.settle()
        assert bench.machine.demotion == 240

    def test_a_write_that_gives_no_answer(self, bench: Bench) -> None:
        """It may have been done: it is told, and left alone."""

        def hang(line: str) -> None:
            if line.startswith("sysctl net.inet.carp.demotion="):
                raise Trouble(f"{line}: no answer within 10 s; killed", retry=True)

        bench.machine.before = hang
        bench.settle()
        bench.speaker.up = False
        bench.failover.news()
        bench.settle(times=5)
        bench.machine.before = lambda _: None
        assert bench.record is not None
        assert (bench.machine.demotion, bench.record.ours) == (0, 0)
        bench.settle()
        # the total is too small to hold it, so it is not in there: added anew
        assert (bench.machine.demotion, bench.record.ours, bench.record.doubts) == (240, 240, ())

    def test_a_write_that_was_done_and_gives_no_answer(self, bench: Bench) -> None:
        def hang(line: str) -> None:
            if line.startswith("sysctl net.inet.carp.demotion="):
                bench.machine.after = lambda _: None
                raise Trouble(f"{line}: no answer within 10 s; killed", retry=True)

        bench.settle()
        bench.machine.after = hang
        self.lose_the_fabric(bench)
        bench.settle()
        assert bench.record is not None
        assert (bench.machine.demotion, bench.record.ours, bench.record.doubts) == (480, 240, (Doubt(240, 0),))
        assert [text for text in bench.failover.problems if "sysctl net.inet.carp.demotion=-240 if it is" in text]
        bench.speaker.up = True
        bench.settle(times=40)
        assert bench.machine.demotion == 240, "nobody knows whose that is"

    def test_what_was_about_to_be_written_in_a_vnet_that_is_not_known_again(self, bench: Bench) -> None:
        bench.machine.jailed, bench.machine.of_lo0, bench.machine.demotion = 1, "the loopback", 240
        bench.store.keep(manager.RECORD, asdict(Record(f"{BOOT} jail 0123456789abcdef", pending=240)))
        bench.again()
        bench.settle()
        assert bench.record is None or not bench.record.ours
        assert [text for text in bench.failover.problems if "240 was to be added" in text]

    def test_a_failover_that_was_taken_out_of_the_file(self, bench: Bench) -> None:
        self.lose_the_fabric(bench)
        (bench.folder / "mobility.toml").write_text(CONFIG.split("[failover.gw]")[0])
        bench.config = configuration.load(bench.folder / "mobility.toml")
        bench.again()
        assert bench.failover.active
        # without a group nobody asks for pfsync
        bench.settle()
        assert bench.machine.demotion == 0
        assert not bench.failover.active

    def test_what_another_boot_recorded_is_nothing_to_do(self, tmp_path: Path) -> None:
        bench = Bench(tmp_path, CONFIG.split("[failover.gw]")[0])
        bench.store.keep(manager.RECORD, asdict(Record("b000 host", 240)))
        bench.again()
        bench.settle()
        assert (bench.machine.ran, bench.failover.active) == ([], False)

    def test_in_a_jail_its_vnet_is_known_again(self, bench: Bench) -> None:
        bench.machine.jailed = 1
        self.lose_the_fabric(bench)
        bench.again()
        bench.settle(times=6)
        assert (bench.machine.demotion, len(bench.machine.ran)) == (240, 1)
        bench.speaker.up = True
        bench.settle(times=40)
        assert bench.machine.demotion == 0
        assert bench.machine.of_lo0.startswith("mobility vnet ")

    def test_in_a_jail_whose_vnet_is_not_known_again(self, bench: Bench) -> None:
        """Somebody has given its lo0 a description: it stays, and nobody knows what an earlier agent has added."""
        bench.machine.jailed, bench.machine.of_lo0 = 1, "the loopback"
        self.lose_the_fabric(bench)
        assert bench.machine.of_lo0 == "the loopback"
        bench.again()
        bench.settle(times=6)
        assert bench.machine.demotion == 480, "the earlier 240 is left alone"
        assert [text for text in bench.failover.problems if "it is not known whether it was" in text]
        # the jail was started anew: it is gone with the old one's vnet
        bench.machine.demotion = 0
        bench.speaker.up = True
        bench.again()
        bench.settle(times=40)
        assert bench.machine.demotion == 0
        assert not [text for text in bench.failover.problems if "not known" in text]


PLACES = [
    ("before", "keep 240 0"),
    ("after", "keep 240 0"),
    ("before", "sysctl net.inet.carp.demotion=240"),
    ("after", "sysctl net.inet.carp.demotion=240"),
    ("before", "keep 0 240"),
    ("after", "keep 0 240"),
]
BACK = [
    ("before", "keep -240 240"),
    ("after", "keep -240 240"),
    ("before", "sysctl net.inet.carp.demotion=-240"),
    ("after", "sysctl net.inet.carp.demotion=-240"),
    ("before", "keep 0 0"),
    ("after", "keep 0 0"),
]
CERTAIN = 0, 5
"""Those of each at which it is known what is in the total."""


class TestCrashes:
    """The agent dies at each step. The kernel's own 240 beside it must never be touched, whatever else is known."""

    def die(self, bench: Bench, when: str, where: str) -> None:
        def kill(line: str) -> None:
            if line == where:
                raise Died

        setattr(bench.machine, when, kill)

    def revive(self, bench: Bench, *, up: bool) -> None:
        bench.machine.before = bench.machine.after = lambda _: None
        bench.speaker.up = up
        bench.store.close()
        bench.again()

    @pytest.mark.parametrize("place", range(len(PLACES)))
    def test_while_it_is_added(self, bench: Bench, place: int) -> None:
        bench.machine.demotion = 240
        bench.settle()
        bench.speaker.up = False
        bench.failover.news()
        self.die(bench, *PLACES[place])
        with pytest.raises(Died):
            bench.settle(times=6)
        written = bench.machine.demotion - 240
        assert written == (240 if place > 2 else 0)
        # the fabric is back when the next agent starts: nothing of ours should be left
        self.revive(bench, up=True)
        bench.settle(times=40)
        if place in CERTAIN:
            assert bench.machine.demotion == 240
            assert not [text for text in bench.failover.problems if "not known" in text]
        else:
            assert bench.machine.demotion == 240 + written, "what is not known is left alone"
            assert [text for text in bench.failover.problems if "it is not known whether it was" in text]
            assert any("not known" in line for line in bench.failover.describe()["demotion"]["lines"])

    @pytest.mark.parametrize("place", range(len(BACK)))
    def test_while_it_is_removed(self, bench: Bench, place: int) -> None:
        bench.machine.demotion = 240
        bench.settle()
        bench.speaker.up = False
        bench.failover.news()
        bench.settle(times=6)
        assert bench.machine.demotion == 480
        bench.speaker.up = True
        bench.failover.news()
        self.die(bench, *BACK[place])
        with pytest.raises(Died):
            bench.settle(times=40)
        left = bench.machine.demotion - 240
        assert left == (240 if place < 3 else 0)
        self.revive(bench, up=True)
        bench.settle(times=40)
        assert bench.machine.demotion >= 240, "never more than ours"
        if place in CERTAIN:
            assert bench.machine.demotion == 240
        else:
            assert bench.machine.demotion == 240 + left
            assert [text for text in bench.failover.problems if "it is not known whether it was" in text]

    def test_a_reboot_forgets(self, bench: Bench) -> None:
        bench.settle()
        bench.speaker.up = False
        bench.failover.news()
        bench.settle(times=6)
        assert bench.machine.demotion == 240
        bench.machine.demotion, bench.boot = 0, "b002"
        self.revive(bench, up=True)
        bench.settle(times=2)
        assert bench.machine.demotion == 0
        assert bench.failover.describe()["demotion"]["ours"] == 0

    def test_a_restart_knows_its_own(self, bench: Bench) -> None:
        bench.settle()
        bench.speaker.up = False
        bench.failover.news()
        bench.settle(times=6)
        self.revive(bench, up=False)
        bench.settle(times=6)
        assert (bench.machine.demotion, len(bench.machine.ran)) == (240, 1)
        assert asdict(bench.record or Record(""))["ours"] == 240


class TestHandOver:
    def test_it_is_told_when_the_other_has_it(self, bench: Bench) -> None:
        async def work() -> None:
            bench.now += 1
            await bench.failover.settle()
            bench.drained = (Drain.HOST, "")
            bench.failover.news()
            waiting = asyncio.create_task(bench.failover.handed_over(60))
            await asyncio.sleep(0)
            bench.carp(BACKUP)
            bench.other(1)
            assert not waiting.done()
            for _ in range(5):
                bench.now += 1
                await bench.failover.settle()
            assert await waiting
            assert bench.stance == "withdrawn"

        asyncio.run(work())

    def test_a_fabric_that_does_not_show_the_other(self, bench: Bench) -> None:
        """Routers that tell a host nothing of the other's path: CARP vouches for it, in the time that a drain waits."""

        async def work() -> None:
            bench.now += 1
            await bench.failover.settle()
            bench.drained = (Drain.HOST, "")
            bench.failover.news()
            waiting = asyncio.create_task(bench.failover.handed_over(60))
            began = bench.now
            await asyncio.sleep(0)
            for second in range(100):
                bench.now += 1
                if second == policy.MOVING - 1:
                    bench.carp(BACKUP)
                await bench.failover.settle()
                await asyncio.sleep(0)
                if waiting.done():
                    break
            assert await waiting
            assert bench.now - began <= policy.hand_over_within(bench.failover.settings)

        asyncio.run(work())

    def test_without_preempt_nobody_waits(self, bench: Bench) -> None:
        async def work() -> None:
            bench.machine.preempt = 0
            bench.now += 1
            await bench.failover.settle()
            bench.drained = (Drain.HOST, "")
            bench.failover.news()
            async with asyncio.timeout(20):
                assert not await bench.failover.handed_over(3600)

        asyncio.run(work())

    def test_an_undrain_ends_the_wait(self, bench: Bench) -> None:
        async def work() -> None:
            bench.now += 1
            await bench.failover.settle()
            bench.drained = (Drain.HOST, "")
            bench.failover.news()
            waiting = asyncio.create_task(bench.failover.handed_over(3600))
            await asyncio.sleep(0)
            bench.drained = (Drain.NO, "")
            bench.failover.news()
            async with asyncio.timeout(20):
                assert not await waiting

        asyncio.run(work())

    def test_a_shutdown_that_nobody_takes_over(self, bench: Bench) -> None:
        """It withdraws in the end, and does not say that somebody has it."""

        async def work() -> None:
            bench.now += 1
            await bench.failover.settle()
            bench.drained = (Drain.SHUTDOWN, "")
            bench.failover.news()
            bench.now += 20
            await bench.failover.settle()
            assert bench.stance == "withdrawn"
            assert not await bench.failover.handed_over(60)

        asyncio.run(work())

    def test_a_shutdown_takes_all_of_it(self, bench: Bench) -> None:
        bench.settle()
        bench.drained = (Drain.SHUTDOWN, "this host is drained")
        assert bench.failover.leave() == [LAN]
        assert bench.speaker.log == [f"{LAN} preferred", f"{LAN} withdrawn"]
        bench.failover.news()
        bench.settle()
        assert bench.speaker.wanted == {}

    def test_without_a_failover_there_is_nothing_to_hand_over(self, tmp_path: Path) -> None:
        bench = Bench(tmp_path, CONFIG.split("[failover.gw]")[0])
        assert asyncio.run(bench.failover.handed_over(0))
        assert not bench.failover.active


class TestRun:
    def test_devd_and_the_loop(self, tmp_path: Path) -> None:
        """The whole of it, with a socket that is not there: looked at in turns, and said."""
        text = CONFIG.replace("[bgp]\n", f'[paths]\ndevd = "{tmp_path / "devd"}"\n[bgp]\n', 1)
        bench = Bench(tmp_path, text)

        async def work() -> None:
            task = asyncio.create_task(bench.failover.run())
            await bench.failover.decided.wait()
            assert bench.stance == str(Stance.PREFERRED)
            assert [text for text in bench.failover.problems if "devd" in text]
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert LAN in bench.speaker.wanted, "routes stand"

        asyncio.run(work())
