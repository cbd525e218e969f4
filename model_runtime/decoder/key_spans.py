"""Where the keys of a batch's rows lie, as the attention kernel takes it."""

from __future__ import annotations

from array import array

import torch
from torch import Tensor

from model_runtime.batching.batch import Batch


def key_spans(batch: Batch) -> tuple[Tensor, Tensor]:
    """Slots of all spans, [n] int64, and which of them each row sees, [N, 4] int64.

    A row sees of its suffix span the keys at or before its own position, and all of its prefix
    span: where the first lies in the slots and how many keys it has, then the same of the second.
    """
    slots = array("q")
    rows = array("q", bytes(32 * len(batch.token_ids)))
    for span in batch.suffix_spans:
        for part in span.rows:
            for row in part:
                rows[4 * row] = len(slots)
                rows[4 * row + 1] = batch.positions[row] - span.start + 1
        slots.extend(span.slots)
    for span in batch.prefix_spans:
        for part in span.rows:
            for row in part:
                rows[4 * row + 2] = len(slots)
                rows[4 * row + 3] = len(span.slots)
        slots.extend(span.slots)
    return (
        torch.frombuffer(slots, dtype=torch.int64),
        torch.frombuffer(rows, dtype=torch.int64).view(-1, 4),
    )
