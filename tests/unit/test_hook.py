"""The sh hook as jail(8) runs it, by every shell that is here, against a real spool."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytest

from mobility.events.spool import MAX_ANSWER, Event, Spool, hooks_section_readable
from mobility.model import Phase

HOOK = Path(__file__).parents[2] / "hooks" / "mobility-hook"
#: FreeBSD's own, and elsewhere one of its kind (dash) first.
KINDS = (("sh",),) if sys.platform.startswith("freebsd") else (("dash",), ("busybox", "sh"), ("bash", "--posix"))
SHELLS = [shell for shell in KINDS if shutil.which(shell[0]) is not None]
WAITING = (Phase.PRESTART, Phase.CREATED, Phase.PRESTOP)
STARTING = (Phase.PRESTART, Phase.CREATED)
STOPPING = (Phase.PRESTOP, Phase.POSTSTOP)
NEVER = 3600.0
SOON = 20.0


class Ended(NamedTuple):
    status: int
    out: str
    err: str


@dataclass(frozen=True)
class Host:
    """A configuration, the spool that it names, and the shell that runs the hook here."""

    shell: Sequence[str]
    config: Path
    spool: Spool

    def configure(self, *, timeout: int = 30, when_agent_down: str = "refuse") -> None:
        text = (
            f'[host]\nname = "a"\n\n[hooks]\nspool = "{self.spool.folder}"\n'
            f'timeout = {timeout}\nwhen_agent_down = "{when_agent_down}"\n\n[bgp]\nas = 65001\n'
        )
        assert hooks_section_readable(text) == []
        self.config.write_text(text)

    def argv(self, *words: str | bytes) -> list[str | bytes]:
        return [*self.shell, str(HOOK), "-c", str(self.config), *words]

    async def start(self, *words: str | bytes) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *self.argv(*words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    async def run(self, *words: str | bytes) -> Ended:
        return await ended(await self.start(*words))

    def left(self) -> dict[str, int]:
        """Count what lies in the spool's folders."""
        folders = ("tmp", "new", "reply", "bad")
        return {name: len(list((self.spool.folder / name).iterdir())) for name in folders}


NOTHING = {"tmp": 0, "new": 0, "reply": 0, "bad": 0}


async def ended(process: asyncio.subprocess.Process) -> Ended:
    """Wait for a hook as a manager does: to the end of its output. Nothing that it started may outlive it."""
    async with asyncio.timeout(SOON):
        out, err = await process.communicate()
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode("utf-8", "replace"))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(SOON):
        while not condition():  # noqa: ASYNC110  # what is waited for happens in another process
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def agent(spool: Spool, judge: Callable[[Event], tuple[bool, str]]) -> AsyncIterator[list[Event]]:
    """Run what the agent does with its spool; yields the list of what it was told."""
    told: list[Event] = []

    async def work() -> None:
        async with aclosing(spool.events()) as events:
            async for event in events:
                told.append(event)
                spool.answer(event, *judge(event))
                spool.done(event)

    task = asyncio.create_task(work())
    try:
        yield told
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture(params=SHELLS, ids=lambda shell: shell[0])
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Host:
    host = Host(request.param, tmp_path / "mobility.toml", Spool(tmp_path / "a spool", look_every=NEVER))
    host.configure()
    host.spool.prepare()
    return host


@pytest.fixture(params=Phase)
def phase(request: pytest.FixtureRequest) -> Phase:
    return Phase(request.param)


# --- an agent that answers


def test_every_phase_reaches_the_agent_in_order(host: Host) -> None:
    async def body() -> None:
        async with agent(host.spool, lambda event: (True, "")) as told:
            for phase in Phase:
                assert await host.run(phase, "web-1.a_b") == Ended(0, "", "")
            await until(lambda: len(told) == len(Phase))  # the last hook does not wait
        assert [event.phase for event in told] == list(Phase)
        assert {event.jail for event in told} == {"web-1.a_b"}
        assert [event.phase for event in told if event.reply is not None] == list(WAITING)
        assert host.left() == NOTHING

    asyncio.run(body())


@pytest.mark.parametrize("text", ["not allowed: 192.0.2.1; see 'x' \\n %s $(id)", "x" * 3 * MAX_ANSWER])
def test_a_refusal_stops_a_start_and_never_a_stop(host: Host, text: str) -> None:
    async def body() -> None:
        host.configure(when_agent_down="allow")  # not about an agent that answers
        async with agent(host.spool, lambda event: (False, text)):
            for phase in WAITING:
                status, out, err = await host.run(phase, "web1")
                assert status == (1 if phase in STARTING else 0)
                assert out == ""
                assert f"mobility: jail web1: {phase}: {text[: MAX_ANSWER - 100]}" in err
        assert host.left() == NOTHING

    asyncio.run(body())


def test_a_refusal_without_a_word_is_one(host: Host) -> None:
    async def body() -> None:
        async with agent(host.spool, lambda event: (False, "")):
            ended = await host.run("created", "web1")
        assert ended == Ended(1, "", "mobility: jail web1: created: the agent refused it.\n")

    asyncio.run(body())


def test_what_the_agent_has_to_say_beside_ok_is_shown(host: Host) -> None:
    async def body() -> None:
        async with agent(host.spool, lambda event: (True, "no BGP session yet")):
            ended = await host.run("created", "web1")
        assert ended == Ended(0, "", "mobility: jail web1: created: no BGP session yet\n")

    asyncio.run(body())


def test_an_agent_that_dies_over_an_event_leaves_it_to_the_next(host: Host) -> None:
    async def body() -> None:
        first = Spool(host.spool.folder, look_every=NEVER)
        events = first.events()
        hook = await host.start("created", "web1")
        picked = await anext(events)
        await events.aclose()  # neither answered nor done
        async with agent(host.spool, lambda event: (True, "")) as told:
            assert (await ended(hook)).status == 0
        assert told == [picked]
        assert host.left() == NOTHING

    asyncio.run(body())


def test_many_hooks_at_once_get_their_own_answers(host: Host) -> None:
    async def body() -> None:
        async with agent(host.spool, lambda event: (event.jail.endswith("0"), f"for {event.jail}")):
            names = [f"jail{number}" for number in range(40)]
            answers = await asyncio.gather(*(host.run("prestart", name) for name in names))
        for name, answer in zip(names, answers, strict=True):
            assert answer.status == (0 if name.endswith("0") else 1)
            assert answer.err == f"mobility: jail {name}: prestart: for {name}\n"
        assert host.left() == NOTHING

    asyncio.run(body())


# --- an agent that does not


@pytest.mark.parametrize("policy", ["refuse", "allow"])
def test_no_agent(host: Host, phase: Phase, policy: str) -> None:
    host.configure(timeout=1, when_agent_down=policy)
    status, out, err = asyncio.run(host.run(phase, "web1"))
    assert out == ""
    refused = phase in STARTING and policy == "refuse"
    assert status == (1 if refused else 0)
    if phase in WAITING:
        assert f"jail web1: {phase}: the agent did not answer within 1 s" in err
        assert "to do: service mobility status" in err
    else:
        assert err == ""
    if phase in STARTING:
        assert f'when_agent_down = "{policy}"' in err
    # what was given up is taken back; what goes on is the agent's to see, whenever it comes
    assert host.left() == NOTHING | {"new": 0 if refused else 1}


@pytest.mark.parametrize("policy", ["refuse", "allow"])
def test_no_spool(host: Host, phase: Phase, policy: str) -> None:
    host.configure(when_agent_down=policy)
    shutil.rmtree(host.spool.folder)
    status, _, err = asyncio.run(host.run(phase, "web1"))
    assert status == (1 if phase in STARTING and policy == "refuse" else 0)
    assert f"jail web1: {phase}: there is no spool in {host.spool.folder}" in err
    assert "to do: service mobility start" in err


def test_no_configuration(host: Host, phase: Phase) -> None:
    host.config.unlink()
    status, _, err = asyncio.run(host.run(phase, "web1"))
    assert status == (1 if phase in STARTING else 0)
    assert f"there is no file {host.config}" in err
    assert "mobility check" in err


FULL_BY = {
    "bytes": 'dd if=/dev/zero of="$1/filler" bs=4k 2>/dev/null',
    "files": 'while touch "$1/filler$((n = ${n:-0} + 1))" 2>/dev/null; do :; done',
}


@pytest.mark.lab
@pytest.mark.parametrize("full_by", FULL_BY)
@pytest.mark.parametrize("policy", ["refuse", "allow"])
def test_a_full_spool(host: Host, phase: Phase, policy: str, full_by: str) -> None:
    host.configure(when_agent_down=policy)
    script = (
        'mount -t tmpfs -o mode=700,size=64k,nr_inodes=30 tmpfs "$1"'
        f' && mkdir "$1/tmp" "$1/new" "$1/reply" && {{ {FULL_BY[full_by]}; cd "$1" && shift'
        ' && "$@"; status=$?; find new reply tmp -mindepth 1; exit $status; }'
    )
    words = ["unshare", "--mount", "sh", "-c", script, "sh", str(host.spool.folder), *host.argv(phase, "web1")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=SOON, check=False)
    assert done.returncode == (1 if phase in STARTING and policy == "refuse" else 0), done.stderr
    assert f"jail web1: {phase}: the event could not be left in {host.spool.folder}: it is full" in done.stderr
    assert "make room" in done.stderr
    assert done.stdout == ""  # nothing was left behind


# --- being ended


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("phase", ["prestart", "prestop"])
def test_a_hook_that_is_ended_cleans_up(host: Host, phase: str, number: signal.Signals) -> None:
    async def body() -> None:
        hook = await host.start(phase, "web1")
        async with aclosing(host.spool.events()) as events:
            await anext(events)  # it waits now
        hook.send_signal(number)
        status, _, err = await ended(hook)
        assert status == (128 + number if phase == "prestart" else 0)
        assert "ended before it was done" in err
        assert host.left() == NOTHING | {"new": 1}

    asyncio.run(body())


def test_a_hook_killed_outright_leaves_nothing_that_waits_for_ever(host: Host) -> None:
    async def body() -> None:
        host.configure(timeout=3)  # so long that its sleep is seen
        hook = await host.start("created", "web1")
        async with aclosing(host.spool.events()) as events:
            event = await anext(events)
            await until(lambda: "sleep" in alive(hook.pid))  # until then it is a copy of the hook
            hook.kill()
            async with asyncio.timeout(SOON):
                await hook.communicate()  # what it started does not hold its output open
            await until(lambda: not alive(hook.pid))
            # only now: its sleep, as long as it lasts, holds the FIFO open too
            assert not host.spool.answer(event, True)
            host.spool.done(event)

    asyncio.run(body())


def alive(group: int) -> list[str]:
    """Return the programs that run in a process group; zombies do not: init may be slow to reap them."""
    words = ["ps", "-e", "-o", "pgid=,stat=,comm="]
    rows = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
    fields = [row.split(None, 2) for row in rows]
    return [comm for pgid, state, comm in fields if int(pgid) == group and not state.startswith("Z")]


def test_a_caller_that_does_not_listen_does_no_harm(host: Host) -> None:
    host.configure(timeout=1)
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(host.argv("prestop", "web1"), stdout=writer, stderr=writer, timeout=SOON, check=False)
    finally:
        os.close(writer)
    assert done.returncode == 0


# --- who calls, and how

BAD_NAMES: list[str | bytes] = [
    "",
    "a b",
    "a\nb",
    "a'b",
    'a"b',
    "a;b",
    "a;touch x",
    "$(touch x)",
    "`touch x`",
    "../a",
    "a/b",
    "..",
    ".hidden",
    "-n",
    "*",
    "%s",
    "a\\b",
    "a\tb",
    "jäil",
    b"\xff\xfe",
    "w" * 64,
    "w" * 300,
]


@pytest.mark.parametrize("name", BAD_NAMES, ids=lambda name: ascii(name)[:20])
def test_a_name_that_is_not_handled(host: Host, tmp_path: Path, name: str | bytes) -> None:
    async def body() -> None:
        for phase in Phase:
            status, out, err = await host.run(phase, name)
            assert status == (0 if phase in STOPPING else 1)
            assert out == ""
            assert "not handled" in err
            assert "to do: give it a name" in err
            assert "".join(err.split("\n")).isprintable()
        assert host.left() == NOTHING
        assert not (tmp_path / "x").exists()

    asyncio.run(body())


@pytest.mark.parametrize(
    "words", [[], ["explode", "web1"], ["", "web1"], ["created"], ["created", "a", "b"], ["-c"], ["Created", "a"]]
)
def test_a_wrong_call_is_told_how(host: Host, words: list[str]) -> None:
    status, out, err = asyncio.run(host.run(*words))
    assert status == 1
    assert out == ""
    assert "to do:" in err
    assert host.left() == NOTHING


def test_a_wrong_call_holds_up_no_stop(host: Host) -> None:
    for phase in STOPPING:
        assert asyncio.run(host.run(phase)).status == 0
        assert asyncio.run(host.run(phase, "a", "b")).status == 0


def test_no_event_is_written_over_another(host: Host) -> None:
    """Pids come again: whatever the spool still holds of an earlier hook of this pid stays."""
    taken = [("new", 0), ("reply", 1), ("tmp", 2)]
    make = " ".join(f'"$1/{folder}/web1.poststart.$$.{count}"' for folder, count in taken)
    script = f'touch {make} && shift && exec "$@"'
    words = ["sh", "-c", script, "sh", str(host.spool.folder), *host.argv("poststart", "web1")]
    subprocess.run(words, check=True, timeout=SOON)
    (event,) = host.spool.look()  # the empty one is no event
    assert event.id.endswith(".3")


@pytest.mark.lab
def test_a_hook_costs_few_processes(host: Host) -> None:
    def started(phase: str) -> int:
        """Count: in a pid namespace of its own the first shell is 1, the hook 2, and who comes last tells."""
        words = ["unshare", "--pid", "--fork", "--kill-child", "sh", "-c", '"$@"; sh -c "echo \\$\\$"', "sh"]
        done = subprocess.run([*words, *host.argv(phase, "web1")], capture_output=True, timeout=SOON, check=True)
        return int(done.stdout) - 3

    host.configure(timeout=1)
    assert started("poststart") == 1  # mv
    assert started("poststop") == 1
    assert started("created") == 4  # mkfifo, sleep, mv, rm


# --- the configuration as the hook reads it

SECTIONS = [
    'spool = "{}"\ntimeout = 1\nwhen_agent_down = "allow"',
    '\t spool="{}"#c\n# x\n\n\ttimeout =1   #\n when_agent_down\t=\t"allow" # "refuse"',
    'when_agent_down = "allow"\ntimeout = 1\nspool = "{}"\n[z]\nspool = "/else"\nwhen_agent_down = "refuse"',
]


@pytest.mark.parametrize("section", SECTIONS)
@pytest.mark.parametrize("header", ["[hooks]", "  [hooks] # c", '[x]\nspool = "/else"\ny = [\n[1],\n]\n[hooks]#'])
@pytest.mark.parametrize("end", ["", "\n"])
def test_what_is_readable_is_read(host: Host, section: str, header: str, end: str) -> None:
    text = f"{header}\n{section.format(host.spool.folder)}{end}"
    assert hooks_section_readable(text) == []
    host.config.write_text(text)
    assert asyncio.run(host.run("poststart", "web1")) == Ended(0, "", "")
    assert [event.jail for event in host.spool.look()] == ["web1"]
    shutil.rmtree(host.spool.folder)
    status, _, err = asyncio.run(host.run("created", "web1"))
    assert (status, 'when_agent_down = "allow"' in err) == (0, True)


UNREADABLE = [
    "spool = '/s'",
    'spool = "/\\u0041"',
    'spool = "relative"',
    'spool = """/s"""',
    "timeout = 1_0",
    "timeout = 0x5",
    "timeout = 5.0",
    "timeout = 3 0",
    "timeout = 3600",
    "timeout = 0",
    "timeout = 5\r",
    'when_agent_down = "perhaps"',
    "when_agent_down = allow",
    'whenagentdown = "allow"',
    "junk",
    "x = [",
]


@pytest.mark.parametrize("line", UNREADABLE)
def test_what_is_not_readable_is_no_guess(host: Host, line: str) -> None:
    host.config.write_text(f"[hooks]\n{line}\n")
    for phase in Phase:
        status, _, err = asyncio.run(host.run(phase, "web1"))
        assert status == (1 if phase in STARTING else 0)
        assert f"{host.config}: [hooks]: this line can not be read" in err
        assert "mobility check" in err
    assert host.left() == NOTHING


def test_a_shell_of_freebsds_kind_is_here() -> None:
    assert SHELLS[0] == KINDS[0]
