"""Asks what a diagnosis is made of: once, and once more where no single mistake fits."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from app.audit.diagnosis.comparison import Comparison
from app.audit.diagnosis.inputs import LENGTHS
from app.audit.diagnosis.mistakes import Mistake, Setting, mistakes, of_two_in_one_input
from app.audit.diagnosis.order import order_fits
from app.audit.diagnosis.questions import (
    InputQuestions,
    InputRows,
    first_questions,
    more_questions,
)
from app.audit.diagnosis.recipe import End, Recipe
from app.audit.diagnosis.search import MAX_ESTIMATED_TOKENS, Finding, Search
from app.audit.diagnosis.verdict import (
    not_applying,
    number_diagnosis,
    order_diagnosis,
    unaffected_by,
)
from app.audit.evidence import Evidence
from app.requests.deadline import Deadline
from app.schemas.audit import AuditRequest
from app.schemas.diagnosis import Diagnosis, MistakeName, Untried
from app.schemas.reported import Reported
from app.schemas.response import Usage
from app.scoring.token_paths import PathQueries
from app.service import ScoringService
from model_runtime import InvalidQuery, ModelInfo, Tokenizer

T = TypeVar("T")


def check_reported(reported: Reported, candidates: int) -> None:
    """Raise ``InvalidQuery``, naming the field, where they are not of so many candidates."""
    place = f"reported.{reported.kind}"
    if reported.kind == "order":
        for at, index in enumerate(reported.order or ()):
            if index >= candidates:
                words = f"there is no candidate {index}; they are {candidates}"
                raise InvalidQuery(words, f"{place}.{at}")
        return
    count = len(getattr(reported, reported.kind))
    if count != candidates:
        raise InvalidQuery(f"{count} of them for {candidates} candidates", place)
    there = [one for one in reported.probabilities or () if one is not None]
    if there and reported.decimals is None and all(one in (0.0, 1.0) for one in there):
        words = (
            "none shows a decimal: say what they were rounded to in decimals, or report logarithms "
            "where exp of them was too small for a number"
        )
        raise InvalidQuery(words, place)


class DiagnosisService:
    """Says which known mistakes reproduce an audit's reported numbers.

    Args:
        service: as the request's tenant has it.
        info: what is served.
        evidence: of the audit.
        reported: numbers of the other system.
        deadline: the audit's.

    Attributes:
        spent: what the questions cost.
    """

    def __init__(
        self,
        service: ScoringService,
        info: ModelInfo,
        evidence: Evidence,
        reported: Reported,
        deadline: Deadline,
    ) -> None:
        self._service = service
        self._info = info
        self._evidence = evidence
        self._reported = reported
        self._deadline = deadline
        self._scored = [one.index for one in evidence.scored]
        self.spent: list[Usage] = []

    async def diagnose(self) -> Diagnosis:
        """What the reported numbers come from.

        Raises:
            InvalidQuery: too few of them are of candidates that could be scored.
            DeadlineExceeded: the audit's time ran out.
        """
        numeric_error = self._info.numeric_error
        comparison = Comparison(self._reported, self._scored, numeric_error)
        order = [index for index in self._reported.order or () if index in self._scored]
        if len(comparison.numbers) < 1 and len(order) < 2:
            raise InvalidQuery("nothing of it is of a candidate that could be scored", "reported")
        weighs = self._reported.kind != "order"
        questions, rows = await self._asked(
            lambda tokenizer, info: first_questions(
                tokenizer, info, self._evidence, weighs_vocabulary=weighs
            )
        )
        applying = mistakes(self._setting(), questions.inputs)
        untried = [*questions.untried, *questions.unanswered(rows)]
        right = self._right()
        if order:
            return await self._blocking(
                lambda: order_diagnosis(
                    order_fits(order, right, applying, rows, numeric_error),
                    [*untried, _not_of_an_order()],
                )
            )
        search = Search(comparison, right, rows)
        return await self._of_numbers(search, applying, questions, untried)

    async def _of_numbers(
        self,
        search: Search,
        applying: list[Mistake],
        questions: InputQuestions,
        untried: list[Untried],
    ) -> Diagnosis:
        right, alone = await self._blocking(lambda: (search.right(), search.alone(applying)))
        together: list[Finding] = []
        if not any(one.fit.fits for one in (right, *alone) if one is not None):
            more, rows = await self._asked(
                lambda tokenizer, info: more_questions(
                    tokenizer, info, questions, search.inputs, self._evidence
                )
            )
            untried += [*more.untried, *more.unanswered(rows)]
            known = len(search.inputs)
            for source, found in enumerate(rows[:known]):
                if any(found):
                    search.inputs[source] = found
            search.inputs += rows[known:]
            paired = of_two_in_one_input(more.inputs)
            together = await self._blocking(lambda: self._together(search, applying, paired))
            untried += self._out_of_reach(search)
        numbers = len(search.numbers)
        if numbers < 2:
            words = "a temperature is estimated from one number, and needs another to be checked"
            untried.append(Untried(mistakes=["temperature"], reason=words))
        unchanged = {*questions.unchanged, self._unchanged_end}
        claim = self._reported.normalization
        untried += not_applying(applying, unchanged, untried, claim)
        return await self._blocking(
            lambda: number_diagnosis(
                right,
                alone,
                together,
                numbers=numbers,
                tried=search.tried,
                unaffected=unaffected_by(right, alone, applying, unchanged, untried),
                untried=untried,
            )
        )

    def _out_of_reach(self, search: Search) -> list[Untried]:
        """What is not looked for where no single mistake fits."""
        reasons: list[tuple[MistakeName, str]] = []
        if self._info.numeric_error is None:
            reasons.append(
                ("bf16_noise", "how exact this server's own numbers are was not measured")
            )
        if search.tokens > MAX_ESTIMATED_TOKENS:
            words = f"together with another mistake: {search.tokens} tokens are too many"
            reasons.append(("temperature", words))
        usual = ", ".join(map(str, LENGTHS[:4]))
        reasons.append(("truncated", f"to another length than the usual ones ({usual}, ...)"))
        return [Untried(mistakes=[name], reason=words) for name, words in reasons]

    def _together(
        self, search: Search, applying: list[Mistake], paired: list[tuple[Mistake, ...]]
    ) -> list[Finding]:
        noisy = search.noisy(applying) if self._info.dtype == "float32" else []
        return [*search.pairs(applying, paired), *noisy]

    def _right(self) -> Recipe:
        end: End = "any" if self._evidence.request.append_eos else "none"
        return Recipe(end=end, divisor=self._reported.normalization)

    @property
    def _unchanged_end(self) -> MistakeName:
        return "end_added" if self._evidence.request.append_eos else "end_missing"

    def _setting(self) -> Setting:
        is_ended = self._evidence.request.append_eos
        return Setting(
            kind=self._reported.kind,
            claim=self._reported.normalization,
            append_eos=is_ended,
            end_ids=self._info.end_token_ids,
            eos=self._evidence.tokenizer.eos_token_id,
            scored_tokens=max((one.token_count or 0) - is_ended for one in self._evidence.scored),
            candidates=len(self._scored),
        )

    async def _asked(
        self, plan: Callable[[Tokenizer, ModelInfo], PathQueries[InputQuestions]]
    ) -> tuple[InputQuestions, list[InputRows]]:
        """Questions and what was answered, admitted by what they cost before any of them runs."""
        found = await self._service.score_paths(self._request, plan, deadline=self._deadline)
        self.spent.append(found.usage)
        rows = await self._blocking(lambda: found.plan.rows(found.answers, self._evidence))
        return found.plan, rows

    async def _blocking(self, work: Callable[[], T]) -> T:
        return await self._service.run_blocking(self._request, lambda *_: work())

    @property
    def _request(self) -> AuditRequest:
        return self._evidence.request


def _not_of_an_order() -> Untried:
    return Untried(
        mistakes=["softmax_over_top_k", "temperature", "truncated", "bf16_noise"],
        reason="an order is too little to estimate anything from, or to tell two mistakes at once",
    )
