"""What goes out with a prefix, as ExaBGP writes it: pure text, checked word by word.

The text is the one that ExaBGP prints for itself (`show adj-rib out extensive`: attributes by their codes, communities
sorted, well-known ones by name), so that what a bridge learns from ExaBGP compares equal to what we would say. Where
ExaBGP 5.0.15 has two ways, or a wrong one (files are ExaBGP's):

- An AS path is read between `[ ]` and printed between `( )` (bgp/message/update/attribute/aspath.py), which read would
  be an AS_SET: the bridge puts the brackets back.
- A given AS path is sent as it stands: for an eBGP peer it has to begin with our own AS, for an iBGP peer it must not
  hold it, or the peer takes the route for a loop (RFC 4271, section 9.1.2). Only without one does ExaBGP put its own
  there for eBGP, and none for iBGP (attributes.py, `pack`).
- Of extended communities, those with an AS of four octets are written as if that were an IPv4 address
  (configuration/static/parser.py, `_HEADER`), and several kinds print alike (`target:65000:7` of a two-octet and of a
  four-octet AS; transitive or not). So they go as bytes, which ExaBGP prints as it read them:
  `attribute [ 0x10 0xC0 0x... ]`.
- A local preference is sent to iBGP peers only, and 100 where none is given (attributes.py, `pack`).
"""

from __future__ import annotations

import ipaddress
import re
import struct
from collections.abc import Iterable
from functools import lru_cache

from mobility.bgp.bridge import COMMUNITY_NAMES, EXTENDED_COMMUNITIES, ROUTES_IN_FLIGHT, chunks, route_order
from mobility.model import Attributes, Prefix

MAX_16 = 2**16 - 1
MAX_32 = 2**32 - 1
_COMMUNITY = re.compile(r"(\d{1,5}):(\d{1,5})", re.ASCII)
_LARGE_COMMUNITY = re.compile(r"(\d{1,10}):(\d{1,10}):(\d{1,10})", re.ASCII)
_SUBTYPES = {"target": 2, "origin": 3}
"""Route Target and Route Origin (RFC 4360, sections 4 and 5): of a two-octet AS, an IPv4 address or, RFC 5668, a
four-octet AS."""
_TWO_OCTET_AS, _IPV4_ADDRESS, _FOUR_OCTET_AS = 0, 1, 2
_EXTENDED = re.compile(r"(target|origin):(\d{1,10}|\d{1,3}(?:\.\d{1,3}){3}):(\d{1,10})", re.ASCII)
_BANDWIDTH = re.compile(r"bandwidth:(\d{1,5}):(\d{1,38})", re.ASCII)  # what 32 bits of IEEE 754 can hold
_OCTETS = re.compile(r"0x([0-9a-fA-F]{16})", re.ASCII)
MAX_PREPEND = 32
"""Longer paths help nobody, and routers' filters drop them."""

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


def extended_community(text: str) -> bytes:
    """Return the eight octets of an extended community (RFC 4360).

    "target:65000:7", "target:192.0.2.1:7" and "target:4200000000:7" are Route Targets of an AS of two octets, an IPv4
    address and an AS of four; "origin:..." the same for the Route Origin; "bandwidth:65000:125000000" is the link
    bandwidth in octets a second (draft-ietf-idr-link-bandwidth); "0x" and 16 hexadecimal digits is any. Raises
    ValueError where it is none of these.
    """
    wrong = ValueError(f"{text!r} is no extended community")
    if found := _OCTETS.fullmatch(text):
        return bytes.fromhex(found[1])
    if found := _BANDWIDTH.fullmatch(text):
        if int(found[1]) > MAX_16:
            raise wrong
        return struct.pack("!BBHf", 0x40, 4, int(found[1]), float(found[2]))
    found = _EXTENDED.fullmatch(text)
    if found is None:
        raise wrong
    subtype, administrator, local = _SUBTYPES[found[1]], found[2], int(found[3])
    try:
        if "." in administrator:
            return struct.pack("!BB4sH", _IPV4_ADDRESS, subtype, ipaddress.IPv4Address(administrator).packed, local)
        if int(administrator) <= MAX_16:
            return struct.pack("!BBHL", _TWO_OCTET_AS, subtype, int(administrator), local)
        return struct.pack("!BBLH", _FOUR_OCTET_AS, subtype, int(administrator), local)
    except (struct.error, ValueError):
        raise wrong from None


def community(text: str) -> str:
    """Return a community in its plain form: "65535:0".

    Raises ValueError where it is none.
    """
    return ":".join(map(str, _numbers(_COMMUNITY, text, MAX_16, "community")))


def large_community(text: str) -> str:
    """Return a large community in its plain form: "65000:1:7" (RFC 8092, section 5: no leading zeros).

    Raises ValueError where it is none.
    """
    return ":".join(map(str, _numbers(_LARGE_COMMUNITY, text, MAX_32, "large community")))


def _as_path(local_as: int | None, prepend: int) -> list[str]:
    if not 0 <= prepend <= MAX_PREPEND:
        raise ValueError(f"{prepend} is no number of times to prepend our AS: from 0 to {MAX_PREPEND}")
    if not prepend or local_as is None:
        return []
    if not 0 < local_as <= MAX_32:
        raise ValueError(f"{local_as} is no AS")
    return ["as-path", "[", *[str(local_as)] * (prepend + 1), "]"]


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
def attributes_text(next_hop: str, attributes: Attributes, local_as: int | None = None) -> str:
    """Return `attributes` with the next hop to give, as they stand in a command.

    The next hop is never `self`: ExaBGP would put the router id there for IPv4 over an IPv6 session. `local_as` is our
    AS as an eBGP peer sees it; None for an iBGP peer, to which nothing is prepended. Raises ValueError for a next hop
    that is no address and for communities or numbers that are none.
    """
    pairs = sorted({_numbers(_COMMUNITY, text, MAX_16, "community") for text in attributes.communities})
    communities = [":".join(map(str, pair)) for pair in pairs]
    large = sorted(
        {_numbers(_LARGE_COMMUNITY, text, MAX_32, "large community") for text in attributes.large_communities}
    )
    extended = b"".join(sorted(set(map(extended_community, attributes.extended_communities))))
    words = ["next-hop", str(ipaddress.ip_address(next_hop))]
    words += _as_path(local_as, attributes.prepend)
    words += _integer("med", attributes.med)
    words += _integer("local-preference", attributes.local_preference)
    words += _listed("community", [_NAMES.get(text, text) for text in communities])
    if extended:
        words.append(f"{EXTENDED_COMMUNITIES} 0x{extended.hex()} ]")
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
