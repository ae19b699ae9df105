"""What FreeBSD printed, read back: the inputs are the recorded transcripts themselves."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mobility.network import naming, output
from mobility.network.command import Result

TRANSCRIPTS = Path(__file__).parents[1] / "lab" / "transcripts" / "freebsd-13.2"


def answers(name: str, command: str) -> list[str]:
    """Return what each call of `command` printed in the transcript `name`."""
    blocks = re.split(r"^\$ ", (TRANSCRIPTS / f"{name}.txt").read_text(), flags=re.MULTILINE)
    found = [block.split("\n", 1)[1] for block in blocks if block.split("\n", 1)[0] == command]
    return [re.sub(r"\n*(# .*)?\Z", "\n", text) for text in found]


def result(command: str, stdout: str, status: int = 0, stderr: str = "") -> Result:
    return Result(tuple(command.split()), status, stdout, stderr, 0.001)


def test_the_outer_end_as_freebsd_shows_it() -> None:
    (text,) = answers("8-reference", "ifconfig mob-web1")
    (interface,) = output.interfaces(text)["mob-web1"]
    assert interface == output.Interface(
        "mob-web1",
        up=True,
        ether="02:aa:aa:00:01:01",
        description="mobility jail web1",
        groups=frozenset({"epair", "mobility"}),
        inet6=("fe80::1",),
        nd6=frozenset({"PERFORMNUD", "NO_DAD"}),
    )


def test_the_inside_as_freebsd_shows_it() -> None:
    (text,) = answers("8-reference", "jexec web1 ifconfig")
    found = output.interfaces(text)
    assert list(found) == ["lo0", "pflog0", "pfsync0", "in-web1"]
    (inner,) = found["in-web1"]
    assert (inner.inet, inner.inet6, inner.up) == (("198.51.100.7",), ("fe80::2", "2001:db8:7::7"), True)
    assert found["lo0"][0].inet == ("127.0.0.1",)


def test_a_tentative_address_does_not_count() -> None:
    before, after = answers("1-interfaces", "ifconfig epair7b")[:2]
    assert output.interfaces(before)["epair7b"][0].inet6 == ()
    assert "2001:db8::8" in output.interfaces(after)["epair7b"][0].inet6


def test_an_interface_whose_name_holds_a_space_and_two_of_one_name() -> None:
    header = "flags=8862<BROADCAST,RUNNING,SIMPLEX,MULTICAST> metric 0 mtu 1500\n"
    found = output.interfaces(f"a b: {header}\tether 02:00:00:00:00:01\neth0: {header}eth0: {header}")
    assert len(found["eth0"]) == 2
    assert found["a b"][0].ether == "02:00:00:00:00:01"
    assert output.NetView(found).interface("eth0") is None


def test_routes_as_freebsd_shows_them() -> None:
    (text,) = answers("3-routes", "netstat --libxo json -rn")
    routes = output.routes(result("netstat -rn --libxo json", text))
    assert routes["198.51.100.7"] == (output.Route(4, "198.51.100.7", "fe80::2%mob-web1", "UGHS", "mob-web1"),)
    assert routes["2001:db8:7::7"][0].reject
    assert {route.version for several in routes.values() for route in several} == {4, 6}


def test_jails_as_freebsd_shows_them() -> None:
    (text,) = answers("2-vnet", "jls --libxo json name jid path vnet dying")
    assert output.jails(result("jls --libxo json", text)) == {"d": output.Jail("d", 5, vnet=True, path="/")}


def test_a_jail_that_is_not_there() -> None:
    gone = result("jls -j nosuch jid", "", 1, 'jls: jail "nosuch" not found\n')
    assert output.jails(gone) == {}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"jail-information": {"jail": [{"name": "x"}]}}', "null"])
def test_another_answer_is_named_and_never_guessed(text: str) -> None:
    with pytest.raises(output.OutputError, match="jls"):
        output.jails(result("jls --libxo json", text))
    with pytest.raises(output.OutputError, match="netstat"):
        output.routes(result("netstat -rn --libxo json", text))


def test_a_failing_jls_is_no_empty_host() -> None:
    with pytest.raises(output.OutputError, match="not permitted"):
        output.jails(result("jls", "", 1, "jls: Operation not permitted\n"))


# -- names


def test_names_fit_and_differ() -> None:
    jails = ["web1", "a" * 11, "a" * 12, "a" * 13, "a" * 63, "web.example-1_2", "web.example-1_3"]
    for name_of in (naming.outer_name, naming.inner_name):
        names = [name_of(jail) for jail in jails]
        assert len(set(names)) == len(jails)
        assert all(len(name) <= 15 for name in names)


def test_macs_are_ours_and_keep() -> None:
    first = naming.inner_mac("a", "web1")
    assert first == naming.inner_mac("a", "web1")
    assert (
        len({first, naming.outer_mac("a", "web1"), naming.inner_mac("b", "web1"), naming.inner_mac("a", "web2")}) == 4
    )
    assert int(first[:2], 16) & 3 == 2


def test_a_description_names_jail_and_pair() -> None:
    assert naming.described(naming.description("web1", "epair7")) == ("web1", "epair7")
    assert naming.described("mobility jail web1") is None
    assert naming.described("mobility jail a b epair7") is None
    assert naming.described("mobility jail web1 epair7\nmob-x: flags=8863<UP>") is None


def test_the_hosts_own_ipv4_is_neither_the_dummy_nor_a_jails() -> None:
    text = (
        "lo0: flags=8049<UP> metric 0 mtu 16384\n\tinet 192.0.0.8 netmask 0xffffffff\n\tgroups: lo\n"
        "lo1: flags=8049<UP> metric 0 mtu 16384\n\tinet 198.51.100.9 netmask 0xffffffff\n\tgroups: lo\n"
        "mob-web1: flags=8049<UP> metric 0 mtu 1500\n\tinet 203.0.113.1 netmask 0xffffffff\n\tgroups: epair mobility\n"
    )
    assert output.NetView(output.interfaces(text)).ipv4 == "192.0.0.8"
    em0 = "em0: flags=8049<UP> metric 0 mtu 1500\n\tinet 203.0.113.1 netmask 0xffffff00 broadcast 203.0.113.255\n"
    net = output.NetView(output.interfaces(em0 + text))
    assert net.ipv4 == "203.0.113.1"
    assert net.interfaces["em0"][0].wide == {"203.0.113.1"}
    own = text.replace("\tgroups: lo\nlo1", "\tinet 192.0.2.1 netmask 0xffffffff\n\tgroups: lo\nlo1")
    assert output.NetView(output.interfaces(em0 + own)).ipv4 == "192.0.2.1"
    assert output.NetView(output.interfaces("".join(text.partition("lo1")[1:]))).ipv4 == ""
