"""The dashboard as Grafana reads it."""

from __future__ import annotations

import json
from typing import Any

from tests.deploy.grafana import write_dashboard
from tests.deploy.grafana.write_dashboard import COLUMNS, DASHBOARD
from tests.deploy.prometheus.files import rules

DOCUMENT: dict[str, Any] = json.loads(DASHBOARD.read_text())
PANELS: list[dict[str, Any]] = DOCUMENT["panels"]
SHOWN = [panel for panel in PANELS if panel["type"] != "row"]
UNITS = {"short", "s", "bytes", "percentunit", "reqps"}


def test_the_file_is_what_the_script_writes() -> None:
    """Whoever changes one changes both: python -m tests.deploy.grafana.write_dashboard."""
    assert DASHBOARD.read_text() == write_dashboard.text()


def test_panels_can_be_told_apart() -> None:
    """By their ids, and by their titles within a row."""
    assert len({panel["id"] for panel in PANELS}) == len(PANELS) > 30
    titles: list[tuple[str, str]] = []
    for panel in PANELS:
        row = panel["title"] if panel["type"] == "row" else titles[-1][0]
        titles.append((row, panel["title"] if panel["type"] != "row" else ""))
    assert len(set(titles)) == len(titles)


def test_panels_do_not_overlap() -> None:
    """Nor reach over the edge."""
    taken: set[tuple[int, int]] = set()
    for panel in PANELS:
        place = panel["gridPos"]
        assert place["x"] >= 0 and place["x"] + place["w"] <= COLUMNS
        own = {
            (place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])
        }
        assert not own & taken, panel["title"]
        taken |= own


def test_a_panel_says_what_its_numbers_are() -> None:
    """A unit, queries with references of their own, and legends where there are several series."""
    for panel in SHOWN:
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS, panel["title"]
        references = [target["refId"] for target in panel["targets"]]
        assert references and len(set(references)) == len(references)
        assert all(target["expr"] for target in panel["targets"])
        if panel["type"] == "timeseries":
            assert all(target["legendFormat"] for target in panel["targets"]), panel["title"]


def test_a_share_is_shown_as_one() -> None:
    """What divides like by like has no other unit, and what is shown so divides or is a share."""
    for panel in SHOWN:
        if panel["fieldConfig"]["defaults"]["unit"] == "percentunit":
            for target in panel["targets"]:
                assert any(part in target["expr"] for part in (" / ", "_ratio{", "busy_seconds"))


def test_everything_is_chosen_by_the_variables() -> None:
    """The source, and in each query the job and the replicas; these are those of the models."""
    names = [variable["name"] for variable in DOCUMENT["templating"]["list"]]
    assert names == ["datasource", "job", "model", "instance"]
    for panel in SHOWN:
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == panel["datasource"]["uid"] == "${datasource}"
            selected = target["expr"].count("{")
            assert selected == target["expr"].count('job=~"$job", instance=~"$instance"')
    queries = [variable["query"] for variable in DOCUMENT["templating"]["list"][1:]]
    assert "$model" in queries[-1]["query"]


def test_rates_fit_the_scrape_interval() -> None:
    """Grafana widens this interval where servers are scraped seldom."""
    for panel in SHOWN:
        for target in panel["targets"]:
            assert target["expr"].count("[") == target["expr"].count("[$__rate_interval]")


def test_alerts_are_marked() -> None:
    """Those that fire, by the beginning of their names."""
    (annotation,) = DOCUMENT["annotations"]["list"]
    assert 'alertname=~"Chainrule.*"' in annotation["target"]["expr"]
    assert all(rule["alert"].startswith("Chainrule") for rule in rules("alert"))
