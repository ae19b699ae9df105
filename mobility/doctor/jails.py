"""What stands in files: the agent's own folders, what jails are granted, and whether their managers call our hooks."""

from __future__ import annotations

import shlex
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from mobility.config import Problem
from mobility.doctor.verdict import Verdict, fail, ok, warn
from mobility.hooks.edit import State
from mobility.jails.said import Said
from mobility.model import Prefix, address

T = TypeVar("T")
SHOWN = 3
"""Of many jails with the same trouble so many are named."""


def folder_verdict(what: str, path: Path) -> Verdict:
    """Judge a folder of the agent's: there, root's, and open to nobody else."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return fail(what, f"{path} does not exist yet: the agent makes it", "service mobility start")
    except OSError as error:
        return fail(what, f"{path}: {error.strerror}")
    if not stat.S_ISDIR(status.st_mode):
        return fail(what, f"{path} is no folder", f"rm {shlex.quote(str(path))}; service mobility restart")
    mode = stat.S_IMODE(status.st_mode)
    if status.st_uid != 0 or mode & 0o077:
        mend = f"chown root {shlex.quote(str(path))} && chmod 700 {shlex.quote(str(path))}"
        return fail(what, f"{path} is owner {status.st_uid}, mode {mode:04o}: others could meddle", mend)
    return ok(what, str(path))


def grants_verdicts(
    granted: int,
    problems: Mapping[str, Sequence[Problem]],
    refused: Mapping[str, Sequence[str]],
    shared: Mapping[Prefix, Sequence[str]],
) -> Iterator[Verdict]:
    """Judge what the jails' files grant."""
    for name, several in _first(problems):
        yield fail(f"jail {name}" if name else "jails.d", str(several[0]), "mobility check")
    for name, sentences in _first(refused):
        yield warn(f"jail {name}: not granted", sentences[0], "mobility check")
    for prefix, names in shared.items():
        why = f"{address(prefix)} is granted to {', '.join(names)}: only one of them may run here at a time"
        yield warn("addresses", why, "mobility check")
    if not problems:
        yield ok("grants", f"{granted} jails have addresses granted")
    yield from _more("jails with mistakes in their files", problems)
    yield from _more("jails with requests that nobody granted", refused)


def _first(found: Mapping[str, Sequence[T]]) -> list[tuple[str, Sequence[T]]]:
    return sorted(found.items(), key=lambda item: item[0])[:SHOWN]


def _more(what: str, found: Mapping[str, Sequence[object]]) -> Iterator[Verdict]:
    if len(found) > SHOWN:
        yield warn(what, f"{len(found)} in all", "mobility check")


@dataclass(frozen=True, slots=True)
class Hooked:
    """What is known of one jail's hooks: its manager, what that calls it, and what is installed or why that is not known."""

    jail: str
    manager: str
    name: str
    state: State | None = None
    error: str = ""

    @property
    def installed(self) -> bool:
        """Whether every hook is there."""
        return self.state is not None and self.state.installed is not None and self.state.complete


def hooks_verdicts(granted: Iterable[str], found: Iterable[Hooked], options: Sequence[str] = ()) -> Iterator[Verdict]:
    """Judge whether every jail that has addresses calls our hooks; `options` are what `mobility hooks` must be told too."""
    known = {one.jail: one for one in found}
    names = sorted(granted)
    managed = [known[name] for name in names if name in known]
    lacking = [one for one in managed if not one.installed]
    for one in lacking[:SHOWN]:
        what = f"hooks of jail {one.jail}"
        mend = shlex.join(["mobility", "hooks", "install", one.manager, one.name, *options])
        if one.error or one.state is None:
            yield warn(what, one.error or "can not be looked at", mend)
        elif one.state.installed is None:
            late = "the agent finds it by looking, later, and it starts without its network"
            yield warn(what, f"none in {one.state.path}: {late}", mend)
        else:
            yield warn(what, f"{one.state.path}: {one.state.note}", mend)
    if len(lacking) > SHOWN:
        managers = sorted({one.manager for one in lacking})
        mend = "; ".join(shlex.join(["mobility", "hooks", "install", name, "--all", *options]) for name in managers)
        yield warn("hooks", f"{len(lacking)} jails in all are without", mend)
    strange = [name for name in names if name not in known]
    if strange:
        why = f"no manager's file knows {_some(strange)}: whether the hooks are called when it starts is not known"
        yield warn("hooks", why, "name the manager's files in mobility.toml, [managers]")
    if managed or not strange:
        yield ok("hooks", f"installed for {len(managed) - len(lacking)} of {len(managed)} jails that have addresses")


def program_verdicts(hook: Path, found: Iterable[Hooked], runs: bool) -> Iterator[Verdict]:
    """Judge whether the program `hook`, that jails call, `runs`: jail(8) starts no jail whose prestart hook can not be run."""
    calling = [one.jail for one in found if one.installed]
    if calling and not runs:
        why = f"{hook} can not be run, and {_some(calling)} could not start"
        yield fail("hook program", why, "make -C deploy/freebsd install")


def advice_verdicts(said: Iterable[Said]) -> Iterator[Verdict]:
    """Pass on what in the managers' files collides with a jail that owns single addresses."""
    for one in said:
        for sentence in one.advice:
            yield warn(f"jail {one.jail} ({one.manager})", sentence)


def lacks_verdicts(lacking: Mapping[str, str]) -> Iterator[Verdict]:
    """Judge running jails that can not be wired for want of a command of their own: the jail's name, and the reason."""
    for name, why in sorted(lacking.items()):
        yield fail(f"jail {name}", why)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
