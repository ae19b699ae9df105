"""`mobility hooks`: installs our hooks into jails' files, takes them out, and tells where they are.

Each jail by itself: what goes wrong with one leaves its files as they were, and the next one is done all the same.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mobility import config
from mobility.hooks import edit
from mobility.hooks.bastille import BastilleEditor
from mobility.hooks.edit import DEFAULT_HOOK, Change, Editor, Hook, HooksError, State, Way
from mobility.hooks.iocage import IocageEditor
from mobility.hooks.jailconf import JailConfEditor
from mobility.network import command, output
from mobility.tables import table
from mobility.terminal.progress import Steps

INSTALL, REMOVE, STATUS = ACTIONS = ("install", "remove", "status")
EDITORS: dict[str, Callable[[config.Config, Hook], Editor]] = {
    BastilleEditor.name: BastilleEditor,
    IocageEditor.name: IocageEditor,
    JailConfEditor.name: JailConfEditor,
}
EX_OK, EX_FAILED, EX_USAGE = 0, 1, 2
_JLS = ("jls", "--libxo", "json", "name", "jid", "path", "vnet", "ip4.addr", "ip6.addr")
_IOCAGE_PREFIX = "ioc-"
"""What iocage puts before its jails' names for jail(8)."""


@dataclass
class _Report:
    """What was done with one jail, or was not, and why."""

    jail: str
    changes: list[Change] = field(default_factory=list)
    state: State | None = None
    error: str = ""

    def describe(self, *, diffs: bool) -> dict[str, object]:
        state = self.state
        told: dict[str, object] = {
            "jail": self.jail,
            "changed": [str(change.path) for change in self.changes],
            "way": state.installed if state else None,
            "complete": state.complete if state else None,
            "file": str(state.path) if state else None,
            "note": state.note if state else "",
            "error": self.error,
        }
        return told | ({"diff": "".join(map(edit.diff, self.changes))} if diffs else {})


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the words of `mobility hooks`; --json and --config are its parent's."""
    parser.add_argument("action", choices=ACTIONS, metavar="ACTION", help="|".join(ACTIONS))
    parser.add_argument("manager", choices=EDITORS, metavar="MANAGER", help="|".join(EDITORS))
    parser.add_argument("names", nargs="*", metavar="NAME", help="a jail, as its manager calls it")
    parser.add_argument("--all", action="store_true", help="every jail that the manager has; for status the default")
    parser.add_argument(
        "--adopt",
        action="store_true",
        help="leave the manager's own interface in place, and wire it once the jail has started",
    )
    parser.add_argument("--dry-run", action="store_true", help="show what would be changed, and change nothing")
    parser.add_argument(
        "--hook", type=Path, default=DEFAULT_HOOK, metavar="PATH", help="the hook program (default: %(default)s)"
    )


def run(options: argparse.Namespace, loaded: config.Config) -> int:
    """Do what the command line says, and return the exit status: EX_FAILED where one jail's hooks are not as they should be."""
    wrong = _misuse(options)
    if wrong:
        _complain(wrong)
        return EX_USAGE
    try:
        editor = EDITORS[options.manager](loaded, _hook(options, loaded))
        names = list(dict.fromkeys(options.names)) or editor.jails()
    except HooksError as error:
        if options.json:
            _say(json.dumps({"ok": False, "error": str(error), "jails": []}, indent=2))
        else:
            _complain(str(error))
        return EX_FAILED
    reports = []
    with Steps(f"hooks {options.action} {editor.name}", len(names), shown=not options.json) as progress:
        for name in names:
            progress.begin(name)
            reports.append(_handle(options, editor, name))
    changed = [report.jail for report in reports if report.changes and not report.error]
    running = _running(changed, options, loaded) if changed and not options.dry_run else []
    well = not any(report.error or _lacking(report.state) for report in reports)
    if options.json:
        jails = [report.describe(diffs=options.dry_run) for report in reports]
        _say(json.dumps({"ok": well, "manager": editor.name, "jails": jails, "restart": running}, indent=2))
    else:
        _tell(options, editor, reports, running)
    return EX_OK if well else EX_FAILED


def _misuse(options: argparse.Namespace) -> str:
    if options.names and options.all:
        return "name jails, or say --all: not both"
    if options.action != STATUS and not options.names and not options.all:
        return f"which jails? hooks {options.action} {options.manager} NAME, or --all"
    if options.adopt and options.action != INSTALL:
        return "--adopt goes with hooks install"
    if options.dry_run and options.action == STATUS:
        return "hooks status changes nothing: leave --dry-run away"
    return ""


def _hook(options: argparse.Namespace, loaded: config.Config) -> Hook:
    path = loaded.path.absolute()
    hook = Hook(options.hook, None if path == config.DEFAULT_PATH else path)
    if options.action == INSTALL and not options.dry_run and not os.access(hook.program, os.X_OK):
        raise HooksError(
            f"{hook.program} is no program that can be run, and no jail with it could start: "
            "install it, or name it: --hook PATH"
        )
    return hook


def _handle(options: argparse.Namespace, editor: Editor, name: str) -> _Report:
    report = _Report(name)
    try:
        if options.action == INSTALL:
            report.changes = editor.install(name, Way.ADOPT if options.adopt else Way.REPLACE)
        elif options.action == REMOVE:
            report.changes = editor.remove(name)
        if not options.dry_run:
            edit.apply(report.changes)
            report.state = editor.state(name)
    except HooksError as error:
        report.error = str(error)
    return report


def _lacking(state: State | None) -> bool:
    """Tell whether hooks are there, and not all of them."""
    return state is not None and state.installed is not None and not state.complete


def _running(names: Sequence[str], options: argparse.Namespace, loaded: config.Config) -> list[str]:
    """Return which of the jails run now: for them the change counts from their next start."""
    try:
        running = output.jails(command.run(_JLS, loaded.paths.commands, timeout=loaded.agent.command_timeout))
    except (command.CommandError, output.OutputError) as error:
        _complain(
            f"which of these jails run can not be told ({error}): for those that do it counts from their next start"
        )
        return []
    prefix = _IOCAGE_PREFIX if options.manager == IocageEditor.name else ""
    return [name for name in names if prefix + name in running]


def _tell(options: argparse.Namespace, editor: Editor, reports: Sequence[_Report], running: Sequence[str]) -> None:
    for report in reports:
        if report.error:
            _complain(report.error)
    states = [report.state for report in reports if report.state is not None]
    if not reports:
        _say(f"{editor.name} has no jails")
    elif options.action == STATUS:
        rows = [
            (state.jail, state.installed or "-", "yes" if state.complete else "no", str(state.path), state.note)
            for state in states
        ]
        if rows:
            _say(table(("JAIL", "WAY", "COMPLETE", "FILE", "NOTE"), rows))
    elif options.dry_run:
        sys.stdout.write("".join(edit.diff(change) for report in reports for change in report.changes))
    else:
        _tell_changes(options, reports)
    if running:
        _say(f"running now, so it counts from their next start: {', '.join(running)}")
    failed = [report.jail for report in reports if report.error]
    if failed and len(reports) > 1:
        _complain(f"{len(failed)} of {len(reports)} jails are as they were: {', '.join(failed)}")


def _tell_changes(options: argparse.Namespace, reports: Sequence[_Report]) -> None:
    done, was = ("installed", "installed already") if options.action == INSTALL else ("removed", "not installed")
    for report in reports:
        if report.error or report.state is None:
            continue
        state = report.state
        files = ", ".join(dict.fromkeys(str(change.path) for change in report.changes))
        way = f" ({state.installed})" if state.installed else ""
        _say(f"{report.jail}: {f'{done}{way} in {files}' if files else was}")
        if state.note:
            _say(f"{report.jail}: note: {state.note}")


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def _complain(text: str) -> None:
    sys.stderr.write(f"mobility: {text}\n")
