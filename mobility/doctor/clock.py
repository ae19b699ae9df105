"""What can be known of the clock: whether its year can be right, and whether anything disciplines it. Pure."""

from __future__ import annotations

import re
import struct
import time

from mobility.doctor.verdict import Verdict, fail, ok, warn
from mobility.network.command import Result

SYSCTL = "kern.ntp_pll.gettime"
"""Opaque: `sysctl -x` prints it as hexadecimal digits (kern_ntptime.c: "S,ntptimeval")."""
FIRST_YEAR = 2024
"""This program is not older."""
_DUMP = re.compile(r"Length:48 Dump:0x([0-9a-f]{96})\b")
_STATE = struct.Struct("<40xi4x")
"""struct ntptimeval (sys/timex.h) of a 64-bit machine: a timespec, three longs, and time_state."""
_TIME_ERROR = 5


def clock_verdict(now: float, gettime: Result) -> Verdict:
    """Judge the time `now` (seconds since 1970) and what `sysctl -x kern.ntp_pll.gettime` answered.

    Moves are decided by sequences, not by clocks: what a wrong one spoils are the history and the logs.
    """
    year = time.gmtime(now).tm_year
    mend = "sysrc ntpd_enable=YES ntpd_sync_on_start=YES && service ntpd restart"
    if year < FIRST_YEAR:
        return fail("clock", f"says {year}: the history and the logs of this host are worth nothing", mend)
    found = _DUMP.search(gettime.stdout)
    if found is None:
        return ok("clock", f"says {year}; whether anything keeps it right is not known ({gettime.complaint})")
    (state,) = _STATE.unpack(bytes.fromhex(found[1]))
    if state == _TIME_ERROR:
        why = "the kernel holds it for unsynchronised: no ntpd(8) or chronyd disciplines it (OpenNTPD does not say so)"
        return warn("clock", f"{why}; histories of two hosts can not be compared", mend)
    return ok("clock", "is synchronised")
