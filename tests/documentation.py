"""The pages that users read, and what is in them: fenced blocks, headings, links."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent

README = ROOT / "README.md"
GUIDE = [README, *sorted((ROOT / "docs").glob("*.md"))]
"""The pages whose calls and answers are replayed."""
PAGES = [*GUIDE, ROOT / "SECURITY.md", ROOT / "CHANGELOG.md", ROOT / "benchmarks" / "RESULTS.md"]
"""The pages whose links are checked."""

_FENCED = re.compile(r"^```(\w*)\n(.*?)^```\n\s*", re.DOTALL | re.MULTILINE)
_HEADING = re.compile(r"^#{1,6} (.*)", re.MULTILINE)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        language: what the fence names; empty where it names none.
        answer: the block that follows with no word in between; None where there is none.
    """

    page: str
    language: str
    text: str
    answer: Block | None

    def shows(self, language: str) -> bool:
        """Whether an answer in this language follows."""
        return self.answer is not None and self.answer.language == language


def name(page: Path) -> str:
    """A page as tests call it: ``docs/api.md``."""
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    found: list[Block] = []
    follower: Block | None = None
    start = -1
    for match in reversed(list(_FENCED.finditer(page.read_text()))):
        answer = follower if match.end() == start else None
        follower, start = Block(name(page), match[1], match[2], answer), match.start()
        found.append(follower)
    return found[::-1]


def prose(page: Path) -> str:
    """The text of a page without its fenced blocks."""
    return _FENCED.sub("", page.read_text())


def headings(page: Path, level: str = "#+") -> list[str]:
    """The anchors of a page's headings, as GitHub names them; of one ``level``, as in "##"."""
    anchors: list[str] = []
    seen: dict[str, int] = {}
    for match in _HEADING.finditer(prose(page)):
        words = re.sub(r"[^\w\- ]", "", match[1].lower()).replace(" ", "-")
        count = seen[words] = seen.get(words, -1) + 1
        if re.fullmatch(level, match[0].split()[0]):
            anchors.append(f"{words}-{count}" if count else words)
    return anchors


def links(text: str) -> list[str]:
    """The targets of a text's links, but those to other hosts."""
    return [target for target in _LINK.findall(text) if "://" not in target]
