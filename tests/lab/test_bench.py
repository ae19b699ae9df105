"""The bench at scale and of failover, in small: that it runs, and gives every figure for everybody."""

from __future__ import annotations

import pytest

from tests.bench import failover, scale
from tests.bench.figures import Figures

JAILS, RECEIVED, STARTS = 25, 200, 1


def test_the_bench_at_scale_in_small(capsys: pytest.CaptureFixture[str]) -> None:
    figures = Figures()
    scale.measure(figures, JAILS, RECEIVED, STARTS, drain_for=0.2)
    measured = {figure.name for figure in figures.figures}
    for what in ("announce", "replay", "withdraw", "move"):
        assert {f"scale_{what}_s", f"scale_{what}_bird_s", f"scale_{what}_gobgp_s"} <= measured
        assert {f"scale_{what}_vs_bird", f"scale_{what}_vs_gobgp"} <= measured
    assert {f"scale_rss_{name}_mb" for name in ("agent", "bridge", "exabgp", "bird", "gobgp")} <= measured
    assert {"scale_let_go_s", "scale_new_bridge_s", "scale_restart_s", "scale_drain_s"} <= measured
    assert {"scale_exabgp_alone_s", "scale_hook_to_fib_rest_p50_ms"} <= measured
    assert figures.value("restart_updates_sent") == 0
    assert figures.value("new_bridge_updates_sent") == 0
    table = capsys.readouterr().out.rpartition("to GoBGP\n")[2]
    assert [line.split()[0] for line in table.splitlines()][:3] == ["receive", "receive_cpu", "announce"]


def test_the_bench_of_failover_in_small() -> None:
    figures = Figures()
    failover.measure(figures, 2, crashes=1, pace=5.0)
    measured = {figure.name for figure in figures.figures}
    for who in ("", "script_"):
        names = {f"failover_planned_lost_{who}ms", f"failover_crash_lost_{who}ms", f"carp_event_to_fib_{who}p50_ms"}
        names |= {f"failover_cut_lost_{who}ms", f"failover_exabgp_lost_{who}ms"}
        assert names <= measured
    assert figures.value("failover_planned_lost_ms") == 0
    assert figures.value("failover_exabgp_lost_ms") == 0
