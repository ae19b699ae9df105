"""Two gateways on which something happens, watched by a real Prometheus; and deploy/grafana's questions, asked as Grafana does.

with gateways() as (pair, prometheus):
    story(pair)
    for question in questions("fleet"):
        assert answer(prometheus, question, ...)
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from deploy.grafana.alerts import TARGET
from deploy.grafana.dashboards import FOLDER
from tests.lab.prometheus import FASTER, Prometheus, hastened

NAMES = ("fleet", "host", "jail")
#: Seconds: scrape_interval of deploy/prometheus/prometheus.yml, timeInterval of the data source.
SCRAPED = 15


@dataclass(frozen=True)
class Question:
    """One question of a dashboard or of the alert rules: where it stands, and its expression."""

    where: str
    expr: str


def _dashboard(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return found


def questions(name: str) -> list[Question]:
    """Return what the panels of a dashboard ask, and its marks."""
    whole = _dashboard(name)
    found = [
        Question(f"{panel['title']}: {target['refId']}", target["expr"])
        for panel in whole["panels"]
        for target in panel.get("targets", ())
    ]
    marks = [mark for mark in whole["annotations"]["list"] if "expr" in mark]
    return [*found, *(Question(f"mark {mark['name']}", mark["expr"]) for mark in marks)]


def choices(name: str) -> list[tuple[str, str]]:
    """Return the variables of a dashboard that ask for something: the name, and what it asks."""
    found = [variable for variable in _dashboard(name)["templating"]["list"] if variable["type"] == "query"]
    return [(variable["name"], variable["query"]["query"]) for variable in found]


def alerts() -> list[Question]:
    """Return what Grafana's own alert rules ask."""
    found = yaml.safe_load(TARGET.read_text())
    rules = [rule for group in found["groups"] for rule in group["rules"]]
    return [Question(rule["title"], rule["data"][0]["model"]["expr"]) for rule in rules]


def filled(text: str, chosen: Mapping[str, str], *, window: str, whole: str) -> str:
    """Return an expression with its variables replaced, as Grafana does before it asks.

    `window` is $__rate_interval, four times the scrape interval at least; `whole` is $__range, the time that is shown.
    """
    values = {"__rate_interval": window, "__range": whole, **chosen}
    return re.sub(r"\$(\w+)", lambda match: values.get(match[1], match[0]), text)


class Grafana:
    """Asks a lab's Prometheus what deploy/grafana asks, over a time.

    `faster` is by how much Prometheus' time runs faster; `factor`, by how much ours does. It is less, as when a dashboard is
    zoomed out: on a machine that is busy a scrape may fail, and a window should hold several.
    """

    def __init__(
        self, prometheus: Prometheus, start: float, end: float, *, faster: int = FASTER, factor: int = FASTER // 4
    ) -> None:
        self._prometheus, self._start, self._end, self._factor = prometheus, start, end, factor
        #: Seconds between two scrapes (scrape_interval of prometheus.yml).
        self.interval = SCRAPED / faster
        # Grafana's rule: https://grafana.com/docs/grafana/latest/datasources/prometheus/template-variables/
        self._window = f"{math.ceil(4000 * SCRAPED / factor)}ms"
        self._whole = f"{math.ceil(end - start)}s"

    def expression(self, question: Question, chosen: Mapping[str, str]) -> str:
        """Return what is asked, once its variables are chosen."""
        hurried = hastened(question.expr, self._factor)
        return filled(hurried, chosen, window=self._window, whole=self._whole)

    def series(
        self, question: Question, chosen: Mapping[str, str], step: float = 0.0
    ) -> dict[tuple[tuple[str, str], ...], list[tuple[float, float]]]:
        """Return what is answered over the time: what is a number, of each series that has any."""
        found = self._prometheus.query_range(
            self.expression(question, chosen), self._start, self._end, step or self.interval
        )
        numbers = {
            labels: [(at, value) for at, value in points if not math.isnan(value)] for labels, points in found.items()
        }
        return {labels: points for labels, points in numbers.items() if points}

    def values(self, asked: str, chosen: Mapping[str, str]) -> list[str]:
        """Return what a variable may be: `label_values(SERIES, LABEL)`, as Grafana asks it (api/v1/label/LABEL/values)."""
        match = re.fullmatch(r"label_values\((.+), (\w+)\)", asked)
        assert match, asked
        series = filled(match[1], chosen, window=self._window, whole=self._whole)
        arguments = {"match[]": series, "start": f"{self._start:.3f}", "end": f"{self._end:.3f}"}
        found: list[str] = self._prometheus.ask(f"label/{match[2]}/values", **arguments)
        return found
