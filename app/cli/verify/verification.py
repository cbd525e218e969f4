"""The verdict on a receipt: it holds to the bit, it differs, or it cannot be compared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from app.cli.verify.comparison import arithmetic, compared
from app.cli.verify.recompute import Recomputation
from app.cli.verify.report import Computer, Finding, Verdict, Verification
from app.client import Client
from app.schemas.models import ModelCard
from app.schemas.receipt import Receipt, ReceiptCandidate


def verify(
    client: Client, receipt: Receipt, *, model: str | None = None, any_fingerprint: bool = False
) -> Verification:
    """Score the receipt's paths again where they can be compared, and compare them.

    Args:
        client: of the server that scores them.
        receipt: well formed.
        model: the name that the server's model must have; None for any.
        any_fingerprint: compare also where the model's fingerprint is another one.

    Raises:
        ClientError: the server does not answer, or refuses what no receipt is at fault for.
    """
    card, *_ = client.models()
    is_same = card.fingerprint == receipt.fingerprint
    shared = _shared(receipt, card)
    if not is_same and not any_fingerprint:
        findings = list(_contradictions(receipt))
        if findings:
            return _closed("differs", _contradicts(findings), shared, findings)
        return _closed("not_comparable", _what_differs(receipt, card), shared, [])
    problem = _unfit(receipt, card, is_same=is_same)
    if problem is not None:
        return _closed("differs" if is_same else "not_comparable", problem, shared, [])
    again = Recomputation(client, card, receipt, model)
    paths = again.all_paths()
    results = [compared(receipt, place, found) for place, found in enumerate(paths)]
    here = shared["here"].model_copy(update={"chainrule_version": again.chainrule_version})
    return _judged(receipt, card, {**shared, "here": here}, results)


def _judged(
    receipt: Receipt,
    card: ModelCard,
    shared: dict[str, Any],
    results: Sequence[tuple[Finding | None, float]],
) -> Verification:
    findings = [finding for finding, _ in results if finding is not None]
    unscored = {one.index for one in findings if one.recomputed is None}
    scored = [one for one in receipt.candidates if one.index not in unscored]
    logprobs = sum(len(one.logprobs) for one in scored) * len(receipt.prefixes)
    error = shared["numeric_error"]
    largest = max((difference for _, difference in results), default=0.0)
    # Two computations may err in opposite directions.
    within = None if error is None or not scored else largest <= 2 * error
    wrong = sum(one.comparable for one in findings)
    verdict: Verdict = "differs" if wrong else "not_comparable" if findings else "holds"
    if verdict == "holds":
        words = f"all {_counted(logprobs, 'log-probability')} are the same to the bit"
        is_same = card.fingerprint == receipt.fingerprint
        reason = words if is_same else f"{words}, though the fingerprint is another one"
    elif verdict == "not_comparable":
        reason = f"{_of_all(len(findings), receipt)} cannot be scored here"
    else:
        reason = f"{_of_all(wrong, receipt)}; {_by_how_much(scored, largest, error)}"
    return Verification(
        verdict=verdict,
        reason=reason,
        logprobs=logprobs,
        largest_difference=largest if scored else None,
        within_numeric_error=within,
        findings=findings,
        **shared,
    )


def _of_all(count: int, receipt: Receipt) -> str:
    return f"{count} of {_counted(len(receipt.candidates), 'candidate')}"


def _by_how_much(scored: Sequence[ReceiptCandidate], largest: float, error: float | None) -> str:
    if not scored:
        return "nothing could be computed again"
    if not largest:
        return "the log-probabilities that were computed again are the same"
    size = f"a token's log-probability differs by at most {largest:.1e} nats"
    if error is None:
        return f"{size}; the numeric error here is not known"
    place = "within" if largest <= 2 * error else "beyond"
    return f"{size}, {place} what the numeric error explains (2 x {error:.1e})"


def _shared(receipt: Receipt, card: ModelCard) -> dict[str, Any]:
    return {
        "receipt": Computer(
            model=receipt.model,
            fingerprint=receipt.fingerprint,
            dtype=receipt.dtype,
            kernels=receipt.kernels,
            chainrule_version=receipt.chainrule_version,
        ),
        "here": Computer(
            model=card.id, fingerprint=card.fingerprint, dtype=card.dtype, kernels=card.kernels
        ),
        "numeric_error": None if card.numeric_error is None else card.numeric_error.maximum,
        "candidates": len(receipt.candidates),
        "left_out": receipt.left_out,
    }


def _closed(
    verdict: Verdict, reason: str, shared: dict[str, Any], findings: list[Finding]
) -> Verification:
    return Verification(verdict=verdict, reason=reason, findings=findings, **shared)


def _contradictions(receipt: Receipt) -> Iterator[Finding]:
    for one in receipt.candidates:
        problem = arithmetic(receipt, one)
        if problem is not None:
            yield Finding(index=one.index, logprob=one.logprob, problem=problem)


def _contradicts(findings: Sequence[Finding]) -> str:
    return f"the receipt contradicts itself in {_counted(len(findings), 'candidate')}"


def _what_differs(receipt: Receipt, card: ModelCard) -> str:
    differing = [
        f"{name} {stated!r}, here {found!r}"
        for name, stated, found in (
            ("model", receipt.model, card.id),
            ("dtype", receipt.dtype, card.dtype),
            ("kernels", receipt.kernels, card.kernels),
        )
        if stated != found
    ]
    told = ", ".join(differing) or (
        "weights, tokenizer, code, torch, threads or the machine, which a receipt does not tell"
    )
    return f"the fingerprint is another one: {told}; --any-fingerprint compares all the same"


def _unfit(receipt: Receipt, card: ModelCard, *, is_same: bool) -> str | None:
    """Why the numbers cannot be the model's, whatever they are."""
    for stated, found in ((receipt.dtype, card.dtype), (receipt.kernels, card.kernels)):
        if is_same and stated != found:
            return f"the receipt says {stated}; the model of its fingerprint has {found}"
    if receipt.end_token_ids and receipt.end_token_ids != card.end_token_ids:
        return f"the ends are tokens {receipt.end_token_ids}; here they are {card.end_token_ids}"
    return None


def _counted(count: int, noun: str) -> str:
    if count == 1:
        return f"1 {noun}"
    return f"{count} {noun.removesuffix('y')}ies" if noun.endswith("y") else f"{count} {noun}s"
