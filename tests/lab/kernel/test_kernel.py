"""The lab kernel on real namespaces: who is where, who may what, what is left."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.clean import alive, members
from tests.lab.kernel import client, processes
from tests.lab.kernel.client import Kernel, KernelError, RunningKernel
from tests.waiting import until

QUICK = 20.0  # seconds; a command takes a few milliseconds, and one that waits for another client takes for ever
UNREAD = 212_992  # what Linux keeps of a Unix socket's data for a reader that does not read (net.core.wmem_default)
STEPS = [
    "ifconfig epair{n} create",
    "ifconfig epair{n}a name mob-j{n}",
    "ifconfig epair{n}b name in-j{n}",
    "ifconfig mob-j{n} inet6 -auto_linklocal no_dad",
    "ifconfig mob-j{n} inet6 fe80::1/64",
    "ifconfig mob-j{n} inet6 -ifdisabled up",
    "jail -c name=j{n} path=/ vnet persist allow.raw_sockets",
    "ifconfig in-j{n} vnet j{n}",
    "jexec j{n} ifconfig in-j{n} inet6 -auto_linklocal no_dad",
    "jexec j{n} ifconfig in-j{n} inet6 fe80::2/64",
    "jexec j{n} ifconfig in-j{n} inet6 -ifdisabled up",
    "jexec j{n} ifconfig in-j{n} inet6 2001:db8:7::{n}/128 alias",
    "jexec j{n} route -n -6 add default fe80::1%in-j{n}",
    "route -n -6 add -host 2001:db8:7::{n} -interface mob-j{n}",
]


@pytest.fixture
def two() -> Iterator[tuple[RunningKernel, RunningKernel]]:
    """Two labs at once."""
    with client.start() as one, client.start() as other:
        yield one, other


def ok(kernel: Kernel, jail: str, line: str) -> str:
    """Run a command line that must succeed; answer its output."""
    done = kernel.run(jail, line.split(), timeout=20)
    assert done.returncode == 0, f"{line}: {done.stderr}"
    return str(done.stdout)


def test_two_labs_have_nothing_in_common(two: tuple[RunningKernel, RunningKernel]) -> None:
    for kernel in two:
        ok(kernel, "", "jail -c name=a path=/ vnet persist children.max=2")
        ok(kernel, "a", "ifconfig epair create")
    first, second = two
    ok(first, "", "jail -R a")
    assert ok(first, "", "jls name") == ""
    assert ok(second, "", "jls name") == "a\n"
    assert ok(second, "a", "ifconfig -l") == "lo0 pflog0 pfsync0 epair0a epair0b\n"


def test_linux_has_what_freebsd_says(machine: Kernel) -> None:
    ok(machine, "", "jail -c name=web1 path=/ vnet persist")
    ok(machine, "", "ifconfig epair create")
    ok(machine, "", "ifconfig epair0b vnet web1")
    ok(machine, "", "jexec web1 ifconfig epair0b inet6 no_dad -ifdisabled up")
    ok(machine, "", "jexec web1 ifconfig epair0b inet6 2001:db8::7/128 alias")
    ok(machine, "", "jexec web1 ifconfig epair0b inet 198.51.100.7/32 alias")
    shown = ok(machine, "web1", "ip -brief address show dev epair0b")
    assert {"198.51.100.7/32", "2001:db8::7/128"} <= set(shown.split())
    ok(machine, "", "jexec web1 ifconfig epair0b down")
    assert "198.51.100.7" not in ok(machine, "web1", "ip -brief address show dev epair0b")
    ok(machine, "", "jexec web1 ifconfig epair0b up")
    assert "2001:db8::7/128" in ok(machine, "web1", "ip -brief address show dev epair0b")
    ok(machine, "", "ifconfig epair0a destroy")
    assert "epair" not in ok(machine, "web1", "ip -brief link") + ok(machine, "", "ip -brief link")


def test_removing_a_jail_ends_its_processes_and_nobody_elses(machine: Kernel) -> None:
    ok(machine, "", "jail -c name=a path=/ vnet persist children.max=5")
    ok(machine, "a", "jail -c name=web1 path=/ persist")
    ok(machine, "", "jail -c name=b path=/ vnet persist")
    inside = [machine.popen(name, ["sleep", "600"]) for name in ("a", "a.web1")]
    outside = [machine.popen(name, ["sleep", "600"]) for name in ("b", "")]
    machine.jail_remove("a")
    assert [each.wait(QUICK) for each in inside] == [-signal.SIGKILL] * 2
    assert [each.poll() for each in outside] == [None, None]
    for each in outside:
        each.kill()
        each.wait()


def test_a_jail_is_known_by_where_one_is(machine: Kernel) -> None:
    ok(machine, "", "jail -c name=a path=/ vnet persist host.hostname=a.example children.max=5")
    ok(machine, "a", "jail -c name=web1 path=/ persist host.hostname=web1.example")
    assert ok(machine, "", "jexec a jexec web1 uname -n") == "web1.example\n"
    assert ok(machine, "", "jexec a jexec web1 hostname") == "web1.example\n"
    assert ok(machine, "a", "jls name host.hostname") == "web1 web1.example\n"
    assert ok(machine, "a.web1", "jls") == "   JID  IP Address      Hostname                      Path\n"
    assert machine.where() == ""


def test_a_jail_with_a_root_of_its_own(machine: Kernel, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "sbin").mkdir(parents=True)
    ok(machine, "", f"jail -c name=web1 path={root} vnet persist")
    missing = machine.run("", ["jexec", "web1", "ifconfig", "-l"])
    assert (missing.returncode, missing.stderr) == (1, "jexec: execvp: ifconfig: No such file or directory\n")
    (root / "sbin" / "ifconfig").touch()
    assert ok(machine, "", "jexec web1 ifconfig -l") == "lo0 pflog0 pfsync0\n"
    assert ok(machine, "", "jexec web1 /sbin/ifconfig -l") == "lo0 pflog0 pfsync0\n"


def test_other_users_may_look_and_no_more(machine: Kernel) -> None:
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    assert machine.run("", [*nobody, "ifconfig", "-l"]).stdout == "lo0 pflog0 pfsync0\n"
    made = machine.run("", [*nobody, "ifconfig", "epair", "create"])
    assert (made.returncode, made.stderr) == (1, "ifconfig: SIOCIFCREATE2 (epair): Operation not permitted\n")
    script = f"""
import sys; sys.path.insert(0, {str(client.REPOSITORY)!r})
from tests.lab.kernel.client import Kernel, KernelError
try: Kernel({str(machine.directory)!r}).jail_create({{"name": "x"}})
except KernelError as error: print(error.errno)
"""
    if os.access(client.REPOSITORY, os.X_OK) and shutil.which("python3"):
        answer = subprocess.run([*nobody, "python3", "-c", script], capture_output=True, text=True, check=False)
        assert answer.stdout in ("EPERM\n", ""), answer.stderr  # "": nobody can not read the repository
    assert machine.jails() == []


def test_a_client_that_does_not_read_delays_nobody(machine: Kernel) -> None:
    for number in range(400):
        machine.jail_create({"name": f"j{number}"})
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(machine.directory / "kernel.sock"))
        request = b"cjls\0-s\0"
        connection.sendall(struct.pack("!I", len(request)) + request)
        begin = time.monotonic()
        ok(machine, "", "ifconfig -l")
        assert time.monotonic() - begin < QUICK
        connection.settimeout(QUICK)
        text = b""
        while not text.endswith(b"x0"):
            text += connection.recv(1 << 20)
    assert text.count(b" name=j") == 400
    assert len(text) > UNREAD


def test_many_at_once(machine: Kernel) -> None:
    errors: list[str] = []

    def start(number: int) -> None:
        for step in STEPS:
            done = machine.run("", step.format(n=number).split(), timeout=60)
            if done.returncode:
                errors.append(f"{step}: {done.stderr}")

    threads = [threading.Thread(target=start, args=(number,)) for number in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    ok(machine, "", "sysctl net.inet6.ip6.forwarding=1")
    assert "1 packets received" in ok(machine, "", "jexec j1 ping -6 -c 1 -t 5 2001:db8:7::8")


def test_what_the_kernel_refuses_it_names(machine: Kernel) -> None:
    with pytest.raises(KernelError, match='jail "nosuch" not found') as refusal:
        machine.jail_remove("nosuch")
    assert refusal.value.errno == "ENOENT"
    with pytest.raises(KernelError, match="no call"):
        machine.call("nosuch")


def test_nonsense_on_the_socket_ends_that_connection_only(machine: Kernel) -> None:
    for frame in (b"\xff\xff\xff\xffc", b"\0\0\0\0", b"\0\0\0\2q\0", b"\0\0\0\3j{}", b"\0\0\0\1c"):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(QUICK)
            connection.connect(str(machine.directory / "kernel.sock"))
            connection.sendall(frame)
            connection.recv(100)
    assert ok(machine, "", "ifconfig -l") == "lo0 pflog0 pfsync0\n"


def test_sigterm_ends_the_kernel_and_all_in_its_namespaces() -> None:
    kernel = client.launch()
    try:
        sleeper = kernel.popen("", ["sleep", "600"])
        # popen answers before the child is in its namespaces
        until(lambda: members(kernel.directory) == [sleeper.pid], "the sleeper is not in the lab's namespace")
        assert alive(kernel.directory)
        kernel.process.terminate()
        assert kernel.process.wait(QUICK * 5) == 0
        assert sleeper.wait(QUICK) == -signal.SIGKILL
        assert not alive(kernel.directory)
        assert members(kernel.directory) == []
    finally:
        kernel.stop()
    assert not kernel.directory.exists()


def test_two_cleaners_and_a_living_lab(machine: Kernel) -> None:
    sleeper = machine.popen("", ["sleep", "600"])
    argv = [sys.executable, "-m", "tests.lab.clean"]
    done = subprocess.run(argv, cwd=client.REPOSITORY, capture_output=True, text=True, check=True)
    assert f"{machine.directory}: its kernel runs: left alone" in done.stdout
    assert sleeper.poll() is None
    assert ok(machine, "", "ifconfig -l") == "lo0 pflog0 pfsync0\n"
    sleeper.kill()
    sleeper.wait()


def test_a_process_is_told_from_a_later_one_of_its_number() -> None:
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    assert child.stdin is not None
    assert processes.start_time(child.pid) >= processes.start_time(os.getpid())
    child.stdin.close()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(ProcessLookupError):
        processes.start_time(child.pid)  # a zombie
    child.wait()
