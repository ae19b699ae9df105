"""The differences that are expected, each with its reason: differences.toml. Pure but for reading it.

An entry is about a file, and about those of its commands that match a pattern (fnmatch); "*" says that the lab does not
play what the whole file is about, so that any command in it may answer otherwise. What differs without an entry is new;
an entry that nothing matches any more is stale: both are failures, so that the list tells the truth. But where time has
a say in it, `sometimes` lets an entry be there for nothing.
"""

from __future__ import annotations

import fnmatch
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.lab.conformance.transcript import Difference, Result

FILE = Path(__file__).parent / "differences.toml"
NOT_PLAYED = "*"


@dataclass(frozen=True, slots=True)
class Entry:
    """Commands of one file that are known to answer otherwise, and why."""

    file: str
    command: str
    reason: str
    sometimes: bool = False
    """It may as well be the same, as time has it."""

    def covers(self, name: str, difference: Difference) -> bool:
        """Tell whether a difference is one of these."""
        return self.file == name and fnmatch.fnmatchcase(head(difference), self.command)


def load(path: Path = FILE) -> list[Entry]:
    """Read the list. Raises TypeError for an entry with other keys, ValueError for one without a reason."""
    found = [Entry(**each) for each in tomllib.loads(path.read_text()).get("difference", [])]
    for entry in found:
        if not entry.reason.strip():
            raise ValueError(f"{path.name}: {entry.file}: {entry.command}: no reason said")
    return found


def head(difference: Difference) -> str:
    """Return the command (or remark) that a difference is about, as FreeBSD's side shows it, without the "$"."""
    answer = difference.expected or difference.found
    return answer.head.removeprefix("$ ") if answer else ""


def judge(
    entries: Iterable[Entry], results: Mapping[str, Result]
) -> tuple[list[tuple[str, Difference]], list[tuple[str, Difference, Entry]], list[Entry]]:
    """Return the differences without a reason, those with one, and the entries that nothing matches any more.

    Entries about files that are not among the results are left alone.
    """
    entries = list(entries)
    new: list[tuple[str, Difference]] = []
    known: list[tuple[str, Difference, Entry]] = []
    used: set[Entry] = set()
    for name, result in results.items():
        for difference in result.differences:
            covering = [entry for entry in entries if entry.covers(name, difference)]
            used.update(covering)
            if covering:
                known.append((name, difference, covering[0]))
            else:
                new.append((name, difference))
    return (
        new,
        known,
        [entry for entry in entries if entry.file in results and entry not in used and not entry.sometimes],
    )
