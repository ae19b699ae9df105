"""Which word was meant."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

import pytest

from mobility import likely as module
from mobility.likely import did_you_mean, likely

KNOWN = ("web1", "web2", "web10", "db1", "dns1", "mail")


@pytest.mark.parametrize(
    ("word", "found"),
    [
        ("mai", ["mail"]),
        ("we", ["web1", "web10", "web2"]),
        ("WEB1", ["web1", "web10"]),
        ("wbe1", ["web1"]),
        ("dsn1", ["dns1"]),
        ("web1", ["web10"]),
        ("x", []),
        ("", []),
    ],
)
def test_what_begins_so_comes_before_what_is_alike(word: str, found: list[str]) -> None:
    assert likely(word, KNOWN)[: len(found)] == found
    assert bool(likely(word, KNOWN)) is bool(found)
    assert word not in likely(word, KNOWN)


def test_a_name_that_would_move_the_cursor_is_not_offered() -> None:
    assert likely("web", ["web\x1b[2J", "web1"]) == ["web1"]


def test_it_is_a_question_or_nothing() -> None:
    assert did_you_mean("db", KNOWN) == "did you mean db1?"
    assert did_you_mean("we", KNOWN) == "did you mean web1 or web10 or web2?"
    assert did_you_mean("x", KNOWN) == ""


@pytest.mark.parametrize("word", ["customer-wb-00500", "custmoer-web-00500", "ustomer-web-00500"])
def test_of_thousands_few_are_compared_and_the_right_one_is_among_them(
    word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[int] = []

    def counted(word: str, words: Sequence[str], **more: Any) -> list[str]:
        compared.append(len(words))
        return real(word, words, **more)

    real = difflib.get_close_matches
    monkeypatch.setattr(difflib, "get_close_matches", counted)
    assert "customer-web-00500" in likely(word, (f"customer-web-{number:05}" for number in range(10_000)))
    assert compared == [module.COMPARED]
