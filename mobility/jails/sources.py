"""Everything that root's files say of this host's jails: our jails.d over what their managers keep."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from mobility.announcement import Terms
from mobility.config import Config, Problem, allows
from mobility.jails import jailsd
from mobility.jails.bastille import Bastille
from mobility.jails.iocage import Iocage
from mobility.jails.jailconf_jails import JailConfFile
from mobility.jails.jailsd import Entry, JailConfig
from mobility.jails.said import Manager, Said, Signature
from mobility.model import Prefix, address, host_prefix, overlap, single

T = TypeVar("T")


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
        its_name = name.removeprefix("ioc-") if said.manager == Iocage.name else name
        untouched = (
            f"{said.source}: {said.manager} wires it by itself: mobility hooks install {said.manager} {its_name}"
        )
        return JailConfig(name, (), said.source, (untouched,) if said.addresses else (), None, said.vnet)
    ends = said.ends[0] if said and said.ends and not (entry and entry.link == jailsd.OURS) else None
    vnet = said.vnet if said else None
    source = entry.source if entry and (entry.addresses or said is None) else said.source if said else ""
    more = entry.more if entry else jailsd.More()
    if entry is not None and entry.addresses:
        more, unserved = jailsd.fitting(name, more, entry.addresses, vnet=vnet)
        return JailConfig(name, entry.addresses, source, unserved, ends, vnet, more)
    granted: dict[Prefix, None] = {}
    refused: list[str] = []
    for text in said.addresses if said else ():
        _take(name, text, source, granted, refused, allowed)
    within = entry.requests if entry else ()
    for text in said.requests if said else ():
        if text.partition("/")[0] not in map(address, granted):
            _take(name, text, f"{source}: it asks in its own files", granted, refused, allowed, within)
    if said is not None and said.hooks and said.vnet and not (granted or refused):
        refused.append(
            f"{source}: nobody grants it an address: write `addresses` or `requests` into jails.d/{name}.toml"
        )
    more, unserved = jailsd.fitting(name, more, granted, vnet=vnet)
    return JailConfig(name, tuple(granted), source, (*refused, *unserved), ends, vnet, more)


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

    `jails` holds every jail that has addresses, `refused` what was not granted or can not be read, by jail, and
    `problems` what is wrong with a jail's files; a jail with a problem has no entry in `jails`. `ask_all`: what jails ask
    for in their own files is read of all of them, not only of those that may ask. The agent must not depend on every
    jail's file system: one that hangs would hang it.
    """

    def __init__(
        self, folder: jailsd.Folder, managers: Sequence[Manager], allowed: Sequence[Prefix], *, ask_all: bool = False
    ) -> None:
        self.jails: dict[str, JailConfig] = {}
        self.refused: dict[str, tuple[str, ...]] = {}
        self.problems: dict[str, list[Problem]] = {}
        self.last_good: dict[str, JailConfig] = {}
        """Of jails with problems: what counted before, since this began to read."""
        self._folder = folder
        self._managers = tuple(managers)
        self._allowed = tuple(allowed)
        self._ask_all = ask_all
        self._seen: dict[str, tuple[Manager, Signature]] = {}
        self._names: dict[str, list[str]] = {}
        self._missed: set[str] = set()
        """Jails that no manager knew any more at the last refresh: a file that is being written is empty for a moment."""

    @classmethod
    def of(cls, config: Config, *, ask_all: bool = False) -> Sources:
        """Return the sources that a configuration names, nothing read yet."""
        folder = jailsd.Folder(config.paths.jails_d, config.host.allowed, config.terms)
        return cls(folder, managers_of(config), config.host.allowed, ask_all=ask_all)

    def use(self, terms: Terms) -> None:
        """Judge the files of jails.d by these from the next `refresh` on, which tells the jails that it concerns."""
        self._folder.use(terms)

    def refresh(self) -> set[str]:
        """Read what has changed; return the names of the jails concerned."""
        changed = self._folder.refresh()
        faults = [*self._folder.problems.get("", ())]
        for manager in self._managers:
            try:
                self._names[manager.name] = manager.names()
                faults += [Problem(manager.name, None, fault) for fault in manager.faults()]
            except OSError as error:
                # its jails stay as they were read
                faults.append(Problem(manager.name, None, f"its jails can not be listed: {error}"))
        names = {name for several in self._names.values() for name in several}
        changed |= {name for name in names | self._seen.keys() if self._seen.get(name) != self._find(name)}
        gone = {name for name in changed & self._seen.keys() if self._find(name) is None}
        changed -= gone - self._missed
        self._missed = gone - self._missed
        for name in changed - {""}:
            self._read(name)
        self.problems.pop("", None)
        if faults:
            self.problems[""] = faults
        return changed - {""}

    def manager_of(self, name: str) -> str:
        """Return which manager's files know a jail, "" where none do."""
        return self._seen[name][0].name if name in self._seen else ""

    def refresh_one(self, name: str) -> bool:
        """Read one jail's files if they have changed; tell whether they have."""
        found = self._find(name)
        if not self._folder.refresh_one(name) and (found == self._seen.get(name) or found is None):
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
        return bool(entry and entry.requests and not entry.addresses) or (
            self._ask_all and not (entry and entry.addresses)
        )

    def _read(self, name: str) -> None:
        problems = [*self._folder.problems.get(name, ())]
        entry = self._folder.entries.get(name)
        found, said, unreadable = self._find(name), None, ""
        if found is None:
            self._seen.pop(name, None)
        else:
            self._seen[name] = found
            manager = found[0]
            try:
                said = manager.read(name, requests=self._asks(name))
            except (OSError, ValueError) as error:
                unreadable = f"{manager.name}: {error}"
        if unreadable and not (entry and entry.addresses):
            problems.append(Problem(f"jail {name}", None, unreadable))
        jail = None
        if not problems and (entry is not None or said is not None):
            jail = combine(name, entry, said, self._allowed)
            if entry is not None and not jail.addresses:
                problems.append(Problem(entry.source, None, _nothing(jail)))
        refused = (*(jail.refused if jail else ()), *([unreadable] if unreadable and not problems else ()))
        if problems and name in self.jails:
            self.last_good[name] = self.jails[name]
        elif not problems:
            self.last_good.pop(name, None)
        _put(self.problems, name, problems)
        _put(self.refused, name, refused)
        _put(self.jails, name, jail if jail and jail.addresses else None)


def _put(table: dict[str, T], name: str, value: T | None) -> None:
    """Set an entry, or remove it where there is nothing to say."""
    if value:
        table[name] = value
    else:
        table.pop(name, None)


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


def contested(jails: Iterable[JailConfig]) -> dict[Prefix, tuple[str, ...]]:
    """Return every address and every service prefix that only one of several jails can have here at a time."""
    known = list(jails)
    return shared_addresses(known) | overlapping_services(known)


def overlapping_services(jails: Iterable[JailConfig]) -> dict[Prefix, tuple[str, ...]]:
    """Return every service prefix that no two of these jails may have at once, with the jails' names in order.

    Two networks of which one holds the other, or a single address that another jail has, too. Another jail's single
    address *within* a network is nothing to refuse: the longer route is the right one, here and in the fabric.
    """
    serving: list[tuple[Prefix, str]] = []
    holding: dict[Prefix, set[str]] = {}
    for jail in jails:
        serving += [(prefix, jail.name) for prefix in jail.services]
        for prefix in jail.routed:
            if single(prefix):
                holding.setdefault(prefix, set()).add(jail.name)
    found = {prefix: set(holding.get(prefix, ())) for prefix, _ in serving}
    # by first address, the wider first: what holds a network comes before it, and is among those that have not ended
    wider: list[tuple[Prefix, str]] = []
    networks = [pair for pair in serving if not single(pair[0])]
    for prefix, name in sorted(networks, key=lambda pair: (pair[0].version, pair[0].first, pair[0].prefixlen, pair[1])):
        wider = [(each, owner) for each, owner in wider if overlap(each, prefix)]
        for each, owner in wider:
            if owner != name:
                found[each] |= {owner, name}
                found[prefix] |= {owner, name}
        wider.append((prefix, name))
    return {prefix: tuple(sorted(names)) for prefix, names in found.items() if len(names) > 1}
