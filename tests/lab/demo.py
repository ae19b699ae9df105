"""`make demo`: a jail's addresses follow it from host to host, told step by step.

Two hosts, one spine (BIRD), one client; every command shown is what was really run. The last line is `demo: ok`, or says
which step failed and where its logs are.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
LOGS = REPOSITORY / "build" / "demo"
JAIL = "web1"
IPV4, IPV6 = "198.51.100.7", "2001:db8:7::7"
PREFIXES = (f"{IPV4}/32", f"{IPV6}/128")
FETCH_SECONDS = 20.0

if os.geteuid() != 0:
    sys.exit("demo: needs root, because the lab makes hosts: run it as root")

from tests.lab.ground import SYSTEM_PYTHON  # noqa: E402
from tests.lab.invariants import await_announced  # noqa: E402  # importing these without root is an error
from tests.lab.topology import Host, Lab  # noqa: E402


def say(text: str = "") -> None:
    """Print a line now."""
    print(text, flush=True)


class Demo:
    """The story. `step` is where it is."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.a, self.b = lab.hosts
        self.step = ""
        self._number = 0
        self._read: dict[Path, int] = {}

    def begin(self, what: str) -> None:
        """Start a step."""
        self._number += 1
        self.step = f"step {self._number}: {what}"
        say(f"\n== {self.step}")

    def commands_run(self, host: Host) -> None:
        """Show what the host's agent ran since this was last asked: its log has a line for each command."""
        log = host.folder / "agent.log"
        with log.open() as file:
            file.seek(self._read.get(log, 0))
            text = file.read()
        self._read[log] = self._read.get(log, 0) + len(text.encode())
        for argv in re.findall(r' ran (?:jail=\S+ )?argv=(?:"([^"]*)"|(\S+))', text):
            say(f"   {host.name}# {''.join(argv)}")

    def show_routes(self) -> None:
        """Show the spine's own view."""
        for line in self.lab.spine.birdc("show route").splitlines():
            if not line.startswith(("BIRD", "Table")) and line.strip():
                say(f"   spine> {line}")

    def fetch(self, path: str = "/") -> dict[str, str]:
        """Fetch over both families from the client; return what was served."""
        got = {}
        for address in (IPV4, IPV6):
            url = f"http://{f'[{address}]' if ':' in address else address}{path}"
            read = f"r.urlopen({url!r}, timeout={FETCH_SECONDS}).read()"
            code = f"import urllib.request as r; print(len(b := {read}), b[:60])"
            result = self.lab.client.run([SYSTEM_PYTHON, "-c", code])
            got[address] = result.stdout.strip()
            say(f"   client$ fetch {url} -> {got[address]}")
        return got

    def prepare(self) -> None:
        """Bring both hosts up, and let both know the jail."""
        self.begin("two hosts, each with its agent and its ExaBGP; a spine with BIRD; a client beyond it")
        web = f"{SYSTEM_PYTHON} {REPOSITORY / 'tests' / 'lab' / 'web.py'}"
        for host in self.lab.hosts:
            host.start_agent()
            host.start_exabgp()
        for host in self.lab.hosts:
            self.lab.await_session(host)
            host.define_jail(JAIL, PREFIXES, start=f"{web} {host.name}", stop="true")
            say(
                f"   host {host.name} ({host.address}, AS {host.local_as}): session up, {JAIL} may have {IPV4} and {IPV6}"
            )

    def start(self, host: Host) -> None:
        """Start the jail on a host and wait for its routes in the spine's kernel."""
        say(f"   {host.name}# jail -f jail.conf -c {JAIL}")
        began = time.monotonic()
        host.start_jail(JAIL)
        started = time.monotonic()
        for prefix in PREFIXES:
            self.lab.spine.fib.wait(prefix, via=host.address)
        self.commands_run(host)
        landed = time.monotonic()
        say(
            f"   jail(8) took {1000 * (started - began):.0f} ms; in the spine's kernel after {1000 * (landed - began):.0f} ms"
        )
        self.show_routes()

    def stop(self, host: Host) -> None:
        """Stop the jail on a host."""
        say(f"   {host.name}# jail -f jail.conf -r {JAIL}")
        host.stop_jail(JAIL)
        self.commands_run(host)

    def move(self) -> None:
        """Stop on A, start on B, while the client keeps asking."""
        self.begin(f"{JAIL} stops on A and starts on B; the client asks every 2 ms")
        prober = self.lab.client.popen(
            [SYSTEM_PYTHON, str(REPOSITORY / "tests" / "lab" / "probe.py"), IPV4, IPV6],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        began = time.monotonic()
        self.stop(self.a)
        for prefix in PREFIXES:
            self.lab.spine.fib.wait(prefix, via=self.a.address, gone=True)
        self.start(self.b)
        took = time.monotonic() - began
        self.fetch()
        out, _ = prober.communicate()
        for address, seen in json.loads(out).items():
            say(
                f"   client: {address}: {seen['answered']} of {seen['sent']} answered, longest gap {seen['gap_ms']:.0f} ms"
            )
            if not seen["answered"]:
                raise RuntimeError(f"the client never heard from {address}")
        say(f"   from `jail -r` on A to the routes by B: {1000 * took:.0f} ms, jail(8) on both hosts included")

    def restart_agent(self) -> None:
        """Restart B's agent in the middle of a download; the spine must hear nothing."""
        self.begin("B's agent is restarted in the middle of a download")
        before = self.lab.spine.updates(self.b.session.name)
        failed: list[BaseException] = []

        def download() -> None:
            try:
                self.fetch("/slow")
            except RuntimeError as error:
                failed.append(error)

        reader = threading.Thread(target=download)
        reader.start()
        status = self.b.stop_agent()
        say(f"   b# service mobility stop     (exit {status}; the jail and its routes stand)")
        if not all(self.lab.spine.kernel_has(prefix, self.b.address) for prefix in PREFIXES):
            raise RuntimeError("a route went away with the agent")
        self.b.start_agent()
        say("   b# service mobility start")
        reader.join()
        if failed:
            raise failed[0]
        await_announced(self.b, JAIL)
        after = self.lab.spine.updates(self.b.session.name)
        say(f"   the spine counted, of B, before: {before.updates} updates and {before.withdraws} withdrawals;")
        say(f"   after: {after.updates} updates and {after.withdraws} withdrawals")
        if after != before:
            raise RuntimeError(f"the restart was not silent: {before} became {after}")

    def end(self) -> None:
        """Stop the jail; nothing is left."""
        self.begin(f"{JAIL} stops; its routes are gone")
        self.stop(self.b)
        for prefix in PREFIXES:
            self.lab.spine.fib.wait(prefix, gone=True)
        self.show_routes()
        say("   spine> (no route left)")

    def run(self) -> None:
        """Tell it all."""
        self.prepare()
        self.begin(f"{JAIL} starts on A")
        self.start(self.a)
        self.fetch()
        self.move()
        self.restart_agent()
        self.end()


def keep_logs(lab: Lab) -> None:
    """Copy every log out of the lab before it goes."""
    shutil.rmtree(LOGS, ignore_errors=True)
    for log in lab.ground.folder.rglob("*.log"):
        target = LOGS / log.relative_to(lab.ground.folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(log, target)


def main(make_lab: Callable[[], Lab] = Lab) -> int:
    """Run the demo; return the exit status."""
    step = "building the lab"
    try:
        with make_lab() as lab:
            demo = Demo(lab)
            try:
                demo.run()
            except Exception:
                step = demo.step
                keep_logs(lab)
                raise
    except Exception as error:  # noqa: BLE001  # whatever it was: the last line says so
        traceback.print_exception(error, limit=0)
        say(f"demo: failed at {step}: {str(error).splitlines()[0] if str(error) else error!r}; logs in {LOGS}")
        return 1
    say("\ndemo: ok")
    return 0


if __name__ == "__main__":
    sys.exit(main())
