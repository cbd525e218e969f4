"""``prompt_logprobs`` of POST /v1/completions, as vLLM's clients read it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import torch
from transformers import AutoModelForCausalLM

from app.compat.openai import plan as completion_prompts
from app.compat.openai.prompt_logprobs import LEAST, prompt_logprobs
from model_runtime import Engine, EngineConfig, LogprobResult, TokenLogprob
from tests.app.calls import call, log
from tests.app.compat.openai.completion_calls import HARNESS, choice_of, complete, refused
from tests.app.conftest import client_of, shell_app
from tests.app.fake_engine import BOS, END, FakeEngine, ToyTokenizer
from tests.conftest import TinyFolder

pytestmark = pytest.mark.anyio

PROMPT = [11, 42, 7, 99, 3, 5, 17, 23]


@pytest.fixture
def engine() -> FakeEngine:
    """It is the law that answers."""
    return FakeEngine()


def entry(logprob: float, rank: int, text: str) -> dict[str, Any]:
    """One token as it is shown."""
    return {"logprob": logprob, "rank": rank, "decoded_token": text}


async def test_what_comes_back(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    """First null, then by id the prompt's own token and the most probable one."""
    spell = engine.tokenizer.id
    choice = await choice_of(client, prompt="it is no", max_tokens=1, prompt_logprobs=1)
    own = {str(spell(" is")): entry(log(0.5), 1, " is")}
    second = {
        str(spell(" no")): entry(log(0.25), 2, " no"),
        str(spell(" yes")): entry(log(0.5), 1, " yes"),
    }
    assert choice["prompt_logprobs"] == [None, own, second]
    assert [list(place) for place in choice["prompt_logprobs"][1:]] == [list(own), list(second)]
    assert (choice["text"], choice["logprobs"]) == (" no", None)


async def test_the_rank_is_counted_in_the_vocabulary(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    """Where no alternative is asked for, the token is there alone, with its rank."""
    spell = engine.tokenizer.id
    choice = await choice_of(client, prompt="it is.", max_tokens=1, prompt_logprobs=0)
    place = choice["prompt_logprobs"][2]
    assert place == {str(spell(".")): entry(place[str(spell("."))]["logprob"], 4, ".")}
    # A hundred tokens of the same probability come after three; all of them are fourth.
    choice = await choice_of(client, prompt="it is.", max_tokens=1, prompt_logprobs=100)
    ranks = [token["rank"] for token in choice["prompt_logprobs"][2].values()]
    assert ranks == [4, 1, 2, 3, *[4] * 96] or sorted(ranks) == [1, 2, 3, *[4] * 97]


@pytest.mark.parametrize("max_tokens", [0, 1, 3])
@pytest.mark.parametrize("n", [1, 2])
async def test_it_stands_beside_everything_else(
    client: httpx.AsyncClient, max_tokens: int, n: int
) -> None:
    """With it or without, echo and logprobs are the same; every choice of a prompt has it."""
    if max_tokens == 0 and n > 1:
        return
    body: dict[str, Any] = {"prompt": ["it is no", "it"], "max_tokens": max_tokens, "n": n}
    for more in ({"echo": True}, {"echo": True, "logprobs": 2}, {"logprobs": 3}):
        if max_tokens == 0 and "echo" not in more:
            continue
        plain = (await complete(client, **body, **more))["choices"]
        scored = (await complete(client, **body, **more, prompt_logprobs=1))["choices"]
        listed = [choice.pop("prompt_logprobs") for choice in scored]
        assert scored == plain
        assert [len(places) for places in listed] == [3] * n + [1] * n
        assert listed[:n] == [listed[0]] * n and listed[n:] == [[None]] * n


async def test_a_prompt_alone_is_scored(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    """Without an echo nothing need be generated; one token asks nothing of the model."""
    choice = await choice_of(client, prompt="it is", max_tokens=0, prompt_logprobs=2)
    assert (choice["text"], choice["finish_reason"]) == ("", "length")
    assert len(choice["prompt_logprobs"]) == 2
    engine.queries.clear()
    choice = await choice_of(client, prompt="it", max_tokens=0, prompt_logprobs=2)
    assert choice["prompt_logprobs"] == [None] and engine.queries == []


async def test_an_added_bos_is_a_token_of_the_prompt() -> None:
    """It is the first, so the text's own first token has a number."""
    engine = FakeEngine(tokenizer=ToyTokenizer(adds_bos=True))
    async with client_of(shell_app(engine)) as client:
        body: dict[str, Any] = {"add_special_tokens": True, "prompt_logprobs": 0, "max_tokens": 1}
        choice = await choice_of(client, prompt="it is", **body)
    shown = [list(place) for place in choice["prompt_logprobs"][1:]]
    assert shown == [[str(token)] for token in engine.tokenizer.encode("it is")]
    assert BOS not in choice["text"] and END not in choice["text"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"prompt_logprobs": -1}, "prompt_logprobs"),
        ({"prompt_logprobs": 1001}, "prompt_logprobs"),
        ({"prompt_logprobs": True}, "prompt_logprobs"),
        ({"prompt_logprobs": 1.5}, "prompt_logprobs"),
        ({"prompt_logprobs": 1, "stream": True}, "stream"),
        ({"max_tokens": 0}, "max_tokens"),
    ],
    ids=repr,
)
async def test_bad_input_is_refused_by_name(
    client: httpx.AsyncClient, engine: FakeEngine, body: dict[str, Any], param: str
) -> None:
    """Numbers out of range, and a stream, which has no place for it."""
    assert (await refused(client, prompt="it is", **body))["param"] == param
    assert engine.queries == []


async def test_null_asks_for_nothing(client: httpx.AsyncClient) -> None:
    """Clients of vLLM send it so; the answer has no such field."""
    choice = await choice_of(client, prompt="it is", prompt_logprobs=None, stream=False)
    assert "prompt_logprobs" not in choice


async def test_a_response_lists_so_many(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is listed of prompts counts as often as it is shown, beside what else is listed."""
    monkeypatch.setattr(completion_prompts, "MAX_COMPLETION_ENTRIES", 12)
    body: dict[str, Any] = {"prompt": ["it is no"] * 2, "max_tokens": 1}
    await complete(client, **body, prompt_logprobs=2)
    for more in ({"prompt_logprobs": 3}, {"prompt_logprobs": 2, "logprobs": 1}, {"n": 3}):
        listed: dict[str, Any] = {"prompt_logprobs": 1, **more}
        assert (await refused(client, **body, **listed))["param"] == "prompt_logprobs"
    async with client_of(shell_app(FakeEngine(), max_top_logprobs=5)) as small:
        await complete(small, prompt="it", prompt_logprobs=5)
        assert (await refused(small, prompt="it", prompt_logprobs=6))["param"] == "prompt_logprobs"


def test_no_probability_is_a_number_that_json_has() -> None:
    """As vLLM sends it; what is merely small stays."""
    row = (TokenLogprob(5, -0.5), TokenLogprob(7, -1e5))
    answer = LogprobResult(logprobs=(float("-inf"),), ranks=(9,), top=(row,))
    tokenizer: Any = ToyTokenizer()
    _, place = prompt_logprobs(tokenizer, [4, 6], answer, 2)
    assert place is not None
    assert [place[key].logprob for key in ("6", "5", "7")] == [LEAST, -0.5, -1e5]


@pytest.fixture(params=["llama", "qwen3"])
async def real(
    request: pytest.FixtureRequest, tiny_folder: TinyFolder, anyio_backend: str
) -> AsyncIterator[tuple[httpx.AsyncClient, str]]:
    """A server of a tiny model, and the model's folder."""
    folder = str(tiny_folder(request.param))
    config = EngineConfig(model=folder, kv_cache_bytes=1 << 20)
    async with client_of(shell_app(Engine.load(config))) as client:
        yield client, folder


async def test_the_numbers_are_the_native_ones(real: tuple[httpx.AsyncClient, str]) -> None:
    """Bit for bit those of /v1/score, and those of an echo; cold, recalled, and in a batch."""
    client, _ = real
    (native,) = (
        await call(client, "score", context=PROMPT[:1], candidates=[PROMPT[1:]], top_logprobs=4)
    )["results"]
    body: dict[str, Any] = {**HARNESS, "prompt_logprobs": 4}
    for prompts in ([PROMPT], [PROMPT, PROMPT[:5]]):
        for salt in ("", "fresh"):
            answer = await complete(client, prompt=prompts, cache_salt=salt, **body)
            choice = answer["choices"][0]
            _, *places = choice["prompt_logprobs"]
            for place, token in zip(places, native["tokens"], strict=True):
                own = place[str(token["id"])]
                assert (own["logprob"], own["rank"]) == (token["logprob"], token["rank"])
                assert own["decoded_token"] == token["text"]
                best = {str(top["id"]): top["logprob"] for top in token["top_logprobs"]}
                assert best.items() <= {key: one["logprob"] for key, one in place.items()}.items()
                assert len(place) == len({*best, str(token["id"])})
            own_ids = map(str, PROMPT[1:])
            listed = [place[key]["logprob"] for place, key in zip(places, own_ids, strict=True)]
            assert listed == choice["logprobs"]["token_logprobs"][1:-1]


async def test_rows_that_are_kept_are_not_computed_again(
    real: tuple[httpx.AsyncClient, str],
) -> None:
    """The second time the whole prompt is known."""
    client, _ = real
    body: dict[str, Any] = {"prompt": PROMPT, "max_tokens": 0, "prompt_logprobs": 3}
    answers = [await complete(client, **body) for _ in range(2)]
    cached = [a["usage"]["prompt_tokens_details"]["cached_tokens"] for a in answers]
    assert cached[0] < cached[1] <= len(PROMPT)
    assert answers[0]["choices"] == answers[1]["choices"]


async def test_they_are_those_of_transformers(real: tuple[httpx.AsyncClient, str]) -> None:
    """Log-probabilities and ranks of a plain forward over the whole vocabulary."""
    client, folder = real
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.inference_mode():
        logits = model(torch.tensor([PROMPT])).logits[0, :-1]
    rows = torch.log_softmax(logits.double(), dim=-1)
    choice = await choice_of(client, prompt=PROMPT, max_tokens=0, prompt_logprobs=1000)
    for row, token, place in zip(rows, PROMPT[1:], choice["prompt_logprobs"][1:], strict=True):
        assert next(iter(place)) == str(token)
        assert len(place) == len(row)
        for token_id, shown in place.items():
            expected = float(row[int(token_id)])
            assert shown["logprob"] == pytest.approx(expected, abs=1e-4)
            # Whoever is nearer than the numeric error may stand on either side.
            above, near = int((row > expected + 2e-4).sum()), int((row > expected - 2e-4).sum())
            assert above < shown["rank"] <= max(1, near)
