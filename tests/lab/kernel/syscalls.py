"""The Linux system calls that Python 3.11 has no name for, and what it takes to be in a namespace for a moment.

Sources: setns(2), unshare(2), sethostname(2), namespaces(7).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator

CLONE_NEWNET = 0x40000000
CLONE_NEWUTS = 0x04000000

#: setns(2)'s number, for the Perl client, which has no C library binding but a `syscall` builtin.
SETNS_NUMBER = {"x86_64": 308, "aarch64": 268}

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def setns(fd: int, kind: int) -> None:
    """Move the calling thread into the namespace open as *fd* (setns(2)); OSError if the kernel refuses."""
    _check(_libc.setns(fd, kind), "setns")


def unshare(flags: int) -> None:
    """Give the calling thread new namespaces (unshare(2)); OSError if the kernel refuses."""
    _check(_libc.unshare(flags), "unshare")


def sethostname(name: str) -> None:
    """Set the UTS namespace's host name, at most 64 bytes (sethostname(2))."""
    data = os.fsencode(name)[:64]
    _check(_libc.sethostname(data, len(data)), "sethostname")


def setdomainname(name: str) -> None:
    """Set the UTS namespace's NIS domain name, at most 64 bytes (setdomainname(2))."""
    data = os.fsencode(name)[:64]
    _check(_libc.setdomainname(data, len(data)), "setdomainname")


@contextlib.contextmanager
def inside(fd: int, kind: int = CLONE_NEWNET) -> Iterator[None]:
    """Be in the namespace open as *fd* for the length of a `with` block. Only for single-threaded processes."""
    name = "net" if kind == CLONE_NEWNET else "uts"
    home = os.open(f"/proc/thread-self/ns/{name}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        setns(fd, kind)
        try:
            yield
        finally:
            setns(home, kind)
    finally:
        os.close(home)
