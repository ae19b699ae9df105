"""What a jail's own rc, and its administrator's `service`, do to its network: held against 11-rc.txt."""

from __future__ import annotations

import re
from pathlib import Path

from tests.lab.kernel.client import Kernel
from tests.lab.kernel.test_kernel import ok
from tests.lab.test_jail8 import jail

TRANSCRIPT = Path(__file__).parents[1] / "transcripts" / "freebsd-13.2" / "11-rc.txt"
WIRED = """web1 { path = "/"; host.hostname = "web1"; vnet; persist; exec.clean; allow.raw_sockets;
  exec.created = "sh DIR/wire"; exec.start = "/bin/sh /etc/rc"; exec.stop = "/bin/sh /etc/rc.shutdown jail"; }"""
#: 8-reference.sh
WIRE = """
ifconfig epair30 create
ifconfig epair30a name mob-web1
ifconfig epair30b name in-web1
ifconfig mob-web1 inet6 -auto_linklocal no_dad
ifconfig mob-web1 inet6 fe80::1/64
ifconfig mob-web1 inet6 -ifdisabled up
ifconfig in-web1 vnet web1
jexec web1 ifconfig lo0 127.0.0.1/8 up
jexec web1 ifconfig in-web1 inet6 -auto_linklocal no_dad
jexec web1 ifconfig in-web1 inet6 fe80::2/64
jexec web1 ifconfig in-web1 inet6 -ifdisabled up
jexec web1 ifconfig in-web1 inet6 2001:db8:7::7/128 alias
jexec web1 ifconfig in-web1 inet 198.51.100.7/32 alias
jexec web1 route -n -6 add default fe80::1%in-web1
jexec web1 route -n add default -inet6 fe80::1%in-web1
route -n -6 add -host 2001:db8:7::7 -interface mob-web1
route -n add -host 198.51.100.7 -inet6 fe80::2%mob-web1
"""


def recorded(command: str, occurrence: int = 0) -> list[str]:
    """What 11-rc.txt shows below the given occurrence of a command."""
    parts = [part.split("\n\n#")[0] for part in TRANSCRIPT.read_text().split("\n$ ")]
    found = [part for part in parts if part.partition("\n")[0] == command]
    return comparable(found[occurrence].partition("\n")[2])


def comparable(text: str) -> list[str]:
    """Lines without what differs between machines: MACs, and the interfaces' numbers."""
    text = re.sub("ether [0-9a-f:]{17}", "ether MAC", text)
    return re.sub(r"scopeid 0x\d|link#\d", "N", text).splitlines()


def wired(machine: Kernel, rc_conf: str = "") -> None:
    """Start 11-rc.txt's jail."""
    ok(machine, "", "ifconfig lo0 203.0.113.1/32 alias")
    (machine.directory / "wire").write_text(WIRE)
    (machine.directory / "rc.conf.d").mkdir()
    (machine.directory / "rc.conf.d" / "web1").write_text(rc_conf)
    said = jail(machine, WIRED.replace("DIR", str(machine.directory)), "$J -c web1")
    assert "Starting Network: lo0 in-web1.\n" in said


def reaches(machine: Kernel, address: str) -> bool:
    """Whether the host's ping is answered."""
    return "1 packets received" in machine.run("", ["ping", "-c", "1", "-t", "1", address]).stdout


def test_rc_leaves_alone_what_was_wired_at_created(machine: Kernel) -> None:
    wired(machine)
    assert comparable(ok(machine, "", "jexec web1 ifconfig")) == recorded("jexec web1 ifconfig")
    assert comparable(ok(machine, "", "jexec web1 netstat -rn")) == recorded("jexec web1 netstat -rn")
    assert reaches(machine, "198.51.100.7")
    assert reaches(machine, "2001:db8:7::7")


def test_service_netif_restart_breaks_it_and_service_routing_restart_the_rest(machine: Kernel) -> None:
    wired(machine)
    said = comparable(ok(machine, "", "jexec web1 service netif restart"))
    assert said == recorded("jexec web1 sh /etc/rc.d/netif restart")
    assert comparable(ok(machine, "", "jexec web1 ifconfig in-web1")) == recorded("jexec web1 ifconfig in-web1")
    assert comparable(ok(machine, "", "jexec web1 netstat -rn")) == recorded("jexec web1 netstat -rn", 1)
    assert not reaches(machine, "198.51.100.7")
    assert not reaches(machine, "2001:db8:7::7")
    said = comparable(ok(machine, "", "jexec web1 service routing restart"))
    assert said == recorded("jexec web1 sh /etc/rc.d/routing restart")
    assert comparable(ok(machine, "", "jexec web1 netstat -rn")) == recorded("jexec web1 netstat -rn", 2)


def test_an_rc_conf_as_managers_write_it(machine: Kernel, tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "rc.conf").write_text(
        '# by Bastille\nifconfig_e0b_web1_name="vnet0"\nifconfig_vnet0="inet 10.0.0.2/24"\n'
        'ifconfig_vnet0_descr="jail interface for bridge0"\nifconfig_vnet0_ipv6="inet6 2001:db8:1::2/64"\n'
        'defaultrouter="10.0.0.1"\nipv6_defaultrouter="2001:db8:1::1"\n'
    )
    conf = f"""web1 {{ path = {tmp_path}; vnet; vnet.interface = e0b_web1; persist; exec.start = "/bin/sh /etc/rc";
      exec.prestart = "ifconfig bridge0 create", "ifconfig bridge0 inet 10.0.0.1/24 up", "ifconfig epair0 create",
        "ifconfig epair0a up name e0a_web1", "ifconfig epair0b up name e0b_web1", "ifconfig bridge0 addm e0a_web1"; }}"""
    jail(machine, conf, "$J -c web1")
    (tmp_path / "sbin").mkdir()
    for name in ("ifconfig", "netstat", "service"):
        (tmp_path / "sbin" / name).touch()
    shown = ok(machine, "", "jexec web1 ifconfig vnet0")
    assert "\tdescription: jail interface for bridge0\n" in shown
    assert "\tinet 10.0.0.2 netmask 0xffffff00 broadcast 10.0.0.255\n" in shown
    assert "\tinet6 2001:db8:1::2 prefixlen 64" in shown
    assert re.search("^default +10.0.0.1 +UGS", ok(machine, "", "jexec web1 netstat -rn"), re.MULTILINE)
    assert reaches(machine, "10.0.0.2")
    ok(machine, "", "jexec web1 service netif restart")
    assert "10.0.0.2" in ok(machine, "", "jexec web1 ifconfig vnet0")
    assert "default" not in ok(machine, "", "jexec web1 netstat -rn -f inet")


def test_other_services_and_verbs(machine: Kernel) -> None:
    done = machine.run("", ["service", "nosuch", "start"])
    assert (done.returncode, done.stderr.splitlines()[0]) == (
        1,
        "nosuch does not exist in /etc/rc.d or the local startup",
    )
    assert machine.run("", ["service", "netif", "dance"]).returncode == 1
