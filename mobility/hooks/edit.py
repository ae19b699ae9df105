"""Changing files that belong to jail managers: what an editor says, and how its changes reach the disk.

An editor changes nothing itself: it returns changes, which are shown (`diff`) or carried out (`apply`).

A link is never followed: the new file takes the old one's place by rename(2), which would turn a link into a file and leave
its target as it was. Where jail.conf is a link, mobility.toml names its target (managers.jail_conf).
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import fcntl
import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from mobility.model import Phase

MAX_BYTES = 1024 * 1024
"""Bytes of a manager's file that are read: one that is larger is something else."""
NEW_MODE = 0o644
"""Mode of a file that was not there before."""
DEFAULT_HOOK = Path("/usr/local/libexec/mobility/hook")
_PLAIN_PATH = re.compile(r"[A-Za-z0-9._/+@,-]+", re.ASCII)
"""What neither sh(1) nor jail.conf(5) gives a meaning of its own."""


class Way(StrEnum):
    """How a jail comes to its link.

    REPLACE: its manager makes none, the agent does, before the jail's own start. ADOPT: its manager's is wired and
    announced once the jail has started.
    """

    REPLACE = "replace"
    ADOPT = "adopt"


class HooksError(Exception):
    """An operator's sentence: which jail, which file, what to do."""


@dataclass(frozen=True, slots=True)
class Change:
    """One file's bytes before and after; None: it is not there, or goes."""

    jail: str
    path: Path
    before: bytes | None
    after: bytes | None


@dataclass(frozen=True, slots=True)
class State:
    """What is installed for one jail: the way, or None; whether every line is there; in which file; what to know."""

    jail: str
    installed: Way | None
    complete: bool
    path: Path
    note: str = ""


@dataclass(frozen=True, slots=True)
class Hook:
    """The hook program, and the configuration that it is told of; None: it finds its own (DEFAULT_PATH of config.py)."""

    program: Path = DEFAULT_HOOK
    config: Path | None = None

    def __post_init__(self) -> None:
        for path in (self.program, self.config):
            if path is not None and not (path.is_absolute() and _PLAIN_PATH.fullmatch(str(path))):
                raise HooksError(
                    f"{path} can not stand in a hook's line: it must be absolute, of letters, digits and ._/+@,- only"
                )

    def command(self, phase: Phase, name: str) -> str:
        """Return the shell command for one phase; `name` stands in single quotes: "web1", or jail.conf's "${name}"."""
        config = "" if self.config is None else f" -c {self.config}"
        return f"{self.program}{config} {phase} '{name}'"


class Editor(Protocol):
    """What knows one manager's files. It changes nothing itself; every method may raise HooksError."""

    name: str

    def jails(self) -> list[str]:
        """Return the names of its jails as its user types them."""

    def state(self, name: str) -> State:
        """Tell what is installed for one jail."""

    def install(self, name: str, way: Way) -> list[Change]:
        """Return what has to change, nothing where it is so already.

        From one way to the other it is what installing after removing would give. The changes are in an order in which
        each of them may stay alone.
        """

    def remove(self, name: str) -> list[Change]:
        """Return what restores the files to the byte; what others changed since then is kept."""


def read(jail: str, path: Path, *, anybodys: bool = False) -> bytes | None:
    """Return the bytes of a manager's file, None where it is not there.

    Raises HooksError, naming `jail`, for links, whatever is no regular file, more than MAX_BYTES, what can not be read, and,
    but for `anybodys`, what others than root could have written: its addresses would become grants.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        # a link is ELOOP on Linux, EMLINK on FreeBSD (open(2))
        if error.errno in (errno.ELOOP, errno.EMLINK) and path.is_symlink():
            raise HooksError(
                f"jail {jail}: {path} is a link to {path.readlink()}, and links are not edited: "
                "name the file itself in mobility.toml"
            ) from error
        raise HooksError(f"jail {jail}: {path} can not be read: {error.strerror}") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise HooksError(f"jail {jail}: {path} is no regular file, nothing was changed")
        others = status.st_uid not in (0, os.geteuid()) or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        if others and not anybodys:
            raise HooksError(
                f"jail {jail}: {path} may be written by others than root: see what it says, then: "
                f"chown root {path} && chmod 644 {path}"
            )
        if status.st_size > MAX_BYTES:
            raise HooksError(f"jail {jail}: {path} is larger than {MAX_BYTES} bytes, nothing was changed")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read()
    finally:
        os.close(descriptor)


def diff(change: Change) -> str:
    """Return a change as a unified diff, as `diff -u` and patch(1) know it; "" where nothing differs."""
    if change.before == change.after:
        return ""
    old, new = (_lines(content or b"") for content in (change.before, change.after))
    old_name, new_name = ("/dev/null" if side is None else str(change.path) for side in (change.before, change.after))
    return "".join(
        line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"
        for line in difflib.unified_diff(old, new, old_name, new_name)
    )


def _lines(content: bytes) -> list[str]:
    # only "\n" ends a line here, and what is no UTF-8 is shown as escapes
    parts = content.decode("utf-8", "backslashreplace").split("\n")
    return [f"{part}\n" for part in parts[:-1]] + ([parts[-1]] if parts[-1] else [])


def apply(changes: Sequence[Change]) -> None:
    """Carry out changes that belong together: all of them, or none.

    Each file is replaced as a whole (a temporary beside it, fsync(2), rename(2)) and keeps owner, group and mode; ACLs and
    extended attributes are not kept. Whoever looks, and a machine that loses power, finds a file as before or as after. A
    process that is killed between two files leaves those done done: see `Editor.install`.

    Other `mobility hooks` are kept out meanwhile (flock(2) of the folders). Nothing keeps out an editor that saves in the
    instant between our last look at the file and the rename: what it saved is overwritten.

    Raises HooksError where a file is no longer as it was read, or can not be written; nothing is changed then.
    """
    changes = [change for change in changes if change.before != change.after]
    if len({change.path for change in changes}) != len(changes):
        raise ValueError("two changes of one file")
    if not changes:
        return
    with contextlib.ExitStack() as undo:
        # undone, in reverse order, unless everything went well
        steps = [_Step(change) for change in changes]
        for step in steps:
            undo.callback(step.forget)
            step.make_folder()
        with _locked({step.change.path.parent for step in steps}):
            for step in steps:
                step.prepare()
            for step in steps:
                step.commit()
            undo.pop_all()


class _Step:
    """One change on its way to the disk."""

    def __init__(self, change: Change) -> None:
        self.change = change
        # a fixed name, so that what a killed process left is found; jail.conf.d/*.conf and jails.d/*.toml do not match it
        self._temporary = change.path.with_name(f".{change.path.name}.mobility")
        self._made: list[Path] = []
        self._status: os.stat_result | None = None
        self._prepared = False
        self._committed = False

    def make_folder(self) -> None:
        """Make the folder of a file that is new."""
        if self.change.after is None:
            return
        missing = []
        folder = self.change.path.parent
        while not folder.exists():
            missing.append(folder)
            folder = folder.parent
        for folder in reversed(missing):
            with self._explained():
                folder.mkdir(mode=0o755)
            self._made.append(folder)

    def prepare(self) -> None:
        """Look whether the file is still the one that was read, and write the new one beside it."""
        self._verify()
        if self.change.after is not None:
            self._write(self.change.after)

    def commit(self) -> None:
        """Put the new file in the old one's place."""
        self._verify()
        with self._explained():
            if self.change.after is None:
                self.change.path.unlink()
            else:
                self._temporary.rename(self.change.path)
            self._prepared, self._committed = False, True
            _sync_folder(self.change.path.parent)

    def forget(self) -> None:
        """Bring back what was there before."""
        if self._committed:
            with self._explained(" while its former content was being brought back"):
                if self.change.before is None:
                    self.change.path.unlink()
                else:
                    self._write(self.change.before)
                    self._temporary.rename(self.change.path)
                    self._prepared = False
                _sync_folder(self.change.path.parent)
            self._committed = False
        if self._prepared:
            self._temporary.unlink(missing_ok=True)
            self._prepared = False
        while self._made:
            with contextlib.suppress(OSError):  # somebody else has put something there
                self._made.pop().rmdir()

    def _verify(self) -> None:
        change = self.change
        if read(change.jail, change.path, anybodys=True) != change.before:
            raise HooksError(
                f"jail {change.jail}: {change.path} has changed since it was read, nothing was changed: run the command again"
            )
        with self._explained():
            self._status = None if change.before is None else change.path.lstat()

    def _write(self, content: bytes) -> None:
        with self._explained():
            self._temporary.unlink(missing_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(self._temporary, flags, 0o600)
            self._prepared = True
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                if self._status is not None:
                    os.fchown(file.fileno(), self._status.st_uid, self._status.st_gid)
                os.fchmod(file.fileno(), NEW_MODE if self._status is None else stat.S_IMODE(self._status.st_mode))
                file.flush()
                os.fsync(file.fileno())

    @contextlib.contextmanager
    def _explained(self, when: str = "") -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise HooksError(
                f"jail {self.change.jail}: {self.change.path} can not be changed{when}: {error.strerror}: "
                "free the disk, or mend permissions and flags (ls -lo); then run the command again"
            ) from error


@contextlib.contextmanager
def _locked(folders: set[Path]) -> Iterator[None]:
    """Keep other `mobility hooks` out of the folders; in one order, so that two never wait for each other."""
    with contextlib.ExitStack() as stack:
        for folder in sorted(folders):
            try:
                descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                stack.callback(os.close, descriptor)
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            except OSError as error:
                raise HooksError(f"{folder} can not be used: {error.strerror}, nothing was changed") from error
        yield


def _sync_folder(folder: Path) -> None:
    """Make a rename outlive a loss of power (fsync(2) of the folder)."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
