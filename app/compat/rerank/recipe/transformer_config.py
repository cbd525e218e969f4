"""sentence_bert_config.json: how two texts are put to the model, and in how many tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from app.compat.rerank.recipe.errors import RecipeError
from app.compat.rerank.recipe.json_file import JsonObject

MessageFormat = Literal["flat", "structured", "auto"]

TASK: Final = "text-generation"
LOGITS: Final = "causal_logits"

_KNOWN: Final = (
    *("transformer_task", "modality_config", "module_output_name", "processing_kwargs"),
    *("max_seq_length", "do_lower_case"),
    *("processor_kwargs", "tokenizer_args", "model_kwargs", "model_args"),
    *("config_kwargs", "config_args"),
    # These are about texts that are encoded one by one, and about memory.
    *("query_length", "document_length", "query_expansion", "unpad_inputs"),
)
_LOADING: Final = {"attn_implementation", "dtype", "torch_dtype", "device_map", "use_cache"}
"""Of the model: how it computes, which the server's settings say, and not what."""

_SIZES: Final = {
    *("max_length", "truncation", "padding", "padding_side", "pad_to_multiple_of"),
    *("return_tensors", "logits_to_keep"),
}
_SUFFIX: Final = "restore_suffix"
_RESERVED: Final = {
    *("conversation", "tokenize", "return_dict", "tokenizer_kwargs"),
    *("return_assistant_tokens_mask", "sanitize_control_tokens"),
}


@dataclass(frozen=True, slots=True)
class TransformerConfig:
    """What it says.

    Attributes:
        messages: how a message holds its text; None where the two texts are encoded as a pair,
            without the chat template.
        options: what the chat template is given.
        max_tokens: of a prompt; None for the tokenizer's own limit.
        unbounded: nothing is to be cut at all.
    """

    messages: MessageFormat | None = "auto"
    options: Mapping[str, Any] = field(default_factory=dict)
    max_tokens: int | None = None
    unbounded: bool = False


def read_transformer_config(config: JsonObject) -> TransformerConfig:
    """What the file says, of a folder that has modules.json beside it.

    Raises:
        RecipeError: it asks for something that is not served here, or is not known.
    """
    config.check_keys(_KNOWN)
    task = config.text("transformer_task")
    if task != TASK:
        raise config.refuse("transformer_task", f"it is {task}, and only {TASK} is served")
    if config.values.get("do_lower_case"):
        raise config.refuse("do_lower_case", "texts are not put into lower case here")
    _check_loading(config)
    processing = config.object("processing_kwargs")
    processing.check_keys({"common", "text", "chat_template", "image", "audio", "video"})
    for name in ("common", "text"):
        processing.object(name).check_keys(_SIZES)
    options = processing.object("chat_template")
    for key in sorted(_RESERVED & options.values.keys()):
        raise options.refuse(key, "it is not known here")
    stated, unbounded = _limit(config, processing)
    return TransformerConfig(
        _message_format(config),
        {k: v for k, v in options.values.items() if k not in _SIZES and k != _SUFFIX},
        stated,
        unbounded,
    )


def _check_loading(config: JsonObject) -> None:
    for name in ("processor_kwargs", "tokenizer_args"):
        config.object(name).check_keys({"model_max_length", "padding_side"})
    for name in ("model_kwargs", "model_args", "config_kwargs", "config_args"):
        config.object(name).check_keys(_LOADING)


def _message_format(config: JsonObject) -> MessageFormat | None:
    modalities = config.object("modality_config")
    if not modalities.values:
        return None
    output = config.text("module_output_name")
    if output != LOGITS:
        raise config.refuse("module_output_name", f"it is {output}, and {LOGITS} is served")
    used = "message" if "message" in modalities.values else "text"
    modality = modalities.object(used)
    modality.check_keys({"method", "method_output_name", "format"})
    if modality.text("method") != "forward":
        raise modality.refuse("method", "forward is served")
    if modality.values.get("method_output_name") not in ("logits", ["logits"]):
        raise modality.refuse("method_output_name", "logits is served")
    if used == "text":
        return None
    found = modality.text("format") or "auto"
    if found not in ("flat", "structured", "auto"):
        raise modality.refuse("format", f"it is {found}; there are flat, structured and auto")
    return found  # type: ignore[return-value]  # one of the three


def _limit(config: JsonObject, processing: JsonObject) -> tuple[int | None, bool]:
    """Tokens of a prompt at most, where the file says so; and whether nothing is to be cut."""
    places = [processing.object(name) for name in ("chat_template", "text", "common")]
    stated = next((p.values["truncation"] for p in places if "truncation" in p.values), True)
    if stated in (False, "do_not_truncate"):
        return None, True
    if stated not in (True, None, "longest_first"):
        raise RecipeError(f"{processing.name}: truncation is {stated}, and longest_first is served")
    loading = [config.object(name) for name in ("processor_kwargs", "tokenizer_args")]
    limits = [
        *(place.number("max_length") for place in places),
        *(place.number("model_max_length") for place in loading),
        config.number("max_seq_length"),
    ]
    return next((limit for limit in limits if limit), None), False
