"""A short `make fuzz`: what the OpenAPI document allows and forbids, generated for some seconds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.end_to_end.live_server import LiveServer

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[2]
SECONDS = 6
RUN = "from schemathesis.cli import schemathesis; schemathesis()"


def test_generated_requests_are_answered_as_the_document_says(tiny_server: LiveServer) -> None:
    """The same requests each time, as many of them as the machine sends in that time."""
    pytest.importorskip("schemathesis", reason="it comes with the fuzz extra")
    run = subprocess.run(
        [
            *(sys.executable, "-c", RUN, "--config-file", "tests/schemathesis.toml", "run"),
            *(f"{tiny_server.url}/openapi.json", "--phases", "fuzzing"),
            # Its conditions are more than schemathesis can generate from; it has covering cases.
            *("--exclude-path", "/v1/decode"),
            *("--max-time", str(SECONDS), "--generation-deterministic", "--no-color"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=20 * SECONDS,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-5000:] + run.stderr[-1000:]
    assert " generated, " in run.stdout, run.stdout[-3000:]
