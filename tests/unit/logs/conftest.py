"""What these tests share."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator

import pytest

from mobility import logs
from mobility.logs import lines


@pytest.fixture
def own_logging(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have logging, and what Python does at its end, be as they were."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    for module, name in ((sys, "excepthook"), (sys, "unraisablehook"), (threading, "excepthook")):
        monkeypatch.setattr(module, name, getattr(module, name))
    monkeypatch.setattr(logs, "_front", None)
    monkeypatch.setattr(lines, "_secrets", set())
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)
