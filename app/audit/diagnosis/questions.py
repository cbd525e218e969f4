"""What is asked of the service about the inputs of a diagnosis, within bounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from app.audit.diagnosis.input_pairs import paired_inputs
from app.audit.diagnosis.inputs import (
    ModelInput,
    new_tokens,
    other_inputs,
    own_input,
)
from app.audit.diagnosis.rows import Asked, PathRows, read_input
from app.audit.evidence import Evidence
from app.requests.token_details import path_bytes
from app.requests.worker_threads import check_wanted
from app.schemas.bounds import (
    MAX_DIAGNOSIS_PAIRS,
    MAX_DIAGNOSIS_PROMPT,
    MAX_DIAGNOSIS_ROWS,
    MAX_DIAGNOSIS_TOKENS,
)
from app.schemas.diagnosis import MistakeName, Untried
from app.scoring.token_paths import PathQueries
from model_runtime import ChainruleError, LogprobQuery, ModelInfo, QueryResult, Tokenizer

InputRows = tuple[PathRows | None, ...]
"""Of one input, by index of the request's candidates."""


@dataclass(frozen=True, slots=True)
class InputQuestions:
    """What is asked about some inputs.

    Attributes:
        inputs: the request's own first.
        asked: about each of them; None for one of which nothing is.
        places: of each query: index of the input, index of the candidate, row.
        untried: what was left out.
        unchanged: mistakes that leave the request's own input as it is.
    """

    inputs: tuple[ModelInput, ...]
    asked: tuple[Asked | None, ...]
    places: tuple[tuple[int, int, int], ...]
    untried: tuple[Untried, ...]
    unchanged: frozenset[MistakeName] = frozenset()

    def rows(self, answers: Sequence[QueryResult], evidence: Evidence) -> list[InputRows]:
        """Of each input; of one that could not be answered, or was not asked about, there are none.

        Raises:
            ChainruleError: the request's own input could not be answered.
        """
        by_input: dict[int, dict[tuple[int, int], QueryResult]] = {}
        for (source, index, row), answer in zip(self.places, answers, strict=True):
            by_input.setdefault(source, {})[(index, row)] = answer
        sizes = candidate_sizes(evidence)
        found: list[InputRows] = []
        for source, (made, asked) in enumerate(zip(self.inputs, self.asked, strict=True)):
            check_wanted()
            none: InputRows = (None,) * len(made.paths)
            if asked is None:
                found.append(none)
                continue
            try:
                found.append(read_input(made, asked, by_input.get(source, {}), sizes))
            except ChainruleError:
                if source == 0:
                    raise
                found.append(none)
        return found

    def unanswered(self, rows: Sequence[InputRows]) -> list[Untried]:
        """The inputs that were asked about in vain."""
        return [
            Untried(mistakes=_name(made), reason="the model takes no such input: it is too long")
            for made, asked, found in zip(self.inputs, self.asked, rows, strict=True)
            if asked is not None and not any(found)
        ]


def first_questions(
    tokenizer: Tokenizer, info: ModelInfo, evidence: Evidence, *, weighs_vocabulary: bool
) -> PathQueries[InputQuestions]:
    """All inputs; of the request's own everything that recipes are made of."""
    own = own_input(evidence)
    end_ids = info.end_token_ids
    plain = Asked(end_ids, tokenizer.eos_token_id)
    start = evidence.scores.boundary.start_token
    untried: list[Untried] = []
    scores_prompt = start <= MAX_DIAGNOSIS_PROMPT
    if not scores_prompt:
        reason = f"the context has {start} tokens; {MAX_DIAGNOSIS_PROMPT} are scored at most"
        untried.append(Untried(mistakes=["prompt_scored"], reason=reason))
    inputs = [own]
    left = MAX_DIAGNOSIS_TOKENS
    others = other_inputs(tokenizer, info, evidence, own)
    for name in sorted(others.unformed - {"truncated"}):
        reason = "it cannot be made of this context and these candidates"
        untried.append(Untried(mistakes=[name], reason=reason))
    for made in others.inputs:
        cost = new_tokens(own, made)
        if cost > left:
            reason = f"{made.about}: it would take {cost} tokens more"
            untried.append(Untried(mistakes=_name(made), reason=reason))
            continue
        left -= cost
        inputs.append(made)
    whole = replace(
        plain,
        weighs_vocabulary=weighs_vocabulary,
        scores_prompt=scores_prompt,
        goes_beyond=True,
    )
    asked = (whole, *(plain for _ in inputs[1:]))
    found = _path_queries(inputs, asked, untried, evidence)
    return replace(found, plan=replace(found.plan, unchanged=others.unchanged))


def more_questions(
    tokenizer: Tokenizer,
    info: ModelInfo,
    before: InputQuestions,
    rows: Sequence[InputRows],
    evidence: Evidence,
) -> PathQueries[InputQuestions]:
    """The other inputs once more, for what makes a recipe of a temperature or of some tokens, and
    inputs with two mistakes."""
    untried: list[Untried] = []
    asked: list[Asked | None] = [None]
    left = MAX_DIAGNOSIS_ROWS
    for made, plain, found in zip(before.inputs[1:], before.asked[1:], rows[1:], strict=True):
        count = sum(len(one.rows) for one in found if one is not None)
        if plain is None or count == 0 or count > left:
            asked.append(None)
            if count > left:
                words = f"{made.about}, together with another softmax: it would take {count} rows"
                untried.append(Untried(mistakes=_name(made), reason=words))
            continue
        left -= count
        asked.append(replace(plain, weighs_vocabulary=True))
    paired, too_many = _within_budget(tokenizer, info, before.inputs, evidence)
    asked += [Asked(info.end_token_ids, tokenizer.eos_token_id)] * len(paired)
    return _path_queries([*before.inputs, *paired], asked, [*untried, *too_many], evidence)


def _within_budget(
    tokenizer: Tokenizer, info: ModelInfo, inputs: Sequence[ModelInput], evidence: Evidence
) -> tuple[list[ModelInput], list[Untried]]:
    """Inputs with two mistakes that what is left of the budget is enough for, and which are not."""
    own, *others = inputs
    left = MAX_DIAGNOSIS_TOKENS - sum(new_tokens(own, one) for one in others)
    found: list[ModelInput] = []
    over: dict[tuple[MistakeName, ...], Untried] = {}
    for made in paired_inputs(tokenizer, info, evidence, own, others):
        cost = new_tokens(own, made)
        if cost <= left and len(found) < MAX_DIAGNOSIS_PAIRS:
            left -= cost
            found.append(made)
            continue
        names = _name(made)
        reason = (
            f"{' and '.join(one.about for one in made.parts)}: more than {MAX_DIAGNOSIS_PAIRS} "
            f"inputs with two mistakes, or {MAX_DIAGNOSIS_TOKENS} more tokens, are not fed"
        )
        over.setdefault(tuple(names), Untried(mistakes=names, reason=reason))
    return found, list(over.values())


def candidate_sizes(evidence: Evidence) -> list[tuple[int, int]]:
    """Bytes and characters of each candidate; of one that could not be scored 0 and 0."""
    found = []
    scored = {one.index for one in evidence.scored}
    for index, given in enumerate(evidence.request.candidates):
        if index not in scored:
            found.append((0, 0))
        elif isinstance(given, str):
            found.append((len(given.encode()), len(given)))
        else:
            content = path_bytes(evidence.tokenizer, given)
            found.append((len(content), len(evidence.tokenizer.decode(given))))
    return found


def _path_queries(
    inputs: Sequence[ModelInput],
    asked: Sequence[Asked | None],
    untried: Sequence[Untried],
    evidence: Evidence,
) -> PathQueries[InputQuestions]:
    queries: list[LogprobQuery] = []
    places: list[tuple[int, int, int]] = []
    for source, (made, about) in enumerate(zip(inputs, asked, strict=True)):
        check_wanted()
        for index, path in enumerate(made.paths):
            if path is None or about is None:
                continue
            for row, query in about.queries(path).items():
                places.append((source, index, row))
                queries.append(query)
    plan = InputQuestions(tuple(inputs), tuple(asked), tuple(places), tuple(untried))
    return PathQueries(queries, plan, len(evidence.before), len(queries))


def _name(made: ModelInput) -> list[MistakeName]:
    return [one.mistake for one in made.parts if one.mistake is not None]
