"""README.md's table of settings, made of the program: names and defaults. Meanings and order stay as they are written.

    python -m tests.readme_tables      # writes it anew: a new setting comes behind the one that is read before it

A new setting's meaning is `?` until somebody writes it, and tests/unit/test_readme.py fails until then.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from mobility import config
from tests.readme import PATH, table

HEADING, HEAD = "## Configuration", ("setting", "default", "meaning")
UNKNOWN = "?"
#: Defaults that are no value: they are taken from elsewhere, or there is none.
WORDS = {
    "host.name": "the host name",
    "bgp.bridge_command": "this Python and bridge.py",
    "bgp.fail_static_for": '`"forever"`',
    "bgp.peer.families": "both",
    "bgp.peer.multihop": "the system's",
    "bgp.peer.next_hop_ipv4": "none",
    "bgp.peer.next_hop_ipv6": "`local_address`",
    "bgp.peer.ttl_security": "`false`",
    "bgp.peer.uplink_ipv4": "none",
    "bgp.peer.uplink_ipv6": "`address`",
}
_MINIMAL: dict[str, Any] = {"bgp": {"peer": [{}]}, "failover": {"NAME": {}}}


def settings() -> dict[str, str]:
    """Return each setting with its default as the table has it, in the order in which the program reads them."""
    found: dict[str, str] = {}
    take = config._Section.take

    def taken(self: Any, key: str, read: Callable[[Any], Any], default: Any = None, *, required: bool = False) -> Any:
        name = f"{self._name}.{key}".replace("[0]", "")
        found[name] = WORDS.get(name, "" if required else _shown(default))
        return take(self, key, read, default, required=required)

    with mock.patch.object(config._Section, "take", taken):
        config.parse(_MINIMAL, Path("mobility.toml"))
    del found["bgp.peer"]
    return found


def _shown(default: Any) -> str:
    # paths are TOML's strings, and JSON's values are TOML's
    return f"`{json.dumps(default, default=str)}`"


def rows(page: str) -> list[list[str]]:
    """Return the table as it should be, with the meanings that the page has."""
    meanings = {name.strip("`"): meaning for name, _, meaning in table(page, HEADING)}
    found = settings()
    order = [name for name in meanings if name in found]
    before = ""
    for name in found:
        if name not in order:
            order.insert(order.index(before) + 1 if before else 0, name)
        before = name
    return [[f"`{name}`", found[name], meanings.get(name, UNKNOWN)] for name in order]


def written(page: str) -> str:
    """Return the page with that table. ValueError where it has none."""
    lines = [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in (HEAD, *rows(page))]
    new = "".join(f"{line}\n" for line in (lines[0], "|---|---|---|", *lines[1:]))
    before, heading, after = page.partition(f"\n{HEADING}\n")
    after, count = re.subn(r"(?:^\|.*\n)+", lambda _: new, after, count=1, flags=re.MULTILINE)
    if not heading or not count:
        raise ValueError(f"no table below {HEADING}")
    return before + heading + after


if __name__ == "__main__":
    PATH.write_text(written(PATH.read_text()))
