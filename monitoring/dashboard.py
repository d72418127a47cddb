"""Build the Grafana dashboard; `make docs` writes it to grafana/candlecast.json."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from monitoring.panels import ROWS, Panel

TARGET: Final = Path(__file__).parent / "grafana" / "candlecast.json"

_COLUMNS: Final = 24
_DATASOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}


def _options(panel: Panel) -> dict[str, Any]:
    if panel.kind == "timeseries":
        return {
            "legend": {"displayMode": "list", "placement": "bottom"},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
    if panel.kind == "table":
        return {"showHeader": True}
    return {"reduceOptions": {"calcs": ["lastNotNull"]}, "orientation": "auto"}


def _draw(panel: Panel, identity: int, x: int, y: int, height: int) -> dict[str, Any]:
    steps = [
        {"color": colour, "value": None if index == 0 else value}
        for index, (value, colour) in enumerate(panel.steps)
    ]
    defaults: dict[str, Any] = {"unit": panel.unit, "noValue": "not yet known"}
    if panel.texts:
        options = {f"{value:g}": {"text": shown} for value, shown in panel.texts}
        defaults["mappings"] = [{"type": "value", "options": options}]
    if steps:
        defaults["thresholds"] = {"mode": "absolute", "steps": steps}
        defaults["color"] = {"mode": "thresholds"}
    return {
        "id": identity,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": _DATASOURCE,
        "gridPos": {"x": x, "y": y, "w": panel.width, "h": height},
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": _options(panel),
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": _DATASOURCE,
                "expr": query.expression,
                "legendFormat": query.legend or "__auto",
                "instant": panel.kind in {"table", "bargauge"},
                "format": "table" if panel.kind == "table" else "time_series",
                "exemplar": "latency_seconds" in query.expression,
            }
            for index, query in enumerate(panel.queries)
        ],
    }


def _layout() -> Iterator[dict[str, Any]]:
    y = identity = 0
    for title, row in ROWS:
        identity += 1
        yield {
            "id": identity,
            "type": "row",
            "title": title,
            "collapsed": False,
            "gridPos": {"x": 0, "y": y, "w": _COLUMNS, "h": 1},
            "panels": [],
        }
        y += 1
        x = height = 0
        for panel in row:
            if x + panel.width > _COLUMNS:
                x, y = 0, y + height
                height = 0
            own = 4 if panel.kind in {"stat", "table"} else 8
            height = max(height, own)
            identity += 1
            yield _draw(panel, identity, x, y, own)
            x += panel.width
        y += height


def dashboard() -> dict[str, Any]:
    """The dashboard in Grafana's JSON model, for Grafana 9 and newer."""
    instances = "label_values(candlecast_latency_budget_seconds, instance)"
    return {
        "uid": "candlecast",
        "title": "candlecast",
        "tags": ["candlecast"],
        "schemaVersion": 38,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-3h", "to": "now"},
        "timezone": "utc",
        "annotations": {
            "list": [
                {
                    "name": "New model",
                    "datasource": _DATASOURCE,
                    "enable": True,
                    "iconColor": "purple",
                    "expr": "candlecast_model_info unless candlecast_model_info offset 1m",
                    "titleFormat": "{{version}}",
                }
            ]
        },
        "templating": {
            "list": [
                {"name": "datasource", "type": "datasource", "query": "prometheus"},
                {
                    "name": "instance",
                    "type": "query",
                    "datasource": _DATASOURCE,
                    "query": {"query": instances, "refId": "instance"},
                    "refresh": 2,
                    "includeAll": True,
                    "allValue": ".*",
                    "multi": True,
                    "current": {"text": "All", "value": "$__all"},
                },
            ]
        },
        "panels": list(_layout()),
    }


def text() -> str:
    """The file's contents."""
    return json.dumps(dashboard(), indent=1, ensure_ascii=False) + "\n"
