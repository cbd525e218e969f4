"""The receipts of the parts of one list, put together as the receipt of the whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from app.client.errors import InvalidResponse
from app.client.split.parts import Key, Part
from app.schemas.receipt import Receipt, ReceiptCandidate
from app.schemas.score_response import ScoreResponse


def merged_receipt(
    keys: Sequence[Key], found: Sequence[tuple[Part, ScoreResponse]]
) -> Receipt | None:
    """The receipt of the whole list; None where none was asked for.

    Args:
        keys: the candidates of the whole list.
        found: each part with its answer, all from the same start.

    Raises:
        InvalidResponse: a part has none, or one of other paths than the first.
    """
    first = found[0][1].receipt
    if first is None:
        return None
    scored: dict[Key, ReceiptCandidate] = {}
    for part, answer in found:
        receipt = answer.receipt
        if receipt is None or _heading(receipt) != _heading(first):
            raise InvalidResponse("parts of one list came with receipts that do not go together")
        for one in receipt.candidates:
            if part.keys[one.index] in part.owned:
                scored[part.keys[one.index]] = one
    places = [index for index, key in enumerate(keys) if key in scored]
    return first.model_copy(
        update={
            "candidates": [
                scored[keys[index]].model_copy(update={"index": index}) for index in places
            ],
            "left_out": [index for index, key in enumerate(keys) if key not in scored],
        }
    )


def _heading(receipt: Receipt) -> Mapping[str, object]:
    """What the receipts of all parts have in common."""
    return receipt.model_copy(update={"candidates": [], "left_out": []}).model_dump()
