"""Our own jails.d: NAME.toml says which addresses the jail NAME owns. Root writes it, so it is a grant."""

from __future__ import annotations

import contextlib
import os
import stat
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mobility.config import Problem, allows
from mobility.model import Prefix, address, host_prefix, jail_name, martian

SUFFIX = ".toml"
MAX_BYTES = 64 * 1024


@dataclass(frozen=True)
class JailConfig:
    """One jail's grant: its addresses in the order written, and the file that says so."""

    name: str
    addresses: tuple[Prefix, ...]
    source: str

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """The bare addresses, as FreeBSD's commands print them."""
        return tuple(map(address, self.addresses))


def parse(name: str, content: str, source: str, allowed: Iterable[Prefix]) -> tuple[JailConfig | None, list[Problem]]:
    """Judge one jail's file.

    Returns the jail and no problem, or None and everything wrong with the file.
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
    problems += [
        Problem(f"{source}: {key}", None, "is no setting; known here: addresses") for key in data if key != "addresses"
    ]
    raw = data.get("addresses")
    if not isinstance(raw, list) or not raw:
        problems.append(
            Problem(
                f"{source}: addresses",
                raw,
                'must list the jail\'s addresses: addresses = ["198.51.100.7/32", "2001:db8:7::7/128"]',
            )
        )
        raw = []
    addresses: list[Prefix] = []
    allowed = tuple(allowed)
    for item in raw:
        try:
            prefix = host_prefix(item if isinstance(item, str) else repr(item))
        except ValueError as error:
            problems.append(Problem(f"{source}: addresses", None, str(error)))
            continue
        if prefix in addresses:
            problems.append(Problem(f"{source}: addresses", item, "is written twice"))
        elif martian(prefix) or not allows(allowed, prefix):
            problems.append(
                Problem(
                    f"{source}: addresses",
                    item,
                    f"jail {name} may not have {address(prefix)}: it lies outside host.allowed of mobility.toml",
                )
            )
        else:
            addresses.append(prefix)
    return (None, problems) if problems else (JailConfig(name, tuple(addresses), source), [])


def _read(path: Path) -> str:
    """Return a root-written file's text; links, devices and files that others may write are refused (ValueError)."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("is no regular file")
        if status.st_uid not in (0, os.geteuid()) or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise ValueError(f"may be written by others than root: chown root {path} && chmod 644 {path}")
        if status.st_size > MAX_BYTES:
            raise ValueError(f"is larger than {MAX_BYTES} bytes")
        return file.read(MAX_BYTES).decode("utf-8")


Signature = tuple[int, ...]


def _signature(status: os.stat_result) -> Signature:
    """Return what changes whenever a file does: its content, owner and mode all touch the ctime (stat(2))."""
    return (status.st_ctime_ns, status.st_ino)


class Folder:
    """The folder jails.d, read again only where something has changed.

    `jails` holds the good ones by name, `problems` what is wrong with the others, by name: a jail is in one of the two,
    and one bad file spoils no other. A folder that can not be read is no jails, and a problem under the name "".
    """

    def __init__(self, path: Path, allowed: Iterable[Prefix]) -> None:
        self.jails: dict[str, JailConfig] = {}
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
                            status = entry.stat(follow_symlinks=False)
                            found[entry.name.removesuffix(SUFFIX)] = _signature(status)
            self.problems.pop("", None)
        except OSError as error:
            why = f"can not be read ({error.strerror}): mkdir -p {self._path}"
            self.problems[""] = [Problem(str(self._path), None, why)]
        changed = {name for name in {*found, *self._seen} if found.get(name) != self._seen.get(name)}
        for name in changed:
            self._read(name, there=name in found)
        self._seen = found
        return changed

    def refresh_one(self, name: str) -> bool:
        """Read one jail's file if it has changed; tell whether it has."""
        try:
            now = _signature((self._path / f"{name}{SUFFIX}").lstat())
        except OSError:
            now = ()
        if now == self._seen.get(name, ()):
            return False
        self._read(name, there=bool(now))
        if now:
            self._seen[name] = now
        else:
            del self._seen[name]
        return True

    def _read(self, name: str, *, there: bool) -> None:
        self.jails.pop(name, None)
        self.problems.pop(name, None)
        if not there:
            return
        path = self._path / f"{name}{SUFFIX}"
        try:
            content = _read(path)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            self.problems[name] = [Problem(str(path), None, why)]
            return
        jail, wrong = parse(name, content, str(path), self._allowed)
        if jail is None:
            self.problems[name] = wrong
        else:
            self.jails[name] = jail


def load(folder: Path, allowed: Iterable[Prefix]) -> tuple[dict[str, JailConfig], dict[str, list[Problem]]]:
    """Read every NAME.toml in `folder` once; return the good jails and the problems, both by name (see Folder)."""
    files = Folder(folder, allowed)
    files.refresh()
    return files.jails, files.problems


def shared_addresses(jails: Iterable[JailConfig]) -> dict[Prefix, tuple[str, ...]]:
    """Return every address that more than one jail was granted, with the jails' names in order."""
    owners: dict[Prefix, list[str]] = {}
    for jail in jails:
        for prefix in jail.addresses:
            owners.setdefault(prefix, []).append(jail.name)
    return {prefix: tuple(sorted(names)) for prefix, names in owners.items() if len(names) > 1}
