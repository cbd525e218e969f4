"""What is claimed of a result."""

from __future__ import annotations

from model_runtime.decoding.certificate import Certificate


def test_nothing_left_is_a_proof() -> None:
    """The best found is the upper bound and there is no gap."""
    assert Certificate.of([-1.0, -3.0], None, 5) == Certificate(True, 0.0, -1.0, 5)


def test_the_gap_is_that_to_the_last_place() -> None:
    """What is left may beat the last one returned by so much; the first one may be safe."""
    assert Certificate.of([-1.0, -3.0], -2.5, 5) == Certificate(False, 0.5, -1.0, 5)
    assert Certificate.of([-3.0], -1.0, 5) == Certificate(False, 2.0, -1.0, 5)


def test_too_few_are_no_proof_though_none_can_be_beaten() -> None:
    """What is left is below all that is returned, and yet there are places free."""
    assert Certificate.of([-1.0], -2.0, 5) == Certificate(False, 0.0, -1.0, 5)


def test_nothing_found_has_no_gap() -> None:
    """What is left bounds whatever there may be, and nothing left proves that there is nothing."""
    assert Certificate.of([], -2.0, 5) == Certificate(False, None, -2.0, 5)
    assert Certificate.of([], None, 5) == Certificate(True, None, None, 5)


def test_what_was_left_out_for_want_of_a_place_is_missing() -> None:
    """Then the result is not what was asked for, though nothing beats it."""
    assert Certificate.of([-1.0], None, 5, complete=False) == Certificate(False, 0.0, -1.0, 5)
