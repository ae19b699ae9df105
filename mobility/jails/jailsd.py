"""Our own jails.d: NAME.toml says which addresses the jail NAME owns. Root writes it, so it is a grant."""

from __future__ import annotations

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


def load(folder: Path, allowed: Iterable[Prefix]) -> tuple[dict[str, JailConfig], dict[str, list[Problem]]]:
    """Read every NAME.toml in `folder`.

    Returns the good jails by name, and the problems by name: a jail is in one of the two. One bad file spoils no other.
    A missing folder is no jails, and one problem under the name "".
    """
    jails: dict[str, JailConfig] = {}
    problems: dict[str, list[Problem]] = {}
    try:
        paths = sorted(
            path for path in folder.iterdir() if path.name.endswith(SUFFIX) and not path.name.startswith(".")
        )
    except OSError as error:
        return {}, {"": [Problem(str(folder), None, f"can not be read ({error.strerror}): mkdir -p {folder}")]}
    for path in paths:
        name = path.name.removesuffix(SUFFIX)
        try:
            content = _read(path)
        except (OSError, ValueError) as error:
            problems[name] = [
                Problem(
                    str(path),
                    None,
                    error.strerror or str(error) if isinstance(error, OSError) else str(error),
                )
            ]
            continue
        jail, wrong = parse(name, content, str(path), allowed)
        if jail is None:
            problems[name] = wrong
        else:
            jails[name] = jail
    return jails, problems


def shared_addresses(jails: Iterable[JailConfig]) -> dict[Prefix, tuple[str, ...]]:
    """Return every address that more than one jail was granted, with the jails' names in order."""
    owners: dict[Prefix, list[str]] = {}
    for jail in jails:
        for prefix in jail.addresses:
            owners.setdefault(prefix, []).append(jail.name)
    return {prefix: tuple(sorted(names)) for prefix, names in owners.items() if len(names) > 1}
