"""Grammars as constraints: compiled by the real library for real tokenizers, searched on tables."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from model_runtime.decoding.beam import BeamSearch
from model_runtime.decoding.constraints import grammar as grammar_module
from model_runtime.decoding.constraints.grammar import MAX_REGEX_CHARS, MAX_SCHEMA_CHARS, Grammar
from model_runtime.decoding.greedy import GreedySearch
from model_runtime.decoding.hypothesis import FinishReason, Hypothesis
from model_runtime.decoding.limits import DecodingLimits
from model_runtime.errors import InvalidQuery, MissingExtra
from model_runtime.tokenization.tokenizer import Tokenizer
from tests.model_runtime.decoding.table import PROMPT, random_table, run
from tests.tiny_models import TINY_VOCAB, sentencepiece_tokenizer, tiny_tokenizer

TOKENIZERS: dict[str, Callable[[], Tokenizer]] = {
    "byte-level": lambda: Tokenizer(tiny_tokenizer("llama"), TINY_VOCAB),
    "unused head rows": lambda: Tokenizer(tiny_tokenizer("qwen2"), TINY_VOCAB),
    "sentencepiece": lambda: Tokenizer(sentencepiece_tokenizer(), 280),
}

PATTERNS = (
    r"[A-F]{2,3}[0-9]{1,4}",
    r"(yes|no|maybe)( not)?",
    r"20[0-9]{2}-(0[1-9]|1[0-2])",
    r"(é|ü|日本){1,3}",
    r"<\|im_end\|>",
)

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 5},
        "age": {"type": "integer", "minimum": 0, "maximum": 199},
        "kind": {"enum": ["cat", "dog", None]},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module", params=TOKENIZERS)
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    """One of each family."""
    return TOKENIZERS[request.param]()


def text_of(tokenizer: Tokenizer, found: Hypothesis) -> bytes:
    """What was generated, without the end token."""
    ended = found.finish_reason is FinishReason.END
    ids = found.token_ids[:-1] if ended else found.token_ids
    assert tokenizer.control_ids.isdisjoint(ids)
    return b"".join(map(tokenizer.token_bytes, ids))


def completions(
    tokenizer: Tokenizer, grammar: Grammar, seed: int, max_tokens: int = 60
) -> tuple[Hypothesis, ...]:
    """What greedy search and three beams find; every number must be the table's own."""
    size = tokenizer.head_rows
    table = random_table(seed, size, sharpness=3.0)
    assert tokenizer.eos_token_id is not None
    ends = frozenset({tokenizer.eos_token_id}) if grammar.end else frozenset[int]()
    limits = DecodingLimits(max_tokens, end_token_ids=ends, constraint=grammar)
    searches = (
        GreedySearch(PROMPT, limits, vocab_size=size),
        BeamSearch(PROMPT, limits, vocab_size=size, num_beams=3, num_return_sequences=3),
    )
    found = tuple(h for search in searches for h in run(search, table).hypotheses)
    for hypothesis in found:
        for length, token in enumerate(hypothesis.token_ids):
            row = table(hypothesis.token_ids[:length])
            assert hypothesis.token_logprobs[length] == row[token]
            assert hypothesis.token_ranks[length] == 1 + sum(value > row[token] for value in row)
    return found


@pytest.mark.parametrize("end", [True, False])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_completion_matches_the_expression(
    tokenizer: Tokenizer, pattern: str, end: bool
) -> None:
    """Whatever the model's numbers are, the whole text matches, and the numbers stay its own."""
    grammar = Grammar.compile_regex(tokenizer, pattern, end=end)
    reason = FinishReason.END if end else FinishReason.COMPLETE
    for seed in range(3):
        found = completions(tokenizer, grammar, seed)
        assert len(found) >= 2
        for hypothesis in found:
            assert hypothesis.finish_reason is reason
            assert re.fullmatch(pattern, text_of(tokenizer, hypothesis).decode())


def test_every_completion_is_json_that_the_schema_allows(tokenizer: Tokenizer) -> None:
    """It parses, has the required fields with their types and bounds, and no other field."""
    grammar = Grammar.compile_json_schema(tokenizer, SCHEMA, end=True)
    ended = 0
    for seed in range(2):
        for hypothesis in completions(tokenizer, grammar, seed, max_tokens=120):
            if hypothesis.finish_reason is FinishReason.LENGTH:
                continue
            ended += 1
            value = json.loads(text_of(tokenizer, hypothesis))
            assert {"name", "age"} <= value.keys() <= {"name", "age", "kind"}
            assert isinstance(value["name"], str) and len(value["name"]) <= 5
            assert isinstance(value["age"], int) and 0 <= value["age"] <= 199
            assert value.get("kind") in ("cat", "dog", None)
    assert ended


def test_masks_are_those_of_the_text_so_far(tokenizer: Tokenizer) -> None:
    """A token is allowed just where the text with its bytes begins some match."""
    pattern = re.compile(r"a(b(s( (i(s)?)?)?)?)?|i(s( (a(b)?)?)?)?")
    state = Grammar.compile_regex(tokenizer, "abs is|is ab", end=True)
    for text in ("", "a", "b", "s"):
        state = state.push(_token(tokenizer, text)) if text else state
        before = "abs"[: "abs".index(text) + 1] if text else ""
        expected = {
            token_id
            for token_id in range(tokenizer.head_rows)
            if token_id not in tokenizer.control_ids
            and tokenizer.token_bytes(token_id)
            and pattern.fullmatch(before + tokenizer.token_text(token_id))
        }
        assert expected and set(state.allowed) == expected
        assert not state.may_end


def test_a_state_is_not_changed_by_what_follows_it(tokenizer: Tokenizer) -> None:
    """Branches of one path go on by themselves."""
    start = Grammar.compile_regex(tokenizer, "a+b?", end=False)
    one = start.push(_token(tokenizer, "a"))
    before = set(one.allowed)
    ended = one.push(_token(tokenizer, "b"))
    assert not ended.allowed and ended.complete
    assert one.complete and not start.complete
    assert set(start.push(_token(tokenizer, "a")).allowed) == before
    with pytest.raises(InvalidQuery) as caught:
        ended.push(_token(tokenizer, "b"))
    assert caught.value.param == "regex"


def test_white_space_in_json_comes_to_an_end(tokenizer: Tokenizer) -> None:
    """A model that would write nothing but spaces has to go on with the value."""
    state = Grammar.compile_json_schema(tokenizer, {"type": "array", "maxItems": 0}, end=True)
    state, space = state.push(_token(tokenizer, "[")), _token(tokenizer, " ")
    blanks = 0
    while space in state.allowed:
        state, blanks = state.push(space), blanks + 1
    assert blanks == 1
    assert _token(tokenizer, "]") in state.allowed


@pytest.mark.parametrize("pattern", ["(", "[", r"a(?=b)", r"(a)\1"])
def test_what_is_no_expression_is_refused_in_one_line(tokenizer: Tokenizer, pattern: str) -> None:
    """With the library's reason, about the field."""
    with pytest.raises(InvalidQuery) as caught:
        Grammar.compile_regex(tokenizer, pattern, end=True)
    assert caught.value.param == "regex"
    assert "\n" not in str(caught.value) and "regex" in str(caught.value)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "nope"},
        {"$ref": "#/nowhere"},
        {"type": "string", "pattern": "("},
        {"not": {"type": "string"}},
        {"enum": [float("nan")]},
        {"enum": [object()]},
    ],
)
def test_what_is_no_schema_is_refused_in_one_line(
    tokenizer: Tokenizer, schema: dict[str, Any]
) -> None:
    """A keyword that cannot be enforced is refused, never ignored."""
    with pytest.raises(InvalidQuery) as caught:
        Grammar.compile_json_schema(tokenizer, schema, end=True)
    assert caught.value.param == "json_schema"
    assert str(caught.value) and "\n" not in str(caught.value)


def test_what_is_too_long_is_refused_before_it_is_compiled(tokenizer: Tokenizer) -> None:
    """The bounds are counted in characters, of a schema as compact JSON."""
    with pytest.raises(InvalidQuery, match="too many") as caught:
        Grammar.compile_regex(tokenizer, "a" * (MAX_REGEX_CHARS + 1), end=True)
    assert caught.value.param == "regex"
    with pytest.raises(InvalidQuery, match="too many") as caught:
        Grammar.compile_json_schema(tokenizer, {"enum": ["a" * MAX_SCHEMA_CHARS]}, end=True)
    assert caught.value.param == "json_schema"


def test_an_expression_too_complex_to_follow_is_an_error(tokenizer: Tokenizer) -> None:
    """The library's own bounds on its work end the search, with what it says of them."""
    state = Grammar.compile_regex(tokenizer, "(((.{1,9}){1,9}){1,9}){1,9}q", end=True)
    with pytest.raises(InvalidQuery, match="too many expressions") as caught:
        for _ in range(20):
            assert _token(tokenizer, "a") in state.allowed
            state = state.push(_token(tokenizer, "a"))
    assert caught.value.param == "regex"
    assert str(caught.value) == "regex: too many expressions constructed"


def test_without_the_extra_its_name_is_told(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the library is not installed the error says what to install."""
    assert grammar_module.grammar_installed()
    monkeypatch.setattr(grammar_module, "INSTALLED", False)
    assert not grammar_module.grammar_installed()
    with pytest.raises(MissingExtra, match=r"chainrule\[grammar\]"):
        Grammar.compile_regex(tokenizer, "a", end=True)
    with pytest.raises(MissingExtra, match=r"chainrule\[grammar\]"):
        Grammar.compile_json_schema(tokenizer, {}, end=True)


def _token(tokenizer: Tokenizer, text: str) -> int:
    """A token of just this text."""
    ids = range(tokenizer.head_rows)
    return next(i for i in ids if tokenizer.token_bytes(i) == text.encode())
