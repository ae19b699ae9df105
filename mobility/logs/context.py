"""What a line belongs to: the jail, and the event of a hook that is the cause of it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_ABOUT: ContextVar[tuple[str, str]] = ContextVar("about", default=("", ""))


@contextmanager
def about(jail: str = "", event: str = "") -> Iterator[None]:
    """Have each line that is logged in here carry this jail and this event; without any, have none carried.

    What is called from here carries them too, and so do tasks and timers that are begun here: asyncio hands its context on.
    """
    token = _ABOUT.set((jail, event))
    try:
        yield
    finally:
        _ABOUT.reset(token)


def attribute(record: logging.LogRecord) -> None:
    """Give a record the jail and the event that its maker has not named; an event goes with its own jail only."""
    jail, event = _ABOUT.get()
    if jail and record.__dict__.setdefault("jail", jail) == jail and event:
        record.__dict__.setdefault("event", event)
