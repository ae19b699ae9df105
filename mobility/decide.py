"""Where a jail should stand: pure functions from what is wanted, remembered and observed.

Level-driven: they never ask how things came to be as they are, so that lost, repeated and reordered events end in the
same place.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum

from mobility.announcement import Announce
from mobility.bgp.ownership import Held
from mobility.damping import Damping
from mobility.jails.jailsd import JailConfig, no_vnet
from mobility.model import Phase, Prefix, address
from mobility.network.output import Jail


class Stand(StrEnum):
    """Where a jail should stand."""

    ABSENT = "absent"
    """Nothing of ours is left, but a reject for packets still in flight."""
    PAIRED = "paired"
    """About to be made: its pair exists on the host. With a link of its manager's: made, and not started yet."""
    WIRED = "wired"
    """Runs and is wired, and is not to be announced."""
    ANNOUNCED = "announced"
    """Runs, is wired and is to be announced."""
    CLOSING = "closing"
    """About to stop: withdrawn, its addresses rejected, still wired."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a jail should stand, and why it is not announced if it is not."""

    stand: Stand
    reason: str = ""


class How(StrEnum):
    """How a jail's addresses are brought to it."""

    NEXT_HOP = "next-hop"
    """Over its link, IPv4 by the IPv6 next hop."""
    INTERFACE = "interface"
    """Over its link, IPv4 by interface routes."""
    PLAIN = "plain"
    """It has no vnet of its own: jail(8) put them on an interface of the host."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What is remembered of a jail beyond any look. Times are this boot's monotonic clock, in seconds."""

    phase: Phase | None = None
    """The last hook event."""
    phase_at: float = 0.0
    jid: int | None = None
    """The jid last seen running, and since when."""
    seen_at: float = 0.0
    started: int | None = None
    """The jid whose start is known to be complete."""
    rejects: tuple[str, ...] = ()
    """The addresses that are rejected while packets may be in flight, and since when."""
    rejects_at: float = 0.0
    granted: tuple[str, ...] = ()
    """What it was last wired with: it keeps that when its file is broken while it runs."""
    wired: int | None = None
    """The jid that was wired so, inside and out."""
    announced_at: float = 0.0
    """Since when it has been announced, 0 while it is not: a restart of the agent is no news of the jail's."""
    how: How | None = None
    """How it was wired last."""
    adopted: str = ""
    """The outer end that its manager made and that serves as its link."""
    adopted_by: int | None = None
    """The jid that it serves."""
    inner: tuple[str, ...] = ()
    """The names that its other end may have in the jail."""
    bridge: str = ""
    """The bridge that this end was taken out of."""
    lent: str = ""
    """The host's IPv4 address that stands on its link, too (How.INTERFACE)."""
    found: bool = False
    """Whether an agent that remembers nothing of it found it running: it may be an old copy of a jail that has moved."""
    announce: Announce = field(default_factory=Announce)
    """How its file last said that it is announced: it keeps that when its file is broken."""
    held: Held = field(default_factory=Held)
    """What this incarnation has claimed in the fabric."""
    damping: Damping = field(default_factory=Damping)
    """How much it has flapped."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long hook events are believed, in seconds."""

    starting_for: float
    stopping_for: float
    reject_for: float


def observe(memory: Memory, jail: Jail | None, now: float) -> Memory:
    """Return the memory after a look that showed the jail as running (with its jid) or not."""
    if jail is None:
        gone = replace(memory, jid=None, started=None, found=False, held=Held())
        return gone if memory.jid is not None else memory
    if jail.jid != memory.jid:
        # where its prestop is the first that is ever heard of a jail, it is that jail's
        first = memory.seen_at == 0.0 and memory.phase is Phase.PRESTOP
        fresh = memory.jid is not None or memory.phase is not None
        return replace(
            memory,
            jid=jail.jid,
            seen_at=memory.phase_at if first else now,
            started=None,
            found=memory.found and not fresh,
            held=Held(),
        )
    return memory


def decide(
    config: JailConfig | None,
    jail: Jail | None,
    memory: Memory,
    now: float,
    patience: Patience,
    *,
    barred: str = "",
) -> Target:
    """Say where a jail should stand.

    `config` is None where no addresses are granted, `jail` None where it does not run; `memory` is `observe`d already;
    `barred` is the reason not to announce it, where there is one.
    """
    age = now - memory.phase_at
    if jail is None:
        # at created the jail existed: if it is not there any more its start has failed, and no hook says so
        coming = memory.phase is Phase.PRESTART and age < patience.starting_for
        if config is not None and coming:
            return Target(Stand.PAIRED, "is about to start")
        return Target(Stand.ABSENT, "does not run")
    if config is None:
        return Target(Stand.ABSENT, "has no addresses granted")
    if not jail.vnet and not held(config, jail):
        return Target(
            Stand.ABSENT,
            "has no vnet of its own and none of its addresses: add `vnet;` to its jail.conf, "
            f'or `ip4.addr = "lo1|{config.texts[0]}"` and its like',
        )
    if memory.phase is Phase.PRESTOP and memory.phase_at >= memory.seen_at and age < patience.stopping_for:
        return Target(Stand.CLOSING, "is stopping")
    starting = memory.phase in (Phase.PRESTART, Phase.CREATED) and memory.started != jail.jid
    if starting and age < patience.starting_for:
        # a link that its manager makes is the manager's until the jail has started
        stand = Stand.PAIRED if config.ends and jail.vnet else Stand.WIRED
        return Target(stand, "is starting: its poststart hook has not come yet")
    if barred:
        return Target(Stand.WIRED, barred)
    if not jail.vnet and (missing := [text for text in config.texts if text not in jail.addresses]):
        return Target(Stand.ANNOUNCED, f"runs without {' '.join(missing)}: its ip4.addr and ip6.addr do not list it")
    if not jail.vnet and config.services:
        return Target(Stand.ANNOUNCED, no_vnet(config.name, config.services))
    return Target(Stand.ANNOUNCED)


def held(config: JailConfig, jail: Jail) -> tuple[Prefix, ...]:
    """Return the granted addresses that a running jail can use: all in a vnet of its own, else what jail(8) gave it."""
    if jail.vnet:
        return config.routed
    return tuple(prefix for prefix in config.addresses if address(prefix) in jail.addresses)
