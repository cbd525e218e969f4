"""Searches among some tokens alone: against every completion there is, and against transformers."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LogitsProcessorList, PreTrainedModel

from model_runtime.decoding.beam import BeamSearch
from model_runtime.decoding.best_first.exact import ExactSearch
from model_runtime.decoding.constraints.closed_set import ClosedSet
from model_runtime.decoding.constraints.token_mask import TokenMask
from model_runtime.decoding.greedy import GreedySearch
from model_runtime.decoding.limits import DecodingLimits
from model_runtime.errors import InvalidQuery, NothingFollows
from model_runtime.token_set import TokenSet
from tests.model_runtime.decoding.brute_force import completions, k_best
from tests.model_runtime.decoding.generate_settings import (
    VOCAB,
    Setting,
    generate,
    generate_beams,
    some_setting,
    swaps,
)
from tests.model_runtime.decoding.plain_model import run as run_model
from tests.model_runtime.decoding.table import PROMPT, bigrams, random_table, run
from tests.tiny_models import tiny_model

SMALL, LONGEST = 5, 4


def among(
    ids: set[int], ends: set[int], size: int = SMALL, length: int = LONGEST
) -> DecodingLimits:
    """Limits under which only these tokens come, ends among them or not."""
    mask = TokenMask(TokenSet.of(ids, size))
    return DecodingLimits(length, end_token_ids=frozenset(ends & ids), constraint=mask)


def exact(limits: DecodingLimits) -> ExactSearch:
    """The three best, with a budget for all of them."""
    return ExactSearch(
        PROMPT, limits, vocab_size=SMALL, num_return_sequences=3, max_expansions=1_000
    )


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 9),
    st.sets(st.integers(0, 4), min_size=1),
    st.sets(st.integers(0, 4), max_size=2),
)
def test_the_best_of_all_completions_of_these_tokens(
    seed: int, ids: set[int], ends: set[int]
) -> None:
    """Exact search finds it, under the table's own numbers; greedy and beams keep to the tokens."""
    table, limits = random_table(seed, SMALL), among(ids, ends)
    free = replace(limits, constraint=None)
    every = [each for each in completions(table, free, SMALL) if set(each.path) <= ids]
    found = run(exact(limits), table)
    assert [h.score for h in found.hypotheses] == pytest.approx(k_best(every, 0.0, 3))
    searches = (
        GreedySearch(PROMPT, limits, vocab_size=SMALL),
        BeamSearch(PROMPT, limits, vocab_size=SMALL, num_beams=3, num_return_sequences=3),
    )
    for search in searches:
        for hypothesis in run(search, table).hypotheses:
            assert set(hypothesis.token_ids) <= ids
            for place, token in enumerate(hypothesis.token_ids):
                row = table(hypothesis.token_ids[:place])
                assert hypothesis.token_logprobs[place] == row[token]
                assert hypothesis.token_ranks[place] == 1 + sum(one > row[token] for one in row)


def test_what_is_inside_still_holds() -> None:
    """Of the candidates those are left whose tokens may all come."""
    table = random_table(3, SMALL)
    inner = ClosedSet([(0, 1), (0, 2), (3,)], SMALL, end=True)
    mask = TokenMask(TokenSet.of({0, 2, 4}, SMALL), inner)
    limits = DecodingLimits(3, end_token_ids=frozenset({4}), constraint=mask)
    found = run(exact(limits), table)
    assert [h.token_ids for h in found.hypotheses] == [(0, 2, 4)]
    assert mask.push(0).allowed == TokenSet.of({2}, SMALL)
    assert not mask.may_end and mask.push(0).push(2).may_end and not mask.push(0).complete
    assert TokenMask(TokenSet.of({0}, SMALL), ClosedSet([(0,)], SMALL, end=False)).push(0).complete
    assert mask.size_words > inner.size_words


def test_no_first_token_is_refused_at_once() -> None:
    """Where the two leave nothing."""
    inner = ClosedSet([(0, 1)], SMALL, end=True)
    mask = TokenMask(TokenSet.of({2, 4}, SMALL), inner)
    limits = DecodingLimits(3, end_token_ids=frozenset({4}), constraint=mask)
    with pytest.raises(InvalidQuery, match="leaves no first token"):
        GreedySearch(PROMPT, limits, vocab_size=SMALL)


def test_tokens_without_probability_are_a_dead_end() -> None:
    """They are never chosen, also where nothing else may come."""
    table = bigrams([0.5, 0.5, 0.0], [[0.5, 0.5, 0.0]] * 3)
    limits = among({2}, set(), size=3)
    with pytest.raises(NothingFollows):
        run(GreedySearch(PROMPT, limits, vocab_size=3), table)


class OnlyThese:
    """The mask as transformers has it: what may not come has no probability."""

    def __init__(self, ids: set[int]) -> None:
        self.forbidden = [token_id for token_id in range(VOCAB) if token_id not in ids]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """[paths, vocabulary] scores, which ``generate`` does not renormalise afterwards."""
        scores = scores.clone()
        scores[:, self.forbidden] = -torch.inf
        return scores


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    """A tiny model."""
    return tiny_model(request.param, vocab_size=VOCAB)


def masked_settings(seed: int, count: int) -> list[tuple[Setting, set[int]]]:
    """Random settings, with enough tokens that may come, none to half of the ends among them."""
    source = random.Random(seed)
    found = []
    for _ in range(count):
        setting = replace(some_setting(source), min_tokens=0)
        ids = set(source.sample(range(VOCAB), source.randint(16, 28)))
        ids -= set(sorted(setting.ends)[::2])
        found.append((setting, ids))
    return found


def test_greedy_search_equals_generate_with_a_mask(model: PreTrainedModel) -> None:
    """Token by token."""
    for setting, ids in masked_settings(5, 30):
        mask = LogitsProcessorList([OnlyThese(ids)])
        theirs = generate(model, setting, logits_processor=mask).sequences[0]
        limits = replace(
            setting.limits,
            end_token_ids=setting.ends & ids,
            constraint=TokenMask(TokenSet.of(ids, VOCAB)),
        )
        (ours,) = run_model(
            GreedySearch(setting.prompt, limits, vocab_size=VOCAB), model
        ).hypotheses
        assert list(ours.token_ids) == theirs[len(setting.prompt) :].tolist(), setting


def test_beam_search_equals_generate_with_a_mask(model: PreTrainedModel) -> None:
    """Tokens and ``sequences_scores``; equal scores may change places in one of fifty."""
    swapped = 0
    cases = masked_settings(6, 40)
    for setting, ids in cases:
        mask = LogitsProcessorList([OnlyThese(ids)])
        theirs = generate_beams(model, setting, logits_processor=mask)
        limits = replace(
            setting.limits,
            end_token_ids=setting.ends & ids,
            constraint=TokenMask(TokenSet.of(ids, VOCAB)),
        )
        search = BeamSearch(
            setting.prompt,
            limits,
            vocab_size=VOCAB,
            num_beams=setting.num_beams,
            num_return_sequences=setting.num_return_sequences,
            length_penalty=setting.length_penalty,
            early_stopping=setting.early_stopping,
        )
        swapped += bool(swaps(run_model(search, model).hypotheses, theirs, setting))
    assert swapped <= 0.02 * len(cases)
