"""README.md as data: its fenced blocks, tables, and the commands in its `console` blocks with the output shown for them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
PATH = REPOSITORY / "README.md"
DEPLOY = REPOSITORY / "deploy"

_FENCE = re.compile(r"^```(?P<kind>\w*) ?(?P<name>[^\n`]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_PROMPT = re.compile(r"(?P<where>a|b|spine|client)[#$] (?P<line>.+)")
_MASKS = (
    (re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?Z"), "TIME"),
    (re.compile(r"\d\d:\d\d:\d\d\.\d+"), "TIME"),
    (re.compile(r"\bpid \d+"), "pid N"),
    # a first claim begins with the clock
    (re.compile(r"\bsequence \d+"), "sequence N"),
    (re.compile(r"\bmed \d+ large-community \[ (\d+):1:\d+ "), r"med N large-community [ \1:1:N "),
    (re.compile(r"\buid \d+"), "uid N"),
    (re.compile(r"(ttl|hlim)=\d+"), r"\1=N"),
    (re.compile(r"\btime=[\d.]+"), "time=N"),
    (re.compile(r"= [\d./]+ ms"), "= N ms"),
    (re.compile(r"\b\d+(s|m\d\d)\b"), "AGE"),
    (re.compile(r"[ \t]+"), " "),
)
"""What differs from run to run."""


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, what follows it on that line, its text, and where the text begins in the page."""

    kind: str
    name: str
    text: str
    start: int


@dataclass
class Step:
    """A command of a `console` block: where it is typed, the line without and with its prompt, the output shown for it."""

    where: str
    line: str
    prompt: str
    shown: list[str] = field(default_factory=list)


def blocks(page: str, kind: str = "") -> list[Block]:
    """Return the fenced blocks of a page, of one language if it is named."""
    found = [Block(m["kind"], m["name"], m["text"], m.start("text")) for m in _FENCE.finditer(page)]
    return [block for block in found if not kind or block.kind == kind]


def block(page: str, name: str) -> str:
    """Return the text of the one block that has a name."""
    (found,) = [each for each in blocks(page) if each.name == name]
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


def written(page: str, printed: list[list[str]]) -> str:
    """Return the page with this output for each command of its `console` blocks, in order."""
    outputs = iter(printed)
    for each in reversed([(b, [(s, next(outputs)) for s in steps(b.text)]) for b in blocks(page, "console")]):
        found, done = each
        lines = [line for step, out in done for line in (step.prompt, *out)]
        page = page[: found.start] + "".join(f"{line}\n" for line in lines) + page[found.start + len(found.text) :]
    return page
