"""The arguments of a deployment: what is Serve's own, and the settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from app.environment import env_name
from app.settings import Settings, SettingsError
from deploy.ray.scaling import TARGET_QUEUED_SECONDS

REFUSED: Final = {
    "api_keys": "Ray shows arguments to whoever sees its dashboard; set api_key_file, or "
    "CHAINRULE_API_KEYS on every node",
    "host": "Serve listens, where http_options say",
    "port": "Serve listens, where http_options say",
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
    """What a new request should wait at most; more replicas are started beyond it."""
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
    for name, reason in REFUSED.items():
        if name in args:
            raise SettingsError(f"{name} is no argument: {reason}")
    own = {key: value for key, value in args.items() if key in Arguments.model_fields}
    rest = {key: str(value) for key, value in args.items() if key not in own}
    try:
        arguments = Arguments(**own)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise SettingsError(f"{where}: {first['msg']}".removeprefix(": ")) from None
    settings = Settings.read(rest)
    if settings.metrics_port is not None:
        raise SettingsError(f"{env_name('metrics_port')}: {REFUSED['metrics_port']}")
    return arguments, settings
