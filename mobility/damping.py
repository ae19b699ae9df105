"""Flap damping: a jail whose routes come and go too often is not announced for a while. Pure functions.

As RFC 2439 (section 4) has it for routes: each flap adds `penalty` to a figure of merit, which halves in each `half_life`.
At `suppress` (its cutoff threshold) the jail is no longer announced; below `reuse` it is again. However long it has
flapped, the figure of merit stays below a ceiling, from which it falls to `reuse` in `maximum` (its T-hold): so no jail is
suppressed for longer than that after its last flap. What is left of a flap after three half-lives is forgotten.

A flap is the loss of an announcement through the jail itself: it stopped, died, or is not ready any more. A start is none
(as with RFC 7196, a withdrawal and the announcement after it count once), and what people decide is none: a drain, an
ownership that another host took, a change of what is granted. A jail that is suppressed goes on counting each time when it
would have been withdrawn: it waits until it has stayed up for long enough, not until a clock has run down.

The defaults: a penalty of 1000 (the unit of RIPE-580 and RFC 7196), suppress 6000 (their lowest; the 2000 of older
routers punished what was no fault), reuse 3000, half-life 300 s, maximum 900 s. So the ceiling is 3000 * 2^(900/300) = 24000,
and what comes out is this:

    flaps                               the figure of merit            suppressed
    5 by hand, however fast             below 5000                     no
    7 by hand, 30 s between them        5741 at the seventh            no
    one every 80 s, for ever            below 5927                     no
    one every 60 s                      6044 at the 11th               after 10 minutes
    one every 30 s                      6356 at the 8th                after 210 s
    one every 10 s                      6538 at the 7th                after 60 s
    one every 3 s                       6857 at the 7th                after 18 s
    the last of 7, 3 s apart            6857, 3000 after 358 s         for 6 minutes from the last flap
    one every 3 s, for ever             24000, the ceiling             for 15 minutes from the last flap

A few restarts of a jail that is being worked on never suppress it. A jail that dies every few seconds is out of the
fabric within a minute, where each of its lives was two UPDATEs for every router, and packets for nobody; once it runs it is
back in 5 to 15 minutes, or at once by `mobility release`. Routers' half-life of 15 minutes would be too long here:
whoever mends the jail waits for it.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

SUPPRESSED = "suppressed: its routes came and went too often"
"""The reason without figures, by which it is known again."""
_FORGOTTEN = 1 / 8
"""The part of one flap's penalty below which nothing is remembered."""
_MOST_HALVINGS = 64.0
"""Half-lives that a ceiling may be above the reuse threshold: no number of flaps gets so far."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What a flap costs, and what follows: figures of merit, and times in seconds."""

    enabled: bool = True
    penalty: int = 1000
    suppress: int = 6000
    reuse: int = 3000
    half_life: float = 300.0
    maximum: float = 900.0

    @property
    def ceiling(self) -> float:
        """The highest figure of merit: it falls to `reuse` within `maximum`."""
        return self.reuse * math.exp2(min(self.maximum / self.half_life, _MOST_HALVINGS))

    @property
    def mistakes(self) -> tuple[str, ...]:
        """What is wrong with these figures taken together, with the remedy: they would damp nothing, or everything."""
        found = []
        if self.penalty >= self.suppress:
            found.append(
                f"penalty = {self.penalty} must be below suppress = {self.suppress}: else a single restart suppresses a jail"
            )
        if self.reuse >= self.suppress:
            found.append(
                f"reuse = {self.reuse} must be below suppress = {self.suppress}: else a jail is suppressed and released at once"
            )
        elif self.ceiling < self.suppress:
            least = math.ceil(self.half_life * math.log2(self.suppress / self.reuse))
            found.append(
                f"maximum = {self.maximum:g} keeps the penalty below {self.ceiling:.0f}, and suppress = {self.suppress} is "
                f"never reached: set maximum to {least} or more, or half_life lower"
            )
        return tuple(found)


@dataclass(frozen=True, slots=True)
class Damping:
    """What one jail has run up. Times are this boot's monotonic clock, in seconds; no clock of ours stands at 0."""

    penalty: float = 0.0
    """The figure of merit as it was after the last flap."""
    at: float = 0.0
    """When that was."""
    suppressed_at: float = 0.0
    """Since when the jail is suppressed, 0 while it is not."""


def penalty(state: Damping, now: float, policy: Policy) -> float:
    """Return the figure of merit at `now`. A clock that stands or was set back lets it stand."""
    return min(state.penalty, policy.ceiling) * math.exp2(-max(0.0, now - state.at) / policy.half_life)


def flapped(state: Damping, now: float, policy: Policy) -> Damping:
    """Return the state after a flap at `now`."""
    if not policy.enabled:
        return released()
    state = settle(state, now, policy)
    figure = min(penalty(state, now, policy) + policy.penalty, policy.ceiling)
    since = state.suppressed_at or (now if figure >= policy.suppress else 0.0)
    return Damping(figure, now, since)


def settle(state: Damping, now: float, policy: Policy) -> Damping:
    """Return the state at `now`: released when its time has come, and nothing when nothing is left worth remembering.

    It may be called at any time and any number of times: how often one looks changes nothing of what comes out, and
    the state is the same object until there is something to remember.
    """
    if not policy.enabled or state == Damping():
        return released()
    if now < state.at:
        # the clock was set back: the figure stands, and counts down from here, so that its time still comes
        state = replace(state, at=now, suppressed_at=min(state.suppressed_at, now))
    until = reuse_at(state, policy)
    if until is not None and now >= until:
        state = replace(state, suppressed_at=0.0)
    if not state.suppressed_at and penalty(state, now, policy) < policy.penalty * _FORGOTTEN:
        return released()
    return state


def reuse_at(state: Damping, policy: Policy) -> float | None:
    """Return when a suppressed jail is to be announced again if it does not flap before; None where it is not suppressed."""
    if not (policy.enabled and state.suppressed_at):
        return None
    figure = min(state.penalty, policy.ceiling)
    if figure <= policy.reuse:
        return state.at
    return state.at + min(policy.maximum, policy.half_life * math.log2(figure / policy.reuse))


def suppressed(state: Damping, now: float, policy: Policy, *, jail: str = "NAME", utc: float | None = None) -> str:
    """Return why a jail is not announced, for its operator, or "" where damping does not keep it from that.

    `utc`, seconds since 1970 at `now`, has the time at which it will be announced told as one of the day, which stays
    right however late it is read; else it is told as seconds from now.
    """
    until = reuse_at(state, policy)
    if until is None or now >= until:
        return ""
    left = min(until - now, policy.maximum)  # the clock may have been set back
    if utc is None:
        when = f"for {math.ceil(left)} s"
    else:
        when = "until " + time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(math.ceil(utc + left)))
    return (
        f"{SUPPRESSED} (penalty {penalty(state, now, policy):.0f}, announced again at {policy.reuse}); {when} if it stays up, "
        f"or: mobility release {jail}"
    )


def told(state: Damping, now: float, policy: Policy) -> str:
    """Return what a flap has come to, for the history."""
    if not policy.enabled:
        return "damping.enabled is false"
    figure = f"penalty {penalty(state, now, policy):.0f}"
    if state.suppressed_at:
        return f"{figure}: suppressed until it is {policy.reuse}"
    return f"{figure}, suppressed at {policy.suppress}"


def released() -> Damping:
    """Return the state of a jail that has never flapped: what an operator's release leaves."""
    return Damping()
