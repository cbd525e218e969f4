"""What the client returns: the server's answers, which show themselves in notebooks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Self

from pydantic import PrivateAttr

from app.client.display import columns, frames, html, plots
from app.client.display.columns import Candidate, Column
from app.schemas.audit_response import AuditResponse
from app.schemas.decode_response import DecodeResponse
from app.schemas.next_token import NextTokenResponse
from app.schemas.score import ScoreRequest
from app.schemas.score_response import ScoreResponse

if TYPE_CHECKING:
    import pandas
    import polars
    from matplotlib.axes import Axes

ScoreLevel = Literal["candidate", "token"]
DecodeLevel = Literal["sequence", "token", "node"]


class ScoreAnswer(ScoreResponse):
    """The scores of a list of candidates, which knows what the candidates are."""

    _candidates: Sequence[Candidate] = PrivateAttr(default=())
    _normalization: str = PrivateAttr(default="sum")

    @classmethod
    def read(cls, body: bytes, request: ScoreRequest) -> Self:
        """The answer to ``request``. Raises ``ValueError`` for a body that is none."""
        answer = cls.model_validate_json(body, extra="ignore")
        answer._know(request)
        return answer

    @classmethod
    def of(cls, answer: ScoreResponse, request: ScoreRequest) -> ScoreAnswer:
        """The same answer, of these candidates."""
        same = cls.model_construct(answer.model_fields_set, **vars(answer))
        same._know(request)
        return same

    def _know(self, request: ScoreRequest) -> None:
        self._candidates = request.candidates
        self._normalization = request.normalization

    def to_pandas(self, level: ScoreLevel = "candidate") -> pandas.DataFrame:
        """A row for each candidate or each scored token, in the request's order.

        Raises:
            ImportError: pandas is not installed.
            ValueError: there is no such level, or the answer lists no tokens.
        """
        return frames.pandas_frame(self._columns(level))

    def to_polars(self, level: ScoreLevel = "candidate") -> polars.DataFrame:
        """As ``to_pandas``."""
        return frames.polars_frame(self._columns(level))

    def plot(self, level: ScoreLevel = "candidate", axes: Axes | None = None) -> Axes:
        """The ranking as points, or each candidate's sum as it grows token by token.

        Args:
            level: ``candidate`` for the ranking, ``token`` for the sums.
            axes: to draw on; None for new ones.

        Raises:
            ImportError: matplotlib is not installed.
            ValueError: there is no such level, or the answer lists no tokens.
        """
        _check_level(level, ("candidate", "token"))
        if level == "token":
            return plots.plot_scored_tokens(self, self._candidates, axes)
        return plots.plot_scores(self, self._candidates, self._normalization, axes)

    def _columns(self, level: str) -> list[Column]:
        _check_level(level, ("candidate", "token"))
        if level == "token":
            return columns.scored_token_columns(self, self._candidates)
        return columns.candidate_columns(self, self._candidates)

    def _repr_html_(self) -> str:
        return html.score_html(self, self._candidates, self._normalization)


class NextTokenAnswer(NextTokenResponse):
    """A part of a distribution."""

    def to_pandas(self) -> pandas.DataFrame:
        """A row for each listed token, then for each that was asked for.

        Raises:
            ImportError: pandas is not installed.
        """
        return frames.pandas_frame(columns.next_token_columns(self))

    def to_polars(self) -> polars.DataFrame:
        """As ``to_pandas``."""
        return frames.polars_frame(columns.next_token_columns(self))

    def plot(self, axes: Axes | None = None) -> Axes:
        """The distribution as bars. Raises ``ImportError`` where matplotlib is not installed."""
        return plots.plot_distribution(self, axes)

    def _repr_html_(self) -> str:
        return html.next_token_html(self)


class DecodeAnswer(DecodeResponse):
    """Continuations."""

    def to_pandas(self, level: DecodeLevel = "sequence") -> pandas.DataFrame:
        """A row for each sequence or compared strategy, each of their tokens, or each node of the
        search tree.

        Raises:
            ImportError: pandas is not installed.
            ValueError: there is no such level, or the answer lists no tokens or has no tree.
        """
        return frames.pandas_frame(self._columns(level))

    def to_polars(self, level: DecodeLevel = "sequence") -> polars.DataFrame:
        """As ``to_pandas``."""
        return frames.polars_frame(self._columns(level))

    def plot(self, axes: Axes | None = None) -> Axes:
        """Each sequence's sum as it grows token by token.

        Raises:
            ImportError: matplotlib is not installed.
            ValueError: the answer lists no tokens.
        """
        return plots.plot_decoded(self, axes)

    def _columns(self, level: str) -> list[Column]:
        _check_level(level, ("sequence", "token", "node"))
        if level == "token":
            return columns.generated_token_columns(self)
        return columns.node_columns(self) if level == "node" else columns.sequence_columns(self)

    def _repr_html_(self) -> str:
        return html.decode_html(self)


class AuditAnswer(AuditResponse):
    """Scores taken apart."""

    def to_pandas(self, level: ScoreLevel = "candidate") -> pandas.DataFrame:
        """A row for each candidate or each scored token, in the request's order.

        Raises:
            ImportError: pandas is not installed.
            ValueError: there is no such level.
        """
        return frames.pandas_frame(self._columns(level))

    def to_polars(self, level: ScoreLevel = "candidate") -> polars.DataFrame:
        """As ``to_pandas``."""
        return frames.polars_frame(self._columns(level))

    def plot(self, axes: Axes | None = None) -> Axes:
        """Each candidate's sum as it grows token by token. Raises ``ImportError`` where matplotlib
        is not installed."""
        return plots.plot_audit(self, axes)

    def _columns(self, level: str) -> list[Column]:
        _check_level(level, ("candidate", "token"))
        if level == "token":
            return columns.audited_token_columns(self)
        return columns.audited_candidate_columns(self)

    def _repr_html_(self) -> str:
        return html.audit_html(self)


def _check_level(level: str, known: Sequence[str]) -> None:
    if level not in known:
        raise ValueError(f"level is one of {', '.join(known)}; not {level!r}")
