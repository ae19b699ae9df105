"""deploy/grafana: dashboards, alert rules and provisioning are what their sources make, and what Grafana takes.

That every query gives data is for a real Prometheus to say: tests/lab/test_prometheus.py.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator
from functools import cache
from itertools import combinations
from typing import Any

import fastjsonschema
import pytest
import yaml

from deploy.grafana import alerts, dashboards
from mobility.metrics.catalogue import CATALOGUE
from tests import grafana
from tests.readme import DEPLOY

FOLDER = DEPLOY / "grafana"
PROVISIONING = FOLDER / "provisioning"
RECORDED = DEPLOY / "prometheus" / "rules.yml"
NAMES = ("fleet", "host", "jail")
FILES = {
    "datasources/mobility.yaml": "datasources",
    "dashboards/mobility.yaml": "providers",
    "alerting/mobility.yaml": "rules",
}
Json = dict[str, Any]


def dashboard(name: str) -> Json:
    found: Json = json.loads((FOLDER / "boards" / f"{name}.json").read_text())
    return found


@cache
def provisioned(name: str) -> Json:
    found: Json = yaml.safe_load((PROVISIONING / name).read_text())
    return found


def panels(name: str) -> Iterator[Json]:
    return (panel for panel in dashboard(name)["panels"] if panel["type"] != "row")


# -- dashboards


@pytest.mark.parametrize("name", NAMES)
def test_each_dashboard_is_what_its_source_makes(name: str) -> None:
    made = dashboards.rendered(dashboards.dashboards()[f"{name}.json"])
    assert (FOLDER / "boards" / f"{name}.json").read_text() == made, "python -m deploy.grafana.dashboards"


def test_there_are_no_others() -> None:
    assert {path.stem for path in (FOLDER / "boards").iterdir()} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_grafana_takes_each_dashboard(name: str) -> None:
    grafana.check("dashboard")(dashboard(name))


def _wide(found: Json) -> None:
    found["panels"][1]["gridPos"]["w"] = 25


def _kind(found: Json) -> None:
    found["panels"][1]["type"] = "number"


def _misspelt(found: Json) -> None:
    found["panels"][1]["fieldConfig"]["defaults"]["units"] = "s"


def _untitled(found: Json) -> None:
    del found["title"]


def _mode(found: Json) -> None:
    found["panels"][1]["options"]["colorMode"] = "loud"


def _query(found: Json) -> None:
    found["panels"][1]["targets"][0]["query"] = found["panels"][1]["targets"][0].pop("expr")


def _variable(found: Json) -> None:
    found["templating"]["list"][0]["type"] = "prometheus"


@pytest.mark.parametrize("spoil", [_wide, _kind, _misspelt, _untitled, _mode, _query, _variable])
def test_the_schema_notices(spoil: Callable[[Json], None]) -> None:
    found = copy.deepcopy(dashboard("fleet"))
    spoil(found)
    with pytest.raises(fastjsonschema.JsonSchemaException):
        grafana.check("dashboard")(found)


@pytest.mark.parametrize("name", NAMES)
def test_no_panel_lies_on_another(name: str) -> None:
    places = [panel["gridPos"] for panel in dashboard(name)["panels"]]
    for one, other in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below, (one, other)
    assert all(place["x"] + place["w"] <= 24 for place in places)
    numbers = [panel["id"] for panel in dashboard(name)["panels"]]
    assert len(numbers) == len(set(numbers))


@pytest.mark.parametrize("name", NAMES)
def test_each_panel_says_what_to_make_of_it(name: str) -> None:
    titles = [panel["title"] for panel in panels(name)]
    assert len(titles) == len(set(titles))
    for panel in panels(name):
        assert re.search(r"[.?]$", panel["description"]), panel["title"]
        assert panel["description"] != panel["title"]


@pytest.mark.parametrize("name", NAMES)
def test_all_variables_are_there(name: str) -> None:
    found = dashboard(name)
    known = {variable["name"] for variable in found["templating"]["list"]}
    # Grafana's own: https://grafana.com/docs/grafana/latest/dashboards/variables/add-template-variables/#global-variables
    known |= {"__rate_interval", "__range", "__url_time_range", "__value", "__field"}
    for used in re.findall(r"\$\{?([A-Za-z_]\w*)", json.dumps(found)):
        assert used in known, used
    # a variable that is used in another's query comes before it
    assert [variable["name"] for variable in found["templating"]["list"]][:2] == ["datasource", "job"]


def test_links_lead_to_dashboards_that_are_there() -> None:
    uids = {dashboard(name)["uid"] for name in NAMES}
    assert len(uids) == len(NAMES)
    led = {uid for name in NAMES for uid in re.findall(r"/d/([\w-]+)", json.dumps(dashboard(name)))}
    assert led == {"mobility-host", "mobility-jail"}
    for name in NAMES:
        found = dashboard(name)
        for uid, asked in re.findall(r"/d/([\w-]+)[^\"]*&var-(\w+)=", json.dumps(found)):
            target = dashboard(uid.removeprefix("mobility-"))
            assert asked in {variable["name"] for variable in target["templating"]["list"]}
        # and by the row of links at the top, which takes the dashboards of a tag
        (link,) = found["links"]
        assert set(link["tags"]) <= set(found["tags"])


@pytest.mark.parametrize("name", NAMES)
def test_each_figure_that_is_asked_for_is_one_of_the_agent(name: str) -> None:
    for expr in re.findall(r'"expr": "(.*)"', (FOLDER / "boards" / f"{name}.json").read_text()):
        for metric, matchers in re.findall(
            r"(?<![\w:])([\w:]*mobility_[\w:]+)(?:\{(.*?)\})?", expr.replace('\\"', '"')
        ):
            if ":" in metric:
                assert f"- record: {metric}\n" in RECORDED.read_text()
                continue
            figure = CATALOGUE.get(metric) or CATALOGUE[metric.removesuffix("_bucket").removesuffix("_count")]
            labels = set(re.findall(r"(\w+)=", matchers))
            assert labels <= {"job", "instance", *figure.labels}, expr


@pytest.mark.parametrize("name", NAMES)
def test_flaps_and_moves_are_marked(name: str) -> None:
    marks = {mark["name"] for mark in dashboard(name)["annotations"]["list"]}
    assert {"Flaps", "Moves"} <= marks


# -- provisioning


@pytest.mark.parametrize("name", FILES)
def test_grafana_takes_what_is_provisioned(name: str) -> None:
    grafana.check(FILES[name])(provisioned(name))


def test_nothing_else_lies_there() -> None:
    """Grafana does not start with a file in alerting that is none of its own (alerting/config_reader.go)."""
    assert {str(path.relative_to(PROVISIONING)) for path in PROVISIONING.rglob("*") if path.is_file()} == set(FILES)


def test_grafana_takes_the_example_of_a_contact_point() -> None:
    found = yaml.safe_load((FOLDER / "contact-points.yaml").read_text())
    grafana.check("contacts")(found)
    known = {contact["name"] for contact in found["contactPoints"]}
    assert {policy["receiver"] for policy in found["policies"]} <= known


def test_the_dashboards_are_looked_for_where_they_are_installed() -> None:
    (provider,) = provisioned("dashboards/mobility.yaml")["providers"]
    assert provider["options"]["path"] == "/usr/local/share/examples/mobility/grafana/boards"
    assert provider["folder"] == alerts.FOLDER


def test_the_interval_is_that_of_prometheus() -> None:
    (source,) = provisioned("datasources/mobility.yaml")["datasources"]
    sample = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    assert source["jsonData"]["timeInterval"] == sample["global"]["scrape_interval"]


# -- alert rules


def rules() -> list[Json]:
    return [rule for group in provisioned("alerting/mobility.yaml")["groups"] for rule in group["rules"]]


@cache
def prometheus_rules() -> dict[str, Json]:
    found = yaml.safe_load(alerts.SOURCE.read_text())
    return {rule["alert"]: rule for group in found["groups"] for rule in group["rules"] if "alert" in rule}


def test_the_rules_are_what_their_source_makes() -> None:
    assert alerts.TARGET.read_text() == alerts.rendered(alerts.SOURCE.read_text()), "python -m deploy.grafana.alerts"


def test_each_alert_of_prometheus_is_one_of_grafana() -> None:
    expected = prometheus_rules()
    assert [rule["title"] for rule in rules()] == list(expected)
    for rule in rules():
        source = expected[rule["title"]]
        (asked,) = [step for step in rule["data"] if step["refId"] == "query"]
        assert asked["model"]["expr"] == source["expr"].strip()
        assert rule["for"] == source.get("for", "0s")
        assert rule["labels"] == source["labels"]
        assert set(rule["annotations"]) == set(source["annotations"])


def test_rules_ask_the_source_that_is_provisioned_and_end_in_their_condition() -> None:
    (source,) = provisioned("datasources/mobility.yaml")["datasources"]
    for rule in rules():
        asked, value, threshold = rule["data"]
        assert asked["datasourceUid"] == asked["model"]["datasource"]["uid"] == source["uid"]
        assert [step["refId"] == step["model"]["refId"] for step in rule["data"]] == [True] * 3
        assert f"${asked['refId']}" in value["model"]["expression"]
        assert threshold["model"]["expression"] == value["refId"]
        assert rule["condition"] == threshold["refId"]


def test_grafana_replaces_nothing_in_the_words() -> None:
    """It takes $x in labels and annotations for a variable of the environment (provisioning/values/values.go)."""
    for rule in rules():
        for text in (*rule["annotations"].values(), *rule["labels"].values()):
            assert "$" not in text, rule["title"]


def test_templates_are_translated() -> None:
    text = 'jail {{ $labels.jail }}: {{ $value | humanizeDuration }}, {{ printf "%.0f" $value }}'
    expected = (
        'jail {{ .Labels.jail }}: {{ .Values.query.Value | humanizeDuration }}, {{ printf "%.0f" .Values.query.Value }}'
    )
    assert alerts.templated(text) == expected


def test_what_prometheus_looks_up_goes() -> None:
    text = (
        'web1 ({{ with printf "why{jail=%q}" $labels.jail | query -}} {{ (first .).Labels.reason }} {{- end }}): dark'
    )
    assert alerts.templated(text) == "web1: dark"
    for rule in rules():
        assert not re.search(r"\|\s*query\b", "".join(rule["annotations"].values())), rule["title"]


@pytest.mark.parametrize(
    "words",
    [
        "MobilityJailFlapping",
        "MobilityJailNotAnnounced",
        "MobilityJailBlackholed",
        "MobilitySessionDown",
        "MobilityAgentDown",
        "MobilityBothMaster",
        "MobilityOwnershipConflict",
        "MobilityJailFrozen",
    ],
)
def test_what_wakes_people_is_there(words: str) -> None:
    assert words in {rule["title"] for rule in rules()}


def test_each_alert_is_shown_by_a_panel_that_is_there() -> None:
    uids = {dashboard(name)["uid"]: {panel["id"] for panel in panels(name)} for name in NAMES}
    for rule in rules():
        assert rule["panelId"] in uids[rule["dashboardUid"]], rule["title"]
    assert set(alerts.PANELS) <= {rule["title"] for rule in rules()}
