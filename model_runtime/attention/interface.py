"""The seam to transformers: our attention under a name in its AttentionInterface.

A name that has no entry in the mask registry gets no mask built, and the function gets the
raw query, key and value of a layer, after positions were applied, with the model's keyword
arguments. ``PathAttention`` travels as one of these.
"""

from __future__ import annotations

from torch import Tensor, nn
from transformers import AttentionInterface

from model_runtime.attention.path_attention import PathAttention
from model_runtime.errors import UnsupportedModel

ATTENTION_NAME = "chainrule_paths"


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    path_attention: PathAttention | None = None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: object,
) -> tuple[Tensor, None]:
    """Adapt one layer's call: [1, heads, N, head_dim] in, [1, N, heads, head_dim] out."""
    if attention_mask is not None or s_aux is not None:
        raise UnsupportedModel(f"{type(module).__name__} needs a mask or attention sinks")
    if path_attention is None:
        raise UnsupportedModel(f"{type(module).__name__} is not handed the decoder's keywords")
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    if layer in path_attention.layers:
        # The second values would take the cache's place of the first.
        raise UnsupportedModel(f"{type(module).__name__} attends twice in a layer")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    output = path_attention.attend(
        layer, query[0], key[0], value[0], scale, sliding_window, softcap
    )
    return output.unsqueeze(0), None


AttentionInterface.register(ATTENTION_NAME, _attend)
