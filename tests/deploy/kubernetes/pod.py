"""What a process does that becomes a pod's. It imports this module, so nothing else is here."""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
from collections.abc import Mapping

from app.settings import Settings
from model_runtime import Engine, EngineConfig
from tests.app.process.test_file_system import call, make_everything_read_only
from tests.app.process.test_memory_limit import enter

SERVICE = {
    "CHAINRULE_SERVICE_HOST": "10.96.0.7",
    "CHAINRULE_SERVICE_PORT": "8000",
    "CHAINRULE_SERVICE_PORT_HTTP": "8000",
    "CHAINRULE_PORT": "tcp://10.96.0.7:8000",
    "CHAINRULE_PORT_8000_TCP": "tcp://10.96.0.7:8000",
    "CHAINRULE_PORT_8000_TCP_PROTO": "tcp",
    "CHAINRULE_PORT_8000_TCP_PORT": "8000",
    "CHAINRULE_PORT_8000_TCP_ADDR": "10.96.0.7",
    "CHAINRULE_PICKER_PORT": "tcp://10.96.0.8:9002",
    "CHAINRULE_PICKER_SERVICE_PORT_GRPC": "9002",
}
"""What Services called chainrule and chainrule-picker set in pods that do not refuse it."""


def enter_pod(node: str, variables: Mapping[str, str], user: int, *, models: bool) -> None:
    """From here on this process has a pod's variables, user, root and limit of memory.

    Args:
        node: a folder with the keys, the files of the control group and a model.
        variables: what the container is given.
        user: its number.
        models: whether the process is to load a model afterwards.
    """
    if models:
        # Python's own library may lie where that user cannot read: what is imported late comes now.
        with contextlib.redirect_stderr(io.StringIO()):
            Engine.load(EngineConfig(model=f"{node}/model", kv_cache_bytes=1 << 20))
    "localhost".encode("idna")
    own = {"HOME": "/", "CHAINRULE_HOST": "0.0.0.0", "CHAINRULE_API_KEY_FILE": f"{node}/keys"}
    os.environ.update({**variables, **own, **SERVICE})
    if (port := Settings.read().port) != 8000:
        raise RuntimeError(f"a Service's variables make port {port}")
    enter(f"{node}/group")
    make_everything_read_only()
    os.setgroups([user])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    header, nothing = (ctypes.c_uint32 * 2)(0x2008_0522, 0), (ctypes.c_uint32 * 6)()
    call("capset", ctypes.byref(header), nothing)
