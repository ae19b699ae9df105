"""uname(1), kldstat(8), kldload(8) and setfib(1) of FreeBSD 13.2, for a kernel with everything built in.

Sources: usr.bin/uname/uname.c, sbin/kldstat/kldstat.c, sbin/kldload/kldload.c, usr.sbin/setfib/setfib.c;
freebsd-13.2/15-host.txt.
"""

from __future__ import annotations

from tests.lab.commands.support import BadOption, Caller, Execute, Exit, Output, getopt

#: Modules of the kernel file by their ids, as far as anybody asks for them.
MODULES = {"if_epair": 100, "if_lo": 101, "carp": 102, "pf": 103, "pfsync": 104, "pflog": 105, "if_bridge": 106}


def uname(arguments: list[str], caller: Caller, output: Output) -> None:
    """What runs here."""
    try:
        options, words = getopt("uname", arguments, "abiKmnoprsUv", output)
    except BadOption:
        words = ["?"]
        options = []
    if words:
        output.err("usage: uname [-abiKmnoprsUv]\n")
        raise Exit(1)
    flags = {letter for letter, _value in options} or {"s"}
    if "a" in flags:
        flags |= set("mnrsv")
    kernel = caller.machine.kernel
    values = {
        "s": "FreeBSD",
        "n": caller.jail.hostname,
        "r": kernel.osrelease,
        "v": f"FreeBSD {kernel.osrelease} GENERIC",
        "m": "amd64",
        "p": "amd64",
        "i": "GENERIC",
        "K": str(kernel.osreldate),
        "U": str(kernel.osreldate),
        "o": "FreeBSD",
        "b": "0" * 40,
    }
    output.out(" ".join(text for letter, text in values.items() if letter in flags) + "\n")


def kldstat(arguments: list[str], _caller: Caller, output: Output) -> None:
    """Which modules there are; Exit with 1 for one that is not."""
    try:
        options, words = getopt("kldstat", arguments, "dhi:m:n:qv", output)
    except BadOption:
        words = ["?"]
        options = []
    if words:
        output.err("usage: kldstat [-dhqv] [-i id] [-n filename]\n       kldstat [-dq] [-m modname]\n")
        raise Exit(1)
    flags = dict(options)
    if "m" in flags:
        number = MODULES.get(flags["m"])
        if "q" in flags:
            if number is None:
                raise Exit(1)
            return
        if number is None:
            output.fail(1, f"kldstat: can't find module {flags['m']}: No such file or directory")
        output.out(f"Id  Refs Name\n{number:3d} {1:4d} {flags['m']}\n")
        return
    if "n" in flags and flags["n"] != "kernel":
        if "q" in flags:
            raise Exit(1)
        output.fail(1, f"kldstat: can't find file {flags['n']}: No such file or directory")
    if "q" not in flags:
        output.out("Id Refs Address                Size Name\n 1    1 0xffffffff80200000   d80688 kernel\n")


def kldload(arguments: list[str], caller: Caller, output: Output) -> None:
    """Load a module: all there are are in the kernel; Exit with 1 for others, and without -n for these."""
    try:
        options, words = getopt("kldload", arguments, "nqv", output)
    except BadOption:
        words, options = [], []
    if not words:
        output.err("usage: kldload [-nqv] file ...\n")
        raise Exit(1)
    failed = False
    for word in words:
        reason = "" if word in MODULES else "No such file or directory"
        if not reason and ("n", "") not in options:
            reason = "module already loaded or in kernel"
        if not caller.root:
            reason = "Operation not permitted"
        if reason:
            failed = True
            if ("q", "") not in options:
                output.err(f"kldload: can't load {word}: {reason}\n")
    if failed:
        raise Exit(1)


def setfib(arguments: list[str], _caller: Caller, output: Output) -> Execute:
    """Run a command with another routing table: there is table 0 only (net.fibs)."""
    words = [word for word in arguments if word != "-F"]
    number = words.pop(0).removeprefix("-") if words else ""
    if not number.isdecimal() or not words:
        output.fail(1, "usage: setfib [-F] value command")
    if int(number) != 0:
        output.fail(1, "setfib: setfib: Invalid argument")
    return Execute(words)
