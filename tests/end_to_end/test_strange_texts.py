"""Texts that few models have seen, through a real server with a real tokenizer."""

from __future__ import annotations

import threading
import time
from typing import Any

import httpx
import pytest

from tests.end_to_end.live_server import LiveServer

pytestmark = pytest.mark.process

MEGABYTE = 1_000_000
ORDINARY = "It is raining and it isn't cold; this isn't that, it isn't here. "
TEXTS = {
    "NUL": "a\0b\0",
    "BOM": "\ufeffIt is raining",
    "BOM inside": "It is\ufeff raining",
    "right to left": "\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd",
    "Arabic": "\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645",
    "direction overrides": "it is \u202egniniar\u202c \u2066now\u2069",
    "combining marks": "Z\u0351\u036b\u0343\u036a\u0302\u036b",
    "joined emoji": "\U0001f469\u200d\U0001f469\u200d\U0001f467",
    "no characters": "\ufffe\uffff\U0010ffff",
    "controls": "\x01\x07\x1b[31m\x7f\x85\u2028",
}


@pytest.mark.parametrize("name", TEXTS)
def test_every_character_is_scored(tiny_server: LiveServer, name: str) -> None:
    """As context and as candidate: the tokens spell the text again, byte by byte."""
    text = TEXTS[name]
    body = {"context": text, "candidates": [text, " yes"], "token_logprobs": True}
    answer = tiny_server.post("/v1/score", body)
    scored, _ = answer["results"]
    assert scored["logprob"] < 0 and "error" not in scored
    ids = [token["id"] for token in scored["tokens"]]
    assert tiny_server.post("/detokenize", {"tokens": ids})["prompt"] == text
    assert tiny_server.post("/v1/decode", {"context": text, "max_tokens": 2})["sequences"]


def tokenized(server: LiveServer, text: str) -> tuple[float, int]:
    """Seconds that a text takes to be tokenized, and its tokens."""
    began = time.monotonic()
    answer = server.post("/tokenize", {"prompt": text})
    return time.monotonic() - began, answer["count"]


class Pulse:
    """Asks for the health of a server all the time, and counts the answers."""

    def __init__(self, server: LiveServer) -> None:
        self.answers = 0
        self._url = f"{server.url}/health/live"
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> Pulse:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _ask(self) -> None:
        with httpx.Client() as client:
            while not self._ended.is_set():
                self.answers += client.get(self._url).status_code == 200


@pytest.fixture(scope="module")
def ordinary_s(tiny_server: LiveServer) -> float:
    """Seconds for as much ordinary text."""
    return tokenized(tiny_server, (ORDINARY * MEGABYTE)[:MEGABYTE])[0]


@pytest.mark.parametrize("piece", ["a", "ab1", "\u05e9"], ids=ascii)
def test_a_megabyte_without_a_space_is_tokenized_in_time(
    tiny_server: LiveServer, ordinary_s: float, piece: str
) -> None:
    """It takes some times as long as ordinary text of that length, and the event loop is free."""
    endless = (piece * MEGABYTE)[: MEGABYTE // len(piece.encode())]
    with Pulse(tiny_server) as pulse:
        endless_s, count = tokenized(tiny_server, endless)
    assert 0 < count <= MEGABYTE
    assert endless_s < 20 * ordinary_s
    assert pulse.answers > 5


def test_a_megabyte_without_a_space_is_refused_where_it_does_not_fit(
    tiny_server: LiveServer,
) -> None:
    """On every route that takes a context; none of it is cut off."""
    text = "a" * MEGABYTE
    bodies: dict[str, dict[str, Any]] = {
        "/v1/score": {"context": text, "candidates": [" yes"]},
        "/v1/next_token": {"context": text},
        "/v1/decode": {"context": text},
        "/v1/completions": {"prompt": text},
        "/v1/chat/completions": {"messages": [{"role": "user", "content": text}]},
    }
    for path, body in bodies.items():
        response = tiny_server.client.post(path, json=body)
        assert response.status_code == 422, response.text
