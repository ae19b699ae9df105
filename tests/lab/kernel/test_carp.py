"""carp(4) and pfsync(4) in the lab: the state machine on real packets, what devd is told. Beside
another implementation: tests/interop/test_ucarp.py."""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.lab.kernel import carpwire, client
from tests.lab.kernel.client import Kernel, KernelError
from tests.lab.kernel.state import INET, INET6, Address
from tests.lab.kernel.test_kernel import ok
from tests.waiting import until

SHARED4, SHARED6 = "192.0.2.1", "2001:db8:f::1"
MAC1, MAC2 = "00:00:5e:00:01:01", "00:00:5e:00:01:02"
LISTEN_SECONDS = 10.0
#: CARP's seconds in one. In its own time: tests/interop/test_ucarp.py, and the recordings of tests/lab/test_conformance.py.
#: pfsync, too, which takes a bulk update as if it had been well after 65 of them (7-pfsync.txt).
PACE = 10.0


class Ear:
    """A client of a devd socket."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(LISTEN_SECONDS)
        self.socket.connect(str(path))

    def hear(self) -> str:
        """The next event; "" when devd is gone."""
        return self.socket.recv(4096).decode()

    def close(self) -> None:
        """Hang up."""
        self.socket.close()


@pytest.fixture
def pair(machine: Kernel) -> Kernel:
    """Hosts a and b and a client c on one bridge of the machine's, 192.0.2.2, .3 and .9. CARP's seconds are short ones."""
    machine.pace(PACE)
    build(machine)
    return machine


def build(machine: Kernel) -> None:
    """Plug a, b and c together."""
    ok(machine, "", "ifconfig bridge0 create")
    ok(machine, "", "ifconfig bridge0 up")
    for number, name in ((2, "a"), (3, "b"), (9, "c")):
        plug(machine, number, name)


def plug(machine: Kernel, number: int, name: str) -> None:
    """Make a host and plug it in."""
    ok(machine, "", f"jail -c name={name} path=/ vnet persist allow.raw_sockets children.max=9")
    ok(machine, "", f"ifconfig epair{number} create")
    ok(machine, "", f"ifconfig epair{number}a up")
    ok(machine, "", f"ifconfig bridge0 addm epair{number}a")
    ok(machine, "", f"ifconfig epair{number}b name x{name}")
    ok(machine, "", f"ifconfig x{name} vnet {name}")
    ok(machine, name, f"ifconfig x{name} inet 192.0.2.{number}/24")
    ok(machine, name, f"ifconfig x{name} inet6 2001:db8:f::{number}/64 -ifdisabled no_dad")


def share(machine: Kernel, *, four: bool = True, six: bool = True) -> None:
    """Vhid 1 (IPv4) and 2 (IPv6), a before b, with preemption; until a is their master."""
    for name, skew in (("a", 0), ("b", 100)):
        ok(machine, name, "sysctl net.inet.carp.preempt=1")
        if four:
            ok(machine, name, f"ifconfig x{name} vhid 1 advskew {skew} pass secret alias {SHARED4}/32")
        if six:
            ok(machine, name, f"ifconfig x{name} inet6 vhid 2 advskew {skew} pass secret alias {SHARED6}/128")
    settle(machine, a="MASTER", b="BACKUP")


def states(machine: Kernel, name: str) -> list[str]:
    """The states of a host's vhids, as ifconfig(8) shows them."""
    shown = ok(machine, name, f"ifconfig x{name}").splitlines()
    return [line.split()[1] for line in shown if line.startswith("\tcarp:")]


def settle(machine: Kernel, **wanted: str) -> None:
    """Wait until all vhids of these hosts are in these states."""
    until(lambda: all(set(states(machine, name)) == {state} for name, state in wanted.items()), f"never {wanted}")


def neighbour(machine: Kernel, name: str, address: str) -> str:
    """The MAC that a host's Linux has for an address."""
    found = machine.run(name, ["ip", "neigh", "show", address]).stdout.split()
    return found[found.index("lladdr") + 1] if "lladdr" in found else ""


def reaches(machine: Kernel, address: str) -> bool:
    """Whether the client gets an answer from the shared address."""
    return "1 packets received" in machine.run("c", ["ping", "-c", "1", "-t", "1", address]).stdout


def warm(machine: Kernel) -> None:
    """Wait until the client reaches both shared addresses: Linux takes a second for links that are new."""
    until(lambda: all(reaches(machine, each) for each in (SHARED4, SHARED6)), "the client does not reach the master")


def has_on_linux(machine: Kernel, name: str, address: str) -> bool:
    """Whether a host's Linux has an address."""
    return f" {address}/" in machine.run(name, ["ip", "-o", "address"]).stdout


# packets, on paper


def test_an_advertisement_is_read_back() -> None:
    addresses = [Address(INET, int.from_bytes(bytes([192, 0, 2, 1])), 32)]
    code = carpwire.digest(b"secret", 1, addresses, 7)
    for family, source in ((INET, bytes([192, 0, 2, 2])), (INET6, bytes(16))):
        frame = carpwire.advertisement(family, source, 1, 1, 240, 7, code, 56)
        heard = carpwire.parse(frame)
        assert heard == carpwire.Advertisement(family, source, 255, 2, 1, 1, 240, 7, code, summed=True)
        assert frame[6:12].hex(":") == MAC1
        broken = carpwire.parse(frame[:-1] + bytes([frame[-1] ^ 1]))
        assert broken is not None
        assert not broken.summed
        assert carpwire.parse(frame[:-1]) is None
    assert carpwire.parse(b"") is None


def test_the_digest_is_over_the_addresses_in_order() -> None:
    one, two = (Address(INET, number, 32) for number in (1, 2))
    six = Address(INET6, 1, 128)
    assert carpwire.digest(b"k", 1, [two, six, one], 0) == carpwire.digest(b"k", 1, [one, two, six], 0)
    assert carpwire.digest(b"k", 1, [one], 0) != carpwire.digest(b"k", 1, [one, two], 0)
    assert carpwire.digest(b"k", 1, [one], 0) != carpwire.digest(b"K", 1, [one], 0)
    assert carpwire.digest(b"k", 1, [one], 0) != carpwire.digest(b"k", 1, [one], 1)


# on the wire


def test_the_master_answers_with_the_virtual_mac(pair: Kernel) -> None:
    share(pair)
    warm(pair)
    assert neighbour(pair, "c", SHARED4) == MAC1
    assert neighbour(pair, "c", SHARED6) == MAC2
    assert reaches(pair, "192.0.2.2")
    assert neighbour(pair, "c", "192.0.2.2") not in ("", MAC1)
    assert all(has_on_linux(pair, "a", each) for each in (SHARED4, SHARED6))
    assert not any(has_on_linux(pair, "b", each) for each in (SHARED4, SHARED6))
    assert [each["addresses"] for each in pair.carp("b")] == [[SHARED4], [SHARED6]]


def test_demotion_moves_the_addresses_without_loss(pair: Kernel) -> None:
    share(pair)
    warm(pair)
    count = ["/usr/bin/ping", "-q", "-n", "-i", "0.002", "-W", "1", "-c", "1500"]
    pings = [pair.popen("c", [*count, each], stdout=subprocess.PIPE) for each in (SHARED4, SHARED6)]
    ok(pair, "a", "sysctl net.inet.carp.demotion=240")
    settle(pair, a="BACKUP", b="MASTER")
    ok(pair, "a", "sysctl net.inet.carp.demotion=-240")
    settle(pair, a="MASTER", b="BACKUP")
    for ping in pings:
        told, _errors = ping.communicate(timeout=60)
        received = re.search(r"1500 packets transmitted, (\d+) received", told)
        # a take-over without demotion takes three seconds, all of them; a busy machine may lose one that was on its way
        assert received is not None, told
        assert int(received[1]) >= 1490, told


def test_a_dead_master_is_replaced_and_a_pulled_cable_demotes(pair: Kernel) -> None:
    share(pair)
    warm(pair)
    pair.link_state("a", "xa", up=False)
    assert "status: no carrier" in ok(pair, "a", "ifconfig xa")
    assert states(pair, "a") == ["INIT", "INIT"]
    assert ok(pair, "a", "sysctl -n net.inet.carp.demotion") == "480\n"
    settle(pair, b="MASTER")
    assert reaches(pair, SHARED4)
    assert reaches(pair, SHARED6)
    pair.link_state("a", "xa", up=True)
    settle(pair, a="MASTER", b="BACKUP")
    assert ok(pair, "a", "sysctl -n net.inet.carp.demotion") == "0\n"
    assert reaches(pair, SHARED4)
    pair.jail_remove("a")
    settle(pair, b="MASTER")
    assert reaches(pair, SHARED4)
    assert reaches(pair, SHARED6)


def test_a_wrong_password_makes_two_masters(pair: Kernel) -> None:
    ok(pair, "a", f"ifconfig xa vhid 1 pass secret alias {SHARED4}/32")
    ok(pair, "b", f"ifconfig xb vhid 1 pass other alias {SHARED4}/32")
    settle(pair, a="MASTER", b="MASTER")
    shown = ok(pair, "b", "netstat -s -p carp --libxo json")
    assert '"dropped-bad-authentication":0' not in shown


def test_a_shared_address_alone_brings_its_network(pair: Kernel) -> None:
    """The usual way with a /24: the route is there while it is master, over the interface itself."""
    ok(pair, "a", "ifconfig xa inet 192.0.2.2 -alias")
    ok(pair, "a", f"ifconfig xa vhid 1 pass secret alias {SHARED4}/24")
    assert "192.0.2.0/24" not in ok(pair, "a", "netstat -rn -f inet")
    settle(pair, a="MASTER")
    assert "192.0.2.0/24" in ok(pair, "a", "netstat -rn -f inet")
    assert reaches(pair, SHARED4)
    ok(pair, "a", f"ifconfig xa inet {SHARED4} -alias")
    assert "192.0.2.0/24" not in ok(pair, "a", "netstat -rn -f inet")
    ok(pair, "a", "ifconfig xa inet6 vhid 2 pass secret alias 2001:db8:e::1/80")
    assert "2001:db8:e::/80" in ok(pair, "a", "netstat -rn -f inet6")  # of IPv6 the backup has it, too
    settle(pair, a="MASTER")
    ok(pair, "c", "ifconfig xc inet6 2001:db8:e::9/80")
    until(lambda: reaches(pair, "2001:db8:e::1"), "the client does not reach the master")
    ok(pair, "a", "ifconfig xa inet6 2001:db8:e::1 -alias")
    assert "2001:db8:e::/80" not in ok(pair, "a", "netstat -rn -f inet6")
    assert not pair.carp("a")
    assert "PROMISC" not in ok(pair, "a", "ifconfig xa")
    assert "carp" not in pair.run("a", ["ip", "-o", "link"]).stdout


def test_a_vhid_leaves_with_its_interface(pair: Kernel) -> None:
    share(pair)
    ok(pair, "", "ifconfig epair2a destroy")
    assert not pair.carp("a")
    settle(pair, b="MASTER")
    assert ok(pair, "a", "sysctl -n net.inet.carp.demotion") == "0\n"


def test_what_is_not_allowed(pair: Kernel) -> None:
    for line, words in (
        ("ifconfig xa advskew 1", "ifconfig: advskew requires vhid\n"),
        ("ifconfig xa state master", "ifconfig: state requires vhid\n"),
        ("ifconfig xa pass x", "ifconfig: passwd requires vhid\n"),
        ("ifconfig lo0 vhid 1", "ifconfig: SIOCSVH: Operation not supported\n"),
        ("ifconfig xa vhid 1 advbase 256", "ifconfig: SIOCSVH: Invalid argument\n"),
        ("sysctl net.inet.carp.dscp=64", "sysctl: net.inet.carp.dscp=64: Invalid argument\n"),
    ):
        done = pair.run("a", line.split())
        assert (done.returncode, done.stderr) == (1, words)


def test_allow_0_is_as_an_interface_that_is_down(pair: Kernel) -> None:
    share(pair, six=False)
    ok(pair, "a", "sysctl net.inet.carp.allow=0")
    assert states(pair, "a") == ["INIT"]
    assert ok(pair, "a", "sysctl -n net.inet.carp.demotion") == "240\n"
    settle(pair, b="MASTER")
    ok(pair, "a", "sysctl net.inet.carp.allow=1")
    settle(pair, a="MASTER", b="BACKUP")
    assert ok(pair, "a", "sysctl -n net.inet.carp.demotion") == "0\n"


# devd


def test_each_host_hears_its_own_devd(pair: Kernel) -> None:
    with closing(Ear(pair.devd("a"))) as a, closing(Ear(pair.devd("b"))) as b, closing(Ear(pair.devd())) as every:
        share(pair, six=False)
        assert [a.hear(), a.hear()] == [f"!system=CARP subsystem=1@xa type={each}\n" for each in ("BACKUP", "MASTER")]
        assert b.hear() == "!system=CARP subsystem=1@xb type=BACKUP\n"
        assert sorted(every.hear() for _ in range(3)) == [
            "!system=CARP subsystem=1@xa type=BACKUP\n",
            "!system=CARP subsystem=1@xa type=MASTER\n",
            "!system=CARP subsystem=1@xb type=BACKUP\n",
        ]
        pair.link_state("a", "xa", up=False)
        assert a.hear() == "!system=IFNET subsystem=xa type=LINK_DOWN\n"
        assert a.hear() == "!system=CARP subsystem=1@xa type=INIT\n"
        assert b.hear() == "!system=CARP subsystem=1@xb type=MASTER\n"


def test_a_host_hears_of_carp_in_its_jails(pair: Kernel) -> None:
    with closing(Ear(pair.devd("a"))) as a:
        ok(pair, "a", "jail -c name=inner path=/ vnet persist")
        ok(pair, "a", "ifconfig epair0 create up")
        assert a.hear() == "!system=IFNET subsystem=epair0a type=ATTACH\n"
        ok(pair, "a", "ifconfig epair0b vnet inner")
        ok(pair, "a", "jexec inner ifconfig epair0b vhid 7 pass x alias 10.7.0.1/24 up")
        heard = ""
        while "CARP" not in heard:
            heard = a.hear()
        assert heard == "!system=CARP subsystem=7@epair0b type=BACKUP\n"


def test_a_host_comes_again(pair: Kernel) -> None:
    share(pair, six=False)
    listener = pair.popen("a", ["nc", "-l", "192.0.2.2", "80"], stdin=subprocess.PIPE)
    until(lambda: ".80 " in ok(pair, "a", "netstat -an -p tcp"), "nobody listens")
    talker = pair.popen("c", ["nc", "192.0.2.2", "80"], stdin=subprocess.PIPE)
    until(lambda: "ESTABLISHED" in ok(pair, "a", "netstat -an -p tcp"), "nobody talks")
    pair.link_state("a", "xa", up=False)
    ok(pair, "", "jail -R a")
    assert [each["name"] for each in pair.jails(dying=True)].count("a") == 1  # it lingers, for its connection
    listener.wait()
    talker.kill()
    talker.wait()
    ok(pair, "", "ifconfig epair2a destroy")
    plug(pair, 2, "a")
    with closing(Ear(pair.devd("a"))) as ear:
        ok(pair, "a", f"ifconfig xa vhid 1 advskew 200 pass secret alias {SHARED4}/32")
        assert ear.hear() == "!system=CARP subsystem=1@xa type=BACKUP\n"
    settle(pair, b="MASTER")


def test_three_advertisements_that_do_not_leave_demote(pair: Kernel) -> None:
    """And the demotion stays: one success forgets the failures before three could take it back."""
    share(pair, six=False)
    for verb, wanted in (("down", "240"), ("up", "240")):
        pair.run("a", ["ip", "link", "set", "xa", verb], check=True)
        until(lambda wanted=wanted: demotion(pair, "a") == wanted, "it is not demoted")  # type: ignore[misc]


def test_devd_dies_and_comes_back(pair: Kernel) -> None:
    path = pair.devd("a")
    with closing(Ear(path)) as ear:
        pair.devd_stop("a")
        assert ear.hear() == ""
        with pytest.raises(ConnectionRefusedError):
            Ear(path)
        pair.devd_start("a")
    with closing(Ear(path)) as ear:
        ok(pair, "a", f"ifconfig xa vhid 1 pass secret alias {SHARED4}/32")
        assert ear.hear() == "!system=CARP subsystem=1@xa type=BACKUP\n"


# pfsync


def demotion(machine: Kernel, name: str) -> str:
    """A host's demotion."""
    return ok(machine, name, "sysctl -n net.inet.carp.demotion").strip()


def test_a_bulk_update_ends_when_the_peer_listens(pair: Kernel) -> None:
    ok(pair, "a", "ifconfig pfsync0 syncdev xa syncpeer 192.0.2.3 up")
    assert "\tsyncok: 0\n" in ok(pair, "a", "ifconfig pfsync0")
    assert demotion(pair, "a") == "240"
    ok(pair, "b", "ifconfig pfsync0 syncdev xb syncpeer 192.0.2.2 up")
    for name in "ab":
        until(lambda name=name: pair.pfsync(name)["ok"], f"{name}: the bulk update does not end")  # type: ignore[misc]
        assert demotion(pair, name) == "0"
        assert "\tsyncok: 1\n" in ok(pair, name, "ifconfig pfsync0")


def test_a_test_says_when_it_ends(machine: Kernel) -> None:
    pair = machine
    pair.pace(2.0)
    build(pair)
    assert pair.pfsync("a", "hold")["held"]
    ok(pair, "b", "ifconfig pfsync0 syncdev xb syncpeer 192.0.2.2 up")
    ok(pair, "a", "ifconfig pfsync0 syncdev xa syncpeer 192.0.2.3 up")
    until(lambda: pair.pfsync("b")["ok"], "b: the bulk update does not end")
    held = pair.pfsync("a")
    assert (held["ok"], held["waiting"], held["held"]) == (False, True, True)
    assert pair.pfsync("a", "done")["ok"]
    assert demotion(pair, "a") == "0"
    ok(pair, "a", "ifconfig pfsync0 syncpeer 192.0.2.3")
    assert not pair.pfsync("a")["ok"]
    assert demotion(pair, "a") == "240"
    assert pair.pfsync("a", "release")["ok"]
    assert demotion(pair, "a") == "0"
    with pytest.raises(KernelError):
        pair.pfsync("a", "nonsense")


def test_switching_it_off_leaves_the_demotion(pair: Kernel) -> None:
    ok(pair, "a", "ifconfig pfsync0 syncdev xa up")
    ok(pair, "a", "ifconfig pfsync0 -syncdev -syncpeer")
    assert ok(pair, "a", "ifconfig pfsync0").splitlines()[1:] == ["\tgroups: pfsync"]
    assert demotion(pair, "a") == "240"


@pytest.fixture
def fourteen() -> Iterator[Kernel]:
    """The pair, with FreeBSD 14."""
    with client.start(kernel="14") as kernel:
        kernel.pace(PACE)
        build(kernel)
        yield kernel


def test_14_has_ipv6_peers_and_versions(fourteen: Kernel) -> None:
    for name in "ab":
        ok(fourteen, name, f"ifconfig pfsync0 syncdev x{name} syncpeer ff12::f0 version 1301 up")
    for name in "ab":
        until(lambda name=name: fourteen.pfsync(name)["ok"], f"{name}: the bulk update does not end")  # type: ignore[misc]
    shown = ok(fourteen, "a", "ifconfig pfsync0").splitlines()
    assert shown[1] == "\tsyncdev: xa syncpeer: ff12::f0 maxupd: 128 defer: off version: 1301"
    done = fourteen.run("a", ["ifconfig", "pfsync0", "version", "1200"])
    assert done.stderr == "ifconfig: SIOCSETPFSYNCNV: Invalid argument\n"
    ok(fourteen, "a", f"ifconfig xa vhid 1 pass secret alias {SHARED4}/32")
    assert "\t      peer 224.0.0.18 peer6 ff02::12\n" in ok(fourteen, "a", "ifconfig xa")
