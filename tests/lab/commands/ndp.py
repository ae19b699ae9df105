"""ndp(8) of FreeBSD 13.2: -a, -c, -d, -i, -s, -n.

Source: usr.sbin/ndp/ndp.c; freebsd-13.2/4-neighbours.txt, 4b-neighbours.txt.
"""

from __future__ import annotations

import ipaddress
import json
from typing import NoReturn

from tests.lab.commands.support import BadOption, Caller, Exit, Output, getopt, scope_interface, strip_libxo
from tests.lab.kernel import interfaces, neighbours, routing
from tests.lab.kernel.errors import Refused
from tests.lab.kernel.neighbours import Entry
from tests.lab.kernel.state import INET6, Interface, Nd6, Rtf, is_link_local, scoped_text, with_scope

USAGE = """usage: ndp [-nt] hostname
       ndp [-nt] -a | -c | -p | -r | -H | -P | -R
       ndp [-nt] -A wait
       ndp [-nt] -d hostname
       ndp [-nt] -f filename
       ndp [-nt] -i interface [flags...]
       ndp [-nt] -I [interface|delete]
       ndp [-nt] -s nodename etheraddr [temp] [proxy]
"""
HEADER = "Neighbor                             Linklayer Address  Netif Expire    1s 5s"
_ADDRESS, _ETHER, _INTERFACE = 36, 17, 6
MAC_BYTES = 6
_DAY, _HOUR, _MINUTE = 86400, 3600, 60
#: ifinfo()'s words for the flags of an interface, in its order.
_FLAGS = {
    "disabled": Nd6.IFDISABLED,
    "nud": Nd6.PERFORMNUD,
    "accept_rtadv": Nd6.ACCEPT_RTADV,
    "auto_linklocal": Nd6.AUTO_LINKLOCAL,
    "no_prefer_iface": Nd6.NO_PREFER_IFACE,
}
#: The kernel's defaults (nd6.h); "reachable" is drawn by lot on FreeBSD, and the lab knows no MTUs of router advertisements.
_TIMES = "linkmtu=0, maxmtu=0, curhlim=64, basereachable=30s0ms, reachable=30s, retrans=1s0ms"
_PROBES = 3  # how often an unanswered solicitation has been sent by the time somebody looks (nd6_mmaxtries)


def main(arguments: list[str], caller: Caller, output: Output) -> None:
    """Run the command; Exit with 1 when it fails."""
    rest, style = strip_libxo(arguments)
    try:
        options, words = getopt("ndp", rest, "acd:i:ns:t", output)
    except BadOption:
        _usage(output)
    flags = dict(options)
    if "a" in flags and not words:
        _list(caller, output, encoded=style.startswith("json"))
    elif "c" in flags and not words:
        _clear(caller, output)
    elif "d" in flags and not words:
        _delete(flags["d"], caller, output)
    elif "i" in flags:
        _interface(flags["i"], words, caller, output)
    elif "s" in flags and words:
        _set(flags["s"], words, caller, output)
    elif words and not flags.keys() - {"n", "t"}:
        _show(words[0], caller, output)
    else:
        _usage(output)


def seconds(total: int) -> str:
    """A time as sec2str() writes it: 35s, 23h59m58s, 1d0h0m0s."""
    text = ""
    days, rest = divmod(total, _DAY)
    hours, rest = divmod(rest, _HOUR)
    minutes, rest = divmod(rest, _MINUTE)
    if days:
        text += f"{days}d"
    if text or hours:
        text += f"{hours}h"
    if text or minutes:
        text += f"{minutes}m"
    return f"{text}{rest}s"


def _line(caller: Caller, entry: Entry) -> str:
    address = scoped_text(caller.vnet, INET6, entry.value)
    ether = entry.ether or "(incomplete)"
    address_width = max(_ADDRESS, len(address))
    ether_width = max(len(ether), _ADDRESS + _ETHER - address_width)
    name_width = max(len(entry.interface.name), _ADDRESS + _ETHER + _INTERFACE - address_width - ether_width)
    expire = "permanent" if entry.expire is None else seconds(entry.expire)
    line = f"{address:<{address_width}} {ether:<{ether_width}} {entry.interface.name:>{name_width}} "
    line += f"{expire:<9} {entry.state} {'R' if entry.router else ''}"
    return line + (f" {_PROBES}" if entry.state == "I" and entry.expire is not None else "")


def _list(caller: Caller, output: Output, *, encoded: bool) -> None:
    table = neighbours.entries(caller.vnet, INET6)
    if not encoded:
        output.out("".join(f"{line}\n" for line in [HEADER, *(_line(caller, entry) for entry in table)]))
        return
    items = []
    for entry in table:
        fields: dict[str, object] = {
            "address": scoped_text(caller.vnet, INET6, entry.value),
            "mac-address": entry.ether or "(incomplete)",
            "interface": entry.interface.name,
        }
        if entry.expire is None:
            fields["permanent"] = True
        else:
            fields["expires_sec"] = entry.expire
        fields |= {"neighbor-state": entry.state, "nd-flags": "R" if entry.router else ""}
        items.append(json.dumps(fields, separators=(",", ":")))
    output.out(f'{{"__version": "1", "ndp": {{"neighbor-cache": [{", ".join(items)}]}}}}\n')


def _clear(caller: Caller, output: Output) -> None:
    _privileged(caller, output)
    done: set[tuple[int, int]] = set()
    for entry in neighbours.entries(caller.vnet, INET6):
        mark = (entry.interface.index, entry.value)
        if entry.own or mark in done:
            continue
        done.add(mark)
        _forget(entry.value, entry.interface, caller, output)


def _delete(text: str, caller: Caller, output: Output) -> None:
    _privileged(caller, output)
    value, interface = _address(text, caller, output)
    _forget(value, interface, caller, output)


def _forget(value: int, interface: Interface | None, caller: Caller, output: Output) -> None:
    try:
        neighbours.forget(caller.vnet, INET6, value, interface)
    except Refused as refused:
        output.fail(1, f"ndp: writing to routing socket: {refused.errno.value}")
    text = scoped_text(caller.vnet, INET6, value)
    output.out(f"{text} ({text}) deleted\n")


def _set(text: str, words: list[str], caller: Caller, output: Output) -> None:
    _privileged(caller, output)
    value, interface = _address(text, caller, output)
    ether = words[0]
    for word in words[1:]:
        if word not in ("temp", "proxy"):
            _usage(output)
    if interface is None:
        route = routing.lookup(caller.vnet, INET6, value)
        if route is None or route.hops[0].flags & Rtf.GATEWAY or not route.hops[0].interface.ether:
            output.out(f"cannot locate {text}\n")
            raise Exit(1)
        interface = route.hops[0].interface
    try:
        mac = bytes(int(part, 16) for part in ether.split(":"))
    except ValueError:
        mac = b""
    if len(mac) != MAC_BYTES:
        # said, and yet the entry is made, without a MAC, and the status is 0 (4-neighbours.txt)
        output.err(f"ndp: invalid Ethernet address '{ether}'\n")
        mac = b""
    neighbours.pin(caller.vnet, interface, INET6, value, ":".join(f"{byte:02x}" for byte in mac))


def _interface(name: str, words: list[str], caller: Caller, output: Output) -> None:
    """ifinfo() of ndp.c: set flags of neighbour discovery ("-disabled" clears one; other words do nothing), show all."""
    interface = caller.vnet.interface(name)
    if interface is None:
        output.fail(1, "ndp: ioctl(SIOCGIFINFO_IN6): Device not configured")
    for word in words:
        _privileged(caller, output)
        flag = _FLAGS.get(word.removeprefix("-"), Nd6(0))
        interfaces.set_nd6(interface, interface.nd6 & ~flag if word.startswith("-") else interface.nd6 | flag)
    output.out(_TIMES)
    if interface.nd6:
        output.out(f"\nFlags: {''.join(f'{word} ' for word, flag in _FLAGS.items() if flag in interface.nd6)}")
    output.out("\n")


def _show(text: str, caller: Caller, output: Output) -> None:
    value, _interface = _address(text, caller, output)
    lines = [_line(caller, entry) for entry in neighbours.entries(caller.vnet, INET6) if entry.value == value]
    if not lines:
        output.fail(1, f"ndp: {text} ({text}) -- no entry")
    output.out("".join(f"{line}\n" for line in [HEADER, *lines]))


def _address(text: str, caller: Caller, output: Output) -> tuple[int, Interface | None]:
    try:
        plain, interface = scope_interface(caller.vnet, text)
        value = int(ipaddress.IPv6Address(plain))
    except (KeyError, ValueError):
        output.fail(1, f"ndp: {text}: Name does not resolve")
    if interface is None:
        return value, None
    return with_scope(INET6, value, interface), interface if is_link_local(INET6, value) else None


def _privileged(caller: Caller, output: Output) -> None:
    if not caller.root:
        output.fail(1, "ndp: writing to routing socket: Operation not permitted")


def _usage(output: Output) -> NoReturn:
    output.out(USAGE)
    raise Exit(1)
