"""What every test shares: which are left out on a machine that is no Linux (see linux_only.py), and the signals' defaults."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from tests.linux_only import NOT_COLLECTED, SKIPPED

HERE = Path(__file__).parent
LINUX = sys.platform == "linux"
# A script's background run ignores these two, and sh(1) can never trap what it was started to ignore: nor could the hooks.
for _number, _default in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _default)
collect_ignore = [] if LINUX else list(NOT_COLLECTED)


def pytest_report_header() -> list[str]:
    """Say what is not even collected."""
    return [] if LINUX else [f"on Linux only: tests/{path}: {why}" for path, why in NOT_COLLECTED.items()]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs Linux."""
    for item in [] if LINUX else items:
        path = str(item.path.relative_to(HERE))
        why = SKIPPED.get(path) or SKIPPED.get(f"{path}::{getattr(item, 'originalname', item.name)}")
        if why:
            item.add_marker(pytest.mark.skip(reason=f"on Linux only: {why}"))
