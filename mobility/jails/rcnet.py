"""What the rc.conf inside a jail would do to its network: the addresses that it asks for, and what collides with ours.

Sources: FreeBSD's libexec/rc/network.subr (ifnet_rename, ifconfig_up, ipv6_up), rc.d/routing and rc.d/rtsold, rc.conf(5).
The jail's root may write the file: everything in it is a request, and what is shown of it is cut short.
"""

from __future__ import annotations

import ipaddress
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

from mobility.jails import rcconf
from mobility.jails.rcconf import RcConf
from mobility.jails.said import read_beneath

RC_CONF = "etc/rc.conf"
MAX_ASKED = 100
"""Addresses that one jail may ask for."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_INTERFACE = re.compile(r"[A-Za-z][A-Za-z0-9_.]{0,14}", re.ASCII)  # net/if.h: 15 characters
_DHCP = frozenset({"dhcp", "syncdhcp", "nosyncdhcp"})
_WITH_VALUE = frozenset({"netmask", "broadcast", "prefixlen", "mtu", "metric", "fib", "vhid", "pass", "advskew"})
_OFF = frozenset({"", "no", "none", "false", "off", "0"})
_CLASSES = ((128, 8), (192, 16), (256, 24))  # ifconfig(8) without a mask: the address's class (in(4))
_SHOWN = 60
_TELLING = {
    "defaultrouter": "is no neighbour on the link: the default route goes to fe80::1",
    "ipv6_defaultrouter": "is no neighbour on the link: FreeBSD would share packets between it and fe80::1",
    "static_routes": "name gateways that are no neighbours on the link",
    "ipv6_static_routes": "name gateways that are no neighbours on the link",
    "rtsold_enable": "solicits routers, and none answers on the link",
    "ipv6_cpe_wanif": "takes router advertisements on that interface, and none come on the link",
}


def rc_conf(root: Path) -> tuple[RcConf | None, list[str]]:
    """Return what the rc.conf below a jail's root says, None where there is none.

    Where it can not be used, the second part says why; that is no error: what a jail writes spoils no grant.
    """
    try:
        text = read_beneath(root, RC_CONF)
        return (None, []) if text is None else (rcconf.parse(text), [])
    except ValueError as error:
        said = str(error)
        where = "" if str(root) in said else f"{root / RC_CONF}: "
        return None, [f"{where}{said}: what it asks for is not looked at"]


def named(inner: str, rc: RcConf) -> str:
    """Return the name that rc.conf gives an interface, "" where it gives none (network.subr, ifnet_rename)."""
    name = rc.get(f"ifconfig_{inner}_name")
    return name if _INTERFACE.fullmatch(name) else ""


def asked(interface: str, rc: RcConf, *, sysrc: str, replaced: bool) -> tuple[list[str], list[str]]:
    """Return the addresses that rc.conf asks for on an interface, and advice, each a sentence with what to do.

    `sysrc` is the command that edits this jail's rc.conf ("bastille sysrc web1"). `replaced`: the jail no longer has that
    interface, its link is ours.
    """
    name = re.escape(interface)
    own = re.compile(rf"ifconfig_{name}(?:_[0-9]+)?(?:_ipv6|_alias[0-9]+|_aliases)?")
    ours = [each for each in rc.values if own.fullmatch(each) and rc.get(each).strip()]
    found: dict[str, None] = {}
    advice = list(_not_understood(rc, own))
    for each in ours:
        for address, length in _addresses(rc.get(each)):
            found[str(address)] = None
            if len(found) > MAX_ASKED:
                return [], [f"its rc.conf asks for more than {MAX_ASKED} addresses: none of them is looked at"]
            if not replaced and length != address.max_prefixlen:
                family = "inet" if address.version == 4 else "inet6"
                single = f"{address}/{address.max_prefixlen}"
                advice.append(
                    f"{each} puts {address}/{length} on the link, and the jail would look for the rest of that network there "
                    f'until the agent has put {single} in its place: {sysrc} {each}="{family} {single}"'
                )
    if vlans := [each for each in ours if re.match(rf"ifconfig_{name}_[0-9]+", each)]:
        advice.append(f"{', '.join(vlans)}: mobility's link has no VLANs, these addresses go to the link itself")
    if replaced and ours:
        advice.append(
            f"{', '.join(ours)} have no effect any more: the jail has no {interface}, its link is made and addressed by "
            f"mobility: {sysrc} -x {' '.join(ours)}"
        )
    everywhere = [each for each in sorted(rc.values) if each.startswith("ifconfig_DEFAULT")]
    for each in (*everywhere, *([] if replaced else ours)):
        advice += _automatic(each, rc.get(each), sysrc)
    advice += _routers(rc, sysrc)
    return list(found), advice


def _not_understood(rc: RcConf, own: re.Pattern[str]) -> Iterator[str]:
    unclear = sorted(each for each in rc.unclear if own.fullmatch(each) or each in _TELLING)
    if unclear:
        yield f"{', '.join(unclear)} would need a shell to be understood, and counts for nothing: write plain text"


def _automatic(name: str, value: str, sysrc: str) -> Iterator[str]:
    """Tell what waits for servers or routers that are not on a link of two parties."""
    words = value.lower().split()
    if _DHCP.intersection(words):
        wait = "" if "nosyncdhcp" in words else ", and the jail's start may wait for that"
        yield f"{name} asks a DHCP server for an address, and none is on the link{wait}: {sysrc} -x {name}"
    if "accept_rtadv" in words:
        why = "takes addresses and default routes from router advertisements, and none come on the link"
        yield f'{name} {why}: {sysrc} {name}="inet6 -ifdisabled"'


def _routers(rc: RcConf, sysrc: str) -> Iterator[str]:
    """Tell which routes and daemons look for routers where only fe80::1 is."""
    for name, why in _TELLING.items():
        value = rc.get(name)
        if value.lower() not in _OFF:
            shown = "".join(each if each.isprintable() else "?" for each in value[:_SHOWN])
            mended = f'{name}="NO"' if name.endswith(("router", "enable")) else f"-x {name}"
            yield f"{name}={shown}: {why}: {sysrc} {mended}"


def _addresses(value: str) -> Iterator[tuple[Address, int]]:
    """Yield the addresses in ifconfig(8)'s arguments, but link-local ones, with their prefix lengths."""
    words = value.split()
    for number, word in enumerate(words):
        if number and words[number - 1].lower() in _WITH_VALUE:
            continue
        try:
            found = ipaddress.ip_interface(word)
        except ValueError:
            continue
        if not found.ip.is_link_local:
            yield found.ip, found.network.prefixlen if "/" in word else _length(words[number + 1 :], found.ip)


def _length(following: list[str], address: Address) -> int:
    """Return the prefix length that `netmask M` or `prefixlen N` give, else what ifconfig(8) takes without either."""
    for key, text in itertools.pairwise(following):
        if key.lower() == "prefixlen" and text.isdecimal():
            return int(text)
        if key.lower() == "netmask":
            try:
                mask = ipaddress.IPv4Address(int(text, 16)) if text.startswith("0x") else ipaddress.IPv4Address(text)
                return ipaddress.ip_network(f"0.0.0.0/{mask}").prefixlen
            except ValueError:
                break
    return 64 if address.version == 6 else next(length for below, length in _CLASSES if int(address) >> 24 < below)
