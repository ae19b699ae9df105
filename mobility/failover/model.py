"""What a look shows of CARP and pfsync: plain values, without I/O.

CARP belongs to an interface and a vhid, carp(4); what it says of states is in transcript 6-carp, pfsync in 7-pfsync.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import NamedTuple

MASTER = "MASTER"
BACKUP = "BACKUP"
INIT = "INIT"
STATES = (MASTER, BACKUP, INIT)
"""As ifconfig(8) and devd(8) write them (ip_carp.c, carp_states)."""
MAX_VHID = 255
"""CARP_MAXVHID of 14 (ip_carp.h, `uint8_t vhid`); ifconfig(8) of 13.2 takes 1 to 254, and says 255 (ifcarp.c)."""
_TEXT = re.compile(r"([1-9][0-9]{0,2})@([A-Za-z0-9_][A-Za-z0-9_.:-]{0,14})", re.ASCII)
"""An interface's name has at most IFNAMSIZ - 1 = 15 characters (if.h)."""


class Vhid(NamedTuple):
    """One virtual host of an interface; written as devd writes it, `1@igb0`."""

    interface: str
    number: int

    def __str__(self) -> str:
        return f"{self.number}@{self.interface}"


def vhid(text: str) -> Vhid:
    """Read `1@igb0`.

    Raises ValueError, which says how it is written.
    """
    found = _TEXT.fullmatch(text)
    if found is None or int(found[1]) > MAX_VHID:
        raise ValueError(f'{text!r} is no vhid of an interface: write "1@igb0", the vhid (1 to {MAX_VHID}) first')
    return Vhid(found[2], int(found[1]))


@dataclass(frozen=True, slots=True)
class Carp:
    """One `carp:` line of `ifconfig`; advbase in seconds, advskew in 1/256 s."""

    vhid: Vhid
    state: str
    advbase: int = 1
    advskew: int = 0


@dataclass(frozen=True, slots=True)
class Pfsync:
    """What `ifconfig pfsync0` shows.

    `present`: the interface is there. `up`: it is switched on. `syncok`: the kernel holds its states to be those of the
    peer; None where nobody says so, or where pfsync is off or without a syncdev, whatever it says. `bulk`: a bulk update is
    under way, which is when the kernel says that it is not in step (if_pfsync.c, PFSYNCF_OK). `version` is of the protocol,
    shown from FreeBSD 14 on. `syncpeer` of IPv6 comes with its zone.
    """

    present: bool = False
    syncdev: str = ""
    syncpeer: str = ""
    syncok: bool | None = None
    version: int | None = None
    bulk: bool | None = None
    up: bool = False


@dataclass(frozen=True, slots=True)
class Seen:
    """All that one look showed. `demotion` is None, and `preempt` too, where this kernel has no CARP (`kldload carp`).

    `pfsync_factor`, `ifdown_factor` and `senderr_factor` are what the kernel itself adds to the demotion: while pfsync is
    out of step, for each vhid whose interface is down, while advertisements can not be sent; None where it has no such sysctl.
    """

    carps: tuple[Carp, ...] = ()
    pfsync: Pfsync = field(default_factory=Pfsync)
    demotion: int | None = None
    preempt: bool | None = None
    pfsync_factor: int | None = None
    ifdown_factor: int | None = None
    senderr_factor: int | None = None

    def state(self, vhid: Vhid) -> str:
        """Return the state of a vhid, "" where it is not there."""
        return next((carp.state for carp in self.carps if carp.vhid == vhid), "")

    def turned(self, vhid: Vhid, state: str) -> Seen:
        """Return it with another state of a vhid that is there."""
        return replace(self, carps=tuple(replace(c, state=state) if c.vhid == vhid else c for c in self.carps))
