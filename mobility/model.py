"""The words that all parts share: prefixes, jail names, phases and route attributes, as frozen values."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from netaddr import AddrFormatError, IPAddress, IPNetwork

Prefix: TypeAlias = IPNetwork
"""A route's destination: an `IPNetwork` without host bits."""

_JAIL_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}", re.ASCII)
"""jail(8) itself takes spaces, quotes and slashes (transcript 5-jail); what reaches commands and files must not."""


class Phase(StrEnum):
    """The moments at which jail(8) calls a hook, in the order of a jail's life (jail(8), `exec.*`)."""

    PRESTART = "prestart"
    CREATED = "created"
    POSTSTART = "poststart"
    PRESTOP = "prestop"
    POSTSTOP = "poststop"


@dataclass(frozen=True, slots=True)
class Attributes:
    """What goes out with a prefix.

    Communities are written as ExaBGP and RFC 1997 / RFC 8092 / RFC 4360 write them: "65535:0", "65000:1:7",
    "target:65000:7".
    """

    communities: tuple[str, ...] = ()
    large_communities: tuple[str, ...] = ()
    extended_communities: tuple[str, ...] = ()
    med: int | None = None
    local_preference: int | None = None
    prepend: int = 0
    """How many times more than once our own AS stands in the path that an eBGP peer sees."""
    next_hop_ipv4: str | None = None
    """The next hop of IPv4 routes, an address of either family, instead of the one configured for the peer."""
    next_hop_ipv6: str | None = None
    """The same for IPv6 routes."""


GRACEFUL_SHUTDOWN = "65535:0"
"""The well-known community GRACEFUL_SHUTDOWN (RFC 8326, section 5)."""


def jail_name(text: str) -> str:
    """Return `text` if it is a jail name that this program handles.

    Raises ValueError with the reason otherwise.
    """
    if not _JAIL_NAME.fullmatch(text):
        shown = text if len(text) <= 80 else text[:77] + "..."
        raise ValueError(
            f"jail name {shown!r} is not handled: use up to 63 letters, digits, '_', '.' and '-', "
            "and begin with a letter, a digit or '_'"
        )
    return text


def host_prefix(text: str) -> Prefix:
    """Return the /32 or /128 that `text` names; a bare address is taken as one.

    Raises ValueError with the reason when it is no address, or a wider prefix.
    """
    try:
        network = IPNetwork(text)
    except (AddrFormatError, ValueError, TypeError) as error:
        raise ValueError(f"{text!r} is no IP address") from error
    if network.prefixlen != (32 if network.version == 4 else 128):
        raise ValueError(f"{text!r} is wider than one address: a jail owns a /32 or a /128")
    return network


def network_prefix(text: str) -> Prefix:
    """Return the prefix that `text` names.

    Raises ValueError when it is none or has host bits set.
    """
    try:
        network = IPNetwork(text)
    except (AddrFormatError, ValueError, TypeError) as error:
        raise ValueError(f"{text!r} is no prefix") from error
    if network.ip != network.network:
        raise ValueError(f"{text!r} has host bits set: write {network.cidr}")
    return network


MARTIANS = tuple(
    IPNetwork(text)
    for text in (
        "0.0.0.0/8",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "192.0.0.8/32",
        "224.0.0.0/3",
        "::/128",
        "::1/128",
        "::ffff:0:0/96",
        "fe80::/10",
        "ff00::/8",
    )
)
"""Never a jail's: this network, loopback, link-local, the dummy of RFC 7600, multicast and class E (RFC 6890)."""


_MARTIAN_RANGES = {v: tuple((net.first, net.last) for net in MARTIANS if net.version == v) for v in (4, 6)}


def martian(prefix: Prefix) -> bool:
    """Tell whether `prefix` overlaps what no jail may ever own, the default route included."""
    first, last = prefix.first, prefix.last
    return any(first <= high and low <= last for low, high in _MARTIAN_RANGES[prefix.version])


def address(prefix: Prefix) -> str:
    """Return the one address of a /32 or /128, in its canonical text (RFC 5952)."""
    return str(IPAddress(prefix.first, prefix.version))


def single(prefix: Prefix) -> bool:
    """Tell whether a prefix is one address: a /32 or a /128."""
    return bool(prefix.prefixlen == (32 if prefix.version == 4 else 128))


def destination(prefix: Prefix) -> str:
    """Return a route's destination as netstat(1) prints it: one address bare, a network with its length.

    With -n it abbreviates neither family (FreeBSD usr.bin/netstat/route.c, netname4, domask and netname6).
    """
    return address(prefix) if single(prefix) else f"{address(prefix)}/{prefix.prefixlen}"


def overlap(one: Prefix, other: Prefix) -> bool:
    """Tell whether two prefixes have an address in common: one then holds the whole of the other."""
    return bool(one.version == other.version and one.first <= other.last and other.first <= one.last)
