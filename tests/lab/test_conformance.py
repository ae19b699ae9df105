"""The lab is like FreeBSD: `make conformance` as part of the tests, and FreeBSD's own tests where they can be had."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab.conformance import forms
from tests.lab.conformance.__main__ import REPOSITORY, recorded
from tests.lab.conformance.freebsd import runner
from tests.lab.invariants import await_rest
from tests.lab.topology import Lab

TESTS = runner.tests_folder()
PREFIXES = ("198.51.100.7/32", "2001:db8:7::7/128")
_RAN = re.compile(r"\bran (?:jail=\S+ )?argv=(?:\"([^\"]*)\"|(\S+))")


@pytest.mark.timeout(600)
def test_the_recordings_and_cases_answer_as_freebsd_did() -> None:
    argv = [sys.executable, "-m", "tests.lab.conformance"]
    result = subprocess.run(argv, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    print(result.stdout)
    assert result.returncode == 0, result.stderr


@pytest.mark.hosts(1)
def test_what_the_agent_runs_is_on_record(lab: Lab) -> None:
    """No command of ours without an answer from a real FreeBSD or its manual page: those of a jail's whole life."""
    host = lab.hosts[0]
    host.configure(agent={"look_every": 1.0, "reject_for": 0.5, "drain_for": 0.2})
    host.start_agent()
    host.start_exabgp()
    lab.await_session(host)
    host.define_jail("web1", PREFIXES)
    host.start_jail("web1")
    for prefix in PREFIXES:
        lab.spine.fib.wait(prefix, via=host.address)
    host.stop_jail("web1")
    await_rest(lab, host, {})
    ran = [one or other for one, other in _RAN.findall((host.folder / "agent.log").read_text())]
    assert len(ran) > len(PREFIXES), "the agent's log does not say what it ran"
    known = {forms.shape(forms.words_of(answer.head)) for answer in recorded()}
    unknown = [line for line in ran if forms.shape(forms.words_of(line)) not in known]
    assert not unknown


@pytest.mark.skipif(TESTS is None, reason=f"{runner.VARIABLE} does not say where FreeBSD's own tests are (/usr/tests)")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("script", runner.scripts(), ids=lambda script: script.path)
def test_freebsd_s_own_tests(script: runner.Script) -> None:
    root = TESTS or Path()
    if script.file(root) is None:
        pytest.skip(f"{root} has no {script.path}")
    outcomes = {case: runner.run(root, script, case) for case in runner.cases(root, script)}
    assert outcomes
    skipped = {case: outcome.why for case, outcome in outcomes.items() if outcome.state == "skipped"}
    print(f"skipped: {skipped}")
    failed = {case: f"{outcome.why}\n{outcome.printed}" for case, outcome in outcomes.items() if not outcome.good}
    new = {case: text for case, text in failed.items() if case not in script.fails}
    assert not new
    stale = [case for case, outcome in outcomes.items() if outcome.state == "passed" and case in script.fails]
    assert not stale, "passed although expected to fail: take them out of tests.toml"
