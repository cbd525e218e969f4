"""What a tokenizer does to a text before it is split: Unicode forms, case, other characters."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import tokenizers
from tokenizers.normalizers import Normalizer

from model_runtime.tokenization.split_points import steps_of

_WRITE_SPACES = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
_READ_SPACES = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
_BARE_SPEC = {
    "version": "1.0",
    "added_tokens": [],
    "model": {"type": "BPE", "vocab": {}, "merges": []},
}
"""A tokenizer without tokens, for its normalizer alone."""


def text_normalizer(spec: Mapping[str, Any]) -> Normalizer | None:
    """The steps that change more of a text than how its spaces are written, if there are any."""
    steps = [s for s in steps_of(spec.get("normalizer"), "normalizers") if s["type"] != "Prepend"]
    if all(step == _WRITE_SPACES for step in steps):
        return None
    if any(step["type"] == "Replace" and "▁" in step["content"] for step in steps):
        steps.append(_READ_SPACES)
    normalizer = {"type": "Sequence", "normalizers": steps}
    bare = _BARE_SPEC | {"normalizer": normalizer}
    found: Normalizer = tokenizers.Tokenizer.from_str(json.dumps(bare)).normalizer
    return found
