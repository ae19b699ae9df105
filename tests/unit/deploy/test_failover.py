"""deploy/freebsd/failover: what a gateway pair is told, held against the lab's pair, transcripts and the man pages."""

from __future__ import annotations

import ipaddress
import re
import shlex
import tomllib
from pathlib import Path

import pytest

from mobility import config
from mobility.failover import model
from tests.lab import pair
from tests.readme import DEPLOY, PATH, REPOSITORY, block

FOLDER = DEPLOY / "freebsd" / "failover"
RECORDED = REPOSITORY / "tests" / "lab" / "transcripts" / "freebsd-13.2"
FABRIC, LAN, SYNC = "ix0", "ix1", "ix2"


def assigned(name: str = "rc.conf") -> dict[str, str]:
    """Return the assignments of rc.conf, as a shell reads them."""
    words = shlex.split((FOLDER / name).read_text(), comments=True)
    return dict(word.split("=", 1) for word in words)


def rules() -> list[str]:
    """Return the lines of pf.conf that are no remarks."""
    return [line for line in (FOLDER / "pf.conf").read_text().splitlines() if line and not line.startswith("#")]


def macros() -> dict[str, str]:
    """Return the macros of pf.conf."""
    return dict(found for line in rules() for found in re.findall(r'^(\w+)\s*= "(.*)"$', line))


def notifies() -> list[dict[str, str]]:
    """Return the `notify` statements of devd.conf."""
    text = re.sub(r"^#.*$", "", (FOLDER / "devd.conf").read_text(), flags=re.MULTILINE)
    return [
        dict(re.findall(r'match "(\w+)"\s+"(.+)";', body)) | dict(re.findall(r'(action) "(.+)";', body))
        for body in re.findall(r"notify \d+ \{(.*?)\n\};", text, re.DOTALL)
    ]


def test_the_addresses_are_those_of_the_labs_pair() -> None:
    """So that what is tried there is what stands here."""
    conf = assigned()
    assert conf[f"ifconfig_{LAN}"] == f"inet 198.51.100.34/{pair.LAN4.partition('/')[2]}"
    assert conf[f"ifconfig_{LAN}_ipv6"] == f"inet6 2001:db8:7:0:1a::2/{pair.LAN6.partition('/')[2]}"
    assert conf[f"ifconfig_{LAN}_alias0"].split()[:2] == ["inet", f"{pair.CARP4}/32"]
    assert conf[f"ifconfig_{LAN}_alias1"].split()[:2] == ["inet6", f"{pair.CARP6}/80"]
    assert (macros()["lan4"], macros()["lan6"]) == pair.LANS
    assert conf["pfsync_syncpeer"] == pair.PEER_GROUP


@pytest.mark.parametrize("number", [0, 1])
def test_each_vhid_is_written_as_the_man_page_has_it(number: int) -> None:
    """EXAMPLES of pfsync(4): `ifconfig_sis1_alias0="inet 192.168.0.1/24 vhid 2 pass bar advskew 100"`."""
    words = assigned()[f"ifconfig_{LAN}_alias{number}"].split()
    family, address, *rest = words
    assert ipaddress.ip_interface(address).version == (4 if family == "inet" else 6)
    said = dict(zip(rest[::2], rest[1::2], strict=True))
    assert model.vhid(f"{said['vhid']}@{LAN}").number == number + 1
    assert said.keys() == {"vhid", "advskew", "pass"}
    assert 0 <= int(said["advskew"]) < 240  # demoted, it is 240 (ip_carp.c, CARP_MAXSKEW)


def test_rc_takes_no_part_of_it_for_a_range_of_addresses() -> None:
    """network.subr, ifalias_af_common_handler: `${_af}\\ *[0-9a-fA-F]-*` is one."""
    for name, value in assigned().items():
        if "_alias" in name:
            assert not re.search(r"[0-9a-fA-F]-", value), name


def test_the_two_hear_each_other_over_ipv6_alone() -> None:
    conf = assigned()
    peer = ipaddress.ip_address(conf["pfsync_syncpeer"])
    assert isinstance(peer, ipaddress.IPv6Address)
    assert peer.is_multicast  # pfsync(4), NETWORK SYNCHRONISATION: its multicast address with link-local addresses
    assert conf["pfsync_syncdev"] == SYNC
    # rc.conf(5): without an _ipv6 line the interface is IFDISABLED; without any line it is not brought up at all
    assert conf[f"ifconfig_{SYNC}"] == "up"
    assert conf[f"ifconfig_{SYNC}_ipv6"].startswith("inet6 ")
    for interface in (FABRIC, SYNC):
        assert "inet " not in conf[f"ifconfig_{interface}"]
    # what 13.2 says to that peer is why the remark is there
    assert "ifconfig pfsync0 syncpeer ff12::f0\nifconfig: error" in (RECORDED / "7-pfsync.txt").read_text()
    assert "On 13.2 the cable needs IPv4" in (FOLDER / "rc.conf").read_text()


def test_what_rc_needs_is_switched_on() -> None:
    conf = assigned()
    for name in ("gateway", "ipv6_gateway", "pf", "pfsync", "devd", "mobility", "mobility_exabgp"):
        assert conf[f"{name}_enable"] == "YES"
    assert "carp" in conf["kld_list"].split()  # rc.d/pf and rc.d/pfsync have required_modules, nobody loads carp


def test_preempt_is_on_and_demotion_left_alone() -> None:
    settings = dict(
        line.split("=", 1) for line in (FOLDER / "sysctl.conf").read_text().splitlines() if line[:1] not in ("", "#")
    )
    assert settings == {"net.inet.carp.preempt": "1"}
    assert "net.inet.carp.preempt: 0\n" in (RECORDED / "6-carp.txt").read_text()  # which is not the default


def test_pf_lets_the_pair_be_one_before_anything_is_blocked() -> None:
    """EXAMPLES of pfsync(4) has both lines, "to the top of /etc/pf.conf"."""
    lines = rules()
    found = macros()
    assert (found["fabric"], found["lan"], found["sync"]) == (FABRIC, LAN, SYNC)
    wanted = [
        "pass quick on $sync proto pfsync keep state (no-sync)",
        "pass quick on $lan proto carp keep state (no-sync)",
    ]
    at = [lines.index(each) for each in wanted]
    assert max(at) < min(number for number, line in enumerate(lines) if line.startswith("block"))
    assert "set state-policy floating" in lines


def test_pfs_states_of_the_host_itself_stay_its_own() -> None:
    (session,) = [line for line in rules() if line.startswith("pass out") and "<routers>" in line]
    assert session.endswith("keep state (no-sync)")


def test_pf_keeps_jails_to_their_addresses_here_too() -> None:
    sample = (FOLDER.parent / "pf.conf.sample").read_text().splitlines()
    both = [line for line in sample if re.match(r"(pass|block).* on mobility (inet6 )?from ", line)]
    assert len(both) == 2
    lines = rules()
    assert lines.index(both[0]) + 1 == lines.index(both[1])


def test_macros_and_tables_are_all_there_and_all_used() -> None:
    text = "\n".join(rules())
    assert set(re.findall(r"\$(\w+)", text)) == set(macros())
    assert set(re.findall(r"<(\w+)>", text)) == set(re.findall(r"^table <(\w+)>", text, re.MULTILINE))
    for line in rules():
        assert line.count("{") == line.count("}")
        assert line.count("(") == line.count(")")


def test_devd_pokes_the_agent_at_each_event_that_a_real_one_told() -> None:
    recorded = re.findall(
        r"^!system=(\S+) subsystem=(\S+) type=(\S+)$", (RECORDED / "6-carp.txt").read_text(), re.MULTILINE
    )
    carp, link = notifies()
    events = [found for found in recorded if found[0] == carp["system"]]
    assert {state for _, _, state in events} == set(model.STATES)
    for _, subsystem, state in events:
        # devd.conf(5): all expressions have an implicit ^$ around them
        assert re.fullmatch(carp["subsystem"], subsystem)
        assert re.fullmatch(carp["type"], state)
    assert re.fullmatch(carp["subsystem"], "12@ix0.100")
    for interface in (LAN, SYNC):
        assert re.fullmatch(link["subsystem"], interface)
    assert not re.fullmatch(link["subsystem"], FABRIC)  # BGP's sessions tell of that one
    for kind in ("LINK_UP", "LINK_DOWN"):
        assert re.fullmatch(link["type"], kind)


def test_the_readmes_section_is_of_this_pair() -> None:
    page = PATH.read_text()
    own = tomllib.loads((DEPLOY / "mobility.toml.sample").read_text())
    own |= tomllib.loads(block(page, "pair"))
    loaded, problems = config.parse(own, Path("mobility.toml"))
    assert not problems
    (group,) = loaded.failover.groups
    assert [str(each) for each in group.vhids] == [f"1@{LAN}", f"2@{LAN}"]
    assert tuple(map(str, group.services)) == pair.LANS
    how = page.partition("\n## CARP pair\n")[2].partition("\n## ")[0]
    for name in ("rc.conf", "sysctl.conf", "pf.conf", "devd.conf"):
        assert f"`{name}`" in how
        assert (FOLDER / name).exists()
    # what the router's file has, and the LAN beside it
    router = (DEPLOY / "fabric" / "bird.conf").read_text()
    for line in re.findall(r"`(define JAILS. = \[ .* \];)`", how):
        prefixes = re.findall(r"[0-9a-f:.]+/\d+(?:\{\d+,\d+\})?", line)
        assert prefixes[0] in router
        assert prefixes[1] in pair.LANS


def test_devd_does_not_decide() -> None:
    minimal = tomllib.loads((DEPLOY / "mobility.toml.sample").read_text())
    loaded, problems = config.parse(minimal, Path("mobility.toml"))
    assert not problems
    for each in notifies():
        assert each["action"] == f"/bin/pkill -HUP -L -F {loaded.paths.run}/agent.pid"
    assert f"on {loaded.paths.devd}." in (FOLDER / "devd.conf").read_text()


@pytest.mark.parametrize("name", sorted(path.name for path in FOLDER.iterdir()))
def test_each_paragraph_says_why(name: str) -> None:
    text = (FOLDER / name).read_text()
    assert max(map(len, text.splitlines())) <= 128
    assert text.startswith("# ")
    if name in ("rc.conf", "sysctl.conf"):
        for paragraph in text.strip().split("\n\n"):
            assert paragraph.startswith("# "), paragraph
