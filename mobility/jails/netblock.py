"""What Bastille writes into a jail's jail.conf to give it interfaces of its own, in every form that hosts still have.

After generate_vnet_jail_netblock and generate_static_mac (Bastille 1.4.4, lib/network.sh), add_interface (network.sh),
and their forerunners: 0.9 and 0.10 (create.sh, common.sh), 0.12 to 0.14 (common.sh: units in the names, "epairNa" where
a name would be too long, "jib destroy"), which 1.0 and later turn into its own form when the jail is stopped
(update_jail_syntax_v1, lib/migrate.sh).

Our own marks in these files: a line that makes way for ours is kept in its place as "#mobility# LINE", and each line of
ours ends in " # mobility". So whatever copies, renames or exports the jail takes along what is needed to restore it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from mobility.jails.jailconf import Statement, Variable
from mobility.jails.said import Ends

MADE_WAY = "#mobility# "
OURS = " # mobility"
_OURS = re.compile(
    r"\s*(?:exec\.(?:prestart|created|poststart|prestop|poststop) \+=|vnet\.interface \+?=) .*; # mobility\r?"
)
_MADE_WAY_ENCODED = "#mobility%# "

VNET_INTERFACE = "vnet.interface"
_EPAIR = re.compile(r"e([0-9]+)b_([A-Za-z0-9_-]+)", re.ASCII)
_LONG_EPAIR = re.compile(r"(epair[0-9]+)b", re.ASCII)
_NETGRAPH = re.compile(r"ng([0-9]+)_([A-Za-z0-9_-]+)", re.ASCII)
# what makes Bastille 1.0 and later rewrite the file at the jail's next stop (update_jail_syntax_v1)
_OLD_FORM = re.compile(r"exec\.prestart.*ifconfig epair[0-9]+ create|exec\.poststop.*jib destroy", re.ASCII)
# in a rule for `epairN=$(ifconfig epair create) && ...`: the command, and the ends of the pair that it made
_CREATE, _FIRST, _SECOND = r"\$\(ifconfig epair create\)", r"\$\{\1\}", r"\$\{\1%a\}b"


class Kind(Enum):
    """How an interface comes to the jail."""

    EPAIR = "epair"
    NETGRAPH = "netgraph"
    PASSTHROUGH = "passthrough"


@dataclass(frozen=True, slots=True)
class Link:
    """One interface of a jail's `vnet.interface`.

    `inner` is its name there; `outer` the host's end, "" where none is left on the host; `suffix` what jib and jng call it.
    `vnet` is the name that Bastille has the jail's rc.conf give it; "" for one that keeps its own.
    """

    kind: Kind
    inner: str
    outer: str = ""
    suffix: str = ""
    vnet: str = ""

    def ends(self, named: str = "") -> Ends | None:
        """Return the pair, None where there is none; `named` is what the jail's own rc.conf calls its end."""
        if self.kind is not Kind.EPAIR:
            return None
        return Ends(self.outer, tuple(dict.fromkeys(filter(None, (named, self.vnet, self.inner)))))


def links(interfaces: Iterable[str]) -> list[Link]:
    """Return what the values of `vnet.interface` stand for, in their order. The first carries the jail's addresses.

    It is Bastille's vnet0, which `bastille network remove` refuses to take away, and the only one that `bastille create`
    gives a default route.
    """
    found: list[Link] = []
    names = [name for value in interfaces for name in value.split()]
    for number, name in enumerate(dict.fromkeys(names)):
        vnet = f"vnet{number}"
        if match := _EPAIR.fullmatch(name):
            found.append(Link(Kind.EPAIR, name, f"e{match[1]}a_{match[2]}", match[2], vnet))
        elif match := _LONG_EPAIR.fullmatch(name):
            found.append(Link(Kind.EPAIR, name, f"{match[1]}a", "", vnet))
        elif match := _NETGRAPH.fullmatch(name):
            found.append(Link(Kind.NETGRAPH, name, "", match[2], vnet))
        else:
            found.append(Link(Kind.PASSTHROUGH, name))
    return found


class Netblock:
    """Tells which commands of a jail's exec.* are Bastille's own for one link.

    `others` are the jail's further links, `commands` all commands of its exec.prestart.
    """

    def __init__(self, link: Link, others: Sequence[Link], commands: Iterable[str]) -> None:
        shared = any(other.suffix == link.suffix for other in others)
        rules = _RULES[link.kind](link, _pair(link, commands), shared)
        self._rules = {name: [re.compile(rule) for rule in each] for name, each in rules.items()}
        # of several such lines each makes one pair (share/examples/jails/jib, jng): the first one is the first link's
        makers = {Kind.EPAIR: "jib addm", Kind.NETGRAPH: "jng bridge"}
        maker = makers.get(link.kind, "") if link.suffix else ""
        self._maker = re.compile(rf"{maker} {re.escape(link.suffix)} \S+") if maker else None
        self._made = False
        ends = "|".join(re.escape(name) for name in (link.outer, link.inner) if name)
        self._mentions = re.compile(rf"(?<![\w.-])(?:{ends})(?![\w.-])")

    def owns(self, parameter: str, command: str) -> bool:
        """Tell whether a command is Bastille's for this link. Ask in the file's order, once for each."""
        if parameter == "exec.prestart" and self._maker is not None and self._maker.fullmatch(command):
            first, self._made = not self._made, True
            return first
        return any(rule.fullmatch(command) for rule in self._rules.get(parameter, ()))

    def mentions(self, command: str) -> bool:
        """Tell whether a command names one of the link's ends."""
        return self._mentions.search(command) is not None


def _epair_rules(link: Link, pair: str, shared: bool) -> dict[str, list[str]]:
    outer, inner = re.escape(link.outer), re.escape(link.inner)
    member = f"(?:{outer}|{pair}a)" if pair else outer
    prestart = [
        f"(epair[0-9]+)={_CREATE} && ifconfig {_FIRST} up name {outer} && ifconfig {_SECOND} up name {inner}",
        rf"ifconfig \S+ addm {member}",
        rf"ifconfig (?:{outer}|{inner}) ether \S+",
        f"ifconfig {outer} description .*",
    ]
    if pair:
        named = f"ifconfig {pair}a up name {outer}", f"ifconfig {pair}b up name {inner}"
        prestart += [f"ifconfig {pair} create", *named]
    poststop = [f"ifconfig {outer} destroy", rf"ifconfig \S+ deletem {outer}"]
    if link.suffix and not shared:
        poststop.append(f"jib destroy {re.escape(link.suffix)}")
    return {"exec.prestart": prestart, "exec.poststop": poststop}


def _netgraph_rules(link: Link, _: str, shared: bool) -> dict[str, list[str]]:
    shutdown = [] if shared else [f"jng shutdown {re.escape(link.suffix)}"]
    return {"exec.prestart": [rf"ifconfig {re.escape(link.inner)} ether \S+"], "exec.poststop": shutdown}


def _passthrough_rules(link: Link, _pair: str, _shared: bool) -> dict[str, list[str]]:
    return {"exec.prestop": [rf"ifconfig {re.escape(link.inner)} -vnet \S+"]}


_RULES = {Kind.EPAIR: _epair_rules, Kind.NETGRAPH: _netgraph_rules, Kind.PASSTHROUGH: _passthrough_rules}


def _pair(link: Link, commands: Iterable[str]) -> str:
    """Return the name that the pair had when it was made, in the older forms; "" in the newer ones."""
    if match := _LONG_EPAIR.fullmatch(link.inner):
        return match[1]
    named = re.compile(rf"ifconfig (epair[0-9]+)a up name {re.escape(link.outer)}", re.ASCII)
    return next((match[1] for command in commands if (match := named.fullmatch(command))), "")


def text_of(statement: Statement) -> list[str]:
    """Return a statement's values as written, variables as "${name}"."""
    return [
        "".join(f"${{{piece}}}" if isinstance(piece, Variable) else piece for piece in value)
        for value in statement.values
    ]


def is_old_form(line: str) -> bool:
    """Tell whether a line, even a comment, would make Bastille rewrite the whole file at the jail's next stop."""
    return _OLD_FORM.search(line) is not None


def give_way(line: str) -> str:
    """Return a line as the comment that keeps it; Bastille's own seds still rename what is in it."""
    if is_old_form(line):
        return _MADE_WAY_ENCODED + line.replace("%", "%25").replace("exec.", "exec%2E")
    return MADE_WAY + line


def is_ours(line: str) -> bool:
    """Tell whether a line was put there by us."""
    return _OURS.fullmatch(line) is not None


def has_marks(text: str) -> bool:
    """Tell whether a line has made way in this text."""
    return any(line.startswith((MADE_WAY, _MADE_WAY_ENCODED)) for line in text.split("\n"))


def original(text: str) -> str:
    """Return a jail.conf without what is ours: lines of ours gone, those that made way back."""
    kept: list[str] = []
    for line in text.split("\n"):
        if line.startswith(MADE_WAY):
            kept.append(line.removeprefix(MADE_WAY))
        elif line.startswith(_MADE_WAY_ENCODED):
            kept.append(line.removeprefix(_MADE_WAY_ENCODED).replace("exec%2E", "exec.").replace("%25", "%"))
        elif not is_ours(line):
            kept.append(line)
    return "\n".join(kept)
