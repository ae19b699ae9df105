"""The agent's end of the bridge: what is wanted is brought into the fabric, and the fabric's state is known here.

Level-driven: `want` and `unwant` say how things should be; what ExaBGP has acknowledged (the book) is compared with it
for each peer, and the difference is sent. A new agent finds the book as it wants it, and sends nothing.

All methods belong to the event loop's thread. The bridge runs as ExaBGP's user: what it says is data from outside.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import pwd
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from mobility.bgp.bridge import PROTOCOL, ROUTES_IN_FLIGHT, Lines
from mobility.bgp.grammar import attributes_text, is_ipv6, lines, prefix_text
from mobility.bgp.rib import ANNOUNCE, Batch, PeerRib
from mobility.config import Bgp, Peer, allows
from mobility.control import ControlError, listen, peer_uid
from mobility.model import Attributes, Prefix, martian, network_prefix
from mobility.tables import shown

log = logging.getLogger(__name__)

OUTSTANDING_ROUTES = 16 * ROUTES_IN_FLIGHT
"""Routes sent to the bridge and not answered yet: it always has the next command at hand, and a withdrawal that comes
up waits behind a few commands (some 40 ms), not behind ten thousand."""
ACCEPT_AGAIN = 1.0
"""Seconds before accepting again after the kernel could not."""
RETRY_REFUSED = 5.0
"""Seconds after which ExaBGP is asked again for what it has refused."""
FIRST_RELOAD, LAST_RELOAD = 0.2, 30.0
"""Seconds after which ExaBGP is asked again to read its file that it has not read: they double from one to the other."""
LEFT_OUT = "the peer's families leave {} out"
MAX_ROUTES = 1_000_000
"""Routes that a bridge may tell of, book and received ones together; one that tells of more is cut off."""
FOLDER_MODE = 0o750
SOCKET_MODE = 0o660
IPV4, IPV6 = "ipv4/unicast", "ipv6/unicast"
IPV4_BY_IPV6 = "ipv4/unicast/ipv6"
"""The conversion of RFC 8950 that an OPEN offers, in ExaBGP's words."""


class SpeakerError(OSError):
    """The speaker can not listen; the message says why and what to do."""


class State(StrEnum):
    """Where a route stands at one peer."""

    ANNOUNCED = "announced"
    SENDING = "sending"
    WITHDRAWING = "withdrawing"
    HELD = "held back"
    LEFT_OUT = "left out"
    NO_SESSION = "no session"
    NO_BRIDGE = "no bridge"
    REFUSED = "refused"
    ABSENT = "not announced"


@dataclass(frozen=True, slots=True)
class RouteState:
    """Where a route stands at one peer, and why it is no further."""

    state: State
    why: str = ""

    def __str__(self) -> str:
        return f"{self.state}: {self.why}" if self.why else str(self.state)


@dataclass(frozen=True, slots=True)
class Session:
    """One peer's BGP session as the bridge last told it."""

    peer: str
    address: str
    state: str = "unknown"
    since: float = 0.0
    """Seconds since the epoch."""
    reason: str = ""
    opened: bool = False
    """Whether the peer's OPEN is known: without it, what it takes is not."""
    families: tuple[str, ...] = ()
    next_hops: tuple[str, ...] = ()
    graceful_restart: int | None = None
    """Seconds that the peer offers; None: it does not."""
    heard: tuple[str, ...] = ()
    """Families whose end-of-RIB the peer has sent: its routes are all here."""

    @property
    def up(self) -> bool:
        """Tell whether routes flow."""
        return self.state == "up"

    @property
    def rfc8950(self) -> bool | None:
        """Tell whether the peer takes IPv4 routes with IPv6 next hops; None: not known yet."""
        return IPV4_BY_IPV6 in self.next_hops if self.opened else None

    def describe(self) -> dict[str, Any]:
        """Return what `mobility status --json` shows of it."""
        return {
            "peer": self.peer,
            "address": self.address,
            "state": self.state,
            "since": self.since,
            "reason": self.reason,
            "rfc8950": self.rfc8950,
            "families": list(self.families),
            "graceful_restart": self.graceful_restart,
        }


@dataclass(frozen=True, slots=True)
class Received:
    """What a peer has told about a prefix."""

    next_hop: str
    attributes: Mapping[str, Any]


@dataclass(slots=True)
class Counters:
    """What has happened since the start."""

    commands: int = 0
    acknowledged: int = 0
    refused: int = 0
    restarts: int = 0
    """New ExaBGPs since the first that was met."""
    bridges: int = 0
    """Bridges that connected; more than one: the bridge or ExaBGP was started again, or the connection broke."""
    intruders: int = 0
    """Connections refused because of who called."""
    overflow: int = 0
    """Received routes that the bridge had no room for."""
    outside: int = 0
    """Received routes outside of the allowed prefixes, which the bridge ignores; told as it doubles."""


@dataclass(slots=True)
class _Member:
    """What is known of one peer."""

    peer: Peer
    session: Session
    rib: PeerRib = field(default_factory=PeerRib)
    received: dict[str, Received] = field(default_factory=dict)
    """By prefix, with the path identifier behind a blank where add-path gives one."""
    several: dict[str, set[str]] = field(default_factory=dict)
    """Of prefixes with path identifiers: their keys in `received`."""
    complete: bool = False
    bridge_knows: bool = False
    """Whether the bridge has seen, or was told of, the peer's OPEN."""
    leaving: bool = False
    """Whether the session is about to go for good, and all its routes with it."""
    was_up: bool = False
    """Whether the session was up when it was last known."""
    changes: dict[str, int] = field(default_factory=lambda: {"up": 0, "down": 0})
    """How often it has come up and gone down, as far as that was told."""

    def turn(self, *, up: bool) -> None:
        """Count it if the session has come up or gone down; a bridge that is away says nothing of that."""
        if up is not self.was_up:
            self.was_up = up
            self.changes["up" if up else "down"] += 1

    def carries(self, *, ipv6: bool) -> bool:
        """Tell whether the session is configured to carry a family."""
        return ("ipv6" if ipv6 else "ipv4") in self.peer.families

    def learn(self, key: str, path: Received) -> str:
        """Take what the peer has told; return the prefix."""
        self.received[key] = path
        prefix, _, identifier = key.partition(" ")
        if identifier:
            self.several.setdefault(prefix, set()).add(key)
        return prefix

    def unlearn(self, key: str) -> str:
        """Forget what the peer has withdrawn; return the prefix."""
        self.received.pop(key, None)
        prefix, _, identifier = key.partition(" ")
        if identifier and (keys := self.several.get(prefix)) is not None:
            keys.discard(key)
            if not keys:
                del self.several[prefix]
        return prefix

    def unlearn_all(self) -> set[str]:
        """Forget all that the peer has told; return the prefixes."""
        return {self.unlearn(key) for key in list(self.received)}

    def paths(self, prefix: str) -> list[Received]:
        """Return what the peer tells of a prefix: several paths where it adds path identifiers (RFC 7911)."""
        found = [self.received[key] for key in self.several.get(prefix, ())]
        return [*found, self.received[prefix]] if prefix in self.received else found

    def next_hop(self, attributes: Attributes, *, ipv6: bool) -> tuple[str | None, str]:
        """Return the next hop that routes of a family have at this peer; or None and why there are none for it.

        One that `attributes` give stands in for the peer's. An IPv4 one that they give serves IPv4 in every session, RFC
        8950 or not. None with no reason: the peer's OPEN is not known, what it has been told stands.
        """
        session = self.session
        family = "IPv6" if ipv6 else "IPv4"
        if not self.carries(ipv6=ipv6):
            return None, LEFT_OUT.format(family)
        if session.opened and (IPV6 if ipv6 else IPV4) not in session.families:
            return None, f"the peer does not take {family} routes"
        if not ipv6 and attributes.next_hop_ipv4 is not None:
            return attributes.next_hop_ipv4, ""
        if ipv6 or (self.peer.asks_rfc8950 and session.rfc8950):
            return attributes.next_hop_ipv6 or self.peer.next_hop_ipv6, ""
        if self.peer.asks_rfc8950 and session.rfc8950 is None:
            return None, ""
        if self.peer.next_hop_ipv4 is not None:
            return self.peer.next_hop_ipv4, ""
        return None, "the peer takes no IPv6 next hops for IPv4 (RFC 8950): switch that on there, or set next_hop_ipv4"


class _Link(asyncio.Protocol):
    """The connection to the bridge."""

    def __init__(self, speaker: Speaker) -> None:
        self._speaker = speaker
        self._lines = Lines()
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport (asyncio)."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  # what asyncio gives to a stream's protocol
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Take what the bridge says (asyncio); one that says what can not be understood is cut off."""
        try:
            for line in self._lines.add(data):
                self._speaker._hear(self, json.loads(line))  # the two are one
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            self._speaker._complain(f"{type(error).__name__}: {error}")
            self.transport.abort()

    def connection_lost(self, _: Exception | None) -> None:
        """Tell that the bridge is gone (asyncio)."""
        self._speaker._lost(self)


class Speaker:
    """Brings wanted routes to every peer, by way of the bridge.

    `allowed` is enforced here a second time: nothing outside it can be wanted. `on_change` is called, once for all
    changes of a loop turn, when a session, an acknowledgement or a received route has changed. `clock` gives seconds
    since the epoch.
    """

    def __init__(
        self,
        bgp: Bgp,
        path: Path,
        *,
        allowed: Iterable[Prefix],
        on_change: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.time,
        mark: str = "",
    ) -> None:
        self.counters = Counters()
        self._bgp = bgp
        self._path = path
        self._allowed = tuple(allowed)
        self._on_change = on_change
        self._clock = clock
        self._members = {peer.address: _Member(peer, self._unknown(peer)) for peer in bgp.peers}
        self._desired: dict[str, Attributes] = {}
        self._over: dict[str, None] = {}
        """Those of `_desired` for which bgp.max_announcements leaves no room, the first to come first."""
        self._open = False
        self._listener: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._link: _Link | None = None
        self._synced = False
        self._instance: tuple[str, int] = ("", 0)
        self._books: dict[str, dict[str, str]] = {}
        self._outstanding: dict[int, tuple[_Member, Batch]] = {}
        self._routes_outstanding = 0
        self._next_id = 0
        self._sick_since: float | None = None
        self._complaint = ""
        self._pumping: asyncio.Handle | None = None
        self._retrying: asyncio.TimerHandle | None = None
        self._waiters: set[asyncio.Future[None]] = set()
        self._news: set[str] = set()
        self._mark = mark
        """What names the neighbors that ExaBGP should have (`conf.mark`)."""
        self._loaded: str | None = None
        """What names those that it has, as the bridge says; None: it does not say."""
        self._reload_wanted = False
        self._reloading: int | None = None
        self._reload_after = FIRST_RELOAD
        self._reloading_again: asyncio.TimerHandle | None = None
        self._told_allowed: object = None

    # -- life

    async def start(self) -> None:
        """Listen for the bridge.

        Raises SpeakerError when the user of ExaBGP does not exist or the socket can not be had.
        """
        try:
            entry = pwd.getpwnam(self._bgp.user)
        except KeyError:
            raise SpeakerError(
                f"user {self._bgp.user!r} (bgp.user) does not exist: pw useradd {self._bgp.user} -s /usr/sbin/nologin"
            ) from None
        folder = self._path.parent
        folder.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        folder.mkdir(mode=FOLDER_MODE, exist_ok=True)
        try:
            self._listener = listen(self._path, SOCKET_MODE)
        except ControlError as error:
            raise SpeakerError(str(error)) from error
        if os.geteuid() == 0:
            for path, mode in ((self._path, SOCKET_MODE), (folder, FOLDER_MODE)):
                os.chown(path, 0, entry.pw_gid)
                path.chmod(mode)
        self._accepting = asyncio.create_task(
            self._accept(self._listener, {0, os.geteuid(), entry.pw_uid}), name="bridge"
        )

    async def close(self) -> None:
        """Stop listening and drop the bridge. Routes stand: the bridge keeps them."""
        if self._accepting is not None:
            self._accepting.cancel()
            await asyncio.gather(self._accepting, return_exceptions=True)
        if self._listener is not None:
            self._listener.close()
            self._path.unlink(missing_ok=True)
        for handle in (self._pumping, self._retrying, self._reloading_again):
            if handle is not None:
                handle.cancel()
        link, self._link, self._synced = self._link, None, False
        if link is not None:
            link.transport.close()

    async def _accept(self, listener: socket.socket, uids: set[int]) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(listener)
                await self._welcome(connection, uids)
            except OSError as error:
                # such as too many open files: the bridge tries again, and so do we
                self._complain(f"accept: {error.strerror}")
                await asyncio.sleep(ACCEPT_AGAIN)

    async def _welcome(self, connection: socket.socket, uids: set[int]) -> None:
        why = self._unwelcome(connection, uids)
        if why:
            self.counters.intruders += 1
            log.warning("a connection to the bridge socket was refused", extra={"reason": why})
            connection.close()
            return
        link = self._link = _Link(self)
        try:
            await asyncio.get_running_loop().connect_accepted_socket(lambda: link, connection)
        except OSError:
            self._link = None
            connection.close()
            raise
        self.counters.bridges += 1

    def _unknown(self, peer: Peer) -> Session:
        return Session(peer.name, peer.address, since=self._clock())

    def _complain(self, why: str) -> None:
        """Log what is wrong with the bridge, once: it comes back four times a second, and it would be said each time."""
        if why != self._complaint:
            self._complaint = why
            log.error("the bridge can not be used, its connection is cut", extra={"problem": why})

    def _unwelcome(self, connection: socket.socket, uids: set[int]) -> str:
        try:
            uid = peer_uid(connection)
        except PermissionError as error:
            return str(error)
        if uid not in uids:
            return f"uid {uid} calls: only root and {self._bgp.user} (bgp.user) may"
        if self._link is not None:
            return "a bridge is already connected: is a second ExaBGP running?"
        return ""

    # -- what is wanted

    def want(self, prefix: Prefix, attributes: Attributes) -> None:
        """Have `prefix` announced with these attributes to every peer that takes it.

        One for which bgp.max_announcements leaves no room waits, refused, until there is some: what is announced stays.
        Raises ValueError for a prefix outside `allowed`, the default route, martians, and for bad attributes.
        """
        if martian(prefix) or not allows(self._allowed, prefix):
            raise ValueError(f"{prefix} is not announced: it is not among host.allowed")
        text = prefix_text(prefix)
        if self._desired.get(text) == attributes:
            return
        attributes_text("::1", attributes, self._bgp.local_as)
        if text not in self._desired and not self._has_room(text):
            if not self._over:
                limit = self._bgp.max_announcements
                log.error("as many routes as may be are announced, more wait", extra={"prefix": text, "limit": limit})
            self._over[text] = None
        self._desired[text] = attributes
        for member in self._members.values():
            self._aim(member, text)
        self._stir()

    def unwant(self, prefix: Prefix) -> None:
        """Have `prefix` withdrawn from every peer, also before `open_for_withdrawals`: somebody knows it must go."""
        text = prefix_text(prefix)
        self._desired.pop(text, None)
        self._over.pop(text, None)
        for member in self._members.values():
            member.rib.unwant(text)
        self._stir()

    def open_for_withdrawals(self) -> None:
        """From now on, withdraw what is announced and not wanted: all that should be wanted has been said.

        Only after this is the end-of-RIB sent, in an ExaBGP that has not yet sent it.
        """
        if not self._open:
            self._open = True
            for member in self._members.values():
                member.rib.open_for_withdrawals()
            self._stir()

    def _spoken_besides(self) -> set[str]:
        """Return what ExaBGP announces of what should be withdrawn, was not spoken of yet, or waits for room."""
        spoken = set[str]().union(*(member.rib.all_spoken() for member in self._members.values()))
        return {prefix for prefix in spoken if prefix not in self._desired or prefix in self._over}

    def _has_room(self, prefix: str) -> bool:
        """Tell whether one more prefix may be announced; one that already is, may."""
        members = self._members.values()
        announced = len(self._desired) - len(self._over)
        if announced + sum(member.rib.spoken for member in members) < self._bgp.max_announcements:
            return True  # whatever that is
        if any(member.rib.speaks_of(prefix) for member in members):
            return True
        return announced + len(self._spoken_besides()) < self._bgp.max_announcements

    def _fill(self) -> None:
        """Announce what waits for room as far as there is some now: first what ExaBGP announces already."""
        besides = self._spoken_besides()
        room = self._bgp.max_announcements - (len(self._desired) - len(self._over)) - len(besides)
        stays = [prefix for prefix in self._over if prefix in besides]
        comes = [prefix for prefix in self._over if prefix not in besides][: max(0, room)]
        for prefix in stays + comes:
            del self._over[prefix]
            for member in self._members.values():
                self._aim(member, prefix)

    def _choose(self) -> None:
        """Choose anew what is announced, now that it is known what ExaBGP has: that stays, as far as it is desired."""
        if len(self._desired) + len(self._spoken_besides()) <= self._bgp.max_announcements:
            return
        admitted = [prefix for prefix in self._desired if prefix not in self._over]
        self._over = dict.fromkeys([*admitted, *self._over])
        self._fill()
        for prefix in self._over:
            for member in self._members.values():
                member.rib.unwant(prefix)

    def _text(self, member: _Member, next_hop: str, attributes: Attributes) -> str:
        """Return attributes as one peer is told them."""
        internal = member.peer.remote_as == self._bgp.local_as
        return attributes_text(next_hop, attributes, None if internal else self._bgp.local_as)

    def _aim(self, member: _Member, prefix: str) -> None:
        """Set what one peer should be told of a prefix, in the form that it has negotiated."""
        attributes = self._desired.get(prefix)
        if attributes is None or prefix in self._over or member.leaving:
            return
        next_hop, why = member.next_hop(attributes, ipv6=is_ipv6(prefix))
        if next_hop is not None:
            member.rib.want(prefix, self._text(member, next_hop, attributes))
        elif why:
            member.rib.unwant(prefix)
        elif prefix in member.rib.book:
            # told by an agent and a bridge before us, in a session whose OPEN only they have seen
            member.rib.want(prefix, member.rib.book[prefix])

    def _aim_all(self, member: _Member) -> None:
        for prefix in self._desired:
            self._aim(member, prefix)

    # -- what is so

    @property
    def connected(self) -> bool:
        """Tell whether a bridge is connected and has told everything."""
        return self._synced

    def sessions(self) -> Mapping[str, Session]:
        """Return the session of each configured peer, by its name."""
        return {member.peer.name: member.session for member in self._members.values()}

    def changes(self) -> dict[tuple[str, str], int]:
        """Return how often each peer's session has come "up" and gone "down", by its name and that word."""
        return {(member.peer.name, to): n for member in self._members.values() for to, n in member.changes.items()}

    def untold(self) -> set[str]:
        """Return the desired prefixes of which no peer has been told as it should."""
        told = set[str]().union(*(member.rib.told for member in self._members.values() if member.session.up))
        return self._desired.keys() - told if self._synced else set(self._desired)

    def lingering(self) -> set[str]:
        """Return the prefixes that ExaBGP announces, as far as is known, and that should be withdrawn."""
        if not self._synced:
            return set()
        return set[str]().union(*(member.rib.book.keys() - self._desired.keys() for member in self._members.values()))

    def shown(self, prefixes: AbstractSet[str]) -> set[str]:
        """Return those of `prefixes` of which a peer tells."""
        return set[str]().union(*(prefixes & member.received.keys() for member in self._members.values()))

    def describe(self) -> list[dict[str, Any]]:
        """Return what `mobility status --json` shows of each session, with how many routes it holds back, by reason."""
        held: list[dict[str, Any]] = []
        kinds = self._kinds()
        for member in self._members.values():
            reasons: Counter[str] = Counter()
            for (ipv6, next_hop_ipv4), number in kinds.items():
                _, why = member.next_hop(Attributes(next_hop_ipv4=next_hop_ipv4), ipv6=ipv6)
                if why and member.carries(ipv6=ipv6):
                    reasons[why] += number
            held.append(member.session.describe() | {"held_back": dict(reasons)})
        return held

    def _kinds(self) -> Counter[tuple[bool, str | None]]:
        """Count the desired routes by what decides whether a peer takes them: nothing else of them does."""
        return Counter(
            (is_ipv6(prefix), attributes.next_hop_ipv4)
            for prefix, attributes in self._desired.items()
            if prefix not in self._over
        )

    def received(self) -> Mapping[str, Mapping[str, Received]]:
        """Return the routes learned from each peer: by its name, by prefix (with the path id where there is one)."""
        return {member.peer.name: member.received for member in self._members.values()}

    def news(self) -> set[str]:
        """Return the prefixes of which a peer has told anything new since this was asked last."""
        news, self._news = self._news, set()
        return news

    def paths(self, prefix: str) -> dict[str, list[Received]]:
        """Return what each peer tells of a prefix (its text), by the peer's name."""
        return {member.peer.name: found for member in self._members.values() if (found := member.paths(prefix))}

    def acknowledged(self, prefix: str) -> list[str]:
        """Return the attributes with which ExaBGP has acknowledged a prefix (its text), for each peer that was told."""
        return [book[prefix] for member in self._members.values() if prefix in (book := member.rib.book)]

    def route(self, prefix: Prefix) -> dict[str, RouteState]:
        """Return where `prefix` stands at each peer, by the peer's name."""
        text = prefix_text(prefix)
        return {member.peer.name: self._state(member, text) for member in self._members.values()}

    def _state(self, member: _Member, prefix: str) -> RouteState:
        rib, session = member.rib, member.session
        if not self._synced:
            return RouteState(State.NO_BRIDGE, "ExaBGP does not run, or its bridge is not connected")
        slow = "" if self._sick_since is None else f"no answer from ExaBGP for {self._clock() - self._sick_since:.0f} s"
        if prefix in rib.refused:
            return RouteState(State.REFUSED, "ExaBGP refuses it: its log says why; does it know this peer?")
        if prefix not in self._desired:
            going = rib.under_way(prefix) or rib.waits(prefix)
            return RouteState(State.WITHDRAWING, slow) if going else RouteState(State.ABSENT)
        if prefix in self._over:
            return RouteState(State.REFUSED, f"bgp.max_announcements = {self._bgp.max_announcements} are announced")
        _, why = member.next_hop(self._desired[prefix], ipv6=is_ipv6(prefix))
        if why:
            return RouteState(State.HELD if member.carries(ipv6=is_ipv6(prefix)) else State.LEFT_OUT, why)
        if not session.up:
            return RouteState(State.NO_SESSION, session.reason)
        told, wanted = rib.book.get(prefix), rib.wanted.get(prefix)
        if wanted is None:
            return RouteState(State.HELD, "what the peer takes is known at its next session")
        if told == wanted and not rib.under_way(prefix):
            return RouteState(State.ANNOUNCED)
        return RouteState(State.SENDING, slow)

    @property
    def hangs(self) -> str:
        """Say that ExaBGP does not answer, and since when; "" where it does."""
        if self._sick_since is None or not self._synced:
            return ""
        return (
            f"no answer from ExaBGP for {self._clock() - self._sick_since:.0f} s: nothing is announced or withdrawn "
            "meanwhile: service mobility_exabgp restart; then its log"
        )

    @property
    def busy(self) -> bool:
        """Whether anything waits to be sent, or for ExaBGP's answer, in the sessions that are up.

        What ExaBGP has refused, it has answered. What waits for a session may wait for ever, as for a router that is gone.
        """
        return any(member.rib.busy for member in self._members.values() if member.session.up)

    @property
    def differing(self) -> int:
        """How many routes are not as they should be, over all peers."""
        return sum(member.rib.differing for member in self._members.values())

    def counts(self) -> dict[str, int]:
        """Return how many routes are desired, acknowledged, not as they should be, held back; over all peers.

        `over_limit`: prefixes refused because of bgp.max_announcements.
        """
        members = self._members.values()
        held = sum(
            number
            for (ipv6, next_hop_ipv4), number in self._kinds().items()
            for member in members
            if member.carries(ipv6=ipv6) and member.next_hop(Attributes(next_hop_ipv4=next_hop_ipv4), ipv6=ipv6)[1]
        )
        return {
            "desired": len(self._desired),
            "acknowledged": sum(len(member.rib.book) for member in members),
            "differing": self.differing,
            "held_back": held,
            "over_limit": len(self._over),
            "received": sum(len(member.received) for member in members),
        }

    def preview(self, prefixes: Iterable[Prefix], attributes: Attributes | None = None) -> list[str]:
        """Return the ExaBGP commands that announcing `prefixes` would still take, and `#` lines for what is held."""
        result: list[str] = []
        texts = [prefix_text(prefix) for prefix in prefixes]
        for member in self._members.values():
            groups: dict[str, list[str]] = {}
            for prefix in texts:
                wanted = attributes or self._desired.get(prefix) or Attributes()
                next_hop, why = member.next_hop(wanted, ipv6=is_ipv6(prefix))
                if next_hop is None:
                    why = why or "its OPEN is not known yet"
                    result.append(f"# {member.peer.name}: {prefix} is held back: {why}")
                    continue
                text = self._text(member, next_hop, wanted)
                if member.rib.book.get(prefix) != text:
                    groups.setdefault(text, []).append(prefix)
            for text, group in groups.items():
                result += lines(ANNOUNCE, member.peer.address, text, group)
        return result

    async def settled(self, prefixes: Iterable[Prefix], within: float) -> bool:
        """Wait until all `prefixes` are as wanted; tell whether that came to pass `within` seconds.

        One that is not wanted has to be acknowledged as withdrawn for every peer. One that is wanted has to be
        acknowledged as announced for every peer that has a session and takes it, and for one at least.
        """
        left = [prefix_text(prefix) for prefix in prefixes]
        whole = tuple(left)

        def done() -> bool:
            while left and self._as_wanted(left[-1]):
                left.pop()
            return not left and all(map(self._as_wanted, whole))

        return await self._comes(done, within) or all(map(self._as_wanted, whole))

    async def _comes(self, check: Callable[[], bool], within: float) -> bool:
        """Wait until `check` holds, asked again after each change; tell whether it did `within` seconds."""
        loop = asyncio.get_running_loop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                while not check():
                    waiter = loop.create_future()
                    self._waiters.add(waiter)
                    try:
                        await waiter
                    finally:
                        self._waiters.discard(waiter)
                return True
        return False

    # -- another configuration

    @property
    def outdated(self) -> bool:
        """Tell whether ExaBGP runs with other neighbors than the configuration has: it was not told to read it."""
        return self._synced and bool(self._mark) and self._loaded not in (None, self._mark)

    def reloadable(self) -> str:
        """Return why ExaBGP can not be told to read its file anew, "" where it can, or does not run."""
        if self._synced and self._loaded is None:
            return "ExaBGP runs with the bridge of an older version: service mobility_exabgp restart"
        return ""

    async def reconfigure(self, bgp: Bgp, *, allowed: Iterable[Prefix], mark: str, within: float) -> bool:
        """Take up another list of peers and other allowed prefixes; ExaBGP's file is already written.

        What a peer that stays has been told, stands, and it hears nothing. A peer that goes, or becomes another neighbor
        for ExaBGP, is told before that all its routes go: ExaBGP ends such a session without a word, and graceful restart
        would have the router keep them. Returns whether ExaBGP runs: one that does not reads the file when it starts.
        Raises SpeakerError where ExaBGP has not read the file `within` seconds: it is asked again until it has.
        """
        peers = {peer.address: peer for peer in bgp.peers}
        going = [member for member in self._members.values() if not _stays(member.peer, peers)]
        if self._synced:
            for member in going:
                # what waits for a session that is down would keep ExaBGP from reading its file
                member.leaving = member.session.up
                for prefix in {*member.rib.book, *member.rib.wanted} if member.leaving else ():
                    member.rib.unwant(prefix)
            self._stir()
            await self._comes(lambda: not any(each.rib.busy for each in going if each.session.up), within)
        self._take_up(bgp, tuple(allowed), mark)
        if not self._synced:
            return False
        self._reload_wanted = self._loaded != mark
        self._reload_after = FIRST_RELOAD
        self._stir()
        if not await self._comes(lambda: self._loaded == self._mark, within):
            raise SpeakerError(self._unread())
        self._allow(self._told_allowed)
        return True

    def _take_up(self, bgp: Bgp, allowed: tuple[Prefix, ...], mark: str) -> None:
        peers = {peer.address: peer for peer in bgp.peers}
        before, self._members = self._members, {}
        self._bgp, self._allowed, self._mark = bgp, allowed, mark
        for address, peer in peers.items():
            member = before.pop(address, None)
            if member is None or not _stays(member.peer, peers):
                if member is not None:
                    self._news |= member.unlearn_all()
                member = _Member(peer, self._unknown(peer))
                if self._open:
                    member.rib.open_for_withdrawals()
            member.peer = peer
            member.session = replace(member.session, peer=peer.name)
            self._members[address] = member
            self._books.setdefault(address, {})
        for member in before.values():
            self._news |= member.unlearn_all()
        for prefix in [text for text in self._desired if not allows(allowed, network_prefix(text))]:
            log.error("a route is withdrawn: host.allowed has it no more", extra={"prefix": prefix})
            self.unwant(network_prefix(prefix))
        self._choose()
        for member in self._members.values():
            self._aim_all(member)

    def _unread(self) -> str:
        """Return why ExaBGP has not read its file, as far as that can be told from here."""
        down = [member.peer.name for member in self._members.values() if not member.session.up]
        why = "ExaBGP has not read its new configuration yet, and is asked again until it has"
        if self._sick_since is not None:
            return f"{why}: it does not answer"
        if down:
            why += f"; it does not while routes wait for a peer without a session ({', '.join(down)})"
        return f"{why}: mobility doctor shows whether it takes it, service mobility_exabgp restart makes it read it"

    def _reload(self, link: _Link) -> None:
        """Have ExaBGP read its file, at a moment when no order is under way: the book that is told then is exact."""
        if self._reloading is not None or self._outstanding:
            return
        self._next_id += 1
        self._reloading = self._next_id
        self._books = {address: {} for address in self._members}
        link.transport.write(f"{json.dumps({'reload': self._reloading})}\n".encode())

    def _reloaded(self, message: Mapping[str, Any]) -> None:
        if int(message["reloaded"]) != self._reloading:
            return
        self._reloading = None
        self._reload_wanted = False
        self._loaded = str(message["mark"])
        self._take_books()
        if self._loaded == self._mark:
            log.info("ExaBGP has read its new configuration")
        elif self._reloading_again is None:
            if self._reload_after == FIRST_RELOAD:
                log.warning("ExaBGP has not read its new configuration", extra={"problem": self._unread()})
            self._reloading_again = asyncio.get_running_loop().call_later(self._reload_after, self._reload_again)
            self._reload_after = min(self._reload_after * 2, LAST_RELOAD)

    def _reload_again(self) -> None:
        self._reloading_again = None
        self._reload_wanted = self.outdated
        self._stir()

    def _as_wanted(self, prefix: str) -> bool:
        if not self._synced:
            return False
        if prefix not in self._desired:
            return not any(
                prefix in member.rib.book or member.rib.under_way(prefix) for member in self._members.values()
            )
        states = [self._state(member, prefix).state for member in self._members.values()]
        unfinished = {State.SENDING, State.REFUSED, State.NO_BRIDGE}
        return State.ANNOUNCED in states and not unfinished.intersection(states)

    # -- the bridge speaks

    def _hear(self, link: _Link, message: Any) -> None:
        if link is not self._link:
            return
        if "done" in message:
            self._answered(int(message["done"]), ok=True)
        elif "error" in message:
            log.error("ExaBGP refused a command", extra={"problem": str(message["text"])})
            self._answered(int(message["error"]), ok=False)
        elif "session" in message:
            self._session(message)
        elif "received" in message:
            self._learn(message)
        elif "lost" in message:
            member = self._members.get(message["lost"])
            if member is not None:
                self._news.update(map(member.unlearn, _texts(message["prefixes"])))
        elif "book" in message:
            self._booked(message["book"], _texts(message["prefixes"]), str(message["attributes"]))
        elif "unbook" in message:
            self._booked(message["unbook"], _texts(message["prefixes"]), None)
        elif "hello" in message:
            self._greeted(message)
        elif "end" in message:
            mark = message.get("mark")
            self._loaded = None if mark is None else str(mark)
            self._sync()
        elif "reloaded" in message:
            self._reloaded(message)
        elif "sick" in message:
            silent = message["sick"]
            self._sick_since = None if silent is None else self._clock() - float(silent)
            if silent is not None:
                log.error("ExaBGP does not answer", extra={"seconds": float(silent)})
        elif "outside" in message:
            self.counters.outside = int(message["outside"])
        elif "overflow" in message:
            self.counters.overflow = int(message["overflow"])
            log.error("the peers send more routes than the bridge remembers", extra={"ignored": message["overflow"]})
        self._stir()

    def _greeted(self, message: Mapping[str, Any]) -> None:
        if message["hello"] != PROTOCOL:
            raise ValueError(f"the bridge speaks version {message['hello']}, not {PROTOCOL}: restart ExaBGP")
        exabgp = int(message["exabgp"])
        instance = (str(message["bridge"]), exabgp)
        if instance != self._instance:
            log.info("bridge", extra={"pid": message["pid"], "exabgp": exabgp})
        self.counters.restarts += exabgp != self._instance[1] and bool(self._instance[0])
        for member in self._members.values():
            if instance != self._instance:
                member.complete = False
            if exabgp != self._instance[1]:
                # a new bridge of the same ExaBGP has not seen the OPENs of sessions that are up: ours stay true
                member.session = self._unknown(member.peer)
                member.turn(up=False)
            self._news |= member.unlearn_all()
        self._instance = instance
        self._sick_since = None
        self._books = {address: {} for address in self._members}
        self._told_allowed = message.get("allowed")
        self._allow(self._told_allowed)

    def _allow(self, told: object) -> None:
        """Have the bridge keep the routes inside of what is allowed here; one that never heard of that keeps them all."""
        allowed = sorted(set(map(str, self._allowed)))
        if self._link is not None and isinstance(told, list) and told != allowed:
            log.info("the bridge learns what is allowed, and tells all anew", extra={"allowed": ", ".join(allowed)})
            self._link.transport.write(f"{json.dumps({'allowed': allowed})}\n".encode())

    def _booked(self, address: str, prefixes: list[str], attributes: str | None) -> None:
        if self._synced and self._reloading is None:
            if address in self._members:
                self._members[address].rib.amend_book(prefixes, attributes)
        elif address in self._books and attributes is not None:
            self._books[address].update(dict.fromkeys(prefixes, attributes))
            self._limit(sum(map(len, self._books.values())))

    def _limit(self, routes: int) -> None:
        if routes > MAX_ROUTES:
            raise ValueError(f"more than {MAX_ROUTES} routes")

    def _sync(self) -> None:
        self._synced = True
        self._complaint = ""
        if self._loaded == self._mark:
            self._reload_wanted = False
        self._take_books()

    def _take_books(self) -> None:
        """Take what the bridge has told as all that ExaBGP has acknowledged, and have the rest done."""
        for address, member in self._members.items():
            member.rib.replace_book(self._books.get(address, {}))
        self._choose()
        for member in self._members.values():
            self._aim_all(member)
        self._books = {}

    def _session(self, message: Mapping[str, Any]) -> None:
        member = self._members.get(message["session"])
        if member is None:
            return  # a peer that our configuration no longer has
        before = member.session
        opened = message["open"]
        member.bridge_knows = opened is not None
        session = replace(
            before,
            state=str(message["state"]),
            since=float(message["since"]),
            reason=shown(str(message["reason"])),
            heard=tuple(_texts(message["heard"])),
        )
        if opened is not None:
            session = replace(
                session,
                opened=True,
                families=tuple(_texts(opened["families"])),
                next_hops=tuple(_texts(opened["nexthop"])),
                graceful_restart=None if opened["graceful_restart"] is None else int(opened["graceful_restart"]),
            )
        member.session = session
        member.turn(up=session.up)
        if session.state == "down":
            self._news |= member.unlearn_all()
        if session.state != before.state:
            log.info(
                "BGP session %s", session.state, extra={"peer": member.peer.name, "reason": session.reason or "none"}
            )
        if self._synced and _takes(session) != _takes(before):
            self._aim_all(member)

    def _learn(self, message: Mapping[str, Any]) -> None:
        member = self._members.get(message["received"])
        if member is None:
            return
        path = Received(str(message["next_hop"]), dict(message["attributes"]))
        self._news.update(member.learn(key, path) for key in _texts(message["prefixes"]))
        self._limit(sum(len(each.received) for each in self._members.values()))

    def _answered(self, number: int, *, ok: bool) -> None:
        member, batch = self._outstanding.pop(number)
        self._routes_outstanding -= len(batch.prefixes)
        if ok:
            self.counters.acknowledged += 1
        else:
            self.counters.refused += 1
            if self._retrying is None:
                self._retrying = asyncio.get_running_loop().call_later(RETRY_REFUSED, self._retry)
        member.rib.answered(batch, ok=ok)

    def _retry(self) -> None:
        self._retrying = None
        for member in self._members.values():
            member.rib.retry()
        self._stir()

    def _lost(self, link: _Link) -> None:
        if link is not self._link:
            return
        self._link = None
        self._synced = False
        self._outstanding.clear()
        self._routes_outstanding = 0
        self._reloading = None
        for member in self._members.values():
            member.session = replace(
                member.session, state="unknown", since=self._clock(), reason="no bridge tells", heard=()
            )
        log.warning("the bridge is gone: ExaBGP has ended, or was cut off")
        self._stir()

    # -- the bridge is told

    def _stir(self) -> None:
        """Have what changed in this turn of the loop dealt with at its end, all at once."""
        if self._pumping is None:
            self._pumping = asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        self._pumping = None
        if self._over:
            self._fill()
        if self._synced and self._link is not None:
            self._give_orders(self._link)
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._on_change()

    def _give_orders(self, link: _Link) -> None:
        if self._reload_wanted:
            self._reload(link)
        if self._reload_wanted or self._reloading is not None:
            return
        told: list[dict[str, Any]] = []
        busy = True
        while busy and self._routes_outstanding < OUTSTANDING_ROUTES:
            busy = False
            for member in self._members.values():
                batch = member.rib.take(ROUTES_IN_FLIGHT, announcing=member.session.up)
                if batch is None:
                    continue
                busy = True
                self._next_id += 1
                self._outstanding[self._next_id] = (member, batch)
                self._routes_outstanding += len(batch.prefixes)
                self.counters.commands += 1
                told.append(
                    {
                        "id": self._next_id,
                        "do": batch.verb,
                        "peer": member.peer.address,
                        "attributes": batch.attributes,
                        "prefixes": batch.prefixes,
                    }
                )
        for member in self._members.values():
            session = member.session
            if session.up and session.opened and not member.bridge_knows:
                member.bridge_knows = True
                opened = {
                    "families": session.families,
                    "nexthop": session.next_hops,
                    "graceful_restart": session.graceful_restart,
                }
                told.append({"opened": member.peer.address, "open": opened})
            if self._open and member.session.up and not member.complete and not member.rib.busy:
                member.complete = True
                told.append({"complete": member.peer.address})
        if told:
            link.transport.write(
                "".join(f"{json.dumps(message, separators=(',', ':'))}\n" for message in told).encode()
            )


def _texts(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise TypeError("a list of texts was expected")
    return value


def _stays(peer: Peer, peers: Mapping[str, Peer]) -> bool:
    """Tell whether a peer is among the new ones as the same neighbor of ExaBGP's, with the routes that it was told.

    Its address, our address and both AS make a neighbor (exabgp/bgp/neighbor.py, `name`); ours is not reloaded. All else
    may change: where ExaBGP has to reset the session for it, it sends the routes again by itself.
    """
    new = peers.get(peer.address)
    return new is not None and (new.local_address, new.remote_as) == (peer.local_address, peer.remote_as)


def _takes(session: Session) -> tuple[object, ...]:
    """Return what decides the form of routes in a session."""
    return session.opened, session.families, session.next_hops
