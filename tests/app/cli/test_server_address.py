"""Where commands find their server."""

from __future__ import annotations

import pytest

from app.cli.server_address import DEFAULT_URL, ServerAddress
from app.settings import Settings, SettingsError


def test_flags_win_over_variables_over_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each by itself; an empty variable is none."""
    assert ServerAddress.find(None, None) == ServerAddress(DEFAULT_URL, None)
    monkeypatch.setenv("CHAINRULE_CLIENT_URL", "https://far.example/")
    monkeypatch.setenv("CHAINRULE_CLIENT_API_KEY", "")
    assert ServerAddress.find(None, None) == ServerAddress("https://far.example", None)
    assert ServerAddress.find("http://near:1/v1/", None).url == "http://near:1"
    assert ServerAddress.find("http://near:1", "k") == ServerAddress("http://near:1", "k")


@pytest.mark.parametrize(
    "url",
    [
        *("far.example", "http://", "ftp://far.example", "localhost:8000"),
        *("http://far.example?a=b", "http://far.example/#a", "http://far .example"),
        *("http://far.example:port", "http://far.example:99999", "http://[::1", "http://:80"),
    ],
)
def test_what_is_no_address_of_a_server_is_refused(url: str) -> None:
    """With the flag and the variable that it may stand in."""
    with pytest.raises(SettingsError, match=r"CHAINRULE_CLIENT_URL \(--url\)"):
        ServerAddress.find(url, None)


def test_a_misspelled_variable_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for the server, with what was probably meant."""
    monkeypatch.setenv("CHAINRULE_CLIENT_URI", "http://far.example")
    with pytest.raises(SettingsError, match="did you mean CHAINRULE_CLIENT_URL"):
        ServerAddress.find(None, None)


def test_the_commands_variables_do_not_disturb_the_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both may be set up by one environment; a key for asking is no key that opens."""
    monkeypatch.setenv("CHAINRULE_CLIENT_URL", "http://far.example")
    monkeypatch.setenv("CHAINRULE_CLIENT_API_KEY", "k")
    assert Settings.read().keys() == ()


def test_a_password_is_neither_taken_nor_shown() -> None:
    """Not in a URL, and a key not in what is printed of an address."""
    with pytest.raises(SettingsError, match="password") as raised:
        ServerAddress.find("http://user:hunter2@far.example", None)
    assert "hunter2" not in str(raised.value)
    assert "hunter2" not in repr(ServerAddress("http://far.example", "hunter2"))
