"""The Ray cluster that a dataset is scored on, and how actors are laid out in it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Self

import ray
from ray.exceptions import RayError, RayTaskError

from app.client import ClientError, InvalidRequest
from app.environment import ray_address
from app.settings import Settings

OBJECT_STORE_BYTES: Final = 128 << 20
"""Of a cluster that is started here: only numbers of blocks go through it."""


@contextmanager
def ray_cluster(address: str | None) -> Iterator[None]:
    """Be connected to a cluster while the block lasts.

    Args:
        address: of one that runs, ``auto`` for that of this machine; None for what RAY_ADDRESS
            says, else for a cluster of this machine alone that ends with the block.

    Raises:
        ClientError: there is none, or Ray failed at something; in one line.
    """
    where = address or ray_address()
    options: dict[str, Any] = {"address": where or "local"}
    if where is None:
        options |= {"include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
    try:
        ray.init(**options, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ClientError(f"no Ray cluster at {where or 'this machine'}: {error}") from None
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        yield
    except RayError as error:
        cause = error.cause if isinstance(error, RayTaskError) else error
        words = str(cause).strip().splitlines() or [type(cause).__name__]
        raise ClientError(f"Ray: {type(cause).__name__}: {words[-1]}") from error
    finally:
        ray.shutdown()


@dataclass(frozen=True, slots=True)
class ActorLayout:
    """How many actors there are, and what each has.

    Attributes:
        actors: in all.
        threads: compute threads of each, which are CPUs of the cluster.
        gpus: of each.
    """

    actors: int
    threads: int
    gpus: int

    @classmethod
    def plan(cls, actors: int | None, settings: Settings) -> Self:
        """In the cluster as it is now.

        Args:
            actors: how many are wanted; None for one on each node, or on each GPU.
            settings: their threads, and whether there is to be a GPU.

        Raises:
            InvalidRequest: there is no room for them.
        """
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        cpus = [int(node.get("CPU", 0)) for node in nodes if node.get("CPU", 0) >= 1]
        gpus = sum(int(node.get("GPU", 0)) for node in nodes)
        if not cpus:
            raise InvalidRequest("the cluster has no CPU")
        with_gpu = settings.device == "cuda" or (settings.device == "auto" and gpus > 0)
        wanted = actors or (max(1, gpus) if with_gpu else len(cpus))
        on_a_node = -(-wanted // len(cpus))
        threads = settings.threads or max(1, min(cpus) // on_a_node)
        if sum(one // threads for one in cpus) < wanted:
            raise InvalidRequest(
                f"the cluster has {sum(cpus)} CPUs on {len(cpus)} nodes, which have no room for "
                f"{wanted} actors of {threads} threads"
            )
        if with_gpu and gpus < wanted:
            raise InvalidRequest(f"the cluster has {gpus} GPUs for {wanted} actors")
        return cls(wanted, threads, int(with_gpu))

    def resources(self) -> dict[str, int]:
        """Of one actor, as Ray's options name them."""
        return {"num_cpus": self.threads, "num_gpus": self.gpus}
