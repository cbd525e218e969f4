"""Several names for one model."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from app.settings import Settings, SettingsError
from tests.app.conftest import client_of, shell_app
from tests.app.fake_engine import FakeEngine

pytestmark = pytest.mark.anyio

NAMES = ("org/toy", "default", "rerank-v3.5", "a name/with spaces")
ALIASED: list[tuple[str, dict[str, Any]]] = [
    ("/v1/score", {"context": "it", "candidates": [" is"]}),
    ("/v1/completions", {"prompt": "it is", "max_tokens": 1}),
    ("/v1/rerank", {"query": "it is", "documents": ["it"], "template": "{document}{query}"}),
    ("/tokenize", {"prompt": "it is"}),
]


@pytest.fixture
async def client(anyio_backend: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a server whose model goes by all of these."""
    async with client_of(shell_app(FakeEngine(), served_name=",".join(NAMES))) as client:
        yield client


async def test_all_are_listed_and_each_can_be_looked_up(client: httpx.AsyncClient) -> None:
    """The same model, but for its name."""
    listed = (await client.get("/v1/models")).json()["data"]
    assert [card["id"] for card in listed] == list(NAMES)
    assert all({**card, "id": ""} == {**listed[0], "id": ""} for card in listed)
    for card in listed:
        assert (await client.get(f"/v1/models/{card['id']}")).json() == card


@pytest.mark.parametrize(("path", "body"), ALIASED)
async def test_any_name_is_taken_and_the_answer_says_the_first(
    client: httpx.AsyncClient, path: str, body: dict[str, Any]
) -> None:
    """That is the model that answers, however it was called."""
    for name in (*NAMES, None):
        response = await client.post(path, json={**body, "model": name})
        assert response.status_code == 200, response.text
        assert response.json().get("model", NAMES[0]) == NAMES[0]


@pytest.mark.parametrize(("path", "body"), ALIASED)
async def test_any_other_name_is_refused_and_all_are_said(
    client: httpx.AsyncClient, path: str, body: dict[str, Any]
) -> None:
    """So that whoever asks for the wrong one learns the right ones."""
    response = await client.post(path, json={**body, "model": "Default"})
    assert response.status_code == 404
    words = "The model 'Default' is not served here; 'org/toy' and 'default' and 'rerank-v3.5'"
    assert words in response.text


def test_names_are_read_from_one_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Separated by commas; the engine has the first."""
    monkeypatch.setenv("CHAINRULE_SERVED_NAME", "mine, default,unknown")
    settings = Settings.read()
    assert settings.served_name == ("mine", "default", "unknown")
    assert settings.engine_config().served_name == "mine"
    assert Settings.read({"served_name": "one"}).engine_config().served_name == "one"
    monkeypatch.delenv("CHAINRULE_SERVED_NAME")
    assert Settings.read().engine_config().served_name is None


@pytest.mark.parametrize(
    ("names", "words"),
    [("a,,b", "a name has 1 to 512"), ("a,b,a", "twice"), ("x" * 513, "a name has 1 to 512")],
)
def test_names_that_nobody_could_ask_for_are_refused(names: str, words: str) -> None:
    """In one line that names the setting."""
    with pytest.raises(SettingsError, match=f"CHAINRULE_SERVED_NAME.*{words}"):
        Settings.read({"served_name": names})
