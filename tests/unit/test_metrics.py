"""The figures: that each is there under its name, and that they are served where the configuration says."""

from __future__ import annotations

import socket
import urllib.error
import urllib.request
from dataclasses import dataclass

import pytest
from prometheus_client import generate_latest

from mobility.metrics import Metrics, MetricsError

STATE = {
    "stands": {"announced": 2, "absent": 0},
    "not_announced": {"web3": 'refused: "x"\n'},
    "rib": {"desired": 4, "acknowledged": 3, "differing": 1, "held": 0},
    "bridge": True,
    "drained": ["web4"],
    "spool": {"depth": 3, "oldest_s": 1.5},
}


@dataclass(frozen=True)
class Session:
    state: str


def shown(metrics: Metrics) -> list[str]:
    return generate_latest(metrics.registry).decode().splitlines()


def test_every_figure_is_there() -> None:
    metrics = Metrics()
    metrics.refresh(STATE)
    metrics.sessions({"spine": Session("up"), "leaf": Session("down")})
    metrics.event("created")
    metrics.announced_after(0.004)
    metrics.command("ifconfig", 0.002, failed=True)
    metrics.command("ifconfig", 0.002, failed=False)
    metrics.spool_rejected("cut")
    metrics.announced(2)
    metrics.withdrawn(1)
    metrics.database_error()
    lines = shown(metrics)
    for line in (
        'mobility_jails{state="announced"} 2.0',
        'mobility_jails{state="absent"} 0.0',
        'mobility_jail_not_announced{jail="web3",reason="refused: \\"x\\"\\n"} 1.0',
        'mobility_rib_routes{state="differing"} 1.0',
        'mobility_bgp_session_up{peer="spine"} 1.0',
        'mobility_bgp_session_up{peer="leaf"} 0.0',
        "mobility_bridge_connected 1.0",
        "mobility_draining 1.0",
        "mobility_spool_depth 3.0",
        "mobility_spool_oldest_seconds 1.5",
        'mobility_events_total{phase="created"} 1.0',
        'mobility_event_to_announced_seconds_bucket{le="0.005"} 1.0',
        'mobility_event_to_announced_seconds_bucket{le="0.003"} 0.0',
        'mobility_command_seconds_count{command="ifconfig"} 2.0',
        'mobility_command_failures_total{command="ifconfig"} 1.0',
        'mobility_spool_rejected_total{reason="cut"} 1.0',
        "mobility_announcements_total 2.0",
        "mobility_withdrawals_total 1.0",
        "mobility_database_errors_total 1.0",
    ):
        assert line in lines
    assert any(line.startswith('mobility_build_info{version="') for line in lines)


def test_what_is_gone_is_gone() -> None:
    metrics = Metrics()
    metrics.refresh(STATE)
    metrics.refresh({"not_announced": {}})
    assert not [line for line in shown(metrics) if line.startswith("mobility_jail_not_announced{")]


def test_two_agents_in_one_process_do_not_mix() -> None:
    one, other = Metrics(), Metrics()
    one.announced(5)
    assert "mobility_announcements_total 0.0" in shown(other)


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
