"""The arguments of a deployment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from app.settings import SettingsError
from deploy.ray import arguments
from deploy.ray.arguments import inherited_settings, read_arguments, setting_texts


def test_the_command_lines_texts_are_read() -> None:
    """`serve run` passes on nothing but texts; a file has numbers, too."""
    for four, ten in (("4", "10"), (4, 10)):
        args = {"max_replicas": four, "threads": "2", "drain_timeout_s": ten, "model": "m"}
        own, settings = read_arguments(args)
        assert (own.max_replicas, own.num_replicas, own.router) == (4, None, "prefix")
        assert (settings.threads, settings.drain_timeout_s, settings.model) == (2, 10.0, "m")


def test_the_rest_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """An argument wins over its variable."""
    monkeypatch.setenv("CHAINRULE_THREADS", "3")
    monkeypatch.setenv("CHAINRULE_MODEL", "from-the-environment")
    _, settings = read_arguments({"threads": "1"})
    assert (settings.threads, settings.model) == (1, "from-the-environment")


def test_a_port_of_ones_own_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the environment, too: there is no port that it could be."""
    monkeypatch.setenv("CHAINRULE_METRICS_PORT", "9000")
    with pytest.raises(SettingsError, match="CHAINRULE_METRICS_PORT: "):
        read_arguments({})


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"thraeds": "1"}, "thraeds: there is no such argument, and no such setting"),
        ({"API_KEYS": "secret"}, "API_KEYS: there is no such argument"),
        ({"MODEL": "m"}, "MODEL: there is no such argument"),
        ({"rerank_labels": [1, 2]}, "rerank_labels: neither a scalar"),
        ({"model": {"name": "secret"}}, "model: neither a scalar"),
        ({"target_busy": 1.1}, "target_busy: "),
        ({"drain_delay_s": 1}, "drain_delay_s is no argument: "),
        ({"max_connections": 1}, "max_connections is no argument: "),
        ({"header_timeout_s": 1}, "header_timeout_s is no argument: "),
        ({"threads": "none"}, "CHAINRULE_THREADS (--threads): "),
        ({"num_replicas": "0"}, "num_replicas: "),
        ({"router": "random"}, "router: "),
        ({"min_replicas": 3, "max_replicas": 2}, "min_replicas is larger"),
        ({"api_keys": "secret"}, "api_keys is no argument: "),
        ({"port": "1"}, "port is no argument: "),
    ],
)
def test_refusals_are_one_line(args: dict[str, Any], message: str) -> None:
    """They name the argument, and never a key."""
    with pytest.raises(SettingsError) as caught:
        read_arguments(args)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value) and "secret" not in str(caught.value)


def test_values_of_a_file() -> None:
    """Null is not given, a list keeps its labels' spaces, booleans are as variables have them."""
    args = yaml.safe_load(
        'rerank_labels: [" yes", " no"]\nrevision: null\nthreads: null\nnum_cpus: null\n'
        "min_replicas: null\nmetrics_key: false\nnum_gpus: 1\n"
    )
    own, settings = read_arguments(args)
    assert (own.num_cpus, own.min_replicas, own.num_gpus) == (None, 1, 1)
    assert (settings.revision, settings.threads) == (None, None)
    assert settings.rerank_labels == (" yes", " no")
    assert setting_texts(args) == {"rerank_labels": " yes, no", "metrics_key": "false"}


def test_the_replicas_environment_holds_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray shows it on its dashboard."""
    monkeypatch.setenv("CHAINRULE_API_KEYS", "secret")
    monkeypatch.setenv("CHAINRULE_CLIENT_API_KEY", "secret")
    monkeypatch.setenv("CHAINRULE_MODEL", "m")
    found = inherited_settings()
    assert found["CHAINRULE_MODEL"] == "m"
    assert "secret" not in found.values()
    assert not {"CHAINRULE_API_KEYS", "CHAINRULE_CLIENT_API_KEY"} & found.keys()


def test_the_file_for_serve_deploy() -> None:
    """Its arguments are some, it listens on loopback, and cuts no request off."""
    file = Path(arguments.__file__).with_name("serve.yaml")
    config = yaml.safe_load(file.read_text())
    (application,) = config["applications"]
    own, settings = read_arguments(application["args"])
    assert application["import_path"] == "deploy.ray.service:app"
    assert own.num_replicas is None and settings.threads == 1
    assert config["http_options"]["host"] == "127.0.0.1"
    assert config["http_options"]["request_timeout_s"] is None
