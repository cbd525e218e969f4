"""A chat template over a query and a document, read as a template with slots.

It is rendered once with marks in place of the texts, and what comes out is cut at the marks. So
the template's own control tokens are told from what a document spells, and thousands of documents
need no rendering. Whether it treats other texts as it treated the marks is then tried with texts of
all kinds; one that does anything but put them in, or trim them, is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from app.compat.rerank.recipe.errors import RecipeError
from app.compat.rerank.recipe.transformer_config import MessageFormat
from app.compat.rerank.templates import Slot, Template

SlotTexts = Mapping[Slot, str]
Render = Callable[[SlotTexts], str]
"""The prompt with these texts in it; without an instruction where there is none among them."""

_MARKS: Final[dict[Slot, str]] = {slot: f"chainrule{slot.value}mark" for slot in Slot}
_ROLES: Final[dict[Slot, str]] = {
    Slot.INSTRUCTION: "system",
    Slot.QUERY: "query",
    Slot.DOCUMENT: "document",
}
_FLAT_MODELS: Final = frozenset({"apertus", "deepseek_v3", "gpt_oss", "seed_oss"})
_STRUCTURED: Final = ("content[0]", ".type", "'type'", '"type"', "message.content[")
"""What a template holds that reads a message's content as a list, as sentence-transformers tells
it."""

_TRIALS: Final = (
    "x",
    "Is this a query? yes",
    "one\ntwo\n\nthree\tfour",
    "{{ messages }} {% raw %} {# note #} {0}",
    "<b>&amp;</b> \"quoted\" 'text' \\ back",
    "\N{SNOWMAN} caf\N{LATIN SMALL LETTER E WITH ACUTE} \N{CJK UNIFIED IDEOGRAPH-6771}",
    "0",
    "none",
    "word " * 2000 + "end",
)


def messages_of(texts: SlotTexts, form: MessageFormat) -> list[dict[str, Any]]:
    """A message for each of the texts; the instruction is the system's."""
    return [
        {"role": _ROLES[slot], "content": _content(texts[slot], form)}
        for slot in _ROLES
        if slot in texts
    ]


def infer_format(template: str | None, several: bool, model_type: str) -> MessageFormat:
    """How messages hold their text where the folder does not say it.

    Args:
        template: the chat template.
        several: there is more than one, by name.
        model_type: the config's.
    """
    if model_type in _FLAT_MODELS:
        return "flat"
    if several or not template or any(sign in template for sign in _STRUCTURED):
        return "structured"
    return "flat"


def names_roles(template: str | None) -> bool:
    """Whether a chat template speaks of the roles of a query and of a document."""
    roles = (_ROLES[Slot.QUERY], _ROLES[Slot.DOCUMENT])
    return template is not None and all(
        f"'{role}'" in template or f'"{role}"' in template for role in roles
    )


def read_chat_prompt(render: Render, *, instructed: bool) -> Template:
    """The chat template as a template with slots.

    Args:
        render: renders it.
        instructed: with an instruction among its texts.

    Raises:
        RecipeError: the query or the document does not reach the prompt, or not as it is.
    """
    slots = [slot for slot in Slot if instructed or slot is not Slot.INSTRUCTION]
    marks = {slot: _MARKS[slot] for slot in slots}
    pieces = tuple(_cut_at_marks(render(marks)))
    for slot in (Slot.QUERY, Slot.DOCUMENT):
        if slot not in pieces:
            raise RecipeError(f"the chat template does not show a message of role {slot.value}")
    trimmed = frozenset(slot for slot in slots if _is_trimmed(render, pieces, marks, slot))
    template = Template(pieces, trimmed, takes_prefix=False)
    for texts in _trials(slots):
        if render(texts) != _filled(template, texts):
            raise RecipeError("the chat template changes texts that are put into it")
    return template


def _content(text: str, form: MessageFormat) -> Any:
    return text if form == "flat" else [{"type": "text", "text": text}]


def _cut_at_marks(rendered: str) -> Iterator[str | Slot]:
    by_mark = {mark: slot for slot, mark in _MARKS.items()}
    for part in re.split(f"({'|'.join(map(re.escape, by_mark))})", rendered):
        if part:
            yield by_mark.get(part, part)


def _is_trimmed(
    render: Render, pieces: tuple[str | Slot, ...], marks: SlotTexts, slot: Slot
) -> bool:
    texts = {**marks, slot: f" \n{marks[slot]}\t \n"}
    rendered = render(texts)
    for trimmed in (frozenset(), frozenset({slot})):
        if rendered == _filled(Template(pieces, trimmed), texts):
            return bool(trimmed)
    raise RecipeError(f"the chat template changes the white space of a {slot.value}")


def _trials(slots: list[Slot]) -> Iterator[dict[Slot, str]]:
    """Texts of all kinds in all slots; every two slots get different ones."""
    for start in range(len(_TRIALS)):
        yield {slot: _TRIALS[(start + 2 * i) % len(_TRIALS)] for i, slot in enumerate(slots)}
    yield {slot: "" if slot is Slot.DOCUMENT else "x" for slot in slots}


def _filled(template: Template, texts: SlotTexts) -> str:
    put = template.put(texts)
    return "".join(
        put[piece] if isinstance(piece, Slot) else str(piece) for piece in template.pieces
    )
