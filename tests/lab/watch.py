"""Waiting for news instead of sleeping: a process's output, files in a folder, the routes of a kernel.

Sources: rtnetlink(7), pidfd_open(2).
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import select
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

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

TAIL_LINES = 30
_HEADER = struct.Struct("=IHHII")
_ROUTE = struct.Struct("=BBBBBBBBI")
_NEXT_HOP = struct.Struct("=HBBi")
_IPV4_ROUTES, _IPV6_ROUTES = 0x40, 0x400  # RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_ROUTE
_RECEIVE_BUFFER = 32 << 20  # ten thousand routes may change while nobody reads
_SO_RCVBUFFORCE = 33


class NotInTime(AssertionError):
    """What was waited for did not happen; the text says what, and what was there instead."""


class Process:
    """A running program whose output goes to a file, and whose every line is news to those who wait."""

    def __init__(self, name: str, process: subprocess.Popen[str], log: Path) -> None:
        self.name = name
        self.process = process
        self.log = log
        self._news = threading.Condition()
        self._lines = 0
        self._reader = threading.Thread(target=self._read, name=f"log of {name}", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.log.open("a", buffering=1) as log:
            for line in self.process.stdout:
                log.write(line)
                self.poke()
        self.process.wait()
        self.poke()

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def poke(self) -> None:
        """Make those who wait look again."""
        with self._news:
            self._lines += 1
            self._news.notify_all()

    def await_(self, check: Callable[[], bool], what: str, timeout: float) -> None:
        """Wait until `check` holds, looking again at each line of output. NotInTime if it ends or takes too long."""
        deadline = time.monotonic() + timeout
        while True:
            seen = self._lines
            # without the lock: a check may ask the program, which must be able to say more meanwhile
            if check():
                return
            left = deadline - time.monotonic()
            if left <= 0 or not self.running:
                why = f"took more than {timeout:g} s" if self.running else f"ended ({self.process.returncode})"
                raise NotInTime(f"{self.name} {why}: no {what}\n{self.tail()}")
            with self._news:
                self._news.wait_for(lambda: self._lines != seen or not self.running, left)  # noqa: B023

    def tail(self) -> str:
        """The last lines of its output."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "\n".join([f"--- {self.log}", *lines[-TAIL_LINES:]])

    def end(self, number: int, timeout: float) -> int:
        """Send it a signal and wait for its end; return its status. NotInTime if it lives on."""
        if self.running:
            self.process.send_signal(number)
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise NotInTime(f"{self.name} lives {timeout:g} s after signal {number}\n{self.tail()}") from None
        self._reader.join(timeout)
        return status


@contextlib.contextmanager
def poked_by(process: Process, folder: Path) -> Iterator[None]:
    """For the length of a `with` block, let every change in a folder be news to those who wait for `process`."""

    class Poke(FileSystemEventHandler):
        def on_any_event(self, event: FileSystemEvent) -> None:
            process.poke()

    observer = Observer()
    observer.schedule(Poke(), str(folder))
    observer.start()
    try:
        yield
    finally:
        observer.stop()
        observer.join()


@dataclass(frozen=True, slots=True)
class Change:
    """A route that came or went: when (monotonic seconds), its prefix, its next hop ("" for an interface)."""

    when: float
    gone: bool
    prefix: str
    via: str


class Fib:
    """The routes in the main table of a network namespace, followed as they change.

    `changes` collects every change since it was last cleared.
    """

    def __init__(self, namespace: str) -> None:
        descriptor = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
        try:
            with syscalls.inside(descriptor):
                self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        finally:
            os.close(descriptor)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER)
        self._socket.bind((0, _IPV4_ROUTES | _IPV6_ROUTES))
        self._routes: dict[str, set[str]] = {}
        self.changes: list[Change] = []
        for family in (socket.AF_INET, socket.AF_INET6):
            self._dump(family)
        self.changes.clear()

    def close(self) -> None:
        """Stop following."""
        self._socket.close()

    def routes(self) -> dict[str, set[str]]:
        """Every prefix and its next hops, as of now."""
        self._take(0)
        return {prefix: set(hops) for prefix, hops in self._routes.items()}

    def has(self, prefix: str, via: str | None = None) -> bool:
        """Whether there is a route to exactly this prefix, over this next hop if one is named."""
        self._take(0)
        return self._stands(prefix, via)

    def wait(self, prefix: str, *, via: str | None = None, gone: bool = False, timeout: float = 10.0) -> float:
        """Wait until a route stands (or is gone); return the monotonic time at which this was seen."""
        return self.wait_for(
            lambda: self._stands(prefix, via) != gone,
            f"{'end of the ' if gone else ''}route to {prefix}" + (f" via {via}" if via else ""),
            timeout,
        )

    def wait_for(self, check: Callable[[], bool], what: str, timeout: float = 10.0) -> float:
        """Wait until `check` holds, looking again at each change; return the monotonic time at which it did."""
        deadline = time.monotonic() + timeout
        self._take(0)
        while not check():
            left = deadline - time.monotonic()
            if left <= 0:
                raise NotInTime(f"no {what} within {timeout:g} s; there are {self._routes}")
            self._take(left)
        return time.monotonic()

    def _stands(self, prefix: str, via: str | None) -> bool:
        hops = self._routes.get(prefix)
        return bool(hops) and (via is None or via in (hops or ()))

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
