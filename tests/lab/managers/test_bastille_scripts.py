"""Bastille's own scripts, unmodified, with our hooks in the jails' files: what works, and how it looks where it does not.

They need Bastille's source tree: MOBILITY_BASTILLE names it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from mobility.hooks.edit import Way
from tests.lab.faults import await_hooks
from tests.lab.invariants import await_rest
from tests.lab.managers import bastille_conf as forms
from tests.lab.managers.bastille_conf import BRIDGE, LONG, STANDARD
from tests.lab.managers.bastille_scripts import Scripts
from tests.lab.topology import Host, Lab

TREE = forms.source()
pytestmark = pytest.mark.skipif(TREE is None, reason=forms.MISSING)

IPV4, IPV6 = "198.51.100.7", "2001:db8:7::7"
PREFIXES = (f"{IPV4}/32", f"{IPV6}/128")
QUICK = {"look_every": 1.0, "inside_every": 1.0, "reject_for": 0.5, "drain_for": 0.2, "settle_for": 3.0}
ADDRESSES = {"ipv4": f"inet {IPV4}/24", "ipv6": f"inet6 -ifdisabled {IPV6}/64"}
WAYS = pytest.mark.parametrize("way", list(Way))
PORT = 8022


@pytest.fixture
def hosts(lab: Lab) -> Iterator[list[Scripts]]:
    """Both hosts up, each with Bastille."""
    assert TREE is not None
    with ExitStack() as stack:
        found = [stack.enter_context(Scripts(host, TREE)) for host in lab.hosts]
        found[0].other, found[1].other = found[1], found[0]
        for each in found:
            each.configure(agent=QUICK)
            each.host.start_agent()
            each.host.start_exabgp()
        for host in lab.hosts:
            lab.await_session(host)
        yield found


def make(
    at: Scripts, name: str = "web1", kind: str = BRIDGE, way: Way = Way.REPLACE, *, static_mac: bool = False
) -> str:
    """A jail as `bastille create` would leave it, with our hooks; return its jail.conf before them."""
    assert TREE is not None
    external = "bridge0" if kind == BRIDGE else "em0"
    text = forms.vnet_conf_by(TREE, name, kind, external, static_mac=static_mac, **at.where())
    at.host.grant(name, PREFIXES)
    at.put(name, text, forms.rc_conf(f"e0b_{forms.suffix(name)}", **ADDRESSES))
    at.install(name, way)
    return text


def announced(lab: Lab, host: Host, prefixes: tuple[str, ...] = PREFIXES) -> None:
    await_hooks(host)  # a look may have found the jail before its start was over
    for prefix in prefixes:
        lab.spine.fib.wait(prefix, via=host.address)


def withdrawn(lab: Lab) -> None:
    for prefix in PREFIXES:
        lab.spine.fib.wait(prefix, gone=True)


def answers(lab: Lab) -> bool:
    return all(lab.client.ping(address) for address in (IPV4, IPV6))


def rc_conf(at: Scripts, name: str = "web1") -> str:
    return (at.folder(name) / "root/etc/rc.conf").read_text()


@WAYS
@pytest.mark.parametrize(("name", "kind"), [("web1", BRIDGE), ("web1", STANDARD), (LONG, BRIDGE)])
def test_start_stop_restart(lab: Lab, hosts: list[Scripts], name: str, kind: str, way: Way) -> None:
    a, _ = hosts
    text = make(a, name, kind, way, static_mac=name == LONG)
    assert f"{name}: created" in a.bastille("start", name)
    announced(lab, a.host)
    assert answers(lab)
    said = a.bastille("restart", name)
    assert f"{name}: removed" in said
    assert f"{name}: created" in said
    announced(lab, a.host)
    assert answers(lab)
    assert f"{name}: removed" in a.bastille("stop", name)
    withdrawn(lab)
    await_rest(lab, a.host, {})
    assert a.complete(name)
    a.remove(name)
    assert a.conf(name).read_text() == text


@WAYS
def test_network_add_and_remove(lab: Lab, hosts: list[Scripts], way: Way) -> None:
    a, _ = hosts
    text = make(a, way=way)
    a.host.run(["ifconfig", "bridge1", "create"])
    assert 'Added bridge interface: "bridge1"' in a.bastille("network", "-B", "web1", "add", "bridge1", "10.9.0.2/24")
    assert a.complete("web1")
    a.bastille("start", "web1")
    announced(lab, a.host)
    assert answers(lab)
    assert "inet 10.9.0.2 netmask 0xffffff00" in a.host.run(["jexec", "web1", "ifconfig", "vnet1"]).stdout
    assert a.members("bridge1") == ["e1a_web1"]
    a.bastille("stop", "web1")
    withdrawn(lab)
    # the first one, which made way, is still there for Bastille
    assert "Default interface cannot be removed" in a.bastille("network", "web1", "remove", "bridge0", check=False)
    assert "already added" in a.bastille("network", "-B", "web1", "add", "bridge0", "10.9.0.3/24")
    assert 'Removed interface: "bridge1"' in a.bastille("network", "web1", "remove", "bridge1")
    assert a.complete("web1")
    a.remove("web1")
    assert a.conf("web1").read_text() == text


@WAYS
def test_rename(lab: Lab, hosts: list[Scripts], way: Way) -> None:
    a, _ = hosts
    text = make(a, way=way)
    a.bastille("rename", "web1", "shop")
    assert a.complete("shop")
    a.host.grant("shop", PREFIXES)
    (a.host.jails_d / "web1.toml").unlink()
    a.bastille("start", "shop")
    announced(lab, a.host)
    assert answers(lab)
    a.bastille("stop", "shop")
    withdrawn(lab)
    a.remove("shop")
    # what had made way has the new name, as Bastille would have written it
    log = f"{a.logs}/web1/console.log"
    assert a.conf("shop").read_text() == text.replace(log, f"{a.logs}/shop_console.log").replace("web1", "shop")


@WAYS
def test_clone(lab: Lab, hosts: list[Scripts], way: Way) -> None:
    a, _ = hosts
    make(a, way=way, static_mac=True)
    a.bastille("clone", "web1", "web2", f"198.51.100.8/24 {IPV6[:-1]}8/64")
    assert a.complete("web2")
    assert "ether" in a.conf("web2").read_text()
    if way is Way.REPLACE:
        # nobody grants it an address yet: it starts without a network, and is told so
        assert "jails.d/web2.toml" in a.bastille("start", "web2")
        assert "in-web2" not in a.host.run(["jexec", "web2", "ifconfig", "-l"]).stdout
        a.bastille("stop", "web2")
    a.host.grant("web2", ("198.51.100.8/32",))
    a.bastille("start", "web1")
    a.bastille("start", "web2")
    announced(lab, a.host)
    lab.spine.fib.wait("198.51.100.8/32", via=a.host.address)
    assert answers(lab)
    assert lab.client.ping("198.51.100.8")


@WAYS
def test_what_bastille_shows_and_sets(lab: Lab, hosts: list[Scripts], way: Way) -> None:
    a, _ = hosts
    make(a, way=way)
    assert a.bastille("config", "web1", "get", "vnet").strip() == "enabled"
    assert a.bastille("list", "jails").split() == ["web1"]
    line = next(line for line in a.bastille("list").splitlines() if "web1" in line)
    assert line.split()[:6] == ["-", "web1", "on", "99", "Down", "thick"]
    assert IPV4 in line
    a.bastille("config", "web1", "set", "allow.raw_sockets", "1")
    assert a.complete("web1")
    assert a.bastille("config", "web1", "get", "allow.raw_sockets").strip() == "1"
    # "=" where "+=" was: Bastille's own lines and ours are thrown away by jail(8), and that is seen
    a.bastille("config", "web1", "set", "exec.prestop", "/bin/echo going")
    assert not a.complete("web1")
    a.install("web1", way)
    assert a.complete("web1")
    a.bastille("start", "web1")
    announced(lab, a.host)
    assert "Up" in next(line for line in a.bastille("list").splitlines() if "web1" in line)
    a.bastille("stop", "web1")
    withdrawn(lab)
    # the grant beside it, which all this takes along, is no business of Bastille's
    settings = a.folder("web1") / "settings.conf"
    settings.write_text(settings.read_text() + f'mobility_addresses="{IPV4}"\n')
    a.bastille("config", "web1", "set", "priority", "7")
    assert f'mobility_addresses="{IPV4}"' in settings.read_text()


@WAYS
def test_a_forced_stop(lab: Lab, hosts: list[Scripts], way: Way) -> None:
    """`jail -R` runs no hook, and what Bastille evaluates of ours in its place is nothing: the next look finds it."""
    a, _ = hosts
    make(a, way=way)
    a.bastille("start", "web1")
    announced(lab, a.host)
    a.bastille("stop", "-f", "web1", check=False)
    withdrawn(lab)
    await_rest(lab, a.host, {})
    a.bastille("start", "web1")
    announced(lab, a.host)
    assert answers(lab)


@WAYS
def test_migrate(lab: Lab, hosts: list[Scripts], way: Way) -> None:
    a, b = hosts
    text = make(a, way=way)
    (a.host.jails_d / "web1.toml").unlink()
    with (a.folder("web1") / "settings.conf").open("a") as file:
        file.write(f'mobility_addresses="{IPV4} {IPV6}"\n')
    listening = b.host.service("sshd", [sys.executable, "-m", "http.server", str(PORT), "--bind", b.host.ipv4])
    probe = ["nc", "-z", "-w", "1", b.host.ipv4, str(PORT)]
    listening.await_(lambda: b.host.run(probe, check=False).returncode == 0, "listen", 10.0)
    a.bastille("start", "web1")
    announced(lab, a.host)
    assert "Migrated 'web1'" in a.bastille("migrate", "-a", "-d", "web1", f"root@{b.host.ipv4}:{PORT}")
    announced(lab, b.host)
    assert answers(lab)
    await_rest(lab, a.host, {})
    assert not a.folder("web1").exists()
    assert b.complete("web1")
    events = json.loads(b.host.mobility("events", "--json", "web1").stdout)
    assert events, "the hooks reached this host's agent"
    b.bastille("stop", "web1")
    withdrawn(lab)
    b.remove("web1")
    log = f"{a.logs}/web1/console.log"
    moved = text.replace(log, f"{b.logs}/web1_console.log").replace(str(a.prefix), str(b.prefix))
    assert b.conf("web1").read_text() == moved


@WAYS
@pytest.mark.parametrize("form", ["0.10", "0.12"])
def test_an_old_form(lab: Lab, hosts: list[Scripts], form: str, way: Way) -> None:
    """Bastille 1.0 and later rewrite it when the jail stops, unless it has made way."""
    a, _ = hosts
    inner = "e3b_web1" if form == "0.10" else "e0b_bastille0"
    text = forms.conf("web1", ["vnet;", *forms.old_lines("web1", form)], **a.where())
    a.host.grant("web1", PREFIXES)
    a.put("web1", text, forms.rc_conf(inner, **ADDRESSES))
    a.install("web1", way)
    for _ in range(2):
        a.bastille("start", "web1")
        announced(lab, a.host)
        assert answers(lab)
        said = a.bastille("stop", "web1")
        withdrawn(lab)
        assert a.complete("web1")
    assert "Updating jail.conf" not in said
    a.remove("web1")
    after = a.conf("web1").read_text()
    if way is Way.REPLACE:
        assert after == text
    else:
        assert "vnet.interface = e0b_web1;" in after
        assert "# mobility" not in after
    assert 'ifconfig_vnet0="inet' in rc_conf(a)


def test_without_vnet(lab: Lab, hosts: list[Scripts]) -> None:
    a, _ = hosts
    a.put("web1", forms.host_conf("web1", f"bastille0|{IPV4}/32", f"bastille0|{IPV6}/128", **a.where()))
    a.install("web1", Way.REPLACE)
    a.bastille("start", "web1")
    announced(lab, a.host)
    assert answers(lab)
    a.bastille("restart", "web1")
    announced(lab, a.host)
    a.bastille("stop", "web1")
    withdrawn(lab)
    said = a.pf_tables.read_text().splitlines()
    for address in (IPV4, IPV6):
        assert [line.split()[1] for line in said if line.split()[2] == address][-1] == "delete"
