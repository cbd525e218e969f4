"""Which models path attention serves; of the others, in plain words, why it does not."""

from __future__ import annotations

import inspect
import json
import sys

from transformers import PreTrainedConfig, PreTrainedModel

from model_runtime.errors import UnsupportedModel

TRY_PADDED = "runner=padded may serve it"
"""What every refusal of path attention ends with."""

_LAYER_TYPES = frozenset({"full_attention", "sliding_attention"})
_SCALED_LOGITS = ("logit_scale", "logits_scaling", "lm_head_multiplier")
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")


def check_supported(model: PreTrainedModel) -> None:
    """Refuse what path attention cannot serve.

    Raises:
        UnsupportedModel: the architecture by name, the reason, and what may serve it.
    """
    config = model.config.get_text_config()
    # Of such a config a setting that layers differ in cannot be read at all, so this comes first.
    reason = differing_layers(config) or next(
        filter(None, (check(model, config) for check in _CHECKS)), None
    )
    if reason is not None:
        raise UnsupportedModel(f"{type(model).__name__} {reason}; {TRY_PADDED}")


def differing_layers(config: PreTrainedConfig) -> str | None:
    """Gemma 4: its full layers have wider heads, and fewer of keys and values."""
    if not getattr(config, "is_heterogeneous", False):
        return None
    differing = sorted(config.per_layer_attributes)
    return f"has layers that differ in {', '.join(differing) or 'their settings'}"


def _other_layers(_model: PreTrainedModel, config: PreTrainedConfig) -> str | None:
    """Recurrences and convolutions: Mamba, RWKV, LFM2, the hybrids."""
    others = set(getattr(config, "layer_types", None) or ()) - _LAYER_TYPES
    if others:
        return f"has layers of type {', '.join(sorted(others))}"
    if getattr(config, "num_attention_heads", None) is None:
        return "has no attention heads, so its layers are of another kind"
    return None


def _shared_keys(_model: PreTrainedModel, config: PreTrainedConfig) -> str | None:
    """Gemma 3n: its last layers have no keys of their own, and each layer states its width."""
    shared = getattr(config, "num_kv_shared_layers", None)
    if shared:
        return f"has layers that reuse the keys of others (num_kv_shared_layers is {shared})"
    if isinstance(getattr(config, "intermediate_size", None), list):
        return "has layers that differ in intermediate_size"
    return None


def _own_attention(model: PreTrainedModel, _config: PreTrainedConfig) -> str | None:
    """BLOOM, MPT: attention, most often with ALiBi, that nothing can be put in place of."""
    module = sys.modules[type(model).__module__]
    if model._supports_attention_backend or hasattr(module, "ALL_ATTENTION_FUNCTIONS"):
        return None
    return "has attention that does not go through transformers' AttentionInterface"


def _scaled_logits(_model: PreTrainedModel, config: PreTrainedConfig) -> str | None:
    for setting in _SCALED_LOGITS:
        if getattr(config, setting, None) not in (None, 1, 1.0):
            return f"scales its logits by {setting}"
    return None


def _experts(model: PreTrainedModel, config: PreTrainedConfig) -> str | None:
    """By the config's usual names for their number, or by the layers' own names."""
    layers = (name.lower() for name, _ in model.named_modules())
    if any(getattr(config, name, None) for name in _EXPERTS) or any(
        "expert" in layer for layer in layers
    ):
        return "routes tokens to experts, whose products are not served"
    return None


def _longrope(_model: PreTrainedModel, config: PreTrainedConfig) -> str | None:
    if "longrope" in json.dumps(getattr(config, "rope_parameters", None), default=str):
        # Its factors depend on the longest position in the batch, so on the neighbours.
        return "scales its positions by longrope"
    return None


def _other_calls(model: PreTrainedModel, config: PreTrainedConfig) -> str | None:
    if config.is_encoder_decoder:
        return "is an encoder-decoder; only causal decoders are served"
    parameters = inspect.signature(model.base_model.forward).parameters.values()
    if not any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        return "does not hand keyword arguments to its attention"
    return None


_CHECKS = (
    _other_layers,
    _shared_keys,
    _own_attention,
    _scaled_logits,
    _experts,
    _longrope,
    _other_calls,
)
