"""Fields of other APIs that are not served, and the values of theirs that ask for nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import BaseModel, BeforeValidator, Field, model_validator

from model_runtime import InvalidQuery

Neutral = Mapping[str, tuple[object, ...]]
"""Names of fields, with the values beside null that ask for nothing."""

SENT_BY_ROUTERS: Final[Neutral] = {
    "lora_path": (),
    "no_stop_trim": (False,),
    "return_hidden_states": (False,),
    "session_params": (),
    "skip_special_tokens": (True,),
}
"""What SGLang's router adds to any request that it passes on, with the values that it has where the
client said nothing."""
MAX_RID_CHARS: Final = 256


class UnsupportedFields(BaseModel):
    """Takes fields that are not served where they hold a value that asks for nothing.

    Null always does. A client that sends all its defaults is served, and one that means something
    by them is told which field it is.
    """

    noop_values: ClassVar[Neutral] = {}
    """What the API has, and its own defaults; beside them what routers add."""

    rid: Annotated[str, Field(max_length=MAX_RID_CHARS)] | None = None
    """A router's name for the request; without effect."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.noop_values = {**SENT_BY_ROUTERS, **cls.noop_values}

    @model_validator(mode="before")
    @classmethod
    def _without_what_asks_for_nothing(cls, body: Any) -> Any:
        """Raise ``InvalidQuery``, naming the field, for one that asks for something."""
        if not isinstance(body, dict) or cls.noop_values.keys().isdisjoint(body):
            return body
        for name in cls.noop_values.keys() & body.keys():
            if body[name] is not None and not _is_one_of(body[name], cls.noop_values[name]):
                raise InvalidQuery("this is not served here; leave it out", name)
        return {name: value for name, value in body.items() if name not in cls.noop_values}


def _is_one_of(value: object, neutral: tuple[object, ...]) -> bool:
    # True is 1 in Python, and no number here.
    is_flag = isinstance(value, bool)
    return any(value == one and is_flag == isinstance(one, bool) for one in neutral)


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
