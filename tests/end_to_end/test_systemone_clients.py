"""typesafe-sdk and decguard, unmodified, against a real server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typesafe_sdk
from decguard.engine import run_test
from decguard.reports.model import Report
from typesafe_sdk import (
    AsyncTypeSafeClient,
    Choice,
    Image,
    Noul,
    RetryPolicy,
    Score,
    TypeSafeClient,
)

from tests.app.stub_server import ServerProcess
from tests.conftest import TinyFolder

pytestmark = pytest.mark.process

QUESTIONS: dict[str, Any] = {
    "angry": Noul(instructions="The customer is angry."),
    "refund": Noul(criteria={"true": "They want their money back.", "false": None}),
    "team": Choice(
        instructions={"task": "Which team should take this?"},
        criteria={"billing": "Payments.", "support": ["Anything", {"that": "breaks"}], "x": None},
    ),
    "urgency": Score(criteria=["It can wait.", {"when": "this week"}, "Today."]),
    "only": {"type": "choice", "criteria": {"one": None}},
}
STATE = {"subject": "Invoice", "text": "I was charged twice and nobody answers my mails."}
ONCE = RetryPolicy(max_retries=0)
DECISIONS: dict[str, dict[str, Any]] = {
    "choice": {"options": ["refund", "reject", "review"]},
    "noul": {},
    "score": {"levels": ["low", "medium", "high"]},
}


@pytest.fixture(scope="module")
def server(tiny_folder: TinyFolder) -> Iterator[ServerProcess]:
    """A tiny model."""
    server = ServerProcess("model", model=str(tiny_folder("llama")), kv_cache_bytes="64MiB")
    server.await_line("ready")
    yield server
    server.kill()


@pytest.fixture
def client(server: ServerProcess) -> Iterator[TypeSafeClient]:
    """The client with another base URL, and nothing else that is not its own."""
    with TypeSafeClient(base_url=server.url, api_key="none", retry=ONCE) as client:
        yield client


def test_every_kind_of_question(client: TypeSafeClient) -> None:
    """Each answer is read as its own type, under its name; the client checks them strictly."""
    result = client.system_one(STATE, QUESTIONS)
    assert list(result.answers) == list(QUESTIONS)
    assert 0 < result.nouls["angry"].noul < 1 and 0 < result.nouls["refund"].noul < 1
    team, urgency = result.choices["team"], result.scores["urgency"]
    assert list(team.probabilities) == ["billing", "support", "x"]
    assert team.probabilities[team.choice] == max(team.probabilities.values())
    assert urgency.legend == {0: "It can wait.", 1: {"when": "this week"}, 2: "Today."}
    mean = sum(level * share for level, share in urgency.probabilities.items())
    assert urgency.score == pytest.approx(mean)
    assert result.choices["only"].probabilities == {"one": 1.0}
    assert result.usage.input_tokens and result.usage.output_tokens == 0
    assert result.request_id == result.raw_http_response.headers["x-request-id"]


def test_the_list_of_models(client: TypeSafeClient) -> None:
    """Its names are those that a request may have, as well as the client's default."""
    (model,) = client.models.list().models
    result = client.system_one("x", {"a": Noul(instructions="b")}, model=model.name)
    assert result.model == model.name
    assert "Llama" in model.description and len(model.release_date) == 10


def test_large_bodies_come_compressed(client: TypeSafeClient) -> None:
    """From 1,024 bytes on; the answers are those to the plain body."""
    note = {"note": "It was the invoice of May. " * 50}
    result = client.system_one(STATE, QUESTIONS, extra_body=note)
    sent = result.raw_http_response.request
    assert sent.headers["content-encoding"] == "zstd"
    with TypeSafeClient(
        base_url=str(sent.url).removesuffix("/v1/systemone"), api_key="none", compression=False
    ) as plain:
        other = plain.system_one(STATE, QUESTIONS, extra_body=note)
    assert "content-encoding" not in other.raw_http_response.request.headers
    assert result.answers == other.answers


def test_the_asynchronous_client_gets_the_same(
    client: TypeSafeClient, server: ServerProcess
) -> None:
    """Many at once, each to the bit what one alone gets."""

    async def ask() -> list[Any]:
        async with AsyncTypeSafeClient(base_url=server.url, api_key="none", retry=ONCE) as many:
            calls = [many.system_one(STATE, {name: QUESTIONS[name]}) for name in QUESTIONS] * 2
            return [next(iter(one.answers.values())) for one in await asyncio.gather(*calls)]

    alone = list(client.system_one(STATE, QUESTIONS).answers.values())
    assert asyncio.run(ask()) == alone * 2


def test_refusals_are_the_clients_own_errors(client: TypeSafeClient) -> None:
    """What is not served raises the client's exception, which says why and which request it was."""
    with pytest.raises(typesafe_sdk.TypeSafeAPIError, match="Images and other files") as form:
        client.system_one(Image(b"\x89PNG\r\n\x1a\n"), {"a": Noul(instructions="A dog?")})
    assert form.value.status == 415 and form.value.request_id
    with pytest.raises(typesafe_sdk.TypeSafeUnprocessableEntityError, match=r"questions\.dog: box"):
        client.system_one("x", {"dog": {"type": "box"}})
    with pytest.raises(typesafe_sdk.TypeSafeNotFoundError, match="jev-preview"):
        client.system_one("x", {"a": Noul(instructions="b")}, model="jev-preview")


def check(server: ServerProcess, folder: Path, kind: str, **headers: str) -> Report:
    """What decguard finds out about decisions of a kind, and about their order."""
    model = "jev-latest"
    contract = {
        "schema_version": "0.1",
        "decision": {
            "name": "refund_request",
            "type": kind,
            "description": "What should happen?",
            **DECISIONS[kind],
        },
        "backend": {
            "provider": "systemone",
            "url": f"{server.url}/v1/systemone",
            "health_url": f"{server.url}/health/ready",
            "model": model,
            "headers": headers,
        },
        "properties": {"whitespace": {"max_tv_distance": 1.0}},
    }
    if kind == "choice":
        contract["properties"] = {"option_order": {"max_tv_distance": 1e-9, "samples": 3}}
        contract["fuzz"] = {"minimize": False}
    cases = [{"id": "1", "input": STATE}, {"id": "2", "input": "The blender arrived damaged."}]
    (folder / "cases.json").write_text(json.dumps(cases))
    (folder / "contract.yaml").write_text(json.dumps(contract))
    return run_test(folder / "contract.yaml", dataset=folder / "cases.json", mode="all")


@pytest.mark.parametrize("kind", ["noul", "score"])
def test_decguard_takes_every_answer(server: ServerProcess, tmp_path: Path, kind: str) -> None:
    """It checks names, types, sums, the choice and the legend, and counts what fails."""
    report = check(server, tmp_path, kind)
    assert report.status == "pass" and report.health is not None and report.health.status == "ok"
    assert all(record.result is not None for record in report.results)
    (served,) = report.backend.details["served_models"]
    assert served.startswith("llama")


def test_decguard_finds_that_order_matters_and_that_debias_ends_it(
    server: ServerProcess, tmp_path: Path
) -> None:
    """Its ``option_order`` fails without, and holds to the last bit with every order."""
    report = check(server, tmp_path, "choice")
    assert report.properties is not None
    (plain,) = report.properties.summaries
    assert plain.n_errors == 0 < plain.n_violations
    report = check(server, tmp_path, "choice", **{"X-Chainrule-Debias": "all"})
    assert report.properties is not None
    (steady,) = report.properties.summaries
    assert steady.n_errors == steady.n_violations == 0 < steady.n_evaluated
    assert steady.max_tv_distance == 0.0
