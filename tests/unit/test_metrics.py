"""The figures: that each is there under its name, in bounds, and that they are served where the configuration says."""

from __future__ import annotations

import gc
import logging
import re
import shutil
import socket
import subprocess
import threading
import time
import tracemalloc
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import exposition, parser
from prometheus_client.parser import text_string_to_metric_families as read_text

from mobility import metrics as subject
from mobility.bgp.ownership import Kind
from mobility.decide import Stand
from mobility.failover.policy import Stance
from mobility.metrics import Metrics, MetricsError
from mobility.metrics.catalogue import CATALOGUE, COUNTER, HISTOGRAM, SECONDS
from mobility.metrics.causes import Cause
from mobility.metrics.jails import Jails, JailState, rank
from mobility.metrics.state import Bgp, Checks, Host, State

openmetrics: Callable[[CollectorRegistry], bytes] = exposition.generate_latest
read_openmetrics: Callable[[str], Iterable[Metric]] = parser.text_string_to_metric_families
WEB1 = JailState("web1", Stand.ANNOUNCED, running=True, announced=True, ready=True, wanted=True, kind=Kind.HELD)
WEB3 = JailState(
    "web3", Stand.WIRED, running=True, wanted=True, reason=Cause.SUPPRESSED, penalty=6500.0, suppressed=True
)
FAILOVER = {
    "groups": [{"name": "lan", "stance": "preferred", "vhids": {"1@igb0": "MASTER"}}],
    "pfsync": {"syncok": True},
    "preempt": False,
    "demotion": {"total": 240, "ours": 200},
}


def told(metrics: Metrics, *jails: JailState) -> State:
    """Return a state with everything in it that there may be."""
    by_name = {jail.name: jail for jail in jails or (WEB1, WEB3)}
    all_of_them = Jails()
    for jail in by_name.values():
        all_of_them.add(jail)
    metrics.tallies.show(all_of_them, by_name, {name: rank(jail) for name, jail in by_name.items()})
    return State(
        jails=all_of_them,
        bgp=Bgp(
            connected=True,
            sessions={"spine": True, "leaf": False},
            changes={("spine", "up"): 2, ("spine", "down"): 1},
            held_back={"spine": 2},
            restarts=1,
            rib={"desired": 4, "acknowledged": 3, "differing": 1},
        ),
        host=Host(spool_depth=3, spool_oldest=1.5, drained=True, looked_at=1_750_000_000.0),
        checks=Checks(2, {"tcp": 9}, {("tcp", "refused"): 1}),
        failover=FAILOVER,
    )


def full() -> Metrics:
    """Return metrics in which everything has happened once."""
    metrics = Metrics()
    for jail in ("web1", "web3"):
        metrics.announced(jail, 2)
        metrics.withdrawn(jail, 1)
        metrics.flapped(jail)
        metrics.moved(jail)
    metrics.ownership("web3", Kind.CONFLICT)
    metrics.has_failover("lan", Stance)
    metrics.turned("lan", str(Stance.LESS))
    metrics.event("created")
    metrics.announced_after(0.004)
    metrics.routed_after(0.02)
    metrics.withdrawn_after(0.3)
    metrics.command("ifconfig", 0.002, failed=True)
    metrics.command("ifconfig", 0.002, failed=False)
    metrics.spool_rejected("cut")
    metrics.database_error()
    metrics.lines_suppressed(7)
    metrics.lines_lost(2)
    metrics.failed("bgp")
    metrics.tell(told(metrics))
    return metrics


def shown(metrics: Metrics) -> list[str]:
    return generate_latest(metrics.registry).decode().splitlines()


def test_every_figure_is_there() -> None:
    lines = shown(full())
    for line in (
        'mobility_jail_running{jail="web1"} 1.0',
        'mobility_jail_announced{jail="web3"} 0.0',
        'mobility_jail_ready{jail="web1"} 1.0',
        'mobility_jail_wanted{jail="web3"} 1.0',
        'mobility_jail_not_announced{jail="web3",reason="suppressed"} 1.0',
        'mobility_jail_damping_penalty{jail="web3"} 6500.0',
        'mobility_jail_suppressed{jail="web3"} 1.0',
        'mobility_jail_frozen{jail="web1"} 0.0',
        'mobility_jail_ownership{jail="web1",kind="held"} 1.0',
        'mobility_jail_anycast{jail="web1"} 0.0',
        'mobility_jail_announcements_total{jail="web1"} 2.0',
        'mobility_jail_withdrawals_total{jail="web1"} 1.0',
        'mobility_jail_flaps_total{jail="web3"} 1.0',
        'mobility_jail_moves_total{jail="web3"} 1.0',
        'mobility_jail_conflicts_total{jail="web1"} 0.0',
        'mobility_jail_conflicts_total{jail="web3"} 1.0',
        'mobility_jails{state="announced"} 1.0',
        'mobility_jails{state="absent"} 0.0',
        "mobility_jails_running 2.0",
        "mobility_jails_announced 1.0",
        "mobility_jails_dark 1.0",
        "mobility_jails_blackholed 0.0",
        "mobility_jails_suppressed 1.0",
        "mobility_jails_frozen 0.0",
        'mobility_jails_not_announced{reason="suppressed"} 1.0',
        'mobility_jails_not_announced{reason="lost"} 0.0',
        'mobility_jails_ownership{kind="held"} 1.0',
        "mobility_jails_without_series 0.0",
        "mobility_fabric_older_claims 0.0",
        'mobility_bgp_session_up{peer="spine"} 1.0',
        'mobility_bgp_session_up{peer="leaf"} 0.0',
        'mobility_bgp_session_changes_total{peer="spine",state="down"} 1.0',
        'mobility_bgp_routes_held_back{peer="spine"} 2.0',
        "mobility_exabgp_restarts_total 1.0",
        "mobility_bridge_connected 1.0",
        'mobility_rib_routes{state="differing"} 1.0',
        'mobility_failover_stance{failover="lan",stance="preferred"} 1.0',
        'mobility_carp_state{failover="lan",state="MASTER",vhid="1@igb0"} 1.0',
        'mobility_carp_demotion{by="mobility"} 200.0',
        'mobility_carp_demotion{by="others"} 40.0',
        "mobility_carp_preempt 0.0",
        "mobility_pfsync_in_step 1.0",
        "mobility_spool_depth 3.0",
        "mobility_spool_oldest_seconds 1.5",
        "mobility_checks 2.0",
        'mobility_check_runs_total{kind="tcp"} 9.0',
        'mobility_check_failures_total{kind="tcp",reason="refused"} 1.0',
        "mobility_draining 1.0",
        "mobility_last_look_timestamp_seconds 1.75e+09",
        "mobility_announcements_total 4.0",
        "mobility_withdrawals_total 2.0",
        "mobility_flaps_total 2.0",
        "mobility_moves_total 2.0",
        'mobility_ownership_refusals_total{kind="conflict"} 1.0',
        'mobility_failover_turns_total{failover="lan",stance="less"} 1.0',
        'mobility_events_total{phase="created"} 1.0',
        'mobility_event_to_announced_seconds_bucket{le="0.005"} 1.0',
        'mobility_event_to_announced_seconds_bucket{le="0.003"} 0.0',
        'mobility_event_to_fib_seconds_bucket{le="0.02"} 1.0',
        'mobility_event_to_withdrawn_seconds_bucket{le="0.25"} 0.0',
        'mobility_command_seconds_count{command="ifconfig"} 2.0',
        'mobility_command_failures_total{command="ifconfig"} 1.0',
        'mobility_spool_rejected_total{reason="cut"} 1.0',
        "mobility_database_errors_total 1.0",
        "mobility_log_lines_suppressed_total 7.0",
        "mobility_log_lines_lost_total 2.0",
        'mobility_metrics_errors_total{part="bgp"} 1.0',
    ):
        assert line in lines
    assert any(line.startswith('mobility_build_info{version="') for line in lines)
    (started,) = [float(line.split()[1]) for line in lines if line.startswith("mobility_start_time_seconds ")]
    assert 0 <= time.time() - started < 3600


@pytest.mark.parametrize("form", ["text", "OpenMetrics"])
def test_what_is_served_is_the_catalogue_neither_more_nor_less(form: str) -> None:
    """Prometheus asks for OpenMetrics where it can have it, and reads the older text as well."""
    registry = full().registry
    if form == "text":
        families = list(read_text(generate_latest(registry).decode()))
    else:
        families = list(read_openmetrics(openmetrics(registry).decode()))
    found = {}
    for family in families:
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        assert family.samples, f"{name}: the test must make it show one"
        found[name] = (family.type, labels, family.documentation)
    assert found == {each.name: (each.kind, {*each.labels}, each.meaning) for each in CATALOGUE.values()}


def test_prometheus_finds_nothing_to_complain_of() -> None:
    """promtool check metrics lints names, types and help texts."""
    promtool = shutil.which("promtool")
    assert promtool, "promtool is not installed: apt-get install prometheus, pkg install prometheus"
    text = generate_latest(full().registry)
    checked = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


def test_names_are_as_prometheus_asks_for_them() -> None:
    """prometheus.io/docs/practices/naming: base units, told at the end; what only grows ends with _total, nothing else does."""
    for each in CATALOGUE.values():
        assert each.name.startswith("mobility_")
        assert each.name.endswith("_total") is (each.kind == COUNTER)
        assert each.name.endswith("_seconds") is each.unit.startswith(SECONDS), each.name
        assert bool(each.buckets) is (each.kind == HISTOGRAM)
        assert each.meaning.endswith(".")


def test_what_is_counted_is_there_before_it_happens() -> None:
    """A series that comes with the value 1 has no increase(): the first flap would be missed."""
    metrics = Metrics()
    metrics.has_failover("lan", Stance)
    metrics.tell(told(metrics))
    lines = shown(metrics)
    for name in ("announcements", "withdrawals", "flaps", "moves", "conflicts"):
        assert f'mobility_jail_{name}_total{{jail="web1"}} 0.0' in lines
    for line in (
        'mobility_events_total{phase="prestop"} 0.0',
        'mobility_ownership_refusals_total{kind="lost"} 0.0',
        'mobility_command_failures_total{command="route"} 0.0',
        'mobility_spool_rejected_total{reason="owner"} 0.0',
        'mobility_failover_turns_total{failover="lan",stance="preferred"} 0.0',
        'mobility_metrics_errors_total{part="jails"} 0.0',
    ):
        assert line in lines


def test_what_comes_from_outside_makes_no_series_of_its_own() -> None:
    metrics = Metrics()
    before = len(shown(metrics))
    for number in range(100):
        metrics.spool_rejected(f"reason {number}")
        metrics.command(f"/tmp/{number}", 0.1, failed=True)
    lines = shown(metrics)
    assert 'mobility_spool_rejected_total{reason="other"} 100.0' in lines
    assert 'mobility_command_failures_total{command="other"} 100.0' in lines
    histogram = [line for line in lines if line.startswith("mobility_command_seconds") and 'command="other"' in line]
    assert len(lines) == before + len(histogram) + 1


def test_every_reason_of_the_spool_and_every_command_is_known() -> None:
    """What the program itself says must not end as "other"."""
    folder = Path(subject.__file__).parents[1]
    spool = (folder / "events" / "spool.py").read_text()
    assert set(re.findall(r'BadEvent\("(\w+)"', spool)) == {*subject.REJECTED}
    text = "".join(path.read_text() for path in folder.rglob("*.py"))
    ran = set(re.findall(r'\.command\(\s*\[\s*"([a-z]+)"', text)) | {"jls", "route", "jexec"}
    assert ran == {*subject.COMMANDS}


def test_what_is_gone_is_gone() -> None:
    metrics = full()
    metrics.tallies.keep({"web1"})
    metrics.tell(told(metrics, WEB1))
    assert not [line for line in shown(metrics) if "web3" in line]
    # and if it comes back it begins anew
    metrics.tell(told(metrics))
    assert 'mobility_jail_flaps_total{jail="web3"} 0.0' in shown(metrics)
    assert 'mobility_jail_flaps_total{jail="web1"} 1.0' in shown(metrics)


def test_two_agents_in_one_process_do_not_mix() -> None:
    one, other = Metrics(), Metrics()
    one.announced("web1", 5)
    assert "mobility_announcements_total 0.0" in shown(other)


# -- ten thousand jails


def fleet(number: int = 10_000) -> dict[str, JailState]:
    return {name: replace(WEB1, name=name) for name in (f"jail{index:05}" for index in range(number))}


def of_jails(metrics: Metrics) -> set[str]:
    return {
        sample.labels["jail"]
        for family in metrics.registry.collect()
        for sample in family.samples
        if "jail" in sample.labels
    }


@pytest.mark.parametrize("limit", [0, 1, 1000])
def test_the_number_of_series_is_bounded_however_many_jails_there_are(limit: int) -> None:
    metrics = Metrics(limit)
    jails = fleet()
    for name in jails:
        metrics.announced(name, 2)
        metrics.flapped(name)
        metrics.moved(name)
    empty = sum(len(family.samples) for family in Metrics().registry.collect())
    metrics.tell(told(metrics, *jails.values()))
    samples = [sample for family in metrics.registry.collect() for sample in family.samples]
    each = [sample for sample in samples if "jail" in sample.labels]
    assert len({sample.labels["jail"] for sample in each}) == limit
    assert len(each) <= 15 * limit
    assert len(samples) - len(each) < empty + 100
    assert f"mobility_jails_without_series {10_000 - limit}.0" in shown(metrics)
    # and the numbers of all leave none out
    assert "mobility_jails_running 10000.0" in shown(metrics)
    assert "mobility_flaps_total 10000.0" in shown(metrics)


def test_what_is_kept_between_scrapes_is_bounded() -> None:
    """Of 10,000 jails: the last state of those that are shown, and what was counted of those to which anything happened."""
    metrics, jails = Metrics(1000), fleet()
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(2):
            metrics.tell(told(metrics, *jails.values()))
            assert len(list(metrics.registry.collect())) > 50
        gc.collect()
        at_rest = tracemalloc.get_traced_memory()[0] - before
        for name in jails:
            metrics.announced(name, 2)
        metrics.tell(told(metrics, *jails.values()))
        gc.collect()
        counted = tracemalloc.get_traced_memory()[0] - before
        metrics.tallies.keep(set())
        metrics.tell(State())
        gc.collect()
        left = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert at_rest < 1_000_000
    assert counted < 4_000_000
    assert left < 1_000_000
    assert len(metrics.tallies) == 0


def test_a_jail_keeps_its_series_until_its_place_is_needed() -> None:
    metrics, jails = Metrics(100), fleet(1000)
    metrics.tell(told(metrics, *jails.values()))
    first = of_jails(metrics)
    assert first == {f"jail{index:05}" for index in range(100)}
    # nothing has happened: the same ones, in whatever order they come
    metrics.tell(told(metrics, *reversed(jails.values())))
    assert of_jails(metrics) == first
    # one far behind flaps: it takes one place, and keeps it when it is at rest
    flapping = replace(WEB3, name="jail00900")
    metrics.tell(told(metrics, *(jails | {"jail00900": flapping}).values()))
    second = of_jails(metrics)
    assert second - first == {"jail00900"}
    assert first - second == {"jail00099"}
    metrics.tell(told(metrics, *jails.values()))
    assert of_jails(metrics) == second
    # all are dark, for the host's reason: nobody stands out by that
    dark = {name: replace(jail, announced=False, reason=Cause.NO_BRIDGE) for name, jail in jails.items()}
    metrics.tell(told(metrics, *dark.values()))
    assert of_jails(metrics) == second
    metrics.tell(told(metrics, *(dark | {"jail00900": flapping}).values()))
    assert of_jails(metrics) == second
    # a shown one that stops gives way to one that runs
    stopped = jails | {"jail00005": JailState("jail00005")}
    metrics.tell(told(metrics, *stopped.values()))
    assert second - of_jails(metrics) == {"jail00005"}


def test_a_start_takes_no_place_from_others() -> None:
    """A jail that starts or stops is not announced for a moment: that is no trouble."""
    metrics, jails = Metrics(10), fleet(100)
    metrics.tell(told(metrics, *jails.values()))
    first = of_jails(metrics)
    for cause in (Cause.STARTING, Cause.SENDING, Cause.STOPPING):
        starting = replace(jails["jail00050"], announced=False, reason=cause)
        metrics.tell(told(metrics, *(jails | {"jail00050": starting}).values()))
        assert of_jails(metrics) == first


# -- being asked


def test_a_scrape_asks_what_is_true_now() -> None:
    metrics, asked = Metrics(), 0

    def ask() -> State:
        nonlocal asked
        asked += 1
        return told(metrics, *([WEB1] * (asked > 1)))

    metrics.ask(ask)
    assert "mobility_jails_running 2.0" in shown(metrics)
    assert "mobility_jails_running 1.0" in shown(metrics)


def test_an_agent_without_time_leaves_what_the_last_scrape_showed(caplog: pytest.LogCaptureFixture) -> None:
    metrics = Metrics()
    metrics.ask(lambda: told(metrics))
    assert "mobility_jails_running 2.0" in shown(metrics)

    def late() -> State:
        raise TimeoutError("the agent has not answered within 5 s")

    metrics.ask(late)
    metrics.database_error()
    lines = shown(metrics)
    assert "mobility_jails_running 2.0" in lines
    assert "mobility_database_errors_total 1.0" in lines
    assert 'mobility_metrics_errors_total{part="agent"} 1.0' in lines
    assert "figures are old" in caplog.text


def test_a_bug_in_one_part_takes_nothing_else_along(caplog: pytest.LogCaptureFixture) -> None:
    metrics = Metrics()
    metrics.tell(replace(told(metrics), failover={"groups": [{}], "pfsync": None, "demotion": {}}))
    with caplog.at_level(logging.ERROR):
        lines = shown(metrics)
    assert "mobility_jails_running 2.0" in lines
    assert not [line for line in lines if line.startswith(("mobility_failover_stance", "mobility_carp"))]
    assert "figures are missing" in caplog.text
    assert 'mobility_metrics_errors_total{part="failover"} 1.0' in lines


def test_scrapes_at_once_ask_one_after_the_other() -> None:
    metrics, under_way, most = Metrics(), 0, 0
    together = threading.Barrier(4)

    def ask() -> State:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        state = told(metrics, *fleet(50).values())
        under_way -= 1
        return state

    def scrape() -> None:
        together.wait()
        shown(metrics)

    metrics.ask(ask)
    threads = [threading.Thread(target=scrape) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


# -- where they are served


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        assert isinstance(port, int)
        return port


def test_they_are_served_where_the_configuration_says() -> None:
    metrics, listen = Metrics(), f"127.0.0.1:{free_port()}"
    metrics.serve(listen)
    try:
        with urllib.request.urlopen(f"http://{listen}/metrics", timeout=10) as answer:
            assert b"mobility_announcements_total 0.0" in answer.read()
        with pytest.raises(MetricsError, match=r"metrics\.listen"):
            Metrics().serve(listen)
    finally:
        metrics.close()
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"http://{listen}/metrics", timeout=10)


def test_nowhere_is_a_place() -> None:
    metrics = Metrics()
    metrics.serve("")
    metrics.close()
