"""What all chaos tests have in common: root, the logs of a lab in which one failed, and how long they run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.lab.conftest import pytest_runtest_makereport

__all__ = ["pytest_runtest_makereport"]

SOAK = float(os.environ.get("MOBILITY_SOAK") or 0)
"""How much time is taken: 0 for the short forms, 1 for those of `make soak`, more or less for more or less."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything below here needs a lab, which needs root."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.lab)
            if os.geteuid() != 0:
                item.add_marker(pytest.mark.skip(reason="the lab needs root: it makes network namespaces"))
