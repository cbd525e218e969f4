"""The wire shapes that a load can have: ours, and those of other servers.

Each turns a question into the body that a client of that API would send.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from app.cli.bench.workload import Question, Workload

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Shape:
    """A route and its bodies.

    Attributes:
        path: of the route.
        body: of a question; the model's name is added to it where ``names_model``.
        names_model: whether this API's requests hold ``model``.
    """

    path: str
    body: Callable[[Question, Workload], Body]
    names_model: bool = True

    def of(self, question: Question, workload: Workload) -> Body:
        """The whole body."""
        body = self.body(question, workload)
        if self.names_model and workload.model is not None:
            body["model"] = workload.model
        return body


def _score(question: Question, _workload: Workload) -> Body:
    return {"context": question.context, "candidates": list(question.candidates)}


def _next(question: Question, _workload: Workload) -> Body:
    return {"context": question.context}


def _decode(question: Question, workload: Workload) -> Body:
    return {"context": question.context, "max_tokens": workload.max_tokens, "ignore_eos": True}


def _echo(question: Question, _workload: Workload) -> Body:
    """As lm-evaluation-harness asks for the log-likelihoods of choices."""
    prompts = [question.context + candidate for candidate in question.candidates]
    asked = {"max_tokens": 1, "logprobs": 1, "echo": True, "temperature": 0, "seed": 1234}
    return {"prompt": prompts, **asked}


def _completion(question: Question, workload: Workload) -> Body:
    return {"prompt": question.context, "max_tokens": workload.max_tokens, "temperature": 0}


def _rerank(question: Question, _workload: Workload) -> Body:
    return {"query": question.context, "documents": list(question.candidates)}


def _tei_rerank(question: Question, _workload: Workload) -> Body:
    return {"query": question.context, "texts": list(question.candidates)}


def _generative(question: Question, workload: Workload) -> Body:
    return {
        "query": question.context,
        "items": list(question.candidates),
        "label_token_ids": list(workload.label_token_ids),
        "apply_softmax": True,
    }


def _decisions(question: Question, _workload: Workload) -> Body:
    """One input, a question about each candidate."""
    asked = [
        {"type": "predicate", "instructions": f"Is this said:{candidate}?"}
        for candidate in question.candidates
    ]
    return {"input": question.context, "questions": asked}


SHAPES: Final[dict[str, Shape]] = {
    "score": Shape("/v1/score", _score),
    "next": Shape("/v1/next_token", _next),
    "decode": Shape("/v1/decode", _decode),
    "openai-echo": Shape("/v1/completions", _echo),
    "openai-completions": Shape("/v1/completions", _completion),
    "cohere-rerank": Shape("/v2/rerank", _rerank),
    "jina-rerank": Shape("/v1/rerank", _rerank),
    "tei-rerank": Shape("/rerank", _tei_rerank, names_model=False),
    "vllm-score": Shape("/generative_scoring", _generative),
    "sglang-score": Shape("/v1/score", _generative),
    "decisions": Shape("/v1/decisions", _decisions),
}
"""By the name that the command line knows."""
