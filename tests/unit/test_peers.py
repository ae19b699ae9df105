"""What a [[bgp.peer]] may say, and what of it goes together."""

from __future__ import annotations

from pathlib import Path

import pytest

from mobility import config
from mobility.config import Peer

HEAD = """
[host]
allowed = ["198.51.100.0/24"]
[bgp]
as = 65001
router_id = "10.0.0.1"
[[bgp.peer]]
name = "spine"
as = 65000
"""
IPV6 = 'address = "fd00:1::ff"\nlocal_address = "fd00:1::1"\n'
IPV4 = 'address = "192.0.2.2"\nlocal_address = "192.0.2.1"\n'


def load(folder: Path, text: str) -> Peer:
    path = folder / "mobility.toml"
    path.write_text(HEAD + text)
    (peer,) = config.load(path).bgp.peers
    return peer


def refused(folder: Path, text: str) -> dict[str, str]:
    with pytest.raises(config.ConfigError) as caught:
        load(folder, text)
    return {problem.key.removeprefix("bgp.peer[0]."): problem.remedy for problem in caught.value.problems}


def test_an_ipv6_session_carries_both_families(tmp_path: Path) -> None:
    peer = load(tmp_path, IPV6)
    assert (peer.families, peer.next_hop_ipv6, peer.next_hop_ipv4) == (("ipv4", "ipv6"), "fd00:1::1", None)
    assert peer.ipv6
    assert peer.asks_rfc8950
    assert (peer.hold_time, peer.multihop, peer.ttl_security, peer.add_path) == (180, None, None, False)


def test_an_ipv4_session_carries_ipv4_over_itself(tmp_path: Path) -> None:
    peer = load(tmp_path, IPV4)
    assert (peer.families, peer.next_hop_ipv6, peer.next_hop_ipv4) == (("ipv4",), None, "192.0.2.1")
    assert not peer.asks_rfc8950


def test_an_ipv4_session_carries_ipv6_where_it_has_a_next_hop_for_it(tmp_path: Path) -> None:
    assert load(tmp_path, IPV4 + 'next_hop_ipv6 = "fd00:1::1"').families == ("ipv4", "ipv6")
    assert "set next_hop_ipv6" in refused(tmp_path, IPV4 + 'families = ["ipv4", "ipv6"]')["families"]


def test_an_ipv6_session_for_ipv4_alone_needs_a_next_hop(tmp_path: Path) -> None:
    assert "set next_hop_ipv4" in refused(tmp_path, IPV6 + 'families = ["ipv4"]')["families"]
    peer = load(tmp_path, IPV6 + 'families = ["ipv4"]\nnext_hop_ipv4 = "192.0.2.1"')
    assert not peer.asks_rfc8950
    assert load(tmp_path, IPV6 + 'families = ["ipv6"]').families == ("ipv6",)


@pytest.mark.parametrize(
    ("line", "key", "remedy"),
    [
        ('families = ["ipv5"]', "families", "must be"),
        ("families = []", "families", "each once"),
        ('families = ["ipv4", "ipv4"]', "families", "each once"),
        ('families = "ipv4"', "families", "must be a list"),
        ("multihop = 0", "multihop", "from 1 to 255"),
        ("multihop = 256", "multihop", "from 1 to 255"),
        ("multihop = true", "multihop", "from 1 to 255"),
        ("ttl_security = 0", "ttl_security", "from 1 to 254"),
        ("ttl_security = 255", "ttl_security", "from 1 to 254"),
        ('ttl_security = "yes"', "ttl_security", "true, false or the hops"),
        ("multihop = 2\nttl_security = 2", "multihop", "goes without ttl_security"),
        ("add_path = 1", "add_path", "true or false"),
        ("hold_time = 2", "hold_time", "from 3 to 65535"),
        ("hold_time = 0", "hold_time", "from 3 to 65535"),
        ("hold_time = 65536", "hold_time", "from 3 to 65535"),
        ('next_hop_ipv6 = "fe80::1"', "next_hop_ipv6", "link-local"),
        ('next_hop_ipv6 = "192.0.2.1"', "next_hop_ipv6", "IPv6"),
        ('next_hop_ipv4 = "0.0.0.0"', "next_hop_ipv4", "one machine"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, line: str, key: str, remedy: str) -> None:
    assert remedy in refused(tmp_path, IPV6 + line)[key]


@pytest.mark.parametrize("address", ["fe80::ff", "fe80::ff%em0", "fd00::ff%em0", "fe80::1%a b;}", "169.254.0.1"])
def test_bgp_unnumbered_is_refused_with_the_reason(tmp_path: Path, address: str) -> None:
    found = refused(tmp_path, f'address = "{address}"\nlocal_address = "fd00:1::1"')
    assert "ExaBGP can not say on which link" in found["address"]


@pytest.mark.parametrize("address", ["ff02::1", "::", "0.0.0.0", "224.0.0.1", "::ffff:192.0.2.1"])
def test_what_is_no_machines_address_is_refused(tmp_path: Path, address: str) -> None:
    assert "one machine" in refused(tmp_path, f'address = "{address}"\nlocal_address = "fd00:1::1"')["address"]


def test_both_ends_are_of_one_family(tmp_path: Path) -> None:
    found = refused(tmp_path, 'address = "192.0.2.2"\nlocal_address = "fd00:1::1"\nnext_hop_ipv4 = "192.0.2.1"')
    assert found["local_address"] == "must be an IPv4 address, as 192.0.2.2 is: a session has one family"


def test_hops_are_counted_as_routers_count_them(tmp_path: Path) -> None:
    assert load(tmp_path, IPV6 + "ttl_security = true").ttl_security == 1
    assert load(tmp_path, IPV6 + "ttl_security = false").ttl_security is None
    assert load(tmp_path, IPV6 + "ttl_security = 3").ttl_security == 3
