"""A plain jail.conf that its user wrote: hooks in, the jail moves and stops, hooks out, and the file is as it was."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from tests.lab.faults import await_hooks, eventually, new_agent
from tests.lab.invariants import await_rest, status
from tests.lab.topology import HOOK, REPOSITORY, Host, Lab

IPV4, IPV6 = "198.51.100.7", "2001:db8:7::7"
PREFIXES = (f"{IPV4}/32", f"{IPV6}/128")
WEB1 = {"web1": (IPV4, IPV6)}
QUICK = {"look_every": 1.0, "reject_for": 0.5, "drain_for": 0.2, "settle_for": 3.0}

#: As people write them: defaults for all, own commands, one jail in one line.
OWN = """\
# defaults
exec.clean;
path = "/";
host.hostname = "$name";
exec.prestart = "echo all prestart >>{log}";

web1 {{
\tvnet;                   # its own stack
\tpersist; allow.raw_sockets;
\tvnet.interface = "nosuch0";
\texec.prestart += "echo own prestart >>{log}";
\texec.created = "echo own created >>{log}";
\texec.start = "ifconfig -a >{folder}/at-start; echo own start >>{log}";
\texec.poststart = "echo own poststart >>{log}";
\texec.prestop = "{status} >{folder}/at-prestop; echo own prestop >>{log}";
\texec.stop = "echo own stop >>{log}";
\texec.poststop = "echo own poststop >>{log}";
}}

idle {{ persist; }}
"""
ONCE = ["all prestart", "own prestart", "own created", "own start", "own poststart"]
STOPPED = ["own prestop", "own stop", "own poststop"]


class Site:
    """One host with a user's own jail.conf."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.log = host.folder / "own.log"
        asks = [sys.executable, "-m", "mobility", "status", "--config", str(host.config), "--json", "web1"]
        # the login's environment (exec.clean) knows nothing of the repository
        ask = f"cd {shlex.quote(str(REPOSITORY))} && {shlex.join(asks)}"
        self.text = OWN.format(log=self.log, folder=host.folder, status=ask)
        host.jail_conf.write_text(self.text)
        host.jail_conf.chmod(0o640)

    def hooks(self, *words: str) -> str:
        """Run `mobility hooks`; return its standard output."""
        return self.host.mobility("hooks", *words, "--hook", str(HOOK)).stdout

    def said(self) -> list[str]:
        """What the user's own commands have left in their log, in order."""
        return self.log.read_text().splitlines()

    def left(self, name: str) -> str:
        return (self.host.folder / name).read_text()


@pytest.fixture
def sites(lab: Lab) -> list[Site]:
    """All hosts up, the same jail.conf on each."""
    found = []
    for host in lab.hosts:
        host.configure(agent=QUICK)
        host.start_agent()
        host.start_exabgp()
    for host in lab.hosts:
        lab.await_session(host)
        host.grant("web1", PREFIXES)
        found.append(Site(host))
    return found


def announced(lab: Lab, host: Host) -> None:
    await_hooks(host)  # a look may have found the jail before its start was over
    for prefix in PREFIXES:
        lab.spine.fib.wait(prefix, via=host.address)
    assert all(lab.client.ping(address) for address in (IPV4, IPV6))


def withdrawn(lab: Lab) -> None:
    for prefix in PREFIXES:
        lab.spine.fib.wait(prefix, gone=True)


def test_a_users_jail_moves_and_its_file_is_restored(lab: Lab, sites: list[Site]) -> None:
    for site in sites:
        assert site.hooks("install", "jail.conf", "web1") == f"web1: installed (replace) in {site.host.jail_conf}\n"
        assert site.host.jail_conf.stat().st_mode & 0o777 == 0o640
    for site in (*sites, sites[0]):
        site.log.unlink(missing_ok=True)
        site.host.start_jail("web1")
        announced(lab, site.host)
        await_rest(lab, site.host, WEB1)
        # the jail's own start has found its network up
        assert IPV4 in site.left("at-start")
        assert IPV6 in site.left("at-start")
        site.host.stop_jail("web1")
        withdrawn(lab)
        await_rest(lab, site.host, {})
        # before the user's own prestop ran
        assert '"announced": false' in site.left("at-prestop")
        assert site.said() == ONCE + STOPPED
    for site in sites:
        assert "web1  replace  yes" in site.hooks("status", "jail.conf")
        site.hooks("remove", "jail.conf", "--all")
        assert site.host.jail_conf.read_text() == site.text
        assert site.host.jail_conf.stat().st_mode & 0o777 == 0o640


@pytest.mark.hosts(1)
def test_installed_while_the_jail_runs(lab: Lab, sites: list[Site]) -> None:
    (site,) = sites
    site.host.jail_conf.write_text(site.text.replace('vnet.interface = "nosuch0";', ""))
    site.host.start_jail("web1")
    announced(lab, site.host)  # found by looking
    out = site.hooks("install", "jail.conf", "web1")
    assert out.endswith("running now, so it counts from their next start: web1\n")
    site.host.stop_jail("web1")
    withdrawn(lab)
    await_rest(lab, site.host, {})
    assert '"announced": false' in site.left("at-prestop")
    site.host.start_jail("web1")
    announced(lab, site.host)
    await_rest(lab, site.host, WEB1)
    # and taken out while it runs
    site.hooks("remove", "jail.conf", "web1")
    site.host.stop_jail("web1")
    withdrawn(lab)
    await_rest(lab, site.host, {})


@pytest.mark.hosts(1)
def test_a_users_own_interface_is_adopted(lab: Lab, sites: list[Site]) -> None:
    (site,) = sites
    text = site.text.replace('"nosuch0"', "epair9b").replace(
        "own prestart >>", "own prestart; ifconfig epair9 create; ifconfig epair9a up >>"
    )
    text = text.replace("own poststop >>", "own poststop; ifconfig epair9a destroy >>")
    site.host.jail_conf.write_text(text)
    site.hooks("install", "jail.conf", "--adopt", "web1")
    site.host.start_jail("web1")
    announced(lab, site.host)
    assert status(site.host, "web1")["wired"]
    assert "epair9a" in site.host.run(["ifconfig", "-l"]).stdout.split()
    site.host.stop_jail("web1")
    withdrawn(lab)
    await_rest(lab, site.host, {})
    site.hooks("remove", "jail.conf", "web1")
    assert site.host.jail_conf.read_text() == text


@pytest.mark.hosts(1)
def test_a_jail_on_a_loopback_of_the_host(lab: Lab, sites: list[Site]) -> None:
    (site,) = sites
    (site.host.jails_d / "web1.toml").unlink()
    site.host.run(["ifconfig", "lo1", "create"])
    text = f'web1 {{ path = /; persist; ip4.addr = "lo1|{IPV4}"; ip6.addr = "lo1|{IPV6}/128"; }}\n'
    site.host.jail_conf.write_text(text)
    site.hooks("install", "jail.conf", "web1")
    assert site.host.jail_conf.read_text().count("hook ") == 3
    site.host.start_jail("web1")
    announced(lab, site.host)
    site.host.stop_jail("web1")
    withdrawn(lab)
    site.hooks("remove", "jail.conf", "web1")
    assert site.host.jail_conf.read_text() == text


@pytest.mark.hosts(1)
def test_a_file_of_the_jails_own_beside_jail_conf(lab: Lab, sites: list[Site]) -> None:
    (site,) = sites
    own = site.host.jail_conf.with_name("jail.conf.d") / "web1.conf"
    own.parent.mkdir()
    own.write_text("web1 { path = /; vnet; persist; allow.raw_sockets; }\n")
    site.host.jail_conf.write_text("idle { persist; }\n")
    site.hooks("install", "jail.conf", "--all")
    assert "# mobility" in own.read_text()
    site.host.run(["jail", "-f", own, "-c", "web1"])
    announced(lab, site.host)
    site.host.run(["jail", "-f", own, "-r", "web1"])
    withdrawn(lab)
    site.hooks("remove", "jail.conf", "--all")
    assert own.read_text() == "web1 { path = /; vnet; persist; allow.raw_sockets; }\n"


@pytest.mark.hosts(1)
def test_a_refused_install_leaves_the_file_alone(sites: list[Site]) -> None:
    (site,) = sites
    (site.host.jails_d / "web1.toml").unlink()
    done = site.host.mobility("hooks", "install", "jail.conf", "web1", "--hook", str(HOOK), check=False)
    assert done.returncode == 1
    assert "jail web1: with our hooks it could not start any more: nobody grants it an address: write " in done.stderr
    assert site.host.jail_conf.read_text() == site.text
    assert not [path for path in site.host.folder.iterdir() if path.name.startswith(".")]


@pytest.mark.hosts(1)
def test_the_hook_is_the_one_that_was_named(sites: list[Site], tmp_path: Path) -> None:
    (site,) = sites
    done = site.host.mobility("hooks", "install", "jail.conf", "web1", "--hook", str(tmp_path / "gone"), check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "is no program that can be run" in done.stderr


#: Its own jail.conf makes the link, and its start has not ended when a look finds it; then it undoes an address.
SLOW = """
  vnet.interface = "epair9b";
  exec.prestart += "ifconfig epair9 create; ifconfig epair9a up";
  exec.poststop += "ifconfig epair9a destroy";
  exec.poststart += "{hook} poststart 'web1'";
"""


@pytest.mark.hosts(1)
def test_what_a_start_undoes_after_a_look_is_mended_with_its_last_hook(sites: list[Site], lab: Lab) -> None:
    (site,) = sites
    host = site.host
    host.configure(agent=QUICK | {"inside_every": 600.0})
    new_agent(host)
    begun, go = host.folder / "begun", host.folder / "go"
    undo = f"ifconfig epair9b inet {IPV4} -alias"
    start = f"ifconfig lo0 inet 127.0.0.1/8 up; touch {begun}; until [ -e {go} ]; do sleep 0.02; done; {undo}"
    hook = shlex.join([str(HOOK), "-c", str(host.config)])
    host.define_jail("web1", (IPV4, IPV6), start=start, hooks=False, more=SLOW.format(hook=hook))
    starting = host.popen(["jail", "-f", host.jail_conf, "-c", "web1"])
    try:
        eventually(begun.exists, "its start", host)
        eventually(lambda: bool(status(host, "web1")["announced"]), "announcement by a look", host)
    finally:
        go.touch()
        starting.wait(timeout=30)
    announced(lab, host)
