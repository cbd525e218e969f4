"""POST /v1/score with ``receipt``: the ids that were scored, and what came out, exactly."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from app import version
from app.schemas.bounds import MAX_TOKEN_ENTRIES
from model_runtime import Engine, EngineConfig
from tests.app.calls import NO, YES, call, log, refusal
from tests.app.conftest import client_of, shell_app
from tests.app.fake_engine import END, FakeEngine
from tests.app.scoring.test_top_n import many
from tests.conftest import TinyFolder

pytestmark = pytest.mark.anyio

TOKENIZER = FakeEngine().tokenizer


@pytest.fixture
def engine() -> FakeEngine:
    """It is the law that answers."""
    return FakeEngine()


async def receipt_of(client: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    """The receipt of a request that asks for one."""
    return dict((await call(client, "score", receipt=True, **body))["receipt"])


async def test_a_receipt_has_what_was_scored(client: httpx.AsyncClient) -> None:
    """Ids of the context and of each candidate, log-probabilities, sums and scores; no text."""
    info = FakeEngine().info
    assert await receipt_of(client, candidates=[YES, " yes.\n"]) == {
        "format_version": 1,
        "chainrule_version": version(),
        "model": info.name,
        "fingerprint": info.fingerprint,
        "dtype": info.dtype,
        "kernels": info.kernels,
        "prefixes": [TOKENIZER.encode("it is")],
        "normalization": "sum",
        "candidates": [
            {
                "index": 0,
                "token_ids": TOKENIZER.encode(YES),
                "logprobs": [log(0.5)],
                "logprob": log(0.5),
                "score": log(0.5),
            },
            {
                "index": 1,
                "token_ids": TOKENIZER.encode(" yes.\n"),
                "logprobs": [log(0.5), log(0.125), log(0.5)],
                "logprob": log(0.5) + log(0.125) + log(0.5),
                "score": log(0.5) + log(0.125) + log(0.5),
            },
        ],
    }


async def test_without_asking_there_is_none(client: httpx.AsyncClient) -> None:
    """Nor is there a null."""
    assert "receipt" not in await call(client, "score")
    assert "receipt" not in await call(client, "score", receipt=None)


async def test_the_first_scored_token_is_where_the_request_starts(
    client: httpx.AsyncClient,
) -> None:
    """A candidate that merges into the context takes its last tokens from the prefix."""
    answer = await call(client, "score", candidates=["n't", YES], receipt=True)
    (prefix,) = answer["receipt"]["prefixes"]
    assert answer["boundary"]["shift_bytes"] == 3
    assert prefix == TOKENIZER.encode("it")
    paths = [one["token_ids"] for one in answer["receipt"]["candidates"]]
    assert paths == [TOKENIZER.encode(" isn't"), TOKENIZER.encode(" is yes")]


async def test_an_appended_end_is_the_last_log_probability(client: httpx.AsyncClient) -> None:
    """Its ids stand once; its entry is the one that the answer lists."""
    answer = await call(client, "score", append_eos=True, token_logprobs=True, receipt=True)
    receipt = answer["receipt"]
    assert receipt["end_token_ids"] == [TOKENIZER.id(END)]
    for one, result in zip(receipt["candidates"], answer["results"], strict=True):
        assert one["logprobs"] == [token["logprob"] for token in result["tokens"]]
        assert len(one["logprobs"]) == len(one["token_ids"]) + 1


async def test_baselines_are_scored_paths_as_well(client: httpx.AsyncClient) -> None:
    """Each context stands once; the same ids are scored behind it."""
    body = {"normalization": "calibrated", "calibration_contexts": ["a", "it is"]}
    answer = await call(client, "score", receipt=True, **body)
    receipt = answer["receipt"]
    assert receipt["prefixes"] == [TOKENIZER.encode(text) for text in ("it is", "a", "it is")]
    for one, result in zip(receipt["candidates"], answer["results"], strict=True):
        first, second = one["baselines"]
        assert second["logprobs"] == one["logprobs"]
        assert (first["logprob"] + second["logprob"]) / 2 == result["baseline_logprob"]
        assert one["score"] == result["score"]


@pytest.mark.parametrize(
    ("body", "more", "divisor"),
    [
        ({"normalization": "mean"}, {}, None),
        ({"normalization": "per_char"}, {}, 7),
        ({"normalization": "per_byte"}, {}, 9),
        ({"normalization": "gnmt"}, {"gnmt_alpha": 0.6}, None),
        ({"normalization": "gnmt", "gnmt_alpha": 1}, {"gnmt_alpha": 1.0}, None),
        ({"normalization": "pmi", "pmi_context": "a"}, {}, None),
    ],
)
async def test_the_score_follows_from_what_is_there(
    body: dict[str, Any], more: dict[str, Any], divisor: int | None, client: httpx.AsyncClient
) -> None:
    """What it is divided by stands beside it where the ids do not tell."""
    answer = await call(client, "score", candidates=[" yes ☃."], receipt=True, **body)
    (one,) = answer["receipt"]["candidates"]
    assert answer["receipt"].items() >= {"normalization": body["normalization"], **more}.items()
    assert one["score"] == answer["results"][0]["score"]
    assert one.get("divisor") == divisor
    assert ("gnmt_alpha" in answer["receipt"]) is bool(more)


async def test_what_could_not_be_scored_is_left_out(client: httpx.AsyncClient) -> None:
    """By its index; why stands in the answer."""
    receipt = await receipt_of(client, candidates=["", YES, [10**6], NO])
    assert receipt["left_out"] == [0, 2]
    assert [one["index"] for one in receipt["candidates"]] == [1, 3]


async def test_what_top_n_left_unfinished_is_left_out(client: httpx.AsyncClient) -> None:
    """The finished ones have the log-probabilities that they have without it."""
    body: dict[str, Any] = {"context": "it", "candidates": many()}
    answer = await call(client, "score", top_n=3, compact=True, receipt=True, **body)
    pruned = answer["compact"]["pruned"]["index"]
    receipt = answer["receipt"]
    assert pruned and receipt["left_out"] == pruned
    whole = await receipt_of(client, **body)
    assert receipt["candidates"] == [
        one for one in whole["candidates"] if one["index"] not in pruned
    ]


async def test_a_compact_answer_has_the_same_receipt(client: httpx.AsyncClient) -> None:
    """Columns have no place for tokens; a receipt brings its own."""
    body: dict[str, Any] = {"candidates": [YES, NO, ""], "append_eos": True}
    assert await receipt_of(client, compact=True, **body) == await receipt_of(client, **body)


async def test_a_sum_over_tokenizations_has_none(client: httpx.AsyncClient) -> None:
    """``marginal`` has no one token path."""
    error = await refusal(client, "score", boundary="marginal", receipt=True)
    assert error["param"] == "receipt"


async def test_a_receipt_lists_no_more_tokens_than_an_answer(client: httpx.AsyncClient) -> None:
    """Baselines count; the bound is exact."""
    count = MAX_TOKEN_ENTRIES // 8
    ids = TOKENIZER.encode("a")
    body: dict[str, Any] = {"context": ids, "compact": True, "normalization": "calibrated"}
    body |= {"calibration_contexts": [ids] * 7, "candidates": [ids] * count}
    receipt = await receipt_of(client, **body)
    assert len(receipt["candidates"]) == count
    error = await refusal(
        client, "score", receipt=True, **{**body, "candidates": [ids] * (count + 1)}
    )
    assert error["param"] == "receipt"
    assert str(MAX_TOKEN_ENTRIES) in error["message"]


async def test_a_tiny_model_gives_the_same_receipt_each_time(tiny_folder: TinyFolder) -> None:
    """Alone, beside others, in a large batch, cached by the model or the answer."""
    config = EngineConfig(model=str(tiny_folder("llama")), kv_cache_bytes=1 << 22)
    engine = Engine.load(config)
    texts = [" the end", " a b c d", "b c", " ab"]
    body: dict[str, Any] = {"context": "what is the", "append_eos": True}
    async with client_of(shell_app(engine, score_cache_bytes=1 << 20)) as client:
        alone = [
            (await receipt_of(client, candidates=[text], cache_salt=text, **body))["candidates"][0]
            for text in texts
        ]
        among = await receipt_of(client, candidates=texts, cache_salt="new", **body)
        cached = await receipt_of(client, candidates=texts, cache_salt="new", **body)
        crowd = [*texts, *(f" {n} the" for n in range(60))]
        large = await receipt_of(client, candidates=crowd, **body)
    assert among == cached
    assert [{**one, "index": 0} for one in among["candidates"]] == alone
    assert large["candidates"][: len(texts)] == among["candidates"]
