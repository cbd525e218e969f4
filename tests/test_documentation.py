"""The README and the pages of docs/ hang together."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.documentation import GUIDE, PAGES, README, headings, links, name, prose

LARGEST_README = 14 * 1024
LONG = 6000
"""Characters of prose, tables included, from which a page has a list of contents."""


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_leads_somewhere(page: Path) -> None:
    """To a file that is there, and where the link names one, to a heading of it."""
    broken = []
    for target in links(prose(page)):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in headings(file)):
            broken.append(target)
    assert not broken


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_no_figure_is_still_to_come(page: Path) -> None:
    """No place is kept for what has not been measured."""
    assert not re.findall(r"@[A-Z0-9]+@|goes here|TODO|TBD", page.read_text())


def test_links_are_found() -> None:
    """The check above looks at the links within a page, to pages, and to places in them."""
    found = links(prose(README))
    assert {"SECURITY.md", "docs/api.md", "docs/api.md#post-v1score"} <= set(found)
    assert "post-v1score" in headings(README.parent / "docs" / "api.md")
    assert "no-such-heading" not in headings(README)


def test_the_readme_is_short_and_leads_to_every_page() -> None:
    """It is the front page, not the manual."""
    assert len(README.read_bytes()) <= LARGEST_README
    assert {name(page) for page in GUIDE[1:]} <= set(links(prose(README)))


@pytest.mark.parametrize("page", GUIDE[1:], ids=name)
def test_a_long_page_lists_its_contents(page: Path) -> None:
    """Before its first section it links to every section."""
    text = prose(page)
    if len(text) > LONG:
        contents = links(text.partition("\n## ")[0])
        assert {f"#{anchor}" for anchor in headings(page, "##")} <= set(contents)


@pytest.mark.parametrize("page", GUIDE[1:], ids=name)
def test_a_page_says_whom_it_is_for(page: Path) -> None:
    """In its first sentence, under its title."""
    title, _, first, *_ = page.read_text().splitlines()
    assert title.startswith("# ") and first.startswith("For ")
