"""Columns as data frames of pandas or Polars, whichever is there."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from app.client.display.columns import Column

if TYPE_CHECKING:
    import pandas
    import polars

_PANDAS_TYPES = {"integer": "Int64", "number": "float64", "text": "str", "flag": "boolean"}
_POLARS_TYPES = {"integer": "Int64", "number": "Float64", "text": "String", "flag": "Boolean"}


def pandas_frame(columns: Sequence[Column]) -> pandas.DataFrame:
    """With what is missing as pandas has it for the column's type: NaN in numbers and texts, NA in
    integers and flags.

    Raises:
        ImportError: pandas is not installed.
    """
    pd = required("pandas", "to_pandas")
    series = {
        column.name: pd.Series(column.values, dtype=_PANDAS_TYPES[column.kind])
        for column in columns
    }
    frame: pandas.DataFrame = pd.DataFrame(series)
    return frame


def polars_frame(columns: Sequence[Column]) -> polars.DataFrame:
    """With null for what is missing.

    Raises:
        ImportError: Polars is not installed.
    """
    pl = required("polars", "to_polars")
    frame: polars.DataFrame = pl.DataFrame(
        {column.name: column.values for column in columns},
        schema={column.name: getattr(pl, _POLARS_TYPES[column.kind]) for column in columns},
    )
    return frame


def required(package: str, use: str) -> Any:
    """A package that the client does not bring.

    Args:
        package: by the name that it is imported by.
        use: what needs it.

    Raises:
        ImportError: it is not installed; the message says what to install.
    """
    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        installed = package.partition(".")[0]
        raise ImportError(
            f"{use} needs {installed}: pip install {installed}, or 'chainrule[notebook]' for all "
            "that notebooks can use"
        ) from error
