"""The services of deploy/freebsd/rc.d: their order, and what they do when rc(8), service(8) and an operator call them.

They run here under a stand-in for rc.subr(8) and one for daemon(8), with real processes and real signals.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mobility import cli
from tests.readme import REPOSITORY
from tests.unit.deploy.host import RC_D, RcHost
from tests.waiting import alive, until

SERVICES = sorted(RC_D.iterdir())
RCSHUTDOWN_TIMEOUT = 90
"""Seconds that rc.shutdown has for all services together (rc.conf in libexec/rc of FreeBSD)."""


@pytest.fixture
def host(tmp_path: Path) -> Iterator[RcHost]:
    host = RcHost(tmp_path)
    yield host
    host.close()


# -- as scripts


@pytest.mark.parametrize("service", SERVICES, ids=lambda path: path.name)
def test_a_service_is_a_script(service: Path) -> None:
    subprocess.run(["sh", "-n", service], check=True)
    assert os.access(service, os.X_OK)


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="needs shellcheck")
def test_shellcheck_finds_nothing() -> None:
    # rc.subr(8) reads and sets variables that a script alone does not show; its idiom `: ${x:=y}` needs no quotes, and
    # commands are split on purpose
    excluded = "SC1091,SC2034,SC2086,SC2154,SC2223"
    subprocess.run(["shellcheck", "-s", "sh", "-e", excluded, *SERVICES], check=True)


# -- the order of rcorder(8)

#: Headers of others, as they stand in libexec/rc/rc.d of FreeBSD and in the managers' own repositories.
OTHERS = """
# PROVIDE: DAEMON
# REQUIRE: NETWORKING SERVERS

# PROVIDE: LOGIN
# REQUIRE: DAEMON

# PROVIDE: jail
# REQUIRE: LOGIN FILESYSTEMS
# BEFORE: securelevel

# PROVIDE: securelevel

# PROVIDE: bastille
# REQUIRE: jail

# PROVIDE: iocage
# REQUIRE: LOGIN cleanvar sshd zfs
# BEFORE: securelevel
"""


def header(text: str, key: str) -> list[str]:
    """Return the words of one of rcorder's lines; they stand in one block at the top (rcorder.c, crunch_file)."""
    return [word for words in re.findall(rf"^# {key}:(.*)$", text, re.MULTILINE) for word in words.split()]


def requirements() -> dict[str, set[str]]:
    """Return what each service needs to have started before it, by what it provides."""
    texts = [*OTHERS.strip().split("\n\n"), *(service.read_text() for service in SERVICES)]
    needs = {name: set(header(text, "REQUIRE")) for text in texts for name in header(text, "PROVIDE")}
    for text in texts:
        for later in header(text, "BEFORE"):
            needs[later] |= set(header(text, "PROVIDE"))
    return needs


def before(name: str, needs: dict[str, set[str]]) -> set[str]:
    """Return everything that starts before `name` in every order that rcorder(8) may choose."""
    found: set[str] = set()
    left = [name]
    while left:
        for each in needs.get(left.pop(), set()) - found:
            found.add(each)
            left.append(each)
    return found


@pytest.mark.parametrize("manager", ["jail", "bastille", "iocage"])
def test_jails_start_after_the_agent_and_stop_before_it(manager: str) -> None:
    assert {"mobility", "mobility_exabgp", "DAEMON"} <= before(manager, requirements())


@pytest.mark.parametrize("manager", ["jail", "bastille", "iocage"])
def test_the_drain_comes_before_the_first_jail_is_stopped(manager: str) -> None:
    assert manager in before("mobility_drain", requirements())


def test_nothing_waits_for_itself() -> None:
    needs = requirements()
    assert not [name for name in needs if name in before(name, needs)]


@pytest.mark.parametrize("service", SERVICES, ids=lambda path: path.name)
def test_rc_shutdown_knows_each_service(service: Path) -> None:
    text = service.read_text()
    assert header(text, "PROVIDE") == [service.name]
    # rc.shutdown asks for those alone that have it: rcorder -k shutdown
    assert header(text, "KEYWORD") == ["shutdown"]
    # rcorder reads one block of such lines and stops at the first other one
    assert re.search(r"\A#!/bin/sh\n#\n(# [A-Z]+: .*\n)+#\n", text)
    assert f"\nname={service.name}\n" in text


# -- start


@pytest.mark.parametrize(("service", "command"), [("mobility", "agent"), ("mobility_exabgp", "exabgp")])
def test_daemon_is_told_to_run_a_command_that_exists(service: str, command: str, tmp_path: Path) -> None:
    text = (RC_D / service).read_text()
    line = re.search(r'^command_args="((?:.|\n)*?)"$', text, re.MULTILINE)
    assert line is not None
    script = f"name={service} pidfile=/var/run/{service}.pid mobility_command=/m/mobility mobility_config=/m.toml\n"
    script += f'agent_flags="--log-format json"\neval "printf \'%s\\n\' {line[1]}"'
    words = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout.split()
    at = words.index("/m/mobility")
    # daemon(8) has these options in FreeBSD 13.1
    assert words[:at] == shlex.split(f"-cf -P /var/run/{service}.pid -r -R 2 -S -s info -T {service} -t {service}")
    options = cli._parser().parse_args(words[at + 1 :])
    assert (options.command, str(options.config)) == (command, "/m.toml")


def test_a_start_judges_the_configuration_loads_the_module_and_waits_for_the_agent(host: RcHost) -> None:
    host.mobility('[ $1 != status ] || [ "$(grep -c "^mobility status" $TEST_FOLDER/calls)" -ge 2 ]')
    started = host.run("mobility", "start", mobility_flags="--log-format json")
    assert (started.returncode, started.stderr) == (0, "")
    host.await_call("agent: agent --log-to syslog --log-format json")
    assert [call for call in host.calls if not call.startswith("agent")] == [
        "mobility check",
        "kldload if_epair",
        "mobility status",
        "mobility status",
    ]
    status = host.run("mobility", "status")
    assert status.stdout == f"mobility is running as pid {host.supervisor()}.\n"


def test_a_start_gives_up_on_an_agent_that_does_not_answer(host: RcHost) -> None:
    host.mobility("[ $1 != status ]")
    started = host.run("mobility", "start", mobility_start_within="1")
    assert started.returncode == 1
    assert "does not answer after 1 s" in started.stderr


def test_a_jails_bad_file_is_told_and_keeps_nothing_from_starting(host: RcHost) -> None:
    host.mobility(f"[ $1 != check ] || {{ echo 'web1.toml: is no TOML'; exit {cli.EX_DATAERR}; }}")
    started = host.run("mobility", "start")
    assert started.returncode == 0
    assert "web1.toml: is no TOML" in started.stdout
    assert "some jails are refused" in started.stderr
    assert host.supervisor() is not None


@pytest.mark.parametrize("service", ["mobility", "mobility_exabgp"])
def test_without_a_configuration_nothing_is_started(host: RcHost, service: str) -> None:
    host.mobility(f"exit {cli.EX_CONFIG}")
    started = host.run(service, "start")
    assert started.returncode == 1
    assert "can not be used" in started.stderr
    assert host.supervisor(service) is None


@pytest.mark.parametrize("service", ["mobility", "mobility_exabgp"])
def test_a_restart_with_a_broken_configuration_stops_nothing(host: RcHost, service: str) -> None:
    assert host.run(service, "start").returncode == 0
    pid = host.supervisor(service)
    host.mobility(f"exit {cli.EX_CONFIG}")
    assert host.run(service, "restart").returncode == 1
    assert pid is not None
    assert host.supervisor(service) == pid
    assert alive(pid)


def test_a_restart_is_another_agent(host: RcHost) -> None:
    host.run("mobility", "start")
    host.await_call("agent: agent --log-to syslog")
    first = host.agent
    host.forget()
    assert host.run("mobility", "restart").returncode == 0
    host.await_call("agent: agent --log-to syslog")
    assert not alive(first)
    # the old one has ended before the new one began
    assert host.calls.index("agent: ended") < host.calls.index("agent: agent --log-to syslog")


@pytest.mark.parametrize("service", ["mobility", "mobility_exabgp"])
def test_configtest_asks_check(host: RcHost, service: str) -> None:
    host.mobility("echo fine")
    tested = host.run(service, "configtest")
    assert (tested.returncode, tested.stdout, host.calls) == (0, "fine\n", ["mobility check"])
    host.mobility(f"exit {cli.EX_DATAERR}")
    assert host.run(service, "configtest").returncode != 0


def test_what_is_not_enabled_is_left_alone(host: RcHost) -> None:
    for service in SERVICES:
        for word in ("faststart", "faststop"):
            run = host.run(service.name, word, mobility_enable="NO", mobility_exabgp_enable="NO", rc_shutdown="reboot")
            assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    assert not host.calls


# -- stop and reload


@pytest.mark.parametrize(
    ("service", "word"), [("mobility", "stop"), ("mobility", "faststop"), ("mobility_exabgp", "stop")]
)
def test_a_stop_touches_no_jail_and_waits_for_the_end(host: RcHost, service: str, word: str) -> None:
    host.run(service, "start")
    until(lambda: any(call.startswith("agent: ") for call in host.calls), "it did not start")
    child, supervisor = host.agent, host.supervisor(service)
    host.forget()
    stopped = host.run(service, word, rc_shutdown="reboot")
    assert stopped.returncode == 0
    # daemon(8) of FreeBSD 13 does not wait for its child
    assert host.calls == ["agent: ended"]
    assert not alive(child)
    assert supervisor is not None
    assert not alive(supervisor)


def test_a_pid_that_somebody_else_has_by_now_is_not_waited_for(host: RcHost) -> None:
    """Between two starts of an agent that can not run the supervisor has no child."""
    (host.folder / "agent.py").write_text("raise SystemExit(1)")
    host.run("mobility", "start")
    with subprocess.Popen(["sleep", "60"]) as stranger:
        (host.folder / "mobility.child.pid").write_text(f"{stranger.pid}\n")
        assert host.run("mobility", "stop").returncode == 0
        assert stranger.poll() is None
        stranger.kill()


def test_a_killed_agent_is_started_again(host: RcHost) -> None:
    host.run("mobility", "start")
    host.await_call("agent: agent --log-to syslog")
    first = host.agent
    os.kill(first, signal.SIGKILL)
    until(lambda: host.agent != first and alive(host.agent), "no new agent")


def test_reload_reaches_the_agent_and_not_its_supervisor(host: RcHost) -> None:
    host.run("mobility", "start")
    host.await_call("agent: agent --log-to syslog")
    supervisor = host.supervisor()
    assert host.run("mobility", "reload").returncode == 0
    host.await_call("agent: SIGHUP")
    # daemon(8) without -H dies of one, and leaves the agent behind
    assert supervisor is not None
    assert alive(supervisor)


def test_reload_without_an_agent_says_so(host: RcHost) -> None:
    reload = host.run("mobility", "reload")
    assert reload.returncode == 1
    assert "mobility is not running" in reload.stderr


# -- the drain at shutdown


def test_at_shutdown_everything_is_withdrawn_by_one_bounded_call(host: RcHost) -> None:
    stopped = host.run("mobility_drain", "faststop", rc_shutdown="reboot")
    assert (stopped.returncode, stopped.stderr) == (0, "")
    (call,) = host.calls
    options = cli._parser().parse_args(call.split()[1:])
    assert options.command == "drain"
    assert options.until_boot
    assert not options.names
    # half of the time at most: jails and all other services stop after it
    assert options.within == cli.WITHIN <= RCSHUTDOWN_TIMEOUT / 2


def test_a_drain_that_fails_or_hangs_holds_up_no_shutdown(host: RcHost) -> None:
    host.mobility("exit 1")
    assert host.run("mobility_drain", "faststop", rc_shutdown="reboot").returncode == 0
    host.mobility("exec sleep 60")
    began = time.monotonic()
    stopped = host.run("mobility_drain", "faststop", rc_shutdown="reboot", mobility_drain_within="1")
    assert time.monotonic() - began < 10
    assert stopped.returncode == 0
    assert "shutting down all the same" in stopped.stderr


def test_without_a_shutdown_nothing_is_withdrawn(host: RcHost) -> None:
    stopped = host.run("mobility_drain", "stop")
    assert stopped.returncode == 0
    assert f"{host.folder}/bin/mobility drain" in stopped.stdout
    assert not host.calls


def test_a_start_ends_the_drain_of_a_shutdown_that_was_none(host: RcHost) -> None:
    started = host.run("mobility_drain", "faststart")
    assert (started.returncode, started.stdout, started.stderr) == (0, "", "")
    (call,) = host.calls
    options = cli._parser().parse_args(call.split()[1:])
    assert options.command == "undrain"
    assert options.until_boot


def test_the_drains_status_is_the_agents(host: RcHost) -> None:
    host.mobility("echo 'host a: agent pid 1'; echo 'drained: the whole host'")
    assert host.run("mobility_drain", "status").stdout == "drained: the whole host\n"
    host.mobility("echo 'host a: agent pid 1'")
    assert host.run("mobility_drain", "status").stdout == "nothing is drained\n"


# -- what is documented


@pytest.mark.parametrize("service", SERVICES, ids=lambda path: path.name)
def test_every_variable_of_rc_conf_is_explained_where_it_is_used(service: Path) -> None:
    text = service.read_text()
    comments = "".join(line for line in text.splitlines(keepends=True) if line.startswith("#"))
    defaults = dict(re.findall(r"^: \$\{(\w+):=(.*)\}$", text, re.MULTILINE))
    assert len(defaults) >= 3
    for name, default in defaults.items():
        assert re.search(rf"^#   {name} +{re.escape(default)}(\s|$)", comments, re.MULTILINE), name
    manual = (REPOSITORY / "deploy" / "freebsd" / "man" / "mobility.8").read_text()
    for name in defaults:
        assert f".It Va {name}\n" in manual
