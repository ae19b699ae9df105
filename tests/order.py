"""Which test files begin first: of two that run at once a long one that begins last would run alone.

pytest-xdist hands out whole files (`--dist loadfile`) in the order of collection, where it is told not to have an order of
its own, which is by the number of tests (`--no-loadscope-reorder`).
"""

from __future__ import annotations

from pathlib import PurePath

#: Seconds, about, of the files that take ten or more, by their paths below this folder.
SECONDS: dict[str, float] = {
    "lab/managers/test_bastille.py": 60,
    "lab/test_faults.py": 60,
    "lab/test_readme.py": 60,
    "lab/test_failover.py": 55,
    "lab/test_ownership.py": 55,
    "lab/test_services.py": 55,
    "chaos/test_kill_steps.py": 55,
    "lab/test_uplinks.py": 50,
    "lab/test_kinds.py": 45,
    "lab/test_main_job.py": 45,
    "interop/test_exabgp_bird.py": 45,
    "lab/test_prometheus.py": 35,
    "lab/test_doctor.py": 35,
    "lab/test_health.py": 35,
    "lab/test_operator.py": 35,
    "lab/test_bench.py": 35,
    "lab/test_ownership_healing.py": 30,
    "lab/test_shutdown.py": 30,
    "lab/test_conformance.py": 30,
    "lab/kernel/test_carp.py": 25,
    "interop/test_deployed.py": 25,
    "lab/managers/test_iocage.py": 25,
    "lab/test_traps.py": 25,
    "unit/bgp/test_ownership_fabric.py": 25,
    "unit/test_hook.py": 25,
    "lab/test_demo.py": 25,
    "chaos/test_walk.py": 22,
    "interop/test_sessions.py": 20,
    "lab/managers/test_jailconf.py": 20,
    "lab/test_fabric.py": 20,
    "lab/test_terminal.py": 20,
    "interop/test_gobgp.py": 20,
    "unit/health/test_manager.py": 18,
    "lab/test_jail8.py": 15,
    "interop/test_frr.py": 15,
    "interop/test_openbgpd.py": 15,
    "lab/test_attributes.py": 12,
    "lab/test_cleanup.py": 12,
    "lab/test_topology.py": 12,
    "unit/deploy/test_services.py": 12,
    "unit/failover/test_pair.py": 12,
    "interop/test_bird.py": 12,
    "unit/hooks/test_bastille.py": 10,
    "lab/test_metrics.py": 10,
    "unit/deploy/test_prometheus.py": 10,
}


def rank(path: PurePath) -> float:
    """Return by what a file, by its path below this folder, is put in order: who takes longest, then who is not listed."""
    return -SECONDS.get(path.as_posix(), 0.0)
