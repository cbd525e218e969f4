"""Requests to every route that work, made up from a seed: the same seed makes the same one."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Body = dict[str, Any]
Make = Callable[["Words"], Body | None]

_PROSE = (
    "the of and to in is was for on with as by at from it an are be this which not had but one have"
    " were their has been who all they more other when time into only new some could these two"
)
_WORDS = _PROSE.split()
_SHARED = tuple(
    "".join(f" {word}" for word in random.Random(f"shared {number}").choices(_WORDS, k=16))
    for number in range(12)
)
"""Beginnings that contexts have in common, so that the caches are asked as well."""


class Words:
    """Made-up parts of one request."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)

    def text(self, most: int = 5) -> str:
        """Some words, each behind a space."""
        count = self._random.randint(1, most)
        return "".join(f" {word}" for word in self._random.choices(_WORDS, k=count))

    def texts(self, count: int, most: int = 4) -> list[str]:
        """Different ones."""
        found: dict[str, None] = {}
        while len(found) < count:
            found[self.text(most)] = None
        return list(found)

    def context(self) -> str:
        """A shared beginning, or none, and some words."""
        return self._random.choice((*_SHARED, "")) + self.text(12)

    def ids(self, most: int = 12) -> list[int]:
        """Tokens of the tiny models."""
        return [self._random.randint(5, 250) for _ in range(self._random.randint(1, most))]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of request.

    Attributes:
        name: in tables.
        path: of the route.
        make: the body; None makes it a GET.
        weight: how often it comes, beside the others.
        volatile: whether the answer to the same request changes.
    """

    name: str
    path: str
    make: Make
    weight: int = 2
    volatile: bool = False


def _score(**more: Any) -> Make:
    return lambda words: {"context": words.context(), "candidates": words.texts(3), **more}


def _decode(**more: Any) -> Make:
    return lambda words: {"context": words.context(), "max_tokens": 8, **more}


def _pmi(words: Words) -> Body:
    return _score(normalization="pmi", pmi_context=words.text())(words)


def _calibrated(words: Words) -> Body:
    return _score(normalization="calibrated", calibration_contexts=words.texts(2))(words)


def _ids(words: Words) -> Body:
    return {"context": words.ids(), "candidates": [words.ids(4), words.ids(4), [99_999]]}


def _closed(words: Words) -> Body:
    return _decode(candidates=words.texts(6), strategy="exact", max_tokens=None, max_expansions=64)(
        words
    )


def _audit(words: Words) -> Body:
    few = {"max_tokens": 4, "num_beams": 2, "max_expansions": 32}
    return {"context": words.text(8), "candidates": words.texts(2, 2), **few}


def _completion(**more: Any) -> Make:
    return lambda words: {"prompt": words.context(), "max_tokens": 8, **more}


def _chat(**more: Any) -> Make:
    def make(words: Words) -> Body:
        said = {"role": "assistant", "content": words.text()}
        messages = [{"role": "user", "content": words.text(8)}, said]
        return {"messages": messages, "max_tokens": 8, **more}

    return make


def _decisions(words: Words) -> Body:
    options = [{"value": text.strip()} for text in words.texts(3, 2)]
    levels = [{"label": text.strip()} for text in words.texts(3, 1)]
    return {
        "input": words.text(8),
        "questions": [
            {"type": "predicate", "instructions": words.text()},
            {"type": "choice", "instructions": words.text(), "choices": options},
            {"type": "score", "instructions": words.text(), "levels": levels},
        ],
    }


def _rerank(documents: str, **more: Any) -> Make:
    return lambda words: {"query": words.text(), documents: words.texts(3, 8), **more}


def _labels(words: Words) -> Body:
    return {"query": words.context(), "items": words.texts(2), "label_token_ids": [40, 41, 42]}


def _pairs(words: Words) -> Body:
    return {"text_1": words.text(), "text_2": words.texts(2, 8)}


def _none(_words: Words) -> None:
    return None


_OBJECT = {
    "type": "object",
    "properties": {"a": {"type": "boolean"}},
    "required": ["a"],
    "additionalProperties": False,
}

KINDS = (
    Kind("score", "/v1/score", _score(), 6),
    Kind("score, listed", "/v1/score", _score(token_logprobs=True, top_logprobs=3)),
    Kind("score, mean", "/v1/score", _score(normalization="mean", append_eos=True)),
    Kind("score, gnmt", "/v1/score", _score(normalization="gnmt")),
    Kind("score, pmi", "/v1/score", _pmi),
    Kind("score, calibrated", "/v1/score", _calibrated),
    Kind("score, marginal", "/v1/score", _score(boundary="marginal", max_expansions=32)),
    Kind("score, top n", "/v1/score", _score(top_n=1)),
    Kind("score, compact", "/v1/score", _score(compact=True)),
    Kind("score, ids", "/v1/score", _ids, 4),
    Kind("next token", "/v1/next_token", lambda words: {"context": words.context()}, 6),
    Kind(
        "next token, nucleus",
        "/v1/next_token",
        lambda words: {"context": words.ids(), "top_p": 0.9, "token_ids": words.ids(4)},
    ),
    Kind("greedy", "/v1/decode", _decode(), 4),
    Kind("beam", "/v1/decode", _decode(strategy="beam", num_beams=3, num_return_sequences=2)),
    Kind("exact", "/v1/decode", _decode(strategy="exact", max_tokens=3, max_expansions=64)),
    Kind(
        "exact, threshold",
        "/v1/decode",
        _decode(strategy="exact", max_tokens=2, threshold=0.1, max_expansions=64),
    ),
    Kind(
        "compared",
        "/v1/decode",
        _decode(compare=["greedy", "beam", "exact"], max_tokens=2, max_expansions=64),
    ),
    Kind("closed set", "/v1/decode", _closed),
    Kind("regex", "/v1/decode", _decode(regex="[a-c]{2,4}")),
    Kind("JSON schema", "/v1/decode", _decode(json_schema=_OBJECT, max_tokens=24)),
    Kind("stream", "/v1/decode", _decode(stream=True, ignore_eos=True, max_tokens=16), 4),
    Kind("audit", "/v1/audit", _audit, 1),
    Kind("completion", "/v1/completions", _completion(), 4),
    Kind("completion, echo", "/v1/completions", _completion(echo=True, logprobs=2, max_tokens=0)),
    Kind("completion, beams", "/v1/completions", _completion(n=2, best_of=3)),
    Kind("completion, stream", "/v1/completions", _completion(stream=True)),
    Kind("chat", "/v1/chat/completions", _chat(), 2),
    Kind("chat, echo", "/v1/chat/completions", _chat(max_tokens=0, logprobs=True)),
    Kind("chat, stream", "/v1/chat/completions", _chat(stream=True)),
    Kind("decisions", "/v1/decisions", _decisions),
    Kind("rerank, Cohere", "/v2/rerank", _rerank("documents")),
    Kind("rerank, Jina", "/v1/rerank", _rerank("documents", return_documents=True)),
    Kind("rerank, TEI", "/rerank", _rerank("texts")),
    Kind("labels, vLLM", "/generative_scoring", _labels),
    Kind("labels, SGLang", "/v1/score", _labels),
    Kind("pairs", "/score", _pairs),
    Kind("tokenize", "/tokenize", lambda words: {"prompt": words.context()}),
    Kind("detokenize", "/detokenize", lambda words: {"tokens": words.ids()}),
    Kind("tokenizer", "/tokenizer_info", _none, 1),
    Kind("models", "/v1/models", _none, 1, volatile=True),
    Kind("metrics", "/metrics", _none, 1, volatile=True),
    Kind("health", "/health", _none, 1, volatile=True),
    Kind("liveness", "/health/live", _none, 1),
)
"""What a well-behaved client asks; each is answered with 200, or with 429 by a full queue."""
