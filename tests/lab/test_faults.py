"""Bad input and broken things around a running agent: commands, ExaBGP, the spine, full disks, the spool, jail names."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mobility.network.command import OUTPUT_LIMIT
from tests.lab.faults import (
    STRANGER,
    Faults,
    Log,
    SmallDisk,
    await_clean,
    bridge_of,
    eventually,
    metric,
    new_agent,
    put_event,
    remembered,
    running,
    status_of_host,
    why_not,
)
from tests.lab.invariants import await_rest, status
from tests.lab.topology import HOOK, Host, Lab
from tests.waiting import alive, until

JAIL, OTHER = "web1", "db1"
ADDRESSES = ("198.51.100.7", "2001:db8:7::7")
OTHER_ADDRESSES = ("198.51.100.8", "2001:db8:7::8")
PREFIXES = (f"{ADDRESSES[0]}/32", f"{ADDRESSES[1]}/128")
QUICK = {"look_every": 0.5, "reject_for": 0.2, "settle_for": 3.0}
IMPATIENT = {**QUICK, "command_timeout": 1.0}
SELDOM = 3600.0
JAIL_SECONDS = 30
DISK_BYTES = 512 * 1024
STALE_EVENTS = 1000
STALE_SECONDS = 3600.0
WORDS = "the dog ate it"
MEMORY_BYTES = 3 * OUTPUT_LIMIT
"""What the agent may need at most while a command babbles: the limit, once more as it is put together, and itself."""
UNDAMPED = {"enabled": False}  # jails come and go all the time here
RING = {JAIL: ADDRESSES}
BOTH = {JAIL: ADDRESSES, OTHER: OTHER_ADDRESSES}


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """One host for all of these, so that they take little time."""
    with Lab(hosts=1) as whole:
        yield whole


@pytest.fixture(scope="module")
def scripts(lab: Lab) -> Faults:
    return Faults(lab.hosts[0])


@pytest.fixture
def faults(lab: Lab, scripts: Faults) -> Faults:
    """Agent and ExaBGP up, both jails defined and neither running, whatever the test before has left."""
    (host,) = lab.hosts
    scripts.release()
    for name in jails(host):
        host.run(["jail", "-R", name])
    host.configure(damping=UNDAMPED, agent=QUICK, paths={"commands": scripts.commands})
    new_agent(host)
    if host.exabgp is None or not host.exabgp.running:
        host.start_exabgp()
    lab.await_session(host)
    host.define_jail(JAIL, PREFIXES)
    host.define_jail(OTHER, OTHER_ADDRESSES)
    await_clean(lab, host, {})
    for path in (host.folder / "spool" / "bad").iterdir():
        path.unlink()
    return scripts


def prefix(address: str) -> str:
    """Return the host prefix of an address, as the spine's kernel has it."""
    return f"{address}/{128 if ':' in address else 32}"


def jails(host: Host) -> list[str]:
    """Return the jids of the jails that run on a host."""
    return host.run(["jls", "jid"]).stdout.split()


def jail(host: Host, verb: str, name: str = JAIL) -> subprocess.Popen[str]:
    """Begin to start or stop a jail."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return host.popen(["jail", "-f", host.jail_conf, verb, name], **pipes)


# commands


def test_a_hung_command_delays_no_other_jail(lab: Lab, faults: Faults) -> None:
    (host,) = lab.hosts
    faults.hang(f"ifconfig epair* create name mob-{JAIL} *", times=1)
    log = Log(host)
    slow = jail(host, "-c")
    faults.await_hung()
    host.start_jail(OTHER)
    await_rest_of_other(lab, host)
    # the other one is up while the first one's command still hangs, and nobody's patience has ended
    assert all(alive(pid) for pid in faults.hung())
    assert slow.poll() is None
    assert "no answer within" not in log.text()
    faults.release()
    assert slow.wait(JAIL_SECONDS) == 0
    await_clean(lab, host, BOTH)


def await_rest_of_other(lab: Lab, host: Host) -> None:
    """Wait until the other jail's routes stand, whatever the first one looks like."""
    for address in OTHER_ADDRESSES:
        lab.spine.fib.wait(prefix(address), via=host.address)
        assert lab.client.ping(address)


@pytest.mark.parametrize("pattern", ["ifconfig mob-web1 ether *", "jexec web1 route *", "jls * -j web1 *"])
def test_a_command_that_hangs_once(lab: Lab, faults: Faults, pattern: str) -> None:
    (host,) = lab.hosts
    host.configure(damping=UNDAMPED, agent=IMPATIENT, paths={"commands": faults.commands})
    new_agent(host)
    faults.hang(pattern, times=1)
    host.start_jail(JAIL)
    assert faults.hung()
    # killed with all that it started
    until(lambda: not any(alive(pid) for pid in faults.hung()), "what the hung command started lives on")
    await_clean(lab, host, RING)


def test_a_jexec_that_always_hangs(lab: Lab, faults: Faults) -> None:
    (host,) = lab.hosts
    host.configure(damping=UNDAMPED, agent=IMPATIENT, paths={"commands": faults.commands})
    new_agent(host)
    faults.hang(f"jexec {JAIL} *")
    result = host.start_jail(JAIL, check=False)
    assert result.returncode == 1
    assert re.search(rf"jail {JAIL}: created: .*jexec {JAIL} .*: no answer within 1 s", result.stderr), result.stderr
    await_clean(lab, host, {})
    until(lambda: not any(alive(pid) for pid in faults.hung()), "what the hung command started lives on")
    faults.clear()
    host.start_jail(JAIL)
    await_clean(lab, host, RING)


@pytest.mark.parametrize(
    "pattern", ["ifconfig epair* create *", "jexec web1 ifconfig * alias", "route * -interface mob-web1", "ifconfig -a"]
)
def test_a_command_that_fails_once(lab: Lab, faults: Faults, pattern: str) -> None:
    (host,) = lab.hosts
    faults.fail(pattern, WORDS, times=1)
    host.start_jail(JAIL)
    # a look may be the periodic one: a start acts on the last look where it can
    eventually(lambda: bool(faults.steps()), f"run of {pattern}", host)
    await_clean(lab, host, RING)
    assert all(lab.client.ping(address) for address in ADDRESSES)


@pytest.mark.parametrize(
    ("phase", "pattern"), [("prestart", "ifconfig epair* create *"), ("created", f"ifconfig in-{JAIL} vnet *")]
)
def test_a_command_that_always_fails_refuses_the_start(lab: Lab, faults: Faults, phase: str, pattern: str) -> None:
    (host,) = lab.hosts
    faults.fail(pattern, WORDS)
    result = host.start_jail(JAIL, check=False)
    assert result.returncode == 1
    command = re.escape(pattern.partition("*")[0])
    assert re.search(rf"jail {JAIL}: {phase}: {command}.*: {WORDS}", result.stderr), result.stderr
    await_clean(lab, host, {})
    # the other jail's commands work
    faults.clear()
    host.start_jail(JAIL)
    await_clean(lab, host, RING)


def test_a_running_jail_whose_wiring_fails_recovers_by_itself(lab: Lab, faults: Faults) -> None:
    (host,) = lab.hosts
    host.define_jail(JAIL, PREFIXES, hooks=False)
    faults.fail(f"route * add -host {ADDRESSES[0]} *", WORDS)
    host.start_jail(JAIL)
    eventually(lambda: WORDS in why_not(host, JAIL), "reason in the status", host)
    described = status(host, JAIL)
    assert (described["running"], described["announced"]) == (True, False)
    assert f"route -n add -host {ADDRESSES[0]}" in described["reason"]
    eventually(lambda: metric(host, "mobility_jail_not_announced") == 1, "metric", host)
    faults.clear()
    await_clean(lab, host, RING)
    assert not why_not(host, JAIL)


@pytest.mark.parametrize("pattern", [f"ifconfig mob-{JAIL} destroy", f"route * delete -host {ADDRESSES[1]}"])
def test_an_unwiring_that_fails_holds_up_no_stop_and_is_made_up_for(lab: Lab, faults: Faults, pattern: str) -> None:
    (host,) = lab.hosts
    host.start_jail(JAIL)
    await_clean(lab, host, RING)
    faults.fail(pattern, WORDS)
    host.stop_jail(JAIL)
    for prefix in PREFIXES:
        assert not lab.spine.kernel_has(prefix)
    eventually(lambda: WORDS in why_not(host, JAIL), "reason in the status", host)
    faults.clear()
    await_clean(lab, host, {})
    host.start_jail(JAIL)
    await_clean(lab, host, RING)


def test_the_host_can_not_be_looked_at(lab: Lab, faults: Faults) -> None:
    """What runs stays as it is; a start is refused by an agent that knows nothing yet, and goes on by itself later."""
    (host,) = lab.hosts
    host.start_jail(OTHER)
    await_clean(lab, host, {OTHER: OTHER_ADDRESSES})
    faults.fail("netstat *", WORDS)
    new_agent(host)
    eventually(lambda: any(WORDS in each for each in status_of_host(host)["problems"]), "problem shown", host)
    result = host.start_jail(JAIL, check=False)
    assert result.returncode == 1
    assert WORDS in result.stderr
    await_rest_of_other(lab, host)
    faults.clear()
    await_clean(lab, host, {OTHER: OTHER_ADDRESSES})
    eventually(lambda: not status_of_host(host)["problems"], "end of the problem", host)
    host.start_jail(JAIL)
    await_clean(lab, host, BOTH)


@pytest.mark.parametrize("pattern", ["ifconfig -a", f"jexec {JAIL} ifconfig *"])
def test_a_command_that_prints_a_gigabyte(lab: Lab, faults: Faults, pattern: str) -> None:
    (host,) = lab.hosts
    faults.babble(pattern)
    log = Log(host)
    new_agent(host)
    result = host.start_jail(JAIL, check=False)
    assert result.returncode == 1
    assert "said more than" in result.stderr + log.text()
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{running(host).process.pid}/status").read_text())
    assert peak is not None
    assert int(peak[1]) * 1024 < MEMORY_BYTES
    faults.clear()
    await_clean(lab, host, {})
    host.start_jail(JAIL)
    await_clean(lab, host, RING)


def test_a_command_that_is_missing(lab: Lab, faults: Faults) -> None:
    (host,) = lab.hosts
    host.configure(damping=UNDAMPED, agent=QUICK, paths={"commands": [str(faults.bin)]})
    new_agent(host)
    program = faults.bin / "ifconfig"
    away = program.rename(faults.folder / "ifconfig")
    try:
        result = host.start_jail(JAIL, check=False)
        assert result.returncode == 1
        assert f"ifconfig: not found in {faults.bin}: see paths.commands" in result.stderr
        assert re.search("FAIL.*ifconfig", host.mobility("doctor", check=False).stdout)
    finally:
        away.rename(program)
    await_clean(lab, host, {})
    host.start_jail(JAIL)
    await_clean(lab, host, RING)


def test_starts_and_stops_fail_no_command(lab: Lab, faults: Faults) -> None:
    """What is expected of the last commands is so: no look in between has to correct it."""
    (host,) = lab.hosts
    host.configure(damping=UNDAMPED, agent={**QUICK, "look_every": SELDOM}, paths={"commands": faults.commands})
    new_agent(host)
    log = Log(host)
    for behind_our_back in (False, True, False):
        host.start_jail(JAIL)
        await_clean(lab, host, RING)
        if behind_our_back:
            host.run(["jail", "-R", JAIL])
            running(host).process.send_signal(signal.SIGHUP)
        else:
            host.stop_jail(JAIL)
        await_clean(lab, host, {})
    assert "status=0" in log.text()
    assert not re.findall(r".* status=[1-9].*", log.text())


# ExaBGP, its bridge, and the spine


@pytest.fixture
def both(lab: Lab, faults: Faults) -> Host:
    """Both jails run and are announced; what happens in the spine's kernel from now on is recorded."""
    (host,) = lab.hosts
    for name in (JAIL, OTHER):
        host.start_jail(name)
    await_clean(lab, host, BOTH)
    lab.spine.fib.changes.clear()
    return host


def removals(lab: Lab) -> list[str]:
    """Return the prefixes that were taken out of the spine's kernel."""
    lab.spine.fib.routes()
    return [change.prefix for change in lab.spine.fib.changes if change.gone]


def await_told(lab: Lab, host: Host) -> None:
    """Wait until the spine has heard the end-of-RIB after a restart: until then it keeps what it knew from before."""
    lab.await_session(host)
    eventually(lambda: not restarting(lab, host), "end-of-RIB at the spine", host)


def restarting(lab: Lab, host: Host) -> bool:
    """Tell whether the spine still waits for this host's routes after a restart (RFC 4724)."""
    return "Neighbor graceful restart active" in lab.spine.birdc(f"show protocols all {host.session.name}")


def test_exabgp_killed(lab: Lab, both: Host) -> None:
    """Its routes stand in the spine's kernel throughout, but for those of a jail that stopped meanwhile."""
    host = both
    host.stop_exabgp(signal.SIGKILL)
    lab.await_session(host, up=False)
    host.stop_jail(OTHER)
    assert all(lab.client.ping(address) for address in ADDRESSES)
    host.start_exabgp()
    await_told(lab, host)
    await_clean(lab, host, RING)
    assert set(removals(lab)) == {prefix(address) for address in OTHER_ADDRESSES}
    assert all(lab.client.ping(address) for address in ADDRESSES)
    # and it takes news again
    host.start_jail(OTHER)
    await_clean(lab, host, BOTH)


def test_the_bridge_killed(lab: Lab, both: Host, request: pytest.FixtureRequest) -> None:
    host = both
    bridge = bridge_of(host)
    assert bridge is not None
    request.addfinalizer(lambda: host.stop_exabgp(signal.SIGKILL))  # the next test's begins anew
    log = Log(host)
    os.kill(bridge, signal.SIGKILL)
    log.wait("the bridge is gone")
    log.wait("bridge pid=")
    assert bridge_of(host) != bridge
    host.stop_jail(OTHER)
    await_clean(lab, host, RING)
    assert set(removals(lab)) == {prefix(address) for address in OTHER_ADDRESSES}
    assert lab.spine.session_up(host.session.name)
    host.start_jail(OTHER)
    await_clean(lab, host, BOTH)


def test_the_bridge_and_then_the_agent_killed(lab: Lab, both: Host, request: pytest.FixtureRequest) -> None:
    """Neither has seen the peer's OPEN, and the session that both find up takes news all the same."""
    host = both
    request.addfinalizer(lambda: host.stop_exabgp(signal.SIGKILL))
    log = Log(host)
    bridge = bridge_of(host)
    assert bridge is not None
    os.kill(bridge, signal.SIGKILL)
    log.wait("bridge pid=")
    await_clean(lab, host, BOTH)
    new_agent(host)
    await_clean(lab, host, BOTH)
    host.stop_jail(OTHER)
    await_clean(lab, host, RING)
    host.start_jail(OTHER)
    await_rest(lab, host, BOTH)


def test_exabgp_restarts_without_an_agent(lab: Lab, both: Host) -> None:
    """The spine keeps what it knew until the agent is back and the end-of-RIB is out."""
    host = both
    host.stop_agent(signal.SIGKILL)
    host.stop_exabgp(signal.SIGKILL)
    host.run(["jail", "-R", OTHER])
    host.start_exabgp()
    lab.await_session(host)
    assert restarting(lab, host)
    assert not removals(lab)
    assert all(lab.client.ping(address) for address in ADDRESSES)
    host.start_agent()
    await_told(lab, host)
    await_clean(lab, host, RING)
    assert set(removals(lab)) == {prefix(address) for address in OTHER_ADDRESSES}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_spine_restarts(lab: Lab, both: Host, number: signal.Signals) -> None:
    """Killed and recovering it forwards throughout; ended in order it forgets, and is told everything again."""
    host = both
    lab.spine.stop(number)
    host.stop_jail(OTHER)
    lab.spine.start(recover=number == signal.SIGKILL)
    lab.await_session(host)
    await_clean(lab, host, RING)
    gone = set(removals(lab))
    others = {prefix(address) for address in OTHER_ADDRESSES}
    assert gone == others if number == signal.SIGKILL else gone == {*others, *PREFIXES}
    assert all(lab.client.ping(address) for address in ADDRESSES)
    host.start_jail(OTHER)
    await_clean(lab, host, BOTH)


# full disks


def test_a_full_disk_under_the_database(lab: Lab, faults: Faults) -> None:
    (host,) = lab.hosts
    host.stop_agent()
    disk = SmallDisk(host, host.folder / "state", DISK_BYTES)
    try:
        host.start_jail(OTHER)
        await_clean(lab, host, {OTHER: OTHER_ADDRESSES})
        errors = metric(host, "mobility_database_errors_total")
        disk.fill()
        host.start_jail(JAIL)
        await_clean(lab, host, BOTH)
        assert all(lab.client.ping(address) for address in ADDRESSES)
        host.stop_jail(OTHER)
        await_clean(lab, host, RING)
        (problem,) = status_of_host(host)["problems"]
        assert "the database can not be written" in problem
        assert "full" in problem
        assert metric(host, "mobility_database_errors_total") > errors
        disk.free()
        host.start_jail(OTHER)
        await_clean(lab, host, BOTH)
        assert not status_of_host(host)["problems"]
        assert metric(host, "mobility_database_errors_total") > errors
        history = host.mobility("events", OTHER).stdout
        assert "poststart" in history
    finally:
        # the file system is the agent's alone, and goes with it
        host.stop_agent(signal.SIGKILL)


@pytest.mark.parametrize("when_down", ["refuse", "allow"])
def test_a_full_disk_under_the_spool(lab: Lab, faults: Faults, when_down: str) -> None:
    """A hook that can not leave its event says so; a stop goes on, and the agent finds out by itself."""
    (host,) = lab.hosts
    host.stop_agent()
    spool = host.folder / "small"
    hooks = {"spool": str(spool), "when_agent_down": when_down}
    host.configure(damping=UNDAMPED, agent=QUICK, paths={"commands": faults.commands}, hooks=hooks)
    disk = SmallDisk(host, spool, DISK_BYTES)
    try:
        disk.jail("-c", OTHER)
        await_rest(lab, host, {OTHER: OTHER_ADDRESSES})
        disk.fill()
        result = disk.jail("-c", JAIL, check=False)
        assert f"jail {JAIL}: prestart: the event could not be left in {spool}: it is full" in result.stderr
        assert result.returncode == (1 if when_down == "refuse" else 0)
        up = {JAIL: ADDRESSES} if when_down == "allow" else {}
        await_rest(lab, host, {**up, OTHER: OTHER_ADDRESSES})
        result = disk.jail("-r", OTHER)
        assert f"jail {OTHER}: prestop: the event could not be left" in result.stderr
        await_rest(lab, host, up)
        left = host.run([*disk.enter, "find", str(spool), "-mindepth", "2"]).stdout
        assert not left
        disk.free()
        disk.jail("-c", OTHER)
        await_rest(lab, host, {**up, OTHER: OTHER_ADDRESSES})
    finally:
        host.stop_agent(signal.SIGKILL)


# the spool


def test_rubbish_in_the_spool_while_a_jail_starts(lab: Lab, faults: Faults) -> None:
    (host,) = lab.hosts
    now = time.time()
    whole = f"mobility-event 1\nphase prestop\njail {JAIL}\nreply no\nend\n".encode()
    with jail(host, "-c") as starting:
        put_event(host, JAIL, "prestop", now, draft=whole[: len(whole) // 2])
        put_event(host, JAIL, "prestop", now, owner=STRANGER)
        for number in range(STALE_EVENTS):
            name = JAIL if number % 2 else f"ghost{number}"
            put_event(host, name, ("prestop", "poststop", "prestart")[number % 3], now - STALE_SECONDS - number)
        assert starting.wait(JAIL_SECONDS) == 0
    await_clean(lab, host, RING)
    assert all(lab.client.ping(address) for address in ADDRESSES)
    bad = sorted(path.name.partition(".")[2] for path in (host.folder / "spool" / "bad").iterdir())
    assert bad == ["cut", "owner"]
    assert metric(host, "mobility_spool_rejected_total") == len(bad)
    host.stop_jail(JAIL)
    await_clean(lab, host, {})
    eventually(lambda: remembered(host) == [], "end of what is remembered", host)


# jail names


def quoted(text: bytes) -> bytes:
    """Return a word for sh(1)."""
    return b"'" + text.replace(b"'", b"'\\''") + b"'"


def in_conf(text: bytes) -> bytes:
    """Return a string of jail.conf(5), in which nothing is replaced."""
    return b"'" + text.replace(b"\\", b"\\\\").replace(b"'", b"\\'") + b"'"


def conf_of(host: Host, name: bytes, phases: tuple[str, ...]) -> Path:
    """Write a jail.conf for a jail of that name, with our hooks at these phases."""
    call = b"%s -c %s" % (os.fsencode(HOOK), os.fsencode(host.config))
    lines = [in_conf(name) + b" {", b"path = /; vnet; persist;"]
    for phase in map(str.encode, phases):
        lines += [b"exec.%s += %s;" % (phase, in_conf(b"%s %s %s" % (call, phase, quoted(name))))]
    path = host.folder / "strange.conf"
    path.write_bytes(b"\n".join([*lines, b"}", b""]))
    return path


def strange_names(mark: Path) -> dict[str, bytes]:
    touch = b"touch " + os.fsencode(mark)
    return {
        "space": b"a b",
        "newline": b"a\n" + touch + b"\n",
        "apostrophe": b"a';" + touch + b";'",
        "quote": b'a";' + touch + b';"',
        "semicolon": b"a;" + touch,
        "substitution": b"$(" + touch + b")",
        "backquotes": b"`" + touch + b"`",
        "path": b"../../" + os.fsencode(mark).strip(b"/"),
        "option": b"-rf",
        "long": b"a" * 300,
        "not UTF-8": b"caf\xe9\xff",
        "newline in the event": b"web1\nreply yes\nend",
    }


REFUSED_BY_JAIL = ("path", "long")
"""The kernel takes dots for a jail's children, and a name of less than MAXHOSTNAMELEN (sys/param.h) bytes."""


def test_a_jail_of_a_strange_name_is_refused(lab: Lab, faults: Faults, tmp_path: Path) -> None:
    (host,) = lab.hosts
    mark = tmp_path / "executed"
    for kind, name in strange_names(mark).items():
        conf = conf_of(host, name, ("prestart", "created", "poststart", "prestop", "poststop"))
        result = host.run(["jail", "-f", conf, "-c"], check=False, errors="replace")
        assert result.returncode == 1, kind
        assert re.search("prestart: .*not handled", result.stderr), (kind, result.stderr)
        assert "to do: give it a name" in result.stderr, kind
        nothing_came_of_it(lab, host, mark)


def test_a_jail_of_a_strange_name_runs_without_us(lab: Lab, faults: Faults, tmp_path: Path) -> None:
    """Only their stop has our hooks; that they run disturbs nobody, and they stop."""
    (host,) = lab.hosts
    mark = tmp_path / "executed"
    confs: list[Path] = []
    for kind, name in strange_names(mark).items():
        conf = conf_of(host, name, ("prestop", "poststop"))
        result = host.run(["jail", "-f", conf, "-c"], check=False, errors="replace")
        assert result.returncode == 0 or kind in REFUSED_BY_JAIL, (kind, result.stderr)
        if result.returncode == 0:
            confs.append(conf.rename(conf.with_suffix(f".{len(confs)}")))
    assert len(jails(host)) == len(confs)
    host.start_jail(OTHER)
    await_clean(lab, host, {OTHER: OTHER_ADDRESSES})
    look = status_of_host(host)["looked_at"]
    eventually(lambda: bool(status_of_host(host)["looked_at"] > look), "further look", host)
    assert not status_of_host(host)["problems"]
    for conf in confs:
        host.run(["jail", "-f", conf, "-r", "*"], errors="replace")
    host.stop_jail(OTHER)
    nothing_came_of_it(lab, host, mark)


def nothing_came_of_it(lab: Lab, host: Host, mark: Path) -> None:
    """No jail runs, nothing is left of one, and nothing was executed that only looked like a name."""
    assert not jails(host)
    await_clean(lab, host, {})
    assert not mark.exists()
    assert not list((host.folder / "spool" / "bad").iterdir())
