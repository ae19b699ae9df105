"""Who owns a jail's routes: claims that ride in BGP, and the rules by which hosts give way. Pure functions.

As MAC mobility does in EVPN (RFC 7432, section 7.7), each announcement carries a sequence number; the newest claim owns
the jail, and whoever sees a newer one than its own lets go. A claim is written into large communities (RFC 8092), whose
first number is the `administrator` that all hosts of a fabric share:

    ADMINISTRATOR:1:SEQUENCE     4200000000:1:29936161
    ADMINISTRATOR:2:IDENTITY     4200000000:2:3351512861     which jail it is: 32 bits of a hash of its name or `identity`
    ADMINISTRATOR:3:CLAIMANT     4200000000:3:167772161      the router id of the host, 10.0.0.1, as a number
    ADMINISTRATOR:4:1            only while it is handed over (`mobility handoff`)

The MED is 4294967295 less the sequence (RFC 4271, section 5.1.4: lower is preferred), so that a router that compares MED
between its neighbours prefers the newest claim, and shows it to the others.

A claim is made once for each incarnation of a jail, with the highest sequence known for any of its addresses and one
more; a jail of which nobody knows any starts with the minutes since 1970. (So a host that lost its database while the
fabric had forgotten the jail, too, still claims above the copy that comes back from behind a cut; where clocks are
wrong the rule is the plain one, plus one.)

    host A, 10.0.0.1, starts web1        nothing is known                    A claims 29936161
    host B, 10.0.0.2, starts web1, too   B sees 29936161                     B claims 29936162
                                         A sees 29936162 of the same jail    A withdraws, and stays withdrawn
    both start at once, A and B claim 5  B sees 5 from 10.0.0.1: lower id    B withdraws
                                         A sees 5 from 10.0.0.2: higher id   A claims 6: also routers that showed B's
                                                                             now show A's

An incarnation that has let go stays so, also when the newer one is gone: it is the older copy of the jail, and must not
come back by itself. Starting it anew, or `mobility release`, claims again.

Another identity on the same address is a conflict: it is never claimed over. Too many moves within a window
(RFC 7432, section 15.1) freeze a jail: it is not claimed by this host until an operator releases it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from ipaddress import IPv4Address

LAST = 2**32 - 1
"""The highest sequence: all 32 bits of a part of a large community. It leaves a MED of 0."""
GRACE = 1.0
"""Seconds for which a jail that has lost a prefix waits for the newer claim on the others, before it lets go of all."""
RESERVE = 1024
"""Sequences before the last that no new incarnation claims: hosts that all claim the highest at once need them."""
DEFAULT_ADMINISTRATOR = 4_200_000_000
"""The first private four-octet AS number (RFC 6996), which no route on the Internet has."""
_LONGEST = len("4294967295:4294967295:4294967295")
_OLDER = "this is the older copy, stop it (to have the jail here instead: mobility release NAME)"
_UNHEARD = "waits for the fabric to tell who holds it"
_SEQUENCE, _IDENTITY, _CLAIMANT, _HANDING = 1, 2, 3, 4


@dataclass(frozen=True, slots=True)
class Claim:
    """One host's claim, as it is announced with each of the jail's prefixes."""

    sequence: int
    identity: int
    claimant: int
    handing: bool = False
    """Whether it is being handed over: its host waits for the jail to be stopped, and started elsewhere."""

    @property
    def rank(self) -> tuple[int, int]:
        """What decides between two claims: the higher rank wins; of the same sequence the lower router id."""
        return self.sequence, -self.claimant

    @property
    def host(self) -> str:
        """The claimant's router id, as it is written."""
        return str(IPv4Address(self.claimant))


def identity_number(text: str) -> int:
    """Return the 32 bits that stand for a jail's identity."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4])


def communities(claim: Claim, administrator: int) -> tuple[str, ...]:
    """Return the large communities of a claim."""
    parts = [(_SEQUENCE, claim.sequence), (_IDENTITY, claim.identity), (_CLAIMANT, claim.claimant)]
    parts += [(_HANDING, 1)] * claim.handing
    return tuple(f"{administrator}:{part}:{value}" for part, value in parts)


def med(sequence: int) -> int:
    """Return the MED that goes with a sequence."""
    return LAST - sequence


def read(large_communities: Iterable[str], administrator: int) -> Claim | None:
    """Return the claim that large communities hold; None where they hold none, or contradict themselves."""
    found: dict[int, int] = {}
    for text in large_communities:
        words = text.split(":")
        if (
            len(text) > _LONGEST
            or len(words) != 3
            or words[0] != str(administrator)
            or not all(map(str.isdecimal, words))
        ):
            continue
        part, value = int(words[1]), int(words[2])
        if found.setdefault(part, value) != value:
            return None
    try:
        claim = Claim(found[_SEQUENCE], found[_IDENTITY], found[_CLAIMANT], found.get(_HANDING) == 1)
    except KeyError:
        return None
    within = 0 < claim.sequence <= LAST and max(claim.identity, claim.claimant) <= LAST
    return claim if within else None


@dataclass(frozen=True, slots=True)
class Policy:
    """When moves freeze a jail: this many within so many seconds (RFC 7432, section 15.1: 5 within 180)."""

    moves: int
    window: float


@dataclass(frozen=True, slots=True)
class Held:
    """What one incarnation of a jail has claimed; it begins with nothing, and ends with the incarnation."""

    claim: int = 0
    """The sequence that it claims, 0 while it claims none."""
    told: tuple[str, ...] = ()
    """Its prefixes that are announced with this claim."""
    lost: tuple[str, ...] = ()
    """Its prefixes that it has let go."""
    lost_to: str = ""
    """To whom, in words."""
    lost_at: float = 0.0
    """When it let go of the first of them: UTC, in seconds."""


@dataclass(frozen=True, slots=True)
class Record:
    """What a host remembers of a jail beyond incarnations and boots. Times are UTC, in seconds."""

    highest: int = 0
    """The highest sequence that was ever claimed or seen."""
    owner: int = 0
    """Who claimed it: a router id; 0: nobody yet."""
    moves: tuple[float, ...] = ()
    """When the jail has changed hands lately, as seen from here."""
    frozen_at: float = 0.0
    """Since when it is frozen, 0 while it is not."""


class Kind(StrEnum):
    """What is the matter with a jail's ownership."""

    HELD = "held"
    """All that is wanted is claimed."""
    WAITING = "waiting"
    """The fabric has not told yet what it has."""
    LOST = "lost"
    """A newer claim was seen."""
    CONFLICT = "conflict"
    """Another jail's claim is on one of its addresses."""
    FROZEN = "frozen"
    """It has moved too often."""
    EXHAUSTED = "exhausted"
    """There is no higher sequence."""


@dataclass(frozen=True, slots=True)
class Ruling:
    """What is to be announced, with which sequence, and why the rest is not."""

    kind: Kind
    held: Held
    record: Record
    prefixes: tuple[str, ...] = ()
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Situation:
    """What a ruling rests on, beside what was held before."""

    wanted: tuple[str, ...]
    """The prefixes that this host would announce."""
    seen: Mapping[str, Collection[Claim]]
    """The claims that the fabric shows for each, our own among them where it shows us those."""
    me: int
    """This host's router id."""
    identity: int
    heard: bool
    """Whether the fabric has shown all it has."""
    witnessed: bool
    """Whether this incarnation is known to be fresh: not one that an agent which remembers nothing found running."""
    now: float
    """UTC, in seconds."""

    def of_others(self, prefix: str) -> list[Claim]:
        """Return the claims of other hosts."""
        return [claim for claim in self.seen.get(prefix, ()) if claim.claimant != self.me]


def seeing(record: Record, seen: Mapping[str, Collection[Claim]]) -> Record:
    """Return the record after the fabric has shown these claims."""
    newest = max((claim for claims in seen.values() for claim in claims), key=_rank, default=None)
    if newest is None or newest.sequence <= record.highest:
        return record
    return replace(record, highest=newest.sequence, owner=newest.claimant)


def released(record: Record, seen: Mapping[str, Collection[Claim]]) -> Record:
    """Return what is remembered after an operator's release: neither moves nor a freeze, but every sequence there was.

    Only a sequence at the end of all of them is forgotten, so that one can begin anew once nobody announces it.
    """
    exhausted = record.highest >= LAST - RESERVE
    return seeing(Record() if exhausted else Record(record.highest, record.owner), seen)


def rule(situation: Situation, held: Held, record: Record, policy: Policy) -> Ruling:
    """Decide what this host may announce of a jail that runs here and may be announced."""
    before = held
    rivals = {prefix: situation.of_others(prefix) for prefix in situation.wanted}
    record = seeing(record, situation.seen)
    if not held.claim:
        ruling = _claim(situation, rivals, held, record, policy)
        if not ruling.held.claim:
            return ruling
        held, record = ruling.held, ruling.record
    mine = Claim(held.claim, situation.identity, situation.me)
    for prefix in situation.wanted:
        same = [claim for claim in rivals[prefix] if claim.identity == situation.identity]
        newest = max(same, key=_rank, default=mine)
        if newest.rank > mine.rank and prefix not in held.lost:
            to = f"{newest.host} has claimed it with sequence {newest.sequence}, here it had {mine.sequence}"
            held = replace(held, lost=(*held.lost, prefix), lost_to=to)
    if held.lost != before.lost:
        record = _moved(record, situation.now, policy)
    if any(prefix in held.lost for prefix in situation.wanted):
        held = replace(held, lost_at=held.lost_at or situation.now)
        if not held.lost_at <= situation.now < held.lost_at + GRACE:
            # a jail is one: its newer host may be gone before the claim on the rest was sent
            held = replace(held, lost=tuple(dict.fromkeys((*held.lost, *situation.wanted))))
    above = _to_claim_again(situation, rivals, mine, record)
    if above and not any(prefix in held.lost for prefix in situation.wanted):
        if above > mine.sequence + 1:
            record = _moved(record, situation.now, policy)
        mine = replace(mine, sequence=above)
        held = replace(held, claim=above)
        record = replace(record, highest=max(record.highest, above), owner=situation.me)
    kept, reasons = [], []
    for prefix in situation.wanted:
        strangers = _strangers(rivals[prefix], situation.identity)
        # whoever came first keeps it; of two that could not know of each other, the higher rank
        first = prefix in held.told and all(claim.rank < mine.rank for claim in strangers)
        if prefix in held.lost:
            reasons.append(f"{held.lost_to}: {_OLDER}")
        elif strangers and not first:
            reasons.append(_conflict(prefix, max(strangers, key=_rank)))
        elif not situation.heard and prefix not in held.told:
            reasons.append(_UNHEARD)
        else:
            kept.append(prefix)
    lost = any(prefix in held.lost for prefix in situation.wanted)
    quiet = Kind.WAITING if reasons == [_UNHEARD] else Kind.CONFLICT
    kind = Kind.LOST if lost else quiet if reasons else Kind.HELD
    held = replace(held, told=tuple(kept))
    return Ruling(kind, held, record, tuple(kept), "; ".join(dict.fromkeys(reasons)))


def _claim(
    situation: Situation, rivals: Mapping[str, Collection[Claim]], held: Held, record: Record, policy: Policy
) -> Ruling:
    """Claim for a new incarnation, or say why not."""

    def no(kind: Kind, reason: str) -> Ruling:
        return Ruling(kind, held, record, reason=reason)

    if not situation.heard:
        return no(Kind.WAITING, _UNHEARD)
    same = [claim for claims in rivals.values() for claim in claims if claim.identity == situation.identity]
    newest = max(same, key=_rank, default=None)
    if newest is not None and not situation.witnessed:
        to = f"{newest.host} has claimed it with sequence {newest.sequence}, and this one was not seen to start"
        held = replace(held, lost=situation.wanted, lost_to=to)
    if situation.wanted and set(situation.wanted) <= set(held.lost):
        return no(Kind.LOST, f"{held.lost_to}: {_OLDER}")
    strangers = [_strangers(rivals[prefix], situation.identity) for prefix in situation.wanted]
    if all(strangers):
        conflicts = [
            _conflict(prefix, max(claims, key=_rank))
            for prefix, claims in zip(situation.wanted, strangers, strict=True)
        ]
        return no(Kind.CONFLICT, "; ".join(conflicts))
    if record.highest >= LAST - RESERVE:
        return no(
            Kind.EXHAUSTED,
            f"{IPv4Address(record.owner)} claims it with sequence {record.highest}, and {LAST} is the last there is: have "
            "that withdrawn everywhere, then mobility release it",
        )
    if record.owner not in (0, situation.me) and not record.frozen_at:
        record = _moved(record, situation.now, policy)
    if record.frozen_at and (same or record.owner != situation.me):
        return no(
            Kind.FROZEN,
            f"it has moved {policy.moves} times within {policy.window:g} s and is frozen (RFC 7432, section 15.1): find "
            "out what starts it on several hosts, then mobility release it",
        )
    minutes = int(situation.now // 60)
    # a clock that tells of the year 6000 is not worth half of all sequences
    sequence = max(record.highest + 1, minutes if minutes < LAST // 2 else 0)
    return Ruling(
        Kind.HELD,
        replace(held, claim=sequence),
        replace(record, highest=sequence, owner=situation.me),
        situation.wanted,
    )


def _to_claim_again(situation: Situation, rivals: Mapping[str, Collection[Claim]], mine: Claim, record: Record) -> int:
    """Return the sequence to claim with instead of the present one, 0 where that serves.

    At a tie that we win routers may show the other one's only: a higher sequence shows everybody who owns it. One of
    our own above it is of a memory that was lost, or another host's that has our router id: as many moves as those
    two make against each other freeze the jail.
    """
    ties = [claim for claims in rivals.values() for claim in claims if claim.sequence == mine.sequence]
    ours = [claim for claims in situation.seen.values() for claim in claims if claim.claimant == situation.me]
    own = max((claim.sequence for claim in ours), default=0)
    if own > mine.sequence and not record.frozen_at:
        return own + 1 if own < LAST else 0
    return mine.sequence + 1 if any(claim.rank < mine.rank for claim in ties) and mine.sequence < LAST else 0


def _rank(claim: Claim) -> tuple[int, int]:
    return claim.rank


def _strangers(claims: Collection[Claim], identity: int) -> list[Claim]:
    return [claim for claim in claims if claim.identity != identity]


def _conflict(prefix: str, claim: Claim) -> str:
    return (
        f"{prefix} is another jail's, on {claim.host} (identity {claim.identity}): give one of the two another address, or "
        "both the same `identity` in jails.d if they are one jail"
    )


def _moved(record: Record, now: float, policy: Policy) -> Record:
    """Count a move; freeze when there were too many. After a clock was set back, moves of its future count no more."""
    moves = (*(at for at in record.moves if now - policy.window < at <= now), now)[-policy.moves :]
    frozen = record.frozen_at or (now if len(moves) >= policy.moves else 0.0)
    return replace(record, moves=moves, frozen_at=frozen)
