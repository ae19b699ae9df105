"""How many lines of one kind are written: a token bucket for each kind. Pure: the clock is the caller's.

A flood is one kind of line of one jail: what else happens on the host, and what other jails do, is written all the same.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

KEYS = 10_000
"""Kinds that are told apart at most: some 3 MB. A kind is forgotten, when room is needed, once its bucket is full again."""
SHARED = 256
"""Kinds, of whatever jail, that what comes beyond is told apart by; the agent has some 80 messages of its own."""
ERRORS = 65_536
"""Errors that are remembered as written before: some 5 MB. Nothing but a first error is beyond the limit."""
QUIET = 5.0
"""Seconds without a line left out after which a flood has ended."""
TELL_EVERY = 60.0
"""Seconds after which one that goes on is told of all the same."""


class Kind(NamedTuple):
    """What makes two lines alike. The message is as the program has it, before figures are put in."""

    logger: str
    message: str
    jail: str = ""


EVERY = "*"
"""Stands for every jail, and for every message."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """How many lines of a kind were not written, and within how many seconds."""

    kind: Kind
    lines: int
    seconds: float


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float
    left_out: int = 0
    since: float = 0.0
    last: float = 0.0


class Limit:
    """At most `burst` lines of a kind at once, and `per_second` from then on; a burst of 0: all of them."""

    def __init__(self, burst: int, per_second: float, *, keys: int = KEYS) -> None:
        self._burst = float(burst)
        self._per_second = per_second
        self._keys = keys
        self._buckets: OrderedDict[Kind, _Bucket] = OrderedDict()
        self._shared: dict[Kind, _Bucket] = {}
        self._floods: dict[Kind, _Bucket] = {}
        self._errors: set[int] = set()

    def __len__(self) -> int:
        """Return how many buckets there are."""
        return len(self._buckets) + len(self._shared)

    def admit(self, kind: Kind, now: float, *, error: bool = False) -> bool:
        """Tell whether a line is to be written; an error of a kind that was not written before always is."""
        if not self._burst:
            return True
        asked = hash(kind)
        kind, bucket = self._bucket_of(kind, now)
        first = error and asked not in self._errors and len(self._errors) < ERRORS
        if first:
            self._errors.add(asked)
        if bucket.tokens >= 1:
            bucket.tokens -= 1
            return True
        if first:
            return True
        if not bucket.left_out:
            bucket.since = now
            self._floods[kind] = bucket
        bucket.left_out += 1
        bucket.last = now
        return False

    def ended(self, now: float, *, every: bool = False) -> list[LeftOut]:
        """Return what there is to say of floods that have ended, or go on for long; with `every`, of all."""
        told = []
        for kind, bucket in list(self._floods.items()):
            if every or now - bucket.last >= QUIET or now - bucket.since >= TELL_EVERY:
                told.append(LeftOut(kind, bucket.left_out, now - bucket.since))
                bucket.left_out = 0
                del self._floods[kind]
        return told

    @property
    def flooded(self) -> bool:
        """Whether there are lines left out of which nothing was said yet."""
        return bool(self._floods)

    def _bucket_of(self, kind: Kind, now: float) -> tuple[Kind, _Bucket]:
        """Return the bucket of a kind, filled up to now: its own, or one that it shares where there are too many."""
        bucket = self._buckets.get(kind)
        if bucket is not None:
            self._buckets.move_to_end(kind)
        elif self._room(now):
            bucket = self._buckets[kind] = _Bucket(self._burst, now)
        else:
            kind = Kind(kind.logger, kind.message, EVERY)
            if kind not in self._shared and len(self._shared) >= SHARED:
                kind = Kind(EVERY, EVERY, EVERY)
            bucket = self._shared.setdefault(kind, _Bucket(self._burst, now))
        self._fill(bucket, now)
        return kind, bucket

    def _room(self, now: float) -> bool:
        """Tell whether there is room for one kind more; the one that was not seen for longest goes if it is at rest."""
        if len(self._buckets) < self._keys:
            return True
        oldest, bucket = next(iter(self._buckets.items()))
        self._fill(bucket, now)
        if bucket.tokens < self._burst or bucket.left_out:
            return False
        del self._buckets[oldest]
        return True

    def _fill(self, bucket: _Bucket, now: float) -> None:
        bucket.tokens = min(self._burst, bucket.tokens + max(0.0, now - bucket.at) * self._per_second)
        bucket.at = now
