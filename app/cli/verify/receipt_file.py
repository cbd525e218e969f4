"""A receipt from a file that anybody may have written: read in full, or refused in one line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from app.client import InvalidRequest
from app.http.strict_json import JsonError, parse_json
from app.schemas.bounds import (
    MAX_CANDIDATES,
    MAX_LENGTH_PENALTY,
    MAX_MODEL_NAME_CHARS,
    MAX_TOKEN_ID,
)
from app.schemas.receipt import Receipt, ReceiptCandidate

FORMAT_VERSION: Final = 1
"""Of the receipts that are read."""

MAX_FILE_BYTES: Final = 64 << 20
"""A saved response with the largest receipt, and every token listed beside it, is smaller."""

LARGEST: Final = 3.4028234663852886e38
"""The largest finite float32: no log-probability is farther from 0."""


class NoReceipt(Exception):
    """The file holds no receipt. The message is one line and says why."""


class OtherFormat(Exception):
    """It holds one of a format that this version does not read."""


def read_receipt(name: str) -> Receipt:
    """The receipt in a file, alone or within a response; ``-`` is standard input.

    Raises:
        OSError: the file cannot be read.
        NoReceipt, OtherFormat: see there.
    """
    return parse_receipt(_content(name))


def parse_receipt(content: bytes) -> Receipt:
    """The receipt in the bytes of a file.

    Raises:
        NoReceipt, OtherFormat: see there.
    """
    if len(content) > MAX_FILE_BYTES:
        raise NoReceipt(f"the file is longer than {MAX_FILE_BYTES} bytes")
    try:
        value = parse_json(content, "the file")
    except JsonError as error:
        raise NoReceipt(str(error) if error.key is None else f"{error.key}: {error}") from None
    if isinstance(value, dict) and "receipt" in value:
        value = value["receipt"]
    if not isinstance(value, dict) or "format_version" not in value:
        raise NoReceipt(
            "the file holds no receipt; an answer of /v1/score has one where receipt is true"
        )
    _check_format(value["format_version"])
    try:
        # A newer server may add fields, which say nothing about the others.
        receipt = Receipt.model_validate(value, strict=True, extra="ignore")
    except ValidationError as error:
        raise NoReceipt(str(InvalidRequest.of(error, value))) from None
    for problem in _problems(receipt):
        raise NoReceipt(problem)
    return receipt


def _content(name: str) -> bytes:
    if name == "-":
        return sys.stdin.buffer.read(MAX_FILE_BYTES + 1)
    with Path(name).open("rb") as file:
        return file.read(MAX_FILE_BYTES + 1)


def _check_format(version: Any) -> None:
    if type(version) is not int:
        raise NoReceipt("format_version: it is no integer")
    if version != FORMAT_VERSION:
        raise OtherFormat(
            f"the receipt is of format {_short(version)}; this chainrule reads {FORMAT_VERSION}"
        )


def _problems(receipt: Receipt) -> Iterator[str]:
    """What no receipt can be, whatever the model says."""
    for name in ("chainrule_version", "model", "fingerprint", "dtype"):
        if len(getattr(receipt, name)) > MAX_MODEL_NAME_CHARS:
            yield f"{name}: it is longer than {MAX_MODEL_NAME_CHARS} characters"
    yield from _alpha_problems(receipt)
    yield from _prefix_problems(receipt)
    yield from _bad_ids("end_token_ids", receipt.end_token_ids)
    yield from _bad_indices("left_out", receipt.left_out)
    yield from _bad_indices("candidates", [one.index for one in receipt.candidates])
    if not receipt.candidates:
        yield "candidates: there is none"
    for place, one in enumerate(receipt.candidates):
        yield from _candidate_problems(f"candidates.{place}", one, receipt)


def _alpha_problems(receipt: Receipt) -> Iterator[str]:
    alpha = receipt.gnmt_alpha
    if alpha is not None and not 0 <= alpha <= MAX_LENGTH_PENALTY:
        yield f"gnmt_alpha: {alpha} is not between 0 and {MAX_LENGTH_PENALTY:g}"
    if (alpha is None) is (receipt.normalization == "gnmt"):
        yield "gnmt_alpha: it stands where normalization is gnmt, and only there"


def _prefix_problems(receipt: Receipt) -> Iterator[str]:
    if not receipt.prefixes or not all(receipt.prefixes):
        yield "prefixes: a candidate stands behind one token at least"
    if (receipt.normalization in ("pmi", "calibrated")) is (len(receipt.prefixes) == 1):
        yield f"prefixes: {len(receipt.prefixes)} for normalization {receipt.normalization}"
    for place, prefix in enumerate(receipt.prefixes):
        yield from _bad_ids(f"prefixes.{place}", prefix)


def _candidate_problems(place: str, one: ReceiptCandidate, receipt: Receipt) -> Iterator[str]:
    if not one.token_ids:
        yield f"{place}.token_ids: a candidate has one token at least"
    yield from _bad_ids(f"{place}.token_ids", one.token_ids)
    if len(one.baselines) != len(receipt.prefixes) - 1:
        yield f"{place}.baselines: {len(one.baselines)} for {len(receipt.prefixes)} prefixes"
    scored = len(one.token_ids) + bool(receipt.end_token_ids)
    lists = {f"{place}.logprobs": one.logprobs}
    lists |= {f"{place}.baselines.{n}.logprobs": b.logprobs for n, b in enumerate(one.baselines)}
    for name, logprobs in lists.items():
        if len(logprobs) != scored:
            yield f"{name}: {len(logprobs)} for {scored} scored tokens"
        if any(abs(logprob) > LARGEST for logprob in logprobs):
            yield f"{name}: one of them is no float32"
    is_divided = receipt.normalization in ("per_char", "per_byte")
    if (one.divisor is not None) is not is_divided:
        yield f"{place}.divisor: it stands where normalization is per_char or per_byte"
    if one.divisor is not None and not 1 <= one.divisor <= MAX_TOKEN_ID:
        yield f"{place}.divisor: {one.divisor} is not between 1 and {MAX_TOKEN_ID}"


def _bad_indices(place: str, indices: list[int]) -> Iterator[str]:
    if any(not 0 <= index < MAX_CANDIDATES for index in indices):
        yield f"{place}: one of them has no place among {MAX_CANDIDATES} candidates"
    if len(set(indices)) != len(indices):
        yield f"{place}: one of them stands twice"


def _bad_ids(place: str, token_ids: list[int]) -> Iterator[str]:
    for index, token_id in enumerate(token_ids):
        if not 0 <= token_id <= MAX_TOKEN_ID:
            yield f"{place}.{index}: no model has a token {_short(token_id)}"


def _short(number: int) -> str:
    text = str(number)
    return text if len(text) <= 24 else f"of {len(text)} digits"
