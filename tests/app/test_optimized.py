"""``python -O`` drops every assertion, and refuses what the ordinary interpreter refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.app.refusals import asserts, refusals

ROOT = Path(__file__).parents[2]

EVERY = 4
"""One bad request in so many; ``make test-optimized`` sends all of them."""


@pytest.mark.process
@pytest.mark.anyio
async def test_optimized_code_refuses_the_same() -> None:
    """Every route, every field, by status and error; nothing bad becomes a failure of ours."""
    program = subprocess.Popen(
        [sys.executable, "-m", "tests.app.optimized_refusals", str(EVERY)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    with program:
        here = json.loads(json.dumps(await refusals(EVERY)))
        asserts_there, optimized = json.loads(program.communicate()[0])
    assert program.returncode == 0
    assert (asserts(), asserts_there) == (True, False)
    counts = Counter(status for status, _ in here.values())
    assert counts[422] > 500 / EVERY, counts
    assert max(counts) < 500, [name for name, (status, _) in here.items() if status >= 500]
    assert optimized == here
