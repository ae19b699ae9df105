"""Jails whose jail.conf is of Bastille's making, with our hooks in both ways, on real routers."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from mobility.hooks.edit import Way
from tests.lab.faults import await_hooks, running
from tests.lab.invariants import await_announced, await_rest, status
from tests.lab.managers import bastille_conf as forms
from tests.lab.managers.bastille_conf import BRIDGE, LONG, PASSTHROUGH, STANDARD
from tests.lab.managers.bastille_home import Home
from tests.lab.topology import Host, Lab
from tests.waiting import until

IPV4, IPV6 = "198.51.100.7", "2001:db8:7::7"
PREFIXES = (f"{IPV4}/32", f"{IPV6}/128")
#: A look in the middle of an adopted jail's start would find its link, and take it out of its manager's hands: README, Limits.
QUICK = {"look_every": 60.0, "inside_every": 1.0, "reject_for": 0.5, "drain_for": 0.2, "settle_for": 3.0}
#: What Bastille would give a jail that has these addresses on the network of a bridge.
ADDRESSES = {"ipv4": f"inet {IPV4}/24", "ipv6": f"inet6 -ifdisabled {IPV6}/64"}
ROUTERS = {"router": "198.51.100.1", "router6": "2001:db8:7::1"}


@pytest.fixture
def homes(lab: Lab) -> list[Home]:
    """All hosts up, each with a Bastille's folder."""
    found = [Home(host) for host in lab.hosts]
    for home in found:
        home.configure(agent=QUICK)
        home.host.start_agent()
        home.host.start_exabgp()
    for host in lab.hosts:
        lab.await_session(host)
    return found


def announced(lab: Lab, host: Host) -> None:
    await_hooks(host)  # a look may have found the jail before its start was over
    for prefix in PREFIXES:
        lab.spine.fib.wait(prefix, via=host.address)


def withdrawn(lab: Lab) -> None:
    for prefix in PREFIXES:
        lab.spine.fib.wait(prefix, gone=True)


def answers(lab: Lab) -> bool:
    return all(lab.client.ping(address) for address in (IPV4, IPV6))


def inside(home: Home, jail: str, *argv: str) -> str:
    return home.host.run(["jexec", jail, *argv]).stdout


ONE = pytest.mark.hosts(1)
MADE = pytest.mark.parametrize(
    ("name", "kind", "external", "static_mac"),
    [
        ("web1", BRIDGE, "bridge0", False),
        ("web1", STANDARD, "em0", True),
        (LONG, BRIDGE, "bridge0", True),
        (LONG, STANDARD, "em0", False),
    ],
)


@MADE
def test_replace(lab: Lab, homes: list[Home], name: str, kind: str, external: str, static_mac: bool) -> None:
    a, b = homes
    inner = f"e0b_{forms.suffix(name)}"
    for home in homes:
        home.host.grant(name, PREFIXES)
        text = forms.vnet_conf(name, kind, external, static_mac=static_mac, **home.where())
        home.put(name, text, forms.rc_conf(inner, **ADDRESSES))
        home.install(name, Way.REPLACE)
    for home in (a, b, a):
        home.start(name)
        announced(lab, home.host)
        assert answers(lab)
        await_rest(lab, home.host, {name: (IPV4, IPV6)})
        assert not [each for each in home.interfaces() if each.startswith("e0")], "nothing of Bastille's is made"
        home.stop(name)
        withdrawn(lab)
        await_rest(lab, home.host, {})
    a.remove(name)
    assert a.conf(name).read_text() == text.replace(str(b.prefix), str(a.prefix)).replace(str(b.logs), str(a.logs))


@MADE
def test_adopt(lab: Lab, homes: list[Home], name: str, kind: str, external: str, static_mac: bool) -> None:
    a, b = homes
    outer, inner = f"e0a_{forms.suffix(name)}", f"e0b_{forms.suffix(name)}"
    bridge = external if kind == BRIDGE else f"{external}bridge"
    for home in homes:
        home.host.grant(name, PREFIXES)
        text = forms.vnet_conf(name, kind, external, static_mac=static_mac, **home.where())
        home.put(name, text, forms.rc_conf(inner, **ADDRESSES, **ROUTERS))
        home.install(name, Way.ADOPT)
    for home in (a, b, a):
        home.start(name)
        announced(lab, home.host)
        until(lambda: answers(lab), "what the manager did after a look had found the jail is not mended")
        assert outer in home.interfaces()
        assert outer not in home.members(bridge), "a link that carries fe80::1 can not stay a bridge's member"
        shown = inside(home, name, "ifconfig", "vnet0")
        assert f"inet {IPV4} netmask 0xffffffff" in shown
        assert f"inet6 {IPV6} prefixlen 128" in shown
        home.stop(name)
        withdrawn(lab)
        assert outer not in home.interfaces(), "Bastille's own line destroys it"
        assert not [each for each in home.interfaces() if each.startswith("mob-")]


@pytest.mark.parametrize("way", list(Way))
@ONE
def test_restart_and_agents_restart(lab: Lab, homes: list[Home], way: Way) -> None:
    (a,) = homes
    a.host.grant("web1", PREFIXES)
    a.put("web1", forms.vnet_conf("web1", BRIDGE, "bridge0", **a.where()), forms.rc_conf("e0b_web1", **ADDRESSES))
    a.install("web1", way)
    a.start("web1")
    announced(lab, a.host)
    a.host.stop_agent()
    a.host.start_agent()
    await_announced(a.host, "web1")
    assert answers(lab)
    # bastille restart: stop, then start at once
    a.stop("web1")
    a.start("web1")
    announced(lab, a.host)
    assert answers(lab)


@ONE
def test_a_further_interface_stays(lab: Lab, homes: list[Home]) -> None:
    (a,) = homes
    a.host.grant("web1", PREFIXES)
    first = forms.vnet_conf("web1", BRIDGE, "bridge0", **a.where())
    rc = forms.rc_conf("e0b_web1", **ADDRESSES) + 'ifconfig_e1b_web1_name="vnet1"\nifconfig_vnet1="inet 10.9.0.2/24"\n'
    a.put("web1", forms.with_another(first, "web1", BRIDGE, "bridge0", 1), rc)
    for way in (Way.REPLACE, Way.ADOPT, Way.REPLACE):
        a.install("web1", way)
        a.start("web1")
        announced(lab, a.host)
        assert answers(lab)
        assert "inet 10.9.0.2 netmask 0xffffff00" in inside(a, "web1", "ifconfig", "vnet1")
        assert a.members("bridge0") == ["e1a_web1"]
        a.stop("web1")
        withdrawn(lab)
        assert a.members("bridge0") == []
        await_rest(lab, a.host, {})


@ONE
def test_passthrough_makes_way(lab: Lab, homes: list[Home]) -> None:
    (a,) = homes
    a.host.grant("web1", PREFIXES)
    a.put("web1", forms.vnet_conf("web1", PASSTHROUGH, "em0", **a.where()), forms.rc_conf("em0", vnet="em0"))
    a.install("web1", Way.REPLACE)
    a.start("web1")
    announced(lab, a.host)
    assert answers(lab)
    assert "em0" in a.interfaces()
    a.stop("web1")
    await_rest(lab, a.host, {})


def test_without_vnet(lab: Lab, homes: list[Home]) -> None:
    a, b = homes
    for home in homes:
        home.put("web1", forms.host_conf("web1", f"bastille0|{IPV4}/32", f"bastille0|{IPV6}/128", **home.where()))
        home.install("web1", Way.REPLACE)
    for home in (a, b):
        home.start("web1")
        announced(lab, home.host)
        assert answers(lab)
        home.stop("web1")
        withdrawn(lab)


@ONE
def test_a_request_counts_within_the_grant(lab: Lab, homes: list[Home]) -> None:
    (a,) = homes
    (a.host.jails_d / "web1.toml").write_text(f'requests = ["{IPV4}/32"]\n')
    a.put("web1", forms.vnet_conf("web1", BRIDGE, "bridge0", **a.where()), forms.rc_conf("e0b_web1", **ADDRESSES))
    a.install("web1", Way.REPLACE)
    a.start("web1")
    lab.spine.fib.wait(PREFIXES[0], via=a.host.address)
    assert lab.client.ping(IPV4)
    assert not lab.spine.kernel_has(PREFIXES[1])
    refused = a.host.mobility("check", check=False)
    assert IPV6 in refused.stdout + refused.stderr


def _never(_: Home) -> None: ...


def _settings(home: Home) -> None:
    with (home.folder("web1") / "settings.conf").open("a") as file:
        file.write(f'mobility_addresses="{IPV4} {IPV6}"\n')


@pytest.mark.parametrize("granting", [_settings, _never])
@ONE
def test_a_grant_in_settings_conf(lab: Lab, homes: list[Home], granting: Callable[[Home], None]) -> None:
    (a,) = homes
    a.put("web1", forms.vnet_conf("web1", BRIDGE, "bridge0", **a.where()), forms.rc_conf("e0b_web1", **ADDRESSES))
    granting(a)
    a.install("web1", Way.ADOPT)
    a.start("web1")
    if granting is _settings:
        announced(lab, a.host)
        assert answers(lab)
    else:
        # it runs as it did before, and nothing of it is announced or touched
        assert a.members("bridge0") == ["e0a_web1"]
        assert f"inet {IPV4} netmask 0xffffff00" in inside(a, "web1", "ifconfig", "vnet0")
        assert not any(lab.spine.kernel_has(prefix) for prefix in PREFIXES)
        assert not status(a.host, "web1")["announced"]


@ONE
def test_an_address_changed_on_a_running_jail(lab: Lab, homes: list[Home]) -> None:
    (a,) = homes
    a.put("web1", forms.vnet_conf("web1", BRIDGE, "bridge0", **a.where()), forms.rc_conf("e0b_web1"))
    settings = a.folder("web1") / "settings.conf"
    settings.write_text(f'boot="on"\nmobility_addresses="{IPV4} {IPV6}"\n')
    a.install("web1", Way.REPLACE)
    a.start("web1")
    announced(lab, a.host)
    # as sysrc(8) does it: another file in the old one's place
    other = settings.with_name("new")
    other.write_text(f'boot="on"\nmobility_addresses="198.51.100.8 {IPV6}"\n')
    other.rename(settings)
    running(a.host).process.send_signal(signal.SIGHUP)  # it looks now
    lab.spine.fib.wait("198.51.100.8/32", via=a.host.address)
    lab.spine.fib.wait(PREFIXES[0], gone=True)
    await_rest(lab, a.host, {"web1": ("198.51.100.8", IPV6)})
    assert lab.client.ping("198.51.100.8")
    assert lab.client.ping(IPV6)
