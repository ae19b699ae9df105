"""Our own jails.d: NAME.toml says what addresses the jail NAME owns. Root writes it, so it is a grant.

    addresses = ["198.51.100.7/32", "2001:db8:7::7/128"]   # all that it has; what its manager says does not count
    requests = ["198.51.100.0/28"]                         # or: what its own rc.conf asks for counts within these
    services = ["64:ff9b::/96"]                            # prefixes beyond its own addresses that are routed to it
    link = "adopt"                                         # "ours": mobility makes its link; "adopt": its manager does
    identity, group, [announce]                            # see `mobility.announcement`

Every setting may be left out. Without `addresses` those count that root's files of its manager give it, and its
requests as far as `requests` goes. Without `link` a link that its manager makes is adopted.
"""

from __future__ import annotations

import contextlib
import os
import tomllib
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from mobility import announcement
from mobility.announcement import Announce, Terms
from mobility.config import Problem, allows
from mobility.health import checks
from mobility.health.checks import Check
from mobility.jails.said import Ends, Signature, file_signature, read_text, signature_of
from mobility.likely import did_you_mean
from mobility.model import (
    Prefix,
    address,
    destination,
    host_prefix,
    jail_name,
    martian,
    network_prefix,
    overlap,
)

SUFFIX = ".toml"
OURS, ADOPT = LINKS = ("ours", "adopt")
_SETTINGS = ("addresses", "requests", "link", "services", "identity", "group", "announce", "check")


@dataclass(frozen=True, slots=True)
class More:
    """What only jails.d says of a jail, beside its addresses."""

    announce: Announce = field(default_factory=Announce)
    checks: tuple[Check, ...] = ()
    services: tuple[Prefix, ...] = ()
    """Prefixes beyond its own addresses that are routed to it and announced with them."""


@dataclass(frozen=True)
class JailConfig:
    """What one jail may have: its addresses in the order written, and the file that says so.

    `refused` are requests that nobody granted, each a sentence. `ends` is the pair that its manager makes and that is to
    be its link; None where the link is ours. `vnet` is what its manager says, None where nobody does.
    """

    name: str
    addresses: tuple[Prefix, ...]
    source: str
    refused: tuple[str, ...] = field(default=(), compare=False)
    ends: Ends | None = None
    vnet: bool | None = None
    more: More = field(default_factory=More)

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """The bare addresses, as FreeBSD's commands print them."""
        return tuple(map(address, self.addresses))

    @property
    def services(self) -> tuple[Prefix, ...]:
        """The prefixes beyond its own addresses that are routed to it, too."""
        return self.more.services

    @cached_property
    def routed(self) -> tuple[Prefix, ...]:
        """All that is routed to it, and announced: its addresses, then its services."""
        return (*self.addresses, *self.services)

    @cached_property
    def destinations(self) -> tuple[str, ...]:
        """The same as netstat(1) prints them."""
        return tuple(map(destination, self.routed))

    @cached_property
    def remembered(self) -> tuple[str, ...]:
        """The same as `Memory.granted` keeps them: addresses bare, services always with their length."""
        return (*self.texts, *map(str, self.services))

    @property
    def identity(self) -> str:
        """What makes this jail the same one on all hosts."""
        return self.more.announce.identity or self.name

    def holding(self, addresses: Iterable[Prefix], services: Iterable[Prefix]) -> JailConfig:
        """Return the same with other addresses and services."""
        return replace(self, addresses=tuple(addresses), more=replace(self.more, services=tuple(services)))

    def without(self, gone: Callable[[Prefix], bool]) -> JailConfig | None:
        """Return the same without the prefixes of which `gone` is true; None where no address is left."""
        addresses = [prefix for prefix in self.addresses if not gone(prefix)]
        services = (prefix for prefix in self.services if not gone(prefix))
        return self.holding(addresses, services) if addresses else None

    def keeping(self, leaving: Iterable[Prefix], remembered: Iterable[str]) -> JailConfig:
        """Return the same with prefixes that it has by now and is about to lose; `remembered` tells which are services."""
        services = services_of(remembered)
        leaving = [prefix for prefix in leaving if prefix not in self.routed]
        return self.holding(
            (*self.addresses, *(prefix for prefix in leaving if prefix not in services)),
            (*self.services, *(prefix for prefix in leaving if prefix in services)),
        )


def addresses_of(remembered: Iterable[str]) -> tuple[Prefix, ...]:
    """Return the addresses that `Memory.granted` keeps (see `JailConfig.remembered`)."""
    return tuple(host_prefix(text) for text in remembered if "/" not in text)


def services_of(remembered: Iterable[str]) -> tuple[Prefix, ...]:
    """Return the services that `Memory.granted` keeps."""
    return tuple(network_prefix(text) for text in remembered if "/" in text)


@dataclass(frozen=True, slots=True)
class Entry:
    """What one file of jails.d says; None and () where it does not."""

    source: str
    addresses: tuple[Prefix, ...] = ()
    requests: tuple[Prefix, ...] = ()
    link: str | None = None
    more: More = field(default_factory=More)


def parse(
    name: str,
    content: str,
    source: str,
    allowed: Iterable[Prefix],
    terms: Terms = Terms(),  # noqa: B008  # frozen
) -> tuple[Entry | None, list[Problem]]:
    """Judge one jail's file.

    Returns what it says and no problem, or None and everything wrong with the file.
    """
    problems: list[Problem] = []
    try:
        jail_name(name)
    except ValueError as error:
        problems.append(Problem(source, None, f"{error}; rename the file"))
    try:
        data = tomllib.loads(content)
    except tomllib.TOMLDecodeError as error:
        return None, [*problems, Problem(source, None, f"is no TOML: {error}")]
    known = ", ".join(_SETTINGS)
    problems += [
        Problem(f"{source}: {key}", None, f"is no setting; {did_you_mean(key, _SETTINGS) or f'known here: {known}'}")
        for key in data
        if key not in _SETTINGS
    ]
    allowed = tuple(allowed)
    link = data.get("link")
    if link is not None and link not in LINKS:
        problems.append(Problem(f"{source}: link", link, 'must be "ours" or "adopt"'))
    addresses = _prefixes(
        data,
        "addresses",
        'must list the jail\'s addresses: addresses = ["198.51.100.7/32", "2001:db8:7::7/128"]',
        host_prefix,
        lambda prefix: unfit(name, prefix, allowed),
        source,
        problems,
    )
    entry = Entry(
        source,
        addresses=addresses,
        requests=_prefixes(
            data,
            "requests",
            'must list prefixes within which the jail may ask for addresses: requests = ["198.51.100.0/28"]',
            network_prefix,
            lambda prefix: "" if allows(allowed, prefix) else "lies outside host.allowed of mobility.toml",
            source,
            problems,
        ),
        link=link,
        more=More(
            announcement.read(data, source, terms, partial(_complain, problems)),
            checks.read(data, source, problems),
            _services(data, addresses, allowed, source, problems),
        ),
    )
    return (None, problems) if problems else (entry, [])


def _services(
    data: dict[str, Any],
    addresses: Iterable[Prefix],
    allowed: Iterable[Prefix],
    source: str,
    problems: list[Problem],
) -> tuple[Prefix, ...]:
    """Read the prefixes that are routed to the jail beyond its own addresses."""
    taken: list[Prefix] = []

    def judge(prefix: Prefix) -> str:
        if wrong := unfit_service(prefix, allowed):
            return wrong
        if own := next((each for each in addresses if overlap(each, prefix)), None):
            return _own_too(own)
        if other := next((each for each in taken if overlap(each, prefix)), None):
            return f"overlaps {other}, another of its services: write the wider one alone"
        taken.append(prefix)
        return ""

    remedy = 'must list the prefixes that are routed to the jail, too: services = ["64:ff9b::/96"]'
    return _prefixes(data, "services", remedy, network_prefix, judge, source, problems)


def _own_too(own: Prefix) -> str:
    return f"holds the jail's own address {address(own)}: take that out of `addresses`, or choose a prefix beside it"


def unfit_service(prefix: Prefix, allowed: Iterable[Prefix]) -> str:
    """Return why no jail of this host may have a prefix routed to it, "" where it may."""
    if prefix.prefixlen == 0:
        return "is the default route: write the prefixes that the jail serves"
    if martian(prefix):
        return "holds addresses that no jail may own (loopback, link-local, multicast, ...)"
    if not allows(allowed, prefix):
        return "lies outside host.allowed of mobility.toml"
    return ""


def fitting(name: str, more: More, addresses: Collection[Prefix], *, vnet: bool | None) -> tuple[More, tuple[str, ...]]:
    """Return what a file says without the services that the jail as it is can not have, and a sentence on each of those.

    Its addresses, and whether it has a vnet, may be its manager's word, which the file's own reading does not know.
    """
    if vnet is False and more.services:
        return replace(more, services=()), (no_vnet(name, more.services),)
    own = {prefix: [each for each in addresses if overlap(each, prefix)] for prefix in more.services}
    refused = tuple(f"jail {name}: its service {prefix} {_own_too(held[0])}" for prefix, held in own.items() if held)
    fit = tuple(prefix for prefix, held in own.items() if not held)
    return (replace(more, services=fit) if refused else more), refused


def no_vnet(name: str, services: Iterable[Prefix]) -> str:
    """Return why services of a jail without a vnet of its own come to nothing."""
    return (
        f"jail {name}: it has no vnet of its own, and a prefix ({', '.join(map(str, services))}) can only be routed into "
        "one: add `vnet;` to its jail.conf, or take `services` out of its file"
    )


def unfit(name: str, prefix: Prefix, allowed: Iterable[Prefix]) -> str:
    """Return why a jail of this host may not have an address at all, "" where it may."""
    if martian(prefix) or not allows(allowed, prefix):
        return f"jail {name} may not have {address(prefix)}: it lies outside host.allowed of mobility.toml"
    return ""


def _complain(problems: list[Problem], key: str, value: object, remedy: str) -> None:
    problems.append(Problem(key, value, remedy))


def _prefixes(
    data: dict[str, Any],
    key: str,
    remedy: str,
    read: Callable[[str], Prefix],
    judge: Callable[[Prefix], str],
    source: str,
    problems: list[Problem],
) -> tuple[Prefix, ...]:
    if key not in data:
        return ()
    raw = data[key]
    if not isinstance(raw, list) or not raw:
        problems.append(Problem(f"{source}: {key}", raw, remedy))
        return ()
    found: list[Prefix] = []
    for item in raw:
        try:
            prefix = read(item if isinstance(item, str) else repr(item))
        except ValueError as error:
            problems.append(Problem(f"{source}: {key}", None, str(error)))
            continue
        if prefix in found:
            problems.append(Problem(f"{source}: {key}", item, "is written twice"))
        elif wrong := judge(prefix):
            problems.append(Problem(f"{source}: {key}", item, wrong))
        else:
            found.append(prefix)
    return tuple(found)


class Folder:
    """The folder jails.d, read again only where something has changed.

    `entries` holds the good files by name, `problems` what is wrong with the others, by name: a jail is in one of the
    two, and one bad file spoils no other. A folder that can not be read is no jails, and a problem under the name "".
    """

    def __init__(self, path: Path, allowed: Iterable[Prefix], terms: Terms = Terms()) -> None:  # noqa: B008  # frozen
        self.entries: dict[str, Entry] = {}
        self.problems: dict[str, list[Problem]] = {}
        self._path = path
        self._allowed = tuple(allowed)
        self._terms = terms
        self._seen: dict[str, Signature] = {}

    def use(self, terms: Terms) -> None:
        """Judge by these from now on: where they are others, the next `refresh` reads every file again."""
        if terms != self._terms:
            self._terms = terms
            self._seen = dict.fromkeys(self._seen, ())

    def refresh(self) -> set[str]:
        """Read what has changed in the folder; return the names of the jails concerned."""
        found: dict[str, Signature] = {}
        try:
            with os.scandir(self._path) as entries:
                for entry in entries:
                    if entry.name.endswith(SUFFIX) and not entry.name.startswith("."):
                        with contextlib.suppress(FileNotFoundError):  # removed since it was listed
                            found[entry.name.removesuffix(SUFFIX)] = signature_of(entry.stat(follow_symlinks=False))
            self.problems.pop("", None)
        except FileNotFoundError:
            self.problems[""] = [Problem(str(self._path), None, f"is not there: mkdir -p {self._path}")]
        except OSError as error:
            # what was read still counts: a host short of descriptors must not lose its jails
            self.problems[""] = [Problem(str(self._path), None, f"can not be read: {error.strerror}")]
            return set()
        changed = {name for name in {*found, *self._seen} if found.get(name) != self._seen.get(name)}
        for name in changed:
            self._read(name, there=name in found)
        self._seen = found
        return changed

    def refresh_one(self, name: str) -> bool:
        """Read one jail's file if it has changed; tell whether it has."""
        now = file_signature(self._path / f"{name}{SUFFIX}")
        if now == self._seen.get(name, ()):
            return False
        self._read(name, there=bool(now))
        if now:
            self._seen[name] = now
        else:
            del self._seen[name]
        return True

    def _read(self, name: str, *, there: bool) -> None:
        self.entries.pop(name, None)
        self.problems.pop(name, None)
        if not there:
            return
        path = self._path / f"{name}{SUFFIX}"
        try:
            content = read_text(path)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            self.problems[name] = [Problem(str(path), None, why)]
            return
        entry, wrong = parse(name, content, str(path), self._allowed, self._terms)
        if entry is None:
            self.problems[name] = wrong
        else:
            self.entries[name] = entry
