"""Token ids in, log-probabilities out. Knows no HTTP.

The public interface: code outside of this package imports from here and from nowhere below. A name
is imported when it is first asked for: ``Engine`` brings torch, which takes seconds, and whoever
wants to compare two scores need not wait for it.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # each name once more, for type checkers and editors
    from model_runtime.config import EngineConfig as EngineConfig
    from model_runtime.decoding.base import SearchStrategy as SearchStrategy
    from model_runtime.decoding.beam import BeamSearch as BeamSearch
    from model_runtime.decoding.best_first.exact import ExactSearch as ExactSearch
    from model_runtime.decoding.best_first.threshold import ThresholdSearch as ThresholdSearch
    from model_runtime.decoding.certificate import Certificate as Certificate
    from model_runtime.decoding.constraints.closed_set import ClosedSet as ClosedSet
    from model_runtime.decoding.constraints.constraint import Constraint as Constraint
    from model_runtime.decoding.constraints.grammar import (
        Grammar as Grammar,
        grammar_installed as grammar_installed,
    )
    from model_runtime.decoding.constraints.stop_strings import (
        StopMatcher as StopMatcher,
        StopStrings as StopStrings,
    )
    from model_runtime.decoding.constraints.token_mask import TokenMask as TokenMask
    from model_runtime.decoding.greedy import GreedySearch as GreedySearch
    from model_runtime.decoding.hypothesis import (
        DecodingResult as DecodingResult,
        FinishReason as FinishReason,
        Hypothesis as Hypothesis,
    )
    from model_runtime.decoding.limits import (
        CompletionState as CompletionState,
        DecodingLimits as DecodingLimits,
    )
    from model_runtime.decoding.marginal.cover_states import MarginalCandidate as MarginalCandidate
    from model_runtime.decoding.marginal.covers import MarginalResult as MarginalResult
    from model_runtime.decoding.marginal.marginal import (
        MarginalAnswer as MarginalAnswer,
        MarginalSearch as MarginalSearch,
    )
    from model_runtime.decoding.marginal.vocabulary_trie import (
        VocabularyTrie as VocabularyTrie,
        vocabulary_trie as vocabulary_trie,
    )
    from model_runtime.decoding.recorded import (
        ExpandedPrefix as ExpandedPrefix,
        RecordedSearch as RecordedSearch,
    )
    from model_runtime.decoding.streaming import GeneratedToken as GeneratedToken
    from model_runtime.decoding.top_n.path_score import PathScore as PathScore
    from model_runtime.decoding.top_n.result import (
        Pruned as Pruned,
        RankedCandidate as RankedCandidate,
        TopResult as TopResult,
    )
    from model_runtime.decoding.top_n.tied_top_n import TopKWithTies as TopKWithTies
    from model_runtime.decoding.top_n.top_candidates import TopCandidates as TopCandidates
    from model_runtime.engine import Engine as Engine
    from model_runtime.errors import (
        ChainruleError as ChainruleError,
        CorruptModel as CorruptModel,
        DeadlineExceeded as DeadlineExceeded,
        EngineDied as EngineDied,
        EngineNotReady as EngineNotReady,
        EngineOverloaded as EngineOverloaded,
        EngineStalled as EngineStalled,
        EngineStopping as EngineStopping,
        EngineUnavailable as EngineUnavailable,
        ForwardFailed as ForwardFailed,
        InvalidQuery as InvalidQuery,
        MissingExtra as MissingExtra,
        ModelFetchFailed as ModelFetchFailed,
        ModelLoadError as ModelLoadError,
        ModelNotFound as ModelNotFound,
        NonFiniteLogits as NonFiniteLogits,
        NothingFollows as NothingFollows,
        OutOfMemory as OutOfMemory,
        PathTooLong as PathTooLong,
        RequestTooLarge as RequestTooLarge,
        TokenIdOutOfRange as TokenIdOutOfRange,
        UnsupportedModel as UnsupportedModel,
    )
    from model_runtime.loading.builtin import BUILTIN_MODELS as BUILTIN_MODELS
    from model_runtime.loading.loader import (
        LoadedModel as LoadedModel,
        fetch_model as fetch_model,
        load_model as load_model,
    )
    from model_runtime.normalization import (
        GNMT_ALPHA as GNMT_ALPHA,
        Normalization as Normalization,
        Size as Size,
        are_apart as are_apart,
        competition_ranks as competition_ranks,
        divisor as divisor,
        log_sum as log_sum,
        mean_baseline as mean_baseline,
        normalized_error as normalized_error,
        normalized_score as normalized_score,
        off_mass as off_mass,
        prefix_of as prefix_of,
        prefix_pairs as prefix_pairs,
        probabilities as probabilities,
        tie_groups as tie_groups,
    )
    from model_runtime.scheduling.engine_stats import (
        BATCH_SIZE_BOUNDS as BATCH_SIZE_BOUNDS,
        SECONDS_BOUNDS as SECONDS_BOUNDS,
        EngineStats as EngineStats,
    )
    from model_runtime.token_paths import common_prefix as common_prefix
    from model_runtime.token_set import TokenSet as TokenSet
    from model_runtime.tokenization.join import (
        Boundary as Boundary,
        Join as Join,
        JoinedCandidate as JoinedCandidate,
        join as join,
    )
    from model_runtime.tokenization.tokenizer import Tokenizer as Tokenizer
    from model_runtime.types import (
        ForwardObserver as ForwardObserver,
        ForwardRun as ForwardRun,
        LogprobQuery as LogprobQuery,
        LogprobResult as LogprobResult,
        ModelInfo as ModelInfo,
        Priority as Priority,
        QueryResult as QueryResult,
        RankedLogprob as RankedLogprob,
        RequestOptions as RequestOptions,
        RequestOutput as RequestOutput,
        TokenLogprob as TokenLogprob,
        TopKSelection as TopKSelection,
        total as total,
    )

_NAMES = {
    "config": ["EngineConfig"],
    "decoding.base": ["SearchStrategy"],
    "decoding.beam": ["BeamSearch"],
    "decoding.best_first.exact": ["ExactSearch"],
    "decoding.best_first.threshold": ["ThresholdSearch"],
    "decoding.certificate": ["Certificate"],
    "decoding.constraints.closed_set": ["ClosedSet"],
    "decoding.constraints.constraint": ["Constraint"],
    "decoding.constraints.grammar": ["Grammar", "grammar_installed"],
    "decoding.constraints.stop_strings": ["StopMatcher", "StopStrings"],
    "decoding.constraints.token_mask": ["TokenMask"],
    "decoding.greedy": ["GreedySearch"],
    "decoding.hypothesis": ["DecodingResult", "FinishReason", "Hypothesis"],
    "decoding.limits": ["CompletionState", "DecodingLimits"],
    "decoding.marginal.cover_states": ["MarginalCandidate"],
    "decoding.marginal.covers": ["MarginalResult"],
    "decoding.marginal.marginal": ["MarginalAnswer", "MarginalSearch"],
    "decoding.marginal.vocabulary_trie": ["VocabularyTrie", "vocabulary_trie"],
    "decoding.recorded": ["ExpandedPrefix", "RecordedSearch"],
    "decoding.streaming": ["GeneratedToken"],
    "decoding.top_n.path_score": ["PathScore"],
    "decoding.top_n.result": ["Pruned", "RankedCandidate", "TopResult"],
    "decoding.top_n.tied_top_n": ["TopKWithTies"],
    "decoding.top_n.top_candidates": ["TopCandidates"],
    "engine": ["Engine"],
    "errors": [
        "ChainruleError",
        "CorruptModel",
        "DeadlineExceeded",
        "EngineDied",
        "EngineNotReady",
        "EngineOverloaded",
        "EngineStalled",
        "EngineStopping",
        "EngineUnavailable",
        "ForwardFailed",
        "InvalidQuery",
        "MissingExtra",
        "ModelFetchFailed",
        "ModelLoadError",
        "ModelNotFound",
        "NonFiniteLogits",
        "NothingFollows",
        "OutOfMemory",
        "PathTooLong",
        "RequestTooLarge",
        "TokenIdOutOfRange",
        "UnsupportedModel",
    ],
    "loading.builtin": ["BUILTIN_MODELS"],
    "loading.loader": ["LoadedModel", "fetch_model", "load_model"],
    "normalization": [
        "GNMT_ALPHA",
        "Normalization",
        "Size",
        "are_apart",
        "competition_ranks",
        "divisor",
        "log_sum",
        "mean_baseline",
        "normalized_error",
        "normalized_score",
        "off_mass",
        "prefix_of",
        "prefix_pairs",
        "probabilities",
        "tie_groups",
    ],
    "scheduling.engine_stats": ["BATCH_SIZE_BOUNDS", "SECONDS_BOUNDS", "EngineStats"],
    "token_paths": ["common_prefix"],
    "token_set": ["TokenSet"],
    "tokenization.join": ["Boundary", "Join", "JoinedCandidate", "join"],
    "tokenization.tokenizer": ["Tokenizer"],
    "types": [
        "ForwardObserver",
        "ForwardRun",
        "LogprobQuery",
        "LogprobResult",
        "ModelInfo",
        "Priority",
        "QueryResult",
        "RankedLogprob",
        "RequestOptions",
        "RequestOutput",
        "TokenLogprob",
        "TopKSelection",
        "total",
    ],
}
"""Modules below this package, and what is public of each."""

_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names}

if not TYPE_CHECKING:  # else a type checker would let any name pass, and know none of a ``*``
    __all__ = sorted(_MODULE_OF)

    def __dir__() -> list[str]:
        return __all__

    def __getattr__(name: str) -> object:
        if name not in _MODULE_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
        globals()[name] = value
        return value
