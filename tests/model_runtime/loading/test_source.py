"""From a configured name to a folder: alias, local folder or hub id."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest
from huggingface_hub import constants
from huggingface_hub.errors import GatedRepoError, OfflineModeIsEnabled, RepositoryNotFoundError
from huggingface_hub.utils import filter_repo_objects

from model_runtime.config import EngineConfig
from model_runtime.errors import ModelFetchFailed, ModelNotFound, UnsupportedModel
from model_runtime.loading import builtin as builtin_model
from model_runtime.loading import source as model_source
from model_runtime.loading.source import default_name, resolve

HUB_ID = "owner/model"
COMMIT = "c0ffee" + 34 * "0"


def no_convert(gguf_file: Path, folder: Path, *, progress: bool) -> None:
    """Stands where nothing is to be converted."""
    raise AssertionError("nothing to convert")


def hub(answer: Path | Exception, calls: list[dict[str, object]]) -> Callable[..., str]:
    """A hub client that records what it is asked."""

    def snapshot_download(repo_id: str, **options: object) -> str:
        calls.append({"repo_id": repo_id, **options})
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    return snapshot_download


def gone(kind: type[Exception]) -> Exception:
    """An error of the hub's client, which wants the response that it saw."""
    request = httpx.Request("GET", "http://hub.invalid")
    return kind("line one\nline two", response=httpx.Response(404, request=request))


def test_a_local_folder_is_itself(tmp_path: Path) -> None:
    """A path that is a folder needs nothing else; clients use its name."""
    config = EngineConfig(model=str(tmp_path))
    assert resolve(config, no_convert) == tmp_path
    assert default_name(config) == tmp_path.name


def test_the_folder_named_by_a_dot_has_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name is the folder's own, however it was written."""
    monkeypatch.chdir(tmp_path)
    assert default_name(EngineConfig(model=".")) == tmp_path.name


def test_an_alias_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A built-in name goes to the built-in models, with the cache folder of the config."""
    asked: list[tuple[object, ...]] = []

    def fetch(*args: object, progress: bool) -> Path:
        asked.append((*args, progress))
        return tmp_path

    monkeypatch.setattr(builtin_model, "fetch", fetch)
    config = EngineConfig(model="smollm2-135m-instruct", cache_dir=tmp_path)
    assert resolve(config, no_convert) == tmp_path
    assert asked == [("smollm2-135m-instruct", tmp_path, no_convert, True)]
    assert default_name(config) == "smollm2-135m-instruct"


def test_an_alias_wins_over_a_folder_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a built-in name means does not depend on the working directory."""
    (tmp_path / "smollm2-135m-instruct").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(builtin_model, "fetch", lambda *args, progress: Path("/built-in"))
    assert resolve(EngineConfig(), no_convert) == Path("/built-in")


def test_a_hub_id_is_downloaded_at_its_revision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The pinned revision is asked for, and nothing but safetensors and text files."""
    calls: list[dict[str, object]] = []
    monkeypatch.setattr(model_source, "snapshot_download", hub(tmp_path, calls))
    config = EngineConfig(model=HUB_ID, revision="abc")
    assert resolve(config, no_convert) == tmp_path
    assert default_name(config) == HUB_ID
    [call] = calls
    assert (call["repo_id"], call["revision"]) == (HUB_ID, "abc")
    patterns = call["allow_patterns"]
    assert isinstance(patterns, list)
    assert not any(".bin" in pattern or ".py" in pattern for pattern in patterns)
    assert not caplog.records


def test_of_a_rerankers_subfolders_the_labels_are_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the commit that the rest was fetched at; of other models no subfolder is."""
    folder, calls = tmp_path / "c0ffee", list[dict[str, object]]()
    folder.mkdir()
    (folder / "modules.json").write_text("[]")
    monkeypatch.setattr(model_source, "snapshot_download", hub(folder, calls))
    assert resolve(EngineConfig(model=HUB_ID, revision="main"), no_convert) == folder
    names = ["model.safetensors", "modules.json", "1_LogitScore/config.json", "onnx/config.json"]
    fetched = []
    for call in calls:
        patterns: Any = {key: call.get(key) for key in ("allow_patterns", "ignore_patterns")}
        fetched.append(list(filter_repo_objects(names, **patterns)))
    assert fetched == [["model.safetensors", "modules.json"], ["1_LogitScore/config.json"]]
    assert [call["revision"] for call in calls] == ["main", "c0ffee"]


def test_a_hub_id_without_a_revision_says_what_it_got(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The operator is told which commit to pin."""
    monkeypatch.setattr(model_source, "snapshot_download", hub(tmp_path / "c0ffee", []))
    with caplog.at_level(logging.WARNING):
        resolve(EngineConfig(model=HUB_ID), no_convert)
    assert "c0ffee" in caplog.text


class SmallHub(BaseHTTPRequestHandler):
    """The part of the hub's interface that fetches ``owner/model``, which has one file."""

    def do_GET(self) -> None:
        if self.path.startswith("/api/"):
            tree = [{"type": "file", "path": "config.json", "size": 2, "oid": "e"}]
            model = {"id": HUB_ID, "sha": COMMIT, "siblings": [{"rfilename": "config.json"}]}
            self._answer(json.dumps(tree if "/tree/" in self.path else model).encode())
        else:
            self._answer(b"{}")

    def do_HEAD(self) -> None:
        self._answer(b"{}")

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        headers = {"ETag": '"e"', "X-Repo-Commit": COMMIT, "Content-Length": str(len(body))}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_the_cache_folder_is_all_that_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model from the hub is kept in it, so that the home folder may be one to read only."""
    hub = ThreadingHTTPServer(("127.0.0.1", 0), SmallHub)
    url, there = f"http://127.0.0.1:{hub.server_port}", constants.HUGGINGFACE_CO_URL_TEMPLATE
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", there.replace(constants.ENDPOINT, url)
    )
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name in ("HF_HOME", "HF_HUB_CACHE"):
        monkeypatch.setattr(constants, name, "/dev/null/home")
    Thread(target=hub.serve_forever, daemon=True).start()
    try:
        folder = resolve(EngineConfig(model=HUB_ID, cache_dir=tmp_path), no_convert)
    finally:
        hub.shutdown()
        hub.server_close()
    assert folder.is_relative_to(tmp_path / "hub")
    assert folder.name == COMMIT
    assert (folder / "config.json").read_text() == "{}"


@pytest.mark.parametrize(
    ("error", "kind", "reason"),
    [
        (gone(RepositoryNotFoundError), ModelNotFound, "not on the hub"),
        (gone(GatedRepoError), ModelNotFound, "gated"),
        (OfflineModeIsEnabled("offline"), ModelFetchFailed, "network"),
        (httpx.ConnectError("refused"), ModelFetchFailed, "network"),
        (OSError("disk full\nreally"), ModelFetchFailed, "network"),
    ],
)
def test_the_hubs_errors_become_one_line(
    monkeypatch: pytest.MonkeyPatch, error: Exception, kind: type[Exception], reason: str
) -> None:
    """Whatever the client raises is said as what the operator can do something about."""
    monkeypatch.setattr(model_source, "snapshot_download", hub(error, []))
    with pytest.raises(kind, match=reason) as caught:
        resolve(EngineConfig(model=HUB_ID, revision="abc"), no_convert)
    assert "\n" not in str(caught.value)
    assert HUB_ID in str(caught.value)


@pytest.mark.parametrize(
    "name", ["no-such-model", "/no/such/folder", "./a/b", "a/b/c", "", "a b/c"]
)
def test_a_name_of_no_kind_is_not_found(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What can be none of the three is refused without asking the hub."""
    calls: list[dict[str, object]] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(model_source, "snapshot_download", hub(tmp_path, calls))
    with pytest.raises(ModelNotFound, match="smollm2-135m-instruct"):
        resolve(EngineConfig(model=name), no_convert)
    assert not calls


def test_a_file_is_no_model(tmp_path: Path) -> None:
    """A path to a weights file is told what a model is."""
    path = tmp_path / "model.gguf"
    path.touch()
    with pytest.raises(UnsupportedModel, match="is a file"):
        resolve(EngineConfig(model=str(path)), no_convert)


def test_revisions_are_for_the_hub_only(tmp_path: Path) -> None:
    """A revision that could only be ignored is refused."""
    for model in (str(tmp_path), "smollm2-135m-instruct"):
        with pytest.raises(UnsupportedModel, match="no revisions"):
            resolve(EngineConfig(model=model, revision="abc"), no_convert)
