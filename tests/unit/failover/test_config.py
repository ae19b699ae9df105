"""[failover.NAME] in mobility.toml: what it takes, what it refuses and in which words, and what the documents say of it."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from mobility import config
from mobility.failover.model import Vhid
from mobility.failover.policy import Group, Settings
from tests.readme import DEPLOY, PATH, block, table

HOST: dict[str, Any] = {
    "host": {"name": "a", "allowed": ["198.51.100.0/24", "2001:db8:7::/64"]},
    "group": {"dns": {"ownership": "anycast"}},
    "bgp": {
        "as": 65001,
        "router_id": "10.0.0.1",
        "peer": [{"name": "spine", "address": "fd00:1::ff", "as": 65000, "local_address": "fd00:1::1"}],
    },
}
GOOD: dict[str, Any] = {"vhids": ["1@igb0"], "jails": ["web1"]}
SETTINGS = [each.name for each in dataclasses.fields(Group) if each.name != "name"]


def parsed(**groups: Any) -> tuple[Settings, list[str]]:
    found, problems = config.parse({**HOST, "failover": groups}, Path("mobility.toml"))
    return found.failover, [str(problem) for problem in problems]


def test_what_is_read_is_what_is_written() -> None:
    table = {
        "vhids": ["1@igb0", "2@vlan0.7"],
        "jails": ["web1", "db1"],
        "groups": ["dns"],
        "services": ["198.51.100.32/28", "2001:db8:7:0:1a::/80"],
        "when_backup": "withdraw",
        "pfsync": False,
        "sync_within": 1,
        "hand_over_within": 5,
        "min_sessions": 0,
        "hold": 0,
        "hold_down": 7.5,
        "demotion": 1,
        "prepend": 32,
    }
    assert list(table) == SETTINGS
    settings, problems = parsed(gw=table)
    assert problems == []
    (group,) = settings.groups
    assert group.vhids == (Vhid("igb0", 1), Vhid("vlan0.7", 2))
    for name, value in table.items():
        if name != "vhids":
            found = getattr(group, name)
            assert ([str(each) for each in found] if isinstance(found, tuple) else found) == value


def test_without_it_there_is_none() -> None:
    found, problems = config.parse(HOST, Path("mobility.toml"))
    assert not problems
    assert found.failover == Settings()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"vhids": None}, "failover.gw.vhids: is missing"),
        ({"vhids": []}, 'failover.gw.vhids = []: must not be empty: ["1@igb0"]'),
        ({"vhids": ["igb0"]}, "failover.gw.vhids = ['igb0']: 'igb0' is no vhid of an interface: write \"1@igb0\""),
        ({"vhids": ["0@igb0"]}, "is no vhid of an interface"),
        ({"vhids": ["256@igb0"]}, "is no vhid of an interface"),
        ({"vhids": ["1@igb0;reboot"]}, "is no vhid of an interface"),
        ({"vhids": ["1@igb0", "1@igb0"]}, "has 1@igb0 twice"),
        ({"vhids": "1@igb0"}, "must be a list"),
        ({"jails": ["web 1"]}, "failover.gw.jails = ['web 1']: jail name 'web 1' is not handled"),
        ({"jails": []}, "failover.gw: goes with nothing: name what follows its vhids in jails, groups or services"),
        ({"groups": ["web"]}, "failover.gw.groups = 'web': is no group; the groups ([group.NAME]): dns"),
        ({"services": ["192.0.2.0/24"]}, "failover.gw.services = '192.0.2.0/24': lies outside host.allowed"),
        ({"services": ["198.51.100.1/28"]}, "has host bits set"),
        ({"services": ["fe80::/64"]}, "no jail may own"),
        ({"when_backup": "more"}, 'failover.gw.when_backup = \'more\': must be "less" or "withdraw"'),
        ({"pfsync": "yes"}, "failover.gw.pfsync = 'yes': must be true or false"),
        ({"sync_within": -1}, "failover.gw.sync_within = -1: must be a number of seconds from 0 to 3600"),
        ({"hand_over_within": 4}, "failover.gw.hand_over_within = 4: must be a number of seconds from 5 to 3600"),
        ({"min_sessions": 2}, "failover.gw.min_sessions = 2: there are 1 peers: the fabric would always be lost"),
        ({"min_sessions": -1}, "failover.gw.min_sessions = -1: must be a whole number"),
        ({"hold": "5"}, "failover.gw.hold = '5': must be a number of seconds"),
        ({"hold_down": 1e9}, "failover.gw.hold_down"),
        ({"demotion": 0}, "failover.gw.demotion = 0: must be a whole number from 1 to 240"),
        ({"demotion": 241}, "failover.gw.demotion = 241: must be a whole number from 1 to 240"),
        ({"prepend": 0}, "failover.gw.prepend = 0: must be a whole number from 1 to 32"),
        ({"hold_on": 7}, "failover.gw.hold_on: is no setting; did you mean 'hold_down'?"),
    ],
)
def test_each_mistake_is_named_with_its_remedy(change: dict[str, Any], said: str) -> None:
    table = {name: value for name, value in (GOOD | change).items() if value is not None}
    _, problems = parsed(gw=table)
    assert any(said in problem for problem in problems), problems
    assert len(problems) == 1


@pytest.mark.parametrize("what", ["jails", "groups", "services"])
def test_one_thing_follows_one_failover(what: str) -> None:
    value = {"jails": ["web1"], "groups": ["dns"], "services": ["198.51.100.32/28"]}[what]
    _, problems = parsed(one={"vhids": ["1@igb0"], what: value}, two={"vhids": ["2@igb0"], what: value})
    assert problems == [f"failover.two.{what} = {value[0]!r}: is failover.one's already: it can follow one only"]


def test_a_vhid_may_lead_several() -> None:
    _, problems = parsed(one=GOOD, two=GOOD | {"jails": ["db1"], "when_backup": "withdraw"})
    assert problems == []


@pytest.mark.parametrize(
    ("failover", "said"),
    [
        (7, "failover = 7: must be tables: write each as [failover.NAME]"),
        ({"gw": 7}, "failover.gw = 7: must be a table: write it as [failover.gw]"),
        ({"g w": GOOD}, "failover.g w: its name must be up to 63 letters"),
    ],
)
def test_what_is_no_table_is_told(failover: Any, said: str) -> None:
    _, problems = config.parse({**HOST, "failover": failover}, Path("mobility.toml"))
    assert any(str(problem).startswith(said) for problem in problems)


# -- what the documents say of it


def of_the_tables(rows: list[list[str]]) -> dict[str, Any]:
    """Return the settings of [failover.NAME] with their defaults, as README.md has them."""
    prefix = "`failover.NAME."
    names = {row[0].removeprefix(prefix).rstrip("`"): row[1].strip("`") for row in rows if row[0].startswith(prefix)}
    return {name: tomllib.loads(f"x = {default}")["x"] if default else None for name, default in names.items()}


def test_the_readme_has_every_setting_with_its_default() -> None:
    found = of_the_tables(table(PATH.read_text(), "## Configuration"))
    assert list(found) == SETTINGS
    defaults = {name: value for name, value in found.items() if value is not None}
    assert parsed(gw=defaults | GOOD) == parsed(gw=GOOD)
    assert set(found) - set(defaults) == {"vhids"}


def test_the_sample_has_every_setting_with_its_default() -> None:
    text = (DEPLOY / "mobility.toml.sample").read_text().partition("# [failover.gw]\n")[2].partition("\n\n")[0]
    found = tomllib.loads("".join(f"{line}\n" for line in re.findall(r"^#   (.*)$", text, re.MULTILINE)))
    assert list(found) == SETTINGS
    settings, problems = parsed(gw=found)
    assert problems == []
    short, _ = parsed(gw={"vhids": found["vhids"], "services": found["services"]})
    assert settings == short


def test_the_manual_tells_every_default() -> None:
    page = (DEPLOY / "freebsd" / "man" / "mobility.toml.5").read_text()
    defaults = of_the_tables(table(PATH.read_text(), "## Configuration"))
    for name, value in defaults.items():
        text = page.partition(f".It Va failover.NAME.{name}\n")[2].partition(".It Va")[0].partition(".El")[0]
        plain = re.sub(r"^\.(?:Qq|Li) (\S+)( \.)?$", r"\1.", text, flags=re.MULTILINE).replace("\n", " ")
        shown = (
            "true"
            if value is True
            else "[]"
            if value == []
            else f"{value:g}"
            if isinstance(value, int | float)
            else value
        )
        assert ("Required." if value is None else f"The default is {shown}.") in plain, name


def test_the_readme_s_example_is_good() -> None:
    settings, problems = parsed(**tomllib.loads(block(PATH.read_text(), "failover"))["failover"])
    assert problems == []
    assert settings.groups[0].when_backup == "less"
