"""GET /v1/models: what is served, and its limits."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final, Literal

from pydantic import ConfigDict, Field

from app.schemas import bounds
from app.schemas.response import OmitEmpty, OmitNone, ResponseModel


class NumericError(ResponseModel):
    """Estimated |log-probability - float64| of one token, on a fixed sample."""

    maximum: float
    rms: float


class LimitsCard(ResponseModel):
    """The largest request that is read."""

    max_body_bytes: int
    max_candidates: int
    """Of /v1/score; ``max_choices`` of a closed set of /v1/decode."""
    max_results: int
    """Candidates that are reported in full; more need ``compact``."""
    max_choices: int
    max_scored_tokens: int
    """Scored tokens of all candidates of a request."""
    max_path_tokens: int
    """The same with the context before each of them, where all are scored to the end."""
    max_text_chars: int
    max_joined_chars: int
    """Characters that ``joint`` tokenizes for one request."""
    max_token_ids: int
    max_top_logprobs: int
    max_token_entries: int
    max_top_entries: int
    max_labels: int
    max_calibration_contexts: int
    max_marginal_expansions: int
    """Token paths that ``marginal`` may ask about for one candidate."""
    max_marginal_paths: int
    """The same for all candidates of a request together."""
    max_audit_candidates: int
    max_audit_tokens: int
    """Scored tokens of all candidates of an audit."""
    max_beams: int
    max_expansions: int
    """Prefixes that one exact search may ask about."""
    max_exact_sequences: int
    """Best completions that one exact search may return."""
    max_threshold_sequences: int
    """Completions above a ``threshold`` that one search may return."""
    max_regex_chars: int
    max_json_schema_chars: int
    max_prompts: int
    """Of /v1/completions, as the next three."""
    max_completion_tokens: int
    """Tokens that all choices may generate together."""
    max_completion_entries: int
    """Tokens that are listed, times ``logprobs``."""
    max_echo_bytes: int
    """Of echoed prompts, each as often as it is shown."""
    max_documents: int
    """Of a rerank request; pairs of a scoring one."""
    max_rerank_bytes: int
    """Of all prompts of a rerank request, each with its query and whole document."""
    max_label_scores: int
    """Items times labels of a scoring request."""
    max_questions: int
    """Of a decisions request."""
    max_options: int
    """Of each question."""
    grammar: bool
    """Whether ``regex`` and ``json_schema`` are served."""


BOUNDS: Final[dict[str, int]] = {
    name: getattr(bounds, name.upper()) for name in LimitsCard.model_fields if name != "grammar"
}
"""The constants of ``app.schemas.bounds`` by the names that ``LimitsCard`` has for them; an
operator may have set some of them lower."""


class NamedPrompt(ResponseModel):
    """An instruction that the model's folder has a name for."""

    name: str
    text: str


class RerankCard(ResponseModel):
    """How the model's own folder has documents ranked, where the settings leave that to it."""

    source: str
    """The file that says so, or ``convention``: no file does, and the chat template speaks of
    queries and documents."""
    true_token_id: int
    false_token_id: OmitNone[int] = None
    """Absent where the logit of the true token alone is the score."""
    activation: Literal["sigmoid", "identity", "tanh"]
    """What makes a score of the logit, or of the difference of both: 0..1, any number, or -1..1."""
    takes_instruction: bool
    """Whether a request's ``instruction`` reaches the prompt."""
    instruction: OmitNone[str] = None
    """What a request gets that brings none; absent for none."""
    prompts: OmitEmpty[list[NamedPrompt]] = Field(default_factory=list)
    """Instructions to choose from; absent where the folder has none."""
    max_tokens: int
    """Tokens of a document's prompt at most."""


class ModelCard(ResponseModel):
    """A served model."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "smollm2-135m-instruct",
                    "object": "model",
                    "created": 1764000000,
                    "owned_by": "chainrule",
                    "fingerprint": "5b1f0c7a9d3e4f62",
                    "numeric_error": {"maximum": 1e-5, "rms": 2e-6},
                    "architecture": "LlamaForCausalLM",
                    "parameters": 134515008,
                    "dtype": "float32",
                    "device": "cpu",
                    "kernels": "native",
                    "batch_invariant": True,
                    "vocab_size": 49152,
                    "max_model_len": 8192,
                    "bos_token_id": 1,
                    "end_token_ids": [2],
                    "limits": {**BOUNDS, "grammar": True},
                }
            ]
        }
    )

    id: str
    object: Literal["model"] = "model"
    created: int
    """Unix seconds at which it was loaded."""
    owned_by: Literal["chainrule"] = "chainrule"
    fingerprint: str
    """Digest of weights, tokenizer, dtype, code and torch version: the same one, the same bits."""
    numeric_error: OmitNone[NumericError] = None
    """Absent if not measured."""
    architecture: str
    parameters: int
    """Number of weights, tied ones once."""
    dtype: str
    device: str
    kernels: Literal["native", "torch"]
    """What computes: the library that was compiled with the package, or torch's kernels."""
    kernels_reason: OmitNone[str] = None
    """Why it is torch where the setting left it open; absent elsewhere."""
    batch_invariant: bool
    """A score has the same bits alone, in a crowd, cached and chunked, as checked at the start."""
    vocab_size: int
    """A valid token id is ``0 <= id < vocab_size``."""
    max_model_len: int
    """The longest path of context and continuation, in tokens."""
    bos_token_id: OmitNone[int] = None
    """Absent where the model has none."""
    end_token_ids: list[int]
    warnings: OmitEmpty[list[str]] = Field(default_factory=list)
    """What is odd about the model's files and may not be meant, as the log said at the start;
    absent where nothing is."""
    rerank: OmitNone[RerankCard] = None
    """Absent where the rerank routes go by the settings alone."""
    limits: LimitsCard


class NamedModel(ResponseModel):
    """A served model, as System One's clients list it."""

    name: str
    description: str
    """What computes the answers."""
    release_date: str
    """The day on which it was loaded here, as YYYY-MM-DD in UTC: its files do not tell another."""


def _named(fields: dict[str, Any]) -> list[NamedModel]:
    return [
        NamedModel(
            name=card.id,
            description=f"{card.architecture} of {card.parameters} parameters in {card.dtype}",
            release_date=datetime.fromtimestamp(card.created, UTC).date().isoformat(),
        )
        for card in fields.get("data", ())
    ]


class ModelList(ResponseModel):
    """All served models."""

    object: Literal["list"] = "list"
    data: list[ModelCard]
    models: list[NamedModel] = Field(default_factory=_named)
    """The same models, in System One's shape."""
