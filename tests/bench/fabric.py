"""A large fabric as text: the claims of many other hosts, a table of routes that are nobody's business, in the words of
BIRD's configuration and as an MRT dump (RFC 6396), which GoBGP takes.
"""

from __future__ import annotations

import ipaddress
import struct
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from string import Template

from mobility.bgp import ownership
from mobility.bgp.ownership import Claim
from mobility.jails.jailsd import JailConfig
from tests.lab.spine import SPINE_AS, SPINE_ROUTER_ID, Session

ADMINISTRATOR = ownership.DEFAULT_ADMINISTRATOR
COMMUNITIES = 20
"""Different communities among the routes outside of bulk.ALLOWED: a router packs routes of one into few UPDATEs."""
_SPINE = Template("""\
router id $router_id;
log stderr all;
timeformat protocol iso long ms;
protocol device { }
protocol kernel kernel4 { ipv4 { import none; export where source = RTS_BGP; }; }
protocol kernel kernel6 { ipv6 { import none; export where source = RTS_BGP; }; }
$sessions$routes""")
_SESSION = Template("""\
protocol bgp $name {
  local $local as $local_as;
  neighbor $remote as $remote_as;
  graceful restart on;
  med metric on;
  hold time 90;
  connect delay time 1;
  connect retry time 1;
  error wait time 1, 2;
  debug { states, events };
  ipv4 { extended next hop on; import all; export all; };
  ipv6 { import all; export all; };
}
""")
_HOST = Template("""\
router id $router_id;
log stderr all;
protocol device { }
filter own {
  if source != RTS_STATIC then reject;
  # BIRD sends another AS no MED but one that was set here
  if defined(bgp_med) then bgp_med = bgp_med;
  accept;
}
protocol bgp spine {
  local $local as $local_as;
  neighbor $remote as $remote_as;
  graceful restart off;
  connect delay time 1;
  connect retry time 1;
  error wait time 1, 2;
  ipv4 { extended next hop on; next hop self; import all; export filter own; };
  ipv6 { next hop self; import all; export filter own; };
}
$routes""")


@dataclass(frozen=True, slots=True)
class Route:
    """A route with what its origin says of it."""

    prefix: str
    claim: Claim | None = None
    community: tuple[int, int] | None = None

    @property
    def ipv6(self) -> bool:
        """Tell the family."""
        return ":" in self.prefix


def claimed(configs: Iterable[JailConfig], sequence: int, router_id: str) -> list[Route]:
    """Return the routes of jails as a host with that router id claims them."""
    claimant = int(ipaddress.IPv4Address(router_id))
    return [
        Route(str(prefix), Claim(sequence, ownership.identity_number(config.name), claimant))
        for config in configs
        for prefix in config.addresses
    ]


def fabric(count: int) -> list[Route]:
    """Return `count` routes: half are claims of other hosts inside bulk.ALLOWED, half lie outside; of both families."""
    claims = [
        Route(
            f"2001:db8:64:1::{n + 1:x}/128" if n % 2 else f"10.{72 + (n >> 16)}.{n >> 8 & 255}.{n & 255}/32",
            Claim(29_000_000 + n % 7, ownership.identity_number(f"other{n // 2}"), 0x0A010000 + n // 20_000),
        )
        for n in range(count // 2)
    ]
    others = [
        Route(
            f"2001:db8:{0x1000 + (n >> 16):x}:{n & 0xFFFF:x}::/64"
            if n % 2
            else f"10.{128 + (n >> 16)}.{n >> 8 & 255}.{n & 255}/32",
            community=(SPINE_AS, n % COMMUNITIES),
        )
        for n in range(count - len(claims))
    ]
    return claims + others


def bird_routes(name: str, routes: Iterable[Route], *, enabled: bool) -> str:
    """Return two static protocols of BIRD, NAME4 and NAME6."""
    texts: dict[bool, list[str]] = {False: [], True: []}
    for route in routes:
        words = []
        if route.community:
            words.append(f"bgp_community.add(({route.community[0]},{route.community[1]}));")
        if route.claim:
            words.append(f"bgp_med = {ownership.med(route.claim.sequence)};")
            numbers = (text.replace(":", ",") for text in ownership.communities(route.claim, ADMINISTRATOR))
            words += [f"bgp_large_community.add(({each}));" for each in numbers]
        texts[route.ipv6].append(f"  route {route.prefix} blackhole {{ {' '.join(words)} }};\n")
    off = "" if enabled else "  disabled;\n"
    return "".join(
        f"protocol static {name}{family} {{\n  ipv{family};\n{off}{''.join(texts[family == 6])}}}\n"
        for family in (4, 6)
    )


def spine(sessions: Iterable[Session], routes: str) -> str:
    """Return the configuration of the spine: all it has goes to all hosts; in its kernel are the hosts' routes only."""
    blocks = [
        _SESSION.substitute(
            name=session.name,
            local=session.local,
            local_as=SPINE_AS,
            remote=session.remote,
            remote_as=session.remote_as,
        )
        for session in sessions
    ]
    return _SPINE.substitute(router_id=SPINE_ROUTER_ID, sessions="".join(blocks), routes=routes)


def host(session: Session, router_id: str, routes: str) -> str:
    """Return the configuration of a BIRD on a host that announces its static routes, and takes what the spine has."""
    return _HOST.substitute(
        router_id=router_id,
        local=session.remote,
        local_as=session.remote_as,
        remote=session.local,
        remote_as=SPINE_AS,
        routes=routes,
    )


_MRT = struct.Struct("!IHHI")
_TABLE_DUMP_V2, _PEER_INDEX_TABLE = 13, 1
_RIB_UNICAST = {False: 2, True: 4}
_AS4_PEER = 2
_ORIGIN, _AS_PATH, _NEXT_HOP, _MED, _COMMUNITY, _MP_REACH, _LARGE_COMMUNITY = 1, 2, 3, 4, 8, 14, 32
_WELL_KNOWN, _OPTIONAL, _OPTIONAL_TRANSITIVE = 0x40, 0x80, 0xC0


def mrt(routes: Iterable[Route]) -> list[bytes]:
    """Return the records of a dump of routes that their reader originates: no AS path, no next hop (RFC 6396, 4.3)."""
    return list(_records(routes))


def _records(routes: Iterable[Route]) -> Iterator[bytes]:
    now = int(time.time())

    def record(kind: int, body: bytes) -> bytes:
        return _MRT.pack(now, _TABLE_DUMP_V2, kind, len(body)) + body

    peer = struct.pack("!B4s4sI", _AS4_PEER, bytes(4), bytes(4), 0)
    yield record(_PEER_INDEX_TABLE, struct.pack("!4sHH", bytes(4), 0, 1) + peer)
    for number, route in enumerate(routes):
        attributes = b"".join(_attributes(route))
        entry = struct.pack("!HIH", 0, now, len(attributes)) + attributes
        yield record(
            _RIB_UNICAST[route.ipv6], struct.pack("!I", number) + _packed(route.prefix) + struct.pack("!H", 1) + entry
        )


def _packed(prefix: str) -> bytes:
    network = ipaddress.ip_network(prefix)
    return bytes([network.prefixlen]) + network.network_address.packed[: (network.prefixlen + 7) // 8]


def _attributes(route: Route) -> Iterator[bytes]:
    def attribute(flags: int, kind: int, value: bytes) -> bytes:
        return struct.pack("!BBB", flags, kind, len(value)) + value

    yield attribute(_WELL_KNOWN, _ORIGIN, b"\0")
    yield attribute(_WELL_KNOWN, _AS_PATH, b"")
    if not route.ipv6:
        yield attribute(_WELL_KNOWN, _NEXT_HOP, bytes(4))
    if route.claim:
        yield attribute(_OPTIONAL, _MED, struct.pack("!I", ownership.med(route.claim.sequence)))
    if route.community:
        yield attribute(_OPTIONAL_TRANSITIVE, _COMMUNITY, struct.pack("!HH", *route.community))
    if route.ipv6:
        # whole, with family and prefix: GoBGP 3.10 does not read the abbreviated form of RFC 6396, 4.3.4
        yield attribute(_OPTIONAL, _MP_REACH, struct.pack("!HBB16xB", 2, 1, 16, 0) + _packed(route.prefix))
    if route.claim:
        numbers = [int(word) for text in ownership.communities(route.claim, ADMINISTRATOR) for word in text.split(":")]
        yield attribute(_OPTIONAL_TRANSITIVE, _LARGE_COMMUNITY, struct.pack(f"!{len(numbers)}I", *numbers))
