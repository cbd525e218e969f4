"""A program: Ray and one deployment of the app in it, told what to do by lines of JSON.

It is a process of its own, as Ray ends with the process that started it. Each line is answered by
one line; the end of the input ends it all. Ray is its own here: no other that runs on the machine
is joined or stopped.
"""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import ray
from ray import serve
from ray.serve.context import _get_global_client

from deploy.ray.service import app

NAME = "chainrule"


def main() -> None:
    """Answer until the input ends."""
    answers, sys.stdout = sys.stdout, sys.stderr
    options = json.loads(sys.argv[1])
    ray.init(
        address="local",
        num_cpus=options["cpus"],
        include_dashboard=False,
        logging_level=logging.WARNING,
        object_store_memory=100 << 20,
    )
    serve.start(
        http_options={"host": "127.0.0.1", "port": options["port"]},
        logging_config={"enable_access_log": False},
    )
    try:
        for line in sys.stdin:
            print(json.dumps(_answer(json.loads(line))), file=answers, flush=True)
    finally:
        serve.shutdown()
        ray.shutdown()


def _answer(command: dict[str, Any]) -> Any:
    match command["do"]:
        case "deploy":
            target = serve.RunTarget(app(command["args"]), name=NAME, route_prefix="/")
            try:
                serve.run_many([target], wait_for_applications_running=command["wait"])
            except RuntimeError as error:
                return {"failed": f"{error}\n{_messages()}"}
            return {}
        case "replicas":
            return _replicas()
        case "metrics_port":
            return ray.nodes()[0]["MetricsExportPort"]
    raise ValueError(f"there is no such command: {command}")


def _messages() -> str:
    """What the deployment's status says."""
    deployments = serve.status().applications[NAME].deployments.values()
    return "\n".join(deployment.message for deployment in deployments)


def _replicas() -> list[dict[str, Any]]:
    """Those that there are: id, process id and state of each."""
    details = _get_global_client().get_serve_details()
    deployments = details["applications"].get(NAME, {}).get("deployments", {})
    return [
        {"id": one["replica_id"], "pid": one.get("pid"), "state": one["state"].value}
        for deployment in deployments.values()
        for one in deployment["replicas"]
    ]


if __name__ == "__main__":
    main()
