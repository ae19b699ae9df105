"""CARP and pfsync as this host has them: what devd(8) tells at once, and what a look shows.

devd hands every event of the kernel to whoever listens at its socket, one in each packet, and lets go of listeners that
are slow (devd.cc, notify_clients). What it tells of CARP names the vhid and the interface, but not the vnet (transcript
6-carp): a jail's root can have an interface of the host's name, and a vhid on it. So an event is news, and never the
last word: a look is.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from mobility.failover.model import STATES, Seen, Vhid, vhid
from mobility.network import output
from mobility.network.host import Host, Trouble

log = logging.getLogger(__name__)

PACKET = 8192
"""Bytes of a packet that are read: devd's own buffer is of 1024 (devd.h, DEVCTL_MAXBUF); what is longer is cut."""
PACKETS_AT_ONCE = 64
"""Packets before the event loop gets to do something else."""
FIRST_AGAIN, LAST_AGAIN = 0.1, 5.0
"""Seconds after which devd is tried again: they double from one to the other, until it has told of anything."""
PFSYNC = "pfsync0"
"""There is one pfsync in a vnet (if_pfsync.c, pfsyncname and pfsync_clone_create)."""
DEMOTION = "net.inet.carp.demotion"
PREEMPT = "net.inet.carp.preempt"
PFSYNC_FACTOR = "net.pfsync.carp_demotion_factor"
IFDOWN_FACTOR = "net.inet.carp.ifdown_demotion_factor"
SENDERR_FACTOR = "net.inet.carp.senderr_demotion_factor"
MANY = 8
"""Interfaces from which on one `ifconfig -a` shows them: a pair with fifty VLANs would start fifty commands a second."""
NO_INTERFACE = "does not exist"
"""What ifconfig(8) says of an interface that is not there."""
NO_SYSCTL = "unknown oid"
_MARK = re.compile(r"mobility vnet ([0-9a-f]{16})", re.ASCII)
_EVENT = re.compile(rb"!system=CARP subsystem=(\S{3,19}) type=([A-Z]{4,6})(?:\s|\Z)")


def events(packet: bytes) -> Iterator[tuple[Vhid, str]]:
    """Yield what a packet of devd's tells of CARP; everything else in it is passed over. Pure."""
    if b"!system=CARP " not in packet:
        return
    for line in packet.split(b"\n"):
        found = _EVENT.match(line)
        if found is None:
            continue
        try:
            which, state = vhid(found[1].decode("ascii")), found[2].decode("ascii")
        except ValueError:
            continue
        if state in STATES:
            yield which, state


class Devd:
    """Listens to devd at `path`, for ever.

    `on_events` takes the events of CARP that are there, in their order; `on_gap` is called where some may have been missed.
    """

    def __init__(
        self, path: Path, on_events: Callable[[Sequence[tuple[Vhid, str]]], None], on_gap: Callable[[], None]
    ) -> None:
        self._path = path
        self._on_events = on_events
        self._on_gap = on_gap
        self.trouble = "not connected yet"
        """Why nobody tells of events, "" where devd does."""

    async def run(self) -> None:
        """Listen until cancelled; a devd that is not there, or goes, is tried again."""
        wait = FIRST_AGAIN
        while True:
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
                connection.setblocking(False)
                try:
                    await asyncio.get_running_loop().sock_connect(connection, str(self._path))
                    log.info("listens to devd", extra={"path": str(self._path)})
                    self.trouble = ""
                    # what happened before, nobody told us
                    self._on_gap()
                    if await self._listen(connection):
                        wait = FIRST_AGAIN
                    self._lost("devd has closed its socket")
                except OSError as error:
                    self._lost(error.strerror or str(error))
            await asyncio.sleep(wait)
            wait = min(2 * wait, LAST_AGAIN)

    async def _listen(self, connection: socket.socket) -> int:
        """Take what comes until there is no more; return how many packets that were."""
        loop, count = asyncio.get_running_loop(), 0
        while packet := await loop.sock_recv(connection, PACKET):
            # a host with fifty vhids tells of all of them at once: they are one turn, and one decision
            packets = [packet]
            with suppress(BlockingIOError):
                while len(packets) < PACKETS_AT_ONCE and (packet := connection.recv(PACKET)):
                    packets.append(packet)
            count += len(packets)
            if told := [event for each in packets for event in events(each)]:
                self._on_events(told)
            # what waits is read without a turn of the loop: a flood must not stop all the rest
            await asyncio.sleep(0)
        return count

    def _lost(self, why: str) -> None:
        text = f"{self._path}: {why}"
        if text != self.trouble:
            log.warning("devd does not tell of CARP: looked at in turns", extra={"problem": text})
        self.trouble = text


async def look(host: Host, interfaces: Iterable[str], *, pfsync: bool) -> Seen:
    """Look at the CARP states of `interfaces`, at the sysctls of CARP, and, where asked, at pfsync.

    An interface that is not there has no vhid; a kernel without CARP has no demotion. Raises Trouble when a command fails
    otherwise.
    """
    names = sorted(set(interfaces))
    asked = names if len(names) < MANY else ["-a"]
    trees = ("net.inet.carp", *(("net.pfsync",) if pfsync else ()))
    sysctl, *shown = await asyncio.gather(
        host.command(["sysctl", *trees]),
        *(host.command(["ifconfig", name]) for name in asked),
        *(host.command(["ifconfig", name]) for name in ((PFSYNC,) if pfsync else ())),
    )
    for result in shown:
        if result.status != 0 and NO_INTERFACE not in result.complaint:
            raise Trouble(f"{' '.join(result.argv)}: {result.complaint}", retry=True)
    if sysctl.status != 0 and NO_SYSCTL not in sysctl.complaint:
        raise Trouble(f"{' '.join(sysctl.argv)}: {sysctl.complaint}", retry=True)
    numbers = output.sysctls(sysctl.stdout)
    if asked == names:
        texts = {name: result.stdout for name, result in zip(names, shown, strict=False)}
    else:
        texts = output.by_interface(shown[0].stdout)
    preempt = numbers.get(PREEMPT)
    return Seen(
        carps=tuple(carp for name in names for carp in output.carps(name, texts.get(name, ""))),
        pfsync=output.pfsync(shown[-1].stdout) if pfsync else output.pfsync(""),
        demotion=numbers.get(DEMOTION),
        preempt=None if preempt is None else preempt != 0,
        pfsync_factor=numbers.get(PFSYNC_FACTOR),
        ifdown_factor=numbers.get(IFDOWN_FACTOR),
        senderr_factor=numbers.get(SENDERR_FACTOR),
    )


async def vnet(host: Host) -> str:
    """Return what tells this vnet from any other of the same boot: the demotion belongs to it, and ends with it.

    The machine's own vnet lasts as long as the boot. That of a jail ends with the jail, and nothing in there tells it from
    the jail's next: so its lo0, which lives as long, is given a description that does. Where lo0 has one already, or can not
    have one, nobody knows this vnet again.
    """
    jailed = await host.command(["sysctl", "-n", "security.jail.jailed"])
    if jailed.stdout.strip() != "1":
        return "host"
    shown = output.interfaces((await host.command(["ifconfig", "lo0"])).stdout).get("lo0", ())
    description = shown[0].description if len(shown) == 1 else "?"
    if found := _MARK.fullmatch(description):
        return f"jail {found[1]}"
    token = secrets.token_hex(8)
    if not description:
        await host.command(["ifconfig", "lo0", "description", f"mobility vnet {token}"])
    return f"jail {token}"
