"""Where a text can be split so that its parts, each tokenized alone, give the tokens of the whole.

Split points are those between a visible character and a space. ``T(u + v) = T(u) + T(v)`` holds at
every one of them, whatever ``u`` and ``v`` are, where each step of the tokenizer keeps them apart::

    added tokens    none spells a split point, so none is found across it
    normalizer      a space composes with nothing before it
    pre-tokenizer   decides what is left of the point by that alone, and splits there (see
                    ``pretokenizer_patterns``); or, where it leaves the two in one piece,
    merges          no entry of the vocabulary spells a split point, so no merge can go across it,
                    and merges on one side know nothing of the other

Where a tokenizer puts a space of its own before every text, the point's own space is left out of
``v``: ``T("It is") = T("It") + T("is")``.

Where this is not known of a tokenizer, its texts are not split: ``split_pattern`` knows the steps
by name, and patterns by every letter.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from enum import Enum, auto
from typing import Any

from model_runtime.tokenization.pretokenizer_patterns import (
    MATCH_AT_SPLIT_POINTS,
    MATCH_BETWEEN_SPLIT_POINTS,
)

_SPLIT = re.compile(r"(?<=[!-~\w])(?= )")
_SPLIT_WITHOUT_SPACE = re.compile(r"(?<=[!-~\w]) (?=.)", re.DOTALL)

_SPELLS_SPLIT_POINT = re.compile(r"[^\s▁][\s▁]")
_SPELLS_SPLIT_POINT_BYTES = re.compile(rb"[^\s] ")


class _Effect(Enum):
    """What a step of the pre-tokenizer does at a split point."""

    SPLITS = auto()
    KEEPS_TOGETHER = auto()
    UNKNOWN = auto()


def split_pattern(spec: Mapping[str, Any], vocabulary: Sequence[bytes]) -> re.Pattern[str] | None:
    """The pattern whose ``split`` gives such parts of any text; None where none is known.

    Args:
        spec: the tokenizer in the JSON form of the ``tokenizers`` library.
        vocabulary: the bytes of each token.
    """
    normalizers = steps_of(spec.get("normalizer"), "normalizers")
    added = spec.get("added_tokens") or ()
    if not all(map(_normalizes_apart, normalizers)) or not all(map(_is_found_apart, added)):
        return None
    if not _tokenizes_apart(spec, vocabulary, any(s["type"] == "Replace" for s in normalizers)):
        return None
    if not any(step["type"] == "Prepend" for step in normalizers):
        return _SPLIT
    # A text behind an added token gets a space of its own, too, which no part would know of.
    return None if any(not token["special"] for token in added) else _SPLIT_WITHOUT_SPACE


def steps_of(part: Mapping[str, Any] | None, name: str) -> list[Mapping[str, Any]]:
    """The steps of a normalizer or pre-tokenizer, those inside of sequences included.

    Args:
        part: in the JSON form of the ``tokenizers`` library.
        name: the key under which a sequence has its steps.
    """
    if part is None:
        return []
    if part["type"] != "Sequence":
        return [part]
    return [step for inner in part[name] for step in steps_of(inner, name)]


def _normalizes_apart(step: Mapping[str, Any]) -> bool:
    if step["type"] == "Replace":
        return bool(step["pattern"] == {"String": " "} and step["content"] == "▁")
    return step["type"] == "NFC" or bool(step["type"] == "Prepend" and step["prepend"] == "▁")


def _is_found_apart(token: Mapping[str, Any]) -> bool:
    if _SPELLS_SPLIT_POINT.search(token["content"]):
        return False
    # Control tokens are passed over in text before any of these is looked at.
    return token["special"] or not (token["lstrip"] or token["rstrip"] or token["single_word"])


def _tokenizes_apart(
    spec: Mapping[str, Any], vocabulary: Sequence[bytes], spaces_are_replaced: bool
) -> bool:
    """Whether the pre-tokenizer splits there, or leaves it to merges that do not go across."""
    model = spec["model"]
    if model["type"] not in ("BPE", "Unigram") or model.get("dropout"):
        return False
    effect = _effect(steps_of(spec.get("pre_tokenizer"), "pretokenizers"), spaces_are_replaced)
    if effect is _Effect.KEEPS_TOGETHER:
        return _merges_apart(model, vocabulary)
    return effect is _Effect.SPLITS


def _effect(steps: Sequence[Mapping[str, Any]], spaces_are_replaced: bool) -> _Effect:
    """Of all steps: the first that splits decides, if the others are known as well."""
    if any(step["type"] in ("ByteLevel", "Metaspace") for step in steps[:-1]):
        return _Effect.UNKNOWN  # behind these two a space is written as another character
    effects = [_step_effect(step, spaces_are_replaced) for step in steps]
    if _Effect.UNKNOWN in effects:
        return _Effect.UNKNOWN
    return _Effect.SPLITS if _Effect.SPLITS in effects else _Effect.KEEPS_TOGETHER


def _step_effect(step: Mapping[str, Any], spaces_are_replaced: bool) -> _Effect:
    kind = step["type"]
    if kind == "Metaspace" and step["replacement"] == "▁":
        return _Effect.SPLITS if step["split"] else _Effect.KEEPS_TOGETHER
    if kind == "Split" and step["pattern"] == {"String": " "} and spaces_are_replaced:
        return _Effect.KEEPS_TOGETHER
    if spaces_are_replaced:
        return _Effect.UNKNOWN
    if kind == "Digits":
        return _Effect.KEEPS_TOGETHER
    if kind == "ByteLevel":
        return _Effect.SPLITS if step["use_regex"] else _Effect.KEEPS_TOGETHER
    return _split_effect(step) if kind == "Split" else _Effect.UNKNOWN


def _split_effect(step: Mapping[str, Any]) -> _Effect:
    pattern = step["pattern"].get("Regex")
    isolates = step["behavior"] == "Isolated" or (step["behavior"] == "Removed" and step["invert"])
    if isolates and pattern in MATCH_AT_SPLIT_POINTS:
        return _Effect.SPLITS
    if isolates and pattern in MATCH_BETWEEN_SPLIT_POINTS:
        return _Effect.KEEPS_TOGETHER
    return _Effect.UNKNOWN


def _merges_apart(model: Mapping[str, Any], vocabulary: Sequence[bytes]) -> bool:
    plain = model["type"] == "BPE" and not (
        model.get("ignore_merges")
        or model.get("continuing_subword_prefix")
        or model.get("end_of_word_suffix")
        or (model.get("fuse_unk") and "▁" not in model["vocab"])
    )
    return plain and not any(map(_SPELLS_SPLIT_POINT_BYTES.search, vocabulary))
