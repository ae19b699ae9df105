"""The bridge's decisions, with a modelled ExaBGP that answers what it is asked."""

from __future__ import annotations

import json
from collections import deque
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobility.bgp import bridge as module
from mobility.bgp.bridge import ANSWER_WITHIN, PROTOCOL, ROUTES_IN_FLIGHT, Allowed, Bridge, Lines, chunks, plain

PEER = "fd00:1::ff"
TEXT = "next-hop fd00:1::1"
X, Y, Z = "10.0.0.1/32", "10.0.0.2/32", "2001:db8::1/128"


def event(kind: str, **neighbor: Any) -> str:
    return json.dumps(
        {
            "exabgp": "5.0.0",
            "time": 1700000000.5,
            "type": kind,
            "neighbor": {"address": {"local": "fd00:1::1", "peer": PEER}, **neighbor},
        }
    )


OPEN = event(
    "open",
    direction="receive",
    open={
        "asn": 65000,
        "hold_time": 240,
        "router_id": "10.255.0.1",
        "capabilities": {
            "1": {"name": "multiprotocol", "families": ["ipv4/unicast", "ipv6/unicast"]},
            "5": {"name": "nexthop", "conversion": ["ipv4/unicast/ipv6"]},
            "64": {"name": "graceful restart", "time": 120},
        },
    },
)
UP, DOWN = event("state", state="up"), event("state", state="down", reason="notification received (6,2)")


def update(announce: dict[str, Any] | None = None, withdraw: dict[str, Any] | None = None, **attribute: Any) -> str:
    content = {"attribute": attribute, "announce": announce or {}, "withdraw": withdraw or {}}
    return event("update", direction="receive", message={"update": content})


def recalled(prefix: str, **attributes: Any) -> str:
    """Return a line of `show adj-rib in json`."""
    return json.dumps(
        {"peer": {"address": PEER}, "route": {"nlri": {"prefix": prefix, "nexthop": PEER}, "attributes": attributes}}
    )


MARK = "0123456789abcdef"


def printed(peer: str, mark: str = MARK, local: str = "fd00:1::1", *more: str) -> list[str]:
    """Return lines of `show neighbor configuration`, as they come out of `Lines`."""
    return [
        f"neighbor {peer} {{",
        f'description "{mark}";',
        "router-id 10.0.0.1;",
        "host-name None;",
        f"local-address {local};",
        "local-as 65001;",
        "peer-as 65000;",
        "",
        f'md5-ip "{local}";',
        "capability {",
        "asn4 enable;",
        "add-path disable;",
        "}",
        "family {",
        "ipv4 unicast;",
        "ipv6 unicast;",
        "}",
        "nexthop {",
        "ipv4 unicast ipv6;",
        "}",
        "add-path {",
        *more,
        "}",
        "api {",
        "processes [ bridge ];",
        "receive {",
        "parsed;",
        "}",
        "}",
        "}",
    ]


def say_allowed(model: Model, *prefixes: str) -> None:
    model.bridge.agent_says(json.dumps({"allowed": prefixes}))


class Model:
    """A bridge between a modelled ExaBGP and a modelled agent."""

    def __init__(
        self,
        fail_static_for: float | None = None,
        *,
        routes: list[str] | None = None,
        received: list[str] | None = None,
        up: bool = False,
        allowed: list[str] | None = None,
    ) -> None:
        self.now = 1000.0
        self.bridge = Bridge(fail_static_for, lambda: self.now, allowed)
        self.asked: deque[str] = deque()
        self.log: list[str] = []
        self.routes = routes or []
        self.received = received or []
        self.up = up
        self.configuration = printed(PEER)
        self._to_exabgp = Lines()
        self._to_agent = Lines()

    def take(self) -> list[str]:
        """Return what ExaBGP has newly been asked."""
        lines = self._to_exabgp.add(bytes(self.bridge.to_exabgp))
        self.bridge.to_exabgp.clear()
        self.asked.extend(line for line in lines if line != "reset")
        self.log += lines
        return lines

    def answer(self, answer: str = "done") -> None:
        """Answer the oldest thing asked."""
        self.take()
        line = self.asked.popleft()
        if line == "version":
            self.bridge.exabgp_says("exabgp 5.0.15")
        elif line == "show adj-rib out extensive":
            for route in self.routes:
                self.bridge.exabgp_says(route)
        elif line == "show adj-rib in json":
            for route in self.received:
                self.bridge.exabgp_says(route)
        elif line == "show neighbor configuration":
            for each in self.configuration:
                self.bridge.exabgp_says(each)
        elif line == "show neighbor json":
            neighbor = {"peer": {"address": PEER}, "fsm": "ESTABLISHED", "state": "up", "duration": 5}
            self.bridge.exabgp_says(json.dumps([neighbor] * self.up))
        self.bridge.exabgp_says(answer)

    def answer_all(self) -> None:
        self.take()
        while self.asked:
            self.answer()
            self.take()

    def heard(self) -> list[dict[str, Any]]:
        """Return what the agent has newly been told."""
        lines = self._to_agent.add(bytes(self.bridge.to_agent))
        self.bridge.to_agent.clear()
        return [json.loads(line) for line in lines]

    def order(self, number: int, verb: str, *prefixes: str, attributes: str = TEXT) -> None:
        message = {"id": number, "do": verb, "peer": PEER, "attributes": attributes, "prefixes": prefixes}
        self.bridge.agent_says(json.dumps(message))


def ready(fail_static_for: float | None = None, **more: Any) -> Model:
    """Return a bridge that ExaBGP has told everything, and an agent that was told all of it."""
    model = Model(fail_static_for, **more)
    model.answer_all()
    model.bridge.agent_came()
    model.heard()
    model.log.clear()
    return model


def test_the_agent_is_told_the_whole_truth_first() -> None:
    model = Model()
    model.bridge.agent_came()
    assert [message.get("hello") for message in model.heard()] == [PROTOCOL]
    model.answer_all()
    assert model.heard() == [{"end": True, "mark": MARK}]


def test_answers_to_the_bridge_before_us_are_not_ours() -> None:
    model = Model()
    for line in ("done", "error", "done", "neighbor fd00::1 nonsense", OPEN):
        model.bridge.exabgp_says(line)
    model.answer_all()
    assert not model.bridge.odd
    assert PEER in model.bridge.sessions


def test_what_exabgp_still_has_is_learned_from_it() -> None:
    name = f"neighbor {PEER} local-ip fd00:1::1 local-as 65001 peer-as 65000 router-id 10.0.0.1 family-allowed in-open"
    attributes = f"{TEXT} med 5 community [ 65535:0 no-export ] large-community 65000:1:7"
    routes = [f"{name} ipv4 unicast {X} {attributes}", f"{name} ipv6 unicast {Z} {TEXT}"]
    model = Model(routes=routes, up=True)
    model.bridge.agent_came()
    model.answer_all()
    told = model.heard()
    assert {"book": PEER, "attributes": attributes, "prefixes": [X]} in told
    assert {"book": PEER, "attributes": TEXT, "prefixes": [Z]} in told
    (session,) = (message for message in told if "session" in message)
    assert session["state"] == "up"
    assert session["open"] is None
    assert told[-1] == {"end": True, "mark": MARK}


def test_an_order_is_answered_and_booked() -> None:
    model = ready()
    model.order(7, "announce", X, Y)
    assert model.take() == [f"neighbor {PEER} announce attributes {TEXT} nlri {X} {Y}"]
    assert model.bridge.book == {}
    model.answer()
    assert model.heard() == [{"done": 7}]
    assert model.bridge.book == {PEER: {X: TEXT, Y: TEXT}}
    model.order(8, "withdraw", X)
    model.answer()
    assert model.bridge.book == {PEER: {Y: TEXT}}


def test_what_is_refused_is_not_booked() -> None:
    model = ready()
    model.order(1, "announce", X)
    model.order(2, "announce", Y)
    model.answer("error")
    model.answer("done")
    told = model.heard()
    assert [message.get("error") for message in told] == [1, None]
    assert told[1] == {"done": 2}
    assert model.bridge.book == {PEER: {Y: TEXT}}


def test_never_more_routes_under_way_than_exabgp_sends_in_a_turn() -> None:
    model = ready()
    for number in range(40):
        model.order(number, "announce", *(f"10.1.{number}.{host}/32" for host in range(1, 11)))
    while model.take() or model.asked:
        assert sum(line.count("/32") for line in model.asked) <= ROUTES_IN_FLIGHT
        model.answer()
    assert [message["done"] for message in model.heard()] == list(range(40))


def test_an_end_of_rib_is_alone_under_way() -> None:
    """Its `error` would overtake the answers of the routes before it."""
    model = ready()
    for line in (OPEN, UP):
        model.bridge.exabgp_says(line)
    model.order(1, "announce", X)
    model.bridge.agent_says(json.dumps({"complete": PEER}))
    model.order(2, "announce", Y)
    assert len(model.take()) == 1
    model.answer()
    assert model.take() == [f"neighbor {PEER} announce eor ipv4 unicast"]
    model.answer("error")
    assert model.take() == [f"neighbor {PEER} announce eor ipv6 unicast"]
    model.answer()
    model.take()
    assert list(model.asked) == [f"neighbor {PEER} announce attributes {TEXT} nlri {Y}"]
    model.answer()
    assert [message["done"] for message in model.heard() if "done" in message] == [1, 2]


def test_end_of_rib_in_each_session_once_all_was_said_and_not_before() -> None:
    model = ready()
    for line in (OPEN, UP):
        model.bridge.exabgp_says(line)
    assert model.take() == []
    model.bridge.agent_says(json.dumps({"complete": PEER}))
    model.answer_all()
    eor = [line for line in model.log if " eor " in line]
    assert len(eor) == 2
    model.bridge.agent_says(json.dumps({"complete": PEER}))  # said again by an agent that was started again
    model.bridge.agent_left()
    for line in (DOWN, OPEN, UP):
        model.bridge.exabgp_says(line)
    model.answer_all()
    assert [line for line in model.log if " eor " in line] == eor * 2


def test_end_of_rib_only_for_families_that_the_peer_has() -> None:
    model = ready()
    model.bridge.exabgp_says(OPEN.replace('"ipv4/unicast", ', ""))
    model.bridge.exabgp_says(UP)
    model.bridge.agent_says(json.dumps({"complete": PEER}))
    model.answer_all()
    assert model.log == [f"neighbor {PEER} announce eor ipv6 unicast"]


def test_an_agent_that_leaves_takes_its_unsent_orders_along() -> None:
    model = ready()
    model.order(1, "announce", *(f"10.1.0.{host}/32" for host in range(ROUTES_IN_FLIGHT)))
    model.order(2, "announce", X)
    model.take()
    model.bridge.agent_left()
    model.bridge.agent_came()
    assert model.heard()[0]["hello"] == PROTOCOL
    model.answer_all()
    told = model.heard()
    assert sum(len(message["prefixes"]) for message in told if "book" in message) == ROUTES_IN_FLIGHT
    assert not any("done" in message for message in told)
    assert X not in model.bridge.book[PEER]


def test_a_silent_exabgp_is_reported_and_so_is_its_return() -> None:
    model = ready()
    model.order(1, "announce", X)
    model.take()
    assert model.bridge.tick() == pytest.approx(ANSWER_WITHIN)
    model.now += ANSWER_WITHIN
    assert model.bridge.tick() is None
    assert model.heard() == [{"sick": ANSWER_WITHIN}]
    model.bridge.agent_left()
    model.bridge.agent_came()
    assert [next(iter(message)) for message in model.heard()] == ["hello", "sick"]
    model.answer()
    assert {"sick": None} in model.heard()


def test_fail_static_withdraws_with_the_attributes_of_the_announcement() -> None:
    model = ready(60.0)
    other = f"{TEXT} community 65535:0"
    model.order(1, "announce", X)
    model.order(2, "announce", Y, attributes=other)
    model.order(3, "announce", Z)
    model.answer_all()
    model.log.clear()
    assert model.bridge.tick() is None
    model.bridge.agent_left()
    assert model.bridge.tick() == pytest.approx(60)
    model.now += 59.9
    assert model.bridge.tick() == pytest.approx(0.1)
    model.now += 0.2
    model.bridge.tick()
    model.answer_all()
    assert sorted(model.log) == [
        f"neighbor {PEER} withdraw attributes {other} nlri {Y}",
        f"neighbor {PEER} withdraw attributes {TEXT} nlri {X}",
        f"neighbor {PEER} withdraw attributes {TEXT} nlri {Z}",
    ]
    assert model.bridge.book == {PEER: {}}
    assert model.bridge.tick() is None


def test_fail_static_ends_when_the_agent_is_back_in_time() -> None:
    model = ready(60.0)
    model.order(1, "announce", X)
    model.answer_all()
    model.bridge.agent_left()
    model.now += 59
    model.bridge.agent_came()
    model.now += 59
    model.log.clear()
    model.bridge.tick()
    assert model.take() == []


def test_refused_fail_static_is_not_repeated_at_once() -> None:
    model = ready(60.0)
    model.order(1, "announce", X)
    model.answer_all()
    model.bridge.agent_left()
    model.now += 60
    model.bridge.tick()
    model.answer("error")
    assert model.bridge.tick() == pytest.approx(60)
    assert model.take() == []


def test_for_ever_is_for_ever() -> None:
    model = ready(None)
    model.order(1, "announce", X)
    model.answer_all()
    model.bridge.agent_left()
    model.now += 1e9
    assert model.bridge.tick() is None
    assert model.take() == []


def test_received_routes_come_and_go() -> None:
    model = ready()
    for line in (OPEN, UP):
        model.bridge.exabgp_says(line)
    model.heard()
    nlri = [{"nlri": X}, {"nlri": Y, "path-information": "0.0.0.1"}]
    # a global and a link-local next hop (RFC 2545) show as two entries
    announce = {"ipv4 unicast": {PEER: nlri, "fe80::1": nlri}}
    attribute: dict[str, Any] = {"large-community": [[65000, 1, 7]], "med": 5, "aggregator": "x"}
    model.bridge.exabgp_says(update(announce, **attribute))
    expected = {
        "received": PEER,
        "next_hop": PEER,
        "attributes": {"med": 5, "large-community": ["65000:1:7"]},
        "prefixes": [X, f"{Y} 0.0.0.1"],
    }
    assert model.heard() == [expected]
    model.bridge.agent_left()
    model.bridge.agent_came()
    assert expected in model.heard()
    model.bridge.exabgp_says(update(withdraw={"ipv4 unicast": [{"nlri": X}, {"nlri": Z}]}))
    assert model.heard() == [{"lost": PEER, "prefixes": [X]}]
    model.bridge.exabgp_says(DOWN)
    assert model.bridge.received == {}
    assert model.heard()[-1]["reason"] == "notification received (6,2)"


def test_received_routes_are_remembered_from_exabgp() -> None:
    attributes = {"community": ["65001:5", "no-export"], "large-community": ["65000:1:7"]}
    model = ready(up=True, received=[recalled(X, **attributes), recalled(Y, **attributes), recalled(Z)])
    expected = {"community": ["65001:5", "65535:65281"], "large-community": ["65000:1:7"]}
    table = model.bridge.received[PEER]
    assert table[X].attributes == expected
    # one object for what is the same, one line to the agent
    assert table[X] is table[Y]
    assert table[Z] is not table[X]
    model.bridge.exabgp_says(DOWN)
    # nobody asked for it
    model.bridge.exabgp_says(recalled(X))
    assert PEER not in model.bridge.received


def test_news_counts_more_than_what_exabgp_had_when_it_was_asked() -> None:
    """ExaBGP tells its routes over many turns, from a copy made at the first."""
    model = Model(up=True, received=[recalled(X, med=1), recalled(Y, med=1), recalled(Z, med=1)])
    for answers in range(4):
        assert answers == 4 - len(model.bridge._queue)
        model.answer()
    model.take()
    model.bridge.exabgp_says(update(withdraw={"ipv4 unicast": [{"nlri": X}]}))
    model.bridge.exabgp_says(update({"ipv4 unicast": {PEER: [{"nlri": Y}]}}, med=2))
    model.answer_all()
    table = model.bridge.received[PEER]
    assert {key: path.attributes["med"] for key, path in table.items()} == {Y: 2, Z: 1}


def test_a_session_that_came_anew_meanwhile_tells_its_routes_itself() -> None:
    model = Model(up=True, received=[recalled(X)])
    for line in (DOWN, UP, update({"ipv6 unicast": {PEER: [{"nlri": Z}]}})):
        model.bridge.exabgp_says(line)
    model.answer_all()
    assert list(model.bridge.received[PEER]) == [Z]


INSIDE = ["10.0.0.0/31", "2001:db8::/32"]


def test_routes_outside_of_what_is_allowed_are_counted_only() -> None:
    model = ready(up=True, allowed=INSIDE, received=[recalled(X), recalled(Y), recalled(Z)])
    assert list(model.bridge.received[PEER]) == [X, Z]
    announce = {"ipv4 unicast": {PEER: [{"nlri": X}, {"nlri": Y}, {"nlri": Y, "path-information": "0.0.0.1"}]}}
    model.bridge.exabgp_says(update(announce))
    model.bridge.exabgp_says(update({"ipv6 unicast": {PEER: [{"nlri": "::/0"}]}}))
    told = model.heard()
    assert [message["prefixes"] for message in told if "received" in message] == [[X]]
    # at powers of two: 1 was before the agent came
    assert [message["outside"] for message in told if "outside" in message] == [3, 4]
    assert model.bridge.outside == 4
    # a withdrawal of what was never kept is no news
    model.bridge.exabgp_says(update(withdraw={"ipv4 unicast": [{"nlri": Y}]}))
    assert model.heard() == []
    model.bridge.agent_left()
    model.bridge.agent_came()
    greeting = model.heard()
    assert greeting[0]["allowed"] == INSIDE
    assert {"outside": 4} in greeting


def test_other_prefixes_are_allowed_and_all_is_told_anew() -> None:
    model = ready(up=True, allowed=["10.0.0.0/31"], received=[recalled(X), recalled(Y), recalled(Z)])
    assert list(model.bridge.received[PEER]) == [X]
    say_allowed(model, "10.0.0.0/31")
    assert (model.take(), model.bridge.cut) == ([], "")
    say_allowed(model, "10.0.0.2/32", "2001:db8::/32")
    assert "other prefixes" in model.bridge.cut
    model.bridge.agent_left()
    model.bridge.agent_came()
    assert [list(message) for message in model.heard()] == [["hello", "bridge", "pid", "exabgp", "allowed"]]
    model.answer_all()
    told = [message["prefixes"] for message in model.heard() if "received" in message]
    assert told == [[Y, Z]]
    assert list(model.bridge.received[PEER]) == [Y, Z]
    # what comes from now on is news as ever
    model.bridge.exabgp_says(recalled(X))
    model.bridge.exabgp_says(update({"ipv4 unicast": {PEER: [{"nlri": X}]}}))
    assert list(model.bridge.received[PEER]) == [Y, Z]


def test_allowed_prefixes_change_twice_before_exabgp_answers() -> None:
    model = ready(up=True, received=[recalled(X), recalled(Y)])
    for allowed in (Y, X):
        say_allowed(model, allowed)
    model.answer()
    model.answer()
    assert list(model.bridge.received[PEER]) == [X]
    say_allowed(model, X, Y)
    say_allowed(model, Y)
    say_allowed(model, X, Y)
    model.answer_all()
    assert sorted(model.bridge.received[PEER]) == [X, Y]


@given(st.lists(st.ip_addresses(), max_size=20), st.data())
def test_what_is_allowed_is_what_ipaddress_says(
    addresses: list[IPv4Address | IPv6Address], data: st.DataObject
) -> None:
    def network(at: IPv4Address | IPv6Address) -> IPv4Network | IPv6Network:
        return ip_network((at, data.draw(st.integers(0, at.max_prefixlen))), strict=False)

    networks = [network(at) for at in addresses]
    allowed = Allowed(map(str, networks))
    inner = [network(net[data.draw(st.integers(0, net.num_addresses - 1))]) for net in networks]
    for route in [*networks, *inner, network(data.draw(st.ip_addresses()))]:
        within = any(route.version == net.version and route.subnet_of(net) for net in networks)  # type: ignore[arg-type]
        assert (str(route) in allowed) == within
        assert (f"{route} 0.0.0.1" in allowed) == within


@pytest.mark.parametrize(
    "wrong", ["", "10.0.0.1", "10.0.0.0/33", "10.0.0.0/-1", "::/129", "a/8", "10.0.0.0/8/8", "10/8"]
)
def test_what_is_no_prefix_is_not_allowed(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"no prefix|invalid literal"):
        Allowed([wrong])


def test_a_session_is_known_to_be_up_though_news_of_it_came_first() -> None:
    """Seen: the peer's end-of-RIB between the start of a new bridge and the answer to `show neighbor json`."""
    model = Model(up=True)
    heard = event("update", direction="receive", message={"eor": {"afi": "ipv6", "safi": "unicast"}})
    model.bridge.exabgp_says(heard)
    model.answer_all()
    assert model.bridge.sessions[PEER].state == "up"
    assert model.bridge.sessions[PEER].heard == ["ipv6/unicast"]


def test_a_session_that_went_down_meanwhile_stays_down() -> None:
    model = Model(up=True)
    model.bridge.exabgp_says(DOWN)
    model.answer_all()
    assert model.bridge.sessions[PEER].state == "down"


def test_received_routes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_RECEIVED", 3)
    model = ready()
    model.bridge.exabgp_says(UP)
    model.heard()
    nlri = [{"nlri": f"10.0.0.{number}/32"} for number in range(5)]
    model.bridge.exabgp_says(update({"ipv4 unicast": {PEER: nlri}}))
    assert len(model.bridge.received[PEER]) == 3
    assert model.heard() == [
        {"overflow": 1},
        {"overflow": 2},
        {
            "received": PEER,
            "next_hop": PEER,
            "attributes": {},
            "prefixes": ["10.0.0.0/32", "10.0.0.1/32", "10.0.0.2/32"],
        },
    ]


def test_end_of_rib_from_the_peer_is_told() -> None:
    model = ready()
    model.bridge.exabgp_says(UP)
    model.bridge.exabgp_says(event("update", direction="receive", message={"eor": {"afi": "ipv4", "safi": "unicast"}}))
    assert model.heard()[-1]["heard"] == ["ipv4/unicast"]


def test_an_agent_that_does_not_read_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_TO_AGENT", 1000)
    model = ready()
    for _ in range(20):
        model.bridge.exabgp_says(UP)
    assert "does not read" in model.bridge.cut


def test_an_agent_that_floods_is_cut_off() -> None:
    model = ready()
    for number in range(module.MAX_QUEUED + ROUTES_IN_FLIGHT + 1):
        model.order(number, "announce", X)
    assert "outstanding" in model.bridge.cut


@pytest.mark.parametrize(
    "line",
    ["", "x", "[]", "7", '{"do": "announce"}', '{"id": {}, "do": "announce"}', "null", "[" * 9999, '{"reload": []}'],
)
def test_an_agent_that_speaks_no_sense_is_cut_off(line: str) -> None:
    model = ready()
    model.bridge.agent_says(line)
    assert "what is no command" in model.bridge.cut
    assert model.take() == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"do": "shutdown"},
        {"peer": "fd00::1 shutdown"},
        {"attributes": "next-hop ::1\nshutdown"},
        {"prefixes": ["10.0.0.1/32; shutdown"]},
        {"prefixes": []},
        {"prefixes": 7},
        {"peer": None},
    ],
)
def test_a_wrong_order_is_refused_here(wrong: dict[str, Any]) -> None:
    model = ready()
    order = {"id": 1, "do": "announce", "peer": PEER, "attributes": TEXT, "prefixes": [X], **wrong}
    model.bridge.agent_says(json.dumps(order))
    assert model.heard()[0]["error"] == 1
    assert model.take() == []
    assert not model.bridge.cut


def test_what_exabgp_never_said_before_is_counted_and_survived() -> None:
    model = ready()
    half = OPEN[: len(OPEN) // 2]
    for line in (
        half,
        "{}",
        event("negotiated", negotiated={}),
        event("surprise"),
        event("surprise"),
        '{"type": "notification", "notification": "shutdown"}',
        "shutdown",
        "[",
        "neighbor of mine",
        "done",
        "",
        event("update", direction="receive", message=7),
    ):
        model.bridge.exabgp_says(line)
    assert model.bridge.odd["type surprise"] == 2
    assert model.bridge.odd["answer"] == 1
    assert model.bridge.odd["event"] == 3
    model.order(1, "announce", X)
    model.answer()
    assert {"done": 1} in model.heard()


def cut(text: str) -> st.SearchStrategy[str]:
    return st.integers(0, len(text)).map(lambda end: text[:end])


@given(st.text() | st.sampled_from([OPEN, UP, DOWN]).flatmap(cut))
@settings(max_examples=200)
def test_no_line_of_exabgps_ends_the_bridge(line: str) -> None:
    model = ready()
    model.bridge.exabgp_says(line)
    model.bridge.tick()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(["state", "open", "update", "x"]), JSON, JSON)
@settings(max_examples=200)
def test_no_event_of_exabgps_ends_the_bridge(kind: str, message: Any, peer: Any) -> None:
    model = ready()
    for content in ({"direction": "receive", "message": message, "open": message, "state": message}, message):
        model.bridge.exabgp_says(
            json.dumps({"type": kind, "neighbor": {"address": {"peer": PEER}, **(content or {})}})
            if isinstance(content, dict)
            else json.dumps({"type": kind, "neighbor": content})
        )
    model.bridge.exabgp_says(json.dumps({"type": kind, "neighbor": {"address": {"peer": peer}, "state": "up"}}))
    model.bridge.tick()


@given(st.lists(st.binary(min_size=1).map(lambda data: data.replace(b"\n", b" ")), min_size=1), st.integers(1, 7))
def test_lines_survive_being_cut(lines: list[bytes], size: int) -> None:
    stream = b"".join(line + b"\n" for line in lines)
    reader = Lines()
    found = [line for start in range(0, len(stream), size) for line in reader.add(stream[start : start + size])]
    assert found == [line.decode("utf-8", "replace").strip() for line in lines]


def test_a_line_without_end_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_LINE", 100)
    reader = Lines()
    reader.add(b"x" * 100)
    with pytest.raises(ValueError, match="more than 100 bytes"):
        reader.add(b"x")


@given(st.lists(st.text(max_size=3)), st.integers(1, 5))
def test_chunks_lose_nothing(items: list[str], size: int) -> None:
    parts = list(chunks(items, size))
    assert [item for part in parts for item in part] == items
    assert all(0 < len(part) <= size for part in parts)


def test_communities_are_written_in_one_way() -> None:
    events = {"community": [[65001, 5], [65535, 65281]], "large-community": [[1, 2, 3]], "origin": "igp"}
    shown = {"community": ["65001:5", "no-export"], "large-community": ["1:2:3"]}
    assert plain(events) == plain(shown)
