"""The runtime's door: what is behind it is pinned, so that a change of it is a decision."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import model_runtime

NAMES = [
    "BATCH_SIZE_BOUNDS",
    "BUILTIN_MODELS",
    "BeamSearch",
    "Boundary",
    "Certificate",
    "ChainruleError",
    "ClosedSet",
    "CompletionState",
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
    "ExpandedPrefix",
    "FinishReason",
    "ForwardFailed",
    "ForwardObserver",
    "ForwardRun",
    "GNMT_ALPHA",
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
    "RecordedSearch",
    "RequestOptions",
    "RequestOutput",
    "RequestTooLarge",
    "SECONDS_BOUNDS",
    "SearchStrategy",
    "Size",
    "StopMatcher",
    "StopStrings",
    "ThresholdSearch",
    "TokenIdOutOfRange",
    "TokenLogprob",
    "TokenMask",
    "TokenSet",
    "Tokenizer",
    "TopCandidates",
    "TopKSelection",
    "TopKWithTies",
    "TopResult",
    "UnsupportedModel",
    "VocabularyTrie",
    "are_apart",
    "common_prefix",
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
    "prefix_of",
    "prefix_pairs",
    "probabilities",
    "tie_groups",
    "total",
    "vocabulary_trie",
]


NEEDS_TORCH = {
    *("Boundary", "Engine", "Grammar", "Join", "JoinedCandidate", "LoadedModel", "Tokenizer"),
    *("fetch_model", "grammar_installed", "join", "load_model"),
}
"""Names that bring torch with them, by way of transformers or at once."""


def test_the_door_has_exactly_these_names() -> None:
    """``model_runtime.__all__`` is this list, and each name is there."""
    assert sorted(vars(model_runtime)["__all__"]) == sorted(dir(model_runtime)) == NAMES
    assert all(hasattr(model_runtime, name) for name in NAMES)
    assert not hasattr(model_runtime, "engine_of_another_kind")


def test_type_checkers_are_told_of_the_same_names() -> None:
    """The imports that they read and the modules where names are looked up agree."""
    (block,) = [
        node
        for node in ast.parse(Path(model_runtime.__file__).read_text()).body
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name)
    ]
    told = {
        (node.module, alias.name, alias.asname)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    found = {(f"model_runtime.{model_runtime._MODULE_OF[name]}", name, name) for name in NAMES}
    assert told == found


@pytest.mark.process
def test_what_needs_no_torch_is_imported_without() -> None:
    """Scores are compared, requests made and errors caught without the seconds that torch takes."""
    light = ", ".join(name for name in NAMES if name not in NEEDS_TORCH)
    program = (
        "import sys, model_runtime.normalization\n"
        f"from model_runtime import {light}\n"
        "print({'torch', 'transformers', 'numpy'} & {*sys.modules})"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert run.stdout == "set()\n"
