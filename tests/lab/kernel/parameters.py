"""jail(8)'s kernel parameters: which there are, of which kind, and what they are when nobody says otherwise.

Source: jail(8) "Jail Parameters", sys/kern/kern_jail.c (SYSCTL_JAIL_PARAM).
"""

from __future__ import annotations

import ipaddress

from tests.lab.kernel.errors import Errno, Refused

JAIL_SET = "jail_set: "  # what libjail puts before strerror(3) where the kernel gave no words (jailparam_set)
_ALLOW_OFF = ["chflags", "mlock", "nfsd", "quotas", "raw_sockets", "read_msgbuf", "socket_af", "sysvipc", "vmm"]
_MOUNT = ["devfs", "fdescfs", "fusefs", "linprocfs", "linsysfs", "nullfs", "procfs", "tmpfs", "zfs"]
_ALLOW_OFF += ["mount", *(f"mount.{each}" for each in _MOUNT)]
_ALLOW_ON = ["reserved_ports", "set_hostname", "suser", "unprivileged_proc_debug"]

BOOLEAN = (
    {"persist", "dying"} | {f"allow.{name}" for name in (*_ALLOW_OFF, *_ALLOW_ON)} | {"ip4.saddrsel", "ip6.saddrsel"}
)
JAILSYS = {
    "vnet": {"new", "inherit"},
    "host": {"new", "inherit"},
    "ip4": {"disable", "new", "inherit"},
    "ip6": {"disable", "new", "inherit"},
    "sysvmsg": {"disable", "new", "inherit"},
    "sysvsem": {"disable", "new", "inherit"},
    "sysvshm": {"disable", "new", "inherit"},
    "linux": {"new", "inherit"},
}
NUMBER = {"jid", "securelevel", "devfs_ruleset", "enforce_statfs", "children.max", "osreldate", "host.hostid"}
TEXT = {"name", "path", "host.hostname", "host.domainname", "host.hostuuid", "ip4.addr", "ip6.addr", "osrelease"}
WAYS = {"ip4": "ip4.addr", "ip6": "ip6.addr"}
ADDRESSES = set(WAYS.values())
READ_ONLY = {"dying", "parent", "children.cur", "cpuset.id"}
KNOWN = BOOLEAN | set(JAILSYS) | NUMBER | TEXT | READ_ONLY

#: What a new jail has.
DEFAULTS = (
    {f"allow.{name}": "false" for name in _ALLOW_OFF}
    | {f"allow.{name}": "true" for name in _ALLOW_ON}
    | {
        "persist": "false",
        "children.max": "0",
        "securelevel": "-1",
        "devfs_ruleset": "0",
        "enforce_statfs": "2",
        "host": "new",
        "host.domainname": "",
        "host.hostid": "0",
        "host.hostuuid": "00000000-0000-0000-0000-000000000000",
        "ip4": "inherit",  # of a vnet jail; see `restrictions`
        "ip4.addr": "",
        "ip4.saddrsel": "true",
        "ip6": "inherit",
        "ip6.addr": "",
        "ip6.saddrsel": "true",
        "osreldate": "1302001",
        "osrelease": "13.2-RELEASE",
        "linux": "new",
        "sysvmsg": "disable",
        "sysvsem": "disable",
        "sysvshm": "disable",
        "cpuset.id": "3",
    }
)


def positive(name: str) -> tuple[str, bool]:
    """A parameter's own name, and False where it was written with "no" (nopersist, allow.noraw_sockets)."""
    if name in KNOWN:
        return name, True
    head, dot, last = name.rpartition(".")
    if last.startswith("no") and head + dot + last[2:] in BOOLEAN:
        return head + dot + last[2:], False
    raise Refused(Errno.EINVAL, f"unknown parameter: {name}")


def canonical(given: dict[str, str]) -> dict[str, str]:
    """Parameters under their own names with values as jls(8) shows them; EINVAL with libjail's words otherwise."""
    found: dict[str, str] = {}
    for written, value in given.items():
        name, yes = positive(written)
        if name in READ_ONLY:
            raise Refused(Errno.EINVAL, f"{name}: read-only parameter")
        if name in BOOLEAN:
            if value not in ("", "true", "false", "1", "0"):
                raise Refused(Errno.EINVAL, f'{name}: unknown boolean value "{value}"')
            found[name] = "true" if (value in ("", "true", "1")) == yes else "false"
        elif name in JAILSYS:
            if value and value not in JAILSYS[name]:
                raise Refused(Errno.EINVAL, f'{name}: unknown jailsys value "{value}"')
            found[name] = value or "new"
        elif name in NUMBER:
            try:
                found[name] = str(int(value, 0))
            except ValueError:
                raise Refused(Errno.EINVAL, f'{name}: non-integer value "{value}"') from None
        elif name in ADDRESSES:
            found[name] = ",".join(_addresses(name, value))
        else:
            found[name] = value
    return found


def restrictions(given: dict[str, str], *, own_vnet: bool) -> dict[str, str]:
    """What *given* (canonical) makes of ip4, ip4.addr, ip6 and ip6.addr.

    Who has no vnet and says nothing has no addresses at all; a restricted jail says "disable" whether it has addresses
    or not, because the kernel has one flag for both (kern_jail.c: pr_flag_jailsys, kern_jail_set). Refused with EINVAL.
    """
    found: dict[str, str] = {}
    for way, name in WAYS.items():
        if own_vnet and (way in given or name in given):
            raise Refused(Errno.EINVAL, "vnet jails cannot have IP address restrictions")
        addresses = [each for each in given.get(name, "").split(",") if each]
        if len(set(addresses)) < len(addresses) or {"0.0.0.0", "255.255.255.255", "::"} & set(addresses):
            raise Refused(Errno.EINVAL, JAIL_SET + Errno.EINVAL.value)
        free = own_vnet or (name not in given and given.get(way) == "inherit")
        found[way] = "inherit" if free else "disable"
        first, rest = addresses[:1], addresses[1:]  # the first one is the primary one, the others are sorted
        found[name] = ",".join(first + sorted(rest, key=lambda each: int(ipaddress.ip_address(each))))
    return found


def _addresses(name: str, value: str) -> list[str]:
    family = "IPv4" if name == "ip4.addr" else "IPv6"
    parse = ipaddress.IPv4Address if family == "IPv4" else ipaddress.IPv6Address
    found = []
    for each in value.split(",") if value else []:
        try:
            found.append(str(parse(each)))
        except ValueError:
            raise Refused(Errno.EINVAL, f"{name}: not an {family} address: {each}") from None
    return found
