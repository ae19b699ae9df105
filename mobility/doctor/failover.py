"""Failover by CARP: whether what [failover.NAME] ties together is there, and whose demotion is whose. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from mobility.doctor.kernel import PFSYNC_IPV6
from mobility.doctor.verdict import Verdict, fail, ok, warn
from mobility.failover import accounting
from mobility.failover.model import INIT, Seen, Vhid
from mobility.failover.watch import PFSYNC, PREEMPT

WHAT = "failover"
PREEMPT_ON = f"sysctl {PREEMPT}=1 && echo {PREEMPT}=1 >> /etc/sysctl.conf; the same on the other node"


def failover_verdicts(
    groups: Mapping[str, Sequence[Vhid]],
    *,
    pfsync: bool,
    seen: Seen,
    release: int | None,
    devd: bool,
    agent: Mapping[str, Any] | None,
) -> Iterator[Verdict]:
    """Judge what a look showed. `groups` are the vhids of each, `pfsync` whether any wants its states in step.

    `release` is kern.osreldate, `devd` whether its socket is there, `agent` what `Failover.describe` says; None: no agent
    answers.
    """
    if seen.preempt is None:
        why = f"this kernel has no CARP, and {', '.join(groups)} need it"
        yield fail(f"{WHAT}: carp", why, "kldload carp && sysrc kld_list+=carp")
        return
    yield from _preempt(seen)
    for name, vhids in groups.items():
        yield from _vhids(name, vhids, seen)
    if pfsync:
        yield from _pfsync(seen, release)
    yield from _demotion(seen, agent)
    if devd:
        yield ok(f"{WHAT}: devd", "tells of events")
    else:
        why = "is not there to tell of events: CARP is looked at once a second only"
        yield warn(f"{WHAT}: devd", why, "sysrc devd_enable=YES && service devd start")
    if agent is not None:
        yield from _told(agent)


def _preempt(seen: Seen) -> Iterator[Verdict]:
    what = f"{WHAT}: preempt"
    if seen.preempt:
        yield ok(what, f"{PREEMPT} is 1 here; it has to be on the other node, too")
    else:
        why = f"{PREEMPT} is 0: demotion moves nobody, so neither a lost fabric nor a drain makes the other node the master"
        yield fail(what, why, PREEMPT_ON)


def _vhids(name: str, vhids: Iterable[Vhid], seen: Seen) -> Iterator[Verdict]:
    what = f"{WHAT} {name}"
    states = {vhid: seen.state(vhid) for vhid in vhids}
    for vhid in (vhid for vhid, state in states.items() if not state):
        mend = f"ifconfig {vhid.interface} vhid {vhid.number} advskew 0 pass SECRET alias ADDRESS; and in rc.conf"
        yield fail(what, f"{vhid} is not there", mend)
    down = [str(vhid) for vhid, state in states.items() if state == INIT]
    if down:
        names = " ".join(sorted({vhid.interface for vhid, state in states.items() if state == INIT}))
        yield warn(what, f"{', '.join(down)}: INIT: no link, or no address", f"ifconfig {names}")
    shown = ", ".join(f"{vhid} {state}" for vhid, state in states.items() if state and state != INIT)
    if shown:
        yield ok(what, shown)


def _pfsync(seen: Seen, release: int | None) -> Iterator[Verdict]:
    what, pfsync = f"{WHAT}: pfsync", seen.pfsync
    set_up = (
        f"sysrc pfsync_enable=YES pfsync_syncdev=INTERFACE pfsync_syncpeer={_peer(release)} && service pfsync start"
    )
    if not pfsync.present:
        yield fail(what, f"there is no {PFSYNC}: no state is there when the other node's connections come here", set_up)
    elif not pfsync.up or not pfsync.syncdev:
        lacks = "has no syncdev" if pfsync.up else "is switched off"
        yield fail(what, f"{PFSYNC} {lacks}: it is in step with nobody, whatever syncok says", set_up)
    elif pfsync.syncok is not True:
        why = (
            f"{PFSYNC} asks {pfsync.syncpeer or 'its peer'} on {pfsync.syncdev} for its states and has not got them all"
        )
        yield warn(what, why, f"on the other node: ifconfig {PFSYNC}; tcpdump -ni {pfsync.syncdev} proto 240")
    else:
        version = f", version {pfsync.version}" if pfsync.version is not None else ""
        yield ok(what, f"in step with {pfsync.syncpeer or 'its peer'} on {pfsync.syncdev}{version}")


def _peer(release: int | None) -> str:
    """Return a peer that this release takes: IPv6, link-local multicast only, from 14.0 on (pfsync(4))."""
    return "ff12::f0" if release is not None and release >= PFSYNC_IPV6 else "ADDRESS"


def _demotion(seen: Seen, agent: Mapping[str, Any] | None) -> Iterator[Verdict]:
    """Say whose demotion is whose; without an agent nobody knows what of it is ours."""
    what = f"{WHAT}: demotion"
    if agent is None and seen.demotion:
        why = f"{accounting.SYSCTL} is {seen.demotion}; only the agent knows what of it is mobility's, and does not answer"
        yield warn(what, why, "service mobility start")
        return
    told: Mapping[str, Any] = agent["demotion"] if agent is not None else {"lines": [], "reason": "", "ours": 0}
    if not told["lines"]:
        yield ok(what, f"{accounting.SYSCTL} is 0")
    for line in told["lines"]:
        yield warn(what, line)
    if told["ours"] and told["reason"]:
        yield warn(what, f"mobility's, because {told['reason']}")


def _told(agent: Mapping[str, Any]) -> Iterator[Verdict]:
    for group in agent["groups"]:
        what, line = f"{WHAT} {group['name']}", f"{group['stance']}: {group['reason']}"
        yield ok(what, line.removesuffix(": "))
    for problem in agent["problems"]:
        yield warn(WHAT, problem)
