"""Every trap of transcripts/freebsd-13.2/README.md: the lab punishes what FreeBSD punishes.

A lab that forgave would let a mistake through that a real host does not forgive. Each test does what FreeBSD does not
forgive, and, where there is one, the remedy beside it.
"""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest

from tests.lab.kernel.client import Kernel

#: Traps that the lab does not have yet: it has no CARP, no pfsync and no pf. Their scripts (6-carp, 7-pfsync) are
#: run by `make conformance` all the same and count as different; these rows wait for the issues that need them.
OUTSIDE = {
    "CARP demotion counts per vnet": "no CARP in the lab",
    "creates it": "no CARP in the lab",
    "pfsync without a peer": "no pfsync in the lab",
}

#: More packets than one ping and its neighbour discovery cost; one that loops passes some thirty times.
LOOPED = 20

#: What the transcripts' scripts do before their first question: outer end mob-NAME, inner end in-NAME in jail NAME.
WIRE = """
q() { "$@" >/dev/null 2>&1; }
host() {
 q sysctl net.inet.ip.forwarding=1 net.inet6.ip6.forwarding=1
 q ifconfig lo0 inet 203.0.113.1/32 alias; q ifconfig lo0 inet6 2001:db8::1/128 alias
}
pair() { # name n
 q ifconfig epair2$2 create; q ifconfig epair2${2}a name mob-$1; q ifconfig epair2${2}b name in-$1
 q ifconfig mob-$1 inet6 -auto_linklocal no_dad; q ifconfig mob-$1 inet6 fe80::1/64
 q ifconfig mob-$1 inet6 -ifdisabled up
 q jail -c name=$1 path=/ vnet persist allow.raw_sockets; q ifconfig in-$1 vnet $1
 q jexec $1 ifconfig lo0 inet 127.0.0.1/8 up
 q jexec $1 ifconfig in-$1 inet6 -auto_linklocal no_dad; q jexec $1 ifconfig in-$1 inet6 fe80::2/64
 q jexec $1 ifconfig in-$1 inet6 -ifdisabled up
}
wire() { # name n interface-for-the-addresses
 pair $1 $2
 q jexec $1 ifconfig $3 inet6 2001:db8:7::$2/128 alias; q jexec $1 ifconfig $3 inet 198.51.100.$2/32 alias
 q jexec $1 route -n add default -inet6 fe80::1%in-$1; q jexec $1 route -n -6 add default fe80::1%in-$1
 q route -n add -host 198.51.100.$2 -inet6 fe80::2%mob-$1
}
good() { wire $1 $2 in-$1; q route -n -6 add -host 2001:db8:7::$2 -interface mob-$1; }
"""


def ask(machine: Kernel, script: str) -> str:
    """Run a piece of sh on the machine, after WIRE; return what it printed, errors included."""
    argv = ["sh", "-c", f"exec 2>&1\n{WIRE}\n{script}"]
    return machine.run("", argv, timeout=60).stdout


def answers(machine: Kernel, address: str, *, jail: str = "") -> bool:
    """Tell whether an address answers a ping within two seconds, from a jail or from the machine."""
    where = f"jexec {jail} " if jail else ""
    six = "-6 " if ":" in address else ""
    said = ask(machine, f"{where}ping {six}-c 2 -i 0.2 -t 2 {address}")
    assert "2 packets transmitted" in said, said
    return ", 0 packets received" not in said


def sent(machine: Kernel, interface: str) -> int:
    """Return how many packets an interface has sent."""
    table = json.loads(ask(machine, "netstat -ibn --libxo json"))["statistics"]["interface"]
    return int(next(each["sent-packets"] for each in table if each["name"] == interface and "mtu" in each))


def test_the_list_of_traps_outside_of_the_lab_is_of_this_readme() -> None:
    readme = (Path(__file__).parent / "transcripts/freebsd-13.2/README.md").read_text()
    for words in OUTSIDE:
        assert words in readme


def test_a_pinned_next_hop_drops_ipv4(machine: Kernel) -> None:
    ask(machine, "host; good a 1; q jexec a ifconfig in-a ether 02:aa:aa:00:01:02")
    ask(machine, "q ndp -d fe80::2%mob-a; ndp -s fe80::2%mob-a 02:aa:aa:00:01:02")
    assert answers(machine, "2001:db8:7::1")
    assert not answers(machine, "198.51.100.1")
    ask(machine, "ndp -d fe80::2%mob-a")
    assert answers(machine, "198.51.100.1")


def test_a_jail_whose_128_is_routed_by_next_hop_reaches_nothing(machine: Kernel) -> None:
    ask(machine, "host; wire a 1 in-a; q route -n -6 add -host 2001:db8:7::1 fe80::2%mob-a")
    assert not answers(machine, "2001:db8::1", jail="a")
    ask(machine, "sysctl net.inet6.icmp6.nd6_onlink_ns_rfc4861=1")
    assert answers(machine, "2001:db8::1", jail="a")


@pytest.mark.parametrize("wiring", ["good a 1", "wire a 1 lo0; q route -n -6 add -host 2001:db8:7::1 fe80::2%mob-a"])
def test_a_128_by_interface_route_or_on_lo0_is_the_remedy(machine: Kernel, wiring: str) -> None:
    ask(machine, f"host; {wiring}")
    assert answers(machine, "2001:db8::1", jail="a")


def test_an_ipv4_interface_route_needs_an_ipv4_address_on_its_interface(machine: Kernel) -> None:
    ask(machine, "host; pair a 1; q jexec a ifconfig in-a inet 198.51.100.1/32 alias")
    ask(machine, "q route -n add -host 198.51.100.1 -interface mob-a")
    assert "ping: sendto: Can't assign requested address" in ask(machine, "ping -c 1 -t 1 198.51.100.1")
    ask(machine, "q route -n delete -host 198.51.100.1; q ifconfig mob-a inet 203.0.113.1/32 alias")
    ask(machine, "q route -n add -host 198.51.100.1 -interface mob-a")
    ask(machine, "q jexec a route -n add -host 203.0.113.1 -interface in-a")
    assert answers(machine, "198.51.100.1")


def test_nobody_answers_arp_for_a_32_on_the_jails_lo0(machine: Kernel) -> None:
    ask(machine, "host; pair a 1; q ifconfig mob-a inet 203.0.113.1/32 alias")
    ask(machine, "q jexec a ifconfig lo0 inet 198.51.100.1/32 alias")
    ask(machine, "q route -n add -host 198.51.100.1 -interface mob-a")
    assert not answers(machine, "198.51.100.1")


def test_duplicate_address_detection_is_a_second_of_silence(machine: Kernel) -> None:
    ask(machine, "host; good a 1")
    ask(machine, "q jexec a ifconfig in-a inet6 -no_dad; jexec a ifconfig in-a inet6 2001:db8:7::99/128 alias")
    begun = time.monotonic()
    ask(machine, "q route -n -6 add -host 2001:db8:7::99 -interface mob-a")
    assert "2001:db8:7::99 prefixlen 128 tentative" in ask(machine, "jexec a ifconfig in-a")
    first = "packets received"
    while " 1 packets received" not in first:
        assert time.monotonic() - begun < 5, "it never answers"
        first = ask(machine, "ping -6 -c 1 -t 1 2001:db8:7::99")
    assert time.monotonic() - begun > 0.9
    assert "tentative" not in ask(machine, "jexec a ifconfig in-a")


def test_no_dad_answers_at_once(machine: Kernel) -> None:
    ask(machine, "host; good a 1; jexec a ifconfig in-a inet6 2001:db8:7::99/128 alias")
    assert "tentative" not in ask(machine, "jexec a ifconfig in-a")


def test_ipv4_over_an_ipv6_next_hop_needs_an_ipv4_address_of_the_host(machine: Kernel) -> None:
    add = "route -n add -host 198.51.100.1 -inet6 fe80::2%mob-a"
    assert "Network is unreachable" in ask(machine, f"pair a 1; {add}")
    said = ask(machine, f"ifconfig lo0 inet 192.0.0.8/32 alias; {add}")
    assert said == "add host 198.51.100.1: gateway fe80::2%mob-a\n"


def test_adding_an_existing_route(machine: Kernel) -> None:
    ask(machine, "host; pair a 1; pair b 2; q route -n add -host 198.51.100.1 -inet6 fe80::2%mob-a")
    assert "Invalid argument" in ask(machine, "route -n add -host 198.51.100.1 -inet6 fe80::2%mob-b")
    first = "route -n -6 add -host 2001:db8:7::1 fe80::2%mob-a"
    assert "route already in table" in ask(machine, f"q {first}; {first}")
    silent = ask(machine, "route -n -6 add -host 2001:db8:7::1 fe80::2%mob-b")
    assert silent == "add host 2001:db8:7::1: gateway fe80::2%mob-b\n"
    table = ask(machine, "netstat -rn -f inet6")
    assert len(re.findall(r"^2001:db8:7::1 ", table, re.MULTILINE)) == 2
    assert "not in table" in ask(machine, "route -n -6 delete -host 2001:db8:7::1")
    assert "not in table" not in ask(machine, "route -n -6 delete -host 2001:db8:7::1 fe80::2%mob-b")


def test_change_to_reject_loops_on_lo0(machine: Kernel) -> None:
    ask(machine, "host; pair a 1; q route -n add -host 198.51.100.1 -inet6 fe80::2%mob-a")
    ask(machine, "q route -n change -host 198.51.100.1 127.0.0.1 -reject")
    assert re.search(r"^198\.51\.100\.1 +127\.0\.0\.1 +UGHS +lo0$", ask(machine, "netstat -rn -f inet"), re.MULTILINE)
    assert "No route to host" not in ask(machine, "ping -c 1 -t 1 198.51.100.1")
    ask(machine, "q route -n delete -host 198.51.100.1; q route -n add -host 198.51.100.1 127.0.0.1 -reject")
    assert "ping: sendto: No route to host" in ask(machine, "ping -c 1 -t 1 198.51.100.1")


def test_a_reject_changed_to_a_real_route_stays_a_reject(machine: Kernel) -> None:
    ask(machine, "host; good a 1; q route -n -6 delete -host 2001:db8:7::1")
    ask(
        machine,
        "q route -n -6 add -host 2001:db8:7::1 ::1 -reject; q route -n -6 change -host 2001:db8:7::1 fe80::2%mob-a",
    )
    assert re.search(r"^2001:db8:7::1 +fe80::2%mob-a +UGHRS +lo0$", ask(machine, "netstat -rn -f inet6"), re.MULTILINE)
    assert not answers(machine, "2001:db8:7::1")


def test_vnet_interface_moves_after_created(machine: Kernel, tmp_path: Path) -> None:
    conf = tmp_path / "jail.conf"
    conf.write_text(
        "web1 { path = /; persist; vnet; vnet.interface = epair5b; exec.prestart = 'ifconfig epair5 create';"
        " exec.created = 'echo created $(ifconfig -l) / $(jexec web1 ifconfig -l)';"
        " exec.start = 'echo start $(ifconfig -l)'; }"
    )
    said = ask(machine, f"jail -f {conf} -c web1").splitlines()
    assert said == [
        "epair5a",
        "web1: created",
        "created lo0 pflog0 pfsync0 epair5a epair5b / lo0 pflog0 pfsync0",
        "start lo0 pflog0 pfsync0 epair5b",
    ]


@pytest.mark.parametrize("step", ["prestart", "created", "start", "poststart"])
def test_a_failed_start_runs_neither_poststop_nor_release(machine: Kernel, tmp_path: Path, step: str) -> None:
    conf = tmp_path / "jail.conf"
    others = "".join(f" exec.{each} = 'echo ran {each}';" for each in ("prestop", "stop", "poststop", "release"))
    conf.write_text(f"web1 {{ path = /; persist; exec.{step} = 'exit 3';{others} }}")
    said = ask(machine, f"jail -f {conf} -c web1; echo status $?; jls -j web1 jid")
    assert "web1: /bin/sh -c exit 3: failed" not in said  # it has no character for the shell: "exit" is executed
    assert "jail: web1: exit 3: failed" in said
    assert "ran" not in said
    assert "status 1" in said
    assert 'jls: jail "web1" not found' in said


def test_jail_R_runs_no_hook(machine: Kernel, tmp_path: Path) -> None:  # noqa: N802 - the option is a capital
    conf = tmp_path / "jail.conf"
    others = "".join(f" exec.{each} = 'echo ran {each}';" for each in ("prestop", "stop", "poststop", "release"))
    conf.write_text(f"web1 {{ path = /; persist;{others} }}")
    assert ask(machine, f"jail -f {conf} -c web1; jail -R web1; jls name") == "web1: created\n"


@pytest.mark.parametrize("step", ["prestop", "stop"])
def test_a_failed_prestop_or_stop_leaves_it_running(machine: Kernel, tmp_path: Path, step: str) -> None:
    conf = tmp_path / "jail.conf"
    conf.write_text(f"web1 {{ path = /; persist; exec.{step} = 'false'; exec.poststop = 'echo ran poststop'; }}")
    said = ask(machine, f"jail -q -f {conf} -c web1; jail -f {conf} -r web1; echo status $?; jls name")
    assert said == "jail: web1: false: failed\nstatus 1\nweb1\n"


def test_an_interface_comes_home_as_the_jails_root_left_it(machine: Kernel) -> None:
    ask(machine, "host; pair a 1; q ifconfig mob-a group mobility")
    ask(
        machine,
        "q jexec a ifconfig in-a description changed group mine; q jexec a ifconfig in-a ether 02:bb:bb:00:00:01",
    )
    ask(machine, "q jexec a ifconfig in-a name lo7; q jail -R a")
    home = ask(machine, "ifconfig lo7")
    assert "description: changed" in home
    assert "ether 02:bb:bb:00:00:01" in home
    assert "groups:" not in home
    assert ask(machine, "ifconfig -g mobility") == "mob-a\n"


def test_two_interfaces_of_one_name(machine: Kernel) -> None:
    ask(machine, "pair a 1; pair b 2; for n in a b; do q jexec $n ifconfig in-$n name eth0; q jail -R $n; done")
    assert ask(machine, "ifconfig -l").split().count("eth0") == 2
    ask(machine, "q ifconfig mob-a destroy")
    assert ask(machine, "ifconfig -l") == "lo0 pflog0 pfsync0 mob-b eth0\n"


def test_a_prefix_by_interface_route_fills_the_neighbour_cache(machine: Kernel) -> None:
    ask(machine, "host; good a 1; q route -n -6 add -net 2001:db8:77::/64 -interface mob-a")
    ask(machine, "q ping -6 -c 1 -t 1 2001:db8:77::5; q ping -6 -c 1 -t 1 2001:db8:77::6")
    cache = ask(machine, "ndp -an")
    assert "2001:db8:77::5 " in cache
    assert "2001:db8:77::6 " in cache


def test_a_prefix_by_next_hop_loops_until_the_jail_rejects_it(machine: Kernel) -> None:
    ask(machine, "host; good a 1; good b 2; q jexec a sysctl net.inet6.ip6.forwarding=1")
    ask(machine, "q route -n -6 add -net 2001:db8:77::/64 fe80::2%mob-a")
    before = sent(machine, "mob-a")
    ask(machine, "q jexec b ping -6 -c 1 -t 1 2001:db8:77::5")
    assert sent(machine, "mob-a") - before > LOOPED
    ask(machine, "q jexec a route -n -6 add -net 2001:db8:77::/64 ::1 -reject")
    ask(machine, "q jexec a ifconfig lo0 inet6 2001:db8:77::7/128 alias")
    assert answers(machine, "2001:db8:77::7", jail="b")
    before = sent(machine, "mob-a")
    ask(machine, "q jexec b ping -6 -c 1 -t 1 2001:db8:77::5")
    assert sent(machine, "mob-a") - before < LOOPED


_RECEIVE = """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("198.51.100.2", 9))
print("ready", flush=True)
print(s.recvfrom(9)[1][0], flush=True)
"""
_SEND = """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("198.51.100.66", 0))
s.sendto(b"x", ("198.51.100.2", 9))
"""


def test_a_jail_may_send_from_any_source_address(machine: Kernel) -> None:
    ask(machine, "host; good a 1; good b 2; q jexec a ifconfig lo0 inet 198.51.100.66/32 alias")
    with machine.popen("b", ["python3", "-c", _RECEIVE], stdout=-1) as receiver:
        assert receiver.stdout is not None
        assert receiver.stdout.readline() == "ready\n"
        machine.run("a", ["python3", "-c", _SEND], check=True)
        assert receiver.stdout.readline() == "198.51.100.66\n"


def test_routes_through_the_outer_end_stay_when_the_jail_goes(machine: Kernel) -> None:
    ask(machine, "host; good a 1; q jail -R a")
    assert re.search(r"^198\.51\.100\.1 .* mob-a$", ask(machine, "netstat -rn -f inet"), re.MULTILINE)
    ask(machine, "q ifconfig mob-a destroy")
    assert "198.51.100.1 " not in ask(machine, "netstat -rn -f inet")


def test_a_dying_jail_keeps_its_interface_and_its_name_is_free(machine: Kernel) -> None:
    ask(machine, "host; good a 1")
    script = (
        "import socket, time; s = socket.create_server(('198.51.100.1', 80)); print('ready', flush=True);"
        "c = s.accept()[0]; print('connected', flush=True); time.sleep(60)"
    )
    client = "import socket, time; c = socket.create_connection(('198.51.100.1', 80)); time.sleep(60)"
    with machine.popen("a", ["python3", "-c", script], stdout=-1) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        with machine.popen("", ["python3", "-c", client]) as peer:
            assert server.stdout.readline() == "connected\n"
            assert ask(machine, "jail -R a; jls name; jls -d name dying") == "a true\n"
            assert ask(machine, "ifconfig -l") == "lo0 pflog0 pfsync0 mob-a\n"
            assert ask(machine, "ifconfig mob-a destroy; ifconfig -l") == "lo0 pflog0 pfsync0\n"
            assert ask(machine, "good a 2; jls name; jls -d name dying") == "a\na true\na false\n"
            assert answers(machine, "198.51.100.2")
            peer.kill()


def test_the_boot_id_is_opaque(machine: Kernel) -> None:
    assert ask(machine, "sysctl kern.boot_id") == ""
    assert re.fullmatch(
        r"kern\.boot_id: Format:.* Length:16 Dump:0x[0-9a-f]{32}.*\n", ask(machine, "sysctl -x kern.boot_id")
    )


def test_what_a_jails_root_undoes_is_not_seen_from_outside(machine: Kernel) -> None:
    ask(machine, "host; good a 1")
    look = "ifconfig mob-a; netstat -rn | sort"
    before = ask(machine, look)
    assert answers(machine, "198.51.100.1")
    ask(machine, "q jexec a ifconfig in-a inet 198.51.100.1/32 -alias; q jexec a route -n delete default")
    assert ask(machine, look) == before
    assert not answers(machine, "198.51.100.1")


def test_jexec_hands_on_what_its_caller_left_open(machine: Kernel, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("of the host\n")
    said = ask(machine, f"q jail -c name=a path=/ vnet persist; exec 7<{secret}; jexec a sh -c 'cat <&7'")
    assert said == "of the host\n"


def test_jail_names_may_hold_anything(machine: Kernel) -> None:
    names = ["a b", "a;b", "a'b", 'a"b', "a$b", "a/b"]
    for name in names:
        machine.run("", ["jail", "-c", f"name={name}", "path=/", "persist"]).check_returncode()
    assert machine.run("", ["jls", "name"]).stdout.splitlines() == names


def test_13_2_has_no_ifconfig_j_and_no_libxo_there(machine: Kernel) -> None:
    ask(machine, "q jail -c name=a path=/ vnet persist")
    assert "illegal option -- j" in ask(machine, "ifconfig -j a -l")
    assert "illegal option -- -" in ask(machine, "ifconfig --libxo json")
    for command in ("jls", "netstat -rn", "ndp -an", "arp -an"):
        name, _, rest = command.partition(" ")
        assert ask(machine, f"{name} --libxo json {rest}").startswith('{"')
