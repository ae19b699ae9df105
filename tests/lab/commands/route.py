"""route(8) of FreeBSD 13.2. Source: sbin/route/route.c; wording, exit status as in freebsd-13.2/3-routes.txt."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from typing import NoReturn

from tests.lab.commands.support import (
    EX_NOHOST,
    EX_NOPERM,
    EX_OSERR,
    EX_USAGE,
    BadOption,
    Caller,
    Exit,
    Output,
    getopt,
    scope_interface,
)
from tests.lab.kernel import interfaces, routing
from tests.lab.kernel.errors import Errno, Refused
from tests.lab.kernel.state import (
    INET,
    INET6,
    WIDTH,
    Hop,
    Interface,
    Key,
    Route,
    Rtf,
    is_link_local,
    network,
    scope_of,
    scoped_text,
    text_of,
    with_scope,
)

EXIT_NOT_FOUND = 255  # `route get` ends with what rtmsg() answered: -1
_FLAG_NAMES = {
    Rtf.UP: "UP",
    Rtf.GATEWAY: "GATEWAY",
    Rtf.HOST: "HOST",
    Rtf.REJECT: "REJECT",
    Rtf.DONE: "DONE",
    Rtf.STATIC: "STATIC",
    Rtf.BLACKHOLE: "BLACKHOLE",
    Rtf.PROTO2: "PROTO2",
    Rtf.PROTO1: "PROTO1",
    Rtf.PROTO3: "PROTO3",
    Rtf.PINNED: "PINNED",
}
_ERRORS = {Errno.ESRCH: "not in table", Errno.EBUSY: "entry in use", Errno.EEXIST: "route already in table"}
_SETTING = {
    "reject": Rtf.REJECT,
    "blackhole": Rtf.BLACKHOLE,
    "proto1": Rtf.PROTO1,
    "proto2": Rtf.PROTO2,
    "static": Rtf.STATIC,
}
_METRICS = {"mtu", "hopcount", "expire", "recvpipe", "sendpipe", "ssthresh", "rtt", "rttvar", "weight"}


@dataclass
class _Request:
    """What the words after add, delete, change or get said."""

    command: str
    family: int = INET
    target_family: int = INET
    target: str = ""
    value: int = 0
    prefix_length: int | None = None
    host: bool = False
    net: bool = False
    looks_like_host: bool = False
    through_interface: bool = False
    gateway: str = ""
    gateway_value: tuple[int, int] | None = None
    gateway_interface: Interface | None = None
    flags: Rtf = Rtf.UP | Rtf.STATIC

    @property
    def is_host(self) -> bool:
        """Whether a host route is meant: -net beats -host beats the address's own look."""
        return not self.net and (self.host or self.looks_like_host)

    @property
    def key(self) -> Key:
        """The destination."""
        width = WIDTH[self.target_family]
        length = width if self.is_host or self.prefix_length is None else self.prefix_length
        return Key(self.target_family, network(self.target_family, self.value, length), length)


def main(arguments: list[str], caller: Caller, output: Output) -> None:
    """Run the command; Exit with what route(8) would."""
    try:
        options, words = getopt("route", arguments, "46nqdtv", output)
    except BadOption:
        _usage(output)
    flags = {letter for letter, _value in options}
    if not words:
        _usage(output)
    command = words.pop(0)
    family = INET6 if "6" in flags else INET
    if command == "flush":
        _flush(words, caller, output, quiet="q" in flags)
        return
    if command not in ("add", "change", "delete", "del", "get"):
        _usage(output, command)
    if not caller.root and command != "get":
        output.fail(EX_NOPERM, "route: must be root to alter routing table")
    request = _Request(command, family, family)
    while words:
        _word(request, words, caller, output)
    if not request.target:
        _usage(output)
    if command == "get":
        _get(request, caller, output)
        return
    text = f"{command} {'host' if request.is_host else 'net'} {request.target}"
    if request.gateway:
        text += f": gateway {request.gateway}"
    try:
        _act(request, caller)
    except Refused as refused:
        if refused.errno is Errno.EPERM:
            output.fail(1, f"route: writing to routing socket: {refused.errno.value}")
        if refused.errno is Errno.ESRCH:
            output.err("route: route has not been found\n")
        elif refused.errno is not Errno.EEXIST:
            output.err(f"route: writing to routing socket: {refused.errno.value}\n")
        if "q" not in flags:
            output.out(f"{text} fib 0: {_ERRORS.get(refused.errno, refused.errno.value)}\n")
        raise Exit(1) from None
    if "q" not in flags:
        output.out(text + "\n")


def _act(request: _Request, caller: Caller) -> None:
    vnet, key = caller.vnet, request.key
    flags = request.flags
    if request.is_host:
        flags |= Rtf.HOST
    if request.command in ("delete", "del"):
        gateway = request.gateway_value if not request.gateway_interface else None
        routing.delete(vnet, key, gateway)
    else:
        if request.gateway_interface is None and request.gateway_value is None:
            raise Refused(Errno.EINVAL)
        if request.gateway_interface is None:
            flags |= Rtf.GATEWAY
        interface = request.gateway_interface or vnet.interfaces[0]
        if request.gateway_value is not None and is_link_local(*request.gateway_value):
            interface = vnet.by_index(scope_of(request.gateway_value[1])) or interface
        interfaces.realise(interface)
        hop = Hop(interface, request.gateway_value, flags)
        if request.command == "change":
            routing.change(vnet, key, hop)
        else:
            routing.add(vnet, key, hop)
    if key.family == INET6:
        interfaces.sync_deaf(vnet)


def _get(request: _Request, caller: Caller, output: Output) -> None:
    vnet = caller.vnet
    route = routing.lookup(vnet, request.target_family, request.value)
    if request.prefix_length == 0 and request.target == "default":
        route = vnet.routes.get(Key(request.target_family, 0, 0))
    if route is None:
        output.err("route: route has not been found\n")
        raise Exit(EXIT_NOT_FOUND)
    hop = route.hops[0]
    family, key = request.target_family, route.key
    target = "default" if request.target == "default" else scoped_text(vnet, family, request.value)
    lines = [f"   route to: {target}"]
    if key.prefix_length == 0:
        lines += ["destination: default", "       mask: default"]
    else:
        lines.append(f"destination: {scoped_text(vnet, family, key.value)}")
        if not hop.flags & Rtf.HOST:
            lines.append(f"       mask: {_mask(family, key.prefix_length)}")
    if hop.flags & Rtf.GATEWAY and hop.gateway is not None:
        lines.append(f"    gateway: {scoped_text(vnet, *hop.gateway)}")
    lines.append("        fib: 0")
    lines.append(f"  interface: {hop.interface.name}")
    shown = hop.flags | Rtf.DONE
    lines.append(f"      flags: <{','.join(name for flag, name in _FLAG_NAMES.items() if flag in shown)}>")
    lines.append(" recvpipe  sendpipe  ssthresh  rtt,msec    mtu        weight    expire")
    lines.append("".join(f"{number:8d}  " for number in (0, 0, 0, 0, hop.mtu, 1)) + f"{0:8d} ")
    output.out("\n".join(lines) + "\n")


def _flush(words: list[str], caller: Caller, output: Output, *, quiet: bool) -> None:
    """Remove the routes that have a gateway, of one family or of all."""
    if not caller.root:
        output.fail(EX_NOPERM, "route: must be root to alter routing table")
    families = {"-inet": [INET], "-inet6": [INET6]}
    wanted = [INET, INET6]
    for word in words:
        if word not in families:
            _usage(output, word)
        wanted = families[word]
    vnet = caller.vnet
    for family in wanted:
        for route in vnet.sorted_routes(family):
            for hop in [each for each in route.hops if each.flags & Rtf.GATEWAY]:
                routing.remove_hop(vnet, route, hop)
                if not quiet and hop.gateway is not None:
                    name = _destination(caller, route)
                    output.out(f"{name:<20.20} {scoped_text(vnet, *hop.gateway):<20.20} -fib 0   done\n")
            routing.project(vnet, route.key)
    interfaces.sync_deaf(vnet)


def _destination(caller: Caller, route: Route) -> str:
    if route.key.prefix_length == 0 and route.key.family == INET:
        return "default"
    return scoped_text(caller.vnet, route.key.family, route.key.value)  # IPv6's default is "::" (11-rc.txt)


def _word(request: _Request, words: list[str], caller: Caller, output: Output) -> None:
    """Take one word, with its argument, off *words* (newroute())."""
    word = words.pop(0)
    if not word.startswith("-") or word == "-":
        if not request.target:
            _target(request, word, output, caller)
        elif not request.gateway:
            _gateway(request, word, output, caller)
        else:
            _netmask(request, word, output)
        return
    keyword = word[1:]
    if keyword in ("inet", "4"):
        request.family = INET
    elif keyword in ("inet6", "6"):
        request.family = INET6
    elif keyword in ("interface", "iface"):
        request.through_interface = True
    elif keyword == "host":
        request.host = True
    elif keyword == "net":
        request.net = True
    elif keyword in _SETTING:
        request.flags |= _SETTING[keyword]
    elif keyword == "nostatic":
        request.flags &= ~Rtf.STATIC
    elif keyword in ("dst", "gateway", "netmask", "prefixlen", "fib", *_METRICS):
        if not words:
            _usage(output)
        value = words.pop(0)
        if keyword == "dst":
            _target(request, value, output, caller)
        elif keyword == "gateway":
            _gateway(request, value, output, caller)
        elif keyword == "netmask":
            _netmask(request, value, output)
        elif keyword == "prefixlen":
            if not value.isdecimal() or int(value) > WIDTH[request.family]:
                output.fail(EX_USAGE, f"route: prefixlen: invalid length {value}")
            request.prefix_length, request.net = int(value), int(value) < WIDTH[request.family]
        elif keyword == "fib" and value not in ("0", "default"):
            output.fail(EX_USAGE, f"route: {value}: invalid fib")
    else:
        _usage(output, keyword)


def _target(request: _Request, word: str, output: Output, caller: Caller) -> None:
    request.target, request.target_family = word, request.family
    if word == "default":
        request.prefix_length, request.looks_like_host = 0, False
        return
    family = request.family
    text, slash, length = word.partition("/")
    _family, value = _parse(text, word, request, output, caller)
    request.value = value
    if slash:
        if family == INET:
            request.target = text  # getaddr() ends the word where the slash was, and puts that back for inet6 only
        if not length.isdecimal() or int(length) > WIDTH[family]:
            output.fail(EX_USAGE if family == INET6 else EX_NOHOST, f"route: bad address: {word}")
        request.prefix_length = int(length)
        request.looks_like_host = family == INET6 and int(length) == WIDTH[family]
    elif family == INET6:
        request.looks_like_host = value != 0
        request.prefix_length = None if value else 0
    else:
        request.prefix_length = _class_prefix(value)
        request.looks_like_host = network(INET, value, request.prefix_length) != value


def _gateway(request: _Request, word: str, output: Output, caller: Caller) -> None:
    request.gateway = word
    if request.through_interface:
        request.gateway_interface = caller.vnet.interface(word)
        if request.gateway_interface is not None:
            return
    request.gateway_value = _parse(word, word, request, output, caller)


def _netmask(request: _Request, word: str, output: Output) -> None:
    try:
        request.prefix_length = ipaddress.ip_network(
            f"{'0.0.0.0' if request.family == INET else '::'}/{word}"
        ).prefixlen
    except ValueError:
        output.fail(EX_NOHOST, f"route: bad address: {word}")
    request.net = True


def _parse(text: str, whole: str, request: _Request, output: Output, caller: Caller) -> tuple[int, int]:
    """An address of the family in force (getaddr()); its interface number is put inside."""
    if request.family == INET:
        try:
            return INET, int.from_bytes(socket.inet_aton(text), "big")
        except (OSError, ValueError):
            output.fail(EX_NOHOST, f"route: bad address: {whole}")
    try:
        plain, interface = scope_interface(caller.vnet, text)
        value = int(ipaddress.IPv6Address(plain))
    except (KeyError, ValueError):
        output.fail(EX_OSERR, f"route: {whole}: Name does not resolve")
    return INET6, with_scope(INET6, value, interface) if interface else value


def _class_prefix(value: int) -> int:
    if value >> 31 == 0:
        return 8
    return 16 if value >> 30 == 0b10 else 24


def _mask(family: int, length: int) -> str:
    width = WIDTH[family]
    return text_of(family, ((1 << length) - 1) << (width - length))


def _usage(output: Output, keyword: str = "") -> NoReturn:
    if keyword:
        output.err(f"route: bad keyword: {keyword}\n")
    output.fail(EX_USAGE, "route: usage: route [-46dnqtv] command [[modifiers] args]")
