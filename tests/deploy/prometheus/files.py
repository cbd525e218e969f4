"""What lies in ``deploy/prometheus/``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parents[3] / "deploy" / "prometheus"
CONFIG = FOLDER / "prometheus.yaml"
RAY_CONFIG = FOLDER / "ray.yaml"
RULE_FILES = (FOLDER / "rules.yaml", FOLDER / "alerts.yaml")


def rules(kind: str) -> list[dict[str, Any]]:
    """The rules of a kind: ``alert`` or ``record``."""
    documents = [yaml.safe_load(path.read_text()) for path in RULE_FILES]
    groups = [group for document in documents for group in document["groups"]]
    return [rule for group in groups for rule in group["rules"] if kind in rule]


def with_key(config: str) -> str:
    """The config with the lines of the key uncommented."""
    changed = config.replace("    # authorization:", "    authorization:")
    changed = changed.replace("    #   credentials_file:", "      credentials_file:")
    assert yaml.safe_load(changed)["scrape_configs"][0]["authorization"]
    return changed
