"""jail.conf(5): what stands where, and what it means; held against the lab's jail(8), which was written on its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mobility.jails import jailconf
from tests.lab.jail8 import conf as jail8

PATH = Path("/etc/jail.conf")


def tree(text: str) -> jailconf.Tree:
    return jailconf.load(PATH, {PATH: text}.__getitem__)


def jail(text: str, name: str = "x") -> jailconf.Jail:
    found = tree(text).jail(name)
    assert found is not None
    return found


def statements(text: str) -> list[jailconf.Statement]:
    items = jailconf.parse(text, PATH).items
    return [statement for item in items if isinstance(item, jailconf.Section) for statement in item.statements]


_NAMES = st.sampled_from(["x", "y", "a.b", "'a.*'", "*", "12", '"q"', "p", "no"])
_PARAMETERS = st.sampled_from(
    ["p", "nop", "q", "exec.start", "exec.nostart", "$v", "$w", "${v}", "ip4.addr", "vnet", "name", "'p'", '"q"']
)
_WORDS = st.sampled_from(
    [
        "1",
        "a/b",
        "'s $v'",
        '"d $v e"',
        '"${p}"',
        "$v",
        "${w}",
        "x$q",
        r"\;",
        r"'\x41\n\101'",
        '"a\\"b"',
        "''",
        '""',
        "$",
    ]
)
_SPACE = st.sampled_from([" ", "\n", "\t", " # c;\n", " /* } */ ", "// '\n", ""])
_OPERATORS = st.sampled_from([" = ", " += ", " ", "=", "+="])


@st.composite
def _statement(draw: st.DrawFn) -> str:
    name = draw(_PARAMETERS)
    values = draw(st.lists(_WORDS, max_size=3))
    middle = draw(_OPERATORS) + f",{draw(_SPACE)}".join(values) if values else ""
    return f"{name}{middle}{draw(_SPACE)};{draw(_SPACE)}"


@st.composite
def _file(draw: st.DrawFn) -> str:
    parts = []
    for _ in range(draw(st.integers(0, 4))):
        if draw(st.booleans()):
            parts.append(draw(_statement()))
        else:
            body = "".join(draw(st.lists(_statement(), max_size=4)))
            parts.append(f"{draw(_NAMES)} {{{draw(_SPACE)}{body}}}{draw(_SPACE)}")
    return "".join(parts)


def _same(text: str) -> None:
    """Both readers refuse the file, or both find the same jails with the same values."""
    try:
        theirs = jail8.jails(jail8.parse(text, "f"))
    except jail8.ConfError:
        theirs = None
    try:
        ours, refused = tree(text), ""
    except jailconf.ConfError as error:
        ours, refused = None, str(error)
    # jaillex.l refuses "${ in quotes, by its last rule of <DQ>; the lab's takes it for text
    assert (ours is None) == (theirs is None) or "begins with ${" in refused
    if ours is None or theirs is None:
        return
    firsts = {one.name or "": one for one in reversed(theirs)}
    assert set(ours.names()) == set(firsts)
    for name, their in firsts.items():
        our = ours.jail(name)
        assert our is not None
        assert bool(our.problems) == bool(their.problems), (our.problems, their.problems)
        if our.problems:
            continue
        for parameter in their.parameters:
            assert our.values(parameter.name) == their.values(parameter.name), parameter.name
        for probe in ("p", "q", "exec.start", "ip4.addr", "vnet", "name", "jid"):
            assert our.has(probe) == (their.find(probe) is not None), probe


@given(_file())
@example('x { $v = 1, 2; p = $v; q = "$v"; }')
@example('x { p = "a${v}b$v"; } $v = 1;')
@example("12 { p = $name; } x { p = $jid; }")
def test_files_mean_what_the_labs_jail_reads(text: str) -> None:
    _same(text)


@given(st.text(alphabet="ax1*.{}$;=+,'\"\\/# \n", max_size=40))
@example('x { p = "$"; }')
@example("x { p = ${}; }")
@example("x{p=a//b\n;}")
def test_any_text_is_read_or_refused_as_the_labs_jail_does(text: str) -> None:
    _same(text)


@given(_file())
def test_every_statement_stands_where_it_is_said_to(text: str) -> None:
    try:
        found = jailconf.parse(text, PATH)
    except jailconf.ConfError:
        return
    covered: set[int] = set()
    for begin, end in found.comments:
        assert text[begin] in "#/"
        covered.update(range(begin, end))
    for section in found.items:
        assert isinstance(section, jailconf.Section)
        if section.block:
            assert text[section.opened - 1] + text[section.closed] == "{}"
            covered.update((section.opened - 1, section.closed))
        for statement in section.statements:
            assert section.opened <= statement.start < statement.end <= section.closed
            assert text[statement.end - 1] == ";"
            assert text.startswith(statement.operator, statement.operator_at)
            covered.update(range(statement.start, statement.end))
    left = "".join(character for at, character in enumerate(text) if at not in covered)
    # nothing but blanks, empty statements and the names of blocks
    assert not set(left) - set(" \t\n;") - set("xyab.'*12\"qpno")


@given(st.binary(max_size=60))
def test_any_bytes_survive(content: bytes) -> None:
    assert jailconf.encode(jailconf.decode(content)) == content


def test_a_statement_alone_can_be_replaced() -> None:
    text = "web1 {\n  # vnet.interface = no;\n  vnet.interface = 'a;}', /* ; */ b;  vnet;\n}\n"
    first, second = statements(text)
    assert text[first.start : first.end] == "vnet.interface = 'a;}', /* ; */ b;"
    assert (first.values, second.name) == ((("a;}",), ("b",)), "vnet")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x { p = 1;", "/etc/jail.conf line 1: the file ends before its time"),
        ("x {\n p = 1 2; }", "line 2: '2' is not expected here: is a ';' missing before it?"),
        ("x {\n\n } }", "line 3: '}' is not expected here"),
        ("x {\n p = 'open; }", "line 2: a string begins with ' and does not end"),
        ("\n\n/* open", "line 3: a comment begins with /* and does not end"),
        ("x { p = ${open\n}; }", "line 1: a variable begins with ${ and does not end"),
        ('x { p = "a ${open\n}"; }', "line 1: a variable begins with ${ and does not end"),
        ("x { p = é; }", "line 1: 'é' must stand in quotes"),
        ("x { p = 1; }\0", "line 1: a NUL byte is not handled"),
        ("a.* { }", "'*' is not expected here"),
        ('x { .include "/y"; }', "line 1: .include inside a jail's block is not handled"),
        ('.include "jail.conf.d/y";', "line 1: .include is handled with an absolute path"),
        ('.include "/etc/$y";', "line 1: .include is handled with an absolute path"),
    ],
)
def test_mistakes_name_their_line(text: str, message: str) -> None:
    with pytest.raises(jailconf.ConfError, match=r"^/etc/jail\.conf line ") as error:
        tree(text)
    assert message in str(error.value)


def test_jails_by_number_have_no_name() -> None:
    assert jail("7 { p = $jid; }", "7").values("p") == ["7"]
    assert jail("7 { p = $name; }", "7").problems == ["p: there is no variable 'name'"]
    assert not jail("0 { p = $name; }", "0").problems


@pytest.mark.parametrize(
    ("text", "vnet"),
    [
        ("vnet;", True),
        ("vnet = new;", True),
        ("vnet new;", True),
        ("vnet = inherit;", False),
        ("novnet;", False),
        ("vnet; novnet;", False),
        ("", False),
    ],
)
def test_a_network_stack_of_its_own(text: str, vnet: bool) -> None:
    assert jail(f"x {{ {text} }}").vnet is vnet


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ("a.nob.c", "a.b.c", True),
        ("noa.b", "a.b", True),
        ("a.b", "a.nob", True),
        ("a.b", "a.c", False),
        ("a.b", "b", False),
        ("no", "", True),
    ],
)
def test_names_of_one_parameter(one: str, other: str, equal: bool) -> None:
    assert jailconf.equal_names(one, other) is jailconf.equal_names(other, one) is equal


def test_includes_are_read_where_they_stand(tmp_path: Path) -> None:
    main, folder, single = tmp_path / "jail.conf", tmp_path / "jail.conf.d", tmp_path / "site.conf"
    folder.mkdir()
    main.write_text(f'p = 1;\n.include "{single}", "{folder}/*.conf";\np += 4;\n')
    single.write_text("p += 2;\n")
    (folder / "b.conf").write_text("b { p += b; }\n")
    (folder / "a.conf").write_text("a { p += a; }\np += 3;\n")
    (folder / ".b.conf.mobility").write_text("hidden { }\n")
    found = jailconf.load(main, Path.read_text)
    assert found.names() == ["a", "b"]
    for name, values in (("a", ["1", "2", "a", "3", "4"]), ("b", ["1", "2", "3", "b", "4"])):
        one = found.jail(name)
        assert one is not None
        assert one.values("p") == values
    assert found.blocks("b")[0].conf.path == folder / "b.conf"
    assert set(found.watched) == {main, single, folder / "a.conf", folder / "b.conf", folder}
    assert set(found.watched_for("b")) == set(found.watched)
    (folder / "a.conf").write_text("a { p += a; }\n")
    assert folder / "a.conf" not in jailconf.load(main, Path.read_text).watched_for("b")


def test_a_pattern_may_match_nothing_and_a_file_must_be_there(tmp_path: Path) -> None:
    main = tmp_path / "jail.conf"
    main.write_text(f'.include "{tmp_path}/*.no";\nx {{ }}\n')
    assert jailconf.load(main, Path.read_text).names() == ["x"]
    main.write_text(f'.include "{tmp_path}/gone";\n')
    with pytest.raises(FileNotFoundError):
        jailconf.load(main, Path.read_text)


def test_files_that_include_each_other_are_refused(tmp_path: Path) -> None:
    main = tmp_path / "jail.conf"
    main.write_text(f'.include "{main}";\n')
    with pytest.raises(jailconf.ConfError, match="more than 8 deep"):
        jailconf.load(main, Path.read_text)
