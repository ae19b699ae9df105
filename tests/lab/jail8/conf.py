"""jail.conf(5): from the text to each jail's parameters. Pure, but for files that are included.

Follows jaillex.l, jailparse.y and config.c in FreeBSD 13's usr.sbin/jail; `.include` as in FreeBSD 14's config.c.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

#: Parameters that jail(8) itself acts on (config.c, PF_INTERNAL); all others go to the kernel.
INTERNAL = frozenset(
    {
        "allow.dying",
        "command",
        "depend",
        "exec.clean",
        "exec.consolelog",
        "exec.created",
        "exec.fib",
        "exec.jail_user",
        "exec.poststart",
        "exec.poststop",
        "exec.prepare",
        "exec.prestart",
        "exec.prestop",
        "exec.release",
        "exec.start",
        "exec.stop",
        "exec.system_jail_user",
        "exec.system_user",
        "exec.timeout",
        "interface",
        "ip_hostname",
        "mount",
        "mount.devfs",
        "mount.fdescfs",
        "mount.fstab",
        "mount.procfs",
        "stop.timeout",
        "vnet.interface",
    }
)
#: Of these, the ones whose value must be a boolean or an integer (PF_BOOL, PF_INT).
BOOLEANS = frozenset(
    {
        "allow.dying",
        "exec.clean",
        "exec.system_jail_user",
        "ip_hostname",
        "mount.devfs",
        "mount.fdescfs",
        "mount.procfs",
    }
)
INTEGERS = frozenset({"exec.fib", "exec.timeout", "stop.timeout"})
#: Kernel parameters that take a list; of any other only the last value counts (import_params).
LISTS = frozenset({"ip4.addr", "ip6.addr"})
#: Set by the jail's name in the file, and never again (PF_IMMUTABLE).
IMMUTABLE = frozenset({"jid", "name"})

MAX_INCLUDES = 32  # config.c, include_config()

_WORD = re.compile(r"[A-Za-z0-9_!%&()\-.:<>?@\[\]^`|~]+")
_ESCAPE = re.compile(r"\\(?:[0-7]{1,3}|x[0-9A-Fa-f]{1,2}|.|\n)")
_BLANK = re.compile(r"[ \t\r\n]+|#.*|//.*|/\*(?:[^*]|\*+[^*/])*\*+/")
_SINGLE = re.compile(r"'((?:[^'\\]|\\(?:.|\n))*)'")
_DOUBLE = re.compile(r'"((?:[^"\\]|\\(?:.|\n))*)"')
_VARIABLE = re.compile(r"\$([A-Za-z_][A-Za-z_0-9]*)")
_BRACED = re.compile(r"\$\{((?:[^\n{}]|\\(?:.|\n))*)\}")
_BRACED_IN_STRING = re.compile(r'\$\{((?:[^\n"{}]|\\(?:.|\n))*)\}')
_LITERAL = "$*+/\\"
_PUNCTUATION = ",;={}"
_CONTROL = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\n": ""}


class ConfError(Exception):
    """The file is no jail.conf; `messages` are jail(8)'s own, one for each mistake."""

    def __init__(self, messages: list[str]) -> None:
        super().__init__("\n".join(messages))
        self.messages = messages


class Variable(str):
    """A variable's name, where a value holds `$name` or `${name}`."""

    __slots__ = ()


#: One value: pieces of text and variables, in order.
Value = tuple[str | Variable, ...]


class Parameter:
    """One `name = value, ...;` as written. `append` is `+=`; `variable` is `$name = ...;`."""

    __slots__ = ("append", "name", "values", "variable")

    def __init__(self, name: str, values: list[Value], *, append: bool = False, variable: bool = False) -> None:
        self.name = name
        self.values = values
        self.append = append
        self.variable = variable

    def copy(self) -> Parameter:
        """Return one that may be changed without changing this one."""
        return Parameter(self.name, list(self.values), append=self.append, variable=self.variable)


class Section:
    """`name { ... }`, or what stands outside of all of them (its name is then "*")."""

    __slots__ = ("name", "parameters")

    def __init__(self, name: str, parameters: list[Parameter]) -> None:
        self.name = name
        self.parameters = parameters


class Jail:
    """One jail's parameters, all sections that concern it merged and all variables replaced.

    `problems` are jail(8)'s complaints about it: with any of these it is not started.
    """

    __slots__ = ("name", "parameters", "problems")

    def __init__(self, name: str | None) -> None:
        self.name = name
        self.parameters: list[Parameter] = []
        self.problems: list[str] = []

    def find(self, name: str) -> Parameter | None:
        """Return the parameter of this name, with or without "no" before it."""
        for parameter in self.parameters:
            if equal_options(parameter.name, name):
                return parameter
        return None

    def values(self, name: str) -> list[str]:
        """Return all values of a parameter as plain text; none if it is not there."""
        parameter = self.find(name)
        return ["".join(value) for value in parameter.values] if parameter else []

    def string(self, name: str) -> str | None:
        """Return the last value of a parameter (config.c, string_param)."""
        values = self.values(name)
        return values[-1] if values else None

    def true(self, name: str) -> bool:
        """Return whether a boolean parameter is there and true (config.c, bool_param)."""
        parameter = self.find(name)
        if parameter is None:
            return False
        value = self.string(name)
        yes = value is None or value.lower() == "true" or _leading_integer(value) != 0
        return yes != parameter.name.rpartition(".")[2].startswith("no")

    def integer(self, name: str) -> int | None:
        """Return a parameter's value as strtol(3) reads it, None if it is not there (config.c, int_param)."""
        value = self.string(name)
        return None if value is None else _leading_integer(value)

    def kernel(self) -> dict[str, str | None]:
        """Return what goes to jail_set(2): each kernel parameter and its value, or None (import_params)."""
        found: dict[str, str | None] = {}
        for parameter in self.parameters:
            if any(equal_options(parameter.name, name) for name in INTERNAL):
                continue
            values = self.values(parameter.name)
            wanted = [_bare(value) for value in values] if parameter.name in LISTS else values[-1:]
            found[parameter.name] = ",".join(wanted) if wanted else None
        return found

    def interface_addresses(self, name: str) -> list[tuple[str, str]]:
        """Return (interface, address with its mask, if any) for each value of ip4.addr or ip6.addr that jail(8) puts on
        an interface: those with `IF|` before them, and all of them where there is `interface` (check_intparams).
        """
        default = self.string("interface")
        found = []
        for value in self.values(name):
            interface, bar, address = value.partition("|")
            if bar:
                found.append((interface, address))
            elif default is not None:
                found.append((default, value))
        return found

    def add(self, given: Parameter) -> None:
        """Merge one parameter in: it replaces an earlier one, or with `append` adds to it (add_param)."""
        parameter = given.copy()
        old = self.find(parameter.name)
        if old is None:
            self.parameters.append(parameter)
        elif old.variable != parameter.variable:
            self.problems.append(f'variable "${parameter.name}" cannot have the same name as a parameter.')
        elif old.name in IMMUTABLE:
            self.problems.append(f'cannot redefine parameter "{old.name}".')
        else:
            old.name = parameter.name
            old.append |= parameter.append
            old.values = old.values + parameter.values if parameter.append and parameter.values else parameter.values

    def add_text(self, text: str) -> None:
        """Merge in `name=value` or `name` from the command line; the same name again appends."""
        name, equals, value = text.partition("=")
        self.add(Parameter(name, [(value,)] if equals else [], append=True))

    def judge(self) -> list[str]:
        """Return what is wrong with jail(8)'s own boolean and integer parameters (check_intparams)."""
        wrong = []
        for parameter in self.parameters:
            value = self.string(parameter.name)
            if value is None:
                continue
            if any(equal_options(parameter.name, name) for name in BOOLEANS):
                if value.lower() not in {"true", "false"} and not re.fullmatch(r"\s*[-+]?\d+|", value):
                    wrong.append(f'{parameter.name}: unknown boolean value "{value}"')
            elif parameter.name in INTEGERS and not re.fullmatch(r"\s*[-+]?\d+", value):
                wrong.append(f'{parameter.name}: non-integer value "{value}"')
        return wrong


def _bare(value: str) -> str:
    """An address without the interface before it and the mask and options after it."""
    _interface, bar, address = value.partition("|")
    return (address if bar else value).partition("/")[0].partition(" ")[0]


def _leading_integer(text: str) -> int:
    match = re.match(r"\s*([-+]?\d+)", text)
    return int(match.group(1)) if match else 0


def equal_options(one: str, other: str) -> bool:
    """Tell whether two names mean one parameter: "allow.noraw_sockets" is "allow.raw_sockets" (equalopts)."""
    if one == other or "no" + one == other or one == "no" + other:
        return True
    head, _, tail = one.rpartition(".")
    other_head, _, other_tail = other.rpartition(".")
    return head == other_head and (tail == "no" + other_tail or other_tail == "no" + tail)


def is_wildcard(name: str) -> bool:
    """Tell whether a section stands for several jails: a part of its name is "*" (wild_jail_name)."""
    return "*" in name.split(".")


def wildcard_matches(name: str, wildcard: str) -> bool:
    """Tell whether a wildcard section concerns a jail: "*" is one part of a name, a last "*" one or more."""
    parts, patterns = name.split("."), wildcard.split(".")
    while len(parts) > 1 and len(patterns) > 1:
        part, pattern = parts.pop(0), patterns.pop(0)
        if pattern not in {part, "*"}:
            return False
    rest, last = ".".join(parts), ".".join(patterns)
    return last in {rest, "*"}


def _unescape(text: str) -> str:
    """Replace backslash escapes as text2lval does."""

    def replace(match: re.Match[str]) -> str:
        body = match.group()[1:]
        if body[0] in "01234567":
            return chr(int(body, 8) & 0xFF)
        if body[0] == "x" and len(body) > 1:
            return chr(int(body[1:], 16))
        return _CONTROL.get(body, body)

    return _ESCAPE.sub(replace, text)


#: A token: its kind ("text", "variable", or the punctuation itself), its text, whether it continues the
#: string before it, the line it stands on.
Token = tuple[str, str, bool, int]


def _in_quotes(body: str) -> Iterator[tuple[str, str]]:
    """Split the inside of a double-quoted string into text and variables."""
    text, at = "", 0
    while at < len(body):
        match = (_VARIABLE.match(body, at) or _BRACED_IN_STRING.match(body, at)) if body[at] == "$" else None
        if match:
            if text:
                yield "text", _unescape(text)
            yield "variable", _unescape(match.group(1))
            text, at = "", match.end()
        else:
            step = 2 if body[at] == "\\" else 1
            text += body[at : at + step]
            at += step
    if text:
        yield "text", _unescape(text)


def tokens(text: str, file: str) -> Iterator[Token]:
    """Cut a jail.conf into tokens. Raises ConfError for unterminated comments, strings and variables."""
    at, line, joined = 0, 1, False

    def unterminated(what: str) -> ConfError:
        return ConfError([f"{file} line {line}: unterminated {what}"])

    while at < len(text):
        blank = _BLANK.match(text, at)
        if blank:
            joined = False
            line += blank.group().count("\n")
            at = blank.end()
            continue
        character = text[at]
        if text.startswith("+=", at) or character in _PUNCTUATION:
            kind = "+=" if character == "+" else character
            yield kind, kind, False, line
            joined = False
            at += len(kind)
            continue
        pieces: list[tuple[str, str]]
        match: re.Match[str] | None
        if match := _WORD.match(text, at):
            pieces = [("text", match.group())]
        elif character == "'":
            match = _SINGLE.match(text, at)
            if not match:
                raise unterminated("string")
            pieces = [("text", _unescape(match.group(1)))]
        elif character == '"':
            match = _DOUBLE.match(text, at)
            if not match:
                raise unterminated("string")
            # an empty string is a string too
            pieces = list(_in_quotes(match.group(1))) or [("text", "")]
        elif character == "$" and (match := _VARIABLE.match(text, at) or _BRACED.match(text, at)):
            pieces = [("variable", _unescape(match.group(1)))]
        elif text.startswith("${", at):
            raise unterminated("variable")
        elif text.startswith("/*", at):
            raise unterminated("comment")
        elif match := _ESCAPE.match(text, at):
            pieces = [("text", _unescape(match.group()))]
        elif character in _LITERAL:
            pieces = [("text", character)]
        else:
            raise ConfError([f"{file} line {line}: {character}: syntax error"])
        for kind, piece in pieces:
            yield kind, piece, joined, line
            joined = True
        end = match.end() if match else at + 1
        line += text.count("\n", at, end)
        at = end


class _Parser:
    """jailparse.y: sections and parameters from tokens. *depth*: how many files include this one, None: none may."""

    def __init__(self, text: str, file: str, depth: int | None) -> None:
        self._tokens = list(tokens(text, file))
        self._at = 0
        self._file = file
        self._depth = depth

    def _peek(self) -> Token:
        return self._tokens[self._at] if self._at < len(self._tokens) else ("", "", False, 0)

    def _next(self) -> Token:
        token = self._peek()
        self._at += 1
        return token

    def _fail(self, token: Token) -> ConfError:
        if not token[0]:
            return ConfError([f"{self._file}: unexpected EOF"])
        return ConfError([f"{self._file} line {token[3]}: {token[1]}: syntax error"])

    def sections(self) -> list[Section]:
        found: list[Section] = []
        while self._peek()[0]:
            if self._peek()[0] == ";":
                self._next()
                continue
            kind, name, _, _ = self._name()
            if self._peek()[0] == "{" and kind == "text":
                self._next()
                found.append(Section(name, self._body()))
                continue
            if name == ".include" and kind == "text" and self._depth is not None:
                found += self._include(self._depth)
                continue
            if not found or found[-1].name != "*":
                found.append(Section("*", []))
            found[-1].parameters.append(self._parameter(kind, name))
        return found

    def _include(self, depth: int) -> list[Section]:
        """`.include "PATTERN";` (include_config): each file in its place; a relative one is beside this file."""
        import glob  # costs every jail(8) what few need

        kind, pattern, _, _ = self._next()
        end = self._next()
        if kind != "text" or end[0] != ";":
            raise self._fail(end)
        if depth > MAX_INCLUDES:
            raise ConfError(["maximum include depth exceeded"])
        path = Path(self._file).parent / pattern
        found: list[Section] = []
        for name in sorted(glob.glob(str(path))) if glob.has_magic(pattern) else [str(path)]:  # noqa: PTH207
            try:
                text = Path(name).read_text(encoding="utf-8", errors="surrogateescape")
            except OSError as error:
                raise ConfError([f"{name}: {error.strerror}"]) from error
            found += _Parser(text, name, depth + 1).sections()
        return found

    def _name(self) -> Token:
        token = self._next()
        if token[0] not in {"text", "variable"} or token[2]:
            raise self._fail(token)
        return token

    def _body(self) -> list[Parameter]:
        found: list[Parameter] = []
        while self._peek()[0] != "}":
            if self._peek()[0] == ";":
                self._next()
                continue
            kind, name, _, _ = self._name()
            found.append(self._parameter(kind, name))
        self._next()
        return found

    def _parameter(self, kind: str, name: str) -> Parameter:
        parameter = Parameter(name, [], variable=kind == "variable")
        token = self._next()
        if token[0] in {"=", "+="}:
            parameter.append = token[0] == "+="
            token = self._next()
            if token[0] == ";":
                raise self._fail(token)
        while token[0] in {"text", "variable"}:
            if token[2]:
                raise self._fail(token)
            pieces: list[str | Variable] = [_piece(token)]
            while (token := self._next())[0] in {"text", "variable"} and token[2]:
                pieces.append(_piece(token))
            parameter.values.append(tuple(pieces))
            if token[0] != ",":
                break
            token = self._next()
            if token[0] not in {"text", "variable"}:
                raise self._fail(token)
        if token[0] != ";":
            raise self._fail(token)
        return parameter


def _piece(token: Token) -> str | Variable:
    return Variable(token[1]) if token[0] == "variable" else token[1]


def parse(text: str, file: str, *, includes: bool = False) -> list[Section]:
    """Return the sections of a jail.conf in their order. Raises ConfError; `file` stands in its messages.

    *includes*: `.include` is a statement, as since 14.0, and not an unknown parameter.
    """
    return _Parser(text, file, 0 if includes else None).sections()


def jails(sections: list[Section]) -> list[Jail]:
    """Merge the sections into jails: wildcards and own parameters in the file's order (load_config)."""
    found = []
    for index, section in enumerate(sections):
        if is_wildcard(section.name):
            continue
        jail = Jail(section.name)
        numeric = section.name.isdigit() and int(section.name) != 0
        jail.add(Parameter("jid" if numeric else "name", [(section.name,)]))
        for other_index, other in enumerate(sections):
            concerned = is_wildcard(other.name) and wildcard_matches(section.name, other.name)
            if other_index == index or concerned:
                for parameter in other.parameters:
                    jail.add(parameter)
        _substitute(jail)
        jail.parameters = [parameter for parameter in jail.parameters if not parameter.variable]
        found.append(jail)
    return found


class _BadError(Exception):
    """A variable that can not be replaced."""


def _substitute(jail: Jail) -> None:
    """Replace the variables in all values of a jail. What can not be replaced becomes one of its problems."""
    done: set[str] = set()
    failed: set[str] = set()

    def resolve(parameter: Parameter, path: tuple[str, ...]) -> None:
        if parameter.name in done:
            return
        if parameter.name in failed:
            raise _BadError
        try:
            parameter.values = [value for given in parameter.values for value in expand(parameter, given, path)]
        except _BadError:
            failed.add(parameter.name)
            raise
        done.add(parameter.name)

    def expand(parameter: Parameter, given: Value, path: tuple[str, ...]) -> list[Value]:
        texts = [""]
        for piece in given:
            if not isinstance(piece, Variable):
                texts[-1] += piece
                continue
            source = next((one for one in jail.parameters if one.name == piece), None)
            if source is None or not source.values:
                jail.problems.append(f'{parameter.name}: variable "{piece}" not found')
                raise _BadError
            if source.name in path:
                jail.problems.append(f"{piece}: variable loop")
                raise _BadError
            resolve(source, (*path, source.name))
            values = ["".join(value) for value in source.values]
            if len(values) > 1 and len(given) > 1:
                jail.problems.append(f"{parameter.name}: array cannot be substituted inline")
                raise _BadError
            texts[-1] += values[0]
            texts += values[1:]
        return [(text,) for text in texts]

    for parameter in list(jail.parameters):
        try:
            resolve(parameter, (parameter.name,))
        except _BadError:
            continue
