"""What a jail's file, and its group, say of its announcement, seen by the spine."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.lab.again import begin
from tests.lab.invariants import await_announced, await_rest
from tests.lab.topology import FIRST_HOST_AS, Host, Lab

IPV4, IPV6 = "198.51.100.7", "2001:db8:7::7"
PREFIXES = (f"{IPV4}/32", f"{IPV6}/128")
WEB1 = {"web1": (IPV4, IPV6)}
QUICK = {"look_every": 1.0, "reject_for": 0.5, "drain_for": 0.2, "settle_for": 3.0}
DNS = {"ownership": "anycast", "med": 10, "communities": ["65000:53"]}
WAIT = 40.0


def seen(lab: Lab, prefix: str) -> dict[str, str]:
    """Return the attributes of the spine's route, by BIRD's names; {} where there is none."""
    return dict(re.findall(r"^\s+BGP\.(\w+): ?(.*)$", lab.spine.birdc(f"show route all for {prefix}"), re.MULTILINE))


def await_seen(lab: Lab, check: Callable[[dict[str, str]], object], *prefixes: str) -> None:
    """Wait until `check` holds of what the spine has of each prefix."""
    deadline = time.monotonic() + WAIT
    for prefix in prefixes or PREFIXES:
        while not check(found := seen(lab, prefix)):
            assert time.monotonic() < deadline, (prefix, found)
            time.sleep(0.05)


def write(host: Host, text: str) -> None:
    """Write web1's file at once, as an editor does: its addresses, and `text`."""
    new = host.jails_d / ".web1.toml"
    new.write_text(f"addresses = {json.dumps(PREFIXES)}\n{text}")
    new.rename(host.jails_d / "web1.toml")


SECTIONS: dict[str, dict[str, Any]] = {"agent": QUICK, "damping": {"enabled": False}, "group.dns": DNS}


@pytest.fixture
def host(one: Lab) -> Host:
    """A host that knows web1."""
    (a,) = begin(one, **SECTIONS).hosts
    a.define_jail("web1", PREFIXES)
    return a


def test_what_the_file_says_goes_out_and_changes_without_a_gap(one: Lab, host: Host) -> None:
    write(
        host,
        '[announce]\ncommunities = ["65000:7"]\nlarge_communities = ["65000:1:7"]\n'
        'extended_communities = ["target:4200000000:7"]\nprepend = 1\n',
    )
    host.start_jail("web1")
    await_rest(one, host, WEB1)

    def first(found: dict[str, Any]) -> bool:
        return (found["community"], found["ext_community"], found["as_path"]) == (
            "(65000,7)",
            "(rt, 4200000000, 7)",
            f"{FIRST_HOST_AS} {FIRST_HOST_AS}",
        ) and "(65000, 1, 7)" in found["large_community"]

    await_seen(one, first)
    assert "(4200000000, 1, " in seen(one, PREFIXES[0])["large_community"]  # and its claim
    one.spine.fib.changes.clear()
    write(host, '[announce]\ncommunities = ["65000:8"]\n')
    await_seen(one, lambda found: found.get("community") == "(65000,8)" and "ext_community" not in found)
    assert seen(one, PREFIXES[1])["as_path"] == str(FIRST_HOST_AS)
    await_rest(one, host, WEB1)
    assert not [change for change in one.spine.fib.changes if change.gone]


def test_a_broken_file_changes_nothing_that_is_announced(one: Lab, host: Host) -> None:
    write(host, 'group = "dns"\n')
    host.start_jail("web1")
    await_rest(one, host, WEB1)
    await_announced(host, "web1")
    before, updates = seen(one, PREFIXES[0]), one.spine.updates(host.session.name)
    assert (before["community"], before["med"]) == ("(65000,53)", "10")
    assert "large_community" not in before
    write(host, 'group = "dsn"\n')
    deadline = time.monotonic() + WAIT
    while "dsn" not in host.mobility("status", "web1").stdout:
        assert time.monotonic() < deadline
    await_announced(host, "web1")
    assert seen(one, PREFIXES[0]) == before
    assert one.spine.updates(host.session.name) == updates


def test_anycast_is_announced_by_two_hosts_at_once(lab: Lab) -> None:
    lab.start(**SECTIONS)
    for each in lab.hosts:
        each.define_jail("web1", PREFIXES)
        write(each, 'group = "dns"\n')
        each.start_jail("web1")
        await_announced(each, "web1")
    for prefix in PREFIXES:
        shown = lab.spine.birdc(f"show route all for {prefix}")
        assert shown.count("BGP.med: 10") == 2
        assert "large_community" not in shown


def test_it_stays_so_over_a_restart_of_the_agent(one: Lab, host: Host) -> None:
    write(host, 'group = "dns"\n')
    host.start_jail("web1")
    await_rest(one, host, WEB1)
    before, updates = seen(one, PREFIXES[0]), one.spine.updates(host.session.name)
    host.stop_agent()
    write(host, 'group = "dsn"\n')
    host.start_agent()
    await_announced(host, "web1")
    await_rest(one, host, WEB1)
    assert seen(one, PREFIXES[0]) == before
    assert one.spine.updates(host.session.name) == updates
