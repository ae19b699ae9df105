"""What an operator sees of a jail's life, with a real agent: explained at each stop, followed, and looked up afterwards."""

from __future__ import annotations

import json
import sys
from typing import Any

from tests.lab.fabric import deployed
from tests.lab.faults import running
from tests.lab.invariants import await_announced
from tests.lab.topology import REPOSITORY, Host, Lab
from tests.terminal import Terminal
from tests.waiting import until

PREFIXES = ("198.51.100.7/32", "2001:db8:7::7/128")
QUICK = {"look_every": 1.0, "reject_for": 0.2, "settle_for": 3.0, "drain_for": 0.1}
#: One flap suppresses for longer than any test.
STRICT = {"penalty": 1000, "suppress": 1001, "reuse": 900, "half_life": 3600.0, "maximum": 86400.0}
CHECK = '[[check]]\nkind = "tcp"\nport = 8080\naddress = "198.51.100.7"\ninterval = 1\nfall = 1\n'


def words(host: Host, *command: str) -> list[str]:
    name, *others = command
    return [*host.prefix, sys.executable, "-m", "mobility", name, "--config", str(host.config), *others]


def explain(host: Host, jail: str = "web1") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(host.mobility("explain", "--json", jail, check=False).stdout)
    return found


def await_sentence(host: Host, *parts: str, jail: str = "web1") -> dict[str, Any]:
    """Wait until a jail's sentence has these words, and return its whole story."""
    found: list[dict[str, Any]] = []

    def said() -> bool:
        found[:] = [explain(host, jail)]
        return all(part in found[0]["sentence"] for part in parts)

    try:
        until(said, "sentence", 20.0)
    except AssertionError:
        agent = host.agent.tail() if host.agent else ""
        raise AssertionError(f"{parts} not in {found[0]['sentence']!r}\n{agent}") from None
    return found[0]


def test_a_jails_life_is_explained(lab: Lab) -> None:
    deployed(lab)
    lab.start(agent=QUICK, damping=STRICT)
    a, b = lab.hosts
    assert "is not known here" in explain(a)["sentence"]
    assert a.mobility("explain", "web1", check=False).returncode == 1
    for host in lab.hosts:
        host.define_jail("web1", PREFIXES)
    await_sentence(a, "does not run here, and no other host is seen to announce it")
    a.define_jail("wild", [])
    a.start_jail("wild", check=False)
    until(
        lambda: "wild" in explain(a, "wild")["name"] and explain(a, "wild")["observed"]["running"], "a jail of nobody's"
    )
    assert "is not granted any address" in explain(a, "wild")["sentence"]

    a.start_jail("web1")
    await_announced(a, "web1")
    story = explain(a)
    assert story["sentence"] == "web1 runs here and is announced to spine, as it should be"
    assert story["observed"]["inside"] == "right"
    assert story["plan"] == {"commands": [], "problem": ""}
    assert [each[0]["interface"] for each in story["observed"]["routes"].values()] == ["mob-web1", "mob-web1"]
    assert "check reach 198.51.100.7: passes" in a.mobility("status", "web1").stdout
    await_sentence(b, f"{a.router_id} announces it, with sequence {story['ownership']['sequence']}")

    a.mobility("drain", "web1")
    assert "is drained by name since" in explain(a)["sentence"]
    a.mobility("drain")
    assert explain(a)["next"] == "mobility undrain"
    a.mobility("undrain")
    await_announced(a, "web1")

    file = a.jails_d / "web1.toml"
    good = file.read_text()
    file.write_text(good + CHECK)
    story = await_sentence(a, "is not ready: its check tcp port 8080 at 198.51.100.7 says Connection refused")
    assert story["next"] == "does it listen there? jexec web1 sockstat -l"
    file.write_text(good)
    # the loss was a flap, and two are too many here
    a.stop_jail("web1")
    a.start_jail("web1")
    story = await_sentence(a, "is suppressed: its routes came and went too often")
    assert story["damping"]["until"] > story["damping"]["since"]
    a.mobility("release", "web1")
    await_announced(a, "web1")

    b.start_jail("web1")
    await_announced(b, "web1")
    await_sentence(a, f"owned elsewhere: {b.router_id} has claimed it")
    b.stop_jail("web1")

    a.mobility("release", "web1")
    await_announced(a, "web1")

    a.define_jail("twin", PREFIXES[:1])
    until(lambda: explain(a, "twin")["config"]["held_by"] == ["web1"], "that web1 has its address")
    assert a.start_jail("twin", check=False).returncode != 0
    await_sentence(a, "its last start was refused", "198.51.100.7 is held by jail web1", jail="twin")

    a.stop_exabgp()
    await_sentence(a, "ExaBGP is not connected to the agent")


def test_events_are_followed_across_a_restart_and_looked_up_afterwards(lab: Lab) -> None:
    lab.start(agent=QUICK)
    a, _ = lab.hosts
    a.define_jail("web1", PREFIXES)
    with Terminal(words(a, "watch"), columns=120, environment=a.ground.environment(), cwd=REPOSITORY) as terminal:
        terminal.until(lambda: "following" in terminal.picture.text, "that it follows")
        a.start_jail("web1")
        terminal.until(lambda: "web1                      announced" in terminal.picture.text, "the start")
        a.stop_agent()
        terminal.until(lambda: "the agent is away" in terminal.picture.text, "the agent's end")
        pid = a.start_agent().process.pid
        assert running(a).process.pid == pid
        terminal.until(lambda: f"the agent is back (pid {pid})" in terminal.picture.text, "the agent's start")
        a.stop_jail("web1")
        terminal.until(lambda: "web1                      poststop" in terminal.picture.text, "the stop")
        assert terminal.interrupt() == 0
        told = [line.split()[2:4] for line in terminal.picture.text.splitlines() if "Z  " in line]
    assert ["-", "agent"] in told
    assert [
        what for jail, what in told if jail == "web1" and what in ("prestart", "announced", "flapped", "poststop")
    ] == [*("prestart", "announced", "flapped", "poststop")]
    a.stop_agent()
    found = a.mobility("history", "web1", "--since", "10m", "--what", "announced,flapped")
    assert [line.split()[3] for line in found.stdout.splitlines()] == ["announced", "flapped"]
    assert "the agent does not run" in found.stderr
    (busy,) = json.loads(a.mobility("top", "--json").stdout)["jails"]
    assert (busy["jail"], busy["flaps"], busy["starts"], busy["announced"]) == ("web1", 1, 1, 1)
    # and the next agent writes where this was read
    a.start_agent()
    assert a.mobility("history", "-n", "1", "--what", "agent started").stdout.endswith(
        f"pid {running(a).process.pid}\n"
    )
