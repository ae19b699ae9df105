"""ExaBGP's configuration and environment, out of ours: pure text.

Every setting is one of ExaBGP 5.0.15's own parser: configuration/neighbor, configuration/process, environment/setup.py.
"""

from __future__ import annotations

import hashlib
import re
import sys

from mobility.bgp.bridge import FOREVER
from mobility.config import MAX_TTL, Config, Peer

PROCESS = "bridge"
ENVIRONMENT_NAME = "exabgp.env"
"""In paths.run, and empty; without it ExaBGP advises in its log to write one."""
_WORD = re.compile(r"[A-Za-z0-9._/+=:@%-]+", re.ASCII)
"""What stands in ExaBGP's file without quotes: its tokeniser splits at spaces, commas and brackets, and ends a
statement at ';', '{' and '}' (configuration/core/format.py)."""


class ConfError(ValueError):
    """Something of our configuration can not be said in ExaBGP's; the message names it and what to do."""


def bridge_command(config: Config) -> list[str]:
    """Return the command by which ExaBGP starts the bridge."""
    wait = config.bgp.fail_static_for
    return [
        *config.bgp.bridge_command,
        "--allowed",
        *map(str, config.host.allowed),
        "--socket",
        str(config.bridge_socket),
        "--fail-static-for",
        FOREVER if wait is None else f"{wait:g}",
    ]


def render(config: Config) -> str:
    """Return the configuration file of ExaBGP.

    Raises ConfError where the bridge's command holds what can not be written there.
    """
    command = bridge_command(config)
    for word in command:
        if not _WORD.fullmatch(word):
            raise ConfError(
                f"{word!r} can not stand in ExaBGP's configuration: use letters, digits and ._/+=:@%- only "
                "(paths.run and bgp.bridge_command)"
            )
    if not command[0].startswith("/"):
        raise ConfError(f"bgp.bridge_command begins with {command[0]!r}: ExaBGP wants the program's absolute path")
    process = f"process {PROCESS} {{\n    run {' '.join(command)};\n    encoder json;\n}}\n"
    named = mark(config)
    return process + "".join(_neighbor(config, peer, named) for peer in config.bgp.peers)


def mark(config: Config) -> str:
    """Return what names these neighbors among all others, and tells nothing of them.

    It is each neighbor's description: ExaBGP takes over a new one without touching the session (bgp/neighbor.py,
    `__eq__`), and says by it (`show neighbor configuration`) which file it has read last.
    """
    text = "".join(_neighbor(config, peer, "") for peer in config.bgp.peers)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def checks_hops(peer: Peer, platform: str = sys.platform) -> bool:
    """Tell whether ExaBGP can have the kernel drop what comes from further away than `ttl_security` says.

    FreeBSD has IP_MINTTL (ip(4)), and nothing for IPv6: netinet6/in6.h has no option of the number that ExaBGP uses, which
    is Linux's IPV6_MINHOPCOUNT, and a session whose socket refuses it would never start.
    """
    return not (peer.ipv6 and platform.startswith("freebsd"))


def _hops(peer: Peer) -> list[str]:
    if peer.ttl_security is None:
        return [] if peer.multihop is None else [f"outgoing-ttl {peer.multihop};"]
    # RFC 5082, section 3: who sends with 255 can not be further away than what is missing from it at our end
    accept = [f"incoming-ttl {MAX_TTL + 1 - peer.ttl_security};"] if checks_hops(peer) else []
    return [f"outgoing-ttl {MAX_TTL};", *accept]


def _neighbor(config: Config, peer: Peer, description: str) -> str:
    bgp = config.bgp
    restart = str(bgp.graceful_restart) if bgp.graceful_restart else "disable"
    families = [f"    {family} unicast;" for family in peer.families]
    lines = [
        f'description "{description}";',
        f"router-id {bgp.router_id};",
        f"local-address {peer.local_address};",
        f"local-as {bgp.local_as};",
        f"peer-as {peer.remote_as};",
        f"connect {peer.port};",
        f"hold-time {peer.hold_time};",
        *_hops(peer),
        *([f'md5-password "{peer.password}";'] if peer.password else []),
        "passive false;",
        "group-updates true;",
        # what was announced is sent again by ExaBGP itself when a session comes back
        "adj-rib-out true;",
        # and what was received is told to a bridge that was started again
        "adj-rib-in true;",
        # the bridge says when everything was announced (RFC 4724, section 2)
        "manual-eor true;",
        "capability {",
        f"    nexthop {'enable' if peer.asks_rfc8950 else 'disable'};",
        "    route-refresh enable;",
        f"    graceful-restart {restart};",
        *(["    add-path receive;"] if peer.add_path else []),
        "}",
        "family {",
        *families,
        "}",
        *(["nexthop {", "    ipv4 unicast ipv6;", "}"] if peer.asks_rfc8950 else []),
        *(["add-path {", *families, "}"] if peer.add_path else []),
        "api {",
        f"    processes [ {PROCESS} ];",
        "    neighbor-changes;",
        # not `negotiated`: ExaBGP would repeat it in every update; not `notification`: reporting a malformed
        # message then fails inside ExaBGP (reactor/protocol.py calls it with an argument too many)
        "    receive {",
        "        parsed;",
        "        open;",
        "        update;",
        "    }",
        "}",
    ]
    return f"neighbor {peer.address} {{\n" + "".join(f"    {line}\n" for line in lines) + "}\n"


def environment(config: Config) -> dict[str, str]:
    """Return ExaBGP's settings as environment variables."""
    return {
        "exabgp.daemon.user": config.bgp.user,
        "exabgp.daemon.daemonize": "false",
        "exabgp.daemon.drop": "true",
        "exabgp.daemon.pid": "",
        "exabgp.log.enable": "true",
        "exabgp.log.destination": "stdout",
        # one line for every route announced would be written on the level INFO
        "exabgp.log.level": "WARNING",
        "exabgp.tcp.bind": "",
        "exabgp.api.ack": "true",
        "exabgp.api.respawn": "true",
        # a bridge that died while ExaBGP was writing to it leaves an ExaBGP without any peer: better none at all
        "exabgp.api.terminate": "true",
        "exabgp.api.cli": "false",
        # how it tells its routes: 100 in a turn, one in a line
        "exabgp.api.chunk": "100",
        "exabgp.api.show-routes-format": "v2",
        # all settings are here: no file of other hands is asked
        "EXABGP_ENVFILE": str(config.paths.run / ENVIRONMENT_NAME),
    }
