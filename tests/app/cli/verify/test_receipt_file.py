"""What ``chainrule verify`` reads: a receipt, alone or in an answer, and nothing that is none."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from app.cli.verify.receipt_file import (
    MAX_FILE_BYTES,
    NoReceipt,
    OtherFormat,
    parse_receipt,
    read_receipt,
)
from app.schemas.receipt import Receipt
from tests.app.in_process import client_over

Change = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def answer() -> str:
    """An answer of /v1/score, with a receipt of everything that one may hold."""
    with client_over() as client:
        response = client.score(
            context="it is",
            candidates=[" yes", " no", ""],
            append_eos=True,
            normalization="pmi",
            pmi_context="a",
            receipt=True,
        )
    return response.model_dump_json()


@pytest.fixture(scope="module")
def receipt(answer: str) -> dict[str, Any]:
    """The receipt alone."""
    return dict(json.loads(answer)["receipt"])


def changed(receipt: dict[str, Any], change: Change) -> bytes:
    """A file of the receipt with something in it changed."""
    other = copy.deepcopy(receipt)
    change(other)
    return json.dumps(other).encode()


def test_an_answer_and_its_receipt_read_alike(answer: str, receipt: dict[str, Any]) -> None:
    """Every float comes back as it was written."""
    read = parse_receipt(answer.encode())
    assert read == parse_receipt(json.dumps(receipt).encode())
    assert json.loads(read.model_dump_json()) == receipt
    assert read.left_out == [2] and read.end_token_ids and read.candidates[0].baselines


def test_what_a_newer_server_adds_is_not_read(receipt: dict[str, Any]) -> None:
    """Here and in what is inside."""

    def add(value: dict[str, Any]) -> None:
        value["colour"] = "blue"
        value["candidates"][0]["weight"] = 1

    assert parse_receipt(changed(receipt, add)) == Receipt.model_validate(receipt)


def test_another_format_is_told_from_no_receipt(receipt: dict[str, Any]) -> None:
    """Whatever else is in it: its fields may mean something else."""
    with pytest.raises(OtherFormat, match="of format 2"):
        parse_receipt(json.dumps({"format_version": 2, "paths": []}).encode())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not UTF-8"),
        (b"[" * 200_000, "nested too deep"),
        (b'{"receipt": ' * 20_000, "nested too deep"),
        (b"[]," * 300_000, "holds 300000 lists"),
        (b'{"receipt": {"format_version": 1, "prefixes": [[NaN]]}}', "NaN"),
        (b'{"receipt": {"format_version": 1, "format_version": 1}}', "twice"),
        (b'{"receipt": {"format_version": 1, "left_out": [1' + b"0" * 5000 + b"]}}", "digits"),
        (b"[1, 2]", "no receipt"),
        (b"null", "no receipt"),
        (b'{"receipt": null}', "no receipt"),
        (b'{"receipt": []}', "no receipt"),
        (b'{"object": "score", "results": []}', "receipt is true"),
        (b'{"format_version": "1"}', "format_version"),
        (b'{"format_version": true}', "format_version"),
        (b'{"format_version": 1}', "chainrule_version"),
        (b" " * (MAX_FILE_BYTES + 1), "longer than"),
    ],
)
def test_what_is_no_receipt_is_refused(content: bytes, words: str) -> None:
    """In one line that says why."""
    with pytest.raises(NoReceipt) as caught:
        parse_receipt(content)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_torn_file_is_refused_wherever_it_is_torn(answer: str) -> None:
    """Nothing of it is taken for the whole."""
    content = answer.encode()
    for length in range(0, len(content) - 1, 7):
        with pytest.raises(NoReceipt):
            parse_receipt(content[:length])


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda r: r["candidates"][0]["token_ids"].append(5), "candidates.0.logprobs"),
        (lambda r: r["candidates"][1]["logprobs"].pop(), "candidates.1.logprobs"),
        (lambda r: r["candidates"][0]["logprobs"].append("-1.0"), "candidates.0.logprobs"),
        (lambda r: r["candidates"][0]["logprobs"].__setitem__(0, True), "candidates.0.logprobs"),
        (lambda r: r["candidates"][0]["logprobs"].__setitem__(0, 1e39), "candidates.0.logprobs"),
        (lambda r: r["candidates"][0]["logprobs"].__setitem__(0, 10**400), "candidates.0"),
        (lambda r: r["candidates"][0]["token_ids"].__setitem__(0, 2**31), "candidates.0.token_ids"),
        (lambda r: r["candidates"][0]["token_ids"].__setitem__(0, 10**400), "candidates.0"),
        (lambda r: r["candidates"][0]["token_ids"].__setitem__(0, -1), "candidates.0.token_ids.0"),
        (lambda r: r["candidates"][0]["token_ids"].__setitem__(0, 1.5), "candidates.0.token_ids.0"),
        (lambda r: r["candidates"][0].update(token_ids=[], logprobs=[-1.0]), "candidates.0"),
        (lambda r: r["candidates"][0].update(baselines=[]), "candidates.0.baselines"),
        (lambda r: r["candidates"][0]["baselines"][0].update(logprobs=[]), "baselines.0.logprobs"),
        (lambda r: r["candidates"][0].update(divisor=3), "candidates.0.divisor"),
        (lambda r: r["candidates"][0].update(index=10**30), "candidates"),
        (lambda r: r["candidates"][1].update(index=0), "candidates"),
        (lambda r: r["candidates"].clear(), "candidates"),
        (lambda r: r["candidates"].append(7), "candidates.2"),
        (lambda r: r.update(candidates={}), "candidates"),
        (lambda r: r.update(left_out=[-1]), "left_out"),
        (lambda r: r.update(prefixes=[]), "prefixes"),
        (lambda r: r["prefixes"].pop(), "prefixes"),
        (lambda r: r["prefixes"][1].clear(), "prefixes"),
        (lambda r: r["prefixes"][1].append(10**12), "prefixes.1.1"),
        (lambda r: r["end_token_ids"].append("</s>"), "end_token_ids.1"),
        (lambda r: r.update(normalization="median"), "normalization"),
        (lambda r: r.update(normalization="sum"), "prefixes"),
        (lambda r: r.update(gnmt_alpha=0.6), "gnmt_alpha"),
        (lambda r: r.update(gnmt_alpha=1e308), "gnmt_alpha"),
        (lambda r: r.update(model="x" * 1000), "model"),
        (lambda r: r.update(model=["org/toy"]), "model"),
        (lambda r: r.pop("fingerprint"), "fingerprint"),
    ],
)
def test_a_receipt_that_cannot_be_one_is_refused_by_name(
    change: Change, place: str, receipt: dict[str, Any]
) -> None:
    """Counts that do not go together, numbers out of range, other types, what is missing."""
    with pytest.raises(NoReceipt) as caught:
        parse_receipt(changed(receipt, change))
    assert str(caught.value).startswith(place) or f".{place}: " in str(caught.value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("name", ["no-such-file", "."])
def test_a_file_that_cannot_be_read(name: str) -> None:
    """The system's own words."""
    with pytest.raises(OSError):
        read_receipt(name)
