"""Which variables of the environment are settings, and whose the others are.

Kubernetes sets variables in every container of a namespace for each Service in it. For a Service
called ``chainrule``, or ``chainrule-`` and more, their names begin as the settings' do.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping
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


def is_of_a_service(name: str, value: str) -> bool:
    """Whether Kubernetes sets this variable: ``CHAINRULE_SERVICE_HOST``, a port of ``tcp://``."""
    name = name.upper()
    of_a_port = name.startswith(PREFIX) and name.endswith("_PORT")
    return (of_a_port and bool(_ADDRESS.match(value))) or bool(_OF_A_SERVICE.fullmatch(name))


def unknown_variables(environ: Mapping[str, str], fields: Collection[str]) -> list[str]:
    """Variables named as a setting is, that are none of ``fields`` and not a Service's."""
    known = {env_name(field) for field in fields}
    return [
        name
        for name, value in sorted(environ.items())
        if name.upper().startswith(PREFIX)
        and name.upper() not in known
        and not is_of_a_service(name, value)
    ]


def misspelt(name: str, fields: Collection[str]) -> str | None:
    """The variable that was meant, if ``name`` is nearly one."""
    bare = name.upper().removeprefix(PREFIX).lower()
    near = difflib.get_close_matches(bare, fields, n=1, cutoff=_MISSPELT)
    return env_name(near[0]) if near else None
