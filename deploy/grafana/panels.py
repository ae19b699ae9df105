"""The parts of a dashboard: queries, panels, rows, variables, marks. dashboards.py puts them together.

Each function returns what stands in the JSON, with what Grafana's own editor would write beside it. The names are those of
Grafana: kinds/dashboard/dashboard_kind.cue for a dashboard, public/app/plugins/panel/*/panelcfg.cue and
packages/grafana-schema/src/common for the options of its panels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

Json = dict[str, Any]

#: The source of the data is chosen at the top of each dashboard.
SOURCE: Json = {"type": "prometheus", "uid": "${datasource}"}
#: How wide a dashboard is (GridPos of dashboard_kind.cue).
COLUMNS = 24
TAG = "mobility"
GREEN, YELLOW, RED, BLUE, GREY = "green", "yellow", "red", "blue", "#808080"
#: Any is too many.
NONE = ((None, GREEN), (1, RED))
#: Any is worth a look.
FEW = ((None, GREEN), (1, YELLOW))
ALWAYS = ((None, RED), (1, GREEN))
COUNT = ((None, BLUE),)


# -- queries


def query(expr: str, legend: str = "", **more: Any) -> Json:
    """Return a query over the time that is shown."""
    return {"expr": expr, "legendFormat": legend or "__auto", "instant": False, "range": True} | more


def now(expr: str, legend: str = "", **more: Any) -> Json:
    """Return a query of the end of the time that is shown."""
    return query(expr, legend, instant=True, range=False, **more)


def row_of(expr: str) -> Json:
    """Return a query of the end of the time that is shown, as rows of a table."""
    return now(expr, format="table")


def quantile(q: float, metric: str, by: str = "", where: str = "") -> str:
    """Return how many seconds this share of a histogram's observations took at most."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({q:g}, sum by ({labels}) (rate({metric}_bucket{where}[$__rate_interval])))"


# -- panels


def panel(kind: str, title: str, text: str, queries: Sequence[Json], width: int, height: int, **more: Any) -> Json:
    """Return a panel; `text` tells the operator what the answer means, and what to do. `more` replaces defaults."""
    targets = [
        {"refId": chr(ord("A") + number), "datasource": SOURCE, "editorMode": "code"} | each
        for number, each in enumerate(queries)
    ]
    usual = {"options": {}, "fieldConfig": {"defaults": {}, "overrides": []}, "transformations": [], "links": []}
    head = {"type": kind, "title": title, "description": text, "datasource": SOURCE, "targets": targets}
    return head | usual | {"transparent": False, "gridPos": {"w": width, "h": height, "x": 0, "y": 0}} | more


def thresholds(steps: Iterable[tuple[float | None, str]]) -> Json:
    """Return colours: each from a value on; None is minus infinity, and comes first."""
    return {"mode": "absolute", "steps": [{"value": value, "color": colour} for value, colour in steps]}


def meanings(words: dict[int, tuple[str, str]]) -> list[Json]:
    """Return word and colour of each value."""
    results = {
        str(value): {"text": text, "color": colour, "index": number}
        for number, (value, (text, colour)) in enumerate(words.items())
    }
    return [{"type": "value", "options": results}]


def field(unit: str, steps: Iterable[tuple[float | None, str]] = COUNT, **more: Any) -> Json:
    """Return how values look: unit, colours by threshold."""
    return {"unit": unit, "thresholds": thresholds(steps), "color": {"mode": "thresholds"}} | more


def stat(title: str, text: str, ask: Json, width: int, look: Json, *, show: str = "value", height: int = 4) -> Json:
    """Return one number, large, on its colour."""
    options = {
        "reduceOptions": {"values": False, "calcs": ["lastNotNull"], "fields": ""},
        "orientation": "auto",
        "textMode": show,
        "colorMode": "background",
        "graphMode": "area" if ask["range"] else "none",
        "justifyMode": "auto",
    }
    config = {"defaults": look, "overrides": []}
    return panel("stat", title, text, [ask], width, height, options=options, fieldConfig=config)


BARS: Json = {"drawStyle": "bars", "fillOpacity": 60}
"""Field options of a time series that make bars of its lines: for what happens now and then."""


def timeseries(title: str, text: str, queries: Sequence[Json], width: int, unit: str, **custom: Any) -> Json:
    """Return lines over time. `custom` are further field options of Grafana's time series."""
    drawn = {
        "drawStyle": "line",
        "lineInterpolation": "stepAfter",
        "lineWidth": 1,
        "fillOpacity": 10,
        "showPoints": "auto",
        "spanNulls": False,
    }
    defaults = {"unit": unit, "min": 0, "color": {"mode": "palette-classic"}, "custom": drawn | custom}
    options = {
        "legend": {"displayMode": "table", "placement": "bottom", "showLegend": True, "calcs": ["max", "lastNotNull"]},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    config = {"defaults": defaults, "overrides": []}
    return panel("timeseries", title, text, queries, width, 8, options=options, fieldConfig=config)


def bars(title: str, text: str, ask: Json, width: int, link: Json) -> Json:
    """Return a bar for each series, the longest first."""
    options = {
        "reduceOptions": {"values": False, "calcs": ["lastNotNull"], "fields": ""},
        "orientation": "horizontal",
        "displayMode": "basic",
        "showUnfilled": True,
        "valueMode": "color",
    }
    defaults = field("short", ((None, GREEN), (1, YELLOW), (4, RED)), min=0, decimals=0, links=[link])
    config = {"defaults": defaults, "overrides": []}
    return panel("bargauge", title, text, [ask], width, 8, options=options, fieldConfig=config)


def timeline(title: str, text: str, queries: Sequence[Json], width: int, words: dict[int, tuple[str, str]]) -> Json:
    """Return the states of each series over time, in words."""
    options = {
        "showValue": "auto",
        "rowHeight": 0.8,
        "mergeValues": True,
        "alignValue": "left",
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": False, "calcs": []},
        "tooltip": {"mode": "single", "sort": "none"},
    }
    drawn = {"lineWidth": 0, "fillOpacity": 70}
    defaults = {"mappings": meanings(words), "color": {"mode": "thresholds"}, "thresholds": thresholds(COUNT)}
    config = {"defaults": defaults | {"custom": drawn}, "overrides": []}
    return panel("state-timeline", title, text, queries, width, 8, options=options, fieldConfig=config)


def heatmap(title: str, text: str, expr: str, width: int) -> Json:
    """Return how often each latency was seen, over time: the buckets of a histogram, in seconds."""
    options = {
        "calculate": False,
        "cellGap": 1,
        "cellValues": {"unit": "short"},
        "color": {"mode": "scheme", "scheme": "Oranges", "fill": "dark-orange", "exponent": 0.5, "steps": 64},
        "filterValues": {"le": 1e-9},
        "legend": {"show": True},
        "rowsFrame": {"layout": "auto"},
        "showValue": "never",
        "tooltip": {"mode": "single", "yHistogram": False, "showColorScale": True},
        "yAxis": {"axisPlacement": "left", "unit": "s"},
    }
    config = {"defaults": {"custom": {"scaleDistribution": {"type": "linear"}}}, "overrides": []}
    asked = [query(expr, "{{le}}", format="heatmap")]
    return panel("heatmap", title, text, asked, width, 8, options=options, fieldConfig=config)


def table(
    title: str,
    text: str,
    queries: Sequence[str],
    width: int,
    columns: dict[str, str],
    *,
    links: dict[str, str] | None = None,
    looks: dict[str, Json] | None = None,
    height: int = 8,
) -> Json:
    """Return a table: its queries, one row for each set of labels, and the columns that are shown, by their names.

    `columns` maps what Grafana calls them (a label, or "Value #A" of the first query) to their headings. `links` and
    `looks` are by heading: what a cell leads to, its own text at the end, and how it looks.
    """
    values = ["Value", *(f"Value #{chr(ord('A') + number)}" for number in range(len(queries)))]
    hidden = [name for name in ("Time", *values) if name not in columns]
    organize = {
        "excludeByName": dict.fromkeys(hidden, True),
        "indexByName": {name: number for number, name in enumerate(columns)},
        "renameByName": columns,
    }
    transformations = [{"id": "merge", "options": {}}, {"id": "organize", "options": organize}]
    by_name: dict[str, list[Json]] = {}
    for name, url in (links or {}).items():
        link = {"title": "more of it", "url": f"{url}${{__value.text}}", "targetBlank": False}
        by_name.setdefault(name, []).append({"id": "links", "value": [link]})
    for name, look in (looks or {}).items():
        properties = [{"id": key, "value": value} for key, value in look.items() if key != "color"]
        coloured = {"id": "custom.cellOptions", "value": {"type": "color-background", "mode": "basic"}}
        by_name.setdefault(name, []).extend([*properties, coloured] if "thresholds" in look else properties)
    overrides = [
        {"matcher": {"id": "byName", "options": name}, "properties": properties} for name, properties in by_name.items()
    ]
    options = {"showHeader": True, "cellHeight": "sm"}
    config = {"defaults": {"custom": {"align": "left", "filterable": True}}, "overrides": overrides}
    asked = [row_of(expr) for expr in queries]
    more = {"options": options, "fieldConfig": config, "transformations": transformations}
    return panel("table", title, text, asked, width, height, **more)


def row(title: str, *panels: Json) -> list[Json]:
    """Return a heading, and the panels below it."""
    heading = {"type": "row", "title": title, "collapsed": False, "panels": []}
    return [heading | {"gridPos": {"w": COLUMNS, "h": 1, "x": 0, "y": 0}}, *panels]


def placed(rows: Iterable[Sequence[Json]]) -> list[Json]:
    """Return all panels, numbered, each where there is room for it: from left to right, from top to bottom."""
    found: list[Json] = []
    x = y = height = 0
    for each in (each for row in rows for each in row):
        place = each["gridPos"]
        if x + place["w"] > COLUMNS:
            x, y, height = 0, y + height, 0
        found.append(each | {"id": len(found) + 1, "gridPos": place | {"x": x, "y": y}})
        x, height = x + place["w"], max(height, place["h"])
    return found


# -- a dashboard


def source_variable() -> Json:
    """Return the choice of the Prometheus."""
    return {
        "type": "datasource",
        "name": "datasource",
        "label": "Prometheus",
        "query": "prometheus",
        "regex": "",
        "current": {},
        "options": [],
        "multi": False,
        "includeAll": False,
        "hide": 0,
        "refresh": 1,
        "skipUrlSync": False,
    }


def variable(name: str, label: str, text: str, asked: str) -> Json:
    """Return the choice of one value of those that a query finds."""
    return {
        "type": "query",
        "name": name,
        "label": label,
        "description": text,
        "datasource": SOURCE,
        "definition": asked,
        "query": {"qryType": 1, "query": asked, "refId": "PrometheusVariableQueryEditor-VariableQuery"},
        "regex": "",
        "current": {},
        "options": [],
        "multi": False,
        "includeAll": False,
        "hide": 0,
        "refresh": 2,
        "sort": 1,
        "skipUrlSync": False,
    }


def annotation(name: str, colour: str, expr: str, title: str, text: str) -> Json:
    """Return marks on every panel, at the minutes in which something happened."""
    return {
        "name": name,
        "datasource": SOURCE,
        "enable": True,
        "hide": False,
        "iconColor": colour,
        "expr": expr,
        "step": "1m",
        "titleFormat": title,
        "textFormat": text,
        "tagKeys": "instance,jail",
        "useValueForTime": False,
    }


def dashboard(name: str, text: str, variables: Sequence[Json], marks: Sequence[Json], rows: list[list[Json]]) -> Json:
    """Return a whole dashboard."""
    builtin = {
        "name": "Annotations & Alerts",
        "datasource": {"type": "grafana", "uid": "-- Grafana --"},
        "type": "dashboard",
        "builtIn": 1,
        "enable": True,
        "hide": True,
        "iconColor": "rgba(0, 211, 255, 1)",
    }
    others = {
        "title": "mobility",
        "type": "dashboards",
        "tags": [TAG],
        "icon": "external link",
        "tooltip": "fleet, host and jail",
        "url": "",
        "asDropdown": False,
        "targetBlank": False,
        "includeVars": True,
        "keepTime": True,
    }
    return {
        "id": None,
        "uid": f"mobility-{name}",
        "title": f"mobility: {name}",
        "description": text,
        "tags": [TAG],
        "timezone": "browser",
        "editable": True,
        "graphTooltip": 1,
        "time": {"from": "now-3h", "to": "now"},
        "timepicker": {},
        "refresh": "30s",
        "schemaVersion": 39,
        "version": 1,
        "fiscalYearStartMonth": 0,
        "links": [others],
        "templating": {"list": [source_variable(), *variables]},
        "annotations": {"list": [builtin, *marks]},
        "panels": placed(rows),
    }
