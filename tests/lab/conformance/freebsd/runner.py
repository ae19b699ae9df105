"""Run FreeBSD's shell tests, case by case, each on a fresh lab machine."""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from tests.lab.conformance import machine

VARIABLE = "MOBILITY_FREEBSD_TESTS"
HERE = Path(__file__).parent
ATF = "atf.sh"
#: What scripts read from beside them and from here: "$(atf_get_srcdir)/../common/vnet.subr".
COMMON = "sys/common"
LIMIT = 60.0
_RESULT = "\n== result: "
#: $0: atf.sh, $1: the script, $2: a case or "--list". Descriptor 3 is where the result goes.
_RUN = f'mkdir -p /tmp/work && cd /tmp/work && sh "$0" "$1" "$2" /tmp/work 3>/tmp/result; printf "{_RESULT}"; cat /tmp/result'


@dataclass(frozen=True, slots=True)
class Script:
    """One of FreeBSD's test scripts, by its path below /usr/tests; its cases, if not all; those that can not pass, why."""

    path: str
    kernel: str = "13.2"
    cases: list[str] = field(default_factory=list)
    fails: dict[str, str] = field(default_factory=dict)

    def file(self, root: Path) -> Path | None:
        """Return the script in a folder like /usr/tests, None where it is not there."""
        return next((file for file in (root / self.path, root / f"{self.path}.sh") if file.is_file()), None)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a case ended: passed, skipped, failed, expected_failure or broken; why; and all that it printed."""

    state: str
    why: str
    printed: str

    @property
    def good(self) -> bool:
        """Whether atf(7) counts it as a success."""
        return self.state in ("passed", "skipped", "expected_failure")


def scripts() -> list[Script]:
    """Return the scripts of tests.toml."""
    return [Script(**each) for each in tomllib.loads((HERE / "tests.toml").read_text())["script"]]


def tests_folder() -> Path | None:
    """Return the folder that MOBILITY_FREEBSD_TESTS names; None where it names none."""
    named = os.environ.get(VARIABLE, "")
    return Path(named).resolve() if named else None


def cases(root: Path, script: Script) -> list[str]:
    """Return the names of the cases to run. Raises FileNotFoundError where the folder has no such script."""
    printed, _result = _run(root, script, "--list")
    return [name for name in printed.split() if not script.cases or name in script.cases]


def run(root: Path, script: Script, case: str) -> Outcome:
    """Run one case on a machine of its own."""
    printed, result = _run(root, script, case)
    state, _space, why = (
        result.strip().splitlines()[-1].partition(" ") if result.strip() else ("broken", "", "no result")
    )
    return Outcome(state, why, printed)


def _run(root: Path, script: Script, word: str) -> tuple[str, str]:
    file = script.file(root)
    if file is None:
        raise FileNotFoundError(f"{root} has no {script.path}")
    folder = Path(script.path).parent.as_posix()
    files = {ATF: (HERE / ATF).read_text()}
    for place in (folder, COMMON):
        for each in sorted((root / place).iterdir()):
            if each.suffix in (".sh", ".subr", ".conf") or each == file:
                files[f"tests/{place}/{each.name}"] = each.read_text()
    printed = machine.run((_RUN, ATF, f"tests/{folder}/{file.name}", word), files, kernel=script.kernel, limit=LIMIT)
    before, _mark, result = printed.partition(_RESULT)
    return before, result
