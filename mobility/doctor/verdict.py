"""What the doctor says of one prerequisite."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"
    """Jails are announced, and something is not as it should be."""
    FAIL = "fail"
    """Some jail is not announced, or can not be reached."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One prerequisite: how it stands, why we say so, and the command that mends it if it should be mended."""

    what: str
    level: Level
    why: str
    mend: str = ""

    def describe(self) -> dict[str, str]:
        """Return it for JSON."""
        return {"what": self.what, "level": str(self.level), "why": self.why, "mend": self.mend}

    def lines(self) -> list[str]:
        """Return it for people."""
        word = str(self.level) if self.level is Level.OK else self.level.upper()
        return [f"{word:<4}  {self.what}: {self.why}", *([f"      mend: {self.mend}"] if self.mend else [])]


def ok(what: str, why: str) -> Verdict:
    """Return the verdict on something that is as it should be."""
    return Verdict(what, Level.OK, why)


def warn(what: str, why: str, mend: str = "") -> Verdict:
    """Return the verdict on something that should be mended."""
    return Verdict(what, Level.WARN, why, mend)


def fail(what: str, why: str, mend: str = "") -> Verdict:
    """Return the verdict on something that has to be mended."""
    return Verdict(what, Level.FAIL, why, mend)


def healthy(verdicts: Iterable[Verdict]) -> bool:
    """Tell whether nothing has to be mended; what should be does not count."""
    return all(verdict.level is not Level.FAIL for verdict in verdicts)
