"""What a row of good and bad results makes of one probe: a frozen value and two functions. Pure.

A fresh one is not ready until `rise` good results in a row; one that was ready stays so until `fall` bad ones in a row. A
jail that was announced when the agent came back is presumed ready: a restart of the agent is no news of the jail's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

RETRY = 1.0
"""Seconds until the next try of a probe that is about to change its mind."""
FIRST = 0.05
"""Seconds until the second try of a fresh one; each further pause is twice as long, up to the interval."""
_DOUBLINGS = 20


@dataclass(frozen=True, slots=True)
class Standing:
    """How one probe stands.

    `streak` counts results in a row that speak against `ready`; `fresh` is one that has not been ready yet, and `tries`
    its bad results so far.
    """

    ready: bool = False
    streak: int = 0
    fresh: bool = True
    tries: int = 0


FRESH = Standing()
PRESUMED = Standing(ready=True, fresh=False)


def after(standing: Standing, *, good: bool, rise: int, fall: int) -> Standing:
    """Return how it stands after one more result."""
    if good is standing.ready:
        tries = standing.tries + 1 if standing.fresh else 0
        return replace(standing, streak=0, tries=tries)
    streak = standing.streak + 1
    if streak < (rise if good else fall):
        return replace(standing, streak=streak)
    return Standing(ready=good, fresh=False)


def pause(standing: Standing, interval: float) -> float:
    """Return the seconds until its next try.

    A service that comes up in a fresh jail is seen early; one that is down for long is asked once in an interval.
    """
    if standing.streak:
        return min(RETRY, interval)
    if standing.fresh:
        return min(interval, FIRST * 2.0 ** min(max(0, standing.tries - 1), _DOUBLINGS))
    return interval


def in_turn(now: float, interval: float, place: float) -> float:
    """Return the next moment after `now` that is `place` (0 to 1) into an interval: thousands of probes spread evenly."""
    offset = place * interval
    turn = (now - offset) // interval + 1
    return max(now, turn * interval + offset)
