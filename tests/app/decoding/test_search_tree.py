"""The tree of a search, against what the search returns and against all there is to find."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.client import Client
from app.schemas.decode_response import DecodeResponse
from app.schemas.search_tree import MAX_TREE_NODES, SearchTree
from model_runtime import Engine, EngineConfig, RecordedSearch
from model_runtime.decoding.recorded import MAX_NUMBERS
from model_runtime.types import LogprobQuery, LogprobResult, QueryResult, RankedLogprob
from tests.app.in_process import client_over

MAX_TOKENS = 3
STRATEGIES = ("greedy", "beam", "exact")


@pytest.fixture(scope="module")
def client(tiny_vocabulary_folder: Path) -> Any:
    """A Llama over eight tokens."""
    config = EngineConfig(model=str(tiny_vocabulary_folder), kv_cache_bytes=8 << 20)
    with client_over(Engine.load(config)) as client:
        yield client


def ask(client: Client, context: list[int], **more: Any) -> DecodeResponse:
    """Completions of token ids, none of which ends one early."""
    return client.decode(
        context=context, max_tokens=MAX_TOKENS, ignore_eos=True, search_tree=True, **more
    )


def paths(tree: SearchTree) -> dict[tuple[int, ...], Any]:
    """The nodes by the tokens that lead to them."""
    found: list[tuple[int, ...]] = []
    for node in tree.nodes:
        before = () if node.parent is None else found[node.parent]
        found.append((*before, node.id))
    assert len(set(found)) == len(found)
    return dict(zip(found, tree.nodes, strict=True))


@settings(max_examples=25, deadline=None)
@given(
    context=st.lists(st.integers(3, 7), min_size=1, max_size=4),
    strategy=st.sampled_from(STRATEGIES),
    num_beams=st.integers(1, 4),
)
def test_a_tree_holds_what_was_returned(
    client: Client, context: list[int], strategy: str, num_beams: int
) -> None:
    """With its numbers, to the bit; sums add up; states say where the search went on."""
    beams = {} if strategy == "greedy" else {"num_beams": num_beams}
    answer = ask(client, context, strategy=strategy, **beams)
    plain = client.decode(
        context=context, max_tokens=MAX_TOKENS, ignore_eos=True, strategy=strategy, **beams
    )
    assert plain.sequences == answer.sequences
    assert answer.search_tree is not None
    nodes = paths(answer.search_tree)
    for sequence in answer.sequences:
        found = tuple(sequence.token_ids)
        for length in range(1, len(found) + 1):
            assert nodes[found[:length]].state == "returned"
        steps = [nodes[found[:length]].logprob for length in range(1, len(found) + 1)]
        assert sum(steps) == sequence.logprob
    for path, node in nodes.items():
        before = nodes[path[:-1]].total if len(path) > 1 else 0.0
        assert node.total == before + node.logprob
        has_children = any(other[:-1] == path for other in nodes)
        assert has_children == (node.step is not None)
        assert node.state != "cut" or not has_children


@settings(max_examples=15, deadline=None)
@given(context=st.lists(st.integers(3, 7), min_size=1, max_size=4), beams=st.integers(1, 4))
def test_what_a_beam_left_is_worse_than_what_it_kept(
    client: Client, context: list[int], beams: int
) -> None:
    """At each length, by the sum of log-probabilities."""
    tree = ask(client, context, strategy="beam", num_beams=beams).search_tree
    assert tree is not None
    nodes = paths(tree)
    for length in range(1, MAX_TOKENS):
        here = [(path, node) for path, node in nodes.items() if len(path) == length]
        kept = [node.total for _, node in here if node.step is not None]
        cut = [node.total for _, node in here if node.state == "cut"]
        assert len(kept) <= beams
        assert not cut or max(cut) <= min(kept)


@settings(max_examples=10, deadline=None)
@given(context=st.lists(st.integers(3, 7), min_size=1, max_size=3))
def test_nothing_behind_a_cut_of_exact_search_is_better(client: Client, context: list[int]) -> None:
    """Of all completions that there are."""
    answer = ask(client, context, strategy="exact")
    assert answer.search_tree is not None and answer.certificate is not None
    assert answer.certificate.optimal
    best = answer.sequences[0].logprob
    cut = [p for p, node in paths(answer.search_tree).items() if node.state == "cut"]
    for path in cut[:8]:
        rest = list(itertools.product(range(8), repeat=MAX_TOKENS - len(path)))
        scored = client.score(
            context=context, candidates=[[*path, *more] for more in rest], boundary="separate"
        )
        assert max(one.logprob or -math.inf for one in scored.results) <= best + 1e-6


def states(answer: DecodeResponse) -> dict[tuple[int, ...], str]:
    """Of each node, by its tokens."""
    assert answer.search_tree is not None
    return {path: node.state for path, node in paths(answer.search_tree).items()}


def test_a_candidate_that_lost_is_completed(client: Client) -> None:
    """Also where it is short, or goes on in another one; what is no candidate is cut."""
    candidates = [[3], [3, 4], [4, 5], [4, 5, 6], [6, 6]]
    answer = client.decode(
        context=[3, 4],
        candidates=candidates,
        strategy="beam",
        num_beams=5,
        search_tree=True,
        append_eos=False,
        top_logprobs=4,
    )
    found = states(answer)
    for candidate in map(tuple, candidates):
        goes_on = any(
            len(other) > len(candidate)
            for other in map(tuple, candidates)
            if other[: len(candidate)] == candidate
        )
        expected = {"returned", "completed", "expanded"} if goes_on else {"returned", "completed"}
        assert found[candidate] in expected
    others = set(found) - {tuple(c[:n]) for c in candidates for n in range(1, 4)}
    assert others
    assert {found[path] for path in others} == {"cut"}


def test_a_stop_completes(client: Client) -> None:
    """The token that ends its text stands for a completion."""
    plain = ask(client, [3, 4], strategy="greedy")
    first, second, _ = plain.sequences[0].token_ids
    assert plain.search_tree is not None
    stop = paths(plain.search_tree)[first, second].text
    answer = client.decode(
        context=[3, 4],
        max_tokens=3,
        ignore_eos=True,
        strategy="beam",
        num_beams=4,
        stop=[stop],
        search_tree=True,
    )
    assert answer.search_tree is not None
    nodes = paths(answer.search_tree)
    texts = {path: "".join(nodes[path[:n]].text for n in range(1, len(path) + 1)) for path in nodes}
    early = {path for path, node in nodes.items() if node.state == "completed" and len(path) < 3}
    assert early
    assert early <= {path for path, text in texts.items() if stop in text}
    goes_on = {path for path, node in nodes.items() if node.state in ("expanded", "cut")}
    assert not any(stop in texts[path] for path in goes_on if len(path) < MAX_TOKENS)


class Endless:
    """A greedy search of the first token, for ever."""

    cost = 1
    longest_path = 1
    done = False

    def __init__(self) -> None:
        self.tokens: tuple[int, ...] = (1,)

    def queries(self) -> list[LogprobQuery]:
        """What follows all tokens so far."""
        return [LogprobQuery(self.tokens, len(self.tokens))]

    def advance(self, answers: Sequence[QueryResult]) -> None:
        """A token more."""
        self.tokens = (*self.tokens, 0)

    def result(self) -> None:
        """There never is one."""


def test_a_long_search_is_remembered_in_bounded_memory() -> None:
    """Each prefix of a long completion counts with all of its tokens."""
    search = RecordedSearch(Endless(), prompt_length=1)
    for _ in range(3000):
        (query,) = search.queries()
        row = [RankedLogprob(token, -1.0, token + 1) for token in range(4)]
        search.advance([LogprobResult(choices=tuple(row))])
        assert query.tokens[0] == 1
    held = sum(len(p.tokens) + 2 * len(p.ids) for p in search.prefixes)
    assert 0.9 * MAX_NUMBERS < held <= MAX_NUMBERS
    assert search.remembered + search.forgotten == 4 * 3000


def test_a_tree_has_a_bound(client: Client) -> None:
    """What is left out is counted."""
    answer = client.decode(
        context=[3, 4],
        max_tokens=8,
        ignore_eos=True,
        strategy="beam",
        num_beams=512,
        search_tree=True,
    )
    assert answer.search_tree is not None
    assert len(answer.search_tree.nodes) == MAX_TREE_NODES
    assert answer.search_tree.left_out > 1000
    assert tuple(answer.sequences[0].token_ids) in paths(answer.search_tree)


def test_each_compared_strategy_has_its_own(client: Client) -> None:
    """And the answer none beside them; without the wish there is none at all."""
    answer = ask(client, [3, 4], compare=list(STRATEGIES), num_beams=2)
    assert answer.search_tree is None and answer.compared is not None
    for one in answer.compared:
        assert one.search_tree is not None and one.sequence is not None
        assert tuple(one.sequence.token_ids) in paths(one.search_tree)
    plain = client.decode(context=[3], max_tokens=2)
    assert plain.search_tree is None
