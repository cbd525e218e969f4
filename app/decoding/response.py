"""POST /v1/decode, second half: what a search found, as text."""

from __future__ import annotations

from collections.abc import Sequence

from app.decoding.plan import DecodePlan
from app.decoding.search_tree import search_tree
from app.requests.token_details import Span, token_details
from app.schemas.decode_response import CertificateReport, DecodedSequence
from app.schemas.response import TokenDetail
from app.schemas.search_tree import SearchTree
from model_runtime import DecodingResult, FinishReason, Hypothesis, RecordedSearch, Tokenizer


def decoded_sequences(
    tokenizer: Tokenizer, plan: DecodePlan, result: DecodingResult
) -> list[DecodedSequence]:
    """The completions, best first."""
    lists = plan.request.lists_tokens
    begin = len(plan.prompt.content_bytes(tokenizer)) - plan.shift_bytes if lists else 0
    return [
        DecodedSequence(
            index=index,
            text=completion_bytes(tokenizer, plan, found).decode("utf-8", "replace"),
            token_ids=list(found.token_ids),
            logprob=found.logprob,
            score=found.score,
            finish_reason="length" if found.finish_reason is FinishReason.LENGTH else "stop",
            candidate=_candidate(plan, found),
            tokens=_tokens(tokenizer, found, begin) if lists else None,
        )
        for index, found in enumerate(result.hypotheses)
    ]


def certificate_report(result: DecodingResult) -> CertificateReport | None:
    """What the search has proven; None where it proves nothing."""
    certificate = result.certificate
    if certificate is None:
        return None
    return CertificateReport(
        optimal=certificate.optimal,
        gap=certificate.gap,
        upper_bound=certificate.upper_bound,
        expanded=certificate.expanded,
    )


def search_trees(
    tokenizer: Tokenizer, plan: DecodePlan, results: Sequence[DecodingResult | None]
) -> list[SearchTree | None]:
    """What each of the plan's searches looked at; None where nobody asked."""
    return [
        search_tree(tokenizer, search, result, plan.limits, plan.vocab_size)
        if isinstance(search, RecordedSearch)
        else None
        for search, result in zip(plan.searches, results, strict=True)
    ]


def completion_bytes(tokenizer: Tokenizer, plan: DecodePlan, found: Hypothesis) -> bytes:
    """The bytes of a completion's text: without an end token and what lies behind a stop."""
    candidate = _candidate(plan, found)
    if plan.closed is not None and candidate is not None:
        return plan.closed.content(tokenizer, candidate)
    content = b"".join(map(plan.text_bytes, _visible_ids(found)))
    if found.stop_span is not None:
        content = content[: found.stop_span[0]]
    return content[plan.shift_bytes :]


def _candidate(plan: DecodePlan, found: Hypothesis) -> int | None:
    if plan.closed is None:
        return None
    return plan.closed.index(found.token_ids, ended=found.finish_reason is FinishReason.END)


def _visible_ids(found: Hypothesis) -> tuple[int, ...]:
    """The generated ids that stand for text: all but an end token."""
    return found.token_ids[:-1] if found.finish_reason is FinishReason.END else found.token_ids


def _tokens(tokenizer: Tokenizer, found: Hypothesis, begin: int) -> list[TokenDetail]:
    spans: list[Span] = [*tokenizer.byte_offsets(_visible_ids(found), begin)]
    end = spans[-1][1] if spans else begin
    spans += [(end, end)] * (len(found.token_ids) - len(spans))
    return token_details(
        tokenizer, found.token_ids, spans, found.token_logprobs, found.token_ranks, found.top
    )
