"""What the doctor concludes from what it was shown: each verdict from both sides."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mobility import control, doctor
from mobility.config import Config, Peer, Problem, load
from mobility.damping import SUPPRESSED
from mobility.doctor import bgp, clock, jails, kernel, look
from mobility.doctor.bgp import Looked, Reach
from mobility.doctor.jails import Hooked
from mobility.doctor.kernel import Tried
from mobility.doctor.verdict import Level, Verdict, fail, healthy, ok, warn
from mobility.hooks.edit import Hook, State, Way
from mobility.jails.said import Said
from mobility.model import host_prefix
from mobility.network.command import Result
from tests.lab.ground import FREEBSD
from tests.lab.topology import REPOSITORY

OK, WARN, FAIL = Level
ONE, ZERO = "1\n", "0\n"
TRANSCRIPTS = REPOSITORY / "tests/lab/transcripts/freebsd-13.2"


def answer(stdout: str = "", status: int = 0, stderr: str = "") -> Result:
    return Result(("x",), status, stdout, stderr, 0.0)


GONE = answer("", 1, "sysctl: unknown oid 'kern.x'\n")


def recorded(name: str, command: str) -> Result:
    """What a real 13.2 answered to a command."""
    text = (TRANSCRIPTS / f"{name}.txt").read_text().partition(f"$ {command}\n")[2]
    lines = [line for line in text.partition("\n$ ")[0].splitlines() if not line.startswith("[exit")]
    return answer("\n".join(lines) + "\n")


def level(verdict: Verdict | None) -> Level:
    assert verdict is not None
    assert verdict.why
    return verdict.level


def test_what_is_told() -> None:
    assert ok("a", "b").lines() == ["ok    a: b"]
    assert fail("a", "b", "c").lines() == ["FAIL  a: b", "      mend: c"]
    assert warn("a", "b").describe() == {"what": "a", "level": "warn", "why": "b", "mend": ""}
    assert healthy([ok("a", "b"), warn("a", "b")])
    assert not healthy([ok("a", "b"), fail("a", "b")])


def test_a_command(tmp_path: Path) -> None:
    assert level(kernel.command_verdict("sh", [Path("/bin")])) is OK
    verdict = kernel.command_verdict("ifconfig", [tmp_path])
    assert (verdict.level, verdict.mend) == (FAIL, "set paths.commands in mobility.toml")


def test_who_asks() -> None:
    assert list(kernel.root_verdicts(0)) == []
    assert [verdict.level for verdict in kernel.root_verdicts(1001)] == [WARN]


def test_vnet_jails() -> None:
    assert level(kernel.vnet_verdict(answer(ONE))) is OK
    assert level(kernel.vnet_verdict(GONE)) is FAIL


def test_the_epair_module_and_its_queue() -> None:
    assert level(kernel.epair_verdict(recorded("15-host", "kldstat -q -m if_epair"))) is OK
    verdict = kernel.epair_verdict(answer("", 1))
    assert (verdict.level, verdict.mend) == (FAIL, "kldload if_epair && sysrc kld_list+=if_epair")
    assert level(kernel.epair_verdict(answer("", 127, "kldstat: no answer within 10 s"))) is WARN
    assert level(kernel.queue_verdict(GONE)) is OK
    assert "bug 227100" in kernel.queue_verdict(answer("2048\n")).why


@pytest.mark.parametrize(
    ("choice", "feature", "switch", "expected", "mend"),
    [
        ("auto", answer(ONE), answer(ONE), OK, ""),
        ("next-hop", answer(ONE), answer(ONE), OK, ""),
        ("interface", GONE, GONE, OK, ""),
        ("auto", GONE, GONE, OK, ""),
        ("auto", answer(ONE), answer(ZERO), OK, ""),
        ("next-hop", answer(ONE), answer(ZERO), FAIL, "sysctl net.route.ipv6_nexthop=1"),
        ("next-hop", GONE, GONE, FAIL, "upgrade to FreeBSD 13.1 or newer"),
    ],
)
def test_ipv4_over_ipv6_next_hops(choice: str, feature: Result, switch: Result, expected: Level, mend: str) -> None:
    verdict = kernel.next_hop_verdict(choice, feature, switch)
    assert verdict.level is expected
    assert verdict.mend.startswith(mend)
    assert ("interface routes do it" in verdict.why) == (choice == "auto" and switch.stdout != ONE)


def test_the_hosts_ipv4_address() -> None:
    header = "lo0: flags=8049<UP,LOOPBACK,RUNNING,MULTICAST> metric 0 mtu 16384\n\tinet 127.0.0.1 netmask 0xff000000\n"
    assert level(kernel.ipv4_verdict(answer(header))) is WARN
    assert level(kernel.ipv4_verdict(answer(header + "\tinet 192.0.0.8 netmask 0xffffffff\n"))) is WARN
    verdict = kernel.ipv4_verdict(answer(header + "\tinet 203.0.113.1 netmask 0xffffffff\n"))
    assert (verdict.level, verdict.why) == (OK, "203.0.113.1 on lo0")
    assert level(kernel.ipv4_verdict(answer("", 127, "no answer within 10 s"))) is FAIL


def test_forwarding() -> None:
    assert level(kernel.forwarding_verdict("net.inet.ip.forwarding", "gateway_enable", answer(ONE))) is OK
    verdict = kernel.forwarding_verdict("net.inet.ip.forwarding", "gateway_enable", answer(ZERO))
    assert verdict.level is FAIL
    assert verdict.mend == "sysctl net.inet.ip.forwarding=1 && sysrc gateway_enable=YES"
    assert "unknown oid" in kernel.forwarding_verdict("kern.x", "x_enable", GONE).why


def test_what_the_host_itself_sends() -> None:
    own = frozenset({"192.0.2.1"})
    assert "not tried" in kernel.origin_verdict([], own).why
    good = Tried("web1", "198.51.100.7", source="192.0.2.1")
    assert level(kernel.origin_verdict([good], own)) is OK
    for bad in (
        Tried("db1", "198.51.100.8", error="No route to host"),
        Tried("db1", "198.51.100.8", source="10.0.0.1"),
    ):
        verdict = kernel.origin_verdict([good, bad], own)
        assert verdict.level is FAIL
        assert "jail db1" in verdict.why
        assert 'ipv4_routes = "interface"' in verdict.mend


ENABLED = answer("Status: Enabled for 0 days 00:00:09           Debug: Urgent\n")


def test_pf_as_13_2_has_it() -> None:
    rules = answer(recorded("13-antispoof", "pfctl -sr").stdout.partition("foreign")[0])
    assert level(kernel.antispoof_verdict(ENABLED, rules)) is OK
    disabled = recorded("15-host", "pfctl -s info")
    assert level(kernel.antispoof_verdict(disabled, answer())) is WARN
    missing = kernel.antispoof_verdict(answer("", 127, "pfctl: not found"), answer())
    assert missing.level is WARN
    assert "service pf start" in missing.mend


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ("block drop in quick on mobility from urpf-failed to any", OK),
        ('block return in log quick from urpf-failed to any label "spoof"', OK),
        ("pass in quick on ix0 all flags S/SA keep state\nblock drop in quick on mobility from urpf-failed to any", OK),
        ("pass out quick all\nblock drop in quick on mobility from urpf-failed to any", OK),
        ("pass in quick on ! mobility all\nblock drop in quick on mobility from urpf-failed to any", OK),
        ("pass in quick all no state\nblock drop in quick on mobility from urpf-failed to any", WARN),
        ("pass quick on ! lo0 all\nblock drop in quick on mobility from urpf-failed to any", WARN),
        ("pass in quick on epair all\nblock drop in quick on mobility from urpf-failed to any", WARN),
        ("block drop in on mobility from urpf-failed to any", WARN),
        ("block drop in quick on mobility proto tcp from urpf-failed to any", WARN),
        ("block drop in quick on mobility inet from urpf-failed to any", WARN),
        ("block drop in quick on mob-web1 from urpf-failed to any", WARN),
        ("pass all no state", WARN),
        ("", WARN),
    ],
)
def test_pf_rules(rules: str, expected: Level) -> None:
    assert level(kernel.antispoof_verdict(ENABLED, answer(rules))) is expected


def test_nothing_of_failover_is_wrong() -> None:
    there = list(kernel.failover_verdicts(answer(), answer(), answer("1500000\n"), devd=True))
    absent = list(kernel.failover_verdicts(answer("", 1), answer("", 1), answer("1302001\n"), devd=False))
    assert {verdict.level for verdict in (*there, *absent)} == {OK}
    assert "IPv6 peers: yes" in there[1].why
    assert "IPv6 peers: from 14.0 on" in absent[1].why


def dump(state: int, length: int = 48) -> Result:
    return answer(f"{clock.SYSCTL}: Format:S,ntptimeval Length:{length} Dump:0x{'00' * 40}{state:02x}{'00' * 7}\n")


def test_the_clock() -> None:
    now = time.time()
    assert level(clock.clock_verdict(now, dump(0))) is OK
    assert level(clock.clock_verdict(now, dump(5))) is WARN
    assert "not known" in clock.clock_verdict(now, GONE).why
    assert "not known" in clock.clock_verdict(now, dump(5, length=40)).why
    assert level(clock.clock_verdict(86400.0, dump(0))) is FAIL


def test_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "a folder"
    assert "does not exist" in jails.folder_verdict("spool", folder).why
    folder.mkdir(mode=0o700)
    assert level(jails.folder_verdict("spool", folder)) is (OK if os.geteuid() == 0 else FAIL)
    if os.geteuid() == 0:
        there = os.statvfs(folder)
        for field, full in ((3, True), (6, True), (4, False)):
            found = os.statvfs_result([*there[:field], 0, *there[field + 1 :]])
            verdict = jails.folder_verdict("spool", folder, {folder: found}.__getitem__)
            assert (verdict.level is FAIL, "is full" in verdict.why) == (full, full)
    folder.chmod(0o755)
    verdict = jails.folder_verdict("spool", folder)
    assert verdict.level is FAIL
    assert verdict.mend == f"chown root '{folder}' && chmod 700 '{folder}'"
    file = tmp_path / "file"
    file.touch()
    assert "is no folder" in jails.folder_verdict("spool", file).why
    assert level(jails.folder_verdict("spool", file / "below")) is FAIL


def test_what_jails_are_granted() -> None:
    (good,) = jails.grants_verdicts(2, {}, {}, {})
    assert (good.level, good.why) == (OK, "2 jails have addresses granted")
    problems = {f"web{number}": [Problem("x", None, "wrong")] for number in range(9)}
    found = list(jails.grants_verdicts(2, problems, {"db1": ("not granted",)}, {host_prefix("192.0.2.1"): ("a", "b")}))
    assert [verdict.level for verdict in found] == [FAIL] * jails.SHOWN + [WARN, WARN, WARN]
    assert "192.0.2.1 is granted to a, b" in found[4].why
    assert "9 in all" in found[5].why


def hooked(jail: str, way: Way | None, *, complete: bool = True) -> Hooked:
    return Hooked(jail, "bastille", jail, State(jail, way, complete, Path("/x/jail.conf"), "prestop is not there"))


def test_hooks() -> None:
    good = hooked("web1", Way.REPLACE)
    (verdict,) = jails.hooks_verdicts(["web1"], [good])
    assert (verdict.level, verdict.why) == (OK, "installed for 1 of 1 jails that have addresses")
    bare, partly = hooked("db1", None), hooked("db2", Way.ADOPT, complete=False)
    broken = Hooked("ioc-db3", "iocage", "db3", error="config.json is no JSON")
    names = ["web1", "db1", "db2", "ioc-db3", "hand1"]
    found = list(jails.hooks_verdicts(names, [good, bare, partly, broken], ["--config", "/m.toml"]))
    assert [verdict.level for verdict in found] == [WARN, WARN, WARN, WARN, OK]
    assert found[0].mend == "mobility hooks install bastille db1 --config /m.toml"
    assert "prestop is not there" in found[1].why
    assert (found[2].why, found[2].mend.split()[3:5]) == ("config.json is no JSON", ["iocage", "db3"])
    assert "hand1" in found[3].why
    assert found[4].why == "installed for 1 of 4 jails that have addresses"
    many = [hooked(f"j{number}", None) for number in range(1000)]
    found = list(jails.hooks_verdicts([one.jail for one in many], many))
    assert len(found) == jails.SHOWN + 2
    assert found[jails.SHOWN].mend == "mobility hooks install bastille --all"


def test_the_hook_program() -> None:
    hook = Path("/usr/local/libexec/mobility/hook")
    assert list(jails.program_verdicts(hook, [hooked("web1", Way.REPLACE)], True)) == []
    assert list(jails.program_verdicts(hook, [hooked("web1", None)], False)) == []
    (verdict,) = jails.program_verdicts(hook, [hooked("web1", Way.REPLACE)], False)
    assert verdict.level is FAIL
    assert "web1 could not start" in verdict.why


def test_advice_of_managers_and_what_jails_lack() -> None:
    said = Said("web1", "bastille", "/x", True, advice=("its rc.conf sets defaultrouter: take it out",))
    (verdict,) = jails.advice_verdicts([said])
    assert (verdict.level, verdict.what) == (WARN, "jail web1 (bastille)")
    (verdict,) = jails.lacks_verdicts({"web1": "has no ifconfig"})
    assert verdict.level is FAIL


def test_exabgp() -> None:
    assert level(bgp.exabgp_verdict(answer("ExaBGP : 5.0.15\nPython : 3.11.2\n"))) is OK
    assert level(bgp.exabgp_verdict(answer("ExaBGP : 5.1.0\n"))) is OK
    assert level(bgp.exabgp_verdict(answer("ExaBGP : 4.2.21\n"))) is FAIL
    assert level(bgp.exabgp_verdict(answer("ExaBGP : 6.0.0\n"))) is WARN
    assert level(bgp.exabgp_verdict(answer("", 1, "exec format error"))) is FAIL
    assert level(bgp.capability_verdict(answer(), "")) is OK
    assert "invalid keyword" in bgp.capability_verdict(answer("", 1, 'invalid keyword "manual-eor"'), "").why
    assert level(bgp.capability_verdict(None, "a comma")) is FAIL


def test_who_runs_the_bridge() -> None:
    assert level(bgp.user_verdict("root", 0)) is OK
    assert bgp.user_verdict("exabgp", None).mend.startswith("pw useradd exabgp ")
    assert level(bgp.bridge_verdict("exabgp", None, "")) is OK
    assert "/root" in bgp.bridge_verdict("exabgp", Path("/root"), "").why
    assert level(bgp.bridge_verdict("exabgp", None, "signal 9")) is FAIL


def test_tcp_signatures() -> None:
    own, kernel = peer(password="secret"), peer(password="kernel")
    assert bgp.signature_verdict([peer()], able=True) is None
    assert bgp.signature_verdict([own], able=None) is None  # on Linux they are ExaBGP's own matter
    assert level(bgp.signature_verdict([kernel, peer()], able=True)) is OK
    verdict = bgp.signature_verdict([kernel, own], able=True)
    assert level(verdict) is FAIL
    assert verdict is not None
    assert "secret" not in str(verdict)
    assert """echo 'add ::1 ::1 tcp 0x1001 -A tcp-md5 "KEY";' >> /etc/ipsec.conf""" in verdict.mend
    verdict = bgp.signature_verdict([kernel], able=False)
    assert verdict is not None
    assert verdict.mend == "kldload tcpmd5 && sysrc kld_list+=tcpmd5"


STATUS: dict[str, Any] = {"pid": 7, "bridge": True, "problems": []}


def test_the_agent() -> None:
    assert [verdict.level for verdict in bgp.agent_verdicts(STATUS, "")] == [OK, OK]
    assert [verdict.level for verdict in bgp.agent_verdicts(None, "not running")] == [FAIL]
    assert [verdict.mend for verdict in bgp.agent_verdicts(None, "not running")] == ["service mobility start"]
    *_, last = bgp.agent_verdicts(STATUS | {"drained": ["*", "web1"]}, "")
    assert (last.level, last.why) == (WARN, "drained, and so not announced: the whole host, web1")
    hangs = "the agent did not answer 'status' within 10 s"
    assert [verdict.mend for verdict in bgp.agent_verdicts(None, hangs)] == ["service mobility restart"]
    sick = STATUS | {"bridge": False, "problems": ["the database can not be written"]}
    assert [verdict.level for verdict in bgp.agent_verdicts(sick, "")] == [OK, WARN, FAIL]
    full = STATUS | {"rib": {"over_limit": 3}}
    *_, last = bgp.agent_verdicts(full, "")
    assert last.level is FAIL
    assert "3 prefixes wait, refused" in last.why


def peer(**more: Any) -> Peer:
    values = {"next_hop_ipv4": None, "password": "", "port": 179, **more}
    return Peer("spine", "::1", 65000, "::1", "::1", **values)


def ipv4_peer(**more: Any) -> Peer:
    return Peer("old", "127.0.0.1", 65000, "127.0.0.1", None, "127.0.0.1", "", **more)


def test_ttl_security() -> None:
    assert bgp.hops_verdict([peer()], "freebsd14") is None
    assert level(bgp.hops_verdict([peer(ttl_security=1)], "linux")) is OK
    assert level(bgp.hops_verdict([ipv4_peer(port=1, ttl_security=1)], "freebsd14")) is OK
    assert level(bgp.hops_verdict([peer(ttl_security=1)], "freebsd14")) is WARN


def test_what_sessions_need_beside_the_configuration() -> None:
    peers = [peer(password="secret"), peer(password="kernel"), peer(ttl_security=1), peer()]
    assert bgp.notes(peers, "linux") == []
    own, kernel, hops = bgp.notes(peers, "freebsd14")
    assert 'write password = "kernel"' in own
    assert 'add ::1 ::1 tcp 0x1000 -A tcp-md5 "KEY";' in kernel
    assert "TTL security" in hops
    assert "secret" not in own


def test_sessions() -> None:
    only4 = {"rfc8950": True, "families": ["ipv4/unicast"], "held_back": {"the peer does not take IPv6 routes": 3}}
    up, no_ipv6, held = bgp.session_verdicts(peer(), only4)
    assert (level(up), level(no_ipv6), level(held)) == (OK, FAIL, WARN)
    assert no_ipv6.what == "BGP peer spine: IPv6"
    assert held.why == "3 held back: the peer does not take IPv6 routes"
    plain = {"rfc8950": False, "families": ["ipv4/unicast"]}
    assert [level(each) for each in bgp.session_verdicts(ipv4_peer(port=1, families=("ipv4",)), plain)] == [OK]
    assert [verdict.level for verdict in bgp.session_verdicts(peer(), {"rfc8950": True})] == [OK]
    assert [verdict.level for verdict in bgp.session_verdicts(peer(), {"rfc8950": False})] == [OK, FAIL]
    assert [verdict.level for verdict in bgp.session_verdicts(peer(next_hop_ipv4="192.0.2.1"), {"rfc8950": False})] == [
        OK
    ]


def test_a_peer_without_session_is_looked_at() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        port = server.getsockname()[1]
        assert look.reach(peer(port=port)) == Looked(peer(port=port), Reach.TAKEN)
    refused = look.reach(peer(port=port))
    assert refused.reach is Reach.REFUSED
    assert level(bgp.look_verdict(refused)) is FAIL
    strange = Peer("spine", "::1", 65000, "2001:db8::1", "::1", None, "", 179)
    assert look.reach(strange).reach is Reach.NOT_OURS
    assert "alias" in bgp.look_verdict(look.reach(strange)).mend
    with socket.create_server(("127.0.0.1", 0)) as server:
        old = ipv4_peer(port=server.getsockname()[1], ttl_security=1)
        assert look.reach(old).reach is Reach.TAKEN
    assert "inet 127.0.0.1/24 alias" in bgp.look_verdict(Looked(old, Reach.NOT_OURS)).mend
    assert "signed" in bgp.look_verdict(Looked(peer(), Reach.SILENT_SIGNED)).why
    assert "ping" in bgp.look_verdict(Looked(peer(), Reach.SILENT)).mend


def test_a_peer_whose_session_nobody_tells_of() -> None:
    dead = bgp.unknown_verdict(peer(password="secret"), agent=False)
    assert (dead.level, dead.mend) == (WARN, "")
    assert "not known: the agent does not answer" in dead.why
    assert "AS" not in dead.why
    without = bgp.unknown_verdict(peer(), agent=True)
    assert level(without) is FAIL
    assert "ExaBGP does not run" in without.why
    assert "AS" not in without.why
    assert look.away(peer()) == ""
    strange = Peer("spine", "::1", 65000, "2001:db8::1", "::1", None, "", 179)
    for agent in (True, False):
        verdict = bgp.unknown_verdict(strange, agent=agent, away=look.away(strange))
        assert level(verdict) is FAIL
        assert "on no interface" in verdict.why


@pytest.mark.parametrize("status", [None, STATUS | {"bridge": False, "sessions": []}])
def test_no_connection_is_tried_where_there_may_be_a_session(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, status: dict[str, Any] | None
) -> None:
    def asked(_path: Path, _operation: str, **_: Any) -> dict[str, Any]:
        if status is None:
            raise control.AgentNotRunning("not running")
        return {"host": status, "jails": []}

    monkeypatch.setattr(control, "request", asked)
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        server.settimeout(0.2)
        here = config(tmp_path)
        here = replace(here, bgp=replace(here.bgp, peers=(peer(port=server.getsockname()[1]),)))
        verdicts = {verdict.what: verdict for verdict in asyncio.run(doctor.examine(here))}
        with pytest.raises(TimeoutError):
            server.accept()
    assert level(verdicts["BGP peer spine"]) is (WARN if status is None else FAIL)
    assert "took" not in verdicts["BGP peer spine"].why


def test_a_password_may_be_the_cause() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        signed = peer(port=server.getsockname()[1], password="secret")
        taken = look.reach(signed)
    assert taken.reach is Reach.TAKEN_UNSIGNED
    for reach in (Reach.TAKEN_UNSIGNED, Reach.SILENT_SIGNED):
        verdict = bgp.look_verdict(Looked(signed, reach))
        assert level(verdict) is FAIL
        assert "password" in verdict.why
        assert "secret" not in f"{verdict.why} {verdict.mend}"
    assert "password" in bgp.look_verdict(Looked(peer(), Reach.SILENT)).why
    assert "password" not in bgp.look_verdict(Looked(peer(), Reach.TAKEN)).why


def kept_back(name: str, reason: str = "", **more: Any) -> dict[str, Any]:
    return {"name": name, "running": True, "announced": False, "reason": reason, "checks": [], **more}


def check(name: str, said: str, *, ready: bool = False, runs: int = 3, streak: int = 0) -> dict[str, Any]:
    return {"check": name, "said": said, "ready": ready, "runs": runs, "streak": streak}


def test_jails_that_are_kept_back() -> None:
    flaps = f"{SUPPRESSED} (penalty 6726, announced again at 3000)"
    http, good = check("http port 80 at 192.0.2.1", "Connection refused"), check("icmp", "answered", ready=True)
    (fine,) = jails.kept_back_verdicts(
        [
            kept_back("up", announced=True, checks=[http]),
            kept_back("gone", flaps, running=False),
            kept_back("new", checks=[check("icmp", "waits for its first answer", runs=0)]),
            kept_back("rising", checks=[check("icmp", "answered", streak=1)]),
            kept_back("drained", "drained"),
        ]
    )
    assert level(fine) is OK
    damped, unready = jails.kept_back_verdicts(
        [kept_back("web1", flaps, checks=[http]), kept_back("db1", checks=[good, http, http])]
    )
    assert (damped.what, damped.level, damped.why) == ("suppressed: jail web1", WARN, flaps)
    assert damped.mend.endswith("mobility release web1")
    assert (unready.what, unready.level) == ("not ready: jail db1", WARN)
    assert unready.why == "its check fails: http port 80 at 192.0.2.1: Connection refused; and 1 more"
    (many,) = jails.kept_back_verdicts([kept_back(f"j{number:03}", flaps) for number in range(500)])
    assert level(many) is WARN
    assert many.why.startswith(
        "500 jails run and are not announced: j000, j001, j002 and 497 more; the first: suppressed"
    )


def test_a_configuration_that_others_may_read(tmp_path: Path) -> None:
    path = tmp_path / "mobility.toml"
    path.touch(mode=0o644)
    path.chmod(0o644)
    assert jails.secret_verdict(path, [peer()]) is None
    assert jails.secret_verdict(path, [peer(password="kernel")]) is None
    verdict = jails.secret_verdict(path, [peer(password="secret")])
    assert level(verdict) is WARN
    assert verdict is not None
    assert verdict.mend == f"chmod 600 {path}"
    assert "secret" not in verdict.why
    path.chmod(0o600)
    assert jails.secret_verdict(path, [peer(password="secret")]) is None


def test_hooks_that_somebody_has_written(tmp_path: Path) -> None:
    note = "not there: prestart; exec.prestart calls another hook, or for another jail: {} prestart 'web1'"
    default = Path("/usr/local/etc/mobility/mobility.toml")
    explicit = jails.other_hook(note.format(f"/usr/local/libexec/mobility/hook -c {default}"))
    assert explicit == Hook(config=default)
    assert explicit is not None
    assert jails.differing(explicit, Hook(), default) == ""
    assert jails.other_hook("not there: prestart: install again") is None
    other = jails.other_hook(note.format("/srv/mobility/hook -c /m.toml"))
    assert other is not None
    assert jails.differing(other, Hook(), default) == (
        f"its hooks call /srv/mobility/hook, not {Hook().program}; its hooks are told of -c /m.toml, not {default}"
    )
    found = [replace(hooked(f"j{number}", Way.REPLACE), differs="its hooks call /x, not /y") for number in range(9)]
    stray, all_there = jails.hooks_verdicts([one.jail for one in found], found)
    assert (stray.level, stray.why) == (WARN, "jail j0, j1, j2 and 6 more: its hooks call /x, not /y")
    assert all_there.why == "installed for 9 of 9 jails that have addresses"


@pytest.mark.parametrize("program", ["/usr/local/libexec/mobility/hook", "/srv/mobility-hook"])
def test_hooks_by_hand_in_jail_conf(tmp_path: Path, program: str) -> None:
    here = config(tmp_path)
    folder = tmp_path / "jails.d"
    folder.mkdir()
    (folder / "web1.toml").write_text('addresses = ["198.51.100.7"]\n')
    lines = "".join(
        f"exec.{phase} += \"{program} -c {here.path} {phase} '${{name}}'\";\n"
        for phase in ("prestart", "created", "poststart", "prestop", "poststop")
    )
    (tmp_path / "jail.conf").write_text(f"web1 {{\nvnet;\npersist;\n{lines}}}\n")
    here = replace(here, managers=replace(here.managers, jail_conf=tmp_path / "jail.conf"))
    verdicts = {verdict.what: verdict for verdict in asyncio.run(doctor.examine(here))}
    assert verdicts["hooks"].why == "installed for 1 of 1 jails that have addresses"
    assert ("hooks by hand" in verdicts) == program.startswith("/srv")
    # neither is here, and the one that is called is named
    assert verdicts["hook program"].why == f"{program} can not be run, and web1 could not start"


def test_a_source_address_is_chosen_and_nothing_sent() -> None:
    assert look.source_to("web1", "127.0.0.1") == Tried("web1", "127.0.0.1", source="127.0.0.1")
    if not FREEBSD:  # which takes the broadcast address for a network's own
        assert look.source_to("web1", "255.255.255.255").error == "Permission denied"


def test_one_that_breaks_or_hangs_hides_no_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "WITHIN", 3.0)
    monkeypatch.setattr(look, "is_socket", lambda path: time.sleep(60))
    monkeypatch.setattr(clock, "clock_verdict", lambda now, gettime: 1 / 0)
    began = time.monotonic()
    verdicts = {verdict.what: verdict for verdict in asyncio.run(doctor.examine(config(tmp_path)))}
    assert time.monotonic() - began < 30
    assert verdicts["failover"].why == "could not be looked at within 3 s"
    assert verdicts["clock"].why == "could not be looked at: division by zero"
    assert verdicts["user nobody"].level is OK
    assert verdicts["command ifconfig"].level is FAIL
    assert "not running" in verdicts["agent"].why
    assert json.dumps([verdict.describe() for verdict in verdicts.values()])


def config(folder: Path) -> Config:
    """One of a host that has none of FreeBSD's commands."""
    path = folder / "mobility.toml"
    path.write_text(
        f"""
        [host]
        allowed = ["198.51.100.0/24"]
        [paths]
        commands = ["{folder}/bin"]
        run = "{folder}/run"
        state = "{folder}/state"
        jails_d = "{folder}/jails.d"
        [managers]
        bastille = ""
        iocage = ""
        jail_conf = ""
        [hooks]
        spool = "{folder}/spool"
        [bgp]
        as = 65001
        router_id = "10.0.0.1"
        user = "nobody"
        [[bgp.peer]]
        name = "spine"
        address = "::1"
        as = 65000
        local_address = "::1"
        port = 1
        """.replace("        ", "")
    )
    return load(path)
