"""Who owns a jail's routes: claims on the wire, and each rule by itself. Whole fabrics: test_ownership_fabric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobility.bgp import ownership
from mobility.bgp.ownership import (
    DEFAULT_ADMINISTRATOR,
    LAST,
    RESERVE,
    Claim,
    Held,
    Kind,
    Policy,
    Record,
    Ruling,
    Situation,
    communities,
    identity_number,
    med,
    read,
    rule,
)

V4, V6 = "198.51.100.7/32", "2001:db8:7::7/128"
ME, LOWER, HIGHER = 0x0A000002, 0x0A000001, 0x0A000003
WEB, OTHER = identity_number("web1"), identity_number("db1")
NOON = 1_796_000_400.0
MINUTES = int(NOON // 60)
POLICY = Policy(5, 180.0)
NUMBERS = st.integers(0, LAST)
CLAIMS = st.builds(Claim, st.integers(1, LAST), NUMBERS, NUMBERS, st.booleans())


def claims(*several: Claim) -> dict[str, list[Claim]]:
    return {V4: list(several)}


def ruling(
    seen: Mapping[str, Sequence[Claim]] | None = None,
    held: Held | None = None,
    record: Record | None = None,
    wanted: tuple[str, ...] = (V4, V6),
    **more: Any,
) -> Ruling:
    values = {"me": ME, "identity": WEB, "heard": True, "witnessed": True, "now": NOON} | more
    return rule(Situation(wanted, seen or {}, **values), held or Held(), record or Record(), POLICY)


def holding(sequence: int, *told: str) -> Held:
    return Held(sequence, told or (V4, V6))


@given(CLAIMS, st.integers(1, LAST))
def test_a_claim_survives_the_wire(claim: Claim, administrator: int) -> None:
    assert read(["65000:1:7", *communities(claim, administrator)], administrator) == claim


@given(st.integers(1, LAST), st.integers(1, LAST))
def test_the_med_falls_as_the_sequence_rises(one: int, other: int) -> None:
    assert (med(one) < med(other)) == (one > other)
    assert 0 <= med(one) <= LAST


@pytest.mark.parametrize(
    "texts",
    [
        (),
        ("4200000000:1:5", "4200000000:2:6"),
        ("4200000000:1:5", "4200000000:1:6", "4200000000:2:6", "4200000000:3:6"),
        ("4200000000:1:0", "4200000000:2:6", "4200000000:3:6"),
        ("4200000000:1:4294967296", "4200000000:2:6", "4200000000:3:6"),
        ("4200000000:1:x", "4200000000:2:6", "4200000000:3:6"),
        ("4200000001:1:5", "4200000001:2:6", "4200000001:3:6"),
        ("4200000000:1", "4200000000:2:6:7", "::"),
    ],
)
def test_what_is_no_claim(texts: tuple[str, ...]) -> None:
    assert read(texts, DEFAULT_ADMINISTRATOR) is None


def test_a_first_claim_begins_with_the_clock() -> None:
    first = ruling()
    assert (first.kind, first.held, first.prefixes) == (Kind.HELD, holding(MINUTES), (V4, V6))
    assert (first.record.highest, first.record.owner) == (MINUTES, ME)


@pytest.mark.parametrize("now", [0.0, NOON, NOON * 100_000])
def test_a_claim_is_above_all_that_was_seen(now: float) -> None:
    seen = claims(Claim(MINUTES + 500, WEB, LOWER), Claim(MINUTES + 7, WEB, HIGHER))
    assert ruling(seen, now=now).held.claim == MINUTES + 501
    assert ruling(record=Record(MINUTES + 900, HIGHER), now=now).held.claim == MINUTES + 901


def test_nothing_is_claimed_before_the_fabric_was_heard() -> None:
    waits = ruling(heard=False)
    assert (waits.kind, waits.prefixes, waits.held) == (Kind.WAITING, (), Held())
    # what was claimed stays so, whatever becomes of the sessions; what is new waits
    kept = ruling(held=holding(7, V4), heard=False)
    assert (kept.kind, kept.prefixes, kept.held.claim) == (Kind.WAITING, (V4,), 7)


@pytest.mark.parametrize("rival", [Claim(8, WEB, HIGHER), Claim(7, WEB, LOWER)])
def test_who_sees_a_newer_claim_lets_go_for_good(rival: Claim) -> None:
    lost = ruling(claims(rival), holding(7))
    assert (lost.kind, lost.prefixes, lost.held.lost) == (Kind.LOST, (V6,), (V4,))
    assert rival.host in lost.reason
    assert "mobility release" in lost.reason
    # also when the newer one is gone: this is the older copy
    after = ruling({}, lost.held, lost.record)
    assert (after.kind, after.prefixes) == (Kind.LOST, (V6,))
    # a new incarnation claims above what was seen
    assert ruling({}, Held(), lost.record, now=0.0).held.claim == max(rival.sequence, 7) + 1


def test_at_a_tie_the_lower_router_id_claims_again() -> None:
    again = ruling(claims(Claim(7, WEB, HIGHER)), holding(7))
    assert (again.kind, again.held.claim, again.prefixes) == (Kind.HELD, 8, (V4, V6))
    assert ruling(claims(Claim(6, WEB, HIGHER)), holding(7)).held.claim == 7


def test_a_tie_at_the_end_of_all_sequences_is_left_to_the_other() -> None:
    last = ruling(claims(Claim(LAST, WEB, HIGHER)), holding(LAST))
    assert (last.kind, last.held.claim, last.prefixes) == (Kind.HELD, LAST, (V4, V6))
    assert ruling(claims(Claim(LAST, WEB, LOWER)), holding(LAST)).kind is Kind.LOST


def test_there_is_nothing_above_the_last_sequence() -> None:
    end = ruling(claims(Claim(LAST, WEB, LOWER)))
    assert (end.kind, end.prefixes, end.held.claim) == (Kind.EXHAUSTED, (), 0)
    assert "10.0.0.1" in end.reason
    # once nobody announces it any more, a release begins anew
    assert ruling(record=ownership.released(Record(LAST, HIGHER), {})).held.claim == MINUTES


def test_another_jails_address_is_not_claimed_over() -> None:
    stranger = Claim(3, OTHER, HIGHER)
    refused = ruling(claims(stranger))
    assert (refused.kind, refused.prefixes) == (Kind.CONFLICT, (V6,))
    assert V4 in refused.reason
    assert "10.0.0.3" in refused.reason
    # not because of its sequence, and only as long as it is there
    assert ruling(claims(stranger), refused.held, refused.record).prefixes == (V6,)
    assert ruling({}, refused.held, refused.record).prefixes == (V4, V6)
    whole = ruling({V4: [stranger], V6: [stranger]})
    assert (whole.kind, whole.prefixes, whole.held.claim) == (Kind.CONFLICT, (), 0)


@pytest.mark.parametrize(
    ("stranger", "kept", "claim"),
    [
        (Claim(6, OTHER, LOWER), (V4, V6), 7),
        (Claim(8, OTHER, HIGHER), (V6,), 7),
        (Claim(7, OTHER, LOWER), (V6,), 7),
        (Claim(7, OTHER, HIGHER), (V4, V6), 8),
    ],
)
def test_of_two_that_did_not_know_of_each_other_one_keeps_it(
    stranger: Claim, kept: tuple[str, ...], claim: int
) -> None:
    found = ruling(claims(stranger), holding(7))
    assert (found.prefixes, found.held.claim) == (kept, claim)


def test_who_was_found_running_does_not_claim_over_another() -> None:
    rival = Claim(7, WEB, HIGHER)
    old = ruling(claims(rival), witnessed=False)
    assert (old.kind, old.prefixes, old.held.claim) == (Kind.LOST, (), 0)
    assert ruling({}, old.held, old.record, witnessed=False).kind is Kind.LOST
    assert ruling({}, witnessed=False).prefixes == (V4, V6)


def test_our_own_old_claim_is_no_rival() -> None:
    assert ruling(claims(Claim(MINUTES + 9, WEB, ME))).held.claim == MINUTES + 10
    assert ruling(claims(Claim(7, WEB, ME)), holding(7), Record(7, ME)).prefixes == (V4, V6)
    assert ruling(claims(Claim(6, WEB, ME)), holding(7), Record(7, ME)).held.claim == 7


def test_a_claim_of_our_own_above_ours_is_claimed_over() -> None:
    above = ruling(claims(Claim(8, WEB, ME)), holding(7), Record(7, ME))
    assert (above.held.claim, above.prefixes, above.record.moves) == (9, (V4, V6), (NOON,))


def test_two_hosts_of_one_router_id_end_frozen() -> None:
    record, held = Record(7, ME), holding(7)
    for turn in range(POLICY.moves):
        found = ruling(claims(Claim(held.claim + 1, WEB, ME)), held, record, now=NOON + turn)
        held, record = found.held, found.record
    assert record.frozen_at
    assert ruling(claims(Claim(held.claim + 1, WEB, ME)), held, record).held == held


def test_the_last_ones_are_for_those_who_claim_at_once() -> None:
    assert ruling(record=Record(LAST - RESERVE - 1, HIGHER)).held.claim == LAST - RESERVE
    assert ruling(record=Record(LAST - RESERVE, HIGHER)).kind is Kind.EXHAUSTED
    assert ruling(claims(Claim(LAST - RESERVE, WEB, HIGHER)), holding(LAST - RESERVE)).held.claim == LAST - RESERVE + 1


def test_who_has_let_go_of_one_prefix_does_not_claim_again_for_another() -> None:
    seen = {V4: [Claim(8, WEB, HIGHER)], V6: [Claim(7, WEB, HIGHER)]}
    assert ruling(seen, holding(7)).held.claim == 7


def test_too_many_moves_freeze() -> None:
    record, kinds = Record(), []
    for turn in range(4):
        at = NOON + turn
        mine = ruling(record=record, now=at)
        kinds.append(mine.kind)
        if mine.kind is not Kind.HELD:
            break
        lost = ruling(claims(Claim(mine.held.claim + 1, WEB, HIGHER)), mine.held, mine.record, now=at, wanted=(V4,))
        record = lost.record
    assert kinds == [Kind.HELD, Kind.HELD, Kind.HELD, Kind.FROZEN]
    frozen = ruling(record=record, now=NOON + 86400)
    assert (frozen.kind, frozen.prefixes) == (Kind.FROZEN, ())
    assert "mobility release" in frozen.reason
    again = ruling(record=ownership.released(record, {}), now=NOON)
    assert (again.kind, again.held.claim) == (Kind.HELD, record.highest + 1)


def test_moves_that_are_long_past_do_not_freeze() -> None:
    record = Record(7, HIGHER, tuple(NOON - 181 - back for back in range(4, -1, -1)))
    assert ruling(record=record).kind is Kind.HELD


def test_moves_of_a_clock_that_was_set_back_do_not_freeze() -> None:
    record = Record(7, HIGHER, tuple(NOON + 3600 + later for later in range(4)))
    assert ruling(record=record).record.moves == (NOON,)


def test_a_frozen_jail_that_holds_its_claim_keeps_it_and_still_lets_go() -> None:
    record = Record(7, ME, (), NOON)
    assert ruling({}, holding(7), record).prefixes == (V4, V6)
    assert ruling(claims(Claim(8, WEB, HIGHER)), holding(7), record, wanted=(V4,)).prefixes == ()


def test_the_last_owner_of_a_frozen_jail_may_start_it_again() -> None:
    """Where nobody else claims it, a freeze guards nothing: the jail would only be dark."""
    record = Record(MINUTES + 7, ME, (NOON - 9,), NOON - 8)
    again = ruling(record=record)
    assert (again.kind, again.held.claim, again.prefixes) == (Kind.HELD, MINUTES + 8, (V4, V6))
    assert again.record.frozen_at == record.frozen_at
    # its own older claim, which the fabric still shows, is no other's
    assert ruling(claims(Claim(MINUTES + 7, WEB, ME)), record=record).kind is Kind.HELD
    # what another jail has on one of the addresses is a conflict there, as ever
    part = ruling(claims(Claim(3, OTHER, HIGHER)), record=record)
    assert (part.kind, part.prefixes) == (Kind.CONFLICT, (V6,))


@pytest.mark.parametrize("sequence", [MINUTES + 6, MINUTES + 8])
def test_nobody_starts_a_frozen_jail_that_another_host_claims(sequence: int) -> None:
    refused = ruling(claims(Claim(sequence, WEB, HIGHER)), record=Record(MINUTES + 7, ME, (), NOON))
    assert (refused.kind, refused.prefixes, refused.held.claim) == (Kind.FROZEN, (), 0)
    # also where nobody claims it any more, when that host was the last
    assert ruling(record=refused.record).kind is (Kind.FROZEN if sequence > MINUTES + 7 else Kind.HELD)


def test_numbers_of_five_thousand_digits_are_no_claim() -> None:
    long = "9" * 5000
    rest = ("4200000000:2:6", "4200000000:3:6")
    assert read((f"4200000000:1:{long}", *rest), DEFAULT_ADMINISTRATOR) is None
    assert read((f"4200000000:{long}:5", "4200000000:1:5", *rest), DEFAULT_ADMINISTRATOR) == Claim(5, 6, 6)


def test_what_of_a_jail_is_lost_takes_the_rest_along_after_a_while() -> None:
    rival = claims(Claim(8, WEB, HIGHER))
    first = ruling(rival, holding(7))
    assert (first.prefixes, first.held.lost_at) == ((V6,), NOON)
    soon = ruling(rival, first.held, first.record, now=NOON + ownership.GRACE / 2)
    assert soon.prefixes == (V6,)
    after = ruling(rival, soon.held, soon.record, now=NOON + ownership.GRACE)
    assert (after.kind, after.prefixes, set(after.held.lost)) == (Kind.LOST, (), {V4, V6})


@given(st.lists(CLAIMS, max_size=5), st.booleans(), st.booleans(), st.integers(0, LAST), st.booleans())
def test_a_ruling_is_at_rest(several: list[Claim], heard: bool, witnessed: bool, claim: int, again: bool) -> None:
    """Asked again with nothing new, it says the same: no oscillation comes from one host alone."""
    several = [replace(each, identity=WEB if each.handing else OTHER) for each in several]
    held = holding(claim) if claim else Held()
    first = ruling({V4: several, V6: several if again else []}, held, heard=heard, witnessed=witnessed)
    second = ruling(
        {V4: several, V6: several if again else []}, first.held, first.record, heard=heard, witnessed=witnessed
    )
    assert (second.kind, second.prefixes, second.held) == (first.kind, first.prefixes, first.held)
    assert second.record == first.record or first.kind is Kind.FROZEN
