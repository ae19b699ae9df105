"""Jails without a vnet: addresses that jail(8) puts on an interface of the host, and what the kernel says of them."""

from __future__ import annotations

import json
import re
import subprocess
import time

import pytest

from tests.lab.kernel.client import Kernel
from tests.lab.kernel.test_kernel import ok
from tests.lab.test_jail8 import jail
from tests.waiting import PATIENCE

BOTH = """ip4.addr = "lo1|198.51.100.7"; ip6.addr = "lo1|2001:db8::7/128";"""
LIST = ["jls", "--libxo", "json", "name", "jid", "path", "vnet", "ip4.addr", "ip6.addr"]


@pytest.fixture
def loopback(machine: Kernel) -> Kernel:
    """A machine with lo1."""
    assert ok(machine, "", "ifconfig lo create") == "lo1\n"
    return machine


def aliases(machine: Kernel) -> list[str]:
    """The addresses on lo1, but its own link-local one."""
    lines = ok(machine, "", "ifconfig lo1").splitlines()
    return sorted(line.split()[1] for line in lines if "\tinet" in line and "fe80" not in line)


def test_a_cloned_loopback(loopback: Kernel) -> None:
    assert ok(loopback, "", "ifconfig lo1").splitlines() == [
        "lo1: flags=8008<LOOPBACK,MULTICAST> metric 0 mtu 16384",
        "\toptions=680003<RXCSUM,TXCSUM,LINKSTATE,RXCSUM_IPV6,TXCSUM_IPV6>",
        "\tgroups: lo",
        "\tnd6 options=21<PERFORMNUD,AUTO_LINKLOCAL>",
    ]
    ok(loopback, "", "ifconfig lo1 name bastille0")
    ok(loopback, "", "ifconfig bastille0 inet 198.51.100.7/32 alias")
    assert "flags=8049<UP,LOOPBACK,RUNNING,MULTICAST>" in ok(loopback, "", "ifconfig bastille0")
    assert re.search("^198.51.100.7 +link#4 +UH +bastille$", ok(loopback, "", "netstat -rn"), re.MULTILINE)
    assert ok(loopback, "", "ifconfig -g lo") == "lo0\nbastille0\n"
    ok(loopback, "", "ifconfig bastille0 destroy")
    done = loopback.run("", ["ifconfig", "lo0", "destroy"])
    assert done.stderr == "ifconfig: SIOCIFDESTROY: Invalid argument\n"
    assert ok(loopback, "", "ifconfig -l") == "lo0 pflog0 pfsync0\n"


def test_addresses_are_there_from_prestart_to_poststop(loopback: Kernel) -> None:
    conf = f"""web1 {{ path = /; persist; {BOTH}
      exec.prepare = "echo prepare $(ifconfig lo1 | grep -c 198.51.100.7)";
      exec.prestart = "echo prestart $(ifconfig lo1 | grep -c 198.51.100.7)";
      exec.poststop = "echo poststop $(ifconfig lo1 | grep -c 198.51.100.7)";
      exec.release = "echo release $(ifconfig lo1 | grep -c 198.51.100.7)"; }}""".replace("$(", "\\$(")
    assert jail(loopback, conf, "$J -c web1").splitlines() == ["prepare 0", "prestart 1", "web1: created"]
    assert aliases(loopback) == ["198.51.100.7", "2001:db8::7"]
    said = json.loads(loopback.run("", LIST).stdout)["jail-information"]["jail"]
    assert said == [
        {
            "name": "web1",
            "jid": "1",
            "path": "/",
            "vnet": "inherit",
            "ip4.addr": ["198.51.100.7"],
            "ip6.addr": ["2001:db8::7"],
        }
    ]
    assert jail(loopback, conf, "$J -r web1").splitlines() == ["web1: removed", "poststop 1", "release 0"]
    assert aliases(loopback) == []


def test_the_commands_that_jail8_runs(loopback: Kernel) -> None:
    conf = "web1 { path = /; persist; interface = lo1; ip4.addr = 198.51.100.7/24, '198.51.100.8/255.255.255.0'; }"
    said = jail(loopback, conf, "$J -v -c web1; $J -v -r web1; jls")
    assert [line.partition("command: ")[2] for line in said.splitlines() if "run command" in line] == [
        "/sbin/ifconfig lo1 inet 198.51.100.7/24 alias",
        "/sbin/ifconfig lo1 inet 198.51.100.8 netmask 255.255.255.0 alias",
        "/sbin/ifconfig lo1 inet 198.51.100.7/24 -alias",
        "/sbin/ifconfig lo1 inet 198.51.100.8 netmask 255.255.255.0 -alias",
    ]


def test_a_failed_start_takes_them_away(loopback: Kernel) -> None:
    conf = f"web1 {{ path = /; persist; {BOTH} exec.prestart = false; }}"
    assert jail(loopback, conf, "$J -c web1") == "jail: web1: false: failed\n"
    assert aliases(loopback) == []
    conf = "web1 { path = /; persist; ip4.addr = 'lo7|198.51.100.7'; }"
    assert jail(loopback, conf, "$J -c web1").splitlines() == [
        "ifconfig: interface lo7 does not exist",
        "jail: web1: /sbin/ifconfig lo7 inet 198.51.100.7 netmask 255.255.255.255 alias: failed",
    ]


def test_jls_as_libxo_prints_it(machine: Kernel) -> None:
    ok(machine, "", "jail -c name=a path=/ persist ip4.addr=198.51.100.9 ip4.addr=198.51.100.8 ip4.addr=198.51.100.7")
    ok(machine, "", "jail -c name=b path=/ persist vnet")
    assert machine.run("", LIST).stdout == (
        '{"__version": "2", "jail-information": {"jail": ['
        '{"name":"a","jid":"1","path":"/","vnet":"inherit", '
        '"ip4.addr": ["198.51.100.9","198.51.100.7","198.51.100.8"], "ip6.addr": []}, '
        '{"name":"b","jid":"2","path":"/","vnet":"new", "ip4.addr": [], "ip6.addr": []}]}}\n'
    )
    verbose = ok(machine, "", "jls --libxo json -v -j a")
    assert verbose.endswith(
        '"cpusetid":3, "ipv4_addrs": ["198.51.100.9","198.51.100.7","198.51.100.8"], "ipv6_addrs": []}]}}\n'
    )
    assert (
        ok(machine, "", "jls -j a ip4.addr ip6.addr ip4 ip6")
        == "198.51.100.9,198.51.100.7,198.51.100.8 - disable disable\n"
    )
    assert ok(machine, "", "jls -j b ip4 ip6") == "inherit inherit\n"
    assert ok(machine, "", "jls -j a").splitlines()[1] == f"     1  198.51.100.9    {'':29} /"


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ("vnet ip4.addr=198.51.100.9", "vnet jails cannot have IP address restrictions"),
        ("vnet ip4=inherit", "vnet jails cannot have IP address restrictions"),
        ("ip4.addr=198.51.100.7 ip4.addr=198.51.100.9", "jail_set: Address already in use"),
        ("ip4.addr=198.51.100.8 ip4.addr=198.51.100.8", "jail_set: Invalid argument"),
        ("ip4.addr=2001:db8::7", "ip4.addr: not an IPv4 address: 2001:db8::7"),
        ("ip6.addr=198.51.100.7", "ip6.addr: not an IPv6 address: 198.51.100.7"),
        ("ip4=sometimes", 'ip4: unknown jailsys value "sometimes"'),
    ],
)
def test_what_the_kernel_refuses(machine: Kernel, parameters: str, said: str) -> None:
    ok(machine, "", "jail -c name=a path=/ persist ip4.addr=198.51.100.7")
    done = machine.run("", ["jail", "-c", "name=b", "path=/", "persist", *parameters.split()])
    assert (done.stderr, done.returncode) == (f"jail: {said}\n", 1)


def test_an_only_address_may_be_shared(machine: Kernel) -> None:
    for name in "ab":
        ok(machine, "", f"jail -c name={name} path=/ persist ip4.addr=198.51.100.7")
    ok(machine, "", "jail -m name=b ip4.addr=198.51.100.8")
    assert ok(machine, "", "jls ip4.addr") == "198.51.100.7\n198.51.100.8\n"


def test_what_a_jail_sees_and_may_not_change(loopback: Kernel) -> None:
    assert "created" in jail(loopback, f"web1 {{ path = /; persist; {BOTH} }}", "$J -c web1")
    ok(loopback, "", "ifconfig lo1 inet 198.51.100.8/32 alias")
    inside = ok(loopback, "", "jexec web1 ifconfig -a")
    assert "198.51.100.7" in inside
    assert "198.51.100.8" not in inside
    assert "127.0.0.1" not in inside
    done = loopback.run("", ["jexec", "web1", "ifconfig", "lo1", "down"])
    assert done.stderr == "ifconfig: ioctl (set flags): Operation not permitted\n"


def test_packets_reach_it_and_a_connection_keeps_it_dying(loopback: Kernel) -> None:
    assert "created" in jail(loopback, f"web1 {{ path = /; persist; {BOTH} }}", "$J -c web1")
    server = (
        "import socket; s = socket.create_server(('198.51.100.7', 7)); print('up', flush=True); s.accept()[0].recv(1)"
    )
    inside = loopback.popen("", ["jexec", "web1", "python3", "-c", server], stdout=subprocess.PIPE)
    assert inside.stdout is not None
    assert inside.stdout.readline() == "up\n"
    outside = loopback.popen(
        "",
        ["python3", "-c", "import socket; socket.create_connection(('198.51.100.7', 7)).recv(1); input()"],
        stdin=subprocess.PIPE,
    )
    deadline = time.monotonic() + PATIENCE
    while "198.51.100.7.7 " not in ok(loopback, "", "netstat -an") or "ESTAB" not in ok(loopback, "", "netstat -an"):
        assert time.monotonic() < deadline
    assert "removed" in jail(loopback, f"web1 {{ path = /; persist; {BOTH} }}", "$J -r '*'")
    inside.wait(PATIENCE)
    assert ok(loopback, "", "jls name") == ""
    assert ok(loopback, "", "jls -d name dying ip4.addr") == "web1 true 198.51.100.7\n"
    assert "198.51.100.7" not in aliases(loopback)
    outside.kill()
    outside.wait()


def test_a_cloned_loopback_moves_into_a_jail_and_home(loopback: Kernel) -> None:
    ok(loopback, "", "jail -c name=web1 path=/ vnet persist")
    ok(loopback, "", "ifconfig lo1 vnet web1")
    ok(loopback, "", "jexec web1 ifconfig lo0 127.0.0.1/8 up")
    ok(loopback, "", "jexec web1 ifconfig lo1 inet 198.51.100.7/32 alias")
    assert "1 packets received" in ok(loopback, "", "jexec web1 ping -c 1 -t 2 198.51.100.7")
    ok(loopback, "", "jail -R web1")
    assert ok(loopback, "", "ifconfig -l") == "lo0 pflog0 pfsync0 lo1\n"
    assert loopback.run("", ["ifconfig", "lo0", "vnet", "web1"]).returncode == 1
