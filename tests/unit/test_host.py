"""Looks and commands of a host whose FreeBSD commands are small scripts: what is asked, shared, believed and told."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from mobility.network.command import Result
from mobility.network.host import Host, Trouble, judge
from mobility.network.output import Jail
from mobility.plan import Command

TRANSCRIPTS = Path(__file__).parents[1] / "lab" / "transcripts" / "freebsd-13.2"
BIN = (Path("/usr/bin"), Path("/bin"))
NO_DASH_J = 'case $1 in -j) echo "$(basename $0): illegal option -- j" >&2; exit 1;; esac'
NO_ROUTES = '{"statistics": {"route-information": {"route-table": {"rt-family": []}}}}'
ONE_JAIL = '{"jail-information": {"jail": [{"name":"a","jid":"1","path":"/","vnet":"new"}]}}'
NO_JAILS = '{"__version": "2", "jail-information": {"jail": []}}'


class Scripts:
    """A folder of commands, and a count of their calls."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.write(
            "ifconfig", f"{NO_DASH_J}; [ $1 = -g ] && exit 0; echo 'lo0: flags=8049<UP,LOOPBACK> metric 0 mtu 1'"
        )
        self.write("netstat", f"{NO_DASH_J}; echo '{NO_ROUTES}'")
        self.write("route", NO_DASH_J)
        self.write("jls", f"echo '{NO_JAILS}'")

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.write_text(f'#!/bin/sh\necho "{name} $*" >> {self.folder}/calls\n{text}\n')
        path.chmod(0o755)

    @property
    def calls(self) -> list[str]:
        path = self.folder / "calls"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def scripts(tmp_path: Path) -> Scripts:
    return Scripts(tmp_path)


@pytest.fixture
def use(scripts: Scripts) -> Iterator[Callable[[Callable[[Host], Awaitable[object]]], object]]:
    """Run a coroutine with a host of these scripts."""
    host = Host((scripts.folder, *BIN), 5.0, lambda name, seconds, failed: None)

    async def given(work: Callable[[Host], Awaitable[object]]) -> object:
        return await work(host)

    yield lambda work: asyncio.run(given(work))
    host.close()


def test_looks_of_one_moment_are_one(scripts: Scripts, use: Callable[..., object]) -> None:
    async def work(host: Host) -> None:
        views = await asyncio.gather(*(host.look() for _ in range(20)))
        assert all(view is views[0] for view in views)
        assert len(scripts.calls) == 4
        assert await host.look() is views[0], "nothing changed, so nobody needs to think again"
        scripts.write("jls", f"echo '{ONE_JAIL}'")
        changed = await host.look()
        assert changed.jails == {"a": Jail("a", 1, vnet=True, path="/")}

    use(work)


def test_a_look_begins_after_it_is_asked_for(scripts: Scripts, use: Callable[..., object]) -> None:
    """One who asks while a look is under way gets the next: the first may have missed what he asks about."""
    scripts.write("jls", f"while [ ! -e {scripts.folder}/go ]; do sleep 0.01; done; echo '{NO_JAILS}'")

    async def work(host: Host) -> None:
        first = asyncio.create_task(host.look())
        while not any(call.startswith("jls") for call in scripts.calls):  # noqa: ASYNC110  # another process writes the file
            await asyncio.sleep(0.01)  # another process writes the file
        second = asyncio.create_task(host.look())
        (scripts.folder / "go").touch()
        await asyncio.gather(first, second)
        assert sum(call.startswith("jls") for call in scripts.calls) == 2

    use(work)


def test_a_failing_look_is_no_empty_host(scripts: Scripts, use: Callable[..., object]) -> None:
    scripts.write("netstat", "echo 'netstat: kvm not available' >&2; exit 1")

    async def work(host: Host) -> None:
        with pytest.raises(Trouble, match="kvm not available"):
            await host.look()

    use(work)


def test_the_hosts_own_ifconfig_where_the_kernel_has_dash_j(scripts: Scripts, use: Callable[..., object]) -> None:
    scripts.write("sysctl", "echo 1")
    inside = Command(("jexec", "web1", "ifconfig", "lo0", "up"), "")
    route = Command(("jexec", "web1", "route", "-n", "add", "default", "x"), "")

    async def old(host: Host) -> None:
        await host.learn()
        assert host.argv(inside) == inside.argv
        assert "no ifconfig of its own" in host.lacks(Jail("web1", 1, vnet=True, path=str(scripts.folder / "empty")))

    async def new(host: Host) -> None:
        await host.learn()
        assert host.argv(inside) == ("ifconfig", "-j", "web1", "lo0", "up")
        assert host.argv(route) == route.argv
        assert "no route of its own" in host.lacks(Jail("web1", 1, vnet=True, path=str(scripts.folder / "empty")))

    use(old)
    scripts.write("ifconfig", "exit 0")
    use(new)


def test_links_of_a_thin_jail_lead_where_they_lead_inside(
    scripts: Scripts, use: Callable[..., object], tmp_path: Path
) -> None:
    root = tmp_path / "root"
    for place in (".bastille/sbin", "usr"):
        (root / place).mkdir(parents=True)
    for name in ("ifconfig", "route"):
        (root / ".bastille" / "sbin" / name).touch()
    (root / "sbin").symlink_to("/.bastille/sbin")
    (root / "usr" / "sbin").symlink_to("../../../../sbin")
    thin = Jail("web1", 1, vnet=True, path=str(root))

    async def work(host: Host) -> None:
        assert host.lacks(thin) == ""
        (root / ".bastille" / "sbin" / "route").unlink()
        assert "no route of its own" in host.lacks(thin)
        (root / "sbin").unlink()
        (root / "sbin").symlink_to("/sbin")  # to itself: never ends
        assert "no ifconfig of its own" in host.lacks(thin)

    use(work)


@pytest.mark.parametrize(
    ("sysctl", "able"),
    [
        ("echo 1", True),
        ("case $2 in kern.*) echo 1;; *) echo 0;; esac", False),
        ("case $2 in kern.*) echo \"sysctl: unknown oid '$2'\" >&2; exit 1;; *) echo 1;; esac", False),
    ],
)
def test_what_the_kernel_can_is_asked_of_it(
    scripts: Scripts, use: Callable[..., object], sysctl: str, able: bool
) -> None:
    scripts.write("sysctl", sysctl)

    async def work(host: Host) -> None:
        await host.learn()
        assert host.ipv6_next_hops is able

    use(work)


def test_a_pair_that_was_made_and_not_named_is_destroyed(scripts: Scripts, use: Callable[..., object]) -> None:
    scripts.write(
        "ifconfig",
        f'echo "$@" >>{scripts.folder}/ran\n'
        '[ "$2" = create ] || exit 0; echo epair1234a; echo "ifconfig: File exists" >&2; exit 1',
    )

    async def work(host: Host) -> None:
        with pytest.raises(Trouble, match="File exists"):
            await host.apply(Command(("ifconfig", "epair1234", "create", "name", "mob-web1"), ""))

    use(work)
    assert (scripts.folder / "ran").read_text().splitlines()[1:] == ["epair1234a destroy"]


def test_a_refused_nd6_option_is_a_failure(scripts: Scripts, use: Callable[..., object]) -> None:
    scripts.write("ifconfig", "echo 'ifconfig: ioctl(SIOCSIFINFO_IN6): Operation not permitted' >&2")

    async def work(host: Host) -> None:
        with pytest.raises(Trouble, match="must run as root"):
            await host.apply(Command(("ifconfig", "mob-web1", "inet6", "no_dad"), ""))

    use(work)


def test_the_boot_id_as_freebsd_prints_it(scripts: Scripts, use: Callable[..., object]) -> None:
    text = (TRANSCRIPTS / "15-host.txt").read_text()
    line = re.search(r"^kern\.boot_id: Format.*$", text, re.MULTILINE)
    assert line is not None
    scripts.write("sysctl", f"echo '{line[0]}'")

    async def known(host: Host) -> None:
        assert await host.boot_id() == "aa7c3a96fad36e7e1220d7f136052b32"

    async def unknown(host: Host) -> None:
        assert len(await host.boot_id()) == 32

    use(known)
    scripts.write("sysctl", "[ $1 = -x ] && { echo unknown oid >&2; exit 1; }; echo '{ sec = 1795236880, usec = 1 }'")
    use(unknown)


def test_failures_are_told_with_advice() -> None:
    command = Command(("route", "-n", "add", "-host", "198.51.100.7", "-inet6", "fe80::2%mob-web1"), "")
    said = "route: writing to routing socket: Network is unreachable\n"
    trouble = judge(command, Result(command.argv, 1, "", said, 0.0))
    assert not trouble.retry
    assert "192.0.0.8" in str(trouble)
    passing = judge(command, Result(command.argv, 1, "", "route: writing to routing socket: Invalid argument\n", 0.0))
    assert passing.retry
