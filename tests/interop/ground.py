"""The smallest ground for it: one host that runs ExaBGP, and routers on IPv6-only links to it.

    with Ground() as ground:
        spine = ground.router("spine")
        host = ground.host([spine])
        host.start_exabgp()
        with host.agent() as agent:
            agent.want("198.51.100.7/32")
            spine.fib.wait("198.51.100.7/32", via=host.address(spine))

Every node is a network namespace with a pid namespace over it, held by a process that dies with us, however we die;
with it dies everything that runs there. No name of anything is shared, so that two tests may run at once.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from mobility import config as configuration
from mobility.bgp.speaker import Speaker
from mobility.model import Attributes, network_prefix
from tests.lab.watch import Fib, Process

T = TypeVar("T")
REPOSITORY = Path(__file__).resolve().parents[2]
ROUTER_AS = 65000
HOST_AS = 65001
EXABGP_USER = "nobody"
SYSTEM_PYTHON = "/usr/bin/python3"
ALLOWED = ("198.51.100.0/24", "10.0.0.0/8", "2001:db8::/32")
WAIT = 20.0
"""Seconds for whatever should come to pass."""

_BIRD = """\
router id 10.255.0.{number};
log stderr all;
timeformat protocol iso long ms;
protocol device {{ }}
protocol kernel {{ ipv4 {{ import none; export all; }}; }}
protocol kernel {{ ipv6 {{ import none; export all; }}; }}
protocol static told4 {{ ipv4; {static4} }}
protocol static told6 {{ ipv6; {static6} }}
protocol bgp host {{
  local {address} as {router_as};
  neighbor {host} as {host_as};
  graceful restart {graceful};
  {password}
  hold time 30;
  connect delay time 1;
  connect retry time 1;
  error wait time 1, 2;
  debug {{ states, events }};
  ipv4 {{ extended next hop {extended}; import all; export where source = RTS_STATIC; }};
  ipv6 {{ import all; export where source = RTS_STATIC; }};
}}
"""


@dataclass(frozen=True, slots=True)
class Seen:
    """What BIRD has received since its session came up."""

    updates: int
    withdraws: int


class Node:
    """A namespace of its own."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.folder = folder / name
        self.folder.mkdir()
        hold = ["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "--pid", "--fork", "--kill-child", "sh", "-c"]
        self._holder = subprocess.Popen(
            [*hold, "ip link set lo up && echo ready && exec sleep infinity"], stdout=subprocess.PIPE, text=True
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "ready\n", f"no namespaces for {name}"
        self.pid = children(self._holder.pid)[0]

    @property
    def prefix(self) -> list[str]:
        """The argv prefix that runs a program here."""
        return ["nsenter", f"--net=/proc/{self.pid}/ns/net", f"--pid=/proc/{self.pid}/ns/pid", "--"]

    def run(self, *argv: str) -> str:
        """Run a program here to its end; return what it prints. RuntimeError where it fails."""
        result = subprocess.run([*self.prefix, *argv], capture_output=True, text=True, check=False)
        if result.returncode != 0:
            raise RuntimeError(f"{self.name}: {argv}: {result.stdout}{result.stderr}")
        return result.stdout

    def service(self, name: str, argv: Sequence[str | Path]) -> Process:
        """Start a long-running program here; its output goes to NAME.log."""
        process = subprocess.Popen(
            [*self.prefix, *map(str, argv)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            cwd=REPOSITORY,
        )
        return Process(f"{name} on {self.name}", process, self.folder / f"{name}.log")

    def close(self) -> None:
        """End all that runs here."""
        self._holder.kill()
        self._holder.wait()


def children(pid: int) -> list[int]:
    """Return the processes that `pid` has started (proc(5))."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


class Router(Node):
    """BIRD 2."""

    def __init__(self, folder: Path, name: str, number: int, **settings: Any) -> None:
        super().__init__(folder, name)
        self.number = number
        self.address = f"fd00:{number:x}::ff"
        self.host_address = f"fd00:{number:x}::1"
        self.settings: dict[str, Any] = {
            "extended": "on",
            "graceful": "on",
            "password": "",
            "static4": "",
            "static6": "",
            **settings,
        }
        self.fib = Fib(f"/proc/{self.pid}/ns/net")
        self._socket = self.folder / "bird.ctl"
        self._bird: Process | None = None

    @property
    def bird(self) -> Process:
        """The running BIRD."""
        assert self._bird is not None
        return self._bird

    def configure(self, **settings: Any) -> None:
        """Write the configuration; a running BIRD takes it up."""
        self.settings |= settings
        text = _BIRD.format(
            number=self.number,
            address=self.address,
            host=self.host_address,
            router_as=ROUTER_AS,
            host_as=HOST_AS,
            **self.settings,
        )
        (self.folder / "bird.conf").write_text(text)
        if self._bird is not None:
            self.birdc("configure")

    def start(self) -> None:
        """Start BIRD."""
        self.configure()
        argv: list[str | Path] = [
            "bird",
            "-f",
            "-c",
            self.folder / "bird.conf",
            "-s",
            self._socket,
            "-P",
            self.folder / "pid",
        ]
        self._bird = self.service("bird", argv)
        self._bird.await_(self._socket.exists, "control socket", WAIT)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End BIRD."""
        os.kill(children(self.bird.process.pid)[0], number)
        self.bird.process.wait(WAIT)
        self._bird = None
        self._socket.unlink(missing_ok=True)

    def birdc(self, *words: str) -> str:
        """Return BIRD's answer to a command."""
        argv = ["birdc", "-s", str(self._socket), *words]
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout

    def routes_to(self, prefix: str) -> str:
        """Return all that BIRD knows of one prefix."""
        argv = ["birdc", "-s", str(self._socket), "show", "route", prefix, "all"]
        return subprocess.run(argv, capture_output=True, text=True, check=False).stdout  # it fails where there is none

    def seen(self) -> Seen:
        """Return the counters of the session: they start anew with it."""
        text = self.birdc("show", "protocols", "all", "host")
        found = {kind: re.findall(rf"Import {kind}:\s+(\d+)", text) for kind in ("updates", "withdraws")}
        return Seen(sum(map(int, found["updates"])), sum(map(int, found["withdraws"])))

    def await_session(self, *, up: bool = True) -> None:
        """Wait until the session is up (or not): BIRD logs each change."""
        state = "Established"
        self.bird.await_(lambda: (state in self.birdc("show", "protocols", "host")) == up, f"session: {up}", WAIT)

    def routes(self) -> int:
        """Return how many routes came from the host."""
        text = self.birdc("show", "route", "protocol", "host", "count")
        return int(text.rsplit("Total:", 1)[1].split()[0])

    def close(self) -> None:
        """End all that runs here."""
        self.fib.close()
        super().close()


class Host(Node):
    """ExaBGP with its bridge, and the agent's half of BGP."""

    def __init__(self, folder: Path, routers: Sequence[Router], **bgp: Any) -> None:
        super().__init__(folder, "host")
        self.routers = routers
        self.exabgp: Process | None = None
        shutil.copy(REPOSITORY / "mobility" / "bgp" / "bridge.py", self.folder)
        self.path = self.folder / "mobility.toml"
        self.configure(**bgp)

    def configure(self, peers: dict[str, dict[str, Any]] | None = None, **bgp: Any) -> None:
        """Write mobility.toml. `peers`: settings by the router's name, beside what the lab needs."""
        settings: dict[str, Any] = {
            "as": HOST_AS,
            "router_id": "10.0.0.1",
            "user": EXABGP_USER,
            "exabgp": str(Path(sys.executable).parent / "exabgp"),
            "bridge_command": [SYSTEM_PYTHON, "-I", str(self.folder / "bridge.py")],
            **bgp,
        }
        text = _table("[host]", {"name": "a", "allowed": list(ALLOWED)})
        text += _table("[paths]", {"run": str(self.folder / "run"), "state": str(self.folder / "state")})
        text += _table("[bgp]", settings)
        for router in self.routers:
            peer = {"name": router.name, "address": router.address, "as": ROUTER_AS}
            peer |= {"local_address": router.host_address, **(peers or {}).get(router.name, {})}
            text += _table("[[bgp.peer]]", peer)
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
        os.kill(self.exabgp_pid, number)
        self.exabgp.process.wait(WAIT)
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
        self.speaker = Speaker(config.bgp, config.bridge_socket, allowed=config.host.allowed, on_change=self._changed)

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

    def await_(self, check: Callable[[Speaker], object], what: str) -> None:
        """Wait until `check` holds of the speaker, looking again at each change."""
        with self._news:
            assert self._news.wait_for(lambda: check(self.speaker), WAIT), f"no {what} within {WAIT:g} s"

    def await_session(self, peer: str, state: str = "up") -> None:
        """Wait until the speaker knows of a session's state."""
        self.await_(lambda speaker: speaker.sessions()[peer].state == state, f"session with {peer} {state}")


class Ground:
    """A folder, and the nodes in it."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mobility-interop-"))
        self.folder.chmod(0o755)
        self.nodes: list[Node] = []

    def __enter__(self) -> Self:
        return self

    def router(self, name: str, **settings: Any) -> Router:
        """Make a router and start its BIRD."""
        router = Router(self.folder, name, len(self.nodes) + 1, **settings)
        self.nodes.append(router)
        return router

    def host(self, routers: Sequence[Router], **bgp: Any) -> Host:
        """Make the host, link it to the routers, start their BIRDs."""
        host = Host(self.folder, routers, **bgp)
        self.nodes.append(host)
        for router in routers:
            here, there = f"up{router.number}", "host0"
            link = f"ip link add {here} netns {host.pid} type veth peer name {there} netns {router.pid}"
            subprocess.run(link.split(), check=True)
            for node, name, address in ((host, here, router.host_address), (router, there, router.address)):
                node.run("ip", "link", "set", name, "up")
                node.run("ip", "address", "add", f"{address}/64", "dev", name, "nodad")
            router.start()
        return host

    def logs(self) -> str:
        """Return the end of every log."""
        return "\n".join(
            "\n".join([f"--- {log}", *log.read_text().splitlines()[-40:]])
            for log in sorted(self.folder.glob("*/*.log"))
        )

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        for node in self.nodes:
            node.close()
        shutil.rmtree(self.folder)


def _table(header: str, values: dict[str, Any]) -> str:
    def shown(value: Any) -> str:
        if isinstance(value, str):
            return f'"{value}"'
        if isinstance(value, Iterable):
            return "[" + ", ".join(map(shown, value)) + "]"
        return str(value)

    return "".join([f"{header}\n", *(f"{key} = {shown(value)}\n" for key, value in values.items())])
