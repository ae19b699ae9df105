"""What Grafana takes: JSON Schemas of the files of deploy/grafana, made of Grafana's documentation and sources by hand.

Only what is used there is in them, and nothing else passes: a word that is misspelt is a word that Grafana would ignore.

- dashboards: "Dashboard JSON model" of grafana.com/docs/grafana/latest, and in detail kinds/dashboard/dashboard_kind.cue
  (types, enumerations, which fields there must be), public/app/plugins/panel/*/panelcfg.cue and
  packages/grafana-schema/src/common/mudball.cue (options of the panels), and
  public/app/plugins/datasource/prometheus/dataquery.cue (queries), of github.com/grafana/grafana.
- datasources and dashboard providers: "Provision Grafana", docs/sources/administration/provisioning/index.md.
- alert rules, contact points, policies: "Use configuration files to provision alerting resources",
  docs/sources/alerting/set-up/provision-alerting-resources/file-provisioning/index.md, and what reads them,
  pkg/services/provisioning/alerting/rules_types.go.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import fastjsonschema

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
WORDS: Schema = {"type": "string", "minLength": 1}
FLAG: Schema = {"type": "boolean"}
NUMBER: Schema = {"type": "number"}
COUNT: Schema = {"type": "integer", "minimum": 0}
STRINGS: Schema = {"type": "array", "items": TEXT}
#: pkg/util/shortid_generator.go: letters, digits, - and _, at most 40.
UID: Schema = {"type": "string", "pattern": "^[a-zA-Z0-9_-]{1,40}$"}
#: prometheus/common model.ParseDuration.
DURATION: Schema = {"type": "string", "pattern": "^(0|([0-9]+(ms|[smhdwy]))+)$"}


def one_of(*values: Any) -> Schema:
    """Return the schema of one of these values."""
    return {"enum": list(values)}


def listed(items: Schema, least: int = 0) -> Schema:
    """Return the schema of a list."""
    return {"type": "array", "items": items, "minItems": least}


def by_name(values: Schema) -> Schema:
    """Return the schema of a map from any name."""
    return {"type": "object", "additionalProperties": values}


def fields(must: Mapping[str, Schema], may: Mapping[str, Schema] | None = None) -> Schema:
    """Return the schema of an object that has all of `must`, perhaps some of `may`, and nothing else."""
    properties = {**must, **(may or {})}
    return {"type": "object", "properties": properties, "required": list(must), "additionalProperties": False}


def by_kind(key: str, kinds: Mapping[str, Schema]) -> Schema:
    """Return the schema of an object whose field `key` says which of these it is; so a complaint is about that one."""
    said = [
        {"if": {"properties": {key: one_of(kind)}, "required": [key]}, "then": schema} for kind, schema in kinds.items()
    ]
    return {"type": "object", "properties": {key: one_of(*kinds)}, "required": [key], "allOf": said}


# -- dashboards: dashboard_kind.cue

DATASOURCE_REF = fields({"type": WORDS, "uid": WORDS})
#: #GridPos.
GRID = fields(
    {
        "h": {"type": "integer", "minimum": 1},
        "w": {"type": "integer", "minimum": 1, "maximum": 24},
        "x": {"type": "integer", "minimum": 0, "maximum": 23},
        "y": COUNT,
    }
)
#: #Threshold: the first begins at minus infinity, which JSON has as null.
THRESHOLDS = fields(
    {
        "mode": one_of("absolute", "percentage"),
        "steps": listed(fields({"value": {"type": ["number", "null"]}, "color": WORDS}), 1),
    }
)
#: #ValueMap; the other kinds of mappings are not used.
MAPPINGS = listed(
    fields(
        {
            "type": one_of("value"),
            "options": by_name(fields({}, {"text": TEXT, "color": TEXT, "icon": TEXT, "index": {"type": "integer"}})),
        }
    )
)
#: #FieldColor; of the modes those that are used.
COLOUR = fields({"mode": one_of("thresholds", "palette-classic", "fixed")}, {"fixedColor": TEXT})
#: DataLink of grafana-data.
DATA_LINKS = listed(fields({"title": WORDS, "url": WORDS}, {"targetBlank": FLAG}))
#: mudball.cue: GraphFieldConfig; table.cue: TableFieldOptions; state-timeline's FieldConfig. Of each what is used.
SCALE = fields({"type": one_of("linear", "log", "ordinal", "symlog")}, {"log": NUMBER, "linearThreshold": NUMBER})
CELL = fields({"type": one_of("auto", "color-text", "color-background")}, {"mode": one_of("basic", "gradient")})
CUSTOM = {
    "timeseries": fields(
        {},
        {
            "drawStyle": one_of("line", "bars", "points"),
            "lineInterpolation": one_of("linear", "smooth", "stepBefore", "stepAfter"),
            "lineWidth": NUMBER,
            "fillOpacity": NUMBER,
            "showPoints": one_of("auto", "never", "always"),
            "spanNulls": {"type": ["boolean", "number"]},
            "stacking": fields({}, {"mode": one_of("none", "normal", "percent"), "group": TEXT}),
        },
    ),
    "state-timeline": fields(
        {},
        {
            "lineWidth": {"type": "integer", "minimum": 0, "maximum": 10},
            "fillOpacity": {"type": "integer", "minimum": 0, "maximum": 100},
        },
    ),
    "table": fields({}, {"align": one_of("auto", "left", "right", "center"), "filterable": FLAG, "cellOptions": CELL}),
    "heatmap": fields({}, {"scaleDistribution": SCALE}),
    "stat": fields({}),
    "bargauge": fields({}),
}
#: mudball.cue: VizLegendOptions, VizTooltipOptions, ReduceDataOptions.
LEGEND = fields(
    {
        "displayMode": one_of("list", "table", "hidden"),
        "placement": one_of("bottom", "right"),
        "showLegend": FLAG,
        "calcs": STRINGS,
    }
)
TOOLTIP = fields({"mode": one_of("single", "multi", "none"), "sort": one_of("asc", "desc", "none")})
REDUCE = fields({"calcs": STRINGS}, {"values": FLAG, "fields": TEXT, "limit": NUMBER})
ORIENTATION = one_of("auto", "vertical", "horizontal")
TEXT_MODE = one_of("auto", "value", "value_and_name", "name", "none")
OPTIONS = {
    "stat": fields(
        {
            "reduceOptions": REDUCE,
            "orientation": ORIENTATION,
            "textMode": TEXT_MODE,
            "colorMode": one_of("value", "background", "background_solid", "none"),
            "graphMode": one_of("none", "line", "area"),
            "justifyMode": one_of("auto", "center"),
        }
    ),
    "timeseries": fields({"legend": LEGEND, "tooltip": TOOLTIP}),
    "bargauge": fields(
        {
            "reduceOptions": REDUCE,
            "orientation": ORIENTATION,
            "displayMode": one_of("basic", "lcd", "gradient"),
            "showUnfilled": FLAG,
            "valueMode": one_of("color", "text", "hidden"),
        }
    ),
    "state-timeline": fields(
        {
            "showValue": one_of("auto", "never", "always"),
            "rowHeight": {"type": "number", "maximum": 1},
            "mergeValues": FLAG,
            "alignValue": one_of("center", "left", "right"),
            "legend": LEGEND,
            "tooltip": TOOLTIP,
        }
    ),
    #: heatmap/panelcfg.cue
    "heatmap": fields(
        {
            "calculate": FLAG,
            "cellGap": {"type": "integer", "minimum": 0, "maximum": 25},
            "cellValues": fields({}, {"unit": TEXT, "decimals": NUMBER}),
            "color": fields(
                {
                    "mode": one_of("opacity", "scheme"),
                    "scheme": WORDS,
                    "fill": WORDS,
                    "exponent": NUMBER,
                    "steps": {"type": "integer", "minimum": 2, "maximum": 128},
                }
            ),
            "filterValues": fields({}, {"le": NUMBER, "ge": NUMBER}),
            "legend": fields({"show": FLAG}),
            "rowsFrame": fields({}, {"layout": one_of("le", "ge", "unknown", "auto"), "value": TEXT}),
            "showValue": one_of("auto", "never", "always"),
            "tooltip": fields({"mode": one_of("single", "multi", "none"), "yHistogram": FLAG, "showColorScale": FLAG}),
            "yAxis": fields({}, {"axisPlacement": one_of("left", "right", "hidden"), "unit": TEXT}),
        }
    ),
    "table": fields(
        {"showHeader": FLAG}, {"cellHeight": one_of("sm", "md", "lg", "auto"), "sortBy": {"type": "array"}}
    ),
}
#: dataquery.cue.
TARGET = fields(
    {"refId": WORDS, "datasource": DATASOURCE_REF, "expr": WORDS, "instant": FLAG, "range": FLAG},
    {
        "legendFormat": TEXT,
        "editorMode": one_of("code", "builder"),
        "format": one_of("time_series", "table", "heatmap"),
    },
)
#: #DataTransformerConfig; the transformations' own options: packages/grafana-data/src/transformations/transformers.
_ORGANIZE = fields({"excludeByName": by_name(FLAG), "indexByName": by_name(COUNT), "renameByName": by_name(TEXT)})
TRANSFORMATION = by_kind(
    "id",
    {"merge": fields({"id": WORDS, "options": fields({})}), "organize": fields({"id": WORDS, "options": _ORGANIZE})},
)


def _panel(kind: str) -> Schema:
    """#Panel, of one kind."""
    field = {
        "unit": WORDS,
        "decimals": NUMBER,
        "min": NUMBER,
        "max": NUMBER,
        "mappings": MAPPINGS,
        "thresholds": THRESHOLDS,
        "color": COLOUR,
        "links": DATA_LINKS,
        "noValue": TEXT,
        "custom": CUSTOM[kind],
    }
    # #MatcherConfig and #DynamicConfigValue: an id, and the value that a field of this name takes
    set_ = {name: value for name, value in field.items() if name != "custom"} | {"custom.cellOptions": CELL}
    override = fields(
        {
            "matcher": fields({"id": one_of("byName"), "options": WORDS}),
            "properties": listed(
                by_kind("id", {name: fields({"id": WORDS, "value": value}) for name, value in set_.items()})
            ),
        }
    )
    return fields(
        {
            "type": one_of(kind),
            "id": {"type": "integer", "minimum": 1},
            "title": WORDS,
            "description": WORDS,
            "transparent": FLAG,
            "datasource": DATASOURCE_REF,
            "gridPos": GRID,
            "targets": listed(TARGET, 1),
            "transformations": listed(TRANSFORMATION),
            "links": {"type": "array", "maxItems": 0},
            "options": OPTIONS[kind],
            "fieldConfig": fields({"defaults": fields({}, field), "overrides": listed(override)}),
        }
    )


#: #RowPanel.
ROW = fields(
    {
        "type": one_of("row"),
        "id": COUNT,
        "title": WORDS,
        "collapsed": FLAG,
        "gridPos": GRID,
        "panels": {"type": "array", "maxItems": 0},
    }
)
_CHOICE = {
    "name": {"type": "string", "pattern": r"^\w+$"},
    "label": WORDS,
    "hide": one_of(0, 1, 2),
    "skipUrlSync": FLAG,
    # a choice of one, made anew when the dashboard is opened (1) or its time changes (2)
    "refresh": one_of(1, 2),
    "regex": TEXT,
    "current": by_name(TEXT),
    "options": {"type": "array"},
    "multi": FLAG,
    "includeAll": FLAG,
}
#: #VariableModel.
VARIABLE = by_kind(
    "type",
    {
        "datasource": fields({"type": WORDS, "query": WORDS, **_CHOICE}),
        "query": fields(
            {
                "type": WORDS,
                "description": WORDS,
                "datasource": DATASOURCE_REF,
                "definition": WORDS,
                # PromVariableQuery: 1 asks for the values of a label
                "query": fields({"qryType": one_of(1), "query": WORDS, "refId": WORDS}),
                "sort": {"type": "integer", "minimum": 0, "maximum": 8},
                **_CHOICE,
            }
        ),
    },
)
#: #AnnotationQuery; a data source's own fields are beside those of the dashboard, for Prometheus expr, step and so on.
ANNOTATION = {
    "oneOf": [
        fields(
            {
                "name": WORDS,
                "datasource": fields({"type": one_of("grafana"), "uid": one_of("-- Grafana --")}),
                "type": one_of("dashboard"),
                "builtIn": one_of(1),
                "enable": FLAG,
                "hide": FLAG,
                "iconColor": WORDS,
            }
        ),
        fields(
            {
                "name": WORDS,
                "datasource": DATASOURCE_REF,
                "enable": FLAG,
                "hide": FLAG,
                "iconColor": WORDS,
                "expr": WORDS,
                "step": DURATION,
                "titleFormat": WORDS,
                "textFormat": WORDS,
                "tagKeys": TEXT,
                "useValueForTime": FLAG,
            }
        ),
    ]
}
#: #DashboardLink.
LINK = fields(
    {
        "title": WORDS,
        "type": one_of("link", "dashboards"),
        "icon": TEXT,
        "tooltip": TEXT,
        "url": TEXT,
        "tags": STRINGS,
        "asDropdown": FLAG,
        "targetBlank": FLAG,
        "includeVars": FLAG,
        "keepTime": FLAG,
    }
)
DASHBOARD = fields(
    {
        "id": {"type": "null"},
        "uid": UID,
        "title": WORDS,
        "description": WORDS,
        "tags": STRINGS,
        "timezone": WORDS,
        "editable": FLAG,
        "graphTooltip": one_of(0, 1, 2),
        "time": fields({"from": WORDS, "to": WORDS}),
        "timepicker": fields({}),
        "fiscalYearStartMonth": {"type": "integer", "minimum": 0, "maximum": 11},
        "refresh": DURATION,
        "schemaVersion": {"type": "integer", "minimum": 36, "maximum": 65535},
        "version": COUNT,
        "links": listed(LINK),
        "templating": fields({"list": listed(VARIABLE)}),
        "annotations": fields({"list": listed(ANNOTATION)}),
        "panels": listed(by_kind("type", {"row": ROW} | {kind: _panel(kind) for kind in OPTIONS}), 1),
    }
)

# -- provisioning

VERSION = {"apiVersion": one_of(1)}
DATASOURCES = fields(
    {
        **VERSION,
        "datasources": listed(
            fields(
                {
                    "name": WORDS,
                    "type": one_of("prometheus"),
                    "access": one_of("proxy", "direct"),
                    "url": WORDS,
                    "uid": UID,
                },
                {
                    "orgId": COUNT,
                    "isDefault": FLAG,
                    "editable": FLAG,
                    "version": COUNT,
                    "jsonData": fields({}, {"httpMethod": one_of("GET", "POST"), "timeInterval": DURATION}),
                },
            ),
            1,
        ),
    }
)
PROVIDERS = fields(
    {
        **VERSION,
        "providers": listed(
            fields(
                {"name": WORDS, "type": one_of("file"), "options": fields({"path": WORDS})},
                {
                    "orgId": COUNT,
                    "folder": TEXT,
                    "folderUid": TEXT,
                    "disableDeletion": FLAG,
                    "updateIntervalSeconds": COUNT,
                    "allowUiUpdates": FLAG,
                },
            ),
            1,
        ),
    }
)
_SPAN = fields({"from": COUNT, "to": COUNT})
_EXPRESSION_REF = fields({"type": one_of("__expr__"), "uid": one_of("__expr__")})


def _step(kind: str, more: Mapping[str, Schema]) -> Schema:
    """QueryV1 that is a server-side expression (docs: Expression queries; pkg/expr/models.go)."""
    model = fields({"refId": WORDS, "type": one_of(kind), "datasource": _EXPRESSION_REF, "expression": WORDS, **more})
    uid = one_of("__expr__")
    return fields(
        {"refId": WORDS, "queryType": one_of(kind), "relativeTimeRange": _SPAN, "datasourceUid": uid, "model": model}
    )


_QUERY = fields(
    {
        "refId": WORDS,
        "relativeTimeRange": _SPAN,
        "datasourceUid": UID,
        "model": fields(
            {
                "refId": WORDS,
                "datasource": DATASOURCE_REF,
                "expr": WORDS,
                "instant": one_of(True),
                "range": one_of(False),
                "intervalMs": COUNT,
                "maxDataPoints": COUNT,
            },
            {"editorMode": one_of("code", "builder")},
        ),
    }
)
_EVALUATOR = fields(
    {
        "type": one_of("gt", "lt", "within_range", "outside_range"),
        "params": {"type": "array", "items": NUMBER, "minItems": 1},
    }
)
_THRESHOLD = {"conditions": {"type": "array", "items": fields({"evaluator": _EVALUATOR}), "minItems": 1, "maxItems": 1}}
RULES = fields(
    {
        **VERSION,
        "groups": listed(
            fields(
                {
                    "orgId": COUNT,
                    "name": WORDS,
                    "folder": WORDS,
                    "interval": DURATION,
                    "rules": listed(
                        fields(
                            {
                                "uid": UID,
                                "title": WORDS,
                                "condition": WORDS,
                                "data": listed(
                                    {"oneOf": [_QUERY, _step("math", {}), _step("threshold", _THRESHOLD)]}, 1
                                ),
                                "noDataState": one_of("Alerting", "NoData", "OK", "KeepLast"),
                                "execErrState": one_of("Alerting", "Error", "OK", "KeepLast"),
                                "for": DURATION,
                                "annotations": by_name(TEXT),
                                "labels": by_name(TEXT),
                            },
                            {
                                "dashboardUid": UID,
                                "panelId": COUNT,
                                "keepFiringFor": DURATION,
                                "missing_series_evals_to_resolve": COUNT,
                                "isPaused": FLAG,
                            },
                        ),
                        1,
                    ),
                }
            ),
            1,
        ),
    }
)
CONTACTS = fields(
    {
        **VERSION,
        "contactPoints": listed(
            fields(
                {
                    "name": WORDS,
                    "receivers": listed(
                        fields(
                            {
                                "uid": UID,
                                "type": one_of("email"),
                                "settings": fields(
                                    {"addresses": WORDS}, {"singleEmail": FLAG, "message": TEXT, "subject": TEXT}
                                ),
                            }
                        ),
                        1,
                    ),
                },
                {"orgId": COUNT},
            ),
            1,
        ),
    },
    {
        "policies": listed(
            fields(
                {"receiver": WORDS},
                {
                    "orgId": COUNT,
                    "group_by": STRINGS,
                    "group_wait": DURATION,
                    "group_interval": DURATION,
                    "repeat_interval": DURATION,
                },
            )
        )
    },
)


SCHEMAS = {
    "dashboard": DASHBOARD,
    "datasources": DATASOURCES,
    "providers": PROVIDERS,
    "rules": RULES,
    "contacts": CONTACTS,
}


@cache
def check(name: str) -> Callable[[Any], Any]:
    """Return what raises fastjsonschema.JsonSchemaException for anything that is not as this schema says."""
    schema = SCHEMAS[name]
    compiled: Callable[[Any], Any] = fastjsonschema.compile(
        {"$schema": "http://json-schema.org/draft-07/schema#", **schema}, use_default=False
    )
    return compiled
