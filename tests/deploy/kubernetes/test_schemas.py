"""Every document of every overlay, as the API server would check it, and that the check sees."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.kubernetes.kustomize import Document, Unsupported, documents_in, render
from tests.deploy.kubernetes.overlays import ALL, FOLDER, title
from tests.deploy.kubernetes.schemas import SCHEMAS, Invalid, check, closed

FREE = {
    *("labels", "annotations", "matchLabels", "nodeSelector", "data"),
    *("requests", "limits"),
}
"""Mappings whose keys are anybody's choice."""


def files(field: str) -> set[Path]:
    """Those that kustomizations name as resources, or as patches."""
    found = set()
    for path in FOLDER.rglob("kustomization.yaml"):
        (kustomization,) = documents_in(path)
        for named in kustomization.get(field, []):
            file = path.parent / (named if isinstance(named, str) else named["path"])
            found |= {file} if file.is_file() else set()
    return found


RESOURCES, PATCHES = files("resources"), files("patches")

DOCUMENTS = [
    pytest.param(document, id=f"{overlay.name}-{title(document)}")
    for overlay in ALL
    for document in overlay.documents
]

WHOLE_DOCUMENTS = [
    pytest.param(document, id=f"{path.relative_to(FOLDER)}-{title(document)}")
    for path in sorted(RESOURCES)
    for document in documents_in(path)
]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_a_document_is_valid(document: Document) -> None:
    """It has the fields of its kind, and no others."""
    check(document)


def fields(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all fields that have a fixed name."""
    if isinstance(value, dict):
        for name, below in value.items():
            yield (*path, name)
            if not is_free(name, value):
                yield from fields(below, (*path, name))
    elif isinstance(value, list):
        for index, below in enumerate(value):
            yield from fields(below, (*path, index))


def is_free(name: str, holder: Document) -> bool:
    """Whether a field's own fields are: of a Service the selector is, of a trigger what it says."""
    return (
        name in FREE
        or (name == "selector" and "ports" in holder)
        or (name == "metadata" and "type" in holder)
    )


def misspelt(document: Document, path: tuple[Any, ...]) -> Document:
    """The document with an x behind a field's name."""
    copy = deepcopy(document)
    holder: Any = copy
    for step in path[:-1]:
        holder = holder[step]
    holder[f"{path[-1]}x"] = holder.pop(path[-1])
    return copy


@pytest.mark.parametrize("document", WHOLE_DOCUMENTS)
def test_every_misspelt_field_is_found(document: Document) -> None:
    """Whichever it is, at any depth."""
    paths = [path for path in fields(document) if path not in {("apiVersion",), ("kind",)}]
    assert len(paths) >= 3
    missed = []
    for path in paths:
        try:
            check(misspelt(document, path))
        except (Invalid, KeyError):
            continue
        missed.append(path)
    assert missed == []


def test_every_file_is_part_of_an_overlay() -> None:
    """None is left over that nobody renders."""
    every = set(FOLDER.rglob("*.yaml")) - set(FOLDER.rglob("kustomization.yaml"))
    assert every == RESOURCES | PATCHES


def test_every_schema_is_used() -> None:
    """Those of custom resources are here for a document each."""
    made = {
        f"{document['kind'].lower()}-{document['apiVersion'].replace('/', '-')}.json"
        for overlay in ALL
        for document in overlay.documents
    }
    assert {path.name for path in SCHEMAS.glob("*.json")} <= made


def test_a_kind_without_a_schema_is_no_valid_document() -> None:
    """Neither one of Kubernetes' own groups, nor a custom resource."""
    for group in ("apps/v1", "example.com/v1"):
        with pytest.raises(Invalid, match="Unheard"):
            check({"apiVersion": group, "kind": "Unheard", "metadata": {"name": "x"}})


def test_closed_schemas_refuse_what_they_do_not_name() -> None:
    """But where fields are anybody's; conditions name fields that are defined elsewhere."""
    condition = {"anyOf": [{"required": ["a"]}]}
    leaf = {"type": "string", "nullable": True}
    open_map = {"type": "object", "additionalProperties": {"properties": {"b": leaf}}}
    kept = {"properties": {}, "x-kubernetes-preserve-unknown-fields": True}
    schema = {"properties": {"a": leaf, "m": open_map, "k": kept}, **condition}
    made = closed(schema)
    assert made["additionalProperties"] is False
    assert made["anyOf"] == condition["anyOf"]
    assert made["properties"]["a"]["type"] == ["string", "null"]
    assert made["properties"]["m"]["additionalProperties"]["additionalProperties"] is False
    assert "additionalProperties" not in made["properties"]["k"]


def write(folder: Path, **files: str) -> Path:
    """A folder with these files; ``_`` in a name stands for the dot."""
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text)
    return folder


SERVICE = "kind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 1, name: x}], type: T}\n"


def test_patches_merge_as_kustomize_merges(tmp_path: Path) -> None:
    """By the key of an item, new ones first; null removes."""
    change = (
        "kind: Service\nmetadata: {name: a}\n"
        "spec: {ports: [{port: 1, name: y}, {port: 2, name: z}], type: null, more: {b: 1}}\n"
    )
    text = "resources: [a.yaml]\npatches: [{path: b.yaml}]\nnamespace: here\n"
    write(tmp_path, kustomization_yaml=text, a_yaml=SERVICE, b_yaml=change)
    (document,) = render(tmp_path)
    assert document["spec"] == {
        "ports": [{"port": 2, "name": "z"}, {"port": 1, "name": "y"}],
        "more": {"b": 1},
    }
    assert document["metadata"] == {"name": "a", "namespace": "here"}


@pytest.mark.parametrize(
    ("kustomization", "reason"),
    [
        ("resources: [a.yaml]\nimages: []\n", "images"),
        ("resources: [a.yaml, a.yaml]\n", "twice"),
        ("resources: []\npatches: [{path: a.yaml}]\n", "to patch"),
        ("resources: [a.yaml]\npatches: [{path: a.yaml, target: {}}]\n", "target"),
        ("resources: [b.yaml]\npatches: [{path: b.yaml}]\n", "patch of a Other"),
    ],
)
def test_what_the_renderer_does_not_do_is_refused(
    tmp_path: Path, kustomization: str, reason: str
) -> None:
    """So that no overlay is tested as something that it is not."""
    other = "kind: Other\nmetadata: {name: b}\n"
    write(tmp_path, kustomization_yaml=kustomization, a_yaml=SERVICE, b_yaml=other)
    with pytest.raises(Unsupported, match=reason):
        render(tmp_path)
