"""The lab is like FreeBSD 13.2: `make conformance`, as part of the tests. It writes build/conformance.json."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.lab.conformance.__main__ import REPOSITORY


@pytest.mark.timeout(600)
def test_the_recorded_scripts_answer_as_freebsd_did() -> None:
    argv = [sys.executable, "-m", "tests.lab.conformance"]
    result = subprocess.run(argv, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    print(result.stdout)
    assert result.returncode == 0, result.stderr
