"""The OpenAPI document, with what FastAPI makes of it undone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from fastapi import FastAPI

from app.schemas.response import Part

_BOUNDS: Final = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}


def install_document(app: FastAPI) -> None:
    """Show the examples of answers whole, and whole numbers as such.

    FastAPI drops every null from its document, and a field that holds one with it; and it turns all
    bounds to floats, which some readers take for less exact than they are.
    """
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        _restore_integers(document["components"])
        for model in _parts(Part):
            extra = model.model_config.get("json_schema_extra")
            shown = document["components"]["schemas"].get(model.__name__, {})
            if isinstance(extra, dict) and "examples" in shown:
                shown["examples"] = extra["examples"]
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def _restore_integers(part: Any) -> None:
    if isinstance(part, list):
        for one in part:
            _restore_integers(one)
    if not isinstance(part, dict):
        return
    for key, value in part.items():
        if key in _BOUNDS and isinstance(value, float) and value.is_integer():
            part[key] = int(value)
        else:
            _restore_integers(value)


def _parts(base: type[Part]) -> Iterator[type[Part]]:
    for model in base.__subclasses__():
        yield model
        yield from _parts(model)
