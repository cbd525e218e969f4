"""How each candidate met the context, and its score under every policy.

::

    context "It is", candidate "n't"     It| isn|'t      own_start_token 1, merged
                     candidate " yes"    It| is| yes     own_start_token 2
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from app.audit.evidence import Evidence
from app.requests.worker_threads import check_wanted
from app.schemas.audit_response import CandidateJoin, PolicyScores, SplitToken
from model_runtime import common_prefix

TOKENS_BEFORE = 8
TOKENS_BEHIND = 4
"""Tokens of the split that are listed on either side of the context's end."""


def candidate_join(evidence: Evidence, index: int) -> CandidateJoin:
    """Of a candidate that could be scored."""
    check_wanted()
    candidate, before = evidence.request.candidates[index], evidence.before
    content, tokenizer = evidence.prompt.content, evidence.tokenizer
    boundary = evidence.scores.boundary
    path, end, merged = before, len(before), False
    if isinstance(content, str) and isinstance(candidate, str):
        head = before[: len(before) - len(tokenizer.encode(content))]
        path = (*head, *tokenizer.encode(content + candidate))
        end, merged = _end(evidence, path, head)
    own_start = common_prefix(path, before)
    if boundary.policy == "separate":
        ids = tokenizer.encode(candidate) if isinstance(candidate, str) else candidate
        path, end = (*before, *ids), len(before)
    first = max(boundary.start_token, end - TOKENS_BEFORE)
    return CandidateJoin(
        own_start_token=own_start,
        merged=merged,
        tokens=[
            SplitToken(id=token, text=tokenizer.token_text(token))
            for token in path[first : end + TOKENS_BEHIND]
        ],
        policies=_policy_scores(evidence, index),
    )


def _end(evidence: Evidence, path: Sequence[int], head: Sequence[int]) -> tuple[int, bool]:
    """So many tokens of the whole text's path end within the context, and whether the next one
    begins there."""

    def ends(tokens: Sequence[int]) -> list[int]:
        return list(accumulate(len(evidence.tokenizer.token_bytes(token)) for token in tokens))

    size = max(ends(evidence.before[len(head) :]), default=0)
    inside = [at for at in ends(path[len(head) :]) if at <= size]
    return len(head) + len(inside), max(inside, default=0) < size


def _policy_scores(evidence: Evidence, index: int) -> PolicyScores:
    found = {policy: results[index] for policy, results in evidence.by_policy.items() if results}
    joint, separate, marginal = map(found.get, ("joint", "separate", "marginal"))
    return PolicyScores(
        joint=joint and joint.logprob,
        separate=separate and separate.logprob,
        marginal=marginal and marginal.marginal,
    )
