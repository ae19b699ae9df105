"""Grafana's alert rules, made of Prometheus' own: `python -m deploy.grafana.alerts` writes provisioning/alerting/mobility.yaml.

They are for those whose alerts come from Grafana and not from an Alertmanager: no expression is written twice. What they
are made of is deploy/prometheus/alerts.yml; recording rules that it uses stay Prometheus' matter (rules.yml).

Any series that a rule's expression gives is an alert, as in Prometheus; for Grafana its value decides. So two expressions
follow the query, which make 1 of every value: those that Grafana makes itself when it imports Prometheus' rules
(pkg/services/ngalert/prom/convert.go, createQuery). What stands in the file:
https://grafana.com/docs/grafana/latest/alerting/set-up/provision-alerting-resources/file-provisioning/
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import yaml

from deploy.grafana.dashboards import dashboards
from deploy.grafana.panels import Json

HERE = Path(__file__).parent
SOURCE = HERE.parent / "prometheus" / "alerts.yml"
TARGET = HERE / "provisioning" / "alerting" / "mobility.yaml"
#: The `uid` of provisioning/datasources/mobility.yaml.
DATASOURCE = "mobility-prometheus"
EXPRESSION = "__expr__"
FOLDER = "mobility"
#: Grafana's scheduler ticks every 10 s; an interval is a multiple of that.
INTERVAL = "30s"
#: Seconds before now that an instant query may look back to (convert.go: defaultTimeRange).
WINDOW = 600
#: Where Grafana shows an alert: a dashboard, and the title of the panel. The others are about a whole host.
PANEL = ("fleet", "How is each host?")
PANELS = {
    "MobilityAgentDown": ("fleet", "Agents that do not answer"),
    "MobilityNothingScraped": ("fleet", "Agents that do not answer"),
    "MobilityJailNotAnnounced": ("fleet", "Which jails run and are not announced?"),
    "MobilityJailBlackholed": ("fleet", "Black holes"),
    "MobilityJailFlapping": ("fleet", "Which jails flapped most?"),
    "MobilityJailSuppressed": ("fleet", "Kept back for flapping"),
    "MobilityJailMoving": ("fleet", "Which jails moved most?"),
    "MobilityOwnershipConflict": ("fleet", "Conflicts and freezes"),
    "MobilityJailFrozen": ("fleet", "Conflicts and freezes"),
    "MobilityJailAnnouncedTwice": ("jail", "Where does it run, and who announces it?"),
    "MobilityJailRunsElsewhere": ("jail", "Who owns it, says each host"),
    "MobilityCutOff": ("fleet", "BGP sessions down"),
    "MobilitySessionDown": ("fleet", "BGP sessions down"),
    "MobilitySessionFlapping": ("host", "Do sessions and ExaBGP come and go?"),
    "MobilityExabgpRestarting": ("host", "Do sessions and ExaBGP come and go?"),
    "MobilityBridgeDown": ("host", "ExaBGP's bridge"),
    "MobilityRibNotAcknowledged": ("fleet", "Routes not acknowledged"),
    "MobilityFabricDisagrees": ("host", "Is the RIB acknowledged?"),
    "MobilityRoutesHeldBack": ("host", "Is the RIB acknowledged?"),
    "MobilityTooManyRoutes": ("host", "Is the RIB acknowledged?"),
    "MobilitySlowToAnnounce": ("fleet", "How long from a jail's start to its announcement?"),
    "MobilitySpoolStuck": ("host", "Do events wait?"),
    "MobilitySpoolRejects": ("host", "Do events wait?"),
    "MobilityCommandsFail": ("host", "What fails?"),
    "MobilityDatabaseErrors": ("host", "What fails?"),
    "MobilityBothMaster": ("fleet", "Vhids with two masters"),
    "MobilityNoMaster": ("fleet", "Who is master?"),
    "MobilityPfsyncOutOfStep": ("host", "pfsync in step"),
    "MobilityPreemptOff": ("host", "Who demotes this node?"),
}

HEAD = """\
# Grafana's own alert rules, made of deploy/prometheus/alerts.yml by `python -m deploy.grafana.alerts`: change it there.
# For /usr/local/etc/grafana/provisioning/alerting. Take these, or Prometheus' with an Alertmanager, and not both: you
# would be told twice. Prometheus needs rules.yml in either case.

"""


def templated(text: str) -> str:
    """Return a text of Prometheus' templates as one of Grafana's.

    Both know labels as `.Labels`, of which $labels is another name. Grafana's files must not have the `$`: it would be
    taken for a variable of the environment (docs: administration/provisioning, Using environment variables). The value of
    Prometheus' expression is that of our query. What Prometheus looks up while it writes ("(...)" with `query`) goes:
    Grafana's templates can not ask.
    """
    text = re.sub(r" \(\{\{-? *with .*?\| *query\b.*?\{\{-? *end *-?\}\}\)", "", text)
    return re.sub(r"\$value\b", ".Values.query.Value", re.sub(r"\$labels\b", ".Labels", text))


def place(alert: str) -> Json:
    """Return which panel shows an alert, as a rule names it."""
    name, title = PANELS.get(alert, PANEL)
    whole = dashboards()[f"{name}.json"]
    (number,) = [panel["id"] for panel in whole["panels"] if panel["title"] == title]
    return {"dashboardUid": whole["uid"], "panelId": number}


def step(name: str, kind: str, **more: Any) -> Json:
    """Return one of Grafana's server-side expressions."""
    model = {"refId": name, "type": kind, "datasource": {"type": EXPRESSION, "uid": EXPRESSION}} | more
    span = {"from": 0, "to": 0}
    return {"refId": name, "queryType": kind, "relativeTimeRange": span, "datasourceUid": EXPRESSION, "model": model}


def data(expr: str) -> list[Json]:
    """Return what a rule asks: the expression, whatever its value makes 1, and whether that is more than 0."""
    model = {
        "refId": "query",
        "datasource": {"type": "prometheus", "uid": DATASOURCE},
        "editorMode": "code",
        "expr": expr,
        "instant": True,
        "range": False,
        "intervalMs": 1000,
        "maxDataPoints": 43200,
    }
    asked = {
        "refId": "query",
        "relativeTimeRange": {"from": WINDOW, "to": 0},
        "datasourceUid": DATASOURCE,
        "model": model,
    }
    any_value = step("any", "math", expression="is_number($query) || is_nan($query) || is_inf($query)")
    over = [{"evaluator": {"type": "gt", "params": [0]}}]
    return [asked, any_value, step("threshold", "threshold", expression="any", conditions=over)]


def rule(found: Json) -> Json:
    """Return one of Prometheus' alerting rules as one of Grafana's."""
    name = found["alert"]
    rest = {} if "keep_firing_for" not in found else {"keepFiringFor": found["keep_firing_for"]}
    return {
        "uid": name,
        "title": name,
        "condition": "threshold",
        "data": data(found["expr"].strip()),
        **place(name),
        # no series: nobody is in trouble
        "noDataState": "OK",
        # Prometheus does not answer: an alert of its own, DatasourceError
        "execErrState": "Error",
        "for": found.get("for", "0s"),
        **rest,
        "missing_series_evals_to_resolve": 1,
        "annotations": {key: templated(text).strip() for key, text in found.get("annotations", {}).items()},
        "labels": found.get("labels", {}),
        "isPaused": False,
    }


def rules(source: str) -> Json:
    """Return the whole file for a rules file of Prometheus."""
    groups = []
    for group in yaml.safe_load(source)["groups"]:
        made = [rule(each) for each in group["rules"] if "alert" in each]
        if made:
            groups.append({"orgId": 1, "name": group["name"], "folder": FOLDER, "interval": INTERVAL, "rules": made})
    return {"apiVersion": 1, "groups": groups}


class _Dumper(yaml.SafeDumper):
    """Writes what has several lines as several lines, and a pair of words on one."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002
        """Begin the items of a list further in than their key."""
        super().increase_indent(flow, False)


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


def _mapping(dumper: yaml.SafeDumper, values: Json) -> yaml.MappingNode:
    short = len(values) <= 2 and all(isinstance(value, str | int) for value in values.values())
    return dumper.represent_mapping("tag:yaml.org,2002:map", values.items(), flow_style=short)


_Dumper.add_representer(str, _text)
_Dumper.add_representer(dict, _mapping)


def rendered(source: str) -> str:
    """Return the text of the file."""
    body = yaml.dump(rules(source), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=math.inf)
    return HEAD + body


def main() -> None:
    """Write the file."""
    TARGET.write_text(rendered(SOURCE.read_text()))


if __name__ == "__main__":
    main()
