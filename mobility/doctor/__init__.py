"""`mobility doctor`: every prerequisite with its verdict, the reason, and the exact command that mends it.

It looks and changes nothing. What is gathered here is judged by pure functions: kernel, clock, jails, bgp. Each part is
gathered by itself and within its time: one that breaks says so, and hides no other.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import shlex
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from mobility import control
from mobility.bgp import conf, run
from mobility.config import DEFAULT_PATH, INTERFACE, Config, Peer
from mobility.doctor import bgp, clock, failover, jails, kernel, look, ownership, uplinks
from mobility.doctor.verdict import Level, Verdict, fail, healthy, ok
from mobility.failover import watch
from mobility.hooks.command import EDITORS
from mobility.hooks.edit import DEFAULT_HOOK, Editor, Hook, HooksError, State
from mobility.hooks.iocage import IocageEditor
from mobility.jails import iocage
from mobility.jails.said import Manager, Said
from mobility.jails.sources import Sources, contested, managers_of
from mobility.network import naming
from mobility.network.command import Result
from mobility.network.host import Host, Trouble
from mobility.network.output import HostView
from mobility.uplinks import MULTIPATH, defaults, of_peers

__all__ = ["Level", "Verdict", "examine", "healthy"]

WITHIN = 20.0
"""Seconds that one part may take."""
NAME_WITHIN = 2.0
"""Seconds in which the host's own name should be resolved."""
TRIED = 3
"""Jails to which a route is tried."""
T = TypeVar("T")


async def examine(config: Config, hook: Path = DEFAULT_HOOK, waits: dict[str, None] | None = None) -> list[Verdict]:
    """Gather and judge everything; the order is that in which an operator should mend.

    `hook` is the program that jails are expected to call. `waits` always holds the names of the parts that are still being
    looked at.
    """
    waits = {} if waits is None else waits
    host = Host(config.paths.commands, config.agent.command_timeout, _unmeasured)
    reading = asyncio.ensure_future(aside(lambda: _read(config)))
    parts: list[tuple[str, Awaitable[Iterable[Verdict]]]] = [
        ("user", _now(kernel.root_verdicts(os.geteuid()))),
        ("commands", _now(kernel.command_verdict(name, config.paths.commands) for name in kernel.COMMANDS)),
        ("kernel", _kernel(config, host)),
        ("routes to jails", _origin(host)),
        ("uplinks", _uplinks(config, host)),
        ("pf", _pf(host)),
        ("failover", _failover(config, host)),
        ("host name", _host_name()),
        ("clock", _clock(host)),
        ("ExaBGP", _exabgp(config)),
        ("mobility.toml", aside(lambda: _secrets(config))),
        ("folders", aside(lambda: _folders(config))),
        ("jails' files", _jails(config, hook, asyncio.shield(reading))),
        ("jails' commands", _lacks(host, asyncio.shield(reading))),
        ("agent", _agent(config)),
    ]
    try:
        waits.update(dict.fromkeys(what for what, _ in parts))
        several = await asyncio.gather(*(_whatever(what, part, waits) for what, part in parts))
    finally:
        host.close()
    return [verdict for verdicts in several for verdict in verdicts]


async def _whatever(what: str, part: Awaitable[Iterable[Verdict]], waits: dict[str, None]) -> list[Verdict]:
    """Return a part's verdicts, or the one that it could not be looked at."""
    try:
        async with asyncio.timeout(WITHIN):
            return list(await part)
    except TimeoutError:
        return [fail(what, f"could not be looked at within {WITHIN:g} s")]
    except Exception as error:  # noqa: BLE001  # whatever is broken there: the other parts are told all the same
        return [fail(what, f"could not be looked at: {error or type(error).__name__}")]
    finally:
        waits.pop(what, None)


async def _now(verdicts: Iterable[Verdict]) -> Iterable[Verdict]:
    return verdicts


async def aside(work: Callable[[], T]) -> T:
    """Return what `work` returns, run in a thread of its own that is given up when it takes too long.

    Threads of an executor are waited for when the program ends: one that hangs in a file system would hold it up.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def tell(set_it: Callable[[Any], None], value: object) -> None:
        if not future.done():
            set_it(value)

    def body() -> None:
        told: tuple[Callable[[Any], None], object]
        try:
            told = future.set_result, work()
        except BaseException as error:  # noqa: BLE001  # it is the caller's
            told = future.set_exception, error
        # the loop is closed where nobody has waited for this any more
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(tell, *told)

    threading.Thread(target=body, daemon=True).start()
    return await future


def _unmeasured(_name: str, _seconds: float, _failed: bool) -> None:
    """Nobody counts what the doctor runs."""


async def _ask(host: Host, *argv: str) -> Result:
    """Run a command; one that is missing or too slow has failed, with the reason as its words."""
    try:
        return await host.command(argv)
    except Trouble as error:
        return Result(tuple(argv), 127, "", str(error), 0.0)


async def _sysctls(host: Host, *names: str) -> list[Result]:
    return await asyncio.gather(*(_ask(host, "sysctl", "-n", name) for name in names))


async def _kernel(config: Config, host: Host) -> list[Verdict]:
    vimage, feature, switch, old, *forwarding = await _sysctls(
        host, "kern.features.vimage", kernel.FEATURE, kernel.SWITCH, kernel.OLD_EPAIR, *kernel.FORWARDING
    )
    return [
        kernel.vnet_verdict(vimage),
        kernel.epair_verdict(await _ask(host, "kldstat", "-q", "-m", "if_epair")),
        kernel.queue_verdict(old),
        kernel.next_hop_verdict(config.host.ipv4_routes, feature, switch),
        kernel.ipv4_verdict(await _ask(host, "ifconfig", "-a")),
        *(
            kernel.forwarding_verdict(name, knob, result)
            for (name, knob), result in zip(kernel.FORWARDING.items(), forwarding, strict=True)
        ),
    ]


async def _origin(host: Host) -> list[Verdict]:
    view = await host.look()
    tried = await aside(lambda: [look.source_to(jail, to) for jail, to in wired(view)[:TRIED]])
    own = frozenset(text for several in view.net.interfaces.values() for one in several for text in one.inet)
    return [kernel.origin_verdict(tried, own)]


def wired(view: HostView) -> list[tuple[str, str]]:
    """Return the jails that have a link of ours, each with an IPv4 address that is routed over it."""
    found = []
    for name in sorted(view.ours):
        interface = view.net.interface(name)
        described = naming.described(interface.description) if interface else None
        to = [route for route in view.net.by_interface.get(name, ()) if route.version == 4 and "H" in route.flags]
        if to:
            found.append((described[0] if described else f"behind {name}", to[0].destination))
    return found


async def _uplinks(config: Config, host: Host) -> list[Verdict]:
    if not any(peer.uplink for peer in config.bgp.peers):
        return list(uplinks.uplink_verdicts((), (), Result((), 0, "", "", 0.0), {}, None))
    await host.learn()
    crossed = host.ipv6_next_hops and config.host.ipv4_routes != INTERFACE
    view = await host.look()
    (multipath,) = await _sysctls(host, MULTIPATH)
    told: dict[str, Any] = {}
    with contextlib.suppress(control.ControlError):
        told = (await aside(lambda: control.request(config.control_socket, "status")))["host"]
    sessions = {session["peer"]: session["state"] for session in told.get("sessions", ())}
    ways = of_peers(config.bgp.peers, crossed=crossed)
    return list(uplinks.uplink_verdicts(ways, defaults(view.net), multipath, sessions, told.get("uplinks")))


async def _pf(host: Host) -> list[Verdict]:
    info, rules = await asyncio.gather(_ask(host, "pfctl", "-s", "info"), _ask(host, "pfctl", "-sr"))
    return [kernel.antispoof_verdict(info, rules)]


async def _failover(config: Config, host: Host) -> Iterable[Verdict]:
    (release,) = await _sysctls(host, "kern.osreldate")
    devd = await aside(lambda: look.is_socket(config.paths.devd))
    groups = config.failover.groups
    if not groups:
        carp, pfsync = await asyncio.gather(*(_ask(host, "kldstat", "-q", "-m", name) for name in ("carp", "pfsync")))
        return kernel.failover_verdicts(carp, pfsync, release, devd)
    synced = any(group.pfsync for group in groups)
    interfaces = {vhid.interface for group in groups for vhid in group.vhids}
    number = release.stdout.strip()
    told: Mapping[str, Any] | None = None
    with contextlib.suppress(control.ControlError):
        told = (await aside(lambda: control.request(config.control_socket, "status")))["host"].get("failover")
    return failover.failover_verdicts(
        {group.name: group.vhids for group in groups},
        pfsync=synced,
        seen=await watch.look(host, interfaces, pfsync=synced),
        release=int(number) if number.isdecimal() else None,
        devd=devd,
        agent=told,
    )


async def _host_name() -> list[Verdict]:
    # ExaBGP calls getfqdn() when it starts (exabgp/util/dns.py), and waits for a DNS that does not answer
    name = socket.gethostname()
    try:
        async with asyncio.timeout(NAME_WITHIN):
            await aside(socket.getfqdn)
    except TimeoutError:
        why = f"{name} is not resolved within {NAME_WITHIN:g} s: ExaBGP waits for that at every start"
        return [fail("host name", why, f"echo '127.0.0.1 {shlex.quote(name)}' >> /etc/hosts")]
    return [ok("host name", name)]


async def _clock(host: Host) -> list[Verdict]:
    return [clock.clock_verdict(time.time(), await _ask(host, "sysctl", "-x", clock.SYSCTL))]


async def _exabgp(config: Config) -> list[Verdict]:
    user = config.bgp.user
    signed = bgp.signature_verdict(config.bgp.peers, look.can_sign())
    hops = bgp.hops_verdict(config.bgp.peers, sys.platform)
    verdicts = [bgp.user_verdict(user, _uid(user)), *(each for each in (signed, hops) if each)]
    if _uid(user) is not None:
        verdicts.append(await aside(lambda: _bridge(config)))
    try:
        path = Path(run.program(config))
    except run.ExabgpError as error:
        return [*verdicts, fail("ExaBGP", str(error), bgp.INSTALL)]
    host = Host([path.parent, *config.paths.commands], config.agent.command_timeout, _unmeasured)
    try:
        version = bgp.exabgp_verdict(await _ask(host, path.name, "version"))
        verdicts.append(version)
        if version.level is not Level.FAIL:
            verdicts.append(await _capabilities(config, host, path.name))
    finally:
        host.close()
    return verdicts


def _uid(user: str) -> int | None:
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        return None


def _bridge(config: Config) -> Verdict:
    try:
        needed = [Path(word) for word in config.bgp.bridge_command if word.startswith("/")]
        closed = run.closed_to(run.account(config.bgp.user), needed)
    except run.ExabgpError as error:
        return bgp.bridge_verdict(config.bgp.user, None, str(error))
    return bgp.bridge_verdict(config.bgp.user, closed, "")


async def _capabilities(config: Config, host: Host, program: str) -> Verdict:
    try:
        text = conf.render(config)
    except conf.ConfError as error:
        return bgp.capability_verdict(None, str(error))
    # passwords may stand in it: the file is its owner's only (tempfile), and gone at once
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as file:
        file.write(text)
        file.flush()
        return bgp.capability_verdict(await _ask(host, program, "validate", file.name), "")


def _secrets(config: Config) -> list[Verdict]:
    verdict = jails.secret_verdict(config.path, config.bgp.peers)
    return [verdict] if verdict else []


def _folders(config: Config) -> list[Verdict]:
    return [jails.folder_verdict("spool", config.hooks.spool), jails.folder_verdict("database", config.paths.state)]


@dataclass(frozen=True, slots=True)
class _Files:
    """What the jails' files say: ours, and for each jail that has addresses its manager and what that says of it."""

    sources: Sources
    said: Mapping[str, tuple[Manager, Said]]


def _read(config: Config) -> _Files:
    sources = Sources.of(config, ask_all=True)
    sources.refresh()
    found: dict[str, tuple[Manager, Said]] = {}
    for manager in managers_of(config):
        for name in sources.jails.keys() & set(manager.names()) - found.keys():
            try:
                said = manager.read(name, requests=True)
            except ValueError:
                continue  # it is among the sources' problems
            if said is not None:
                found[name] = (manager, said)
    return _Files(sources, found)


async def _jails(config: Config, hook: Path, reading: Awaitable[_Files]) -> list[Verdict]:
    files = await reading
    granted = files.sources.jails
    hooked = await aside(lambda: _hooked(config, hook, files))
    default = config.path.absolute() == DEFAULT_PATH
    words = (
        *(() if default else ("--config", str(config.path))),
        *(() if hook == DEFAULT_HOOK else ("--hook", str(hook))),
    )
    programs = sorted({one.program or hook for one in hooked})
    return [
        *jails.grants_verdicts(
            len(granted), files.sources.problems, files.sources.refused, contested(granted.values())
        ),
        *jails.hooks_verdicts(granted, hooked, words),
        *(verdict for program in programs for verdict in _program(program, hook, hooked)),
        *jails.advice_verdicts(said for _, said in files.said.values()),
    ]


def _program(program: Path, hook: Path, hooked: Iterable[jails.Hooked]) -> Iterable[Verdict]:
    calling = [one for one in hooked if (one.program or hook) == program]
    return jails.program_verdicts(program, calling, os.access(program, os.X_OK))


def _hooked(config: Config, hook: Path, files: _Files) -> list[jails.Hooked]:
    """Return what is known of the hooks of each jail that has a manager."""
    called = Hook(hook, None if config.path.absolute() == DEFAULT_PATH else config.path.absolute())
    editors: dict[tuple[str, Hook], Editor] = {}

    def state(manager: str, name: str, of: Hook) -> State:
        editor = editors.setdefault((manager, of), EDITORS[manager](config, of))
        return editor.state(name)

    found = []
    for name, (manager, _) in sorted(files.said.items()):
        known_as = name.removeprefix(iocage.PREFIX) if manager.name == IocageEditor.name else name
        try:
            one = jails.Hooked(name, manager.name, known_as, state(manager.name, known_as, called))
            other = None if one.installed or one.state is None else jails.other_hook(one.state.note)
            if other is not None and (there := replace(one, state=state(manager.name, known_as, other))).installed:
                one = replace(there, differs=jails.differing(other, called, DEFAULT_PATH), program=other.program)
        except HooksError as error:
            one = jails.Hooked(name, manager.name, known_as, error=str(error))
        found.append(one)
    return found


async def _lacks(host: Host, reading: Awaitable[_Files]) -> Iterable[Verdict]:
    files = await reading
    await host.learn()
    view = await host.look()
    running = [jail for name, jail in view.jails.items() if jail.vnet and name in files.sources.jails]
    lacking = await aside(lambda: {jail.name: host.lacks(jail) for jail in running})
    return jails.lacks_verdicts({name: why for name, why in lacking.items() if why})


async def _agent(config: Config) -> list[Verdict]:
    host, told, error = None, [], ""
    try:
        # well before this part's own time is over, so that there is more to say than that it was
        answer = await aside(lambda: control.request(config.control_socket, "status", answer_within=WITHIN / 2))
        host, told = answer["host"], answer["jails"]
    except control.ControlError as refused:
        error = str(refused)
    sessions = {session["peer"]: session for session in host["sessions"]} if host else {}
    peers = await asyncio.gather(*(_peer(peer, host, sessions.get(peer.name)) for peer in config.bgp.peers))
    owned = [*ownership.ownership_verdicts(told), *jails.kept_back_verdicts(told)] if host else ()
    return [*bgp.agent_verdicts(host, error), *(verdict for verdicts in peers for verdict in verdicts), *owned]


async def _peer(peer: Peer, host: Mapping[str, Any] | None, session: Mapping[str, Any] | None) -> Iterable[Verdict]:
    if host is None or not host["bridge"]:
        # no connection is tried: there may be a session, and a router that sees us connect anew takes it for our restart
        # and ends it (RFC 4724, section 4.2)
        away = await aside(lambda: look.away(peer))
        return [bgp.unknown_verdict(peer, agent=host is not None, away=away)]
    if session is not None and session["state"] == "up":
        return bgp.session_verdicts(peer, session)
    return [bgp.look_verdict(await aside(lambda: look.reach(peer)))]
