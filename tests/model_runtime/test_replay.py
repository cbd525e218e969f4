"""Noted calls made again: the results of the calls themselves, in few places."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from model_runtime.replay import Call, Replay, Value

INPUTS = 2


def pair(*parts: object, last: object = None) -> tuple[object, ...]:
    """Keeps what it was given, so that a result shows every value that went into it."""
    return (*(tuple(part) if isinstance(part, list) else part for part in parts), last)


@st.composite
def call_lists(draw: st.DrawFn) -> list[Call]:
    """Calls of values before them, of constants, lists of both, and keywords."""
    calls: list[Call] = []
    for number in range(INPUTS, INPUTS + draw(st.integers(1, 20))):
        value = st.integers(0, number - 1).map(Value)
        part = st.one_of(value, st.text(max_size=2))
        args = draw(st.lists(st.one_of(part, st.tuples(part, value)), min_size=1, max_size=4))
        kwargs = draw(st.dictionaries(st.just("last"), part))
        calls.append(Call(pair, tuple(args), kwargs, Value(number)))
    return calls


def directly(calls: list[Call], *inputs: object) -> dict[Value, object]:
    known: dict[Value, Any] = {Value(i): given for i, given in enumerate(inputs)}

    def fill(part: Any) -> Any:
        if isinstance(part, tuple):
            return [fill(inner) for inner in part]
        return known[part] if isinstance(part, Value) else part

    for call in calls:
        kwargs = {name: fill(part) for name, part in call.kwargs.items()}
        known[call.output] = call.operator(*map(fill, call.args), **kwargs)
    return known


@given(calls=call_lists(), data=st.data())
def test_a_replay_gives_what_the_calls_give(calls: list[Call], data: st.DataObject) -> None:
    """For any calls and any asked value, twice, with other inputs."""
    output = data.draw(st.sampled_from([call.output for call in calls]))
    replay = Replay(calls, [Value(0), Value(1)], output)
    for inputs in (("a", "b"), ("c", "d")):
        assert replay(*inputs) == directly(calls, *inputs)[output]


def test_a_chain_takes_few_places() -> None:
    """What is no longer asked for makes room, so a replay holds no more than the code did."""
    calls = [Call(pair, (Value(i), "x"), {}, Value(i + 1)) for i in range(1, 500)]
    replay = Replay(calls, [Value(0), Value(1)], Value(500))
    assert replay._size <= 4
