"""The name of the way in which questions are put to a model.

It is a digest of whole prompts: questions of every type, asked about a sample input as they are of
any model, with a chat template and without. So it changes with the words, with where they stand,
with the orders of the options, and with where the text is cut before it is tokenized.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, cast

from app.decisions.plan import plan_decisions
from app.decisions.prompts import NO, YES
from app.decisions.question import Option, Question
from model_runtime import ModelInfo, Tokenizer

_CUT: Final = 0x110000
"""No character: it stands behind whatever is tokenized at once."""

_END: Final = _CUT + 1

_OPTIONS: Final = (Option("first"), Option("second", "what it means"), Option("third"))
_QUESTIONS: Final = (
    Question("predicate", "It is so.", (Option(YES), Option(NO)), "0"),
    Question("predicate", None, (Option(YES, "It is."), Option(NO)), "1"),
    Question("choice", "Which?", _OPTIONS, "2"),
    Question("choice", None, _OPTIONS[:1], "3"),
    Question("score", "How much?", _OPTIONS, "4"),
    Question("score", None, _OPTIONS[1:], "5"),
)

_INFO: Final = ModelInfo(
    name="",
    fingerprint="",
    architecture="",
    dtype="",
    device="",
    vocab_size=_END + 1,
    max_model_len=1 << 16,
    bos_token_id=None,
    end_token_ids=(_END,),
    parameters=0,
)


@dataclass(frozen=True, slots=True)
class _Characters:
    """A tokenizer whose tokens are characters, as far as a plan asks for one.

    Attributes:
        chat_template: None for a model that was never taught to chat.
    """

    chat_template: str | None

    def check_text(self, text: str, param: str | None = None) -> None:
        """There is a token for each character."""

    def with_prefix(self, ids: Sequence[int]) -> tuple[int, ...]:
        """Nothing stands before a text."""
        return tuple(ids)

    def encode(self, text: str, *, parse_special: bool = False) -> list[int]:
        """Its characters, and where it ends."""
        return [*map(ord, text), _CUT]

    def encode_batch(self, texts: Sequence[str], *, parse_special: bool = False) -> list[list[int]]:
        """Each by itself."""
        return [self.encode(text) for text in texts]

    def render_chat(self, messages: Sequence[dict[str, str]]) -> str:
        """Role and content of each."""
        turns = "".join(f"{one['role']}: {one['content']}\n" for one in messages)
        return f"{turns}assistant: "


def prompt_template() -> str:
    """The digest, twelve hexadecimal digits."""
    digest = sha256()
    for template in ("turns", None):
        tokenizer = cast(Tokenizer, _Characters(template))
        plan = plan_decisions("An input.", _QUESTIONS, "all", tokenizer, _INFO)
        for query in plan.queries:
            digest.update(repr((query.tokens, query.score_from, query.targets)).encode())
    return digest.hexdigest()[:12]


PROMPT_TEMPLATE: Final = prompt_template()
"""What was measured under one of them says nothing under another."""
