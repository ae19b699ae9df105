"""Why a jail that runs is not announced: one of a few words, for what has to be the same each time it is so.

What an operator reads (`mobility status`) names addresses, times and figures; as a label each such text would be a series
of its own. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from mobility.bgp.ownership import Kind
from mobility.bgp.speaker import State
from mobility.decide import Stand


class Cause(StrEnum):
    """Why a jail is not announced; `MEANINGS` says what each means."""

    PROBLEM = "problem"
    FILE = "file"
    TAKEN = "taken"
    NOT_GRANTED = "not_granted"
    NO_ADDRESS = "no_address"
    STARTING = "starting"
    STOPPING = "stopping"
    DRAINED = "drained"
    NOT_READY = "not_ready"
    SUPPRESSED = "suppressed"
    FAILOVER = "failover"
    WAITING = "waiting"
    LOST = "lost"
    CONFLICT = "conflict"
    FROZEN = "frozen"
    EXHAUSTED = "exhausted"
    NO_BRIDGE = "no_bridge"
    NO_SESSION = "no_session"
    HELD_BACK = "held_back"
    REFUSED = "refused"
    SENDING = "sending"


MEANINGS = {
    Cause.PROBLEM: "It can not be brought to where it should stand: a command fails, or its network can not be made.",
    Cause.FILE: "Its file is broken, and nothing is remembered of it.",
    Cause.TAKEN: "Another jail of this host holds one of its addresses.",
    Cause.NOT_GRANTED: "Nobody granted it an address.",
    Cause.NO_ADDRESS: "It has no vnet, and no interface of the host has its addresses.",
    Cause.STARTING: "Its poststart hook has not come yet.",
    Cause.STOPPING: "Its prestop hook has come.",
    Cause.DRAINED: "It, or the host, is drained.",
    Cause.NOT_READY: "One of its checks fails, or has not passed yet.",
    Cause.SUPPRESSED: "It flapped too often.",
    Cause.FAILOVER: "The failover that it goes with withdraws it on this node.",
    Cause.WAITING: "Not known yet: the fabric has not told who owns it, or CARP which node is the master.",
    Cause.LOST: "Another host has claimed it since: this is the older copy.",
    Cause.CONFLICT: "Another jail's claim is on one of its addresses.",
    Cause.FROZEN: "It has moved too often.",
    Cause.EXHAUSTED: "There is no higher sequence to claim it with.",
    Cause.NO_BRIDGE: "ExaBGP does not run, or its bridge is not connected.",
    Cause.NO_SESSION: "No BGP session is established.",
    Cause.HELD_BACK: "No peer takes one of its routes.",
    Cause.REFUSED: "ExaBGP refuses one of its routes, or `bgp.max_announcements` leaves no room for it.",
    Cause.SENDING: "On its way: ExaBGP has not acknowledged it yet.",
}
"""For whom reads a dashboard; `mobility status` says what to do."""
NOT_WANTED = frozenset({Cause.NOT_GRANTED, Cause.STARTING, Cause.STOPPING, Cause.DRAINED, Cause.FAILOVER})
"""A jail that is not announced for one of these is not to be, either."""
OF_THE_HOST = frozenset({Cause.DRAINED, Cause.FAILOVER, Cause.WAITING, Cause.NO_BRIDGE, Cause.NO_SESSION})
"""These concern all jails at once: none of them stands out by it."""
PASSING = frozenset({Cause.STARTING, Cause.STOPPING, Cause.SENDING})
"""These go by themselves, with each start and stop."""
_OWNERSHIP = {
    Kind.WAITING: Cause.WAITING,
    Kind.LOST: Cause.LOST,
    Kind.CONFLICT: Cause.CONFLICT,
    Kind.FROZEN: Cause.FROZEN,
    Kind.EXHAUSTED: Cause.EXHAUSTED,
}
_AT_PEERS = (
    # one peer is enough: what keeps the others is told only where none has it; the gravest first
    (State.REFUSED, Cause.REFUSED),
    (State.HELD, Cause.HELD_BACK),
    (State.LEFT_OUT, Cause.HELD_BACK),
    (State.SENDING, Cause.SENDING),
    (State.NO_SESSION, Cause.NO_SESSION),
    (State.NO_BRIDGE, Cause.NO_BRIDGE),
)


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a jail that runs and is not announced."""

    problem: bool = False
    broken_file: bool = False
    waits: bool = False
    """Whether another jail holds an address of its."""
    granted: bool = True
    stand: Stand = Stand.ANNOUNCED
    starting: bool = False
    drained: bool = False
    ready: bool = True
    suppressed: bool = False
    failover: bool | None = None
    """Whether the failover that it goes with has this node announce it; None where it goes with none."""
    undecided: bool = False
    """Whether that failover has not decided yet."""
    kind: Kind | None = None
    at_peers: frozenset[State] = frozenset()
    """How its routes that no peer has stand at the peers, where it is to be announced."""


def cause(known: Known) -> Cause:
    """Return why it is not announced: the first of all reasons, in the order in which they would have to be mended."""
    if known.broken_file and not known.granted:
        return Cause.FILE
    if known.waits:
        return Cause.TAKEN
    if not known.granted:
        return Cause.NOT_GRANTED
    if known.stand is Stand.CLOSING:
        return Cause.STOPPING
    if known.stand is Stand.PAIRED or known.starting:
        return Cause.PROBLEM if known.problem else Cause.STARTING
    if known.problem:
        return Cause.PROBLEM
    if known.drained:
        return Cause.DRAINED
    if known.stand is Stand.ABSENT:
        return Cause.NO_ADDRESS
    if not known.ready:
        return Cause.NOT_READY
    if known.suppressed:
        return Cause.SUPPRESSED
    if known.failover is not None and (known.undecided or not known.failover):
        return Cause.WAITING if known.undecided else Cause.FAILOVER
    if known.kind in _OWNERSHIP:
        return _OWNERSHIP[known.kind]
    if known.stand is Stand.WIRED:
        return Cause.NO_ADDRESS
    return next((found for state, found in _AT_PEERS if state in known.at_peers), Cause.SENDING)
