"""sysctl(8) of FreeBSD 13.2. Source: sbin/sysctl/sysctl.c; freebsd-13.2/3-routes.txt, 6-carp.txt, 15-host.txt."""

from __future__ import annotations

import os
import struct
import time

from tests.lab.commands.support import BadOption, Caller, Exit, Output, getopt
from tests.lab.kernel import carp, interfaces
from tests.lab.kernel.errors import Errno
from tests.lab.kernel.sysctls import AFTER, LINUX_FILES, TUNABLES, VNET_DEFAULTS, Constant, constants

USAGE = """usage: sysctl [-bdehiNnoqTtWx] [ -B <bufsize> ] [-f filename] name[=value] ...
       sysctl [-bdehNnoqTtWx] [ -B <bufsize> ] -a
"""


def main(arguments: list[str], caller: Caller, output: Output) -> None:
    """Run the command; Exit with 1 if one of the names failed."""
    try:
        options, words = getopt("sysctl", arguments, "AaB:bdehiNnoqTtWwXx", output)
    except BadOption:
        output.err(USAGE)
        raise Exit(1) from None
    flags = {letter for letter, _value in options}
    if flags & {"a", "A", "X"}:
        words = [""]
    if not words:
        output.err(USAGE)
        raise Exit(1)
    output.buffered = False
    failed = False
    for word in words:
        name, equals, value = word.partition("=")
        if equals:
            failed |= not _set(name, value, caller, output, flags)
        else:
            failed |= not _show(name, caller, output, flags)
    if failed:
        raise Exit(1)


def tree(caller: Caller) -> list[Constant]:
    """Every sysctl, with its present value, in the kernel's order."""
    vnet = caller.vnet
    found: list[Constant] = []
    later = {after: name for name, after in AFTER.items()}
    for constant in constants(caller.machine.kernel):
        if constant.name == "net.link.ether.inet.allow_multicast":
            found += [Constant(name, vnet.sysctls[name]) for name in VNET_DEFAULTS if name not in AFTER]
            found.append(Constant("net.link.generic.system.ifcount", len(vnet.interfaces)))
        value = vnet.sysctls.get(constant.name, constant.value)
        found.append(Constant(constant.name, value, constant.kind))
        if constant.name == "kern.osreldate":
            found += _about_boot(caller)
        name = later.get(constant.name, "")
        if name in vnet.sysctls:
            found.append(Constant(name, vnet.sysctls[name]))
    found.append(Constant("security.jail.jailed", int(caller.jail.jid != 0)))
    found.append(Constant("security.jail.vnet", int(caller.jail.own_vnet and caller.jail.jid != 0)))
    return found


def _about_boot(caller: Caller) -> list[Constant]:
    when = caller.machine.boot_time
    seconds = int(when)
    text = f"{{ sec = {seconds}, usec = {int((when - seconds) * 1e6)} }} {time.asctime(time.gmtime(seconds))}"
    return [
        Constant("kern.hostname", caller.jail.hostname, "A"),
        Constant("kern.boottime", text, "T"),
        Constant("kern.boot_id", caller.machine.boot_of(caller.jail), "S"),
    ]


def _show(name: str, caller: Caller, output: Output, flags: set[str]) -> bool:
    everything = tree(caller)
    found = [each for each in everything if each.name == name]
    found = found or [each for each in everything if not name or each.name.startswith(name.rstrip(".") + ".")]
    if not found:
        if "i" not in flags and "q" not in flags:
            output.err(f"sysctl: unknown oid '{name}'\n")
        return "i" in flags
    for each in found:
        text = _value(each, flags)
        if text is None:
            continue
        if "N" in flags:
            output.out(f"{each.name}\n")
        elif "b" in flags:
            output.out(text)
        elif "n" in flags:
            output.out(f"{text}\n")
        else:
            output.out(f"{each.name}{'=' if 'e' in flags else ': '}{text}\n")
    return True


def _value(constant: Constant, flags: set[str]) -> str | None:
    """A value as it is printed, or None for an opaque one that nobody asked to see."""
    value = constant.value
    if "b" in flags:
        raw = (
            value
            if isinstance(value, bytes)
            else struct.pack("=i", value)
            if isinstance(value, int)
            else value.encode()
        )
        return os.fsdecode(raw)
    if isinstance(value, bytes):
        if not flags & {"x", "o", "X"}:
            return None
        return f"Format: Length:{len(value)} Dump:0x{value.hex()}"
    if isinstance(value, int) and "x" in flags:
        return f"{value & 0xFFFFFFFF:#010x}" if value else "0"
    return str(value)


def _set(name: str, text: str, caller: Caller, output: Output, flags: set[str]) -> bool:
    vnet = caller.vnet
    if name in TUNABLES:
        output.err(f"sysctl: oid '{name}' is a read only tunable\n")
        output.err("sysctl: Tunable values are set in /boot/loader.conf\n")
        return False
    if name not in vnet.sysctls:
        known = any(each.name == name for each in tree(caller))
        output.err(f"sysctl: oid '{name}' is read only\n" if known else f"sysctl: unknown oid '{name}'\n")
        return not known and "i" in flags
    try:
        number = int(text, 0)
    except ValueError:
        output.err(f"sysctl: invalid integer '{text}'\n")
        return False
    if not caller.root:
        output.err(f"sysctl: {name}={text}: {Errno.EPERM.value}\n")
        return False
    old = vnet.sysctls[name]
    if name == carp.DSCP and not 0 <= number <= carp.MAXDSCP:
        output.err(f"sysctl: {name}={text}: {Errno.EINVAL.value}\n")
        return False
    if name == carp.DEMOTION:
        carp.demote(vnet, number)  # carp_demote_adj_sysctl(): what is written is added
    else:
        vnet.sysctls[name] = number
    if name == carp.ALLOW and old != number:
        carp.allow_changed(vnet)
    for file in LINUX_FILES.get(name, ()):
        vnet.namespace.sysctl(file, str(number))
    if name == interfaces.SOLICIT_RFC4861:
        interfaces.sync_deaf(vnet)
    if "q" not in flags:
        label = "" if "n" in flags else f"{name}{'=' if 'e' in flags else ': '}"
        output.out(f"{label}{old} -> {vnet.sysctls[name]}\n")
    return True
