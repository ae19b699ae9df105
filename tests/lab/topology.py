"""A small data centre in a few lines: jail hosts, a spine with a real BIRD, a client beyond it.

    with Lab(hosts=2) as lab:
        a, b = lab.hosts
        a.start_agent()
        a.start_exabgp()
        a.define_jail("web1", ["198.51.100.7/32", "2001:db8:7::7/128"], start="...")
        a.start_jail("web1")
        lab.spine.fib.wait("198.51.100.7/32", via=a.address)
        lab.client.ping("198.51.100.7")

All are vnet jails of one machine, the hosts with `children.max`, made by the commands of freebsd-13.2/9-fabric.sh. What
the machine is, is the `Ground`'s matter: on Linux a lab kernel, on FreeBSD the machine's own. The links between a host and
the spine carry IPv6 only: fd00:N::1 is the host, fd00:N::ff the spine.
"""

from __future__ import annotations

import json
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mobility import control
from mobility.model import Phase
from tests.lab import ground as grounds
from tests.lab.ground import SYSTEM_PYTHON, Ground
from tests.lab.spine import SPINE_AS, Bird, Session, Spine, host_conf
from tests.lab.watch import Process, poked_by
from tests.waiting import PATIENCE

REPOSITORY = Path(__file__).resolve().parents[2]
HOOK = REPOSITORY / "hooks" / "mobility-hook"
FIRST_HOST_AS = 65001
JAILS_PER_HOST = 10_000
#: What jails may hold in the lab (documentation prefixes, RFC 5737 and RFC 3849).
ALLOWED = ("198.51.100.0/24", "2001:db8:7::/64")
#: The client's addresses, routed to it by the spine.
CLIENT_IPV4, CLIENT_IPV6 = "203.0.113.9", "2001:db8:c::9"
#: What a router without an IPv4 address of its own answers with (RFC 7600).
DUMMY_IPV4 = "192.0.0.8"
#: Whom ExaBGP becomes.
EXABGP_USER = "nobody"
START_SECONDS = PATIENCE
STOP_SECONDS = PATIENCE


class Node:
    """One part of the lab: programs run in its vnet."""

    def __init__(self, ground: Ground, name: str) -> None:
        self.name = name
        self.ground = ground
        self.folder = ground.folder / "nodes" / (name or "machine")
        self.folder.mkdir(parents=True)
        self._prefix: list[str] | None = None

    @property
    def prefix(self) -> list[str]:
        """The argv prefix that runs a program here."""
        if self._prefix is None:
            self._prefix = self.ground.enter(self.name)
        return self._prefix

    def forget(self) -> None:
        """Look for its vnet anew: it has another one since it was last used."""
        self._prefix = None

    def run(
        self, argv: Sequence[str | Path], *, check: bool = True, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run a program here to its end: text, output captured. RuntimeError with all it said where it fails."""
        options = {"env": self.ground.environment(), "capture_output": True, "text": True, "check": False, **options}
        result: subprocess.CompletedProcess[str] = subprocess.run([*self.prefix, *map(str, argv)], **options)
        if check and result.returncode != 0:
            said = f"{result.stdout or ''}{result.stderr or ''}".strip()
            raise RuntimeError(f"{self.name}: {shlex.join(map(str, argv))}: exit {result.returncode}\n{said}")
        return result

    def popen(self, argv: Sequence[str | Path], **options: Any) -> subprocess.Popen[str]:
        """Start a program here: text, our environment with FreeBSD's commands first."""
        options = {"env": self.ground.environment(), "text": True, **options}
        process: subprocess.Popen[str] = subprocess.Popen([*self.prefix, *map(str, argv)], **options)
        return process

    def service(self, name: str, argv: Sequence[str | Path]) -> Process:
        """Start a long-running program here; its output goes to NAME.log in our folder."""
        process = self.popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            errors="replace",
            cwd=REPOSITORY,
        )
        return Process(f"{name} on {self.name}", process, self.folder / f"{name}.log")

    def commands(self, lines: Sequence[Sequence[str]]) -> None:
        """Run FreeBSD commands here, one after the other, by one shell. RuntimeError at the first that fails."""
        script = "".join(
            f"{shlex.join(line)} || {{ echo failed: {shlex.quote(shlex.join(line))}; exit 1; }}\n" for line in lines
        )
        self.run(["sh"], input=script)

    def ping(self, address: str, *, count: int = 1, seconds: int = 2) -> bool:
        """Tell whether an address answers every one of `count` pings within `seconds`."""
        family = ["-6"] if ":" in address else []
        result = self.run(["ping", *family, "-n", "-c", str(count), "-t", str(seconds), address], check=False)
        return result.returncode == 0 and " 0.0% packet loss" in result.stdout


class Host(Node):
    """A jail host: its agent, its ExaBGP, its jails.

    `address` is its end of the link to the spine, `ipv4` its one IPv4 address, on lo0, which the spine routes to it.
    """

    def __init__(self, ground: Ground, name: str, number: int) -> None:
        super().__init__(ground, name)
        self.number = number
        self.local_as = FIRST_HOST_AS + number - 1
        self.address = f"fd00:{number:x}::1"
        self.ipv4 = f"192.0.2.{number}"
        self.spine_address = f"fd00:{number:x}::ff"
        self.router_id = f"10.0.{number >> 8}.{number & 0xFF}"
        self.session = Session(f"host_{name}", self.spine_address, self.address, self.local_as)
        self.config = self.folder / "mobility.toml"
        self.run_folder = self.folder / "run"
        self.jails_d = self.folder / "jails.d"
        self.jail_conf = self.folder / "jail.conf"
        self.agent: Process | None = None
        self.exabgp: Process | None = None
        self.bird: Bird | None = None
        #: Its sessions, each as [[bgp.peer]] has it.
        self.peers: list[dict[str, Any]] = [
            {"name": "spine", "address": self.spine_address, "as": SPINE_AS, "local_address": self.address}
        ]
        self._jails: dict[str, str] = {}
        self.jails_d.mkdir()
        self.configure()

    # mobility

    def configure(self, *, peers: Any = None, **sections: dict[str, Any]) -> None:
        """Write mobility.toml; `sections` add to or replace what the lab needs (agent={"look_every": 1.0}).

        `peers` are its sessions from now on; without any, the one to the spine.
        """
        bridge = self.folder / "bridge.py"
        source = REPOSITORY / "mobility" / "bgp" / "bridge.py"
        if source.exists():
            shutil.copy(source, bridge)
        tables: dict[str, dict[str, Any]] = {
            "host": {"name": self.name, "allowed": list(ALLOWED)},
            "paths": {
                "commands": [str(path) for path in self.ground.commands],
                "run": str(self.run_folder),
                "state": str(self.folder / "state"),
                "jails_d": str(self.jails_d),
            },
            "managers": {"bastille": "", "iocage": "", "jail_conf": str(self.jail_conf)},
            "hooks": {"spool": str(self.folder / "spool"), "timeout": 30, "when_agent_down": "refuse"},
            "agent": {},
            "metrics": {"listen": "127.0.0.1:9971"},
            # tests count what is logged, and start one jail more often than anybody else does
            "log": {"burst": 0},
            "bgp": {
                "as": self.local_as,
                "router_id": self.router_id,
                "user": EXABGP_USER,
                "exabgp": str(Path(sys.executable).parent / "exabgp"),
                "bridge_command": [SYSTEM_PYTHON, "-I", str(bridge)],
            },
        }
        for section, values in sections.items():
            tables[section] = tables.get(section, {}) | values
        if peers is not None:
            self.peers = list(peers)
        text = "".join(_toml(f"[{section}]", values) for section, values in tables.items())
        self.config.write_text(text + "".join(_toml("[[bgp.peer]]", peer) for peer in self.peers))

    def mobility(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run the `mobility` command: its first argument, our configuration, the others."""
        command, *others = arguments
        argv = [sys.executable, "-m", "mobility", command, "--config", str(self.config), *others]
        return self.run(argv, check=check, cwd=REPOSITORY)

    def start_agent(self, timeout: float = START_SECONDS) -> Process:
        """Start the agent and wait until it answers on its control socket."""
        self.run_folder.mkdir(mode=0o755, exist_ok=True)
        command = [sys.executable, "-m", "mobility", "agent", "--config", str(self.config)]
        self.agent = self.service("agent", command)
        with poked_by(self.agent, self.run_folder):
            self.agent.await_(self.agent_answers, "answer on the control socket", timeout)
        return self.agent

    def agent_answers(self) -> bool:
        """Tell whether the agent's control socket takes requests; one that is just being made may hang up."""
        try:
            control.request(self.run_folder / "control.sock", "status", answer_within=START_SECONDS)
        except control.ControlError:
            return False
        return True

    def stop_agent(self, number: int = signal.SIGTERM, timeout: float = STOP_SECONDS) -> int:
        """End the agent by a signal; return its status (negative: the signal that killed it)."""
        assert self.agent is not None, "no agent was started"
        status = self.agent.end(number, timeout)
        self.agent = None
        return status

    def start_exabgp(self) -> Process:
        """Start ExaBGP as the service does. `Lab.await_session` waits for what it is there for."""
        self.run_folder.mkdir(mode=0o755, exist_ok=True)
        command = [sys.executable, "-m", "mobility", "exabgp", "--config", str(self.config)]
        self.exabgp = self.service("exabgp", command)
        return self.exabgp

    def stop_exabgp(self, number: int = signal.SIGTERM, timeout: float = STOP_SECONDS) -> int:
        """End ExaBGP by a signal; return its status (negative: the signal that killed it)."""
        assert self.exabgp is not None, "no ExaBGP was started"
        status = self.exabgp.end(number, timeout)
        self.exabgp = None
        return status

    def start_bird(self) -> Bird:
        """Start a BIRD here that announces this host's own host routes, instead of agent and ExaBGP; return it."""
        self.bird = Bird(self.folder, self.prefix, self.ground.environment())
        self.bird.configure(host_conf(self.session, self.router_id))
        self.bird.start()
        return self.bird

    # jails

    def grant(self, jail: str, addresses: Sequence[str]) -> None:
        """Write which addresses a jail holds (jails.d/NAME.toml)."""
        (self.jails_d / f"{jail}.toml").write_text(_toml("", {"addresses": list(addresses)}))

    def define_jail(
        self,
        jail: str,
        addresses: Sequence[str],
        *,
        start: str = "",
        stop: str = "",
        hooks: bool = True,
        vnet: bool = True,
        more: str = "",
    ) -> None:
        """Put a jail into this host's jail.conf, with our hooks, and grant it its addresses where there are any.

        `start` and `stop` are its exec.start and exec.stop, `more` is further jail.conf text for it.
        """
        if addresses:
            self.grant(jail, addresses)
        lines = ["path = /;", *["vnet;"] * vnet, "persist;", "allow.raw_sockets;", f"host.hostname = {_conf(jail)};"]
        if hooks:
            call = shlex.join([str(HOOK), "-c", str(self.config)])
            # in quotes, as `mobility hooks install` writes it
            name = shlex.quote(jail) if "'" in jail else f"'{jail}'"
            lines += [f"exec.{phase} += {_conf(f'{call} {phase} {name}')};" for phase in Phase]
        lines += [f"exec.start += {_conf(start)};"] * bool(start) + [f"exec.stop += {_conf(stop)};"] * bool(stop)
        self._jails[jail] = f"{_conf(jail)} {{\n" + "".join(f"  {line}\n" for line in [*lines, more]) + "}\n"
        self.jail_conf.write_text("".join(self._jails.values()))

    def define_no_jails(self) -> None:
        """Take every jail out of jail.conf, and out of jails.d."""
        self._jails.clear()
        self.jail_conf.unlink(missing_ok=True)
        for path in self.jails_d.iterdir():
            path.unlink()

    def start_jail(self, jail: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """`jail -f JAIL.CONF -c NAME`."""
        return self.run(["jail", "-f", self.jail_conf, "-c", jail], check=check)

    def stop_jail(self, jail: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """`jail -f JAIL.CONF -r NAME`."""
        return self.run(["jail", "-f", self.jail_conf, "-r", jail], check=check)

    def close(self) -> None:
        """End what still runs of the agent and ExaBGP, gently first."""
        for process in (self.agent, self.exabgp):
            if process is not None and process.running:
                process.process.terminate()
        if self.bird is not None:
            self.bird.close()


class Lab:
    """The whole: `hosts`, `spine`, `client`, on one `ground`. A context manager; everything is gone at its end.

    `kernel` names which FreeBSD the ground plays (ground.of_this_machine). `ipv4_links`: the links to the spine carry IPv4,
    too, as a kernel without IPv6 next hops for IPv4 needs it.
    """

    def __init__(
        self, hosts: int = 2, ground: Ground | None = None, *, kernel: str = "", ipv4_links: bool = False
    ) -> None:
        self.ground: Ground = grounds.of_this_machine(kernel) if ground is None else ground
        self.hosts: list[Host] = []
        try:
            self._build(hosts, ipv4_links=ipv4_links)
        except BaseException:
            self.ground.close()
            raise

    def _build(self, hosts: int, *, ipv4_links: bool) -> None:
        self.machine = Node(self.ground, "")
        names = [chr(ord("a") + index) if hosts <= 26 else f"h{index + 1}" for index in range(hosts)]
        self.hosts = [Host(self.ground, name, number) for number, name in enumerate(names, 1)]
        self._spine_node = Node(self.ground, "spine")
        self.client = Node(self.ground, "client")
        links = [(host.name, f"fd00:{host.number:x}::") for host in self.hosts] + [("client", "fd00:ffff::")]
        lines = [line for name in ("spine", "client", *names) for line in node_commands(name)]
        own = [("spine", f"{DUMMY_IPV4}/32"), ("client", f"{CLIENT_IPV4}/32"), ("client", f"{CLIENT_IPV6}/128")]
        own += [(host.name, f"{host.ipv4}/32") for host in self.hosts]
        for name, address in own:
            lines += [["jexec", name, "ifconfig", "lo0", "inet6" if ":" in address else "inet", address, "alias"]]
        next_hops = {name: f"{network}1" for name, network in links}
        for number, (name, network) in enumerate(links, 1):
            lines += link_commands(number, name, network)
            if ipv4_links:
                lines += _ipv4(number, name)
                next_hops[name] = f"198.18.{number}.1"
            gateway = f"198.18.{number}.2" if ipv4_links else f"{network}ff"
            lines += [
                route_command(name, "default", "", gateway, inet=True),
                route_command(name, "default", "", f"{network}ff"),
            ]
        lines += [
            route_command("spine", "-host", CLIENT_IPV4, next_hops["client"]),
            route_command("spine", "-host", CLIENT_IPV6, "fd00:ffff::1"),
            *(route_command("spine", "-host", host.ipv4, next_hops[host.name]) for host in self.hosts),
        ]
        self.machine.commands(lines)
        sessions = [host.session for host in self.hosts]
        node, environment = self._spine_node, self.ground.environment()
        self.spine = Spine(node.folder, node.prefix, environment, self.ground.fib("spine"), sessions)
        self.spine.start()

    def start(self, **sections: dict[str, Any]) -> None:
        """Configure every host with these sections, start its agent and ExaBGP, and wait for all sessions."""
        for host in self.hosts:
            host.configure(**sections)
            host.start_agent()
            host.start_exabgp()
        for host in self.hosts:
            self.await_session(host)

    def await_session(self, host: Host, *, up: bool = True) -> None:
        """Wait until the spine's session to a host is up (or down); what both sides said stands in the error."""
        try:
            self.spine.await_session(host.session.name, up=up)
        except AssertionError as error:
            raise AssertionError("\n".join([str(error), *self.logs(host)])) from error

    def logs(self, *hosts: Host) -> list[str]:
        """Return the ends of the logs of these hosts (of all, if none is named) and of BIRD."""
        processes = [process for host in hosts or self.hosts for process in (host.agent, host.exabgp) if process]
        return [process.tail() for process in (*processes, self.spine.process)]

    def close(self) -> None:
        """End everything."""
        try:
            for host in self.hosts:
                host.close()
            self.spine.close()
        finally:
            self.ground.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Exception):
            error.add_note("\n".join(self.logs()))
        self.close()


def node_commands(name: str) -> list[list[str]]:
    """A vnet jail of the machine that forwards (9-fabric.sh, `node`)."""
    parameters = ["path=/", "vnet", "persist", "allow.raw_sockets", f"children.max={JAILS_PER_HOST}"]
    return [
        ["jail", "-c", f"name={name}", "host.hostname=localhost", *parameters],
        ["jexec", name, "ifconfig", "lo0", "inet", "127.0.0.1/8", "up"],
        ["jexec", name, "sh", "-c", "sysctl net.inet.ip.forwarding=1 net.inet6.ip6.forwarding=1 >/dev/null"],
    ]


def link_commands(number: int, name: str, network: str, router: str = "spine") -> list[list[str]]:
    """A pair from a router ("to-NAME") to a node ("up-NAME"), IPv6 only: NETWORK1 is the node, NETWORKff the router."""
    lines = [
        ["sh", "-c", f"ifconfig epair{number} create >/dev/null"],
        ["sh", "-c", f"ifconfig epair{number}a name {shlex.quote(f'to-{name}')} >/dev/null"],
        ["sh", "-c", f"ifconfig epair{number}b name {shlex.quote(f'up-{name}')} >/dev/null"],
        ["ifconfig", f"to-{name}", "vnet", router],
        ["ifconfig", f"up-{name}", "vnet", name],
    ]
    for node, interface, end in ((router, f"to-{name}", "ff"), (name, f"up-{name}", "1")):
        inet6 = ["jexec", node, "ifconfig", interface, "inet6"]
        lines += [
            [*inet6, "-auto_linklocal", "no_dad"],
            [*inet6, f"fe80::{end}/64"],
            [*inet6, "-ifdisabled", "up"],
            [*inet6, f"{network}{end}/64", "alias"],
        ]
    return lines


def _ipv4(number: int, name: str) -> list[list[str]]:
    """IPv4 on a link, too (RFC 2544's network): 198.18.NUMBER.1 is the node, .2 the spine."""
    ends = (("spine", f"to-{name}", 2), (name, f"up-{name}", 1))
    return [["jexec", node, "ifconfig", end, "inet", f"198.18.{number}.{last}/30"] for node, end, last in ends]


def route_command(node: str, kind: str, destination: str, gateway: str, *, inet: bool = False) -> list[str]:
    """The command for a route in a node, an IPv4 one as a rule over an IPv6 next hop."""
    ipv4 = inet or "." in destination
    words = ["jexec", node, "sh", "-c"]
    where = f"{kind} {destination}".strip()
    family = "-inet6" if ipv4 and ":" in gateway else ""
    return [*words, f"route -n {'' if ipv4 else '-6'} add {where} {family} {gateway} >/dev/null"]


def _toml(header: str, values: dict[str, Any]) -> str:
    """A TOML table; JSON's strings, numbers, booleans and lists are TOML's too."""
    return "\n".join([header, *(f"{key} = {json.dumps(value)}" for key, value in values.items()), "", ""])


def _conf(text: str) -> str:
    """A single-quoted string of a jail.conf, in which nothing is replaced."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
