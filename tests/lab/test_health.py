"""Readiness on real links: what the host does not reach, or what fails its checks, is not announced."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.again import begin
from tests.lab.ground import SYSTEM_PYTHON, linux_only
from tests.lab.invariants import await_announced, await_rest, status
from tests.lab.topology import Host, Lab

IPV4, IPV6 = "198.51.100.7", "2001:db8:7::7"
PREFIXES = (f"{IPV4}/32", f"{IPV6}/128")
WEB1 = {"web1": (IPV4, IPV6)}
QUICK = {"look_every": 1.0, "reject_for": 0.5, "drain_for": 0.2, "settle_for": 3.0}
HEALTH = {"reach_every": 0.5, "reach_fall": 2}
PORT = 8080
SECONDS = 40.0
"""A neighbour that does not answer is given up after 3 s, and a check that knows its jail waits for that."""
SERVER = """
import contextlib, socket, sys
listening = socket.create_server(("::", int(sys.argv[1])), family=socket.AF_INET6, dualstack_ipv6=True)
while True:
    connection, _ = listening.accept()
    with connection, contextlib.suppress(OSError):
        if connection.recv(4096):
            connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 8\\r\\n\\r\\nall well")
"""


@pytest.fixture
def lab(one: Lab) -> Lab:
    """One host for all of these, which `up` brings to where a test begins."""
    return one


def up(lab: Lab, **health: Any) -> Host:
    """Begin, and return the host, whose jail web1 is known."""
    begin(lab, agent=QUICK, health={**HEALTH, **health}, damping={"enabled": False})
    host = lab.hosts[0]
    host.define_jail("web1", PREFIXES)
    return host


def checks(host: Host, *tables: dict[str, Any], jail: str = "web1", addresses: tuple[str, ...] = PREFIXES) -> None:
    """Write the jail's file with these checks."""
    host.grant(jail, addresses)
    file = host.jails_d / f"{jail}.toml"
    text = "".join("[[check]]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in table.items()) for table in tables)
    file.write_text(file.read_text() + text)


def wait_status(host: Host, true: Callable[[dict[str, Any]], bool], jail: str = "web1") -> dict[str, Any]:
    deadline = time.monotonic() + SECONDS
    while not true(found := status(host, jail)):
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
    return found


def states(found: dict[str, Any]) -> dict[str, str]:
    return {check["check"]: check["state"] for check in found["checks"]}


@contextlib.contextmanager
def serving(host: Host, jail: str = "web1") -> Iterator[subprocess.Popen[str]]:
    """Serve HTTP in a jail, on both families, until the end of the block."""
    server = host.popen(["jexec", jail, SYSTEM_PYTHON, "-c", SERVER, str(PORT)], start_new_session=True)
    try:
        yield server
    finally:
        end(server)


def end(server: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        server.send_signal(signal.SIGKILL)
    server.wait()


def gone(lab: Lab) -> None:
    for prefix in PREFIXES:
        lab.spine.fib.wait(prefix, gone=True)


def there(lab: Lab, host: Host) -> None:
    for prefix in PREFIXES:
        lab.spine.fib.wait(prefix, via=host.address)


def test_a_jail_that_answers_is_announced(lab: Lab) -> None:
    a = up(lab)
    a.start_jail("web1")
    there(lab, a)
    await_rest(lab, a, WEB1)
    found = await_announced(a, "web1")
    assert states(found) == {f"reach {IPV4}": "answered", f"reach {IPV6}": "answered"}
    a.stop_jail("web1")
    await_rest(lab, a, {})


def test_a_jail_whose_link_is_down_is_withdrawn_and_comes_back(lab: Lab) -> None:
    a = up(lab, reach_fall=1)
    a.start_jail("web1")
    there(lab, a)
    a.run(["jexec", "web1", "ifconfig", "in-web1", "down"])
    wait_status(a, lambda found: "silent" in states(found).values())
    # what the kernel does by itself when its entries of the neighbour have run out (RFC 4861, section 7.3.3)
    for neighbour in ("fe80::2%mob-web1", IPV6):
        a.run(["ndp", "-d", neighbour])
    found = wait_status(a, lambda found: "unreachable" in found["reason"] and not found["announced"])
    gone(lab)
    assert (found["announced"], found["running"], found["wired"]) == (False, True, True)
    a.run(["jexec", "web1", "ifconfig", "in-web1", "up"])
    there(lab, a)
    assert states(await_announced(a, "web1")) == {f"reach {IPV4}": "answered", f"reach {IPV6}": "answered"}


@pytest.mark.parametrize("silence", ["ready", "unready"])
def test_a_jail_that_filters_icmp(lab: Lab, silence: str) -> None:
    linux_only("it filters with nftables")
    a = up(lab, silence=silence)
    rules = "table inet f { chain i { type filter hook input priority 0; icmp type echo-request drop; "
    rules += "icmpv6 type echo-request drop; }; }"
    # without hooks, so that it filters before it is wired, and no echo was ever answered
    a.define_jail("web1", PREFIXES, start=f"nft '{rules}'", hooks=False)
    a.start_jail("web1")
    wait_status(a, lambda found: "silent" in states(found).values())
    if silence == "ready":
        there(lab, a)
        found = wait_status(a, lambda found: set(states(found).values()) == {"silent"})
        assert found["announced"]
        return
    found = wait_status(a, lambda found: "silent" in found["reason"] and not found["announced"])
    assert "silent: no answer to an ICMP echo" in found["reason"]
    # the operator says otherwise for this jail: announced with the next look
    checks(a, {"kind": "reach", "silence": "ready"})
    there(lab, a)


def test_a_jail_is_announced_with_its_service(lab: Lab) -> None:
    a = up(lab)
    more = {"interval": 0.5, "fall": 2}
    checks(a, {"kind": "tcp", "port": PORT, **more}, {"kind": "http", "port": PORT, "contains": "all well", **more})
    a.start_jail("web1")
    found = wait_status(a, lambda found: "Connection refused" in found["reason"])
    assert found["reason"].startswith(f"tcp port {PORT} at {IPV4}: Connection refused")
    assert (found["running"], found["wired"], found["ready"], found["announced"]) == (True, True, False, False)
    assert not any(lab.spine.kernel_has(prefix) for prefix in PREFIXES)
    with serving(a) as server:
        there(lab, a)
        await_rest(lab, a, WEB1)
        end(server)
        gone(lab)
        wait_status(a, lambda found: "Connection refused" in found["reason"])
    with serving(a):
        there(lab, a)
        a.stop_jail("web1")
        await_rest(lab, a, {})


def test_a_jail_without_hooks_is_never_announced_before_its_checks_pass(lab: Lab) -> None:
    a = up(lab)
    a.define_jail("web1", PREFIXES, hooks=False)
    checks(a, {"kind": "tcp", "port": PORT, "interval": 0.5})
    lab.spine.fib.changes.clear()
    a.start_jail("web1")
    wait_status(a, lambda found: "Connection refused" in found["reason"])
    assert not [change for change in lab.spine.fib.changes if any(prefix in str(change) for prefix in PREFIXES)]
    with serving(a):
        there(lab, a)


def test_a_restart_of_the_agent_is_silent_and_what_failed_meanwhile_is_withdrawn(lab: Lab) -> None:
    a = up(lab)
    checks(a, {"kind": "tcp", "port": PORT, "interval": 0.5, "fall": 2})
    a.start_jail("web1")
    with serving(a) as server:
        there(lab, a)
        await_rest(lab, a, WEB1)
        lab.spine.fib.changes.clear()
        before = lab.spine.updates(a.session.name)
        for number in (signal.SIGTERM, signal.SIGKILL):
            a.stop_agent(number)
            a.start_agent()
            await_announced(a, "web1")
            wait_status(a, lambda found: "waiting" not in states(found).values())
        assert lab.spine.updates(a.session.name) == before
        assert not lab.spine.fib.changes
        a.stop_agent(signal.SIGKILL)
        end(server)
        assert all(lab.spine.kernel_has(prefix) for prefix in PREFIXES)
        a.start_agent()
        gone(lab)


def test_a_command_in_the_jail_decides_and_one_that_hangs_delays_nobody(lab: Lab, tmp_path: Path) -> None:
    a = up(lab)
    flag = tmp_path / "open"
    checks(a, {"kind": "exec", "command": ["/bin/test", "-e", str(flag)], "interval": 0.5, "fall": 1})
    for number in range(3):
        a.define_jail(f"hung{number}", [f"198.51.100.{20 + number}"])
        hang = {"kind": "exec", "command": ["/bin/sh", "-c", "sleep 60"], "interval": 0.5, "timeout": 0.5}
        checks(a, hang, jail=f"hung{number}", addresses=(f"198.51.100.{20 + number}/32",))
        a.start_jail(f"hung{number}")
    a.start_jail("web1")
    wait_status(a, lambda found: "exit status 1" in found["reason"])
    flag.touch()
    there(lab, a)
    flag.unlink()
    gone(lab)
    found = wait_status(a, lambda found: "no answer within" in found["reason"], "hung0")
    assert found["reason"].startswith("exec /bin/sh -c sleep 60: ")


def test_an_address_that_is_added_does_not_darken_the_others(lab: Lab) -> None:
    a = up(lab)
    a.start_jail("web1")
    there(lab, a)
    lab.spine.fib.changes.clear()
    a.grant("web1", [*PREFIXES, "198.51.100.9/32"])
    lab.spine.fib.wait("198.51.100.9/32", via=a.address)
    await_rest(lab, a, {"web1": (IPV4, IPV6, "198.51.100.9")})
    assert not [change for change in lab.spine.fib.changes if any(prefix in str(change) for prefix in PREFIXES)]


def test_no_echo_leaves_the_host(lab: Lab) -> None:
    """Also in the moment in which a jail's route is gone, and its default route leads to the spine."""
    linux_only("it listens with a packet socket")
    a = up(lab)
    a.start_jail("web1")
    there(lab, a)
    with heard(a) as packets:
        wait_status(a, lambda found: all(check["runs"] >= 4 for check in found["checks"]))
        a.stop_jail("web1")
        await_rest(lab, a, {})
    assert packets(), "the session is heard"
    assert not [packet for packet in packets() if is_echo(packet)]


def is_echo(packet: bytes) -> bool:
    if packet[0] >> 4 == 4:
        return packet[9] == socket.IPPROTO_ICMP and packet[20] == 8
    return packet[6] == socket.IPPROTO_ICMPV6 and packet[40] == 128


@contextlib.contextmanager
def heard(host: Host) -> Iterator[Callable[[], list[bytes]]]:
    """Listen on the host's uplink; what was heard is there when the block has ended."""
    script = (
        "import socket, sys\n"
        "s = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))\n"
        "s.bind((sys.argv[1], 0))\n"
        "print('on', flush=True)\n"
        "while True: print(s.recv(2048).hex(), flush=True)\n"
    )
    listener = host.popen([SYSTEM_PYTHON, "-c", script, f"up-{host.name}"], stdout=subprocess.PIPE)
    assert listener.stdout is not None
    assert listener.stdout.readline() == "on\n"
    lines: list[str] = []
    try:
        yield lambda: [bytes.fromhex(line) for line in lines]
    finally:
        listener.kill()
        lines += [line.strip() for line in listener.stdout.read().splitlines() if len(line) % 2 == 0]
        listener.wait()
