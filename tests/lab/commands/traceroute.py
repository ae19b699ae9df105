"""traceroute(8) and traceroute6(8) of FreeBSD 13.2: the options; tests/lab/bin/traceroute.py sends the probes.

Source: contrib/traceroute/traceroute.c, usr.sbin/traceroute6/traceroute6.c.
"""

from __future__ import annotations

import ipaddress
import json

from tests.lab.commands.ping import may_send
from tests.lab.commands.support import BadOption, Caller, Execute, Exit, Output, getopt

HOPS, QUERIES, WAIT = 64, 3, 5


def main4(arguments: list[str], caller: Caller, output: Output) -> Execute:
    """traceroute."""
    return _main("traceroute", arguments, caller, output, six=False)


def main6(arguments: list[str], caller: Caller, output: Output) -> Execute:
    """traceroute6."""
    return _main("traceroute6", arguments, caller, output, six=True)


def _main(name: str, arguments: list[str], caller: Caller, output: Output, *, six: bool) -> Execute:
    try:
        options, words = getopt(name, arguments, "nw:q:m:", output)
        flags = dict(options)
        numbers = [int(flags.get(letter, default)) for letter, default in (("m", HOPS), ("q", QUERIES), ("w", WAIT))]
        target = str((ipaddress.IPv6Address if six else ipaddress.IPv4Address)(words[0]))
    except (BadOption, ValueError, IndexError):
        output.err(f"usage: {name} [-n] [-m hops] [-q queries] [-w wait] host (what the lab has of it)\n")
        raise Exit(1) from None
    if not may_send(caller):
        output.fail(1, f"{name}: icmp socket: Operation not permitted")
    order = {"six": six, "target": target, "hops": numbers[0], "queries": numbers[1], "wait": numbers[2]}
    return Execute([*caller.machine.python, str(caller.machine.programs / ".traceroute.py"), json.dumps(order)])
