"""pfsync(4): what ifconfig(8) and CARP see of it. No state of pf is kept, and no packet is sent.

A bulk update completes at once where the peer's pfsync0 is up and listens; a test may keep it from that (`hold`), or say
when it is done (`complete`) or has failed for good (`fail`).

Source: sys/netpfil/pf/if_pfsync.c of FreeBSD 13.2 (SIOCSETPFSYNC in pfsyncioctl, pfsync_in_bus, pfsync_bulk_fail), of 14
for IPv6 and versions (pfsync_kstatus_to_softc, PFSYNC_MSG_VERSION_*); freebsd-13.2/7-pfsync.txt.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.lab.kernel import carp
from tests.lab.kernel.errors import Errno, Refused
from tests.lab.kernel.state import INET, INET6, Iff, Interface, Vnet

if TYPE_CHECKING:
    from collections.abc import Iterable

FACTOR = "net.pfsync.carp_demotion_factor"
GROUP = ipaddress.IPv4Address("224.0.0.240")  # INADDR_PFSYNC_GROUP
GROUP6 = ipaddress.IPv6Address("ff12::f0")
NOBODY = ipaddress.IPv4Address(0)  # what a fresh one shows
VERSIONS = (1301, 1400)
RETRY_SECONDS, MAX_TRIES = 5, 12  # PFSYNC_MAX_BULKTRIES
MAX_UPDATES = 255

Peer = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(eq=False, slots=True)
class Pfsync:
    """A vnet's pfsync (struct pfsync_softc). *device* None: no syncdev. *held*: a test keeps bulk updates from ending."""

    interface: Interface
    device: Interface | None = None
    peer: Peer = NOBODY
    updates: int = 128
    defer: bool = False
    version: int = VERSIONS[-1]
    ok: bool = True  # PFSYNCF_OK
    waiting: bool = False  # sc_ureq_sent
    tries: int = 0
    held: bool = False

    @property
    def running(self) -> bool:
        """Whether it sends and listens at all."""
        return Iff.RUNNING in self.interface.flags and self.device is not None


def parse_peer(vnet: Vnet, text: str) -> Peer | None:
    """An address that ifconfig(8) takes after `syncpeer`; None where getaddrinfo(3) would not: 13 asks for IPv4 only."""
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return found if found.version == 4 or vnet.kernel.pfsync_versions else None


def status(pfsync: Pfsync) -> list[str]:
    """What ifconfig(8) shows (sbin/ifconfig/ifpfsync.c, pfsync_status)."""
    modern = bool(pfsync.interface.vnet.kernel.pfsync_versions)
    device = pfsync.device.name if pfsync.device is not None else ""
    peer = "" if pfsync.peer == GROUP else str(pfsync.peer)
    if not device and not peer and not modern:
        return []
    words = []
    if device:
        words.append(f"{'' if modern else 'pfsync: '}syncdev: {device}")
    if peer:
        words.append(f"syncpeer: {peer}")
    words += [f"maxupd: {pfsync.updates}", f"defer: {'on' if pfsync.defer else 'off'}"]
    if modern:
        words.append(f"version: {pfsync.version}")
    return ["\t" + " ".join(words), f"\tsyncok: {int(pfsync.ok)}"]


def configure(
    pfsync: Pfsync,
    *,
    device: str | None = None,
    peer: Peer | None = None,
    updates: int | None = None,
    defer: bool | None = None,
    version: int | None = None,
) -> None:
    """SIOCSETPFSYNC: every call with a syncdev asks for a bulk update, and demotes until that has ended."""
    vnet = pfsync.interface.vnet
    wanted = pfsync.device
    if device is not None:
        wanted = vnet.interface(device) if device else None
        if device and wanted is None:
            raise Refused(Errno.EINVAL)
    if updates is not None and updates > MAX_UPDATES:
        raise Refused(Errno.EINVAL)
    if version is not None and version not in vnet.kernel.pfsync_versions:
        raise Refused(Errno.EINVAL)
    asked = pfsync.peer if peer is None else peer
    pfsync.peer = GROUP if asked == NOBODY else asked
    pfsync.updates = pfsync.updates if updates is None else updates
    pfsync.defer = pfsync.defer if defer is None else defer
    pfsync.version = pfsync.version if version is None else version
    pfsync.device = wanted
    if wanted is None:
        return  # what was under way goes on, and the demotion stays until it has ended (7-pfsync.txt)
    if pfsync.ok:
        carp.demote(vnet, vnet.sysctls[FACTOR])  # pfsync bulk start
    pfsync.ok = False
    pfsync.waiting = True
    _later(pfsync)


def pfsync_of(vnet: Vnet) -> Pfsync:
    """The vnet's pfsync0."""
    found = vnet.pfsync
    if found is None:
        found = vnet.pfsync = Pfsync(next(each for each in vnet.interfaces if each.driver == "pfsync"))
    return found


def forget(interface: Interface) -> None:
    """pfsync_detach_ifnet(): the syncdev goes."""
    pfsync = interface.vnet.pfsync
    if pfsync is not None and pfsync.device is interface:
        pfsync.device = None


def ask(pfsync: Pfsync, everyone: Iterable[Vnet]) -> None:
    """pfsync_request_update(): the update ends if somebody listens and answers (pfsync_bulk_update, PFSYNC_BUS_END)."""
    if pfsync.waiting and pfsync.running and not pfsync.held and any(_hears(pfsync, vnet) for vnet in everyone):
        complete(pfsync)


def complete(pfsync: Pfsync) -> None:
    """PFSYNC_BUS_END in pfsync_in_bus(): "pfsync bulk done"."""
    vnet = pfsync.interface.vnet
    vnet.carps.callouts.stop(pfsync)
    pfsync.waiting, pfsync.tries = False, 0
    if not pfsync.ok:
        carp.demote(vnet, -vnet.sysctls[FACTOR])
    pfsync.ok = True


def fail(pfsync: Pfsync) -> None:
    """The end of pfsync_bulk_fail(): "pfsync bulk fail", and FreeBSD goes on as if it had been well."""
    complete(pfsync)


def _later(pfsync: Pfsync) -> None:
    """The request goes out with the next tick; it is repeated every 5 s, 12 times (sc_bulkfail_tmo)."""
    vnet = pfsync.interface.vnet

    def retry() -> None:
        if pfsync.tries >= MAX_TRIES:
            fail(pfsync)
            return
        pfsync.tries += 1
        vnet.carps.callouts.reset(pfsync, vnet.carps.clock(), RETRY_SECONDS, retry)
        ask(pfsync, vnet.carps.vnets())

    def first() -> None:
        ask(pfsync, vnet.carps.vnets())

    vnet.carps.callouts.reset((pfsync, "ask"), vnet.carps.clock(), 0.0, first)
    vnet.carps.callouts.reset(pfsync, vnet.carps.clock(), RETRY_SECONDS, retry)


def _hears(pfsync: Pfsync, vnet: Vnet) -> bool:
    """Whether another vnet's pfsync gets what is sent to our peer: pfsync_input() looks at its syncdev only."""
    other, device = vnet.pfsync, pfsync.device
    if other is None or other is pfsync or not other.running or device is None or other.device is None:
        return False
    if not all(each.up and each.carrier for each in (device, other.device)):
        return False
    if pfsync.peer.is_multicast:
        return other.peer == pfsync.peer and _segment(device) & _segment(other.device) != set()
    family = INET if pfsync.peer.version == 4 else INET6
    return any(each.family == family and each.value == int(pfsync.peer) for each in other.device.addresses)


def _segment(interface: Interface) -> set[Interface]:
    """The interface, what it is plugged into, and the bridges there: two on one link have something in common."""
    ends = {interface} | ({interface.peer} if interface.peer is not None else set())
    return ends | {each.bridge for each in ends if each.bridge is not None}
