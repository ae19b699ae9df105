"""`mobility status`: which jails are shown, in which order, and how: pure functions of the agent's answer."""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from mobility import damping
from mobility.likely import did_you_mean
from mobility.terminal.text import PLAIN, Column, Palette, Row, ago, columns, cut, printable, within

Jail = dict[str, Any]
Host = dict[str, Any]

MANY = 20
"""From more jails than that on a line of counts comes first, and what is too long is cut instead of wrapped."""
PATTERN = frozenset("*?[")
"""What makes a pattern of a name: no jail's name has any of it."""
DARK = (
    "problem",
    "no_address",
    "lost",
    "conflict",
    "frozen",
    "exhausted",
    "not_ready",
    "suppressed",
    "refused",
    "held_back",
    "no_session",
    "no_bridge",
    "waiting",
    "sending",
)
"""What keeps a jail that runs, and should be announced, from that: the words of the metrics (mobility.metrics.causes)."""
STATES = (*DARK, "not_granted", "starting", "stopping", "failover", "drained", "announced", "stopped")
"""What a jail may be at, the worst first."""
SORTS = ("name", "since", "state", "penalty")
_COLOURS = {"announced": "good", "stopped": "faint"} | dict.fromkeys(DARK, "bad")
_HELD = ("starting", "stopping", "failover", "drained", "suppressed", "waiting", "sending")
_AT_PEERS = {
    "refused": "refused",
    "held back": "held_back",
    "left out": "held_back",
    "sending": "sending",
    "no session": "no_session",
    "no bridge": "no_bridge",
}
_HEADS = (
    Column("JAIL"),
    Column("RUNNING", rank=1),
    Column("WIRED", rank=4),
    Column("READY", rank=3),
    Column("ANNOUNCED"),
    Column("SINCE", rank=2),
    Column("ADDRESSES", rank=5, least=18),
    Column("WHY NOT"),
)
_YES = {True: "yes", False: "no"}
PARTLY = "partly"


# -- what a jail is at


def state(jail: Jail, drained: Collection[str] = ()) -> str:
    """Return the one word for where a jail stands; `drained` is what the host says is."""
    if jail["announced"]:
        return "announced"
    failover, stand, owned = jail.get("failover"), jail["stand"], jail["ownership"]
    if not jail["running"]:
        return "starting" if stand == "paired" else "stopped"
    if not (jail["addresses"] or jail["routes"]):
        return "not_granted"
    if stand == "closing":
        return "stopping"
    if stand == "paired" or jail["reason"].startswith("is starting"):
        return "starting"
    if jail["name"] in drained or (not failover and {"*", "*boot"} & set(drained)):
        return "drained"
    if stand == "absent":
        return "problem"
    if any(not check["ready"] for check in jail["checks"]):
        return "not_ready"
    if jail["reason"].startswith(damping.SUPPRESSED):
        return "suppressed"
    if failover and failover["stance"] == "withdrawn":
        return "failover"
    if not failover and owned in ("lost", "conflict", "frozen", "exhausted", "waiting"):
        return str(owned)
    return _untold(jail) if jail["ready"] else "no_address" if jail["reason"].startswith("no interface") else "problem"


def _untold(jail: Jail) -> str:
    """Return what keeps a jail from its peers that is to be announced: of those that no peer has, the gravest."""
    states = {
        state.partition(":")[0]
        for peers in jail["routes"].values()
        if "announced" not in peers.values()
        for state in peers.values()
    }
    return next((word for state, word in _AT_PEERS.items() if state in states), "sending")


def select(
    jails: Sequence[Jail],
    patterns: Collection[str] = (),
    *,
    running: bool = False,
    dark: bool = False,
    states: Collection[str] = (),
    drained: Collection[str] = (),
) -> list[Jail]:
    """Return the jails whose name is, or fits, one of `patterns`, and that are as asked for.

    Raises ValueError where a pattern fits no jail: a name that was mistyped is no empty answer.
    """
    names = [jail["name"] for jail in jails]
    chosen = set(names) if not patterns else set()
    for pattern in patterns:
        fits = fnmatch.filter(names, pattern) if PATTERN & set(pattern) else [each for each in names if each == pattern]
        if not fits:
            meant = did_you_mean(pattern.rstrip("*"), names)
            raise ValueError(f"no jail here is called {printable(pattern)}{f'; {meant}' if meant else ''}")
        chosen |= set(fits)
    return [
        jail
        for jail in jails
        if jail["name"] in chosen
        and (not running or jail["running"])
        and (not (dark or states) or (at := state(jail, drained)) in states or (dark and at in DARK))
    ]


def order(jails: Sequence[Jail], by: str, drained: Collection[str] = ()) -> list[Jail]:
    """Return the jails by name; by `since`, what changed last first; by `state`, the worst first; by `penalty`, the highest."""
    keys: dict[str, Callable[[Jail], Any]] = {
        "name": lambda jail: jail["name"],
        "since": lambda jail: -(jail["since"] or 0.0),
        "state": lambda jail: STATES.index(state(jail, drained)),
        "penalty": lambda jail: -jail["penalty"],
    }
    return sorted(jails, key=lambda jail: (keys[by](jail), jail["name"]))


def counts(jails: Sequence[Jail], drained: Collection[str] = (), palette: Palette = PLAIN) -> str:
    """Return how many jails are at what, in one line."""
    found = Counter(state(jail, drained) for jail in jails)
    parts = [f"{found.pop('announced', 0)} announced"]
    dark = sum(found[each] for each in DARK)
    if dark:
        those = ", ".join(f"{found[each]} {each}" for each in DARK if found[each])
        parts.append(palette.bad(f"{dark} dark ({those})"))
    parts += [f"{found[each]} {each}" for each in STATES if each not in DARK and found[each]]
    return f"{len(jails)} jails: {', '.join(parts)}"


# -- what is shown


def lines(
    host: Host,
    jails: Sequence[Jail],
    now: float,
    *,
    width: int | None = None,
    palette: Palette = PLAIN,
    whole: Sequence[Jail] | None = None,
    checks: bool = False,
) -> list[str]:
    """Return what `mobility status` prints at `now` (UTC): the host, then a line for each jail of `jails`.

    `width` is the terminal's, None where there is none; `whole` is all of the host's jails, which are counted; `checks`
    adds those of each jail, in words.
    """
    every, drained = jails if whole is None else whole, host["drained"]
    found = [
        f"host {printable(host['name'])}: agent pid {host['pid']}, {_sessions(host, palette)}",
        *(palette.held(f"drained: {drained_in_words(name)}") for name in drained),
        *map(printable, (*_default_routes(host), *_failover(host))),
        *(palette.bad(f"problem: {printable(problem)}") for problem in host["problems"]),
    ]
    many = len(every) > MANY
    if many:
        shown = f"; {len(jails)} of them shown" if len(jails) != len(every) else ""
        found.append(counts(every, drained, palette) + shown)
    if width is not None:
        found = [part for line in found for part in within(line, width)]
    if not jails and every:
        return [*found, "no jail is as asked for"]
    rows = [_row(jail, now, drained) for jail in jails]
    found += columns(_HEADS, rows, width, palette, wrap=len(jails) <= MANY)
    if checks:
        for jail in jails:
            found += [part for line in check_lines(jail["checks"], now) for part in within(line, width)]
    return found


def _announced(jail: Jail) -> str:
    """Return whether it is announced: one of whose routes no peer has any, is in part."""
    whole = all("announced" in peers.values() for peers in jail["routes"].values())
    return _YES[jail["announced"]] if whole or not jail["announced"] else PARTLY


def _row(jail: Jail, now: float, drained: Collection[str]) -> Row:
    at = state(jail, drained)
    colour = "held" if at in _HELD or _announced(jail) == PARTLY else _COLOURS.get(at, "")
    texts = (
        jail["name"],
        _YES[jail["running"]],
        _YES[jail["wired"]],
        _YES[jail["ready"]],
        _announced(jail),
        ago(jail["since"], now),
        " ".join([*jail["addresses"], *jail.get("services", [])]),
        printable(jail["reason"] or _aside(jail)),
    )
    return Row(texts, (*[colour if at == "stopped" else ""] * 4, colour, *[""] * 2, colour))


def check_lines(checks: Sequence[dict[str, Any]], now: float) -> Iterator[str]:
    """Yield a line for each check: what came of it last, when that was, and what it still takes to turn."""
    for check in checks:
        said = printable(check["said"])
        if check["at"] is None:
            presumed = ", and is presumed to pass until then" if check["ready"] else ""
            yield f"check {printable(check['check'])}: {said}{presumed}"
            continue
        turn = ""
        if check["streak"]:
            limit = check["fall" if check["ready"] else "rise"]
            kind = "failed" if check["ready"] else "good"
            turn = f"; {check['streak']} of {limit} {kind} in a row"
        verdict = "passes" if check["ready"] else "does not pass"
        last = ago(check["at"], now)
        yield (
            f"check {printable(check['check'])}: {verdict}: {said} {last} ago, every {check['interval']:g} s{turn}, "
            f"{check['failures']} of {check['runs']} failed"
        )


def _default_routes(host: Host) -> Iterator[str]:
    """Yield a line for each family where the host has uplinks."""
    uplinks = host.get("uplinks") or {}
    for family in ("IPv4", "IPv6") if uplinks else ():
        ways = [each for each in uplinks["routes"] if each["family"] == family]
        shown = [each["gateway"] + ("" if each["ours"] else " (not ours)") for each in ways]
        yield f"{family} default route: {', '.join(shown) or 'none'}"


def _failover(host: Host) -> Iterator[str]:
    """Yield a line for each failover, one for pfsync, and those that say whose demotion is whose."""
    failover = host.get("failover")
    if failover is None:
        return
    for group in failover["groups"]:
        vhids = ", ".join(f"{vhid} {state or 'not there'}" for vhid, state in group["vhids"].items())
        yield f"failover {group['name']}: {group['stance'] or 'undecided'} ({vhids}): {group['reason']}"
        for prefix, peers in group["services"].items():
            yield f"failover {group['name']}: {prefix}: {', '.join(f'{p} {s}' for p, s in peers.items()) or 'no peer'}"
    pfsync = failover["pfsync"]
    if pfsync is not None:
        step = {True: "in step", False: "not in step", None: "off"}[pfsync["syncok"]]
        yield f"pfsync: {step} ({pfsync['syncdev'] or 'no syncdev'}, {pfsync['syncpeer'] or 'no syncpeer'})"
    demotion = failover["demotion"]
    yield from demotion["lines"]
    if demotion["ours"] and demotion["reason"]:
        yield f"demoted: {demotion['reason']}"


def _aside(jail: Jail) -> str:
    """Return what there is to say of a jail that is announced."""
    handing = ["is handed over: stop it here"] if jail["handing"] else []
    handing += ["has moved too often and is frozen: mobility release"] if jail["frozen"] else []
    silent = [f"announced, though silent: {' '.join(jail['silent'])}"] if jail["silent"] and jail["announced"] else []
    failover = [jail["failover"]["reason"]] if jail.get("failover") and jail["failover"]["reason"] else []
    return "; ".join(handing + silent + failover)


def _sessions(host: Host, palette: Palette) -> str:
    if not host["bridge"]:
        return palette.bad("ExaBGP is not connected")
    told = []
    for session in host["sessions"]:
        text = f"{printable(session['peer'])} {printable(session['state'])}"
        told.append(text if session["state"] == "up" else palette.bad(text))
    return ", ".join(told) or "no session"


def drained_in_words(name: str) -> str:
    """Return what is drained, of the names that the agent has for it."""
    return {"*": "the whole host", "*boot": "the whole host, until the next boot"}.get(name, name)


def fitting(found: Sequence[str], height: int | None, more: str, width: int | None = None) -> list[str]:
    """Return the lines that a screen has room for; where that is not all, the last one says how many are left out."""
    if height is None or len(found) < height:
        return list(found)
    left = len(found) - max(1, height - 2)
    say = f"... {left} more lines: {more}"
    return [*found[: max(1, height - 2)], cut(say, width) if width else say]
