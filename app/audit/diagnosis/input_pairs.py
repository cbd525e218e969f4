"""The token paths that two mistakes at once would have fed to the model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from app.audit.diagnosis.inputs import InputMaker, ModelInput
from app.audit.evidence import Evidence
from app.requests.worker_threads import check_wanted
from model_runtime import ModelInfo, Tokenizer

OF_TEXTS = frozenset(
    {"other_split", "space_missing", "space_added", "template_added", "template_missing"}
)
"""Mistakes made before anything is tokenized."""


def paired_inputs(
    tokenizer: Tokenizer,
    info: ModelInfo,
    evidence: Evidence,
    own: ModelInput,
    others: Sequence[ModelInput],
) -> Iterator[ModelInput]:
    """What two mistakes at once would have fed, the likelier ones first; what equals an input that
    is known is left out.

    Args:
        tokenizer: of the model.
        info: what is served.
        evidence: of the audit.
        own: the request's own.
        others: with one mistake each.
    """
    seen = {own.paths, *(one.paths for one in others)}
    for first, second in _two_changes(InputMaker(tokenizer, info, evidence, own), others):
        check_wanted()
        is_new = second.paths not in seen and any(path is not None for path in second.paths)
        if is_new and first.mistake != second.mistake:
            seen.add(second.paths)
            yield replace(second, beside=first)


def _two_changes(
    maker: InputMaker, others: Sequence[ModelInput]
) -> Iterator[tuple[ModelInput, ModelInput]]:
    """The first mistake, and the input that the second makes of it."""
    texts = [one for one in others if one.mistake in OF_TEXTS]
    cut = [one for one in others if one.mistake == "truncated"]
    begun = [one for one in others if one not in texts and one not in cut]
    for one in texts:
        yield from ((one, made) for made in maker.upon(one).beginnings())
    for template, content in maker.contents():
        other = maker.upon(maker.own, content)
        yield from ((template, made) for made in (*other.splits(), *other.spaces()))
    for one in cut:
        yield from ((one, made) for made in maker.upon(one).beginnings())
    for one in (*texts, *begun):
        yield from ((one, made) for made in maker.upon(one).cuts())
