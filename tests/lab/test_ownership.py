"""Who owns a jail's routes when hosts disagree: real agents, ExaBGP and BIRD, in both fabrics.

`one`: all hosts at one router, which compares MED. `two`: a leaf each, where MED does not reach, and route servers. The third
host has no agent: what it claims is said by hand.
"""

from __future__ import annotations

import ipaddress
import itertools
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from mobility import config
from mobility.bgp import ownership
from mobility.bgp.ownership import DEFAULT_ADMINISTRATOR, LAST, RESERVE, Claim
from mobility.model import Attributes
from tests.interop.ground import Agent
from tests.lab.fabric import TwoTier, deployed
from tests.lab.faults import await_hooks, status_of_host
from tests.lab.invariants import status
from tests.lab.spine import Bird
from tests.lab.topology import ALLOWED, Host, Lab
from tests.lab.watch import Change
from tests.waiting import PATIENCE, until

QUICK = {"look_every": 1.0, "reject_for": 0.2, "settle_for": 3.0}
#: Few enough to be counted out; most tests move a jail less often.
MOVES = {"moves": 4, "window": 120}
SECONDS = PATIENCE
ONE, TWO = "one", "two"


@dataclass(frozen=True)
class Jail:
    """A jail of a test: its own name and addresses."""

    name: str
    addresses: tuple[str, ...]

    @property
    def prefixes(self) -> tuple[str, ...]:
        """Its addresses as routes."""
        return tuple(f"{address}/{128 if ':' in address else 32}" for address in self.addresses)


class Scene:
    """A fabric with three hosts, two of them with agents."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.lab: Lab = Lab(hosts=3) if kind == ONE else TwoTier(hosts=3)
        self.a, self.b, self.stranger = self.lab.hosts
        #: What the third host has claimed.
        self.foreign: list[str] = []
        self._numbers = itertools.count(10)
        if kind == ONE:
            deployed(self.lab)
        for host in (self.a, self.b):
            host.configure(agent=QUICK, ownership=MOVES)
            host.start_agent()
        for host in self.lab.hosts:
            host.run_folder.mkdir(mode=0o755, exist_ok=True)
            host.start_exabgp()
        self.speaker = Agent(config.load(self.stranger.config))
        self.speaker.__enter__()
        self.speaker.open()
        for host in self.lab.hosts:
            self.lab.await_session(host)

    def close(self) -> None:
        """End it all."""
        self.speaker.__exit__(None, None, None)
        self.lab.close()

    def settle(self) -> None:
        """Bring hosts and fabric back to where a test may begin: nothing runs, nothing is announced."""
        self.heal()
        self.speaker.unwant(*self.foreign)
        self.foreign.clear()
        for host in (self.a, self.b):
            for name in host.run(["jls", "name"]).stdout.split():
                host.run(["jail", "-R", name])
            if host.agent is None or not host.agent.running:
                host.configure(agent=QUICK, ownership=MOVES)
                host.start_agent()
        allowed = [ipaddress.ip_network(each) for each in ALLOWED]

        def empty() -> bool:
            routes = [ipaddress.ip_network(prefix) for prefix in self.lab.spine.fib.routes()]
            return not any(
                route.version == net.version and route.subnet_of(net)  # type: ignore[arg-type]
                for route in routes
                for net in allowed
            )

        until(empty, "an empty fabric", SECONDS)

    # what a test does

    def jail(self, *, count: int = 1, name: str = "", more: str = "", hosts: Sequence[Host] = ()) -> Jail:
        """Define a new jail on both hosts (or on `hosts`), with `count` addresses of each family of its own."""
        numbers = [next(self._numbers) for _ in range(count)]
        addresses = [f"198.51.100.{number}" for number in numbers] + [f"2001:db8:7::{number:x}" for number in numbers]
        jail = Jail(name or f"j{numbers[0]}", tuple(addresses))
        self.define(jail, more=more, hosts=hosts)
        return jail

    def define(self, jail: Jail, *, more: str = "", hosts: Sequence[Host] = ()) -> None:
        """Define a jail on both hosts, or on `hosts`; `more` are further lines of its file in jails.d."""
        for host in hosts or (self.a, self.b):
            host.define_jail(jail.name, jail.addresses)
            path = host.jails_d / f"{jail.name}.toml"
            path.write_text(path.read_text() + more)

    def via(self, host: Host) -> str:
        """Return the next hop by which the spine reaches a host's jails."""
        return self.lab.via(host) if isinstance(self.lab, TwoTier) else host.address

    def await_route(self, jail: Jail, host: Host) -> None:
        """Wait until the spine sends all of a jail's packets to a host, and to no other."""
        fib = self.lab.spine.fib
        fib.wait_for(
            lambda: all(fib.routes().get(prefix) == {self.via(host)} for prefix in jail.prefixes),
            f"route to {jail} by {host.name}",
            SECONDS,
        )

    def cut(self, host: Host) -> None:
        """End all sessions of a host, as if it were behind a cut."""
        for bird in self._of(host):
            bird.birdc(f"disable {host.session.name}")
        until(lambda: not any(session["state"] == "up" for session in sessions(host)), "end of the sessions", SECONDS)

    def heal(self) -> None:
        """Let all sessions come back."""
        for host in self.lab.hosts:
            for bird in self._of(host):
                bird.birdc(f"enable {host.session.name}")
        for host in self.lab.hosts:
            self.lab.await_session(host)

    @contextmanager
    def unplugged(self) -> Iterator[None]:
        """Cut host a off where it does not see it: its sessions are up for as long as their hold time lasts."""
        # both ends: in the lab one that is down still takes what comes
        ends = (
            (("leaf-a", "up-leaf-a"), ("spine", "to-leaf-a"))
            if self.kind == TWO
            else (("spine", "to-a"), ("a", "up-a"))
        )
        self.lab.machine.commands([["jexec", node, "ifconfig", interface, "down"] for node, interface in ends])
        try:
            yield
        finally:
            self.lab.machine.commands([["jexec", node, "ifconfig", interface, "up"] for node, interface in ends])

    def _of(self, host: Host) -> list[Bird]:
        """Return the routers that have a session with a host."""
        if isinstance(self.lab, TwoTier):
            return [self.lab.leaves[host.name], *self.lab.route_servers.values()]
        return [self.lab.spine]

    def paths(self, prefix: str) -> int:
        """Return how many hosts' routes to a prefix there are in the fabric."""
        # of the routers that have sessions with all hosts
        bird = self._of(self.stranger)[-1]
        found, here = 0, False
        for line in bird.birdc("show route").splitlines():
            if not line.startswith((" ", "\t")):
                here = line.startswith(f"{prefix} ")
            found += here and "[host_" in line
        return found


def sessions(host: Host) -> list[dict[str, Any]]:
    """Return what an agent says of its sessions."""
    listed: list[dict[str, Any]] = status_of_host(host)["sessions"]
    return listed


def await_state(host: Host, jail: Jail, *, announced: bool, reason: str = "") -> dict[str, Any]:
    """Wait until `mobility status` says whether a jail is announced, and why not; return what it says."""
    last: dict[str, Any] = {}

    def there() -> bool:
        last.clear()
        last.update(status(host, jail.name))
        return last["announced"] == announced and reason in last["reason"]

    try:
        until(there, f"{jail.name} on {host.name}: announced {announced}, {reason!r}", SECONDS)
    except AssertionError as error:
        raise AssertionError(f"{error}; it says {last}") from None
    return last


def gaps(changes: Sequence[Change], jail: Jail, before: str) -> list[str]:
    """Return the prefixes that had no next hop at some moment of these changes, having begun with one."""
    found = []
    for prefix in jail.prefixes:
        hops = {before}
        for change in [each for each in changes if each.prefix == prefix]:
            if change.gone:
                hops.discard(change.via)
            elif "." in prefix:
                hops = {change.via}  # the kernel replaces
            else:
                hops.add(change.via)
            if not hops:
                found.append(prefix)
    return found


@pytest.fixture(scope="module", params=[ONE, TWO])
def whole(request: pytest.FixtureRequest) -> Iterator[Scene]:
    """Each fabric once for all of these, so that they take little time."""
    scene = Scene(request.param)
    yield scene
    scene.close()


@pytest.fixture
def scene(whole: Scene) -> Iterator[Scene]:
    whole.settle()
    try:
        yield whole
    finally:
        print("\n".join(whole.lab.logs()))  # pytest shows it with a failure


LOST = "has claimed it with sequence"


def owned(scene: Scene, jail: Jail, host: Host) -> None:
    """Start a jail on a host, and wait for its routes, and until its start is over and done."""
    host.start_jail(jail.name)
    scene.await_route(jail, host)
    await_state(host, jail, announced=True)
    await_hooks(host)


# -- two owners


def test_the_second_start_wins_and_nobody_is_without_a_route(scene: Scene) -> None:
    jail = scene.jail()
    owned(scene, jail, scene.a)
    changes = scene.lab.spine.fib.changes
    changes.clear()
    scene.b.start_jail(jail.name)
    scene.await_route(jail, scene.b)
    await_state(scene.b, jail, announced=True)
    lost = await_state(scene.a, jail, announced=False, reason=LOST)
    assert lost["running"]
    assert scene.b.router_id in lost["reason"]
    until(lambda: all(scene.paths(prefix) == 1 for prefix in jail.prefixes), "end of the older claim", SECONDS)
    scene.await_route(jail, scene.b)
    assert not gaps(changes, jail, scene.via(scene.a))
    assert all(scene.lab.client.ping(address) for address in jail.addresses)


def test_a_split_brain_is_healed(scene: Scene) -> None:
    jail = scene.jail()
    scene.cut(scene.a)
    scene.a.start_jail(jail.name)
    scene.b.start_jail(jail.name)
    scene.await_route(jail, scene.b)
    scene.heal()
    owner = one_owner(scene, jail)
    scene.await_route(jail, owner)
    assert all(scene.lab.client.ping(address) for address in jail.addresses)


def test_a_link_that_is_down_for_a_while(scene: Scene) -> None:
    """Nobody says good-bye: host a believes in its sessions while it is cut off."""
    jail = scene.jail()
    with scene.unplugged():
        scene.a.start_jail(jail.name)
        scene.b.start_jail(jail.name)
        scene.await_route(jail, scene.b)
        await_claim(scene.a, jail)
    owner = one_owner(scene, jail)
    scene.await_route(jail, owner)


def one_owner(scene: Scene, jail: Jail) -> Host:
    """Wait until one of the two hosts has let go, and return the other."""
    found: list[Host] = []

    def there() -> bool:
        told = [(host, status(host, jail.name)) for host in (scene.a, scene.b)]
        found[:] = [host for host, says in told if says["announced"]]
        return len(found) == 1 and all(LOST in says["reason"] for host, says in told if host not in found)

    # a keepalive every ten seconds, then the connection comes anew
    until(there, "one owner", 2 * SECONDS)
    return found[0]


@contextmanager
def tied(scene: Scene, jail: Jail) -> Iterator[None]:
    """Have both hosts claim a jail with the same sequence while they can not hear each other, as one of them knows."""
    owned(scene, jail, scene.a)
    sequence = claimed(scene.a, jail)
    scene.a.stop_jail(jail.name)
    until(lambda: not any(map(scene.lab.spine.kernel_has, jail.prefixes)), "end of the routes", SECONDS)
    with scene.unplugged():
        for host in (scene.a, scene.b):
            host.start_jail(jail.name)
            await_claim(host, jail)
        scene.await_route(jail, scene.b)
        assert [claimed(host, jail) for host in (scene.a, scene.b)] == [sequence + 1] * 2
        yield


def claimed(host: Host, jail: Jail) -> int:
    """Return the sequence that a host claims a jail with."""
    return int(status(host, jail.name)["sequence"] or 0)


def await_claim(host: Host, jail: Jail) -> None:
    """Wait until a host claims a jail, whether anybody hears it or not."""
    until(lambda: claimed(host, jail) > 0, f"claim of {jail.name} by {host.name}", SECONDS)


def test_a_tie_goes_to_the_lower_router_id(scene: Scene) -> None:
    jail = scene.jail()
    with tied(scene, jail):
        pass
    assert one_owner(scene, jail) is scene.a
    scene.await_route(jail, scene.a)


def test_a_tie_that_the_router_shows_to_the_wrong_one(scene: Scene) -> None:
    """It prefers what it had first: host b, which should lose, is not shown the other claim until that is higher."""
    if scene.kind == TWO:
        pytest.skip("route servers show both")
    jail = scene.jail()
    deployed(scene.lab, {"med metric on;": "med metric on; prefer older on;"})
    try:
        with tied(scene, jail):
            before = claimed(scene.b, jail)
        assert one_owner(scene, jail) is scene.a
        assert claimed(scene.a, jail) == before + 1
        scene.await_route(jail, scene.a)
    finally:
        deployed(scene.lab)


def test_started_on_both_hosts_at_once(scene: Scene) -> None:
    for _ in range(5):
        start_at_once(scene, scene.jail())


def start_at_once(scene: Scene, jail: Jail) -> None:
    """Start a jail on both hosts in the same moment: one owner, and at one router no moment without a route after the first.

    In two tiers a route server may tell the loser sooner than the leaves tell the spine of the winner.
    """
    changes = scene.lab.spine.fib.changes
    changes.clear()
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda host: host.start_jail(jail.name), (scene.a, scene.b)))
    owner = one_owner(scene, jail)
    scene.await_route(jail, owner)
    for prefix in jail.prefixes if scene.kind == ONE else ():
        first, *others = [change for change in changes if change.prefix == prefix]
        assert not gaps(others, jail, first.via)
    until(lambda: all(scene.paths(prefix) == 1 for prefix in jail.prefixes), "one claim", SECONDS)


# -- hosts that are dead, or cut off


def test_a_dead_agent_s_jail_goes_to_the_newer_host(scene: Scene) -> None:
    jail = scene.jail()
    wait = {"fail_static_for": 4} if scene.kind == TWO else {}
    if wait:
        restart(scene, scene.a, wait)
    owned(scene, jail, scene.a)
    scene.a.stop_agent(signal.SIGKILL)
    scene.lab.spine.fib.changes.clear()
    scene.b.start_jail(jail.name)
    await_state(scene.b, jail, announced=True)
    scene.await_route(jail, scene.b)
    assert not gaps(scene.lab.spine.fib.changes, jail, scene.via(scene.a))
    if scene.kind == ONE:
        # by MED alone: the dead agent's claim stands, and its ExaBGP is shown the newer one
        assert scene.paths(jail.prefixes[0]) == 2
        scene.a.start_agent()
        await_state(scene.a, jail, announced=False, reason=LOST)
        until(lambda: scene.paths(jail.prefixes[0]) == 1, "end of the older claim", SECONDS)
    else:
        until(lambda: scene.paths(jail.prefixes[0]) == 1, "the bridge's own withdrawal", SECONDS)
        scene.a.start_agent()
        await_state(scene.a, jail, announced=False, reason=LOST)
        scene.a.stop_agent()
        restart(scene, scene.a, {})
    scene.await_route(jail, scene.b)


def restart(scene: Scene, host: Host, bgp: dict[str, Any]) -> None:
    """Start agent and ExaBGP of a host again with other settings of [bgp]."""
    if host.agent is not None:
        host.stop_agent()
    host.stop_exabgp()
    host.configure(agent=QUICK, ownership=MOVES, bgp=bgp)
    host.start_agent()
    host.start_exabgp()
    scene.lab.await_session(host)


def test_an_old_host_that_was_cut_off_and_comes_back_lets_go(scene: Scene) -> None:
    jail = scene.jail()
    owned(scene, jail, scene.a)
    scene.cut(scene.a)
    scene.b.start_jail(jail.name)
    scene.await_route(jail, scene.b)
    changes = scene.lab.spine.fib.changes
    changes.clear()
    scene.heal()
    await_state(scene.a, jail, announced=False, reason=LOST)
    await_state(scene.b, jail, announced=True)
    scene.await_route(jail, scene.b)
    assert not gaps(changes, jail, scene.via(scene.b))


def test_who_has_lost_does_not_come_back_by_itself(scene: Scene) -> None:
    jail = scene.jail()
    owned(scene, jail, scene.a)
    owned(scene, jail, scene.b)
    await_state(scene.a, jail, announced=False, reason=LOST)
    scene.b.stop_jail(jail.name)
    until(lambda: not any(map(scene.lab.spine.kernel_has, jail.prefixes)), "end of the routes", SECONDS)
    await_state(scene.a, jail, announced=False, reason=LOST)
    scene.a.mobility("release", jail.name)
    scene.await_route(jail, scene.a)
    await_state(scene.a, jail, announced=True)


def test_who_has_lost_and_is_started_again_wins(scene: Scene) -> None:
    jail = scene.jail()
    owned(scene, jail, scene.a)
    owned(scene, jail, scene.b)
    await_state(scene.a, jail, announced=False, reason=LOST)
    scene.a.stop_jail(jail.name)
    owned(scene, jail, scene.a)
    await_state(scene.b, jail, announced=False, reason=LOST)


# -- addresses of two jails


def test_another_jail_s_address_is_refused(scene: Scene) -> None:
    jail = scene.jail(hosts=[scene.a])
    other = Jail(f"{jail.name}x", jail.addresses)
    scene.define(other, hosts=[scene.b])
    owned(scene, jail, scene.a)
    scene.lab.spine.fib.changes.clear()
    scene.b.start_jail(other.name)
    await_state(scene.b, other, announced=False, reason="is another jail's")
    await_state(scene.a, jail, announced=True)
    scene.await_route(jail, scene.a)
    assert not scene.lab.spine.fib.changes
    # the first one goes, and the address is free
    scene.a.stop_jail(jail.name)
    scene.await_route(other, scene.b)


def test_two_names_of_one_identity_are_one_jail(scene: Scene) -> None:
    same = 'identity = "shop.example"\n'
    jail = scene.jail(hosts=[scene.a], more=same)
    other = Jail(f"{jail.name}x", jail.addresses)
    scene.define(other, more=same, hosts=[scene.b])
    owned(scene, jail, scene.a)
    owned(scene, other, scene.b)
    await_state(scene.a, jail, announced=False, reason=LOST)


def test_two_jails_that_share_one_of_several_addresses(scene: Scene) -> None:
    jail = scene.jail(count=2, hosts=[scene.a])
    shared, own = jail.addresses[1], scene.jail(hosts=[scene.b])
    other = Jail(f"{jail.name}x", (shared, *own.addresses))
    scene.define(other, hosts=[scene.b])
    owned(scene, jail, scene.a)
    scene.b.start_jail(other.name)
    scene.await_route(own, scene.b)
    says = status(scene.b, other.name)
    assert f"{shared}/32 is another jail's" in says["reason"]
    scene.await_route(jail, scene.a)
    await_state(scene.a, jail, announced=True)


def test_an_anycast_jail_is_announced_by_all(scene: Scene) -> None:
    jail = scene.jail(more='[announce]\nownership = "anycast"\n')
    for host in (scene.a, scene.b):
        host.start_jail(jail.name)
        await_state(host, jail, announced=True)
    until(lambda: all(scene.paths(prefix) == 2 for prefix in jail.prefixes), "both routes", SECONDS)
    assert str(DEFAULT_ADMINISTRATOR) not in scene.lab.spine.birdc(f"show route all for {jail.prefixes[0]}")
    for host in (scene.a, scene.b):
        assert status(host, jail.name)["announced"]
    assert all(scene.lab.client.ping(address) for address in jail.addresses)


# -- sequences


def foreign(scene: Scene, jail: Jail, sequence: int, *, identity: str = "") -> None:
    """Have the third host claim a jail with a sequence."""
    claimant = int(ipaddress.ip_address(scene.stranger.router_id))
    claim = Claim(sequence, ownership.identity_number(identity or jail.name), claimant)
    attributes = Attributes(
        large_communities=ownership.communities(claim, DEFAULT_ADMINISTRATOR), med=ownership.med(sequence)
    )
    scene.foreign += jail.prefixes
    scene.speaker.want(*jail.prefixes, attributes=attributes)
    scene.await_route(jail, scene.stranger)


def test_the_last_sequence(scene: Scene) -> None:
    jail = scene.jail()
    foreign(scene, jail, LAST - RESERVE - 1)
    owned(scene, jail, scene.a)
    assert claimed(scene.a, jail) == LAST - RESERVE
    scene.speaker.unwant(*jail.prefixes)
    scene.b.start_jail(jail.name)
    await_state(scene.b, jail, announced=False, reason=f"{LAST} is the last there is")
    scene.await_route(jail, scene.a)
    # the way out that it names
    scene.a.stop_jail(jail.name)
    until(lambda: scene.paths(jail.prefixes[0]) == 0, "end of the last claim", SECONDS)
    scene.b.mobility("release", jail.name)
    scene.await_route(jail, scene.b)


def test_a_host_that_lost_its_database_learns_the_sequence_from_the_fabric(scene: Scene) -> None:
    jail = scene.jail()
    foreign(scene, jail, 3_000_000_000)
    owned(scene, jail, scene.a)
    scene.speaker.unwant(*jail.prefixes)
    assert claimed(scene.a, jail) == 3_000_000_001
    forget(scene.b)
    owned(scene, jail, scene.b)
    assert claimed(scene.b, jail) == 3_000_000_002
    await_state(scene.a, jail, announced=False, reason=LOST)


def test_the_owner_loses_its_database(scene: Scene) -> None:
    jail = scene.jail()
    owned(scene, jail, scene.a)
    before = claimed(scene.a, jail)
    changes = scene.lab.spine.fib.changes
    changes.clear()
    forget(scene.a)
    await_state(scene.a, jail, announced=True)
    assert claimed(scene.a, jail) >= before
    scene.await_route(jail, scene.a)
    assert not gaps(changes, jail, scene.via(scene.a))


def forget(host: Host) -> None:
    """Take a host's database away while its agent is killed."""
    host.stop_agent(signal.SIGKILL)
    for path in (host.folder / "state").glob("mobility.sqlite*"):
        path.unlink()
    host.start_agent()
    until(lambda: status_of_host(host) is not None, "answer", SECONDS)


def test_too_many_moves_freeze_a_jail_until_it_is_released(scene: Scene) -> None:
    jail = scene.jail()
    frozen: list[Host] = []
    for host in itertools.islice(itertools.cycle((scene.a, scene.b)), 2 * MOVES["moves"]):
        if status(host, jail.name)["running"]:
            host.stop_jail(jail.name)
        host.start_jail(jail.name)
        until(
            lambda host=host: status(host, jail.name)["announced"] or "is frozen" in status(host, jail.name)["reason"],  # type: ignore[misc]
            "claim or frost",
            SECONDS,
        )
        if not status(host, jail.name)["announced"]:
            frozen.append(host)
            break
    (host,) = frozen
    owner = scene.b if host is scene.a else scene.a
    scene.await_route(jail, owner)
    await_state(owner, jail, announced=True)
    host.mobility("release", jail.name)
    scene.await_route(jail, host)
    await_state(owner, jail, announced=False, reason=LOST)


# -- a fabric that does not compare MED


def test_doctor_knows_a_fabric_that_does_not_compare_med(scene: Scene) -> None:
    if scene.kind == TWO:
        pytest.skip("there MED is compared nowhere, and need not be")
    jail = scene.jail()
    deployed(scene.lab, {"  med metric on;\n": ""})
    try:
        owned(scene, jail, scene.a)
        scene.b.start_jail(jail.name)
        until(lambda: claimed(scene.b, jail) > claimed(scene.a, jail), "newer claim", SECONDS)
        # the router goes on with the older one, and shows it to the newer one's host only
        scene.await_route(jail, scene.a)

        def warned() -> bool:
            told = scene.b.mobility("doctor", check=False).stdout
            return any("MED" in line and "WARN" in line for line in told.splitlines())

        until(warned, "a warning of doctor's", 2 * SECONDS)
    finally:
        deployed(scene.lab)
