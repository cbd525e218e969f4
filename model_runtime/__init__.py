"""Token ids in, log-probabilities out. Knows no HTTP.

The public interface: code outside of this package imports from here and from nowhere below.
"""

from model_runtime.config import EngineConfig
from model_runtime.decoding.base import SearchStrategy
from model_runtime.decoding.beam import BeamSearch
from model_runtime.decoding.best_first.exact import ExactSearch
from model_runtime.decoding.best_first.threshold import ThresholdSearch
from model_runtime.decoding.certificate import Certificate
from model_runtime.decoding.constraints.closed_set import ClosedSet
from model_runtime.decoding.constraints.constraint import Constraint
from model_runtime.decoding.constraints.grammar import Grammar, grammar_installed
from model_runtime.decoding.constraints.stop_strings import StopMatcher, StopStrings
from model_runtime.decoding.greedy import GreedySearch
from model_runtime.decoding.hypothesis import DecodingResult, FinishReason, Hypothesis
from model_runtime.decoding.limits import DecodingLimits
from model_runtime.decoding.marginal.cover_states import MarginalCandidate
from model_runtime.decoding.marginal.covers import MarginalResult
from model_runtime.decoding.marginal.marginal import MarginalAnswer, MarginalSearch
from model_runtime.decoding.marginal.vocabulary_trie import VocabularyTrie, vocabulary_trie
from model_runtime.decoding.streaming import GeneratedToken
from model_runtime.decoding.top_n.path_score import PathScore
from model_runtime.decoding.top_n.result import Pruned, RankedCandidate, TopResult
from model_runtime.decoding.top_n.tied_top_n import TopKWithTies
from model_runtime.decoding.top_n.top_candidates import TopCandidates
from model_runtime.engine import Engine
from model_runtime.errors import (
    ChainruleError,
    CorruptModel,
    DeadlineExceeded,
    EngineDied,
    EngineNotReady,
    EngineOverloaded,
    EngineStalled,
    EngineStopping,
    EngineUnavailable,
    ForwardFailed,
    InvalidQuery,
    MissingExtra,
    ModelFetchFailed,
    ModelLoadError,
    ModelNotFound,
    NonFiniteLogits,
    NothingFollows,
    OutOfMemory,
    PathTooLong,
    RequestTooLarge,
    TokenIdOutOfRange,
    UnsupportedModel,
)
from model_runtime.loading.builtin import BUILTIN_MODELS
from model_runtime.loading.loader import LoadedModel, fetch_model, load_model
from model_runtime.normalization import (
    GNMT_ALPHA,
    Normalization,
    Size,
    are_apart,
    competition_ranks,
    divisor,
    log_sum,
    mean_baseline,
    normalized_error,
    normalized_score,
    off_mass,
    perplexity,
    prefix_of,
    prefix_pairs,
    probabilities,
    tie_groups,
)
from model_runtime.token_set import TokenSet
from model_runtime.tokenization.join import Boundary, Join, JoinedCandidate, join
from model_runtime.tokenization.tokenizer import Tokenizer
from model_runtime.types import (
    EngineStats,
    LogprobQuery,
    LogprobResult,
    ModelInfo,
    Priority,
    QueryResult,
    RankedLogprob,
    RequestOptions,
    RequestOutput,
    TokenLogprob,
    TopKSelection,
    total,
)

__all__ = [
    "BUILTIN_MODELS",
    "GNMT_ALPHA",
    "BeamSearch",
    "Boundary",
    "Certificate",
    "ChainruleError",
    "ClosedSet",
    "Constraint",
    "CorruptModel",
    "DeadlineExceeded",
    "DecodingLimits",
    "DecodingResult",
    "Engine",
    "EngineConfig",
    "EngineDied",
    "EngineNotReady",
    "EngineOverloaded",
    "EngineStalled",
    "EngineStats",
    "EngineStopping",
    "EngineUnavailable",
    "ExactSearch",
    "FinishReason",
    "ForwardFailed",
    "GeneratedToken",
    "Grammar",
    "GreedySearch",
    "Hypothesis",
    "InvalidQuery",
    "Join",
    "JoinedCandidate",
    "LoadedModel",
    "LogprobQuery",
    "LogprobResult",
    "MarginalAnswer",
    "MarginalCandidate",
    "MarginalResult",
    "MarginalSearch",
    "MissingExtra",
    "ModelFetchFailed",
    "ModelInfo",
    "ModelLoadError",
    "ModelNotFound",
    "NonFiniteLogits",
    "Normalization",
    "NothingFollows",
    "OutOfMemory",
    "PathScore",
    "PathTooLong",
    "Priority",
    "Pruned",
    "QueryResult",
    "RankedCandidate",
    "RankedLogprob",
    "RequestOptions",
    "RequestOutput",
    "RequestTooLarge",
    "SearchStrategy",
    "Size",
    "StopMatcher",
    "StopStrings",
    "ThresholdSearch",
    "TokenIdOutOfRange",
    "TokenLogprob",
    "TokenSet",
    "Tokenizer",
    "TopCandidates",
    "TopKSelection",
    "TopKWithTies",
    "TopResult",
    "UnsupportedModel",
    "VocabularyTrie",
    "are_apart",
    "competition_ranks",
    "divisor",
    "fetch_model",
    "grammar_installed",
    "join",
    "load_model",
    "log_sum",
    "mean_baseline",
    "normalized_error",
    "normalized_score",
    "off_mass",
    "perplexity",
    "prefix_of",
    "prefix_pairs",
    "probabilities",
    "tie_groups",
    "total",
    "vocabulary_trie",
]
