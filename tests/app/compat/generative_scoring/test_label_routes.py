"""Generative scoring in the shapes of vLLM and SGLang: the numbers and the token paths."""

from __future__ import annotations

import math
from typing import Any

import httpx
import pytest

from tests.app.calls import call, log
from tests.app.compat.generative_scoring.label_calls import (
    BODY,
    NO,
    SGLANG,
    VLLM,
    YES,
    ask,
    refusal,
    scores,
)
from tests.app.conftest import client_of, shell_app
from tests.app.fake_engine import BOS, END, FakeEngine, ToyTokenizer

pytestmark = pytest.mark.anyio

both = pytest.mark.parametrize("path", [VLLM, SGLANG])


@pytest.fixture
def engine() -> FakeEngine:
    """It is the law that answers."""
    return FakeEngine()


def asked(engine: FakeEngine) -> list[str]:
    """The texts behind which labels were asked for."""
    return [engine.tokenizer.decode(query.tokens) for query in engine.queries]


async def test_vllms_answer(client: httpx.AsyncClient) -> None:
    """The first label's share of all labels, for each item, in vLLM's shape."""
    answer = await ask(client, VLLM, request_id="mine")
    even = pytest.approx(0.5)
    assert answer == {
        "id": "generative-scoring-mine",
        "object": "list",
        "created": answer["created"],
        "model": "org/toy",
        "data": [
            {"index": 0, "object": "score", "score": pytest.approx(2 / 3)},
            {"index": 1, "object": "score", "score": even},
        ],
        "usage": {
            "prompt_tokens": 4,
            "completion_tokens": 0,
            "total_tokens": 4,
            "prompt_tokens_details": {"cached_tokens": 0},
        },
    }


async def test_sglangs_answer(client: httpx.AsyncClient) -> None:
    """Every label's own probability, for each item, in SGLang's shape."""
    answer = await ask(client, SGLANG)
    assert set(answer) == {"scores", "model", "usage", "object"}
    assert (answer["object"], answer["model"]) == ("scoring", "org/toy")
    assert answer["scores"][0] == [math.exp(log(0.5)), math.exp(log(0.25))]
    assert len(answer["scores"]) == 2


@both
async def test_softmax_over_labels_or_over_the_vocabulary(
    client: httpx.AsyncClient, path: str
) -> None:
    """``apply_softmax`` means the same in both shapes; only the default differs."""
    assert (await scores(client, path, apply_softmax=True))[0] == pytest.approx(2 / 3)
    assert (await scores(client, path, apply_softmax=False))[0] == pytest.approx(0.5)


@both
async def test_the_numbers_are_those_of_the_native_route(
    client: httpx.AsyncClient, path: str
) -> None:
    """A label's probability is what /v1/next_token says of its id, to the bit."""
    native = await call(client, "next_token", context="it is", token_ids=[YES, NO])
    found = await scores(client, path, items=[" is"], apply_softmax=False)
    assert found == [native["chosen"][0]["probability"]]


async def test_shares_add_up_to_one(client: httpx.AsyncClient) -> None:
    """Over all labels, however many; vLLM's is the first of them."""
    body = {"label_token_ids": list(range(256)), "apply_softmax": True}
    shares = (await ask(client, SGLANG, **body))["scores"]
    for item in shares:
        assert math.fsum(item) == pytest.approx(1.0, abs=1e-12)
    assert await scores(client, VLLM, **body) == [item[0] for item in shares]


async def test_vllm_tokenizes_apart_and_sglang_together(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    """Of "it i" and "s" vLLM makes the tokens of both, SGLang those of "it is"."""
    body = {"query": "it i", "items": ["s"]}
    await ask(client, VLLM, **body)
    await ask(client, SGLANG, **body)
    apart, together = (query.tokens for query in engine.queries)
    encode = engine.tokenizer.encode
    assert list(apart) == encode("it i") + encode("s")
    assert list(together) == encode("it is")


@both
async def test_items_may_come_first(
    client: httpx.AsyncClient, engine: FakeEngine, path: str
) -> None:
    """``item_first`` puts each item before the query."""
    await ask(client, path, item_first=True, query=" is", items=["it", "a"])
    assert asked(engine) == ["it is", "a is"]


@both
async def test_token_ids_are_put_together(
    client: httpx.AsyncClient, engine: FakeEngine, path: str
) -> None:
    """Ids are taken as they are."""
    await ask(client, path, query=[1, 2], items=[[3], [4, 5]])
    assert [query.tokens for query in engine.queries] == [(1, 2, 3), (1, 2, 4, 5)]


@both
@pytest.mark.parametrize("item_first", [False, True])
async def test_bos_comes_first_where_the_tokenizer_adds_it(path: str, item_first: bool) -> None:
    """By the tokenizer's own rule, before text alone, and once."""
    engine = FakeEngine(tokenizer=ToyTokenizer(adds_bos=True))
    async with client_of(shell_app(engine)) as client:
        await ask(client, path, item_first=item_first)
        await ask(client, path, item_first=item_first, query=[1], items=[[2]])
    bos = engine.tokenizer.bos_token_id
    assert [query.tokens.count(bos) for query in engine.queries] == [1, 1, 0]
    assert [query.tokens[0] == bos for query in engine.queries] == [True, True, False]


@both
@pytest.mark.parametrize("item_first", [False, True])
async def test_bos_that_the_text_begins_with_stays_the_only_one(
    path: str, item_first: bool
) -> None:
    """A chat template that writes BOS itself gets no second; a text may still spell two."""
    engine = FakeEngine(tokenizer=ToyTokenizer(adds_bos=True))
    async with client_of(shell_app(engine)) as client:
        for begun in (BOS, BOS + BOS):
            for parse_special in (True, False):
                query, item = (" is", f"{begun}it") if item_first else (f"{begun}it", " is")
                body = {"query": query, "items": [item], "parse_special": parse_special}
                await ask(client, path, item_first=item_first, **body)
    bos = engine.tokenizer.bos_token_id
    assert [query.tokens.count(bos) for query in engine.queries] == [1, 1, 2, 1]


async def test_vllm_can_leave_bos_out() -> None:
    """``add_special_tokens`` false adds none."""
    engine = FakeEngine(tokenizer=ToyTokenizer(adds_bos=True))
    async with client_of(shell_app(engine)) as client:
        await ask(client, VLLM, add_special_tokens=False)
    assert all(engine.tokenizer.bos_token_id not in query.tokens for query in engine.queries)


@both
async def test_control_tokens_are_read_unless_unwanted(
    client: httpx.AsyncClient, engine: FakeEngine, path: str
) -> None:
    """What a query or an item spells is a control token, and text with ``parse_special`` false."""
    body = {"query": f"{BOS}it", "items": [f" is{END}"]}
    await ask(client, path, **body, parse_special=False)
    await ask(client, path, **body)
    control = engine.tokenizer.control_ids
    found = [[one for one in query.tokens if one in control] for query in engine.queries]
    assert found == [[], [engine.tokenizer.id(BOS), engine.tokenizer.id(END)]]


async def test_one_text_is_a_list_of_one(client: httpx.AsyncClient) -> None:
    """SGLang takes a lone item without its brackets."""
    assert await scores(client, SGLANG, items=" is") == await scores(client, SGLANG, items=[" is"])


async def test_an_item_may_be_empty(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    """As long as there is something before the label."""
    await ask(client, VLLM, query="it is", items=["", "."])
    assert asked(engine) == ["it is", "it is."]


@pytest.mark.parametrize(
    ("priority", "named"), [(0, "interactive"), (-3, "interactive"), (1, "bulk")]
)
async def test_vllms_priority_is_a_number(
    client: httpx.AsyncClient, engine: FakeEngine, priority: int, named: str
) -> None:
    """Its default and less are urgent, more is not."""
    await ask(client, VLLM, priority=priority)
    assert engine.options[-1].priority.value == named


BAD: list[tuple[dict[str, Any], str]] = [
    ({"label_token_ids": []}, "label_token_ids"),
    ({"label_token_ids": [5, 272]}, "label_token_ids.1"),
    ({"label_token_ids": None}, "label_token_ids"),
    ({"items": []}, "items"),
    ({"items": [" is", 5]}, "items.1"),
    ({"items": [" is", [5]]}, "items"),
    ({"query": [1], "items": [[2], [-1]]}, "items.1.0"),
    ({"query": [999], "items": [[2]]}, "query.0"),
    ({"query": "", "items": ["a", ""]}, "items.1"),
    ({"items": [" is", "a" * 100]}, "items.1"),
    ({"temperature": 0.5}, "temperature"),
]


@both
@pytest.mark.parametrize(("body", "param"), BAD)
async def test_bad_input_is_named(path: str, body: dict[str, Any], param: str) -> None:
    """One bad item refuses the batch, by its index."""
    engine = _CheckingEngine()
    async with client_of(shell_app(engine)) as client:
        error = await refusal(client, path, **body)
    assert error["param"] == param
    assert error["type"] == "invalid_request_error"


class _CheckingEngine(FakeEngine):
    """Answers what it cannot score with the reason, as the real one does."""

    def answer(self, query: Any) -> Any:
        return self.check(query) or super().answer(query)


async def test_sglang_mixes_no_kinds(client: httpx.AsyncClient) -> None:
    """Texts that are joined cannot be joined with ids."""
    error = await refusal(client, SGLANG, query=[1], items=["a"])
    assert error["param"] == "items"


@both
async def test_the_operators_bound_holds(path: str) -> None:
    """No more items than candidates are allowed."""
    async with client_of(shell_app(FakeEngine(), max_candidates=2)) as client:
        await ask(client, path)
        assert (await refusal(client, path, items=["a", "b", "c"]))["param"] == "items"


@both
async def test_items_times_labels_are_bounded(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """Each is a number that is held: the product of two lists that are each allowed."""
    monkeypatch.setattr("app.compat.generative_scoring.label_plan.MAX_LABEL_SCORES", 4)
    assert len(await scores(client, path)) == 2
    items = ["a", "b", "c"]
    assert (await refusal(client, path, items=items))["param"] == "label_token_ids"


@both
async def test_what_is_held_is_bounded(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """Tokens of all paths together, and characters that are tokenized again for each item."""
    monkeypatch.setattr("app.compat.generative_scoring.label_plan.MAX_PATH_TOKENS", 3)
    assert (await refusal(client, path))["param"] == "items"
    monkeypatch.setattr("app.compat.generative_scoring.label_plan.MAX_PATH_TOKENS", 1_000)
    monkeypatch.setattr("app.compat.generative_scoring.label_plan.MAX_JOINED_CHARS", 3)
    for item_first in (False, True):
        if path == SGLANG:
            assert (await refusal(client, path, item_first=item_first))["param"] == "items"
        else:
            await ask(client, path, item_first=item_first)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"context": "a", **BODY}, "query"),
        ({**BODY, "candidates": ["a"]}, "candidates"),
        ({"context": "a", "items": ["a"]}, "items"),
    ],
)
async def test_shapes_do_not_mix(
    client: httpx.AsyncClient, body: dict[str, Any], param: str
) -> None:
    """A body that is begun in one shape and goes on in another is refused, naming the odd key."""
    response = await client.post("/v1/score", json=body)
    assert response.status_code == 422
    assert response.json()["error"]["param"] == param


@pytest.mark.parametrize("body", [{}, {"context": "a"}, {"zzz": []}])
async def test_a_body_of_no_shape_is_our_own(
    client: httpx.AsyncClient, body: dict[str, Any]
) -> None:
    """Where no key tells, what is missing is missing from the native request."""
    response = await client.post("/v1/score", json=body)
    assert response.status_code == 422
    assert response.json()["error"]["param"] in ("context", "candidates")


@pytest.mark.parametrize("shape", ["native", "labels"])
async def test_large_bodies_are_read_alike(client: httpx.AsyncClient, shape: str) -> None:
    """Beyond 64 KiB a body is read beside the event loop, with the same answer and complaints."""
    native = {"context": "it", "candidates": ["a"] * 20_000, "compact": True}
    labels = {**BODY, "items": ["a"] * 20_000}
    body = native if shape == "native" else labels
    assert (await client.post("/v1/score", json=body)).status_code == 200
    odd = await client.post("/v1/score", json={**body, "odd": 1})
    assert (odd.status_code, odd.json()["error"]["param"]) == (422, "odd")
    key = "items" if shape == "native" else "candidates"
    mixed = await client.post("/v1/score", json={**body, key: ["a"]})
    assert (mixed.status_code, mixed.json()["error"]["param"]) == (422, key)
