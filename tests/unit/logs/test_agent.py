"""A real agent's log, on a host whose FreeBSD commands are small scripts: its lines, its end, and no password anywhere."""

from __future__ import annotations

import json
import logging
import os
import pwd
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from mobility import cli, config, logs
from mobility.logs.lines import JsonFormatter, TextFormatter
from tests.readme import REPOSITORY
from tests.unit.logs.test_syslog import Syslogd, parsed
from tests.unit.test_host import BIN, Scripts
from tests.waiting import PATIENCE, until

#: Strange, and right; a shell, a regular expression and TOML all know these characters.
SECRETS = ("s3cret#(1)$%&*+,./:<=>?@^_~-!", "0" * 80, "Zz9!Zz9!Zz9!")
NEW_SECRET = "chang3d%s%(message)s"
CAN_NOT = "can not be brought to where it should stand"
HOOK = REPOSITORY / "hooks" / "mobility-hook"


class Here:
    """A host's files, and the agent on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        commands = folder / "bin"
        commands.mkdir()
        self.scripts = Scripts(commands)
        self.scripts.write("sysctl", 'case "$*" in *boot_id) echo Dump:0x0123456789abcdef;; *) echo 1;; esac')
        self.path = folder / "mobility.toml"
        (folder / "jails.d").mkdir(mode=0o755)
        self.grant("web1", "198.51.100.7/32")
        self.configure(SECRETS)
        self.log = folder / "log"
        self.process: subprocess.Popen[bytes] | None = None

    def grant(self, jail: str, prefix: str) -> None:
        path = self.folder / "jails.d" / f"{jail}.toml"
        path.write_text(f'addresses = ["{prefix}"]\n')
        path.chmod(0o644)

    def configure(self, passwords: tuple[str, ...], more: str = "") -> None:
        peers = "".join(
            f'[[bgp.peer]]\nname = "spine{number}"\naddress = "fd00:{number}::ff"\nas = 65000\n'
            f"local_address = \"fd00:{number}::1\"\npassword = '{password}'\n"
            for number, password in enumerate(passwords)
        )
        run = self.folder / "run"
        self.path.write_text(
            f'[host]\nname = "a"\nallowed = ["198.51.100.0/24"]\n'
            f'[paths]\nrun = "{run}"\nstate = "{self.folder / "db"}"\njails_d = "{self.folder / "jails.d"}"\n'
            f"commands = {json.dumps([str(self.scripts.folder), *map(str, BIN)])}\n"
            f'[managers]\nbastille = ""\niocage = ""\njail_conf = ""\n'
            f'[hooks]\nspool = "{run / "spool"}"\n[metrics]\nlisten = ""\n'
            f'[bgp]\nas = 65001\nrouter_id = "10.0.0.1"\nuser = "{pwd.getpwuid(os.geteuid()).pw_name}"\n{peers}{more}'
        )
        self.path.chmod(0o600)

    def mobility(self, *words: str) -> str:
        """Return all that a command of `mobility` says."""
        said = StringIO()
        with redirect_stdout(said), redirect_stderr(said):
            cli.main([words[0], "--config", str(self.path), *words[1:]])
        return said.getvalue()

    def start(self, *words: str) -> None:
        argv = [sys.executable, "-m", "mobility", "agent", "--config", str(self.path), *words]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(argv, stdout=log, stderr=log, cwd=REPOSITORY)
        until(self.answers, "the agent does not answer")

    def answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()
        return (self.folder / "run" / "control.sock").exists() and "looked at the host" in self.log.read_text()

    def hook(self, phase: str, jail: str = "web1") -> subprocess.CompletedProcess[str]:
        argv = ["sh", str(HOOK), "-c", str(self.path), phase, jail]
        return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=PATIENCE)

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def said(self, message: str) -> list[dict[str, Any]]:
        return [line for line in self.lines() if line["message"] == message]

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(PATIENCE)


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Here]:
    here = Here(tmp_path)
    yield here
    here.stop()


def test_what_an_event_causes_carries_its_id(here: Here) -> None:
    here.start("--log-format", "json", "--log-level", "debug")
    assert here.hook("prestart").returncode == 0
    ifconfig = (here.scripts.folder / "ifconfig").read_text().partition("\n")[2]
    here.scripts.write("ifconfig", f"[ \"$2\" != create ] || {{ echo 'no more of them' >&2; exit 1; }}\n{ifconfig}")
    here.grant("db1", "198.51.100.8/32")
    assert here.hook("prestart", "db1").returncode == 1
    until(lambda: bool(here.said(CAN_NOT)), "no error is logged")
    events = {line["jail"]: line["event"] for line in here.said("hook")}
    assert events.keys() == {"web1", "db1"}
    paired = here.said("network: paired")
    assert [line["jail"] for line in paired] == ["web1"]
    ran = here.said("ran")
    assert {line["jail"] for line in ran} == {"web1", "db1"}
    errors = here.said(CAN_NOT)
    assert [line["jail"] for line in errors] == ["db1"]
    for line in (*paired, *ran, *errors):
        assert line["event"] == events[line["jail"]], line
    assert all("jail" not in line for line in here.said("looked at the host"))
    assert {"time", "level", "logger", "message"} <= set.intersection(*(set(line) for line in here.lines()))


def test_a_flood_of_one_jail_is_cut_and_summed_up(here: Here) -> None:
    here.configure(SECRETS, "[log]\nburst = 3\nper_second = 0.01\n")
    here.grant("db1", "198.51.100.8/32")
    here.start("--log-format", "json")
    for _ in range(8):
        assert here.hook("poststop").returncode == 0
    assert here.hook("poststop", "db1").returncode == 0
    here.stop()
    assert [line["jail"] for line in here.said("hook")] == ["web1"] * 3 + ["db1"]
    # at the latest when the agent ends
    (summary,) = [line for line in here.lines() if "like" in line and line["like"] == "hook"]
    assert summary["message"] == "5 lines like this were not written"
    assert (summary["jail"], summary["lines"]) == ("web1", 5)
    assert here.mobility("history", "--json", "web1").count('"poststop"') == 8


def test_no_password_is_in_anything_that_is_said(here: Here, own_logging: None) -> None:
    here.start("--log-format", "json", "--log-level", "debug")
    outputs = [
        here.mobility(*words)
        for words in (["status"], ["status", "--json"], ["check"], ["check", "--json"], ["plan", "--json"], ["doctor"])
    ]
    hooked = here.hook("prestart")
    outputs.append(hooked.stdout + hooked.stderr)
    # a reload that is taken up, one that is refused, and files that are wrong in all the ways that may quote a password
    here.configure((*SECRETS[:2], NEW_SECRET))
    outputs += [here.mobility("reload"), here.mobility("reload", "--json")]
    assert "spine2 changes: password" in "".join(outputs)
    for bad in (
        f"hold_time = 'x{NEW_SECRET}'",
        f"password2 = '{NEW_SECRET}'",
        f"password = '{NEW_SECRET}'",
        "password = ",
        f"[bgp.peer.extra]\npassword = '{NEW_SECRET}'",
    ):
        here.configure(SECRETS, bad)
        outputs += [here.mobility(*words) for words in (["reload"], ["check"], ["check", "--json"], ["status"])]
    for table in ("[bgp.peer]", "[[bgp]]"):
        here.path.write_text(f"{table}\npasswort = '{SECRETS[0]}'\npassword = '{SECRETS[2]}'\n")
        outputs += [here.mobility("check"), here.mobility("check", "--json")]
    here.configure(("quotes ' \" are refused".replace("'", ""), "ä" * 20))
    outputs.append(here.mobility("check"))
    assert here.process is not None
    here.process.send_signal(signal.SIGHUP)
    until(lambda: bool(here.said("mobility.toml")), "the reload is not logged")
    here.stop()
    everything = here.log.read_text() + "".join(outputs)
    assert "(hidden)" in everything
    for secret in (*SECRETS, NEW_SECRET, "are refused", "ä" * 20):
        known = secret if secret != NEW_SECRET else f"'{NEW_SECRET}"
        assert known not in everything, [line for line in everything.splitlines() if secret in line]


def test_an_end_that_nobody_expected_is_one_line(here: Here) -> None:
    program = (
        "import sys\n"
        "from mobility import cli\n"
        "from mobility.agent import Agent\n"
        "async def run(self):\n"
        "    raise RuntimeError(f'line one\\nline two of {self.config.bgp.peers} ' + self.config.bgp.peers[0].password)\n"
        "Agent.run = run\n"
        f"sys.exit(cli.main(['agent', '--config', {str(here.path)!r}]))\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=REPOSITORY)
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert re.match(r"\S+Z CRITICAL crashed: please report this line traceback=\"Traceback", line)
    assert "RuntimeError: line one" in line
    assert SECRETS[0] not in line
    assert "(hidden)" in line


def test_its_log_goes_to_syslogd_when_it_is_told_to_with_its_end(here: Here) -> None:
    syslogd = Syslogd(here.folder / "syslogd")
    program = (
        "import logging, sys\n"
        "from pathlib import Path\n"
        "from mobility import cli, logs\n"
        "from mobility.agent import Agent\n"
        "async def run(self):\n"
        "    logging.getLogger('mobility.test').info('ran', extra={'jail': 'web1'})\n"
        "    raise RuntimeError('line one\\nline two')\n"
        "Agent.run = run\n"
        f"logs.configure.__kwdefaults__['sockets'] = (Path({str(syslogd.path)!r}),)\n"
        f"sys.exit(cli.main(['agent', '--log-to', 'syslog', '--config', {str(here.path)!r}]))\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=REPOSITORY)
    assert (ended.returncode, ended.stderr) == (1, "")
    first, last = syslogd.messages()
    assert (parsed(first)["pri"], parsed(first)["line"]) == ("30", "INFO ran jail=web1")
    assert parsed(last)["pri"] == "26"  # daemon.crit
    assert parsed(last)["line"].startswith("CRITICAL crashed: please report this line traceback=")
    syslogd.ends()


# -- what covers a password that somebody else quotes


def made(text: str, **extra: object) -> logging.LogRecord:
    record = logging.makeLogRecord({"msg": text, "levelname": "INFO", "name": "mobility.test", "created": 1.5})
    record.__dict__.update(extra)
    return record


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()], ids=["text", "json"])
def test_a_password_that_is_quoted_is_covered(formatter: logging.Formatter, own_logging: None) -> None:
    logs.hide([*SECRETS, "kernel", "", "short"])
    secret = SECRETS[0]
    line = formatter.format(made(f"ExaBGP said {secret}", problem=f"md5-password '{secret}'", jail="web1"))
    assert secret not in line
    assert line.count("(hidden)") == 2
    # they are words that other things are called by
    assert "short kernel" in formatter.format(made("short kernel"))


def test_a_peer_does_not_show_its_password(here: Here) -> None:
    loaded = config.load(here.path)
    assert loaded.bgp.peers[0].password == SECRETS[0]
    for secret in SECRETS:
        assert secret not in repr(loaded)


def test_a_line_that_must_be_short_keeps_what_it_belongs_to() -> None:
    record = made("x" * 5000, jail="web1", event="e1", argv="y" * 5000, **{f"field{n}": "z" * 500 for n in range(100)})
    for formatter in (TextFormatter(longest=1000), JsonFormatter(longest=1000)):
        line = formatter.format(record)
        assert len(line) <= 1000
        assert "web1" in line
        assert "e1" in line


def test_a_traceback_keeps_its_end() -> None:
    try:
        raise ValueError("x" * 10_000 + " the end")
    except ValueError:
        record = made("unexpected error", jail="web1")
        record.exc_info = sys.exc_info()
    line = TextFormatter().format(record)
    assert len(line) <= 4000
    assert line.endswith('the end"')


def test_daemon_reads_a_whole_line() -> None:
    """daemon(8) makes two messages of what is longer than its buffer (LBUF_SIZE, 4096, one of it for the end)."""
    line = TextFormatter().format(made("said", problem="é" * 10_000))
    assert len(line.encode()) + len(os.linesep) <= 4095
