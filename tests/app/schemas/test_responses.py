"""What the native routes answer as JSON and back: nothing null, and nothing lost."""

from __future__ import annotations

import json
import math
import re
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.http.json_response import PIECE, dump_json_chunked
from app.main import create_app
from app.schemas.audit_response import AuditResponse
from app.schemas.decode_response import DecodeResponse
from app.schemas.models import ModelList
from app.schemas.next_token import NextTokenResponse
from app.schemas.response import ResponseModel, TokenDetail, TopLogprob
from app.schemas.score_response import CandidateScore, RankedColumns, ScoreResponse
from app.settings import Settings
from tests.json_schema import allows

DOCUMENT: dict[str, Any] = json.loads(json.dumps(create_app(Settings()).openapi()))
SCHEMAS: dict[str, Any] = DOCUMENT["components"]["schemas"]
ANSWERS: list[type[ResponseModel]] = [
    *(ScoreResponse, DecodeResponse, NextTokenResponse, AuditResponse, ModelList)
]
NUMBERS = {
    int: st.integers(-(2**31), 2**31),
    float: st.floats(allow_nan=False, allow_infinity=False),
    str: st.text(max_size=3),
    bool: st.booleans(),
    NoneType: st.none(),
}
Some = st.SearchStrategy[Any]


def any_of(hint: Any, *, deep: bool = True) -> Some:
    """A value of a field; lists in lists are short."""
    if (made := NUMBERS.get(hint)) is not None:
        return made
    arguments = get_args(hint)
    match get_origin(hint):
        case origin if origin is Union or origin is UnionType:
            return st.one_of([any_of(one, deep=deep) for one in arguments])
        case origin if origin is Literal:
            return st.sampled_from(arguments)
        case origin if origin is list:
            return st.lists(any_of(arguments[0], deep=False), max_size=2 if deep else 1)
        case origin if origin is dict:
            return st.dictionaries(*(any_of(one) for one in arguments), max_size=2)
        case origin if origin is tuple:
            return st.tuples(*(any_of(one) for one in arguments))
    return built(hint, deep=deep)


def built(kind: Any, *, deep: bool = True) -> Some:
    """An object with any values, those that are left out as well."""
    hints = get_type_hints(kind)
    names = [one.name for one in fields(kind)] if is_dataclass(kind) else list(kind.model_fields)
    parts = {name: any_of(hints[name], deep=deep) for name in names}
    if kind is TopLogprob:
        parts["logprob"] |= st.just(-math.inf)
    return st.builds(kind, **parts)


def nulls(value: Any, path: str = "") -> list[str]:
    """Where there is one."""
    if isinstance(value, dict):
        return [found for key, one in value.items() for found in nulls(one, f"{path}.{key}")]
    if isinstance(value, list):
        return [found for one in value for found in nulls(one, path)]
    return [path] if value is None else []


def references(schema: dict[str, Any]) -> set[str]:
    """The names of the schemas in one, and of those in them."""
    named = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(schema)))
    return named.union(*(references(SCHEMAS[name]) for name in named))


@pytest.mark.parametrize("answer", ANSWERS)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_client_reads_what_was_answered(answer: type[ResponseModel], data: st.DataObject) -> None:
    """What is absent reads as its default, so the object is the same one."""
    value = data.draw(built(answer))
    body = dump_json_chunked(value)
    assert body == value.model_dump_json().encode()
    assert answer.model_validate_json(body) == value
    assert allows(SCHEMAS[answer.__name__], json.loads(body), DOCUMENT)
    found = [path for path in nulls(json.loads(body)) if ".error." not in path]
    assert set(found) <= {".compact.ranked.tie_group"}


@pytest.mark.parametrize("large", [False, True])
def test_a_field_is_omitted_in_answers_of_every_size(large: bool) -> None:
    """Written at once or in parts."""
    token = TokenDetail(id=1, text="a", bytes=[97], logprob=-1.0)
    ranked = RankedColumns(index=[0], rank=[1], score=[-1.0], logprob=[-1.0])
    count = PIECE + 1 if large else 1
    result = CandidateScore(index=0, tokens=[token] * count)
    written = json.loads(dump_json_chunked(result))
    assert written.keys() == {"index", "tokens"}
    assert written["tokens"] == [{"id": 1, "text": "a", "bytes": [97], "logprob": -1.0}] * count
    assert json.loads(dump_json_chunked(ranked)).keys() == {"index", "rank", "score", "logprob"}


def test_what_may_be_absent_is_documented_so() -> None:
    """It is not required, and nothing is said of null; of the columns only ties may hold it."""
    assert SCHEMAS["CandidateScore"]["required"] == ["index"]
    parts = {reference for answer in ANSWERS for reference in references(SCHEMAS[answer.__name__])}
    assert {"CandidateScore", "RankedColumns", "TopLogprob", "AuditedToken", "ModelCard"} < parts
    for name in parts - {"ErrorObject"}:
        for field, schema in SCHEMAS[name]["properties"].items():
            assert {"type": "null"} not in schema.get("anyOf", []), (name, field)
            assert schema.get("default", 0) is not None, (name, field)
