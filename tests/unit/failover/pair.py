"""Two nodes in a model of time: CARP, pfsync, sessions, delays, and on each node the policy with its accounting.

CARP is after carp(4), transcript 6-carp and FreeBSD's sys/netinet/ip_carp.c; pfsync after transcript 7-pfsync: it stays out
of step, and demotes, for as long as nobody answers.
"""

from __future__ import annotations

import json
from collections import deque
from dataclasses import asdict, dataclass, field, replace

from mobility.failover import accounting, policy
from mobility.failover.accounting import Add, Keep, Record
from mobility.failover.model import BACKUP, INIT, MASTER, Carp, Pfsync, Seen, Vhid
from mobility.failover.policy import Drain, Fabric, Group, Memory, Settings, Stance

TICK = 0.25
"""Seconds."""
FACTOR = 240
"""What the kernel adds for a dead interface, and for pfsync out of step."""
MAX_SKEW = 240
"""CARP_MAXSKEW."""
BULK = 1.5
"""Seconds that a bulk update takes."""
CONNECT = 1.0
"""Seconds until a session is up again."""
HEAR = 0.5
"""Seconds until a session that is up has told what there is."""
REBOOT = 4.0
"""Seconds that a node is off."""
VHID = Vhid("igb0", 1)
GROUP = Group(
    "gw", (VHID,), ("web1",), sync_within=5.0, hand_over_within=8.0, hold=1.0, hold_down=6.0, when_backup=policy.LESS
)


class Killed(Exception):
    """The agent died in the middle of something."""


@dataclass
class Node:
    """One of the two."""

    name: str
    skew: int
    preempt: bool
    group: Group
    view_delay: float = 0.0
    """Seconds by which its agent learns late what CARP does."""
    blind: bool = False
    """Whether its routers do not show it the other's path."""
    # the kernel
    on: bool = True
    off_until: float = 0.0
    link: bool = True
    state: str = INIT
    down_at: float = 0.0
    """When a BACKUP takes the master for dead."""
    send_at: float = 0.0
    """When a MASTER advertises next."""
    total: int = 0
    of_kernel: int = 0
    boot: int = 1
    # pfsync
    in_step: bool = True
    stuck: bool = False
    bulk_until: float | None = None
    # BGP
    fabric: bool = True
    session_at: float = 0.0
    connects: float = CONNECT
    """Seconds until its sessions are up after a boot."""
    # the agent
    drained: Drain = Drain.NO
    memory: Memory = field(default_factory=Memory)
    record: Record | None = None
    die_at_step: int | None = None
    in_doubt: int = 0
    """What is in the total of which the agent can not know it."""
    decision: policy.Decision | None = None
    stance: Stance | None = None
    past: deque[tuple[float, str, Stance | None]] = field(default_factory=lambda: deque(maxlen=40))
    changes: list[tuple[float, object]] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    @property
    def effective(self) -> int:
        """The advskew that it advertises (DEMOTE_ADVSKEW)."""
        return max(0, min(MAX_SKEW, self.skew + self.total))

    @property
    def patience(self) -> float:
        """Seconds until it takes a silent master for dead (carp_setrun); no two clocks tick at once."""
        return 3 + self.skew / 256 + (TICK if self.name == "b" else 0)

    def restart(self) -> None:
        """Have the agent forget all that it has not stored."""
        self.memory = policy.recalled(json.loads(json.dumps(asdict(self.memory))))
        self.record = accounting.recalled(json.loads(json.dumps(asdict(self.record)))) if self.record else None

    def kernel_demotes(self, amount: int) -> None:
        self.total += amount
        self.of_kernel += amount

    def at(self, when: float) -> tuple[str, Stance | None]:
        """What its CARP state and its announcement were."""
        found = [entry for entry in self.past if entry[0] <= when] or [self.past[0]]
        return found[-1][1], found[-1][2]

    def established(self, now: float) -> bool:
        return self.on and self.fabric and now >= self.session_at


@dataclass
class Pair:
    """Both, and what is between them."""

    a: Node
    b: Node
    bgp_delay: float = 0.0
    """Seconds until one sees what the other announces."""
    now: float = 0.0
    split: bool = False
    """Whether advertisements are lost between two links that are up."""
    advertisements: list[tuple[str, int]] = field(default_factory=list)

    @property
    def nodes(self) -> tuple[Node, Node]:
        return self.a, self.b

    def other(self, node: Node) -> Node:
        return self.b if node is self.a else self.a

    # -- what befalls them

    def befall(self, what: str, node: Node) -> None:
        if what == "link" and node.on:
            node.link = not node.link
            node.kernel_demotes(-FACTOR if node.link else FACTOR)
            self._init(node)
        elif what == "fabric":
            node.fabric = not node.fabric
            node.session_at = self.now + CONNECT
        elif what == "drain":
            node.drained = Drain.NO if node.drained != Drain.NO else Drain.HOST
        elif what == "reboot" and node.on:
            node.on, node.off_until = False, self.now + REBOOT
            node.state, node.total, node.of_kernel, node.in_doubt = INIT, 0, 0, 0
            node.boot += 1
            node.memory = policy.recalled(json.loads(json.dumps(asdict(node.memory))), rebooted=True)
            node.stance, node.decision, node.bulk_until = None, None, None
        elif what == "stuck":
            node.stuck = not node.stuck
        elif what == "sync" and node.on:
            # the interface between the two has been away
            self._bulk(node)
        elif what == "split":
            self.split = not self.split
        elif what == "restart":
            node.restart()
        elif what in ("die-0", "die-1", "die-2"):
            node.die_at_step = int(what[-1])

    def boot(self, node: Node) -> None:
        node.on = True
        if not node.link:
            node.kernel_demotes(FACTOR)
        node.session_at = self.now + node.connects
        self._init(node)
        self._bulk(node)

    def _init(self, node: Node) -> None:
        node.state = BACKUP if node.on and node.link else INIT
        node.down_at = self.now + node.patience

    def _bulk(self, node: Node) -> None:
        if node.bulk_until is None:
            node.kernel_demotes(FACTOR)
        node.in_step, node.bulk_until = False, self.now + BULK

    # -- CARP

    def _send(self, node: Node) -> None:
        node.send_at = self.now + 1 + node.effective / 256
        if not self.split and node.link and self.other(node).link:
            self.advertisements.append((self.other(node).name, node.effective))

    def _master(self, node: Node) -> None:
        node.state = MASTER
        self._send(node)

    def _hear(self, node: Node, theirs: int) -> None:
        """As carp_input_c: both have an advbase of 1."""
        if not node.on or not node.link:
            return
        if node.state == MASTER and node.effective >= theirs:
            node.state, node.down_at = BACKUP, self.now + node.patience
        elif node.state == BACKUP:
            if node.preempt and node.effective < theirs:
                self._master(node)
            else:
                node.down_at = self.now + node.patience

    # -- one step

    def step(self) -> None:
        self.now += TICK
        for node in self.nodes:
            if not node.on and self.now >= node.off_until:
                self.boot(node)
            other = self.other(node)
            if node.on and node.bulk_until is not None and self.now >= node.bulk_until and other.on and not node.stuck:
                node.in_step, node.bulk_until = True, None
                node.kernel_demotes(-FACTOR)
        heard, self.advertisements = self.advertisements, []
        for name, skew in heard:
            self._hear(self.a if name == self.a.name else self.b, skew)
        for node in self.nodes:
            if node.state == BACKUP and self.now >= node.down_at:
                self._master(node)
            elif node.state == MASTER and self.now >= node.send_at:
                self._send(node)
        for node in self.nodes:
            node.past.append((self.now, node.state, node.stance if node.established(self.now) else None))
        for node in self.nodes:
            if node.on:
                self._agent(node)

    def _agent(self, node: Node) -> None:
        state, _ = node.at(self.now - node.view_delay)
        seen = Seen(
            (Carp(VHID, state, 1, node.skew),),
            Pfsync(True, "igb1", "192.0.2.9", node.in_step, bulk=not node.in_step, up=True),
            node.total,
            node.preempt,
        )
        up = node.established(self.now)
        heard = up and self.now >= node.session_at + HEAR
        shown = heard and not node.blind and self.shown(node)
        fabric = Fabric(int(up), 1, up, {node.group.name: shown}, heard)
        decision = policy.decide(seen, node.memory, fabric, Settings((node.group,)), self.now, drained=node.drained)
        ruling = decision.groups[node.group.name]
        if ruling.due is not None and ruling.due <= self.now:
            node.complaints.append(f"{self.now}: due at {ruling.due}: {ruling}")
        if ruling.stance != node.stance:
            node.changes.append((self.now, ruling.stance))
        node.memory, node.stance, node.decision = decision.memory, ruling.stance, decision
        self._account(node, decision.demotion)

    def shown(self, node: Node) -> bool:
        """Whether the fabric shows a node the other's preferred path: it was announced, and its session is up."""
        _, stance = self.other(node).at(self.now - self.bgp_delay)
        return stance == Stance.PREFERRED

    def _account(self, node: Node, wanted: int) -> None:
        settled = accounting.settle(node.record, accounting.place(str(node.boot), "host"), wanted, node.total)
        if not settled.steps:
            node.record = settled.record  # what another boot has recorded is forgotten
        try:
            for index, step in enumerate(settled.steps):
                if node.die_at_step == index and len(settled.steps) == 3:
                    raise Killed
                match step:
                    case Keep(record):
                        node.record = record
                    case Add(amount):
                        node.total += amount
                        node.changes.append((self.now, amount))
                        if node.state == MASTER:
                            self._send(node)  # carp_demote_adj: all are sent at once
        except Killed:
            written = node.die_at_step == 2
            change = next(step.amount for step in settled.steps if isinstance(step, Add))
            if node.die_at_step:
                # it is in, or not out, and nobody knows
                node.in_doubt += abs(change) if written == (change > 0) else 0
            node.die_at_step = None
            node.restart()

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds / TICK)):
            self.step()
            self.check()

    def check(self) -> None:
        """What holds at each moment."""
        for node in self.nodes:
            assert not node.complaints, node.complaints
            ours = node.record.ours if node.record and node.record.place.startswith(f"{node.boot} ") else 0
            if node.on and not (node.record and node.record.pending):
                assert node.total == node.of_kernel + ours + node.in_doubt, (self.now, node)
            assert node.total >= 0, (self.now, node)

    def both_withdrawn(self) -> bool:
        return self.a.stance == self.b.stance == Stance.WITHDRAWN


def pair(
    *, skew: int = 100, preempt: tuple[bool, bool] = (True, True), blind: bool = False, group: Group = GROUP
) -> Pair:
    """Two nodes that have just booted at once."""
    a, b = (
        Node(name, each, first, replace(group), blind=blind)
        for name, each, first in (("a", 0, preempt[0]), ("b", skew, preempt[1]))
    )
    both = Pair(a, b)
    for node in both.nodes:
        both.boot(node)
    return both


__all__ = ["FACTOR", "GROUP", "TICK", "VHID", "Drain", "Memory", "Node", "Pair", "pair"]
