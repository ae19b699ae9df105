"""What the managers' files and commands need of jail(8) and ifconfig(8): the forms that they use, from start to stop."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lab.kernel.client import Kernel
from tests.lab.kernel.test_kernel import ok
from tests.lab.test_jail8 import jail

#: A jail.conf in Bastille's form for a jail on a bridge (lib/network.sh, create.sh): no persist, escapes for the shell.
BASTILLE = r"""web1 {
  enforce_statfs = 2;
  devfs_ruleset = 13;
  exec.clean;
  exec.consolelog = TREE/console.log;
  exec.start = '/bin/sh /etc/rc';
  exec.stop = '/bin/sh /etc/rc.shutdown';
  host.hostname = web1;
  mount.devfs;
  mount.fstab = TREE/fstab;
  path = TREE/root;
  securelevel = 2;
  osrelease = 13.2-RELEASE;

  vnet;
  vnet.interface = e0b_web1;
  exec.prestart += "PAIR";
  exec.prestart += "ifconfig bridge0 addm e0a_web1";
  exec.prestart += "ifconfig e0a_web1 ether 02:aa:aa:00:00:0a";
  exec.prestart += "ifconfig e0b_web1 ether 02:aa:aa:00:00:0b";
  exec.prestart += "ifconfig e0a_web1 description \"vnet0 host interface for Bastille jail web1\"";
  exec.poststop += "ifconfig e0a_web1 destroy";
}
"""
BASTILLE = BASTILLE.replace(
    "PAIR",
    r"epair0=\$(ifconfig epair create) && ifconfig \${epair0} up name e0a_web1 "
    r"&& ifconfig \${epair0%a}b up name e0b_web1",
)
SHARED = """web2 {
  exec.clean; exec.start = '/bin/sh /etc/rc'; exec.stop = '/bin/sh /etc/rc.shutdown';
  path = TREE/root; mount.fstab = TREE/fstab;
  interface = bastille0;
  ip4.addr = 10.17.89.10;
  ip6 = disable;
}
"""
#: iocage's start of a vnet jail's network (ioc_start.py), after its `jail -c`.
IOCAGE = """
set -e
PAIR=$(ifconfig epair create)
ifconfig $PAIR name vnet0.$JID mtu 1500
ifconfig vnet0.$JID link 02:ff:60:00:00:0a
ifconfig vnet0.$JID description "associated with jail: web3 as nic: epair0b"
ifconfig ${PAIR%a}b vnet ioc-web3
jexec ioc-web3 ifconfig ${PAIR%a}b mtu 1500
setfib 0 jexec ioc-web3 ifconfig ${PAIR%a}b name epair0b2
setfib 0 jexec ioc-web3 ifconfig epair0b2 link 02:ff:60:00:00:0b
ifconfig bridge0 addm vnet0.$JID up
ifconfig vnet0.$JID up
setfib 0 jexec ioc-web3 ifconfig epair0b2 10.0.0.3/24 alias
setfib 0 jexec ioc-web3 route add default 10.0.0.254
"""


@pytest.fixture
def tree(machine: Kernel, tmp_path: Path) -> Path:
    """A jail's folder, and a bridge0 with 10.0.0.254."""
    for name in ("root/etc", "root/sbin", "root/usr/sbin"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("ifconfig", "route"):
        (tmp_path / "root" / "sbin" / name).touch()
    (tmp_path / "fstab").touch()
    ok(machine, "", "ifconfig bridge create")
    ok(machine, "", "ifconfig bridge0 inet 10.0.0.254/24 up")
    return tmp_path


def answers(machine: Kernel, address: str) -> bool:
    """Whether a ping from the host is answered."""
    return "1 packets received" in machine.run("", ["ping", "-c", "1", "-t", "2", address]).stdout


def test_a_bastille_jail_on_a_bridge_starts_stops_and_starts(machine: Kernel, tree: Path) -> None:
    (tree / "root/etc/rc.conf").write_text(
        'ifconfig_e0b_web1_name="vnet0"\nifconfig_vnet0="inet 10.0.0.2/24"\ndefaultrouter="10.0.0.254"\n'
    )
    conf = BASTILLE.replace("TREE", str(tree))
    for _ in range(2):
        assert jail(machine, conf, "$J -c web1").splitlines() == ["e0a_web1", "e0b_web1", "web1: created"]
        assert "Starting Network: lo0 vnet0.\n" in (tree / "console.log").read_text()
        assert ok(machine, "", "jls name securelevel osrelease") == "web1 2 13.2-RELEASE\n"
        shown = ok(machine, "", "ifconfig e0a_web1")
        assert "flags=8963<UP,BROADCAST,RUNNING,PROMISC,SIMPLEX,MULTICAST>" in shown
        assert "\tdescription: vnet0 host interface for Bastille jail web1\n" in shown
        assert "\tether 02:aa:aa:00:00:0a\n" in shown
        assert "\tether 02:aa:aa:00:00:0b\n" in ok(machine, "", "jexec web1 ifconfig vnet0")
        assert answers(machine, "10.0.0.2")
        assert jail(machine, conf, "$J -r web1") == "web1: removed\n"
        assert ok(machine, "", "ifconfig -l") == "lo0 pflog0 pfsync0 bridge0\n"


def test_a_bastille_jail_on_a_loopback(machine: Kernel, tree: Path) -> None:
    ok(machine, "", "ifconfig lo1 create name bastille0")
    conf = SHARED.replace("TREE", str(tree))
    assert jail(machine, conf, "$J -c web2") == "web2: created\n"
    assert ok(machine, "", "jls -j web2 ip4.addr ip6.addr ip6") == "10.17.89.10 - disable\n"
    assert "\tinet 10.17.89.10 netmask 0xffffffff\n" in ok(machine, "", "ifconfig bastille0")
    assert jail(machine, conf, "$J -r web2") == "web2: removed\n"
    assert "10.17.89.10" not in ok(machine, "", "ifconfig")


def test_an_iocage_jail_gets_its_pair_after_its_start(machine: Kernel, tree: Path) -> None:
    conf = f'''"ioc-web3" {{
\tvnet;
\tallow.set_hostname = "1";
\tallow.mount.linprocfs = "1";
\tname = "ioc-web3";
\thost.hostname = "web3";
\tpath = "{tree}/root";
\tsecurelevel = "2";
\thost.hostuuid = "web3";
\tenforce_statfs = "2";
\tchildren.max = "0";
\texec.clean = "1";
\texec.timeout = "60";
\tstop.timeout = "30";
\tmount.fstab = "{tree}/fstab";
\tallow.dying;
\tpersist;
}}
'''.replace('\tname = "ioc-web3";\n', "")
    assert jail(machine, conf, "$J -c") == "ioc-web3: created\n"
    jid = ok(machine, "", "jls -j ioc-web3 jid").strip()
    assert jail(machine, conf, f"JID={jid}\n{IOCAGE}").splitlines()[-1] == "add net default: gateway 10.0.0.254"
    assert f"\tmember: vnet0.{jid} flags=143" in ok(machine, "", "ifconfig bridge0")
    assert answers(machine, "10.0.0.3")
    assert jail(machine, conf, "jail -m jid=1 allow.raw_sockets=1; $J -q -r ioc-web3") == ""
    assert ok(machine, "", "ifconfig -l").split()[-1] == "epair0b2"
    ok(machine, "", f"ifconfig vnet0.{jid} destroy")
