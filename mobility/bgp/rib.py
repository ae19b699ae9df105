"""What one peer should be told, what ExaBGP has acknowledged for it, and the next command that brings the two together.

Level-driven and without I/O. Attributes are texts (see `grammar`), prefixes too; an announcement is the pair of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mobility.bgp.bridge import ROUTES_IN_FLIGHT
from mobility.bgp.grammar import is_ipv6

ANNOUNCE, WITHDRAW = "announce", "withdraw"


@dataclass(frozen=True, slots=True)
class Batch:
    """One command: prefixes of one family with the same attributes."""

    verb: str
    attributes: str
    prefixes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Group:
    """What may share a command."""

    verb: str
    attributes: str
    ipv6: bool


class PeerRib:
    """One peer's routes: wanted, acknowledged (the book), under way.

    Never are two commands for the same prefix under way at once: the next is decided when the first is answered.
    """

    def __init__(self) -> None:
        self.wanted: dict[str, str] = {}
        self.book: dict[str, str] = {}
        self.refused: set[str] = set()
        """What ExaBGP has refused, until `retry`."""
        self._unwanted: set[str] = set()
        self._open = False
        self._under_way: set[str] = set()
        self._place: dict[str, _Group] = {}
        self._groups: dict[str, dict[_Group, dict[str, None]]] = {ANNOUNCE: {}, WITHDRAW: {}}
        self._alone: set[str] = set()

    @property
    def busy(self) -> bool:
        """Tell whether there is something to send, or an answer to come."""
        return bool(self._place or self._under_way)

    @property
    def differing(self) -> int:
        """How many prefixes are not as they should be: waiting, under way or refused."""
        return len(self._place) + len(self._under_way) + len(self.refused)

    @property
    def told(self) -> set[str]:
        """The prefixes that ExaBGP announces as they are wanted, with nothing about them under way."""
        return self.wanted.keys() - self._place.keys() - self._under_way - self.refused

    def under_way(self, prefix: str) -> bool:
        """Tell whether a command for `prefix` awaits its answer."""
        return prefix in self._under_way

    @property
    def spoken(self) -> int:
        """How many prefixes ExaBGP announces, or may announce once it has answered; some may be counted twice."""
        return len(self.book) + len(self._under_way)

    def speaks_of(self, prefix: str) -> bool:
        """Tell whether ExaBGP announces `prefix`, or may once it has answered."""
        return prefix in self.book or prefix in self._under_way

    def all_spoken(self) -> set[str]:
        """Return the prefixes that ExaBGP announces, or may announce once it has answered."""
        return self.book.keys() | self._under_way

    def waits(self, prefix: str) -> bool:
        """Tell whether a command for `prefix` is still to be given."""
        return prefix in self._place

    def want(self, prefix: str, attributes: str) -> None:
        """Have `prefix` announced with these attributes."""
        self._unwanted.discard(prefix)
        if self.wanted.get(prefix) != attributes:
            self.wanted[prefix] = attributes
            self.refused.discard(prefix)
            self._sort(prefix)

    def unwant(self, prefix: str) -> None:
        """Have `prefix` withdrawn, also before `open_for_withdrawals`."""
        self.wanted.pop(prefix, None)
        self.refused.discard(prefix)
        self._unwanted.add(prefix)
        self._sort(prefix)

    def open_for_withdrawals(self) -> None:
        """From now on, also withdraw what is in the book and was never spoken of."""
        self._open = True
        for prefix in self.book:
            self._sort(prefix)

    def replace_book(self, book: Mapping[str, str]) -> None:
        """Take `book` as what ExaBGP has acknowledged; forget what was under way, it was lost with the bridge."""
        self.book = dict(book)
        self._under_way.clear()
        self.refused.clear()
        self._alone.clear()
        self._place.clear()
        self._groups = {ANNOUNCE: {}, WITHDRAW: {}}
        for prefix in self.book.keys() | self.wanted.keys():
            self._sort(prefix)

    def amend_book(self, prefixes: Iterable[str], attributes: str | None) -> None:
        """Take news of the book that no command of ours explains; None: withdrawn."""
        for prefix in prefixes:
            self._enter(prefix, attributes)
            self._sort(prefix)

    def take(self, room: int, *, announcing: bool) -> Batch | None:
        """Return the next command, of at most `room` routes, and count it as under way; None: nothing to do.

        Withdrawals go first: a route that leads nowhere is worse than one that is missing. Announcements are
        given only while `announcing`: ExaBGP takes them without a session too, but two of them, with different
        attributes, could then leave in the wrong order when the session comes (see `bridge`).
        """
        for verb in (WITHDRAW, ANNOUNCE) if announcing else (WITHDRAW,):
            for group, members in self._groups[verb].items():
                first = next(iter(members))
                if first in self._alone:
                    chosen = [first]
                else:
                    size = min(room, ROUTES_IN_FLIGHT)
                    chosen = [
                        prefix for prefix, _ in zip(members, range(size), strict=False) if prefix not in self._alone
                    ]
                for prefix in chosen:
                    self._unsort(prefix)
                self._under_way.update(chosen)
                return Batch(verb, group.attributes, tuple(chosen))
        return None

    def answered(self, batch: Batch, *, ok: bool) -> None:
        """Note ExaBGP's answer. Of a refused command with several prefixes each one is then tried alone."""
        for prefix in batch.prefixes:
            self._under_way.discard(prefix)
            if ok:
                self._alone.discard(prefix)
                self._enter(prefix, batch.attributes if batch.verb == ANNOUNCE else None)
            elif len(batch.prefixes) > 1:
                self._alone.add(prefix)
            else:
                self.refused.add(prefix)
            self._sort(prefix)

    def retry(self) -> None:
        """Try again what was refused."""
        refused, self.refused = self.refused, set()
        for prefix in refused:
            self._sort(prefix)

    def _enter(self, prefix: str, attributes: str | None) -> None:
        if attributes is not None:
            self.book[prefix] = attributes
        else:
            self.book.pop(prefix, None)

    def _unsort(self, prefix: str) -> None:
        group = self._place.pop(prefix, None)
        if group is not None:
            members = self._groups[group.verb][group]
            del members[prefix]
            if not members:
                del self._groups[group.verb][group]

    def _sort(self, prefix: str) -> None:
        """Put `prefix` where what it needs is waiting."""
        self._unsort(prefix)
        if prefix in self._under_way or prefix in self.refused:
            return
        wanted, told = self.wanted.get(prefix), self.book.get(prefix)
        if wanted == told:
            return
        if wanted is not None:
            group = _Group(ANNOUNCE, wanted, is_ipv6(prefix))
        elif told is not None and (self._open or prefix in self._unwanted):
            group = _Group(WITHDRAW, told, is_ipv6(prefix))
        else:
            return
        self._groups[group.verb].setdefault(group, {})[prefix] = None
        self._place[prefix] = group
