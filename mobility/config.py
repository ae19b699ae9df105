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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from netaddr import IPNetwork

from mobility import logs
from mobility.announcement import Terms, read_groups
from mobility.bgp.grammar import MAX_PREPEND
from mobility.bgp.ownership import DEFAULT_ADMINISTRATOR
from mobility.damping import Policy as DampingPolicy
from mobility.events.spool import hooks_section_readable
from mobility.failover.model import Vhid, vhid
from mobility.failover.policy import SHORTEST, WHEN_BACKUP
from mobility.failover.policy import Group as FailoverGroup
from mobility.failover.policy import Settings as Failover
from mobility.model import Prefix, jail_name, martian, network_prefix

DEFAULT_PATH = Path("/usr/local/etc/mobility/mobility.toml")
FOREVER = "forever"
AUTO, NEXT_HOP, INTERFACE = IPV4_ROUTES = ("auto", "next-hop", "interface")
"""How the host may route its jails' IPv4 addresses."""
MAX_AS = 2**32 - 1
MAX_ANNOUNCEMENTS = 100_000
FAMILIES = ("ipv4", "ipv6")
HOLD_TIME = 180
"""ExaBGP's default too."""
MAX_TTL = 255
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
    devd: Path = Path("/var/run/devd.seqpacket.pipe")


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
    uplink_hold: float
    history_for: float


@dataclass(frozen=True, slots=True)
class Metrics:
    """Where /metrics listens ("address:port", or "" for nowhere), and how many jails have series of their own."""

    listen: str
    jails: int


@dataclass(frozen=True, slots=True)
class Log:
    """How many lines of one kind are logged: so many at once (0: all of them), and so many a second from then on."""

    burst: int = logs.BURST
    per_second: float = logs.PER_SECOND


@dataclass(frozen=True, slots=True)
class Peer:
    """One BGP session of ExaBGP's."""

    name: str
    address: str
    remote_as: int
    local_address: str
    next_hop_ipv6: str | None
    """None: IPv6 routes have no next hop in this session, which is IPv4's."""
    next_hop_ipv4: str | None
    password: str = field(repr=False)
    """Never shown: an error of anybody's may quote a peer."""
    port: int
    uplink: bool = False
    """Whether this host's default routes go through it while its session is up."""
    uplink_ipv4: str | None = None
    """The gateway of the IPv4 default route where the kernel takes no IPv6 next hops for IPv4."""
    uplink_ipv6: str | None = None
    """The gateway of both default routes, where it is not `address`; a link-local one with its interface."""
    families: tuple[str, ...] = FAMILIES
    """Whose routes the session carries."""
    multihop: int | None = None
    """The TTL, or hop limit, of what we send; None: the system's."""
    ttl_security: int | None = None
    """Routers between the peer and us, plus one, that GTSM accepts (RFC 5082); None: no GTSM."""
    add_path: bool = False
    """Whether several paths to a prefix are taken from the peer (RFC 7911)."""
    hold_time: int = HOLD_TIME
    """Seconds without a message after which the session has ended (RFC 4271, section 4.2)."""

    @property
    def ipv6(self) -> bool:
        """Tell whether the session runs over IPv6."""
        return ":" in self.address

    @property
    def asks_rfc8950(self) -> bool:
        """Tell whether the session asks for IPv6 next hops of IPv4 routes: one over IPv4 has IPv4 next hops of its own.

        ExaBGP leaves it out where the session does not carry both families (configuration/neighbor/__init__.py,
        `_post_capa_nexthop`).
        """
        return self.ipv6 and self.families == FAMILIES


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
    max_announcements: int = MAX_ANNOUNCEMENTS
    """Prefixes that this host announces at most."""


@dataclass(frozen=True, slots=True)
class Health:
    """How the host finds out whether it reaches its jails' addresses; a jail's own file may say otherwise. In seconds.

    `silence` is what an address counts as that answers nothing: "ready" or "unready".
    """

    reach: bool = True
    silence: str = "ready"
    reach_every: float = 30.0
    reach_timeout: float = 0.5
    reach_rise: int = 1
    reach_fall: int = 3


@dataclass(frozen=True, slots=True)
class Ownership:
    """How hosts claim jails in BGP (bgp.ownership): the same on all hosts of a fabric.

    `moves` within `window` seconds freeze a jail; `learn_for` is how many seconds a host waits for what the fabric has.
    """

    administrator: int
    moves: int
    window: float
    learn_for: float


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
    ownership: Ownership
    damping: DampingPolicy
    health: Health
    terms: Terms = field(default_factory=Terms)
    """What jails' files may refer to: the groups."""
    failover: Failover = field(default_factory=Failover)
    """What goes with this host's CARP addresses."""
    log: Log = field(default_factory=Log)

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


def _shown(key: str, value: object) -> object:
    """Return what may be shown of a wrong value: no password, nor a table that stands where none should and may hold one."""
    tables = isinstance(value, Mapping) or (
        isinstance(value, list) and any(isinstance(each, Mapping) for each in value)
    )
    return "(hidden)" if key.rpartition(".")[2] == "password" or (tables and key.startswith("bgp")) else value


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
            problems.append(Problem(name, _shown(name, table), f"must be a table: write it as [{name}]"))

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
            name = f"{self._name}.{key}"
            self._problems.append(Problem(name, _shown(name, value), str(error)))
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


def _lines(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.01 <= value <= 10_000:
        raise ValueError("must be a number of lines a second from 0.01 to 10000; burst = 0 writes all of them")
    return float(value)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


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


def _endpoint(value: Any) -> str:
    """Read an address of a session, or a next hop: one that means the same on every link."""
    found = ipaddress.ip_address(_address()(value))
    if found.is_link_local or getattr(found, "scope_id", None):
        # it takes no "%interface" (configuration/parser.py, `peer_ip`), connects to scope 0, and knows a link by
        # SO_BINDTODEVICE only, which is Linux's (reactor/network/tcp.py)
        raise ValueError(
            "is link-local: ExaBGP can not say on which link. Give the link addresses of its own (fd00::/8)"
        )
    if found.is_multicast or found.is_unspecified or getattr(found, "ipv4_mapped", None):
        raise ValueError("must be the address of one machine")
    return str(found)


def _endpoint_of(version: int) -> Callable[[Any], str]:
    return lambda value: _endpoint(_address(version)(value))


def _families(value: Any) -> tuple[str, ...]:
    found = _list(_one_of(*FAMILIES))(value)
    if not found or len(set(found)) != len(found):
        raise ValueError('must name "ipv4", "ipv6" or both, each once')
    return tuple(family for family in FAMILIES if family in found)


def _hops(value: Any) -> int | None:
    if isinstance(value, bool):
        return 1 if value else None
    try:
        return _integer(1, MAX_TTL - 1)(value)
    except ValueError as error:
        raise ValueError(f"must be true, false or the hops to the peer: {error}") from error


def _gateway(version: int) -> Callable[[Any], str]:
    """Read the address of a router next door; a link-local one is nothing without its interface."""

    def reader(value: Any) -> str:
        text = _address(version)(value)
        found = ipaddress.ip_address(text)
        zone = getattr(found, "scope_id", None)
        if found.is_multicast or found.is_loopback or found.is_unspecified or found.is_reserved:
            raise ValueError("must be the address of a router: no multicast, loopback or reserved one")
        # net/if.h, IFNAMSIZ; the name stands in a command
        if version == 6 and found.is_link_local != bool(re.fullmatch(r"[A-Za-z0-9_.-]{1,15}", zone or "", re.ASCII)):
            raise ValueError("a link-local address needs its interface, and no other has one: fe80::1%ix0")
        return text

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
    local = section.take("local_address", _endpoint, "", required=True)
    address = section.take("address", _endpoint, "", required=True)
    # each family's own routes have the session's own address as their next hop, unless another is given
    own = {4: local if "." in local else "", 6: local if ":" in local else ""}
    next_hop_ipv4 = section.take("next_hop_ipv4", _endpoint_of(4), own[4]) or None
    next_hop_ipv6 = section.take("next_hop_ipv6", _endpoint_of(6), own[6]) or None
    peer = Peer(
        name=section.take("name", _name, f"peer{index}", required=True),
        address=address,
        remote_as=section.take("as", _integer(1, MAX_AS), 0, required=True),
        local_address=local,
        next_hop_ipv6=next_hop_ipv6,
        next_hop_ipv4=next_hop_ipv4,
        password=section.take("password", _password, ""),
        port=section.take("port", _integer(1, 65535), 179),
        uplink=section.take("uplink", _flag, default=False),
        uplink_ipv4=section.take("uplink_ipv4", _gateway(4), "") or None,
        uplink_ipv6=section.take("uplink_ipv6", _gateway(6), "") or None,
        families=section.take("families", _families, FAMILIES if next_hop_ipv6 or not local else FAMILIES[:1]),
        multihop=section.take("multihop", _integer(1, MAX_TTL), 0) or None,
        ttl_security=section.take("ttl_security", _hops, None),
        add_path=section.take("add_path", _flag, default=False),
        # RFC 4271, section 4.2: at least 3 seconds, in 16 bits; 0, for ever, would hide a router that died
        hold_time=section.take("hold_time", _integer(3, 65535), HOLD_TIME),
    )
    section.finish()
    _fits(f"bgp.peer[{index}]", peer, problems)
    return peer


def _fits(key: str, peer: Peer, problems: list[Problem]) -> None:
    """Note what is right by itself, and not together, in one peer."""
    if peer.address and peer.local_address and (":" in peer.local_address) != peer.ipv6:
        remedy = f"must be an IPv{6 if peer.ipv6 else 4} address, as {peer.address} is: a session has one family"
        problems.append(Problem(f"{key}.local_address", peer.local_address, remedy))
    if peer.local_address and "ipv6" in peer.families and peer.next_hop_ipv6 is None:
        remedy = "IPv6 routes need an IPv6 next hop, which an IPv4 session has not by itself: set next_hop_ipv6"
        problems.append(Problem(f"{key}.families", list(peer.families), remedy))
    if peer.local_address and "ipv4" in peer.families and not peer.asks_rfc8950 and peer.next_hop_ipv4 is None:
        remedy = 'an IPv6 session without "ipv6" has no next hop for IPv4 (ExaBGP offers RFC 8950 with both): set next_hop_ipv4'
        problems.append(Problem(f"{key}.families", list(peer.families), remedy))
    if peer.multihop is not None and peer.ttl_security is not None:
        remedy = "goes without ttl_security, which sends 255 by itself: write ttl_security = HOPS, and no multihop"
        problems.append(Problem(f"{key}.multihop", peer.multihop, remedy))


def _uplinks(peers: Iterable[Peer], problems: list[Problem]) -> None:
    """Note uplinks whose gateway can not be told, and gateways of what is no uplink."""
    for index, peer in enumerate(peers):
        key = f"bgp.peer[{index}]"
        for name, value in (("uplink_ipv4", peer.uplink_ipv4), ("uplink_ipv6", peer.uplink_ipv6)):
            if value and not peer.uplink:
                problems.append(Problem(f"{key}.{name}", value, "is for uplinks: add uplink = true, or take it out"))
        given, name = (peer.uplink_ipv6, "uplink_ipv6") if peer.ipv6 else (peer.uplink_ipv4, "uplink_ipv4")
        if peer.uplink and given is None and peer.address:
            try:
                _gateway(6 if peer.ipv6 else 4)(peer.address)
                if peer.multihop is not None:
                    raise ValueError("it is several hops away")
            except ValueError as error:
                remedy = f"its address can be no gateway ({error}): set {name}"
                problems.append(Problem(f"{key}.address", peer.address, remedy))


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
    known = (
        "host",
        "paths",
        "managers",
        "hooks",
        "agent",
        "metrics",
        "log",
        "bgp",
        "ownership",
        "damping",
        "health",
        "group",
        "failover",
    )
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
        devd=section.take("devd", _path, Path("/var/run/devd.seqpacket.pipe")),
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
        uplink_hold=section.take("uplink_hold", _seconds(0, 3600), 2.0),
        history_for=section.take("history_for", _seconds(3600, 10 * 366 * 86400), 30 * 86400.0),
    )
    section.finish()

    section = _Section("metrics", data.get("metrics", {}), problems)
    metrics = Metrics(
        listen=section.take("listen", _listen, "127.0.0.1:9971"),
        jails=section.take("jails", _integer(0, 1_000_000), 1000),
    )
    section.finish()

    section = _Section("log", data.get("log", {}), problems)
    log = Log(
        burst=section.take("burst", _integer(0, 100_000), logs.BURST),
        per_second=section.take("per_second", _lines, logs.PER_SECOND),
    )
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
        max_announcements=section.take("max_announcements", _integer(1, 1_000_000), MAX_ANNOUNCEMENTS),
    )
    section.finish()
    _twice(bgp.peers, problems)
    _uplinks(bgp.peers, problems)
    ownership = _ownership(data.get("ownership", {}), problems)
    damping = _damping(data.get("damping", {}), problems)
    health = _health(data.get("health", {}), problems)
    terms = read_groups(
        data.get("group", {}),
        ownership.administrator,
        lambda key, value, remedy: problems.append(Problem(key, value, remedy)),
    )
    failover = _failover(data.get("failover", {}), host, bgp, terms, problems)
    return Config(
        path, host, paths, managers, hooks, agent, metrics, bgp, ownership, damping, health, terms, failover, log
    ), problems


def _health(table: object, problems: list[Problem]) -> Health:
    section, usual = _Section("health", table, problems), Health()
    health = Health(
        reach=section.take("reach", _one_of("on", "off"), "on") == "on",
        silence=section.take("silence", _one_of("ready", "unready"), usual.silence),
        reach_every=section.take("reach_every", _seconds(0.5, 3600), usual.reach_every),
        reach_timeout=section.take("reach_timeout", _seconds(0.05, 60), usual.reach_timeout),
        reach_rise=section.take("reach_rise", _integer(1, 100), usual.reach_rise),
        reach_fall=section.take("reach_fall", _integer(1, 100), usual.reach_fall),
    )
    section.finish()
    return health


def _ownership(table: object, problems: list[Problem]) -> Ownership:
    section = _Section("ownership", table, problems)
    ownership = Ownership(
        # RFC 8092, section 3: 0, 65535 and 4294967295 are no AS numbers to use here
        administrator=section.take("administrator", _integer(1, MAX_AS - 1), DEFAULT_ADMINISTRATOR),
        moves=section.take("moves", _integer(2, 1000), 5),
        window=section.take("window", _seconds(1, 86400), 180.0),
        learn_for=section.take("learn_for", _seconds(0, 300), 5.0),
    )
    section.finish()
    return ownership


def _damping(table: object, problems: list[Problem]) -> DampingPolicy:
    section = _Section("damping", table, problems)
    usual, before = DampingPolicy(), len(problems)
    policy = DampingPolicy(
        enabled=section.take("enabled", _flag, usual.enabled),
        penalty=section.take("penalty", _integer(1, 1_000_000), usual.penalty),
        suppress=section.take("suppress", _integer(2, 1_000_000_000), usual.suppress),
        reuse=section.take("reuse", _integer(1, 1_000_000_000), usual.reuse),
        half_life=section.take("half_life", _seconds(1, 86400), usual.half_life),
        maximum=section.take("maximum", _seconds(1, 7 * 86400), usual.maximum),
    )
    section.finish()
    if len(problems) == before:
        # each is right by itself: now together
        problems += [Problem("damping", None, mistake) for mistake in policy.mistakes]
    return policy


def _failover(data: object, host: Host, bgp: Bgp, terms: Terms, problems: list[Problem]) -> Failover:
    if not isinstance(data, Mapping):
        problems.append(Problem("failover", data, "must be tables: write each as [failover.NAME]"))
        return Failover()
    groups = []
    for name, table in data.items():
        key = f"failover.{name}"
        try:
            _name(name)
        except ValueError as error:
            problems.append(Problem(key, None, f"its name {error}"))
        group = _failover_group(name, table, problems)
        groups.append(group)
        wrong = {problem.key for problem in problems} & {f"{key}.{what}" for what in ("jails", "groups", "services")}
        if not (group.jails or group.groups or group.services or wrong):
            remedy = "goes with nothing: name what follows its vhids in jails, groups or services"
            problems.append(Problem(key, None, remedy))
        for each in group.groups:
            if terms.group(each) is None:
                known = ", ".join(known for known, _ in terms.groups) or "none"
                problems.append(Problem(f"{key}.groups", each, f"is no group; the groups ([group.NAME]): {known}"))
        for prefix in group.services:
            if host.allowed and not allows(host.allowed, prefix):
                remedy = "lies outside host.allowed: widen that, or take it out"
                problems.append(Problem(f"{key}.services", str(prefix), remedy))
        if group.min_sessions > len(bgp.peers) > 0:
            remedy = f"there are {len(bgp.peers)} peers: the fabric would always be lost; set it to that at most"
            problems.append(Problem(f"{key}.min_sessions", group.min_sessions, remedy))
    for what in ("jails", "groups", "services"):
        seen: dict[object, str] = {}
        for group in groups:
            for each in getattr(group, what):
                if seen.setdefault(each, group.name) != group.name:
                    remedy = f"is failover.{seen[each]}'s already: it can follow one only"
                    problems.append(Problem(f"failover.{group.name}.{what}", str(each), remedy))
    return Failover(tuple(groups))


def _failover_group(name: str, table: object, problems: list[Problem]) -> FailoverGroup:
    section, usual = _Section(f"failover.{name}", table, problems), FailoverGroup(name, ())
    group = FailoverGroup(
        name=name,
        vhids=section.take("vhids", _once(_vhid, "1@igb0", least=1), (), required=True),
        jails=section.take("jails", _once(_jail, "web1"), ()),
        groups=section.take("groups", _once(_name, "dns"), ()),
        services=section.take("services", _once(_allowed, "198.51.100.32/28"), ()),
        when_backup=section.take("when_backup", _one_of(*WHEN_BACKUP), usual.when_backup),
        pfsync=section.take("pfsync", _flag, usual.pfsync),
        sync_within=section.take("sync_within", _seconds(0, 3600), usual.sync_within),
        hand_over_within=section.take("hand_over_within", _seconds(SHORTEST, 3600), usual.hand_over_within),
        min_sessions=section.take("min_sessions", _integer(0, 1000), usual.min_sessions),
        hold=section.take("hold", _seconds(0, 3600), usual.hold),
        hold_down=section.take("hold_down", _seconds(0, 86400), usual.hold_down),
        # more does not count: 240 is the most that advskew and demotion are together (ip_carp.c, CARP_MAXSKEW)
        demotion=section.take("demotion", _integer(1, 240), usual.demotion),
        prepend=section.take("prepend", _integer(1, MAX_PREPEND), usual.prepend),
    )
    section.finish()
    return group


def _once(read: Callable[[Any], T], example: str, *, least: int = 0) -> Callable[[Any], tuple[T, ...]]:
    """Read a list in which nothing stands twice."""

    def reader(value: Any) -> tuple[T, ...]:
        found = _list(read)(value)
        if len(found) < least:
            raise ValueError(f'must not be empty: ["{example}"]')
        twice = [each for index, each in enumerate(found) if each in found[:index]]
        if twice:
            raise ValueError(f"has {twice[0]} twice")
        return found

    return reader


def _vhid(value: Any) -> Vhid:
    return vhid(_some_text(value))


def _jail(value: Any) -> str:
    return jail_name(_some_text(value))


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
