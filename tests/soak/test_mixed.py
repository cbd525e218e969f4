"""A few hundred mixed requests; `make soak` sends thousands, with stricter bounds."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import TinyFolder
from tests.soak.checks import broken
from tests.soak.mixed import run
from tests.soak.mixed_checks import Bounds, checks, leak_check

pytestmark = pytest.mark.process

LOOSE = Bounds(memory=1 << 20, full=False, refused=0.75, every_kind=False)
"""So few requests are not enough for memory to come to rest."""


@pytest.fixture(scope="module")
def folder(tiny_folder: TinyFolder) -> Path:
    """What is served."""
    return tiny_folder("llama")


def test_mixed_and_abusive_requests_leave_nothing(folder: Path) -> None:
    """Every answer is as expected, known ones by their bits, and all is given back."""
    seen = run(folder, 240, known=1)
    assert not broken(checks(seen, LOOSE))


def test_a_planted_leak_is_caught(folder: Path) -> None:
    """The same requests to a server that leaves some memory behind at each of them."""
    seen = run(folder, 160, leak=2 << 20, known=0)
    assert leak_check(seen.trend, LOOSE).holds
