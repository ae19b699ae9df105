"""/etc/rc of a vnet jail, and service(8) for its two network scripts, netif and routing.

They run the very commands that FreeBSD 13.2's scripts run, in their order, so that a jail's administrator can break in
the lab what he breaks on FreeBSD (freebsd-13.2/11-rc.txt). Source: libexec/rc/rc.d/netif, libexec/rc/rc.d/routing and
libexec/rc/network.subr (ifn_start, ifn_stop, ifnet_rename, list_net_interfaces, noafif, ipv6if, ifalias).

Left out: dhclient (an interface that asks for DHCP comes up and gets no address), wlan, the two seconds' sleep for
duplicate address detection, and sysctls that the lab has not.

rc.conf is the jail's own, below its path; that of a jail whose path is / is LABDIR/rc.conf.d/NAME, NAME as the machine
calls it. Of the shell only assignments are understood.
"""

from __future__ import annotations

import contextlib
import re
import shlex

from tests.lab.commands import ifconfig, route, sysctl
from tests.lab.commands.support import Caller, Command, Exit, Output
from tests.lab.kernel import trees
from tests.lab.kernel.state import INET, INET6

_NO_FAMILY = re.compile(r"(pflog|pfsync|usbus|ipfw)\d*")  # noafif(), as far as the lab has such interfaces
_PSEUDO = {"DHCP", "SYNCDHCP", "NOSYNCDHCP", "NOAUTO", "WPA", "HOSTAP"}
_YES = {"yes", "true", "on", "1"}
_PUNCTUATION = str.maketrans(".-/+", "____")  # get_if_var()
#: static_inet6(): what must not appear on the wire, and the loopback.
_ROUTES6 = (
    "::1 -prefixlen 128 -iface lo0",
    "fe80:: -prefixlen 10 ::1 -reject",
    "ff02:: -prefixlen 16 ::1 -reject",
    "::ffff:0.0.0.0 -prefixlen 96 ::1 -reject",
    "::0.0.0.0 -prefixlen 96 ::1 -reject",
)


def rc(_arguments: list[str], caller: Caller, output: Output) -> None:
    """`/bin/sh /etc/rc` in a jail: without a vnet nothing of the network (KEYWORD: nojailvnet)."""
    output.buffered = False
    if caller.jail.own_vnet:
        run = _Scripts(caller, output)
        run.netif_start()
        run.routing_start()


def service(arguments: list[str], caller: Caller, output: Output) -> None:
    """`service netif|routing start|stop|restart`; Exit with 1 for scripts that the lab has not."""
    if len(arguments) != 2 or arguments[0] not in ("netif", "routing"):
        name = arguments[0] if arguments else ""
        text = f"{name} does not exist in /etc/rc.d or the local startup\ndirectories (/usr/local/etc/rc.d), or is not"
        output.fail(1, f"{text} executable")
    name, verb = arguments
    output.buffered = False  # each command of a script ends before the next begins
    run = _Scripts(caller, output)
    steps = {
        "netif": {"start": [run.netif_start], "stop": [run.netif_stop], "restart": [run.netif_stop, run.netif_start]},
        "routing": {
            "start": [run.routing_start],
            "stop": [run.routing_stop],
            "restart": [run.routing_stop, run.routing_start],
        },
    }[name]
    if verb not in steps:
        output.fail(1, f"/etc/rc.d/{name}: unknown directive '{verb}'.")
    for step in steps[verb]:
        step()


def read_conf(caller: Caller) -> dict[str, str]:
    """The assignments in the jail's rc.conf; none where it has none. ValueError for one that is no text for a shell."""
    jail, machine = caller.jail, caller.machine
    path = trees.resolve(jail.path, "/etc/rc.conf")
    if jail.path == "/":
        path = machine.programs.parent / "rc.conf.d" / (jail.full_name(machine.root) if jail.jid else "machine")
    if path is None or not path.is_file():
        return {}
    found = {}
    for word in shlex.split(path.read_text(errors="surrogateescape"), comments=True):
        name, equals, value = word.partition("=")
        if equals and name.isidentifier():
            found[name] = value
    return found


class _Scripts:
    """The scripts, with the rc.conf that they read."""

    def __init__(self, caller: Caller, output: Output) -> None:
        self.caller = caller
        self.output = output
        self.conf = read_conf(caller)

    # netif

    def netif_start(self) -> None:
        """clone_up, ifnet_rename, netif_common ifn_start."""
        for name in self.conf.get("cloned_interfaces", "").split():
            self._ifconfig(f"{name} create {self._of(name, 'create_args_{}')}")
        for interface in list(self.caller.vnet.interfaces):
            new = self._of(interface.name, "ifconfig_{}_name")
            if new:
                self._ifconfig(f"{interface.name} name {new}")
        done = [name for name in self._list() if self._start(name)]
        self._report("Starting", done)

    def netif_stop(self) -> None:
        """netif_common ifn_stop, clone_down."""
        names = self._list()
        for name in names:
            if not _NO_FAMILY.fullmatch(name):
                if self._is_ipv6(name):
                    self._take_away(name, INET6, "-alias")
                for alias in self._aliases(name, "inet"):
                    self._ifconfig(f"{name} {alias} -alias")
                self._take_away(name, INET, "delete")
            self._ifconfig(f"{name} down")
        self._report("Stopping", names)
        for name in self.conf.get("cloned_interfaces", "").split():
            self._ifconfig(f"{name} destroy")

    def _start(self, name: str) -> bool:
        plain = not _NO_FAMILY.fullmatch(name)
        configured = name == "lo0"
        words = self._of(name, "ifconfig_{}") or self.conf.get("ifconfig_DEFAULT", "")
        pseudo = {word.upper() for word in words.split()} & _PSEUDO
        words = " ".join(word for word in words.split() if word.upper() not in _PSEUDO)
        ipv6 = self._of(name, "ifconfig_{}_ipv6")
        if plain and self.conf.get("ipv6_activate_all_interfaces", "").lower() in _YES:
            self._ifconfig(f"{name} inet6 -ifdisabled")
        if words:
            self._ifconfig(f"{name} {words}")
            configured = True
        if plain and ipv6:
            self._ifconfig(f"{name} inet6 -ifdisabled")
            self._ifconfig(f"{name} {ipv6}")
            configured = True
        description = self._of(name, "ifconfig_{}_descr")
        if description:
            self._ifconfig(f"{name} description", description)
        if configured or pseudo & {"DHCP", "SYNCDHCP", "NOSYNCDHCP"}:
            self._ifconfig(f"{name} up")
        if not plain:
            return configured
        if name == "lo0" and not words:
            self._ifconfig("lo0 inet 127.0.0.1/8 alias")
        for family in ("inet", "inet6"):
            for alias in self._aliases(name, family):
                self._ifconfig(f"{name} {alias} alias")
        return True  # ipv6_up() is content with an interface that has no IPv6

    def _list(self) -> list[str]:
        """list_net_interfaces(): lo0 first, none that says NOAUTO."""
        names = [each.name for each in self.caller.vnet.interfaces]
        names = [name for name in names if "NOAUTO" not in self._of(name, "ifconfig_{}").upper().split()]
        return sorted(dict.fromkeys(names), key=lambda name: name != "lo0")

    def _aliases(self, name: str, family: str) -> list[str]:
        found = []
        for number in range(len(self.conf)):
            words = self._of(name, f"ifconfig_{{}}_alias{number}")
            if not words:
                break
            found.append(words)
        return [words for words in found if words.split()[0] == family]

    def _is_ipv6(self, name: str) -> bool:
        return name == "lo0" or bool(self._of(name, "ifconfig_{}_ipv6"))

    def _take_away(self, name: str, family: int, verb: str) -> None:
        interface = self.caller.vnet.interface(name)
        word = "inet" if family == INET else "inet6"
        for address in list(interface.addresses) if interface else []:
            if address.family == family:
                self._ifconfig(f"{name} {word} {address.text()} {verb}")

    def _report(self, what: str, names: list[str]) -> None:
        self.output.out(f"{what} Network: {' '.join(names)}.\n")
        for name in names:
            self._ifconfig(name)

    # routing

    def routing_start(self) -> None:
        """routing_start doall: static routes, then the options, of which the lab has forwarding."""
        for words in self._routes("inet"):
            self._route(f"add {words}")
        self._forward("net.inet.ip.forwarding", "gateway_enable")
        for words in self._routes("inet6"):
            self._route(f"add -inet6 {words}")
        self._forward("net.inet6.ip6.forwarding", "ipv6_gateway_enable")

    def routing_stop(self) -> None:
        """routing_stop: the static routes one by one, then everything that has a gateway."""
        for words in self._routes("inet"):
            self._route(f"delete {words}")
        self._route("-n flush -inet")
        for words in self._routes("inet6"):
            self._route(f"delete -inet6 {words}")
        self._route("-n flush -inet6")

    def _routes(self, family: str) -> list[str]:
        prefix = "" if family == "inet" else "ipv6_"
        found = ["-inet 127.0.0.1 -iface lo0"] if family == "inet" else list(_ROUTES6)
        names = self.conf.get(f"{prefix}static_routes", "").split()
        found += [self._of(name.partition(":")[0], prefix + "route_{}") for name in names]
        router = self.conf.get(f"{prefix}defaultrouter", "")
        if router.lower() not in ("", "no"):
            found.append(f"default {router}")
        return found

    def _forward(self, name: str, variable: str) -> None:
        value = int(self.conf.get(variable, "").lower() in _YES)
        self._run(sysctl.main, ["-q", f"{name}={value}"])

    # both

    def _of(self, name: str, pattern: str) -> str:
        return self.conf.get(pattern.format(name.translate(_PUNCTUATION)), "")

    def _ifconfig(self, words: str, *more: str) -> None:
        self._run(ifconfig.main, [*words.split(), *more])

    def _route(self, words: str) -> None:
        self._run(route.main, words.split())

    def _run(self, command: Command, arguments: list[str]) -> None:
        """Run a command; that it fails concerns nobody, as in the scripts."""
        own = Output()
        with contextlib.suppress(Exit):
            command(arguments, self.caller, own)
        self.output.written += own.chunks
