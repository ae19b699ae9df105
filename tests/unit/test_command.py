"""Running commands: nothing hangs us, floods us, or learns anything from us."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mobility.network.command import CommandError, find, run
from tests.waiting import alive, until

BIN = (Path("/usr/bin"), Path("/bin"))


def script(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_the_answer(tmp_path: Path) -> None:
    script(tmp_path, "speak", 'echo "out $1"; echo err >&2; exit 3')
    result = run(["speak", "a b; c"], [tmp_path, *BIN], timeout=30)
    assert (result.status, result.stdout, result.stderr) == (3, "out a b; c\n", "err\n")
    assert result.complaint == "err"


def test_a_clean_environment_and_no_descriptors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "x")
    script(tmp_path, "look", "env; ls /proc/self/fd; cat; pwd")
    inherited = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(inherited, True)
    try:
        result = run(["look"], [tmp_path, *BIN], timeout=30)
    finally:
        os.close(inherited)
    assert "SECRET" not in result.stdout
    assert f"PATH={tmp_path}:/usr/bin:/bin" in result.stdout
    assert str(inherited) not in result.stdout.split()
    assert result.stdout.splitlines()[-1] == "/"


def test_a_hung_command_is_ended_with_what_it_started(tmp_path: Path) -> None:
    script(tmp_path, "hang", f"sleep 600 & echo $! > {tmp_path}/child; wait")
    # long enough for a shell to have started the child
    with pytest.raises(CommandError, match="no answer within 2 s"):
        run(["hang"], [tmp_path, *BIN], timeout=2)
    child = int((tmp_path / "child").read_text())
    until(lambda: not alive(child), "what the killed command started lives on")  # a signal takes its time


def test_a_command_that_closes_its_output_and_lives_on(tmp_path: Path) -> None:
    script(tmp_path, "hush", "exec >&- 2>&-; sleep 600")
    with pytest.raises(CommandError, match="no answer"):
        run(["hush"], [tmp_path, *BIN], timeout=0.3)


def test_a_flood_is_cut_off(tmp_path: Path) -> None:
    script(tmp_path, "flood", "exec cat /dev/zero")
    with pytest.raises(CommandError, match="said more than 100000 bytes"):
        run(["flood"], [tmp_path, *BIN], timeout=30, limit=100_000)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    script(tmp_path, "bytes", r"printf '\377\000\n'")
    assert run(["bytes"], [tmp_path, *BIN], timeout=30).stdout == "\ufffd\0\n"


def test_a_missing_command_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=f"not found in {tmp_path}"):
        run(["nosuch"], [tmp_path], timeout=30)


def test_the_first_folder_wins(tmp_path: Path) -> None:
    script(tmp_path, "true", "exit 0")
    assert find("true", [tmp_path, *BIN]) == tmp_path / "true"
    assert find("true", BIN) == Path("/usr/bin/true")
