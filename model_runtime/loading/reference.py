"""The oracle and specification: one sequence, one plain forward, no batching, no cache."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel


class _InDouble(TorchFunctionMode):
    """Model code casts norms and softmax to float32 by name; here that means float64."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        func = Tensor.double if func is Tensor.float else func
        args = [_double(arg) for arg in args]
        return func(*args, **{name: _double(arg) for name, arg in (kwargs or {}).items()})


def _double(arg: Any) -> Any:
    return torch.float64 if arg is torch.float32 else arg


@torch.inference_mode()
def reference_logprobs(model: PreTrainedModel, tokens: Sequence[int]) -> Tensor:
    """[len(tokens), vocab] log-probabilities; row t is the distribution of token t + 1.

    ``model`` runs eager attention. Where it is in float64, so is every step of the forward.
    """
    ids = torch.tensor([list(tokens)], device=model.device)
    double = model.dtype == torch.float64
    with _InDouble() if double else nullcontext():
        logits = model(input_ids=ids, use_cache=False).logits[0]
    return torch.log_softmax(logits if double else logits.float(), dim=-1)
