"""Each router as a route server, by the file that deploy/fabric has for it: every host is shown every claim (RFC 7911)."""

from __future__ import annotations

import pytest

from mobility.model import Attributes
from tests.interop.ground import Agent, Ground
from tests.interop.routers import ROUTERS, Router

JAIL = "2001:db8:7::7/128"
LIMITED = {"add_path": True, "multihop": 3}


def claim(host: str, sequence: int) -> Attributes:
    """Return the attributes of a host's claim."""
    return Attributes(large_communities=(f"65000:{ord(host)}:{sequence}",), med=2**32 - 1 - sequence)


def await_shown(agent: Agent, own: str, **claims: int) -> None:
    """Wait until a host is shown exactly these claims. Its own one may be among them: FRR sends it back."""

    def shown() -> dict[str, int]:
        found = {}
        for key, route in agent.speaker.received()["rs"].items():
            assert key.split()[0] == JAIL
            (text,) = route.attributes["large-community"]
            _, host, sequence = map(int, text.split(":"))
            found[chr(host)] = sequence
        found.pop(own, None)
        return found

    agent.await_(lambda _: shown() == claims, f"claims {claims}")


@pytest.mark.parametrize("kind", ROUTERS, ids=lambda kind: kind.kind)
def test_every_claim_is_shown_to_every_host(ground: Ground, kind: type[Router]) -> None:
    server = ground.router(kind, "rs", route_server=True)
    hosts = ground.host_each([server], "a", "b", "c", peers={"rs": LIMITED})
    for host in hosts:
        host.start_exabgp()
    with hosts[0].agent() as a, hosts[1].agent() as b, hosts[2].agent() as c:
        for agent in (a, b, c):
            agent.open()
            agent.await_session("rs")
        a.want(JAIL, attributes=claim("a", 7))
        await_shown(b, "b", a=7)
        await_shown(c, "c", a=7)
        b.want(JAIL, attributes=claim("b", 8))
        await_shown(a, "a", b=8)
        await_shown(b, "b", a=7)
        await_shown(c, "c", a=7, b=8)
        a.want(JAIL, attributes=claim("a", 9))  # in place of the one before
        await_shown(b, "b", a=9)
        await_shown(c, "c", a=9, b=8)
        b.unwant(JAIL)
        await_shown(a, "a")
        await_shown(c, "c", a=9)
