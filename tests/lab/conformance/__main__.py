"""`python -m tests.lab.conformance [--transcripts DIR] [--only NAME]... [--json FILE]`."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from tests.lab.conformance import cases, expected, forms, machine
from tests.lab.conformance.transcript import COMMAND, Answer, Result, answers, compare, show

REPOSITORY = Path(__file__).resolve().parents[3]
TRANSCRIPTS = REPOSITORY / "tests/lab/transcripts/freebsd-13.2"
CASES = Path(__file__).parent / "cases"
PRELUDE = "prelude.sh"
#: The share of answers that must be the same: of each script of another folder, and of all of ours together.
NINE_OF_TEN = 0.9
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
    found = machine.transcript(prelude if prelude.exists() else TRANSCRIPTS / PRELUDE, script)
    return compare(script.read_text(), (folder / f"{name}.txt").read_text(), found)


def run_cases(file: Path) -> Result:
    """Run one file of cases on a machine of its own and compare."""
    loaded = cases.load(file)
    found = machine.run(('. "$0"', "cases.sh"), {"cases.sh": loaded.script}, kernel=loaded.kernel)
    return compare(loaded.commands, loaded.expected, found)


def recorded() -> list[Answer]:
    """Return every answer of FreeBSD that is on record: the transcripts' (also those only to read) and the cases'."""
    texts = [path.read_text() for path in sorted(TRANSCRIPTS.glob("*.txt"))]
    texts += [cases.load(path).expected for path in sorted(CASES.glob("*.txt"))]
    return [answer for text in texts for answer in answers(text) if answer.head.startswith(COMMAND)]


def product_forms() -> list[forms.Form]:
    """Return the forms of FreeBSD's commands that the product's source holds."""
    return forms.forms(sorted((REPOSITORY / "mobility").rglob("*.py")), REPOSITORY)


def scenario_forms() -> list[forms.Form]:
    """Return those that the scenarios and their grounds hold."""
    files = [file for file in sorted((REPOSITORY / "tests/lab").glob("*.py")) if not file.name.startswith("test_")]
    return forms.forms(files, REPOSITORY)


def unanswered(wanted: Iterable[forms.Form], on_record: Iterable[Answer]) -> list[forms.Form]:
    """Return the forms of which no command line is on record."""
    lines = {forms.words_of(answer.head) for answer in on_record}
    return [form for form in wanted if not any(forms.matches(form, words) for words in lines)]


def per_command(results: Mapping[str, Result]) -> dict[str, tuple[int, int]]:
    """Return, for each of FreeBSD's commands, how many of its answers are the same, and of how many."""
    every = Counter(forms.program(head) for result in results.values() for head in result.heads)
    other = Counter(
        forms.program(f"$ {expected.head(each)}") for result in results.values() for each in result.differences
    )
    return {name: (count - other[name], count) for name, count in sorted(every.items()) if name}


def main() -> int:
    """Run what was asked for; 1 if the lab is less like FreeBSD than it has to be, or the list of differences untrue."""
    parser = argparse.ArgumentParser(prog="python -m tests.lab.conformance", description=__doc__)
    parser.add_argument("--transcripts", type=Path, default=TRANSCRIPTS, metavar="DIR")
    parser.add_argument("--only", action="append", default=[], metavar="NAME")
    parser.add_argument("--json", type=Path, default=REPOSITORY / "build/conformance.json", metavar="FILE")
    options = parser.parse_args()
    folder: Path = options.transcripts
    ours = folder.resolve() == TRANSCRIPTS
    names, left = scripts(folder, options.only)
    work = {name: partial(run, folder, name) for name in names}
    if ours:
        files = [path for path in sorted(CASES.glob("*.txt")) if not options.only or path.stem in options.only]
        work |= {path.stem: partial(run_cases, path) for path in files}
    pool = ThreadPoolExecutor(PARALLEL)
    try:
        results = dict(zip(work, pool.map(lambda each: each(), work.values()), strict=True))
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C ends the scripts that run, and must not begin others
    failures = _ours(results, whole=not options.only) if ours else _others(results)
    for name, reason in left.items():
        print(f"{name}: not run: {reason}")
    total, same = sum(each.commands for each in results.values()), sum(each.same for each in results.values())
    print(f"all: {same} of {total} answers are the same")
    if not results:
        failures.append(f"{folder} holds nothing to run")
    for failure in failures:
        print(f"conformance: {failure}")
    document = {
        "scripts": {name: {"commands": each.commands, "same": each.same} for name, each in results.items()},
        "programs": {name: {"commands": of, "same": same} for name, (same, of) in per_command(results).items()},
        "commands": total,
        "same": same,
    }
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(document, indent=1) + "\n")
    return 1 if failures else 0


def _ours(results: Mapping[str, Result], *, whole: bool) -> list[str]:
    """Report on the repository's own transcripts and cases; return what is wrong. `whole`: all of them were run."""
    new, known, stale = expected.judge(expected.load(), results)
    wanted = product_forms()
    failures = []
    for name, difference in new:
        print("\n".join([f"{name}:", *show(difference)]))
        failures.append(f"{name}: a difference without a reason: {expected.head(difference)}")
    for name, difference, entry in known:
        print(f"{name}: {expected.head(difference)}\n    differs: {entry.reason}")
        words = forms.words_of(expected.head(difference))
        failures += [
            f"{name}: the product uses this form ({form.where}: {form}), it must answer as FreeBSD does"
            for form in wanted
            if entry.command != expected.NOT_PLAYED and forms.SOME not in form.words and forms.matches(form, words)
        ]
    failures += [f"differences.toml: {each.file}: {each.command}: nothing differs so any more" for each in stale]
    failures += [
        f"no answer of FreeBSD is on record for this form of command: {form} ({form.where})"
        for form in unanswered([*wanted, *scenario_forms()], recorded())
    ]
    print()
    for name, result in results.items():
        print(f"{name}: {result.same} of {result.commands} answers are the same")
    print()
    for name, (same, of) in per_command(results).items():
        print(f"{name}: {same} of {of} answers are the same")
    print(
        f"\nproduct: {len(wanted)} forms of commands, scenarios: {len(scenario_forms())}; each has an answer of FreeBSD's,"
    )
    print("or is named below")
    total, same = sum(each.commands for each in results.values()), sum(each.same for each in results.values())
    if whole and same < NINE_OF_TEN * total:
        failures.append(f"only {same} of {total} answers are the same, less than {NINE_OF_TEN:.0%}")
    return failures


def _others(results: Mapping[str, Result]) -> list[str]:
    """Report on another folder's transcripts; return the scripts that are below nine of ten."""
    failures = []
    for name, result in results.items():
        for difference in result.differences:
            print("\n".join([f"{name}:", *show(difference)]))
    print()
    for name, result in results.items():
        good = result.same >= NINE_OF_TEN * result.commands
        print(f"{name}: {result.same} of {result.commands} answers are the same ({'good' if good else 'TOO FEW'})")
        if not good:
            failures.append(f"{name}: fewer than {NINE_OF_TEN:.0%} of the answers are the same")
    return failures


if __name__ == "__main__":
    sys.exit(main())
