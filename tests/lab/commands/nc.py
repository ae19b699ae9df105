"""nc(1) of FreeBSD 13.2, TCP only: the options; tests/lab/bin/nc.py carries the bytes.

Source: contrib/netcat/netcat.c.
"""

from __future__ import annotations

import ipaddress
import json

from tests.lab.commands.support import BadOption, Caller, Execute, Exit, Output, getopt, scope_interface
from tests.lab.kernel import interfaces

USAGE = """usage: nc [-46DdEFhklMNnrStUuvz] [-e policy] [-I length] [-i interval] [-O length]
\t  [-P proxy_username] [-p source_port] [-s source] [-T ToS]
\t  [-V rtable] [-w timeout] [-X proxy_protocol]
\t  [-x proxy_address[:port]] [destination] [port]
"""
PORTS = range(1, 65536)


def main(arguments: list[str], caller: Caller, output: Output) -> Execute:
    """Check the command line; order the connection to be made. Exit with 1 for what nc does not take."""
    try:
        options, words = getopt("nc", arguments, "46dklNns:vw:z", output)
    except BadOption:
        output.err(USAGE)
        raise Exit(1) from None
    flags = dict(options)
    if not words or len(words) > 2 or (len(words) == 1 and "l" not in flags):
        output.err(USAGE)
        raise Exit(1)
    port, host = words[-1], words[0] if len(words) == 2 else ""
    if not port.removeprefix("-").isdecimal() or int(port) not in PORTS:
        # strtonum(3)'s words, in build_ports()
        wrong = "invalid" if not port.removeprefix("-").isdecimal() else "too small" if int(port) < 1 else "too large"
        output.fail(1, f"nc: port number {wrong}: {port}")
    six = "6" in flags or (":" in host and "4" not in flags)
    scope = None
    if host:
        try:
            text, scope = scope_interface(caller.vnet, host)
            host = str(ipaddress.IPv6Address(text) if six else ipaddress.IPv4Address(text))
        except (KeyError, ValueError):
            output.fail(1, f"nc: getaddrinfo: {words[0]}: Name does not resolve")
    if scope is not None:
        interfaces.realise(scope)
    order = {
        "listen": "l" in flags,
        "keep": "k" in flags,
        "six": six,
        "host": host,
        "shown": words[0],
        "port": int(port),
        "scope": scope.link if scope else 0,
        "verbose": "v" in flags,
        "shut": "N" in flags,
        "probe": "z" in flags,
        "wait": int(flags.get("w", "0")) if flags.get("w", "0").isdecimal() else 0,
        "source": flags.get("s", ""),
    }
    return Execute([*caller.machine.python, str(caller.machine.programs / ".nc.py"), json.dumps(order)])
