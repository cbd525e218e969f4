"""What the operator set for reranking, and the prompt of a request that may say otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from app.compat.rerank.request import PromptOptions
from app.compat.rerank.templates import BUILTIN, Mode, Template, TemplateError, default_name
from app.environment import env_name
from app.schemas.bounds import MAX_TEMPLATE_CHARS
from app.settings import Settings, SettingsError, flag_name
from model_runtime import InvalidQuery


@dataclass(frozen=True, slots=True)
class RerankPrompt:
    """How the documents of one request are put to the model.

    Attributes:
        mode: what is made of the model's answer.
        template: of the prompt.
        instruction: fills its slot; empty where the template has none.
        labels: texts of the tokens for yes and no; None for ``query_likelihood``.
        control: control tokens that the model must have.
    """

    mode: Mode
    template: Template
    instruction: str
    labels: tuple[str, str] | None
    control: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RerankDefaults:
    """The operator's choices.

    Attributes:
        mode: of requests that name none.
        template: a built-in name, or the text of a template; None for the mode's own.
        instruction: None for the template's own.
        labels: None for the template's own.
    """

    mode: Mode = "query_likelihood"
    template: str | None = None
    instruction: str | None = None
    labels: tuple[str, str] | None = None

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
        try:
            # An instruction that no request would ever see is refused like a request's own.
            defaults.prompt(PromptOptions(instruction=defaults.instruction))
        except InvalidQuery as error:
            raise SettingsError(f"{_setting(error.param or 'template')}: {error.reason}") from None
        return defaults

    def prompt(self, asked: PromptOptions) -> RerankPrompt:
        """What a request gets: its own choices, then the operator's, then the template's.

        The operator's template, instruction and labels are for the operator's mode; a request of
        the other mode gets that mode's own. Labels go with a template: a request that brings its
        own template does not get the operator's.

        Raises:
            InvalidQuery: the choices do not go together; ``param`` names one of them.
        """
        mode = asked.mode or self.mode
        operators = self if mode == self.mode else RerankDefaults(mode)
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


def _setting(field: str) -> str:
    return f"{env_name(f'rerank_{field}')} ({flag_name(f'rerank_{field}')})"


def _label_pair(labels: Sequence[str]) -> tuple[str, str] | None:
    if not labels:
        return None
    if len(labels) != 2 or not all(labels):
        raise SettingsError(f"{_setting('labels')}: two are needed, for yes and for no")
    return labels[0], labels[1]


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
            raise InvalidQuery("only mode yes_no has them", "labels")
        return None
    builtin = BUILTIN.get(named)
    found = asked or default or (builtin.labels if builtin else None)
    if found is None:
        raise InvalidQuery("a template of your own needs them named", "labels")
    return found
