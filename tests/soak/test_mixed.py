"""A few hundred mixed requests; `make soak` sends thousands, with stricter bounds."""

from __future__ import annotations

import pytest

from tests.conftest import TinyFolder
from tests.soak.checks import Check
from tests.soak.mixed import Plan, Seen, run
from tests.soak.mixed_checks import Bounds, checks

SHORT = Plan(warm_up=30, measured=80, leaking=50, leak=2 << 20, known=1)
LOOSE = Bounds(memory=1 << 20, resident=1 << 20, full=False, refused=0.75, every_kind=False)
"""So few requests are not enough for memory to come to rest."""


@pytest.fixture(scope="module")
def seen(tiny_folder: TinyFolder) -> Seen:
    """What a short run has shown."""
    return run(tiny_folder("llama"), SHORT)


def checks_of(seen: Seen, *, leaking: bool) -> list[Check]:
    """Those of the planted leak, or all others."""
    return [one for one in checks(seen, LOOSE) if ("leak" in one.figure) is leaking]


@pytest.mark.process
def test_mixed_and_abusive_requests_leave_nothing(seen: Seen) -> None:
    """Every answer is as expected, known ones by their bits, and all is given back."""
    assert [one for one in checks_of(seen, leaking=False) if not one.holds] == []


@pytest.mark.process
def test_a_planted_leak_is_caught(seen: Seen) -> None:
    """The same check of memory fails once the server leaves some behind at each request."""
    (caught,) = checks_of(seen, leaking=True)
    assert caught.holds
