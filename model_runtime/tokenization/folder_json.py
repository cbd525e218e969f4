"""JSON files of a model folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from model_runtime.errors import CorruptModel


def names_code(path: Path) -> bool:
    """Whether a config of the folder points to Python code (``auto_map``). It is never run."""
    return path.is_file() and "auto_map" in read_object(path)


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        CorruptModel: it holds something else.
    """
    try:
        value = json.loads(path.read_bytes())
    except ValueError as error:
        raise CorruptModel(f"{path.name} is not JSON") from error
    if not isinstance(value, dict):
        raise CorruptModel(f"{path.name} is not a JSON object")
    return value
