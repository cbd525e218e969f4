"""What is said of paths at which there is nothing."""

from __future__ import annotations

import httpx
import pytest

pytestmark = pytest.mark.anyio

NOTHING = "There is nothing at this path"


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/v1/score/", "POST /v1/score"),
        ("/v1/completions/", "POST /v1/completions"),
        ("/v1//score", "POST /v1/score"),
        ("/rerank//", "POST /rerank"),
        ("/v1/models/", "GET /v1/models"),
        ("/v1/v1/models", "GET /v1/models"),
        ("/completions", "POST /v1/completions"),
        ("/models/", "GET /v1/models"),
        ("/v1/tokenize", "POST /tokenize"),
        ("/health/ready/", "GET /health/ready"),
        ("/V1/score", "POST /v1/score"),
        ("/v1/Chat/Completions", "POST /v1/chat/completions"),
        ("/openai/v1/chat/completions", "POST /v1/chat/completions"),
        ("/openai/v1/models", "GET /v1/models"),
        ("/openai/completions", "POST /v1/completions"),
        ("/api/v2/rerank/", "POST /v2/rerank"),
    ],
)
async def test_the_path_that_was_meant_is_named(
    client: httpx.AsyncClient, path: str, meant: str
) -> None:
    """With its method, by GET as by POST."""
    for method in ("GET", "POST"):
        if method == "POST" and path == "/v1/models/":
            continue
        response = await client.request(method, path)
        assert response.status_code == 404
        assert response.json()["error"] == {
            "message": f"{NOTHING}; you may mean {meant}.",
            "type": "invalid_request_error",
            "param": None,
            "code": "not_found",
        }


@pytest.mark.parametrize("path", ["/v1", "/v1/", "/v2", "/v2//", "/V1", "/openai/v1/", "/openai"])
async def test_the_base_of_the_api_says_what_is_behind_it(
    client: httpx.AsyncClient, path: str
) -> None:
    """As whoever pastes a base address into a browser sees it."""
    response = await client.get(path)
    assert response.status_code == 404
    assert response.json()["error"]["message"].startswith(f"{NOTHING} itself: it is where others")
    assert "GET / lists them" in response.text


@pytest.mark.parametrize(
    "path",
    [
        "/nowhere",
        "/v1/nowhere/",
        "/v1/{name}",
        "/" + "x" * 4_000,
        "/<script>",
        "/v1/%00",
        "/openai/nowhere",
        "/av1/score",
    ],
)
async def test_any_other_path_is_told_of_the_documentation(
    client: httpx.AsyncClient, path: str
) -> None:
    """Nothing of what was asked comes back."""
    response = await client.get(path)
    assert response.status_code == 404
    assert response.json()["error"]["message"] == f"{NOTHING}; see /docs."


async def test_a_wrong_method_is_as_it_was(client: httpx.AsyncClient) -> None:
    """The path is there."""
    response = await client.get("/v1/score")
    assert (response.status_code, response.json()["error"]["code"]) == (405, "method_not_allowed")
