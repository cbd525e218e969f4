"""The runtime's door: what is behind it is pinned, so that a change of it is a decision."""

from __future__ import annotations

import model_runtime

NAMES = [
    "Answer",
    "BUILTIN_MODELS",
    "BeamSearch",
    "Boundary",
    "ChainruleError",
    "CorruptModel",
    "DeadlineExceeded",
    "DecodingLimits",
    "DecodingResult",
    "Engine",
    "EngineConfig",
    "EngineDied",
    "EngineNotReady",
    "EngineOverloaded",
    "EngineStats",
    "EngineStopping",
    "EngineUnavailable",
    "FinishReason",
    "ForwardFailed",
    "GreedySearch",
    "Hypothesis",
    "InvalidQuery",
    "Join",
    "JoinedCandidate",
    "LoadedModel",
    "LogprobQuery",
    "LogprobResult",
    "ModelFetchFailed",
    "ModelInfo",
    "ModelLoadError",
    "ModelNotFound",
    "NonFiniteLogits",
    "Normalization",
    "OutOfMemory",
    "Outcome",
    "PathTooLong",
    "Priority",
    "RequestOptions",
    "RequestTooLarge",
    "SearchStrategy",
    "StopMatcher",
    "StopStrings",
    "TokenIdOutOfRange",
    "TokenLogprob",
    "Tokenizer",
    "UnsupportedModel",
    "competition_ranks",
    "fetch_model",
    "join",
    "load_model",
    "normalized_error",
    "normalized_score",
    "perplexity",
    "prefix_of",
    "probabilities",
    "tie_groups",
    "total",
]


def test_the_door_has_exactly_these_names() -> None:
    """``model_runtime.__all__`` is this list, and each name is there."""
    assert sorted(model_runtime.__all__) == NAMES
    assert all(hasattr(model_runtime, name) for name in NAMES)
