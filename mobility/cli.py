"""The `mobility` command."""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from mobility import __version__, completion, config, control, doctor, logs
from mobility.doctor import bgp as sessions
from mobility.failover.policy import hand_over_within
from mobility.hooks import command as hooks
from mobility.hooks.edit import DEFAULT_HOOK
from mobility.jails.sources import Sources, contested
from mobility.likely import did_you_mean
from mobility.terminal import commands as terminal
from mobility.terminal import happenings
from mobility.terminal.progress import Progress, of_drain
from mobility.terminal.screen import read_no_more, standard_output
from mobility.terminal.status import SORTS, STATES, drained_in_words
from mobility.terminal.text import duration, moment, printable, printable_lines

EX_INTERRUPTED = 130
ASKING = {"status", "explain", "plan", "watch", "events", "drain", "undrain", "reload", "release", "handoff", "expect"}
"""The commands that ask the running agent."""
EX_OK, EX_FAILED, EX_USAGE, EX_DATAERR, EX_CONFIG = 0, 1, 2, 65, 78
"""Exit statuses: fine; not fine; wrong words; some jails' files can not be used; mobility.toml can not (sysexits(3))."""
WITHIN = 30.0
"""Seconds that a drain until the next boot may take, of the 90 that rc.shutdown has for all services (rc.conf(5))."""
ANSWER_MARGIN = 2.0
"""Seconds beyond those, for the agent's answer to arrive."""


def _with_meant(message: str) -> str:
    """Return argparse's complaint about a word, with the one that may have been meant."""
    found = re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message)
    meant = did_you_mean(found[1], re.findall(r"[\w.-]+", found[2])) if found else ""
    return f"{message}; {meant}" if meant else message


class _Parser(argparse.ArgumentParser):
    """The command's own: it says which command may have been meant."""

    def error(self, message: str) -> NoReturn:
        """End with what is wrong, and what may have been meant."""
        super().error(_with_meant(message))


COMPLETES = "Print what makes a shell complete these commands and their options."


class _Mixing(argparse.ArgumentParser):
    """Takes options among the names too: `hooks install bastille --adopt web1`. argparse's own way lost that name."""

    _begun = False

    def error(self, message: str) -> NoReturn:
        """End with what is wrong, and what may have been meant."""
        super().error(_with_meant(message))

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
    parser = _Parser(prog="mobility", description="Makes FreeBSD jails mobile.")
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
    agent.add_argument("--log-format", choices=logs.FORMATS, default="text", help="how a line is written")
    agent.add_argument(
        "--log-level", choices=logs.LEVELS, default="info", help="what is logged: this, and what is graver"
    )
    agent.add_argument("--log-to", choices=logs.TARGETS, default="stderr", help="where to (rc.d: syslog)")
    add(
        "exabgp",
        _exabgp,
        "Write ExaBGP's configuration from ours and become ExaBGP (rc.d does it).",
        json=False,
    )
    add("bridge", _bridge, "Become the bridge between ExaBGP and the agent (ExaBGP does it).", json=False)
    add("check", _check, "Judge the configuration and every jail's files; touch nothing.")
    _add_status(
        add(
            "status",
            terminal.show_status,
            "Say of each jail: running, wired, ready, announced, since when, and if not, why.",
        )
    )
    explain = add("explain", terminal.explain, "Tell one jail's whole story, and why it is as it is in one sentence.")
    explain.add_argument("name", metavar="NAME")
    plan = add("plan", _plan, "Print the exact commands that would be run now, and run none of them.")
    plan.add_argument("names", nargs="*", metavar="NAME")
    history = add("history", terminal.history, "Print what happened, whether the agent runs or not.")
    history.add_argument("name", nargs="?", metavar="NAME")
    history.add_argument(
        "--since",
        type=_moment,
        metavar="WHEN",
        help="from then on: how long ago (90s, 15m, 2h, 7d), or a time in UTC (2026-11-21)",
    )
    history.add_argument(
        "--what", action="append", metavar="WHAT", help="only what is called so: announced, withdrawn, flapped, ..."
    )
    history.add_argument(
        "-n", "--lines", type=_count, default=100, metavar="N", help="the newest N (default: %(default)s)"
    )
    watch = add("watch", terminal.watch, "Print what happens as it happens, one line each, until Ctrl-C.")
    watch.add_argument("names", nargs="*", metavar="NAME")
    top = add("top", terminal.top, "Show the busiest jails: flaps, starts, moves, announcements.")
    top.add_argument(
        "--window",
        type=_duration,
        default=terminal.WINDOW,
        metavar="TIME",
        help="how far to look back (default: %(default)s)",
    )
    top.add_argument("--sort", choices=happenings.SORTS, default="penalty", help="default: %(default)s")
    top.add_argument("--every", type=_seconds, default=terminal.REFRESH, metavar="SECONDS", help="default: %(default)g")
    top.add_argument(
        "-n",
        "--times",
        type=_count,
        metavar="N",
        help="show it so often, 1: once (default: on a terminal until Ctrl-C)",
    )
    events = add("events", _events, "Print what happened, as the agent tells it.")
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
    shells = commands.add_parser("completion", help=COMPLETES, description=COMPLETES)
    shells.add_argument("shell", choices=tuple(completion.SHELLS), metavar="SHELL", help="|".join(completion.SHELLS))
    return parser


def _add_status(status: argparse.ArgumentParser) -> None:
    status.add_argument("names", nargs="*", metavar="NAME", help="a jail, or a pattern: 'web*'")
    status.add_argument("--running", action="store_true", help="only jails that run")
    status.add_argument("--dark", action="store_true", help="only jails that run, should be announced, and are not")
    status.add_argument(
        "--state",
        choices=STATES,
        action="append",
        metavar="STATE",
        help=f"only jails that are at that; may be repeated: {', '.join(STATES)}",
    )
    status.add_argument("--sort", choices=SORTS, default="name", help="default: %(default)s")
    status.add_argument(
        "--watch",
        action=_Watch,
        nargs="?",
        metavar="SECONDS",
        help=f"show it again every so many seconds (default: {terminal.REFRESH:g}), until Ctrl-C",
    )
    status.set_defaults(more_names=())


class _Watch(argparse.Action):
    """Takes the seconds of `--watch`, where there are any: in `status --watch web1` there is a jail."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        _option: str | None = None,
    ) -> None:
        namespace.watch = terminal.REFRESH
        if values is not None and not values[:1].isdigit():
            namespace.more_names = (*namespace.more_names, values)
        elif values is not None:
            try:
                namespace.watch = _seconds(values)
            except argparse.ArgumentTypeError as error:
                parser.error(
                    f"argument --watch: {error}; a jail of that name goes first: mobility status {values} --watch"
                )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    _prepare_streams()
    options = _parser().parse_args(arguments)
    if options.command == "completion":
        return _until_closed(lambda: _completion(options))
    try:
        loaded = config.load(options.config)
    except config.ConfigError as error:
        as_json = getattr(options, "json", False)
        _complain(error, as_json=as_json)
        if options.command in ASKING and not as_json:
            print(
                "mobility: an agent that runs goes on with what it has read; mend the file, ask again", file=sys.stderr
            )
        return EX_CONFIG
    logs.hide(peer.password for peer in loaded.bgp.peers)
    try:
        return _until_closed(lambda: options.run(options, loaded))
    except control.ControlError as error:
        # it may quote what others wrote
        print("mobility:", printable_lines(str(error)), file=sys.stderr)
        return EX_FAILED
    except KeyboardInterrupt:
        print("mobility: interrupted; what was asked of the agent goes on: mobility status", file=sys.stderr)
        return EX_INTERRUPTED


def _prepare_streams() -> None:
    """Have both outputs be there, closed (`2>&-`) or not, and take every letter, whatever the locale has."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115  # for as long as we run
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _until_closed(run: Callable[[], int]) -> int:
    """Run a command; where the reader of its output goes away before its end, that is its end."""
    try:
        status = run()
        sys.stdout.flush()
    except BrokenPipeError:
        read_no_more()
        return EX_FAILED
    return status


def _completion(options: argparse.Namespace) -> int:
    print(completion.SHELLS[options.shell](_parser()), end="")
    return EX_OK


def _complain(error: config.ConfigError, *, as_json: bool) -> None:
    if as_json:
        problems = [{"key": p.key, "value": p.value, "remedy": p.remedy} for p in error.problems]
        print(json.dumps({"ok": False, "file": str(error.path), "problems": problems}, default=str))
    else:
        print(printable_lines(str(error)), file=sys.stderr)


def _agent(options: argparse.Namespace, loaded: config.Config) -> int:
    # imported here: nobody who asks for a status should wait for the agent's libraries
    from mobility.agent import Agent
    from mobility.events.spool import SpoolError
    from mobility.network.host import Trouble
    from mobility.store import StoreError

    limits = loaded.log
    logs.configure(
        options.log_format, options.log_level, options.log_to, burst=limits.burst, per_second=limits.per_second
    )
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
            print(printable_lines(str(problem)), file=sys.stderr)
        for name, several in sorted(files.refused.items()):
            for sentence in several:
                print(printable(f"not granted: jail {name}: {sentence}"), file=sys.stderr)
        for note in notes:
            print(f"note: {note}")
        if not problems:
            print(f"{loaded.path}: fine; {len(files.jails)} jails have addresses granted")
    return EX_DATAERR if problems else EX_OK


def _print_json(answer: dict[str, Any]) -> None:
    print(json.dumps({key: value for key, value in answer.items() if key not in ("v", "ok")}, indent=2))


def _plan(options: argparse.Namespace, loaded: config.Config) -> int:
    answer = control.request(loaded.control_socket, "plan", names=options.names)
    if options.json:
        _print_json(answer)
        return EX_OK
    for jail in answer["plans"]:
        state = f"{jail['stand']}{': ' + jail['reason'] if jail['reason'] else ''}"
        print(printable(f"# {jail['name']}: {jail['problem'] or state}"))
        for command in jail["commands"]:
            print(printable(f"{shlex.join(command['argv'])}    # {command['why']}"))
        for line in jail["announce"]:
            print(printable(f"exabgp: {line}"))
        if not (jail["commands"] or jail["announce"] or jail["problem"]):
            print("# nothing to do")
    return EX_OK


def _events(options: argparse.Namespace, loaded: config.Config) -> int:
    answer = control.request(loaded.control_socket, "events", jail=options.name, limit=options.lines)
    if options.json:
        _print_json(answer)
        return EX_OK
    screen = standard_output()
    screen.say([happenings.line(event, screen.palette) for event in answer["events"]])
    return EX_OK


def _moment(text: str) -> float:
    try:
        return moment(text, time.time())
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _duration(text: str) -> float:
    try:
        return duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _count(text: str) -> int:
    with suppress(ValueError):
        if 1 <= (number := int(text)) <= 1_000_000:
            return number
    raise argparse.ArgumentTypeError("must be a whole number from 1 to 1000000")


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
        with of_drain(loaded.control_socket, within, shown=not options.json):
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
        with of_drain(loaded.control_socket, within, shown=not options.json):
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


def _undrain(options: argparse.Namespace, loaded: config.Config) -> int:
    if options.until_boot and options.names:
        return _misused("undrain --until-boot is for the whole host: leave the names out")
    more: dict[str, Any] = {"until_boot": True} if options.until_boot else {}
    answer = control.request(loaded.control_socket, "undrain", names=options.names, **more)
    if options.json:
        _print_json(answer)
    else:
        still = ", ".join(map(drained_in_words, answer["still_drained"]))
        print(
            f"announced again: {', '.join(map(drained_in_words, answer['undrained'])) or 'nothing was drained'}"
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
            print(printable(f"mobility: {problem}: it keeps what it had"), file=sys.stderr)
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
    what = f"handing over {', '.join(names)}: waiting for ExaBGP to acknowledge"
    with Progress(lambda seconds: f"{what}, {seconds:.0f} s of at most {within:.0f}", shown=not options.json):
        answer = control.request(
            loaded.control_socket, "handoff", answer_within=within, names=names, cancel=options.cancel
        )
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
    what = f"waiting until no other host announces {options.name}"
    with Progress(lambda seconds: f"{what}: {max(0.0, within - seconds):.0f} s left", shown=not options.json):
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
    waits: dict[str, None] = {}
    with Progress(lambda seconds: f"looking at {', '.join(waits)}: {seconds:.0f} s", shown=not options.json):
        verdicts = asyncio.run(doctor.examine(loaded, options.hook, waits))
    healthy = doctor.healthy(verdicts)
    if options.json:
        print(json.dumps({"healthy": healthy, "verdicts": [verdict.describe() for verdict in verdicts]}, indent=2))
    else:
        print("\n".join(printable(line) for verdict in verdicts for line in verdict.lines()))
    return EX_OK if healthy else EX_FAILED
