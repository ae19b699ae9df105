"""What `mobility exabgp` does before it becomes ExaBGP."""

from __future__ import annotations

import getpass
import os
import stat
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from mobility import config
from mobility.bgp import run

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it becomes another user")


@pytest.fixture
def loaded(tmp_path: Path) -> config.Config:
    program = tmp_path / "exabgp"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    path = tmp_path / "mobility.toml"
    path.write_text(
        f"""
        host.allowed = ["198.51.100.0/24"]
        [paths]
        run = "{tmp_path}/run"
        [bgp]
        as = 65001
        router_id = "10.0.0.1"
        user = "{getpass.getuser()}"
        exabgp = "{program}"
        bridge_command = ["/bin/sh", "{program}"]
        [[bgp.peer]]
        name = "spine"
        address = "fd00:1::ff"
        as = 65000
        local_address = "fd00:1::1"
        password = "s3cret"
        """
    )
    return config.load(path)


def bgp(loaded: config.Config, **changes: object) -> config.Config:
    return replace(loaded, bgp=replace(loaded.bgp, **changes))  # type: ignore[arg-type]  # the tests know


def test_the_configuration_is_written_for_its_user_only(loaded: config.Config) -> None:
    for _ in range(2):  # a second start replaces it
        command, environment = run.prepare(loaded)
    written = loaded.paths.run / "exabgp.conf"
    assert command == [loaded.bgp.exabgp, "server", str(written)]
    assert environment["exabgp.daemon.user"] == getpass.getuser()
    assert stat.S_IMODE(written.stat().st_mode) == 0o600
    assert 'md5-password "s3cret";' in written.read_text()
    assert sorted(path.name for path in loaded.paths.run.iterdir()) == ["exabgp.conf", "exabgp.env"]


def test_it_is_written_anew_for_an_exabgp_that_runs(loaded: config.Config) -> None:
    run.rewrite(loaded)  # which never ran: nothing to do
    assert not (loaded.paths.run / run.CONF_NAME).exists()
    run.prepare(loaded)
    path = loaded.paths.run / run.CONF_NAME
    before = path.stat()
    peer = replace(loaded.bgp.peers[0], hold_time=9)
    run.rewrite(bgp(loaded, peers=(peer,)))
    assert "hold-time 9;" in path.read_text()
    assert path.stat().st_ino != before.st_ino  # whole or not at all
    assert path.stat().st_mode == before.st_mode
    with pytest.raises(run.ExabgpError, match="can not stand in ExaBGP's configuration"):
        run.rewrite(bgp(loaded, bridge_command=("/bin/sh", "a;b")))
    assert "hold-time 9;" in path.read_text()


def test_the_environment_is_ours_alone(loaded: config.Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("exabgp.tcp.once", "true")
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    _, environment = run.prepare(loaded)
    assert {name for name in environment if not name.startswith("exabgp.")} == {"PATH", "EXABGP_ENVFILE"}
    assert "exabgp.tcp.once" not in environment


def test_a_missing_user_is_named(loaded: config.Config) -> None:
    with pytest.raises(run.ExabgpError, match=r"'nosuchuser' .*does not exist: pw useradd"):
        run.prepare(bgp(loaded, user="nosuchuser"))


def test_a_missing_exabgp_is_named(loaded: config.Config) -> None:
    with pytest.raises(run.ExabgpError, match=r"'nosuchprogram' \(bgp.exabgp\) is not found"):
        run.prepare(bgp(loaded, exabgp="nosuchprogram"))


def test_a_missing_bridge_is_named(loaded: config.Config) -> None:
    with pytest.raises(run.ExabgpError, match=r"/nowhere/bridge.py \(bgp.bridge_command\) does not exist"):
        run.prepare(bgp(loaded, bridge_command=(sys.executable, "/nowhere/bridge.py")))


def test_what_can_not_be_said_to_exabgp_is_named(loaded: config.Config) -> None:
    with pytest.raises(run.ExabgpError, match="can not stand in ExaBGP's configuration"):
        run.prepare(bgp(loaded, bridge_command=("/bin/sh", "a;b")))


@root_only
def test_a_bridge_that_the_user_can_not_reach_is_named(loaded: config.Config, tmp_path: Path) -> None:
    """ExaBGP itself says nothing, and no session ever starts."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    bridge = closed / "bridge.py"
    bridge.write_text("")
    for folder in (tmp_path, *tmp_path.parents):
        if not folder.stat().st_mode & stat.S_IXOTH:
            closed = folder  # pytest's own folders are closed already
    with pytest.raises(run.ExabgpError, match=f"user 'nobody' .* may not read {closed}, .*/usr/local"):
        run.prepare(bgp(loaded, user="nobody", bridge_command=("/bin/sh", str(bridge))))


@root_only
def test_closed_to_asks_the_kernel(tmp_path: Path) -> None:
    nobody = run.account("nobody")
    assert run.closed_to(nobody, [Path("/bin/sh"), Path("/etc/passwd")]) is None
    assert run.closed_to(nobody, [Path("/bin/sh"), Path("/etc/shadow")]) == Path("/etc/shadow")
    assert run.closed_to(run.account("root"), [Path("/etc/shadow")]) is None


def test_a_run_folder_that_can_not_be_made_is_named(loaded: config.Config, tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    with pytest.raises(run.ExabgpError, match=r"exabgp.conf can not be written: "):
        run.prepare(replace(loaded, paths=replace(loaded.paths, run=in_the_way / "run")))


def test_no_exec_is_an_error_not_a_traceback(loaded: config.Config) -> None:
    with pytest.raises(run.ExabgpError, match="can not be started: No such file"):
        run.become_bridge(bgp(loaded, bridge_command=("/nowhere/python3",)))
