"""Hooks in iocage's config.json: as iocage writes and runs it, restored to the byte."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobility import config
from mobility.hooks.edit import Hook, HooksError, State, Way, apply
from mobility.hooks.iocage import IocageEditor
from mobility.jails.iocage import Iocage
from mobility.jails.said import Ends
from mobility.jails.sources import Sources

HOOK = "/usr/local/libexec/mobility/hook"
GRANT = 'addresses = ["198.51.100.7", "2001:db8:7::7"]\n'
#: As `iocage create vnet=1 ip4_addr=… ip6_addr=…` leaves it, shortened.
WEB1: dict[str, Any] = {
    "host_hostname": "web1",
    "host_hostuuid": "web1",
    "ip4_addr": "vnet0|198.51.100.7/32",
    "ip6_addr": "vnet0|2001:db8:7::7/128",
    "jail_zfs_dataset": "iocage/jails/web1/data",
    "last_started": "none",
    "notes": "Grüße",
    "release": "13.2-RELEASE",
    "vnet": 1,
}
PHASES = ("prestart", "created", "poststart", "prestop", "poststop")
OURS = {phase: f"{HOOK} {phase} 'ioc-web1'" for phase in PHASES}


def written(properties: dict[str, Any]) -> str:
    """As iocage writes it (ioc_json.py, json_write)."""
    return json.dumps(properties, sort_keys=True, indent=4, ensure_ascii=False)


class Home:
    """An iocage's folder, and our editor of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "iocage"
        self.jails_d = folder / "jails.d"
        self.runtime = folder / "run"
        self.runtime.mkdir()
        (folder / "mobility.toml").write_text(
            '[host]\nname = "a"\nallowed = ["198.51.100.0/24", "2001:db8:7::/64"]\n'
            f'[paths]\njails_d = "{self.jails_d}"\n[managers]\nbastille = ""\njail_conf = ""\niocage = "{self.root}"\n'
            '[bgp]\nas = 65001\nrouter_id = "10.0.0.1"\n'
            '[[bgp.peer]]\nname = "s"\naddress = "fd00::2"\nas = 65000\nlocal_address = "fd00::1"\n'
        )
        self.config = config.load(folder / "mobility.toml")
        self.editor = self.with_hook(Hook())

    def with_hook(self, hook: Hook) -> IocageEditor:
        return IocageEditor(self.config, hook, self.runtime)

    def path(self, name: str = "web1") -> Path:
        return self.root / "jails" / name / "config.json"

    def grant(self, name: str = "web1") -> Path:
        return self.jails_d / f"ioc-{name}.toml"

    def put(self, content: dict[str, Any] | str, name: str = "web1") -> bytes:
        self.path(name).parent.mkdir(parents=True, exist_ok=True)
        text = content if isinstance(content, str) else written(content)
        self.path(name).write_bytes(text.encode())
        return text.encode()

    def install(self, way: Way = Way.REPLACE, name: str = "web1") -> dict[str, Any]:
        apply(self.editor.install(name, way))
        return self.properties(name)

    def remove(self, name: str = "web1") -> bytes:
        apply(self.editor.remove(name))
        return self.path(name).read_bytes()

    def properties(self, name: str = "web1") -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.path(name).read_bytes())
        return found

    def edit(self, **properties: Any) -> None:
        """`iocage set`: reads, sets, writes."""
        self.put({**self.properties(), **properties})


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def runscript(script: str) -> list[str]:
    """What iocage executes for a property (ioc_common.py, runscript)."""
    words = shlex.split(script)
    return ["/bin/sh", "-c", " ".join(words)] if len(words) > 1 else words


def test_replace(home: Home) -> None:
    before = home.put(WEB1)
    after = home.install()
    assert (after["ip4_addr"], after["ip6_addr"]) == ("none", "none")
    assert "dhcp" not in after
    for phase in ("prestart", "created", "poststart"):
        assert after[f"exec_{phase}"] == f"{OURS[phase]} || exit 1; /usr/bin/true"
    for phase in ("prestop", "poststop"):
        assert after[f"exec_{phase}"] == f"{OURS[phase]}; /usr/bin/true"
    assert home.path().read_text() == written(after)  # iocage's next write makes no difference
    assert home.grant().read_text().endswith(f"\n{GRANT}")
    said = Iocage(home.root).read("ioc-web1", requests=True)
    assert said is not None
    assert (said.ends, said.addresses, said.advice) == ((), (), ())
    assert home.editor.state("web1") == State("web1", Way.REPLACE, complete=True, path=home.path())
    assert home.editor.install("web1", Way.REPLACE) == []
    assert home.remove() == before
    assert not home.grant().exists()
    assert home.editor.remove("web1") == []
    assert home.editor.state("web1") == State("web1", None, complete=False, path=home.path())


def test_what_is_installed_is_understood_by_what_reads_it(home: Home) -> None:
    home.put(WEB1)
    home.install()
    files = Sources.of(home.config)
    files.refresh()
    assert files.problems == {}
    assert files.jails["ioc-web1"].texts == ("198.51.100.7", "2001:db8:7::7")
    assert files.jails["ioc-web1"].ends is None
    home.install(Way.ADOPT)
    files.refresh()
    assert files.problems == {}
    assert files.jails["ioc-web1"].ends == Ends("vnet0.{jid}", ("epair0b", "vnet0"))


def test_adopt(home: Home) -> None:
    before = home.put(WEB1)
    after = home.install(Way.ADOPT)
    assert {key: value for key, value in after.items() if key in WEB1} == WEB1
    assert "exec_prestart" not in after
    assert "exec_created" not in after
    assert after["exec_poststart"] == f"{OURS['poststart']} || exit 1; /usr/bin/true"
    assert not home.grant().exists()
    assert home.editor.state("web1") == State("web1", Way.ADOPT, complete=True, path=home.path())
    assert home.editor.install("web1", Way.ADOPT) == []
    assert home.remove() == before


def test_from_one_way_to_the_other(home: Home) -> None:
    before = home.put(WEB1)
    home.install(Way.REPLACE)
    replaced = home.path().read_bytes(), home.grant().read_bytes()
    home.install(Way.ADOPT)
    adopted = home.path().read_bytes()
    assert not home.grant().exists()
    assert home.remove() == before
    home.install(Way.ADOPT)
    assert home.path().read_bytes() == adopted
    home.install(Way.REPLACE)
    assert (home.path().read_bytes(), home.grant().read_bytes()) == replaced
    assert home.remove() == before


@pytest.mark.parametrize(
    "layout",
    [
        json.dumps(WEB1),
        json.dumps(WEB1, indent=2) + "\n",
        written(WEB1) + "\n",
        json.dumps(dict(reversed(WEB1.items())), indent=4, ensure_ascii=True),
        '{"vnet": 0, "vnet": 1,\r\n"ip4_addr":"198.51.100.7"}',
    ],
)
@pytest.mark.parametrize("way", Way)
def test_a_file_that_somebody_wrote_by_hand_comes_back_to_the_byte(home: Home, layout: str, way: Way) -> None:
    before = home.put(layout)
    home.install(way)
    assert home.editor.state("web1").complete
    assert home.remove() == before


def test_what_iocage_writes_meanwhile_stays(home: Home) -> None:
    home.put(json.dumps(WEB1))
    home.install()
    home.edit(last_started="2026-11-21 10:00:00", vnet0_mac="02ff60aabbcc 02ff60aabbcd")
    assert home.editor.state("web1").complete
    assert home.editor.install("web1", Way.REPLACE) == []
    wanted = {**WEB1, "last_started": "2026-11-21 10:00:00", "vnet0_mac": "02ff60aabbcc 02ff60aabbcd"}
    assert home.remove() == written(wanted).encode()


def test_commands_of_the_users_own_stay_behind_ours(home: Home) -> None:
    own = {
        "exec_prestart": "/root/prepare; /root/check --all",
        "exec_created": "/root/created a b",
        "exec_poststart": "/root/one && /root/two # done",
        "exec_prestop": "/root/bye",
        "exec_poststop": "sh -c 'echo a b' || true",
    }
    before = home.put({**WEB1, **own})
    after = home.install()
    for key, value in own.items():
        ours = OURS[key.removeprefix("exec_")]
        refuse = "" if "stop" in key else " || exit 1"
        assert after[key] == f"{ours}{refuse}; {value}"
        if key != "exec_created":
            assert runscript(after[key])[2].endswith(f"; {' '.join(shlex.split(value))}")
    assert home.remove() == before


def test_inherited_commands_are_run_too_and_stay_inherited(home: Home) -> None:
    before = home.put(WEB1)
    (home.root / "defaults.json").write_text(json.dumps({"exec_prestart": "/root/all", "ip6_addr": "none"}))
    assert home.install()["exec_prestart"] == f"{OURS['prestart']} || exit 1; /root/all"
    assert home.remove() == before


def test_addresses_that_are_inherited_make_way(home: Home) -> None:
    web1 = {key: value for key, value in WEB1.items() if key != "ip4_addr"}
    before = home.put(web1)
    (home.root / "defaults.json").write_text(json.dumps({"ip4_addr": "vnet0|198.51.100.9/32", "dhcp": "on"}))
    after = home.install()
    assert (after["ip4_addr"], after["dhcp"]) == ("none", 0)
    assert home.remove() == before


def test_what_would_make_an_interface_or_stop_the_start_is_switched_off(home: Home) -> None:
    """dhcp makes one whatever ip4_addr says; rtsold without accept_rtadv refuses to start (ioc_start.py)."""
    home.put({**WEB1, "dhcp": 1, "bpf": 1, "ip6_addr": "vnet0|accept_rtadv", "rtsold": "on"})
    after = home.install()
    assert (after["dhcp"], after["rtsold"], after["ip6_addr"], after["bpf"]) == (0, 0, "none", 1)
    assert 'addresses = ["198.51.100.7"]' in home.grant().read_text()
    home.edit(dhcp=False)  # iocage's set writes what is off as it likes
    home.remove()
    assert (home.properties()["dhcp"], home.properties()["rtsold"]) == (1, "on")


def test_a_jail_on_the_hosts_addresses_keeps_them(home: Home) -> None:
    before = home.put({**WEB1, "vnet": 0, "ip4_addr": "lo1|198.51.100.7", "ip6_addr": "none"})
    after = home.install()
    assert after["ip4_addr"] == "lo1|198.51.100.7"
    assert sorted(key for key in after if key.startswith("exec_")) == [
        "exec_poststart",
        "exec_poststop",
        "exec_prestop",
    ]
    assert not home.grant().exists()
    assert home.editor.state("web1") == State("web1", Way.REPLACE, complete=True, path=home.path())
    assert home.remove() == before


@pytest.mark.parametrize(
    "theirs", ["/bin/true", "'{folder}/a script'", "exit 0", "false || true", "true #", "a='b c'; true"]
)
def test_what_the_user_has_fails_as_before(home: Home, theirs: str) -> None:
    script = home.folder / "a script"
    script.write_text("#!/bin/sh\nexit 0\n")
    script.chmod(0o755)
    hook = home.folder / "mobility-hook"
    hook.write_text(f'#!/bin/sh\necho "$*" >> {home.folder}/called\n')
    hook.chmod(0o755)
    home.editor = home.with_hook(Hook(hook))
    home.put({**WEB1, **{f"exec_{phase}": theirs.format(folder=home.folder) for phase in PHASES}})
    after = home.install()
    for phase in PHASES:
        value = after[f"exec_{phase}"]
        alone = ["/bin/sh", "-c", value] if phase == "created" else runscript(value)
        assert subprocess.run(alone, check=False).returncode == 0
    assert (home.folder / "called").read_text().splitlines() == [f"{phase} ioc-web1" for phase in PHASES]
    hook.write_text("#!/bin/sh\nexit 1\n")
    refused = [subprocess.run(runscript(after[f"exec_{phase}"]), check=False).returncode for phase in PHASES]
    assert refused == [1, 1, 1, 0, 0]


def test_what_the_user_has_fails_the_stop_as_before(home: Home) -> None:
    hook = home.folder / "mobility-hook"
    home.editor = home.with_hook(Hook(hook))  # not even there: no stop may hang on that
    home.put({**WEB1, "exec_prestop": "/usr/bin/false"})
    after = home.install()
    done = subprocess.run(runscript(after["exec_prestop"]), check=False, stderr=subprocess.DEVNULL)
    assert done.returncode == 1
    done = subprocess.run(runscript(after["exec_poststop"]), check=False, stderr=subprocess.DEVNULL)
    assert done.returncode == 0


def test_edits_since_then_stay_and_ours_goes(home: Home) -> None:
    home.put({**WEB1, "exec_prestop": "/root/bye"})
    after = home.install()
    home.edit(
        exec_prestart="/root/mine",  # ours overwritten
        exec_prestop=after["exec_prestop"].replace("/root/bye", "/root/goodbye"),
        exec_poststart=f"/root/first && {after['exec_poststart']}",
        exec_poststop=OURS["poststop"],
        ip6_addr="vnet0|2001:db8:7::8/128",
    )
    state = home.editor.state("web1")
    assert (state.installed, state.complete) == (Way.REPLACE, False)
    assert "makes its interface again" in state.note
    home.remove()
    assert home.properties() == {
        **WEB1,
        "exec_prestart": "/root/mine",
        "exec_prestop": "/root/goodbye",
        "exec_poststart": "/root/first && /usr/bin/true",
        "exec_poststop": "/usr/bin/true",
        "ip6_addr": "vnet0|2001:db8:7::8/128",
    }


def test_installing_again_takes_edits_over(home: Home) -> None:
    home.put(WEB1)
    home.install()
    home.edit(exec_prestart="/root/mine", ip4_addr="vnet0|198.51.100.8/32")
    assert not home.editor.state("web1").complete
    after = home.install()
    assert after["exec_prestart"] == f"{OURS['prestart']} || exit 1; /root/mine"
    assert after["ip4_addr"] == "none"
    home.remove()
    assert home.properties() == {**WEB1, "exec_prestart": "/root/mine", "ip4_addr": "vnet0|198.51.100.8/32"}


def test_a_renamed_jail_and_another_hook(home: Home) -> None:
    home.put(WEB1)
    home.install()
    home.put({**home.properties(), "host_hostuuid": "web2"}, "web2")  # iocage rename sets just this
    state = home.editor.state("web2")
    assert (state.installed, state.complete) == (Way.REPLACE, False)
    home.install(name="web2")
    assert "'ioc-web2'" in home.properties("web2")["exec_prestart"]
    assert home.grant("web2").exists()
    home.editor = home.with_hook(Hook(Path("/opt/hook"), Path("/etc/mobility.toml")))
    assert not home.editor.state("web1").complete
    assert home.install()["exec_prestop"] == "/opt/hook -c /etc/mobility.toml prestop 'ioc-web1'; /usr/bin/true"
    assert json.loads(home.remove()) == WEB1
    assert json.loads(home.remove("web2")) == {**WEB1, "host_hostuuid": "web2"}


def test_a_clone_takes_the_hooks_along_but_no_grant(home: Home) -> None:
    home.put(WEB1)
    installed = home.install()
    # ioc_create.py, _create_jail: the name is replaced wherever it stands in a text
    clone = {
        key: value.replace("web1", "web9") if isinstance(value, str) else value for key, value in installed.items()
    }
    home.put(clone, "web9")
    state = home.editor.state("web9")
    assert (state.installed, state.complete, str(home.grant("web9")) in state.note) == (Way.REPLACE, False, True)
    assert home.install(name="web9") == clone
    assert home.editor.state("web9").complete
    home.remove("web9")
    assert home.properties("web9") == {**WEB1, **{key: clone[key] for key in WEB1 if key.startswith(("host", "jail"))}}


def test_a_grant_that_is_there_stays(home: Home) -> None:
    home.put({**WEB1, "ip4_addr": "vnet0|DHCP", "ip6_addr": "none"})
    home.jails_d.mkdir()
    mine = 'addresses = ["198.51.100.9/32"]\n'
    home.grant().write_text(mine)
    home.install()
    assert home.grant().read_text() == mine
    home.remove()
    assert home.grant().read_text() == mine


def test_a_file_of_jails_d_that_grants_nothing_yet(home: Home) -> None:
    home.put(WEB1)
    home.jails_d.mkdir()
    mine = 'requests = ["198.51.100.0/28"]\n'
    home.grant().write_text(mine)
    home.install()
    assert home.grant().read_text().endswith(GRANT + mine)
    assert home.editor.install("web1", Way.REPLACE) == []
    home.remove()
    assert home.grant().read_text() == mine


def test_a_grant_that_was_changed_stays(home: Home) -> None:
    home.put(WEB1)
    home.install()
    home.grant().write_text('addresses = ["198.51.100.9/32"]\n')
    assert home.editor.state("web1").complete
    home.remove()
    assert home.grant().exists()


def test_a_grant_that_is_missing_is_written_again(home: Home) -> None:
    home.put(WEB1)
    home.install()
    home.grant().unlink()
    state = home.editor.state("web1")
    assert (state.complete, str(home.grant()) in state.note) == (False, True)
    assert [change.path for change in home.editor.install("web1", Way.REPLACE)] == [home.grant()]


def test_the_grant_goes_first_in_and_last_out(home: Home) -> None:
    home.put(WEB1)
    assert [change.path for change in home.editor.install("web1", Way.REPLACE)] == [home.grant(), home.path()]
    home.install()
    assert [change.path for change in home.editor.remove("web1")] == [home.path(), home.grant()]


@pytest.mark.parametrize(
    ("properties", "word"),
    [
        ({"nat": 1}, "nat=0"),
        ({"dhcp": 1, "ip4_addr": "none", "ip6_addr": "none"}, "a DHCP server"),
        ({"ip4_addr": "none", "ip6_addr": "none"}, "addresses ="),
        ({"ip4_addr": "vnet0|192.0.2.7/24"}, "host.allowed"),
        ({"ip4_addr": "vnet0|web1.example"}, "ip4_addr"),
        ({"exec_prestop": "echo 'a"}, "exec_prestop"),
    ],
)
def test_what_is_refused(home: Home, properties: dict[str, Any], word: str) -> None:
    before = home.put({**WEB1, **properties})
    with pytest.raises(HooksError, match=f"jail web1: .*{word}"):
        home.editor.install("web1", Way.REPLACE)
    assert home.path().read_bytes() == before


@pytest.mark.parametrize("content", ["", "{", "[]", '{"mobility_way": "none"}', '{"a": "\\ud800"}'])
def test_files_that_can_not_be_edited(home: Home, content: str) -> None:
    home.put(content)
    with pytest.raises(HooksError, match=r"jail web1: .*config\.json"):
        home.editor.state("web1")


def test_names(home: Home) -> None:
    assert home.editor.jails() == []
    home.put(WEB1)
    for name, word in (("web.3", "rename web.3 web_3"), ("a b", "name is not handled"), ("n" * 60, "up to 59")):
        home.put(WEB1, name)
        with pytest.raises(HooksError, match=word):
            home.editor.install(name, Way.REPLACE)
    assert home.editor.jails() == sorted(["web1", "web.3", "a b", "n" * 60])
    with pytest.raises(HooksError, match="no such jail"):
        home.editor.state("web9")


def test_the_interface_of_a_running_jail_is_left_alone(home: Home) -> None:
    """iocage's stop destroys what its properties say then (ioc_stop.py): it would leave its interface behind."""
    home.put(WEB1)
    runtime = home.runtime / "jail.ioc-web1.conf"
    runtime.touch()
    with pytest.raises(HooksError, match="iocage stop web1"):
        home.editor.install("web1", Way.REPLACE)
    home.install(Way.ADOPT)
    home.remove()
    runtime.unlink()
    home.install()
    runtime.touch()
    with pytest.raises(HooksError, match="iocage stop web1"):
        home.editor.remove("web1")
    with pytest.raises(HooksError, match="iocage stop web1"):
        home.editor.install("web1", Way.ADOPT)


VALUES = st.one_of(
    st.none(), st.text(max_size=12), st.sampled_from(["none", "/usr/bin/true", "a; b", "'a b'", "x && y"])
)


@settings(deadline=None, max_examples=60)
@given(
    own=st.dictionaries(st.sampled_from([f"exec_{phase}" for phase in PHASES]), VALUES.filter(lambda v: v is not None)),
    addresses=st.sampled_from(["none", "vnet0|198.51.100.7", "198.51.100.7/24,vnet1|198.51.100.8"]),
    vnet=st.sampled_from([0, 1, "on", "off", True, False]),
    more=st.dictionaries(st.text(max_size=8), st.one_of(st.none(), st.integers(), st.text(max_size=8)), max_size=3),
    ways=st.lists(st.sampled_from(Way), min_size=1, max_size=3),
)
def test_any_properties_come_back_to_the_byte(
    tmp_path_factory: pytest.TempPathFactory,
    own: dict[str, Any],
    addresses: str,
    vnet: object,
    more: dict[str, Any],
    ways: list[Way],
) -> None:
    home = Home(tmp_path_factory.mktemp("home"))
    before = home.put({**more, **own, "ip4_addr": addresses, "vnet": vnet})
    for way in ways:
        try:
            home.install(way)
        except HooksError:
            assert home.editor.state("web1").installed is not way
        else:
            assert home.editor.install("web1", way) == []
            assert home.editor.state("web1").complete
    assert home.remove() == before
    assert not home.grant().exists()
