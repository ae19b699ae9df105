"""What iocage keeps of its jails: jails/NAME/config.json over defaults.json, both root's on the host.

Source: iocage 1.2 (github.com/iocage/iocage at cbf0f60), whose functions are named where they matter. A jail's name is
its folder's; jail(8) knows it as "ioc-NAME" (ioc_start.py, __start_jail__). Templates are not run, and a jail of the old
kinds (UCL, ZFS properties) gets its config.json with the first command of iocage (ioc_json.py, json_load).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mobility.jails import rcnet
from mobility.jails.said import Ends, Said, Signature, file_signature, read_managers, stat_beneath
from mobility.model import jail_name

CONFIG, DEFAULTS = "config.json", "defaults.json"
PREFIX = "ioc-"
NONE = "none"
WAY = "mobility_way"
"""Our own property: by it we know that our hooks are installed. iocage keeps what it does not know (json_load, json_write)."""
REPLACE = "replace"
"""What stands there when iocage's own interface makes way for ours."""
MAKING = ("ip4_addr", "ip6_addr", "dhcp", "rtsold")
"""The properties that decide whether iocage makes an interface (start_network_interface_vnet, __check_rtsold__)."""
ADDRESSES = ("ip4_addr", "ip6_addr")
_TRUE = ("1", "on", "yes", "true")  # ioc_common.py, truthy_values
_BUILT_IN: Mapping[str, Any] = {  # ioc_json.py, retrieve_default_props: what defaults.json begins as
    "assign_localhost": 0,
    "defaultrouter": "auto",
    "defaultrouter6": "auto",
    "dhcp": 0,
    "exec_created": "/usr/bin/true",
    "exec_fib": "0",
    "exec_poststart": "/usr/bin/true",
    "exec_poststop": "/usr/bin/true",
    "exec_prestart": "/usr/bin/true",
    "exec_prestop": "/usr/bin/true",
    "interfaces": "vnet0:bridge0",
    "ip4": "new",
    "ip4_addr": NONE,
    "ip6": "new",
    "ip6_addr": NONE,
    "ip_hostname": 0,
    "nat": 0,
    "rtsold": 0,
    "vnet": 0,
    "vnet_default_interface": "auto",
}
_FULL = {"ip4_addr": "32", "ip6_addr": "128"}
_ROUTERS = {"ip4_addr": "defaultrouter", "ip6_addr": "defaultrouter6"}


@dataclass(frozen=True, slots=True)
class Properties:
    """A jail's properties: its `own` over what it inherits, as iocage puts them together (get_full_config)."""

    own: Mapping[str, Any]
    inherited: Mapping[str, Any]

    def text(self, name: str) -> str:
        """Return a property's text, "" for one that nobody sets."""
        value = self.own.get(name, self.inherited.get(name))
        return "" if value is None else str(value)

    def true(self, name: str) -> bool:
        """Tell whether a property is on (ioc_common.py, check_truthy)."""
        return self.text(name).lower() in _TRUE

    @property
    def dhcp(self) -> bool:
        """Whether iocage has the jail ask a DHCP server (start_network_interface_vnet)."""
        return self.true("dhcp") or "DHCP" in self.text("ip4_addr").upper()

    @property
    def accepts_rtadv(self) -> bool:
        """Whether the jail is to take its IPv6 addresses from router advertisements."""
        return "accept_rtadv" in self.text("ip6_addr").lower()

    def addresses(self, name: str) -> list[tuple[str, str, str]]:
        """Return interface, address and what stands behind its slash, of each in ip4_addr or ip6_addr; "" where nothing stands.

        Written as "vnet0|192.0.2.7/32", without interface or mask, several with commas between (json_check_prop).
        """
        found = []
        for item in self.text(name).split(","):
            interface, _, text = item.strip().rpartition("|")
            address, _, mask = text.strip().partition("/")
            if address and address.lower() not in (NONE, "dhcp", "accept_rtadv"):
                found.append((interface.strip(), address, mask))
        return found

    @property
    def inner(self) -> tuple[str, ...]:
        """The names that the jail's end of the first interface may have in the jail."""
        return _inner(self.text("interfaces").partition(":")[0])

    def ends(self) -> tuple[Ends, ...]:
        """Return the pairs that iocage makes for the jail: one for each of `interfaces` that has an address.

        The outer end is NIC.JID; the inner one of "vnet0" is "epair0b", and was "vnet0" in older releases
        (start_network_interface_vnet, start_network_vnet_iface).
        """
        if not self.true("vnet"):
            return ()
        nics = [nic.partition(":")[0] for nic in self.text("interfaces").split(",")]
        items = [item for name in ADDRESSES for item in self.text(name).split(",") if item not in ("", NONE)]
        used = {item.partition("|")[0] if "|" in item else "vnet0" for item in items}
        if self.true("nat"):
            used.add("vnet0")
        return tuple(Ends(f"{nic}.{{jid}}", _inner(nic)) for nic in nics if nic in used or self.dhcp)


def _inner(nic: str) -> tuple[str, ...]:
    return (f"{nic.replace('vnet', 'epair')}b", nic) if "vnet" in nic else (nic,)


def parse(text: str) -> dict[str, Any]:
    """Return the properties in a config.json or defaults.json. Raises ValueError with the reason where it is none."""
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise ValueError("holds no properties: iocage writes a JSON object")
    try:
        json.dumps(found, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ValueError("holds what is no Unicode text: iocage could not write it again") from error
    return found


def inherited(root: Path) -> dict[str, Any]:
    """Return what jails inherit: defaults.json, over iocage's own defaults. ValueError where it can not be used."""
    try:
        own = load(root / DEFAULTS)
    except FileNotFoundError:
        own = {}
    return {**_BUILT_IN, **own}


def load(path: Path) -> dict[str, Any]:
    """Return the properties in a file of iocage's. ValueError, naming it, where it can not be used, FileNotFoundError."""
    text = read_managers(path)
    try:
        return parse(text)
    except ValueError as error:
        raise ValueError(f"{path} {error}") from error


class Iocage:
    """The jails of an iocage whose dataset POOL/iocage is mounted at `root`. See `said.Manager`."""

    name = "iocage"

    def __init__(self, root: Path) -> None:
        self._root = root

    def names(self) -> list[str]:
        """Return jail(8)'s names of all jails that have a config.json; none where iocage's folder is not there.

        Folders whose names hold a dot are not among them: jail(8) would know them by another name.
        """
        try:
            entries = sorted(entry.name for entry in (self._root / "jails").iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return []
        return [f"{PREFIX}{name}" for name in entries if not unfit(name) and self._config(name).is_file()]

    def faults(self) -> list[str]:
        """Return none: each jail has a file of its own, whose faults are the jail's."""
        return []

    def signature(self, jail: str, *, requests: bool) -> Signature:
        """Return what changes whenever `read` could answer something else; () where there is no such jail."""
        folder = _folder(jail)
        config = file_signature(self._config(folder)) if folder else ()
        if not config:
            return ()
        asked = stat_beneath(self._rooted(folder), rcnet.RC_CONF) if requests else ()
        return (*config, 0, *file_signature(self._root / DEFAULTS), 0, *asked)

    def read(self, jail: str, *, requests: bool) -> Said | None:
        """Return what a jail's files say. Raises ValueError with a sentence for the operator. See `said.Manager`."""
        folder = _folder(jail)
        path = self._config(folder)
        if not folder:
            return None
        try:
            properties = Properties(load(path), inherited(self._root))
        except FileNotFoundError:
            return None
        addresses = [
            address
            for name in ADDRESSES
            if not (name == "ip4_addr" and properties.true("nat"))  # made up by iocage at each start
            for _, address, _ in properties.addresses(name)
        ]
        vnet = properties.true("vnet")
        replaced = properties.own.get(WAY) == REPLACE
        ends = () if replaced else properties.ends()
        advice = [*_of_hooks(jail, folder, properties)]
        advice += _of_vnet(folder, properties) if vnet else _on_host(folder, properties)
        rc, unread = rcnet.rc_conf(self._rooted(folder)) if requests and vnet else (None, [])
        asked: list[str] = []
        if rc is not None:
            inner = properties.inner
            named = rcnet.named(inner[0], rc)
            sysrc = f"sysrc -R {self._rooted(folder)}"
            asked, more = rcnet.asked(named or inner[0], rc, sysrc=sysrc, replaced=replaced)
            unread += more
            if named and ends:
                ends = (replace(ends[0], inner=(named, *ends[0].inner)), *ends[1:])
        return Said(
            jail,
            self.name,
            str(path),
            vnet,
            tuple(dict.fromkeys(addresses)),
            tuple(asked),
            ends,
            (*advice, *unread),
            hooks=bool(properties.own.get(WAY)),
        )

    def _config(self, folder: str) -> Path:
        return self._root / "jails" / folder / CONFIG

    def _rooted(self, folder: str) -> Path:
        return self._root / "jails" / folder / "root"


def unfit(name: str) -> str:
    """Return why a jail of iocage's can not be handled by its name, with what to do; "" where it can."""
    try:
        jail_name(PREFIX + name)
    except ValueError:
        return (
            f"jail {name}: its name is not handled: rename it to up to {63 - len(PREFIX)} letters, digits, '_' and '-'"
        )
    if "." in name:
        return (
            f"jail {name}: jail(8) takes no dot in a name, iocage runs it as {PREFIX}{name.replace('.', '_')}: "
            f"iocage rename {name} {name.replace('.', '_')}"
        )
    return ""


def _folder(jail: str) -> str:
    name = jail.removeprefix(PREFIX)
    return name if name != jail and not unfit(name) else ""


def _of_hooks(jail: str, name: str, properties: Properties) -> Iterator[str]:
    """Tell when a jail's properties are no longer as our hooks need them."""
    again = f"mobility hooks install iocage {name}"
    if properties.own.get(WAY) and f"'{jail}'" not in properties.text("exec_poststart"):
        yield f"its hooks name another jail, as `iocage rename` leaves them: {again}"
    if properties.own.get(WAY) == REPLACE and properties.ends():
        yield f"iocage makes an interface of its own again, beside ours, with its next start: iocage stop {name}, {again}"


def _of_vnet(name: str, properties: Properties) -> Iterator[str]:
    """Advice for a jail with a network of its own."""
    set_ = "iocage set"
    if properties.true("nat"):
        yield (
            "iocage makes up an address behind the host's own (nat=1), and that can not follow the jail: "
            f"{set_} nat=0 ip4_addr=none {name}, and give it an address of its own"
        )
    elif properties.dhcp:
        yield (
            "its IPv4 address would be a DHCP server's to choose, and none is on the link: iocage stops a jail that got "
            f"none: {set_} dhcp=0 {name}, and {set_} ip4_addr='vnet0|ADDRESS/32' {name}"
        )
    if properties.accepts_rtadv:
        yield (
            "it takes IPv6 addresses and default routes from router advertisements, and none come on the link: "
            f"{set_} rtsold=0 {name}, and {set_} ip6_addr='vnet0|ADDRESS/128' {name}"
        )
    if properties.text("exec_fib") not in ("", "0"):
        yield (
            f"its processes use the routing table {properties.text('exec_fib')} (exec_fib), and the default routes stand "
            f"in table 0: {set_} exec_fib=0 {name}"
        )
    if not properties.ends() or properties.true("nat") or properties.own.get(WAY) == REPLACE:
        return
    if len(properties.ends()) > 1:
        nics = ", ".join(end.outer.partition(".")[0] for end in properties.ends())
        yield f"iocage makes it several interfaces ({nics}), and mobility serves the first one only"
    for addresses, full in _FULL.items():
        router = _ROUTERS[addresses]
        found = properties.addresses(addresses)
        if found and properties.text(router) != NONE:
            yield (
                f"iocage adds its default route over a router on the bridge ({router}={properties.text(router)}), and stops "
                f"a jail where that fails, as it does where the host's own default route is over the other family: "
                f"{set_} {router}=none {name}"
            )
        for interface, address, mask in found:
            if mask != full:
                what = f"{address}/{mask}" if mask else f"{address} without a prefix length"
                yield (
                    f"{what} puts a whole network on the link, and the jail would look for the rest of it there until the "
                    f"agent has put {address}/{full} in its place: {set_} "
                    f"{addresses}='{interface or 'vnet0'}|{address}/{full}' {name}"
                )
    if properties.text("vnet_default_interface") != NONE:
        yield (
            "iocage puts an interface of the host, as a rule its uplink, into the jail's bridge with every start "
            f"(vnet_default_interface={properties.text('vnet_default_interface')}): "
            f"{set_} vnet_default_interface=none {name}"
        )


def _on_host(name: str, properties: Properties) -> Iterator[str]:
    """Advice for a jail whose addresses jail(8) puts on an interface of the host (check_aliases)."""
    for family, addresses in (("ip4", "ip4_addr"), ("ip6", "ip6_addr")):
        full = _FULL[addresses]
        if properties.text(family) == "inherit" or properties.true("ip_hostname"):
            yield (
                f"it shares the host's {'IPv4' if family == 'ip4' else 'IPv6'} addresses, and those never move: "
                f"iocage set {family}=new {name}, iocage set {addresses}='lo1|ADDRESS/{full}' {name}"
            )
        for interface, address, mask in properties.addresses(addresses):
            where = interface if interface not in ("", "DEFAULT") else ""
            if not where:
                yield (
                    f"{address} goes onto the interface of the host's default route, where neighbours are asked for it: "
                    f"iocage set {addresses}='lo1|{address}/{full}' {name}"
                )
            elif mask not in ("", full):
                yield (
                    f"{address}/{mask} lays the whole network on the host's {where}, and the host would look for its other "
                    f"addresses there: iocage set {addresses}='{where}|{address}/{full}' {name}"
                )
