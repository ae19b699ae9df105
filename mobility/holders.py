"""Which jail of this host holds which address."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from mobility.model import Prefix, network_prefix, overlap


class Holders:
    """Addresses and their jails: taken at once, between two steps of any worker, so never by two."""

    def __init__(self, released: Callable[[], None] = lambda: None) -> None:
        """`released` is called when an address was given back."""
        self._released = released
        self._holders: dict[str, str] = {}
        self._held: dict[str, set[str]] = {}
        self._services: dict[str, Prefix] = {}
        """Of what is held: the prefixes wider than an address, two of which may overlap."""

    def take(self, jail: str, addresses: Iterable[str], *, part: bool = False) -> str:
        """Take all of the addresses for the jail and return "", or return why not: another jail holds one.

        Then none is taken, or, with `part`, those that are free.
        """
        wanted = tuple(addresses)
        held = [text for text in wanted if self.of_another(jail, text)]
        if not held or part:
            mine = [text for text in wanted if text not in held]
            self._holders |= dict.fromkeys(mine, jail)
            self._services |= {text: network_prefix(text) for text in mine if "/" in text}
            self._held.setdefault(jail, set()).update(mine)
        return "; ".join(
            f"{found[0]} is held by jail {found[1]}, which runs: take it out of one of the two files in jails.d"
            for text in held
            if (found := self._holder(jail, text))
        )

    def of_another(self, jail: str, text: str) -> bool:
        """Tell whether another jail holds an address."""
        return self._holder(jail, text) is not None

    def _holder(self, jail: str, text: str) -> tuple[str, str] | None:
        """Return what another jail holds of an address or prefix, and that jail: the same, or one that overlaps it.

        An address within another jail's prefix is none of the two: the longer prefix wins.
        """
        if self._holders.get(text, jail) != jail:
            return text, self._holders[text]
        if "/" in text:
            mine = network_prefix(text)
            for other, prefix in self._services.items():
                if self._holders[other] != jail and overlap(prefix, mine):
                    return other, self._holders[other]
        return None

    def release(self, jail: str, keep: Iterable[str] = ()) -> None:
        """Give back what the jail holds, but for `keep`."""
        held = self._held.pop(jail, set())
        kept = held & set(keep)
        if kept:
            self._held[jail] = kept
        for text in held - kept:
            del self._holders[text]
            self._services.pop(text, None)
        if held - kept:
            self._released()
