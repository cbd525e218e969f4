"""deploy/kubernetes as it is applied: the documents of every overlay, and the pods in them."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.deploy.kubernetes.kustomize import Document, render

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "deploy" / "kubernetes"
OVERLAYS = sorted(path.parent.name for path in FOLDER.glob("overlays/*/kustomization.yaml"))
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
IMAGE = f"chainrule:{VERSION}"


def title(document: Document) -> str:
    """What a document is called in a test's name."""
    return f"{document['kind']}/{document['metadata']['name']}"


class Overlay:
    """What ``kubectl apply -k`` sends of one overlay."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.documents = render(FOLDER / "overlays" / name)

    def of(self, kind: str) -> list[Document]:
        """The documents of a kind."""
        return [document for document in self.documents if document["kind"] == kind]

    def named(self, kind: str) -> set[str]:
        """The names of the documents of a kind."""
        return {document["metadata"]["name"] for document in self.of(kind)}

    def pods(self) -> list[Pod]:
        """Every pod that is started; KServe's has its containers from the runtime."""
        made = [
            Pod(document, document["spec"]["template"]["spec"], _labels(document["spec"]))
            for document in [*self.of("Deployment"), *self.of("Job")]
        ]
        for service, runtime in zip(
            self.of("InferenceService"), self.of("ServingRuntime"), strict=True
        ):
            predictor = service["spec"]["predictor"]
            made.append(Pod(service, predictor | runtime["spec"], {}))
        return made

    def containers(self) -> Iterator[tuple[Pod, Document]]:
        """Every container, with the pod that it is in."""
        for pod in self.pods():
            for container in pod.containers:
                yield pod, container


@dataclass(frozen=True)
class Pod:
    """A pod's specification, what makes it, and its labels."""

    owner: Document
    spec: dict[str, Any]
    labels: dict[str, str]

    @property
    def containers(self) -> list[Document]:
        """Those that run, and those that run first."""
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]

    @property
    def servers(self) -> list[Document]:
        """Those of chainrule that serve; those of a Job end."""
        if self.owner["kind"] == "Job":
            return []
        return [one for one in self.spec["containers"] if is_ours(one)]

    def ports(self) -> dict[str, int]:
        """Its ports by name."""
        return {
            port["name"]: port["containerPort"]
            for container in self.containers
            for port in container.get("ports", [])
        }


def is_ours(container: Document) -> bool:
    """Whether a container is of chainrule's own image."""
    return str(container["image"]).partition(":")[0] == "chainrule"


def environment(container: Document) -> dict[str, str]:
    """What Kubernetes sets in a container."""
    return {one["name"]: _value(container, one) for one in container.get("env", [])}


def _value(container: Document, variable: Document) -> str:
    if "value" in variable:
        return str(variable["value"])
    resource = variable["valueFrom"]["resourceFieldRef"]["resource"]
    kind, name = resource.split(".")
    return str(container["resources"][kind][name])


def _labels(spec: Document) -> dict[str, str]:
    labels: dict[str, str] = spec["template"]["metadata"]["labels"]
    return labels


ALL = [Overlay(name) for name in OVERLAYS]
