"""POST /v1/decode, the request: what to generate, and how to search for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Literal, TypeVar

from pydantic import ConfigDict, Field, PlainValidator, TypeAdapter, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from app.schemas.bounds import (
    DEFAULT_EXPANSIONS,
    MAX_BEAMS,
    MAX_EXACT_SEQUENCES,
    MAX_EXPANSIONS,
    MAX_GRAMMAR_BEAMS,
    MAX_LENGTH_PENALTY,
    MAX_NEW_TOKENS,
    MAX_STOP_CHARS,
    MAX_STOP_IDS,
    MAX_STOPS,
    MAX_THRESHOLD_SEQUENCES,
)
from app.schemas.conditions import UNSET, Schema, absent_or, any_of, given, when
from app.schemas.constraint import ConstrainedRequest
from app.schemas.request import TokenId

T = TypeVar("T")

Strategy = Literal["greedy", "beam", "exact"]
Feasible = Literal["any", "ended"]
Compared = Annotated[
    list[Strategy], Field(min_length=2, max_length=3, json_schema_extra={"uniqueItems": True})
]

StopText = Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARS)]
StopTexts = Annotated[list[StopText], Field(max_length=MAX_STOPS)]
_STOP_TEXTS: TypeAdapter[list[str]] = TypeAdapter(StopTexts, config=ConfigDict(strict=True))
_STOP_TEXT: TypeAdapter[str] = TypeAdapter(StopText, config=ConfigDict(strict=True))

DEFAULT_BEAMS: Final = 4
DEFAULT_NEW_TOKENS: Final = 32

_HAVE: Final[dict[str, tuple[Strategy, ...]]] = {
    "num_beams": ("beam", "exact"),
    "length_penalty": ("beam", "exact"),
    "threshold": ("exact",),
    "num_return_sequences": ("beam", "exact"),
    "early_stopping": ("beam",),
    "feasible": ("exact",),
    "max_expansions": ("exact",),
}
"""The strategies that have a setting."""

_NEUTRAL: Final[dict[str, object]] = {
    "num_beams": 1,
    "length_penalty": 1.0,
    "num_return_sequences": 1,
    "early_stopping": False,
    "feasible": "any",
}
"""Values that contradict no strategy, beside null."""


def _read_stop(value: object) -> list[str]:
    if isinstance(value, str):
        return [_STOP_TEXT.validate_python(value)]
    if isinstance(value, list):
        return _STOP_TEXTS.validate_python(value)
    raise PydanticCustomError("stop_type", "Input should be text or a list of texts")


def _read_early_stopping(value: object) -> object:
    if isinstance(value, bool) or value == "never":
        return value
    raise PydanticCustomError("early_stopping_type", 'Input should be true, false or "never"')


Stop = Annotated[list[str], PlainValidator(_read_stop, json_schema_input_type=StopText | StopTexts)]
EarlyStopping = Annotated[
    Literal[True, False, "never"],
    PlainValidator(_read_early_stopping, json_schema_input_type=Literal[True, False, "never"]),
]


class DecodeRequest(ConstrainedRequest):
    """What to generate, and how to search for it."""

    strategy: Strategy | None = None
    """``greedy``: the most probable token at each step. ``beam``: beam search with the semantics of
    Hugging Face's ``generate``. ``exact``: the truly most probable completions, with a certificate.
    Null: ``greedy``."""
    compare: Compared | None = None
    """Run these strategies on the same question and answer in ``compared``, with what each missed
    of the optimum where exact is among them. Goes without ``strategy``."""
    max_tokens: Annotated[int, Field(ge=1, le=MAX_NEW_TOKENS)] | None = None
    """Tokens to generate at most, an end token included. Null: 32; with candidates, enough for the
    longest. A candidate that does not fit is none."""
    min_tokens: Annotated[int, Field(ge=0, le=MAX_NEW_TOKENS)] = 0
    """No end before so many tokens have been generated; at most ``max_tokens``."""
    num_beams: Annotated[int, Field(ge=1, le=MAX_BEAMS)] | None = None
    """Beams kept at each step; for ``exact``, of the beam search that gives it its first bound.
    Null: 4."""
    length_penalty: (
        Annotated[float, Field(ge=-MAX_LENGTH_PENALTY, le=MAX_LENGTH_PENALTY)] | None
    ) = None
    """A completion's score is ``logprob / generated_length ** length_penalty``, its end token
    counted. Null: 1 for ``beam``, 0 for ``exact``, which then ranks by the log-probability."""
    threshold: Annotated[float, Field(gt=0, le=1)] | None = None
    """For ``exact``: every completion of at least this probability, most probable first."""
    num_return_sequences: Annotated[int, Field(ge=1, le=MAX_BEAMS)] | None = None
    """Completions to return at most: up to ``num_beams`` of the beams; for ``exact`` the so many
    best, up to 64. Null: 1; with ``threshold``, 512."""
    early_stopping: EarlyStopping = False
    """When a beam search ends. true: as soon as ``num_beams`` have finished. false: when no live
    beam looks able to beat them at its present length. "never": when none can at any length."""
    feasible: Feasible = "any"
    """What ``exact`` searches. ``any``: completions that ended or are ``max_tokens`` long, which is
    what greedy and beam search in. ``ended``: only those that ended, which under a constraint are
    those that satisfy it as a whole."""
    max_expansions: Annotated[int, Field(ge=1, le=MAX_EXPANSIONS)] | None = None
    """Prefixes that ``exact`` asks the model about at most. When they, ``timeout_ms`` or the 32 MiB
    of a search run out it answers with the best so far, and the certificate says so; behind long
    contexts it holds fewer prefixes. Null: 4096."""
    stop: Stop = Field(default_factory=list)
    """Texts that end a sequence, found in what was generated, never in the context. The returned
    text is cut before them."""
    stop_token_ids: Annotated[list[TokenId], Field(max_length=MAX_STOP_IDS)] = Field(
        default_factory=list
    )
    """Tokens that end a sequence, besides the model's own end tokens."""
    ignore_eos: bool = False
    """The model's own end tokens do not end a sequence."""
    search_tree: bool = False
    """Answer what the search looked at, as a tree of tokens. Not of a stream."""
    stream: bool = False
    """Answer with server-sent events: a ``token`` event for each token as it is generated, then one
    ``result`` event, which is what the plain answer would have been. Greedy only."""

    conditions: ClassVar[tuple[Schema, ...]] = (
        *ConstrainedRequest.conditions,
        *(
            when(
                given(field, {"not": {"enum": [None, _NEUTRAL.get(field)]}}),
                any_of(
                    given("strategy", {"enum": list(have)}),
                    given("compare", {"contains": {"enum": list(have)}}),
                ),
            )
            for field, have in _HAVE.items()
        ),
        when(given("compare"), absent_or(strategy=UNSET, threshold=UNSET)),
        when(
            given("stream", {"const": True}),
            absent_or(
                strategy={"enum": ["greedy", None]}, compare=UNSET, search_tree={"const": False}
            ),
        ),
        when(given("threshold"), absent_or(length_penalty={"enum": [0, None]})),
        when(
            any_of(given("regex"), given("json_schema")),
            absent_or(num_beams={"anyOf": [{"maximum": MAX_GRAMMAR_BEAMS}, UNSET]}),
        ),
        when(given("num_return_sequences", {"not": {"enum": [1, None]}}), absent_or(compare=UNSET)),
    )

    examples: ClassVar[tuple[dict[str, Any], ...]] = (
        {"context": "The capital of France is", "max_tokens": 8},
        {
            "context": "The capital of France is",
            "strategy": "beam",
            "num_beams": 4,
            "num_return_sequences": 2,
            "max_tokens": 16,
            "stop": ["\n"],
            "token_logprobs": True,
        },
        {"context": "The capital of France is", "strategy": "exact", "max_tokens": 6},
        {
            "context": "The capital of France is",
            "compare": ["greedy", "beam", "exact"],
            "max_tokens": 6,
        },
        {
            "context": "The capital of France is",
            "strategy": "beam",
            "num_beams": 2,
            "max_tokens": 3,
            "search_tree": True,
        },
        {"context": "The sky is", "candidates": [" blue", " green"], "strategy": "exact"},
        {"context": "The year is", "regex": " (19|20)[0-9]{2}", "stream": True},
    )

    @property
    def strategies(self) -> tuple[Strategy, ...]:
        """Those that run."""
        return tuple(self.compare) if self.compare else (self.strategy or "greedy",)

    @property
    def token_limit(self) -> int:
        """``max_tokens``, where no candidates decide it."""
        return self.max_tokens or DEFAULT_NEW_TOKENS

    @property
    def beams(self) -> int:
        """Beams kept at each step."""
        return self.num_beams or DEFAULT_BEAMS

    @property
    def returned(self) -> int:
        """Completions of one strategy to return at most."""
        return self.num_return_sequences or (
            1 if self.threshold is None else MAX_THRESHOLD_SEQUENCES
        )

    @property
    def expansions(self) -> int:
        """The budget of an exact search."""
        return self.max_expansions or DEFAULT_EXPANSIONS

    def penalty(self, strategy: Strategy) -> float:
        """The exponent that a strategy ranks by."""
        if self.length_penalty is not None and strategy != "greedy":
            return self.length_penalty
        return 1.0 if strategy == "beam" else 0.0

    @field_validator("num_beams")
    @classmethod
    def _is_within_masks(cls, value: int | None, info: ValidationInfo) -> int | None:
        grammar = info.data.get("regex") is not None or info.data.get("json_schema") is not None
        if grammar and value is not None and value > MAX_GRAMMAR_BEAMS:
            raise PydanticCustomError(
                "above_grammar_beams",
                "Input should be at most {limit} under regex and json_schema",
                {"limit": MAX_GRAMMAR_BEAMS},
            )
        return value

    @field_validator("compare")
    @classmethod
    def _goes_alone(cls, value: list[Strategy] | None, info: ValidationInfo) -> object:
        if value is not None and info.data.get("strategy") is not None:
            raise PydanticCustomError("compare_alone", "Input goes without strategy")
        if value is not None and len(set(value)) < len(value):
            raise PydanticCustomError("compare_twice", "Input should name each strategy once")
        return value

    @field_validator(*_HAVE)
    @classmethod
    def _is_of_a_strategy(cls, value: T, info: ValidationInfo) -> T:
        name = str(info.field_name)
        have = _HAVE[name]
        if value in (None, _NEUTRAL.get(name)) or set(have) & set(_strategies(info.data)):
            return value
        raise PydanticCustomError(
            "not_of_this_strategy",
            "Input goes with strategy {strategies} only",
            {"strategies": " or ".join(have)},
        )

    @field_validator("min_tokens")
    @classmethod
    def _is_within_max_tokens(cls, value: int, info: ValidationInfo) -> int:
        limit = info.data.get("max_tokens", value)
        if limit is None:
            # How long candidates are is known once they are tokens.
            limit = value if info.data.get("candidates") else DEFAULT_NEW_TOKENS
        if value > limit:
            raise PydanticCustomError("above_max_tokens", "Input should be at most max_tokens")
        return value

    @field_validator("threshold")
    @classmethod
    def _is_about_the_sum(cls, value: float | None, info: ValidationInfo) -> float | None:
        if value is None:
            return value
        if info.data.get("compare") is not None:
            raise PydanticCustomError("threshold_alone", "Input goes without compare")
        if info.data.get("length_penalty"):
            raise PydanticCustomError(
                "threshold_of_sum", "Input goes without length_penalty: probability has no length"
            )
        return value

    @field_validator("num_return_sequences")
    @classmethod
    def _is_within_its_search(cls, value: int | None, info: ValidationInfo) -> int | None:
        data, strategies = info.data, _strategies(info.data)
        if value is None or value == 1:
            return value
        if len(strategies) > 1:
            raise PydanticCustomError("one_each", "Compared strategies return one sequence each")
        if "beam" in strategies and "num_beams" in data:
            if value > (data["num_beams"] or DEFAULT_BEAMS):
                raise PydanticCustomError("above_num_beams", "Input should be at most num_beams")
        elif data.get("threshold") is None and value > MAX_EXACT_SEQUENCES:
            raise PydanticCustomError(
                "above_best",
                "Input should be at most {limit} for exact",
                {"limit": MAX_EXACT_SEQUENCES},
            )
        return value

    @field_validator("stream")
    @classmethod
    def _is_greedy(cls, value: bool, info: ValidationInfo) -> bool:
        if value and _strategies(info.data) != ("greedy",):
            raise PydanticCustomError("greedy_only", "Only the greedy strategy can be streamed")
        if value and info.data.get("search_tree"):
            raise PydanticCustomError("stream_without_tree", "Input goes without search_tree")
        return value


def _strategies(data: Mapping[str, Any]) -> tuple[Strategy, ...]:
    """As ``DecodeRequest.strategies``, of the fields read until now."""
    return tuple(data.get("compare") or (data.get("strategy") or "greedy",))
