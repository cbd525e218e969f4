"""Where the orders of POST /v1/decisions come from: its field, its header, the server's setting."""

from __future__ import annotations

import pytest

from tests.app.compat.decisions.decision_calls import chat_engine, choice
from tests.app.conftest import client_of, shell_app

pytestmark = pytest.mark.anyio

BODY = {"input": "it", "questions": [choice("a", "ab", "x")]}


@pytest.mark.parametrize(
    ("field", "header", "setting", "orders"),
    [
        (None, None, "none", None),
        (None, None, "cyclic", 3),
        (None, "all", "cyclic", 6),
        (None, "none", "cyclic", None),
        ("cyclic", "all", "none", 3),
        ("none", "all", "cyclic", None),
    ],
)
async def test_the_field_goes_before_the_header_and_that_before_the_setting(
    field: str | None, header: str | None, setting: str, orders: int | None
) -> None:
    """As on /v1/systemone."""
    headers = {} if header is None else {"X-Chainrule-Debias": header}
    async with client_of(shell_app(chat_engine(), decision_debias=setting)) as client:
        response = await client.post(
            "/v1/decisions", json={**BODY, "debias": field}, headers=headers
        )
    assert response.status_code == 200, response.text
    (answer,) = response.json()["answers"]
    assert answer.get("orders", {}).get("count") == orders


async def test_a_header_that_is_no_order_is_refused() -> None:
    """By the header's name."""
    async with client_of(shell_app(chat_engine())) as client:
        response = await client.post(
            "/v1/decisions", json=BODY, headers={"X-Chainrule-Debias": "random"}
        )
    assert response.status_code == 422
    assert response.json()["error"]["param"] == "X-Chainrule-Debias"
