"""Ownership in whole fabrics, without packets: hosts that rule, and routers that show what routers show.

Messages of one session stay in order; those of different sessions overtake each other as chance, or Hypothesis, has it.
What is sent are the communities and the MED that go on the wire, no objects.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from mobility.bgp import ownership
from mobility.bgp.ownership import LAST, Claim, Held, Kind, Policy, Record, Ruling, Situation

ADMINISTRATOR = ownership.DEFAULT_ADMINISTRATOR
NEVER_FROZEN = Policy(moves=1_000_000, window=180.0)
USUAL = Policy(moves=5, window=180.0)
V4, V6 = "198.51.100.7/32", "2001:db8:7::7/128"
BOTH = (V4, V6)
WEB1, WEB2 = ownership.identity_number("web1"), ownership.identity_number("web2")
NOW = 1_795_000_000.0
FIRST = int(NOW // 60)
LATER = 2.0
"""Seconds between two looks."""
END = None
"""End-of-RIB in a channel (RFC 4724, section 2)."""


class Shows(StrEnum):
    """What a router shows its neighbours of a prefix, and how it breaks ties that the MED leaves."""

    OLDEST = "best path, the oldest of equals"
    LOWEST = "best path, the lowest router id of equals"
    ALL = "all paths"


@dataclass(frozen=True)
class Path:
    """A route as it is on the wire."""

    large_communities: tuple[str, ...]
    med: int

    @property
    def claim(self) -> Claim | None:
        return claim_of(self.large_communities)


@cache
def claim_of(large_communities: tuple[str, ...]) -> Claim | None:
    return ownership.read(large_communities, ADMINISTRATOR)


@dataclass(frozen=True)
class Update:
    """One route of an UPDATE; no path is a withdrawal. `source` tells paths apart (RFC 7911)."""

    prefix: str
    source: str
    path: Path | None


@dataclass
class Router:
    """A router, or a route server: it compares MED between its neighbours."""

    name: str
    shows: Shows
    reflects: bool
    """Whether a neighbour is shown its own route, too, where that is the best."""
    routes: dict[str, dict[str, tuple[int, Path]]] = field(default_factory=dict)
    """By prefix and neighbour: when it came, and the path."""
    told: dict[str, dict[tuple[str, str], Path]] = field(default_factory=dict)
    """What each neighbour was told, by prefix and source."""

    def best(self, prefix: str, ids: Mapping[str, int]) -> str | None:
        routes = self.routes.get(prefix, {})
        if not routes:
            return None
        oldest = self.shows is Shows.OLDEST
        return min(routes, key=lambda name: (routes[name][1].med, routes[name][0] if oldest else ids[name], ids[name]))

    def view(self, prefix: str, neighbour: str, ids: Mapping[str, int]) -> dict[tuple[str, str], Path]:
        """Return what a neighbour is to be shown of a prefix, by prefix and source."""
        routes = self.routes.get(prefix, {})
        best = self.best(prefix, ids)
        shown = routes if self.shows is Shows.ALL else [best] if best else []
        return {
            (prefix, source if self.shows is Shows.ALL else ""): routes[source][1]
            for source in shown
            if self.reflects or source != neighbour
        }


@dataclass
class Host:
    """A host: its agent rules whenever something changes; ExaBGP goes on without it."""

    name: str
    me: int
    wanted: tuple[str, ...] = BOTH
    identity: int = WEB1
    anycast: bool = False
    skew: float = 0.0
    """Seconds that its clock is wrong by."""
    runs: bool = False
    agent: bool = True
    witnessed: bool = True
    held: Held = field(default_factory=Held)
    record: Record = field(default_factory=Record)
    ruling: Ruling | None = None
    learned: dict[str, dict[tuple[str, str], Path]] = field(default_factory=dict)
    """By router: what it shows. ExaBGP's bridge keeps it while there is no agent."""
    heard: set[str] = field(default_factory=set)
    """Whose end-of-RIB has come."""
    announced: dict[str, Path] = field(default_factory=dict)
    incarnation: int = 0
    """Counts starts of the jail."""
    forgot: int = 0
    """The incarnation during which its database was lost, or which it was told to let go."""

    def seen(self) -> dict[str, list[Claim]]:
        found: dict[str, list[Claim]] = {}
        for paths in self.learned.values():
            for (prefix, _), path in paths.items():
                if prefix in self.wanted and path.claim is not None:
                    found.setdefault(prefix, []).append(path.claim)
        return found


class Fabric:
    """Hosts, routers, and the messages between them."""

    def __init__(self, hosts: list[Host], routers: list[Router], policy: Policy = NEVER_FROZEN) -> None:
        self.hosts = {host.name: host for host in hosts}
        self.routers = {router.name: router for router in routers}
        self.ids = {host.name: host.me for host in hosts}
        self.policy = policy
        self.now = NOW
        self.clock = 0
        self.up = {(host.name, router.name) for host in hosts for router in routers}
        self.channels: dict[tuple[str, str], deque[Update | None]] = {}
        self.newest: dict[str, tuple[tuple[int, int], str, int]] = {}
        """By prefix: the highest rank that was ever announced, by which host, in which incarnation of its jail."""
        self.watch: Callable[[], None] = lambda: None
        """Called after each step."""
        for host in hosts:
            host.heard = set(self.routers)

    # -- what happens to hosts

    def start(self, name: str) -> None:
        host = self.hosts[name]
        host.runs, host.incarnation, host.held, host.witnessed = True, host.incarnation + 1, Held(), True
        self.rule(host)

    def stop(self, name: str) -> None:
        host = self.hosts[name]
        host.runs, host.held = False, Held()
        self.rule(host)

    def kill_agent(self, name: str) -> None:
        self.hosts[name].agent = False

    def start_agent(self, name: str, *, database: bool = True, exabgp: bool = False) -> None:
        """Start an agent, with its database or without; then with what ExaBGP still announces, or without that, too."""
        host = self.hosts[name]
        host.agent = True
        if not database:
            host.held, host.record, host.witnessed = Held(), Record(), False
            claims = {prefix: path.claim for prefix, path in host.announced.items() if path.claim}
            if exabgp and host.runs and claims:
                # as Ledger.recover does
                host.held = Held(max(claim.sequence for claim in claims.values()), tuple(claims))
            else:
                host.forgot = host.incarnation
        self.rule(host)

    def fail_static_ends(self, name: str) -> None:
        """Have a bridge without an agent withdraw all that it announces (bgp.fail_static_for)."""
        host = self.hosts[name]
        assert not host.agent
        self.announce(host, {})

    def release(self, name: str) -> None:
        host = self.hosts[name]
        host.held, host.witnessed, host.record = Held(), True, ownership.released(host.record, host.seen())
        host.incarnation += host.runs
        self.rule(host)

    def cut(self, name: str) -> None:
        """Take down all sessions of a host: each side forgets the other's routes."""
        host = self.hosts[name]
        for router in self.routers.values():
            self.up.discard((name, router.name))
            for key in ((name, router.name), (router.name, name)):
                self.channels.pop(key, None)
            host.learned.pop(router.name, None)
            host.heard.discard(router.name)
            router.told.pop(name, None)
            for routes in router.routes.values():
                routes.pop(name, None)
            self.tell(router)
        self.rule(host)

    def heal(self, name: str) -> None:
        host = self.hosts[name]
        for router in self.routers.values():
            if (name, router.name) in self.up:
                continue
            self.up.add((name, router.name))
            for prefix, path in host.announced.items():
                self.send(name, router.name, Update(prefix, "", path))
            self.tell(router)
            self.send(router.name, name, END)

    def reboot(self, name: str, *, database: bool = True) -> None:
        """Crash a host and bring it back with nothing running."""
        host = self.hosts[name]
        host.runs, host.agent, host.held, host.announced, host.witnessed = False, True, Held(), {}, True
        if not database:
            host.record = Record()
        self.cut(name)
        self.heal(name)

    # -- rules and messages

    def rule(self, host: Host) -> None:
        if not host.agent:
            return
        wanted: dict[str, Path] = {}
        if host.runs and host.anycast:
            wanted = {prefix: Path((), 0) for prefix in host.wanted}
        elif host.runs:
            situation = Situation(
                wanted=host.wanted,
                seen=host.seen(),
                me=host.me,
                identity=host.identity,
                heard=bool(host.heard),
                witnessed=host.witnessed,
                now=self.now + host.skew,
            )
            host.ruling = ownership.rule(situation, host.held, host.record, self.policy)
            host.held, host.record = host.ruling.held, host.ruling.record
            claim = Claim(host.held.claim, host.identity, host.me)
            path = Path(ownership.communities(claim, ADMINISTRATOR), ownership.med(claim.sequence))
            wanted = dict.fromkeys(host.ruling.prefixes, path)
        else:
            host.record = ownership.seeing(host.record, host.seen())
        self.announce(host, wanted)

    def announce(self, host: Host, wanted: dict[str, Path]) -> None:
        before, host.announced = host.announced, wanted
        for router in self.routers:
            if (host.name, router) in self.up:
                for prefix in sorted({*before, *wanted}):
                    if before.get(prefix) != wanted.get(prefix):
                        self.send(host.name, router, Update(prefix, "", wanted.get(prefix)))
        for prefix, path in wanted.items():
            if path.claim is not None:
                entry = (path.claim.rank, host.name, host.incarnation)
                self.newest[prefix] = max(self.newest.get(prefix, entry), entry)

    def send(self, source: str, target: str, message: Update | None) -> None:
        self.channels.setdefault((source, target), deque()).append(message)

    def tell(self, router: Router, prefixes: Iterable[str] = BOTH) -> None:
        for name in self.hosts:
            if (name, router.name) not in self.up:
                continue
            told = router.told.setdefault(name, {})
            for prefix in prefixes:
                before = {key: path for key, path in told.items() if key[0] == prefix}
                now = router.view(prefix, name, self.ids)
                for key in sorted({*before, *now}):
                    if before.get(key) != now.get(key):
                        self.send(router.name, name, Update(*key, now.get(key)))
                        told.pop(key, None)
                told |= now

    def deliver(self, source: str, target: str) -> None:
        """Hand the first message of a channel over."""
        message = self.channels[source, target].popleft()
        if not self.channels[source, target]:
            del self.channels[source, target]
        self.clock += 1
        if target in self.hosts:
            host = self.hosts[target]
            if message is None:
                host.heard.add(source)
            else:
                paths = host.learned.setdefault(source, {})
                paths.pop((message.prefix, message.source), None)
                if message.path is not None:
                    paths[message.prefix, message.source] = message.path
            self.rule(host)
        elif message is not None:
            router = self.routers[target]
            routes = router.routes.setdefault(message.prefix, {})
            routes.pop(source, None)
            if message.path is not None:
                routes[source] = (self.clock, message.path)
            self.tell(router, [message.prefix])
        self.watch()

    def settle(self, random: Random) -> None:
        """Deliver everything, in an order of chance, and have every agent look again some seconds later."""
        for _ in range(2):
            count = 0
            while self.channels:
                self.deliver(*random.choice(sorted(self.channels)))
                count += 1
                assert count < 5000, "they never come to rest"
            self.now += LATER
            for host in self.hosts.values():
                self.rule(host)
        assert not self.channels, "what is at rest does not stay so"

    # -- what is to be seen

    def connected(self, name: str) -> bool:
        return any((name, router) in self.up for router in self.routers)

    def owners(self, prefix: str) -> list[str]:
        """Return the hosts with an agent that announce a prefix to the fabric."""
        return [
            name
            for name, host in self.hosts.items()
            if host.agent and prefix in host.announced and self.connected(name)
        ]

    def reachable(self, prefix: str) -> bool:
        return any(router.routes.get(prefix) for router in self.routers.values())

    def check(self) -> None:
        """Judge a fabric that is at rest."""
        assert not self.channels
        for prefix in BOTH:
            self.check_prefix(prefix)
        if {host.wanted for host in self.hosts.values()} == {BOTH} and {
            host.identity for host in self.hosts.values()
        } == {WEB1}:
            # a jail is never in two parts. (Half of it may be gone: the newer claim is behind a cut, or its agent dead.)
            assert not self.owners(V4) or not self.owners(V6) or self.owners(V4) == self.owners(V6)

    def check_prefix(self, prefix: str) -> None:
        claims = {
            name: path.claim
            for name, host in self.hosts.items()
            if (path := host.announced.get(prefix)) and path.claim and self.connected(name)
        }
        owners = [name for name in self.owners(prefix) if name in claims]
        # one at most, and it is the newest of all, those whose agents are dead included
        assert len(owners) <= 1
        if owners:
            (owner,) = owners
            assert all(claim.sequence <= claims[owner].sequence for claim in claims.values())
        # whoever has made the newest claim, and has not stopped since, is the owner
        if prefix in self.newest:
            _, name, incarnation = self.newest[prefix]
            host = self.hosts[name]
            if host.runs and host.incarnation == incarnation != host.forgot and host.agent and self.connected(name):
                assert owners == [name]
        # and the routers agree with that
        for router in self.routers.values():
            best = router.best(prefix, self.ids)
            assert best is None if not claims else best is not None
            if owners:
                assert best == owners[0]


def routers(shows: Shows, count: int, *, reflects: bool = False) -> list[Router]:
    return [Router(f"r{index}", shows, reflects) for index in range(count)]


FABRICS: dict[str, Callable[[], list[Router]]] = {
    "one router, oldest": lambda: routers(Shows.OLDEST, 1),
    "one router, lowest id": lambda: routers(Shows.LOWEST, 1),
    "one router that reflects": lambda: routers(Shows.OLDEST, 1, reflects=True),
    "two routers": lambda: routers(Shows.OLDEST, 2),
    "two routers of two kinds": lambda: [*routers(Shows.OLDEST, 1), Router("other", Shows.LOWEST, reflects=True)],
    "two route servers": lambda: routers(Shows.ALL, 2),
    "route servers that reflect": lambda: routers(Shows.ALL, 2, reflects=True),
}
every_fabric = pytest.mark.parametrize("fabric", FABRICS)


def hosts(count: int, **settings: object) -> list[Host]:
    return [Host("abcdefgh"[index], 10 + index, **settings) for index in range(count)]  # type: ignore[arg-type]


def never_dark(world: Fabric, prefix: str) -> None:
    """Have it noted as wrong if the routes of a prefix are gone for a moment, once there were any."""
    state = {"seen": False}

    def look() -> None:
        there = world.reachable(prefix)
        assert there or not state["seen"], "nobody announced it for a moment"
        state["seen"] = state["seen"] or there

    previous = world.watch

    def both() -> None:
        previous()
        look()

    world.watch = both


# -- two hosts, one instant


@every_fabric
def test_two_start_at_once_a_thousand_times(fabric: str) -> None:
    winners = []
    for seed in range(1000):
        random = Random(seed)
        world = Fabric(hosts(2), FABRICS[fabric]())
        for prefix in BOTH:
            never_dark(world, prefix)
        for name in random.sample("ab", 2):
            world.start(name)
        world.settle(random)
        world.check()
        winners += world.owners(V4)
        # and once more, over what the first time has left
        loser = "ab".replace(winners[-1], "")
        world.start(loser)
        world.settle(random)
        world.check()
        assert world.owners(V4) == [loser]
    # the lower router id, wherever they did not know of each other
    assert winners == ["a"] * 1000


@every_fabric
def test_many_start_at_once(fabric: str) -> None:
    for seed in range(100):
        random = Random(seed)
        count = random.randint(3, 6)
        world = Fabric(hosts(count), FABRICS[fabric]())
        never_dark(world, V4)
        for name in random.sample("abcdef"[:count], count):
            world.start(name)
            # some are late, and know of part of the others
            for _ in range(random.choice((0, 0, 1, 5))):
                if world.channels:
                    world.deliver(*random.choice(sorted(world.channels)))
        world.settle(random)
        world.check()
        assert len(world.owners(V4)) == 1


@every_fabric
def test_a_jail_moves_to_and_fro(fabric: str) -> None:
    """Each start is newer than what runs, and at no moment is there no route."""
    for seed in range(50):
        random = Random(seed)
        world = Fabric(hosts(3), FABRICS[fabric]())
        never_dark(world, V4)
        for _ in range(6):
            name = random.choice([name for name, host in world.hosts.items() if V4 not in host.announced])
            world.start(name)
            world.settle(random)
            world.check()
            assert world.owners(V4) == [name]


# -- agents that die, hosts that are cut off


@every_fabric
@pytest.mark.parametrize("database", [True, False], ids=["with its database", "without it"])
def test_the_old_hosts_agent_is_dead(fabric: str, *, database: bool) -> None:
    for seed in range(50):
        random = Random(seed)
        world = Fabric(hosts(2), FABRICS[fabric]())
        old, new = random.sample("ab", 2)
        world.start(old)
        world.settle(random)
        world.kill_agent(old)
        never_dark(world, V4)
        world.start(new)
        world.settle(random)
        world.check()
        assert all(router.best(V4, world.ids) == new for router in world.routers.values())
        world.start_agent(old, database=database)
        world.settle(random)
        world.check()
        assert world.owners(V4) == [new]


@every_fabric
def test_the_old_hosts_bridge_withdraws_by_itself(fabric: str) -> None:
    """Then nobody depends on what routers compare; its agent, back again, sees that it is not the newest."""
    for seed in range(20):
        random = Random(seed)
        world = Fabric(hosts(2), FABRICS[fabric]())
        old, new = random.sample("ab", 2)
        world.start(old)
        world.settle(random)
        world.kill_agent(old)
        world.start(new)
        never_dark(world, V4)
        world.settle(random)
        world.fail_static_ends(old)
        world.settle(random)
        world.check()
        assert all(list(router.routes[V4]) == [new] for router in world.routers.values())
        world.start_agent(old, database=random.random() < 0.5)
        world.settle(random)
        world.check()
        assert world.owners(V4) == [new]


@every_fabric
def test_an_old_host_is_cut_off_and_comes_back(fabric: str) -> None:
    for seed in range(50):
        random = Random(seed)
        world = Fabric(hosts(2), FABRICS[fabric]())
        old, new = random.sample("ab", 2)
        world.start(old)
        world.settle(random)
        world.cut(old)
        world.settle(random)
        assert not world.reachable(V4)
        world.start(new)
        world.settle(random)
        never_dark(world, V4)
        world.heal(old)
        world.settle(random)
        world.check()
        assert world.owners(V4) == [new]
        # it has let go for good
        world.watch = lambda: None
        world.stop(new)
        world.settle(random)
        assert world.owners(V4) == []
        world.start(old)
        world.settle(random)
        world.check()
        assert world.owners(V4) == [old]


@every_fabric
def test_the_new_host_remembers_nothing_and_the_old_one_is_behind_a_cut(fabric: str) -> None:
    """Minutes since 1970 are the first claim: later starts are newer without any memory."""
    world = Fabric(hosts(2), FABRICS[fabric]())
    random = Random(1)
    world.start("a")
    world.settle(random)
    world.cut("a")
    world.now += 60
    world.hosts["b"].record = Record()
    world.start("b")
    world.heal("a")
    world.settle(random)
    world.check()
    assert world.owners(V4) == ["b"]


@every_fabric
@pytest.mark.parametrize("skew", [-1e9, -61.0, 61.0, 1e9])
def test_clocks_decide_nothing_where_the_fabric_tells(fabric: str, skew: float) -> None:
    random = Random(1)
    world = Fabric([Host("a", 10, skew=skew), Host("b", 11)], FABRICS[fabric]())
    for name in "abab":
        world.start(name)
        world.settle(random)
        world.check()
        assert world.owners(V4) == [name]


@every_fabric
@pytest.mark.parametrize("exabgp", [True, False], ids=["its ExaBGP tells", "nobody tells"])
def test_a_host_without_its_database_restarts_its_agent(fabric: str, *, exabgp: bool) -> None:
    """Nobody else has it: it keeps it. (Its routes stand; where nobody tells it, its claim starts anew.)"""
    random = Random(1)
    world = Fabric(hosts(2), FABRICS[fabric]())
    for name in "abab":
        world.start(name)
        world.settle(random)
    never_dark(world, V4)
    world.stop("a")
    world.settle(random)
    world.kill_agent("b")
    claimed = world.hosts["b"].announced[V4]
    world.start_agent("b", database=False, exabgp=exabgp)
    world.settle(random)
    world.check()
    assert world.owners(V4) == ["b"]
    assert not exabgp or world.hosts["b"].announced[V4] == claimed


@every_fabric
def test_a_database_is_lost_while_an_older_copy_stands(fabric: str) -> None:
    """An agent that is dead shows an older claim: what ExaBGP still announces is known to be newer."""
    random = Random(1)
    world = Fabric(hosts(2), FABRICS[fabric]())
    for old, new in ("ab", "ba"):
        world.start(old)
        world.settle(random)
        world.kill_agent(old)
        world.start(new)
        world.settle(random)
        never_dark(world, V4)
        world.kill_agent(new)
        world.start_agent(new, database=False, exabgp=True)
        world.settle(random)
        world.check()
        assert world.owners(V4) == [new]
        world.start_agent(old)
        world.settle(random)


@every_fabric
def test_a_claim_of_which_only_half_has_come(fabric: str) -> None:
    """Its host is gone between two UPDATEs: those who have let go of half a jail do not keep the other half."""
    for seed in range(20):
        random = Random(seed)
        world = Fabric(hosts(3), FABRICS[fabric]())
        world.start("a")
        router = max(world.routers)
        world.deliver("a", router)
        world.start("c")
        world.start("b")
        while key := next((key for key in sorted(world.channels) if key[0] == router), None):
            world.deliver(*key)
        world.reboot("a")
        world.settle(random)
        world.check()
        world.start("a")
        world.settle(random)
        world.check()
        assert world.owners(V4) == ["a"]


@every_fabric
def test_its_own_claim_comes_back_to_a_host_that_has_forgotten_it(fabric: str) -> None:
    for seed in range(20):
        random = Random(seed)
        world = Fabric(hosts(2), FABRICS[fabric]())
        world.start("a")
        world.stop("a")
        world.start("a")
        for _ in range(random.randint(0, 12)):
            if world.channels:
                world.deliver(*random.choice(sorted(world.channels)))
        world.kill_agent("a")
        world.start_agent("a", database=False)
        world.settle(random)
        world.check()
        assert world.owners(V4) == ["a"]


@pytest.mark.parametrize("fabric", ["two route servers", "route servers that reflect"])
def test_two_hosts_of_one_router_id_come_to_rest(fabric: str) -> None:
    """A mistake in two files: it must not end in two hosts that claim over each other for ever."""
    random = Random(1)
    world = Fabric([Host("a", 10), Host("b", 10)], FABRICS[fabric](), USUAL)
    world.start("a")
    world.settle(random)
    world.start("b")
    world.settle(random)


# -- other jails, anycast


@every_fabric
def test_another_jail_on_the_same_address(fabric: str) -> None:
    for seed in range(100):
        random = Random(seed)
        world = Fabric([Host("a", 10), Host("b", 11, identity=WEB2)], FABRICS[fabric]())
        first, second = random.sample("ab", 2)
        world.start(first)
        world.settle(random)
        never_dark(world, V4)
        world.start(second)
        world.settle(random)
        world.check()
        assert world.owners(V4) == [first]
        ruling = world.hosts[second].ruling
        assert ruling is not None
        assert ruling.kind is Kind.CONFLICT
        # it is free when the first one has gone
        world.watch = lambda: None
        world.stop(first)
        world.settle(random)
        world.check()
        assert world.owners(V4) == [second]


@every_fabric
def test_two_jails_of_one_address_start_at_once(fabric: str) -> None:
    for seed in range(200):
        random = Random(seed)
        world = Fabric([Host("a", 10), Host("b", 11, identity=WEB2)], FABRICS[fabric]())
        never_dark(world, V4)
        for name in random.sample("ab", 2):
            world.start(name)
        world.settle(random)
        world.check()
        assert len(world.owners(V4)) == 1


@every_fabric
def test_addresses_that_overlap(fabric: str) -> None:
    """web1 has the first address, and web2 asks for both: it gets the other one."""
    for seed in range(100):
        random = Random(seed)
        world = Fabric([Host("a", 10, wanted=(V4,)), Host("b", 11, identity=WEB2)], FABRICS[fabric]())
        world.start("a")
        world.settle(random)
        never_dark(world, V4)
        world.start("b")
        world.settle(random)
        world.check()
        assert (world.owners(V4), world.owners(V6)) == (["a"], ["b"])
        # as by a change of what it is granted
        world.hosts["a"].wanted = BOTH
        world.rule(world.hosts["a"])
        world.settle(random)
        world.check()
        assert (world.owners(V4), world.owners(V6)) == (["a"], ["b"])


@every_fabric
def test_anycast_is_everywhere(fabric: str) -> None:
    for seed in range(20):
        random = Random(seed)
        world = Fabric(hosts(3, anycast=True), FABRICS[fabric]())
        for name in random.sample("abc", 3):
            world.start(name)
        world.settle(random)
        assert world.owners(V4) == ["a", "b", "c"]
        world.stop("b")
        world.settle(random)
        assert world.owners(V4) == ["a", "c"]


# -- moves, and the end of all sequences


@every_fabric
def test_two_hosts_that_fight_are_frozen(fabric: str) -> None:
    """What starts a jail on two hosts again and again ends, and one of them holds it."""
    random = Random(1)
    world = Fabric(hosts(2), FABRICS[fabric](), USUAL)
    world.start("a")
    world.settle(random)
    never_dark(world, V4)
    starts = 0
    while world.now < NOW + 180:
        name = "ab".replace(world.owners(V4)[0], "")
        world.now += 5
        world.start(name)
        world.settle(random)
        world.check()
        starts += world.owners(V4) == [name]
    assert starts <= USUAL.moves
    assert len(world.owners(V4)) == 1
    frozen = next(host for host in world.hosts.values() if V4 not in host.announced)
    assert frozen.ruling is not None
    assert frozen.ruling.kind is Kind.FROZEN
    # however long that goes on, without a word of an operator's
    world.now += 100_000
    world.start(frozen.name)
    world.settle(random)
    assert world.owners(V4) != [frozen.name]
    world.release(frozen.name)
    world.settle(random)
    world.check()
    assert world.owners(V4) == [frozen.name]


@every_fabric
def test_moves_that_are_far_apart_freeze_nothing(fabric: str) -> None:
    random = Random(1)
    world = Fabric(hosts(2), FABRICS[fabric](), USUAL)
    for name in "ab" * 10:
        world.now += 100
        world.start(name)
        world.settle(random)
        world.check()
        assert world.owners(V4) == [name]


@every_fabric
@pytest.mark.parametrize("left", [0, 1, 2, 3, 1022, 1023, 1024, 1025, 1026, 1030])
def test_near_the_end_of_all_sequences(fabric: str, left: int) -> None:
    """So many claims are left: who comes after them is told so, and nobody loses what it has."""
    for seed in range(50):
        random = Random(seed)
        world = Fabric(hosts(3), FABRICS[fabric]())
        for host in world.hosts.values():
            host.record = Record(highest=LAST - left)
        never_dark(world, V4)
        for _ in range(5):
            others = [name for name in "abc" if name not in world.owners(V4)]
            for name in random.sample(others, random.randint(1, len(others))):
                world.start(name)
            world.settle(random)
            world.check()
            assert len(world.owners(V4)) <= 1


# -- everything at once


class Anything(RuleBasedStateMachine):
    """Hosts start, stop, crash, forget and are cut off while messages are under way."""

    names = st.sampled_from("abcd")

    @initialize(fabric=st.sampled_from(sorted(FABRICS)), skews=st.tuples(*[st.sampled_from((0.0, -3600.0, 90.0))] * 4))
    def begin(self, fabric: str, skews: tuple[float, ...]) -> None:
        self.world = Fabric(hosts(4), FABRICS[fabric]())
        for host, skew in zip(self.world.hosts.values(), skews, strict=True):
            host.skew = skew

    @rule(name=names)
    def start(self, name: str) -> None:
        if self.world.hosts[name].agent:
            self.world.start(name)

    @rule(several=st.permutations("abcd").flatmap(lambda names: st.integers(2, 4).map(lambda count: names[:count])))
    def start_at_once(self, several: list[str]) -> None:
        for name in several:
            self.start(name)

    @rule(name=names)
    def stop(self, name: str) -> None:
        if self.world.hosts[name].agent:
            self.world.stop(name)

    @rule(name=names)
    def kill_agent(self, name: str) -> None:
        self.world.kill_agent(name)

    @rule(name=names, database=st.booleans(), exabgp=st.booleans())
    def start_agent(self, name: str, *, database: bool, exabgp: bool) -> None:
        if not self.world.hosts[name].agent:
            self.world.start_agent(name, database=database, exabgp=exabgp)

    @rule(name=names)
    def fail_static_ends(self, name: str) -> None:
        if not self.world.hosts[name].agent:
            self.world.fail_static_ends(name)

    @rule(name=names)
    def cut(self, name: str) -> None:
        self.world.cut(name)

    @rule(name=names)
    def heal(self, name: str) -> None:
        self.world.heal(name)

    @rule(name=names, database=st.booleans())
    def reboot(self, name: str, *, database: bool) -> None:
        self.world.reboot(name, database=database)

    @rule(name=names)
    def release(self, name: str) -> None:
        if self.world.hosts[name].agent:
            self.world.release(name)

    @rule(seconds=st.sampled_from((1.0, 59.0, 3600.0)))
    def time_passes(self, seconds: float) -> None:
        self.world.now += seconds

    @precondition(lambda self: self.world.channels)
    @rule(data=st.data())
    def deliver(self, data: st.DataObject) -> None:
        for _ in range(data.draw(st.integers(1, 5))):
            if self.world.channels:
                self.world.deliver(*data.draw(st.sampled_from(sorted(self.world.channels))))

    @rule(random=st.randoms(use_true_random=False))
    def settle(self, random: Random) -> None:
        self.world.settle(random)
        self.world.check()

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        random = Random(1)
        self.world.settle(random)
        self.world.check()
        # all wounds heal
        for name, host in self.world.hosts.items():
            if not host.agent:
                self.world.start_agent(name)
            self.world.heal(name)
        self.world.settle(random)
        self.world.check()
        # and a fresh start is always the newest
        self.world.start("b")
        self.world.settle(random)
        self.world.check()
        assert self.world.owners(V4) == ["b"]


Anything.TestCase.settings = settings(
    max_examples=300, stateful_step_count=40, deadline=None, report_multiple_bugs=False
)
TestAnything = Anything.TestCase
