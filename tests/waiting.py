"""Waiting for what has no event: processes that are nobody's children here."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable

#: Seconds for what comes at once where a machine is fast and idle. Only a fault takes them all.
PATIENCE = 40.0


def alive(pid: int) -> bool:
    """Tell whether a process runs: one that only waits to be buried does not."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(state.strip()) and not state.startswith("Z")


def until(check: Callable[[], bool], what: str, seconds: float = PATIENCE) -> None:
    """Wait until `check` holds; `what` is the complaint when it never does."""
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end, what
        time.sleep(0.02)
