"""Answers as an agent gives them, made up: hosts, jails, and one jail's whole story."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

NOW = 1795276800.0
"""2026-11-21 16:00:00 UTC."""


def host(**more: Any) -> dict[str, Any]:
    """Return what `status` says of a host."""
    described: dict[str, Any] = {
        "name": "a",
        "pid": 4282,
        "bridge": True,
        "sessions": [{"peer": "spine", "state": "up"}],
        "drained": [],
        "problems": [],
        "uplinks": None,
        "failover": None,
    }
    return described | more


def jail(name: str = "web1", **more: Any) -> dict[str, Any]:
    """Return what `status` says of a jail: one that is announced as it should be."""
    texts = ["198.51.100.7", "2001:db8:7::7"]
    described: dict[str, Any] = {
        "name": name,
        "addresses": texts,
        "running": True,
        "jid": 5,
        "wired": True,
        "ready": True,
        "announced": True,
        "since": NOW - 60,
        "stand": "announced",
        "reason": "",
        "refused": [],
        "blind": "",
        "how": "next-hop",
        "adopted": "",
        "services": [],
        "routes": {text: {"spine": "announced"} for text in texts},
        "ownership": "held",
        "sequence": 29921279,
        "owner": "10.0.0.1",
        "handing": False,
        "frozen": False,
        "shown_older": [],
        "checks": [],
        "silent": [],
        "penalty": 0.0,
        "failover": None,
    }
    return described | more


def stopped(name: str = "web1", **more: Any) -> dict[str, Any]:
    """Return what `status` says of a jail that does not run."""
    away: dict[str, Any] = {
        "running": False,
        "jid": None,
        "wired": False,
        "ready": False,
        "announced": False,
        "since": None,
        "stand": "absent",
        "reason": "does not run",
        "routes": {},
        "ownership": "",
        "sequence": None,
    }
    return jail(name, **away | more)


def dark(name: str = "web1", **more: Any) -> dict[str, Any]:
    """Return what `status` says of a jail that runs, wired, and is not announced."""
    routes = {text: {"spine": "not announced"} for text in ("198.51.100.7", "2001:db8:7::7")}
    away: dict[str, Any] = {"announced": False, "ready": False, "stand": "wired", "routes": routes, "reason": "is dark"}
    return jail(name, **away | more)


def check(name: str = "reach 198.51.100.7", **more: Any) -> dict[str, Any]:
    """Return how a check stands: one that passes."""
    described: dict[str, Any] = {
        "check": name,
        "kind": name.partition(" ")[0],
        "address": "198.51.100.7",
        "ready": True,
        "state": "answered",
        "said": "answered",
        "at": NOW - 7,
        "runs": 12,
        "failures": 0,
        "streak": 0,
        "rise": 1,
        "fall": 3,
        "interval": 30.0,
        "timeout": 0.5,
    }
    return described | more


def many(count: int) -> list[dict[str, Any]]:
    """Return so many jails of one host, one in ten of which is not as it should be."""
    kinds: list[Callable[[str], dict[str, Any]]] = [
        lambda name: dark(name, reason="suppressed: its routes came and went too often (penalty 7012)", penalty=7012.0),
        stopped,
        lambda name: dark(name, reason="reach 198.51.100.7: silent", checks=[check(ready=False)]),
        lambda name: dark(name, ownership="lost", reason="10.0.0.2 has claimed it"),
    ]
    return [
        (kinds[number // 10 % len(kinds)] if number % 10 == 0 else jail)(f"web{number:05d}") for number in range(count)
    ]


def story(*, jail: dict[str, Any], **more: dict[str, Any] | Any) -> dict[str, Any]:
    """Return what `explain` answers; `more` replaces parts, and what stands in them one level below."""
    running = jail["running"]
    described: dict[str, Any] = {
        "name": jail["name"],
        "known": True,
        "like": "",
        "host": {
            "name": "a",
            "router_id": "10.0.0.1",
            "pid": 4282,
            "since": NOW - 86400,
            "looked": True,
            "trouble": "",
            "bridge": True,
            "heard": True,
            "sessions": [{"peer": "spine", "state": "up", "since": NOW - 3600, "reason": ""}],
            "jails_d": "/usr/local/etc/mobility/jails.d",
        },
        "jail": jail,
        "problem": "",
        "config": {
            "source": f"/usr/local/etc/mobility/jails.d/{jail['name']}.toml",
            "manager": "jail.conf",
            "problem": "",
            "refused": [],
            "addresses": list(jail["addresses"]),
            "services": [],
            "link": "ours",
            "vnet": True,
            "group": "",
            "anycast": False,
            "identity": jail["name"],
            "others": [],
            "held_by": [],
        },
        "desired": {"stand": jail["stand"], "reason": jail["reason"]},
        "observed": {
            "looked_at": NOW - 3,
            "running": running,
            "jid": jail["jid"],
            "vnet": True if running else None,
            "path": "/jails/web1" if running else None,
            "seen_since": NOW - 600 if running else None,
            "hook": "poststart" if running else "",
            "hook_at": NOW - 600 if running else None,
            "link": "mob-web1",
            "adopted": False,
            "link_there": running,
            "link_up": True if running else None,
            "interfaces": {},
            "routes": {
                text: [{"gateway": "fe80::2%mob-web1", "interface": "mob-web1", "flags": "UGHS", "reject": False}]
                if running
                else []
                for text in jail["addresses"]
            },
            "rejected": [],
            "inside": "right" if running else "",
            "blind": "",
        },
        "plan": {"commands": [], "problem": ""},
        "ownership": {
            "kind": jail["ownership"],
            "reason": "",
            "anycast": False,
            "sequence": jail["sequence"],
            "highest": jail["sequence"],
            "owner": jail["owner"],
            "frozen_at": None,
            "moves": 0,
            "shown": [],
            "handing": jail["handing"],
        },
        "damping": {
            "enabled": True,
            "penalty": jail["penalty"],
            "suppress": 6000,
            "reuse": 3000,
            "suppressed": False,
            "since": None,
            "until": None,
            "release": f"mobility release {jail['name']}",
        },
        "drain": {"host": None, "until_boot": None, "name": None, "leaving": False, "left": 0.0, "barred": ""},
        "failover": None,
        "events": [{"id": 7, "at": NOW - 60, "jail": jail["name"], "what": "announced", "detail": ""}],
    }
    for part, values in more.items():
        below = described.get(part)
        described[part] = below | values if isinstance(below, dict) and isinstance(values, dict) else values
    return described
