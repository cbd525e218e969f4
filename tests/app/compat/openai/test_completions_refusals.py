"""What POST /v1/completions does not serve is refused by name, and never ignored."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from app.compat.openai import plan as completion_prompts
from tests.app.compat.openai.completion_calls import complete, refused
from tests.app.conftest import client_of, shell_app
from tests.app.fake_engine import FakeEngine

pytestmark = pytest.mark.anyio


@pytest.fixture
def engine() -> FakeEngine:
    """It is the law that answers."""
    return FakeEngine()


NEUTRAL: dict[str, Any] = {
    "suffix": "",
    "temperature": 0,
    "top_p": 1,
    "frequency_penalty": 0.0,
    "presence_penalty": 0,
    "logit_bias": {},
    "n": 1,
    "best_of": 1,
    "user": "somebody",
    "seed": 7,
    "stream": False,
    "echo": False,
    "stop": [],
    "ignore_eos": False,
    "add_bos": None,
    "stream_options": None,
}


@pytest.mark.parametrize("field", NEUTRAL)
async def test_neutral_values_and_nulls_change_nothing(
    client: httpx.AsyncClient, field: str
) -> None:
    """A field at its neutral value, or null, gives the answer that there is without it."""
    plain = await complete(client, prompt="it is")
    for value in (NEUTRAL[field], None):
        answer = await complete(client, prompt="it is", **{field: value})
        assert answer["choices"] == plain["choices"]


@pytest.mark.parametrize("top_p", [0.01, 0.5, 1])
async def test_a_nucleus_changes_nothing(client: httpx.AsyncClient, top_p: float) -> None:
    """The most probable token is in every nucleus."""
    answer = await complete(client, prompt="it is", top_p=top_p)
    assert answer["choices"][0]["text"] == " yes"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"temperature": 0.7}, "temperature"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"top_p": 0.9, "n": 2}, "top_p"),
        ({"suffix": "."}, "suffix"),
        ({"frequency_penalty": 0.1}, "frequency_penalty"),
        ({"presence_penalty": -2}, "presence_penalty"),
        ({"logit_bias": {"5": -99}}, "logit_bias.5"),
        ({"logprobs": True}, "logprobs"),
        ({"logprobs": -1}, "logprobs"),
        ({"logprobs": 1001}, "logprobs"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 0, "echo": True, "n": 2}, "n"),
        ({"max_tokens": 0, "echo": True, "best_of": 2}, "best_of"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"n": 0}, "n"),
        ({"n": 513}, "n"),
        ({"n": 3, "best_of": 2}, "best_of"),
        ({"stream": True, "n": 2}, "stream"),
        ({"stream": True, "best_of": 2}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": {"other": 1}}, "stream_options.other"),
        (
            {"stream": True, "stream_options": {"include_obfuscation": True}},
            "stream_options.include_obfuscation",
        ),
        ({"stop": ["x"] * 17}, "stop"),
        ({"stop": [""]}, "stop.0"),
        ({"stop": 5}, "stop"),
        ({"seed": "1"}, "seed"),
        ({"seed": 2**63 + 1}, "seed"),
        ({"user": "x" * 513}, "user"),
        ({"prompt": ["x"] * 2048, "n": 3, "max_tokens": 1}, "n"),
        ({"prompt": ["x"] * 65, "max_tokens": 65_536}, "max_tokens"),
        ({"echo": 1}, "echo"),
        ({"top_k": 5}, "top_k"),
        ({"prompt": None}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt.0"),
        ({"prompt": ["it", ""]}, "prompt.1"),
        ({"prompt": ["it", 5]}, "prompt.1"),
        ({"prompt": ["it", [5]]}, "prompt.1"),
        ({"prompt": [5, "it"]}, "prompt.1"),
        ({"prompt": [[5], 5]}, "prompt.1"),
        ({"prompt": [[5], [5, -1]]}, "prompt.1.1"),
        ({"prompt": [[5], [272]]}, "prompt.1.0"),
        ({"prompt": [272]}, "prompt.0"),
        ({"prompt": [True]}, "prompt.0"),
        ({"prompt": {"text": "it"}}, "prompt"),
        ({"prompt": ["x"] * 2049}, "prompt"),
        ({"prompt": ["x", "x" * 60]}, "prompt.1"),
    ],
    ids=lambda value: repr(value)[:60],
)
async def test_bad_input_is_refused_by_name(
    client: httpx.AsyncClient, engine: FakeEngine, body: dict[str, Any], param: str
) -> None:
    """Whatever is wrong, the error object names the field and the model is not asked."""
    assert (await refused(client, **{"prompt": "it is", **body}))["param"] == param
    assert engine.queries == []


async def test_more_choices_than_there_are(client: httpx.AsyncClient) -> None:
    """Where a prompt has fewer completions than are asked for, none is left out in silence."""
    error = await refused(client, prompt=["it is"], n=273, max_tokens=1)
    assert error["param"] == "n"
    assert "prompt.0 has 272" in error["message"]


async def test_a_refusal_says_why(client: httpx.AsyncClient) -> None:
    """What is not served is told with its reason."""
    assert "nothing is sampled" in (await refused(client, prompt="a", temperature=1))["message"]


async def test_another_model(client: httpx.AsyncClient) -> None:
    """A model that is not served is 404, as OpenAI's is."""
    error = await refused(client, 404, prompt="it is", model="gpt-3.5-turbo-instruct")
    assert (error["param"], error["code"]) == ("model", "model_not_found")


async def test_the_operators_bound_on_alternatives() -> None:
    """More alternatives than the server allows are refused by this API's own name for them."""
    async with client_of(shell_app(FakeEngine(), max_top_logprobs=5)) as client:
        await complete(client, prompt="it is", logprobs=5)
        assert (await refused(client, prompt="it is", logprobs=6))["param"] == "logprobs"


async def test_a_response_lists_so_many_tokens(
    client: httpx.AsyncClient, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Entries are counted over all prompts, echoes and choices before anything is asked."""
    monkeypatch.setattr(completion_prompts, "MAX_COMPLETION_ENTRIES", 12)
    body: dict[str, Any] = {"prompt": ["it is"] * 4, "echo": True, "max_tokens": 1}
    await complete(client, **body, logprobs=1)
    engine.queries.clear()
    for more in ({"logprobs": 2}, {"logprobs": 1, "n": 2}):
        assert (await refused(client, **body, **more))["param"] == "logprobs"
    assert engine.queries == []


async def test_a_response_echoes_so_much_text(
    client: httpx.AsyncClient, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Echoes are counted as often as they are shown, also where no tokens are listed."""
    monkeypatch.setattr(completion_prompts, "MAX_ECHO_BYTES", 20)
    body: dict[str, Any] = {"prompt": ["it is"] * 2, "max_tokens": 1}
    await complete(client, **body, n=2, echo=True)
    await complete(client, **body, n=3)
    engine.queries.clear()
    assert (await refused(client, **body, n=3, echo=True))["param"] == "echo"
    assert engine.queries == []
