"""Where a command finds the server that it asks."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Self, TypeVar

from app.client.errors import ClientError, ConnectionFailed
from app.client.url import server_url
from app.environment import bound_compiled_products, env_name, let_idle_threads_sleep
from app.settings import Settings, SettingsError, client_setting, log_ignored_variables

T = TypeVar("T")

DEFAULT_URL: Final = "http://127.0.0.1:8000"


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """A URL without a slash or ``/v1`` at its end, and the key wanted there; None for none.

    Attributes:
        socket: path of a Unix domain socket to connect to in place of the URL's host.
    """

    url: str
    key: str | None = field(repr=False)
    socket: str | None = None

    @classmethod
    def find(cls, url: str | None, key: str | None) -> Self:
        """From the flags, else from the environment, else this machine's port 8000.

        Raises:
            SettingsError: the URL is none of a server.
        """
        try:
            found = server_url(url or client_setting("client_url") or DEFAULT_URL)
        except ValueError as error:
            raise SettingsError(f"{env_name('client_url')} (--url): {error}") from None
        key = key or client_setting("client_api_key")
        log_ignored_variables()
        return cls(found, key)

    def client(self, kind: Callable[..., T], transport: Callable[..., Any], **options: Any) -> T:
        """A client of this server.

        Args:
            kind: of client.
            transport: what such a client connects to a socket through.
            options: the client's own.
        """
        if self.socket is not None:
            options["transport"] = transport(uds=self.socket)
        return kind(self.url, api_key=self.key, **options)


@contextmanager
def find_server(args: dict[str, Any]) -> Iterator[ServerAddress]:
    """The server that the flags of ``add_server_flags`` name.

    Raises:
        SettingsError: the address, or a setting of the model, is unfit.
        ClientError: the model cannot be loaded.
    """
    if not args["local"]:
        yield ServerAddress.find(args["url"], args["api_key"])
        return
    for name in ("url", "api_key"):
        if args[name] is not None:
            raise SettingsError(f"--local asks no server: leave --{name.replace('_', '-')} out")
    settings = Settings.read({name: args[name] for name in ("model",) if name in args})
    let_idle_threads_sleep()
    bound_compiled_products()
    # This brings torch, which takes seconds; whoever asks a server need not wait.
    from app.cli.local_server import local_server

    with local_server(settings) as path:
        yield ServerAddress("http://localhost", None, path)


def with_advice(error: ClientError) -> ClientError:
    """The error; where no server listens, with what there is to do."""
    if isinstance(error, ConnectionFailed) and "refused" in str(error):
        return ConnectionFailed(
            f"{error}. No server listens there: chainrule serve starts one, --local does without."
        )
    return error


def add_server_flags(group: Any) -> None:
    """Which server is asked for which model, be it one in this process."""
    add_address_flags(group)
    group.add_argument(
        "--local",
        action="store_true",
        help="ask no server: load a model here, set up as a server would be by its "
        f"variables, {env_name('model')} and so on",
    )
    group.add_argument(
        "--model",
        default=argparse.SUPPRESS,
        help="the served model's name, as a check; with --local what to load",
    )


def add_address_flags(group: Any) -> None:
    """``--url`` and ``--api-key``."""
    group.add_argument(
        "--url", help=f"address of a server [{env_name('client_url')}, default {DEFAULT_URL}]"
    )
    group.add_argument(
        "--api-key",
        metavar="KEY",
        help="its key; in the variable other users of the machine do not see it "
        f"[{env_name('client_api_key')}]",
    )
