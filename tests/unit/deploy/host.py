"""A host on which our services are run: rc.subr(8), daemon(8) and the `mobility` command stand beside them as scripts."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from tests.readme import DEPLOY
from tests.waiting import until

RC_D = DEPLOY / "freebsd" / "rc.d"
HERE = Path(__file__).parent

#: What an agent, or ExaBGP, does for these tests: it notes its signals, and takes its time to end.
_LASTING = """
import os, signal, sys, time
calls = open({calls!r}, "a", buffering=1)
signal.signal(signal.SIGHUP, lambda *_: calls.write("agent: SIGHUP\\n"))
def end(*_):
    time.sleep(0.3)
    calls.write("agent: ended\\n")
    os._exit(0)
signal.signal(signal.SIGTERM, end)
with open({pid!r} + ".new", "w") as file:
    file.write(str(os.getpid()))
os.rename(file.name, {pid!r})  # whoever reads it finds the one pid or the other
calls.write("agent: " + " ".join(sys.argv[1:]) + "\\n")
while True:
    signal.pause()
"""


class RcHost:
    """A folder with the services in it. `calls` is what was run, in order; `mobility` says how the command answers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._calls = folder / "calls"
        self._agent = folder / "agent.pid"
        (folder / "mobility.toml").touch()
        (folder / "agent.py").write_text(_LASTING.format(calls=str(self._calls), pid=str(self._agent)))
        self.mobility()
        daemon = folder / "bin" / "daemon"
        daemon.write_text(f'#!/bin/sh\nexec {sys.executable} {HERE / "daemon.py"} "$@"\n')
        daemon.chmod(0o755)
        for service in RC_D.iterdir():
            text = service.read_text()
            assert "\n. /etc/rc.subr\n" in text
            text = text.replace("/etc/rc.subr", str(HERE / "rc_subr.sh")).replace("/var/run/", f"{folder}/")
            text = text.replace("/usr/sbin/daemon", str(daemon))
            (folder / service.name).write_text(text)

    def mobility(self, script: str = "") -> None:
        """Have the command write down how it is called; `agent` and `exabgp` last, all else ends as `script` says."""
        path = self.folder / "bin" / "mobility"
        path.parent.mkdir(exist_ok=True)
        new = path.with_name("new")
        calls, agent = shlex.quote(str(self._calls)), shlex.quote(str(self.folder / "agent.py"))
        new.write_text(
            f'#!/bin/sh\ncase $1 in agent | exabgp) exec {sys.executable} {agent} "$@" ;; esac\n'
            f'echo "mobility $*" >>{calls}\n{script}\n'
        )
        new.chmod(0o755)
        new.replace(path)

    def run(self, service: str, word: str, **settings: str) -> subprocess.CompletedProcess[str]:
        """Run a service's script with a word, as service(8) would."""
        values = {
            "mobility_enable": "YES",
            "mobility_exabgp_enable": "YES",
            "mobility_command": str(self.folder / "bin" / "mobility"),
            "mobility_config": str(self.folder / "mobility.toml"),
            **settings,
        }
        (self.folder / "rc.conf").write_text("".join(f"{key}={shlex.quote(value)}\n" for key, value in values.items()))
        return subprocess.run(
            ["sh", self.folder / service, word],
            env={"PATH": os.environ["PATH"], "TEST_FOLDER": str(self.folder)},
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )

    @property
    def calls(self) -> list[str]:
        """Everything that was run and heard, in order, without the configuration's place."""
        text = self._calls.read_text() if self._calls.exists() else ""
        return text.replace(f" --config {self.folder}/mobility.toml", "").splitlines()

    def forget(self) -> None:
        """Begin `calls` anew."""
        self._calls.write_text("")

    def await_call(self, line: str) -> None:
        """Wait until a line is among the calls."""
        until(lambda: line in self.calls, f"no {line!r} among {self.calls}")

    def supervisor(self, service: str = "mobility") -> int | None:
        """Return the pid of a service's daemon(8), None where it has none."""
        with suppress(FileNotFoundError):
            return int((self.folder / f"{service}.pid").read_text())
        return None

    @property
    def agent(self) -> int:
        """The pid of what runs below the supervisor that was started last."""
        return int(self._agent.read_text())

    def close(self) -> None:
        """End what is left: a supervisor and what it started are one process group."""
        for service in RC_D.iterdir():
            pid = self.supervisor(service.name)
            if pid is not None:
                for end in (os.killpg, os.kill):
                    with suppress(ProcessLookupError):
                        end(pid, signal.SIGKILL)
        with suppress(FileNotFoundError, ProcessLookupError):
            os.kill(self.agent, signal.SIGKILL)
