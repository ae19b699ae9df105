"""A host with two spines and no default route but its own: what a lost session, a cut link and a restart do to it.

Host and client have a link to each of two spines, each a BIRD; the host's jail answers the client through the host's
default routes, so a ping that comes back has gone out through one that works.
"""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Mapping
from string import Template
from typing import Any, Self

import pytest

from tests.lab import ground as grounds
from tests.lab.conformance import forms
from tests.lab.conformance.__main__ import recorded
from tests.lab.faults import KILLS, Faults, await_death, eventually, status_of_host
from tests.lab.spine import SPINE_AS, Bird
from tests.lab.topology import CLIENT_IPV4, CLIENT_IPV6, DUMMY_IPV4, FIRST_HOST_AS, Host, Node, node_commands
from tests.lab.watch import Process

IPV4, IPV6 = "198.51.100.7", "2001:db8:7::7"
PREFIXES = (f"{IPV4}/32", f"{IPV6}/128")
DEFAULTS = {4: "0.0.0.0/0", 6: "::/0"}
CLIENT_AS = 65100
#: Seconds: BIRD's least (doc/bird.html, "hold time"), so that a cut link is soon known.
HOLD_TIME = 3
QUICK = {"look_every": 1.0, "uplink_hold": 0.5, "settle_for": 3.0}

_BIRD = Template("""\
router id $router_id;
log stderr all;
protocol device { }
protocol kernel kernel4 { ipv4 { import none; export where source = RTS_BGP; }; }
protocol kernel kernel6 { ipv6 { import none; export where source = RTS_BGP; }; }
$more""")
_SESSION = Template("""\
protocol bgp $name {
  local $local as $local_as;
  neighbor $remote as $remote_as;
  hold time $hold;
  connect delay time 1;
  connect retry time 1;
  error wait time 1, 2;
  debug { states, events };
  ipv4 { extended next hop $extended; import all; export $export; };
  ipv6 { import all; export $export; };
}
""")
_OWN = f"""\
protocol static own4 {{ ipv4; route {CLIENT_IPV4}/32 blackhole; }}
protocol static own6 {{ ipv6; route {CLIENT_IPV6}/128 blackhole; }}
"""


class TwoSpines:
    """`host`, `client`, and `spines` "one" and "two", each with a link to both. A context manager."""

    def __init__(self, kernel: str = "", *, crossed: bool = True) -> None:
        """`crossed`: IPv4 goes over IPv6 next hops; else host and spines have IPv4 on their links, too."""
        self.ground = grounds.of_this_machine(kernel)
        self.crossed = crossed
        try:
            self._build()
        except BaseException:
            self.ground.close()
            raise

    def _build(self) -> None:
        self.machine = Node(self.ground, "")
        self.host = Host(self.ground, "a", 1)
        self.client = Node(self.ground, "client")
        self.spines = {name: Node(self.ground, name) for name in ("one", "two")}
        lines = [line for name in ("a", "client", *self.spines) for line in node_commands(name)]
        own = [("a", self.host.ipv4), ("client", CLIENT_IPV4), *((name, DUMMY_IPV4) for name in self.spines)]
        lines += [["jexec", name, "ifconfig", "lo0", "inet", f"{address}/32", "alias"] for name, address in own]
        lines += [["jexec", "client", "ifconfig", "lo0", "inet6", f"{CLIENT_IPV6}/128", "alias"]]
        for number, spine in enumerate(self.spines, 1):
            lines += _link(2 * number, spine, "a", f"fd00:{number}::", "" if self.crossed else f"198.18.{number}.")
            lines += _link(2 * number + 1, spine, "client", f"fd00:c{number}::", "")
        self.machine.commands(lines)
        self.birds = {name: self._bird(node) for name, node in (*self.spines.items(), ("client", self.client))}
        for number, name in enumerate(self.spines, 1):
            host = {"name": "to_host", "local": f"fd00:{number}::ff", "remote": f"fd00:{number}::1", "export": "none"}
            client = {
                "name": "to_client",
                "local": f"fd00:c{number}::ff",
                "remote": f"fd00:c{number}::1",
                "export": "all",
            }
            more = self._session(host, FIRST_HOST_AS, extended=self.crossed) + self._session(client, CLIENT_AS)
            self.birds[name].configure(_BIRD.substitute(router_id=f"10.255.0.{number}", more=more))
        sessions = "".join(
            _SESSION.substitute(
                name=f"to_{name}",
                local=f"fd00:c{number}::1",
                local_as=CLIENT_AS,
                remote=f"fd00:c{number}::ff",
                remote_as=SPINE_AS,
                hold=HOLD_TIME,
                extended="on",
                export="where source = RTS_STATIC",
            )
            for number, name in enumerate(self.spines, 1)
        )
        self.birds["client"].configure(_BIRD.substitute(router_id="10.255.1.1", more=_OWN + sessions))
        for bird in self.birds.values():
            bird.start()
        self.fib = self.ground.fib("a")

    def _bird(self, node: Node) -> Bird:
        return Bird(node.folder, node.prefix, self.ground.environment())

    def _session(self, values: Mapping[str, str], remote_as: int, *, extended: bool = True) -> str:
        more = {"local_as": SPINE_AS, "remote_as": remote_as, "hold": HOLD_TIME}
        return _SESSION.substitute(values, extended="on" if extended else "off", **more)

    def configure(self, **sections: Any) -> None:
        """Write the host's configuration: both spines are its uplinks."""
        agent = QUICK | sections.pop("agent", {})
        peers = []
        for number, name in enumerate(self.spines, 1):
            peer = {
                "name": name,
                "address": f"fd00:{number}::ff",
                "as": SPINE_AS,
                "local_address": f"fd00:{number}::1",
                "hold_time": HOLD_TIME,
                "uplink": True,
            }
            if not self.crossed:
                peer |= {"next_hop_ipv4": f"198.18.{number}.1", "uplink_ipv4": f"198.18.{number}.2"}
            peers.append(peer)
        self.host.configure(peers=peers, agent=agent, **sections)

    def start(self, **sections: Any) -> None:
        """Start the host, its jail, and wait for both sessions."""
        self.configure(**sections)
        self.host.start_agent()
        self.host.start_exabgp()
        self.await_sessions(*self.spines)
        self.host.define_jail("web1", PREFIXES)
        self.host.start_jail("web1")

    def await_sessions(self, *names: str) -> None:
        for name in names:
            self.birds[name].await_session("to_host")

    # what is so

    def gateway(self, spine: str, version: int = 6) -> str:
        """Return the gateway by which the host should reach a spine."""
        number = list(self.spines).index(spine) + 1
        return f"fd00:{number}::ff" if version == 6 or self.crossed else f"198.18.{number}.2"

    def through(self, version: int, *spines: str) -> None:
        """Wait until the default route of a family goes through exactly these spines."""
        wanted = {self.gateway(spine, version) for spine in spines}
        prefix = DEFAULTS[version]
        self.fib.wait_for(lambda: self.fib.routes().get(prefix, set()) == wanted, f"{prefix} through {wanted}", 20.0)

    def flows(self) -> None:
        """Wait until the jail answers the client, with both families."""
        for source, address in ((CLIENT_IPV4, IPV4), (CLIENT_IPV6, IPV6)):
            eventually(lambda: self.answers(source, address), f"{address} answers the client", self.host)  # noqa: B023

    def answers(self, source: str, address: str) -> bool:
        """Tell whether the jail answers the client's own address, to which each spine has a way."""
        family = ["-6"] if ":" in address else []
        result = self.client.run(["ping", *family, "-n", "-c", "1", "-t", "2", "-S", source, address], check=False)
        return result.returncode == 0

    def defaults(self) -> list[tuple[str, str, bool]]:
        """Return the default routes as `status` tells them: family, gateway, whether they are ours."""
        told = status_of_host(self.host)["uplinks"]["routes"]
        return sorted((each["family"], each["gateway"], each["ours"]) for each in told)

    def ran(self) -> list[str]:
        """Return what the agent has run about default routes, by its log."""
        return re.findall(r'ran argv="(route -n [^"]*default[^"]*)"', (self.host.folder / "agent.log").read_text())

    def cut(self, spine: str, *, cut: bool = True) -> None:
        """Take a spine's links down, or up again: nobody on the other end is told."""
        for link in ("a", "client"):
            self.spines[spine].run(["ifconfig", f"{spine}-{link}", "down" if cut else "up"])

    def close(self) -> None:
        try:
            self.host.close()
            for bird in self.birds.values():
                bird.close()
            self.fib.close()
        finally:
            self.ground.close()

    def logs(self) -> list[str]:
        processes = [self.host.agent, self.host.exabgp, *(bird._process for bird in self.birds.values())]
        return [process.tail() for process in processes if isinstance(process, Process)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, Exception):
            error.add_note("\n".join(self.logs()))
        self.close()


def _link(number: int, spine: str, node: str, network: str, ipv4: str) -> list[list[str]]:
    """A pair, "SPINE-NODE" at the spine and "NODE-SPINE" at the node: NETWORKff and NETWORK1, or IPV4.2 and IPV4.1."""
    ends = ((spine, f"{spine}-{node}", "a", "ff", 2), (node, f"{node}-{spine}", "b", "1", 1))
    lines = [["sh", "-c", f"ifconfig epair{number} create >/dev/null"]]
    for place, name, end, last, last4 in ends:
        inet6 = ["jexec", place, "ifconfig", name, "inet6"]
        lines += [
            ["sh", "-c", f"ifconfig epair{number}{end} name {name} >/dev/null"],
            ["ifconfig", name, "vnet", place],
            [*inet6, "-auto_linklocal", "no_dad"],
            [*inet6, f"fe80::{last}/64"],
            [*inet6, "-ifdisabled", "up"],
            [*inet6, f"{network}{last}/64", "alias"],
            *([["jexec", place, "ifconfig", name, "inet", f"{ipv4}{last4}/30"]] if ipv4 else []),
        ]
    return lines


@pytest.mark.parametrize(
    ("kernel", "options", "grouped"),
    [
        ("", {}, {4: False, 6: True}),
        ("14", {}, {4: True, 6: True}),
        ("no-rfc5549", {"crossed": False}, {4: True, 6: True}),
    ],
    ids=["13.2", "14", "no-rfc5549"],
)
def test_a_session_that_ends_moves_the_default_and_the_last_one_stays(
    kernel: str, options: dict[str, bool], grouped: dict[int, bool]
) -> None:
    with TwoSpines(kernel, **options) as lab:
        lab.start()
        for version, both in grouped.items():
            lab.through(version, "one", *["two"] * both)
        lab.flows()
        said = lab.host.mobility("status").stdout
        assert f"IPv6 default route: {lab.gateway('one')}, {lab.gateway('two')}\n" in said
        said = lab.host.mobility("doctor", check=False).stdout
        assert "ok    uplinks: each has a session: one, two\n" in said
        assert "WARN  uplinks" not in said

        lab.birds["one"].stop(signal.SIGKILL)
        for version in grouped:
            lab.through(version, "two")
        lab.flows()

        lab.birds["two"].stop(signal.SIGKILL)
        eventually(lambda: "no uplink has a session" in str(status_of_host(lab.host)["problems"]), "told", lab.host)
        for version in grouped:
            lab.through(version, "two")

        lab.birds["one"].start()
        lab.await_sessions("one")
        for version in grouped:
            lab.through(version, "one")
        lab.flows()
        lab.birds["two"].start()
        lab.await_sessions("two")
        for version, both in grouped.items():
            lab.through(version, "one", *["two"] * both)
        lab.flows()
        assert not status_of_host(lab.host)["problems"]
        known = {forms.shape(forms.words_of(answer.head)) for answer in recorded()}
        assert [line for line in lab.ran() if forms.shape(forms.words_of(line)) not in known] == []


def test_a_cut_link() -> None:
    with TwoSpines() as lab:
        lab.start()
        lab.through(6, "one", "two")
        lab.cut("one")
        for version in (4, 6):
            lab.through(version, "two")
        lab.flows()
        lab.cut("one", cut=False)
        lab.await_sessions("one")
        lab.through(6, "one", "two")
        lab.through(4, "one")
        lab.flows()


def test_without_multipath_one_way_is_moved_and_there_is_always_one() -> None:
    with TwoSpines() as lab:
        lab.host.run(["sysctl", "net.route.multipath=0"])
        lab.start()
        for version in (4, 6):
            lab.through(version, "one")
        lab.fib.changes.clear()
        before = len(lab.ran())
        lab.birds["one"].birdc("disable to_host")
        for version in (4, 6):
            lab.through(version, "two")
        lab.flows()
        lab.birds["one"].birdc("enable to_host")
        for version in (4, 6):
            lab.through(version, "one")
        lab.flows()
        assert not [change for change in lab.fib.changes if change.gone and change.prefix == DEFAULTS[4]]
        ran = lab.ran()[before:]
        assert [line for line in ran if " delete " in line] == []
        assert len([line for line in ran if " change " in line]) == 4
        # switched on while it runs
        lab.host.run(["sysctl", "net.route.multipath=1"])
        lab.through(6, "one", "two")
        lab.host.run(["sysctl", "net.route.multipath=0"])
        lab.through(6, "one")
        lab.flows()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["stop", "kill"])
def test_a_restart_of_the_agent_changes_nothing(number: int) -> None:
    with TwoSpines() as lab:
        lab.start()
        lab.through(6, "one", "two")
        lab.through(4, "one")
        lab.fib.changes.clear()
        lab.host.stop_agent(number)
        lab.host.start_agent()
        eventually(lambda: all(each[2] for each in lab.defaults()), "all are ours", lab.host)
        eventually(lambda: "unheard" not in str(status_of_host(lab.host)["uplinks"]), "sessions are known", lab.host)
        assert len(lab.defaults()) == 3
        lab.fib.routes()
        assert not [change for change in lab.fib.changes if change.prefix in DEFAULTS.values()]
        # and what the one before has made is kept on by this one
        lab.birds["two"].stop(signal.SIGKILL)
        lab.through(6, "one")
        lab.birds["one"].stop(signal.SIGKILL)
        lab.birds["two"].start()
        lab.through(6, "two")
        lab.through(4, "two")


@pytest.mark.parametrize("how", KILLS)
def test_a_route_that_a_killed_agent_has_made_is_the_next_ones(how: str) -> None:
    with TwoSpines() as lab:
        faults = Faults(lab.host)
        lab.configure(paths={"commands": faults.commands})
        faults.rule(f'case $line in "route -n -6 add default "*) disarm; {KILLS[how]} ;; esac')
        lab.host.start_agent()
        lab.host.start_exabgp()
        await_death(lab.host)
        lab.host.start_agent()
        lab.through(6, "one", "two")
        lab.through(4, "one")
        eventually(lambda: all(ours for _, _, ours in lab.defaults()), "all are ours", lab.host)
        assert not status_of_host(lab.host)["problems"]


def test_a_command_that_hangs_and_one_that_fails() -> None:
    with TwoSpines() as lab:
        faults = Faults(lab.host)
        lab.start(paths={"commands": faults.commands}, agent={"command_timeout": 1.0})
        lab.through(6, "one", "two")
        faults.hang("route -n -6 delete default *")
        lab.birds["one"].stop(signal.SIGKILL)
        eventually(lambda: "no answer within 1 s" in str(status_of_host(lab.host)["problems"]), "told", lab.host)
        faults.release()
        lab.through(6, "two")
        lab.through(4, "two")
        lab.flows()
        faults.fail("route -n -6 add default *", "route: writing to routing socket: Cannot allocate memory", times=1)
        lab.birds["one"].start()
        lab.through(6, "one", "two")
        eventually(lambda: not status_of_host(lab.host)["problems"], "nothing left to tell", lab.host)


def test_a_session_that_flaps_is_used_when_it_has_stood_for_a_while() -> None:
    with TwoSpines() as lab:
        lab.start(agent={"uplink_hold": 3600.0})
        lab.flows()
        # whichever came first has it, the other waits
        stands, flaps = lab.spines if lab.fib.has(DEFAULTS[6], lab.gateway("one")) else reversed(lab.spines)
        lab.through(6, stands)
        lab.fib.changes.clear()
        for _ in range(5):
            lab.birds[flaps].birdc("restart to_host")
            lab.await_sessions(flaps)
        lab.fib.routes()
        assert not [change for change in lab.fib.changes if change.prefix in DEFAULTS.values()]
        # the one that stands ends: the other does not wait any longer
        lab.birds[stands].birdc("disable to_host")
        for version in (4, 6):
            lab.through(version, flaps)
        lab.flows()


def test_without_exabgp_they_stand() -> None:
    with TwoSpines() as lab:
        lab.start()
        lab.through(6, "one", "two")
        lab.through(4, "one")
        lab.fib.changes.clear()
        lab.host.stop_exabgp(signal.SIGKILL)
        eventually(lambda: not status_of_host(lab.host)["bridge"], "the bridge is gone", lab.host)
        lab.host.start_exabgp()
        lab.await_sessions("one", "two")
        lab.flows()
        assert not [change for change in lab.fib.changes if change.prefix in DEFAULTS.values()]


def test_default_routes_of_others_are_left_alone_and_told() -> None:
    with TwoSpines() as lab:
        lab.host.run(["route", "-n", "-6", "add", "default", "fe80::ff%a-two"])
        lab.host.run(["route", "-n", "add", "default", "-inet6", lab.gateway("two")])
        lab.start()
        # IPv6: it leads past the gateways of the uplinks, and none is added beside it
        eventually(lambda: "leads past the uplinks" in str(status_of_host(lab.host)["problems"]), "told", lab.host)
        # IPv4: through the gateway of one of them; this kernel takes no other beside it
        lab.birds["two"].stop(signal.SIGKILL)
        eventually(lambda: "is not ours and stays" in str(status_of_host(lab.host)["problems"]), "told", lab.host)
        assert [(family, ours) for family, _, ours in lab.defaults()] == [("IPv4", False), ("IPv6", False)]
        said = lab.host.mobility("doctor", check=False).stdout
        assert "sysrc -x ipv6_defaultrouter; route -n -6 delete default fe80::ff%a-two" in said
        assert "is not mobility's" in said
        lab.host.run(["route", "-n", "-6", "delete", "default", "fe80::ff%a-two"])
        lab.host.run(["route", "-n", "delete", "default"])
        lab.through(6, "one")
        lab.through(4, "one")
        lab.flows()
        eventually(lambda: not status_of_host(lab.host)["problems"], "nothing left to tell", lab.host)


def test_a_gateway_on_no_network_is_told_and_the_other_serves() -> None:
    with TwoSpines() as lab:
        lab.configure()
        lab.host.peers[0]["uplink_ipv6"] = "fd00:99::1"
        lab.host.configure(agent=QUICK)
        lab.host.start_agent()
        lab.host.start_exabgp()
        lab.await_sessions("one", "two")
        lab.through(6, "two")
        lab.through(4, "two")
        eventually(lambda: "on no network of this host" in str(status_of_host(lab.host)["problems"]), "told", lab.host)
        assert "Network is unreachable" in json.dumps(status_of_host(lab.host)["problems"])


def test_link_local_gateways() -> None:
    with TwoSpines() as lab:
        lab.configure()
        for peer, name in zip(lab.host.peers, lab.spines, strict=True):
            peer["uplink_ipv6"] = f"fe80::ff%a-{name}"
        lab.host.configure(agent=QUICK)
        lab.host.start_agent()
        lab.host.start_exabgp()
        lab.await_sessions("one", "two")
        lab.host.define_jail("web1", PREFIXES)
        lab.host.start_jail("web1")
        eventually(
            lambda: {each[1] for each in lab.defaults()} == {"fe80::ff%a-one", "fe80::ff%a-two"}, "both", lab.host
        )
        lab.flows()
        lab.birds["one"].stop(signal.SIGKILL)
        eventually(lambda: {each[1] for each in lab.defaults()} == {"fe80::ff%a-two"}, "the other", lab.host)
        lab.flows()
