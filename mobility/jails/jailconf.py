"""jail.conf(5), without loss: what stands where, so that an editor changes nothing else, and what it means for a jail.

After FreeBSD's usr.sbin/jail: jaillex.l (tokens, text2lval), jailparse.y (grammar), config.c (load_config, add_param,
equalopts, wild_jail_name, wild_jail_match).

`.include "FILE";` (FreeBSD 14; jail.conf(5) of June 2023, "Includes") is followed: its text is literal, and a pattern of
glob(3) may match nothing. Refused is what the manual page leaves open: a path that is not absolute, an include inside a
jail's block. Older releases take it for a parameter that their kernel does not know, so none of their jails has one.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

INCLUDE = ".include"
MAX_DEPTH = 8
"""How deep files may include each other."""
EVERY = "*"
"""The name that jail(8) gives to what stands outside of all blocks (jailparse.y, conf)."""

_BLANK = re.compile(r"[ \t\r\n]+")
_COMMENT = re.compile(r"#.*|//.*|/\*(?s:.*?)\*/")
_WORD = re.compile(r"[A-Za-z0-9_!%&()\-.:<>?@\[\]^`|~]+")
_ESCAPE = re.compile(r"\\(?:[0-7]{1,3}|x[0-9A-Fa-f]{1,2}|(?s:.))")
_QUOTED = {"'": re.compile(r"'((?:[^'\\]|\\(?s:.))*)'"), '"': re.compile(r'"((?:[^"\\]|\\(?s:.))*)"')}
_VARIABLE = re.compile(r"\$(?:([A-Za-z_][A-Za-z_0-9]*)|\{((?:[^\n{}]|\\(?s:.))*)\})")
_VARIABLE_IN_QUOTES = re.compile(r'\$(?:([A-Za-z_][A-Za-z_0-9]*)|\{((?:[^\n"{}]|\\(?s:.))*)\})')
_LITERAL = "$*+/\\"
_PUNCTUATION = ",;={}"
_CONTROL = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\n": "", "x": "\0"}
_NUMBER = re.compile(r"\s*[-+]?[0-9]+", re.ASCII)


class ConfError(ValueError):
    """The file is no jail.conf that this program can use; the message says where and why."""


class Variable(str):
    """A variable's name, where a value holds `$name` or `${name}`."""

    __slots__ = ()


Value = tuple[str | Variable, ...]
"""One value: its pieces of text and variables, in order."""


@dataclass(frozen=True, slots=True)
class Statement:
    """`name;`, `name value, ...;`, `name = value, ...;` or `name += value, ...;`, and where it stands in the file's text.

    `variable`: it is `$name`. `operator` is "", "=" or "+=" and begins at `operator_at` (for "": where the name ends).
    `start` is the name's first character, `end` the one behind the ";".
    """

    name: str
    operator: str
    values: tuple[Value, ...]
    variable: bool
    start: int
    operator_at: int
    end: int

    @property
    def discards(self) -> bool:
        """Tell whether it throws away what the parameter was before (config.c, add_param)."""
        return self.operator != "+=" or not self.values


@dataclass(frozen=True, slots=True)
class Section:
    """A block `name { ... }`, or the statements between two blocks (`block` is False, the name is EVERY).

    `opened` is the character behind its "{", `closed` that of its "}"; without a block both are where it begins and ends.
    """

    name: str
    statements: tuple[Statement, ...]
    block: bool
    opened: int
    closed: int


@dataclass(frozen=True, slots=True)
class Include:
    """`.include "pattern", ...;`."""

    patterns: tuple[str, ...]
    start: int


@dataclass(frozen=True, slots=True)
class Conf:
    """One file: its text, what stands in it in order, and from where to where each comment goes."""

    path: Path
    text: str
    items: tuple[Section | Include, ...]
    comments: tuple[tuple[int, int], ...]

    def line(self, offset: int) -> int:
        """Return the number of the line in which a character stands, counted from 1."""
        return self.text.count("\n", 0, offset) + 1


@dataclass(frozen=True, slots=True)
class _Token:
    """`kind` is "text", "variable", "end" or the punctuation itself; `joined`: it goes on with the string before it."""

    kind: str
    text: str
    joined: bool
    start: int
    end: int


def parse(text: str, path: Path) -> Conf:
    """Return what stands in a file; `path` is for messages. Raises ConfError."""
    return _Parser(text, path).conf()


def decode(content: bytes) -> str:
    """Return a file's text; `encode` gives its bytes again, whatever they are."""
    return content.decode("utf-8", "surrogateescape")


def encode(text: str) -> bytes:
    """Return the bytes of a text from `decode`."""
    return text.encode("utf-8", "surrogateescape")


def equal_names(one: str, other: str) -> bool:
    """Tell whether two names mean one parameter: "allow.noraw_sockets" is "allow.raw_sockets" (config.c, equalopts)."""
    if one == other or one == f"no{other}" or other == f"no{one}":
        return True
    head, dot, one_rest = one.partition(".")
    other_head, other_dot, other_rest = other.partition(".")
    if not (dot and other_dot and head == other_head):
        return False
    return equal_names(one_rest, other_rest)


def is_wildcard(name: str) -> bool:
    """Tell whether a block stands for several jails: one part of its name is "*" (config.c, wild_jail_name)."""
    return "*" in name.split(".")


def wildcard_matches(name: str, wildcard: str) -> bool:
    """Tell whether a wildcard means a jail: a "*" is one part of its name, the last one or more (wild_jail_match)."""
    while "." in name and "." in wildcard:
        part, _, name = name.partition(".")
        pattern, _, wildcard = wildcard.partition(".")
        if pattern not in (part, "*"):
            return False
    return wildcard in (name, "*")


class _Parser:
    """Tokens as jaillex.l cuts them, the grammar of jailparse.y."""

    def __init__(self, text: str, path: Path) -> None:
        self._text = text
        self._path = path
        self._comments: list[tuple[int, int]] = []
        self._tokens = self._cut()
        self._token = next(self._tokens)

    def conf(self) -> Conf:
        items: list[Section | Include] = []
        loose: list[Statement] = []

        def end_loose() -> None:
            if loose:
                items.append(Section(EVERY, tuple(loose), False, loose[0].start, loose[-1].end))
                loose.clear()

        while self._token.kind != "end":
            if self._token.kind == ";":
                self._next()
                continue
            name = self._name()
            if self._token.kind == "{" and name.kind == "text":
                end_loose()
                items.append(self._block(name))
                continue
            statement = self._statement(name)
            include = self._include(statement)
            if include is None:
                loose.append(statement)
            else:
                end_loose()
                items.append(include)
        end_loose()
        return Conf(self._path, self._text, tuple(items), tuple(self._comments))

    def _block(self, name: _Token) -> Section:
        opened = self._next().end
        found = []
        while self._token.kind != "}":
            if self._token.kind == ";":
                self._next()
                continue
            statement = self._statement(self._name())
            if self._include(statement):
                raise self._error(f"{INCLUDE} inside a jail's block is not handled: write it outside", statement.start)
            found.append(statement)
        return Section(name.text, tuple(found), True, opened, self._next().start)

    def _include(self, statement: Statement) -> Include | None:
        if statement.name != INCLUDE or statement.variable or statement.operator or not statement.values:
            return None
        patterns = []
        for value in statement.values:
            pattern = "".join(value)
            if any(isinstance(piece, Variable) for piece in value) or not pattern.startswith("/"):
                raise self._error(f"{INCLUDE} is handled with an absolute path without variables only", statement.start)
            patterns.append(pattern)
        return Include(tuple(patterns), statement.start)

    def _statement(self, name: _Token) -> Statement:
        operator, operator_at = "", name.end
        values: list[Value] = []
        if self._token.kind in ("=", "+="):
            operator, operator_at = self._token.kind, self._token.start
            self._next()
            values.append(self._value())
        elif self._token.kind in ("text", "variable"):
            values.append(self._value())
        while values and self._token.kind == ",":
            self._next()
            values.append(self._value())
        if self._token.kind != ";":
            raise self._unexpected()
        end = self._next().end
        return Statement(name.text, operator, tuple(values), name.kind == "variable", name.start, operator_at, end)

    def _name(self) -> _Token:
        if self._token.kind not in ("text", "variable") or self._token.joined:
            raise self._unexpected()
        return self._next()

    def _value(self) -> Value:
        pieces = [self._piece(self._name())]
        while self._token.kind in ("text", "variable") and self._token.joined:
            pieces.append(self._piece(self._next()))
        return tuple(pieces)

    @staticmethod
    def _piece(token: _Token) -> str | Variable:
        return Variable(token.text) if token.kind == "variable" else token.text

    def _next(self) -> _Token:
        token = self._token
        if token.kind != "end":
            self._token = next(self._tokens)
        return token

    def _error(self, what: str, at: int) -> ConfError:
        return ConfError(f"{self._path} line {self._text.count(chr(10), 0, at) + 1}: {what}")

    def _unexpected(self) -> ConfError:
        token = self._token
        if token.kind == "end":
            return self._error("the file ends before its time: is a ';' or a '}' missing?", token.start)
        return self._error(f"{token.text!r} is not expected here: is a ';' missing before it?", token.start)

    def _cut(self) -> Iterator[_Token]:
        text, at, joined = self._text, 0, False
        if "\0" in text:
            raise self._error("a NUL byte is not handled", text.index("\0"))
        while at < len(text):
            if match := _BLANK.match(text, at):
                at, joined = match.end(), False
            elif match := _COMMENT.match(text, at):
                self._comments.append(match.span())
                at, joined = match.end(), False
            elif text.startswith("+=", at) or text[at] in _PUNCTUATION:
                kind = "+=" if text[at] == "+" else text[at]
                yield _Token(kind, kind, False, at, at + len(kind))
                at, joined = at + len(kind), False
            else:
                pieces, end = self._string(at)
                for kind, piece in pieces:
                    yield _Token(kind, piece, joined, at, end)
                    joined = True
                at = end
        yield _Token("end", "", False, at, at)

    def _string(self, at: int) -> tuple[list[tuple[str, str]], int]:
        """Return the pieces of the string at `at`, a quoted one as a whole, and where it ends."""
        text, character = self._text, self._text[at]
        if match := _WORD.match(text, at):
            return [("text", match.group())], match.end()
        if character in _QUOTED:
            match = _QUOTED[character].match(text, at)
            if match is None:
                raise self._error(f"a string begins with {character} and does not end", at)
            body = match.group(1)
            return [("text", _unescaped(body))] if character == "'" else self._in_quotes(body, at), match.end()
        if match := _VARIABLE.match(text, at):
            return [("variable", _unescaped(match.group(1) or match.group(2) or ""))], match.end()
        if text.startswith("${", at):
            raise self._error("a variable begins with ${ and does not end", at)
        if text.startswith("/*", at):
            raise self._error("a comment begins with /* and does not end", at)
        if match := _ESCAPE.match(text, at):
            return [("text", _unescaped(match.group()))], match.end()
        if character in _LITERAL:
            return [("text", character)], at + 1
        raise self._error(f"{character!r} must stand in quotes", at)

    def _in_quotes(self, body: str, at: int) -> list[tuple[str, str]]:
        """Return the pieces of what stands between double quotes; nothing at all is one empty piece."""
        pieces: list[tuple[str, str]] = []
        begun = here = 0
        while here < len(body):
            if body[here] != "$":
                here += 2 if body[here] == "\\" else 1
                continue
            match = _VARIABLE_IN_QUOTES.match(body, here)
            if match is None:
                if body.startswith("${", here):
                    raise self._error("a variable begins with ${ and does not end", at)
                here += 1
                continue
            if begun < here:
                pieces.append(("text", _unescaped(body[begun:here])))
            pieces.append(("variable", _unescaped(match.group(1) or match.group(2) or "")))
            begun = here = match.end()
        if begun < len(body) or not pieces:
            pieces.append(("text", _unescaped(body[begun:])))
        return pieces


def _unescaped(text: str) -> str:
    """Replace backslash escapes (jaillex.l, text2lval)."""

    def character(match: re.Match[str]) -> str:
        body = match.group()[1:]
        if body[0] in "01234567":
            return chr(int(body, 8) & 0xFF)
        if body[0] == "x" and len(body) > 1:
            return chr(int(body[1:], 16))
        return _CONTROL.get(body, body)

    return _ESCAPE.sub(character, text)


@dataclass(slots=True)
class _Parameter:
    name: str
    variable: bool
    values: list[Value]


@dataclass(slots=True)
class Jail:
    """One jail's parameters, as jail(8) puts them together from every section that means it.

    With any of `problems` jail(8) does not start it.
    """

    name: str
    problems: list[str] = field(default_factory=list)
    _parameters: list[_Parameter] = field(default_factory=list)

    @property
    def numbered(self) -> bool:
        """Tell whether its name is a number, and thus its jid: it has no parameter "name" (config.c, load_config)."""
        match = _NUMBER.fullmatch(self.name)
        return match is not None and int(match.group()) != 0

    def has(self, name: str) -> bool:
        """Tell whether a parameter is there, with or without "no" before it."""
        return self._find(name) is not None

    def values(self, name: str) -> list[str]:
        """Return all values of a parameter or a variable; none where it is not there."""
        found = self._find(name)
        return ["".join(value) for value in found.values] if found else []

    def last(self, name: str) -> str | None:
        """Return the value that counts of a parameter that has only one (config.c, string_param)."""
        values = self.values(name)
        return values[-1] if values else None

    @property
    def vnet(self) -> bool:
        """Tell whether it has a network stack of its own: `vnet` or `vnet = new` (jail(8), "vnet")."""
        found = self._find("vnet")
        return found is not None and found.name == "vnet" and self.last("vnet") in (None, "new")

    def _find(self, name: str) -> _Parameter | None:
        return next((one for one in self._parameters if equal_names(one.name, name)), None)

    def _add(self, given: Statement) -> None:
        """Take a statement in: it takes the place of an earlier one, or with "+=" goes on with it (config.c, add_param)."""
        old = self._find(given.name)
        if old is None:
            self._parameters.append(_Parameter(given.name, given.variable, list(given.values)))
        elif old.variable != given.variable:
            self.problems.append(f"${given.name} is a variable and a parameter")
        elif old.name in ("jid", "name"):
            self.problems.append(f"its {old.name} is set again")
        else:
            old.name = given.name
            old.values = list(given.values) if given.discards else [*old.values, *given.values]

    def _substitute(self) -> None:
        """Put values in the place of variables; what can not be becomes a problem (config.c, load_config)."""
        done: set[int] = set()

        def resolve(parameter: _Parameter, path: tuple[str, ...]) -> None:
            if id(parameter) in done:
                return
            done.add(id(parameter))
            parameter.values = [new for value in parameter.values for new in expand(parameter, value, path)]

        def expand(parameter: _Parameter, value: Value, path: tuple[str, ...]) -> list[Value]:
            literal = "".join(piece for piece in value if not isinstance(piece, Variable))
            texts = [""]
            for piece in value:
                if not isinstance(piece, Variable):
                    texts[-1] += piece
                    continue
                source = next((one for one in self._parameters if one.name == piece), None)
                if source is None or not source.values:
                    self.problems.append(f"{parameter.name}: there is no variable {str(piece)!r}")
                    continue
                if source.name in path:
                    self.problems.append(f"{parameter.name}: variable {str(piece)!r} comes back to itself")
                    continue
                resolve(source, (*path, source.name))
                several = ["".join(each) for each in source.values]
                if len(several) > 1 and (literal or len(value) > 1):
                    self.problems.append(f"{parameter.name}: {str(piece)!r} is a list, and no part of a value")
                texts[-1] += several[0]
                texts += several[1:]
            return [(text,) for text in texts]

        for parameter in list(self._parameters):
            resolve(parameter, (parameter.name,))


@dataclass(frozen=True, slots=True)
class Place:
    """A section and the file in which it stands."""

    conf: Conf
    section: Section


class Tree:
    """A jail.conf and all that it includes, in the order in which jail(8) reads it.

    `files` are the files; `watched` are they and the folders in which a pattern may find new ones.
    """

    def __init__(self, files: tuple[Conf, ...], places: tuple[Place, ...], folders: tuple[Path, ...]) -> None:
        self.files = files
        self.watched = (*(conf.path for conf in files), *folders)
        self._folders = folders
        self._including = {conf.path for conf in files if any(isinstance(item, Include) for item in conf.items)}
        self._wild: list[tuple[int, Place]] = []
        self._own: dict[str, list[tuple[int, Place]]] = {}
        for number, place in enumerate(places):
            name = place.section.name
            if is_wildcard(name):
                self._wild.append((number, place))
            else:
                self._own.setdefault(name, []).append((number, place))

    def names(self) -> list[str]:
        """Return the names of the jails that have a block, in the order of the first one of each."""
        return list(self._own)

    def blocks(self, name: str) -> list[Place]:
        """Return a jail's own blocks: one, where all is well."""
        return [place for _, place in self._own.get(name, ())]

    def concerning(self, name: str) -> list[Place]:
        """Return the sections that make up a jail, in the order in which they count: its own and all wildcards."""
        own = self._own.get(name, ())[:1]
        wild = ((number, place) for number, place in self._wild if wildcard_matches(name, place.section.name))
        return [place for _, place in sorted([*own, *wild], key=lambda numbered: numbered[0])]

    def watched_for(self, name: str) -> tuple[Path, ...]:
        """Return the files and folders of which a change may change a jail."""
        files = {place.conf.path for place in self.concerning(name)} | self._including
        return (*(path for path in self.watched if path in files), *self._folders)

    def jail(self, name: str) -> Jail | None:
        """Return a jail's parameters, None where it has no block."""
        if name not in self._own:
            return None
        jail = Jail(name)
        jail._add(Statement("jid" if jail.numbered else "name", "=", ((name,),), False, 0, 0, 0))
        for place in self.concerning(name):
            for statement in place.section.statements:
                jail._add(statement)
        jail._substitute()
        return jail


def load(path: Path, read: Callable[[Path], str], parse: Callable[[str, Path], Conf] = parse) -> Tree:
    """Read a jail.conf and what it includes; `read` returns one file's text, `parse` may remember what it has read before.

    Raises ConfError, and what `read` raises.
    """
    files: list[Conf] = []
    places: list[Place] = []
    folders: dict[Path, None] = {}

    def take(path: Path, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise ConfError(f"{path}: files include each other more than {MAX_DEPTH} deep")
        conf = parse(read(path), path)
        files.append(conf)
        for item in conf.items:
            if isinstance(item, Section):
                places.append(Place(conf, item))
                continue
            for pattern in item.patterns:
                if not glob.has_magic(pattern):
                    take(Path(pattern), depth + 1)
                    continue
                folders.update(dict.fromkeys(_matching(str(Path(pattern).parent))))
                for found in _matching(pattern):
                    take(found, depth + 1)

    take(path, 1)
    return Tree(tuple(files), tuple(places), tuple(folders))


def _matching(pattern: str) -> list[Path]:
    """Return what a pattern of glob(3) matches, in order; names that begin with "." are matched by one of their own only."""
    return [Path(found) for found in sorted(glob.glob(pattern))]  # noqa: PTH207  # Path.glob matches hidden files too
