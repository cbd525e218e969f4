"""What a score is compared with: the same candidate ids under other contexts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from app.requests.limits import check_context
from app.requests.prompt import parse_prompt
from app.schemas.request import ContextRequest
from app.schemas.score import ScoreRequest
from model_runtime import InvalidQuery, LogprobQuery, ModelInfo, Tokenizer


@dataclass(frozen=True, slots=True)
class Baseline:
    """The contexts of a ``pmi`` or ``calibrated`` score.

    Attributes:
        prefixes: their token paths; none for any other normalization.
    """

    prefixes: tuple[tuple[int, ...], ...]

    def queries(self, query: LogprobQuery) -> tuple[LogprobQuery, ...]:
        """What ``query`` scores, behind each of the contexts."""
        ids = query.tokens[query.score_from :]
        return tuple(
            LogprobQuery(prefix + ids, score_from=len(prefix), targets=query.targets)
            for prefix in self.prefixes
        )


def read_baseline(tokenizer: Tokenizer, info: ModelInfo, request: ScoreRequest) -> Baseline:
    """The contexts that the request's normalization names, as token paths.

    Raises:
        InvalidQuery: one cannot be read, is too long or has nothing to begin with; named.
    """
    return Baseline(
        tuple(_prefix(tokenizer, info, other, param) for param, other in _other_contexts(request))
    )


def _other_contexts(request: ScoreRequest) -> Iterator[tuple[str, ContextRequest]]:
    contexts = dict(enumerate(request.calibration_contexts or ()))
    named = {f"calibration_contexts.{index}": one for index, one in contexts.items()}
    if request.pmi_context is not None:
        named["pmi_context"] = request.pmi_context
    for param, context in named.items():
        yield param, request.model_copy(update={"context": context})


def _prefix(
    tokenizer: Tokenizer, info: ModelInfo, request: ContextRequest, param: str
) -> tuple[int, ...]:
    try:
        prefix = parse_prompt(tokenizer, info, request).token_ids(tokenizer)
        check_context(len(prefix), info, room=1)
    except InvalidQuery as error:
        if error.param is not None and not error.param.startswith("context"):
            raise
        raise error.at(param) from error
    return prefix
