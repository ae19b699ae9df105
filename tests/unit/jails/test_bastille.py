"""What Bastille's files say of its jails."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from mobility import config
from mobility.hooks.bastille import BastilleEditor
from mobility.hooks.edit import Hook, Way, apply
from mobility.jails.bastille import Bastille
from mobility.jails.rcnet import MAX_ASKED
from mobility.jails.said import Ends, Said
from tests.lab.managers import bastille_conf as forms
from tests.lab.managers.bastille_conf import BRIDGE, LONG, NETGRAPH, PASSTHROUGH, STANDARD

IPV4, IPV6 = "198.51.100.7", "2001:db8:7::7"


class Home:
    def __init__(self, prefix: Path) -> None:
        self.prefix = prefix
        self.manager = Bastille(prefix)

    def folder(self, name: str = "web1") -> Path:
        return self.prefix / "jails" / name

    def put(self, text: str, name: str = "web1", *, rc: str | None = None, settings: str | None = None) -> None:
        folder = self.folder(name)
        (folder / "root/etc").mkdir(parents=True, exist_ok=True)
        (folder / "jail.conf").write_text(text)
        if rc is not None:
            (folder / "root/etc/rc.conf").write_text(rc)
        if settings is not None:
            (folder / "settings.conf").write_text(settings)

    def read(self, name: str = "web1", *, requests: bool = True) -> Said:
        said = self.manager.read(name, requests=requests)
        assert said is not None
        assert (said.jail, said.manager) == (name, "bastille")
        assert said.source == str(self.folder(name) / "jail.conf")
        return said


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "bastille")


def test_names(home: Home) -> None:
    assert home.manager.names() == []
    home.put(forms.host_conf("web1", f"bastille0|{IPV4}"))
    home.put(forms.host_conf("db-1", f"bastille0|{IPV4}"), "db-1")
    home.folder("half").mkdir()
    home.put("x", "-n")
    (home.prefix / "jails" / "file").write_text("")
    assert home.manager.names() == ["db-1", "web1"]
    assert home.manager.read("-n", requests=True) is None
    assert home.manager.read("half", requests=True) is None
    assert home.manager.read("../jails/web1", requests=True) is None
    assert home.manager.signature("half", requests=True) == ()
    assert home.manager.signature("..", requests=True) == ()


@pytest.mark.parametrize(
    ("kind", "name", "outer", "inner"),
    [
        (STANDARD, "web1", "e0a_web1", "e0b_web1"),
        (BRIDGE, "web1", "e0a_web1", "e0b_web1"),
        (BRIDGE, LONG, "e0a_bastille1", "e0b_bastille1"),
    ],
)
def test_the_pair_that_it_makes(home: Home, kind: str, name: str, outer: str, inner: str) -> None:
    home.put(forms.vnet_conf(name, kind), name, rc=forms.rc_conf(inner, f"inet {IPV4}/24"))
    said = home.read(name)
    assert (said.vnet, said.addresses, said.requests) == (True, (), (IPV4,))
    assert said.ends == (Ends(outer, ("vnet0", inner)),)
    # the jail's own files are not even opened unless they are asked for
    assert home.read(name, requests=False) == Said(
        name, "bastille", said.source, True, ends=(Ends(outer, ("vnet0", inner)),)
    )


@pytest.mark.parametrize(
    ("form", "ends"),
    [
        ("0.9", Ends("e0a_bastille0", ("vnet0", "e0b_bastille0"))),
        ("0.10", Ends("e3a_web1", ("vnet0", "e3b_web1"))),
        ("0.12", Ends("e0a_bastille0", ("vnet0", "e0b_bastille0"))),
        ("0.14", Ends("epair2a", ("vnet0", "epair2b"))),
    ],
)
def test_older_forms(home: Home, form: str, ends: Ends) -> None:
    home.put(forms.conf("web1", ["vnet;", *forms.old_lines("web1", form)]))
    assert home.read().ends == (ends,)


def test_what_the_jail_calls_its_end(home: Home) -> None:
    home.put(forms.vnet_conf("web1", BRIDGE), rc=forms.rc_conf("e0b_web1", f"inet {IPV4}/32", vnet="wan0"))
    said = home.read()
    assert said.ends == (Ends("e0a_web1", ("wan0", "vnet0", "e0b_web1")),)
    assert said.requests == (IPV4,)
    home.put(forms.vnet_conf("web1", BRIDGE), rc='ifconfig_e0b_web1_name="-vnet 1"\n')
    assert home.read().ends == (Ends("e0a_web1", ("vnet0", "e0b_web1")),)


@pytest.mark.parametrize("kind", [PASSTHROUGH, NETGRAPH])
def test_nothing_to_adopt(home: Home, kind: str) -> None:
    text = forms.with_another(forms.vnet_conf("web1", kind), "web1", BRIDGE, "bridge1", 1)
    inner = "em0" if kind == PASSTHROUGH else "ng0_web1"
    home.put(text, rc=forms.rc_conf(inner, f"inet {IPV4}/24", vnet="em0" if kind == PASSTHROUGH else "vnet0"))
    said = home.read()
    assert (said.ends, said.requests) == ((), (IPV4,))


def test_several_interfaces(home: Home) -> None:
    text = forms.with_another(forms.vnet_conf("web1", STANDARD), "web1", BRIDGE, "bridge1", 1)
    rc = forms.rc_conf("e0b_web1", f"inet {IPV4}/24") + forms.rc_conf("e1b_web1", "inet 10.0.0.7/24", vnet="vnet1")
    home.put(text, rc=rc)
    said = home.read()
    assert said.ends == (Ends("e0a_web1", ("vnet0", "e0b_web1")), Ends("e1a_web1", ("vnet1", "e1b_web1")))
    assert said.requests == (IPV4,), "what stands on a further interface does not move"


def test_after_our_hooks_are_installed(home: Home, tmp_path: Path) -> None:
    text = forms.with_another(forms.vnet_conf("web1", BRIDGE), "web1", BRIDGE, "bridge1", 1)
    home.put(text, rc=forms.rc_conf("e0b_web1", f"inet {IPV4}/24", router="198.51.100.1"), settings=_settings(IPV4))
    (tmp_path / "mobility.toml").write_text(
        f'[host]\nname = "a"\nallowed = ["198.51.100.0/24"]\n[paths]\njails_d = "{tmp_path}/jails.d"\n'
        f'[managers]\nbastille = "{home.prefix}"\n[bgp]\nas = 65001\nrouter_id = "10.0.0.1"\n'
        '[[bgp.peer]]\nname = "s"\naddress = "fd00::2"\nas = 65000\nlocal_address = "fd00::1"\n'
    )
    editor = BastilleEditor(config.load(tmp_path / "mobility.toml"), Hook())
    before = home.read()
    apply(editor.install("web1", Way.ADOPT))
    assert home.read() == replace(before, hooks=True)
    apply(editor.install("web1", Way.REPLACE))
    said = home.read()
    assert (said.ends, said.addresses, said.requests) == ((), (IPV4,), (IPV4,))
    assert len(said.advice) == 2
    assert "have no effect any more: the jail has no vnet0" in said.advice[0]
    assert said.advice[0].endswith("bastille sysrc web1 -x ifconfig_vnet0")
    assert said.advice[1].startswith("defaultrouter=198.51.100.1: is no neighbour on the link")
    apply(editor.remove("web1"))
    assert home.read() == before


def _settings(addresses: str) -> str:
    return f'boot="on"\ndepend=""\npriority="99"\nmobility_addresses="{addresses}"\n'


def test_a_grant_in_settings_conf(home: Home) -> None:
    home.put(forms.vnet_conf("web1", BRIDGE), settings=_settings(f"{IPV4}, {IPV6}/128"))
    assert home.read(requests=False).addresses == (IPV4, f"{IPV6}/128")
    home.put(forms.vnet_conf("web1", BRIDGE), settings='boot="on"\n')
    assert home.read().addresses == ()
    home.put(forms.vnet_conf("web1", BRIDGE), settings="mobility_addresses=$(id)\n")
    with pytest.raises(ValueError, match=r"settings.conf: mobility_addresses must be plain text"):
        home.read()
    home.put(forms.vnet_conf("web1", BRIDGE), settings="boot='on\n")
    with pytest.raises(ValueError, match=r"settings.conf: line 1: a quote is not closed"):
        home.read()


def test_without_vnet(home: Home) -> None:
    home.put(forms.host_conf("web1", f"bastille0|{IPV4}/32", f"lo1|{IPV6}", "bastille0|198.51.100.8"))
    said = home.read()
    assert (said.vnet, said.ends, said.requests, said.advice) == (False, (), (), ())
    assert said.addresses == (IPV4, "198.51.100.8", IPV6)


@pytest.mark.parametrize(
    ("lines", "advice"),
    [
        (["ip4 = inherit;", "ip6 = disable;"], ["it shares the host's IPv4 addresses"]),
        (["ip4 = inherit;", "ip6 = inherit;"], ["it shares the host's IPv4", "it shares the host's IPv6"]),
        (["ip_hostname;", "ip6 = disable;"], ["it shares the host's IPv4", "it shares the host's IPv6"]),
        ([f"ip4.addr = em0|{IPV4}/24;"], [f"{IPV4}/24 lays the whole network on the host's interface"]),
    ],
)
def test_without_vnet_what_collides(home: Home, lines: list[str], advice: list[str]) -> None:
    home.put(forms.conf("web1", lines))
    said = home.read()
    assert [one[: len(start)] for one, start in zip(said.advice, advice, strict=True)] == advice


@pytest.mark.parametrize(
    ("rc", "requests", "advice"),
    [
        ({"ipv4": f"inet {IPV4}/32"}, (IPV4,), []),
        (
            {"ipv4": f"inet {IPV4}/24"},
            (IPV4,),
            [f'/32 in its place: bastille sysrc web1 ifconfig_vnet0="inet {IPV4}/32"'],
        ),
        ({"ipv4": f"inet {IPV4} netmask 255.255.255.255"}, (IPV4,), []),
        ({"ipv4": f"inet {IPV4} netmask 0xffffffff"}, (IPV4,), []),
        ({"ipv4": f"inet {IPV4} netmask 255.255.255.0 broadcast 198.51.100.255"}, (IPV4,), [f"puts {IPV4}/24 on"]),
        ({"ipv4": f"inet {IPV4}"}, (IPV4,), [f"puts {IPV4}/24 on"]),
        ({"ipv4": IPV4 + "/32"}, (IPV4,), []),
        (
            {"ipv4": "SYNCDHCP"},
            (),
            ["asks a DHCP server for an address, and none is on the link, and the jail's start may"],
        ),
        ({"ipv4": "DHCP"}, (), ["asks a DHCP server"]),
        ({"ipv6": f"inet6 -ifdisabled {IPV6}/128"}, (IPV6,), []),
        ({"ipv6": f"inet6 -ifdisabled {IPV6}/64"}, (IPV6,), [f'ifconfig_vnet0_ipv6="inet6 {IPV6}/128"']),
        ({"ipv6": f"inet6 {IPV6} prefixlen 128"}, (IPV6,), []),
        (
            {"ipv6": "inet6 -ifdisabled accept_rtadv"},
            (),
            ["takes addresses and default routes from router advertisements"],
        ),
        ({"ipv6": "inet6 fe80::7/64"}, (), []),
        (
            {"router": "198.51.100.1"},
            (),
            ["defaultrouter=198.51.100.1: is no neighbour on the link: the default route"],
        ),
        ({"router6": "2001:db8:7::1"}, (), ["FreeBSD would share packets between it and fe80::1"]),
        ({"ipv4": "inet nonsense"}, (), []),
    ],
)
def test_what_rc_conf_would_do(home: Home, rc: dict[str, str], requests: tuple[str, ...], advice: list[str]) -> None:
    home.put(forms.vnet_conf("web1", BRIDGE), rc=forms.rc_conf("e0b_web1", **rc))
    said = home.read()
    assert said.requests == requests
    assert len(said.advice) == len(advice), said.advice
    for one, part in zip(said.advice, advice, strict=True):
        assert part in one


def test_more_of_rc_conf(home: Home) -> None:
    home.put(
        forms.vnet_conf("web1", BRIDGE),
        rc='ifconfig_e0b_web1_name=vnet0\nifconfig_vnet0="up"\nvlans_vnet0="10"\n'
        f'ifconfig_vnet0_10="inet {IPV4}/32"\nifconfig_vnet0_alias0="inet 198.51.100.8/32"\n'
        'ifconfig_DEFAULT="SYNCDHCP"\nstatic_routes="a"\nroute_a="-net 10.0.0.0/8 198.51.100.1\x1b[2J"\n'
        'rtsold_enable="YES"\nipv6_defaultrouter="a\x1b[31mb"\ndefaultrouter="$(reboot)"\n',
    )
    said = home.read()
    assert said.requests == (IPV4, "198.51.100.8")
    text = "\n".join(said.advice)
    for part in (
        "defaultrouter would need a shell to be understood",
        "ifconfig_vnet0_10: mobility's link has no VLANs",
        "ifconfig_DEFAULT asks a DHCP server",
        "static_routes=a: name gateways",
        "rtsold_enable=YES: solicits routers",
        "ipv6_defaultrouter=a?[31mb: is no neighbour",
    ):
        assert part in text
    assert "\x1b" not in text


def test_an_rc_conf_that_can_not_be_used_spoils_no_grant(home: Home, tmp_path: Path) -> None:
    rc_conf = home.folder() / "root/etc/rc.conf"
    home.put(forms.vnet_conf("web1", BRIDGE), rc="a='", settings=_settings(IPV4))
    assert home.read().addresses == (IPV4,)
    assert "rc.conf: line 1: a quote is not closed" in home.read().advice[0]
    secret = tmp_path / "secret"
    secret.write_text(f'ifconfig_vnet0="inet {IPV4}/32"\n')
    rc_conf.unlink()
    rc_conf.symlink_to(secret)
    assert (home.read().addresses, home.read().requests) == ((IPV4,), ())
    assert "links are not followed" in home.read().advice[0]
    rc_conf.unlink()
    os.mkfifo(rc_conf)
    assert "is no regular file" in home.read().advice[0]
    rc_conf.unlink()
    aliases = "".join(f'ifconfig_vnet0_alias{n}="inet 10.{n // 250}.{n % 250}.1/32"\n' for n in range(MAX_ASKED + 1))
    rc_conf.write_text(forms.rc_conf("e0b_web1") + aliases)
    assert home.read().requests == ()
    assert home.read().advice[-1].startswith("its rc.conf asks for more than 100 addresses")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("web1 {", "the file ends before its time"),
        ("web2 { vnet; }\n", "holds no block web1"),
        ("web1 { path = $nowhere; }\n", "there is no variable 'nowhere'"),
        ("web1 { a = b\xff; }\n", "must stand in quotes"),
    ],
)
def test_a_jail_conf_that_can_not_be_used(home: Home, text: str, why: str) -> None:
    home.put(text)
    with pytest.raises(ValueError, match=why) as error:
        home.read()
    assert str(home.folder() / "jail.conf") in str(error.value)


def test_whose_files_count(home: Home, tmp_path: Path) -> None:
    home.put(forms.vnet_conf("web1", BRIDGE), settings=_settings(IPV4))
    conf = home.folder() / "jail.conf"
    conf.chmod(0o666)
    with pytest.raises(ValueError, match="may be written by others than root"):
        home.read()
    conf.chmod(0o644)
    (home.folder() / "settings.conf").chmod(0o622)
    with pytest.raises(ValueError, match=r"settings\.conf may be written by others"):
        home.read()
    (home.folder() / "settings.conf").chmod(0o600)
    conf.rename(tmp_path / "moved")
    conf.symlink_to(tmp_path / "moved")
    with pytest.raises(ValueError, match="links are not followed"):
        home.read()
    conf.unlink()
    conf.write_bytes(b"# caf\xe9\nweb1 { vnet; }\n")
    assert home.read().vnet, "an old remark makes no file unreadable"


def test_signatures(home: Home) -> None:
    home.put(forms.vnet_conf("web1", BRIDGE), rc="", settings="")
    seen = set()

    def look(*, requests: bool) -> None:
        seen.add(home.manager.signature("web1", requests=requests))

    look(requests=True)
    look(requests=False)
    assert len(seen) == 2
    (home.folder() / "root/etc/rc.conf").write_text("a=1\n")
    look(requests=False)
    assert len(seen) == 2, "the jail's files are not looked at unless they are asked for"
    look(requests=True)
    assert len(seen) == 3
    (home.folder() / "settings.conf").unlink()
    look(requests=True)
    (home.folder() / "jail.conf").write_text("web1 { }\n")
    look(requests=True)
    assert len(seen) == 5
