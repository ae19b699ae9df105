"""Which word was meant, where one is not known."""

from __future__ import annotations

import difflib
import heapq
from collections.abc import Iterable, Sequence

SHOWN = 3
"""Words that are offered."""
COMPARED = 300
"""Words that are compared letter by letter: with 10,000 jails that takes a second, and the agent has other things to do."""


def likely(word: str, known: Iterable[str]) -> list[str]:
    """Return the known words that may have been meant, the likeliest first: those that begin so, then those alike."""
    # a file's name may hold anything, and this goes to a terminal
    words = sorted(each for each in set(known) - {word} if each.isprintable())
    begins = [each for each in words if word and each.lower().startswith(word.lower())]
    alike = difflib.get_close_matches(word, _nearest(word, words), n=SHOWN)
    return list(dict.fromkeys((*begins[:SHOWN], *alike)))[:SHOWN]


def _nearest(word: str, words: Sequence[str]) -> Sequence[str]:
    """Return the words that have most in common with one at both ends, which a slip of the finger leaves as they are."""
    if len(words) <= COMPARED:
        return words
    backwards = word[::-1]

    def in_common(each: str) -> int:
        return _begins_alike(word, each) + _begins_alike(backwards, each[::-1])

    return heapq.nlargest(COMPARED, words, key=in_common)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return the question, "" where nothing is like it."""
    found = likely(word, known)
    return f"did you mean {' or '.join(found)}?" if found else ""


def _begins_alike(one: str, other: str) -> int:
    """Return how many letters two words begin with that are the same."""
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
