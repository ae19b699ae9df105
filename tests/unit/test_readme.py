"""README.md against the program: no setting, metric, command or target is missing in it, and none is there too many.

The commands that it shows are run by tests/lab/test_readme.py.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from mobility import announcement, cli, config
from mobility.jails import jailsd
from mobility.metrics import Metrics
from tests.lab.jail8 import conf as jail_conf
from tests.readme import DEPLOY, PATH, REPOSITORY, block, blocks, table

PAGE = PATH.read_text()
HOOK_PHASES = ("prestart", "created", "poststart", "prestop", "poststop")


def unquoted(cell: str) -> str:
    return cell.strip("`")


# -- the configuration


def known_settings() -> set[str]:
    """Return every setting that the configuration knows: it names them all where one is wrong."""
    sections = ("host", "paths", "managers", "hooks", "agent", "metrics", "bgp", "ownership", "damping", "health")
    data: dict[str, Any] = {name: {"?": 0} for name in sections}
    data["bgp"]["peer"] = [{"?": 0}]
    data["failover"] = {"NAME": {"?": 0}}
    _, problems = config.parse(data, Path("mobility.toml"))
    found = set()
    for problem in problems:
        section, _, key = problem.key.rpartition(".")
        if key == "?":
            names = problem.remedy.partition("known here: ")[2].split(", ")
            found |= {f"{section.replace('[0]', '')}.{name}" for name in names}
    return found - {"bgp.peer"}


def with_defaults(rows: list[list[str]]) -> dict[str, Any]:
    """Return a TOML document of everything that has its default written in the table."""
    data: dict[str, Any] = {}
    for name, default, _ in rows:
        if not default.startswith("`") or re.fullmatch(r"`[a-z_]\w*`", default):
            continue
        *path, key = unquoted(name).split(".")
        if path[0] == "failover":
            continue  # tests/unit/failover/test_config.py
        value = tomllib.loads(f"value = {unquoted(default)}")["value"]
        if path == ["bgp", "peer"]:
            data.setdefault("bgp", {}).setdefault("peer", [{}])[0][key] = value
        else:
            data.setdefault(path[0], {})[key] = value
    return data


def merged(base: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in more.items():
        if key == "peer":
            result[key] = [{**base[key][0], **value[0]}]
        else:
            result[key] = merged(base.get(key, {}), value) if isinstance(value, dict) else value
    return result


def test_every_setting_is_in_the_table() -> None:
    assert {unquoted(row[0]) for row in table(PAGE, "## Configuration")} == known_settings()


def test_the_defaults_are_those_of_the_program() -> None:
    minimal = tomllib.loads(block(PAGE, "mobility.toml"))
    defaults = with_defaults(table(PAGE, "## Configuration"))
    assert len(defaults["agent"]) > 5
    short, wrong = config.parse(minimal, Path("mobility.toml"))
    long, wrong_too = config.parse(merged(minimal, defaults), Path("mobility.toml"))
    assert not wrong
    assert not wrong_too
    assert long == short


def test_its_configuration_is_one(tmp_path: Path) -> None:
    (tmp_path / "mobility.toml").write_text(block(PAGE, "mobility.toml") + block(PAGE, "group"))
    loaded = config.load(tmp_path / "mobility.toml")
    for each in blocks(PAGE, "toml"):
        if each.name.startswith("jails.d/"):
            entry, problems = jailsd.parse(
                Path(each.name).stem, each.text, each.name, loaded.host.allowed, loaded.terms
            )
            assert not problems
            assert entry is not None


def test_every_setting_of_announcements_is_in_its_table() -> None:
    assert tuple(unquoted(row[0]) for row in table(PAGE, "## Attributes")) == announcement.SETTINGS


def test_the_wrong_configuration_is_answered_as_shown(tmp_path: Path) -> None:
    path = tmp_path / "mobility.toml"
    path.write_text(block(PAGE, "wrong"))
    with pytest.raises(config.ConfigError) as caught:
        config.load(path)
    told = str(caught.value).replace(str(path), "/usr/local/etc/mobility/mobility.toml")
    assert block(PAGE, "wrong-answer").rstrip("\n") == told


# -- the jail


def test_its_jail_conf_is_the_sample_and_calls_every_hook() -> None:
    text = block(PAGE, "jail.conf")
    assert text == (DEPLOY / "jail.conf.sample").read_text()
    (jail,) = jail_conf.jails(jail_conf.parse(text, "jail.conf"))
    assert not jail.problems
    assert jail.true("vnet")
    for phase in HOOK_PHASES:
        assert jail.values(f"exec.{phase}") == [f"/usr/local/libexec/mobility/hook {phase} 'web1'"]


# -- what it lists


def exposed() -> list[list[str]]:
    """Return a table row for each metric that an agent may show."""
    metrics = Metrics()
    metrics.refresh(
        {
            "stands": {"announced": 1},
            "not_announced": {"web1": "reason"},
            "rib": {"desired": 1},
            "bridge": True,
            "drained": [],
            "sessions": [{"peer": "spine", "held_back": {"why": 2}}],
            "spool": {"depth": 0, "oldest_s": 0},
            "ownership": {"held": 1},
            "checks": {"probes": 1, "runs": {"tcp": 1}, "failures": {("tcp", "refused"): 1}},
            "failover": {
                "groups": [{"name": "lan", "stance": "preferred", "vhids": {"1@igb0": "MASTER"}}],
                "pfsync": {"syncok": True},
                "demotion": {"total": 240, "ours": 240},
            },
        }
    )

    class Session:
        state = "up"

    metrics.sessions({"spine": Session()})
    metrics.event("created")
    metrics.ownership("lost")
    metrics.turned("lan", "less")
    metrics.command("ifconfig", 0.1, failed=True)
    metrics.spool_rejected("cut")
    rows = []
    for family in metrics.registry.collect():
        labels = sorted({label for sample in family.samples for label in sample.labels} - {"le"})
        name = family.name + ("_total" if family.type == "counter" else "")
        assert family.samples, f"{name} has no sample: the test must make it show one"
        rows.append([f"`{name}`", family.type, ", ".join(f"`{label}`" for label in labels), family.documentation])
    return sorted(rows)


def test_every_metric_is_in_the_table() -> None:
    assert table(PAGE, "## Logs and metrics") == exposed()


def subcommands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Return every command line's parser, by its words."""
    found: dict[str, argparse.ArgumentParser] = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, sub in action.choices.items():
                inner = subcommands(sub)
                found |= {f"{name} {more}": each for more, each in inner.items()} or {name: sub}
    return found


def test_every_command_is_in_the_table() -> None:
    commands = subcommands(cli._parser())
    rows = [unquoted(row[0]).removeprefix("mobility ") for row in table(PAGE, "## Commands")]
    found = {row: max((name for name in commands if row.split(" [")[0].startswith(name)), key=len) for row in rows}
    assert set(found.values()) == set(commands)
    for row, name in found.items():
        takes = commands[name].format_usage()
        for word in row.removeprefix(name).split():
            assert word.strip("[].") in takes


def test_the_exit_statuses_are_those_of_the_program() -> None:
    told = {int(row[0]) for row in table(PAGE, "### Exit statuses")}
    assert told == {cli.EX_OK, cli.EX_FAILED, cli.EX_USAGE, cli.EX_DATAERR, cli.EX_CONFIG, cli.EX_INTERRUPTED}


def test_every_target_of_the_makefile_is_told_and_exists() -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    told = {target for row in table(PAGE, "## Development") for target in re.findall(r"make ([a-z-]+)", row[0])}
    assert told <= targets
    assert targets - told == {"all", "setup", "packages", "can-lab", "lock"}
    assert set(re.findall(r"^make ([a-z]+)", "".join(b.text for b in blocks(PAGE, "sh")), re.MULTILINE)) <= targets


def test_each_line_on_failures_names_tests_that_exist() -> None:
    tests = "".join(path.read_text() for path in (REPOSITORY / "tests").rglob("test_*.py"))
    rows = table(PAGE, "## When something dies")
    assert rows
    for what, _, shown_by in rows:
        names = re.findall(r"`(test_\w+)`", shown_by)
        assert names, what
        for name in names:
            assert f"def {name}(" in tests


def test_what_it_quotes_for_trouble_is_what_is_said() -> None:
    parts = [*(REPOSITORY / "mobility").rglob("*.py"), REPOSITORY / "hooks" / "mobility-hook"]
    said = re.sub(r'"\s*\n\s*f?"', "", "".join(path.read_text() for path in parts))
    quotes = [quote for row in table(PAGE, "## Trouble") for cell in row for quote in re.findall(r'"([^"`]+)"', cell)]
    assert len(quotes) > 5
    for quote in quotes:
        assert quote in said


def test_the_demo_is_told_in_its_own_words() -> None:
    demo = (REPOSITORY / "tests" / "lab" / "demo.py").read_text()
    titles = [title.replace("{JAIL}", "web1") for title in re.findall(r'\.begin\(f?"(.+)"\)', demo)]
    told = re.findall(r"^== step \d: (.+)$", PAGE, re.MULTILINE)
    assert told
    assert set(told) <= set(titles)


# -- its links and its installation


def test_its_links_lead_somewhere() -> None:
    headings = {
        re.sub(r"[^a-z -]", "", h.lower()).replace(" ", "-") for h in re.findall(r"^#+ (.+)$", PAGE, re.MULTILINE)
    }
    for target in re.findall(r"\]\(([^)]+)\)", PAGE):
        if target.startswith("#"):
            assert target[1:] in headings
        else:
            assert (REPOSITORY / target).exists()


def test_what_it_installs_is_there(tmp_path: Path) -> None:
    """The lines that need no FreeBSD are run, into a folder of ours; the others are at least a shell's."""
    (text,) = [each.text for each in blocks(PAGE, "sh") if "pkg install" in each.text]
    subprocess.run(["sh", "-n"], input=text, text=True, check=True)
    here = tmp_path / "usr" / "local"
    for folder in ("libexec/mobility/venv/bin", "sbin"):
        (here / folder).mkdir(parents=True)
    ran = 0
    for line in text.splitlines():
        words = shlex.split(line.replace("/usr/local", str(here)))
        if words[0] == "make":
            words = ["make", "-s", *words[1:], f"PREFIX={here}"]
        if words[0] in ("make", "ln"):
            subprocess.run(words, cwd=REPOSITORY, check=True)
            ran += 1
    assert ran == 2
    assert os.access(here / "libexec/mobility/hook", os.X_OK)
    assert os.access(here / "etc/rc.d/mobility_exabgp", os.X_OK)
    config.load(here / "etc/mobility/mobility.toml")
    # what other files of ours expect to find there
    services = "".join(path.read_text() for path in (DEPLOY / "freebsd" / "rc.d").iterdir())
    assert "/usr/local/sbin/mobility" in text
    for path in ("/usr/local/sbin/mobility", str(config.DEFAULT_PATH)):
        assert path in services
