"""How exact reported numbers are, told from their digits."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal


def half_units(values: Sequence[float], decimals: int | None) -> list[float]:
    """What each number may be off by for having been rounded: half a unit of its last digit.

    JSON does not keep the zeros at a number's end, so one number alone says little: -1.5 may be
    -1.500. All were written alike, with so many decimals or with so many significant digits, so
    the most that any of them shows count for all, and of the two the coarser one.

    Args:
        values: as reported.
        decimals: what they were rounded to, if it is known.
    """
    if decimals is not None:
        return [0.5 * 10.0**-decimals] * len(values)
    shown = [_digits(value) for value in values]
    places = max((places for places, _, _ in shown), default=0)
    significant = max((count for _, count, _ in shown), default=1)
    return [
        0.5 * max(10.0**-places, 10.0 ** (first + 1 - significant) if value else 0.0)
        for value, (_, _, first) in zip(values, shown, strict=True)
    ]


def _digits(value: float) -> tuple[int, int, int]:
    """Decimals, significant digits, and the power of ten of the first one."""
    number = Decimal(repr(value)).normalize()
    _, digits, exponent = number.as_tuple()
    if not isinstance(exponent, int):
        raise ValueError(f"{value!r} is not finite")
    return max(0, -exponent), len(digits), number.adjusted()
