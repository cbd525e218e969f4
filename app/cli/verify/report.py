"""What ``chainrule verify`` has found, for people and, as JSON, for programs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal

from pydantic import Field

from app.cli.tables import Page
from app.schemas.response import OmitEmpty, OmitNone, ResponseModel

Verdict = Literal["holds", "differs", "not_comparable"]

EXIT_STATUS: Final[dict[Verdict, int]] = {"holds": 0, "differs": 3, "not_comparable": 4}


class Computer(ResponseModel):
    """What computed the scores, or computes them again."""

    model: str
    fingerprint: str
    dtype: str
    kernels: str
    chainrule_version: OmitNone[str] = None
    """Absent where nothing was computed, so that nobody said."""


class Finding(ResponseModel):
    """A candidate that does not hold, or cannot be compared."""

    index: int
    """Place in the ``candidates`` of the request that the receipt is of."""
    logprob: float
    """As the receipt states it."""
    recomputed: OmitNone[float] = None
    """The sum that was computed now; absent where none was."""
    largest_difference: OmitNone[float] = None
    """Of one token's log-probability, in nats; absent where none was computed."""
    problem: str
    comparable: bool = True
    """False where the model here could not score the candidate at all."""


class Verification(ResponseModel):
    """What became of one receipt."""

    verdict: Verdict
    reason: str
    receipt: OmitNone[Computer] = None
    """Absent where the receipt cannot be read."""
    here: OmitNone[Computer] = None
    """What computed it again, or would have."""
    candidates: int = 0
    """Of the receipt."""
    logprobs: int = 0
    """So many were computed again."""
    largest_difference: OmitNone[float] = None
    """Of one token's log-probability, in nats; absent where none was computed again."""
    numeric_error: OmitNone[float] = None
    """Estimated largest error of one token's log-probability here; absent where it is not known."""
    within_numeric_error: OmitNone[bool] = None
    """No difference is larger than two computations with this error explain; absent where none was
    computed again, or the error is not known."""
    left_out: OmitEmpty[list[int]] = Field(default_factory=list)
    """Candidates of which the receipt says nothing."""
    findings: OmitEmpty[list[Finding]] = Field(default_factory=list)

    @property
    def exit_status(self) -> int:
        """Of the command."""
        return EXIT_STATUS[self.verdict]


def show(page: Page, found: Verification) -> None:
    """Who computed, what does not hold, and the verdict."""
    if found.receipt is not None:
        page.line(f"receipt  {_described(found.receipt)}")
    if found.here is not None:
        page.line(f"here     {_described(found.here)}")
    if found.findings:
        page.table(
            [">candidate", ">logprob", ">recomputed", ">largest difference", "problem"],
            [
                [
                    str(one.index),
                    f"{one.logprob:.9g}",
                    "" if one.recomputed is None else f"{one.recomputed:.9g}",
                    "" if one.largest_difference is None else f"{one.largest_difference:.1e}",
                    one.problem,
                ]
                for one in found.findings
            ],
        )
    for line in _remarks(found):
        page.line(line)
    colours: dict[Verdict, str] = {"holds": "green", "differs": "red", "not_comparable": "yellow"}
    page.line(f"{found.verdict.replace('_', ' ')}: {found.reason}", colours[found.verdict])


def _described(computer: Computer) -> str:
    version = computer.chainrule_version
    told = [
        computer.model,
        f"fingerprint {computer.fingerprint}",
        computer.dtype,
        f"{computer.kernels} kernels",
        *([] if version is None else [f"chainrule {version}"]),
    ]
    return ", ".join(told)


def _remarks(found: Verification) -> Iterator[str]:
    if found.left_out:
        count = len(found.left_out)
        yield f"the receipt says nothing of {count} candidate{'s' * (count > 1)} of its request"
