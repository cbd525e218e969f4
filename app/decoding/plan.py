"""POST /v1/decode, first half: a request to searches; ``response`` reads what they find."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from app.decoding.candidates import CandidateSet, parse_candidates
from app.decoding.token_rules import NO_RULES, TokenRules
from app.requests.limits import check_context, check_entries, check_ids
from app.requests.prompt import Prompt, parse_prompt
from app.schemas.bounds import MAX_THRESHOLD_SEQUENCES
from app.schemas.decode import DecodeRequest, Strategy
from model_runtime import (
    BeamSearch,
    ClosedSet,
    Constraint,
    DecodingLimits,
    DecodingResult,
    ExactSearch,
    Grammar,
    GreedySearch,
    InvalidQuery,
    MissingExtra,
    ModelInfo,
    NothingFollows,
    PathTooLong,
    RecordedSearch,
    SearchStrategy,
    StopStrings,
    ThresholdSearch,
    Tokenizer,
    TokenMask,
    grammar_installed,
)


@dataclass(frozen=True, slots=True)
class DecodePlan:
    """A request in token ids.

    Attributes:
        request: what was asked.
        prompt: its context.
        prefix: the path that is continued.
        closed: the candidates; None where anything may be generated.
        searches: to be run, one for each strategy; good for one run.
        text_bytes: what a generated token adds to the text, by its id.
        limits: of every search.
        vocab_size: of the model.
    """

    request: DecodeRequest
    prompt: Prompt
    prefix: tuple[int, ...]
    closed: CandidateSet | None
    searches: tuple[Search, ...]
    text_bytes: Callable[[int], bytes]
    limits: DecodingLimits
    vocab_size: int

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the context, those behind the common start of candidates too."""
        return len(self.prefix) if self.closed is None else self.closed.joined.context_tokens

    @property
    def shift_bytes(self) -> int:
        """Bytes of the context that are generated again."""
        return 0 if self.closed is None else self.closed.joined.shift_bytes

    @property
    def greedy(self) -> GreedySearch:
        """The one search of a request that is streamed."""
        (search,) = self.searches
        if not isinstance(search, GreedySearch):
            raise RuntimeError("this is a bug: only greedy search can be streamed")
        return search


def plan_decode(
    tokenizer: Tokenizer, info: ModelInfo, request: DecodeRequest, rules: TokenRules = NO_RULES
) -> DecodePlan:
    """Tokenize the context, compile the constraint, and set up the searches.

    Args:
        tokenizer: the model's.
        info: what is served.
        request: what is asked.
        rules: what is asked of the tokens besides; their ids are valid.

    Raises:
        InvalidQuery: the context or a setting is at fault; named.
        MissingExtra: a grammar is asked for, and nothing here can compile it.
    """
    check_ids("stop_token_ids", request.stop_token_ids, info)
    prompt = parse_prompt(tokenizer, info, request)
    ends = rules.end_ids(tokenizer, info, request.stop, ignore_eos=request.ignore_eos)
    ends |= frozenset(request.stop_token_ids)
    text_bytes = rules.text_bytes(tokenizer)
    ended = _ended(request, ends)
    closed = None
    if request.candidates is not None:
        closed = parse_candidates(tokenizer, info, prompt, request.candidates, ends, ended=ended)
    prefix = prompt.token_ids(tokenizer) if closed is None else closed.joined.prefix
    check_context(len(prefix), info, room=1)
    max_tokens = _max_tokens(len(prefix), info, request, closed)
    check_entries(len(request.strategies) * request.returned * max_tokens, request)
    limits = DecodingLimits(
        max_tokens=max_tokens,
        min_tokens=request.min_tokens,
        end_token_ids=ends,
        stop=_stop(text_bytes, request, 0 if closed is None else closed.joined.shift_bytes),
        top_logprobs=min(request.top_logprobs, info.vocab_size),
    )
    if closed is not None:
        paths = closed.fitting(max_tokens, request.min_tokens)
        limits = replace(limits, constraint=ClosedSet(paths, info.vocab_size, end=ended))
    elif request.constraint is not None:
        limits = replace(limits, constraint=_grammar(tokenizer, request, ended=ended))
    mask = rules.mask(info.vocab_size)
    if mask is not None:
        limits = replace(limits, constraint=TokenMask(mask, limits.constraint))
    with attributed_to_constraint(request):
        searches: tuple[Search, ...] = tuple(
            make_search(kind, prefix, limits, info, request) for kind in request.strategies
        )
    if request.search_tree:
        searches = tuple(RecordedSearch(search, len(prefix)) for search in searches)
    return DecodePlan(
        request, prompt, prefix, closed, searches, text_bytes, limits, info.vocab_size
    )


@contextmanager
def attributed_to_constraint(request: DecodeRequest) -> Iterator[None]:
    """Name the constraint where a search has nothing to complete, and knows no field to name."""
    try:
        yield
    except InvalidQuery as error:
        unnamed = type(error) in (InvalidQuery, NothingFollows) and error.param is None
        if not unnamed or request.constraint is None:
            raise
        raise error.at(request.constraint) from error


def _ended(request: DecodeRequest, ends: frozenset[int]) -> bool:
    """Whether an end token finishes what the constraint allows."""
    if request.append_eos and not ends:
        raise InvalidQuery("no token ends a sequence here", param="append_eos")
    return request.constraint is not None and request.append_eos is not False and bool(ends)


def _max_tokens(
    prefix_tokens: int, info: ModelInfo, request: DecodeRequest, closed: CandidateSet | None
) -> int:
    if closed is not None:
        return min(request.max_tokens or closed.longest, closed.longest)
    wanted = request.token_limit
    if prefix_tokens + wanted > info.max_model_len:
        raise PathTooLong(
            f"{prefix_tokens} tokens of context and {wanted} more are too many; the "
            f"model takes {info.max_model_len}",
            param="max_tokens",
        )
    return wanted


def _stop(
    text_bytes: Callable[[int], bytes], request: DecodeRequest, shift_bytes: int
) -> StopStrings | None:
    stops = [stop.encode() for stop in request.stop]
    return StopStrings(stops, text_bytes, skip=shift_bytes) if stops else None


def _grammar(tokenizer: Tokenizer, request: DecodeRequest, *, ended: bool) -> Constraint:
    if not grammar_installed():
        param = "json_schema" if request.regex is None else "regex"
        raise MissingExtra("this needs the grammar extra", param)
    if request.regex is not None:
        return Grammar.compile_regex(tokenizer, request.regex, end=ended)
    return Grammar.compile_json_schema(tokenizer, request.json_schema or {}, end=ended)


Search = SearchStrategy[DecodingResult]


def make_search(
    strategy: Strategy,
    prefix: tuple[int, ...],
    limits: DecodingLimits,
    info: ModelInfo,
    request: DecodeRequest,
) -> Search:
    """The search, good for one run.

    Raises:
        InvalidQuery: a setting is at fault; named.
    """
    if strategy == "greedy":
        return GreedySearch(prefix, limits, vocab_size=info.vocab_size)
    if strategy == "beam":
        return BeamSearch(
            prefix,
            limits,
            vocab_size=info.vocab_size,
            num_beams=request.beams,
            num_return_sequences=request.returned,
            length_penalty=request.penalty(strategy),
            early_stopping=request.early_stopping,
        )
    return _exact(prefix, limits, info, request)


def _exact(
    prefix: tuple[int, ...], limits: DecodingLimits, info: ModelInfo, request: DecodeRequest
) -> Search:
    if request.threshold is not None:
        return ThresholdSearch(
            prefix,
            limits,
            vocab_size=info.vocab_size,
            floor=math.log(request.threshold),
            max_results=min(request.returned, MAX_THRESHOLD_SEQUENCES),
            feasible=request.feasible,
            max_expansions=request.expansions,
            num_beams=request.beams,
        )
    return ExactSearch(
        prefix,
        limits,
        vocab_size=info.vocab_size,
        num_return_sequences=request.returned,
        length_penalty=request.penalty("exact"),
        feasible=request.feasible,
        max_expansions=request.expansions,
        num_beams=request.beams,
    )
