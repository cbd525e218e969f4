"""What digits say: a half unit for each number, however the numbers were written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.audit.diagnosis.precision import half_units

NUMBERS = st.lists(st.floats(-500, 500).filter(lambda one: abs(one) > 1e-3), min_size=1, max_size=9)


@given(numbers=NUMBERS, decimals=st.integers(0, 8))
def test_no_rounding_is_larger_than_half_a_unit(numbers: list[float], decimals: int) -> None:
    """Also where JSON has lost the zeros at the end of a number, and where the count is given."""
    written = [round(one, decimals) for one in numbers]
    for units in (half_units(written, None), half_units(written, decimals)):
        for one, exact, unit in zip(written, numbers, units, strict=True):
            assert abs(one - exact) <= unit * (1 + 1e-6) + 1e-12


@given(numbers=NUMBERS, significant=st.integers(1, 8))
def test_significant_digits_are_understood_as_well(numbers: list[float], significant: int) -> None:
    """As ``%.4g`` writes them: large numbers have fewer decimals than small ones."""
    written = [float(f"{one:.{significant}g}") for one in numbers]
    for one, exact, unit in zip(written, numbers, half_units(written, None), strict=True):
        assert abs(one - exact) <= unit * (1 + 1e-6) + 1e-12


@pytest.mark.parametrize(
    ("numbers", "units"),
    [
        ([-1.5, -2.125], [0.0005, 0.0005]),
        ([-12.34, -0.1234], [0.005, 0.00005]),
        ([-3.0, -41.0], [0.5, 0.5]),
        ([0.0, -1.25], [0.005, 0.005]),
        ([1e-05, 0.25], [0.000005, 0.005]),
    ],
)
def test_the_most_that_any_number_shows_counts_for_all(
    numbers: list[float], units: list[float]
) -> None:
    """The units are the largest that explain all of the numbers."""
    assert half_units(numbers, None) == pytest.approx(units)
