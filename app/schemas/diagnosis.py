"""What an audit says of reported numbers: which known mistakes reproduce them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from app.schemas.response import OmitEmpty, OmitNone, ResponseModel

MistakeName = Literal[
    "shifted_by_one",
    "shifted_twice",
    "window_early",
    "first_token_dropped",
    "prompt_scored",
    "softmax_over_candidates",
    "softmax_over_top_k",
    "temperature",
    "sum",
    "mean",
    "per_byte",
    "per_char",
    "prompt_in_length",
    "base_2",
    "base_10",
    "negated",
    "bos_missing",
    "bos_doubled",
    "bos_added",
    "end_missing",
    "end_added",
    "other_split",
    "space_missing",
    "space_added",
    "template_missing",
    "template_added",
    "truncated",
    "bf16_noise",
]

Verdict = Literal["agree", "explained", "undetermined", "none"]


class Explanation(ResponseModel):
    """The reported numbers beside what a mistake, or two of them, would have made."""

    mistakes: list[MistakeName]
    """One, or two at once; none where the reported numbers are compared as they should be."""
    about: str
    """What was done, in words."""
    fits: bool
    """No number is farther away than its tolerance."""
    estimate: OmitNone[float] = None
    """What had to be estimated: a temperature; of a softmax over some tokens their number; of
    ``truncated`` the tokens that were kept, of the context, of all or of each candidate as
    ``about`` has it. Absent where nothing."""
    estimates: OmitEmpty[dict[MistakeName, float]] = Field(default_factory=dict)
    """Of two mistakes each of which has one: both, by name; ``estimate`` is the temperature,
    or else that of the first."""
    estimate_range: OmitNone[tuple[float, float]] = None
    """The values in place of ``estimate`` that fit as well, least and largest."""
    largest_difference: float
    """Of a reported number from what the mistake makes, in the unit of the reported; of an order,
    the nats by which its worst misplaced pair contradicts it."""
    tolerance: float
    """What that number may be off by."""
    candidate: int
    """Index of the candidate whose number that is."""
    token: OmitNone[int] = None
    """Place of the token in its list; absent where there are no lists."""
    chance: OmitNone[float] = None
    """About how many of the explanations of this kind that were tried would fit random numbers of
    the same size and digits, as far from the right ones as the reported are. Absent where it does
    not fit."""


class FittingMistakes(ResponseModel):
    """Mistakes that fit as well, in short."""

    mistakes: list[MistakeName]
    """One, or two at once."""
    estimate_range: OmitNone[tuple[float, float]] = None
    """Of all ways in which they fit: the least and the largest value; absent where nothing was
    estimated."""
    largest_difference: float
    """Of the way that comes nearest."""
    chance: OmitNone[float] = None
    """As of an explanation."""


class Untried(ResponseModel):
    """Something that was not looked for."""

    mistakes: list[MistakeName]
    """What it would have been."""
    reason: str
    """Why not."""


class Diagnosis(ResponseModel):
    """Which known mistakes reproduce the reported numbers."""

    verdict: Verdict
    """``agree``: they are right, within their digits and numeric error. ``explained``: what is in
    ``explanations`` reproduces them. ``undetermined``: they may be
    right, or something reproduces them, but random numbers would fit as easily, or there are too
    few to tell a mistake from low precision. ``none``: none of these."""
    summary: str
    """The same in words."""
    numbers: int
    """So many reported numbers were compared; of an order, places."""
    tried: int
    """Explanations that were computed."""
    explanations: OmitEmpty[list[Explanation]] = Field(default_factory=list)
    """What fits, best first: several where the numbers cannot tell them apart. Beside ``agree``:
    what would have made the same numbers, within the digits."""
    also_fitting: OmitEmpty[list[FittingMistakes]] = Field(default_factory=list)
    """Whatever else fits, by the names of the mistakes: beyond the first explanations, or too
    easily to be believed."""
    closest: OmitEmpty[list[Explanation]] = Field(default_factory=list)
    """What comes nearest where nothing fits, nearest first."""
    as_reported: OmitNone[Explanation] = None
    """The comparison without any mistake; absent where the lists have other lengths."""
    unaffected: OmitEmpty[list[MistakeName]] = Field(default_factory=list)
    """Mistakes that were computed, or find nothing to change, and leave these numbers as they are:
    nothing can be said of them."""
    untried: OmitEmpty[list[Untried]] = Field(default_factory=list)
    """What was not looked for."""
    rank_agreement: OmitNone[float] = None
    """Of an order: Kendall's tau with the order by the scores here, from -1 to 1."""
