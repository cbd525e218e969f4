"""What a model folder is refused for, before anything in it is loaded."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from model_runtime.errors import CorruptModel, ModelLoadError, ModelNotFound, UnsupportedModel
from model_runtime.loading.files import SHARD_INDEX, WEIGHTS, check_folder, content_digest
from tests.tiny_models import tiny_model


@pytest.fixture
def folder(tiny_folder: Callable[[str], Path], tmp_path: Path) -> Path:
    """A good model folder that a test may spoil."""
    return Path(shutil.copytree(tiny_folder("llama"), tmp_path / "model"))


def edit(path: Path, **values: object) -> None:
    """Set keys of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def refusal(folder: Path, kind: type[ModelLoadError]) -> str:
    """The one line with which the folder is refused."""
    with pytest.raises(kind) as caught:
        check_folder(folder)
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_good_folder_passes(folder: Path) -> None:
    """Nothing is said about a folder as transformers saves it."""
    check_folder(folder)


def test_shards_pass(folder: Path) -> None:
    """Weights in several files are found through their index."""
    (folder / WEIGHTS).unlink()
    tiny_model("llama").save_pretrained(folder, max_shard_size="100KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    check_folder(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.ckpt"])
def test_pickles_are_refused(folder: Path, name: str) -> None:
    """Without safetensors, pickled weights are named and not read."""
    (folder / WEIGHTS).rename(folder / name)
    assert "pickle" in refusal(folder, UnsupportedModel)


def test_a_pickle_beside_safetensors_is_not_touched(folder: Path) -> None:
    """Many published folders have both; the safetensors are served."""
    (folder / "pytorch_model.bin").write_bytes(b"never read")
    check_folder(folder)


def test_quantized_weights_are_refused(folder: Path) -> None:
    """Scores are exact, so weights that need a quantizer's kernels are not served."""
    edit(folder / "config.json", quantization_config={"quant_method": "gptq"})
    assert "quantized" in refusal(folder, UnsupportedModel)


def test_a_folder_without_a_config_is_no_model(tmp_path: Path) -> None:
    """An empty folder is not found rather than corrupt."""
    assert "config.json" in refusal(tmp_path, ModelNotFound)


def test_missing_weights_are_corrupt(folder: Path) -> None:
    """A config without weights is half a model."""
    (folder / WEIGHTS).unlink()
    assert WEIGHTS in refusal(folder, CorruptModel)


@pytest.mark.parametrize("keep", [0, 4, 8, 100, -1])
def test_truncated_weights_are_corrupt(folder: Path, keep: int) -> None:
    """A cut anywhere is noticed, in the length, in the header or in the last tensor."""
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[:keep])
    assert WEIGHTS in refusal(folder, CorruptModel)


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32"},
        {"data_offsets": [0, 4]},
        {"dtype": "F32", "data_offsets": [0]},
        {"dtype": "F32", "data_offsets": "04"},
        {"dtype": "F32", "data_offsets": [None, 4]},
        {"dtype": "F32", "data_offsets": [0, float("inf")]},
        [],
        None,
    ],
)
def test_a_header_that_describes_no_tensors_is_corrupt(folder: Path, entry: object) -> None:
    """Whatever stands in it is one line, not a traceback."""
    header = json.dumps({"weight": entry}).encode()
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    assert "header" in refusal(folder, CorruptModel)


def test_weights_with_something_behind_them_are_corrupt(folder: Path) -> None:
    """The size is exactly what the header promises."""
    with (folder / WEIGHTS).open("ab") as file:
        file.write(b"x")
    assert "instead of" in refusal(folder, CorruptModel)


def test_a_missing_shard_is_corrupt(folder: Path) -> None:
    """Every file that the index names must be there."""
    (folder / WEIGHTS).unlink()
    index = {"weight_map": {"a": "one.safetensors"}}
    (folder / SHARD_INDEX).write_text(json.dumps(index))
    assert "one.safetensors is missing" in refusal(folder, CorruptModel)
    (folder / SHARD_INDEX).write_text("{}")
    assert "weight_map" in refusal(folder, CorruptModel)


@pytest.mark.parametrize("name", ["../one.safetensors", "/etc/passwd", 7, None])
def test_shards_outside_the_folder_are_refused(folder: Path, name: object) -> None:
    """An index cannot reach for other files of this machine."""
    (folder / WEIGHTS).unlink()
    (folder / SHARD_INDEX).write_text(json.dumps({"weight_map": {"a": name}}))
    assert "outside" in refusal(folder, UnsupportedModel)


@pytest.mark.parametrize("content", ["{", "[]", "7"])
def test_a_config_that_is_no_object_is_corrupt(folder: Path, content: str) -> None:
    """Broken JSON is named by its file."""
    (folder / "config.json").write_text(content)
    assert "config.json" in refusal(folder, CorruptModel)


@pytest.mark.parametrize(
    ("name", "matters"),
    [
        (WEIGHTS, True),
        ("tokenizer.json", True),
        ("generation_config.json", True),
        ("chat_template.jinja", True),
        ("modules.json", True),
        ("config_sentence_transformers.json", True),
        ("sentence_bert_config.json", True),
        ("1_LogitScore/config.json", True),
        ("1_Pooling/config.json", False),
        ("README.md", False),
    ],
)
def test_the_digest_follows_what_can_change_an_answer(
    folder: Path, name: str, matters: bool
) -> None:
    """One byte more in a file that is read gives another digest; a readme does not."""
    before = content_digest(folder)
    (folder / name).parent.mkdir(exist_ok=True)
    with (folder / name).open("ab") as file:
        file.write(b" ")
    assert (content_digest(folder) != before) is matters
