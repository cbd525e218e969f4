"""Alerts, recording rules and dashboard read what the app exposes, by labels that it has."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.app.conftest import client_of, shell_app
from tests.app.fake_engine import FakeEngine
from tests.deploy.expressions import grouping, selectors
from tests.deploy.grafana.write_dashboard import DASHBOARD
from tests.deploy.prometheus.files import rules

pytestmark = pytest.mark.anyio

TARGET = frozenset({"job", "instance", "namespace"})
"""Labels that Prometheus gives to each series; the last in Kubernetes alone."""
ADDED = {"up": frozenset[str](), "ALERTS": frozenset({"alertname", "alertstate", "severity"})}
"""Series that Prometheus makes itself."""

KEY = "a-key-of-sixteen"


@pytest.fixture
def anyio_backend() -> str:
    """The loop that the server runs on."""
    return "asyncio"


def recorded() -> dict[str, frozenset[str]]:
    """The recorded series; the level in a name says by which labels they are."""
    levels = {rule["record"]: rule["record"].split(":")[0] for rule in rules("record")}
    return {name: frozenset(level.split("_")) for name, level in levels.items()}


def expressions() -> dict[str, str]:
    """Every expression, by who reads it."""
    found = {rule[kind]: rule["expr"] for kind in ("record", "alert") for rule in rules(kind)}
    document: dict[str, Any] = json.loads(DASHBOARD.read_text())
    for panel in document["panels"]:
        for target in panel.get("targets", []):
            found[f"{panel['id']} {panel['title']} {target['refId']}"] = target["expr"]
    found["annotation"] = document["annotations"]["list"][0]["target"]["expr"]
    for variable in document["templating"]["list"][1:]:
        inner, _, label = variable["query"]["query"].removesuffix(")").rpartition(", ")
        selector = inner.removeprefix("label_values(")
        found[f"variable {variable['name']}"] = f"sum by ({label}) ({selector})"
    return found


async def exposed() -> dict[str, frozenset[str]]:
    """The app's samples after a request of each kind, with their labels."""
    auth = {"Authorization": f"Bearer {KEY}"}
    body: dict[str, Any] = {"context": "it is", "max_tokens": 2, "strategy": "exact"}
    async with client_of(shell_app(FakeEngine(), api_keys=[KEY])) as client:
        assert (await client.post("/v1/decode", json=body)).status_code == 401
        assert (await client.post("/v1/decode", json=body, headers=auth)).status_code == 200
        text = (await client.get("/metrics", headers=auth)).text
    found: dict[str, frozenset[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, frozenset()) | set(sample.labels)
    return found


async def test_every_name_and_label_exists() -> None:
    """In what the app says of itself, what is recorded, or what Prometheus adds."""
    known: Mapping[str, frozenset[str]] = {**await exposed(), **recorded(), **ADDED}
    wrong = []
    for reader, expr in expressions().items():
        read = selectors(expr)
        assert read, reader
        for one in read:
            if one.name not in known:
                wrong.append(f"{reader}: no metric {one.name}")
            elif extra := one.labels - known[one.name] - TARGET:
                wrong.append(f"{reader}: {one.name} has no label {sorted(extra)}")
        labels = frozenset[str]().union(*(known.get(one.name, frozenset()) for one in read))
        if extra := grouping(expr) - labels - TARGET:
            wrong.append(f"{reader}: groups by {sorted(extra)}")
    assert not wrong


def test_a_recorded_name_says_its_labels() -> None:
    """So that the check above may read them from it."""
    for rule in rules("record"):
        level = set(rule["record"].split(":")[0].split("_"))
        if level != {"instance"}:
            assert level == grouping(rule["expr"]) - {"namespace"}, rule["record"]


def test_what_is_recorded_is_of_use() -> None:
    """To an alert, another record, or the docs, which give autoscalers the first."""
    readers = [*rules("alert"), *rules("record")]
    read = {one.name for rule in readers for one in selectors(rule["expr"])}
    docs = (DASHBOARD.parents[2] / "docs" / "monitoring.md").read_text()
    assert not [name for name in recorded() if name not in read and f"`{name}`" not in docs]
