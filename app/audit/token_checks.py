"""Checks of the tokens themselves: which ones were scored, and which were put before them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from app.audit.evidence import Evidence, sum_of
from app.audit.expected_tokens import ExpectedToken, expected_sums, with_expected_tokens
from app.audit.tokenization import Path
from app.audit.wording import count_of
from app.schemas.audit_response import Check


def doubled_special_tokens(evidence: Evidence, steps: Sequence[ExpectedToken]) -> Check:
    """Whether a special token stands where one stands already, or where the caller wrote text."""
    found = [*_doubled_heads(evidence), *_inside_texts(evidence)]
    extra = max((probe.row.fed - len(probe.prefix) for probe in evidence.probes), default=0)
    if extra > 0:
        found.append(
            f"the model was fed {count_of(extra, 'token')} more than the "
            f"{len(evidence.probes[0].prefix)} of a prefix"
        )
    explained = _explained_by_two_bos(evidence, steps)
    if explained is not None:
        found.append(explained)
    places = [at for at, token in enumerate(evidence.split.prefix) if token in evidence.control_ids]
    healthy = (
        f"{count_of(len(places), 'special token')} among the "
        f"{count_of(len(evidence.split.prefix), 'token')} before the candidates, none doubled at "
        "the start and none made of text; the model is fed no token more"
    )
    return Check(
        name="doubled_special_tokens",
        passed=not found,
        detail="; ".join(found) or healthy,
        measured={"special_tokens": float(len(places)), "extra_tokens_fed": float(max(0, extra))},
    )


def token_split(evidence: Evidence, _steps: Sequence[ExpectedToken]) -> Check:
    """Whether the scored tokens are those of the whole text, tokenized by itself."""
    parts, boundary = evidence.split, evidence.scores.boundary
    wrong = [one.index for one in evidence.good if one not in with_expected_tokens(evidence)]
    places = (boundary.start_token, boundary.context_tokens)
    expected = (len(parts.prefix), len(parts.context))
    found = []
    if places != expected:
        found.append(
            f"scoring starts at token {places[0]} of {places[1]}, by the whole texts it should "
            f"start at {expected[0]} of {expected[1]}"
        )
    if wrong:
        shown = [token.id for token in evidence.scores.results[wrong[0]].tokens or ()]
        found.append(
            f"candidates {wrong} have other tokens than their whole text: candidate {wrong[0]} has "
            f"{shown[:8]}, not {list(parts.paths[wrong[0]][:8])}"
        )
    return Check(
        name="token_split",
        passed=not found,
        detail="; ".join(found)
        or f"{count_of(len(evidence.good), 'candidate')} tokenized again with the whole context: "
        f"the same tokens from position {expected[0]} on",
        measured={
            "candidates": float(len(evidence.good)),
            "other_tokens": float(len(wrong)),
            "start_token": float(places[0]),
            "expected_start_token": float(expected[0]),
        },
    )


def _doubled_heads(evidence: Evidence) -> Iterator[str]:
    context = evidence.split.context
    if len(context) > 1 and context[0] == context[1] and context[0] in evidence.control_ids:
        yield f"the context begins with special token {context[0]} twice"


def _inside_texts(evidence: Evidence) -> Iterator[str]:
    """Special tokens in what the caller wrote as text, where every one is a mistake."""
    parts, control = evidence.split, evidence.control_ids
    if parts.text_context:
        written = parts.context[len(parts.context) - parts.given :]
        yield from _named(written, control, "the context's text")
    for one in evidence.good:
        if one.index in parts.textual:
            scored = tuple(token.id for token in one.tokens or ())
            written = scored[: len(scored) - evidence.request.append_eos]
            yield from _named(written, control, f"the text of candidate {one.index}")


def _named(ids: Path, control: frozenset[int], what: str) -> Iterator[str]:
    found = [token for token in ids if token in control]
    if found:
        yield f"{what} has become {count_of(len(found), 'special token')} ({found[0]})"


def _explained_by_two_bos(evidence: Evidence, steps: Sequence[ExpectedToken]) -> str | None:
    """The sums that are wrong, and right with one more BOS in front."""
    expected = expected_sums(steps)
    for one in with_expected_tokens(evidence):
        behind_two = evidence.doubled.get(one.index)
        tokens, reported = len(one.tokens or ()), sum_of(one)
        if (
            behind_two is not None
            and evidence.differ(reported, expected[one.index], tokens)
            and not evidence.differ(reported, behind_two, tokens)
        ):
            return (
                f"candidate {one.index} has {reported:.6g}, which is its score behind a second "
                f"special token {evidence.info.bos_token_id}; without that it has "
                f"{expected[one.index]:.6g}"
            )
    return None
