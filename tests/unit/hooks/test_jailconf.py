"""Our hooks in a plain jail.conf: what jail(8) makes of it, and that nothing of it stays behind."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobility import config
from mobility.hooks import edit
from mobility.hooks.edit import Hook, HooksError, Way
from mobility.hooks.jailconf import JailConfEditor
from mobility.jails.jailconf_jails import JailConfFile
from tests.lab.jail8 import conf as jail8

HOOK = "/usr/local/libexec/mobility/hook"
VNET = ("prestart", "created", "poststart", "prestop", "poststop")
OTHERS = ("poststart", "prestop", "poststop")


class Files:
    """A folder with a jail.conf, and its editor."""

    def __init__(self, folder: Path) -> None:
        self.conf = folder / "jail.conf"
        self.jails_d = folder / "jails.d"
        self.jails_d.mkdir()
        for name in ("web1", "web2", "12"):
            (self.jails_d / f"{name}.toml").write_text('addresses = ["198.51.100.7"]\n')
        self.editor = self.with_hook(Hook())

    def with_hook(self, hook: Hook) -> JailConfEditor:
        data = {
            "host": {"allowed": ["198.51.100.0/24"]},
            "paths": {"jails_d": str(self.jails_d)},
            "managers": {"jail_conf": str(self.conf)},
        }
        return JailConfEditor(config.parse(data, self.conf.with_name("mobility.toml"))[0], hook)

    def write(self, text: str) -> None:
        self.conf.write_bytes(text.encode())

    def read(self) -> str:
        return self.conf.read_bytes().decode()

    def jail(self, name: str = "web1") -> jail8.Jail:
        """What the lab's jail(8) reads."""
        jails = jail8.jails(jail8.parse(self.read(), str(self.conf)))
        return next(jail for jail in jails if jail.name == name)

    def install(self, name: str = "web1", way: Way = Way.REPLACE) -> None:
        edit.apply(self.editor.install(name, way))

    def remove(self, name: str = "web1") -> None:
        edit.apply(self.editor.remove(name))

    def hooks(self, name: str = "web1") -> list[str]:
        jail = self.jail(name)
        found = [value for phase in VNET for value in jail.values(f"exec.{phase}") if value.startswith(HOOK)]
        assert not jail.problems
        return found


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def calls(*phases: str, name: str = "web1") -> list[str]:
    return [f"{HOOK} {phase} '{name}'" for phase in phases]


USERS = """\
# our jails
exec.start = "/bin/sh /etc/rc";
exec.stop = "/bin/sh /etc/rc.shutdown jail";
exec.prestart += "logger all";
path = "/jails/$name";

web1 {
\tvnet;   // its own stack
\tvnet.interface = "e0b_web1";   # by jib
\texec.prestart += "jib addm web1 em0";
\texec.created = "echo created";
\texec.poststart = "echo up", "echo really";
\texec.prestop = "echo going down";
\texec.poststop += "jib destroy web1";
}

web2 { vnet; host.hostname = "web2"; }
db1 { ip4.addr = "lo1|198.51.100.9"; }
"""


def test_a_users_file_with_our_lines_in_it(files: Files) -> None:
    files.write(USERS)
    files.install()
    assert files.read() == USERS.replace(
        '\tvnet.interface = "e0b_web1";   # by jib\n', '#mobility# \tvnet.interface = "e0b_web1";   # by jib\n'
    ).replace(
        '\texec.prestop = "echo going down";\n',
        f"\texec.prestop = \"{HOOK} prestop '${{name}}'\"; # mobility\n"
        '\texec.prestop /*mobility=*/+= "echo going down";\n',
    ).replace(
        '\texec.poststop += "jib destroy web1";\n',
        '\texec.poststop += "jib destroy web1";\n'
        + "".join(
            f"\texec.{phase} += \"{HOOK} {phase} '${{name}}'\"; # mobility\n"
            for phase in ("prestart", "created", "poststart", "poststop")
        ),
    )
    jail = files.jail()
    assert jail.values("exec.prestart") == ["logger all", "jib addm web1 em0", *calls("prestart")]
    assert jail.values("exec.created") == ["echo created", *calls("created")]
    assert jail.values("exec.poststart") == ["echo up", "echo really", *calls("poststart")]
    assert jail.values("exec.prestop") == [*calls("prestop"), "echo going down"]
    assert jail.values("exec.poststop") == ["jib destroy web1", *calls("poststop")]
    assert jail.values("vnet.interface") == []
    assert files.editor.install("web1", Way.REPLACE) == []
    files.remove()
    assert files.read() == USERS


def test_adopting_keeps_the_users_interface(files: Files) -> None:
    files.write(USERS)
    files.install(way=Way.ADOPT)
    assert files.jail().values("vnet.interface") == ["e0b_web1"]
    assert files.hooks() == calls(*OTHERS)
    state = files.editor.state("web1")
    assert (state.installed, state.complete) == (Way.ADOPT, True)
    files.install(way=Way.REPLACE)
    replaced = files.read()
    files.remove()
    assert files.read() == USERS
    files.install(way=Way.REPLACE)
    assert files.read() == replaced


@pytest.mark.parametrize(("way", "outer"), [(Way.REPLACE, []), (Way.ADOPT, ["e0a_web1"])])
def test_the_agent_reads_what_was_installed(files: Files, way: Way, outer: list[str]) -> None:
    files.write(USERS)
    before = JailConfFile(files.conf).read("web1", requests=True)
    files.install(way=way)
    after = JailConfFile(files.conf).read("web1", requests=True)
    assert before is not None
    assert after is not None
    assert (before.hooks, [ends.outer for ends in before.ends]) == (False, ["e0a_web1"])
    assert (after.hooks, [ends.outer for ends in after.ends]) == (True, outer)


def test_a_jail_without_vnet_has_no_link_to_make(files: Files) -> None:
    files.write(USERS)
    files.install("db1")
    assert files.hooks("db1") == calls(*OTHERS, name="db1")
    files.remove("db1")
    assert files.read() == USERS


def test_jails_of_one_file_do_not_touch_each_other(files: Files) -> None:
    files.write(USERS)
    for name in ("web1", "web2", "db1"):
        files.install(name)
    files.remove("web1")
    assert files.hooks("web1") == []
    assert files.hooks("web2") == calls(*VNET, name="web2")
    files.remove("db1")
    files.remove("web2")
    assert files.read() == USERS


@pytest.mark.parametrize(
    "text",
    [
        "web1{vnet;}",
        "web1 { vnet; vnet.interface = a; path = /; }",
        "web1 { vnet; vnet.interface = a; vnet.interface += b; }",
        "web1 {\n vnet; path = /;\n vnet.interface =\n   epair3b,\n   'b;\n}';\n exec.prestop 'x'; }",
        "web1 {\n vnet;\n vnet.interface = a; /* two\n lines */ path = /;\n}",
        "web1 { vnet;\n exec.prestop = a; exec.prestop = b; exec.prestop += c; }",
        "web1 { vnet;\n exec.prestop = a; exec.prestop; exec.prestop += c; # end\n }",
        "web1 { vnet;\r\n  exec.prestop = a;\r\n}\r\n",
        "vnet.interface = 'e0b_$name'; exec.prestop = w; web1 { vnet; exec.prestop += a; }",
        "'web1' { vnet; # no }\n}",
        "web1 { # mobility is good\n vnet; }",
        "/* web1 { */ web1 { vnet; exec.poststart = 'a'; /* } */ }",
    ],
)
def test_however_it_is_written(files: Files, text: str) -> None:
    files.write(text)
    before = files.jail()
    for way in (Way.REPLACE, Way.ADOPT):
        if way is Way.ADOPT:
            files.write(text.replace("= a", "= epair0b").replace("vnet;", "vnet; vnet.interface = e0b_web1;", 1))
            before = files.jail()
        original = files.read()
        files.install(way=way)
        assert files.hooks() == calls(*(VNET if way is Way.REPLACE else OTHERS))
        after = files.jail()
        for phase in VNET:
            assert [one for one in after.values(f"exec.{phase}") if HOOK not in one] == before.values(f"exec.{phase}")
        if way is Way.REPLACE:
            assert after.values("vnet.interface") == []
        assert files.editor.install("web1", way) == []
        assert files.editor.state("web1").complete
        files.remove()
        assert files.read() == original


_PARTS = st.sampled_from(
    [
        "vnet;", "path = /;", "vnet.interface = e0b_web1;", "vnet.interface += epair7b ,\n 'x y';", "vnet.interface;",
        *(f"exec.{phase} {how}" for phase in VNET for how in ("= a;", "+= b;", "'c', d;", "= 'e\n #mobility# f';")),
        "exec.prestop;", "/* c; */", "# d;\n", "// e }\n", "\n", "  ", "\t", "\n\n  ",
    ]
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(
    st.lists(_PARTS, max_size=4).map(" ".join),
    st.lists(_PARTS, max_size=8).map("".join),
    st.lists(_PARTS, max_size=2).map(" ".join),
    st.sampled_from(list(Way)),
)
def test_any_file_is_as_it_was_when_our_lines_are_gone(
    tmp_path_factory: pytest.TempPathFactory, above: str, inside: str, below: str, way: Way
) -> None:
    files = Files(tmp_path_factory.mktemp("files"))
    text = f"{above} web1 {{{inside}}} {below}"
    files.write(text)
    before = files.jail()
    try:
        files.install(way=way)
    except HooksError as error:
        refused = str(error)
    else:
        refused = ""
    if refused:
        # what stands behind the block undoes it, or there is nothing to adopt
        assert "again for all jails" in refused or "adopt" in refused
        assert files.read() == text
        return
    after = files.jail()
    wanted = VNET if before.find("vnet") and way is Way.REPLACE else OTHERS
    assert files.hooks() == calls(*wanted)
    for phase in VNET:
        assert [one for one in after.values(f"exec.{phase}") if HOOK not in one] == before.values(f"exec.{phase}")
    assert files.editor.install("web1", way) == []
    assert files.editor.state("web1").complete
    files.remove()
    assert files.read() == text


def test_what_was_edited_since_is_kept(files: Files) -> None:
    files.write(USERS)
    files.install()
    edited = files.read().replace("going down", "leaving").replace("\tvnet;", "\tmount.devfs;\n\tvnet;")
    files.write(edited.replace('"e0b_web1"', '"e1b_web1"'))
    files.remove()
    assert files.read() == USERS.replace("going down", "leaving").replace("\tvnet;", "\tmount.devfs;\n\tvnet;").replace(
        '"e0b_web1"', '"e1b_web1"'
    )


def test_lines_that_were_taken_out_by_hand_are_missed_and_put_back(files: Files) -> None:
    files.write(USERS)
    files.install()
    whole = files.read()
    files.write("".join(line for line in whole.splitlines(keepends=True) if "hook created" not in line))
    state = files.editor.state("web1")
    assert (state.installed, state.complete) == (Way.REPLACE, False)
    assert "not there: created: install again" in state.note
    files.install()
    assert files.read() == whole


def test_a_line_that_throws_ours_away_is_seen(files: Files) -> None:
    files.write(USERS)
    files.install()
    files.write(files.read() + 'exec.prestop = "late";\n')
    state = files.editor.state("web1")
    assert (state.complete, "not there: prestop" in state.note) == (False, True)
    with pytest.raises(
        HooksError, match=r"jail web1: .*/jail\.conf line 24 sets exec\.prestop again for all jails: write it with \+="
    ):
        files.editor.install("web1", Way.REPLACE)


def test_an_interface_from_behind_the_block_can_not_give_way(files: Files) -> None:
    files.write("web1 { vnet; }\nvnet.interface = 'e0b_$name';\n")
    with pytest.raises(HooksError, match=r"line 2 sets vnet\.interface again for all jails: it can not give way there"):
        files.editor.install("web1", Way.REPLACE)


@pytest.mark.parametrize(
    ("text", "note"),
    [
        (USERS, "exec.prestart makes interfaces itself ("),
        ("web1 { vnet; exec.created = 'ifconfig epair0b vnet web1'; }", "exec.created makes interfaces itself"),
        ("exec.prestop = 'echo all'; web1 { vnet; }", "exec.prestop: 'echo all' of another section runs before ours"),
        ("web1 { vnet; } exec.poststart += x;", "exec.poststart: 'x' of another section runs behind ours"),
        ("web1 { path = /; }", "nobody grants it an address: write "),
        ("web1 { ip4.addr = 198.51.100.7; }", ""),
    ],
)
def test_what_an_operator_should_know(files: Files, text: str, note: str) -> None:
    if "nobody" in note:
        (files.jails_d / "web1.toml").unlink()
    files.write(text)
    files.install()
    state = files.editor.state("web1")
    assert state.complete
    assert note in state.note
    assert bool(state.note) == bool(note)


def test_hooks_by_hand_for_all_jails(files: Files) -> None:
    by_hand = "".join(f"exec.{phase} += \"{HOOK} {phase} '$name'\";\n" for phase in VNET)
    files.write(by_hand + "web1 { vnet; }\n")
    state = files.editor.state("web1")
    assert (state.installed, state.complete) == (Way.REPLACE, True)
    assert state.note == f"written by hand ({files.conf} line 1)"
    assert files.editor.install("web1", Way.REPLACE) == []
    with pytest.raises(HooksError, match=r"written by hand \(.*/jail\.conf line 1\): take them out there"):
        files.editor.remove("web1")
    files.write(by_hand.replace(HOOK, "/opt/mobility/hook") + "web1 { vnet; }\n")
    assert not files.editor.state("web1").complete
    with pytest.raises(HooksError, match=r"exec\.prestart calls another hook, .*: take it out first"):
        files.editor.install("web1", Way.REPLACE)


def test_another_hook_program_replaces_the_old_one(files: Files) -> None:
    files.write(USERS)
    files.install()
    editor = files.with_hook(Hook(Path("/opt/hook"), Path("/etc/m.toml")))
    assert not editor.state("web1").complete
    edit.apply(editor.install("web1", Way.REPLACE))
    assert editor.state("web1").complete
    assert files.jail().values("exec.prestop")[0] == "/opt/hook -c /etc/m.toml prestop 'web1'"
    # and it is ours for whoever comes later
    assert not files.editor.state("web1").complete
    files.remove()
    assert files.read() == USERS


def test_a_numbered_jail_is_called_by_its_number(files: Files) -> None:
    files.write("12 { vnet; }")
    files.install("12")
    assert files.jail("12").values("exec.created") == calls("created", name="12")
    assert files.editor.state("12").complete


def test_files_beside_jail_conf(files: Files) -> None:
    folder = files.conf.with_name("jail.conf.d")
    folder.mkdir()
    own, other = folder / "web1.conf", files.conf.with_name("jail.web2.conf")
    own.write_text("web1 { vnet; }\n")
    other.write_text("web2 { vnet; }\nweb9 { vnet; }\n")
    assert files.editor.jails() == ["web2", "web1"]
    files.install("web1")
    assert files.editor.state("web1").path == own
    files.write(f'vnet.interface = "epair9b"; exec.prestop = "all";\n.include "{folder}/*.conf";\nweb3 {{ vnet; }}\n')
    assert files.editor.jails() == ["web1", "web3", "web2"]
    # what jail.conf says for all counts for it now
    assert files.editor.state("web1").installed is Way.ADOPT
    files.install("web1")
    assert "vnet.interface; # mobility" in own.read_text()
    assert "'all' of another section runs before ours" in files.editor.state("web1").note
    files.remove("web1")
    assert own.read_text() == "web1 { vnet; }\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("web2 { }", r"jail web1: none of .*/jail\.conf, .*/jail\.web1\.conf, .*jail\.conf\.d/web1\.conf has a block"),
        ("web1 { } web1 { }", r"has 2 blocks of this name: leave one of them"),
        ("web1 { path = $no; }", r"jail\(8\) would not start it: path: there is no variable 'no': mend it first"),
        ("web1 { vnet }", r"line 1: '}' is not expected here.*; mend it first, nothing was changed"),
        ("web1 {\n path = /; # mobility\n}", r"line 2 bears our mark '# mobility', and is not as we wrote it"),
    ],
)
def test_what_can_not_be_edited_says_why(files: Files, text: str, message: str) -> None:
    files.write(text)
    with pytest.raises(HooksError, match=message):
        files.editor.install("web1", Way.REPLACE)
    assert files.read() == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("web1 { vnet; }", "it has no vnet.interface to adopt: leave --adopt away"),
        ("web1 { vnet; vnet.interface = in-web1; }", "its other end is not known by its name: name it epairNb"),
    ],
)
def test_what_can_not_be_adopted_says_why(files: Files, text: str, message: str) -> None:
    files.write(text)
    with pytest.raises(HooksError, match=message):
        files.editor.install("web1", Way.ADOPT)


@pytest.mark.parametrize(
    ("entry", "message"),
    [(None, r"nobody grants it an address: write .*/jails\.d/web1\.toml: addresses = \["), ("nonsense", "is no TOML")],
)
def test_a_jail_that_could_not_start_any_more_is_left_alone(files: Files, entry: str | None, message: str) -> None:
    path = files.jails_d / "web1.toml"
    path.unlink() if entry is None else path.write_text(entry)
    files.write("web1 { vnet; vnet.interface = epair3b; }")
    with pytest.raises(HooksError, match=f"jail web1: with our hooks it could not start any more: .*{message}"):
        files.editor.install("web1", Way.REPLACE)
    # the interface of its own does not depend on us
    assert files.editor.install("web1", Way.ADOPT)


def test_a_link_is_refused_and_what_is_included_must_be_there(files: Files) -> None:
    real = files.conf.with_name("real.conf")
    real.write_text("web1 { vnet; }\n")
    files.conf.symlink_to(real)
    for ask in (files.editor.jails, lambda: files.editor.install("web1", Way.REPLACE)):
        with pytest.raises(HooksError, match=r"jail\.conf is a link to .*/real\.conf, and links are not edited"):
            ask()
    files.conf.unlink()
    files.write('.include "/nonexistent/x.conf";\nweb1 { vnet; }\n')
    with pytest.raises(HooksError, match=r"jail web1: /nonexistent/x\.conf is included, and is not there"):
        files.editor.install("web1", Way.REPLACE)


def test_bytes_that_are_no_utf_8_are_kept(files: Files) -> None:
    content = b"# caf\xe9\nweb1 { vnet; path = '/caf\xe9'; }\n"
    files.conf.write_bytes(content)
    files.install()
    files.remove()
    assert files.conf.read_bytes() == content
