"""The bridge as ExaBGP runs it, with pipes that are full, cut anywhere, or closed."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mobility.bgp import bridge as module
from mobility.bgp.bridge import ROUTES_IN_FLIGHT, Lines
from tests.unit.bgp.test_bridge import MARK, OPEN, PEER, UP, X, printed, update

WAIT = 20.0


class ExaBgp:
    """ExaBGP's ends of the pipes, and the agent's of the socket."""

    def __init__(self, folder: Path, *program: str) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / "bridge.sock"))
        self._listener.listen()
        self._listener.settimeout(WAIT)
        argv = [sys.executable, "-I", *(program or [str(module.__file__)]), "--socket", str(folder / "bridge.sock")]
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.to_bridge, self.from_bridge = self.process.stdin, self.process.stdout
        self.asked = Lines()
        self._asked: list[str] = []
        self.agent, _ = self._listener.accept()
        self.agent.settimeout(WAIT)
        self._told: list[dict[str, Any]] = []
        self._lines = Lines()

    def say(self, *lines: str) -> None:
        self.to_bridge.write("".join(f"{line}\n" for line in lines).encode())
        self.to_bridge.flush()

    def ask(self) -> str:
        """Return the next thing that the bridge asks."""
        while not self._asked:
            self._asked += self.asked.add(os.read(self.from_bridge.fileno(), 1 << 16))
        return self._asked.pop(0)

    def begin(self) -> None:
        """Answer what a bridge asks first."""
        for answer in ([], ["exabgp 5.0.15"], printed(PEER), [], ["[]"], []):
            if self.ask() != "reset":
                self.say(*answer, "done")

    def told(self, key: str) -> dict[str, Any]:
        """Return the next thing of that kind that the agent is told."""
        while True:
            while self._told:
                message = self._told.pop(0)
                if key in message:
                    return message
            data = self.agent.recv(1 << 16)
            assert data
            self._told += [json.loads(line) for line in self._lines.add(data)]

    def order(self, **message: Any) -> None:
        self.agent.sendall(json.dumps(message).encode() + b"\n")

    def close(self) -> None:
        self.to_bridge.close()
        assert self.process.wait(WAIT) == 0
        self.from_bridge.close()
        assert self.process.stderr is not None
        self.process.stderr.close()
        self.agent.close()
        self._listener.close()


@pytest.fixture
def exabgp(tmp_path: Path) -> Iterator[ExaBgp]:
    exabgp = ExaBgp(tmp_path)
    exabgp.begin()
    assert exabgp.told("end")["mark"] == MARK
    yield exabgp
    exabgp.close()


LONG = "next-hop fd00:1::1 large-community [ " + " ".join(f"65000:1:{number}" for number in range(2000)) + " ]"
"""Attributes of which ROUTES_IN_FLIGHT are more than a pipe holds: 64 KB (pipe(7), FreeBSD's pipe(2))."""


def test_a_full_pipe_to_exabgp_holds_up_nothing_else(exabgp: ExaBgp) -> None:
    prefixes = [f"10.0.0.{number}/32" for number in range(ROUTES_IN_FLIGHT)]
    for number, prefix in enumerate(prefixes):
        exabgp.order(id=number, do="announce", peer=PEER, attributes=LONG, prefixes=[prefix])
    # ExaBGP does not read, and talks: the agent hears all of it
    exabgp.say(OPEN, UP, *(update({"ipv4 unicast": {PEER: [{"nlri": f"10.1.{n}.0/24"}]}}) for n in range(200)))
    while exabgp.told("session")["state"] != "up":
        pass
    while exabgp.told("received")["prefixes"] != ["10.1.199.0/24"]:
        pass
    # and what waited is whole when it is read
    for number, prefix in enumerate(prefixes):
        assert exabgp.ask() == f"neighbor {PEER} announce attributes {LONG} nlri {prefix}"
        exabgp.say("done")
        assert exabgp.told("done") == {"done": number}


def test_what_comes_in_pieces_is_put_together_and_rubbish_is_passed_over(exabgp: ExaBgp) -> None:
    whole = update({"ipv4 unicast": {PEER: [{"nlri": X}]}})
    for byte in whole.encode():
        exabgp.to_bridge.write(bytes([byte]))
        exabgp.to_bridge.flush()
    exabgp.say("", whole[: len(whole) // 2], '{"type": "quux", "neighbor": []}', '{"type": 7}', "[" * 1000, UP)
    assert exabgp.told("received")["prefixes"] == [X]
    assert exabgp.told("session")["state"] == "up"


def test_an_answer_that_comes_late_is_the_answer(exabgp: ExaBgp) -> None:
    for number in (1, 2):
        exabgp.order(id=number, do="announce", peer=PEER, attributes="next-hop fd00:1::1", prefixes=[X])
    assert "announce" in exabgp.ask()
    exabgp.say(UP)  # it is alive, and has something else to say first
    assert exabgp.told("session")["state"] == "up"
    exabgp.say("error", "done")
    assert exabgp.told("error")["error"] == 1
    assert exabgp.told("done") == {"done": 2}


IMPATIENT = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("bridge", sys.argv.pop(1))
bridge = sys.modules["bridge"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(bridge)
bridge.ANSWER_WITHIN = 0.2
sys.exit(bridge.main())
"""
"""The bridge, with little patience."""


def test_the_agent_is_told_at_once_that_exabgp_hangs_though_nothing_else_happens(tmp_path: Path) -> None:
    exabgp = ExaBgp(tmp_path, "-c", IMPATIENT, str(module.__file__))
    try:
        exabgp.begin()
        assert exabgp.told("end")["mark"] == MARK
        exabgp.order(id=1, do="announce", peer=PEER, attributes="next-hop fd00:1::1", prefixes=[X])
        assert exabgp.told("sick")["sick"] >= 0.2
        exabgp.ask()
        exabgp.say("done")
        assert exabgp.told("sick")["sick"] is None
        assert exabgp.told("done") == {"done": 1}
    finally:
        exabgp.close()
