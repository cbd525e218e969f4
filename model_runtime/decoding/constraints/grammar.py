"""Completions limited to a regular expression or a JSON schema, by the llguidance library.

It is an extra: ``pip install chainrule[grammar]``. A grammar reads bytes, so every way to cut a
text into tokens is allowed, also within a character, and the model chooses among them. Control
tokens are no text: none of them is ever allowed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from model_runtime.decoding.constraints.regex_anchors import without_anchors
from model_runtime.errors import InvalidQuery, MissingExtra
from model_runtime.token_set import TokenSet
from model_runtime.tokenization.tokenizer import Tokenizer

try:
    from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper
except ImportError:
    INSTALLED = False
else:
    INSTALLED = True

MAX_REGEX_CHARS = 10_000
MAX_SCHEMA_CHARS = 100_000
"""Characters of what is compiled, a schema as compact JSON."""

LEXER_STATES = 20_000
"""Of a grammar's automaton, at 1 to 2 kB each. The library's own limits bound the rest: the size
of the grammar, and the steps that compiling it and computing one mask take."""

BLANKS = r"[\x20\x0A]"
"""White space between the parts of JSON: one space or one line break at each place, so that a model
that prefers blanks goes on with the value."""

UNFORCED = '%llguidance {"no_forcing": true}'
"""Else the library allows one cut alone where there is only one text: the tokenizer's own."""

STATE_WORDS = 700
"""Of one state, about: its copy of the matcher."""

NO_TEXT = "NoExtensionBias"
"""What the library says where a grammar has no text."""

TOKENIZERS_KEPT = 4
MESSAGE_CHARS = 300


class Grammar:
    """Where the text generated so far stands with respect to a grammar. A ``Constraint``.

    The whole completion has to match. It is finished

    ===== ==============================================================================
    end
    ===== ==============================================================================
    True  by an end token, which counts in its log-probability; the grammar lets one come
          wherever the text so far matches
    False as soon as it matches. Where longer texts match as well, greedy search ends with
          the shortest one; other searches take it as a completion and also go on
    ===== ==============================================================================

    A path that ``max_tokens`` cuts before it matches is reported with ``FinishReason.LENGTH``.
    Use it from one thread at a time; it holds no text, and states share what they can.
    """

    def __init__(self, matcher: LLMatcher, vocab_size: int, param: str, *, end: bool) -> None:
        """Wrap a matcher; see ``compile_regex`` and ``compile_json_schema``."""
        self.end = end
        self._matcher = matcher
        self._vocab_size = vocab_size
        self._param = param
        self._kept: TokenSet | None = None
        self._check()

    @property
    def size_words(self) -> int:
        """About the 8-byte words of memory that a state takes."""
        return STATE_WORDS

    @classmethod
    def compile_regex(cls, tokenizer: Tokenizer, pattern: str, *, end: bool) -> Grammar:
        """Texts that match a regular expression as a whole.

        Args:
            tokenizer: the model's.
            pattern: in the syntax of Rust's ``regex``, which has no look-around and no
                back-references; ``^`` and ``$`` may stand around it.
            end: see above.

        Raises:
            InvalidQuery: about ``regex``: it is too long, too complex, or none.
            MissingExtra: the library is not installed.
        """
        _check_installed()
        _check_length("regex", pattern, MAX_REGEX_CHARS)
        (compiled,) = json.loads(LLMatcher.grammar_from_regex(without_anchors(pattern)))["grammars"]
        rules = f"{UNFORCED}\n{compiled['lark_grammar']}"
        return cls._compile(tokenizer, [{"lark_grammar": rules}], "regex", end)

    @classmethod
    def compile_json_schema(
        cls, tokenizer: Tokenizer, schema: Mapping[str, Any] | bool, *, end: bool
    ) -> Grammar:
        """JSON texts that a schema allows, with little white space between their parts.

        Args:
            tokenizer: the model's.
            schema: a JSON schema; a keyword that cannot be enforced is an error.
            end: see above.

        Raises:
            InvalidQuery: about ``json_schema``: it is too long, too complex, or none.
            MissingExtra: the library is not installed.
        """
        _check_installed()
        text = _compact(schema)
        _check_length("json_schema", text, MAX_SCHEMA_CHARS)
        try:
            grammar = LLMatcher.grammar_from_json_schema(
                text, overrides={"whitespace_pattern": BLANKS}
            )
            (compiled,) = json.loads(grammar)["grammars"]
        except ValueError as error:
            raise _refused("json_schema", str(error)) from error
        root = {"lark_grammar": f"{UNFORCED}\nstart: @{compiled['name']}"}
        return cls._compile(tokenizer, [root, compiled], "json_schema", end)

    @classmethod
    def _compile(
        cls, tokenizer: Tokenizer, grammars: list[dict[str, Any]], param: str, end: bool
    ) -> Grammar:
        grammar = json.dumps({"grammars": grammars})
        limits = LLParserLimits(max_lexer_states=LEXER_STATES, verbose_errors=False)
        matcher = LLMatcher(_vocabulary(tokenizer), grammar, log_level=0, limits=limits)
        start = cls(matcher, tokenizer.head_rows, param, end=end)
        # Several searches may share it, each on its own thread; no other state is shared.
        start._kept = start.allowed
        return start

    @property
    def allowed(self) -> TokenSet:
        """The tokens whose bytes may come next; looked up anew each time, but at the start.

        Raises:
            InvalidQuery: the grammar became too complex on the way.
        """
        if self._kept is not None:
            return self._kept
        if self._matcher.is_stopped():
            self._check()
            return TokenSet.from_bits(b"", self._vocab_size)
        bits = self._matcher.compute_bitmask()
        self._check()
        return TokenSet.from_bits(bits, self._vocab_size)

    @property
    def may_end(self) -> bool:
        """Whether the text so far matches and an end token finishes it."""
        return self.end and self._matcher.is_accepting()

    @property
    def complete(self) -> bool:
        """Whether the text so far matches and is finished as it is."""
        return not self.end and self._matcher.is_accepting()

    def push(self, token_id: int) -> Grammar:
        """The state after one more token.

        Raises:
            InvalidQuery: the grammar does not allow it, or became too complex on the way.
        """
        matcher = self._matcher.deep_copy()
        matcher.consume_token(token_id)
        return Grammar(matcher, self._vocab_size, self._param, end=self.end)

    def _check(self) -> None:
        if self._matcher.is_error():
            raise _refused(self._param, self._matcher.get_error())


class _Vocabulary:
    """A tokenizer as llguidance reads it; one id more than there are stands for any end."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.tokens = [self._text(token_id) for token_id in range(tokenizer.head_rows)]
        self.tokens.append(b"<end>")
        self.eos_token_id = tokenizer.head_rows
        self.special_token_ids = [self.eos_token_id]
        self.bos_token_id = None

    def __call__(self, text: bytes) -> list[int]:
        return self._tokenizer.encode(text.decode(errors="replace"))

    def _text(self, token_id: int) -> bytes:
        control = token_id in self._tokenizer.control_ids
        return b"" if control else self._tokenizer.token_bytes(token_id)


def grammar_installed() -> bool:
    """Whether grammars can be compiled here."""
    return INSTALLED


@lru_cache(maxsize=TOKENIZERS_KEPT)
def _vocabulary(tokenizer: Tokenizer) -> LLTokenizer:
    size = tokenizer.head_rows + 1
    return LLTokenizer(TokenizerWrapper(_Vocabulary(tokenizer)), n_vocab=size, eos_token=size - 1)


def _check_installed() -> None:
    if not INSTALLED:
        raise MissingExtra("regex and json_schema need an extra: pip install 'chainrule[grammar]'")


def _check_length(param: str, text: str, limit: int) -> None:
    if len(text) > limit:
        raise InvalidQuery(f"{len(text)} characters are too many; {limit} are taken", param=param)


def _compact(schema: Mapping[str, Any] | bool) -> str:
    try:
        return json.dumps(schema, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidQuery(_one_line(f"no JSON: {error}"), param="json_schema") from error


def _refused(param: str, message: str) -> InvalidQuery:
    """The library's own words, without its copy of the grammar."""
    message = message.replace("<non-verbose/>", "").split("\n   1 |")[0].rsplit("error: ", 1)[-1]
    if NO_TEXT in message:
        message = "no text matches it"
    return InvalidQuery(_one_line(message), param)


def _one_line(message: str) -> str:
    line = " ".join(message.split())
    return line if len(line) <= MESSAGE_CHARS else line[: MESSAGE_CHARS - 3] + "..."
