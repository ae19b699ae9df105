"""The BGP side: ExaBGP, what it is run with, the agent's word on its sessions, and peers that have none. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from mobility.config import Peer
from mobility.doctor.verdict import Verdict, fail, ok, warn
from mobility.network.command import Result

FLOOR, CEILING = (5, 0, 15), (6,)
"""ExaBGP's first release that this is made for, and the first that it is not."""
INSTALL = "/usr/local/libexec/mobility/venv/bin/pip install --upgrade exabgp"
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
        return fail(what, " ".join(why.split()), "pkg upgrade py311-exabgp")
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


def signature_verdict(peers: int, able: bool | None, kernels: int) -> Verdict | None:
    """Judge TCP MD5 for the `peers` that have a password; None where none has, or this is no FreeBSD.

    `able` tells whether the kernel takes TCP_MD5SIG (tcp(4); None: no FreeBSD), `kernels` how many passwords are KERNEL.
    """
    if not peers or able is None:
        return None
    what = "TCP MD5 signatures"
    if kernels < peers:
        why = f"ExaBGP takes no passwords on FreeBSD, only {KERNEL!r}: the keys stand in the kernel"
        key = 'add LOCAL PEER tcp 0x1000 -A tcp-md5 "KEY";'
        mend = f"""set password = "{KERNEL}"; echo '{key}' >> /etc/ipsec.conf; sysrc ipsec_enable=YES && service ipsec start"""
        return fail(what, why, mend)
    if not able:
        why = "the kernel takes no TCP_MD5SIG: sessions with a password do not start"
        return fail(what, why, "kldload tcpmd5 && sysrc kld_list+=tcpmd5")
    return ok(what, "the kernel can sign; whether it has the keys: setkey -D")


class Reach(Enum):
    """How a peer answered a connection to its BGP port."""

    TAKEN = "took the connection: it is there; our AS, or the router id, may not be what it expects (its log says)"
    REFUSED = "refused the connection: the host is there, and no BGP speaker that expects us"
    SILENT = "did not answer: wrong address, a filter, or no route"
    SILENT_SIGNED = "did not answer: wrong address, a filter, no route, or it answers to signed connections only"
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
    mend = f"ping -6 -c 3 -S {peer.local_address} {peer.address}"
    if reach is Reach.NOT_OURS:
        mend = f"ifconfig INTERFACE inet6 {peer.local_address}/64 alias"
    elif reach in (Reach.TAKEN, Reach.REFUSED):
        mend = f"service mobility_exabgp start; on the router: expect {peer.local_address} with the AS of bgp.as"
    return fail(f"BGP peer {peer.name}", why, mend)


def agent_verdicts(host: Mapping[str, Any] | None, error: str) -> Iterator[Verdict]:
    """Judge the agent and its bridge by what `status` says of the host; None with the error where no agent answers."""
    if host is None:
        yield fail("agent", error, "service mobility start")
        return
    yield ok("agent", f"pid {host['pid']}")
    for text in host["problems"]:
        yield warn("agent", text)
    if host["bridge"]:
        yield ok("bridge", "connected")
    else:
        why = "ExaBGP's bridge is not connected to the agent: nothing can be announced or withdrawn"
        yield fail("bridge", why, "service mobility_exabgp restart; then its log")


def session_verdicts(peer: Peer, session: Mapping[str, Any]) -> Iterator[Verdict]:
    """Judge a session that is up, by what the agent says of it."""
    what = f"BGP peer {peer.name}"
    yield ok(what, "up")
    if session["rfc8950"] or peer.next_hop_ipv4 is not None:
        return
    why = "takes no IPv4 routes with an IPv6 next hop: those are held back from it"
    mend = "switch on extended next hops on the router, or set next_hop_ipv4 for this peer"
    yield fail(f"{what}: RFC 8950", why, mend)
