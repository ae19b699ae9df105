"""FreeBSD's commands, as functions: (arguments, who calls, where to print) to an exit, or an order to go on elsewhere.

They are strict: what FreeBSD 13.2's command does not accept, they refuse with its words and its exit status.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.lab.commands import arp, ifconfig, jexec, jls, nc, ndp, netstat, ping, route, sysctl, system, traceroute
from tests.lab.commands.support import Caller, Output

COMMANDS: dict[str, Callable[[list[str], Caller, Output], Any]] = {
    "arp": arp.main,
    "ifconfig": ifconfig.main,
    "jexec": jexec.main,
    "jls": jls.main,
    "kldload": system.kldload,
    "kldstat": system.kldstat,
    "nc": nc.main,
    "ndp": ndp.main,
    "netstat": netstat.main,
    "ping": ping.main,
    "route": route.main,
    "sysctl": sysctl.main,
    "traceroute": traceroute.main4,
    "traceroute6": traceroute.main6,
    "uname": system.uname,
}
