"""A folder watched by the kernel, through watchdog: kqueue on FreeBSD, inotify in the lab."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

log = logging.getLogger(__name__)


class _Wake(FileSystemEventHandler):
    """Watchdog's thread tells the loop that there may be news; what it is, a look finds out."""

    def __init__(self, loop: asyncio.AbstractEventLoop, wake: asyncio.Event) -> None:
        self._loop = loop
        self._wake = wake

    def dispatch(self, event: FileSystemEvent) -> None:  # noqa: ARG002  # any event means: look
        if not self._wake.is_set() and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake.set)


class Watch:
    """Sets `wake` when something of `news` happens in a folder. A dead watch is replaced, a failing one tried again."""

    def __init__(self, folder: Path, wake: asyncio.Event, news: Sequence[type[FileSystemEvent]]) -> None:
        self._folder = folder
        self._handler = _Wake(asyncio.get_running_loop(), wake)
        self._news = list(news)
        self._unwatchable = ""
        """Why the kernel would not watch the folder for us, where it would not."""
        self.observer: BaseObserver | None = None

    def ensure(self) -> bool:
        """Have the folder watched; tell whether it is."""
        observer = self.observer
        if observer is not None:
            if observer.is_alive() and observer.emitters and all(e.is_alive() for e in observer.emitters):
                return True
            log.warning("a watch has ended, starting another", extra={"path": str(self._folder)})
            self.end()
        try:
            self.observer = Observer()
            self.observer.schedule(self._handler, str(self._folder), event_filter=self._news)
            self.observer.start()
        except OSError as error:
            self.end()
            if self._unwatchable != str(error):
                self._unwatchable = str(error)
                log.warning(
                    "a folder can not be watched: looked at in turns",
                    extra={"path": str(self._folder), "problem": str(error)},
                )
            return False
        self._unwatchable = ""
        return True

    def end(self) -> None:
        """Stop watching."""
        if self.observer is not None:
            self.observer.stop()
            if self.observer.is_alive():
                self.observer.join()
            self.observer = None
