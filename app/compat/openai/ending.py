"""How the messages of a chat end, as vLLM's two fields say it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic import ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from app.requests.chat import Ending, natural_ending
from app.schemas.conditions import OFF, Schema, absent_or, given, when
from app.schemas.request import Message, Request
from model_runtime import InvalidQuery


class ChatEnding(Request):
    """A request whose messages are closed, left open, or followed by the assistant's turn."""

    add_generation_prompt: bool | None = None
    """Open a turn of the assistant behind the messages. Null: yes, unless the last message is gone
    on from. true does not go with messages that end with the assistant's words, unless
    ``continue_final_message`` is false."""
    continue_final_message: bool | None = None
    """Leave the last message open and go on from it. Null: yes, where the assistant wrote it. Only
    false closes what the assistant said last."""

    conditions: ClassVar[tuple[Schema, ...]] = (
        when(
            given("continue_final_message", {"const": True}),
            absent_or(add_generation_prompt=OFF),
        ),
    )

    def ending(self, messages: Sequence[Message]) -> Ending:
        """How these messages end.

        Raises:
            InvalidQuery: a turn is to be opened behind the words of an assistant, and nothing says
                whether these are at an end.
        """
        prompted, goes_on = self.add_generation_prompt, self.continue_final_message
        if goes_on is None:
            goes_on = natural_ending(messages) == "open"
            if goes_on and prompted:
                raise InvalidQuery(
                    "the messages end with the assistant's words, and the answer would go on from "
                    "them; set continue_final_message to false to close them first",
                    "add_generation_prompt",
                )
        if goes_on:
            return "open"
        return "closed" if prompted is False else "reply"

    @field_validator("continue_final_message")
    @classmethod
    def _opens_no_turn(cls, value: bool | None, info: ValidationInfo) -> bool | None:
        if value and info.data.get("add_generation_prompt"):
            raise PydanticCustomError(
                "no_turn_behind", "Input goes without add_generation_prompt: that opens a turn"
            )
        return value
