"""The ledger: when the fabric was heard, and what is read from what it shows and from what ExaBGP still announces."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from mobility.bgp import ownership
from mobility.bgp.ledger import Hearing, Ledger, Settings
from mobility.bgp.ownership import DEFAULT_ADMINISTRATOR, LAST, RESERVE, Claim, Held, Kind, Policy, Record
from mobility.bgp.speaker import Received, Session, Speaker
from mobility.store import Store

V4, V6 = "198.51.100.7/32", "2001:db8:7::7/128"
BOTH = (V4, V6)
FAMILIES = ("ipv4/unicast", "ipv6/unicast")
ROUTER_ID = "10.0.0.2"
ME, HIGHER = 0x0A000002, 0x0A000003
WEB, OTHER = ownership.identity_number("web1"), ownership.identity_number("db1")
NOON = 1_796_000_400.0
LEARN_FOR = 5.0


def up(peer: str, *heard: str) -> Session:
    return Session(peer, peer, "up", opened=True, families=FAMILIES, heard=heard)


def down(peer: str) -> Session:
    return Session(peer, peer, "down")


# -- hearing


def test_the_fabric_is_heard_once_all_peers_have_told_all() -> None:
    hearing = Hearing(LEARN_FOR)
    assert not hearing.update([up("s1"), up("s2")], 0.0)
    assert not hearing.update([up("s1", *FAMILIES), up("s2", FAMILIES[0])], 1.0)
    assert hearing.due(1.0) == 4.0
    assert hearing.update([up("s1", *FAMILIES), up("s2", *FAMILIES)], 2.0)
    assert hearing.heard
    assert hearing.due(2.0) is None


def test_a_peer_that_never_tells_the_end_is_waited_for_only_so_long() -> None:
    hearing = Hearing(LEARN_FOR)
    hearing.update([up("s1", *FAMILIES), down("s2")], 10.0)
    assert not hearing.update([up("s1", *FAMILIES), down("s2")], 14.9)
    assert hearing.update([up("s1", *FAMILIES), down("s2")], 15.0)
    assert hearing.heard


def test_without_any_session_all_has_to_be_heard_again() -> None:
    hearing = Hearing(LEARN_FOR)
    hearing.update([up("s1", *FAMILIES)], 0.0)
    assert hearing.update([down("s1")], 100.0)
    assert not hearing.heard
    assert hearing.due(100.0) is None
    hearing.update([up("s1")], 200.0)
    assert (hearing.heard, hearing.due(200.0)) == (False, LEARN_FOR)


def test_a_rolling_restart_of_two_spines() -> None:
    """The second one goes before the first has told anything again: what is shown then is nothing."""
    hearing = Hearing(LEARN_FOR)
    hearing.update([up("s1", *FAMILIES), up("s2", *FAMILIES)], 0.0)
    assert not hearing.update([down("s1"), up("s2", *FAMILIES)], 100.0)
    assert not hearing.update([up("s1"), up("s2", *FAMILIES)], 130.0)
    assert hearing.heard
    assert hearing.update([up("s1"), down("s2")], 130.2)
    assert not hearing.heard
    # the time to listen begins anew
    assert hearing.due(131.2) == pytest.approx(LEARN_FOR - 1.0)
    assert not hearing.update([up("s1", FAMILIES[0]), down("s2")], 132.0)
    assert hearing.update([up("s1", *FAMILIES), up("s2", *FAMILIES)], 133.0)
    assert hearing.heard


def test_a_rolling_restart_whose_first_spine_has_told_all_again() -> None:
    hearing = Hearing(LEARN_FOR)
    hearing.update([up("s1", *FAMILIES), up("s2", *FAMILIES)], 0.0)
    hearing.update([up("s1"), up("s2", *FAMILIES)], 130.0)
    hearing.update([up("s1", *FAMILIES), up("s2", *FAMILIES)], 131.0)
    assert not hearing.update([up("s1", *FAMILIES), down("s2")], 132.0)
    assert hearing.heard


# -- what is read


class Fabric:
    """What a speaker knows: the routes of peers, and what each peer was told."""

    def __init__(self) -> None:
        self.connected = True
        self.shown: dict[str, dict[str, list[Received]]] = {}
        self.book: dict[str, list[str]] = {}

    def paths(self, prefix: str) -> dict[str, list[Received]]:
        return self.shown.get(prefix, {})

    def acknowledged(self, prefix: str) -> list[str]:
        return self.book.get(prefix, [])

    def show(self, prefix: str, peer: str, *several: Claim) -> None:
        self.show_raw(prefix, peer, *(ownership.communities(claim, DEFAULT_ADMINISTRATOR) for claim in several))

    def show_raw(self, prefix: str, peer: str, *several: tuple[object, ...]) -> None:
        received = [Received("fd00::9", {"large-community": list(texts)}) for texts in several]
        self.shown.setdefault(prefix, {})[peer] = received

    def tell(self, prefix: str, *texts: str, other: str = "") -> None:
        """Have ExaBGP announce a prefix with these large communities, in its own words."""
        listed = texts[0] if len(texts) == 1 else f"[ {' '.join(texts)} ]"
        large = f" large-community {listed}" if texts else ""
        self.book.setdefault(prefix, []).append(f"next-hop fd00::1{other} med 1{large}")


@pytest.fixture
def fabric() -> Fabric:
    return Fabric()


Make = Callable[..., Ledger]


@pytest.fixture
def make(fabric: Fabric, tmp_path: Path) -> Make:
    def ledger(*several: str) -> Ledger:
        settings = Settings(DEFAULT_ADMINISTRATOR, Policy(5, 180.0), LEARN_FOR)
        store = Store(tmp_path / "mobility.sqlite", "boot")
        made = Ledger(settings, ROUTER_ID, cast(Speaker, fabric), store, lambda: NOON, several=several)
        made.hearing.heard = True
        return made

    return ledger


def claim(sequence: int, identity: int = WEB, claimant: int = HIGHER) -> Claim:
    return Claim(sequence, identity, claimant)


@pytest.mark.parametrize("digits", [10, 19, 5000])
def test_numbers_that_are_too_long_are_no_claim(fabric: Fabric, make: Make, digits: int) -> None:
    """Python's int() refuses more than 4,300 digits, and ExaBGP's user is not trusted."""
    ledger, good = make(), ownership.communities(claim(7), DEFAULT_ADMINISTRATOR)
    bad = "9" * digits
    fabric.show_raw(V4, "s1", (f"{DEFAULT_ADMINISTRATOR}:1:{bad}", *good[1:]))
    fabric.show_raw(V6, "s1", (f"{DEFAULT_ADMINISTRATOR}:{bad}:1", *good))
    assert V4 not in ledger.seen(BOTH)
    ledger.notice("web1", [V4])
    assert "web1" not in ledger.records
    ledger.release("web1", [V4])
    assert ledger.records["web1"] == Record()
    assert ledger.rule("web1", "web1", (V4,), Held(), witnessed=True).kind is Kind.HELD


@pytest.mark.parametrize("listed", [None, "4200000000:1:5", 7, [7, None, ["4200000000:1:5"]], {}])
def test_attributes_of_another_shape_are_no_claim(fabric: Fabric, make: Make, listed: object) -> None:
    fabric.shown[V4] = {"s1": [Received("fd00::9", {"large-community": listed}), Received("fd00::9", {})]}
    assert make().seen(BOTH) == {}


def test_all_paths_of_all_peers_are_seen(fabric: Fabric, make: Make) -> None:
    fabric.show(V4, "s1", claim(7), claim(8, claimant=ME))
    fabric.show(V4, "s2", claim(9))
    assert make().seen(BOTH) == {V4: [claim(7), claim(8, claimant=ME), claim(9)]}


def test_what_is_noticed_is_remembered_by_the_next_agent(fabric: Fabric, make: Make) -> None:
    fabric.show(V4, "s1", claim(70_000_000))
    make().notice("web1", BOTH)
    fabric.shown.clear()
    later = make()
    assert later.records["web1"] == Record(70_000_000, HIGHER)
    later.notice("web1", BOTH)
    assert later.rule("web1", "web1", BOTH, Held(), witnessed=True).held.claim == 70_000_001


def test_a_preview_remembers_nothing(fabric: Fabric, make: Make) -> None:
    fabric.show(V4, "s1", claim(70_000_000))
    ledger = make()
    assert ledger.preview("web1", "web1", BOTH, Held(), witnessed=True).held.claim == 70_000_001
    assert (ledger.records, make().records) == ({}, {})


@pytest.mark.parametrize(("heard", "connected"), [(False, True), (True, False)])
def test_who_does_not_hear_claims_nothing(fabric: Fabric, make: Make, heard: bool, connected: bool) -> None:
    ledger = make()
    ledger.hearing.heard, fabric.connected = heard, connected
    assert ledger.rule("web1", "web1", BOTH, Held(), witnessed=True).kind is Kind.WAITING


# -- release


def test_a_release_keeps_the_sequences(fabric: Fabric, make: Make) -> None:
    ledger = make()
    ledger.records["web1"] = Record(70_000_000, HIGHER, (NOON - 2, NOON - 1), NOON - 1)
    ledger.release("web1", BOTH)
    assert ledger.records["web1"] == Record(70_000_000, HIGHER)
    # and what the fabric shows above them
    fabric.show(V6, "s1", claim(80_000_000, claimant=ME))
    ledger.release("web1", BOTH)
    assert ledger.records["web1"] == make().records["web1"] == Record(80_000_000, ME)


def test_a_release_at_the_end_of_all_sequences_forgets_them(fabric: Fabric, make: Make) -> None:
    ledger, end = make(), LAST - RESERVE
    ledger.records["web1"] = Record(end, HIGHER)
    fabric.show(V4, "s1", claim(end))
    ledger.release("web1", BOTH)
    assert ledger.records["web1"] == Record(end, HIGHER)
    fabric.shown.clear()
    ledger.release("web1", BOTH)
    assert ledger.records["web1"] == Record()


# -- recover


def test_a_lost_memory_is_read_back_from_what_exabgp_announces(fabric: Fabric, make: Make) -> None:
    ledger = make()
    large = ledger.communities("web1", Held(7), handing=True)
    fabric.tell(V4, *large, other=" community [ 65000:1 65000:2 ]")
    fabric.tell(V4, *large)
    fabric.tell(V6, "65000:1:7", *large, other=" extended-community [ 0x0002fde800000001 ]")
    assert ledger.recover("web1", BOTH) == Held(7, BOTH)
    assert ledger.recover("web1", (V6,)) == Held(7, (V6,))


def test_the_highest_claim_is_what_is_held(fabric: Fabric, make: Make) -> None:
    """A crash in between: one peer, or one prefix, has been told of the newer claim only."""
    ledger = make()
    fabric.tell(V4, *ledger.communities("web1", Held(7)))
    fabric.tell(V4, *ledger.communities("web1", Held(9)))
    fabric.tell(V4, *ledger.communities("web1", Held(8)))
    fabric.tell(V6, *ledger.communities("web1", Held(6)))
    assert ledger.recover("web1", BOTH) == Held(9, BOTH)


def test_what_is_not_this_jails_claim_by_this_host_is_not_taken_back(fabric: Fabric, make: Make) -> None:
    ledger = make()
    fabric.tell(V4)
    fabric.tell(V4, "65000:1:7")
    fabric.tell(V4, *ledger.communities("db1", Held(7)))
    fabric.tell(V6, *ownership.communities(claim(7), DEFAULT_ADMINISTRATOR))
    fabric.tell(V6, *ownership.communities(claim(7, claimant=ME), DEFAULT_ADMINISTRATOR + 1))
    assert ledger.recover("web1", BOTH) == Held()


# -- older claims that are shown


def test_a_peer_that_shows_an_older_claim_is_told_of(fabric: Fabric, make: Make) -> None:
    fabric.show(V4, "s1", claim(6))
    fabric.show(V6, "s1", claim(6))
    fabric.show(V4, "s2", claim(5))
    assert make().shown_older("web1", BOTH, Held(7)) == [
        {"peer": "s1", "host": "10.0.0.3", "sequence": 6},
        {"peer": "s2", "host": "10.0.0.3", "sequence": 5},
    ]


@pytest.mark.parametrize(
    "shown",
    [
        (claim(7),),
        (claim(8),),
        (claim(6, claimant=ME),),
        (claim(6, identity=OTHER),),
        (claim(6), claim(7, claimant=ME)),
        (),
    ],
)
def test_what_is_shown_rightly(fabric: Fabric, make: Make, shown: tuple[Claim, ...]) -> None:
    fabric.show(V4, "s1", *shown)
    assert make().shown_older("web1", BOTH, Held(7)) == []


def test_a_peer_that_shows_all_paths_shows_older_ones_rightly(fabric: Fabric, make: Make) -> None:
    fabric.show(V4, "s1", claim(6))
    ledger = make("s1")
    assert ledger.shown_older("web1", BOTH, Held(7)) == []
    # until a reload takes add_path away from it
    ledger.know([])
    assert [each["peer"] for each in ledger.shown_older("web1", BOTH, Held(7))] == ["s1"]
