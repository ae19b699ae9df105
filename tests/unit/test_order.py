"""The order of the test files: the long ones begin first, and each that is listed is there."""

from __future__ import annotations

from pathlib import Path, PurePath

from tests import order

TESTS = Path(__file__).resolve().parents[1]


def test_the_long_ones_begin_first() -> None:
    longest, *_, shortest = sorted(order.SECONDS, key=order.SECONDS.__getitem__, reverse=True)
    paths = [PurePath("unit/test_order.py"), PurePath(shortest), PurePath(longest)]
    assert sorted(paths, key=order.rank) == paths[::-1]


def test_what_is_listed_is_there() -> None:
    assert not [path for path in order.SECONDS if not (TESTS / path).is_file()]
