"""Who of a pair carries the traffic: one pure function from what a node sees to how it announces, and to its demotion.

    [failover.gw]
    vhids = ["1@igb0", "2@igb0"]          # they say which node carries these
    jails = ["web1"]                      # jails that run on both nodes, ...
    groups = ["dns"]                      # ... all of a [group.NAME], ...
    services = ["198.51.100.32/28"]       # ... and prefixes behind the pair, which the host itself announces
    when_backup = "less"                  # "withdraw": the backup announces nothing

Two loops would fight; here is none. What is announced follows CARP and nothing else decides it. BGP acts upon CARP by
demotion only: a node that has lost the fabric, or is drained, demotes itself, its peer takes the addresses over, and the
announcements follow. How a node announces never changes whether it has the fabric, so nothing comes back to where it began.

A pair withdraws nowhere at once. A node withdraws only when it is not the master and sees the other one's preferred path,
`SETTLED` seconds long and while its own is the less preferred one all the time. News of the other may be late, but less
than that: when both wished to go, each would have to see a preferred path that the other has given up `SETTLED` ago. In
a fabric that has never shown it, CARP vouches for the other: who is BACKUP hears a master, or would be master within three
times its advbase and advskew/256 seconds (ip_carp.c, carp_setrun). In one that has, a path that is not seen is not there:
a master whose agent does not run has the addresses, and announces nothing. A node in INIT hears nobody, and goes only for
a path that it sees. So that a path can be told for what it is, each is marked: see `announced`.

A node that has just booted comes back as one that had lost the fabric: CARP would give it the addresses, by its advskew,
before it has a way to the fabric. So it is demoted as soon as its agent knows that its sessions are not up
(OpenBSD's bgpd does the same: bgpd.conf(5), `demote`).

A demotion moves the addresses at once, but only where net.inet.carp.preempt=1 on both nodes (transcript 6-carp). Two that
are demoted alike stay as they are: a backup preempts a master that is slower, not one that is equal, and above 240 all
are equal (ip_carp.c, carp_input_c, CARP_MAXSKEW).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from typing import Any

from mobility.announcement import Announce
from mobility.bgp.grammar import MAX_PREPEND
from mobility.failover.model import BACKUP, INIT, MASTER, Seen, Vhid
from mobility.model import Prefix

WHEN_BACKUP = LESS, WITHDRAW = ("less", "withdraw")
SETTLED = 2.0
"""Seconds that the other's preferred path must be seen before a node withdraws: more than any news of BGP is late."""
STARTING = 15.0
"""Seconds that sessions have to come up at all, once an agent was started again: ExaBGP may be starting as well."""
MEETING = 2.0
"""Seconds that ExaBGP has to tell of its sessions, in a boot of which nothing is remembered: they may long be up."""
MOVING = 5.0
"""Seconds that CARP has to move for a drain, before the wait of a backup begins: an advertisement, or three of them."""
SHORTEST = 5.0
"""Seconds that `hand_over_within` is at least: two backups at advbase 1 are none after 4, and a look may be a second old."""
LOCAL_PREFERENCE = 100
"""ExaBGP's, where nothing else is said."""
PREEMPT = "net.inet.carp.preempt=1"
_HOST, _STANCE = 3, 5
"""Parts of the large communities: who announces it (as in bgp.ownership), and how much it is preferred."""
_MARKS = {1: "preferred", 2: "less"}


class Stance(StrEnum):
    """How a group's prefixes are announced."""

    PREFERRED = "preferred"
    """As they are."""
    LESS = "less"
    """With a longer path, and half of the local preference."""
    WITHDRAWN = "withdrawn"


class Role(StrEnum):
    """What CARP says of a group's vhids together."""

    MASTER = "master"
    """All are MASTER."""
    BACKUP = "backup"
    """All are BACKUP."""
    MIXED = "mixed"
    """Some are MASTER, the others BACKUP."""
    DOWN = "down"
    """One or more are INIT, or not there."""


class Drain(StrEnum):
    """Whether this host is drained."""

    NO = "no"
    HOST = "host"
    """`mobility drain`: the other node is to take over."""
    SHUTDOWN = "shutdown"
    """`mobility drain --until-boot`: this one is about to be gone, whether anybody takes over or not."""


@dataclass(frozen=True, slots=True)
class Group:
    """One [failover.NAME]: what goes with which vhids, and how. Times are in seconds."""

    name: str
    vhids: tuple[Vhid, ...]
    jails: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    """Jails whose files in jails.d name one of these as their `group`."""
    services: tuple[Prefix, ...] = ()
    """Prefixes behind the pair, which the host announces without a jail."""
    when_backup: str = LESS
    pfsync: bool = True
    """Whether a new master waits for pfsync to be in step."""
    sync_within: float = 30.0
    """For how long it waits at most."""
    hand_over_within: float = 20.0
    """After which a backup withdraws that does not see the other's path."""
    min_sessions: int = 1
    """Fewer sessions established are a fabric that is lost; 0: it never is."""
    hold: float = 5.0
    """For how long it must be lost before the host demotes itself."""
    hold_down: float = 30.0
    """For how long it must be back before the demotion ends."""
    demotion: int = 240
    prepend: int = 2
    """How many times more our AS stands in the path of what is less preferred."""


@dataclass(frozen=True, slots=True)
class Settings:
    """All of [failover.*]."""

    groups: tuple[Group, ...] = ()

    def of_jail(self, jail: str, group: str | None) -> Group | None:
        """Return what a jail belongs to; `group` is the one that its file in jails.d names."""
        named = (each for each in self.groups if jail in each.jails)
        return next(named, None) or next((each for each in self.groups if group and group in each.groups), None)


def hand_over_within(settings: Settings) -> float:
    """Return the seconds after which a drain that nobody has taken over will not be, 0 where nothing can be.

    CARP moves first: only then does a backup wait for the other's path.
    """
    return max((group.hand_over_within + MOVING for group in settings.groups), default=0.0)


@dataclass(frozen=True, slots=True)
class Fabric:
    """What BGP knows at a moment."""

    established: int
    """Sessions."""
    peers: int
    """Sessions there should be."""
    acknowledged: bool
    """Whether ExaBGP has answered for all that should be announced: one jail's route that it refuses keeps nobody demoted."""
    sees_other: Mapping[str, bool] = field(default_factory=dict)
    """By group: whether the fabric shows another host's path, marked as preferred, to all that this host would announce."""
    heard: bool = True
    """Whether it has told all that it has: else what it does not show means nothing."""
    told: bool = True
    """Whether ExaBGP is there to tell of sessions: else nobody knows of any."""
    most: float = math.inf
    """How many sessions were established at once since this agent has started, at most."""
    unseen: Mapping[str, str] = field(default_factory=dict)
    """By group: one of the prefixes to which it shows none."""


@dataclass(frozen=True, slots=True)
class Past:
    """What is remembered of a group. Times are this boot's monotonic clock, in seconds; None: it is not so."""

    name: str
    role: str = ""
    role_at: float = 0.0
    """Since when."""
    stance: str = ""
    """"": nothing was decided yet."""
    stance_at: float = 0.0
    preferred: bool = False
    """Whether this mastership has been announced as preferred: it stays so, whatever pfsync does then."""
    unsynced: bool = False
    """Whether that was without waiting any longer for pfsync."""
    sees_at: float | None = None
    """Since when the other's preferred path is seen."""
    shows: bool = False
    """Whether the fabric has ever shown one: then one that it does not show is not there."""
    blind: bool = False
    """Whether it was withdrawn without having seen one."""
    again_at: float | None = None
    """When it was announced again last, because the other's path was gone."""
    met: bool = False
    """Whether that was judged in this boot."""
    lost: bool = False
    """Whether the fabric counts as lost."""
    turning_at: float | None = None
    """Since when the sessions say otherwise than `lost`."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What is remembered between two decisions, in this boot; `recalled` brings it back from JSON."""

    groups: tuple[Past, ...] = ()
    drained_at: float | None = None


@dataclass(frozen=True, slots=True)
class Ruling:
    """How a group is to be announced, why, and when that may change by itself."""

    stance: Stance
    reason: str
    role: Role
    due: float | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """All that one moment asks for."""

    groups: Mapping[str, Ruling]
    demotion: int
    """What this host should have added to net.inet.carp.demotion."""
    reason: str
    """Why it is demoted, or should be and is not; "" where nothing asks for it."""
    memory: Memory
    due: float | None = None
    """When to ask again at the latest, if nothing happens before."""
    warnings: tuple[str, ...] = ()
    """What an operator should mend, also while all is well."""


def recalled(values: object, *, rebooted: bool = False) -> Memory:
    """Return the memory that `dataclasses.asdict` and JSON made `values` of; what can not be understood is forgotten.

    For an agent that starts: nobody has watched meanwhile, so what counts only while it is watched begins anew. Of another
    boot only what the fabric shows is remembered.
    """
    if not isinstance(values, Mapping):
        return Memory()
    found = values.get("groups")
    groups = [_past(each) for each in found] if isinstance(found, list | tuple) else []
    if rebooted:
        return Memory(tuple(Past(past.name, shows=past.shows) for past in groups if past is not None))
    at = values.get("drained_at")
    drained_at = float(at) if isinstance(at, int | float) and _is_time(at) else None
    return Memory(tuple(_resumed(past) for past in groups if past is not None), drained_at)


def _resumed(past: Past) -> Past:
    return replace(past, role=past.role if past.role == Role.MASTER else "", sees_at=None, turning_at=None)


def _past(values: object) -> Past | None:
    if not isinstance(values, Mapping) or not isinstance(values.get("name"), str):
        return None
    usual = Past("")
    good: dict[str, Any] = {}
    for each in fields(Past):
        value, default = values.get(each.name), getattr(usual, each.name)
        if each.name in ("sees_at", "again_at", "turning_at", "role_at", "stance_at"):
            fits = _is_time(value) or (value is None and default is None)
        else:
            fits = type(value) is type(default)
        if fits:
            good[each.name] = value
    if good.get("role", "") not in ("", *Role) or good.get("stance", "") not in ("", *Stance):
        return None
    return Past(**good)


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def role(group: Group, seen: Seen) -> Role:
    """Return what CARP says of a group's vhids together."""
    states = {seen.state(vhid) or INIT for vhid in group.vhids}
    if INIT in states:
        return Role.DOWN
    if states == {MASTER}:
        return Role.MASTER
    return Role.BACKUP if states == {BACKUP} else Role.MIXED


def in_step(group: Group, seen: Seen) -> bool:
    """Tell whether this node has the connections of the other, or needs none of them."""
    return not group.pfsync or (seen.pfsync.syncok is True and not seen.pfsync.bulk)


def decide(
    seen: Seen, memory: Memory, fabric: Fabric, settings: Settings, now: float, *, drained: Drain = Drain.NO
) -> Decision:
    """Return how each group is to be announced, and how much this host is to be demoted. `now` is monotonic, in seconds.

    It may be called at any time and any number of times; `seen` is of a look that went well, with the news since.
    """
    drained_at = None if drained == Drain.NO else now if memory.drained_at is None else min(memory.drained_at, now)
    known = {past.name: past for past in memory.groups}
    groups, pasts, warnings, whys = {}, [], [], []
    wanted, due = 0, []
    for group in settings.groups:
        past = _until(known.get(group.name, Past(group.name)), now)
        past, turns = _fabric(past, group, fabric, now)
        situation = _Situation(group, seen, fabric, now, drained, drained_at)
        past, ruling = situation.rule(past)
        groups[group.name] = ruling
        pasts.append(past)
        due += [at for at in (turns, ruling.due) if at is not None]
        why = _demoted(group, past, fabric, drained, now)
        if why:
            whys.append(why)
            wanted = max(wanted, group.demotion)
        warnings += situation.warnings(past)
    if settings.groups and seen.preempt is not True:
        warnings.append(_no_preempt(seen))
        wanted = 0
        whys = [f"{why}, and CARP stays where it is: {_no_preempt(seen)}" for why in whys]
    later = Memory(tuple(pasts), drained_at)
    reason = "; ".join(dict.fromkeys(whys))
    return Decision(groups, wanted, reason, later, min(due, default=None), tuple(dict.fromkeys(warnings)))


def _until(past: Past, now: float) -> Past:
    """Return the past without what the clock of now has not reached: it was set back, or is another one."""

    def reached(at: float | None) -> float | None:
        return at if at is None else min(at, now)

    return replace(
        past,
        role_at=min(past.role_at, now),
        stance_at=min(past.stance_at, now),
        sees_at=reached(past.sees_at),
        again_at=reached(past.again_at),
        turning_at=reached(past.turning_at),
    )


def _fabric(past: Past, group: Group, fabric: Fabric, now: float) -> tuple[Past, float | None]:
    """Return the past with whether the fabric is lost, and when that turns if all stays as it is."""
    few = fabric.established < group.min_sessions
    if not past.met:
        since = now if past.turning_at is None else past.turning_at
        if few and not fabric.told and now < since + MEETING:
            return replace(past, turning_at=since), since + MEETING
        # who comes back comes back with the fabric, or CARP would move twice
        past = replace(past, met=True, lost=past.lost or few, turning_at=None)
    if few == past.lost:
        return replace(past, turning_at=None), None
    since = now if past.turning_at is None else past.turning_at
    # what has never been there since the agent's start is not lost yet, it may be about to come
    hold = group.hold if fabric.most >= group.min_sessions else max(group.hold, STARTING)
    at = since + (group.hold_down if past.lost else hold)
    if now < at:
        return replace(past, turning_at=since), at
    if past.lost and not fabric.acknowledged:
        return replace(past, turning_at=since), None
    return replace(past, lost=few, turning_at=None), None


def _demoted(group: Group, past: Past, fabric: Fabric, drained: Drain, now: float) -> str:
    """Return why a group asks for demotion, "" where it does not."""
    if drained != Drain.NO:
        return "this host is drained"
    if not past.lost:
        return ""
    if fabric.established < group.min_sessions:
        needed = f" of the {group.min_sessions} that {group.name} needs" if group.min_sessions > 1 else ""
        if fabric.most < group.min_sessions:
            return f"the fabric is not there yet, since the agent's start: {fabric.established} sessions are up{needed}"
        return f"the fabric is lost: {fabric.established} sessions are up{needed}"
    if past.turning_at is not None and now >= past.turning_at + group.hold_down:
        return "the fabric is back, but ExaBGP has not answered for every route yet: mobility status, mobility doctor"
    return f"the fabric is back, and must stay so for {group.hold_down:g} s with all routes acknowledged"


def _no_preempt(seen: Seen) -> str:
    if seen.preempt is None:
        return "this kernel has no CARP: kldload carp (carp_load=YES in /boot/loader.conf)"
    return f"demotion moves nobody without {PREEMPT} (sysctl.conf), on both nodes: sysctl {PREEMPT}"


@dataclass(frozen=True, slots=True)
class _Situation:
    """What a ruling for one group rests on, beside its past."""

    group: Group
    seen: Seen
    fabric: Fabric
    now: float
    drained: Drain
    drained_at: float | None

    @property
    def sees(self) -> bool:
        return self.fabric.sees_other.get(self.group.name, False)

    @property
    def patience(self) -> float:
        """Return the seconds after which CARP vouches for another master: more where advertisements are rarer."""
        slowest = max((carp.advbase for carp in self.seen.carps if carp.vhid in self.group.vhids), default=1)
        return self.group.hand_over_within + 3 * max(0, slowest - 1)

    def states(self) -> str:
        return ", ".join(f"{vhid} is {self.seen.state(vhid) or 'not there'}" for vhid in self.group.vhids)

    def rule(self, past: Past) -> tuple[Past, Ruling]:
        """Return the past with this moment in it, and the ruling."""
        now = role(self.group, self.seen)
        if past.role != now:
            past = replace(past, role=str(now), role_at=self.now, preferred=False, unsynced=False)
        if self.sees:
            past = replace(past, sees_at=self.now if past.sees_at is None else past.sees_at, shows=True)
        else:
            past = replace(past, sees_at=None)
        shutdown = self.drained == Drain.SHUTDOWN and self.drained_at is not None
        last = (self.drained_at or 0.0) + self.group.hand_over_within
        if shutdown and self.now >= last:
            reason = f"this host shuts down, and is not announced any more after {self.group.hand_over_within:g} s"
            return self._turned(past, Stance.WITHDRAWN), Ruling(Stance.WITHDRAWN, reason, now)
        if now == Role.MASTER:
            past, ruling = self._master(past)
        elif now == Role.MIXED:
            reason = f"{self.states()}: neither node has them all, so neither is preferred"
            past, ruling = self._turned(past, Stance.LESS), Ruling(Stance.LESS, reason, now)
        else:
            past, ruling = self._not_master(past, now)
        if shutdown:
            ruling = replace(ruling, due=last if ruling.due is None else min(last, ruling.due))
        return past, ruling

    def _master(self, past: Past) -> tuple[Past, Ruling]:
        synced = in_step(self.group, self.seen)
        until = past.role_at + self.group.sync_within
        if not (synced or past.preferred or self.now >= until):
            reason = (
                f"MASTER, and less preferred until pfsync is in step ({self._sync()}), "
                f"for {self.group.sync_within:g} s at most"
            )
            return self._turned(past, Stance.LESS), Ruling(Stance.LESS, reason, Role.MASTER, until)
        past = replace(past, unsynced=not synced and (past.unsynced or not past.preferred), preferred=True)
        reason = "MASTER"
        if past.unsynced:
            reason += (
                f"; preferred without pfsync, which is not in step after {self.group.sync_within:g} s ({self._sync()}): "
                "connections that it did not bring over will break"
            )
        if self.drained != Drain.NO:
            reason += "; drained, and waits until the other node takes over"
        if self.sees:
            reason += "; another host announces it as preferred, too: is it MASTER as well, or does its ExaBGP not run?"
        return self._turned(past, Stance.PREFERRED), Ruling(Stance.PREFERRED, reason, Role.MASTER)

    def _not_master(self, past: Past, now: Role) -> tuple[Past, Ruling]:
        """Rule for BACKUP and DOWN: withdrawn where that is wished and safe, else less preferred."""
        state = "BACKUP" if now == Role.BACKUP else self.states()
        if now == Role.BACKUP and self.group.when_backup == LESS and self.drained == Drain.NO:
            return self._turned(past, Stance.LESS), Ruling(Stance.LESS, state, now)
        if self.drained != Drain.NO:
            state += ", and this host is drained"
        if past.stance == Stance.WITHDRAWN:
            if past.sees_at is not None:
                past = replace(past, blind=False)
            elif self.fabric.established and self.fabric.heard and not (past.blind and self._vouched(past, now)):
                # the other has given it up, or is gone
                past = replace(self._turned(past, Stance.LESS), again_at=self.now)
        elif past.sees_at is not None and not past.stance:
            past = self._turned(past, Stance.WITHDRAWN)
        if past.stance != Stance.WITHDRAWN:
            past = self._turned(past, Stance.LESS)
            at = self._may_go(past, now)
            if at is None or self.now < at:
                return past, Ruling(Stance.LESS, f"{state}; {self._awaits(past, now, at)}", now, at)
            past = replace(self._turned(past, Stance.WITHDRAWN), blind=past.sees_at is None)
        if past.blind:
            how = f"the other's path was not seen for {self.patience:g} s, and CARP hears a master"
        elif past.sees_at is None:
            how = "the fabric has not told yet whether the other node's path is there"
        else:
            how = "the other node's path is there"
        return past, Ruling(Stance.WITHDRAWN, f"{state}; {how}", now)

    def _may_go(self, past: Past, now: Role) -> float | None:
        """Return when it is safe to withdraw, as far as one can see; None: it is not."""
        rested = past.stance_at if past.again_at is None else max(past.stance_at, past.again_at + self.group.hold_down)
        if past.sees_at is not None:
            return max(past.sees_at + SETTLED, past.stance_at + SETTLED, rested)
        if self._vouched(past, now):
            return max(past.role_at + self.patience, past.stance_at + self.patience, rested)
        return None

    def _vouched(self, past: Past, now: Role) -> bool:
        """Tell whether CARP says that there is a master elsewhere, one that would go if it lost the fabric.

        That counts where the fabric can not say it: CARP knows nothing of an agent that does not run.
        """
        return now == Role.BACKUP and self.seen.preempt is True and not past.shows

    def _awaits(self, past: Past, now: Role, at: float | None) -> str:
        if past.sees_at is not None:
            return "the other node's path is there; about to be withdrawn"
        prefix = self.fabric.unseen.get(self.group.name, "")
        path = f"the other node's path{f' to {prefix}' if prefix else ''} is seen"
        if now == Role.DOWN:
            return f"announced as the last resort until {path}"
        if at is None and self.seen.preempt is not True:
            return f"announced until {path}: {_no_preempt(self.seen)}"
        if at is None:
            return (
                f"announced until {path}, as this fabric has shown it before: see mobility status on the other node, whether "
                "its agent runs and announces it as preferred"
            )
        return f"announced until {path}, for {self.patience:g} s at most"

    def _turned(self, past: Past, stance: Stance) -> Past:
        if past.stance == stance:
            return past
        return replace(past, stance=str(stance), stance_at=self.now, blind=False)

    def _sync(self) -> str:
        pfsync = self.seen.pfsync
        if not pfsync.present:
            return "there is no pfsync0"
        if not pfsync.syncdev:
            return "pfsync0 has no syncdev"
        if pfsync.bulk:
            return "a bulk update is under way"
        return "syncok: 0" if pfsync.syncok is False else "pfsync0 is not up"

    def warnings(self, past: Past) -> list[str]:
        """Return what an operator should mend."""
        name = self.group.name
        found = [
            f"failover {name}: {vhid} is not there: ifconfig {vhid.interface} vhid {vhid.number} ... (carp(4)), or mend "
            f"failover.{name}.vhids"
            for vhid in self.group.vhids
            if not self.seen.state(vhid)
        ]
        if past.role == Role.MIXED:
            found.append(f"failover {name}: {self.states()}: give the vhids of a node the same advskew and {PREEMPT}")
        if past.unsynced:
            found.append(f"failover {name}: this node is master without pfsync in step ({self._sync()})")
        elif self.group.pfsync and not self.seen.pfsync.syncdev:
            found.append(f"failover {name}: {self._sync()}: see pfsync(4), or set failover.{name}.pfsync = false")
        return found


def announced(
    announce: Announce, stance: Stance, group: Group, *, administrator: int, router_id: int, med: int | None = None
) -> Announce:
    """Return how a prefix of a group goes out: without an owner, and marked with who announces it and how.

    `ADMINISTRATOR:3:ROUTER_ID` and `ADMINISTRATOR:5:1` (preferred) or `:2` (less), in the numbers of bgp.ownership, which
    takes no claim from them: there is no sequence. The marks tell the other node what a path is; routers may look at them.
    """
    less = stance != Stance.PREFERRED
    marks = (f"{administrator}:{_HOST}:{router_id}", f"{administrator}:{_STANCE}:{2 if less else 1}")
    local = LOCAL_PREFERENCE if announce.local_preference is None else announce.local_preference
    return replace(
        announce,
        anycast=True,
        med=announce.med if med is None else med,
        large_communities=(*announce.large_communities, *marks),
        prepend=min(MAX_PREPEND, announce.prepend + group.prepend) if less else announce.prepend,
        local_preference=local // 2 if less else announce.local_preference,
    )


def told(large_communities: Iterable[str], administrator: int) -> tuple[int, Stance] | None:
    """Return who announces a path, by router id, and how; None where its communities do not say, or contradict themselves."""
    found: dict[int, int] = {}
    for text in large_communities:
        words = text.split(":")
        if len(words) != 3 or words[0] != str(administrator) or not all(each.isdecimal() for each in words):
            continue
        part, value = int(words[1]), int(words[2])
        if found.setdefault(part, value) != value:
            return None
    mark = _MARKS.get(found.get(_STANCE, 0))
    return None if mark is None or _HOST not in found else (found[_HOST], Stance(mark))
