"""What the doctor looks at beyond commands: sockets. Nothing is sent but a TCP connection to a peer without session."""

from __future__ import annotations

import errno
import socket
import stat
import sys
from pathlib import Path

from mobility.config import MAX_TTL, Peer
from mobility.doctor.bgp import Looked, Reach
from mobility.doctor.kernel import Tried

DISCARD = 9
"""Any UDP port would do: nothing is sent to it."""
CONNECT_WITHIN = 2.0
"""Seconds that a peer may take to answer."""
_TCP_MD5SIG = 0x10  # netinet/tcp.h


def source_to(jail: str, address: str) -> Tried:
    """Connect a UDP socket to a jail's IPv4 address, and tell which source address the kernel chose."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        try:
            udp.connect((address, DISCARD))
        except OSError as error:
            return Tried(jail, address, error=error.strerror or str(error))
        return Tried(jail, address, source=udp.getsockname()[0])


def away(peer: Peer) -> str:
    """Return what the system says where our end's address of a session is on no interface, "" where it is. Sends nothing."""
    with socket.socket(socket.AF_INET6 if peer.ipv6 else socket.AF_INET, socket.SOCK_STREAM) as tcp:
        try:
            tcp.bind((peer.local_address, 0))
        except OSError as error:
            return error.strerror or str(error)
        return ""


def reach(peer: Peer) -> Looked:
    """Connect to a peer's BGP port from our end of the session, and hang up."""
    with socket.socket(socket.AF_INET6 if peer.ipv6 else socket.AF_INET, socket.SOCK_STREAM) as tcp:
        tcp.settimeout(CONNECT_WITHIN)
        if hops := MAX_TTL if peer.ttl_security else peer.multihop:
            level, option = (
                (socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS) if peer.ipv6 else (socket.IPPROTO_IP, socket.IP_TTL)
            )
            tcp.setsockopt(level, option, hops)
        try:
            tcp.bind((peer.local_address, 0))
        except OSError as error:
            return Looked(peer, Reach.NOT_OURS, error.strerror or str(error))
        try:
            tcp.connect((peer.address, peer.port))
        except TimeoutError:
            return Looked(peer, Reach.SILENT_SIGNED if peer.password else Reach.SILENT)
        except OSError as error:
            if error.errno == errno.ECONNREFUSED:
                return Looked(peer, Reach.REFUSED)
            return Looked(peer, Reach.NO_ROUTE, error.strerror or str(error))
        return Looked(peer, Reach.TAKEN_UNSIGNED if peer.password else Reach.TAKEN)


def can_sign() -> bool | None:
    """Tell whether the kernel takes TCP_MD5SIG, as ExaBGP will ask it to (tcp(4)); None: this is no FreeBSD."""
    if not sys.platform.startswith("freebsd"):
        return None
    with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as tcp:
        try:
            tcp.setsockopt(socket.IPPROTO_TCP, _TCP_MD5SIG, 1)
        except OSError:
            return False
        return True


def is_socket(path: Path) -> bool:
    """Tell whether a socket is there."""
    try:
        return stat.S_ISSOCK(path.stat().st_mode)
    except OSError:
        return False
