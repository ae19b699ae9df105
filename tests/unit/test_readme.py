"""README.md against the program: no setting, metric, command or target is missing in it, and none is there too many.

The commands that it shows are run by tests/lab/test_readme.py and tests/interop/test_readme.py, those that install it here.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path
from typing import Any

import pytest

from mobility import __version__, announcement, cli, config
from mobility.jails import jailsd
from tests import metrics_table, readme_commands, readme_tables
from tests.lab.jail8 import conf as jail_conf
from tests.readme import DEPLOY, PATH, REPOSITORY, agree, block, blocks, masked, shortened, steps, table, written

PAGE = PATH.read_text()
MAKE = "bmake" if shutil.which("bmake") else "make"
HOOK_PHASES = ("prestart", "created", "poststart", "prestop", "poststop")


def unquoted(cell: str) -> str:
    return cell.strip("`")


# -- the configuration


def known_settings() -> set[str]:
    """Return every setting that the configuration knows: it names them all where one is wrong."""
    sections = (
        "host",
        "paths",
        "managers",
        "hooks",
        "agent",
        "metrics",
        "log",
        "bgp",
        "ownership",
        "damping",
        "health",
    )
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


def test_the_table_is_the_one_that_the_program_makes() -> None:
    assert table(PAGE, "## Configuration") == readme_tables.rows(PAGE), "python -m tests.readme_tables writes it"
    assert all(meaning.strip() not in ("", readme_tables.UNKNOWN) for *_, meaning in table(PAGE, "## Configuration"))
    assert readme_tables.written(PAGE) == PAGE


def test_a_new_setting_is_noticed() -> None:
    (line,) = re.findall(r"^\| `agent.drain_for` .*\n", PAGE, re.MULTILINE)
    page = PAGE.replace(line, "")
    again = readme_tables.written(page)
    assert "| `agent.drain_for` | `5.0` | ? |\n" in again
    names = [row[0] for row in table(again, "## Configuration")]
    assert names == [row[0] for row in table(PAGE, "## Configuration")]


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


def test_each_piece_of_a_configuration_is_one() -> None:
    """Each in the place where it belongs: mobility.toml with its first peer, or a file of jails.d with addresses."""
    minimal = tomllib.loads(block(PAGE, "mobility.toml"))
    allowed = [*minimal["host"]["allowed"], "64:ff9b::/96"]
    pieces = [each for each in blocks(PAGE, "toml") if not each.name]
    assert len(pieces) > 3
    for each in pieces:
        data = tomllib.loads(each.text)
        if "bgp" in data:
            peers = {peer["address"]: peer for peer in (*minimal["bgp"]["peer"], *data["bgp"]["peer"])}
            whole = {**minimal, "bgp": {**minimal["bgp"], "peer": list(peers.values())}}
            assert config.parse(whole, Path("mobility.toml"))[1] == []
        else:
            whole = {**minimal, "host": {**minimal["host"], "allowed": allowed}}
            loaded, problems = config.parse(whole, Path("mobility.toml"))
            text = each.text if "addresses" in data else f'addresses = ["198.51.100.7/32"]\n{each.text}'
            entry, wrong = jailsd.parse("web1", text, "web1.toml", loaded.host.allowed, loaded.terms)
            assert (problems, wrong) == ([], [])
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


def test_its_tables_of_metrics_are_what_the_agent_counts() -> None:
    """`python -m tests.metrics_table` writes them; that what is served is just that, tests/unit/test_metrics.py shows."""
    assert metrics_table.written(PAGE) == PAGE


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
    shown = "".join(each.text for each in blocks(PAGE, "sh") if not each.name)
    assert set(re.findall(r"^make ([a-z]+)", shown, re.MULTILINE)) <= targets


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
    section = PAGE.partition("\n## Trouble\n")[2].partition("\n## ")[0]
    rows = [row for heading in re.findall(r"^### .+$", section, re.MULTILINE) for row in table(PAGE, heading)]
    quotes = [quote for row in rows for cell in row for quote in re.findall(r'"([^"`]+)"', cell)]
    assert len(quotes) > 5
    for quote in quotes:
        assert quote in said


def test_the_demo_is_told_in_its_own_words() -> None:
    demo = (REPOSITORY / "tests" / "lab" / "demo.py").read_text()
    titles = [title.replace("{JAIL}", "web1") for title in re.findall(r'\.begin\(f?"(.+)"\)', demo)]
    told = re.findall(r"^== step \d: (.+)$", PAGE, re.MULTILINE)
    assert told
    assert set(told) <= set(titles)


# -- its links


def test_its_links_lead_somewhere() -> None:
    headings = {
        re.sub(r"[^a-z -]", "", h.lower()).replace(" ", "-") for h in re.findall(r"^#+ (.+)$", PAGE, re.MULTILINE)
    }
    for target in re.findall(r"\]\(([^)]+)\)", PAGE):
        if target.startswith("#"):
            assert target[1:] in headings
        else:
            assert (REPOSITORY / target).exists()


# -- its commands


def test_every_command_is_run_or_it_is_said_why_not() -> None:
    told = readme_commands.console_lines(PAGE) | {*readme_commands.install_lines(PAGE), *MONITORING, *COMPLETION}
    told |= {
        line.split("#")[0].strip() for each in blocks(PAGE, "sh") if not each.name for line in each.text.splitlines()
    }
    inline = {command for story in readme_commands.INLINE.values() for command in story}
    elsewhere, not_run = set(readme_commands.ELSEWHERE), set(readme_commands.NOT_RUN)
    found = {span for span in readme_commands.spans(PAGE) if readme_commands.is_command(span)} | told
    found -= readme_commands.NO_COMMANDS
    run = readme_commands.console_lines(PAGE) | inline | elsewhere | not_run | {*INSTALLED, *MONITORED, *COMPLETION}
    # `mobility status` names a command; that it is run with its words is enough
    named = {span for span in found if re.fullmatch("mobility( [a-z]+)+", span)}
    run |= {name for name in named if any(line.startswith(f"{name} ") for line in run)}
    assert found <= run, f"nothing runs these: {sorted(found - run)}: see tests/readme_commands.py"
    assert inline | elsewhere | not_run <= found, "no longer in the page"


def test_what_looks_like_a_command_is_one_or_is_known_to_be_none() -> None:
    strange = {span for span in readme_commands.spans(PAGE) if not readme_commands.is_command(span)}
    assert strange <= readme_commands.NO_COMMANDS, (
        "if its first word is a program, name that in tests/readme_commands.py"
    )
    assert set(readme_commands.spans(PAGE)) >= readme_commands.NO_COMMANDS


def test_a_command_that_nothing_runs_is_found() -> None:
    more = f"{PAGE}\nThen `mobility frobnicate --all` and\n`service\nmobility dance`, or `unheard of`.\n"
    spans = readme_commands.spans(more)
    assert spans[-3:] == ["mobility frobnicate --all", "service mobility dance", "unheard of"]
    assert [readme_commands.is_command(span) for span in spans[-3:]] == [True, True, False]


def test_what_runs_its_commands_elsewhere_exists() -> None:
    for command, test in readme_commands.ELSEWHERE.items():
        file, _, name = test.partition("::")
        assert f"def {name}(" in (REPOSITORY / file).read_text(), command


def test_commands_stand_in_blocks_that_are_run() -> None:
    assert {each.kind for each in blocks(PAGE)} == {"console", "sh", "text", "toml"}
    names = {each.name for each in blocks(PAGE, "sh")}
    assert names == {"", "install", "monitoring", "completion"}
    for each in blocks(PAGE, "text"):
        # the demo's are printed by the demo (tests/lab/test_demo.py)
        if not each.text.startswith("== step"):
            assert not re.search(r"^\w*[#$%] \w", each.text, re.MULTILINE) or each.name == "jail.conf", each.text


def test_every_console_block_is_told_by_a_story() -> None:
    names = [each.name for each in blocks(PAGE, "console")]
    assert set(names) == set(readme_commands.INLINE)
    prompts = [tuple(step.prompt for step in steps(each.text)) for each in blocks(PAGE, "console")]
    assert len(set(prompts)) == len(prompts), "by them a block is known when outputs are written anew"


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        (["a", "b"], ["a", "b"], True),
        (["pid 7"], ["pid 8"], True),
        (["a"], ["a", "b"], False),
        (["a", "[...]"], ["a", "b", "c"], True),
        (["a", "[...]", "c"], ["a", "b", "c"], True),
        (["a", "[...]", "c"], ["a", "c"], True),
        (["a", "[...]", "a"], ["a"], False),
        (["a", "[...]", "c", "[...]", "e"], ["a", "b", "c", "d", "e"], True),
        (["a", "[...]", "x", "[...]", "e"], ["a", "b", "c", "d", "e"], False),
        (["a", "[...]", "e", "[...]", "e"], ["a", "b", "e"], False),
    ],
)
def test_what_is_left_out_may_be_anything(shown: list[str], printed: list[str], *, same: bool) -> None:
    assert agree(shown, printed) == same
    if same and len(printed) > 1:
        assert masked(shortened(shown, printed)) == masked(shown)


def test_outputs_are_written_where_their_commands_stand() -> None:
    page = "x\n\n   ```console\n   a# one\n   old\n   a# two\n   ```\n\n```console\na# three\nstays\n```\n"
    first, _ = blocks(page, "console")
    one, two = steps(first.text)
    again = written(page, [[(one, ["new", "", "lines"]), (two, [])]])
    assert again == page.replace("   old\n", "   new\n\n   lines\n")
    assert steps(blocks(again, "console")[0].text)[0].shown == ["new", "", "lines"]


# -- what watches it


def test_every_alert_is_told_and_exists() -> None:
    rules = (DEPLOY / "prometheus" / "alerts.yml").read_text()
    section = PAGE.partition("\n### Alerts\n")[2].partition("\n### ")[0]
    told = re.findall(r"`(Mobility\w+)`", section)
    assert sorted(told) == sorted(re.findall(r"^ +- alert: (\w+)$", rules, re.MULTILINE))


def test_each_dashboard_has_its_picture() -> None:
    boards = {path.stem.removeprefix("mobility-") for path in (DEPLOY / "grafana" / "boards").glob("*.json")}
    shown = re.findall(r"^!\[.+\]\(deploy/grafana/pictures/(\w+)\.png\)$", PAGE, re.MULTILINE)
    assert set(shown) == boards
    assert len(shown) == len(boards)


# -- its installation

#: What of the lines that install it is run here, by its program; `kldload` and `sysctl` are the lab's (tests/lab/story.py).
HERE = ("python3.11", "/usr/local/libexec/mobility/venv/bin/pip", "ln", "mobility", "make", "sysrc")
INSTALLED = [line for line in readme_commands.install_lines(PAGE) if line.split()[0] in (*HERE, "kldload", "sysctl")]
COMPLETION = readme_commands.shell_lines(PAGE, "completion")
MONITORING = readme_commands.monitoring_lines(PAGE)
MONITORED = [line for line in MONITORING if line.split()[0] in ("cd", "cp", "rm", "promtool", "sysrc")]
#: sysrc(8) as Bastille's scripts have it in the lab.
SYSRC = REPOSITORY / "tests" / "lab" / "managers" / "bin" / "sysrc"


def set_at_boot(rc_conf: Path, line: str) -> str:
    """Run a line of sysrc(8) on a file of ours; return what it says."""
    argv = [sys.executable, str(SYSRC), "-f", str(rc_conf), *shlex.split(line)[1:]]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def assigned(rc_conf: Path) -> dict[str, str]:
    return dict(word.split("=", 1) for word in shlex.split(rc_conf.read_text()))


def test_what_it_installs_is_there(tmp_path: Path) -> None:
    """Every line that needs no FreeBSD is run, with /usr/local in a folder of ours."""
    here = tmp_path / "usr" / "local"
    for folder in ("libexec/mobility", "sbin"):
        (here / folder).mkdir(parents=True)
    # pip finds what we need where our own Python has it, and asks nobody
    site = here / f"libexec/mobility/venv/lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    environment = {
        **os.environ,
        "PATH": f"{here}/sbin:{os.environ['PATH']}",
        "PIP_NO_INDEX": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # pip(1): a switch that switches off is switched on by "no"
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
    said = {}
    for line in readme_commands.install_lines(PAGE):
        words = shlex.split(line.replace("/usr/local", str(here)))
        words[0] = {"python3.11": sys.executable, "make": MAKE}.get(words[0], words[0])
        if words[0] == MAKE:
            words.append(f"PREFIX={here}")
        if line.split()[0] in HERE and words[0] != "sysrc":
            done = subprocess.run(words, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
            said[line] = done.stdout.replace(str(here), "/usr/local")
        if "venv" in words:
            (site / "ours.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    assert said["mobility --version"] == f"mobility {__version__}\n"
    assert f"`mobility {__version__}`" in PAGE
    assert said["make -s -C deploy/freebsd install"] == block(PAGE, "installed")
    assert (here / "libexec/mobility/venv/bin/mobility").samefile(here / "sbin/mobility")
    assert os.access(here / "libexec/mobility/hook", os.X_OK)
    assert os.access(here / "etc/rc.d/mobility_exabgp", os.X_OK)
    config.load(here / "etc/mobility/mobility.toml")
    # what other files of ours expect to find there
    services = "".join(path.read_text() for path in (DEPLOY / "freebsd" / "rc.d").iterdir())
    for path in ("/usr/local/sbin/mobility", str(config.DEFAULT_PATH)):
        assert path in services


def test_its_lines_on_completion_do_what_they_say(tmp_path: Path) -> None:
    for folder in (".zfunc", ".config/fish/completions"):  # where these shells have them
        (tmp_path / folder).mkdir(parents=True)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    for line in COMPLETION:
        subprocess.run(["sh", "-ec", line], env={"PATH": path, "HOME": str(tmp_path)}, check=True)
    written = {str(file.relative_to(tmp_path)): file.read_text() for file in tmp_path.rglob("*") if file.is_file()}
    assert set(written) == {".tcshrc", ".bashrc", ".zfunc/_mobility", ".config/fish/completions/mobility.fish"}
    assert written[".tcshrc"] == "source /usr/local/share/mobility/mobility.tcsh\n"
    if bash := shutil.which("bash"):
        asked = [bash, "-c", f"{written['.bashrc']}complete -p mobility"]
        assert (
            "mobility" in subprocess.run(asked, env={"PATH": path}, check=True, capture_output=True, text=True).stdout
        )
    for name in (".zfunc/_mobility", ".config/fish/completions/mobility.fish"):
        assert "undrain" in written[name]


def test_what_it_sets_and_unsets_at_boot(tmp_path: Path) -> None:
    rc_conf = tmp_path / "rc.conf"
    rc_conf.write_text(
        'gateway_enable="NO"\nkld_list="carp"\ndefaultrouter="192.0.2.9"\nipv6_defaultrouter="fd00::9"\n'
    )
    (line,) = [line for line in INSTALLED if line.startswith("sysrc")]
    assert "gateway_enable: NO -> YES\n" in set_at_boot(rc_conf, line)
    found = assigned(rc_conf)
    assert found.pop("kld_list").split() == ["carp", "if_epair"]
    services = "".join(path.read_text() for path in (DEPLOY / "freebsd" / "rc.d").iterdir())
    ours = set(re.findall(r"^rcvar=(\w+)$", services, re.MULTILINE))
    assert {name for name, value in found.items() if value == "YES"} == {*ours, "gateway_enable", "ipv6_gateway_enable"}
    set_at_boot(rc_conf, "sysrc -x defaultrouter ipv6_defaultrouter")
    for line in readme_commands.NOT_RUN:
        if line.startswith("sysrc "):
            set_at_boot(rc_conf, line.partition(" && ")[0])
    assert not {"defaultrouter", "ipv6_defaultrouter"} & set(assigned(rc_conf))
    assert assigned(rc_conf)["ipsec_enable"] == assigned(rc_conf)["pf_enable"] == "YES"


def test_what_of_it_only_a_freebsd_has_is_as_our_other_files_say() -> None:
    lines = readme_commands.install_lines(PAGE)
    subprocess.run(["sh", "-n"], input="\n".join(lines), text=True, check=True)
    makefile = (REPOSITORY / "Makefile").read_text()
    (packages,) = [line.split()[3:] for line in lines if line.startswith("pkg install -y ")]
    assert packages
    for package in packages:
        assert re.search(rf"^FREEBSD.*\b{package}\b", makefile, re.MULTILINE)
    (user,) = [shlex.split(line)[2] for line in lines if line.startswith("pw useradd ")]
    assert user == config.parse(tomllib.loads(block(PAGE, "mobility.toml")), Path("mobility.toml"))[0].bgp.user
    (log,) = [line.split()[2] for line in lines if line.startswith("newsyslog ")]
    for folder in ("newsyslog.conf.d", "syslog.d"):
        assert log in (DEPLOY / "freebsd" / folder / "mobility.conf").read_text()


@pytest.mark.skipif(not shutil.which("promtool"), reason="needs promtool (apt-get install prometheus)")
def test_what_watches_it_is_installed_as_told(tmp_path: Path) -> None:
    """Line by line, with /usr/local in a folder of ours."""
    here = tmp_path / "usr" / "local"
    stage = [MAKE, "-s", "-C", str(DEPLOY / "freebsd"), "stage", f"DESTDIR={tmp_path}"]
    subprocess.run(stage, check=True, capture_output=True)
    (here / "etc/grafana").mkdir()
    rc_conf = tmp_path / "rc.conf"
    rc_conf.touch()
    there: Path = tmp_path
    for line in MONITORED:
        words = shlex.split(line.replace("/usr/local", str(here)))
        if words[0] == "cd":
            there = Path(words[1])
        elif words[0] == "sysrc":
            set_at_boot(rc_conf, line)
        else:
            done = subprocess.run(words, cwd=there, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    assert assigned(rc_conf) == {"prometheus_enable": "YES", "grafana_enable": "YES"}
    assert (here / "etc/alerts.yml").is_file()
    assert list((here / "etc/grafana/provisioning").glob("*/*.yaml"))
