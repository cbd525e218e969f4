"""An engine over a law of next-token probabilities that is written out by hand.

The tokenizer takes the longest piece it knows, so that texts merge where a test wants them to::

    "it is" -> it| is        "it isn't" -> it| isn|'t        "xyz" -> x|y|z

The law names, for a last token, the next ones that matter; the mass that is left is spread
evenly over all other ids. What follows a token the law does not name is uniform.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any

import numpy as np

from model_runtime import (
    ChainruleError,
    EngineStats,
    GeneratedToken,
    InvalidQuery,
    LogprobQuery,
    LogprobResult,
    ModelInfo,
    PathTooLong,
    Priority,
    RequestOptions,
    RequestOutput,
    TokenIdOutOfRange,
    TokenLogprob,
    TokenSet,
)
from model_runtime.decoding.streaming import StreamedSearch
from model_runtime.scheduling.admission import Admission, Throughput
from model_runtime.tokenization.tokenizer import no_check
from model_runtime.types import RankedLogprob, TopKSelection

PIECES = (
    *(bytes([byte]) for byte in range(256)),
    *(
        text.encode()
        for text in ("it", " is", " isn", "'t", " yes", " no", " maybe", "\N{SNOWMAN}")
    ),
)
BOS, END, STOP = "<bos>", "<end>", "<stop>"
SPECIALS = (BOS, END, STOP)
QUEUE_TOKENS = 65_536
UNUSED = 5
"""Ids of the head behind which there is no token."""

LAW: dict[str, dict[str, float]] = {
    " is": {" yes": 0.5, " no": 0.25, END: 0.125},
    " yes": {END: 0.5, STOP: 0.25, ".": 0.125},
    " no": {" no": 0.5, END: 0.25, STOP: 0.125},
    " isn": {"'t": 0.75},
    "it": {" is": 0.5, " isn": 0.25},
    ".": {"\n": 0.5, END: 0.25},
    "\n": {END: 0.75},
    "'t": {"a": 0.75},
    "a": {"b": 0.75},
    "b": {"c": 0.75},
}


class ToyTokenizer:
    """Longest piece first; the interface of the runtime's tokenizer."""

    def __init__(self, *, adds_bos: bool = False) -> None:
        self._texts = (*PIECES, *(special.encode() for special in SPECIALS))
        self._ids = {piece: index for index, piece in enumerate(PIECES)}
        self._by_length = sorted(PIECES, key=len, reverse=True)
        self.vocab_size = len(self._texts)
        self.head_rows = self.vocab_size + UNUSED
        self.bos_token_id = self.id(BOS)
        self.eos_token_id = self.id(END)
        self.pad_token_id = None
        self.control_ids = frozenset(map(self.id, SPECIALS))
        self.adds_bos = adds_bos
        self.prefix_ids = (self.bos_token_id,) if adds_bos else ()

    def id(self, text: str) -> int:
        """The id of one whole token."""
        return self._texts.index(text.encode())

    def with_prefix(self, ids: Sequence[int]) -> tuple[int, ...]:
        """BOS first where the rule says so, once."""
        begun = tuple(ids[: len(self.prefix_ids)]) == self.prefix_ids
        return tuple(ids) if begun else (*self.prefix_ids, *ids)

    def check_text(self, text: str, param: str | None = None) -> None:
        """Every text has its tokens: there is one for each byte."""

    def spellable(self, text: str, param: str | None = None) -> str:
        """All of it."""
        return text

    def normalize(self, text: str) -> str:
        """Texts are read as they are."""
        return text

    def unstable_suffix(self, text: str, ids: Sequence[int]) -> str:
        """All of it: nothing is known of where pieces meet."""
        return text

    def least_tokens(self, text: str) -> int:
        """No piece is longer than the longest."""
        return -(-len(text) // len(self._by_length[0]))

    def encode(self, text: str, *, parse_special: bool = False) -> list[int]:
        ids: list[int] = []
        rest = text.encode()
        while rest:
            special = next((s for s in SPECIALS if rest.startswith(s.encode())), None)
            if parse_special and special is not None:
                ids.append(self.id(special))
                rest = rest[len(special) :]
                continue
            piece = next(piece for piece in self._by_length if rest.startswith(piece))
            ids.append(self._ids[piece])
            rest = rest[len(piece) :]
        return ids

    def encode_batch(
        self,
        texts: Sequence[str],
        *,
        parse_special: bool = False,
        check: Callable[[], None] = no_check,
    ) -> list[list[int]]:
        encoded = []
        for text in texts:
            check()
            encoded.append(self.encode(text, parse_special=parse_special))
        return encoded

    def decode(self, ids: Sequence[int]) -> str:
        return b"".join(map(self.token_bytes, ids)).decode(errors="replace")

    def detokenize(self, ids: Sequence[int]) -> str:
        return self.decode(ids)

    def token_bytes(self, token_id: int) -> bytes:
        return self._texts[token_id] if 0 <= token_id < self.vocab_size else b""

    def token_text(self, token_id: int) -> str:
        return self.token_bytes(token_id).decode(errors="replace")

    def byte_offsets(self, ids: Sequence[int], start: int = 0) -> list[tuple[int, int]]:
        offsets = []
        for token_id in ids:
            end = start + len(self.token_bytes(token_id))
            offsets.append((start, end))
            start = end
        return offsets

    def render_chat(
        self, messages: Sequence[Mapping[str, str]], *, add_generation_prompt: bool = True
    ) -> str:
        if messages[0]["role"] == "tool":
            raise InvalidQuery("the chat template failed: a tool cannot begin", param="messages")
        turns = "".join(f"{BOS}{m['role']}:{m['content'].strip()}{END}" for m in messages)
        return turns + BOS if add_generation_prompt else turns


def law_of(tokenizer: ToyTokenizer, law: Mapping[str, Mapping[str, float]], last: int) -> Any:
    """[head_rows] float32 log-probabilities of what follows the token ``last``."""
    named = law.get(tokenizer.token_text(last), {})
    rest = (1.0 - sum(named.values())) / (tokenizer.head_rows - len(named))
    row = np.full(tokenizer.head_rows, rest)
    for text, probability in named.items():
        row[tokenizer.id(text)] = probability
    return np.log(row).astype(np.float32)


class FakeEngine:
    """Answers from the law at once, and remembers what it was asked.

    Args:
        law: see above.
        tokenizer: a ``ToyTokenizer``.
        failures: what a path fails with, by its last token.
        info: replaces fields of ``ModelInfo``.
    """

    def __init__(
        self,
        law: Mapping[str, Mapping[str, float]] = LAW,
        *,
        tokenizer: ToyTokenizer | None = None,
        failures: Mapping[str, ChainruleError] | None = None,
        **info: Any,
    ) -> None:
        self.tokenizer = tokenizer or ToyTokenizer()
        self.info = replace(
            ModelInfo(
                name="org/toy",
                fingerprint="f" * 24,
                architecture="ToyForCausalLM",
                dtype="float32",
                device="cpu",
                vocab_size=self.tokenizer.head_rows,
                max_model_len=64,
                bos_token_id=self.tokenizer.bos_token_id,
                end_token_ids=(self.tokenizer.id(END),),
                parameters=12,
                created=1_700_000_000,
            ),
            **info,
        )
        self.admission = Admission(QUEUE_TOKENS, Throughput())
        self.queries: list[LogprobQuery] = []
        self.options: list[RequestOptions] = []
        self.refusal: ChainruleError | None = None
        self._law = law
        self._failures = failures or {}

    async def start(self) -> None:
        self._death: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()

    async def stop(self, drain_s: float) -> None:
        """Nothing runs, so nothing is ended."""

    async def wait_dead(self) -> BaseException:
        return await asyncio.shield(self._death)

    def stats(self) -> EngineStats:
        return EngineStats(ready=True)

    def check_room(self, priority: Priority = Priority.INTERACTIVE) -> None:
        self.admission.check_room(priority)

    def check(self, query: LogprobQuery) -> InvalidQuery | None:
        if len(query.tokens) > self.info.max_model_len:
            return PathTooLong(f"{len(query.tokens)} tokens; the model takes 64")
        if not all(0 <= token_id < self.info.vocab_size for token_id in query.tokens):
            return TokenIdOutOfRange("no such id")
        return None

    def reserve(
        self, least: int, options: RequestOptions, *, check_room: bool = True
    ) -> AbstractAsyncContextManager[None]:
        return self.admission.reserve(least, options, check_room=check_room)

    async def score(
        self, queries: Sequence[LogprobQuery], options: RequestOptions
    ) -> RequestOutput[tuple[LogprobResult | ChainruleError, ...]]:
        self._take(queries, options)
        return _outcome(tuple(map(self.answer, queries)), sum(q.last_row for q in queries))

    async def next_token(
        self, query: LogprobQuery, options: RequestOptions
    ) -> RequestOutput[LogprobResult]:
        self._take([query], options)
        answer = self.answer(query)
        if isinstance(answer, ChainruleError):
            raise answer
        return _outcome(answer, query.last_row)

    async def decode(self, search: Any, options: RequestOptions) -> RequestOutput[Any]:
        self._take([], options)
        rounds = 0
        while not search.done:
            queries = search.queries()
            self.queries.extend(queries)
            search.advance([self.answer(query) for query in queries])
            rounds += len(queries)
        return _outcome(search.result(), rounds)

    async def stream(self, search: Any, options: RequestOptions) -> AsyncGenerator[Any, None]:
        self._take([], options)
        told: list[GeneratedToken] = []
        streamed = StreamedSearch(search, told.append)
        while not streamed.done:
            queries = streamed.queries()
            self.queries.extend(queries)
            streamed.advance([self.answer(query) for query in queries])
            yield told.pop()
        yield _outcome(streamed.result(), 1)

    def answer(self, query: LogprobQuery) -> LogprobResult | ChainruleError:
        """What the law says of one query."""
        failure = self._failures.get(self.tokenizer.token_text(query.tokens[-1]))
        if failure is not None:
            return failure
        places = range(query.score_from, query.last_row + 1)
        rows = [law_of(self.tokenizer, self._law, query.tokens[place - 1]) for place in places]
        scored = list(zip(rows, query.tokens[query.score_from :], strict=False))
        targets = [(rows[-1], target) for target in query.targets or ()]
        return LogprobResult(
            logprobs=tuple(float(row[token_id]) for row, token_id in scored),
            ranks=tuple(_rank(row, token_id) for row, token_id in scored),
            target_logprobs=tuple(float(row[token_id]) for row, token_id in targets),
            target_ranks=tuple(_rank(row, token_id) for row, token_id in targets),
            top=tuple(_best(row)[: query.top_k] for row in rows) if query.top_k else (),
            entropies=tuple(_entropy(row) for row in rows) if query.summary else (),
            choices=() if query.choice is None else _chosen(rows[-1], query.choice),
            set_logprobs=tuple(_set_logprob(rows[-1], ids) for ids in query.token_sets),
            log_partitions=tuple(_log_partition(rows[-1], t) for t in query.temperatures),
            target_logits=tuple(float(row[target]) for row, target in targets if query.logits),
        )

    def probabilities(self, last: int) -> Any:
        """[head_rows] the law's row after the token ``last``, in probability."""
        return np.exp(law_of(self.tokenizer, self._law, last).astype(np.float64))

    def _take(self, queries: Sequence[LogprobQuery], options: RequestOptions) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.queries.extend(queries)
        self.options.append(options)


def _outcome(value: Any, tokens: int) -> RequestOutput[Any]:
    return RequestOutput(value, tokens, 3, queue_s=0.001, model_s=0.002)


def _rank(row: Any, token_id: int) -> int:
    return 1 + int((row > row[token_id]).sum())


def _best(row: Any) -> tuple[TokenLogprob, ...]:
    order = np.argsort(-row, kind="stable")
    return tuple(TokenLogprob(int(index), float(row[index])) for index in order)


def _chosen(row: Any, choice: TopKSelection) -> tuple[RankedLogprob, ...]:
    floor = -math.inf if choice.floor is None else choice.floor
    listed = [
        RankedLogprob(token.id, token.logprob, _rank(row, token.id))
        for token in _best(row)
        if token.logprob >= floor
        if choice.allowed is None or token.id in choice.allowed
    ]
    return tuple(listed[: choice.count])


def _set_logprob(row: Any, tokens: TokenSet) -> float:
    mass = math.fsum(math.exp(row[token_id]) for token_id in tokens)
    return math.log(mass) if mass else -math.inf


def _log_partition(row: Any, temperature: float) -> float:
    best = float(row.max())
    return math.log(math.fsum(math.exp((value - best) / temperature) for value in row.tolist()))


def _entropy(row: Any) -> float:
    return -math.fsum(math.exp(value) * value for value in row.tolist())
