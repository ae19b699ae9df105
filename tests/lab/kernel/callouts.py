"""callout(9): what the kernel does later, by its clock. Pure: the caller says what time it is.

Time goes in ticks of kern.hz = 100, which FreeBSD takes in a virtual machine (sys/kern/subr_param.c: HZ_VM). What is due
in the same tick runs in the reverse order in which it was asked for: a bucket of the wheel is a list that new entries
are put at the head of (sys/kern/kern_timeout.c, callout_cc_add; seen in freebsd-13.2/6-carp.txt, where vhid 2, asked for
later, acts before vhid 1).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

HZ = 100


def ticks(seconds: float) -> int:
    """tvtohz(9): rounded up, and one more, because the present tick has begun already (sys/kern/kern_clock.c)."""
    return -int(-seconds * HZ // 1) + 1


class Callouts:
    """What is to be done, and at which tick, each under a key of its own."""

    def __init__(self) -> None:
        self._order = 0
        self._wanted: dict[Hashable, tuple[int, int, Callable[[], None]]] = {}

    def reset(self, key: Hashable, now: float, seconds: float, action: Callable[[], None]) -> None:
        """callout_reset(9): do *action* after so many seconds, instead of what *key* stood for."""
        self._order -= 1
        self._wanted[key] = (int(now * HZ) + ticks(seconds), self._order, action)

    def stop(self, key: Hashable) -> None:
        """callout_stop(9)."""
        self._wanted.pop(key, None)

    def next(self) -> float | None:
        """When the next one is due, by the clock that `reset` was told; None without any."""
        return min((tick / HZ for tick, _order, _action in self._wanted.values()), default=None)

    def take(self, now: float) -> Callable[[], None] | None:
        """The first one that is due, taken off the list; None if there is none."""
        due = [(each[:2], key) for key, each in self._wanted.items() if each[0] <= now * HZ]
        if not due:
            return None
        _when, key = min(due, key=lambda each: each[0])
        return self._wanted.pop(key)[2]
