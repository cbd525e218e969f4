"""``priority`` where another API has an integer of that name."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field

MAX_PRIORITY: Final = 2**63


def _named_priority(value: object) -> object:
    """vLLM's integers: 0, the default, and less are urgent, the others are not."""
    if type(value) is int and abs(value) <= MAX_PRIORITY:
        return "interactive" if value <= 0 else "bulk"
    return value


PriorityName = Literal["interactive", "bulk"]
PriorityNumber = Annotated[int, Field(ge=-MAX_PRIORITY, le=MAX_PRIORITY)]
Priority = Annotated[
    PriorityName,
    BeforeValidator(_named_priority, json_schema_input_type=PriorityName | PriorityNumber),
]
