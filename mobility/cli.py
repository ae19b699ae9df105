"""The `mobility` command."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from mobility import __version__, config, control, doctor, logs
from mobility.jails import jailsd

EX_OK, EX_FAILED, EX_USAGE, EX_CONFIG = 0, 1, 2, 78
"""Exit statuses: fine; not fine; wrong words; the configuration can not be used (sysexits(3))."""
NAME_WIDTH = 24


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mobility", description="Makes FreeBSD jails mobile.")
    parser.add_argument("--version", action="version", version=f"mobility {__version__}")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--config", type=Path, default=config.DEFAULT_PATH, metavar="FILE", help="default: %(default)s")
    answers = argparse.ArgumentParser(add_help=False, parents=[common])
    answers.add_argument("--json", action="store_true", help="answer in JSON")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(
        name: str, run: Callable[[argparse.Namespace, config.Config], int], text: str, *, json: bool = True
    ) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text, parents=[answers if json else common])
        command.set_defaults(run=run)
        return command

    agent = add("agent", _agent, "Run the agent in the foreground (rc.d does it).", json=False)
    agent.add_argument("--log-format", choices=logs.FORMATS, default="text")
    agent.add_argument("--log-level", choices=("debug", "info", "warning", "error"), default="info")
    add(
        "exabgp",
        _exabgp,
        "Write ExaBGP's configuration from ours and become ExaBGP (rc.d does it).",
        json=False,
    )
    add("bridge", _bridge, "Become the bridge between ExaBGP and the agent (ExaBGP does it).", json=False)
    add("check", _check, "Judge the configuration and every file in jails.d; touch nothing.")
    status = add("status", _status, "Say of each jail: running, wired, ready, announced, since when, and if not, why.")
    status.add_argument("names", nargs="*", metavar="NAME")
    plan = add("plan", _plan, "Print the exact commands that would be run now, and run none of them.")
    plan.add_argument("names", nargs="*", metavar="NAME")
    events = add("events", _events, "Print what happened.")
    events.add_argument("name", nargs="?", metavar="NAME")
    events.add_argument("-n", "--lines", type=int, default=100, metavar="N", help="the newest N (default: %(default)s)")
    drain = add(
        "drain",
        _drain,
        "Withdraw this host's jails (or those named) and keep them withdrawn; they go on running.",
    )
    drain.add_argument("names", nargs="*", metavar="NAME")
    undrain = add("undrain", _undrain, "Announce again what was drained.")
    undrain.add_argument("names", nargs="*", metavar="NAME")
    add("doctor", _doctor, "Check every prerequisite; say what is wrong and the command that mends it.")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    options = _parser().parse_args(arguments)
    try:
        loaded = config.load(options.config)
    except config.ConfigError as error:
        _complain(error, as_json=getattr(options, "json", False))
        return EX_CONFIG
    try:
        status: int = options.run(options, loaded)
    except control.ControlError as error:
        print(f"mobility: {error}", file=sys.stderr)
        return EX_FAILED
    except BrokenPipeError:
        # the reader of a pipe went away; Python would complain once more when it flushes at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EX_FAILED
    return status


def _complain(error: config.ConfigError, *, as_json: bool) -> None:
    if as_json:
        problems = [{"key": p.key, "value": p.value, "remedy": p.remedy} for p in error.problems]
        print(json.dumps({"ok": False, "file": str(error.path), "problems": problems}, default=str))
    else:
        print(error, file=sys.stderr)


def _agent(options: argparse.Namespace, loaded: config.Config) -> int:
    # imported here: nobody who asks for a status should wait for the agent's libraries
    from mobility.agent import Agent
    from mobility.events.spool import SpoolError
    from mobility.metrics import MetricsError
    from mobility.network.host import Trouble
    from mobility.store import StoreError

    logs.configure(options.log_format, options.log_level)
    try:
        asyncio.run(Agent(loaded).run())
    except (StoreError, SpoolError, MetricsError, Trouble, OSError) as error:
        print(f"mobility agent: {error}", file=sys.stderr)
        return EX_FAILED
    return EX_OK


def _exabgp(_: argparse.Namespace, loaded: config.Config) -> int:
    from mobility.bgp import run

    try:
        run.become_exabgp(loaded)
    except run.ExabgpError as error:
        print(f"mobility exabgp: {error}", file=sys.stderr)
    return EX_FAILED


def _bridge(_: argparse.Namespace, loaded: config.Config) -> int:
    from mobility.bgp import run

    try:
        run.become_bridge(loaded)
    except run.ExabgpError as error:
        print(f"mobility bridge: {error}", file=sys.stderr)
    return EX_FAILED


def _check(options: argparse.Namespace, loaded: config.Config) -> int:
    jails, wrong = jailsd.load(loaded.paths.jails_d, loaded.host.allowed)
    problems = [problem for several in wrong.values() for problem in several]
    for prefix, names in jailsd.shared_addresses(jails.values()).items():
        problems.append(
            config.Problem(
                f"{loaded.paths.jails_d}",
                None,
                f"{prefix} is granted to {' and '.join(names)}: only one of them can run here at a time",
            )
        )
    if options.json:
        lines = [{"key": p.key, "value": p.value, "remedy": p.remedy} for p in problems]
        print(
            json.dumps(
                {"ok": not problems, "file": str(loaded.path), "jails": sorted(jails), "problems": lines},
                default=str,
            )
        )
    else:
        for problem in problems:
            print(problem, file=sys.stderr)
        if not problems:
            print(f"{loaded.path}: fine; {len(jails)} jails in {loaded.paths.jails_d}")
    return EX_CONFIG if problems else EX_OK


def _print_json(answer: dict[str, Any]) -> None:
    print(json.dumps({key: value for key, value in answer.items() if key not in ("v", "ok")}, indent=2))


def _ago(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    age = max(0, int(time.time() - seconds))
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if age >= size:
            return f"{age // size}{unit}{age % size * 60 // size if unit != 'd' else age % size // 3600:02d}"
    return f"{age}s"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    rows = [tuple(head), *map(tuple, rows)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head) - 1)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip()
        for row in rows
    )


def _status(options: argparse.Namespace, loaded: config.Config) -> int:
    answer = control.request(loaded.control_socket, "status", names=options.names)
    if options.json:
        _print_json(answer)
        return EX_OK
    host = answer["host"]
    print(f"host {host['name']}: agent pid {host['pid']}, {_sessions(host)}")
    for name in host["drained"]:
        print(f"drained: {_drained(name)}")
    for problem in host["problems"]:
        print(f"problem: {problem}")
    yes = {True: "yes", False: "no"}
    rows = [
        (
            jail["name"],
            yes[jail["running"]],
            yes[jail["wired"]],
            yes[jail["ready"]],
            yes[jail["announced"]],
            _ago(jail["since"]),
            " ".join(jail["addresses"]),
            jail["reason"],
        )
        for jail in answer["jails"]
    ]
    print(_table(("JAIL", "RUNNING", "WIRED", "READY", "ANNOUNCED", "SINCE", "ADDRESSES", "WHY NOT"), rows))
    return EX_OK


def _sessions(host: dict[str, Any]) -> str:
    if not host["bridge"]:
        return "ExaBGP is not connected"
    return ", ".join(f"{session['peer']} {session['state']}" for session in host["sessions"]) or "no session"


def _plan(options: argparse.Namespace, loaded: config.Config) -> int:
    answer = control.request(loaded.control_socket, "plan", names=options.names)
    if options.json:
        _print_json(answer)
        return EX_OK
    for jail in answer["plans"]:
        state = f"{jail['stand']}{': ' + jail['reason'] if jail['reason'] else ''}"
        print(f"# {jail['name']}: {jail['problem'] or state}")
        for command in jail["commands"]:
            print(f"{shlex.join(command['argv'])}    # {command['why']}")
        for line in jail["announce"]:
            print(f"exabgp: {line}")
        if not (jail["commands"] or jail["announce"] or jail["problem"]):
            print("# nothing to do")
    return EX_OK


def _events(options: argparse.Namespace, loaded: config.Config) -> int:
    answer = control.request(loaded.control_socket, "events", jail=options.name, limit=options.lines)
    if options.json:
        _print_json(answer)
        return EX_OK
    for event in answer["events"]:
        at = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(event["at"]))
        print(f"{at}  {event['jail'] or '-':{NAME_WIDTH}}  {event['what']}  {event['detail']}".rstrip())
    return EX_OK


def _drain(options: argparse.Namespace, loaded: config.Config) -> int:
    within = loaded.agent.drain_for + 4 * loaded.agent.settle_for + loaded.agent.command_timeout
    answer = control.request(loaded.control_socket, "drain", answer_within=within, names=options.names)
    if options.json:
        _print_json(answer)
    else:
        print(f"withdrawn: {len(answer['withdrawn'])} addresses; the jails run on; `mobility undrain` announces again")
        if not answer["acknowledged"]:
            print("mobility: ExaBGP has not acknowledged every withdrawal: see mobility status", file=sys.stderr)
    return EX_OK if answer["acknowledged"] else EX_FAILED


def _drained(name: str) -> str:
    return "the whole host" if name == "*" else name


def _undrain(options: argparse.Namespace, loaded: config.Config) -> int:
    answer = control.request(loaded.control_socket, "undrain", names=options.names)
    if options.json:
        _print_json(answer)
    else:
        still = ", ".join(map(_drained, answer["still_drained"]))
        print(
            f"announced again: {', '.join(map(_drained, answer['undrained'])) or 'nothing was drained'}"
            + (f"; still drained: {still}" if still else "")
        )
    return EX_OK


def _doctor(options: argparse.Namespace, loaded: config.Config) -> int:
    verdicts = asyncio.run(doctor.examine(loaded))
    healthy = all(verdict.ok for verdict in verdicts)
    if options.json:
        print(json.dumps({"healthy": healthy, "verdicts": [verdict.describe() for verdict in verdicts]}, indent=2))
    else:
        for verdict in verdicts:
            print(f"{'ok  ' if verdict.ok else 'FAIL'}  {verdict.what}: {verdict.why}")
            if verdict.mend:
                print(f"      mend: {verdict.mend}")
    return EX_OK if healthy else EX_FAILED
