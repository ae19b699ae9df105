"""What stands in files: the agent's own folders, what jails are granted, and whether their managers call our hooks."""

from __future__ import annotations

import os
import re
import shlex
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from mobility.config import Peer, Problem
from mobility.damping import SUPPRESSED
from mobility.doctor.bgp import KERNEL
from mobility.doctor.verdict import Verdict, fail, ok, warn
from mobility.hooks.edit import Hook, HooksError, State
from mobility.jails.said import Said
from mobility.model import Prefix, destination

T = TypeVar("T")
SHOWN = 3
"""Of many jails with the same trouble so many are named."""
_OTHER_HOOK = re.compile(r"calls another hook, or for another jail: (/\S+?)(?: -c (/\S+))? [a-z]+ ", re.ASCII)
"""What a manager's editor notes of a line that calls a hook, but not as we would (hooks/jailconf.py)."""


def folder_verdict(what: str, path: Path, room: Callable[[Path], os.statvfs_result] = os.statvfs) -> Verdict:
    """Judge a folder of the agent's: there, root's, open to nobody else, and with room for more."""
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
    try:
        left = room(path)
    except OSError as error:
        return fail(what, f"{path}: {error.strerror}")
    # a file system that makes inodes as it needs them may say that it has none at all
    if left.f_bfree == 0 or (left.f_files and left.f_ffree == 0):
        return fail(what, f"{path}: its file system is full", f"df -i {shlex.quote(str(path))}; make room")
    return ok(what, str(path))


def secret_verdict(path: Path, peers: Iterable[Peer]) -> Verdict | None:
    """Judge who may read mobility.toml where a password stands in it; None where none does, or it is root's alone."""
    holding = [peer.name for peer in peers if peer.password not in ("", KERNEL)]
    if not holding:
        return None
    mode = stat.S_IMODE(path.stat().st_mode)
    if not mode & 0o077:
        return None
    why = f"{path} holds a password (peer {_some(holding)}) and is open to others, mode {mode:04o}"
    return warn("mobility.toml", why, f"chmod 600 {shlex.quote(str(path))}")


def kept_back_verdicts(told: Iterable[Mapping[str, Any]]) -> Iterator[Verdict]:
    """Judge what `mobility status` says of jails that run and are kept back: by flap damping, or by their checks."""
    suppressed: dict[str, str] = {}
    failing: dict[str, str] = {}
    for jail in told:
        if not jail["running"] or jail["announced"]:
            continue
        if SUPPRESSED in jail["reason"]:
            suppressed[jail["name"]] = jail["reason"]
        elif why := _failing(jail["checks"]):
            failing[jail["name"]] = why
    yield from _kept_back("suppressed", suppressed, "mend what ends it, then: mobility release")
    yield from _kept_back("not ready", failing, "mobility status")
    if not (suppressed or failing):
        yield ok("checks and damping", "keep no running jail back")


def _failing(checks: Iterable[Mapping[str, Any]]) -> str:
    """Say which check keeps a jail back: one that has answered, and badly; "" where all that is missing is time."""
    bad = [check for check in checks if not check["ready"] and check["runs"] and not check["streak"]]
    if not bad:
        return ""
    more = f"; and {len(bad) - 1} more" if len(bad) > 1 else ""
    return f"its check fails: {bad[0]['check']}: {bad[0]['said']}{more}"


def _kept_back(what: str, found: Mapping[str, str], mend: str) -> Iterator[Verdict]:
    names = sorted(found)
    if len(names) > SHOWN:
        why = f"{len(names)} jails run and are not announced: {_some(names)}; the first: {found[names[0]]}"
        yield warn(what, why, "mobility status says of each why")
        return
    for name in names:
        yield warn(f"{what}: jail {name}", found[name], f"{mend} {shlex.quote(name)}")


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
        why = f"{destination(prefix)} is granted to {', '.join(names)}: only one of them may run here at a time"
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
    differs: str = ""
    """What is other than expected in a complete set of hooks that somebody has written by hand."""
    program: Path | None = None
    """The program that those call; None: the one expected."""

    @property
    def installed(self) -> bool:
        """Whether every hook is there."""
        return self.state is not None and self.state.installed is not None and self.state.complete


def other_hook(note: str) -> Hook | None:
    """Return the hook that a jail's lines call instead of ours, by what its editor notes; None where it notes none."""
    found = _OTHER_HOOK.search(note)
    if found is None:
        return None
    try:
        return Hook(Path(found[1]), Path(found[2]) if found[2] else None)
    except HooksError:
        return None


def differing(there: Hook, wanted: Hook, default: Path) -> str:
    """Say in what a jail's hooks differ from those wanted: `-c` with the configuration that is the `default` does not."""
    configs = [hook.config or default for hook in (there, wanted)]
    return "; ".join(
        f"its hooks {verb} {one}, not {other}"
        for verb, one, other in (("call", there.program, wanted.program), ("are told of -c", *configs))
        if one != other
    )


def hooks_verdicts(granted: Iterable[str], found: Iterable[Hooked], options: Sequence[str] = ()) -> Iterator[Verdict]:
    """Judge whether every jail that has addresses calls our hooks; `options` are what `mobility hooks` must be told too."""
    known = {one.jail: one for one in found}
    names = sorted(granted)
    managed = [known[name] for name in names if name in known]
    lacking = [one for one in managed if not one.installed]
    strays: dict[str, list[Hooked]] = {}
    for one in managed:
        if one.installed and one.differs:
            strays.setdefault(one.differs, []).append(one)
    for differs, several in strays.items():
        why = f"jail {_some([one.jail for one in several])}: {differs}"
        yield warn(
            "hooks by hand", why, "right if that is meant (doctor --hook FILE, --config FILE); else mend those lines"
        )
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
