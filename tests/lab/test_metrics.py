"""What Prometheus would see of two hosts while a jail starts, stops, moves, and loses its ExaBGP: scraped over HTTP."""

from __future__ import annotations

import json
import sys

import pytest

from tests.lab.fabric import deployed
from tests.lab.faults import new_agent
from tests.lab.invariants import await_announced
from tests.lab.topology import Host, Lab
from tests.waiting import PATIENCE, until

PREFIXES = ("198.51.100.7/32", "2001:db8:7::7/128")
QUICK = {"look_every": 1.0, "reject_for": 0.2, "settle_for": 3.0}
JAIL = 'jail="web1"'
FETCH = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:9971/metrics', timeout=10).read().decode())"


def figures(host: Host) -> dict[str, float]:
    """Return what a scrape of a host's agent shows: each series, without the program's prefix, and its value."""
    lines = host.run([sys.executable, "-c", FETCH]).stdout.splitlines()
    pairs = [line.removeprefix("mobility_").rpartition(" ") for line in lines if line and not line.startswith("#")]
    return {series: float(value) for series, _, value in pairs}


def of_jail(name: str, **labels: str) -> str:
    more = "".join(f',{label}="{value}"' for label, value in labels.items())
    return f"jail_{name}{{{JAIL}{more}}}"


def come(host: Host, **wanted: float) -> dict[str, float]:
    """Wait until a scrape shows these values of web1, all at once; return all that it shows."""
    shown: dict[str, float] = {}

    def there() -> bool:
        nonlocal shown
        shown = figures(host)
        return all(shown.get(of_jail(name)) == value for name, value in wanted.items())

    try:
        until(there, "")
    except AssertionError:
        found = {name: shown.get(of_jail(name)) for name in wanted}
        pytest.fail(f"{host.name}: {found}, not {wanted}, within {PATIENCE:g} s")
    return shown


@pytest.fixture
def ready(lab: Lab) -> Lab:
    """Both hosts up, behind a spine that is set up as deploy/fabric says."""
    deployed(lab)
    lab.start(agent=QUICK)
    for host in lab.hosts:
        host.define_jail("web1", PREFIXES)
    return lab


def test_what_happens_is_seen_by_the_next_scrape(ready: Lab) -> None:
    a, b = ready.hosts
    counted = ("announcements_total", "withdrawals_total", "flaps_total", "moves_total", "conflicts_total")
    before = come(a, running=0, announced=0, wanted=0, **dict.fromkeys(counted, 0))
    assert before["event_to_announced_seconds_count"] == before["event_to_withdrawn_seconds_count"] == 0
    assert before['rib_routes{state="desired"}'] == 0
    assert not [series for series in before if "_created" in series]

    a.start_jail("web1")
    await_announced(a, "web1")
    up = come(a, running=1, announced=1, wanted=1, ready=1, announcements_total=2, flaps_total=0)
    assert up[of_jail("ownership", kind="held")] == 1
    assert (up["jails_running"], up["jails_announced"], up["jails_dark"]) == (1, 1, 0)
    assert up['rib_routes{state="desired"}'] == up['rib_routes{state="acknowledged"}'] == 2
    assert up["event_to_announced_seconds_count"] == up["event_to_fib_seconds_count"] == 1
    assert up['events_total{phase="poststart"}'] == 1

    # a flap
    a.stop_jail("web1")
    down = come(a, running=0, announced=0, wanted=0, withdrawals_total=2, flaps_total=1)
    assert down[of_jail("damping_penalty")] > 900
    assert down["event_to_withdrawn_seconds_count"] == down["flaps_total"] == 1
    assert down["jails_blackholed"] == down["jails_dark"] == 0
    assert down['command_failures_total{command="jls"}'] == 0, "that a jail is gone is an answer"

    # a move, by starting it twice: the older copy stays dark until somebody stops it
    a.start_jail("web1")
    await_announced(a, "web1")
    b.start_jail("web1")
    come(b, running=1, announced=1, moves_total=1, announcements_total=2)
    lost = come(a, running=1, announced=0, wanted=1, moves_total=1, flaps_total=1)
    assert lost[of_jail("not_announced", reason="lost")] == lost[of_jail("ownership", kind="lost")] == 1
    assert lost["jails_dark"] == lost['jails_not_announced{reason="lost"}'] == 1
    assert lost['ownership_refusals_total{kind="lost"}'] == 1
    a.stop_jail("web1")
    come(a, running=0, wanted=0)

    # ExaBGP goes and comes back
    b.stop_exabgp()
    alone = come(b, running=1, announced=0, wanted=1)
    assert alone[of_jail("not_announced", reason="no_bridge")] == 1
    assert (alone["bridge_connected"], alone['bgp_session_up{peer="spine"}']) == (0, 0)
    b.start_exabgp()
    back = come(b, announced=1)
    assert back["exabgp_restarts_total"] == back['bgp_session_changes_total{peer="spine",state="down"}'] == 1
    assert back['bgp_session_changes_total{peer="spine",state="up"}'] == 2
    told = json.loads(b.mobility("history", "--json", "--what", "ExaBGP gone,ExaBGP connected").stdout)["events"]
    assert [event["what"] for event in told] == ["ExaBGP gone", "ExaBGP connected"]

    # an agent that comes back announces nothing anew, and counts nothing of what was before it
    new_agent(b)
    fresh = come(b, running=1, announced=1, announcements_total=0, moves_total=0, flaps_total=0)
    assert fresh["exabgp_restarts_total"] == fresh['events_total{phase="poststart"}'] == 0

    # a jail that is gone takes its series along, once its flap is forgotten
    a.mobility("release", "web1")
    (a.jails_d / "web1.toml").unlink()
    a.define_no_jails()
    until(lambda: not [series for series in figures(a) if JAIL in series], "web1 is gone from the metrics")
