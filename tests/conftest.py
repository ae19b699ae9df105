"""What every test shares: which are left out where there is no Linux, their order, signals, files' modes, random examples."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests import order
from tests.linux_only import NOT_COLLECTED, SKIPPED

HERE = Path(__file__).parent
LINUX = sys.platform == "linux"
# A script's background run ignores these two, and sh(1) can never trap what it was started to ignore: nor could the hooks.
for _number, _default in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _default)
# mobility.toml may not be writable by others, and a login's mask may allow that
os.umask(0o022)
# agents and commands are started by the hundred: what Python has compiled once is kept
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# No example is too slow: the machine may be. Random ones are for those who look for faults, with `make soak` or MOBILITY_SOAK
# set: a change is judged by the same examples each time, so that what it fails for is its own.
settings.register_profile(
    "tests",
    deadline=None,
    derandomize=not os.environ.get("MOBILITY_SOAK"),
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("tests")
collect_ignore = [] if LINUX else list(NOT_COLLECTED)


def pytest_report_header() -> list[str]:
    """Say what is not even collected."""
    return [] if LINUX else [f"on Linux only: tests/{path}: {why}" for path, why in NOT_COLLECTED.items()]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the long files first, and skip what needs Linux."""
    items.sort(key=lambda item: order.rank(item.path.relative_to(HERE)))
    for item in [] if LINUX else items:
        path = str(item.path.relative_to(HERE))
        why = SKIPPED.get(path) or SKIPPED.get(f"{path}::{getattr(item, 'originalname', item.name)}")
        if why:
            item.add_marker(pytest.mark.skip(reason=f"on Linux only: {why}"))
