"""The sysctls that the lab knows: per vnet ones that do something, and constants that 13.2 answers.

Source: freebsd-13.2/3-routes.txt, 6-carp.txt, 7-pfsync.txt and 15-host.txt (values and order), sysctl(8), sysctl(3).
What other kernels have differently: see releases.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.lab.kernel.releases import DEFAULT, Release

#: Writable integers of each vnet, in the kernel's order, with what a fresh vnet has.
VNET_DEFAULTS = {
    "net.inet.ip.forwarding": 0,
    "net.inet.ip.redirect": 1,
    "net.inet.ip.ttl": 64,
    "net.inet.icmp.icmplim": 200,
    "net.inet.tcp.msl": 30000,
    "net.inet.carp.ifdown_demotion_factor": 240,
    "net.inet.carp.senderr_demotion_factor": 240,
    "net.inet.carp.demotion": 0,
    "net.inet.carp.log": 1,
    "net.inet.carp.preempt": 0,
    "net.inet.carp.dscp": 56,
    "net.inet.carp.allow": 1,
    "net.inet6.ip6.forwarding": 0,
    "net.inet6.ip6.redirect": 1,
    "net.inet6.ip6.hlim": 64,
    "net.inet6.ip6.accept_rtadv": 0,
    "net.inet6.ip6.auto_linklocal": 1,
    "net.inet6.ip6.dad_count": 1,
    "net.inet6.icmp6.nd6_prune": 1,
    "net.inet6.icmp6.nd6_delay": 5,
    "net.inet6.icmp6.nd6_umaxtries": 3,
    "net.inet6.icmp6.nd6_mmaxtries": 3,
    "net.inet6.icmp6.nd6_useloopback": 1,
    "net.inet6.icmp6.nd6_gctimer": 86400,
    "net.inet6.icmp6.nd6_onlink_ns_rfc4861": 0,
    "net.route.ipv6_nexthop": 1,
    "net.route.multipath": 1,
    "net.pfsync.pfsync_buckets": 2,
    "net.pfsync.carp_demotion_factor": 240,
}
#: Those that are set in loader.conf only (CTLFLAG_RDTUN).
TUNABLES = frozenset({"net.pfsync.pfsync_buckets"})

#: What writing a per-vnet sysctl means for Linux: files under /proc/sys/net.
LINUX_FILES = {
    "net.inet.ip.forwarding": ("ipv4/ip_forward",),
    "net.inet6.ip6.forwarding": ("ipv6/conf/all/forwarding", "ipv6/conf/default/forwarding"),
    "net.inet.ip.ttl": ("ipv4/ip_default_ttl",),
    "net.inet6.ip6.hlim": ("ipv6/conf/all/hop_limit", "ipv6/conf/default/hop_limit"),
}


@dataclass(frozen=True, slots=True)
class Constant:
    """A sysctl that nobody changes here. *kind*: "I" integer, "A" text, "S" opaque."""

    name: str
    value: int | str | bytes
    kind: str = "I"


def _integers(prefix: str, text: str) -> list[Constant]:
    found = []
    for line in text.split():
        name, _, value = line.partition("=")
        found.append(Constant(prefix + name, int(value)))
    return found


#: In the order in which `sysctl` walks them: kern, net, security.
CONSTANTS: tuple[Constant, ...] = (
    Constant("kern.ostype", "FreeBSD", "A"),
    Constant("kern.osrelease", DEFAULT.osrelease, "A"),
    Constant("kern.osreldate", DEFAULT.osreldate),
    Constant("kern.racct.enable", 0),
    *_integers("kern.features.", "compat_freebsd7=1 inet=1 inet6=1 ipv4_rfc5549_support=1 vimage=1"),
    Constant("kern.ipc.maxsockbuf", 2097152),
    *_integers(
        "net.link.",
        """ether.inet.allow_multicast=0 ether.inet.log_arp_permanent_modify=1 ether.inet.log_arp_movements=1
        ether.inet.log_arp_wrong_iface=1 ether.inet.garp_rexmit_count=0 ether.inet.max_log_per_second=1
        ether.inet.maxhold=16 ether.inet.wait=20 ether.inet.proxyall=0 ether.inet.maxtries=5 ether.inet.max_age=1200
        ether.arp.log_level=6 vlan.mtag_pcp=0 vlan.soft_pad=0 bridge.ipfw=0 bridge.allow_llz_overlap=0
        bridge.inherit_mac=0 bridge.log_stp=0 bridge.pfil_local_phys=0 bridge.pfil_member=1 bridge.ipfw_arp=0
        bridge.pfil_bridge=1 bridge.pfil_onlyip=1 tap.debug=0 tap.devfs_cloning=1 tap.up_on_open=0 tap.user_open=0
        tun.devfs_cloning=1 log_promisc_mode_change=1 log_link_state_change=1 ifqmaxlen=50""",
    ),
    *_integers("net.isr.", "numthreads=1 maxprot=16 defaultqlimit=256 maxqlimit=10240 bindthreads=0 maxthreads=1"),
    Constant("net.isr.dispatch", "direct", "A"),
    *_integers(
        "net.route.",
        """netisr_maxqlen=256 debug.rtsock_debug_level=6 debug.rt_helpers_debug_level=6 debug.route_ctl_debug_level=6
        debug.nhop_ctl_debug_level=6 debug.nhop_debug_level=6 debug.nhgrp_ctl_debug_level=6
        debug.nhgrp_debug_level=6 hash_outbound=0 algo.debug_level=5""",
    ),
    Constant("net.route.algo.inet.algo", "bsearch4", "A"),
    Constant("net.route.algo.inet.algo_list", "bsearch4, radix4_lockless, radix4", "A"),
    Constant("net.route.algo.inet6.algo", "radix6_lockless", "A"),
    Constant("net.route.algo.inet6.algo_list", "radix6_lockless, radix6", "A"),
    *_integers("net.route.algo.", "fib_max_sync_delay_ms=1000 bucket_change_threshold_rate=500 bucket_time_ms=50"),
    Constant("hw.machine", "amd64", "A"),
    Constant("hw.ncpu", 1),
    Constant("hw.machine_arch", "amd64", "A"),
    Constant("security.jail.param.vnet", 0),
    Constant("security.jail.param.children.max", 0),
    Constant("security.jail.param.persist", 0),
    Constant("security.jail.enforce_statfs", 2),
    Constant("security.jail.children.max", 999999),
)

#: Where a per-vnet or computed sysctl stands among the constants, for the walks whose order was recorded.
AFTER = {
    "net.link.bridge.member_ifaddrs": "net.link.bridge.pfil_onlyip",
    "net.route.ipv6_nexthop": "net.route.debug.nhgrp_debug_level",
    "net.route.multipath": "net.route.hash_outbound",
}
RFC5549 = ("kern.features.ipv4_rfc5549_support", "net.route.ipv6_nexthop")
BRIDGE, GRATUITOUS = "net.link.bridge.", "net.link.ether.inet.garp_rexmit_count"
MEMBER_ADDRESSES = BRIDGE + "member_ifaddrs"


def constants(kernel: Release) -> list[Constant]:
    """What this kernel answers, in order."""
    own: dict[str, int | str | bytes] = {"kern.osrelease": kernel.osrelease, "kern.osreldate": kernel.osreldate}
    return [
        Constant(each.name, own.get(each.name, each.value), each.kind)
        for each in CONSTANTS
        if kernel.rfc5549 or each.name not in RFC5549
    ]


def vnet_defaults(kernel: Release) -> dict[str, int]:
    """The writable integers of a fresh vnet of this kernel."""
    found = {name: value for name, value in VNET_DEFAULTS.items() if kernel.rfc5549 or name not in RFC5549}
    found |= {each.name: int(each.value) for each in CONSTANTS if each.name.startswith((BRIDGE, GRATUITOUS))}
    return found if kernel.member_addresses else found | {MEMBER_ADDRESSES: 0}
