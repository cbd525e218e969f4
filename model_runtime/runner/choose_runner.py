"""Which runner serves a model: the native kernels' where they can, else torch's."""

from __future__ import annotations

from model_runtime.config import EngineConfig
from model_runtime.decoder.description import NotDescribed
from model_runtime.decoder.from_transformers import describe
from model_runtime.errors import UnsupportedModel
from model_runtime.loading.loader import LoadedModel
from model_runtime.native.library import (
    InstructionSet,
    best_instruction_set,
    why_unavailable,
)
from model_runtime.runner.model_runner import DTYPES, ModelRunner
from model_runtime.runner.native_runner import NativeModelRunner


def choose_runner(
    loaded: LoadedModel, config: EngineConfig
) -> tuple[ModelRunner | NativeModelRunner, str | None]:
    """The runner, which takes the model over, and why it is torch's where that was left open.

    Raises:
        UnsupportedModel: no runner serves the model, or not the one that was asked for.
    """
    if config.kernels == "torch":
        return _torch_runner(loaded, config), None
    try:
        if loaded.info.device != "cpu":
            raise NotDescribed(f"device is {loaded.info.device}")
        reason = why_unavailable()
        if reason is not None:
            describe(loaded.model)  # what is not known would not run with the library either
        elif config.kernels == "auto" and best_instruction_set() is InstructionSet.PORTABLE:
            reason = "this processor has neither AVX2 nor AVX-512"
        else:
            dtype = DTYPES[loaded.info.dtype]
            return NativeModelRunner(loaded.model, config.kv_cache_bytes, dtype), None
    except NotDescribed as unknown:
        reason = str(unknown)
    if config.kernels == "native":
        raise UnsupportedModel(f"kernels is native, but {reason}")
    return _torch_runner(loaded, config), reason


def _torch_runner(loaded: LoadedModel, config: EngineConfig) -> ModelRunner:
    return ModelRunner(loaded.model, config.kv_cache_bytes, DTYPES[loaded.info.dtype])
