"""The arguments of a deployment: what is Serve's own, and the settings."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from app.environment import env_name
from app.settings import Settings, SettingsError
from deploy.ray.scaling import TARGET_BUSY, TARGET_QUEUED_SECONDS

_OF_SERVES_PROXY: Final = "Serve's proxy keeps the connections of clients, and knows no such bound"

REFUSED: Final = {
    "api_keys": "Ray shows arguments to whoever sees its dashboard; set api_key_file, or "
    "CHAINRULE_API_KEYS on every node",
    "host": "Serve listens, where http_options say",
    "port": "Serve listens, where http_options say",
    "drain_delay_s": "Serve sends nothing new to a replica that is to go",
    "header_timeout_s": _OF_SERVES_PROXY,
    "max_connections": _OF_SERVES_PROXY,
    "metrics_port": "replicas of one node would want the same; Ray shows the metrics of all",
}
"""Settings that are no arguments, and why."""


class Arguments(BaseModel):
    """What is Serve's own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    num_replicas: int | None = Field(None, ge=1)
    """So many, and no autoscaling."""
    min_replicas: int = Field(1, ge=1)
    max_replicas: int = Field(4, ge=1)
    target_queued_seconds: float = Field(TARGET_QUEUED_SECONDS, gt=0)
    """What a new request should wait at most; more replicas are started beyond it, and where
    replicas are busy for more than ``target_busy`` of the time."""
    target_busy: float = Field(TARGET_BUSY, gt=0, le=1)
    """The share of time in forwards, 0..1, from which on more replicas are started."""
    upscale_delay_s: float = Field(15.0, ge=0)
    downscale_delay_s: float = Field(300.0, ge=0)
    """For how long it must have been so, before their number changes."""
    num_cpus: float | None = Field(None, gt=0)
    """That a replica occupies; by default its ``threads``, or 1."""
    num_gpus: float = Field(0, ge=0)
    router: Literal["prefix", "ray"] = "prefix"
    """prefix is ``PrefixRouter``, ray what Serve itself does: the shorter of two queues."""

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if self.min_replicas > self.max_replicas:
            raise ValueError("min_replicas is larger than max_replicas")
        return self


def read_arguments(args: Mapping[str, Any]) -> tuple[Arguments, Settings]:
    """Both halves of ``args``; what they do not name of the settings, the environment does.

    Raises:
        SettingsError: a name is unknown, or a value invalid. The message is one line.
    """
    for name in args:
        if name in REFUSED:
            raise SettingsError(f"{name} is no argument: {REFUSED[name]}")
        if name not in Arguments.model_fields and name not in Settings.model_fields:
            raise SettingsError(f"{name}: there is no such argument, and no such setting")
    own = {
        name: value
        for name, value in args.items()
        if name in Arguments.model_fields and value is not None
    }
    try:
        arguments = Arguments(**own)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise SettingsError(f"{where}: {first['msg']}".removeprefix(": ")) from None
    settings = Settings.read(setting_texts(args))
    if settings.metrics_port is not None:
        raise SettingsError(f"{env_name('metrics_port')}: {REFUSED['metrics_port']}")
    return arguments, settings


def setting_texts(args: Mapping[str, Any]) -> dict[str, str]:
    """The settings among ``args``, each as its variable would have it; null is not given.

    Raises:
        SettingsError: a value is neither a scalar nor a list of texts.
    """
    return {
        name: _text(name, value)
        for name, value in args.items()
        if name in Settings.model_fields and value is not None
    }


def inherited_settings() -> dict[str, str]:
    """The variables of settings here that replicas find, too: all but the keys."""
    names = {env_name(field) for field in Settings.model_fields if field != "api_keys"}
    return {name: value for name, value in os.environ.items() if name.upper() in names}


def _text(name: str, value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float):
        return str(value)
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return ",".join(value)
    raise SettingsError(f"{name}: neither a scalar nor a list of texts")
