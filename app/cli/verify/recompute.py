"""A receipt's paths, scored again by whoever answers ``/v1/score``, as ids and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from app.cli.verify.comparison import Recomputed, Unscored
from app.client import Client, FingerprintMismatch, InvalidResponse, RequestRefused
from app.schemas.bounds import MAX_TIMEOUT_MS
from app.schemas.models import ModelCard
from app.schemas.receipt import Receipt, ReceiptCandidate
from app.schemas.score_response import ScoreResponse

CANDIDATES_AT_ONCE: Final = 1024
TOKENS_AT_ONCE: Final = 16_384
"""Of one request. A longer candidate is alone in its own."""

_COMPANION: Final = [0]
"""A candidate that any model can score: beside it others fail one by one, not the request."""

_PLACE: Final = re.compile(r"(candidates|context)(\.\d+)*: ")


class Recomputation:
    """Scores a receipt's candidates again.

    Args:
        client: of the server that scores them.
        card: what it serves.
        receipt: well formed.
        model: the name that the server's model must have; None for any.

    Attributes:
        chainrule_version: of the server; None before it has answered.
    """

    def __init__(
        self, client: Client, card: ModelCard, receipt: Receipt, model: str | None
    ) -> None:
        self._client = client
        self._card = card
        self._receipt = receipt
        self._model = model
        self.chainrule_version: str | None = None

    def all_paths(self) -> list[list[Recomputed]]:
        """For each candidate of the receipt, what came out behind each of its prefixes.

        Raises:
            ClientError: the server does not answer, or refuses what is no candidate's fault.
        """
        behind = [self._behind(prefix) for prefix in self._receipt.prefixes]
        return [list(paths) for paths in zip(*behind, strict=True)]

    def _behind(self, prefix: list[int]) -> Iterator[Recomputed]:
        most = max(1, min(CANDIDATES_AT_ONCE, self._card.limits.max_candidates - 1))
        for part in _parts(self._receipt.candidates, most):
            yield from self._part(prefix, part)

    def _part(self, prefix: list[int], part: Sequence[ReceiptCandidate]) -> list[Recomputed]:
        companions = [_COMPANION] if len(part) > 1 else []
        try:
            answer = self._client.score(
                context=prefix,
                candidates=[*(one.token_ids for one in part), *companions],
                boundary="separate",
                add_bos=False,
                append_eos=bool(self._receipt.end_token_ids),
                compact=True,
                receipt=True,
                model=self._model,
                timeout_ms=MAX_TIMEOUT_MS,
            )
        except RequestRefused as error:
            if error.code == "request_too_large" and len(part) > 1:
                half = len(part) // 2
                return [*self._part(prefix, part[:half]), *self._part(prefix, part[half:])]
            if error.status != 422 or error.param in ("receipt", "model"):
                raise
            return [self._unscored(error.message, error.code)] * len(part)
        return self._read(answer, len(part))

    def _read(self, answer: ScoreResponse, count: int) -> list[Recomputed]:
        if answer.fingerprint != self._card.fingerprint:
            raise FingerprintMismatch("the server has changed its model since it was first asked")
        receipt = answer.receipt
        if receipt is None or answer.compact is None:
            raise InvalidResponse("the server sent no receipt")
        self.chainrule_version = receipt.chainrule_version
        found: dict[int, Recomputed] = {one.index: one.logprobs for one in receipt.candidates}
        failed = answer.compact.failed
        if failed is not None:
            rows = zip(failed.index, failed.code, failed.message, strict=True)
            found |= {index: self._unscored(message, code) for index, code, message in rows}
        if not found.keys() >= set(range(count)):
            raise InvalidResponse("the server has left out a candidate")
        return [found[index] for index in range(count)]

    def _unscored(self, message: str, code: str | None) -> Unscored:
        # The index is that of a part, which nobody has seen.
        match = _PLACE.match(message)
        words = message if match is None else message[match.end() :]
        # Of its own fingerprint's model a receipt names no token that it does not have.
        is_own = self._card.fingerprint == self._receipt.fingerprint
        return Unscored(words, is_at_fault=is_own and code == "token_id_out_of_range")


def _parts(candidates: Sequence[ReceiptCandidate], most: int) -> Iterator[list[ReceiptCandidate]]:
    part: list[ReceiptCandidate] = []
    tokens = 0
    for one in candidates:
        tokens += len(one.token_ids)
        if part and (len(part) == most or tokens > TOKENS_AT_ONCE):
            yield part
            part, tokens = [], len(one.token_ids)
        part.append(one)
    yield part
