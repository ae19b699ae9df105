"""The agent's end, with a modelled bridge at the real socket."""

from __future__ import annotations

import asyncio
import getpass
import json
import logging
import os
import stat
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobility.bgp.speaker import OUTSTANDING_ROUTES, Session, Speaker, SpeakerError, State
from mobility.config import Bgp, Peer
from mobility.model import Attributes, host_prefix, network_prefix

SPINE, OTHER = "fd00:1::ff", "fd00:2::ff"
V4, V6 = host_prefix("198.51.100.7"), host_prefix("2001:db8:7::7")
ALLOWED = (network_prefix("198.51.100.0/24"), network_prefix("2001:db8:7::/64"))
TEXT = "next-hop fd00:1::1"
OPEN = {
    "families": ["ipv4/unicast", "ipv6/unicast"],
    "nexthop": ["ipv4/unicast/ipv6"],
    "graceful_restart": 120,
    "asn": 65000,
}
OLD = {**OPEN, "nexthop": []}
PLAIN = Attributes()


def peer(name: str, address: str, local: str, next_hop_ipv4: str | None = None) -> Peer:
    return Peer(name, address, 65000, local, local, next_hop_ipv4, "", 179)


def bgp(*peers: Peer) -> Bgp:
    user = getpass.getuser()
    return Bgp(65001, "10.0.0.1", user, 120, "exabgp", ("/bin/true",), None, peers or (SPINE_PEER,))


SPINE_PEER = peer("spine", SPINE, "fd00:1::1")


class FakeBridge:
    """What the bridge would say."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    def say(self, *messages: dict[str, Any]) -> None:
        self._writer.write("".join(f"{json.dumps(message)}\n" for message in messages).encode())

    async def hear(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(await self._reader.readline())
        return message

    async def orders(self, count: int) -> list[dict[str, Any]]:
        return [await self.hear() for _ in range(count)]

    def greet(self, *truth: dict[str, Any], bridge: str = "one", exabgp: int = 7) -> None:
        self.say({"hello": 1, "bridge": bridge, "pid": 8, "exabgp": exabgp}, *truth, {"end": True})

    async def silent(self) -> bool:
        """Tell whether nothing comes: after a turn of the loop for each side."""
        try:
            await asyncio.wait_for(self._reader.readline(), 0.05)
        except TimeoutError:
            return True
        return False

    async def closed(self) -> bool:
        while await self._reader.readline():
            pass
        return True

    def close(self) -> None:
        self._writer.close()


def session(address: str = SPINE, state: str = "up", opened: dict[str, Any] | None = OPEN) -> dict[str, Any]:
    return {"session": address, "state": state, "since": 5.0, "reason": "", "open": opened, "heard": []}


@asynccontextmanager
async def connected(speaker: Speaker, path: Path) -> AsyncIterator[FakeBridge]:
    await speaker.start()
    try:
        bridge = FakeBridge(*await asyncio.open_unix_connection(path))
        yield bridge
        bridge.close()
    finally:
        await speaker.close()


class Watched(Speaker):
    """A speaker that a test can wait for."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        self.stirred = asyncio.Event()
        super().__init__(*arguments, on_change=self.stirred.set, **more)

    async def until(self, check: Callable[[], object]) -> None:
        """Wait until `check` holds, looking again at each change."""
        while not check():
            self.stirred.clear()
            await self.stirred.wait()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "bridge" / "bridge.sock"


def run(main: Coroutine[Any, Any, None]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(20):
            await main

    asyncio.run(limited())


def make(path: Path, *peers: Peer, **more: Any) -> Watched:
    return Watched(bgp(*peers), path, **{"allowed": ALLOWED, **more})


def test_a_route_goes_out_and_is_acknowledged(path: Path) -> None:
    async def main() -> None:
        speaker = make(path)
        async with connected(speaker, path) as bridge:
            bridge.greet(session())
            await speaker.until(lambda: speaker.connected)
            speaker.want(V4, PLAIN)
            (order,) = await bridge.orders(1)
            assert order == {
                "id": 1,
                "do": "announce",
                "peer": SPINE,
                "attributes": TEXT,
                "prefixes": ["198.51.100.7/32"],
            }
            assert speaker.route(V4)["spine"].state is State.SENDING
            assert not await speaker.settled([V4], 0)
            waiting = asyncio.create_task(speaker.settled([V4], 5))
            speaker.stirred.clear()
            bridge.say({"done": 1})
            assert await waiting
            assert speaker.stirred.is_set()
            assert str(speaker.route(V4)["spine"]) == "announced"
            assert speaker.counts() == {
                "desired": 1,
                "acknowledged": 1,
                "differing": 0,
                "held_back": 0,
                "over_limit": 0,
                "received": 0,
            }

    run(main())


def test_what_changes_in_one_turn_goes_out_in_one_command(path: Path) -> None:
    async def main() -> None:
        speaker = make(path)
        async with connected(speaker, path) as bridge:
            bridge.greet(session())
            await speaker.until(lambda: speaker.connected)
            for number in range(1, 10):
                speaker.want(host_prefix(f"198.51.100.{number}"), PLAIN)
            (order,) = await bridge.orders(1)
            assert len(order["prefixes"]) == 9
            assert await bridge.silent()

    run(main())


def test_a_book_as_wanted_needs_nothing(path: Path) -> None:
    async def main() -> None:
        speaker = make(path)
        speaker.want(V4, PLAIN)
        async with connected(speaker, path) as bridge:
            bridge.greet(
                session(), {"book": SPINE, "attributes": TEXT, "prefixes": ["198.51.100.7/32", "198.51.100.8/32"]}
            )
            assert await speaker.settled([V4], 5)
            assert await bridge.silent()
            speaker.open_for_withdrawals()
            (order,) = await bridge.orders(1)
            assert (order["do"], order["prefixes"]) == ("withdraw", ["198.51.100.8/32"])

    run(main())


def test_complete_is_said_once_all_is_told_and_open(path: Path) -> None:
    async def main() -> None:
        speaker = make(path)
        speaker.want(V4, PLAIN)
        async with connected(speaker, path) as bridge:
            bridge.greet(session())
            (order,) = await bridge.orders(1)
            bridge.say({"done": order["id"]})
            assert await bridge.silent()
            speaker.open_for_withdrawals()
            assert await bridge.hear() == {"complete": SPINE}
            bridge.say(session(state="down"), session())
            assert await bridge.silent()

    run(main())


def test_announcements_wait_for_the_session_withdrawals_do_not(path: Path) -> None:
    async def main() -> None:
        speaker = make(path)
        speaker.want(V4, PLAIN)
        speaker.unwant(V6)
        async with connected(speaker, path) as bridge:
            bridge.greet(session(state="down"), {"book": SPINE, "attributes": TEXT, "prefixes": ["2001:db8:7::7/128"]})
            (order,) = await bridge.orders(1)
            assert (order["do"], order["prefixes"]) == ("withdraw", ["2001:db8:7::7/128"])
            bridge.say({"done": order["id"]})
            assert await speaker.settled([V6], 5)
            assert speaker.route(V4)["spine"].state is State.NO_SESSION
            assert not await speaker.settled([V4], 0)
            bridge.say(session())
            (order,) = await bridge.orders(1)
            assert order["do"] == "announce"

    run(main())


def test_a_peer_without_rfc8950_gets_no_ipv4_route(path: Path) -> None:
    async def main() -> None:
        speaker = make(path, SPINE_PEER, peer("old", OTHER, "fd00:2::1"))
        speaker.want(V4, PLAIN)
        speaker.want(V6, PLAIN)
        async with connected(speaker, path) as bridge:
            bridge.greet(session(), session(OTHER, opened=OLD))
            orders = await bridge.orders(3)
            assert sorted((order["peer"], *order["prefixes"]) for order in orders) == [
                (SPINE, "198.51.100.7/32"),
                (SPINE, "2001:db8:7::7/128"),
                (OTHER, "2001:db8:7::7/128"),
            ]
            bridge.say(*({"done": order["id"]} for order in orders))
            assert await speaker.settled([V4, V6], 5)
            assert speaker.route(V4)["old"].state is State.HELD
            assert speaker.sessions()["old"].rfc8950 is False
            assert speaker.counts()["held_back"] == 1
            # it learns and forgets
            bridge.say(session(OTHER))
            (order,) = await bridge.orders(1)
            assert (order["do"], order["peer"]) == ("announce", OTHER)
            bridge.say({"done": order["id"]}, session(OTHER, opened=OLD))
            (order,) = await bridge.orders(1)
            assert (order["do"], order["peer"]) == ("withdraw", OTHER)

    run(main())


def test_a_peer_without_rfc8950_gets_the_next_hop_configured_for_it(path: Path) -> None:
    async def main() -> None:
        speaker = make(path, peer("old", OTHER, "fd00:2::1", "203.0.113.1"))
        speaker.want(V4, PLAIN)
        async with connected(speaker, path) as bridge:
            bridge.greet(session(OTHER, opened=OLD))
            (order,) = await bridge.orders(1)
            assert order["attributes"] == "next-hop 203.0.113.1"
            bridge.say({"done": order["id"]}, session(OTHER))
            (order,) = await bridge.orders(1)
            assert order["attributes"] == "next-hop fd00:2::1"

    run(main())


def test_a_peer_without_the_family_gets_none_of_it(path: Path) -> None:
    async def main() -> None:
        speaker = make(path)
        speaker.want(V6, PLAIN)
        async with connected(speaker, path) as bridge:
            bridge.greet(session(opened={**OPEN, "families": ["ipv4/unicast"]}))
            await speaker.until(lambda: speaker.connected)
            assert await bridge.silent()
            assert "does not take IPv6" in str(speaker.route(V6)["spine"])

    run(main())


def test_each_session_says_what_it_holds_back_and_why(path: Path) -> None:
    async def main() -> None:
        only6 = replace(peer("only6", "fd00:3::ff", "fd00:3::1"), families=("ipv6",))
        old = Peer("old", "192.0.2.2", 65000, "192.0.2.1", None, "192.0.2.1", "", 179, families=("ipv4",))
        speaker = make(path, SPINE_PEER, only6, old)
        async with connected(speaker, path) as bridge:
            bridge.greet(session(opened=OLD), session("fd00:3::ff"), session("192.0.2.2"))
            speaker.want(V4, PLAIN)
            speaker.want(V6, PLAIN)
            orders = {(order["peer"], *order["prefixes"]): order["attributes"] for order in await bridge.orders(3)}
            # an IPv4 session has IPv4 next hops, whatever the peer could
            assert orders == {
                (SPINE, str(V6)): TEXT,
                ("fd00:3::ff", str(V6)): "next-hop fd00:3::1",
                ("192.0.2.2", str(V4)): "next-hop 192.0.2.1",
            }
            held = {each["peer"]: each["held_back"] for each in speaker.describe()}
            (why,) = held["spine"]
            assert "RFC 8950" in why
            assert held == {"spine": {why: 1}, "only6": {}, "old": {}}
            assert speaker.counts()["held_back"] == 1
            assert {name: str(state.state) for name, state in speaker.route(V4).items()} == {
                "spine": State.HELD,
                "only6": State.LEFT_OUT,
                "old": State.SENDING,
            }

    run(main())


def test_with_an_unknown_open_what_was_told_stands(path: Path) -> None:
    async def main() -> None:
        speaker = make(path)
        speaker.want(V4, PLAIN)
        other = host_prefix("198.51.100.8")
        speaker.want(other, PLAIN)
        speaker.open_for_withdrawals()
        async with connected(speaker, path) as bridge:
            book = {"book": SPINE, "attributes": TEXT, "prefixes": ["198.51.100.7/32"]}
            bridge.greet(session(opened=None), book)
            assert await bridge.hear() == {"complete": SPINE}
            assert await bridge.silent()
            assert speaker.route(V4)["spine"].state is State.ANNOUNCED
            assert speaker.route(other)["spine"].state is State.HELD

    run(main())


def test_a_new_bridge_of_the_same_exabgp_finds_the_opens_known(path: Path) -> None:
    async def main() -> None:
        speaker = make(path)
        async with connected(speaker, path) as bridge:
            bridge.greet(session())
            await speaker.until(lambda: speaker.connected)
            bridge.close()
            await speaker.until(lambda: not speaker.connected)
            assert not speaker.sessions()["spine"].up
            second = FakeBridge(*await asyncio.open_unix_connection(path))
            second.greet(session(opened=None), bridge="two")
            speaker.want(V4, PLAIN)
            (order,) = await second.orders(1)
            assert order["do"] == "announce"
            second.close()
            await speaker.until(lambda: not speaker.connected)
            third = FakeBridge(*await asyncio.open_unix_connection(path))
            third.greet(session(opened=None), bridge="three", exabgp=9)
            await speaker.until(lambda: speaker.connected)
            assert speaker.sessions()["spine"].rfc8950 is None
            third.close()

    run(main())


def test_ten_thousand_wants_do_not_flood_the_bridge(path: Path) -> None:
    async def main() -> None:
        speaker = make(path, allowed=[network_prefix("10.0.0.0/8")])
        async with connected(speaker, path) as bridge:
            bridge.greet(session())
            await speaker.until(lambda: speaker.connected)
            for number in range(1000):
                speaker.want(host_prefix(f"10.1.{number >> 8}.{number & 255}"), PLAIN)
            routes, most, done = 0, 0, 0
            while done < 1000:
                order = await bridge.hear()
                routes += len(order["prefixes"])
                most = max(most, routes - done)
                done += len(order["prefixes"])
                bridge.say({"done": order["id"]})
            assert most <= OUTSTANDING_ROUTES
            assert speaker.counters.commands < 60

    run(main())


def test_a_refused_route_says_so_and_is_tried_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mobility.bgp.speaker.RETRY_REFUSED", 0.02)

    async def main() -> None:
        speaker = make(path)
        speaker.want(V4, PLAIN)
        async with connected(speaker, path) as bridge:
            bridge.greet(session())
            (order,) = await bridge.orders(1)
            bridge.say({"error": order["id"], "text": "no"})
            await speaker.until(lambda: speaker.route(V4)["spine"].state is State.REFUSED)
            (order,) = await bridge.orders(1)
            bridge.say({"done": order["id"]})
            assert await speaker.settled([V4], 5)
            assert speaker.counters.refused == 1

    run(main())


def test_who_waits_for_a_router_that_is_gone_is_not_busy(path: Path) -> None:
    """Failover waits until nothing is under way: a dead router must not keep a host demoted for ever."""

    async def main() -> None:
        speaker = make(path, SPINE_PEER, peer("gone", OTHER, "fd00:2::1"))
        async with connected(speaker, path) as bridge:
            bridge.greet(session(), session(OTHER, "down", None))
            await speaker.until(lambda: speaker.connected)
            speaker.want(V4, PLAIN)
            (order,) = await bridge.orders(1)
            assert speaker.busy
            bridge.say({"done": order["id"]})
            await speaker.until(lambda: speaker.route(V4)["spine"].state is State.ANNOUNCED)
            assert not speaker.busy
            bridge.say(session(OTHER))
            (order,) = await bridge.orders(1)
            assert speaker.busy
            bridge.say({"done": order["id"]})
            await speaker.until(lambda: not speaker.busy)

    run(main())


def test_a_given_next_hop_stands_in_for_the_peers(path: Path) -> None:
    async def main() -> None:
        speaker = make(path, SPINE_PEER, peer("old", OTHER, "fd00:2::1", "203.0.113.1"))
        speaker.want(V4, Attributes(next_hop_ipv6="2001:db8:7::fe"))
        speaker.want(V6, Attributes(next_hop_ipv6="2001:db8:7::fe"))
        async with connected(speaker, path) as bridge:
            bridge.greet(session(), session(OTHER, opened=OLD))
            orders = [order for _ in range(4) for order in await bridge.orders(1)]
            assert {(order["peer"], *order["prefixes"], order["attributes"]) for order in orders} == {
                (SPINE, "198.51.100.7/32", "next-hop 2001:db8:7::fe"),
                (SPINE, "2001:db8:7::7/128", "next-hop 2001:db8:7::fe"),
                (OTHER, "198.51.100.7/32", "next-hop 203.0.113.1"),
                (OTHER, "2001:db8:7::7/128", "next-hop 2001:db8:7::fe"),
            }

    run(main())


def test_a_given_ipv4_next_hop_serves_a_peer_without_rfc8950(path: Path) -> None:
    async def main() -> None:
        speaker = make(path, SPINE_PEER, peer("old", OTHER, "fd00:2::1"))
        speaker.want(V4, Attributes(next_hop_ipv4="198.51.100.254"))
        async with connected(speaker, path) as bridge:
            bridge.greet(session(), session(OTHER, opened=OLD))
            orders = await bridge.orders(2)
            assert {order["attributes"] for order in orders} == {"next-hop 198.51.100.254"}
            assert speaker.counts()["held_back"] == 0
            speaker.want(V4, PLAIN)
            assert speaker.counts()["held_back"] == 1

    run(main())


def test_our_as_is_prepended_for_external_peers_only(path: Path) -> None:
    async def main() -> None:
        speaker = make(path, SPINE_PEER, replace(peer("internal", OTHER, "fd00:2::1"), remote_as=65001))
        speaker.want(V6, Attributes(prepend=1))
        async with connected(speaker, path) as bridge:
            bridge.greet(session(), session(OTHER))
            orders = await bridge.orders(2)
            assert {order["peer"]: order["attributes"] for order in orders} == {
                SPINE: "next-hop fd00:1::1 as-path [ 65001 65001 ]",
                OTHER: "next-hop fd00:2::1",
            }

    run(main())


def test_beyond_the_limit_nothing_is_announced_until_there_is_room(path: Path) -> None:
    several = [host_prefix(f"198.51.100.{number}") for number in range(1, 5)]

    async def main() -> None:
        speaker = Watched(replace(bgp(), max_announcements=2), path, allowed=ALLOWED)
        async with connected(speaker, path) as bridge:
            bridge.greet(session())
            await speaker.until(lambda: speaker.connected)
            speaker.open_for_withdrawals()
            assert await bridge.hear() == {"complete": SPINE}
            for prefix in several:
                speaker.want(prefix, PLAIN)
            (order,) = await bridge.orders(1)
            assert order["prefixes"] == ["198.51.100.1/32", "198.51.100.2/32"]
            bridge.say({"done": order["id"]})
            assert await speaker.settled(several[:2], 5)
            told = speaker.route(several[3])["spine"]
            assert str(told) == "refused: bgp.max_announcements = 2 are announced"
            assert speaker.counts()["over_limit"] == 2
            speaker.want(several[0], Attributes(med=5))  # what is announced may change
            (order,) = await bridge.orders(1)
            assert order["prefixes"] == ["198.51.100.1/32"]
            bridge.say({"done": order["id"]})
            speaker.unwant(several[2])  # it waits no more
            speaker.unwant(several[1])
            (order,) = await bridge.orders(1)
            assert (order["do"], order["prefixes"]) == ("withdraw", ["198.51.100.2/32"])
            assert await bridge.silent()  # there is room when it is gone
            bridge.say({"done": order["id"]})
            (order,) = await bridge.orders(1)
            assert (order["do"], order["prefixes"]) == ("announce", ["198.51.100.4/32"])
            assert speaker.counts()["over_limit"] == 0

    run(main())


def test_what_is_announced_stays_when_all_is_said_in_another_order(path: Path) -> None:
    several = [host_prefix(f"198.51.100.{number}") for number in range(1, 5)]

    async def main() -> None:
        speaker = Watched(replace(bgp(), max_announcements=2), path, allowed=ALLOWED)
        for prefix in several:  # before anybody knows what ExaBGP has
            speaker.want(prefix, PLAIN)
        async with connected(speaker, path) as bridge:
            book = {"book": SPINE, "attributes": TEXT, "prefixes": ["198.51.100.3/32", "198.51.100.9/32"]}
            bridge.greet(session(), book)
            await speaker.until(lambda: speaker.connected)
            assert await bridge.silent()
            assert [speaker.route(prefix)["spine"].state for prefix in several] == [
                State.REFUSED,
                State.REFUSED,
                State.ANNOUNCED,
                State.REFUSED,
            ]
            speaker.open_for_withdrawals()  # nobody wants the other one
            (order,) = await bridge.orders(1)
            assert (order["do"], order["prefixes"]) == ("withdraw", ["198.51.100.9/32"])
            bridge.say({"done": order["id"]})
            (order,) = await bridge.orders(1)
            assert (order["do"], order["prefixes"]) == ("announce", ["198.51.100.1/32"])

    run(main())


def test_a_lower_limit_takes_nothing_away(path: Path) -> None:
    several = [host_prefix(f"198.51.100.{number}") for number in range(1, 5)]

    async def main() -> None:
        speaker = Watched(replace(bgp(), max_announcements=1), path, allowed=ALLOWED)
        async with connected(speaker, path) as bridge:
            book = {"book": SPINE, "attributes": TEXT, "prefixes": ["198.51.100.2/32", "198.51.100.3/32"]}
            bridge.greet(session(), book)
            await speaker.until(lambda: speaker.connected)
            for prefix in several:
                speaker.want(prefix, PLAIN)
            speaker.open_for_withdrawals()
            assert await bridge.hear() == {"complete": SPINE}
            assert await bridge.silent()
            states = [speaker.route(prefix)["spine"].state for prefix in several]
            assert states == [State.REFUSED, State.ANNOUNCED, State.ANNOUNCED, State.REFUSED]

    run(main())


@given(
    st.lists(st.tuples(st.booleans(), st.integers(1, 9)), max_size=40), st.integers(1, 6), st.sets(st.integers(1, 9))
)
@settings(deadline=None, max_examples=40)
def test_never_is_more_announced_than_may_be(changes: list[tuple[bool, int]], limit: int, before: set[int]) -> None:
    """Whatever is wanted and not wanted any more, in whatever order; `before`: what an agent before us had announced."""
    before = set(sorted(before)[:limit])
    desired = [host_prefix(f"198.51.100.{number}") for number in range(1, 10)]

    async def main(path: Path) -> None:
        speaker = Watched(replace(bgp(), max_announcements=limit), path, allowed=ALLOWED)
        async with connected(speaker, path) as bridge:
            told = {f"198.51.100.{number}/32" for number in before}
            bridge.greet(session(), {"book": SPINE, "attributes": TEXT, "prefixes": sorted(told)})
            most = [len(told)]

            async def obey() -> None:
                while True:
                    order = await bridge.hear()
                    if "do" in order:
                        act = told.update if order["do"] == "announce" else told.difference_update
                        act(order["prefixes"])
                        most.append(len(told))
                        bridge.say({"done": order["id"]})

            obeying = asyncio.create_task(obey())
            await speaker.until(lambda: speaker.connected)
            wanted: dict[int, None] = {}
            for want, number in changes:
                if want:
                    speaker.want(desired[number - 1], PLAIN)
                    wanted[number] = None
                else:
                    speaker.unwant(desired[number - 1])
                    wanted.pop(number, None)
                await asyncio.sleep(0)  # sometimes an answer comes in between
            speaker.open_for_withdrawals()
            await speaker.until(lambda: len(told) == min(limit, len(wanted)) and not speaker.counts()["differing"])
            assert max(most) <= limit
            assert told <= {f"198.51.100.{number}/32" for number in wanted}
            assert speaker.counts()["over_limit"] == max(0, len(wanted) - limit)
            obeying.cancel()

    with tempfile.TemporaryDirectory() as folder:
        run(main(Path(folder) / "run" / "bridge.sock"))


def test_what_may_not_be_announced_is_not(path: Path) -> None:
    speaker = Speaker(bgp(), path, allowed=[network_prefix("198.51.100.0/24"), network_prefix("0.0.0.0/0")])
    for text in ("0.0.0.0/0", "127.0.0.1/32", "224.0.0.1/32", "2001:db8::1/128", "::/0"):
        with pytest.raises(ValueError, match="not announced"):
            speaker.want(network_prefix(text), PLAIN)
    with pytest.raises(ValueError, match="no community"):
        speaker.want(V4, Attributes(communities=("x",)))
    assert speaker.counts()["desired"] == 0


def test_preview_shows_what_would_be_sent(path: Path) -> None:
    async def main() -> None:
        speaker = make(path, SPINE_PEER, peer("old", OTHER, "fd00:2::1"))
        async with connected(speaker, path) as bridge:
            book = {"book": SPINE, "attributes": TEXT, "prefixes": ["2001:db8:7::7/128"]}
            bridge.greet(session(), session(OTHER, opened=OLD), book)
            await speaker.until(lambda: speaker.connected)
            lines = speaker.preview([V4, V6])
            assert lines[0] == f"neighbor {SPINE} announce attributes {TEXT} nlri 198.51.100.7/32"
            assert lines[1].startswith("# old: 198.51.100.7/32 is held back: the peer takes no IPv6 next hops")
            assert lines[2:] == [f"neighbor {OTHER} announce attributes next-hop fd00:2::1 nlri 2001:db8:7::7/128"]
            assert await bridge.silent()

    run(main())


def test_received_routes(path: Path) -> None:
    async def main() -> None:
        speaker = make(path)
        async with connected(speaker, path) as bridge:
            told = {"received": SPINE, "next_hop": SPINE, "attributes": {"med": 5}, "prefixes": ["198.51.100.0/24"]}
            bridge.greet(session(), told, {**told, "received": "fd00:9::9"})
            await speaker.until(lambda: speaker.connected)
            assert speaker.received()["spine"]["198.51.100.0/24"].attributes == {"med": 5}
            bridge.say({"lost": SPINE, "prefixes": ["198.51.100.0/24", "x"]}, {"lost": "fd00:9::9", "prefixes": []})
            await speaker.until(lambda: not speaker.received()["spine"])
            bridge.say(told)
            await speaker.until(lambda: speaker.received()["spine"])
            bridge.say(session(state="down"))
            await speaker.until(lambda: not speaker.received()["spine"])

    run(main())


def test_a_silent_exabgp_shows_in_the_route(path: Path) -> None:
    async def main() -> None:
        now = [1000.0]
        speaker = make(path, clock=lambda: now[0])
        speaker.want(V4, PLAIN)
        async with connected(speaker, path) as bridge:
            bridge.greet(session())
            await bridge.orders(1)
            bridge.say({"sick": 10})
            await speaker.until(lambda: speaker.route(V4)["spine"].why)
            now[0] += 5
            assert str(speaker.route(V4)["spine"]) == "sending: no answer from ExaBGP for 15 s"
            assert speaker.hangs.startswith("no answer from ExaBGP for 15 s: ")
            bridge.say({"sick": None})
            await speaker.until(lambda: not speaker.route(V4)["spine"].why)
            assert speaker.hangs == ""

    run(main())


@pytest.mark.parametrize(
    "line",
    [
        b"nonsense\n",
        b"[" * 100_000 + b"\n",
        b'{"reloaded": []}\n',
        b"7\n",
        b'{"hello": 2, "bridge": "x", "pid": 1, "exabgp": 1}\n',
        b'{"done": 77}\n',
        b'{"session": "fd00:1::ff"}\n',
        b'{"received": "fd00:1::ff", "next_hop": "x", "attributes": 5, "prefixes": []}\n',
        b'{"book": "fd00:1::ff", "attributes": "x", "prefixes": [5]}\n',
        b'{"book": "fd00:1::ff", "attributes": "x", "prefixes": "abc"}\n',
    ],
)
def test_a_bridge_that_makes_no_sense_is_cut_off(path: Path, line: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        speaker = make(path)
        async with connected(speaker, path) as bridge:
            bridge._writer.write(line)
            assert await bridge.closed()
            again = FakeBridge(*await asyncio.open_unix_connection(path))
            again.greet(session())
            await speaker.until(lambda: speaker.connected)
            again.close()

    with caplog.at_level(logging.ERROR):
        run(main())
    assert [record.message for record in caplog.records] == ["the bridge can not be used, its connection is cut"]


def test_a_second_bridge_is_refused_while_the_first_lives(path: Path) -> None:
    async def main() -> None:
        speaker = make(path)
        async with connected(speaker, path) as bridge:
            bridge.greet(session())
            await speaker.until(lambda: speaker.connected)
            second = FakeBridge(*await asyncio.open_unix_connection(path))
            assert await second.closed()
            assert speaker.counters.intruders == 1
            assert speaker.connected

    run(main())


def test_the_socket_is_for_exabgps_group_only(path: Path) -> None:
    found: list[os.stat_result] = []

    async def main() -> None:
        async with connected(make(path), path):
            found.extend(map(Path.stat, (path, path.parent)))

    run(main())
    assert [stat.S_IMODE(each.st_mode) for each in found] == [0o660, 0o750]
    assert {each.st_gid for each in found} == {os.getgid()}
    assert not path.exists()


def test_a_user_that_does_not_exist_is_named(path: Path) -> None:
    speaker = Speaker(replace(bgp(), user="nosuchuser"), path, allowed=ALLOWED)
    with pytest.raises(SpeakerError, match=r"'nosuchuser' .*does not exist"):
        run(speaker.start())


def test_what_is_in_the_sockets_way_is_named(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_text("")
    with pytest.raises(SpeakerError, match="is in the way and is no socket"):
        run(make(path).start())
    assert path.exists()


def test_without_a_bridge_a_route_says_so(path: Path) -> None:
    speaker = make(path)

    async def main() -> None:
        speaker.want(V4, PLAIN)
        assert speaker.route(V4)["spine"].state is State.NO_BRIDGE
        assert not await speaker.settled([V4], 0)
        assert not await speaker.settled([V6], 0)

    run(main())


def test_a_session_describes_itself() -> None:
    shown = Session("spine", SPINE, "up", 5.0, "", True, ("ipv6/unicast",), (), 120).describe()
    assert shown["peer"] == "spine"
    assert shown["rfc8950"] is False
    assert json.dumps(shown)
