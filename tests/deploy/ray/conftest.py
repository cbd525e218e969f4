"""One Ray for all tests of replicas behind it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from benchmarks.ray_fleet import RayFleet, ray_fleet
from tests.conftest import TinyFolder

Deploy = Callable[..., RayFleet]

TWO: dict[str, Any] = {"num_replicas": 2, "threads": 1, "kv_cache_bytes": "64MiB"}


@pytest.fixture(scope="session")
def ray_here() -> Iterator[RayFleet]:
    """Ray and Serve, without a replica."""
    with ray_fleet(RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S="1") as fleet:
        yield fleet


@pytest.fixture(scope="session")
def deploy(ray_here: RayFleet, tiny_folder: TinyFolder) -> Deploy:
    """Deploys two replicas of a tiny model, or what the arguments say; the same ones stay."""
    deployed: dict[str, Any] = {}

    def deploy(**args: object) -> RayFleet:
        wanted = TWO | {"model": tiny_folder("llama")} | args
        wanted = {name: value for name, value in wanted.items() if value is not None}
        texts = {name: str(value) for name, value in wanted.items()}
        if texts != deployed:
            ray_here.deploy(**texts)
            deployed.clear()
            deployed.update(texts)
        if texts.get("num_replicas"):
            ray_here.await_replicas(int(texts["num_replicas"]))
        return ray_here

    return deploy


@pytest.fixture(scope="session")
def fleet(deploy: Deploy) -> Callable[[], RayFleet]:
    """Two replicas of a tiny model, whatever a test before has done."""
    return lambda: deploy()


@pytest.fixture
def rng() -> random.Random:
    """The same numbers in every run."""
    return random.Random(0)
