"""What a search looked at, as a tree of tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import ConfigDict

from app.schemas.response import PART_CONFIG, OmitNone, ResponseModel

MAX_TREE_NODES = 2000
"""Nodes of a tree that is answered."""


@dataclass(slots=True, kw_only=True)
class SearchNode:
    """A token behind those of its ancestors."""

    __pydantic_config__: ClassVar[ConfigDict] = PART_CONFIG

    parent: OmitNone[int] = None
    """Place of the node before it in ``nodes``; absent of a first token."""
    id: int
    text: str
    logprob: float
    """Of this token, given all before it."""
    total: float
    """The sum from the first generated token to this one."""
    state: Literal["returned", "expanded", "completed", "cut"]
    """``returned``: on the path of a sequence of the answer. ``expanded``: the model was asked what
    follows. ``completed``: the completion that ends here lost. ``cut``: the search did not go on
    from here: it was not among the beams, could not come to be the best, or time or budget ran out
    first."""
    step: OmitNone[int] = None
    """Round of the search in which the model was asked what follows, from 0, the context's own
    included; absent where it was not asked."""


class SearchTree(ResponseModel):
    """The prefixes of a search and the continuations that it was told of."""

    nodes: list[SearchNode]
    """Parents before children. Of siblings the most probable first."""
    left_out: int
    """Nodes that the search was told of beside these, as far as it was counted."""
