"""ifconfig(8) of FreeBSD 13.2, without --libxo; -j, where the release has it, is support.with_jail_option's matter.

Source: sbin/ifconfig/{ifconfig,ifclone,ifgroup,af_inet,af_inet6,af_link,af_nd6,ifbridge,ifcarp,ifpfsync}.c; wording and
exit status as in freebsd-13.2/1-interfaces.txt, 2-vnet.txt, 6-carp.txt and 7-pfsync.txt.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.lab.commands.support import BadOption, Caller, Exit, Output, getopt
from tests.lab.kernel import bridging, carp, carpwire, pfsync
from tests.lab.kernel import interfaces as kernel
from tests.lab.kernel.errors import Errno, Refused
from tests.lab.kernel.netlink import IFA_F_DADFAILED
from tests.lab.kernel.state import IFNAMSIZ, INET, INET6, WIDTH, Address, Iff, Interface, Jail, Nd6, is_link_local

USAGE = """usage: ifconfig [-f type:format] [-g groupname] [-C] [-L] interface address_family
                [address [dest_address]] [parameters]
       ifconfig interface create
       ifconfig -a [-g groupname] [-C] [-L] [-d] [-m] [-u] [-v] [address_family]
       ifconfig -l [-d] [-u] [address_family]
       ifconfig [-g groupname] [-C] [-L] [-d] [-m] [-u] [-v]
"""
CLONERS = "vlan bridge pfsync pflog vmnet tap tun epair lo"
FAMILIES = ("inet", "inet6", "ether", "link", "lladdr")
LINK_FAMILIES = ("ether", "link", "lladdr")
DEFAULT_PREFIX6 = 64
LO_OPTIONS = "options=680003<RXCSUM,TXCSUM,LINKSTATE,RXCSUM_IPV6,TXCSUM_IPV6>"
_SHOWN_FLAGS = (Iff.UP, Iff.BROADCAST, Iff.LOOPBACK, Iff.RUNNING, Iff.PROMISC, Iff.SIMPLEX, Iff.MULTICAST)
LOWER_UP = 0x1000000  # ifconfig_netlink.c of 14: net/if.h's IFF_NETLINK_1, from the link state
_ND6_PARAMETERS = {
    "performnud": Nd6.PERFORMNUD,
    "accept_rtadv": Nd6.ACCEPT_RTADV,
    "prefer_source": Nd6.PREFER_SOURCE,
    "ifdisabled": Nd6.IFDISABLED,
    "auto_linklocal": Nd6.AUTO_LINKLOCAL,
    "no_radr": Nd6.NO_RADR,
    "no_prefer_iface": Nd6.NO_PREFER_IFACE,
    "no_dad": Nd6.NO_DAD,
}


_GROUPS = str(ipaddress.IPv4Address(carpwire.GROUP4)), str(ipaddress.IPv6Address(carpwire.GROUP6))


def main(arguments: list[str], caller: Caller, output: Output) -> None:
    """Run the command; Exit with 1 when it fails."""
    try:
        options, rest = getopt("ifconfig", arguments, "adf:G:g:klLmnuvC", output)
    except BadOption:
        _usage(output)
    flags = {letter for letter, _value in options}
    group = next((value for letter, value in options if letter == "g"), None)
    cidr = _formats([value for letter, value in options if letter == "f"], output)
    if "C" in flags:
        output.out(CLONERS + "\n")
        return
    if ("l" in flags and flags & {"a", "m"}) or {"u", "d"} <= flags:
        _usage(output)
    if group is not None and "a" not in flags and not rest:
        for interface in caller.vnet.interfaces:
            if group in interface.groups:
                output.out(interface.name + "\n")
        return
    everything = "a" in flags or (not rest and "l" not in flags)
    shown = [
        each
        for each in caller.vnet.interfaces
        if not ("d" in flags and each.up) and not ("u" in flags and not each.up) and (not group or group in each.groups)
    ]
    if everything or "l" in flags:
        if len(rest) > 1 or (rest and rest[0] not in FAMILIES):
            _usage(output)
        family = rest[0] if rest else ""
        if "l" in flags:
            output.out(" ".join(each.name for each in shown if _has_family(each, family)) + "\n")
            return
        for interface in shown:
            output.out(status(interface, caller.jail, family, cidr))
        return
    _one(_Command(caller, output, rest[0]), rest[1:], cidr)


def status(interface: Interface, jail: Jail, family: str = "", cidr: frozenset[str] = frozenset()) -> str:
    """What `ifconfig IF` prints in *jail*. *cidr*: the families whose prefix is shown as /N (-f inet:cidr)."""
    names = [flag.name or "" for flag in _SHOWN_FLAGS if flag in interface.flags]
    number = interface.flags.value
    if interface.vnet.kernel.lower_up:
        number &= ~Iff.KNOWSEPOCH.value  # 13's
        if interface.driver in ("epair", "lo") and Iff.RUNNING in interface.flags:
            names.append("LOWER_UP")
            number |= LOWER_UP
    lines = [f"{interface.name}: flags={number:x}<{','.join(names)}> metric 0 mtu {interface.mtu}"]
    if interface.description:
        lines.append(f"\tdescription: {interface.description}")
    if interface.driver == "epair":
        lines.append("\toptions=8<VLAN_MTU>")
    elif interface.loopback:
        lines.append(f"\t{LO_OPTIONS}")
    if interface.ether and family in ("", *LINK_FAMILIES):
        lines.append(f"\tether {interface.ether}")
        if interface.hwaddr != interface.ether:
            lines.append(f"\thwaddr {interface.hwaddr}")
    held = interface.vnet.namespace.tentative() if _detects(interface) else {}
    order = list(dict.fromkeys(address.family for address in interface.addresses))
    lines += [
        _address_line(interface, address, held.get((interface.link, address.packed), 0), cidr)
        for address in sorted(interface.addresses, key=lambda each: order.index(each.family))
        if family in ("", "inet" if address.family == INET else "inet6") and jail.may_use(address)
    ]
    if interface.driver == "pfsync" and family == "":
        lines += pfsync.status(pfsync.pfsync_of(interface.vnet))
    if family == "":
        lines += _bridge_lines(interface)
        if interface.groups:
            lines.append("\tgroups: " + " ".join(interface.groups))
        lines += _carp_lines(interface)
        if interface.driver == "epair":
            lines.append("\tmedia: Ethernet 10Gbase-T (10Gbase-T <full-duplex>)")
            lines.append(f"\tstatus: {'active' if interface.carrier else 'no carrier'}")
    if family in ("", "inet6") and interface.driver in ("epair", "lo", "bridge"):
        options = ",".join(flag.name or "" for flag in Nd6 if flag in interface.nd6)
        lines.append(f"\tnd6 options={interface.nd6.value:x}<{options}>")
    return "\n".join(lines) + "\n"


@dataclass
class _Command:
    """One `ifconfig IF …`: the state that ifconfig.c keeps in globals."""

    caller: Caller
    output: Output
    name: str
    family: str = "inet"
    announce: bool = False  # print the name at the end: it is new, or was not known
    alias: int = 0
    clear: bool = False
    new: bool = True
    address: Address | None = None
    remove: Address | None = None
    ether: bytes | None = None
    vhid: int = 0
    carp: dict[str, Any] = field(default_factory=dict)  # what carp.configure() is to be told
    given: str = ""  # the name on the command line, which 13's `ifr.ifr_name` holds to the end

    def __post_init__(self) -> None:
        self.given = self.name

    def interface_by_request(self) -> Interface:
        """The interface as the ioctls name it that use the global `ifr`: until 14, as it was named at first; ENXIO."""
        stale = not self.caller.machine.kernel.renames_request
        found = self.caller.vnet.interface(self.given if stale else self.name)
        if found is None:
            raise Refused(Errno.ENXIO)
        return found

    def interface(self) -> Interface:
        """The interface by its present name; ENXIO if it is gone."""
        found = self.caller.vnet.interface(self.name)
        if found is None:
            raise Refused(Errno.ENXIO)
        return found

    def fail(self, message: str) -> None:
        """errx(1, …), and atexit(3)'s printing of the name."""
        self.output.err(f"ifconfig: {message}\n")
        if self.announce:
            self.output.out(self.name + "\n")
        raise Exit(1)

    def do(self, label: str, action: Callable[[], None]) -> None:
        """Do something that the kernel may refuse: err(1, label)."""
        try:
            self.caller.administers_network()
            action()
        except Refused as refused:
            self.fail(f"{label}: {refused.message}")

    def perror(self, label: str, action: Callable[[], None]) -> None:
        """As `do`, with Perror()'s words of its own."""
        try:
            self.caller.administers_network()
            action()
        except Refused as refused:
            words = {Errno.ENXIO: "no such interface", Errno.EPERM: "permission denied"}
            self.fail(f"{label}: {words.get(refused.errno, refused.errno.value)}")


def _one(command: _Command, words: list[str], cidr: frozenset[str]) -> None:
    exists = command.caller.vnet.interface(command.name) is not None
    creating = words[:1] in (["create"], ["plumb"])
    if exists and creating:
        command.fail(f"interface {command.name} already exists")
    if not exists and not creating and words[:1] != ["-vnet"]:
        command.fail(f"interface {command.name} does not exist")
    if creating and len(command.name) >= IFNAMSIZ:
        command.fail(f"{command.name}: cloning name too long")
    if words[:1] and words[0] in FAMILIES:
        command.family = words.pop(0)
        if not words:
            command.output.out(status(command.interface(), command.caller.jail, command.family, cidr))
            return
    if not words:
        command.output.out(status(command.interface(), command.caller.jail, "", cidr))
        return
    if creating:
        words.pop(0)
        _create(command)
        if words and words[0] in FAMILIES:
            command.family = words.pop(0)
    while words:
        _parameter(command, words)
    _finish(command)
    if command.announce:
        command.output.out(command.name + "\n")


def _create(command: _Command) -> None:
    def action() -> None:
        made = kernel.create(command.caller.machine, command.caller.vnet, command.name)
        command.announce = made.name != command.name
        command.name = made.name

    try:
        command.caller.administers_network()
        action()
    except Refused as refused:
        if refused.errno is Errno.EEXIST:
            command.fail(f"interface {command.name} already exists")
        command.fail(f"SIOCIFCREATE2 ({command.name}): {refused.errno.value}")


def _parameter(command: _Command, words: list[str]) -> None:
    """Take one parameter, with its argument, off *words* and act on it."""
    word = words.pop(0)
    if word in _WITH_ARGUMENT:
        if not words:
            command.fail(f"'{word}' requires argument")
        _WITH_ARGUMENT[word](command, words.pop(0))
    elif word in _WITHOUT_ARGUMENT:
        _WITHOUT_ARGUMENT[word](command)
    elif word.removeprefix("-") in _ND6_PARAMETERS:
        _nd6(command, _ND6_PARAMETERS[word.removeprefix("-")], on=not word.startswith("-"))
    else:
        _address(command, word)


def _name(command: _Command, value: str) -> None:
    command.do("ioctl SIOCSIFNAME (set name)", lambda: kernel.rename(command.interface(), value))
    command.name = value
    command.announce = True


def _describe(command: _Command, value: str) -> None:
    def action() -> None:
        command.interface().description = value

    command.do("ioctl SIOCSIFDESCR (set descr)", action)


def _group(command: _Command, value: str) -> None:
    if value[-1:].isdigit():
        command.fail("setifgroup: group names may not end in a digit")
    if len(value) >= IFNAMSIZ:
        command.fail("setifgroup: group name too long")

    def action() -> None:
        groups = command.interface().groups
        if value not in groups:
            groups.append(value)

    command.do(" SIOCAIFGROUP", action)


def _ungroup(command: _Command, value: str) -> None:
    if value[-1:].isdigit():
        command.fail("unsetifgroup: group names may not end in a digit")

    def action() -> None:
        groups = command.interface().groups
        if value in groups:
            groups.remove(value)

    command.do("SIOCDIFGROUP", action)


def _vnet(command: _Command, value: str) -> None:
    try:
        jail = command.caller.machine.find(command.caller.jail, value)
    except Refused as refused:
        command.fail(refused.message)
        return

    def action() -> None:
        command.caller.machine.move_in(command.caller.jail, command.interface_by_request().name, jail)

    command.do("SIOCSIFVNET", action)


def _unvnet(command: _Command, value: str) -> None:
    try:
        jail = command.caller.machine.find(command.caller.jail, value)
    except Refused as refused:
        command.fail(refused.message)
        return
    label = f"SIOCSIFRVNET({jail.jid}, {command.name})"
    command.do(label, lambda: command.caller.machine.move_out(command.caller.jail, command.name, jail))


def _add_member(command: _Command, value: str) -> None:
    command.do(f"BRDGADD {value}", lambda: bridging.add(command.interface(), value))


def _delete_member(command: _Command, value: str) -> None:
    command.do(f"BRDGDEL {value}", lambda: bridging.remove(command.interface(), value))


def _mtu(command: _Command, value: str) -> None:
    number = int(value) if value.isdecimal() else -1
    command.do("ioctl SIOCSIFMTU (set mtu)", lambda: kernel.set_mtu(command.interface(), number))


def _prefix_length(command: _Command, value: str) -> None:
    if command.family != "inet6" or command.address is None:
        command.fail(f"{value}: bad value")
        return
    length = _number(command, value, WIDTH[INET6])
    command.address = Address(INET6, command.address.value, length)


def _broadcast(command: _Command, value: str) -> None:
    """An IPv4 broadcast address, which the lab derives itself; af_inet6.c of 15 has the words for the other family."""
    if command.family == "inet6":
        command.fail("broadcast: invalid option for inet6")
    try:
        ipaddress.IPv4Address(value)
    except ValueError:
        command.fail(f"{value}: bad value")


def _netmask(command: _Command, value: str) -> None:
    if command.family == "inet6":
        command.fail("netmask: invalid option for inet6")
    try:
        mask = int(value, 0) if value.startswith("0x") else int(ipaddress.IPv4Address(value))
        length = ipaddress.IPv4Network(f"0.0.0.0/{ipaddress.IPv4Address(mask)}").prefixlen
    except ValueError:
        command.fail(f"{value}: bad value")
        return
    if command.address is not None:
        command.address = Address(INET, command.address.value, length)


def _set_up(command: _Command) -> None:
    command.do("ioctl (set flags)", lambda: kernel.set_up(command.interface(), up=True))


def _set_down(command: _Command) -> None:
    command.do("ioctl (set flags)", lambda: kernel.set_up(command.interface(), up=False))


def _alias(command: _Command) -> None:
    command.alias, command.clear = 1, False


def _unalias(command: _Command) -> None:
    command.alias, command.clear, command.new = -1, True, False
    if command.address is not None:
        command.remove = command.address


def _destroy(command: _Command) -> None:
    command.do("SIOCIFDESTROY", lambda: kernel.destroy(command.caller.machine, command.interface()))


def _nd6(command: _Command, flag: Nd6, *, on: bool) -> None:
    try:  # warn(3) only: setnd6flags() goes on whatever happens
        what = "SIOCGIFINFO_IN6"
        interface = command.interface_by_request()
        if command.family != "inet6":
            raise Refused(Errno.EINVAL)
        what = "SIOCSIFINFO_IN6"
        command.caller.administers_network()
        kernel.set_nd6(interface, interface.nd6 | flag if on else interface.nd6 & ~flag)
    except Refused as refused:
        command.output.err(f"ifconfig: ioctl({what}): {refused.message}\n")


def _address(command: _Command, word: str) -> None:
    if command.family in LINK_FAMILIES:
        # link_addr(3): two digits are a byte, whatever is no digit only separates them (02ff60aabbcc, 02-ff-60-…)
        command.ether = bytes(int(part, 16) for part in re.findall("[0-9A-Fa-f]{1,2}", word))
        return
    family = INET if command.family == "inet" else INET6
    text, slash, length_text = word.rpartition("/") if "/" in word else (word, "", "")
    length = WIDTH[family] if family == INET6 and not slash else -1
    if family == INET6:
        length = _number(command, length_text, WIDTH[INET6]) if slash else DEFAULT_PREFIX6
    elif slash:
        if not length_text.isdecimal():
            command.fail(f"{word}: bad value (width invalid)")
        length = int(length_text)
        if length > WIDTH[INET]:
            command.fail(f"{word}: bad value (width too large)")
    try:
        plain, _percent, _scope = text.partition("%")
        value = int(ipaddress.IPv4Address(text) if family == INET else ipaddress.IPv6Address(plain))
    except ValueError:
        command.fail(f"{text}: bad value")
        return
    if family == INET and not slash:
        length = _class_prefix(value)
    address = Address(family, value, length)
    if command.alias < 0:
        command.remove = address
    else:
        if command.alias == 0:
            command.clear = True
        command.address = address


def _finish(command: _Command) -> None:
    """The deferred part: remove, then add (ifconfig.c, "Do deferred operations")."""
    if command.ether is not None:
        ether = command.ether
        command.perror("ioctl (SIOCAIFADDR)", lambda: kernel.set_ether(command.interface(), ether))
        return
    if command.vhid:  # setcarp_callback()
        vhid, settings = command.vhid, command.carp
        command.do("SIOCSVH", lambda: carp.configure(command.interface(), vhid, **settings))
    if command.clear:
        if command.alias < 0:
            gone = command.remove or command.address

            def action() -> None:
                if gone is None:
                    raise Refused(Errno.EADDRNOTAVAIL)
                kernel.delete_address(command.interface(), gone)

            command.perror("ioctl (SIOCDIFADDR)", action)
        elif command.family == "inet":
            first = next((each for each in command.interface().addresses if each.family == INET), None)
            if first is not None and first != command.address:
                kernel.delete_address(command.interface(), first)
    if command.new and command.address is not None:
        address = command.address
        command.perror("ioctl (SIOCAIFADDR)", lambda: kernel.add_address(command.interface(), address, command.vhid))


def _vhid(command: _Command, value: str) -> None:
    number = _atoi(value)
    if not 0 < number <= carp.MAXVHID:
        command.fail(f"vhid must be greater than 0 and less than {carp.MAXVHID}")
    command.vhid = number


def _advertise(command: _Command, what: str, value: str) -> None:
    """setcarp_advskew(), setcarp_advbase(): a negative number is as if nothing had been said."""
    if not command.vhid:
        command.fail(f"{what} requires vhid")
    number = _atoi(value)
    command.carp[what] = number if number >= 0 else None


def _password(command: _Command, value: str) -> None:
    if not command.vhid:
        command.fail("passwd requires vhid")
    command.carp["key"] = os.fsencode(value)


def _carp_state(command: _Command, value: str) -> None:
    if not command.vhid:
        command.fail("state requires vhid")
    if value.upper() not in (carp.INIT, carp.BACKUP, carp.MASTER):
        command.fail("unknown state")
    command.carp["state"] = value.upper()


def _pfsync(command: _Command, **settings: Any) -> None:
    """Each of pfsync's words is an ioctl of its own (ifpfsync.c)."""
    request = "SIOC{}PFSYNCNV" if command.caller.machine.kernel.pfsync_versions else "SIOC{}PFSYNC"

    def action() -> None:
        pfsync.configure(pfsync.pfsync_of(command.caller.vnet), **settings)

    if command.interface().driver != "pfsync":
        command.fail(f"{request.format('GET')}: {Errno.EINVAL.value}")
    command.do(request.format("SET"), action)


def _sync_peer(command: _Command, value: str) -> None:
    peer = pfsync.parse_peer(command.caller.vnet, value)
    if peer is None:
        command.fail("error in parsing address string: Name does not resolve")
        return
    _pfsync(command, peer=peer)


def _max_updates(command: _Command, value: str) -> None:
    number = _atoi(value)
    if not 0 <= number <= pfsync.MAX_UPDATES:
        command.fail(f"maxupd {value}: out of range")
    _pfsync(command, updates=number)


def _pfsync_version(command: _Command, value: str) -> None:
    if not command.caller.machine.kernel.pfsync_versions:  # no such word: an address, as everything unknown
        command.fail("version: bad value")
    _pfsync(command, version=_atoi(value))


def _ignore(_command: _Command) -> None:
    """A parameter that changes nothing that the lab models."""


_WITH_ARGUMENT: dict[str, Callable[[_Command, str], None]] = {
    "name": _name,
    "descr": _describe,
    "description": _describe,
    "group": _group,
    "-group": _ungroup,
    "vnet": _vnet,
    "-vnet": _unvnet,
    "mtu": _mtu,
    "prefixlen": _prefix_length,
    "netmask": _netmask,
    "broadcast": _broadcast,
    "pcp": lambda _command, _value: None,
    "addm": _add_member,
    "deletem": _delete_member,
    "vhid": _vhid,
    "advskew": lambda command, value: _advertise(command, "advskew", value),
    "advbase": lambda command, value: _advertise(command, "advbase", value),
    "pass": _password,
    "state": _carp_state,
    "syncdev": lambda command, value: _pfsync(command, device=value),
    "syncif": lambda command, value: _pfsync(command, device=value),
    "syncpeer": _sync_peer,
    "maxupd": _max_updates,
    "version": _pfsync_version,
}
_WITHOUT_ARGUMENT: dict[str, Callable[[_Command], None]] = {
    "up": _set_up,
    "down": _set_down,
    "alias": _alias,
    "add": _alias,
    "-alias": _unalias,
    "delete": _unalias,
    "remove": _unalias,
    "destroy": _destroy,
    "unplumb": _destroy,
    "-descr": lambda command: _describe(command, ""),
    "-description": lambda command: _describe(command, ""),
    "arp": _ignore,
    "-pcp": _ignore,
    "autoconf": _ignore,
    "-syncdev": lambda command: _pfsync(command, device=""),
    "-syncif": lambda command: _pfsync(command, device=""),
    "-syncpeer": lambda command: _pfsync(command, peer=pfsync.GROUP),
    "defer": lambda command: _pfsync(command, defer=True),
    "-defer": lambda command: _pfsync(command, defer=False),
}


def _atoi(text: str) -> int:
    """atoi(3): the digits that it begins with, or 0."""
    found = re.match(r"\s*[+-]?\d+", text)
    return int(found[0]) if found else 0


def _number(command: _Command, text: str, most: int) -> int:
    if not text.isdecimal() or int(text) > most:
        command.fail(f"{text}: bad value")
    return int(text)


def _class_prefix(value: int) -> int:
    """The prefix length that an IPv4 address had before there were prefix lengths."""
    if value >> 31 == 0:
        return 8
    return 16 if value >> 30 == 0b10 else 24


def _detects(interface: Interface) -> bool:
    return Nd6.NO_DAD not in interface.nd6 and any(each.family == INET6 for each in interface.addresses)


def _address_line(interface: Interface, address: Address, held: int, cidr: frozenset[str]) -> str:
    length = address.prefix_length
    owner = carp.of_address(interface, address)
    vhid = f" vhid {owner.vhid}" if owner is not None else ""
    if address.family == INET:
        if "inet" in cidr:
            text = f"\tinet {address.text()}/{length}"
        else:
            text = f"\tinet {address.text()} netmask {(0xFFFFFFFF << (32 - length)) & 0xFFFFFFFF:#010x}"
        if Iff.BROADCAST in interface.flags:
            broadcast = address.value | (1 << (32 - length)) - 1
            text += f" broadcast {ipaddress.IPv4Address(broadcast)}"
        return text + vhid
    scoped = is_link_local(INET6, address.value)
    text = f"\tinet6 {address.text()}" + (f"%{interface.name}" if scoped else "")
    text += f"/{length}" if "inet6" in cidr else f" prefixlen {length}"
    if held:
        text += " duplicated" if held & IFA_F_DADFAILED else " tentative"
    if scoped:
        text += f" scopeid {interface.index:#x}"
    return text + vhid


def _carp_lines(interface: Interface) -> list[str]:
    """carp_status() (ifcarp.c; carp.c of 14, where nobody has set another peer)."""
    lines: list[str] = []
    for each in interface.carps:
        lines.append(f"\tcarp: {each.state} vhid {each.vhid} advbase {each.advbase} advskew {each.advskew}")
        if interface.vnet.kernel.carp_peers:
            lines.append(f"\t      peer {_GROUPS[0]} peer6 {_GROUPS[1]}")
    return lines


def _bridge_lines(interface: Interface) -> list[str]:
    """bridge_status() of a bridge without spanning tree (ifbridge.c)."""
    if interface.driver != "bridge":
        return []
    lines = [
        "\tid 00:00:00:00:00:00 priority 32768 hellotime 2 fwddelay 15",
        "\tmaxage 20 holdcnt 6 proto rstp maxaddr 2000 timeout 1200",
        "\troot id 00:00:00:00:00:00 priority 32768 ifcost 0 port 0",
    ]
    for member in interface.members:
        lines += [
            f"\tmember: {member.name} flags=143<LEARNING,DISCOVER,AUTOEDGE,AUTOPTP>",
            f"\t        ifmaxaddr 0 port {member.index} priority 128 path cost 2000",
        ]
    return lines


def _has_family(interface: Interface, family: str) -> bool:
    if family in ("inet", "inet6"):
        return any(each.family == (INET if family == "inet" else INET6) for each in interface.addresses)
    return family == "" or bool(interface.ether)


def _formats(values: list[str], output: Output) -> frozenset[str]:
    found: set[str] = set()
    for value in values:
        for part in value.split(","):
            kind, _colon, style = part.partition(":")
            if kind in ("inet", "inet6") and style in ("cidr", "default"):
                found |= {kind} if style == "cidr" else set()
            else:
                _usage(output)
    return frozenset(found)


def _usage(output: Output) -> None:
    output.err(USAGE)
    raise Exit(1)
