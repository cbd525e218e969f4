"""The default model on a small labelled task: its probabilities mean more than they did."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.calibration.store import parse_calibration
from app.cli.main import main
from tests.app.calibration import labelled_decisions
from tests.end_to_end.live_server import LiveServer

pytestmark = [pytest.mark.real_model, pytest.mark.process]

LABELLED = Path(labelled_decisions.__file__).with_name("labelled.jsonl")
"""60 lines: a short review, and how its writer feels."""


def test_what_it_has_not_seen_is_better_calibrated(real_server: LiveServer, tmp_path: Path) -> None:
    """On questions held out the negative log-likelihood, the Brier score and the expected
    calibration error all fall, by a tenth at least."""
    output = tmp_path / "labelled.json"
    command = ["calibrate", str(LABELLED), "-o", str(output), "--url", real_server.url]
    assert main(command) == 0
    fitted = parse_calibration(output.read_bytes()).questions.choice
    assert fitted is not None and fitted.lines == 60
    for measure in ("nll", "brier", "ece"):
        assert getattr(fitted.after, measure) < 0.9 * getattr(fitted.before, measure)
