"""POST /v1/calibrations, and decisions that name one, on a real (tiny) model."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.calibration.fit import fit_questions
from app.calibration.labelled import LabelledDecision
from app.schemas.calibration import Calibration, QuestionCalibrations
from model_runtime import Engine, EngineConfig
from tests.app.compat.decisions.decision_calls import (
    COLOURS,
    decide,
    labelled,
    predicate,
    refusal,
    score,
)
from tests.app.conftest import client_of, shell_app
from tests.conftest import TinyFolder

pytestmark = pytest.mark.anyio

KEY = {"Authorization": "Bearer secret"}


@pytest.fixture
def folder(tiny_folder: TinyFolder) -> str:
    """Of a tiny model with a chat template."""
    return str(tiny_folder("llama"))


@pytest.fixture
def engine(folder: str) -> Engine:
    """Of that model."""
    return load(folder)


def load(folder: str) -> Engine:
    """An engine, which lives as long as its server."""
    return Engine.load(EngineConfig(model=folder, kv_cache_bytes=8 << 20))


@pytest.fixture
async def client(engine: Engine, anyio_backend: str) -> AsyncIterator[httpx.AsyncClient]:
    """A server of it with a key, which this client shows."""
    async with client_of(shell_app(engine, api_keys=("secret",))) as client:
        client.headers.update(KEY)
        yield client


async def fit(
    client: httpx.AsyncClient, status: int = 200, lines: Any = None, **body: Any
) -> dict[str, Any]:
    """The answer, or the error object of a request that fails so."""
    sent = {"lines": labelled() if lines is None else lines, **body}
    response = await client.post("/v1/calibrations", json=sent)
    assert response.status_code == status, response.text
    answer = dict(response.json())
    return answer if status == 200 else dict(answer["error"])


def shares(answer: dict[str, Any], field: str) -> list[float]:
    """Of the options of an answer."""
    if answer["type"] == "predicate":
        return [answer[field], 1 - answer[field]]
    return [one[field] for one in answer["probabilities"]]


async def test_it_is_fitted_to_what_decisions_say(client: httpx.AsyncClient) -> None:
    """The same map and the same measures as from the probabilities of POST /v1/decisions."""
    lines = labelled()
    decisions = []
    for line in lines:
        (one,) = (await decide(client, line["question"], input=line["input"]))["answers"]
        right = ["red", "green"].index(line["answer"]) if "choice" in one else 1 - line["answer"]
        logs = tuple(map(math.log, shares(one, "probability")))
        decisions.append(LabelledDecision(one["type"], logs, right))
    for method in ("temperature", "isotonic"):
        expected = fit_questions(decisions, method, 0.2)  # type: ignore[arg-type]
        found = await fit(client, lines=lines, method=method, error_rate=0.2)
        questions = QuestionCalibrations.model_validate(found["calibration"]["questions"])
        _check_near(questions.model_dump(), expected.model_dump())
    assert "name" not in found
    assert found["usage"]["computed_tokens"] > 0
    assert (await client.get("/v1/calibrations")).json() == {"object": "list", "data": []}


def _check_near(found: Any, expected: Any) -> None:
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key in expected:
            _check_near(found[key], expected[key])
    elif isinstance(expected, list | tuple):
        for one, other in zip(found, expected, strict=True):
            _check_near(one, other)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-6, abs=1e-9)
    else:
        assert found == expected


async def test_a_decision_that_names_one_is_calibrated(client: httpx.AsyncClient) -> None:
    """Beside what it was before, to the bit: calibrated probabilities, a set, an abstention."""
    kept = await fit(client, name="mine", method="temperature", error_rate=0.25)
    questions = kept["calibration"]["questions"]
    asked = [predicate(name="p"), COLOURS]
    plain = await decide(client, *asked, input="No. 1")
    answer = await decide(client, *asked, input="No. 1", calibration="mine")
    assert (kept["name"], answer["calibration"]) == ("mine", "mine")
    for before, after in zip(plain["answers"], answer["answers"], strict=True):
        fitted = questions[after["type"]]
        logs = [math.log(one) for one in shares(before, "probability")]
        weights = [math.exp(one / fitted["map"]["temperature"]) for one in logs]
        expected = [weight / sum(weights) for weight in weights]
        found = shares(after, "calibrated_probability")
        assert found == pytest.approx(expected, rel=1e-9)
        values = [True, False] if after["type"] == "predicate" else ["red", "green", "dark blue"]
        reached = [v for v, p in zip(values, expected, strict=True) if p >= fitted["threshold"]]
        assert after["set"] == reached
        assert after["abstain"] is (len(reached) != 1)
        assert _without_what_is_added(after) == before


def _without_what_is_added(answer: dict[str, Any]) -> dict[str, Any]:
    added = {"calibrated_probability", "set", "abstain"}
    rest = {key: value for key, value in answer.items() if key not in added}
    for one in rest.get("probabilities", ()):
        del one["calibrated_probability"]
    return rest


async def test_levels_are_named_by_place_or_label(client: httpx.AsyncClient) -> None:
    """Both name the same level; the set has places."""
    scale = score("low", "high", "higher")
    lines = [{"input": f"{n}", "question": scale, "answer": n % 3} for n in range(20)]
    by_label = [{**one, "answer": ("low", "high", "higher")[one["answer"]]} for one in lines]
    by_place = await fit(client, lines=lines, name="scale")
    assert by_place["calibration"] == (await fit(client, lines=by_label))["calibration"]
    answer = await decide(client, scale, calibration="scale")
    threshold = by_place["calibration"]["questions"]["score"]["threshold"]
    (one,) = answer["answers"]
    assert one["set"] == [
        level["value"]
        for level in one["probabilities"]
        if level["calibrated_probability"] >= threshold
    ]


async def test_orders_belong_to_a_calibration(client: httpx.AsyncClient) -> None:
    """Fitted to answers under ``cyclic`` it is for those alone, which tell their orders as well."""
    await fit(client, name="turned", debias="cyclic")
    refused = await refusal(client, COLOURS, status=409, calibration="turned")
    assert refused["message"].endswith("is of another debias: cyclic; here it is none")
    (plain,) = (await decide(client, COLOURS, debias="cyclic"))["answers"]
    (one,) = (await decide(client, COLOURS, debias="cyclic", calibration="turned"))["answers"]
    assert one["orders"]["count"] == 3
    assert math.fsum(shares(one, "calibrated_probability")) == pytest.approx(1, abs=1e-12)
    assert _without_what_is_added(one) == plain


async def test_what_is_kept_is_listed_and_read(client: httpx.AsyncClient) -> None:
    """By name; a name that there is takes overwrite."""
    fitted = (await fit(client, name="b"))["calibration"]
    await fit(client, name="a", method="isotonic")
    listed = (await client.get("/v1/calibrations")).json()["data"]
    assert [one["name"] for one in listed] == ["a", "b"]
    assert listed[1] == {
        "name": "b",
        **{key: fitted[key] for key in ("model", "fingerprint", "prompt_template", "debias")},
        "error_rate": 0.1,
        "questions": ["predicate", "choice"],
        "usable": True,
    }
    assert (await client.get("/v1/calibrations/b")).json() == fitted
    assert (await client.get("/v1/calibrations/c")).status_code == 404
    taken = await fit(client, 409, name="b", method="isotonic")
    assert (taken["code"], taken["param"]) == ("calibration_exists", "name")
    assert (await client.get("/v1/calibrations/b")).json() == fitted
    await fit(client, name="b", method="isotonic", overwrite=True)
    assert (await client.get("/v1/calibrations/b")).json() != fitted


async def test_what_no_calibration_can_do_is_refused_by_name(client: httpx.AsyncClient) -> None:
    """An unknown name; a type that it was not fitted to, by the question."""
    unknown = await refusal(client, predicate(), status=404, calibration="other")
    assert (unknown["code"], unknown["param"]) == ("calibration_not_found", "calibration")
    await fit(client, name="mine", lines=labelled()[::2])
    untold = await refusal(client, COLOURS, predicate(), calibration="mine")
    assert untold["param"] == "questions.1"
    assert "'mine' was fitted to no question of type predicate" in untold["message"]


async def test_a_server_without_keys_keeps_nothing(engine: Engine) -> None:
    """It fits all the same."""
    async with client_of(shell_app(engine)) as client:
        refused = await fit(client, 403, name="mine")
        assert (refused["code"], refused["param"]) == ("api_key_needed", "name")
        assert (await fit(client))["calibration"]["questions"]
        assert (await client.get("/v1/calibrations")).json()["data"] == []
        removed = await client.delete("/v1/calibrations/mine")
        assert (removed.status_code, removed.json()["error"]["code"]) == (403, "api_key_needed")


async def test_what_is_removed_is_kept_no_more(client: httpx.AsyncClient) -> None:
    """The name is free again."""
    await fit(client, name="mine")
    removed = await client.delete("/v1/calibrations/mine")
    expected = {"object": "calibration.deleted", "name": "mine", "deleted": True}
    assert (removed.status_code, removed.json()) == (200, expected)
    again = await client.delete("/v1/calibrations/mine")
    assert (again.status_code, again.json()["error"]["code"]) == (404, "calibration_not_found")
    assert (await client.get("/v1/calibrations")).json()["data"] == []
    await fit(client, name="mine")


async def test_where_keys_are_apart_names_are_too(
    engine: Engine, folder: str, tmp_path: Path
) -> None:
    """A key neither reads nor changes what another one has kept; the operator's are for both."""
    async with client_of(shell_app(engine)) as client:
        common = Calibration.model_validate((await fit(client, debias="all"))["calibration"])
    (tmp_path / "common.json").write_text(common.model_dump_json())
    keys = ("secret", "other")
    app = shell_app(load(folder), api_keys=keys, calibrations=tmp_path)
    async with client_of(app) as client:
        client.headers.update(KEY)
        fitted = (await fit(client, name="mine"))["calibration"]
        refused = await fit(client, 403, name="common", overwrite=True)
        assert (refused["code"], refused["param"]) == ("calibration_read_only", "name")
        client.headers.update({"Authorization": "Bearer other"})
        listed = (await client.get("/v1/calibrations")).json()["data"]
        assert [one["name"] for one in listed] == ["common"]
        unknown = await refusal(client, predicate(), status=404, calibration="mine")
        assert unknown["code"] == "calibration_not_found"
        assert (await client.delete("/v1/calibrations/mine")).status_code == 404
        assert (await client.delete("/v1/calibrations/common")).status_code == 403
        await fit(client, name="mine", method="isotonic")
        client.headers.update(KEY)
        assert (await client.get("/v1/calibrations/mine")).json() == fitted
        await decide(client, predicate(), calibration="mine")
        await decide(client, predicate(), calibration="common", debias="all")


async def test_what_was_fitted_is_answered_where_it_cannot_be_kept(
    engine: Engine, tmp_path: Path
) -> None:
    """The folder is gone: the answer says so instead of a name."""
    folder = tmp_path / "calibrations"
    folder.mkdir()
    async with client_of(shell_app(engine, api_keys=("secret",), calibrations=folder)) as client:
        client.headers.update(KEY)
        folder.rmdir()
        found = await fit(client, name="mine")
        assert "name" not in found
        assert found["not_kept"] == "The calibration could not be written."
        assert found["calibration"] == (await fit(client))["calibration"]
        assert (await client.get("/v1/calibrations")).json()["data"] == []


async def test_the_folder_is_kept_and_read(engine: Engine, folder: str, tmp_path: Path) -> None:
    """What one server has fitted another one finds; of another model it is refused by name."""
    settings = {"api_keys": ("secret",), "calibrations": tmp_path}
    async with client_of(shell_app(engine, **settings)) as client:
        client.headers.update(KEY)
        fitted = (await fit(client, name="mine"))["calibration"]
    assert json.loads((tmp_path / "mine.json").read_text()) == fitted
    for field in ("fingerprint", "prompt_template", "debias"):
        other = Calibration.model_validate(fitted).model_copy(update={field: "all"})
        (tmp_path / f"{field}.json").write_text(other.model_dump_json())
    async with client_of(shell_app(load(folder), calibrations=tmp_path)) as client:
        await decide(client, predicate(), calibration="mine")
        listed = (await client.get("/v1/calibrations")).json()["data"]
        usable = {one["name"]: one["usable"] for one in listed}
        assert usable == {
            "mine": True,
            "debias": True,
            "fingerprint": False,
            "prompt_template": False,
        }
        for field in ("fingerprint", "prompt_template", "debias"):
            refused = await refusal(client, predicate(), status=409, calibration=field)
            assert (refused["code"], refused["param"]) == ("calibration_mismatch", "calibration")
            assert f"'{field}' is of another {field}: all" in refused["message"]
