"""POST /v1/decisions: what its numbers mean, over a law that is written out by hand."""

from __future__ import annotations

import math

import httpx
import pytest

from tests.app.compat.decisions.decision_calls import (
    chat_engine,
    choice,
    decide,
    decide_with,
    plain_engine,
    predicate,
    prompts,
    score,
)
from tests.app.fake_engine import END, STOP, FakeEngine

pytestmark = pytest.mark.anyio


@pytest.fixture
def engine() -> FakeEngine:
    """The law of letters, with a chat template."""
    return chat_engine()


def near(*values: float) -> object:
    """Equal up to the rounding of float32 log-probabilities."""
    return pytest.approx(values, rel=1e-6)


async def test_an_option_that_begins_another_can_lose(client: httpx.AsyncClient) -> None:
    """Options are scored to their end: "a" is likelier than "ab" as a beginning, not as all."""
    answer = (await decide(client, choice(name="letter")))["answers"][0]
    # P(a, end) = 1/2 * 1/8, P(a, b, end) = 1/2 * 1/2 * 3/4, P(x, end) = 1/4 * 1/2
    assert [one["value"] for one in answer["probabilities"]] == ["a", "ab", "x"]
    assert [one["probability"] for one in answer["probabilities"]] == near(1 / 6, 1 / 2, 1 / 3)
    assert (answer["type"], answer["name"], answer["choice"]) == ("choice", "letter", "ab")
    assert answer["confidence"] == pytest.approx(0.25, rel=1e-6)


async def test_any_end_token_ends_an_option() -> None:
    """Where a model has several ends their probabilities are added up."""
    engine = chat_engine()
    both = (engine.tokenizer.id(END), engine.tokenizer.id(STOP))
    answer = await decide_with(chat_engine(end_token_ids=both), choice("a", "ab"))
    shares = [one["probability"] for one in answer["answers"][0]["probabilities"]]
    rest = 0.25 / 271  # what the law leaves to STOP behind "b"
    a, ab = 0.5 * (0.125 + 0.25), 0.25 * (0.75 + rest)
    assert shares == near(a / (a + ab), ab / (a + ab))


async def test_a_predicate_is_the_share_of_yes(client: httpx.AsyncClient) -> None:
    """P(yes) / (P(yes) + P(no)), each with its end."""
    (answer,) = (await decide(client, predicate()))["answers"]
    yes, no = 0.0625 * 0.5 * 0.5 * 0.5, 0.125 * 0.5 * 0.25
    assert answer == {
        "type": "predicate",
        "name": None,
        "probability": pytest.approx(yes / (yes + no), rel=1e-6),
    }


async def test_a_score_is_the_mean_level(client: httpx.AsyncClient) -> None:
    """Levels count from 0; the score is their mean under the probabilities."""
    (answer,) = (await decide(client, score("a", "ab", "x")))["answers"]
    assert answer["type"] == "score"
    assert [(one["value"], one["label"]) for one in answer["probabilities"]] == [
        (0, "a"),
        (1, "ab"),
        (2, "x"),
    ]
    assert answer["score"] == pytest.approx(1 / 2 + 2 / 3, rel=1e-6)
    assert answer["confidence"] == pytest.approx(0.25, rel=1e-6)


async def test_probabilities_add_up_to_one(client: httpx.AsyncClient) -> None:
    """However many and however long the options are."""
    many = [f"{number} and so on" for number in range(255)]
    answer = await decide(client, choice(*many), choice("a", "a" * 200), score("x", "y"))
    for one in answer["answers"]:
        assert math.fsum(o["probability"] for o in one["probabilities"]) == pytest.approx(
            1.0, abs=1e-12
        )


async def test_equal_options_share_and_the_first_is_chosen(client: httpx.AsyncClient) -> None:
    """Where all are as likely there is no confidence, and the first of them is the choice."""
    (answer,) = (await decide(client, choice("p", "q", "r")))["answers"]
    assert answer["choice"] == "p"
    assert answer["confidence"] == pytest.approx(0.0, abs=1e-12)


async def test_answers_come_in_the_order_of_the_questions(client: httpx.AsyncClient) -> None:
    """400 questions, each with its own name, are answered in order."""
    kinds = [predicate(), choice(), score("a", "x")]
    questions = [{**kinds[i % 3], "name": str(i)} for i in range(400)]
    answer = await decide(client, *questions)
    assert [one["name"] for one in answer["answers"]] == [str(i) for i in range(400)]
    assert answer["answers"][0] == {**answer["answers"][399], "name": "0"}


async def test_truth_values_are_not_their_spelling(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    """``true`` and ``"true"`` are two options: beside a truth value texts stand in quotes."""
    (answer,) = (await decide(client, choice(True, False, "true")))["answers"]
    values = [one["value"] for one in answer["probabilities"]]
    assert [(type(value), value) for value in values] == [
        (bool, True),
        (bool, False),
        (str, "true"),
    ]
    (prompt,) = prompts(engine)
    assert '\n true\n false\n "true"' in prompt


async def test_the_answer_around_the_answers(client: httpx.AsyncClient) -> None:
    """The usage has the client's shape, whose two parts of the input add up, and our own counts."""
    answer = await decide(client, predicate())
    assert answer["id"].startswith("decision-")
    assert (answer["object"], answer["model"]) == ("decision", "org/toy")
    usage = answer["usage"]
    details = usage["input_tokens_details"]
    assert details["cached_tokens"] + details["cache_write_tokens"] == usage["input_tokens"]
    assert usage["total_tokens"] == usage["input_tokens"] > 0
    assert usage["output_tokens"] == usage["output_tokens_details"]["reasoning_tokens"] == 0
    assert usage["scored_tokens"] == len("yes") + len("no") + 2
    assert set(answer) == {
        "id",
        "object",
        "created",
        "model",
        "answers",
        "usage",
        "fingerprint",
        "timings_ms",
    }


async def test_without_a_chat_template_the_prompt_is_plain_text() -> None:
    """The answer then stands behind ``Answer:`` and a space, and a line break closes it."""
    engine = plain_engine()
    (answer,) = (await decide_with(engine, predicate()))["answers"]
    assert answer["probability"] == pytest.approx(0.25 / (0.25 + 0.0625), rel=1e-6)
    (prompt,) = prompts(engine)
    assert prompt.endswith("\nAnswer:")
    assert {engine.tokenizer.decode(q.tokens[q.score_from :]) for q in engine.queries} == {
        " yes\n",
        " no\n",
    }


async def test_plain_text_begins_with_bos_where_the_tokenizer_says_so() -> None:
    """The tokenizer's own rule decides."""
    for adds_bos in (False, True):
        engine = plain_engine(adds_bos=adds_bos)
        await decide_with(engine, predicate())
        first = engine.queries[0].tokens[0]
        assert (first == engine.tokenizer.bos_token_id) is adds_bos
