"""A host with a thousand jails goes down: its routes are gone in time, by one call of rc.d, before a jail is stopped.

The thousand are what prepared commands say (tests/bench/bulk.py). Agent, ExaBGP, BIRD and the service are real.
"""

from __future__ import annotations

import re
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench import bulk
from tests.lab.invariants import await_rest
from tests.lab.topology import Host, Lab
from tests.unit.deploy.host import RcHost

JAILS = 1000
WEB1 = ("198.51.100.7", "2001:db8:7::7")
PREFIXES = (f"{WEB1[0]}/32", f"{WEB1[1]}/128")
RCSHUTDOWN_TIMEOUT = 90
"""Seconds for all services together (rc.conf(5))."""
SHARE = RCSHUTDOWN_TIMEOUT / 2
DRAIN_FOR = 2.0
"""Seconds with GRACEFUL_SHUTDOWN; the default is 5."""
_COUNT = re.compile(r'^mobility_command_seconds_count\{command="[^"]*"\} ([0-9.e+]+)$', re.MULTILINE)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[RcHost]:
    host = RcHost(tmp_path)
    yield host
    host.close()


@pytest.fixture
def full() -> Iterator[tuple[Lab, Host]]:
    """One host with all its jails announced."""
    with Lab(hosts=1) as lab:
        (host,) = lab.hosts
        configs = bulk.jails(JAILS)
        bulk.prepare(host, configs)
        host.configure(
            host={"name": host.name, "allowed": list(bulk.ALLOWED)},
            paths={"commands": [str(host.folder / "prepared"), "/usr/bin", "/bin"]},
            agent={"drain_for": DRAIN_FOR},
            health={"reach": "off"},  # there is nobody who would answer
        )
        for config in configs:
            host.grant(config.name, [str(prefix) for prefix in config.addresses])
        bulk.remember(host, configs)
        host.start_exabgp()
        lab.await_session(host)
        host.start_agent()
        await_routes(lab, 2 * JAILS)
        yield lab, host


def standing(lab: Lab) -> set[str]:
    """Return the jails' routes that the spine's kernel has."""
    (host,) = lab.hosts
    last = {change.prefix: change for change in lab.spine.fib.changes if change.gone or change.via == host.address}
    return {prefix for prefix, change in last.items() if not change.gone}


def await_routes(lab: Lab, count: int) -> None:
    lab.spine.fib.wait_for(lambda: len(standing(lab)) == count, f"{count} routes", 60.0)


def commands_run(host: Host) -> float:
    """Return how many of the host's commands the agent has run."""
    code = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:9971/metrics').read().decode())"
    return sum(float(count) for count in _COUNT.findall(host.run([sys.executable, "-c", code]).stdout))


def run(service: RcHost, host: Host, word: str, **settings: str) -> float:
    """Run rc.d/mobility_drain with the real command; return the seconds that it took."""
    began = time.monotonic()
    done = service.run(
        "mobility_drain",
        word,
        mobility_command=f"{sys.executable} -m mobility",
        mobility_config=str(host.config),
        **settings,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return time.monotonic() - began


def test_a_thousand_jails_are_withdrawn_in_time_and_stay_so_until_the_host_is_back(
    full: tuple[Lab, Host], service: RcHost
) -> None:
    lab, host = full
    before = commands_run(host)
    took = run(service, host, "faststop", rc_shutdown="reboot")
    assert took < SHARE
    # what the script waited for is what has happened: ExaBGP has told the router
    await_routes(lab, 0)
    # no command for each jail: on a host that goes down they would be what takes time
    assert commands_run(host) - before < JAILS / 10
    # an agent that dies in the middle of the shutdown does not announce again
    host.stop_agent(signal.SIGKILL)
    host.start_agent()
    status = host.mobility("status").stdout
    assert "drained: the whole host, until the next boot\n" in status
    assert not standing(lab)
    # single-user mode and back: the same boot, but the services start again
    run(service, host, "faststart")
    await_routes(lab, 2 * JAILS)
    assert "drained" not in host.mobility("status").stdout.partition("JAIL ")[0]


def test_another_boot_announces_again(full: tuple[Lab, Host], service: RcHost) -> None:
    lab, host = full
    run(service, host, "faststop", rc_shutdown="reboot")
    await_routes(lab, 0)
    host.stop_agent()
    answer = host.folder / "prepared" / "sysctl.txt"
    answer.write_text(answer.read_text().replace(bulk.BOOT_ID, "0x" + "0f" * 16))
    host.start_agent()
    # nothing was undrained by hand
    await_routes(lab, 2 * JAILS)


@pytest.mark.hosts(1)
def test_a_jail_started_by_hand_is_withdrawn_too(lab: Lab, service: RcHost) -> None:
    """Nobody stops it, and no hook knows of it."""
    host = lab.hosts[0]
    host.configure(agent={"drain_for": 0.2})
    host.start_agent()
    host.start_exabgp()
    lab.await_session(host)
    host.define_jail("web1", WEB1, hooks=False)
    host.start_jail("web1")
    assert host.agent is not None
    host.agent.process.send_signal(signal.SIGHUP)
    await_rest(lab, host, {"web1": WEB1})
    run(service, host, "faststop", rc_shutdown="reboot")
    for prefix in PREFIXES:
        lab.spine.fib.wait(prefix, gone=True)
    # it runs on, and what still arrives reaches it
    assert host.ping(WEB1[0])
    run(service, host, "faststart")
    await_rest(lab, host, {"web1": WEB1})
