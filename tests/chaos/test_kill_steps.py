"""The agent is killed outright at each of its steps, and the next one brings the jail to where it should stand."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Iterator

import pytest

from tests.chaos.conftest import SOAK
from tests.lab.faults import (
    KILLS,
    Faults,
    await_clean,
    await_death,
    eventually,
    first_to_end,
    new_agent,
    put_event,
    remembered,
    running,
    spawn_agent,
)
from tests.lab.invariants import status
from tests.lab.topology import Host, Lab

JAIL = "web1"
ADDRESSES = ("198.51.100.7", "2001:db8:7::7")
SERVICE = "198.51.100.96/28"
"""What it serves besides: its reject in the jail, and the host's route to it, are steps like others."""
QUICK = {"look_every": 0.5, "reject_for": 0.2, "settle_for": 3.0}
JAIL_SECONDS = 30
MODES = tuple(KILLS)
LEAST_STEPS = 4
"""A stop takes at least two routes to delete and two to reject."""
RANDOM_KILLS = 100
SHORT_SECONDS, SOAK_SECONDS = 240, 1800
TOLD_BEFORE = 60.0
"""Seconds since what is told again really happened."""
LATEST_KILL = 0.4
"""Seconds from the beginning of a start or a stop within which a random kill comes: both take less."""

pytestmark = pytest.mark.timeout(SOAK_SECONDS if SOAK else SHORT_SECONDS)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """One host for all steps, whose commands can be made to fail."""
    with Lab(hosts=1) as whole:
        yield whole


@pytest.fixture(scope="module")
def faults(lab: Lab) -> Faults:
    (host,) = lab.hosts
    faults = Faults(host)
    # it starts and stops far more often than a jail should
    host.configure(agent=QUICK, paths={"commands": faults.commands}, damping={"enabled": False})
    host.start_agent()
    host.start_exabgp()
    lab.await_session(host)
    host.define_jail(JAIL, ())
    granted = {"addresses": list(ADDRESSES), "services": [SERVICE]}
    lines = [f"{key} = {json.dumps(value)}\n" for key, value in granted.items()]
    (host.jails_d / f"{JAIL}.toml").write_text("".join(lines))
    return faults


def began(host: Host, lab: Lab, faults: Faults) -> None:
    """Begin from nothing, whatever the step before has left."""
    faults.clear()
    new_agent(host)
    host.run(["jail", "-R", JAIL], check=False)
    await_clean(lab, host, {})


def jail(host: Host, verb: str, faults: Faults, number: int, how: str, *, looks: bool = False) -> None:
    """Start or stop the jail, have the agent killed at one of its commands meanwhile, and start another agent."""
    faults.kill_at(number, how, looks=looks)
    process = host.popen(["jail", "-f", host.jail_conf, verb, JAIL])
    await_death(host)
    new_agent(host)
    assert process.wait(JAIL_SECONDS) == 0


def started(lab: Lab, host: Host) -> None:
    """The jail must be reachable, and said to be."""
    await_clean(lab, host, {JAIL: (*ADDRESSES, SERVICE)})
    assert all(lab.client.ping(address) for address in ADDRESSES)
    # a new agent waits for the bridge to find it
    eventually(lambda: bool(status(host, JAIL)["announced"]), f"word that {JAIL} is announced", host)


def stopped(lab: Lab, host: Host) -> None:
    """Nothing must be left of it."""
    await_clean(lab, host, {})


def forgotten(host: Host) -> None:
    """Nor be remembered."""
    eventually(lambda: JAIL not in remembered(host), f"end of what is remembered of {JAIL}", host)


def counted(lab: Lab, host: Host, faults: Faults, *, looks: bool) -> tuple[int, int]:
    """Return how many commands a start and a stop take, looks included or not."""
    faults.count(looks=looks)
    host.start_jail(JAIL)
    started(lab, host)
    at_start = len(faults.steps())
    faults.count(looks=looks)
    host.stop_jail(JAIL)
    stopped(lab, host)
    at_stop = len(faults.steps())
    faults.clear()
    return at_start, at_stop


def cycle(
    lab: Lab, faults: Faults, start: tuple[int, str] | None, stop: tuple[int, str] | None, *, looks: bool
) -> None:
    """One start and one stop, with a kill at a step of each where one is asked for."""
    (host,) = lab.hosts
    try:
        if start is None:
            host.start_jail(JAIL)
        else:
            jail(host, "-c", faults, *start, looks=looks)
        started(lab, host)
        if stop is None:
            host.stop_jail(JAIL)
        else:
            jail(host, "-r", faults, *stop, looks=looks)
        stopped(lab, host)
    except BaseException as error:
        error.add_note(f"killed at start {start}, at stop {stop} (step, how)")
        raise


def every_step(lab: Lab, faults: Faults, *, looks: bool, turns: int) -> None:
    """Kill the agent once at each step; in each turn the ways of dying are dealt out anew."""
    (host,) = lab.hosts
    began(host, lab, faults)
    at_start, at_stop = counted(lab, host, faults, looks=looks)
    assert at_start > at_stop > LEAST_STEPS
    for turn in range(turns):
        for number in range(1, at_start + 1):
            how = MODES[(number + turn) % len(MODES)]
            stop = (number, how) if number <= at_stop else None
            cycle(lab, faults, (number, how), stop, looks=looks)
    forgotten(host)


def test_killed_at_each_step(lab: Lab, faults: Faults) -> None:
    every_step(lab, faults, looks=False, turns=len(MODES) if SOAK else 1)


@pytest.mark.skipif(not SOAK, reason="a soak: make soak")
def test_killed_at_each_command(lab: Lab, faults: Faults) -> None:
    """The same with every command, looks included: they come in between the spool and the first change."""
    every_step(lab, faults, looks=True, turns=len(MODES))


@pytest.mark.skipif(not SOAK, reason="a soak: make soak")
def test_killed_at_any_moment(lab: Lab, faults: Faults) -> None:
    (host,) = lab.hosts
    began(host, lab, faults)
    seed = int(os.environ.get("MOBILITY_SEED", random.SystemRandom().randrange(1 << 32)))
    chance = random.Random(seed)
    try:
        for _ in range(int(SOAK * RANDOM_KILLS)):
            for verb, at_rest in (("-c", started), ("-r", stopped)):
                process = host.popen(["jail", "-f", host.jail_conf, verb, JAIL])
                time.sleep(chance.uniform(0, LATEST_KILL))  # the moment is the fault, not something to wait for
                new_agent(host)
                assert process.wait(JAIL_SECONDS) == 0
                at_rest(lab, host)
    except BaseException as error:
        error.add_note(f"MOBILITY_SEED={seed}")
        raise


def test_one_command_per_life(lab: Lab, faults: Faults) -> None:
    """Every agent dies after its first command that changes anything; the jail starts and stops all the same."""
    (host,) = lab.hosts
    began(host, lab, faults)
    # a start takes each of its commands; at a stop, what the one before had deleted is not deleted again
    for verb, at_rest, least in (("-c", started, 2 * LEAST_STEPS), ("-r", stopped, len(ADDRESSES))):
        faults.kill_always("after")
        process = host.popen(["jail", "-f", host.jail_conf, verb, JAIL])
        lives = 0
        while first_to_end(running(host).process, process) is not process:
            host.stop_agent(signal.SIGKILL)
            spawn_agent(host)
            lives += 1
        assert process.wait() == 0
        assert lives >= least
        faults.clear()
        new_agent(host)
        at_rest(lab, host)
    forgotten(host)


def test_told_again(lab: Lab, faults: Faults) -> None:
    """An agent killed between an answer and its end is told again, late and out of order; nothing comes of it."""
    (host,) = lab.hosts
    began(host, lab, faults)
    host.start_jail(JAIL)
    started(lab, host)
    lab.spine.fib.changes.clear()
    before = lab.spine.updates(host.session.name)
    at = time.time()
    for phases in (("created", "prestart", "poststart"), ("poststart", "created"), ("prestop", "prestart")):
        for phase in phases:
            put_event(host, JAIL, phase, at - TOLD_BEFORE)
        new_agent(host)
        started(lab, host)
    assert lab.spine.updates(host.session.name) == before
    assert not lab.spine.fib.changes
    host.stop_jail(JAIL)
    stopped(lab, host)
    for phase in ("poststop", "prestop", "poststart"):
        put_event(host, JAIL, phase, at - TOLD_BEFORE)
    stopped(lab, host)
    forgotten(host)
