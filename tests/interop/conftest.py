"""What the interop tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.ground import Ground


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
