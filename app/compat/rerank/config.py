"""What the operator set for reranking, and the prompt of a request that may say otherwise."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self

from app.compat.rerank.recipe.errors import RecipeError
from app.compat.rerank.recipe.folder import LabelIds
from app.compat.rerank.recipe.recipe import Recipe, find_recipe
from app.compat.rerank.request import PromptOptions
from app.compat.rerank.templates import BUILTIN, Mode, Template, TemplateError, default_name
from app.environment import env_name
from app.schemas.bounds import MAX_TEMPLATE_CHARS
from app.schemas.models import NamedPrompt, RerankCard
from app.settings import Settings, SettingsError, flag_name
from model_runtime import InvalidQuery, ModelInfo, Tokenizer, UnsupportedModel

logger = logging.getLogger(__name__)

WITHOUT_RECIPE: Final = ("query_likelihood", "yes_no")


@dataclass(frozen=True, slots=True)
class RerankPrompt:
    """How the documents of one request are put to the model.

    Attributes:
        mode: what is made of the model's answer.
        template: of the prompt.
        instruction: fills its slot; empty where the template has none.
        labels: texts of the tokens for yes and no; None for ``query_likelihood``, and where the
            recipe's count.
        control: control tokens that the model must have.
        recipe: of the mode ``recipe``; None for the others.
    """

    mode: Mode
    template: Template
    instruction: str
    labels: tuple[str, str] | None
    control: tuple[str, ...]
    recipe: Recipe | None = None

    def longest(self, info: ModelInfo) -> int:
        """Tokens that a document's prompt may have."""
        own = None if self.recipe is None else self.recipe.max_tokens
        return info.max_model_len if own is None else min(own, info.max_model_len)


@dataclass(frozen=True, slots=True)
class RerankDefaults:
    """The operator's choices.

    Attributes:
        mode: of requests that name none; None for the recipe of the model's folder where it has
            one, else the query's likelihood.
        template: a built-in name, or the text of a template; None for the mode's own.
        instruction: None for the template's own.
        labels: None for the template's own.
        recipe: the folder's, where these choices leave it in force.
        notes: what is odd about it, a line each.
    """

    mode: Mode | None = None
    template: str | None = None
    instruction: str | None = None
    labels: tuple[str, str] | None = None
    recipe: Recipe | None = None
    notes: tuple[str, ...] = ()

    @property
    def default_mode(self) -> Mode:
        """Of requests that name none."""
        return self.mode or ("query_likelihood" if self.recipe is None else "recipe")

    @classmethod
    def read(cls, settings: Settings) -> Self:
        """The settings, with the template's file read.

        Raises:
            SettingsError: the file cannot be read, or requests that say nothing could not be
                answered with these settings.
        """
        defaults = cls(
            settings.rerank_mode,
            settings.rerank_template and _text_of(settings.rerank_template),
            settings.rerank_instruction,
            _label_pair(settings.rerank_labels),
        )
        if defaults.mode == "recipe":
            if defaults.template is not None:
                raise SettingsError(f"{_setting('template')}: mode recipe has the model's own")
            return defaults  # its model is not there yet
        defaults._check()
        return defaults

    def for_model(self, info: ModelInfo, tokenizer: Tokenizer) -> Self:
        """The same choices with the recipe of a model that is loaded, where they leave it in force:
        neither mode nor template is set, or the mode is ``recipe``.

        Raises:
            UnsupportedModel: the recipe cannot be followed, or does not go with the choices.
        """
        if self.mode not in (None, "recipe") or self.template is not None:
            return self
        try:
            found = find_recipe(info, tokenizer, required=self.mode == "recipe")
        except RecipeError as error:
            others = " or ".join(WITHOUT_RECIPE)
            raise UnsupportedModel(
                f"the folder's recipe for rerank: {error}; {_setting('mode')} of {others} does "
                "without it"
            ) from error
        recipe = found.recipe
        if recipe is not None and self.labels is not None:
            recipe = replace(recipe, labels=_own_labels(tokenizer, self.labels))
        defaults = replace(self, recipe=recipe, notes=found.notes)
        for note in found.notes:
            logger.warning(note)
        try:
            defaults._check()
        except SettingsError as error:
            raise UnsupportedModel(str(error)) from None
        card = defaults.card(info)
        if card is not None:
            logger.info("rerank by the model's own recipe", extra=card.model_dump(mode="json"))
        return defaults

    def card(self, info: ModelInfo) -> RerankCard | None:
        """What /v1/models says of the recipe; None where it is not in force."""
        recipe = self.recipe
        if recipe is None:
            return None
        prompt = self.prompt(PromptOptions())
        return RerankCard(
            source=recipe.source,
            true_token_id=recipe.labels.true_id,
            false_token_id=recipe.labels.false_id,
            activation=recipe.activation,
            takes_instruction=recipe.instructed is not None,
            instruction=prompt.instruction or None,
            prompts=[NamedPrompt(name=name, text=text) for name, text in recipe.prompts.items()],
            max_tokens=prompt.longest(info),
        )

    def _check(self) -> None:
        try:
            # An instruction that no request would ever see is refused like a request's own.
            self.prompt(PromptOptions(instruction=self.instruction))
        except InvalidQuery as error:
            raise SettingsError(f"{_setting(error.param or 'template')}: {error.reason}") from None

    def prompt(self, asked: PromptOptions) -> RerankPrompt:
        """What a request gets: its own choices, then the operator's, then the template's.

        The operator's template, instruction and labels are for the operator's mode; a request of
        the other mode gets that mode's own. Labels go with a template: a request that brings its
        own template does not get the operator's.

        Raises:
            InvalidQuery: the choices do not go together; ``param`` names one of them.
        """
        mode = asked.mode or self.default_mode
        operators = self if mode == self.default_mode else RerankDefaults(mode, recipe=self.recipe)
        if mode == "recipe":
            return operators._recipe_prompt(asked)
        named = asked.template or operators.template or default_name(mode)
        if asked.template is not None:
            operators = RerankDefaults(mode, instruction=operators.instruction)
        builtin = BUILTIN.get(named)
        template = _parsed(named, mode)
        return RerankPrompt(
            mode,
            template,
            _instruction(template, named, asked.instruction, operators.instruction),
            _labels(mode, named, asked.label_pair, operators.labels),
            builtin.control if builtin else (),
        )

    def _recipe_prompt(self, asked: PromptOptions) -> RerankPrompt:
        recipe = self.recipe
        if recipe is None:
            raise InvalidQuery("this server has no recipe of the model's own", "mode")
        if asked.template is not None:
            others = " or ".join(WITHOUT_RECIPE)
            raise InvalidQuery(f"the model's own counts; name mode {others} beside it", "template")
        wanted = self.instruction if asked.instruction is None else asked.instruction
        if wanted and recipe.instructed is None:
            raise InvalidQuery("the model's own template shows none", "instruction")
        instruction = recipe.instruction if wanted is None else wanted
        template = recipe.template(instruction)
        return RerankPrompt("recipe", template, instruction, asked.label_pair, (), recipe)


def _setting(field: str) -> str:
    return f"{env_name(f'rerank_{field}')} ({flag_name(f'rerank_{field}')})"


def _label_pair(labels: Sequence[str]) -> tuple[str, str] | None:
    if not labels:
        return None
    if len(labels) != 2 or not all(labels):
        raise SettingsError(f"{_setting('labels')}: two are needed, for yes and for no")
    return labels[0], labels[1]


def _own_labels(tokenizer: Tokenizer, labels: tuple[str, str]) -> LabelIds:
    ids = [tokenizer.encode(label) for label in labels]
    if any(len(one) != 1 for one in ids) or ids[0] == ids[1]:
        raise UnsupportedModel(f"{_setting('labels')}: they are not two tokens of this model")
    return LabelIds(ids[0][0], ids[1][0])


def _text_of(setting: str) -> str:
    """A built-in name or a template as it is; else the text of the file of this name."""
    if setting in BUILTIN or "{" in setting:
        return setting
    name = _setting("template")
    try:
        with Path(setting).open(encoding="utf-8") as file:
            text = file.read(MAX_TEMPLATE_CHARS + 2)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise SettingsError(
            f"{name}: no built-in template ({', '.join(BUILTIN)}), and cannot read {setting}: "
            f"{reason}"
        ) from None
    # Editors end the last line; the prompt must not.
    text = text.removesuffix("\n")
    if len(text) > MAX_TEMPLATE_CHARS:
        raise SettingsError(f"{name}: longer than {MAX_TEMPLATE_CHARS} characters")
    if "{" not in text:
        raise SettingsError(f"{name}: {setting} holds no placeholder")
    return text


def _parsed(named: str, mode: Mode) -> Template:
    builtin = BUILTIN.get(named)
    if builtin is not None and builtin.mode != mode:
        raise InvalidQuery(f"{named} is for mode {builtin.mode}, not for {mode}", "template")
    if builtin is None and "{" not in named:
        raise InvalidQuery(
            f"no built-in one has this name, there are {', '.join(BUILTIN)}; and a "
            "template of your own has placeholders",
            "template",
        )
    try:
        return Template.parse(builtin.text if builtin else named, mode)
    except TemplateError as error:
        raise InvalidQuery(str(error), "template") from error


def _instruction(template: Template, named: str, asked: str | None, default: str | None) -> str:
    if not template.takes_instruction:
        if asked is not None:
            raise InvalidQuery("the template has no {instruction}", "instruction")
        return ""
    builtin = BUILTIN.get(named)
    own = builtin.instruction if builtin else None
    found = next((one for one in (asked, default, own) if one is not None), None)
    if found is None:
        raise InvalidQuery("the template wants one, and none is set", "instruction")
    return found


def _labels(
    mode: Mode,
    named: str,
    asked: tuple[str, str] | None,
    default: tuple[str, str] | None,
) -> tuple[str, str] | None:
    if mode != "yes_no":
        if asked is not None or default is not None:
            raise InvalidQuery("only the modes yes_no and recipe have them", "labels")
        return None
    builtin = BUILTIN.get(named)
    found = asked or default or (builtin.labels if builtin else None)
    if found is None:
        raise InvalidQuery("a template of your own needs them named", "labels")
    return found
