"""Who owns what: jails that are not this host's any more, and a fabric that does not show who is newest. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from mobility.bgp.ownership import Kind
from mobility.doctor.verdict import Verdict, fail, ok, warn

WHAT = "ownership"
_GRAVE = (Kind.CONFLICT, Kind.FROZEN, Kind.EXHAUSTED)


def ownership_verdicts(jails: Iterable[Mapping[str, Any]]) -> Iterator[Verdict]:
    """Judge what `mobility status` says of jails' ownership."""
    jails = tuple(jails)
    found = False
    for jail in jails:
        kind = jail["ownership"]
        if kind in _GRAVE:
            found = True
            mend = "" if kind == Kind.CONFLICT else f"mobility release {jail['name']}"
            yield fail(f"{WHAT} of {jail['name']}", jail["reason"], mend)
        elif jail["frozen"]:
            found = True
            why = "it has moved too often and is frozen: this host keeps it, no other claims it until it is released"
            yield warn(f"{WHAT} of {jail['name']}", why, f"mobility release {jail['name']}")
        elif kind == Kind.LOST and jail["running"]:
            found = True
            yield warn(
                f"{WHAT} of {jail['name']}",
                f"an older copy runs here: {jail['reason']}",
                f"mobility status {jail['name']}",
            )
    older = [(jail, shown) for jail in jails for shown in jail["shown_older"]]
    if older:
        jail, shown = older[0]
        more = f", and so with {len(older) - 1} more" if len(older) > 1 else ""
        yield warn(
            "MED",
            f"peer {shown['peer']} shows {shown['host']} as the owner of jail {jail['name']} (sequence {shown['sequence']}) "
            f"although this host claims {jail['sequence']}{more}: it does not compare MED between its neighbours",
            "deploy/fabric has the lines for BIRD, FRR, OpenBGPD and GoBGP; or add sessions to route servers (add_path)",
        )
    elif not found:
        yield ok(WHAT, "no jail of this host is lost, in conflict or frozen")
