"""FreeBSD's commands, as functions: (arguments, who calls, where to print) to an exit, or an order to go on elsewhere.

They are strict: what the command of the release that the kernel plays (as a rule 13.2) does not accept, they refuse with
its words and its exit status.
"""

from __future__ import annotations

from tests.lab.commands import arp, ifconfig, jexec, jls, nc, ndp, netstat, ping, rc, route, sysctl, system, traceroute
from tests.lab.commands.support import Command, with_jail_option

COMMANDS: dict[str, Command] = {
    "arp": with_jail_option("arp", "andsSi:", arp.main),
    "ifconfig": with_jail_option("ifconfig", "adf:G:g:klLmnuvC", ifconfig.main),
    "jexec": jexec.main,
    "jls": jls.main,
    "kldload": system.kldload,
    "kldstat": system.kldstat,
    "nc": nc.main,
    "ndp": with_jail_option("ndp", "acd:ns:t", ndp.main),
    "netstat": with_jail_option("netstat", "46AaBbdF:f:ghI:iLlM:mN:np:Qq:RrSTsuWw:xz", netstat.main),
    "ping": ping.main,
    "rc": rc.rc,
    "route": with_jail_option("route", "46nqdtv", route.main),
    "service": rc.service,
    "setfib": system.setfib,
    "sysctl": with_jail_option("sysctl", "AaB:bdehiNnoqTtWwXx", sysctl.main),
    "traceroute": traceroute.main4,
    "traceroute6": traceroute.main6,
    "uname": system.uname,
}
