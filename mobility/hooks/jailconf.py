"""Our hooks in a plain jail.conf(5): in the jail's own block, beside what its user wrote there.

What is put in, and how it is taken out again, to the byte, from the file alone:

* lines of ours end in MARK, and go;
* lines that make way are comments behind ASIDE, and come back;
* where a user's line had to be broken, its first part ends in BREAK, and is joined with the next line;
* where a `=` of the user's would throw ours away, it is a `+=` behind a comment that holds what it was.

prestart, created, poststart and poststop of ours are the last of their kind: the pair is made when all of the user's own
preparations went well, nothing can come between the wiring and the jail's start, and no user's command waits for us.
Our prestop is the first: routes go before anything else does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from mobility.config import Config
from mobility.hooks import edit
from mobility.hooks.edit import Change, Hook, HooksError, State, Way
from mobility.jails import jailconf
from mobility.jails.jailconf import Conf, Jail, Section, Statement, Tree, decode, encode, equal_names
from mobility.jails.jailconf_jails import choose, fit, interfaces, other_end, roots, single_files
from mobility.jails.jailsd import SUFFIX, Folder
from mobility.jails.said import Signature, file_signature
from mobility.model import Phase

MARK = "# mobility"
ASIDE = "#mobility# "
BREAK = "# mobility: the line goes on below"
INTERFACE = "vnet.interface"
LIFE = tuple(Phase)
"""The phases of a jail to whose link we see from its beginning."""
FROM_OUTSIDE = (Phase.POSTSTART, Phase.PRESTOP, Phase.POSTSTOP)
"""The phases of a jail that brings its own link, or has no network stack of its own."""

_OUR_LINE = re.compile(rf'[ \t]*(?:exec\.[a-z]+ \+?= "[^"\n]*"|{re.escape(INTERFACE)}); ')
_WAS = re.compile(r"/\*mobility(=?)\*/")
_HOOK = re.compile(r"\S*/mobility(?:/|-)hook(?: -c \S+)? ([a-z]+) '?[^' ]+'?")
_MAKES_INTERFACES = re.compile(
    r"\bifconfig\b.*\b(?:create|destroy|addm|deletem|-?vnet)\b|\b(?:jib|jng)\b|\bngctl\b", re.DOTALL
)
_INDENT = "    "


@dataclass(frozen=True)
class _Site:
    """A jail's block, the file that it stands in, and all that makes up the jail."""

    conf: Conf
    block: Section
    tree: Tree
    jail: Jail


class JailConfEditor:
    """The editor for plain jail.conf. See `mobility.hooks.edit.Editor`."""

    name = "jail.conf"

    def __init__(self, loaded: Config, hook: Hook) -> None:
        if loaded.managers.jail_conf is None:
            raise HooksError("managers.jail_conf of mobility.toml is empty: name the file")
        self._path = loaded.managers.jail_conf
        self._jails_d = loaded.paths.jails_d
        self._allowed = loaded.host.allowed
        self._terms = loaded.terms
        self._hook = hook
        # a file of a thousand jails is looked at for each of them
        self._texts: dict[Path, tuple[Signature, str]] = {}
        self._parsed: dict[Path, list[Conf]] = {}

    def jails(self) -> list[str]:
        """Return the names of all jails that have a block in jail.conf, what it includes, or a file of their own."""
        found: dict[str, None] = {}
        main = self._look("(any)", self._path)
        if main is not None:
            found.update(dict.fromkeys(main.names()))
        for name, path in single_files(self._path):
            tree = self._look(name, path)
            if tree is not None and tree.blocks(name):
                found[name] = None
        return [name for name in found if fit(name)]

    def state(self, name: str) -> State:
        """Tell what is installed for one jail: what jail(8) would run, whoever wrote it, and from where."""
        site = self._site(name)
        wanted = self._wanted(site.jail)
        there = [phase for phase in Phase if self._command(phase, site.jail) in site.jail.values(_parameter(phase))]
        others = list(self._others(site))
        moved = interfaces(site.jail) if site.jail.vnet else []
        installed = None
        if there or others or _cleaned(site.conf, site.block) != site.conf.text:
            installed = Way.ADOPT if moved else Way.REPLACE
        missing = [phase for phase in wanted if phase not in there]
        return State(
            name,
            installed,
            installed is not None and not missing and not others,
            site.conf.path,
            "; ".join(self._notes(site, installed, missing, others, moved)),
        )

    def install(self, name: str, way: Way) -> list[Change]:
        """Return the change that puts our lines into the jail's block."""
        site = self._site(name)
        clean = self._site(name, _cleaned(site.conf, site.block))
        for where in self._others(clean):
            raise HooksError(f"jail {name}: {where}: take it out first, then run the command again")
        if way is Way.ADOPT and clean.jail.vnet:
            self._judge_adopting(clean)
        text = self._put(clean, way)
        self._prove(site, clean, self._site(name, text), way)
        changes = _change(name, site, text)
        if changes and clean.jail.vnet and way is Way.REPLACE and (without := self._without_addresses(clean.jail)):
            raise HooksError(f"jail {name}: with our hooks it could not start any more: {without}")
        return changes

    def remove(self, name: str) -> list[Change]:
        """Return the change that takes our lines out of the jail's block, and brings back what made way."""
        site = self._site(name)
        text = _cleaned(site.conf, site.block)
        if text == site.conf.text and (where := _by_hand(site)):
            raise HooksError(f"jail {name}: its hooks were {where}: take them out there")
        return _change(name, site, text)

    def _look(self, name: str, path: Path, other: tuple[Path, str] | None = None) -> Tree | None:
        """Return what a file holds, None where it is not there; `other` is a file as if it had another text."""
        if not file_signature(path):
            return None

        def read(one: Path) -> str:
            if other is not None and one == other[0]:
                return other[1]
            return self._read(name, one)

        try:
            return jailconf.load(path, read, self._parse)
        except jailconf.ConfError as error:
            raise HooksError(f"jail {name}: {error}; mend it first, nothing was changed") from error

    def _read(self, name: str, path: Path) -> str:
        now = file_signature(path)
        seen, text = self._texts.get(path, ((), ""))
        if not now or now != seen:
            content = edit.read(name, path)
            if content is None:
                raise HooksError(f"jail {name}: {path} is included, and is not there: mend that first")
            text = decode(content)
            self._texts[path] = now, text
        return text

    def _parse(self, text: str, path: Path) -> Conf:
        known = self._parsed.setdefault(path, [])
        found = next((conf for conf in known if conf.text == text), None)
        if found is None:
            found = jailconf.parse(text, path)
            # two: as it is, and as it would be
            self._parsed[path] = [found, *known[:1]]
        return found

    def _site(self, name: str, text: str | None = None) -> _Site:
        """Find a jail; with `text` as if the file with its block held that."""
        found = choose(self._path, name, lambda path: self._look(name, path))
        if found is None:
            places = ", ".join(map(str, (self._path, *roots(self._path, name))))
            raise HooksError(f"jail {name}: none of {places} has a block of this name: is it spelled as there?")
        root, tree = found
        if text is not None:
            tree = self._look(name, root, (tree.blocks(name)[0].conf.path, text)) or tree
        blocks = tree.blocks(name)
        conf, block = blocks[0].conf, blocks[0].section
        if len(blocks) > 1:
            raise HooksError(f"jail {name}: {conf.path} has {len(blocks)} blocks of this name: leave one of them")
        jail = tree.jail(name)
        if jail is None or jail.problems:
            why = "; ".join(jail.problems if jail else ())
            raise HooksError(f"jail {name}: {conf.path}: jail(8) would not start it: {why}: mend it first")
        return _Site(conf, block, tree, jail)

    def _wanted(self, jail: Jail, way: Way | None = None) -> tuple[Phase, ...]:
        adopts = bool(interfaces(jail)) if way is None else way is Way.ADOPT
        return LIFE if jail.vnet and not adopts else FROM_OUTSIDE

    def _command(self, phase: Phase, jail: Jail) -> str:
        return self._hook.command(phase, jail.name)

    def _others(self, site: _Site) -> Iterable[str]:
        """Say of each line that calls a hook, but not as we would: where it stands, and that it does."""
        ours = {self._command(phase, site.jail) for phase in Phase}
        for phase in Phase:
            for command in site.jail.values(_parameter(phase)):
                if command not in ours and _HOOK.fullmatch(command):
                    yield f"{_parameter(phase)} calls another hook, or for another jail: {command}"

    def _notes(
        self, site: _Site, installed: Way | None, missing: list[Phase], others: list[str], moved: list[str]
    ) -> Iterable[str]:
        if installed is not None and missing:
            yield f"not there: {', '.join(missing)}: install again"
        yield from others
        if installed is None:
            return
        if _cleaned(site.conf, site.block) == site.conf.text:
            yield _by_hand(site)
        for phase in Phase:
            commands = site.jail.values(_parameter(phase))
            command = self._command(phase, site.jail)
            if command in commands and commands[0 if phase is Phase.PRESTOP else -1] != command:
                place, stray = ("before", commands[0]) if phase is Phase.PRESTOP else ("behind", commands[-1])
                yield f"{_parameter(phase)}: {stray!r} of another section runs {place} ours"
        if without := self._without_addresses(site.jail):
            yield without
        if not site.jail.vnet:
            return
        for conf, statement, command in _commands(site, lambda command: bool(_MAKES_INTERFACES.search(command))):
            yield f"{statement.name} makes interfaces itself ({conf.path} line {conf.line(statement.start)}): {command}"
        if installed is Way.ADOPT:
            yield from (
                f"{INTERFACE} {inner} can not be adopted: its other end is not known by its name"
                for inner in moved
                if other_end(inner) is None
            )

    def _without_addresses(self, jail: Jail) -> str:
        """Say that nobody grants a jail an address, and what to do; "" where somebody does."""
        if not jail.vnet and (jail.values("ip4.addr") or jail.values("ip6.addr")):
            return ""
        folder = Folder(self._jails_d, self._allowed, self._terms)
        folder.refresh_one(jail.name)
        if problems := folder.problems.get(jail.name):
            return str(problems[0])
        entry = folder.entries.get(jail.name)
        if entry is not None and entry.addresses:
            return ""
        return (
            f"nobody grants it an address: write {self._jails_d / jail.name}{SUFFIX}: "
            'addresses = ["198.51.100.7/32", "2001:db8:7::7/128"]'
        )

    def _judge_adopting(self, site: _Site) -> None:
        moved = interfaces(site.jail)
        if not moved:
            raise HooksError(f"jail {site.jail.name}: it has no {INTERFACE} to adopt: leave --adopt away")
        if all(other_end(inner) is None for inner in moved):
            raise HooksError(
                f"jail {site.jail.name}: {INTERFACE} {', '.join(moved)} can not be adopted: its other end is not known by "
                "its name: name it epairNb (epair(4)) or eNb_NAME (jib), or leave --adopt away"
            )

    def _put(self, site: _Site, way: Way) -> str:
        """Return the file's text with our lines in the jail's block."""
        text, block = site.conf.text, site.block
        edits = _Edits(text, _indent(site))
        last: list[str] = []
        for phase in self._wanted(site.jail, way):
            if self._command(phase, site.jail) in site.jail.values(_parameter(phase)):
                continue  # by the user's own hand
            own = [one for one in block.statements if equal_names(one.name, _parameter(phase))]
            if phase is not Phase.PRESTOP or not own:
                last.append(self._line(phase, "+=", site.jail))
                continue
            # what stands before the last one that discards is thrown away already
            discarding = next((one for one in reversed(own) if one.discards), None)
            if discarding is None:
                edits.insert(own[0].start, [self._line(phase, "+=", site.jail)])
            elif not discarding.values:
                edits.insert(discarding.end, [self._line(phase, "+=", site.jail)])
            else:
                edits.insert(discarding.start, [self._line(phase, "=", site.jail)])
                was = discarding.operator
                end = discarding.operator_at + len(was)
                edits.replace(discarding.operator_at, end, f"/*mobility{was}*/+=")
        if way is Way.REPLACE and site.jail.vnet and interfaces(site.jail):
            own = [one for one in block.statements if equal_names(one.name, INTERFACE)]
            for one in own:
                edits.set_aside(one)
            if _inherits(site, own):
                # a parameter without values runs nothing (command.c, next_command)
                last.append(f"{INTERFACE}; {MARK}")
        edits.insert(block.closed, last)
        return edits.done()

    def _line(self, phase: Phase, operator: str, jail: Jail) -> str:
        # a numbered jail has no parameter "name"
        command = self._hook.command(phase, jail.name if jail.numbered else "${name}")
        return f'{_parameter(phase)} {operator} "{command}"; {MARK}'

    def _prove(self, now: _Site, before: _Site, after: _Site, way: Way) -> None:
        """Hold what jail(8) would read against what is wanted.

        Raises HooksError where something undoes our lines, and says where that stands `now`.
        """
        name = before.jail.name
        for phase in self._wanted(before.jail, way):
            parameter, command = _parameter(phase), self._command(phase, before.jail)
            if command not in after.jail.values(parameter):
                raise HooksError(f"jail {name}: {_later(now, parameter)}: write it with += there, or above {name}")
            old, new = ([one for one in each.jail.values(parameter) if one != command] for each in (before, after))
            if old != new:
                raise HooksError(f"jail {name}: {_later(now, parameter)}: {name}'s own commands would change")
        if way is Way.REPLACE and after.jail.vnet and interfaces(after.jail):
            raise HooksError(f"jail {name}: {_later(now, INTERFACE)}: it can not give way there: move it above {name}")


class _Edits:
    """Changes of a text, gathered by where they are and made at once."""

    def __init__(self, text: str, indent: str) -> None:
        self._text = text
        self._indent = indent
        self._edits: list[tuple[int, int, str]] = []

    def replace(self, start: int, end: int, new: str) -> None:
        self._edits.append((start, end, new))

    def insert(self, at: int, lines: list[str]) -> None:
        """Put whole lines before what stands at `at`; if that does not begin its line, the line is broken there."""
        if not lines:
            return
        begin, indent = self._begin(at)
        body = "".join(f"{indent}{line}\n" for line in lines)
        if begin is None:
            self.replace(at, at, f" {BREAK}\n{body}")
        else:
            self.replace(begin, begin, body)

    def set_aside(self, statement: Statement) -> None:
        """Turn a statement into comments; what else stands in its lines stays what it is."""
        begin, _ = self._begin(statement.start)
        if begin is None:
            begin = statement.start
            self.replace(begin, begin, f" {BREAK}\n{ASIDE}")
        else:
            self.replace(begin, begin, ASIDE)
        for newline in re.finditer("\n", self._text[begin : statement.end]):
            self.replace(begin + newline.end(), begin + newline.end(), ASIDE)
        rest = self._text[statement.end :].partition("\n")[0].strip(" \t\r")
        if rest and not rest.startswith(("#", "//")):
            self.replace(statement.end, statement.end, f" {BREAK}\n")

    def done(self) -> str:
        """Return the text with all changes made; those at one place in the order in which they were asked for."""
        parts, at = [], 0
        for start, end, new in sorted(self._edits, key=lambda edit: edit[0]):
            parts += [self._text[at:start], new]
            at = end
        return "".join([*parts, self._text[at:]])

    def _begin(self, at: int) -> tuple[int | None, str]:
        """Return where the line of `at` begins, None if something stands before `at` in it; and how ours are indented."""
        begin = self._text.rfind("\n", 0, at) + 1
        before = self._text[begin:at]
        if before.strip(" \t"):
            return None, self._indent
        return begin, self._indent if self._text[at : at + 1] == "}" else before


def _parameter(phase: Phase) -> str:
    return f"exec.{phase}"


def _change(name: str, site: _Site, text: str) -> list[Change]:
    if text == site.conf.text:
        return []
    return [Change(name, site.conf.path, encode(site.conf.text), encode(text))]


def _indent(site: _Site) -> str:
    """Return what stands before the last statement of a block that begins its line."""
    text = site.conf.text
    for statement in reversed(site.block.statements):
        before = text[text.rfind("\n", 0, statement.start) + 1 : statement.start]
        if not before.strip(" \t"):
            return before
    return _INDENT


def _inherits(site: _Site, own: list[Statement]) -> bool:
    """Tell whether a jail would have interfaces without the statements of its own block."""
    return any(
        equal_names(statement.name, INTERFACE) and statement not in own
        for place in site.tree.concerning(site.jail.name)
        for statement in place.section.statements
    )


def _later(site: _Site, parameter: str) -> str:
    """Say which statement behind a jail's block undoes what stands in it."""
    places = site.tree.concerning(site.jail.name)
    own = next(at for at, place in enumerate(places) if place.section is site.block)
    for place in reversed(places[own + 1 :]):
        for statement in reversed(place.section.statements):
            if equal_names(statement.name, parameter):
                return f"{place.conf.path} line {place.conf.line(statement.start)} sets {parameter} again for all jails"
    return f"{site.conf.path}: something sets {parameter} again"


def _commands(site: _Site, wanted: Callable[[str], bool]) -> Iterable[tuple[Conf, Statement, str]]:
    """Yield the exec.* commands of a jail that are wanted, as written, and where they stand."""
    for place in site.tree.concerning(site.jail.name):
        for statement in place.section.statements:
            if statement.name.startswith("exec."):
                for value in statement.values:
                    command = "".join(
                        f"${{{piece}}}" if isinstance(piece, jailconf.Variable) else piece for piece in value
                    )
                    if wanted(command):
                        yield place.conf, statement, command


def _by_hand(site: _Site) -> str:
    """Say where the first line stands that calls a hook; "" where none does."""
    for conf, statement, _ in _commands(site, lambda command: _HOOK.fullmatch(command) is not None):
        return f"written by hand ({conf.path} line {conf.line(statement.start)})"
    return ""


def _cleaned(conf: Conf, block: Section) -> str:
    """Return a file's text without our marks in one block: what `_put` made of it, undone.

    Raises HooksError for a line that bears our mark and is none of ours.
    """
    text, edits = conf.text, _Edits(conf.text, "")
    for start, end in conf.comments:
        comment = text[start:end]
        if not block.opened <= start < block.closed:
            continue
        begin = text.rfind("\n", 0, start) + 1
        if was := _WAS.fullmatch(comment):
            if not text.startswith("+=", end):
                raise _marked(conf, start, comment)
            edits.replace(start, end + len("+="), was[1])
        elif comment.startswith(ASIDE):
            edits.replace(start, start + len(ASIDE), "")
        elif comment == MARK:
            if not _OUR_LINE.fullmatch(text[begin:start]):
                raise _marked(conf, start, comment)
            edits.replace(begin, end + 1, "")
        if comment.endswith(BREAK):
            edits.replace(end - len(BREAK) - 1, end + 1, "")
    return edits.done()


def _marked(conf: Conf, at: int, mark: str) -> HooksError:
    return HooksError(
        f"{conf.path} line {conf.line(at)} bears our mark {mark!r}, and is not as we wrote it: take the mark away, or the line"
    )
