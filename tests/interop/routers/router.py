"""What every router of the ground can do, whatever program it runs."""

from __future__ import annotations

import shutil
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from tests.fabric import Neighbor, made_out
from tests.interop.node import WAIT, Link, Node, end
from tests.lab.fib_linux import LinuxFib
from tests.lab.watch import NotInTime, Process

ROUTER_AS = 65000
MAXIMUM = "20000"
ROUTER_ID, ROUTE_SERVER_ID, ROUTE_SERVER_AS = "10.255.0.1", "10.255.0.11", "65300"
"""As deploy/fabric has them."""
FAMILIES = ("ipv4", "ipv6")
NO_KERNEL = "it puts no routes into Linux' kernel by itself"
"""A reason that routers share."""
LOOK_AGAIN = 0.02
"""Seconds between two looks into a router's RIB: none of the programs tells of its changes on a socket that all have."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the tests vary. The rest is as deploy/fabric has it."""

    rfc8950: bool = True
    graceful_restart: bool = True
    password: str = ""
    maximum: int = 0
    """How many routes of a family a host may tell; 0: as deploy/fabric has it."""
    route_server: bool = False
    """Whether it is one: deploy/fabric has a file of its own for that."""
    choices: Mapping[str, str] = field(default_factory=dict)
    """What the operator has changed in that file: what for what."""


@dataclass(frozen=True, slots=True)
class RibPath:
    """One path that a router knows to a prefix."""

    neighbor: str
    """The address of the host that told it."""
    next_hop: str
    best: bool
    med: int | None
    local_preference: int
    communities: frozenset[str]
    """As RFC 1997 and RFC 8092 write them: "65535:0"."""
    large_communities: frozenset[str]
    as_path: tuple[int, ...]
    extended_communities: frozenset[str]
    """As mobility.toml has them: "target:65000:7"."""


class Router(Node, ABC):
    """A router, and how to ask its program.

    `links` is filled by the ground before `start`. `limits` says what this version can not do: by the key of a feature,
    the reason, word for word as the feature's test finds it out.
    """

    kind: ClassVar[str]
    package: ClassVar[str]
    """Debian's."""
    program: ClassVar[str]
    installs: ClassVar[bool]
    """Whether it puts routes into the kernel."""
    own_folders: ClassVar[tuple[str, ...]] = ()
    """What its program uses whatever it is told, each in a folder that is hidden by an empty one."""
    limits: ClassVar[dict[str, str]] = {}
    settings: Settings

    def __init__(self, folder: Path, name: str, number: int, **settings: Any) -> None:
        self.require()
        super().__init__(folder, name, self.own_folders)
        self.number = number
        self.links: list[Link] = []
        self.settings = replace(self.first_settings(), **settings)
        self.fib = LinuxFib(f"/proc/{self.pid}/ns/net")
        self.processes: list[Process] = []

    @classmethod
    def first_settings(cls) -> Settings:
        """Return the settings to begin with."""
        return Settings()

    @classmethod
    def require(cls) -> None:
        """Raise RuntimeError, with what to do, where the program is not installed."""
        if shutil.which(cls.program) is None:
            raise RuntimeError(
                f"{cls.kind} is not installed: apt-get install --no-install-recommends {cls.package} "
                "(or `make packages`, which keeps its service from being started)"
            )

    @property
    def router_id(self) -> str:
        """Its BGP identifier."""
        return f"10.255.0.{self.number}"

    @property
    def address(self) -> str:
        """Its address on its first link."""
        return self.links[0].router_address

    @property
    def host_address(self) -> str:
        """The host's address on its first link."""
        return self.links[0].host_address

    @property
    def neighbors(self) -> list[Neighbor]:
        """The hosts, as deploy/fabric is made out for them."""
        return [Neighbor(each.host, each.host_address, each.router_address, each.host_as) for each in self.links]

    def made_out(self, program: str, suffix: str, changes: Mapping[str, str]) -> str:
        """Return deploy/fabric's file for what this is, made out for its hosts, with changes that both kinds take."""
        changes = {**self.settings.choices, **changes}
        if self.settings.maximum:
            changes = {**changes, MAXIMUM: str(self.settings.maximum)}
        if not self.settings.route_server:
            return made_out(f"{program}{suffix}", self.neighbors, {**changes, ROUTER_ID: self.router_id})
        changes = {**changes, ROUTE_SERVER_ID: self.router_id, ROUTE_SERVER_AS: str(ROUTER_AS)}
        return made_out(f"{program}-route-server{suffix}", self.neighbors, changes)

    def link(self, host: str) -> Link:
        """Return the link to a host."""
        (found,) = [link for link in self.links if link.host == host]
        return found

    # -- what differs between programs

    @classmethod
    @abstractmethod
    def version(cls) -> str:
        """Return the program's version, in its own words."""

    @abstractmethod
    def write(self) -> None:
        """Write the configuration files, out of `settings` and `links`."""

    @abstractmethod
    def launch(self) -> None:
        """Start the program (`processes`) and wait until it answers."""

    @abstractmethod
    def paths(self, prefix: str) -> list[RibPath]:
        """Return all paths that its RIB has to exactly this prefix."""

    @abstractmethod
    def established(self, host: str = "host") -> bool:
        """Tell whether the session with a host is up."""

    @abstractmethod
    def complete(self, host: str = "host") -> bool:
        """Tell whether it has dealt with the end-of-RIB of both families, in its first session with a host."""

    @abstractmethod
    def updates(self, host: str = "host") -> int:
        """Return how many updates came in the session with a host."""

    @abstractmethod
    def reset(self, host: str = "host") -> None:
        """Have the router end the session with a host, and take it up again."""

    # -- what does not

    def configure(self, **settings: Any) -> None:
        """Change settings, and write them down."""
        self.settings = replace(self.settings, **settings)
        self.write()

    def start(self) -> None:
        """Start the router."""
        self.write()
        self.launch()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End the router's program."""
        while self.processes:
            end(self.processes.pop(), number)

    def await_(self, check: Callable[[], bool], what: str) -> None:
        """Wait until `check` holds. NotInTime, with the router's log, where it does not."""
        deadline = time.monotonic() + WAIT
        while not check():
            ended = [process.name for process in self.processes if not process.running]
            if ended or time.monotonic() > deadline:
                why = f"{', '.join(ended)} ended" if ended else f"{self.kind} took more than {WAIT:g} s"
                raise NotInTime("\n".join([f"{why}: no {what}", *(process.tail() for process in self.processes)]))
            time.sleep(LOOK_AGAIN)

    def await_session(self, host: str = "host", *, up: bool = True) -> None:
        """Wait until the session with a host is up (or not)."""
        self.await_(lambda: self.established(host) == up, f"session with {host} {'up' if up else 'down'}")

    def await_complete(self, host: str = "host") -> None:
        """Wait for the end-of-RIB of both families in the first session with a host."""
        self.await_(lambda: self.complete(host), f"end-of-RIB from {host}")

    def rib(self, prefix: str) -> RibPath | None:
        """Return the best path to a prefix."""
        return next((path for path in self.paths(prefix) if path.best), None)

    def await_route(
        self, prefix: str, check: Callable[[RibPath], bool] = lambda path: True, *, what: str = "route"
    ) -> RibPath:
        """Wait until there is a best path to `prefix` of which `check` holds; return it.

        Where the router installs routes, the kernel's must have the same next hop.
        """
        paths: list[RibPath] = []

        def there() -> bool:
            paths[:] = self.paths(prefix)
            return any(path.best and check(path) for path in paths)

        try:
            self.await_(there, f"{what} to {prefix}")
        except NotInTime as error:
            raise NotInTime(f"{error}\n--- paths: {paths}") from None
        best = next(path for path in paths if path.best)
        if self.installs:
            self.fib.wait(prefix, via=best.next_hop)
        return best

    def await_routes(
        self, *prefixes: str, check: Callable[[RibPath], bool] = lambda path: True, what: str = "route"
    ) -> None:
        """Wait for a route to each of `prefixes`: see `await_route`."""
        for prefix in prefixes:
            self.await_route(prefix, check, what=what)

    def await_gone(self, prefix: str) -> None:
        """Wait until there is no path to `prefix`, nor a route in the kernel."""
        self.await_(lambda: not self.paths(prefix), f"end of the route to {prefix}")
        if self.installs:
            self.fib.wait(prefix, gone=True)

    def close(self) -> None:
        """End all that runs here."""
        self.fib.close()
        super().close()
