"""The shapes of other APIs, byte for byte: their nulls stay, whatever the native routes omit."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from app.main import create_app
from app.schemas.response import BaseResponse, ResponseModel
from app.settings import Settings
from tests.app.compat.test_foreign_fields import COMPLETION, PAIRS, RERANK, TOKENIZE, post

CHUNK = (
    'data: {{"id":"","object":"text_completion","created":0,"model":"org/toy","system_fingerprint":'
    '"ffffffffffffffffffffffff","choices":[{{"text":"{}","index":0,"logprobs":null,'
    '"finish_reason":{}}}],"usage":null}}\n\n'
)
CHAT = (
    '{"id":"","object":"chat.completion","created":0,"model":"org/toy","system_fingerprint":'
    '"ffffffffffffffffffffffff","choices":['
)
TALK = {"messages": [{"role": "assistant", "content": "it is"}], "max_tokens": 1}
META = (
    '"billed_units":{"search_units":1},"tokens":{"input_tokens":3,"output_tokens":0},'
    '"cached_tokens":0,"warnings":null,"fingerprint":"ffffffffffffffffffffffff"}}'
)
COMPLETED = (
    '{"id":"","object":"text_completion","created":0,"model":"org/toy","system_fingerprint":'
    '"ffffffffffffffffffffffff","choices":['
)
TOLD = (
    '{"error":{"message":"There is nothing at this path; see /docs.","type":"invalid_request_error"'
    ',"param":null,"code":"not_found"}}'
)

ANSWERS: list[tuple[str, dict[str, Any], str]] = [
    (
        "/v1/completions",
        COMPLETION,
        COMPLETED + '{"text":" yes","index":0,"logprobs":null,"finish_reason":"length"}],"usage":'
        '{"prompt_tokens":2,"completion_tokens":1,"total_tokens":3,"prompt_tokens_details":'
        '{"cached_tokens":0}}}',
    ),
    (
        "/v1/completions",
        {**COMPLETION, "max_tokens": 0, "echo": True, "logprobs": 1},
        COMPLETED + '{"text":"it is","index":0,"logprobs":{"text_offset":[0,2],"token_logprobs":'
        '[null,-0.6931471824645996],"tokens":["it"," is"],"top_logprobs":'
        '[null,{" is":-0.6931471824645996}]},"finish_reason":"length"}],"usage":'
        '{"prompt_tokens":2,"completion_tokens":0,"total_tokens":2,"prompt_tokens_details":'
        '{"cached_tokens":0}}}',
    ),
    (
        "/v1/completions",
        {**COMPLETION, "max_tokens": 2, "stream": True},
        CHUNK.format(" yes", "null")
        + CHUNK.format("", "null")
        + CHUNK.format("", '"stop"')
        + "data: [DONE]\n\n",
    ),
    (
        "/v1/chat/completions",
        TALK,
        CHAT + '{"index":0,"message":{"role":"assistant","content":" yes","refusal":null},'
        '"logprobs":null,"finish_reason":"length"}],"usage":{"prompt_tokens":13,'
        '"completion_tokens":1,"total_tokens":14,"prompt_tokens_details":{"cached_tokens":3}},"prompt_logprobs":null}',
    ),
    (
        "/v1/score",
        PAIRS,
        '{"id":"","object":"list","created":0,"model":"org/toy","data":[{"index":0,"object":"score"'
        ',"score":0.021516573099980982}],"usage":{"prompt_tokens":3,"completion_tokens":0,'
        '"total_tokens":3,"prompt_tokens_details":{"cached_tokens":0}}}',
    ),
    (
        "/v1/rerank",
        RERANK,
        '{"id":"","object":"list","model":"org/toy","usage":{"prompt_tokens":3,"total_tokens":3},'
        '"results":[{"index":0,"relevance_score":0.021516573099980982}],"meta":{"api_version":'
        '{"version":"1"},' + META,
    ),
    (
        "/v2/rerank",
        RERANK,
        '{"id":"","results":[{"index":0,"relevance_score":0.021516573099980982}],"meta":'
        '{"api_version":{"version":"2"},' + META,
    ),
    (
        "/tokenize",
        TOKENIZE,
        '{"count":2,"max_model_len":64,"tokens":[256,257],"token_strs":null}',
    ),
    ("/nowhere", {}, TOLD),
]


@pytest.mark.anyio
@pytest.mark.parametrize(("path", "body", "expected"), ANSWERS)
async def test_every_byte_of_a_foreign_answer(
    path: str, body: dict[str, Any], expected: str
) -> None:
    """All but its id and the time."""
    response = await post(path, body)
    text = re.sub(r'"id":"[^"]*"', '"id":""', response.text)
    assert re.sub(r'"created":\d+', '"created":0', text) == expected


def _models(base: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for model in base.__subclasses__():
        yield model
        yield from _models(model)


OWN = {
    *("orders", "calibration", "calibrated_probability", "calibrated_probabilities"),
    *("set", "abstain"),
}
"""Fields that those APIs do not have: absent where nobody has asked for what they tell."""


def test_no_foreign_shape_omits_a_field() -> None:
    """Only native ones do."""
    create_app(Settings())
    omitted = [
        (model, name)
        for model in _models(ResponseModel)
        for name, field in model.model_fields.items()
        if field.exclude_if is not None and name not in OWN
    ]
    assert BaseResponse in {model for model, _ in omitted}
    assert [one for one in omitted if one[0].__module__.startswith("app.compat")] == []
