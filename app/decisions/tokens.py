"""The texts of questions in token ids, each stretch by itself and each text once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from unicodedata import normalize

from app.decisions.orders import Order
from app.decisions.prompts import ChatFrame, direction_text, option_lines, question_text
from app.decisions.question import Question
from app.requests.encoding import encode_in_chunks
from app.requests.worker_threads import check_wanted
from model_runtime import InvalidQuery, Tokenizer

Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class QuestionTokens:
    """One question.

    Attributes:
        asked: what is asked; the listing follows.
        lines: [options] the line of each in the listing: above another one, and as the last.
        directions: [orders] what is said of each order in front of its listing.
        options: [options] what is scored, without the end that ``targets`` ask for.
    """

    asked: Ids
    lines: tuple[tuple[Ids, Ids], ...]
    directions: tuple[Ids, ...]
    options: tuple[Ids, ...]

    def listing(self, place: int, order: Order) -> Ids:
        """The options in this order, the one with this place among all orders."""
        listed = list(self.directions[place])
        for index in order[:-1]:
            listed += self.lines[index][0]
        return (*listed, *self.lines[order[-1]][1])

    def listing_tokens(self, place: int, order: Order) -> int:
        """How long that is."""
        last = self.lines[order[-1]][1]
        above = sum(len(self.lines[index][0]) for index in order[:-1])
        return len(self.directions[place]) + above + len(last)


def encode_questions(
    tokenizer: Tokenizer,
    turn: ChatFrame,
    questions: Sequence[Question],
    orders: Sequence[Sequence[Order]],
) -> list[QuestionTokens]:
    """Each question with the ``orders`` in which its options are shown.

    Raises:
        Abandoned: whoever waited for it has left, or its time is over.
        InvalidQuery: a text cannot be told in tokens, or two options of a question cannot be told
            apart; it names the question.
    """
    texts: dict[str, Ids] = {}
    for question, those in zip(questions, orders, strict=True):
        check_wanted()
        own = _texts(turn, question, those)
        for text in own:
            if text not in texts:
                tokenizer.check_text(text, question.param)
        texts.update(dict.fromkeys(own, ()))
    encoded = encode_in_chunks(tokenizer, list(texts))
    texts.update(zip(texts, map(tuple, encoded), strict=True))
    return [_tokens(texts, turn, *one) for one in zip(questions, orders, strict=True)]


def _texts(turn: ChatFrame, question: Question, orders: Sequence[Order]) -> list[str]:
    lines = [text for option in question.options for text in option_lines(option)]
    directions = [direction_text(question, order) for order in orders]
    options = [turn.option_prefix + option.text for option in question.options]
    return [question_text(question), *directions, *lines, *options]


def _tokens(
    ids: dict[str, Ids], turn: ChatFrame, question: Question, orders: Sequence[Order]
) -> QuestionTokens:
    lines = [option_lines(option) for option in question.options]
    options = [
        ids[turn.option_prefix + option.text] + turn.option_suffix for option in question.options
    ]
    _require_distinct(question, options)
    return QuestionTokens(
        asked=ids[question_text(question)],
        lines=tuple((ids[above], ids[last]) for above, last in lines),
        directions=tuple(ids[direction_text(question, order)] for order in orders),
        options=tuple(options),
    )


def _require_distinct(question: Question, options: Sequence[Ids]) -> None:
    """No two look alike: in another Unicode form, with other spaces around, to this model."""
    read: dict[str, int] = {}
    spelled: dict[Ids, int] = {}
    for index, (option, ids) in enumerate(zip(question.options, options, strict=True)):
        text = normalize("NFC", option.text).strip()
        first = min(read.setdefault(text, index), spelled.setdefault(ids, index))
        if first != index:
            raise InvalidQuery(f"options {first} and {index} cannot be told apart", question.param)
