"""What is said of a model when it is set up."""

from __future__ import annotations

from dataclasses import replace

import pytest

from model_runtime.config import EngineConfig
from model_runtime.loading import loader
from model_runtime.loading.loader import LoadedModel
from model_runtime.native.library import NOT_BUILT
from model_runtime.runner import served_model
from model_runtime.runner.served_model import ModelBackend
from tests.conftest import TinyFolder


@pytest.mark.parametrize(("reason", "warned"), [(NOT_BUILT, 1), ("the device is cuda", 0)])
def test_a_missing_library_is_warned_of(
    reason: str,
    warned: int,
    tiny_folder: TinyFolder,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Once, and only where a compiler at the install would have helped."""

    def load(*args: object) -> LoadedModel:
        loaded = loader.load_model(*args)  # type: ignore[arg-type]
        return replace(loaded, info=replace(loaded.info, kernels_reason=reason))

    monkeypatch.setattr(served_model, "load_model", load)
    config = EngineConfig(
        model=str(tiny_folder("llama")), device="cpu", kernels="torch", kv_cache_bytes=1 << 20
    )
    assert ModelBackend.load(config).info.kernels_reason == reason
    assert sum(NOT_BUILT in record.getMessage() for record in caplog.records) == warned
