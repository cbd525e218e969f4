"""A decoder's forward over a batch, through the native kernels."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from model_runtime.batching.batch import Batch
from model_runtime.decoder.description import Decoder, Rotation
from model_runtime.decoder.key_spans import key_spans
from model_runtime.decoder.operations import LayerOperations
from model_runtime.decoder.rotary import AngleTable
from model_runtime.decoder.weights import Embedding, MakeLinear, PackedLayer
from model_runtime.kv_cache.storage import KVStorage

KEPT_ROWS = 128
"""Rows of a batch whose operations and scratch are kept for the next one: steps, short prompts."""


class NativeDecoder:
    """Embeddings and layers; the final norm belongs to the head."""

    def __init__(self, decoder: Decoder, storage: KVStorage, make_linear: MakeLinear) -> None:
        """Copy a decoder's weights, letting go of the module's own layer by layer."""
        self._storage = storage
        self._embedding = Embedding(decoder)
        self._hidden = decoder.embedding.shape[1]
        self._tables: dict[tuple[bytes, float], AngleTable] = {}
        self._layers = []
        for index in range(decoder.layer_count):
            layer = decoder.layer(index)
            self._layers.append(PackedLayer.of(layer, self._table_of(layer.rotation), make_linear))
            layer.release()
        self._kept = self._operations(KEPT_ROWS)

    @property
    def frequencies(self) -> bytes:
        """Of all rotary positions."""
        return repr(sorted(self._tables)).encode()

    def forward(self, batch: Batch, progress: Callable[[], None]) -> tuple[Tensor, Tensor | None]:
        """What the layers make of a batch.

        Returns:
            [N, hidden], good until the next forward, and [N] which tokens' keys or values were not
            finite in a layer; None where all are.
        """
        rows = len(batch.token_ids)
        operations = self._kept if rows <= KEPT_ROWS else self._operations(rows)
        token_ids = torch.tensor(batch.token_ids)
        positions = torch.tensor(batch.positions)
        self._embedding.write(operations.x[:rows], token_ids, positions)
        operations.slots[:rows] = torch.tensor(batch.slots)
        operations.bad.zero_()
        for table, kept in zip(self._tables.values(), operations.angles, strict=True):
            for angles, target in zip(table.of(positions), kept, strict=True):
                target[:rows] = angles
        slots, spans = key_spans(batch)
        operations.run(rows, spans, slots, progress)
        bad = operations.bad[:rows].bool()
        return operations.x[:rows], bad if bool(bad.any()) else None

    def _operations(self, rows: int) -> LayerOperations:
        widths = [table.width for table in self._tables.values()]
        return LayerOperations(self._layers, widths, self._storage, rows, self._hidden)

    def _table_of(self, rotation: Rotation | None) -> int | None:
        if rotation is None:
            return None
        key = rotation.inverse_frequencies.numpy().tobytes(), rotation.scaling
        self._tables.setdefault(key, AngleTable(rotation))
        return list(self._tables).index(key)
