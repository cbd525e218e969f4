"""Answers to a batch that is answered as a whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from app.requests.worker_threads import check_wanted
from model_runtime import ChainruleError, InvalidQuery, LogprobResult, QueryResult


def unwrap_results(
    answers: Sequence[QueryResult], place: Callable[[int], str]
) -> Sequence[LogprobResult]:
    """The answers, none of which is an error.

    Clients of other APIs drop what is missing without a word, so one bad item fails its request.

    Args:
        answers: in the order of the queries.
        place: names the field that the query with this index came from.

    Raises:
        ChainruleError: the first error; where a query is what is wrong, it names its field.
    """
    found = []
    for index, answer in enumerate(answers):
        check_wanted()
        if isinstance(answer, InvalidQuery):
            raise answer.at(place(index))
        if isinstance(answer, ChainruleError):
            raise answer
        found.append(answer)
    return found
