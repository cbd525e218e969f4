"""The address of a server, as people write it."""

from __future__ import annotations

from urllib.parse import urlsplit


def server_url(text: str) -> str:
    """The address without a slash or ``/v1`` at its end: users of OpenAI's clients write that.

    Raises:
        ValueError: it is none of a server, or holds a user's name or password. No error repeats
            what may be a password.
    """
    url = text.rstrip("/").removesuffix("/v1").rstrip("/")
    if not _is_of_a_server(url):
        shown = "it" if "@" in text else repr(text)
        raise ValueError(f"{shown} is not http://host or https://host")
    if "@" in urlsplit(url).netloc:
        raise ValueError("a user's name or password is not taken there; give an API key instead")
    return url


def _is_of_a_server(url: str) -> bool:
    try:
        parts = urlsplit(url)
        is_whole = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        # The port is no number, or the brackets of an address do not match.
        return False
    return is_whole and url.isprintable() and not ({"?", "#", " ", "\\"} & {*url})
