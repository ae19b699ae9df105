"""`mobility doctor`: every prerequisite with its verdict, the reason, and the exact command that mends it.

It looks and changes nothing. `examine` gathers; each `*_verdict` judges what was gathered and is pure.
"""

from __future__ import annotations

import asyncio
import pwd
import re
import shlex
import socket
import stat
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mobility import control
from mobility.bgp.run import ExabgpError, program
from mobility.config import Config
from mobility.jails import jailsd
from mobility.network import output
from mobility.network.command import CommandError, Result, find
from mobility.network.host import Host, Trouble

COMMANDS = ("ifconfig", "route", "netstat", "jls", "jexec", "sysctl")
_FORWARDING = {"net.inet.ip.forwarding": "gateway_enable", "net.inet6.ip6.forwarding": "ipv6_gateway_enable"}
_EXABGP_FLOOR = (5, 0, 15)
NAME_WITHIN = 2.0
"""Seconds in which the host's own name should be resolved."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One prerequisite: whether it is met, why we say so, and the command that mends it if it is not."""

    what: str
    ok: bool
    why: str
    mend: str = ""

    def describe(self) -> dict[str, Any]:
        """Return it for JSON."""
        return asdict(self)


def command_verdict(name: str, directories: Iterable[Path]) -> Verdict:
    """Judge whether one of FreeBSD's commands can be found."""
    try:
        return Verdict(f"command {name}", True, str(find(name, tuple(directories))))
    except CommandError as error:
        return Verdict(f"command {name}", False, error.reason, "set paths.commands in mobility.toml")


def sysctl_verdict(name: str, result: Result, wanted: str, mend: str, why: str) -> Verdict:
    """Judge a sysctl by its value."""
    value = result.stdout.strip()
    if result.status != 0:
        return Verdict(name, False, f"{result.complaint}: {why}", mend)
    ok = value == wanted
    return Verdict(name, ok, f"is {value}" + ("" if ok else f", must be {wanted}: {why}"), "" if ok else mend)


def ipv4_verdict(ifconfig: Result) -> Verdict:
    """Judge whether IPv4 routes over IPv6 next hops have an address to take their source from (transcript 3-routes)."""
    net = output.NetView(output.interfaces(ifconfig.stdout))
    if net.with_ipv4 is not None:
        text = next(text for text in net.with_ipv4.inet if not text.startswith("127."))
        return Verdict("IPv4 address of the host", True, f"{text} on {net.with_ipv4.name}")
    return Verdict(
        "IPv4 address of the host",
        False,
        "none but 127.0.0.1: the agent adds the dummy 192.0.0.8 (RFC 7600) when a jail needs it; "
        "what the host itself sends then carries that",
        "ifconfig lo0 inet YOUR.OWN.IPV4.ADDRESS/32 alias",
    )


def user_verdict(user: str) -> Verdict:
    """Judge whether ExaBGP's user exists."""
    try:
        return Verdict(f"user {user}", True, f"uid {pwd.getpwnam(user).pw_uid}")
    except KeyError:
        mend = f"pw useradd {user} -d /nonexistent -s /usr/sbin/nologin -c 'ExaBGP'"
        return Verdict(f"user {user}", False, "does not exist: ExaBGP drops its privileges to it", mend)


def exabgp_verdict(version: Result) -> Verdict:
    """Judge ExaBGP's version from what `exabgp version` prints."""
    found = re.search(r"ExaBGP\s*:\s*(\d+)\.(\d+)\.(\d+)", version.stdout)
    if not found:
        return Verdict("ExaBGP", False, f"its version can not be told: {version.complaint}", "pkg install py311-exabgp")
    numbers = tuple(map(int, found.groups()))
    text = ".".join(map(str, numbers))
    ok = numbers >= _EXABGP_FLOOR
    floor = ".".join(map(str, _EXABGP_FLOOR))
    return Verdict(
        "ExaBGP",
        ok,
        text if ok else f"{text} is older than {floor}",
        "" if ok else "pkg upgrade py311-exabgp",
    )


def folder_verdict(what: str, path: Path, *, private: bool) -> Verdict:
    """Judge a folder of the agent's: there, root's, and writable by nobody else."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return Verdict(what, False, f"{path} does not exist yet: the agent makes it", "service mobility start")
    except OSError as error:
        return Verdict(what, False, f"{path}: {error.strerror}")
    open_bits = stat.S_IMODE(status.st_mode) & (0o077 if private else 0o022)
    if status.st_uid != 0 or open_bits:
        mode = "700" if private else "755"
        why = f"{path} is owner {status.st_uid}, mode {stat.S_IMODE(status.st_mode):04o}: others could meddle"
        return Verdict(what, False, why, f"chown root {path} && chmod {mode} {path}")
    return Verdict(what, True, str(path))


def jails_verdict(config: Config) -> Verdict:
    """Judge the files in jails.d."""
    jails, wrong = jailsd.load(config.paths.jails_d, config.host.allowed)
    if wrong:
        first = next(iter(wrong.values()))[0]
        more = f" (and {len(wrong) - 1} more files)" if len(wrong) > 1 else ""
        return Verdict("jails.d", False, f"{first}{more}", "mobility check")
    return Verdict("jails.d", True, f"{len(jails)} jails have addresses granted")


def agent_verdicts(config: Config) -> list[Verdict]:
    """Judge the running agent, its bridge and every BGP session by its own word."""
    try:
        host = control.request(config.control_socket, "status")["host"]
    except control.ControlError as error:
        return [Verdict("agent", False, str(error), "service mobility start")]
    verdicts = [Verdict("agent", True, f"pid {host['pid']}")]
    if not host["bridge"]:
        why = "ExaBGP's bridge is not connected to the agent: nothing can be announced or withdrawn"
        return [*verdicts, Verdict("bridge", False, why, "service mobility_exabgp restart; then its log")]
    verdicts.append(Verdict("bridge", True, "connected"))
    for session in host["sessions"]:
        up = session["state"] == "up"
        why = "up" if up else f"{session['state']}: is {session['address']} reachable, and does it expect us?"
        verdicts.append(
            Verdict(f"BGP peer {session['peer']}", up, why, "" if up else f"ping -6 -c 3 {session['address']}")
        )
        if up and not session["rfc8950"]:
            verdicts.append(
                Verdict(
                    f"BGP peer {session['peer']}: RFC 8950",
                    False,
                    "takes no IPv4 routes with an IPv6 next hop: those are held back from it without next_hop_ipv4",
                    "switch on extended next hops on the router, or set next_hop_ipv4 for this peer",
                )
            )
    return verdicts


async def examine(config: Config) -> list[Verdict]:
    """Gather and judge everything; the order is that in which an operator should mend."""
    verdicts = [command_verdict(name, config.paths.commands) for name in COMMANDS]
    if all(verdict.ok for verdict in verdicts):
        verdicts += await _kernel(config)
    verdicts.append(await _host_name())
    verdicts.append(user_verdict(config.bgp.user))
    verdicts += await _exabgp(config)
    verdicts.append(folder_verdict("spool", config.hooks.spool, private=True))
    verdicts.append(folder_verdict("database", config.paths.state, private=True))
    verdicts.append(jails_verdict(config))
    return verdicts + await asyncio.to_thread(agent_verdicts, config)


def _unmeasured(_name: str, _seconds: float, _failed: bool) -> None:
    """Nobody counts what the doctor runs."""


async def _kernel(config: Config) -> list[Verdict]:
    host = Host(config.paths.commands, config.agent.command_timeout, _unmeasured)
    try:
        vimage, rfc5549, nexthop, ifconfig, *forwarding = await asyncio.gather(
            host.command(["sysctl", "-n", "kern.features.vimage"]),
            host.command(["sysctl", "-n", "kern.features.ipv4_rfc5549_support"]),
            host.command(["sysctl", "-n", "net.route.ipv6_nexthop"]),
            host.command(["ifconfig", "-a"]),
            *(host.command(["sysctl", "-n", name]) for name in _FORWARDING),
        )
    except Trouble as error:
        return [Verdict("kernel", False, str(error))]
    finally:
        host.close()
    verdicts = [
        sysctl_verdict(
            "kern.features.vimage",
            vimage,
            "1",
            "use a kernel with options VIMAGE (GENERIC has it)",
            "no vnet jails",
        ),
        sysctl_verdict(
            "kern.features.ipv4_rfc5549_support",
            rfc5549,
            "1",
            "upgrade to FreeBSD 13.1 or newer",
            "no IPv4 over IPv6 next hops",
        ),
        sysctl_verdict(
            "net.route.ipv6_nexthop",
            nexthop,
            "1",
            "sysctl net.route.ipv6_nexthop=1",
            "IPv4 routes over IPv6 next hops are refused",
        ),
        ipv4_verdict(ifconfig),
    ]
    for (name, knob), result in zip(_FORWARDING.items(), forwarding, strict=True):
        verdicts.append(
            sysctl_verdict(
                name,
                result,
                "1",
                f"sysctl {name}=1 && sysrc {knob}=YES",
                "the host does not forward to its jails",
            )
        )
    return verdicts


async def _host_name() -> Verdict:
    # ExaBGP calls getfqdn() when it starts (exabgp/util/dns.py), and waits for a DNS that does not answer
    name = socket.gethostname()
    try:
        async with asyncio.timeout(NAME_WITHIN):
            await asyncio.to_thread(socket.getfqdn)
    except TimeoutError:
        why = f"{name} is not resolved within {NAME_WITHIN:g} s: ExaBGP waits for that at every start"
        return Verdict("host name", False, why, f"echo '127.0.0.1 {shlex.quote(name)}' >> /etc/hosts")
    return Verdict("host name", True, name)


async def _exabgp(config: Config) -> list[Verdict]:
    try:
        path = Path(program(config))
    except ExabgpError as error:
        return [Verdict("ExaBGP", False, str(error), "pkg install py311-exabgp")]
    host = Host([path.parent, *config.paths.commands], config.agent.command_timeout, _unmeasured)
    try:
        return [exabgp_verdict(await host.command([path.name, "version"]))]
    except Trouble as error:
        return [Verdict("ExaBGP", False, str(error))]
    finally:
        host.close()
