"""FreeBSD's errors: the names and the texts that its commands print for them (errno(2), strerror(3))."""

from __future__ import annotations

from enum import Enum


class Errno(Enum):
    """The errors that the lab's kernel answers with; the value is strerror(3)'s text."""

    EPERM = "Operation not permitted"
    ENOENT = "No such file or directory"
    ESRCH = "No such process"
    ENXIO = "Device not configured"
    EEXIST = "File exists"
    EINVAL = "Invalid argument"
    EBUSY = "Device busy"
    EAGAIN = "Resource temporarily unavailable"
    ENAMETOOLONG = "File name too long"
    EADDRINUSE = "Address already in use"
    EADDRNOTAVAIL = "Can't assign requested address"
    ENETUNREACH = "Network is unreachable"
    EHOSTUNREACH = "No route to host"
    EOPNOTSUPP = "Operation not supported"
    EAFNOSUPPORT = "Address family not supported by protocol family"


class Refused(Exception):
    """The kernel says no: *errno*, and a sentence of its own where FreeBSD has one (jail_errmsg)."""

    def __init__(self, errno: Errno, message: str = "") -> None:
        super().__init__(message or errno.value)
        self.errno = errno
        self.message = message or errno.value
