"""jail.conf as jail(8) reads it: jaillex.l, jailparse.y, config.c."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.lab.jail8 import conf
from tests.lab.jail8.run import quoted


def read(text: str) -> dict[str, conf.Jail]:
    return {jail.name or "": jail for jail in conf.jails(conf.parse(text, "x.conf"))}


def values(text: str, name: str = "x") -> list[str]:
    """The values of parameter `p` of jail `x`, for a file that holds just that."""
    return read(f"{name} {{ p = {text}; }}")[name].values("p")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("word", "word"),
        ("/usr/local/$", "/usr/local/$"),
        ("'single $x ${y} \"quoted\"'", 'single $x ${y} "quoted"'),
        ("\"double 'quoted'\"", "double 'quoted'"),
        ("''", ""),
        ('""', ""),
        ("a'b c'd", "ab cd"),
        ("'it\\'s'", "it's"),
        (r"'tab\tnewline\n'", "tab\tnewline\n"),
        (r"'\x41\102\7'", "AB\a"),
        ("'continued\\\nline'", "continuedline"),
        ("'two\nlines'", "two\nlines"),
        (r"one\ word", "one word"),
        (r"\;", ";"),
        ("10.0.0.1/32", "10.0.0.1/32"),
        ("fe80::1%epair0b", "fe80::1%epair0b"),
        ("vnet0|192.0.2.7", "vnet0|192.0.2.7"),
    ],
)
def test_strings(text: str, value: str) -> None:
    assert values(text) == [value]


def test_comments_of_all_three_kinds() -> None:
    text = """
    # shell { p = no; }
    // C++ { p = no; }
    x { /* C; of
           several lines **/ p = yes; # behind
        q = http:/#no
        ;
    }
    """
    jail = read(text)["x"]
    assert jail.values("p") == ["yes"]
    assert jail.values("q") == ["http:/"]


def test_lists_append_and_replace() -> None:
    jail = read("p = 1; * { p += 2, 3; } x { p += 4; q = 1; q = 2; q += 3; r = a, b; r = c; }")["x"]
    assert jail.values("p") == ["1", "2", "3", "4"]
    assert jail.values("q") == ["2", "3"]
    assert jail.values("r") == ["c"]


def test_a_value_may_follow_without_equals() -> None:
    assert read("x { exec.start '/bin/sh /etc/rc'; }")["x"].values("exec.start") == ["/bin/sh /etc/rc"]


def test_wildcards_apply_in_the_files_order() -> None:
    jails = read(
        "a { p = own; } * { p = all; q = 1; } b { p = own; } 'c.*' { q = 2; } c.d { } \"*.e\" { q = 3; } f.e { }"
    )
    assert jails["a"].values("p") == ["all"]
    assert jails["b"].values("p") == ["own"]
    assert jails["c.d"].values("q") == ["2"]
    assert jails["f.e"].values("q") == ["3"]


def test_what_stands_between_jails_is_for_all_of_them() -> None:
    jails = read("p = 1; a { } p = 2; b { p = 3; }")
    assert jails["a"].values("p") == ["2"]
    assert jails["b"].values("p") == ["3"]


def test_variables() -> None:
    text = """
    $root = /jails;
    path = "$root/${name}";
    x { $id = 7; host.hostname = "${name}-$id.example"; p = $root; q = a${id}b; r = '$id'; s = "\\$id"; }
    """
    jail = read(text)["x"]
    assert jail.string("path") == "/jails/x"
    assert jail.string("host.hostname") == "x-7.example"
    assert jail.values("p") == ["/jails"]
    assert jail.values("q") == ["a7b"]
    assert jail.values("r") == ["$id"]
    assert jail.values("s") == ["$id"]
    assert "root" not in jail.kernel()


def test_a_parameter_is_a_variable_too_wherever_it_stands() -> None:
    assert read("x { p = ${path}; path = /${name}; }")["x"].values("p") == ["/x"]


def test_a_list_replaces_a_whole_value_but_no_part() -> None:
    assert read('x { $l = a, b; p = $l; q = "$l"; }')["x"].values("p") == ["a", "b"]
    assert read("x { $l = a, b; p = c$l; }")["x"].problems == ["p: array cannot be substituted inline"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("x { p = $nope; }", 'p: variable "nope" not found'),
        ("x { p = $persist; persist; }", 'p: variable "persist" not found'),
        ("x { $a = $b; $b = $a; }", "a: variable loop"),
        ("x { name = y; }", 'cannot redefine parameter "name".'),
        ("x { p = 1; $p = 2; }", 'variable "$p" cannot have the same name as a parameter.'),
    ],
)
def test_problems_of_one_jail(text: str, problem: str) -> None:
    assert read(text)["x"].problems == [problem]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x { p = 1;", "x.conf: unexpected EOF"),
        ("x { p = ; }", "x.conf line 1: ;: syntax error"),
        ("x {\n p = 1 2; }", "x.conf line 2: 2: syntax error"),
        ("x {\n\n } }", "x.conf line 3: }: syntax error"),
        ("x { p = 'open; }", "x.conf line 1: unterminated string"),
        ('x { p = "open; }', "x.conf line 1: unterminated string"),
        ("/* open", "x.conf line 1: unterminated comment"),
        ("x {\n p = ${open\n}; }", "x.conf line 2: unterminated variable"),
        ("x { p = 1, ; }", "x.conf line 1: ;: syntax error"),
        ("x y { }", "x.conf line 1: {: syntax error"),
    ],
)
def test_mistakes_of_the_file(text: str, message: str) -> None:
    with pytest.raises(conf.ConfError) as error:
        read(text)
    assert error.value.messages == [message]


@pytest.mark.parametrize(
    ("text", "name", "true"),
    [
        ("persist;", "persist", True),
        ("nopersist;", "persist", False),
        ("persist = true;", "persist", True),
        ("persist = FALSE;", "persist", False),
        ("persist = 0;", "persist", False),
        ("allow.noraw_sockets;", "allow.raw_sockets", False),
        ("allow.raw_sockets; allow.noraw_sockets;", "allow.raw_sockets", False),
        ("", "persist", False),
    ],
)
def test_booleans(text: str, name: str, true: bool) -> None:
    assert read(f"x {{ {text} }}")["x"].true(name) is true


def test_own_parameters_are_judged() -> None:
    text = "x { exec.clean = maybe; exec.timeout = soon; stop.timeout = 5; allow.raw_sockets = maybe; }"
    assert read(text)["x"].judge() == [
        'exec.clean: unknown boolean value "maybe"',
        'exec.timeout: non-integer value "soon"',
    ]


def test_what_goes_to_the_kernel() -> None:
    text = "x { path = /a; path = /b; vnet; persist; exec.start = a; ip4.addr = 1.1.1.1, 1.1.1.2; exec.noclean; }"
    assert read(text)["x"].kernel() == {
        "name": "x",
        "path": "/b",
        "vnet": None,
        "persist": None,
        "ip4.addr": "1.1.1.1,1.1.1.2",
    }


def test_a_numeric_name_is_a_jid() -> None:
    assert read("12 { }")["12"].kernel() == {"jid": "12"}


def test_the_command_line_appends_where_a_list_is_wanted() -> None:
    jail = conf.Jail(None)
    for text in ("name=x", "vnet", "ip4.addr=1.1.1.1", "ip4.addr=1.1.1.2", "path=/a=b"):
        jail.add_text(text)
    assert jail.kernel() == {"name": "x", "vnet": None, "ip4.addr": "1.1.1.1,1.1.1.2", "path": "/a=b"}


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40))
def test_any_text_survives_single_quotes(text: str) -> None:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    assert values(f"'{escaped}'") == [text]


@given(st.text(alphabet="ax{}$;=+,'\"\\/*# \n", max_size=40))
def test_any_file_is_read_or_refused_with_jail_8s_words(text: str) -> None:
    messages: list[str] = []
    try:
        read(text)
    except conf.ConfError as error:
        messages = error.messages
    assert all(message.startswith("x.conf") for message in messages)


@pytest.mark.parametrize(
    ("text", "shown"),
    [("", '""'), ("a", "a"), ("a b", '"a b"'), ("it's", '"it\'s"'), ('say "x"', "'say \"x\"'"), ("a\\b", "a\\\\b")],
)
def test_how_verbose_jail_shows_a_value(text: str, shown: str) -> None:
    assert quoted(text) == shown


def test_addresses_are_split_from_their_interfaces() -> None:
    text = """x { interface = em0; ip4.addr = "lo1|198.51.100.7/24", 198.51.100.8, "198.51.100.9/32 vhid 1";
      ip6.addr = "lo1|2001:db8::7"; }"""
    (jail,) = conf.jails(conf.parse(text, "f"))
    assert jail.interface_addresses("ip4.addr") == [
        ("lo1", "198.51.100.7/24"),
        ("em0", "198.51.100.8"),
        ("em0", "198.51.100.9/32 vhid 1"),
    ]
    assert jail.interface_addresses("ip6.addr") == [("lo1", "2001:db8::7")]
    assert jail.kernel() == {
        "name": "x",
        "ip4.addr": "198.51.100.7,198.51.100.8,198.51.100.9",
        "ip6.addr": "2001:db8::7",
    }
    (bare,) = conf.jails(conf.parse("x { ip4.addr = 198.51.100.8; }", "f"))
    assert bare.interface_addresses("ip4.addr") == []
