"""Every failure has one shape, the right status, and the name of what is at fault."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from starlette.exceptions import HTTPException

from app.errors.shapes import SHAPES
from app.errors.table import ERROR_SPECS, ModelNotServed, error_object, error_response
from model_runtime import (
    ChainruleError,
    DeadlineExceeded,
    EngineDied,
    EngineNotReady,
    EngineOverloaded,
    EngineStopping,
    ForwardFailed,
    InvalidQuery,
    ModelLoadError,
    NonFiniteLogits,
    OutOfMemory,
    PathTooLong,
    RequestTooLarge,
    TokenIdOutOfRange,
)

pytestmark = pytest.mark.anyio

JSON = {"Content-Type": "application/json"}


def fault(response: httpx.Response) -> dict[str, Any]:
    """The error object, and nothing beside it."""
    body = response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    return dict(body["error"])


@pytest.mark.parametrize(
    ("exc", "status", "code"),
    [
        (InvalidQuery("no"), 422, "invalid_value"),
        (TokenIdOutOfRange("no"), 422, "token_id_out_of_range"),
        (PathTooLong("no"), 422, "context_length_exceeded"),
        (RequestTooLarge("no"), 422, "request_too_large"),
        (EngineOverloaded("full", 1.0), 429, "queue_full"),
        (DeadlineExceeded("late"), 504, "deadline_exceeded"),
        (EngineNotReady("no"), 503, "not_ready"),
        (EngineStopping("no"), 503, "stopping"),
        (EngineDied("no"), 503, "engine_died"),
        (OutOfMemory("no"), 503, "out_of_memory"),
        (ForwardFailed("no"), 500, "forward_failed"),
        (NonFiniteLogits("no"), 500, "non_finite_logits"),
        (ModelNotServed("no", param="model"), 404, "model_not_found"),
        (ModelLoadError("no"), 500, "internal_error"),
        (KeyError("no"), 500, "internal_error"),
        (HTTPException(502), 502, "internal_error"),
        (HTTPException(418, "teapot"), 418, "bad_request"),
    ],
)
def test_each_exception_has_its_status_and_code(exc: Exception, status: int, code: str) -> None:
    """The table gives every kind its own line, and anything unlisted a 500."""
    response = error_response(exc, "")
    assert response.status_code == status
    assert json.loads(response.body)["error"]["code"] == code


def test_every_kind_the_runtime_raises_while_serving_is_listed() -> None:
    """A new kind of runtime error cannot be forgotten: only the load errors have no line."""

    def kinds(kind: type[ChainruleError]) -> set[type[ChainruleError]]:
        return {kind}.union(*(kinds(child) for child in kind.__subclasses__()))

    assert kinds(ChainruleError) - kinds(ModelLoadError) - {ChainruleError} <= set(ERROR_SPECS)


def test_no_line_of_the_table_lets_a_5xx_speak_for_itself() -> None:
    """Every 5xx has fixed words, since the exception's own may hold paths."""
    assert all(row.message for row in ERROR_SPECS.values() if row.status >= 500)


@pytest.mark.parametrize("exc", [ForwardFailed("at /srv/x.py"), RuntimeError("at /srv/x.py")])
def test_a_5xx_repeats_nothing_of_the_exception(exc: Exception) -> None:
    """The body of a 5xx carries neither a path nor the exception's name."""
    body = bytes(error_response(exc, "").body)
    assert b"/srv" not in body
    assert type(exc).__name__.encode() not in body


@pytest.mark.parametrize(("wait", "header"), [(0.0, "1"), (1.0, "1"), (1.2, "2"), (63.01, "64")])
def test_retry_after_is_a_whole_number_of_seconds_rounded_up(wait: float, header: str) -> None:
    """A client that waits as told finds room, and never is told to come back at once."""
    assert error_response(EngineOverloaded("full", wait), "").headers["Retry-After"] == header


def test_unavailable_kinds_say_what_to_do_next() -> None:
    """While loading or short of memory: come back. While stopping: this connection is over."""
    assert error_response(OutOfMemory("", 4.2), "").headers["Retry-After"] == "5"
    assert "Retry-After" not in error_response(OutOfMemory(""), "").headers
    assert int(error_response(EngineNotReady(""), "").headers["Retry-After"]) >= 1
    assert error_response(EngineStopping(""), "").headers["Connection"] == "close"


def test_an_item_error_names_its_field() -> None:
    """A failed candidate's error object carries the message and the field of the exception."""
    found = error_object(TokenIdOutOfRange("the id 9 is not below 8", param="candidates.3"))
    assert found.param == "candidates.3"
    assert found.message == "candidates.3: the id 9 is not below 8"
    assert found.type == "invalid_request_error"


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({"seconds": "1"}, "seconds", "should be a valid number"),
        ({"candidates": [" a", 3]}, "candidates.1", "valid string, or should be a valid list"),
        ({"candidates": [" a", [1, True]]}, "candidates.1.1", "valid integer"),
        ({"sedonds": 1}, "sedonds", "there is no such field"),
        ({"boundary_detail": True}, "boundary_detail", "no such field; /v1/audit says"),
        ([], None, "request body"),
        (7, None, "request body"),
    ],
)
async def test_validation_names_the_field_as_the_caller_wrote_it(
    client: httpx.AsyncClient, body: object, param: str | None, words: str
) -> None:
    """The path has no trace of how the schema is built, such as a union's branches."""
    response = await client.post("/work/x", json=body)
    assert response.status_code == 422
    error = fault(response)
    assert error["param"] == param
    assert words in error["message"]
    assert (param or "request body") in error["message"]


async def test_validation_never_repeats_a_value(client: httpx.AsyncClient) -> None:
    """A prompt put into the wrong field does not come back, nor get logged by a proxy."""
    response = await client.post("/work/x", json={"seconds": "my secret prompt"})
    assert "secret" not in response.text


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "malformed_json"),
        (b"", 422, "missing_field"),
        (b"nul", 400, "malformed_json"),
        (b'{"seconds": 1} trailing', 400, "malformed_json"),
        (b'\xff{"seconds": 1}', 400, "malformed_json"),
        ('\ufeff{"seconds": 1}'.encode(), 400, "malformed_json"),
        (b'{"seconds": 1, "seconds": 2}', 422, "ambiguous_json"),
        (b'{"candidates": [{"a": 1, "a": 1}]}', 422, "ambiguous_json"),
        (b'{"seconds": NaN}', 422, "ambiguous_json"),
        (b'{"seconds": -Infinity}', 422, "ambiguous_json"),
        (b'{"seconds": 1e999}', 422, "ambiguous_json"),
        (b'{"seconds": ' + b"9" * 10_000 + b"}", 422, "ambiguous_json"),
        (b"[" * 100_000, 400, "malformed_json"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, 400, "malformed_json"),
        (b'{"\\ud800": 1}', 422, "ambiguous_json"),
        (b'{"candidates": ["\\uDC00\\uD83D"]}', 422, "ambiguous_json"),
        (b'{"' + b"k" * 100_000 + b'": 1}', 422, "unknown_field"),
    ],
    ids=lambda value: repr(value[:24]) if isinstance(value, bytes) else str(value),
)
async def test_a_body_that_is_not_strict_json_is_refused(
    client: httpx.AsyncClient, body: bytes, status: int, code: str
) -> None:
    """Nesting, duplicate keys, NaN, half surrogates: a short 4xx in the one shape, no crash."""
    response = await client.post("/work/x", content=body, headers=JSON)
    assert response.status_code == status
    assert fault(response)["code"] == code
    assert len(response.content) < 1_000


async def test_escaped_text_beyond_the_basic_plane_is_read(client: httpx.AsyncClient) -> None:
    """Both halves of a surrogate pair together are one character, as JSON says."""
    body = b'{"candidates": ["\\ud83d\\ude00", "\\u0000"]}'
    response = await client.post("/work/x", content=body, headers=JSON)
    assert response.json()["candidates"] == ["\U0001f600", "\0"]


async def test_a_duplicate_key_is_named(client: httpx.AsyncClient) -> None:
    """The error says which key stands twice."""
    response = await client.post("/work/x", content=b'{"b": 1, "a": 1, "a": 2}', headers=JSON)
    assert fault(response)["param"] == "a"


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "application/json; charset=latin-1"},
        {"Content-Type": "nonsense"},
        {},
        {"Content-Type": "multipart/form-data; boundary=x"},
        {**JSON, "Content-Encoding": "br"},
    ],
)
async def test_a_body_of_another_kind_is_refused(
    client: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    """What is not declared as plain JSON in UTF-8 gets 415, whatever it holds."""
    response = await client.post("/work/x", content=b"{}", headers=headers)
    assert response.status_code == 415
    assert fault(response)["code"] == "unsupported_media_type"


@pytest.mark.parametrize(
    "declared", ["application/json", "Application/JSON; charset=UTF-8", "application/json;x=y"]
)
async def test_json_may_be_declared_in_any_spelling(
    client: httpx.AsyncClient, declared: str
) -> None:
    """Case and parameters of the media type do not matter."""
    response = await client.post("/work/x", content=b"{}", headers={"Content-Type": declared})
    assert response.status_code == 200


async def test_unknown_path_and_wrong_method_have_the_one_shape(client: httpx.AsyncClient) -> None:
    """404 and 405 are error objects too, and 405 says what is allowed."""
    missing = await client.get("/nowhere")
    assert (missing.status_code, fault(missing)["code"]) == (404, "not_found")
    wrong = await client.put("/work/x", json={})
    assert (wrong.status_code, fault(wrong)["code"]) == (405, "method_not_allowed")
    assert wrong.headers["Allow"] == "POST"


async def test_a_trailing_slash_is_another_path(client: httpx.AsyncClient) -> None:
    """No redirect repeats a made-up Host header."""
    response = await client.post("/work/x/", json={}, headers={"Host": "evil"})
    assert response.status_code == 404
    assert "Location" not in response.headers


async def test_a_host_that_is_none_is_refused(client: httpx.AsyncClient) -> None:
    """A made-up Host header cannot pass for a path."""
    for host in ("evil/docs?", "a b", "me@x", "x:y", "[::1"):
        response = await client.get("/health", headers={"Host": host})
        assert (response.status_code, fault(response)["code"]) == (400, "malformed_http")
    for host in ("", "localhost:8000", "[::1]:80", "a_b.svc", "x:"):
        assert (await client.get("/health", headers={"Host": host})).status_code == 200


@pytest.mark.parametrize(
    "path", ["//", "//work/x", "/work", "/work/%2e%2e/work/x", "/work/x/%00", "/v1/"]
)
async def test_a_strange_path_is_not_found(client: httpx.AsyncClient, path: str) -> None:
    """Paths mean what they say: nothing is normalised into another route."""
    request = client.build_request("POST", "http://test", json={})
    request.url = httpx.URL("http://test").copy_with(raw_path=path.encode())
    response = await client.send(request)
    assert (response.status_code, fault(response)["code"]) == (404, "not_found")


async def test_an_unexpected_failure_is_500_without_internals(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    """The body says nothing about the cause; the log has the traceback."""
    response = await client.get("/broken")
    assert response.status_code == 500
    assert fault(response)["code"] == "internal_error"
    assert "secret" not in response.text
    assert "Traceback" not in response.text
    assert any(record.exc_info for record in caplog.records)
    assert "/etc/secret/path" in caplog.text


async def test_the_openapi_document_shows_the_one_shape(client: httpx.AsyncClient) -> None:
    """No route documents FastAPI's own validation error, and every tag in use is described."""
    document = (await client.get("/openapi.json")).json()
    served = {
        path: item
        for path, item in document["paths"].items()
        if path.startswith("/v1/") and path not in SHAPES
    }
    answers = [op["responses"] for item in served.values() for op in item.values()]
    failures = [body for answer in answers for status, body in answer.items() if status != "200"]
    assert len(failures) > 20
    for failure in failures:
        schema = failure["content"]["application/json"]["schema"]
        assert schema == {"$ref": "#/components/schemas/ErrorResponse"}
    tags = {tag["name"] for tag in document["tags"]}
    used = {tag for item in served.values() for op in item.values() for tag in op["tags"]}
    assert used <= tags


async def test_the_docs_page_is_served(client: httpx.AsyncClient) -> None:
    """People find the documentation at /docs."""
    response = await client.get("/docs")
    assert response.status_code == 200
    assert 'src="static/docs.js"' in response.text
