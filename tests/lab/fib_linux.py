"""The routes of a Linux network namespace, by its kernel's own messages.

Sources: rtnetlink(7).
"""

from __future__ import annotations

import ipaddress
import os
import select
import socket
import struct
import time

from tests.lab.kernel import syscalls
from tests.lab.kernel.netlink import (
    NLM_F_DUMP,
    NLM_F_REPLACE,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    RT_TABLE_MAIN,
    RTA_DST,
    RTA_GATEWAY,
    RTA_MULTIPATH,
    RTA_OIF,
    RTA_VIA,
    RTM_DELROUTE,
    RTM_GETROUTE,
    RTM_NEWROUTE,
    attributes,
)
from tests.lab.watch import Change, Fib

_HEADER = struct.Struct("=IHHII")
_ROUTE = struct.Struct("=BBBBBBBBI")
_NEXT_HOP = struct.Struct("=HBBi")
_IPV4_ROUTES, _IPV6_ROUTES = 0x40, 0x400  # RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_ROUTE
_RECEIVE_BUFFER = 32 << 20  # ten thousand routes may change while nobody reads
_SO_RCVBUFFORCE = 33


class LinuxFib(Fib):
    """The routes in the main table of a network namespace, given by its file (/proc/PID/ns/net)."""

    def __init__(self, namespace: str) -> None:
        super().__init__()
        descriptor = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
        try:
            with syscalls.inside(descriptor):
                self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        finally:
            os.close(descriptor)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER)
        self._socket.bind((0, _IPV4_ROUTES | _IPV6_ROUTES))
        for family in (socket.AF_INET, socket.AF_INET6):
            self._dump(family)
        self.changes.clear()

    def close(self) -> None:
        """Stop following."""
        self._socket.close()

    def _take(self, timeout: float) -> None:
        """Read what there is to read; wait up to `timeout` seconds for the first of it."""
        while select.select([self._socket], [], [], timeout)[0]:
            self._parse(self._socket.recv(1 << 17))
            timeout = 0

    def _dump(self, family: int) -> None:
        body = _ROUTE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)
        length = _HEADER.size + len(body)
        self._socket.send(_HEADER.pack(length, RTM_GETROUTE, NLM_F_REQUEST | NLM_F_DUMP, family, 0) + body)
        while not self._parse(self._socket.recv(1 << 17)):
            pass

    def _parse(self, data: bytes) -> bool:
        """Take in messages; return whether the end of a dump was among them."""
        now, offset, done = time.monotonic(), 0, False
        while offset + _HEADER.size <= len(data):
            length, kind, flags, _, _ = _HEADER.unpack_from(data, offset)
            body = data[offset + _HEADER.size : offset + length]
            offset += (length + 3) & ~3
            if kind in (NLMSG_DONE, NLMSG_ERROR):
                done = True
            elif kind in (RTM_NEWROUTE, RTM_DELROUTE):
                self._route(now, kind == RTM_DELROUTE, replace=bool(flags & NLM_F_REPLACE), body=body)
        return done

    def _route(self, now: float, gone: bool, *, replace: bool, body: bytes) -> None:
        family, bits, _, _, table, _, _, _, _ = _ROUTE.unpack_from(body)
        if table != RT_TABLE_MAIN or family not in (socket.AF_INET, socket.AF_INET6):
            return
        found = dict(attributes(body[_ROUTE.size :]))
        width = 4 if family == socket.AF_INET else 16
        prefix = f"{ipaddress.ip_address(found.get(RTA_DST, bytes(width)))}/{bits}"
        vias = {_gateway(found)} if RTA_OIF in found or RTA_MULTIPATH not in found else _gateways(found[RTA_MULTIPATH])
        hops = self._routes.setdefault(prefix, set())
        if gone:
            hops -= vias
        elif replace or family == socket.AF_INET:
            hops.clear()
            hops |= vias
        else:
            hops |= vias
        if not hops:
            del self._routes[prefix]
        self.changes += [Change(now, gone, prefix, via) for via in sorted(vias)]


def _gateway(found: dict[int, bytes]) -> str:
    if RTA_VIA in found:
        return str(ipaddress.ip_address(found[RTA_VIA][2:]))
    return str(ipaddress.ip_address(found[RTA_GATEWAY])) if RTA_GATEWAY in found else ""


def _gateways(data: bytes) -> set[str]:
    vias, offset = set(), 0
    while offset + _NEXT_HOP.size <= len(data):
        (length, _, _, _) = _NEXT_HOP.unpack_from(data, offset)
        vias.add(_gateway(dict(attributes(data[offset + _NEXT_HOP.size : offset + length]))))
        offset += (length + 3) & ~3
    return vias
