"""What an operator does while all runs: hand a jail over, release one that is kept back, reload mobility.toml."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from typing import Any

import pytest

from tests.lab.fabric import deployed
from tests.lab.faults import Log, eventually, metric, running
from tests.lab.invariants import await_announced, status
from tests.lab.topology import ALLOWED, REPOSITORY, Host, Lab
from tests.waiting import until

IPV4, IPV6 = "198.51.100.7", "2001:db8:7::7"
PREFIXES = (f"{IPV4}/32", f"{IPV6}/128")
QUICK = {"look_every": 1.0, "reject_for": 0.2, "settle_for": 3.0}
#: Two flaps suppress, also on a machine so busy that they are ten seconds apart, and are forgiven within eight.
SOON = {"suppress": 1100, "reuse": 1000, "half_life": 8.0, "maximum": 16.0}
#: Two flaps suppress for longer than any test.
LONG = {"suppress": 1900, "reuse": 1000, "half_life": 3600.0, "maximum": 86400.0}
LEAVING = "(65535,0)"


def at_spine(lab: Lab, prefix: str = PREFIXES[1]) -> str:
    """Return all that the spine's BIRD says of its routes to a prefix."""
    return lab.spine.birdc(f"show route all for {prefix}")


def since(lab: Lab, host: Host) -> str:
    """Return since when the spine's session to a host has been as it is."""
    found = re.search(
        rf"^{host.session.name}\s+\S+\s+\S+\s+\S+\s+(\S+)", lab.spine.birdc("show protocols"), re.MULTILINE
    )
    assert found is not None
    return found[1]


def gone(lab: Lab) -> None:
    for prefix in PREFIXES:
        lab.spine.fib.wait(prefix, gone=True)


@pytest.fixture
def ready(lab: Lab) -> Lab:
    """Both hosts up, behind a spine that is set up as deploy/fabric says."""
    deployed(lab)
    lab.start(agent=QUICK)
    for host in lab.hosts:
        host.define_jail("web1", PREFIXES)
    return lab


def test_a_jail_is_handed_over(ready: Lab) -> None:
    a, b = ready.hosts
    a.start_jail("web1")
    sequence = await_announced(a, "web1")["sequence"]
    words = [sys.executable, "-m", "mobility", "expect", "--config", b.config, "--within", "60", "--json", "web1"]
    waiting = b.popen(list(map(str, words)), cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    told = json.loads(a.mobility("handoff", "--json", "web1").stdout)
    assert (told["handing"], told["sequences"], told["acknowledged"]) == (["web1"], {"web1": sequence}, True)
    until(lambda: LEAVING in at_spine(ready), "GRACEFUL_SHUTDOWN at the spine")
    assert status(a, "web1")["handing"]
    assert waiting.poll() is None
    a.stop_jail("web1")
    said, complaint = waiting.communicate(timeout=30)
    assert waiting.returncode == 0, complaint
    assert json.loads(said) == {"name": "web1", "from": a.router_id, "sequence": sequence}
    b.start_jail("web1")
    for prefix in PREFIXES:
        ready.spine.fib.wait(prefix, via=b.address)
    assert await_announced(b, "web1")["sequence"] > sequence
    until(lambda: LEAVING not in at_spine(ready), "no GRACEFUL_SHUTDOWN at the spine")
    # it is over, and the next start here is an ordinary one
    assert not status(a, "web1")["handing"]


def test_a_handoff_survives_the_agent_and_can_be_taken_back(ready: Lab) -> None:
    a, _ = ready.hosts
    a.start_jail("web1")
    await_announced(a, "web1")
    a.mobility("handoff", "web1")
    until(lambda: LEAVING in at_spine(ready), "GRACEFUL_SHUTDOWN at the spine")
    before = ready.spine.updates(a.session.name)
    a.stop_agent()
    a.start_agent()
    until(lambda: status(a, "web1")["announced"], "announced again")
    assert ready.spine.updates(a.session.name) == before
    a.mobility("handoff", "--cancel", "web1")
    until(lambda: LEAVING not in at_spine(ready), "no GRACEFUL_SHUTDOWN at the spine")
    assert not status(a, "web1")["handing"]


def test_what_can_not_be_handed_over_or_expected_is_refused(ready: Lab) -> None:
    a, b = ready.hosts
    for host, words, why in (
        (a, ("handoff", "web1"), "is not announced here"),
        (a, ("handoff", "nosuch"), "no such jail here"),
        (a, ("expect", "nosuch"), "no such jail here"),
    ):
        done = host.mobility(*words, check=False)
        assert (done.returncode, why in done.stderr) == (1, True), done.stderr
    # nobody has it: start it
    assert json.loads(b.mobility("expect", "--json", "web1").stdout)["from"] is None
    a.start_jail("web1")
    await_announced(a, "web1")
    done = a.mobility("expect", "web1", check=False)
    assert (done.returncode, "runs here already" in done.stderr) == (1, True)
    until(lambda: status(b, "web1")["owner"] == a.router_id, "the claim at the other host")
    done = b.mobility("expect", "--within", "1", "web1", check=False)
    assert done.returncode == 1
    assert f"{a.router_id} still announces jail web1" in done.stderr
    assert "mobility handoff web1" in done.stderr


def test_a_jail_that_flaps_is_suppressed_and_comes_back(lab: Lab) -> None:
    lab.start(agent=QUICK, damping=SOON)
    a, _ = lab.hosts
    a.define_jail("web1", PREFIXES)
    _flap(lab, a, 2)
    a.start_jail("web1")
    line = _not_announced(a)
    assert line["reason"].startswith("suppressed: its routes came and went too often")
    assert line["penalty"] > SOON["reuse"]
    gone(lab)
    # a label that does not change with each figure
    eventually(lambda: metric(a, 'mobility_jail_not_announced{jail="web1",reason="suppressed"}') == 1, "metric", a)
    assert metric(a, "mobility_jails_suppressed") == 1
    assert metric(a, "mobility_jail_flaps_total") == 2
    # nobody does anything: its time comes
    for prefix in PREFIXES:
        lab.spine.fib.wait(prefix, via=a.address, timeout=3 * SOON["maximum"])


def test_a_suppressed_jail_is_released(lab: Lab) -> None:
    lab.start(agent=QUICK, damping=LONG)
    a, _ = lab.hosts
    a.define_jail("web1", PREFIXES)
    _flap(lab, a, 2)
    a.start_jail("web1")
    assert "mobility release web1" in _not_announced(a)["reason"]
    # neither a restart of the agent nor one of the jail makes it forget
    a.stop_agent()
    a.start_agent()
    assert _not_announced(a)["penalty"] > LONG["reuse"]
    a.stop_jail("web1")
    a.start_jail("web1")
    assert _not_announced(a)["penalty"] > 2 * LONG["reuse"]
    a.mobility("release", "web1")
    for prefix in PREFIXES:
        lab.spine.fib.wait(prefix, via=a.address)
    assert status(a, "web1")["penalty"] == 0.0


def test_drains_are_no_flaps(lab: Lab) -> None:
    lab.start(agent={**QUICK, "drain_for": 0.1}, damping=LONG)
    a, _ = lab.hosts
    a.define_jail("web1", PREFIXES)
    a.start_jail("web1")
    for _ in range(4):
        a.mobility("drain", "web1")
        a.mobility("undrain", "web1")
    assert await_announced(a, "web1")["penalty"] == 0.0


def test_a_reload_takes_up_prefixes_and_groups_and_leaves_sessions_alone(ready: Lab) -> None:
    a, _ = ready.hosts
    a.start_jail("web1")
    a.define_jail("web2", ["198.51.100.8", "2001:db8:7::8"])
    (a.jails_d / "web2.toml").write_text('addresses = ["192.0.2.130"]\n')
    a.start_jail("web2", check=False)
    await_announced(a, "web1")
    up, before = since(ready, a), ready.spine.updates(a.session.name)
    assert a.mobility("reload").stdout == f"{a.config}: nothing has changed\n"
    a.configure(
        agent=QUICK, host={"allowed": [*ALLOWED, "192.0.2.128/25"]}, **{"group.web": {"communities": ["65000:7"]}}
    )
    said = a.mobility("reload").stdout.splitlines()
    assert said == ["host.allowed has 192.0.2.128/25", "group web comes"]
    a.start_jail("web2")
    await_announced(a, "web2")
    assert since(ready, a) == up
    assert ready.spine.updates(a.session.name).withdraws == before.withdraws
    # and a group that a running jail is in
    file = a.jails_d / "web1.toml"
    file.write_text(f'{file.read_text()}group = "web"\n')
    until(lambda: "(65000,7)" in at_spine(ready), "the group's community")
    a.configure(
        agent=QUICK, host={"allowed": [*ALLOWED, "192.0.2.128/25"]}, **{"group.web": {"communities": ["65000:8"]}}
    )
    running(a).process.send_signal(signal.SIGHUP)
    until(lambda: "(65000,8)" in at_spine(ready), "the group's new community")
    assert since(ready, a) == up


def test_a_reload_that_can_not_be_had_changes_nothing(ready: Lab) -> None:
    a, _ = ready.hosts
    a.start_jail("web1")
    await_announced(a, "web1")
    good = a.config.read_text()
    a.configure(agent={**QUICK, "look_every": 2.0}, host={"allowed": ["198.51.100.0/24"]})
    done = a.mobility("reload", check=False)
    assert done.returncode == 1
    assert "nothing was changed: agent.look_every is read at the start only: service mobility restart" in done.stderr
    assert status(a, "web1")["announced"]
    a.config.write_text(good.replace("[bgp]", "[bgb]"))
    # the command itself does not get so far; the agent is told by a signal
    log = Log(a)
    running(a).process.send_signal(signal.SIGHUP)
    log.wait("nothing was changed")
    a.config.write_text(good)
    assert a.mobility("reload").stdout == f"{a.config}: nothing has changed\n"
    assert status(a, "web1")["announced"]


def _flap(lab: Lab, host: Host, times: int) -> None:
    for _ in range(times):
        host.start_jail("web1")
        lab.spine.fib.wait(PREFIXES[1], via=host.address)
        host.stop_jail("web1")
        gone(lab)


def _not_announced(host: Host) -> dict[str, Any]:
    until(lambda: status(host, "web1")["reason"].startswith("suppressed"), "suppressed")
    line = status(host, "web1")
    assert line["running"]
    assert line["wired"]
    assert not line["announced"]
    return line
