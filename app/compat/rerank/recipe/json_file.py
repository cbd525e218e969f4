"""JSON files of a model folder, and what they hold by name."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from app.compat.rerank.recipe.errors import RecipeError

MAX_FILE_BYTES: Final = 1 << 20


def read_json(folder: Path, name: str) -> Any:
    """What the file holds; None where there is none.

    Raises:
        RecipeError: it is not JSON, or too large to be what its name says.
    """
    path = folder / name
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise RecipeError(f"{name}: larger than {MAX_FILE_BYTES} bytes")
        return json.loads(content)
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, RecipeError):
            raise
        raise RecipeError(f"{name}: it cannot be read as JSON") from error


@dataclass(frozen=True, slots=True)
class JsonObject:
    """An object of such a file.

    Attributes:
        name: of the file, and where in it the object stands; for errors.
        values: what it holds.
    """

    name: str
    values: dict[str, Any]

    @classmethod
    def of(cls, name: str, value: object) -> JsonObject:
        """The object that ``value`` is; an empty one for None.

        Raises:
            RecipeError: it is something else.
        """
        if value is None:
            return cls(name, {})
        if not isinstance(value, dict):
            raise RecipeError(f"{name}: it is no object")
        return cls(name, value)

    def object(self, key: str) -> JsonObject:
        """The object under a key; an empty one where it is absent or null."""
        return JsonObject.of(self._place(key), self.values.get(key))

    def text(self, key: str) -> str | None:
        """The text under a key; None where it is absent or null."""
        value = self.values.get(key)
        if value is not None and not isinstance(value, str):
            raise RecipeError(f"{self._place(key)}: it is no text")
        return value

    def number(self, key: str, below: int | None = None) -> int | None:
        """The whole number from 0 on under a key; None where it is absent or null."""
        value = self.values.get(key)
        if value is None:
            return None
        known = isinstance(value, int) and not isinstance(value, bool) and value >= 0
        if not known or (below is not None and value >= below):
            bound = "" if below is None else f" below {below}"
            raise RecipeError(f"{self._place(key)}: it is no whole number from 0 on{bound}")
        return int(value)

    def check_keys(self, known: Collection[str]) -> None:
        """Refuse what is not known here: it may change what the file means."""
        unknown = sorted(self.values.keys() - set(known))
        if unknown:
            raise RecipeError(f"{self._place(unknown[0])}: it is not known here")

    def refuse(self, key: str, reason: str) -> RecipeError:
        """What to raise about a key."""
        return RecipeError(f"{self._place(key)}: {reason}")

    def _place(self, key: str) -> str:
        joint = "." if ": " in self.name else ": "
        return f"{self.name}{joint}{key}"
