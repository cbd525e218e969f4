"""Answers to a search's queries by a plain forward of a transformers model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
from transformers import PreTrainedModel

from model_runtime.decoding.base import SearchStrategy
from model_runtime.types import LogprobQuery, LogprobResult, TokenLogprob

R = TypeVar("R")


def answers(model: PreTrainedModel, queries: Sequence[LogprobQuery]) -> list[LogprobResult]:
    """The ``top_k`` next tokens of paths of one length: one full forward, no cache."""
    paths = torch.tensor([query.tokens for query in queries])
    logits = model(paths, use_cache=False).logits[:, -1].float()
    best, ids = torch.log_softmax(logits, dim=-1).sort(dim=-1, descending=True, stable=True)
    rows = zip(queries, best.tolist(), ids.tolist(), strict=True)
    return [
        LogprobResult(top=(tuple(map(TokenLogprob, ids[: q.top_k], best[: q.top_k])),))
        for q, best, ids in rows
    ]


@torch.inference_mode()
def run(search: SearchStrategy[R], model: PreTrainedModel) -> R:
    """Answer a search from the model until it is done."""
    while not search.done:
        search.advance(answers(model, search.queries()))
    return search.result()
