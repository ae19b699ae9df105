"""The `mobility` command."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from mobility import __version__, config, control, doctor, logs
from mobility.doctor import bgp as sessions
from mobility.failover.policy import hand_over_within
from mobility.hooks import command as hooks
from mobility.hooks.edit import DEFAULT_HOOK
from mobility.jails.sources import Sources, contested
from mobility.tables import table

EX_INTERRUPTED = 130
EX_OK, EX_FAILED, EX_USAGE, EX_DATAERR, EX_CONFIG = 0, 1, 2, 65, 78
"""Exit statuses: fine; not fine; wrong words; some jails' files can not be used; mobility.toml can not (sysexits(3))."""
NAME_WIDTH = 24
WITHIN = 30.0
"""Seconds that a drain until the next boot may take, of the 90 that rc.shutdown has for all services (rc.conf(5))."""
ANSWER_MARGIN = 2.0
"""Seconds beyond those, for the agent's answer to arrive."""


class _Mixing(argparse.ArgumentParser):
    """Takes options among the names too: `hooks install bastille --adopt web1`. argparse's own way lost that name."""

    _begun = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Return what the words mean, and those that mean nothing here."""
        if self._begun:
            return super().parse_known_args(args, namespace)
        self._begun = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._begun = False


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mobility", description="Makes FreeBSD jails mobile.")
    parser.add_argument("--version", action="version", version=f"mobility {__version__}")
    common = _Mixing(add_help=False)
    common.add_argument("--config", type=Path, default=config.DEFAULT_PATH, metavar="FILE", help="default: %(default)s")
    answers = _Mixing(add_help=False, parents=[common])
    answers.add_argument("--json", action="store_true", help="answer in JSON")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Mixing)

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
    add("check", _check, "Judge the configuration and every jail's files; touch nothing.")
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
    drain.add_argument(
        "--until-boot",
        action="store_true",
        help="for a shutdown: the whole host, until the next boot, in a bounded time",
    )
    drain.add_argument(
        "--within", type=_seconds, metavar="SECONDS", help=f"how long that may take (default: {WITHIN:g})"
    )
    undrain = add("undrain", _undrain, "Announce again what was drained.")
    undrain.add_argument("names", nargs="*", metavar="NAME")
    undrain.add_argument("--until-boot", action="store_true", help="end only what drain --until-boot began")
    add("reload", _reload, "Take up peers, allowed prefixes and groups that changed in mobility.toml.")
    release = add(
        "release",
        _release,
        "Announce jails again that are kept back: they flapped, moved too often, or another host has claimed them.",
    )
    release.add_argument("names", nargs="+", metavar="NAME")
    handoff = add(
        "handoff",
        _handoff,
        "Say in the fabric that jails are about to be stopped here and started elsewhere (mobility expect, there).",
    )
    handoff.add_argument("names", nargs="+", metavar="NAME")
    handoff.add_argument("--cancel", action="store_true", help="they stay after all")
    expect = add(
        "expect",
        _expect,
        "Wait until the host that hands a jail over has stopped it: the moment to start it here.",
    )
    expect.add_argument("name", metavar="NAME")
    expect.add_argument(
        "--within", type=_seconds, default=WITHIN, metavar="SECONDS", help=f"how long to wait (default: {WITHIN:g})"
    )
    hooks.add_arguments(
        add(
            "hooks",
            hooks.run,
            "Put our hooks into jails' files (install), take them out (remove), or tell where they are (status).",
        )
    )
    command = add("doctor", _doctor, "Check every prerequisite; say what is wrong and the command that mends it.")
    command.add_argument(
        "--hook",
        type=Path,
        default=DEFAULT_HOOK,
        metavar="PATH",
        help="the hook that jails call (default: %(default)s)",
    )
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
    except KeyboardInterrupt:
        print("mobility: interrupted; what was asked of the agent goes on: mobility status", file=sys.stderr)
        return EX_INTERRUPTED
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
    from mobility.network.host import Trouble
    from mobility.store import StoreError

    logs.configure(options.log_format, options.log_level)
    try:
        asyncio.run(Agent(loaded).run())
    except (StoreError, SpoolError, Trouble, OSError) as error:
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
    files = Sources.of(loaded, ask_all=True)
    files.refresh()
    problems = [problem for several in files.problems.values() for problem in several]
    for prefix, names in contested(files.jails.values()).items():
        problems.append(
            config.Problem(
                f"{loaded.paths.jails_d}",
                None,
                f"{prefix} is granted to {' and '.join(names)}, the same or in part: only one of them can run here at a time",
            )
        )
    notes = sessions.notes(loaded.bgp.peers, sys.platform)
    if options.json:
        lines = [{"key": p.key, "value": p.value, "remedy": p.remedy} for p in problems]
        print(
            json.dumps(
                {
                    "ok": not problems,
                    "file": str(loaded.path),
                    "jails": sorted(files.jails),
                    "problems": lines,
                    "refused": {name: list(several) for name, several in sorted(files.refused.items())},
                    "notes": notes,
                },
                default=str,
            )
        )
    else:
        for problem in problems:
            print(problem, file=sys.stderr)
        for name, several in sorted(files.refused.items()):
            for sentence in several:
                print(f"not granted: jail {name}: {sentence}", file=sys.stderr)
        for note in notes:
            print(f"note: {note}")
        if not problems:
            print(f"{loaded.path}: fine; {len(files.jails)} jails have addresses granted")
    return EX_DATAERR if problems else EX_OK


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


def _status(options: argparse.Namespace, loaded: config.Config) -> int:
    answer = control.request(loaded.control_socket, "status", names=options.names)
    if options.json:
        _print_json(answer)
        return EX_OK
    host = answer["host"]
    print(f"host {host['name']}: agent pid {host['pid']}, {_sessions(host)}")
    for name in host["drained"]:
        print(f"drained: {_drained(name)}")
    for line in (*_default_routes(host), *_failover(host)):
        print(line)
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
            " ".join([*jail["addresses"], *jail.get("services", [])]),
            jail["reason"] or _aside(jail),
        )
        for jail in answer["jails"]
    ]
    print(table(("JAIL", "RUNNING", "WIRED", "READY", "ANNOUNCED", "SINCE", "ADDRESSES", "WHY NOT"), rows))
    return EX_OK


def _default_routes(host: dict[str, Any]) -> Iterator[str]:
    """Yield a line for each family where the host has uplinks."""
    uplinks = host.get("uplinks") or {}
    for family in ("IPv4", "IPv6") if uplinks else ():
        ways = [each for each in uplinks["routes"] if each["family"] == family]
        shown = [each["gateway"] + ("" if each["ours"] else " (not ours)") for each in ways]
        yield f"{family} default route: {', '.join(shown) or 'none'}"


def _failover(host: dict[str, Any]) -> Iterator[str]:
    """Yield a line for each failover, one for pfsync, and those that say whose demotion is whose."""
    failover = host.get("failover")
    if failover is None:
        return
    for group in failover["groups"]:
        vhids = ", ".join(f"{vhid} {state or 'not there'}" for vhid, state in group["vhids"].items())
        yield f"failover {group['name']}: {group['stance'] or 'undecided'} ({vhids}): {group['reason']}"
        for prefix, peers in group["services"].items():
            yield f"failover {group['name']}: {prefix}: {', '.join(f'{p} {s}' for p, s in peers.items()) or 'no peer'}"
    pfsync = failover["pfsync"]
    if pfsync is not None:
        step = {True: "in step", False: "not in step", None: "off"}[pfsync["syncok"]]
        yield f"pfsync: {step} ({pfsync['syncdev'] or 'no syncdev'}, {pfsync['syncpeer'] or 'no syncpeer'})"
    demotion = failover["demotion"]
    yield from demotion["lines"]
    if demotion["ours"] and demotion["reason"]:
        yield f"demoted: {demotion['reason']}"


def _aside(jail: dict[str, Any]) -> str:
    """Return what there is to say of a jail that is announced."""
    handing = ["is handed over: stop it here"] if jail["handing"] else []
    handing += ["has moved too often and is frozen: mobility release"] if jail["frozen"] else []
    silent = [f"announced, though silent: {' '.join(jail['silent'])}"] if jail["silent"] and jail["announced"] else []
    failover = [jail["failover"]["reason"]] if jail.get("failover") and jail["failover"]["reason"] else []
    return "; ".join(handing + silent + failover)


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


def _seconds(text: str) -> float:
    with suppress(ValueError):
        if 1 <= (seconds := float(text)) <= 600:
            return seconds
    raise argparse.ArgumentTypeError("must be a number of seconds from 1 to 600")


def _drain(options: argparse.Namespace, loaded: config.Config) -> int:
    if options.until_boot:
        if options.names:
            return _misused("drain --until-boot is for the whole host: leave the names out")
        within = options.within or WITHIN
        answer = control.request(
            loaded.control_socket,
            "drain",
            answer_within=within + ANSWER_MARGIN,
            names=[],
            until_boot=True,
            within=within,
        )
    elif options.within is not None:
        return _misused("--within goes with --until-boot; agent.drain_for and agent.settle_for bound other drains")
    else:
        within = loaded.agent.drain_for + 4 * loaded.agent.settle_for + loaded.agent.command_timeout
        within += hand_over_within(loaded.failover)
        answer = control.request(loaded.control_socket, "drain", answer_within=within, names=options.names)
    if options.json:
        _print_json(answer)
    else:
        undrain = " ".join(["mobility undrain", *options.names])
        until = "the next boot announces again" if options.until_boot else f"`{undrain}` announces again"
        count = len(answer["withdrawn"])
        if answer["acknowledged"]:
            print(f"withdrawn: {count} addresses; the jails run on; {until}")
        else:
            why = "ExaBGP has not acknowledged every withdrawal, routers may still send packets here: mobility status"
            print(f"mobility: {count} addresses are to be withdrawn, but {why}; {until}", file=sys.stderr)
        if not answer.get("handed_over", True):
            print("mobility: no other node has taken every failover over: see mobility status", file=sys.stderr)
    return EX_OK if answer["acknowledged"] and answer.get("handed_over", True) else EX_FAILED


def _misused(what: str) -> int:
    print(f"mobility: {what}", file=sys.stderr)
    return EX_USAGE


def _drained(name: str) -> str:
    return {"*": "the whole host", "*boot": "the whole host, until the next boot"}.get(name, name)


def _undrain(options: argparse.Namespace, loaded: config.Config) -> int:
    if options.until_boot and options.names:
        return _misused("undrain --until-boot is for the whole host: leave the names out")
    more = {"until_boot": True} if options.until_boot else {}
    answer = control.request(loaded.control_socket, "undrain", names=options.names, **more)
    if options.json:
        _print_json(answer)
    else:
        still = ", ".join(map(_drained, answer["still_drained"]))
        print(
            f"announced again: {', '.join(map(_drained, answer['undrained'])) or 'nothing was drained'}"
            + (f"; still drained: {still}" if still else "")
        )
    return EX_OK


def _reload(options: argparse.Namespace, loaded: config.Config) -> int:
    answer = control.request(loaded.control_socket, "reload", answer_within=4 * loaded.agent.settle_for)
    if options.json:
        _print_json(answer)
    else:
        print("\n".join(answer["changes"]) or f"{loaded.path}: nothing has changed")
        if not answer["exabgp"]:
            print("ExaBGP does not run: it reads its peers when it starts")
        for problem in answer["problems"]:
            print(f"mobility: {problem}: it keeps what it had", file=sys.stderr)
    return EX_DATAERR if answer["problems"] else EX_OK


def _release(options: argparse.Namespace, loaded: config.Config) -> int:
    answer = control.request(loaded.control_socket, "release", names=options.names)
    if options.json:
        _print_json(answer)
    else:
        print(f"released: {', '.join(answer['released'])}; see mobility status")
    return EX_OK


def _handoff(options: argparse.Namespace, loaded: config.Config) -> int:
    within = 2 * loaded.agent.settle_for + loaded.agent.command_timeout
    names = options.names
    answer = control.request(loaded.control_socket, "handoff", answer_within=within, names=names, cancel=options.cancel)
    if options.json:
        _print_json(answer)
    elif not answer["acknowledged"]:
        print(
            "mobility: ExaBGP has not acknowledged every route, so others may not know: mobility status",
            file=sys.stderr,
        )
    elif options.cancel:
        print(f"announced as before: {', '.join(names)}")
    else:
        for name, sequence in answer["sequences"].items():
            print(
                f"{name}: handed over with sequence {sequence}: stop it here, and where it goes: mobility expect {name}"
            )
    return EX_OK if answer["acknowledged"] else EX_FAILED


def _expect(options: argparse.Namespace, loaded: config.Config) -> int:
    within = options.within
    answer = control.request(
        loaded.control_socket, "expect", answer_within=within + ANSWER_MARGIN, names=[options.name], within=within
    )
    if options.json:
        _print_json(answer)
    elif answer["from"] is None:
        print(f"{options.name}: nobody announces it: start it here")
    else:
        print(f"{options.name}: {answer['from']} has withdrawn it (sequence {answer['sequence']}): start it here")
    return EX_OK


def _doctor(options: argparse.Namespace, loaded: config.Config) -> int:
    verdicts = asyncio.run(doctor.examine(loaded, options.hook))
    healthy = doctor.healthy(verdicts)
    if options.json:
        print(json.dumps({"healthy": healthy, "verdicts": [verdict.describe() for verdict in verdicts]}, indent=2))
    else:
        print("\n".join(line for verdict in verdicts for line in verdict.lines()))
    return EX_OK if healthy else EX_FAILED
