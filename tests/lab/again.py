"""One lab for the tests of a file: before each, hosts without jails, whose agents remember nothing, and an empty fabric.

    @pytest.fixture(scope="module")
    def whole() -> Iterator[Lab]:
        with Lab(hosts=2) as lab:
            yield lab

    @pytest.fixture
    def lab(whole: Lab) -> Lab:
        return begin(whole, agent=QUICK)

To make hosts, routers and ExaBGPs for each test anew takes several times as long. A test that changes what is not brought
back here (a host's own addresses and routes, its sessions, the routers) has a lab of its own.
"""

from __future__ import annotations

import signal
from typing import Any

from tests.lab.faults import await_clean
from tests.lab.invariants import jail_routes
from tests.lab.topology import Host, Lab

#: What a host is born with, besides its links, which are called "up-...".
INTERFACES = {"lo0", "pflog0", "pfsync0"}
#: What tests switch over, as `node_commands` and the kernel have it.
SYSCTLS = (
    "net.inet.ip.forwarding=1",
    "net.inet6.ip6.forwarding=1",
    "net.route.ipv6_nexthop=1",
    "net.route.multipath=1",
)


def begin(lab: Lab, **sections: dict[str, Any]) -> Lab:
    """Bring a lab to where a test may begin, whatever the one before has left, with this configuration; return it."""
    for host in lab.hosts:
        _forget(host)
        host.configure(**sections)
        host.start_agent()
        if host.exabgp is None or not host.exabgp.running:
            host.start_exabgp()
    for host in lab.hosts:
        lab.await_session(host)
        await_clean(lab, host, {})
    lab.spine.fib.changes.clear()
    return lab


def _forget(host: Host) -> None:
    """End a host's agent and its jails, and take away all that either has left."""
    if host.agent is not None:
        host.stop_agent(signal.SIGKILL)
    for jail in host.run(["jls", "name"]).stdout.split():
        host.run(["jail", "-R", jail])
    host.define_no_jails()
    host.run(["sysctl", *SYSCTLS])
    for interface in host.run(["ifconfig", "-l"]).stdout.split():
        if interface not in INTERFACES and not interface.startswith("up-"):
            # the other end of a pair goes with the first
            host.run(["ifconfig", interface, "destroy"], check=False)
    for destination in jail_routes(host):
        family = ["-6"] if ":" in destination else []
        host.run(
            ["route", "-n", *family, "delete", "-net" if "/" in destination else "-host", destination], check=False
        )
    for folder in (host.folder / "state", *(host.folder / "spool" / name for name in ("tmp", "new", "reply", "bad"))):
        for path in folder.glob("*"):
            path.unlink()
    (host.folder / "agent.log").unlink(missing_ok=True)
