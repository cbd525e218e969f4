"""The slow, plain runner, for architectures that path attention refuses.

One token path is one forward of the unmodified transformers model, from its first token on:

    path     x0 x1 x2 y0 y1          fed whole, alone, without a mask of ours
    logits    .  .  r3 r4 r5         the asked rows, reduced as everywhere

No cache, no merging, and, though the setting says ``padded``, no padding: recurrent layers would
take padding in, and experts would be given it. So each forward holds one path, and its bits do not
depend on other requests. They do depend on the length that is fed and on the rows that are asked:
a path and its continuation agree within rounding only, and every step of a decode computes its
whole path again. Used only where the operator asks for it.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from model_runtime.batching.batch import Batch, BatchOutput, QueryProgress
from model_runtime.batching.planner import plan
from model_runtime.errors import OutOfMemory, UnsupportedModel
from model_runtime.kv_cache.null_cache import NullPrefixCache
from model_runtime.logprobs.reduce import reduce_head_rows

PROBE_TOKENS = 160
"""Length of the path that start-up looks at for a model that sees what comes next."""

LARGEST_LEAK = 0.01
"""In nats, between rows of two paths that differ only after them. More than that is no rounding:
the rows depend on later tokens."""


class UnbatchedModelRunner:
    """A transformers causal LM as it is, one path at a time."""

    def __init__(self, model: PreTrainedModel, longest_path: int) -> None:
        """Take over a model.

        Args:
            model: in float32 and evaluation mode, with any attention of transformers' own.
            longest_path: tokens of a path at most.

        Raises:
            UnsupportedModel: it cannot run a plain forward, or its rows see later tokens.
        """
        self.cache = NullPrefixCache(longest_path)
        self._model = model
        self._name = type(model).__name__
        self._keeps_logits = "logits_to_keep" in inspect.signature(model.forward).parameters
        self._check_causal(min(PROBE_TOKENS, longest_path))

    def plan(self, work: Sequence[QueryProgress], budget: int) -> Batch:
        """The first piece of work, whole: a path is never cut, whatever the budget is.

        Rows before its ``next_row`` are computed again and not answered again.
        """
        return plan(work[:1], self.cache, self.cache.capacity)

    @torch.inference_mode()
    def run(self, batch: Batch) -> BatchOutput:
        """Compute a batch of ``plan``.

        Raises:
            OutOfMemory: the path does not fit the device beside what is there.
        """
        if list(batch.positions) != list(range(len(batch.token_ids))):
            raise RuntimeError("the batch is not one whole path; this is a bug")
        try:
            first = min(batch.head_rows)
            logits = self._logits(batch.token_ids, first)
            rows = torch.tensor(batch.head_rows, device=logits.device) - first
            return reduce_head_rows(logits[rows], _already_logits, batch, logits.shape[1])
        except torch.cuda.OutOfMemoryError as error:
            raise OutOfMemory(f"a path of {len(batch.token_ids)} tokens is too large") from error

    def _logits(self, tokens: Sequence[int], first: int) -> Tensor:
        """[len(tokens) - first, vocab] of the rows from ``first`` on."""
        count = len(tokens) - first
        keep = {"logits_to_keep": count} if self._keeps_logits else {}
        ids = torch.tensor([list(tokens)], device=self._model.device)
        logits: Tensor = self._model(input_ids=ids, use_cache=False, **keep).logits[0]
        return logits[-count:].float()

    @torch.inference_mode()
    def _check_causal(self, length: int) -> None:
        """Refuse a model whose rows depend on later tokens."""
        vocab = self._model.config.get_text_config().vocab_size
        path = [31 * i % vocab for i in range(length)]
        parting = max(1, length // 2)
        other = path[:parting] + [(token + 1) % vocab for token in path[parting:]]
        try:
            one, two = (self._logits(tokens, 0)[:parting] for tokens in (path, other))
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise UnsupportedModel(f"{self._name} cannot run a plain forward: {reason}") from error
        if one.shape[0] != parting:
            raise UnsupportedModel(f"{self._name} gives {one.shape[0]} rows for {parting} tokens")
        leak = float((one.log_softmax(-1) - two.log_softmax(-1)).abs().max())
        if not leak <= LARGEST_LEAK:
            raise UnsupportedModel(
                f"{self._name} is not causal: a token changes rows before it by {leak:.2g} nats"
            )


def _already_logits(logits: Tensor) -> Tensor:
    return logits
