"""Which jails are ready: real services on loopback, thousands of them, and some that hang."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mobility import config as configuration
from mobility.config import Config
from mobility.config import Health as Settings
from mobility.health import icmp, manager
from mobility.health.checks import Check
from mobility.health.icmp import Conclusion
from mobility.health.manager import Health
from mobility.jails.jailsd import JailConfig, More
from mobility.model import host_prefix
from tests.unit.health import servers
from tests.unit.health.servers import answering, descriptors, serving
from tests.unit.health.test_ask import JEXEC, OK, closed_port, held_socket

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="raw sockets need root")
LOOPBACK = ("127.0.0.1",)
OFF = Settings(reach=False)


def settings(health: Settings, commands: Path | None = None) -> Config:
    made, _ = configuration.parse({}, Path("mobility.toml"))
    directories = ((commands,) if commands else ()) + (Path("/bin"), Path("/usr/bin"))
    return replace(made, health=health, paths=replace(made.paths, commands=directories))


def jail(*checks: Check, addresses: tuple[str, ...] = LOOPBACK, name: str = "web1") -> JailConfig:
    return JailConfig(name, tuple(map(host_prefix, addresses)), f"{name}.toml", more=More(checks=checks))


class Watched:
    """A Health, and the turns of readiness that it told of; `presumed` ones begin ready."""

    def __init__(self, health: Settings, commands: Path | None = None, *, presumed: bool = False) -> None:
        self._presumed = presumed
        self.turns: list[tuple[str, bool]] = []
        self.told = 0
        self._turned = asyncio.Event()
        self.health = Health(settings(health, commands), self._told)

    def _told(self, name: str) -> None:
        self.told += 1
        ready = self.health.ready(name)[0]
        before = next((was for jail, was in reversed(self.turns) if jail == name), self._presumed)
        if ready is not before:
            self.turns.append((name, ready))
        self._turned.set()

    async def until(self, true: Callable[[], bool]) -> None:
        """Wait until it is so; looks whenever a jail turned, and now and then."""
        while not true():
            self._turned.clear()
            try:
                async with asyncio.timeout(0.02):
                    await self._turned.wait()
            except TimeoutError:
                pass


@asynccontextmanager
async def watching(
    health: Settings = OFF, commands: Path | None = None, *, presumed: bool = False
) -> AsyncIterator[Watched]:
    watched = Watched(health, commands, presumed=presumed)
    try:
        yield watched
    finally:
        await watched.health.close()


def run(body: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(body())


def test_without_checks_a_jail_is_ready_at_once() -> None:
    async def body() -> None:
        async with watching() as one:
            assert one.health.ready("web1") == (False, "its checks have not begun")
            one.health.watch("web1", jail(), 7, announced=False)
            assert one.health.ready("web1") == (True, "")
            assert one.health.describe("web1") == []
            assert (one.health.watched, one.health.ready_jails, one.health.probes) == (1, 1, 0)
            one.health.forget("web1")
            one.health.forget("web1")
            assert one.health.ready("web1")[0] is False
            assert not one.turns

    run(body)


def test_a_fresh_jail_is_ready_when_its_service_is() -> None:
    async def body() -> None:
        held = held_socket()
        port = held.getsockname()[1]
        async with watching() as one:
            one.health.watch("web1", jail(Check("tcp", port=port, interval=1.0)), 7, announced=False)
            assert one.health.ready("web1") == (
                False,
                f"tcp port {port} at 127.0.0.1: waits for its first answer",
            )
            await one.until(lambda: one.health.failures["tcp", "refused"] >= 2)
            assert one.health.ready("web1") == (False, f"tcp port {port} at 127.0.0.1: Connection refused")
            server = await asyncio.start_server(servers.hang, sock=held)
            await one.until(lambda: one.health.ready("web1")[0])
            assert one.turns == [("web1", True)]
            assert one.health.ready_jails == 1
            (told,) = one.health.describe("web1")
            assert (told["check"], told["ready"], told["state"]) == (f"tcp port {port} at 127.0.0.1", True, "passed")
            server.close()

    run(body)


def test_rise_and_fall() -> None:
    async def body() -> None:
        answers = [False] + [True] * 3 + [False] * 2
        seen: list[tuple[bool, bool]] = []

        async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await servers.read_request(reader)
            seen.append((answers[0], one.health.ready("web1")[0]))
            good = answers.pop(0) if len(answers) > 1 else answers[0]
            writer.write(OK if good else b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()

        async with watching() as one, serving(behave) as port:
            check = Check("http", port=port, interval=0.5, rise=2, fall=2)
            one.health.watch("web1", jail(check), 7, announced=False)
            await one.until(lambda: len(one.turns) == 2)
            assert one.turns == [("web1", True), ("web1", False)]
            # each question found the jail as the answers before it had left it
            assert seen[:6] == [
                (False, False),
                (True, False),
                (True, False),
                (True, True),
                (False, True),
                (False, True),
            ]
            assert "answers with status 503" in one.health.ready("web1")[1]

    run(body)


def test_after_a_restart_of_the_agent_a_jail_is_believed_until_fall() -> None:
    async def body() -> None:
        async with watching(presumed=True) as one:
            check = Check("tcp", port=closed_port(), interval=0.5, fall=2)
            one.health.watch("web1", jail(check), 7, announced=True)
            assert one.health.ready("web1") == (True, "")
            await one.until(lambda: one.health.failures["tcp", "refused"] == 1)
            assert one.health.ready("web1")[0]
            await one.until(lambda: bool(one.turns))
            assert one.turns == [("web1", False)]
            assert one.health.failures["tcp", "refused"] == 2

    run(body)


def test_the_same_again_changes_nothing_and_a_new_jail_begins_anew() -> None:
    async def body() -> None:
        async with watching() as one, serving(servers.hang) as port:
            config = jail(Check("tcp", port=port))
            one.health.watch("web1", config, 7, announced=False)
            await one.until(lambda: one.health.ready("web1")[0])
            for _ in range(5):
                one.health.watch("web1", jail(Check("tcp", port=port)), 7, announced=False)
            assert one.health.ready("web1")[0]
            assert one.health.runs["tcp"] == 1
            one.health.watch("web1", config, 8, announced=False)
            assert not one.health.ready("web1")[0], "another jail of the same name"
            await one.until(lambda: one.health.ready("web1")[0])

    run(body)


def test_a_check_added_to_a_ready_jail_does_not_darken_it() -> None:
    async def body() -> None:
        async with watching() as one, serving(servers.hang) as port:
            one.health.watch("web1", jail(Check("tcp", port=port)), 7, announced=False)
            await one.until(lambda: one.health.ready("web1")[0])
            bad = Check("tcp", port=closed_port(), interval=0.5)
            one.health.watch("web1", jail(Check("tcp", port=port), bad), 7, announced=True)
            assert one.health.ready("web1")[0]
            assert one.health.runs["tcp"] == 1, "what was there goes on as it was"
            await one.until(lambda: not one.health.ready("web1")[0])
            assert one.health.failures["tcp", "refused"] == 3
            # and taken away again: ready at once
            one.health.watch("web1", jail(Check("tcp", port=port)), 7, announced=False)
            assert one.health.ready("web1")[0]

    run(body)


def test_nothing_is_sent_to_an_address_that_is_not_the_jails() -> None:
    async def body() -> None:
        connected: list[bool] = []

        async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connected.append(True)

        async with watching() as one, serving(behave) as port:
            check = Check("tcp", port=port, address="127.0.0.1")
            one.health.watch("web1", jail(check, addresses=("192.0.2.1",)), 7, announced=False)
            assert "is none of the jail's addresses" in one.health.ready("web1")[1]
            await one.until(lambda: one.health.failures["tcp", "address"] >= 2)
            assert not connected

    run(body)


def test_all_must_pass_and_the_reason_counts_them() -> None:
    async def body() -> None:
        async with watching() as one, serving(servers.hang) as port:
            shut = closed_port()
            checks = (Check("tcp", port=port), Check("tcp", port=shut), Check("http", port=shut))
            one.health.watch("web1", jail(*checks), 7, announced=False)
            await one.until(lambda: all(each["runs"] for each in one.health.describe("web1")))
            ready, reason = one.health.ready("web1")
            assert not ready
            assert reason == f"tcp port {shut} at 127.0.0.1: Connection refused; and 1 more check"

    run(body)


def test_hurry() -> None:
    """What waits for its turn in a fresh jail is tried at once when the jail's start is complete."""

    async def body() -> None:
        held = held_socket()
        port = held.getsockname()[1]
        async with watching() as one:
            one.health.watch("web1", jail(Check("tcp", port=port, interval=3600.0)), 7, announced=False)
            # its pauses double: by now the next try is seconds away
            await one.until(lambda: one.health.runs["tcp"] >= 5)
            server = await asyncio.start_server(servers.hang, sock=held)
            before = one.health.runs["tcp"]
            one.health.hurry("web1")
            one.health.hurry("nobody")
            await one.until(lambda: one.health.runs["tcp"] > before)
            assert one.health.ready("web1")[0]
            server.close()

    run(body)


def test_reconfigured() -> None:
    async def body() -> None:
        async with watching(Settings(reach=True)) as one:
            never: list[str] = []
            one.health._pinger.ping = lambda address, *_: never.append(address)  # type: ignore[assignment,method-assign]
            one.health.watch("web1", jail(), 7, announced=False)
            assert not one.health.ready("web1")[0]
            one.health.reconfigure(OFF)
            assert one.turns == [("web1", True)]
            one.health.reconfigure(OFF)
            one.health.reconfigure(Settings(reach=True))
            assert one.health.ready("web1")[0], "presumed"
            assert one.turns == [("web1", True)]

    run(body)


# -- many, and some that hang


def test_what_hangs_delays_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """More checks hang than may be under way at once, and the others pass all the same."""
    monkeypatch.setattr(manager, "NETWORK", 8)
    monkeypatch.setattr(manager, "NETWORK_SLOW", 2)

    async def body() -> None:
        async with watching() as one, serving(servers.hang) as hanging, serving(answering(OK)) as good:
            for number in range(50):
                check = Check("http", port=hanging, interval=0.5, timeout=0.3)
                one.health.watch(f"bad{number}", jail(check, name=f"bad{number}"), number, announced=False)
            # each has hung once
            await one.until(lambda: one.health.failures["http", "timeout"] >= 50)
            for number in range(50):
                check = Check("http", port=good, interval=0.5, timeout=3.0)
                one.health.watch(f"good{number}", jail(check, name=f"good{number}"), 100 + number, announced=False)
            hung = one.health.failures["http", "timeout"]
            await one.until(lambda: one.health.ready_jails == 50)
            # 50 good ones went by while the two that may hang at once had a few turns
            assert one.health.failures["http", "timeout"] - hung < 25
            assert not any(name.startswith("bad") for name, _ in one.turns)
            assert one.health.failures.keys() == {("http", "timeout")}

    run(body)


def test_a_command_that_hangs_delays_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manager, "COMMANDS", 2)
    monkeypatch.setattr(manager, "COMMANDS_SLOW", 1)
    (tmp_path / "jexec").write_text(JEXEC)
    (tmp_path / "jexec").chmod(0o755)

    async def body() -> None:
        async with watching(commands=tmp_path) as one:
            # one of them may hang at a time: long enough for all the good ones to be run in a few of its turns
            hang = Check("exec", command=("/bin/sh", "-c", "sleep 60"), interval=0.5, timeout=1.0)
            for number in range(4):
                one.health.watch(f"bad{number}", jail(hang, name=f"bad{number}"), 7, announced=False)
            await one.until(lambda: one.health.failures["exec", "timeout"] >= 4)
            good = Check("exec", command=("/bin/sh", "-c", "exit 0"))
            # and the loop itself never waits
            for number in range(6):
                one.health.watch(f"good{number}", jail(good, name=f"good{number}"), 7, announced=False)
            hung = one.health.failures["exec", "timeout"]
            await one.until(lambda: one.health.ready_jails == 6)
            assert one.health.failures["exec", "timeout"] - hung < 6
            wrong = Check("exec", command=("/bin/sh", "-c", "echo no database; exit 3"))
            one.health.watch("wrong", jail(wrong, name="wrong"), 7, announced=False)
            await one.until(lambda: one.health.failures["exec", "status"] >= 1)
            assert one.health.ready("wrong")[1] == (
                "exec /bin/sh -c echo no database; exit 3: exit status 3: no database"
            )

    run(body)


def test_thousands_in_one_process() -> None:
    async def body() -> None:
        async with watching() as one, serving(answering(OK)) as port:
            check = Check("http", port=port, interval=60.0, timeout=30.0)
            for number in range(2000):
                one.health.watch(f"j{number}", jail(check, name=f"j{number}"), number, announced=False)
            await one.until(lambda: one.health.ready_jails == 2000)
            assert one.health.runs == {"http": 2000}
            # afterwards they spread over their interval
            now = asyncio.get_running_loop().time()
            eighths = {int((due - now) * 8 / 90) for due, _, _ in one.health._heap}
            assert len(eighths) >= 5
            for number in range(2000):
                one.health.forget(f"j{number}")
            await asyncio.sleep(0)
            assert not one.health._tasks

    run(body)


def test_after_a_restart_thousands_have_their_first_check_spread() -> None:
    async def body() -> None:
        async with watching() as one:
            check = Check("tcp", port=9, interval=3600.0)
            for number in range(1000):
                one.health.watch(f"j{number}", jail(check, name=f"j{number}"), number, announced=True)
            now = asyncio.get_running_loop().time()
            tenths = [int((due - now) / 360) for due, _, _ in one.health._heap]
            assert all(60 <= tenths.count(tenth) <= 140 for tenth in range(10))

    run(body)


def test_a_jail_forgotten_in_the_same_moment_leaves_no_slot_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manager, "NETWORK", 1)

    async def body() -> None:
        async with watching() as one, serving(servers.hang) as hanging, serving(answering(OK)) as good:
            for _ in range(5):
                one.health.watch("web1", jail(Check("http", port=hanging)), 7, announced=False)
                one.health.forget("web1")
            one.health.watch("web1", jail(Check("http", port=hanging)), 7, announced=False)
            await asyncio.sleep(0)
            one.health.forget("web1")
            one.health.watch("web2", jail(Check("http", port=good)), 8, announced=False)
            await one.until(lambda: one.health.ready("web2")[0])

    run(body)


def test_a_mistake_of_ours_changes_nothing_that_is_announced(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(_: object) -> None:
        raise RuntimeError("a mistake")

    monkeypatch.setattr(manager, "over_network", broken)

    async def body() -> None:
        async with watching() as one:
            check = Check("tcp", port=9, interval=0.5, fall=1)
            one.health.watch("web1", jail(check), 7, announced=True)
            await one.until(lambda: one.health.unknown["tcp"] >= 2)
            assert one.health.ready("web1")[0]

    run(body)


# -- reach


class Echoes:
    """Stands where the pinger is: the test says what comes of an echo."""

    def __init__(self, one: Watched) -> None:
        self.sent: list[tuple[str, float, Callable[[Conclusion, str], None]]] = []
        one.health._pinger.ping = self.ping  # type: ignore[method-assign,assignment]
        one.health._pinger.forget = lambda echo: None  # type: ignore[method-assign]

    def ping(self, address: str, timeout: float, concluded: Callable[[Conclusion, str], None]) -> object:
        self.sent.append((address, timeout, concluded))
        return object()

    def say(self, conclusion: Conclusion, index: int = -1) -> None:
        self.sent[index][2](conclusion, f"{conclusion}: said so")


def test_the_first_echo_leaves_at_once_and_its_answer_tells_at_once() -> None:
    async def body() -> None:
        async with watching(Settings()) as one:
            echoes = Echoes(one)
            one.health.watch("web1", jail(addresses=("127.0.0.1", "::1")), 7, announced=False)
            assert [(address, timeout) for address, timeout, _ in echoes.sent] == [("127.0.0.1", 0.5), ("::1", 0.5)]
            echoes.say(Conclusion.ANSWERED, 0)
            assert not one.told
            assert one.health.ready("web1") == (False, "reach ::1: waits for its first answer")
            echoes.say(Conclusion.ANSWERED, 1)
            assert one.turns == [("web1", True)]
            assert {each["state"] for each in one.health.describe("web1")} == {"answered"}

    run(body)


@pytest.mark.parametrize(("silence", "ready"), [("ready", True), ("unready", False)])
def test_silence_counts_as_it_is_set_and_is_told(silence: str, ready: bool) -> None:
    async def body() -> None:
        async with watching(Settings(silence=silence)) as one:
            echoes = Echoes(one)
            one.health.watch("web1", jail(), 7, announced=False)
            echoes.say(Conclusion.SILENT)
            assert one.health.ready("web1")[0] is ready
            assert one.health.describe("web1")[0]["state"] == "silent"
            assert one.health.silent("web1") == ["127.0.0.1"]

    run(body)


def test_an_error_after_the_silence_takes_it_back() -> None:
    async def body() -> None:
        async with watching(Settings()) as one:
            echoes = Echoes(one)
            one.health.watch("web1", jail(), 7, announced=False)
            echoes.say(Conclusion.SILENT)
            echoes.say(Conclusion.UNREACHABLE)
            assert one.turns == [("web1", True), ("web1", False)]
            assert one.health.ready("web1")[1] == "reach 127.0.0.1: unreachable: said so"
            # the next round begins soon
            await one.until(lambda: len(echoes.sent) == 2)
            echoes.say(Conclusion.ANSWERED)
            assert one.health.ready("web1")[0]
            echoes.say(Conclusion.UNREACHABLE, 0)
            assert one.health.ready("web1")[0], "an earlier round's word counts no more"

    run(body)


def test_a_jail_that_is_known_waits_for_an_error_before_it_is_called_silent() -> None:
    """Else one whose neighbour entry fails would be silent, and so ready, each time before the error comes."""

    async def body() -> None:
        async with watching(Settings(reach_every=0.5, reach_fall=2), presumed=True) as one:
            echoes = Echoes(one)
            one.health.watch("web1", jail(), 7, announced=True)
            await one.until(lambda: len(echoes.sent) == 1)
            assert echoes.sent[0][1] == icmp.LINGER
            echoes.say(Conclusion.UNREACHABLE)
            await one.until(lambda: len(echoes.sent) == 2)
            echoes.say(Conclusion.UNREACHABLE)
            assert one.turns == [("web1", False)]

    run(body)


def test_a_host_short_of_buffers_changes_nothing() -> None:
    async def body() -> None:
        async with watching(Settings(reach_every=0.5, reach_fall=1)) as one:
            echoes = Echoes(one)
            one.health.watch("web1", jail(), 7, announced=True)
            await one.until(lambda: len(echoes.sent) == 1)
            echoes.say(Conclusion.UNKNOWN)
            assert one.health.ready("web1")[0]
            assert one.health.unknown["reach"] == 1

    run(body)


@ROOT
def test_reach_for_real() -> None:
    async def body() -> None:
        async with watching(Settings(silence="unready")) as one:
            one.health.watch("web1", jail(addresses=("127.0.0.1", "::1")), 7, announced=False)
            await one.until(lambda: one.health.ready("web1")[0])
            for number in range(500):
                one.health.watch(f"j{number}", jail(name=f"j{number}"), number, announced=False)
            await one.until(lambda: one.health.ready_jails == 501)
            assert one.health.runs == {"reach": 502}
            assert not one.health.failures

    run(body)


def test_closing_leaves_nothing() -> None:
    async def body() -> None:
        before = descriptors()
        one = Watched(Settings())
        with socket.socket() as deaf:
            deaf.bind(("127.0.0.1", 0))
            deaf.listen()
            for number in range(20):
                check = Check("http", port=deaf.getsockname()[1])
                one.health.watch(f"j{number}", jail(check, name=f"j{number}"), number, announced=False)
            await asyncio.sleep(0.01)
            await one.health.close()
        assert descriptors() == before
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(body)
