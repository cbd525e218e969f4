"""What a pre-tokenizer's regular expression can match across a space. Pure, and careful.

Asked is whether some way through the pattern takes a visible character and, right behind it, a
space. Only what is needed of the syntax is read; a pattern with anything else is not answered.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_ITEM = re.compile(
    r"(?P<look>\(\?[!=](?:\\[sS]|[^()\\\[\]])\)$)"
    r"|(?P<group>\((?:\?i?:)(?P<inner>[^()\\\[\]?*+{}.^$ ]+)\))"
    r"|(?P<chars>\[(?P<negated>\^?)(?P<members>(?:\\.|&(?!&)|[^\\\[\]&])+)\])"
    r"|(?P<single>\\[pP]\{[A-Za-z]+\}|\\[srntdSD]|\\[^\sa-zA-Z0-9]|[^\\()\[\]{}?*+.^$|])"
)
_QUANTIFIER = re.compile(r"[*+?]|\{(?P<least>\d+)(?:,\d*)?\}")
_MEMBER = re.compile(r"\\[pP]\{[A-Za-z]+\}|\\.|[^\\]-[^\\]|[^\\]", re.DOTALL)
_NO_SPACE = re.compile(r"\\p\{[LMNPS][a-z&]?\}|\\[drntS]|\\[^\sa-zA-Z0-9]")
_WHITE = ("\\s", "\\r", "\\n", "\\t", " ")


@dataclass(frozen=True, slots=True)
class _Atom:
    """One step of a pattern.

    Attributes:
        space: it may take a space.
        visible: it may take a character that is no white space.
        least: so many characters does it take; 0 where it may take nothing.
        repeated: it may take several.
        looks: it takes nothing, but looks at the next character.
    """

    space: bool
    visible: bool
    least: int = 1
    repeated: bool = False
    looks: bool = False

    @property
    def optional(self) -> bool:
        """It may take nothing."""
        return self.least == 0


@dataclass(frozen=True, slots=True)
class SplitPattern:
    """A pattern whose matches never hold a visible character followed by a space.

    Nor does an attempt that fails ever get so far, so that no match before such a place
    depends on what is behind it.

    Attributes:
        takes_spaces: wherever a space is next, something matches.
    """

    takes_spaces: bool


def read_split_pattern(pattern: str) -> SplitPattern | None:
    """What is known of ``pattern`` (Oniguruma's syntax); None where the above is not sure."""
    choices = [_atoms(choice) for choice in _choices(pattern)]
    takes_spaces = False
    for atoms in choices:
        if atoms is None or _crosses(atoms) or all(atom.optional for atom in atoms):
            return None
        if any(atom.looks for atom in atoms) and any(atom.visible for atom in atoms):
            return None
        takes_spaces = takes_spaces or _takes_a_space(atoms)
    return SplitPattern(takes_spaces)


def _choices(pattern: str) -> Iterator[str]:
    """The pattern's alternatives, as they are written."""
    begin = depth = place = 0
    in_set = False
    while place < len(pattern):
        character = pattern[place]
        place += 2 if character == "\\" else 1
        in_set = character == "[" or (in_set and character != "]")
        if not in_set:
            depth += (character == "(") - (character == ")")
        if character == "|" and depth == 0 and not in_set:
            yield pattern[begin : place - 1]
            begin = place
    yield pattern[begin:]


def _atoms(choice: str) -> list[_Atom] | None:
    atoms: list[_Atom] = []
    place = 0
    while place < len(choice):
        item = _ITEM.match(choice, place)
        if item is None:
            return None
        place = item.end()
        space, visible = _takes(item)
        quantifier = _QUANTIFIER.match(choice, place)
        if quantifier is not None:
            if item["look"] is not None:
                return None
            place = quantifier.end()
        atoms.append(_atom(space, visible, quantifier, looks=item["look"] is not None))
    return atoms


def _atom(space: bool, visible: bool, quantifier: re.Match[str] | None, *, looks: bool) -> _Atom:
    written = "" if quantifier is None else quantifier[0]
    least = 0 if looks or written in ("?", "*") else 1
    if quantifier is not None and quantifier["least"] is not None:
        least = int(quantifier["least"])
    return _Atom(space, visible, least, repeated=written not in ("", "?"), looks=looks)


def _takes(item: re.Match[str]) -> tuple[bool, bool]:
    """Whether an item may take a space, and whether it may take a visible character."""
    if item["look"] is not None:
        return False, False
    if item["group"] is not None:
        return False, True
    if item["single"] is not None:
        return _may_be_space(item["single"]), item["single"] not in _WHITE
    members = [member[0] for member in _MEMBER.finditer(item["members"])]
    if item["negated"]:
        return not any(member in ("\\s", " ") for member in members), True
    return any(map(_may_be_space, members)), any(member not in _WHITE for member in members)


def _may_be_space(member: str) -> bool:
    if _NO_SPACE.fullmatch(member):
        return False
    if len(member) == 3 and member[1] == "-":
        return member[0] <= " " <= member[2]
    return member == " " or member.startswith("\\")


def _crosses(atoms: list[_Atom]) -> bool:
    """Whether a visible character can be taken and a space right behind it."""
    after_visible = False
    for atom in atoms:
        if atom.space and (after_visible or (atom.visible and atom.repeated)):
            return True
        after_visible = atom.visible or (after_visible and atom.optional)
    return False


def _takes_a_space(atoms: list[_Atom]) -> bool:
    """Whether a lone space is enough for a match, whatever follows it."""
    needed = [atom for atom in atoms if not atom.optional]
    looks = any(atom.looks for atom in atoms)
    return not looks and len(needed) == 1 and needed[0].space and needed[0].least == 1
