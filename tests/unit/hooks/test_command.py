"""`mobility hooks`: each jail by itself, exit statuses that say so, and nothing changed that was only to be shown."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from mobility import cli, config
from mobility.hooks import command

CONFIG = """
[host]
name = "a"
allowed = ["198.51.100.0/24"]
[paths]
commands = ["{folder}/bin"]
jails_d = "{folder}/jails.d"
state = "{folder}/state"
[managers]
bastille = ""
iocage = "{folder}/iocage"
jail_conf = "{folder}/jail.conf"
[bgp]
as = 65001
router_id = "10.0.0.1"
[[bgp.peer]]
name = "spine"
address = "fd00:1::ff"
as = 65000
local_address = "fd00:1::1"
"""
JAILS = """\
web1 { vnet; }
db1 { ip4.addr = 198.51.100.9; }
broken { path = $no; }
"""
#: jls(8) with one jail running, as FreeBSD 13.2 prints it.
JLS = """#!/bin/sh
printf '%s' '{"__version": "2", "jail-information": {"jail": ['
printf '%s' '{"name":"web1","jid":"1","path":"/","vnet":"new","ip4.addr":"","ip6.addr":""}]}}'
"""


class Site:
    """A host's files, and the command line."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.folder = folder
        self.conf = folder / "jail.conf"
        self.config = folder / "mobility.toml"
        self.hook = self.program("hook", "#!/bin/sh\n")
        self.program("jls", JLS)
        self.config.write_text(CONFIG.format(folder=folder))
        self.conf.write_text(JAILS)
        self.grant("web1")

    def program(self, name: str, text: str) -> Path:
        path = self.folder / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
        return path

    def grant(self, name: str) -> None:
        path = self.folder / "jails.d" / f"{name}.toml"
        path.parent.mkdir(exist_ok=True)
        path.write_text('addresses = ["198.51.100.7"]\n')

    def run(self, *words: str) -> tuple[int, str, str]:
        """Exit status, standard output and standard error."""
        status = cli.main(["hooks", *words, "--config", str(self.config), "--hook", str(self.hook)])
        return status, *self._capsys.readouterr()

    def json(self, *words: str) -> tuple[int, dict[str, Any]]:
        status, out, err = self.run(*words, "--json")
        assert err == ""
        return status, json.loads(out)


@pytest.fixture
def site(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Site:
    return Site(tmp_path, capsys)


def test_installed_told_and_removed(site: Site) -> None:
    status, out, err = site.run("install", "jail.conf", "web1", "db1")
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        f"web1: installed (replace) in {site.conf}",
        f"db1: installed (replace) in {site.conf}",
        "running now, so it counts from their next start: web1",
    ]
    call = f"{site.hook} -c {site.config} created '${{name}}'"
    assert f'exec.created += "{call}"; # mobility' in site.conf.read_text()
    status, out, err = site.run("status", "jail.conf", "web1", "db1")
    assert (status, err) == (0, "")
    assert [line.split() for line in out.splitlines()] == [
        ["JAIL", "WAY", "COMPLETE", "FILE", "NOTE"],
        ["web1", "replace", "yes", str(site.conf)],
        ["db1", "replace", "yes", str(site.conf)],
    ]
    assert site.run("install", "jail.conf", "web1")[:2] == (0, "web1: installed already\n")
    assert site.run("remove", "jail.conf", "web1", "db1")[0] == 0
    assert site.conf.read_text() == JAILS
    assert site.run("remove", "jail.conf", "db1")[:2] == (0, "db1: not installed\n")


def test_what_goes_wrong_with_one_jail_leaves_it_and_no_other(site: Site) -> None:
    status, out, err = site.run("install", "jail.conf", "--all")
    assert status == 1
    assert "web1: installed" in out
    assert "db1: installed" in out
    assert "mobility: jail broken: " in err
    assert "there is no variable 'no': mend it first" in err
    assert err.endswith("mobility: 1 of 3 jails are as they were: broken\n")
    assert site.conf.read_text().endswith("broken { path = $no; }\n")


def test_a_dry_run_shows_what_would_be_done(site: Site) -> None:
    site.hook.unlink()
    status, out, err = site.run("install", "jail.conf", "web1", "--dry-run")
    assert (status, err) == (0, "")
    assert site.conf.read_text() == JAILS
    patched = subprocess.run(
        ["patch", "-s", "-o", "-", site.conf], input=out, capture_output=True, text=True, check=True
    )
    site.program("hook", "")
    site.run("install", "jail.conf", "web1")
    assert site.conf.read_text() == patched.stdout
    assert site.run("remove", "jail.conf", "web1", "--dry-run")[1].count("\n-") == 7


def test_json(site: Site) -> None:
    status, told = site.json("install", "jail.conf", "web1", "nosuch")
    assert (status, told["ok"], told["manager"], told["restart"]) == (1, False, "jail.conf", ["web1"])
    good, bad = told["jails"]
    assert good == {
        "jail": "web1", "changed": [str(site.conf)], "way": "replace", "complete": True, "file": str(site.conf),
        "note": "", "error": "",
    }  # fmt: skip
    assert (bad["jail"], bad["changed"], bad["way"]) == ("nosuch", [], None)
    assert "has a block of this name" in bad["error"]
    status, told = site.json("remove", "jail.conf", "web1", "--dry-run")
    assert (status, told["ok"]) == (0, True)
    assert told["jails"][0]["diff"].startswith(f"--- {site.conf}\n")


def test_status_is_not_well_where_hooks_are_missing(site: Site) -> None:
    site.run("install", "jail.conf", "web1")
    text = "".join(line for line in site.conf.read_text().splitlines(keepends=True) if "prestop" not in line)
    site.conf.write_text(text)
    status, out, _ = site.run("status", "jail.conf", "web1")
    assert status == 1
    assert out.splitlines()[1].split()[:3] == ["web1", "replace", "no"]
    assert "not there: prestop: install again" in out
    # nothing installed is no fault
    assert site.run("status", "jail.conf", "db1")[0] == 0


def test_adopting(site: Site) -> None:
    site.conf.write_text("web1 { vnet; vnet.interface = epair3b; }\n")
    assert site.run("install", "jail.conf", "--adopt", "web1")[:2] == (
        0,
        f"web1: installed (adopt) in {site.conf}\nrunning now, so it counts from their next start: web1\n",
    )
    assert "vnet.interface = epair3b;" in site.conf.read_text()


def test_what_else_makes_interfaces_is_told(site: Site) -> None:
    site.conf.write_text('web1 { vnet; exec.prestart = "jib addm web1 em0"; }\n')
    out = site.run("install", "jail.conf", "web1")[1]
    assert f"web1: note: exec.prestart makes interfaces itself ({site.conf} line 1): jib addm web1 em0\n" in out


def test_no_jails_at_all(site: Site) -> None:
    site.conf.write_text("")
    assert site.run("install", "jail.conf", "--all") == (0, "jail.conf has no jails\n", "")
    assert site.run("status", "iocage") == (0, "iocage has no jails\n", "")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("install", "jail.conf"), "which jails? hooks install jail.conf NAME, or --all"),
        (("remove", "jail.conf", "--all", "web1"), "name jails, or say --all: not both"),
        (("remove", "jail.conf", "web1", "--adopt"), "--adopt goes with hooks install"),
        (("status", "jail.conf", "--dry-run"), "hooks status changes nothing: leave --dry-run away"),
    ],
)
def test_wrong_words(site: Site, words: tuple[str, ...], message: str) -> None:
    assert site.run(*words) == (2, "", f"mobility: {message}\n")


def test_a_manager_that_is_switched_off(site: Site) -> None:
    status, out, err = site.run("status", "bastille")
    assert (status, out) == (1, "")
    assert "managers.bastille of mobility.toml is empty" in err


def test_no_hook_is_installed_that_is_not_there(site: Site) -> None:
    site.hook.unlink()
    status, out, err = site.run("install", "jail.conf", "web1")
    assert (status, out) == (1, "")
    assert err == (
        f"mobility: {site.hook} is no program that can be run, and no jail with it could start: "
        "install it, or name it: --hook PATH\n"
    )
    assert site.conf.read_text() == JAILS


def test_a_file_that_is_no_jail_conf_is_no_stack_trace(site: Site) -> None:
    site.conf.write_text("web1 { vnet }\n")
    for words in (("status", "jail.conf"), ("install", "jail.conf", "--all"), ("remove", "jail.conf", "web1")):
        status, _, err = site.run(*words)
        assert status == 1
        assert f"{site.conf} line 1: '}}' is not expected here: is a ';' missing before it?; mend it first" in err


def test_without_jls_it_is_said_and_done_all_the_same(site: Site) -> None:
    (site.folder / "bin" / "jls").unlink()
    status, out, err = site.run("install", "jail.conf", "web1")
    assert (status, out) == (0, f"web1: installed (replace) in {site.conf}\n")
    assert "which of these jails run can not be told (jls: not found" in err


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
def test_who_may_not_write_is_told_so(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in (site.folder, *site.folder.parents):
        if path.stat().st_uid == 0 and str(path).startswith("/tmp/"):
            path.chmod(0o755)
    child = os.fork()
    if child == 0:
        os.setuid(65534)
        status, _, err = site.run("install", "jail.conf", "web1")
        os._exit(0 if status == 1 and "can not be changed: Permission denied" in err else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert site.conf.read_text() == JAILS


def test_the_default_configuration_needs_no_words_in_the_lines(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "DEFAULT_PATH", site.config)
    site.run("install", "jail.conf", "web1")
    assert f"\"{site.hook} created '${{name}}'\"" in site.conf.read_text()


def test_every_manager_has_its_editor() -> None:
    assert sorted(command.EDITORS) == ["bastille", "iocage", "jail.conf"]
