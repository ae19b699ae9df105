"""A fabric of two tiers, which is as large as fabrics must be for MED not to reach from one host to the other.

    host a - leaf a - spine - leaf b - host b          route servers rs1, rs2 beside the spine

Each is a router of its own AS with a real BIRD. A leaf strips the MED of what it tells on (RFC 4271, section 5.1.4), and
prefers what its own host says, by the shorter path: so of two hosts with the same jail neither is shown the other's claim
by its leaf. Hosts therefore have sessions over several hops to both route servers, which show every claim by ADD-PATH
(RFC 7911). Routers that face hosts, and route servers, are configured by deploy/fabric.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.fabric import Neighbor, made_out
from tests.lab.spine import SPINE_AS, Bird, Session, Spine
from tests.lab.topology import (
    CLIENT_IPV4,
    CLIENT_IPV6,
    DUMMY_IPV4,
    Host,
    Lab,
    Node,
    link_commands,
    node_commands,
    route_command,
)

LEAF_AS = 65200
"""Of the first leaf; the others follow."""
ROUTE_SERVER_AS = 65300
ROUTE_SERVERS = ("rs1", "rs2")
HOPS = 3
"""Routers between a host and a route server, and one more."""
HEARD: Mapping[str, str] = {
    # its log is what tells the lab that a session is up
    "log syslog all;": "log stderr all; timeformat protocol iso long ms;",
    "passive on;": "passive on; debug { states, events };",
}
_BETWEEN = """
protocol bgp {name} {{
  local {local} as {local_as};
  neighbor {remote} as {remote_as};
  connect delay time 1;
  connect retry time 1;
  error wait time 1, 2;
  hold time 30;
  debug {{ states, events }};
  ipv4 {{ extended next hop on; import where net ~ JAILS4; export where source = RTS_BGP && net ~ JAILS4; }};
  ipv6 {{ import where net ~ JAILS6; export where source = RTS_BGP && net ~ JAILS6; }};
}}
"""
"""A session between a leaf and the spine."""


def neighbor(session: Session) -> Neighbor:
    """Return a host's session as deploy/fabric is made out for it."""
    return Neighbor(session.name, session.remote, session.local, session.remote_as)


def deployed(lab: Lab, changes: Mapping[str, str] | None = None) -> None:
    """Have the lab's one spine run deploy/fabric/bird.conf, with `changes` made to it, instead of the lab's own."""
    sessions = [neighbor(session) for session in lab.spine.sessions]
    lab.spine.configure(made_out("bird.conf", sessions, {**HEARD, **(changes or {})}))
    for host in lab.hosts:
        if host.exabgp is not None:
            lab.await_session(host)


class TwoTier(Lab):
    """Hosts with a leaf each, a spine, two route servers, a client beyond the spine."""

    def _build(self, hosts: int, *, ipv4_links: bool) -> None:
        assert not ipv4_links, "its links carry IPv6 only"
        self.machine = Node(self.ground, "")
        self.hosts = [Host(self.ground, chr(ord("a") + index), index + 1) for index in range(hosts)]
        self._spine_node = Node(self.ground, "spine")
        self.client = Node(self.ground, "client")
        self.machine.commands(self._commands())
        environment = self.ground.environment()
        self.leaves: dict[str, Spine] = {}
        self.route_servers: dict[str, Bird] = {}
        between = []
        for host in self.hosts:
            host.peers = [self._leaf_peer(host), *(self._route_server_peer(host, name) for name in ROUTE_SERVERS)]
            host.configure()
            node = Node(self.ground, leaf_name(host))
            leaf = Spine(node.folder, node.prefix, environment, self.ground.fib(node.name), [host.session])
            changes = {**HEARD, "10.255.0.1": f"10.255.1.{host.number}", "as 65000;": f"as {leaf_as(host)};"}
            up = _BETWEEN.format(
                name="spine",
                local=leaf_address(host),
                local_as=leaf_as(host),
                remote=spine_address(host),
                remote_as=SPINE_AS,
            )
            leaf.configure(made_out("bird.conf", [neighbor(host.session)], changes) + up)
            self.leaves[host.name] = leaf
            between.append(
                _BETWEEN.format(
                    name=f"leaf_{host.name}",
                    local=spine_address(host),
                    local_as=SPINE_AS,
                    remote=leaf_address(host),
                    remote_as=leaf_as(host),
                )
            )
        self.spine = Spine(self._spine_node.folder, self._spine_node.prefix, environment, self.ground.fib("spine"), [])
        self.spine.configure(made_out("bird.conf", [], HEARD) + "".join(between))
        for number, name in enumerate(ROUTE_SERVERS, 1):
            node = Node(self.ground, name)
            bird = Bird(node.folder, node.prefix, environment)
            clients = [
                Neighbor(f"host_{host.name}", host.address, route_server_address(name), host.local_as)
                for host in self.hosts
            ]
            changes = {**HEARD, "10.255.0.11": f"10.255.2.{number}"}
            bird.configure(made_out("bird-route-server.conf", clients, changes))
            self.route_servers[name] = bird
        for router in self._routers():
            router.start()
        for host in self.hosts:
            self.spine.await_session(f"leaf_{host.name}")

    def _commands(self) -> list[list[str]]:
        """Return what makes the nodes, their links, and the routes that sessions need."""
        leaves = [leaf_name(host) for host in self.hosts]
        names = ["spine", "client", *ROUTE_SERVERS, *leaves, *(host.name for host in self.hosts)]
        lines = [line for name in names for line in node_commands(name)]
        own = [("client", CLIENT_IPV4), ("client", CLIENT_IPV6), *((host.name, host.ipv4) for host in self.hosts)]
        own += [(name, DUMMY_IPV4) for name in ("spine", *ROUTE_SERVERS, *leaves)]
        for name, address in own:
            family, length = ("inet6", 128) if ":" in address else ("inet", 32)
            lines.append(["jexec", name, "ifconfig", "lo0", family, f"{address}/{length}", "alias"])
        links = [("client", "fd00:ffff::", "spine")]
        links += [(name, route_server_address(name)[:-1], "spine") for name in ROUTE_SERVERS]
        for host in self.hosts:
            links += [(leaf_name(host), leaf_address(host)[:-1], "spine")]
            links += [(host.name, host.address[:-1], leaf_name(host))]
        for number, (name, network, router) in enumerate(links, 1):
            lines += link_commands(number, name, network, router)
            lines += [
                route_command(name, "default", "", f"{network}ff", inet=True),
                route_command(name, "default", "", f"{network}ff"),
            ]
        lines += [route_command("spine", "-host", address, "fd00:ffff::1") for address in (CLIENT_IPV4, CLIENT_IPV6)]
        for host in self.hosts:
            lines += [
                route_command("spine", "-net", f"{host.address[:-1]}/64", leaf_address(host)),
                route_command("spine", "-host", host.ipv4, leaf_address(host)),
                route_command(leaf_name(host), "-host", host.ipv4, host.address),
            ]
        return lines

    @staticmethod
    def _leaf_peer(host: Host) -> dict[str, Any]:
        return {
            "name": "leaf",
            "address": host.spine_address,
            "as": leaf_as(host),
            "local_address": host.address,
        }

    @staticmethod
    def _route_server_peer(host: Host, name: str) -> dict[str, Any]:
        return {
            "name": name,
            "address": route_server_address(name),
            "as": ROUTE_SERVER_AS,
            "local_address": host.address,
            "add_path": True,
            "multihop": HOPS,
        }

    def _routers(self) -> list[Bird]:
        return [self.spine, *self.leaves.values(), *self.route_servers.values()]

    def via(self, host: Host) -> str:
        """Return the next hop by which the spine reaches a host's jails."""
        return leaf_address(host)

    def router(self, host: Host) -> Bird:
        """Return the router that faces a host."""
        return self.leaves[host.name]

    def await_session(self, host: Host, *, up: bool = True) -> None:
        """Wait until a host's sessions, to its leaf and to both route servers, are up (or down)."""
        try:
            for bird in (self.leaves[host.name], *self.route_servers.values()):
                bird.await_session(host.session.name, up=up)
        except AssertionError as error:
            raise AssertionError("\n".join([str(error), *self.logs(host)])) from error

    def logs(self, *hosts: Host) -> list[str]:
        """Return the ends of the logs of these hosts (of all, if none is named) and of all routers."""
        return [*super().logs(*hosts), *(bird.process.tail() for bird in self._routers()[1:])]

    def close(self) -> None:
        """End everything."""
        try:
            for bird in (*self.leaves.values(), *self.route_servers.values()):
                bird.close()
        finally:
            super().close()


def leaf_name(host: Host) -> str:
    """Return the name of a host's leaf."""
    return f"leaf-{host.name}"


def leaf_as(host: Host) -> int:
    """Return the AS of a host's leaf."""
    return LEAF_AS + host.number - 1


def leaf_address(host: Host) -> str:
    """Return the leaf's end of its link to the spine."""
    return f"fd01:{host.number:x}::1"


def spine_address(host: Host) -> str:
    """Return the spine's end of its link to a host's leaf."""
    return f"fd01:{host.number:x}::ff"


def route_server_address(name: str) -> str:
    """Return the one address of a route server."""
    return f"fd02:{ROUTE_SERVERS.index(name) + 1}::1"
