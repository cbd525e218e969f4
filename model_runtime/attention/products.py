"""Attention as plain products: for capped scores, which no fused kernel knows, on any device."""

from __future__ import annotations

from torch import Tensor


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scaling: float,
    softcap: float | None,
) -> tuple[Tensor, Tensor]:
    """Attention and the log-sum-exp of its scores; shapes as in ``paths.Kernel``."""
    if softcap is None:
        scores = (query * scaling) @ key.transpose(2, 3)
    else:
        scores = (query * (scaling / softcap)) @ key.transpose(2, 3)
        scores.tanh_().mul_(softcap)
    if mask is not None:
        scores.add_(mask)
    peak = scores.amax(-1, keepdim=True)
    weights = scores.sub_(peak).exp_()
    total = weights.sum(-1, keepdim=True)
    output = (weights @ value).div_(total)
    return output, total.log_().add_(peak).squeeze(-1)
