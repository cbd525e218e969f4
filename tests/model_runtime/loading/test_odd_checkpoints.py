"""Folders that transformers loads with a shrug: refused by name, or served with a word about it."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import LlamaForSequenceClassification

from model_runtime.config import EngineConfig
from model_runtime.errors import CorruptModel, ModelLoadError, UnsupportedModel
from model_runtime.loading.loader import LoadedModel, load_model
from tests.conftest import TinyFolder
from tests.tiny_models import CORE_KINDS, tiny_config, tiny_model

WEIGHTS = "model.safetensors"
BIAS = "model.layers.1.self_attn.q_proj.bias"

Spoilt = Callable[..., Path]


@pytest.fixture
def spoilt(tiny_folder: TinyFolder, tmp_path: Path) -> Spoilt:
    """A copy of a good folder, by kind, with more tensors in its weights."""

    def folder(kind: str = "llama", **tensors: Tensor) -> Path:
        copy = Path(shutil.copytree(tiny_folder(kind), tmp_path / "model"))
        put(copy, tensors)
        return copy

    return folder


def put(folder: Path, tensors: dict[str, Tensor]) -> None:
    """Add tensors to a folder's weights, or replace them."""
    weights = load_file(folder / WEIGHTS) | tensors
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})


def edit(path: Path, **values: object) -> None:
    """Set keys of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def load(folder: Path) -> LoadedModel:
    """Load on the CPU."""
    return load_model(EngineConfig(model=str(folder), device="cpu"))


def refusal(folder: Path, kind: type[ModelLoadError]) -> str:
    """The one line with which loading is refused."""
    with pytest.raises(kind) as caught:
        load(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_tensors_that_the_class_does_not_know_are_refused_by_name(spoilt: Spoilt) -> None:
    """Dropping a bias would give the scores of another model."""
    folder = spoilt(**{BIAS: torch.ones(64), BIAS.replace("q_proj", "v_proj"): torch.ones(32)})
    assert refusal(folder, UnsupportedModel) == (
        f"tensors that LlamaForCausalLM has no place for: 2, the first is {BIAS}; "
        "the config names LlamaForCausalLM"
    )


def test_a_classifier_is_refused_by_its_head(tmp_path: Path, tiny_folder: TinyFolder) -> None:
    """Its embeddings would serve as a tied head, and nothing would look wrong."""
    folder = Path(shutil.copytree(tiny_folder("llama"), tmp_path / "model"))
    LlamaForSequenceClassification(tiny_config("llama")).save_pretrained(folder)
    reason = refusal(folder, UnsupportedModel)
    assert "score.weight" in reason
    assert "LlamaForSequenceClassification" in reason


MASK = torch.ones(1, 1, 128, 128).tril().bool()

LEFTOVERS = {
    "llama": {
        "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8),
        "mtp.layers.0.mlp.gate_proj.weight": torch.ones(4, 4),
        "lm_head.weight": tiny_model("llama").lm_head.weight.detach().clone(),
    },
    "gpt2": {
        "transformer.h.0.attn.bias": MASK,
        "transformer.h.0.attn.masked_bias": torch.tensor(-1e4),
    },
    "gpt_neox": {
        "gpt_neox.layers.0.attention.bias": MASK,
        "gpt_neox.layers.0.attention.masked_bias": torch.tensor(-1e4),
        "gpt_neox.layers.0.attention.rotary_emb.inv_freq": torch.ones(2),
    },
}
"""What published folders carry along although nothing depends on it."""


@pytest.mark.parametrize("kind", LEFTOVERS)
def test_known_leftovers_are_left_aside(
    kind: str, spoilt: Spoilt, caplog: pytest.LogCaptureFixture
) -> None:
    """Masks, rotary tables, an equal tied head, heads for further tokens: served without a word."""
    loaded, expected = load(spoilt(kind, **LEFTOVERS[kind])), tiny_model(kind)
    expected.set_attn_implementation("eager")
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        assert torch.equal(loaded.model(ids).logits, expected(ids).logits)
    assert caplog.messages == []


def test_a_tensor_of_another_shape_is_named(spoilt: Spoilt) -> None:
    """The reason is the tensor, not a table that is shown elsewhere."""
    name = "model.layers.0.mlp.up_proj.weight"
    reason = refusal(spoilt(**{name: torch.ones(96, 64)}), CorruptModel)
    assert reason == f"the weights do not fit the config: {name} is [96, 64] instead of [128, 64]"


def test_every_line_of_a_failed_start_is_ours(spoilt: Spoilt) -> None:
    """The libraries' reports reach standard error as JSON lines or not at all."""
    folder = spoilt(**{BIAS: torch.ones(64)})
    command = [sys.executable, "-m", "app", "serve", "--port", "0", "--model", str(folder)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert (run.returncode, run.stdout) == (1, "")
    entries = [json.loads(line) for line in run.stderr.splitlines()]
    assert [entry["logger"].partition(".")[0] for entry in entries] == ["app", "app"]
    assert BIAS in entries[-1]["message"]


def test_a_librarys_line_takes_the_logs_form(
    spoilt: Spoilt, caplog: pytest.LogCaptureFixture
) -> None:
    """What transformers and the hub's client say goes to the handlers of this process alone."""
    load(spoilt())
    for name in ("transformers.anything", "huggingface_hub.anything"):
        library = logging.getLogger(name.partition(".")[0])
        assert not any(type(handler) is logging.StreamHandler for handler in library.handlers)
        caplog.set_level(logging.WARNING, logger=library.name)  # whatever others have set it to
        logging.getLogger(name).warning("mind the gap")
        assert (name, logging.WARNING, "mind the gap") in caplog.record_tuples


def warned(folder: Path, caplog: pytest.LogCaptureFixture) -> str:
    """The one warning with which a folder is served; the log and the description say the same."""
    caplog.clear()
    info = load(folder).info
    ours = [record for record in caplog.records if record.name.startswith("model_runtime")]
    assert [record.getMessage() for record in ours] == list(info.warnings)
    assert {record.levelname for record in ours} == {"WARNING"}
    (warning,) = info.warnings
    assert "\n" not in warning
    return warning


@pytest.mark.parametrize("kind", CORE_KINDS)
def test_a_folder_as_it_is_saved_is_served_without_a_word(
    kind: str, tiny_folder: TinyFolder, caplog: pytest.LogCaptureFixture
) -> None:
    """Warnings are for what is odd."""
    assert load(tiny_folder(kind)).info.warnings == ()
    assert caplog.messages == []


def test_an_end_that_the_template_does_not_write_is_told(
    spoilt: Spoilt, caplog: pytest.LogCaptureFixture
) -> None:
    """A chat would go on behind its own turn; published instruct models were like that."""
    folder = spoilt()
    edit(folder / "generation_config.json", eos_token_id=[5, 0])
    assert warned(folder, caplog) == (
        "the chat template ends a turn with <|im_end|> (id 1), which is not among the end ids "
        "[0, 5]: completions do not end there"
    )
    edit(folder / "generation_config.json", eos_token_id=[5, 1])
    assert load(folder).info.warnings == ()


@pytest.mark.parametrize(
    "template",
    [
        "{% for message in messages %}{{ '- ' + message['content'] }}{% endfor %}",
        "{{ raise_exception('no assistant speaks here') }}",
        "{{ messages[0]['content'] }}<|im_start|>",
        "{{ '",
    ],
    ids=["ends with nothing", "refuses", "drops the answer", "is broken"],
)
def test_a_template_without_an_end_tells_nothing(spoilt: Spoilt, template: str) -> None:
    """Where no control token follows what was said, there is nothing to compare."""
    folder = spoilt()
    edit(folder / "generation_config.json", eos_token_id=5)
    (folder / "chat_template.jinja").write_text(template)
    assert load(folder).info.warnings == ()


def test_an_unknown_way_to_cut_words_is_told(
    spoilt: Spoilt, caplog: pytest.LogCaptureFixture
) -> None:
    """It is served to the same tokens, and more slowly where contexts are long."""
    folder = spoilt()
    path = folder / "tokenizer.json"
    spec = json.loads(path.read_text())
    pattern = {"type": "Split", "pattern": {"Regex": "a|[^a]+"}, "behavior": "Isolated"}
    byte_level = {"type": "ByteLevel", "use_regex": False, "add_prefix_space": False}
    steps = [{**pattern, "invert": False}, {**byte_level, "trim_offsets": True}]
    spec["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": steps}
    path.write_text(json.dumps(spec))
    assert "cuts words by rules that are not known here" in warned(folder, caplog)


def test_an_index_beside_a_single_file_is_told(
    spoilt: Spoilt, caplog: pytest.LogCaptureFixture
) -> None:
    """Which of the two was meant is for the operator to say."""
    folder = spoilt()
    index = {"weight_map": {"lm_head.weight": "model-00001-of-00001.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert warned(folder, caplog) == (
        "model.safetensors is served; the shards of model.safetensors.index.json beside it are "
        "ignored"
    )


def test_a_head_that_the_config_denies_is_told(
    spoilt: Spoilt, caplog: pytest.LogCaptureFixture
) -> None:
    """The file's head is served, as transformers does it."""
    head = torch.randn(384, 64, generator=torch.Generator().manual_seed(9))
    folder = spoilt(**{"lm_head.weight": head})
    assert "tie_word_embeddings" in warned(folder, caplog)
    assert torch.equal(load(folder).model.get_output_embeddings().weight, head)


def test_templates_without_a_default_are_told(
    spoilt: Spoilt, caplog: pytest.LogCaptureFixture
) -> None:
    """Otherwise decisions would be rendered plainly and nobody would know."""
    folder = spoilt()
    template = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").unlink()
    named = [{"name": name, "template": template} for name in ("rag", "summary")]
    edit(folder / "tokenizer_config.json", chat_template=named)
    assert warned(folder, caplog) == (
        "none of the chat templates is the default (rag, summary): messages are refused and "
        "decisions take the plain prompt"
    )
