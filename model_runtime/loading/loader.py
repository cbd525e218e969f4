"""Weights, tokenizer and description of the model that is served.

Only safetensors are read and no code that comes with a model is run.
"""

from __future__ import annotations

import io
import logging
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GgufConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from model_runtime.config import EngineConfig
from model_runtime.errors import ModelLoadError, UnsupportedModel
from model_runtime.loading import builtin as builtin_model
from model_runtime.loading.files import check_folder, content_digest, float32_bytes
from model_runtime.loading.fingerprint import torch_fingerprint
from model_runtime.loading.library_logs import adopt_library_logs, progress_bars
from model_runtime.loading.source import default_name, resolve
from model_runtime.loading.warnings import load_warnings
from model_runtime.loading.weights import check_class, load_weights
from model_runtime.memory.available import AvailableMemory
from model_runtime.tokenization.tokenizer import Tokenizer
from model_runtime.types import ModelInfo

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model ready to run: evaluation mode, no gradients, on its device.

    Attributes:
        content: digest of its folder.
    """

    model: PreTrainedModel
    tokenizer: Tokenizer
    info: ModelInfo
    content: str


def load_model(
    config: EngineConfig,
    attn_implementation: str = "eager",
    check: Callable[[PreTrainedModel], None] = lambda model: None,
) -> LoadedModel:
    """Load the model that ``config`` names, fetching it first where that is needed.

    Args:
        config: what to load, in which precision, onto which device.
        attn_implementation: a name in transformers' ``AttentionInterface``.
        check: refuses a model that was loaded, before anything else is asked of it.

    Raises:
        ModelLoadError: one of its kinds, in one line.
    """
    adopt_library_logs()
    folder = resolve(config, dequantize)
    check_folder(folder)
    check_class(folder)
    device = _device(config)
    if device == "cpu":
        _check_room(folder)
    dtype = _dtype(config, device)
    model = _model_on_device(config, folder, device, attn_implementation, check)
    head_rows = int(model.get_output_embeddings().weight.shape[0])
    tokenizer = Tokenizer.load(folder, head_rows=head_rows)
    end_token_ids = _end_token_ids(model, tokenizer)
    warnings = load_warnings(folder, model, tokenizer, end_token_ids)
    for warning in warnings:
        logger.warning(warning)
    content = content_digest(folder)
    info = ModelInfo(
        name=config.served_name or default_name(config),
        fingerprint=torch_fingerprint(content, dtype, device, attn_implementation),
        architecture=type(model).__name__,
        dtype=dtype,
        device=device,
        vocab_size=head_rows,
        max_model_len=_max_model_len(model.config, config.max_model_len),
        bos_token_id=tokenizer.bos_token_id,
        end_token_ids=end_token_ids,
        parameters=sum(weight.numel() for weight in model.parameters()),
        created=int(time.time()),
        folder=str(folder),
        warnings=warnings,
    )
    return LoadedModel(model, tokenizer, info, content)


def _model_on_device(
    config: EngineConfig,
    folder: Path,
    device: str,
    attn_implementation: str,
    check: Callable[[PreTrainedModel], None],
) -> PreTrainedModel:
    """The model on its device, loaded with as many threads as it will compute with."""
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    model = load_weights(folder, attn_implementation)
    check(model)
    return _place(model, device)


def fetch_model(alias: str, cache_dir: Path | None = None, *, progress: bool = True) -> Path:
    """The folder of a built-in model, fetched and converted where it is not there yet.

    Raises:
        ModelLoadError: one of its kinds, in one line.
    """
    adopt_library_logs()
    return builtin_model.fetch(alias, cache_dir, dequantize, progress=progress)


def dequantize(gguf_file: Path, folder: Path, *, progress: bool) -> None:
    """Write the values of a byte-level GGUF model of the SmolLM family as bfloat16 safetensors.

    The checkpoint was published in bfloat16 and quantized from there. Each quantized value is
    computed in float32, as the format defines it, and rounded to the nearest bfloat16.

    The GGUF format names its pre-tokenizer ("smollm") instead of describing it, and transformers
    does not know that name: it falls back to GPT-2's, which glues a space to a following digit
    and so splits runs of spaces before numbers differently. The tokenizer that the model was
    trained with cuts every digit off first, so that step is put back here.
    """
    source = {"pretrained_model_name_or_path": gguf_file.parent, "gguf_file": gguf_file.name}
    shown = progress and sys.stderr.isatty()
    # one of the bars does not ask the switch, so standard error is turned away as well
    with progress_bars(shown=shown), redirect_stderr(sys.stderr if shown else io.StringIO()):
        # each class by itself and the config handed on: every "auto" step reads the file again
        tokenizer = PreTrainedTokenizerFast.from_pretrained(**source)
        tokenizer.backend_tokenizer.pre_tokenizer = Sequence(
            [Digits(individual_digits=True), ByteLevel(add_prefix_space=False)]
        )
        model = AutoModelForCausalLM.from_pretrained(
            **source,
            config=AutoConfig.from_pretrained(**source),
            dtype=torch.float32,
            quantization_config=GgufConfig(dequantize=True),
        )
        tokenizer.save_pretrained(folder)
        model.to(torch.bfloat16).save_pretrained(folder)  # tensor by tensor: no second copy of all


def _device(config: EngineConfig) -> str:
    if config.device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if config.device == "cuda" and not torch.cuda.is_available():
        raise UnsupportedModel("device is cuda, but torch finds no CUDA device here")
    return config.device


def _dtype(config: EngineConfig, device: str) -> str:
    """The precision of the products, where the setting leaves it open by what the device has."""
    has_bfloat16 = device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    if config.dtype == "auto":
        return "bfloat16" if has_bfloat16 else "float32"
    if config.dtype == "bfloat16" and device == "cuda" and not has_bfloat16:
        raise UnsupportedModel(
            f"dtype is bfloat16, which {torch.cuda.get_device_name()} lacks; float32 is served"
        )
    return config.dtype


def _check_room(folder: Path) -> None:
    """Refuse weights that end the process while they are read."""
    total, weights = AvailableMemory().total, float32_bytes(folder)
    if total is not None and weights > total:
        raise ModelLoadError(
            f"the weights take {weights >> 20} MiB in float32; this process may take {total >> 20}"
        )


def _place(model: PreTrainedModel, device: str) -> PreTrainedModel:
    try:
        return model.to(device)
    except torch.OutOfMemoryError as error:
        raise ModelLoadError(f"the weights do not fit into the memory of {device}") from error


def _max_model_len(config: PreTrainedConfig, limit: int | None) -> int:
    text_config = config.get_text_config()
    positions = getattr(text_config, "max_position_embeddings", None)
    stated = [n for n in (positions, limit) if isinstance(n, int)]
    if not stated:
        raise UnsupportedModel(
            f"{text_config.model_type} states no number of positions; set max_model_len"
        )
    return min(stated)


def _end_token_ids(model: PreTrainedModel, tokenizer: Tokenizer) -> tuple[int, ...]:
    """Ids that end a completion: the generation config's, else the config's, else EOS."""
    stated = model.generation_config.eos_token_id
    if stated is None:
        stated = getattr(model.config.get_text_config(), "eos_token_id", None)
    if stated is None:
        stated = tokenizer.eos_token_id
    ids = stated if isinstance(stated, list) else [] if stated is None else [stated]
    return tuple(dict.fromkeys(id for id in ids if 0 <= id < tokenizer.head_rows))
