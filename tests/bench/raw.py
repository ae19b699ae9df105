"""What ours is compared with: ExaBGP with a pipe straight into it, and BIRD that redistributes kernel routes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from string import Template
from typing import TextIO

from tests.lab.topology import Host, Lab
from tests.lab.watch import Process

_EXABGP = Template("""\
process pipe { run /bin/cat $pipe; encoder json; }
neighbor $spine {
  router-id $router_id;
  local-address $address;
  local-as $local_as;
  peer-as 65000;
  capability { nexthop enable; }
  family { ipv4 unicast; ipv6 unicast; }
  nexthop { ipv4 unicast ipv6; }
  api { processes [ pipe ]; }
}
""")
_BIRD = Template("""\
router id $router_id;
log stderr all;
protocol device { }
protocol kernel kernel4 { learn; ipv4 { import all; export none; }; }
protocol kernel kernel6 { learn; ipv6 { import all; export none; }; }
protocol bgp spine {
  local $address as $local_as;
  neighbor $spine as 65000;
  connect delay time 1;
  connect retry time 1;
  ipv4 { extended next hop on; next hop self; import none; export where source = RTS_INHERIT; };
  ipv6 { next hop self; import none; export where source = RTS_INHERIT; };
}
""")
ROUTER_ID = "10.0.9.9"


def _words(host: Host) -> dict[str, str]:
    return {
        "spine": host.spine_address,
        "address": host.address,
        "local_as": str(host.local_as),
        "router_id": ROUTER_ID,
    }


@contextmanager
def exabgp(lab: Lab, host: Host, started: Callable[[Process], None] = lambda _: None) -> Iterator[TextIO]:
    """Run ExaBGP without us on a host; yields the pipe into it, once its session is up. `started` is given its process."""
    pipe = host.folder / "raw.pipe"
    os.mkfifo(pipe)
    pipe.chmod(0o666)
    conf = host.folder / "raw.conf"
    conf.write_text(_EXABGP.substitute(_words(host), pipe=pipe))
    settings = {
        "exabgp.daemon.user": "root",
        "exabgp.api.ack": "false",
        "exabgp.log.level": "WARNING",
        "exabgp.log.destination": "stdout",
        "exabgp.api.cli": "false",
    }
    command = ["env", *(f"{key}={value}" for key, value in settings.items())]
    program = Path(sys.executable).parent / "exabgp"
    process = host.service("raw-exabgp", [*command, str(program), str(conf)])
    started(process)
    try:
        with pipe.open("w", buffering=1) as into:
            lab.await_session(host)
            yield into
    finally:
        process.end(15, 10.0)
        lab.await_session(host, up=False)
        pipe.unlink()


@contextmanager
def bird(lab: Lab, host: Host) -> Iterator[Process]:
    """Run BIRD on a host, redistributing what its kernel learns; yields it once its session is up."""
    conf = host.folder / "bird.conf"
    conf.write_text(_BIRD.substitute(_words(host)))
    process = host.service("host-bird", ["bird", "-f", "-c", str(conf), "-s", str(host.folder / "bird.ctl")])
    try:
        lab.await_session(host)
        yield process
    finally:
        process.end(15, 10.0)
        lab.await_session(host, up=False)
