"""The layers of a decoder as native operations, for a number of rows.

Two scratch tensors serve all layers: ``wide`` takes what the products of queries, keys and values
and of gate and up give, ``narrow`` what goes into a product. So what a row takes does not depend on
how many layers there are. In float32 all of it is one list, of which a call runs many layers; in
bfloat16 torch computes the products between the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model_runtime.decoder.description import Norm
from model_runtime.decoder.weights import BFloat16Linear, NativeLinear, PackedLayer
from model_runtime.kv_cache.storage import KVStorage
from model_runtime.native.kernels import (
    add_rows,
    attend,
    gated,
    layer_norm,
    product,
    rms_norm,
    rotate_and_store,
    set_key_spans,
)
from model_runtime.native.library import Operation, Program

WORK_A_CALL = 1 << 34
"""Multiply-adds in one call of the library: a tenth of a second or so on two cores. Behind each
call others may have the interpreter, and a watchdog sees progress."""


@dataclass(frozen=True, slots=True)
class TorchProduct:
    """y = linear(x), by torch's kernels."""

    x: Tensor
    linear: BFloat16Linear
    y: Tensor

    def run(self, rows: int) -> None:
        """Of the first ``rows`` rows."""
        self.y[:rows] = self.linear.linear(self.x[:rows])


Step = Operation | TorchProduct


class LayerOperations:
    """All layers over up to ``capacity`` rows, laid out once for any number of batches.

    Attributes:
        x: [capacity, hidden] the residual: embeddings before, what the layers make of them after.
        slots: [capacity] int64, where keys and values are written.
        bad: [capacity] uint8, set where keys or values of a row are not finite.
        angles: cosines and sines of each angle table, [capacity, width] each.
    """

    def __init__(
        self,
        layers: Sequence[PackedLayer],
        widths: Sequence[int],
        storage: KVStorage,
        capacity: int,
        hidden: int,
    ) -> None:
        """Lay out.

        Args:
            layers: of the decoder, in their order.
            widths: rotated columns, of each angle table.
            storage: of keys and values.
            capacity: rows of a batch at most.
            hidden: columns of the residual.
        """
        self.capacity = capacity
        self.x = torch.zeros(capacity, hidden)
        self.slots = torch.zeros(capacity, dtype=torch.int64)
        self.bad = torch.zeros(capacity, dtype=torch.uint8)
        self.angles = [(torch.zeros(capacity, w), torch.zeros(capacity, w)) for w in widths]
        self._storage = storage
        self._delta = torch.zeros(capacity, hidden)
        self._mlp_delta = torch.zeros(capacity if _any_parallel(layers) else 0, hidden)
        self._wide = torch.zeros(capacity * max(max(x.qkv.outputs, x.up.outputs) for x in layers))
        inputs = (max(hidden, x.output.inputs, x.down.inputs) for x in layers)
        self._narrow = torch.zeros(capacity * max(inputs))
        self._pending: Tensor | None = None
        self._attention: list[Operation] = []
        self._layers = [list(self._layer(index, layer)) for index, layer in enumerate(layers)]
        self._layers[-1] += self._settle()
        self._work = max(layer.multiply_adds for layer in layers)
        steps = (step for layer in self._layers for step in layer)
        self._program = Program([step for step in steps if isinstance(step, Operation)])

    def run(self, rows: int, spans: Tensor, slots: Tensor, progress: Callable[[], None]) -> None:
        """Run all layers over the first ``rows`` rows.

        Args:
            rows: of the batch.
            spans, slots: the keys of each row; see ``key_spans``.
            progress: called between two calls of the library.
        """
        for operation in self._attention:
            set_key_spans(operation, slots, spans)
        self._program.set_rows(rows)
        first = stop = work = 0  # native operations from ``first`` on have yet to run
        for layer in self._layers:
            if work >= WORK_A_CALL:
                progress()
                self._program.run(first, stop)
                first, work = stop, 0
            work += self._work * rows
            for step in layer:
                if isinstance(step, Operation):
                    stop += 1
                else:
                    self._program.run(first, stop)
                    step.run(rows)
                    first = stop
        progress()
        self._program.run(first, stop)

    def _layer(self, index: int, layer: PackedLayer) -> Iterator[Step]:
        before, behind, before_mlp, behind_mlp = layer.norms
        qkv = self._view(self._wide, layer.qkv.outputs)
        yield from self._product_of_x(before, layer.qkv, qkv)
        yield from self._attend(index, layer, qkv)
        attended = self._view(self._narrow, layer.output.inputs)
        yield linear_product(attended, layer.output, self._delta)
        if behind is not None:
            yield norm_rows(self._delta, behind, self._delta)
        if layer.parallel:
            yield from self._mlp(layer, before_mlp, self._mlp_delta)
            yield add_rows(self.x, self._delta)
            self._pending = self._mlp_delta
        else:
            self._pending = self._delta
            yield from self._mlp(layer, before_mlp, self._delta)
            self._pending = self._delta
        if behind_mlp is not None:
            yield norm_rows(self._pending, behind_mlp, self._pending)

    def _attend(self, index: int, layer: PackedLayer, qkv: Tensor) -> Iterator[Operation]:
        attention = layer.attention
        queries = attention.heads * attention.head_dim
        keys = attention.kv_heads * attention.head_dim
        norms = attention.norms
        by_head = norms if norms is not None and norms.scope == "head" else None
        if norms is not None and by_head is None:
            query, key = qkv[:, :queries], qkv[:, queries : queries + keys]
            yield norm_rows(query, norms.query, query)
            yield norm_rows(key, norms.key, key)
        cosine, sine = (None, None) if layer.rotation is None else self.angles[layer.rotation]
        stored_keys, stored_values = self._storage.of_layer(index)
        yield rotate_and_store(
            qkv,
            cosine,
            sine,
            self.slots,
            stored_keys,
            stored_values,
            query_norm=None if by_head is None else by_head.query.weight,
            key_norm=None if by_head is None else by_head.key.weight,
            epsilon=0.0 if by_head is None else by_head.query.epsilon,
            bad=self.bad,
        )
        operation = attend(
            qkv[:, :queries],
            stored_keys,
            stored_values,
            torch.zeros(1, dtype=torch.int64),
            torch.tensor([[0, 1, 0, 0]]).repeat(self.capacity, 1),
            self._view(self._narrow, layer.output.inputs),
            scaling=attention.scaling,
            window=attention.window,
            softcap=attention.softcap,
        )
        self._attention.append(operation)
        yield operation

    def _mlp(self, layer: PackedLayer, before: Norm | None, y: Tensor) -> Iterator[Step]:
        """y = mlp(before(x)), after what is pending was added to x."""
        up = self._view(self._wide, layer.up.outputs)
        yield from self._product_of_x(before, layer.up, up)
        inner = layer.down.inputs
        activated = self._view(self._narrow, inner)
        gate, factor = (up[:, :inner], up[:, inner:]) if layer.gated else (up, None)
        yield gated(gate, factor, layer.activation, activated)
        yield linear_product(activated, layer.down, y)

    def _product_of_x(
        self, norm: Norm | None, linear: NativeLinear | BFloat16Linear, y: Tensor
    ) -> Iterator[Step]:
        """y = linear(norm(x)), after what is pending was added to x."""
        if norm is None:
            yield from self._settle()
            yield linear_product(self.x, linear, y)
            return
        normed = self._view(self._narrow, self.x.shape[1])
        yield norm_rows(self.x, norm, normed, self._pending)
        self._pending = None
        yield linear_product(normed, linear, y)

    def _settle(self) -> Iterator[Operation]:
        """Add to x what a sublayer has left to be added."""
        if self._pending is not None:
            yield add_rows(self.x, self._pending)
        self._pending = None

    def _view(self, scratch: Tensor, width: int) -> Tensor:
        return scratch[: self.capacity * width].view(self.capacity, width)


def _any_parallel(layers: Sequence[PackedLayer]) -> bool:
    return any(layer.parallel for layer in layers)


def linear_product(
    x: Tensor, linear: NativeLinear | BFloat16Linear, y: Tensor
) -> Operation | TorchProduct:
    """y = linear(x)."""
    if isinstance(linear, BFloat16Linear):
        return TorchProduct(x, linear, y)
    return native_product(x, linear, y)


def native_product(x: Tensor, linear: NativeLinear, y: Tensor) -> Operation:
    """y = linear(x) in float32."""
    return product(x, linear.weight, linear.bias, y)


def norm_rows(x: Tensor, norm: Norm, y: Tensor, add: Tensor | None = None) -> Operation:
    """y = norm(x), which may be x itself; before that x += add."""
    if norm.centred:
        return layer_norm(x, norm.weight, norm.bias, norm.epsilon, y, add=add)
    return rms_norm(x, norm.weight, norm.epsilon, y, add=add)
