"""The machine: its jails and their vnets. What jail_set(2), jail_remove(2) and the SIOC*VNET ioctls do on FreeBSD 13.2.

A jail without a vnet is in its parent's network namespace. What the kernel answers of its addresses is FreeBSD's
(parameters, conflicts, what ifconfig(8) shows and refuses in it), but Linux lets its processes bind and use any address.

Sources: sys/kern/kern_jail.c, lib/libjail/jail.c, sys/net/if.c (if_vmove*), jail(8), and the transcripts
freebsd-13.2/2-vnet.txt, 5-jail.txt (names) and 14-dying.txt.
"""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Callable
from pathlib import Path

from tests.lab.kernel import carp, devctl, interfaces
from tests.lab.kernel.carp import Carps
from tests.lab.kernel.devctl import Devd
from tests.lab.kernel.errors import Errno, Refused
from tests.lab.kernel.linux import TCP_IDLE, Ground
from tests.lab.kernel.parameters import ADDRESSES, DEFAULTS, JAIL_SET, WAYS, canonical, restrictions
from tests.lab.kernel.releases import DEFAULT, Release
from tests.lab.kernel.state import INET, LOOPBACK4, Address, Interface, Jail, Vnet
from tests.lab.kernel.sysctls import vnet_defaults

#: How long a jail with open TCP connections keeps its interfaces: "more than a minute" (14-dying.txt), which is
#: 2 * net.inet.tcp.msl, and what its last segments are sent again for.
DYING_SECONDS = 120.0
FIRST_LINK = 1000  # Linux's interface numbers are unique in the whole lab, so that a move between vnets keeps them
MAXHOSTNAMELEN = 256


class Machine:
    """One FreeBSD machine: jail 0 and everything below it.

    *ground* makes namespaces; *kill* ends the processes in jails, given the inode numbers of their UTS namespaces, and
    returns when they are gone; *clock* is monotonic, in seconds. *programs* is LABDIR/bin, *python* how to run one of
    them. *kernel* is the FreeBSD that it plays. *devd* is LABDIR, for what devd(8) would make; None: there is no devd.
    """

    def __init__(
        self,
        ground: Ground,
        *,
        kill: Callable[[set[int]], object] = lambda _inodes: None,
        clock: Callable[[], float] = time.monotonic,
        boot_id: bytes = bytes(16),
        boot_time: float = 0.0,
        programs: Path = Path(),
        python: tuple[str, ...] = (),
        kernel: Release = DEFAULT,
        devd: Path | None = None,
    ) -> None:
        self.ground = ground
        self.kernel = kernel
        self.boot_id = boot_id
        self.boot_time = boot_time
        self.programs = programs
        self.python = python
        self.epairs: list[Interface] = []
        self._kill = kill
        self._clock = clock
        self._numbers = 0
        self._links = itertools.count(FIRST_LINK)
        self._last_jid = 0
        self.made: list[int] = []  # inode numbers of all namespaces made
        self.devds: dict[int, Devd] = {}  # by the jids of the machine and its hosts
        self.on_devd: Callable[[Devd], None] = lambda _devd: None  # told of each that begins to listen,
        self.off_devd: Callable[[Devd], None] = lambda _devd: None  # and before it ends
        self._devd = devd
        self.carps = Carps(clock, self.notify)
        self.carps.vnets = self.vnets
        vnet = self.new_vnet()
        uts, inode = ground.uts("lab")
        self.made += [vnet.namespace.inode, inode]
        self.root = Jail(0, "0", None, "/", "lab", vnet, own_vnet=True, uts=uts, uts_inode=inode)
        self.root.parameters["children.max"] = "999999"
        self._start_devd(self.root)
        for each in vnet.interfaces:
            self.notify(vnet, "IFNET", each.name, "ATTACH")
        loopback = vnet.interfaces[0]
        interfaces.set_up(loopback, up=True)
        self.notify(vnet, "IFNET", loopback.name, "LINK_UP")
        interfaces.add_address(loopback, Address(INET, LOOPBACK4, 8))

    # numbers

    def next_number(self) -> int:
        """A number that grows."""
        self._numbers += 1
        return self._numbers

    def new_vnet(self) -> Vnet:
        """A vnet with the interfaces that each has, all of them down."""
        vnet = Vnet(self.ground.vnet(), self._links, self.carps, self.kernel, sysctls=vnet_defaults(self.kernel))
        interfaces.populate(self, vnet)
        return vnet

    def vnets(self) -> list[Vnet]:
        """Every vnet, the machine's first."""
        return list({id(jail.vnet): jail.vnet for jail in self.jails()}.values())

    # devd(8)

    def notify(self, vnet: Vnet, system: str, subsystem: str, kind: str) -> None:
        """devctl_notify(9): tell the devd of each host concerned (see devctl.py)."""
        if not self.devds:
            return
        event = devctl.line(system, subsystem, kind)
        for jail in [self.root, *self.root.children]:
            devd = self.devds.get(jail.jid)
            if devd is not None and (
                any(each.vnet is vnet for each in jail.family()) if system == "CARP" else jail.vnet is vnet
            ):
                devd.tell(event)

    def devd_of(self, jail: Jail) -> Devd:
        """The devd of the host that a jail is, or is in: a vnet jail of the machine's, else the machine. ENOENT without."""
        while jail.parent is not None and jail.jid not in self.devds:
            jail = jail.parent
        devd = self.devds.get(jail.jid)
        if devd is None:
            raise Refused(Errno.ENOENT)
        return devd

    def boot_of(self, jail: Jail) -> bytes:
        """kern.boot_id there. A lab host is a jail of the machine's: it is switched off and on when it is made anew."""
        while jail.parent is not None and jail.jid not in self.devds:
            jail = jail.parent
        if jail.parent is None:
            return self.boot_id
        return hashlib.sha256(self.boot_id + str(jail.jid).encode()).digest()[: len(self.boot_id)]

    def _start_devd(self, jail: Jail) -> None:
        if self._devd is None:
            return
        name = jail.name if jail.name != "" and "/" not in jail.name else str(jail.jid)
        fifo = self._devd / devctl.FIFO if jail is self.root else None
        devd = Devd(self._devd / devctl.FOLDER / name[:64], fifo)
        self.devds[jail.jid] = devd
        devd.start()
        self.on_devd(devd)

    def _end_devd(self, jail: Jail) -> None:
        devd = self.devds.pop(jail.jid, None)
        if devd is not None:
            self.off_devd(devd)
            devd.close()

    # jails

    def jails(self) -> list[Jail]:
        """Every jail, the machine itself (jid 0) first."""
        return self.root.family()

    def visible(self, caller: Jail, *, dying: bool = False) -> list[Jail]:
        """The jails below *caller*, by jid, as jls(8) lists them."""
        below = sorted(caller.family()[1:], key=lambda jail: jail.jid)
        return [jail for jail in below if dying or not jail.dying]

    def find(self, caller: Jail, name: str, *, dying: bool = False) -> Jail:
        """The jail that *caller* calls by this name or number; ENOENT with libjail's words."""
        jails = self.visible(caller, dying=dying)
        if name.isdecimal() and int(name) > 0:
            for jail in jails:
                if jail.jid == int(name):
                    return jail
            raise Refused(Errno.ENOENT, f"jail {int(name)} not found")
        for jail in sorted(jails, key=lambda each: each.dying):  # prison_find_name(): a living one before a dying one
            if jail.full_name(caller) == name:
                return jail
        raise Refused(Errno.ENOENT, f'jail "{name}" not found')

    def create(self, caller: Jail, given: dict[str, str]) -> Jail:
        """jail_set(2) with JAIL_CREATE: a new jail below *caller*, from jail(8)'s parameters."""
        parameters = canonical(given)
        name = parameters.pop("name", "")
        jid = int(parameters.pop("jid", "0") or 0)
        parent, leaf = self._parent_of(caller, name)
        if leaf.isdecimal():
            number = int(leaf)
            if jid not in (0, number):
                raise Refused(Errno.EINVAL, "name cannot be numeric (unless it is the jid)")
            jid, leaf = number, str(number)
        if leaf and any(each.name == leaf and not each.dying for each in parent.children):
            raise Refused(Errno.EEXIST, f'jail "{name}" already exists')
        if jid and any(each.jid == jid for each in self.jails()):
            raise Refused(Errno.EEXIST, f"jail {jid} already exists")
        self._count_children(parent)
        path = parameters.pop("path", "/") or "/"
        hostname = parameters.pop("host.hostname", "")
        if len(hostname) >= MAXHOSTNAMELEN:
            raise Refused(Errno.ENAMETOOLONG)
        own_vnet = parameters.pop("vnet", "inherit") == "new"
        parameters |= restrictions(parameters, own_vnet=own_vnet)
        for name in ADDRESSES:
            self._judge_addresses(parent, None, name, parameters[name])
        if not jid:
            taken = {each.jid for each in self.jails()}
            self._last_jid += 1
            while self._last_jid in taken:
                self._last_jid += 1
            jid = self._last_jid
        vnet = self.new_vnet() if own_vnet else parent.vnet
        uts, inode = self.ground.uts(hostname)
        self.made += [vnet.namespace.inode, inode] if own_vnet else [inode]
        jail = Jail(jid, leaf or str(jid), parent, path, hostname, vnet, own_vnet, uts, inode)
        release = {"osrelease": self.kernel.osrelease, "osreldate": str(self.kernel.osreldate)}
        jail.parameters = DEFAULTS | release | parameters
        parent.children.append(jail)
        if own_vnet and parent is self.root and int(jail.parameters["children.max"]):
            self._start_devd(jail)
        return jail

    def change(self, jail: Jail, given: dict[str, str]) -> None:
        """jail_set(2) with JAIL_UPDATE."""
        parameters = canonical(given)
        for fixed in ("path", "vnet"):
            current = jail.path if fixed == "path" else ("new" if jail.own_vnet else "inherit")
            if fixed in parameters and parameters.pop(fixed) != current:
                raise Refused(Errno.EINVAL, f"{fixed} cannot be changed after creation")
        parameters.pop("jid", None)
        if parameters.keys() & (WAYS.keys() | ADDRESSES):
            restricted = restrictions(parameters, own_vnet=jail.own_vnet)
            for way, addresses in WAYS.items():
                if parameters.keys() & {way, addresses}:
                    self._judge_addresses(jail.parent, jail, addresses, restricted[addresses])
                    parameters |= {way: restricted[way], addresses: restricted[addresses]}
        name = parameters.pop("name", jail.name)
        leaf = name.rpartition(".")[2]
        if leaf != jail.name and jail.parent is not None:
            if any(each.name == leaf for each in jail.parent.children):
                raise Refused(Errno.EEXIST, f'jail "{leaf}" already exists')
            jail.name = leaf
        hostname = parameters.pop("host.hostname", jail.hostname)
        if hostname != jail.hostname:
            jail.hostname = hostname
            self.ground.set_hostname(jail.uts, hostname)
        jail.parameters.update(parameters)

    def remove(self, jail: Jail) -> None:
        """jail_remove(2): its processes and those of its children are killed, its interfaces come home.

        With TCP connections open it is *dying* instead: hidden, and its interfaces stay where they are (14-dying.txt).
        """
        if jail.dying:
            return
        family = jail.family()
        connected = {each.jid for each in family if not each.dying and self._connected(each)}
        self._kill({each.uts_inode for each in family})
        for each in family:
            self._end_devd(each)  # a process like any other, also where the jail is dying
        for each in reversed(family):
            if each.jid in connected or any(child.dying for child in each.children):
                each.dying_until = self._clock() + DYING_SECONDS
            else:
                self._bury(each)

    def next_death(self) -> float | None:
        """When (by the clock) the next dying jail is to be buried, or None."""
        return min((each.dying_until for each in self.jails() if each.dying_until is not None), default=None)

    def next_work(self) -> float | None:
        """When (by the clock) there is anything to do unasked, or None."""
        return min((each for each in (self.next_death(), self.carps.due()) if each is not None), default=None)

    def bury_the_dead(self) -> None:
        """Let go of the dying jails whose time has come."""
        now = self._clock()
        for jail in reversed(self.jails()):
            if jail.dying_until is not None and jail.dying_until <= now and not jail.children:
                self._bury(jail)

    def parameters(self, jail: Jail, seen_from: Jail) -> dict[str, str]:
        """A jail's parameters as text, as jls(8) shows them."""
        return jail.parameters | {
            "jid": str(jail.jid),
            "name": jail.full_name(seen_from),
            "path": jail.path,
            "host.hostname": jail.hostname,
            "vnet": "new" if jail.own_vnet else "inherit",
            "dying": "true" if jail.dying else "false",
            "parent": "0" if jail.parent in (None, seen_from) or jail.parent is None else str(jail.parent.jid),
            "children.cur": str(len(jail.family()) - 1),
        }

    # interfaces between vnets

    def move_in(self, caller: Jail, name: str, jail: Jail) -> None:
        """`ifconfig IF vnet JAIL` (SIOCSIFVNET): ENXIO without the interface, EEXIST where the name is taken."""
        interface = caller.vnet.interface(name)
        if interface is None:
            raise Refused(Errno.ENXIO)
        if jail.vnet is caller.vnet or jail.vnet.interface(name) is not None:
            raise Refused(Errno.EEXIST)
        if interface.driver not in ("epair", "lo") or interface is caller.vnet.interfaces[0]:
            raise Refused(Errno.EINVAL)
        interfaces.move(self, interface, jail.vnet)

    def move_out(self, caller: Jail, name: str, jail: Jail) -> None:
        """`ifconfig IF -vnet JAIL` (SIOCSIFRVNET)."""
        interface = jail.vnet.interface(name)
        if interface is None or jail.vnet is caller.vnet:
            raise Refused(Errno.ENXIO)
        if caller.vnet.interface(name) is not None:
            raise Refused(Errno.EEXIST)
        interfaces.move(self, interface, caller.vnet)

    def close(self) -> None:
        """Let go of every namespace."""
        for vnet in self.vnets():
            for interface in vnet.interfaces:
                carp.unplug(interface)
            vnet.namespace.close()
        for devd in self.devds.values():
            devd.close()
        self.devds.clear()

    # the inside

    def _parent_of(self, caller: Jail, name: str) -> tuple[Jail, str]:
        head, dot, leaf = name.rpartition(".")
        if not dot:
            return caller, name
        return self.find(caller, head), leaf

    def _count_children(self, parent: Jail) -> None:
        jail: Jail | None = parent
        while jail is not None:
            if len(jail.family()) - 1 >= int(jail.parameters.get("children.max", "0")):
                if jail.parameters.get("children.max", "0") == "0":
                    raise Refused(Errno.EPERM, JAIL_SET + Errno.EPERM.value)
                raise Refused(Errno.EAGAIN, "prison limit exceeded")
            jail = jail.parent

    def _judge_addresses(self, parent: Jail | None, jail: Jail | None, name: str, text: str) -> None:
        """Refuse what the parent does not have (EPERM), and an address that another jail of this vnet has (EADDRINUSE).

        Two jails may share an address that is the only one of both (kern_jail_set, "conflicting IP addresses").
        """
        wanted = set(text.split(",")) - {""}
        if parent is None or not wanted:
            return
        if parent.restricted(name) and not wanted <= parent.addresses(name):
            raise Refused(Errno.EPERM, JAIL_SET + Errno.EPERM.value)
        for other in self.jails():
            if other is jail or other.own_vnet or other.dying or other.vnet is not parent.vnet or other is parent:
                continue
            theirs = other.addresses(name)
            if theirs & wanted and len(theirs | wanted) > 1:
                raise Refused(Errno.EADDRINUSE, JAIL_SET + Errno.EADDRINUSE.value)

    def _connected(self, jail: Jail) -> bool:
        """Whether connections would keep a jail alive: those of its vnet, or on its addresses in the host's."""
        mine = None if jail.own_vnet else jail.addresses("ip4.addr") | jail.addresses("ip6.addr")
        return any(
            state not in TCP_IDLE and (mine is None or local.rpartition(".")[0] in mine)
            for _family, local, _remote, state, _receive, _send in (jail.vnet.namespace.tcp() if mine != set() else ())
        )

    def _bury(self, jail: Jail) -> None:
        if jail.parent is not None:
            jail.parent.children.remove(jail)
        if jail.own_vnet:
            for interface in list(jail.vnet.interfaces):
                if interface not in jail.vnet.interfaces:
                    continue  # the other end of a pair that just went
                if interface.driver == "epair" and interface.home is jail.vnet:
                    interfaces.destroy(self, interface)
                elif interface.home is not jail.vnet:
                    interfaces.abandon(interface)
                    interfaces.move(self, interface, interface.home)
            for interface in [each for each in self.epairs if each.home is jail.vnet]:
                if interface in self.epairs:
                    interfaces.destroy(self, interface)  # made here, lent to somebody else
            for interface in jail.vnet.interfaces:
                carp.release(interface)
            jail.vnet.namespace.close()
        self._end_devd(jail)
        self.ground.close_uts(jail.uts)
