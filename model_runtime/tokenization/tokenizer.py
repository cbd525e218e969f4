"""Text to token ids and back, byte for byte. Never mutated, so safe to share across threads."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from model_runtime.errors import CorruptModel, InvalidQuery, UnsupportedModel
from model_runtime.tokenization.added_ids import Ids, leading_ids, pair_ids
from model_runtime.tokenization.folder_json import names_code
from model_runtime.tokenization.split_points import split_pattern
from model_runtime.tokenization.text_normalizer import text_normalizer
from model_runtime.tokenization.token_bytes import longest_token, uncovered_bytes, vocabulary_bytes

_NO_LIMIT = 10**18
"""Of a tokenizer's longest text; transformers writes 10**30 where none is set."""

PIECE_CHARS = 1 << 19
"""Characters that are encoded between two looks at whether it is wanted; about 0.2 s."""


def no_check() -> None:
    """A check that never raises."""


class Tokenizer:
    """The model's own tokenizer.

    It keeps two Rust tokenizers: one that recognises control tokens in text and one that does
    not. Switching a single one back and forth would be a mutation, and a race.

    Attributes:
        vocab_size: every token's id lies below it, added tokens included.
        head_rows: every id that the model knows lies below it; at least ``vocab_size``. Ids
            between the two are rows of the head without a token: their bytes are empty.
        bos_token_id, eos_token_id, pad_token_id: None where the tokenizer has none.
        control_ids: tokens that are no text, the unknown token among them.
        max_text_tokens: where transformers cuts a text off, if it is asked to; None for nowhere.
            Nothing is cut here.
        prefix_ids: what the tokenizer's own rule puts before a text: nothing, BOS, or several
            tokens. What it puts behind a text is never added.
    """

    def __init__(self, hf_tokenizer: PreTrainedTokenizerFast, head_rows: int | None = None) -> None:
        serialized = hf_tokenizer.backend_tokenizer.to_str()
        self._hf = hf_tokenizer
        self._parsing = _rust(serialized, parse_special=True)
        self._plain = _rust(serialized, parse_special=False)
        _check_injection(self._plain, hf_tokenizer.unk_token_id)
        spec = json.loads(serialized)
        self._bytes = vocabulary_bytes(spec, self._plain.get_vocab())
        self._uncovered = uncovered_bytes(spec, self._bytes)
        self._longest = longest_token(spec, self._bytes)
        self._split = split_pattern(spec, self._bytes)
        self._normalizer = text_normalizer(spec)
        self.vocab_size = len(self._bytes)
        self.head_rows = self.vocab_size if head_rows is None else head_rows
        self.bos_token_id: int | None = hf_tokenizer.bos_token_id
        self.eos_token_id: int | None = hf_tokenizer.eos_token_id
        self.pad_token_id: int | None = hf_tokenizer.pad_token_id
        added = self._plain.get_added_tokens_decoder()
        self.control_ids = frozenset(i for i, token in added.items() if token.special)
        encoding = hf_tokenizer("a")
        self.prefix_ids = leading_ids(encoding.input_ids, encoding.sequence_ids())
        longest = hf_tokenizer.model_max_length
        self.max_text_tokens = longest if longest < _NO_LIMIT else None

    @classmethod
    def load(cls, folder: Path, head_rows: int | None = None) -> Tokenizer:
        """Load the tokenizer of a model folder.

        Args:
            folder: a local model folder.
            head_rows: rows of the model's head; None takes the tokenizer's own size.

        Raises:
            UnsupportedModel: it cannot be read, or its tokens have no exact bytes.
            CorruptModel: it has ids that the head has no row for.
        """
        kind = AutoTokenizer
        if names_code(folder / "tokenizer_config.json"):
            # AutoTokenizer takes other ways then, also without that code; the file says all.
            if not (folder / "tokenizer.json").is_file():
                raise UnsupportedModel(
                    "the tokenizer exists only as code of its own (auto_map), never run here"
                )
            kind = PreTrainedTokenizerFast
        try:
            hf_tokenizer = kind.from_pretrained(
                folder, trust_remote_code=False, local_files_only=True
            )
        except Exception as error:  # a broken file surfaces as whatever its parser raises
            reason = " ".join(str(error).split())[:300]
            raise UnsupportedModel(f"the tokenizer cannot be read: {reason}") from error
        if not isinstance(hf_tokenizer, PreTrainedTokenizerFast):
            raise UnsupportedModel("the tokenizer has no fast implementation (tokenizer.json)")
        tokenizer = cls(hf_tokenizer, head_rows)
        if tokenizer.vocab_size > tokenizer.head_rows:
            raise CorruptModel(
                f"the tokenizer has ids up to {tokenizer.vocab_size - 1}, "
                f"but the model's head has {tokenizer.head_rows} rows"
            )
        return tokenizer

    @property
    def adds_bos(self) -> bool:
        """The tokenizer's own rule puts BOS before a text."""
        return self.bos_token_id in self.prefix_ids

    def with_prefix(self, ids: Sequence[int]) -> tuple[int, ...]:
        """A text's ids behind what the tokenizer's own rule puts first; once, where the text
        spells that itself."""
        prefix = self.prefix_ids
        return tuple(ids) if tuple(ids[: len(prefix)]) == prefix else (*prefix, *ids)

    def check_text(self, text: str, param: str | None = None) -> None:
        """Refuse text whose tokens would not be exactly that text.

        Raises:
            InvalidQuery: about the field ``param``: a lone surrogate, which is no character,
                or a byte for which the vocabulary has no token.
        """
        encoded = _utf8(text, param)
        lost = next((byte for byte in self._uncovered if byte in encoded), None)
        if lost is not None:
            raise InvalidQuery(f"the vocabulary has no token for byte 0x{lost:02X}", param)

    def spellable(self, text: str, param: str | None = None) -> str:
        """The text without the characters that ``check_text`` refuses for one of their bytes.

        Raises:
            InvalidQuery: about the field ``param``: a lone surrogate.
        """
        encoded = _utf8(text, param)
        lost = [byte for byte in self._uncovered if byte in encoded]
        if not lost:
            return text
        left_out = [one for one in set(text) if any(byte in lost for byte in one.encode())]
        return text.translate(dict.fromkeys(map(ord, left_out)))

    def normalize(self, text: str) -> str:
        """The text that is tokenized in place of this: in NFC or lower case, for example.

        Spaces are spaces in it, and one that is put before every text is not there.
        """
        if self._normalizer is None:
            return text
        return str(self._normalizer.normalize_str(text))

    def least_tokens(self, text: str) -> int:
        """Tokens that ``encode(text)`` has at least, by its length; 0 where no bound is known."""
        return 0 if self._longest is None else -(-len(text) // self._longest)

    def encode(self, text: str, *, parse_special: bool = False) -> list[int]:
        """Token ids of ``text``; never with BOS or EOS added.

        With ``parse_special`` text such as ``<|im_end|>`` becomes that control token; without,
        it stays text.

        Raises:
            InvalidQuery: see ``check_text``.
        """
        self.check_text(text)
        return self._encode_each([text], parse_special=parse_special)[0]

    def encode_batch(
        self,
        texts: Sequence[str],
        *,
        parse_special: bool = False,
        check: Callable[[], None] = no_check,
    ) -> list[list[int]]:
        """``encode`` of each text, in parallel and without holding the interpreter's lock.

        Parts of them that repeat, such as words, are encoded once where the tokenizer allows it.

        Args:
            texts: any number.
            parse_special: as ``encode`` has it.
            check: called now and then; what it raises ends the work.
        """
        self.check_text("".join(texts))
        if self._split is None or parse_special:
            return self._encode_each(texts, parse_special=parse_special, check=check)
        # One long list: a hundred thousand short ones would be a burden on the collector.
        parts: list[str] = []
        ends = [0]
        for piece in _pieces(texts):
            check()
            for text in piece:
                parts += self._split.split(text)
                ends.append(len(parts))
        distinct = list(dict.fromkeys(parts))
        if len(distinct) >= len(texts):
            return self._encode_each(texts, parse_special=False, check=check)
        each = self._encode_each(distinct, parse_special=False, check=check)
        known = dict(zip(distinct, each, strict=True))
        encoded = [known[part] for part in parts]
        return [list(chain.from_iterable(encoded[a:b])) for a, b in pairwise(ends)]

    @property
    def knows_split_points(self) -> bool:
        """Whether a text can be cut where no token goes across. Where it cannot, each candidate
        is tokenized behind all of its context."""
        return self._split is not None

    def unstable_suffix(self, text: str, ids: Sequence[int]) -> str:
        """The end of ``text`` on which all depends that a text behind it can change.

        For every ``y``, ``encode(text + y)`` is ``encode(unstable_suffix + y)`` behind the tokens
        of ``text`` without the last ``len(encode(unstable_suffix))``. It is as short as the
        tokenizer allows, and the whole text where nothing is known.

        Args:
            text: what other texts are put behind.
            ids: ``encode(text)``.
        """
        if self._split is None:
            return text
        end = self._split.split(text)[-1]
        tail = self.encode(end)
        return end if list(ids[len(ids) - len(tail) :]) == tail else text

    def decode(self, ids: Sequence[int]) -> str:
        """The text of the tokens' bytes; bytes that are no UTF-8 become U+FFFD."""
        return b"".join(map(self.token_bytes, ids)).decode(errors="replace")

    def detokenize(self, ids: Sequence[int]) -> str:
        """The text that the tokenizer's own decoder makes of ids that are a whole text.

        It is ``decode``, without the blank where the tokenizer puts one before every text.
        """
        return str(self._plain.decode(list(ids), skip_special_tokens=False))

    def token_bytes(self, token_id: int) -> bytes:
        """The exact bytes the token stands for; empty for an id without a token."""
        return self._bytes[token_id] if 0 <= token_id < self.vocab_size else b""

    def token_text(self, token_id: int) -> str:
        """The token's bytes as text; a token may hold a part of a character (U+FFFD)."""
        return self.token_bytes(token_id).decode(errors="replace")

    def byte_offsets(self, ids: Sequence[int], start: int = 0) -> list[tuple[int, int]]:
        """Where each token's bytes begin and end, counted from ``start``."""
        offsets = []
        for token_id in ids:
            end = start + len(self.token_bytes(token_id))
            offsets.append((start, end))
            start = end
        return offsets

    def _encode_each(
        self, texts: Sequence[str], *, parse_special: bool, check: Callable[[], None] = no_check
    ) -> list[list[int]]:
        rust = self._parsing if parse_special else self._plain
        encoded: list[list[int]] = []
        for piece in _pieces(texts):
            check()
            encodings = rust.encode_batch_fast(piece, add_special_tokens=False)
            encoded += [encoding.ids for encoding in encodings]
        return encoded

    @property
    def chat_template(self) -> str | None:
        """The Jinja template that ``render_chat`` renders; None where there is none."""
        template = self._hf.chat_template
        # A model may bring several by name.
        return template.get("default") if isinstance(template, dict) else template

    @property
    def chat_template_names(self) -> tuple[str, ...]:
        """Of the templates, where the model brings several; else empty."""
        template = self._hf.chat_template
        return tuple(template) if isinstance(template, dict) else ()

    def turn_end(self) -> int | None:
        """The control token that the template puts behind what an assistant said, if any."""
        if self.chat_template is None:
            return None
        said = "chainrule"
        turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": said}]
        try:
            rendered = str(self._hf.apply_chat_template(turns, tokenize=False))
            _, found, rest = rendered.rpartition(said)
            ids = self.encode(rest, parse_special=True) if found else []
        except Exception:  # the template came with the model; a request for it will say more
            return None
        return next((token for token in ids if token in self.control_ids), None)

    def vocabulary_id(self, written: str) -> int | None:
        """The id of the token that the vocabulary writes like this; None where there is none."""
        found: int | None = self._plain.token_to_id(written)
        return found

    def pair_ids(self) -> tuple[Ids, Ids, Ids]:
        """What the tokenizer's own rule puts before, between and behind the two texts of a pair."""
        encoding = self._hf("a", "a")
        return pair_ids(encoding.input_ids, encoding.sequence_ids())

    def render_messages(self, messages: Sequence[Mapping[str, Any]], **options: Any) -> str:
        """Messages of any roles in the model's own chat template, which is given ``options``.

        The template runs in a sandbox without access to Python.

        Raises:
            InvalidQuery: there is no template, or it refuses the messages.
        """
        try:
            rendered = self._hf.apply_chat_template(list(messages), tokenize=False, **options)
        except Exception as error:  # the template came with the model and may raise anything
            reason = " ".join(str(error).split())[:300]
            raise InvalidQuery(f"the chat template failed: {reason}", param="messages") from error
        return str(rendered)

    def render_chat(
        self, messages: Sequence[Mapping[str, str]], *, add_generation_prompt: bool = True
    ) -> str:
        """The messages in the model's own chat template.

        The template runs in a sandbox without access to Python.

        Args:
            messages: each with ``role`` and ``content``.
            add_generation_prompt: end where the assistant speaks, not behind the last message.

        Raises:
            InvalidQuery: there is no template, or it refuses the messages.
        """
        if self._hf.chat_template is None:
            raise InvalidQuery("the model has no chat template", param="messages")
        turns = [dict(message) for message in messages]
        return self.render_messages(turns, add_generation_prompt=add_generation_prompt)


def _pieces(texts: Sequence[str]) -> Iterator[list[str]]:
    """The texts in order, so many at a time; none is divided."""
    piece: list[str] = []
    left = PIECE_CHARS
    for text in texts:
        if piece and left < len(text):
            yield piece
            piece, left = [], PIECE_CHARS
        piece.append(text)
        left -= len(text)
    if piece:
        yield piece


def _rust(serialized: str, *, parse_special: bool) -> tokenizers.Tokenizer:
    rust = tokenizers.Tokenizer.from_str(serialized)
    rust.encode_special_tokens = not parse_special
    rust.no_truncation()  # a tokenizer file may ask for it, and nothing is cut silently here
    rust.no_padding()
    return rust


def _utf8(text: str, param: str | None) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        message = f"not valid Unicode: lone surrogate at character {error.start}"
        raise InvalidQuery(message, param) from error


def _check_injection(plain: tokenizers.Tokenizer, unknown: int | None) -> None:
    """Refuse a vocabulary in which the text of a control token still becomes that token."""
    control = {
        token_id: token.content
        for token_id, token in plain.get_added_tokens_decoder().items()
        if token.special and token_id != unknown
    }
    encodings = plain.encode_batch_fast(list(control.values()), add_special_tokens=False)
    for (token_id, content), encoding in zip(control.items(), encodings, strict=True):
        if token_id in encoding.ids:
            raise UnsupportedModel(f"text can spell the control token {content!r}")
