"""Templates, and whose choice of one counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.compat.rerank.config import RerankDefaults
from app.compat.rerank.request import PromptOptions
from app.compat.rerank.templates import BUILTIN, Mode, Slot, Template, TemplateError, default_name
from app.settings import Settings, SettingsError
from model_runtime import InvalidQuery

OWN = "{document}\n{query}"


def test_a_template_is_literals_and_slots() -> None:
    """Doubled braces are braces; the rest is text and what fills it."""
    template = Template.parse("a {{b}} {document}{instruction} {query}", "query_likelihood")
    texts = "".join(piece for piece in template.pieces if not isinstance(piece, Slot))
    assert texts == "a {b}  "
    assert [piece for piece in template.pieces if isinstance(piece, Slot)] == [
        Slot.DOCUMENT,
        Slot.INSTRUCTION,
        Slot.QUERY,
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{document}", "no {query}"),
        ("{query}", "no {document}"),
        ("{document}{document}{query}", "{document} stands there twice"),
        ("{document} {doc} {query}", "{doc} is no placeholder"),
        ("{document} {} {query}", "{} is no placeholder"),
        ("{document.text} {query}", "{document.text} is no placeholder"),
        ("{document!r} {query}", "is no placeholder"),
        ("{document:>9} {query}", "is no placeholder"),
        ("{ {document} {query}", "a brace is left alone"),
        ("{document} } {query}", "a brace is left alone"),
        ("{document} {query}?", "must end with {query}"),
    ],
)
def test_a_wrong_template_is_refused_with_its_reason(text: str, words: str) -> None:
    """Nothing but the three names can be filled in, and a likelihood needs its query last."""
    with pytest.raises(TemplateError) as caught:
        Template.parse(text, "query_likelihood")
    assert words in str(caught.value)


def test_a_template_that_asks_may_go_on_behind_the_query() -> None:
    """Only the likelihood of the query needs it last."""
    assert Template.parse("{query} {document}?", "yes_no").pieces[-1] == "?"


@pytest.mark.parametrize("name", sorted(BUILTIN))
def test_a_built_in_template_is_complete(name: str) -> None:
    """Each can be used by its name alone, and brings labels where its mode has them."""
    builtin = BUILTIN[name]
    prompt = RerankDefaults().prompt(PromptOptions(mode=builtin.mode, template=name))
    assert prompt.template.takes_instruction
    assert prompt.instruction == builtin.instruction
    assert prompt.labels == builtin.labels
    assert (prompt.labels is None) == (builtin.mode == "query_likelihood")


@pytest.mark.parametrize("mode", ["query_likelihood", "yes_no"])
def test_each_mode_has_a_default(mode: Mode) -> None:
    """A request that names a mode alone gets that mode's own template."""
    prompt = RerankDefaults().prompt(PromptOptions(mode=mode))
    assert prompt.mode == mode
    assert prompt.template == Template.parse(BUILTIN[default_name(mode)].text, mode)


def test_the_requests_choices_come_first() -> None:
    """Then the operator's, then the template's own."""
    operators = RerankDefaults("yes_no", "plain-yes-no", "Theirs.", ("a", "b"))
    assert operators.prompt(PromptOptions()).instruction == "Theirs."
    assert operators.prompt(PromptOptions(instruction="Mine.")).instruction == "Mine."
    assert operators.prompt(PromptOptions()).labels == ("a", "b")
    assert operators.prompt(PromptOptions(labels=["c", "d"])).labels == ("c", "d")


def test_the_operators_choices_are_for_the_operators_mode() -> None:
    """The other mode's prompt says nothing of what the operator wrote for this one."""
    operators = RerankDefaults("yes_no", "plain-yes-no", "Theirs.", ("a", "b"))
    prompt = operators.prompt(PromptOptions(mode="query_likelihood"))
    assert prompt.labels is None
    assert prompt.instruction == BUILTIN["query-likelihood"].instruction


def test_another_template_does_not_get_the_operators_labels() -> None:
    """Labels are what one template leads up to."""
    operators = RerankDefaults("yes_no", "plain-yes-no", None, ("a", "b"))
    assert operators.prompt(PromptOptions(template="qwen3-reranker")).labels == ("yes", "no")


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"template": "plain-yes-no"}, "template"),
        ({"template": "no such name"}, "template"),
        ({"template": "{query}"}, "template"),
        ({"template": OWN, "instruction": "Find."}, "instruction"),
        ({"template": "{instruction}{document}{query}"}, "instruction"),
        ({"labels": ["yes", "no"]}, "labels"),
        ({"mode": "yes_no", "template": OWN}, "labels"),
    ],
)
def test_choices_that_do_not_go_together_are_refused_by_name(
    options: dict[str, Any], param: str
) -> None:
    """Nothing that a request says is left aside."""
    with pytest.raises(InvalidQuery) as caught:
        RerankDefaults().prompt(PromptOptions(**options))
    assert caught.value.param == param
    assert str(caught.value).startswith(f"{param}: ")


def test_a_template_is_read_from_a_file(tmp_path: Path) -> None:
    """Its last line ends as every line of a file does, and the prompt does not."""
    path = tmp_path / "prompt.txt"
    path.write_text(f"{OWN}\n")
    defaults = RerankDefaults.read(Settings(rerank_template=str(path)))
    assert defaults.template == OWN


def test_labels_keep_their_spaces(monkeypatch: pytest.MonkeyPatch) -> None:
    """A word with a space before it is another token."""
    monkeypatch.setenv("CHAINRULE_RERANK_LABELS", " yes, no")
    monkeypatch.setenv("CHAINRULE_RERANK_MODE", "yes_no")
    assert RerankDefaults.read(Settings.read()).labels == (" yes", " no")


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"rerank_template": "no such file"}, "RERANK_TEMPLATE"),
        ({"rerank_template": "{query}"}, "RERANK_TEMPLATE"),
        ({"rerank_template": "qwen3-reranker"}, "RERANK_TEMPLATE"),
        ({"rerank_template": OWN, "rerank_instruction": "Find."}, "RERANK_INSTRUCTION"),
        ({"rerank_labels": "yes,no"}, "RERANK_LABELS"),
        ({"rerank_mode": "yes_no", "rerank_labels": "yes"}, "RERANK_LABELS"),
        ({"rerank_mode": "yes_no", "rerank_labels": "yes,"}, "RERANK_LABELS"),
        ({"rerank_mode": "yes_no", "rerank_template": OWN}, "RERANK_LABELS"),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_it(settings: dict[str, Any], name: str) -> None:
    """The server does not start with a prompt that it could not fill."""
    with pytest.raises(SettingsError) as caught:
        RerankDefaults.read(Settings(**settings))
    line = str(caught.value)
    assert f"CHAINRULE_{name}" in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("content", "words"),
    [("no placeholder", "holds no placeholder"), ("x{" * 20_000, "longer than"), (b"\xff", "text")],
)
def test_a_file_that_is_no_template_is_refused(
    tmp_path: Path, content: str | bytes, words: str
) -> None:
    """The line says what is wrong with the file."""
    path = tmp_path / "prompt.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SettingsError, match=words):
        RerankDefaults.read(Settings(rerank_template=str(path)))
