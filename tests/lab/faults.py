"""Faults on purpose: commands that hang, fail, babble or kill the agent; full disks; a host's leftovers.

    faults = Faults(host)
    host.configure(paths={"commands": faults.commands})
    faults.fail("ifconfig * destroy", "no such luck", times=1)

The agent finds scripts of the commands' names before FreeBSD's commands; each reads the rule of the moment, a piece of
sh, and then becomes the real command. `Pattern`s are sh's own, over the whole command line.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import shlex
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from mobility import control
from mobility.network.command import find
from tests.lab.ground import linux_only
from tests.lab.invariants import LOOK_AGAIN, REST_SECONDS, await_rest
from tests.lab.topology import REPOSITORY, START_SECONDS, Host, Lab
from tests.lab.watch import NotInTime, Process, poked_by

COMMANDS = ("ifconfig", "jexec", "jls", "netstat", "route", "sysctl")
GIGABYTE = 1 << 30
#: Whom a file in the spool may belong to that is not the agent.
STRANGER = 65534

#: What only looks, with `look` set. Everything else changes something, and counts as a step.
_SCRIPT = """\
#!/bin/sh
name=${{0##*/}}
line="$name $*"
real={real}/$name
here={here}
PATH=/usr/bin:/bin:$PATH
look=
case $line in
"ifconfig -a" | "ifconfig -g "* | "jexec "*" ifconfig" | "jexec "*" netstat "* | *" -j 0" | \\
"jls "* | "netstat "* | "sysctl "*) look=yes ;;
esac
step() {{
    # one write of a short line at the end of a file is whole (open(2), O_APPEND); the last of this process is its number
    echo "$$ $line" >>"$here/steps"
    number=$(awk -v pid=$$ '$1 == pid {{ number = NR }} END {{ print number }}' "$here/steps")
}}
disarm() {{
    echo : >"$here/rule.$$" && mv "$here/rule.$$" "$here/rule"
}}
. "$here/rule"
exec "$real" "$@"
"""
#: How the agent dies at a step: the command is still run, never run, or was run and nobody heard its answer.
KILLS = {
    "before": 'kill -KILL "$PPID"',
    "instead": 'kill -KILL "$PPID"; exit 1',
    "after": '"$real" "$@" >/dev/null 2>&1; kill -KILL "$PPID"; exit 0',
}


class Faults:
    """The scripts before one host's commands. Without a rule they do nothing but become the real commands."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.folder = host.folder / "faults"
        self.bin = self.folder / "bin"
        self.bin.mkdir(parents=True)
        self.clear()
        for name in COMMANDS:
            real = find(name, host.ground.commands).parent
            script = self.bin / name
            script.write_text(_SCRIPT.format(real=shlex.quote(str(real)), here=shlex.quote(str(self.folder))))
            script.chmod(0o755)

    @property
    def commands(self) -> list[str]:
        """What belongs into paths.commands."""
        return [str(self.bin), *map(str, self.host.ground.commands)]

    def rule(self, text: str) -> None:
        """Put a piece of sh into force for every command from now on, and forget what was counted."""
        for file in ("steps", "hung"):
            (self.folder / file).write_text("")
        draft = self.folder / "rule.new"
        draft.write_text(text + "\n")
        draft.rename(self.folder / "rule")

    def clear(self) -> None:
        """Let the commands work again."""
        self.rule(":")

    def count(self, *, looks: bool = False) -> None:
        """Do nothing but count steps, those that only look included or not."""
        self.rule("step" if looks else '[ "$look" ] || step')

    def steps(self) -> list[str]:
        """Return the commands that were counted."""
        return [line.partition(" ")[2] for line in (self.folder / "steps").read_text().splitlines()]

    def kill_at(self, number: int, how: str, *, looks: bool = False) -> None:
        """Kill the agent outright at its command of that number, from 1; `looks` count or not; `how` is in KILLS."""
        counted = "step" if looks else '[ "$look" ] || step'
        self.rule(f'number=0; {counted}; [ "$number" -ne {number} ] || {{ disarm; {KILLS[how]}; }}')

    def kill_always(self, how: str) -> None:
        """Kill every agent outright at its first command that changes anything."""
        self.rule(f'[ "$look" ] || {{ {KILLS[how]}; }}')

    def fail(self, pattern: str, words: str, *, times: int | None = None) -> None:
        """Have the commands of a pattern fail with these words, so many times or always."""
        limit = "" if times is None else f'step; [ "$number" -gt {times} ] ||'
        self._matching(pattern, f"{limit} {{ printf '%s\\n' {shlex.quote(words)} >&2; exit 1; }}")

    def hang(self, pattern: str, *, times: int | None = None) -> None:
        """Have the commands of a pattern hang, with a child that hangs too, so many times or always."""
        limit = "" if times is None else f'step; [ "$number" -gt {times} ] ||'
        self._matching(pattern, f'{limit} {{ sleep 600 & echo "$$ $!" >>"$here/hung"; wait; exit 1; }}')

    def babble(self, pattern: str) -> None:
        """Have the commands of a pattern print a gigabyte."""
        self._matching(pattern, f"exec head -c {GIGABYTE} /dev/zero")

    def _matching(self, pattern: str, what: str) -> None:
        spaced = "".join(letter if letter in "*?[]" else shlex.quote(letter) for letter in pattern)
        self.rule(f"case $line in {spaced}) {what} ;; esac")

    def hung(self) -> list[int]:
        """Return the pids of the commands that hang or hung, and of their children."""
        return [int(word) for word in (self.folder / "hung").read_text().split()]

    def await_hung(self) -> None:
        """Wait until a command hangs."""
        agent = running(self.host)
        with poked_by(agent, self.folder):
            agent.await_(lambda: bool(self.hung()), "command that hangs", START_SECONDS)

    def release(self) -> None:
        """Let the commands work again, and end those that hang."""
        hung = self.hung()
        self.clear()
        for pid in hung:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def running(host: Host) -> Process:
    """Return the host's agent, which must have been started."""
    assert host.agent is not None, "no agent was started"
    return host.agent


def await_death(host: Host, seconds: float = START_SECONDS) -> None:
    """Wait until a fault has killed the agent."""
    agent = running(host)
    try:
        agent.process.wait(seconds)
    except subprocess.TimeoutExpired:
        raise NotInTime(f"the agent was not killed within {seconds:g} s\n{agent.tail()}") from None
    host.stop_agent(signal.SIGKILL)


def first_to_end(*several: subprocess.Popen[str], seconds: float = START_SECONDS) -> subprocess.Popen[str]:
    """Wait until one of several processes has ended, and return it: the last one if more than one has."""
    linux_only("it waits for processes by pidfd_open(2)")
    handles = {os.pidfd_open(process.pid): process for process in several if process.poll() is None}
    try:
        ended = [process for process in several if process not in handles.values()]
        if not ended:
            ready = select.select([*handles], [], [], seconds)[0]
            ended = [process for handle, process in handles.items() if handle in ready]
    finally:
        for handle in handles:
            os.close(handle)
    if not ended:
        raise NotInTime(f"none of {[process.args for process in several]} ended within {seconds:g} s")
    return ended[-1]


def agent_command(host: Host) -> list[str]:
    """Return the argv of a host's agent."""
    return [sys.executable, "-m", "mobility", "agent", "--config", str(host.config)]


def spawn_agent(host: Host) -> None:
    """Start the agent and do not wait for it."""
    host.run_folder.mkdir(mode=0o755, exist_ok=True)
    host.agent = host.service("agent", agent_command(host))


def answers(host: Host) -> bool:
    """Tell whether the agent's control socket answers; a predecessor that is just being killed does not."""
    try:
        control.request(host.run_folder / "control.sock", "status")
    except control.ControlError:
        return False
    return True


def await_agent(host: Host) -> None:
    """Wait until the agent answers that was just started."""
    agent = running(host)
    with poked_by(agent, host.run_folder):
        agent.await_(lambda: answers(host), "answer on the control socket", START_SECONDS)


def new_agent(host: Host) -> None:
    """Kill the agent if there is one, start another and wait until it answers."""
    if host.agent is not None:
        host.stop_agent(signal.SIGKILL)
    spawn_agent(host)
    await_agent(host)


def put_event(host: Host, jail: str, phase: str, when: float, *, draft: bytes | None = None, owner: int = 0) -> str:
    """Leave an event in the spool as a hook does that waits for no answer; `when` it happened is UTC, in seconds.

    `draft` is what the file really holds, `owner` whom it belongs to. Return the file's name.
    """
    text = f"mobility-event 1\nphase {phase}\njail {jail}\nreply no\nend\n".encode() if draft is None else draft
    name = f"{jail}.{phase}.{time.monotonic_ns()}"
    spool = host.folder / "spool"
    path = spool / "tmp" / name
    path.write_bytes(text)
    os.chown(path, owner, -1)
    os.utime(path, (when, when))
    path.rename(spool / "new" / name)
    return name


def eventually(check: Callable[[], bool], what: str, host: Host, seconds: float = REST_SECONDS) -> None:
    """Wait until `check` holds, looking again at each line that the host's agent logs, and in short turns."""
    agent = running(host)
    deadline = time.monotonic() + seconds
    while not check():
        if time.monotonic() > deadline or not agent.running:
            raise NotInTime(f"{host.name}: no {what} within {seconds:g} s\n{agent.tail()}")
        # the agent's status, its database and its spool have no one source of news
        time.sleep(LOOK_AGAIN)


class Log:
    """What a host's agent logs from now on."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._path = host.folder / "agent.log"
        self._from = self._path.stat().st_size

    def text(self) -> str:
        """Return what was logged so far."""
        with self._path.open("rb") as log:
            log.seek(self._from)
            return log.read().decode(errors="replace")

    def wait(self, words: str, seconds: float = REST_SECONDS) -> None:
        """Wait until the agent has said this."""
        running(self._host).await_(lambda: words in self.text(), f"{words!r} in its log", seconds)


def bridge_of(host: Host) -> int | None:
    """Return the pid of ExaBGP's one child, None while it has none."""
    assert host.exabgp is not None, "no ExaBGP was started"
    pid = host.exabgp.process.pid
    children = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False).stdout.split()
    return int(children[0]) if children else None


def spool_files(host: Host) -> list[str]:
    """Return what lies in the spool, but for what was put aside."""
    spool = host.folder / "spool"
    return sorted(f"{folder}/{path.name}" for folder in ("tmp", "new", "reply") for path in (spool / folder).iterdir())


def await_hooks(host: Host) -> None:
    """Wait until the agent has done what hooks have told it: the last hook of a start waits for no answer."""
    eventually(lambda: not spool_files(host), "empty spool", host)


def await_clean(lab: Lab, host: Host, jails: Mapping[str, Collection[str]]) -> None:
    """Wait until a host shows exactly these jails (see invariants), and nothing waits in its spool."""
    await_rest(lab, host, jails)
    eventually(lambda: not spool_files(host), f"empty spool: {spool_files(host)}", host)


def remembered(host: Host) -> list[str]:
    """Return the names of the jails that the agent's database remembers."""
    with contextlib.closing(sqlite3.connect(f"file:{host.folder}/state/mobility.sqlite?mode=ro", uri=True)) as database:
        return [name for (name,) in database.execute("SELECT name FROM jail ORDER BY name")]


def status_of_host(host: Host) -> dict[str, Any]:
    """Return what `mobility status` says of the host itself."""
    found: dict[str, Any] = control.request(host.run_folder / "control.sock", "status")["host"]
    return found


def why_not(host: Host, jail: str) -> str:
    """Return what `mobility status` says of why a jail is not announced."""
    answer = control.request(host.run_folder / "control.sock", "status", names=[jail])
    return str(answer["jails"][0]["reason"])


def metric(host: Host, name: str) -> float:
    """Return the sum of a metric over its labels, as the host's agent serves it."""
    fetch = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:9971/metrics', timeout=10).read().decode())"
    text = host.run([sys.executable, "-c", fetch]).stdout
    return sum(float(line.split()[-1]) for line in text.splitlines() if re.match(rf"{name}(\{{|\s)", line))


class SmallDisk:
    """The agent of a host in a mount namespace of its own, in which one of its folders is a small file system.

    Nothing is mounted where others could see it, and it is gone with the agent.
    """

    def __init__(self, host: Host, folder: Path, size: int) -> None:
        linux_only("a file system that only one process sees needs a mount namespace")
        self.host = host
        self.folder = folder
        folder.mkdir(mode=0o700, exist_ok=True)
        host.run_folder.mkdir(mode=0o755, exist_ok=True)
        script = 'mount -t tmpfs -o size="$1",mode=700 none "$2" && shift 2 && exec "$@"'
        private = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", str(size), str(folder)]
        host.agent = host.service("agent", [*private, *agent_command(host)])
        await_agent(host)

    @property
    def enter(self) -> list[str]:
        """The argv prefix that runs a program where that file system is."""
        return ["nsenter", f"--mount=/proc/{running(self.host).process.pid}/ns/mnt", f"--wd={REPOSITORY}", "--"]

    def fill(self) -> None:
        """Leave no byte free."""
        result = self.host.run([*self.enter, "dd", "if=/dev/zero", f"of={self.folder}/filler", "bs=1k"], check=False)
        assert "No space left on device" in result.stderr, result.stderr

    def free(self) -> None:
        """Make room again."""
        self.host.run([*self.enter, "rm", f"{self.folder}/filler"])

    def jail(self, *arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run jail(8) there, so that its hooks see that file system too."""
        return self.host.run([*self.enter, "jail", "-f", self.host.jail_conf, *arguments], check=check)
