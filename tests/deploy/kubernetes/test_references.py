"""What one document says of another: names, labels and ports that must agree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jsonschema
import pytest
import yaml

from app.schemas.bounds import MAX_TIMEOUT_MS
from app.settings import Settings
from deploy.ray.scaling import TARGET_BUSY, TARGET_QUEUED_SECONDS
from tests.deploy.kubernetes.kustomize import Document
from tests.deploy.kubernetes.overlays import ALL, ROOT, Overlay, Pod, environment

SCALED_ON = {
    "job:chainrule_queued_seconds:sum_avg1m": f"{TARGET_QUEUED_SECONDS:g}",
    "job:chainrule_busy_seconds:sum_rate2m": f"{TARGET_BUSY:g}",
}
"""What autoscalers divide by what, as with Ray."""

OVERLAYS = pytest.mark.parametrize("overlay", ALL, ids=[overlay.name for overlay in ALL])


def one(name: str) -> Overlay:
    """An overlay by name."""
    (found,) = [overlay for overlay in ALL if overlay.name == name]
    return found


def selected(overlay: Overlay, selector: dict[str, Any]) -> list[Pod]:
    """The pods that a selector means."""
    labels = selector.get("matchLabels", selector)
    return [pod for pod in overlay.pods() if labels.items() <= pod.labels.items()]


def servers(overlay: Overlay) -> list[Pod]:
    """The pods that serve."""
    return [pod for pod in overlay.pods() if pod.servers and pod.labels]


@OVERLAYS
def test_selectors_mean_the_servers(overlay: Overlay) -> None:
    """All of them, and nobody else: the picker's own mean the picker."""
    for kind in ("Deployment", "Service", "PodDisruptionBudget", "InferencePool"):
        for document in overlay.of(kind):
            pods = selected(overlay, document["spec"]["selector"])
            name = document["metadata"]["name"]
            assert [pod.owner["metadata"]["name"] for pod in pods] == [name], kind
    for policy in overlay.of("NetworkPolicy"):
        assert selected(overlay, policy["spec"]["podSelector"]) == servers(overlay)
    for pod in servers(overlay):
        for spread in pod.spec["topologySpreadConstraints"]:
            assert selected(overlay, spread["labelSelector"]) == servers(overlay)


@OVERLAYS
def test_everything_is_in_one_namespace(overlay: Overlay) -> None:
    """So are the subjects of its roles."""
    assert {document["metadata"]["namespace"] for document in overlay.documents} == {"chainrule"}
    for binding in overlay.of("RoleBinding"):
        assert binding["roleRef"]["name"] in overlay.named(binding["roleRef"]["kind"])
        for subject in binding["subjects"]:
            assert subject["name"] in overlay.named(subject["kind"])
            assert subject["namespace"] == "chainrule"


@OVERLAYS
def test_ports_are_the_pods(overlay: Overlay) -> None:
    """By name or by number."""
    for service in overlay.of("Service"):
        (pod,) = selected(overlay, service["spec"]["selector"])
        for port in service["spec"]["ports"]:
            assert pod.ports()[port["targetPort"]] == port["port"]
    for policy in overlay.of("NetworkPolicy"):
        for pod in selected(overlay, policy["spec"]["podSelector"]):
            opened = [
                port["port"] for rule in policy["spec"].get("ingress", []) for port in rule["ports"]
            ]
            assert set(opened) <= pod.ports().keys()
    for pool in overlay.of("InferencePool"):
        (pod,) = selected(overlay, pool["spec"]["selector"])
        assert [port["number"] for port in pool["spec"]["targetPorts"]] == [pod.ports()["http"]]


@OVERLAYS
def test_volumes_are_there(overlay: Overlay) -> None:
    """Each mount's in its pod, and each claim and each map of files in the overlay."""
    for pod in overlay.pods():
        volumes = {volume["name"]: volume for volume in pod.spec["volumes"]}
        mounts = {mount["name"] for box in pod.containers for mount in box["volumeMounts"]}
        assert mounts == volumes.keys()
        for volume in volumes.values():
            if "persistentVolumeClaim" in volume:
                claim = volume["persistentVolumeClaim"]["claimName"]
                assert claim in overlay.named("PersistentVolumeClaim")
            if "configMap" in volume:
                assert volume["configMap"]["name"] in overlay.named("ConfigMap")
        if "serviceAccountName" in pod.spec:
            assert pod.spec["serviceAccountName"] in overlay.named("ServiceAccount")


@OVERLAYS
def test_a_volume_of_models_is_open_to_the_group_of_the_user(overlay: Overlay) -> None:
    """What Kubernetes mounts is root's, until fsGroup gives it to the group."""
    for pod in overlay.pods():
        owned = {"secret", "persistentVolumeClaim"}
        if any(owned & volume.keys() for volume in pod.spec["volumes"]):
            assert pod.spec["securityContext"]["fsGroup"] == 10_001


def test_what_is_scraped_is_the_metrics_port() -> None:
    """Of the Service that the monitor's labels mean, where the server answers without a key."""
    for name in ("autoscaled", "inference-pool"):
        overlay = one(name)
        (monitor,) = overlay.of("ServiceMonitor")
        labels = monitor["spec"]["selector"]["matchLabels"]
        (service,) = [
            service
            for service in overlay.of("Service")
            if labels.items() <= service["metadata"]["labels"].items()
        ]
        (endpoint,) = monitor["spec"]["endpoints"]
        ports = {port["name"]: port["port"] for port in service["spec"]["ports"]}
        (pod,) = servers(overlay)
        (server,) = pod.servers
        port = environment(server)["CHAINRULE_METRICS_PORT"]
        assert str(ports[endpoint["port"]]) == str(pod.ports()["metrics"]) == port


def recorded(name: str) -> str:
    """What Prometheus' own rules say to scale on, of all servers together."""
    rules = yaml.safe_load((ROOT / "deploy" / "prometheus" / "rules.yaml").read_text())
    every = [rule for group in rules["groups"] for rule in group["rules"]]
    (rule,) = [rule for rule in every if rule["record"] == name]
    return str(rule["expr"]).replace("sum by (namespace, job) ", "sum")


def test_the_autoscaler_scales_the_server() -> None:
    """It, and nobody else, says how many there are; and an eviction leaves one of the fewest."""
    overlay = one("autoscaled")
    (scaled,) = overlay.of("ScaledObject")
    (deployment,) = overlay.of("Deployment")
    assert scaled["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert "replicas" not in deployment["spec"]
    (service,) = overlay.of("Service")
    # A ServiceMonitor's job is called as the Service is.
    labels = f'namespace="{service["metadata"]["namespace"]}",job="{service["metadata"]["name"]}"'
    triggers = scaled["spec"]["triggers"]
    assert {
        trigger["metadata"]["query"]: trigger["metadata"]["threshold"] for trigger in triggers
    } == {
        recorded(name).replace("[", f"{{{labels}}}["): target for name, target in SCALED_ON.items()
    }
    for trigger in triggers:
        # Nothing known is no empty queue; and only an average has a fallback.
        assert trigger["metadata"]["ignoreNullValues"] == "false"
        assert trigger["metricType"] == "AverageValue"
    (budget,) = overlay.of("PodDisruptionBudget")
    assert scaled["spec"]["minReplicaCount"] > budget["spec"]["maxUnavailable"]


def test_a_fleet_does_not_shrink_because_prometheus_is_away() -> None:
    """It keeps what it has, and at least what lies between the bounds."""
    (scaled,) = one("autoscaled").of("ScaledObject")
    spec = scaled["spec"]
    assert spec["fallback"]["behavior"] == "currentReplicasIfHigher"
    assert spec["minReplicaCount"] <= spec["fallback"]["replicas"] <= spec["maxReplicaCount"]


def test_the_page_on_monitoring_scales_on_the_same_numbers() -> None:
    """By the names under which they are recorded, with a fallback that keeps replicas, too."""
    text = (ROOT / "docs" / "monitoring.md").read_text()
    (block,) = [part for part in text.split("```")[1::2] if part.startswith("yaml\nfallback:")]
    shown = yaml.safe_load(block.removeprefix("yaml\n"))
    (scaled,) = one("autoscaled").of("ScaledObject")
    assert shown["fallback"] == scaled["spec"]["fallback"]
    triggers = [trigger["metadata"] for trigger in shown["triggers"]]
    assert [(read["query"], read["threshold"], read["ignoreNullValues"]) for read in triggers] == [
        (f'{name}{{job="chainrule"}}', target, "false") for name, target in SCALED_ON.items()
    ]


def test_kserve_starts_the_runtime_that_is_here() -> None:
    """By its name, with a format that it knows, where KServe puts the model."""
    overlay = one("kserve")
    (runtime,) = overlay.of("ServingRuntime")
    (service,) = overlay.of("InferenceService")
    model = service["spec"]["predictor"]["model"]
    assert model["runtime"] == runtime["metadata"]["name"]
    formats = [known["name"] for known in runtime["spec"]["supportedModelFormats"]]
    assert model["modelFormat"]["name"] in formats
    (container,) = runtime["spec"]["containers"]
    assert container["name"] == "kserve-container"
    assert environment(container)["CHAINRULE_MODEL"] == "/mnt/models"
    assert environment(container)["CHAINRULE_PORT"] == str(container["ports"][0]["containerPort"])


def test_the_route_leads_to_the_pool_and_the_pool_to_the_picker() -> None:
    """A request may take as long there as the server lets it."""
    overlay = one("inference-pool")
    (route,) = overlay.of("HTTPRoute")
    (rule,) = route["spec"]["rules"]
    (backend,) = rule["backendRefs"]
    (pool,) = overlay.of("InferencePool")
    assert (backend["kind"], backend["name"]) == (pool["kind"], pool["metadata"]["name"])
    assert backend["group"] == pool["apiVersion"].partition("/")[0]
    longest_ms = Settings().default_timeout_ms
    assert rule["timeouts"]["request"] == f"{longest_ms // 1000}s" and longest_ms <= MAX_TIMEOUT_MS
    reference = pool["spec"]["endpointPickerRef"]
    (service,) = [s for s in overlay.of("Service") if s["metadata"]["name"] == reference["name"]]
    assert reference["port"]["number"] in [port["port"] for port in service["spec"]["ports"]]


def picker(overlay: Overlay) -> tuple[Pod, Document]:
    """The picker's pod and its container."""
    (pod,) = [pod for pod in overlay.pods() if not pod.servers]
    (container,) = pod.containers
    return pod, container


def test_the_picker_is_told_of_the_pool_and_of_its_file() -> None:
    """By its arguments."""
    overlay = one("inference-pool")
    pod, container = picker(overlay)
    flags = dict(argument.removeprefix("--").split("=", 1) for argument in container["args"])
    (pool,) = overlay.of("InferencePool")
    assert flags["pool-name"] == pool["metadata"]["name"]
    assert flags["pool-group"] == pool["apiVersion"].partition("/")[0]
    (mount,) = container["volumeMounts"]
    (settings,) = overlay.of("ConfigMap")
    assert flags["config-file"] == f"{mount['mountPath']}/{next(iter(settings['data']))}"
    for probe in ("readinessProbe", "livenessProbe"):
        assert str(container[probe]["grpc"]["port"]) == flags["grpc-health-port"]
        assert container[probe]["grpc"]["port"] in pod.ports().values()


def closed_object(required: list[str], **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": required,
        "properties": properties,
    }


TEXT = {"type": "string"}
REFERENCE = closed_object(["pluginRef"], pluginRef=TEXT)


def many(item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "minItems": 1, "items": item}


PICKER_CONFIG = closed_object(
    ["apiVersion", "kind", "plugins", "schedulingProfiles"],
    apiVersion={"const": "llm-d.ai/v1alpha1"},
    kind={"const": "EndpointPickerConfig"},
    plugins=many(closed_object(["type"], name=TEXT, type=TEXT, parameters={"type": "object"})),
    requestHandler=closed_object(["parsers"], parsers=many(REFERENCE)),
    dataLayer=closed_object(
        ["sources"],
        sources=many(
            closed_object(["pluginRef", "extractors"], pluginRef=TEXT, extractors=many(REFERENCE))
        ),
    ),
    schedulingProfiles=many(
        closed_object(
            ["name", "plugins"],
            name=TEXT,
            plugins=many(closed_object(["pluginRef"], pluginRef=TEXT, weight={"type": "number"})),
        )
    ),
)
"""The fields used here of ``EndpointPickerConfig`` in llm-d's router, release v0.10.0."""


def references(value: Any) -> set[str]:
    """Every plugin that a part of the file names."""
    if isinstance(value, list):
        return set().union(*(references(item) for item in value))
    if not isinstance(value, dict):
        return set()
    found = {value["pluginRef"]} if "pluginRef" in value else set()
    return found.union(*(references(item) for item in value.values()))


def picker_config() -> dict[str, Any]:
    """The picker's own file."""
    (settings,) = one("inference-pool").of("ConfigMap")
    (text,) = settings["data"].values()
    config: dict[str, Any] = yaml.safe_load(text)
    return config


def test_the_pickers_file_uses_the_plugins_that_it_lists() -> None:
    """It reads our metrics, under vLLM's names, and sends a session where it was before."""
    config = picker_config()
    jsonschema.validate(config, PICKER_CONFIG)
    plugins = {plugin["type"]: plugin.get("parameters", {}) for plugin in config["plugins"]}
    assert references(config) <= plugins.keys()
    # Only the handler of the one profile is used without being named.
    assert plugins.keys() - references(config) == {"single-profile-handler"}
    (pod,) = servers(one("inference-pool"))
    (server,) = pod.servers
    assert plugins["metrics-data-source"]["port"] == pod.ports()["metrics"]
    assert environment(server)["CHAINRULE_METRICS_DIALECT"] == "vllm"
    sessions = plugins["session-affinity-scorer"]
    assert sessions["sessionIdConfig"]["sources"] == [{"header": "x-session-id"}]


def test_a_busy_replica_gives_its_session_away() -> None:
    """At the number of waiting requests that the file's first lines tell."""
    config = picker_config()
    (profile,) = config["schedulingProfiles"]
    weights = {entry["pluginRef"]: entry.get("weight", 1) for entry in profile["plugins"]}
    (threshold,) = [
        plugin["parameters"]["threshold"]
        for plugin in config["plugins"]
        if plugin["type"] == "load-aware-scorer"
    ]

    def score(waiting: int, here: bool) -> float:
        load = 0.5 * (1 - min(waiting, threshold) / threshold)
        return float(
            weights["load-aware-scorer"] * load + weights["session-affinity-scorer"] * here
        )

    assert score(7, True) > score(0, False) > score(9, True)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda config: config["plugins"][0].update(typ="x"),
        lambda config: config["schedulingProfiles"][0].pop("name"),
        lambda config: config.update(schedulingProfile=[]),
        lambda config: config["dataLayer"]["sources"][0].update(extractors=[]),
    ],
)
def test_a_mistake_in_the_pickers_file_is_found(spoil: Callable[[Document], object]) -> None:
    """The check can fail."""
    config = picker_config()
    spoil(config)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(config, PICKER_CONFIG)
