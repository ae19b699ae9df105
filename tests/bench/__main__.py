"""`make bench`: ours beside BIRD, GoBGP and raw ExaBGP, in one run and one topology.

For single starts and in bulk, host a runs mobility; host b runs what it is compared with: BIRD that redistributes kernel
routes, then ExaBGP with a pipe straight into it. At scale all of them run on host a, and host b takes its jails over. A
gateway pair fails over by ours and by a devd script that writes into ExaBGP's pipe.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.bench import bulk, failover, scale, start
from tests.bench.figures import Figures

REPOSITORY = Path(__file__).resolve().parents[2]


def main() -> int:
    """Measure everything, print the table, write build/bench.json."""
    parser = argparse.ArgumentParser(prog="bench")
    parser.add_argument("--starts", type=int, default=200, help="jail starts (default: %(default)s)")
    parser.add_argument("--jails", type=int, default=5000, help="jails announced in bulk (default: %(default)s)")
    parser.add_argument("--scale", type=int, default=10_000, help="jails on a host at scale (default: %(default)s)")
    parser.add_argument(
        "--received", type=int, default=100_000, help="routes of the fabric then (default: %(default)s)"
    )
    parser.add_argument("--failovers", type=int, default=20, help="changes of the MASTER (default: %(default)s)")
    parser.add_argument("--idle", type=float, default=60.0, help="seconds of idling (default: %(default)s)")
    options = parser.parse_args()
    figures = Figures()
    start.measure(figures, options.starts)
    bulk.measure(figures, options.jails, options.idle)
    failover.measure(figures, options.failovers)
    scale.measure(figures, options.scale, options.received, min(options.starts, 25))
    target = REPOSITORY / "build" / "bench.json"
    figures.write(target)
    print(f"written to {target}")
    if figures.value("restart_updates_sent"):
        print("failed: an agent that was restarted has sent UPDATEs", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
