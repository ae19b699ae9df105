"""Jails of jail(8) itself: /etc/jail.conf, /etc/jail.NAME.conf and /etc/jail.conf.d/NAME.conf.

The addresses of a jail without vnet stand there: `ip4.addr = "lo1|198.51.100.7/32"` (jail(8), "ip4.addr"; the interface
before "|" and what follows the address are for ifconfig(8): config.c, check_intparams). For jails with vnet nobody has
agreed on a place in jail.conf, and jail(8) allows no ip4.addr: their addresses stand in jails.d/NAME.toml.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mobility.jails import jailconf
from mobility.jails.said import Ends, Said, Signature, file_signature, hooked, read_text
from mobility.model import jail_name

MAX_BYTES = 1024 * 1024
"""Bytes of a jail.conf that are read: it may hold thousands of jails."""

_EPAIR = re.compile(r"(epair[0-9]+)b")
"""epair(4): `ifconfig epair create` makes epairNa and epairNb."""
_JIB = re.compile(r"(e[0-9]+)b(_.+)")
"""jib, of share/examples/jails in FreeBSD's sources: `jib addm NAME IF` makes eNa_NAME and eNb_NAME."""


def roots(path: Path, name: str) -> tuple[Path, Path]:
    """Return the files that `service jail start NAME` looks for before jail.conf, in its order (rc.d/jail, parse_options)."""
    return path.with_name(f"{path.stem}.{name}.conf"), path.with_name(f"{path.name}.d") / f"{name}.conf"


def single_files(path: Path) -> Iterator[tuple[str, Path]]:
    """Yield the jails that have a file of their own beside jail.conf, by its name, and the file."""
    for folder, prefix in ((path.parent, f"{path.stem}."), (path.with_name(f"{path.name}.d"), "")):
        if folder.is_dir():
            for found in sorted(folder.glob(f"{prefix}?*.conf")):
                name = found.name.removeprefix(prefix).removesuffix(".conf")
                if not found.name.startswith(".") and fit(name):
                    yield name, found


def choose(path: Path, name: str, look: Callable[[Path], jailconf.Tree | None]) -> tuple[Path, jailconf.Tree] | None:
    """Return the file with which jail(8) starts a jail, and what it holds; None where none has a block of it.

    `look` returns what a file holds, None where it is not there. A file of the jail's own comes first, as for rc.d/jail;
    but where jail.conf includes it, jail.conf says more.
    """
    main = look(path)
    blocks = main.blocks(name) if main is not None else []
    if main is not None and blocks and blocks[0].conf.path != path:
        return path, main
    for single in roots(path, name):
        tree = look(single)
        if tree is not None and tree.blocks(name):
            return single, tree
    return (path, main) if main is not None and blocks else None


def fit(name: str) -> bool:
    """Tell whether we handle jails of this name."""
    try:
        jail_name(name)
    except ValueError:
        return False
    return True


def other_end(interface: str) -> str | None:
    """Return the name of a pair's outer end, as far as its inner end's name tells it."""
    if match := _EPAIR.fullmatch(interface):
        return f"{match[1]}a"
    if match := _JIB.fullmatch(interface):
        return f"{match[1]}a{match[2]}"
    return None


def interfaces(jail: jailconf.Jail) -> list[str]:
    """Return the interfaces that jail(8) moves into a jail; jib writes several into one value."""
    return [interface for value in jail.values("vnet.interface") for interface in value.split()]


@dataclass(slots=True)
class _Root:
    """A file that jail(8) may be called with, as it was when it was read last; `fault` is what is wrong with it now."""

    tree: jailconf.Tree | None = None
    stats: dict[Path, Signature] = field(default_factory=dict)
    fault: str = ""


class JailConfFile:
    """The jails of one jail.conf, and of the files beside it. See `mobility.jails.said.Manager`.

    A file that can not be used any more counts as it was read last, and says so: a slip of the pen in jail.conf must not
    take the addresses of all jails away.
    """

    name = "jail.conf"

    def __init__(self, path: Path) -> None:
        self._path = path
        self._roots: dict[Path, _Root] = {}

    def names(self) -> list[str]:
        """Return the names of all jails that have a block, as far as we handle them."""
        main = self._look(self._path)
        found = dict.fromkeys(name for name in (main.names() if main else []) if fit(name))
        singles = dict(self._singles())
        for path in [path for path in self._roots if path != self._path and path not in singles]:
            del self._roots[path]
        for path, name in singles.items():
            tree = self._look(path)
            if tree is not None and tree.blocks(name):
                found[name] = None
        return list(found)

    def faults(self) -> list[str]:
        """Return what is wrong with the files: jails that were read before still count, others are not known."""
        return [root.fault for root in self._roots.values() if root.fault]

    def signature(self, jail: str, *, requests: bool) -> Signature:  # noqa: ARG002  # jails of jail(8) ask for nothing
        """Return what changes with each file that has a part in the jail; () where no file has a block of it."""
        found = self._find(jail)
        if found is None:
            return ()
        path, tree = found
        watched = (*roots(self._path, jail), *tree.watched_for(jail), path)
        return tuple(number for one in watched for number in (*file_signature(one), 0))

    def read(self, jail: str, *, requests: bool) -> Said | None:  # noqa: ARG002  # jails of jail(8) ask for nothing
        """Return what its block says. Raises ValueError where jail(8) would not start it."""
        found = self._find(jail)
        if found is None:
            return None
        path, tree = found
        blocks = tree.blocks(jail)
        source = str(blocks[0].conf.path)
        if len(blocks) > 1:
            raise ValueError(f"{source}: {len(blocks)} blocks are named {jail}: jail(8) takes any of them; leave one")
        read = tree.jail(jail)
        if read is None or read.problems:
            raise ValueError(f"{source}: jail {jail}: {'; '.join(read.problems if read else ())}")
        moved = interfaces(read) if read.vnet else []
        pairs = [(inner, other_end(inner)) for inner in moved]
        advice = [
            f"{source}: vnet.interface {inner}: its other end is not known by its name, so it can not be adopted: "
            "let it give way (mobility hooks install jail.conf), or name it epairNb or eNb_NAME"
            for inner, outer in pairs
            if outer is None
        ]
        if fault := self._roots[path].fault:
            advice.append(f"{fault}; what was read before still counts")
        return Said(
            jail,
            self.name,
            source,
            read.vnet,
            addresses=() if read.vnet else tuple(_addresses(read)),
            ends=tuple(Ends(outer, (inner,)) for inner, outer in pairs if outer is not None),
            advice=tuple(advice),
            hooks=hooked(read.values("exec.poststart"), jail),
        )

    def _singles(self) -> Iterable[tuple[Path, str]]:
        return [(path, name) for name, path in single_files(self._path)]

    def _find(self, jail: str) -> tuple[Path, jailconf.Tree] | None:
        return choose(self._path, jail, lambda path: self._look(path, jail))

    def _look(self, path: Path, jail: str | None = None) -> jailconf.Tree | None:
        """Return what a file holds; it is read again where it, or what concerns `jail` in it, has changed."""
        root = self._roots.get(path)
        if root is not None:
            known = root.tree is not None and jail is not None and root.tree.blocks(jail)
            watched = root.tree.watched_for(jail) if known and root.tree and jail else root.stats
            if all(file_signature(one) == root.stats.get(one) for one in watched):
                return root.tree
        elif not file_signature(path):
            return None
        return self._reread(path, root or _Root())

    def _reread(self, path: Path, root: _Root) -> jailconf.Tree | None:
        stats: dict[Path, Signature] = {path: file_signature(path)}

        def read(one: Path) -> str:
            # before it is read: what changes meanwhile is seen the next time
            stats[one] = file_signature(one)
            try:
                return read_text(one, MAX_BYTES)
            except ValueError as error:
                raise ValueError(f"{one} {error}") from error

        try:
            root.tree = jailconf.load(path, read)
            root.fault = ""
        except FileNotFoundError as error:
            if str(error.filename) == str(path):
                self._roots.pop(path, None)
                return None
            root.fault = f"{path}: {error.filename} is not there"
        except (OSError, ValueError) as error:
            root.fault = str(error)
        root.stats = {**{one: file_signature(one) for one in (root.tree.watched if root.tree else ())}, **stats}
        self._roots[path] = root
        return root.tree


def _addresses(jail: jailconf.Jail) -> Iterator[str]:
    for value in (*jail.values("ip4.addr"), *jail.values("ip6.addr")):
        for text in value.split(","):  # a kernel parameter's values may stand in one, too (jailparam_import)
            bare = text.rpartition("|")[2].split("/")[0].split(" ")[0]
            if bare:
                yield bare
