"""The host as the agent sees and changes it: looks, and commands one after the other, each with a time limit."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context
from pathlib import Path

from mobility.network import naming, output
from mobility.network.command import JAIL_OUTPUT_LIMIT, OUTPUT_LIMIT, CommandError, Result, run
from mobility.network.output import HostView, Jail, NetView, OutputError
from mobility.plan import Command

log = logging.getLogger(__name__)

WORKERS = 64
"""Commands that may run at once: a hung one holds one of these until its time limit."""
_JLS = ("jls", "--libxo", "json")
_JLS_FIELDS = ("name", "jid", "path", "vnet", "ip4.addr", "ip6.addr")
_BOOT_ID = re.compile(r"Dump:0x([0-9a-f]+)")
_NEXT_HOPS = ("kern.features.ipv4_rfc5549_support", "net.route.ipv6_nexthop")
_INTO_JAIL = ("ifconfig", "route", "netstat")

_JEXEC_PATH = tuple(Path(text) for text in ("/sbin", "/usr/sbin", "/bin", "/usr/bin"))
"""Where a jail has its programs: jexec(8) looks along the path of login.conf(5)'s default class."""
_MAX_STEPS = 64
"""Names and links that are followed below a jail's root: a loop of links ends there (ELOOP)."""

_HOPELESS = (
    # said by the command, what the operator should do
    (
        "Network is unreachable",
        "the host has no IPv4 address but 127.0.0.1: ifconfig lo0 inet 192.0.0.8/32 alias",
    ),
    ("Operation not permitted", "the agent must run as root, and not in a jail without the right to do this"),
    ("permission denied", "the agent must run as root"),
    ("Operation not supported", "load the module: kldload if_epair"),
)


class Trouble(Exception):
    """A command failed. `retry` says whether looking again and trying again may help."""

    def __init__(self, message: str, *, retry: bool) -> None:
        self.retry = retry
        super().__init__(message)


def judge(command: Command, result: Result) -> Trouble:
    """Turn a failed command into what the operator is told. Pure."""
    said = result.complaint
    for words, advice in _HOPELESS:
        if words in said:
            return Trouble(f"{' '.join(command.argv)}: {said}: {advice}", retry=False)
    return Trouble(f"{' '.join(command.argv)}: {said}", retry=True)


def _asked(_: Result) -> bool:
    """Take it that a command only asks whether there is something: "no" is an answer, not a failure."""
    return False


class Host:
    """Runs FreeBSD's commands from `directories`, each for `timeout` seconds at most.

    `measured` is called with every finished command: its name, seconds, and whether it failed.
    """

    def __init__(
        self, directories: Sequence[Path], timeout: float, measured: Callable[[str, float, bool], None]
    ) -> None:
        self._directories = tuple(directories)
        self._timeout = timeout
        self._measured = measured
        self._pool = ThreadPoolExecutor(WORKERS, "command")
        self._next_look: asyncio.Task[HostView] | None = None
        self._looking: asyncio.Task[HostView] | None = None
        self._seen: tuple[tuple[int, ...], HostView] | None = None
        self._dash_j: frozenset[str] = frozenset()
        self.ipv6_next_hops = True
        """Whether this kernel takes IPv6 next hops for IPv4 routes."""

    def close(self) -> None:
        """Give up the threads; commands under way end by themselves or at their time limit."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def command(
        self,
        argv: Sequence[str],
        limit: int = OUTPUT_LIMIT,
        *,
        failed: Callable[[Result], bool] = lambda result: result.status != 0,
    ) -> Result:
        """Run a command and return what it answered, whatever its exit status; `failed` says what counts as a failure.

        Raises Trouble when it is missing, too slow or too talkative.
        """
        loop = asyncio.get_running_loop()
        try:
            result = await loop.run_in_executor(
                self._pool, lambda: run(argv, self._directories, timeout=self._timeout, limit=limit)
            )
        except CommandError as error:
            self._measured(argv[0], self._timeout, True)
            raise Trouble(str(error), retry=True) from error
        self._measured(argv[0], result.seconds, failed(result))
        return result

    async def learn(self) -> None:
        """Find out what this kernel and its commands can do, whatever their version says.

        Which commands take `-j JAIL` (FreeBSD 14), and so need no jexec; whether IPv4 routes may have IPv6 next hops:
        the feature is there since 13.1 (D30398), and net.route.ipv6_nexthop may switch it off.
        """
        answers = await asyncio.gather(*(self.command(["sysctl", "-n", name], failed=_asked) for name in _NEXT_HOPS))
        self.ipv6_next_hops = all(result.status == 0 and result.stdout.strip() == "1" for result in answers)
        able = set()
        for name in _INTO_JAIL:
            result = await self.command([name, "-j", "0"], failed=_asked)
            if "illegal option -- j" not in result.stderr:
                able.add(name)
        self._dash_j = frozenset(able)

    async def boot_id(self) -> str:
        """Return what tells this boot from any other: kern.boot_id is opaque, so `sysctl -x` (transcript 15-host)."""
        result = await self.command(["sysctl", "-x", "kern.boot_id"])
        found = _BOOT_ID.search(result.stdout)
        if found:
            return found[1]
        result = await self.command(["sysctl", "-n", "kern.boottime"])
        if result.status != 0:
            raise Trouble(f"neither kern.boot_id nor kern.boottime can be read: {result.complaint}", retry=False)
        return hashlib.sha256(result.stdout.encode()).hexdigest()[:32]

    async def look(self) -> HostView:
        """Look at the whole host. The look begins after this call; callers of one moment share it.

        Returns the very same object while nothing has changed. Raises Trouble when a command fails.
        """
        if self._next_look is None:
            # everybody's: what it logs belongs to no jail
            self._next_look = asyncio.create_task(self._look_after(self._looking), context=Context())
        return await asyncio.shield(self._next_look)

    async def _look_after(self, previous: asyncio.Task[HostView] | None) -> HostView:
        if previous is not None:
            await asyncio.wait([previous])
        self._looking, self._next_look = self._next_look, None
        return await self._look()

    async def _look(self) -> HostView:
        answers = await asyncio.gather(
            self.command(["ifconfig", "-a"]),
            self.command(["ifconfig", "-g", naming.GROUP]),
            self.command(["netstat", "-rnW", "--libxo", "json"]),
            self.command([*_JLS, *_JLS_FIELDS]),
        )
        for result in answers:
            if result.status != 0:
                raise Trouble(f"{' '.join(result.argv)}: {result.complaint}", retry=True)
        # the texts themselves would be megabytes; their keyed hashes tell a change just as well
        digest = tuple(hash(result.stdout) for result in answers)
        if self._seen is not None and self._seen[0] == digest:
            return self._seen[1]
        ifconfig, group, netstat, jls = answers
        try:
            view = HostView(
                NetView(output.interfaces(ifconfig.stdout), output.routes(netstat)),
                frozenset(group.stdout.split("\n")) - {""},
                output.jails(jls),
            )
        except OutputError as error:
            raise Trouble(str(error), retry=True) from error
        self._seen = (digest, view)
        return view

    async def jail(self, name: str) -> Jail | None:
        """Look for one running jail; None where it does not run."""
        try:
            return output.jails(await self.command([*_JLS, "-j", name, *_JLS_FIELDS], failed=_asked)).get(name)
        except OutputError as error:
            raise Trouble(str(error), retry=True) from error

    def _into(self, jail: str, name: str, *arguments: str) -> tuple[str, ...]:
        return (name, "-j", jail, *arguments) if name in self._dash_j else ("jexec", jail, name, *arguments)

    async def inside(self, jail: str) -> NetView:
        """Look at a jail's own interfaces and routes. What it says is believed of itself only."""
        ifconfig, netstat = await asyncio.gather(
            self.command(self._into(jail, "ifconfig"), JAIL_OUTPUT_LIMIT),
            self.command(self._into(jail, "netstat", "-rnW", "--libxo", "json"), JAIL_OUTPUT_LIMIT),
        )
        for result in (ifconfig, netstat):
            if result.status != 0:
                raise Trouble(f"jail {jail}: {' '.join(result.argv)}: {result.complaint}", retry=True)
        try:
            return NetView(output.interfaces(ifconfig.stdout), output.routes(netstat))
        except OutputError as error:
            raise Trouble(f"jail {jail}: {error}", retry=True) from error

    def lacks(self, jail: Jail) -> str:
        """Return why the jail can not be wired for want of a command of its own, or "" where it can."""
        needed = [name for name in ("ifconfig", "route") if name not in self._dash_j]
        root = Path(jail.path)
        for name in needed:
            places = (directory / name for directory in (*_JEXEC_PATH, *self._directories))
            if not any(_in_root(root, place) for place in places):
                return (
                    f"jail {jail.name} has no {name} of its own below {root} and this kernel's {name} has no -j: "
                    f"put {name} and its libraries into the jail (a thin jail has them), or use FreeBSD 14"
                )
        return ""

    def argv(self, command: Command) -> tuple[str, ...]:
        """Return what is really run for a planned command: `-j` instead of jexec where this kernel has it."""
        if command.in_jail:
            _, jail, name, *arguments = command.argv
            return self._into(jail, name, *arguments)
        return command.argv

    async def apply(self, command: Command) -> None:
        """Run one planned command.

        Raises Trouble when it fails, naming it, what it said, and what to do.
        """

        def failed(result: Result) -> bool:
            # ifconfig(8) only warns where an nd6 option is refused, and exits with 0 (af_nd6.c, setnd6flags)
            said = result.status != 0 or "ioctl(" in result.stderr
            return said and not any(words in result.complaint for words in command.harmless)

        argv = self.argv(command)
        result = await self.command(argv, JAIL_OUTPUT_LIMIT, failed=failed)
        log.info(
            "ran",
            extra={"argv": " ".join(argv), "status": result.status, "seconds": round(result.seconds, 4)},
        )
        if failed(result):
            await self._unmake(command, result.stdout.strip())
            raise judge(command, result)

    async def _unmake(self, command: Command, printed: str) -> None:
        """Destroy the pair of a `create` that failed after it was made, before it said whose it is.

        ifconfig(8) prints what it made whatever came after it (ifconfig.c, printifnamemaybe).
        """
        if command.argv[2:3] == ("create",) and printed == f"{command.argv[1]}a":
            result = await self.command(["ifconfig", printed, "destroy"])
            if result.status != 0:
                log.error("a pair was left behind", extra={"interface": printed, "problem": result.complaint})


def _in_root(root: Path, path: Path) -> bool:
    """Tell whether a file is there for a process whose root is `root`: links lead where they lead from inside.

    A thin jail's /sbin is a link to where its release is mounted in the jail.
    """
    left, here = [*reversed(path.parts[1:])], root
    for _ in range(_MAX_STEPS):
        if not left:
            return os.path.lexists(here)
        name = left.pop()
        if name == "..":
            here = root if here == root else here.parent
            continue
        try:
            target = (here / name).readlink()
        except OSError:
            here /= name  # no link, or not there: the last step tells
            continue
        here = root if target.is_absolute() else here
        left += reversed(target.parts[1:] if target.is_absolute() else target.parts)
    return False
