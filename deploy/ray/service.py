"""The app as a deployment of Ray Serve, one engine a replica.

    serve run deploy.ray.service:app model=smollm2-135m-instruct threads=1 num_replicas=2

Settings are those of ``chainrule serve``: arguments of ``app`` by the names of
``app.settings.Settings``, else ``CHAINRULE_`` variables where ``app`` is called, else those of the
node that a replica runs on. What is Serve's own (how many replicas, their CPUs) are arguments, too.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from click import ClickException
from fastapi import FastAPI
from ray import serve
from ray.serve import Application

from app.environment import PRODUCTS_KEPT, SPIN_COUNT, env_name
from app.http.lifecycle import Lifecycle, Phase
from app.settings import Settings, SettingsError, log_ignored_variables
from app.telemetry.logs import configure_logging
from deploy.ray.arguments import Arguments, inherited_settings, read_arguments, setting_texts
from deploy.ray.metrics import MetricsExport
from deploy.ray.scaling import BUSY, QUEUED_SECONDS

if TYPE_CHECKING:
    from model_runtime import Engine

logger = logging.getLogger("app.ray")

MAX_ONGOING_REQUESTS: Final = 100_000
"""A replica's own queue decides who gets 429, so Serve must never hold a request back."""

DRAIN_MARGIN_S: Final = 5.0
"""Behind ``drain_timeout_s``, in which an engine stops, before Ray ends the process."""
HEALTH_PERIOD_S: Final = 5.0
NAMES: Final = {"prefix": "chainrule", "ray": "chainrule-by-queue"}
"""A proxy keeps the router that a deployment had at first, so another router has another name."""
STARTS: Final = 2
"""That fail until a deployment has failed. What is missing will be missing the next time."""
LOOK_BACK_S: Final = 15.0
"""Ray takes the mean of what replicas have reported in so many seconds."""
LAST_ANSWERS_S: Final = 1.0
"""For the 503 of those who waited for an engine that died."""


def build_app() -> FastAPI:
    """The app of one replica, made where the replica runs.

    Raises:
        SettingsError: a setting cannot be used.
    """
    # It brings torch, which whoever only names the deployment need not wait for.
    from app.main import create_app

    settings = Settings.read()
    settings.body_bytes_in_flight()
    configure_logging(settings.log_level, settings.log_format)
    log_ignored_variables()
    loading = Loading(settings)
    made = create_app(settings, load=loading)
    made.state.loading = loading
    return made


class Loading:
    """Loads the engine, and remembers why it could not: Serve's status repeats it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.failure: str | None = None

    def __call__(self) -> Engine:
        from model_runtime import Engine

        try:
            return Engine.load(self._settings.engine_config())
        except Exception as error:
            self.failure = " ".join(str(error).split())
            raise


class Replica:
    """What Serve asks of a replica beside its HTTP requests."""

    app: FastAPI
    """Serve's wrapper has it."""

    def __init__(self, needs_key: bool = False) -> None:
        if needs_key and not Settings.read().keys():
            raise SettingsError(
                f"{env_name('api_keys')} is set where the deployment was made, and not on this "
                f"node; set it, or {env_name('api_key_file')}, wherever replicas run"
            )
        self._started = False
        self._busy = BusyShare()

    async def check_health(self) -> None:
        """Called by Serve at first before it sends requests, then every few seconds.

        Raises:
            RuntimeError: the model cannot be served, or the engine has died.
        """
        lifecycle: Lifecycle = self.app.state.lifecycle
        while lifecycle.phase is Phase.LOADING:
            await asyncio.sleep(0.05)
        if not lifecycle.is_alive:
            reason = self.app.state.loading.failure or "its log says why"
            raise RuntimeError(f"the engine does not work: {reason}") from None
        if not self._started:
            self._started = True
            self._watch = asyncio.create_task(self._leave_when_failed(lifecycle))
            self._metrics = asyncio.create_task(MetricsExport(self.app.state.metrics).run())

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Called by Serve where the number of replicas is not fixed."""
        stats = self.app.state.lifecycle.stats()
        return {QUEUED_SECONDS: stats.queued_seconds, BUSY: self._busy.since_last(stats.busy_s)}

    async def _leave_when_failed(self, lifecycle: Lifecycle) -> None:
        # A thread that hangs in a forward would keep the process, and Serve a replica that only
        # answers 503.
        while lifecycle.phase is not Phase.FAILED:
            await asyncio.sleep(0.5)
        await asyncio.sleep(LAST_ANSWERS_S)
        logging.shutdown()
        os._exit(lifecycle.exit_code)


class BusyShare:
    """The share of time that the engine has spent in forwards, from one question to the next."""

    def __init__(self) -> None:
        self._asked, self._busy_s = time.monotonic(), 0.0

    def since_last(self, busy_s: float) -> float:
        """0..1, given the seconds since the engine's start."""
        now = time.monotonic()
        passed, worked = now - self._asked, busy_s - self._busy_s
        self._asked, self._busy_s = now, busy_s
        return min(1.0, max(0.0, worked / passed)) if passed > 0 else 0.0


def app(args: Mapping[str, Any]) -> Application:
    """What ``serve run`` and ``serve deploy`` are given.

    Args:
        args: see ``Arguments``; every other one is a setting.

    Raises:
        ClickException: one of them cannot be used; the command line says so in one line.
    """
    try:
        arguments, settings = read_arguments(args)
    except SettingsError as error:
        raise ClickException(str(error)) from None
    deployment = serve.deployment(
        name=NAMES[arguments.router],
        max_ongoing_requests=MAX_ONGOING_REQUESTS,
        max_queued_requests=-1,
        graceful_shutdown_timeout_s=settings.drain_timeout_s + DRAIN_MARGIN_S,
        graceful_shutdown_wait_loop_s=0.5,
        health_check_period_s=HEALTH_PERIOD_S,
        max_constructor_retry_count=STARTS,
        ray_actor_options={
            "num_cpus": arguments.num_cpus or settings.threads or 1,
            "num_gpus": arguments.num_gpus,
            "runtime_env": {"env_vars": _environment(args)},
        },
        request_router_config=_router(arguments),
        **_replicas(arguments),
    )(serve.ingress(build_app)(Replica))
    return deployment.bind(needs_key=bool(settings.api_keys))


def _environment(args: Mapping[str, Any]) -> dict[str, str]:
    """What the replica's process finds. Keys, of the server and of clients, stay where they are:
    Ray shows what is in here."""
    given = {env_name(field): text for field, text in setting_texts(args).items()}
    return {"GOMP_SPINCOUNT": SPIN_COUNT, **PRODUCTS_KEPT, **inherited_settings(), **given}


def _router(arguments: Arguments) -> dict[str, Any]:
    own = {"request_router_class": "deploy.ray.router.PrefixRouter"}
    return own if arguments.router == "prefix" else {}


def _replicas(arguments: Arguments) -> dict[str, Any]:
    if arguments.num_replicas is not None:
        return {"num_replicas": arguments.num_replicas}
    policy = {
        "policy_function": "deploy.ray.scaling:QueuedSecondsPolicy",
        "policy_kwargs": {
            "target_queued_seconds": arguments.target_queued_seconds,
            "target_busy": arguments.target_busy,
        },
    }
    return {
        "autoscaling_config": {
            "min_replicas": arguments.min_replicas,
            "max_replicas": arguments.max_replicas,
            "upscale_delay_s": arguments.upscale_delay_s,
            "downscale_delay_s": arguments.downscale_delay_s,
            "look_back_period_s": LOOK_BACK_S,
            "policy": policy,
        }
    }
