"""The listed tokens of a row: columns of numbers, put together token by token when looked at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import overload

from model_runtime.types import RankedLogprob


class TokenColumns(Sequence[RankedLogprob]):
    """Equal to any sequence of the same tokens.

    A wide beam asks for half a million tokens a step and looks at a thousand of them.

    Args:
        ids, logprobs, ranks: a column each, all of one length; not to be changed afterwards.
    """

    __slots__ = ("_ids", "_logprobs", "_ranks")

    def __init__(self, ids: list[int], logprobs: list[float], ranks: list[int]) -> None:
        self._ids, self._logprobs, self._ranks = ids, logprobs, ranks

    def __len__(self) -> int:
        return len(self._ids)

    @overload
    def __getitem__(self, place: int) -> RankedLogprob: ...
    @overload
    def __getitem__(self, place: slice) -> TokenColumns: ...
    def __getitem__(self, place: int | slice) -> RankedLogprob | TokenColumns:
        if isinstance(place, slice):
            return TokenColumns(self._ids[place], self._logprobs[place], self._ranks[place])
        return RankedLogprob(self._ids[place], self._logprobs[place], self._ranks[place])

    def __iter__(self) -> Iterator[RankedLogprob]:
        return map(RankedLogprob, self._ids, self._logprobs, self._ranks)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return f"TokenColumns{tuple(self)}"
