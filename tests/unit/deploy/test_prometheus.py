"""deploy/prometheus: rules, runbook and sample configuration, by Debian's promtool, and against what the agent serves.

That a real Prometheus scrapes agents by them: tests/lab/test_prometheus.py.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from mobility import cli, config
from mobility.metrics.catalogue import CATALOGUE, HISTOGRAM
from mobility.metrics.causes import Cause
from tests.lab.prometheus import FASTER, hastened
from tests.readme import DEPLOY, REPOSITORY
from tests.unit.deploy.test_files import staged
from tests.unit.test_readme import known_settings, subcommands

FOLDER = DEPLOY / "prometheus"
RULES, ALERTS, SAMPLE, RUNBOOK = (FOLDER / name for name in ("rules.yml", "alerts.yml", "prometheus.yml", "runbook.md"))
TESTS = sorted((Path(__file__).parent / "prometheus").glob("*.yml"))
#: Where the runbook is, until an operator says where his copy is.
PLACEHOLDER = "https://runbooks.example.net/mobility"
SEVERITIES = {"critical", "warning", "info"}
#: Labels that Prometheus itself gives a target, and histograms.
OF_PROMETHEUS = {"job", "instance", "le"}
#: What a name in an expression may be.
_NAME = re.compile(r"(?<![\w:])([a-z_][\w:]*)(?:\{([^}]*)\})?")


def promtool(*words: str | Path, cwd: Path = FOLDER) -> subprocess.CompletedProcess[str]:
    """Run promtool. Where it is missing, that is what failed: `make packages` installs Debian's prometheus."""
    program = shutil.which("promtool")
    assert program, "promtool is not installed: apt-get install prometheus, pkg install prometheus"
    return subprocess.run([program, *words], capture_output=True, text=True, check=False, cwd=cwd)


@cache
def rules() -> list[dict[str, Any]]:
    """Return all rules, recording ones first."""
    return [
        rule
        for path in (RULES, ALERTS)
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
    ]


def alerts() -> dict[str, dict[str, Any]]:
    """Return each alerting rule by its name."""
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def names(expression: str) -> Iterator[tuple[str, set[str]]]:
    """Return each series' name in an expression, with the labels that it is asked for by."""
    for name, matchers in _NAME.findall(expression):
        if ":" in name or name.startswith("mobility_"):
            yield name, set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers))


def paragraphs() -> dict[str, str]:
    """Return the runbook's paragraph of each alert."""
    parts = re.split(r"^### (.+)$", RUNBOOK.read_text(), flags=re.MULTILINE)[1:]
    return {name: text.partition("\n## ")[0].strip() for name, text in zip(parts[::2], parts[1::2], strict=True)}


# -- promtool


@pytest.mark.parametrize("words", [("rules", RULES, ALERTS), ("config", SAMPLE)], ids=lambda words: words[0])
def test_promtool_takes_them(words: Sequence[str | Path]) -> None:
    done = promtool("check", *words)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_would_say_if_it_did_not(tmp_path: Path) -> None:
    (tmp_path / "alerts.yml").write_text(ALERTS.read_text().replace("for: 2m", "for: soon"))
    assert promtool("check", "rules", tmp_path / "alerts.yml").returncode != 0


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_alerts_fire_when_they_should_and_are_silent_when_not(path: Path) -> None:
    done = promtool("test", "rules", path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_rule_that_says_something_else_fails_its_tests(tmp_path: Path) -> None:
    """What promtool is given here is looked at: an alert that fires at once, and a threshold that is never reached."""
    text = ALERTS.read_text()
    for number, (old, new) in enumerate(((r"^ +for: 1m\n", ""), (r"lans:max$", "lans:max + 1"))):
        folder = tmp_path / str(number)
        folder.mkdir()
        changed, count = re.subn(old, new, text, flags=re.MULTILINE)
        assert count
        (folder / "alerts.yml").write_text(changed)
        shutil.copy(RULES, folder)
        failover = (Path(__file__).parent / "prometheus" / "failover.yml").read_text()
        (folder / "test.yml").write_text(failover.replace("../../../../deploy/prometheus/", ""))
        assert promtool("test", "rules", folder / "test.yml").returncode != 0, old


def test_each_alert_is_shown_silent_then_firing_then_silent_again() -> None:
    found: dict[str, set[str]] = {name: set() for name in alerts()}
    for path in TESTS:
        for test in yaml.safe_load(path.read_text())["tests"]:
            seen: dict[str, str] = {}
            for check in test.get("alert_rule_test", ()):
                name = check["alertname"]
                seen[name] = seen.get(name, "") + ("fires " if check["exp_alerts"] else "silent ")
            for name, said in seen.items():
                found[name] |= {
                    what
                    for what, pattern in (
                        ("clears", "fires silent"),
                        ("waits", "silent fires"),
                        ("quiet", "^(silent )+$"),
                    )
                    if re.search(pattern, said)
                }
    # what becomes true at once has no moment before it that would say anything
    assert {name: {"clears", "waits"} - what for name, what in found.items() if not {"clears", "waits"} <= what} == {}
    # and of most there is a case that looks like it and is not
    without = {name for name, what in found.items() if "quiet" not in what}
    assert len(without) <= len(found) // 3, without


def test_whole_days_are_quiet() -> None:
    """Of whatever name: a drained host, an agent's restart, one flap, a jail stopped by hand, counters that begin anew."""
    (quiet,) = [yaml.safe_load(path.read_text()) for path in TESTS if path.stem == "quiet"]
    told = " ".join(test["name"] for test in quiet["tests"])
    for what in ("drained", "agent is restarted", "flaps once", "stopped by hand", "moves"):
        assert what in told
    for test in quiet["tests"]:
        assert test["promql_expr_test"]
        for check in test["promql_expr_test"]:
            assert (check["expr"], check["exp_samples"]) == ('ALERTS{alertstate="firing"}', [])


def test_what_operators_are_told_has_no_holes() -> None:
    for path in TESTS:
        assert "no value" not in path.read_text()
        assert "%!" not in path.read_text()


# -- against the agent


def test_every_series_is_one_that_an_agent_serves_or_a_rule_records() -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    asked = set()
    for rule in rules():
        texts = [rule["expr"], *re.findall(r'printf "(\w+\{.*?\})"', str(rule.get("annotations", "")))]
        for name, labels in (pair for text in texts for pair in names(text)):
            asked.add(name)
            if ":" in name:
                assert name in recorded, name
                continue
            stem = re.sub(r"_(bucket|count|sum)$", "", name)
            figure = CATALOGUE.get(name) or CATALOGUE.get(stem)
            assert figure is not None, name
            assert name == figure.name or figure.kind == HISTOGRAM, name
            assert labels <= {*figure.labels, *OF_PROMETHEUS}, (name, labels)
    assert len(asked) > 40


def test_recorded_names_say_over_which_labels_they_are() -> None:
    """prometheus.io/docs/practices/rules: level:metric:operations."""
    for rule in rules():
        if "record" in rule:
            level, metric, operation = rule["record"].split(":")
            assert re.fullmatch(r"(job|instance)(_(jail|command|failover_id))?", level)
            assert metric in rule["expr"] or metric.split("_")[1] in ("hosts", "jail", "carp", "bgp"), rule["record"]
            assert re.fullmatch(r"(sum|max|count|rate|increase|p50|p99)(_?\d+m)?", operation)


def test_the_reasons_in_the_runbook_are_those_that_are_told() -> None:
    told = set(re.findall(r"`([a-z_]+)`", paragraphs()["MobilityJailNotAnnounced"])) - {"sending"}
    assert told <= {str(cause) for cause in Cause}


# -- what an operator reads


@pytest.mark.parametrize("name", alerts())
def test_an_alert_says_what_is_so_and_what_to_type(name: str) -> None:
    rule = alerts()[name]
    assert name.startswith("Mobility")
    assert rule["labels"].keys() == {"severity"}
    assert rule["labels"]["severity"] in SEVERITIES
    said = rule["annotations"]
    assert said.keys() == {"summary", "description", "runbook_url"}
    assert len(said["summary"]) <= 110
    assert not said["summary"].endswith(".")
    # whom it is about
    assert "$labels" in said["summary"] or name == "MobilityNothingScraped"
    # something to type: one of ours, or the system's
    assert re.search(r"\b(mobility [a-z]+|service mobility\w*|promtool|ifconfig|sysctl|grep)\b", said["description"])
    assert said["runbook_url"] == f"{PLACEHOLDER}/runbook.md#{name.lower()}"


@pytest.mark.parametrize("path", [ALERTS, RUNBOOK], ids=lambda path: path.name)
def test_commands_services_and_settings_that_are_named_exist(path: Path) -> None:
    text = path.read_text()
    if path == ALERTS:
        text = " ".join(text for rule in alerts().values() for text in rule["annotations"].values())
        typed = [text]
    else:
        typed = re.findall(r"`([^`]+)`", text)
    commands = set(subcommands(cli._parser()))
    found = {word for each in typed for word in re.findall(r"(?<!service )(?<![\w/.-])mobility ([a-z]+)", each)}
    assert len(found) >= 5
    assert found <= commands
    services = {word for each in typed for word in re.findall(r"\bservice (mobility\w*)", each)}
    assert services <= {path.name for path in (DEPLOY / "freebsd" / "rc.d").iterdir()}
    sections = {setting.partition(".")[0] for setting in known_settings()}
    settings = {
        word
        for word in re.findall(r"(?<![\w/.@\[])([a-z]+(?:\.[a-z_0-9]+)+)(?![\w(/@-])", text)
        if word.partition(".")[0] in sections
    }
    assert settings
    assert settings <= known_settings()


def test_what_the_log_is_searched_for_is_said_in_it() -> None:
    text = " ".join(rule["annotations"]["description"] for rule in alerts().values())
    sought = re.findall(r"grep (?:'(\w+) [^']*'|(\w+)) /var/log/mobility\.log", text)
    assert len(sought) >= 4
    sources = [*(REPOSITORY / "mobility").rglob("*.py"), *(DEPLOY / "freebsd" / "rc.d").iterdir()]
    said = "".join(path.read_text() for path in sources)
    for word in map("".join, sought):
        places = (rf'log\.\w+\(\s*"[^"]*{word}', rf'^[A-Z]+ = "[^"]*{word}', f"^name={word}$")
        assert any(re.search(place, said, re.MULTILINE) for place in places), word


def test_every_alert_has_its_paragraph_and_every_paragraph_its_alert() -> None:
    found = paragraphs()
    assert list(found) == list(alerts())
    for name, text in found.items():
        assert "Look" in text or "Do" in text, name
        assert len(text) > 150, name


def test_the_placeholder_is_explained_where_it_stands() -> None:
    command = f"sed -i '' 's|{PLACEHOLDER}|https://YOUR.SITE/PATH|' alerts.yml"
    assert command in ALERTS.read_text()
    assert command in RUNBOOK.read_text()


@pytest.mark.parametrize("path", [*FOLDER.iterdir(), *TESTS], ids=lambda path: path.name)
def test_its_lines_can_be_read(path: Path) -> None:
    assert max(map(len, path.read_text().splitlines())) <= 140
    assert "\t" not in path.read_text()


# -- the sample configuration


def test_the_sample_scrapes_where_agents_listen() -> None:
    sample = yaml.safe_load(SAMPLE.read_text())
    assert sample["rule_files"] == [RULES.name, ALERTS.name]
    (job,) = sample["scrape_configs"]
    assert job["job_name"] == "mobility"
    scraped = {each["labels"]["instance"]: each["targets"][0] for each in job["static_configs"]}
    port = config.load(DEPLOY / "mobility.toml.sample").metrics.listen.rpartition(":")[2]
    assert all(target.endswith(f":{port}") for target in scraped.values())
    assert {"[" in target for target in scraped.values()} == {True, False}  # of both families
    (listen,) = re.findall(r'listen = "(\S+)"', SAMPLE.read_text())
    assert listen == scraped["a"]


def test_the_commented_job_is_taken_too(tmp_path: Path) -> None:
    text = SAMPLE.read_text()
    start = text.index("  # - job_name: mobility\n")
    commented = re.sub(r"^  # ?", "  ", text[start:], flags=re.MULTILINE)
    commented = commented.replace("job_name: mobility", "job_name: mobility-tls")
    (tmp_path / "prometheus.yml").write_text(text[:start] + commented)
    for path in (RULES, ALERTS):
        shutil.copy(path, tmp_path)
    for name in ("mobility-ca.pem", "prometheus.pem", "prometheus.key"):
        (tmp_path / name).touch()  # promtool asks whether they are there
    done = promtool("check", "config", tmp_path / "prometheus.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(yaml.safe_load((tmp_path / "prometheus.yml").read_text())["scrape_configs"]) == 2


def test_windows_are_long_enough_for_how_often_is_scraped() -> None:
    """A rate needs two samples, and one more that may fail: four scrapes (prometheus.io/docs/prometheus/latest/querying)."""
    interval = yaml.safe_load(SAMPLE.read_text())["global"]["scrape_interval"]
    assert interval == "15s"
    for rule in rules():
        for minutes in re.findall(r"\[(\d+)m\]", rule["expr"]):
            assert int(minutes) * 60 >= 4 * 15, rule


def test_hastening_changes_durations_and_nothing_else() -> None:
    """What the lab's Prometheus is given are these rules."""
    for path in (RULES, ALERTS):
        before, after = (yaml.safe_load(text) for text in (path.read_text(), hastened(path.read_text())))
        for old, new in zip(before["groups"], after["groups"], strict=True):
            assert old["name"] == new["name"]
            for rule, faster in zip(old["rules"], new["rules"], strict=True):
                assert {**rule, "expr": "", "for": ""} == {**faster, "expr": "", "for": ""}
                assert re.sub(r"\[\d+m\]", "[]", rule["expr"]) == re.sub(r"\[\d+ms\]", "[]", faster["expr"])
                assert ("for" in rule) == ("for" in faster)
    assert hastened("      - alert: X\n        for: 2m\n        expr: a[1h30m] offset 5m\n", 60) == (
        "      - alert: X\n        for: 2000ms\n        expr: a[90000ms] offset 5000ms\n"
    )
    assert hastened("a:b:rate5m\n  scrape_interval: 15s      # why\n  summary: waits for 5m\n") == (
        f"a:b:rate5m\n  scrape_interval: {15000 // FASTER}ms      # why\n  summary: waits for 5m\n"
    )


# -- installed


def test_all_of_it_is_among_the_examples(tmp_path: Path) -> None:
    found = staged(tmp_path)
    for path in FOLDER.iterdir():
        assert f"share/examples/mobility/prometheus/{path.name}" in found
    # beside each other: what names another file by its name finds it there
    done = promtool("check", "config", tmp_path / "usr/local/share/examples/mobility/prometheus/prometheus.yml")
    assert done.returncode == 0, done.stdout + done.stderr
