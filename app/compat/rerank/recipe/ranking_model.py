"""Whether a folder without a recipe is a reranker's all the same, by what it calls itself."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

README: Final = "README.md"
_HUB_FOLDER: Final = "models--"
_NAME: Final = re.compile("rerank", re.IGNORECASE)
_TASK: Final = re.compile(r"^pipeline_tag: *[\"']?text-ranking[\"']? *$", re.MULTILINE)
_HEADER_CHARS: Final = 16_384


def is_called_reranker(folder: Path, name: str) -> bool:
    """Whether the model's name, its folder's name, or the task in its README says so.

    Args:
        folder: of the model; in a cache of the hub a folder above bears the name.
        name: under which it is served.
    """
    above = [part for part in folder.parts if part.startswith(_HUB_FOLDER)]
    names = (name, folder.name, *above)
    return any(map(_NAME.search, names)) or _TASK.search(_header(folder)) is not None


def _header(folder: Path) -> str:
    """What a README says of itself in front of its text; empty where it does not."""
    try:
        with (folder / README).open(encoding="utf-8", errors="replace") as file:
            text = file.read(_HEADER_CHARS)
    except OSError:
        return ""
    return text.split("\n---", 1)[0] if text.startswith("---\n") else ""
