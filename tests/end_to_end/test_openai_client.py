"""The openai package against a running server: its own types read every answer."""

from __future__ import annotations

import math
from collections.abc import Iterator

import openai
import pytest

from tests.end_to_end.live_server import LiveServer

pytestmark = pytest.mark.process

CONTEXT = [11, 42, 7, 99, 3]
CONTINUATIONS = [[5, 17], [8], [5, 17, 23, 4]]


@pytest.fixture(scope="module")
def client(tiny_server: LiveServer) -> Iterator[openai.OpenAI]:
    """A client that tries everything once."""
    with openai.OpenAI(
        base_url=f"{tiny_server.url}/v1", api_key="none needed", max_retries=0
    ) as client:
        yield client


@pytest.fixture(scope="module")
def model(client: openai.OpenAI) -> str:
    """The one model that there is."""
    (card,) = client.models.list().data
    return card.id


def test_a_completion_is_the_greedy_one(
    client: openai.OpenAI, model: str, tiny_server: LiveServer
) -> None:
    """Text, reason, token counts and fingerprint come through the client's types."""
    answer = client.completions.create(
        model=model,
        prompt=CONTEXT,
        max_tokens=6,
        temperature=0,
        extra_body={"skip_special_tokens": False},
    )
    native = tiny_server.post("/v1/decode", {"context": CONTEXT, "max_tokens": 6})
    (choice,), (found,) = answer.choices, native["sequences"]
    assert (choice.text, choice.finish_reason) == (found["text"], found["finish_reason"])
    assert answer.system_fingerprint == native["fingerprint"]
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == len(CONTEXT)
    assert answer.usage.completion_tokens == len(found["token_ids"])
    assert answer.usage.prompt_tokens_details is not None


def test_an_echo_holds_the_native_scores(
    client: openai.OpenAI, model: str, tiny_server: LiveServer
) -> None:
    """Summed over what follows the context, the listed log-probs are what /v1/score answers."""
    answer = client.completions.create(
        model=model,
        prompt=[CONTEXT + continuation for continuation in CONTINUATIONS],
        max_tokens=1,
        logprobs=1,
        echo=True,
        temperature=0,
        seed=1234,
    )
    native = tiny_server.post("/v1/score", {"context": CONTEXT, "candidates": CONTINUATIONS})
    for choice, result in zip(answer.choices, native["results"], strict=True):
        assert choice.logprobs is not None
        logprobs, top = choice.logprobs.token_logprobs, choice.logprobs.top_logprobs
        assert logprobs is not None and top is not None
        assert sum(logprobs[len(CONTEXT) : -1]) == result["logprob"]
        rows = zip(logprobs[len(CONTEXT) : -1], top[len(CONTEXT) : -1], strict=True)
        assert all(own == max(row.values()) for own, row in rows) == result["greedy"]


def test_masks_and_the_prompts_numbers_come_through(
    client: openai.OpenAI, model: str, tiny_server: LiveServer
) -> None:
    """``logit_bias`` is the client's own field; what vLLM adds goes into ``extra_body``."""
    (free,) = client.completions.create(
        model=model, prompt=CONTEXT, max_tokens=1, logprobs=2, extra_body={"prompt_logprobs": 1}
    ).choices
    found = tiny_server.post(
        "/v1/score", {"context": CONTEXT[:1], "candidates": [CONTEXT[1:]], "token_logprobs": True}
    )["results"][0]["tokens"]
    places = free.model_dump()["prompt_logprobs"]
    assert places[0] is None
    for place, token in zip(places[1:], found, strict=True):
        own = place[str(token["id"])]
        assert (own["logprob"], own["rank"]) == (token["logprob"], token["rank"])
    (first, second) = tiny_server.post("/v1/next_token", {"context": CONTEXT, "top_k": 2})["tokens"]
    (masked,) = client.completions.create(
        model=model, prompt=CONTEXT, max_tokens=1, logprobs=0, logit_bias={str(first["id"]): -100}
    ).choices
    assert masked.logprobs is not None
    assert masked.logprobs.token_logprobs == [second["logprob"]]


def test_a_stream_is_read_piece_by_piece(client: openai.OpenAI, model: str) -> None:
    """The pieces of a batch make its texts, and the last one is the usage."""
    body = {"model": model, "prompt": [CONTEXT, [8, 9]], "max_tokens": 6, "echo": True}
    whole = client.completions.create(**body)  # type: ignore[call-overload]
    texts = ["", ""]
    *pieces, last = client.completions.create(  # type: ignore[call-overload]
        **body, stream=True, stream_options={"include_usage": True}
    )
    for piece in pieces:
        (choice,) = piece.choices
        texts[choice.index] += choice.text
    assert texts == [choice.text for choice in whole.choices]
    assert last.usage.completion_tokens == whole.usage.completion_tokens


def test_several_choices_come_best_first(client: openai.OpenAI, model: str) -> None:
    """``n`` of ``best_of`` beams, by their mean log-probability."""
    answer = client.completions.create(
        model=model, prompt=CONTEXT, max_tokens=4, n=3, best_of=4, logprobs=0
    )
    means = []
    for choice in answer.choices:
        assert choice.logprobs is not None and choice.logprobs.token_logprobs is not None
        logprobs = choice.logprobs.token_logprobs
        means.append(math.fsum(logprobs) / len(logprobs))
    assert len(means) == 3
    assert means == sorted(means, reverse=True)


def test_refusals_are_the_clients_own_exceptions(client: openai.OpenAI, model: str) -> None:
    """The kind is told by the status, and the field and code are where the client looks."""
    with pytest.raises(openai.UnprocessableEntityError) as refused:
        client.completions.create(model=model, prompt="a", temperature=0.7)
    assert refused.value.param == "temperature"
    assert refused.value.type == "invalid_request_error"
    with pytest.raises(openai.NotFoundError) as missing:
        client.completions.create(model="gpt-3.5-turbo-instruct", prompt="a")
    assert missing.value.code == "model_not_found"


def test_a_stream_that_fails_raises_in_the_client(client: openai.OpenAI, model: str) -> None:
    """An error among the pieces is an exception, after the tokens that came before it."""
    stream = client.completions.create(
        model=model,
        prompt=[31],
        max_tokens=480,
        stream=True,
        extra_body={"timeout_ms": 150, "ignore_eos": True},
    )
    seen = 0
    with pytest.raises(openai.APIError) as failure:
        for _ in stream:
            seen += 1
    assert seen
    assert failure.value.code == "deadline_exceeded"
