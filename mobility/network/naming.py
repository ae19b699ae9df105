"""Names and link-layer addresses of a jail's pair: a function of host and jail, so that a restart finds its own."""

from __future__ import annotations

import base64
import hashlib
import re

GROUP = "mobility"
"""The group that marks our outer ends; groups stay on an interface that never leaves the host (transcript 2-vnet)."""
OUTER_LINK_LOCAL = "fe80::1"
INNER_LINK_LOCAL = "fe80::2"
DUMMY_IPV4 = "192.0.0.8"
"""The IPv4 dummy address (RFC 7600, section 4.8)."""

_OUTER = "mob-"
_INNER = "in-"
_IFNAMSIZ = 16  # net/if.h; one byte of it is the final NUL
_ROOM = _IFNAMSIZ - 1 - len(_OUTER)
_HASHED = 5
_DESCRIPTION = re.compile(r"mobility jail ([A-Za-z0-9_][A-Za-z0-9_.-]{0,62}) (epair[0-9]{1,5})", re.ASCII)
FIRST_UNIT = 1000
UNITS = 30000
"""Our pairs' units: above what people number by hand; IF_MAXUNIT is 0x7fff (net/if.h)."""


def _short(jail: str) -> str:
    if len(jail) <= _ROOM:
        return jail
    digest = base64.b32encode(hashlib.sha256(jail.encode()).digest()).decode().lower()
    return jail[: _ROOM - _HASHED] + digest[:_HASHED]


def outer_name(jail: str) -> str:
    """Return the name of the host's end: at most 15 characters (net/if.h, IFNAMSIZ)."""
    return _OUTER + _short(jail)


def inner_name(jail: str) -> str:
    """Return the name of the jail's end."""
    return _INNER + _short(jail)


def _mac(*parts: str) -> str:
    digest = hashlib.sha256("\0".join(parts).encode()).digest()
    # RFC 7042, section 2.1: bit 2 of the first octet says locally administered, bit 1 group
    return ":".join(f"{octet:02x}" for octet in (0x02, *digest[:5]))


def outer_mac(host: str, jail: str) -> str:
    """Return the host end's MAC, locally administered."""
    return _mac(host, jail, "outer")


def inner_mac(host: str, jail: str) -> str:
    """Return the jail end's MAC, the same at every start on this host."""
    return _mac(host, jail, "inner")


def first_unit(jail: str) -> int:
    """Return the epair unit to try first; the next ones follow where it is taken."""
    return FIRST_UNIT + int.from_bytes(hashlib.sha256(jail.encode()).digest()[:4]) % UNITS


def next_unit(unit: int) -> int:
    """Return the unit to try after `unit`."""
    return FIRST_UNIT + (unit - FIRST_UNIT + 1) % UNITS


def description(jail: str, pair: str) -> str:
    """Return what the outer end says of itself: whose it is, and which pair it was made as."""
    return f"{GROUP} jail {jail} {pair}"


def described(text: str) -> tuple[str, str] | None:
    """Return (jail, pair) from an outer end's description, or None when it is not one of ours."""
    match = _DESCRIPTION.fullmatch(text)
    return (match[1], match[2]) if match else None
