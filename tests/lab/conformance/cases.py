"""Case files: what FreeBSD's manual pages, sources and own tests say that a command answers. Pure.

The recordings show what somebody thought of typing; the cases fill the gaps. A file reads like a transcript:

    # kernel: 14                               what the lab is to play (tests/lab/kernel/releases.py); 13.2 if not said
    # source: FreeBSD sbin/route/route.8, "add"      where the following answers come from; said before the first
    # any other remark
    % ifconfig epair7 create                   set-up: runs unseen, must succeed
    $ ifconfig epair7a inet 192.0.2.300        a command, as typed into sh(1)
    ifconfig: 192.0.2.300: bad value           what it prints, standard output and standard error together
    [exit 1]                                   its status, where that is not 0

Empty lines before a remark, a set-up or a command are for the reader. Every file has a machine of its own.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

KERNEL, SOURCE, SET_UP, COMMAND, REMARK = "# kernel:", "# source:", "% ", "$ ", "#"


class CaseError(Exception):
    """A case file that says nothing to hold on to: which file, which line, what is missing."""


@dataclass(frozen=True, slots=True)
class Cases:
    """One case file: the script that runs it, the transcript that it should give, and what the lab plays."""

    name: str
    kernel: str
    script: str
    expected: str
    commands: str
    """The commands alone: what is named in them was chosen, and is not masked."""


def load(file: Path) -> Cases:
    """Read a case file. Raises CaseError for a command without a source, or text that belongs to no command."""
    kernel, source = "13.2", ""
    script: list[str] = []
    expected: list[str] = []
    commands: list[str] = []
    for number, line in enumerate(file.read_text().splitlines(), 1):
        if line.startswith(KERNEL):
            kernel = line.removeprefix(KERNEL).strip()
        elif line.startswith(SOURCE):
            source = line.removeprefix(SOURCE).strip()
        elif line.startswith((SET_UP, COMMAND)):
            if not source and line.startswith(COMMAND):
                raise CaseError(f"{file.name}:{number}: no source said before this command")
            text = line[2:]
            commands.append(text)
            _strip(expected)
            if line.startswith(COMMAND):
                expected.append(line)
                script += [f"printf '%s\\n' {shlex.quote(line)}", text, _STATUS]
            else:
                script.append(f"{{ {text}; }} >/dev/null 2>&1 || printf '%s\\n' {shlex.quote(f'[failed: {text}]')}")
        elif line.startswith(REMARK):
            _strip(expected)
        elif expected:
            expected.append(line)
        elif line:
            raise CaseError(f"{file.name}:{number}: output before the first command")
    _strip(expected)
    return Cases(file.stem, kernel, _lines(script), _lines(expected), _lines(commands))


_STATUS = 'status=$?; [ $status -eq 0 ] || echo "[exit $status]"'


def _strip(lines: list[str]) -> None:
    while lines and not lines[-1]:
        lines.pop()


def _lines(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
