"""ExaBGP reads its configuration anew: the bridge's part, and the agent's, each against a model of the other."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mobility.bgp import speaker as module
from mobility.bgp.speaker import Speaker, SpeakerError
from mobility.config import Peer
from mobility.model import Attributes, network_prefix
from tests.unit.bgp.test_bridge import (
    DOWN,
    MARK,
    OPEN,
    PEER,
    TEXT,
    UP,
    Model,
    X,
    Y,
    Z,
    printed,
    ready,
    recalled,
    update,
)
from tests.unit.bgp.test_speaker import (
    ALLOWED,
    OTHER,
    PLAIN,
    SPINE,
    SPINE_PEER,
    V4,
    V6,
    FakeBridge,
    bgp,
    connected,
    make,
    peer,
    run,
    session,
)

NEXT = "fedcba9876543210"
NAME = f"neighbor {PEER} local-ip fd00:1::1 local-as 65001 peer-as 65000 router-id 10.0.0.1 family-allowed in-open"


# -- the bridge


def reloading(model: Model, number: int = 9) -> None:
    model.bridge.agent_says(json.dumps({"reload": number}))


def test_exabgp_is_told_and_then_asked_what_it_has() -> None:
    model = ready(routes=[f"{NAME} ipv4 unicast {X} {TEXT}"])
    model.bridge.exabgp_says(UP)
    model.heard()
    model.configuration = printed(PEER, NEXT)
    reloading(model)
    assert model.take() == ["reload"]
    model.bridge.exabgp_says("reload in progress")
    assert not model.bridge.odd
    model.answer_all()
    assert model.log == ["reload", "show neighbor configuration", "show adj-rib out extensive"]
    state, book, done = model.heard()
    assert (state["session"], state["state"]) == (PEER, "up")
    assert book == {"book": PEER, "attributes": TEXT, "prefixes": [X]}
    assert done == {"reloaded": 9, "mark": NEXT}


@pytest.mark.parametrize("answer", ["done", "error"])
def test_a_reload_that_exabgp_forgot_shows_by_the_mark(answer: str) -> None:
    model = ready()
    reloading(model)
    model.answer(answer)
    model.answer_all()
    assert model.heard()[-1] == {"reloaded": 9, "mark": MARK}
    # nothing was read, so nothing has to be asked
    assert model.log == ["reload", "show neighbor configuration"]
    assert PEER in model.bridge._neighbors


def test_a_configuration_that_exabgp_does_not_show_changes_nothing() -> None:
    model = ready()
    model.bridge.exabgp_says(UP)
    model.heard()
    reloading(model)
    model.answer()
    model.configuration = []
    model.answer("error")
    assert model.heard()[-1] == {"reloaded": 9, "mark": ""}
    assert PEER in model.bridge.sessions


def test_orders_wait_for_a_reload_and_a_reload_for_orders() -> None:
    model = ready()
    model.order(1, "announce", X)
    reloading(model)
    model.order(2, "announce", Y)
    assert len(model.take()) == 1
    model.answer()
    assert model.take() == ["reload"]
    model.configuration = printed(PEER, NEXT)
    model.answer_all()
    assert [next(iter(message)) for message in model.heard()] == ["done", "done", "book", "reloaded"]
    assert model.bridge.book[PEER][Y] == TEXT


def test_neighbors_of_several_files_have_no_mark() -> None:
    model = Model()
    model.configuration = [*printed(PEER, MARK), *printed("fd00:2::ff", NEXT)]
    model.bridge.agent_came()
    model.answer_all()
    assert model.heard()[-1] == {"end": True, "mark": ""}


def test_a_peer_that_is_gone_is_forgotten() -> None:
    other = "fd00:2::ff"
    model = ready()
    for line in (UP, OPEN, update({"ipv4 unicast": {PEER: [{"nlri": X}]}})):
        model.bridge.exabgp_says(line)
    model.bridge.agent_says(json.dumps({"complete": PEER}))
    model.answer_all()
    model.heard()
    model.configuration = printed(other, NEXT)
    reloading(model)
    model.answer_all()
    assert model.heard() == [{"reloaded": 9, "mark": NEXT}]
    # when it comes back it is told its end-of-RIB only after all its routes
    model.log.clear()
    model.bridge.exabgp_says(UP)
    model.answer_all()
    assert model.log == []


@pytest.mark.parametrize(("local", "silent"), [("fd00:1::1", False), ("fd00:1::2", True)])
def test_a_neighbor_with_another_address_of_ours_is_told_no_end_of_rib_too_early(local: str, *, silent: bool) -> None:
    model = ready()
    for line in (UP, OPEN):
        model.bridge.exabgp_says(line)
    model.bridge.agent_says(json.dumps({"complete": PEER}))
    model.answer_all()
    model.configuration = printed(PEER, NEXT, local)
    reloading(model)
    model.bridge.exabgp_says(DOWN)
    model.answer_all()
    model.log.clear()
    for line in (OPEN, UP):
        model.bridge.exabgp_says(line)
    model.answer_all()
    assert bool(model.log) != silent


def test_an_agent_that_left_meanwhile_is_told_the_new_truth() -> None:
    model = ready()
    model.configuration = printed(PEER, NEXT)
    reloading(model)
    model.answer()
    model.bridge.agent_left()
    model.bridge.agent_came()
    model.answer_all()
    told = model.heard()
    assert told[-1] == {"end": True, "mark": NEXT}
    assert not any("reloaded" in message for message in told)


def test_no_end_of_rib_for_a_family_that_the_session_is_not_to_carry() -> None:
    model = Model()
    model.configuration = [line for line in printed(PEER) if line != "ipv4 unicast;"]
    model.answer_all()
    model.bridge.agent_came()
    for line in (OPEN, UP):
        model.bridge.exabgp_says(line)
    model.bridge.agent_says(json.dumps({"complete": PEER}))
    model.log.clear()
    model.answer_all()
    assert model.log == [f"neighbor {PEER} announce eor ipv6 unicast"]


def test_paths_with_identifiers_are_recalled_with_them() -> None:
    """ExaBGP's JSON of what it has received leaves them out."""
    model = Model(up=True, received=[recalled(X), recalled(X)])
    model.configuration = printed(PEER, MARK, "fd00:1::1", "ipv4 unicast;", "ipv6 unicast;")
    words = (
        "origin igp as-path ( 65000 65002 ) med 7 community [ 1:2 no-export ] large-community [ 65000:1:7 65000:1:8 ]"
    )
    while not model.asked or model.asked[0] != f"show adj-rib in {PEER} extensive":
        if model.asked:
            model.answer()
        model.take()
    model.bridge.exabgp_says(f"{NAME} ipv4 unicast {X} path-information 0.0.0.5 next-hop {PEER} {words}")
    model.bridge.exabgp_says(f"{NAME} ipv4 unicast {X} path-information 0.0.0.4 next-hop {PEER} origin igp")
    model.bridge.exabgp_says(f"{NAME} ipv6 unicast {Z} next-hop {PEER} origin igp large-community 65000:1:9")
    model.answer_all()
    table = model.bridge.received[PEER]
    assert set(table) == {f"{X} 0.0.0.5", f"{X} 0.0.0.4", Z}
    assert table[f"{X} 0.0.0.5"].attributes == {
        "med": 7,
        "community": ["1:2", "65535:65281"],
        "large-community": ["65000:1:7", "65000:1:8"],
    }
    assert table[Z].attributes == {"large-community": ["65000:1:9"]}
    model.bridge.exabgp_says(update(withdraw={"ipv4 unicast": [{"nlri": X, "path-information": "0.0.0.5"}]}))
    assert set(model.bridge.received[PEER]) == {f"{X} 0.0.0.4", Z}


# -- the agent


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "bridge" / "bridge.sock"


def greet(bridge: FakeBridge, *truth: dict[str, Any], mark: str = "old") -> None:
    bridge.say({"hello": 1, "bridge": "one", "pid": 8, "exabgp": 7}, *truth, {"end": True, "mark": mark})


def reconfigured(speaker: Speaker, *peers: Peer, mark: str = "new", within: float = 30.0) -> asyncio.Task[bool]:
    return asyncio.create_task(speaker.reconfigure(bgp(*peers), allowed=ALLOWED, mark=mark, within=within))


OTHER_PEER = peer("other", OTHER, "fd00:2::1")


def test_what_is_under_way_is_answered_first_and_nothing_is_said_meanwhile(path: Path) -> None:
    async def main() -> None:
        speaker = make(path, mark="old")
        async with connected(speaker, path) as bridge:
            greet(bridge, session())
            await speaker.until(lambda: speaker.connected)
            speaker.want(V4, PLAIN)
            (order,) = await bridge.orders(1)
            task = reconfigured(speaker, SPINE_PEER, OTHER_PEER)
            assert await bridge.silent()
            bridge.say({"done": order["id"]})
            told = await bridge.hear()
            speaker.want(V6, PLAIN)
            assert await bridge.silent()
            bridge.say(session(), session(OTHER, "unknown", None))
            bridge.say({"book": SPINE, "attributes": TEXT, "prefixes": [str(V4)]})
            bridge.say({"reloaded": told["reload"], "mark": "new"})
            assert await task
            (order,) = await bridge.orders(1)
            assert (order["peer"], order["prefixes"]) == (SPINE, [str(V6)])
            assert not speaker.outdated

    run(main())


def test_a_peer_that_goes_is_told_to_forget_before(path: Path) -> None:
    async def main() -> None:
        speaker = make(path, SPINE_PEER, OTHER_PEER)
        async with connected(speaker, path) as bridge:
            book = [
                {"book": each, "attributes": f"next-hop {local}", "prefixes": [str(V4)]}
                for each, local in ((SPINE, "fd00:1::1"), (OTHER, "fd00:2::1"))
            ]
            greet(bridge, session(), session(OTHER), *book)
            speaker.want(V4, PLAIN)
            await speaker.until(lambda: speaker.connected)
            speaker.open_for_withdrawals()
            task = reconfigured(speaker, SPINE_PEER)
            order = await bridge.hear()
            while "do" not in order:  # other sessions are complete
                order = await bridge.hear()
            assert (order["do"], order["peer"]) == ("withdraw", OTHER)
            speaker.want(V4, replace(PLAIN, med=5))  # comes too late for it
            bridge.say({"done": order["id"]})
            again = await bridge.hear()
            while "reload" not in again:
                if "do" in again:
                    assert again["peer"] == SPINE
                    bridge.say({"done": again["id"]})
                again = await bridge.hear()
            bridge.say(session(), {"reloaded": again["reload"], "mark": "new"})
            assert await task
            assert list(speaker.sessions()) == ["spine"]

    run(main())


def test_a_peer_that_is_down_and_goes_is_told_nothing(path: Path) -> None:
    """It would wait for its session, and keep ExaBGP from reading its file."""

    async def main() -> None:
        speaker = make(path, SPINE_PEER, OTHER_PEER)
        async with connected(speaker, path) as bridge:
            book = {"book": OTHER, "attributes": TEXT, "prefixes": [str(V4)]}
            greet(bridge, session(OTHER, "down"), book)
            speaker.want(V4, PLAIN)
            await speaker.until(lambda: speaker.connected)
            task = reconfigured(speaker, SPINE_PEER)
            told = await bridge.hear()
            assert list(told) == ["reload"]
            bridge.say({"reloaded": told["reload"], "mark": "new"})
            assert await task

    run(main())


def test_exabgp_is_asked_until_it_has_read_its_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_RELOAD", 0.01)

    async def main() -> None:
        speaker = make(path, mark="old")
        async with connected(speaker, path) as bridge:
            greet(bridge, session())
            await speaker.until(lambda: speaker.connected)
            task = reconfigured(speaker, SPINE_PEER, OTHER_PEER)
            for _ in range(3):
                told = await bridge.hear()
                bridge.say(session(), {"reloaded": told["reload"], "mark": "old"})
            told = await bridge.hear()
            assert speaker.outdated
            bridge.say(session(), {"reloaded": told["reload"], "mark": "new"})
            assert await task

    run(main())


def test_one_that_never_reads_it_is_told_of_and_routes_go_on(path: Path) -> None:
    async def main() -> None:
        speaker = make(path, mark="old")
        async with connected(speaker, path) as bridge:
            greet(bridge, session())
            await speaker.until(lambda: speaker.connected)
            task = reconfigured(speaker, SPINE_PEER, OTHER_PEER, within=0.1)
            told = await bridge.hear()
            bridge.say(session(), {"reloaded": told["reload"], "mark": "old"})
            with pytest.raises(
                SpeakerError, match=r"peer without a session \(other\).*service mobility_exabgp restart"
            ):
                await task
            speaker.want(V4, PLAIN)
            order = await bridge.hear()
            while "do" not in order:
                bridge.say(session(), {"reloaded": order["reload"], "mark": "old"})
                order = await bridge.hear()
            assert order["prefixes"] == [str(V4)]

    run(main())


def test_a_bridge_that_dies_meanwhile_is_asked_when_it_is_back(path: Path) -> None:
    async def main() -> None:
        speaker = make(path, mark="old")
        async with connected(speaker, path) as bridge:
            greet(bridge, session())
            await speaker.until(lambda: speaker.connected)
            task = reconfigured(speaker, SPINE_PEER, OTHER_PEER)
            await bridge.hear()
            bridge.close()
            await speaker.until(lambda: not speaker.connected)
            again = FakeBridge(*await asyncio.open_unix_connection(path))
            greet(again, session())
            told = await again.hear()
            again.say({"reloaded": told["reload"], "mark": "new"})
            assert await task
            again.close()

    run(main())


def test_a_bridge_of_an_older_version_is_not_asked(path: Path) -> None:
    async def main() -> None:
        speaker = make(path, mark="new")
        async with connected(speaker, path) as bridge:
            bridge.greet(session())
            await speaker.until(lambda: speaker.connected)
            assert "service mobility_exabgp restart" in speaker.reloadable()
            assert not speaker.outdated

    run(main())


def test_without_exabgp_there_is_nobody_to_ask(path: Path) -> None:
    async def main() -> None:
        speaker = make(path, mark="old")
        await speaker.start()
        assert speaker.reloadable() == ""
        speaker.want(V4, PLAIN)
        assert not await reconfigured(speaker, OTHER_PEER)
        assert list(speaker.sessions()) == ["other"]
        await speaker.close()

    run(main())


def test_what_is_no_more_allowed_is_withdrawn(path: Path) -> None:
    async def main() -> None:
        speaker = make(path, mark="same")
        async with connected(speaker, path) as bridge:
            greet(bridge, session(), {"book": SPINE, "attributes": TEXT, "prefixes": [str(V4), str(V6)]}, mark="same")
            for prefix in (V4, V6):
                speaker.want(prefix, PLAIN)
            await speaker.until(lambda: speaker.connected)
            assert await speaker.reconfigure(bgp(), allowed=[network_prefix("2001:db8:7::/64")], mark="same", within=5)
            (order,) = await bridge.orders(1)
            assert (order["do"], order["prefixes"]) == ("withdraw", [str(V4)])
            with pytest.raises(ValueError, match="not among"):
                speaker.want(V4, Attributes())

    run(main())
