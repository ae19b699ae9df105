"""The manual pages: clean mdoc, and nothing of the program is missing in them or there too many."""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mobility import announcement, cli, config
from mobility.jails import jailsd
from tests.readme import DEPLOY, REPOSITORY

PAGES = sorted((DEPLOY / "freebsd" / "man").iterdir())
COMMANDS = (DEPLOY / "freebsd" / "man" / "mobility.8").read_text()
SETTINGS = (DEPLOY / "freebsd" / "man" / "mobility.toml.5").read_text()
HOOK = (DEPLOY / "freebsd" / "man" / "mobility-hook.8").read_text()
SAMPLE = DEPLOY / "mobility.toml.sample"


@pytest.mark.skipif(not shutil.which("mandoc"), reason="needs mandoc")
@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_mandoc_finds_nothing(page: Path) -> None:
    lint = subprocess.run(["mandoc", "-T", "lint", "-W", "warning", page], capture_output=True, text=True, check=False)
    assert (lint.returncode, lint.stdout) == (0, "")
    # its advice on style too, but for pages of FreeBSD's that are not here
    style = subprocess.run(["mandoc", "-T", "lint", page], capture_output=True, text=True, check=False).stdout
    assert not [line for line in style.splitlines() if "referenced manual not found" not in line]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_a_page_says_where_it_belongs(page: Path) -> None:
    name, _, section = page.name.rpartition(".")
    text = page.read_text()
    assert f".Dt {name.upper()} {section}\n.Os\n" in text
    sections = re.findall(r"^\.Sh (.+)$", text, re.MULTILINE)
    # mdoc(7): these, in this order; the others are free
    order = ["NAME", "SYNOPSIS", "DESCRIPTION", "FILES", "EXIT STATUS", "EXAMPLES", "DIAGNOSTICS", "SEE ALSO"]
    assert [each for each in sections if each in order] == [each for each in order if each in sections]
    assert {"NAME", "DESCRIPTION", "FILES", "EXAMPLES", "DIAGNOSTICS", "SEE ALSO"} <= set(sections)


def test_pages_refer_to_each_other_and_to_pages_that_exist() -> None:
    ours = {tuple(page.name.rsplit(".", 1)) for page in PAGES}
    named = {
        (name, section)
        for page in PAGES
        for name, section in re.findall(r"^\.Xr (\S+) (\d)", page.read_text(), re.MULTILINE)
    }
    assert ours <= named
    assert {pair for pair in named if pair[0].startswith("mobility")} == ours


# -- mobility(8)


def commands(parser: argparse.ArgumentParser, path: str = "") -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Return each command of the parser, those below others too, with the words that lead to it."""
    below = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    words = next((action.choices for action in parser._actions if action.dest == "action"), None)
    if words:
        yield from ((f"{path} {word}", parser) for word in words)
    elif path and not below:
        yield path, parser
    for action in below:
        for name, each in action.choices.items():
            yield from commands(each, f"{path} {name}".strip())


PARSERS = dict(commands(cli._parser()))


def synopses() -> dict[str, set[str]]:
    """Return the options of each command that the synopsis shows."""
    text = COMMANDS.partition(".Sh SYNOPSIS\n")[2].partition(".Sh DESCRIPTION\n")[0]
    found: dict[str, set[str]] = {}
    for each in text.split(".Nm\n")[1:]:
        words = each.replace("\n.Cm ", " ").partition("\n")
        flags = set(re.findall(r"Fl (\S+)", each))
        first = re.match(r"\.Cm (\w+)\n(?:\.Cm ([\w |]+)\n)?", each)
        if first is None:
            assert "-version" in flags, words
            continue
        for below in first[2].split(" | ") if first[2] else [""]:
            found.setdefault(f"{first[1]} {below}".strip(), set()).update(flags)
    return found


def description(command: str) -> str:
    """Return what the page says of a command, in all its forms."""
    text = COMMANDS.partition(".Ss Commands\n")[2].partition(".Ss Signals")[0]
    items = re.split(r"^(?=\.It Cm )", text, flags=re.MULTILINE)
    return "".join(item for item in items if re.match(rf"\.It Cm {command}( (Ar|Fl|Oo|Op)|\n)", item))


def test_every_command_has_a_synopsis_and_a_description() -> None:
    assert set(synopses()) == set(PARSERS)
    for command in PARSERS:
        assert len(description(command)) > 60, command


@pytest.mark.parametrize("command", PARSERS)
def test_the_synopsis_has_every_option_of_a_command(command: str) -> None:
    known = {flag for action in PARSERS[command]._actions for flag in (s[1:] for s in action.option_strings)}
    shown = synopses()[command]
    assert shown <= known
    for action in PARSERS[command]._actions:
        names = {name[1:] for name in action.option_strings}
        if names and "-help" not in names:
            assert names & shown, f"{command}: {names}"


@pytest.mark.parametrize("command", PARSERS)
def test_every_option_is_described_with_its_choices_and_default(command: str) -> None:
    text = COMMANDS.partition(".Ss Commands\n")[2].partition(".Ss Signals")[0]
    for action in PARSERS[command]._actions:
        for name in action.option_strings:
            assert re.search(rf"^\.It .*Fl {name[1:]}( |$)", text, re.MULTILINE), f"{command} {name}"
        if action.choices and action.option_strings:
            assert f"Fl {action.option_strings[0][1:]} Cm {' | '.join(map(str, action.choices))}" in text
        if action.choices and not action.option_strings and action.dest != "action":
            assert all(f".Li {word} " in text or f".Li {word}\n" in text for word in action.choices), action.dest
        if isinstance(action.default, str | int | Path) and action.default not in (False, argparse.SUPPRESS):
            assert re.search(rf"The default is\s+(\.Cm |\.Pa )?{action.default}\b", text), (
                f"{command} {action.option_strings}"
            )


def test_the_default_of_within_is_told() -> None:
    assert f"The default is {cli.WITHIN:g}." in description("drain")


def test_every_exit_status_is_told() -> None:
    text = COMMANDS.partition(".Sh EXIT STATUS\n")[2].partition(".Sh EXAMPLES")[0]
    known = {value for name, value in vars(cli).items() if name.startswith("EX_")}
    assert {int(number) for number in re.findall(r"^\.It (\d+)$", text, re.MULTILINE)} == known


def test_its_examples_are_commands() -> None:
    text = COMMANDS.partition(".Sh EXAMPLES\n")[2].partition(".Sh DIAGNOSTICS")[0]
    lines = re.findall(r"^(?:\.Dl )?# mobility (.+?)(?: \|.*)?$", text, re.MULTILINE)
    assert len(lines) > 4
    for line in lines:
        cli._parser().parse_args(line.split())


@pytest.mark.parametrize(
    ("page", "sources"),
    [
        (COMMANDS, ("mobility/**/*.py",)),
        (SETTINGS, ("mobility/**/*.py", "hooks/mobility-hook")),
        (HOOK, ("hooks/mobility-hook",)),
    ],
    ids=["mobility.8", "mobility.toml.5", "mobility-hook.8"],
)
def test_what_is_quoted_is_what_is_said(page: str, sources: tuple[str, ...]) -> None:
    text = "".join(path.read_text() for pattern in sources for path in sorted(REPOSITORY.glob(pattern)))
    said = re.sub(r'"\s*\n\s*f?"', "", text).replace("{path}", "/var/run/mobility/control.sock")
    for quote in re.findall(
        r"^\.It (.+)$", page.partition(".Sh DIAGNOSTICS\n")[2].partition(".Sh SEE")[0], re.MULTILINE
    ):
        for part in quote.replace("'%s'", "%s").split("%s"):
            assert part.strip(" :?") in said, quote


# -- mobility.toml(5)


def known_settings() -> dict[str, set[str]]:
    """Return the settings of each section: the program names them all where one is wrong."""
    _, (problem, *_) = config.parse({"?": 0}, Path("mobility.toml"))
    sections = [name for name in problem.remedy.partition("known: ")[2].split(", ") if name != "group"]
    data: dict[str, Any] = {name: {"?": 0} for name in sections}
    data["bgp"]["peer"] = [{"?": 0}]
    data["failover"] = {"NAME": {"?": 0}}
    _, problems = config.parse(data, Path("mobility.toml"))
    found: dict[str, set[str]] = {}
    for problem in problems:
        section, _, key = problem.key.rpartition(".")
        if key == "?":
            found[section.replace("[0]", "")] = set(problem.remedy.partition("known here: ")[2].split(", "))
    found["bgp"].remove("peer")
    assert len(found) == len(sections) + 1
    return found


def described() -> dict[str, str]:
    """Return what the page says of each setting of mobility.toml."""
    text = SETTINGS.partition(".Ss Files of jails")[0]
    items = re.split(r"^\.It Va (\S+)$", text, flags=re.MULTILINE)
    return {
        name: body.partition(".El")[0] if ".Bl" not in body else body
        for name, body in zip(items[1::2], (each.partition("\n.Ss ")[0] for each in items[2::2]), strict=True)
    }


def test_every_setting_is_described_once() -> None:
    known = sorted(f"{section}.{name}" for section, names in known_settings().items() for name in names)
    assert sorted(re.findall(r"^\.It Va (\S+\.\S+)$", SETTINGS, re.MULTILINE)) == known


def test_every_setting_of_a_jails_file_is_described() -> None:
    text = SETTINGS.partition(".Ss Files of jails")[2].partition(".Sh FILES")[0]
    _, problems = jailsd.parse("web1", '"?" = 0', "web1.toml", ())
    known = next(p.remedy for p in problems if "?" in p.key).partition("known here: ")[2].split(", ")
    assert sorted(re.findall(r"^\.It Va (\S+)$", text, re.MULTILINE)) == sorted(known)
    for link in jailsd.LINKS:
        assert f".Qq {link}" in text


def test_every_setting_of_announcements_is_described() -> None:
    text = SETTINGS.partition(".Ss Announcements of jails")[2].partition(".Ss Files of jails")[0]
    assert tuple(re.findall(r"^\.It Li (\S+)$", text, re.MULTILINE)) == announcement.SETTINGS
    sample = SAMPLE.read_text().partition("# [group.dns]\n")[2]
    assert tuple(re.findall(r"^#   (\w+) = ", sample, re.MULTILINE)) == announcement.SETTINGS
    group = tomllib.loads("[group.dns]\n" + sample.replace("#", ""))
    _, problems = config.parse(group, Path("mobility.toml"))
    assert not [problem for problem in problems if problem.key.startswith("group")]


def plain(mdoc: str) -> str:
    """Return mdoc as a reader sees it, near enough."""
    text = mdoc.replace("\\(dq", '"').replace("\\&", "")
    text = re.sub(r"^\.Qq (\S+)( [.,;])?$", lambda m: f'"{m[1]}"{(m[2] or "").strip()}', text, flags=re.MULTILINE)
    text = re.sub(
        r"^\.(?:Li|Va|Pa|Ev|Fx|Dv|Xr) (.*?)(?: ([.,;]))?$", lambda m: f"{m[1]}{m[2] or ''}", text, flags=re.MULTILINE
    )
    return " ".join(text.split())


def defaults() -> dict[str, Any]:
    """Return the settings that have a fixed default, which the sample has as comments, by their names."""
    lines = SAMPLE.read_text().splitlines()
    section, found = "", {}
    for line in lines:
        if opened := re.fullmatch(r"\[+([\w.]+)\]+", line):
            section = opened[1]
        elif setting := re.fullmatch(r"# ([a-z_0-9]+) = (\S.*)", line):
            found[f"{section}.{setting[1]}"] = tomllib.loads(f"x = {setting[2]}")["x"]
    # what is taken from the host, from where Python is, or from another setting
    others = ("next_hop_ipv6", "next_hop_ipv4", "uplink_ipv6", "uplink_ipv4", "multihop")
    for name in ("host.name", "bgp.bridge_command", *(f"bgp.peer.{other}" for other in others)):
        found.pop(name)
    return found


def test_every_default_is_told() -> None:
    found = defaults()
    assert len(found) > 20
    items = described()
    for name, value in found.items():
        if isinstance(value, bool):
            shown = str(value).lower()
        elif isinstance(value, str):
            shown = f'"{value}"'
        elif isinstance(value, list):
            shown = "[" + ", ".join(f'"{each}"' for each in value) + "]"
        else:
            shown = f"{value:.0f}" if value == int(value) else str(value)
        assert re.search(rf"The default is {re.escape(shown)}[.,;]", plain(items[name])), f"{name}: {shown}"


def test_what_is_required_is_told() -> None:
    _, problems = config.parse({"bgp": {"peer": [{}]}}, Path("mobility.toml"))
    required = {p.key.replace("[0]", "") for p in problems if "is missing" in p.remedy} | {"failover.NAME.vhids"}
    assert {name for name, text in described().items() if "Required." in text} == required


@pytest.mark.parametrize("name", sorted(f"{s}.{n}" for s, names in known_settings().items() for n in names))
def test_the_range_that_is_told_is_the_programs(name: str) -> None:
    """Just inside its ends a number is taken, just outside it is not."""
    found = re.search(r"from ([\d.]+) to ([\d.]*\d)", plain(described()[name]))
    if found is None:
        return
    section, _, key = name.rpartition(".")
    for value, good in (
        (found[1], True),
        (found[2], True),
        (str(float(found[1]) - 1), False),
        (str(float(found[2]) + 1), False),
    ):
        number = float(value) if "." in value and not value.endswith(".0") else int(float(value))
        data: dict[str, Any] = {"bgp": {"peer": [{key: number}]}} if section == "bgp.peer" else {section: {key: number}}
        if section == "failover.NAME":
            data = {"failover": {"NAME": {key: number}}}
        _, problems = config.parse(data, Path("mobility.toml"))
        assert (name not in {problem.key.replace("[0]", "") for problem in problems}) == good, number


def test_its_examples_are_good() -> None:
    text = SETTINGS.partition(".Sh EXAMPLES\n")[2].partition(".Sh DIAGNOSTICS")[0]
    host, *jails = [each.partition("\n")[2] for each in re.findall(r"^\.Bd(?:.|\n)*?(?=^\.Ed)", text, re.MULTILINE)]
    loaded, problems = config.parse(tomllib.loads(host), Path("mobility.toml"))
    assert not problems
    assert len(jails) > 1
    for jail in jails:
        entry, problems = jailsd.parse("web1", jail, "web1.toml", loaded.host.allowed)
        assert entry is not None
        assert not problems


# -- mobility-hook(8)


def test_the_hook_is_described_as_it_is() -> None:
    script = (REPOSITORY / "hooks" / "mobility-hook").read_text()
    found = re.search(r"^(\w+(?: \| \w+)+)\) phase=\$1", script, re.MULTILINE)
    assert found is not None
    assert f".Cm {found[1]}\n" in HOOK
    for phase in found[1].split(" | "):
        assert f".It Cm {phase}\n" in HOOK
        # as in the sample
        (line,) = re.findall(rf"^exec\.{phase} .*$", HOOK, re.MULTILINE)
        assert line in (DEPLOY / "jail.conf.sample").read_text()
    waiting = re.findall(r"^\.It Cm (\w+)\n(?:(?!\.It)(?:.|\n))*?It (waits|does not wait)\.$", HOOK, re.MULTILINE)
    silent = re.search(r"^(\w+) \| (\w+)\)\n    tell_agent no", script, re.MULTILINE)
    assert silent is not None
    assert {phase for phase, how in waiting if how == "does not wait"} == {silent[1], silent[2]}
