"""`python -m tests.lab.conformance [--transcripts DIR] [--only NAME]... [--json FILE]`."""

from __future__ import annotations

import argparse
import json
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.lab.conformance.machine import transcript
from tests.lab.conformance.transcript import Result, compare, show

REPOSITORY = Path(__file__).resolve().parents[3]
TRANSCRIPTS = REPOSITORY / "tests/lab/transcripts/freebsd-13.2"
PRELUDE = "prelude.sh"
#: The share of answers that must be the same: of each script of another folder, and of these of our own.
NINE_OF_TEN = 0.9
REQUIRED = {
    "1-interfaces": NINE_OF_TEN,
    "2-vnet": NINE_OF_TEN,
    "3-routes": NINE_OF_TEN,
    "4b-neighbours": NINE_OF_TEN,
    "5-jail": NINE_OF_TEN,
    "8-reference": 1.0,
}
#: Scripts at a time. They mostly wait.
PARALLEL = 3
#: How a folder's README marks what is not to be run: "| 11-rc.txt | (to read, not for the lab) ...".
_TO_READ = re.compile(r"^\|\s*(\S+)\.txt\s*\|\s*\(to read, not for the lab\)", re.MULTILINE)


def scripts(folder: Path, only: list[str]) -> tuple[list[str], dict[str, str]]:
    """Return the names of a folder's runnable pairs, and of those that are not run with the reason why."""
    readme = folder / "README.md"
    to_read = set(_TO_READ.findall(readme.read_text())) if readme.exists() else set()
    run, left = [], {}
    stems = {path.stem for path in folder.iterdir() if path.suffix in {".sh", ".txt"}} - {Path(PRELUDE).stem}
    for name in sorted(stems, key=lambda stem: (int(re.match(r"\d*", stem)[0] or 0), stem)):  # type: ignore[index]
        if name in to_read:
            left[name] = "the folder's README says: to read, not for the lab"
        elif not (folder / f"{name}.sh").exists():
            left[name] = "has no script"
        elif not (folder / f"{name}.txt").exists():
            left[name] = "has no transcript"
        elif not only or name in only:
            run.append(name)
        else:
            left[name] = "not asked for"
    return run, left


def run(folder: Path, name: str) -> Result:
    """Run one pair's script on a machine of its own and compare."""
    script, prelude = folder / f"{name}.sh", folder / PRELUDE
    found = transcript(prelude if prelude.exists() else TRANSCRIPTS / PRELUDE, script)
    return compare(script.read_text(), (folder / f"{name}.txt").read_text(), found)


def threshold(folder: Path, name: str) -> float | None:
    """Return the share of a script's answers that must be the same; None where it is only reported."""
    if folder.resolve() == TRANSCRIPTS:
        return REQUIRED.get(name)
    return NINE_OF_TEN


def main() -> int:
    """Run what was asked for; 1 if any script is below its threshold."""
    parser = argparse.ArgumentParser(prog="python -m tests.lab.conformance", description=__doc__)
    parser.add_argument("--transcripts", type=Path, default=TRANSCRIPTS, metavar="DIR")
    parser.add_argument("--only", action="append", default=[], metavar="NAME")
    parser.add_argument("--json", type=Path, default=REPOSITORY / "build/conformance.json", metavar="FILE")
    options = parser.parse_args()
    folder: Path = options.transcripts
    names, left = scripts(folder, options.only)
    pool = ThreadPoolExecutor(PARALLEL)
    try:
        results = dict(zip(names, pool.map(lambda name: run(folder, name), names), strict=True))
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C ends the scripts that run, and must not begin others
    failed = []
    for name, result in results.items():
        for difference in result.differences:
            print("\n".join([f"{name}:", *show(difference)]))
    print()
    for name, result in results.items():
        wanted = threshold(folder, name)
        if wanted is None:
            verdict = "(only reported)"
        elif result.same >= wanted * result.commands:
            verdict = f"(at least {wanted:.0%}: good)"
        else:
            verdict = f"(at least {wanted:.0%}: TOO FEW)"
            failed.append(name)
        print(f"{name}: {result.same} of {result.commands} answers are the same {verdict}")
    for name, reason in left.items():
        print(f"{name}: not run: {reason}")
    commands = sum(result.commands for result in results.values())
    same = sum(result.same for result in results.values())
    print(f"all: {same} of {commands} answers are the same")
    document = {
        "scripts": {name: {"commands": each.commands, "same": each.same} for name, each in results.items()},
        "commands": commands,
        "same": same,
    }
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(document, indent=1) + "\n")
    if not names:
        print(f"conformance: {folder} holds no pair to run")
        return 1
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
