"""Just enough rtnetlink: veth pairs, addresses, routes and neighbours of one network namespace.

Written by hand because the lab is called some 25 times per jail start and a general library costs more than the
kernel's own work. Sources: netlink(7), rtnetlink(7), linux/if_link.h, linux/if_addr.h, linux/rtnetlink.h,
linux/neighbour.h, linux/veth.h.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

# Message types and flags
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 0x1, 0x4, 0x300
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE = 0x100, 0x200, 0x400
RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH = 28, 29, 30
# Link attributes
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_MASTER = 1, 3, 4, 10
IFLA_LINKINFO, IFLA_STATS64, IFLA_NET_NS_FD = 18, 23, 28
IFLA_INFO_KIND, IFLA_INFO_DATA, VETH_INFO_PEER = 1, 2, 1
IFLA_BR_MCAST_SNOOPING = 23
IFLA_LINK, IFLA_MACVLAN_MODE, MACVLAN_MODE_PRIVATE, MACVLAN_MODE_SOURCE = 5, 1, 1, 16
IFF_UP = 0x1
# Address attributes
IFA_ADDRESS, IFA_LOCAL, IFA_FLAGS = 1, 2, 8
IFA_F_NODAD, IFA_F_TENTATIVE, IFA_F_DADFAILED, IFA_F_NOPREFIXROUTE = 0x02, 0x40, 0x08, 0x200
# Route attributes and fields
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_MULTIPATH, RTA_VIA = 1, 4, 5, 6, 9, 18
RT_TABLE_MAIN, RTPROT_STATIC = 254, 4
RT_SCOPE_UNIVERSE, RT_SCOPE_LINK, RT_SCOPE_HOST, RT_SCOPE_NOWHERE = 0, 253, 254, 255
LOOPBACK_NET = 127
RTN_UNICAST, RTN_BLACKHOLE, RTN_UNREACHABLE = 1, 6, 7
#: The metric of every IPv6 route that the lab adds (Linux's own default for user routes).
IPV6_METRIC = 1024
# Neighbour attributes, states and flags
NDA_DST, NDA_LLADDR, NDA_CACHEINFO = 1, 2, 3
NUD_INCOMPLETE, NUD_REACHABLE, NUD_STALE, NUD_DELAY, NUD_PROBE = 0x01, 0x02, 0x04, 0x08, 0x10
NUD_FAILED, NUD_NOARP, NUD_PERMANENT = 0x20, 0x40, 0x80
NTF_ROUTER = 0x80

NETLINK_EXT_ACK = 11
SOL_NETLINK = 270

_HEADER = struct.Struct("=IHHII")
_IFINFO = struct.Struct("=BxHiII")
_IFADDR = struct.Struct("=BBBBI")
_RTMSG = struct.Struct("=BBBBBBBBI")
_NDMSG = struct.Struct("=BxxxiHBB")
_BUFFER = 1 << 17


@dataclass(frozen=True, slots=True)
class Neighbour:
    """One entry of Linux's neighbour table; *age* is seconds since it was last confirmed."""

    link: int
    address: bytes
    lladdr: bytes
    state: int
    router: bool
    age: float


@dataclass(frozen=True, slots=True)
class Counters:
    """What an interface has counted: packets, bytes and errors, each received and sent."""

    rx_packets: int
    tx_packets: int
    rx_bytes: int
    tx_bytes: int
    rx_errors: int
    tx_errors: int


@dataclass(frozen=True, slots=True)
class Hop:
    """One way out: the interface, and the gateway's address (4 or 16 bytes) or None for an on-link route."""

    link: int
    gateway: bytes | None = None


def attribute(kind: int, payload: bytes) -> bytes:
    """One netlink attribute, padded to four bytes."""
    length = 4 + len(payload)
    return struct.pack("=HH", length, kind) + payload + bytes(-length % 4)


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The attributes in *data*: (kind without its flag bits, payload)."""
    offset = 0
    while offset + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, offset)
        if length < 4:
            return
        yield kind & 0x3FFF, data[offset + 4 : offset + length]
        offset += (length + 3) & ~3


def _number(value: int) -> bytes:
    return struct.pack("=I", value)


def _macvlan_mode(mode: int) -> bytes:
    data = attribute(IFLA_INFO_DATA, attribute(IFLA_MACVLAN_MODE, _number(mode)))
    return attribute(IFLA_LINKINFO, attribute(IFLA_INFO_KIND, b"macvlan") + data)


def family_of(address: bytes) -> int:
    """AF_INET for 4 bytes, AF_INET6 for 16."""
    return socket.AF_INET if len(address) == 4 else socket.AF_INET6


class Netlink:
    """A route socket in the network namespace in which it was made. Every method raises OSError with Linux's errno."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._socket.setsockopt(SOL_NETLINK, NETLINK_EXT_ACK, 1)
        self._socket.bind((0, 0))
        self._sequence = 0

    def close(self) -> None:
        """Close the socket; the namespace may vanish now."""
        self._socket.close()

    def _send(self, kind: int, flags: int, body: bytes) -> None:
        self._sequence += 1
        header = _HEADER.pack(_HEADER.size + len(body), kind, flags | NLM_F_REQUEST, self._sequence, 0)
        self._socket.send(header + body)

    def _ask(self, kind: int, flags: int, body: bytes) -> None:
        self._send(kind, flags | NLM_F_ACK, body)
        for _kind, _body in self._answers():
            pass

    def _answers(self) -> Iterator[tuple[int, bytes]]:
        while True:
            data = self._socket.recv(_BUFFER)
            offset = 0
            while offset + _HEADER.size <= len(data):
                length, kind, flags, sequence, _pid = _HEADER.unpack_from(data, offset)
                body = data[offset + _HEADER.size : offset + length]
                offset += (length + 3) & ~3
                if sequence != self._sequence:
                    continue  # the tail of an answer that an earlier caller did not read to its end
                if kind == NLMSG_DONE:
                    return
                if kind == NLMSG_ERROR:
                    (code,) = struct.unpack_from("=i", body)
                    if code:
                        raise OSError(-code, _reason(-code, flags, body))
                    return
                yield kind, body

    # links

    def veth(
        self, name: str, link: int, mac: bytes, peer: str, peer_link: int, peer_mac: bytes, peer_namespace: int
    ) -> None:
        """Make a veth pair, the peer in another open namespace, with these names, interface numbers and MACs."""

        def end(name: str, link: int, mac: bytes) -> bytes:
            return (
                _IFINFO.pack(socket.AF_UNSPEC, 0, link, 0, 0)
                + attribute(IFLA_IFNAME, name.encode() + b"\0")
                + attribute(IFLA_ADDRESS, mac)
            )

        info = attribute(IFLA_INFO_KIND, b"veth") + attribute(
            IFLA_INFO_DATA,
            attribute(
                VETH_INFO_PEER, end(peer, peer_link, peer_mac) + attribute(IFLA_NET_NS_FD, _number(peer_namespace))
            ),
        )
        self._ask(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, end(name, link, mac) + attribute(IFLA_LINKINFO, info))

    def bridge(self, name: str, link: int, mac: bytes) -> None:
        """Make a bridge, up, that floods all multicast, as if_bridge(4) does."""
        data = attribute(IFLA_INFO_DATA, attribute(IFLA_BR_MCAST_SNOOPING, b"\0"))
        body = _IFINFO.pack(socket.AF_UNSPEC, 0, link, IFF_UP, IFF_UP) + attribute(IFLA_IFNAME, name.encode() + b"\0")
        body += attribute(IFLA_ADDRESS, mac)
        body += attribute(IFLA_LINKINFO, attribute(IFLA_INFO_KIND, b"bridge") + data)
        self._ask(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body)

    def macvlan(self, name: str, link: int, parent: int, mac: bytes) -> None:
        """Make an interface with a MAC of its own on another one, up, but deaf: see `listen`."""
        body = _IFINFO.pack(socket.AF_UNSPEC, 0, link, IFF_UP, IFF_UP) + attribute(IFLA_IFNAME, name.encode() + b"\0")
        body += attribute(IFLA_LINK, _number(parent)) + attribute(IFLA_ADDRESS, mac)
        self._ask(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body + _macvlan_mode(MACVLAN_MODE_SOURCE))

    def listen(self, link: int, *, listens: bool) -> None:
        """Let a macvlan hear what is for its MAC, or not: in source mode it hears nobody but listed senders, and there
        are none. To take it down instead would cost Linux some 10 ms.
        """
        mode = MACVLAN_MODE_PRIVATE if listens else MACVLAN_MODE_SOURCE
        self._ask(RTM_NEWLINK, 0, _IFINFO.pack(socket.AF_UNSPEC, 0, link, 0, 0) + _macvlan_mode(mode))

    def change_link(
        self,
        link: int,
        *,
        up: bool | None = None,
        name: str | None = None,
        mac: bytes | None = None,
        mtu: int | None = None,
        namespace: int | None = None,
        master: int | None = None,
    ) -> None:
        """Change an interface. *namespace* is an open network namespace to move it into (taking *name* there),
        *master* the bridge to put it into, 0 to take it out.
        """
        flags, change = (0, 0) if up is None else (IFF_UP if up else 0, IFF_UP)
        body = _IFINFO.pack(socket.AF_UNSPEC, 0, link, flags, change)
        if name is not None:
            body += attribute(IFLA_IFNAME, name.encode() + b"\0")
        if mac is not None:
            body += attribute(IFLA_ADDRESS, mac)
        if mtu is not None:
            body += attribute(IFLA_MTU, _number(mtu))
        if namespace is not None:
            body += attribute(IFLA_NET_NS_FD, _number(namespace))
        if master is not None:
            body += attribute(IFLA_MASTER, _number(master))
        self._ask(RTM_NEWLINK, 0, body)

    def delete_link(self, link: int) -> None:
        """Delete an interface; a veth's other end goes with it."""
        self._ask(RTM_DELLINK, 0, _IFINFO.pack(socket.AF_UNSPEC, 0, link, 0, 0))

    def counters(self) -> dict[int, Counters]:
        """Each interface's counters, by interface number."""
        found: dict[int, Counters] = {}
        self._send(RTM_GETLINK, NLM_F_DUMP, _IFINFO.pack(socket.AF_UNSPEC, 0, 0, 0, 0))
        for kind, body in self._answers():
            if kind != RTM_NEWLINK:
                continue
            link = _IFINFO.unpack_from(body)[2]
            for name, payload in attributes(body[_IFINFO.size :]):
                if name == IFLA_STATS64:
                    found[link] = Counters(*struct.unpack_from("=6Q", payload))
        return found

    # addresses

    def add_address(self, link: int, address: bytes, prefix_length: int, *, dad: bool = False) -> None:
        """Add an address (4 or 16 bytes). *dad*: let duplicate address detection run first (IPv6)."""
        flags = 0 if dad or len(address) == 4 else IFA_F_NODAD
        scope = RT_SCOPE_HOST if len(address) == 4 and address[0] == LOOPBACK_NET else RT_SCOPE_UNIVERSE
        body = _IFADDR.pack(family_of(address), prefix_length, 0, scope, link)
        body += attribute(IFA_LOCAL, address) + attribute(IFA_ADDRESS, address) + attribute(IFA_FLAGS, _number(flags))
        self._ask(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, body)

    def delete_address(self, link: int, address: bytes, prefix_length: int) -> None:
        """Remove an address."""
        body = _IFADDR.pack(family_of(address), prefix_length, 0, 0, link)
        self._ask(RTM_DELADDR, 0, body + attribute(IFA_LOCAL, address) + attribute(IFA_ADDRESS, address))

    def tentative(self) -> dict[tuple[int, bytes], int]:
        """The IPv6 addresses that may not be used (yet): (interface, address) to IFA_F_TENTATIVE | IFA_F_DADFAILED."""
        found: dict[tuple[int, bytes], int] = {}
        self._send(RTM_GETADDR, NLM_F_DUMP, _IFADDR.pack(socket.AF_INET6, 0, 0, 0, 0))
        for kind, body in self._answers():
            if kind != RTM_NEWADDR:
                continue
            _family, _length, flags, _scope, link = _IFADDR.unpack_from(body)
            known = dict(attributes(body[_IFADDR.size :]))
            if IFA_FLAGS in known:
                (flags,) = struct.unpack("=I", known[IFA_FLAGS])
            flags &= IFA_F_TENTATIVE | IFA_F_DADFAILED
            if flags and IFA_ADDRESS in known:
                found[link, known[IFA_ADDRESS]] = flags
        return found

    # routes

    def set_route(self, destination: bytes, prefix_length: int, kind: int, hops: list[Hop]) -> None:
        """Make (or replace) the route to a destination: RTN_UNICAST over *hops*, or RTN_UNREACHABLE, RTN_BLACKHOLE."""
        family = family_of(destination)
        on_link = kind == RTN_UNICAST and family == socket.AF_INET and all(hop.gateway is None for hop in hops)
        scope = RT_SCOPE_LINK if on_link else RT_SCOPE_UNIVERSE
        body = _RTMSG.pack(family, prefix_length, 0, 0, RT_TABLE_MAIN, RTPROT_STATIC, scope, kind, 0)
        if prefix_length:
            body += attribute(RTA_DST, destination)
        if family == socket.AF_INET6:
            body += attribute(RTA_PRIORITY, _number(IPV6_METRIC))
        if len(hops) == 1:
            body += _gateway(family, hops[0]) + attribute(RTA_OIF, _number(hops[0].link))
        elif hops:
            parts = b""
            for hop in hops:
                gateway = _gateway(family, hop)
                parts += struct.pack("=HBBi", 8 + len(gateway), 0, 0, hop.link) + gateway
            body += attribute(RTA_MULTIPATH, parts)
        self._ask(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, body)

    def delete_route(self, destination: bytes, prefix_length: int) -> None:
        """Remove the lab's route to a destination, all of its hops; no error when there is none."""
        family = family_of(destination)
        body = _RTMSG.pack(family, prefix_length, 0, 0, RT_TABLE_MAIN, RTPROT_STATIC, RT_SCOPE_NOWHERE, 0, 0)
        if prefix_length:
            body += attribute(RTA_DST, destination)
        if family == socket.AF_INET6:
            body += attribute(RTA_PRIORITY, _number(IPV6_METRIC))
        while True:  # IPv6 removes one hop of a multipath route at a time
            try:
                self._ask(RTM_DELROUTE, 0, body)
            except OSError as error:
                if error.errno == errno.ESRCH:
                    return
                raise
            if family == socket.AF_INET:
                return

    # neighbours

    def neighbours(self, family: int) -> list[Neighbour]:
        """The neighbour table of one address family."""
        found: list[Neighbour] = []
        ticks = os.sysconf("SC_CLK_TCK")
        self._send(RTM_GETNEIGH, NLM_F_DUMP, _NDMSG.pack(family, 0, 0, 0, 0))
        for kind, body in self._answers():
            if kind != RTM_NEWNEIGH:
                continue
            _family, link, state, flags, _type = _NDMSG.unpack_from(body)
            known = dict(attributes(body[_NDMSG.size :]))
            if NDA_DST not in known:
                continue
            confirmed = struct.unpack_from("=I", known[NDA_CACHEINFO])[0] if NDA_CACHEINFO in known else 0
            found.append(
                Neighbour(
                    link,
                    known[NDA_DST],
                    known.get(NDA_LLADDR, b""),
                    state,
                    bool(flags & NTF_ROUTER),
                    confirmed / ticks,
                )
            )
        return found

    def set_neighbour(self, link: int, address: bytes, lladdr: bytes) -> None:
        """Make (or replace) a permanent neighbour."""
        body = _NDMSG.pack(family_of(address), link, NUD_PERMANENT, 0, 0)
        body += attribute(NDA_DST, address) + attribute(NDA_LLADDR, lladdr)
        self._ask(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, body)

    def delete_neighbour(self, link: int, address: bytes) -> None:
        """Remove a neighbour; no error when there is none."""
        body = _NDMSG.pack(family_of(address), link, 0, 0, 0) + attribute(NDA_DST, address)
        try:
            self._ask(RTM_DELNEIGH, 0, body)
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise


def _gateway(family: int, hop: Hop) -> bytes:
    if hop.gateway is None:
        return b""
    if family_of(hop.gateway) == family:
        return attribute(RTA_GATEWAY, hop.gateway)
    return attribute(RTA_VIA, struct.pack("=H", family_of(hop.gateway)) + hop.gateway)


def _reason(code: int, flags: int, body: bytes) -> str:
    """What Linux says beyond the errno (NETLINK_EXT_ACK), for whoever debugs the lab."""
    text = os.strerror(code)
    if flags & 0x200:  # NLM_F_ACK_TLVS
        offset = 4 + _HEADER.size
        if not flags & 0x100:  # NLM_F_CAPPED: without it the whole request is repeated
            offset = 4 + struct.unpack_from("=I", body, 4)[0]
        for kind, payload in attributes(body[(offset + 3) & ~3 :]):
            if kind == 1:  # NLMSGERR_ATTR_MSG
                text += ": " + payload.rstrip(b"\0").decode(errors="replace")
    return text
