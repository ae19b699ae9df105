"""What a running agent takes up of a changed mobility.toml, and what it does not: pure.

The list of peers and the allowed prefixes are taken up. All else is read once, at the start of a service, and is woven into
what runs: a file that changes any of that is refused whole, with the service to restart, so that what runs is always what
one file said.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from mobility.config import Config, Peer

AGENT, EXABGP = "mobility", "mobility_exabgp"
"""The services, as service(8) calls them."""
_TAKEN = {("host", "allowed"), ("bgp", "peers"), ("bgp", "max_announcements"), ("terms", "groups")}
_SAID = {("terms", "administrator")}
"""What is another setting too, which speaks for it."""
_EXABGP_TOO = ("local_as", "router_id", "user", "graceful_restart", "exabgp", "bridge_command", "fail_static_for")
"""What ExaBGP, or the bridge, was started with."""
_KEYS = {"local_as": "as", "remote_as": "as"}
"""Settings that the file calls otherwise."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What differs between two configurations."""

    taken: tuple[str, ...] = ()
    """What is taken up, in words for an operator."""
    refused: tuple[str, ...] = ()
    """What needs a restart, each with the services to restart; empty where all can be taken up."""


def compare(old: Config, new: Config) -> Changes:
    """Return what changes from `old` to `new`, both read and found right."""
    refused = []
    for section in (field.name for field in dataclasses.fields(Config)):
        before, after = getattr(old, section), getattr(new, section)
        if before == after or section == "path":
            continue
        if not dataclasses.is_dataclass(before) or not dataclasses.is_dataclass(after):
            refused.append(_restart(section, AGENT))
            continue
        if section == "failover":
            refused += _failover(old, new)
            continue
        for name in (field.name for field in dataclasses.fields(before)):
            if getattr(before, name) == getattr(after, name) or (section, name) in _TAKEN | _SAID:
                continue
            # where folders lie, ExaBGP has been told as well
            both = section == "paths" or (section == "bgp" and name in _EXABGP_TOO)
            refused.append(_restart(f"{section}.{_KEYS.get(name, name)}", EXABGP if both else AGENT))
    limit = new.bgp.max_announcements
    limits = [] if limit == old.bgp.max_announcements else [f"bgp.max_announcements is {limit}"]
    return Changes((*_prefixes(old, new), *_peers(old, new), *limits, *_groups(old, new)), tuple(refused))


def _restart(key: str, service: str) -> str:
    services = (EXABGP, AGENT) if service == EXABGP else (AGENT,)
    return f"{key} is read at the start only: {'; '.join(f'service {each} restart' for each in services)}"


def _failover(old: Config, new: Config) -> list[str]:
    """Return what differs in [failover.*]: all of it is woven into what CARP and BGP have been told."""
    before, after = ({group.name: group for group in each.failover.groups} for each in (old, new))
    return [
        _restart(f"failover.{name}", AGENT) for name in sorted({*before, *after}) if before.get(name) != after.get(name)
    ]


def _prefixes(old: Config, new: Config) -> list[str]:
    before, after = set(old.host.allowed), set(new.host.allowed)
    return [
        *(f"host.allowed has no more {prefix}" for prefix in sorted(before - after)),
        *(f"host.allowed has {prefix}" for prefix in sorted(after - before)),
    ]


def _groups(old: Config, new: Config) -> list[str]:
    before, after = dict(old.terms.groups), dict(new.terms.groups)
    return [
        *(f"group {name} goes" for name in before if name not in after),
        *(f"group {name} comes" for name in after if name not in before),
        *(f"group {name} changes" for name in after if name in before and before[name] != after[name]),
    ]


def _peers(old: Config, new: Config) -> list[str]:
    before = {peer.name: peer for peer in old.bgp.peers}
    after = {peer.name: peer for peer in new.bgp.peers}
    return [
        *(f"peer {name} goes" for name in before if name not in after),
        *(f"peer {name} comes" for name in after if name not in before),
        *(
            f"peer {name} changes: {', '.join(_differing(before[name], peer))}"
            for name, peer in after.items()
            if name in before and before[name] != peer
        ),
    ]


def _differing(before: Peer, after: Peer) -> list[str]:
    """Return the settings that differ, and no values: one of them is a password."""
    differing: list[Any] = [
        field.name for field in dataclasses.fields(Peer) if getattr(before, field.name) != getattr(after, field.name)
    ]
    return [_KEYS.get(name, name) for name in differing]
