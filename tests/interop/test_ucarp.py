"""The lab's CARP beside Debian's ucarp, which knows IPv4, one address, and no demotion: each hears the other, and obeys."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.lab.kernel import client
from tests.lab.kernel.client import Kernel
from tests.lab.kernel.test_carp import MAC1, SHARED4, Ear, build, neighbour, reaches, settle, states
from tests.lab.kernel.test_kernel import ok
from tests.waiting import until

UCARP = shutil.which("ucarp", path="/usr/sbin:/usr/bin:/sbin")


@pytest.fixture
def pair() -> Iterator[Kernel]:
    """Hosts a and b and a client c on one bridge."""
    with client.start() as kernel:
        build(kernel)
        yield kernel


@pytest.fixture
def ucarp(pair: Kernel, tmp_path: Path) -> Iterator[Kernel]:
    """The pair, with ucarp in the place of b's CARP."""
    if UCARP is None:
        pytest.skip("there is no ucarp here (Debian: ucarp)")
    for verb in ("add", "del"):
        script = tmp_path / f"{verb}.sh"
        script.write_text(f'#!/bin/sh\nip address {verb} "$2/32" dev "$1"\n')
        script.chmod(0o755)
    process = pair.popen(
        "b",
        [
            *(UCARP, "--interface=xb", "--srcip=192.0.2.3", "--vhid=1", "--pass=secret", f"--addr={SHARED4}"),
            *("--advskew=100", f"--upscript={tmp_path}/add.sh", f"--downscript={tmp_path}/del.sh", "--shutdown"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    yield pair
    process.kill()
    process.wait()


def ucarp_is_master(machine: Kernel) -> bool:
    """Whether ucarp holds the shared address."""
    return f"inet {SHARED4}/32" in machine.run("b", ["ip", "address", "show", "dev", "xb"]).stdout


def test_ucarp_and_the_lab_see_each_other(ucarp: Kernel) -> None:
    until(lambda: ucarp_is_master(ucarp), "ucarp does not take over")
    ok(ucarp, "a", f"ifconfig xa vhid 1 advskew 0 pass secret alias {SHARED4}/32")
    ok(ucarp, "a", "sysctl net.inet.carp.preempt=1")
    settle(ucarp, a="MASTER")  # ours preempts, because it hears that ucarp is slower
    until(lambda: not ucarp_is_master(ucarp), "ucarp does not give way")  # and ucarp hears it
    assert reaches(ucarp, SHARED4)
    assert neighbour(ucarp, "c", SHARED4) == MAC1
    shown = ok(ucarp, "a", "netstat -s -p carp --libxo json")
    assert '"received-inet-packets":0' not in shown
    assert '"dropped-bad-authentication":0' in shown
    ok(ucarp, "a", "ifconfig xa down")
    until(lambda: ucarp_is_master(ucarp), "ucarp does not take over")


def test_the_lab_stays_backup_to_a_faster_ucarp(ucarp: Kernel) -> None:
    until(lambda: ucarp_is_master(ucarp), "ucarp does not take over")
    with closing(Ear(ucarp.devd("a"))) as ear:
        ok(ucarp, "a", f"ifconfig xa vhid 1 advskew 200 pass secret alias {SHARED4}/32")
        assert "BACKUP" in ear.hear()
        until(lambda: '"received-inet-packets":0' not in _counted(ucarp), "ucarp is not heard")
        assert states(ucarp, "a") == ["BACKUP"]


def _counted(machine: Kernel) -> str:
    return ok(machine, "a", "netstat -s -p carp --libxo json")
