"""What the service answered to one question, asked in several ways. Plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from app.audit.tokenization import Path, ReferenceTokens
from app.schemas.audit import AuditRequest
from app.schemas.decode_response import DecodeResponse
from app.schemas.next_token import NextTokenResponse
from app.schemas.score_response import CandidateScore, ScoreResponse
from model_runtime import LogprobResult, ModelInfo, total

TOLERANCE = {"float32": 1e-4}
"""In nats a token: what two ways to compute the same log-probability may differ by. On a CPU they
do not differ at all, but that is for tests to say, not for every machine."""

LOOSE_TOLERANCE = 0.05


@dataclass(frozen=True, slots=True)
class Row:
    """A next-token distribution that was asked for alone.

    Attributes:
        logprobs: of the tokens that were named, by id.
        entropy: in nats.
        fed: tokens that the model was fed for it.
    """

    logprobs: Mapping[int, float]
    entropy: float
    fed: int

    @classmethod
    def of(cls, reply: NextTokenResponse) -> Row:
        """What the service answered."""
        named = {token.id: token.logprob for token in reply.chosen}
        return cls(named, reply.entropy, reply.usage.computed_tokens)


@dataclass(frozen=True, slots=True)
class Probe:
    """One prefix, and others that differ from it in the last token; each computed by itself."""

    prefix: Path
    row: Row
    swapped: tuple[Row, ...]

    @property
    def ignores_last_token(self) -> bool:
        """The last token has no say in what follows it."""
        same = (self.row.entropy, dict(self.row.logprobs))
        return all((other.entropy, dict(other.logprobs)) == same for other in self.swapped)


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that the checks look at.

    Attributes:
        request: what is audited.
        info: what is served.
        control_ids: tokens that are no text.
        split: its tokens, by the definition.
        scores: what /v1/score says.
        rows: the distribution behind every prefix of a candidate's path, asked for one by one.
        probes: a few of them, and how they depend on their last token.
        alone: the candidates by index, each scored without the others.
        doubled: what a candidate would score behind one more BOS, in nats, by index; empty where
            that cannot be, or need not be asked.
        tail: the distribution behind the prefix's last tokens, as anybody may ask for it.
        full: the same with every token listed.
        decoded: what the three searches find.
    """

    request: AuditRequest
    info: ModelInfo
    control_ids: frozenset[int]
    split: ReferenceTokens
    scores: ScoreResponse
    rows: Mapping[Path, Row]
    probes: tuple[Probe, ...]
    alone: Mapping[int, CandidateScore]
    doubled: Mapping[int, float]
    tail: Row
    full: LogprobResult
    decoded: DecodeResponse

    @property
    def tolerance(self) -> float:
        """What two log-probs of one token may differ by, in nats."""
        return TOLERANCE.get(self.info.dtype, LOOSE_TOLERANCE)

    @property
    def good(self) -> tuple[CandidateScore, ...]:
        """The candidates that could be scored."""
        return tuple(result for result in self.scores.results if result.error is None)

    def differ(self, one: float, other: float, tokens: int = 1) -> bool:
        """Whether two values for so many tokens are too far apart to be the same."""
        return one != other and not abs(one - other) <= self.tolerance * tokens


def sum_of(result: CandidateScore) -> float:
    """The log-probability of a candidate that could be scored."""
    if result.logprob is None:
        raise RuntimeError("this is a bug: a candidate without an error has no log-probability")
    return result.logprob


def sum_of_tokens(result: CandidateScore) -> float:
    """The same from the tokens that are listed."""
    return total([token.logprob for token in result.tokens or ()])
