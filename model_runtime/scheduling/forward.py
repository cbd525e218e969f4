"""What a batch goes through: planned, run, released. The engine puts the three together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from model_runtime.batching.batch import Batch, QueryProgress
from model_runtime.types import QueryResult


class ForwardPipeline(NamedTuple):
    """What a batch goes through. The engine puts it together.

    Attributes:
        plan: (work, most urgent first; token budget) -> a batch that holds at least a part of
            the first work; its query slices say which work got what.
        run: one forward -> an answer for each query slice, in order. Raises what went wrong.
        release: a planned batch whose run raised gives back what it holds.
        report_to: names what ``run`` calls whenever it has got a little further, at least once a
            layer.
    """

    plan: Callable[[Sequence[QueryProgress], int], Batch]
    run: Callable[[Batch], Sequence[QueryResult]]
    release: Callable[[Batch], None]
    report_to: Callable[[Callable[[], None]], None] = lambda _progress: None
