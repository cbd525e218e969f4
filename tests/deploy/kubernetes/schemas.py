"""Kubernetes' own word on a document: its published schemas, with unknown fields refused.

Its own kinds come with the package kubernetes-validate; those of custom resources lie in
``schemas/``, see the README there.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
from kubernetes_validate import utils

utils.schema_contents = cache(utils.schema_contents)
"""Each file is read and parsed once, and not for every document again."""

VERSIONS = ("1.30", "1.37")
"""The oldest release that docs/kubernetes.md promises, and the newest whose schemas are there."""

SCHEMAS = Path(__file__).parent / "schemas"
OWN_GROUPS = ("apps", "batch", "networking.k8s.io", "policy", "rbac.authorization.k8s.io")


class Invalid(ValueError):
    """A document that the API server would refuse, or take for less than it says."""


def check(document: dict[str, Any]) -> None:
    """Compare a document with the schema of its kind.

    Raises:
        Invalid: it does not fit, or there is no schema of that kind.
    """
    group, _, version = document["apiVersion"].rpartition("/")
    if group in ("", *OWN_GROUPS):
        _check_own(document)
        return
    path = SCHEMAS / f"{document['kind'].lower()}-{group}-{version}.json"
    if not path.is_file():
        raise Invalid(f"no schema of {document['apiVersion']} {document['kind']}")
    _check_metadata(json.dumps(document["metadata"]))
    for error in _validator(path).iter_errors(document):
        raise Invalid(f"{document['kind']} {error.json_path}: {error.message}")


def _check_own(document: dict[str, Any]) -> None:
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(document, version, strict=True)
        except (
            kubernetes_validate.ValidationError,
            kubernetes_validate.SchemaNotFoundError,
        ) as error:
            where = getattr(error, "json_path", "")
            kind = document["kind"]
            raise Invalid(f"{kind} {where} in {version}: {error.message}") from None


@cache
def _check_metadata(metadata: str) -> None:
    _check_own({"apiVersion": "v1", "kind": "ConfigMap", "metadata": json.loads(metadata)})


@cache
def _validator(path: Path) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(closed(json.loads(path.read_text())))


def closed(schema: dict[str, Any]) -> dict[str, Any]:
    """A structural schema as the API server means it: what it does not name is no field.

    Below ``allOf`` and its like there are conditions on fields that are named elsewhere.
    """
    made = dict(schema)
    if schema.get("nullable"):
        made["type"] = [schema["type"], "null"]
    if "properties" in schema:
        made["properties"] = {name: closed(one) for name, one in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            made["additionalProperties"] = False
    elif isinstance(schema.get("additionalProperties"), dict):
        made["additionalProperties"] = closed(schema["additionalProperties"])
    if "items" in schema:
        made["items"] = closed(schema["items"])
    return made
