"""Ask the service the same thing in several ways: the only part of an audit that waits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import replace
from typing import Any

from app.audit.evidence import Evidence, Probe, Row
from app.audit.expected_tokens import expected_tokens, wanted_rows
from app.audit.queries import AuditQueries
from app.audit.tokenization import Path, ReferenceTokens, split
from app.schemas.audit import (
    DEFAULT_AUDIT_NEW_TOKENS,
    AuditRequest,
)
from app.schemas.bounds import MAX_AUDIT_CONTEXT_TOKENS, MAX_AUDIT_TOKENS
from app.schemas.decode_response import DecodeResponse
from app.schemas.score_response import CandidateScore, ScoreResponse
from model_runtime import Engine, InvalidQuery, log_sum, total

PROBES = 4
"""Prefixes whose last token is exchanged."""

TAIL_TOKENS = 64
"""So many last tokens of a prefix are asked about where the whole of it would tell no more."""


class EvidenceCollector:
    """What one audit asks about.

    Args:
        questions: how it asks.
        engine: what answers in the end.
        request: what is audited.
    """

    def __init__(self, questions: AuditQueries, engine: Engine, request: AuditRequest) -> None:
        self._questions = questions
        self._engine = engine
        self._request = request
        self._ends = engine.info.end_token_ids if request.append_eos else ()

    async def collect(self) -> Evidence:
        """Everything that the checks look at.

        Raises:
            InvalidQuery: what /v1/score refuses, or the candidates are too long to be audited.
        """
        request, engine = self._request, self._engine
        scores = await self._questions.scores()
        good = [result.index for result in scores.results if result.error is None]
        parts = await self._questions.use_tokenizer(
            lambda tokenizer, info: split(tokenizer, info, request, good)
        )
        self._check_size(parts)
        self._questions.expect_paths(len(parts.prefix) + parts.longest)
        alone, rows, probes, tail, full, decoded = await _all(
            self._each_alone(parts, scores),
            self._rows(parts),
            self._probes(parts),
            self._questions.next_token(_tail(parts.prefix), (), "tail"),
            self._questions.full_distribution(_tail(parts.prefix)),
            self._decoded(parts),
        )
        evidence = Evidence(
            request=request,
            info=engine.info,
            control_ids=engine.tokenizer.control_ids,
            split=parts,
            scores=scores,
            rows=rows,
            probes=probes,
            alone=alone,
            doubled={},
            tail=tail,
            full=full,
            decoded=decoded,
        )
        if await self._questions.use_tokenizer(lambda *_: _disagrees(evidence)):
            # Asked only now: it computes the whole context once more.
            evidence = replace(evidence, doubled=await self._behind_two_bos(parts))
        return evidence

    def _check_size(self, parts: ReferenceTokens) -> None:
        tokens = sum(len(path) + self._request.append_eos for path in parts.paths.values())
        if tokens > MAX_AUDIT_TOKENS:
            raise InvalidQuery(
                f"{tokens} scored tokens are too many to audit; {MAX_AUDIT_TOKENS} are the most",
                "candidates",
            )
        fed = tokens * (len(parts.prefix) + parts.longest)
        if fed > MAX_AUDIT_CONTEXT_TOKENS:
            raise InvalidQuery(
                f"{tokens} scored tokens behind {len(parts.prefix)} are too many to "
                f"audit; their product may be {MAX_AUDIT_CONTEXT_TOKENS}",
                "candidates",
            )

    async def _each_alone(
        self, parts: ReferenceTokens, scores: ScoreResponse
    ) -> dict[int, CandidateScore]:
        # A server that is wrong about the start must not refuse it: the check shall name that.
        start = min(scores.boundary.start_token, len(parts.prefix))
        boundary = scores.boundary.model_copy(update={"start_token": start})
        results = await _all(
            *(self._questions.score_alone(index, boundary) for index in parts.paths)
        )
        return dict(zip(parts.paths, results, strict=True))

    async def _behind_two_bos(self, parts: ReferenceTokens) -> dict[int, float]:
        """What the shortest candidate would score behind one more BOS, token by token.

        Empty where there is no BOS, or no room for another.
        """
        info, ends = self._engine.info, self._ends
        index = min(parts.paths, key=lambda index: len(parts.paths[index]))
        whole = parts.whole(index)
        if info.bos_token_id is None or len(whole) + 2 > info.max_model_len:
            return {}
        places = range(len(parts.prefix), len(whole) + bool(ends))
        named = [whole[place : place + 1] or ends for place in places]
        rows = await _all(
            *(
                self._questions.next_token((info.bos_token_id, *whole[:place]), ids, "doubled")
                for place, ids in zip(places, named, strict=True)
            )
        )
        return {index: total([log_sum(list(row.logprobs.values())) for row in rows])}

    async def _rows(self, parts: ReferenceTokens) -> dict[Path, Row]:
        """The distribution behind every prefix of every path, one question each."""
        info, ends = self._engine.info, self._ends
        paths = [(parts.prefix, path) for path in parts.paths.values()]
        wanted = {
            prefix: ids
            for prefix, ids in wanted_rows(paths, ends).items()
            if ends or len(prefix) < info.max_model_len
        }
        rows = await _all(
            *(self._questions.next_token(prefix, ids, "rows") for prefix, ids in wanted.items())
        )
        return dict(zip(wanted, rows, strict=True))

    async def _probes(self, parts: ReferenceTokens) -> tuple[Probe, ...]:
        wholes = (parts.whole(index) for index in parts.paths)
        prefixes = dict.fromkeys(
            _tail(whole[:length])
            for whole in wholes
            for length in range(len(parts.prefix), len(whole))
        )
        chosen = list(prefixes)[:: max(1, len(prefixes) // PROBES)][:PROBES]
        return tuple(await _all(*map(self._probe, range(len(chosen)), chosen)))

    async def _probe(self, number: int, prefix: Path) -> Probe:
        """Each of the prefixes is computed by itself, from its first token on."""
        size = self._engine.info.vocab_size
        lasts = [prefix[-1], *((prefix[-1] + step) % size for step in (1, size // 2, size - 1))]
        rows = await _all(
            *(
                self._questions.next_token((*prefix[:-1], last), {prefix[-1]}, f"{number}-{place}")
                for place, last in enumerate(lasts)
            )
        )
        return Probe(prefix, rows[0], tuple(rows[1:]))

    async def _decoded(self, parts: ReferenceTokens) -> DecodeResponse:
        """Behind the tokens that the candidates are behind, as long as they are."""
        room = self._engine.info.max_model_len - len(parts.prefix)
        longest = parts.longest + bool(self._ends)
        return await self._questions.decoded(
            parts.prefix, min(DEFAULT_AUDIT_NEW_TOKENS, longest, room)
        )


def _disagrees(evidence: Evidence) -> bool:
    return any(evidence.differ(step.reported, step.expected) for step in expected_tokens(evidence))


def _tail(prefix: Path) -> Path:
    return prefix[-TAIL_TOKENS:]


async def _all(*calls: Awaitable[Any]) -> Sequence[Any]:
    """All answers in order; the first failure ends the others."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
