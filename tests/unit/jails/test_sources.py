"""What counts of what files say: jails.d over the managers' files over what a jail asks for, and files of a jail's root."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobility.jails import jailsd
from mobility.jails.jailsd import Entry
from mobility.jails.said import MAX_BYTES, Ends, Said, Signature, hooked, read_beneath, read_text, stat_beneath
from mobility.jails.sources import Sources, combine
from mobility.model import host_prefix, network_prefix

ALLOWED = (network_prefix("198.51.100.0/24"), network_prefix("2001:db8:7::/64"))
SAID = Said(
    "web1",
    "bastille",
    "/usr/local/bastille/jails/web1/jail.conf",
    vnet=True,
    addresses=("198.51.100.7/32", "2001:db8:7::7"),
    ends=(Ends("e0a_web1", ("vnet0",)),),
    hooks=True,
)
ASKING = Said("web1", "bastille", "jail.conf", vnet=True, requests=("198.51.100.7/24", "198.51.100.200", "192.0.2.1"))


def texts(*arguments: object) -> tuple[str, ...]:
    return combine("web1", *arguments, ALLOWED).texts  # type: ignore[arg-type,call-arg]


def test_what_a_manager_wires_is_not_touched_unasked() -> None:
    jail = combine("web1", None, replace(SAID, hooks=False), ALLOWED)
    assert (jail.addresses, jail.ends) == ((), None)
    assert "mobility hooks install bastille" in jail.refused[0]
    assert combine("web1", None, replace(SAID, hooks=False, ends=()), ALLOWED).addresses


@pytest.mark.parametrize(
    ("command", "ours"),
    [
        ("/usr/local/libexec/mobility/hook poststart 'web1'", True),
        ("true && /opt/hook -c /etc/m.toml poststart 'web1'; date", True),
        ('/usr/local/libexec/mobility/hook poststart "web1"', True),
        ("/usr/local/libexec/mobility/hook poststart 'web10'", False),
        ("/usr/local/libexec/mobility/hook prestart 'web1'", False),
        ("echo mypoststart web1", False),
    ],
)
def test_our_hook_is_known_by_its_words(command: str, ours: bool) -> None:
    assert hooked(["date", command], "web1") is ours


def test_what_root_wrote_for_the_manager_is_a_grant() -> None:
    jail = combine("web1", None, SAID, ALLOWED)
    assert jail.texts == ("198.51.100.7", "2001:db8:7::7")
    assert (jail.ends, jail.vnet, jail.source, jail.refused) == (SAID.ends[0], True, SAID.source, ())


def test_jails_d_is_over_everything() -> None:
    entry = Entry("web1.toml", addresses=(host_prefix("198.51.100.9"),))
    jail = combine("web1", entry, SAID, ALLOWED)
    assert (jail.texts, jail.source) == (("198.51.100.9",), "web1.toml")
    assert combine("web1", Entry("web1.toml", link="ours"), SAID, ALLOWED).ends is None
    assert combine("web1", Entry("web1.toml", link="adopt"), SAID, ALLOWED).ends == SAID.ends[0]


def test_a_request_counts_within_what_is_granted_and_a_refused_one_is_told() -> None:
    nobody = combine("web1", None, ASKING, ALLOWED)
    assert not nobody.addresses
    assert len(nobody.refused) == 3
    assert "jails.d/web1.toml" in nobody.refused[0]
    some = combine("web1", Entry("web1.toml", requests=(network_prefix("198.51.100.0/28"),)), ASKING, ALLOWED)
    assert some.texts == ("198.51.100.7",)
    assert "198.51.100.200 is not granted" in some.refused[0]
    assert "192.0.2.1: it lies outside host.allowed" in some.refused[1]


@given(st.lists(st.ip_addresses().map(str), max_size=8), st.lists(st.text(max_size=20), max_size=4))
def test_nothing_outside_the_grants_is_ever_granted(asked: list[str], nonsense: list[str]) -> None:
    said = Said("web1", "m", "f", vnet=True, addresses=(*asked, *nonsense), requests=(*asked, *nonsense))
    jail = combine("web1", Entry("web1.toml", requests=(network_prefix("198.51.100.0/28"),)), said, ALLOWED)
    assert all(any(prefix in net for net in ALLOWED) for prefix in jail.addresses)
    hooked_up = Said("web1", "m", "f", vnet=True, hooks=True)
    assert "nobody grants it an address" in combine("web1", None, hooked_up, ALLOWED).refused[0]
    only = Said("web1", "m", "f", vnet=True, requests=(*asked, *nonsense))
    within = network_prefix("198.51.100.0/28")
    found = combine("web1", Entry("web1.toml", requests=(within,)), only, ALLOWED)
    assert all(prefix in within for prefix in found.addresses)


class Folder:
    """A manager whose jails are files of one folder: an address a line."""

    name = "folder"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.read_with: list[bool] = []

    def names(self) -> list[str]:
        return [path.name for path in self.path.iterdir()]

    def faults(self) -> list[str]:
        return []

    def signature(self, jail: str, *, requests: bool) -> Signature:
        return stat_beneath(self.path, jail)

    def read(self, jail: str, *, requests: bool) -> Said | None:
        self.read_with.append(requests)
        text = (self.path / jail).read_text()
        if "broken" in text:
            raise ValueError("can not be read: mend it")
        return Said(jail, self.name, str(self.path / jail), vnet=True, addresses=tuple(text.split()))


class Recording(Folder):
    """Notes which jails' own files it was to read."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.asked: set[str] = set()

    def read(self, jail: str, *, requests: bool) -> Said | None:
        if requests:
            self.asked.add(jail)
        return super().read(jail, requests=requests)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    for name in ("jails.d", "manager"):
        (tmp_path / name).mkdir()
    return tmp_path / "jails.d", tmp_path / "manager"


def test_files_are_read_again_when_they_change(folders: tuple[Path, Path]) -> None:
    own, theirs = folders
    manager = Folder(theirs)
    files = Sources(jailsd.Folder(own, ALLOWED), [manager], ALLOWED)
    (theirs / "web1").write_text("198.51.100.7")
    (theirs / "web2").write_text("10.0.0.1")
    assert files.refresh() == {"web1", "web2"}
    assert files.jails["web1"].texts == ("198.51.100.7",)
    assert list(files.jails) == ["web1"]
    assert "outside host.allowed" in files.refused["web2"][0]
    assert not files.problems
    assert not files.refresh()
    assert not files.refresh_one("web1")
    (own / "web1.toml").write_text('addresses = ["198.51.100.8"]')
    assert files.refresh_one("web1")
    assert files.jails["web1"].texts == ("198.51.100.8",)
    assert manager.read_with[-1] is False
    (own / "web1.toml").unlink()
    (theirs / "web2").unlink()
    assert files.refresh() == {"web1"}  # web2's file may be one that is just being written
    assert files.jails["web1"].texts == ("198.51.100.7",)
    assert files.refresh() == {"web2"}
    assert not files.refused


def test_a_managers_file_that_is_empty_for_a_moment_costs_nothing(folders: tuple[Path, Path]) -> None:
    own, theirs = folders
    files = Sources(jailsd.Folder(own, ALLOWED), [Folder(theirs)], ALLOWED)
    (theirs / "web1").write_text("198.51.100.7")
    files.refresh()
    (theirs / "web1").unlink()
    assert not files.refresh_one("web1")
    assert not files.refresh()
    (theirs / "web1").write_text("198.51.100.8")
    assert files.refresh() == {"web1"}
    assert files.jails["web1"].texts == ("198.51.100.8",)


def test_a_fault_of_a_manager_takes_no_grant_of_jails_d_and_no_other_jail(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    own, theirs = folders
    manager = Folder(theirs)
    files = Sources(jailsd.Folder(own, ALLOWED), [manager], ALLOWED)
    (theirs / "web1").write_text("broken")
    (theirs / "web2").write_text("198.51.100.8")
    (own / "web1.toml").write_text('addresses = ["198.51.100.7"]')
    files.refresh()
    assert files.jails["web1"].texts == ("198.51.100.7",)
    assert "mend it" in files.refused["web1"][0]
    assert not files.problems

    def fail() -> list[str]:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(manager, "names", fail)
    assert not files.refresh()
    assert set(files.jails) == {"web1", "web2"}
    assert "Input/output error" in str(files.problems[""][0])
    monkeypatch.undo()
    files.refresh()
    assert not files.problems


def test_a_folder_that_can_not_be_read_for_now_keeps_its_jails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "web1.toml").write_text('addresses = ["198.51.100.7"]')
    folder = jailsd.Folder(tmp_path, ALLOWED)
    folder.refresh()

    def fail(path: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "scandir", fail)
    assert not folder.refresh()
    assert "web1" in folder.entries
    assert "Too many open files" in str(folder.problems[""][0])


def test_only_jails_that_may_ask_are_asked(folders: tuple[Path, Path]) -> None:
    own, theirs = folders
    for jail in ("asks", "silent", "given"):
        (theirs / jail).write_text("198.51.100.7")
    (own / "asks.toml").write_text('requests = ["198.51.100.0/28"]')
    (own / "given.toml").write_text('addresses = ["198.51.100.8"]')
    for ask_all, asked in ((False, {"asks"}), (True, {"asks", "silent"})):
        manager = Recording(theirs)
        Sources(jailsd.Folder(own, ALLOWED), [manager], ALLOWED, ask_all=ask_all).refresh()
        assert manager.asked == asked


def test_a_file_that_can_not_be_used_is_a_problem_of_its_jail_alone(folders: tuple[Path, Path]) -> None:
    own, theirs = folders
    files = Sources(jailsd.Folder(own, ALLOWED), [Folder(theirs)], ALLOWED)
    (theirs / "web1").write_text("broken")
    (theirs / "web2").write_text("198.51.100.8")
    (own / "web3.toml").write_text('link = "ours"')
    files.refresh()
    assert list(files.jails) == ["web2"]
    assert "mend it" in str(files.problems["web1"][0])
    assert "gives the jail no address" in str(files.problems["web3"][0])
    (theirs / "web1").write_text("198.51.100.7")
    files.refresh()
    assert set(files.jails) == {"web1", "web2"}


# -- files of root's, and files below a jail's root


def test_a_comment_of_old_keeps_a_file_readable_and_nothing_stays_open(tmp_path: Path) -> None:
    (tmp_path / "jail.conf").write_bytes(b"# M\xfcller\nweb1 { }\n")
    assert "web1 { }" in read_text(tmp_path / "jail.conf")
    before = len(list(Path("/dev/fd").iterdir()))
    for path in (tmp_path, tmp_path / "nothing"):
        with pytest.raises((ValueError, OSError)):
            read_text(path)
    assert len(list(Path("/dev/fd").iterdir())) == before


def test_no_link_is_followed_and_nothing_but_a_file_is_read(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc" / "rc.conf").write_text('hostname="web1"\n')
    assert read_beneath(root, "etc/rc.conf") == 'hostname="web1"\n'
    assert stat_beneath(root, "etc/rc.conf")
    assert read_beneath(root, "etc/nothing") is None
    assert stat_beneath(root, "etc/nothing") == ()
    (tmp_path / "secret").write_text("secret")
    (root / "etc" / "link").symlink_to(tmp_path / "secret")
    (root / "outside").symlink_to(tmp_path)
    os.mkfifo(root / "etc" / "pipe")
    (root / "etc" / "huge").write_text("#" * (MAX_BYTES + 1))
    for name in ("etc/link", "outside/secret", "etc/pipe", "etc/huge", "etc"):
        with pytest.raises(ValueError, match=name):
            read_beneath(root, name)
    assert stat_beneath(root, "outside/secret") == ()
