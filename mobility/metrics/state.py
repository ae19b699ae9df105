"""What is true at one moment, as a scrape tells it: plain values, in parts of which each may be missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mobility.metrics.jails import Jails

MISSING = "figures are missing, please report it"
"""What is logged where a part can not be had."""


@dataclass(frozen=True, slots=True)
class Bgp:
    """What is true of ExaBGP, its bridge and its sessions; by peer's name, where it is by peer."""

    connected: bool = False
    sessions: Mapping[str, bool] = field(default_factory=dict)
    """Whether each is established."""
    changes: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """How often each has come ("up") and gone ("down")."""
    held_back: Mapping[str, int] = field(default_factory=dict)
    restarts: int = 0
    rib: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Host:
    """What is true of the host and of the agent's own work."""

    spool_depth: int = 0
    spool_oldest: float = 0.0
    """Seconds."""
    drained: bool = False
    looked_at: float = 0.0
    """UTC, in seconds."""


@dataclass(frozen=True, slots=True)
class Checks:
    """What is counted of checks of jails: how many there are, and results by kind, bad ones by kind and reason."""

    probes: int = 0
    runs: Mapping[str, int] = field(default_factory=dict)
    failures: Mapping[tuple[str, str], int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class State:
    """All of it; a part that is None is not told of."""

    jails: Jails | None = None
    bgp: Bgp | None = None
    host: Host | None = None
    checks: Checks | None = None
    failover: Mapping[str, Any] | None = None
    """As `Failover.describe` has it; None, too, where there is no failover."""
