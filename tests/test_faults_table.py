"""The table of faults names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
TABLE = ROOT / "tests" / "faults" / "README.md"


def test_every_named_test_exists() -> None:
    """Each ``path::name`` of the table is a function of that file."""
    named = set(re.findall(r"([\w/.-]+\.py)::(\w+)", TABLE.read_text()))
    assert named, "the table names no test"
    missing = []
    for path, name in sorted(named):
        file = ROOT / path
        if not file.is_file() or not re.search(rf"\bdef {name}\(", file.read_text()):
            missing.append(f"{path}::{name}")
    assert not missing
