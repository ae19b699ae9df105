"""Service prefixes in the lab: real packets to what a jail serves beyond its own addresses, and to what it does not use."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Iterator, Sequence

import pytest

from tests.lab.again import begin
from tests.lab.conformance import forms
from tests.lab.conformance.__main__ import recorded
from tests.lab.faults import KILLS, Faults, Log, await_clean, await_death, eventually, new_agent, remembered
from tests.lab.invariants import NAT64, await_rest, status
from tests.lab.topology import ALLOWED, Host, Lab

IPV4, IPV6 = "198.51.100.7", "2001:db8:7::7"
ADDRESSES = (IPV4, IPV6)
POOL, ANYCAST = "198.51.100.96/28", "198.51.100.80/32"
DELEGATED = "2001:db8:7:0:77::/80"
SERVICES = (NAT64, POOL, ANYCAST)
GW1 = {"gw1": (*ADDRESSES, *SERVICES)}
PREFIXES = (f"{IPV4}/32", f"{IPV6}/128", *SERVICES)
#: What gw1 itself holds of its services, and what of them nobody uses.
HELD6, HELD4, SINGLE = "64:ff9b::c633:6407", "198.51.100.97", "198.51.100.80"
USED, UNUSED = (HELD6, HELD4, SINGLE), ("64:ff9b::dead", "198.51.100.98")
#: A gateway forwards: without a reject it would send back what it does not hold.
START = [
    "sysctl net.inet.ip.forwarding=1 net.inet6.ip6.forwarding=1",
    f"ifconfig lo0 inet6 {HELD6}/128 alias",
    f"ifconfig lo0 inet {HELD4}/32 alias",
]
QUICK = {"look_every": 1.0, "reject_for": 0.5, "drain_for": 0.2, "settle_for": 3.0}
ALL = [*ALLOWED, NAT64]
#: More packets than one probe and its neighbour discovery cost; one that loops passes some thirty times.
LOOPED = 20
HOPS = 8
"""The jail is the third from the client; a way that goes on is a loop."""
PINGS = 60
_RAN = re.compile(r"\bran (?:jail=\S+ )?argv=(?:\"([^\"]*)\"|(\S+))")
_INTO = re.compile(r"^(\w+) -j gw1\b")


def serve(host: Host, addresses: Sequence[str], services: Sequence[str], *, jail: str = "gw1") -> None:
    """Write a jail's file."""
    values = {"addresses": list(addresses)} | ({"services": list(services)} if services else {})
    lines = [f"{key} = {json.dumps(value)}\n" for key, value in values.items()]
    draft = host.jails_d / f".{jail}"
    draft.write_text("".join(lines))
    draft.rename(host.jails_d / f"{jail}.toml")


def define(host: Host, *first: str, more: str = "") -> None:
    """Put gw1 into a host's jail.conf, and its file into jails.d; `first` is what its start does before all else."""
    host.define_jail("gw1", [], start=" && ".join([*first, *START]), more=more)
    serve(host, ADDRESSES, SERVICES)


@pytest.fixture
def ready(one: Lab) -> Lab:
    """One host up, and gw1 known to it."""
    begin(one, agent=QUICK, host={"allowed": ALL})
    define(one.hosts[0])
    return one


@pytest.fixture
def pair(lab: Lab) -> Lab:
    """Two hosts up, and gw1 known to both."""
    lab.start(agent=QUICK, host={"allowed": ALL})
    for host in lab.hosts:
        define(host)
    return lab


def announced(lab: Lab, host: Host, prefixes: Sequence[str] = PREFIXES) -> None:
    for prefix in prefixes:
        lab.spine.fib.wait(prefix, via=host.address)


def way(lab: Lab, address: str) -> list[str]:
    """Return who answers on the way from the client to an address, the last one with the mark of an ICMP error."""
    program = "traceroute6" if ":" in address else "traceroute"
    argv = [program, "-n", "-q", "1", "-w", "2", "-m", str(HOPS), address]
    lines = lab.client.run(argv).stdout.splitlines()
    return [line.split(maxsplit=1)[1] for line in lines if line.strip()[:1].isdigit()]


def refused(lab: Lab, address: str) -> None:
    """An unused address must be answered by an ICMP error from the jail, at once and not by a loop's end."""
    found = way(lab, address)
    assert len(found) < HOPS, found
    assert "!" in found[-1], found


def crossing(host: Host) -> int:
    """Return how many packets have gone into the jail."""
    answer = json.loads(host.run(["netstat", "-I", "mob-gw1", "--libxo", "json"]).stdout)
    return int(answer["statistics"]["interface"][0]["sent-packets"])


def inside(host: Host, *argv: str, check: bool = True) -> str:
    return host.run(["jexec", "gw1", *argv], check=check).stdout


def on_record(host: Host) -> None:
    """Each command that the agent ran must be one that a real FreeBSD, or its manual page, has answered."""
    ran = [one or other for one, other in _RAN.findall((host.folder / "agent.log").read_text())]
    known = {forms.shape(forms.words_of(answer.head)) for answer in recorded()}
    # ifconfig, route and netstat take -j from FreeBSD 14 on: what follows is the same
    plain = [_INTO.sub(r"\1", line) for line in ran]
    assert not [line for line in plain if forms.shape(forms.words_of(line)) not in known]
    assert any(NAT64 in line for line in ran)


def rejects(host: Host) -> set[str]:
    """Return the networks that the jail rejects (IPv6's own ones, which /etc/rc makes, aside)."""
    lines = inside(host, "netstat", "-rn").splitlines()
    return {line.split()[0] for line in lines if " URS " in line} & {NAT64, POOL, DELEGATED}


def reaches(lab: Lab) -> None:
    assert all(lab.client.ping(address) for address in (*ADDRESSES, *USED))
    for address in UNUSED:
        refused(lab, address)


def test_start_move_stop(pair: Lab) -> None:
    a, b = pair.hosts
    for host in (a, b, a):
        host.start_jail("gw1")
        announced(pair, host)
        await_rest(pair, host, GW1)
        reaches(pair)
        host.stop_jail("gw1")
        for prefix in PREFIXES:
            assert not pair.spine.kernel_has(prefix)
        await_rest(pair, host, {})
    # the agent's own order: the reject inside before the host's route; withdrawn before the host's reject, then unwired
    log = (a.folder / "agent.log").read_text()
    steps = [
        f"jexec gw1 route -n -6 add -net {NAT64} ::1 -reject",
        f'"route -n -6 add -net {NAT64} fe80::2%mob-gw1',
        "announced jail=gw1",
        "withdrawn jail=gw1",
        f'"route -n -6 add -net {NAT64} ::1 -reject',
        "ifconfig mob-gw1 destroy",
        f'"route -n -6 delete -net {NAT64}"',
    ]
    at = -1
    for step in steps:
        at = log.index(step, at + 1)
    on_record(a)


def test_unused_addresses_do_not_loop_and_without_the_reject_they_would(ready: Lab) -> None:
    (a,) = ready.hosts
    a.start_jail("gw1")
    announced(ready, a)
    for address in UNUSED:
        before = crossing(a)
        assert not ready.client.ping(address, seconds=1)
        assert crossing(a) - before < LOOPED
    # many of them take no place in any cache (transcript 12-service-prefix): see the neighbours in await_rest
    for last in range(1, 9):
        ready.client.ping(f"64:ff9b::{last:x}", seconds=1)
    await_rest(ready, a, GW1)
    inside(a, "route", "-n", "-6", "delete", "-net", NAT64, "::1")
    before = crossing(a)
    assert not ready.client.ping(UNUSED[0], seconds=1)
    assert crossing(a) - before >= LOOPED, "the lab shows no loop where FreeBSD has one"


def test_what_the_jail_has_by_itself_wins(ready: Lab) -> None:
    (a,) = ready.hosts
    a.start_jail("gw1")
    announced(ready, a)
    refused(ready, "198.51.100.99")
    inside(a, "ifconfig", "lo0", "inet", "198.51.100.99/32", "alias")
    assert ready.client.ping("198.51.100.99")
    # a way of its own to all of it, instead of ours
    inside(a, "ifconfig", "epair9", "create")
    inside(a, "ifconfig", "epair9a", "up")
    inside(a, "ifconfig", "epair9b", "up")
    inside(a, "route", "-n", "-6", "delete", "-net", NAT64, "::1")
    inside(a, "route", "-n", "-6", "add", "-net", NAT64, "-interface", "epair9a")
    log = Log(a)
    a.stop_agent(signal.SIGTERM)
    a.configure(agent={**QUICK, "inside_every": 0.5}, host={"allowed": ALL})
    a.start_agent()
    inside(a, "route", "-n", "delete", "-net", POOL, "127.0.0.1")
    log.wait(f"jexec gw1 route -n add -net {POOL} 127.0.0.1 -reject")
    assert "epair9a" in inside(a, "netstat", "-rn", "-f", "inet6")
    assert f"route -n -6 add -net {NAT64} ::1 -reject" not in log.text()


@pytest.fixture
def watched(one: Lab) -> Lab:
    """One host up with an agent that looks into each jail all the time."""
    begin(one, agent={**QUICK, "inside_every": 0.5}, host={"allowed": ALL})
    define(one.hosts[0])
    return one


BREAKING = {
    "reject6": [["route", "-n", "-6", "delete", "-net", NAT64, "::1"]],
    "reject4": [["route", "-n", "delete", "-net", POOL, "127.0.0.1"]],
    "single": [["ifconfig", "lo0", "inet", ANYCAST, "-alias"]],
    "back": [
        ["route", "-n", "-6", "delete", "-net", NAT64, "::1"],
        ["route", "-n", "-6", "add", "-net", NAT64, "fe80::1%in-gw1"],
    ],
    "netif": [["service", "netif", "restart"]],
}


@pytest.mark.parametrize("how", BREAKING)
def test_what_the_jails_root_breaks_is_mended(watched: Lab, how: str) -> None:
    (a,) = watched.hosts
    a.start_jail("gw1")
    announced(watched, a)
    await_rest(watched, a, GW1)
    log = Log(a)
    for line in BREAKING[how]:
        inside(a, *line, check=False)
    log.wait("its link was broken from inside")
    eventually(lambda: rejects(a) == {NAT64, POOL}, "the rejects", a)
    eventually(lambda: watched.client.ping(SINGLE, seconds=1), "the jail", a)
    await_rest(watched, a, GW1)
    if how == "netif":  # what the jail's own start put on lo0 is the jail's matter
        inside(a, "sh", "-c", " && ".join(START[1:]))
    reaches(watched)


def test_services_change_while_the_jail_runs_without_a_gap_for_the_others(ready: Lab) -> None:
    (a,) = ready.hosts
    a.start_jail("gw1")
    announced(ready, a)
    await_rest(ready, a, GW1)
    ready.spine.fib.changes.clear()
    pinging = {
        address: ready.client.popen(
            ["ping", *(["-6"] if ":" in address else []), "-n", "-c", str(PINGS), "-i", "0.05", "-t", "20", address],
            stdout=subprocess.PIPE,
        )
        for address in (IPV4, IPV6, HELD4)
    }
    serve(a, ADDRESSES, [POOL, DELEGATED])
    await_rest(ready, a, {"gw1": (*ADDRESSES, POOL, DELEGATED)})
    assert {change.prefix: change.gone for change in ready.spine.fib.changes} == {
        NAT64: True,
        ANYCAST: True,
        DELEGATED: False,
    }
    for address, process in pinging.items():
        said, _ = process.communicate(timeout=30)
        assert f"{PINGS} packets received, 0.0% packet loss" in said, (address, said)
    refused(ready, "2001:db8:7:0:77::1")
    assert rejects(a) == {POOL, DELEGATED}
    assert f"{SINGLE} " not in inside(a, "ifconfig", "lo0")
    # and all of them, and back
    serve(a, ADDRESSES, [])
    await_rest(ready, a, {"gw1": ADDRESSES})
    assert not rejects(a)
    serve(a, ADDRESSES, SERVICES)
    await_rest(ready, a, GW1)
    reaches(ready)
    # its file gone, it goes on running with nothing of ours in it
    (a.jails_d / "gw1.toml").unlink()
    await_rest(ready, a, {})
    assert not rejects(a)
    assert f"{SINGLE} " not in inside(a, "ifconfig", "lo0")
    on_record(a)


def test_drained_restarted_and_killed_behind_our_back(ready: Lab) -> None:
    (a,) = ready.hosts
    a.start_jail("gw1")
    announced(ready, a)
    ready.spine.fib.changes.clear()
    before = ready.spine.updates(a.session.name)
    a.stop_agent(signal.SIGTERM)
    a.start_agent()
    await_rest(ready, a, GW1)
    new_agent(a)
    await_rest(ready, a, GW1)
    assert (ready.spine.updates(a.session.name), list(ready.spine.fib.changes)) == (before, [])
    a.mobility("drain", "gw1")
    for prefix in PREFIXES:
        ready.spine.fib.wait(prefix, gone=True)
    a.mobility("undrain", "gw1")
    announced(ready, a)
    # a file broken meanwhile costs nothing
    (a.jails_d / "gw1.toml").write_text("services = [")
    new_agent(a)
    await_rest(ready, a, GW1)
    a.run(["jail", "-R", "gw1"])
    await_rest(ready, a, {})


def test_anothers_address_within_a_prefix_is_routed_to_the_other(pair: Lab) -> None:
    a, b = pair.hosts
    serve(a, ADDRESSES, [DELEGATED])
    a.start_jail("gw1")
    announced(pair, a, [DELEGATED])
    for host in (a, b):
        host.define_jail("web1", ["2001:db8:7:0:77::80"])
        host.start_jail("web1")
        pair.spine.fib.wait("2001:db8:7:0:77::80/128", via=host.address)
        assert pair.client.ping("2001:db8:7:0:77::80")
        refused(pair, "2001:db8:7:0:77::81")
        host.stop_jail("web1")
        pair.spine.fib.wait("2001:db8:7:0:77::80/128", gone=True)
    eventually(lambda: "!" in way(pair, "2001:db8:7:0:77::80")[-1], "the delegated prefix's own answer", a)
    await_rest(pair, a, {"gw1": (*ADDRESSES, DELEGATED)})


def test_what_another_jail_serves_is_refused(ready: Lab) -> None:
    (a,) = ready.hosts
    a.start_jail("gw1")
    announced(ready, a)
    a.define_jail("gw2", [])
    serve(a, ["198.51.100.8"], ["64:ff9b::/97"], jail="gw2")
    result = a.start_jail("gw2", check=False)
    assert result.returncode == 1
    assert f"{NAT64} is held by jail gw1" in result.stderr
    assert "64:ff9b::/97 is granted to gw1 and gw2" in a.mobility("check", check=False).stderr
    await_rest(ready, a, GW1)
    # and where it runs already, it has all but that
    serve(a, ["198.51.100.8"], [], jail="gw2")
    a.start_jail("gw2")
    await_rest(ready, a, {**GW1, "gw2": ("198.51.100.8",)})
    serve(a, ["198.51.100.8"], [POOL, "198.51.100.112/28"], jail="gw2")
    await_rest(ready, a, {**GW1, "gw2": ("198.51.100.8", "198.51.100.112/28")})
    a.stop_jail("gw1")
    await_rest(ready, a, {"gw2": ("198.51.100.8", "198.51.100.112/28", POOL)})


def test_a_jail_without_a_vnet_is_told_so(ready: Lab) -> None:
    (a,) = ready.hosts
    a.run(["ifconfig", "lo1", "create"])
    a.define_jail("plain", [], vnet=False, more='ip4.addr = "lo1|198.51.100.9";')
    serve(a, ["198.51.100.9"], ["198.51.100.128/28"], jail="plain")
    a.start_jail("plain")
    ready.spine.fib.wait("198.51.100.9/32", via=a.address)
    assert not ready.spine.kernel_has("198.51.100.128/28")
    assert "it has no vnet of its own" in status(a, "plain")["reason"]
    assert "it has no vnet of its own" in a.mobility("check", check=False).stderr


def test_a_family_that_only_a_service_has(ready: Lab) -> None:
    (a,) = ready.hosts
    serve(a, [IPV6], [POOL])
    a.start_jail("gw1")
    announced(ready, a, [f"{IPV6}/128", POOL])
    assert ready.client.ping(HELD4)
    refused(ready, UNUSED[1])
    await_rest(ready, a, {"gw1": (IPV6, POOL)})


@pytest.mark.parametrize("kernel", ["14", "no-rfc5549"])
def test_on_other_kernels(kernel: str) -> None:
    with Lab(hosts=1, kernel=kernel, ipv4_links=kernel == "no-rfc5549") as lab:
        (a,) = lab.hosts
        lab.start(agent=QUICK, host={"allowed": ALL})
        define(a)
        a.start_jail("gw1")
        announced(lab, a)
        reaches(lab)
        way4 = next(line for line in a.run(["netstat", "-rn", "-f", "inet"]).stdout.splitlines() if POOL in line)
        # without IPv6 next hops for IPv4 it goes by the jail's own address
        assert (IPV4 in way4) is (kernel == "no-rfc5549")
        a.stop_jail("gw1")
        for prefix in PREFIXES:
            lab.spine.fib.wait(prefix, gone=True)
        on_record(a)


def test_a_kernel_that_can_not_says_so(one: Lab) -> None:
    (a,) = one.hosts
    begin(one, agent=QUICK, host={"allowed": ALL, "ipv4_routes": "interface"})
    define(a)
    serve(a, [IPV6], [NAT64, POOL])
    result = a.start_jail("gw1", check=False)
    assert result.returncode == 1
    assert f"so its services {POOL} need an IPv4 address of its own" in result.stderr
    serve(a, [IPV6], [NAT64])
    a.start_jail("gw1")
    announced(one, a, [NAT64])


#: A link that the jail's own jail.conf makes.
ADOPTED = """
  vnet.interface = "epair9b";
  exec.prestart += "ifconfig epair9 create; ifconfig epair9a up";
  exec.poststop += "ifconfig epair9a destroy";
"""


def test_an_adopted_link_carries_them_too(ready: Lab) -> None:
    (a,) = ready.hosts
    define(a, "ifconfig lo0 inet 127.0.0.1/8 up", more=ADOPTED)  # as /etc/rc does
    for _ in range(2):
        a.start_jail("gw1")
        announced(ready, a)
        routes = a.run(["netstat", "-rn"]).stdout.splitlines()
        assert [line.split()[-1] for line in routes if line.startswith((NAT64, POOL))] == ["epair9a", "epair9a"]
        reaches(ready)
        serve(a, ADDRESSES, [POOL])
        ready.spine.fib.wait(NAT64, gone=True)
        eventually(lambda: NAT64 not in inside(a, "netstat", "-rn"), "end of the reject", a)
        serve(a, ADDRESSES, SERVICES)
        announced(ready, a)
        a.stop_jail("gw1")
        for prefix in PREFIXES:
            assert not ready.spine.kernel_has(prefix)
        await_rest(ready, a, {})


# -- killed at each step


@pytest.fixture
def alone() -> Iterator[Lab]:
    """A host whose commands can be made to fail."""
    with Lab(hosts=1) as whole:
        yield whole


@pytest.mark.timeout(300)
def test_killed_at_each_step_of_its_services(alone: Lab) -> None:
    """Start and stop, with the agent killed at every one of its commands that concern services."""
    (host,) = alone.hosts
    faults = Faults(host)
    often = {"enabled": False}  # it starts and stops far more often than a jail should
    host.configure(
        agent={**QUICK, "look_every": 0.5},
        host={"allowed": ALL},
        paths={"commands": faults.commands},
        damping=often,
    )
    host.start_agent()
    host.start_exabgp()
    alone.await_session(host)
    define(host)
    steps: dict[str, list[int]] = {}
    for verb in ("-c", "-r"):
        faults.count()
        (host.start_jail if verb == "-c" else host.stop_jail)("gw1")
        await_clean(alone, host, GW1 if verb == "-c" else {})
        concerned = (NAT64, POOL, SINGLE)
        steps[verb] = [n for n, line in enumerate(faults.steps(), 1) if any(text in line for text in concerned)]
    assert [len(each) for each in steps.values()] == [6, 9]
    for turn in range(max(map(len, steps.values()))):
        for verb, expected in (("-c", GW1), ("-r", {})):
            number, how = steps[verb][turn % len(steps[verb])], tuple(KILLS)[turn % len(KILLS)]
            faults.kill_at(number, how)
            process = host.popen(["jail", "-f", host.jail_conf, verb, "gw1"])
            # the last steps of a stop, rejects that end, come after jail(8) is done
            await_death(host)
            new_agent(host)
            assert process.wait(30) == 0, (verb, number, how)
            await_clean(alone, host, expected)
            if verb == "-c":
                assert all(alone.client.ping(address) for address in USED)
                refused(alone, UNUSED[0])
    eventually(lambda: not remembered(host), "end of what is remembered", host)
