"""Settings come from flags, then the environment, then defaults; a wrong one is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from app.environment import env_name
from app.settings import (
    Settings,
    SettingsError,
    client_setting,
    flag_name,
    log_ignored_variables,
)
from model_runtime import EngineConfig


def test_defaults_are_the_documented_ones() -> None:
    """Without any configuration the server listens on loopback only."""
    settings = Settings.read()
    assert (settings.host, settings.port) == ("127.0.0.1", 8000)
    assert settings.keys() == ()


def test_the_engine_gets_the_defaults_it_has_itself() -> None:
    """Nothing is written twice with different values."""
    assert Settings.read().engine_config() == EngineConfig()


def test_every_engine_setting_arrives() -> None:
    """Each value that can be set reaches the engine under its own name."""
    wanted = EngineConfig(
        model="some/model",
        revision="abc",
        served_name="mine",
        dtype="bfloat16",
        device="cuda",
        runner="padded",
        kernels="torch",
        threads=3,
        cache_dir=Path("/cache"),
        max_model_len=77,
        max_batch_tokens=55,
        max_queue_tokens=66,
        kv_cache_bytes=88,
        watchdog_timeout_s=99.0,
    )
    flags = {name: getattr(wanted, name) for name in EngineConfig.__dataclass_fields__}
    assert Settings.read(flags).engine_config() == wanted


def test_a_flag_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment is the default of the flag."""
    monkeypatch.setenv("CHAINRULE_PORT", "9001")
    assert Settings.read().port == 9001
    assert Settings.read({"port": "9002"}).port == 9002


def test_an_empty_variable_is_an_unset_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Container files that pass on an unset variable do no harm."""
    monkeypatch.setenv("CHAINRULE_REVISION", "")
    monkeypatch.setenv("CHAINRULE_PORT", "")
    assert Settings.read().revision is None
    assert Settings.read().port == 8000


def test_sizes_may_be_written_with_units(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes are read as a number or as a number with a unit."""
    monkeypatch.setenv("CHAINRULE_KV_CACHE_BYTES", "3GiB")
    assert Settings.read().kv_cache_bytes == 3 << 30


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("port", "http"),
        ("port", "65536"),
        ("dtype", "float16"),
        ("kernels", "fast"),
        ("threads", "0"),
        ("max_body_bytes", "-1"),
        ("max_body_bytes", "many"),
        ("score_cache_bytes", "-1"),
        ("max_candidates", "0"),
        ("drain_timeout_s", "nan"),
        ("drain_timeout_s", "inf"),
        ("log_format", "yaml"),
        ("allow_unauthenticated", "perhaps"),
        ("share_cache_across_keys", "perhaps"),
        ("api_keys", "a,,b"),
    ],
)
def test_an_invalid_value_is_one_line_that_names_the_setting(
    monkeypatch: pytest.MonkeyPatch, field: str, value: str
) -> None:
    """The line has the variable and the flag, so it can be found where it was set."""
    monkeypatch.setenv(env_name(field), value)
    with pytest.raises(SettingsError) as caught:
        Settings.read()
    line = str(caught.value)
    assert env_name(field) in line
    assert flag_name(field) in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("max_body_byte", "max_body_bytes"),
        ("api_key", "api_keys"),
        ("prot", "port"),
        ("queue_tokens", "max_queue_tokens"),
        ("client_uri", "client_url"),
    ],
)
def test_a_misspelt_variable_is_refused(
    given: str, meant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A misspelt setting is not ignored, and the likely name is offered, to clients as well."""
    monkeypatch.setenv(env_name(given), "1")
    with pytest.raises(SettingsError, match=f"{given.upper()}: .*did you mean {env_name(meant)}"):
        Settings.read()
    with pytest.raises(SettingsError, match=f"did you mean {env_name(meant)}"):
        client_setting("client_url")


def test_what_is_no_setting_is_ignored_and_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing that merely begins as settings do keeps the server from starting."""
    monkeypatch.setenv("CHAINRULE_REPLICAS", "3")
    monkeypatch.setenv("CHAINRULE_IMAGE", "chainrule:1")
    assert Settings.read().port == 8000
    log_ignored_variables()
    assert [(line.levelname, line.getMessage()) for line in caplog.records] == [
        ("WARNING", "ignored, as there are no such settings: CHAINRULE_IMAGE, CHAINRULE_REPLICAS")
    ]


@pytest.mark.parametrize(
    "service", ["CHAINRULE", "CHAINRULE_MODEL", "CHAINRULE_API_KEY", "CHAINRULE_METRICS"]
)
def test_what_kubernetes_sets_for_a_service_is_ignored(
    service: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A Service called chainrule, or chainrule-model, says nothing about the server's settings."""
    for name, value in variables_of_a_service(service).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CHAINRULE_MODEL", "some/model")
    caplog.set_level("INFO", "app")
    settings = Settings.read()
    assert (settings.port, settings.metrics_port, settings.model) == (8000, None, "some/model")
    assert Settings.read({"port": "9002"}).port == 9002
    log_ignored_variables()
    (line,) = caplog.records
    named = line.getMessage().partition(": ")[2].split(", ")
    assert (line.levelname, sorted(named)) == ("INFO", sorted(variables_of_a_service(service)))


def test_a_flag_is_never_a_services() -> None:
    """An address where a port belongs is refused from whoever typed it."""
    with pytest.raises(SettingsError, match=r"CHAINRULE_PORT \(--port\)"):
        Settings.read({"port": "tcp://10.0.0.1:8000"})


def variables_of_a_service(name: str) -> dict[str, str]:
    """What Kubernetes puts into every container of the namespace for one Service."""
    port = f"{name}_PORT_8000_TCP"
    return {
        f"{name}_SERVICE_HOST": "10.0.0.1",
        f"{name}_SERVICE_PORT": "8000",
        f"{name}_SERVICE_PORT_HTTP": "8000",
        f"{name}_PORT": "tcp://10.0.0.1:8000",
        port: "tcp://10.0.0.1:8000",
        f"{port}_PROTO": "tcp",
        f"{port}_PORT": "8000",
        f"{port}_ADDR": "10.0.0.1",
    }


def test_settings_do_not_change() -> None:
    """What was read at start is what holds."""
    with pytest.raises(ValidationError):
        Settings().port = 1  # type: ignore[misc]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "example.org"])
def test_beyond_loopback_a_key_is_needed(host: str) -> None:
    """The server is not opened to other machines by accident."""
    with pytest.raises(SettingsError, match=r"CHAINRULE_HOST.*CHAINRULE_API_KEYS"):
        Settings.read({"host": host}).keys()
    assert Settings.read({"host": host, "api_keys": "k"}).keys() == ("k",)
    assert Settings.read({"host": host, "allow_unauthenticated": True}).keys() == ()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_on_loopback_no_key_is_needed(host: str) -> None:
    """Trying it out takes no configuration."""
    assert Settings.read({"host": host}).keys() == ()


def test_keys_come_from_setting_and_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Old and new keys hold at once; blank lines in the file mean nothing."""
    file = tmp_path / "keys"
    file.write_text("new\n\n  spaced  \n")
    monkeypatch.setenv("CHAINRULE_API_KEYS", "old, older")
    assert Settings.read({"api_key_file": str(file)}).keys() == ("old", "older", "new", "spaced")


def test_a_key_file_that_gives_no_key_is_refused(tmp_path: Path) -> None:
    """A missing or empty file does not leave the server open."""
    empty = tmp_path / "empty"
    empty.write_text("\n")
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe")
    for file in (empty, binary, tmp_path / "missing", tmp_path):
        with pytest.raises(SettingsError, match="CHAINRULE_API_KEY_FILE"):
            Settings.read({"api_key_file": str(file)}).keys()


def test_keys_are_not_shown() -> None:
    """Neither the settings' text nor an error about them repeats a key."""
    assert "hunter2" not in repr(Settings.read({"api_keys": "hunter2"}))
    with pytest.raises(SettingsError) as caught:
        Settings.read({"api_keys": "hunter2,"})
    assert "hunter2" not in str(caught.value)


def test_finished_scores_are_kept_only_where_the_operator_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Off by default; a budget is written like any other size."""
    assert Settings.read().score_cache_bytes == 0
    monkeypatch.setenv("CHAINRULE_SCORE_CACHE_BYTES", "256MiB")
    assert Settings.read().score_cache_bytes == 256 << 20


def test_every_setting_is_documented() -> None:
    """Each field says what it does, for --help and for readers."""
    assert all(field.description for field in Settings.model_fields.values())
