"""A folder's recipe, ready to be followed: template, labels, activation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from app.compat.rerank.activation import Activation
from app.compat.rerank.recipe.chat_prompt import (
    Render,
    SlotTexts,
    infer_format,
    messages_of,
    names_roles,
    read_chat_prompt,
)
from app.compat.rerank.recipe.errors import RecipeError
from app.compat.rerank.recipe.folder import (
    CONFIG,
    MODULES,
    FolderRecipe,
    LabelIds,
    conventional,
    describe_modules,
    is_causal_lm,
    read_modules,
)
from app.compat.rerank.recipe.json_file import JsonObject, read_json
from app.compat.rerank.recipe.ranking_model import is_called_reranker
from app.compat.rerank.recipe.transformer_config import TransformerConfig
from app.compat.rerank.template_tokens import encode_segments, segments_of
from app.compat.rerank.templates import Slot, Template
from app.environment import env_name
from model_runtime import InvalidQuery, ModelInfo, Tokenizer

YES, NO = "yes", "no"
"""Tokens of the convention, as a vocabulary writes them."""

_SAMPLES: Final[tuple[SlotTexts, ...]] = (
    {Slot.INSTRUCTION: "Find it.", Slot.QUERY: "Where is it?", Slot.DOCUMENT: "It is here.\n"},
    {Slot.INSTRUCTION: " a", Slot.QUERY: " 12", Slot.DOCUMENT: " \n b"},
)


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the model's own folder has a document ranked.

    Attributes:
        source: the file that says so, or ``convention``.
        plain: the template without an instruction.
        instructed: the one with; None where the prompt shows none.
        instruction: what a request gets that brings none; empty for none.
        prompts: all of them by name; requests write the text.
        labels: the tokens whose logits count.
        activation: makes a score of the logit, or of the difference of both.
        max_tokens: of a prompt; None for the model's own limit.
        warnings: what was left aside, a line each.
    """

    source: str
    plain: Template
    instructed: Template | None
    instruction: str
    prompts: Mapping[str, str]
    labels: LabelIds
    activation: Activation
    max_tokens: int | None
    warnings: tuple[str, ...] = ()

    def template(self, instruction: str) -> Template:
        """The one that an instruction is put into, where there is one and it is shown."""
        return self.instructed if instruction and self.instructed else self.plain

    @property
    def label_ids(self) -> tuple[int, ...]:
        """One or two."""
        false_id = self.labels.false_id
        return (self.labels.true_id, *(() if false_id is None else (false_id,)))


@dataclass(frozen=True, slots=True)
class Found:
    """What there is in a folder.

    Attributes:
        recipe: None where it has none.
        notes: what whoever serves it may not have meant, a line each.
    """

    recipe: Recipe | None
    notes: tuple[str, ...] = ()


def find_recipe(info: ModelInfo, tokenizer: Tokenizer, *, required: bool) -> Found:
    """The recipe of a model that is loaded.

    Args:
        info: of it; its folder is read.
        tokenizer: the same's.
        required: follow the convention for any causal language model. Otherwise it is followed
            where the chat template speaks of queries and documents.

    Raises:
        RecipeError: there is none where one is required, or it cannot be followed.
    """
    folder = Path(info.folder)
    if not info.folder or not (folder / CONFIG).is_file():
        if required:
            raise RecipeError("the model has no folder")
        return Found(None)
    if (folder / MODULES).is_file():
        found = _by_modules(folder, info, tokenizer)
        if required and found.recipe is None:
            raise RecipeError("; ".join(found.notes))
        return found
    if required:
        return _by_convention(folder, tokenizer)
    if not names_roles(tokenizer.chat_template):
        return Found(None, _unasked_convention(folder, info, tokenizer))
    try:
        return _by_convention(folder, tokenizer)
    except RecipeError as error:
        return Found(None, (f"no recipe for rerank, though the chat template has one: {error}",))


def _unasked_convention(folder: Path, info: ModelInfo, tokenizer: Tokenizer) -> tuple[str, ...]:
    """A note, where the model calls itself a reranker and the convention could be followed."""
    if not is_called_reranker(folder, info.name):
        return ()
    try:
        _by_convention(folder, tokenizer)
    except RecipeError:
        return ()
    return (
        "the model is called a reranker and its folder has no recipe for rerank: rerank has the "
        f"query's likelihood; {env_name('rerank_mode')}=recipe (--rerank-mode recipe) compares the "
        f"tokens {YES} and {NO}",
    )


def _by_modules(folder: Path, info: ModelInfo, tokenizer: Tokenizer) -> Found:
    said = read_modules(folder, info.vocab_size)
    if said is not None:
        return _built(MODULES, said, folder, tokenizer)
    kinds = describe_modules(folder)
    note = f"{MODULES} is of no reranker ({kinds}): rerank has the query's likelihood"
    return Found(None, (note,))


def _by_convention(folder: Path, tokenizer: Tokenizer) -> Found:
    if not is_causal_lm(folder):
        raise RecipeError(f"{CONFIG}: architectures names no *ForCausalLM")
    return _built("convention", conventional(folder), folder, tokenizer)


def _built(source: str, said: FolderRecipe, folder: Path, tokenizer: Tokenizer) -> Found:
    put = said.transformer
    by_convention = said.labels is None
    template = tokenizer.chat_template or tokenizer.chat_template_names
    if put.messages is None or (by_convention and not template):
        plain = _pair_template(tokenizer, instructed=False)
        instructed: Template | None = _pair_template(tokenizer, instructed=True)
    else:
        plain, instructed = _chat_templates(put, folder, tokenizer)
    notes = list(said.warnings)
    if said.prompt and instructed is None:
        notes.append("the default prompt is left aside: the chat template shows no system message")
    if "strftime_now" in (tokenizer.chat_template or ""):
        notes.append("the chat template tells the date: here that of the server's start")
    limit = None if put.unbounded else put.max_tokens or tokenizer.max_text_tokens
    recipe = Recipe(
        source,
        plain,
        instructed,
        said.prompt if instructed is not None else "",
        said.prompts,
        said.labels or _conventional_labels(tokenizer),
        said.activation,
        limit,
        tuple(notes),
    )
    return Found(recipe, recipe.warnings)


def _conventional_labels(tokenizer: Tokenizer) -> LabelIds:
    ids = [tokenizer.vocabulary_id(word) for word in (YES, NO)]
    if ids[0] is None or ids[1] is None:
        raise RecipeError(f"the vocabulary lacks the token {YES} or {NO}")
    return LabelIds(ids[0], ids[1])


def _pair_template(tokenizer: Tokenizer, *, instructed: bool) -> Template:
    """Both texts tokenized apart; an instruction stands before the query, in its text."""
    before, between, behind = tokenizer.pair_ids()
    first = (Slot.INSTRUCTION, Slot.QUERY) if instructed else (Slot.QUERY,)
    pieces = (before, *first, between, Slot.DOCUMENT, behind)
    return Template(pieces, takes_prefix=False)


def _chat_templates(
    put: TransformerConfig, folder: Path, tokenizer: Tokenizer
) -> tuple[Template, Template | None]:
    form = put.messages
    if form is None or form == "auto":
        model_type = JsonObject.of(CONFIG, read_json(folder, CONFIG)).text("model_type") or ""
        several = bool(tokenizer.chat_template_names)
        form = infer_format(tokenizer.chat_template, several, model_type)

    def render(texts: SlotTexts) -> str:
        try:
            return tokenizer.render_messages(messages_of(texts, form), **put.options)
        except InvalidQuery as error:
            raise RecipeError(error.reason) from error

    plain = read_chat_prompt(render, instructed=False)
    _check_tokens(plain, render, tokenizer)
    if not _shows_instruction(render):
        return plain, None
    instructed = read_chat_prompt(render, instructed=True)
    _check_tokens(instructed, render, tokenizer)
    return plain, instructed


def _shows_instruction(render: Render) -> bool:
    """Whether a system message reaches the prompt; False, too, where the template refuses it."""
    texts = {Slot.QUERY: "a", Slot.DOCUMENT: "b"}
    try:
        one, other = (render({**texts, Slot.INSTRUCTION: words}) for words in ("cd", "efg"))
    except RecipeError:
        return False
    if one == other and one != render(texts):
        raise RecipeError("the chat template changes with a system message that it does not show")
    return one != other


def _check_tokens(template: Template, render: Render, tokenizer: Tokenizer) -> None:
    """Refuse a template whose tokens are others here than those of the prompt read as a whole."""
    head, end = segments_of(tokenizer, template)
    for sample in _SAMPLES:
        texts = {slot: text for slot, text in sample.items() if slot in template.pieces}
        (ids,) = encode_segments(tokenizer, (*head, end), [template.put(texts)])
        if list(ids) != tokenizer.encode(render(texts), parse_special=True):
            raise RecipeError("the chat template's control tokens take texts beside them with them")
