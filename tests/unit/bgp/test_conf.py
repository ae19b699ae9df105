"""ExaBGP's configuration, read by ExaBGP's own parser."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from exabgp.configuration.configuration import Configuration

from mobility import config
from mobility.bgp import conf

TEXT = f"""
[host]
allowed = ["198.51.100.0/24"]
[paths]
run = "/var/run/mobility"
[bgp]
as = 4200000001
router_id = "10.0.0.1"
graceful_restart = 90
fail_static_for = 600
bridge_command = ["{sys.executable}", "-I", "/usr/local/lib/bridge.py"]
[[bgp.peer]]
name = "spine1"
address = "fd00:1::ff"
as = 65000
local_address = "fd00:1::1"
password = "a#b(c),$d"
port = 1179
[[bgp.peer]]
name = "spine2"
address = "fd00:2::ff"
as = 65000
local_address = "fd00:2::1"
"""


@pytest.fixture
def loaded(tmp_path: Path) -> config.Config:
    path = tmp_path / "mobility.toml"
    path.write_text(TEXT)
    return config.load(path)


def parsed(text: str) -> Any:
    configuration = Configuration([text], text=True)
    assert configuration.reload(), str(configuration.error)
    return configuration


def test_exabgp_understands_it_as_meant(loaded: config.Config) -> None:
    read = parsed(conf.render(loaded))
    one, two = read.neighbors.values()
    assert str(one["peer-address"]) == "fd00:1::ff"
    assert str(one["local-address"]) == "fd00:1::1"
    assert (int(one["local-as"]), int(one["peer-as"])) == (4200000001, 65000)
    assert (one["md5-password"], one["connect"]) == ("a#b(c),$d", 1179)
    assert (two["md5-password"], two["connect"]) == (None, 179)
    for neighbor in (one, two):
        assert not neighbor["passive"]
        assert neighbor["manual-eor"]
        assert neighbor["adj-rib-out"]
        assert neighbor["adj-rib-in"]
        assert neighbor["capability"]["graceful-restart"] == 90
        assert [(str(a), str(s)) for a, s in neighbor.families()] == [("ipv4", "unicast"), ("ipv6", "unicast")]
        assert [tuple(map(str, each)) for each in neighbor.nexthops()] == [("ipv4", "unicast", "ipv6")]
        for event in ("neighbor-changes", "receive-parsed", "receive-open", "receive-update"):
            assert neighbor.api[event] == ["bridge"], event
        for event in ("negotiated", "receive-notification", "receive-packets", "send-update"):
            assert neighbor.api[event] == [], event
    process = read.processes["bridge"]
    assert process["encoder"] == "json"
    assert process["respawn"]
    assert process["run"] == conf.bridge_command(loaded)
    assert process["run"][-4:] == ["--socket", "/var/run/mobility/bridge/bridge.sock", "--fail-static-for", "600"]
    assert process["run"][-6:-4] == ["--allowed", "198.51.100.0/24"]


def test_no_graceful_restart_is_none(loaded: config.Config) -> None:
    read = parsed(conf.render(replace(loaded, bgp=replace(loaded.bgp, graceful_restart=0))))
    assert all(neighbor["capability"]["graceful-restart"] is False for neighbor in read.neighbors.values())


def test_for_ever_is_said(loaded: config.Config) -> None:
    assert conf.bridge_command(replace(loaded, bgp=replace(loaded.bgp, fail_static_for=None)))[-1] == "forever"


@pytest.mark.parametrize("word", ["a b", 'x"', "y;", "{z}", "a\nb", "", "a,b", "[c]", "ü"])
def test_what_exabgp_would_cut_in_pieces_is_refused(loaded: config.Config, word: str) -> None:
    with pytest.raises(conf.ConfError, match="can not stand in ExaBGP's configuration"):
        conf.render(replace(loaded, bgp=replace(loaded.bgp, bridge_command=("/bin/true", word))))


def test_the_bridges_program_needs_its_whole_path(loaded: config.Config) -> None:
    with pytest.raises(conf.ConfError, match="absolute path"):
        conf.render(replace(loaded, bgp=replace(loaded.bgp, bridge_command=("python3",))))


def test_every_variable_is_one_of_exabgps(loaded: config.Config) -> None:
    from exabgp.environment.setup import CONFIGURATION

    environment = conf.environment(loaded)
    assert environment.pop("EXABGP_ENVFILE") == "/var/run/mobility/exabgp.env"
    for name, value in environment.items():
        _, section, option = name.split(".")
        read = CONFIGURATION[section][option]["read"]
        if option != "user":  # a user of that name need not exist here
            read(value)


def neighbors(folder: Path, *peers: str) -> list[Any]:
    """Return the neighbors that ExaBGP reads where mobility.toml has these peers."""
    return list(parsed(conf.render(with_peers(folder, *peers))).neighbors.values())


def with_peers(folder: Path, *peers: str) -> config.Config:
    path = folder / "mobility.toml"
    head = TEXT.split("[[bgp.peer]]")[0]
    tables = [f'[[bgp.peer]]\nname = "p{number}"\nas = 65000\n{peer}\n' for number, peer in enumerate(peers)]
    path.write_text(head + "".join(tables))
    return config.load(path)


IPV6 = 'address = "fd00:1::ff"\nlocal_address = "fd00:1::1"\n'
IPV4 = 'address = "192.0.2.2"\nlocal_address = "192.0.2.1"\n'


def families(neighbor: Any) -> list[str]:
    return [str(afi) for afi, _ in neighbor.families()]


def test_an_ipv4_session_next_to_an_ipv6_one(tmp_path: Path) -> None:
    old, new = neighbors(tmp_path, IPV4, IPV6)
    assert (str(old["peer-address"]), str(old["local-address"])) == ("192.0.2.2", "192.0.2.1")
    assert families(old) == ["ipv4"]
    assert old.nexthops() == []
    assert not old["capability"]["nexthop"]
    assert families(new) == ["ipv4", "ipv6"]
    assert len(new.nexthops()) == 1
    (both,) = neighbors(tmp_path, IPV4 + 'next_hop_ipv6 = "fd00:1::1"')
    assert families(both) == ["ipv4", "ipv6"]
    assert both.nexthops() == []


def test_hops(tmp_path: Path) -> None:
    plain, far, near, further = neighbors(
        tmp_path,
        IPV4,
        IPV6 + "multihop = 3",
        'address = "192.0.2.3"\nlocal_address = "192.0.2.1"\nttl_security = true',
        'address = "192.0.2.4"\nlocal_address = "192.0.2.1"\nttl_security = 3',
    )
    assert [(each["outgoing-ttl"], each["incoming-ttl"]) for each in (plain, far, near, further)] == [
        (None, None),
        (3, None),
        (255, 255),
        (255, 253),  # as BIRD and FRR count: two routers in between
    ]


def test_freebsd_checks_the_hops_of_ipv4_only(tmp_path: Path) -> None:
    config_ = with_peers(tmp_path, IPV4 + "ttl_security = true", IPV6 + "ttl_security = true")
    assert [conf.checks_hops(peer, "freebsd14") for peer in config_.bgp.peers] == [True, False]
    assert all(conf.checks_hops(peer, "linux") for peer in config_.bgp.peers)


def test_paths_are_received_and_not_sent(tmp_path: Path) -> None:
    one, several, only4 = neighbors(
        tmp_path,
        IPV4,
        IPV6 + "add_path = true",
        'address = "192.0.2.3"\nlocal_address = "192.0.2.1"\nadd_path = true',
    )
    assert one["capability"]["add-path"] == 0
    assert several["capability"]["add-path"] == 1
    assert [str(afi) for afi, _ in several.addpaths()] == ["ipv4", "ipv6"]
    assert [str(afi) for afi, _ in only4.addpaths()] == ["ipv4"]


def test_hold_time(tmp_path: Path) -> None:
    usual, quick = neighbors(tmp_path, IPV4, IPV6 + "hold_time = 9")
    assert (usual["hold-time"], quick["hold-time"]) == (180, 9)


def test_the_mark_names_the_neighbors_and_resets_none(tmp_path: Path) -> None:
    one, two = with_peers(tmp_path, IPV6), with_peers(tmp_path, IPV6, IPV4)
    assert conf.mark(one) != conf.mark(two)
    assert conf.mark(one) == conf.mark(with_peers(tmp_path, IPV6))
    (before,) = parsed(conf.render(one)).neighbors.values()
    after, _ = parsed(conf.render(two)).neighbors.values()
    assert before["description"] == conf.mark(one)
    assert after["description"] == conf.mark(two)
    # what ExaBGP takes for a reason to end the session
    assert before == after
    (secret,) = parsed(conf.render(with_peers(tmp_path, IPV6 + 'password = "x"'))).neighbors.values()
    assert before != secret
