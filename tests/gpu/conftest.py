"""These tests need a card. ``make test-gpu`` refuses to start without one."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def card() -> None:
    """Skip where there is none."""
    if not torch.cuda.is_available():
        pytest.skip("torch finds no CUDA card here")
