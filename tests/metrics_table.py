"""README.md's tables of metrics, made of what the agent counts: `python -m tests.metrics_table` writes them anew."""

from __future__ import annotations

import re
from collections.abc import Iterable

from mobility.metrics.catalogue import CATALOGUE
from mobility.metrics.causes import MEANINGS
from tests.readme import PATH

FIGURES, REASONS = ("metric", "type", "unit", "labels", "meaning"), ("reason", "meaning")


def figures() -> list[list[str]]:
    """Return a row for each figure, in the catalogue's order."""
    return [
        [f"`{each.name}`", each.kind, each.unit, ", ".join(f"`{label}`" for label in each.labels), each.meaning]
        for each in CATALOGUE.values()
    ]


def reasons() -> list[list[str]]:
    """Return a row for each reason why a jail is not announced."""
    return [[f"`{reason}`", meaning] for reason, meaning in MEANINGS.items()]


def rendered(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table as README.md has it."""
    head = tuple(head)
    lines = [f"| {' | '.join(cells)} |" for cells in (head, *rows)]
    return "".join(f"{line}\n" for line in (lines[0], "|" + "---|" * len(head), *lines[1:]))


TABLES = {FIGURES: rendered(FIGURES, figures()), REASONS: rendered(REASONS, reasons())}
"""Each table, by its head."""


def written(page: str) -> str:
    """Return the page with these tables as they should be. ValueError where it has no table with one of these heads."""
    for head, table in TABLES.items():
        # the head may have other columns still, but the first tells which table it is
        found = re.findall(rf"^\| {head[0]} \|.*\n(?:\|.*\n)+", page, re.MULTILINE)
        if len(found) != 1:
            raise ValueError(f"{len(found)} tables begin with a column {head[0]!r}: there must be one")
        page = page.replace(found[0], table)
    return page


if __name__ == "__main__":
    PATH.write_text(written(PATH.read_text()))
