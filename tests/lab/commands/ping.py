"""ping(8) of FreeBSD 13.2: the options, and who is pinged; tests/lab/bin/ping.py sends the packets.

Source: sbin/ping/{main,ping,ping6}.c. `-t` is a timeout, `-W` milliseconds.
"""

from __future__ import annotations

import ipaddress
import json

from tests.lab.commands.support import (
    EX_NOHOST,
    EX_OSERR,
    EX_USAGE,
    BadOption,
    Caller,
    Execute,
    Exit,
    Output,
    getopt,
    scope_interface,
)
from tests.lab.kernel import interfaces, routing
from tests.lab.kernel.errors import Errno
from tests.lab.kernel.state import INET, INET6, is_link_local

USAGE = """usage:
\tping [-4AaDdfHnoQqRrv] [-C pcp] [-c count] [-G sweepmaxsize] [-g sweepminsize]
\t    [-h sweepincrsize] [-i wait] [-l preload] [-M mask | time] [-m ttl]
\t    [-P policy] [-p pattern] [-S src_addr] [-s packetsize] [-t timeout]
\t    [-W waittime] [-z tos] IPv4-host
\tping [-6AaDdEfHNnOoquvYyZ] [-b bufsiz] [-C pcp] [-c count] [-e gateway] [-I interface]
\t    [-i wait] [-k addrtype] [-l preload] [-m hoplimit] [-P policy]
\t    [-p pattern] [-S sourceaddr] [-s packetsize] [-t timeout] [-W waittime] [hops ...] IPv6-host
"""
SIZE4, SIZE6 = 56, 8
FLOOD = 0.01  # seconds between packets of -f, or as fast as they come back
MOST_PCP = 7


def main(arguments: list[str], caller: Caller, output: Output) -> Execute:
    """Check the command line; order the packets to be sent. Exit with FreeBSD's status for what it does not take."""
    try:
        options, words = getopt("ping", arguments, "46C:c:fI:i:t:W:S:s:nqom:vD", output)
    except BadOption:
        words, options = [], []
    if len(words) != 1:
        output.err(USAGE)
        raise Exit(EX_USAGE)
    flags = dict(options)
    host = words[0]
    six = "6" in flags or ("4" not in flags and ":" in host)
    try:
        text, scope = scope_interface(caller.vnet, host)
        address = ipaddress.IPv6Address(text) if six else ipaddress.IPv4Address(text)
        source = str(ipaddress.ip_address(flags["S"].partition("%")[0])) if "S" in flags else ""
    except (KeyError, ValueError):
        output.fail(
            EX_NOHOST,
            f"ping: cannot resolve {host}: Unknown host" if not six else f"ping: {host}: Name does not resolve",
        )
    if not may_send(caller):
        output.fail(EX_OSERR, f"ping: ssend socket: {Errno.EPERM.value}")
    if "I" in flags and six and scope is None:
        scope = caller.vnet.interface(flags["I"])
        if scope is None:
            output.fail(1, f"ping: {flags['I']}: invalid interface name")
    if not -1 <= _integer(flags.get("C", "-1")) <= MOST_PCP:
        output.fail(EX_USAGE, f"ping: invalid PCP: `{flags['C']}'")
    if scope is not None:
        interfaces.realise(scope)
    order = {
        "six": six,
        "target": str(address),
        "shown": host,
        "scope": scope.link if scope else 0,
        "names": {str(each.link): each.name for each in caller.vnet.interfaces if each.link},
        "count": _number(flags, "c", output, 0),
        "interval": FLOOD if "f" in flags else _number(flags, "i", output, 1),
        "timeout": _number(flags, "t", output, 0),
        "wait": _number(flags, "W", output, 0) / 1000,
        "size": int(_number(flags, "s", output, SIZE6 if six else SIZE4)),
        "ttl": int(_number(flags, "m", output, 0)),
        "quiet": bool({"q", "f"} & flags.keys()),  # FreeBSD prints a dot for each lost one of -f
        "once": "o" in flags,
        "verbose": "v" in flags,
        "source": source,
        "refusal": "",
    }
    if not six:
        route = routing.lookup(caller.vnet, INET, int(address))
        if route is not None and not route.hops[0].source:
            order["refusal"] = Errno.EADDRNOTAVAIL.value
    elif scope is None and is_link_local(INET6, int(address)):
        order["refusal"] = Errno.EHOSTUNREACH.value
    return Execute([*caller.machine.python, str(caller.machine.programs / ".ping.py"), json.dumps(order)])


def may_send(caller: Caller) -> bool:
    """Tell whether the caller gets a raw socket.

    In a vnet of its own a jail's root always does: PRIV_NETINET_RAW is among what prison_priv_check() (kern_jail.c)
    allows there before allow.raw_sockets is asked.
    """
    return caller.root and (caller.jail.own_vnet or caller.jail.raw_sockets)


def _integer(text: str) -> int:
    """A number, or one that no option takes."""
    try:
        return int(text)
    except ValueError:
        return MOST_PCP + 1


def _number(flags: dict[str, str], letter: str, output: Output, default: float) -> float:
    if letter not in flags:
        return default
    try:
        value = float(flags[letter]) if letter == "i" else int(flags[letter])
    except ValueError:
        value = -1
    names = {"c": "count of packets to transmit", "i": "timing interval", "t": "timeout", "W": "timing interval"}
    if value < 0 or (value == 0 and letter in "cti"):
        output.fail(EX_USAGE, f"ping: invalid {names.get(letter, 'value')}: `{flags[letter]}'")
    return value
