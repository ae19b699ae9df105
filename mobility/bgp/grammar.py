"""What goes out with a prefix, as ExaBGP writes it: pure text, checked word by word.

The text is the one that ExaBGP prints for itself (`show adj-rib out extensive`: attributes by their codes, communities
sorted, well-known ones by name), so that what a bridge learns from ExaBGP compares equal to what we would say.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from functools import lru_cache

from mobility.bgp.bridge import COMMUNITY_NAMES, ROUTES_IN_FLIGHT, chunks, route_order
from mobility.model import Attributes, Prefix

MAX_16 = 2**16 - 1
MAX_32 = 2**32 - 1
_COMMUNITY = re.compile(r"(\d{1,5}):(\d{1,5})", re.ASCII)
_LARGE_COMMUNITY = re.compile(r"(\d{1,10}):(\d{1,10}):(\d{1,10})", re.ASCII)

_NAMES = {number: name for name, number in COMMUNITY_NAMES.items()}


def prefix_text(prefix: Prefix) -> str:
    """Return a prefix as ExaBGP prints it: "198.51.100.7/32", "2001:db8:7::7/128" (RFC 5952)."""
    address = ipaddress.IPv4Address if prefix.version == 4 else ipaddress.IPv6Address
    return f"{address(prefix.first)}/{prefix.prefixlen}"


def is_ipv6(prefix: str) -> bool:
    """Tell the family of a prefix's or an address's text."""
    return ":" in prefix


def _numbers(pattern: re.Pattern[str], text: str, limit: int, what: str) -> tuple[int, ...]:
    found = pattern.fullmatch(text)
    numbers = tuple(map(int, found.groups())) if found else ()
    if not numbers or max(numbers) > limit:
        raise ValueError(f"{text!r} is no {what}")
    return numbers


def _listed(word: str, items: list[str]) -> list[str]:
    if not items:
        return []
    return [word, items[0] if len(items) == 1 else f"[ {' '.join(items)} ]"]


def _integer(word: str, value: int | None) -> list[str]:
    if value is None:
        return []
    if not 0 <= value <= MAX_32:
        raise ValueError(f"{word} {value} has more than 32 bits")
    return [word, str(value)]


@lru_cache(maxsize=65536)
def attributes_text(next_hop: str, attributes: Attributes) -> str:
    """Return `attributes` with the next hop to give, as they stand in a command.

    The next hop is never `self`: ExaBGP would put the router id there for IPv4 over an IPv6 session. Raises
    ValueError for a next hop that is no address and for communities or numbers that are none.
    """
    pairs = sorted({_numbers(_COMMUNITY, text, MAX_16, "community") for text in attributes.communities})
    communities = [":".join(map(str, pair)) for pair in pairs]
    large = sorted(
        {_numbers(_LARGE_COMMUNITY, text, MAX_32, "large community") for text in attributes.large_communities}
    )
    words = ["next-hop", str(ipaddress.ip_address(next_hop))]
    words += _integer("med", attributes.med)
    words += _integer("local-preference", attributes.local_preference)
    words += _listed("community", [_NAMES.get(text, text) for text in communities])
    words += _listed("large-community", [":".join(map(str, triple)) for triple in large])
    return " ".join(words)


def lines(verb: str, peer: str, attributes: str, prefixes: Iterable[str]) -> list[str]:
    """Return the commands that announce or withdraw `prefixes` at the peer with that address, both families.

    Raises ValueError for what is no prefix, address or attribute.
    """
    families: dict[bool, list[str]] = {}
    for prefix in prefixes:
        families.setdefault(is_ipv6(prefix), []).append(prefix)
    return [
        route_order(verb, peer, attributes, part).line
        for family in families.values()
        for part in chunks(family, ROUTES_IN_FLIGHT)
    ]
