"""Which jail holds which address."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mobility.holders import Holders


def test_all_or_nothing() -> None:
    holders = Holders()
    assert holders.take("web1", ["a", "b"]) == ""
    assert "held by jail web1" in holders.take("web2", ["c", "b"])
    assert holders.take("web3", ["c"]) == ""
    holders.release("web1", keep=["a"])
    assert holders.take("web2", ["b"]) == ""
    assert holders.of_another("web1", "b")
    assert not holders.of_another("web1", "a")
    assert not holders.of_another("web1", "nobody's")


def test_a_part_where_a_jail_runs() -> None:
    holders = Holders()
    holders.take("web1", ["a"])
    assert "a is held by jail web1" in holders.take("web2", ["a", "b"], part=True)
    assert not holders.of_another("web2", "b")
    assert holders.of_another("web3", "b")
    assert holders.of_another("web2", "a")


@given(
    st.lists(
        st.tuples(st.sampled_from("xyz"), st.lists(st.sampled_from("abcd"), max_size=3), st.booleans()), max_size=30
    )
)
def test_no_address_has_two_holders(steps: list[tuple[str, list[str], bool]]) -> None:
    holders = Holders()
    held: dict[str, set[str]] = {}
    for jail, addresses, taking in steps:
        others = set().union(*(held[other] for other in held if other != jail))
        if taking:
            refused = holders.take(jail, addresses)
            assert bool(refused) == bool(others & set(addresses))
            if not refused:
                held.setdefault(jail, set()).update(addresses)
        else:
            holders.release(jail, addresses)
            held[jail] = held.get(jail, set()) & set(addresses)
        for address in "abcd":
            assert holders.of_another("nobody", address) == any(address in theirs for theirs in held.values())
