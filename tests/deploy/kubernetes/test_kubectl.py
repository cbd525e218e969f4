"""What the real kustomize, in kubectl, makes of the overlays. ``make fleet-test`` fetches it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.kubernetes.kustomize import Document, documents_in
from tests.deploy.kubernetes.overlays import ALL, FOLDER, ROOT, Overlay, title
from tests.deploy.kubernetes.schemas import check

pytestmark = pytest.mark.fleet

FETCHED = ROOT / ".cache" / "kubectl" / "kubectl"
KUBECTL = str(FETCHED) if FETCHED.is_file() else shutil.which("kubectl")


def rendered(folder: Path) -> dict[str, Document]:
    """What ``kubectl kustomize`` prints of a folder, by kind and name."""
    assert KUBECTL, "no kubectl: make fleet-test fetches it"
    command = [KUBECTL, "kustomize", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {title(one): one for one in yaml.safe_load_all(done.stdout)}


@pytest.mark.parametrize("overlay", ALL, ids=[overlay.name for overlay in ALL])
def test_overlays_render_as_they_are_tested(overlay: Overlay) -> None:
    """Document by document, item by item."""
    real = rendered(FOLDER / "overlays" / overlay.name)
    assert real == {title(document): document for document in overlay.documents}


def own_overlay(name: str) -> str:
    """The overlay of an operator's own that docs/kubernetes.md shows, above one of ours."""
    text = (ROOT / "docs" / "kubernetes.md").read_text()
    (block,) = [
        part for part in text.split("```")[1::2] if part.startswith("yaml\napiVersion: kus")
    ]
    assert "/overlays/cpu\n" in block
    return block.removeprefix("yaml\n").replace("/overlays/cpu\n", f"/overlays/{name}\n")


@pytest.mark.parametrize("name", [overlay.name for overlay in ALL])
def test_an_operators_own_overlay(name: str, tmp_path: Path) -> None:
    """Another registry and another namespace reach every place that names them."""
    folder = tmp_path / "ours"
    shutil.copytree(FOLDER, tmp_path / "deploy" / "kubernetes")
    folder.mkdir()
    (folder / "kustomization.yaml").write_text(own_overlay(name))
    (wanted,) = documents_in(folder / "kustomization.yaml")
    documents = rendered(folder)
    names = {image["name"]: image["newName"] for image in wanted["images"]}
    for document in documents.values():
        check(document)
        assert document["metadata"]["namespace"] == wanted["namespace"]
        for image in images(document):
            assert image.rpartition(":")[0] in names.values()
        for subject in document.get("subjects", []):
            assert subject["namespace"] == wanted["namespace"]


def shown(field: str) -> str:
    """The block of docs/kubernetes.md that begins with a field of an overlay."""
    text = (ROOT / "docs" / "kubernetes.md").read_text()
    (block,) = [part for part in text.split("```")[1::2] if part.startswith(f"yaml\n{field}:\n")]
    return block.removeprefix("yaml\n")


def overlay_with(folder: Path, name: str, field: str) -> dict[str, Document]:
    """What an operator's own overlay, with a block of the page in it, makes of one of ours."""
    shutil.copytree(FOLDER, folder / "deploy" / "kubernetes")
    (folder / "ours").mkdir()
    text = own_overlay(name).partition("images:")[0] + shown(field)
    (folder / "ours" / "kustomization.yaml").write_text(text)
    return rendered(folder / "ours")


def test_an_upgrade_reaches_every_container(tmp_path: Path) -> None:
    """The one that fetches the model, too."""
    documents = overlay_with(tmp_path, "fetched-model", "images")
    (image,) = yaml.safe_load(shown("images"))["images"]
    found = images(documents["Deployment/chainrule"])
    assert found == [f"{image['newName']}:{image['newTag']}"] * 2


def test_a_label_for_prometheus_changes_no_selector(tmp_path: Path) -> None:
    """The monitor has it; what pods are chosen by stays."""
    documents = overlay_with(tmp_path, "autoscaled", "labels")
    (label,) = yaml.safe_load(shown("labels"))["labels"]
    monitor = documents["ServiceMonitor/chainrule"]
    assert label["pairs"].items() <= monitor["metadata"]["labels"].items()
    for name in ("ServiceMonitor/chainrule", "Deployment/chainrule"):
        selector = documents[name]["spec"]["selector"]["matchLabels"]
        assert not label["pairs"].keys() & selector.keys()


def test_what_the_page_creates_is_what_pods_mount() -> None:
    """The secret, in the namespace of the overlays, with the keys in the file that is read."""
    lines = (ROOT / "docs" / "kubernetes.md").read_text().splitlines()
    made = [created(line) for line in lines if line.startswith("kubectl") and " create " in line]
    namespace, secret = made
    assert namespace["metadata"]["name"] == secret["metadata"]["namespace"] == "chainrule"
    assert title(secret) == "Secret/chainrule-api-keys" and list(secret["data"]) == ["keys"]
    for document in made:
        check(document)


def created(line: str) -> Document:
    """What a command of the page would create."""
    command = f"{line.replace('kubectl', str(KUBECTL), 1)} --dry-run=client -o yaml"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    document: Document = yaml.safe_load(done.stdout)
    return document


def images(value: Any) -> list[str]:
    """Every image that a document names."""
    if isinstance(value, list):
        return [image for item in value for image in images(item)]
    if not isinstance(value, dict):
        return []
    own = [value["image"]] if isinstance(value.get("image"), str) else []
    return own + [image for item in value.values() for image in images(item)]
