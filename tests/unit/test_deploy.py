"""deploy/: what is there can be used as it is, and says what the program does."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mobility import cli, config
from tests.readme import DEPLOY
from tests.unit.test_readme import known_settings

SERVICES = sorted((DEPLOY / "freebsd" / "rc.d").iterdir())
SAMPLE = DEPLOY / "mobility.toml.sample"
#: A comment that is a setting: "# key = value".
SETTING = re.compile(r"^# ([a-z_0-9]+ = \S.*)$", re.MULTILINE)


# -- mobility.toml.sample


def uncommented() -> str:
    return SETTING.sub(r"\1", SAMPLE.read_text())


def test_the_sample_has_every_setting() -> None:
    data = tomllib.loads(uncommented())
    (peer,) = data["bgp"].pop("peer")
    found = {f"{section}.{key}" for section, values in data.items() for key in values}
    assert found | {f"bgp.peer.{key}" for key in peer} == known_settings()


def test_what_the_sample_has_as_comments_are_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "short").write_text(SAMPLE.read_text())
    (tmp_path / "long").write_text(uncommented())
    short, long = config.load(tmp_path / "short"), config.load(tmp_path / "long")
    (peer,) = short.bgp.peers
    # what has no fixed default: it is taken from the host, or from where Python is, or there is none
    peers = (replace(peer, next_hop_ipv4=long.bgp.peers[0].next_hop_ipv4),)
    bgp = replace(short.bgp, peers=peers, bridge_command=long.bgp.bridge_command)
    assert replace(short, path=long.path, host=replace(short.host, name=long.host.name), bgp=bgp) == long


# -- the services


@pytest.mark.parametrize("service", SERVICES, ids=lambda path: path.name)
def test_a_service_is_a_script_and_says_what_rcorder_needs(service: Path) -> None:
    subprocess.run(["sh", "-n", service], check=True)
    assert os.access(service, os.X_OK)
    text = service.read_text()
    assert f"# PROVIDE: {service.name}\n" in text
    # jails, and their managers, come after LOGIN (rc.d/jail): at boot after us, at shutdown before us
    assert "# BEFORE: LOGIN\n" in text
    assert "# KEYWORD: shutdown\n" in text


#: In the place of rc.subr(8): what is set before run_rc_command is written down, and a function may be called.
RC_SUBR = """
load_rc_config() { :; }
warn() { echo "warning: $*"; }
wait_for_pids() { echo "waited for: $*"; }
run_rc_command() {
    eval "precmd=\\${$1_precmd-} postcmd=\\${$1_postcmd-} cmd=\\${$1_cmd-}"
    [ -z "$precmd" ] || $precmd || exit 1
    if [ -n "$cmd" ]; then $cmd; elif [ "$1" = start ]; then echo "$command $command_args"; fi || exit 1
    if [ "$1" = stop ]; then rm -f "$child_pidfile"; fi
    [ -z "$postcmd" ] || $postcmd
}
"""


class Service:
    """A service on a host whose programs write down how they are called."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.child_pidfile = folder / f"{name}.child.pid"
        (folder / "rc.subr").write_text(RC_SUBR)
        text = (DEPLOY / "freebsd" / "rc.d" / name).read_text()
        assert "\n. /etc/rc.subr\n" in text
        text = text.replace("/etc/rc.subr", str(folder / "rc.subr")).replace("/var/run/", f"{folder}/")
        self.script = folder / name
        self.script.write_text(text)
        self.program("mobility")
        self.program("hook")
        self.program("jls", "echo web1; echo 'a b'")
        self.settings = {
            "mobility_command": str(folder / "bin" / "mobility"),
            "mobility_hook": str(folder / "bin" / "hook"),
            "mobility_config": "/etc/m.toml",
        }

    def program(self, name: str, script: str = "") -> None:
        path = self.folder / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f'#!/bin/sh\necho "{name} $*" >>{shlex.quote(str(self.folder / "calls"))}\n{script}\n')
        path.chmod(0o755)

    def run(self, word: str, **settings: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": f"{self.folder}/bin:{os.environ['PATH']}", **self.settings, **settings}
        return subprocess.run(
            ["sh", self.script, word], env=environment, capture_output=True, text=True, check=False, timeout=20
        )

    @property
    def calls(self) -> list[str]:
        path = self.folder / "calls"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def agent(tmp_path: Path) -> Service:
    return Service(tmp_path, "mobility")


@pytest.mark.parametrize(("service", "command"), [("mobility", "agent"), ("mobility_exabgp", "exabgp")])
def test_daemon_is_told_to_run_a_command_that_exists(tmp_path: Path, service: str, command: str) -> None:
    run = Service(tmp_path, service).run("start", mobility_flags="--log-format json" if command == "agent" else "")
    (line,) = [line for line in run.stdout.splitlines() if line.startswith("/usr/sbin/daemon")]
    words = shlex.split(line)
    at = words.index(f"{tmp_path}/bin/mobility")
    options = cli._parser().parse_args(words[at + 1 :])
    assert options.command == command
    assert str(options.config) == "/etc/m.toml"
    # daemon(8) has these options in FreeBSD 13.2
    assert words[1:at] == shlex.split(
        f"-cf -P {tmp_path}/{service}.pid -p {tmp_path}/{service}.child.pid -r -R 2 -S -s info -T {service} -t {service}"
    )


def test_a_start_tells_of_mistakes_and_waits_for_the_agent(agent: Service) -> None:
    count = f'n=$(grep -c "^mobility status" {agent.folder}/calls)'
    agent.program("mobility", f'case $1 in check) exit 78 ;; status) {count}; [ "$n" -ge 2 ] ;; esac')
    started = agent.run("start")
    assert started.returncode == 0
    assert "warning: mobility: the configuration has mistakes" in started.stdout
    assert [call.split()[1] for call in agent.calls] == ["check", "status", "status"]


def test_a_start_gives_up_on_an_agent_that_does_not_answer(agent: Service) -> None:
    agent.program("mobility", "[ $1 != status ]")
    started = agent.run("start", mobility_start_within="1")
    assert started.returncode == 1
    assert "does not answer after 1 s" in started.stdout


def test_a_stop_leaves_the_jails_alone_and_waits_for_the_agents_end(agent: Service) -> None:
    agent.child_pidfile.write_text("4711")
    stopped = agent.run("stop")
    assert stopped.returncode == 0
    assert stopped.stdout == "waited for: 4711\n"
    assert not agent.calls


def test_at_shutdown_every_jail_that_is_left_is_withdrawn(agent: Service) -> None:
    assert agent.run("stop", rc_shutdown="reboot").returncode == 0
    assert agent.calls == ["jls name", "hook -c /etc/m.toml prestop web1", "hook -c /etc/m.toml prestop a b"]


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def test_reload_reaches_the_agent(agent: Service, child: subprocess.Popen[bytes]) -> None:
    agent.child_pidfile.write_text(f"{child.pid}\n")
    assert agent.run("reload").returncode == 0
    assert child.wait(10) == -1  # SIGHUP


# -- the router


@pytest.mark.skipif(not shutil.which("bird"), reason="needs BIRD 2 (apt-get install bird2)")
def test_bird_reads_its_configuration() -> None:
    read = subprocess.run(["bird", "-p", "-c", DEPLOY / "fabric" / "bird.conf"], capture_output=True, text=True)
    assert read.returncode == 0, read.stderr


def test_the_router_and_the_hosts_agree_on_what_jails_may_hold(tmp_path: Path) -> None:
    router = (DEPLOY / "fabric" / "bird.conf").read_text()
    for prefix in config.load(SAMPLE).host.allowed:
        length = 32 if prefix.version == 4 else 128
        assert f"[ {prefix}{{{length},{length}}} ]" in router


# -- logs


def test_the_log_that_is_written_is_the_one_that_is_turned() -> None:
    syslog = (DEPLOY / "freebsd" / "syslog.d" / "mobility.conf").read_text()
    newsyslog = (DEPLOY / "freebsd" / "newsyslog.conf.d" / "mobility.conf").read_text()
    (log,) = re.findall(r"^\*\.\*\s+(\S+)$", syslog, re.MULTILINE)
    assert re.search(rf"^{re.escape(log)}\s", newsyslog, re.MULTILINE)
    # daemon(8)'s tags
    assert f"!{','.join(service.name for service in SERVICES)}\n" in syslog
