"""The matrix itself: what is found is held to what is expected, and only a whole run is written down."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest

from tests.interop import features, matrix
from tests.interop.features import Cannot, Features, feature
from tests.interop.routers import ROUTERS, Bird, Frr
from tests.interop.routers.router import Router


class Terminal:
    """Takes what would be printed."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def section(self, title: str) -> None:
        self.lines.append(title)

    def write_line(self, line: str) -> None:
        self.lines.append(line)


class Limited(Bird):
    """A router with a limit."""

    limits: ClassVar = {"flight": "it has no wings"}


def outcome(router: type[Router], why: str | None, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return what becomes of a test that finds out `why` not, or that all is well: "passed" or how it fails."""
    monkeypatch.setattr(features, "FEATURES", {})
    kind = router

    class Cell(Features):
        router = kind

    def test_flight(self: Features) -> None:
        if why is not None:
            raise Cannot(why)

    try:
        feature("flies")(test_flight)(Cell())
    except AssertionError as error:
        return str(error)
    return "passed"


def test_what_is_found_is_held_to_what_is_expected(monkeypatch: pytest.MonkeyPatch) -> None:
    assert outcome(Bird, None, monkeypatch) == "passed"
    assert outcome(Limited, "it has no wings", monkeypatch) == "passed"
    assert "no: it has no wings" in outcome(Bird, "it has no wings", monkeypatch)
    assert "no: it has no wings" in outcome(Limited, None, monkeypatch)
    assert "no: it is asleep" in outcome(Limited, "it is asleep", monkeypatch)


def test_each_limit_is_of_a_feature() -> None:
    for router in ROUTERS:
        assert set(router.limits) <= set(features.FEATURES), router


def gathered(**failed: str) -> matrix.Gatherer:
    """Return a gatherer that has seen all cells, as expected but for those that failed (router: feature)."""
    gatherer = matrix.Gatherer()
    for router in ROUTERS:
        for key in features.FEATURES:
            limit = router.limits.get(key)
            told = {
                "router": router.kind,
                "feature": key,
                "expected": f"no: {limit}" if limit else "ok",
                "version": "1",
            }
            good = failed.get(router.kind) != key
            for when in ("setup", "call", "teardown"):
                report = pytest.TestReport(
                    nodeid=key,
                    location=("", 0, key),
                    keywords={},
                    outcome="passed" if good or when != "call" else "failed",
                    longrepr=None,
                    when=cast("Any", when),
                    user_properties=[(matrix.PROPERTY, told)],
                )
                gatherer.pytest_runtest_logreport(report)
    return gatherer


def test_the_file_is_written_by_a_whole_run_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "build" / "interop.json"
    monkeypatch.setattr(matrix, "FILE", file)

    def summary(gatherer: matrix.Gatherer) -> list[str]:
        terminal = Terminal()
        gatherer.pytest_terminal_summary(cast("pytest.TerminalReporter", terminal))
        return terminal.lines

    assert summary(matrix.Gatherer()) == []
    assert "written" in summary(gathered())[-1]
    written = json.loads(file.read_text())
    assert list(written["routers"]) == [router.kind for router in ROUTERS]
    cells = {row["key"]: row["routers"] for row in written["features"]}
    assert cells["ipv6"] == dict.fromkeys(written["routers"], "ok")
    assert cells["no_gap"]["FRR"] == f"no: {Frr.limits['no_gap']}"

    part = gathered()
    del part.cells["ipv6"]["FRR"]
    assert "1 cells were not run" in summary(part)[-1]
    assert file.exists()
    assert "FRR: ipv6" in summary(gathered(FRR="ipv6"))[-1]
    assert not file.exists()


def test_the_table_gives_each_reason_once() -> None:
    page = matrix.markdown(gathered().result()).splitlines()
    assert page[0] == "|  | BIRD 1 | FRR 1 | GoBGP 1 | OpenBGPD 1 |"
    assert page[1] == "| --- | --- | --- | --- | --- |"
    assert "| IPv6 | ok | ok | ok | ok |" in page
    reasons = [line for line in page if line.startswith("(")]
    assert len(reasons) == len(set(reasons)) > 0
    for number in range(1, len(reasons) + 1):
        assert any(f"no ({number})" in line for line in page if line.startswith("|"))


def test_a_router_that_is_not_installed_is_named_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    for router in ROUTERS:
        monkeypatch.setattr(router, "program", "/nonexistent/router")
        with pytest.raises(RuntimeError, match=f"apt-get install --no-install-recommends {router.package} "):
            router.require()
