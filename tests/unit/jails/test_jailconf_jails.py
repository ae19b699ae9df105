"""What jail.conf and the files beside it say of jails, and when it has changed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mobility.jails.jailconf_jails import JailConfFile, other_end
from mobility.jails.said import Ends


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    return tmp_path / "jail.conf"


def addresses(manager: JailConfFile, jail: str) -> tuple[str, ...]:
    said = manager.read(jail, requests=True)
    assert said is not None
    return said.addresses


def test_addresses_of_jails_without_vnet(conf: Path) -> None:
    conf.write_text(
        """
        interface = lo1;
        plain { ip4.addr = 198.51.100.7; ip6.addr = 2001:db8:7::7; }
        on { ip4.addr = "lo1|198.51.100.8/32", 'em0|198.51.100.9 netmask 255.255.255.255'; ip4.addr += 198.51.100.10/24; }
        several { ip4.addr = "198.51.100.11,198.51.100.12"; $own = 2001:db8:7::8; ip6.addr = "lo1|$own/128"; }
        none { ip4 = inherit; }
        own { vnet; }
        """
    )
    manager = JailConfFile(conf)
    assert manager.names() == ["plain", "on", "several", "none", "own"]
    assert addresses(manager, "plain") == ("198.51.100.7", "2001:db8:7::7")
    assert addresses(manager, "on") == ("198.51.100.8", "198.51.100.9", "198.51.100.10")
    assert addresses(manager, "several") == ("198.51.100.11", "198.51.100.12", "2001:db8:7::8")
    assert addresses(manager, "none") == addresses(manager, "own") == ()
    said = manager.read("plain", requests=False)
    assert said is not None
    assert (said.jail, said.manager, said.source, said.vnet, said.requests, said.ends, said.advice) == (
        "plain", "jail.conf", str(conf), False, (), (), (),
    )  # fmt: skip
    assert manager.read("nosuch", requests=True) is None


def test_links_of_jails_with_vnet(conf: Path) -> None:
    conf.write_text(
        'jib { vnet; vnet.interface = "e0b_jib e1b_jib"; ip4.addr = 198.51.100.7; } own { vnet; vnet.interface = in; }'
    )
    manager = JailConfFile(conf)
    jib, own = (manager.read(name, requests=True) for name in ("jib", "own"))
    assert jib is not None
    assert own is not None
    assert (jib.vnet, jib.addresses) == (True, ())
    assert jib.ends == (Ends("e0a_jib", ("e0b_jib",)), Ends("e1a_jib", ("e1b_jib",)))
    assert own.ends == ()
    assert len(own.advice) == 1
    assert own.advice[0].startswith(f"{conf}: vnet.interface in: its other end is not known by its name")


@pytest.mark.parametrize(
    ("inner", "outer"), [("epair12b", "epair12a"), ("e3b_a_b", "e3a_a_b"), ("epair12a", None), ("ng0_web1", None)]
)
def test_the_other_end_of_a_pair(inner: str, outer: str | None) -> None:
    assert other_end(inner) == outer


def test_files_of_single_jails_come_first(conf: Path) -> None:
    folder = conf.with_name("jail.conf.d")
    folder.mkdir()
    conf.write_text("a { ip4.addr = 198.51.100.1; } b { ip4.addr = 198.51.100.1; } c { ip4.addr = 198.51.100.1; }")
    conf.with_name("jail.a.conf").write_text("a { ip4.addr = 198.51.100.2; } x { }")
    (folder / "a.conf").write_text("a { ip4.addr = 198.51.100.3; }")
    (folder / "b.conf").write_text("b { ip4.addr = 198.51.100.3; }")
    (folder / "d.conf").write_text("d { ip4.addr = 198.51.100.3; }")
    (folder / "e.conf").write_text("other { }")
    (folder / "not ours.conf").write_text("'not ours' { }")
    (folder / ".d.conf.mobility").write_text("junk")
    manager = JailConfFile(conf)
    assert manager.names() == ["a", "b", "c", "d"]
    assert [addresses(manager, name) for name in "abcd"] == [
        ("198.51.100.2",),
        ("198.51.100.3",),
        ("198.51.100.1",),
        ("198.51.100.3",),
    ]


def test_files_work_without_jail_conf(conf: Path) -> None:
    manager = JailConfFile(conf)
    assert manager.names() == []
    assert manager.signature("a", requests=True) == ()
    conf.with_name("jail.a.conf").write_text("a { ip4.addr = 198.51.100.2; }")
    # a hook may ask before the next look does
    assert manager.signature("a", requests=True)
    assert addresses(manager, "a") == ("198.51.100.2",)
    assert manager.names() == ["a"]


def test_each_change_is_seen_and_no_other(conf: Path) -> None:
    folder = conf.with_name("jail.conf.d")
    folder.mkdir()
    conf.write_text(f'.include "{folder}/*.conf";\nz {{ }}\n')
    for name in ("a", "b"):
        (folder / f"{name}.conf").write_text(f"{name} {{ ip4.addr = 198.51.100.1; }}")
    manager = JailConfFile(conf)
    manager.names()

    def signatures() -> dict[str, tuple[int, ...]]:
        return {name: manager.signature(name, requests=True) for name in "abc"}

    first = signatures()
    assert first == signatures()
    assert (bool(first["a"]), first["c"]) == (True, ())
    replace(folder / "a.conf", "a { ip4.addr = 198.51.100.2; }")
    second = signatures()
    assert second["a"] != first["a"]
    assert addresses(manager, "a") == ("198.51.100.2",)
    # a file that came, and one that all jails depend on
    replace(folder / "c.conf", "c { }")
    third = signatures()
    assert third["c"]
    replace(conf, f'ip6.addr = 2001:db8:7::1;\n.include "{folder}/*.conf";\n')
    assert all(third[name] != now for name, now in signatures().items())
    assert addresses(manager, "b") == ("198.51.100.1", "2001:db8:7::1")
    assert manager.names() == ["a", "b", "c"]
    (folder / "b.conf").unlink()
    assert manager.signature("b", requests=True) == ()
    assert manager.read("b", requests=True) is None


def replace(path: Path, text: str) -> None:
    """Put a new file in its place, as editors do."""
    path.with_name("new").write_text(text)
    path.with_name("new").rename(path)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda path: replace(path, "a { ip4.addr = 198.51.100.2 }"), "line 1: '}' is not expected here"),
        (lambda path: path.chmod(0o666), "may be written by others than root"),
        (lambda path: replace(path, '.include "/nonexistent/x";'), "/nonexistent/x is not there"),
    ],
)
def test_a_slip_of_the_pen_takes_no_address_away(conf: Path, spoil: object, reason: str) -> None:
    conf.write_text("a { ip4.addr = 198.51.100.1; }")
    manager = JailConfFile(conf)
    before = manager.signature("a", requests=True)
    assert callable(spoil)
    spoil(conf)
    assert manager.names() == ["a"]
    assert manager.signature("a", requests=True) != before
    said = manager.read("a", requests=True)
    assert said is not None
    assert said.addresses == ("198.51.100.1",)
    assert reason in said.advice[0]
    assert said.advice[0].endswith("what was read before still counts")
    replace(conf, "a { ip4.addr = 198.51.100.3; }")
    said = manager.read("a", requests=True)
    assert said is not None
    assert (said.addresses, said.advice) == (("198.51.100.3",), ())


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a { path = $no; }", "jail a: path: there is no variable 'no'"),
        ("a { } a { }", "2 blocks are named a: jail(8) takes any of them; leave one"),
    ],
)
def test_a_jail_that_jail_would_not_start_is_told(conf: Path, text: str, reason: str) -> None:
    conf.write_text(f"{text} b {{ ip4.addr = 198.51.100.1; }}")
    manager = JailConfFile(conf)
    with pytest.raises(ValueError, match=r"jail a|named a") as error:
        manager.read("a", requests=True)
    assert reason in str(error.value)
    assert addresses(manager, "b") == ("198.51.100.1",)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux's /proc")
def test_no_file_stays_open(conf: Path) -> None:
    conf.write_text("a { }")
    manager = JailConfFile(conf)

    def opened() -> int:
        return sum(1 for _ in Path("/proc/self/fd").iterdir())

    before = opened()
    manager.names()
    manager.read("a", requests=True)
    assert opened() == before


def test_a_thousand_jails_cost_a_few_stats_each(conf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = conf.with_name("jail.conf.d")
    folder.mkdir()
    conf.write_text(f'.include "{folder}/*.conf";\n')
    for number in range(1000):
        (folder / f"j{number}.conf").write_text(f"j{number} {{ ip4.addr = 198.51.100.1; }}")
    manager = JailConfFile(conf)
    names = manager.names()
    stats = 0
    real = Path.lstat

    def counting(path: Path) -> os.stat_result:
        nonlocal stats
        stats += 1
        return real(path)

    monkeypatch.setattr(Path, "lstat", counting)
    for name in names:
        assert manager.signature(name, requests=True)
    assert stats <= 16 * len(names)
