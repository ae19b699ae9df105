"""Our hooks in the jail.conf of Bastille's jails.

Replace: of the jail's links the first makes way, the one that carries its addresses and default route (netblock.links);
what `bastille network add` gave it stays. Adopt, and jails without vnet: nothing makes way. The rc.conf inside the jail
is the jail's, and is not touched: `Said.advice` tells what to change there.

Our lines come behind Bastille's block for that link, so that commands which its user put before and behind keep their
order, and behind every "=" that would throw them away. They name the jail as "${name}", which jail(8) replaces, because
`bastille rename`, `clone` and `import` know nothing of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from mobility.config import Config
from mobility.hooks.edit import Change, Hook, HooksError, State, Way, read
from mobility.jails import jailconf, netblock
from mobility.jails.bastille import Bastille
from mobility.jails.jailconf import Conf, ConfError, Section, Statement
from mobility.jails.jailsd import Folder
from mobility.jails.netblock import VNET_INTERFACE, Kind, Link, Netblock
from mobility.jails.sources import combine
from mobility.model import Phase

_ADOPTED = (Phase.POSTSTART, Phase.PRESTOP, Phase.POSTSTOP)
"""Where its manager makes the link there is nothing to do before the jail has started."""
_PHASES = {Way.REPLACE: tuple(Phase), Way.ADOPT: _ADOPTED}
_COMMANDS = ("exec.prepare", *(f"exec.{phase}" for phase in Phase), "exec.release")
"""jail(8)'s parameters whose commands run on the host."""
_NAME = "${name}"


class BastilleEditor:
    """Knows the jail.conf of each of Bastille's jails. See `edit.Editor`."""

    name = "bastille"

    def __init__(self, loaded: Config, hook: Hook) -> None:
        if loaded.managers.bastille is None:
            raise HooksError("managers.bastille of mobility.toml is empty: name the folder that is bastille_prefix")
        self._bastille = Bastille(loaded.managers.bastille)
        self._jails_d = loaded.paths.jails_d
        self._allowed = loaded.host.allowed
        self._terms = loaded.terms
        self._hook = hook

    def jails(self) -> list[str]:
        """Return the names of Bastille's jails."""
        return self._bastille.names()

    def state(self, name: str) -> State:
        """Tell what is installed for one jail; `note` says why it is not complete, or what to know."""
        text = jailconf.decode(self._content(name))
        path = self._bastille.conf(name)
        way = _way(text)
        if way is None:
            return State(name, None, False, path)
        try:
            complete = self._with_hooks(name, netblock.original(text), way) == text
        except HooksError as error:
            return State(name, way, False, path, str(error))
        note = "" if complete else f"lines are missing or not where they work: mobility hooks install bastille {name}"
        return State(name, way, complete, path, note)

    def install(self, name: str, way: Way) -> list[Change]:
        """Return what has to change in the jail's jail.conf. See `edit.Editor`.

        Raises HooksError where the file has what can be neither kept nor left out, and, for REPLACE, where nobody grants
        the jail an address: it would start without a network.
        """
        before = self._content(name)
        after = jailconf.encode(self._with_hooks(name, netblock.original(jailconf.decode(before)), way))
        if after == before:
            return []
        if way is Way.REPLACE:
            self._must_have_addresses(name)
        return [Change(name, self._bastille.conf(name), before, after)]

    def remove(self, name: str) -> list[Change]:
        """Return what takes our lines out and brings back what made way. See `edit.Editor`."""
        before = self._content(name)
        after = jailconf.encode(netblock.original(jailconf.decode(before)))
        return [] if after == before else [Change(name, self._bastille.conf(name), before, after)]

    def _content(self, name: str) -> bytes:
        if name not in self._bastille.names():
            known = ", ".join(self._bastille.names()) or "none"
            raise HooksError(f"jail {name}: Bastille has no such jail (its jails: {known})")
        content = read(name, self._bastille.conf(name))
        if content is None:
            raise HooksError(f"jail {name}: {self._bastille.conf(name)} is gone")
        return content

    def _must_have_addresses(self, name: str) -> None:
        folder = Folder(self._jails_d, self._allowed, self._terms)
        folder.refresh_one(name)
        if problems := folder.problems.get(name):
            raise HooksError(f"jail {name}: {problems[0]}")
        try:
            said = self._bastille.read(name, requests=True)
        except ValueError as error:
            raise HooksError(f"jail {name}: {error}") from error
        if said is None or combine(name, folder.entries.get(name), replace(said, hooks=True), self._allowed).addresses:
            return
        asked = ", ".join(f'"{text}"' for text in said.requests) or '"198.51.100.7"'
        raise HooksError(
            f"jail {name}: nobody grants it an address, so it would start without a network. What its own rc.conf asks for "
            f"may be written by the jail: if it is right, put it into {self._jails_d / name}.toml: addresses = [{asked}]"
        )

    def _with_hooks(self, name: str, text: str, way: Way) -> str:
        """Return a jail.conf without our lines as it is with them."""
        path = self._bastille.conf(name)
        try:
            tree = jailconf.load(path, lambda _: text)
        except ConfError as error:
            raise HooksError(f"jail {name}: {error}") from error
        blocks, jail = tree.blocks(name), tree.jail(name)
        if len(blocks) != 1 or jail is None:
            raise HooksError(f"jail {name}: {path} must hold one block {name} {{ }}, and holds {len(blocks)}")
        editing = _Editing(name, blocks[0].conf, blocks[0].section)
        links = netblock.links(jail.values(VNET_INTERFACE)) if jail.vnet else []
        if not jail.vnet:
            way = Way.ADOPT
        elif way is Way.ADOPT:
            _adoptable(name, links)
        if links:
            editing.find_block(links[0], links[1:], make_way=way is Way.REPLACE)
        called = name if jail.numbered else _NAME
        for phase in _PHASES[way]:
            editing.add(f'exec.{phase} += "{self._hook.command(phase, called)}";', after=f"exec.{phase}")
        after = editing.text()
        if way is Way.REPLACE and any(netblock.is_old_form(line) for line in after.split("\n")):
            raise HooksError(
                f"jail {name}: {path} has several interfaces in the form of Bastille before 1.0, and a newer one rewrites the "
                f"whole file at the jail's next stop: let it (bastille stop {name}), or install with --adopt"
            )
        if netblock.original(after) != text:
            raise HooksError(
                f"jail {name}: {path} holds comments that look like ours ({netblock.MADE_WAY}): reword them"
            )
        return after


def _way(text: str) -> Way | None:
    """Return the way in which hooks are installed in this text."""
    ours = [line for line in text.split("\n") if netblock.is_ours(line)]
    if netblock.has_marks(text) or any(f"exec.{Phase.PRESTART} " in line for line in ours):
        return Way.REPLACE
    return Way.ADOPT if ours else None


def _adoptable(name: str, links: Sequence[Link]) -> None:
    if not links:
        raise HooksError(f"jail {name}: Bastille makes it no interface that could be adopted: install without --adopt")
    if links[0].kind is not Kind.EPAIR:
        raise HooksError(
            f"jail {name}: its first interface {links[0].inner} ({links[0].kind.value}) has no end on the host that could be "
            "adopted: install without --adopt"
        )


class _Editing:
    """The lines of one jail's block: which make way, and where ours go."""

    def __init__(self, name: str, conf: Conf, section: Section) -> None:
        self._name = name
        self._conf = conf
        self._section = section
        self._lines = conf.text.split("\n")
        self._making_way: set[int] = set()
        self._added: list[str] = []
        self._behind = 0
        self._indent = "  "

    def find_block(self, link: Link, others: Sequence[Link], *, make_way: bool) -> None:
        """Find what Bastille wrote for a link; ours go behind it, or with `make_way` into its place."""
        prestart = [
            text for one in self._section.statements if one.name == "exec.prestart" for text in netblock.text_of(one)
        ]
        block = Netblock(link, others, prestart)
        for statement in self._section.statements:
            if statement.name == VNET_INTERFACE:
                names = [name for value in netblock.text_of(statement) for name in value.split()]
                found, rest = link.inner in names, [name for name in names if name != link.inner]
            elif statement.name in _COMMANDS:
                texts = netblock.text_of(statement)
                rest = [text for text in texts if not block.owns(statement.name, text)]
                found = len(rest) < len(texts)
                if make_way:
                    self._no_use_of(link, block, statement, rest)
            else:
                continue
            if found:
                self._take(statement, rest, make_way=make_way)

    def _no_use_of(self, link: Link, block: Netblock, statement: Statement, commands: Sequence[str]) -> None:
        for command in commands:
            if block.mentions(command):
                gone = link.inner if link.inner in command else link.outer
                raise HooksError(
                    f"{self._where(statement)} uses {gone}, which would no longer be there: "
                    f"take it out, or install with --adopt: {command}"
                )

    def _take(self, statement: Statement, rest: Sequence[str], *, make_way: bool) -> None:
        numbers = self._own_lines(statement)
        self._put_behind(statement)
        if not make_way:
            return
        if rest and statement.name != VNET_INTERFACE:
            raise HooksError(
                f"{self._where(statement)} has commands of Bastille's and others in one list: give each a statement of its own"
            )
        self._making_way.update(numbers)
        if rest:
            values = ", ".join(f'"{name}"' for name in rest)
            self._added.append(f"{VNET_INTERFACE} {statement.operator} {values};")

    def _own_lines(self, statement: Statement) -> range:
        """Return the numbers of a statement's lines, on which nothing else may stand but a comment behind it."""
        text, start, end = self._conf.text, statement.start, statement.end
        before = text[text.rfind("\n", 0, start) + 1 : start]
        behind = text[end:].partition("\n")[0]
        if before.strip() or not re.fullmatch(r"\s*((#|//).*|/\*((?!\*/).)*\*/\s*)?", behind):
            raise HooksError(f"{self._where(statement)} shares its line with something else: give it a line of its own")
        return range(self._conf.line(start) - 1, self._conf.line(end))

    def add(self, line: str, *, after: str) -> None:
        """Add a line of ours, behind every statement that would discard what the parameter `after` was before."""
        self._added.append(line)
        for statement in self._section.statements:
            if jailconf.equal_names(statement.name, after) and statement.discards:
                self._own_lines(statement)
                self._put_behind(statement)

    def _put_behind(self, statement: Statement) -> None:
        last = self._conf.line(statement.end) - 1
        if last >= self._behind:
            first = self._lines[self._conf.line(statement.start) - 1]
            self._behind, self._indent = last + 1, first[: len(first) - len(first.lstrip())]

    def text(self) -> str:
        """Return the whole file as it is to be."""
        if not self._behind and self._section.statements:
            last = self._section.statements[-1]
            self._own_lines(last)
            self._put_behind(last)
        if not self._conf.line(self._section.opened) <= self._behind < self._conf.line(self._section.closed):
            raise HooksError(
                f"jail {self._name}: {self._conf.path}: the braces of {self._name} {{ }} must stand on lines without statements"
            )
        return "\n".join(self._all_lines())

    def _all_lines(self) -> Iterator[str]:
        for number, line in enumerate(self._lines):
            if number == self._behind:
                yield from (f"{self._indent}{added}{netblock.OURS}" for added in self._added)
            yield netblock.give_way(line) if number in self._making_way else line

    def _where(self, statement: Statement) -> str:
        return f"jail {self._name}: {self._conf.path} line {self._conf.line(statement.start)}: {statement.name}"
