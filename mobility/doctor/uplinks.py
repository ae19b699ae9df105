"""The host's own default routes: whether those of uplinks can do what they are there for. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from mobility.doctor.verdict import Verdict, ok, warn
from mobility.network.command import Result
from mobility.network.output import Route
from mobility.uplinks import MULTIPATH, Uplink, remedy

WHAT = "uplinks"


def uplink_verdicts(
    uplinks: Sequence[Uplink],
    routes: Iterable[Route],
    multipath: Result,
    sessions: Mapping[str, str],
    agent: Mapping[str, Any] | None,
) -> Iterator[Verdict]:
    """Judge the uplinks by the host's default routes, `sysctl -n net.route.multipath`, and what the agent tells.

    `sessions` are the states of those that it knows, `agent` is what `Uplinks.describe` says; None: no agent answers.
    """
    if not uplinks:
        yield ok(WHAT, "none: default routes are left to rc.conf (bgp.peer.uplink)")
        return
    names = ", ".join(uplink.name for uplink in uplinks)
    yield from _multipath(uplinks, multipath, agent)
    silent = [uplink.name for uplink in uplinks if sessions.get(uplink.name) != "up"]
    if agent is not None and silent:
        rest = "the last default route stays all the same" if len(silent) == len(uplinks) else "the others carry all"
        yield warn(WHAT, f"no session: {', '.join(silent)}; {rest}", "see BGP peer, above and below")
    elif agent is not None:
        yield ok(WHAT, f"each has a session: {names}")
    missing = [uplink.name for uplink in uplinks if 4 not in uplink.gateways]
    if missing == [uplink.name for uplink in uplinks]:
        why = f"IPv4 has no way out through {', '.join(missing)}: the kernel takes no IPv6 next hops for IPv4"
        yield warn(WHAT, why, "set uplink_ipv4 of these peers in mobility.toml; service mobility restart")
    yield from _of_others(uplinks, tuple(routes), agent)


def _multipath(uplinks: Sequence[Uplink], multipath: Result, agent: Mapping[str, Any] | None) -> Iterator[Verdict]:
    if len(uplinks) == 1:
        yield warn(
            WHAT, f"only {uplinks[0].name}: nothing is there to fail over to", "mark a second peer uplink = true"
        )
        return
    what = f"{WHAT}: multipath"
    if multipath.status != 0:
        yield ok(what, f"this kernel has no {MULTIPATH}: one default route at a time, moved when its session ends")
    elif multipath.stdout.strip() != "1":
        why = f"{MULTIPATH} is {multipath.stdout.strip()}: one default route at a time, moved when its session ends"
        yield warn(what, why, f"sysctl {MULTIPATH}=1 && echo {MULTIPATH}=1 >> /etc/sysctl.conf")
    else:
        alone = [family for family, one in (agent or {}).get("one_at_a_time", {}).items() if one]
        text = f"; this kernel does not group {' and '.join(alone)} default routes, those are moved" if alone else ""
        yield ok(what, f"{MULTIPATH} is 1{text}")


def _of_others(
    uplinks: Sequence[Uplink], routes: Sequence[Route], agent: Mapping[str, Any] | None
) -> Iterator[Verdict]:
    """Find default routes that are not ours: that lead past the uplinks, or through one of them."""
    for route in routes:
        through = {uplink.gateways.get(route.version) for uplink in uplinks}
        name = f"IPv{route.version} default route"
        if route.gateway not in through or "R" in route.flags or "B" in route.flags:
            why = f"the {name} through {route.gateway} ({route.interface}) leads past them: none is added beside it"
            yield warn(WHAT, why, remedy(route))
        elif agent is not None and not _ours(route, agent):
            why = f"the {name} through {route.gateway} is not mobility's: it stays when the session ends"
            yield warn(WHAT, why, remedy(route))


def _ours(route: Route, agent: Mapping[str, Any]) -> bool:
    return any(
        each["ours"] and (each["family"], each["gateway"]) == (f"IPv{route.version}", route.gateway)
        for each in agent["routes"]
    )
