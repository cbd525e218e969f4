"""The name of the prompts changes with everything that a model is shown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from app.decisions import plan, prompts, tokens
from app.decisions.template import PROMPT_TEMPLATE, prompt_template


def test_the_template_has_a_name() -> None:
    """Short, in hexadecimal, and the same whenever it is asked for."""
    assert len(PROMPT_TEMPLATE) == 12
    int(PROMPT_TEMPLATE, 16)
    assert prompt_template() == PROMPT_TEMPLATE


WORDS = ("OPENING", "CLOSING", "STATEMENT", "QUESTION", "RISING", "FALLING", "OPTION", "DESCRIBED")
WORDS += ("BETWEEN", "PLAIN_TURN", "PLAIN_OPTION", "PLAIN_END")


@pytest.mark.parametrize("name", WORDS)
def test_it_names_the_words(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Each of them."""
    monkeypatch.setattr(prompts, name, getattr(prompts, name) + "!")
    assert prompt_template() != PROMPT_TEMPLATE


@pytest.mark.parametrize("kind", prompts.ASKED)
def test_it_names_what_is_asked_of_each_type(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """In its own words."""
    monkeypatch.setitem(prompts.ASKED, kind, "Well?\n")
    assert prompt_template() != PROMPT_TEMPLATE


def _reversed(listing: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, place, order: listing(self, place, order[::-1])


def _directions_last(listing: Callable[..., Any]) -> Callable[..., Any]:
    def moved(self: tokens.QuestionTokens, place: int, order: Any) -> Any:
        length = len(self.directions[place])
        whole = listing(self, place, order)
        return whole[length:] + whole[:length]

    return moved


@pytest.mark.parametrize("change", [_reversed, _directions_last])
def test_it_names_how_options_are_listed(
    monkeypatch: pytest.MonkeyPatch, change: Callable[..., Any]
) -> None:
    """With the same words in other places."""
    changed = change(tokens.QuestionTokens.listing)
    monkeypatch.setattr(tokens.QuestionTokens, "listing", changed)
    assert prompt_template() != PROMPT_TEMPLATE


def test_it_names_the_orders_and_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those in which the options of a question are shown."""
    orders = plan.orders_of
    monkeypatch.setattr(plan, "orders_of", lambda *asked: orders(*asked)[::-1])
    assert prompt_template() != PROMPT_TEMPLATE


def test_it_names_where_text_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """The space before an option belongs to the option; tokens differ if it does not."""
    monkeypatch.setattr(prompts, "PLAIN_TURN", prompts.PLAIN_TURN + prompts.PLAIN_OPTION)
    monkeypatch.setattr(prompts, "PLAIN_OPTION", "")
    assert prompt_template() != PROMPT_TEMPLATE
