"""netstat(1) of FreeBSD 13.2: -r, -i, TCP sockets and -Q.

Source: usr.bin/netstat/{main,route,if,inet,netisr}.c; freebsd-13.2/3-routes.txt, 1-interfaces.txt, 14-dying.txt,
15-host.txt.

Without -W an interface's name is cut to eight characters, in JSON too: that is what the real one does.
"""

from __future__ import annotations

import json
from typing import NoReturn

from tests.lab.commands.support import BadOption, Caller, Exit, Output, getopt, strip_libxo
from tests.lab.kernel import carp, routing
from tests.lab.kernel.netlink import Counters
from tests.lab.kernel.state import (
    INET,
    INET6,
    WIDTH,
    Address,
    Hop,
    Interface,
    Key,
    Route,
    Rtf,
    Vnet,
    network,
    plain,
    scoped_text,
    text_of,
    with_scope,
)

LINK = 0  # link-level addresses, for -i: no family of routes
USAGE = """usage: netstat [-46AaLnRSTWx] [-f protocol_family | -p protocol]
               [-M core] [-N system]
       netstat -i | -I interface [-46abdhnW] [-f address_family]
               [-M core] [-N system]
       netstat -w wait [-I interface] [-46d] [-M core] [-N system] [-q howmany]
       netstat -s [-46sz] [-f protocol_family | -p protocol]
               [-M core] [-N system]
       netstat -i | -I interface -s [-46s]
               [-f protocol_family | -p protocol] [-M core] [-N system]
       netstat -m [-M core] [-N system]
       netstat -B [-z] [-I interface]
       netstat -r [-46AnW] [-F fibnum] [-f address_family]
       netstat -rs [-s] [-M core] [-N system]
       netstat -g [-46W] [-f address_family] [-M core] [-N system]
       netstat -gs [-46s] [-f address_family] [-M core] [-N system]
       netstat -Q
"""
FAMILIES: dict[str, int] = {"inet": INET, "inet6": INET6, "link": LINK}
_TITLES = {INET: "Internet", INET6: "Internet6"}
_LETTERS = (
    (Rtf.UP, "U", "up"),
    (Rtf.GATEWAY, "G", "gateway"),
    (Rtf.HOST, "H", "host"),
    (Rtf.REJECT, "R", "reject"),
    (Rtf.STATIC, "S", "static"),
    (Rtf.PROTO1, "1", "proto1"),
    (Rtf.PROTO2, "2", "proto2"),
    (Rtf.PROTO3, "3", "proto3"),
    (Rtf.BLACKHOLE, "B", "blackhole"),
)
_DESTINATION_WIDTH = {INET: 18, INET6: 33}
_GATEWAY_WIDTH = {INET: 18, INET6: 29}
_INTERFACE_WIDTH = 8
_INTERFACE_WIDTH_WIDE = {INET: 10, INET6: 8}
_FLAGS_WIDTH = 6
_NAME_WIDTH, _NETWORK_WIDTH, _ADDRESS_WIDTH = 5, 13, 17  # of -i (if.c)
#: Linux's TCP states (net/tcp_states.h) in FreeBSD's words (netinet/tcp_fsm.h).
_TCP_STATES = {
    1: "ESTABLISHED",
    2: "SYN_SENT",
    3: "SYN_RCVD",
    4: "FIN_WAIT_1",
    5: "FIN_WAIT_2",
    6: "TIME_WAIT",
    7: "CLOSED",
    8: "CLOSE_WAIT",
    9: "LAST_ACK",
    10: "LISTEN",
    11: "CLOSING",
    12: "SYN_RCVD",
}
_LISTEN = 10
#: usr.bin/netstat/inet.c: pfsyncacts, and the counters before, between and after its two histograms.
_PFSYNC_ACTIONS = (
    "clear-all-request",
    "state-insert",
    "state-inserted-ack",
    "state-update",
    "compressed-state-update",
    "uncompressed-state-request",
    "state-delete",
    "compressed-state-delete",
    "fragment-insert",
    "fragment-delete",
    "bulk-update-mark",
    "TDB-replay-counter-update",
    "end-of-frame-mark",
)
_PFSYNC_COUNTERS = (
    ("received-inet-packets", "received-inet6-packets"),
    (
        "dropped-bad-interface",
        "dropped-bad-ttl",
        "dropped-short-header",
        "dropped-bad-version",
        "dropped-bad-auth",
        "dropped-bad-action",
        "dropped-short",
        "dropped-bad-values",
        "dropped-stale-state",
        "dropped-failed-lookup",
        "sent-inet-packets",
        "send-inet6-packets",
    ),
    ("discarded-no-memory", "send-errors"),
)
_NETISR = """Configuration:
Setting                        Current        Limit
Thread count                         1            1
Default queue limit                256        10240
Dispatch policy                 direct          n/a
Threads bound to CPUs         disabled          n/a

Protocols:
Name   Proto QLimit Policy Dispatch Flags
ip         1    256   flow  default   ---
igmp       2    256 source  default   ---
rtsock     3    256 source  default   ---
arp        4    256 source  default   ---
ether      5    256 source   direct   ---
ip6        6    256   flow  default   ---

Workstreams:
WSID CPU   Name     Len WMark   Disp'd  HDisp'd   QDrops   Queued  Handled
   0   0   ip         0     0        0        0        0        0        0
   0   0   igmp       0     0        0        0        0        0        0
   0   0   rtsock     0     0        0        0        0        0        0
   0   0   arp        0     0        0        0        0        0        0
   0   0   ether      0     0        0        0        0        0        0
   0   0   ip6        0     0        0        0        0        0        0
"""


def main(arguments: list[str], caller: Caller, output: Output) -> None:
    """Run the command; Exit with 1 for what it does not know."""
    rest, style = strip_libxo(arguments)
    try:
        options, words = getopt("netstat", rest, "46AaBbdF:f:ghI:iLlM:mN:np:Qq:RrSTsuWw:xz", output)
    except BadOption:
        _usage(output)
    if words:
        _usage(output)
    flags = {letter for letter, _value in options}
    family: int | None = None
    for letter, value in options:
        if letter == "f":
            if value not in FAMILIES:
                output.fail(1, f"netstat: {value}: unknown address family")
            family = FAMILIES[value]
        if letter in "46":
            family = INET if letter == "4" else INET6
        if letter == "p" and value not in ("tcp", "carp", "pfsync"):
            output.fail(1, f"netstat: {value}: unknown or uninstrumented protocol")
    protocol = next((value for letter, value in options if letter == "p"), "")
    encoded = style.startswith("json")
    families: list[int] = [INET, INET6] if family is None else [family]
    if "r" in flags:
        (_routes_json if encoded else _routes_text)(caller.vnet, families, output, wide="W" in flags)
    elif flags & {"i", "I"}:
        name = next((value for letter, value in options if letter == "I"), None)
        if name is not None and caller.vnet.interface(name) is None:
            output.fail(1, f"netstat: interface {name} does not exist")
        rows = _interfaces(caller.vnet, name, [LINK, *families] if family is None else families)
        if encoded:
            output.out(f'{{"statistics": {{"interface": [{", ".join(map(_fields, rows))}]}}}}\n')
        else:
            _interfaces_text(rows, output, octets="b" in flags, wide="W" in flags)
    elif "Q" in flags:
        output.out(_NETISR)
    elif "s" in flags and protocol in ("carp", "pfsync") and encoded:
        output.out((_carp if protocol == "carp" else _pfsync)(caller.vnet))
    elif flags & {"s", "m", "B", "g", "w"}:
        output.fail(1, "netstat: the lab keeps no statistics")
    else:
        _sockets(caller.vnet, families, output, everything="a" in flags)


def _carp(vnet: Vnet) -> str:
    """carp_stats() (inet.c) with --libxo json."""
    counted = {name: vnet.carp_statistics.get(name, 0) for name in carp.STATISTICS}
    return f'{{"statistics": {{"carp": {_fields(dict(counted))}}}}}\n'


def _pfsync(_vnet: Vnet) -> str:
    """pfsync_stats() (inet.c) with --libxo json: the lab's sends no packets, so that nothing is counted."""
    rows = ", ".join(_fields({"name": name, "count": 0}) for name in _PFSYNC_ACTIONS)
    before, between, after = (",".join(f'"{name}":0' for name in names) for names in _PFSYNC_COUNTERS)
    text = f'{before}, "input-histogram": [{rows}],{between}, "output-histogram": [{rows}],{after}'
    return f'{{"statistics": {{"pfsync": {{{text}}}}}}}\n'


def flag_letters(flags: Rtf) -> str:
    """A route's flags as letters."""
    return "".join(letter for flag, letter, _name in _LETTERS if flag in flags)


def destination(vnet: Vnet, key: Key) -> str:
    """A destination as netstat writes it: default, an address, or address/length."""
    if key.prefix_length == 0:
        return "default"
    text = scoped_text(vnet, key.family, key.value)
    return text if key.prefix_length == WIDTH[key.family] else f"{text}/{key.prefix_length}"


def _rows(vnet: Vnet, family: int) -> list[tuple[Route, Hop, str, str]]:
    rows = []
    for route in vnet.sorted_routes(family):
        for hop in route.hops:
            on_link = f"link#{routing.link_number(route, hop)}"
            gateway = scoped_text(vnet, *hop.gateway) if hop.gateway else on_link
            rows.append((route, hop, destination(vnet, route.key), gateway))
    return rows


def _routes_text(vnet: Vnet, families: list[int], output: Output, *, wide: bool) -> None:
    lines = ["Routing tables"]
    for family in families:
        rows = _rows(vnet, family)
        if not rows:
            continue
        to, by = _DESTINATION_WIDTH[family], _GATEWAY_WIDTH[family]
        name_width = _INTERFACE_WIDTH_WIDE[family] if wide else _INTERFACE_WIDTH
        middle = f"{'Nhop#':>6} {'Mtu':>6} " if wide else ""
        lines += ["", f"{_TITLES[family]}:"]
        lines.append(
            f"{'Destination':<{to}} {'Gateway':<{by}} {'Flags':<{_FLAGS_WIDTH}} {middle}{'Netif':>{name_width}} Expire"
        )
        for _route, hop, target, gateway in rows:
            over = max(0, len(target) - to)
            gateway_width = max(0, by - over)
            flags_width = max(0, _FLAGS_WIDTH - max(0, len(gateway) - gateway_width))
            line = f"{target:<{to}} {gateway:<{gateway_width}} {flag_letters(hop.flags):<{flags_width}} "
            if wide:
                line += f"{hop.number:>6} {hop.mtu:>6} {hop.interface.name:>{name_width}}"
            else:
                line += f"{hop.interface.name[:name_width]:>{name_width}}"
            lines.append(line)
    output.out("\n".join(lines) + "\n")


def _routes_json(vnet: Vnet, families: list[int], output: Output, *, wide: bool) -> None:
    tables = []
    for family in families:
        entries = []
        for _route, hop, target, gateway in _rows(vnet, family):
            letters = json.dumps(flag_letters(hop.flags))
            pretty = ",".join(json.dumps(name) for flag, _letter, name in _LETTERS if flag in hop.flags)
            name = hop.interface.name if wide else hop.interface.name[:_INTERFACE_WIDTH]
            numbers = f'"nhop":{hop.number},"mtu":{hop.mtu},' if wide else ""
            entries.append(
                f'{{"destination":{json.dumps(target)},"gateway":{json.dumps(gateway)},"flags":{letters}, '
                f'"flags_pretty": [{pretty}],"weight":1,{numbers}"interface-name":{json.dumps(name)}}}'
            )
        if entries:
            tables.append(f'{{"address-family":"{_TITLES[family]}", "rt-entry": [{", ".join(entries)}]}}')
    output.out(
        f'{{"statistics": {{"route-information": {{"route-table": {{"rt-family": [{", ".join(tables)}]}}}}}}}}\n'
    )


def _interfaces(vnet: Vnet, name: str | None, families: list[int]) -> list[dict[str, object]]:
    """The rows of -i in these families (intpr()): each interface's own, then its addresses', families together."""
    counted = vnet.namespace.counters()
    nothing = Counters(0, 0, 0, 0, 0, 0)
    rows: list[dict[str, object]] = []
    for interface in vnet.interfaces:
        if name not in (None, interface.name):
            continue
        count = counted.get(interface.link, nothing)
        first: dict[str, object] = {"name": interface.name, "flags": f"{interface.flags.value:#x}"}
        if LINK in families:
            rows.append(
                first
                | {
                    "mtu": interface.mtu,
                    "network": f"<Link#{interface.index}>",
                    "address": interface.ether or interface.name,
                    "received-packets": count.rx_packets,
                    "received-errors": count.rx_errors,
                    "dropped-packets": 0,
                    "received-bytes": count.rx_bytes,
                    "sent-packets": count.tx_packets,
                    "send-errors": count.tx_errors,
                    "sent-bytes": count.tx_bytes,
                    "collisions": 0,
                }
            )
        order = list(dict.fromkeys(address.family for address in interface.addresses))
        for address in sorted(interface.addresses, key=lambda each: order.index(each.family)):
            if address.family in families:
                own, net = _network_of(vnet, interface, address)
                none = dict.fromkeys(("received-packets", "received-bytes", "sent-packets", "sent-bytes"), 0)
                rows.append(first | {"network": net, "address": own} | none)
    return rows


def _interfaces_text(rows: list[dict[str, object]], output: Output, *, octets: bool, wide: bool) -> None:
    """The table of -i; a column that a row has nothing for shows "-"."""
    names, nets, addresses = ([str(row[key]) for row in rows] for key in ("name", "network", "address"))
    widths = [_NAME_WIDTH, _NETWORK_WIDTH, _ADDRESS_WIDTH]
    if wide:
        widths = [max([least, *map(len, texts)]) for least, texts in zip(widths, (names, nets, addresses), strict=True)]
    columns = [
        ("Ipkts", "received-packets", 8),
        ("Ierrs", "received-errors", 5),
        ("Idrop", "dropped-packets", 5),
        *([("Ibytes", "received-bytes", 10)] if octets else []),
        ("Opkts", "sent-packets", 8),
        ("Oerrs", "send-errors", 5),
        *([("Obytes", "sent-bytes", 10)] if octets else []),
        ("Coll", "collisions", 5),
    ]

    def line(name: str, mtu: object, net: str, address: str, values: list[object]) -> str:
        texts = (f"{text[:width]:<{width}}" for text, width in zip((net, address), widths[1:], strict=True))
        numbers = " ".join(f"{value!s:>{width}}" for value, (_title, _key, width) in zip(values, columns, strict=True))
        return f"{name[: widths[0]]:<{widths[0]}} {mtu!s:>5} {' '.join(texts)} {numbers}\n"

    output.out(line("Name", "Mtu", "Network", "Address", [title for title, _key, _width in columns]))
    for row, name, net, address in zip(rows, names, nets, addresses, strict=True):
        output.out(
            line(name, row.get("mtu", "-"), net, address, [row.get(key, "-") for _title, key, _width in columns])
        )


def _network_of(vnet: Vnet, interface: Interface, address: Address) -> tuple[str, str]:
    family, length = address.family, address.prefix_length
    value = with_scope(family, address.value, interface)
    own = scoped_text(vnet, family, value)
    net = network(family, value, length)
    if plain(family, net) == plain(family, value) and length == WIDTH[family]:
        return own, f"{own}/{length}"
    text = scoped_text(vnet, family, net) if family == INET6 else text_of(family, net)
    return own, f"{text}/{length}"


def _fields(values: dict[str, object]) -> str:
    return json.dumps(values, separators=(",", ":"), ensure_ascii=False)


def _sockets(vnet: Vnet, families: list[int], output: Output, *, everything: bool) -> None:
    rows = [row for row in vnet.namespace.tcp() if row[0] in families and (everything or row[3] != _LISTEN)]
    if not rows:
        return
    lines = ["Active Internet connections" + (" (including servers)" if everything else "")]
    lines.append(
        f"{'Proto':<5} {'Recv-Q':<6} {'Send-Q':<6} {'Local Address':<22} {'Foreign Address':<22} {'(state)':<11}"
    )
    for family, local, remote, state, receive, send in sorted(rows, key=lambda row: row[3] == _LISTEN):
        protocol = "tcp4" if family == INET else "tcp6"
        lines.append(
            f"{protocol:<5} {receive:>6} {send:>6} {local[:22]:<22} {remote[:22]:<22} "
            f"{_TCP_STATES.get(state, 'CLOSED'):<11}"
        )
    output.out("\n".join(lines) + "\n")


def _usage(output: Output) -> NoReturn:
    output.err(USAGE)
    raise Exit(1)
