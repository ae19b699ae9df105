"""DESIGN.md's invariants, as checks of a host that has come to rest: tests, chaos runs and the demo use the same ones."""

from __future__ import annotations

import ipaddress
import json
import time
from collections.abc import Collection, Mapping
from typing import Any

from mobility import control
from mobility.network import naming
from tests.lab.topology import ALLOWED, Host, Lab
from tests.waiting import PATIENCE

REST_SECONDS = PATIENCE
LOOK_AGAIN = 0.05
NAT64 = "64:ff9b::/96"
"""What a gateway jail serves beyond the lab's own prefixes (RFC 6052)."""
_ALLOWED = [ipaddress.ip_network(text) for text in (*ALLOWED, NAT64)]


def _ours(text: str) -> bool:
    try:
        found = ipaddress.ip_network(text)
    except ValueError:
        return False
    return any(found.version == each.version and found.subnet_of(each) for each in _ALLOWED)  # type: ignore[arg-type]


def _way(text: str) -> tuple[str, str]:
    """Return the destination and the flags that netstat shows of a jail's address, or (with its length) of its service."""
    address, slash, length = text.partition("/")
    if not slash:
        return text, "UHS" if ":" in text else "UGHS"
    return (address, "UGHS") if length == ("128" if ":" in text else "32") else (text, "UGS")


def jail_routes(host: Host) -> dict[str, str]:
    """Return the host's routes to jails: destination -> "interface flags"; a multipath shows all."""
    answer = json.loads(host.run(["netstat", "-rnW", "--libxo", "json"]).stdout)
    found: dict[str, str] = {}
    for family in answer["statistics"]["route-information"]["route-table"]["rt-family"]:
        for entry in family["rt-entry"]:
            if _ours(entry["destination"]):
                line = f"{entry['interface-name']} {entry['flags']}"
                found[entry["destination"]] = " + ".join(filter(None, (found.get(entry["destination"]), line)))
    return found


def faults(lab: Lab, host: Host, jails: Mapping[str, Collection[str]]) -> list[str]:
    """Return everything in which a host (and what the spine has of it) differs from exactly these jails being announced.

    `jails` are those that run, wired, ready and not drained here, with their bare addresses, and their services with the
    length.
    """
    wrong = []
    names = host.run(["ifconfig", "-l"]).stdout.split()
    outers = {naming.outer_name(jail) for jail in jails}
    inners = [name for name in names if name.startswith(("in-", "epair"))]
    here = {name for name in names if name.startswith("mob-")}
    if here != outers:
        wrong.append(f"outer ends {sorted(here)}, not {sorted(outers)}")
    if inners:
        wrong.append(f"left on the host: {inners}")
    wanted = {
        destination: f"{naming.outer_name(jail)} {flags}"
        for jail, texts in jails.items()
        for destination, flags in map(_way, texts)
    }
    routes = jail_routes(host)
    if routes != wanted:
        wrong.append(f"host routes {routes}, not {wanted}")
    prefixes = {text if "/" in text else f"{text}/{128 if ':' in text else 32}" for text in wanted}
    fabric = {prefix for prefix, hops in lab.spine.fib.routes().items() if _ours(prefix) and host.address in hops}
    if fabric != prefixes:
        wrong.append(f"the spine sends {sorted(fabric)} here, not {sorted(prefixes)}")
    cache = json.loads(host.run(["ndp", "-an", "--libxo", "json"]).stdout)["ndp"]["neighbor-cache"]
    strangers = [entry["address"] for entry in cache if _ours(entry["address"]) and entry["address"] not in wanted]
    if strangers:
        wrong.append(f"neighbours left: {strangers}")
    return wrong


def await_rest(lab: Lab, host: Host, jails: Mapping[str, Collection[str]], seconds: float = REST_SECONDS) -> None:
    """Wait until a host and the spine show exactly these jails; AssertionError with all logs where they never do."""
    deadline = time.monotonic() + seconds
    while wrong := faults(lab, host, jails):
        if time.monotonic() > deadline:
            raise AssertionError(
                "\n".join([f"{host.name} does not come to rest with {dict(jails)}: {wrong}", *lab.logs(host)])
            )
        # what is looked at has no one source of news: two kernels' tables, a cache, an interface list
        time.sleep(LOOK_AGAIN)


def await_announced(host: Host, jail: str, seconds: float = REST_SECONDS) -> dict[str, Any]:
    """Wait until `mobility status` says that a jail is announced: after a restart its bridge has to come back first."""
    deadline = time.monotonic() + seconds
    while not (found := status(host, jail))["announced"]:
        assert time.monotonic() < deadline, found
        time.sleep(LOOK_AGAIN)
    return found


def status(host: Host, jail: str) -> dict[str, Any]:
    """Return what `mobility status --json` says of one jail, without a Python of its own for each question."""
    found: dict[str, Any] = control.request(host.run_folder / "control.sock", "status", names=[jail])["jails"][0]
    return found
