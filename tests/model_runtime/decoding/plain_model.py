"""Answers to a search's queries by a plain forward of a transformers model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
from transformers import PreTrainedModel

from model_runtime.decoding.base import SearchStrategy
from model_runtime.types import LogprobQuery, LogprobResult, TokenLogprob
from tests.model_runtime.decoding.table import choose

R = TypeVar("R")


def answers(model: PreTrainedModel, queries: Sequence[LogprobQuery]) -> list[LogprobResult]:
    """What comes next on paths of one length: one full forward, no cache."""
    paths = torch.tensor([query.tokens for query in queries])
    logits = model(paths, use_cache=False).logits[:, -1].float()
    best, ids = torch.log_softmax(logits, dim=-1).sort(dim=-1, descending=True, stable=True)
    rows = zip(queries, best.tolist(), ids.tolist(), strict=True)
    return [_answer(query, list(map(TokenLogprob, ids, best))) for query, best, ids in rows]


def _answer(query: LogprobQuery, row: list[TokenLogprob]) -> LogprobResult:
    top = (tuple(row[: query.top_k]),) if query.top_k else ()
    return LogprobResult(top=top, choices=choose(row, query.choice) if query.choice else ())


@torch.inference_mode()
def run(search: SearchStrategy[R], model: PreTrainedModel) -> R:
    """Answer a search from the model until it is done."""
    while not search.done:
        search.advance(answers(model, search.queries()))
    return search.result()
