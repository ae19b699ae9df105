"""rc.conf(5) and sysrc(8)'s files: sh assignments, read without running sh.

FreeBSD's rc.subr sources these files, so they may hold any program. A plain assignment says what it means; whatever
would need a shell to be known is told as not understood, and nothing is ever run or expanded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_DECLARING = frozenset({"export", "readonly"})
"""sh(1)'s builtins whose arguments are assignments, too."""
_OPERATORS = "&|()<>"
_ENDS_WORD = " \t\n;" + _OPERATORS
_COMPOUND = frozenset({"if", "case", "for", "while", "until", "{", "!"})
"""Words that begin what spans several lines (sh(1), Reserved Words)."""
_ESCAPED_IN_QUOTES = '$`"\\'
"""What a backslash protects between double quotes; before anything else it stands for itself (sh(1), Double Quotes)."""


@dataclass(frozen=True, slots=True)
class RcConf:
    """What such a file says.

    `values` holds the last value of each name that is known, `unclear` the names whose value only a shell could tell,
    `programs` the numbers of the lines that do something else than assign: what they change is not known. From the
    first condition, loop, function or pipe on, no assignment is understood.
    """

    values: Mapping[str, str]
    unclear: frozenset[str] = frozenset()
    programs: tuple[int, ...] = ()

    def get(self, name: str) -> str:
        """Return a value, "" where it is not set or not understood."""
        return self.values.get(name, "")


@dataclass(slots=True)
class _Word:
    line: int
    name: str | None = None
    """What stands before the first "=", where the word is an assignment."""
    text: str = ""
    plain: bool = True
    """Whether no expansion is in it."""


def parse(text: str) -> RcConf:
    """Read an rc.conf. Raises ValueError with line number and advice where a quote is not closed: sh refuses such a file."""
    return _Reader(text).read()


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text.replace("\r\n", "\n")
        self._at = 0
        self._line = 1
        self._values: dict[str, str] = {}
        self._unclear: set[str] = set()
        self._programs: list[int] = []
        self._lost = False

    def read(self) -> RcConf:
        """Take one simple command after the other."""
        while self._at < len(self._text):
            self._command()
        return RcConf(MappingProxyType(self._values), frozenset(self._unclear), tuple(dict.fromkeys(self._programs)))

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _take(self) -> str:
        character = self._peek()
        self._at += 1
        self._line += character == "\n"
        return character

    def _command(self) -> None:
        """Read up to the end of a simple command and note what it assigns."""
        words: list[_Word] = []
        program = 0
        while (character := self._peek()) and character not in "\n;":
            if character in " \t":
                self._take()
            elif self._text.startswith("\\\n", self._at):
                self._take()
                self._take()
            elif character == "#":
                self._skip_comment()
            elif character in _OPERATORS:
                program = program or self._line
                self._lost = self._lost or character != ">"
                self._take()
            else:
                words.append(self._word())
        self._take()
        self._lost = self._lost or any(word.name is None and word.text in _COMPOUND for word in words[:1])
        if not program and words and words[0].name is None and words[0].text in _DECLARING and words[0].plain:
            # `export NAME` without a value changes none
            words = [word for word in words[1:] if word.name is not None]
        for word in words:
            if word.name is None:
                program = program or word.line
        for word in words:
            if word.name is None:
                continue
            if program or self._lost or not word.plain:
                # said under a condition, or for one command only: whether it counts is not known
                self._values.pop(word.name, None)
                self._unclear.add(word.name)
            else:
                self._values[word.name] = word.text
                self._unclear.discard(word.name)
        if program:
            self._programs.append(program)

    def _skip_comment(self) -> None:
        while self._peek() not in ("", "\n"):
            self._take()

    def _word(self) -> _Word:
        word = _Word(self._line)
        if match := _NAME.match(self._text, self._at):
            end = match.end()
            if self._text[end : end + 1] == "=":
                word.name = match.group()
                self._at = end + 1
                word.plain = self._peek() != "~"  # a user's home directory (sh(1), Tilde Expansion)
        pieces: list[str] = []
        while (character := self._peek()) and character not in _ENDS_WORD:
            self._take()
            if character == "'":
                pieces.append(self._until_quote(word.line))
            elif character == '"':
                pieces.append(self._in_double_quotes(word))
            elif character == "\\":
                following = self._take()
                pieces.append("" if following == "\n" else following)
            else:
                word.plain = word.plain and character not in "$`"
                pieces.append(character)
        word.text = "".join(pieces)
        return word

    def _until_quote(self, line: int) -> str:
        end = self._text.find("'", self._at)
        if end < 0:
            raise _unclosed(line)
        inside = self._text[self._at : end]
        self._line += inside.count("\n")
        self._at = end + 1
        return inside

    def _in_double_quotes(self, word: _Word) -> str:
        pieces: list[str] = []
        while (character := self._take()) != '"':
            if not character:
                raise _unclosed(word.line)
            if character == "\\" and self._peek() == "\n":
                self._take()
            elif character == "\\" and self._peek() and self._peek() in _ESCAPED_IN_QUOTES:
                pieces.append(self._take())
            else:
                word.plain = word.plain and character not in "$`"
                pieces.append(character)
        return "".join(pieces)


def _unclosed(line: int) -> ValueError:
    return ValueError(f"line {line}: a quote is not closed, and sh reads no further: close it")
