"""Hooks in Bastille's jail.conf files: every form of them, restored to the byte."""

from __future__ import annotations

import itertools
import random
import re
from pathlib import Path

import pytest

from mobility import config
from mobility.hooks.bastille import BastilleEditor
from mobility.hooks.edit import Hook, HooksError, State, Way, apply, diff
from mobility.jails import jailconf
from mobility.model import Phase
from tests.lab.managers import bastille_conf as forms
from tests.lab.managers.bastille_conf import BRIDGE, KINDS, LONG, NETGRAPH, PASSTHROUGH, STANDARD

GRANT = 'addresses = ["198.51.100.7/32"]\n'
HOOK = "/usr/local/libexec/mobility/hook"


class Home:
    """A Bastille's folder, and our editor of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.jails_d = folder / "jails.d"
        self.jails_d.mkdir()
        (folder / "mobility.toml").write_text(
            f'[host]\nname = "a"\nallowed = ["198.51.100.0/24"]\n[paths]\njails_d = "{self.jails_d}"\n'
            f'[managers]\nbastille = "{folder}/bastille"\n'
            '[bgp]\nas = 65001\nrouter_id = "10.0.0.1"\n'
            '[[bgp.peer]]\nname = "s"\naddress = "fd00::2"\nas = 65000\nlocal_address = "fd00::1"\n'
        )
        loaded = config.load(folder / "mobility.toml")
        self.editor = BastilleEditor(loaded, Hook())

    def path(self, name: str = "web1") -> Path:
        return self.folder / "bastille" / "jails" / name / "jail.conf"

    def put(self, text: str, name: str = "web1", *, grant: bool = True) -> Path:
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jailconf.encode(text))
        if grant:
            (self.jails_d / f"{name}.toml").write_text(GRANT)
        return path

    def install(self, way: Way, name: str = "web1") -> str:
        apply(self.editor.install(name, way))
        return self.text(name)

    def remove(self, name: str = "web1") -> str:
        apply(self.editor.remove(name))
        return self.text(name)

    def text(self, name: str = "web1") -> str:
        return jailconf.decode(self.path(name).read_bytes())

    def jail(self, name: str = "web1") -> jailconf.Jail:
        """What jail(8) reads."""
        jail = jailconf.load(self.path(name), lambda path: jailconf.decode(path.read_bytes())).jail(name)
        assert jail is not None
        assert not jail.problems
        return jail


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def every_form() -> list[tuple[str, str, str]]:
    """(what it is, the jail's name, the text): by the rules, and by a Bastille's own functions where one is given."""
    found = []
    tree = forms.source()
    for kind, static_mac, name in itertools.product(KINDS, (False, True), ("web1", LONG)):
        if kind == PASSTHROUGH and static_mac:
            continue  # bastille create refuses it
        title = f"{kind}{'-M' * static_mac}-{name}"
        found.append((title, name, forms.vnet_conf(name, kind, static_mac=static_mac)))
        if tree:
            found.append((f"{title}-own", name, forms.vnet_conf_by(tree, name, kind, static_mac=static_mac)))
    found += [(form, "web1", forms.conf("web1", ["vnet;", *forms.old_lines("web1", form)])) for form in forms.OLD_FORMS]
    for first, second in itertools.product((BRIDGE, STANDARD, PASSTHROUGH), (BRIDGE, STANDARD, PASSTHROUGH)):
        text = forms.with_another(forms.vnet_conf("web1", first), "web1", second, "em1", 1)
        found.append((f"{first}+{second}", "web1", text))
    found.append(("host", "web1", forms.host_conf("web1", "bastille0|198.51.100.7/32", "bastille0|2001:db8:7::7")))
    return found


FORMS = every_form()
BY_FORM = pytest.mark.parametrize(("name", "text"), [form[1:] for form in FORMS], ids=[form[0] for form in FORMS])


@pytest.mark.skipif(forms.source() is None, reason=forms.MISSING)
@pytest.mark.parametrize("name", ["web1", LONG])
@pytest.mark.parametrize("static_mac", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_our_forms_are_bastilles(kind: str, static_mac: bool, name: str) -> None:
    tree = forms.source()
    assert tree is not None
    own = forms.vnet_conf_by(tree, name, kind, static_mac=static_mac)
    assert re.sub(r"ether [0-9a-f:]+(?=[ab]\")", f"ether {forms.MAC}", own) == forms.vnet_conf(
        name, kind, static_mac=static_mac
    )


@BY_FORM
def test_replace(home: Home, name: str, text: str) -> None:
    home.put(text, name)
    before = home.jail(name)
    after = home.install(Way.REPLACE, name)
    jail = home.jail(name)
    links = before.values("vnet.interface")
    assert jail.values("vnet.interface") == links[1:]
    assert jail.vnet == before.vnet
    phases = list(Phase) if before.vnet else [Phase.POSTSTART, Phase.PRESTOP, Phase.POSTSTOP]
    for phase in phases:
        assert f"{HOOK} {phase} '{name}'" in jail.values(f"exec.{phase}")
    if links:
        ends = {links[0], links[0].replace("b_", "a_")}
        for parameter in ("exec.prestart", "exec.prestop", "exec.poststop"):
            assert not [each for each in jail.values(parameter) if ends & set(re.split(r"[ \"]", each))]
    if len(links) == 1:
        assert {value for phase in Phase for value in jail.values(f"exec.{phase}")} == {
            f"{HOOK} {phase} '{name}'" for phase in phases
        }
    assert home.editor.install(name, Way.REPLACE) == []
    way = Way.REPLACE if before.vnet else Way.ADOPT
    assert home.editor.state(name) == State(name, way, True, home.path(name))
    # line by line: nothing but comments before what was there, and our own
    kept = [line for line in after.split("\n") if not line.endswith(" # mobility")]
    assert len(kept) == len(text.split("\n"))
    assert home.remove(name) == text
    assert home.editor.remove(name) == []
    assert home.editor.state(name) == State(name, None, False, home.path(name))


@BY_FORM
def test_adopt(home: Home, name: str, text: str) -> None:
    home.put(text, name)
    before = home.jail(name)
    links = before.values("vnet.interface")
    if links and not re.match(r"e[0-9]+b_|epair[0-9]+b", links[0]):
        with pytest.raises(HooksError, match="has no end on the host"):
            home.editor.install(name, Way.ADOPT)
        return
    after = home.install(Way.ADOPT, name)
    ours = [line for line in after.split("\n") if line.endswith(" # mobility")]
    assert [line for line in after.split("\n") if line not in ours] == text.split("\n")
    assert [line.split()[0] for line in ours] == ["exec.poststart", "exec.prestop", "exec.poststop"]
    jail = home.jail(name)
    assert jail.values("vnet.interface") == links
    assert jail.values("exec.prestart") == before.values("exec.prestart")
    assert home.editor.install(name, Way.ADOPT) == []
    assert home.editor.state(name) == State(name, Way.ADOPT, True, home.path(name))
    assert home.remove(name) == text


@pytest.mark.parametrize("kind", [BRIDGE, STANDARD])
def test_from_one_way_to_the_other(home: Home, kind: str) -> None:
    text = forms.vnet_conf("web1", kind)
    home.put(text)
    replaced = home.install(Way.REPLACE)
    adopted = home.install(Way.ADOPT)
    assert adopted != replaced
    assert home.install(Way.REPLACE) == replaced
    assert home.install(Way.ADOPT) == adopted
    assert home.remove() == text


def test_the_whole_of_it(home: Home) -> None:
    """What an operator sees."""
    home.put(forms.vnet_conf("web1", BRIDGE, "bridge0"))
    (change,) = home.editor.install("web1", Way.REPLACE)
    shown = diff(change)
    added = [line[1:] for line in shown.splitlines() if line.startswith("+") and not line.startswith("+++")]
    create = (
        "epair0=\\$(ifconfig epair create) && ifconfig \\${epair0} up name e0a_web1 "
        "&& ifconfig \\${epair0%a}b up name e0b_web1"
    )
    assert added == [
        "#mobility#   vnet.interface = e0b_web1;",
        f'#mobility#   exec.prestart += "{create}";',
        '#mobility#   exec.prestart += "ifconfig bridge0 addm e0a_web1";',
        '#mobility#   exec.prestart += "ifconfig e0a_web1 description \\"vnet0 host interface for Bastille jail web1\\"";',
        '#mobility#   exec.poststop += "ifconfig e0a_web1 destroy";',
        *(f"  exec.{phase} += \"{HOOK} {phase} '${{name}}'\"; # mobility" for phase in Phase),
    ]


def test_a_users_own_lines_keep_their_order(home: Home) -> None:
    text = forms.vnet_conf("web1", STANDARD)
    text = text.replace("  vnet;\n", '  exec.prestart += "echo first";\n  exec.prestop = "echo stopping";\n  vnet;\n')
    text = text.replace("\n}\n", '\n  exec.prestart += "echo last";\n  exec.poststop += "echo gone";\n}\n')
    home.put(text)
    home.install(Way.REPLACE)
    jail = home.jail()
    assert jail.values("exec.prestart") == ["echo first", f"{HOOK} prestart 'web1'", "echo last"]
    assert jail.values("exec.prestop") == ["echo stopping", f"{HOOK} prestop 'web1'"]
    assert jail.values("exec.poststop") == [f"{HOOK} poststop 'web1'", "echo gone"]
    assert home.remove() == text


@pytest.mark.parametrize("way", list(Way))
def test_a_later_assignment_does_not_throw_ours_away(home: Home, way: Way) -> None:
    text = forms.vnet_conf("web1", BRIDGE).replace("\n}\n", "\n  exec.poststart = 'echo here';\n}\n")
    home.put(text)
    home.install(way)
    assert home.jail().values("exec.poststart") == ["echo here", f"{HOOK} poststart 'web1'"]
    # and one that comes after the installation is seen: `bastille config web1 set exec.prestop ...`
    edited = home.text().replace("\n}\n", "\n  exec.prestop = 'echo mine';\n}\n")
    home.put(edited)
    state = home.editor.state("web1")
    assert (state.installed, state.complete) == (way, False)
    assert "mobility hooks install bastille web1" in state.note
    home.install(way)
    assert home.jail().values("exec.prestop") == ["echo mine", f"{HOOK} prestop 'web1'"]
    assert home.editor.state("web1").complete
    assert home.remove() == text.replace("\n}\n", "\n  exec.prestop = 'echo mine';\n}\n")


def test_one_of_several_in_one_list(home: Home) -> None:
    text = forms.vnet_conf("web1", BRIDGE).replace("vnet.interface = e0b_web1;", 'vnet.interface = e0b_web1, "em1";')
    home.put(text)
    home.install(Way.REPLACE)
    assert home.jail().values("vnet.interface") == ["em1"]
    assert home.remove() == text


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("vnet.interface = e0b_web1;", "vnet; vnet.interface = e0b_web1;", "line 16: vnet.interface shares its line"),
        ("\n}\n", '\n  exec.prestart += "ifconfig e0a_web1 mtu 9000";\n}\n', "line 21: exec.prestart uses e0a_web1"),
        ("\n}\n", '\n  exec.created += "ifconfig e0b_web1 -vnet x";\n}\n', "line 21: exec.created uses e0b_web1"),
        ('addm e0a_web1";', 'addm e0a_web1", "echo mine";', "commands of Bastille's and others in one list"),
        ("web1 {", "web2 {", "must hold one block web1"),
        ("vnet;", "vnet", "line 16: "),
        ("\n}\n", "\n  securelevel = 2; }\n", None),
        ("  vnet;", "#mobility# #mobility# x;\n  vnet;", "comments that look like ours"),
    ],
)
def test_what_can_not_be_done_is_told(home: Home, old: str, new: str, why: str | None) -> None:
    text = forms.vnet_conf("web1", BRIDGE).replace(old, new, 1)
    home.put(text)
    if why is None:
        home.install(Way.REPLACE)
        assert home.remove() == text
        return
    with pytest.raises(HooksError, match=re.escape(why)) as error:
        home.editor.install("web1", Way.REPLACE)
    assert str(error.value).startswith("jail web1: ")
    assert home.text() == text


def test_a_jail_all_on_one_line(home: Home) -> None:
    home.put("web1 { vnet; path = /; }\n")
    with pytest.raises(HooksError, match="give it a line of its own"):
        home.editor.install("web1", Way.REPLACE)


def test_a_jail_without_interfaces(home: Home) -> None:
    text = forms.conf("web1", ["vnet;"])
    home.put(text)
    with pytest.raises(HooksError, match="makes it no interface that could be adopted"):
        home.editor.install("web1", Way.ADOPT)
    home.install(Way.REPLACE)
    assert home.jail().values("exec.created") == [f"{HOOK} created 'web1'"]
    assert home.remove() == text


def test_no_such_jail(home: Home) -> None:
    home.put(forms.vnet_conf("web1", BRIDGE))
    for call in (home.editor.state, home.editor.remove, lambda name: home.editor.install(name, Way.ADOPT)):
        with pytest.raises(HooksError, match=r"jail web2: Bastille has no such jail \(its jails: web1\)"):
            call("web2")
        with pytest.raises(HooksError, match="has no such jail"):
            call("../web1")


def test_replace_needs_a_grant(home: Home) -> None:
    """Without an address the jail would start without a network; what its own rc.conf says is no grant."""
    path = home.put(forms.vnet_conf("web1", BRIDGE), grant=False)
    (path.parent / "root/etc").mkdir(parents=True)
    (path.parent / "root/etc/rc.conf").write_text(forms.rc_conf("e0b_web1", "inet 198.51.100.9/24"))
    with pytest.raises(HooksError, match=r'jails.d/web1.toml: addresses = \["198.51.100.9"\]'):
        home.editor.install("web1", Way.REPLACE)
    assert home.editor.install("web1", Way.ADOPT)
    (home.jails_d / "web1.toml").write_text('requests = ["198.51.100.8/30"]\n')
    assert home.editor.install("web1", Way.REPLACE)
    (home.jails_d / "web1.toml").unlink()
    (path.parent / "settings.conf").write_text('boot="on"\nmobility_addresses="198.51.100.9"\n')
    assert home.editor.install("web1", Way.REPLACE)


def test_several_interfaces_in_an_old_form(home: Home) -> None:
    """A newer Bastille would rewrite the file, our comments in it, at the next stop."""
    second = ["vnet.interface += e1b_bastille0;", 'exec.prestart += "jib addm bastille0 em1";']
    home.put(forms.conf("web1", ["vnet;", *forms.old_lines("web1", "0.9"), *second]))
    with pytest.raises(HooksError, match="let it"):
        home.editor.install("web1", Way.REPLACE)
    assert home.install(Way.ADOPT)


def test_random_edits_are_kept(home: Home) -> None:
    """Whatever others add or take away between ours: install and remove give back what was there, and the edits."""
    random.seed(7)
    extra = [
        "  # a remark",
        '  exec.prestart += "echo x";',
        "  exec.stop += 'echo y';",
        "",
        "\tallow.raw_sockets;",
        "  exec.poststop = 'z';",
        "  // more",
        "  /* and\n  more */",
        "  depend = db1;\r",
    ]
    for _ in range(300):
        _, name, text = random.choice(FORMS)
        way = random.choice(list(Way))
        lines = text.split("\n")
        for _ in range(random.randint(0, 4)):
            lines.insert(random.randint(1, len(lines) - 2), random.choice(extra))
        text = "\n".join(lines)[: -1 if random.random() < 0.3 else None]
        home.put(text, name)
        try:
            home.install(way, name)
        except HooksError as error:
            assert "no end on the host" in str(error), text  # noqa: PT017
            continue
        assert home.editor.state(name).complete
        assert home.remove(name) == text
        home.install(way, name)
        # an edit of somebody else's anywhere in the block
        lines = home.text(name).split("\n")
        at = random.randint(1, len(lines) - 2)
        home.put("\n".join([*lines[:at], "  children.max = 7;", *lines[at:]]), name)
        removed = home.remove(name)
        assert removed.replace("  children.max = 7;\n", "", 1) == text


def test_netgraph_replaced(home: Home) -> None:
    home.put(forms.vnet_conf("web1", NETGRAPH, static_mac=True))
    home.install(Way.REPLACE)
    assert home.jail().values("exec.prestart") == [f"{HOOK} prestart 'web1'"]
    assert home.jail().values("exec.poststop") == [f"{HOOK} poststop 'web1'"]
