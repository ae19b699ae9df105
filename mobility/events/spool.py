"""The spool through which the sh hooks hand events to the agent, and get their answers back.

    SPOOL/tmp/    a hook writes its event here ...
    SPOOL/new/    ... and renames it into this folder when it is whole (as in a Maildir)
    SPOOL/reply/  a hook that waits makes a FIFO here, of the event's own name, and reads one line from it
    SPOOL/bad/    what was found in new/ and is no event

An event stays in new/ until the agent has dealt with it, so it survives any crash of the agent. After a
reboot no jail runs, so the spool may be a memory file system and nobody syncs it. The file's mtime says when
it happened.

An event is these lines, the last of which shows that it is whole:

    mobility-event 1
    phase created
    jail web1
    reply yes
    end

The answer is one line, "ok TEXT" or "refused TEXT", of at most PIPE_BUF bytes: it arrives in one piece.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import re
import shutil
import stat
import time
import tomllib
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, replace
from pathlib import Path

from watchdog.events import DirModifiedEvent, FileCreatedEvent, FileMovedEvent

from mobility.events.watch import Watch
from mobility.model import Phase, jail_name

log = logging.getLogger(__name__)

MAX_BYTES = 1024
"""More than the largest event a hook can write: a name has at most 63 characters."""
MAX_ANSWER = 512
"""Bytes of one answer, its newline included: the PIPE_BUF of POSIX and of FreeBSD (sys/syslimits.h)."""
KEEP_BAD = 100
LOOK_EVERY = 10.0
UNWATCHED_LOOK_EVERY = 0.5
"""Seconds between looks while the kernel can not tell us of news, so that hooks need not wait long."""
STALE_AFTER = 900.0
"""Seconds after which a draft or a FIFO is nobody's: hooks wait 600 s at most (config: hooks.timeout)."""

# DirModifiedEvent: kqueue's emitter compares snapshots by inode, so it may take a new file that got the inode of a
# removed one for the old one; that the folder changed it says in any case
_NEWS = (FileCreatedEvent, FileMovedEvent, DirModifiedEvent)
_FOLDERS = ("tmp", "new", "reply", "bad")
_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", re.ASCII)
_LINES = re.compile(rb"mobility-event 1\nphase ([a-z]+)\njail ([^\n]*)\nreply (yes|no)\nend\n")
_HEADER = re.compile(rb"mobility-event ([^\n]*)\n")


class SpoolError(Exception):
    """The spool can not be used; the message says why and what to do."""


class BadEvent(Exception):  # it describes a file, not a fault of this program
    """A file in the spool is no event. `reason` is one word for the metrics, the message is for the log."""

    def __init__(self, reason: str, text: str) -> None:
        self.reason = reason
        super().__init__(text)


@dataclass(frozen=True, slots=True)
class Event:
    """What a hook told us: jail(8) is at `phase` with `jail`, since `time` (seconds, UTC).

    `reply` is the FIFO on which the hook waits for an answer, None when it does not wait.
    """

    id: str
    phase: Phase
    jail: str
    time: float
    reply: Path | None


def parse(content: bytes) -> tuple[Phase, str, bool]:
    """Read an event's text: its phase, its jail, and whether the hook waits for an answer.

    Raises BadEvent (reasons: cut, version, phase, name).
    """
    lines = _LINES.fullmatch(content)
    if lines is None:
        header = _HEADER.match(content)
        if header is not None and header[1] != b"1":
            raise BadEvent("version", "another version's hook wrote it: install this version's hook")
        raise BadEvent("cut", "it is cut short, or not written by our hook")
    phase, name, reply = lines.groups()
    try:
        known = Phase(phase.decode("ascii"))
    except ValueError as error:
        raise BadEvent("phase", f"{phase!r} is no phase") from error
    try:
        jail = jail_name(name.decode("utf-8", "backslashreplace"))
    except ValueError as error:
        raise BadEvent("name", str(error)) from error
    return known, jail, reply == b"yes"


def answer_line(ok: bool, text: str) -> bytes:
    """Write an answer as a hook reads it: one line, printable, no longer than a FIFO takes in one piece."""
    words = "".join(letter if letter.isprintable() else " " for letter in text)
    line = " ".join(["ok" if ok else "refused", *words.split()]).encode("utf-8", "replace")
    return line[: MAX_ANSWER - 1].decode("utf-8", "ignore").encode("utf-8") + b"\n"


def _mode(status: os.stat_result) -> str:
    return f"mode {stat.S_IMODE(status.st_mode):04o}"


CLOCK_SLACK = 1.0
"""Seconds by which a file's time may be behind the clock: kernels stamp files by their last tick."""


class Spool:
    """The agent's side of the spool: hands out each event once, in the order in which they happened.

    `look_every`: seconds between the looks that are made without any news. `on_reject` is called with the
    one-word reason of each file that was no event.
    """

    def __init__(
        self,
        folder: Path,
        *,
        look_every: float = LOOK_EVERY,
        keep_bad: int = KEEP_BAD,
        on_reject: Callable[[str], None] = lambda reason: None,  # noqa: ARG005
    ) -> None:
        self.folder = folder
        self.depth = 0
        """How many events are known and not done."""
        self._look_every = look_every
        self._keep_bad = keep_bad
        self._on_reject = on_reject
        self._uid = os.geteuid()
        self._open: dict[str, Event] = {}
        self._unwanted: set[str] = set()
        """Names in new/ that ought to be gone and could not be removed: never handed out again."""
        self._watch: Watch | None = None
        self._tidied = float("-inf")
        self._looked: float | None = None
        """When the last look began (monotonic): what it did not find has come since."""

    # --- the folders

    def prepare(self) -> None:
        """Make the folders.

        Raises SpoolError when they can not be made, or when anybody but us could write there.
        """
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._check_parents()
            self._check(self.folder)
            for name in _FOLDERS:
                (self.folder / name).mkdir(mode=0o700, exist_ok=True)
                self._check(self.folder / name)
        except OSError as error:
            raise SpoolError(f"spool {self.folder}: {error}: see hooks.spool in mobility.toml") from error

    def _check(self, folder: Path) -> None:
        status = folder.lstat()
        if not stat.S_ISDIR(status.st_mode):
            raise SpoolError(f"spool {folder} is no folder: move it away, the agent makes its own")
        if status.st_uid != self._uid or status.st_mode & 0o077:
            raise SpoolError(
                f"spool {folder} is open to others (owner {status.st_uid}, {_mode(status)}): "
                f"see who wrote there, then: chown {self._uid} {folder} && chmod 700 {folder}"
            )

    def _check_parents(self) -> None:
        """Refuse a spool that others could rename away and replace."""
        for parent in self.folder.resolve().parents:
            status = parent.stat()
            others = status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX
            if others or status.st_uid not in (0, self._uid):
                raise SpoolError(
                    f"spool {self.folder}: others may replace {parent} (owner {status.st_uid}, "
                    f"{_mode(status)}): choose another hooks.spool, or close that folder"
                )

    # --- events

    async def events(self) -> AsyncGenerator[Event, None]:
        """Yield events for ever, oldest first among those found together.

        News from the kernel only starts a look, and a look is made every `look_every` seconds anyway.
        Raises SpoolError at the beginning when the spool can not be used; later ones are logged and retried.
        """
        self.prepare()
        wake = asyncio.Event()
        self._watch = Watch(self.folder / "new", wake, _NEWS)
        try:
            while True:
                watched = self._watch.ensure()
                wake.clear()
                for event in self.look():
                    yield event
                try:
                    async with asyncio.timeout(self._look_every if watched else UNWATCHED_LOOK_EVERY):
                        await wake.wait()
                except TimeoutError:
                    self._recheck()
        finally:
            self._watch.end()

    def look(self) -> list[Event]:
        """Return the events that are in the spool and were not returned before, oldest first.

        What is no event is put aside. Raises nothing: an unreadable spool is logged and holds no events.
        """
        found: list[tuple[int, Event]] = []
        began = time.monotonic()
        try:
            names = sorted(path.name for path in (self.folder / "new").iterdir())
        except OSError as error:
            log.warning("the spool can not be read", extra={"path": str(self.folder), "problem": str(error)})
            return []
        self._unwanted.intersection_update(names)
        for name in names:
            if name in self._unwanted:
                self._remove(name)
            elif name not in self._open:
                try:
                    found.append(self._read(name))
                except FileNotFoundError:
                    continue  # its hook took it back: a start was given up
                except BadEvent as bad:
                    self._put_aside(name, bad)
                except OSError as error:
                    self._put_aside(name, BadEvent("unreadable", str(error)))
        found.sort(key=lambda pair: (pair[0], pair[1].id))
        events = [event for _, event in found]
        if self._looked is not None:
            # a file's time is one of the day: where that clock was set ahead since, the event would seem long past
            earliest = time.time() - (time.monotonic() - self._looked)
            events = [
                replace(event, time=earliest)
                if event.time < earliest - CLOCK_SLACK and event.id not in self._open
                else event
                for event in events
            ]
        self._looked = began
        self._open.update((event.id, event) for event in events)
        self.depth = len(self._open)
        return events

    def done(self, event: Event) -> None:
        """Forget an event that was dealt with. Answer it first: its name may be used again from here on."""
        if self._open.pop(event.id, None) is not None:
            self.depth = len(self._open)
            self._remove(event.id)

    def oldest(self, now: float) -> float:
        """Return for how many seconds the oldest event has been waiting, 0 without any."""
        return max((now - event.time for event in self._open.values() if event.time < now), default=0.0)

    def answer(self, event: Event, ok: bool, text: str = "") -> bool:
        """Tell the waiting hook how its event ended; never blocks.

        Returns whether it was told: False when it does not wait, or no longer.
        """
        if event.reply is None:
            return False
        try:
            pipe = os.open(event.reply, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            # ENXIO: nobody reads (fifo(4)); ENOENT: the hook has removed it
            level = logging.INFO if error.errno in (errno.ENXIO, errno.ENOENT) else logging.ERROR
            log.log(level, "the hook no longer waits", extra=_about(event, error.strerror))
            return False
        try:
            status = os.fstat(pipe)
            if not stat.S_ISFIFO(status.st_mode) or status.st_uid != self._uid:
                problem = f"{event.reply} is no FIFO of ours: nothing was written to it"
                log.error("the hook can not be answered", extra=_about(event, problem))
                return False
            os.write(pipe, answer_line(ok, text))
        except OSError as error:
            log.warning("the hook can not be answered", extra=_about(event, error.strerror))
            return False
        finally:
            os.close(pipe)
        return True

    def _read(self, name: str) -> tuple[int, Event]:
        """Read one file of new/: its mtime (ns) and the event in it. Raises BadEvent or OSError."""
        if not _ID.fullmatch(name):
            raise BadEvent("name", "its own name is none that our hook gives")
        path = self.folder / "new" / name
        if stat.S_ISLNK(path.lstat().st_mode):
            raise BadEvent("type", "it is a symbolic link")
        # O_NONBLOCK: a FIFO would hold us up
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise BadEvent("type", "it is no regular file")
            if status.st_uid != self._uid:
                raise BadEvent("owner", f"it belongs to user {status.st_uid}")
            if status.st_size > MAX_BYTES:
                raise BadEvent("size", f"it has {status.st_size} bytes, an event has at most {MAX_BYTES}")
            phase, jail, waits = parse(os.read(descriptor, MAX_BYTES))
        finally:
            os.close(descriptor)
        reply = self.folder / "reply" / name if waits else None
        return status.st_mtime_ns, Event(name, phase, jail, status.st_mtime_ns / 1e9, reply)

    # --- what has to go

    def _remove(self, name: str) -> None:
        try:
            (self.folder / "new" / name).unlink(missing_ok=True)
        except OSError as error:
            if name not in self._unwanted:
                log.warning(
                    "a file in the spool can not be removed and is ignored",
                    extra={"path": str(self.folder / "new" / name), "problem": str(error)},
                )
            self._unwanted.add(name)
        else:
            self._unwanted.discard(name)

    def _put_aside(self, name: str, bad: BadEvent) -> None:
        path = str(self.folder / "new" / name)
        log.warning("a file in the spool is no event, it is put into bad/", extra={"path": path, "problem": str(bad)})
        self._on_reject(bad.reason)
        source, target = self.folder / "new" / name, self.folder / "bad" / f"{time.time_ns()}.{bad.reason}"
        try:
            if stat.S_ISDIR(source.lstat().st_mode):
                source.rename(target)
            else:
                # not rename(2): watchdog holds all later events back for half a second to see where it went
                os.link(source, target, follow_symlinks=False)
        except OSError as error:
            log.warning(
                "a file in the spool could not be kept, it is removed", extra={"path": path, "problem": str(error)}
            )
        self._remove(name)
        self._prune_bad()

    def _prune_bad(self) -> None:
        kept = sorted((self.folder / "bad").iterdir())
        for path in kept[: max(0, len(kept) - self._keep_bad)]:
            try:
                if stat.S_ISDIR(path.lstat().st_mode):
                    shutil.rmtree(path)
                else:
                    path.unlink()
            except OSError as error:
                log.warning("a file of the spool can not be removed", extra={"path": str(path), "problem": str(error)})

    def _tidy(self) -> None:
        """Remove drafts and FIFOs of hooks that were killed before they could."""
        before = time.time() - STALE_AFTER
        for folder in ("tmp", "reply"):
            with os.scandir(self.folder / folder) as entries:
                for entry in entries:
                    if entry.name not in self._open and entry.stat(follow_symlinks=False).st_mtime < before:
                        Path(entry.path).unlink(missing_ok=True)

    def _recheck(self) -> None:
        """Put right what changed under a running agent: folders removed, leftovers of killed hooks."""
        try:
            self.prepare()
            if time.monotonic() - self._tidied >= STALE_AFTER:
                self._tidied = time.monotonic()
                self._tidy()
        except (OSError, SpoolError) as error:
            log.warning("the spool is not as it should be", extra={"path": str(self.folder), "problem": str(error)})


def _about(event: Event, problem: str | None) -> dict[str, str]:
    """Return the fields of a line on an event."""
    return {"jail": event.jail, "phase": str(event.phase), "event": event.id, "problem": problem or ""}


# --- the [hooks] section as the sh hook reads it

_SH_HEADER = re.compile(r"\[hooks\](?:[ \t#].*)?")
_SH_TEXT = re.compile(r'([a-z_]+)[ \t]*=[ \t]*"([^"\\]*)"[ \t]*(?:#.*)?')
_SH_NUMBER = re.compile(r"([a-z_]+)[ \t]*=[ \t]*([0-9]+)[ \t]*(?:#.*)?")
_SH_KEYS = {"spool": _SH_TEXT, "timeout": _SH_NUMBER, "when_agent_down": _SH_TEXT}


def _sh_view(text: str) -> tuple[dict[str, str], list[str]]:
    """Read [hooks] as hooks/mobility-hook does, line by line: the settings, and the lines it can not read."""
    settings: dict[str, str] = {}
    unread: list[str] = []
    inside = False
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.strip(" \t")
        if line.startswith("["):
            if inside:
                break
            inside = _SH_HEADER.fullmatch(line) is not None
        elif inside and line and not line.startswith("#"):
            key = line.partition("=")[0].rstrip(" \t")
            pattern = _SH_KEYS.get(key)
            match = pattern.fullmatch(line) if pattern else None
            if match is None:
                unread.append(f"line {number}: the sh hooks can not read {line!r}")
            else:
                settings[key] = match[2]
    return settings, unread


def hooks_section_readable(text: str) -> list[str]:
    r"""Return what the sh hooks would not understand, or take for something else, in this TOML document.

    The hooks read the configuration without Python, by a grammar of lines:

        [hooks]                      # the header alone on its line, blanks and a comment allowed
        spool = "/path"              # a string in double quotes, without backslashes and further quotes
        timeout = 30                 # decimal digits alone
        when_agent_down = "refuse"

    one setting a line, in any order, each optional, up to the next line that begins with "[". Blank lines and
    lines that begin with "#" are skipped. Whatever else TOML allows (dotted keys, inline tables, other
    quotes, escapes, 1_0, CR LF) is reported here: the agent and the hooks never read two different things.
    Raises tomllib.TOMLDecodeError when `text` is no TOML at all.
    """
    table = tomllib.loads(text).get("hooks", {})
    seen, problems = _sh_view(text)
    if problems or not isinstance(table, dict):
        return problems
    for key in _SH_KEYS:
        meant = str(table[key]) if key in table else None
        if seen.get(key) != meant:
            problems.append(
                f"{key}: the sh hooks read {seen.get(key, 'nothing')!r} instead of {meant or 'nothing'!r}: "
                f"write it on a line of its own, below a line that is [hooks]"
            )
    return problems
