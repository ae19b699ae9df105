"""The configuration: one TOML file of root's, read whole, every mistake named at once.

`load` is the only way in. Nothing here looks at the host: what a file says can be judged on any machine.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import socket
import sys
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from netaddr import IPNetwork

from mobility.events.spool import hooks_section_readable
from mobility.model import Prefix, martian, network_prefix

DEFAULT_PATH = Path("/usr/local/etc/mobility/mobility.toml")
FOREVER = "forever"
AUTO, NEXT_HOP, INTERFACE = IPV4_ROUTES = ("auto", "next-hop", "interface")
"""How the host may route its jails' IPv4 addresses."""
MAX_AS = 2**32 - 1
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake: where it stands, the value found, and what to write instead."""

    key: str
    value: object
    remedy: str

    def __str__(self) -> str:
        shown = "" if self.value is None else f" = {self.value!r}"
        return f"{self.key}{shown}: {self.remedy}"


class ConfigError(Exception):
    """The configuration can not be used; `problems` holds every mistake found in it."""

    def __init__(self, path: Path, problems: Iterable[Problem]) -> None:
        self.path = path
        self.problems = tuple(problems)
        super().__init__("\n".join(f"{path}: {problem}" for problem in self.problems))


@dataclass(frozen=True, slots=True)
class Host:
    """Who this host is, what its jails may hold, and how it routes their IPv4 addresses.

    `ipv4_routes`: "next-hop" over the IPv6 next hop of the link, "interface" by interface routes, "auto" what the kernel
    can do, the first if both.
    """

    name: str
    allowed: tuple[Prefix, ...]
    ipv4_routes: str


@dataclass(frozen=True, slots=True)
class Paths:
    """Where things lie."""

    commands: tuple[Path, ...]
    run: Path
    state: Path
    jails_d: Path


@dataclass(frozen=True, slots=True)
class Managers:
    """Where jail managers keep their files; None: not looked at."""

    bastille: Path | None
    iocage: Path | None
    jail_conf: Path | None


@dataclass(frozen=True, slots=True)
class Hooks:
    """What the sh hooks read too: their spool, how long they wait (seconds), and what then."""

    spool: Path
    timeout: int
    when_agent_down: str


@dataclass(frozen=True, slots=True)
class Agent:
    """The agent's own times, all in seconds."""

    look_every: float
    inside_every: float
    command_timeout: float
    starting_for: float
    stopping_for: float
    reject_for: float
    settle_for: float
    drain_for: float
    history_for: float


@dataclass(frozen=True, slots=True)
class Metrics:
    """Where /metrics listens: "address:port", or "" for nowhere."""

    listen: str


@dataclass(frozen=True, slots=True)
class Peer:
    """One BGP session of ExaBGP's."""

    name: str
    address: str
    remote_as: int
    local_address: str
    next_hop_ipv6: str
    next_hop_ipv4: str | None
    password: str
    port: int


@dataclass(frozen=True, slots=True)
class Bgp:
    """The BGP side: who we are, how ExaBGP is run, and its peers."""

    local_as: int
    router_id: str
    user: str
    graceful_restart: int
    exabgp: str
    bridge_command: tuple[str, ...]
    fail_static_for: float | None
    """Seconds without an agent after which the bridge withdraws by itself; None: never."""
    peers: tuple[Peer, ...]


@dataclass(frozen=True, slots=True)
class Config:
    """The whole file."""

    path: Path
    host: Host
    paths: Paths
    managers: Managers
    hooks: Hooks
    agent: Agent
    metrics: Metrics
    bgp: Bgp

    @property
    def control_socket(self) -> Path:
        """Where the `mobility` command reaches the agent."""
        return self.paths.run / "control.sock"

    @property
    def bridge_socket(self) -> Path:
        """Where the bridge reaches the agent: in a folder that ExaBGP's user may enter."""
        return self.paths.run / "bridge" / "bridge.sock"

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.paths.state / "mobility.sqlite"


class _Section:
    """One TOML table being read: takes keys out, and notes every mistake instead of stopping at the first."""

    def __init__(self, name: str, table: object, problems: list[Problem]) -> None:
        self._name = name
        self._problems = problems
        self._known: list[str] = []
        if isinstance(table, Mapping):
            self._table: dict[str, Any] = dict(table)
        else:
            self._table = {}
            problems.append(Problem(name, table, f"must be a table: write it as [{name}]"))

    def take(self, key: str, read: Callable[[Any], T], default: T | None = None, *, required: bool = False) -> T:
        """Return what `read` makes of the key; a mistake is noted and the default stands in."""
        self._known.append(key)
        if key not in self._table:
            if required:
                self._problems.append(Problem(f"{self._name}.{key}", None, "is missing: it has no default"))
            return default  # type: ignore[return-value]  # a noted problem keeps the caller from using it
        value = self._table[key]
        try:
            return read(value)
        except ValueError as error:
            shown = "(hidden)" if key == "password" else value
            self._problems.append(Problem(f"{self._name}.{key}", shown, str(error)))
            return default  # type: ignore[return-value]

    def finish(self) -> None:
        """Note every key that nobody asked for."""
        for key in self._table:
            if key not in self._known:
                near = difflib.get_close_matches(key, self._known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(sorted(self._known))}"
                self._problems.append(Problem(f"{self._name}.{key}", None, f"is no setting; {hint}"))


def text(value: Any) -> str:
    """Take a printable one-line string."""
    if not isinstance(value, str) or not value.isprintable():
        raise ValueError("must be a string of printable characters")
    return value


def _some_text(value: Any) -> str:
    if not text(value):
        raise ValueError("must not be empty")
    return str(value)


def _name(value: Any) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}", _some_text(value), re.ASCII):
        raise ValueError("must be up to 63 letters, digits, '_', '.' and '-'")
    return str(value)


def _path(value: Any) -> Path:
    path = Path(_some_text(value))
    if not path.is_absolute() or ".." in path.parts:
        raise ValueError("must be an absolute path without '..'")
    return path


def _list(read: Callable[[Any], T]) -> Callable[[Any], tuple[T, ...]]:
    def reader(value: Any) -> tuple[T, ...]:
        if not isinstance(value, list):
            raise ValueError('must be a list: write it as ["...", "..."]')
        return tuple(read(item) for item in value)

    return reader


def _seconds(low: float, high: float) -> Callable[[Any], float]:
    def reader(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise ValueError(f"must be a number of seconds from {low:g} to {high:g}")
        return float(value)

    return reader


def _integer(low: int, high: int) -> Callable[[Any], int]:
    def reader(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return value

    return reader


def _one_of(*words: str) -> Callable[[Any], str]:
    def reader(value: Any) -> str:
        if value not in words:
            raise ValueError("must be " + " or ".join(f'"{word}"' for word in words))
        return str(value)

    return reader


def _allowed(value: Any) -> Prefix:
    network = network_prefix(_some_text(value))
    if martian(network):
        raise ValueError(f"{network} holds addresses that no jail may own (loopback, link-local, multicast, ...)")
    return network


def _address(version: int | None = None) -> Callable[[Any], str]:
    def reader(value: Any) -> str:
        try:
            found = ipaddress.ip_address(_some_text(value))
        except ValueError as error:
            raise ValueError(f"must be an IPv{version or '4 or IPv6'} address") from error
        if version not in (None, found.version):
            raise ValueError(f"must be an IPv{version} address")
        return str(found)

    return reader


def _listen(value: Any) -> str:
    if text(value) == "":
        return ""
    host, _, port = str(value).rpartition(":")
    try:
        ipaddress.ip_address(host.strip("[]"))
        number = int(port)
    except ValueError as error:
        raise ValueError('must be "address:port", such as "127.0.0.1:9971", or "" for none') from error
    if not 0 < number < 65536:
        raise ValueError("the port must be from 1 to 65535")
    return str(value)


def _fail_static(value: Any) -> float | None:
    if value == FOREVER:
        return None
    try:
        return _seconds(1, 7 * 86400)(value)
    except ValueError as error:
        raise ValueError(f'{error}, or "{FOREVER}"') from error


def _user(value: Any) -> str:
    if not re.fullmatch(r"[a-z_][a-z0-9_-]{0,31}", _some_text(value), re.ASCII):
        raise ValueError("must be a login name")
    return str(value)


def _password(value: Any) -> str:
    # tcpmd5(4) takes up to 80 bytes; quotes and braces would end ExaBGP's string
    if not re.fullmatch(r"[A-Za-z0-9!#$%&()*+,./:<=>?@^_~-]{0,80}", text(value), re.ASCII):
        raise ValueError("must be up to 80 characters without spaces, quotes, braces, ';' and '\\'")
    return str(value)


def _default_bridge() -> tuple[str, ...]:
    return (sys.executable, "-I", str(Path(__file__).parent / "bgp" / "bridge.py"))


def _peer(index: int, table: object, problems: list[Problem]) -> Peer:
    section = _Section(f"bgp.peer[{index}]", table, problems)
    local = section.take("local_address", _address(6), "", required=True)
    next_hop_ipv4: str | None = section.take("next_hop_ipv4", _address(4), "") or None
    peer = Peer(
        name=section.take("name", _name, f"peer{index}", required=True),
        address=section.take("address", _address(6), "", required=True),
        remote_as=section.take("as", _integer(1, MAX_AS), 0, required=True),
        local_address=local,
        next_hop_ipv6=section.take("next_hop_ipv6", _address(6), local),
        next_hop_ipv4=next_hop_ipv4,
        password=section.take("password", _password, ""),
        port=section.take("port", _integer(1, 65535), 179),
    )
    section.finish()
    return peer


def _folder(section: _Section, key: str, default: str) -> Path | None:
    # "" is nothing; the default stands in only where the key is not there, or wrong
    found: str = section.take(key, lambda value: str(_path(value)) if value != "" else "", default)
    return Path(found) if found else None


def _twice(peers: Iterable[Peer], problems: list[Problem]) -> None:
    names: dict[str, int] = {}
    addresses: dict[str, int] = {}
    for index, peer in enumerate(peers):
        for seen, value, key in ((names, peer.name, "name"), (addresses, peer.address, "address")):
            if value and seen.setdefault(value, index) != index:
                problems.append(
                    Problem(
                        f"bgp.peer[{index}].{key}",
                        value,
                        f"is also bgp.peer[{seen[value]}]'s: give each its own",
                    )
                )


def parse(data: Mapping[str, Any], path: Path) -> tuple[Config, list[Problem]]:
    """Turn a TOML document into a `Config` and the list of everything wrong with it.

    The `Config` may be used only when that list is empty.
    """
    problems: list[Problem] = []
    known = ("host", "paths", "managers", "hooks", "agent", "metrics", "bgp")
    for key in data:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean [{near[0]}]?" if near else f"known: {', '.join(known)}"
            problems.append(Problem(key, None, f"is no section; {hint}"))

    section = _Section("host", data.get("host", {}), problems)
    host = Host(
        name=section.take("name", _name, socket.gethostname().split(".", 1)[0]),
        allowed=section.take("allowed", _list(_allowed), required=True) or (),
        ipv4_routes=section.take("ipv4_routes", _one_of(*IPV4_ROUTES), AUTO),
    )
    section.finish()

    section = _Section("paths", data.get("paths", {}), problems)
    commands = tuple(Path(part) for part in ("/sbin", "/usr/sbin", "/bin", "/usr/bin"))
    paths = Paths(
        commands=section.take("commands", _list(_path), commands),
        run=section.take("run", _path, Path("/var/run/mobility")),
        state=section.take("state", _path, Path("/var/db/mobility")),
        jails_d=section.take("jails_d", _path, Path("/usr/local/etc/mobility/jails.d")),
    )
    section.finish()

    section = _Section("managers", data.get("managers", {}), problems)
    managers = Managers(
        bastille=_folder(section, "bastille", "/usr/local/bastille"),
        iocage=_folder(section, "iocage", "/iocage"),
        jail_conf=_folder(section, "jail_conf", "/etc/jail.conf"),
    )
    section.finish()

    section = _Section("hooks", data.get("hooks", {}), problems)
    hooks = Hooks(
        spool=section.take("spool", _path, Path("/var/run/mobility/spool")),
        timeout=section.take("timeout", _integer(1, 600), 30),
        when_agent_down=section.take("when_agent_down", _one_of("refuse", "allow"), "refuse"),
    )
    section.finish()

    section = _Section("agent", data.get("agent", {}), problems)
    agent = Agent(
        look_every=section.take("look_every", _seconds(0.5, 3600), 10.0),
        inside_every=section.take("inside_every", _seconds(0.5, 86400), 300.0),
        command_timeout=section.take("command_timeout", _seconds(0.5, 120), 10.0),
        starting_for=section.take("starting_for", _seconds(1, 3600), 120.0),
        stopping_for=section.take("stopping_for", _seconds(1, 3600), 120.0),
        reject_for=section.take("reject_for", _seconds(0, 300), 3.0),
        settle_for=section.take("settle_for", _seconds(0.1, 60), 5.0),
        drain_for=section.take("drain_for", _seconds(0, 600), 5.0),
        history_for=section.take("history_for", _seconds(3600, 10 * 366 * 86400), 30 * 86400.0),
    )
    section.finish()

    section = _Section("metrics", data.get("metrics", {}), problems)
    metrics = Metrics(listen=section.take("listen", _listen, "127.0.0.1:9971"))
    section.finish()

    table = data.get("bgp", {})
    section = _Section("bgp", table, problems)
    no_peers: tuple[Mapping[str, Any], ...] = ()
    raw_peers = section.take("peer", _tables, no_peers)
    if not raw_peers and "peer" not in {problem.key for problem in problems}:
        problems.append(Problem("bgp.peer", None, "no peer: write at least one [[bgp.peer]] with name, address, as"))
    bgp = Bgp(
        local_as=section.take("as", _integer(1, MAX_AS), 0, required=True),
        router_id=section.take("router_id", _address(4), "", required=True),
        user=section.take("user", _user, "exabgp"),
        # RFC 4724, section 3: the restart time has 12 bits
        graceful_restart=section.take("graceful_restart", _integer(0, 4095), 120),
        exabgp=section.take("exabgp", _some_text, "exabgp"),
        bridge_command=section.take("bridge_command", _list(_some_text), _default_bridge()),
        fail_static_for=section.take("fail_static_for", _fail_static, None),
        peers=tuple(_peer(index, peer, problems) for index, peer in enumerate(raw_peers)),
    )
    section.finish()
    _twice(bgp.peers, problems)
    return Config(path, host, paths, managers, hooks, agent, metrics, bgp), problems


def _tables(value: Any) -> tuple[Mapping[str, Any], ...]:
    if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
        raise ValueError("must be tables: write each as [[bgp.peer]]")
    return tuple(value)


def load(path: Path) -> Config:
    """Read and judge the file at `path`.

    Raises ConfigError with all problems: unreadable, no TOML, unknown keys, bad values, and a [hooks] section
    that the sh hooks could not read.
    """
    try:
        status = path.stat()
        raw = path.read_bytes()
    except OSError as error:
        why = f"can not be read: {os.strerror(error.errno or 0)} (mobility.toml(5), mobility.toml.sample)"
        raise ConfigError(path, [Problem("file", None, why)]) from error
    if status.st_uid not in (0, os.geteuid()) or status.st_mode & 0o022:
        # it names programs that root runs
        why = f"may be written by others than root: chown root {path} && chmod 600 {path}"
        raise ConfigError(path, [Problem("file", None, why)])
    try:
        content = raw.decode("utf-8")
        data = tomllib.loads(content)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(path, [Problem("file", None, f"is no TOML: {error}")]) from error
    config, problems = parse(data, path)
    problems += [Problem("hooks", None, reason) for reason in hooks_section_readable(content)]
    if problems:
        raise ConfigError(path, problems)
    return config


def allows(allowed: Iterable[Prefix], prefix: IPNetwork) -> bool:
    """Tell whether `prefix` lies within one of the `allowed` ones."""
    return any(prefix in net for net in allowed)
