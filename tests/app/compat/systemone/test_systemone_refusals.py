"""What POST /v1/systemone does not take is refused by the name of the question."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from app.decisions import plan as decision_plan
from tests.app.compat.decisions.decision_calls import (
    LAW,
    ChatTokenizer,
    chat_engine,
    plain_engine,
)
from tests.app.compat.systemone.systemone_calls import NOUL, ask, choice, refusal, score
from tests.app.conftest import client_of, shell_app
from tests.app.fake_engine import FakeEngine

pytestmark = pytest.mark.anyio

IMAGE = {"type": "image", "format": "png", "data_base64": "AA=="}


@pytest.fixture
def engine() -> FakeEngine:
    """The law of letters, with a chat template."""
    return chat_engine()


BLANK: list[Any] = ["", " \n", {}, []]
"""Contents that say nothing."""


def deep(levels: int) -> Any:
    """A list in a list, so many of them."""
    return [deep(levels - 1)] if levels > 1 else []


def one(**question: Any) -> dict[str, Any]:
    """A request that asks this alone."""
    return {"questions": {"angry": question}}


def of(criteria: Any, kind: str = "choice") -> dict[str, Any]:
    """A question with these criteria."""
    return one(type=kind, criteria=criteria)


NAME, CRITERIA = "questions.angry", "questions.angry.criteria"

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"state": None}, "state"),
    ({"state": 5}, "state"),
    ({"state": True}, "state"),
    ({"state": "a" * 1_000_001}, "state"),
    ({"state": deep(33)}, "state"),
    ({"state": ["a"] * 10_000}, "state"),
    ({"state": {"a": "b" * (256 << 10)}}, "state"),
    ({"state": dict.fromkeys(map(str, range(1_001)))}, "state"),
    ({"state": IMAGE}, "state"),
    ({"state": {"photo": [IMAGE]}}, "state"),
    ({"state": [{"type": "image_url", "image_url": {"url": "data:"}}]}, "state"),
    ({"state": [{"type": "input_image", "image_url": "data:"}]}, "state"),
    ({"state": {"type": "image", "source": {"type": "base64", "data": "AA=="}}}, "state"),
    ({"state": {"type": "image", "source": "https://example.org/a.png"}}, "state"),
    ({"state": {"type": "image", "data": "data:image/png;base64,AA=="}}, "state"),
    ({"state": [{"type": "image", "data": "AA==", "mimeType": "image/png"}]}, "state"),
    ({"assets": {"photo": IMAGE}}, "assets"),
    ({"assets": []}, "assets"),
    ({"model": 5}, "model"),
    ({"debias": "random"}, "debias"),
    ({"questions": None}, "questions"),
    ({"questions": {}}, "questions"),
    ({"questions": [NOUL]}, "questions"),
    ({"questions": {str(place): NOUL for place in range(401)}}, "questions"),
    ({"questions": {"a" * 513: NOUL}}, "questions." + "a" * 100),
    ({"questions": {"angry": None}}, NAME),
    ({"questions": {"angry": "It is so."}}, NAME),
    (one(), NAME),
    (one(type="yesno", instructions="x"), NAME),
    (one(type=["noul"], instructions="x"), NAME),
    (one(type="box", instructions="The dog."), NAME),
    (one(type="noul"), NAME),
    (one(type="noul", instructions=None, criteria=None), NAME),
    (one(type="noul", criteria={}), NAME),
    (one(type="noul", criteria={"true": None, "false": None}), NAME),
    (one(type="noul", instructions=5), f"{NAME}.instructions"),
    (one(type="noul", instructions=IMAGE), f"{NAME}.instructions"),
    (one(type="noul", criteria={"true": "a", "maybe": "b"}), f"{CRITERIA}.maybe"),
    (one(type="noul", criteria=["a", "b"]), CRITERIA),
    (one(type="noul", criteria={"true": 5}), f"{CRITERIA}.true"),
    (one(type="choice", instructions="x"), CRITERIA),
    (one(type="choice", criteria=None), CRITERIA),
    (of({}), CRITERIA),
    (of(["a", "b"]), CRITERIA),
    (of({"a": 5}), f"{CRITERIA}.a"),
    (of({"a": [IMAGE]}), f"{CRITERIA}.a"),
    (of({"": None, "a": None}), f'{CRITERIA}.""'),
    (of({"a" * 4_097: None}), f"{CRITERIA}." + "a" * 100),
    (of(dict.fromkeys(map(str, range(256)))), CRITERIA),
    (of([], "score"), CRITERIA),
    (of({"low": None}, "score"), CRITERIA),
    (of(["low", None], "score"), f"{CRITERIA}.1"),
    (of(["low", "high", "low"], "score"), CRITERIA),
    (of([{"a": 1}, {"a": 1}], "score"), CRITERIA),
    (of(["[]", []], "score"), CRITERIA),
    (of([str(level) for level in range(256)], "score"), CRITERIA),
    *((one(type="noul", instructions=blank), NAME) for blank in BLANK),
    *((one(type="noul", instructions="", criteria={"true": blank}), NAME) for blank in BLANK),
    *((one(type="noul", criteria={"true": blank, "false": " "}), NAME) for blank in BLANK),
    *((of([blank], "score"), CRITERIA) for blank in BLANK),
    *((of(["low", "", blank], "score"), CRITERIA) for blank in BLANK),
    (of(["low", "high", "low "], "score"), CRITERIA),
    (of(["caf\u00e9", "cafe\u0301"], "score"), CRITERIA),
    (of([{"a": "\u00e9"}, {"a": "e\u0301"}], "score"), CRITERIA),
    (of({" ": None, "a": None}), f'{CRITERIA}." "'),
    (of({"a": None, "a ": None}), NAME),
    (of({"caf\u00e9": None, "cafe\u0301": None}), NAME),
]


@pytest.mark.parametrize(("body", "param"), REFUSED, ids=lambda one: str(one)[:60])
async def test_bad_input_is_refused_by_name(
    client: httpx.AsyncClient, body: dict[str, Any], param: str
) -> None:
    """The first field at fault, in the one shape."""
    error = await refusal(client, **body)
    assert error["param"] == param
    assert error["message"].startswith(f"{param}: ")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"state": deep(33)}, "state: JSON may hold 10000 values, 32 deep"),
        ({"state": 5}, "state: should be text, an object or an array"),
        ({"questions": {"": {**NOUL, "instructions": 5}}}, 'questions."".instructions: should be'),
        ({"questions": {" ": {**NOUL, "type": "box"}}}, 'questions." ": box is refused'),
        ({"questions": {"": choice(**{"a\nb": None, "a\rb": None})}}, 'questions."": '),
    ],
)
async def test_messages_are_readable(body: dict[str, Any], message: str) -> None:
    """Words in capitals keep them, and an empty name stands in quotation marks."""
    async with client_of(shell_app(plain_engine())) as client:
        assert (await refusal(client, **body))["message"].startswith(message)


async def test_the_first_bad_question_is_named(client: httpx.AsyncClient) -> None:
    """Of many, each of which is bad in many places."""
    bad = {f"bad {place}": choice(**dict.fromkeys("abcdefgh", 5)) for place in range(390)}
    error = await refusal(client, questions={"good": NOUL, **bad})
    assert error["param"] == "questions.bad 0.criteria.a"


async def test_images_are_refused_in_words(client: httpx.AsyncClient) -> None:
    """As a question about one, as an asset, as a part of the state, and as a form."""
    for body in (one(type="box"), {"assets": {"a": IMAGE}}, {"state": [IMAGE]}):
        assert "images are not read here" in (await refusal(client, **body))["message"]
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    response = await client.post("/v1/systemone", content=b"--x--\r\n", headers=form)
    assert response.status_code == 415
    assert response.json()["error"]["message"].startswith("Images and other files are not read")


async def test_a_state_that_speaks_of_images_is_read(client: httpx.AsyncClient) -> None:
    """Only what holds one is refused."""
    await ask(client, state={"type": "image", "caption": "A dog."})
    await ask(client, state={"type": "image", "source": "camera 7", "note": "text"})
    await ask(client, state=[{"type": "image", "data": [1, 2], "image_url": None}])


async def test_too_long_a_state_is_named(engine: FakeEngine) -> None:
    """By this API's name for it, and not by that of the route beside it."""
    engine = FakeEngine(LAW, tokenizer=ChatTokenizer(), max_model_len=200)
    async with client_of(shell_app(engine)) as client:
        error = await refusal(client, state="a" * 200)
        assert (error["param"], error["code"]) == ("state", "context_length_exceeded")


async def test_options_that_are_one_to_the_model_are_refused_by_name() -> None:
    """Two texts that its tokenizer takes for the same."""
    engine = plain_engine()
    async with client_of(shell_app(engine)) as client:
        error = await refusal(client, questions={"so": NOUL, "odd": choice(**{"a\nb": None})})
        assert error["param"] == "questions.odd"


async def test_too_many_tokens_are_refused_by_the_question_that_is_too_much(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not the whole request without a name."""
    monkeypatch.setattr(decision_plan, "MAX_PATH_TOKENS", 1_000)
    error = await refusal(client, questions={"so": NOUL, "large": score(*map(str, range(200)))})
    assert error["param"] == "questions.large"
