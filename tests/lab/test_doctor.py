"""Things that are really broken: the doctor finds each, and the very command that it prints mends it."""

from __future__ import annotations

import json
import shlex
import shutil
import signal
import stat
import sys
from collections.abc import Mapping

import pytest

from tests.lab.again import begin
from tests.lab.ground import FREEBSD
from tests.lab.topology import ALLOWED, HOOK, REPOSITORY, Host, Lab

ADDRESSES = ("198.51.100.7", "2001:db8:7::7")
JAIL = "web1"
#: Programs beside FreeBSD's that a printed command may call: ours, and sysrc(8), which on a lab host has no rc.conf.
OURS = {"mobility": f'exec {sys.executable} -m mobility "$@"', "sysrc": 'echo "$@" >>"$0.called"'}


def doctor(host: Host) -> tuple[int, dict[str, dict[str, str]]]:
    """Its exit status, and what it says of each thing."""
    done = host.mobility("doctor", "--json", "--hook", str(HOOK), check=False)
    answer = json.loads(done.stdout)
    assert answer["healthy"] == (done.returncode == 0)
    return done.returncode, {verdict["what"]: verdict for verdict in answer["verdicts"]}


def mend(host: Host, verdict: Mapping[str, str]) -> None:
    """Do what a verdict says, in a shell, as root at a terminal would; the services are the lab's own."""
    if verdict["mend"] == "service mobility start":
        host.start_agent()
        return
    folder = host.folder / "bin"
    folder.mkdir(exist_ok=True)
    for name, script in OURS.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    environment = host.ground.environment()
    environment["PATH"] = f"{folder}:{environment['PATH']}"
    host.run(["sh", "-ec", verdict["mend"]], env=environment, cwd=REPOSITORY)


def failures(verdicts: Mapping[str, Mapping[str, str]]) -> set[str]:
    return {what for what, verdict in verdicts.items() if verdict["level"] == "fail"}


@pytest.fixture
def lab(one: Lab) -> Lab:
    """One host for most of these."""
    return one


@pytest.fixture
def host(lab: Lab) -> Host:
    """A host with nothing wrong: its jail is announced."""
    return well(lab)


def well(lab: Lab) -> Host:
    """Begin with nothing wrong."""
    (found,) = begin(lab).hosts
    shutil.rmtree(found.folder / "bin", ignore_errors=True)
    found.define_jail(JAIL, ADDRESSES)
    found.start_jail(JAIL)
    return found


def test_what_works_is_found_well(host: Host) -> None:
    status, verdicts = doctor(host)
    assert status == 0, verdicts
    # a lab host has no pf, and on FreeBSD its clock is the machine's
    assert {what for what, verdict in verdicts.items() if verdict["level"] != "ok"} <= {
        "source addresses of jails",
        *(["clock"] if FREEBSD else []),
    }
    assert verdicts["IPv4 from the host itself to its jails"]["why"].endswith(f"goes out from {host.ipv4}")
    assert verdicts["hooks"]["why"] == "installed for 1 of 1 jails that have addresses"
    assert verdicts["BGP peer spine"]["why"] == "up"


def test_before_the_first_start() -> None:
    with Lab(hosts=1) as lab:
        (found,) = lab.hosts
        status, verdicts = doctor(found)
        assert status == 1
        assert failures(verdicts) == {"spool", "database", "agent"}
        assert "is not known: the agent does not answer" in verdicts["BGP peer spine"]["why"]
        mend(found, verdicts["agent"])
        verdicts = doctor(found)[1]
        assert failures(verdicts) == {"bridge", "BGP peer spine"}
        assert "ExaBGP does not run" in verdicts["BGP peer spine"]["why"]


def test_an_agent_that_has_died(host: Host, lab: Lab) -> None:
    received = lab.spine.birdc(f"show protocols {host.session.name}")
    host.stop_agent(signal.SIGKILL)
    status, verdicts = doctor(host)
    assert (status, failures(verdicts)) == (1, {"agent"})
    assert "is not known" in verdicts["BGP peer spine"]["why"]
    # the doctor has not ended the session by looking: the line has the time since when it stands
    assert "Established" in received
    assert lab.spine.birdc(f"show protocols {host.session.name}") == received


@pytest.mark.parametrize("name", ["net.inet.ip.forwarding", "net.inet6.ip6.forwarding"])
def test_forwarding(host: Host, name: str) -> None:
    host.run(["sysctl", f"{name}=0"])
    status, verdicts = doctor(host)
    assert (status, failures(verdicts)) == (1, {name})
    mend(host, verdicts[name])
    assert doctor(host)[0] == 0
    assert "gateway_enable=YES" in (host.folder / "bin" / "sysrc.called").read_text()


def test_ipv6_next_hops_switched_off(host: Host) -> None:
    what = "IPv4 over IPv6 next hops"
    host.run(["sysctl", "net.route.ipv6_nexthop=0"])
    status, verdicts = doctor(host)
    assert (status, verdicts[what]["mend"]) == (0, "")
    assert "interface routes do it" in verdicts[what]["why"]
    host.configure(host={"ipv4_routes": "next-hop"})
    status, verdicts = doctor(host)
    assert (status, failures(verdicts)) == (1, {what})
    mend(host, verdicts[what])
    assert doctor(host)[0] == 0


@pytest.mark.parametrize(("what", "folder"), [("spool", "spool"), ("database", "state")])
def test_folders_that_are_open_to_others(host: Host, what: str, folder: str) -> None:
    (host.folder / folder).chmod(0o777)
    status, verdicts = doctor(host)
    assert (status, failures(verdicts)) == (1, {what})
    mend(host, verdicts[what])
    assert doctor(host)[0] == 0
    assert stat.S_IMODE((host.folder / folder).stat().st_mode) == 0o700


def test_a_jail_without_hooks(host: Host) -> None:
    host.define_jail("db1", ["198.51.100.8"], hooks=False)
    what = "hooks of jail db1"
    status, verdicts = doctor(host)
    assert (status, verdicts[what]["level"]) == (0, "warn")
    mend(host, verdicts[what])
    _, verdicts = doctor(host)
    assert what not in verdicts
    assert verdicts["hooks"]["why"] == "installed for 2 of 2 jails that have addresses"


def test_a_jails_file_with_a_mistake(host: Host) -> None:
    (host.jails_d / "db1.toml").write_text('addresses = ["203.0.113.7"]\n')
    status, verdicts = doctor(host)
    assert (status, failures(verdicts)) == (1, {"jail db1"})
    assert ALLOWED[0] in verdicts["jail db1"]["why"] or "allowed" in verdicts["jail db1"]["why"]


def test_a_router_that_does_not_listen(host: Host, lab: Lab) -> None:
    lab.spine.stop()
    status, verdicts = doctor(host)
    assert (status, failures(verdicts)) == (1, {"BGP peer spine"})
    assert "refused the connection" in verdicts["BGP peer spine"]["why"]
    lab.spine.start()
    lab.await_session(host)
    assert doctor(host)[0] == 0


def test_an_address_that_is_not_this_hosts() -> None:
    with Lab(hosts=1) as lab:
        host = well(lab)
        host.stop_exabgp()
        host.run(["ifconfig", f"up-{host.name}", "inet6", f"{host.address}/64", "-alias"])
        verdict = doctor(host)[1]["BGP peer spine"]
        assert "local_address is on no interface" in verdict["why"]
        mend(host, {"mend": verdict["mend"].replace("INTERFACE", f"up-{host.name}")})
        assert "local_address is on no interface" not in doctor(host)[1]["BGP peer spine"]["why"]


def test_a_kernel_that_has_no_ipv6_next_hops() -> None:
    with Lab(hosts=1, kernel="no-rfc5549", ipv4_links=True) as lab:
        (found,) = lab.hosts
        verdict = doctor(found)[1]["IPv4 over IPv6 next hops"]
        assert verdict["level"] == "ok"
        assert "interface routes do it" in verdict["why"]


def test_a_command_that_hangs_is_told_and_hides_nothing(host: Host) -> None:
    folder = host.folder / "hanging"
    folder.mkdir()
    (folder / "kldstat").write_text("#!/bin/sh\nexec sleep 600\n")
    (folder / "kldstat").chmod(0o755)
    # the running agent keeps what it has
    host.configure(agent={"command_timeout": 3.0}, paths={"commands": [str(folder), *map(str, host.ground.commands)]})
    status, verdicts = doctor(host)
    assert (status, verdicts["epair"]["level"]) == (0, "warn")
    assert "no answer within 3 s" in verdicts["epair"]["why"]
    assert verdicts["BGP peer spine"]["level"] == "ok"


def test_for_people(host: Host) -> None:
    text = host.mobility("doctor", "--hook", str(HOOK)).stdout
    assert text.startswith("ok    command ifconfig: ")
    assert "\nok    BGP peer spine: up\n" in text
    assert all(
        shlex.split(line.partition("mend: ")[2]) for line in text.splitlines() if line.startswith("      mend: ")
    )
