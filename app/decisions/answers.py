"""What the model's log-probabilities say about questions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from app.decisions.orders import OrderRange, order_range
from app.decisions.plan import DecisionPlan
from model_runtime import LogprobResult, NonFiniteLogits, log_sum, probabilities, total


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer to one question; its options are in the order in which they were sent.

    Attributes:
        probabilities: [options] softmax of ``logprobs``: they add up to 1.
        logprobs: [options] natural log of the probability that the model writes this option and
            nothing else; the mean over all orders in which the options were shown.
        orders: how far the orders ranged; None where debias is none.
    """

    probabilities: tuple[float, ...]
    logprobs: tuple[float, ...]
    orders: OrderRange | None

    @property
    def best(self) -> int:
        """The index of the most probable option; of equally probable ones the first."""
        return self.probabilities.index(max(self.probabilities))

    @property
    def confidence(self) -> float:
        """``(n * p - 1) / (n - 1)`` for the largest p of n: 0 for no preference, 1 for no doubt.

        1 where there is one option only.
        """
        count = len(self.probabilities)
        if count == 1:
            return 1.0
        return max(0.0, (count * max(self.probabilities) - 1) / (count - 1))

    @property
    def mean_index(self) -> float:
        """The options' indices, from 0, weighted by their probabilities: the score on a scale."""
        return math.fsum(index * share for index, share in enumerate(self.probabilities))


def read_decisions(plan: DecisionPlan, answers: Sequence[LogprobResult]) -> list[Decision]:
    """The answer to each question.

    Args:
        plan: that of ``plan_decisions``.
        answers: to its queries, in their order.

    Raises:
        NonFiniteLogits: the model gave the end of an option, or all options of a question in one
            of their orders, no probability at all; it names the question.
    """
    rest, found = iter(answers), []
    for question, orders in zip(plan.questions, plan.orders, strict=True):
        own = [list(islice(rest, len(question.options))) for _ in orders]
        try:
            logprobs = [_logprobs(those) for those in own]
            found.append(_decision(logprobs, plan.debias != "none"))
        except NonFiniteLogits as error:
            raise error.at(question.param) from error
    return found


def _logprobs(answers: Sequence[LogprobResult]) -> list[float]:
    """Those of the options in one order, of which one at least is possible."""
    return _possible(list(map(_logprob, answers)))


def _possible(logprobs: list[float]) -> list[float]:
    if max(logprobs) == -math.inf:
        raise NonFiniteLogits("the model gives none of the options any probability")
    return logprobs


def _decision(logprobs: Sequence[Sequence[float]], with_range: bool) -> Decision:
    """From the [orders][options] log-probabilities of one question.

    Sums are rounded once, so that nothing depends on which order was the first.
    """
    by_option = zip(*logprobs, strict=True)
    mean = _possible([math.fsum(those) / len(logprobs) for those in by_option])
    return Decision(
        probabilities=_softmax(mean),
        logprobs=tuple(mean),
        orders=order_range([_softmax(those) for those in logprobs]) if with_range else None,
    )


def _softmax(logprobs: Sequence[float]) -> tuple[float, ...]:
    return tuple(share for share in probabilities(logprobs) if share is not None)


def _logprob(answer: LogprobResult) -> float:
    """That of a whole option, its end included."""
    if not answer.target_logprobs:
        return total(answer.logprobs)
    return total((*answer.logprobs, log_sum(answer.target_logprobs)))
