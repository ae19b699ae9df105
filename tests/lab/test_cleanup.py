"""Nothing of a lab is left: not after its end, not after Ctrl-C, not after kill -9 of whoever started it."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.clean import members
from tests.lab.kernel import processes
from tests.lab.topology import REPOSITORY

END_SECONDS = 40.0
#: A lab with something in each kind of namespace: an agent, BIRD, a jail with a process of its own, deaf to SIGTERM.
_RUNNER = """
import sys
from tests.lab.topology import Lab
with Lab(hosts=1) as lab:
    host = lab.hosts[0]
    host.start_agent()
    host.define_jail("web1", [], hooks=False, start="trap '' TERM; sleep 600 >/dev/null 2>&1 &")
    host.start_jail("web1")
    print(lab.ground.folder, flush=True)
    sys.stdin.read()
    raise SystemExit(3)
"""


class Runner:
    """A lab in a process of its own, its folder, its namespaces, and a handle of its kernel."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _RUNNER], cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.folder = Path(self.process.stdout.readline().strip())
        self.kernel = int((self.folder / "kernel.pid").read_text().split()[0])
        self._kernel = os.pidfd_open(self.kernel)
        # by pid and start: the numbers of dead namespaces are soon those of another lab
        self._processes = {pid: processes.start_time(pid) for pid in members(self.folder)}

    def kernel_ends(self, seconds: float = END_SECONDS) -> bool:
        """Wait for the end of the kernel."""
        return bool(select.select([self._kernel], [], [], seconds)[0])

    def left(self) -> list[str]:
        """What is left of the processes that were in the lab's namespaces, and of its folder."""
        found = []
        for pid, started in self._processes.items():
            try:
                if processes.start_time(pid) == started:
                    found.append(f"process {pid}: {Path(f'/proc/{pid}/cmdline').read_bytes()!r}")
            except (ProcessLookupError, FileNotFoundError):
                continue  # it is gone
        return found + [str(self.folder)] * self.folder.exists()

    def close(self) -> None:
        """End what a failed test left."""
        self.process.kill()
        self.process.communicate()
        os.close(self._kernel)


@pytest.fixture
def runner() -> Iterator[Runner]:
    lab = Runner()
    try:
        there = "\n".join(lab.left())
        assert all(each in there for each in ("bird", "mobility", "sleep", str(lab.folder))), there
        yield lab
    finally:
        lab.close()


def clean() -> str:
    """`make clean`'s part: end what dead labs left."""
    argv = [sys.executable, "-m", "tests.lab.clean"]
    result = subprocess.run(argv, cwd=REPOSITORY, check=False, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("number", [None, signal.SIGINT])
def test_after_an_error_and_after_ctrl_c_nothing_is_left(runner: Runner, number: signal.Signals | None) -> None:
    if number is not None:
        runner.process.send_signal(number)
    runner.process.communicate(timeout=END_SECONDS)  # it also is the end of the runner's standard input
    assert runner.process.returncode == (3 if number is None else -number)
    assert runner.kernel_ends()
    assert runner.left() == []


def test_after_kill_9_of_the_runner_the_kernel_cleans_up_by_itself(runner: Runner) -> None:
    runner.process.kill()
    assert runner.kernel_ends()
    assert [what for what in runner.left() if what.startswith("process")] == []
    clean()
    assert runner.left() == []


def test_after_kill_9_of_the_runner_and_the_kernel_make_clean_does(runner: Runner) -> None:
    runner.process.send_signal(signal.SIGSTOP)  # so that it can not start anything in between
    os.kill(runner.kernel, signal.SIGKILL)
    runner.process.kill()
    assert runner.kernel_ends()
    assert len(runner.left()) > 1
    assert str(runner.folder) in clean()
    assert runner.left() == []


def test_make_clean_leaves_a_lab_that_runs_alone(runner: Runner) -> None:
    before = runner.left()
    assert f"{runner.folder}: its kernel runs: left alone" in clean()
    assert runner.left() == before
