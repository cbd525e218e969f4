"""Writes ``deploy/grafana/chainrule.json``: ``python -m tests.deploy.grafana.write_dashboard``.

A panel is a title, a unit and queries; what Grafana wants beside that is the same for all of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.deploy.grafana.panels import ROWS, Panel, Query

DASHBOARD = Path(__file__).parents[3] / "deploy" / "grafana" / "chainrule.json"

SCHEMA_VERSION = 42
COLUMNS = 24
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}


@dataclass
class Grid:
    """Places panels from left to right, and gives each its id."""

    x: int = 0
    y: int = 0
    row_height: int = 0
    last_id: int = field(default=0)

    def place(self, width: int, height: int) -> dict[str, Any]:
        """The next place that is so wide and high; a new line where this one is full."""
        if self.x + width > COLUMNS:
            self.end_line()
        place = {"h": height, "w": width, "x": self.x, "y": self.y}
        self.x += width
        self.row_height = max(self.row_height, height)
        self.last_id += 1
        return {"id": self.last_id, "gridPos": place}

    def end_line(self) -> None:
        """What follows begins below."""
        self.x, self.y, self.row_height = 0, self.y + self.row_height, 0


def dashboard() -> dict[str, Any]:
    """All of it."""
    return {
        "title": "chainrule",
        "uid": "chainrule",
        "description": "Scoring servers: traffic, latency, queue, batches, cache, memory, errors.",
        "tags": ["chainrule"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "fiscalYearStartMonth": 0,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timepicker": {},
        "timezone": "browser",
        "links": [],
        "annotations": {"list": [_alerts()]},
        "templating": {"list": list(_variables())},
        "panels": list(_panels()),
    }


def text() -> str:
    """The file."""
    return json.dumps(dashboard(), indent=1) + "\n"


def _alerts() -> dict[str, Any]:
    return {
        "name": "Alerts",
        "datasource": DATASOURCE,
        "enable": True,
        "hide": False,
        "iconColor": "red",
        "target": {
            "refId": "alerts",
            "expr": 'ALERTS{alertname=~"Chainrule.*", alertstate="firing", job=~"$job"}',
        },
        "titleFormat": "{{alertname}}",
        "textFormat": "{{instance}}",
    }


def _variables() -> Iterator[dict[str, Any]]:
    yield {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
        "hide": 0,
        "includeAll": False,
        "multi": False,
        "options": [],
        "refresh": 1,
        "regex": "",
    }
    yield _variable("job", "Job", "label_values(chainrule_build_info, job)")
    yield _variable("model", "Model", 'label_values(chainrule_build_info{job=~"$job"}, model)')
    # No pattern for all of them: it is the list of those that serve the chosen models.
    instances = 'label_values(chainrule_build_info{job=~"$job", model=~"$model"}, instance)'
    yield _variable("instance", "Replica", instances, all_value=None)


def _variable(name: str, label: str, query: str, all_value: str | None = ".*") -> dict[str, Any]:
    every = {} if all_value is None else {"allValue": all_value}
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": DATASOURCE,
        "query": {"qryType": 1, "query": query, "refId": name},
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        "hide": 0,
        "includeAll": True,
        "multi": True,
        "options": [],
        "refresh": 2,
        "regex": "",
        "sort": 1,
        **every,
    }


def _panels() -> Iterator[dict[str, Any]]:
    grid = Grid()
    for title, panels in ROWS.items():
        row = {"type": "row", "title": title, "collapsed": False, "panels": []}
        yield {**row, **grid.place(COLUMNS, 1)}
        grid.end_line()
        for panel in panels:
            yield {**_panel(panel), **grid.place(panel.width, panel.height)}
        grid.end_line()


def _panel(panel: Panel) -> dict[str, Any]:
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": DATASOURCE,
        "targets": list(_targets(panel.kind, panel.queries)),
        "fieldConfig": _field_config(panel),
        "options": _OPTIONS[panel.kind],
        "transformations": list(_TRANSFORMATIONS.get(panel.kind, [])),
    }


def _targets(kind: str, queries: Sequence[Query]) -> Iterator[dict[str, Any]]:
    instant = kind == "table"
    formats = {"table": "table", "heatmap": "heatmap"}
    for letter, query in zip("ABCDEFGH", queries, strict=False):
        yield {
            "refId": letter,
            "datasource": DATASOURCE,
            "expr": query.expr,
            "legendFormat": query.legend,
            "format": formats.get(kind, "time_series"),
            "editorMode": "code",
            "instant": instant,
            "range": not instant,
        }


def _field_config(panel: Panel) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": panel.unit, "color": {"mode": "palette-classic"}}
    if panel.unit == "percentunit":
        defaults |= {"min": 0, "max": 1}
    elif panel.kind == "timeseries":
        defaults |= {"min": 0}
    if panel.kind == "timeseries":
        stacking = {"group": "A", "mode": "normal" if panel.stacked else "none"}
        fill = 25 if panel.stacked else 5
        defaults["custom"] = {"fillOpacity": fill, "showPoints": "never", "stacking": stacking}
    if panel.kind == "stat":
        defaults["thresholds"] = {"mode": "absolute", "steps": _steps(panel.limits)}
        defaults["color"] = {"mode": "thresholds"}
    return {"defaults": defaults, "overrides": _OVERRIDES.get(panel.kind, [])}


def _steps(limits: Sequence[float]) -> list[dict[str, Any]]:
    """Green, then orange and red from these values."""
    colors: Mapping[str, float | None] = {
        "green": None,
        **dict(zip(("orange", "red"), limits, strict=False)),
    }
    return [{"color": color, "value": value} for color, value in colors.items()]


_LEGEND = {"displayMode": "table", "placement": "right", "showLegend": True}

_OPTIONS: dict[str, dict[str, Any]] = {
    "timeseries": {
        "legend": {**_LEGEND, "calcs": ["mean", "max"]},
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    "stat": {
        "colorMode": "value",
        "graphMode": "area",
        "justifyMode": "auto",
        "orientation": "auto",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "textMode": "auto",
        "percentChangeColorMode": "standard",
        "showPercentChange": False,
        "wideLayout": True,
    },
    "heatmap": {
        "calculate": False,
        "cellGap": 1,
        "color": {
            "mode": "scheme",
            "scheme": "Blues",
            "steps": 64,
            "exponent": 0.5,
            "fill": "dark-blue",
            "reverse": False,
        },
        "exemplars": {"color": "orange"},
        "filterValues": {"le": 1e-9},
        "legend": {"show": True},
        "rowsFrame": {"layout": "auto"},
        "showValue": "never",
        "tooltip": {"mode": "single", "yHistogram": False},
        "yAxis": {"axisPlacement": "left", "reverse": False, "unit": "short"},
    },
    "table": {"cellHeight": "sm", "frameIndex": 0, "showHeader": True},
}

# Queries A to C of the table are one row a replica.
_HIDDEN = {"Time": True, "Value #A": True}
_NAMES = {"Value #B": "ready", "Value #C": "up for", "instance": "replica"}
_TRANSFORMATIONS: dict[str, list[dict[str, Any]]] = {
    "table": [
        {"id": "merge", "options": {}},
        {"id": "organize", "options": {"excludeByName": _HIDDEN, "renameByName": _NAMES}},
    ]
}

_READY = {
    "type": "value",
    "options": {"0": {"text": "no", "color": "red"}, "1": {"text": "yes", "color": "green"}},
}
_OVERRIDES: dict[str, list[dict[str, Any]]] = {
    "table": [
        {
            "matcher": {"id": "byName", "options": "ready"},
            "properties": [
                {"id": "mappings", "value": [_READY]},
                {"id": "custom.cellOptions", "value": {"type": "color-text"}},
            ],
        },
        {
            "matcher": {"id": "byName", "options": "up for"},
            "properties": [{"id": "unit", "value": "s"}],
        },
    ]
}


if __name__ == "__main__":
    DASHBOARD.write_text(text())
