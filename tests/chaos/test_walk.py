"""A random walk over two hosts and a spine: jails start, stop, move and are killed, and so is everything around them.

What is done in a burst is done without waiting for its effects; after each burst everything must come to rest where it
should. MOBILITY_SEED=N repeats a walk (what overlaps with what still depends on the machine).
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from tests.chaos.conftest import SOAK
from tests.lab.faults import answers, await_agent, await_clean, bridge_of, spawn_agent, status_of_host
from tests.lab.topology import Host, Lab

ADDRESSES = {
    "web1": ("198.51.100.7", "2001:db8:7::7"),
    "web2": ("198.51.100.8", "2001:db8:7::8"),
    "four": ("198.51.100.30",),
    "six": ("2001:db8:7::30",),
}
EXTRA = {"web1": "198.51.100.107", "web2": "198.51.100.108", "four": "198.51.100.130", "six": "198.51.100.131"}
"""What a jail is granted at times, besides. IPv4 only: of a /128 taken from a jail that runs on, the host's neighbour
entry stays until the kernel, or the end of the pair, forgets it."""
QUICK = {"look_every": 1.0, "reject_for": 0.2, "settle_for": 2.0}
ACTIONS_PER_BURST = 5
SHORT_SECONDS = 18.0
SHORT_SEED = 2027
SOAK_SECONDS = 900.0
REST_SECONDS = 240.0
"""For the last burst, and the time that the walk's lab takes."""
PAUSE = 0.15
"""Seconds at most between two actions: enough for the second to find the first half-done."""
JAIL_SECONDS = 40


class Walk:
    """What is where, as far as was asked for, and the actions that change it."""

    def __init__(self, lab: Lab, chance: random.Random) -> None:
        self.lab = lab
        self.chance = chance
        self.granted = {name: list(addresses) for name, addresses in ADDRESSES.items()}
        self.where: dict[str, Host | None] = dict.fromkeys(ADDRESSES)
        self.under_way: dict[str, subprocess.Popen[str]] = {}
        self.untold: set[str] = set()
        """Hosts whose bridge is new: until its agent has told it the peer's OPEN, no other agent could learn it."""
        self.story: list[str] = []
        for host in lab.hosts:
            # jails come and go all the time here, and from host to host
            host.configure(agent=QUICK, damping={"enabled": False}, ownership={"moves": 1000})
            host.start_agent()
            host.start_exabgp()
        for host in lab.hosts:
            lab.await_session(host)
            for name, addresses in ADDRESSES.items():
                host.define_jail(name, addresses)

    def burst(self) -> None:
        """Do a few things, hardly waiting in between."""
        actions: list[tuple[Callable[[], None], int]] = [
            (self.turn, 10),
            (self.remove, 2),
            (self.regrant, 2),
            (self.kill_agent, 4),
            (self.kill_exabgp, 1),
            (self.kill_bridge, 1),
            (self.restart_spine, 1),
        ]
        chosen, weights = zip(*actions, strict=True)
        for action in self.chance.choices(chosen, weights, k=ACTIONS_PER_BURST):
            action()
            time.sleep(self.chance.uniform(0, PAUSE))  # not to wait for anything: to hit other moments

    def rest(self) -> None:
        """Bring back what is dead, wait for what is under way, and see that everything is as it should be."""
        for host in self.lab.hosts:
            self.revive(host)
        for name in self.under_way:
            self.finish(name)
        for host in self.lab.hosts:
            self.lab.await_session(host)
        for host in self.lab.hosts:
            jails = {name: self.granted[name] for name, where in self.where.items() if where is host}
            await_clean(self.lab, host, jails)
            for addresses in jails.values():
                for address in addresses:
                    assert self.lab.client.ping(address), f"{address} on {host.name} does not answer"

    # the actions

    def jail(self, host: Host, verb: str, name: str) -> None:
        self.say(f"jail {verb} {name} on {host.name}")
        self.under_way[name] = host.popen(["jail", "-f", host.jail_conf, verb, name], stdout=subprocess.DEVNULL)

    def finish(self, name: str) -> None:
        """Wait for the end of what was begun with a jail."""
        process = self.under_way.get(name)
        if process is not None:
            for host in self.lab.hosts:
                self.revive(host)
            assert process.wait(JAIL_SECONDS) == 0, f"jail {name}: {process.args!r}"

    def turn(self) -> None:
        """Start what stands still, stop what runs: a move is the one after the other."""
        name = self.chance.choice(list(self.where))
        self.finish(name)
        host = self.where[name]
        if host is None:
            host = self.where[name] = self.chance.choice(self.lab.hosts)
            self.jail(host, "-c", name)
        else:
            self.where[name] = None
            self.jail(host, "-r", name)

    def remove(self) -> None:
        """Take a jail away behind everybody's back."""
        name = self.chance.choice(list(self.where))
        host = self.where[name]
        if host is not None:
            self.finish(name)
            self.say(f"jail -R {name} on {host.name}")
            host.run(["jail", "-R", name])
            self.where[name] = None

    def regrant(self) -> None:
        """Give a jail an address more, or take it away again."""
        name = self.chance.choice(list(self.granted))
        addresses = self.granted[name]
        self.say(f"{'take' if EXTRA[name] in addresses else 'grant'} {name} {EXTRA[name]}")
        if EXTRA[name] in addresses:
            addresses.remove(EXTRA[name])
        else:
            addresses.append(EXTRA[name])
        for host in self.lab.hosts:
            host.grant(name, addresses)

    def kill_agent(self) -> None:
        """Kill an agent outright; another starts at once, or when it is needed."""
        host = self.chance.choice(self.lab.hosts)
        if host.agent is not None and (host.name not in self.untold or self.sessions_up(host)):
            self.untold.discard(host.name)
            self.say(f"kill agent on {host.name}")
            host.stop_agent(signal.SIGKILL)
            if self.chance.random() < 0.5:
                self.say(f"start agent on {host.name}")
                spawn_agent(host)

    def sessions_up(self, host: Host) -> bool:
        """Tell whether a host's agent runs, has its bridge, and knows its session to be up."""
        if host.agent is None or not answers(host):
            return False
        sessions = status_of_host(host)["sessions"]
        return bool(sessions) and all(session["state"] == "up" for session in sessions)

    def revive(self, host: Host) -> None:
        """Have an agent run on a host."""
        if host.agent is None:
            self.say(f"start agent on {host.name}")
            spawn_agent(host)
        await_agent(host)

    def kill_exabgp(self) -> None:
        host = self.chance.choice(self.lab.hosts)
        self.say(f"kill ExaBGP on {host.name}")
        host.stop_exabgp(signal.SIGKILL)
        host.start_exabgp()
        self.untold.discard(host.name)

    def kill_bridge(self) -> None:
        host = self.chance.choice(self.lab.hosts)
        bridge = bridge_of(host)
        if bridge is not None and host.name not in self.untold and self.sessions_up(host):
            self.say(f"kill bridge on {host.name}")
            os.kill(bridge, signal.SIGKILL)
            self.untold.add(host.name)

    def restart_spine(self) -> None:
        """In order, so that it forgets its routes, or outright, so that its kernel keeps them."""
        number = self.chance.choice([signal.SIGTERM, signal.SIGKILL])
        self.say(f"{number.name} spine")
        self.lab.spine.stop(number)
        self.lab.spine.start(recover=number == signal.SIGKILL)

    def say(self, what: str) -> None:
        self.story.append(f"{time.monotonic():.3f} {what}")


@pytest.fixture
def lab() -> Iterator[Lab]:
    """Two hosts, a spine, a client."""
    with Lab(hosts=2) as whole:
        yield whole


@pytest.mark.timeout(SOAK * SOAK_SECONDS + REST_SECONDS if SOAK else SHORT_SECONDS + REST_SECONDS)
def test_walk(lab: Lab) -> None:
    seed = int(os.environ.get("MOBILITY_SEED", random.SystemRandom().randrange(1 << 32) if SOAK else SHORT_SEED))
    walk = Walk(lab, random.Random(seed))
    until = time.monotonic() + (SOAK * SOAK_SECONDS if SOAK else SHORT_SECONDS)
    try:
        while time.monotonic() < until:
            walk.say("-- burst")
            walk.burst()
            walk.rest()
    except BaseException as error:
        error.add_note("\n".join([f"MOBILITY_SEED={seed}", *walk.story]))
        raise
