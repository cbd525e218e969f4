"""How an engine is set up. Frozen; ``app.settings`` fills it from flags and environment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Everything an ``Engine`` needs to know.

    Attributes:
        model: local folder, hub id, or a built-in alias such as ``smollm2-135m-instruct``.
        revision: pinned hub revision; only for hub ids.
        served_name: the name clients use; by default the alias, hub id or folder name.
        dtype: of the decoder's matrix products, ``float32`` (exact) or ``bfloat16``. Head,
            softmax, norms and residual are float32 in both. ``auto`` is bfloat16 on a CUDA
            device that has it, else float32; ``ModelInfo.dtype`` says which it became.
        device: ``cpu`` or ``cuda``; ``auto`` takes CUDA where there is one.
        threads: torch's intra-op threads; None leaves torch's choice.
        cache_dir: where fetched models are kept; None is ``~/.cache/chainrule``, and for hub ids
            the hub's own cache.
        runner: ``paths`` computes every distinct token path once, with a prefix cache.
            ``padded`` runs the unmodified model on one whole path at a time, in float32: for
            architectures that ``paths`` refuses, and many times slower.
        kernels: what computes a forward: ``native`` is the library that was compiled with the
            package, and nothing is served where it cannot be; ``torch`` is torch's kernels.
            ``auto`` is native where the library is there, the device is a CPU and the model one
            that it knows; else torch. ``ModelInfo.kernels`` says which it became. In bfloat16 the
            decoder's products are torch's in any case.
        max_model_len: lowers the model's own limit on tokens in a path; states it for a model
            that has none.
        max_batch_tokens: tokens fed to one forward at most; longer paths are chunked.
        max_queue_tokens: tokens admitted and unfinished at most; beyond it, overload. 32 asked
            rows count as one token more.
        kv_cache_bytes: bytes for keys and values; the prefix cache lives in them. Answers that are
            kept with them take a sixteenth more at most.
        watchdog_timeout_s: seconds without a step of the model thread, as in a forward that hangs,
            after which the engine counts as dead; 0 for never.
    """

    model: str = "smollm2-135m-instruct"
    revision: str | None = None
    served_name: str | None = None
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    runner: Literal["paths", "padded"] = "paths"
    kernels: Literal["auto", "native", "torch"] = "auto"
    threads: int | None = None
    cache_dir: Path | None = None
    max_model_len: int | None = None
    max_batch_tokens: int = 4096
    max_queue_tokens: int = 65_536
    kv_cache_bytes: int = 2 << 30
    watchdog_timeout_s: float = 120.0
