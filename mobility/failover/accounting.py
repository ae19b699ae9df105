"""Whose demotion is whose: what this agent has added to net.inet.carp.demotion, recorded before it is written.

Writing that sysctl adds to it, for the whole vnet, and the kernel and others add to it as well (transcript 6-carp): the
total never tells who added what. So what is ours stands in a record of ours, kept by boot and vnet, since it is gone with
either. The record says what is about to be added, and the total before, when it is written; and that it has been, after:

    nothing of ours is in      Keep(pending 240, before 0)    Add(240)    Keep(ours 240)
    240 of ours is to go       Keep(pending -240, before 240) Add(-240)   Keep(ours 0)

An agent that dies between the first and the last leaves a record of which nobody knows whether it was written: the total
may have changed by others meanwhile, by as much. That is told, and left alone: to remove what is not there would cancel a
demotion of the kernel's, and so hand a dead interface the addresses. It is settled when the total is too small to hold it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

from mobility.failover.model import INIT, Seen

SYSCTL = "net.inet.carp.demotion"
MAX_DOUBTS = 3
"""So many amounts may be in or not before nothing more is added."""


@dataclass(frozen=True, slots=True)
class Doubt:
    """An amount of ours that may be in the total, or not."""

    amount: int
    before: int
    """The total before it was to be added or removed."""
    removing: bool = False


@dataclass(frozen=True, slots=True)
class Record:
    """What is ours in one vnet, in one boot."""

    place: str
    ours: int = 0
    """What is in the total for certain."""
    pending: int = 0
    """What is about to be added to it, 0 while nothing is."""
    before: int = 0
    """The total before that."""
    doubts: tuple[Doubt, ...] = ()


@dataclass(frozen=True, slots=True)
class Keep:
    """Store the record, before the next step."""

    record: Record


@dataclass(frozen=True, slots=True)
class Add:
    """Write the sysctl, which adds the amount."""

    amount: int


Step: TypeAlias = Keep | Add


@dataclass(frozen=True, slots=True)
class Settled:
    """What is to be done, in this order; the record once it is done; and what has to be told."""

    steps: tuple[Step, ...]
    record: Record
    report: tuple[str, ...] = ()


def place(boot: str, vnet: str) -> str:
    """Return what a record is kept by: kern.boot_id, and which vnet of this boot."""
    return f"{boot} {vnet}"


def recalled(values: object) -> Record | None:
    """Return the record that `dataclasses.asdict` and JSON made `values` of, None where there is none to be found."""
    if not isinstance(values, Mapping) or not isinstance(values.get("place"), str):
        return None
    numbers = {name: values.get(name, 0) for name in ("ours", "pending", "before")}
    if not all(_is_number(value) for value in numbers.values()):
        return None
    doubts = []
    kept = values.get("doubts")
    for each in kept if isinstance(kept, list | tuple) else ():
        if not isinstance(each, Mapping) or not all(_is_number(each.get(name)) for name in ("amount", "before")):
            return None
        doubts.append(Doubt(each["amount"], each["before"], bool(each.get("removing"))))
    return Record(values["place"], numbers["ours"], numbers["pending"], numbers["before"], tuple(doubts))


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def settle(record: Record | None, place: str, wanted: int, total: int) -> Settled:
    """Return the steps after which exactly `wanted` of the demotion is ours. `total` is what the sysctl says now.

    What another boot or vnet has recorded is forgotten: it is gone with that. A record that stands pending is one of an
    agent that died, or of a write that gave no answer.
    """
    told: list[str] = []
    if record is None or record.place != place:
        record = Record(place)
    before = record
    if record.pending:
        record = uncertain(record)
        if _possible(record.doubts[-1], record, total):
            told.append(_told(record.doubts[-1]))
    record = replace(record, doubts=tuple(doubt for doubt in record.doubts if _possible(doubt, record, total)))
    change = wanted - record.ours
    if change < 0 and total + change < 0:
        told.append(
            f"{SYSCTL} is {total}, and {record.ours} of it should be mobility's: somebody else has taken that out; nothing "
            "is written"
        )
        record = replace(record, ours=max(0, min(wanted, total)))
        return Settled((Keep(record),), record, tuple(told))
    if change > 0 and len(record.doubts) >= MAX_DOUBTS:
        told.append(f"nothing more is added to {SYSCTL} while it is not known what of mobility's is in it: {_REMEDY}")
        change = 0
    if not change:
        steps = (Keep(record),) if record != before or told else ()
        return Settled(steps, record, tuple(told))
    first = replace(record, pending=change, before=total)
    last = replace(record, ours=record.ours + change, before=total)
    return Settled((Keep(first), Add(change), Keep(last)), last, tuple(told))


def _possible(doubt: Doubt, record: Record, total: int) -> bool:
    """Tell whether an amount can be in the total at all, beside what is ours for certain."""
    return doubt.amount <= total - record.ours


def refused(record: Record) -> Record:
    """Return the record after a write that certainly did not happen: the sysctl said no."""
    return replace(record, pending=0)


def uncertain(record: Record) -> Record:
    """Return the record after a write of which nobody knows whether it happened."""
    if not record.pending:
        return record
    removing = record.pending < 0
    ours = record.ours + record.pending if removing else record.ours
    doubt = Doubt(abs(record.pending), record.before, removing)
    return replace(record, ours=ours, pending=0, doubts=(*record.doubts, doubt))


_REMEDY = f"see whose it is, and write sysctl {SYSCTL}=-AMOUNT"


def _told(doubt: Doubt) -> str:
    what = "removed from" if doubt.removing else "added to"
    return (
        f"{doubt.amount} was to be {what} {SYSCTL} when it was {doubt.before}, and it is not known whether it was: "
        f"left alone; {_REMEDY.replace('AMOUNT', str(doubt.amount))} if it is mobility's"
    )


def whose(record: Record | None, seen: Seen) -> tuple[str, ...]:
    """Return what `mobility status` and `doctor` say about the demotion; nothing where there is none."""
    total = seen.demotion or 0
    ours = record.ours if record else 0
    others = total - ours
    lines = []
    if total or ours:
        lines.append(f"{SYSCTL} is {total}: {ours} is mobility's, {others} is of others")
    if others:
        down = sum(carp.state == INIT for carp in seen.carps)
        kernel = []
        if down and seen.ifdown_factor:
            kernel.append(f"{down} x {seen.ifdown_factor} for vhids whose interface may be down")
        if seen.pfsync.syncok is False and seen.pfsync_factor:
            kernel.append(f"{seen.pfsync_factor} for pfsync, which is not in step")
        guess = (
            f"; the kernel's may be {' and '.join(kernel)}" if kernel else "; nothing that the kernel shows explains it"
        )
        lines.append(f"{SYSCTL}: what is of others is left alone{guess}")
    lines += [_told(doubt) for doubt in record.doubts] if record else []
    return tuple(lines)
