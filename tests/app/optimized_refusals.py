"""A program: ``refusals``, with what handles requests compiled as ``python -O`` compiles it.

Under ``-O`` itself torch and transformers are compiled as well, which takes a minute where that was
never done before; ``make test-optimized`` does so.
"""

from __future__ import annotations

import runpy
from importlib.machinery import SourceFileLoader
from types import CodeType

OPTIMIZED = frozenset(
    {"app", "model_runtime", "tests", "fastapi", "starlette", "pydantic", "pydantic_settings"}
)

compiled = SourceFileLoader.get_code


def get_code(loader: SourceFileLoader, name: str) -> CodeType | None:
    """The code of a module."""
    if name.split(".")[0] not in OPTIMIZED:
        return compiled(loader, name)
    path = loader.get_filename(name)
    code: CodeType = compile(loader.get_data(path), path, "exec", dont_inherit=True, optimize=1)
    return code


if __name__ == "__main__":
    SourceFileLoader.get_code = get_code  # type: ignore[method-assign]
    runpy.run_module("tests.app.refusals", run_name="__main__", alter_sys=True)
