"""The environment: which variables are settings, and whose the others are. Its only reader.

Kubernetes sets variables in every container of a namespace for each Service in it. For a Service
called ``chainrule``, or ``chainrule-`` and more, their names begin as the settings' do.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Collection
from typing import Final

PREFIX: Final = "CHAINRULE_"

_OF_A_SERVICE: Final = re.compile(
    PREFIX + r"(\w+_)?(SERVICE_(HOST|PORT(_\w+)?)|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
_ADDRESS: Final = re.compile(r"(tcp|udp|sctp)://", re.IGNORECASE)

_MISSPELT: Final = 0.7
"""From this similarity on a name is taken for a setting's: PROT and PORT have 0.75, IMAGE and
MODEL 0.4."""


def env_name(field: str) -> str:
    """The environment variable of a setting: ``CHAINRULE_MAX_BODY_BYTES``."""
    return PREFIX + field.upper()


def variable(field: str) -> str | None:
    """What the environment says of a setting; None where it says nothing."""
    return os.environ.get(env_name(field)) or None


def otel_variable(name: str) -> str | None:
    """What the environment says to OpenTelemetry; None where it says nothing."""
    return os.environ.get(name) or None


def wants_colours() -> bool:
    """Whether a terminal may be written to in colours, as other programs understand it."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def variables_of_services() -> list[str]:
    """Those that Kubernetes sets: ``CHAINRULE_SERVICE_HOST``, a port of ``tcp://``."""
    return [name for name in sorted(os.environ) if _is_of_a_service(name, os.environ[name])]


def unknown_variables(fields: Collection[str]) -> list[str]:
    """Those named as settings are that are none of ``fields``, and not a Service's either."""
    known = {env_name(field) for field in fields}.union(variables_of_services())
    return [
        name
        for name in sorted(os.environ)
        if name.upper().startswith(PREFIX) and known.isdisjoint((name, name.upper()))
    ]


def misspelt(name: str, fields: Collection[str]) -> str | None:
    """The variable that was meant, if ``name`` is nearly one."""
    bare = name.upper().removeprefix(PREFIX).lower()
    near = difflib.get_close_matches(bare, fields, n=1, cutoff=_MISSPELT)
    return env_name(near[0]) if near else None


SPIN_COUNT: Final = "1000"
"""Turns that an idle compute thread waits awake; libgomp's own default is 300,000."""


def let_idle_threads_sleep() -> None:
    """Keep torch's threads from spinning between operations. To be called before torch is there.

    A thread that spins takes the core that the event loop, or any other process, wants, and the
    thread it waits for is then the one that does not run: beside one busy process, two threads
    were four times slower than with this. An operator's own choice is left alone.
    """
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = SPIN_COUNT


PRODUCTS_KEPT: Final = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "512", "LRU_CACHE_CAPACITY": "16"}
"""How many compiled products oneDNN keeps, and how many torch keeps beside it; by default 1,024
each. One takes about 0.3 MB, and every number of rows has its own of each weight's shape. Torch's
are others of the same, which save nothing where oneDNN has them; it takes no 0."""


def bound_compiled_products() -> None:
    """Let them take 150 MB at most instead of 450. To be called before torch is there.

    An operator's own choice is left alone.
    """
    for name, count in PRODUCTS_KEPT.items():
        os.environ.setdefault(name, count)


def _is_of_a_service(name: str, value: str) -> bool:
    name = name.upper()
    of_a_port = name.startswith(PREFIX) and name.endswith("_PORT")
    return (of_a_port and bool(_ADDRESS.match(value))) or bool(_OF_A_SERVICE.fullmatch(name))


def ray_address() -> str | None:
    """Where Ray says that its cluster is, as in a job that was submitted to one."""
    return os.environ.get("RAY_ADDRESS") or None


def keep_ray_quiet() -> None:
    """Let what this process starts of Ray report nothing to its makers.

    An operator's own choice is left alone. To be called before Ray is there.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
