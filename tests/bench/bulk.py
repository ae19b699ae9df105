"""Thousands of jails at once: the commands answer from prepared text, ExaBGP and BIRD are real."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from mobility import config as configuration
from mobility import links
from mobility import plan as planning
from mobility.bgp.grammar import attributes_text
from mobility.bgp.ownership import DEFAULT_ADMINISTRATOR, Claim, communities, identity_number, med
from mobility.decide import How, Memory, Stand, Target
from mobility.jails.jailsd import JailConfig
from mobility.model import Attributes, address, host_prefix
from mobility.network import naming
from mobility.network.output import HostView, Interface, NetView
from mobility.plan import Case
from mobility.store import Store
from tests.bench import raw
from tests.bench.figures import Figures
from tests.bench.usage import resident, used
from tests.lab.topology import Host, Lab
from tests.lab.watch import Fib

DEFAULTS, _ = configuration.parse({}, Path())
GROUP = 500
"""Prefixes in one line of the raw list: the best grouping found (FIELD-NOTES)."""
LONG = 120.0
SELDOM = 86400.0
"""Seconds between looks inside: none during a run."""
INSIDE_JAILS = 1000
"""At how many jails the cost of looks inside is stated."""
BOOT_ID = "0x000102030405060708090a0b0c0d0e0f"
ALLOWED = ("10.64.0.0/12", "2001:db8:64::/48")
_LOOKED = re.compile(r"looked at the host seconds=([0-9.]+)")


def jails(count: int) -> list[JailConfig]:
    """Return `count` jails with a /32 and a /128 each."""
    return [
        JailConfig(
            f"j{n}",
            (host_prefix(f"10.{64 + (n >> 16)}.{n >> 8 & 255}.{n & 255}"), host_prefix(f"2001:db8:64::{n + 1:x}")),
            "bench",
        )
        for n in range(count)
    ]


def prepare(host: Host, configs: list[JailConfig]) -> None:
    """Write what FreeBSD's commands would say of all these jails, wired and running."""
    folder = host.folder / "prepared"
    folder.mkdir()
    ifconfig = [
        "lo0: flags=8049<UP,LOOPBACK,RUNNING,MULTICAST> metric 0 mtu 16384\n\tinet 192.0.0.8 netmask 0xffffffff\n"
    ]
    routes: dict[int, list[dict[str, object]]] = {4: [], 6: []}
    lines, group = [], []
    nothing = HostView(NetView({"lo0": (Interface("lo0", up=True, inet=("192.0.0.8",)),)}))
    for jid, config in enumerate(configs, 1):
        seen = planning.expect(Case(config.name, host.name, Target(Stand.ANNOUNCED), config, nothing))
        outer = links.owned(seen, config.name)
        assert outer is not None
        group.append(outer.name)
        ifconfig.append(
            f"{outer.name}: flags=8863<UP,BROADCAST,RUNNING,SIMPLEX,MULTICAST> metric 0 mtu 1500\n"
            f"\tdescription: {outer.description}\n\toptions=8<VLAN_MTU>\n"
            f"\tether {outer.ether}\n\thwaddr 02:a6:22:42:08:0a\n"
            f"\tinet6 fe80::1%{outer.name} prefixlen 64 scopeid 0x4\n\tgroups: epair mobility\n"
            "\tmedia: Ethernet 10Gbase-T (10Gbase-T <full-duplex>)\n\tstatus: active\n"
            "\tnd6 options=101<PERFORMNUD,NO_DAD>\n"
        )
        for prefix in config.addresses:
            (route,) = seen.net.routes[address(prefix)]
            routes[prefix.version].append(
                {
                    "destination": route.destination,
                    "gateway": route.gateway,
                    "flags": route.flags,
                    "interface-name": route.interface,
                }
            )
        lines.append({"name": config.name, "jid": str(jid), "path": "/", "vnet": "new", "ip4.addr": [], "ip6.addr": []})
        (folder / f"{config.name}.jls").write_text(_jls(lines[-1:]))
        _prepare_inside(folder, config)
    families = [{"address-family": f"Internet{'6' if v == 6 else ''}", "rt-entry": routes[v]} for v in (4, 6)]
    answers = {
        "ifconfig-a": "".join(ifconfig),
        "ifconfig-g": "\n".join(group) + "\n",
        "netstat": json.dumps({"statistics": {"route-information": {"route-table": {"rt-family": families}}}}),
        "jls": _jls(lines),
        "sysctl": f"kern.boot_id: Format: Length:16 Dump:{BOOT_ID}\n",
    }
    for name, text in answers.items():
        (folder / f"{name}.txt").write_text(text)
    unknown = '*) echo "illegal option -- j" >&2; exit 1;;'
    scripts = {
        "ifconfig": f"case $1 in -a) exec cat {folder}/ifconfig-a.txt;; -g) exec cat {folder}/ifconfig-g.txt;; {unknown} esac",
        "netstat": f"case $1 in -rnW) exec cat {folder}/netstat.txt;; {unknown} esac",
        "route": f"case $1 in {unknown} esac",
        "jls": f"while [ $# -gt 0 ]; do [ $1 != -j ] || exec cat {folder}/$2.jls; shift; done; exec cat {folder}/jls.txt",
        "sysctl": f"case $2 in kern.boot_id) exec cat {folder}/sysctl.txt;; *) echo 1;; esac",
        "jexec": f"exec cat {folder}/$1.$2",
    }
    for name, script in scripts.items():
        path = folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)


def _jls(lines: Sequence[Mapping[str, object]]) -> str:
    return json.dumps({"__version": "2", "jail-information": {"jail": lines}})


def _prepare_inside(folder: Path, config: JailConfig) -> None:
    """Write what `ifconfig` and `netstat` say inside a wired jail."""
    name = naming.inner_name(config.name)
    ifconfig = [
        "lo0: flags=8049<UP,LOOPBACK,RUNNING,MULTICAST> metric 0 mtu 16384\n\tinet 127.0.0.1 netmask 0xff000000\n",
        f"{name}: flags=8863<UP,BROADCAST,RUNNING,SIMPLEX,MULTICAST> metric 0 mtu 1500\n",
        f"\tinet6 fe80::2%{name} prefixlen 64 scopeid 0x2\n",
    ]
    families = []
    for prefix in config.addresses:
        text = address(prefix)
        mask = f"inet {text} netmask 0xffffffff" if prefix.version == 4 else f"inet6 {text} prefixlen 128"
        ifconfig.append(f"\t{mask}\n")
        way = {"destination": "default", "gateway": f"fe80::1%{name}", "flags": "UGS", "interface-name": name}
        families.append({"address-family": "Internet" if prefix.version == 4 else "Internet6", "rt-entry": [way]})
    ifconfig.append("\tnd6 options=101<PERFORMNUD,NO_DAD>\n")
    netstat = {"statistics": {"route-information": {"route-table": {"rt-family": families}}}}
    (folder / f"{config.name}.ifconfig").write_text("".join(ifconfig))
    (folder / f"{config.name}.netstat").write_text(json.dumps(netstat))


def remember(host: Host, configs: list[JailConfig]) -> None:
    """Let the agent remember these jails as wired in this boot, as after a restart."""
    store = Store(host.folder / "state" / "mobility.sqlite", BOOT_ID.removeprefix("0x"))
    for jid, config in enumerate(configs, 1):
        granted = tuple(map(address, config.addresses))
        store.remember(config.name, Memory(jid=jid, started=jid, wired=jid, granted=granted, how=How.NEXT_HOP))
    store.close()


def measure(figures: Figures, count: int, idle: float) -> None:
    """Announce `count` jails, ours and raw, in one topology; then watch the agent idle."""
    configs = jails(count)
    with Lab(hosts=2) as lab:
        ours, other = lab.hosts
        raw_rate = _raw(figures, lab, other, "raw_exabgp", _grouped(other, configs), f"{GROUP} a line, no claims")
        claimed = _raw(
            figures, lab, other, "raw_claimed", _claimed(other, configs), "a line each: every jail has its claim"
        )
        rate = _ours(figures, lab, ours, configs)
        figures.add("bulk_vs_raw_exabgp", rate / raw_rate, "ratio", "aim: at least 0.9")
        figures.add("bulk_vs_raw_claimed", rate / claimed, "ratio", "the same routes with the same attributes")
        _cost(figures, ours, count, idle)


def _ours(figures: Figures, lab: Lab, host: Host, configs: list[JailConfig]) -> float:
    prepare(host, configs)
    configure(host, SELDOM)
    for config in configs:
        host.grant(config.name, [str(prefix) for prefix in config.addresses])
    remember(host, configs)
    host.start_exabgp()
    lab.await_session(host)
    fib = lab.spine.fib
    fib.changes.clear()
    host.start_agent()
    wanted = 2 * len(configs)
    _await_routes(fib, host, wanted)
    text = (host.folder / "agent.log").read_text()
    began = first(text, "looked at the host") - (time.time() - time.monotonic())
    took = _last(fib, host) - began
    figures.add(
        "bulk_routes_per_s",
        wanted / took,
        "routes/s",
        f"{len(configs)} jails, {wanted} routes, from the end of the look",
    )
    looked = _LOOKED.search(text)
    assert looked is not None
    figures.add(
        "look_s", float(looked[1]), "s", f"looking at {len(configs)} jails: commands (prepared text) and parsing"
    )
    return wanted / took


def configure(host: Host, inside_every: float, **sections: Any) -> None:
    """Configure a host whose commands answer from prepared text; `sections` as `Host.configure` takes them."""
    host.configure(
        host={"name": host.name, "allowed": list(ALLOWED)},
        paths={"commands": [str(host.folder / "prepared"), "/usr/bin", "/bin"]},
        agent={"inside_every": inside_every, **sections.pop("agent", {})},
        health={"reach": "off"},  # there is nobody who would answer
        **sections,
    )


def _await_routes(fib: Fib, host: Host, wanted: int) -> None:
    fib.wait_for(
        lambda: len({c.prefix for c in fib.changes if c.via == host.address and not c.gone}) >= wanted, "bulk", LONG
    )


def _last(fib: Fib, host: Host) -> float:
    return max(change.when for change in fib.changes if change.via == host.address and not change.gone)


def first(text: str, what: str) -> float:
    """Return when the first line of an agent's log that holds `what` was written, in seconds since the epoch."""
    line = next(line for line in text.splitlines() if what in line)
    return datetime.fromisoformat(line.split("Z", 1)[0] + "+00:00").timestamp()


def _grouped(host: Host, configs: list[JailConfig]) -> list[str]:
    """Return the commands for all jails' routes without claims: all may share a line."""
    lines = []
    for version in (4, 6):
        prefixes = [str(p) for config in configs for p in config.addresses if p.version == version]
        for at in range(0, len(prefixes), GROUP):
            nlri = " ".join(prefixes[at : at + GROUP])
            lines.append(f"announce attributes next-hop {host.address} nlri {nlri}\n")
    return lines


def _claimed(host: Host, configs: list[JailConfig]) -> list[str]:
    """Return the commands for all jails' routes with their claims: no two jails' attributes are the same."""
    lines = []
    for config in configs:
        claim = Claim(1, identity_number(config.name), int(IPv4Address(host.router_id)))
        attributes = Attributes(large_communities=communities(claim, DEFAULT_ADMINISTRATOR), med=med(1))
        text = attributes_text(host.address, attributes)
        lines += [f"announce attributes {text} nlri {prefix}\n" for prefix in config.addresses]
    return lines


def _raw(figures: Figures, lab: Lab, host: Host, name: str, lines: list[str], text: str) -> float:
    fib = lab.spine.fib
    wanted = sum(len(line.split(" nlri ")[1].split()) for line in lines)
    with raw.exabgp(lab, host) as pipe:
        fib.changes.clear()
        began = time.monotonic()
        for line in lines:
            pipe.write(line)
        _await_routes(fib, host, wanted)
        took = _last(fib, host) - began
    figures.add(f"{name}_routes_per_s", wanted / took, "routes/s", f"the same list into ExaBGP's pipe, {text}")
    return wanted / took


def _cost(figures: Figures, host: Host, count: int, idle: float) -> None:
    assert host.agent is not None
    pid = host.agent.process.pid
    figures.add("agent_rss_mb", resident(pid), "MB", f"at {count} jails; aim: under 80")
    spent = _spent(host, idle)
    figures.add(
        "idle_cpu_percent",
        100 * spent / idle,
        "%",
        f"over {idle:g} s at {count} jails, looks and children counted, none inside; aim: under 0.5",
    )
    host.stop_agent()
    configure(host, idle)
    host.start_agent()
    looks = _spent(host, idle) - spent
    every = DEFAULTS.agent.inside_every
    figures.add("inside_look_cpu_ms", 1000 * looks / count, "ms", "CPU time of a look into one jail, children counted")
    figures.add(
        "inside_cpu_percent",
        100 * looks / count * INSIDE_JAILS / every,
        "%",
        f"of one core, for {INSIDE_JAILS} jails every {every:g} s, the default",
    )


def _spent(host: Host, seconds: float) -> float:
    """Return the CPU seconds that the agent and its children use while nothing happens."""
    assert host.agent is not None
    before = used(host.agent.process.pid)
    time.sleep(seconds)  # what is measured is what happens when nothing does
    return used(host.agent.process.pid) - before
