"""What a running agent takes up of a changed mobility.toml, and what needs a restart."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from mobility import config
from mobility.config import Config
from mobility.failover.policy import Group
from mobility.reload import compare

TEXT = """
[host]
name = "a"
allowed = ["198.51.100.0/24"]
[bgp]
as = 65001
router_id = "10.0.0.1"
[[bgp.peer]]
name = "spine"
address = "fd00:1::ff"
as = 65000
local_address = "fd00:1::1"
"""


OTHER: Any = object()
TAKEN = {
    ("host", "allowed"),
    ("bgp", "peers"),
    ("bgp", "max_announcements"),
    ("terms", "groups"),
    ("terms", "administrator"),
}


@pytest.fixture
def old(tmp_path: Path) -> Config:
    return read(tmp_path, TEXT)


def read(folder: Path, text: str) -> Config:
    path = folder / "mobility.toml"
    path.write_text(text)
    return config.load(path)


def test_the_same_is_no_change(old: Config) -> None:
    assert compare(old, old).taken == compare(old, old).refused == ()


def test_peers_and_prefixes_are_taken_up(old: Config, tmp_path: Path) -> None:
    text = TEXT.replace('["198.51.100.0/24"]', '["2001:db8:7::/64"]').replace('"spine"', '"leaf"')
    text += """
        password = "secret"
        [[bgp.peer]]
        name = "spine"
        address = "fd00:2::ff"
        as = 65009
        local_address = "fd00:2::1"
        """
    changes = compare(old, read(tmp_path, text))
    assert changes.refused == ()
    assert changes.taken == (
        "host.allowed has no more 198.51.100.0/24",
        "host.allowed has 2001:db8:7::/64",
        "peer leaf comes",
        "peer spine changes: address, as, local_address, next_hop_ipv6",
    )
    back = compare(read(tmp_path, text), old)
    assert "peer leaf goes" in back.taken
    limit = compare(old, replace(old, bgp=replace(old.bgp, max_announcements=7)))
    assert limit.taken == ("bgp.max_announcements is 7",)


def test_a_password_is_not_shown(old: Config, tmp_path: Path) -> None:
    (line,) = compare(old, read(tmp_path, TEXT + 'password = "secret"\n')).taken
    assert line == "peer spine changes: password"


@pytest.mark.parametrize(
    ("section", "setting", "value", "services"),
    [
        ("host", "name", "b", ["mobility"]),
        ("paths", "run", Path("/elsewhere"), ["mobility_exabgp", "mobility"]),
        ("agent", "look_every", 77.0, ["mobility"]),
        ("metrics", "listen", "", ["mobility"]),
        ("bgp", "local_as", 65009, ["mobility_exabgp", "mobility"]),
        ("bgp", "router_id", "10.0.0.9", ["mobility_exabgp", "mobility"]),
        ("bgp", "user", "nobody", ["mobility_exabgp", "mobility"]),
        ("bgp", "graceful_restart", 7, ["mobility_exabgp", "mobility"]),
        ("bgp", "fail_static_for", 7.0, ["mobility_exabgp", "mobility"]),
    ],
)
def test_what_needs_a_restart_says_of_what(
    old: Config, section: str, setting: str, value: Any, services: list[str]
) -> None:
    new = replace(old, **{section: replace(getattr(old, section), **{setting: value})})
    (refused,) = compare(old, new).refused
    key = f"{section}.{'as' if setting == 'local_as' else setting}"
    assert refused == f"{key} is read at the start only: {'; '.join(f'service {each} restart' for each in services)}"


def test_failover_is_read_at_the_start_only(old: Config, tmp_path: Path) -> None:
    gateways = '[failover.gw]\nvhids = ["1@igb0"]\nservices = ["198.51.100.32/28"]\n'
    new = read(tmp_path, TEXT.replace("[bgp]", f"{gateways}[bgp]"))
    for before, after in ((old, new), (new, old)):
        changes = compare(before, after)
        assert changes.taken == ()
        assert changes.refused == ("failover.gw is read at the start only: service mobility restart",)
    later = read(
        tmp_path, TEXT.replace("[bgp]", f"{gateways}hold = 9\n[failover.dns]\nvhids = ['1@igb0']\njails = ['a']\n[bgp]")
    )
    assert [line.partition(" ")[0] for line in compare(new, later).refused] == ["failover.dns", "failover.gw"]


def test_nothing_is_left_out(old: Config) -> None:
    """A section that is new here is refused, unless somebody has said that it is taken up."""
    for section in fields(Config):
        for setting in () if section.name == "path" else fields(getattr(old, section.name)):
            other = (Group("gw", ()),) if setting.name == "groups" else OTHER
            new = replace(old, **{section.name: replace(getattr(old, section.name), **{setting.name: other})})
            if (section.name, setting.name) not in TAKEN:
                (refused,) = compare(old, new).refused
                assert refused.startswith(f"{section.name}."), setting.name
