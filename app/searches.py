"""One strategy of a request as the search that the engine runs."""

from __future__ import annotations

import math

from app.schemas.bounds import MAX_ABOVE
from app.schemas.decode import DecodeRequest, Strategy
from model_runtime import (
    BeamSearch,
    DecodingLimits,
    ExactSearch,
    GreedySearch,
    ModelInfo,
    ThresholdSearch,
)

Search = GreedySearch | BeamSearch | ExactSearch | ThresholdSearch


def make_search(
    strategy: Strategy,
    prefix: tuple[int, ...],
    limits: DecodingLimits,
    info: ModelInfo,
    request: DecodeRequest,
) -> Search:
    """The search, good for one run.

    Raises:
        InvalidQuery: a setting is at fault; named.
    """
    if strategy == "greedy":
        return GreedySearch(prefix, limits, vocab_size=info.vocab_size)
    if strategy == "beam":
        return BeamSearch(
            prefix,
            limits,
            vocab_size=info.vocab_size,
            num_beams=request.beams,
            num_return_sequences=request.returned,
            length_penalty=request.penalty(strategy),
            early_stopping=request.early_stopping,
        )
    return _exact(prefix, limits, info, request)


def _exact(
    prefix: tuple[int, ...], limits: DecodingLimits, info: ModelInfo, request: DecodeRequest
) -> Search:
    if request.threshold is not None:
        return ThresholdSearch(
            prefix,
            limits,
            vocab_size=info.vocab_size,
            floor=math.log(request.threshold),
            max_results=min(request.returned, MAX_ABOVE),
            feasible=request.feasible,
            max_expansions=request.expansions,
            num_beams=request.beams,
        )
    return ExactSearch(
        prefix,
        limits,
        vocab_size=info.vocab_size,
        num_return_sequences=request.returned,
        length_penalty=request.penalty("exact"),
        feasible=request.feasible,
        max_expansions=request.expansions,
        num_beams=request.beams,
    )
