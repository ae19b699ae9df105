"""The claims of this host's jails: what is remembered of them, and what the fabric shows beside."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any

from mobility.bgp import ownership
from mobility.bgp.bridge import FAMILIES
from mobility.bgp.ownership import Claim, Held, Policy, Record, Ruling, Situation

if TYPE_CHECKING:
    from mobility.bgp.speaker import Session, Speaker
    from mobility.store import Store

_LARGE = re.compile(r"large-community (?:\[ ([0-9: ]+) \]|([0-9:]+))", re.ASCII)
"""Large communities in ExaBGP's words (bgp.grammar)."""


class Hearing:
    """Whether the fabric has told what it has: each peer's end-of-RIB has come, or `learn_for` seconds have passed.

    Once heard it stays so until no session is left: a host that was cut off has to hear again what happened meanwhile.
    """

    def __init__(self, learn_for: float) -> None:
        self.learn_for = learn_for
        self.heard = False
        self._since: float | None = None
        self._up: tuple[Session, ...] = ()

    def update(self, sessions: Iterable[Session], now: float) -> bool:
        """Take the sessions as a bridge tells them at `now` (monotonic seconds); tell whether `heard` has changed."""
        sessions = tuple(sessions)
        before = self.heard
        up = [session for session in sessions if session.up]
        if not up:
            self.heard, self._since = False, None
        elif self.heard and not any(map(_complete, up)) and any(map(_complete, self._up)):
            # the last one that had told all is gone, and none of the others has yet
            self.heard, self._since = False, now
        elif not self.heard:
            self._since = now if self._since is None else self._since
            told = len(up) == len(sessions) and all(map(_complete, up))
            self.heard = told or now - self._since >= self.learn_for
        self._up = tuple(up)
        return self.heard is not before

    def due(self, now: float) -> float | None:
        """Return in how many seconds `update` should be asked again though nothing happens; None: no need."""
        if self.heard or self._since is None:
            return None
        return max(0.0, self._since + self.learn_for - now)


def _complete(session: Session) -> bool:
    return session.opened and all(family in session.heard for family in FAMILIES if family in session.families)


@dataclass(frozen=True, slots=True)
class Settings:
    """How this host claims: the fabric's administrator, when moves freeze a jail, how long to listen first (seconds)."""

    administrator: int
    policy: Policy
    learn_for: float


class Ledger:
    """Rules on what each jail may announce, and remembers it. `clock` gives UTC, in seconds."""

    def __init__(
        self,
        settings: Settings,
        router_id: str,
        speaker: Speaker,
        store: Store,
        clock: Callable[[], float] = time.time,
        *,
        several: Collection[str] = (),
        moved: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`several` names the peers that show more than one path; `moved` is called with each jail that changes hands."""
        self.settings = settings
        self.me = int(IPv4Address(router_id))
        self.hearing = Hearing(settings.learn_for)
        self.records: dict[str, Record] = store.records()
        self._speaker = speaker
        self._store = store
        self._clock = clock
        self._several = frozenset(several)
        self._moved = moved

    def know(self, several: Iterable[str]) -> None:
        """Take which peers show more than one path from now on."""
        self._several = frozenset(several)

    def seen(self, prefixes: Iterable[str]) -> dict[str, list[Claim]]:
        """Return the claims that the fabric shows for these prefixes now."""
        found: dict[str, list[Claim]] = {}
        for prefix in prefixes:
            claims = [
                claim
                for paths in self._speaker.paths(prefix).values()
                for path in paths
                if (claim := self._read(path.attributes)) is not None
            ]
            if claims:
                found[prefix] = claims
        return found

    def _read(self, attributes: Mapping[str, object]) -> Claim | None:
        listed = attributes.get("large-community")
        texts = [text for text in listed if isinstance(text, str)] if isinstance(listed, list) else []
        return ownership.read(texts, self.settings.administrator)

    def rule(self, jail: str, identity: str, prefixes: tuple[str, ...], held: Held, *, witnessed: bool) -> Ruling:
        """Say what a jail may announce of `prefixes`, and remember what that leaves to remember."""
        ruling = self.preview(jail, identity, prefixes, held, witnessed=witnessed)
        if ruling.record != self.records.get(jail, Record()):
            self._keep(jail, ruling.record)
        return ruling

    def preview(self, jail: str, identity: str, prefixes: tuple[str, ...], held: Held, *, witnessed: bool) -> Ruling:
        """Say what a jail may announce of `prefixes`, as if it was asked, and remember nothing."""
        record = self.records.get(jail, Record())
        situation = Situation(
            prefixes,
            self.seen(prefixes),
            self.me,
            ownership.identity_number(identity),
            self.hearing.heard and self._speaker.connected,
            witnessed,
            self._clock(),
        )
        return ownership.rule(situation, held, record, self.settings.policy)

    def _keep(self, jail: str, record: Record) -> None:
        before = self.records.get(jail, Record()).owner
        self.records[jail] = record
        if before and record.owner not in (0, before):
            self._moved(jail)
        self._store.record(jail, record)

    def shown_older(self, identity: str, prefixes: Iterable[str], held: Held) -> list[dict[str, Any]]:
        """Return the older claims that peers show although they were told ours: they do not compare MED.

        A peer that shows several paths (RFC 7911) shows older ones rightly.
        """
        found, number = {}, ownership.identity_number(identity)
        for prefix in prefixes:
            for peer, paths in self._speaker.paths(prefix).items():
                claim = self._read(paths[0].attributes) if len(paths) == 1 and peer not in self._several else None
                if claim and claim.identity == number and claim.claimant != self.me and claim.sequence < held.claim:
                    found[peer] = {"peer": peer, "host": claim.host, "sequence": claim.sequence}
        return list(found.values())

    def notice(self, jail: str, prefixes: Iterable[str]) -> None:
        """Remember the highest sequence that the fabric shows for a jail, which need not run here."""
        record = self.records.get(jail, Record())
        now = ownership.seeing(record, self.seen(prefixes))
        if now != record:
            self._keep(jail, now)

    def release(self, jail: str, prefixes: Iterable[str]) -> None:
        """Forget how often a jail has moved, and that it is frozen."""
        self._keep(jail, ownership.released(self.records.get(jail, Record()), self.seen(prefixes)))

    def recover(self, identity: str, prefixes: Iterable[str]) -> Held:
        """Return what ExaBGP still announces with a claim of this host's: all that a lost memory has left."""
        told: dict[str, int] = {}
        for prefix in prefixes:
            for attributes in self._speaker.acknowledged(prefix):
                found = _LARGE.search(attributes)
                texts = (found[1] or found[2]).split() if found else []
                claim = ownership.read(texts, self.settings.administrator)
                if claim and (claim.identity, claim.claimant) == (ownership.identity_number(identity), self.me):
                    told[prefix] = max(claim.sequence, told.get(prefix, 0))
        return Held(max(told.values()), tuple(told)) if told else Held()

    def communities(self, identity: str, held: Held, *, handing: bool = False) -> tuple[str, ...]:
        """Return the large communities that claim a jail for this host."""
        claim = Claim(held.claim, ownership.identity_number(identity), self.me, handing)
        return ownership.communities(claim, self.settings.administrator)
