"""What is printed for people: tables, and the words of others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

WORDS = 160
"""Characters of other people's words that are repeated to the operator."""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return rows in columns as wide as they need to be, under a head; the last column ends where it ends."""
    rows = [tuple(head), *map(tuple, rows)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head) - 1)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip()
        for row in rows
    )


def shown(text: str) -> str:
    """Return other people's words fit for one line of a terminal or a log."""
    line = "".join(each if each.isprintable() else " " for each in text[: 4 * WORDS])
    line = " ".join(line.split())
    return line if len(line) <= WORDS else line[: WORDS - 3] + "..."
