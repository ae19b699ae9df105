"""`mobility drain` and `undrain` on the command line: what they ask of the agent, what they say, how they end."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mobility import cli
from mobility.control import ControlServer, Request
from tests.readme import DEPLOY


class FakeAgent:
    """A real control socket, behind which somebody notes what is asked and answers as told."""

    def __init__(self, folder: Path) -> None:
        self.asked: list[Request] = []
        self.answers: dict[str, dict[str, Any]] = {
            "drain": {"drained": ["*"], "withdrawn": ["198.51.100.7", "2001:db8:7::7"], "acknowledged": True},
            "undrain": {"undrained": ["*boot"], "still_drained": ["*"]},
        }
        self.config = folder / "mobility.toml"
        run = folder / "run"
        run.mkdir()
        sample = (DEPLOY / "mobility.toml.sample").read_text()
        self.config.write_text(sample.replace("[paths]\n", f'[paths]\nrun = "{run}"\n'))
        self._loop = asyncio.new_event_loop()
        self._server = ControlServer(run, {"drain": self._answer, "undrain": self._answer})
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._call(self._server.start())

    async def _answer(self, request: Request) -> dict[str, Any]:
        self.asked.append({key: value for key, value in request.items() if key != "v"})
        return self.answers[request["op"]]

    def _call(self, work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def close(self) -> None:
        self._call(self._server.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def run(self, *words: str) -> int:
        command, *others = words
        return cli.main([command, "--config", str(self.config), *others])


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[FakeAgent]:
    agent = FakeAgent(tmp_path)
    yield agent
    agent.close()


def test_a_drain_of_a_shutdown_is_its_own_and_bounded(agent: FakeAgent, capsys: pytest.CaptureFixture[str]) -> None:
    assert agent.run("drain", "--until-boot") == cli.EX_OK
    assert agent.run("drain", "--until-boot", "--within", "12.5") == cli.EX_OK
    assert agent.asked == [
        {"op": "drain", "names": [], "until_boot": True, "within": 30.0},
        {"op": "drain", "names": [], "until_boot": True, "within": 12.5},
    ]
    assert "2 addresses; the jails run on; the next boot announces again" in capsys.readouterr().out


def test_an_operators_drain_is_not(agent: FakeAgent, capsys: pytest.CaptureFixture[str]) -> None:
    assert agent.run("drain", "web1", "db1") == cli.EX_OK
    assert agent.asked == [{"op": "drain", "names": ["web1", "db1"]}]
    assert "`mobility undrain web1 db1` announces again" in capsys.readouterr().out


@pytest.mark.parametrize("until_boot", [False, True])
def test_what_was_not_acknowledged_is_told(
    agent: FakeAgent, until_boot: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    agent.answers["drain"]["acknowledged"] = False
    assert agent.run("drain", *(["--until-boot"] if until_boot else [])) == cli.EX_FAILED
    assert "has not acknowledged every withdrawal" in capsys.readouterr().err
    assert agent.run("drain", "--json", *(["--until-boot"] if until_boot else [])) == cli.EX_FAILED
    assert json.loads(capsys.readouterr().out)["acknowledged"] is False


def test_undrain_ends_what_it_is_told_to(agent: FakeAgent, capsys: pytest.CaptureFixture[str]) -> None:
    assert agent.run("undrain", "--until-boot") == cli.EX_OK
    assert agent.run("undrain") == cli.EX_OK
    assert agent.asked == [{"op": "undrain", "names": [], "until_boot": True}, {"op": "undrain", "names": []}]
    said = "announced again: the whole host, until the next boot; still drained: the whole host\n"
    assert capsys.readouterr().out == said * 2


@pytest.mark.parametrize(
    "words",
    [
        ("drain", "--until-boot", "web1"),
        ("drain", "--within", "5"),
        ("drain", "--within", "5", "web1"),
        ("undrain", "--until-boot", "web1"),
    ],
    ids=" ".join,
)
def test_words_that_do_not_go_together(agent: FakeAgent, words: tuple[str, ...]) -> None:
    assert agent.run(*words) == cli.EX_USAGE
    assert not agent.asked


@pytest.mark.parametrize("within", ["0", "-1", "601", "nan", "inf", "soon", ""])
def test_a_time_that_is_none(agent: FakeAgent, within: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        agent.run("drain", "--until-boot", f"--within={within}")
    assert caught.value.code == cli.EX_USAGE
    assert "must be a number of seconds from 1 to 600" in capsys.readouterr().err
    assert not agent.asked


def test_check_tells_a_jails_mistake_from_one_of_the_configuration(
    agent: FakeAgent, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jails_d = tmp_path / "jails.d"
    jails_d.mkdir(mode=0o755)
    text = agent.config.read_text()
    managers = '[managers]\nbastille = ""\niocage = ""\njail_conf = ""\n'
    agent.config.write_text(
        text.replace("[paths]\n", f'[paths]\njails_d = "{jails_d}"\n').replace("[managers]\n", managers)
    )
    assert agent.run("check") == cli.EX_OK
    (jails_d / "web1.toml").write_text("addresses = 7\n")
    (jails_d / "web1.toml").chmod(0o644)
    assert agent.run("check") == cli.EX_DATAERR
    assert "web1.toml" in capsys.readouterr().err
    (jails_d / "evil\x1b[2J.toml").write_text("addresses = 7\n")
    capsys.readouterr()
    assert agent.run("check") == cli.EX_DATAERR
    told = capsys.readouterr().err
    assert "evil [2J.toml" in told
    assert "\x1b" not in told
    agent.config.write_text("[host]\n")
    assert agent.run("check") == cli.EX_CONFIG
    assert "goes on with what it has read" not in capsys.readouterr().err
    assert agent.run("status") == cli.EX_CONFIG
    assert "an agent that runs goes on with what it has read" in capsys.readouterr().err
