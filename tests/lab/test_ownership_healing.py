"""How an owner lets go, waits and comes back where that was once got wrong: real agents, ExaBGP and BIRD at one router.

The agents look at their hosts hardly ever: what happens here happens because the fabric has told something.
"""

from __future__ import annotations

import ipaddress
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from mobility.bgp import ownership
from mobility.bgp.ownership import DEFAULT_ADMINISTRATOR, Claim
from mobility.model import Attributes
from tests.lab.faults import Faults, Log, await_death, await_hooks, running, status_of_host
from tests.lab.invariants import status
from tests.lab.test_ownership import (
    LOST,
    MOVES,
    ONE,
    SECONDS,
    Jail,
    Scene,
    await_state,
    claimed,
    foreign,
    owned,
    sessions,
)
from tests.lab.topology import ALLOWED, REPOSITORY, Host
from tests.waiting import until

#: Longer than all these tests take.
SELDOM = {"look_every": 600.0, "inside_every": 600.0, "command_timeout": 60.0, "reject_for": 0.2, "settle_for": 3.0}
BROKEN = "addresses = ["


class Calm(Scene):
    """Three hosts at one router, whose two agents do not look by themselves; `faults` are before the commands of host a."""

    def __init__(self) -> None:
        super().__init__(ONE)
        self.faults = Faults(self.a)
        for host in (self.a, self.b):
            host.stop_agent()
            self.configure(host)
            host.start_agent()

    def configure(self, host: Host, allowed: tuple[str, ...] = ALLOWED) -> None:
        """Write a host's mobility.toml."""
        paths = {"commands": self.faults.commands} if host is self.a else {}
        host.configure(agent=SELDOM, ownership=MOVES, paths=paths, host={"allowed": list(allowed)})

    def settle(self) -> None:
        """Bring hosts and fabric back to where a test may begin."""
        self.faults.release()
        for host in (self.a, self.b):
            self.configure(host)
            if host.exabgp is None:
                host.start_exabgp()
            if host.agent is None or not host.agent.running:
                host.start_agent()
            for name in host.run(["jls", "name"]).stdout.split():
                host.run(["jail", "-R", name])
            # it looks for that
            host.mobility("reload")
        super().settle()


@pytest.fixture(scope="module")
def whole() -> Iterator[Calm]:
    """All of it once, so that each test takes little time."""
    scene = Calm()
    yield scene
    scene.close()


@pytest.fixture
def scene(whole: Calm) -> Iterator[Calm]:
    whole.settle()
    try:
        yield whole
    finally:
        print("\n".join(whole.lab.logs()))  # pytest shows it with a failure


def one_of(jail: Jail, family: int = 0) -> Jail:
    """Return a jail with only one of the addresses of another."""
    return Jail(jail.name, (jail.addresses[family],))


def fate(host: Host, jail: Jail) -> str:
    """Return what is the matter with a jail's ownership, as a host says."""
    return str(status(host, jail.name)["ownership"])


def await_gone(scene: Calm, jail: Jail, *, paths: int = 0) -> None:
    """Wait until a jail's routes are so many hosts' only."""
    until(lambda: all(scene.paths(prefix) == paths for prefix in jail.prefixes), f"{paths} routes", SECONDS)


def doctor_says(host: Host, jail: Jail) -> list[str]:
    """Return what the doctor has to say of a jail's ownership."""
    told = host.mobility("doctor", check=False).stdout
    return [line for line in told.splitlines() if f"ownership of {jail.name}" in line]


# -- a jail is ruled on as one


@pytest.mark.parametrize("family", [0, 1])
def test_who_loses_one_address_lets_go_of_all(scene: Calm, family: int) -> None:
    jail = scene.jail(count=2)
    owned(scene, jail, scene.a)
    taken = one_of(jail, family)
    foreign(scene, taken, claimed(scene.a, jail) + 1)
    until(lambda: not any(scene.paths(prefix) for prefix in jail.prefixes if prefix not in taken.prefixes), "the rest")
    await_gone(scene, taken, paths=1)
    says = await_state(scene.a, jail, announced=False, reason=LOST)
    assert (says["ownership"], says["running"]) == ("lost", True)
    # also when the newer one is gone: this is the older copy
    scene.speaker.unwant(*taken.prefixes)
    await_gone(scene, jail)
    await_state(scene.a, jail, announced=False, reason=LOST)


def test_an_address_in_conflict_is_announced_once_the_other_jail_is_gone(scene: Calm) -> None:
    jail = scene.jail()
    other, rest = one_of(jail), one_of(jail, 1)
    foreign(scene, other, 7, identity=f"{jail.name}x")
    scene.a.start_jail(jail.name)
    scene.await_route(rest, scene.a)
    until(lambda: fate(scene.a, jail) == "conflict", "conflict", SECONDS)
    (line,) = doctor_says(scene.a, jail)
    assert "FAIL" in line
    # the passes that follow rule on all of it, too
    scene.a.mobility("handoff", jail.name)
    scene.a.mobility("handoff", "--cancel", jail.name)
    says = status(scene.a, jail.name)
    assert (says["ownership"], "is another jail's" in says["reason"]) == ("conflict", True)
    scene.await_route(other, scene.stranger)
    happened = json.loads(scene.a.mobility("events", "--json", jail.name).stdout)["events"]
    assert [each["what"] for each in happened].count("conflict") == 1
    before = claimed(scene.a, jail)
    scene.speaker.unwant(*other.prefixes)
    scene.await_route(jail, scene.a)
    assert (fate(scene.a, jail), claimed(scene.a, jail)) == ("held", before)


def test_a_jail_that_is_all_in_conflict_is_announced_once_the_other_is_gone(scene: Calm) -> None:
    jail = scene.jail()
    foreign(scene, jail, 7, identity=f"{jail.name}x")
    scene.a.start_jail(jail.name)
    await_state(scene.a, jail, announced=False, reason="is another jail's")
    scene.speaker.unwant(*jail.prefixes)
    scene.await_route(jail, scene.a)


# -- a host that hears nothing


@contextmanager
def deaf(scene: Calm, host: Host) -> Iterator[None]:
    """Kill a host's ExaBGP, which tells nobody of it, and start it again."""
    host.stop_exabgp(signal.SIGKILL)
    until(lambda: not status_of_host(host)["bridge"], "no bridge", SECONDS)
    yield
    host.start_exabgp()
    scene.lab.await_session(host)
    until(lambda: any(session["state"] == "up" for session in sessions(host)), "a session", SECONDS)


def expecting(host: Host, jail: Jail, within: float) -> subprocess.Popen[str]:
    """Begin to wait on a host until a jail may be started there."""
    words = [sys.executable, "-m", "mobility", "expect", "--config", host.config]
    words += ["--within", str(within), "--json", jail.name]
    return host.popen(list(map(str, words)), cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_who_hears_nothing_is_not_told_to_start_a_jail(scene: Calm) -> None:
    jail = scene.jail()
    owned(scene, jail, scene.a)
    until(lambda: status(scene.b, jail.name)["owner"] == scene.a.router_id, "its claim at host b", SECONDS)
    before, after = expecting(scene.b, jail, 60), None
    try:
        with deaf(scene, scene.b):
            # asked anew, after the bridge has gone
            done = scene.b.mobility("expect", "--within", "1", jail.name, check=False)
            assert done.returncode == 1, done
            after = expecting(scene.b, jail, 60)
        # neither while it was away, nor as it came back and had told nothing yet
        assert (before.poll(), after.poll()) == (None, None)
        sequence = claimed(scene.a, jail)
        scene.a.stop_jail(jail.name)
        for waiting in (before, after):
            said, complaint = waiting.communicate(timeout=SECONDS)
            assert waiting.returncode == 0, complaint
            assert json.loads(said) == {"name": jail.name, "from": scene.a.router_id, "sequence": sequence}
    finally:
        for waiting in filter(None, (before, after)):
            waiting.kill()
            waiting.wait()


def test_a_release_of_an_owner_whose_bridge_is_away_changes_nothing(scene: Calm) -> None:
    jail = scene.jail()
    owned(scene, jail, scene.a)
    sequence = claimed(scene.a, jail)
    with deaf(scene, scene.a):
        scene.a.mobility("release", jail.name)
        says = status(scene.a, jail.name)
        assert (says["sequence"], says["ownership"]) == (sequence, "held")
    scene.await_route(jail, scene.a)
    await_state(scene.a, jail, announced=True)
    assert claimed(scene.a, jail) == sequence


# -- files that are broken


@pytest.mark.parametrize("again", [False, True], ids=["running", "restarted"])
def test_a_jail_with_a_broken_file_still_lets_go(scene: Calm, again: bool) -> None:
    jail = scene.jail()
    owned(scene, jail, scene.a)
    sequence = claimed(scene.a, jail)
    good = (scene.a.jails_d / f"{jail.name}.toml").read_text()
    (scene.a.jails_d / f"{jail.name}.toml").write_text(BROKEN)
    try:
        until(lambda: f"{jail.name}.toml" in status(scene.a, jail.name)["reason"], "the file's problem", SECONDS)
        if again:
            scene.a.stop_agent()
            scene.a.start_agent()
        # it keeps what it has
        await_state(scene.a, jail, announced=True, reason=f"{jail.name}.toml")
        scene.await_route(jail, scene.a)
        foreign(scene, jail, sequence + 1)
        await_gone(scene, jail, paths=1)
        until(lambda: fate(scene.a, jail) == "lost", "that it is lost", SECONDS)
    finally:
        (scene.a.jails_d / f"{jail.name}.toml").write_text(good)
    await_state(scene.a, jail, announced=False, reason=LOST)


# -- one jail's trouble


def test_a_jail_that_can_not_be_reconsidered_keeps_no_other_from_letting_go(scene: Calm) -> None:
    """Its address is not allowed any more while it waits for a command that hangs, and another host claims it meanwhile."""
    others = [scene.jail() for _ in range(3)]
    jail = scene.jail(count=2)
    first, second, *_ = jail.addresses
    for each in (jail, *others):
        owned(scene, each, scene.a)
    sequences = {each.name: claimed(scene.a, each) for each in (jail, *others)}
    scene.faults.hang("jexec *")
    log = Log(scene.a)
    # it is to have one address less: its worker is busy with that from now on
    scene.a.grant(jail.name, [each for each in jail.addresses if each != second])
    scene.faults.await_hung()
    await_gone(scene, one_of(jail, 1))
    without = ipaddress.IPv4Network("198.51.100.0/24").address_exclude(ipaddress.IPv4Network(f"{first}/32"))
    scene.configure(scene.a, (*map(str, without), "2001:db8:7::/64"))
    scene.a.mobility("reload", check=False)
    # one of its own claims that it does not know is claimed over, and that can not be told; the others are lost
    for each in (jail, *others):
        scene.foreign += each.prefixes
        host = scene.a if each is jail else scene.stranger
        prefixes = jail.prefixes[2:] if each is jail else each.prefixes
        claim = Claim(
            sequences[each.name] + 1,
            ownership.identity_number(each.name),
            int(ipaddress.ip_address(host.router_id)),
        )
        large = ownership.communities(claim, DEFAULT_ADMINISTRATOR)
        attributes = Attributes(large_communities=large, med=ownership.med(claim.sequence))
        scene.speaker.want(*prefixes, attributes=attributes)
    for each in others:
        until(lambda each=each: fate(scene.a, each) == "lost", f"that {each.name} is lost", SECONDS)  # type: ignore[misc]
        await_gone(scene, each, paths=1)
    log.wait("unexpected error")
    scene.faults.release()
    until(lambda: status(scene.a, jail.name)["announced"], "the rest of it", SECONDS)


# -- incarnations


def test_a_jail_restarted_while_the_agent_was_away_claims_anew(scene: Calm) -> None:
    """ExaBGP's book still has the claim of the one before it, which another host has claimed over meanwhile."""
    jail = scene.jail()
    owned(scene, jail, scene.a)
    sequence = claimed(scene.a, jail)
    scene.a.stop_agent()
    scene.a.run(["jail", "-R", jail.name])
    foreign(scene, jail, sequence + 1)
    # without an agent a hook would refuse the start
    scene.a.define_jail(jail.name, jail.addresses, hooks=False)
    scene.a.start_jail(jail.name)
    scene.a.start_agent()
    scene.await_route(jail, scene.a)
    await_state(scene.a, jail, announced=True)
    assert claimed(scene.a, jail) == sequence + 2


def test_an_agent_killed_before_a_start_is_over_claims_it_no_second_time(scene: Calm) -> None:
    """A host that has claimed it meanwhile would lose it to the older copy."""
    for jail in [scene.jail() for _ in range(4)]:  # one of two is killed before it has looked whether the jail is there
        scene.a.start_jail(jail.name)
        scene.await_route(jail, scene.a)
        running(scene.a).process.kill()
        await_death(scene.a)
        scene.a.start_agent()
        await_state(scene.a, jail, announced=True)
        await_hooks(scene.a)
        told = json.loads(scene.a.mobility("events", jail.name, "--json").stdout)["events"]
        assert [event["what"] for event in told].count("claimed") == 1


# -- what is as it should be stays so


def test_a_release_of_a_healthy_owner_sends_nothing(scene: Calm) -> None:
    jail, after = scene.jail(), scene.jail()
    # above what a host would claim that knows of none
    foreign(scene, jail, 3_000_000_000)
    owned(scene, jail, scene.a)
    scene.speaker.unwant(*jail.prefixes)
    await_gone(scene, jail, paths=1)
    sequence = claimed(scene.a, jail)
    before = scene.lab.spine.updates(scene.a.session.name)
    scene.a.mobility("release", jail.name)
    # what comes after it on the session comes alone
    owned(scene, after, scene.a)
    now = scene.lab.spine.updates(scene.a.session.name)
    assert (now.updates - before.updates, now.withdraws - before.withdraws) == (len(after.prefixes), 0)
    assert (claimed(scene.a, jail), fate(scene.a, jail)) == (sequence, "held")


def test_a_reload_that_changes_nothing_asks_for_no_jail(scene: Calm) -> None:
    jails = [scene.jail() for _ in range(3)]
    for jail in jails:
        owned(scene, jail, scene.a)
    scene.faults.count(looks=True)
    before = looked_at(scene.a)
    assert scene.a.mobility("reload").stdout == f"{scene.a.config}: nothing has changed\n"
    until(lambda: looked_at(scene.a) > before, "the look that it makes", SECONDS)
    assert not [line for line in scene.faults.steps() for jail in jails if jail.name in line]
    assert len(scene.faults.steps()) < 2 * len(jails)
    assert all(status(scene.a, jail.name)["announced"] for jail in jails)


def looked_at(host: Host) -> float:
    """Return when a host's agent has looked at it last."""
    return float(status_of_host(host)["looked_at"])
