"""Architectures that path attention refuses: what they are and what may serve them, in a line."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import transformers

from model_runtime.config import EngineConfig
from model_runtime.errors import UnsupportedModel
from model_runtime.loading.supported_models import differing_layers
from model_runtime.loading.weights import why_not_loaded
from model_runtime.runner.served_model import ModelBackend
from tests.tiny_models import TINY_VOCAB, tiny_tokenizer

_COMMON: dict[str, Any] = {"vocab_size": TINY_VOCAB, "hidden_size": 64, "pad_token_id": None}
_LAYERS = _COMMON | {
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
}
_GEMMA3N = _LAYERS | {
    "intermediate_size": 128,
    "vocab_size_per_layer_input": TINY_VOCAB,
    "hidden_size_per_layer_input": 16,
    "laurel_rank": 8,
    "activation_sparsity_pattern": [0.0] * 3,
}
_GEMMA4 = _LAYERS | {"intermediate_size": 128, "hidden_size_per_layer_input": 0}
_OTHER_KIND = "has no attention heads, so its layers are of another kind"
_LINEAR = "has layers of type linear_attention"
_OWN_ATTENTION = "has attention that does not go through transformers' AttentionInterface"

REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "gemma 3n": (
        "Gemma3nTextConfig",
        _GEMMA3N | {"num_kv_shared_layers": 0},
        "has layers that differ in intermediate_size",
    ),
    "gemma 3n, shared keys": (
        "Gemma3nTextConfig",
        _GEMMA3N
        | {
            "num_kv_shared_layers": 1,
            "layer_types": ["sliding_attention", "full_attention", "full_attention"],
        },
        "has layers that reuse the keys of others (num_kv_shared_layers is 1)",
    ),
    "gemma 4": (
        "Gemma4TextConfig",
        _GEMMA4 | {"num_kv_shared_layers": 0, "global_head_dim": 32},
        "has layers that differ in head_dim",
    ),
    "rwkv": (
        "RwkvConfig",
        _COMMON | {"attention_hidden_size": 64, "num_hidden_layers": 2, "context_length": 128},
        _OTHER_KIND,
    ),
    "xlstm": ("xLSTMConfig", _COMMON | {"num_hidden_layers": 2, "num_heads": 4}, _OTHER_KIND),
    "mamba": ("MambaConfig", _COMMON | {"num_hidden_layers": 2, "state_size": 8}, _LINEAR),
    "bloom": ("BloomConfig", _COMMON | {"n_layer": 2, "n_head": 4}, _OWN_ATTENTION),
    "mpt": (
        "MptConfig",
        {"vocab_size": TINY_VOCAB, "d_model": 64, "n_heads": 4, "n_layers": 2, "max_seq_len": 128},
        _OWN_ATTENTION,
    ),
    "falcon": (
        "FalconConfig",
        _COMMON | {"num_hidden_layers": 2, "num_attention_heads": 4},
        _OWN_ATTENTION,
    ),
}

Folder = Callable[[str], Path]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """The folder of a refused kind, with random weights; made at its first use."""
    folders: dict[str, Path] = {}

    def made(kind: str) -> Path:
        if kind not in folders:
            name, values, _ = REFUSED[kind]
            config = getattr(transformers, name, None)
            if config is None:
                pytest.skip(f"this transformers has no {name}")
            folders[kind] = tmp_path_factory.mktemp("model")
            model = transformers.AutoModelForCausalLM.from_config(config(**values))
            model.save_pretrained(folders[kind])
            tiny_tokenizer("llama").save_pretrained(folders[kind])
        return folders[kind]

    return made


def load(folder: Path, **settings: Any) -> ModelBackend:
    """Load on the CPU, as an engine does."""
    return ModelBackend.load(EngineConfig(model=str(folder), device="cpu", **settings))


@pytest.mark.parametrize("kind", REFUSED)
def test_a_refusal_is_one_plain_line(kind: str, folder: Folder) -> None:
    """The model's name, what it is, and what may serve it instead: no exception's text."""
    with pytest.raises(UnsupportedModel) as caught:
        load(folder(kind))
    reason = re.escape(REFUSED[kind][2])
    assert re.fullmatch(rf"\w+ {reason}; runner=padded may serve it", str(caught.value))


@pytest.mark.parametrize("kind", REFUSED)
def test_the_lead_is_a_good_one(kind: str, folder: Folder) -> None:
    """The padded runner serves each of them; what it asks for is what is missing."""
    try:
        assert load(folder(kind), runner="padded").info.max_model_len > 1
    except UnsupportedModel as error:
        asked = re.fullmatch(r"\w+ states no number of positions; set max_model_len", str(error))
        assert asked is not None, error
        assert load(folder(kind), runner="padded", max_model_len=100).info.max_model_len == 100


def test_an_unknown_failure_names_the_model_first(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What nobody foresaw keeps its text, behind what is known."""

    def fail(*_: object) -> None:
        raise AttributeError("no attribute\n'heads'")

    monkeypatch.setattr("model_runtime.runner.served_model.compute_reference", fail)
    kind = "falcon"
    with pytest.raises(UnsupportedModel) as caught:
        load(folder(kind), runner="padded")
    assert str(caught.value) == (
        "FalconForCausalLM is of a kind that is not known here "
        "(AttributeError: no attribute 'heads')"
    )


@pytest.mark.parametrize(
    "error",
    [
        ImportError(
            "\nTimmWrapperModel requires the timm library but it was not found here. "
            "You can install it with pip:\n`pip install timm`. Please note that you may need to "
            "restart your runtime after installation.\n"
        ),
        ModuleNotFoundError("No module named 'timm'"),
    ],
    ids=["transformers", "python"],
)
def test_a_package_that_is_missing_is_named_in_a_line(tmp_path: Path, error: ImportError) -> None:
    """Gemma 3n as published has a vision part that wants one."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gemma3n"}))
    said = why_not_loaded(tmp_path, "paths", error)
    assert said == "gemma3n needs the package timm, which is not installed"


def test_layers_that_differ_in_nothing_that_is_named() -> None:
    """Are said to differ all the same."""
    config = SimpleNamespace(is_heterogeneous=True, per_layer_attributes=set())
    said = differing_layers(config)  # type: ignore[arg-type]
    assert said == "has layers that differ in their settings"
