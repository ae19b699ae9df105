"""What a jail's file says about its checks: each [[check]] is one, judged without looking at the jail.

    [[check]]
    kind = "http"
    port = 8080
    path = "/healthz"
    status = [200, 204]

`unfold` turns them into single probes, one for each address that a check is about.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mobility.config import Health, Problem, _flag, _integer, _list, _one_of, _seconds, _Section, text

REACH, TCP, HTTP, HTTPS, EXEC = KINDS = ("reach", "tcp", "http", "https", "exec")
EACH = "each"
"""A check of each of the jail's addresses: all must pass."""
MAX_CHECKS = 32
"""Checks that one jail may have."""
_PORTS = {TCP: 0, HTTP: 80, HTTPS: 443}
_MAX_LINE = 1024
"""Characters of a path, a header, a word of a command."""


@dataclass(frozen=True, slots=True)
class Check:
    """One check of a jail. None: as [health] says, or as is usual for its kind. Times in seconds."""

    kind: str
    address: str = EACH
    enabled: bool = True
    interval: float | None = None
    timeout: float | None = None
    rise: int | None = None
    fall: int | None = None
    silence: str | None = None
    port: int = 0
    path: str = "/"
    host: str = ""
    """The Host header; "": the address, and the port where it is not the usual one."""
    status: tuple[int, ...] = (200,)
    contains: str = ""
    verify: bool = True
    server_name: str = ""
    """What the certificate must be for; "": the address."""
    command: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Probe:
    """One check of one address, with everything decided. `address` is "" for a command in the jail."""

    check: Check
    address: str
    interval: float
    timeout: float
    rise: int
    fall: int
    silence_is_good: bool

    @property
    def name(self) -> str:
        """What an operator calls it."""
        check = self.check
        if check.kind == EXEC:
            return f"exec {' '.join(check.command)}"
        if check.kind == REACH:
            return f"reach {self.address}"
        return f"{check.kind} port {check.port}{check.path if check.kind in (HTTP, HTTPS) else ''} at {self.address}"


INTERVAL, TIMEOUT, RISE, FALL = 10.0, 3.0, 1, 3
"""What is usual for every kind but reach, whose defaults stand in [health]."""


def unfold(checks: tuple[Check, ...], addresses: tuple[str, ...], health: Health) -> tuple[Probe, ...]:
    """Return the probes of a jail that has these addresses, the built-in ones first. Pure."""
    reach = next((check for check in checks if check.kind == REACH), None)
    if reach is None:
        reach = Check(REACH, enabled=health.reach)
    found = []
    for check in (reach, *(check for check in checks if check.kind != REACH)):
        if not check.enabled:
            continue
        built_in = check.kind == REACH
        about = addresses if check.address == EACH else (check.address,)
        for address in ("",) if check.kind == EXEC else about:
            probe = Probe(
                check,
                address,
                check.interval or (health.reach_every if built_in else INTERVAL),
                check.timeout or (health.reach_timeout if built_in else TIMEOUT),
                check.rise or (health.reach_rise if built_in else RISE),
                check.fall or (health.reach_fall if built_in else FALL),
                (check.silence or health.silence) == "ready",
            )
            found.append(probe)
    return tuple(found)


def _line(what: str, pattern: str) -> Any:
    def reader(value: Any) -> str:
        if not isinstance(value, str) or len(value) > _MAX_LINE or not re.fullmatch(pattern, value, re.ASCII):
            raise ValueError(what)
        return value

    return reader


# RFC 3986, section 3.3 and 3.4: what may stand in a path and a query; RFC 9110, section 7.2, for the Host header
_PATH = _line('must begin with "/" and be a path as it goes over the wire', r"/[!-~]*")
_HOST = _line("must be a host name, or an address in brackets, with or without a port", r"[A-Za-z0-9._:\[\]-]+")
_SERVER_NAME = _line("must be a host name, or an address", r"[A-Za-z0-9._:-]+")


def _address(value: Any) -> str:
    if value == EACH:
        return EACH
    try:
        return str(ipaddress.ip_address(text(value)))
    except ValueError as error:
        raise ValueError(f'must be "{EACH}", or one of the jail\'s addresses') from error


def _statuses(value: Any) -> tuple[int, ...]:
    found = _list(_integer(200, 599))(value)
    if not found:
        raise ValueError("must name a status at least: [200]")
    return found


def _contains(value: Any) -> str:
    if not isinstance(value, str) or not value or len(value) > _MAX_LINE:
        raise ValueError(f"must be a string of 1 to {_MAX_LINE} characters")
    return value


def _command(value: Any) -> tuple[str, ...]:
    remedy = 'must be a list of words that begins with a program\'s absolute path: ["/usr/bin/true"]'
    if not isinstance(value, list) or not value or len(value) > 64:
        raise ValueError(remedy)
    for word in value:
        if not isinstance(word, str) or len(word) > _MAX_LINE or "\0" in word:
            raise ValueError(remedy)
    if not value[0].startswith("/"):
        raise ValueError(remedy)
    return tuple(value)


def read(data: dict[str, Any], source: str, problems: list[Problem]) -> tuple[Check, ...]:
    """Return the checks of one file of jails.d ([[check]]); what is wrong with them is added to `problems`."""
    raw = data.get("check", [])
    if not isinstance(raw, list) or not all(isinstance(each, Mapping) for each in raw):
        problems.append(Problem(f"{source}: check", None, "must be tables: write each as [[check]]"))
        return ()
    if len(raw) > MAX_CHECKS:
        problems.append(Problem(f"{source}: check", None, f"a jail may have {MAX_CHECKS} checks"))
        return ()
    given = data.get("addresses")
    known = {str(each).partition("/")[0] for each in given} if isinstance(given, list) else set()
    checks: list[Check] = []
    for index, table in enumerate(raw):
        where = f"{source}: check[{index}]"
        check = _one(where, table, problems)
        if check is None:
            continue
        if check.kind == REACH and any(other.kind == REACH for other in checks):
            problems.append(Problem(f"{where}.kind", REACH, "is here twice: a jail has one"))
        elif check in checks:
            problems.append(Problem(where, None, "is here twice"))
        elif known and check.address != EACH and check.address not in {_canonical(each) for each in known}:
            problems.append(Problem(f"{where}.address", check.address, "is none of this jail's addresses"))
        else:
            checks.append(check)
    return tuple(checks)


def _canonical(address: str) -> str:
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        return address  # another reader says what is wrong with it


def _one(where: str, table: Mapping[str, Any], problems: list[Problem]) -> Check | None:
    before = len(problems)
    section = _Section(where, table, problems)
    kind = section.take("kind", _one_of(*KINDS), "", required=True)
    if not kind:
        return None
    times: dict[str, Any] = {
        "interval": section.take("interval", _seconds(0.5, 3600)),
        "timeout": section.take("timeout", _seconds(0.05, 30)),
        "rise": section.take("rise", _integer(1, 100)),
        "fall": section.take("fall", _integer(1, 100)),
    }
    more: dict[str, Any] = {}
    if kind == EXEC:
        more["command"] = section.take("command", _command, required=True)
    else:
        more["address"] = section.take("address", _address, EACH)
    if kind == REACH:
        more["enabled"] = section.take("enabled", _flag, True)
        more["silence"] = section.take("silence", _one_of("ready", "unready"))
    if kind in _PORTS:
        more["port"] = section.take("port", _integer(1, 65535), _PORTS[kind], required=kind == TCP)
    if kind in (HTTP, HTTPS):
        more["path"] = section.take("path", _PATH, "/")
        more["host"] = section.take("host", _HOST, "")
        more["status"] = section.take("status", _statuses) or (200,)
        more["contains"] = section.take("contains", _contains, "")
    if kind == HTTPS:
        more["verify"] = section.take("verify", _flag, True)
        more["server_name"] = section.take("server_name", _SERVER_NAME, "")
    section.finish()
    return Check(kind, **times, **more) if len(problems) == before else None
