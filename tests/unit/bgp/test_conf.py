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
