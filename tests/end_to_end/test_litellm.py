"""LiteLLM's own providers, as they come, against a real server: only the address is changed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.end_to_end.live_server import LiveServer

# It would fetch a list of prices when it is imported.
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")

import litellm
from litellm.llms.custom_httpx.http_handler import HTTPHandler

pytestmark = pytest.mark.process

QUERY = "capital of Japan"
DOCUMENTS = ["Paris is in France.", "Tokyo is in Japan.", "It is raining."]
PROVIDERS = ("cohere", "jina_ai", "hosted_vllm", "huggingface")


@pytest.fixture(autouse=True, scope="module")
def _nothing_stays_open() -> Iterator[None]:
    """It keeps its clients for as long as the process lives."""
    yield
    for client in litellm.in_memory_llm_clients_cache.cache_dict.values():
        if isinstance(client, HTTPHandler | openai.OpenAI):
            client.close()
    litellm.in_memory_llm_clients_cache.flush_cache()
    litellm.module_level_client.close()


@pytest.fixture
def model(tiny_server: LiveServer) -> str:
    """The name that the server goes by."""
    name: str = tiny_server.client.get("/v1/models").json()["data"][0]["id"]
    return name


def rerank(server: LiveServer, provider: str, model: str, **fields: Any) -> list[dict[str, Any]]:
    """What a provider makes of a ranking."""
    answer = litellm.rerank(
        model=f"{provider}/{model}",
        query=QUERY,
        documents=DOCUMENTS,
        api_base=server.url,
        api_key="none",
        **fields,
    )
    return [dict(one) for one in answer.results]


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_rerank_provider_ranks_as_the_server_does(
    tiny_server: LiveServer, provider: str, model: str
) -> None:
    """Best first, with the server's scores to the bit and the documents, which they all ask for."""
    wanted = tiny_server.post("/v2/rerank", {"query": QUERY, "documents": DOCUMENTS})["results"]
    assert rerank(tiny_server, provider, model) == [
        {**one, "document": {"text": DOCUMENTS[one["index"]]}} for one in wanted
    ]


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_rerank_provider_gets_the_best_alone(
    tiny_server: LiveServer, provider: str, model: str
) -> None:
    """``top_n`` is kept in every shape, and documents are left out where none are wanted."""
    wanted = tiny_server.post("/v2/rerank", {"query": QUERY, "documents": DOCUMENTS})["results"]
    found = rerank(tiny_server, provider, model, top_n=1, return_documents=False)
    assert found == wanted[:1]


@pytest.mark.parametrize("provider", ["hosted_vllm", "text-completion-openai"])
def test_a_completion_provider_completes_as_the_server_does(
    tiny_server: LiveServer, provider: str, model: str
) -> None:
    """The same text and log-probabilities, with what such clients spell out beside."""
    answer = litellm.text_completion(
        model=f"{provider}/{model}",
        prompt="Paris is",
        max_tokens=3,
        temperature=0,
        logprobs=1,
        api_base=f"{tiny_server.url}/v1",
        api_key="none",
        extra_body={"response_format": {"type": "text"}, "store": False, "metadata": {}},
    )
    body = {"prompt": "Paris is", "max_tokens": 3, "logprobs": 1}
    (wanted,) = tiny_server.post("/v1/completions", body)["choices"]
    (found,) = answer.choices
    assert found.text == wanted["text"]
    assert found.finish_reason == wanted["finish_reason"]
    assert found.logprobs.token_logprobs == wanted["logprobs"]["token_logprobs"]
