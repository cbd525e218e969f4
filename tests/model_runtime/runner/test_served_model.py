"""What is said of a model when it is set up."""

from __future__ import annotations

from typing import Any

import pytest

from model_runtime.config import EngineConfig
from model_runtime.errors import UnsupportedModel
from model_runtime.native.library import NOT_BUILT
from model_runtime.runner import choose_runner
from model_runtime.runner.served_model import ModelBackend
from tests.conftest import TinyFolder


@pytest.fixture(autouse=True)
def _no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """None was there when the package was installed."""
    monkeypatch.setattr(choose_runner, "available", lambda: False)


def config(folder: object, **settings: Any) -> EngineConfig:
    return EngineConfig(model=str(folder), device="cpu", kv_cache_bytes=1 << 20, **settings)


@pytest.mark.parametrize(
    ("settings", "reason", "warnings"),
    [
        ({}, NOT_BUILT, 1),
        ({"dtype": "bfloat16"}, "dtype is bfloat16", 0),
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
    info = ModelBackend.load(config(tiny_folder("llama"), **settings)).info
    assert (info.kernels, info.kernels_reason) == ("torch", reason)
    assert sum(NOT_BUILT in record.getMessage() for record in caplog.records) == warnings


def test_a_missing_library_is_refused_where_it_is_asked_for(tiny_folder: TinyFolder) -> None:
    """With the reason."""
    with pytest.raises(UnsupportedModel, match=f"kernels is native, but {NOT_BUILT}"):
        ModelBackend.load(config(tiny_folder("llama"), kernels="native"))
