"""What devd and the commands tell of CARP and pfsync: the recorded texts, and everything that is none."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobility.failover import watch
from mobility.failover.model import BACKUP, INIT, MASTER, Carp, Pfsync, Seen, Vhid, vhid
from mobility.failover.watch import Devd, events, look
from mobility.network import output
from mobility.network.command import Result
from mobility.network.host import Host, Trouble

TRANSCRIPTS = Path(__file__).parents[2] / "lab" / "transcripts" / "freebsd-13.2"
CARP_TEXT = (TRANSCRIPTS / "6-carp.txt").read_text()
PFSYNC_TEXT = (TRANSCRIPTS / "7-pfsync.txt").read_text()
XA = re.search(r"xa: flags=.*?status: active\n.*?\n", CARP_TEXT, re.DOTALL)
PFSYNCS = re.findall(r"pfsync0: flags=.*?groups: pfsync\n", PFSYNC_TEXT, re.DOTALL)
ONE, TWO = Vhid("xa", 1), Vhid("xa", 2)
OF_14 = """pfsync0: flags=1000041<UP,RUNNING,LOWER_UP> metric 0 mtu 1500
	syncdev: igb1 syncpeer: ff12::f0%igb1 maxupd: 128 defer: off version: 1400
	syncok: 1
	groups: pfsync
"""


class TestTexts:
    def test_a_vhid_as_devd_writes_it(self) -> None:
        assert vhid("1@igb0") == Vhid("igb0", 1)
        assert str(Vhid("vlan0.7", 255)) == "255@vlan0.7"
        assert vhid("255@vlan0.7") == Vhid("vlan0.7", 255)

    @pytest.mark.parametrize(
        "text",
        ["", "1", "igb0", "igb0@1", "0@igb0", "256@igb0", "01@igb0", "1@", "1@-a", "1@a b", "1@a;b", "1@" + 16 * "a"],
    )
    def test_what_is_none(self, text: str) -> None:
        with pytest.raises(ValueError, match='write "1@igb0"'):
            vhid(text)

    def test_states_as_freebsd_shows_them(self) -> None:
        assert XA is not None
        assert output.carps("xa", XA[0]) == (Carp(ONE, MASTER, 1, 0), Carp(TWO, MASTER, 1, 0))

    def test_the_lines_of_14_between(self) -> None:
        text = (
            "igb0: flags=8943<UP> metric 0 mtu 1500\n"
            "\tcarp: BACKUP vhid 1 advbase 1 advskew 100\n\t      peer 224.0.0.18 peer6 ff02::12\n"
            "\tcarp: INIT vhid 255 advbase 255 advskew 254\n\t      peer 10.0.0.1 peer6 fe80::1\n"
        )
        assert output.carps("igb0", text) == (
            Carp(Vhid("igb0", 1), BACKUP, 1, 100),
            Carp(Vhid("igb0", 255), INIT, 255, 254),
        )

    def test_what_is_no_state(self) -> None:
        for line in ("\tcarp: LEADER vhid 1 advbase 1 advskew 0", "\tcarp: MASTER vhid 0 advbase 1 advskew 0", "carp:"):
            assert output.carps("xa", f"xa: flags=1<UP> metric 0\n{line}\n") == ()
        assert output.carps("xa", "") == ()

    def test_pfsync_as_13_2_shows_it(self) -> None:
        assert [output.pfsync(text) for text in PFSYNCS] == [
            # never switched on: its syncok: 1 says nothing
            Pfsync(present=True, syncpeer="0.0.0.0"),  # as ifconfig writes that there is none
            *[Pfsync(present=True, up=True, syncdev="epair8a", syncpeer="10.99.0.2", syncok=False, bulk=True)] * 2,
            Pfsync(present=True, up=True),
        ]

    def test_pfsync_as_14_shows_it(self) -> None:
        found = output.pfsync(OF_14)
        assert (found.syncpeer, found.version, found.syncok, found.bulk) == ("ff12::f0%igb1", 1400, True, False)
        assert output.pfsync(OF_14.replace("<UP,", "<")).syncok is None
        assert output.pfsync(OF_14.replace("syncdev: igb1 ", "")).syncok is None

    def test_a_description_is_none_of_its_words(self) -> None:
        lied = OF_14.replace("syncok: 1\n", "syncok: 0\n\tdescription: syncok: 1\n")
        assert output.pfsync(lied).syncok is False

    def test_no_pfsync(self) -> None:
        assert output.pfsync("") == output.pfsync("ifconfig: interface pfsync0 does not exist\n") == Pfsync()

    def test_sysctls(self) -> None:
        found = output.sysctls(CARP_TEXT)
        assert found["net.inet.carp.ifdown_demotion_factor"] == 240
        assert output.sysctls("net.inet.carp.demotion: -240\n") == {"net.inet.carp.demotion": -240}
        assert output.sysctls("net.inet.carp.demotion: 0 -> 240\nsysctl: unknown oid 'x'\na: b\n") == {}

    @given(st.text())
    def test_garbage_is_passed_over(self, text: str) -> None:
        output.carps("xa", text)
        output.pfsync(f"pfsync0: flags=1<UP>\n\tsyncdev: {text}")
        output.sysctls(text)


class TestEvents:
    def test_what_the_kernel_told(self) -> None:
        lines = [line for line in CARP_TEXT.splitlines() if line.startswith("!")]
        found = [event for line in lines for event in events(f"{line}\n".encode())]
        assert len(lines) > len(found) == sum("system=CARP" in line for line in lines)
        assert found[0] == (ONE, BACKUP)
        assert (Vhid("xb", 1), MASTER) in found
        assert found[-1] == (ONE, INIT)

    @pytest.mark.parametrize(
        "packet",
        [
            b"",
            b"\n",
            b"!system=IFNET subsystem=xa type=LINK_UP\n",
            b"!system=CARP subsystem=1@xa type=LEADER\n",
            b"!system=CARP subsystem=999@xa type=MASTER\n",
            b"!system=CARP subsystem=1@x\xff type=MASTER\n",
            b"!system=CARP subsystem=1@xa type=MAST",
            b"+!system=CARP subsystem=1@xa type=MASTER\n",
            b"!system=CARP subsystem=1@xa type=MASTERS\n",
        ],
    )
    def test_what_is_none(self, packet: bytes) -> None:
        assert list(events(packet)) == []

    def test_more_than_one_in_a_packet_and_more_words(self) -> None:
        packet = b"!system=CARP subsystem=1@xa type=MASTER cdev=x\nnoise\n!system=CARP subsystem=2@xa type=INIT"
        assert list(events(packet)) == [(ONE, MASTER), (TWO, INIT)]

    @given(st.binary())
    def test_garbage(self, packet: bytes) -> None:
        list(events(packet))
        list(events(b"!system=CARP " + packet))


class Told:
    """Who listens, at a devd that plays the real one: packets, and sockets that it closes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.heard: asyncio.Queue[tuple[Vhid, str] | None] = asyncio.Queue()
        self.devd = Devd(path, self._told, self._gap)

    def _told(self, several: Sequence[tuple[Vhid, str]]) -> None:
        for each in several:
            self.heard.put_nowait(each)

    def _gap(self) -> None:
        self.heard.put_nowait(None)

    def listen(self) -> socket.socket:
        self.path.unlink(missing_ok=True)
        server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        server.setblocking(False)
        server.bind(str(self.path))
        server.listen(4)
        return server


@contextlib.asynccontextmanager
async def listening(path: Path) -> AsyncIterator[tuple[Told, socket.socket]]:
    told = Told(path)
    server = told.listen()
    task = asyncio.create_task(told.devd.run())
    try:
        yield told, server
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        server.close()


class TestDevd:
    def test_events_and_a_devd_that_comes_back(self, tmp_path: Path) -> None:
        async def work() -> None:
            async with listening(tmp_path / "devd") as (told, server):
                loop = asyncio.get_running_loop()
                connection, _ = await loop.sock_accept(server)
                assert await told.heard.get() is None, "what came before was missed"
                connection.send(b"!system=CARP subsystem=1@xa type=MASTER\n")
                connection.send(b"\xff" * 1024)
                connection.send(b"!system=CARP subsystem=1@xa type=BACKUP\n")
                assert [await told.heard.get() for _ in range(2)] == [(ONE, MASTER), (ONE, BACKUP)]
                assert not told.devd.trouble
                connection.close()
                server.close()
                server = told.listen()
                connection, _ = await loop.sock_accept(server)
                assert await told.heard.get() is None
                connection.send(b"!system=CARP subsystem=2@xa type=INIT\n")
                assert await told.heard.get() == (TWO, INIT)
                connection.close()
                server.close()

        asyncio.run(work())

    def test_a_devd_that_is_not_there_yet(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(watch, "FIRST_AGAIN", 0.01)

        async def work() -> None:
            told = Told(tmp_path / "devd")
            task = asyncio.create_task(told.devd.run())
            for _ in range(3):
                await asyncio.sleep(0)
            assert "No such file" in told.devd.trouble
            server = told.listen()
            assert await told.heard.get() is None
            assert not told.devd.trouble
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            server.close()

        asyncio.run(work())

    def test_a_devd_that_takes_connections_and_closes_them_is_asked_less_and_less(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Else that would be ten looks and twenty lines of the log in each second."""
        waits: list[float] = []
        sleep = asyncio.sleep

        async def noted(seconds: float) -> None:
            if seconds:
                waits.append(seconds)
            await sleep(0)

        monkeypatch.setattr(asyncio, "sleep", noted)

        async def work() -> None:
            async with listening(tmp_path / "devd") as (told, server):
                loop = asyncio.get_running_loop()
                for _ in range(8):
                    connection, _ = await loop.sock_accept(server)
                    assert await told.heard.get() is None
                    connection.close()
                # one that tells of something is a devd again
                connection, _ = await loop.sock_accept(server)
                connection.send(b"!system=CARP subsystem=1@xa type=MASTER\n")
                assert [await told.heard.get() for _ in range(2)] == [None, (ONE, MASTER)]
                connection.close()
                connection, _ = await loop.sock_accept(server)
                connection.close()

        asyncio.run(work())
        assert waits[:9] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 0.1]

    def test_what_is_there_is_one_turn(self, tmp_path: Path) -> None:
        """A host with fifty vhids tells of all of them at once: that is one decision, not fifty."""

        async def work() -> None:
            turns: asyncio.Queue[int] = asyncio.Queue()
            told = Told(tmp_path / "devd")
            devd = Devd(told.path, lambda events: turns.put_nowait(len(events)), lambda: None)
            server = told.listen()
            task = asyncio.create_task(devd.run())
            connection, _ = await asyncio.get_running_loop().sock_accept(server)
            for number in range(1, 51):
                connection.send(f"!system=CARP subsystem={number}@xa type=MASTER\n".encode())
            several = [await turns.get()]
            while sum(several) < 50:
                several.append(await turns.get())
            assert several in ([50], [1, 49])
            connection.close()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            server.close()

        asyncio.run(work())

    def test_a_flood_stops_nobody(self, tmp_path: Path) -> None:
        """A jail's root makes as many events as it likes: between packets the loop does all the rest."""

        async def work() -> None:
            async with listening(tmp_path / "devd") as (told, server):
                loop = asyncio.get_running_loop()
                connection, _ = await loop.sock_accept(server)
                connection.setblocking(False)
                going = True

                async def flood() -> None:
                    while going:
                        with contextlib.suppress(BlockingIOError):
                            while True:
                                connection.send(b"!system=IFNET subsystem=epair0a type=LINK_UP\n")
                        await asyncio.sleep(0)

                flooding = asyncio.create_task(flood())
                for _ in range(100):
                    await asyncio.sleep(0)
                going = False
                await flooding
                await loop.sock_sendall(connection, b"!system=CARP subsystem=1@xa type=MASTER\n")
                assert [await told.heard.get() for _ in range(2)] == [None, (ONE, MASTER)]
                connection.close()

        asyncio.run(work())


SYSCTLS = """net.inet.carp.ifdown_demotion_factor: 240
net.inet.carp.senderr_demotion_factor: 240
net.inet.carp.demotion: 480
net.inet.carp.preempt: 1
net.pfsync.carp_demotion_factor: 240
"""


class TestLook:
    """Commands are small scripts here: what is asked, and what is made of the answers."""

    @pytest.fixture
    def use(self, tmp_path: Path) -> Callable[..., Seen]:
        def run(*, pfsync: bool, **scripts: str) -> Seen:
            for name, text in scripts.items():
                (tmp_path / name).write_text(f"#!/bin/sh\necho {name} $* >> {tmp_path}/calls\n{text}\n")
                (tmp_path / name).chmod(0o755)
            host = Host((tmp_path, Path("/usr/bin"), Path("/bin")), 5.0, lambda name, seconds, failed: None)

            async def work() -> Seen:
                return await look(host, ["xb", "xa", "xa"], pfsync=pfsync)

            try:
                return asyncio.run(work())
            finally:
                host.close()

        return run

    @staticmethod
    def shows(**texts: str) -> str:
        lines = "".join(f"{name}) printf '%s\\n' '{text.rstrip()}';;\n" for name, text in texts.items())
        return f'case $1 in\n{lines}*) echo "ifconfig: interface $1 does not exist" >&2; exit 1;;\nesac'

    def test_all_of_it(self, use: Callable[..., Seen], tmp_path: Path) -> None:
        assert XA is not None
        seen = use(pfsync=True, ifconfig=self.shows(xa=XA[0], pfsync0=OF_14), sysctl=f"printf '%s' '{SYSCTLS}'")
        assert seen.carps == (Carp(ONE, MASTER), Carp(TWO, MASTER))
        assert (seen.state(ONE), seen.state(Vhid("xb", 1))) == (MASTER, "")
        assert (seen.demotion, seen.preempt, seen.pfsync_factor, seen.pfsync.syncok) == (480, True, 240, True)
        assert seen.turned(ONE, BACKUP).carps == (Carp(ONE, BACKUP), Carp(TWO, MASTER))
        calls = sorted((tmp_path / "calls").read_text().splitlines())
        assert calls == ["ifconfig pfsync0", "ifconfig xa", "ifconfig xb", "sysctl net.inet.carp net.pfsync"]

    def test_many_interfaces_are_one_command(self, tmp_path: Path) -> None:
        """And the interface that was here before counts: a jail's root names what comes home as it likes."""
        block = "{name}: flags=8943<UP> metric 0 mtu 1500\n\tcarp: {state} vhid 1 advbase 1 advskew 0\n"
        names = [f"vlan{number}" for number in range(watch.MANY)]
        text = "".join(block.format(name=name, state=MASTER) for name in names[1:])
        text += "epair3b: flags=8943<UP> metric 0 mtu 1500\n\tgroups: epair\n"
        text += "".join(block.format(name=name, state=INIT) for name in names[2:])
        ran: list[str] = []

        class Machine:
            async def command(self, argv: list[str]) -> Result:
                ran.append(" ".join(argv))
                return Result(tuple(argv), 0, text if argv[0] == "ifconfig" else SYSCTLS, "", 0.0)

        seen = asyncio.run(look(Machine(), names, pfsync=False))  # type: ignore[arg-type]  # what is used is there
        assert ran == ["sysctl net.inet.carp", "ifconfig -a"]
        assert seen.carps == tuple(Carp(Vhid(name, 1), MASTER) for name in names[1:])

    def test_pfsync_that_nobody_asks_for(self, use: Callable[..., Seen], tmp_path: Path) -> None:
        seen = use(pfsync=False, ifconfig=self.shows(pfsync0=OF_14), sysctl="echo net.inet.carp.preempt: 0")
        assert seen == Seen(preempt=False)
        assert "pfsync" not in (tmp_path / "calls").read_text()

    def test_a_kernel_without_carp(self, use: Callable[..., Seen]) -> None:
        unknown = "echo \"sysctl: unknown oid 'net.inet.carp'\" >&2; exit 1"
        assert use(pfsync=False, ifconfig=self.shows(), sysctl=unknown) == Seen()

    @pytest.mark.parametrize(
        "broken",
        [{"ifconfig": "echo 'ifconfig: socket: Too many open files' >&2; exit 1"}, {"sysctl": "echo no >&2; exit 1"}],
    )
    def test_a_command_that_fails_shows_nothing(self, use: Callable[..., Seen], broken: dict[str, str]) -> None:
        with pytest.raises(Trouble):
            use(pfsync=True, **{"ifconfig": self.shows(), "sysctl": "true"} | broken)


def test_a_result_is_what_it_was() -> None:
    """An answer of sysctl that is half an answer: what is missing is unknown, not zero."""
    assert output.sysctls(Result((), 0, "net.inet.carp.preempt: 1\n", "", 0.0).stdout) == {"net.inet.carp.preempt": 1}
