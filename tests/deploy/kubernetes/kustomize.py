"""The part of kustomize that deploy/kubernetes uses, so that its overlays are tested without it.

``test_kubectl.py`` compares what comes out of it with what the real one makes of the same folders.
Whatever is not used there is refused: it is not known here what it would do.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

Document = dict[str, Any]
Key = tuple[str, str]

FIELDS = {"apiVersion", "kind", "namespace", "resources", "components", "patches"}
CLUSTER_WIDE = {"Namespace", "ClusterRole", "ClusterRoleBinding", "PersistentVolume"}
PATCHED_KINDS = {"Deployment", "NetworkPolicy", "Service"}
"""Custom resources have lists without keys, which are replaced as a whole."""

LIST_KEYS = {
    "containers": ("name",),
    "initContainers": ("name",),
    "volumes": ("name",),
    "env": ("name",),
    "volumeMounts": ("mountPath",),
    "ports": ("containerPort", "port"),
}
"""What items of a list are told apart by, in a patch of Kubernetes' own kinds."""


class Unsupported(ValueError):
    """The folder asks for what this renderer does not do, or does not hold what it names."""


def render(folder: Path) -> list[Document]:
    """Every document that ``kubectl apply -k`` would send, in no particular order."""
    return list(_rendered(folder, {}).values())


def documents_in(path: Path) -> Iterator[Document]:
    """The documents of one file."""
    yield from (document for document in yaml.safe_load_all(path.read_text()) if document)


def _rendered(folder: Path, documents: dict[Key, Document]) -> dict[Key, Document]:
    (kustomization,) = documents_in(folder / "kustomization.yaml")
    if unknown := kustomization.keys() - FIELDS:
        raise Unsupported(f"{folder.name}: {', '.join(sorted(unknown))}")
    for name in kustomization.get("resources", []):
        for document in _resource(folder / name):
            _add(documents, document)
    for name in kustomization.get("components", []):
        _rendered(folder / name, documents)
    for patch in kustomization.get("patches", []):
        _patch_all(documents, folder, patch)
    if "namespace" in kustomization:
        _move(documents, kustomization["namespace"])
    return documents


def _patch_all(documents: dict[Key, Document], folder: Path, patch: Document) -> None:
    if patch.keys() != {"path"}:
        raise Unsupported(f"{folder.name}: a patch of {', '.join(sorted(patch))}")
    for change in documents_in(folder / patch["path"]):
        _patch(documents, change)


def _move(documents: dict[Key, Document], namespace: str) -> None:
    for (kind, _), document in documents.items():
        if kind not in CLUSTER_WIDE:
            document["metadata"]["namespace"] = namespace
        for subject in document.get("subjects", []):
            if (subject["kind"], subject["name"]) in documents:
                subject["namespace"] = namespace


def _resource(path: Path) -> Iterator[Document]:
    return iter(render(path)) if path.is_dir() else documents_in(path)


def _add(documents: dict[Key, Document], document: Document) -> None:
    if (key := _key(document)) in documents:
        raise Unsupported(f"{key} is there twice")
    documents[key] = document


def _patch(documents: dict[Key, Document], change: Document) -> None:
    key = _key(change)
    if key not in documents:
        raise Unsupported(f"no {key} to patch")
    if change["kind"] not in PATCHED_KINDS:
        raise Unsupported(f"a patch of a {change['kind']}")
    documents[key] = _merged(documents[key], change)


def _key(document: Document) -> Key:
    return document["kind"], document["metadata"]["name"]


def _merged(old: Document, change: Document) -> Document:
    """Mappings are merged; null removes; lists are merged where they have a key, else replaced."""
    new = dict(old)
    for name, value in change.items():
        if value is None:
            new.pop(name, None)
        elif isinstance(value, dict) and isinstance(old.get(name), dict):
            new[name] = _merged(old[name], value)
        elif isinstance(value, list) and name in LIST_KEYS and old.get(name):
            new[name] = _merged_list(old[name], value, LIST_KEYS[name])
        else:
            new[name] = deepcopy(value)
    return new


def _merged_list(
    old: list[Document], change: list[Document], keys: tuple[str, ...]
) -> list[Document]:
    """What is new comes first, as with the real one."""
    key = next(key for key in keys if key in change[0])
    changes = {item[key]: item for item in change}
    known = {item[key] for item in old}
    added = [deepcopy(item) for item in change if item[key] not in known]
    return added + [_merged(item, changes.get(item[key], {})) for item in old]
