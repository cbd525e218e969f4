"""What the model has said of each token path, and who was told something else.

A fact is one number of one row: the log-probability or rank of a token after a path, a place
in its top k, its entropy. However a row was reached - in a longer candidate, token by token,
as a target, by a search - its facts are the same ones. So one book holds every claim that
scores depend on nothing but their path: whole path = token by token = prefix of a longer
candidate = context and candidate split elsewhere = alone = in a crowd.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from model_runtime.decoding.hypothesis import DecodingResult, Hypothesis
from model_runtime.types import LogprobQuery, LogprobResult, TokenLogprob

Path = tuple[int, ...]


class Conflict(NamedTuple):
    """A fact after ``path`` that was told with two kinds of bits; ``text`` says which."""

    path: Path
    text: str


class Ledger:
    """Facts by path and name, as first told.

    Attributes:
        confirmed: how often a fact was told again, from another source, with the same bits.
        conflicts: each time that a fact was told with other bits than the first time.
    """

    def __init__(self) -> None:
        self._facts: dict[tuple[object, object], tuple[str, str]] = {}
        self.confirmed = 0
        self.conflicts: list[Conflict] = []

    def copy(self) -> Ledger:
        """A ledger of its own that begins with the same facts."""
        other = Ledger()
        other._facts = dict(self._facts)
        return other

    def enter(self, path: Path, name: object, value: object, source: str) -> None:
        """Take down a fact, or compare it with what is there.

        ``repr`` tells any two floats apart that differ in a bit, signed zeros included.
        """
        bits = repr(value)
        first, told_by = self._facts.setdefault((path, name), (bits, source))
        if first != bits:
            where = f"{name} after {len(path)} tokens ending in {path[-3:]}"
            text = f"{where}: {first} ({told_by}), {bits} ({source})"
            self.conflicts.append(Conflict(path, text))
        elif told_by != source:
            self.confirmed += 1

    def enter_score(self, query: LogprobQuery, result: LogprobResult, source: str) -> None:
        """Every fact of a query's answer."""
        rows = range(query.score_from, query.last_row + 1)
        scored = [(query.tokens[:p], query.tokens[p]) for p in rows if p < len(query.tokens)]
        targets = [(query.tokens, token_id) for token_id in query.targets or ()]
        logprobs = result.logprobs + result.target_logprobs
        ranks = result.ranks + result.target_ranks
        for (path, token_id), logprob, rank in zip(scored + targets, logprobs, ranks, strict=True):
            self.enter(path, ("logprob", token_id), logprob, source)
            self.enter(path, ("rank", token_id), rank, source)
        paths = [query.tokens[:p] for p in rows]
        self._enter_each(paths if query.summary else [], "entropy", result.entropies, source)
        for path, top in zip(paths if query.top_k else [], result.top, strict=True):
            self._enter_top(path, top, source)
        self.enter(query.tokens, query.choice, [token.id for token in result.choices], source)
        for tokens, mass in zip(query.token_sets, result.set_logprobs, strict=True):
            self.enter(query.tokens, ("mass", tokens), mass, source)
        for temperature, value in zip(query.temperatures, result.log_partitions, strict=True):
            self.enter(query.tokens, ("log-partition", temperature), value, source)
        for token_id, logit in zip(query.targets or (), result.target_logits, strict=query.logits):
            self.enter(query.tokens, ("logit", token_id), logit, source)
        for token_id, logprob, rank in result.choices:
            self.enter(query.tokens, ("logprob", token_id), logprob, source)
            self.enter(query.tokens, ("rank", token_id), rank, source)

    def enter_completions(
        self, request: object, prompt: Path, result: DecodingResult, source: str
    ) -> None:
        """What a search found, and every fact along its completions."""
        found = [(h.token_ids, h.score, h.finish_reason.value) for h in result.hypotheses]
        self.enter(prompt, request, found, source)
        for hypothesis in result.hypotheses:
            self._enter_completion(prompt, hypothesis, source)

    def _enter_completion(self, prompt: Path, hypothesis: Hypothesis, source: str) -> None:
        path = prompt
        steps = zip(
            hypothesis.token_ids, hypothesis.token_logprobs, hypothesis.token_ranks, strict=True
        )
        for place, (token_id, logprob, rank) in enumerate(steps):
            self.enter(path, ("logprob", token_id), logprob, source)
            self.enter(path, ("rank", token_id), rank, source)
            if hypothesis.top:
                self._enter_top(path, hypothesis.top[place], source)
            path = (*path, token_id)

    def _enter_top(self, path: Path, top: Sequence[TokenLogprob], source: str) -> None:
        for place, (token_id, logprob) in enumerate(top):
            self.enter(path, ("top", place), token_id, source)
            self.enter(path, ("logprob", token_id), logprob, source)

    def _enter_each(
        self, paths: Sequence[Path], name: object, values: Sequence[object], source: str
    ) -> None:
        for path, value in zip(paths, values, strict=True):
            self.enter(path, name, value, source)
