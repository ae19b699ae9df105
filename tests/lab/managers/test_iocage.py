"""iocage's jails in both ways: announced to the real BIRD, reached, stopped, moved; by its own library and its commands."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from typing import Any

import pytest

from mobility.hooks.edit import Way, apply
from tests.lab.faults import await_hooks, running
from tests.lab.invariants import await_rest
from tests.lab.managers.iocage_home import SOURCE, Home, Library, Starter
from tests.lab.managers.iocage_sequence import Sequence
from tests.lab.topology import Host, Lab
from tests.waiting import until

IPV4, IPV6 = "198.51.100.7", "2001:db8:7::7"
PREFIXES = (f"{IPV4}/32", f"{IPV6}/128")
JAIL = "ioc-web1"
#: A look in the middle of an adopted jail's start would find its link, and take it out of its manager's hands: README, Limits.
QUICK = {"look_every": 60.0, "inside_every": 1.0, "reject_for": 0.5, "drain_for": 0.2, "settle_for": 3.0}
WEB1: dict[str, Any] = {
    "ip4_addr": f"vnet0|{IPV4}/32",
    "ip6_addr": f"vnet0|{IPV6}/128",
    "defaultrouter": "none",
    "defaultrouter6": "none",
    "vnet_default_interface": "none",
}
NO_SOURCE = "MOBILITY_IOCAGE names no source tree of iocage"
LIBRARY = pytest.param(Library, id="library", marks=pytest.mark.skipif(not SOURCE, reason=NO_SOURCE))
STARTERS = [LIBRARY, pytest.param(Sequence, id="commands")]
Make = Callable[[Home], Starter]


def _homes(lab: Lab, hosts: list[Host]) -> list[Home]:
    found = [Home(host, agent=QUICK) for host in hosts]
    for host in hosts:
        host.start_agent()
        host.start_exabgp()
    for host in hosts:
        lab.await_session(host)
    return found


@pytest.fixture
def homes(lab: Lab) -> list[Home]:
    """An iocage on each of two hosts that are up."""
    return _homes(lab, lab.hosts)


@pytest.fixture
def home(lab: Lab) -> Home:
    """An iocage on one host that is up."""
    return _homes(lab, lab.hosts[:1])[0]


def announced(lab: Lab, host: Host) -> None:
    await_hooks(host)  # a look may have found the jail before its start was over
    for prefix in PREFIXES:
        lab.spine.fib.wait(prefix, via=host.address)


def withdrawn(lab: Lab) -> None:
    for prefix in PREFIXES:
        lab.spine.fib.wait(prefix, gone=True)


def reaches(lab: Lab) -> bool:
    return all(lab.client.ping(address) for address in (IPV4, IPV6))


def interfaces(host: Host) -> list[str]:
    return host.run(["ifconfig", "-l"]).stdout.split()


@pytest.mark.parametrize("make", STARTERS)
def test_replace(lab: Lab, homes: list[Home], make: Make) -> None:
    for home in homes:
        home.create("web1", (IPV4, IPV6), **WEB1)
        home.install("web1", Way.REPLACE)
    for home in (*homes, homes[0]):
        starter = make(home)
        starter.start("web1")
        announced(lab, home.host)
        assert reaches(lab)
        # its own rc found the network up
        assert home.found("web1") == [f"found {IPV4}", f"found {IPV6}"]
        await_rest(lab, home.host, {JAIL: (IPV4, IPV6)})
        starter.stop("web1")
        withdrawn(lab)
        await_rest(lab, home.host, {})


@pytest.mark.parametrize("make", STARTERS)
def test_adopt(lab: Lab, homes: list[Home], make: Make) -> None:
    for home in homes:
        home.create("web1", (IPV4, IPV6), **WEB1)
        home.install("web1", Way.ADOPT)
    for home in (*homes, homes[0]):
        starter = make(home)
        starter.start("web1")
        announced(lab, home.host)
        until(lambda: reaches(lab), "what the manager did after a look had found the jail is not mended")
        (outer,) = [name for name in interfaces(home.host) if name.startswith("vnet0.")]
        assert "member" not in home.host.run(["ifconfig", "bridge0"]).stdout
        described = home.host.run(["ifconfig", outer]).stdout
        assert "description: associated with jail: web1 as nic: epair0b\n" in described
        assert "groups: epair mobility\n" in described
        starter.stop("web1")
        withdrawn(lab)
        assert outer not in interfaces(home.host)
        await_rest(lab, home.host, {})


@pytest.mark.parametrize("make", STARTERS)
@pytest.mark.hosts(1)
def test_adopt_from_a_network_on_the_bridge(lab: Lab, home: Home, make: Make) -> None:
    """As iocage's users have it: a whole network on the bridge, the host as its router."""
    starter = make(home)
    bridge = ["ifconfig", "bridge0"]
    home.host.run([*bridge, "create"])
    home.host.run([*bridge, "inet", "198.51.100.1/24", "up"])
    home.host.run([*bridge, "inet6", "2001:db8:7::1/64"])
    home.create(
        "web1",
        **WEB1
        | {
            "ip4_addr": f"vnet0|{IPV4}/24",
            "ip6_addr": f"vnet0|{IPV6}/64",
            "defaultrouter": "198.51.100.1",
            "defaultrouter6": "2001:db8:7::1",
        },
    )
    home.install("web1", Way.ADOPT)
    starter.start("web1")
    announced(lab, home.host)
    until(lambda: reaches(lab), "what the manager did after a look had found the jail is not mended")
    inside = home.host.run(["jexec", JAIL, "ifconfig", "epair0b"]).stdout
    assert f"inet {IPV4} netmask 0xffffffff" in inside
    assert f"inet6 {IPV6} prefixlen 128" in inside
    starter.stop("web1")
    withdrawn(lab)


@pytest.mark.parametrize("make", STARTERS)
@pytest.mark.parametrize("way", Way)
@pytest.mark.hosts(1)
def test_stopped_by_force(lab: Lab, home: Home, make: Make, way: Way) -> None:
    """No exec_prestop is run: the routes go with exec_poststop."""
    starter = make(home)
    home.create("web1", **WEB1)
    home.install("web1", way)
    starter.start("web1")
    announced(lab, home.host)
    starter.stop("web1", force=True)
    withdrawn(lab)
    await_rest(lab, home.host, {})


@pytest.mark.parametrize("make", STARTERS)
@pytest.mark.parametrize("way", Way)
@pytest.mark.hosts(1)
def test_killed_behind_iocages_back(lab: Lab, home: Home, make: Make, way: Way) -> None:
    starter = make(home)
    home.create("web1", **WEB1)
    home.install("web1", way)
    starter.start("web1")
    announced(lab, home.host)
    home.host.run(["jail", "-R", JAIL])
    running(home.host).process.send_signal(signal.SIGHUP)  # it looks now
    withdrawn(lab)
    if way is Way.REPLACE:
        await_rest(lab, home.host, {})
    starter.start("web1")
    announced(lab, home.host)
    assert reaches(lab)


@pytest.mark.parametrize("make", STARTERS)
@pytest.mark.hosts(1)
def test_a_users_own_command_that_fails_stops_the_start(lab: Lab, home: Home, make: Make) -> None:
    starter = make(home)
    home.host.stop_agent()
    home.host.configure(agent={**QUICK, "starting_for": 1.0}, managers={"iocage": str(home.root)})
    home.host.start_agent()
    home.create("web1", exec_prestart="/bin/true && /bin/false", **WEB1)
    home.install("web1", Way.REPLACE)
    assert starter.start("web1", check=False).returncode != 0
    assert home.host.run(["jls", "name"]).stdout == ""
    await_rest(lab, home.host, {})


@pytest.mark.parametrize("make", STARTERS)
@pytest.mark.hosts(1)
def test_without_an_agent_the_jail_is_not_started(lab: Lab, home: Home, make: Make) -> None:
    starter = make(home)
    home.create("web1", **WEB1)
    home.install("web1", Way.REPLACE)
    home.host.stop_agent()
    home.host.configure(hooks={"timeout": 1}, managers={"iocage": str(home.root)})
    refused = starter.start("web1", check=False)
    assert refused.returncode != 0
    # what the hook says need not be there: iocage keeps its last 30 reads, empty ones too (ioc_exec.py, exec_jail)
    assert "exec_prestart failed" in refused.stderr
    assert home.host.run(["jls", "name"]).stdout == ""


@pytest.mark.parametrize("make", STARTERS)
@pytest.mark.parametrize("way", Way)
def test_a_jail_on_a_loopback_of_the_host(lab: Lab, homes: list[Home], make: Make, way: Way) -> None:
    for home in homes:
        home.host.run(["ifconfig", "lo1", "create"])
        home.create("web1", vnet=0, ip4_addr=f"lo1|{IPV4}/32", ip6_addr=f"lo1|{IPV6}/128")
        home.install("web1", way)
    for home in homes:
        starter = make(home)
        starter.start("web1")
        announced(lab, home.host)
        assert reaches(lab)
        starter.stop("web1")
        withdrawn(lab)


@pytest.mark.parametrize("make", STARTERS)
@pytest.mark.hosts(1)
def test_a_jail_whose_bridge_reaches_beyond_the_host_is_refused_its_default_route(home: Home, make: Make) -> None:
    """What the advice about defaultrouter says: iocage takes the host's own, which here is of the other family."""
    starter = make(home)
    home.create("web1", **{**WEB1, "defaultrouter": "auto"})
    home.install("web1", Way.ADOPT)
    refused = starter.start("web1", check=False)
    assert refused.returncode != 0
    assert "bad address" in refused.stderr
    assert home.host.run(["jls", "name"]).stdout == ""


@pytest.mark.parametrize("make", STARTERS)
@pytest.mark.parametrize("way", Way)
@pytest.mark.hosts(1)
def test_what_iocage_writes_meanwhile_is_no_difference(home: Home, make: Make, way: Way) -> None:
    starter = make(home)
    home.create("web1", **WEB1)
    path = home.jail("web1") / "config.json"
    before = path.read_bytes()
    home.install("web1", way)
    starter.start("web1")
    starter.stop("web1")
    assert home.editor.state("web1").complete
    assert home.editor.install("web1", way) == []
    apply(home.editor.remove("web1"))
    written = {"last_started", "vnet0_mac"}
    assert _without(json.loads(path.read_bytes()), written) == _without(json.loads(before), written)
    assert path.read_text() == json.dumps(json.loads(path.read_bytes()), sort_keys=True, indent=4, ensure_ascii=False)


@pytest.mark.skipif(not SOURCE, reason=NO_SOURCE)
@pytest.mark.hosts(1)
def test_what_iocage_makes_of_our_properties(home: Home) -> None:
    library = Library(home)
    home.create("web1", **WEB1)
    home.install("web1", Way.REPLACE)
    path = home.jail("web1") / "config.json"
    before = path.read_bytes()
    assert library.run("get", "web1", "mobility_way").stdout.strip() == "replace"
    assert "'mobility_way': 'replace'" in library.run("get", "web1", "all").stdout
    assert "cannot be changed by the user" in library.run("set", "web1", "mobility_way=adopt", check=False).stderr
    assert path.read_bytes() == before
    library.run("set", "web1", "notes=changed")
    assert json.loads(path.read_bytes()) == json.loads(before) | {"notes": "changed"}
    assert home.editor.state("web1").complete


@pytest.mark.skipif(not SOURCE, reason=NO_SOURCE)
@pytest.mark.hosts(1)
def test_an_address_changed_on_a_running_jail(lab: Lab, home: Home) -> None:
    library = Library(home)
    home.create("web1", **WEB1)
    home.install("web1", Way.ADOPT)
    library.start("web1")
    announced(lab, home.host)
    library.run("set", "web1", "ip4_addr=vnet0|198.51.100.8/32")
    lab.spine.fib.wait("198.51.100.8/32", via=home.host.address)
    lab.spine.fib.wait(PREFIXES[0], gone=True)
    # the jail's default route goes with its first address, and comes back
    assert any(lab.client.ping("198.51.100.8") for _ in range(3))
    assert lab.client.ping(IPV6)
    library.stop("web1")
    lab.spine.fib.wait("198.51.100.8/32", gone=True)
    await_rest(lab, home.host, {})


@pytest.mark.skipif(not SOURCE, reason=NO_SOURCE)
@pytest.mark.hosts(1)
def test_a_renamed_jail(lab: Lab, home: Home) -> None:
    library = Library(home)
    home.create("web1", **WEB1)
    home.install("web1", Way.REPLACE)
    library.run("rename", "web1", "web2")
    state = home.editor.state("web2")
    assert (state.installed, state.complete) == (Way.REPLACE, False)
    home.install("web2", Way.REPLACE)
    library.start("web2")
    announced(lab, home.host)
    assert reaches(lab)
    library.stop("web2")
    withdrawn(lab)


def _without(properties: dict[str, Any], keys: set[str]) -> dict[str, Any]:
    return {key: value for key, value in properties.items() if key not in keys}
