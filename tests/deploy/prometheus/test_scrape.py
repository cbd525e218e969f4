"""A real Prometheus scrapes real servers: the series, the rules, and what the dashboard asks.

Of two servers of one job, one computes with a tiny model and wants a key; the other one fails
where it is told to. They say that they serve the same model, and have different fingerprints.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.app.faulty_engine import FAILS, HELD
from tests.app.stub_server import ServerProcess
from tests.conftest import TinyFolder
from tests.deploy.grafana.write_dashboard import DASHBOARD
from tests.deploy.prometheus.files import rules
from tests.deploy.prometheus.process import Prometheus, config, free_address, running_prometheus
from tests.end_to_end.live_server import LiveServer, live_server

pytestmark = pytest.mark.fleet

KEY = "a-key-of-this-test"
MODEL = "org/toy"
QUEUE_TOKENS = 70
ROUNDS = 2
"""A series that is born with its first request rises with the second."""

WITHOUT_KEY = """
  - job_name: chainrule-without-key
    static_configs:
      - targets:
          - {refuses}
  - job_name: chainrule-on-a-port-of-its-own
    static_configs:
      - targets:
          - {answers}
"""


@dataclass(frozen=True)
class Fleet:
    """What runs."""

    prometheus: Prometheus
    server: LiveServer
    faulty: ServerProcess
    own_port: str

    @property
    def instances(self) -> tuple[str, str]:
        """The servers as Prometheus calls them."""
        return self.server.url.removeprefix("http://"), self.faulty.url.removeprefix("http://")


@pytest.fixture(scope="module")
def fleet(tiny_folder: TinyFolder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Two servers that have answered and refused requests, and a Prometheus that has seen it."""
    faulty = ServerProcess("faulty", max_queue_tokens=QUEUE_TOKENS)
    try:
        faulty.await_line("ready")
        own_port = free_address()
        settings: dict[str, object] = {"metrics_port": own_port.rpartition(":")[2]}
        settings |= {"served_name": MODEL, "api_keys": KEY, "kv_cache_bytes": "16MiB"}
        with live_server(model=tiny_folder("llama"), **settings) as server:
            server.client.headers["Authorization"] = f"Bearer {KEY}"
            addresses = [url.removeprefix("http://") for url in (server.url, faulty.url)]
            jobs = WITHOUT_KEY.format(refuses=addresses[0], answers=own_port)
            text = config(addresses, jobs)
            folder = tmp_path_factory.mktemp("prometheus")
            with running_prometheus(folder, text, KEY) as prometheus:
                found = Fleet(prometheus, server, faulty, own_port)
                for number in range(1, ROUNDS + 1):
                    ask(server)
                    provoke(faulty)
                    await_requests(found, number)
                await_rules(prometheus)
                yield found
    finally:
        faulty.kill()


def ask(server: LiveServer) -> None:
    """A request of each kind, the second of which finds its context in the cache."""
    context = list(range(3, 30))
    for candidate in (31, 32):
        server.post("/v1/score", {"context": context, "candidates": [[candidate]]})
    budget = {"strategy": "exact", "max_tokens": 8, "max_expansions": 1, "num_beams": 1}
    server.post("/v1/decode", {"context": context, **budget})


def provoke(faulty: ServerProcess) -> None:
    """One answer 500, and one 429 while a forward is held."""
    assert faulty.score(FAILS, 1).status_code == 500
    most = range(1, 2 * QUEUE_TOKENS // 3)
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(faulty.score, HELD, *most)
        faulty.await_requests(1)
        assert faulty.score(*most).status_code == 429
        faulty.release()
        assert held.result().status_code == 200


def await_requests(fleet: Fleet, rounds: int) -> None:
    """Wait until what was answered last is scraped, of both servers."""
    for instance, route in zip(fleet.instances, ("/v1/decode", "/v1/score"), strict=True):
        labels = f'instance="{instance}", route="{route}", status="200"'
        expr = f"sum(chainrule_requests_total{{{labels}}})"
        fleet.prometheus.await_true(lambda expr=expr: fleet.prometheus.value(expr) == rounds)


def await_rules(prometheus: Prometheus) -> None:
    """Wait until every rule has been evaluated since, and once more: alerts read what others
    record, and each group has its own clock."""
    for _ in range(2):
        now = prometheus.get("query", query="time()")["result"][0]
        prometheus.await_true(
            lambda now=now: all(evaluated(group) > now for group in groups(prometheus))
        )


def groups(prometheus: Prometheus) -> list[dict[str, Any]]:
    """The groups of rules that it has loaded."""
    found: list[dict[str, Any]] = prometheus.get("rules")["groups"]
    return found


def evaluated(group: dict[str, Any]) -> float:
    """When, in seconds since 1970."""
    moment, _, _ = group["lastEvaluation"].partition(".")
    return datetime.fromisoformat(moment.removesuffix("Z")).replace(tzinfo=UTC).timestamp()


def test_both_servers_are_scraped(fleet: Fleet) -> None:
    """With the key from the file, or from the port that wants none, and without an error; where
    the key is missing it is told."""
    targets = fleet.prometheus.get("targets")["activeTargets"]
    found = {(one["labels"]["job"], one["labels"]["instance"]): one["health"] for one in targets}
    wanted = dict.fromkeys([("chainrule", instance) for instance in fleet.instances], "up")
    wanted["chainrule-on-a-port-of-its-own", fleet.own_port] = "up"
    wanted["chainrule-without-key", fleet.instances[0]] = "down"
    assert found == wanted
    (refused,) = [target["lastError"] for target in targets if target["lastError"]]
    assert "401" in refused
    up = {(one["job"], one["instance"]): value for one, value in fleet.prometheus.query("up")}
    assert up == {target: float(health == "up") for target, health in wanted.items()}


def test_the_series_have_the_values_of_the_servers(fleet: Fleet) -> None:
    """Requests by status, and what the engine counts of itself."""
    server, faulty = fleet.instances
    wanted = {(server, "200"): 3 * ROUNDS, (faulty, "200"): ROUNDS}
    wanted |= {(faulty, "429"): ROUNDS, (faulty, "500"): ROUNDS}
    found = fleet.prometheus.query(
        'sum by (instance, status) (chainrule_requests_total{job="chainrule", method="POST"})'
    )
    assert {(labels["instance"], labels["status"]): n for labels, n in found} == wanted
    refused = f'sum(chainrule_rejections_total{{instance="{faulty}", reason="queue_full"}})'
    assert fleet.prometheus.value(refused) == ROUNDS
    for name in ("cached_tokens_total", "batches_total", "unproven_decodes_total", "cache_slots"):
        value = fleet.prometheus.value(f'chainrule_{name}{{instance="{server}"}}')
        assert value == fleet.server.metric(f"chainrule_{name}") > 0, name


def test_the_build_is_the_one_that_answers(fleet: Fleet) -> None:
    """The fingerprint is that of /v1/models."""
    card = fleet.server.client.get("/v1/models").json()["data"][0]
    ((labels, value),) = fleet.prometheus.query(
        f'chainrule_build_info{{instance="{fleet.instances[0]}"}}'
    )
    assert value == 1
    assert (labels["model"], labels["fingerprint"]) == (MODEL, card["fingerprint"])


def test_the_rules_are_evaluated(fleet: Fleet) -> None:
    """All that we have, each without an error; those that record have recorded."""
    found = [rule for group in groups(fleet.prometheus) for rule in group["rules"]]
    wanted = [rule[kind] for kind in ("record", "alert") for rule in rules(kind)]
    assert sorted(rule["name"] for rule in found) == sorted(wanted)
    assert {(rule["health"], rule.get("lastError", "")) for rule in found} == {("ok", "")}
    for rule in rules("record"):
        values = [value for _, value in fleet.prometheus.query(rule["record"])]
        assert values and all(map(math.isfinite, values)), rule["record"]


def test_alerts_are_about_what_is_wrong(fleet: Fleet) -> None:
    """Those wait for their time that should, and no other one does."""
    found = {
        alert["labels"]["alertname"]: alert for alert in fleet.prometheus.get("alerts")["alerts"]
    }
    wanted = {"ChainruleErrors", "ChainruleRejecting", "ChainruleTargetDown"}
    wanted |= {"ChainruleFingerprintsDiffer", "ChainruleUnprovenDecodes"}
    assert set(found) == wanted
    assert {alert["state"] for alert in found.values()} == {"pending"}
    summary = found["ChainruleFingerprintsDiffer"]["annotations"]["summary"]
    assert summary == f"Replicas of {MODEL} behind chainrule have 2 different fingerprints"


DOCUMENT = json.loads(DASHBOARD.read_text())
ASKED = [
    (panel["title"], target["expr"])
    for panel in DOCUMENT["panels"]
    for target in panel.get("targets", [])
]


@pytest.mark.parametrize(("title", "expr"), ASKED, ids=[title for title, _ in ASKED])
def test_every_panel_has_something_to_show(fleet: Fleet, title: str, expr: str) -> None:
    """A number, for a replica at least, and all replicas where they are told apart."""
    for variable in ("$job", "$instance"):
        expr = expr.replace(variable, ".*")
    found = fleet.prometheus.query(expr.replace("$__rate_interval", "2m"))
    assert any(math.isfinite(value) for _, value in found), found


def test_the_variables_have_their_choices(fleet: Fleet) -> None:
    """The model of both servers, and each address that is scraped."""
    for label, wanted in {"model": {MODEL}, "instance": {*fleet.instances, fleet.own_port}}.items():
        found = fleet.prometheus.get(f"label/{label}/values", **{"match[]": "chainrule_build_info"})
        assert set(found) == wanted
