"""What the searches of one request found, as the response shows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app.decoding.comparison import compared_strategies
from app.decoding.plan import DecodePlan
from app.decoding.response import certificate_report, decoded_sequences, search_trees
from app.schemas.decode_response import CertificateReport, ComparedStrategy, DecodedSequence
from app.schemas.search_tree import SearchTree
from model_runtime import DecodingResult, RequestOutput, Tokenizer


@dataclass(frozen=True, slots=True)
class DecodeBody:
    """The parts of a ``DecodeResponse`` that the searches decide."""

    sequences: list[DecodedSequence]
    certificate: CertificateReport | None
    compared: list[ComparedStrategy] | None
    search_tree: SearchTree | None = None

    @property
    def scored_tokens(self) -> int:
        """Tokens of all sequences that are shown."""
        compared = [entry.sequence for entry in self.compared or () if entry.sequence]
        return sum(len(sequence.token_ids) for sequence in (*self.sequences, *compared))


def build_decode_body(
    tokenizer: Tokenizer, plan: DecodePlan, results: Sequence[DecodingResult | None]
) -> DecodeBody:
    """The results of the plan's searches, in their order; None for one that ran out of time."""
    found = [result for result in results if result is not None]
    certificate = next((c for c in map(certificate_report, found) if c is not None), None)
    if plan.request.compare is not None:
        return DecodeBody([], certificate, compared_strategies(tokenizer, plan, results))
    (result,) = found
    (tree,) = search_trees(tokenizer, plan, results)
    return DecodeBody(decoded_sequences(tokenizer, plan, result), certificate, None, tree)


def combine_outputs(
    ends: Sequence[RequestOutput[DecodingResult] | None],
) -> RequestOutput[tuple[DecodingResult | None, ...]]:
    """The cost of searches that ran concurrently: counts add up, times are the longest.

    None stands for a search that ran out of time; at least one did not.
    """
    outcomes = [end for end in ends if end is not None]
    return RequestOutput(
        value=tuple(None if end is None else end.value for end in ends),
        computed_tokens=sum(outcome.computed_tokens for outcome in outcomes),
        cached_tokens=sum(outcome.cached_tokens for outcome in outcomes),
        queue_s=max(outcome.queue_s for outcome in outcomes),
        model_s=max(outcome.model_s for outcome in outcomes),
    )
