"""What is said of a model when it is set up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from model_runtime.batching.batch import Batch
from model_runtime.config import EngineConfig
from model_runtime.decoder.native_decoder import NativeDecoder
from model_runtime.errors import UnsupportedModel
from model_runtime.native import library
from model_runtime.native.library import NOT_BUILT, InstructionSet
from model_runtime.runner import choose_runner
from model_runtime.runner.served_model import ModelBackend
from tests.conftest import TinyFolder


@pytest.fixture(autouse=True)
def _no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """None was there when the package was installed."""
    monkeypatch.setattr(choose_runner, "why_unavailable", lambda: NOT_BUILT)


def config(folder: object, **settings: Any) -> EngineConfig:
    return EngineConfig(model=str(folder), device="cpu", kv_cache_bytes=1 << 20, **settings)


@pytest.mark.parametrize(
    ("settings", "reason", "warnings"),
    [
        ({}, NOT_BUILT, 1),
        ({"dtype": "bfloat16"}, NOT_BUILT, 1),
        ({"runner": "padded"}, "runner is padded", 0),
        ({"runner": "padded", "kernels": "torch"}, None, 0),
        ({"kernels": "torch"}, None, 0),
    ],
    ids=["auto", "bfloat16", "padded", "padded torch", "torch"],
)
def test_a_missing_library_is_warned_of(
    settings: dict[str, Any],
    reason: str | None,
    warnings: int,
    tiny_folder: TinyFolder,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Once, and only where a compiler at the install would have helped."""
    if "dtype" in settings and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("this CPU has no bfloat16 products")
    info = ModelBackend.load(config(tiny_folder("llama"), **settings)).info
    assert (info.kernels, info.kernels_reason) == ("torch", reason)
    assert sum(NOT_BUILT in record.getMessage() for record in caplog.records) == warnings


def test_a_missing_library_is_refused_where_it_is_asked_for(tiny_folder: TinyFolder) -> None:
    """With the reason."""
    with pytest.raises(UnsupportedModel, match=f"kernels is native, but {NOT_BUILT}"):
        ModelBackend.load(config(tiny_folder("llama"), kernels="native"))


needs_library = pytest.mark.skipif(not library.available(), reason="the kernels were not built")


@needs_library
def test_a_processor_that_the_kernels_are_slow_on_is_served_by_torch(
    tiny_folder: TinyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless native kernels are asked for."""
    monkeypatch.setattr(choose_runner, "why_unavailable", lambda: None)
    monkeypatch.setattr(choose_runner, "best_instruction_set", lambda: InstructionSet.PORTABLE)
    info = ModelBackend.load(config(tiny_folder("llama"))).info
    assert info.kernels == "torch" and "AVX2" in str(info.kernels_reason)
    assert (
        ModelBackend.load(config(tiny_folder("llama"), kernels="native")).info.kernels == "native"
    )


@needs_library
def test_kernels_that_differ_from_the_reference_do_not_serve(
    tiny_folder: TinyFolder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A model that is described wrongly is loaded again, for torch; asked for, it is refused."""
    monkeypatch.setattr(choose_runner, "why_unavailable", lambda: None)
    forward = NativeDecoder.forward

    def wrong(decoder: NativeDecoder, batch: Batch, progress: Callable[[], None]) -> Any:
        x, bad = forward(decoder, batch, progress)
        return x.roll(1, 0), bad

    monkeypatch.setattr(NativeDecoder, "forward", wrong)
    info = ModelBackend.load(config(tiny_folder("llama"))).info
    assert info.kernels == "torch" and "differs from transformers' own" in str(info.kernels_reason)
    assert any("differs" in record.getMessage() for record in caplog.records)
    with pytest.raises(UnsupportedModel, match="kernels is native, but"):
        ModelBackend.load(config(tiny_folder("llama"), kernels="native"))
