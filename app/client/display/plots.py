"""Answers as plots, by matplotlib where it is there."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from app.client.display.columns import Candidate, candidate_results, candidate_text, decoded
from app.client.display.frames import required
from app.schemas.audit_response import AuditResponse
from app.schemas.decode_response import DecodeResponse
from app.schemas.next_token import NextTokenResponse
from app.schemas.response import TokenDetail
from app.schemas.score_response import ScoreResponse

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_ROWS = 40
"""Rows of a plot; the best ones."""
MAX_LINES = 10
"""Texts whose running sums are drawn; the best ones."""
_LABEL_CHARACTERS = 40


def plot_scores(
    answer: ScoreResponse, candidates: Sequence[Candidate], normalization: str, axes: Axes | None
) -> Axes:
    """The ranking as points, best first, each with what its score may be off by."""
    results = [one for one in candidate_results(answer) if one.score is not None]
    ranked = sorted(results, key=lambda one: (-(one.score or 0.0), one.index))[:MAX_ROWS]
    labels = [_label(candidate_text(candidates, one.index), one.index) for one in ranked]
    errors = [one.numeric_error or 0.0 for one in ranked]
    drawn = _axes(axes, rows=len(ranked))
    scores = [one.score or 0.0 for one in ranked]
    drawn.errorbar(scores, range(len(ranked)), xerr=errors, fmt="o", capsize=3)
    drawn.grid(axis="x", alpha=0.3)
    _name_rows(drawn, labels)
    drawn.set_xlabel(f"{normalization} score, nats")
    return drawn


def plot_scored_tokens(
    answer: ScoreResponse, candidates: Sequence[Candidate], axes: Axes | None
) -> Axes:
    """The sum of each candidate as it grows token by token.

    Raises:
        ValueError: the answer lists no tokens.
    """
    listed = [one for one in answer.results if one.tokens]
    if not listed:
        raise ValueError("the answer lists no tokens: ask for token_logprobs=True")
    listed.sort(key=lambda one: -math.inf if one.score is None else one.score, reverse=True)
    drawn = _axes(axes)
    for one in listed[:MAX_LINES]:
        label = _label(candidate_text(candidates, one.index), one.index)
        _running_sum(drawn, [token.logprob for token in one.tokens or ()], label)
    return _finish_running_sums(drawn)


def plot_distribution(answer: NextTokenResponse, axes: Axes | None) -> Axes:
    """The probabilities of the listed tokens as bars, most probable first."""
    shown = answer.tokens[:MAX_ROWS]
    drawn = _axes(axes, rows=len(shown))
    drawn.barh(range(len(shown)), [one.probability for one in shown])
    _name_rows(drawn, [_label(one.text, place) for place, one in enumerate(shown)])
    drawn.set_xlabel("probability")
    return drawn


def plot_decoded(answer: DecodeResponse, axes: Axes | None) -> Axes:
    """The sum of each sequence as it grows token by token.

    Raises:
        ValueError: the answer lists no tokens.
    """
    drawn: Axes | None = None
    for place, one in enumerate(decoded(answer)[:MAX_LINES]):
        tokens: Sequence[TokenDetail] = (one.tokens if one is not None else None) or ()
        if not tokens or one is None:
            continue
        drawn = drawn or _axes(axes)
        name = "" if answer.compared is None else f"{answer.compared[place].strategy}: "
        _running_sum(drawn, [token.logprob for token in tokens], name + _label(one.text, place))
    if drawn is None:
        raise ValueError("the answer lists no tokens: ask for token_logprobs=True")
    return _finish_running_sums(drawn)


def plot_audit(answer: AuditResponse, axes: Axes | None) -> Axes:
    """The sum of each candidate as it grows token by token."""
    drawn = _axes(axes)
    for one in [one for one in answer.candidates if one.tokens][:MAX_LINES]:
        logprobs = [token.logprob for token in one.tokens]
        _running_sum(drawn, logprobs, _label(one.text, one.index))
    return _finish_running_sums(drawn)


def _axes(given: Axes | None, rows: int | None = None) -> Axes:
    if given is not None:
        return given
    plt = required("matplotlib.pyplot", "plot")
    size = None if rows is None else (6.4, max(1.6, 0.9 + 0.32 * rows))
    axes: Axes = plt.subplots(figsize=size, layout="constrained")[1]
    return axes


def _name_rows(axes: Axes, labels: Sequence[str]) -> None:
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()


def _running_sum(axes: Axes, logprobs: Sequence[float], label: str) -> None:
    sums = [0.0, *accumulate(logprobs)]
    axes.plot(range(len(sums)), sums, marker="o", markersize=3, label=label)


def _finish_running_sums(axes: Axes) -> Axes:
    axes.set(xlabel="tokens", ylabel="log P so far, nats")
    axes.locator_params(axis="x", integer=True)
    axes.legend(fontsize="small")
    return axes


def _label(text: str | None, index: int) -> str:
    """A name for a line or a bar; a dollar sign would begin a formula."""
    if text is None:
        return f"candidate {index}"
    cut = text if len(text) <= _LABEL_CHARACTERS else text[: _LABEL_CHARACTERS - 1] + "…"
    return json.dumps(cut, ensure_ascii=False).replace("$", r"\$")
