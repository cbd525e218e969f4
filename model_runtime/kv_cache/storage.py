"""The keys and values of cached tokens: a row of slots a layer. Slot 0 is padding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from model_runtime.errors import UnsupportedModel
from model_runtime.kernels.rows import RowIndex, read_rows, write_rows


@dataclass(frozen=True, slots=True)
class KVShape:
    """What one token's keys and values take: layers x [kv_heads, head_dim], twice."""

    layers: int
    kv_heads: int
    head_dim: int
    dtype: torch.dtype

    @classmethod
    def of(cls, config: Any, dtype: torch.dtype) -> KVShape:
        """Of the model that a transformers config describes."""
        heads = config.num_attention_heads
        return cls(
            layers=config.num_hidden_layers,
            kv_heads=getattr(config, "num_key_value_heads", None) or heads,
            head_dim=getattr(config, "head_dim", None) or config.hidden_size // heads,
            dtype=dtype,
        )

    @property
    def bytes_per_token(self) -> int:
        return 2 * self.layers * self.kv_heads * self.head_dim * self.dtype.itemsize

    def slots_within(self, kv_bytes: int) -> int:
        """Tokens whose keys and values fit.

        Raises:
            UnsupportedModel: they are fewer than two.
        """
        slots = kv_bytes // self.bytes_per_token
        if slots < 2:
            raise UnsupportedModel(
                f"a KV cache of {kv_bytes} bytes is too small: one token takes "
                f"{self.bytes_per_token}, and two are the least"
            )
        return slots


class KVStorage:
    """Per layer, keys and values of every slot: [slots, kv_heads, head_dim] each."""

    def __init__(self, shape: KVShape, slots: int, device: torch.device) -> None:
        size = (slots, shape.kv_heads, shape.head_dim)
        self.device = device
        self.slots = slots
        self._keys = [_empty(size, shape, device) for _ in range(shape.layers)]
        self._values = [_empty(size, shape, device) for _ in range(shape.layers)]

    def check(self, key: Tensor, value: Tensor) -> None:
        """Whether [kv_heads, N, head_dim] keys and values are of the shape that is stored.

        Raises:
            UnsupportedModel: the layers attend with other heads than the config states.
        """
        kept = self._keys[0].shape[1:]
        for tensor in (key, value):
            if (tensor.shape[0], tensor.shape[2]) != kept:
                heads, _, width = tensor.shape
                raise UnsupportedModel(
                    f"a layer has {heads} key or value heads of width {width}, "
                    f"where the config states {kept[0]} of {kept[1]}"
                )

    def write(
        self, layer: int, slots: RowIndex, key: Tensor, value: Tensor, bad: Tensor | None
    ) -> None:
        """Store [N, kv_heads, head_dim] keys and values at N slots, rounded to its precision.

        Of the tokens that are ``bad``, zeros are stored: see ``not_finite``.
        """
        if bad is not None:
            key, value = (part.masked_fill(bad.view(-1, 1, 1), 0.0) for part in (key, value))
        keys, values = self._keys[layer], self._values[layer]
        write_rows(keys, slots, key.to(keys.dtype))
        write_rows(values, slots, value.to(values.dtype))

    def of_layer(self, layer: int) -> tuple[Tensor, Tensor]:
        """Keys and values of all slots, [slots, kv_heads, head_dim] each, as they lie."""
        return self._keys[layer], self._values[layer]

    def read(self, layer: int, slots: RowIndex) -> tuple[Tensor, Tensor]:
        """Keys and values of N slots, [N, kv_heads, head_dim] each; not to be written to."""
        return read_rows(self._keys[layer], slots), read_rows(self._values[layer], slots)


def _empty(size: tuple[int, int, int], shape: KVShape, device: torch.device) -> Tensor:
    """Pages stay untouched until written. Slot 0 alone is read before that, and must be finite."""
    store = torch.empty(size, dtype=shape.dtype, device=device)
    store[0] = 0
    return store
