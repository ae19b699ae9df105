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
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from mobility.bgp.bridge import PROTOCOL, ROUTES_IN_FLIGHT, Lines
from mobility.bgp.grammar import attributes_text, is_ipv6, lines, prefix_text
from mobility.bgp.rib import ANNOUNCE, Batch, PeerRib
from mobility.config import Bgp, Peer, allows
from mobility.control import ControlError, listen, peer_uid
from mobility.model import Attributes, Prefix, martian

log = logging.getLogger(__name__)

OUTSTANDING_ROUTES = 16 * ROUTES_IN_FLIGHT
"""Routes sent to the bridge and not answered yet: it always has the next command at hand, and a withdrawal that comes
up waits behind a few commands (some 40 ms), not behind ten thousand."""
ACCEPT_AGAIN = 1.0
"""Seconds before accepting again after the kernel could not."""
RETRY_REFUSED = 5.0
"""Seconds after which ExaBGP is asked again for what it has refused."""
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
    bridges: int = 0
    """Bridges that connected; more than one: the bridge or ExaBGP was started again, or the connection broke."""
    intruders: int = 0
    """Connections refused because of who called."""
    overflow: int = 0
    """Received routes that the bridge had no room for."""


@dataclass(slots=True)
class _Member:
    """What is known of one peer."""

    peer: Peer
    session: Session
    rib: PeerRib = field(default_factory=PeerRib)
    received: dict[str, Received] = field(default_factory=dict)
    complete: bool = False
    bridge_knows: bool = False
    """Whether the bridge has seen, or was told of, the peer's OPEN."""

    def next_hop(self, *, ipv6: bool) -> tuple[str | None, str]:
        """Return the next hop that routes of a family have at this peer; or None and why there are none for it.

        None with no reason: the peer's OPEN is not known, what it has been told stands.
        """
        session = self.session
        if session.opened and (IPV6 if ipv6 else IPV4) not in session.families:
            return None, f"the peer does not take {'IPv6' if ipv6 else 'IPv4'} routes"
        if ipv6 or session.rfc8950:
            return self.peer.next_hop_ipv6, ""
        if session.rfc8950 is None:
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
        except (ValueError, LookupError, TypeError, AttributeError) as error:
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
    ) -> None:
        self.counters = Counters()
        self._bgp = bgp
        self._path = path
        self._allowed = tuple(allowed)
        self._on_change = on_change
        self._clock = clock
        self._members = {peer.address: _Member(peer, self._unknown(peer)) for peer in bgp.peers}
        self._desired: dict[str, Attributes] = {}
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
        for handle in (self._pumping, self._retrying):
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
            log.error("the bridge can not be used, its connection is cut", extra={"error": why})

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

        Raises ValueError for a prefix outside `allowed`, the default route, martians, and for bad attributes.
        """
        if martian(prefix) or not allows(self._allowed, prefix):
            raise ValueError(f"{prefix} is not announced: it is not among host.allowed")
        text = prefix_text(prefix)
        if self._desired.get(text) == attributes:
            return
        attributes_text("::1", attributes)
        self._desired[text] = attributes
        for member in self._members.values():
            self._aim(member, text)
        self._stir()

    def unwant(self, prefix: Prefix) -> None:
        """Have `prefix` withdrawn from every peer, also before `open_for_withdrawals`: somebody knows it must go."""
        text = prefix_text(prefix)
        self._desired.pop(text, None)
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

    def _aim(self, member: _Member, prefix: str) -> None:
        """Set what one peer should be told of a prefix, in the form that it has negotiated."""
        attributes = self._desired.get(prefix)
        if attributes is None:
            return
        next_hop, why = member.next_hop(ipv6=is_ipv6(prefix))
        if next_hop is not None:
            member.rib.want(prefix, attributes_text(next_hop, attributes))
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

    def received(self) -> Mapping[str, Mapping[str, Received]]:
        """Return the routes learned from each peer: by its name, by prefix (with the path id where there is one)."""
        return {member.peer.name: member.received for member in self._members.values()}

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
        _, why = member.next_hop(ipv6=is_ipv6(prefix))
        if why:
            return RouteState(State.HELD, why)
        if not session.up:
            return RouteState(State.NO_SESSION, session.reason)
        told, wanted = rib.book.get(prefix), rib.wanted.get(prefix)
        if wanted is None:
            return RouteState(State.HELD, "what the peer takes is known at its next session")
        if told == wanted and not rib.under_way(prefix):
            return RouteState(State.ANNOUNCED)
        return RouteState(State.SENDING, slow)

    def counts(self) -> dict[str, int]:
        """Return how many routes are desired, acknowledged, not as they should be, held back; over all peers."""
        members = self._members.values()
        held = 0
        for member in members:
            for ipv6 in (False, True):
                if member.next_hop(ipv6=ipv6)[1]:
                    held += sum(is_ipv6(prefix) == ipv6 for prefix in self._desired)
        return {
            "desired": len(self._desired),
            "acknowledged": sum(len(member.rib.book) for member in members),
            "differing": sum(member.rib.differing for member in members),
            "held_back": held,
            "received": sum(len(member.received) for member in members),
        }

    def preview(self, prefixes: Iterable[Prefix], attributes: Attributes | None = None) -> list[str]:
        """Return the ExaBGP commands that announcing `prefixes` would still take, and `#` lines for what is held."""
        result: list[str] = []
        texts = [prefix_text(prefix) for prefix in prefixes]
        for member in self._members.values():
            groups: dict[str, list[str]] = {}
            for prefix in texts:
                next_hop, why = member.next_hop(ipv6=is_ipv6(prefix))
                if next_hop is None:
                    why = why or "its OPEN is not known yet"
                    result.append(f"# {member.peer.name}: {prefix} is held back: {why}")
                    continue
                text = attributes_text(next_hop, attributes or self._desired.get(prefix) or Attributes())
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
        loop = asyncio.get_running_loop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                while True:
                    while left and self._as_wanted(left[-1]):
                        left.pop()
                    if not left and all(map(self._as_wanted, whole)):
                        return True
                    waiter = loop.create_future()
                    self._waiters.add(waiter)
                    try:
                        await waiter
                    finally:
                        self._waiters.discard(waiter)
        return all(map(self._as_wanted, whole))

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
            log.error("ExaBGP refused a command", extra={"reason": str(message["text"])})
            self._answered(int(message["error"]), ok=False)
        elif "session" in message:
            self._session(message)
        elif "received" in message:
            self._learn(message)
        elif "lost" in message:
            member = self._members.get(message["lost"])
            if member is not None:
                for key in _texts(message["prefixes"]):
                    member.received.pop(key, None)
        elif "book" in message:
            self._booked(message["book"], _texts(message["prefixes"]), str(message["attributes"]))
        elif "unbook" in message:
            self._booked(message["unbook"], _texts(message["prefixes"]), None)
        elif "hello" in message:
            self._greeted(message)
        elif "end" in message:
            self._sync()
        elif "sick" in message:
            silent = message["sick"]
            self._sick_since = None if silent is None else self._clock() - float(silent)
            if silent is not None:
                log.error("ExaBGP does not answer", extra={"seconds": float(silent)})
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
        for member in self._members.values():
            if instance != self._instance:
                member.complete = False
            if exabgp != self._instance[1]:
                # a new bridge of the same ExaBGP has not seen the OPENs of sessions that are up: ours stay true
                member.session = self._unknown(member.peer)
            member.received.clear()
        self._instance = instance
        self._sick_since = None
        self._books = {address: {} for address in self._members}

    def _booked(self, address: str, prefixes: list[str], attributes: str | None) -> None:
        if self._synced:
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
        for address, member in self._members.items():
            member.rib.replace_book(self._books.get(address, {}))
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
            reason=str(message["reason"]),
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
        if session.state == "down":
            member.received.clear()
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
        member.received.update(dict.fromkeys(_texts(message["prefixes"]), path))
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
        if self._synced and self._link is not None:
            self._give_orders(self._link)
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._on_change()

    def _give_orders(self, link: _Link) -> None:
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


def _takes(session: Session) -> tuple[object, ...]:
    """Return what decides the form of routes in a session."""
    return session.opened, session.families, session.next_hops
