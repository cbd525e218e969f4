"""Every setting, documented at its field.

A setting is an environment variable (``CHAINRULE_MAX_BODY_BYTES``) and a flag of ``chainrule
serve`` (``--max-body-bytes``) at once; the flag wins. Nothing changes after start.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    ByteSize,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.environment import (
    PREFIX,
    env_name,
    misspelt,
    unknown_variables,
    variable,
    variables_of_services,
)
from app.schemas.bounds import (
    MAX_BODY_BYTES,
    MAX_CANDIDATES,
    MAX_MODEL_NAME_CHARS,
    MAX_TIMEOUT_MS,
    MAX_TOP_LOGPROBS,
)
from app.schemas.debias import Debias
from model_runtime import EngineConfig

logger = logging.getLogger(__name__)

_MIB = 1 << 20


class SettingsError(ValueError):
    """A setting that cannot be used. The message is one line and names the setting."""


def flag_name(field: str) -> str:
    """The flag of a setting: ``--max-body-bytes``."""
    return "--" + field.replace("_", "-")


def _split_keys(value: object) -> object:
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


Keys = Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(_split_keys)]


def _split_labels(value: object) -> object:
    # A space in front belongs to a label: that is how most tokenizers begin a word.
    return (value.split(",") if value else ()) if isinstance(value, str) else value


Labels = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_labels)]
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_keys)]


class Settings(BaseSettings):
    """How the server is set up."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        hide_input_in_errors=True,
    )

    host: str = Field("127.0.0.1", min_length=1)
    """Address to listen on. Other than loopback it needs an API key."""
    port: int = Field(8000, ge=0, le=65_535)
    """TCP port to listen on; 0 takes any free one."""
    drain_timeout_s: float = Field(30.0, ge=0, allow_inf_nan=False)
    """Seconds that running requests get to finish after SIGTERM."""
    drain_delay_s: float = Field(0.0, ge=0, allow_inf_nan=False)
    """Seconds before that in which readiness has ended and new requests are still taken: as long as
    a load balancer takes to notice."""
    watchdog_timeout_s: float = Field(120.0, ge=0, allow_inf_nan=False)
    """Seconds without progress, as in a forward that hangs, after which the process gives up and
    exits; readiness ends after a tenth of them. 0 waits for ever."""

    model: str = Field("smollm2-135m-instruct", min_length=1)
    """What to serve: a local folder, a hub id, or a built-in alias."""
    revision: str | None = None
    """Pinned revision of a hub id."""
    served_name: Names = ()
    """The names that clients may use, comma-separated. Answers say the first of them. By default
    the alias, hub id or folder name."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the matrix products: float32 is exact, bfloat16 faster on fitting hardware;
    auto takes bfloat16 on a CUDA device that has it, else float32."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the model runs; auto takes CUDA where there is one."""
    runner: Literal["paths", "padded"] = "paths"
    """paths is the fast one; padded serves architectures that it refuses, one path at a time, in
    float32, without a cache, and many times slower."""
    kernels: Literal["auto", "native", "torch"] = "auto"
    """What computes: native is the library that was compiled with the package, for CPUs; torch does
    without it; auto is native where it can be. /v1/models says which."""
    threads: int | None = Field(None, ge=1)
    """Compute threads; by default torch's own choice."""
    cache_dir: Path | None = None
    """Where fetched models are kept; by default ~/.cache/chainrule, for hub ids the hub's cache."""
    max_model_len: int | None = Field(None, ge=2)
    """Lowers the model's own limit on the tokens of one path."""

    max_batch_tokens: int = Field(4096, ge=1)
    """Tokens fed to one forward at most; longer paths are chunked."""
    max_queue_tokens: int = Field(65_536, ge=1)
    """Tokens admitted and not finished at most; beyond it requests get 429, from 15/16 of it on
    unread, unless scores are kept. 32 scored positions count as one token more, and
    16 paths."""
    kv_cache_bytes: ByteSize = Field(ByteSize(2048 * _MIB), ge=1)
    """Memory for keys and values, as in 2147483648 or 2GiB; answers that are kept with them take a
    sixteenth more at most."""
    score_cache_bytes: ByteSize = Field(ByteSize(0), ge=0)
    """Memory for finished scores, as in 268435456 or 256MiB, so that what is asked again is
    answered without the model; 0 keeps none."""

    api_keys: Keys = ()
    """Comma-separated keys, any of which opens every route. A file hides them better."""
    api_key_file: Path | None = None
    """File of more such keys, one a line; several at once allow rotation."""
    allow_unauthenticated: bool = False
    """Listen beyond loopback without any key."""
    share_cache_across_keys: bool = False
    """Let requests under different API keys share computed contexts. It saves work where they send
    the same ones; the time of an answer then tells one client what another has sent."""

    max_body_bytes: ByteSize = Field(ByteSize(MAX_BODY_BYTES), ge=1)
    """Largest request body, as in 8388608 or 8MiB; a larger one gets 413."""
    max_body_bytes_in_flight: ByteSize | None = Field(None, ge=1)
    """Bytes of all bodies whose answers have not begun; another large one gets 429. By
    default 8 times max_body_bytes."""
    header_timeout_s: float = Field(10.0, gt=0, allow_inf_nan=False)
    """Seconds in which a request's headers must be complete, else 408."""
    body_timeout_s: float = Field(30.0, gt=0, allow_inf_nan=False)
    """Seconds that may pass between two parts of a request's body, else 408, and in which a client
    reads some of its answer."""
    max_connections: int = Field(1024, ge=1)
    """Open connections at most; another one takes the place of the one that has been idle longest,
    or gets 503 where none is idle."""
    max_candidates: int = Field(MAX_CANDIDATES, ge=1, le=MAX_CANDIDATES)
    """Candidates in one request at most."""
    max_top_logprobs: int = Field(MAX_TOP_LOGPROBS, ge=0, le=MAX_TOP_LOGPROBS)
    """Most probable tokens listed at one position at most."""
    default_timeout_ms: int = Field(300_000, ge=1, le=MAX_TIMEOUT_MS)
    """Milliseconds after which a request that names no timeout_ms ends in 504."""

    rerank_mode: Literal["query_likelihood", "yes_no", "recipe"] | None = None
    """What a document is ranked by: the probability of the query behind it, that of yes against
    no behind a prompt that asks, or the recipe in the model's folder; by default that recipe where
    the folder has one and no template is set, else the query's likelihood."""
    rerank_template: str | None = None
    """The prompt: query-likelihood, qwen3-reranker, plain-yes-no, a file, or text with {query},
    {document} and at will {instruction}; by default the mode's own."""
    rerank_instruction: str | None = None
    """What the prompt says of the task; by default the template's own words."""
    rerank_labels: Labels = ()
    """The tokens for yes and no, with their spaces, as in " yes, no"; by default the template's."""

    decision_debias: Debias = "none"
    """Orders in which POST /v1/decisions and /v1/systemone show the options of a question, where a
    request does not say: as sent, in their rotations, or up to 4 options in every order."""
    calibrations: Path | None = None
    """Folder of calibrations, NAME.json each, as `chainrule calibrate` writes them; those that are
    fitted here are added. Without it they are kept in memory."""

    playground: bool = True
    """Whether there is a page for people at /playground."""

    metrics_key: bool = True
    """Whether /metrics wants an API key, where there is one."""
    metrics_port: int | None = Field(None, ge=0, le=65_535)
    """One more TCP port, which answers /metrics and nothing else, without a key; 0 takes any free
    one."""
    metrics_dialect: Literal["chainrule", "vllm"] = "chainrule"
    """vllm adds what routers and dashboards made for vLLM read, under its names."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe log line to write."""
    log_format: Literal["auto", "json", "text", "console"] = "auto"
    """``json``: one object a line. ``text``: the same facts as text. ``console``: short and
    coloured, for people. ``auto``: ``console`` on a terminal, else ``json``."""
    traces: bool = False
    """Send spans of requests and forwards to an OpenTelemetry collector, as the variables OTEL_*
    say; needs the otel extra."""

    @classmethod
    def read(cls, flags: Mapping[str, Any] | None = None) -> Self:
        """Settings from ``flags``, then the environment, then the defaults.

        Raises:
            SettingsError: a value is invalid, or a CHAINRULE_ variable is nearly a setting.
        """
        _refuse_misspelt()
        given = dict(flags or {})
        # A Service called chainrule-metrics has a variable that is named as metrics_port is.
        of_services = set(map(str.upper, variables_of_services()))
        for name, field in cls.model_fields.items():
            if env_name(name) in of_services:
                given.setdefault(name, field.get_default(call_default_factory=True))
        try:
            return cls(**given)
        except ValidationError as error:
            raise SettingsError(_explain(error)) from None

    @field_validator("api_keys")
    @classmethod
    def _keys_are_not_empty(cls, keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        if not all(key.get_secret_value() for key in keys):
            raise ValueError("an API key must not be empty")
        return keys

    @field_validator("served_name")
    @classmethod
    def _names_can_be_asked_for(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if not 0 < len(name) <= MAX_MODEL_NAME_CHARS:
                raise ValueError(f"a name has 1 to {MAX_MODEL_NAME_CHARS} characters")
        if len(set(names)) != len(names):
            raise ValueError("a name stands there twice")
        return names

    def keys(self) -> tuple[str, ...]:
        """Every API key, from the setting and from the file; empty where anybody may ask.

        Raises:
            SettingsError: the file cannot be read or holds no key; or there is no key although
                other machines can reach the address.
        """
        keys = tuple(key.get_secret_value() for key in self.api_keys)
        if self.api_key_file is not None:
            keys += _keys_in(self.api_key_file)
        if not (keys or self.allow_unauthenticated or _is_loopback(self.host)):
            raise SettingsError(
                f"{env_name('host')} ({flag_name('host')}): {self.host} can be reached from other "
                f"machines; set {env_name('api_keys')} or {env_name('api_key_file')}, or "
                f"{env_name('allow_unauthenticated')}=true to do without"
            )
        return keys

    def body_bytes_in_flight(self) -> int:
        """What ``max_body_bytes_in_flight`` is, or is by default.

        Raises:
            SettingsError: it has no room for one body.
        """
        limit = int(self.max_body_bytes_in_flight or 8 * self.max_body_bytes)
        if limit < self.max_body_bytes:
            name = "max_body_bytes_in_flight"
            raise SettingsError(f"{env_name(name)} ({flag_name(name)}): less than max_body_bytes")
        return limit

    def engine_config(self) -> EngineConfig:
        """The part of the settings that the engine wants."""
        return EngineConfig(
            model=self.model,
            revision=self.revision,
            served_name=self.served_name[0] if self.served_name else None,
            dtype=self.dtype,
            device=self.device,
            runner=self.runner,
            kernels=self.kernels,
            threads=self.threads,
            cache_dir=self.cache_dir,
            max_model_len=self.max_model_len,
            max_batch_tokens=self.max_batch_tokens,
            max_queue_tokens=self.max_queue_tokens,
            kv_cache_bytes=int(self.kv_cache_bytes),
            watchdog_timeout_s=self.watchdog_timeout_s,
        )


CLIENT_FIELDS = ("client_url", "client_api_key")


def client_setting(field: str) -> str | None:
    """One of ``CLIENT_FIELDS`` as the environment has it: where commands find a server.

    Raises:
        SettingsError: a CHAINRULE_ variable is nearly a setting.
    """
    _refuse_misspelt()
    return variable(field)


def log_ignored_variables() -> None:
    """Say which CHAINRULE_ variables are no settings; to be called once the log is set up."""
    unknown = unknown_variables(_known_fields())
    if unknown:
        logger.warning("ignored, as there are no such settings: %s", ", ".join(unknown))
    if injected := variables_of_services():
        logger.info("ignored what Kubernetes sets for a Service: %s", ", ".join(injected))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _keys_in(path: Path) -> tuple[str, ...]:
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise SettingsError(f"{env_name('api_key_file')}: cannot read {path}: {reason}") from None
    keys = tuple(line.strip() for line in lines if line.strip())
    if not keys:
        raise SettingsError(f"{env_name('api_key_file')}: {path} holds no key")
    return keys


def _known_fields() -> tuple[str, ...]:
    return (*Settings.model_fields, *CLIENT_FIELDS)


def _refuse_misspelt() -> None:
    for name in unknown_variables(_known_fields()):
        if near := misspelt(name, _known_fields()):
            raise SettingsError(f"{name}: there is no such setting; did you mean {near}?")


def _explain(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False)[0]
    text = first["msg"].removeprefix("Value error, ")
    field = str(first["loc"][0])
    if first["type"] == "extra_forbidden":
        return f"{field}: there is no such setting"
    return f"{env_name(field)} ({flag_name(field)}): {text[:1].lower() + text[1:]}"
