"""README.md as data: its fenced blocks, tables, and the commands in its `console` blocks with the output shown for them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
PATH = REPOSITORY / "README.md"
DEPLOY = REPOSITORY / "deploy"

_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<kind>\w*) ?(?P<name>[^\n`]*)\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL
)
_PROMPT = re.compile(r"(?P<where>a|b|spine|router|client)[#$] (?P<line>.+)")
LEFT_OUT = "[...]"
"""Stands for any number of lines in the output that is shown."""
_MASKS = (
    (re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?Z"), "TIME"),
    (re.compile(r"\d\d:\d\d:\d\d\.\d+"), "TIME"),
    # routers' clocks and counters
    (re.compile(r"Last update: .*"), "Last update: TIME"),
    (re.compile(r"\b(65001 +)\d+ +\d+( +\d+)* +\d\d:\d\d:\d\d\b"), r"\1N N TIME"),
    (re.compile(r"\b\d\d:\d\d:\d\d\b"), "TIME"),
    (re.compile(r"( +\d+) +\d+ N/A$"), r"\1 N N/A"),
    (re.compile(r"\bpid \d+"), "pid N"),
    # a first claim begins with the clock
    (re.compile(r"\bsequence \d+"), "sequence N"),
    (re.compile(r"\bmed \d+ large-community \[ (\d+):1:\d+ "), r"med N large-community [ \1:1:N "),
    (re.compile(r"\buid \d+"), "uid N"),
    (re.compile(r"\bjid \d+"), "jid N"),
    (re.compile(r"\blink#\d+"), "link#N"),
    # a penalty falls from the moment it was added
    (re.compile(r"\bpenalty \d+"), "penalty N"),
    (re.compile(r"^(\S+ +)\d+(( +\d+){5} )"), r"\1N\2"),
    (re.compile(r"(ttl|hlim)=\d+"), r"\1=N"),
    (re.compile(r"\btime=[\d.]+"), "time=N"),
    (re.compile(r"= [\d./]+ ms"), "= N ms"),
    (re.compile(r"\b\d+(s|m\d\d)\b"), "AGE"),
    (re.compile(r"\b\d+ of \d+ failed"), "N of N failed"),
    (re.compile(r"[ \t]+"), " "),
)
"""What differs from run to run."""


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, what follows it on that line, its text, where that is, and how far it is indented."""

    kind: str
    name: str
    text: str
    start: int
    end: int
    indent: str


@dataclass
class Step:
    """A command of a `console` block: where it is typed, the line without and with its prompt, the output shown for it."""

    where: str
    line: str
    prompt: str
    shown: list[str] = field(default_factory=list)


Told = list[tuple[Step, list[str]]]
"""Commands, each with what it printed."""


def blocks(page: str, kind: str = "") -> list[Block]:
    """Return the fenced blocks of a page, of one language if it is named."""
    found = []
    for m in _FENCE.finditer(page):
        lines = m["text"].splitlines(keepends=True)
        text = "".join(line.removeprefix(m["indent"]) for line in lines)
        found.append(Block(m["kind"], m["name"], text, m.start("text"), m.end("text"), m["indent"]))
    return [block for block in found if not kind or block.kind == kind]


def block(page: str, name: str) -> str:
    """Return the text of the one block that has a name."""
    (found,) = [each for each in blocks(page) if each.name == name and each.kind != "console"]
    return found.text


def steps(text: str) -> list[Step]:
    """Return the commands of a `console` block. ValueError where it does not begin with one."""
    found: list[Step] = []
    for line in text.splitlines():
        prompt = _PROMPT.fullmatch(line)
        if prompt:
            found.append(Step(prompt["where"], prompt["line"], line))
        elif found:
            found[-1].shown.append(line)
        else:
            raise ValueError(f"a console block begins without a command: {line}")
    return found


def agree(shown: list[str], printed: list[str]) -> bool:
    """Tell whether a command printed what is shown for it, but for what differs from run to run."""
    return _found(shown, printed) is not None


def shortened(shown: list[str], printed: list[str]) -> list[str]:
    """Return what was printed, with as much of it left out as is left out of what was shown before."""
    if LEFT_OUT not in shown:
        return printed
    found = _found(shown, printed)
    if found is None:  # something of it is said in other words now: as much of the beginning and of the end
        at = shown.index(LEFT_OUT)
        after = shown[::-1].index(LEFT_OUT)
        return [*printed[:at], LEFT_OUT, *printed[len(printed) - after :]]
    return found


def _found(shown: list[str], printed: list[str]) -> list[str] | None:
    """Return the lines that are shown, as they were printed, with what is left out; None where they were not."""
    wanted, there = masked(shown), masked(printed)
    if LEFT_OUT not in wanted:
        return printed if wanted == there else None
    parts: list[list[str]] = [[]]
    for line in wanted:
        if line == LEFT_OUT:
            parts.append([])
        else:
            parts[-1].append(line)
    first, *middle, last = parts
    at, end = len(first), len(there) - len(last)
    if end < at or there[:at] != first or there[end:] != last:
        return None
    result = [*printed[:at], LEFT_OUT]
    for part in middle:
        while there[at : at + len(part)] != part:
            at += 1
            if at + len(part) > end:
                return None
        result += [*printed[at : at + len(part)], LEFT_OUT]
        at += len(part)
    return [*result, *printed[end:]]


def masked(lines: list[str]) -> list[str]:
    """Return lines without what differs from run to run."""
    result = []
    for line in lines:
        for pattern, word in _MASKS:
            line = pattern.sub(word, line)
        result.append(line.strip())
    return result


def table(page: str, heading: str) -> list[list[str]]:
    """Return the rows (without the head) of the first table below a heading."""
    _, _, rest = page.partition(f"\n{heading}\n")
    rows: list[list[str]] = []
    for line in rest.splitlines():
        if line.startswith("|"):
            rows.append([cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
        elif rows:
            break
    return rows[2:]


def written(page: str, told: Iterable[Told]) -> str:
    """Return the page with what was printed now, block by block. A block is known by its commands; others stay."""
    outputs = {tuple(step.prompt for step, _ in each): each for each in told}
    for found in reversed(blocks(page, "console")):
        done = outputs.get(tuple(step.prompt for step in steps(found.text)), [])
        lines = [line for step, out in done for line in (step.prompt, *shortened(step.shown, out))]
        if lines:
            text = "".join(f"{found.indent}{line}".rstrip() + "\n" for line in lines)
            page = page[: found.start] + text + page[found.end :]
    return page
