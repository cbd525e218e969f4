"""The check for growth, on series whose growth is known."""

from __future__ import annotations

import random

import pytest

from tests.soak.trend import second_half, trend

BOUND = 4096.0
LEAK = 20_480.0


def series(
    leak: float, *, requests: int = 4000, seed: int = 0, noise: float = 2e5
) -> list[tuple[float, float]]:
    """Resident bytes every ten requests behind a warm-up: what wanders, and a leak."""
    source = random.Random(seed)
    wandering, found = 0.0, []
    for number in range(0, requests, 10):
        wandering = 0.9 * wandering + source.gauss(0, noise)
        warm = 50e6 * min(1.0, 2.5 * number / requests)
        found.append((float(number), 700e6 + warm + wandering + leak * number))
    return list(second_half(found))


@pytest.mark.parametrize("seed", range(20))
def test_what_wanders_and_comes_back_does_not_grow(seed: int) -> None:
    """Correlated noise behind a warm-up is no leak."""
    assert not trend(series(0.0, seed=seed)).grows(BOUND)


@pytest.mark.parametrize("seed", range(20))
def test_a_leak_is_found_and_measured(seed: int) -> None:
    """Its size lies within the bounds of confidence, or close."""
    found = trend(series(LEAK, seed=seed))
    assert found.grows(BOUND)
    assert found.low > BOUND
    assert found.slope == pytest.approx(LEAK, rel=0.1)


def test_a_leak_of_every_hundredth_request_is_found() -> None:
    """Memory that comes in steps grows all the same."""
    steps = [(x, y + 100 * LEAK * (x // 100)) for x, y in series(0.0)]
    assert trend(steps).grows(BOUND)


def test_growth_that_cannot_be_ruled_out_counts() -> None:
    """Noise so large that it hides the bound is no proof of rest."""
    noisy = trend(series(0.0, requests=400, noise=2e7))
    assert noisy.high - noisy.low > BOUND
    assert noisy.grows(BOUND)


def test_the_error_is_that_of_repeated_series() -> None:
    """The standard error says about how slopes of such series differ."""
    found = [trend(series(0.0, seed=seed)) for seed in range(200)]
    mean = sum(one.slope for one in found) / len(found)
    spread = (sum((one.slope - mean) ** 2 for one in found) / len(found)) ** 0.5
    typical = sum(one.error for one in found) / len(found)
    assert 0.6 * spread < typical < 1.5 * spread


@pytest.mark.parametrize("samples", [[], [(0.0, 1.0)], [(1.0, 2.0)] * 20])
def test_too_few_samples_are_refused(samples: list[tuple[float, float]]) -> None:
    """No trend is made up of them."""
    with pytest.raises(ValueError, match="too few"):
        trend(samples)
