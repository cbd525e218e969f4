"""The walls of the house: who may import what. Read from the source, so nothing runs."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted(p for room in ("app", "model_runtime") for p in (ROOT / room).rglob("*.py"))

TENSOR_FILES = {
    "model_runtime/activations.py",
    "model_runtime/attention/cpu.py",
    "model_runtime/attention/cuda.py",
    "model_runtime/attention/groups.py",
    "model_runtime/attention/interface.py",
    "model_runtime/attention/paths.py",
    "model_runtime/attention/products.py",
    "model_runtime/attention/row_tiles.py",
    "model_runtime/attention/steps.py",
    "model_runtime/kv_cache.py",
    "model_runtime/linear.py",
    "model_runtime/library_logs.py",
    "model_runtime/load_warnings.py",
    "model_runtime/logprobs.py",
    "model_runtime/model_loader.py",
    "model_runtime/model_runner.py",
    "model_runtime/numeric_error.py",
    "model_runtime/padded_model_runner.py",
    "model_runtime/precision.py",
    "model_runtime/reference.py",
    "model_runtime/row_choices.py",
    "model_runtime/row_index.py",
    "model_runtime/row_layout.py",
    "model_runtime/row_masses.py",
    "model_runtime/row_partitions.py",
    "model_runtime/step_graphs.py",
    "model_runtime/supported_models.py",
    "model_runtime/threads.py",
    "model_runtime/top_tokens.py",
    "model_runtime/weights.py",
}
TRANSFORMERS_FILES = TENSOR_FILES | {"model_runtime/tokenizer.py"}

ONLY_IN = {
    "torch": TENSOR_FILES,
    "transformers": TRANSFORMERS_FILES,
    "llguidance": {"model_runtime/grammar.py"},
    "prometheus_client": {"app/observability.py"},
    "pydantic_settings": {"app/settings.py", "app/cli.py"},
    "tokenizers": {
        "model_runtime/model_loader.py",
        "model_runtime/token_bytes.py",
        "model_runtime/tokenizer.py",
    },
}
THREADED = {"model_runtime/engine.py", "model_runtime/scheduler.py"}

RUNTIME_ORDER = (
    {"__init__"},
    {"engine", "served_model"},
    {"scheduler", "model_runner", "padded_model_runner", "model_loader"},
    {
        "batcher",
        "fair_share",
        "job",
        "memory_wait",
        "planner",
        "decoding",
        "grammar",
        "streamed_search",
        "attention",
        "step_graphs",
        "row_layout",
        "linear",
        "logprobs",
        "kv_cache",
    },
)
"""Rooms of the runtime from the door inwards; a room imports from its own row or a later one."""


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, in full."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)} imports relatively"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def packages(path: Path) -> set[str]:
    return {module.split(".")[0] for module in imports(path)}


@pytest.mark.parametrize("package", sorted(ONLY_IN))
def test_a_package_stays_in_its_rooms(package: str) -> None:
    """torch, transformers, tokenizers, grammars, prometheus, settings: each in its rooms."""
    found = {name_of(path) for path in SOURCES if package in packages(path)}
    assert found, f"nobody imports {package}: the rule has lost its object"
    assert found <= ONLY_IN[package]


def test_fastapi_stays_in_the_app() -> None:
    """The runtime knows no HTTP."""
    web = {"fastapi", "starlette", "uvicorn", "pydantic", "httpx", "http", "app"}
    for path in SOURCES:
        if name_of(path).startswith("model_runtime/"):
            assert not web & packages(path), name_of(path)


def test_the_runtime_waits_in_two_files_only() -> None:
    """asyncio and threading are the business of engine and scheduler."""
    for path in SOURCES:
        if name_of(path).startswith("model_runtime/") and name_of(path) not in THREADED:
            assert not {"asyncio", "threading", "concurrent"} & packages(path), name_of(path)


def test_the_app_uses_the_runtimes_door_only() -> None:
    """The app imports names from ``model_runtime`` and from nothing below it."""
    doors = 0
    for path in SOURCES:
        if not name_of(path).startswith("app/"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("model_runtime"):
                assert node.module == "model_runtime", name_of(path)
                doors += 1
            elif isinstance(node, ast.Import):
                assert not any(alias.name.startswith("model_runtime") for alias in node.names)
    assert doors


def test_one_file_reads_the_environment() -> None:
    """os.environ and os.getenv appear nowhere else."""
    for path in SOURCES:
        reads = {
            node.attr
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv", "getenvb")
        }
        assert not reads or name_of(path) == "app/environment.py", name_of(path)


def test_pure_rooms_import_only_the_standard_library_and_each_other() -> None:
    """Planner, trie, layout, batch, decoding and normalization run without any package."""
    pure = {"planner", "trie", "layout", "head_rows", "batch", "normalization", "types", "errors"}
    pure |= {"path_order", "token_set", "vocabulary_trie"}
    for path in SOURCES:
        name = name_of(path)
        if name.startswith("model_runtime/decoding/") or Path(name).stem in pure:
            if name.startswith("app/"):
                continue
            outside = packages(path) - {"model_runtime"} - sys.stdlib_module_names
            assert not outside, f"{name} imports {outside}"


def test_runtime_imports_run_one_way() -> None:
    """No room imports from one nearer to the door; scheduler and runner do not know each other."""
    rank = {room: row for row, rooms in enumerate(RUNTIME_ORDER) for room in rooms}
    for path in SOURCES:
        name = name_of(path)
        if not name.startswith("model_runtime/"):
            continue
        room = name.split("/")[1].removesuffix(".py")
        for module in imports(path):
            parts = module.split(".")
            if parts[0] != "model_runtime" or len(parts) < 2:
                continue
            own, other = rank.get(room, len(RUNTIME_ORDER)), rank.get(parts[1], len(RUNTIME_ORDER))
            assert other >= own, f"{name} imports {module}"
            assert {room, parts[1]} != {"scheduler", "model_runner"}


def test_imports_have_no_cycle() -> None:
    """Every module can be read after the ones that it imports."""
    graph = {module_of(path): set(imports(path)) for path in SOURCES}
    for module, needs in graph.items():
        if module.startswith("model_runtime."):
            needs.discard("model_runtime")  # `from model_runtime import batch` reads batch alone
    settled: set[str] = set()
    while graph:
        free = [module for module, needs in graph.items() if not needs & (graph.keys() - {module})]
        assert free, f"these import each other in a circle: {sorted(graph)}"
        for module in free:
            settled.add(module)
            del graph[module]


def module_of(path: Path) -> str:
    return name_of(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def test_product_code_never_asserts() -> None:
    """Bad input is refused under ``python -O`` as well."""
    for path in SOURCES:
        asserts = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Assert)]
        assert not asserts, name_of(path)


def test_files_and_functions_stay_short() -> None:
    """A file over 400 lines holds two nouns; a function over 50 hides its steps."""
    for path in SOURCES:
        text = path.read_text()
        assert len(text.splitlines()) <= 400, name_of(path)
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                docstring = len((ast.get_docstring(node) or "").splitlines())
                length = (node.end_lineno or 0) - node.lineno + 1 - docstring
                assert length <= 50, f"{name_of(path)}: {node.name} has {length} lines"
