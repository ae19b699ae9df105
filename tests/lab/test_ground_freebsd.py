"""The ground for FreeBSD, on a lab kernel in FreeBSD's place: what it does there, and that its commands are recorded ones."""

from __future__ import annotations

import ipaddress
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.lab import ground_freebsd
from tests.lab.demo import Demo
from tests.lab.ground_freebsd import FreeBSDGround, Machine, clean, routes_of
from tests.lab.kernel import client
from tests.lab.kernel.client import Kernel
from tests.lab.topology import REPOSITORY, Lab, Node

TRANSCRIPTS = REPOSITORY / "tests/lab/transcripts/freebsd-13.2"
#: What tells of routes on Linux: the same program, with rtnetlink(7)'s socket (RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_ROUTE).
LINUX_NEWS = ground_freebsd.NEWS.replace("AF_ROUTE", "AF_NETLINK").replace(
    "socket.SOCK_RAW)", "socket.SOCK_RAW, 0)\nnews.bind((0, 0x440))"
)
#: The lab's netstat shows what was made by the lab's commands, and BIRD asks Linux itself: so Linux is shown, in its form.
LINUX_NETSTAT = """
import json, subprocess
families = []
for option, name in (("-4", "Internet"), ("-6", "Internet6")):
    found = json.loads(subprocess.run(["ip", "-j", option, "route"], capture_output=True, check=True).stdout)
    entries = [
        {"destination": route["dst"], "gateway": route.get("gateway") or route.get("via", {}).get("host") or "link#1"}
        for route in found
    ]
    families.append({"address-family": name, "rt-entry": entries})
print(json.dumps({"statistics": {"route-information": {"route-table": {"rt-family": families}}}}))
"""
#: FreeBSD's own programs that the lab calls, and what stands in for names in the commands below.
PROGRAMS = {"ifconfig", "jail", "jexec", "jls", "kldload", "ndp", "netstat", "ping", "route", "sysctl"}
NAMES = re.compile(r"a|b|spine|client|web1|(to|up|mob|in)-\w+|epair\d+[ab]?|/.*|\d+|mobility-lab-.*")
#: Forms that no transcript shows, with the source that does.
CITED = {
    "netstat -rnW --libxo json": "netstat(1), -W; 3-routes.txt has both without each other",
    "ping -n -c N -t N A": "ping(8), -n; the rest is in 9-fabric.txt",
    "ping -6 -n -c N -t N A": "ping(8), -n; the rest is in 9-fabric.txt",
}


def machine_on(kernel: Kernel, prefix: str) -> Machine:
    return Machine(
        enter=tuple(kernel.enter("")),
        commands=(kernel.bin, Path("/usr/bin"), Path("/bin")),
        environment=kernel.environment(),
        prefix=prefix,
        news=(sys.executable, "-c", LINUX_NEWS),
        netstat=(sys.executable, "-c", LINUX_NETSTAT),
    )


@pytest.fixture
def freebsd(machine: Kernel) -> Iterator[Machine]:
    """A lab kernel as the machine, which must be as it was at the end."""
    there = machine_on(machine, f"/tmp/mobility-lab-{os.getpid()}.")
    before = there.run(["ifconfig", "-l"])
    yield there
    assert there.run(["ifconfig", "-l"]) == before
    assert there.run(["jls", "name"]).split() == []
    assert list(Path("/tmp").glob(f"{Path(there.prefix).name}*")) == []


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """Every command that the lab itself has FreeBSD run."""
    found: list[tuple[str, ...]] = []
    run, commands, on_machine = Node.run, Node.commands, Machine.run

    def node_run(node: Node, argv: Sequence[str | Path], **options: Any) -> subprocess.CompletedProcess[str]:
        found.append(tuple(map(str, argv)))
        return run(node, argv, **options)

    def node_commands(node: Node, lines: Sequence[Sequence[str]]) -> None:
        found.extend(map(tuple, lines))
        commands(node, lines)

    def machine_run(machine: Machine, argv: Sequence[str], *, check: bool = True) -> str:
        found.append(tuple(argv))
        return on_machine(machine, argv, check=check)

    monkeypatch.setattr(Node, "run", node_run)
    monkeypatch.setattr(Node, "commands", node_commands)
    monkeypatch.setattr(Machine, "run", machine_run)
    return found


def test_the_demo_runs_on_it_by_commands_that_a_real_freebsd_took(
    freebsd: Machine, ran: list[tuple[str, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    with Lab(ground=FreeBSDGround(freebsd)) as lab:
        Demo(lab).run()
    ran.append(ground_freebsd.NETSTAT)
    forms = {form for argv in ran for form in simple(argv) if form[0] in PROGRAMS}
    assert {words[0] for words in forms} >= {
        "ifconfig",
        "jail",
        "jexec",
        "jls",
        "kldload",
        "netstat",
        "route",
        "sysctl",
    }
    unknown = [" ".join(form) for form in sorted(forms) if " ".join(form) not in CITED and not recorded(form)]
    assert not unknown


def simple(argv: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """The commands within a command, jexec's and sh's own too; names are N, addresses A and prefixes A/LENGTH."""
    match list(argv):
        case ["jexec", jail, *inner]:
            yield ("jexec", kind(jail))
            yield from simple(inner)
        case ["sh", "-c", script]:
            yield from simple([word for word in shlex.split(script) if word != ">/dev/null"])
        case words:
            yield tuple(kind(word) for word in words)


def kind(word: str) -> str:
    bare, slash, length = word.partition("%")[0].partition("/")
    try:
        ipaddress.ip_address(bare)
    except ValueError:
        return "N" if NAMES.fullmatch(word) else word
    # all of 127/8 is lo0's, which every transcript writes in this one way
    return word if word == "127.0.0.1/8" else f"A{slash}{length}"


@cache
def corpus() -> list[list[str]]:
    """Every command of the transcripts, and of the scripts whose run they show (their `q` prints nothing)."""
    found: list[list[str]] = []
    for path in TRANSCRIPTS.iterdir():
        for line in path.read_text().splitlines():
            if path.suffix == ".txt" and line.startswith("$ "):
                found.append(line[2:].split())
            if path.suffix == ".sh":
                # J="jexec a jexec web1" and the like are used as "$J"
                parts = re.split(r"[;{}()]|&&|\|", line)
                found += [
                    [word for word in part.replace('"', "").split() if word not in ("q", "t", "p")] for part in parts
                ]
    return found


def recorded(form: Sequence[str]) -> bool:
    """Whether some recorded command, or the end of one (after jexec, or a script's $J), has this form."""
    if form[0] == "jexec":
        return any(line[:1] == ["jexec"] for line in corpus())
    if form[:2] == ("jail", "-c"):
        # parameters come in any order (jail(8)), with any value
        known = {word.partition("=")[0] for line in corpus() if line[:2] == ["jail", "-c"] for word in line[2:]}
        return known >= {word.partition("=")[0] for word in form[2:]}
    return any(
        len(line) >= len(form)
        and all(same(ours, theirs) for ours, theirs in zip(form, line[-len(form) :], strict=True))
        for line in corpus()
    )


def same(ours: str, theirs: str) -> bool:
    if ours == "N":
        return not theirs.startswith("-")
    if ours.startswith("A"):
        # $1 and $3/64 are addresses of a script's function
        return kind(theirs) == ours or ("$" in theirs and theirs.partition("/")[2] == ours.partition("/")[2])
    return ours == theirs


def test_a_form_that_is_not_recorded_is_found() -> None:
    assert recorded(("ifconfig", "N", "vnet", "N"))
    assert not recorded(("ifconfig", "N", "vnet", "N", "up"))
    assert not recorded(("route", "-n", "add", "-host", "A", "-inet", "A"))
    assert not recorded(("sysctl", "net.inet.ip.forwarding=2"))


def test_routes_are_read_as_13_2_prints_them() -> None:
    text = (TRANSCRIPTS / "3-routes.txt").read_text()
    answer = text.partition("$ netstat --libxo json -rn\n")[2].partition("\n")[0]
    assert routes_of(answer) == {
        "127.0.0.1/32": {""},
        "198.51.100.7/32": {"fe80::2"},
        "203.0.113.1/32": {""},
        "::1/128": {""},
        "2001:db8:7::7/128": {"fe80::2"},
        "2001:db8:7::8/128": {"fe80::2"},
        "fe80::/64": {""},
        "fe80::1/128": {""},
    }


def test_two_labs_at_once_do_not_meet(freebsd: Machine) -> None:
    with Lab(hosts=1, ground=FreeBSDGround(freebsd)) as one, Lab(hosts=1, ground=FreeBSDGround(freebsd)) as other:
        for lab in (one, other):
            assert lab.client.ping(lab.hosts[0].address)
        one.hosts[0].commands([["ifconfig", "lo0", "inet", "198.51.100.7/32", "alias"]])
        assert "198.51.100.7" not in other.hosts[0].run(["ifconfig", "lo0"]).stdout


def test_what_a_killed_run_left_is_cleaned_up_and_nothing_else(freebsd: Machine) -> None:
    code = (
        "import sys; from pathlib import *; from tests.lab.ground_freebsd import *\n"
        f"ground = FreeBSDGround({freebsd!r}); print(ground.folder, flush=True); sys.stdin.read()"
    )
    argv = [sys.executable, "-c", code]
    killed = subprocess.Popen(argv, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert killed.stdout is not None
    left = killed.stdout.readline().strip()
    living = FreeBSDGround(freebsd)
    try:
        assert sorted(clean(freebsd)) == sorted(f"{each}: its lab runs: left alone" for each in (left, living.folder))
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
        assert len(freebsd.run(["jls", "name"]).split()) == 2
        assert sorted(clean(freebsd)) == sorted([f"{left}: removed", f"{living.folder}: its lab runs: left alone"])
        assert freebsd.run(["jls", "name"]).split() == [living.jail]
    finally:
        living.close()


@pytest.mark.parametrize(
    ("kernel", "said"),
    [("13.2", ""), ("15", ""), ("no-rfc5549", "IPv4 routes over IPv6 next hops: FreeBSD 13.1 or newer")],
)
def test_make_says_in_one_line_why_the_lab_can_not_run_on_a_freebsd(kernel: str, said: str) -> None:
    with client.start(kernel=kernel) as running:
        done = running.run("", [REPOSITORY / ".ci" / "can-lab"])
        assert (done.returncode == 0, len(done.stderr.splitlines())) == (not said, bool(said))
        assert said in done.stderr
        assert running.run("", [REPOSITORY / ".ci" / "python"]).stdout == "python3.11\n"
