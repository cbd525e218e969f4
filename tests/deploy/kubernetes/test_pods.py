"""What a pod of every overlay may do, what it is given, and whether the server takes that."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.environment import PREFIX, env_name
from app.http.lifecycle import GRACE_S
from app.http.middleware.authentication import OPEN_PATHS
from app.main import create_app
from app.server import CLOSING_S
from app.settings import Settings
from model_runtime.kv_cache.logprob_rows import row_budget
from model_runtime.loading.builtin import BUILTIN_MODELS
from model_runtime.memory.estimate import ModelShape, largest_batch_bytes
from tests.deploy.kubernetes.kustomize import Document
from tests.deploy.kubernetes.overlays import (
    ALL,
    FOLDER,
    IMAGE,
    ROOT,
    VERSION,
    Overlay,
    Pod,
    environment,
    is_ours,
)
from tests.deploy.kubernetes.schemas import VERSIONS

MIB, GIB = 1 << 20, 1 << 30
UNITS = {"": 1, "Mi": MIB, "Gi": GIB}

PODS = [
    pytest.param(pod, id=f"{overlay.name}-{pod.owner['metadata']['name']}")
    for overlay in ALL
    for pod in overlay.pods()
]
SERVERS = [
    pytest.param(pod, server, id=f"{overlay.name}-{server['name']}")
    for overlay in ALL
    for pod in overlay.pods()
    for server in pod.servers
]
OWN = [
    pytest.param(pod, container, id=f"{overlay.name}-{container['name']}")
    for overlay in ALL
    for pod, container in overlay.containers()
    if is_ours(container)
]


def test_every_overlay_serves() -> None:
    """The lists below leave none out."""
    assert len(SERVERS) == len(ALL) > 5


@pytest.mark.parametrize("pod", PODS)
def test_no_pod_may_more_than_it_needs(pod: Pod) -> None:
    """As the pod security standard «restricted» asks, and with a root that nobody writes to."""
    for container in pod.containers:
        context = pod.spec.get("securityContext", {}) | container["securityContext"]
        assert context["runAsNonRoot"] is True
        assert context["runAsUser"] >= 10_000
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
    assert pod.spec["enableServiceLinks"] is False
    has_account = "serviceAccountName" in pod.spec
    assert has_account is pod.spec.get("automountServiceAccountToken", True)
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.spec.keys()


@pytest.mark.parametrize(("pod", "container"), OWN)
def test_own_containers_are_of_the_released_image(pod: Pod, container: Document) -> None:
    """By its version, as the user that it is made for."""
    context = pod.spec.get("securityContext", {}) | container["securityContext"]
    user = re.findall(r"^USER (\d+):(\d+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert container["image"] == IMAGE
    assert (context["runAsUser"], context["runAsGroup"]) == tuple(map(int, user[-1]))


def test_the_compose_file_is_of_the_same_version() -> None:
    """Both start what is released."""
    compose = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())
    service = compose["services"]["chainrule"]
    assert service["image"] == IMAGE and service["build"]["args"]["VERSION"] == VERSION


@pytest.mark.parametrize(("pod", "server"), SERVERS)
def test_the_environment_is_one_to_start_with(
    pod: Pod, server: Document, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each variable is a setting with a good value; the key file is in the volume of the keys."""
    given = environment(server)
    assert given.keys() <= {env_name(field) for field in Settings.model_fields}
    folder, _, file = given["CHAINRULE_API_KEY_FILE"].rpartition("/")
    (mount,) = [one for one in server["volumeMounts"] if one["mountPath"] == folder]
    (volume,) = [one for one in pod.spec["volumes"] if one["name"] == mount["name"]]
    assert volume["secret"]["secretName"] == "chainrule-api-keys"
    assert f"--from-literal={file}=" in (ROOT / "docs" / "kubernetes.md").read_text()
    keys = tmp_path / file
    keys.write_text("a-key\n")
    image = {"CHAINRULE_HOST": "0.0.0.0", "CHAINRULE_PORT": "8000"}
    for name, value in (image | given | {"CHAINRULE_API_KEY_FILE": str(keys)}).items():
        monkeypatch.setenv(name, value)
    settings = Settings.read()
    assert settings.keys() == ("a-key",)
    assert settings.port in pod.ports().values()
    assert str(settings.threads) == server["resources"]["requests"]["cpu"]


def test_a_variable_that_is_no_setting_would_be_found() -> None:
    """The test above can fail."""
    server = {"env": [{"name": f"{PREFIX}THREAD", "value": "2"}]}
    assert not environment(server).keys() <= {env_name(field) for field in Settings.model_fields}


@cache
def routes() -> set[str]:
    """Those of the app."""
    app = create_app(Settings(), load=lambda: pytest.fail("nothing is loaded"))
    return set(app.openapi()["paths"])


@pytest.mark.parametrize(("pod", "server"), SERVERS)
def test_probes_ask_what_is_there(pod: Pod, server: Document) -> None:
    """Routes of the app that want no key, at the port that it listens on."""
    port = int(environment(server).get("CHAINRULE_PORT", 8000))
    for name, path in (
        ("startupProbe", "/health/ready"),
        ("readinessProbe", "/health/ready"),
        ("livenessProbe", "/health/live"),
    ):
        asked = server[name]["httpGet"]
        assert asked["path"] == path and path in OPEN_PATHS & routes()
        assert pod.ports().get(asked["port"], asked["port"]) == port


@pytest.mark.parametrize(("pod", "server"), SERVERS)
def test_the_grace_period_outlasts_the_drain(pod: Pod, server: Document) -> None:
    """preStop, delay, drain timeout and what may follow it; five seconds are left over."""
    settings = Settings(**_numbers(environment(server), "drain_delay_s", "drain_timeout_s"))
    before = server["lifecycle"]["preStop"]["sleep"]["seconds"] + settings.drain_delay_s
    after = 3 * GRACE_S + CLOSING_S
    # Whoever asks for readiness must have heard of its end.
    probe = server["readinessProbe"]
    assert settings.drain_delay_s >= probe["periodSeconds"] * probe["failureThreshold"]
    drain = settings.drain_timeout_s
    assert pod.spec["terminationGracePeriodSeconds"] >= before + drain + after + 5


@pytest.mark.parametrize(("pod", "server"), SERVERS)
def test_a_start_may_take_half_an_hour(pod: Pod, server: Document) -> None:
    """As where a large model has to be read, or fetched."""
    probe = server["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] >= 1800


@pytest.mark.parametrize(("pod", "server"), SERVERS)
def test_the_memory_limit_fits_the_default_model(pod: Pod, server: Document) -> None:
    """Weights twice, as while they are laid out, keys and values, and the largest batch."""
    settings = Settings(**_numbers(environment(server), "kv_cache_bytes", "max_batch_tokens"))
    if settings.device != "cpu" and "CHAINRULE_DEVICE" in environment(server):
        return  # keys, values and batches are in the card's memory
    smollm2 = ModelShape(30, 576, 1536, 9, 3, 64, 49_152)
    weights, process = 134_515_008 * 4, 512 * MIB
    kept = int(settings.kv_cache_bytes) + row_budget(int(settings.kv_cache_bytes))
    batch = largest_batch_bytes(smollm2, settings.max_batch_tokens, 8192)
    limit = size(server["resources"]["limits"]["memory"])
    assert limit >= 2 * weights + process + kept + batch
    assert server["resources"]["requests"]["memory"] == server["resources"]["limits"]["memory"]


def size(text: str) -> int:
    """Bytes of a quantity such as 6Gi."""
    number, unit = re.fullmatch(r"(\d+)(\D*)", text).groups()  # type: ignore[union-attr]
    return int(number) * UNITS[unit]


def _numbers(given: dict[str, str], *fields: str) -> dict[str, Any]:
    return {field: given[env_name(field)] for field in fields if env_name(field) in given}


@pytest.mark.parametrize("overlay", ALL, ids=[overlay.name for overlay in ALL])
def test_what_is_fetched_is_what_is_served(overlay: Overlay) -> None:
    """Into the folder that the server reads, which it cannot write to."""
    fetching = [one for _, one in overlay.containers() if one["name"] == "fetch-model"]
    assert bool(fetching) is (overlay.name in {"fetched-model", "model-volume"})
    for container in fetching:
        command, verb, model = container["args"]
        assert (command, verb) == ("model", "fetch") and model in BUILTIN_MODELS
        (mount,) = [one for one in container["volumeMounts"] if one["name"] == "models"]
        (server,) = [server for pod in overlay.pods() for server in pod.servers]
        assert environment(server)["CHAINRULE_MODEL"] == model
        assert mount | {"readOnly": True} in server["volumeMounts"]
        assert f"CHAINRULE_CACHE_DIR={mount['mountPath']} " in (ROOT / "Dockerfile").read_text()


def test_the_page_names_every_overlay() -> None:
    """And the release of Kubernetes that the schemas are of."""
    text = (ROOT / "docs" / "kubernetes.md").read_text()
    named = set(re.findall(r"kubectl apply -k deploy/kubernetes/overlays/(\S+)", text))
    assert named == {overlay.name for overlay in ALL}
    assert f"Kubernetes {VERSIONS[0]} or later." in text


def test_no_key_is_kept_here() -> None:
    """Secrets are made by their users."""
    assert not [one for overlay in ALL for one in overlay.of("Secret")]
    text = "".join(path.read_text() for path in FOLDER.rglob("*.yaml"))
    assert "CHAINRULE_API_KEYS" not in text and "ALLOW_UNAUTHENTICATED" not in text
