"""How a jail's routes are announced: what its file of jails.d, and its group, say about attributes and ownership.

    identity = "web1.example"             # two jails of the same identity are the same jail; default: its name
    group = "web"                         # [group.web] of mobility.toml has the defaults for [announce]

    [announce]
    ownership = "anycast"                 # several hosts announce it at once; "exclusive", the default: one owns it
    local_preference = 200                # iBGP only
    med = 10                              # anycast only: elsewhere it tells who owns the jail
    communities = ["65000:7", "no-export"]
    large_communities = ["65000:1:7"]
    extended_communities = ["target:65000:7", "origin:192.0.2.1:7", "bandwidth:65000:125000000", "0x4300000000000001"]
    prepend = 2                           # our AS stands three times in the path; eBGP only
    next_hop_ipv4 = "198.51.100.254"      # "self", the default: this host, as each peer can reach it
    next_hop_ipv6 = "2001:db8:7::fe"

A setting of the jail's file replaces that of its group, as a whole.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeAlias

from netaddr import IPNetwork

from mobility.bgp.bridge import COMMUNITY_NAMES
from mobility.bgp.grammar import MAX_32, MAX_PREPEND, community, extended_community, large_community
from mobility.bgp.ownership import DEFAULT_ADMINISTRATOR
from mobility.model import GRACEFUL_SHUTDOWN, Attributes, martian

EXCLUSIVE, ANYCAST = OWNERSHIP = ("exclusive", "anycast")
SELF = "self"
MAX_COMMUNITIES = 32
"""Of each kind: all of them together, and a path, stay far below the 4096 octets of an UPDATE (RFC 4271, section 4)."""
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}", re.ASCII)
_IDENTITY = re.compile(r"[!-~]{1,255}", re.ASCII)

Settings: TypeAlias = Mapping[str, Any]
"""The good ones of a table's settings, by name, in the form in which `Announce` has them."""
Complain: TypeAlias = Callable[[str, object, str], None]
"""Takes a mistake: where it stands, the value found, and what to write instead."""


@dataclass(frozen=True, slots=True)
class Announce:
    """How a jail is announced, beside what ownership adds."""

    anycast: bool = False
    """Several hosts may announce it at once: no ownership is claimed or compared."""
    identity: str = ""
    """What makes two jails on two hosts the same jail; "": its name."""
    local_preference: int | None = None
    med: int | None = None
    communities: tuple[str, ...] = ()
    large_communities: tuple[str, ...] = ()
    extended_communities: tuple[str, ...] = ()
    prepend: int = 0
    next_hop_ipv4: str | None = None
    next_hop_ipv6: str | None = None
    group: str = field(default="", compare=False)
    """The group that its file names, "" where it names none: a [failover.NAME] may hold all of a group."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What mobility.toml says about announcements: the groups, and whose large communities tell of ownership."""

    groups: tuple[tuple[str, tuple[tuple[str, Any], ...]], ...] = ()
    """Each group's name and its settings."""
    administrator: int = DEFAULT_ADMINISTRATOR

    def group(self, name: str) -> Settings | None:
        """Return a group's settings; None where there is no such group."""
        return next((dict(settings) for known, settings in self.groups if known == name), None)


def attributes(
    announce: Announce,
    *,
    communities: tuple[str, ...] = (),
    large_communities: tuple[str, ...] = (),
    med: int | None = None,
) -> Attributes:
    """Return what goes out with a jail's routes, with what ownership (its claim, its MED) and a drain add.

    A route that says GRACEFUL_SHUTDOWN has the local preference 0, so that iBGP peers prefer any other without a policy
    for the community (RFC 8326, section 4).
    """
    leaving = GRACEFUL_SHUTDOWN in communities
    return Attributes(
        communities=(*announce.communities, *communities),
        large_communities=(*announce.large_communities, *large_communities),
        extended_communities=announce.extended_communities,
        med=announce.med if med is None else med,
        local_preference=0 if leaving else announce.local_preference,
        prepend=announce.prepend,
        next_hop_ipv4=announce.next_hop_ipv4,
        next_hop_ipv6=announce.next_hop_ipv6,
    )


def recalled(values: Mapping[str, Any]) -> Announce:
    """Return what `dataclasses.asdict` made a mapping of, and JSON lists; what a version knew that we do not is left out."""
    known = {field.name for field in fields(Announce)}
    told: dict[str, Any] = {name: tuple(each) if isinstance(each, list) else each for name, each in values.items()}
    return Announce(**{name: each for name, each in told.items() if name in known})


def read(data: Mapping[str, Any], source: str, terms: Terms, complain: Complain) -> Announce:
    """Return what one file of jails.d says ([announce], identity, group); what is wrong with it is complained of."""
    own = _table(data.get("announce", {}), f"{source}: announce", terms.administrator, complain)
    theirs: Settings = {}
    name = data.get("group")
    if name is not None:
        found = terms.group(name) if isinstance(name, str) else None
        if found is None:
            known = ", ".join(known for known, _ in terms.groups) or "none"
            complain(f"{source}: group", name, f"is no group of mobility.toml; its groups ([group.NAME]): {known}")
        theirs = found or {}
    settings = {**theirs, **own}
    if settings.get("med") is not None and not settings.get("anycast"):
        remedy = _NO_MED if "med" in own else f"the group's med needs {_OPT_OUT}"
        complain(f"{source}: announce.med", settings["med"], remedy)
    identity = data.get("identity", "")
    if "identity" in data and not (isinstance(identity, str) and _IDENTITY.fullmatch(identity)):
        complain(f"{source}: identity", identity, "must be up to 255 printable ASCII characters without blanks")
        identity = ""
    return Announce(identity=identity, group=name if isinstance(name, str) else "", **settings)


def read_groups(data: object, administrator: int, complain: Complain) -> Terms:
    """Return what mobility.toml says: `data` is its table `group`; what is wrong with it is complained of."""
    if not isinstance(data, Mapping):
        complain("group", data, "must be tables: write each as [group.NAME]")
        return Terms((), administrator)
    groups = []
    for name, table in data.items():
        if not _NAME.fullmatch(name):
            complain(f"group.{name}", None, "a group's name must be up to 63 letters, digits, '_', '.' and '-'")
        settings = _table(table, f"group.{name}", administrator, complain)
        if settings.get("med") is not None and not settings.get("anycast"):
            complain(f"group.{name}.med", settings["med"], _NO_MED)
        groups.append((name, tuple(sorted(settings.items()))))
    return Terms(tuple(groups), administrator)


_OPT_OUT = 'ownership = "anycast"'
_NO_MED = f"is taken: it tells who owns the jail; take it out, or opt out of that with {_OPT_OUT}"


def _table(table: object, where: str, administrator: int, complain: Complain) -> Settings:
    if not isinstance(table, Mapping):
        complain(where, table, f"must be a table: write it as [{where.rpartition(' ')[2]}]")
        return {}
    found: dict[str, Any] = {}
    for key, value in table.items():
        if key not in _SETTINGS:
            complain(f"{where}.{key}", None, f"is no setting; known here: {', '.join(_SETTINGS)}")
            continue
        name, take = _SETTINGS[key]
        try:
            found[name] = take(value)
        except ValueError as error:
            complain(f"{where}.{key}", value, str(error))
    for text in found.get("large_communities", ()):
        if text.partition(":")[0] == str(administrator):
            remedy = f"those of {administrator} (ownership.administrator) tell who owns a jail: take another number"
            complain(f"{where}.large_communities", text, remedy)
    return found


def _ownership(value: Any) -> bool:
    if value not in OWNERSHIP:
        raise ValueError("must be " + " or ".join(f'"{word}"' for word in OWNERSHIP))
    return bool(value == ANYCAST)


def _number(high: int) -> Callable[[Any], int]:
    def take(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= high:
            raise ValueError(f"must be a whole number from 0 to {high}")
        return value

    return take


def _listed(take_one: Callable[[str], str], example: str) -> Callable[[Any], tuple[str, ...]]:
    def take(value: Any) -> tuple[str, ...]:
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise ValueError(f"must be a list of texts: {example}")
        if len(value) > MAX_COMMUNITIES:
            raise ValueError(f"has {len(value)} entries: {MAX_COMMUNITIES} fit")
        found: list[str] = []
        for item in value:
            try:
                one = take_one(item)
            except ValueError as error:
                raise ValueError(f"{error}; write {example}") from None
            if one in found:
                raise ValueError(f"{item!r} is written twice")
            found.append(one)
        return tuple(found)

    return take


def _community(text: str) -> str:
    plain = community(COMMUNITY_NAMES.get(text, text))
    if plain == GRACEFUL_SHUTDOWN:
        raise ValueError(f"{text!r} says that the route is about to go (RFC 8326), `mobility drain` sends it")
    return plain


def _extended(text: str) -> str:
    return f"0x{extended_community(text).hex()}"


def _next_hop(version: int) -> Callable[[Any], str | None]:
    def take(value: Any) -> str | None:
        if value == SELF:
            return None
        wrong = ValueError(f'must be an IPv{version} address that routers can reach, or "{SELF}"')
        try:
            found = ipaddress.ip_address(value) if isinstance(value, str) else None
        except ValueError:
            raise wrong from None
        # of another host, so a link-local one would lead nowhere; with its zone it is no text for ExaBGP either
        if found is None or found.version != version or "%" in value or martian(IPNetwork(str(found))):
            raise wrong
        return str(found)

    return take


_SETTINGS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "ownership": ("anycast", _ownership),
    "local_preference": ("local_preference", _number(MAX_32)),
    "med": ("med", _number(MAX_32)),
    "communities": ("communities", _listed(_community, 'communities = ["65000:7", "no-export"]')),
    "large_communities": ("large_communities", _listed(large_community, 'large_communities = ["65000:1:7"]')),
    "extended_communities": (
        "extended_communities",
        _listed(_extended, 'extended_communities = ["target:65000:7", "origin:192.0.2.1:7", "0x4300000000000001"]'),
    ),
    "prepend": ("prepend", _number(MAX_PREPEND)),
    "next_hop_ipv4": ("next_hop_ipv4", _next_hop(4)),
    "next_hop_ipv6": ("next_hop_ipv6", _next_hop(6)),
}
"""Each setting's name in `Announce`, and how its value is taken."""
SETTINGS = tuple(_SETTINGS)
