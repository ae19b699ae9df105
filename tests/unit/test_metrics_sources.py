"""Where the figures come from: why a jail is not announced, what the speaker, the ledger, and the host's commands tell."""

from __future__ import annotations

import asyncio
from dataclasses import fields, replace
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobility import plan
from mobility.bgp import ownership
from mobility.bgp.ledger import Ledger, Settings
from mobility.bgp.ownership import DEFAULT_ADMINISTRATOR, Claim, Held, Kind, Policy
from mobility.bgp.speaker import Received, Speaker, State
from mobility.decide import Stand
from mobility.metrics.causes import MEANINGS, NOT_WANTED, OF_THE_HOST, PASSING, Cause, Known, cause
from mobility.network.host import Host, Trouble
from mobility.plan import Command
from mobility.store import Store
from tests.unit.bgp.test_speaker import ALLOWED, OPEN, PLAIN, V4, V6, Watched, bgp, connected, run, session
from tests.unit.test_host import BIN, Scripts

TOLD = "198.51.100.7/32"
OTHER = "2001:db8:7::7/128"

# -- why a jail is not announced


@pytest.mark.parametrize(
    ("known", "why"),
    [
        (Known(broken_file=True, granted=False, problem=True), Cause.FILE),
        (Known(waits=True, problem=True), Cause.TAKEN),
        (Known(granted=False), Cause.NOT_GRANTED),
        (Known(stand=Stand.CLOSING, ready=False), Cause.STOPPING),
        (Known(stand=Stand.PAIRED), Cause.STARTING),
        (Known(stand=Stand.WIRED, starting=True), Cause.STARTING),
        (Known(stand=Stand.WIRED, starting=True, problem=True), Cause.PROBLEM),
        (Known(stand=Stand.WIRED, problem=True, drained=True), Cause.PROBLEM),
        (Known(stand=Stand.WIRED, drained=True, ready=False), Cause.DRAINED),
        (Known(stand=Stand.ABSENT), Cause.NO_ADDRESS),
        (Known(stand=Stand.WIRED, ready=False, suppressed=True), Cause.NOT_READY),
        (Known(stand=Stand.WIRED, suppressed=True, kind=Kind.LOST), Cause.SUPPRESSED),
        (Known(stand=Stand.WIRED, failover=False), Cause.FAILOVER),
        (Known(stand=Stand.WIRED, failover=False, undecided=True), Cause.WAITING),
        (Known(stand=Stand.WIRED, kind=Kind.WAITING), Cause.WAITING),
        (Known(stand=Stand.WIRED, kind=Kind.LOST), Cause.LOST),
        (Known(stand=Stand.WIRED, kind=Kind.CONFLICT), Cause.CONFLICT),
        (Known(stand=Stand.WIRED, kind=Kind.FROZEN), Cause.FROZEN),
        (Known(stand=Stand.WIRED, kind=Kind.EXHAUSTED), Cause.EXHAUSTED),
        (Known(stand=Stand.WIRED, kind=Kind.HELD), Cause.NO_ADDRESS),
        (Known(kind=Kind.HELD, at_peers=frozenset({State.NO_BRIDGE})), Cause.NO_BRIDGE),
        (Known(failover=True, at_peers=frozenset({State.NO_SESSION})), Cause.NO_SESSION),
        (Known(at_peers=frozenset({State.NO_SESSION, State.HELD})), Cause.HELD_BACK),
        (Known(at_peers=frozenset({State.LEFT_OUT})), Cause.HELD_BACK),
        (Known(at_peers=frozenset({State.SENDING, State.REFUSED})), Cause.REFUSED),
        (Known(at_peers=frozenset({State.SENDING})), Cause.SENDING),
        (Known(), Cause.SENDING),
    ],
)
def test_why_a_jail_is_not_announced(known: Known, why: Cause) -> None:
    assert cause(known) is why


ANY = st.builds(
    Known,
    **{each.name: st.booleans() for each in fields(Known) if each.type == "bool"},
    stand=st.sampled_from(Stand),
    failover=st.none() | st.booleans(),
    kind=st.none() | st.sampled_from(Kind),
    at_peers=st.frozensets(st.sampled_from(State)),
)


@given(ANY)
def test_there_is_always_a_reason(known: Known) -> None:
    assert cause(known) in Cause


def test_each_reason_is_explained_and_can_be_had_by_an_operator() -> None:
    assert list(MEANINGS) == list(Cause)
    for word in Cause:
        assert word.replace("_", "").isalpha(), "it becomes a label: no figures, addresses or dates"
    assert {*NOT_WANTED, *OF_THE_HOST, *PASSING} < {*Cause}
    # what somebody should mend keeps a jail wanted, and so dark
    assert not NOT_WANTED & {Cause.PROBLEM, Cause.NOT_READY, Cause.SUPPRESSED, Cause.LOST, Cause.NO_SESSION}


# -- ExaBGP


def test_sessions_and_new_exabgps_are_counted(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "run" / "bridge" / "bridge.sock"
        speaker = Watched(bgp(), path, allowed=ALLOWED)
        up, down = ("spine", "up"), ("spine", "down")
        async with connected(speaker, path) as bridge:
            assert speaker.changes() == {up: 0, down: 0}
            bridge.greet(session(state="down", opened=None))
            await speaker.until(lambda: speaker.connected)
            assert speaker.changes() == {up: 0, down: 0}
            bridge.say(session(), session(state="down"), session())
            await speaker.until(lambda: speaker.changes() == {up: 2, down: 1})
            assert speaker.counters.restarts == 0
            # another bridge of the same ExaBGP: its sessions have stayed
            bridge.greet(session(), bridge="two")
            bridge.say(session(state="down"))
            await speaker.until(lambda: speaker.changes() == {up: 2, down: 2})
            assert speaker.counters.restarts == 0
            bridge.say(session())
            # another ExaBGP: all sessions of the one before are gone with it, whoever says so
            bridge.greet(bridge="three", exabgp=9)
            await speaker.until(lambda: speaker.counters.restarts == 1)
            assert speaker.changes() == {up: 3, down: 3}
            # what it says beside up and down is no change of either
            bridge.say(session(state="connect"), session(state="whatever it likes"), session())
            await speaker.until(lambda: speaker.changes() == {up: 4, down: 3})

    run(main())


def test_what_is_told_to_nobody_and_what_lingers(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "run" / "bridge" / "bridge.sock"
        speaker = Watched(bgp(), path, allowed=ALLOWED)
        speaker.want(V4, PLAIN)
        assert speaker.untold() == {TOLD}
        async with connected(speaker, path) as bridge:
            bridge.greet(session(state="down", opened=OPEN))
            await speaker.until(lambda: speaker.connected)
            assert speaker.untold() == {TOLD}
            bridge.say(session())
            order = await bridge.hear()
            assert speaker.untold() == {TOLD}, "it is under way"
            bridge.say({"done": order["id"]})
            await speaker.until(lambda: not speaker.untold())
            assert speaker.lingering() == set()
            speaker.want(V6, PLAIN)
            refused = await bridge.hear()
            bridge.say({"error": refused["id"], "text": "no"})
            await speaker.until(lambda: speaker.differing == 1)
            assert speaker.untold() == {OTHER}
            speaker.unwant(V4)
            gone = await bridge.hear()
            assert speaker.lingering() == {TOLD}
            bridge.say({"done": gone["id"]})
            await speaker.until(lambda: not speaker.lingering())
            assert speaker.shown({TOLD, OTHER}) == set()
            told = {"received": order["peer"], "next_hop": "fd00::9", "attributes": {}, "prefixes": [TOLD]}
            bridge.say(told, {**told, "prefixes": ["203.0.113.0/24"]})
            await speaker.until(lambda: speaker.shown({TOLD, OTHER}) == {TOLD})
        # nobody knows what an ExaBGP announces that does not answer
        assert speaker.lingering() == set()

    run(main())


# -- who owns a jail


class Shown:
    """What the fabric shows."""

    connected = True

    def __init__(self) -> None:
        self.claims: dict[str, Claim] = {}

    def paths(self, prefix: str) -> dict[str, list[Received]]:
        if prefix not in self.claims:
            return {}
        texts = ownership.communities(self.claims[prefix], DEFAULT_ADMINISTRATOR)
        return {"spine": [Received("fd00::9", {"large-community": list(texts)})]}


def test_each_change_of_owner_is_a_move_and_nothing_else_is(tmp_path: Path) -> None:
    shown, moved = Shown(), list[str]()

    def begin() -> Ledger:
        ledger = Ledger(
            Settings(DEFAULT_ADMINISTRATOR, Policy(5, 180.0), 1.0),
            "10.0.0.1",
            cast(Speaker, shown),
            Store(tmp_path / "mobility.sqlite", "boot"),
            moved=moved.append,
        )
        ledger.hearing.heard = True
        return ledger

    ledger, identity = begin(), ownership.identity_number("web1")
    other, third = 0x0A000002, 0x0A000003
    # claimed first, claimed again: nobody had it before, and then we had
    ledger.rule("web1", "web1", (TOLD,), Held(), witnessed=True)
    ledger.rule("web1", "web1", (TOLD,), Held(), witnessed=True)
    assert moved == []
    sequence = ledger.records["web1"].highest
    shown.claims[TOLD] = Claim(sequence + 1, identity, other)
    ledger.notice("web1", [TOLD])
    ledger.notice("web1", [TOLD])
    assert moved == ["web1"]
    shown.claims[TOLD] = Claim(sequence + 2, identity, third)
    ledger.notice("web1", [TOLD])
    assert moved == ["web1"] * 2
    # an agent that comes back, or an operator who releases it, sees no move
    ledger = begin()
    ledger.notice("web1", [TOLD])
    ledger.release("web1", [TOLD])
    assert moved == ["web1"] * 2
    # and it comes here again
    shown.claims.clear()
    ledger.rule("web1", "web1", (TOLD,), Held(), witnessed=True)
    assert moved == ["web1"] * 3


# -- the host


def test_a_question_that_is_answered_with_no_is_no_failure(tmp_path: Path) -> None:
    scripts, counted = Scripts(tmp_path), list[tuple[str, bool]]()
    host = Host((tmp_path, *BIN), 5.0, lambda name, _, failed: counted.append((name, failed)))
    scripts.write("jls", "echo 'jls: jail \"web1\" not found' >&2; exit 1")
    scripts.write("sysctl", "echo \"sysctl: unknown oid 'x'\" >&2; exit 1")
    scripts.write("route", "echo 'route: not in table' >&2; exit 1")

    async def work() -> None:
        await host.learn()
        assert await host.jail("web1") is None
        assert not any(failed for _, failed in counted)
        counted.clear()
        delete = Command(("route", "-n", "delete", "-host", "198.51.100.7"), "", harmless=("not in table",))
        await host.apply(delete)
        with pytest.raises(Trouble):
            await host.apply(replace(delete, harmless=()))
        assert counted == [("route", False), ("route", True)]

    try:
        asyncio.run(work())
    finally:
        host.close()


@pytest.mark.parametrize(
    ("argv", "makes"),
    [
        (("route", "-n", "add", "-host", "198.51.100.7", "-inet6", "fe80::2%mob-web1"), True),
        (("route", "-n", "-6", "add", "-host", "2001:db8:7::7", "-interface", "mob-web1"), True),
        (("route", "-n", "add", "-host", "198.51.100.7", "127.0.0.1", "-reject"), False),
        (("route", "-n", "delete", "-host", "198.51.100.7"), False),
        (("jexec", "web1", "route", "-n", "add", "default", "-inet6", "fe80::1%in-web1"), False),
        (("ifconfig", "mob-web1", "up"), False),
    ],
)
def test_which_command_gives_the_host_a_route_to_a_jail(argv: tuple[str, ...], makes: bool) -> None:
    assert plan.routing([Command(("ifconfig", "x"), ""), Command(argv, "")]) is makes
