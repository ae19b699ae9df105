"""CARP's packets, and those with which a new master makes itself known: to bytes, and back. Pure.

Sources: sys/netinet/ip_carp.h (struct carp_header), ip_carp.c of FreeBSD 13.2 (carp_hmac_prepare, carp_hmac_generate,
carp_send_ad_locked, carp_input, carp6_input, carp_output), if_ether.c (arp_announce_ifaddr), nd6_nbr.c (nd6_na_output).
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from tests.lab.kernel.state import INET, INET6, Address

PROTOCOL = 112  # IPPROTO_CARP
VERSION, ADVERTISEMENT, AUTH_LENGTH = 2, 1, 7
TTL = 255  # CARP_DFLTTL
KEY_LENGTH = 20  # CARP_KEY_LEN
ETHER_IPV4, ETHER_ARP, ETHER_IPV6 = 0x0800, 0x0806, 0x86DD
GROUP4, GROUP6 = bytes([224, 0, 0, 18]), bytes.fromhex("ff02" + "00" * 13 + "12")
ALL_NODES = bytes.fromhex("ff02" + "00" * 13 + "01")
BROADCAST = b"\xff" * 6
_ETHERNET = struct.Struct("!6s6sH")
_HEADER = struct.Struct(
    "!BBBBBBHQ20s"
)  # version and type, vhid, advskew, authlen, pad, advbase, checksum, counter, digest
_IPV4 = struct.Struct("!BBHHHBBH4s4s")
_IPV6 = struct.Struct("!IHBB16s16s")
_ARP = struct.Struct("!HHBBH6s4s6s4s")
_DONT_FRAGMENT = 0x4000
_ICMPV6, _NEIGHBOUR_ADVERTISEMENT, _OVERRIDE, _ROUTER = 58, 136, 0x20000000, 0x80000000


@dataclass(frozen=True, slots=True)
class Advertisement:
    """What a CARP packet says. *ttl* is IPv4's TTL or IPv6's hop limit, *summed* whether its checksum is right."""

    family: int
    source: bytes
    ttl: int
    version: int
    vhid: int
    advbase: int
    advskew: int
    counter: int
    digest: bytes
    summed: bool


def virtual_mac(vhid: int) -> bytes:
    """The MAC address of a vhid (carp_ioctl, carp_output)."""
    return bytes([0, 0, 0x5E, 0, 1, vhid])


def digest(key: bytes, vhid: int, addresses: Iterable[Address], counter: int) -> bytes:
    """The HMAC-SHA1 over version, type, vhid, the addresses (IPv4's first, each family in order), and the counter.

    Link-local addresses go without the interface's number (carp_hmac_prepare), as `Address` has them.
    """
    known = sorted(addresses, key=lambda each: (each.family != INET, each.value))
    shared = b"".join(each.packed for each in known)
    text = bytes([VERSION, ADVERTISEMENT, vhid]) + shared + counter.to_bytes(8, "big")
    return hmac.new(key[:KEY_LENGTH], text, hashlib.sha1).digest()


def advertisement(
    family: int, source: bytes, vhid: int, advbase: int, advskew: int, counter: int, code: bytes, dscp: int
) -> bytes:
    """The whole frame of an advertisement, from the virtual MAC to the multicast group (carp_send_ad_locked)."""

    def header(checksum: int) -> bytes:
        first = VERSION << 4 | ADVERTISEMENT
        return _HEADER.pack(first, vhid, advskew, AUTH_LENGTH, 0, advbase, checksum, counter, code)

    body = header(checksum(header(0)))
    if family == INET:
        packet = _ipv4(source, GROUP4, dscp, body)
        return ethernet(multicast_mac(GROUP4), virtual_mac(vhid), ETHER_IPV4, packet)
    packet = _ipv6(source, GROUP6, dscp, PROTOCOL, body)
    return ethernet(multicast_mac(GROUP6), virtual_mac(vhid), ETHER_IPV6, packet)


def parse(frame: bytes) -> Advertisement | None:
    """What a received frame says; None for what is no CARP packet, or too short (dropped-short-header)."""
    if len(frame) < _ETHERNET.size:
        return None
    _to, _from, kind = _ETHERNET.unpack_from(frame)
    packet = frame[_ETHERNET.size :]
    if kind == ETHER_IPV4 and len(packet) >= _IPV4.size and packet[9] == PROTOCOL:
        family, length, ttl, source = INET, (packet[0] & 15) * 4, packet[8], packet[12:16]
    elif kind == ETHER_IPV6 and len(packet) >= _IPV6.size and packet[6] == PROTOCOL:
        family, length, ttl, source = INET6, _IPV6.size, packet[7], packet[8:24]
    else:
        return None
    body = packet[length : length + _HEADER.size]
    if len(body) < _HEADER.size:
        return None
    first, vhid, advskew, _auth, _pad, advbase, _sum, counter, code = _HEADER.unpack(body)
    summed = checksum(body) == 0
    return Advertisement(family, source, ttl, first >> 4, vhid, advbase, advskew, counter, code, summed)


def gratuitous_arp(mac: bytes, virtual: bytes, address: bytes) -> bytes:
    """The broadcast ARP request for one's own address, with the virtual MAC in it (arp_announce_ifaddr)."""
    body = _ARP.pack(1, ETHER_IPV4, 6, 4, 1, virtual, address, bytes(6), address)
    return ethernet(BROADCAST, mac, ETHER_ARP, body)


def unsolicited_na(virtual: bytes, source: bytes, address: bytes, *, router: bool) -> bytes:
    """The neighbour advertisement to all nodes, overriding what they knew (carp_send_na, nd6_na_output)."""
    flags = _OVERRIDE | (_ROUTER if router else 0)
    option = bytes([2, 1]) + virtual

    def message(checksum: int) -> bytes:
        return struct.pack("!BBHI", _NEIGHBOUR_ADVERTISEMENT, 0, checksum, flags) + address + option

    length = len(message(0))
    pseudo = source + ALL_NODES + struct.pack("!II", length, _ICMPV6)
    packet = _ipv6(source, ALL_NODES, 0, _ICMPV6, message(checksum(pseudo + message(0))))
    return ethernet(multicast_mac(ALL_NODES), virtual, ETHER_IPV6, packet)


def ethernet(to: bytes, source: bytes, kind: int, packet: bytes) -> bytes:
    """An Ethernet frame."""
    return _ETHERNET.pack(to, source, kind) + packet


def multicast_mac(group: bytes) -> bytes:
    """The MAC address of a multicast group (RFC 1112, RFC 2464)."""
    if len(group) == 4:
        return bytes([0x01, 0x00, 0x5E, group[1] & 0x7F, group[2], group[3]])
    return b"\x33\x33" + group[12:]


def checksum(data: bytes) -> int:
    """The Internet checksum (in_cksum): 0 over data that hold their own."""
    data += bytes(len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _ipv4(source: bytes, to: bytes, dscp: int, body: bytes) -> bytes:
    def header(checksum: int) -> bytes:
        length = _IPV4.size + len(body)
        return _IPV4.pack(0x45, dscp << 2, length, 0, _DONT_FRAGMENT, TTL, PROTOCOL, checksum, source, to)

    return header(checksum(header(0))) + body


def _ipv6(source: bytes, to: bytes, dscp: int, protocol: int, body: bytes) -> bytes:
    return _IPV6.pack(6 << 28 | dscp << 22, len(body), protocol, TTL, source, to) + body
