"""A decoder's calls written down once, for one number of rows, and made again without its Python.

A step of a small model is some two thousand calls of which most only look at a tensor in another
shape, each found by a model class anew. Which calls are made follows from the number of rows::

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
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from model_runtime.attention.interface import Attention
from model_runtime.replay import Call, Operator, Replay, Value

_aten = torch.ops.aten
_UNRECORDED = frozenset(
    {
        _aten.allclose,
        _aten.equal,
        _aten.is_nonzero,
        _aten.item,
        _aten.narrow.Tensor,
        _aten.nonzero,
        _aten.one_hot,
        _aten.repeat_interleave.Tensor,
        _aten.repeat_interleave.self_Tensor,
        _aten.tensor_split.tensor_indices_or_sections,
    }
)
"""Calls whose result decides what Python does next, or a shape, and that torch does not tag so."""

_UNRECORDED_TAGS = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
_CHOOSING = {torch.bool, torch.uint8}
"""Types of indices that choose as many elements as they hold ones."""


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


class Recorded(NamedTuple):
    """What a run gave, and what makes its calls again; else why nothing can."""

    hidden: Tensor
    replay: Replay | None
    reason: str | None


def record(
    decode: Decode,
    token_ids: Tensor,
    positions: Tensor,
    attention: Attention,
    instead: Mapping[Operator, Operator],
) -> Recorded:
    """Run a decoder once, as always, and write down its calls.

    Args:
        token_ids, positions: contiguous from their storage's start, as those of every replay are.
        instead: what a recording calls in place of some operators; computes the same.
    """
    tape = _Tape(instead)
    inputs = [tape.track(token_ids), tape.track(positions), tape.new()]
    noted = _NotedAttention(attention, tape, inputs[2])
    with tape:
        hidden = decode(token_ids, positions, noted)
    output = tape.value_of(hidden)
    if tape.reason is not None or output is None:
        return Recorded(hidden, None, tape.reason or "its result is a constant")
    return Recorded(hidden, Replay(tape.calls, inputs, output), None)


class _Tape(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the calls that are dispatched while it is entered. Holds no tensor but constants.

    Attributes:
        calls: in their order.
        reason: why the calls cannot be made again; None where they can.
        resting: nothing is noted the while.
    """

    def __init__(self, instead: Mapping[Operator, Operator]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[Call] = []
        self.reason: str | None = None
        self.resting = False
        self._instead = instead
        self._count = 0
        self._owners: dict[int, tuple[Value, _Geometry]] = {}
        self._views: dict[tuple[Value, _Geometry], Value] = {}
        self._pins: list[object] = []

    def new(self) -> Value:
        self._count += 1
        return Value(self._count - 1)

    def track(self, tensor: Tensor) -> Value:
        """A value for a tensor that lies in a storage of its own from now on."""
        value = self.new()
        if tensor.layout is torch.strided:
            # A storage that is freed must not be taken for another one at the same address.
            self._pins.append(StorageWeakRef(tensor.untyped_storage()))  # type: ignore[no-untyped-call]
        else:
            self._pins.append(tensor)
        self._owners[_storage(tensor)] = value, _Geometry.of(tensor)
        return value

    def note(self, operator: Operator, args: tuple[Any, ...], output: Tensor) -> None:
        """A call that was not dispatched, and whose output is new."""
        noted = tuple(map(self._argument, args))
        self.calls.append(Call(operator, noted, {}, self.track(output)))

    def value_of(self, tensor: Tensor) -> Value | None:
        """The value that a tensor is; None for a constant."""
        value = self._argument(tensor)
        return value if isinstance(value, Value) else None

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> object:
        kwargs = kwargs or {}
        if self.resting or self.reason is not None:
            return func(*args, **kwargs)
        noted = tuple(map(self._argument, args))
        noted_kwargs = {name: self._argument(given) for name, given in kwargs.items()}
        known = {_storage(tensor): tensor.dtype for tensor in _tensors((args, kwargs))}
        output = func(*args, **kwargs)
        self.reason = _refusal(func, args, output, known)
        if self.reason is None and not _only_views(func, output, known):
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
    """Contiguous from its storage's start, since recorded views count from there."""
    output = attention.attend(*args).contiguous()
    return output if output.storage_offset() == 0 else output.clone()


def _refusal(
    func: Any, args: tuple[Any, ...], output: object, known: Mapping[int, torch.dtype]
) -> str | None:
    """Why a call cannot be made again for other tokens; None where it can."""
    chosen = func is _aten.index.Tensor and any(t.dtype in _CHOOSING for t in _tensors(args[1]))
    if chosen or {func, func.overloadpacket} & _UNRECORDED or _UNRECORDED_TAGS & set(func.tags):
        return f"{func} reads values back"
    outputs = list(_tensors(output))
    if not outputs and not func._schema.is_mutable:
        return f"{func} gives no tensor"
    if any(known.get(_storage(tensor), tensor.dtype) != tensor.dtype for tensor in outputs):
        return f"{func} looks at a tensor as one of another type"
    if not isinstance(output, Tensor) and not _only_views(func, output, known):
        return f"{func} gives several tensors, or none, and they are not all views"
    return None


def _only_views(func: Any, output: object, known: Mapping[int, torch.dtype]) -> bool:
    """Whether a call computes nothing."""
    return not func._schema.is_mutable and all(_storage(t) in known for t in _tensors(output))


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
