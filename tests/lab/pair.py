"""A pair of gateways: two lab hosts with CARP addresses on one LAN, a server behind them, the spine and a client before them.

    client - spine - a - lan0 ---.
                 \\   sync0 -.    switch - server (its gateways are the CARP addresses)
                  \\  sync0 -'   |
                   - b - lan0 --'

Both gateways forward only what their packet filter has a state for, or what begins one (pf.conf of deploy/freebsd/failover).
On Linux nftables plays that, and Debian's conntrackd plays pfsync where states matter: Linux' kernel has no pfsync of its own.
What `ifconfig pfsync0` says is the lab kernel's matter.
"""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import shutil
import signal
import socket
import subprocess
import threading
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

from tests.lab.ground import SYSTEM_PYTHON, linux_only
from tests.lab.kernel.client import Kernel
from tests.lab.spine import SPINE_ROUTER_ID, conf
from tests.lab.topology import REPOSITORY, Host, Lab, Node, link_commands, node_commands, route_command
from tests.lab.watch import NotInTime, Process
from tests.waiting import until

FLOW = REPOSITORY / "tests" / "lab" / "flow.py"
#: The LAN, within what the lab's hosts may announce; the addresses that move, and the server's.
LAN4, LAN6 = "198.51.100.32/28", "2001:db8:7:0:1a::/80"
LANS = (LAN4, LAN6)
CARP4, CARP6 = "198.51.100.33", "2001:db8:7:0:1a::1"
SERVER4, SERVER6 = "198.51.100.36", "2001:db8:7:0:1a::24"
SERVERS = (SERVER4, SERVER6)
LAN, SYNC, PEER_GROUP = "lan0", "sync0", "ff12::f0"
#: The switch's: what is on the LAN, and what stands for the cable between the two.
BRIDGES = {LAN: "bridge0", SYNC: "bridge1"}
VHID4, VHID6 = f"1@{LAN}", f"2@{LAN}"
VHIDS = (VHID4, VHID6)
#: The second node's advskew, in 1/256 s: the first one is preferred (carp(4), EXAMPLES).
ADVSKEWS = (0, 100)
#: Seconds: BIRD's least, so that a cable that is pulled at the spine is soon known.
HOLD_TIME = 3
#: [failover.NAME], so that a test need not wait long: seconds.
QUICK = {"hold": 0.5, "hold_down": 1.0, "sync_within": 3.0, "hand_over_within": 5.0}
#: Numbers of the epairs that the lab does not take itself (topology.link_commands counts from 1).
FIRST_EPAIR = 90
CONNTRACKD, CONNTRACK, NFT = "/usr/sbin/conntrackd", "/usr/sbin/conntrack", "/usr/sbin/nft"
#: As devd writes it (6-carp.txt).
_EVENT = re.compile(r"^!system=CARP subsystem=(\S+) type=(\w+)", re.MULTILINE)
#: Three advertisements and a bit, twice (carp(4)), on a machine that is busy.
STATE_SECONDS = 20.0
GOING_SECONDS = 20.0
#: TCP tries again after 200 ms, 400 ms and so on, up to minutes: what stood still for 4 s moves again after 8.
MOVE_SECONDS = 30.0
END_SECONDS = 10.0

_CONNTRACKD = Template("""\
Sync {
  Mode FTFW { DisableExternalCache yes StartupResync yes }
  UDP {
    IPv6_address $own
    IPv6_Destination_Address $other
    Port 3780
    Interface $interface
    Checksum yes
  }
  Options { TCPWindowTracking no }
}
General {
  HashSize 1024
  HashLimit 4096
  LogFile off
  Syslog off
  LockFile $folder/conntrackd.lock
  UNIX { Path $folder/conntrackd.ctl }
  NetlinkBufferSize 2097152
  NetlinkBufferSizeMaxGrowth 8388608
  Filter From Kernelspace { Protocol Accept { TCP UDP } }
}
""")
#: As pf.conf of deploy/freebsd/failover: a state, or what may begin one. `tcp_loose` off: no state from the middle of one.
_FILTER = """\
table inet pair {
  chain forward {
    type filter hook forward priority filter; policy drop;
    ct state established,related accept
    tcp flags & (syn | ack) == syn ct state new accept
    meta l4proto { udp, icmp, ipv6-icmp } accept
  }
}
"""
#: As it says first that there is such a table, there is one to delete.
_NO_FILTER = "table inet pair\ndelete table inet pair\n"


class Traffic:
    """One client's download or probe, from the moment on at which something came back."""

    def __init__(self, node: Node, *arguments: str) -> None:
        self._process = node.popen(
            [SYSTEM_PYTHON, FLOW, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._said: list[str] = []
        self._going, self._moved, self._ended = threading.Event(), threading.Event(), threading.Event()
        threading.Thread(target=self._read, daemon=True).start()
        if not self._going.wait(GOING_SECONDS) or self._ended.is_set():
            self.close()
            raise NotInTime(f"{node.name}: {arguments}: nothing came back in {GOING_SECONDS:g} s: {self._said}")

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._said.append(line)
            if line == "going\n":
                self._going.set()
            if line == "moved\n":
                self._moved.set()
        self._ended.set()
        self._going.set()
        self._moved.set()

    def ask(self) -> None:
        """Have a download say when anything more has come from now on."""
        assert self._process.stdin is not None
        self._moved.clear()
        self._process.stdin.write("?\n")
        self._process.stdin.flush()

    @property
    def moved(self) -> bool:
        """Whether anything more has come since it was asked."""
        return self._moved.is_set() and not self._ended.is_set()

    def goes_on(self, seconds: float = MOVE_SECONDS) -> None:
        """Wait until more has come of a download than so far."""
        self.ask()
        self._moved.wait(seconds)
        if not self.moved:
            raise NotInTime(f"nothing more came of {self._process.args!r} within {seconds:g} s: {self._said}")

    def end(self) -> dict[str, Any]:
        """End it; return what it counted."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        return self.result()

    def result(self, seconds: float = END_SECONDS) -> dict[str, Any]:
        """Wait until it has ended; return what it counted."""
        if not self._ended.wait(seconds):
            self.close()
            raise NotInTime(f"{self._process.args!r} did not end within {seconds:g} s: {self._said}")
        self._process.wait()
        found: dict[str, Any] = json.loads(self._said[-1])
        return found

    def close(self) -> None:
        """Kill it."""
        self._process.kill()
        self._process.wait()


class CarpNews:
    """What devd tells of CARP on one gateway, each with the monotonic time at which it was read."""

    def __init__(self, path: Path) -> None:
        self.events: list[tuple[float, str, str]] = []
        self._news = threading.Condition()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.connect(str(path))
        self._callbacks: list[Callable[[str, str], None]] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                data = self._socket.recv(8192)
            except OSError:
                return
            now = time.monotonic()
            if not data:
                return
            for found in _EVENT.finditer(data.decode()):
                with self._news:
                    self.events.append((now, found[1], found[2]))
                    self._news.notify_all()
                for callback in self._callbacks:
                    callback(found[1], found[2])

    def call(self, callback: Callable[[str, str], None]) -> None:
        """Have this called with vhid and state of each that comes."""
        self._callbacks.append(callback)

    def wait(self, check: Callable[[], bool], what: str, timeout: float = STATE_SECONDS) -> None:
        """Wait until `check` holds, looking again at each event."""
        deadline = time.monotonic() + timeout
        while True:
            seen = len(self.events)
            if check():
                return
            left = deadline - time.monotonic()
            if left <= 0:
                raise NotInTime(f"no {what} within {timeout:g} s; devd told {self.events}")
            with self._news:
                self._news.wait_for(lambda: len(self.events) != seen, left)  # noqa: B023

    def last(self, state: str) -> float:
        """Return when a vhid last came into this state."""
        return max(when for when, _, each in self.events if each == state)

    def close(self) -> None:
        """Stop listening."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


class Pair(Lab):
    """Two gateways, a server behind them, a spine and a client before them. A context manager.

    `kernel` names which FreeBSD it is: 13.2's pfsync has IPv4 peers only, from 14 on the link between the two is IPv6 only.
    `advskews` are the gateways', in 1/256 s. `pace` is how many seconds CARP and pfsync count in one.
    """

    def __init__(self, kernel: str = "", *, advskews: Sequence[int] = ADVSKEWS, pace: float = 1.0) -> None:
        self._advskews = advskews
        self._ipv6_peer = kernel not in ("", "13.2")
        self.conntrackd: dict[str, Process] = {}
        self._traffic: list[Traffic] = []
        self.news: dict[str, CarpNews] = {}
        super().__init__(2, kernel=kernel)
        if pace != 1.0:
            self.kernel.pace(pace)

    def _build(self, hosts: int, *, ipv4_links: bool) -> None:
        assert not ipv4_links, "its links to the spine carry IPv6 only"
        super()._build(hosts, ipv4_links=False)
        self.switch, self.server = Node(self.ground, "switch"), Node(self.ground, "server")
        lines = [*node_commands("switch"), *node_commands("server")]
        for bridge in BRIDGES.values():
            lines += [["jexec", "switch", "ifconfig", bridge, "create"], ["jexec", "switch", "ifconfig", bridge, "up"]]
        lines += _port(FIRST_EPAIR, "server", LAN)
        lines += _addresses("server", LAN, {4: SERVER4, 6: SERVER6})
        lines += [
            route_command("server", "default", "", CARP4, inet=True),
            route_command("server", "default", "", CARP6),
        ]
        for host in self.hosts:
            lines += self._inside(host)
        self.machine.commands(lines)
        # each is told of the other's path
        self.spine.configure(conf(self.spine.sessions, SPINE_ROUTER_ID, export="all"))
        self.serving = self.server.service("server", [SYSTEM_PYTHON, FLOW, "serve"])
        self.serving.await_(lambda: "ready" in self.serving.tail(), "listen", GOING_SECONDS)

    def _inside(self, host: Host) -> list[list[str]]:
        """Its cables to the LAN and to the other gateway, and its own addresses there."""
        number = FIRST_EPAIR + 2 * host.number
        lines = [*_port(number, host.name, LAN), *_addresses(host.name, LAN, lan_addresses(host))]
        return [*lines, *_port(number + 1, host.name, SYNC), *self._sync_addresses(host)]

    def _sync_addresses(self, host: Host) -> list[list[str]]:
        inside = ["jexec", host.name, "ifconfig", SYNC]
        lines = [
            [*inside, "inet6", "-auto_linklocal", "no_dad"],
            [*inside, "inet6", f"{sync_address(host)}/64"],
            [*inside, "inet6", "-ifdisabled", "up"],
        ]
        return lines if self._ipv6_peer else [*lines, [*inside, "inet", f"198.18.255.{host.number}/30"]]

    @property
    def kernel(self) -> Kernel:
        """The lab kernel, for what no command does: cables, devd, pfsync that does not complete."""
        linux_only("it is the lab's own kernel")
        return Kernel(self.ground.folder)

    # CARP and pfsync

    def carp(self, *hosts: Host, preempt: bool = True) -> None:
        """Give these gateways (both) their CARP addresses, in the commands of 6-carp.sh."""
        for host in hosts or self.hosts:
            words = ["advskew", str(self._advskews[host.number - 1]), "pass", "secret", "alias"]
            host.commands(
                [
                    ["sysctl", f"net.inet.carp.preempt={int(preempt)}"],
                    ["ifconfig", LAN, "vhid", "1", *words, f"{CARP4}/32"],
                    ["ifconfig", LAN, "inet6", "vhid", "2", *words, f"{CARP6}/80"],
                ]
            )

    def carp_states(self, host: Host) -> dict[str, str]:
        """Return the states of a gateway's vhids, as ifconfig shows them."""
        text = host.run(["ifconfig", LAN], check=False).stdout
        return {f"{number}@{LAN}": state for state, number in re.findall(r"carp: (\w+) vhid (\d+) ", text)}

    def listen(self, host: Host) -> CarpNews:
        """Return what devd tells on a gateway from now on, or from when this was first asked."""
        if host.name not in self.news:
            self.news[host.name] = CarpNews(self.kernel.devd(host.name))
        return self.news[host.name]

    def deafen(self, host: Host) -> None:
        """Listen no more."""
        if (news := self.news.pop(host.name, None)) is not None:
            news.close()

    def await_state(self, host: Host, state: str, timeout: float = STATE_SECONDS) -> None:
        """Wait until both vhids of a gateway are MASTER, BACKUP or INIT."""
        wanted = dict.fromkeys(VHIDS, state)
        self.listen(host).wait(lambda: self.carp_states(host) == wanted, f"{state} on {host.name}", timeout)

    def demotion(self, host: Host) -> int:
        """Return a gateway's net.inet.carp.demotion."""
        return int(host.run(["sysctl", "-n", "net.inet.carp.demotion"]).stdout)

    def pfsync(self, *hosts: Host) -> None:
        """Switch pfsync on between the two, as deploy/freebsd/failover/rc.conf has it, or as 13.2 can."""
        for host in hosts or self.hosts:
            peer = PEER_GROUP if self._ipv6_peer else f"198.18.255.{3 - host.number}"
            host.commands([["ifconfig", "pfsync0", "syncdev", SYNC, "syncpeer", peer, "up"]])

    # mobility

    def start_failover(self, *hosts: Host, by_family: bool = False, **failover: Any) -> None:
        """Start agent and ExaBGP on these gateways (both), and wait for their sessions: see `start_agents`.

        A gateway that has booted is demoted until it has had them for the hold-down: waited for, too.
        """
        self.start_agents(*hosts, by_family=by_family, **failover)
        for host in hosts or self.hosts:
            host.start_exabgp()
        for host in hosts or self.hosts:
            self.await_session(host)
        for host in hosts or self.hosts:
            until(lambda: not _wanted_demotion(host), f"end of {host.name}'s demotion")  # noqa: B023

    def start_agents(self, *hosts: Host, by_family: bool = False, **failover: Any) -> None:
        """Configure these gateways (both), and start their agents.

        `by_family`: the LAN's prefix of a family follows its vhid, else both follow both. `failover` are further settings.
        """
        groups = {"lan4": (VHIDS[:1], LANS[:1]), "lan6": (VHIDS[1:], LANS[1:])} if by_family else {"lan": (VHIDS, LANS)}
        sections: dict[str, dict[str, Any]] = {"agent": {"look_every": 1.0, "settle_for": 3.0, "drain_for": 0.2}}
        for name, (vhids, prefixes) in groups.items():
            group = {"vhids": list(vhids), "services": list(prefixes)}
            sections[f"failover.{name}"] = group | QUICK | failover
        for host in hosts or self.hosts:
            host.configure(
                peers=[host.peers[0] | {"hold_time": HOLD_TIME}],
                paths={**_paths(host), "devd": str(self.kernel.devd(host.name))},
                **sections,
            )
            host.start_agent()

    def leads_to(self, host: Host, timeout: float = STATE_SECONDS) -> None:
        """Wait until the spine sends the LAN's packets to this gateway, and to no other."""
        wanted = {host.address}
        self.spine.fib.wait_for(
            lambda: all(self.spine.fib.routes().get(prefix) == wanted for prefix in LANS),
            f"way to the LAN by {host.name} alone",
            timeout,
        )

    # what happens to it

    def crash(self, host: Host, *, silent: bool = False) -> None:
        """Take a gateway's power away: its cables first, as those at their other ends see it, then all that ran on it.

        `silent`: the spine's end of its cable stays up, as where a switch is between the two.
        """
        # the spine's end stays until it is made anew: Linux does not tell of the IPv4 routes that go with an interface
        lines = [] if silent else [["jexec", "spine", "ifconfig", f"to-{host.name}", "down"]]
        if silent:
            # as the lab's kernel pulls a cable: frames are dropped, and the other end keeps its carrier
            self.kernel.link_state(host.name, f"up-{host.name}", up=False)
        lines += [["jexec", "switch", "ifconfig", f"{name}-{host.name}", "destroy"] for name in (LAN, SYNC)]
        self.machine.commands([*lines, ["jail", "-R", host.name]])
        for process in (host.agent, host.exabgp, self.conntrackd.pop(host.name, None)):
            if process is not None:
                process.process.wait(END_SECONDS)
        host.agent = host.exabgp = None
        host.forget()
        self.deafen(host)

    def boot(self, host: Host) -> None:
        """Give it its power again, and the network that rc would: no CARP, no pfsync, no agent yet."""
        for folder in (host.run_folder, host.folder / "spool"):
            shutil.rmtree(folder, ignore_errors=True)
        lines = [["jexec", "spine", "ifconfig", f"to-{host.name}", "destroy"], *node_commands(host.name)]
        lines += link_commands(host.number, host.name, host.address.removesuffix("1"))
        lines += [
            ["jexec", host.name, "ifconfig", "lo0", "inet", f"{host.ipv4}/32", "alias"],
            route_command(host.name, "default", "", host.spine_address, inet=True),
            route_command(host.name, "default", "", host.spine_address),
            route_command("spine", "-host", host.ipv4, host.address),
        ]
        self.machine.commands([*lines, *self._inside(host)])

    def cut(self, host: Host, *, cut: bool = True) -> None:
        """Pull a gateway's cable to the LAN, or plug it in again: its carrier goes, or comes."""
        self.kernel.link_state(host.name, LAN, up=not cut)

    def split(self, host: Host, *, split: bool = True) -> None:
        """Cut the LAN in two, this gateway alone on its half, with its carrier; or join it again."""
        verb = "deletem" if split else "addm"
        self.machine.run(["jexec", "switch", "ifconfig", BRIDGES[LAN], verb, f"{LAN}-{host.name}"])

    # states

    def filter(self, *, synchronised: bool) -> None:
        """Have both forward by states only; `synchronised`: each tells the other its states, by conntrackd."""
        for host in self.hosts:
            self.filter_one(host, synchronised=synchronised)

    def filter_one(self, host: Host, *, synchronised: bool) -> None:
        """Have one gateway do so."""
        linux_only("on FreeBSD this is pf and pfsync")
        loose = "net.netfilter.nf_conntrack_tcp_loose"
        host.run(["/usr/sbin/sysctl", "-q", "-w", f"{loose}=0", "net.netfilter.nf_conntrack_tcp_be_liberal=1"])
        host.run([NFT, "-f", "-"], input=_FILTER)
        if synchronised:
            self.start_conntrackd(host)

    def start_conntrackd(self, host: Host) -> None:
        """Start it, which asks the other for all that it has, as a bulk update of pfsync does."""
        other = self.other(host)
        if other.name in self.conntrackd:
            # what it was told it does not tell on, unless it looks itself (primary-backup.sh among its examples)
            self._conntrackd(other, "-R")
        conf = host.folder / "conntrackd.conf"
        words = {"own": sync_address(host), "other": sync_address(other), "interface": SYNC, "folder": host.folder}
        conf.write_text(_CONNTRACKD.substitute(words))
        for left in ("conntrackd.lock", "conntrackd.ctl"):
            (host.folder / left).unlink(missing_ok=True)
        self.conntrackd[host.name] = host.service("conntrackd", [CONNTRACKD, "-C", str(conf)])
        until(lambda: self._conntrackd(host, "-s").returncode == 0, f"conntrackd on {host.name} answers")

    def _conntrackd(self, host: Host, option: str) -> subprocess.CompletedProcess[str]:
        return host.run([CONNTRACKD, "-C", host.folder / "conntrackd.conf", option], check=False)

    def await_states(self, host: Host, count: int) -> None:
        """Wait until a gateway has the states of so many downloads."""
        until(lambda: len(self.states(host)) >= count, f"{count} states on {host.name}")

    def states(self, host: Host, port: int = 80) -> list[str]:
        """Return the states of TCP connections to a port that a gateway holds."""
        found: list[str] = []
        for family in ("ipv4", "ipv6"):
            argv = [CONNTRACK, "-L", "-f", family, "-p", "tcp", "--dport", str(port)]
            found += host.run(argv).stdout.splitlines()
        return found

    # what is so

    def other(self, host: Host) -> Host:
        """Return the other gateway."""
        return self.hosts[2 - host.number]

    # traffic

    def download(self, address: str, port: int = 80) -> Traffic:
        """Have the client download without end."""
        return self._client("download", address, str(port))

    def probe(self, *addresses: str) -> Traffic:
        """Have the client send a datagram every millisecond to each address, and wait for its echo."""
        return self._client("probe", *addresses)

    def _client(self, *arguments: str) -> Traffic:
        self._traffic.append(Traffic(self.client, *arguments))
        return self._traffic[-1]

    def rest(self) -> None:
        """End all traffic, jails, filters and states; the next scenario begins as the first did."""
        for traffic in self._traffic:
            traffic.close()
        self._traffic.clear()
        for host in self.hosts:
            for jail in host.run(["jls", "name"]).stdout.split():
                host.stop_jail(jail)
            host.define_no_jails()
            if (process := self.conntrackd.pop(host.name, None)) is not None:
                process.end(signal.SIGTERM, END_SECONDS)
            host.run([NFT, "-f", "-"], input=_NO_FILTER)
            host.run([CONNTRACK, "-F"])
            host.commands([["sysctl", "net.inet.carp.preempt=1"]])

    def close(self) -> None:
        """End everything."""
        for traffic in self._traffic:
            traffic.close()
        for news in self.news.values():
            news.close()
        for process in (*self.conntrackd.values(), self.serving):
            if process.running:
                process.process.kill()
        super().close()


def _wanted_demotion(host: Host) -> int:
    """Return by how much the agent wants its gateway demoted, or has demoted it."""
    found: dict[str, int] = json.loads(host.mobility("status", "--json").stdout)["host"]["failover"]["demotion"]
    return found["wanted"] or found["ours"]


def lan_addresses(host: Host) -> dict[int, str]:
    """Return a gateway's own addresses on the LAN, by family."""
    return {4: f"198.51.100.{33 + host.number}", 6: f"2001:db8:7:0:1a::{1 + host.number:x}"}


def sync_address(host: Host) -> str:
    """Return a gateway's address on the link between the two."""
    return f"fe80::{host.number:x}"


def _paths(host: Host) -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads(host.config.read_text())["paths"]
    return found


def _port(number: int, node: str, name: str) -> list[list[str]]:
    """A pair from one of the switch's bridges (NAME-NODE) to a node (NAME)."""
    inside, port = ["jexec", "switch", "ifconfig"], f"{name}-{node}"
    return [
        ["sh", "-c", f"ifconfig epair{number} create >/dev/null"],
        ["sh", "-c", f"ifconfig epair{number}a name {shlex.quote(port)} >/dev/null"],
        ["ifconfig", port, "vnet", "switch"],
        ["ifconfig", f"epair{number}b", "vnet", node],
        ["jexec", node, "sh", "-c", f"ifconfig epair{number}b name {name} >/dev/null"],
        [*inside, BRIDGES[name], "addm", port],
        [*inside, port, "up"],
    ]


def _addresses(node: str, interface: str, addresses: Mapping[int, str]) -> list[list[str]]:
    inside = ["jexec", node, "ifconfig", interface]
    return [
        [*inside, "inet6", "no_dad"],
        [*inside, "inet6", "-ifdisabled", "up"],
        [*inside, "inet6", f"{addresses[6]}/{LAN6.partition('/')[2]}", "alias"],
        [*inside, "inet", f"{addresses[4]}/{LAN4.partition('/')[2]}", "alias"],
    ]
