"""What goes into the runtime and what comes out. Plain data: no torch, no I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Generic, Literal, NamedTuple, Protocol, TypeVar

from model_runtime.errors import ChainruleError
from model_runtime.token_set import TokenSet

T = TypeVar("T")


class Priority(StrEnum):
    """Class of service. Each class keeps a reserved share of every batch."""

    INTERACTIVE = "interactive"
    BULK = "bulk"


class TokenLogprob(NamedTuple):
    """A token id and its natural-log probability."""

    id: int
    logprob: float


class RankedLogprob(NamedTuple):
    """A token id, its natural-log probability, and its place in the whole vocabulary.

    ``rank`` is 1 + the number of tokens, listed or not, that are strictly more probable.
    """

    id: int
    logprob: float
    rank: int


@dataclass(frozen=True, slots=True)
class TopKSelection:
    """Which tokens after a whole path are listed.

    Of the allowed tokens at or above the floor, the ``count`` most probable; fewer where there
    are fewer. Their log-probs and ranks are the model's own, never renormalised. A token of
    probability 0 is never listed.

    Attributes:
        count: tokens at most; at least 1.
        floor: the lowest log-probability, in nats, that is listed; None for no such bound.
        allowed: the only ids that may be listed, at least one; None for the whole vocabulary.
    """

    count: int
    floor: float | None = None
    allowed: TokenSet | None = None


@dataclass(frozen=True, slots=True)
class LogprobQuery:
    """The one work item: what is asked along one token path.

    Row p is the distribution of the token at position p given ``tokens[:p]``, so
    row p comes out of the forward at position p - 1 (the one-position shift)::

        tokens      x0   x1   x2   y0   y1
        position     0    1    2    3    4    5
        score_from                  ^
        rows                        3    4    (5 where ``targets`` is given)
        fed to the model  x0 x1 x2 y0         (y1 too, where row 5 is asked)

    Asked rows are ``score_from .. len(tokens) - 1``, each scoring the path's own token,
    and row ``len(tokens)``, the next-token distribution, where ``targets`` is not None.

    Attributes:
        tokens: token ids of the whole path; at least one.
        score_from: first scored position, ``1 <= score_from <= len(tokens)``.
        targets: ids whose log-probability is wanted after the whole path; ``()`` asks for
            that row without naming ids; None does not ask for it.
        top_k: so many most probable tokens at each asked row; 0 for none.
        summary: the entropy, in nats, of each asked row.
        cache_salt: paths of different salts never share computation.
        choice: which tokens are listed after the whole path, whose row ``targets`` must ask
            for; None for none. Unlike ``top_k`` it is asked of that row alone.
        token_sets: sets of tokens whose summed probability is wanted after the whole path, whose
            row ``targets`` must ask for.
        temperatures: at which the log-partition is wanted after the whole path, whose row
            ``targets`` must ask for; each is positive and finite.
        logits: whether the logits of the targets are wanted beside their log-probabilities.
        keep: so many leading tokens are worth keeping in the cache once it is answered; None for
            those before ``score_from``. Changes no answer.
    """

    tokens: tuple[int, ...]
    score_from: int
    targets: tuple[int, ...] | None = None
    top_k: int = 0
    summary: bool = False
    cache_salt: str = ""
    choice: TopKSelection | None = None
    token_sets: tuple[TokenSet, ...] = ()
    temperatures: tuple[float, ...] = ()
    logits: bool = False
    keep: int | None = None

    @property
    def last_row(self) -> int:
        """The last asked row; its token path has this many tokens, all of them fed."""
        return len(self.tokens) if self.targets is not None else len(self.tokens) - 1


@dataclass(frozen=True, slots=True)
class LogprobResult:
    """The answer to a ``LogprobQuery`` with S scored tokens and R asked rows (R = S or S + 1).

    Attributes:
        logprobs: [S] log P(token | all tokens before it), float32 values.
        ranks: [S] 1 + the number of tokens that are strictly more probable.
        target_logprobs: [len(targets)] after the whole path.
        target_ranks: [len(targets)].
        top: [R][top_k] most probable first, equal ones by smaller id; empty when not asked.
        entropies: [R] in nats; empty when not asked.
        choices: what ``choice`` lists after the whole path, most probable first, equal ones by
            smaller id; empty when not asked.
        set_logprobs: [len(token_sets)] log of each set's summed probability after the whole path:
            a float64 sum over the tokens' float32 log-probs. A single token's is its log-prob, to
            the bit; -inf for a set without probability.
        log_partitions: [len(temperatures)] log of the sum, over the whole vocabulary, of
            exp((logprob - best) / temperature), where ``best`` is the largest log-prob after the
            whole path: a float64 sum over float32 log-probs. At that temperature a token has the
            probability exp((logprob - best) / temperature - log_partition).
        target_logits: [len(targets)] what the head gives for them, before anything is taken off: a
            float64 sum of the float32 log-prob and the float32 log of the sum of exponentials, so
            within their rounding of it. Unlike log-probs they can be compared across paths only as
            far as the model was trained for that. Empty when not asked.
    """

    logprobs: tuple[float, ...] = ()
    ranks: tuple[int, ...] = ()
    target_logprobs: tuple[float, ...] = ()
    target_ranks: tuple[int, ...] = ()
    top: tuple[tuple[TokenLogprob, ...], ...] = ()
    entropies: tuple[float, ...] = ()
    choices: Sequence[RankedLogprob] = ()
    set_logprobs: tuple[float, ...] = ()
    log_partitions: tuple[float, ...] = ()
    target_logits: tuple[float, ...] = ()

    def concat(self, later: LogprobResult) -> LogprobResult:
        """The answer over both row ranges, where ``later`` answers the rows that follow."""
        return LogprobResult(
            logprobs=self.logprobs + later.logprobs,
            ranks=self.ranks + later.ranks,
            target_logprobs=self.target_logprobs + later.target_logprobs,
            target_ranks=self.target_ranks + later.target_ranks,
            top=self.top + later.top,
            entropies=self.entropies + later.entropies,
            choices=later.choices or self.choices,
            set_logprobs=self.set_logprobs + later.set_logprobs,
            log_partitions=self.log_partitions + later.log_partitions,
            target_logits=self.target_logits + later.target_logits,
        )

    def without_prefix(self, earlier: LogprobResult) -> LogprobResult:
        """The answer without the scored rows of ``earlier``: the way back from ``concat``."""
        known = len(earlier.logprobs)
        return replace(
            self,
            logprobs=self.logprobs[known:],
            ranks=self.ranks[known:],
            top=self.top[known:],
            entropies=self.entropies[known:],
        )


EMPTY_RESULT = LogprobResult()
"""The answer to no rows."""


def total(logprobs: Sequence[float]) -> float:
    """Left-to-right float64 sum: the one definition of a sequence log-probability."""
    result = 0.0
    for logprob in logprobs:
        result += logprob
    return result


@dataclass(frozen=True, slots=True)
class ForwardRun:
    """A forward that has ended, as observers are told of it.

    Attributes:
        began_ns, ended_ns: unix time in nanoseconds.
        tokens: fed to it.
        requests: of which it held a part.
        observed: those of them that have an observer.
        error: the name of the exception that it failed with; None where it did not. What it held is
            run again in smaller forwards, or fails.
    """

    began_ns: int
    ended_ns: int
    tokens: int
    requests: int
    observed: int
    error: str | None = None


class ForwardObserver(Protocol):
    """Is told what becomes of a request on the model thread, and told there: it must neither wait
    nor raise."""

    def forward_ended(self, forward: ForwardRun, tokens: int, queue_s: float | None) -> None:
        """A forward that held a part of the request has ended.

        Everyone who observes a request of one forward is told of the same object, one behind the
        other, before any of these requests can end by it.

        Args:
            forward: all of it.
            tokens: those of them that were fed for this request.
            queue_s: seconds from submission to this forward where it was the request's first; None
                later.
        """


@dataclass(frozen=True, slots=True)
class RequestOptions:
    """How a request wants to be treated while it waits and runs.

    Attributes:
        priority: class of service.
        deadline: the time of ``time.monotonic`` at which it ends in ``DeadlineExceeded``, or, of a
            search that can, in what it has found; None for no end.
        cache_salt: put before that of each of its queries: requests of different salts never
            share computation, neither in the cache nor in a batch.
        on_full: what to do while the queue has no room: be refused at once, or wait for it in
            order of arrival.
        parent: names the larger request of which this is a part; those that wait are counted by
            it. Empty: it stands for itself.
        observer: is told of each forward that held a part of it; None for nobody.
    """

    priority: Priority = Priority.INTERACTIVE
    deadline: float | None = None
    cache_salt: str = ""
    on_full: Literal["refuse", "wait"] = "refuse"
    parent: str = ""
    observer: ForwardObserver | None = None


@dataclass(frozen=True, slots=True)
class RequestOutput(Generic[T]):
    """A finished request: its value, and what it cost.

    Attributes:
        value: what was asked for.
        computed_tokens: tokens the model was fed on behalf of this request.
        cached_tokens: tokens it needed that were there already: kept from an earlier
            batch, or computed for a neighbour in the same one.
        queue_s: seconds from submission to its first forward.
        model_s: seconds from its first forward to its answer.
        reused_scores: queries that nothing was computed for: their answers were kept, or came
            with those of another request. Whoever keeps them counts them.
    """

    value: T
    computed_tokens: int
    cached_tokens: int
    queue_s: float
    model_s: float
    reused_scores: int = 0


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What is served, as /v1/models reports it.

    Attributes:
        name: the name clients use.
        fingerprint: hex digest of weights, tokenizer, dtype, code and torch version.
        architecture: the transformers class, such as ``LlamaForCausalLM``.
        dtype, device: where and in what precision the products run.
        vocab_size: rows of the head; a valid id is ``0 <= id < vocab_size``.
        max_model_len: the longest token path, scored token included.
        bos_token_id: what ``add_bos`` inserts; None where the tokenizer has none.
        end_token_ids: ids that end a completion.
        parameters: number of weights, tied ones once.
        numeric_error: (maximum, RMS) of per-token |log-prob - float64| on a fixed sample.
        created: unix seconds at which the model was loaded.
        batch_invariant: a token path was found to have the same bits alone, beside others, cached
            and chunked, with the products of this machine. Not looked for on CUDA.
        folder: where the model's files lie; empty where it has none.
        warnings: what is odd about the model's folder and may not be meant, a line each.
        kernels: what computes its forwards: the compiled library, or torch's kernels.
        kernels_reason: why ``kernels`` is torch where the config left it open; None elsewhere.
    """

    name: str
    fingerprint: str
    architecture: str
    dtype: str
    device: str
    vocab_size: int
    max_model_len: int
    bos_token_id: int | None
    end_token_ids: tuple[int, ...]
    parameters: int
    numeric_error: tuple[float, float] | None = None
    created: int = field(default=0)
    batch_invariant: bool = False
    folder: str = ""
    warnings: tuple[str, ...] = ()
    kernels: Literal["native", "torch"] = "torch"
    kernels_reason: str | None = None


QueryResult = LogprobResult | ChainruleError
"""What comes back for one query: its result, or why it alone failed."""
