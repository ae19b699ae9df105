"""deploy/fabric as data: each file as it is shipped, made out for the hosts of a test."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tests.readme import DEPLOY

FOLDER = DEPLOY / "fabric"
FIRST_AS, SECOND_AS = "65001", "65002"
"""By them the paragraph that is host a's is known, and the one that is host b's."""


@dataclass(frozen=True, slots=True)
class Neighbor:
    """A host as a router sees it: its name, both addresses of the session, its AS."""

    name: str
    address: str
    router_address: str
    number: int


def replaced(text: str, changes: Mapping[str, str]) -> str:
    """Replace words, all of which must be there: a file that has changed makes the test fail, not lie."""
    for old, new in changes.items():
        if old not in text:
            raise ValueError(f"{old!r} is no longer there")
        text = text.replace(old, new)
    return text


def made_out(file: str, neighbors: Iterable[Neighbor], changes: Mapping[str, str] | None = None) -> str:
    """Return a file with host a's paragraph written for each neighbour, host b's left out, and `changes` made to all."""
    paragraphs = (FOLDER / file).read_text().split("\n\n")
    (first,) = [each for each in paragraphs if FIRST_AS in each]
    (second,) = [each for each in paragraphs if SECOND_AS in each]
    own = [_written(first, each) for each in neighbors]
    at = paragraphs.index(first)
    rest = [each for each in paragraphs[at + 1 :] if each is not second]
    return replaced("\n\n".join([*paragraphs[:at], *own, *rest]), changes or {}) + "\n"


def _written(paragraph: str, neighbor: Neighbor) -> str:
    """Return host a's paragraph with what is another host's: not every router is told all of it."""
    own = {
        "host_a": neighbor.name,
        "fd00:1::ff": neighbor.router_address,
        "fd02:1::1": neighbor.router_address,
        "fd00:1::1": neighbor.address,
        FIRST_AS: str(neighbor.number),
    }
    for old, new in own.items():
        paragraph = paragraph.replace(old, new)
    return paragraph
