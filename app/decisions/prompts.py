"""The prompt of a question: what the model reads before the options are scored.

The input comes first, so that it is computed once for all questions; the options come last, so
that a question shown in several orders costs its listing again and nothing else::

    OPENING  input  CLOSING | what is asked |  option |  option | the answer's turn | option | end
    └── the same for all ──┘└ for a question ┘└─────── for an order of it ────────┘

With a chat template the whole is one message of the user, and an option is what the assistant
says, closed by any of the model's end tokens. Without one it is plain text: ``Answer:``, the
option behind a space, and a line break. Each stretch between the bars is tokenized by itself, so
nothing that follows can change the tokens before it; the texts are cut where tokenizers cut.

Control tokens are the template's own alone: those that an input or a question spells stay text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from uuid import uuid4

from app.decisions.orders import Order
from app.decisions.question import Option, Question
from model_runtime import InvalidQuery, ModelInfo, Tokenizer

OPENING: Final = "Read this input and answer the question behind it.\n\n"
CLOSING: Final = "\n\nThat is the end of the input.\n"
STATEMENT: Final = "Statement: {instructions}\n"
QUESTION: Final = "Question: {instructions}\n"
ASKED: Final = {
    "predicate": "Is this true of the input? Answer with one of these, word for word:\n",
    "choice": "Which of these is the answer? Answer with one of them, word for word:\n",
    "score": "Which of these levels is it? Answer with one of them, word for word.\n",
}
RISING: Final = "From the lowest to the highest:\n"
FALLING: Final = "From the highest to the lowest:\n"
OPTION: Final = " {text}"
DESCRIBED: Final = " {text}: {description}"
BETWEEN: Final = "\n"
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


def question_text(question: Question) -> str:
    """What is asked, in the words of whoever asks it and in ours; the options follow."""
    form = STATEMENT if question.kind == "predicate" else QUESTION
    if question.instructions is None:
        return ASKED[question.kind]
    return form.replace("{instructions}", question.instructions) + ASKED[question.kind]


def direction_text(question: Question, order: Order) -> str:
    """What is said of the order in which the options follow: of a scale, where it begins."""
    if question.kind != "score":
        return ""
    return RISING if order[0] <= order[-1] else FALLING


def option_lines(option: Option) -> tuple[str, str]:
    """An option as it is listed: above another one, and as the last."""
    form = OPTION if option.description is None else DESCRIBED
    line = form.format(text=option.text, description=option.description)
    return line + BETWEEN, line
