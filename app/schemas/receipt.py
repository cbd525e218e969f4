"""A receipt: what was scored and what came out, for whoever wants to compute it again.

It holds token ids and no text, so that nothing in it depends on a tokenizer. A scored path is a
prefix and a candidate's tokens behind it; the tokens from the end of the prefix on are scored.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

from pydantic import Field

from app.schemas.response import OmitEmpty, OmitNone, ResponseModel

T = TypeVar("T")

Normalization = Literal["sum", "mean", "per_char", "per_byte", "gnmt", "pmi", "calibrated"]

# Whoever reads a receipt may be given anything: one complaint is all that is reported.
Listed = Annotated[list[T], Field(fail_fast=True)]


class ReceiptBaseline(ResponseModel):
    """A candidate's tokens behind one of the prefixes that it is compared with."""

    logprobs: Listed[float]
    """As in ``ReceiptCandidate``."""
    logprob: float
    """Their sum, from left to right."""


class ReceiptCandidate(ResponseModel):
    """A candidate that was scored to the end."""

    index: int
    """Place in the request's ``candidates``."""
    token_ids: Listed[int]
    """Its tokens behind the prefix, an appended end not among them."""
    logprobs: Listed[float]
    """Of each of them behind the first prefix, exactly as computed; where an end was appended, then
    the log of the summed probability of ``end_token_ids``."""
    logprob: float
    """Their sum, from left to right."""
    score: float
    """What ``normalization`` makes of it."""
    divisor: OmitNone[int] = None
    """Code points or bytes of the candidate's text, for ``per_char`` and ``per_byte``: the ids need
    not tell. Absent for the others."""
    baselines: OmitEmpty[Listed[ReceiptBaseline]] = Field(default_factory=list)
    """The same behind each of the other prefixes, in their order; absent where there are none."""


class Receipt(ResponseModel):
    """All that is needed to compute the scores again; ``chainrule verify`` does so."""

    format_version: Literal[1] = 1
    """Of the receipt's own fields; another number means that their meaning is another one."""
    chainrule_version: str
    model: str
    fingerprint: str
    dtype: str
    """In what precision the products were computed."""
    kernels: Literal["native", "torch"]
    """What computed: the library that was compiled with the package, or torch's kernels."""
    prefixes: Listed[Listed[int]]
    """Token ids before the candidates: the context up to ``boundary.start_token``; behind it, those
    of ``pmi_context``, or of each of ``calibration_contexts``."""
    end_token_ids: OmitEmpty[Listed[int]] = Field(default_factory=list)
    """One of them ends each candidate; absent where no end is scored."""
    normalization: Normalization = "sum"
    gnmt_alpha: OmitNone[float] = None
    """The exponent of ``gnmt``; absent for the others."""
    candidates: Listed[ReceiptCandidate]
    """Those that were scored to the end, in the request's order."""
    left_out: OmitEmpty[Listed[int]] = Field(default_factory=list)
    """Indices of the other candidates, which failed or were left unfinished by ``top_n``: the
    receipt says nothing of them. Absent where there are none."""
