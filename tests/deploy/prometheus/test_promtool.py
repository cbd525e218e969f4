"""The files for Prometheus, checked by its own tool, and its unit tests of the rules."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from tests.deploy.prometheus.files import CONFIG, RAY_CONFIG, RULE_FILES, rules, with_key

pytestmark = pytest.mark.fleet

FOLDER = Path(__file__).parent
UNIT_TESTS = sorted(FOLDER.glob("*_test.yaml"))


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run it."""
    return subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("path", [CONFIG, RAY_CONFIG], ids=lambda path: path.stem)
def test_the_config_is_valid(path: Path) -> None:
    """With the rules that it names."""
    found = promtool("check", "config", path)
    assert found.returncode == 0, found.stdout + found.stderr
    assert "2 rule files found" in found.stdout


def test_a_key_that_is_not_there_is_named(tmp_path: Path) -> None:
    """Whoever uncomments the key's lines and forgets the file hears of it."""
    config = tmp_path / "prometheus.yaml"
    config.write_text(with_key(CONFIG.read_text()).replace("../api_key", "no_such_key"))
    for path in RULE_FILES:
        (tmp_path / path.name).write_text(path.read_text())
    found = promtool("check", "config", config)
    assert found.returncode != 0
    assert "no_such_key" in found.stdout + found.stderr
    (tmp_path / "no_such_key").write_text("k")
    found = promtool("check", "config", config)
    assert found.returncode == 0, found.stdout + found.stderr


def test_the_rules_are_valid() -> None:
    """Each expression and each template can be read, and no rule stands twice."""
    found = promtool("check", "rules", "--lint-fatal", *RULE_FILES)
    assert found.returncode == 0, found.stdout + found.stderr
    assert f"{len(rules('record'))} rules found" in found.stdout
    assert f"{len(rules('alert'))} rules found" in found.stdout


@pytest.mark.parametrize("path", UNIT_TESTS, ids=lambda path: path.stem)
def test_the_rules_do_what_they_should(path: Path) -> None:
    """On series made for it."""
    found = promtool("test", "rules", path)
    assert found.returncode == 0, found.stdout + found.stderr


def test_every_rule_has_its_unit_test() -> None:
    """Each alert is seen to fire and not to fire, and each recorded series is looked at."""
    tests = [test for path in UNIT_TESTS for test in yaml.safe_load(path.read_text())["tests"]]
    alerts = [check for test in tests for check in test.get("alert_rule_test", [])]
    asked = " ".join(check["expr"] for test in tests for check in test.get("promql_expr_test", []))
    names = {rule["alert"] for rule in rules("alert")}
    assert names == {check["alertname"] for check in alerts if check["exp_alerts"]}
    assert names == {check["alertname"] for check in alerts if not check["exp_alerts"]}
    assert not [rule["record"] for rule in rules("record") if rule["record"] not in asked]
