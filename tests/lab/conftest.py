"""Fixtures of the lab's tests. Each has its own ground, so that tests may run side by side."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.lab.ground import linux_only
from tests.lab.kernel import client
from tests.lab.kernel.client import Kernel
from tests.lab.topology import Lab

#: Set of a test that has failed: what it shared with others may be spoilt.
FAILED = pytest.StashKey[bool]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything below here is a lab test: it needs root, and says so where it has it not."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.lab)
            if os.geteuid() != 0:
                item.add_marker(pytest.mark.skip(reason="the lab needs root: it makes hosts"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Put the ends of the lab's logs into the report of a test that failed."""
    report = yield
    if report.failed:
        item.stash[FAILED] = True
        for lab in getattr(item, "funcargs", {}).values():
            if isinstance(lab, Lab):
                report.sections.append(("the lab's logs", "\n".join(lab.logs())))
    return report


@pytest.fixture
def machine() -> Iterator[Kernel]:
    """A fresh machine: nothing but lo0, pflog0 and pfsync0."""
    linux_only("it is the lab's own kernel")
    with client.start() as kernel:
        yield kernel


@pytest.fixture(scope="module")
def one() -> Iterator[Lab]:
    """One host, a spine with BIRD, a client, for all tests of a file: see tests.lab.again."""
    with Lab(hosts=1) as whole:
        yield whole


@pytest.fixture
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """Two hosts, or as many as the mark `hosts` says, a spine with BIRD, a client."""
    mark = request.node.get_closest_marker("hosts")
    with Lab(hosts=mark.args[0] if mark else 2) as whole:
        yield whole
