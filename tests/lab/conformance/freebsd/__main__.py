"""`MOBILITY_FREEBSD_TESTS=/usr/tests python -m tests.lab.conformance.freebsd`: run them all, say how each ended."""

from __future__ import annotations

import sys

from tests.lab.conformance.freebsd import runner


def main() -> int:
    """1 if a case failed that was not expected to, or the other way round."""
    root = runner.tests_folder()
    if root is None:
        print(f"{runner.VARIABLE} does not say where FreeBSD's tests are (a folder like /usr/tests)")
        return 1
    wrong = 0
    for script in runner.scripts():
        if script.file(root) is None:
            print(f"{script.path}: not in {root}")
            continue
        for case in runner.cases(root, script):
            outcome = runner.run(root, script, case)
            expected = script.fails.get(case, "")
            print(
                f"{script.path} {case}: {outcome.state} {outcome.why}"
                + (f" (expected: {expected})" if expected else "")
            )
            wrong += outcome.state == "passed" if expected else not outcome.good
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
