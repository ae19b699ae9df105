"""The comparison of what is wanted with what was acknowledged."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from mobility.bgp.bridge import ROUTES_IN_FLIGHT
from mobility.bgp.rib import Batch, PeerRib

A, B = "next-hop ::1", "next-hop ::1 community 65535:0"
X, Y, Z = "10.0.0.1/32", "10.0.0.2/32", "2001:db8::1/128"


def drain(rib: PeerRib, *, announcing: bool = True) -> list[Batch]:
    """Give every command, have each acknowledged."""
    given_: list[Batch] = []
    while (batch := rib.take(ROUTES_IN_FLIGHT, announcing=announcing)) is not None:
        given_.append(batch)
        rib.answered(batch, ok=True)
    return given_


def test_equal_needs_no_command() -> None:
    rib = PeerRib()
    rib.replace_book({X: A})
    rib.want(X, A)
    rib.open_for_withdrawals()
    assert drain(rib) == []
    assert not rib.busy


def test_what_nobody_spoke_of_stays_until_it_is_open() -> None:
    rib = PeerRib()
    rib.replace_book({X: A, Y: A})
    rib.want(Y, A)
    assert drain(rib) == []
    rib.open_for_withdrawals()
    assert drain(rib) == [Batch("withdraw", A, (X,))]


def test_what_must_go_goes_before_it_is_open_also_when_said_before_the_book() -> None:
    rib = PeerRib()
    rib.unwant(X)
    rib.replace_book({X: A, Y: A})
    assert drain(rib) == [Batch("withdraw", A, (X,))]


def test_a_withdrawal_carries_the_attributes_of_its_announcement() -> None:
    rib = PeerRib()
    rib.want(X, A)
    drain(rib)
    rib.want(X, B)
    drain(rib)
    rib.unwant(X)
    assert drain(rib) == [Batch("withdraw", B, (X,))]


def test_one_command_at_a_time_for_a_prefix() -> None:
    rib = PeerRib()
    rib.want(X, A)
    first = rib.take(ROUTES_IN_FLIGHT, announcing=True)
    assert first is not None
    rib.unwant(X)
    assert rib.take(ROUTES_IN_FLIGHT, announcing=True) is None
    rib.want(X, B)
    assert rib.take(ROUTES_IN_FLIGHT, announcing=True) is None
    rib.answered(first, ok=True)
    assert drain(rib) == [Batch("announce", B, (X,))]


def test_withdrawals_go_first() -> None:
    rib = PeerRib()
    rib.want(X, A)
    drain(rib)
    rib.want(Y, A)
    rib.unwant(X)
    assert [batch.verb for batch in drain(rib)] == ["withdraw", "announce"]


def test_without_a_session_only_withdrawals() -> None:
    rib = PeerRib()
    rib.want(X, A)
    drain(rib)
    rib.unwant(X)
    rib.want(Y, A)
    assert drain(rib, announcing=False) == [Batch("withdraw", A, (X,))]
    assert drain(rib) == [Batch("announce", A, (Y,))]


def test_families_and_attributes_are_kept_apart() -> None:
    rib = PeerRib()
    for prefix, attributes in ((X, A), (Z, A), (Y, B)):
        rib.want(prefix, attributes)
    assert sorted(batch.prefixes for batch in drain(rib)) == [(X,), (Y,), (Z,)]


def test_commands_are_no_larger_than_exabgp_sends_in_a_turn() -> None:
    rib = PeerRib()
    for number in range(100):
        rib.want(f"10.0.0.{number}/32", A)
    sizes = [len(batch.prefixes) for batch in drain(rib)]
    assert max(sizes) == ROUTES_IN_FLIGHT
    assert sum(sizes) == 100
    assert len(sizes) == 5


def test_of_a_refused_command_the_guilty_prefix_is_found() -> None:
    rib = PeerRib()
    for prefix in (X, Y):
        rib.want(prefix, A)
    whole = rib.take(ROUTES_IN_FLIGHT, announcing=True)
    assert whole == Batch("announce", A, (X, Y))
    rib.answered(whole, ok=False)
    told = []
    while (batch := rib.take(ROUTES_IN_FLIGHT, announcing=True)) is not None:
        told.append(batch.prefixes)
        rib.answered(batch, ok=batch.prefixes != (X,))
    assert told == [(X,), (Y,)]
    assert rib.book == {Y: A}
    assert rib.refused == {X}
    assert not rib.busy
    assert rib.differing == 1
    rib.retry()
    assert drain(rib) == [Batch("announce", A, (X,))]


def test_a_lost_bridge_loses_what_was_under_way() -> None:
    rib = PeerRib()
    rib.want(X, A)
    assert rib.take(ROUTES_IN_FLIGHT, announcing=True) is not None
    rib.replace_book({})
    assert drain(rib) == [Batch("announce", A, (X,))]


PREFIXES = st.sampled_from([X, Y, Z, "10.0.0.3/32", "2001:db8::2/128"])
STEPS = st.lists(
    st.tuples(st.just("want"), PREFIXES, st.sampled_from([A, B]))
    | st.tuples(st.just("unwant"), PREFIXES)
    | st.tuples(st.sampled_from(["take", "down", "yes", "no", "lose", "open", "retry", "foreign"])),
    max_size=60,
)


@given(STEPS, st.dictionaries(PREFIXES, st.sampled_from([A, B])), st.integers())
@settings(max_examples=300)
def test_whatever_happens_it_ends_as_wanted(steps: list[tuple[str, ...]], book: dict[str, str], seed: int) -> None:
    """ExaBGP is modelled as a table that does what it acknowledges; some answers, and bridges, get lost."""
    dice = random.Random(seed)
    rib, exabgp, wanted = PeerRib(), dict(book), {}
    under_way: list[Batch] = []
    rib.replace_book(exabgp)

    def obey(batch: Batch) -> None:
        for prefix in batch.prefixes:
            if batch.verb == "announce":
                exabgp[prefix] = batch.attributes
            else:
                assert exabgp[prefix] == batch.attributes, "withdrawn with other attributes than announced"
                del exabgp[prefix]

    for step, *values in steps:
        if step == "want":
            wanted[values[0]] = values[1]
            rib.want(*values)
        elif step == "unwant":
            wanted.pop(values[0], None)
            rib.unwant(values[0])
        elif step in ("take", "down"):
            batch = rib.take(dice.randint(1, 3), announcing=step == "take")
            if batch is not None:
                busy = {prefix for other in under_way for prefix in other.prefixes}
                assert not busy.intersection(batch.prefixes)
                under_way.append(batch)
        elif step in ("yes", "no") and under_way:
            batch = under_way.pop(0)
            if step == "yes":
                obey(batch)
            rib.answered(batch, ok=step == "yes")
        elif step == "lose":
            for batch in under_way:
                if dice.random() < 0.5:
                    obey(batch)
            under_way.clear()
            rib.replace_book(exabgp)
        elif step == "open":
            rib.open_for_withdrawals()
        elif step == "retry":
            rib.retry()
        elif step == "foreign" and exabgp and not under_way:
            prefix = dice.choice(sorted(exabgp))
            del exabgp[prefix]
            rib.amend_book([prefix], None)
    for batch in under_way:
        obey(batch)
        rib.answered(batch, ok=True)
    rib.open_for_withdrawals()
    rib.retry()
    for batch in drain(rib):
        obey(batch)
    assert exabgp == wanted == rib.book
    assert not rib.busy
