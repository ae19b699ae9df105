"""The forms of FreeBSD's commands that Python source holds, and whether a real answer to each is on record.

A form is a command line with holes: what the source says literally stands, "?" is any one word, "*" any number of
them. `forms` reads them out of syntax trees, so that a new command can not come into the product (or a scenario) without
an answer of a real FreeBSD, or of its manual page, beside it. Pure but for reading the files.
"""

from __future__ import annotations

import ast
import ipaddress
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ANY, SOME = "?", "*"
COMMANDS = frozenset(
    [
        "arp",
        "ifconfig",
        "jail",
        "jexec",
        "jls",
        "kldload",
        "kldstat",
        "nc",
        "ndp",
        "netstat",
        "ping",
        "route",
        "sysctl",
        "traceroute",
        "traceroute6",
    ]
)


@dataclass(frozen=True, slots=True)
class Form:
    """A command line with holes, and where it stands: "mobility/plan.py:222"."""

    words: tuple[str, ...]
    where: str

    def __str__(self) -> str:
        return " ".join(self.words)


def forms(files: Iterable[Path], root: Path) -> list[Form]:
    """Return the forms in these Python files, each once, in order; places are given relative to `root`."""
    found: dict[tuple[str, ...], Form] = {}
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(), str(file))):
            for words in _lines(node):
                found.setdefault(words, Form(words, f"{file.relative_to(root)}:{getattr(node, 'lineno', 0)}"))
    return list(found.values())


def matches(form: Form, words: Iterable[str]) -> bool:
    """Tell whether a command line is of this form."""
    return _match(form.words, tuple(words))


def words_of(head: str) -> tuple[str, ...]:
    """Return the words of a command as a transcript shows it ("$ jexec web1 ifconfig lo0"), without `jexec JAIL`.

    What runs in a jail is the same command; and transcripts show no quotes, so that a lone one is no error.
    """
    try:
        words = shlex.split(head.removeprefix("$ "))
    except ValueError:
        words = head.removeprefix("$ ").split()
    while words[:1] == ["jexec"] and len(words) > 2 and words[2] in COMMANDS:
        words = words[2:]
    return tuple(words)


def shape(words: Iterable[str]) -> tuple[str, ...]:
    """Return a command line with its names and addresses taken out, so that two of one kind are the same.

    Options and words of letters stand; an address becomes its family, "%" with an interface, "/" with a prefix length;
    what comes after "description" is one text; all else (mob-web1, epair7, a MAC address) is some name.
    """
    found: list[str] = []
    for word in " ".join(words).split():
        if found[-2:-1] == ["description"]:
            continue
        address, percent, _interface = word.partition("%")
        try:
            value = ipaddress.ip_interface(address)
        except ValueError:
            keyword = word.isalpha() or word == "inet6" or word.startswith("-") or not found
            stands = keyword and found[-1:] != ["description"]
            found.append(word if stands else ANY)
        else:
            found.append(f"{value.version}{percent}{'/' if '/' in address else ''}")
    return tuple(found)


def program(head: str) -> str:
    """Return the command that a head is about, "" for what is none of FreeBSD's own network commands."""
    words = words_of(head)
    name = words[0].rpartition("/")[2] if words else ""
    return name if name in COMMANDS else ""


def _match(form: tuple[str, ...], words: tuple[str, ...]) -> bool:
    if not form:
        return not words
    if form[0] == SOME:
        return any(_match(form[1:], words[skip:]) for skip in range(len(words) + 1))
    return bool(words) and form[0] in (ANY, words[0]) and _match(form[1:], words[1:])


def _lines(node: ast.AST) -> Iterator[tuple[str, ...]]:
    """Yield the command lines that a node is: a tuple or list whose words begin with a command's name."""
    if not isinstance(node, ast.Tuple | ast.List) or not isinstance(node.ctx, ast.Load):
        return
    for words in _alternatives(node.elts):
        if words[:1] == (SOME,):
            words = words[1:]  # what goes before: `jexec JAIL`, or nothing
        if words[:1] == ("jexec",) and words[2:3] and words[2] in COMMANDS:
            words = words[2:]
        if len(words) > 1 and words[0] in COMMANDS and not _is_list(words):
            yield words


def _is_list(words: tuple[str, ...]) -> bool:
    """Tell a list of names, and a beginning without an end (`jexec JAIL`), from a command line."""
    name, *rest = words
    if name in ("jail", "jexec"):
        return rest == [ANY] or rest[0].isalpha() or rest[-2:] == ["sh", "-c"]
    return set(rest) <= COMMANDS


def _alternatives(elements: list[ast.expr]) -> Iterator[tuple[str, ...]]:
    """Yield the words of a display; `a if x else b` gives two lines."""
    if not elements:
        yield ()
        return
    for first in _words(elements[0]):
        for rest in _alternatives(elements[1:]):
            yield (*first, *rest)


def _words(node: ast.expr) -> Iterator[tuple[str, ...]]:
    match node:
        case ast.Constant(value=str() as text):
            yield (text,)
        case ast.Starred(value=ast.IfExp(body=ast.Tuple(elts=one), orelse=ast.Tuple(elts=other))):
            yield from _alternatives(one)
            yield from _alternatives(other)
        case ast.Starred(value=ast.Name(id=name)) if name in COMMANDS:
            yield (SOME, name)  # a variable called as the command holds its beginning: `jexec web1 ifconfig`
        case ast.Starred():
            yield (SOME,)
        case ast.IfExp(body=one, orelse=other):
            yield from _words(one)
            yield from _words(other)
        case _:
            yield (ANY,)
