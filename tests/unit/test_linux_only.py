"""The list of tests that need Linux names what there is; everything else is collected on FreeBSD."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.linux_only import NOT_COLLECTED, SKIPPED

TESTS = Path(__file__).resolve().parents[1]
#: A FreeBSD as far as Python's modules are concerned: no ctypes, no namespaces, no netlink, none of Linux's numbers.
FREEBSD = """
import os, signal, socket, sys
import watchdog.observers, hypothesis  # their Linux parts stay as they are
sys.modules["ctypes"] = None
for module in (os, signal, socket):
    for name in [name for name in dir(module) if "NETLINK" in name or "pidfd" in name or "inotify" in name]:
        delattr(module, name)
sys.platform = "freebsd14"
import pytest
sys.exit(pytest.main(["--collect-only", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", sys.argv[1]]))
"""


@pytest.mark.parametrize("name", [*NOT_COLLECTED, *SKIPPED])
def test_what_is_listed_is_there(name: str) -> None:
    path, _, function = name.partition("::")
    file = TESTS / path
    assert file.exists()
    assert not function or re.search(rf"^(async )?def {function}\(", file.read_text(), re.MULTILINE)


def test_the_rest_is_collected_on_freebsd() -> None:
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", FREEBSD, str(TESTS)],
        cwd=TESTS.parent,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    collected = {line.partition("::")[0] for line in done.stdout.splitlines() if "::" in line}
    assert {"tests/lab/test_main_job.py", "tests/chaos/test_walk.py", "tests/unit/test_plan.py"} <= collected
    assert not [path for path in collected if path.startswith(tuple(f"tests/{left_out}" for left_out in NOT_COLLECTED))]
