"""Where a command finds the server that it asks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Self

from app.client.url import server_url
from app.environment import env_name
from app.settings import SettingsError, client_setting, log_ignored_variables

DEFAULT_URL: Final = "http://127.0.0.1:8000"


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """A URL without a slash or ``/v1`` at its end, and the key wanted there; None for none."""

    url: str
    key: str | None = field(repr=False)

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
