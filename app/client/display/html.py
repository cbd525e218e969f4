"""Answers as HTML for notebooks: no scripts, no style sheets, colours that suit light and dark.

A notebook may show what others have sent, so every text is escaped, and blanks that nobody would
see are drawn.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from itertools import accumulate
from unicodedata import category

from app.client.display.columns import Candidate, candidate_results, candidate_text, decoded
from app.schemas.audit_response import AuditedToken, AuditResponse
from app.schemas.decode_response import DecodeResponse
from app.schemas.next_token import NextTokenResponse, TokenProbability
from app.schemas.response import BaseResponse, TokenDetail
from app.schemas.score_response import CandidateScore, ScoreResponse

MAX_ROWS = 50
"""Rows of a table; the best ones."""
MAX_TOKEN_ROWS = 10
"""Texts whose tokens are shown."""
MAX_TOKENS = 400
"""Tokens of a text that are shown, the first ones."""
MAX_NOTES = 8
"""Warnings that are shown."""
MAX_CHARACTERS = 120
"""Of a text in a table."""

_SURPRISE = (math.log(2), math.log(10), math.log(100), math.log(1000))
"""Nats up to which a token has each of the first four colours."""
_ALPHAS = (0.0, 0.14, 0.28, 0.44, 0.62)
_LEVELS = ("over 50 %", "over 10 %", "over 1 %", "over 0.1 %", "rarer")
_JOINERS = "\u200c\u200d"
_BLANKS = {" ": "·", "\n": "↵", "\t": "→", "\r": "␍"}

_LEFT = "text-align:left;padding:1px 10px 1px 0"
_RIGHT = "text-align:right;padding:1px 10px 1px 0;font-variant-numeric:tabular-nums"
_TOKEN = (
    "display:inline-block;font-family:monospace;padding:0 1px;margin:1px 1px 1px 0;"
    "border-radius:3px;background:rgba(222,92,20,{alpha})"
)
_NOTE = "opacity:.7;margin:2px 0"


def score_html(answer: ScoreResponse, candidates: Sequence[Candidate], normalization: str) -> str:
    """The ranking as a table, and the tokens of the best candidates if they are listed."""
    results = candidate_results(answer)
    ranked = sorted(results, key=_place)
    winners = {
        measure: _winner(results, measure)
        for measure in ("logprob", "mean_logprob", "logprob_per_byte")
    }
    best = max((one.score for one in results if one.score is not None), default=0.0)
    rows = [
        _score_row(one, candidate_text(candidates, one.index), winners, best)
        for one in ranked[:MAX_ROWS]
    ]
    heads = (
        *("rank", "candidate", f"score ({normalization})", "", "share", "sum", "mean", "per byte"),
        "tokens",
    )
    parts = [_table(heads, rows, text_columns={1, 3}), _left_out(len(ranked) - len(rows))]
    parts += [_note(warning.message) for warning in answer.warnings[:MAX_NOTES]]
    if len(answer.warnings) > MAX_NOTES:
        parts.append(_note(f"… and {len(answer.warnings) - MAX_NOTES} more notes of this kind"))
    if answer.top is not None:
        proof = "certified" if answer.top.certified else "not certified: the time ran out first"
        parts.append(_note(f"The best {answer.top.ranked}, {proof}; {answer.top.pruned} pruned."))
    listed = [one for one in ranked if one.tokens][:MAX_TOKEN_ROWS]
    parts += [
        _token_text(one.tokens or (), title=candidate_text(candidates, one.index)) for one in listed
    ]
    if listed:
        parts.append(_legend())
    if answer.off_candidate_mass is not None:
        parts.append(_note(f"All other texts together: {_percent(answer.off_candidate_mass)}"))
    elif answer.off_candidate_mass_bounds is not None:
        low, high = map(_percent, answer.off_candidate_mass_bounds)
        parts.append(_note(f"All other texts together: between {low} and {high}"))
    return _page(answer, parts)


def next_token_html(answer: NextTokenResponse) -> str:
    """The distribution as bars."""
    shown = [*answer.tokens[:MAX_ROWS], *answer.chosen[:MAX_ROWS]]
    largest = max((one.probability for one in shown), default=1.0)
    rows = [_probability_row(one, largest) for one in shown]
    heads = ("rank", "token", "log P", "P", "")
    notes = [
        _left_out(len(answer.tokens) + len(answer.chosen) - len(shown)),
        _note(
            f"Entropy {answer.entropy:.4f} nats. All tokens that are not listed: "
            f"{_percent(answer.remaining_probability)}"
        ),
    ]
    return _page(answer, [_table(heads, rows, text_columns={1, 4}), *notes])


def decode_html(answer: DecodeResponse) -> str:
    """The sequences with their tokens, and what was proven."""
    compared = answer.compared
    rows = []
    for place, one in enumerate(decoded(answer)[:MAX_ROWS]):
        name = str(place + 1) if compared is None else compared[place].strategy
        missed = None if compared is None else compared[place].search_error
        if one is None:
            reason = "" if compared is None else compared[place].reason or ""
            rows.append([name, escape(reason), "", "", "", ""])
            continue
        rows.append(
            [
                name,
                _visible(one.text),
                _number(one.logprob),
                _number(one.score),
                str(len(one.token_ids)),
                _number(missed),
            ]
        )
    heads = ["", "text", "log P", "score", "tokens", "search error"]
    if compared is None:
        heads, rows = heads[:-1], [row[:-1] for row in rows]
    parts = [_table(heads, rows, text_columns={0, 1})]
    parts.append(_left_out(len(decoded(answer)) - len(rows)))
    listed = [one for one in decoded(answer) if one is not None and one.tokens][:MAX_TOKEN_ROWS]
    parts += [_token_text(one.tokens or (), title=one.text) for one in listed]
    if listed:
        parts.append(_legend())
    proven = answer.certificate
    if proven is not None and proven.optimal:
        parts.append(_note(f"Proven to be the best, after {proven.expanded} expanded prefixes."))
    elif proven is not None:
        bound = (
            "" if proven.upper_bound is None else f" Nothing scores above {proven.upper_bound:.4f}."
        )
        parts.append(_note(f"Not proven, after {proven.expanded} expanded prefixes.{bound}"))
    return _page(answer, parts)


def audit_html(answer: AuditResponse) -> str:
    """How ranking looks at the candidates, their tokens, and what decides."""
    rows = []
    for one in answer.candidates[:MAX_ROWS]:
        text = _visible(one.text)
        if one.ranking is None:
            message = escape(one.error.message) if one.error is not None else ""
            rows.append([text, message, "", ""])
            continue
        views = (one.ranking.sum, one.ranking.mean, one.ranking.per_byte)
        numbers = [_number(view.score) for view in views]
        cells = [
            f"<b>{number}</b>" if view.rank == 1 else number
            for number, view in zip(numbers, views, strict=True)
        ]
        rows.append([text, *cells])
    heads = ("candidate", "sum", "mean", "per byte")
    parts = [_table(heads, rows, text_columns={0}), _left_out(len(answer.candidates) - len(rows))]
    parts.append(_note(answer.views))
    listed = [one for one in answer.candidates if one.tokens][:MAX_TOKEN_ROWS]
    parts += [_token_text(one.tokens, title=one.text) for one in listed]
    if listed:
        parts.append(_legend())
    parts += [_note(pair.explanation) for pair in answer.pairs[:MAX_TOKEN_ROWS]]
    gaps = (answer.among_candidates, answer.among_completions)
    parts += [_note(gap.explanation) for gap in gaps if gap is not None]
    return _page(answer, parts)


def _place(one: CandidateScore) -> tuple[bool, int, bool, int]:
    return one.rank is None, one.rank or 0, one.error is not None, one.index


def _winner(results: Iterable[CandidateScore], measure: str) -> int | None:
    known = [one for one in results if getattr(one, measure) is not None]
    return max(known, key=lambda one: getattr(one, measure)).index if known else None


def _score_row(
    one: CandidateScore, text: str | None, winners: Mapping[str, int | None], best: float
) -> list[str]:
    shown = _visible(text) if text is not None else f"candidate {one.index}"
    if one.error is not None:
        return ["", shown, escape(one.error.message), *[""] * 6]
    if one.score is None:
        bound = "" if one.bound is None else f"below {one.bound:.4f}"
        return ["", shown, bound, *[""] * 6]
    tied = "" if one.tie_group is None else " ="
    error = "" if one.numeric_error is None else f" ± {one.numeric_error:.1g}"
    measures = []
    for measure, winner in winners.items():
        number = _number(getattr(one, measure))
        measures.append(f"<b>{number}</b>" if winner == one.index else number)
    return [
        f"{'' if one.rank is None else one.rank}{tied}",
        shown,
        f"{one.score:.4f}{error}",
        _bar(math.exp(one.score - best)),
        "" if one.probability is None else _percent(one.probability),
        *measures,
        "" if one.token_count is None else str(one.token_count),
    ]


def _probability_row(one: TokenProbability, largest: float) -> list[str]:
    logprob = "" if one.logprob == -math.inf else f"{one.logprob:.4f}"
    share = one.probability / largest if largest > 0 else 0.0
    return [str(one.rank), _visible(one.text), logprob, _percent(one.probability), _bar(share)]


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], text_columns: set[int]) -> str:
    styles = [_LEFT if place in text_columns else _RIGHT for place in range(len(heads))]
    head = "".join(
        f"<th style='{style}'>{escape(name)}</th>"
        for name, style in zip(heads, styles, strict=True)
    )
    body = "".join(
        "<tr>"
        + "".join(f"<td style='{s}'>{cell}</td>" for cell, s in zip(row, styles, strict=True))
        + "</tr>"
        for row in rows
    )
    return (
        f"<table style='border-collapse:collapse'><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table>"
    )


def _token_text(tokens: Sequence[TokenDetail | AuditedToken], title: str | None) -> str:
    totals = accumulate(token.logprob for token in tokens)
    shown = [
        _token(token, total) for token, total in zip(tokens[:MAX_TOKENS], totals, strict=False)
    ]
    more = f" … {len(tokens) - MAX_TOKENS} more" if len(tokens) > MAX_TOKENS else ""
    label = escape("".join(map(_drawn, _cut(title or ""))), quote=True)
    return (
        f"<div style='margin:4px 0' role='group' aria-label='{label}'>{''.join(shown)}{more}</div>"
    )


def _token(token: TokenDetail | AuditedToken, total: float) -> str:
    level = sum(-token.logprob > step for step in _SURPRISE)
    facts = [f"log-prob {token.logprob:.4f}", f"P {_percent(math.exp(token.logprob))}"]
    if token.rank is not None:
        facts.append(f"rank {token.rank}")
    facts.append(f"sum so far {total:.4f}")
    if isinstance(token, AuditedToken):
        facts.append(f"entropy {token.entropy:.4f}")
        others = [token.alternative] if token.alternative is not None else []
    else:
        others = [*token.top_logprobs]
    facts += [f"{other.logprob:.4f} {_cut(other.text)!r}" for other in others]
    lines = ["".join(map(_drawn, fact)) for fact in facts]
    title = "&#10;".join(escape(line, quote=True) for line in lines)
    style = _TOKEN.format(alpha=_ALPHAS[level])
    return f"<span style='{style}' title='{title}'>{_visible(token.text, plain=True)}</span>"


def _legend() -> str:
    parts = [
        f"<span style='{_TOKEN.format(alpha=alpha)}'>{name}</span>"
        for alpha, name in zip(_ALPHAS, _LEVELS, strict=True)
    ]
    return f"<p style='{_NOTE}'>P of a token given all before it: {' '.join(parts)}</p>"


def _bar(share: float) -> str:
    width = 100 * min(max(share, 0.0), 1.0)
    return (
        "<div style='width:100px;height:.8em;background:rgba(128,128,128,.18)'>"
        f"<div style='width:{width:.1f}%;height:100%;background:rgba(46,117,182,.8)'></div></div>"
    )


def _visible(text: str, *, plain: bool = False) -> str:
    """A text on one line, its blanks drawn where they would not be seen."""
    cut = _cut(text)
    start, end = len(cut) - len(cut.lstrip()), len(cut.rstrip())
    drawn = "".join(
        _BLANKS.get(sign, sign) if sign != " " or not start <= place < end else sign
        for place, sign in enumerate(cut)
    )
    shown = escape("".join(map(_drawn, drawn)))
    return shown if plain else f"<span style='font-family:monospace'>{shown}</span>"


def _drawn(sign: str) -> str:
    """A sign that can be seen: other blanks as a mark, what joins letters as it is, and whatever
    else would turn or hide what stands beside it as its number."""
    if sign.isprintable() or sign in _JOINERS:
        return sign
    return "⍽" if category(sign) == "Zs" else f"\\u{ord(sign):04x}"


def _cut(text: str) -> str:
    return text if len(text) <= MAX_CHARACTERS else text[:MAX_CHARACTERS] + "…"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _percent(value: float) -> str:
    return f"{value:.2%}" if value >= 0.0001 or value <= 0 else f"{100 * value:.0e}%"


def _left_out(count: int) -> str:
    return _note(f"… and {count} more") if count > 0 else ""


def _note(text: str) -> str:
    return f"<p style='{_NOTE}'>{escape(''.join(map(_drawn, text)))}</p>"


def _page(answer: BaseResponse, parts: Iterable[str]) -> str:
    source = f"{answer.model}, fingerprint {answer.fingerprint[:8]}"
    tokens = f"{answer.usage.computed_tokens} tokens computed, {answer.usage.cached_tokens} cached"
    return f"<div>{''.join(parts)}{_note(f'{source}; {tokens}')}</div>"
