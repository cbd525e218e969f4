"""Whose turn it is: what one class owes the other."""

from __future__ import annotations

from model_runtime.decoding.base import SingleRound
from model_runtime.scheduling.policy import SchedulingPolicy
from model_runtime.scheduling.request import EngineRequest
from model_runtime.types import LogprobResult, Priority, RequestOptions
from tests.model_runtime.chain import Chain
from tests.model_runtime.fake_model import ask

INTERACTIVE, BULK = Priority.INTERACTIVE, Priority.BULK
BATCH = 60


def jobs(priority: Priority, count: int, tokens: int = 6) -> list[EngineRequest]:
    """Requests that have asked and expect so many tokens each."""
    made = []
    for _ in range(count):
        search = SingleRound([ask(*range(tokens + 1))], cost=tokens)
        made.append(EngineRequest(search, RequestOptions(priority), arrival=0.0))
        made[-1].advance(now=0.0)
    return made


def classes(order: list[EngineRequest]) -> str:
    return "".join("i" if job.priority is INTERACTIVE else "b" for job in order)


def test_three_tokens_to_one() -> None:
    """Interactive work leads; bulk work of the same size follows each third of it."""
    share = SchedulingPolicy(BATCH)
    assert classes(share.order(jobs(BULK, 9) + jobs(INTERACTIVE, 10), 1.0)) == "ibiiibiiibiiibbbbbb"


def test_a_debt_carries_over() -> None:
    """A class that was fed too much waits in the next batches until it is even."""
    share = SchedulingPolicy(BATCH)
    bulk, interactive = jobs(BULK, 2), jobs(INTERACTIVE, 9)
    share.order(bulk + interactive, 1.0)
    share.charge({bulk[0]: 12, interactive[0]: 6})
    assert classes(share.order(bulk + interactive, 1.0)) == "iiiiiibiiib"


def test_a_debt_is_never_more_than_a_batch() -> None:
    """Many batches full of bulk work delay it by three batches of interactive work at most."""
    share = SchedulingPolicy(BATCH)
    bulk, interactive = jobs(BULK, 1), jobs(INTERACTIVE, 100)
    for _ in range(10):
        share.order(bulk + interactive, 1.0)
        share.charge({bulk[0]: BATCH})
    ahead = classes(share.order(bulk + interactive, 1.0)).index("b")
    assert ahead * 6 == 3 * BATCH + 6


def test_what_nobody_else_wanted_is_owed_to_nobody() -> None:
    """Bulk work that ran alone owes nothing, neither for that batch nor from before."""
    share = SchedulingPolicy(BATCH)
    bulk, interactive = jobs(BULK, 1), jobs(INTERACTIVE, 9)
    share.order(bulk + interactive, 1.0)
    share.charge({bulk[0]: BATCH})
    share.order(bulk, 1.0)
    share.charge({bulk[0]: BATCH})
    assert classes(share.order(bulk + interactive, 1.0)) == "ibiiiiiiii"


def test_who_was_evicted_goes_first_and_the_oldest_of_them_leads() -> None:
    """A request fed more than its cost leads every batch until it ends, whatever its class."""
    share = SchedulingPolicy(BATCH)
    bulk, interactive = jobs(BULK, 3), jobs(INTERACTIVE, 2)
    for job, tokens in ((bulk[1], 7), (bulk[2], 100), (interactive[1], 6)):
        job.add_usage(tokens, began=0.0)
    order = share.order([*bulk, *interactive], 1.0)
    assert order == [bulk[1], bulk[2], interactive[0], bulk[0], interactive[1]]


def test_steps_of_running_interactive_searches_lead() -> None:
    """Whatever was there before them; those of bulk searches wait for their class's share."""
    share = SchedulingPolicy(BATCH)
    waiting, bulk = jobs(INTERACTIVE, 3), jobs(BULK, 1)
    searches = [
        EngineRequest(Chain((1, 2, 3), rounds=4), RequestOptions(priority), arrival=5.0)
        for priority in (INTERACTIVE, BULK)
    ]
    for search in searches:
        search.advance(now=5.0)
        search.asks[0].answer = LogprobResult()
        search.advance(now=6.0)
    order = share.order([*waiting, *bulk, *searches], 1.0)
    assert order[0] is searches[0]
    assert order.index(searches[1]) > order.index(waiting[0])
