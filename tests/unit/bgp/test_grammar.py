"""Our words for ExaBGP, held against ExaBGP's own parser."""

from __future__ import annotations

import ipaddress

import pytest
from exabgp.bgp.message.update.attribute.community.extended import ExtendedCommunity
from exabgp.configuration.configuration import Configuration
from hypothesis import given, settings
from hypothesis import strategies as st
from netaddr import IPNetwork

from mobility.bgp.bridge import ROUTES_IN_FLIGHT, Bridge, as_commanded, route_order
from mobility.bgp.grammar import MAX_PREPEND, attributes_text, extended_community, lines, prefix_text
from mobility.model import Attributes

NUMBER_16, NUMBER_32 = st.integers(0, 2**16 - 1), st.integers(0, 2**32 - 1)
COMMUNITIES = st.tuples(NUMBER_16, NUMBER_16).map(lambda pair: "{}:{}".format(*pair)) | st.sampled_from(
    ["65535:0", "65535:65281", "65535:65282", "65535:65283", "65535:65284", "65535:666"]
)
LARGE = st.tuples(NUMBER_32, NUMBER_32, NUMBER_32).map(lambda triple: "{}:{}:{}".format(*triple))
ADDRESSES = st.ip_addresses(v=4).map(str)
EXTENDED = (
    st.builds("{}:{}:{}".format, st.sampled_from(["target", "origin"]), NUMBER_16, NUMBER_32)
    | st.builds("{}:{}:{}".format, st.sampled_from(["target", "origin"]), ADDRESSES | NUMBER_32, NUMBER_16)
    | st.builds("bandwidth:{}:{}".format, NUMBER_16, NUMBER_32)
    | st.binary(min_size=8, max_size=8).map(lambda octets: f"0x{octets.hex()}")
)
OWN_AS = st.none() | st.integers(1, 2**32 - 1)
ATTRIBUTES = st.builds(
    Attributes,
    communities=st.lists(COMMUNITIES, max_size=5).map(tuple),
    large_communities=st.lists(LARGE, max_size=5).map(tuple),
    med=st.none() | NUMBER_32,
    local_preference=st.none() | NUMBER_32,
    extended_communities=st.lists(EXTENDED, max_size=40).map(tuple),
    prepend=st.integers(0, MAX_PREPEND),
)
IPV4 = st.ip_addresses(v=4)


def _plain(address: object) -> bool:
    """Leave out what holds an IPv4 address: text forms differ between libraries, and no jail has one."""
    return isinstance(address, ipaddress.IPv6Address) and int(address) >> 48 != 0


IPV6 = st.ip_addresses(v=6).filter(_plain)


def understood(line: str) -> list[str]:
    """Return what ExaBGP makes of an announcement: one route a line, in its own words, as the bridge reads them."""
    return [as_commanded(each) for each in printed(line)]


def printed(line: str) -> list[str]:
    """Return what ExaBGP makes of an announcement: one route a line, in its own words."""
    parser = Configuration([])
    assert parser.partial("static", line.split(" announce ", 1)[1]), str(parser.error)
    parser.scope.to_context()
    return [change.extensive() for change in parser.scope.pop_routes()]


@given(ATTRIBUTES, OWN_AS, IPV6, st.lists(IPV6, min_size=1, max_size=ROUTES_IN_FLIGHT, unique=True))
@settings(deadline=None, max_examples=60)
def test_exabgp_says_ipv6_routes_in_the_same_words(
    attributes: Attributes,
    own_as: int | None,
    next_hop: ipaddress.IPv6Address,
    addresses: list[ipaddress.IPv6Address],
) -> None:
    text = attributes_text(str(next_hop), attributes, own_as)
    prefixes = [prefix_text(IPNetwork(f"{address}/128")) for address in addresses]
    (line,) = lines("announce", "fd00:1::ff", text, prefixes)
    assert understood(line) == [f"{prefix} {text}" for prefix in prefixes]


@given(ATTRIBUTES, OWN_AS, IPV6 | IPV4, st.lists(IPV4, min_size=1, max_size=ROUTES_IN_FLIGHT, unique=True))
@settings(deadline=None, max_examples=60)
def test_exabgp_says_ipv4_routes_in_the_same_words(
    attributes: Attributes,
    own_as: int | None,
    next_hop: ipaddress.IPv4Address | ipaddress.IPv6Address,
    addresses: list[ipaddress.IPv4Address],
) -> None:
    text = attributes_text(str(next_hop), attributes, own_as)
    prefixes = [prefix_text(IPNetwork(f"{address}/32")) for address in addresses]
    (line,) = lines("announce", "fd00:1::ff", text, prefixes)
    assert understood(line) == [f"{prefix} {text}" for prefix in prefixes]


@given(ATTRIBUTES, OWN_AS)
@settings(deadline=None, max_examples=60)
def test_a_bridge_that_starts_anew_reads_what_was_written(attributes: Attributes, own_as: int | None) -> None:
    text = attributes_text("fd00:1::1", attributes, own_as)
    (line,) = lines("announce", "fd00:1::ff", text, ["2001:db8::1/128"])
    bridge = Bridge(None)
    bridge.exabgp_says("exabgp 5.0.15")
    for _ in range(2):  # what it had announced before that was already withdrawn, or not
        for each in printed(line):
            bridge.exabgp_says(f"neighbor fd00:1::ff local-ip fd00:1::1 ipv6 unicast {each}")
    assert bridge.book == {"fd00:1::ff": {"2001:db8::1/128": text}}
    assert not bridge.odd


@pytest.mark.parametrize(
    ("text", "octets"),
    [
        ("target:65000:7", "0002fde800000007"),  # RFC 4360, section 3.1
        ("target:192.0.2.1:7", "0102c00002010007"),  # RFC 4360, section 3.2
        ("target:4200000000:7", "0202fa56ea000007"),  # RFC 5668, section 2
        ("origin:65000:4294967295", "0003fde8ffffffff"),
        ("origin:192.0.2.1:65535", "0103c0000201ffff"),
        ("bandwidth:65000:125000000", "4004fde84cee6b28"),  # as IEEE 754 has it, 32 bits
        ("0x4300000000000001", "4300000000000001"),
    ],
)
def test_extended_communities_are_the_octets_of_the_rfcs(text: str, octets: str) -> None:
    assert extended_community(text).hex() == octets


@given(ADDRESSES | NUMBER_32, NUMBER_16)
def test_exabgp_reads_our_octets_as_we_mean_them(administrator: object, local: int) -> None:
    text = f"target:{administrator}:{local}"
    assert str(ExtendedCommunity.unpack(extended_community(text))) == text


@pytest.mark.parametrize(
    "text",
    [
        "target:65000:4294967296",
        "target:65536:65536",
        "target:4294967296:7",
        "target:192.0.2.1:65536",
        "target:192.0.2.256:7",
        "target:192.0.2.01:7",
        "target:65000",
        "route:65000:7",
        "bandwidth:65536:1",
        "bandwidth:65000:1" + "0" * 39,
        "0x43000000000001",
        "target:65000:7 ]",
        "target:65000:7\n",
        "target:\u0661:7",
        "",
    ],
)
def test_what_is_no_extended_community_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no extended community"):
        extended_community(text)


def test_the_path_is_our_as_once_more_than_prepended() -> None:
    assert attributes_text("::1", Attributes(prepend=2), 65001) == "next-hop ::1 as-path [ 65001 65001 65001 ]"
    assert attributes_text("::1", Attributes(), 65001) == "next-hop ::1"


def test_an_ibgp_peer_is_told_no_path_of_ours() -> None:
    assert attributes_text("::1", Attributes(prepend=2)) == "next-hop ::1"


def test_order_and_repetition_of_communities_do_not_matter() -> None:
    one = Attributes(communities=("65001:5", "65001:4"), large_communities=("1:2:3", "1:2:2"))
    two = Attributes(communities=("65001:4", "65001:5", "65001:4"), large_communities=("1:2:2", "1:2:3"))
    assert attributes_text("::1", one) == attributes_text("::1", two)


@pytest.mark.parametrize(
    "attributes",
    [
        Attributes(communities=("65536:0",)),
        Attributes(communities=("no-export",)),
        Attributes(communities=("1:2\nshutdown",)),
        Attributes(communities=("1:2 ] nlri 0.0.0.0/0",)),
        Attributes(communities=("\u0661:\u0662",)),  # digits, but not ours
        Attributes(large_communities=("1:2",)),
        Attributes(large_communities=("4294967296:0:0",)),
        Attributes(med=-1),
        Attributes(local_preference=2**32),
        Attributes(prepend=-1),
        Attributes(prepend=MAX_PREPEND + 1),
        Attributes(extended_communities=("target:65000:7 ] nlri 0.0.0.0/0",)),
    ],
)
def test_what_is_no_attribute_reaches_no_line(attributes: Attributes) -> None:
    with pytest.raises(ValueError, match=r"is no|are no|more than 32 bits"):
        attributes_text("::1", attributes)


@pytest.mark.parametrize("next_hop", ["self", "", "fe80::1%em0 nlri 0.0.0.0/0", "10.0.0"])
def test_what_is_no_next_hop_reaches_no_line(next_hop: str) -> None:
    with pytest.raises(ValueError, match="does not appear to be"):
        attributes_text(next_hop, Attributes())


@pytest.mark.parametrize(
    ("peer", "attributes", "prefixes"),
    [
        ("fd00::1 shutdown", "next-hop ::1", ["10.0.0.1/32"]),
        ("fd00::1", "next-hop self", ["10.0.0.1/32"]),
        ("fd00::1", "next-hop ::1\n", ["10.0.0.1/32"]),
        ("fd00::1", "next-hop ::1 ; shutdown", ["10.0.0.1/32"]),
        ("fd00::1", "next-hop ::1 split", ["10.0.0.1/32"]),
        ("fd00::1", "next-hop ::1 withdraw", ["10.0.0.1/32"]),
        ("fd00::1", "next-hop ::1 as-path ( 65001 )", ["10.0.0.1/32"]),
        ("fd00::1", "next-hop ::1 attribute [ 0x0e 0x80 0x00 ]", ["10.0.0.1/32"]),
        ("fd00::1", "next-hop ::1 med 1 med 2", ["10.0.0.1/32"]),
        ("fd00::1", "next-hop ::1", ["10.0.0.1"]),
        ("fd00::1", "next-hop ::1", ["10.0.0.1/32 next-hop ::2"]),
        ("fd00::1", "next-hop ::1", ["10.0.0.1/32", "2001:db8::1/128"]),
        ("fd00::1", "next-hop ::1", []),
        ("fd00::1", "next-hop ::1", ["10.0.0.1/32"] * (ROUTES_IN_FLIGHT + 1)),
    ],
)
def test_the_bridge_checks_every_word_again(peer: str, attributes: str, prefixes: list[str]) -> None:
    with pytest.raises(ValueError, match=r"."):
        route_order("announce", peer, attributes, prefixes)


@given(st.text(max_size=40), st.text(max_size=40), st.text(max_size=40), st.text(max_size=40))
def test_no_text_makes_a_second_command(verb: str, peer: str, attributes: str, prefix: str) -> None:
    try:
        line = route_order(verb, peer, attributes, [prefix]).line
    except ValueError:
        return
    assert "\n" not in line


def test_families_never_share_a_command() -> None:
    prefixes = ["10.0.0.1/32", "2001:db8::1/128", "10.0.0.2/32"]
    assert lines("withdraw", "fd00:1::ff", "next-hop ::1", prefixes) == [
        "neighbor fd00:1::ff withdraw attributes next-hop ::1 nlri 10.0.0.1/32 10.0.0.2/32",
        "neighbor fd00:1::ff withdraw attributes next-hop ::1 nlri 2001:db8::1/128",
    ]
