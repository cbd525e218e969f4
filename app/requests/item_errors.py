"""Errors of single candidates: named by their index, or raised where all have to be good."""

from __future__ import annotations

from collections.abc import Sequence

from model_runtime import (
    ChainruleError,
    InvalidQuery,
)


def raise_if_failed(items: Sequence[object], all_or_nothing: bool) -> None:
    """Raise the first error among ``items`` if one is too many, or if there is nothing else."""
    failures = [item for item in items if isinstance(item, ChainruleError)]
    if failures and (all_or_nothing or len(failures) == len(items)):
        raise failures[0]


def with_candidate_index(error: ChainruleError, index: int) -> ChainruleError:
    """The error, naming candidate ``index`` where the candidate is what is wrong."""
    if not isinstance(error, InvalidQuery):
        return error
    return error.at(f"candidates.{index}")
