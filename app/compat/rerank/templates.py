"""How a query and a document become one prompt: templates, the built-in ones among them.

A template is text with ``{query}``, ``{document}`` and, if it likes, ``{instruction}``; braces of
its own are doubled. What is filled in stays text, whatever it spells; only the template's own
control tokens count as such. Computed tokens are shared up to where two prompts part, so what
many of them have in common stands first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from string import Formatter
from typing import Final, Literal

Mode = Literal["query_likelihood", "yes_no", "recipe"]


class Slot(StrEnum):
    """What is filled into a template."""

    QUERY = "query"
    DOCUMENT = "document"
    INSTRUCTION = "instruction"


Ids = tuple[int, ...]


class TemplateError(ValueError):
    """A template that cannot be filled. The message is one sentence."""


@dataclass(frozen=True, slots=True)
class Template:
    """Literal texts and slots, in order.

    Attributes:
        pieces: a ``Slot``, text that is the template's own, or tokens; texts do not merge across
            tokens, be they none.
        trimmed: slots that are filled in without the white space at their ends.
        takes_prefix: what the tokenizer's own rule puts before a text goes first.
    """

    pieces: tuple[str | Slot | Ids, ...]
    trimmed: frozenset[Slot] = frozenset()
    takes_prefix: bool = True

    @classmethod
    def parse(cls, text: str, mode: Mode) -> Template:
        """The template that ``text`` spells.

        Raises:
            TemplateError: a placeholder is missing, unknown or there twice, a brace is left
                open, or text follows the query whose likelihood is the score.
        """
        pieces = tuple(_pieces(text))
        slots = [piece for piece in pieces if isinstance(piece, Slot)]
        for slot in Slot:
            if slots.count(slot) > 1:
                raise TemplateError(f"{{{slot}}} stands there twice")
        for slot in (Slot.QUERY, Slot.DOCUMENT):
            if slot not in slots:
                raise TemplateError(f"there is no {{{slot}}} in it")
        if mode == "query_likelihood" and pieces[-1] is not Slot.QUERY:
            raise TemplateError("a template of query_likelihood must end with {query}")
        return cls(pieces)

    @property
    def takes_instruction(self) -> bool:
        """Whether there is a place for one."""
        return Slot.INSTRUCTION in self.pieces

    def put(self, texts: Mapping[Slot, str]) -> dict[Slot, str]:
        """These texts as they are put into their slots."""
        return {s: text.strip() if s in self.trimmed else text for s, text in texts.items()}

    @property
    def texts(self) -> tuple[str, ...]:
        """The template's own."""
        return tuple(p for p in self.pieces if isinstance(p, str) and not isinstance(p, Slot))


@dataclass(frozen=True, slots=True)
class BuiltinTemplate:
    """A template that comes with the server.

    Attributes:
        mode: what it is for.
        text: as ``Template.parse`` reads it.
        instruction: what fills its slot where nobody says otherwise.
        labels: the tokens that stand for yes and no behind it; None for ``query_likelihood``.
        control: control tokens that the model must have.
    """

    mode: Mode
    text: str
    instruction: str
    labels: tuple[str, str] | None = None
    control: tuple[str, ...] = ()


BUILTIN: Final[dict[str, BuiltinTemplate]] = {
    "query-likelihood": BuiltinTemplate(
        "query_likelihood",
        "{instruction}\n\nPassage: {document}\nQuery: {query}",
        "A passage, and a search query that it answers.",
    ),
    # As the model card of Qwen3-Reranker gives it: the model was trained on these very words.
    "qwen3-reranker": BuiltinTemplate(
        "yes_no",
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query "
        'and the Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n'
        "<|im_start|>user\n<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}"
        "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
        "Given a web search query, retrieve relevant passages that answer the query",
        ("yes", "no"),
        ("<|im_start|>", "<|im_end|>"),
    ),
    "plain-yes-no": BuiltinTemplate(
        "yes_no",
        "{instruction}\n\nQuery: {query}\nPassage: {document}\nAnswer:",
        "Does the passage answer the query? Answer yes or no.",
        (" yes", " no"),
    ),
}
"""By name. The first of each mode is its default."""


def default_name(mode: Mode) -> str:
    """The built-in template of a mode other than ``recipe`` where no other is named."""
    return next(name for name, builtin in BUILTIN.items() if builtin.mode == mode)


def _pieces(text: str) -> Iterator[str | Slot]:
    try:
        parsed = list(Formatter().parse(text))
    except ValueError:
        raise TemplateError("a brace is left alone; one of its own is doubled, {{ or }}") from None
    for literal, name, form, conversion in parsed:
        if literal:
            yield literal
        if name is None:
            continue
        if form or conversion or name not in list(Slot):
            known = ", ".join(f"{{{slot}}}" for slot in Slot)
            raise TemplateError(f"{{{name[:40]}}} is no placeholder; there are {known}")
        yield Slot(name)
