"""What the lab's commands have in common: who calls, what they print, how they end, getopt(3)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

from tests.lab.kernel.errors import Errno, Refused
from tests.lab.kernel.machine import Machine
from tests.lab.kernel.state import Interface, Jail, Vnet

EX_USAGE, EX_NOHOST, EX_OSERR, EX_NOPERM = 64, 68, 71, 77  # sysexits(3)


class Exit(Exception):
    """The command ends here with this status."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class BadOption(Exception):
    """getopt(3) met an option that the command does not have; the message is printed already."""


@dataclass(slots=True)
class Output:
    """What a command prints, in order: (1, text) on standard output, (2, text) on standard error.

    As on FreeBSD, standard output is buffered until the end (unless *buffered* is unset: setbuf(3)) and standard error
    is not; so a command that writes to both shows its errors first when both go to one file.
    """

    written: list[tuple[int, str]] = field(default_factory=list)
    buffered: bool = True

    def out(self, text: str) -> None:
        """Print on standard output."""
        self.written.append((1, text))

    def err(self, text: str) -> None:
        """Print on standard error."""
        self.written.append((2, text))

    @property
    def chunks(self) -> list[tuple[int, str]]:
        """What to print, in the order in which it would come out."""
        if not self.buffered:
            return self.written
        return sorted(self.written, key=lambda chunk: -chunk[0])

    def fail(self, code: int, message: str) -> NoReturn:
        """errx(3): print a message and end."""
        self.err(message + "\n")
        raise Exit(code)


@dataclass(frozen=True, slots=True)
class Caller:
    """The process that runs the command: in which jail, and whether it is root."""

    machine: Machine
    jail: Jail
    root: bool = True

    @property
    def vnet(self) -> Vnet:
        """Its network stack."""
        return self.jail.vnet

    def privileged(self) -> None:
        """Refused with EPERM unless it is root."""
        if not self.root:
            raise Refused(Errno.EPERM)

    def administers_network(self) -> None:
        """Refused with EPERM unless it is root in a vnet of its own (kern_jail.c, prison_priv_check: PRIV_NET_*)."""
        self.privileged()
        if not self.jail.own_vnet:
            raise Refused(Errno.EPERM)


#: A command: (arguments, who calls, where to print) to nothing, or an order to go on elsewhere.
Command = Callable[[list[str], "Caller", Output], Any]


@dataclass(frozen=True, slots=True)
class Enter:
    """The client is to enter a jail and go on there: with another command of the lab (*lab*) or a program of Linux."""

    jail: Jail
    arguments: list[str]
    lab: bool
    root: str = ""
    user: str = ""


@dataclass(frozen=True, slots=True)
class Execute:
    """The client is to become this program of Linux, where it is."""

    arguments: list[str]


def getopt(name: str, arguments: list[str], letters: str, output: Output) -> tuple[list[tuple[str, str]], list[str]]:
    """getopt(3), which stops at the first argument that is no option: (options with their values, the rest)."""
    found: list[tuple[str, str]] = []
    rest = list(arguments)
    while rest and rest[0].startswith("-") and rest[0] != "-":
        word = rest.pop(0)
        if word == "--":
            break
        position = 1
        while position < len(word):
            letter = word[position]
            place = letters.find(letter)
            if letter == ":" or place < 0:
                output.err(f"{name}: illegal option -- {letter}\n")
                raise BadOption
            position += 1
            if letters[place + 1 : place + 2] != ":":
                found.append((letter, ""))
                continue
            value = word[position:]
            if not value:
                if not rest:
                    output.err(f"{name}: option requires an argument -- {letter}\n")
                    raise BadOption
                value = rest.pop(0)
            found.append((letter, value))
            break
    return found, rest


def strip_libxo(arguments: list[str]) -> tuple[list[str], str]:
    """Take libxo's own options out (xo_parse_args(3)): (the rest, "json", "json,pretty" or "")."""
    rest: list[str] = []
    style = ""
    words = list(arguments)
    while words:
        word = words.pop(0)
        if word == "--libxo" and words:
            style = words.pop(0)
        elif word.startswith(("--libxo:", "--libxo=")):
            style = {"J": "json", "JP": "json,pretty", "T": ""}.get(word[8:], word[8:])
        else:
            rest.append(word)
    return rest, style


def scope_interface(vnet: Vnet, text: str) -> tuple[str, Interface | None]:
    """Split `fe80::1%IF`: (address, interface). The interface is None without a scope; KeyError for an unknown one."""
    address, percent, name = text.partition("%")
    if not percent:
        return address, None
    interface = vnet.interface(name)
    if interface is None and name.isdecimal():
        interface = vnet.by_index(int(name))
    if interface is None:
        raise KeyError(name)
    return address, interface


def with_jail_option(name: str, letters: str, command: Command) -> Command:
    """Give a command the `-j JAIL` of the releases that have it (jail_attach(2) before anything else is done).

    *letters* are its other options. Where the release has none, the command sees the -j, and refuses it. The words for
    an unknown jail are libjail's in all of these commands.
    """

    def main(arguments: list[str], caller: Caller, output: Output) -> Any:
        if name not in caller.machine.kernel.jail_option:
            return command(arguments, caller, output)
        plain, style = strip_libxo(arguments)
        libxo = ["--libxo", style] if plain != arguments else []
        try:
            options, rest = getopt(name, plain, letters + "j:", Output())
        except BadOption:
            return command(arguments, caller, output)  # it says what it has to say
        jails = [value for letter, value in options if letter == "j"]
        if not jails:
            return command(arguments, caller, output)
        try:
            jail = caller.machine.find(caller.jail, jails[-1])
            caller.privileged()
        except Refused as refused:
            output.fail(1, f"{name}: {refused.message}")
        kept = [word for letter, value in options if letter != "j" for word in (f"-{letter}", value) if word]
        return command([*libxo, *kept, *rest], replace(caller, jail=jail), output)

    return main
