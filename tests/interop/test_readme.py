"""README.md's pages on routers: each one's own commands, at the router itself, with the files of deploy/fabric."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from mobility.model import Attributes
from tests.interop.features import V4, V6
from tests.interop.ground import Ground
from tests.interop.routers import Bird, Frr, GoBgp, OpenBgpd, Router
from tests.readme import PATH, Step, Told, agree, blocks, steps
from tests.readme_commands import INLINE

KINDS: dict[str, type[Router]] = {"bird": Bird, "frr": Frr, "openbgpd": OpenBgpd, "gobgp": GoBgp}
#: A host's claim, as in "Ownership".
CLAIM = Attributes(
    med=4265031132,
    large_communities=("4200000000:1:29936163", "4200000000:2:3351512861", "4200000000:3:167772161"),
)
#: Where each program's command finds it, beside the router's own place for such.
SOCKETS: dict[str, Callable[[Any], list[str]]] = {
    "birdc": lambda router: ["-s", str(router.folder / "bird.ctl")],
    "vtysh": lambda router: ["--vty_socket", str(router.folder), "--config_dir", str(router.folder), "-d", "bgpd"],
    "bgpctl": lambda router: ["-s", str(router.control)],
    "gobgp": lambda router: [],
}


class Teller:
    """A router of one kind, with host a as its neighbour."""

    def __init__(self, router: Router) -> None:
        self.router = router
        (link,) = router.links
        #: The page's words, and those here.
        self.words = [("fd00:1::ff", link.router_address), ("fd00:1::1", link.host_address)]
        self.interface = link.router_interface

    def do(self, line: str) -> subprocess.CompletedProcess[str]:
        """Run a router's command."""
        for page, here in self.words:
            line = line.replace(page, here)
        program, *words = shlex.split(line)
        argv = [*self.router.prefix, program, *SOCKETS[program](self.router), *words]
        return subprocess.run(argv, capture_output=True, text=True, check=False)

    def perform(self, step: Step) -> list[str]:
        """Return what a command of the page prints, in the page's words."""
        done = self.do(step.line)
        assert done.returncode == 0, f"{step.prompt}: {done.stdout}{done.stderr}"
        text = done.stdout.replace(f" {self.interface}", " to-a")
        for page, here in self.words:
            # a table's column keeps its width
            text = text.replace(here.ljust(len(here) + 2), page.ljust(len(here) + 2)).replace(here, page)
        return [line.rstrip() for line in text.splitlines() if line.strip() and not line.startswith("BIRD 2")]


def told(kind: str, page: str) -> list[Told]:
    """Do all that the page of a router shows, and what its text names; return what was printed."""
    found = []
    with Ground() as ground:
        router = ground.router(KINDS[kind], "router")
        host = ground.host([router], "host_a", peers={"router": {"next_hop_ipv4": "192.0.2.1"}})
        host.start_exabgp()
        with host.agent() as agent:
            agent.open()
            agent.await_session("router")
            agent.want(V4, V6, attributes=CLAIM)
            for prefix in (V4, V6):
                router.await_(lambda: router.rib(prefix) is not None, f"route to {prefix}")  # noqa: B023
            teller = Teller(router)
            own = [each for each in blocks(page, "console") if each.name == kind]
            found += [[(step, teller.perform(step)) for step in steps(each.text)] for each in own]
            for command, run in INLINE[kind].items():
                done = teller.do(run.line or command)
                assert done.returncode == run.status, f"{command}: {done.stdout}{done.stderr}"
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_what_it_shows_of_a_router_is_what_that_says(kind: str) -> None:
    each = told(kind, PATH.read_text())
    assert each, kind
    for step, printed in each[0]:
        assert agree(step.shown, printed), f"{step.prompt}\n" + "\n".join(printed)
