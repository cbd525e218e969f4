"""One list over several requests: the numbers are those of one request, to the bit."""

from __future__ import annotations

import random
import signal
import threading
import time
from typing import Any

import httpx
import pytest

from app.client import (
    ApiError,
    AsyncClient,
    Client,
    FingerprintMismatch,
    InvalidRequest,
    InvalidResponse,
    RequestRefused,
)
from app.client.split.parts import cut_into_parts
from app.client.split.split_score import split_score
from app.schemas.score import ScoreRequest
from app.schemas.score_response import ScoreResponse
from model_runtime import Engine, EngineConfig, ForwardFailed
from tests.app.fake_engine import FakeEngine
from tests.app.in_process import async_client_over, client_over
from tests.conftest import TinyFolder

WORDS = [" yes", " no", " maybe", "'t", "a", "ab", "abc", "n't", " yes.", " yes.\n", " no no", "b"]
LIST = [*WORDS, "n't", "a", "zz", "", "zzz"]
"""With a candidate that merges into the context's end, duplicates, prefixes and a bad one."""


def same(client: Client, size: int, **fields: Any) -> ScoreResponse:
    """The answer to a split list, which must be that to the whole one."""
    whole = client.score(**fields)
    split = client.score_split(**fields, size=size)
    parts = ("results", "boundary", "off_candidate_mass", "numeric_error", "fingerprint", "receipt")
    for part in parts:
        assert getattr(split, part) == getattr(whole, part), part
    assert split.usage.scored_tokens == whole.usage.scored_tokens
    assert split.usage.prompt_tokens == whole.usage.prompt_tokens
    return whole


@pytest.mark.parametrize("size", [1, 2, 3, 5, 16, 100])
def test_a_split_list_is_scored_as_one(size: int) -> None:
    """Starts, ranks, probabilities, ties, prefixes and errors are those of one request."""
    with client_over(FakeEngine(numeric_error=(0.3, 0.1))) as client:
        whole = same(client, size, context="it is", candidates=LIST, temperature=0.7)
    assert whole.boundary.shift_bytes == 3
    assert any(result.prefix_of for result in whole.results)
    assert any(result.tie_group for result in whole.results)
    assert any(result.error for result in whole.results)


@pytest.mark.parametrize(
    "fields",
    [
        {"append_eos": True, "normalization": "mean"},
        {"normalization": "pmi", "pmi_context": "it"},
        {"normalization": "per_byte", "token_logprobs": True},
        {"boundary": "separate"},
        {"start_token": 1},
        {"receipt": True, "append_eos": True},
        {"receipt": True, "normalization": "pmi", "pmi_context": "it"},
    ],
)
def test_every_setting_survives_the_cut(fields: dict[str, Any]) -> None:
    """What is asked of one request is asked of each part."""
    with client_over() as client:
        same(client, 3, context="it is", candidates=WORDS, **fields)


def test_the_mass_that_is_left() -> None:
    """Where nothing begins anything else and nothing merges, it is that of one request."""
    with client_over() as client:
        whole = same(client, 1, context="it is", candidates=[" yes", " no", " maybe", " yes"])
    assert whole.off_candidate_mass is not None


def test_a_real_model(tiny_folder: TinyFolder) -> None:
    """The numbers of a forward pass do not depend on the cut either."""
    engine = Engine.load(EngineConfig(model=str(tiny_folder("llama")), kv_cache_bytes=1 << 22))
    candidates = [" a", " ab", "b c", " the end", "", " the", "c", " a b c d"]
    with client_over(engine) as client:
        same(client, 2, context="what is ", candidates=candidates, append_eos=True)
        same(client, 3, context="what is ", candidates=candidates, normalization="per_byte")


def test_lists_of_ids() -> None:
    """Ids are split as texts are."""
    ids = [[97], [97, 98], [97, 98, 99], [98], [97], [10**6]]
    with client_over() as client:
        whole = same(client, 2, context="it is", candidates=ids)
    assert whole.results[0].prefix_of == [1, 2]


def test_random_lists() -> None:
    """Any list, any size of its parts."""
    dice = random.Random(7)
    with client_over() as client:
        for _ in range(12):
            candidates = ["".join(dice.choices("ab'tn", k=dice.randint(1, 4))) for _ in range(14)]
            same(client, dice.randint(1, 6), context="it is", candidates=candidates)


@pytest.mark.anyio
async def test_a_split_list_on_a_loop() -> None:
    """The asynchronous client gives the same answer."""
    async with async_client_over() as client:
        whole = await client.score(context="it is", candidates=LIST)
        split = await client.score_split(context="it is", candidates=LIST, size=3)
    assert split.results == whole.results


def test_a_part_of_which_nothing_can_be_scored() -> None:
    """Its candidates fail one by one, as they would among others."""
    failing = FakeEngine(failures={"z": ForwardFailed("inside")})
    with client_over(failing) as client:
        same(client, 2, context="it is", candidates=["", " yes", "zz", "zzz", "yz", "z"])


def test_all_or_nothing_names_the_place_in_the_whole_list() -> None:
    """The failing candidate's index is not that within its part."""
    with client_over() as client, pytest.raises(RequestRefused) as caught:
        client.score_split(context="it is", candidates=["b", "a", ""], size=1, all_or_nothing=True)
    assert caught.value.param == "candidates.2"
    assert caught.value.message.startswith("candidates.2: ")


def test_a_list_of_which_nothing_can_be_scored() -> None:
    """It fails as one request does: with the first of its candidates."""
    with client_over() as client:
        fields: dict[str, Any] = {"context": "it is", "candidates": [[10**6], [10**7], [10**8]]}
        with pytest.raises(ApiError) as whole:
            client.score(**fields)
        with pytest.raises(ApiError) as split:
            client.score_split(**fields, size=1)
    assert (split.value.param, split.value.message) == (whole.value.param, whole.value.message)


def test_what_is_wrong_with_the_request_is_raised_as_it_is() -> None:
    """A setting that the server refuses is no matter of the parts."""
    with client_over() as client, pytest.raises(RequestRefused) as caught:
        client.score_split(context="it is", candidates=["a", "b"], size=1, start_token=60)
    assert caught.value.param == "start_token"


@pytest.mark.parametrize(
    ("param", "fields"),
    [
        ("top_n", {"top_n": 1}),
        ("compact", {"compact": True}),
        ("boundary", {"boundary": "marginal"}),
        ("candidates", {"candidates": ["a", [98]], "boundary": "separate"}),
    ],
)
def test_what_cannot_be_split_is_refused_by_name(param: str, fields: dict[str, Any]) -> None:
    """Nothing is sent."""
    request = {"context": "it is", "candidates": ["a", "b"], **fields}
    with Client() as client, pytest.raises(InvalidRequest) as caught:
        client.score_split(**request, size=1)
    assert caught.value.param == param


def test_parts_of_different_models_are_not_mixed() -> None:
    """A server that changes its model between the parts is found out."""
    with client_over() as client:
        answer = client.score(context="it is", candidates=["a"])
    rounds = split_score(ScoreRequest(context="it is", candidates=["a", "b"]), 1)
    assert len(next(rounds)) == 2
    with pytest.raises(FingerprintMismatch):
        rounds.send([answer, answer.model_copy(update={"fingerprint": "other"})])


@pytest.mark.parametrize("size", [1, 3, 100])
def test_receipts_of_parts_are_one(size: int) -> None:
    """Duplicates stand at each of their places; what failed is left out by its own index."""
    with client_over() as client:
        whole = same(client, size, context="it is", candidates=LIST, receipt=True)
    assert whole.receipt is not None
    assert whole.receipt.left_out == [LIST.index("")]
    assert len(whole.receipt.candidates) == len(LIST) - 1


@pytest.mark.parametrize("update", [None, {"prefixes": [[1]]}, {"dtype": "bfloat16"}])
def test_receipts_of_other_paths_are_not_mixed(update: dict[str, Any] | None) -> None:
    """A part without one, or with one that is no part of the same."""
    with client_over() as client:
        answer = client.score(context="it is", candidates=["a"], receipt=True)
    assert answer.receipt is not None
    other = None if update is None else answer.receipt.model_copy(update=update)
    request = ScoreRequest(context="it is", candidates=["a", "b"], receipt=True)
    rounds = split_score(request, 1)
    next(rounds)
    with pytest.raises(InvalidResponse):
        rounds.send([answer, answer.model_copy(update={"receipt": other})])


def test_few_candidates_are_sent_along() -> None:
    """With a part go only the candidates that begin its first one."""
    places: Any = {key: [n] for n, key in enumerate(["a", "ab", "abc", "b", "ba", "c"])}
    parts = cut_into_parts(places, 2)
    assert [part.keys for part in parts] == [("a", "ab"), ("a", "ab", "abc", "b"), ("b", "ba", "c")]
    assert [sorted(part.owned) for part in parts] == [["a", "ab"], ["abc", "b"], ["ba", "c"]]


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_size_below_one_is_refused(kind: Any) -> None:
    """There are no parts without candidates."""
    with pytest.raises(ValueError, match="size"):
        kind().score_many([], size=0)


def test_ctrl_c_ends_a_split_list() -> None:
    """Whoever waits for the parts need not wait until the server would have taken them."""
    asked: list[httpx.Request] = []
    one_at_a_time = threading.Lock()

    def refuse(request: httpx.Request) -> httpx.Response:
        with one_at_a_time:
            asked.append(request)
            is_second = len(asked) == 2
        if is_second:
            # To that thread, and when it waits: a signal just before that would not wake it.
            time.sleep(0.2)
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        return httpx.Response(503, headers={"Retry-After": "300"})

    candidates = ["a", "b", "c", "d", "e", "f"]
    with Client(transport=httpx.MockTransport(refuse)) as client, pytest.raises(KeyboardInterrupt):
        client.score_split(context="it is", candidates=candidates, size=1, concurrency=2)
    assert len(asked) == 2
