"""The prompt of POST /v1/decisions: what the model reads before the options are scored.

The input comes first, so that it is computed once for all questions::

    OPENING  input  CLOSING | question  options  ANSWER | the answer's turn | option | its end
    └── the same for all ──┘  └──── the question's own ────┘

With a chat template the whole is one message of the user, and an option is what the assistant
says, closed by any of the model's end tokens. Without one it is plain text: ``Answer:``, the
option behind a space, and a line break. Each stretch between the bars is tokenized by itself, so
nothing that follows can change the tokens before it; the texts are cut where tokenizers cut.

Control tokens are the template's own alone: those that an input or a question spells stay text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import uuid4

from app.compat.decisions.input import AnyPart, InputMessage
from app.compat.decisions.request import (
    ChoiceQuestion,
    DecisionRequest,
    PredicateQuestion,
    Question,
)
from model_runtime import InvalidQuery, ModelInfo, Tokenizer

OPENING: Final = "Read this input and answer the question behind it.\n\n"
CLOSING: Final = "\n\nThat is the end of the input.\n"
STATEMENT: Final = "Statement: {instructions}\nIs this true of the input?\n"
CHOICE: Final = "Question: {instructions}\nWhich of these is the answer?\n"
SCALE: Final = "Question: {instructions}\nWhich level is it, from the lowest to the highest?\n"
ANSWER: Final = "Answer with one of these, word for word."
YES, NO = "yes", "no"

PLAIN_TURN: Final = "\nAnswer:"
PLAIN_OPTION: Final = " "
PLAIN_END: Final = "\n"


@dataclass(frozen=True, slots=True)
class ChatFrame:
    """What stands around the user's message and around an option, in token ids.

    Attributes:
        before: what the message is behind.
        after: what is behind the message: the option follows.
        lead: text that an option begins with.
        closing: tokens that close an option.
        end_ids: ids one of which ends it, behind ``option_suffix``; None for no such token.
    """

    before: tuple[int, ...]
    after: tuple[int, ...]
    option_prefix: str
    option_suffix: tuple[int, ...]
    end_ids: tuple[int, ...] | None


def read_turn(tokenizer: Tokenizer, info: ModelInfo) -> ChatFrame:
    """The model's own chat template, or plain text where it has none.

    Raises:
        InvalidQuery: the template refuses a lone message of the user, or does not show it as it
            is; or a model with a template has no end token.
    """
    if tokenizer.chat_template is None:
        return _plain_turn(tokenizer)
    marker = uuid4().hex
    pieces = tokenizer.render_chat([{"role": "user", "content": marker}]).split(marker)
    if len(pieces) != 2:
        raise InvalidQuery("the chat template does not show the message exactly once", "input")
    if not info.end_token_ids:
        raise InvalidQuery("this model has no end token to close an option with", "model")
    before, after = (tuple(tokenizer.encode(piece, parse_special=True)) for piece in pieces)
    return ChatFrame(before, after, "", (), info.end_token_ids)


def _plain_turn(tokenizer: Tokenizer) -> ChatFrame:
    after = tuple(tokenizer.encode(PLAIN_TURN))
    return ChatFrame(
        tokenizer.with_prefix(()), after, PLAIN_OPTION, tuple(tokenizer.encode(PLAIN_END)), None
    )


def shared_text(request: DecisionRequest) -> str:
    """What all questions have in common. Messages are told apart by a line with their role."""
    if isinstance(request.input, str):
        return OPENING + request.input + CLOSING
    return OPENING + "\n\n".join(map(_message_text, request.input)) + CLOSING


def question_text(question: Question) -> str:
    """A question and its options."""
    form = CHOICE if isinstance(question, ChoiceQuestion) else SCALE
    if isinstance(question, PredicateQuestion):
        form = STATEMENT
    asked, rest = form.split("{instructions}")
    lines = [
        f"- {text}\n" if description is None else f"- {text}: {description}\n"
        for text, description in zip(option_texts(question), _descriptions(question), strict=True)
    ]
    return asked + _joined(question.instructions) + rest + "".join(lines) + ANSWER


def option_texts(question: Question) -> list[str]:
    """What the model would write for each option; no two are the same.

    Truth values are ``true`` and ``false``. Where a text is spelled alike, the texts of that
    question stand in quotation marks.
    """
    if isinstance(question, PredicateQuestion):
        return [YES, NO]
    if not isinstance(question, ChoiceQuestion):
        return [level.label for level in question.levels]
    values = [choice.value for choice in question.choices]
    texts = [value if isinstance(value, str) else str(value).lower() for value in values]
    if len(set(texts)) == len(texts):
        return texts
    return [
        f'"{text}"' if isinstance(value, str) else text
        for text, value in zip(texts, values, strict=True)
    ]


def _descriptions(question: Question) -> Sequence[str | None]:
    if isinstance(question, PredicateQuestion):
        return [None, None]
    options = question.choices if isinstance(question, ChoiceQuestion) else question.levels
    return [option.description for option in options]


def _message_text(message: InputMessage) -> str:
    phase = "" if message.phase is None else f", {message.phase}"
    return f"[{message.role}{phase}]\n{_joined(message.content)}"


def _joined(content: str | Sequence[AnyPart]) -> str:
    return content if isinstance(content, str) else "\n".join(part.text for part in content)
