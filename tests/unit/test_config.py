"""The configuration: every mistake named, all at once, with key, value and remedy."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mobility import config
from mobility.jails import jailsd
from mobility.jails.said import MAX_BYTES
from mobility.jails.sources import combine, shared_addresses
from mobility.model import host_prefix, jail_name, martian, network_prefix

GOOD = """
[host]
name = "a"
allowed = ["198.51.100.0/24", "2001:db8:7::/64"]

[bgp]
as = 65001
router_id = "10.0.0.1"

[[bgp.peer]]
name = "spine"
address = "fd00:1::ff"
as = 65000
local_address = "fd00:1::1"
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "mobility.toml"
    path.write_text(text)
    return path


def problems(folder: Path, text: str) -> dict[str, str]:
    with pytest.raises(config.ConfigError) as caught:
        config.load(write(folder, text))
    return {problem.key: problem.remedy for problem in caught.value.problems}


def test_a_short_file_is_enough(tmp_path: Path) -> None:
    loaded = config.load(write(tmp_path, GOOD))
    assert loaded.bgp.peers[0].next_hop_ipv6 == "fd00:1::1"
    assert loaded.hooks.when_agent_down == "refuse"
    assert loaded.bgp.fail_static_for is None
    assert loaded.metrics.listen.startswith("127.0.0.1:")


def test_every_mistake_at_once(tmp_path: Path) -> None:
    found = problems(
        tmp_path,
        """
        [host]
        name = "a b"
        alowed = ["198.51.100.0/24"]
        [agent]
        look_every = -1
        command_timeout = "soon"
        [metrics]
        listen = "everywhere"
        jails = -1
        [bgpp]
        [bgp]
        as = 0
        fail_static_for = "never"
        password = "x"
        [[bgp.peer]]
        name = "spine"
        address = "spine.example"
        as = 65000
        """,
    )
    assert set(found) == {
        "host.name",
        "host.allowed",
        "host.alowed",
        "agent.look_every",
        "agent.command_timeout",
        "metrics.listen",
        "metrics.jails",
        "bgpp",
        "bgp.as",
        "bgp.router_id",
        "bgp.fail_static_for",
        "bgp.password",
        "bgp.peer[0].address",
        "bgp.peer[0].local_address",
    }
    assert "allowed" in found["host.alowed"]
    assert "[bgp]" in found["bgpp"]
    assert "from 0 to 1000000" in found["metrics.jails"]


@pytest.mark.parametrize("text", ["[host", "a = b", "\0", "[[host]]"])
def test_what_is_no_toml(tmp_path: Path, text: str) -> None:
    assert problems(tmp_path, text)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(config.ConfigError, match="can not be read"):
        config.load(tmp_path / "nowhere.toml")


def test_a_password_is_never_shown(tmp_path: Path) -> None:
    with pytest.raises(config.ConfigError) as caught:
        config.load(write(tmp_path, GOOD + 'password = "two words"\n'))
    assert "two words" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ('allowed = ["198.51.100.7/24"]', "host.allowed"),
        ('allowed = ["0.0.0.0/0"]', "host.allowed"),
        ('allowed = ["fe80::/64"]', "host.allowed"),
        ('allowed = ["::/0"]', "host.allowed"),
        ('allowed = "198.51.100.0/24"', "host.allowed"),
        ("allowed = [1]", "host.allowed"),
    ],
)
def test_what_can_not_be_allowed(tmp_path: Path, line: str, key: str) -> None:
    assert key in problems(tmp_path, GOOD.replace('allowed = ["198.51.100.0/24", "2001:db8:7::/64"]', line))


def test_two_peers_of_one_name_and_address(tmp_path: Path) -> None:
    found = problems(tmp_path, GOOD + GOOD[GOOD.index("[[bgp.peer]]") :])
    assert set(found) == {"bgp.peer[1].name", "bgp.peer[1].address"}


# -- jails.d

ALLOWED = (network_prefix("198.51.100.0/24"), network_prefix("2001:db8:7::/64"))


def grant(folder: Path, name: str, text: str) -> Path:
    path = folder / f"{name}.toml"
    path.write_text(text)
    path.chmod(0o644)
    return path


def load(folder: Path) -> tuple[dict[str, jailsd.Entry], dict[str, list[config.Problem]]]:
    files = jailsd.Folder(folder, ALLOWED)
    files.refresh()
    return files.entries, files.problems


def test_a_grant(tmp_path: Path) -> None:
    grant(tmp_path, "web1", 'addresses = ["198.51.100.7", "2001:db8:7::7/128"]')
    jails, wrong = load(tmp_path)
    assert not wrong
    assert jails["web1"].addresses == (host_prefix("198.51.100.7/32"), host_prefix("2001:db8:7::7/128"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('addresses = ["192.0.2.1"]', "web1 may not have 192.0.2.1"),
        ('addresses = ["198.51.100.0/24"]', "wider"),
        ('addresses = ["198.51.100.7", "198.51.100.7/32"]', "twice"),
        ('addresses = ["127.0.0.1"]', "may not have"),
        ('addresses = ["1"]', "no IP address"),
        ('addresses = ["10.1"]', "no IP address"),
        ('addresses = ["jail.example"]', "no IP address"),
        ("addresses = [7]", "no IP address"),
        ("addresses = []", "must list"),
        ('address = "198.51.100.7"', "no setting"),
        ('adresses = ["198.51.100.7"]', "did you mean addresses?"),
        ("addresses = [", "no TOML"),
        ("requests = []", "must list"),
        ('requests = ["198.51.100.7/24"]', "host bits"),
        ('requests = ["192.0.2.0/24"]', "outside host.allowed"),
        ('link = "theirs"', '"ours" or "adopt"'),
    ],
)
def test_a_bad_grant_spoils_no_other(tmp_path: Path, text: str, said: str) -> None:
    grant(tmp_path, "web1", text)
    grant(tmp_path, "web2", 'addresses = ["198.51.100.8"]')
    jails, wrong = load(tmp_path)
    assert list(jails) == ["web2"]
    assert said in "; ".join(map(str, wrong["web1"]))


@pytest.mark.parametrize("name", ["a b", "x;y", "ü", "n" * 64, "-x", "a'b", "a\nb"])
def test_a_name_that_is_not_handled(tmp_path: Path, name: str) -> None:
    grant(tmp_path, name, 'addresses = ["198.51.100.7"]')
    jails, wrong = load(tmp_path)
    assert not jails
    assert "is not handled" in str(wrong[name][0])


def test_files_that_others_could_have_written(tmp_path: Path) -> None:
    grant(tmp_path, "open", 'addresses = ["198.51.100.7"]').chmod(0o666)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text('addresses = ["198.51.100.8"]')
    (tmp_path / "link.toml").symlink_to(elsewhere)
    os.mkfifo(tmp_path / "pipe.toml")
    (tmp_path / "huge.toml").write_text("#" * (MAX_BYTES + 1))
    jails, wrong = load(tmp_path)
    assert not jails
    assert set(wrong) == {"open", "link", "pipe", "huge"}


def test_one_address_on_two_jails(tmp_path: Path) -> None:
    for name in ("web2", "web1"):
        grant(tmp_path, name, 'addresses = ["198.51.100.7", "2001:db8:7::7"]')
    shared = shared_addresses(combine(name, entry, None, ALLOWED) for name, entry in load(tmp_path)[0].items())
    assert set(shared.values()) == {("web1", "web2")}
    assert len(shared) == 2


@pytest.mark.parametrize("name", ["web1", "_x", "1abc", "a-b_c.d", "a" * 63])
def test_good_names(name: str) -> None:
    assert jail_name(name) == name


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "a b", "a\n", "x" * 300, "a;b", "$x", "\udcff"])
def test_bad_names(name: str) -> None:
    with pytest.raises(ValueError, match="is not handled"):
        jail_name(name)


@pytest.mark.parametrize("text", ["0.0.0.0/0", "::/0", "127.0.0.1/32", "fe80::7/128", "224.0.0.1/32", "192.0.0.8/32"])
def test_martians(text: str) -> None:
    assert martian(network_prefix(text))


@pytest.mark.parametrize("text", ["198.51.100.7/32", "2001:db8::7/128", "10.1.2.3/32", "fd00::7/128", "64:ff9b::/96"])
def test_no_martians(text: str) -> None:
    assert not martian(network_prefix(text))
