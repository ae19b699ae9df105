"""The smallest ground for it: hosts that run ExaBGP, and routers on IPv6-only links to them.

with Ground() as ground:
    spine = ground.router(Bird)
    host = ground.host([spine])
    host.start_exabgp()
    with host.agent() as agent:
        agent.want("198.51.100.7/32")
        spine.fib.wait("198.51.100.7/32", via=spine.host_address)
"""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from mobility import config as configuration
from mobility.bgp import conf, run
from mobility.bgp.speaker import Speaker
from mobility.model import Attributes, network_prefix
from tests.interop.node import REPOSITORY, WAIT, Link, Node, children, end
from tests.interop.routers.router import ROUTER_AS, Router
from tests.lab.watch import Process

T = TypeVar("T")
R = TypeVar("R", bound=Router)
EXABGP_USER = "nobody"
SYSTEM_PYTHON = "/usr/bin/python3"
ALLOWED = ("198.51.100.0/24", "10.0.0.0/8", "2001:db8::/32")


class Host(Node):
    """ExaBGP with its bridge, and the agent's half of BGP."""

    def __init__(self, folder: Path, name: str, number: int, links: Sequence[Link], **bgp: Any) -> None:
        super().__init__(folder, name)
        self.number = number
        self.links = links
        self.exabgp: Process | None = None
        shutil.copy(REPOSITORY / "mobility" / "bgp" / "bridge.py", self.folder)
        self.path = self.folder / "mobility.toml"
        self.configure(**bgp)

    def configure(
        self,
        peers: dict[str, dict[str, Any]] | None = None,
        *,
        without: Sequence[str] = (),
        allowed: Sequence[str] = ALLOWED,
        **bgp: Any,
    ) -> None:
        """Write mobility.toml.

        `peers`: settings by the router's name, beside what the lab needs; `without`: routers that are no peers.
        """
        settings: dict[str, Any] = {
            "as": host_as(self.number),
            "router_id": f"10.0.0.{self.number}",
            "user": EXABGP_USER,
            "exabgp": str(Path(sys.executable).parent / "exabgp"),
            "bridge_command": [SYSTEM_PYTHON, "-I", str(self.folder / "bridge.py")],
            **bgp,
        }
        text = _table("[host]", {"name": self.name, "allowed": list(allowed)})
        text += _table("[paths]", {"run": str(self.folder / "run"), "state": str(self.folder / "state")})
        text += _table("[bgp]", settings)
        for link in self.links:
            peer = {"name": link.router, "address": link.router_address, "as": ROUTER_AS}
            peer |= {"local_address": link.host_address, **(peers or {}).get(link.router, {})}
            if link.router not in without:
                text += _table("[[bgp.peer]]", peer)
        for name, more in (peers or {}).items():
            if name not in {link.router for link in self.links}:
                text += _table("[[bgp.peer]]", {"name": name, "as": ROUTER_AS, **more})
        self.path.write_text(text)
        self.config = configuration.load(self.path)

    def start_exabgp(self) -> None:
        """Start ExaBGP as the service does."""
        argv: list[str | Path] = [sys.executable, "-m", "mobility", "exabgp", "--config", self.path]
        self.exabgp = self.service("exabgp", argv)

    @property
    def exabgp_pid(self) -> int:
        """ExaBGP's pid, as we see it."""
        assert self.exabgp is not None
        return children(self.exabgp.process.pid)[0]

    @property
    def bridge_pid(self) -> int:
        """The bridge's pid, as we see it."""
        return children(self.exabgp_pid)[0]

    def kill_exabgp(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End ExaBGP by a signal."""
        assert self.exabgp is not None
        end(self.exabgp, number)
        self.exabgp = None

    def agent(self) -> Agent:
        """Return the agent's half of BGP, to be used in a `with` block."""
        return Agent(self.config)


class Agent:
    """A `Speaker` in a thread with an event loop of its own, so that a test may wait for the kernel meanwhile."""

    def __init__(self, config: configuration.Config) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="speaker")
        self._thread.start()
        self._news = threading.Condition()
        self.speaker = Speaker(
            config.bgp,
            config.bridge_socket,
            allowed=config.host.allowed,
            on_change=self._changed,
            mark=conf.mark(config),
        )

    def _changed(self) -> None:
        with self._news:
            self._news.notify_all()

    def __enter__(self) -> Self:
        self.wait(self.speaker.start())
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.wait(self.speaker.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def wait(self, what: Awaitable[T]) -> T:
        """Have a coroutine run in the loop; return its result."""

        async def run() -> T:
            return await what

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(WAIT * 3)

    def call(self, what: Callable[[], T]) -> T:
        """Have a function called in the loop; return its result."""
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(what())
            except BaseException as error:  # noqa: BLE001  # handed to the caller
                future.set_exception(error)

        self._loop.call_soon_threadsafe(run)
        return future.result(WAIT)

    def want(self, *prefixes: str, attributes: Attributes = Attributes()) -> None:  # noqa: B008  # frozen
        """Want prefixes, all in one turn of the loop."""
        parsed = [network_prefix(prefix) for prefix in prefixes]

        def want() -> None:
            for prefix in parsed:
                self.speaker.want(prefix, attributes)

        self.call(want)

    def unwant(self, *prefixes: str) -> None:
        """Want prefixes no more."""
        parsed = [network_prefix(prefix) for prefix in prefixes]

        def unwant() -> None:
            for prefix in parsed:
                self.speaker.unwant(prefix)

        self.call(unwant)

    def reconfigure(self, config: configuration.Config, within: float = WAIT) -> bool:
        """Take up another configuration, as `mobility reload` does."""
        run.rewrite(config)
        return self.wait(
            self.speaker.reconfigure(config.bgp, allowed=config.host.allowed, mark=conf.mark(config), within=within)
        )

    def open(self) -> None:
        """Let what is not wanted be withdrawn."""
        self.call(self.speaker.open_for_withdrawals)

    def settled(self, *prefixes: str, within: float = WAIT) -> bool:
        """Wait until prefixes are as wanted."""
        return self.wait(self.speaker.settled([network_prefix(prefix) for prefix in prefixes], within))

    def states(self, prefix: str) -> dict[str, str]:
        """Return where a prefix stands at each peer."""
        parsed = network_prefix(prefix)
        return self.call(lambda: {peer: str(state) for peer, state in self.speaker.route(parsed).items()})

    def await_(self, check: Callable[[Speaker], object], what: str, seconds: float = WAIT) -> None:
        """Wait until `check` holds of the speaker, looking again at each change."""
        with self._news:
            assert self._news.wait_for(lambda: check(self.speaker), seconds), f"no {what} within {seconds:g} s"

    def await_session(self, peer: str, state: str = "up") -> None:
        """Wait until the speaker knows of a session's state."""
        self.await_(lambda speaker: speaker.sessions()[peer].state == state, f"session with {peer} {state}")


class Ground:
    """A folder, and the nodes in it."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mobility-interop-"))
        self.folder.chmod(0o755)
        self.routers: list[Router] = []
        self.hosts: list[Host] = []

    def __enter__(self) -> Self:
        return self

    def router(self, kind: type[R], name: str = "spine", **settings: Any) -> R:
        """Make a router; it starts with its first host."""
        router = kind(self.folder, name, len(self.routers) + 1, **settings)
        self.routers.append(router)
        return router

    def host(self, routers: Sequence[Router], name: str = "host", **bgp: Any) -> Host:
        """Make a host, link it to the routers, start their programs."""
        (host,) = self.host_each(routers, name, **bgp)
        return host

    def host_each(self, routers: Sequence[Router], *names: str, **bgp: Any) -> list[Host]:
        """Make hosts, link each to all the routers, start their programs."""
        made = [self._host(routers, name, **bgp) for name in names]
        for router in routers:
            router.start()
        return made

    def _host(self, routers: Sequence[Router], name: str, **bgp: Any) -> Host:
        number = len(self.hosts) + 1
        links = []
        for router in routers:
            net = f"fd00:{number:x}:{router.number:x}"
            interface = f"host{len(router.links)}"
            number_of_as = bgp.get("as", host_as(number))
            link = Link(name, number_of_as, f"{net}::1", router.name, f"{net}::ff", interface)
            router.links.append(link)
            links.append(link)
        host = Host(self.folder, name, number, links, **bgp)
        self.hosts.append(host)
        for router, link in zip(routers, links, strict=True):
            here, there = f"up{router.number}", link.router_interface
            wire = f"ip link add {here} netns {host.pid} type veth peer name {there} netns {router.pid}"
            subprocess.run(wire.split(), check=True)
            for node, end_, address in ((host, here, link.host_address), (router, there, link.router_address)):
                # link-local addresses at once: some routers wait for them
                node.run("sysctl", "-qw", f"net.ipv6.conf.{end_}.accept_dad=0")
                node.run("ip", "link", "set", end_, "up")
                node.run("ip", "address", "add", f"{address}/64", "dev", end_, "nodad")
        return host

    def logs(self) -> str:
        """Return the end of every log."""
        return "\n".join(
            "\n".join([f"--- {log}", *log.read_text().splitlines()[-40:]])
            for log in sorted(self.folder.glob("*/*.log"))
        )

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        for node in (*self.hosts, *self.routers):
            node.close()
        shutil.rmtree(self.folder)


def host_as(number: int) -> int:
    """Return a host's AS: each has its own."""
    return 65000 + number


def _table(header: str, values: dict[str, Any]) -> str:
    def shown(value: Any) -> str:
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, str):
            return f'"{value}"'
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, Iterable):
            return "[" + ", ".join(map(shown, value)) + "]"
        return str(value)

    return "".join([f"{header}\n", *(f"{key} = {shown(value)}\n" for key, value in values.items())])
