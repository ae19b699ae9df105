"""The command on a real terminal (pty(4)), and in a pipe: colours, width, redrawing, Ctrl-C, and what goes on meanwhile.

Behind it is a real control socket, and where it is about events the agent's own answers and database.
"""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mobility.answers import Answers, Known
from mobility.control import ControlError, ControlServer, Request
from mobility.store import Store
from mobility.worker import Shared
from tests.readme import DEPLOY, REPOSITORY
from tests.terminal import Terminal
from tests.unit.terminal.made import dark, host, jail, many, stopped
from tests.waiting import until

RED, GREEN, CURSOR_SHOWN = b"\x1b[31m", b"\x1b[32m", b"\x1b[?25h"


class Agent:
    """A control socket that answers as told, with the events of a real database."""

    def __init__(self, folder: Path) -> None:
        self.jails = [jail(), stopped("db1")]
        self.asked: list[Request] = []
        self.refuses = ""
        self.held = threading.Event()
        self.held.set()
        self.run = folder / "run"
        self.run.mkdir()
        self.config = folder / "mobility.toml"
        sample = (DEPLOY / "mobility.toml.sample").read_text()
        self.config.write_text(
            sample.replace("[paths]\n", f'[paths]\nrun = "{self.run}"\nstate = "{folder / "state"}"\n')
        )
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.start()

    def start(self) -> None:
        self._call(self._start())

    async def _start(self) -> None:
        self.store = Store(self.config.parent / "state" / "mobility.sqlite", "boot")
        self.answers = Answers(cast("Shared", SimpleNamespace(store=self.store)), cast("Known", None))
        self.store.on_note = self.answers.noted
        self._server = ControlServer(
            self.run,
            {
                "status": self._status,
                "events": self._events,
                "drain": self._drain,
                "progress": self._progress,
                "penalties": self._penalties,
            },
        )
        await self._server.start()

    def stop(self) -> None:
        self._call(self._stop())

    async def _stop(self) -> None:
        await self._server.close()
        self.store.close()

    def note(self, *words: str) -> None:
        async def note() -> None:
            self.store.note(*words)

        self._call(note())

    def _note(self, request: Request) -> None:
        self.asked.append(request)

    async def _status(self, request: Request) -> dict[str, Any]:
        self._note(request)
        if self.refuses:
            raise ControlError(self.refuses)
        names = request["names"]
        return {"host": host(), "jails": [each for each in self.jails if not names or each["name"] in names]}

    async def _events(self, request: Request) -> dict[str, Any]:
        self._note(request)
        return await self.answers.events(request)

    async def _drain(self, request: Request) -> dict[str, Any]:
        self._note(request)
        await asyncio.to_thread(self.held.wait)
        return {"drained": ["*"], "withdrawn": ["198.51.100.7"], "acknowledged": True, "handed_over": True}

    async def _progress(self, request: Request) -> dict[str, Any]:
        return {"announced": 2, "differing": 1, "draining": {"*": 3.0}}

    async def _penalties(self, request: Request) -> dict[str, Any]:
        return {"penalties": {"web1": 900.0}}

    def _call(self, work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def close(self) -> None:
        self.held.set()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def words(self, command: str, *words: str) -> list[str]:
        return [sys.executable, "-m", "mobility", command, "--config", str(self.config), *words]

    def terminal(self, *words: str, **options: Any) -> Terminal:
        return Terminal(self.words(*words), cwd=REPOSITORY, **options)

    def piped(self, *words: str, **options: Any) -> subprocess.Popen[str]:
        environment = {**os.environ, "TERM": "xterm", **options.pop("env", {})}
        return subprocess.Popen(
            self.words(*words),
            cwd=REPOSITORY,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            **options,
        )


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    agent = Agent(tmp_path)
    yield agent
    agent.stop()
    agent.close()


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


# -- status


@pytest.mark.parametrize(
    ("environment", "coloured"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)],
)
def test_colours_are_for_terminals_that_want_them(agent: Agent, environment: dict[str, str], coloured: bool) -> None:
    agent.jails.append(dark("web2", ownership="lost"))
    with agent.terminal("status", environment=environment) as terminal:
        assert terminal.wait() == 0
        assert (RED in terminal.raw and GREEN in terminal.raw) is coloured
        assert (b"\x1b" in terminal.raw) is coloured
        assert "web1  yes      yes    yes    yes" in terminal.picture.text


def test_a_pipe_gets_neither_colours_nor_cuts(agent: Agent) -> None:
    agent.jails.append(dark("web2", reason="long " * 60))
    out, complaint = agent.piped("status").communicate(timeout=20)
    assert complaint == ""
    assert "\x1b" not in out
    assert ("long " * 60).strip() in out


@pytest.mark.parametrize("columns", [50, 80, 200])
def test_lines_fit_the_terminal(agent: Agent, columns: int) -> None:
    agent.jails = [*many(30), dark("web2", reason="long " * 60)]
    with agent.terminal("status", columns=columns) as terminal:
        assert terminal.wait() == 0
        assert "31 jails: 27 announced, 3 dark" in terminal.picture.text.replace("\n", " ")
        assert "web2" in terminal.picture.text
        assert terminal.picture.text.endswith("...")


def test_watching_redraws_in_place_until_ctrl_c(agent: Agent) -> None:
    with agent.terminal("status", "--watch", "1") as terminal:
        terminal.until(lambda: "198.51.100.7" in terminal.raw.decode() or "web1" in terminal.picture.text, "the first")
        agent.jails = [dark("web1", reason="has been stopped by somebody")]
        terminal.until(lambda: "by somebody" in terminal.picture.text, "the second")
        agent.jails = [jail("web1")]
        terminal.until(lambda: "by somebody" not in terminal.picture.text, "the third")
        lines = terminal.picture.text.splitlines()
        assert [line.split()[0] for line in lines[1:]] == ["host", "JAIL", "web1"]
        assert terminal.picture.cursor_shown
        assert terminal.interrupt() == 0
        assert terminal.raw.count(b"\x1b[2J") == 1
        assert terminal.raw.rstrip().endswith(CURSOR_SHOWN)
        assert "Traceback" not in terminal.raw.decode()


def test_watching_many_shows_what_there_is_room_for(agent: Agent) -> None:
    agent.jails = many(1000)
    with agent.terminal("status", "--watch", "--dark", lines=12, columns=100) as terminal:
        terminal.until(lambda: "more lines" in terminal.picture.text, "a full screen")
        lines = terminal.picture.text.splitlines()
        assert len(lines) == 11
        assert lines[2].startswith("1000 jails: 900 announced, 75 dark (25 lost, 25 not_ready, 25 suppressed)")
        assert lines[-1].startswith("... ")
        assert "narrow it down" in lines[-1]
        assert terminal.interrupt() == 0


@pytest.mark.parametrize("columns", [20, 80])
@pytest.mark.parametrize("words", [("status", "--watch"), ("top", "--every", "1")])
def test_what_is_drawn_again_never_wraps(agent: Agent, words: tuple[str, ...], columns: int) -> None:
    """The terminal would make two lines of it, and the first ones would leave the screen."""
    with agent.terminal(*words, columns=columns) as terminal:
        terminal.until(lambda: terminal.raw.count(CURSOR_SHOWN) == 2, "two pictures")
        assert terminal.interrupt() == 0


def test_watching_outlives_the_agent(agent: Agent) -> None:
    with agent.terminal("status", "--watch=1", columns=200) as terminal:
        terminal.until(lambda: "web1" in terminal.picture.text, "the first")
        agent.stop()
        terminal.until(lambda: "the agent is not running" in terminal.picture.text, "its absence")
        agent.start()
        terminal.until(lambda: "web1" in terminal.picture.text, "it is back")
        assert terminal.interrupt() == 0


def test_watching_begins_with_an_agent_that_answers(agent: Agent) -> None:
    agent.stop()
    with agent.terminal("status", "--watch", columns=200) as terminal:
        assert terminal.wait() == 1
        assert "service mobility start" in terminal.picture.text
    agent.start()


def test_watching_in_a_pipe_prints_one_after_the_other(agent: Agent) -> None:
    process = agent.piped("status", "--watch", "1", "web1")
    assert process.stdout is not None
    seen: list[str] = []
    while sum(line.startswith("JAIL") for line in seen) < 2:
        seen.append(process.stdout.readline())
    assert seen[0].endswith("Z\n")
    assert not any("\x1b" in line or "db1" in line for line in seen)
    process.send_signal(signal.SIGINT)
    _, complaint = process.communicate(timeout=20)
    assert (process.returncode, complaint) == (0, "")


def test_watching_ends_with_who_reads_it(agent: Agent) -> None:
    process = agent.piped("status", "--watch", "1", "--json")
    assert [each["name"] for each in json.loads(first_line(process))["jails"]] == ["db1", "web1"]
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(20) == 0
    assert process.stderr is not None
    assert process.stderr.read() == ""


def test_watching_as_json_is_json_whatever_happens(agent: Agent) -> None:
    process = agent.piped("status", "--watch", "1", "--json")
    assert process.stdout is not None
    assert "jails" in json.loads(first_line(process))
    agent.stop()
    while "error" not in (told := json.loads(first_line(process))):
        pass
    assert "the agent is not running" in told["error"]
    agent.start()
    process.stdout.close()
    assert process.wait(20) == 0


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
@pytest.mark.parametrize("command", ["drain", "status", "top"])
def test_an_output_may_be_closed(agent: Agent, command: str, closed: str) -> None:
    call = f"{shlex.join(agent.words(command))} {closed}"
    done = subprocess.run(["sh", "-c", call], cwd=REPOSITORY, capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_letters_that_the_locale_lacks_are_told_all_the_same(agent: Agent) -> None:
    agent.jails.append(dark("web2", reason="says \u20ac and \x1b]0;evil\x07"))
    out, complaint = agent.piped("status", env={"PYTHONIOENCODING": "latin-1"}).communicate(timeout=20)
    assert complaint == ""
    assert "says \\u20ac and  ]0;evil" in out


def test_what_the_agent_refuses_with_moves_no_cursor(agent: Agent) -> None:
    agent.refuses = "it says \x1b[2Jevil\nand more"
    _, complaint = agent.piped("status").communicate(timeout=20)
    assert complaint == "mobility: it says  [2Jevil\nand more\n"


def test_completion_ends_with_who_reads_it() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    call = [sys.executable, "-m", "mobility", "completion", "bash"]
    done = subprocess.run(call, cwd=REPOSITORY, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=20)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


def test_a_name_may_follow_watch(agent: Agent) -> None:
    with agent.terminal("status", "--watch", "web1") as terminal:
        terminal.until(lambda: "web1" in terminal.picture.text, "the jail")
        assert "db1" not in terminal.picture.text
        assert terminal.interrupt() == 0


# -- watch


def test_events_are_told_as_they_happen(agent: Agent) -> None:
    agent.note("web1", "announced", "before")
    with agent.terminal("watch", columns=120) as terminal:
        until(lambda: len(agent.asked) > 1, "a question that waits")
        agent.note("web1", "withdrawn", "it is drained")
        agent.note("", "reload", "")
        terminal.until(lambda: "reload" in terminal.picture.text, "both")
        first, *lines = terminal.picture.text.splitlines()
        assert first == "following this host and its jails; Ctrl-C ends it"
        assert [line.split()[2:4] for line in lines] == [["web1", "withdrawn"], ["-", "reload"]]
        assert b"\x1b[33mwithdrawn" in terminal.raw
        # one at first, and one for each answer: nothing is asked while nothing happens
        until(lambda: len(agent.asked) in (3, 4), f"no more questions than answers: {agent.asked}")
        assert terminal.interrupt() == 0
        assert "Traceback" not in terminal.raw.decode()


def test_only_the_jails_named_are_told(agent: Agent) -> None:
    process = agent.piped("watch", "--json", "web1")
    until(lambda: len(agent.asked) > 1, "a question that waits")
    agent.note("db1", "announced")
    agent.note("web1", "announced")
    event = json.loads(first_line(process))
    assert (event["jail"], event["what"], event["id"]) == ("web1", "announced", 2)
    process.send_signal(signal.SIGINT)
    _, complaint = process.communicate(timeout=20)
    assert (process.returncode, complaint) == (0, "")


def test_a_restart_of_the_agent_is_told_and_nothing_is_missed(agent: Agent) -> None:
    with agent.terminal("watch", columns=120) as terminal:
        until(lambda: len(agent.asked) > 1, "a question that waits")
        agent.stop()
        terminal.until(lambda: "-- the agent is away" in terminal.picture.text, "its end")
        agent.start()
        agent.note("web1", "announced", "again")
        terminal.until(lambda: "again" in terminal.picture.text, "what happened after it")
        said = [line.partition("Z  ")[2] for line in terminal.picture.text.splitlines()[1:]]
        assert said[0] == "-- the agent is away; what happens meanwhile is told when it is back"
        assert said[1].startswith(f"-- the agent is back (pid {os.getpid()})")
        assert said[2].split() == ["web1", "announced", "again"]
        assert terminal.interrupt() == 0


def test_a_database_that_begins_anew_is_told(agent: Agent) -> None:
    for _ in range(5):
        agent.note("web1", "announced")
    with agent.terminal("watch", columns=120) as terminal:
        until(lambda: len(agent.asked) > 1, "a question that waits")
        agent.stop()
        for file in (agent.config.parent / "state").iterdir():
            file.unlink()
        agent.start()
        terminal.until(lambda: "begins anew" in terminal.picture.text, "that it begins anew")
        agent.note("web1", "withdrawn", "after it")
        terminal.until(lambda: "after it" in terminal.picture.text, "what comes then")
        assert terminal.interrupt() == 0


def test_watch_ends_with_its_reader_though_nothing_happens(agent: Agent) -> None:
    process = agent.piped("watch")
    until(lambda: len(agent.asked) > 1, "a question that waits")
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(10) == 0
    assert process.stderr is not None
    assert process.stderr.read() == ""


# -- top, history


def test_top_is_shown_again_and_again_or_once(agent: Agent) -> None:
    agent.note("web1", "prestart")
    with agent.terminal("top", "--every", "1", columns=100) as terminal:
        terminal.until(lambda: "prestart" in terminal.picture.text, "the first")
        agent.note("web1", "flapped")
        terminal.until(lambda: "flapped" in terminal.picture.text, "the second")
        assert "1 flap," in terminal.picture.text
        assert terminal.interrupt() == 0
    with agent.terminal("top", "-n1", columns=100) as terminal:
        assert terminal.wait() == 0
        assert b"\x1b[2J" not in terminal.raw
        assert terminal.picture.text.splitlines()[1].split() == [
            *("JAIL", "PENALTY", "FLAPS", "STARTS", "MOVES", "ANNOUNCED", "WITHDRAWN", "LAST")
        ]
    out, complaint = agent.piped("top", "--json").communicate(timeout=20)
    assert (json.loads(out)["jails"][0]["penalty"], complaint) == (900.0, "")


def test_history_needs_no_agent(agent: Agent) -> None:
    before = time.time()
    agent.note("web1", "announced")
    agent.note("db1", "withdrawn", "does not run")
    agent.stop()
    out, complaint = agent.piped("history", "--since", "1h", "--what", "withdrawn,problem").communicate(timeout=20)
    assert out.split()[2:] == ["db1", "withdrawn", "does", "not", "run"]
    assert complaint == "mobility: the agent does not run: nothing has been written down since it ended\n"
    told = json.loads(agent.piped("history", "--json", "web1").communicate(timeout=20)[0])
    assert [each["what"] for each in told["events"]] == ["announced"]
    assert told["events"][0]["at"] >= before
    assert told["agent_runs"] is False
    agent.start()
    told = json.loads(agent.piped("history", "--json", "-n", "1").communicate(timeout=20)[0])
    assert ([each["jail"] for each in told["events"]], told["agent_runs"]) == (["db1"], True)
    # what was read only is as it was
    agent.note("db1", "announced")


def test_an_empty_history_says_what_there_is(agent: Agent) -> None:
    agent.note("web1", "announced")
    for words, why in (
        (("wbe1",), "no jail wbe1 is in it; did you mean web1?"),
        (("--what", "anounced"), "what there is: announced"),
    ):
        out, complaint = agent.piped("history", *words).communicate(timeout=20)
        assert out == ""
        assert complaint == f"mobility: nothing is written down of that; {why}\n"
    process = agent.piped("history", "--since", "yesterday")
    assert "write how long ago (90s, 15m, 2h, 7d)" in process.communicate(timeout=20)[1]
    assert process.returncode == 2


# -- progress


def test_a_drain_shows_how_far_it_is_and_leaves_nothing_of_that(agent: Agent) -> None:
    agent.held.clear()
    with agent.terminal("drain", columns=100) as terminal:
        terminal.until(
            lambda: "2 addresses are announced with GRACEFUL_SHUTDOWN for 3 s more" in terminal.picture.text, "progress"
        )
        agent.held.set()
        assert terminal.wait() == 0
        assert terminal.picture.text == "withdrawn: 1 addresses; the jails run on; `mobility undrain` announces again"


def test_progress_is_for_people_only(agent: Agent) -> None:
    agent.held.clear()
    processes = [agent.piped("drain"), agent.piped("drain", "--json")]
    with agent.terminal("drain", "--json", columns=100) as terminal:
        until(lambda: len(agent.asked) == 3, "three drains")
        time.sleep(1.0)  # longer than progress would wait
        agent.held.set()
        assert terminal.wait() == 0
        assert json.loads(terminal.picture.text)["acknowledged"]
        assert b"\x1b" not in terminal.raw
    for process in processes:
        out, complaint = process.communicate(timeout=20)
        assert (complaint, "draining" in out) == ("", False)


def test_ctrl_c_while_it_shows_progress(agent: Agent) -> None:
    agent.held.clear()
    with agent.terminal("drain", columns=100) as terminal:
        terminal.until(lambda: "draining" in terminal.picture.text, "progress")
        assert terminal.interrupt() == 130
        assert terminal.picture.text.splitlines()[-1] == (
            "mobility: interrupted; what was asked of the agent goes on: mobility status"
        )
    agent.held.set()
