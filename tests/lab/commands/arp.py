"""arp(8) of FreeBSD 13.2: all but -f. Source: usr.sbin/arp/arp.c; freebsd-13.2/10-interface-routes.txt."""

from __future__ import annotations

import contextlib
import ipaddress
import json
from typing import NoReturn

from tests.lab.commands.support import BadOption, Caller, Exit, Output, getopt, strip_libxo
from tests.lab.kernel import neighbours, routing
from tests.lab.kernel.errors import Errno, Refused
from tests.lab.kernel.neighbours import Entry
from tests.lab.kernel.state import INET, Route, Rtf, network, text_of

USAGE = """usage: arp [-n] [-i interface] hostname
       arp [-n] [-i interface] -a
       arp -d hostname [pub]
       arp -d [-i interface] -a
       arp -s hostname ether_addr [temp] [reject | blackhole] [pub [only]]
       arp -S hostname ether_addr [temp] [reject | blackhole] [pub [only]]
       arp -f filename
"""
MAC_BYTES = 6
MOST_WORDS = 6


def main(arguments: list[str], caller: Caller, output: Output) -> None:
    """Run the command; Exit with 1 when it fails."""
    rest, style = strip_libxo(arguments)
    try:
        options, words = getopt("arp", rest, "andsSi:", output)
    except BadOption:
        _usage(output)
    flags = dict(options)
    only = flags.get("i")
    if only is not None:
        if flags.keys() & {"s", "S"} or ("d" in flags and "a" not in flags):
            output.fail(1, "arp: -i not applicable to this operation")
        if caller.vnet.interface(only) is None:
            output.fail(1, f"arp: interface {only} does not exist")
    table = [entry for entry in neighbours.entries(caller.vnet, INET) if only is None or entry.interface.name == only]
    encoded = style.startswith("json")
    if "d" in flags:
        _delete(words, flags, table, caller, output)
    elif flags.keys() & {"s", "S"}:
        if not 2 <= len(words) <= MOST_WORDS:
            _usage(output)
        _privileged(caller, output)
        if "S" in flags:
            with contextlib.suppress(Exit):  # F_REPLACE does not look at what delete() answers
                _forget(words[0], caller, output)
        _set(words, caller, output)
    elif "a" in flags:
        if words:
            _usage(output)
        _print(table, output, encoded=encoded)
    elif len(words) == 1:
        _show(words[0], only, table, output, encoded=encoded)
    else:
        _usage(output)


def _show(host: str, only: str | None, table: list[Entry], output: Output, *, encoded: bool) -> None:
    """get() of arp.c."""
    value = _address(host, output)
    found = [entry for entry in table if entry.value == value]
    if not found and not encoded:
        where = f" on {only}" if only else ""
        output.out(f"{host} ({text_of(INET, value)}) -- no entry{where}\n")
    else:
        _print(found, output, encoded=encoded)
    if not found:
        raise Exit(1)


def _delete(words: list[str], flags: dict[str, str], table: list[Entry], caller: Caller, output: Output) -> None:
    """-d: one, or with -a all that are not this host's own."""
    if "a" in flags:
        if words:
            _usage(output)
        _privileged(caller, output)
        for entry in table:
            if not entry.own:
                _forget(text_of(INET, entry.value), caller, output)
    elif len(words) == 1 or (len(words) == 2 and words[1].startswith("pub")):
        _privileged(caller, output)
        _forget(words[0], caller, output)
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


def _print(table: list[Entry], output: Output, *, encoded: bool) -> None:
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


def _route(host: str, value: int, caller: Caller, output: Output) -> Route:
    """RTM_GET: the route to an address; without one the routing socket says so."""
    route = routing.lookup(caller.vnet, INET, value)
    if route is None:
        output.err(f"arp: writing to routing socket: {Errno.ESRCH.value}\n")
        output.fail(1, f"arp: {host}: {Errno.ESRCH.value}")
    return route


def _on_link(route: Route) -> bool:
    hop = route.hops[0]
    return not hop.flags & Rtf.GATEWAY and bool(hop.interface.ether)


def _forget(host: str, caller: Caller, output: Output) -> None:
    """delete() of arp.c; where there is no entry the kernel's ENOENT (lltable_delete_addr()) is said, as for ndp(8)."""
    value = _address(host, output)
    route = _route(host, value, caller, output)
    if not _on_link(route):
        output.fail(1, f"arp: delete: cannot locate {host}")
    try:
        neighbours.forget(caller.vnet, INET, value, None)
    except Refused as refused:
        output.fail(1, f"arp: writing to routing socket: {refused.errno.value}")
    output.out(f"{host} ({text_of(INET, value)}) deleted\n")


def _set(words: list[str], caller: Caller, output: Output) -> None:
    host, ether = words[:2]
    value = _address(host, output)
    given = set()
    for word in words[2:]:
        if word not in ("temp", "pub", "only", "reject", "blackhole"):
            output.err(f"arp: Invalid parameter '{word}'\n")
            _usage(output)
        given.add(word)
        if {"reject", "blackhole"} <= given:
            output.fail(1, "arp: Choose one of blackhole or reject, not both.")
    mac = _proxy_address(host, value, caller, output) if "pub" in given and ether == "auto" else _mac(ether, output)
    route = _route(host, value, caller, output)
    if not _on_link(route):
        output.fail(1, f"arp: cannot intuit interface index and type for {host}")
    neighbours.pin(caller.vnet, route.hops[0].interface, INET, value, mac)


def _proxy_address(host: str, value: int, caller: Caller, output: Output) -> str:
    """get_ether_addr() of arp.c: the MAC of an interface on the same subnet."""
    near = [
        interface
        for interface in caller.vnet.interfaces
        for address in interface.addresses
        if address.family == INET
        and network(INET, address.value, address.prefix_length) == network(INET, value, address.prefix_length)
        and interface.up
        and interface.ether
    ]
    if not near:
        output.fail(1, f"arp: no interface found for {host}")
    output.out(f"using interface {near[0].name} for proxy with address {near[0].ether}\n")
    return near[0].ether


def _mac(text: str, output: Output) -> str:
    """ether_aton(3): six numbers of one or two hexadecimal digits."""
    try:
        raw = bytes(int(part, 16) for part in text.split(":"))
    except ValueError:
        raw = b""
    if len(raw) != MAC_BYTES:
        output.fail(1, f"arp: invalid Ethernet address '{text}'")
    return ":".join(f"{byte:02x}" for byte in raw)


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
