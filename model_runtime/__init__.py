"""Token ids in, log-probabilities out. Knows no HTTP.

This is the runtime's only door: whoever is outside imports from here and from nowhere below.
"""

from model_runtime.builtin_model import BUILTIN_MODELS
from model_runtime.config import EngineConfig
from model_runtime.decoding.base import Answer, SearchStrategy
from model_runtime.decoding.beam import BeamSearch
from model_runtime.decoding.greedy import GreedySearch
from model_runtime.decoding.hypothesis import DecodingResult, FinishReason, Hypothesis
from model_runtime.decoding.limits import DecodingLimits
from model_runtime.decoding.stopping import StopMatcher, StopStrings
from model_runtime.engine import Engine
from model_runtime.errors import (
    ChainruleError,
    CorruptModel,
    DeadlineExceeded,
    EngineDied,
    EngineNotReady,
    EngineOverloaded,
    EngineStopping,
    EngineUnavailable,
    ForwardFailed,
    InvalidQuery,
    ModelFetchFailed,
    ModelLoadError,
    ModelNotFound,
    NonFiniteLogits,
    OutOfMemory,
    PathTooLong,
    RequestTooLarge,
    TokenIdOutOfRange,
    UnsupportedModel,
)
from model_runtime.join import Boundary, Join, JoinedCandidate, join
from model_runtime.model_loader import LoadedModel, fetch_model, load_model
from model_runtime.normalization import (
    Normalization,
    competition_ranks,
    normalized_error,
    normalized_score,
    perplexity,
    prefix_of,
    probabilities,
    tie_groups,
)
from model_runtime.tokenizer import Tokenizer
from model_runtime.types import (
    EngineStats,
    LogprobQuery,
    LogprobResult,
    ModelInfo,
    Outcome,
    Priority,
    RequestOptions,
    TokenLogprob,
    total,
)

__all__ = [
    "BUILTIN_MODELS",
    "Answer",
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
