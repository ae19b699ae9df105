"""What FreeBSD's commands print, read into values. Pure; the shapes are those of the 13.2 transcripts.

A description may hold anything that a jail's root wrote, line breaks included, once the inner end came home: so an
interface is believed to be ours only where `ifconfig -g` lists its name too.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from sys import intern
from typing import Any

from mobility.failover.model import MAX_VHID, STATES, Carp, Pfsync, Vhid
from mobility.network import naming
from mobility.network.command import Result

_HEADER = re.compile(r"^(?P<name>\S.*?): flags=[0-9a-f]+<(?P<flags>[A-Z0-9_,]*)>")
_FAMILIES = {"Internet": 4, "Internet6": 6}
_HOST_MASK = "0xffffffff"
_NOTHING: frozenset[str] = frozenset()
_BRACKETS = re.compile(r"<([A-Z0-9_,]*)>")
_CARP = re.compile(
    rf"\tcarp: (?P<state>{'|'.join(STATES)}) vhid (?P<vhid>\d{{1,3}}) advbase (?P<base>\d{{1,3}}) advskew (?P<skew>\d{{1,3}})",
    re.ASCII,
)
_PFSYNC = re.compile(r"(syncdev|syncpeer|version|syncok): (\S{1,64})", re.ASCII)
_SYSCTL = re.compile(r"([a-z0-9_.]+): (-?\d{1,10})", re.ASCII)


class OutputError(Exception):
    """A command answered something that this program does not understand; the message quotes it."""


@dataclass(frozen=True, slots=True)
class Interface:
    """One interface as `ifconfig` shows it. Addresses are without zone; `inet6` counts only usable ones.

    `wide` are those of its addresses, link-local ones aside, that come with a network: a mask shorter than the address.
    `members` are a bridge's.
    """

    name: str
    up: bool
    ether: str = ""
    description: str = ""
    groups: frozenset[str] = frozenset()
    inet: tuple[str, ...] = ()
    inet6: tuple[str, ...] = ()
    nd6: frozenset[str] = frozenset()
    wide: frozenset[str] = frozenset()
    members: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Route:
    """One line of `netstat -rn`; flags as printed: U up, G gateway, H host, S static, R reject, B blackhole."""

    version: int
    destination: str
    gateway: str
    flags: str
    interface: str

    @property
    def reject(self) -> bool:
        """Whether packets are refused with an ICMP error instead of forwarded."""
        return "R" in self.flags


@dataclass(frozen=True, slots=True)
class Jail:
    """One jail as `jls` shows it. `addresses` are those that a jail without a vnet of its own may use (ip4.addr, ip6.addr)."""

    name: str
    jid: int
    vnet: bool
    path: str
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True)
class NetView:
    """Interfaces and routes of one vnet. Routes are by destination as printed; "default" may be of both families."""

    interfaces: Mapping[str, tuple[Interface, ...]] = field(default_factory=dict)
    routes: Mapping[str, tuple[Route, ...]] = field(default_factory=dict)

    def interface(self, name: str) -> Interface | None:
        """Return the one interface of that name, or None where there is none, or several."""
        found = self.interfaces.get(name, ())
        return found[0] if len(found) == 1 else None

    def routes_to(self, destination: str, version: int) -> tuple[Route, ...]:
        """Return the routes of one family to exactly this destination."""
        return tuple(route for route in self.routes.get(destination, ()) if route.version == version)

    @cached_property
    def by_interface(self) -> Mapping[str, tuple[Route, ...]]:
        """The routes by the interface they leave through."""
        found: dict[str, list[Route]] = {}
        for several in self.routes.values():
            for route in several:
                found.setdefault(route.interface, []).append(route)
        return {name: tuple(several) for name, several in found.items()}

    @cached_property
    def by_address(self) -> Mapping[str, tuple[str, ...]]:
        """The names of the interfaces that carry each address, by the address."""
        found: dict[str, list[str]] = {}
        for name, several in self.interfaces.items():
            for interface in several:
                for text in (*interface.inet, *interface.inet6):
                    found.setdefault(text, []).append(name)
        return {text: tuple(names) for text, names in found.items()}

    @cached_property
    def bridge_of(self) -> Mapping[str, str]:
        """The bridge that each bridge member is in, by the member's name."""
        return {member: name for name, several in self.interfaces.items() for one in several for member in one.members}

    @cached_property
    def with_ipv4(self) -> Interface | None:
        """An interface with an IPv4 address of the host's: outside 127/8, and not for jails. lo0 comes first.

        IPv4 over IPv6 next hops need one (transcript 3-routes). Links of jails carry it once more, and other loopbacks
        are where jails without a vnet have theirs.
        """
        own = [
            interface
            for several in self.interfaces.values()
            for interface in several
            if interface.name == "lo0" or not {naming.GROUP, "lo"} & interface.groups
        ]
        own.sort(key=lambda interface: (not _own_ipv4(interface, dummy=False), interface.name != "lo0"))
        return next((one for one in own if _own_ipv4(one)), None)

    @property
    def ipv4(self) -> str:
        """The host's own IPv4 address, "" where it has none but 127/8."""
        found = self.with_ipv4
        return next(iter(_own_ipv4(found, dummy=False) + _own_ipv4(found)), "") if found else ""


def _own_ipv4(interface: Interface, *, dummy: bool = True) -> list[str]:
    """Return an interface's IPv4 addresses outside 127/8; the dummy of RFC 7600, which is nobody's own, only if asked."""
    texts = [text for text in interface.inet if not text.startswith("127.")]
    return [text for text in texts if dummy or text != naming.DUMMY_IPV4]


@lru_cache(maxsize=256)
def _words(text: str) -> frozenset[str]:
    """Return the words of a line; thousands of interfaces share the same few sets."""
    return frozenset(text.split())


def interfaces(text: str) -> dict[str, tuple[Interface, ...]]:
    """Read `ifconfig` or `ifconfig -a`: interfaces by name; two may have the same (transcript 2-vnet)."""
    found: dict[str, list[Interface]] = {}
    name, up, fields = "", False, _Fields()
    for line in text.splitlines():
        header = _HEADER.match(line)
        if header:
            if name:
                found.setdefault(name, []).append(fields.interface(name, up=up))
            name, up, fields = header["name"], "UP" in header["flags"].split(","), _Fields()
        elif name and line.startswith("\t"):
            fields.take(line.strip())
    if name:
        found.setdefault(name, []).append(fields.interface(name, up=up))
    return {name: tuple(several) for name, several in found.items()}


def by_interface(text: str) -> dict[str, str]:
    """Return what `ifconfig -a` says of each interface, by name. Of two with the same name the first counts.

    That one was here before: one that comes home from a jail has what name, and what description, its root gave it
    (transcript 2-vnet).
    """
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines(keepends=True):
        if header := _HEADER.match(line):
            lines = []
            found.setdefault(header["name"], lines)
        lines.append(line)
    return {name: "".join(several) for name, several in found.items()}


def carps(name: str, text: str) -> tuple[Carp, ...]:
    """Read the CARP states from `ifconfig NAME`, one interface's: of every vhid the last line that tells of it.

    An interface that is not there has none. Lines are those of transcript 6-carp; FreeBSD 14 has another one below each,
    with its peers (carp.c, carp_status).
    """
    found: dict[int, Carp] = {}
    for line in text.splitlines():
        match = _CARP.match(line)
        if match and 0 < int(match["vhid"]) <= MAX_VHID:
            number = int(match["vhid"])
            found[number] = Carp(Vhid(name, number), match["state"], int(match["base"]), int(match["skew"]))
    return tuple(found.values())


def pfsync(text: str) -> Pfsync:
    """Read `ifconfig pfsync0`, of 13 (transcript 7-pfsync) and of 14, where its version is shown (ifpfsync.c, pfsync_status).

    A pfsync that is switched off, or that has no syncdev, says "syncok: 1" and is in step with nobody: that is left out.
    """
    header = _HEADER.match(text)
    if header is None:
        return Pfsync()
    found: dict[str, str] = {}
    for line in text.splitlines():
        # a description, or a group, may hold anything
        if line.startswith(("\tpfsync: ", "\tsyncdev: ", "\tsyncpeer: ", "\tmaxupd: ", "\tsyncok: ")):
            found |= dict(_PFSYNC.findall(line))
    up, syncdev = "UP" in header["flags"].split(","), found.get("syncdev", "")
    runs = up and bool(syncdev)
    syncok = {"0": False, "1": True}.get(found.get("syncok", "")) if runs else None
    version = found.get("version", "")
    return Pfsync(
        present=True,
        syncdev=syncdev,
        syncpeer=found.get("syncpeer", ""),
        syncok=syncok,
        version=int(version) if version.isdecimal() else None,
        bulk=None if syncok is None else not syncok,
        up=up,
    )


def sysctls(text: str) -> dict[str, int]:
    """Read `sysctl NAME ...`: the numbers by name; what is no number is left out."""
    return {match[1]: int(match[2]) for line in text.splitlines() if (match := _SYSCTL.fullmatch(line))}


class _Fields:
    """The indented lines of one interface."""

    def __init__(self) -> None:
        self.ether = ""
        self.description = ""
        self.groups: frozenset[str] = frozenset()
        self.inet: list[str] = []
        self.inet6: list[str] = []
        self.nd6: frozenset[str] = frozenset()
        self.wide: list[str] = []
        self.members: list[str] = []

    def take(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        if word == "description:":
            self.description = rest
        elif word == "ether":
            self.ether = rest.strip()
        elif word == "groups:":
            self.groups = _words(rest)
        elif word == "inet":
            text, *more = rest.split()
            self.inet.append(text)
            if _HOST_MASK not in more:
                self.wide.append(text)
        elif word == "inet6":
            text, *more = rest.split()
            text, _, zone = text.partition("%")
            if not {"tentative", "duplicated", "detached"} & set(more):
                self.inet6.append(text)
            if not zone and _following(more, "prefixlen") != "128":
                self.wide.append(text)
        elif word == "member:":
            self.members.append(rest.split()[0])
        elif word == "nd6":
            match = _BRACKETS.search(rest)
            self.nd6 = _words(match[1].replace(",", " ")) if match else frozenset()

    def interface(self, name: str, *, up: bool) -> Interface:
        return Interface(
            name,
            up,
            self.ether,
            self.description,
            self.groups,
            tuple(self.inet),
            tuple(self.inet6),
            self.nd6,
            _set(self.wide),
            tuple(self.members),
        )


def _set(texts: list[str]) -> frozenset[str]:
    return frozenset(texts) if texts else _NOTHING


def _following(words: list[str], word: str) -> str:
    """Return the word after `word`, "" where there is none."""
    return next((after for before, after in itertools.pairwise(words) if before == word), "")


def _document(result: Result) -> Any:
    try:
        # not strict: libxo leaves control characters in names as they are (xo_escape_json)
        return json.loads(result.stdout, strict=False)
    except ValueError as error:
        raise OutputError(
            f"{' '.join(result.argv)} answered no JSON: {result.stdout[:200]!r} {result.complaint}"
        ) from error


def routes(result: Result) -> dict[str, tuple[Route, ...]]:
    """Read `netstat -rnW --libxo json` (without -W, interface names are cut to eight characters): routes by destination.

    Raises OutputError when it is something else.
    """
    found: dict[str, list[Route]] = {}
    try:
        for family in _document(result)["statistics"]["route-information"]["route-table"]["rt-family"]:
            version = _FAMILIES.get(family["address-family"], 0)
            for entry in family.get("rt-entry", ()) if version else ():
                route = Route(
                    version,
                    entry["destination"],
                    entry["gateway"],
                    intern(entry["flags"]),
                    intern(entry["interface-name"]),
                )
                found.setdefault(route.destination, []).append(route)
    except (KeyError, TypeError, AttributeError) as error:
        raise OutputError(f"{' '.join(result.argv)} answered JSON of another shape: {result.stdout[:200]!r}") from error
    return {destination: tuple(several) for destination, several in found.items()}


def _addresses(entry: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what jls lists under ip4.addr and ip6.addr: a list, or text with commas; "-" is none."""
    found: list[str] = []
    for key in ("ip4.addr", "ip6.addr"):
        value = entry.get(key, ())
        texts = value.split(",") if isinstance(value, str) else value
        found += [text for text in texts if text not in ("", "-")]
    return tuple(found)


@dataclass(frozen=True, slots=True)
class HostView:
    """What one look at the host showed: its vnet, the names in our group, and the running jails."""

    net: NetView = field(default_factory=NetView)
    ours: frozenset[str] = frozenset()
    jails: Mapping[str, Jail] = field(default_factory=dict)


def jails(result: Result) -> dict[str, Jail]:
    """Read `jls --libxo json name jid path vnet ip4.addr ip6.addr`: running jails by name, dying ones are not among them.

    `jls -j NAME` of a jail that is not there exits with 1 and prints no jail: an empty answer.
    Raises OutputError when it is something else.
    """
    if result.status != 0 and "not found" in result.stderr:
        return {}
    if result.status != 0:
        raise OutputError(f"{' '.join(result.argv)} failed: {result.complaint}")
    try:
        entries = _document(result)["jail-information"].get("jail", ())
        found = (
            Jail(str(e["name"]), int(e["jid"]), str(e["vnet"]) == "new", str(e["path"]), _addresses(e)) for e in entries
        )
        return {jail.name: jail for jail in found}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise OutputError(f"{' '.join(result.argv)} answered JSON of another shape: {result.stdout[:200]!r}") from error
