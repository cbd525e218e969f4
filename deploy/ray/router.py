"""Ray's request router: a context goes to the replica that has its prefix.

Where the key comes from. Serve's HTTP proxy asks its router before it reads a body, and shows it
only the request's headers: a value of ``X-Session-Id`` arrives as ``session_id`` of the request's
metadata. So ``deploy.ray.proxy``, which stands before Serve's proxy in the same process, reads the
body and sets that header where the client has set none. What has no key at all (``GET
/v1/models``; every request without the header where Ray was started without ``deploy.ray.proxy``;
calls of a ``DeploymentHandle`` without ``session_id``) goes to the replica with the shortest queue.

Each proxy counts the requests that it has sent to a replica, and learns the true number with each
answer; the bound on the load uses that. Several proxies need not talk to each other: equal keys
have equal orders everywhere. Where Ray replaces its proxies (``RAY_SERVE_ENABLE_HA_PROXY``), no
request router is asked.
"""

from __future__ import annotations

import logging
import os
import random
from typing import Any

from ray.serve.experimental.consistent_hash_router import ConsistentHashRouter
from ray.serve.request_router import PendingRequest, RunningReplica

from deploy.ray.affinity import LOAD_FACTOR, MIN_BOUND, route

logger = logging.getLogger("ray.serve")

CALLBACK = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"


class PrefixRouter(ConsistentHashRouter):  # type: ignore[misc]  # Ray's own types are not read
    """Rendezvous hashing with bounded loads over the ids of the replicas.

    Ray's own router of sessions is its base for one thing: it keeps at a request until that is
    routed. ``RequestRouter`` itself loses some of those that it routes out of order, before 2.60.
    """

    def initialize_state(self, **kwargs: Any) -> None:
        """Called by Serve with ``request_router_kwargs``.

        Args:
            kwargs: ``load_factor``, 1 or more, and ``min_bound``, 1 or more.

        Raises:
            ValueError: one of them is less.
        """
        self._factor = float(kwargs.pop("load_factor", LOAD_FACTOR))
        self._least = int(kwargs.pop("min_bound", MIN_BOUND))
        if self._factor < 1 or self._least < 1:
            raise ValueError("load_factor and min_bound must be at least 1")
        super().initialize_state(num_virtual_nodes=1, num_fallback_replicas=0, **kwargs)
        if not os.environ.get(CALLBACK):
            logger.warning(
                "requests without X-Session-Id go to the shortest queue, not to their prefix: Ray "
                "was started without %s=deploy.ray.proxy:middlewares",
                CALLBACK,
            )

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> list[list[RunningReplica]]:
        """Called by Serve: ranks of replicas, the best first."""
        if pending_request is not None:
            pending_request.routing_context.should_backoff = True
            if key := pending_request.metadata.session_id:
                return self._by_key(key, candidate_replicas)
        # Of equal queues Serve takes the first.
        return [random.sample(candidate_replicas, len(candidate_replicas))]

    def _by_key(self, key: str, replicas: list[RunningReplica]) -> list[list[RunningReplica]]:
        lengths = self.replica_queue_len_cache
        by_id = {replica.replica_id.unique_id: replica for replica in replicas}
        loads = {name: lengths.get(one.replica_id) or 0 for name, one in by_id.items()}
        return [[by_id[name]] for name in route(key, loads, self._factor, self._least)]
