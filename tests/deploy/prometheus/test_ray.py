"""A real Prometheus reads what a node of Ray exports of its replicas, as ray.yaml has it.

The node is a page: what an app says of itself, with what Ray puts before names and into labels.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from app.telemetry.metrics import Metrics
from model_runtime import EngineStats
from tests.app.stub_engine import INFO
from tests.deploy.prometheus.files import RAY_CONFIG, rules
from tests.deploy.prometheus.process import INTERVAL_S, Prometheus, running_prometheus

pytestmark = pytest.mark.fleet

REPLICAS = ("7emi681b", "n0dg5hg9")
NODE = 'Component="core_worker",NodeAddress="192.0.2.2",Version="2.60.0",deployment="chainrule"'
JOB = "chainrule-ray"
STATS = replace(EngineStats(), ready=True, queued_seconds=3.0, memory_limit_bytes=1 << 40)
_SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)


def page() -> str:
    """Of both replicas, and a line of the node itself."""
    metrics = Metrics(lambda: STATS, model=lambda: INFO)
    metrics.observe_request("POST", "/v1/score", 200, 0.1)
    lines = ['ray_node_cpu_count{SessionName="s"} 2']
    for name, own, value in _SAMPLE.findall(metrics.render().decode()):
        for replica in REPLICAS:
            labels = f'{NODE},replica="{replica}"' + (f",{own}" if own else "")
            lines.append(f"ray_{name}{{{labels}}} {value}")
    return "\n".join(lines) + "\n"


@contextmanager
def node(text: str) -> Iterator[str]:
    """A server of this page; yields its address."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = text.encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing is logged."""

    server = HTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Prometheus, str]]:
    """A Prometheus that has read the page, and the node's address."""
    folder: Path = tmp_path_factory.mktemp("prometheus")
    text = RAY_CONFIG.read_text().replace(": 15s", f": {INTERVAL_S:.0f}s")
    assert "/tmp/ray/prom_metrics_service_discovery.json" in text
    text = text.replace("/tmp/ray/prom_metrics_service_discovery.json", "nodes.json")
    with node(page()) as address:
        nodes = [{"labels": {"job": "ray"}, "targets": [address]}]
        (folder / "nodes.json").write_text(json.dumps(nodes))
        with running_prometheus(folder, text, "") as prometheus:
            recorded = f'job:chainrule_queued_seconds:sum_avg1m{{job="{JOB}"}}'
            prometheus.await_true(lambda: prometheus.value(recorded) is not None)
            yield prometheus, address


def test_replicas_are_instances(ray: tuple[Prometheus, str]) -> None:
    """Under the names of a server's own metrics; Ray's are not there."""
    prometheus, address = ray
    found = prometheus.query("chainrule_build_info")
    assert {(one["job"], one["instance"]) for one, _ in found} == {(JOB, one) for one in REPLICAS}
    assert {one["fingerprint"] for one, _ in found} == {INFO.fingerprint}
    assert prometheus.query("up")[0][0] == {"__name__": "up", "job": JOB, "instance": address}
    assert prometheus.query('{__name__=~"ray_.*|node_.*"}') == []


def test_the_rules_read_them(ray: tuple[Prometheus, str]) -> None:
    """What joins by instance finds one for each, and histograms are whole."""
    prometheus, _ = ray
    assert prometheus.value("job:chainrule_queued_seconds:sum_avg1m") == 2 * STATS.queued_seconds
    memory = next(rule for rule in rules("alert") if rule["alert"] == "ChainruleMemoryNearLimit")
    ratio = memory["expr"].removesuffix(" > 0.9")
    assert {labels["instance"] for labels, _ in prometheus.query(ratio)} == set(REPLICAS)
    seconds = "sum by (le) (chainrule_request_seconds_bucket)"
    value = prometheus.value(f"histogram_quantile(1, {seconds})")
    assert value is not None and abs(value - 0.1) < 1e-9
