"""Everything that root's files say of this host's jails: our jails.d over what their managers keep."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mobility.config import Config, Problem, allows
from mobility.jails import jailsd
from mobility.jails.bastille import Bastille
from mobility.jails.iocage import Iocage
from mobility.jails.jailconf_jails import JailConfFile
from mobility.jails.jailsd import Entry, JailConfig
from mobility.jails.said import Manager, Said, Signature
from mobility.model import Prefix, address, host_prefix


def managers_of(config: Config) -> list[Manager]:
    """Return the managers whose files the configuration names; of two that know a jail, the first counts."""
    found: list[Manager] = []
    if config.managers.bastille is not None:
        found.append(Bastille(config.managers.bastille))
    if config.managers.iocage is not None:
        found.append(Iocage(config.managers.iocage))
    if config.managers.jail_conf is not None:
        found.append(JailConfFile(config.managers.jail_conf))
    return found


def combine(name: str, entry: Entry | None, said: Said | None, allowed: Sequence[Prefix]) -> JailConfig:
    """Return what a jail may have; without any address where nobody grants it one. Pure.

    An entry's addresses replace all others. Else what root's files give it counts within host.allowed, and what the jail
    itself asks for within the entry's `requests`. What does not count is told in `refused`. What a manager wires stays
    the manager's, until an entry or our hooks say that it is to be ours.
    """
    if said is not None and said.ends and entry is None and not said.hooks:
        untouched = f"{said.source}: {said.manager} wires it by itself: mobility hooks install {said.manager}"
        return JailConfig(name, (), said.source, (untouched,) if said.addresses else (), None, said.vnet)
    ends = said.ends[0] if said and said.ends and not (entry and entry.link == jailsd.OURS) else None
    vnet = said.vnet if said else None
    source = entry.source if entry and (entry.addresses or said is None) else said.source if said else ""
    if entry is not None and entry.addresses:
        return JailConfig(name, entry.addresses, source, (), ends, vnet)
    granted: dict[Prefix, None] = {}
    refused: list[str] = []
    for text in said.addresses if said else ():
        _take(name, text, source, granted, refused, allowed)
    within = entry.requests if entry else ()
    for text in said.requests if said else ():
        _take(name, text, f"{source}: it asks in its own files", granted, refused, allowed, within)
    return JailConfig(name, tuple(granted), source, tuple(refused), ends, vnet)


def _take(
    name: str,
    text: str,
    where: str,
    granted: dict[Prefix, None],
    refused: list[str],
    allowed: Iterable[Prefix],
    within: Iterable[Prefix] | None = None,
) -> None:
    try:
        prefix = host_prefix(text.partition("/")[0])
    except ValueError as error:
        refused.append(f"{where}: {error}")
        return
    wrong = jailsd.unfit(name, prefix, allowed)
    if not wrong and within is not None and not allows(within, prefix):
        wrong = f"{address(prefix)} is not granted: put it into `addresses` or `requests` of jails.d/{name}.toml"
    if wrong:
        refused.append(f"{where}: {wrong}")
    else:
        granted[prefix] = None


class Sources:
    """The jails' files, read again only where something has changed.

    `jails` holds every jail that has addresses, `refused` what was not granted, by jail, and `problems` what is wrong
    with a jail's files; a jail with a problem has no entry in `jails`.
    """

    def __init__(self, folder: jailsd.Folder, managers: Sequence[Manager], allowed: Sequence[Prefix]) -> None:
        self.jails: dict[str, JailConfig] = {}
        self.refused: dict[str, tuple[str, ...]] = {}
        self.problems: dict[str, list[Problem]] = {}
        self._folder = folder
        self._managers = tuple(managers)
        self._allowed = tuple(allowed)
        self._seen: dict[str, tuple[Manager, Signature]] = {}

    @classmethod
    def of(cls, config: Config) -> Sources:
        """Return the sources that a configuration names, nothing read yet."""
        folder = jailsd.Folder(config.paths.jails_d, config.host.allowed)
        return cls(folder, managers_of(config), config.host.allowed)

    def refresh(self) -> set[str]:
        """Read what has changed; return the names of the jails concerned."""
        changed = self._folder.refresh()
        self._take_problem("")
        names = {name for manager in self._managers for name in manager.names()}
        changed |= {name for name in names | self._seen.keys() if self._seen.get(name) != self._find(name)}
        for name in changed - {""}:
            self._read(name)
        return changed - {""}

    def refresh_one(self, name: str) -> bool:
        """Read one jail's files if they have changed; tell whether they have."""
        if not self._folder.refresh_one(name) and self._find(name) == self._seen.get(name):
            return False
        self._read(name)
        return True

    def _find(self, name: str) -> tuple[Manager, Signature] | None:
        """Return the first manager that knows the jail, and its files' signature."""
        asks = self._asks(name)
        signed = ((manager, manager.signature(name, requests=asks)) for manager in self._managers)
        return next((found for found in signed if found[1]), None)

    def _asks(self, name: str) -> bool:
        """Tell whether what the jail itself asks for matters."""
        entry = self._folder.entries.get(name)
        return entry is None or not entry.addresses

    def _take_problem(self, name: str) -> None:
        if name in self._folder.problems:
            self.problems[name] = self._folder.problems[name]
        else:
            self.problems.pop(name, None)

    def _read(self, name: str) -> None:
        self.jails.pop(name, None)
        self.refused.pop(name, None)
        self._take_problem(name)
        found, said = self._find(name), None
        if found is None:
            self._seen.pop(name, None)
        else:
            self._seen[name] = found
            manager = found[0]
            try:
                said = manager.read(name, requests=self._asks(name))
            except ValueError as error:
                problem = Problem(f"{manager.name}: jail {name}", None, str(error))
                self.problems[name] = [*self.problems.get(name, ()), problem]
        entry = self._folder.entries.get(name)
        if name in self.problems or (entry is None and said is None):
            return
        jail = combine(name, entry, said, self._allowed)
        if jail.refused:
            self.refused[name] = jail.refused
        if jail.addresses:
            self.jails[name] = jail
        elif entry is not None:
            self.problems[name] = [Problem(entry.source, None, _nothing(jail))]


def _nothing(jail: JailConfig) -> str:
    why = "; ".join(jail.refused) or "no manager's file names any"
    return f'gives the jail no address ({why}): write addresses = ["198.51.100.7/32", "2001:db8:7::7/128"]'


def shared_addresses(jails: Iterable[JailConfig]) -> dict[Prefix, tuple[str, ...]]:
    """Return every address that more than one jail was granted, with the jails' names in order."""
    owners: dict[Prefix, list[str]] = {}
    for jail in jails:
        for prefix in jail.addresses:
            owners.setdefault(prefix, []).append(jail.name)
    return {prefix: tuple(sorted(names)) for prefix, names in owners.items() if len(names) > 1}
