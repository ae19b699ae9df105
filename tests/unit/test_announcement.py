"""How a jail is announced: what its file and its group say of it."""

from __future__ import annotations

import json
import os
import tomllib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobility import announcement, config
from mobility.announcement import MAX_COMMUNITIES, SETTINGS, Announce, Terms, attributes, read_groups, recalled
from mobility.bgp.grammar import attributes_text
from mobility.jails import jailsd
from mobility.jails.sources import Sources
from mobility.model import GRACEFUL_SHUTDOWN, Attributes, network_prefix

ALLOWED = (network_prefix("198.51.100.0/24"), network_prefix("2001:db8:7::/64"))
FULL = """
identity = "web1.example"
[announce]
ownership = "anycast"
local_preference = 200
med = 10
communities = ["65000:7", "no-export"]
large_communities = ["65000:1:7"]
extended_communities = ["target:65000:7", "0x4300000000000001"]
prepend = 2
next_hop_ipv4 = "198.51.100.254"
next_hop_ipv6 = "2001:DB8:7::FE"
"""
WEB = {"ownership": "anycast", "local_preference": 200, "med": 10, "communities": ["65000:7"]}


def terms(**groups: Any) -> Terms:
    wrong: list[Any] = []
    made = read_groups(groups, 65000, lambda *what: wrong.append(what))
    assert not wrong
    return made


def read(text: str, known: Terms = Terms()) -> Announce:  # noqa: B008  # frozen
    entry, problems = jailsd.parse("web1", f'addresses = ["198.51.100.7/32"]\n{text}', "web1.toml", ALLOWED, known)
    assert not problems
    assert entry is not None
    return entry.more.announce


def wrong(text: str, known: Terms = Terms()) -> list[str]:  # noqa: B008  # frozen
    entry, problems = jailsd.parse("web1", text, "web1.toml", ALLOWED, known)
    assert entry is None
    return [str(problem) for problem in problems]


def test_a_file_without_a_word_is_announced_as_usual() -> None:
    assert read("") == Announce()
    assert attributes(Announce()) == Attributes()


def test_every_setting_reaches_the_attributes() -> None:
    announce = read(FULL)
    assert (announce.anycast, announce.identity) == (True, "web1.example")
    assert attributes(announce) == Attributes(
        communities=("65000:7", "65535:65281"),
        large_communities=("65000:1:7",),
        extended_communities=("0x0002fde800000007", "0x4300000000000001"),
        med=10,
        local_preference=200,
        prepend=2,
        next_hop_ipv4="198.51.100.254",
        next_hop_ipv6="2001:db8:7::fe",
    )
    assert set(SETTINGS) == {
        line.partition(" = ")[0] for line in FULL.partition("[announce]\n")[2].splitlines() if line
    }


def test_it_is_remembered_as_json() -> None:
    announce = read(FULL)
    assert recalled(json.loads(json.dumps(asdict(announce))) | {"of a later version": 1}) == announce
    assert recalled({}) == Announce()


def test_what_ownership_and_a_drain_add_comes_with_it() -> None:
    announce = read('[announce]\ncommunities = ["65000:7"]\nlarge_communities = ["65000:1:7"]\nlocal_preference = 200')
    owned = attributes(announce, large_communities=("4200000000:1:5",), med=7)
    assert (owned.large_communities, owned.med) == (("65000:1:7", "4200000000:1:5"), 7)
    assert owned.local_preference == 200
    leaving = attributes(announce, communities=(GRACEFUL_SHUTDOWN,), med=7)
    assert (leaving.communities, leaving.local_preference) == (("65000:7", GRACEFUL_SHUTDOWN), 0)


def test_a_group_has_defaults_which_a_file_overrides() -> None:
    known = terms(web=WEB)
    assert read('group = "web"', known) == Announce(True, "", 200, 10, ("65000:7",))
    own = read('group = "web"\n[announce]\nmed = 0\ncommunities = []', known)
    assert own == Announce(True, "", 200, 0, ())
    assert read('group = "web"\n[announce]\nprepend = 1', known) == Announce(True, "", 200, 10, ("65000:7",), prepend=1)


def test_a_file_can_take_a_groups_next_hop_back() -> None:
    known = terms(web={"next_hop_ipv6": "2001:db8:7::fe"})
    assert read('group = "web"', known).next_hop_ipv6 == "2001:db8:7::fe"
    assert read('group = "web"\n[announce]\nnext_hop_ipv6 = "self"', known) == Announce()


def test_an_unknown_group_is_answered_with_those_that_there_are() -> None:
    (told,) = wrong('group = "wep"', terms(web=WEB, db={}))
    assert told == "web1.toml: group = 'wep': is no group of mobility.toml; its groups ([group.NAME]): web, db"
    assert wrong("group = 1")[0].endswith("its groups ([group.NAME]): none")


def test_med_tells_who_owns_a_jail_unless_nobody_does() -> None:
    (told,) = wrong("[announce]\nmed = 10")
    assert told.startswith("web1.toml: announce.med = 10: is taken")
    (told,) = wrong('group = "web"\n[announce]\nownership = "exclusive"', terms(web=WEB))
    assert told.startswith("web1.toml: announce.med = 10: the group's med needs")
    _, problems = config.parse({"group": {"web": {"med": 1}}}, Path("mobility.toml"))
    assert "group.web.med" in {problem.key for problem in problems}


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('ownership = "none"', 'must be "exclusive" or "anycast"'),
        ("local_preference = -1", "must be a whole number from 0 to 4294967295"),
        ("local_preference = true", "must be a whole number"),
        ("local_preference = 4294967296", "must be a whole number"),
        ("prepend = 33", "must be a whole number from 0 to 32"),
        ('communities = "65000:7"', "must be a list of texts"),
        ("communities = [7]", "must be a list of texts"),
        ('communities = ["65000:65536"]', "is no community; write communities ="),
        ('communities = ["no-exports"]', "is no community"),
        ('communities = ["65000:7", "65000:07"]', "is written twice"),
        ('communities = ["65535:0"]', "`mobility drain` sends it"),
        (f"communities = {[f'65000:{n}' for n in range(MAX_COMMUNITIES + 1)]}", "32 fit"),
        ('large_communities = ["1:2"]', "is no large community"),
        ('large_communities = ["4200000000:9:9"]', "(ownership.administrator) tell who owns a jail"),
        ('extended_communities = ["target:4200000000:65536"]', "is no extended community"),
        ('extended_communities = ["target:65000:7", "0x0002fde800000007"]', "is written twice"),
        ('next_hop_ipv4 = "2001:db8::1"', 'must be an IPv4 address that routers can reach, or "self"'),
        ('next_hop_ipv4 = "127.0.0.1"', "that routers can reach"),
        ('next_hop_ipv6 = "198.51.100.1"', "must be an IPv6 address"),
        ('next_hop_ipv6 = "fe80::1%em0"', "must be an IPv6 address"),
        ('next_hop_ipv6 = "::ffff:198.51.100.1"', "must be an IPv6 address"),
        ("next_hop_ipv6 = 1", "must be an IPv6 address"),
        ("weight = 1", "is no setting; known here: ownership, local_preference"),
    ],
)
def test_what_is_wrong_is_named_with_what_to_write(line: str, told: str) -> None:
    (found,) = wrong(f"[announce]\n{line}")
    assert found.startswith(f"web1.toml: announce.{line.partition(' =')[0]}")
    assert told in found
    # and in a group the same
    data = {"group": {"web": tomllib.loads(line)}}
    _, problems = config.parse(data, Path("mobility.toml"))
    (same,) = (str(problem) for problem in problems if problem.key.startswith("group."))
    assert same.partition(": ")[2] == found.removeprefix("web1.toml: ").partition(": ")[2]


def test_tables_have_to_be_tables_and_names_names() -> None:
    assert wrong("announce = 1") == ["web1.toml: announce = 1: must be a table: write it as [announce]"]
    for data, key in (
        ({"group": 1}, "group"),
        ({"group": {"web": 1}}, "group.web"),
        ({"group": {"w b": {}}}, "group.w b"),
    ):
        _, problems = config.parse(data, Path("mobility.toml"))
        assert key in {problem.key for problem in problems}


@pytest.mark.parametrize("identity", ["''", "'a b'", "7", "'\u00e9'", f"'{'x' * 256}'"])
def test_an_identity_is_a_word(identity: str) -> None:
    (told,) = wrong(f"identity = {identity}")
    assert told.startswith("web1.toml: identity = ")


def test_the_administrators_number_is_ownerships() -> None:
    with_another = Terms((), 65000)
    assert "65000 (ownership.administrator)" in wrong('[announce]\nlarge_communities = ["65000:1:7"]', with_another)[0]
    assert read('[announce]\nlarge_communities = ["4200000000:1:7"]', with_another).large_communities


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=12) | st.sampled_from(["anycast", "self", "65000:7"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(SETTINGS) | st.text(max_size=5), VALUES), st.text(max_size=5))
def test_whatever_a_file_says_what_is_taken_can_be_said_to_exabgp(table: dict[str, Any], group: str) -> None:
    found: list[Any] = []
    data = {"announce": table, "group": group}
    announce = announcement.read(data, "web1.toml", terms(web=WEB), lambda *what: found.append(what))
    attributes_text("::1", attributes(announce), 65001)
    if not found:
        assert group == "web"


def test_another_group_is_taken_up_with_the_next_look(tmp_path: Path) -> None:
    folder = tmp_path / "jails.d"
    folder.mkdir()
    for name, text in (("web1", 'group = "web"'), ("db1", ""), ("new1", 'group = "new"')):
        (folder / f"{name}.toml").write_text(f'addresses = ["198.51.100.{len(text)}/32"]\n{text}')
        (folder / f"{name}.toml").chmod(0o600)
        assert os.geteuid() == (folder / f"{name}.toml").stat().st_uid
    sources = Sources(jailsd.Folder(folder, ALLOWED, terms(web=WEB)), [], ALLOWED)
    assert sources.refresh() == {"web1", "db1", "new1"}
    assert sources.jails["web1"].more.announce.local_preference == 200
    assert "its groups ([group.NAME]): web" in str(sources.problems["new1"][0])
    sources.use(terms(web=WEB))
    assert sources.refresh() == set()
    sources.use(terms(web={"local_preference": 50}, new={}))
    assert "web1" in sources.refresh()
    assert sources.jails["web1"].more.announce == Announce(local_preference=50)
    assert "new1" in sources.jails
    assert not sources.problems
    sources.use(terms(new={}))  # web1's is gone, but not what it said
    sources.refresh()
    sources.refresh_one("web1")
    assert "web1" in sources.problems
    assert sources.last_good["web1"].more.announce == Announce(local_preference=50)
    sources.use(terms(web={"local_preference": 50}, new={}))
    sources.refresh()
    assert not sources.last_good
    assert sources.refresh() == set()
    (folder / "web1.toml").unlink()
    sources.use(terms())
    sources.refresh()
    assert sources.jails.keys() == {"db1"}
