"""``debias`` on a tiny model: against plain transformers, and whatever the order of the options."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterator
from functools import cache
from itertools import permutations
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from model_runtime import Engine, EngineConfig
from tests.app.compat.decisions.decision_calls import choice, decide, predicate, refusal, score
from tests.app.conftest import client_of, shell_app
from tests.conftest import TinyFolder

pytestmark = pytest.mark.anyio

INPUT = "It is raining and it isn't cold. Is the sky blue? The capital of Japan is Tokyo. " * 4
OPTIONS = ["Paris", "Tokyo", "Paris. The capital", "no"]
DESCRIBED = [{"value": "red", "description": "As grass."}, {"value": "blue"}, {"value": "sky"}]


@pytest.fixture(scope="module")
def folder(tiny_folder: TinyFolder) -> Path:
    """A tiny model with a chat template."""
    return tiny_folder("llama")


@pytest.fixture
async def client(folder: Path, anyio_backend: str) -> AsyncIterator[httpx.AsyncClient]:
    """A server of it that keeps no scores."""
    engine = Engine.load(EngineConfig(model=str(folder), kv_cache_bytes=16 << 20))
    async with client_of(shell_app(engine, score_cache_bytes=0)) as client:
        yield client


class Transformers:
    """Log-probabilities of whole answers in float64, each from a forward of its own."""

    def __init__(self, folder: Path) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()
        self.logprob = cache(self._logprob)

    def _logprob(self, asked: str, listing: tuple[str, ...], option: str) -> float:
        message = (
            f"Read this input and answer the question behind it.\n\n{INPUT}\n\n"
            f"That is the end of the input.\n{asked}" + "\n".join(f" {line}" for line in listing)
        )
        prompt = f"<|im_start|>user\n{message}<|im_end|>\n<|im_start|>assistant\n"
        before = self._tokenizer(prompt, add_special_tokens=False)["input_ids"]
        answer = self._tokenizer(option, add_special_tokens=False)["input_ids"]
        answer.append(self._tokenizer.eos_token_id)
        with torch.no_grad():
            logits = self._model(torch.tensor([before + answer])).logits[0]
        rows = logits[len(before) - 1 : -1].log_softmax(-1)
        return float(rows[range(len(answer)), answer].sum())

    def average(
        self, orders: list[tuple[str, tuple[str, ...]]], options: list[str]
    ) -> tuple[list[float], list[list[float]]]:
        """Softmax of the mean log-probabilities over orders, and that of each order alone."""
        found = [[self.logprob(*order, option) for option in options] for order in orders]
        mean = [sum(those) / len(found) for those in zip(*found, strict=True)]
        return softmax(mean), list(map(softmax, found))


def softmax(logprobs: list[float]) -> list[float]:
    """exp(x_i) / sum of exp(x_j)."""
    values: list[float] = torch.tensor(logprobs, dtype=torch.float64).softmax(0).tolist()
    return values


@pytest.fixture(scope="module")
def oracle(folder: Path) -> Iterator[Transformers]:
    """The same folder, without us."""
    return Transformers(folder)


CHOICE = "Question: Which?\nWhich of these is the answer? Answer with one of them, word for word:\n"
TRUTH = (
    "Statement: It is so.\nIs this true of the input? Answer with one of these, word for word:\n"
)
LEVEL = (
    "Question: How much?\nWhich of these levels is it? Answer with one of them, word for word.\n"
)


def near(values: list[float]) -> object:
    """Equal, but for float32."""
    return pytest.approx(values, abs=2e-5)


def shares(answer: dict[str, Any]) -> dict[Any, float]:
    """The probabilities of a choice or a scale."""
    return {one.get("label", one["value"]): one["probability"] for one in answer["probabilities"]}


def ranges(answer: dict[str, Any]) -> dict[Any, tuple[float, float]]:
    """How far each option of a choice went."""
    found = [(one["lowest"], one["highest"]) for one in answer["orders"]["ranges"]]
    return dict(zip(shares(answer), found, strict=True))


def check(answer: dict[str, Any], mean: list[float], each: list[list[float]]) -> None:
    """An answer is what the oracle's orders give."""
    assert list(shares(answer).values()) == near(mean)
    assert answer["orders"]["count"] == len(each)
    columns = list(zip(*each, strict=True))
    assert [low for low, _ in ranges(answer).values()] == near(list(map(min, columns)))
    assert [high for _, high in ranges(answer).values()] == near(list(map(max, columns)))
    best = {order.index(max(order)) for order in each}
    assert answer["orders"]["flipped"] is (len(best) > 1)


@pytest.mark.parametrize("debias", ["cyclic", "all"])
async def test_a_choice_is_the_mean_over_its_orders(
    client: httpx.AsyncClient, oracle: Transformers, debias: str
) -> None:
    """Each order is a prompt of its own; logarithms are averaged."""
    for count in (2, 3, 4):
        options = OPTIONS[:count]
        orders = [tuple(options[first:] + options[:first]) for first in range(count)]
        if debias == "all":
            orders = list(permutations(options))
        body = {"input": INPUT, "debias": debias}
        (answer,) = (await decide(client, choice(*options), **body))["answers"]
        check(answer, *oracle.average([(CHOICE, order) for order in orders], options))


async def test_a_description_goes_with_its_option(
    client: httpx.AsyncClient, oracle: Transformers
) -> None:
    """Wherever the option stands."""
    lines = ["red: As grass.", "blue", "sky"]
    orders = [(CHOICE, tuple(lines[i:] + lines[:i])) for i in range(3)]
    body = {"input": INPUT, "debias": "cyclic"}
    (answer,) = (await decide(client, choice(choices=DESCRIBED), **body))["answers"]
    check(answer, *oracle.average(orders, ["red", "blue", "sky"]))


async def test_yes_and_no_are_swapped(client: httpx.AsyncClient, oracle: Transformers) -> None:
    """A predicate's range is that of its own probability."""
    orders = [(TRUTH, ("yes", "no")), (TRUTH, ("no", "yes"))]
    mean, each = oracle.average(orders, ["yes", "no"])
    for debias in ("cyclic", "all"):
        (answer,) = (await decide(client, predicate(), input=INPUT, debias=debias))["answers"]
        assert answer["probability"] == pytest.approx(mean[0], abs=2e-5)
        (found,) = answer["orders"]["ranges"]
        assert [found["lowest"], found["highest"]] == near(sorted([each[0][0], each[1][0]]))
        assert answer["orders"]["count"] == 2
        assert answer["orders"]["flipped"] is ((each[0][0] > 0.5) != (each[1][0] > 0.5))


async def test_a_scale_is_shown_from_both_ends(
    client: httpx.AsyncClient, oracle: Transformers
) -> None:
    """And says from which. The values of the levels stay those of the request."""
    levels = ["red", "blue", "sky", "grass", "cold"]
    orders = [
        (f"{LEVEL}From the lowest to the highest:\n", tuple(levels)),
        (f"{LEVEL}From the highest to the lowest:\n", tuple(levels[::-1])),
    ]
    mean, each = oracle.average(orders, levels)
    (answer,) = (await decide(client, score(*levels), input=INPUT, debias="all"))["answers"]
    check(answer, mean, each)
    assert answer["score"] == pytest.approx(sum(i * p for i, p in enumerate(mean)), abs=1e-4)


async def test_no_order_of_all_changes_a_bit(client: httpx.AsyncClient) -> None:
    """Swapped options have swapped answers: probabilities, ranges and whether the choice flips."""
    found = set()
    for order in permutations(OPTIONS):
        body = {"input": INPUT, "debias": "all"}
        (answer,) = (await decide(client, choice(*order), **body))["answers"]
        numbers = {o: (p, *ranges(answer)[o]) for o, p in sorted(shares(answer).items())}
        rest = {key: answer[key] for key in ("choice", "confidence")}
        found.add(repr((numbers, rest, answer["orders"]["flipped"])))
    assert len(found) == 1


async def test_no_rotation_changes_a_bit_of_cyclic(client: httpx.AsyncClient) -> None:
    """Rotated options have the same rotations; another order has others."""
    many = ["Paris", "Tokyo", "red", "blue", "sky", "grass", "cold"]
    found = set()
    for first in range(len(many)):
        body = {"input": INPUT, "debias": "cyclic"}
        rotated = many[first:] + many[:first]
        (answer,) = (await decide(client, choice(*rotated), **body))["answers"]
        found.add(repr((sorted(shares(answer).items()), sorted(ranges(answer).items()))))
    assert len(found) == 1
    (other,) = (await decide(client, choice(*sorted(many)), **body))["answers"]
    assert repr((sorted(shares(other).items()), sorted(ranges(other).items()))) not in found


async def test_the_first_order_is_the_one_without_debias(client: httpx.AsyncClient) -> None:
    """An answer without it is one of those that are averaged, to the bit, and has no orders."""
    questions = [choice(*OPTIONS), predicate(), score("red", "blue", "sky")]
    plain = await decide(client, *questions, input=INPUT)
    assert (
        plain["answers"]
        == (await decide(client, *questions, input=INPUT, debias="none"))["answers"]
    )
    assert (
        plain["answers"] == (await decide(client, *questions, input=INPUT, debias=None))["answers"]
    )
    assert not any("orders" in answer for answer in plain["answers"])
    averaged = await decide(client, *questions, input=INPUT, debias="cyclic")
    yes = plain["answers"][1]["probability"]
    assert yes in averaged["answers"][1]["orders"]["ranges"][0].values()
    for index in (0, 2):
        for option, share in shares(plain["answers"][index]).items():
            lowest, highest = ranges(averaged["answers"][index])[option]
            assert lowest <= share <= highest
        assert math.fsum(shares(averaged["answers"][index]).values()) == pytest.approx(1, abs=1e-12)


async def test_orders_cost_their_listings_only(client: httpx.AsyncClient) -> None:
    """Behind one input and one question: k orders are k listings, not k inputs."""
    long = {"input": INPUT * 2, "cache_salt": "mine"}
    asked = choice(*OPTIONS, instructions="Which of them is it? " * 8)
    once = (await decide(client, asked, **long))["usage"]
    orders = (await decide(client, asked, input=long["input"], debias="all"))["usage"]
    listing = (orders["computed_tokens"] - once["computed_tokens"]) / 23
    assert listing < once["computed_tokens"] / 8
    assert orders["scored_tokens"] == 24 * once["scored_tokens"]
    assert orders["computed_tokens"] <= orders["input_tokens"] + orders["scored_tokens"] - 24 * 4
    # What comes later finds the input computed, whatever the orders.
    later = (await decide(client, choice("red", "blue"), input=long["input"], debias="cyclic"))[
        "usage"
    ]
    assert later["input_tokens_details"]["cached_tokens"] > once["input_tokens"] / 2


async def test_too_many_orders_are_refused_by_name(client: httpx.AsyncClient) -> None:
    """Five options have 120 orders: the question is named. Rotations are taken."""
    five = choice("red", "blue", "sky", "grass", "cold")
    error = await refusal(client, predicate(), five, debias="all")
    assert (error["param"], error["code"]) == ("questions.1", "invalid_value")
    assert "cyclic" in error["message"]
    wide = choice(*map(str, range(255)))
    error = await refusal(client, predicate(), wide, wide, wide, debias="cyclic")
    assert error["param"] == "questions.3"
    assert (await refusal(client, predicate(), debias="some"))["param"] == "debias"
