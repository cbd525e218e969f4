"""Which package may import what. Read from the source, so nothing runs."""

from __future__ import annotations

import ast
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted(p for room in ("app", "model_runtime") for p in (ROOT / room).rglob("*.py"))

TENSOR_PACKAGES = (
    *("attention", "decoder", "kernels", "kv_cache", "loading", "logprobs", "native", "runner"),
)

ONLY_IN = {
    "torch": {f"model_runtime/{package}/" for package in TENSOR_PACKAGES},
    "transformers": {
        "model_runtime/decoder/from_transformers.py",
        *("model_runtime/attention/", "model_runtime/kernels/", "model_runtime/loading/"),
        *("model_runtime/runner/", "model_runtime/tokenization/tokenizer.py"),
    },
    "httpx_sse": {"app/client/"},
    "opentelemetry": {"app/client/trace_context.py", "app/telemetry/traces/"},
    "cachetools": {"app/cache/score_cache.py"},
    "matplotlib": {"app/cli/calibrate/reliability_plot.py", "app/client/display/"},
    "pandas": {"app/client/display/"},
    "polars": {"app/client/display/"},
    "llguidance": {"model_runtime/decoding/constraints/grammar.py"},
    "prometheus_client": {
        "app/telemetry/collectors.py",
        "app/telemetry/metrics.py",
        "app/telemetry/vllm_collector.py",
    },
    "pyarrow": {"app/cli/score/"},
    "pydantic_settings": {"app/settings.py", "app/cli/main.py"},
    "ray": {"app/cli/score/dataset/"},
    "tenacity": {"app/client/"},
    "tokenizers": {"model_runtime/loading/", "model_runtime/tokenization/"},
    "zstandard": {"app/http/content_coding.py"},
}
"""Packages, and the folders and files that may import them."""

THREADED = {
    "model_runtime/engine.py",
    "model_runtime/scheduling/scheduler.py",
    "model_runtime/scheduling/waiting_line.py",
}

LAYERS = {
    "model_runtime": (
        ("__init__",),
        ("engine",),
        ("runner",),
        ("loading",),
        ("attention", "decoder", "memory"),
        ("kv_cache", "logprobs", "scheduling"),
        ("decoding", "kernels"),
        ("native",),
        ("batching", "normalization"),
        ("tokenization", "types"),
        ("config", "errors", "token_paths", "token_set"),
    ),
    "app": (
        ("__main__",),
        ("cli",),
        ("server",),
        ("main",),
        ("routers",),
        ("compat",),
        ("dependencies",),
        ("audit", "calibration"),
        ("decisions",),
        ("service",),
        ("decoding", "scoring"),
        ("cache", "client", "http"),
        ("requests",),
        ("errors",),
        ("settings", "telemetry"),
        ("__init__", "environment", "schemas"),
    ),
}
"""Modules and packages of each root, from outside to inside: each imports from later rows only."""

PURE = ("batching/", "decoding/", "normalization.py", "types.py", "errors.py", "token_")
"""What runs without any package but the standard library, below ``model_runtime/``."""


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def imports(path: Path) -> tuple[str, ...]:
    """Every module that a file imports, in full."""
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)} imports relatively"
            found.append(node.module or "")
            found += (f"{node.module}.{alias.name}" for alias in node.names)
    return tuple(found)


def packages(path: Path) -> set[str]:
    return {module.split(".")[0] for module in imports(path)}


@pytest.mark.parametrize("package", sorted(ONLY_IN))
def test_a_package_is_imported_in_its_places_only(package: str) -> None:
    """torch, transformers, tokenizers, grammars, prometheus, settings."""
    found = [name_of(path) for path in SOURCES if package in packages(path)]
    assert found, f"nobody imports {package}: the rule has lost its object"
    for name in found:
        assert any(name.startswith(place) for place in ONLY_IN[package]), name


def test_fastapi_stays_in_the_app() -> None:
    """The runtime knows no HTTP."""
    web = {"fastapi", "starlette", "uvicorn", "pydantic", "httpx", "http", "app"}
    for path in SOURCES:
        if name_of(path).startswith("model_runtime/"):
            assert not web & packages(path), name_of(path)


def test_the_runtime_waits_in_three_files_only() -> None:
    """asyncio and threading are the business of engine, scheduler and those that wait for room."""
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


def test_pure_modules_import_only_the_standard_library_and_each_other() -> None:
    """Batches are planned and searches decided without any package."""
    for path in SOURCES:
        name = name_of(path)
        if not name.startswith(tuple(f"model_runtime/{place}" for place in PURE)):
            continue
        if name != "model_runtime/decoding/constraints/grammar.py":
            outside = packages(path) - {"model_runtime"} - sys.stdlib_module_names
            assert not outside, f"{name} imports {outside}"


@pytest.mark.parametrize("root", sorted(LAYERS))
def test_imports_run_one_way(root: str) -> None:
    """No module imports from its own row or an outer one; every module has its row."""
    rank = {name: row for row, names in enumerate(LAYERS[root]) for name in names}
    for path in SOURCES:
        if not name_of(path).startswith(f"{root}/"):
            continue
        own = name_of(path).split("/")[1].removesuffix(".py")
        for module in imports(path):
            parts = module.split(".")
            if parts[0] != root:
                continue
            other = parts[1] if len(parts) > 1 and parts[1] in rank else "__init__"
            if other != own and (root, other) != ("model_runtime", "__init__"):
                assert rank[other] > rank[own], f"{name_of(path)} imports {module}"


@pytest.mark.parametrize("root", sorted(LAYERS))
def test_few_modules_lie_at_a_root(root: str) -> None:
    """Eight at most; what is more belongs into a package."""
    assert len(list((ROOT / root).glob("*.py"))) <= 8


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
