"""The lab's commands say what FreeBSD's say, beyond what the recorded scripts already hold them against."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.lab.commands import COMMANDS
from tests.unit.lab.paper import Host

#: What a careless or hostile caller might put on a command line: every keyword, and things that are none.
WORDS = st.sampled_from(
    shlex.split(
        """
        add delete change get flush -n -6 -4 -inet -inet6 -host -net -interface -reject default
        198.51.100.7 fe80::2%epair0a 2001:db8::7/128 10.0.0.0/8 epair epair0a epair0b lo0 nosuch0
        create destroy name group description ether inet inet6 up down alias -alias no_dad
        -ifdisabled vnet -vnet web1 nosuch -a -l -r -an -d -s -c --libxo json -f -W
        net.inet.ip.forwarding=1 net.route -x kern.boot_id 1 -1 999999999999 :: % %% / -- - =
        02:00:00:00:00:01
        """
    )
)
#: No argument holds a NUL; bytes that are no UTF-8 arrive as surrogates (os.fsdecode).
NO_NUL = st.characters(exclude_characters="\0", exclude_categories=["Cs"])
ARGUMENTS = st.lists(st.one_of(WORDS, st.just("\udce9"), st.text(NO_NUL, max_size=20)), max_size=7)


@pytest.fixture
def host() -> Host:
    """A fresh machine."""
    return Host()


@pytest.mark.parametrize("command", sorted(COMMANDS))
@given(lines=st.lists(ARGUMENTS, min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_no_command_line_breaks_a_command(command: str, lines: list[list[str]]) -> None:
    """Whatever is said, a command answers or refuses; it never falls over."""
    host = Host()
    host.jail("web1")
    host.run("ifconfig epair create")
    for words in lines:
        _text, code = host.call([command, *words])
        assert 0 <= code <= 255


class TestIfconfig:
    def test_explicit_unit_prints_the_a_end_and_the_lowest_free_unit_is_taken(self, host: Host) -> None:
        assert host.run("ifconfig epair1 create") == ("epair1a\n", 0)
        assert host.run("ifconfig epair create") == ("epair0a\n", 0)
        assert host.run("ifconfig epair create") == ("epair2a\n", 0)
        assert host.run("ifconfig epair0b destroy") == ("", 0)
        assert host.run("ifconfig epair create name mob-x") == ("mob-x\n", 0)
        assert host.run("ifconfig -l") == ("lo0 pflog0 pfsync0 epair1a epair1b epair2a epair2b mob-x epair0b\n", 0)

    def test_interface_numbers_are_the_lowest_free(self, host: Host) -> None:
        web1 = host.jail("web1")
        host.run("ifconfig epair create")
        host.run("ifconfig epair0b vnet web1")
        host.run("ifconfig epair create")
        assert [each.index for each in host.machine.root.vnet.interfaces] == [1, 2, 3, 4, 5, 6]
        assert web1.vnet.interfaces[-1].index == 4

    def test_cidr_format(self, host: Host) -> None:
        assert "\tinet 127.0.0.1/8\n" in host.run("ifconfig -f inet:cidr lo0")[0]

    def test_first_address_without_alias_replaces(self, host: Host) -> None:
        host.run("ifconfig epair create")
        host.run("ifconfig epair0a inet 10.0.0.1/24")
        host.run("ifconfig epair0a inet 10.0.0.2/24")
        text, _ = host.run("ifconfig epair0a inet")
        assert "10.0.0.1" not in text
        assert "\tinet 10.0.0.2 netmask 0xffffff00 broadcast 10.0.0.255\n" in text

    def test_only_root_changes_anything(self, host: Host) -> None:
        assert host.run("ifconfig epair create", root=False) == (
            "ifconfig: SIOCIFCREATE2 (epair): Operation not permitted\n",
            1,
        )
        assert host.run("ifconfig lo0 inet 10.0.0.1/32 alias", root=False) == (
            "ifconfig: ioctl (SIOCAIFADDR): permission denied\n",
            1,
        )
        assert host.run("ifconfig -l", root=False)[1] == 0

    @pytest.mark.parametrize("option", ["-j web1", "--libxo json", "-z"])
    def test_options_of_later_releases_are_refused(self, host: Host, option: str) -> None:
        text, code = host.run(f"ifconfig {option}")
        assert code == 1
        assert text.startswith("ifconfig: illegal option -- ")

    def test_moving_onto_a_taken_name_is_refused(self, host: Host) -> None:
        host.jail("web1")
        for pair in "01":
            host.run("ifconfig epair create")
            host.run(f"ifconfig epair{pair}b name eth0")
            text, code = host.run("ifconfig eth0 vnet web1")
        assert (text, code) == ("ifconfig: SIOCSIFVNET: File exists\n", 1)

    @pytest.mark.parametrize("mac", ["02:ff:60:aa:bb:cc", "02ff60aabbcc", "02-ff-60-AA-BB-CC"])
    def test_macs_as_link_addr_reads_them(self, host: Host, mac: str) -> None:
        host.run("ifconfig epair create")
        assert host.run(f"ifconfig epair0a link {mac}") == ("", 0)
        assert "\tether 02:ff:60:aa:bb:cc\n" in host.run("ifconfig epair0a")[0]
        assert host.run("ifconfig epair0a ether 02:ff:60:aa:bb")[1] == 1

    def test_nd6_options_need_their_family(self, host: Host) -> None:
        host.run("ifconfig epair create")
        said = host.run("ifconfig epair0a no_dad up")
        assert said == ("ifconfig: ioctl(SIOCGIFINFO_IN6): Invalid argument\n", 0)  # warn(3), and on it goes
        assert "nd6 options=29<PERFORMNUD,IFDISABLED,AUTO_LINKLOCAL>" in host.run("ifconfig epair0a")[0]


class TestRoute:
    def test_default_and_net(self, host: Host) -> None:
        host.run("ifconfig epair create")
        host.run("ifconfig epair0a inet 10.0.0.1/24")
        assert host.run("route -n add default 10.0.0.2") == ("add net default: gateway 10.0.0.2\n", 0)
        assert host.run("route -n add -net 192.0.2.0/24 10.0.0.3")[1] == 0
        text, _ = host.run("netstat -rn -f inet")
        assert "default            10.0.0.2           UGS     epair0a\n" in text
        assert "192.0.2.0/24       10.0.0.3           UGS     epair0a\n" in text
        assert "10.0.0.0/24        link#4             U       epair0a\n" in text
        assert "10.0.0.1           link#4             UHS         lo0\n" in text
        assert "       mask: 255.255.255.0\n" in host.run("route -n get 192.0.2.9")[0]
        assert "       mask: default\n" in host.run("route -n get 8.8.8.8")[0]

    def test_ipv4_gateways_of_one_family_do_make_multipath(self, host: Host) -> None:
        host.run("ifconfig epair create")
        host.run("ifconfig epair0a inet 10.0.0.1/24")
        assert host.run("route -n add -net 192.0.2.0/24 10.0.0.2")[1] == 0
        assert host.run("route -n add -net 192.0.2.0/24 10.0.0.3")[1] == 0
        assert host.run("route -n add -net 192.0.2.0/24 10.0.0.3")[1] == 1
        assert host.run("route -n delete -net 192.0.2.0/24")[1] == 1
        assert host.run("route -n delete -net 192.0.2.0/24 10.0.0.2")[1] == 0

    def test_an_interface_route_is_never_multipath(self, host: Host) -> None:
        host.run("ifconfig epair create")
        host.run("route -n -6 add -host 2001:db8::7 -interface epair0a")
        assert host.run("route -n -6 add -host 2001:db8::7 fe80::2%epair0a") == (
            "add host 2001:db8::7: gateway fe80::2%epair0a fib 0: route already in table\n",
            1,
        )

    def test_routes_go_with_their_interface_but_rejects_stay(self, host: Host) -> None:
        host.run("ifconfig epair create")
        host.run("route -n -6 add -host 2001:db8::7 -interface epair0a")
        host.run("route -n -6 add -host 2001:db8::8 ::1 -reject")
        host.run("ifconfig epair0a destroy")
        text, _ = host.run("netstat -rn -f inet6")
        assert "2001:db8::7" not in text
        assert "2001:db8::8" in text

    def test_only_root_changes_the_table(self, host: Host) -> None:
        assert host.run("route add default 10.0.0.1", root=False) == (
            "route: must be root to alter routing table\n",
            77,
        )
        assert host.run("route -n get 127.0.0.1", root=False)[1] == 0

    def test_flush_removes_gateways_only(self, host: Host) -> None:
        host.run("ifconfig epair create")
        host.run("route -n -6 add default fe80::1%epair0a")
        host.run("route -n -6 add -host 2001:db8::7 -interface epair0a")
        assert host.run("route -n flush")[1] == 0
        text, _ = host.run("netstat -rn -f inet6")
        assert "default" not in text
        assert "2001:db8::7" in text


class TestNetstat:
    def test_a_long_interface_name_is_cut_without_w(self, host: Host) -> None:
        host.run("ifconfig epair create name mob-a-long-name")
        host.run("route -n -6 add -host 2001:db8::7 -interface mob-a-long-name")
        assert "mob-a-lo\n" in host.run("netstat -rn -f inet6")[0]
        assert "mob-a-long-name\n" in host.run("netstat -rnW -f inet6")[0]
        for wide, name in (("", "mob-a-lo"), ("W", "mob-a-long-name")):
            document = json.loads(host.run(f"netstat -rn{wide} -f inet6 --libxo json")[0])
            family = document["statistics"]["route-information"]["route-table"]["rt-family"][0]
            assert name in {entry["interface-name"] for entry in family["rt-entry"]}

    def test_json_is_json(self, host: Host) -> None:
        host.run('ifconfig epair create name "a b"')
        for line in ("netstat -ibn --libxo json", "ndp -an --libxo json", "arp -an --libxo json", "jls --libxo json"):
            json.loads(host.run(line)[0])


class TestJls:
    def test_booleans_by_name_and_by_value(self, host: Host) -> None:
        host.jail("web1")
        assert host.run("jls -n name persist dying") == ("name=web1 persist nodying\n", 0)
        assert host.run("jls name persist dying") == ("web1 true false\n", 0)
        assert host.run("jls -h jid name") == ("jid name\n1 web1\n", 0)

    def test_quoting(self, host: Host) -> None:
        host.jail("a b")
        assert host.run("jls -nq name") == ('name="a b"\n', 0)

    def test_children_are_seen_from_where_one_is(self, host: Host) -> None:
        a = host.jail("a", {"children.max": "5"})
        host.jail("web1", parent=a)
        assert host.run("jls name") == ("a\na.web1\n", 0)
        assert host.run("jexec a jls name") == ("web1\n", 0)
        assert host.run("jexec a jls -j a") == (
            'jls: jail "a" not found\n   JID  IP Address      Hostname                      Path\n',
            1,
        )


class TestJexec:
    def test_the_labs_commands_run_inside_and_others_are_linux(self, host: Host) -> None:
        host.jail("web1")
        assert host.run("jexec web1 /sbin/ifconfig -l") == ("lo0 pflog0 pfsync0\n", 0)
        assert host.run("jexec web1 echo hello") == ("-> echo hello", 0)
        assert host.run("jexec -l web1 env") == (
            "-> /usr/bin/env -i HOME=/root SHELL=/bin/sh USER=root PATH=/bin:/usr/bin env",
            0,
        )
        assert host.run("jexec -n web1 true") == ("-> true", 0)

    def test_a_jail_with_its_own_tree_needs_its_own_ifconfig(self, host: Host, tmp_path: Path) -> None:
        host.jail("web1", {"path": str(tmp_path)})
        assert host.run("jexec web1 ifconfig -l") == ("-> ifconfig -l", 0)  # Linux will not find it there either

    def test_only_root_enters(self, host: Host) -> None:
        host.jail("web1")
        assert host.run("jexec web1 true", root=False) == ("jexec: jail_attach(1): Operation not permitted\n", 1)


class TestSysctl:
    def test_opaque_integers_and_several_at_once(self, host: Host) -> None:
        assert host.run("sysctl -n kern.boot_id") == ("", 0)
        assert host.run("sysctl -n -x kern.boot_id") == (f"Format: Length:16 Dump:0x{bytes(range(16)).hex()}\n", 0)
        assert host.run("sysctl -b kern.osreldate")[0].encode("utf-8", "surrogateescape") == (1302001).to_bytes(
            4, "little"
        )
        assert host.run("sysctl -n kern.osreldate net.nosuch kern.ostype") == (
            "1302001\nsysctl: unknown oid 'net.nosuch'\nFreeBSD\n",
            1,
        )

    def test_constants_are_read_only_and_demotion_adds(self, host: Host) -> None:
        assert host.run("sysctl kern.osreldate=1") == ("sysctl: oid 'kern.osreldate' is read only\n", 1)
        host.run("sysctl net.inet.carp.demotion=240")
        assert host.run("sysctl net.inet.carp.demotion=-40") == ("net.inet.carp.demotion: 240 -> 200\n", 0)

    def test_each_vnet_has_its_own(self, host: Host) -> None:
        host.jail("web1")
        host.run("sysctl net.inet.ip.forwarding=1")
        assert host.run("jexec web1 sysctl -n net.inet.ip.forwarding") == ("0\n", 0)


class TestPing:
    def test_raw_sockets_must_be_allowed(self, host: Host) -> None:
        host.jail("web1", {"vnet": "inherit"})
        assert host.run("jexec web1 ping -c 1 127.0.0.1") == ("ping: ssend socket: Operation not permitted\n", 71)

    def test_linux_options_are_refused(self, host: Host) -> None:
        text, code = host.run("ping -w 1 127.0.0.1")
        assert code == 64
        assert text.startswith("ping: illegal option -- w\nusage:\n")
