"""The BGP side: ExaBGP, what it is run with, the agent's word on its sessions, and peers that have none. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from mobility import logs
from mobility.bgp.conf import checks_hops
from mobility.config import Peer
from mobility.doctor.verdict import Level, Verdict, fail, ok, warn
from mobility.network.command import Result
from mobility.terminal.status import drained_in_words

FLOOR, CEILING = (5, 0, 15), (6,)
"""ExaBGP's first release that this is made for, and the first that it is not."""
INSTALL = "/usr/local/libexec/mobility/venv/bin/pip install --upgrade exabgp"
MOST_DRAINED = 10
"""So many names of what is drained are told."""
KERNEL = "kernel"
"""What ExaBGP wants as the password on FreeBSD, where keys are the kernel's (exabgp/reactor/network/tcp.py, md5)."""


def user_verdict(user: str, uid: int | None) -> Verdict:
    """Judge whether ExaBGP's user exists."""
    if uid is not None:
        return ok(f"user {user}", f"uid {uid}")
    mend = f"pw useradd {user} -d /nonexistent -s /usr/sbin/nologin -c 'ExaBGP'"
    return fail(f"user {user}", "does not exist: ExaBGP drops its privileges to it", mend)


def exabgp_verdict(version: Result) -> Verdict:
    """Judge ExaBGP's version from what `exabgp version` printed."""
    found = re.search(r"ExaBGP\s*:\s*(\d+)\.(\d+)\.(\d+)", version.stdout)
    if not found:
        return fail("ExaBGP", f"its version can not be told: {version.complaint}", INSTALL)
    numbers = tuple(map(int, found.groups()))
    text = ".".join(map(str, numbers))
    if numbers < FLOOR:
        return fail("ExaBGP", f"{text} is older than {'.'.join(map(str, FLOOR))}", "pkg upgrade py311-exabgp")
    if numbers >= CEILING:
        return warn("ExaBGP", f"{text} is newer than what this was made for ({CEILING[0] - 1}.x)")
    return ok("ExaBGP", text)


def capability_verdict(validated: Result | None, error: str) -> Verdict:
    """Judge whether ExaBGP can all that we ask of it: what `exabgp validate` said of our configuration.

    None where our configuration could not even be written, with the `error`.
    """
    what = "ExaBGP's capabilities"
    if validated is None:
        return fail(what, f"our configuration can not be written: {error}", "mobility check")
    if validated.status != 0:
        why = f"it does not take our configuration: {validated.stderr.strip() or validated.complaint}"
        # ExaBGP quotes the line that it does not take
        return fail(what, logs.without_secrets(" ".join(why.split())), "pkg upgrade py311-exabgp")
    return ok(what, "takes our configuration: IPv6 next hops for IPv4, graceful restart, manual end-of-RIB")


def bridge_verdict(user: str, closed: Path | None, error: str) -> Verdict:
    """Judge whether ExaBGP's user may read what the bridge is run from; `closed` is the first that it may not."""
    what = "program of the bridge"
    if error:
        return fail(what, error)
    if closed is None:
        return ok(what, f"user {user} may read it")
    why = f"user {user} may not read {closed}, and ExaBGP runs the bridge as that user: no session would ever start"
    return fail(what, why, "install mobility where everybody can read it, or set bgp.bridge_command")


def keys(peer: Peer) -> list[str]:
    """Return the lines of /etc/ipsec.conf by which FreeBSD's kernel signs a session, one each way (setkey(8), EXAMPLES)."""
    ends = peer.local_address, peer.address
    return [
        f'add {source} {destination} tcp {spi:#x} -A tcp-md5 "KEY";'
        for spi, (source, destination) in enumerate((ends, ends[::-1]), 0x1000)
    ]


def signature_verdict(peers: Iterable[Peer], able: bool | None) -> Verdict | None:
    """Judge TCP MD5 for those of the peers that have a password; None where none has, or this is no FreeBSD.

    `able` tells whether the kernel takes TCP_MD5SIG (tcp(4); None: no FreeBSD).
    """
    signed = [peer for peer in peers if peer.password]
    if not signed or able is None:
        return None
    what = "TCP MD5 signatures"
    without = [peer for peer in signed if peer.password != KERNEL]
    if without:
        why = f"ExaBGP takes no passwords on FreeBSD, only {KERNEL!r}: the keys stand in the kernel"
        written = "; ".join(f"echo '{line}' >> /etc/ipsec.conf" for line in keys(without[0]))
        mend = f'set password = "{KERNEL}"; {written}; sysrc ipsec_enable=YES && service ipsec start'
        return fail(what, why, mend)
    if not able:
        why = "the kernel takes no TCP_MD5SIG: sessions with a password do not start"
        return fail(what, why, "kldload tcpmd5 && sysrc kld_list+=tcpmd5")
    return ok(what, "the kernel can sign; whether it has the keys: setkey -D")


def hops_verdict(peers: Iterable[Peer], platform: str) -> Verdict | None:
    """Judge GTSM for those of the peers that have it; None where none has."""
    secured = [peer for peer in peers if peer.ttl_security is not None]
    if not secured:
        return None
    what = "TTL security"
    half = [peer.name for peer in secured if not checks_hops(peer, platform)]
    if not half:
        return ok(what, "sent and checked")
    why = f"the router can check what we send, and FreeBSD can not check what it sends over IPv6: {', '.join(half)}"
    return warn(what, why, "filter TCP port 179 by address, or use an IPv4 session, where it is checked")


def notes(peers: Iterable[Peer], platform: str) -> list[str]:
    """Return what this host needs beside the configuration for its sessions: `mobility check` says it."""
    if not platform.startswith("freebsd"):
        return []
    peers = tuple(peers)
    found = [
        f"peer {peer.name}: its key stands in /etc/ipsec.conf, see setkey(8): {' '.join(keys(peer))}"
        if peer.password == KERNEL
        else f'peer {peer.name}: ExaBGP takes no password on FreeBSD: write password = "{KERNEL}", '
        f"and into /etc/ipsec.conf, see setkey(8): {' '.join(keys(peer))}"
        for peer in peers
        if peer.password
    ]
    hops = hops_verdict(peers, platform)
    return [*found, *([f"{hops.what}: {hops.why}"] if hops is not None and hops.level is not Level.OK else [])]


class Reach(Enum):
    """How a peer answered a connection to its BGP port."""

    TAKEN = "took the connection: it is there; our AS, or the router id, may not be what it expects (its log says)"
    REFUSED = "refused the connection: the host is there, and no BGP speaker that expects us"
    TAKEN_UNSIGNED = (
        "took a connection without signature, and password is set for this peer: the router has no key for us "
        "(or our AS, or the router id, may not be what it expects; its log says)"
    )
    SILENT = "did not answer: wrong address, a filter, no route, or it wants a password (TCP MD5), and none is set here"
    SILENT_SIGNED = (
        "did not answer, and what tried it was not signed: password may not be the router's key; "
        "or wrong address, a filter, no route"
    )
    NO_ROUTE = "can not be reached"
    NOT_OURS = "can not be reached: local_address is on no interface of this host"


@dataclass(frozen=True, slots=True)
class Looked:
    """A try to reach one peer, and what the system said if anything."""

    peer: Peer
    reach: Reach
    said: str = ""


def look_verdict(looked: Looked) -> Verdict:
    """Judge a peer without a session: what a plain TCP connection shows of why."""
    peer, reach = looked.peer, looked.reach
    why = f"no session; {peer.address} port {peer.port} {reach.value}" + (f" ({looked.said})" if looked.said else "")
    mend = f"ping {'-6 ' if peer.ipv6 else ''}-c 3 -S {peer.local_address} {peer.address}"
    if reach is Reach.NOT_OURS:
        family, length = ("inet6", 64) if peer.ipv6 else ("inet", 24)
        mend = f"ifconfig INTERFACE {family} {peer.local_address}/{length} alias"
    elif reach is Reach.TAKEN_UNSIGNED:
        mend = f"on the router: set the key of this session for {peer.local_address}; or take password out of mobility.toml"
    elif reach in (Reach.TAKEN, Reach.REFUSED):
        mend = f"on the router: expect {peer.local_address} with the AS of bgp.as"
    return fail(f"BGP peer {peer.name}", why, mend)


def unknown_verdict(peer: Peer, *, agent: bool, away: str = "") -> Verdict:
    """Judge a peer of whose session nobody tells: the agent does not answer, or (`agent`) ExaBGP's bridge is away.

    `away` is what the system said where local_address is on no interface: so much is seen without a connection.
    """
    what = f"BGP peer {peer.name}"
    if away:
        return look_verdict(Looked(peer, Reach.NOT_OURS, away))
    if not agent:
        why = "whether it has a session is not known: the agent does not answer, see above; ExaBGP keeps one that is up"
        return warn(what, why)
    why = "no session is known of: ExaBGP does not run, or its bridge is not connected to the agent"
    return fail(what, why, "service mobility_exabgp restart; then its log")


def agent_verdicts(host: Mapping[str, Any] | None, error: str) -> Iterator[Verdict]:
    """Judge the agent and its bridge by what `status` says of the host; None with the error where no agent answers."""
    if host is None:
        yield fail("agent", error, f"service mobility {'restart' if 'did not answer' in error else 'start'}")
        return
    yield ok("agent", f"pid {host['pid']}")
    for text in host["problems"]:
        yield warn("agent", text)
    if host["bridge"]:
        yield ok("bridge", "connected")
    else:
        why = "ExaBGP's bridge is not connected to the agent: nothing can be announced or withdrawn"
        yield fail("bridge", why, "service mobility_exabgp restart; then its log")
    if drained := host.get("drained"):
        named = ", ".join(drained_in_words(name) for name in drained[:MOST_DRAINED])
        more = f" and {len(drained) - MOST_DRAINED} more" if len(drained) > MOST_DRAINED else ""
        yield warn("drain", f"drained, and so not announced: {named}{more}", "mobility undrain, once that is over")
    if over := host.get("rib", {}).get("over_limit"):
        why = f"{over} prefixes wait, refused: as many as bgp.max_announcements are announced"
        yield fail(
            "announcements", why, "find out what announces so much: mobility status; or raise bgp.max_announcements"
        )


def session_verdicts(peer: Peer, session: Mapping[str, Any]) -> Iterator[Verdict]:
    """Judge a session that is up, by what the agent says of it."""
    what = f"BGP peer {peer.name}"
    yield ok(what, "up")
    for family in peer.families:
        if f"{family}/unicast" not in session.get("families", [f"{family}/unicast"]):
            name = family.replace("ip", "IP")
            why = f"takes no {name} routes: those are held back from it"
            yield fail(
                f"{what}: {name}", why, f"switch {name} on for this session on the router, or leave it out of families"
            )
    if "ipv4" in peer.families and not session["rfc8950"] and peer.next_hop_ipv4 is None:
        why = "takes no IPv4 routes with an IPv6 next hop: those are held back from it"
        mend = "switch on extended next hops on the router, or set next_hop_ipv4 for this peer"
        yield fail(f"{what}: RFC 8950", why, mend)
    for why, routes in session.get("held_back", {}).items():
        yield warn(f"{what}: routes", f"{routes} held back: {why}", "mobility status NAME")
