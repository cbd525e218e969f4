"""A decoder's calls written down once, for one number of rows, and made again without its Python.

A step of a small model is some two thousand calls of which most only look at a tensor in another
shape, each found by a model class anew. What they compute from follows from the number of rows::

    the decoder's calls    mul(x, w) -> to(float32) -> slice -> view -> transpose -> mul(.., cos)
    recorded               mul(x, w) -> as_strided -> mul(.., cos)

The same kernels run on the same shapes and strides in the same order, so no bit differs.
Attention is not recorded: it is called where it was called, with the batch at hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from model_runtime.attention.interface import Attention
from model_runtime.replay import Call, Operator, Replay, Value

_READ_BACK = frozenset(
    {
        torch.ops.aten._local_scalar_dense,
        torch.ops.aten._unique2,
        torch.ops.aten.allclose,
        torch.ops.aten.equal,
        torch.ops.aten.is_nonzero,
        torch.ops.aten.item,
        torch.ops.aten.masked_select,
        torch.ops.aten.nonzero,
    }
)
"""Calls whose result decides what Python does next, or the shape of something."""


class NotRecordable(Exception):
    """What a decoder calls depends on more than the number of rows."""


class _Geometry(NamedTuple):
    """How a tensor lies in its storage."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int

    @classmethod
    def of(cls, tensor: Tensor) -> _Geometry:
        return cls(tuple(tensor.shape), tensor.stride(), int(tensor.storage_offset()))


Decode = Callable[[Tensor, Tensor, Attention], Tensor]
"""(token_ids [1, N], positions [1, N], attention) -> [N, hidden_size] final hidden states."""


def record(
    decode: Decode,
    token_ids: Tensor,
    positions: Tensor,
    attention: Attention,
    instead: Mapping[Operator, Operator],
) -> tuple[Replay, Tensor]:
    """Run a decoder and write down its calls.

    Args:
        decode: run once, as always.
        instead: what a recording calls in place of some operators; computes the same.

    Returns:
        What makes the calls again, and what the run gave.

    Raises:
        NotRecordable: the calls depend on what the tensors hold.
    """
    tape = _Tape(instead)
    inputs = [tape.track(token_ids), tape.track(positions), tape.new()]
    noted = _NotedAttention(attention, tape, inputs[2])
    with tape:
        hidden = decode(token_ids, positions, noted)
    return Replay(tape.calls, inputs, tape.value_of(hidden)), hidden


class _Tape(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the calls that are dispatched while it is entered. Holds no tensor but constants."""

    def __init__(self, instead: Mapping[Operator, Operator]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[Call] = []
        self.resting = False
        self._instead = instead
        self._count = 0
        self._owners: dict[int, tuple[Value, _Geometry]] = {}
        self._views: dict[tuple[Value, _Geometry], Value] = {}

    def new(self) -> Value:
        self._count += 1
        return Value(self._count - 1)

    def track(self, tensor: Tensor) -> Value:
        """A value for a tensor that lies in a storage of its own from now on."""
        value = self.new()
        self._owners[_storage(tensor)] = value, _Geometry.of(tensor)
        return value

    def note(self, operator: Operator, args: tuple[Any, ...], output: Tensor) -> None:
        """A call that was not dispatched, and whose output is new."""
        noted = tuple(map(self._argument, args))
        self.calls.append(Call(operator, noted, {}, self.track(output)))

    def value_of(self, tensor: Tensor) -> Value:
        value = self._argument(tensor)
        if not isinstance(value, Value):
            raise NotRecordable("the result is a constant")
        return value

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> object:
        kwargs = kwargs or {}
        if self.resting:
            return func(*args, **kwargs)
        if func.overloadpacket in _READ_BACK:
            raise NotRecordable(f"{func} reads values back")
        noted = tuple(map(self._argument, args))
        noted_kwargs = {name: self._argument(given) for name, given in kwargs.items()}
        known = {_storage(tensor): tensor.dtype for tensor in _tensors((args, kwargs))}
        output = func(*args, **kwargs)
        outputs = list(_tensors(output))
        if any(known.get(_storage(tensor), tensor.dtype) != tensor.dtype for tensor in outputs):
            raise NotRecordable(f"{func} looks at a tensor as one of another type")
        if func._schema.is_mutable or not all(_storage(tensor) in known for tensor in outputs):
            if not isinstance(output, Tensor):
                raise NotRecordable(f"{func} gives several tensors, which are not all views")
            value = self.new() if _storage(output) in known else self.track(output)
            operator = self._instead.get(func, func)
            self.calls.append(Call(operator, noted, noted_kwargs, value))
        return output

    def _argument(self, given: Any) -> Any:
        if isinstance(given, Tensor):
            owner = self._owners.get(_storage(given))
            return given if owner is None else self._view(*owner, given)
        if isinstance(given, (list, tuple)) and any(isinstance(part, Tensor) for part in given):
            return tuple(map(self._argument, given))
        return given

    def _view(self, value: Value, own: _Geometry, tensor: Tensor) -> Value:
        geometry = _Geometry.of(tensor)
        if geometry == own:
            return value
        view = self._views.get((value, geometry))
        if view is None:
            view = self._views[value, geometry] = self.new()
            self.calls.append(Call(torch.as_strided, (value, *geometry), {}, view))
        return view


class _NotedAttention:
    """The attention of the batch that is recorded; what it calls is not part of the recording."""

    def __init__(self, attention: Attention, tape: _Tape, value: Value) -> None:
        self._attention = attention
        self._tape = tape
        self._value = value

    @property
    def layers(self) -> set[int]:
        return self._attention.layers

    def attend(self, layer: int, *args: Any) -> Tensor:
        """As ``PathAttention.attend``."""
        self._tape.resting = True
        try:
            output = _attend(self._attention, layer, *args)
        finally:
            self._tape.resting = False
        self._tape.note(_attend, (self._value, layer, *args), output)
        return output


def _attend(attention: Attention, *args: Any) -> Tensor:
    """In the one layout that views of a recorded result are good for."""
    output = attention.attend(*args)
    return output.contiguous() if output.storage_offset() == 0 else output.clone()


def _storage(tensor: Tensor) -> int:
    """Which storage a tensor lies in; packed weights have none, but are one by one."""
    if tensor.layout is torch.strided:
        return int(tensor.untyped_storage()._cdata)
    return -id(tensor)


def _tensors(given: object) -> Iterator[Tensor]:
    """Every tensor in arguments or results, at any depth."""
    if isinstance(given, Tensor):
        yield given
    elif isinstance(given, (list, tuple)):
        for part in given:
            yield from _tensors(part)
    elif isinstance(given, dict):
        yield from _tensors(tuple(given.values()))
