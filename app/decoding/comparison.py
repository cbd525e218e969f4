"""Strategies side by side: what each found, and by how much it missed the optimum."""

from __future__ import annotations

from collections.abc import Sequence

from app.decoding.plan import DecodePlan
from app.decoding.response import decoded_sequences, search_trees
from app.schemas.decode import DecodeRequest, Strategy
from app.schemas.decode_response import ComparedStrategy
from model_runtime import DecodingResult, Tokenizer

NOTHING_FOUND = "no completion was found"


def compared_strategies(
    tokenizer: Tokenizer, plan: DecodePlan, results: Sequence[DecodingResult | None]
) -> list[ComparedStrategy]:
    """One entry for each strategy of the request, in its order; None for one that ran out of time.

    A search error is the proven optimum's log-probability minus that of what was found. It needs
    an optimum of the log-probability over the very set that the other strategy searched in.
    """
    strategies = plan.request.strategies
    exact = dict(zip(strategies, results, strict=True)).get("exact")
    entries = []
    trees = search_trees(tokenizer, plan, results)
    for strategy, result, tree in zip(strategies, results, trees, strict=True):
        reason = _why_unknown(strategy, result, exact, plan.request)
        sequences = decoded_sequences(tokenizer, plan, result) if result is not None else []
        total = sequences[0].logprob if sequences else None
        entries.append(
            ComparedStrategy(
                strategy=strategy,
                sequence=sequences[0] if sequences else None,
                total=total,
                search_error=_search_error(exact, total) if reason is None else None,
                reason=reason,
                search_tree=tree,
            )
        )
    return entries


def _search_error(exact: DecodingResult | None, total: float | None) -> float:
    if exact is None or total is None:
        raise RuntimeError("this is a bug: a search error without an optimum or a total")
    # Two totals closer than the numeric error may come out in either order.
    return max(0.0, exact.hypotheses[0].logprob - total)


def _why_unknown(
    strategy: Strategy,
    result: DecodingResult | None,
    exact: DecodingResult | None,
    request: DecodeRequest,
) -> str | None:
    """Why there is no search error, naming the setting; None where there is one."""
    if result is None:
        return f"{strategy} had found nothing when timeout_ms ran out"
    if "exact" not in request.strategies:
        return "exact is not among compare, so the optimum is not known"
    if not result.hypotheses:
        return NOTHING_FOUND
    return _why_unproven(exact, request) or _why_another_set(strategy, request)


def _why_unproven(exact: DecodingResult | None, request: DecodeRequest) -> str | None:
    if exact is None or exact.certificate is None:
        return "exact had found nothing when timeout_ms ran out"
    penalty = request.penalty("exact")
    if penalty != 0.0:
        return f"exact ranked by length_penalty {penalty}, not by the log-probability"
    if not exact.certificate.optimal:
        gap = exact.certificate.gap
        shown = NOTHING_FOUND if gap is None else f"gap {gap:.4g} nats"
        return f"exact ran out of max_expansions, timeout_ms or memory: {shown}"
    return None


def _why_another_set(strategy: Strategy, request: DecodeRequest) -> str | None:
    if strategy != "exact" and request.feasible != "any":
        return f'exact searched feasible "{request.feasible}", {strategy} "any"'
    return None
