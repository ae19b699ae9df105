"""The kernels that the lab can play, and what of them differs as far as anybody here meets it.

Sources: freebsd-13.2/15-host.txt (13.2), sys/sys/param.h (__FreeBSD_version: 1301000, 1400097, 1500068),
the release notes of 13.1 (IPv4 over IPv6 next hops, sys/net/route/route_ctl.c: FEATURE(ipv4_rfc5549_support)), of 14.0
(sbin/ifconfig/ifconfig.c, sbin/route/route.c and usr.bin/netstat/main.c: `-j`), of 15.0 (net.link.bridge.member_ifaddrs,
if_bridge(4); extended errors in ifconfig(8), sys/sys/exterrvar.h). sbin/route/route_netlink.c of 14: rtmsg_nl_int(),
NLM_F_APPEND. sbin/ifconfig/ifpfsync.c and carp.c of 14 (syncpeer over IPv6, version; peer, peer6). Of the extended
errors only the two are played whose text is known.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tests.lab.kernel.errors import Errno


@dataclass(frozen=True, slots=True)
class Release:
    """One kernel with its userland."""

    name: str
    osrelease: str
    osreldate: int
    rfc5549: bool = True  # kern.features.ipv4_rfc5549_support and net.route.ipv6_nexthop
    jail_option: frozenset[str] = frozenset()  # the commands that have -j JAIL
    extended_errors: bool = False  # "File exists (Interface is already a member of this bridge)"
    appends: bool = False  # route(8) makes a second IPv4-over-IPv6 next hop multipath (13: "Invalid argument")
    bridge_sets_mtu: bool = False  # a new member takes the bridge's MTU; before, another one was refused
    member_addresses: bool = True  # False: an interface with addresses can not be a bridge's member, and vice versa
    renames_request: bool = False  # ifconfig(8)'s `vnet` and nd6 words know the name that `name` gave just before
    pfsync_versions: tuple[int, ...] = ()  # those that `ifconfig pfsync0 version` takes; with them comes IPv6
    carp_peers: bool = False  # ifconfig(8) shows, below each vhid, where its advertisements go
    lower_up: bool = False  # ifconfig(8) shows LOWER_UP, which it has from netlink(4), and no more IFF_KNOWSEPOCH

    def extended(self, errno: Errno, text: str) -> str:
        """strerror(3)'s text, and the kernel's own explanation where this kernel gives one."""
        return f"{errno.value} ({text})" if self.extended_errors else errno.value


_R132 = Release("13.2", "13.2-RELEASE", 1302001)
_R14 = Release(
    "14",
    "14.0-RELEASE",
    1400097,
    jail_option=frozenset({"ifconfig", "netstat", "route"}),
    appends=True,
    bridge_sets_mtu=True,
    renames_request=True,
    lower_up=True,
    pfsync_versions=(1301, 1400),
    carp_peers=True,
)
_R15 = replace(
    _R14,
    name="15",
    osrelease="15.0-RELEASE",
    osreldate=1500068,
    jail_option=frozenset({"arp", "ifconfig", "ndp", "netstat", "route", "sysctl"}),
    extended_errors=True,
    member_addresses=False,
)
DEFAULT = _R132
RELEASES: dict[str, Release] = {
    each.name: each
    for each in (
        replace(_R132, name="13.1", osrelease="13.1-RELEASE", osreldate=1301000),
        _R132,
        _R14,
        _R15,
        replace(_R132, name="no-rfc5549", rfc5549=False),
    )
}
