"""What iocage's files say of a jail: config.json over defaults.json over iocage's own defaults."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mobility.jails.iocage import Iocage
from mobility.jails.said import Ends, Said


def jail(root: Path, name: str, properties: dict[str, Any]) -> Path:
    """Write a jail's config.json as iocage does (json_write)."""
    path = root / "jails" / name / "config.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(properties, sort_keys=True, indent=4, ensure_ascii=False))
    return path


def defaults(root: Path, **properties: Any) -> None:
    (root / "defaults.json").write_text(json.dumps(properties))


def said(root: Path, name: str = "web1") -> Said:
    found = Iocage(root).read(f"ioc-{name}", requests=True)
    assert found is not None
    return found


def test_a_jail_of_its_own_network(tmp_path: Path) -> None:
    path = jail(tmp_path, "web1", {"vnet": 1, "ip4_addr": "vnet0|198.51.100.7/32", "ip6_addr": "2001:db8:7::7/128"})
    found = said(tmp_path)
    assert (found.jail, found.manager, found.source, found.vnet) == ("ioc-web1", "iocage", str(path), True)
    assert found.addresses == ("198.51.100.7", "2001:db8:7::7")
    assert found.ends == (Ends("vnet0.{jid}", ("epair0b", "vnet0")),)
    assert not found.requests


def test_what_is_inherited_counts_below_what_is_the_jails_own(tmp_path: Path) -> None:
    jail(tmp_path, "web1", {"ip4_addr": "net0|198.51.100.7,net1|198.51.100.8/24"})
    assert (said(tmp_path).vnet, said(tmp_path).ends) == (False, ())
    defaults(tmp_path, vnet="on", interfaces="net1:bridge1,net0:bridge0,net2:bridge2", ip4_addr="none")
    found = said(tmp_path)
    assert found.vnet
    assert found.addresses == ("198.51.100.7", "198.51.100.8")
    assert found.ends == (Ends("net1.{jid}", ("net1",)), Ends("net0.{jid}", ("net0",)))


@pytest.mark.parametrize("on", [1, True, "1", "on", "YES", "true"])
def test_what_iocage_takes_for_on(tmp_path: Path, on: object) -> None:
    jail(tmp_path, "web1", {"vnet": on})
    assert said(tmp_path).vnet


@pytest.mark.parametrize(
    ("properties", "ends"),
    [
        ({}, ()),
        ({"ip4_addr": "none", "ip6_addr": "none"}, ()),
        ({"dhcp": 1}, ("vnet0.{jid}",)),
        ({"ip4_addr": "vnet0|DHCP"}, ("vnet0.{jid}",)),
        ({"ip6_addr": "vnet0|accept_rtadv"}, ("vnet0.{jid}",)),
        ({"nat": 1}, ("vnet0.{jid}",)),
        ({"ip4_addr": "vnet9|198.51.100.7"}, ()),
        ({"interfaces": "vnet0:b,vnet1:b", "dhcp": "on"}, ("vnet0.{jid}", "vnet1.{jid}")),
    ],
)
def test_when_iocage_makes_an_interface(tmp_path: Path, properties: dict[str, Any], ends: tuple[str, ...]) -> None:
    jail(tmp_path, "web1", {"vnet": 1, **properties})
    found = said(tmp_path)
    assert tuple(end.outer for end in found.ends) == ends
    assert set(found.addresses) <= {"198.51.100.7"}


def test_an_address_that_iocage_made_up_is_nobodys(tmp_path: Path) -> None:
    jail(tmp_path, "web1", {"vnet": 1, "nat": 1, "ip4_addr": "vnet0|172.16.0.2/30", "ip6_addr": "2001:db8:7::7"})
    found = said(tmp_path)
    assert found.addresses == ("2001:db8:7::7",)
    assert any("nat=1" in sentence for sentence in found.advice)


def test_addresses_on_the_host(tmp_path: Path) -> None:
    jail(tmp_path, "web1", {"vnet": 0, "ip4_addr": "lo1|198.51.100.7", "ip6_addr": "lo1|2001:db8:7::7/128"})
    found = said(tmp_path)
    assert (found.vnet, found.ends, found.advice) == (False, (), ())
    assert found.addresses == ("198.51.100.7", "2001:db8:7::7")


@pytest.mark.parametrize(
    ("properties", "word"),
    [
        ({"vnet": 1, "ip4_addr": "vnet0|198.51.100.7/24"}, "198.51.100.7/24"),
        ({"vnet": 1, "ip4_addr": "vnet0|198.51.100.7"}, "without a prefix length"),
        ({"vnet": 1, "ip4_addr": "vnet0|198.51.100.7/32"}, "defaultrouter=none"),
        ({"vnet": 1, "ip4_addr": "vnet0|198.51.100.7/32"}, "vnet_default_interface=none"),
        ({"vnet": 1, "dhcp": 1}, "dhcp=0"),
        ({"vnet": 1, "ip6_addr": "vnet0|accept_rtadv"}, "rtsold=0"),
        ({"vnet": 1, "exec_fib": "3"}, "exec_fib=0"),
        (
            {"vnet": 1, "interfaces": "vnet0:b,vnet1:b", "ip4_addr": "vnet0|198.51.100.7,vnet1|198.51.100.8"},
            "the first one only",
        ),
        ({"ip4_addr": "198.51.100.7"}, "lo1|198.51.100.7/32"),
        ({"ip4_addr": "lo1|198.51.100.7/24"}, "lo1|198.51.100.7/32"),
        ({"ip4": "inherit"}, "ip4=new"),
        (
            {"vnet": 1, "mobility_way": "replace", "exec_poststart": "hook poststart 'ioc-old'"},
            "hooks install iocage web1",
        ),
    ],
)
def test_what_collides_is_told(tmp_path: Path, properties: dict[str, Any], word: str) -> None:
    jail(tmp_path, "web1", properties)
    assert sum(word in sentence for sentence in said(tmp_path).advice) == 1


def test_nothing_collides_in_a_jail_whose_interface_is_ours(tmp_path: Path) -> None:
    properties = {"vnet": 1, "mobility_way": "replace", "exec_poststart": "hook poststart 'ioc-web1'; /usr/bin/true"}
    jail(tmp_path, "web1", properties)
    assert said(tmp_path).advice == ()


def test_an_interface_of_iocages_beside_ours_is_not_taken_for_the_jails_link(tmp_path: Path) -> None:
    """`iocage set ip4_addr=…` on a running jail whose link is ours changes nothing before its next start."""
    properties = {"vnet": 1, "mobility_way": "replace", "exec_poststart": "hook poststart 'ioc-web1'"}
    jail(tmp_path, "web1", {**properties, "ip4_addr": "vnet0|198.51.100.8/24"})
    found = said(tmp_path)
    assert (found.addresses, found.ends) == (("198.51.100.8",), ())
    (sentence,) = found.advice
    assert "mobility hooks install iocage web1" in sentence


def test_which_jails_there_are(tmp_path: Path) -> None:
    manager = Iocage(tmp_path)
    assert manager.names() == []
    for name in ("web1", "db_2", "web.3", "a b", "n" * 60):
        jail(tmp_path, name, {})
    (tmp_path / "jails" / "legacy").mkdir()
    (tmp_path / "jails" / "file").touch()
    assert manager.names() == ["ioc-db_2", "ioc-web1"]
    for name in ("web1", "ioc-web.3", "ioc-legacy", "ioc-../jails/web1", "ioc-"):
        assert manager.read(name, requests=True) is None
        assert manager.signature(name, requests=True) == ()


def test_the_signature_changes_with_either_file(tmp_path: Path) -> None:
    manager = Iocage(tmp_path)
    path = jail(tmp_path, "web1", {"vnet": 1})
    seen = [manager.signature("ioc-web1", requests=False)]
    defaults(tmp_path, vnet=1)
    seen.append(manager.signature("ioc-web1", requests=False))
    new = path.with_name("new")
    new.write_text("{}")
    new.replace(path)  # as iocage writes (ioc_common.py, open_atomic)
    seen.append(manager.signature("ioc-web1", requests=False))
    assert len(set(seen)) == 3
    assert all(seen)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"{", "no JSON"),
        (b"[]", "no properties"),
        (b"\xff", "no JSON"),
        (b'{"a": "\xff"}', "no Unicode"),
        (b'{"a": "\\ud800"}', "no Unicode"),
        (b" " * 70_000, "larger"),
    ],
)
def test_files_that_can_not_be_used(tmp_path: Path, content: bytes, word: str) -> None:
    path = jail(tmp_path, "web1", {})
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"config.json .*{word}"):
        Iocage(tmp_path).read("ioc-web1", requests=False)
    path.write_text("{}")
    (tmp_path / "defaults.json").write_bytes(content)
    with pytest.raises(ValueError, match=f"defaults.json .*{word}"):
        Iocage(tmp_path).read("ioc-web1", requests=False)


def test_a_file_that_others_may_write_grants_nothing(tmp_path: Path) -> None:
    jail(tmp_path, "web1", {}).chmod(0o666)
    with pytest.raises(ValueError, match="may be written by others"):
        Iocage(tmp_path).read("ioc-web1", requests=False)


def test_what_the_jails_own_rc_conf_says_is_a_request(tmp_path: Path) -> None:
    config = jail(tmp_path, "web1", {"vnet": 1, "ip4_addr": "vnet0|198.51.100.7/32", "defaultrouter": "none"})
    rc_conf = config.parent / "root" / "etc" / "rc.conf"
    rc_conf.parent.mkdir(parents=True)
    rc_conf.write_text(
        'ifconfig_epair0b_name="jail0"\nifconfig_jail0_alias0="inet 198.51.100.8/32"\ndefaultrouter="192.0.2.1"\n'
    )
    manager = Iocage(tmp_path)
    without = manager.read("ioc-web1", requests=False)
    assert without is not None
    assert (without.requests, without.ends[0].inner) == ((), ("epair0b", "vnet0"))
    found = said(tmp_path)
    assert (found.addresses, found.requests) == (("198.51.100.7",), ("198.51.100.8",))
    assert found.ends[0].inner == ("jail0", "epair0b", "vnet0")
    assert any("sysrc -R" in sentence and "defaultrouter" in sentence for sentence in found.advice)
    before = manager.signature("ioc-web1", requests=True), manager.signature("ioc-web1", requests=False)
    rc_conf.write_text("")
    after = manager.signature("ioc-web1", requests=True), manager.signature("ioc-web1", requests=False)
    assert (before[0] != after[0], before[1] == after[1]) == (True, True)


def test_links_in_a_jail_are_not_followed(tmp_path: Path) -> None:
    config = jail(tmp_path, "web1", {"vnet": 1})
    secret = tmp_path / "secret"
    secret.write_text('ifconfig_epair0b="inet 198.51.100.8/32"\n')
    (config.parent / "root" / "etc").mkdir(parents=True)
    (config.parent / "root" / "etc" / "rc.conf").symlink_to(secret)
    found = said(tmp_path)
    assert found.requests == ()
    assert any("links are not followed" in sentence for sentence in found.advice)
