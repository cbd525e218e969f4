"""What lies in a model folder: refused by name and reason before anything of it is loaded."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from model_runtime.errors import CorruptModel, ModelNotFound, UnsupportedModel
from model_runtime.tokenization.folder_json import read_object

WEIGHTS = "model.safetensors"
SHARD_INDEX = "model.safetensors.index.json"
PICKLE_SUFFIXES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl"})

_FLOAT_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}

# Besides the weights, the files whose content can change an answer.
_MEANINGFUL_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    # How a reranker says that its answers become scores.
    "modules.json",
    "config_sentence_transformers.json",
    "sentence_bert_config.json",
)


def check_folder(folder: Path) -> None:
    """Refuse a folder that cannot be served.

    Raises:
        ModelNotFound: there is no config.
        UnsupportedModel: it has pickled or quantized weights.
        CorruptModel: weights are missing or truncated.
    """
    if not (folder / "config.json").is_file():
        raise ModelNotFound(f"{folder} is not a model folder: it has no config.json")
    if "quantization_config" in read_object(folder / "config.json"):
        raise UnsupportedModel("the weights are quantized; only plain ones are served")
    for path in weight_files(folder):
        _check_safetensors(path)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that make up the model, in name order."""
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if (folder / SHARD_INDEX).is_file():
        weight_map = read_object(folder / SHARD_INDEX).get("weight_map")
        if not isinstance(weight_map, dict):
            raise CorruptModel(f"{SHARD_INDEX} has no weight_map")
        return [_shard(folder, name) for name in sorted(set(weight_map.values()))]
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLE_SUFFIXES)
    if pickles:
        raise UnsupportedModel(f"{pickles[0]} is a pickle, which is never read; use safetensors")
    raise CorruptModel(f"{folder} has no {WEIGHTS}")


def float32_bytes(folder: Path) -> int:
    """What the tensors of a checked folder take where their floats are float32, as in loading."""
    return sum(
        (end - begin) * 4 // _FLOAT_BYTES.get(dtype, 4)
        for path in weight_files(folder)
        for dtype, begin, end in _read_header(path)[1]
    )


def content_digest(folder: Path) -> str:
    """SHA-256 over everything in the folder that can change an answer."""
    named = [folder / name for name in _MEANINGFUL_FILES if (folder / name).is_file()]
    modules = sorted(folder.glob("*_LogitScore/config.json"))
    return files_digest([*weight_files(folder), *named, *modules], folder)


def files_digest(paths: Iterable[Path], root: Path) -> str:
    """SHA-256 over names, relative to ``root``, and contents."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{path.relative_to(root).as_posix()} {content}\n".encode())
    return digest.hexdigest()


def _shard(folder: Path, name: object) -> Path:
    if not isinstance(name, str) or Path(name).name != name:
        raise UnsupportedModel(f"{SHARD_INDEX} names weights outside the folder")
    if not (folder / name).is_file():
        raise CorruptModel(f"{name} is missing")
    return folder / name


def _check_safetensors(path: Path) -> None:
    """Compare the file's size with what its header promises."""
    start, tensors = _read_header(path)
    expected = start + max((end for _, _, end in tensors), default=0)
    size = path.stat().st_size
    if size != expected:
        raise CorruptModel(f"{path.name} has {size} bytes instead of {expected}")


def _read_header(path: Path) -> tuple[int, list[tuple[str, int, int]]]:
    """Where the tensors start, and of each its type and where it lies from there on.

    The file is 8 bytes of little-endian header length, the header as JSON, then the tensors,
    whose ``data_offsets`` count from the end of the header.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else size
        header = file.read(length) if length <= size - 8 else b""
    try:
        entries = json.loads(header).items()
        tensors = [_place(entry) for name, entry in entries if name[:2] != "__"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptModel(f"{path.name} has no readable header; it is truncated") from error
    return 8 + length, tensors


def _place(entry: dict[str, Any]) -> tuple[str, int, int]:
    begin, end = entry["data_offsets"]
    if not (isinstance(begin, int) and isinstance(end, int)):
        raise TypeError("an offset is no whole number")
    return str(entry["dtype"]), begin, end
