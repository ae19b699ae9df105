"""Linux's side of the lab: what a vnet and a jail are made of, and how the lab kernel acts on them.

`Linux` makes namespaces for real; `Paper` makes nothing, so that the commands' grammar and the kernel's rules can be
tested without root. Sources: namespaces(7), veth(4), proc_sys_net(5), Documentation/networking/ip-sysctl.rst.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import subprocess
from pathlib import Path
from typing import Protocol

from tests.lab.kernel import netlink, syscalls
from tests.lab.kernel.netlink import Counters, Hop, Neighbour

#: What every vnet starts with, so that Linux behaves like FreeBSD: no addresses of its own making, duplicate address
#: detection of exactly one second, ARP answered only for addresses of the interface asked, no redirects, and
#: ICMP errors for every packet that earns one.
SYSCTLS = {
    "ipv6/conf/default/addr_gen_mode": "1",
    "ipv6/conf/default/accept_ra": "0",
    "ipv6/conf/default/autoconf": "0",
    "ipv6/conf/default/router_solicitation_delay": "0",
    "ipv6/conf/default/router_solicitations": "0",
    "ipv6/conf/default/accept_redirects": "0",
    "ipv6/conf/all/accept_redirects": "0",
    "ipv6/conf/all/accept_ra": "0",
    "ipv6/icmp/ratelimit": "0",
    "ipv4/conf/all/arp_ignore": "1",
    "ipv4/conf/all/rp_filter": "0",
    "ipv4/conf/all/accept_local": "1",  # two routers may share 192.0.0.8 (9-fabric.txt)
    "ipv4/conf/default/rp_filter": "0",
    "ipv4/conf/all/send_redirects": "0",
    "ipv4/conf/default/send_redirects": "0",
    "ipv4/conf/all/accept_redirects": "0",
    "ipv4/conf/default/accept_redirects": "0",
    "ipv4/icmp_ratemask": "0",  # not icmp_ratelimit=0: that starves the errors of reject routes
    "ipv4/ping_group_range": "0 2147483647",
}
LO = 1  # Linux's number for the loopback interface of any namespace
#: TCP states that keep no prison alive once its processes are gone: CLOSE and LISTEN (net/tcp_states.h).
TCP_IDLE = {7, 10}
NFT_TABLE, NFT_GROUPS = "mobility_lab", "mobility_lab_groups"
_MLD_REPORTS = "ff02::16"
#: linux/if_ether.h, linux/if_packet.h, asm-generic/socket.h
ETH_P_ALL, SOL_PACKET, PACKET_IGNORE_OUTGOING, SO_ATTACH_FILTER = 3, 263, 23, 26
#: Classic BPF (linux/filter.h): IPv4 with protocol 112 at byte 23, IPv6 with next header 112 at byte 20.
_CARP_FILTER = (
    (0x28, 0, 0, 12),
    (0x15, 0, 2, 0x0800),
    (0x30, 0, 0, 23),
    (0x15, 3, 4, 112),
    (0x15, 0, 3, 0x86DD),
    (0x30, 0, 0, 20),
    (0x15, 0, 1, 112),
    (0x06, 0, 0, 0xFFFF),
    (0x06, 0, 0, 0),
)


class Namespace(Protocol):
    """A network namespace and what the lab does in it. Errors of Linux come as OSError."""

    fd: int
    inode: int

    def veth(
        self, name: str, link: int, mac: bytes, peer: str, peer_link: int, peer_mac: bytes, peer_namespace: int
    ) -> None:
        """Make a veth pair, the peer in another namespace."""

    def bridge(self, name: str, link: int, mac: bytes) -> None:
        """Make a bridge, up."""

    def macvlan(self, name: str, link: int, parent: int, mac: bytes) -> None:
        """Make an interface with a MAC of its own on another one, up, that hears nothing and reports no groups."""

    def listen(self, link: int, *, listens: bool) -> None:
        """Let such an interface hear what is for its MAC, or not."""

    def packets(self, name: str) -> socket.socket | None:
        """A packet socket on an interface, which hears its CARP packets; None where there are no packets."""

    def cut(self, names: frozenset[str]) -> None:
        """Drop all frames that come in or go out over these interfaces, and over no others."""

    def change_link(
        self,
        link: int,
        *,
        up: bool | None = None,
        name: str | None = None,
        mac: bytes | None = None,
        mtu: int | None = None,
        namespace: int | None = None,
        master: int | None = None,
    ) -> None:
        """Change or move an interface."""

    def delete_link(self, link: int) -> None:
        """Delete an interface, and a veth's other end."""

    def counters(self) -> dict[int, Counters]:
        """Each interface's counters."""

    def add_address(self, link: int, address: bytes, prefix_length: int, *, dad: bool = False) -> None:
        """Add an address."""

    def delete_address(self, link: int, address: bytes, prefix_length: int) -> None:
        """Remove an address."""

    def tentative(self) -> dict[tuple[int, bytes], int]:
        """The IPv6 addresses that duplicate address detection still (or for good) holds back."""

    def set_route(self, destination: bytes, prefix_length: int, kind: int, hops: list[Hop]) -> None:
        """Make or replace a route."""

    def delete_route(self, destination: bytes, prefix_length: int) -> None:
        """Remove a route, if it is there."""

    def neighbours(self, family: int) -> list[Neighbour]:
        """The neighbour table."""

    def set_neighbour(self, link: int, address: bytes, lladdr: bytes) -> None:
        """Make a permanent neighbour."""

    def delete_neighbour(self, link: int, address: bytes) -> None:
        """Remove a neighbour, if it is there."""

    def sysctl(self, name: str, value: str) -> None:
        """Write /proc/sys/net/NAME."""

    def ignore_solicitations(self, rules: frozenset[tuple[str, str]]) -> None:
        """Drop neighbour solicitations from these addresses on these interfaces, and from no others."""

    def share(self, member: str, helper: str, mac: bytes) -> None:
        """Let *member*, whose MAC is *mac*, take part in the bridge that *helper* leads to, and stay an interface."""

    def unshare(self, member: str) -> None:
        """Undo `share`."""

    def tcp(self) -> list[tuple[int, str, str, int, int, int]]:
        """TCP connections: (family, local "address.port", remote, state, receive queue, send queue)."""

    def close(self) -> None:
        """Let go of it; Linux destroys it when no process is left in it."""


class Ground(Protocol):
    """What makes namespaces."""

    def vnet(self) -> Namespace:
        """A new network namespace, set up like a fresh FreeBSD vnet."""

    def uts(self, hostname: str) -> tuple[int, int]:
        """A new UTS namespace: an open descriptor of it, and its inode number."""

    def set_hostname(self, uts: int, hostname: str) -> None:
        """Change the host name in a UTS namespace."""

    def close_uts(self, uts: int) -> None:
        """Let go of a UTS namespace."""


class LinuxNamespace(netlink.Netlink):
    """The real thing: a route socket in the namespace, and a descriptor that keeps the namespace alive."""

    def __init__(self) -> None:
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            syscalls.unshare(syscalls.CLONE_NEWNET)
            try:
                self.fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
                netlink.Netlink.__init__(self)
                for name, value in SYSCTLS.items():
                    _write(name, value)
            finally:
                syscalls.setns(home, syscalls.CLONE_NEWNET)
        finally:
            os.close(home)
        self.inode = os.fstat(self.fd).st_ino
        self.change_link(LO, name="lo0")

    def sysctl(self, name: str, value: str) -> None:
        """Write /proc/sys/net/NAME."""
        with syscalls.inside(self.fd):
            _write(name, value)

    def ignore_solicitations(self, rules: frozenset[tuple[str, str]]) -> None:
        """Drop neighbour solicitations from these addresses on these interfaces, and from no others."""
        text = f"table inet {NFT_TABLE}\ndelete table inet {NFT_TABLE}\n"
        if rules:
            drops = "".join(
                f'  iifname "{interface}" icmpv6 type nd-neighbor-solicit ip6 saddr {address} drop\n'
                for interface, address in sorted(rules)
            )
            text += (
                f"table inet {NFT_TABLE} {{\n chain input {{\n  type filter hook input priority 0;\n{drops} }}\n}}\n"
            )
        self._nft(text)

    def macvlan(self, name: str, link: int, parent: int, mac: bytes) -> None:
        """Make an interface with a MAC of its own on another one, up, that hears nothing and reports no groups.

        Linux would report that it leaves a group (RFC 3810) with the virtual MAC, when another has it already, and a
        switch would believe that it moved back.
        """
        netlink.Netlink.macvlan(self, name, link, parent, mac)
        hook = f'type filter hook egress device "{name}" priority 0;'
        rule = f"ip6 daddr {_MLD_REPORTS} drop"
        self._nft(f"table netdev {NFT_GROUPS} {{\n chain {name} {{\n  {hook}\n  {rule}\n }}\n}}\n")

    def packets(self, name: str) -> socket.socket | None:
        """A packet socket on an interface, which hears its CARP packets but not its own (packet(7), bpf)."""
        with syscalls.inside(self.fd):
            found = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, 0)
        try:
            program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *each) for each in _CARP_FILTER))
            pointer = struct.pack("@HP", len(_CARP_FILTER), ctypes.addressof(program))
            found.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, pointer)
            found.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
            found.bind((name, ETH_P_ALL))
        except OSError:
            found.close()
            raise
        return found

    def cut(self, names: frozenset[str]) -> None:
        """Drop all frames that come in or go out over these interfaces, and over no others (nft(8), family netdev)."""
        text = f"table netdev {NFT_TABLE}\ndelete table netdev {NFT_TABLE}\n"
        if names:
            chains = "".join(
                f' chain {side}{number} {{\n  type filter hook {side} device "{name}" priority 0; policy drop;\n }}\n'
                for number, name in enumerate(sorted(names))
                for side in ("ingress", "egress")
            )
            text += f"table netdev {NFT_TABLE} {{\n{chains}}}\n"
        self._nft(text)

    def _nft(self, text: str) -> None:
        with syscalls.inside(self.fd):
            process = subprocess.run(["nft", "-f", "-"], input=text, text=True, capture_output=True, check=False)
        if process.returncode != 0:
            raise OSError(f"nft: {process.stderr.strip()}")

    def share(self, member: str, helper: str, mac: bytes) -> None:
        """Let *member*, whose MAC is *mac*, take part in the bridge that *helper* leads to, and stay an interface.

        tc(8), tc-u32(8), tc-mirred(8); offsets are from the network header: the destination at -14, the source at -8.
        """
        multicast, everything = "match u8 1 1 at -14", "match u32 0 0"
        to_us, from_us = (
            " ".join(f"match u16 0x{mac[i : i + 2].hex()} 0xffff at {start + i}" for i in (0, 2, 4))
            for start in (-14, -8)
        )
        to_bridge, copy_to_bridge = (f"action mirred egress {verb} dev {helper}" for verb in ("redirect", "mirror"))
        rules = (
            (member, "ingress", 1, multicast, copy_to_bridge),
            (member, "ingress", 2, to_us, "flowid :1"),
            (member, "ingress", 3, everything, to_bridge),
            (member, "egress", 1, from_us, copy_to_bridge),
            (helper, "ingress", 1, to_us, f"action mirred ingress redirect dev {member}"),
            (helper, "ingress", 2, everything, f"action mirred egress redirect dev {member}"),
        )
        lines = [f"qdisc add dev {name} clsact" for name in (member, helper)]
        lines += [
            f"filter add dev {name} {side} prio {order} protocol all u32 {match} {action}"
            for name, side, order, match, action in rules
        ]
        self._tc(lines)

    def unshare(self, member: str) -> None:
        """Undo `share`."""
        self._tc([f"qdisc del dev {member} clsact"])

    def _tc(self, lines: list[str]) -> None:
        text = "".join(f"{line}\n" for line in lines)
        with syscalls.inside(self.fd):
            process = subprocess.run(["tc", "-batch", "-"], input=text, text=True, capture_output=True, check=False)
        if process.returncode != 0:
            raise OSError(f"tc: {process.stderr.strip()}")

    def tcp(self) -> list[tuple[int, str, str, int, int, int]]:
        """TCP connections, from /proc/net/tcp and tcp6 (proc_pid_net(5))."""
        found: list[tuple[int, str, str, int, int, int]] = []
        with syscalls.inside(self.fd):
            for family, name in ((socket.AF_INET, "tcp"), (socket.AF_INET6, "tcp6")):
                for line in Path(f"/proc/thread-self/net/{name}").read_text().splitlines()[1:]:
                    fields = line.split()
                    send, receive = fields[4].split(":")
                    found.append(
                        (
                            family,
                            _endpoint(fields[1]),
                            _endpoint(fields[2]),
                            int(fields[3], 16),
                            int(receive, 16),
                            int(send, 16),
                        )
                    )
        return found

    def close(self) -> None:
        """Let go of it; Linux destroys it when no process is left in it."""
        netlink.Netlink.close(self)
        os.close(self.fd)


class Linux:
    """The real ground. *tag* is left in every UTS namespace (as its NIS domain name), so that tests.lab.clean can tell
    whose a process is, long after the kernel that made the namespace is gone.
    """

    def __init__(self, tag: str) -> None:
        self._tag = tag

    def vnet(self) -> Namespace:
        """A new network namespace."""
        return LinuxNamespace()

    def uts(self, hostname: str) -> tuple[int, int]:
        """A new UTS namespace: descriptor and inode number."""
        home = os.open("/proc/thread-self/ns/uts", os.O_RDONLY | os.O_CLOEXEC)
        try:
            syscalls.unshare(syscalls.CLONE_NEWUTS)
            try:
                syscalls.sethostname(hostname)
                syscalls.setdomainname(self._tag)
                fd = os.open("/proc/thread-self/ns/uts", os.O_RDONLY | os.O_CLOEXEC)
            finally:
                syscalls.setns(home, syscalls.CLONE_NEWUTS)
        finally:
            os.close(home)
        return fd, os.fstat(fd).st_ino

    def set_hostname(self, uts: int, hostname: str) -> None:
        """Change the host name in a UTS namespace."""
        with syscalls.inside(uts, syscalls.CLONE_NEWUTS):
            syscalls.sethostname(hostname)

    def close_uts(self, uts: int) -> None:
        """Let go of a UTS namespace."""
        os.close(uts)


class PaperNamespace:
    """A namespace that exists on paper only."""

    def __init__(self, inode: int) -> None:
        self.fd = -1
        self.inode = inode

    def veth(
        self, name: str, link: int, mac: bytes, peer: str, peer_link: int, peer_mac: bytes, peer_namespace: int
    ) -> None:
        """Nothing."""

    def bridge(self, name: str, link: int, mac: bytes) -> None:
        """Nothing."""

    def macvlan(self, name: str, link: int, parent: int, mac: bytes) -> None:
        """Nothing."""

    def listen(self, link: int, *, listens: bool) -> None:
        """Nothing."""

    def packets(self, name: str) -> socket.socket | None:
        """No packets on paper."""

    def cut(self, names: frozenset[str]) -> None:
        """Nothing."""

    def change_link(
        self,
        link: int,
        *,
        up: bool | None = None,
        name: str | None = None,
        mac: bytes | None = None,
        mtu: int | None = None,
        namespace: int | None = None,
        master: int | None = None,
    ) -> None:
        """Nothing."""

    def delete_link(self, link: int) -> None:
        """Nothing."""

    def counters(self) -> dict[int, Counters]:
        """No traffic on paper."""
        return {}

    def add_address(self, link: int, address: bytes, prefix_length: int, *, dad: bool = False) -> None:
        """Nothing."""

    def delete_address(self, link: int, address: bytes, prefix_length: int) -> None:
        """Nothing."""

    def tentative(self) -> dict[tuple[int, bytes], int]:
        """No time passes on paper."""
        return {}

    def set_route(self, destination: bytes, prefix_length: int, kind: int, hops: list[Hop]) -> None:
        """Nothing."""

    def delete_route(self, destination: bytes, prefix_length: int) -> None:
        """Nothing."""

    def neighbours(self, family: int) -> list[Neighbour]:
        """No neighbours on paper."""
        return []

    def set_neighbour(self, link: int, address: bytes, lladdr: bytes) -> None:
        """Nothing."""

    def delete_neighbour(self, link: int, address: bytes) -> None:
        """Nothing."""

    def sysctl(self, name: str, value: str) -> None:
        """Nothing."""

    def ignore_solicitations(self, rules: frozenset[tuple[str, str]]) -> None:
        """Nothing."""

    def share(self, member: str, helper: str, mac: bytes) -> None:
        """Nothing."""

    def unshare(self, member: str) -> None:
        """Nothing."""

    def tcp(self) -> list[tuple[int, str, str, int, int, int]]:
        """No connections on paper."""
        return []

    def close(self) -> None:
        """Nothing."""


class Paper:
    """A ground on paper."""

    def __init__(self) -> None:
        self._inodes = 0

    def vnet(self) -> Namespace:
        """A new vnet on paper."""
        self._inodes += 1
        return PaperNamespace(self._inodes)

    def uts(self, hostname: str) -> tuple[int, int]:
        """A new host name on paper."""
        self._inodes += 1
        return -1, self._inodes

    def set_hostname(self, uts: int, hostname: str) -> None:
        """Nothing."""

    def close_uts(self, uts: int) -> None:
        """Nothing."""


def _write(name: str, value: str) -> None:
    descriptor = os.open(f"/proc/sys/net/{name}", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, value.encode())
    finally:
        os.close(descriptor)


def _endpoint(text: str) -> str:
    """ "0100007F:1F90" as FreeBSD writes it: 127.0.0.1.8080, *.8080 where the address is unspecified."""
    host, port = text.split(":")
    raw = b"".join(bytes.fromhex(host[i : i + 8])[::-1] for i in range(0, len(host), 8))
    number = int(port, 16)
    family = socket.AF_INET if len(raw) == 4 else socket.AF_INET6
    address = socket.inet_ntop(family, raw) if any(raw) else "*"
    return f"{address}.{number or '*'}"
