"""Noted calls, made again in their order with what went before as their arguments.

Values live in a list of places. A place is used again when what lay there is no longer asked
for, so a replay holds a few tensors at a time, as the code that was recorded did.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

Operator = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Value:
    """Something that is computed anew each time; ``number`` tells them apart."""

    number: int


@dataclass(frozen=True, slots=True)
class Call:
    """One call. An argument is a value, a tuple that holds some, or a constant."""

    operator: Operator
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Value


_Step = Callable[[list[Any]], None]


class Replay:
    """Calls that can be made again."""

    def __init__(self, calls: Sequence[Call], inputs: Sequence[Value], output: Value) -> None:
        """Lay out places for all values.

        Args:
            calls: in their order.
            inputs: values that are given, in the order that they are given in.
            output: the value that is asked for.
        """
        places, self._size = _places(calls, inputs, output)
        self._output = places[output]
        self._constants: list[Any] = []
        self._steps = [self._step(call, places) for call in calls]

    def __call__(self, *inputs: Any) -> Any:
        """Make all calls.

        Returns:
            What the output has become.
        """
        values = [*inputs, *[None] * (self._size - len(inputs)), *self._constants]
        for step in self._steps:
            step(values)
        return values[self._output]

    def _step(self, call: Call, places: dict[Value, int]) -> _Step:
        """Reads its arguments from their places and puts its result into its own."""
        operator, place = call.operator, places[call.output]
        args = tuple(self._address(part, places) for part in call.args)
        kwargs = {name: self._address(part, places) for name, part in call.kwargs.items()}
        if kwargs or any(isinstance(address, tuple) for address in args):
            return _nested_step(operator, args, kwargs, place)
        if len(args) == 1:
            return _unary_step(operator, args[0], place)
        arguments = itemgetter(*args)

        def step(values: list[Any]) -> None:
            values[place] = operator(*arguments(values))

        return step

    def _address(self, part: Any, places: dict[Value, int]) -> Any:
        """Where an argument will lie; of a tuple that holds values, where its parts will."""
        if isinstance(part, Value):
            return places[part]
        if isinstance(part, tuple) and _inside(part):
            return tuple(self._address(inner, places) for inner in part)
        self._constants.append(part)
        return self._size + len(self._constants) - 1


def _unary_step(operator: Operator, address: int, place: int) -> _Step:
    def step(values: list[Any]) -> None:
        values[place] = operator(values[address])

    return step


def _nested_step(
    operator: Operator, args: tuple[Any, ...], kwargs: dict[str, Any], place: int
) -> _Step:
    def fill(address: Any, values: list[Any]) -> Any:
        if isinstance(address, tuple):
            return [fill(inner, values) for inner in address]
        return values[address]

    def step(values: list[Any]) -> None:
        named = {name: fill(address, values) for name, address in kwargs.items()}
        values[place] = operator(*(fill(address, values) for address in args), **named)

    return step


def _places(
    calls: Sequence[Call], inputs: Sequence[Value], output: Value
) -> tuple[dict[Value, int], int]:
    """Where each value lies, and how many places there are; inputs keep theirs."""
    last = {value: i for i, call in enumerate(calls) for value in _values(call)}
    last[output] = len(calls)
    places = {value: place for place, value in enumerate(inputs)}
    size, free = len(inputs), []
    for i, call in enumerate(calls):
        ending = {value for value in _values(call) if last[value] == i} - set(inputs)
        free += [places[value] for value in sorted(ending, key=lambda value: value.number)]
        if not free:
            free.append(size)
            size += 1
        places[call.output] = free.pop()
        if last.get(call.output, -1) <= i:
            free.append(places[call.output])
    return places, size


def _values(call: Call) -> list[Value]:
    return _inside((*call.args, *call.kwargs.values()))


def _inside(parts: tuple[Any, ...]) -> list[Value]:
    """The values among arguments, at any depth."""
    found: list[Value] = []
    for part in parts:
        if isinstance(part, Value):
            found.append(part)
        elif isinstance(part, tuple):
            found += _inside(part)
    return found
