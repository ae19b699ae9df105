"""What jail managers say of a jail, and how their files are read.

Files that root owns on the host are grants; files below a jail's root are the jail's own, so what they say is a
request, and they are opened as what they are: somebody else's. No file stays open: a descriptor in a jail's ZFS dataset
would make its unmount fail with "busy" (umount(2), EBUSY).
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

MAX_BYTES = 64 * 1024
"""Bytes of a file below a jail's root, or of a jail's own file of root's, that are read."""
Signature = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Ends:
    """A pair that a manager makes for a jail.

    `outer` is the host's end and may hold "{jid}" (iocage: "vnet0.{jid}"); `inner` are the names that the jail's end
    may have inside the jail, the most likely first: the jail's own rc.conf may rename it.
    """

    outer: str
    inner: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Said:
    """What a manager's own files say of one jail.

    `addresses` stand in root's files on the host: they count as a grant within host.allowed. `requests` stand in files
    that the jail's root may write. `ends` is what the manager itself makes for the jail, in order; nothing where our
    hooks made its lines give way. `advice` is what in those files collides with a jail that owns single addresses.
    `hooks` says whether our hooks stand in those files.
    """

    jail: str
    manager: str
    source: str
    vnet: bool
    addresses: tuple[str, ...] = ()
    requests: tuple[str, ...] = ()
    ends: tuple[Ends, ...] = ()
    advice: tuple[str, ...] = ()
    hooks: bool = False


class Manager(Protocol):
    """One jail manager's files."""

    name: str

    def names(self) -> list[str]:
        """Return jail(8)'s names of the jails that it knows; none where its folder is not there."""

    def faults(self) -> list[str]:
        """Return what keeps `names` from knowing all of them, as of its last call; each a sentence for the operator."""

    def signature(self, jail: str, *, requests: bool) -> Signature:
        """Return what changes whenever `read` could answer something else; () where it does not know the jail."""

    def read(self, jail: str, *, requests: bool) -> Said | None:
        """Return what its files say of a jail, None where it does not know it.

        Without `requests` no file below the jail's root is opened. Raises ValueError with a sentence for the operator
        where a file can not be used.
        """


def hooked(commands: Iterable[str], jail: str) -> bool:
    """Tell whether one of a jail's exec.poststart commands is our hook, wherever the program lies."""
    call = re.compile(rf"\spoststart\s+(['\"]?){re.escape(jail)}\1(?=\s|;|&|$)")
    return any(call.search(command) for command in commands)


def signature_of(status: os.stat_result) -> Signature:
    """Return what changes whenever a file does: its content, owner and mode all touch the ctime (stat(2))."""
    return (status.st_ctime_ns, status.st_ino)


def file_signature(path: Path) -> Signature:
    """Return a file's signature, () where it is not there or not to be seen; a link's is its own."""
    try:
        return signature_of(path.lstat())
    except OSError:
        return ()


def read_text(path: Path, limit: int = MAX_BYTES) -> str:
    """Return the text of a file of root's; bytes that are no UTF-8, as in an old comment, are kept as surrogates.

    Raises OSError, or ValueError for links, devices, files that others may write, and those of more than `limit` bytes.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("is no regular file")
        if status.st_uid not in (0, os.geteuid()) or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise ValueError(f"may be written by others than root: chown root {path} && chmod 644 {path}")
        if status.st_size > limit:
            raise ValueError(f"is larger than {limit} bytes")
        return os.read(descriptor, limit).decode("utf-8", "surrogateescape")
    finally:
        os.close(descriptor)


def read_managers(path: Path) -> str:
    """Return a file of a manager's, as `read_text` does.

    Raises FileNotFoundError where it is not there, and ValueError with a sentence that names it for all else.
    """
    try:
        return read_text(path)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ValueError(f"{path} can not be read: {error.strerror} (links are not followed)") from error
    except ValueError as error:
        raise ValueError(f"{path} {error}") from error


def read_beneath(root: Path, relative: str) -> str | None:
    """Return the text of a file below a jail's root, None where it is not there.

    Its root may have put anything there: no link is followed on the way down, nothing but a regular file of up to
    MAX_BYTES is read, and opening never waits. Bytes that are no UTF-8 are replaced. Raises ValueError with the reason
    where there is something else.
    """
    try:
        with _beneath(root, relative) as descriptor:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise ValueError(f"{root / relative} is no regular file")
            if status.st_size > MAX_BYTES:
                raise ValueError(f"{root / relative} is larger than {MAX_BYTES} bytes")
            return os.read(descriptor, MAX_BYTES).decode("utf-8", "replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ValueError(f"{root / relative} can not be read: {error.strerror} (links are not followed)") from error


def stat_beneath(root: Path, relative: str) -> Signature:
    """Return the signature of a file below a jail's root, reached without following links; () where it can not be."""
    try:
        with _beneath(root, relative) as descriptor:
            return signature_of(os.fstat(descriptor))
    except OSError:
        return ()


@contextlib.contextmanager
def _beneath(root: Path, relative: str) -> Iterator[int]:
    *folders, name = Path(relative).parts
    # the root itself is a folder of root's on the host: a link there is the operator's own
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for folder in folders:
            below = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = below
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = file
        yield descriptor
    finally:
        os.close(descriptor)
