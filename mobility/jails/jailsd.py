"""Our own jails.d: NAME.toml says what addresses the jail NAME owns. Root writes it, so it is a grant.

    addresses = ["198.51.100.7/32", "2001:db8:7::7/128"]   # all that it has; what its manager says does not count
    requests = ["198.51.100.0/28"]                         # or: what its own rc.conf asks for counts within these
    link = "adopt"                                         # "ours": mobility makes its link; "adopt": its manager does

Every setting may be left out. Without `addresses` those count that root's files of its manager give it, and its
requests as far as `requests` goes. Without `link` a link that its manager makes is adopted.
"""

from __future__ import annotations

import contextlib
import os
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from mobility.config import Problem, allows
from mobility.jails.said import Ends, Signature, file_signature, read_text, signature_of
from mobility.model import Prefix, address, host_prefix, jail_name, martian, network_prefix

SUFFIX = ".toml"
OURS, ADOPT = LINKS = ("ours", "adopt")
_SETTINGS = ("addresses", "requests", "link")


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

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """The bare addresses, as FreeBSD's commands print them."""
        return tuple(map(address, self.addresses))


@dataclass(frozen=True, slots=True)
class Entry:
    """What one file of jails.d says; None and () where it does not."""

    source: str
    addresses: tuple[Prefix, ...] = ()
    requests: tuple[Prefix, ...] = ()
    link: str | None = None


def parse(name: str, content: str, source: str, allowed: Iterable[Prefix]) -> tuple[Entry | None, list[Problem]]:
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
        Problem(f"{source}: {key}", None, f"is no setting; known here: {known}") for key in data if key not in _SETTINGS
    ]
    allowed = tuple(allowed)
    link = data.get("link")
    if link is not None and link not in LINKS:
        problems.append(Problem(f"{source}: link", link, 'must be "ours" or "adopt"'))
    entry = Entry(
        source,
        addresses=_prefixes(
            data,
            "addresses",
            'must list the jail\'s addresses: addresses = ["198.51.100.7/32", "2001:db8:7::7/128"]',
            host_prefix,
            lambda prefix: unfit(name, prefix, allowed),
            source,
            problems,
        ),
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
    )
    return (None, problems) if problems else (entry, [])


def unfit(name: str, prefix: Prefix, allowed: Iterable[Prefix]) -> str:
    """Return why a jail of this host may not have an address at all, "" where it may."""
    if martian(prefix) or not allows(allowed, prefix):
        return f"jail {name} may not have {address(prefix)}: it lies outside host.allowed of mobility.toml"
    return ""


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

    def __init__(self, path: Path, allowed: Iterable[Prefix]) -> None:
        self.entries: dict[str, Entry] = {}
        self.problems: dict[str, list[Problem]] = {}
        self._path = path
        self._allowed = tuple(allowed)
        self._seen: dict[str, Signature] = {}

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
        entry, wrong = parse(name, content, str(path), self._allowed)
        if entry is None:
            self.problems[name] = wrong
        else:
            self.entries[name] = entry
