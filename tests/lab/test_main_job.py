"""The main job on real routers: a jail's addresses are in the fabric while it runs, and follow it."""

from __future__ import annotations

import json
import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from mobility.network import naming
from tests.lab.again import begin
from tests.lab.invariants import await_announced, await_rest, faults, status
from tests.lab.topology import Host, Lab

IPV4, IPV6 = "198.51.100.7", "2001:db8:7::7"
ADDRESSES = (IPV4, IPV6)
PREFIXES = (f"{IPV4}/32", f"{IPV6}/128")
WEB1 = {"web1": ADDRESSES}
QUICK = {"look_every": 1.0, "reject_for": 0.5, "drain_for": 0.2, "settle_for": 3.0}


@pytest.fixture
def ready(one: Lab) -> Lab:
    """One host up, and web1 known to it."""
    begin(one, agent=QUICK)
    one.hosts[0].define_jail("web1", PREFIXES)
    return one


@pytest.fixture
def pair(lab: Lab) -> Lab:
    """Two hosts up, and web1 known to both."""
    lab.start(agent=QUICK)
    for host in lab.hosts:
        host.define_jail("web1", PREFIXES)
    return lab


def announced(lab: Lab, host: Host, jail: str = "web1") -> None:
    """Start a jail and wait for its routes."""
    host.start_jail(jail)
    for prefix in PREFIXES:
        lab.spine.fib.wait(prefix, via=host.address)


def test_start_move_stop(pair: Lab) -> None:
    a, b = pair.hosts
    announced(pair, a)
    await_rest(pair, a, WEB1)
    assert all(pair.client.ping(address) for address in ADDRESSES)
    await_announced(a, "web1")
    a.stop_jail("web1")
    announced(pair, b)
    assert all(pair.client.ping(address) for address in ADDRESSES)
    await_rest(pair, a, {})
    await_rest(pair, b, WEB1)
    b.stop_jail("web1")
    await_rest(pair, b, {})
    described = status(b, "web1")
    assert (described["running"], described["announced"], described["reason"]) == (False, False, "does not run")


def test_withdrawn_before_the_jail_stops(ready: Lab) -> None:
    (a,) = ready.hosts
    announced(ready, a)
    a.stop_jail("web1")
    for prefix in PREFIXES:
        assert not ready.spine.kernel_has(prefix)
    await_rest(ready, a, {})
    # the agent's own order: withdrawn and acknowledged, then delete and reject, then the unwiring
    log = (a.folder / "agent.log").read_text()
    steps = ["withdrawn jail=web1", f"route -n add -host {IPV4} 127.0.0.1 -reject", "ifconfig mob-web1 destroy"]
    assert sorted(steps, key=log.index) == steps


def test_each_line_of_a_jails_life_names_it_and_the_event_that_caused_it(ready: Lab) -> None:
    (a,) = ready.hosts
    log = a.folder / "agent.log"
    before = len(log.read_text())
    announced(ready, a)
    a.stop_jail("web1")
    # with the rejects, which go by themselves after a while
    await_rest(ready, a, {})
    text = log.read_text()[before:]
    events = dict(re.findall(r"INFO hook jail=web1 phase=(\w+) event=(\S+)$", text, re.MULTILINE))
    assert list(events) == ["prestart", "created", "poststart", "prestop", "poststop"]
    story = [line.split(" ", 2)[2] for line in text.splitlines() if " jail=web1 " in line]
    said: dict[str, set[str]] = {}
    for line in story:
        words, _, event = line.rpartition(" event=")
        said.setdefault(event, set()).add(words.split(" jail=")[0])
    assert said == {
        events["prestart"]: {"hook", "ran", "network: paired"},
        events["created"]: {"hook", "ran", "network: wired", "ready"},
        events["poststart"]: {"hook", "claimed", "announced"},
        events["prestop"]: {"hook", "withdrawn", "ran", "network: closing"},
        events["poststop"]: {"hook", "ran", "network: absent"},
    }
    # and what belongs to no jail names none
    assert not re.search(r"INFO (BGP session|bridge|looked at).* jail=", text)


def test_agent_restart_is_silent(ready: Lab) -> None:
    (a,) = ready.hosts
    announced(ready, a)
    ready.spine.fib.changes.clear()
    before = ready.spine.updates(a.session.name)
    since = status(a, "web1")["since"]
    for number in (signal.SIGTERM, signal.SIGKILL):
        a.stop_agent(number)
        assert all(ready.client.ping(address) for address in ADDRESSES)
        a.start_agent()
        await_rest(ready, a, WEB1)
        described = await_announced(a, "web1")
        assert abs(described["since"] - since) < 1.0, "a restart of the agent is no news of the jail's"
    assert ready.spine.updates(a.session.name) == before
    assert not ready.spine.fib.changes


def test_what_happened_while_the_agent_was_dead(ready: Lab) -> None:
    (a,) = ready.hosts
    announced(ready, a)
    a.stop_agent(signal.SIGKILL)
    a.run(["jail", "-R", "web1"])
    a.start_agent()
    await_rest(ready, a, {})


def test_killed_behind_our_back(ready: Lab) -> None:
    (a,) = ready.hosts
    announced(ready, a)
    a.run(["jail", "-R", "web1"])
    await_rest(ready, a, {})
    announced(ready, a)
    await_rest(ready, a, WEB1)


def test_a_jail_without_hooks_is_found(ready: Lab) -> None:
    (a,) = ready.hosts
    a.define_jail("web1", PREFIXES, hooks=False)
    announced(ready, a)
    assert all(ready.client.ping(address) for address in ADDRESSES)
    a.run(["jail", "-f", a.jail_conf, "-r", "web1"])
    await_rest(ready, a, {})


def test_a_failed_start_leaves_nothing(ready: Lab) -> None:
    (a,) = ready.hosts
    a.define_jail("web1", PREFIXES, start="exit 5")
    assert a.start_jail("web1", check=False).returncode == 1
    await_rest(ready, a, {})


def test_a_stop_that_fails_is_announced_again(ready: Lab) -> None:
    (a,) = ready.hosts
    a.stop_agent()
    a.configure(agent={**QUICK, "stopping_for": 1.0})
    a.start_agent()
    a.define_jail("web1", PREFIXES, stop="exit 8")
    announced(ready, a)
    assert a.stop_jail("web1", check=False).returncode == 1
    for prefix in PREFIXES:
        ready.spine.fib.wait(prefix, gone=True)
    await_rest(ready, a, WEB1)
    assert all(ready.client.ping(address) for address in ADDRESSES)


def test_any_number_of_addresses_and_one_family_alone(ready: Lab) -> None:
    (a,) = ready.hosts
    many = {
        "many": ["198.51.100.20", "198.51.100.21", "198.51.100.22", "2001:db8:7::20", "2001:db8:7::21"],
        "four": ["198.51.100.30"],
        "six": ["2001:db8:7::30"],
    }
    for jail, addresses in many.items():
        a.define_jail(jail, addresses)
        a.start_jail(jail)
    await_rest(ready, a, many)
    for addresses in many.values():
        assert all(ready.client.ping(address) for address in addresses)
    for jail in many:
        a.stop_jail(jail)
    await_rest(ready, a, {})


def test_jails_reach_each_other_and_the_client(pair: Lab) -> None:
    a, b = pair.hosts
    b.define_jail("db1", ["198.51.100.8", "2001:db8:7::8"])
    announced(pair, a)
    b.start_jail("db1")
    pair.spine.fib.wait("2001:db8:7::8/128", via=b.address)
    for address in ("198.51.100.8", "2001:db8:7::8"):
        family = ["-6"] if ":" in address else []
        inside = ["jexec", "web1", "ping", *family, "-c", "1", "-t", "2", address]
        assert "1 packets received" in a.run(inside).stdout


def test_an_address_outside_what_is_allowed_is_refused(ready: Lab) -> None:
    (a,) = ready.hosts
    a.define_jail("web1", ["192.0.2.7", IPV6])
    result = a.start_jail("web1", check=False)
    assert result.returncode == 1
    assert "web1 may not have 192.0.2.7" in result.stderr
    assert not faults(ready, a, {})
    assert "web1 may not have 192.0.2.7" in a.mobility("check", check=False).stderr
    assert "may not have" in status(a, "web1")["reason"]


def test_the_same_address_on_two_jails(ready: Lab) -> None:
    (a,) = ready.hosts
    a.define_jail("web2", [IPV4])
    announced(ready, a)
    result = a.start_jail("web2", check=False)
    assert result.returncode == 1
    assert f"{IPV4} is held by jail web1" in result.stderr
    await_rest(ready, a, WEB1)
    assert a.mobility("check", check=False).returncode != 0
    # nothing of it depends on who was first in the agent's memory
    a.stop_agent(signal.SIGKILL)
    a.start_agent()
    await_rest(ready, a, WEB1)
    a.stop_jail("web1")
    a.start_jail("web2")
    await_rest(ready, a, {"web2": [IPV4]})


def test_a_file_broken_while_the_jail_runs_changes_nothing(ready: Lab) -> None:
    (a,) = ready.hosts
    announced(ready, a)
    (a.jails_d / "web1.toml").write_text("addresses = [")
    for _ in range(2):
        assert "no TOML" in a.mobility("check", check=False).stderr
        await_rest(ready, a, WEB1)
        a.stop_agent(signal.SIGKILL)
        a.start_agent()
    await_rest(ready, a, WEB1)


def test_a_grant_changed_while_the_jail_runs(ready: Lab) -> None:
    (a,) = ready.hosts
    announced(ready, a)
    a.grant("web1", [IPV6, "198.51.100.9"])
    await_rest(ready, a, {"web1": [IPV6, "198.51.100.9"]})
    assert all(ready.client.ping(address) for address in (IPV6, "198.51.100.9"))
    assert IPV4 not in a.run(["jexec", "web1", "ifconfig"]).stdout
    (a.jails_d / "web1.toml").unlink()
    await_rest(ready, a, {})


def test_drain_and_undrain(ready: Lab) -> None:
    (a,) = ready.hosts
    announced(ready, a)
    answer = json.loads(a.mobility("drain", "--json").stdout)
    assert answer["acknowledged"]
    for prefix in PREFIXES:
        ready.spine.fib.wait(prefix, gone=True)
    described = status(a, "web1")
    assert (described["running"], described["wired"], described["announced"]) == (True, True, False)
    assert "drained" in described["reason"]
    a.stop_agent()
    a.start_agent()
    assert not ready.spine.kernel_has(PREFIXES[0])
    a.mobility("undrain")
    for prefix in PREFIXES:
        ready.spine.fib.wait(prefix, via=a.address)
    await_rest(ready, a, WEB1)


def test_draining_says_graceful_shutdown_first(ready: Lab) -> None:
    (a,) = ready.hosts
    a.stop_agent()
    a.configure(agent={**QUICK, "drain_for": 5.0})
    a.start_agent()
    announced(ready, a)
    with ThreadPoolExecutor() as pool:
        draining = pool.submit(a.mobility, "drain")
        while "(65535,0)" not in ready.spine.birdc(f"show route all for {PREFIXES[1]}"):
            assert not draining.done(), ready.spine.routes()
        assert all(ready.spine.kernel_has(prefix, a.address) for prefix in PREFIXES)
        draining.result()
    for prefix in PREFIXES:
        ready.spine.fib.wait(prefix, gone=True)


def test_plan_runs_nothing_and_says_everything(ready: Lab) -> None:
    (a,) = ready.hosts
    a.define_jail("web1", PREFIXES, hooks=False)
    a.stop_agent()
    a.configure(agent={**QUICK, "look_every": 3600.0})
    a.start_agent()
    a.run(["jail", "-f", a.jail_conf, "-c", "web1"])
    planned = json.loads(a.mobility("plan", "--json", "web1").stdout)["plans"][0]
    assert planned["stand"] == "announced"
    assert ["ifconfig", "in-web1", "vnet", "web1"] in [command["argv"] for command in planned["commands"]]
    assert not faults(ready, a, {})
    assert a.agent is not None
    a.agent.process.send_signal(signal.SIGHUP)
    await_rest(ready, a, WEB1)
    log = (a.folder / "agent.log").read_text()
    for command in planned["commands"]:
        assert " ".join(command["argv"]) in log
    assert not json.loads(a.mobility("plan", "--json", "web1").stdout)["plans"][0]["commands"]


def test_the_agent_down_fails_closed_or_open(ready: Lab) -> None:
    (a,) = ready.hosts
    a.stop_agent()
    a.configure(agent=QUICK, hooks={"timeout": 1})
    result = a.start_jail("web1", check=False)
    assert result.returncode == 1
    assert "the agent did not answer within 1 s" in result.stderr
    a.configure(agent=QUICK, hooks={"timeout": 1, "when_agent_down": "allow"})
    assert a.start_jail("web1").returncode == 0
    assert not faults(ready, a, {})
    a.start_agent()
    await_rest(ready, a, WEB1)


def test_events_wait_for_the_agent(ready: Lab) -> None:
    """A hook that was accepted is answered by the next agent, and a start goes on."""
    (a,) = ready.hosts
    a.stop_agent(signal.SIGKILL)
    starting = a.popen(["jail", "-f", a.jail_conf, "-c", "web1"])
    a.start_agent()
    assert starting.wait(20) == 0
    await_rest(ready, a, WEB1)


def test_a_unit_that_others_use_under_other_names_is_passed_over(ready: Lab) -> None:
    (a,) = ready.hosts
    pair = f"epair{naming.first_unit('web1')}"
    a.run(["ifconfig", pair, "create"])
    a.run(["ifconfig", f"{pair}a", "name", "theirs0"])
    a.run(["ifconfig", f"{pair}b", "name", "theirs1"])
    announced(ready, a)
    assert all(ready.client.ping(address) for address in ADDRESSES)
    a.stop_jail("web1")
    await_rest(ready, a, {})
    assert {"theirs0", "theirs1"} <= set(a.run(["ifconfig", "-l"]).stdout.split())


def test_a_jail_without_ifconfig_is_refused_with_advice(ready: Lab) -> None:
    (a,) = ready.hosts
    root = a.folder / "empty-root"
    root.mkdir()
    a.define_jail("web1", PREFIXES, more=f'path = "{root}";')
    result = a.start_jail("web1", check=False)
    assert result.returncode == 1
    assert "web1 has no ifconfig of its own" in result.stderr
    assert "FreeBSD 14" in result.stderr
    await_rest(ready, a, {})


def test_a_jail_started_during_a_drain_is_withdrawn_too(ready: Lab) -> None:
    (a,) = ready.hosts
    a.stop_agent()
    a.configure(agent={**QUICK, "drain_for": 3.0})
    a.start_agent()
    a.define_jail("late", ["198.51.100.40"])
    announced(ready, a)
    with ThreadPoolExecutor() as pool:
        draining = pool.submit(a.mobility, "drain")
        while "(65535,0)" not in ready.spine.birdc(f"show route all for {PREFIXES[1]}"):
            assert not draining.done(), ready.spine.routes()
        a.start_jail("late")
        draining.result()
    for prefix in (*PREFIXES, "198.51.100.40/32"):
        ready.spine.fib.wait(prefix, gone=True)


def test_a_grant_that_moved_is_not_lost_to_the_rejects_of_its_old_jail(ready: Lab) -> None:
    (a,) = ready.hosts
    a.stop_agent()
    a.configure(agent={**QUICK, "look_every": 60.0})
    a.start_agent()
    a.define_jail("web2", PREFIXES)
    announced(ready, a)
    a.stop_jail("web1")
    announced(ready, a, "web2")
    log = a.folder / "agent.log"
    time.sleep(2 * QUICK["reject_for"])  # what must not happen has no event; it would happen after reject_for
    assert "network: absent" in log.read_text()
    await_rest(ready, a, {"web2": ADDRESSES})


def test_a_pair_that_can_not_be_made_again_is_withdrawn(ready: Lab) -> None:
    (a,) = ready.hosts
    announced(ready, a)
    a.run(["ifconfig", "mob-web1", "destroy"])
    a.run(["ifconfig", "epair9", "create"])
    a.run(["ifconfig", "epair9a", "name", "mob-web1"])
    for prefix in PREFIXES:
        ready.spine.fib.wait(prefix, gone=True)
    assert "not ours" in status(a, "web1")["reason"]
    a.run(["ifconfig", "mob-web1", "destroy"])
    await_rest(ready, a, WEB1)
