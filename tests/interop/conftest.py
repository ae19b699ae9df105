"""What the interop tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("tests.interop.features")

from tests.interop.ground import Ground  # noqa: E402


def pytest_configure(config: pytest.Config) -> None:
    """Gather the matrix. Under pytest-xdist's `-n`, of a folder above, this comes too late: there give `-p`."""
    if not config.pluginmanager.has_plugin("tests.interop.matrix"):
        config.pluginmanager.import_plugin("tests.interop.matrix")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything below here is a lab test: it needs root, and says so where it has it not."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.lab)
            if os.geteuid() != 0:
                item.add_marker(pytest.mark.skip(reason="interop needs root: it makes network namespaces"))


@pytest.fixture
def ground() -> Iterator[Ground]:
    with Ground() as ground:
        yield ground
        print(ground.logs())  # pytest shows it with a failure
