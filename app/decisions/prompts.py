"""The prompt of a question: what the model reads before the options are scored.

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

from dataclasses import dataclass
from hashlib import sha256
from typing import Final
from uuid import uuid4

from app.decisions.orders import Order
from app.decisions.question import Option, Question
from model_runtime import InvalidQuery, ModelInfo, Tokenizer

OPENING: Final = "Read this input and answer the question behind it.\n\n"
CLOSING: Final = "\n\nThat is the end of the input.\n"
STATEMENT: Final = "Statement: {instructions}\n"
QUESTION: Final = "Question: {instructions}\n"
TRUTH: Final = "Is this true of the input?\n"
CHOICE: Final = "Which of these is the answer?\n"
RISING: Final = "Which level is it, from the lowest to the highest?\n"
FALLING: Final = "Which level is it, from the highest to the lowest?\n"
OPTION: Final = "- {text}\n"
DESCRIBED: Final = "- {text}: {description}\n"
ANSWER: Final = "Answer with one of these, word for word."
YES, NO = "yes", "no"

PLAIN_TURN: Final = "\nAnswer:"
PLAIN_OPTION: Final = " "
PLAIN_END: Final = "\n"

_WORDS = (
    *(OPENING, CLOSING, STATEMENT, QUESTION, TRUTH, CHOICE, RISING, FALLING, OPTION, DESCRIBED),
    *(ANSWER, YES, NO, PLAIN_TURN, PLAIN_OPTION, PLAIN_END),
)

PROMPT_TEMPLATE: Final = sha256("\0".join(_WORDS).encode()).hexdigest()[:12]
"""Digest of all fixed words: what was measured under one of them says nothing under another."""


@dataclass(frozen=True, slots=True)
class ChatFrame:
    """What stands around the user's message and around an option, in token ids.

    Attributes:
        before: what the message is behind.
        after: what is behind the message: the option follows.
        option_prefix: text that an option begins with.
        option_suffix: tokens that close an option.
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


def shared_text(input_text: str) -> str:
    """What all questions about an input have in common."""
    return OPENING + input_text + CLOSING


def question_text(question: Question, order: Order) -> str:
    """A question and its options, shown in this order."""
    lines = "".join(_line(question.options[index]) for index in order)
    return _asked(question) + _words(question, order) + lines + ANSWER


def _asked(question: Question) -> str:
    """What it asks, in the words of whoever asks it."""
    if question.instructions is None:
        return ""
    form = STATEMENT if question.kind == "predicate" else QUESTION
    return form.replace("{instructions}", question.instructions)


def _words(question: Question, order: Order) -> str:
    if question.kind == "predicate":
        return TRUTH
    if question.kind == "choice":
        return CHOICE
    return RISING if order[0] <= order[-1] else FALLING


def _line(option: Option) -> str:
    if option.description is None:
        return OPTION.format(text=option.text)
    return DESCRIBED.format(text=option.text, description=option.description)
