"""The bridge: a relay between ExaBGP, which starts it, and the agent, which comes and goes.

    python3 -I bridge.py --socket PATH [--fail-static-for SECONDS|forever] [--allowed PREFIX...]

This file stands alone: standard library only, nothing of `mobility`, so that ExaBGP's user can run it wherever the
package lies. Standard input brings ExaBGP's events and answers, standard output takes commands, the Unix socket at
PATH (the agent listens) carries one JSON object a line, both ways:

    to the agent:
      {"hello": 1, "bridge": ID, "pid": N, "exabgp": N, "allowed": [...] or null}
      {"session": ADDRESS, "state": ..., "since": ..., "reason": ..., "open": {...} or null, "heard": [...]}
      {"book": ADDRESS, "attributes": TEXT, "prefixes": [...]}    {"unbook": ADDRESS, "prefixes": [...]}
      {"received": ADDRESS, "next_hop": ..., "attributes": {...}, "prefixes": [...]}
      {"lost": ADDRESS, "prefixes": [...]}    {"overflow": N}    {"outside": N}    {"end": true, "mark": TEXT}
      {"done": N}    {"error": N, "text": ...}    {"sick": SECONDS or null}    {"reloaded": N, "mark": TEXT}
    from the agent:
      {"id": N, "do": "announce" or "withdraw", "peer": ADDRESS, "attributes": TEXT, "prefixes": [...]}
      {"complete": ADDRESS}    {"opened": ADDRESS, "open": {...}}    {"allowed": [...]}
      {"reload": N}

After `hello` the agent gets the whole truth (sessions, book, received routes, `end`), then what changes. A session that
goes down takes its received routes along. The *book* is what ExaBGP has acknowledged, so it is what ExaBGP will send
again by itself whenever a session comes up. `complete` says that this peer was told all there is: from then on, as long
as ExaBGP lives, the bridge sends it the end-of-RIB in each new session, agent or no agent. `opened` gives a new bridge
what only the agent has seen, the OPEN of a session that is up, so that it outlives whichever of the two dies next.

Received routes matter inside the *allowed* prefixes only, which no jail may leave: all others, be it a full table, are
counted and forgotten. An agent whose configuration allows others says so: then ExaBGP is asked for its routes again, and
the agent is cut off, to be told the whole truth once they are here.

`reload` has ExaBGP read its configuration file anew. Then the agent is told all sessions and the whole book again, as ExaBGP
has them now, and at last `reloaded`. Its *mark*, as that of `end`, is what ExaBGP's neighbors have as their description: by it
the agent knows which file was read. ExaBGP says "reload in progress" in any case; what it makes of that is seen by the mark
only. It forgets the order where routes wait for a peer, be it one without a session, for which they wait until a connection
is made or fails (reactor/loop.py, `run`: the signal is rearmed before `_pending_adjribout`), and where it can not read the
file.

What ExaBGP 5.0.15 demands (files are ExaBGP's):

- It blocks while its pipe to us is full (reactor/api/processes.py, `write`), so we read whatever else happens.
- A withdrawal must carry the attributes of the announcement it undoes. Changes wait in buckets, one for each set of
  attributes, and leave bucket by bucket, not in the order they came (rib/outgoing.py, `_update_rib`, `updates`): with
  other attributes a withdrawal can overtake, or be overtaken by, an announcement of the same prefix.
- It sends 25 messages in a turn (reactor/peer.py, `routes_per_iteration`) and sleeps 10 ms between turns while no
  peer has work and its pipe is silent (reactor/loop.py), half-done commands or not. With at most ROUTES_IN_FLIGHT
  routes unanswered, what was acknowledged has left before the next command is read, and that command ends the sleep.
- Answers come in order, but "error" for an unknown command or an end-of-RIB without session overtakes the answers of
  routes (reactor/api/__init__.py, `response`): only route commands are ever sent behind one another.
- After our death it starts us anew with its routes intact (`respawn`), and old answers may still come: `reset`, which
  forgets queued commands, and then `version`, whose answer is unmistakable, make a clean beginning. Then it is asked
  for its routes. (A route refresh would bring the received ones too; but to the peer's marks around them, RFC 7313,
  ExaBGP answers by sending all of ours again: reactor/peer.py, `_main`.)
"""

from __future__ import annotations

import argparse
import json
import os
import re
import selectors
import socket
import sys
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

PROTOCOL = 1
ROUTES_IN_FLIGHT = 23
"""Routes sent to ExaBGP and not answered yet. 23 messages, the end of their generator and the start of the next make
the 25 steps of one turn (reactor/peer.py, `_main`)."""
MAX_QUEUED = 1024
"""Commands of the agent that wait here. The agent keeps far fewer outstanding; one that does not is cut off."""
MAX_LINE = 4 << 20
"""Bytes of one line, from either side."""
MAX_TO_AGENT = 128 << 20
"""Bytes that wait for an agent that does not read, before it is cut off to learn everything anew later."""
MAX_RECEIVED = 200_000
"""Routes remembered from all peers together; more are counted only, and the agent is told how many."""
CHUNK = 1000
"""Prefixes in one line to the agent."""
ANSWER_WITHIN = 10.0
"""Seconds without ExaBGP's answer after which the agent is told that the pipe is sick."""
FIRST_RETRY, LAST_RETRY = 0.02, 0.25
"""Seconds between attempts to reach the agent: the pause doubles from the first to the last."""
READ_SIZE = 1 << 18
FOREVER = "forever"

CONFIGURATION = "show neighbor configuration"
"""Has ExaBGP print the neighbors of the file that it has read last, in the file's own words (bgp/neighbor.py)."""
_IDENTITY = ("local-address", "local-as", "peer-as", "router-id")
"""With the address, what makes a neighbor another one for ExaBGP, with routes of its own (bgp/neighbor.py, `name`)."""
RECALL = "show adj-rib in json"
"""Has ExaBGP tell the routes that it has received, each in a line (reactor/api/command/rib.py)."""
RECALL_PATHS = "show adj-rib in {} extensive"
"""The same of one peer in other words, which have the path identifiers that JSON leaves out (nlri/inet.py, `as_dict`)."""
FAMILIES = ("ipv4/unicast", "ipv6/unicast")
RECEIVED_ATTRIBUTES = ("med", "community", "large-community")
"""What is remembered of a received route: what ownership needs."""
COMMUNITY_NAMES = {
    "no-export": "65535:65281",
    "no-advertise": "65535:65282",
    "no-export-subconfed": "65535:65283",
    "no-peer": "65535:65284",
    "blackhole": "65535:666",
}
"""RFC 1997, RFC 3765 and RFC 7999, named as ExaBGP does (bgp/message/update/attribute/community/initial)."""
_ADDRESS = re.compile(r"[0-9a-fA-F:.]{2,45}", re.ASCII)
_PREFIX = re.compile(r"[0-9a-fA-F:.]{2,45}/[0-9]{1,3}", re.ASCII)
EXTENDED_COMMUNITIES = "attribute [ 0x10 0xC0"
"""How a command says them: the attribute's code, its flags (optional, transitive) and all octets (see `grammar`)."""
_NUMBER = r"\d{1,10}"
_WELL_KNOWN = "|".join(COMMUNITY_NAMES)


def _one_or_more(item: str) -> str:
    return rf"(?:{item}|\[(?: {item})+ \])"


_ATTRIBUTES = re.compile(
    r"next-hop [0-9a-fA-F:.]{2,45}"
    rf"(?: as-path \[(?: {_NUMBER})+ \])?"
    rf"(?: med {_NUMBER})?"
    rf"(?: local-preference {_NUMBER})?"
    rf"(?: community {_one_or_more(rf'(?:{_NUMBER}:{_NUMBER}|{_WELL_KNOWN})')})?"
    rf"(?: {re.escape(EXTENDED_COMMUNITIES)} 0x(?:[0-9a-f]{{16}})+ \])?"
    rf"(?: large-community {_one_or_more(rf'{_NUMBER}:{_NUMBER}:{_NUMBER}')})?",
    re.ASCII,
)
"""What the agent may say goes out with a route, in ExaBGP's order; nothing else of ExaBGP's many words."""
_PRINTED_AS_PATH = re.compile(rf" as-path \(((?: {_NUMBER})+) \)", re.ASCII)
"""A sequence; a command has it between square brackets, and what is between round ones there is a set."""
_ADJ_RIB_LINE = re.compile(r"neighbor (\S+) .*?\bipv[46] unicast (\S+/\d+) (next-hop .+?)\s*", re.ASCII)
"""A line of `show adj-rib out extensive` (reactor/api/command/rib.py)."""
_ADJ_RIB_IN_LINE = re.compile(
    r"neighbor (\S+) .*?\bipv[46] unicast (\S+/\d+)(?: path-information (\S+))? next-hop (\S+)(.*)", re.ASCII
)
_RECALLED = re.compile(r" (med|community|large-community) (\[[^]]*\]|\S+)", re.ASCII)


def say(text: str) -> None:
    """Write a line to standard error, which is ExaBGP's log."""
    print(f"mobility bridge: {text}", file=sys.stderr, flush=True)  # noqa: T201  # there is no other log here


def chunks(items: Iterable[str], size: int) -> Iterator[list[str]]:
    """Cut `items` into lists of at most `size`."""
    part: list[str] = []
    for item in items:
        part.append(item)
        if len(part) == size:
            yield part
            part = []
    if part:
        yield part


@dataclass(slots=True)
class Order:
    """Something ExaBGP was asked, or will be, and what its answer means."""

    line: str
    verb: str
    peer: str = ""
    attributes: str = ""
    prefixes: tuple[str, ...] = ()
    id: int | None = None
    """The agent's number for it; None where nobody waits for the answer."""
    agent: int = 0
    """Which connection of an agent's it came by."""

    @property
    def weight(self) -> int:
        """How much of ROUTES_IN_FLIGHT it takes; what is no route command takes all, and so stays alone."""
        return len(self.prefixes) or ROUTES_IN_FLIGHT


@dataclass(slots=True)
class Session:
    """What is known of one BGP session."""

    state: str = "unknown"
    since: float = 0.0
    """Seconds since the epoch."""
    reason: str = ""
    open: dict[str, Any] | None = None
    """What the peer's last OPEN said: families, nexthop, graceful_restart, asn, router_id, hold_time."""
    heard: list[str] = field(default_factory=list)
    """The families whose end-of-RIB came in this session."""


@dataclass(slots=True)
class Neighbor:
    """A peer as ExaBGP's configuration has it."""

    mark: str = ""
    """Its description."""
    identity: dict[str, str] = field(default_factory=dict)
    families: list[str] = field(default_factory=list)
    adds_paths: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Path:
    """What came with one UPDATE; shared by all its prefixes."""

    next_hop: str
    attributes: dict[str, Any]


@dataclass(slots=True)
class Recalling:
    """What has happened since ExaBGP was asked for the routes that it has received."""

    sessions: set[str] = field(default_factory=set)
    """Peers whose sessions changed: their routes come as news."""
    routes: set[tuple[str, str]] = field(default_factory=set)
    """Peers and routes of which there was news."""
    paths: dict[str, Path] = field(default_factory=dict)
    """What was told so far, by all that it says."""


def _network(prefix: str) -> tuple[bool, int, int]:
    """Return whether `prefix` is IPv6, its address as a number, and its length. Raises ValueError where it is none."""
    address, _, length = prefix.partition("/")
    ipv6 = ":" in address
    try:
        number = int.from_bytes(socket.inet_pton(socket.AF_INET6 if ipv6 else socket.AF_INET, address), "big")
    except OSError:
        raise ValueError(f"{prefix!r} is no prefix") from None
    size = int(length)
    if not 0 <= size <= (128 if ipv6 else 32):
        raise ValueError(f"{prefix!r} is no prefix")
    return ipv6, number, size


class Allowed:
    """The prefixes inside of which received routes matter.

    It is asked for each route of what may be a full table, so it compares numbers: for each length that occurs among
    the prefixes, the leading bits of a route are looked up. Raises ValueError for what is no prefix.
    """

    def __init__(self, prefixes: Iterable[str]) -> None:
        self.prefixes = sorted(set(prefixes))
        tops: dict[bool, dict[int, set[int]]] = {False: {}, True: {}}
        for prefix in self.prefixes:
            ipv6, number, size = _network(prefix)
            shift = (128 if ipv6 else 32) - size
            tops[ipv6].setdefault(shift, set()).add(number >> shift)
        self._tops = {ipv6: tuple(found.items()) for ipv6, found in tops.items()}

    def __contains__(self, key: str) -> bool:
        """Tell whether a received route, as `_key` names it, lies within one of the prefixes."""
        ipv6, number, size = _network(key.partition(" ")[0])
        free = (128 if ipv6 else 32) - size
        return any(free <= shift and number >> shift in tops for shift, tops in self._tops[ipv6])


def route_order(verb: str, peer: str, attributes: str, prefixes: Iterable[str], **more: Any) -> Order:
    """Return the command that announces or withdraws `prefixes`, all of one family, with `attributes` at `peer`.

    The last prefix decides the family of all (configuration/static/__init__.py, `attributes`): mixed, they make an
    UPDATE that ends the session. Raises ValueError for anything that is no address, prefix or attribute.
    """
    prefixes = tuple(prefixes)
    if verb not in ("announce", "withdraw"):
        raise ValueError(f"{verb!r} is neither announce nor withdraw")
    if not _ADDRESS.fullmatch(peer):
        raise ValueError(f"{peer!r} is no peer address")
    if not _ATTRIBUTES.fullmatch(attributes):
        raise ValueError(f"{attributes!r} are no attributes")
    if not 0 < len(prefixes) <= ROUTES_IN_FLIGHT:
        raise ValueError(f"{len(prefixes)} prefixes: from 1 to {ROUTES_IN_FLIGHT} go into a command")
    for prefix in prefixes:
        if not _PREFIX.fullmatch(prefix):
            raise ValueError(f"{prefix!r} is no prefix")
    if len({":" in prefix for prefix in prefixes}) > 1:
        raise ValueError("IPv4 and IPv6 prefixes can not share a command")
    line = f"neighbor {peer} {verb} attributes {attributes} nlri {' '.join(prefixes)}"
    return Order(line, verb, peer, attributes, prefixes, **more)


def as_commanded(printed: str) -> str:
    """Return attributes as a command has them, out of what ExaBGP prints of them."""
    return _PRINTED_AS_PATH.sub(r" as-path [\1 ]", printed)


def _same(before: Neighbor | None, after: Neighbor | None) -> bool:
    """Tell whether a neighbor is still the same to ExaBGP, with the routes that it was told."""
    return before is not None and after is not None and before.identity == after.identity


def understood(opened: dict[str, Any]) -> dict[str, Any]:
    """Return what matters of an OPEN as ExaBGP's JSON has it (capability codes: IANA, RFC 5492)."""
    capabilities = opened.get("capabilities", {})
    return {
        "families": capabilities.get("1", {}).get("families", []),
        "nexthop": capabilities.get("5", {}).get("conversion", []),
        "graceful_restart": capabilities.get("64", {}).get("time"),
        "asn": capabilities.get("65", {}).get("asn4", opened.get("asn")),
        "router_id": opened.get("router_id"),
        "hold_time": opened.get("hold_time"),
    }


class Bridge:
    """All that the bridge knows and decides, without any I/O.

    Whoever drives it hands over lines and the time (`clock`, in seconds, monotonic), sends what is in `to_exabgp`
    and `to_agent`, and drops the agent's connection when `cut` says why.
    """

    def __init__(
        self,
        fail_static_for: float | None,
        clock: Callable[[], float] = time.monotonic,
        allowed: Iterable[str] | None = None,
    ) -> None:
        self.fail_static_for = fail_static_for
        self.clock = clock
        self.name = uuid.uuid4().hex
        self.to_exabgp = bytearray()
        self.to_agent = bytearray()
        self.cut = ""
        self.sessions: dict[str, Session] = {}
        self.book: dict[str, dict[str, str]] = {}
        self.received: dict[str, dict[str, Path]] = {}
        self.allowed = None if allowed is None else Allowed(allowed)
        """Where received routes matter; None: everywhere."""
        self.outside = 0
        """Received routes that were ignored because they do not."""
        self.overflow = 0
        self.odd: Counter[str] = Counter()
        """What ExaBGP said that nobody here understands, by kind."""
        self._recalling: Recalling | None = Recalling()
        self.mark: str | None = None
        """The description that all neighbors of ExaBGP's configuration have; "" where there is none for all."""
        self._neighbors: dict[str, Neighbor] = {}
        self._printed: list[tuple[str, Neighbor]] = []
        self._block = ""
        self._reloading: int | None = None
        self._complete: set[str] = set()
        self._queue: deque[Order] = deque()
        self._asked: deque[Order] = deque()
        self._synced = False
        self._waiting_since = clock()
        self._sick = False
        self._agent = 0
        self._connected = False
        self._greeted = False
        self._alone_since: float | None = clock()
        for line, verb in (
            ("reset\nversion", "version"),
            (CONFIGURATION, "configuration"),
            ("show adj-rib out extensive", "routes"),
            ("show neighbor json", "neighbors"),
            (RECALL, "received"),
        ):
            self._queue.append(Order(line, verb))
        self._send()

    # -- ExaBGP

    def exabgp_says(self, line: str) -> None:
        """Take one line of ExaBGP's: an event, an answer, or what a command printed."""
        if not self._synced:
            # answers to commands of a bridge before us come until our `version` is answered
            self._synced = line.startswith("exabgp ")
            if not line.startswith("{"):
                return
        if line in ("done", "error"):
            self._answered(ok=line == "done")
        elif line.startswith("{"):
            self._event(line)
        elif self._asked and self._asked[0].verb == "configuration":
            self._printed_configuration(line)
        elif self._asked and self._asked[0].verb == "reload":
            pass  # "reload in progress", which says nothing
        elif line.startswith("neighbor ") and self._asked and self._asked[0].verb == "received":
            self._recall_path(line)
        elif line.startswith("neighbor "):
            self._relearn(line)
        elif line.startswith("["):
            self._sessions_up(line)
        elif line:
            self._puzzled("text", line)

    def _puzzled(self, kind: str, line: str) -> None:
        if not self.odd[kind]:
            say(f"ExaBGP says what is not understood here ({kind}; said once): {line[:200]!r}")
        self.odd[kind] += 1

    def _answered(self, *, ok: bool) -> None:
        if not self._asked:
            self._puzzled("answer", "done" if ok else "error")
            return
        order = self._asked.popleft()
        self._waiting_since = self.clock()
        if self._sick:
            self._sick = False
            self._tell({"sick": None})
        if order.prefixes and ok:
            self._enter(order)
        elif order.verb == "received" and not any(each.verb == "received" for each in (*self._asked, *self._queue)):
            self._recalling = None
        elif order.verb == "configuration":
            self._configured(ok=ok)
        elif order.verb == "routes":
            self._reloaded()
        ours = order.id is not None and order.agent == self._agent and self._connected
        if ours and ok:
            self._tell({"done": order.id})
        elif ours:
            self._tell({"error": order.id, "text": "ExaBGP refused it: its log says why"})
        elif not ok:
            say(f"ExaBGP refused: {order.line}")
        self._send()

    def _enter(self, order: Order) -> None:
        book = self.book.setdefault(order.peer, {})
        for prefix in order.prefixes:
            if order.verb == "announce":
                book[prefix] = order.attributes
            else:
                book.pop(prefix, None)
        if order.agent != self._agent or order.id is None:
            # this agent did not order it, so it has to be told
            if order.verb == "announce":
                self._tell({"book": order.peer, "attributes": order.attributes, "prefixes": order.prefixes})
            else:
                self._tell({"unbook": order.peer, "prefixes": order.prefixes})

    def _relearn(self, line: str) -> None:
        found = _ADJ_RIB_LINE.fullmatch(line)
        if found is None:
            self._puzzled("adj-rib", line)
            return
        self.book.setdefault(found[1], {})[found[2]] = as_commanded(found[3])

    def _printed_configuration(self, line: str) -> None:
        words = line.rstrip(" {;").split(" ", 1)
        if line.endswith("{"):
            self._block = words[0]
            if words[0] == "neighbor":
                self._printed.append((words[1], Neighbor()))
        elif not self._printed or len(words) != 2:
            return
        elif self._block == "neighbor" and words[0] == "description":
            self._printed[-1][1].mark = words[1].strip('"')
        elif self._block == "neighbor" and words[0] in _IDENTITY:
            self._printed[-1][1].identity[words[0]] = words[1]
        elif self._block == "family":
            self._printed[-1][1].families.append("/".join(words))
        elif self._block == "add-path":
            self._printed[-1][1].adds_paths = True

    def _configured(self, *, ok: bool) -> None:
        """Take the neighbors that ExaBGP has printed as those that it has."""
        printed, self._printed, self._block = dict(self._printed), [], ""
        if not ok or not printed:
            self.mark = ""
            self._reloaded()
            return
        marks = {neighbor.mark for neighbor in printed.values()}
        last, self.mark = self.mark, marks.pop() if len(marks) == 1 else ""
        before, self._neighbors = self._neighbors, printed
        if last is None:
            self._ask_for_paths()
        if self.mark == last:
            self._reloaded()  # if that was asked for: it was not done
        if self._reloading is None:
            return
        for peer in self.sessions.keys() - printed.keys():
            del self.sessions[peer]
            self.received.pop(peer, None)
        for peer in [peer for peer in self._complete if not _same(before.get(peer), printed.get(peer))]:
            # another neighbor, even if it has the same address: it was told nothing yet
            self._complete.discard(peer)
            if peer in self.sessions and self.sessions[peer].state == "down":
                self.sessions[peer].open = None
        self.book = {}
        self._queue.append(Order("show adj-rib out extensive", "routes"))

    def _reloaded(self) -> None:
        if self._reloading is None:
            return
        number, self._reloading = self._reloading, None
        self._tell_sessions_and_book()
        self._tell({"reloaded": number, "mark": self.mark})

    def _sessions_up(self, line: str) -> None:
        try:
            for neighbor in json.loads(line):
                peer = neighbor["peer"]["address"]
                # its "state" is "down" in a session's first second (bgp/neighbor.py, `as_dict`): "fsm" is right
                session = self._session(peer)
                if neighbor["fsm"] == "ESTABLISHED" and session.state == "unknown":
                    session.state, session.since = "up", time.time() - neighbor["duration"]
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            self._puzzled("neighbors", line)

    def _event(self, line: str) -> None:
        try:
            event = json.loads(line)
            if "route" in event:
                peer, route = event["peer"]["address"], event["route"]
                if peer not in self._neighbors or not self._neighbors[peer].adds_paths:
                    self._recall(peer, route["nlri"], route["attributes"])
                return
            kind = event["type"]
            handler = {"state": self._state, "open": self._opened, "update": self._update}.get(kind)
            if handler is not None:
                handler(event["neighbor"]["address"]["peer"], event["neighbor"], event.get("time"))
            elif kind != "notification":  # ExaBGP's farewell
                self._puzzled(f"type {kind}", line)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            self._puzzled("event", line)

    def _session(self, peer: str) -> Session:
        return self.sessions.setdefault(peer, Session())

    def _state(self, peer: str, event: dict[str, Any], at: object) -> None:
        session = self._session(peer)
        session.state = str(event["state"])
        session.since = float(at) if isinstance(at, int | float) else time.time()
        session.reason = str(event.get("reason", ""))
        session.heard = []
        if self._recalling is not None:
            self._recalling.sessions.add(peer)
        if session.state == "down":
            self.received.pop(peer, None)
        self._tell(self._described(peer))
        if session.state == "up" and peer in self._complete:
            self._end_of_rib(peer)

    def _opened(self, peer: str, event: dict[str, Any], _: object) -> None:
        if event["direction"] == "receive":
            self._session(peer).open = understood(event["open"])
            self._tell(self._described(peer))

    def _described(self, peer: str) -> dict[str, Any]:
        session = self.sessions[peer]
        return {
            "session": peer,
            "state": session.state,
            "since": session.since,
            "reason": session.reason,
            "open": session.open,
            "heard": session.heard,
        }

    def _update(self, peer: str, event: dict[str, Any], _: object) -> None:
        if event["direction"] != "receive":
            return
        message = event["message"]
        if "eor" in message:
            self._session(peer).heard.append(f"{message['eor']['afi']}/{message['eor']['safi']}")
            self._tell(self._described(peer))
            return
        update = message["update"]
        for nlris in update.get("withdraw", {}).values():
            keys = [_key(nlri) for nlri in nlris]
            self._has_news(peer, keys)
            self._unlearn(peer, keys)
        attributes = plain(update.get("attribute", {}))
        for next_hops in update.get("announce", {}).values():
            # with a global and a link-local next hop (RFC 2545) everything is there twice: the global one comes first
            told: set[str] = set()
            for next_hop, nlris in next_hops.items():
                keys = [key for key in map(_key, nlris) if key not in told]
                told.update(keys)
                self._has_news(peer, keys)
                self._learn(peer, Path(next_hop, attributes), keys)

    def _has_news(self, peer: str, keys: list[str]) -> None:
        if self._recalling is not None:
            self._recalling.routes.update((peer, key) for key in keys)

    def _ask_for_paths(self) -> None:
        for peer, neighbor in self._neighbors.items():
            if neighbor.adds_paths and _ADDRESS.fullmatch(peer):
                self._queue.append(Order(RECALL_PATHS.format(peer), "received"))

    def _recall_path(self, line: str) -> None:
        found = _ADJ_RIB_IN_LINE.fullmatch(line.strip())
        if found is None:
            self._puzzled("adj-rib", line)
            return
        peer, prefix, path, next_hop, rest = found.groups()
        attributes: dict[str, Any] = {name: value.strip("[]").split() for name, value in _RECALLED.findall(rest)}
        if "med" in attributes:
            attributes["med"] = int(attributes["med"][0])
        if peer in self._neighbors:  # the words before match others that begin alike
            self._recall(peer, {"prefix": prefix, "path-information": path, "nexthop": next_hop}, attributes)

    def _recall(self, peer: str, nlri: dict[str, Any], attributes: dict[str, Any]) -> None:
        """Take what a session that was up before us had brought, in the words of `show adj-rib in json`.

        ExaBGP tells what it had when it took the command, over many turns (reactor/api/command/rib.py), with news in
        between: news count.
        """
        recalling = self._recalling
        if recalling is not None and peer not in recalling.sessions and self._session(peer).state == "up":
            key = _key({"nlri": nlri["prefix"], "path-information": nlri.get("path-information")})
            if (peer, key) not in recalling.routes:
                # each route comes in a line of its own: what one UPDATE has brought is to be shared here, too
                path = Path(nlri["nexthop"], plain(attributes))
                path = recalling.paths.setdefault(json.dumps([path.next_hop, path.attributes]), path)
                self._learn(peer, path, [key])

    def _learn(self, peer: str, path: Path, keys: list[str]) -> None:
        if self.allowed is not None:
            inside = [key for key in keys if key in self.allowed]
            self._ignored(len(keys) - len(inside))
            keys = inside
        if not keys:
            return
        table = self.received.setdefault(peer, {})
        room = MAX_RECEIVED - sum(len(each) for each in self.received.values())
        taken = []
        for key in keys:
            if key not in table:
                if room <= 0:
                    self._overflowed()
                    continue
                room -= 1
            table[key] = path
            taken.append(key)
        self._tell_received(peer, path, taken)

    def _ignored(self, routes: int) -> None:
        before, self.outside = self.outside, self.outside + routes
        if self.outside.bit_length() != before.bit_length():  # as with the overflow
            self._tell({"outside": self.outside})

    def _overflowed(self) -> None:
        if not self.overflow:
            say(f"more than {MAX_RECEIVED} routes received, the rest is ignored: filter what peers send to this host")
        self.overflow += 1
        if self.overflow & (self.overflow - 1) == 0:  # told at powers of two: a flood of news helps nobody
            self._tell({"overflow": self.overflow})

    def _unlearn(self, peer: str, keys: list[str]) -> None:
        table = self.received.get(peer, {})
        lost = [key for key in keys if table.pop(key, None) is not None]
        for part in chunks(lost, CHUNK):
            self._tell({"lost": peer, "prefixes": part})

    def _tell_received(self, peer: str, path: Path, keys: Iterable[str]) -> None:
        for part in chunks(keys, CHUNK):
            self._tell({"received": peer, "next_hop": path.next_hop, "attributes": path.attributes, "prefixes": part})

    # -- what ExaBGP is asked

    def _send(self) -> None:
        in_flight = sum(order.weight for order in self._asked)
        while self._queue and in_flight + self._queue[0].weight <= ROUTES_IN_FLIGHT:
            order = self._queue.popleft()
            if not self._asked:
                self._waiting_since = self.clock()
            in_flight += order.weight
            self._asked.append(order)
            self.to_exabgp += f"{order.line}\n".encode("ascii")
        if not self._queue and not self._asked:
            self._greet()

    def _end_of_rib(self, peer: str) -> None:
        """Say that everything was said (RFC 4724): behind all commands before it, and ExaBGP lets routes go first."""
        opened = self.sessions[peer].open
        ours = self._neighbors[peer].families if peer in self._neighbors else FAMILIES
        families = [family for family in ours if opened is None or family in opened["families"]]
        for family in families:
            self._queue.append(Order(f"neighbor {peer} announce eor {family.replace('/', ' ')}", "eor", peer))
        self._send()

    # -- the agent

    def agent_came(self) -> None:
        """Note that an agent is connected; it is greeted as soon as ExaBGP has answered what is under way."""
        self._agent += 1
        self._connected, self._greeted = True, False
        self._alone_since = None
        self.cut = ""
        self.to_agent.clear()
        # what an agent before it, or fail static, had still in mind is overtaken by what this one will want
        self._queue = deque(order for order in self._queue if not order.prefixes)
        hello: dict[str, Any] = {"hello": PROTOCOL, "bridge": self.name, "pid": os.getpid(), "exabgp": os.getppid()}
        hello["allowed"] = None if self.allowed is None else self.allowed.prefixes
        self._tell(hello)
        if self._sick:
            self._tell({"sick": self.clock() - self._waiting_since})
        self._send()

    def agent_left(self) -> None:
        """Note that the agent is gone: what it ordered and ExaBGP has not seen is forgotten."""
        self._connected = False
        self._alone_since = self.clock()
        self.to_agent.clear()
        self._queue = deque(order for order in self._queue if not order.prefixes)
        self._send()

    def _greet(self) -> None:
        """Tell the whole truth, once: at a moment when no answer of ExaBGP's is outstanding."""
        if not self._connected or self._greeted:
            return
        self._greeted = True
        self._tell_sessions_and_book()
        for peer, table in self.received.items():
            paths: dict[Path, list[str]] = {}
            for key, path in table.items():
                paths.setdefault(path, []).append(key)
            for path, keys in paths.items():
                self._tell_received(peer, path, keys)
        if self.overflow:
            self._tell({"overflow": self.overflow})
        if self.outside:
            self._tell({"outside": self.outside})
        self._tell({"end": True, "mark": self.mark})

    def _tell_sessions_and_book(self) -> None:
        for peer in self.sessions:
            self._tell(self._described(peer))
        for peer, book in self.book.items():
            groups: dict[str, list[str]] = {}
            for prefix, attributes in book.items():
                groups.setdefault(attributes, []).append(prefix)
            for attributes, prefixes in groups.items():
                for part in chunks(prefixes, CHUNK):
                    self._tell({"book": peer, "attributes": attributes, "prefixes": part})

    def _tell(self, message: dict[str, Any]) -> None:
        # before the greeting only these are news; all else is in the greeting
        if not self._connected or not (self._greeted or "hello" in message or "sick" in message):
            return
        self.to_agent += json.dumps(message, separators=(",", ":")).encode() + b"\n"
        if len(self.to_agent) > MAX_TO_AGENT:
            self.cut = f"it does not read: {len(self.to_agent)} bytes wait for it"

    def agent_says(self, line: str) -> None:
        """Take one line of the agent's. What is no command at all cuts it off; a wrong one is answered `error`."""
        try:
            message = json.loads(line)
            if not isinstance(message, dict):
                raise TypeError("an object was expected")
            if "complete" in message:
                self._completed(message["complete"])
            elif "do" in message:
                self._ordered(message)
            elif "opened" in message:
                self._was_opened(message["opened"], message["open"])
            elif "allowed" in message:
                self._allow(message["allowed"])
            elif "reload" in message:
                self._reload(int(message["reload"]))
            # what a later agent may say in addition is not for us
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            self.cut = f"it says what is no command: {line[:200]!r} ({error})"

    def _allow(self, prefixes: list[str]) -> None:
        if not isinstance(prefixes, list) or not all(isinstance(text, str) for text in prefixes):
            raise TypeError("allowed prefixes are a list of texts")
        allowed = Allowed(prefixes)
        if self.allowed is not None and allowed.prefixes == self.allowed.prefixes:
            return
        self.allowed = allowed
        self.outside = 0
        for table in self.received.values():
            for key in [key for key in table if key not in allowed]:
                del table[key]
        self._recalling = Recalling()
        self._queue.append(Order(RECALL, "received"))
        self._ask_for_paths()
        self.cut = "it allows other prefixes than before, and is told all anew"
        self._send()

    def _reload(self, number: int) -> None:
        if self._reloading is None:
            self._queue.append(Order("reload", "reload"))
            self._queue.append(Order(CONFIGURATION, "configuration"))
        self._reloading = number
        self._send()

    def _was_opened(self, peer: str, opened: dict[str, Any]) -> None:
        if not all(isinstance(text, str) for text in (*opened["families"], *opened["nexthop"])):
            raise TypeError("families and next hops are texts")
        session = self.sessions.get(peer)
        if session is not None and session.open is None:
            session.open = {"families": list(opened["families"]), "nexthop": list(opened["nexthop"])}
            session.open["graceful_restart"] = opened["graceful_restart"]

    def _ordered(self, message: dict[str, Any]) -> None:
        number = int(message["id"])
        try:
            order = route_order(
                message["do"],
                message["peer"],
                message["attributes"],
                message["prefixes"],
                id=number,
                agent=self._agent,
            )
        except (ValueError, TypeError) as error:
            self._tell({"error": number, "text": str(error)})
            return
        if len(self._queue) >= MAX_QUEUED:
            self.cut = f"it has more than {MAX_QUEUED} commands outstanding"
            return
        self._queue.append(order)
        self._send()

    def _completed(self, peer: str) -> None:
        if peer in self._complete or peer not in self.sessions:
            return
        self._complete.add(peer)
        if self.sessions[peer].state == "up":
            self._end_of_rib(peer)

    # -- time

    def tick(self) -> float | None:
        """Do what is due, and return after how many seconds to come back; None: when something happens."""
        now = self.clock()
        due: list[float] = []
        if self._asked and not self._sick:
            due.append(self._waiting_since + ANSWER_WITHIN)
            if now >= due[-1]:
                due.pop()
                self._sick = True
                say(f"ExaBGP has not answered for {ANSWER_WITHIN:g} s: {self._asked[0].line[:200]}")
                self._tell({"sick": now - self._waiting_since})
        busy = self._queue or self._asked
        if self.fail_static_for is not None and self._alone_since is not None and not busy and any(self.book.values()):
            due.append(self._alone_since + self.fail_static_for)
            if now >= due[-1]:
                due.pop()
                say(f"no agent for {self.fail_static_for:g} s: withdrawing everything; start it to announce again")
                self._alone_since = now  # should ExaBGP refuse, the next attempt is as far away
                self._withdraw_everything()
        return max(0.0, min(due) - now) if due else None

    def _withdraw_everything(self) -> None:
        for peer, book in self.book.items():
            groups: dict[tuple[str, bool], list[str]] = {}
            for prefix, attributes in book.items():
                groups.setdefault((attributes, ":" in prefix), []).append(prefix)
            for (attributes, _), prefixes in groups.items():
                if not _ATTRIBUTES.fullmatch(attributes):  # what is learned from ExaBGP may be another process's
                    say(f"not withdrawn, its attributes are none of ours: {' '.join(prefixes)} {attributes}")
                    continue
                for part in chunks(prefixes, ROUTES_IN_FLIGHT):
                    self._queue.append(route_order("withdraw", peer, attributes, part))
        self._send()


def _key(nlri: dict[str, Any] | str) -> str:
    """Return what names a received route: the prefix, with its path identifier where add-path gives one."""
    if isinstance(nlri, str):
        return nlri
    path = nlri.get("path-information")
    return f"{nlri['nlri']} {path}" if path else str(nlri["nlri"])


def plain(attributes: dict[str, Any]) -> dict[str, Any]:
    """Return what matters of a received route's attributes; ExaBGP has two ways to write communities, here is one."""
    kept = {name: attributes[name] for name in RECEIVED_ATTRIBUTES if name in attributes}
    for name in ("community", "large-community"):
        if name in kept:
            kept[name] = [
                COMMUNITY_NAMES.get(each, each) if isinstance(each, str) else ":".join(map(str, each))
                for each in kept[name]
            ]
    return kept


class Lines:
    """Cuts what comes from a pipe or socket into lines."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def add(self, data: bytes) -> list[str]:
        """Return the lines that `data` completes. Raises ValueError where one grows beyond MAX_LINE bytes."""
        self._rest += data
        *lines, last = self._rest.split(b"\n")
        if len(last) > MAX_LINE:
            raise ValueError(f"a line of more than {MAX_LINE} bytes")
        self._rest = last
        return [line.decode("utf-8", "replace").strip() for line in lines]


class Relay:
    """The I/O around a `Bridge`: one thread, one selector, no blocking call but the wait itself."""

    def __init__(self, bridge: Bridge, path: str) -> None:
        self._bridge = bridge
        self._path = path
        self._selector = selectors.DefaultSelector()
        self._input = Lines()
        self._agent: socket.socket | None = None
        self._from_agent = Lines()
        self._retry = FIRST_RETRY
        self._next_try = 0.0

    def run(self) -> None:
        """Relay until ExaBGP closes its end of the pipes."""
        for descriptor in (0, 1):
            os.set_blocking(descriptor, False)
        self._selector.register(0, selectors.EVENT_READ, self._read_exabgp)
        try:
            while True:
                self._connect()
                self._flush()
                for key, _ in self._selector.select(self._pause()):
                    key.data()
        except EOFError:
            return
        finally:
            self._drop("")
            self._selector.close()

    def _pause(self) -> float | None:
        due = self._bridge.tick()
        if self._bridge.to_exabgp or self._bridge.to_agent:  # a tick may have given orders, and told the agent
            self._flush()
        if self._agent is not None:
            return due
        retry = max(0.0, self._next_try - time.monotonic())
        return retry if due is None else min(due, retry)

    def _read_exabgp(self) -> None:
        try:
            data = os.read(0, READ_SIZE)
        except BlockingIOError:
            return
        if not data:
            raise EOFError
        for line in self._input.add(data):
            self._bridge.exabgp_says(line)

    def _connect(self) -> None:
        if self._agent is not None or time.monotonic() < self._next_try:
            return
        link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        link.setblocking(False)
        try:
            link.connect(self._path)
        except OSError:
            # nobody listens yet, or its queue is full: both pass
            link.close()
            self._later()
            return
        self._agent, self._from_agent = link, Lines()
        self._selector.register(link, selectors.EVENT_READ, self._talk_to_agent)
        self._bridge.agent_came()

    def _later(self) -> None:
        self._next_try = time.monotonic() + self._retry
        self._retry = min(self._retry * 2, LAST_RETRY)

    def _talk_to_agent(self) -> None:
        if self._agent is None:
            return
        try:
            data = self._agent.recv(READ_SIZE)
        except BlockingIOError:
            return  # it was woken for writing
        except OSError as error:
            self._drop(f"the connection broke: {error}")
            return
        if not data:
            self._drop("it closed the connection")
            return
        self._retry = FIRST_RETRY
        try:
            for line in self._from_agent.add(data):
                self._bridge.agent_says(line)
        except ValueError as error:
            self._drop(f"it says {error}")

    def _drop(self, why: str) -> None:
        if self._agent is None:
            return
        self._selector.unregister(self._agent)
        self._agent.close()
        self._agent = None
        self._bridge.agent_left()
        self._later()
        if why:
            say(f"the agent is gone, routes stand: {why}")

    def _flush(self) -> None:
        if self._agent is not None and self._bridge.cut:
            self._drop(self._bridge.cut)
        if self._agent is not None:
            try:
                if self._bridge.to_agent:
                    del self._bridge.to_agent[: self._agent.send(self._bridge.to_agent)]
            except BlockingIOError:
                pass  # the selector tells when there is room
            except OSError as error:
                self._drop(f"the connection broke: {error}")
        if self._agent is not None:
            self._watch(self._agent, self._talk_to_agent, writing=bool(self._bridge.to_agent), reading=True)
        try:
            if self._bridge.to_exabgp:
                del self._bridge.to_exabgp[: os.write(1, self._bridge.to_exabgp)]
        except BlockingIOError:
            pass
        except BrokenPipeError as error:
            raise EOFError from error
        self._watch(1, self._flush, writing=bool(self._bridge.to_exabgp), reading=False)

    def _watch(self, what: int | socket.socket, handler: Callable[[], None], *, writing: bool, reading: bool) -> None:
        events = (selectors.EVENT_WRITE if writing else 0) | (selectors.EVENT_READ if reading else 0)
        known = self._selector.get_map().get(what)
        if known is None and events:
            self._selector.register(what, events, handler)
        elif known is not None and not events:
            self._selector.unregister(what)
        elif known is not None and known.events != events:
            self._selector.modify(what, events, handler)


def _seconds(text: str) -> float | None:
    if text == FOREVER:
        return None
    seconds = float(text)
    if seconds <= 0:
        raise argparse.ArgumentTypeError("must be positive")
    return seconds


def main() -> int:
    """Run as ExaBGP's process; returns 0 when ExaBGP is gone."""
    parser = argparse.ArgumentParser(description="Relay between ExaBGP (standard input and output) and the agent.")
    parser.add_argument("--socket", required=True, help="the Unix socket at which the agent listens")
    parser.add_argument("--fail-static-for", type=_seconds, default=None, help=f"seconds, or {FOREVER}")
    parser.add_argument("--allowed", nargs="+", help="prefixes: received routes outside of them are ignored")
    options = parser.parse_args()
    Relay(Bridge(options.fail_static_for, allowed=options.allowed), options.socket).run()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
