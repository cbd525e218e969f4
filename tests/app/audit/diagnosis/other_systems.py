"""Scores of other systems: transformers' own forward pass, and each mistake written out by hand.

Nothing here knows how the product computes or names anything. Texts are chosen so that no token
goes across a context's end, unless a test wants one to.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer

from tests.offline import eager_model

Ids = list[int]


class OtherSystem:
    """A pipeline over transformers.

    Args:
        folder: of the model.
        dtype: that it computes in.
    """

    def __init__(self, folder: Path, dtype: torch.dtype = torch.float32) -> None:
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self.model = eager_model(folder, dtype)
        self.end = int(self.tokenizer.eos_token_id)

    def ids(self, text: str) -> Ids:
        """Without anything before it or behind it."""
        return list(self.tokenizer(text, add_special_tokens=False).input_ids)

    def context(self, text: str) -> Ids:
        """As the tokenizer's own rule begins a text."""
        return list(self.tokenizer(text).input_ids)

    def chat(self, content: str) -> Ids:
        """A user's message, up to where the assistant answers."""
        turns = [{"role": "user", "content": content}]
        text = self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        return self.ids(text)

    def answer(self, context: str, candidate: str) -> Ids:
        """A candidate's tokens behind its context, which end where the context does."""
        before, whole = self.ids(context), self.ids(context + candidate)
        assert whole[: len(before)] == before, "a token goes across the context's end"
        return whole[len(before) :]

    def table(self, ids: Sequence[int], temperature: float = 1.0) -> Tensor:
        """[len(ids), vocab]: row i is what the model says behind ids[: i + 1]."""
        with torch.no_grad():
            logits = self.model(torch.tensor([list(ids)])).logits[0].float()
        return torch.log_softmax(logits / temperature, -1)

    def logprobs(self, context: Ids, answer: Ids, temperature: float = 1.0) -> list[float]:
        """Of each token of the answer, as it should be."""
        table = self.table([*context, *answer], temperature)
        first = len(context) - 1
        return [float(table[first + place, token]) for place, token in enumerate(answer)]

    def unshifted(self, context: Ids, answer: Ids) -> list[float]:
        """Each token read from the logits at its own place."""
        table = self.table([*context, *answer])
        return [float(table[len(context) + i, token]) for i, token in enumerate(answer)]

    def shifted_twice(self, context: Ids, answer: Ids) -> list[float]:
        """Labels were shifted by the caller, and once more by the model."""
        table = self.table([*context, *answer])
        return [float(table[len(context) + i - 2, token]) for i, token in enumerate(answer)]

    def early(self, context: Ids, answer: Ids) -> list[float]:
        """A slice that begins and ends one too early."""
        ids = [*context, *answer]
        table = self.table(ids)
        places = range(len(context) - 1, len(ids) - 1)
        return [float(table[place - 1, ids[place]]) for place in places]

    def everything(self, context: Ids, answer: Ids) -> list[float]:
        """The context's own tokens as well, from the second on."""
        ids = [*context, *answer]
        table = self.table(ids)
        return [float(table[place - 1, ids[place]]) for place in range(1, len(ids))]

    def over_top(self, context: Ids, answer: Ids, count: int) -> list[float]:
        """A softmax over the most probable tokens alone; -30 for a token that is none of them."""
        with torch.no_grad():
            logits = self.model(torch.tensor([[*context, *answer]])).logits[0].float()
        found = []
        for place, token in enumerate(answer):
            row = logits[len(context) - 1 + place]
            best = torch.topk(row, count)
            log_mass = torch.logsumexp(best.values, -1)
            found.append(float(row[token] - log_mass) if token in best.indices else -30.0)
        return found


def totals(lists: Sequence[Sequence[float]]) -> list[float]:
    """Sums."""
    return [math.fsum(one) for one in lists]


def means(lists: Sequence[Sequence[float]]) -> list[float]:
    """Per token."""
    return [math.fsum(one) / len(one) for one in lists]


def log_softmax(scores: Sequence[float], temperature: float = 1.0) -> list[float]:
    """Among themselves."""
    found = torch.log_softmax(torch.tensor(scores, dtype=torch.float64) / temperature, -1)
    return [float(one) for one in found]


Make = Callable[[OtherSystem], list[float]]
