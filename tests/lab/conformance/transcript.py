"""Cut a transcript into answers, mask what differs between any two machines, compare. Pure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass

COMMAND, REMARK = "$ ", "# "
MASK = "~"
_MAC = re.compile(r"\b[0-9a-f]{2}(?::[0-9a-f]{2}){5}\b")
#: MAC addresses that a script sets itself, perhaps with variables for some digits ("02:aa:aa:00:0$2:01").
_SET_MAC = re.compile(r"\b[0-9a-f]{2}:(?:[0-9a-f$]{1,3}:?){1,5}")


@dataclass(frozen=True, slots=True)
class Answer:
    """One command (or remark) as printed, and what was printed after it, until the next."""

    head: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """What FreeBSD answered and what the lab did, masked; None where only one of them has this answer."""

    expected: Answer | None
    found: Answer | None


@dataclass(frozen=True, slots=True)
class Result:
    """One script's comparison."""

    heads: tuple[str, ...]
    """Every answer's command (or remark), FreeBSD's side first."""
    differences: tuple[Difference, ...]

    @property
    def commands(self) -> int:
        """How many answers there are."""
        return len(self.heads)

    @property
    def same(self) -> int:
        """How many of them are the same on both sides."""
        return len(self.heads) - len(self.differences)


def answers(text: str) -> list[Answer]:
    """Cut a transcript at "$ " and "# ". A remark without output is no answer; output before all is one.

    The empty line that `say` prints before a remark belongs to the remark.
    """
    found: list[tuple[str, list[str]]] = [("", [])]
    for line in text.splitlines():
        if line.startswith((COMMAND, REMARK)):
            if line.startswith(REMARK) and found[-1][1][-1:] == [""]:
                found[-1][1].pop()
            found.append((line, []))
        else:
            found[-1][1].append(line)
    return [Answer(head, tuple(lines)) for head, lines in found if head.startswith(COMMAND) or any(lines)]


class Masks:
    """Masks exactly what the transcripts' README lists as different between machines.

    MAC addresses (but those that the script sets), interface and link numbers, jids, times, ports (but those
    that the script names), counters, and the values of the kernel's own tuning.
    """

    _LINES = (
        # interface and link numbers
        (re.compile(r"\blink#\d+ *"), f"link#{MASK} "),
        (re.compile(r"<Link#\d+>"), f"<Link#{MASK}>"),
        (re.compile(r"\bscopeid 0x[0-9a-f]+"), f"scopeid {MASK}"),
        # jids
        (re.compile(r"\bjid=\d+"), f"jid={MASK}"),
        (re.compile(r'"jid":"?\d+"?'), f'"jid":{MASK}'),
        # times: of ping and traceroute, of neighbours and ARP entries, of day, of tcpdump
        (re.compile(r"\btime=[\d.]+ ms"), f"time={MASK} ms"),
        (re.compile(r"= [\d.]+/[\d.]+/[\d.]+/[\d.]+ ms"), f"= {MASK} ms"),
        (re.compile(r"(?<= )\d+\.\d+ ms\b"), f"{MASK} ms"),
        (re.compile(r"(?<=\s)(?:(?:\d+d)?(?:\d+h)?(?:\d+m)?\d+s) +(?=[A-Z] )"), f"{MASK} "),
        (re.compile(r"\bexpires in \d+ seconds"), f"expires in {MASK} seconds"),
        (re.compile(r'"expires(_sec)?":\d+'), f'"expires":{MASK}'),
        (re.compile(r"^\d\d:\d\d:\d\d\.\d{6}(?= )"), MASK),
        (re.compile(r"\bsec = \d+, usec = \d+\b"), f"sec = {MASK}, usec = {MASK}"),
        (re.compile(r"\b[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d(?: UTC)? \d{4}\b"), MASK),
        # what a boot draws by lot
        (re.compile(r"^(kern\.boot_id: Format: Length:16 Dump:0x)[0-9a-f]{32}$"), rf"\1{MASK}"),
        # ports that nobody chose
        (re.compile(r"(?<=Connection from )(\S+) \d+(?= received)"), rf"\1 {MASK}"),
        # counters: of interfaces and protocols; an IP header's identification, and the checksum that follows from it
        (re.compile(r'"((?:received|sent|send|dropped)-[\w-]+|collisions|count)":\d+'), rf'"\1":{MASK}'),
        (
            re.compile(r"^( 4 {2}5 {2}00 [0-9a-f]{4}) [0-9a-f]{4}(.*) [0-9a-f]{4}(?= )"),
            rf"\1 {MASK}\2 {MASK}",
        ),
        # the kernel's own tuning
        (
            re.compile(r"^(net\.route\.(?:algo|debug|netisr)[^:]*|net\.isr\.[^:]*|kern\.ipc\.[^:]*): .*"),
            rf"\1: {MASK}",
        ),
    )
    _JID_COLUMN = re.compile(r"^ {1,5}\d{1,6}(?= {2,}\S)")
    _JID_ALONE = re.compile(r"(?<!\S)\d+(?!\S)")
    _EPHEMERAL = re.compile(r"(?<=\.)(\d{4,5}) *(?= )")
    _EUI64 = re.compile(r"\bfe80::[0-9a-f]{1,4}:[0-9a-f]{1,2}ff:fe[0-9a-f]{2}:[0-9a-f]{1,4}\b")

    def __init__(self, script: str) -> None:
        self._script = script
        self._set = tuple(match.split("$", 1)[0] for match in _SET_MAC.findall(script))

    def over(self, answer: Answer) -> Answer:
        """Return an answer with the masks over it; its command may name a MAC address too."""
        lines = tuple(self._line(answer.head, line) for line in answer.lines)
        return Answer(_MAC.sub(self._mac, answer.head), lines)

    def _line(self, head: str, line: str) -> str:
        line = _MAC.sub(self._mac, line)
        line = self._EUI64.sub(MASK, line)
        for pattern, replacement in self._LINES:
            line = pattern.sub(replacement, line)
        if line.startswith(("tcp", "udp")):
            line = self._EPHEMERAL.sub(self._port, line)
        words = head.split()
        if "jls" in words:
            line = (self._JID_ALONE if "jid" in words else self._JID_COLUMN).sub(MASK, line)
        return line

    def _mac(self, match: re.Match[str]) -> str:
        return match.group() if match.group().startswith(self._set or ("-",)) else MASK

    def _port(self, match: re.Match[str]) -> str:
        return match.group() if re.search(rf"\b{match.group(1)}\b", self._script) else f"{MASK} "


def compare(script: str, expected: str, found: str) -> Result:
    """Compare a recorded transcript with one of the lab's, command by command.

    Every recorded answer counts, and so does every one that only the lab gave. `script` says which MACs and
    ports were chosen and may not be masked.
    """
    masks = Masks(script)
    want = [masks.over(answer) for answer in answers(expected)]
    have = [masks.over(answer) for answer in answers(found)]
    pairs = list(_paired(want, have))
    differences = tuple(Difference(one, other) for one, other in pairs if one != other)
    heads = tuple((one or other or Answer("", ())).head for one, other in pairs)
    return Result(heads, differences)


def _paired(want: list[Answer], have: list[Answer]) -> Iterator[tuple[Answer | None, Answer | None]]:
    """Pair the two lists by their commands, in order; what one of them lacks is paired with None."""
    matcher = difflib.SequenceMatcher(a=[each.head for each in want], b=[each.head for each in have], autojunk=False)
    for _, start, end, other_start, other_end in matcher.get_opcodes():
        length = max(end - start, other_end - other_start)
        for offset in range(length):
            yield (
                want[start + offset] if start + offset < end else None,
                have[other_start + offset] if other_start + offset < other_end else None,
            )


def show(difference: Difference) -> list[str]:
    """Return a difference to read: the command, then FreeBSD's lines with "-" and the lab's with "+"."""
    expected, found = difference.expected, difference.found
    head = (expected or found or Answer("", ())).head or "(before the first command)"
    want = list(expected.lines) if expected else ["(no such answer)"]
    have = list(found.lines) if found else ["(no such answer)"]
    if expected and found and expected.head != found.head:
        have = [found.head, *have]
    body = list(difflib.unified_diff(want, have, lineterm="", n=1))[2:]
    return [f"  {head}", *(f"    {line}" for line in body if not line.startswith("@@"))]
