"""The fair baseline: what a careful user of transformers writes for these workloads.

The context is computed once and its cache expanded over the candidates; logits are made for
candidate positions alone; attention is transformers' default. Nothing here is crippled.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, DynamicCache, PreTrainedModel

from benchmarks.workloads import Group

PAIRS_AT_ONCE = 8
"""Rows of a batch for workload I; larger and smaller ones were slower or no faster."""


def load(folder: Path) -> PreTrainedModel:
    """The model in float32, as transformers serves it by default."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@torch.inference_mode()
def score_shared(model: PreTrainedModel, group: Group) -> list[float]:
    """Workload R: sums of the candidates behind one context."""
    cache = DynamicCache()
    context = torch.tensor([group.context])
    first = model(input_ids=context, past_key_values=cache, logits_to_keep=1).logits
    count = len(group.candidates)
    cache.batch_repeat_interleave(count)
    padded, mask = _pad(group.candidates)
    attended = torch.cat([torch.ones(count, context.shape[1], dtype=torch.long), mask], dim=1)
    rest = model(
        input_ids=padded[:, :-1], attention_mask=attended[:, :-1], past_key_values=cache
    ).logits
    logits = torch.cat([first.expand(count, -1, -1), rest], dim=1)
    return _sums(logits, padded, mask)


@torch.inference_mode()
def score_pairs(model: PreTrainedModel, groups: Sequence[Group]) -> list[float]:
    """Workload I: sums of pairs that share nothing, in padded batches."""
    sums: list[float] = []
    for start in range(0, len(groups), PAIRS_AT_ONCE):
        part = groups[start : start + PAIRS_AT_ONCE]
        paths = torch.tensor([group.context + group.candidates[0] for group in part])
        length = len(part[0].candidates[0])
        logits = model(input_ids=paths[:, :-1], use_cache=False, logits_to_keep=length).logits
        sums += _sums(logits, paths[:, -length:], torch.ones(len(part), length))
    return sums


@torch.inference_mode()
def next_tokens(model: PreTrainedModel, prompts: Sequence[tuple[int, ...]]) -> list[int]:
    """The most probable token after each prompt; all of one length."""
    logits = model(input_ids=torch.tensor(prompts), use_cache=False, logits_to_keep=1).logits
    ids: list[int] = logits[:, -1].argmax(-1).tolist()
    return ids


class Decoder:
    """``generate`` behind prompts whose keys and values are computed, but for their last token's.

    All prompts are one static batch without padding, which is the best case of ``generate``.
    End tokens end nothing, so that every run makes the same number of tokens.

    Args:
        model: its generation config is changed.
        prompts: all of one length.
        num_beams: 1 for greedy search.
    """

    @torch.inference_mode()
    def __init__(
        self, model: PreTrainedModel, prompts: Sequence[tuple[int, ...]], num_beams: int = 1
    ) -> None:
        model.generation_config.eos_token_id = None
        self._model = model
        self._ids = torch.tensor(prompts)
        self._num_beams = num_beams
        self._cache = DynamicCache()
        model(input_ids=self._ids[:, :-1], past_key_values=self._cache, logits_to_keep=1)
        if num_beams > 1:
            self._cache.batch_repeat_interleave(num_beams)

    @torch.inference_mode()
    def generate(self, tokens: int) -> list[tuple[int, ...]]:
        """The best completion of each prompt, ``tokens`` long."""
        paths = self._model.generate(
            self._ids,
            attention_mask=torch.ones_like(self._ids),
            past_key_values=self._cache,
            max_new_tokens=tokens,
            do_sample=False,
            num_beams=self._num_beams,
        )
        self._cache.crop(-tokens)
        return [tuple(path) for path in paths[:, self._ids.shape[1] :].tolist()]


def _pad(candidates: Sequence[tuple[int, ...]]) -> tuple[Tensor, Tensor]:
    longest = max(map(len, candidates))
    padded = torch.tensor([[*c, *[0] * (longest - len(c))] for c in candidates])
    mask = torch.tensor([[1] * len(c) + [0] * (longest - len(c)) for c in candidates])
    return padded, mask


def _sums(logits: Tensor, targets: Tensor, mask: Tensor) -> list[float]:
    logprobs = logits.log_softmax(-1).gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    sums: list[float] = (logprobs * mask).sum(-1).tolist()
    return sums
