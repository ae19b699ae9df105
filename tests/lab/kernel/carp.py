"""carp(4): the state machine of FreeBSD 13.2's kernel, on real packets.

The addresses of a vhid are on Linux only while it is MASTER, on a macvlan of its own whose MAC is the virtual one, so
that clients and switches see what they see of FreeBSD (carp_iamatch, carp_macmatch6, carp_forus); what leaves otherwise
leaves with the interface's own MAC, there as here. Advertisements go out and come in on a packet socket of the interface.

Source: sys/netinet/ip_carp.c; each function here says which of its functions it plays. carp(4) for the sysctls.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from tests.lab.kernel import carpwire, routing
from tests.lab.kernel.callouts import Callouts
from tests.lab.kernel.carpwire import Advertisement
from tests.lab.kernel.errors import Errno, Refused
from tests.lab.kernel.netlink import RTN_UNICAST, Hop
from tests.lab.kernel.state import (
    INET,
    INET6,
    WIDTH,
    Address,
    Iff,
    Interface,
    Key,
    Vnet,
    network,
    with_scope,
)

INIT, BACKUP, MASTER = "INIT", "BACKUP", "MASTER"
MAXVHID, MAXSKEW = 255, 240  # CARP_MAXVHID, CARP_MAXSKEW (ip_carp.h)
MAX_ERRORS, MIN_SUCCESS = 3, 3  # CARP_SENDAD_MAX_ERRORS, CARP_SENDAD_MIN_SUCCESS
DEMOTION, PREEMPT, ALLOW = "net.inet.carp.demotion", "net.inet.carp.preempt", "net.inet.carp.allow"
IFDOWN, SENDERR = "net.inet.carp.ifdown_demotion_factor", "net.inet.carp.senderr_demotion_factor"
DSCP, MAXDSCP = "net.inet.carp.dscp", 63
#: struct carpstats as netstat(1) names it, in its order (usr.bin/netstat/inet.c, carp_stats).
STATISTICS = (
    "received-inet-packets",
    "received-inet6-packets",
    "dropped-wrong-ttl",
    "dropped-short-header",
    "dropped-bad-checksum",
    "dropped-bad-version",
    "dropped-short-packet",
    "dropped-bad-authentication",
    "dropped-bad-vhid",
    "dropped-bad-address-list",
    "sent-inet-packets",
    "sent-inet6-packets",
    "send-failed-memory-error",
)
_FRAME = 2048


@dataclass(eq=False, slots=True)
class Carp:
    """One vhid on one interface (struct carp_softc)."""

    interface: Interface
    vhid: int
    state: str = INIT
    advbase: int = 1  # seconds (CARP_DFLTINTV)
    advskew: int = 0  # 1/256 s
    key: bytes = b""
    addresses: list[Address] = field(default_factory=list)
    suppressed: bool = False  # it has demoted, because its interface is down
    errors: int = 0
    successes: int = 0
    counter: int | None = None  # None: to be drawn (sc_init_counter)
    link: int = 0  # Linux's number of its macvlan
    installed: list[Address] = field(default_factory=list)  # what Linux has on it

    def has(self, family: int) -> bool:
        """Whether it has an address of that family (sc_naddrs, sc_naddrs6)."""
        return any(each.family == family for each in self.addresses)


class Carps:
    """What the vhids of a machine have in common: the clock, what is due, who is told, and the sockets.

    *pace* is how many seconds CARP and pfsync count in one: tests need not wait for three advertisements to be missed. It
    is set before there is anything to do. However late this one process comes to it, what was due first is done first, and
    what has arrived is heard before the next: so a busy machine makes nobody miss advertisements, at any pace.
    *notify* is devctl_notify(); *watch* and *unwatch* put an interface's packet socket into the event loop, and take it
    out.
    """

    def __init__(self, clock: Callable[[], float], notify: Callable[[Vnet, str, str, str], None]) -> None:
        self._clock = clock
        self.pace = 1.0
        self.notify = notify
        self.callouts = Callouts()
        self.all: list[Carp] = []  # carp_list: the newest first
        self.sockets: dict[Interface, socket.socket] = {}
        self.vnets: Callable[[], Iterable[Vnet]] = tuple
        self.watch: Callable[[Interface, socket.socket], None] = lambda _interface, _socket: None
        self.unwatch: Callable[[socket.socket], None] = lambda _socket: None
        self._sending: deque[Carp] = deque()
        self._announcing: deque[Carp] = deque()

    def clock(self) -> float:
        """CARP's own: the machine's, at its pace."""
        return self._clock() * self.pace

    def due(self) -> float | None:
        """When, by the machine's clock, there is something to do: now (0.0), later, or never."""
        if self._sending or self._announcing:
            return 0.0
        due = self.callouts.next()
        return None if due is None else due / self.pace

    def step(self) -> bool:
        """Do one thing that is due, if any; answer whether there was one. What it sends may change what comes next."""
        while self._announcing:
            carp = self._announcing.popleft()
            if carp.state == MASTER and carp in self.all:
                _announce(carp)
                return True
        while self._sending:
            carp = self._sending.popleft()
            if carp.state == MASTER and carp in self.all:
                send_advertisement(carp)
                return True
        action = self.callouts.take(self.clock())
        if action is None:
            return False
        action()
        return True

    def announce(self, carp: Carp) -> None:
        """Let a new master make itself known once its advertisement has been heard: FreeBSD's old master never answers
        an ARP request that comes from its own MAC (in_arpinput: "it's from me"), Linux's would until it is none any more.
        """
        self._announcing.append(carp)

    def send_all(self) -> None:
        """carp_send_ad_all(): every master advertises now, in every vnet. One task, however often it is asked for."""
        if not self._sending:
            self._sending.extend(self.all)


def demoted_skew(carp: Carp) -> int:
    """DEMOTE_ADVSKEW: the vhid's skew and the vnet's demotion, at most 240. It may be negative."""
    return min(MAXSKEW, carp.advskew + carp.interface.vnet.sysctls[DEMOTION])


def demote(vnet: Vnet, by: int) -> None:
    """carp_demote_adj()."""
    vnet.sysctls[DEMOTION] += by
    vnet.carps.send_all()


def configure(
    interface: Interface,
    vhid: int,
    *,
    advbase: int | None = None,
    advskew: int | None = None,
    key: bytes | None = None,
    state: str | None = None,
) -> None:
    """`ifconfig IF vhid N …` (SIOCSVH, carp_ioctl): what is not given stays; a vhid that does not exist is made."""
    if interface.driver not in ("epair", "bridge"):
        raise Refused(Errno.EOPNOTSUPP)
    if not 0 < vhid <= MAXVHID:
        raise Refused(Errno.EINVAL)
    carp = find(interface, vhid)
    if carp is None:
        carp = Carp(interface, vhid)
        interface.carps.append(carp)
        interface.vnet.carps.all.insert(0, carp)
        interface.flags |= Iff.PROMISC  # carp_alloc_if
    if advbase is not None and advbase > 0:
        if advbase > 255:
            raise Refused(Errno.EINVAL)
        carp.advbase = advbase
    if advskew is not None:
        if advskew >= 255:
            raise Refused(Errno.EINVAL)
        carp.advskew = advskew
    if key:
        carp.key = key[: carpwire.KEY_LENGTH - 1]
    if carp.state != INIT and state not in (None, carp.state):
        if state == BACKUP:
            interface.vnet.carps.callouts.stop((carp, "ad"))
            _set_state(carp, BACKUP)
            _set_run(carp)
        elif state == MASTER:
            _master_down(carp)


def find(interface: Interface, vhid: int) -> Carp | None:
    """The vhid on an interface."""
    return next((each for each in interface.carps if each.vhid == vhid), None)


def of_address(interface: Interface, address: Address) -> Carp | None:
    """The vhid that an address belongs to (ifa_carp)."""
    return next((each for each in interface.carps if address in each.addresses), None)


def attach(interface: Interface, address: Address, vhid: int) -> None:
    """carp_attach(): the address takes part in the vhid. ENOENT without that vhid."""
    carp = find(interface, vhid)
    if carp is None:
        raise Refused(Errno.ENOENT)
    carp.addresses.append(address)
    if address.family == INET6:
        routing.add_for_address(interface.vnet, interface, address, frozenset({routing.NETWORK}))
    _open(interface)
    _project_network(interface, address)
    _refresh(carp)


def detach(interface: Interface, address: Address) -> None:
    """carp_detach(): the address leaves its vhid, which goes with its last one."""
    carp = of_address(interface, address)
    if carp is None:
        return
    carp.addresses.remove(address)
    _uninstall(carp, address)
    routing.remove_for_address(interface.vnet, interface, address)
    _project_network(interface, address)
    _refresh(carp)
    if not carp.addresses:
        _destroy(carp)


def release(interface: Interface) -> None:
    """The interface goes, or goes elsewhere: its vhids go (if_detach_internal, carp_destroy)."""
    for carp in list(interface.carps):
        for address in list(carp.addresses):
            detach(interface, address)
        if carp in interface.carps:
            _destroy(carp)


def link_state(interface: Interface) -> None:
    """carp_linkstate(): the interface went up or down, or its cable was pulled or put back."""
    for carp in interface.carps:
        _refresh(carp)


def allow_changed(vnet: Vnet) -> None:
    """carp_allow_sysctl()."""
    for carp in vnet.carps.all:
        if carp.interface.vnet is vnet:
            _refresh(carp)


def plug(interface: Interface) -> None:
    """Linux has made what the interface stands for: go on the wire."""
    if any(each.addresses for each in interface.carps):
        _open(interface)
    for carp in interface.carps:
        if carp.state == MASTER:
            _install(carp)
        for address in carp.addresses:
            _project_network(interface, address)


def unplug(interface: Interface) -> None:
    """What Linux has of the interface is going, or gone: forget what hangs on it."""
    _close(interface)
    for carp in interface.carps:
        if carp.link:
            with contextlib.suppress(OSError):
                interface.vnet.namespace.delete_link(carp.link)
        carp.link = 0
        carp.installed.clear()


def receive(interface: Interface) -> None:
    """Take one frame from the interface's socket."""
    wire = interface.vnet.carps.sockets.get(interface)
    if wire is None:
        return
    try:
        frame = wire.recv(_FRAME)
    except OSError:
        return  # nothing there after all, or Linux's interface went down (packet(7): ENETDOWN)
    advertisement = carpwire.parse(frame)
    if interface.up and interface.carrier:
        if advertisement is None:
            _count(interface.vnet, "dropped-short-header")
        else:
            _input(interface, advertisement)


def send_advertisement(carp: Carp) -> None:
    """carp_send_ad_locked(): advertise, for each family that it has addresses of, and again after its interval."""
    vnet, skew = carp.interface.vnet, demoted_skew(carp)
    wire = vnet.carps.sockets.get(carp.interface)
    for family in (INET, INET6):
        if not carp.has(family):
            continue
        carp.counter = secrets.randbits(64) if carp.counter is None else (carp.counter + 1) % (1 << 64)
        source = _best_address(carp.interface, family)
        code = carpwire.digest(carp.key, carp.vhid, carp.addresses, carp.counter)
        frame = carpwire.advertisement(
            family, source, carp.vhid, carp.advbase, skew & 0xFF, carp.counter, code, vnet.sysctls[DSCP]
        )
        _count(vnet, "sent-inet-packets" if family == INET else "sent-inet6-packets")
        _sent(carp, wire is None or _send(wire, frame))
    _again(carp, max(0.0, carp.advbase + skew / 256))


def _again(carp: Carp, seconds: float) -> None:
    def action() -> None:
        if carp.state == MASTER:
            send_advertisement(carp)

    carps = carp.interface.vnet.carps
    carps.callouts.reset((carp, "ad"), carps.clock(), seconds, action)


def _sent(carp: Carp, good: bool) -> None:
    """carp_send_ad_error(): the third failure in a row demotes, the third success after that takes it back.

    As in the source, a single success forgets the failures counted, so that the demotion stays unless successes are
    counted before: `sc_sendad_errors = 0` in the branch that only counts.
    """
    vnet = carp.interface.vnet
    if not good:
        carp.errors += 1
        if carp.errors == MAX_ERRORS:
            demote(vnet, vnet.sysctls[SENDERR])
        carp.successes = 0
        return
    if carp.errors >= MAX_ERRORS:
        carp.successes += 1
        if carp.successes >= MIN_SUCCESS:
            demote(vnet, -vnet.sysctls[SENDERR])
    carp.errors = 0


def _input(interface: Interface, heard: Advertisement) -> None:
    """carp_input(), carp6_input() and carp_input_c()."""
    vnet = interface.vnet
    _count(vnet, "received-inet-packets" if heard.family == INET else "received-inet6-packets")
    if not vnet.sysctls[ALLOW]:
        return
    if heard.ttl != carpwire.TTL:
        _count(vnet, "dropped-wrong-ttl")
        return
    if not heard.summed:
        _count(vnet, "dropped-bad-checksum")
        return
    carp = find(interface, heard.vhid)
    if carp is None or not carp.has(heard.family):
        _count(vnet, "dropped-bad-vhid")
        return
    if heard.version != carpwire.VERSION:
        _count(vnet, "dropped-bad-version")
        return
    if heard.digest != carpwire.digest(carp.key, carp.vhid, carp.addresses, heard.counter):
        _count(vnet, "dropped-bad-authentication")
        return
    carp.counter = heard.counter
    ours = carp.advbase * 256 + demoted_skew(carp)
    theirs = heard.advbase * 256 + heard.advskew
    if carp.state == MASTER and ours >= theirs:
        vnet.carps.callouts.stop((carp, "ad"))
        _set_state(carp, BACKUP)  # more frequent advertisement received
        _set_run(carp)
    elif carp.state == BACKUP:
        preempts = bool(vnet.sysctls[PREEMPT]) and ours < theirs  # preempting a slower master
        if preempts or carp.advbase * 3 * 256 + demoted_skew(carp) < theirs:  # master will time out
            _master_down(carp)
        else:
            _set_run(carp, heard.family)


def _master_down(carp: Carp) -> None:
    """carp_master_down_locked(): take over."""
    if carp.state != BACKUP:
        return
    interface = carp.interface
    carps = interface.vnet.carps
    _set_state(carp, MASTER)
    send_advertisement(carp)
    carps.announce(carp)
    _set_run(carp)
    for address in carp.addresses:  # carp_addroute
        with contextlib.suppress(Refused):
            routing.add_for_address(interface.vnet, interface, address, _held(address))
        _project_network(interface, address)


def _announce(carp: Carp) -> None:
    """carp_send_arp(), carp_send_na()."""
    interface = carp.interface
    wire, virtual = interface.vnet.carps.sockets.get(interface), carpwire.virtual_mac(carp.vhid)
    if wire is None:
        return
    own = bytes.fromhex(interface.ether.replace(":", ""))
    for address in carp.addresses:
        if address.family == INET:
            _send(wire, carpwire.gratuitous_arp(own, virtual, address.packed))
        else:
            source = _best_address(interface, INET6)
            _send(wire, carpwire.unsolicited_na(virtual, source, address.packed, router=False))


def _set_run(carp: Carp, family: int = 0) -> None:
    """carp_setrun(): from INIT to BACKUP where it may run; as BACKUP the wait for the master begins anew, as MASTER the
    next advertisement is set. *family*: only that of the two waits; 0: of each family that it has.
    """
    interface = carp.interface
    vnet = interface.vnet
    if not _may_run(interface) or not carp.addresses:
        return
    carps = vnet.carps
    if carp.state == INIT:
        _set_state(carp, BACKUP)
        _set_run(carp)
    elif carp.state == BACKUP:
        carps.callouts.stop((carp, "ad"))
        for each in (INET, INET6):
            if each == family or (not family and carp.has(each)):
                seconds = 3 * carp.advbase + carp.advskew / 256
                carps.callouts.reset((carp, each), carps.clock(), seconds, lambda: _master_down(carp))
    else:
        _again(carp, carp.advbase + carp.advskew / 256)


def _refresh(carp: Carp) -> None:
    """carp_sc_state(): begin again from INIT; an interface that is down demotes, once for each of its vhids."""
    vnet = carp.interface.vnet
    if not _may_run(carp.interface):
        for what in ("ad", INET, INET6):
            vnet.carps.callouts.stop((carp, what))
        _set_state(carp, INIT)
        if not carp.suppressed:
            demote(vnet, vnet.sysctls[IFDOWN])
        carp.suppressed = True
    else:
        _set_state(carp, INIT)
        _set_run(carp)
        if carp.suppressed:
            demote(vnet, -vnet.sysctls[IFDOWN])
        carp.suppressed = False


def _may_run(interface: Interface) -> bool:
    return interface.up and interface.carrier and bool(interface.vnet.sysctls[ALLOW])


def _set_state(carp: Carp, state: str) -> None:
    """carp_set_state(), with carp_delroute() for a master that is none any more: only then does Linux know less."""
    if carp.state == state:
        return
    was, carp.state = carp.state, state
    interface = carp.interface
    if state == MASTER:
        _install(carp)
    elif was == MASTER:
        for address in carp.addresses:
            _uninstall(carp, address)
        if carp.link:
            interface.vnet.namespace.listen(carp.link, listens=False)
    interface.vnet.carps.notify(interface.vnet, "CARP", f"{carp.vhid}@{interface.name}", state)


def _destroy(carp: Carp) -> None:
    """carp_destroy(), and carp_free_if() with the interface's last vhid."""
    interface = carp.interface
    vnet = interface.vnet
    if carp.suppressed:
        demote(vnet, -vnet.sysctls[IFDOWN])
    for what in ("ad", INET, INET6):
        vnet.carps.callouts.stop((carp, what))
    vnet.carps.all.remove(carp)
    interface.carps.remove(carp)
    if carp.link:
        with contextlib.suppress(OSError):
            vnet.namespace.delete_link(carp.link)
        carp.link = 0
    if not interface.carps:
        if interface.bridge is None:
            interface.flags &= ~Iff.PROMISC
        _close(interface)


def _open(interface: Interface) -> None:
    carps = interface.vnet.carps
    if not interface.link:
        return
    namespace = interface.vnet.namespace
    for carp in interface.carps:
        if carp.addresses and not carp.link:
            carp.link = next(interface.vnet.links)
            virtual = carpwire.virtual_mac(carp.vhid)
            namespace.macvlan(f"carp{carp.link}", carp.link, interface.link, virtual)
    if interface in carps.sockets:
        return
    wire = namespace.packets(interface.linux_name)
    if wire is not None:
        carps.sockets[interface] = wire
        carps.watch(interface, wire)
    # an ARP request of the host's own must not carry a shared address with the interface's own MAC
    with contextlib.suppress(OSError):
        namespace.sysctl(f"ipv4/conf/{interface.linux_name}/arp_announce", "2")


def _close(interface: Interface) -> None:
    carps = interface.vnet.carps
    wire = carps.sockets.pop(interface, None)
    if wire is not None:
        carps.unwatch(wire)
        wire.close()


def _install(carp: Carp) -> None:
    """Let Linux have the addresses, with the virtual MAC."""
    interface = carp.interface
    vnet = interface.vnet
    if not carp.link:
        return
    vnet.namespace.listen(carp.link, listens=True)
    for address in carp.addresses:
        if address not in carp.installed:
            vnet.namespace.add_address(carp.link, address.packed, WIDTH[address.family])
            carp.installed.append(address)


def _uninstall(carp: Carp, address: Address) -> None:
    interface = carp.interface
    vnet = interface.vnet
    routing.remove_for_address(vnet, interface, address, _held(address))
    if address not in carp.installed:
        return
    carp.installed.remove(address)
    if carp.link and interface.link:
        vnet.namespace.delete_address(carp.link, address.packed, WIDTH[address.family])
        _project_network(interface, address)


def _held(address: Address) -> frozenset[str]:
    """The routes that come and go with being master: an IPv6 address has its network always (in6_update_ifa,
    nd6_prefix_onlink), an IPv4 one only then (carp_ifa_addroute, in_addprefix).
    """
    return routing.WHOLE if address.family == INET else frozenset({routing.SELF})


def _project_network(interface: Interface, address: Address) -> None:
    """Have Linux reach a shared address's network over the interface, as long as it has that route from a vhid only."""
    width = WIDTH[address.family]
    if address.prefix_length == width or not interface.link:
        return
    vnet, packed = interface.vnet, network(address.family, address.value, address.prefix_length)
    key = Key(address.family, with_scope(address.family, packed, interface), address.prefix_length)
    route = vnet.routes.get(key)
    owners = [each for owner, each in route.owners if owner is interface] if route is not None else []
    if any(each in interface.projected for each in owners):
        return  # Linux has it from an address of the interface's own
    if owners:
        vnet.namespace.set_route(key.packed, key.prefix_length, RTN_UNICAST, [Hop(interface.link)])
    elif route is None:
        vnet.namespace.delete_route(key.packed, key.prefix_length)


def _best_address(interface: Interface, family: int) -> bytes:
    """carp_best_ifa(), ifa_preferred(): the first that no vhid has, else a master's, else the first; or nobody's."""
    best: tuple[int, Address] | None = None
    for address in interface.addresses:
        if address.family != family:
            continue
        carp = of_address(interface, address)
        rank = 0 if carp is None else 1 if carp.state == MASTER else 2
        if best is None or rank < best[0]:
            best = rank, address
    return best[1].packed if best is not None else bytes(WIDTH[family] // 8)


def _send(wire: socket.socket, frame: bytes) -> bool:
    try:
        wire.send(frame)
    except OSError:
        return False
    return True


def _count(vnet: Vnet, what: str) -> None:
    vnet.carp_statistics[what] = vnet.carp_statistics.get(what, 0) + 1
