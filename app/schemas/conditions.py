"""What a field asks of others, as JSON Schema: the document says what the validators do.

``if``/``then`` says most of it. What needs two numbers or lists compared is in the field's own
description instead.
"""

from __future__ import annotations

from typing import Any, Final

Schema = dict[str, Any]

SET: Final[Schema] = {"not": {"type": "null"}}
UNSET: Final[Schema] = {"type": "null"}
NOT_BLANK: Final = r"\S"
"""Pattern of text that is more than white space."""
OFF: Final[Schema] = {"enum": [False, None]}


def given(field: str, value: Schema = SET) -> Schema:
    """The field is there, with such a value."""
    return {"required": [field], "properties": {field: value}}


def absent_or(**values: Schema) -> Schema:
    """Each of these fields is absent, or has such a value."""
    return {"properties": values}


def when(condition: Schema, consequence: Schema) -> Schema:
    """Where the one holds, so must the other."""
    return {"if": condition, "then": consequence}


def any_of(*schemas: Schema) -> Schema:
    """One of these holds at least."""
    return {"anyOf": list(schemas)}
