"""What the commands do that only look: status, explain, history, watch, top. The parser is in mobility.cli.

Each takes the command line's words and the configuration, and returns the exit status.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobility import control
from mobility.likely import did_you_mean
from mobility.terminal import explain as explaining
from mobility.terminal import happenings, status
from mobility.terminal.follow import ReaderGone
from mobility.terminal.follow import watch as follow
from mobility.terminal.screen import Screen, read_no_more, repeat, standard_output
from mobility.terminal.text import printable

if TYPE_CHECKING:
    from mobility.config import Config
    from mobility.store import Happening

EX_OK, EX_FAILED = 0, 1
REFRESH = 2.0
"""Seconds between two pictures, unless told otherwise."""
WINDOW = "1h"
"""What `top` looks back on."""
MOST = 200_000
"""Lines of history that `top` counts: a host that flaps writes some hundred a minute."""
_NARROW = "narrow it down: --dark, --running, --state, or 'web*'"


def show_status(options: argparse.Namespace, loaded: Config) -> int:
    """Print where the jails stand, once or again and again."""
    patterns = [*options.names, *options.more_names]
    exact = patterns and not any(status.PATTERN & set(pattern) for pattern in patterns)

    def ask() -> tuple[dict[str, Any], list[status.Jail]]:
        answer = control.request(loaded.control_socket, "status", names=patterns if exact else [])
        try:
            chosen = status.select(
                answer["jails"],
                () if exact else patterns,
                running=options.running,
                dark=options.dark,
                states=options.state or (),
                drained=answer["host"]["drained"],
            )
        except ValueError as error:
            raise control.ControlError(str(error)) from error
        return answer, status.order(chosen, options.sort, answer["host"]["drained"])

    def draw(screen: Screen) -> Sequence[str]:
        answer, jails = ask()
        if options.json:
            told = {key: value for key, value in answer.items() if key not in ("v", "ok")} | {"jails": jails}
            return [json.dumps(told, indent=None if options.watch is not None else 2)]
        return status.lines(
            answer["host"],
            jails,
            time.time(),
            width=screen.width,
            palette=screen.palette,
            whole=answer["jails"] if not exact else None,
            checks=bool(exact) and len(jails) == 1,
        )

    screen = standard_output()
    if options.watch is None:
        screen.say(draw(screen))
    else:
        try:
            repeat(screen, draw, options.watch, stamped=not options.json, more=_NARROW)
        except BrokenPipeError:
            read_no_more()
    return EX_OK


def explain(options: argparse.Namespace, loaded: Config) -> int:
    """Tell one jail's whole story; the status is 1 where no such jail is known here."""
    screen, now = standard_output(), time.time()
    described = control.request(loaded.control_socket, "explain", names=[options.name])
    if options.json:
        found = explaining.verdict(described, now)
        told = {"sentence": found.sentence, "next": found.then, "level": found.level, **described}
        screen.say([json.dumps(told, indent=2)])
    else:
        screen.say(explaining.story(described, now, screen.width, screen.palette))
    return EX_OK if described["known"] else EX_FAILED


def history(options: argparse.Namespace, loaded: Config) -> int:
    """Print what happened, out of the database: whether the agent runs or not."""
    found = _read(
        loaded,
        limit=options.lines,
        jails=[options.name] if options.name else [],
        since=options.since,
        kinds=[word for each in options.what or () for word in each.split(",")],
    )
    running, screen = _runs(loaded.control_socket), standard_output()
    if options.json:
        events = [happenings.described(each) for each in found]
        screen.say([json.dumps({"events": events, "database": str(loaded.database), "agent_runs": running}, indent=2)])
        return EX_OK
    screen.say([happenings.line(happenings.described(each), screen.palette) for each in found])
    if not found:
        _aside(f"nothing is written down of that{_meant(options, loaded)}")
    if not running:
        _aside("the agent does not run: nothing has been written down since it ended")
    return EX_OK


def _meant(options: argparse.Namespace, loaded: Config) -> str:
    """Return what else there is, where nothing was found: a jail's name, or what happened, may be mistyped."""
    every = _read(loaded, limit=MOST)
    hints = []
    if options.name and options.name not in (names := {each.jail for each in every} - {""}):
        hints.append(f"no jail {printable(options.name)} is in it")
        hints += filter(None, [did_you_mean(options.name, names)])
    kinds = {each.what for each in every}
    if options.what and not {word for each in options.what for word in each.split(",")} & kinds:
        hints.append(f"what there is: {printable(', '.join(sorted(kinds)))}")
    return "".join(f"; {hint}" for hint in hints)


def watch(options: argparse.Namespace, loaded: Config) -> int:
    """Follow what happens until Ctrl-C, or until nobody reads it any more: both are its ordinary end."""
    try:
        with suppress(KeyboardInterrupt, ReaderGone):
            follow(loaded.control_socket, options.names, standard_output(), as_json=options.json)
    except BrokenPipeError:
        read_no_more()
    return EX_OK


def top(options: argparse.Namespace, loaded: Config) -> int:
    """Print the busiest jails, again and again on a terminal."""
    window = options.window

    def draw(screen: Screen) -> Sequence[str]:
        now = time.time()
        found = _read(loaded, limit=MOST, since=now - window)
        note, penalties = "", {}
        try:
            answer = control.request(loaded.control_socket, "penalties")
            penalties = answer["penalties"]
        except control.AgentNotRunning:
            note = "the agent does not run: penalties are not known, and nothing has happened since it ended"
        busy = happenings.busiest(found, penalties, options.sort)
        if len(found) == MOST:
            note = f"only the newest {MOST} events are counted: --window"
        if options.json:
            told = {"window_seconds": window, "jails": [one.describe() for one in busy], "note": note}
            return [json.dumps(told, indent=2 if once else None)]
        name = loaded.host.name
        return happenings.top(busy, now, window, host=name, width=screen.width, palette=screen.palette, note=note)

    screen = standard_output()
    once = options.times == 1 or (options.times is None and not screen.moves)
    if once:
        screen.say(draw(screen))
        return EX_OK
    try:
        repeat(
            screen,
            draw,
            options.every,
            times=options.times,
            stamped=not options.json,
            more="--sort, or a larger window",
        )
    except BrokenPipeError:
        read_no_more()
    return EX_OK


def _read(loaded: Config, **what: Any) -> list[Happening]:
    # imported here: it brings the agent's modules along, and nobody who asks for a status should wait for those
    from mobility.store import StoreError, read_history

    try:
        return read_history(loaded.database, **what)
    except StoreError as error:
        raise control.ControlError(str(error)) from error


def _runs(path: Path) -> bool:
    """Tell whether an agent answers."""
    try:
        control.request(path, "progress", answer_within=5.0)
    except control.AgentNotRunning:
        return False
    except control.ControlError:
        return True
    return True


def _aside(text: str) -> None:
    sys.stderr.write(f"mobility: {text}\n")
