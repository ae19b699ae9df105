"""The fabric in the lab: one router with a real BIRD 2, an eBGP session to each host over the link between them.

A host may run a BIRD too, one that announces its kernel's routes: what an operator would have without us.
"""

from __future__ import annotations

import re
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from string import Template

from tests.lab.watch import Fib, Process
from tests.waiting import PATIENCE

SPINE_AS = 65000
SPINE_ROUTER_ID = "10.255.0.1"
#: Seconds that the tests give a session to come up, and BIRD to end.
SESSION_SECONDS = PATIENCE
END_SECONDS = PATIENCE

_CONF = Template("""\
router id $router_id;
log stderr all;
timeformat protocol iso long ms;
protocol device { }
protocol kernel kernel4 { graceful restart on; ipv4 { import none; export all; }; }
protocol kernel kernel6 { graceful restart on; ipv6 { import none; export all; }; }
$sessions""")
_SESSION = Template("""\
protocol bgp $name {
  description "$description";
  local $local as $local_as;
  neighbor $remote as $remote_as;
  graceful restart on;
  med metric on;
  hold time 30;
  connect delay time 1;
  connect retry time 1;
  error wait time 1, 2;
  debug { states, events };
  ipv4 { extended next hop $extended; import all; export $export; };
  ipv6 { import all; export $export; };
}
""")


#: A host's BIRD: takes the routes that others put into its kernel, and announces them with itself as next hop.
_HOST_CONF = Template("""\
router id $router_id;
log stderr all;
timeformat protocol iso long ms;
protocol device { }
protocol kernel kernel4 { learn; scan time 60; ipv4 { import filter { if net.len = 32 then accept; reject; }; }; }
protocol kernel kernel6 { learn; scan time 60; ipv6 { import filter { if net.len = 128 then accept; reject; }; }; }
protocol bgp spine {
  local $local as $local_as;
  neighbor $remote as $remote_as;
  connect delay time 1;
  connect retry time 1;
  debug { states, events };
  ipv4 { extended next hop on; next hop self; import none; export where source = RTS_INHERIT; };
  ipv6 { next hop self; import none; export where source = RTS_INHERIT; };
}
""")


@dataclass(frozen=True, slots=True)
class Session:
    """One host at the spine: BIRD's protocol name, both addresses of the link, the host's AS."""

    name: str
    local: str
    remote: str
    remote_as: int


@dataclass(frozen=True, slots=True)
class Updates:
    """Routes and withdrawals that BIRD has received from one neighbour since its session came up."""

    updates: int
    withdraws: int


def conf(sessions: list[Session], router_id: str, *, extended_next_hop: bool = True, export: str = "none") -> str:
    """Return BIRD's configuration. `export`: what the hosts are told ("none", "all", or a BIRD filter)."""
    blocks = [
        _SESSION.substitute(
            name=session.name,
            description=f"host at {session.remote}",
            local=session.local,
            local_as=SPINE_AS,
            remote=session.remote,
            remote_as=session.remote_as,
            extended="on" if extended_next_hop else "off",
            export=export,
        )
        for session in sessions
    ]
    return _CONF.substitute(router_id=router_id, sessions="".join(blocks))


def host_conf(session: Session, router_id: str) -> str:
    """Return the configuration of a BIRD on a host, which announces the host routes of its kernel to the spine."""
    return _HOST_CONF.substitute(
        router_id=router_id,
        local=session.remote,
        local_as=session.remote_as,
        remote=session.local,
        remote_as=SPINE_AS,
    )


class Bird:
    """A BIRD in some node's vnet. `enter` is the argv prefix that runs a program there, in that `environment`."""

    def __init__(self, folder: Path, enter: list[str], environment: dict[str, str]) -> None:
        self.folder = folder
        self._enter = enter
        self._environment = environment
        self._process: Process | None = None
        self._socket = folder / "bird.ctl"

    def configure(self, text: str) -> None:
        """Write the configuration; a running BIRD takes it up at once."""
        (self.folder / "bird.conf").write_text(text)
        if self._process is not None:
            self.birdc("configure")

    @property
    def process(self) -> Process:
        """The running BIRD."""
        assert self._process is not None, "BIRD was not started"
        return self._process

    def start(self, *, recover: bool = False) -> None:
        """Start BIRD and wait until it answers. `recover`: as a graceful restart, keeping the kernel's routes."""
        self._socket.unlink(missing_ok=True)
        command = ["bird", "-f", "-c", self.folder / "bird.conf", "-s", self._socket, "-P", self.folder / "bird.pid"]
        process = subprocess.Popen(
            [*self._enter, *map(str, command), *(["-R"] if recover else [])],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._process = Process("bird", process, self.folder / "bird.log")
        self._process.await_(self._answers, "answer on its control socket", END_SECONDS)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End BIRD: orderly, so that its routes leave the kernel, or by SIGKILL, so that they stay."""
        if self._process is not None:
            self._process.end(number, END_SECONDS)
            self._process = None

    def _answers(self) -> bool:
        return self._socket.exists() and self._birdc("show status").returncode == 0

    def _birdc(self, command: str) -> subprocess.CompletedProcess[str]:
        argv = ["birdc", "-s", str(self._socket), *command.split()]
        return subprocess.run(argv, env=self._environment, capture_output=True, text=True, check=False)

    def birdc(self, command: str) -> str:
        """Return what BIRD answers to a command of birdc's."""
        result = self._birdc(command)
        if result.returncode != 0:
            raise RuntimeError(f"birdc {command}: {result.stdout}{result.stderr}\n{self.process.tail()}")
        return result.stdout.partition("\n")[2]  # the first line is the greeting

    def routes(self) -> str:
        """Return BIRD's own view of all its routes, for people to read."""
        return self.birdc("show route all")

    def session_up(self, name: str) -> bool:
        """Tell whether the session of that name is established."""
        line = next((each for each in self.birdc(f"show protocols {name}").splitlines() if each.startswith(name)), "")
        return "Established" in line

    def await_session(self, name: str, *, up: bool = True, timeout: float = SESSION_SECONDS) -> None:
        """Wait until a session is up (or down): BIRD logs each change of state."""
        what = f"session of {name} {'up' if up else 'down'}"
        self.process.await_(lambda: self.session_up(name) == up, what, timeout)

    def updates(self, name: str) -> Updates:
        """Return how many routes and withdrawals came over a session since it is up, both families together."""
        text = self.birdc(f"show protocols all {name}")

        def received(kind: str) -> int:
            return sum(int(count) for count in re.findall(rf"Import {kind}:\s+(\d+)", text))

        return Updates(received("updates"), received("withdraws"))

    def close(self) -> None:
        """End BIRD."""
        self.stop()


class Spine(Bird):
    """The spine's BIRD and kernel. `fib` follows the kernel's routes."""

    def __init__(
        self, folder: Path, enter: list[str], environment: dict[str, str], fib: Fib, sessions: list[Session]
    ) -> None:
        super().__init__(folder, enter, environment)
        self.sessions = sessions
        self.fib = fib
        self.configure(conf(sessions, SPINE_ROUTER_ID))

    def kernel_has(self, prefix: str, via: str | None = None) -> bool:
        """Tell whether the spine's kernel forwards exactly this prefix, over this next hop if one is named."""
        return self.fib.has(prefix, via)

    def close(self) -> None:
        """End BIRD and stop following the kernel."""
        try:
            super().close()
        finally:
            self.fib.close()
