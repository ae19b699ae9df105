"""arp(8) of FreeBSD 13.2: -a, -n, -d, -s, -i. Source: usr.sbin/arp/arp.c; freebsd-13.2/10-interface-routes.txt."""

from __future__ import annotations

import ipaddress
import json
from typing import NoReturn

from tests.lab.commands.support import BadOption, Caller, Exit, Output, getopt, strip_libxo
from tests.lab.kernel import neighbours, routing
from tests.lab.kernel.errors import Refused
from tests.lab.kernel.neighbours import Entry
from tests.lab.kernel.state import INET, Interface, Rtf, text_of

USAGE = """usage: arp [-n] [-i interface] hostname
       arp [-n] [-i interface] -a
       arp -d hostname [pub]
       arp -d [-i interface] -a
       arp -s hostname ether_addr [temp] [reject | blackhole] [pub [only]]
       arp -S hostname ether_addr [temp] [reject | blackhole] [pub [only]]
       arp -f filename
"""
MAC_BYTES = 6


def main(arguments: list[str], caller: Caller, output: Output) -> None:
    """Run the command; Exit with 1 when it fails."""
    rest, style = strip_libxo(arguments)
    try:
        options, words = getopt("arp", rest, "andsSi:", output)
    except BadOption:
        _usage(output)
    flags = dict(options)
    only = flags.get("i")
    table = [entry for entry in neighbours.entries(caller.vnet, INET) if only is None or entry.interface.name == only]
    if "d" in flags:
        _privileged(caller, output)
        if "a" in flags:
            for entry in table:
                if not entry.own:
                    _forget(entry.value, entry.interface, caller, output)
        elif words:
            _forget(_address(words[0], output), None, caller, output)
        else:
            _usage(output)
    elif flags.keys() & {"s", "S"}:
        _privileged(caller, output)
        _set(words, caller, output)
    elif "a" in flags:
        _list(table, output, encoded=style.startswith("json"))
    elif words:
        value = _address(words[0], output)
        lines = [_line(entry) for entry in table if entry.value == value]
        if not lines:
            output.out(f"{words[0]} ({words[0]}) -- no entry\n")
            raise Exit(1)
        output.out("".join(lines))
    else:
        _usage(output)


def _line(entry: Entry) -> str:
    line = f"? ({text_of(INET, entry.value)}) at {entry.ether or '(incomplete)'} on {entry.interface.name}"
    if entry.expire is None:
        line += " permanent"
    elif entry.expire > 0:
        line += f" expires in {entry.expire} seconds"
    else:
        line += " expired"
    return line + " [ethernet]\n"


def _list(table: list[Entry], output: Output, *, encoded: bool) -> None:
    if not encoded:
        output.out("".join(_line(entry) for entry in table))
        return
    items = []
    for entry in table:
        fields: dict[str, object] = {"hostname": "?", "ip-address": text_of(INET, entry.value)}
        fields["mac-address"] = entry.ether or "(incomplete)"
        fields["interface"] = entry.interface.name
        if entry.expire is None:
            fields["permanent"] = True
        elif entry.expire > 0:
            fields["expires"] = entry.expire
        else:
            fields["expired"] = True
        fields["type"] = "ethernet"
        items.append(json.dumps(fields, separators=(",", ":")))
    output.out(f'{{"__version": "1", "arp": {{"arp-cache": [{", ".join(items)}]}}}}\n')


def _forget(value: int, interface: Interface | None, caller: Caller, output: Output) -> None:
    text = text_of(INET, value)
    try:
        neighbours.forget(caller.vnet, INET, value, interface)
    except Refused:
        output.fail(1, f"arp: delete {text}: cannot locate {text}")
    output.out(f"{text} ({text}) deleted\n")


def _set(words: list[str], caller: Caller, output: Output) -> None:
    if len(words) < 2:
        _usage(output)
    value = _address(words[0], output)
    for word in words[2:]:
        if word not in ("temp", "pub", "only", "reject", "blackhole"):
            _usage(output)
    route = routing.lookup(caller.vnet, INET, value)
    interface = route.hops[0].interface if route is not None else None
    if words[1] == "auto":
        if interface is None or not interface.ether:
            output.fail(1, f"arp: no interface found for {words[0]}")
        mac = interface.ether
    else:
        try:
            raw = bytes(int(part, 16) for part in words[1].split(":"))
        except ValueError:
            raw = b""
        if len(raw) != MAC_BYTES:
            output.fail(1, f"arp: invalid Ethernet address '{words[1]}'")
        mac = ":".join(f"{byte:02x}" for byte in raw)
    if route is None or interface is None or route.hops[0].flags & Rtf.GATEWAY or not interface.ether:
        output.fail(1, f"arp: cannot intuit interface index and type for {words[0]}")
    neighbours.pin(caller.vnet, interface, INET, value, mac)


def _address(text: str, output: Output) -> int:
    try:
        return int(ipaddress.IPv4Address(text))
    except ValueError:
        output.fail(1, f"arp: {text}: Unknown host")


def _privileged(caller: Caller, output: Output) -> None:
    if not caller.root:
        output.fail(1, "arp: writing to routing socket: Operation not permitted")


def _usage(output: Output) -> NoReturn:
    output.err(USAGE)
    raise Exit(1)
