"""[[check]] in a jail's file: what is taken, what is refused, and what becomes of it."""

from __future__ import annotations

import re
import tomllib
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobility import config
from mobility.config import Health, Problem
from mobility.health.checks import EACH, KINDS, MAX_CHECKS, Check, read, unfold
from mobility.jails import jailsd
from tests.readme import DEPLOY

ADDRESSES = ("198.51.100.7", "2001:db8:7::7")


def take(text: str) -> tuple[tuple[Check, ...], list[str]]:
    problems: list[Problem] = []
    return read(tomllib.loads(text), "web1.toml", problems), [str(problem) for problem in problems]


def good(text: str) -> tuple[Check, ...]:
    checks, problems = take(text)
    assert not problems
    return checks


def test_every_kind() -> None:
    checks = good("""
        [[check]]
        kind = "reach"
        silence = "unready"
        interval = 2
        [[check]]
        kind = "tcp"
        port = 22
        address = "2001:DB8:7:0::7"
        [[check]]
        kind = "http"
        [[check]]
        kind = "https"
        path = "/healthz?deep=1"
        host = "www.example.org:8443"
        status = [200, 204]
        contains = "ok"
        verify = false
        server_name = "www.example.org"
        timeout = 0.5
        rise = 2
        fall = 5
        [[check]]
        kind = "exec"
        command = ["/usr/bin/true", "-x", "a b"]
    """)
    assert checks == (
        Check("reach", silence="unready", interval=2.0),
        Check("tcp", port=22, address="2001:db8:7::7"),
        Check("http", port=80),
        Check(
            "https",
            port=443,
            path="/healthz?deep=1",
            host="www.example.org:8443",
            status=(200, 204),
            contains="ok",
            verify=False,
            server_name="www.example.org",
            timeout=0.5,
            rise=2,
            fall=5,
        ),
        Check("exec", command=("/usr/bin/true", "-x", "a b")),
    )
    assert {check.kind for check in checks} == set(KINDS)


@pytest.mark.parametrize(
    ("text", "key", "word"),
    [
        ('check = "tcp"', "check", "[[check]]"),
        ("check = [1]", "check", "[[check]]"),
        ("[check]\nkind = 'tcp'", "check", "[[check]]"),
        ("[[check]]", "check[0].kind", "missing"),
        ("[[check]]\nkind = 'icmp'", "check[0].kind", '"reach"'),
        ("[[check]]\nkind = 'tcp'", "check[0].port", "missing"),
        ("[[check]]\nkind = 'tcp'\nport = 0", "check[0].port", "1 to 65535"),
        ("[[check]]\nkind = 'tcp'\nport = 22\npath = '/'", "check[0].path", "is no setting"),
        ("[[check]]\nkind = 'tcp'\nport = 22\nintervall = 1", "check[0].intervall", "interval"),
        ("[[check]]\nkind = 'tcp'\nport = 22\ninterval = 0.1", "check[0].interval", "0.5 to 3600"),
        ("[[check]]\nkind = 'tcp'\nport = 22\ntimeout = 31", "check[0].timeout", "0.05 to 30"),
        ("[[check]]\nkind = 'tcp'\nport = 22\nrise = 0", "check[0].rise", "1 to 100"),
        ("[[check]]\nkind = 'tcp'\nport = 22\nfall = true", "check[0].fall", "1 to 100"),
        ("[[check]]\nkind = 'tcp'\nport = 22\naddress = 'www'", "check[0].address", "each"),
        ("[[check]]\nkind = 'tcp'\nport = 22\naddress = 1", "check[0].address", "each"),
        ("[[check]]\nkind = 'http'\npath = 'healthz'", "check[0].path", "/"),
        ("[[check]]\nkind = 'http'\npath = '/a b'", "check[0].path", "/"),
        ('[[check]]\nkind = "http"\npath = "/a\\r\\nX: y"', "check[0].path", "/"),
        ('[[check]]\nkind = "http"\nhost = "a\\r\\nX: y"', "check[0].host", "host name"),
        ("[[check]]\nkind = 'http'\nstatus = []", "check[0].status", "[200]"),
        ("[[check]]\nkind = 'http'\nstatus = [101]", "check[0].status", "200 to 599"),
        ("[[check]]\nkind = 'http'\nstatus = 200", "check[0].status", "list"),
        ("[[check]]\nkind = 'http'\ncontains = ''", "check[0].contains", "1024"),
        ("[[check]]\nkind = 'http'\nverify = true", "check[0].verify", "is no setting"),
        ("[[check]]\nkind = 'https'\nverify = 'no'", "check[0].verify", "true or false"),
        ("[[check]]\nkind = 'https'\nserver_name = 'a/b'", "check[0].server_name", "host name"),
        ("[[check]]\nkind = 'exec'", "check[0].command", "missing"),
        ("[[check]]\nkind = 'exec'\ncommand = '/usr/bin/true'", "check[0].command", "list"),
        ("[[check]]\nkind = 'exec'\ncommand = []", "check[0].command", "list"),
        ("[[check]]\nkind = 'exec'\ncommand = ['true']", "check[0].command", "absolute"),
        ('[[check]]\nkind = "exec"\ncommand = ["/a", "\\u0000"]', "check[0].command", "list"),
        ("[[check]]\nkind = 'exec'\ncommand = ['/a']\naddress = 'each'", "check[0].address", "is no setting"),
        ("[[check]]\nkind = 'reach'\n[[check]]\nkind = 'reach'\nrise = 2", "check[1].kind", "twice"),
        ("[[check]]\nkind = 'tcp'\nport = 22\n[[check]]\nkind = 'tcp'\nport = 22", "check[1]", "twice"),
        ("[[check]]\nkind = 'reach'\nsilence = 'yes'", "check[0].silence", '"unready"'),
        ("[[check]]\nkind = 'reach'\nenabled = 'off'", "check[0].enabled", "true or false"),
        (
            "addresses = ['198.51.100.7/32']\n[[check]]\nkind = 'tcp'\nport = 22\naddress = '198.51.100.8'",
            "check[0].address",
            "none of this jail's",
        ),
    ],
)
def test_a_mistake_is_named_with_its_remedy(text: str, key: str, word: str) -> None:
    _, problems = take(text)
    assert len(problems) == 1
    assert problems[0].startswith(f"web1.toml: {key}")
    assert word in problems[0]


def test_too_many() -> None:
    _, problems = take("".join(f"[[check]]\nkind = 'tcp'\nport = {n + 1}\n" for n in range(MAX_CHECKS + 1)))
    assert len(problems) == 1


def test_a_mistake_spoils_the_file_and_reaches_mobility_check() -> None:
    entry, problems = jailsd.parse("web1", "[[check]]\nkind = 'tcp'", "web1.toml", ())
    assert entry is None
    assert len(problems) == 1
    entry, problems = jailsd.parse("web1", "[[check]]\nkind = 'tcp'\nport = 22", "web1.toml", ())
    assert entry is not None
    assert entry.more.checks == (Check("tcp", port=22),)


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.sampled_from([f.name for f in fields(Check)]) | st.text(), inner)
    ),
    max_leaves=8,
)


@given(
    JUNK | st.lists(st.dictionaries(st.sampled_from([f.name for f in fields(Check)]), JUNK | st.sampled_from(KINDS)))
)
def test_nothing_makes_it_raise(junk: Any) -> None:
    problems: list[Problem] = []
    checks = read({"check": junk}, "web1.toml", problems)
    assert all(isinstance(check, Check) for check in checks)


def test_what_each_address_is_asked() -> None:
    checks = good("""
        [[check]]
        kind = "http"
        [[check]]
        kind = "tcp"
        port = 53
        address = "2001:db8:7::7"
        interval = 2
        rise = 2
        [[check]]
        kind = "exec"
        command = ["/usr/bin/true"]
    """)
    probes = unfold(checks, ADDRESSES, Health())
    assert [probe.name for probe in probes] == [
        "reach 198.51.100.7",
        "reach 2001:db8:7::7",
        "http port 80/ at 198.51.100.7",
        "http port 80/ at 2001:db8:7::7",
        "tcp port 53 at 2001:db8:7::7",
        "exec /usr/bin/true",
    ]
    assert (probes[0].interval, probes[0].timeout, probes[0].rise, probes[0].fall) == (30.0, 0.5, 1, 3)
    assert (probes[4].interval, probes[4].timeout, probes[4].rise, probes[4].fall) == (2.0, 3.0, 2, 3)
    assert probes[5].address == ""


def test_reach_is_the_hosts_setting_unless_the_jail_has_its_own() -> None:
    off = Health(reach=False, silence="unready", reach_every=20.0)
    assert unfold((), ADDRESSES, off) == ()
    assert unfold((), ADDRESSES, Health()) != ()
    assert unfold(good("[[check]]\nkind = 'reach'\nenabled = false"), ADDRESSES, Health()) == ()
    (one, _) = unfold(good("[[check]]\nkind = 'reach'"), ADDRESSES, off)
    assert (one.silence_is_good, one.interval) == (False, 20.0)
    (one, _) = unfold(good("[[check]]\nkind = 'reach'\nsilence = 'ready'\ninterval = 5"), ADDRESSES, off)
    assert (one.silence_is_good, one.interval) == (True, 5.0)
    (only,) = unfold((Check("reach", address=ADDRESSES[1]),), ADDRESSES, off)
    assert only.address == ADDRESSES[1]


# -- [health]


def test_the_section() -> None:
    data = {
        "reach": "off",
        "silence": "unready",
        "reach_every": 2,
        "reach_timeout": 0.1,
        "reach_rise": 2,
        "reach_fall": 4,
    }
    found, problems = config.parse({"health": data}, Path("mobility.toml"))
    assert not [problem for problem in problems if problem.key.startswith("health")]
    assert found.health == Health(False, "unready", 2.0, 0.1, 2, 4)
    empty, _ = config.parse({}, Path("mobility.toml"))
    assert empty.health == Health()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("reach", True),
        ("silence", "silent"),
        ("reach_every", 0),
        ("reach_timeout", 0),
        ("reach_rise", 0),
        ("reach_fall", 1.5),
    ],
)
def test_a_bad_value_is_refused(key: str, value: object) -> None:
    _, problems = config.parse({"health": {key: value}}, Path("mobility.toml"))
    assert [problem.key for problem in problems if problem.key.startswith("health")] == [f"health.{key}"]


# -- the manual


def test_every_setting_of_a_check_is_in_the_manual_and_no_other() -> None:
    page = (DEPLOY / "freebsd" / "man" / "mobility.toml.5").read_text()
    text = page.partition(".Ss Checks of jails")[2].partition(".Sh FILES")[0]
    assert sorted(re.findall(r"^\.It Cm (\S+)$", text, re.MULTILINE)) == sorted(f.name for f in fields(Check))
    for kind in KINDS:
        assert f".It Qq {kind}\n" in text


def test_a_probe_keeps_apart_what_differs() -> None:
    (one,) = unfold((Check("tcp", port=22),), ADDRESSES[:1], Health(reach=False))
    assert one != replace(one, rise=2)
    assert one.check.address == EACH
