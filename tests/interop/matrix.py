"""The matrix feature x router: what a cell is, and the pytest plugin that gathers them into build/interop.json.

    python -m pytest -p tests.interop.matrix tests/interop     runs them, prints the matrix, writes the file
    python -m tests.interop.matrix                             prints the file as a table in Markdown

A cell is `ok`, or `no: why` where that version of the router can not do it; tests hold both to what is expected (see
`features.feature`). The file is written only by a run in which all cells were run and are as expected; one that fails
removes it.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

FILE = Path(__file__).resolve().parents[2] / "build" / "interop.json"
OK, FAILED = "ok", "failed"
PROPERTY = "interop"
"""Under this name a test's report carries what it is about: router, version, feature, expected."""


class Gatherer:
    """The part of the plugin that runs where pytest's reports come together."""

    def __init__(self) -> None:
        self.cells: dict[str, dict[str, str]] = {}
        self.versions: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take a test's result: of its call, or of what failed before or after it."""
        told = dict(report.user_properties).get(PROPERTY)
        if not isinstance(told, dict) or (report.when != "call" and not report.failed):
            return
        router, key = told["router"], told["feature"]
        self.versions[router] = told["version"]
        self.cells.setdefault(key, {})[router] = told["expected"] if report.passed else FAILED

    def result(self) -> dict[str, Any]:
        """Return what goes into the file."""
        features, routers = _all()
        return {
            "routers": {name: self.versions[name] for name in routers if name in self.versions},
            "features": [
                {"feature": words, "key": key, "routers": {name: row[name] for name in routers if name in row}}
                for key, words in features.items()
                if (row := self.cells.get(key))
            ],
        }

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the matrix, and write it down if it is whole."""
        if not self.cells:
            return
        result = self.result()
        terminalreporter.section("interop")
        terminalreporter.write_line(text(result))
        failed = [
            f"{name}: {row['key']}"
            for row in result["features"]
            for name in row["routers"]
            if row["routers"][name] == FAILED
        ]
        if failed:
            FILE.unlink(missing_ok=True)
            terminalreporter.write_line(f"\n{FILE} is removed: failed are {', '.join(failed)}")
        elif missing := incomplete(result):
            terminalreporter.write_line(f"\n{FILE} is left alone: {len(missing)} cells were not run")
        else:
            FILE.parent.mkdir(exist_ok=True)
            new = FILE.with_suffix(f".{os.getpid()}")
            new.write_text(json.dumps(result, indent=2) + "\n")
            new.replace(FILE)
            terminalreporter.write_line(f"\nwritten: {FILE}")


def pytest_configure(config: pytest.Config) -> None:
    """Gather where the reports come together, which is not in a worker of pytest-xdist (pytest's hook)."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Gatherer(), "interop-gatherer")


def _all() -> tuple[dict[str, str], list[str]]:
    """Return all features (words by key) and routers.

    Not imported before a run with cells is over: with it the plugin would import what pytest has still to rewrite.
    """
    from tests.interop.features import FEATURES
    from tests.interop.routers import ROUTERS

    return FEATURES, [router.kind for router in ROUTERS]


def incomplete(result: dict[str, Any]) -> list[str]:
    """Return the cells that a result lacks."""
    features, routers = _all()
    rows = {row["key"]: row["routers"] for row in result["features"]}
    return [f"{name}: {key}" for key in features for name in routers if name not in rows.get(key, {})]


def table(result: dict[str, Any]) -> tuple[list[list[str]], list[str]]:
    """Return the matrix as rows of words, its head first, and the reasons, to which cells refer by `no (NUMBER)`."""
    routers = result["routers"]
    reasons: list[str] = []
    rows = [["", *(f"{name} {version}" for name, version in routers.items())]]
    for row in result["features"]:
        words = [row["feature"]]
        for name in routers:
            said = row["routers"].get(name, "-")
            if said.startswith("no: "):
                reason = f"{name}: {said.removeprefix('no: ')}"
                if reason not in reasons:
                    reasons.append(reason)
                said = f"no ({reasons.index(reason) + 1})"
            words.append(said)
        rows.append(words)
    return rows, [f"({number}) {reason}" for number, reason in enumerate(reasons, 1)]


def text(result: dict[str, Any]) -> str:
    """Return the matrix for a terminal."""
    rows, reasons = table(result)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, "", *reasons] if reasons else lines)


def markdown(result: dict[str, Any]) -> str:
    """Return the matrix for a page."""
    rows, reasons = table(result)
    lines = [f"| {' | '.join(row)} |" for row in rows]
    lines.insert(1, f"|{' --- |' * len(rows[0])}")
    return "\n".join([*lines, "", *(f"{reason}  " for reason in reasons)]).rstrip()


if __name__ == "__main__":
    if not FILE.exists():
        sys.exit(f"{FILE} is not there: make interop")
    sys.stdout.write(markdown(json.loads(FILE.read_text())) + "\n")
