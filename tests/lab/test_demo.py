"""`make demo` is run, ends well, and prints what README.md shows of it, in that order; `make play` can be played with."""

from __future__ import annotations

import os
import re
import subprocess
import sys

from tests.readme import LEFT_OUT, PATH, REPOSITORY, blocks, masked

#: What differs from run to run in a demo, beside what `masked` knows.
_COUNTS = re.compile(r"\b\d+ of \d+ answered, longest gap \d+ ms|\bepair\d+[ab]?\b|-> \d+ ")


def plain(lines: list[str]) -> list[str]:
    return masked([_COUNTS.sub("N", line) for line in lines if line.strip()])


def test_the_demo_ends_well_and_prints_what_the_page_shows() -> None:
    (target,) = re.findall(r"^demo: .*\n(?:\t.*\n)*", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    assert target.endswith("\t@$(RUN) -m tests.lab.demo\n")
    argv = [sys.executable, "-m", "tests.lab.demo"]
    done = subprocess.run(argv, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("\ndemo: ok\n")
    (shown,) = [each.text for each in blocks(PATH.read_text(), "text") if each.text.startswith("== step")]
    printed = iter(plain(done.stdout.splitlines()))
    for line in plain(shown.splitlines()):
        assert line == LEFT_OUT or line in printed, f"not printed, or not in this order: {line}"


def test_a_lab_to_play_with() -> None:
    """What it prints to type is typed in another shell."""
    argv = [sys.executable, "-m", "tests.lab.play"]
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, cwd=REPOSITORY, text=True, stdin=pipe, stdout=pipe, stderr=pipe) as play:
        assert play.stdout is not None
        path = play.stdout.readline()
        line = play.stdout.readline().strip()
        hosts = [play.stdout.readline() for _ in range(2)]
        try:
            assert path.startswith("PATH="), path
            folder = path.removeprefix("PATH=").partition(":")[0]
            words = {"PATH": f"{folder}:{os.environ['PATH']}"}
            told = subprocess.run(["/bin/sh", "-ec", line], env=words, capture_output=True, text=True, check=False)
        finally:
            _, complaints = play.communicate("\n", timeout=60)
    assert told.returncode == 0, told.stdout + told.stderr
    assert "web1: created" in told.stdout
    assert "1 packets received" in told.stdout
    assert all("agent.log" in each for each in hosts)
    assert (play.returncode, complaints) == (0, "")
