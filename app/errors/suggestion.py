"""Which field may have been meant by one that there is not.

The fields that there are come from a body's JSON schema, so that a suggestion is one of the very
place where the unknown field stands.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Final

Schema = Mapping[str, Any]

SIMILAR: Final = 0.75
"""From which similarity on, as ``difflib`` measures it, a name is taken for a slip of the pen."""

MAX_NAME: Final = 40
"""Characters of a name that is compared at all."""

_CONTEXTS: Final = ("context", "prompt", "input", "query", "state", "messages")
_CANDIDATES: Final = ("candidates", "documents", "items", "choices", "options")
_SAME: Final[dict[str, Sequence[str]]] = {
    **dict.fromkeys(("prompt", "input", "inputs", "text", "messages", "query", "state"), _CONTEXTS),
    **dict.fromkeys(("prefix", "question", "content", "premise"), _CONTEXTS),
    **dict.fromkeys(("documents", "choices", "options", "labels", "items"), _CANDIDATES),
    **dict.fromkeys(("texts", "passages", "continuations", "completions"), _CANDIDATES),
    **dict.fromkeys(("candidate", "continuation", "targets", "answers"), _CANDIDATES),
    **dict.fromkeys(("max_new_tokens", "max_length", "n_predict"), ("max_tokens",)),
    **dict.fromkeys(("max_completion_tokens", "max_output_tokens"), ("max_tokens",)),
    **dict.fromkeys(("beam_size", "beam_width", "beams", "best_of"), ("num_beams",)),
    **dict.fromkeys(("n", "num_sequences", "num_completions"), ("num_return_sequences",)),
    **dict.fromkeys(("logprobs", "return_logprob", "return_logprobs"), ("token_logprobs",)),
    **dict.fromkeys(("stop_sequences", "stop_strings", "until"), ("stop",)),
    **dict.fromkeys(("timeout", "timeout_s"), ("timeout_ms",)),
    **dict.fromkeys(("length_normalization", "normalize", "reduction"), ("normalization",)),
    **dict.fromkeys(("k", "top_n", "n_best"), ("top_k", "top_n")),
    **dict.fromkeys(("schema", "guided_json", "response_format"), ("json_schema",)),
    **dict.fromkeys(("pattern", "guided_regex"), ("regex",)),
    **dict.fromkeys(("instruction", "prompt_template"), ("instructions",)),
}
"""What other APIs call it: the first of these that there is, and that was not given, is meant."""


def suggestion(name: str, known: Sequence[str], given: Mapping[str, Any]) -> str | None:
    """The known field that ``name`` may stand for.

    Args:
        name: of the unknown field.
        known: the fields that there are in its place.
        given: the fields that the caller has given there; none of them is suggested.
    """
    free = [field for field in known if field not in given]
    plain = name.strip().lower().replace("-", "_")
    if plain in free:
        return plain
    for field in _SAME.get(plain, ()):
        if field in free:
            return field
    if len(plain) > MAX_NAME:
        return None
    return next(iter(get_close_matches(plain, free, n=1, cutoff=SIMILAR)), None)


def known_fields(schema: Schema, body: object, path: Sequence[str | int]) -> list[str]:
    """The fields that an object within a body may have.

    Args:
        schema: of the whole body, with its ``$defs``.
        body: the body.
        path: to the object, by the body's own keys and places.
    """
    branches = [schema]
    value = body
    for step in path:
        branches = [
            inner
            for branch in _expanded(schema, branches, value)
            for inner in _entered(branch, step)
        ]
        value = _item(value, step)
    fields = dict.fromkeys(
        field
        for branch in _expanded(schema, branches, value)
        for field in branch.get("properties", ())
    )
    return list(fields)


def _expanded(root: Schema, branches: Sequence[Schema], value: object) -> Iterator[Schema]:
    """The branches that may be meant, references and unions resolved."""
    waiting = list(reversed(branches))
    while waiting:
        branch = waiting.pop()
        if "$ref" in branch:
            waiting.append(root["$defs"][branch["$ref"].rsplit("/", 1)[1]])
            continue
        if not _is_meant(branch, value):
            continue
        yield branch
        for union in ("allOf", "oneOf", "anyOf"):
            waiting.extend(reversed(branch.get(union, ())))


def _is_meant(branch: Schema, value: object) -> bool:
    """Whether the value's tags are those of the branch."""
    if not isinstance(value, Mapping):
        return True
    return all(
        value[name] == field["const"]
        for name, field in branch.get("properties", {}).items()
        if "const" in field and name in value
    )


def _entered(branch: Schema, step: str | int) -> Iterator[Schema]:
    if isinstance(step, int):
        found = branch.get("items")
    else:
        found = branch.get("properties", {}).get(step, branch.get("additionalProperties"))
    if isinstance(found, Mapping):
        yield found


def _item(value: object, step: str | int) -> object:
    if isinstance(value, Mapping):
        return value.get(step)
    inside = isinstance(value, list) and isinstance(step, int) and step < len(value)
    return value[step] if inside else None  # type: ignore[index]
