"""The weights of a model folder as transformers' class of that name: all of them, and no others."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoModelForCausalLM,
    PreTrainedModel,
)

from model_runtime.errors import CorruptModel, UnsupportedModel
from model_runtime.loading.library_logs import progress_bars
from model_runtime.loading.supported_models import TRY_PADDED
from model_runtime.tokenization.folder_json import read_object

_LEFTOVERS = re.compile(
    r"rotary_emb\.inv_freq$"  # a table that is computed from the config
    r"|(^|\.)position_ids$"
    r"|\.(attn|attention)\.((masked_)?bias|causal_mask)$"  # causal masks, once stored as buffers
    r"|(^|\.)mtp\."  # heads that predict more than the next token
)
"""Tensors without a part in next-token scores, beside those that a class itself ignores."""


def check_class(folder: Path) -> None:
    """Refuse a class that exists only as code in the folder, or elsewhere on the hub.

    Raises:
        UnsupportedModel: the class by name.
    """
    config = read_object(folder / "config.json")
    if "auto_map" not in config:
        return
    kind, names = config.get("model_type"), config.get("architectures") or []
    native = None
    if isinstance(kind, str) and kind in CONFIG_MAPPING:
        native = MODEL_FOR_CAUSAL_LM_MAPPING.get(CONFIG_MAPPING[kind], None)
    # a known kind under another class's name: what that class computes is in its code alone
    foreign = [name for name in names if not hasattr(transformers, str(name))]
    if native is None or foreign:
        name = ", ".join(map(str, foreign or names)) or kind
        raise UnsupportedModel(f"{name} exists only as code of its own (auto_map), never run here")


def load_weights(folder: Path, attention: str) -> PreTrainedModel:
    """The model in float32, evaluation mode and without gradients, on the CPU.

    Args:
        folder: a checked model folder.
        attention: a name in transformers' ``AttentionInterface``.

    Raises:
        CorruptModel: tensors are missing or have another shape than the config says.
        UnsupportedModel: the class cannot be loaded, or the file has tensors of another one.
    """
    try:
        with progress_bars(shown=False):
            model, report = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=torch.float32,
                attn_implementation=attention,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                ignore_mismatched_sizes=True,  # the report names them, and they are refused
                output_loading_info=True,
            )
    except (SafetensorError, RuntimeError) as error:
        raise CorruptModel(f"the weights do not fit the config: {_one_line(error)}") from error
    except (ValueError, TypeError, KeyError, AttributeError, ImportError, OSError) as error:
        raise UnsupportedModel(why_not_loaded(folder, attention, error)) from error
    _check_report(model, report)
    model.requires_grad_(False)
    return model.eval()


def _check_report(model: PreTrainedModel, report: dict[str, Any]) -> None:
    """Refuse what transformers would fill with random numbers, or drop."""
    for name, stored, wanted in sorted(report["mismatched_keys"]):
        raise CorruptModel(
            f"the weights do not fit the config: {name} is {list(stored)} instead of {list(wanted)}"
        )
    absent = sorted(report["missing_keys"])
    if absent:
        raise CorruptModel(f"{len(absent)} weights are missing, the first is {absent[0]}")
    unknown = sorted(name for name in report["unexpected_keys"] if not _LEFTOVERS.search(name))
    if unknown:
        made_for = ", ".join(model.config.architectures or ["no class"])
        raise UnsupportedModel(
            f"tensors that {type(model).__name__} has no place for: {len(unknown)}, the first is "
            f"{unknown[0]}; the config names {made_for}"
        )


def why_not_loaded(folder: Path, attention: str, error: Exception) -> str:
    """In one plain line, why transformers could not load a folder with this attention."""
    if error.args == (attention,):  # a table of attention classes that lacks this name
        kind = read_object(folder / "config.json").get("model_type")
        own = "attention that does not go through transformers' AttentionInterface"
        return f"{kind} has {own}; {TRY_PADDED}"
    if isinstance(error, ImportError):
        # transformers says at length how to install it, and to restart a notebook.
        package = re.search(r"requires the (\S+) library|No module named '([\w.]+)'", str(error))
        if package is not None:
            kind = read_object(folder / "config.json").get("model_type")
            return f"{kind} needs the package {package[1] or package[2]}, which is not installed"
    return f"transformers cannot load it: {_one_line(error)}"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
