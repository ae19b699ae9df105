"""`make bench`: ours beside BIRD redistributing kernel routes and beside raw ExaBGP, in one run and one topology.

Host a runs mobility; host b runs what it is compared with: BIRD itself, then ExaBGP with a pipe straight into it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.bench import bulk, start
from tests.bench.figures import Figures

REPOSITORY = Path(__file__).resolve().parents[2]


def main() -> int:
    """Measure everything, print the table, write build/bench.json."""
    parser = argparse.ArgumentParser(prog="bench")
    parser.add_argument("--starts", type=int, default=200, help="jail starts (default: %(default)s)")
    parser.add_argument("--jails", type=int, default=5000, help="jails announced in bulk (default: %(default)s)")
    parser.add_argument("--idle", type=float, default=60.0, help="seconds of idling (default: %(default)s)")
    options = parser.parse_args()
    figures = Figures()
    start.measure(figures, options.starts)
    bulk.measure(figures, options.jails, options.idle)
    target = REPOSITORY / "build" / "bench.json"
    figures.write(target)
    print(f"written to {target}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
