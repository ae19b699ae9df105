"""What the kernel has to offer: judged from what FreeBSD's commands answered. Pure.

The shapes of the answers are those of transcripts 3-routes, 13-antispoof and 15-host.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mobility.config import AUTO, INTERFACE
from mobility.doctor.verdict import Verdict, fail, ok, warn
from mobility.links import EPAIR_GROUP
from mobility.network import naming, output
from mobility.network.command import CommandError, Result, find

COMMANDS = ("ifconfig", "route", "netstat", "jls", "jexec", "sysctl")
FORWARDING = {"net.inet.ip.forwarding": "gateway_enable", "net.inet6.ip6.forwarding": "ipv6_gateway_enable"}
"""What routes between jails and the world, with the setting of rc.conf(5) that switches it on at boot."""
FEATURE, SWITCH = "kern.features.ipv4_rfc5549_support", "net.route.ipv6_nexthop"
OLD_EPAIR = "net.link.epair.netisr_maxqlen"
"""A sysctl of the epair driver before its rewrite for 13.1 (if_epair.c). The present one has none for its queues."""
RULES = (
    f"pass in quick on {naming.GROUP} inet6 from fe80::/10 no state",
    f"block drop in quick on {naming.GROUP} from urpf-failed",
)
"""What keeps jails to their own source addresses (transcript 13-antispoof)."""
PFSYNC_IPV6 = 1400000
"""__FreeBSD_version of 14.0, whose pfsync(4) takes an IPv6 syncpeer: 13.2's refuses one (transcript 7-pfsync)."""


def on(result: Result) -> bool:
    """Tell whether `sysctl -n` answered 1."""
    return result.status == 0 and result.stdout.strip() == "1"


def command_verdict(name: str, directories: Iterable[Path]) -> Verdict:
    """Judge whether one of FreeBSD's commands can be found."""
    try:
        return ok(f"command {name}", str(find(name, tuple(directories))))
    except CommandError as error:
        return fail(f"command {name}", error.reason, "set paths.commands in mobility.toml")


def root_verdicts(uid: int) -> Iterator[Verdict]:
    """Judge who asks: to others than root much looks as if it were not there."""
    if uid != 0:
        yield warn(
            "user", f"uid {uid} is not root, and can not see all that is judged here", "run mobility doctor as root"
        )


def vnet_verdict(feature: Result) -> Verdict:
    """Judge kern.features.vimage."""
    if on(feature):
        return ok("vnet jails", "the kernel has VIMAGE")
    why = "the kernel has no VIMAGE: every jail would share the host's addresses and routes"
    return fail("vnet jails", why, "run a kernel with options VIMAGE: GENERIC has it")


def epair_verdict(module: Result) -> Verdict:
    """Judge `kldstat -q -m if_epair`, which is about the kernel file and its modules alike, and says nothing."""
    if module.status == 0:
        return ok("epair", "if_epair is in the kernel")
    if module.stderr:
        return warn("epair", f"whether if_epair is in the kernel can not be told: {module.complaint}")
    # ifconfig(8) would load it at the first `create`, but not where the securelevel or the agent's jail forbids that
    why = "if_epair is not loaded: no jail can be given a link"
    return fail("epair", why, "kldload if_epair && sysrc kld_list+=if_epair")


def queue_verdict(old: Result) -> Verdict:
    """Judge which epair driver this is, by `sysctl -n net.link.epair.netisr_maxqlen` (bug 227100)."""
    if old.status == 0:
        why = (
            f"{OLD_EPAIR} is {old.stdout.strip()}: this is the driver of before 13.1, that stops for good "
            "when its queue is full (bug 227100)"
        )
        return warn("epair queue", why, f"upgrade to 13.1 or newer; until then: sysctl {OLD_EPAIR}=32768")
    return ok("epair queue", "4096 packets each way, fixed in the driver; a full one drops, and goes on (if_epair.c)")


def next_hop_verdict(choice: str, feature: Result, switch: Result) -> Verdict:
    """Judge whether IPv4 can go over IPv6 next hops, as far as `host.ipv4_routes` asks for it."""
    what = "IPv4 over IPv6 next hops"
    if choice == INTERFACE:
        return ok(what, 'not wanted: host.ipv4_routes = "interface"')
    if on(feature) and on(switch):
        return ok(what, "the kernel takes them")
    if on(feature):
        why, mend = f"switched off: {SWITCH} is 0 (by /etc/sysctl.conf?)", f"sysctl {SWITCH}=1"
    else:
        why, mend = f"this kernel has none ({FEATURE}: {feature.complaint})", "upgrade to FreeBSD 13.1 or newer"
    if choice == AUTO:
        return ok(what, f"{why}; so each jail's link carries the host's own IPv4 address, and interface routes do it")
    return fail(what, f'{why}; host.ipv4_routes = "auto" would do with interface routes', mend)


def ipv4_verdict(ifconfig: Result) -> Verdict:
    """Judge whether the host has an IPv4 address of its own: what routes to jails take their source from (3-routes)."""
    what = "IPv4 address of the host"
    net = output.NetView(output.interfaces(ifconfig.stdout))
    if ifconfig.status != 0:
        return fail(what, ifconfig.complaint)
    if net.with_ipv4 is not None and net.ipv4 != naming.DUMMY_IPV4:
        return ok(what, f"{net.ipv4} on {net.with_ipv4.name}")
    why = (
        f"none but 127.0.0.1: the agent adds the dummy {naming.DUMMY_IPV4} (RFC 7600) when a jail needs one, "
        "and what the host itself sends to jails carries that"
    )
    return warn(what, why, "ifconfig lo0 inet YOUR.OWN.IPV4.ADDRESS/32 alias")


def forwarding_verdict(name: str, knob: str, result: Result) -> Verdict:
    """Judge one of FORWARDING."""
    if on(result):
        return ok(name, "is 1")
    said = f"is {result.stdout.strip()}" if result.status == 0 else result.complaint
    return fail(name, f"{said}: the host does not forward to its jails", f"sysctl {name}=1 && sysrc {knob}=YES")


@dataclass(frozen=True, slots=True)
class Tried:
    """A socket connected to a jail's IPv4 address: the source address that the kernel chose, or why it did not."""

    jail: str
    address: str
    source: str = ""
    error: str = ""


def origin_verdict(tried: Sequence[Tried], own: frozenset[str]) -> Verdict:
    """Judge whether the host itself can talk to its jails over IPv4; `own` are the host's own addresses.

    A connected UDP socket has its route and its source address, and nothing was sent (udp(4)). That such a route may
    have no source address was reported of some kernels (freebsd-net, August 2025).
    """
    what = "IPv4 from the host itself to its jails"
    if not tried:
        return ok(what, "not tried: no jail with an IPv4 address is wired here")
    for one in tried:
        if one.error or one.source not in own:
            why = f"to jail {one.jail} ({one.address}): {one.error or f'goes out from {one.source}, not of this host'}"
            mend = 'set host.ipv4_routes = "interface" in mobility.toml; service mobility restart; restart the jails'
            return fail(what, f"{why}: ping, health checks and proxies on this host do not reach it", mend)
    sources = sorted({one.source for one in tried})
    return ok(what, f"tried with {len(tried)} of them: goes out from {', '.join(sources)}")


def antispoof_verdict(info: Result, rules: Result) -> Verdict:
    """Judge `pfctl -s info` and `pfctl -sr`: whether a jail could send from an address that is not its own."""
    what = "source addresses of jails"
    could = "a jail's root could send from any address"
    add = "printf '%s\\n' " + " ".join(f"'{rule}'" for rule in RULES) + " >> /etc/pf.conf"
    if info.status != 0:
        mend = f"{add} && sysrc pf_enable=YES && service pf start"
        return warn(what, f"{could}: pf is not there to ask ({info.complaint})", mend)
    if not info.stdout.startswith("Status: Enabled"):
        return warn(what, f"{could}: pf is disabled", "sysrc pf_enable=YES && service pf start")
    lines = rules.stdout.splitlines()
    for line in lines:
        if _blocks_spoofed(line):
            return ok(what, f"pf: {line.strip()}")
        if _lets_in(line):
            why = f"{could}: pf lets it in before a rule with urpf-failed is met: {line.strip()}"
            return warn(what, why, "put the rules of pf.conf.sample before that one; pfctl -f /etc/pf.conf")
    why = f"{could}: none of pf's {len(lines)} rules forbids it (anchors are not looked into)"
    return warn(what, why, f"{add} && pfctl -f /etc/pf.conf")


# pfctl_parser.c, print_rule: action, direction, log, "quick", "on IF", family, proto, "from ... to ...", the rest
_LOG = r"(?:log (?:\(.*?\) )?)?"
_BLOCK = re.compile(
    rf'block (?:drop |return )?(?:in )?{_LOG}quick (?:on {naming.GROUP} )?from urpf-failed to any(?: label ".*")?'
)
_PASS = re.compile(rf"pass (?:in )?{_LOG}quick (?:on (?P<other>! )?(?P<interface>\S+) )?(?P<rest>.*)")
_LINK_LOCAL = re.compile(r"inet6 (?:proto \S+ )?from fe80::/10 ")
_GROUPS = ("", naming.GROUP, EPAIR_GROUP)
"""What a rule may be about to be about the jails' links: anything, our group, or every epair."""


def _blocks_spoofed(line: str) -> bool:
    return _BLOCK.fullmatch(line.strip()) is not None


def _lets_in(line: str) -> bool:
    match = _PASS.fullmatch(line.strip())
    if match is None or ((match["interface"] or "") in _GROUPS) == bool(match["other"]):
        return False
    # neighbour discovery comes from link-local addresses, which are routed nowhere
    return not _LINK_LOCAL.match(match["rest"])


def failover_verdicts(carp: Result, pfsync: Result, release: Result, devd: bool) -> Iterator[Verdict]:
    """State what failover by CARP would find: nothing needs it yet, so nothing of it is wrong."""
    need = "only failover by CARP needs it"
    yield ok("carp", f"{_there(carp)}; {need}")
    number = release.stdout.strip()
    able = number.isdecimal() and int(number) >= PFSYNC_IPV6
    yield ok("pfsync", f"{_there(pfsync)}; IPv6 peers: {'yes' if able else 'from 14.0 on'}; {need}")
    yield ok("devd", f"{'tells of events' if devd else 'is not there to tell of events'}; {need}")


def _there(module: Result) -> str:
    if module.stderr:
        return f"can not be told: {module.complaint}"
    return "is in the kernel" if module.status == 0 else "is not loaded"
