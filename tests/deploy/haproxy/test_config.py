"""The configuration by itself: what HAProxy says of it."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.deploy.haproxy.proxy import CONFIG

pytestmark = pytest.mark.fleet

TWO = {"CHAINRULE_REPLICA_1": "127.0.0.1:8001", "CHAINRULE_REPLICA_2": "127.0.0.1:8002"}
EIGHT = {f"CHAINRULE_REPLICA_{number}": f"127.0.0.1:{8000 + number}" for number in range(1, 9)}


def check(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """HAProxy's own check; a warning fails it."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("CHAINRULE_")}
    return subprocess.run(
        ["haproxy", "-dW", "-c", "-f", str(CONFIG)],
        env=kept | environment,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    "environment",
    [
        TWO,
        EIGHT,
        {"CHAINRULE_REPLICAS": "localhost:8000"},
        TWO | {"CHAINRULE_PROXY_BIND": "*:9000", "CHAINRULE_PROXY_STATS_BIND": "127.0.0.1:9001"},
    ],
    ids=["two", "eight", "by name", "other addresses"],
)
def test_it_is_valid_without_a_warning(environment: dict[str, str]) -> None:
    """With replicas by address and by name."""
    checked = check(environment)
    assert checked.returncode == 0, checked.stderr


def test_without_replicas_one_line_says_what_to_set() -> None:
    """It does not start without anybody to pass requests to."""
    checked = check({})
    assert checked.returncode == 1
    (line,) = [line for line in checked.stderr.splitlines() if "parsing" in line]
    assert "set CHAINRULE_REPLICA_1" in line
