"""Changes of files that are not ours: whole or not at all, and only of what was read."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobility.hooks import edit
from mobility.hooks.edit import Change, Hook, HooksError
from mobility.model import Phase


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def three(folder: Path) -> list[Change]:
    """One file that changes, one that is new, one that goes."""
    (folder / "a").write_bytes(b"old a")
    (folder / "c").write_bytes(b"old c")
    return [
        Change("web1", folder / "a", b"old a", b"new a"),
        Change("web1", folder / "new/folder/b", None, b"new b"),
        Change("web1", folder / "c", b"old c", None),
    ]


def test_changes_are_carried_out(tmp_path: Path) -> None:
    edit.apply(three(tmp_path))
    assert files(tmp_path) == {"a": b"new a", "new/folder/b": b"new b"}
    assert (tmp_path / "new/folder/b").stat().st_mode & 0o777 == 0o644


def test_nothing_to_change_touches_nothing(tmp_path: Path) -> None:
    edit.apply([])
    edit.apply([Change("web1", tmp_path / "gone", None, None)])
    assert files(tmp_path) == {}


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give files away")
def test_owner_group_and_mode_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    os.chown(path, 1234, 4321)
    path.chmod(0o640)
    edit.apply([Change("web1", path, b"old", b"new")])
    status = path.stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (1234, 4321, 0o640)


@pytest.mark.parametrize("now", [b"edited", None])
def test_what_has_changed_since_it_was_read_is_left_alone(tmp_path: Path, now: bytes | None) -> None:
    changes = three(tmp_path)
    if now is None:
        (tmp_path / "c").unlink()
    else:
        (tmp_path / "c").write_bytes(now)
    before = files(tmp_path)
    with pytest.raises(HooksError, match=r"jail web1: .*/c has changed since it was read, nothing was changed"):
        edit.apply(changes)
    assert files(tmp_path) == before
    assert not (tmp_path / "new").exists()


def test_what_has_come_since_it_was_looked_for_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"somebody's")
    with pytest.raises(HooksError, match="has changed since"):
        edit.apply([Change("web1", tmp_path / "a", None, b"ours")])
    assert files(tmp_path) == {"a": b"somebody's"}


@pytest.mark.parametrize("nth", range(1, 4))
@pytest.mark.parametrize("call", ["rename", "unlink", "fsync", "fchmod"])
def test_a_failure_half_way_leaves_all_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, nth: int
) -> None:
    changes = three(tmp_path)
    before = files(tmp_path)
    counted = 0
    owner = Path if call in ("rename", "unlink") else os
    real = getattr(owner, call)

    def failing(*arguments: object, **options: object) -> object:
        nonlocal counted
        counted += 1
        if counted == nth:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*arguments, **options)

    monkeypatch.setattr(owner, call, failing)
    if (call, nth) in {("rename", 3), ("fchmod", 3)}:
        edit.apply(changes)  # there are two files to write only
        return
    with pytest.raises(HooksError, match=r"jail web1: .* can not be changed: No space left on device"):
        edit.apply(changes)
    assert files(tmp_path) == before
    assert not (tmp_path / "new").exists()


@pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="needs Linux mounts")
def test_a_real_failure_half_way_is_undone(tmp_path: Path) -> None:
    """The second file is a mount point, which rename(2) refuses with EBUSY after the first one is done."""
    script = f"""
import subprocess, sys
from pathlib import Path
from mobility.hooks.edit import Change, HooksError, apply
folder = Path({str(tmp_path)!r})
for name in "ab":
    (folder / name).write_bytes(b"old")
subprocess.run(["mount", "--bind", folder / "b", folder / "b"], check=True)
try:
    apply([Change("web1", folder / name, b"old", b"new") for name in "ab"])
except HooksError as error:
    print(error)
"""
    done = subprocess.run(
        ["unshare", "--mount", sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    if "unshare" in done.stderr:
        pytest.skip(done.stderr)
    assert "/b can not be changed: Device or resource busy" in done.stdout, done.stderr
    assert files(tmp_path) == {"a": b"old", "b": b"old"}


@pytest.mark.parametrize("step", range(1, 12))
def test_a_killed_process_leaves_each_file_whole_and_the_next_one_goes_on(tmp_path: Path, step: int) -> None:
    changes = three(tmp_path)
    child = os.fork()
    if child == 0:
        _die_at(step)
        edit.apply(changes)
        os._exit(0)
    os.waitpid(child, 0)
    for change in changes:
        assert edit.read("web1", change.path) in (change.before, change.after)
    again = [Change("web1", c.path, edit.read("web1", c.path), c.after) for c in changes]
    edit.apply(again)
    # what was left beside the files has gone as well
    assert files(tmp_path) == {"a": b"new a", "new/folder/b": b"new b"}


def _die_at(step: int) -> None:
    """Let this process die at the given one of its system calls that change something."""
    counted = 0

    def count(event: str, _: object) -> None:
        nonlocal counted
        if event in ("os.rename", "os.remove", "os.mkdir", "os.chown", "os.chmod", "open"):
            counted += 1
            if counted >= step:
                os._exit(9)

    sys.addaudithook(count)


def test_a_link_is_refused_and_named(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(HooksError, match=r"/link is a link to .*/real, and links are not edited: name the file itself"):
        edit.read("web1", tmp_path / "link")
    with pytest.raises(HooksError, match="is a link"):
        edit.apply([Change("web1", tmp_path / "link", b"old", b"new")])
    assert files(tmp_path)["real"] == b"old"


def test_a_link_in_the_temporarys_place_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    (tmp_path / "victim").write_bytes(b"precious")
    (tmp_path / ".a.mobility").symlink_to(tmp_path / "victim")
    edit.apply([Change("web1", tmp_path / "a", b"old", b"new")])
    assert files(tmp_path) == {"a": b"new", "victim": b"precious"}


def test_what_is_no_regular_file_or_too_large_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(HooksError, match="is no regular file"):
        edit.read("web1", tmp_path / "fifo")
    with pytest.raises(HooksError, match="is no regular file"):
        edit.read("web1", tmp_path)
    (tmp_path / "large").write_bytes(b" " * (edit.MAX_BYTES + 1))
    with pytest.raises(HooksError, match="is larger than"):
        edit.read("web1", tmp_path / "large")
    assert edit.read("web1", tmp_path / "gone") is None


def test_two_changes_of_one_file_are_a_mistake_of_ours(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="two changes"):
        edit.apply([Change("web1", tmp_path / "a", None, b"1"), Change("web1", tmp_path / "a", None, b"2")])


@given(st.binary(max_size=40) | st.none(), st.binary(max_size=40) | st.none())
def test_a_diff_is_shown_for_any_bytes(before: bytes | None, after: bytes | None) -> None:
    shown = edit.diff(Change("web1", Path("/etc/jail.conf"), before, after))
    assert bool(shown) == ((before or b"") != (after or b""))
    assert not shown or shown.endswith("\n")


def test_a_diff_is_one_that_patch_reads() -> None:
    shown = edit.diff(Change("web1", Path("/etc/jail.conf"), b"a\nb", b"a\nb\n"))
    assert shown == (
        "--- /etc/jail.conf\n+++ /etc/jail.conf\n@@ -1,2 +1,2 @@\n a\n-b\n\\ No newline at end of file\n+b\n"
    )


def test_a_hooks_command() -> None:
    assert Hook().command(Phase.PRESTART, "${name}") == "/usr/local/libexec/mobility/hook prestart '${name}'"
    hook = Hook(Path("/opt/hook"), Path("/etc/m.toml"))
    assert hook.command(Phase.POSTSTOP, "web1") == "/opt/hook -c /etc/m.toml poststop 'web1'"


@pytest.mark.parametrize("path", ["hook", "/a b", "/a'b", "/a;b", "/a$b", '/a"b', "/a\\b", "/a\nb"])
def test_paths_that_mean_something_else_to_sh_or_jail_are_refused(path: str) -> None:
    with pytest.raises(HooksError, match="can not stand in a hook's line"):
        Hook(Path(path))
    with pytest.raises(HooksError, match="can not stand in a hook's line"):
        Hook(config=Path(path))


@pytest.mark.parametrize("mode", [0o666, 0o664])
def test_what_others_could_have_written_is_not_taken_over(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "config.json"
    path.write_text("{}")
    path.chmod(mode)
    with pytest.raises(HooksError, match="may be written by others"):
        edit.read("web1", path)
    path.chmod(0o644)
    assert edit.read("web1", path) == b"{}"
